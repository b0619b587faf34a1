/* inside: what the files of the index share (index.c: life, writing, searching; index_build.c: new
 * bases; index_file.c: snapshots). Nobody else includes this.
 *
 * A base and what a view shows of a tail never change, but for the bits of the dead.
 */
#ifndef ACTORS_BRAIN_INDEX_INSIDE_H
#define ACTORS_BRAIN_INDEX_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "actors/brain/codes.h"
#include "actors/brain/faiss_shim.h"
#include "actors/brain/index.h"

#define CHUNK 1024 /* vectors in one piece of the tail */
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

typedef struct index_check index_check_t;

struct index_base {
    atomic_uint refs;
    FaissIndex *faiss;
    const float *vectors; /* inside faiss or the map, or NULL: reconstruct */
    void *map;            /* of the snapshot that it came from, if that has the vectors */
    size_t map_size;
    index_check_t *check; /* of the vectors in the map; NULL: they were checked */
    tail_t *carried;      /* copied for the swap */
    uint8_t *codes;       /* of the vectors, by slot; NULL when these are */
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

static inline bool index_bit_get(const _Atomic uint8_t *bits, size_t at)
{
    uint8_t byte = atomic_load_explicit(&bits[at / 8], memory_order_relaxed);

    return byte >> (at % 8) & 1;
}

static inline bool index_bit_set(_Atomic uint8_t *bits, size_t at)
{
    uint8_t mask = (uint8_t)(1U << (at % 8));

    return !(atomic_fetch_or_explicit(&bits[at / 8], mask, memory_order_relaxed) & mask);
}

static inline uint64_t index_tail_id(chunk_t *const *chunks, size_t at)
{
    return chunks[at / CHUNK]->ids[at % CHUNK];
}

static inline bool index_tail_is_dead(chunk_t *const *chunks, size_t at)
{
    return index_bit_get(chunks[at / CHUNK]->dead, at % CHUNK);
}

static inline const float *index_tail_vector(chunk_t *const *chunks, uint32_t dims, size_t at)
{
    return chunks[at / CHUNK]->vectors + (at % CHUNK) * dims;
}

/* Zeroed; ends the process when there is none. */
void *index_grab(size_t size);

tail_t *index_tail_new(void);
void index_tail_release(tail_t *tail);
/* Writes behind everything readers look at; the count is raised by the caller under the lock. */
void index_tail_place(tail_t *tail, uint32_t dims, uint64_t id, const float *vector);
/* False: *at is where it would be. */
bool index_tail_find(chunk_t *const *chunks, size_t count, uint64_t id, size_t *at);

/* With room for the ids of `count`; the caller counts. */
index_base_t *index_base_new(size_t count);
void index_base_release(index_base_t *base);
bool index_base_find(const index_base_t *base, uint64_t id, size_t *at);
/* `room` holds dims floats for kinds of index that must put the vector together first. NULL: FAISS
 * failed. */
const float *index_base_vector(const index_base_t *base, uint32_t dims, size_t at, float *room);
size_t index_base_dead(const index_base_t *base);

bool index_factory_is(const char *factory, const char *kind);

/* In index_file.c: NULL is none. Ending waits for a block at most. */
void index_check_end(index_check_t *check);
bool index_check_failed(const index_check_t *check);
/* Looks at what the check may not have come to yet: takes as long. */
bool index_base_is_sound(const index_base_t *base);

/* In index_build.c: room for the codes of so many vectors; what a base needs once FAISS has all
 * vectors (codes that are there already are kept). ERR_INTERNAL. */
uint8_t *index_codes_new(uint32_t dims, size_t count);
err_t index_base_finish(index_base_t *base, uint32_t dims);

#endif
