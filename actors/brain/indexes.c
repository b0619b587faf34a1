#include "actors/brain/indexes.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "actors/brain/brain.h"
#include "bus/digest.h"

#define INDEX_FILE "vectors.index"
#define UNUSED_SNAPSHOT "its vectors are read from the store, because its snapshot is of no use"

enum { COMPANY_BYTES = 65, SAVE_MIN = 2000, BUILD_NICE = 5 };

typedef struct shelf {
    char company[COMPANY_BYTES];
    uint32_t model_number;
    index_t *index; /* NULL until loaded */
    pthread_mutex_t writer;
    uint64_t seen; /* newest number that was looked at; under `writer` */
    size_t saved;  /* live vectors in the snapshot file */
    /* Under the table's lock: */
    unsigned refs;
    uint64_t used;
    bool building, claimed, forgotten;
    uint64_t *drops; /* buried while the index was being loaded */
    size_t drop_count;
    struct shelf *next;
} shelf_t;

struct indexes {
    pthread_mutex_t lock;
    indexes_options_t options;
    char *dir, *factory;
    shelf_t *shelves;
    size_t count;
    uint64_t clock;
    atomic_bool stopping;
};

void vector_key(store_key_t *key, uint32_t model, uint64_t number)
{
    key_open(key);
    key_u64(key, model);
    key_u64(key, number);
}

bool head_row_read(bytes_t value, head_row_t *row)
{
    if (value.size != sizeof *row)
        return false;
    memcpy(row, value.data, sizeof *row);
    return true;
}

static char *copy_of(const char *text)
{
    char *copy = strdup(text);

    if (!copy)
        abort();
    return copy;
}

static void sweep_company(const char *dir, const char *company)
{
    char path[4096];
    const char *part = INDEX_FILE INDEX_PART;

    if (snprintf(path, sizeof path, "%s/%s", dir, company) >= (int)sizeof path)
        return;
    DIR *files = opendir(path);
    for (struct dirent *file; files && (file = readdir(files));)
        if (strncmp(file->d_name, part, strlen(part)) == 0)
            unlinkat(dirfd(files), file->d_name, 0);
    if (files)
        closedir(files);
}

/* Removes what was being saved when the last owner of the directory ended. */
static void sweep(const char *dir)
{
    DIR *companies = opendir(dir);

    for (struct dirent *company; companies && (company = readdir(companies));)
        if (company->d_name[0] != '.')
            sweep_company(dir, company->d_name);
    if (companies)
        closedir(companies);
}

err_t indexes_new(indexes_t **indexes, const indexes_options_t *options)
{
    index_t *probe = NULL;
    err_t err = index_new(&probe, &(index_options_t){.dims = 1, .factory = options->factory});

    if (err_is(err))
        return err;
    index_destroy(&probe);
    indexes_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    pthread_mutex_init(&self->lock, NULL);
    self->options = *options;
    self->dir = copy_of(options->dir);
    self->factory = copy_of(options->factory);
    sweep(self->dir);
    *indexes = self;
    return err_ok();
}

/* ---- the table ---- */

static bool path_of(const indexes_t *self, const char *company, char *path, size_t size)
{
    return snprintf(path, size, "%s/%s/" INDEX_FILE, self->dir, company) < (int)size;
}

static void warn(const indexes_t *self, const shelf_t *shelf, const char *what, err_t err)
{
    if (self->options.warn && err_is(err))
        self->options.warn(shelf->company, what, err);
}

/* Not worth the disk when little is new, or when reading the store is as quick. The file is written
 * from a view, without any lock. */
static void save(indexes_t *self, shelf_t *shelf, bool rebuilt)
{
    char path[4096];

    pthread_mutex_lock(&shelf->writer);
    index_view_t *view = shelf->index ? index_acquire(shelf->index) : NULL;
    size_t live = shelf->index ? index_stats(shelf->index).live : 0;
    size_t changed = live > shelf->saved ? live - shelf->saved : shelf->saved - live;
    uint64_t seen = shelf->seen;
    bool worth = live >= SAVE_MIN && (rebuilt || changed * 20 >= live);
    pthread_mutex_unlock(&shelf->writer);
    if (worth && path_of(self, shelf->company, path, sizeof path)) {
        err_t err = index_save(view, path, seen); /* a failure leaves the one before */
        warn(self, shelf, "the snapshot of its vectors was not written", err);
        pthread_mutex_lock(&shelf->writer);
        if (!err_is(err))
            shelf->saved = live;
        pthread_mutex_unlock(&shelf->writer);
        pthread_mutex_lock(&self->lock);
        if (shelf->forgotten)
            unlink(path);
        pthread_mutex_unlock(&self->lock);
    }
    index_view_release(&view);
}

static void shelf_free(indexes_t *self, shelf_t *shelf)
{
    if (shelf->index && !shelf->forgotten)
        save(self, shelf, false);
    index_destroy(&shelf->index);
    pthread_mutex_destroy(&shelf->writer);
    free(shelf->drops);
    free(shelf);
}

void indexes_destroy(indexes_t **indexes)
{
    indexes_t *self = *indexes;

    if (!self)
        return;
    while (self->shelves) {
        shelf_t *shelf = self->shelves;
        self->shelves = shelf->next;
        shelf_free(self, shelf);
    }
    pthread_mutex_destroy(&self->lock);
    free(self->dir);
    free(self->factory);
    free(self);
    *indexes = NULL;
}

static shelf_t *find_locked(indexes_t *self, const char *company)
{
    for (shelf_t *shelf = self->shelves; shelf; shelf = shelf->next)
        if (strcmp(shelf->company, company) == 0)
            return shelf;
    return NULL;
}

/* Takes the least used out of the table when there are too many; the caller frees it. */
static shelf_t *evict_locked(indexes_t *self)
{
    shelf_t **worst = NULL;

    if (self->count <= self->options.open_limit)
        return NULL;
    for (shelf_t **at = &self->shelves; *at; at = &(*at)->next)
        if (!(*at)->refs && (!worst || (*at)->used < (*worst)->used))
            worst = at;
    if (!worst)
        return NULL;
    shelf_t *shelf = *worst;
    *worst = shelf->next;
    self->count--;
    return shelf;
}

static shelf_t *take(indexes_t *self, const char *company, bool create)
{
    pthread_mutex_lock(&self->lock);
    shelf_t *shelf = find_locked(self, company), *evicted = NULL;
    if (!shelf && create) {
        shelf = calloc(1, sizeof *shelf);
        if (!shelf)
            abort();
        snprintf(shelf->company, sizeof shelf->company, "%s", company);
        pthread_mutex_init(&shelf->writer, NULL);
        shelf->next = self->shelves;
        self->shelves = shelf;
        self->count++;
        shelf->refs = 1; /* not the one to evict */
        evicted = evict_locked(self);
        shelf->refs = 0;
    }
    if (shelf) {
        shelf->refs++;
        shelf->used = ++self->clock;
    }
    pthread_mutex_unlock(&self->lock);
    if (evicted)
        shelf_free(self, evicted);
    return shelf;
}

static void give(indexes_t *self, shelf_t *shelf)
{
    bool last;

    pthread_mutex_lock(&self->lock);
    last = --shelf->refs == 0 && shelf->forgotten;
    pthread_mutex_unlock(&self->lock);
    if (last)
        shelf_free(self, shelf);
}

/* ---- loading and extending, under the shelf's writer lock ---- */

typedef struct reading {
    store_txn_t *txn;
    const vectors_of_t *of;
    store_scan_t scan;
    uint64_t newest;
} reading_t;

/* The next number in the store that has a vector of this model. */
static bool next_number(void *ctx, uint64_t *number)
{
    reading_t *reading = ctx;
    bytes_t key, value;
    head_row_t head;

    while (store_scan_next(&reading->scan, &key, &value)) {
        if (!key_read_u64(&key, number))
            continue;
        if (*number > reading->of->newest)
            break; /* its vector may still come */
        reading->newest = *number;
        if (head_row_read(value, &head) && head_has_vector(&head, reading->of->number))
            return true;
    }
    return false;
}

static err_t add_number(void *ctx, index_t *index, uint64_t number)
{
    reading_t *reading = ctx;
    float vector[INDEX_DIMS_MAX];
    store_key_t key;
    bytes_t value;

    vector_key(&key, reading->of->number, number);
    err_t err = store_get(reading->txn, TABLE_vectors, key_bytes(&key), &value);
    if (err.code == ERR_NOT_FOUND || (!err_is(err) && value.size != reading->of->dims * 4))
        return err_of(ERR_CORRUPT, "a vector is missing: run brain_maintenance rebuild_indices");
    if (err_is(err))
        return err;
    memcpy(vector, value.data, value.size);
    return index_add(index, number, vector);
}

static err_t read_from(reading_t *reading, uint64_t from, store_key_t *key)
{
    key_open(key);
    key_u64(key, from);
    return store_scan_open(&reading->scan, reading->txn, TABLE_heads, (bytes_t){0}, key_bytes(key),
                           false);
}

static err_t fill(index_t *index, reading_t *reading)
{
    store_key_t key;
    index_reconcile_t with = {reading, next_number, add_number};
    err_t err = read_from(reading, 0, &key);

    if (err_is(err))
        return err;
    err = index_reconcile(index, &with);
    store_scan_close(&reading->scan);
    return err;
}

/* What is newer than `seen`; reading->newest is how far it got, also when it failed. */
static err_t read_newer(index_t *index, reading_t *reading, uint64_t seen)
{
    store_key_t key;
    uint64_t number;
    err_t err = read_from(reading, seen + 1, &key);

    reading->newest = seen;
    while (!err_is(err) && next_number(reading, &number)) {
        err = add_number(reading, index, number);
        if (err_is(err))
            reading->newest = number - 1;
    }
    store_scan_close(&reading->scan);
    return err;
}

/* An index that was loaded has every vector up to `seen`, and perhaps some that were deleted since:
 * none, if together with what is newer it has as many as the store. */
static err_t catch_up(index_t *index, reading_t *reading, uint64_t seen)
{
    err_t err = read_newer(index, reading, seen);

    return err_is(err) || index_stats(index).live == reading->of->count ? err
                                                                        : fill(index, reading);
}

/* A snapshot is of these vectors only: the same model may have made them anew (its number differs),
 * and its name may be longer than an index takes. */
static err_t new_index(const indexes_t *self, const vectors_of_t *of, index_t **index)
{
    arena_t *arena = arena_new();
    bytes_t name = {(const uint8_t *)of->model, strlen(of->model)};
    const char *made_by = arena_printf(arena, "%u:%s", of->number, digest_hex(arena, name));
    index_options_t options = {.dims = of->dims,
                               .exact_max = self->options.exact_max,
                               .factory = self->factory,
                               .ef_search = self->options.ef_search,
                               .build_threads = self->options.build_threads,
                               .model = made_by};
    err_t err = index_new(index, &options);

    arena_destroy(&arena);
    return err;
}

/* Whatever is wrong with the snapshot file, the store knows everything. */
static err_t load(indexes_t *self, shelf_t *shelf, reading_t *reading)
{
    char path[4096];
    uint64_t seen;
    bool loaded = false;
    index_t *index = NULL;
    err_t err = new_index(self, reading->of, &index);

    if (err_is(err))
        return err;
    if (path_of(self, shelf->company, path, sizeof path)) {
        err = index_load(index, path, &seen);
        loaded = !err_is(err);
        if (loaded)
            shelf->saved = index_stats(index).live;
        else if (err.code != ERR_NOT_FOUND)
            warn(self, shelf, UNUSED_SNAPSHOT, err);
    }
    err = loaded ? catch_up(index, reading, seen) : fill(index, reading);
    if (err.code == ERR_STATE) {
        warn(self, shelf, UNUSED_SNAPSHOT, err);
        shelf->saved = 0;
        index_destroy(&index);
        err = new_index(self, reading->of, &index);
        if (!err_is(err))
            err = fill(index, reading);
    }
    if (err_is(err)) {
        index_destroy(&index);
        return err;
    }
    shelf->model_number = reading->of->number;
    pthread_mutex_lock(&self->lock);
    for (size_t i = 0; i < shelf->drop_count; i++)
        index_drop(index, shelf->drops[i]);
    free(shelf->drops);
    shelf->drops = NULL;
    shelf->drop_count = 0;
    shelf->index = index;
    pthread_mutex_unlock(&self->lock);
    shelf->seen = reading->newest;
    return err_ok();
}

static err_t extend(shelf_t *shelf, reading_t *reading)
{
    err_t err = read_newer(shelf->index, reading, shelf->seen);

    shelf->seen = reading->newest;
    return err;
}

static void unload(indexes_t *self, shelf_t *shelf)
{
    pthread_mutex_lock(&self->lock);
    index_t *index = shelf->index;
    shelf->index = NULL;
    shelf->seen = shelf->saved = 0;
    pthread_mutex_unlock(&self->lock);
    index_destroy(&index);
}

/* What was loaded turned out not to be what was written: the store knows everything. */
static void unload_damaged(indexes_t *self, shelf_t *shelf)
{
    char path[4096];

    if (!shelf->index || !index_is_damaged(shelf->index))
        return;
    warn(self, shelf, UNUSED_SNAPSHOT, err_of(ERR_CORRUPT, "it failed its check"));
    if (path_of(self, shelf->company, path, sizeof path))
        unlink(path);
    unload(self, shelf);
}

err_t indexes_view(indexes_t *self, const char *company, store_txn_t *txn, const vectors_of_t *of,
                   arena_t *arena, index_view_t **view)
{
    shelf_t *shelf = take(self, company, true);
    reading_t reading = {.txn = txn, .of = of};
    err_t err = err_ok();

    (void)arena;
    pthread_mutex_lock(&shelf->writer);
    unload_damaged(self, shelf);
    if (shelf->index && shelf->model_number > of->number)
        err = err_of(ERR_STATE, "the vectors were made anew meanwhile");
    else if (shelf->index && shelf->model_number < of->number)
        unload(self, shelf);
    if (!err_is(err))
        err = shelf->index      ? shelf->seen < of->newest ? extend(shelf, &reading) : err_ok()
                   : of->newest == 0 ? err_of(ERR_NOT_FOUND, NULL)
                                : load(self, shelf, &reading);
    if (!err_is(err))
        *view = index_acquire(shelf->index);
    pthread_mutex_unlock(&shelf->writer);
    give(self, shelf);
    return err;
}

/* ---- from the writer's side ---- */

void indexes_drop(indexes_t *self, const char *company, uint64_t number)
{
    pthread_mutex_lock(&self->lock);
    shelf_t *shelf = find_locked(self, company);
    if (shelf && shelf->index) {
        index_drop(shelf->index, number);
    } else if (shelf) {
        shelf->drops = realloc(shelf->drops, (shelf->drop_count + 1) * sizeof *shelf->drops);
        if (!shelf->drops)
            abort();
        shelf->drops[shelf->drop_count++] = number;
    }
    pthread_mutex_unlock(&self->lock);
}

void indexes_forget(indexes_t *self, const char *company)
{
    char path[4096];

    pthread_mutex_lock(&self->lock);
    shelf_t *shelf = NULL;
    for (shelf_t **at = &self->shelves; *at && !shelf; at = shelf ? at : &(*at)->next)
        if (strcmp((*at)->company, company) == 0) {
            shelf = *at;
            *at = shelf->next;
            self->count--;
        }
    if (shelf)
        shelf->forgotten = true;
    bool unused = shelf && !shelf->refs;
    pthread_mutex_unlock(&self->lock);
    if (unused)
        shelf_free(self, shelf);
    if (path_of(self, company, path, sizeof path))
        unlink(path);
}

static bool wants_locked(const shelf_t *shelf)
{
    return shelf && shelf->index && !shelf->building && !shelf->claimed &&
           index_stats(shelf->index).wants_build;
}

const char *indexes_claim(indexes_t *self, arena_t *arena)
{
    const char *company = NULL;

    pthread_mutex_lock(&self->lock);
    for (shelf_t *shelf = self->shelves; shelf && !company; shelf = shelf->next)
        if (wants_locked(shelf)) {
            shelf->claimed = true;
            company = arena_strdup(arena, shelf->company);
        }
    pthread_mutex_unlock(&self->lock);
    return company;
}

void indexes_unclaim(indexes_t *self, const char *company)
{
    pthread_mutex_lock(&self->lock);
    shelf_t *shelf = find_locked(self, company);
    if (shelf)
        shelf->claimed = false;
    pthread_mutex_unlock(&self->lock);
}

bool indexes_wants_build(indexes_t *self, const char *company)
{
    pthread_mutex_lock(&self->lock);
    shelf_t *shelf = find_locked(self, company);
    bool wants = wants_locked(shelf);
    pthread_mutex_unlock(&self->lock);
    return wants;
}

/* A build on a thread of its own, to which everybody else comes first. */
typedef struct builder {
    const index_view_t *view;
    const indexes_t *indexes;
    index_base_t *base;
    err_t err;
} builder_t;

static bool is_stopping(const void *indexes)
{
    return atomic_load(&((indexes_t *)(uintptr_t)indexes)->stopping);
}

static void *build_on(void *ctx)
{
    builder_t *builder = ctx;

    setpriority(PRIO_PROCESS, (id_t)gettid(), BUILD_NICE);
    builder->err = index_build(builder->view, is_stopping, builder->indexes, &builder->base);
    return NULL;
}

static err_t build_base(builder_t *builder)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, build_on, builder))
        return err_of(ERR_BUSY, "no thread could be started to build the index");
    pthread_join(thread, NULL);
    return builder->err;
}

static index_view_t *view_of(shelf_t *shelf, uint32_t *model)
{
    pthread_mutex_lock(&shelf->writer);
    index_view_t *view = shelf->index ? index_acquire(shelf->index) : NULL;
    *model = shelf->model_number;
    pthread_mutex_unlock(&shelf->writer);
    return view;
}

/* The build itself holds no lock, nor does copying what was stored meanwhile; only the exchange
 * keeps others from extending the index. */
static err_t build(indexes_t *self, shelf_t *shelf)
{
    builder_t builder = {.indexes = self};
    uint32_t model, now;
    index_view_t *view = view_of(shelf, &model);

    if (!view)
        return err_of(ERR_NOT_FOUND, "the vectors of this company are not in memory");
    builder.view = view;
    err_t err = build_base(&builder);
    index_view_release(&view);
    if (err_is(err))
        return err;
    view = view_of(shelf, &now);
    if (view && now == model)
        index_carry(view, builder.base);
    index_view_release(&view);
    pthread_mutex_lock(&shelf->writer);
    if (!shelf->index || shelf->model_number != model) {
        index_base_destroy(&builder.base);
        err = err_of(ERR_STATE, "the vectors were made anew meanwhile");
    } else {
        err = index_swap(shelf->index, &builder.base);
    }
    pthread_mutex_unlock(&shelf->writer);
    if (!err_is(err))
        save(self, shelf, true);
    return err;
}

void indexes_stop(indexes_t *self)
{
    atomic_store(&self->stopping, true);
}

err_t indexes_build(indexes_t *self, const char *company)
{
    pthread_mutex_lock(&self->lock);
    shelf_t *shelf = find_locked(self, company);
    bool mine = shelf && shelf->index && !shelf->building && index_stats(shelf->index).wants_build;
    if (mine) {
        shelf->building = true;
        shelf->refs++;
    }
    pthread_mutex_unlock(&self->lock);
    if (!mine)
        return err_of(ERR_NOT_FOUND, "no index of this company wants to be built");
    err_t err = build(self, shelf);
    pthread_mutex_lock(&self->lock);
    shelf->building = false;
    pthread_mutex_unlock(&self->lock);
    give(self, shelf);
    return err;
}

err_t indexes_stats(indexes_t *self, const char *company, index_stats_t *stats)
{
    pthread_mutex_lock(&self->lock);
    shelf_t *shelf = find_locked(self, company);
    bool loaded = shelf && shelf->index;
    if (loaded)
        *stats = index_stats(shelf->index);
    pthread_mutex_unlock(&self->lock);
    return loaded ? err_ok() : err_of(ERR_NOT_FOUND, NULL);
}

index_stats_t indexes_totals(indexes_t *self, size_t *companies)
{
    index_stats_t totals = {0};
    *companies = 0;
    pthread_mutex_lock(&self->lock);
    for (shelf_t *shelf = self->shelves; shelf; shelf = shelf->next) {
        if (!shelf->index)
            continue;
        index_stats_t stats = index_stats(shelf->index);
        totals.live += stats.live;
        totals.dead += stats.dead;
        totals.base += stats.base;
        totals.tail += stats.tail;
        totals.bytes += stats.bytes;
        ++*companies;
    }
    pthread_mutex_unlock(&self->lock);
    return totals;
}
