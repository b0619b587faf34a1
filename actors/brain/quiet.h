/* quiet: what the brain does for a company when nothing has been stored there for a moment: the
 * words of its newest memories are merged into the index, so that searches need not look through
 * them one by one. Under a steady load the merges of postings.h do that now and then.
 */
#ifndef ACTORS_BRAIN_QUIET_H
#define ACTORS_BRAIN_QUIET_H

#include "actors/brain/brain.h"

/* A memory was stored; takes effect with the commit. */
void quiet_wake(brain_t *self, call_t *call, const char *company);
/* A company is met at a start: the last run may have ended before its merge. */
void quiet_found(brain_t *self, call_t *call, store_txn_t *txn, const char *company);
void quiet_stop(brain_t *self);

#endif
