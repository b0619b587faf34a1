/* indexes: the vectors of companies in memory, as caches of their stores.
 *
 * A company's index is loaded when somebody first searches it: from its snapshot file, brought up
 * to date with the store, or from the store alone. Memories that came since are added by whoever
 * searches next (the reader's own snapshot of the store says how far), so that writers do nothing
 * but commit. Deleted ones are buried by indexes_drop after the commit that deleted them.
 * The least recently used leave memory beyond a limit. Files are caches: remove them at will.
 *
 * Threads: any, except that indexes_destroy must be last. Locks: one over the table, held for a few
 * instructions; one per company, held while its index is loaded or extended. Searching holds none.
 */
#ifndef ACTORS_BRAIN_INDEXES_H
#define ACTORS_BRAIN_INDEXES_H

#include "actors/brain/index.h"
#include "bus/store.h"

typedef struct indexes indexes_t;

typedef struct indexes_options {
    const char *dir;     /* of the brain: files are <dir>/<company>/vectors.index; copied */
    const char *factory; /* copied */
    uint32_t exact_max;
    int ef_search;
    unsigned build_threads;
    size_t open_limit;
    /* A snapshot could not be used or written, and why; any thread; NULL: nobody wants to know. */
    void (*warn)(const char *company, const char *what, err_t err);
} indexes_options_t;

/* What the vectors of a company are, by its store. */
typedef struct vectors_of {
    const char *model; /* name of the embedder and its rules */
    uint32_t number;   /* of the model in the keys; a later model has a larger one */
    uint32_t dims;
    uint64_t newest; /* number of the newest memory in the snapshot */
    uint64_t count;  /* memories in it that have such a vector, up to that number */
} vectors_of_t;

err_t indexes_new(indexes_t **indexes, const indexes_options_t *options);
/* Writes snapshots of what is worth it. */
void indexes_destroy(indexes_t **indexes);

/* A view with everything that `txn` sees, and perhaps more. Release it.
 * ERR_STATE: memory has moved on to a later model than this snapshot's. */
err_t indexes_view(indexes_t *indexes, const char *company, store_txn_t *txn,
                   const vectors_of_t *of, arena_t *arena, index_view_t **view);

/* A memory is gone; after the commit. */
void indexes_drop(indexes_t *indexes, const char *company, uint64_t number);

/* The company's vectors are to be read anew: after a rebuild of the store, an import, an erasure.
 */
void indexes_forget(indexes_t *indexes, const char *company);

/* Would indexes_build pay for that company? False when it is not in memory, or being built. */
bool indexes_wants_build(indexes_t *indexes, const char *company);
/* A company whose index wants a build, now claimed by the caller until indexes_unclaim; NULL: none.
 */
const char *indexes_claim(indexes_t *indexes, arena_t *arena);
void indexes_unclaim(indexes_t *indexes, const char *company);
/* Builds, swaps and saves; long. ERR_NOT_FOUND when that would not pay, or it is under way;
 * ERR_CANCELLED after indexes_stop. */
err_t indexes_build(indexes_t *indexes, const char *company);
/* Ends the builds under way soon, and refuses others from now on: the end is near. */
void indexes_stop(indexes_t *indexes);

/* ERR_NOT_FOUND when the company is not in memory. */
err_t indexes_stats(indexes_t *indexes, const char *company, index_stats_t *stats);

/* Of all companies in memory together; *companies is how many these are. */
index_stats_t indexes_totals(indexes_t *indexes, size_t *companies);

/* The stored form of a vector's key. */
void vector_key(store_key_t *key, uint32_t model, uint64_t number);

/* ---- the row of table heads ---- */

typedef struct head_row {
    int64_t timestamp_ms;
    uint64_t type_hash;
    uint32_t model; /* 0: no vector */
    uint32_t flags;
} head_row_t;

/* Above the low byte of flags: a second model it has a vector of, while the company moves. */
enum { HEAD_HAS_THREAD = 1, HEAD_MODEL_SHIFT = 8 };

static inline bool head_has_vector(const head_row_t *head, uint32_t model)
{
    return model && (head->model == model || head->flags >> HEAD_MODEL_SHIFT == model);
}

/* False when the value is no such row. */
bool head_row_read(bytes_t value, head_row_t *row);

#endif
