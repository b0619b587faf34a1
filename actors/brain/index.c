#include "actors/brain/index.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "actors/brain/index_inside.h"
#include "actors/brain/simd.h"

#define EXACT_MAX 10000 /* measured: see bench_brain */
#define TAIL_MIN 2048   /* a smaller tail costs less to scan than a build to make */
#define TAIL_MOST                                                                                  \
    8192 /* a larger one costs each search more than a build, however large the base */
#define EF_SEARCH 64
#define EF_CONSTRUCTION 80
#define NPROBE 16
#define SAMPLE 256 /* ids asked to learn how much a filter lets through */

void *index_grab(size_t size)
{
    void *memory = calloc(1, size ? size : 1);

    if (!memory)
        abort();
    return memory;
}

/* ---- tail ---- */

tail_t *index_tail_new(void)
{
    tail_t *tail = index_grab(sizeof *tail);

    atomic_init(&tail->refs, 1);
    return tail;
}

void index_tail_release(tail_t *tail)
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
    chunk_t **chunks = index_grab(capacity * sizeof *chunks);

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

void index_tail_place(tail_t *tail, uint32_t dims, uint64_t id, const float *vector)
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

bool index_tail_find(chunk_t *const *chunks, size_t count, uint64_t id, size_t *at)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (index_tail_id(chunks, middle) < id)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return low < count && index_tail_id(chunks, low) == id;
}

/* ---- base ---- */

index_base_t *index_base_new(size_t count)
{
    index_base_t *base = index_grab(sizeof *base);

    atomic_init(&base->refs, 1);
    base->ids = index_grab(count * sizeof *base->ids);
    base->dead = index_grab(count / 8 + 1);
    return base;
}

void index_base_release(index_base_t *base)
{
    if (!base || atomic_fetch_sub(&base->refs, 1) != 1)
        return;
    if (base->faiss)
        faiss_Index_free(base->faiss);
    index_check_end(base->check);
    if (base->map)
        munmap(base->map, base->map_size);
    index_tail_release(base->carried);
    free(base->codes);
    free(base->ids);
    free((void *)base->dead);
    free(base);
}

void index_base_destroy(index_base_t **base)
{
    index_base_release(*base);
    *base = NULL;
}

bool index_base_find(const index_base_t *base, uint64_t id, size_t *at)
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

const float *index_base_vector(const index_base_t *base, uint32_t dims, size_t at, float *room)
{
    if (base->vectors)
        return base->vectors + at * dims;
    return faiss_Index_reconstruct(base->faiss, (idx_t)at, room) == 0 ? room : NULL;
}

size_t index_base_dead(const index_base_t *base)
{
    size_t dead = 0;

    for (size_t byte = 0; byte <= base->count / 8; byte++)
        dead += (size_t)__builtin_popcount(
            atomic_load_explicit(&base->dead[byte], memory_order_relaxed));
    return dead;
}

/* ---- life ---- */

bool index_factory_is(const char *factory, const char *kind)
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
    if (index_factory_is(factory, "HNSW"))
        return sscanf(factory, "HNSW%d%c", &number, &end) == 1 && number >= 2 && number <= 128;
    if (index_factory_is(factory, "IVF")) {
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
    index_t *self = index_grab(sizeof *self);
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
    if (!self->options.build_threads)
        self->options.build_threads = 1;
    self->tail = index_tail_new();
    *index = self;
    return err_ok();
}

void index_destroy(index_t **index)
{
    index_t *self = *index;

    if (!self)
        return;
    index_base_release(self->base);
    index_tail_release(self->tail);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *index = NULL;
}

index_view_t *index_acquire(index_t *index)
{
    index_view_t *view = index_grab(sizeof *view);

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
    index_base_release((*view)->base);
    index_tail_release((*view)->tail);
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
    index_tail_place(index->tail, index->options.dims, id, unit);
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
    if (index_base_find(index->base, id, &at)) {
        dropped = index_bit_set(index->base->dead, at);
        index->base_dead += dropped;
    } else if (index_tail_find(index->tail->chunks, index->tail->count, id, &at)) {
        dropped = index_bit_set(index->tail->chunks[at / CHUNK]->dead, at % CHUNK);
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

bool index_is_damaged(index_t *index)
{
    pthread_mutex_lock(&index->lock);
    bool damaged = index->base && index_check_failed(index->base->check);
    pthread_mutex_unlock(&index->lock);
    return damaged;
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
        uint64_t id = index_tail_id(view->chunks, at);
        if (index_tail_is_dead(view->chunks, at) || !accepted(search->filter, id))
            continue;
        const uint8_t *code = view->chunks[at / CHUNK]->codes + at % CHUNK * stride;
        offer(search, id, exact ? NULL : code, index_tail_vector(view->chunks, dims, at));
    }
}

static err_t scan_base(search_t *search, bool exact)
{
    const index_base_t *base = search->view->base;
    uint32_t dims = search->view->options.dims;
    size_t stride = codes_stride(dims);
    float room[INDEX_DIMS_MAX];

    for (size_t at = 0; at < base->count; at++) {
        if (index_bit_get(base->dead, at) || !accepted(search->filter, base->ids[at]))
            continue;
        const float *vector = index_base_vector(base, dims, at, room);
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

    return !index_bit_get(in->base->dead, (size_t)slot) &&
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

    if (index_base_find(view->base, id, &at))
        return index_bit_get(view->base->dead, at) ? NULL
                                                   : index_base_vector(view->base, dims, at, room);
    if (index_tail_find(view->chunks, view->tail_count, id, &at) &&
        !index_tail_is_dead(view->chunks, at))
        return index_tail_vector(view->chunks, dims, at);
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
        *dead = index_bit_get(base->dead, walk->at);
        return true;
    }
    size_t at = walk->at - base_count;
    if (at >= tail->count)
        return false;
    *id = index_tail_id(tail->chunks, at);
    *dead = index_tail_is_dead(tail->chunks, at);
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
