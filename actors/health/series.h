/* series: every tracked metric of every agent, rolled up in the company's store: 10 s for a day,
 * 1 min for a week, 1 h for a year. What a report costs does not depend on how many points there
 * were. Points arrive in batches: they are summed up in memory and written once for each span.
 * Thread: the health actor's, in its entries. */
#ifndef ACTORS_HEALTH_SERIES_H
#define ACTORS_HEALTH_SERIES_H

#include "actors/health/bucket.h"
#include "bus/actor.h"

enum { SERIES_LEVELS = 3, AGENT_BYTES = 128, METRIC_BYTES = 200 };

typedef enum series_level { LEVEL_10S, LEVEL_MINUTE, LEVEL_HOUR } series_level_t;

int64_t series_span_ms(series_level_t level);
int64_t series_kept_ms(series_level_t level);

typedef struct point {
    const char *agent, *metric;
    double value;
    int64_t at_ms;
} point_t;

/* One line of a metrics file: {"timestamp", "agent", "metric", "value", "tags"?}. `own`: this
 * actor wrote it, so it is rolled up already. ERR_PARSE, ERR_ARGUMENT. */
err_t point_parse(arena_t *arena, const char *text, size_t size, int64_t now_ms, point_t *out,
                  const char **own);
/* Are these names and this time sound? ERR_ARGUMENT says what to change. */
err_t point_check(arena_t *arena, const point_t *point, int64_t now_ms);

typedef struct series_batch series_batch_t;

series_batch_t *series_batch_new(call_t *call, store_txn_t *txn, int64_t most_series);
/* ERR_QUOTA: the name is new and there are too many. */
err_t series_batch_add(series_batch_t *batch, const point_t *point);
err_t series_batch_write(series_batch_t *batch);

typedef struct series {
    uint64_t id;
    const char *agent, *metric;
    double last;
    int64_t last_ms, count;
    bool fresh; /* the batch brought the name */
} series_t;

/* All of them in the order of their names; `agent` and `metric` narrow it when not NULL. */
typedef struct series_list {
    series_t *items;
    size_t count;
} series_list_t;

err_t series_list(store_txn_t *txn, arena_t *arena, const char *agent, const char *metric,
                  series_list_t *out);
/* The names live as long as those given. ERR_NOT_FOUND. */
err_t series_find(store_txn_t *txn, const char *agent, const char *metric, series_t *out);
/* Is this metric name or agent:metric a name of that series? */
bool series_is_named(const char *wanted, const series_t *series);
/* What the batch is about, as it will be. */
series_list_t series_batch_list(const series_batch_t *batch);

typedef struct span {
    int64_t from_ms;
    bucket_t bucket;
} span_t;

typedef struct span_list {
    span_t *items;
    size_t count;
} span_list_t;

/* The spans of a level that begin at or after from_ms, oldest first. */
err_t series_spans(store_txn_t *txn, arena_t *arena, uint64_t id, series_level_t level,
                   int64_t from_ms, span_list_t *out);

/* The one span that begins at from_ms. ERR_NOT_FOUND. */
err_t series_span(store_txn_t *txn, arena_t *arena, uint64_t id, series_level_t level,
                  int64_t from_ms, span_t *out);

/* Deletes at most `most` spans that are older than their level keeps. */
err_t series_trim(store_txn_t *txn, arena_t *arena, int64_t now_ms, int64_t most);

#endif
