/* upkeep: what the brain does by itself for each company, at start, when it is woken, and every
 * brain.upkeep_ms: finishes rebuilds of the indexes (after a crash, a change of language or of
 * rules), and deletes memories whose time is over. Thread: the actor's.
 */
#ifndef ACTORS_BRAIN_UPKEEP_H
#define ACTORS_BRAIN_UPKEEP_H

#include "actors/brain/brain.h"

/* From open: looks at all companies now and again and again. */
void upkeep_start(brain_t *self, call_t *call);
/* Looks at all companies after the commit of this entry. */
void upkeep_wake(call_t *call);

extern const method_t upkeep_methods[];

#endif
