/* rebuild: all indexes of a company made anew from its memories, a slice at a time, in a new
 * generation that is switched to at the end; by the rules and in the language of now. Between
 * slices everything is consistent and other calls are served; how far it is stands in the store.
 */
#ifndef ACTORS_BRAIN_REBUILD_H
#define ACTORS_BRAIN_REBUILD_H

#include "actors/brain/memory.h"

/* Makes words, heads, ids, threads and missing vectors anew. Goes on where an earlier one stopped,
 * or begins. When it is through, vectors of the built-in embedder follow in the background if the
 * language or the rules are others than before. */
err_t rebuild_step(brain_t *self, call_t *call, const char *company, bool *more, int64_t *done);

/* Is one on its way, or needed because the rules have changed? */
bool rebuild_waits(brain_t *self, store_txn_t *txn, arena_t *arena);

/* Chooses the language of a company's words. `started`: it is another one than before, and what is
 * there waits for rebuild_step (nothing does when there is no memory yet). ERR_ARGUMENT names the
 * languages there are. */
err_t rebuild_language(brain_t *self, call_t *call, const char *company, const char *language,
                       bool *started);

#endif
