/* watches: which alert rules look at which metric, of one company, in memory. Built from the store
 * when it is needed. It may hold rules and names that are no more; none that is kept is missing.
 * Thread: the health actor's. */
#ifndef ACTORS_HEALTH_WATCHES_H
#define ACTORS_HEALTH_WATCHES_H

#include "actors/health/health.h"

/* A rule. */
typedef struct watch {
    struct watch *next;
    char *id;
    struct {
        char **items; /* agent:metric of those that it looks at */
        size_t count, capacity;
    } series;
    int64_t due_ms; /* monotonic: to be looked at again then; 0: when a point comes */
} watch_t;

/* What a rule listens to. "a:b" may be the metric b of a, or a metric "a:b" of anybody. */
typedef struct ear {
    struct ear *next;
    watch_t *watch;
    char *agent; /* NULL: any */
    char *metric;
} ear_t;

typedef struct watches watches_t;

/* From the rules and the series of the store. `*out` was NULL. */
err_t watches_build(call_t *call, store_txn_t *txn, watches_t **out);
void watches_destroy(watches_t **watches);

/* A rule that is new or was changed. */
err_t watches_add(watches_t *watches, call_t *call, store_txn_t *txn, const alert_t *alert,
                  watch_t **out);

/* NULL: none. */
watch_t *watches_find(const watches_t *watches, const char *id);
watch_t *watches_first(const watches_t *watches);
/* The next rule after `last` (NULL: the first) that looks at this series; NULL: there is none. */
ear_t *watches_next(const watches_t *watches, const series_t *series, ear_t *last);
/* A series that is new becomes known to the rule. */
void watches_meet(watch_t *watch, const series_t *series);

/* To be looked at again in so long. */
void watches_due(watches_t *watches, watch_t *watch, call_t *call, int64_t in_ms);
bool watches_is_due(const watch_t *watch, call_t *call);
/* INT64_MAX: nobody waits. Monotonic. */
int64_t watches_next_due(const watches_t *watches);
/* Finds that time anew; who is due and could not be judged is tried again in retry_ms. */
void watches_plan(watches_t *watches, call_t *call, int64_t retry_ms);

#endif
