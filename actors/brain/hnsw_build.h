/* hnsw_build: links vectors into the graph of a FAISS HNSW index, with as many threads as asked.
 *
 * FAISS links by whole vectors, waits for each to arrive from memory, and looks at every pair of a
 * full list whenever one more neighbour wants in: with vectors that have no clusters nearly all of
 * its time goes there. This is the paper's algorithm (Malkov and Yashunin, arXiv 1603.09320,
 * algorithms 1 and 4) over codes, fetched ahead, and a full list is thinned to FILL of its size, so
 * that many more fit before it must be looked at again.
 * C++, for faiss_shim.cc only.
 */
#ifndef ACTORS_BRAIN_HNSW_BUILD_H
#define ACTORS_BRAIN_HNSW_BUILD_H

#include <faiss/impl/HNSW.h>

#include "actors/brain/faiss_shim.h"

namespace hnsw
{

/* Links the slots from the graph's present size to `count`. Slots of higher levels go first, else
 * in order. False: `how.stop` said so, and the graph is good for nothing.
 * Throws what allocating and starting threads throw. */
bool link(faiss::HNSW &graph, size_t count, const faiss_shim_link_t &how);

} // namespace hnsw

#endif
