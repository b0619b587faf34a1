#include "actors/health/health.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/health/watches.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_DEFINE(health_settings, health_settings_FIELDS)

enum { TRIM_MS = 3600000, TRIM_MOST = 20000 };

/* ---- Tools ---- */

#define track_metric_ARGS(F)                                                                       \
    F(STR, agent, must, 1, AGENT_BYTES, "Whose metric it is.")                                     \
    F(STR, metric, must, 1, METRIC_BYTES, "Name of the metric.")                                   \
    F(REAL, value, must, 0, 0, "The value.")                                                       \
    F(JSON, tags, opt(), 0, 4096, "An object of words that are kept in the file beside it.")       \
    F(TIME, timestamp, opt(), 0, 0, "When it was measured; absent: now.")                          \
    COMPANY_ROW(F)
#define track_metric_REPLY(F) F(TIME, timestamp, must, 0, 0, "The time it is kept under.")

#define HEALTH_METHODS(M) M(health_t, track_metric, TOOL | WRITES, "Keep one measured value.")
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
        err = alerts_touched(self, call, call_company(call), txn, batch);
    metric_event_t event = {.company = call_company(call),
                            .agent = args->agent,
                            .metric = args->metric,
                            .value = args->value};
    call_publish(call, "metric.tracked", &metric_event_record, &event);
    reply->timestamp = at;
    call_say(call, "Metric %s tracked.", args->metric);
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
    call_work(call, TRIM_MS, trim, ctx);
    return err; /* what is left is deleted in an hour */
}

static err_t health_open(void *state, call_t *call)
{
    health_t *self = state;
    self->actor = call_actor(call);
    tail_open(self, call);
    alerts_open(self, call);
    own_open(self, call);
    rulesfile_open(self, call);
    call_work(call, TRIM_MS, trim, NULL);
    return err_ok();
}

static void health_close(void *state)
{
    health_t *self = state;
    tail_close(self);
    rulesfile_close(self);
    while (self->companies) {
        watched_company_t *gone = self->companies;
        self->companies = gone->next;
        watches_destroy(&gone->watches);
        free(gone);
    }
}

static const store_table_t health_tables[] = {
#define HEALTH_TABLE_ROW(name) {#name},
    HEALTH_TABLES(HEALTH_TABLE_ROW)
#undef HEALTH_TABLE_ROW
        {NULL}};

static const method_t *const more_methods[] = {report_methods, foresee_methods, alerts_methods,
                                               survey_methods, fed_methods,     NULL};

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
