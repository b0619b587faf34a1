/* alerts: rules over the last values. A rule is ok, pending (true, but not for long enough) or
 * firing; each change is in the same transaction as the message about it, so one fire and one
 * resolve leave, whatever dies in between. A message goes on until somebody takes it. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/health/health.h"
#include "actors/health/series.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { HISTORY_KEPT = 1000, NEAR_MS = 300000, LONGEST_PAUSE_MS = 300000, STALLED_MS = 60000 };

RECORD_DEFINE(alert, alert_FIELDS)

/* ---- Tools ---- */

#define alert_on_threshold_ARGS(F)                                                                 \
    F(STR, metric, must, 1, 330, "Name of the metric, or agent:metric.")                           \
    F(REAL, threshold, must, 0, 0, "What the last value is held against.")                         \
    F(STR, operator, must, 1, 8, "> >= < <= == or !=; also gt gte lt lte eq ne.")                  \
    F(STR, contact, opt(), 1, 4096, "URL of a webhook; absent: the one of the settings.")          \
    F(INT, for_ms, opt(0), 0, 604800000, "It must hold for so long before it fires.")              \
    F(STR, id, opt(), 1, 128, "Id of the rule; one that is there is replaced. Absent: made up.")   \
    COMPANY_ROW(F)
#define alert_on_threshold_REPLY(F)                                                                \
    F(STR, id, must, 0, 0, "Id of the rule.")                                                      \
    F(BOOL, replaced, must, 0, 0, "There was one with this id.")

#define check_alerts_ARGS(F) COMPANY_ROW(F)
#define check_alerts_REPLY(F)                                                                      \
    F(INT, firing, must, 0, 0, "How many fire.")                                                   \
    F(LIST(alert), alerts, must, 0, 0, "All rules with their states.")

#define alert_remove_ARGS(F)                                                                       \
    F(STR, id, must, 1, 128, "Id of the rule.")                                                    \
    COMPANY_ROW(F)
#define alert_remove_REPLY(F) F(BOOL, removed, must, 0, 0, "True.")

#define silence_alert_ARGS(F)                                                                      \
    F(STR, id, must, 1, 128, "Id of the rule.")                                                    \
    F(INT, for_ms, opt(3600000), 0, 2592000000, "Nobody is told for so long; 0: from now on.")     \
    COMPANY_ROW(F)
#define silence_alert_REPLY(F) F(REC(alert), alert, must, 0, 0, "The rule.")

#define alert_change_FIELDS(F)                                                                     \
    F(STR, id, must, 0, 0, "The rule.")                                                            \
    F(STR, series, must, 0, 0, "agent:metric.")                                                    \
    F(STR, state, must, 0, 0, "firing or resolved.")                                               \
    F(REAL, value, must, 0, 0, "Value at that time.")                                              \
    F(TIME, at, must, 0, 0, "When.")
RECORD(alert_change, alert_change_FIELDS)

#define alert_group_FIELDS(F)                                                                      \
    F(TIME, from, must, 0, 0, "First of them.")                                                    \
    F(TIME, until, must, 0, 0, "Last of them.")                                                    \
    F(STRS, agents, must, 0, 0, "Whose metrics.")                                                  \
    F(LIST(alert_change), alerts, must, 0, 0, "Alerts that fired within five minutes.")
RECORD(alert_group, alert_group_FIELDS)

#define get_correlated_alerts_ARGS(F)                                                              \
    F(INT, limit, opt(20), 1, 200, "Groups to show, newest first.")                                \
    COMPANY_ROW(F)
#define get_correlated_alerts_REPLY(F)                                                             \
    F(LIST(alert_group), groups, must, 0, 0, "Alerts that began near each other in time.")

#define ALERTS_METHODS(M)                                                                          \
    M(health_t, alert_on_threshold, TOOL | WRITES | IDEMPOTENT,                                    \
      "Watch a metric: fire once when it passes the threshold, resolve once when it is back.")     \
    M(health_t, check_alerts, TOOL | READS, "The alert rules and which of them fire.")             \
    M(health_t, alert_remove, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT, "Remove an alert rule.")   \
    M(health_t, silence_alert, TOOL | WRITES | IDEMPOTENT,                                         \
      "Tell nobody about a rule for a while.")                                                     \
    M(health_t, get_correlated_alerts, TOOL | READS, "Alerts that fired near each other in time.")
METHODS_SHARED(alerts_methods, ALERTS_METHODS)

/* ---- Rows ---- */

static bytes_t id_key(const char *id)
{
    return (bytes_t){(const uint8_t *)id, strlen(id)};
}

static err_t load(store_txn_t *txn, arena_t *arena, const char *id, alert_t *out)
{
    bytes_t value;
    err_t err = store_get(txn, TABLE_alerts, id_key(id), &value);
    if (err.code == ERR_NOT_FOUND)
        return err_make(arena, ERR_NOT_FOUND, "there is no alert rule '%s'; see check_alerts", id);
    return err_is(err) ? err : record_decode(&alert_record, value, arena, "alert", out);
}

static err_t save(store_txn_t *txn, arena_t *arena, const alert_t *alert)
{
    buf_t out;
    buf_open(&out, arena);
    record_encode(&alert_record, alert, &out);
    return store_put(txn, TABLE_alerts, id_key(alert->id), buf_bytes(&out));
}

err_t alerts_list(store_txn_t *txn, arena_t *arena, bool only_firing, alert_list_t *out)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    *out =
        (alert_list_t){ARENA_ARRAY(arena, alert_t, (size_t)store_count(txn, TABLE_alerts) + 1), 0};
    err_t err = store_scan_open(&scan, txn, TABLE_alerts, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        bytes_t copy = {arena_copy(arena, value.data, value.size), value.size};
        err = record_decode(&alert_record, copy, arena, "alert", &out->items[out->count]);
        if (!only_firing || !strcmp(out->items[out->count].state, "firing"))
            out->count++;
    }
    store_scan_close(&scan);
    return err;
}

/* ---- Judging ---- */

static const char *plain_operator(const char *text)
{
    static const char *const names[][2] = {
        {">", ">"},   {"gt", ">"},  {"above", ">"}, {">=", ">="}, {"gte", ">="},
        {"<", "<"},   {"lt", "<"},  {"below", "<"}, {"<=", "<="}, {"lte", "<="},
        {"==", "=="}, {"eq", "=="}, {"=", "=="},    {"!=", "!="}, {"ne", "!="}};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (!strcmp(text, names[i][0]))
            return names[i][1];
    return NULL;
}

static bool holds(const alert_t *alert, double value)
{
    const char *op = alert->operator;
    if (!strcmp(op, ">"))
        return value > alert->threshold;
    if (!strcmp(op, ">="))
        return value >= alert->threshold;
    if (!strcmp(op, "<"))
        return value < alert->threshold;
    if (!strcmp(op, "<="))
        return value <= alert->threshold;
    return (value == alert->threshold) == !strcmp(op, "==");
}

static bool is_meant(const alert_t *alert, const series_t *series)
{
    size_t size = strlen(series->agent);
    return !strcmp(alert->metric, series->metric) ||
           (!strncmp(alert->metric, series->agent, size) && alert->metric[size] == ':' &&
            !strcmp(alert->metric + size + 1, series->metric));
}

/* The series that makes it so, or else any fresh one. NULL: nothing fresh is known. */
static const series_t *judge(const alert_t *alert, const series_list_t *list, int64_t fresh_ms,
                             bool *so)
{
    const series_t *seen = NULL;
    *so = false;
    for (size_t i = 0; i < list->count; i++) {
        const series_t *series = &list->items[i];
        if (!is_meant(alert, series) || series->last_ms < fresh_ms)
            continue;
        seen = series;
        if ((*so = holds(alert, series->last)))
            break;
    }
    return seen;
}

/* ---- Messages ---- */

#define message_FIELDS(F)                                                                          \
    F(STR, url, must, 0, 0, "Where it goes.")                                                      \
    F(STR, body, must, 0, 0, "JSON.")                                                              \
    F(INT, tries, must, 0, 0, "Deliveries that failed.")                                           \
    F(TIME, at, must, 0, 0, "When it was written.")                                                \
    F(TIME, next, must, 0, 0, "Not before then.")
RECORD(message, message_FIELDS)

static void put_text(buf_t *out, const char *key, const char *value, const char *end)
{
    buf_printf(out, "\"%s\":", key);
    json_put_string(out, value, strlen(value));
    buf_puts(out, end);
}

static void put_labels(buf_t *out, call_t *call, const char *company, const alert_t *alert)
{
    const char *colon = strchr(alert->series, ':');
    (void)call;
    buf_puts(out, "{");
    put_text(out, "alertname", alert->id, ",");
    put_text(out, "company", company, ",");
    put_text(out, "agent",
             colon ? arena_strndup(out->arena, alert->series, (size_t)(colon - alert->series))
                   : alert->series,
             ",");
    put_text(out, "metric", colon ? colon + 1 : alert->metric, "}");
}

static void put_alert(buf_t *out, call_t *call, const char *company, const alert_t *alert,
                      bool firing, int64_t began_ms)
{
    arena_t *arena = out->arena;
    buf_puts(out, "{");
    put_text(out, "status", firing ? "firing" : "resolved", ",\"labels\":");
    put_labels(out, call, company, alert);
    buf_puts(out, ",\"annotations\":{");
    put_text(out, "summary",
             arena_printf(arena, "%s is %g, %s %s %g", alert->series, alert->value,
                          firing ? "which is" : "no longer", alert->operator, alert->threshold),
             "},");
    put_text(out, "startsAt", record_time_text(arena, began_ms), ",");
    put_text(out, "endsAt",
             firing ? "0001-01-01T00:00:00Z" : record_time_text(arena, call_now_ms(call)), ",");
    put_text(out, "generatorURL", "", ",");
    put_text(out, "fingerprint", alert->id, "}");
}

/* https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, version 4. */
static const char *webhook_body(call_t *call, const char *company, const alert_t *alert,
                                bool firing, int64_t began_ms)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    buf_puts(&out, "{\"version\":\"4\",\"truncatedAlerts\":0,");
    put_text(&out, "groupKey", arena_printf(out.arena, "{}:{alertname=\"%s\"}", alert->id), ",");
    put_text(&out, "status", firing ? "firing" : "resolved", ",");
    put_text(&out, "receiver", "agency", ",\"groupLabels\":{");
    put_text(&out, "alertname", alert->id, "},\"commonLabels\":");
    put_labels(&out, call, company, alert);
    buf_puts(&out, ",\"commonAnnotations\":{},\"externalURL\":\"\",\"alerts\":[");
    put_alert(&out, call, company, alert, firing, began_ms);
    buf_puts(&out, "]}");
    return out.data;
}

/* POST /api/v2/alerts: without endsAt it would be resolved by itself after five minutes. */
static const char *alertmanager_body(call_t *call, const char *company, const alert_t *alert,
                                     bool firing, int64_t began_ms)
{
    buf_t out;
    int64_t end = call_now_ms(call) + (firing ? INT64_C(365) * 86400000 : 0);
    buf_open(&out, call_arena(call));
    buf_puts(&out, "[{\"labels\":");
    put_labels(&out, call, company, alert);
    buf_puts(&out, ",\"annotations\":{");
    put_text(&out, "summary",
             arena_printf(out.arena, "%s %s %g", alert->series, alert->operator, alert->threshold),
             "},");
    put_text(&out, "startsAt", record_time_text(out.arena, began_ms), ",");
    put_text(&out, "endsAt", record_time_text(out.arena, end), "}]");
    return out.data;
}

static err_t write_message(call_t *call, store_txn_t *txn, const message_t *message)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    uint64_t last = 0;
    buf_t out;
    err_t err = store_scan_open(&scan, txn, TABLE_messages, none, none, true);
    if (!err_is(err) && store_scan_next(&scan, &key, &value))
        key_read_u64(&key, &last);
    store_scan_close(&scan);
    store_key_t next;
    key_open(&next);
    key_u64(&next, last + 1);
    buf_open(&out, call_arena(call));
    record_encode(&message_record, message, &out);
    return err_is(err) ? err : store_put(txn, TABLE_messages, key_bytes(&next), buf_bytes(&out));
}

static err_t send_both(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                       const alert_t *alert, bool firing, int64_t began_ms)
{
    const char *hook = alert->contact ? alert->contact : self->settings->webhook_url;
    const char *manager = self->settings->alertmanager_url;
    int64_t now = call_now_ms(call);
    err_t err = err_ok();
    if (alert->has_silenced_until && alert->silenced_until > now)
        return err;
    message_t message = {.at = now, .next = now};
    if (hook) {
        message.url = hook;
        message.body = webhook_body(call, company, alert, firing, began_ms);
        err = write_message(call, txn, &message);
    }
    if (!err_is(err) && manager) {
        message.url = arena_printf(call_arena(call), "%s/api/v2/alerts", manager);
        message.body = alertmanager_body(call, company, alert, firing, began_ms);
        err = write_message(call, txn, &message);
    }
    return err;
}

/* ---- Delivery: one message of a company at a time, in their order ---- */

static err_t deliver(void *state, call_t *call, void *ctx);

static void deliver_again(void *state, void *ctx)
{
    watched_company_t *company = ctx;
    company->delivering = true;
    company->delivering_ms = actor_mono_us(((health_t *)state)->actor) / 1000;
    actor_work(((health_t *)state)->actor, 0, deliver, ctx);
}

typedef struct delivery {
    watched_company_t *company;
    uint64_t number;
    message_t message;
} delivery_t;

static err_t on_delivered(void *state, call_t *call, void *reply, const http_call_outcome_t *got,
                          void *ctx)
{
    health_t *self = state;
    delivery_t *delivery = ctx;
    message_t *message = &delivery->message;
    store_txn_t *txn;
    store_key_t key;
    (void)reply;
    key_open(&key);
    key_u64(&key, delivery->number);
    bool taken = !err_is(got->err) && got->status / 100 == 2;
    bool over = call_now_ms(call) - message->at > self->settings->webhook_give_up_ms;
    err_t err = call_write(call, delivery->company->name, &txn);
    if (err_is(err))
        return err;
    if (taken || over) {
        if (!taken)
            call_log(call, LOG_ERROR, "nobody at %s took an alert; it is dropped", message->url);
        err = store_del(txn, TABLE_messages, key_bytes(&key));
        self->messages_sent += taken;
    } else {
        int shift = message->tries < 10 ? (int)message->tries : 10;
        int64_t pause = self->settings->webhook_backoff_ms << shift;
        message->next = call_now_ms(call) + (pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS);
        if (!message->tries++)
            call_log(call, LOG_WARN, "%s did not take an alert (%s); it is tried again",
                     message->url,
                     err_is(got->err) ? err_what(got->err)
                                      : arena_printf(call_arena(call), "HTTP %d", got->status));
        self->messages_failed++;
        buf_t out;
        buf_open(&out, call_arena(call));
        record_encode(&message_record, message, &out);
        err = store_put(txn, TABLE_messages, key_bytes(&key), buf_bytes(&out));
    }
    call_after_commit(call, deliver_again, delivery->company);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

static err_t first_message(call_t *call, store_txn_t *txn, delivery_t *out)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    err_t err = store_scan_open(&scan, txn, TABLE_messages, none, none, false);
    if (!err_is(err) && !store_scan_next(&scan, &key, &value))
        err = err_of(ERR_NOT_FOUND, NULL);
    if (!err_is(err)) {
        bytes_t copy = {arena_copy(call_arena(call), value.data, value.size), value.size};
        key_read_u64(&key, &out->number);
        err = record_decode(&message_record, copy, call_arena(call), "message", &out->message);
    }
    store_scan_close(&scan);
    return err;
}

static err_t deliver(void *state, call_t *call, void *ctx)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    health_t *self = state;
    watched_company_t *company = ctx;
    store_txn_t *txn;
    delivery_t *delivery = ARENA_NEW(call_arena(call), delivery_t);
    delivery->company = company;
    err_t err = call_read(call, company->name, &txn);
    if (!err_is(err))
        err = first_message(call, txn, delivery);
    if (err_is(err)) {
        company->delivering = false;
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    }
    int64_t wait = delivery->message.next - call_now_ms(call);
    if (wait > 0) {
        call_work(call, wait, deliver, company);
        return err_ok();
    }
    const char *body = delivery->message.body;
    http_call_request_t request = {.method = "POST",
                                   .url = delivery->message.url,
                                   .headers = headers,
                                   .body = {(const uint8_t *)body, strlen(body)},
                                   .timeout_ms = self->settings->webhook_timeout_ms,
                                   .response_limit = 65536};
    call_http(call, &request, on_delivered, delivery);
    return call_park(call);
}

static void start_delivery(void *state, void *ctx)
{
    watched_company_t *company = ctx;
    if (!company->delivering)
        deliver_again(state, company);
}

void alerts_guard(health_t *self)
{
    int64_t now = actor_mono_us(self->actor) / 1000;
    int64_t most = self->settings->webhook_timeout_ms + LONGEST_PAUSE_MS + STALLED_MS;
    for (watched_company_t *at = self->companies; at; at = at->next)
        if (at->delivering && now - at->delivering_ms > most)
            deliver_again(self, at);
}

/* ---- Firing and resolving ---- */

static err_t keep_change(call_t *call, store_txn_t *txn, const alert_t *alert, bool firing)
{
    store_key_t key;
    store_scan_t scan;
    bytes_t at, value, none = {0};
    buf_t out;
    alert_change_t change = {.id = alert->id,
                             .series = alert->series,
                             .state = firing ? "firing" : "resolved",
                             .value = alert->value,
                             .at = call_now_ms(call)};
    call_publish(call, firing ? "alert.firing" : "alert.resolved", &alert_change_record, &change);
    key_open(&key);
    key_i64(&key, change.at);
    key_str(&key, alert->id);
    buf_open(&out, call_arena(call));
    record_encode(&alert_change_record, &change, &out);
    err_t err = store_put(txn, TABLE_history, key_bytes(&key), buf_bytes(&out));
    int64_t many = store_count(txn, TABLE_history) - HISTORY_KEPT;
    if (err_is(err) || many <= 0)
        return err;
    err = store_scan_open(&scan, txn, TABLE_history, none, none, false);
    for (; many > 0 && !err_is(err) && store_scan_next(&scan, &at, &value); many--)
        err = store_scan_del(&scan);
    store_scan_close(&scan);
    return err;
}

static void set_state(call_t *call, alert_t *alert, const char *state)
{
    alert->state = state;
    alert->since = call_now_ms(call);
    alert->has_since = true;
}

static err_t change_over(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                         alert_t *alert, bool firing)
{
    int64_t began = alert->has_since && !firing ? alert->since : call_now_ms(call);
    set_state(call, alert, firing ? "firing" : "ok");
    alert->fired += firing;
    call_log(call, firing ? LOG_WARN : LOG_INFO, "alert %s of %s: %s is %g (%s %g)", alert->id,
             company, alert->series, alert->value, alert->operator, alert->threshold);
    err_t err = keep_change(call, txn, alert, firing);
    return err_is(err) ? err : send_both(self, call, company, txn, alert, firing, began);
}

static err_t look_at(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                     alert_t *alert, const series_list_t *list, bool *waits)
{
    bool so;
    int64_t now = call_now_ms(call);
    const series_t *by = judge(alert, list, now - self->settings->stale_ms, &so);
    const char *state = alert->state;
    if (!by) {
        *waits = *waits || !strcmp(state, "pending");
        return err_ok();
    }
    alert->series = arena_printf(call_arena(call), "%s:%s", by->agent, by->metric);
    alert->value = by->last;
    alert->has_value = true;
    bool firing = !strcmp(state, "firing"), pending = !strcmp(state, "pending");
    err_t err = err_ok();
    if (so && !firing && !pending && alert->for_ms > 0) {
        set_state(call, alert, "pending");
        *waits = true;
    } else if (so && !firing && (!pending || now - alert->since >= alert->for_ms)) {
        err = change_over(self, call, company, txn, alert, true);
    } else if (!so && firing) {
        err = change_over(self, call, company, txn, alert, false);
    } else if (!so && pending) {
        set_state(call, alert, "ok");
    } else {
        *waits = *waits || pending;
        return err_ok(); /* nothing that must be kept */
    }
    return err_is(err) ? err : save(txn, call_arena(call), alert);
}

err_t alerts_look(health_t *self, call_t *call, const char *name, store_txn_t *txn)
{
    alert_list_t alerts;
    series_list_t list;
    watched_company_t *company = health_company(self, name);
    bool waits = false;
    if (!store_count(txn, TABLE_alerts)) {
        company->alerts_wait = false;
        return err_ok();
    }
    err_t err = alerts_list(txn, call_arena(call), false, &alerts);
    if (!err_is(err))
        err = series_list(txn, call_arena(call), NULL, NULL, &list);
    for (size_t i = 0; i < alerts.count && !err_is(err); i++)
        err = look_at(self, call, name, txn, &alerts.items[i], &list, &waits);
    company->alerts_wait = waits;
    if (!err_is(err) && store_count(txn, TABLE_messages) > 0)
        call_after_commit(call, start_delivery, company);
    return err;
}

/* ---- The tools ---- */

static bool is_url(const char *text)
{
    return !strncmp(text, "http://", 7) || !strncmp(text, "https://", 8);
}

static err_t alert_on_threshold(health_t *self, call_t *call, const alert_on_threshold_args_t *args,
                                alert_on_threshold_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    alert_t old, alert = {.metric = args->metric,
                          .operator= plain_operator(args->operator),
                          .threshold = args->threshold,
                          .for_ms = args->for_ms,
                          .contact = args->contact,
                          .state = "ok",
                          .id = args->id};
    if (!alert.operator)
        return err_make(arena, ERR_ARGUMENT,
                        "operator '%s' is none of > >= < <= == !=", args->operator);
    if (args->contact && !is_url(args->contact))
        return err_of(ERR_ARGUMENT, "contact must be a URL that begins with http:// or https://");
    if (!alert.id)
        alert.id = arena_printf(arena, "%s %s %g", alert.metric, alert.operator, alert.threshold);
    if (strlen(alert.id) > 400)
        return err_of(ERR_ARGUMENT, "metric is too long to name the rule by; give an id");
    err_t err = call_write(call, call_company(call), &txn);
    if (err_is(err))
        return err;
    err = load(txn, arena, alert.id, &old);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    reply->replaced = !err_is(err);
    if (!reply->replaced && store_count(txn, TABLE_alerts) >= self->settings->max_alerts)
        return err_make(arena, ERR_QUOTA,
                        "there are %" PRId64 " alert rules already; remove one with alert_remove "
                        "or raise health.max_alerts",
                        self->settings->max_alerts);
    if (reply->replaced && !strcmp(old.metric, alert.metric)) {
        alert.state = old.state; /* it goes on as it was: no second fire */
        alert.series = old.series;
        alert.value = old.value;
        alert.has_value = old.has_value;
        alert.since = old.since;
        alert.has_since = old.has_since;
        alert.fired = old.fired;
    }
    reply->id = alert.id;
    err = save(txn, arena, &alert);
    if (!err_is(err))
        err = alerts_look(self, call, call_company(call), txn);
    call_say(call, "Alert '%s' is set: %s %s %g.", alert.id, alert.metric, alert.operator,
             alert.threshold);
    return err;
}

static err_t check_alerts(health_t *self, call_t *call, const check_alerts_args_t *args,
                          check_alerts_reply_t *reply)
{
    store_txn_t *txn;
    buf_t text;
    (void)self;
    (void)args;
    err_t err = call_read(call, call_company(call), &txn);
    if (err.code == ERR_NOT_FOUND) {
        call_say(call, "There are no alert rules.");
        return err_ok();
    }
    if (!err_is(err))
        err = alerts_list(txn, call_arena(call), false, &reply->alerts);
    if (err_is(err))
        return err;
    buf_open(&text, call_arena(call));
    for (size_t i = 0; i < reply->alerts.count; i++) {
        const alert_t *alert = &reply->alerts.items[i];
        bool firing = !strcmp(alert->state, "firing");
        reply->firing += firing;
        buf_printf(&text, "%s%s: %s", i ? "\n" : "", alert->id, alert->state);
        if (alert->has_value)
            buf_printf(&text, " (%s is %g)", alert->series, alert->value);
    }
    call_say_text(call, text.size ? text.data : "There are no alert rules.");
    return err_ok();
}

static err_t alert_remove(health_t *self, call_t *call, const alert_remove_args_t *args,
                          alert_remove_reply_t *reply)
{
    store_txn_t *txn;
    alert_t alert;
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = load(txn, call_arena(call), args->id, &alert);
    /* Whoever was told that it fires is told that it is over. */
    if (!err_is(err) && !strcmp(alert.state, "firing"))
        err = change_over(self, call, call_company(call), txn, &alert, false);
    if (!err_is(err))
        err = store_del(txn, TABLE_alerts, id_key(args->id));
    if (!err_is(err))
        call_after_commit(call, start_delivery, health_company(self, call_company(call)));
    reply->removed = true;
    return err;
}

static err_t silence_alert(health_t *self, call_t *call, const silence_alert_args_t *args,
                           silence_alert_reply_t *reply)
{
    store_txn_t *txn;
    alert_t *alert = ARENA_NEW(call_arena(call), alert_t);
    (void)self;
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = load(txn, call_arena(call), args->id, alert);
    if (err_is(err))
        return err;
    alert->silenced_until = call_now_ms(call) + args->for_ms;
    alert->has_silenced_until = args->for_ms > 0;
    alert_t *copy = ARENA_NEW(call_arena(call), alert_t);
    record_copy(&alert_record, alert, call_arena(call), copy);
    reply->alert = copy;
    call_say(call, "Nobody is told about '%s' for %" PRId64 " s.", args->id, args->for_ms / 1000);
    return save(txn, call_arena(call), copy);
}

static bool has_text(const strs_t *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i], text))
            return true;
    return false;
}

static void join_group(arena_t *arena, alert_group_t *group, const alert_change_t *change)
{
    size_t count = group->alerts.count;
    alert_change_t *items = ARENA_ARRAY(arena, alert_change_t, count + 1);
    const char **agents = ARENA_ARRAY(arena, const char *, group->agents.count + 1);
    const char *colon = strchr(change->series, ':');
    const char *agent = colon
                            ? arena_strndup(arena, change->series, (size_t)(colon - change->series))
                            : change->series;
    if (count)
        memcpy(items, group->alerts.items, count * sizeof(*items));
    items[count] = *change;
    group->alerts = (alert_change_list_t){items, count + 1};
    if (!has_text(&group->agents, agent)) {
        if (group->agents.count)
            memcpy(agents, group->agents.items, group->agents.count * sizeof(*agents));
        agents[group->agents.count] = agent;
        group->agents = (strs_t){agents, group->agents.count + 1};
    }
    group->from = change->at;
}

static err_t get_correlated_alerts(health_t *self, call_t *call,
                                   const get_correlated_alerts_args_t *args,
                                   get_correlated_alerts_reply_t *reply)
{
    store_txn_t *txn;
    store_scan_t scan;
    arena_t *arena = call_arena(call);
    bytes_t key, value, none = {0};
    (void)self;
    reply->groups.items = ARENA_ARRAY(arena, alert_group_t, (size_t)args->limit + 1);
    err_t err = call_read(call, call_company(call), &txn);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    err = store_scan_open(&scan, txn, TABLE_history, none, none, true);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        alert_change_t change;
        bytes_t copy = {arena_copy(arena, value.data, value.size), value.size};
        err = record_decode(&alert_change_record, copy, arena, "alert", &change);
        if (err_is(err) || strcmp(change.state, "firing") != 0)
            continue;
        size_t count = reply->groups.count;
        if (!count || reply->groups.items[count - 1].from - change.at > NEAR_MS) {
            if (count == (size_t)args->limit)
                break;
            reply->groups.items[reply->groups.count++] = (alert_group_t){.until = change.at};
        }
        join_group(arena, &reply->groups.items[reply->groups.count - 1], &change);
    }
    store_scan_close(&scan);
    return err;
}

/* ---- After a restart: who waits, and what was not delivered ---- */

static err_t look_through(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    store_txn_t *txn;
    strs_t companies;
    (void)ctx;
    err_t err = call_companies(call, &companies);
    for (size_t i = 0; i < companies.count && !err_is(err); i++) {
        err = call_read(call, companies.items[i], &txn);
        if (err_is(err))
            continue;
        if (store_count(txn, TABLE_alerts) > 0)
            health_company(self, companies.items[i])->alerts_wait = true;
        if (store_count(txn, TABLE_messages) > 0)
            call_after_commit(call, start_delivery, health_company(self, companies.items[i]));
    }
    return err;
}

void alerts_open(health_t *self, call_t *call)
{
    (void)self;
    call_work(call, 0, look_through, NULL);
}
