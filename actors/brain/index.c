#include "actors/brain/index.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/brain/codes.h"
#include "actors/brain/faiss_shim.h"
#include "actors/brain/simd.h"

#define CHUNK 1024      /* vectors in one piece of the tail */
#define BUILD_BATCH 500 /* vectors FAISS gets at once; single adds are half as fast */
#define EXACT_MAX 10000 /* measured: see bench_brain */
#define TAIL_MIN 2048   /* a smaller tail costs less to scan than a build to make */
#define TAIL_MOST                                                                                  \
    8192 /* a larger one costs each search more than a build, however large the base */
#define EF_SEARCH 48
#define EF_CONSTRUCTION 80
#define NPROBE 16
#define SAMPLE 256 /* ids asked to learn how much a filter lets through */
#define NAME_MAX_BYTES 96

typedef struct chunk {
    uint64_t ids[CHUNK];
    _Atomic uint8_t dead[CHUNK / 8];
    uint8_t *codes; /* behind this, and behind them the vectors */
    float *vectors;
} chunk_t;

/* The flat part. The writer appends; readers look no further than the count of their view. A
 * directory that grew too small is kept until the end, because a reader may be walking it. */
typedef struct tail {
    atomic_uint refs;
    chunk_t **chunks;
    size_t count, capacity; /* vectors; directory entries */
    chunk_t ***retired;
    size_t retired_count;
} tail_t;

struct index_base {
    atomic_uint refs;
    FaissIndex *faiss;
    const float *vectors; /* inside faiss or the map, or NULL: reconstruct */
    void *map;            /* of the snapshot that it came from, if that has the vectors */
    size_t map_size;
    tail_t *carried; /* copied for the swap */
    uint8_t *codes;  /* of the vectors, by slot; NULL when these are */
    uint64_t *ids;
    _Atomic uint8_t *dead;
    size_t count;
    uint64_t covers;     /* every id up to this one is here or was dead */
    uint64_t from_epoch; /* of the view it was built from */
};

struct index {
    pthread_mutex_t lock; /* over base, tail, epoch and the counts, against index_acquire */
    index_options_t options;
    char factory[NAME_MAX_BYTES], model[NAME_MAX_BYTES];
    index_base_t *base;
    tail_t *tail;
    uint64_t last_id, epoch;
    size_t base_dead, tail_dead;
    uint64_t drops; /* ever: tells index_swap that it must look again */
    bool any;       /* last_id means something */
};

struct index_view {
    index_options_t options;
    char factory[NAME_MAX_BYTES], model[NAME_MAX_BYTES];
    index_base_t *base;
    tail_t *tail;
    chunk_t **chunks;
    size_t tail_count, base_dead;
    uint64_t last_id, epoch;
};

static void *grab(size_t size)
{
    void *memory = calloc(1, size ? size : 1);

    if (!memory)
        abort();
    return memory;
}

static bool bit_get(const _Atomic uint8_t *bits, size_t at)
{
    uint8_t byte = atomic_load_explicit(&bits[at / 8], memory_order_relaxed);

    return byte >> (at % 8) & 1;
}

static bool bit_set(_Atomic uint8_t *bits, size_t at)
{
    uint8_t mask = (uint8_t)(1U << (at % 8));

    return !(atomic_fetch_or_explicit(&bits[at / 8], mask, memory_order_relaxed) & mask);
}

/* ---- tail ---- */

static tail_t *tail_new(void)
{
    tail_t *tail = grab(sizeof *tail);

    atomic_init(&tail->refs, 1);
    return tail;
}

static void tail_release(tail_t *tail)
{
    if (!tail || atomic_fetch_sub(&tail->refs, 1) != 1)
        return;
    for (size_t i = 0; i * CHUNK < tail->count; i++)
        free(tail->chunks[i]);
    for (size_t i = 0; i < tail->retired_count; i++)
        free(tail->retired[i]);
    free(tail->retired);
    free(tail->chunks);
    free(tail);
}

static size_t chunk_head(void)
{
    return (sizeof(chunk_t) + CODES_ALIGN - 1) / CODES_ALIGN * CODES_ALIGN;
}

static size_t chunk_bytes(uint32_t dims)
{
    return chunk_head() + (codes_stride(dims) + sizeof(float) * dims) * CHUNK;
}

static chunk_t *chunk_new(uint32_t dims)
{
    chunk_t *chunk = aligned_alloc(CODES_ALIGN, chunk_bytes(dims));

    if (!chunk)
        abort();
    memset(chunk, 0, sizeof *chunk);
    chunk->codes = (uint8_t *)chunk + chunk_head();
    chunk->vectors = (float *)(void *)(chunk->codes + codes_stride(dims) * CHUNK);
    return chunk;
}

static void tail_grow(tail_t *tail)
{
    size_t capacity = tail->capacity ? tail->capacity * 2 : 8;
    chunk_t **chunks = grab(capacity * sizeof *chunks);

    if (tail->chunks) {
        memcpy(chunks, tail->chunks, tail->capacity * sizeof *chunks);
        tail->retired = realloc(tail->retired, (tail->retired_count + 1) * sizeof *tail->retired);
        if (!tail->retired)
            abort();
        tail->retired[tail->retired_count++] = tail->chunks;
    }
    tail->chunks = chunks;
    tail->capacity = capacity;
}

/* Writes behind everything readers look at; the count is raised by the caller under the lock. */
static void tail_place(tail_t *tail, uint32_t dims, uint64_t id, const float *vector)
{
    size_t at = tail->count, chunk = at / CHUNK, slot = at % CHUNK;

    if (chunk == tail->capacity)
        tail_grow(tail);
    if (slot == 0)
        tail->chunks[chunk] = chunk_new(dims);
    tail->chunks[chunk]->ids[slot] = id;
    memcpy(tail->chunks[chunk]->vectors + slot * dims, vector, sizeof(float) * dims);
    codes_put(tail->chunks[chunk]->codes + slot * codes_stride(dims), vector, dims);
}

static uint64_t tail_id(chunk_t *const *chunks, size_t at)
{
    return chunks[at / CHUNK]->ids[at % CHUNK];
}

static bool tail_is_dead(chunk_t *const *chunks, size_t at)
{
    return bit_get(chunks[at / CHUNK]->dead, at % CHUNK);
}

static const float *tail_vector(chunk_t *const *chunks, uint32_t dims, size_t at)
{
    return chunks[at / CHUNK]->vectors + (at % CHUNK) * dims;
}

static bool tail_find(chunk_t *const *chunks, size_t count, uint64_t id, size_t *at)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tail_id(chunks, middle) < id)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return low < count && tail_id(chunks, low) == id;
}

/* ---- base ---- */

static index_base_t *base_new(size_t count)
{
    index_base_t *base = grab(sizeof *base);

    atomic_init(&base->refs, 1);
    base->ids = grab(count * sizeof *base->ids);
    base->dead = grab(count / 8 + 1);
    return base;
}

static void base_release(index_base_t *base)
{
    if (!base || atomic_fetch_sub(&base->refs, 1) != 1)
        return;
    if (base->faiss)
        faiss_Index_free(base->faiss);
    if (base->map)
        munmap(base->map, base->map_size);
    tail_release(base->carried);
    free(base->codes);
    free(base->ids);
    free((void *)base->dead);
    free(base);
}

void index_base_destroy(index_base_t **base)
{
    base_release(*base);
    *base = NULL;
}

static bool base_find(const index_base_t *base, uint64_t id, size_t *at)
{
    size_t low = 0, high = base ? base->count : 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (base->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return base && low < base->count && base->ids[low] == id;
}

/* `room` holds dims floats for kinds of index that must put the vector together first. */
static const float *base_vector(const index_base_t *base, uint32_t dims, size_t at, float *room)
{
    if (base->vectors)
        return base->vectors + at * dims;
    return faiss_Index_reconstruct(base->faiss, (idx_t)at, room) == 0 ? room : NULL;
}

/* ---- life ---- */

static bool factory_is(const char *factory, const char *kind)
{
    size_t size = strlen(kind);

    return strncmp(factory, kind, size) == 0;
}

static bool factory_keeps_vectors(const char *factory)
{
    char end = 0;
    int number = 0;

    if (strcmp(factory, "Flat") == 0)
        return true;
    if (factory_is(factory, "HNSW"))
        return sscanf(factory, "HNSW%d%c", &number, &end) == 1 && number >= 2 && number <= 128;
    if (factory_is(factory, "IVF")) {
        const char *rest = strchr(factory, ',');
        return rest && strcmp(rest, ",Flat") == 0 &&
               sscanf(factory, "IVF%d%c", &number, &end) == 2 && end == ',' && number >= 1 &&
               number <= 65536;
    }
    return false;
}

err_t index_new(index_t **index, const index_options_t *options)
{
    const char *factory = options->factory ? options->factory : "HNSW32";
    const char *model = options->model ? options->model : "";

    if (options->dims < 1 || options->dims > INDEX_DIMS_MAX)
        return err_of(ERR_ARGUMENT, "an index needs 1 to 8192 dimensions");
    if (strlen(model) >= NAME_MAX_BYTES)
        return err_of(ERR_ARGUMENT, "the name of the embedding model is too long");
    if (strlen(factory) >= NAME_MAX_BYTES || !factory_keeps_vectors(factory))
        return err_of(ERR_ARGUMENT,
                      "the index factory must be Flat, HNSW<m> (2 to 128) or IVF<n>,Flat");
    index_t *self = grab(sizeof *self);
    pthread_mutex_init(&self->lock, NULL);
    self->options = *options;
    strcpy(self->factory, factory);
    strcpy(self->model, model);
    self->options.factory = self->options.model = NULL;
    if (!self->options.exact_max)
        self->options.exact_max = EXACT_MAX;
    if (self->options.ef_search <= 0)
        self->options.ef_search = EF_SEARCH;
    if (self->options.ef_construction <= 0)
        self->options.ef_construction = EF_CONSTRUCTION;
    if (self->options.nprobe <= 0)
        self->options.nprobe = NPROBE;
    self->tail = tail_new();
    *index = self;
    return err_ok();
}

void index_destroy(index_t **index)
{
    index_t *self = *index;

    if (!self)
        return;
    base_release(self->base);
    tail_release(self->tail);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *index = NULL;
}

index_view_t *index_acquire(index_t *index)
{
    index_view_t *view = grab(sizeof *view);

    view->options = index->options;
    memcpy(view->factory, index->factory, sizeof view->factory);
    memcpy(view->model, index->model, sizeof view->model);
    pthread_mutex_lock(&index->lock);
    view->base = index->base;
    view->tail = index->tail;
    view->chunks = index->tail->chunks;
    view->tail_count = index->tail->count;
    view->base_dead = index->base_dead;
    view->last_id = index->last_id;
    view->epoch = index->epoch;
    if (view->base)
        atomic_fetch_add(&view->base->refs, 1);
    atomic_fetch_add(&view->tail->refs, 1);
    pthread_mutex_unlock(&index->lock);
    return view;
}

void index_view_release(index_view_t **view)
{
    if (!*view)
        return;
    base_release((*view)->base);
    tail_release((*view)->tail);
    free(*view);
    *view = NULL;
}

/* ---- writing ---- */

static bool normalised(const float *vector, uint32_t dims, float *out)
{
    double sum = 0;

    for (uint32_t i = 0; i < dims; i++)
        sum += (double)vector[i] * vector[i];
    if (!(sum > 0) || !isfinite(sum))
        return false;
    double scale = 1 / sqrt(sum);
    if (!isfinite(scale))
        return false;
    for (uint32_t i = 0; i < dims; i++)
        out[i] = (float)(vector[i] * scale);
    return true;
}

err_t index_add(index_t *index, uint64_t id, const float *vector)
{
    float unit[INDEX_DIMS_MAX];

    if (index->any && id <= index->last_id)
        return err_of(ERR_ARGUMENT, "ids of vectors must grow");
    if (!normalised(vector, index->options.dims, unit))
        return err_of(ERR_ARGUMENT, "a vector must be finite and not all zeros");
    pthread_mutex_lock(&index->lock);
    tail_place(index->tail, index->options.dims, id, unit);
    index->tail->count++;
    index->last_id = id;
    index->any = true;
    pthread_mutex_unlock(&index->lock);
    return err_ok();
}

bool index_drop(index_t *index, uint64_t id)
{
    size_t at;
    bool dropped = false;

    pthread_mutex_lock(&index->lock);
    if (base_find(index->base, id, &at)) {
        dropped = bit_set(index->base->dead, at);
        index->base_dead += dropped;
    } else if (tail_find(index->tail->chunks, index->tail->count, id, &at)) {
        dropped = bit_set(index->tail->chunks[at / CHUNK]->dead, at % CHUNK);
        index->tail_dead += dropped;
    }
    index->drops += dropped;
    pthread_mutex_unlock(&index->lock);
    return dropped;
}

static size_t base_bytes(const index_t *index)
{
    size_t count = index->base ? index->base->count : 0;
    size_t links = 0;
    int m = 0;

    if (sscanf(index->factory, "HNSW%d", &m) == 1)
        links = (size_t)m * 2 * sizeof(int32_t) + 16;
    if (index->base && index->base->codes)
        links += codes_stride(index->options.dims);
    return count * (index->options.dims * sizeof(float) + sizeof(uint64_t) + links);
}

index_stats_t index_stats(index_t *index)
{
    index_stats_t stats;

    pthread_mutex_lock(&index->lock);
    stats.base = index->base ? index->base->count : 0;
    stats.tail = index->tail->count;
    stats.dead = index->base_dead + index->tail_dead;
    stats.live = stats.base + stats.tail - stats.dead;
    stats.bytes =
        base_bytes(index) + (stats.tail + CHUNK - 1) / CHUNK * chunk_bytes(index->options.dims);
    size_t live_base = stats.base - index->base_dead;
    if (!index->base)
        stats.wants_build = stats.live > index->options.exact_max;
    else
        stats.wants_build =
            (stats.tail > TAIL_MIN && (stats.tail > live_base / 16 || stats.tail > TAIL_MOST)) ||
            (index->base_dead > 256 && index->base_dead > stats.base / 4);
    pthread_mutex_unlock(&index->lock);
    return stats;
}

/* ---- searching ---- */

typedef struct search {
    const index_view_t *view;
    const float *query;
    const index_filter_t *filter;
    codes_query_t codes;
    top_t top;
} search_t;

static bool accepted(const index_filter_t *filter, uint64_t id)
{
    return !filter || filter->accept(filter->self, id);
}

/* The whole vector is asked only where its code leaves room for a place among the best. */
static void offer(search_t *search, uint64_t id, const uint8_t *code, const float *vector)
{
    if (code && codes_most(&search->codes, code) < top_threshold(&search->top))
        return;
    top_offer(&search->top, id,
              simd_inner_product(search->query, vector, search->view->options.dims));
}

static void scan_tail(search_t *search, bool exact)
{
    const index_view_t *view = search->view;
    uint32_t dims = view->options.dims;
    size_t stride = codes_stride(dims);

    for (size_t at = 0; at < view->tail_count; at++) {
        uint64_t id = tail_id(view->chunks, at);
        if (tail_is_dead(view->chunks, at) || !accepted(search->filter, id))
            continue;
        const uint8_t *code = view->chunks[at / CHUNK]->codes + at % CHUNK * stride;
        offer(search, id, exact ? NULL : code, tail_vector(view->chunks, dims, at));
    }
}

static err_t scan_base(search_t *search, bool exact)
{
    const index_base_t *base = search->view->base;
    uint32_t dims = search->view->options.dims;
    size_t stride = codes_stride(dims);
    float room[INDEX_DIMS_MAX];

    for (size_t at = 0; at < base->count; at++) {
        if (bit_get(base->dead, at) || !accepted(search->filter, base->ids[at]))
            continue;
        const float *vector = base_vector(base, dims, at, room);
        if (!vector)
            return err_of(ERR_INTERNAL, "FAISS could not return a vector");
        offer(search, base->ids[at], base->codes && !exact ? base->codes + at * stride : NULL,
              vector);
    }
    return err_ok();
}

/* What the selector of FAISS sees of a search. */
typedef struct accept_slot {
    const index_base_t *base;
    const index_filter_t *filter;
} accept_slot_t;

static bool accept_slot(const void *self, int64_t slot)
{
    const accept_slot_t *in = self;

    return !bit_get(in->base->dead, (size_t)slot) &&
           accepted(in->filter, in->base->ids[(size_t)slot]);
}

/* How many of the base can be answers: all alive, or what the caller knows or a sample tells. */
static size_t base_candidates(const search_t *search)
{
    const index_base_t *base = search->view->base;
    size_t live = base->count - search->view->base_dead, passed = 0, asked = 0;

    if (!search->filter)
        return live;
    if (search->filter->about)
        return search->filter->about < live ? search->filter->about : live;
    for (size_t at = 0; at < base->count; at += base->count / SAMPLE + 1, asked++)
        passed += accepted(search->filter, base->ids[at]);
    return live * passed / (asked ? asked : 1);
}

static void offer_found(search_t *search, const float *distances, const int64_t *labels, size_t k)
{
    const index_base_t *base = search->view->base;
    uint32_t dims = search->view->options.dims;

    for (size_t i = 0; i < k && labels[i] >= 0; i++) {
        size_t at = (size_t)labels[i];
        float score = base->vectors
                          ? simd_inner_product(search->query, base->vectors + at * dims, dims)
                          : 1 - distances[i] / 2;
        if (accept_slot(&(accept_slot_t){base, search->filter}, labels[i]))
            top_offer(&search->top, base->ids[at], score);
    }
}

/* How many answers to ask of FAISS. Under a filter the walk must be broader: most of what it meets
 * does not count, and the near ones that do may lie beyond a region of others. (FAISS searches as
 * broadly as the larger of efSearch and k.) Codes are good for a walk but not for the last word, so
 * all that it finds is compared again. 0: scanning the candidates is cheaper and surer. */
static size_t breadth_of(const search_t *search)
{
    const index_view_t *view = search->view;
    size_t live = view->base->count - view->base_dead, k = search->top.k;
    size_t breadth = (size_t)view->options.ef_search;

    if (search->filter) {
        size_t candidates = base_candidates(search);
        if (candidates <= view->options.exact_max)
            return 0;
        size_t broad = breadth * 6 * live / candidates;
        k = k > broad ? k : broad;
        if (k > live / 8)
            return 0;
    }
    if (view->base->codes && k < breadth)
        k = breadth;
    return k < view->base->count ? k : view->base->count;
}

static err_t search_base(search_t *search, arena_t *arena)
{
    const index_base_t *base = search->view->base;
    size_t k = breadth_of(search), found = 0;
    accept_slot_t self = {base, search->filter};
    bool select = search->filter || search->view->base_dead;

    if (!k)
        return scan_base(search, false);
    float *distances = ARENA_ARRAY(arena, float, k);
    int64_t *labels = ARENA_ARRAY(arena, int64_t, k);
    faiss_shim_walk_t walk = {.breadth = search->view->options.ef_search,
                              .codes = base->codes,
                              .stride = codes_stride(search->view->options.dims),
                              .query = &search->codes};
    if (faiss_shim_search(base->faiss, search->query, (int64_t)k, &walk,
                          select ? accept_slot : NULL, &self, distances, labels))
        return err_make(arena, ERR_INTERNAL, "FAISS failed to search: %s", faiss_get_last_error());
    while (found < k && labels[found] >= 0)
        found++;
    if (found < search->top.k && found < base->count - search->view->base_dead)
        return scan_base(search, false);
    offer_found(search, distances, labels, found);
    return err_ok();
}

static err_t search_open(search_t *search, const index_view_t *view, const float *query, size_t k,
                         const index_filter_t *filter, arena_t *arena)
{
    float *unit = ARENA_ARRAY(arena, float, view->options.dims);
    size_t total = view->tail_count + (view->base ? view->base->count : 0);

    if (!normalised(query, view->options.dims, unit))
        return err_of(ERR_ARGUMENT, "a query vector must be finite and not all zeros");
    *search = (search_t){.view = view, .query = unit, .filter = filter};
    codes_query(&search->codes, ARENA_ARRAY(arena, int8_t, codes_query_bytes(view->options.dims)),
                unit, view->options.dims);
    top_open(&search->top, arena, k < total ? k : total);
    return err_ok();
}

static err_t run_search(const index_view_t *view, const float *query, size_t k,
                        const index_filter_t *filter, arena_t *arena, index_hit_t **hits,
                        size_t *count, bool exact)
{
    search_t search;
    err_t err = search_open(&search, view, query, k, filter, arena);

    if (err_is(err))
        return err;
    if (view->base && search.top.k) {
        err = exact ? scan_base(&search, true) : search_base(&search, arena);
        if (err_is(err))
            return err;
    }
    if (search.top.k)
        scan_tail(&search, exact);
    top_sort(&search.top);
    *hits = search.top.heap;
    *count = search.top.count;
    return err_ok();
}

err_t index_search(const index_view_t *view, const float *query, size_t k,
                   const index_filter_t *filter, arena_t *arena, index_hit_t **hits, size_t *count)
{
    return run_search(view, query, k, filter, arena, hits, count, false);
}

err_t index_search_exact(const index_view_t *view, const float *query, size_t k,
                         const index_filter_t *filter, arena_t *arena, index_hit_t **hits,
                         size_t *count)
{
    return run_search(view, query, k, filter, arena, hits, count, true);
}

/* Where the vector of an id lies; NULL: it is not there, or dead. */
static const float *vector_of(const index_view_t *view, uint64_t id, float *room)
{
    uint32_t dims = view->options.dims;
    size_t at;

    if (base_find(view->base, id, &at))
        return bit_get(view->base->dead, at) ? NULL : base_vector(view->base, dims, at, room);
    if (tail_find(view->chunks, view->tail_count, id, &at) && !tail_is_dead(view->chunks, at))
        return tail_vector(view->chunks, dims, at);
    return NULL;
}

/* Vectors lie far apart: while one is compared the next are on their way. */
err_t index_score(const index_view_t *view, const float *query, const uint64_t *ids, size_t count,
                  float *scores)
{
    enum { AHEAD = 4, LINES = 8 };
    float unit[INDEX_DIMS_MAX], room[INDEX_DIMS_MAX];
    const float *vectors[AHEAD] = {NULL};
    uint32_t dims = view->options.dims;
    bool kept = !view->base || view->base->vectors; /* else each is put together in `room` */

    if (!normalised(query, dims, unit))
        return err_of(ERR_ARGUMENT, "a query vector must be finite and not all zeros");
    for (size_t i = 0; i < count + AHEAD; i++) {
        size_t done = i - AHEAD;
        if (i >= AHEAD) {
            const float *vector = kept ? vectors[i % AHEAD] : vector_of(view, ids[done], room);
            scores[done] = vector ? simd_inner_product(unit, vector, dims) : NAN;
        }
        vectors[i % AHEAD] = kept && i < count ? vector_of(view, ids[i], room) : NULL;
        for (size_t line = 0; vectors[i % AHEAD] && line < LINES; line++)
            __builtin_prefetch(vectors[i % AHEAD] + line * 16);
    }
    return err_ok();
}

/* ---- building ---- */

typedef struct build {
    const index_view_t *view;
    index_base_t *base;
    float *batch;
    size_t batched;
    bool (*stop)(const void *self);
    const void *self;
} build_t;

static err_t build_flush(build_t *build)
{
    if (build->stop && build->stop(build->self))
        return err_of(ERR_CANCELLED, "the build of the index was stopped");
    if (build->batched && faiss_shim_add(build->base->faiss, (int64_t)build->batched, build->batch))
        return err_of(ERR_INTERNAL, "FAISS failed to add vectors");
    build->batched = 0;
    return err_ok();
}

static err_t build_put(build_t *build, uint64_t id, const float *vector)
{
    uint32_t dims = build->view->options.dims;

    if (!vector)
        return err_of(ERR_INTERNAL, "FAISS could not return a vector");
    build->base->ids[build->base->count++] = id;
    memcpy(build->batch + build->batched++ * dims, vector, sizeof(float) * dims);
    return build->batched == BUILD_BATCH ? build_flush(build) : err_ok();
}

static err_t build_from_base(build_t *build)
{
    const index_base_t *old = build->view->base;
    float room[INDEX_DIMS_MAX];
    err_t err = err_ok();

    for (size_t at = 0; old && at < old->count && !err_is(err); at++)
        if (!bit_get(old->dead, at))
            err = build_put(build, old->ids[at],
                            base_vector(old, build->view->options.dims, at, room));
    return err;
}

static err_t build_from_tail(build_t *build)
{
    const index_view_t *view = build->view;
    err_t err = err_ok();

    for (size_t at = 0; at < view->tail_count && !err_is(err); at++)
        if (!tail_is_dead(view->chunks, at))
            err = build_put(build, tail_id(view->chunks, at),
                            tail_vector(view->chunks, view->options.dims, at));
    return err_is(err) ? err : build_flush(build);
}

/* Up to 256 training vectors a list, spread over the tail and the base. */
static err_t build_train(build_t *build)
{
    const index_view_t *view = build->view;
    uint32_t dims = view->options.dims;
    size_t base_count = view->base ? view->base->count : 0, count = base_count + view->tail_count;
    size_t most = 65536, step = count / most + 1, taken = 0;
    float *sample = grab(sizeof(float) * dims * (count / step + 1)), room[INDEX_DIMS_MAX];

    for (size_t at = 0; at < count; at += step) {
        const float *vector = at < base_count ? base_vector(view->base, dims, at, room)
                                              : tail_vector(view->chunks, dims, at - base_count);
        if (vector)
            memcpy(sample + taken++ * dims, vector, sizeof(float) * dims);
    }
    int code = faiss_shim_train(build->base->faiss, (int64_t)taken, sample);
    free(sample);
    return code ? err_of(ERR_ARGUMENT, "FAISS could not train the index: too few vectors for its "
                                       "factory string?")
                : err_ok();
}

static err_t build_start(build_t *build)
{
    const index_view_t *view = build->view;
    const index_base_t *old = view->base;
    const index_options_t *options = &view->options;

    if (old && !factory_is(view->factory, "IVF") && view->base_dead <= old->count / 4) {
        if (faiss_clone_index(old->faiss, &build->base->faiss))
            return err_of(ERR_INTERNAL, "FAISS could not copy the index");
        if (old->map &&
            faiss_shim_give_vectors(build->base->faiss, (int64_t)old->count, old->vectors))
            return err_of(ERR_INTERNAL, "FAISS could not take the vectors of the snapshot");
        memcpy(build->base->ids, old->ids, old->count * sizeof *old->ids);
        build->base->count = old->count;
        return err_ok();
    }
    if (faiss_index_factory(&build->base->faiss, (int)options->dims, view->factory, METRIC_L2))
        return err_of(ERR_ARGUMENT, "FAISS does not know this factory string");
    if (faiss_shim_set_breadth(build->base->faiss, options->ef_search, options->ef_construction,
                               options->nprobe))
        return err_of(ERR_INTERNAL, "FAISS refused the search settings");
    if (factory_is(view->factory, "IVF")) {
        err_t err = build_train(build);
        if (err_is(err))
            return err;
    }
    return build_from_base(build);
}

/* What had died before in a cloned base stays dead in it. */
static void copy_dead_base(const index_base_t *from, index_base_t *to)
{
    size_t at;

    for (size_t byte = 0; from && byte * 8 < from->count; byte++) {
        if (!atomic_load_explicit(&from->dead[byte], memory_order_relaxed))
            continue;
        for (size_t slot = byte * 8; slot < byte * 8 + 8 && slot < from->count; slot++)
            if (bit_get(from->dead, slot) && base_find(to, from->ids[slot], &at))
                bit_set(to->dead, at);
    }
}

/* Codes are touched at random: in large pages each costs one miss less. */
static void make_codes(index_base_t *base, uint32_t dims)
{
    enum { LARGE = 2 << 20 };
    size_t stride = codes_stride(dims), bytes = stride * base->count;
    size_t align = bytes < LARGE ? CODES_ALIGN : LARGE;

    bytes = (bytes + align - 1) / align * align;
    base->codes = aligned_alloc(align, bytes);
    if (!base->codes)
        abort();
    if (align == LARGE)
        madvise(base->codes, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < base->count; at++)
        codes_put(base->codes + at * stride, base->vectors + at * dims, dims);
}

static err_t base_finish(index_base_t *base, uint32_t dims)
{
    if (!base->map)
        base->vectors = faiss_shim_vectors(base->faiss);
    if (!base->vectors && faiss_shim_prepare_reconstruct(base->faiss))
        return err_of(ERR_INTERNAL, "FAISS could not prepare to return vectors");
    if (faiss_Index_ntotal(base->faiss) != (idx_t)base->count)
        return err_of(ERR_INTERNAL, "FAISS counts its vectors differently");
    if (base->vectors)
        make_codes(base, dims);
    return err_ok();
}

err_t index_build(const index_view_t *view, bool (*stop)(const void *self), const void *self,
                  index_base_t **base)
{
    size_t most = view->tail_count + (view->base ? view->base->count : 0);

    *base = NULL;
    if (!most)
        return err_of(ERR_STATE, "there are no vectors to build an index of");
    build_t build = {.view = view, .base = base_new(most), .stop = stop, .self = self};
    build.batch = grab(sizeof(float) * view->options.dims * BUILD_BATCH);
    err_t err = build_start(&build);
    if (!err_is(err))
        err = build_from_tail(&build);
    if (!err_is(err))
        err = base_finish(build.base, view->options.dims);
    free(build.batch);
    if (err_is(err)) {
        base_release(build.base);
        return err;
    }
    build.base->covers = view->last_id;
    build.base->from_epoch = view->epoch;
    *base = build.base;
    return err_ok();
}

static size_t count_dead(const index_base_t *base)
{
    size_t dead = 0;

    for (size_t byte = 0; byte <= base->count / 8; byte++)
        dead += (size_t)__builtin_popcount(
            atomic_load_explicit(&base->dead[byte], memory_order_relaxed));
    return dead;
}

/* Appends the living part of a tail that is not in the base and not yet in `to`. */
static void carry_over(const index_base_t *base, tail_t *to, uint32_t dims, chunk_t *const *chunks,
                       size_t count)
{
    uint64_t after = to->count ? tail_id(to->chunks, to->count - 1) : base->covers;
    size_t at;

    if (tail_find(chunks, count, after, &at))
        at++;
    for (; at < count; at++) {
        if (tail_is_dead(chunks, at))
            continue;
        tail_place(to, dims, tail_id(chunks, at), tail_vector(chunks, dims, at));
        to->count++;
    }
}

void index_carry(const index_view_t *view, index_base_t *base)
{
    base->carried = tail_new();
    if (view->epoch == base->from_epoch)
        carry_over(base, base->carried, view->options.dims, view->chunks, view->tail_count);
}

/* What is dead in the index is dead in what takes its place; returns how many in the tail. */
static size_t copy_dead(const index_t *index, index_base_t *base, tail_t *tail)
{
    const tail_t *old = index->tail;
    size_t at, dead = 0;

    copy_dead_base(index->base, base);
    for (size_t i = 0; i < old->count; i++) {
        if (!tail_is_dead(old->chunks, i))
            continue;
        uint64_t id = tail_id(old->chunks, i);
        if (id <= base->covers) {
            if (base_find(base, id, &at))
                bit_set(base->dead, at);
        } else if (tail_find(tail->chunks, tail->count, id, &at)) {
            bit_set(tail->chunks[at / CHUNK]->dead, at % CHUNK);
            dead++;
        }
    }
    return dead;
}

err_t index_swap(index_t *index, index_base_t **base)
{
    index_base_t *fresh = *base;

    *base = NULL;
    if (fresh->from_epoch != index->epoch) {
        base_release(fresh);
        return err_of(ERR_STATE, "another index was swapped in since this one was begun");
    }
    index_base_t *old_base = index->base;
    tail_t *old_tail = index->tail, *tail = fresh->carried ? fresh->carried : tail_new();
    fresh->carried = NULL;
    carry_over(fresh, tail, index->options.dims, old_tail->chunks, old_tail->count);
    for (bool settled = false; !settled;) { /* a drop may come in while we copy the drops */
        pthread_mutex_lock(&index->lock);
        uint64_t drops = index->drops;
        pthread_mutex_unlock(&index->lock);
        size_t dead = copy_dead(index, fresh, tail);
        pthread_mutex_lock(&index->lock);
        settled = drops == index->drops;
        if (settled) {
            index->base = fresh;
            index->tail = tail;
            index->base_dead = count_dead(fresh);
            index->tail_dead = dead;
            index->epoch++;
        }
        pthread_mutex_unlock(&index->lock);
    }
    base_release(old_base);
    tail_release(old_tail);
    return err_ok();
}

/* ---- snapshot ---- */

#define SNAPSHOT_MAGIC 0x5845444e49474133ULL /* also tells the other byte order */
#define SNAPSHOT_VERSION 2
#define SNAPSHOT_ALIGN 4096 /* of the vectors: they are used where they lie */

typedef struct snapshot {
    uint64_t magic;
    uint32_t version, dims;
    uint64_t generation, last_id;
    uint64_t base_count, tail_count, faiss_at;
    uint64_t vectors_at; /* 0: they are inside what FAISS wrote */
    uint64_t size;
    char factory[NAME_MAX_BYTES], model[NAME_MAX_BYTES];
    int32_t ef_search, ef_construction, nprobe, any;
    uint64_t body_hash, head_hash; /* head_hash is of everything before it */
} snapshot_t;

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

static void write_tail(const index_view_t *view, FILE *file)
{
    for (size_t at = 0; at < view->tail_count; at++)
        if (!tail_is_dead(view->chunks, at)) {
            uint64_t id = tail_id(view->chunks, at);
            fwrite(&id, sizeof id, 1, file);
            fwrite(tail_vector(view->chunks, view->options.dims, at), sizeof(float),
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

/* The graph and, behind it, the vectors: who loads them need not copy them. */
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
    while (ftell(file) % SNAPSHOT_ALIGN)
        if (fputc(0, file) == EOF)
            return io_error();
    head->vectors_at = (uint64_t)ftell(file);
    fwrite(base->vectors, sizeof(float) * dims, base->count, file);
    return err_ok();
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
    head->size = (uint64_t)ftell(file);
    return err_ok();
}

/* Hashes what was written and puts the head in its place: a torn file never verifies. */
static err_t seal(int fd, snapshot_t *head)
{
    uint8_t *map = mmap(NULL, head->size, PROT_READ, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED)
        return io_error();
    head->body_hash = hash_bytes(map + sizeof *head, head->size - sizeof *head);
    munmap(map, head->size);
    head->head_hash = hash_bytes((const uint8_t *)head, offsetof(snapshot_t, head_hash));
    if (pwrite(fd, head, sizeof *head, 0) != (ssize_t)sizeof *head || fdatasync(fd))
        return io_error();
    return err_ok();
}

err_t index_save(const index_view_t *view, const char *path, uint64_t generation)
{
    char part[4096];
    snapshot_t head = snapshot_of(view, generation);

    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return err_of(ERR_ARGUMENT, "the path of the index snapshot is too long");
    FILE *file = fopen(part, "w+b");
    if (!file)
        return io_error();
    err_t err = write_body(view, file, &head);
    if (!err_is(err))
        err = seal(fileno(file), &head);
    if (fclose(file) && !err_is(err))
        err = io_error();
    if (!err_is(err) && rename(part, path))
        err = io_error();
    if (err_is(err))
        unlink(part);
    return err;
}

static err_t check_head(const index_t *index, const snapshot_t *head, size_t size)
{
    if (head->magic != SNAPSHOT_MAGIC)
        return err_of(ERR_CORRUPT, "the file is not an index snapshot");
    if (head->version != SNAPSHOT_VERSION)
        return err_of(ERR_VERSION, "the index snapshot has another format");
    if (head->head_hash != hash_bytes((const uint8_t *)head, offsetof(snapshot_t, head_hash)) ||
        head->size != size)
        return err_of(ERR_CORRUPT, "the index snapshot is torn");
    if (head->dims != index->options.dims || strcmp(head->factory, index->factory) != 0 ||
        strcmp(head->model, index->model) != 0 ||
        head->ef_construction != index->options.ef_construction)
        return err_of(ERR_VERSION, "the index snapshot was made with other settings");
    return err_ok();
}

/* A map of a whole snapshot; who keeps it takes `data` away. */
typedef struct map {
    uint8_t *data;
    size_t size;
} map_t;

static bool load_base(index_t *index, const snapshot_t *head, map_t *map, FILE *file,
                      index_base_t *base)
{
    const uint8_t *at = map->data + sizeof *head;
    size_t vector_bytes = sizeof(float) * head->dims;

    base->count = head->base_count;
    memcpy(base->ids, at, head->base_count * sizeof(uint64_t));
    at += head->base_count * sizeof(uint64_t);
    memcpy((void *)base->dead, at, head->base_count / 8 + 1);
    if (fseek(file, (long)head->faiss_at, SEEK_SET) || faiss_read_index(file, 0, &base->faiss) ||
        faiss_shim_set_breadth(base->faiss, index->options.ef_search, 0, index->options.nprobe))
        return false;
    if (head->vectors_at) {
        if (head->vectors_at + head->base_count * vector_bytes != map->size)
            return false;
        base->vectors = (const float *)(const void *)(map->data + head->vectors_at);
        base->map = map->data;
        base->map_size = map->size;
        map->data = NULL;
    }
    return !err_is(base_finish(base, head->dims));
}

/* The body after its hash was found right. */
static err_t load_body(index_t *index, const snapshot_t *head, map_t *map, FILE *file)
{
    const uint8_t *at = map->data + sizeof *head;
    size_t vector_bytes = sizeof(float) * head->dims;
    index_base_t *base = NULL;

    if (head->base_count) {
        at += head->base_count * sizeof(uint64_t) + head->base_count / 8 + 1;
        base = base_new(head->base_count);
        if (!load_base(index, head, map, file, base)) {
            base_release(base);
            return err_of(ERR_CORRUPT, "FAISS could not read the index snapshot");
        }
    }
    for (uint64_t i = 0; i < head->tail_count; i++, at += sizeof(uint64_t) + vector_bytes) {
        uint64_t id;
        float vector[INDEX_DIMS_MAX];
        memcpy(&id, at, sizeof id);
        memcpy(vector, at + sizeof id, vector_bytes);
        tail_place(index->tail, head->dims, id, vector);
        index->tail->count++;
    }
    pthread_mutex_lock(&index->lock);
    index->base = base;
    index->base_dead = base ? count_dead(base) : 0;
    index->last_id = head->last_id;
    index->any = head->any;
    pthread_mutex_unlock(&index->lock);
    return err_ok();
}

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
    posix_fadvise(fileno(file), 0, 0, POSIX_FADV_WILLNEED);
    map_t map = {mmap(NULL, size, PROT_READ, MAP_PRIVATE, fileno(file), 0), size};
    if (map.data == MAP_FAILED)
        return err_of(ERR_IO, "the index snapshot could not be read");
    if (hash_bytes(map.data + sizeof head, size - sizeof head) != head.body_hash)
        err = err_of(ERR_CORRUPT, "the index snapshot failed its check");
    else
        err = load_body(index, &head, &map, file);
    if (map.data)
        munmap(map.data, size);
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

/* ---- reconcile ---- */

/* Walks base and tail as one sorted run. */
typedef struct walk {
    index_t *index;
    size_t at;
} walk_t;

static bool walk_id(const walk_t *walk, uint64_t *id, bool *dead)
{
    const index_base_t *base = walk->index->base;
    const tail_t *tail = walk->index->tail;
    size_t base_count = base ? base->count : 0;

    if (walk->at < base_count) {
        *id = base->ids[walk->at];
        *dead = bit_get(base->dead, walk->at);
        return true;
    }
    size_t at = walk->at - base_count;
    if (at >= tail->count)
        return false;
    *id = tail_id(tail->chunks, at);
    *dead = tail_is_dead(tail->chunks, at);
    return true;
}

err_t index_reconcile(index_t *index, const index_reconcile_t *with)
{
    walk_t walk = {.index = index};
    uint64_t stored = 0, mine = 0, newest = index->last_id;
    bool dead = false, had = index->any;
    bool more = with->next(with->self, &stored);

    while (walk_id(&walk, &mine, &dead) && mine <= newest) {
        if (more && stored < mine)
            return err_of(ERR_STATE, "the index lacks older memories: rebuild it");
        if (more && stored == mine) {
            if (dead)
                return err_of(ERR_STATE, "the index buried a living memory: rebuild it");
            more = with->next(with->self, &stored);
        } else if (!dead) {
            index_drop(index, mine);
        }
        walk.at++;
    }
    for (; more; more = with->next(with->self, &stored)) {
        if (had && stored <= newest)
            return err_of(ERR_STATE, "the index lacks older memories: rebuild it");
        err_t err = with->missing(with->self, index, stored);
        if (err_is(err))
            return err;
    }
    return err_ok();
}
