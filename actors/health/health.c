#include "actors/health/health.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/health/detect.h"
#include "actors/health/series.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_DEFINE(health_settings, health_settings_FIELDS)

enum {
    GUARD_MS = 30000,
    TRIM_MS = 3600000,
    TRIM_MOST = 20000,
    STATS_MS = 2000,
    DETECT_SPANS = 180
};

#define timeframe_VALUES(V)                                                                        \
    V(LAST_HOUR, "last_hour") V(LAST_DAY, "last_day") V(LAST_WEEK, "last_week")
RECORD_ENUM(timeframe, timeframe_VALUES)

/* ---- Tools ---- */

#define track_metric_ARGS(F)                                                                       \
    F(STR, agent, must, 1, AGENT_BYTES, "Whose metric it is.")                                     \
    F(STR, metric, must, 1, METRIC_BYTES, "Name of the metric.")                                   \
    F(REAL, value, must, 0, 0, "The value.")                                                       \
    F(JSON, tags, opt(), 0, 4096, "An object of words that are kept in the file beside it.")       \
    F(TIME, timestamp, opt(), 0, 0, "When it was measured; absent: now.")                          \
    COMPANY_ROW(F)
#define track_metric_REPLY(F) F(TIME, timestamp, must, 0, 0, "The time it is kept under.")

#define get_health_report_ARGS(F)                                                                  \
    F(ENUM(timeframe), timeframe, opt(last_hour), 0, 0, "Since when.")                             \
    F(STR, agent, opt(), 1, AGENT_BYTES, "Only this agent.")                                       \
    F(STR, metric, opt(), 1, METRIC_BYTES, "Only metrics of this name.")                           \
    COMPANY_ROW(F)
#define get_health_report_REPLY(F)                                                                 \
    F(ENUM(timeframe), timeframe, must, 0, 0, "Since when.")                                       \
    F(TIME, since, must, 0, 0, "The same as a time.")                                              \
    F(ANY, metrics, must, 0, 0,                                                                    \
      "By agent:metric: count, min, max, avg, sum, p50, p95, p99 (within 2 %), last.")

#define anomaly_FIELDS(F)                                                                          \
    F(STR, agent, must, 0, 0, "Whose metric.")                                                     \
    F(STR, metric, must, 0, 0, "Its name.")                                                        \
    F(TIME, at, must, 0, 0, "Minute or hour in which it was unusual.")                             \
    F(REAL, value, must, 0, 0, "Mean of that time.")                                               \
    F(REAL, expected, must, 0, 0, "What was usual.")                                               \
    F(REAL, score, must, 0, 0, "Robust deviations away from that.")                                \
    F(STR, method, must, 0, 0, "median, ewma or seasonal.")
RECORD(anomaly, anomaly_FIELDS)

#define detect_anomalies_ARGS(F)                                                                   \
    F(STR, agent, opt(), 1, AGENT_BYTES, "Only this agent.")                                       \
    F(STR, metric, opt(), 1, METRIC_BYTES, "Only metrics of this name.")                           \
    COMPANY_ROW(F)
#define detect_anomalies_REPLY(F)                                                                  \
    F(LIST(anomaly), anomalies, must, 0, 0, "What is unusual now, the oddest first.")              \
    F(INT, looked_at, must, 0, 0, "Metrics with enough history to say.")                           \
    F(INT, too_short, must, 0, 0, "Metrics with too little history.")

#define prediction_FIELDS(F)                                                                       \
    F(STR, agent, must, 0, 0, "Whose metric.")                                                     \
    F(STR, metric, must, 0, 0, "Its name.")                                                        \
    F(TIME, at, must, 0, 0, "For this time.")                                                      \
    F(REAL, current, must, 0, 0, "Last value.")                                                    \
    F(REAL, value, must, 0, 0, "What is likely, if it goes on as before.")                         \
    F(REAL, low, must, 0, 0, "19 of 20 outcomes lie above this …")                                 \
    F(REAL, high, must, 0, 0, "… and below this.")                                                 \
    F(REAL, per_minute, must, 0, 0, "Change in a minute.")                                         \
    F(INT, spans, must, 0, 0, "Minutes it was learnt from.")
RECORD(prediction, prediction_FIELDS)

#define predict_metrics_ARGS(F)                                                                    \
    F(STR, metric, must, 1, 330, "Name of the metric, or agent:metric.")                           \
    F(INT, horizon_minutes, opt(60), 1, 10080, "How far ahead.")                                   \
    COMPANY_ROW(F)
#define predict_metrics_REPLY(F) F(LIST(prediction), predictions, must, 0, 0, "By agent.")

#define get_company_metrics_ARGS(F) COMPANY_ROW(F)
#define get_company_metrics_REPLY(F)                                                               \
    F(STR, company, must, 0, 0, "Whose.")                                                          \
    F(INT, metrics, must, 0, 0, "Metrics by agent and name.")                                      \
    F(INT, points, must, 0, 0, "Points since the beginning.")                                      \
    F(INT, agents, must, 0, 0, "Agents that track some.")                                          \
    F(INT, alerts, must, 0, 0, "Alert rules.")                                                     \
    F(INT, firing, must, 0, 0, "Of them firing.")                                                  \
    F(ANY, queue, opt(), 0, 0, "The queue, as queue_stats of the agent says; absent: no answer.")

#define pillar_health_FIELDS(F)                                                                    \
    F(STR, name, must, 0, 0, "The pillar.")                                                        \
    F(BOOL, up, must, 0, 0, "It answers.")                                                         \
    F(STR, problem, opt(), 0, 0, "Why not.")                                                       \
    F(TIME, since, opt(), 0, 0, "When this life of it began.")                                     \
    F(INT, lives, opt(), 0, 0, "How often it has started on this data.")                           \
    F(INT, inbox, opt(), 0, 0, "Calls waiting.")                                                   \
    F(INT, calls, opt(), 0, 0, "Calls answered.")                                                  \
    F(INT, errors, opt(), 0, 0, "Of them with an error.")                                          \
    F(BOOL, draining, opt(), 0, 0, "It takes no new work.")
RECORD(pillar_health, pillar_health_FIELDS)

#define HEALTH_REPLY(F)                                                                            \
    F(STR, status, must, 0, 0, "healthy, degraded or down.")                                       \
    F(LIST(pillar_health), pillars, must, 0, 0, "Each pillar.")                                    \
    F(ANY, scale, opt(), 0, 0, "The demand, as the agent says.")                                   \
    F(INT, alerts_firing, must, 0, 0, "Alerts of this company that fire.")
#define get_ecosystem_health_ARGS(F) COMPANY_ROW(F)
#define get_ecosystem_health_REPLY(F) HEALTH_REPLY(F)
#define get_system_health_summary_ARGS(F) COMPANY_ROW(F)
#define get_system_health_summary_REPLY(F) HEALTH_REPLY(F)

#define daily_report_ARGS(F) COMPANY_ROW(F)
#define daily_report_REPLY(F)                                                                      \
    F(STR, report, must, 0, 0, "Markdown.")                                                        \
    F(TIME, since, must, 0, 0, "The day before now.")

#define HEALTH_METHODS(M)                                                                          \
    M(health_t, track_metric, TOOL | WRITES, "Keep one measured value.")                           \
    M(health_t, get_health_report, TOOL | READS,                                                   \
      "What was measured, by agent and metric, over an hour, a day or a week.")                    \
    M(health_t, detect_anomalies, TOOL | READS, "Metrics that behave unlike before.")              \
    M(health_t, predict_metrics, TOOL | READS, "What a metric will be, with an interval.")         \
    M(health_t, get_company_metrics, TOOL | READS | PARKS,                                         \
      "What a company measures, and how its queue is.")                                            \
    M(health_t, get_ecosystem_health, TOOL | READS | PARKS, "Every pillar, and how it is.")        \
    M(health_t, get_system_health_summary, TOOL | READS | PARKS,                                   \
      "Every pillar, and how it is, in a few lines.")                                              \
    M(health_t, daily_report, TOOL | READS, "The last day in a page of Markdown.")
METHODS(health_methods, HEALTH_METHODS)

/* ---- Companies in memory ---- */

watched_company_t *health_company(health_t *self, const char *name)
{
    for (watched_company_t *at = self->companies; at; at = at->next)
        if (!strcmp(at->name, name))
            return at;
    watched_company_t *company = calloc(1, sizeof(*company));
    if (!company)
        abort();
    memcpy(company->name, name, strnlen(name, sizeof(company->name) - 1));
    company->next = self->companies;
    self->companies = company;
    return company;
}

/* ---- Tracking ---- */

static void put_member(buf_t *out, const char *key, const char *value)
{
    buf_printf(out, "%s\"%s\":", out->size > 1 ? "," : "", key);
    json_put_string(out, value, strlen(value));
}

static err_t line_of(call_t *call, const track_metric_args_t *args, int64_t at_ms, buf_t *out)
{
    mp_type_t type;
    buf_t number;
    buf_open(&number, call_arena(call));
    mp_put_real(&number, args->value);
    buf_open(out, call_arena(call));
    buf_puts(out, "{");
    put_member(out, "timestamp", record_time_text(call_arena(call), at_ms));
    put_member(out, "agent", args->agent);
    put_member(out, "metric", args->metric);
    buf_puts(out, ",\"value\":");
    json_from_msgpack(buf_bytes(&number), JSON_COMPACT, out);
    if (!args->tags.size)
        return err_ok();
    if (!mp_type_of(args->tags, &type) || type != MP_MAP)
        return err_of(ERR_ARGUMENT, "tags must be an object, e.g. {\"region\": \"eu\"}");
    buf_puts(out, ",\"tags\":");
    return json_from_msgpack(args->tags, JSON_COMPACT, out);
}

#define metric_event_FIELDS(F)                                                                     \
    F(STR, company, must, 0, 0, "Whose.")                                                          \
    F(STR, agent, must, 0, 0, "Whose metric.")                                                     \
    F(STR, metric, must, 0, 0, "Its name.")                                                        \
    F(REAL, value, must, 0, 0, "The value.")
RECORD(metric_event, metric_event_FIELDS)

static err_t track_metric(health_t *self, call_t *call, const track_metric_args_t *args,
                          track_metric_reply_t *reply)
{
    store_txn_t *txn;
    buf_t line;
    int64_t at = args->has_timestamp ? args->timestamp : call_now_ms(call);
    point_t point = {args->agent, args->metric, args->value, at};
    err_t err = point_check(call_arena(call), &point, call_now_ms(call));
    if (!err_is(err))
        err = line_of(call, args, at, &line);
    if (!err_is(err))
        err = call_write(call, call_company(call), &txn);
    if (err_is(err))
        return err;
    series_batch_t *batch = series_batch_new(call, txn, self->settings->max_series);
    err = series_batch_add(batch, &point);
    if (!err_is(err))
        err = series_batch_write(batch);
    if (!err_is(err))
        err = tail_append(self, call, txn, line.data);
    if (!err_is(err))
        err = alerts_look(self, call, call_company(call), txn);
    metric_event_t event = {.company = call_company(call),
                            .agent = args->agent,
                            .metric = args->metric,
                            .value = args->value};
    call_publish(call, "metric.tracked", &metric_event_record, &event);
    reply->timestamp = at;
    call_say(call, "%s:%s = %g is kept.", args->agent, args->metric, args->value);
    return err;
}

/* ---- Reports ---- */

static const struct {
    int64_t ms;
    series_level_t level;
} frames[] = {{3600000, LEVEL_10S}, {86400000, LEVEL_MINUTE}, {604800000, LEVEL_HOUR}};

static err_t sum_up(store_txn_t *txn, arena_t *arena, const series_t *series, int frame,
                    int64_t now_ms, bucket_t *out)
{
    span_list_t spans;
    series_level_t level = frames[frame].level;
    int64_t from = now_ms - frames[frame].ms;
    *out = (bucket_t){0};
    err_t err =
        series_spans(txn, arena, series->id, level, from - from % series_span_ms(level), &spans);
    for (size_t i = 0; i < spans.count && !err_is(err); i++)
        bucket_merge(out, arena, &spans.items[i].bucket);
    return err;
}

static void put_summary(buf_t *out, const bucket_t *bucket)
{
    mp_put_map(out, 9);
    mp_put_str(out, "count");
    mp_put_int(out, bucket->count);
    const struct {
        const char *name;
        double value;
    } rows[] = {{"min", bucket->min},
                {"max", bucket->max},
                {"avg", bucket->sum / (double)bucket->count},
                {"sum", bucket->sum},
                {"p50", bucket_quantile(bucket, 0.5)},
                {"p95", bucket_quantile(bucket, 0.95)},
                {"p99", bucket_quantile(bucket, 0.99)},
                {"last", bucket->last}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        mp_put_str(out, rows[i].name);
        if (isfinite(rows[i].value))
            mp_put_real(out, rows[i].value);
        else
            mp_put_nil(out); /* a sum beyond all numbers */
    }
}

static const char *key_text(arena_t *arena, const series_t *series)
{
    return arena_printf(arena, "%s:%s", series->agent, series->metric);
}

static err_t report(call_t *call, int frame, const char *agent, const char *metric, buf_t *body,
                    uint32_t *count, buf_t *text)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    series_list_t list;
    err_t err = call_read(call, call_company(call), &txn);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    err = series_list(txn, arena, agent, metric, &list);
    for (size_t i = 0; i < list.count && !err_is(err); i++) {
        bucket_t all;
        if (list.items[i].last_ms < call_now_ms(call) - frames[frame].ms)
            continue; /* nothing of it can be in there */
        err = sum_up(txn, arena, &list.items[i], frame, call_now_ms(call), &all);
        if (err_is(err) || !all.count)
            continue;
        const char *key = key_text(arena, &list.items[i]);
        mp_put_str(body, key);
        put_summary(body, &all);
        buf_printf(text, "%s: %" PRId64 " values, avg %.6g, min %.6g, max %.6g, p95 %.6g\n", key,
                   all.count, all.sum / (double)all.count, all.min, all.max,
                   bucket_quantile(&all, 0.95));
        ++*count;
    }
    return err;
}

/* The number of members is known at the end only. */
static bytes_t map_of(arena_t *arena, uint32_t count, const buf_t *members)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, count);
    buf_put(&out, members->data, members->size);
    return buf_bytes(&out);
}

static err_t get_health_report(health_t *self, call_t *call, const get_health_report_args_t *args,
                               get_health_report_reply_t *reply)
{
    buf_t body, text;
    uint32_t count = 0;
    (void)self;
    buf_open(&body, call_arena(call));
    buf_open(&text, call_arena(call));
    err_t err = report(call, args->timeframe, args->agent, args->metric, &body, &count, &text);
    reply->timeframe = args->timeframe;
    reply->since = call_now_ms(call) - frames[args->timeframe].ms;
    reply->metrics = map_of(call_arena(call), count, &body);
    call_say(call, "%s: %u metrics\n%s", timeframe_names[args->timeframe], count, text.data);
    return err;
}

/* ---- Anomalies and predictions ---- */

static double mean_of(const bucket_t *bucket)
{
    return bucket->sum / (double)bucket->count;
}

/* By minutes over the last hours; by hours, against the same hour of other days, where there are
 * weeks of them. */
static err_t look_at(store_txn_t *txn, arena_t *arena, const series_t *series, int64_t now_ms,
                     verdict_t *verdict, span_t *last, bool *enough)
{
    span_list_t spans;
    int64_t from = now_ms - (int64_t)DETECT_SPANS * 60000;
    err_t err = series_spans(txn, arena, series->id, LEVEL_MINUTE, from, &spans);
    if (err_is(err))
        return err;
    double *values = ARENA_ARRAY(arena, double, spans.count * 2 + 2);
    for (size_t i = 0; i < spans.count; i++)
        values[i] = mean_of(&spans.items[i].bucket);
    *enough = spans.count >= DETECT_LEAST;
    if (!*enough)
        return err_ok();
    *last = spans.items[spans.count - 1];
    *verdict = detect(values, spans.count, 0, values + spans.count);
    return err_ok();
}

static int by_score(const void *one, const void *other)
{
    double a = fabs(((const anomaly_t *)one)->score), b = fabs(((const anomaly_t *)other)->score);
    return (a < b) - (a > b);
}

static err_t find_anomalies(call_t *call, const char *agent, const char *metric,
                            detect_anomalies_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    series_list_t list;
    err_t err = call_read(call, call_company(call), &txn);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    err = series_list(txn, arena, agent, metric, &list);
    reply->anomalies.items = ARENA_ARRAY(arena, anomaly_t, list.count + 1);
    for (size_t i = 0; i < list.count && !err_is(err); i++) {
        verdict_t verdict = {0};
        span_t last = {0};
        bool enough = false;
        const series_t *series = &list.items[i];
        err = look_at(txn, arena, series, call_now_ms(call), &verdict, &last, &enough);
        reply->looked_at += enough;
        reply->too_short += !enough;
        if (!err_is(err) && verdict.odd)
            reply->anomalies.items[reply->anomalies.count++] =
                (anomaly_t){.agent = series->agent,
                            .metric = series->metric,
                            .at = last.from_ms,
                            .value = mean_of(&last.bucket),
                            .expected = verdict.expected,
                            .score = verdict.score,
                            .method = verdict.method};
    }
    if (reply->anomalies.count)
        qsort(reply->anomalies.items, reply->anomalies.count, sizeof(anomaly_t), by_score);
    return err;
}

static err_t detect_anomalies(health_t *self, call_t *call, const detect_anomalies_args_t *args,
                              detect_anomalies_reply_t *reply)
{
    buf_t text;
    (void)self;
    err_t err = find_anomalies(call, args->agent, args->metric, reply);
    buf_open(&text, call_arena(call));
    for (size_t i = 0; i < reply->anomalies.count; i++) {
        const anomaly_t *odd = &reply->anomalies.items[i];
        buf_printf(&text, "%s:%s is %.6g, usual is %.6g (%.1f deviations)\n", odd->agent,
                   odd->metric, odd->value, odd->expected, odd->score);
    }
    call_say(call, "%s%" PRId64 " metrics looked at, %" PRId64 " have too little history.",
             text.data, reply->looked_at, reply->too_short);
    return err;
}

static bool named(const char *wanted, const series_t *series)
{
    size_t size = strlen(series->agent);
    return !strcmp(wanted, series->metric) ||
           (!strncmp(wanted, series->agent, size) && wanted[size] == ':' &&
            !strcmp(wanted + size + 1, series->metric));
}

static err_t predict_one(store_txn_t *txn, call_t *call, const series_t *series, int64_t minutes,
                         prediction_t *out, bool *enough)
{
    arena_t *arena = call_arena(call);
    span_list_t spans;
    forecast_t forecast;
    int64_t now = call_now_ms(call), at = now + minutes * 60000;
    /* Twice as far back as ahead, and at least two hours. */
    int64_t back = minutes * 2 > 120 ? minutes * 2 : 120;
    err_t err = series_spans(txn, arena, series->id, LEVEL_MINUTE, now - back * 60000, &spans);
    if (err_is(err))
        return err;
    double *xs = ARENA_ARRAY(arena, double, spans.count + 1);
    double *ys = ARENA_ARRAY(arena, double, spans.count + 1);
    for (size_t i = 0; i < spans.count; i++) {
        xs[i] = (double)(spans.items[i].from_ms - now) / 60000;
        ys[i] = mean_of(&spans.items[i].bucket);
    }
    *enough = predict(xs, ys, spans.count, (double)minutes, &forecast);
    if (!*enough)
        return err;
    *out = (prediction_t){.agent = series->agent,
                          .metric = series->metric,
                          .at = at,
                          .current = series->last,
                          .value = forecast.value,
                          .low = forecast.low,
                          .high = forecast.high,
                          .per_minute = forecast.slope,
                          .spans = (int64_t)spans.count};
    return err;
}

static err_t predict_metrics(health_t *self, call_t *call, const predict_metrics_args_t *args,
                             predict_metrics_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    series_list_t list = {0};
    buf_t text;
    size_t known = 0;
    (void)self;
    buf_open(&text, arena);
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = series_list(txn, arena, NULL, NULL, &list);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    err = err_ok();
    reply->predictions.items = ARENA_ARRAY(arena, prediction_t, list.count + 1);
    for (size_t i = 0; i < list.count && !err_is(err); i++) {
        bool enough = false;
        prediction_t *out = &reply->predictions.items[reply->predictions.count];
        if (!named(args->metric, &list.items[i]))
            continue;
        known++;
        err = predict_one(txn, call, &list.items[i], args->horizon_minutes, out, &enough);
        reply->predictions.count += enough;
        if (enough)
            buf_printf(&text, "%s:%s in %" PRId64 " minutes: %.6g (%.6g to %.6g); now %.6g\n",
                       out->agent, out->metric, args->horizon_minutes, out->value, out->low,
                       out->high, out->current);
    }
    if (!err_is(err) && !known)
        return err_make(arena, ERR_NOT_FOUND,
                        "there is no metric '%s'; see get_health_report for those that are known",
                        args->metric);
    if (!err_is(err) && !reply->predictions.count)
        return err_make(arena, ERR_STATE,
                        "'%s' has too little history: at least %d minutes with values are needed",
                        args->metric, PREDICT_LEAST);
    call_say_text(call, text.data);
    return err;
}

/* ---- A company ---- */

static err_t with_queue(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    get_company_metrics_reply_t *out = reply;
    (void)state;
    (void)ctx;
    if (!err_is(got->err))
        out->queue =
            (bytes_t){arena_copy(call_arena(call), got->body.data, got->body.size), got->body.size};
    return err_ok();
}

static err_t get_company_metrics(health_t *self, call_t *call,
                                 const get_company_metrics_args_t *args,
                                 get_company_metrics_reply_t *reply)
{
    store_txn_t *txn;
    series_list_t list = {0};
    alert_list_t firing = {0};
    (void)self;
    (void)args;
    err_t err = call_read(call, call_company(call), &txn);
    reply->company = call_company(call);
    if (!err_is(err)) {
        reply->alerts = store_count(txn, TABLE_alerts);
        err = series_list(txn, call_arena(call), NULL, NULL, &list);
        if (!err_is(err))
            err = alerts_list(txn, call_arena(call), true, &firing);
    }
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    reply->metrics = (int64_t)list.count;
    reply->firing = (int64_t)firing.count;
    for (size_t i = 0; i < list.count; i++) {
        reply->points += list.items[i].count;
        reply->agents += !i || strcmp(list.items[i].agent, list.items[i - 1].agent) != 0;
    }
    peer_call_t request = {.peer = "agent", .method = "queue_stats", .timeout_ms = STATS_MS};
    call_peer(call, &request, with_queue, NULL);
    return call_park(call);
}

/* ---- Every pillar ---- */

static const char *const pillars[] = {"agent", "brain", "swarm", "elastic", "outside", "health"};
enum { PILLARS = sizeof(pillars) / sizeof(*pillars) };

typedef struct survey {
    pillar_health_t rows[PILLARS];
    int waiting;
} survey_t;

typedef struct survey_row {
    survey_t *survey;
    int index;
} survey_row_t;

static void read_methods(bytes_t body, pillar_health_t *row)
{
    bytes_t methods, method, field;
    int64_t number;
    if (!mp_get(body, "methods", &methods))
        return;
    for (uint32_t i = 0; mp_at(methods, i, &method); i++) {
        if (mp_get(method, "calls", &field) && mp_int(field, &number))
            row->calls += number;
        if (mp_get(method, "errors", &field) && mp_int(field, &number))
            row->errors += number;
    }
    row->has_calls = row->has_errors = true;
}

static void read_stats(bytes_t body, int64_t now_ms, pillar_health_t *row)
{
    bytes_t field;
    int64_t uptime;
    row->up = true;
    row->has_lives = mp_get(body, "epoch", &field) && mp_int(field, &row->lives);
    row->has_inbox = mp_get(body, "inbox", &field) && mp_int(field, &row->inbox);
    row->has_draining = mp_get(body, "draining", &field) && mp_bool(field, &row->draining);
    if ((row->has_since = mp_get(body, "uptime_ms", &field) && mp_int(field, &uptime)))
        row->since = now_ms - uptime;
    read_methods(body, row);
}

static err_t finish_survey(call_t *call, const survey_t *survey, get_ecosystem_health_reply_t *out)
{
    buf_t text;
    store_txn_t *txn;
    alert_list_t firing = {0};
    int up = 0;
    buf_open(&text, call_arena(call));
    if (!err_is(call_read(call, call_company(call), &txn))) {
        err_t err = alerts_list(txn, call_arena(call), true, &firing);
        if (err_is(err))
            return err;
    }
    out->alerts_firing = (int64_t)firing.count;
    out->pillars.items = ARENA_ARRAY(call_arena(call), pillar_health_t, PILLARS);
    out->pillars.count = PILLARS;
    for (int i = 0; i < PILLARS; i++) {
        const pillar_health_t *row = &survey->rows[i];
        out->pillars.items[i] = *row;
        up += row->up;
        buf_printf(&text, "%s: %s", row->name, row->up ? "up" : "DOWN");
        if (row->up)
            buf_printf(&text, ", %" PRId64 " calls, %" PRId64 " errors, %" PRId64 " waiting",
                       row->calls, row->errors, row->inbox);
        buf_puts(&text, "\n");
    }
    out->status = !survey->rows[0].up                ? "down"
                  : up < PILLARS || firing.count > 0 ? "degraded"
                                                     : "healthy";
    call_say(call, "%s; %zu alerts fire\n%s", out->status, firing.count, text.data);
    return err_ok();
}

static err_t survey_end(survey_t *survey, call_t *call, void *reply)
{
    return --survey->waiting ? call_park(call) : finish_survey(call, survey, reply);
}

static err_t on_stats(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const survey_row_t *at = ctx;
    pillar_health_t *row = &at->survey->rows[at->index];
    (void)state;
    if (err_is(got->err))
        row->problem = arena_strdup(call_arena(call), err_what(got->err));
    else
        read_stats(got->body, call_now_ms(call), row);
    return survey_end(at->survey, call, reply);
}

static err_t on_scale(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    get_ecosystem_health_reply_t *out = reply;
    (void)state;
    if (!err_is(got->err))
        out->scale =
            (bytes_t){arena_copy(call_arena(call), got->body.data, got->body.size), got->body.size};
    return survey_end(ctx, call, reply);
}

static err_t get_ecosystem_health(health_t *self, call_t *call,
                                  const get_ecosystem_health_args_t *args,
                                  get_ecosystem_health_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    survey_t *survey = ARENA_NEW(arena, survey_t);
    (void)self;
    (void)args;
    (void)reply;
    for (int i = 0; i < PILLARS; i++) {
        survey_row_t *row = ARENA_NEW(arena, survey_row_t);
        *row = (survey_row_t){survey, i};
        survey->rows[i].name = pillars[i];
        peer_call_t request = {.peer = pillars[i],
                               .method = arena_printf(arena, "%s.stats", pillars[i]),
                               .timeout_ms = STATS_MS};
        call_peer(call, &request, on_stats, row);
        survey->waiting++;
    }
    peer_call_t scale = {.peer = "agent", .method = "scale", .timeout_ms = STATS_MS};
    call_peer(call, &scale, on_scale, survey);
    survey->waiting++;
    return call_park(call);
}

static err_t get_system_health_summary(health_t *self, call_t *call,
                                       const get_system_health_summary_args_t *args,
                                       get_system_health_summary_reply_t *reply)
{
    /* The same rows under both names. */
    return get_ecosystem_health(self, call, (const get_ecosystem_health_args_t *)(const void *)args,
                                (get_ecosystem_health_reply_t *)(void *)reply);
}

/* ---- The day ---- */

static err_t daily_report(health_t *self, call_t *call, const daily_report_args_t *args,
                          daily_report_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    buf_t out, body, text;
    uint32_t count = 0;
    alert_list_t firing = {0};
    detect_anomalies_reply_t odd = {0};
    (void)self;
    (void)args;
    buf_open(&out, arena);
    buf_open(&body, arena);
    buf_open(&text, arena);
    err_t err = report(call, LAST_DAY, NULL, NULL, &body, &count, &text);
    if (!err_is(err))
        err = find_anomalies(call, NULL, NULL, &odd);
    if (!err_is(err) && !err_is(call_read(call, call_company(call), &txn)))
        err = alerts_list(txn, arena, true, &firing);
    reply->since = call_now_ms(call) - frames[LAST_DAY].ms;
    buf_printf(&out, "# %s, the day to %s\n\n## Alerts that fire: %zu\n\n", call_company(call),
               record_time_text(arena, call_now_ms(call)), firing.count);
    for (size_t i = 0; i < firing.count; i++)
        buf_printf(&out, "- %s: %s is %g, since %s\n", firing.items[i].id, firing.items[i].series,
                   firing.items[i].value, record_time_text(arena, firing.items[i].since));
    buf_printf(&out, "\n## Unusual: %zu\n\n", odd.anomalies.count);
    for (size_t i = 0; i < odd.anomalies.count; i++)
        buf_printf(&out, "- %s:%s is %.6g, usual is %.6g\n", odd.anomalies.items[i].agent,
                   odd.anomalies.items[i].metric, odd.anomalies.items[i].value,
                   odd.anomalies.items[i].expected);
    buf_printf(&out, "\n## Measured: %u\n\n```\n%s```\n", count, text.data);
    reply->report = out.data;
    call_say_text(call, out.data);
    return err;
}

/* ---- What Prometheus reads ---- */

static void put_tracked(health_t *self, call_t *call, metrics_t *out)
{
    store_txn_t *txn;
    series_list_t list;
    const char *labels[] = {"agent", NULL, "metric", NULL, NULL};
    int64_t shown = 0;
    if (err_is(call_read(call, actor_default_company(self->actor), &txn)) ||
        err_is(series_list(txn, call_arena(call), NULL, NULL, &list)))
        return;
    metrics_family(out, "agency_tracked_value", METRIC_GAUGE,
                   "Last values of tracked metrics of the default company.");
    for (size_t i = 0; i < list.count && shown < self->settings->export_series; i++, shown++) {
        labels[1] = list.items[i].agent;
        labels[3] = list.items[i].metric;
        if (list.items[i].last_ms >= call_now_ms(call) - self->settings->stale_ms)
            metrics_put(out, list.items[i].last, labels);
    }
}

static void health_measure(void *state, call_t *call, metrics_t *out)
{
    health_t *self = state;
    metrics_counter(out, "agency_health_points", "Points taken in.", (double)self->points);
    metrics_counter(out, "agency_health_refused_lines",
                    "Lines of metrics files that made no sense.", (double)self->refused_lines);
    metrics_counter(out, "agency_health_messages_delivered",
                    "Messages about alerts that somebody took.", (double)self->messages_sent);
    metrics_counter(out, "agency_health_message_failures",
                    "Tries to deliver such a message that failed.", (double)self->messages_failed);
    put_tracked(self, call, out);
}

/* ---- Life ---- */

static err_t trim(void *state, call_t *call, void *ctx)
{
    strs_t companies;
    store_txn_t *txn;
    err_t err = call_companies(call, &companies);
    for (size_t i = 0; i < companies.count && !err_is(err); i++) {
        err = call_write(call, companies.items[i], &txn);
        if (!err_is(err))
            err = series_trim(txn, call_arena(call), call_now_ms(call), TRIM_MOST);
    }
    (void)state;
    (void)ctx;
    return err; /* what is left is deleted in an hour */
}

/* Writes nothing, so a full disk does not end it; the chains of work that it may end begin again.
 */
static err_t guard(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    int64_t now = actor_mono_us(self->actor) / 1000;
    tail_guard(self, call);
    alerts_guard(self);
    if (now - self->trimmed_ms >= TRIM_MS) {
        self->trimmed_ms = now;
        call_work(call, 0, trim, NULL);
    }
    call_work(call, GUARD_MS, guard, ctx);
    return err_ok();
}

static err_t health_open(void *state, call_t *call)
{
    health_t *self = state;
    self->actor = call_actor(call);
    tail_open(self, call);
    alerts_open(self, call);
    own_open(self, call);
    self->trimmed_ms = actor_mono_us(self->actor) / 1000;
    call_work(call, GUARD_MS, guard, NULL);
    return err_ok();
}

static void health_close(void *state)
{
    health_t *self = state;
    tail_close(self);
    while (self->companies) {
        watched_company_t *gone = self->companies;
        self->companies = gone->next;
        free(gone);
    }
}

static const store_table_t health_tables[] = {
#define HEALTH_TABLE_ROW(name) {#name},
    HEALTH_TABLES(HEALTH_TABLE_ROW)
#undef HEALTH_TABLE_ROW
        {NULL}};

static const method_t *const more_methods[] = {alerts_methods, fed_methods, NULL};

const actor_def_t health_actor = {
    .name = "health",
    .doc = "Watches what is measured: reports, alerts, what is unusual, what comes next.",
    .size = sizeof(health_t),
    .open = health_open,
    .close = health_close,
    .methods = health_methods,
    .more_methods = more_methods,
    .settings = &health_settings_record,
    .tables = health_tables,
    .format = 1,
    .measure = health_measure,
};
