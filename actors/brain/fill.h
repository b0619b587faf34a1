/* fill: gives memories their vectors afterwards, in the background.
 *
 * Storing never waits for an embedding endpoint: a memory is kept with its words at once, and its
 * vector follows. The same way a company moves to another model: the vectors of the next model are
 * made beside those in use, and one transaction switches over when all are there. How far it is
 * stands in the store (meta_fill_t), so it goes on after a crash. An endpoint that fails is asked
 * again after a growing pause, for ever. Thread: the actor's.
 */
#ifndef ACTORS_BRAIN_FILL_H
#define ACTORS_BRAIN_FILL_H

#include "actors/brain/meta.h"

/* Looks through all companies for work that a stop interrupted. From open. */
void fill_start(brain_t *self, call_t *call);
void fill_stop(brain_t *self);
/* This company may have something to fill; works from the commit on. */
void fill_wake(brain_t *self, call_t *call, const char *company);

/* Begins to move a company to the model that the settings name. `started` is false when it has it,
 * or is on its way to it, unless `again`. ERR_NOT_FOUND: it has no memory. */
err_t fill_reembed(brain_t *self, call_t *call, const char *company, bool again, bool *started,
                   const char **model);

/* Why the last try failed; "" when it did not. Lives until the next entry. */
const char *fill_trouble(const brain_t *self);

#endif
