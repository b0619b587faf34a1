/* report: what was measured, over an hour, a day or a week, out of the spans. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "actors/health/health.h"
#include "actors/health/series.h"
#include "proto/mp.h"

enum { STATS_MS = 2000, LINES_MOST = 20, SERIES_BYTES = AGENT_BYTES + METRIC_BYTES + 1 };

#define timeframe_VALUES(V)                                                                        \
    V(LAST_HOUR, "last_hour") V(LAST_DAY, "last_day") V(LAST_WEEK, "last_week")
RECORD_ENUM(timeframe, timeframe_VALUES)

/* ---- Tools ---- */

#define get_health_report_ARGS(F)                                                                  \
    F(ENUM(timeframe), timeframe, opt(last_hour), 0, 0, "Since when.")                             \
    F(STR, agent, opt(), 1, AGENT_BYTES, "Only this agent.")                                       \
    F(STR, metric, opt(), 1, METRIC_BYTES, "Only metrics of this name.")                           \
    COMPANY_ROW(F)
#define get_health_report_REPLY(F)                                                                 \
    F(ANY, metrics, must, 0, 0,                                                                    \
      "By agent:metric: count, min, max, avg, sum, p50, p95, p99 (within 2 %), last.")             \
    F(ENUM(timeframe), timeframe, must, 0, 0, "Since when.")                                       \
    F(TIME, since, must, 0, 0, "The same as a time.")

#define get_company_metrics_ARGS(F) COMPANY_ROW(F)
#define get_company_metrics_REPLY(F)                                                               \
    F(ANY, companies, must, 0, 0,                                                                  \
      "By company: count, success_rate, avg_duration and tokens of all its experiences in the "    \
      "brain (null: no answer), cost by health.token_price, and the rest of this reply.")          \
    F(STR, company, must, 0, 0, "Whose.")                                                          \
    F(INT, metrics, must, 0, 0, "Metrics by agent and name.")                                      \
    F(INT, points, must, 0, 0, "Points since the beginning.")                                      \
    F(INT, agents, must, 0, 0, "Agents that track some.")                                          \
    F(INT, alerts, must, 0, 0, "Alert rules.")                                                     \
    F(INT, firing, must, 0, 0, "Of them firing.")                                                  \
    F(ANY, queue, opt(), 0, 0, "The queue, as queue_stats of the agent says; absent: no answer.")

#define daily_report_ARGS(F) COMPANY_ROW(F)
#define daily_report_REPLY(F)                                                                      \
    F(STR, report, must, 0, 0, "Markdown.")                                                        \
    F(TIME, since, must, 0, 0, "The day before now.")

#define chart_point_FIELDS(F)                                                                      \
    F(TIME, at, must, 0, 0, "Begin of the step.")                                                  \
    F(INT, count, must, 0, 0, "Values in it.")                                                     \
    F(REAL, avg, must, 0, 0, "Their mean.")                                                        \
    F(REAL, min, must, 0, 0, "The least.")                                                         \
    F(REAL, max, must, 0, 0, "The largest.")
RECORD(chart_point, chart_point_FIELDS)
#define chart_line_FIELDS(F)                                                                       \
    F(STR, agent, must, 0, 0, "Whose metric.")                                                     \
    F(STR, metric, must, 0, 0, "Its name.")                                                        \
    F(LIST(chart_point), points, must, 0, 0, "Steps with values, oldest first.")
RECORD(chart_line, chart_line_FIELDS)
#define metric_series_ARGS(F)                                                                      \
    F(STR, metric, must, 1, SERIES_BYTES, "Name of the metric, or agent:metric.")                  \
    F(ENUM(timeframe), timeframe, opt(last_hour), 0, 0, "Since when.")                             \
    F(INT, points, opt(120), 1, 1500, "Steps at most; a step has 10 s, 1 min, 1 h or a multiple.") \
    COMPANY_ROW(F)
#define metric_series_REPLY(F)                                                                     \
    F(TIME, since, must, 0, 0, "Begin of the first step.")                                         \
    F(TIME, until, must, 0, 0, "Now.")                                                             \
    F(INT, step_ms, must, 0, 0, "Length of a step.")                                               \
    F(LIST(chart_line), lines, must, 0, 0, "By agent, the first 20.")                              \
    F(BOOL, more, must, 0, 0, "There are more agents: name one.")

#define REPORT_METHODS(M)                                                                          \
    M(health_t, get_health_report, TOOL | READS | SAYS_FIRST,                                      \
      "What was measured, by agent and metric, over an hour, a day or a week.")                    \
    M(health_t, metric_series, TOOL | READS, "How a metric went over time, for a chart.")          \
    M(health_t, get_company_metrics, TOOL | READS | PARKS | SAYS_FIRST,                            \
      "What a company measures, and how its queue is.")                                            \
    M(health_t, daily_report, TOOL | READS, "The last day in a page of Markdown.")
METHODS_SHARED(report_methods, REPORT_METHODS)

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
    buf_t own, own_body; /* what the pillars say of themselves comes last */
    buf_open(&own, arena);
    buf_open(&own_body, arena);
    err = series_list(txn, arena, agent, metric, &list);
    for (size_t i = 0; i < list.count && !err_is(err); i++) {
        bucket_t all;
        if (list.items[i].last_ms < call_now_ms(call) - frames[frame].ms)
            continue; /* nothing of it can be in there */
        err = sum_up(txn, arena, &list.items[i], frame, call_now_ms(call), &all);
        if (err_is(err) || !all.count)
            continue;
        const char *key = key_text(arena, &list.items[i]);
        bool is_own = own_is_pillar(list.items[i].agent);
        buf_t *to = is_own ? &own_body : body;
        mp_put_str(to, key);
        put_summary(to, &all);
        buf_printf(is_own ? &own : text,
                   "%s: avg %.6g, min %.6g, max %.6g, p95 %.6g; values: %" PRId64 "\n", key,
                   all.sum / (double)all.count, all.min, all.max, bucket_quantile(&all, 0.95),
                   all.count);
        ++*count;
    }
    buf_put(text, own.data, own.size);
    buf_put(body, own_body.data, own_body.size);
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
    call_say(call, "%s; metrics: %u\n%s", timeframe_names[args->timeframe], count, text.data);
    return err;
}

/* ---- A metric over time ---- */

static err_t plot(store_txn_t *txn, arena_t *arena, const series_t *series, series_level_t level,
                  const metric_series_reply_t *frame, chart_line_t *out)
{
    span_list_t spans;
    err_t err = series_spans(txn, arena, series->id, level, frame->since, &spans);
    *out = (chart_line_t){.agent = series->agent, .metric = series->metric};
    if (err_is(err))
        return err;
    chart_point_t *points = ARENA_ARRAY(arena, chart_point_t, spans.count + 1), *last = NULL;
    double sum = 0;
    for (size_t i = 0; i < spans.count; i++) {
        const bucket_t *bucket = &spans.items[i].bucket;
        int64_t at = spans.items[i].from_ms;
        at -= (at - frame->since) % frame->step_ms;
        if (!last || last->at != at) {
            last = &points[out->points.count++];
            *last = (chart_point_t){.at = at, .min = bucket->min, .max = bucket->max};
            sum = 0;
        }
        sum += bucket->sum;
        last->count += bucket->count;
        last->avg = sum / (double)last->count;
        last->min = fmin(last->min, bucket->min);
        last->max = fmax(last->max, bucket->max);
    }
    out->points.items = points;
    return err_ok();
}

/* An agent's one metric, or the metric of that name of every agent. */
static err_t named(store_txn_t *txn, arena_t *arena, const char *metric, series_list_t *out)
{
    const char *colon = strchr(metric, ':');
    if (!colon)
        return series_list(txn, arena, NULL, metric, out);
    series_t *one = ARENA_NEW(arena, series_t);
    err_t err =
        series_find(txn, arena_strndup(arena, metric, (size_t)(colon - metric)), colon + 1, one);
    *out = (series_list_t){one, !err_is(err)};
    return err.code == ERR_NOT_FOUND ? series_list(txn, arena, NULL, metric, out) : err;
}

static err_t metric_series(health_t *self, call_t *call, const metric_series_args_t *args,
                           metric_series_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    series_list_t list = {0};
    series_level_t level = frames[args->timeframe].level;
    int64_t length = frames[args->timeframe].ms, span = series_span_ms(level);
    int64_t spans = (length / span + args->points - 1) / args->points;
    (void)self;
    reply->step_ms = spans * span;
    reply->until = call_now_ms(call);
    reply->since = reply->until - length;
    reply->since -= reply->since % reply->step_ms;
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = named(txn, arena, args->metric, &list);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    chart_line_t *lines = ARENA_ARRAY(arena, chart_line_t, LINES_MOST);
    reply->lines.items = lines;
    reply->more = list.count > LINES_MOST;
    for (size_t i = 0; i < list.count && i < LINES_MOST; i++) {
        err = plot(txn, arena, &list.items[i], level, reply, &lines[i]);
        if (err_is(err))
            return err;
        reply->lines.count++;
    }
    call_say(call, "%s: lines %zu, a step has %" PRId64 " s", args->metric, reply->lines.count,
             reply->step_ms / 1000);
    return err_ok();
}

/* ---- A company ---- */

/* The two that are asked for more. */
typedef struct company_view {
    bytes_t experience; /* empty: no answer */
    unsigned answered;  /* bits of asked_t; an entry may be run twice */
} company_view_t;
typedef enum asked { ASKED_QUEUE = 1, ASKED_BRAIN = 2, ASKED_BOTH = 3 } asked_t;

static void put_number(buf_t *out, const char *name, bool known, double value)
{
    mp_put_str(out, name);
    if (known)
        mp_put_real(out, value);
    else
        mp_put_nil(out);
}

static void put_count(buf_t *out, const char *name, bool known, int64_t value)
{
    mp_put_str(out, name);
    if (known)
        mp_put_int(out, value);
    else
        mp_put_nil(out);
}

static double real_in(bytes_t map, const char *name, bool *known)
{
    bytes_t field;
    double value = 0;
    *known = map.size && mp_get(map, name, &field) && mp_real(field, &value);
    return value;
}

/* {company: what the earlier system told of it, and what we know besides} */
static bytes_t company_entry(const health_t *self, arena_t *arena, bytes_t experience,
                             const get_company_metrics_reply_t *reply)
{
    buf_t out;
    bool known, timed;
    double runs = real_in(experience, "runs", &known);
    double successes = real_in(experience, "successes", &known);
    double tokens = real_in(experience, "tokens", &known);
    double duration = real_in(experience, "mean_duration", &timed);
    buf_open(&out, arena);
    mp_put_map(&out, 1);
    mp_put_str(&out, reply->company);
    mp_put_map(&out, reply->queue.size ? 12 : 11);
    mp_put_str(&out, "company");
    mp_put_str(&out, reply->company);
    put_count(&out, "count", known, (int64_t)runs);
    put_number(&out, "success_rate", known && runs > 0, runs > 0 ? successes / runs : 0);
    put_number(&out, "avg_duration", timed, duration);
    put_count(&out, "tokens", known, (int64_t)tokens);
    put_number(&out, "cost", known, tokens / 1e6 * self->settings->token_price);
    put_count(&out, "metrics", true, reply->metrics);
    put_count(&out, "points", true, reply->points);
    put_count(&out, "agents", true, reply->agents);
    put_count(&out, "alerts", true, reply->alerts);
    put_count(&out, "firing", true, reply->firing);
    if (reply->queue.size) {
        mp_put_str(&out, "queue");
        mp_put_raw(&out, reply->queue);
    }
    return buf_bytes(&out);
}

static err_t company_answered(health_t *self, call_t *call, get_company_metrics_reply_t *out,
                              company_view_t *view, asked_t by)
{
    view->answered |= by;
    if (view->answered != ASKED_BOTH)
        return call_park(call);
    out->companies = company_entry(self, call_arena(call), view->experience, out);
    return err_ok();
}

static bytes_t answer_copy(call_t *call, const peer_answer_t *got)
{
    if (err_is(got->err))
        return (bytes_t){0};
    return (bytes_t){arena_copy(call_arena(call), got->body.data, got->body.size), got->body.size};
}

static err_t with_queue(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    get_company_metrics_reply_t *out = reply;
    out->queue = answer_copy(call, got);
    return company_answered(state, call, out, ctx, ASKED_QUEUE);
}

static err_t with_experience(void *state, call_t *call, void *reply, const peer_answer_t *got,
                             void *ctx)
{
    company_view_t *view = ctx;
    view->experience = answer_copy(call, got);
    return company_answered(state, call, reply, view, ASKED_BRAIN);
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
    call_say(call,
             "%s: metrics %" PRId64 " of %" PRId64 " agents, points %" PRId64
             "; alert rules %" PRId64 ", firing %" PRId64 ".",
             reply->company, reply->metrics, reply->agents, reply->points, reply->alerts,
             reply->firing);
    company_view_t *view = ARENA_NEW(call_arena(call), company_view_t);
    peer_call_t queue = {.peer = "agent", .method = "queue_stats", .timeout_ms = STATS_MS};
    peer_call_t experience = {
        .peer = "brain", .method = "experience_totals", .timeout_ms = STATS_MS};
    call_peer(call, &queue, with_queue, view);
    call_peer(call, &experience, with_experience, view);
    return call_park(call);
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
    anomalies_t odd = {0};
    (void)args;
    buf_open(&out, arena);
    buf_open(&body, arena);
    buf_open(&text, arena);
    err_t err = report(call, LAST_DAY, NULL, NULL, &body, &count, &text);
    if (!err_is(err))
        err = anomalies_find(self, call, NULL, NULL, &odd);
    if (!err_is(err) && !err_is(call_read(call, call_company(call), &txn)))
        err = alerts_list(txn, arena, true, &firing);
    reply->since = call_now_ms(call) - frames[LAST_DAY].ms;
    buf_printf(&out, "# %s, the day to %s\n\n## Alerts that fire: %zu\n\n", call_company(call),
               record_time_text(arena, call_now_ms(call)), firing.count);
    for (size_t i = 0; i < firing.count; i++)
        buf_printf(&out, "- %s: %s is %g, since %s\n", firing.items[i].id, firing.items[i].series,
                   firing.items[i].value, record_time_text(arena, firing.items[i].since));
    buf_printf(&out, "%s## Unusual: %zu\n\n", firing.count ? "\n" : "", odd.list.count);
    for (size_t i = 0; i < odd.list.count; i++)
        buf_printf(&out, "- %s:%s is %.6g, usual is %.6g\n", odd.list.items[i].agent,
                   odd.list.items[i].metric, odd.list.items[i].value, odd.list.items[i].expected);
    buf_printf(&out, "%s## Measured: %u\n\n```\n%s```\n", odd.list.count ? "\n" : "", count,
               text.data);
    reply->report = out.data;
    call_say_text(call, out.data);
    return err;
}
