/* messages: what is told about alerts, and to whom. A message is written in the transaction of the
 * change that it is about, and goes on until somebody takes it. */
#include <inttypes.h>
#include <string.h>

#include "actors/health/health.h"
#include "proto/json.h"

enum { LONGEST_PAUSE_MS = 300000, RECEIVERS = 64 };

/* ---- Bodies ---- */

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

static store_key_t message_key(uint64_t number)
{
    store_key_t key;
    key_open(&key);
    key_u64(&key, number);
    return key;
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
    store_key_t next = message_key(last + 1);
    buf_open(&out, call_arena(call));
    record_encode(&message_record, message, &out);
    return err_is(err) ? err : store_put(txn, TABLE_messages, key_bytes(&next), buf_bytes(&out));
}

err_t messages_about(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                     const alert_t *alert, bool firing, int64_t began_ms)
{
    const char *hook = alert->contact ? alert->contact : self->settings->webhook_url;
    const char *manager = self->settings->alertmanager_url;
    int64_t now = call_now_ms(call);
    err_t err = err_ok();
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

/* ---- Delivery ----
 *
 * One request of a company at a time. Messages to one receiver keep their order; a receiver that is
 * dead holds up nobody else. */

static err_t deliver(void *state, call_t *call, void *ctx);

typedef struct delivery {
    watched_company_t *company;
    uint64_t number;
    message_t message;
} delivery_t;

static void on_gone(void *state, call_t *call, void *ctx)
{
    (void)state;
    (void)call;
    ((watched_company_t *)ctx)->delivering = false;
}

static void go_on(void *state, void *ctx)
{
    watched_company_t *company = ctx;
    company->delivering = false;
    actor_work(((health_t *)state)->actor, 0, deliver, ctx);
}

static void count_sent(void *state, void *ctx)
{
    (void)ctx;
    ((health_t *)state)->messages_sent++;
}

static void count_failed(void *state, void *ctx)
{
    (void)ctx;
    ((health_t *)state)->messages_failed++;
}

static void set_pause(health_t *self, call_t *call, message_t *message,
                      const http_call_outcome_t *got)
{
    int shift = message->tries < 10 ? (int)message->tries : 10;
    int64_t pause = self->settings->webhook_backoff_ms << shift;
    pause = pause > got->retry_after_ms ? pause : got->retry_after_ms;
    message->next = call_now_ms(call) + (pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS);
    if (!message->tries++)
        call_log(call, LOG_WARN, "%s did not take an alert (%s); it is tried again", message->url,
                 err_is(got->err) ? err_what(got->err)
                                  : arena_printf(call_arena(call), "HTTP %d", got->status));
    call_after_commit(call, count_failed, NULL);
}

static err_t on_delivered(void *state, call_t *call, void *reply, const http_call_outcome_t *got,
                          void *ctx)
{
    health_t *self = state;
    const delivery_t *delivery = ctx;
    message_t message = delivery->message; /* a batch may be run twice */
    store_txn_t *txn;
    store_key_t key = message_key(delivery->number);
    buf_t out;
    (void)reply;
    bool taken = !err_is(got->err) && got->status / 100 == 2;
    bool over = call_now_ms(call) - message.at > self->settings->webhook_give_up_ms;
    err_t err = call_write(call, delivery->company->name, &txn);
    if (err_is(err))
        return err;
    call_after_commit(call, go_on, delivery->company);
    if (taken || over) {
        if (taken)
            call_after_commit(call, count_sent, NULL);
        else
            call_log(call, LOG_ERROR, "nobody at %s took an alert; it is dropped", message.url);
        err = store_del(txn, TABLE_messages, key_bytes(&key));
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    }
    set_pause(self, call, &message, got);
    buf_open(&out, call_arena(call));
    record_encode(&message_record, &message, &out);
    return store_put(txn, TABLE_messages, key_bytes(&key), buf_bytes(&out));
}

static bool has_text(const char *const *list, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i], text))
            return true;
    return false;
}

/* The first message that is due and that none to the same receiver stands before. *wait_ms: until
 * the next one is due; -1: there is none. */
static err_t next_message(call_t *call, store_txn_t *txn, delivery_t *out, int64_t *wait_ms)
{
    store_scan_t scan;
    arena_t *arena = call_arena(call);
    bytes_t key, value, none = {0};
    const char **seen = ARENA_ARRAY(arena, const char *, RECEIVERS);
    size_t count = 0;
    bool found = false;
    *wait_ms = -1;
    err_t err = store_scan_open(&scan, txn, TABLE_messages, none, none, false);
    while (!err_is(err) && !found && count < RECEIVERS && store_scan_next(&scan, &key, &value)) {
        bytes_t copy = {arena_copy(arena, value.data, value.size), value.size};
        key_read_u64(&key, &out->number);
        err = record_decode(&message_record, copy, arena, "message", &out->message);
        if (err_is(err) || has_text(seen, count, out->message.url))
            continue;
        seen[count++] = out->message.url;
        int64_t wait = out->message.next - call_now_ms(call);
        found = wait <= 0 || wait > LONGEST_PAUSE_MS; /* the clock went back */
        if (!found && (*wait_ms < 0 || wait < *wait_ms))
            *wait_ms = wait;
    }
    store_scan_close(&scan);
    return err_is(err) ? err : found ? err_ok() : err_of(ERR_NOT_FOUND, NULL);
}

/* One timer at a time, whoever begins a delivery in between. */
static void wake_in(call_t *call, watched_company_t *company, int64_t wait_ms)
{
    int64_t now = actor_mono_us(call_actor(call)) / 1000;
    if (company->wake_ms > now && company->wake_ms <= now + wait_ms)
        return;
    company->wake_ms = now + wait_ms;
    call_work(call, wait_ms, deliver, company);
}

static err_t deliver(void *state, call_t *call, void *ctx)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    health_t *self = state;
    watched_company_t *company = ctx;
    store_txn_t *txn;
    int64_t wait_ms = -1;
    if (company->delivering)
        return err_ok();
    delivery_t *delivery = ARENA_NEW(call_arena(call), delivery_t);
    delivery->company = company;
    err_t err = call_read(call, company->name, &txn);
    if (!err_is(err))
        err = next_message(call, txn, delivery, &wait_ms);
    if (err.code == ERR_NOT_FOUND) {
        if (wait_ms >= 0)
            wake_in(call, company, wait_ms);
        return err_ok();
    }
    if (err_is(err))
        return err;
    company->delivering = true;
    call_on_gone(call, on_gone, company);
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

static void start(void *state, void *ctx)
{
    actor_work(((health_t *)state)->actor, 0, deliver, ctx);
}

void messages_go(health_t *self, call_t *call, const char *company)
{
    call_after_commit(call, start, health_company(self, company));
}
