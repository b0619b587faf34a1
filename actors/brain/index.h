/* index: the vectors of one company, searched by cosine.
 *
 * Small sets are scanned exactly. Beyond `exact_max` vectors the older ones are in an immutable
 * FAISS index and only the newest in a flat tail. Nothing is ever added to an index that somebody
 * searches: a rebuild makes a new one from a view, and index_swap exchanges a pointer.
 *
 *      index_add ──▶ tail (flat, exact) ──index_build──▶ base (FAISS) ──index_swap──▶ readers
 *
 * Ids are the caller's, and grow: each add is larger than all before it and an id is never used
 * again. (A replaced memory gets a new id.) That keeps slot → id a sorted array, makes a snapshot
 * right for every id it holds, and lets index_reconcile repair any stale snapshot by one merge.
 *
 * Vectors are normalised here; a vector of zeros or with NaN or infinity is refused.
 * The truth is in the store: an index is a cache and can be thrown away at any time.
 *
 * Threads: add, swap, reconcile, load and destroy belong to one writer at a time.
 * index_drop, index_acquire, index_stats, the searches on a view and index_view_release are for any
 * thread at any time. index_build and index_save work on a view, on any thread, and block nobody.
 * The only lock is held for the few instructions that take or exchange the pointer.
 */
#ifndef ACTORS_BRAIN_INDEX_H
#define ACTORS_BRAIN_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actors/brain/top.h"
#include "proto/arena.h"
#include "proto/err.h"

#define INDEX_DIMS_MAX 8192

typedef struct index index_t;
typedef struct index_view index_view_t;
typedef struct index_base index_base_t;

typedef struct index_options {
    uint32_t dims;          /* 1 to INDEX_DIMS_MAX */
    uint32_t exact_max;     /* up to so many live vectors no FAISS index is built; 0: the default */
    const char *factory;    /* FAISS factory string of the base; NULL: "HNSW32" */
    int ef_search;          /* 0: the default */
    int ef_construction;    /* 0: the default */
    int nprobe;             /* for IVF factories; 0: the default */
    unsigned build_threads; /* that link an HNSW graph; 0: 1 */
    const char *model; /* who made the vectors; at most 95 bytes; a snapshot of another is stale */
} index_options_t;

/* Scores are cosines, -1 to 1. */
typedef top_hit_t index_hit_t;

/* Which ids may be answers. accept may be called on the searching thread for any id, dead or
 * alive. `about` is how many ids it accepts as far as the caller knows, 0 if it does not. */
typedef struct index_filter {
    bool (*accept)(const void *self, uint64_t id);
    const void *self;
    size_t about;
} index_filter_t;

typedef struct index_stats {
    size_t live, dead; /* vectors that can be found; tombstones */
    size_t base, tail; /* slots in the FAISS index; slots scanned exactly */
    size_t bytes;      /* memory of vectors, ids and (estimated) graph */
    bool wants_build;  /* a call of index_build would pay now */
} index_stats_t;

/* Errors: ARGUMENT (dims, factory or model out of range; the factory string itself is first
 * tried by index_build). */
err_t index_new(index_t **index, const index_options_t *options);
void index_destroy(index_t **index);

/* Adds one vector of options.dims floats. Errors: ARGUMENT (id not larger than every id before;
 * vector without a direction or not finite). */
err_t index_add(index_t *index, uint64_t id, const float *vector);

/* Buries an id at once, also in views that share the present base (a view older than the last swap
 * may still show it). False when the id is not there or already dead. */
bool index_drop(index_t *index, uint64_t id);

index_stats_t index_stats(index_t *index);

/* A view sees what was added before it was taken; drops show at once. Release it soon: it keeps
 * the memory of replaced indexes alive. */
index_view_t *index_acquire(index_t *index);
void index_view_release(index_view_t **view);

/* The k nearest of the view, best first, equal scores newest first; *count <= k.
 * Hits live in the arena. filter may be NULL.
 * Errors: ARGUMENT (a query without a direction or not finite), INTERNAL (FAISS failed). */
err_t index_search(const index_view_t *view, const float *query, size_t k,
                   const index_filter_t *filter, arena_t *arena, index_hit_t **hits, size_t *count);

/* The same by scanning everything: the yardstick for recall. */
err_t index_search_exact(const index_view_t *view, const float *query, size_t k,
                         const index_filter_t *filter, arena_t *arena, index_hit_t **hits,
                         size_t *count);

/* The cosine of given ids in any order; NaN for ids that are not there or dead. */
err_t index_score(const index_view_t *view, const float *query, const uint64_t *ids, size_t count,
                  float *scores);

/* Builds a new base from the live vectors of the view: a long run, no locks. An existing base with
 * few tombstones is cloned and extended, so that a vector is inserted into a graph about once.
 * Ask `stop` (may be NULL) from time to time; true ends with CANCELLED.
 * The factory must keep whole vectors: "Flat", "HNSW<m>" or "IVF<n>,Flat".
 * Errors: ARGUMENT (any other factory string), STATE (nothing to build from), CORRUPT (what the
 * index was loaded from is damaged), CANCELLED, INTERNAL.
 */
err_t index_build(const index_view_t *view, bool (*stop)(const void *self), const void *self,
                  index_base_t **base);

/* Takes over into `base` what the view has and the base does not, which makes the swap short. On
 * any thread, at most once, before the swap. */
void index_carry(const index_view_t *view, index_base_t *base);

/* Makes `base` (from index_build on a view of this index; consumed in any case) the base; what was
 * added or dropped since stays added or dropped. Errors: STATE (another swap came first). */
err_t index_swap(index_t *index, index_base_t **base);

/* Frees a base that is not going to be swapped in. */
void index_base_destroy(index_base_t **base);

/* Writes a snapshot: a temporary file of its own beside `path` (INDEX_PART follows its name),
 * checksummed, renamed over it. `generation` is the caller's: what the store had counted when the
 * view was taken. On any thread, also several at once. Errors: IO, FULL, CORRUPT (what the index
 * was loaded from is damaged). */
#define INDEX_PART ".part-"
err_t index_save(const index_view_t *view, const char *path, uint64_t generation);

/* Fills an empty index from a snapshot. Errors: NOT_FOUND, STATE (the index is not empty),
 * VERSION (another format, model, dimension or factory: rebuild), CORRUPT, IO. After an error the
 * index is still empty. The file stays mapped: it may be replaced or removed, never shortened. */
err_t index_load(index_t *index, const char *path, uint64_t *generation);

/* The vectors of a large snapshot are checked in the background while they are used. True: they are
 * not what was written. Throw the index and the file away; what it answered may be wrong. Until
 * that is known, building from it and saving it check for themselves. */
bool index_is_damaged(index_t *index);

/* Compares the index with the ids that the store holds, in ascending order by `next` (false: no
 * more): drops what the store no longer has, and calls `missing` for each live id that the index
 * lacks and that is newer than all it has; `missing` is expected to index_add it.
 * Errors: those of `missing`; STATE when an older id is missing (rebuild from scratch). */
typedef struct index_reconcile {
    void *self;
    bool (*next)(void *self, uint64_t *id);
    err_t (*missing)(void *self, index_t *index, uint64_t id);
} index_reconcile_t;

err_t index_reconcile(index_t *index, const index_reconcile_t *with);

#endif
