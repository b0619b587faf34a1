/* index_build: new bases of index.h, and how they take their place. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "actors/brain/index_inside.h"

#define BUILD_BATCH 500 /* vectors FAISS gets at once; single adds are half as fast */

typedef struct build {
    const index_view_t *view;
    index_base_t *base;
    bool links; /* FAISS only takes the vectors in; linked when all are there */
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
    index_base_t *base = build->base;

    if (!vector)
        return err_of(ERR_INTERNAL, "FAISS could not return a vector");
    if (base->codes)
        codes_put(base->codes + base->count * codes_stride(dims), vector, dims);
    base->ids[base->count++] = id;
    memcpy(build->batch + build->batched++ * dims, vector, sizeof(float) * dims);
    return build->batched == BUILD_BATCH ? build_flush(build) : err_ok();
}

static err_t build_from_base(build_t *build)
{
    const index_base_t *old = build->view->base;
    float room[INDEX_DIMS_MAX];
    err_t err = err_ok();

    for (size_t at = 0; old && at < old->count && !err_is(err); at++)
        if (!index_bit_get(old->dead, at))
            err = build_put(build, old->ids[at],
                            index_base_vector(old, build->view->options.dims, at, room));
    return err;
}

static err_t build_from_tail(build_t *build)
{
    const index_view_t *view = build->view;
    err_t err = err_ok();

    for (size_t at = 0; at < view->tail_count && !err_is(err); at++)
        if (!index_tail_is_dead(view->chunks, at))
            err = build_put(build, index_tail_id(view->chunks, at),
                            index_tail_vector(view->chunks, view->options.dims, at));
    return err_is(err) ? err : build_flush(build);
}

/* Up to 256 training vectors a list, spread over the tail and the base. */
static err_t build_train(build_t *build)
{
    const index_view_t *view = build->view;
    uint32_t dims = view->options.dims;
    size_t base_count = view->base ? view->base->count : 0, count = base_count + view->tail_count;
    size_t most = 65536, step = count / most + 1, taken = 0;
    float *sample = index_grab(sizeof(float) * dims * (count / step + 1)), room[INDEX_DIMS_MAX];

    for (size_t at = 0; at < count; at += step) {
        const float *vector = at < base_count
                                  ? index_base_vector(view->base, dims, at, room)
                                  : index_tail_vector(view->chunks, dims, at - base_count);
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

    if (old && !index_factory_is(view->factory, "IVF") && view->base_dead <= old->count / 4) {
        if (faiss_clone_index(old->faiss, &build->base->faiss))
            return err_of(ERR_INTERNAL, "FAISS could not copy the index");
        if (old->map &&
            faiss_shim_give_vectors(build->base->faiss, (int64_t)old->count, old->vectors))
            return err_of(ERR_INTERNAL, "FAISS could not take the vectors of the snapshot");
        memcpy(build->base->ids, old->ids, old->count * sizeof *old->ids);
        if (build->base->codes)
            memcpy(build->base->codes, old->codes, old->count * codes_stride(options->dims));
        build->base->count = old->count;
        return err_ok();
    }
    if (faiss_index_factory(&build->base->faiss, (int)options->dims, view->factory, METRIC_L2))
        return err_of(ERR_ARGUMENT, "FAISS does not know this factory string");
    if (faiss_shim_set_breadth(build->base->faiss, options->ef_search, options->ef_construction,
                               options->nprobe))
        return err_of(ERR_INTERNAL, "FAISS refused the search settings");
    if (index_factory_is(view->factory, "IVF")) {
        err_t err = build_train(build);
        if (err_is(err))
            return err;
    }
    return build_from_base(build);
}

static err_t build_link(const build_t *build)
{
    uint32_t dims = build->view->options.dims;
    faiss_shim_link_t how = {.codes = build->base->codes,
                             .stride = codes_stride(dims),
                             .dims = dims,
                             .threads = build->view->options.build_threads,
                             .stop = build->stop,
                             .self = build->self};
    bool stopped;

    if (faiss_shim_link(build->base->faiss, &how, &stopped))
        return err_of(ERR_INTERNAL, "FAISS failed to link vectors");
    return stopped ? err_of(ERR_CANCELLED, "the build of the index was stopped") : err_ok();
}

/* What had died before in a cloned base stays dead in it. */
static void copy_dead_base(const index_base_t *from, index_base_t *to)
{
    size_t at;

    for (size_t byte = 0; from && byte * 8 < from->count; byte++) {
        if (!atomic_load_explicit(&from->dead[byte], memory_order_relaxed))
            continue;
        for (size_t slot = byte * 8; slot < byte * 8 + 8 && slot < from->count; slot++)
            if (index_bit_get(from->dead, slot) && index_base_find(to, from->ids[slot], &at))
                index_bit_set(to->dead, at);
    }
}

/* Codes are touched at random: in large pages each costs one miss less. */
uint8_t *index_codes_new(uint32_t dims, size_t count)
{
    enum { LARGE = 2 << 20 };
    size_t bytes = codes_stride(dims) * count, align = bytes < LARGE ? CODES_ALIGN : LARGE;

    bytes = (bytes + align - 1) / align * align;
    uint8_t *codes = aligned_alloc(align, bytes ? bytes : align);
    if (!codes)
        abort();
    if (align == LARGE)
        madvise(codes, bytes, MADV_HUGEPAGE);
    return codes;
}

err_t index_base_finish(index_base_t *base, uint32_t dims)
{
    if (!base->map)
        base->vectors = faiss_shim_vectors(base->faiss);
    if (!base->vectors && faiss_shim_prepare_reconstruct(base->faiss))
        return err_of(ERR_INTERNAL, "FAISS could not prepare to return vectors");
    if (faiss_Index_ntotal(base->faiss) != (idx_t)base->count)
        return err_of(ERR_INTERNAL, "FAISS counts its vectors differently");
    if (!base->vectors || base->codes)
        return err_ok();
    base->codes = index_codes_new(dims, base->count);
    for (size_t at = 0; at < base->count; at++)
        codes_put(base->codes + at * codes_stride(dims), base->vectors + at * dims, dims);
    return err_ok();
}

err_t index_build(const index_view_t *view, bool (*stop)(const void *self), const void *self,
                  index_base_t **base)
{
    size_t most = view->tail_count + (view->base ? view->base->count : 0);

    *base = NULL;
    if (!most)
        return err_of(ERR_STATE, "there are no vectors to build an index of");
    if (view->base && !index_base_is_sound(view->base))
        return err_of(ERR_CORRUPT, "the index snapshot failed its check");
    build_t build = {.view = view,
                     .base = index_base_new(most),
                     .links = index_factory_is(view->factory, "HNSW"),
                     .stop = stop,
                     .self = self};
    build.batch = index_grab(sizeof(float) * view->options.dims * BUILD_BATCH);
    if (build.links)
        build.base->codes = index_codes_new(view->options.dims, most);
    err_t err = build_start(&build);
    if (!err_is(err) && faiss_shim_reserve(build.base->faiss, (int64_t)most))
        err = err_of(ERR_INTERNAL, "FAISS could not make room for the vectors");
    if (!err_is(err))
        err = build_from_tail(&build);
    if (!err_is(err) && build.links)
        err = build_link(&build);
    if (!err_is(err))
        err = index_base_finish(build.base, view->options.dims);
    free(build.batch);
    if (err_is(err)) {
        index_base_release(build.base);
        return err;
    }
    build.base->covers = view->last_id;
    build.base->from_epoch = view->epoch;
    *base = build.base;
    return err_ok();
}

/* Appends the living part of a tail that is not in the base and not yet in `to`. */
static void carry_over(const index_base_t *base, tail_t *to, uint32_t dims, chunk_t *const *chunks,
                       size_t count)
{
    uint64_t after = to->count ? index_tail_id(to->chunks, to->count - 1) : base->covers;
    size_t at;

    if (index_tail_find(chunks, count, after, &at))
        at++;
    for (; at < count; at++) {
        if (index_tail_is_dead(chunks, at))
            continue;
        index_tail_place(to, dims, index_tail_id(chunks, at), index_tail_vector(chunks, dims, at));
        to->count++;
    }
}

void index_carry(const index_view_t *view, index_base_t *base)
{
    base->carried = index_tail_new();
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
        if (!index_tail_is_dead(old->chunks, i))
            continue;
        uint64_t id = index_tail_id(old->chunks, i);
        if (id <= base->covers) {
            if (index_base_find(base, id, &at))
                index_bit_set(base->dead, at);
        } else if (index_tail_find(tail->chunks, tail->count, id, &at)) {
            index_bit_set(tail->chunks[at / CHUNK]->dead, at % CHUNK);
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
        index_base_release(fresh);
        return err_of(ERR_STATE, "another index was swapped in since this one was begun");
    }
    index_base_t *old_base = index->base;
    tail_t *old_tail = index->tail, *tail = fresh->carried ? fresh->carried : index_tail_new();
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
            index->base_dead = index_base_dead(fresh);
            index->tail_dead = dead;
            index->epoch++;
        }
        pthread_mutex_unlock(&index->lock);
    }
    index_base_release(old_base);
    index_tail_release(old_tail);
    return err_ok();
}
