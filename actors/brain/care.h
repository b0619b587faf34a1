/* care: looking after a company's memory: proving it, sweeping it, forgetting of it.
 *
 * What can take long goes a slice at a time: each call does a little in a transaction of its own
 * and says whether there is more. Between slices everything is consistent, other calls are served,
 * and a crash loses nothing but the place, which is found again.
 */
#ifndef ACTORS_BRAIN_CARE_H
#define ACTORS_BRAIN_CARE_H

#include "actors/brain/memory.h"
#include "actors/brain/policy.h"

/* Do episodes, ids, heads, threads, words and vectors agree? Reads everything; may run on a reader
 * thread. ERR_CORRUPT says where not; ERR_NOT_FOUND: there is nothing. */
err_t care_check(brain_t *self, call_t *call, const char *company);

/* Deletes rows that nothing leads to any more. `place` starts zeroed and lives as long as the run.
 */
typedef struct care_place {
    int step;
    store_key_t from;
    int64_t deleted;
} care_place_t;
err_t care_vacuum(brain_t *self, call_t *call, const char *company, care_place_t *place,
                  bool *more);

/* Which memories to forget; all conditions must hold. */
typedef struct care_wish {
    const char *type;
    bool has_since, has_until, everything; /* everything: all memories and the graph */
    int64_t since, until;
    bytes_t filter;
    const policy_t *policy; /* not NULL: those whose time is over at now_ms */
    int64_t now_ms;
} care_wish_t;
err_t care_forget(brain_t *self, call_t *call, const char *company, const care_wish_t *wish,
                  uint64_t *from, int64_t *deleted, bool *more);

#endif
