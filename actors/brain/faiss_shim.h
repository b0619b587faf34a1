/* faiss_shim: what we need of FAISS beyond, or instead of, its C API.
 *
 * Debian's libfaiss-dev ships the headers of the C API but not its implementation; the shim
 * implements the declared functions that index.c uses (unless AGENCY_FAISS_C says that a libfaiss_c
 * is linked) and a few more, which version 1.7.3 of the C API has no words for.
 * Every function catches every C++ exception: 0 is success, and faiss_get_last_error() then says
 * what went wrong on this thread. FAISS runs single-threaded inside each call.
 * For index.c only.
 */
#ifndef ACTORS_BRAIN_FAISS_SHIM_H
#define ACTORS_BRAIN_FAISS_SHIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/clone_index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#include "actors/brain/codes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* May the vector in this slot be an answer? Called on the searching thread; must not throw. */
typedef bool (*faiss_shim_accept_t)(const void *self, int64_t slot);

/* The breadth of searches in this index: efSearch of HNSW, nprobe of IVF; others ignore it.
 * HNSW 1.7.3 sizes its candidate heap by the index's own value, so this is set once, before the
 * index is shared, and not per query. efConstruction > 0 sets that of HNSW. */
int faiss_shim_set_breadth(FaissIndex *index, int ef_search, int ef_construction, int nprobe);

/* How an HNSW index is walked; the other kinds know only their breadth from above. */
typedef struct faiss_shim_walk {
    int breadth;
    const uint8_t *codes; /* of the vectors by slot, or NULL: walk over the vectors */
    size_t stride;
    const codes_query_t *query; /* the same query as codes; with `codes` */
} faiss_shim_walk_t;

/* One query, k answers; labels of missing answers are -1. accept may be NULL. A walk over codes
 * answers by them: order and distances are only about right. */
int faiss_shim_search(const FaissIndex *index, const float *query, int64_t k,
                      const faiss_shim_walk_t *walk, faiss_shim_accept_t accept, const void *self,
                      float *distances, int64_t *labels);

/* Adds on one thread, whatever OMP_NUM_THREADS says. An HNSW index over plain vectors only takes
 * them in: faiss_shim_link makes them part of its graph. faiss_shim_reserve says how many there
 * will be. */
int faiss_shim_add(FaissIndex *index, int64_t count, const float *vectors);
int faiss_shim_reserve(FaissIndex *index, int64_t count);

typedef struct faiss_shim_link {
    const uint8_t *codes; /* of all vectors by slot; every vector has length 1 */
    size_t stride;
    uint32_t dims;
    unsigned threads;               /* at least 1, which is the caller's */
    bool (*stop)(const void *self); /* asked on the caller's thread; NULL: never */
    const void *self;
} faiss_shim_link_t;

/* Links what was added; nothing for other kinds of index. *stopped: the index must be freed. */
int faiss_shim_link(FaissIndex *index, const faiss_shim_link_t *how, bool *stopped);

/* The vectors of a Flat or HNSW index, one after the other by slot; NULL when the index keeps them
 * in another shape. Valid until the index is changed or freed. */
const float *faiss_shim_vectors(const FaissIndex *index);

/* Lets faiss_Index_reconstruct work on an IVF index. */
int faiss_shim_prepare_reconstruct(FaissIndex *index);

/* The graph of an HNSW index without the vectors, for a file that has these elsewhere; *graph is
 * NULL when the index is of another kind. Such a graph is good for walks over codes only, until
 * faiss_shim_give_vectors gave it the vectors back (those of its slots, in order, copied). */
int faiss_shim_graph(const FaissIndex *index, FaissIndex **graph);
int faiss_shim_give_vectors(FaissIndex *graph, int64_t count, const float *vectors);

/* Trains where the kind of index needs it. */
int faiss_shim_train(FaissIndex *index, int64_t count, const float *vectors);

#ifdef __cplusplus
}
#endif

#endif
