/* foresee: what is unusual now, and what a metric will be: detect.h over the spans. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/health/detect.h"
#include "actors/health/health.h"
#include "actors/health/series.h"

enum { DETECT_SPANS = 180 };

RECORD_DEFINE(anomaly, anomaly_FIELDS)

/* ---- Tools ---- */

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
    F(INT, spans, must, 0, 0, "Minutes it was learnt from.")                                       \
    F(REAL, current_value, must, 0, 0, "current, under its older name.")                           \
    F(REAL, predicted_value, must, 0, 0, "value, under its older name.")                           \
    F(INT, horizon_minutes, must, 0, 0, "How far ahead, as asked.")                                \
    F(STR, trend, must, 0, 0, "increasing, decreasing or stable (its interval holds no change).")
RECORD(prediction, prediction_FIELDS)

#define predict_metrics_ARGS(F)                                                                    \
    F(STR, metric, must, 1, 330, "Name of the metric, or agent:metric.")                           \
    F(INT, horizon_minutes, opt(60), 1, 10080, "How far ahead.")                                   \
    COMPANY_ROW(F)
#define predict_metrics_REPLY(F)                                                                   \
    F(LIST(prediction), predictions, must, 0, 0, "By agent.")                                      \
    F(INT, too_short, must, 0, 0, "Metrics of this name with too little history.")

#define FORESEE_METHODS(M)                                                                         \
    M(health_t, detect_anomalies, TOOL | READS | SAYS_FIRST, "Metrics that behave unlike before.") \
    M(health_t, predict_metrics, TOOL | READS | SAYS_FIRST,                                        \
      "What a metric will be, with an interval.")
METHODS_SHARED(foresee_methods, FORESEE_METHODS)

static double mean_of(const bucket_t *bucket)
{
    return bucket->sum / (double)bucket->count;
}

/* ---- The same hour of other days ---- */

enum { WEEKS_BACK = 8, DAYS_BACK = 14, HOUR_PART_MS = 900000 };
#define HOUR_MS INT64_C(3600000)

typedef struct season {
    span_t hour;            /* the present one, or the last when this has hardly begun */
    span_t same[DAYS_BACK]; /* the same hour of earlier weeks or days */
    size_t count;
} season_t;

static err_t gather(store_txn_t *txn, arena_t *arena, const series_t *series, int64_t step_hours,
                    int most, season_t *season)
{
    err_t err = err_ok();
    season->count = 0;
    for (int i = 1; i <= most && !err_is(err); i++) {
        err = series_span(txn, arena, series->id, LEVEL_HOUR,
                          season->hour.from_ms - i * step_hours * HOUR_MS,
                          &season->same[season->count]);
        season->count += !err_is(err);
        if (err.code == ERR_NOT_FOUND)
            err = err_ok();
    }
    return err;
}

/* The same hour of the week where there are weeks enough, or else of the day. */
static err_t read_season(store_txn_t *txn, arena_t *arena, const series_t *series, int64_t now_ms,
                         season_t *season)
{
    int64_t hour = now_ms - now_ms % HOUR_MS;
    season->count = 0;
    if (now_ms - hour < HOUR_PART_MS)
        hour -= HOUR_MS;
    err_t err = series_span(txn, arena, series->id, LEVEL_HOUR, hour, &season->hour);
    if (!err_is(err))
        err = gather(txn, arena, series, 24 * 7, WEEKS_BACK, season);
    if (!err_is(err) && season->count < SEASON_LEAST)
        err = gather(txn, arena, series, 24, DAYS_BACK, season);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

/* Not above what the earlier hours rose to, nor below what they fell to. */
static bool is_usual(const season_t *season, double value)
{
    double low[DAYS_BACK], high[DAYS_BACK], scratch[DAYS_BACK];
    for (size_t i = 0; i < season->count; i++) {
        low[i] = season->same[i].bucket.min;
        high[i] = season->same[i].bucket.max;
    }
    verdict_t above = detect_season(high, season->count, value, scratch);
    verdict_t below = detect_season(low, season->count, value, scratch);
    return season->count >= SEASON_LEAST && !(above.odd && above.score > 0) &&
           !(below.odd && below.score < 0);
}

/* What the last hours find odd may be usual for this hour; and what they find usual may be odd for
 * it. */
static void by_season(const season_t *season, verdict_t *verdict, span_t *last)
{
    double same[DAYS_BACK], scratch[DAYS_BACK];
    for (size_t i = 0; i < season->count; i++)
        same[i] = mean_of(&season->same[i].bucket);
    if (verdict->odd) {
        verdict->odd = !is_usual(season, mean_of(&last->bucket));
        return;
    }
    verdict_t seasonal = detect_season(same, season->count,
                                       season->count ? mean_of(&season->hour.bucket) : 0, scratch);
    if (!seasonal.odd || is_usual(season, mean_of(&season->hour.bucket)))
        return;
    *verdict = seasonal;
    *last = season->hour;
}

/* By minutes over the last hours; then by the same hour of other days. */
static err_t look_at(store_txn_t *txn, arena_t *arena, const series_t *series, int64_t now_ms,
                     verdict_t *verdict, span_t *last, bool *enough)
{
    span_list_t spans;
    season_t season;
    int64_t from = now_ms - (int64_t)DETECT_SPANS * 60000;
    err_t err = series_spans(txn, arena, series->id, LEVEL_MINUTE, from, &spans);
    if (!err_is(err))
        err = read_season(txn, arena, series, now_ms, &season);
    if (err_is(err))
        return err;
    double *values = ARENA_ARRAY(arena, double, spans.count * 2 + 2);
    for (size_t i = 0; i < spans.count; i++)
        values[i] = mean_of(&spans.items[i].bucket);
    *enough = spans.count >= DETECT_LEAST || season.count >= SEASON_LEAST;
    if (!*enough)
        return err_ok();
    if (spans.count)
        *last = spans.items[spans.count - 1];
    *verdict = detect(values, spans.count, values + spans.count);
    by_season(&season, verdict, last);
    return err_ok();
}

/* ---- Anomalies ---- */

static int by_score(const void *one, const void *other)
{
    double a = fabs(((const anomaly_t *)one)->score), b = fabs(((const anomaly_t *)other)->score);
    return (a < b) - (a > b);
}

static anomaly_t anomaly_of(arena_t *arena, const series_t *series, const span_t *last,
                            const verdict_t *verdict)
{
    double value = mean_of(&last->bucket), away = value - verdict->expected;
    return (anomaly_t){.agent = series->agent,
                       .metric = series->metric,
                       .at = last->from_ms,
                       .value = value,
                       .expected = verdict->expected,
                       .score = verdict->score,
                       .method = verdict->method,
                       .timestamp = record_time_text(arena, last->from_ms),
                       .z_score = verdict->score,
                       .mean = verdict->expected,
                       .std_dev = fpclassify(verdict->score) == FP_ZERO ? 0 : away / verdict->score,
                       .severity = fabs(verdict->score) > 5 ? "high" : "medium"};
}

err_t anomalies_find(const health_t *self, call_t *call, const char *agent, const char *metric,
                     anomalies_t *out)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    series_list_t list;
    err_t err = call_read(call, call_company(call), &txn);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    err = series_list(txn, arena, agent, metric, &list);
    out->list.items = ARENA_ARRAY(arena, anomaly_t, list.count + 1);
    for (size_t i = 0; i < list.count && !err_is(err); i++) {
        verdict_t verdict = {0};
        span_t last = {0};
        bool enough = false;
        const series_t *series = &list.items[i];
        if (own_is_counter(self, series->agent, series->metric))
            continue;
        err = look_at(txn, arena, series, call_now_ms(call), &verdict, &last, &enough);
        out->looked_at += enough;
        out->too_short += !enough;
        if (!err_is(err) && verdict.odd)
            out->list.items[out->list.count++] = anomaly_of(arena, series, &last, &verdict);
    }
    if (out->list.count)
        qsort(out->list.items, out->list.count, sizeof(anomaly_t), by_score);
    return err;
}

static err_t detect_anomalies(health_t *self, call_t *call, const detect_anomalies_args_t *args,
                              detect_anomalies_reply_t *reply)
{
    buf_t text;
    anomalies_t found = {0};
    err_t err = anomalies_find(self, call, args->agent, args->metric, &found);
    *reply = (detect_anomalies_reply_t){
        .anomalies = found.list, .looked_at = found.looked_at, .too_short = found.too_short};
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

/* ---- Predictions ---- */

/* A change is none while the present value is as likely. */
static const char *trend_of(double current, const forecast_t *forecast)
{
    if (current >= forecast->low && current <= forecast->high)
        return "stable";
    return forecast->value > current ? "increasing" : "decreasing";
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
                          .spans = (int64_t)spans.count,
                          .current_value = series->last,
                          .predicted_value = forecast.value,
                          .horizon_minutes = minutes,
                          .trend = trend_of(series->last, &forecast)};
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
        if (!series_is_named(args->metric, &list.items[i]))
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
    reply->too_short = (int64_t)(known - reply->predictions.count);
    if (reply->too_short)
        buf_printf(&text,
                   "%" PRId64 " of %zu metrics of this name have too little history: at least %d "
                   "minutes with values are needed.",
                   reply->too_short, known, PREDICT_LEAST);
    call_say_text(call, text.data);
    return err;
}
