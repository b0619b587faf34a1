/* index_file: snapshots of index.h.
 *
 * A file: the head; ids and dead of the base; the tail; what FAISS wrote of the base; if it left
 * out the vectors, their codes and then they, each at a page's beginning; a sum of each block of
 * all that. Searches can begin when everything but the vectors is read and checked. The vectors are
 * used where they lie, and a thread checks them meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/brain/index_inside.h"

#define SNAPSHOT_MAGIC 0x5845444e49474133ULL /* also tells the other byte order */
#define SNAPSHOT_VERSION 4
#define SNAPSHOT_ALIGN 4096 /* of codes and vectors */

typedef struct snapshot {
    uint64_t magic;
    uint32_t version, dims;
    uint64_t generation, last_id;
    uint64_t base_count, tail_count, faiss_at;
    uint64_t codes_at, vectors_at; /* 0: the vectors are inside what FAISS wrote */
    uint64_t sums_at;              /* of every block before it */
    uint64_t size;
    char factory[NAME_MAX_BYTES], model[NAME_MAX_BYTES];
    int32_t ef_search, ef_construction, nprobe, any;
    uint64_t sums_hash, head_hash; /* head_hash is of everything before it */
} snapshot_t;

/* A block's sum does not count the head, which is written last. */
enum { BLOCK = 1 << 20, THREADS = 4, CHECK_NICE = 5 };

static size_t blocks_of(uint64_t bytes)
{
    return (size_t)((bytes + BLOCK - 1) / BLOCK);
}

/* Four lanes, because one multiply at a time is slower than the disk. */
static uint64_t hash_bytes(const uint8_t *data, size_t size)
{
    const uint64_t prime = 0x9e3779b97f4a7c15ULL;
    uint64_t lanes[4] = {prime, prime * 3, prime * 5, prime * 7 ^ size}, word[4];
    size_t at = 0;

    for (; at + 32 <= size; at += 32) {
        memcpy(word, data + at, 32);
        for (int i = 0; i < 4; i++) {
            lanes[i] = (lanes[i] ^ word[i]) * prime;
            lanes[i] ^= lanes[i] >> 31;
        }
    }
    for (; at < size; at++)
        lanes[at % 4] = (lanes[at % 4] ^ data[at]) * prime;
    for (int i = 1; i < 4; i++)
        lanes[0] = ((lanes[0] ^ lanes[i]) * prime) ^ (lanes[0] >> 29);
    return lanes[0] ^ lanes[0] >> 32;
}

static uint64_t block_sum(const uint8_t *file, uint64_t end, size_t block)
{
    size_t from = block ? block * BLOCK : sizeof(snapshot_t), to = (block + 1) * BLOCK;

    return hash_bytes(file + from, (to < end ? to : end) - from);
}

static void write_tail(const index_view_t *view, FILE *file)
{
    for (size_t at = 0; at < view->tail_count; at++)
        if (!index_tail_is_dead(view->chunks, at)) {
            uint64_t id = index_tail_id(view->chunks, at);
            fwrite(&id, sizeof id, 1, file);
            fwrite(index_tail_vector(view->chunks, view->options.dims, at), sizeof(float),
                   view->options.dims, file);
        }
}

static snapshot_t snapshot_of(const index_view_t *view, uint64_t generation)
{
    snapshot_t head;

    memset(&head, 0, sizeof head);
    head.magic = SNAPSHOT_MAGIC;
    head.version = SNAPSHOT_VERSION;
    head.dims = view->options.dims;
    head.generation = generation;
    head.last_id = view->last_id;
    head.base_count = view->base ? view->base->count : 0;
    memcpy(head.factory, view->factory, sizeof head.factory);
    memcpy(head.model, view->model, sizeof head.model);
    head.ef_search = view->options.ef_search;
    head.ef_construction = view->options.ef_construction;
    head.nprobe = view->options.nprobe;
    head.any = view->tail_count || view->base;
    return head;
}

static err_t io_error(void)
{
    return errno == ENOSPC || errno == EDQUOT
               ? err_of(ERR_FULL, "the disk is full: the index snapshot was not written")
               : err_of(ERR_IO, "the index snapshot could not be written");
}

static uint64_t round_up(uint64_t at)
{
    return (at + SNAPSHOT_ALIGN - 1) / SNAPSHOT_ALIGN * SNAPSHOT_ALIGN;
}

/* Where the next part begins; 0: the file cannot be written. */
static uint64_t next_part(FILE *file)
{
    uint64_t at = (uint64_t)ftell(file), to = round_up(at);

    for (; at < to; at++)
        if (fputc(0, file) == EOF)
            return 0;
    return to;
}

/* The graph and, behind it, codes and vectors: who loads these need not make or copy them. */
static err_t write_base(const index_base_t *base, uint32_t dims, FILE *file, snapshot_t *head)
{
    FaissIndex *graph = NULL;

    if (faiss_shim_graph(base->faiss, &graph))
        return err_of(ERR_INTERNAL, "FAISS could not copy the graph");
    int failed = faiss_write_index(graph ? graph : base->faiss, file);
    if (graph)
        faiss_Index_free(graph);
    if (failed)
        return io_error();
    if (!graph)
        return err_ok();
    head->codes_at = next_part(file);
    fwrite(base->codes, codes_stride(dims), base->count, file);
    head->vectors_at = next_part(file);
    fwrite(base->vectors, sizeof(float) * dims, base->count, file);
    return head->codes_at && head->vectors_at ? err_ok() : io_error();
}

/* The tail is written while the writer may bury ids in it, so it is counted by its bytes. */
static err_t write_body(const index_view_t *view, FILE *file, snapshot_t *head)
{
    const index_base_t *base = view->base;

    fwrite(head, sizeof *head, 1, file);
    if (base) {
        fwrite(base->ids, sizeof *base->ids, base->count, file);
        for (size_t byte = 0; byte <= base->count / 8; byte++)
            fputc(atomic_load_explicit(&base->dead[byte], memory_order_relaxed), file);
    }
    long start = ftell(file);
    write_tail(view, file);
    head->faiss_at = (uint64_t)ftell(file);
    head->tail_count = (head->faiss_at - (uint64_t)start) /
                       (sizeof(uint64_t) + sizeof(float) * view->options.dims);
    if (base && !ferror(file)) {
        err_t err = write_base(base, view->options.dims, file, head);
        if (err_is(err))
            return err;
    }
    if (fflush(file) || ferror(file))
        return io_error();
    head->sums_at = (uint64_t)ftell(file);
    return err_ok();
}

/* Behind the body the sums of its blocks; then the head in its place: a torn file never verifies.
 */
static err_t seal(int fd, snapshot_t *head)
{
    size_t count = blocks_of(head->sums_at), bytes = count * sizeof(uint64_t);
    uint8_t *map = mmap(NULL, head->sums_at, PROT_READ, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED)
        return io_error();
    uint64_t *sums = index_grab(bytes);
    for (size_t block = 0; block < count; block++)
        sums[block] = block_sum(map, head->sums_at, block);
    munmap(map, head->sums_at);
    head->size = head->sums_at + bytes;
    head->sums_hash = hash_bytes((const uint8_t *)sums, bytes);
    head->head_hash = hash_bytes((const uint8_t *)head, offsetof(snapshot_t, head_hash));
    bool failed = pwrite(fd, sums, bytes, (off_t)head->sums_at) != (ssize_t)bytes ||
                  pwrite(fd, head, sizeof *head, 0) != (ssize_t)sizeof *head || fdatasync(fd);
    free(sums);
    return failed ? io_error() : err_ok();
}

/* Two may save at once: each has a file of its own, and the last one's stays. */
err_t index_save(const index_view_t *view, const char *path, uint64_t generation)
{
    char part[4096];
    snapshot_t head = snapshot_of(view, generation);

    if (view->base && !index_base_is_sound(view->base))
        return err_of(ERR_CORRUPT, "the index snapshot failed its check");
    if (snprintf(part, sizeof part, "%s" INDEX_PART "XXXXXX", path) >= (int)sizeof part)
        return err_of(ERR_ARGUMENT, "the path of the index snapshot is too long");
    int fd = mkstemp(part);
    FILE *file = fd >= 0 ? fdopen(fd, "w+b") : NULL;
    if (!file) {
        err_t err = io_error();
        if (fd >= 0) {
            close(fd);
            unlink(part);
        }
        return err;
    }
    err_t err = write_body(view, file, &head);
    if (!err_is(err))
        err = seal(fd, &head);
    if (fclose(file) && !err_is(err))
        err = io_error();
    if (!err_is(err) && rename(part, path))
        err = io_error();
    if (err_is(err))
        unlink(part);
    return err;
}

/* ---- loading ---- */

/* Are the parts where the head says? */
static bool has_parts(const snapshot_t *head)
{
    uint64_t vectors = head->base_count * sizeof(float) * head->dims;
    uint64_t codes = head->base_count * codes_stride(head->dims);

    return head->sums_at >= sizeof *head && head->sums_at <= head->size &&
           head->size - head->sums_at == blocks_of(head->sums_at) * sizeof(uint64_t) &&
           (!head->vectors_at || (head->codes_at && head->codes_at % SNAPSHOT_ALIGN == 0 &&
                                  round_up(head->codes_at + codes) == head->vectors_at &&
                                  head->vectors_at + vectors == head->sums_at));
}

static err_t check_head(const index_t *index, const snapshot_t *head, size_t size)
{
    if (head->magic != SNAPSHOT_MAGIC)
        return err_of(ERR_CORRUPT, "the file is not an index snapshot");
    if (head->version != SNAPSHOT_VERSION)
        return err_of(ERR_VERSION, "the index snapshot has another format");
    if (head->head_hash != hash_bytes((const uint8_t *)head, offsetof(snapshot_t, head_hash)) ||
        head->size != size || !has_parts(head))
        return err_of(ERR_CORRUPT, "the index snapshot is torn");
    if (head->dims != index->options.dims || strcmp(head->factory, index->factory) != 0 ||
        strcmp(head->model, index->model) != 0 ||
        head->ef_construction != index->options.ef_construction)
        return err_of(ERR_VERSION, "the index snapshot was made with other settings");
    return err_ok();
}

/* A snapshot that is being read. Threads check its blocks one by one, and copy the codes in a block
 * while it is in the cache. */
typedef struct reading {
    const snapshot_t *head;
    uint8_t *map; /* who keeps it sets NULL */
    uint64_t *sums;
    uint8_t *codes;     /* NULL: there are none in the file */
    size_t until;       /* blocks before this one are to be checked now */
    atomic_size_t next; /* block that nobody has taken */
    atomic_bool damaged;
} reading_t;

static void copy_codes(const reading_t *reading, size_t block)
{
    const snapshot_t *head = reading->head;
    uint64_t at = head->codes_at, end = at + head->base_count * codes_stride(head->dims);
    uint64_t from = (uint64_t)block * BLOCK, to = from + BLOCK;

    from = from > at ? from : at;
    to = to < end ? to : end;
    if (from < to)
        memcpy(reading->codes + (from - at), reading->map + from, to - from);
}

static void *check_blocks(void *ctx)
{
    reading_t *reading = ctx;

    for (;;) {
        size_t block = atomic_fetch_add(&reading->next, 1);
        if (block >= reading->until || atomic_load(&reading->damaged))
            return NULL;
        if (block_sum(reading->map, reading->head->sums_at, block) != reading->sums[block])
            atomic_store(&reading->damaged, true);
        if (reading->codes)
            copy_codes(reading, block);
    }
}

typedef struct crew {
    pthread_t threads[THREADS];
    size_t count;
} crew_t;

/* Threads that check up to `until`; the caller goes on and does the same, or joins. */
static void crew_start(crew_t *crew, reading_t *reading, size_t from, size_t until)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    atomic_store(&reading->next, from);
    reading->until = until;
    crew->count = 0;
    while (crew->count + 1 < THREADS && (long)crew->count + 1 < processors &&
           crew->count + 1 < until - from) {
        if (pthread_create(&crew->threads[crew->count], NULL, check_blocks, reading))
            break;
        crew->count++;
    }
}

static void crew_join(crew_t *crew, reading_t *reading)
{
    check_blocks(reading);
    for (size_t i = 0; i < crew->count; i++)
        pthread_join(crew->threads[i], NULL);
}

/* The parts of a snapshot whose sums were found right. */
static bool load_graph(const index_t *index, const snapshot_t *head, FILE *file, index_base_t *base)
{
    return !fseek(file, (long)head->faiss_at, SEEK_SET) &&
           !faiss_read_index(file, 0, &base->faiss) &&
           !faiss_shim_set_breadth(base->faiss, index->options.ef_search, 0, index->options.nprobe);
}

static void load_tail(const snapshot_t *head, const uint8_t *at, tail_t *tail)
{
    size_t vector_bytes = sizeof(float) * head->dims;

    for (uint64_t i = 0; i < head->tail_count; i++, at += sizeof(uint64_t) + vector_bytes) {
        uint64_t id;
        float vector[INDEX_DIMS_MAX];
        memcpy(&id, at, sizeof id);
        memcpy(vector, at + sizeof id, vector_bytes);
        index_tail_place(tail, head->dims, id, vector);
        tail->count++;
    }
}

/* ---- the vectors, while they are in use ---- */

struct index_check {
    pthread_t thread;
    atomic_bool stop, damaged, sound; /* neither of the latter: not known yet */
    const uint8_t *map;
    uint64_t *sums, end; /* owned; where the blocks end */
    size_t from, until;
};

static bool blocks_are_right(const index_check_t *check)
{
    for (size_t block = check->from; block < check->until; block++)
        if (atomic_load(&check->stop) || atomic_load(&check->damaged) ||
            block_sum(check->map, check->end, block) != check->sums[block])
            return false;
    return true;
}

static void *check_on(void *ctx)
{
    index_check_t *check = ctx;

    setpriority(PRIO_PROCESS, (id_t)gettid(), CHECK_NICE);
    if (blocks_are_right(check))
        atomic_store(&check->sound, true);
    else if (!atomic_load(&check->stop))
        atomic_store(&check->damaged, true);
    return NULL;
}

/* Takes over the sums. */
static bool check_start(index_base_t *base, reading_t *reading, size_t from)
{
    index_check_t *check = index_grab(sizeof *check);

    *check = (index_check_t){.map = reading->map,
                             .sums = reading->sums,
                             .end = reading->head->sums_at,
                             .from = from,
                             .until = blocks_of(reading->head->sums_at)};
    if (pthread_create(&check->thread, NULL, check_on, check)) {
        free(check);
        return false;
    }
    reading->sums = NULL;
    base->check = check;
    return true;
}

void index_check_end(index_check_t *check)
{
    if (!check)
        return;
    atomic_store(&check->stop, true);
    pthread_join(check->thread, NULL);
    free(check->sums);
    free(check);
}

bool index_check_failed(const index_check_t *check)
{
    return check && atomic_load(&check->damaged);
}

bool index_base_is_sound(const index_base_t *base)
{
    return !base->check || atomic_load(&base->check->sound) || blocks_are_right(base->check);
}

/* Everything but the vectors, and these as well when they are few. */
static err_t load_base(const index_t *index, reading_t *reading, FILE *file, index_base_t *base)
{
    enum { FEW = 8 };
    const snapshot_t *head = reading->head;
    const uint8_t *at = reading->map + sizeof *head;
    crew_t crew;
    size_t all = blocks_of(head->sums_at);
    size_t first = head->vectors_at ? blocks_of(head->vectors_at) : all;

    if (all - first <= FEW)
        first = all;
    if (head->vectors_at)
        base->codes = reading->codes = index_codes_new(head->dims, head->base_count);
    crew_start(&crew, reading, 0, first);
    crew_join(&crew, reading);
    if (atomic_load(&reading->damaged))
        return err_of(ERR_CORRUPT, "the index snapshot failed its check");
    base->count = head->base_count;
    memcpy(base->ids, at, head->base_count * sizeof(uint64_t));
    memcpy((void *)base->dead, at + head->base_count * sizeof(uint64_t), head->base_count / 8 + 1);
    if (!load_graph(index, head, file, base))
        return err_of(ERR_CORRUPT, "FAISS could not read the index snapshot");
    if (first < all && !check_start(base, reading, first))
        return err_of(ERR_BUSY, "no thread could be started to check the index snapshot");
    if (head->vectors_at) {
        base->vectors = (const float *)(const void *)(reading->map + head->vectors_at);
        base->map = reading->map;
        base->map_size = head->size;
        reading->map = NULL;
    }
    if (err_is(index_base_finish(base, head->dims)))
        return err_of(ERR_CORRUPT, "FAISS could not read the index snapshot");
    return err_ok();
}

static err_t load_body(index_t *index, reading_t *reading, FILE *file)
{
    const snapshot_t *head = reading->head;
    const uint8_t *tail_at = reading->map + sizeof *head;
    index_base_t *base = NULL;
    err_t err = err_ok();

    if (head->base_count) {
        tail_at += head->base_count * sizeof(uint64_t) + head->base_count / 8 + 1;
        base = index_base_new(head->base_count);
        err = load_base(index, reading, file, base);
    } else {
        crew_t alone = {.count = 0};
        reading->until = blocks_of(head->sums_at);
        crew_join(&alone, reading);
        if (atomic_load(&reading->damaged))
            err = err_of(ERR_CORRUPT, "the index snapshot failed its check");
    }
    if (err_is(err)) {
        index_base_release(base);
        return err;
    }
    load_tail(head, tail_at, index->tail);
    pthread_mutex_lock(&index->lock);
    index->base = base;
    index->base_dead = base ? index_base_dead(base) : 0;
    index->last_id = head->last_id;
    index->any = head->any;
    pthread_mutex_unlock(&index->lock);
    return err_ok();
}

static err_t read_sums(FILE *file, const snapshot_t *head, uint64_t **sums)
{
    size_t count = blocks_of(head->sums_at), bytes = count * sizeof **sums;

    *sums = index_grab(bytes);
    if (fseek(file, (long)head->sums_at, SEEK_SET) ||
        fread(*sums, sizeof **sums, count, file) != count ||
        hash_bytes((const uint8_t *)*sums, bytes) != head->sums_hash)
        return err_of(ERR_CORRUPT, "the index snapshot failed its check");
    return err_ok();
}

/* Whoever else shortens the file while it is mapped ends the process, as with the store's own. */
static err_t load_file(index_t *index, FILE *file, uint64_t *generation)
{
    struct stat info;
    snapshot_t head;

    if (fstat(fileno(file), &info))
        return err_of(ERR_IO, "the index snapshot could not be read");
    size_t size = (size_t)info.st_size;
    if (size < sizeof head || fread(&head, sizeof head, 1, file) != 1)
        return err_of(ERR_CORRUPT, "the index snapshot is torn");
    err_t err = check_head(index, &head, size);
    if (err_is(err))
        return err;
    posix_fadvise(fileno(file), 0, (off_t)head.vectors_at, POSIX_FADV_WILLNEED); /* 0: all of it */
    reading_t reading = {.head = &head};
    err = read_sums(file, &head, &reading.sums);
    if (!err_is(err)) {
        reading.map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fileno(file), 0);
        err = reading.map == MAP_FAILED ? err_of(ERR_IO, "the index snapshot could not be read")
                                        : load_body(index, &reading, file);
        if (reading.map && reading.map != MAP_FAILED)
            munmap(reading.map, size);
    }
    free(reading.sums);
    if (!err_is(err))
        *generation = head.generation;
    return err;
}

err_t index_load(index_t *index, const char *path, uint64_t *generation)
{
    if (index->any)
        return err_of(ERR_STATE, "a snapshot is loaded into an empty index only");
    FILE *file = fopen(path, "rb");
    if (!file)
        return errno == ENOENT ? err_of(ERR_NOT_FOUND, "there is no index snapshot")
                               : err_of(ERR_IO, "the index snapshot could not be opened");
    err_t err = load_file(index, file, generation);
    fclose(file);
    return err;
}
