/* alerts: rules over the last values. A rule is ok, pending (true, but not for long enough) or
 * firing; each change is in the same transaction as the message about it (messages.c), so one fire
 * and one resolve leave, whatever dies in between.
 *
 * A point costs a look at the rules of its metric only: watches.c knows which. A rule without an
 * agent fires when one of its metrics passes the threshold, and resolves when none does any more.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/health/health.h"
#include "actors/health/watches.h"

enum { HISTORY_KEPT = 5000, STALE_LOOK_MS = 5000 };

RECORD_DEFINE(alert, alert_FIELDS)
RECORD_DEFINE(alert_change, alert_change_FIELDS)

/* ---- Rows ---- */

static bytes_t id_key(const char *id)
{
    return (bytes_t){(const uint8_t *)id, strlen(id)};
}

err_t alerts_load(store_txn_t *txn, arena_t *arena, const char *id, alert_t *out)
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

/* What is known when a rule is looked at. */
typedef struct look {
    health_t *self;
    call_t *call;
    const char *company;
    store_txn_t *txn;
    watches_t *watches;
} look_t;

typedef struct found {
    const series_t *by; /* it makes it so, or else a fresh one; NULL: nothing fresh is known */
    bool so;
} found_t;

static bool is_fresh(const look_t *look, const series_t *series)
{
    return series->last_ms >= call_now_ms(look->call) - look->self->settings->stale_ms;
}

/* True: it is fresh and makes the rule true. */
static bool consider(const look_t *look, const alert_t *alert, const series_t *series,
                     found_t *found)
{
    if (!is_fresh(look, series) || !series_is_named(alert->metric, series))
        return false;
    found->so = holds(alert, series->last);
    if (found->so || !found->by)
        found->by = series;
    return found->so;
}

static err_t find_named(const look_t *look, const char *text, series_t **out)
{
    arena_t *arena = call_arena(look->call);
    const char *colon = strchr(text, ':');
    *out = ARENA_NEW(arena, series_t);
    return colon ? series_find(look->txn, arena_strndup(arena, text, (size_t)(colon - text)),
                               arena_strdup(arena, colon + 1), *out)
                 : err_of(ERR_NOT_FOUND, NULL);
}

/* The touched one alone says enough, unless the rule fires or waits and this one does not hold:
 * then the one that made it so is asked, and at last all of them. */
static err_t judge(const look_t *look, const alert_t *alert, const watch_t *watch,
                   const series_t *touched, found_t *found)
{
    series_t *series;
    *found = (found_t){0};
    if (touched && (consider(look, alert, touched, found) || !strcmp(alert->state, "ok")))
        return err_ok();
    if (alert->by && !err_is(find_named(look, alert->by, &series)) &&
        consider(look, alert, series, found))
        return err_ok();
    for (size_t i = 0; i < watch->series.count; i++) {
        err_t err = find_named(look, watch->series.items[i], &series);
        if (err_is(err) && err.code != ERR_NOT_FOUND)
            return err;
        if (!err_is(err) && consider(look, alert, series, found))
            return err_ok();
    }
    return err_ok();
}

/* ---- Firing and resolving ---- */

#define alert_event_FIELDS(F) F(STR, company, must, 0, 0, "Whose.") alert_change_FIELDS(F)
RECORD(alert_event, alert_event_FIELDS)

static void publish_change(call_t *call, const char *company, const alert_change_t *change)
{
    alert_event_t event = {.company = company,
                           .id = change->id,
                           .series = change->series,
                           .state = change->state,
                           .value = change->value,
                           .at = change->at};
    call_publish(call, arena_printf(call_arena(call), "alert.%s", change->state),
                 &alert_event_record, &event);
}

static err_t keep_change(const look_t *look, const alert_t *alert, bool firing)
{
    call_t *call = look->call;
    store_txn_t *txn = look->txn;
    store_key_t key;
    store_scan_t scan;
    bytes_t at, value, none = {0};
    buf_t out;
    alert_change_t change = {.id = alert->id,
                             .series = alert->series,
                             .state = firing ? "firing" : "resolved",
                             .value = alert->value,
                             .at = call_now_ms(call)};
    publish_change(call, look->company, &change);
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

static bool is_silenced(const alert_t *alert, int64_t now_ms)
{
    return alert->has_silenced_until && alert->silenced_until > now_ms;
}

/* Tells that it fires, unless it is silenced: then when that is over. */
static err_t tell_fire(const look_t *look, watch_t *watch, alert_t *alert)
{
    int64_t now = call_now_ms(look->call);
    alert->told = !is_silenced(alert, now);
    alert->has_told = true;
    if (alert->told)
        return messages_about(look->self, look->call, look->company, look->txn, alert, true,
                              alert->since);
    if (watch)
        watches_due(look->watches, watch, look->call, alert->silenced_until - now);
    return err_ok();
}

static void log_change(const look_t *look, const alert_t *alert, bool firing)
{
    call_log(look->call, firing ? LOG_WARN : LOG_INFO, "alert %s of %s: %s is %g (%s %g)",
             alert->id, look->company, alert->series, alert->value, alert->operator,
             alert->threshold);
}

static err_t fire(const look_t *look, watch_t *watch, alert_t *alert)
{
    set_state(look->call, alert, "firing");
    alert->series = alert->by; /* by this name it will be resolved */
    alert->fired++;
    log_change(look, alert, true);
    err_t err = keep_change(look, alert, true);
    return err_is(err) ? err : tell_fire(look, watch, alert);
}

/* Whoever was told that it fires is told that it is over, silenced or not. */
static err_t resolve(const look_t *look, alert_t *alert)
{
    int64_t began = alert->since;
    series_t *series;
    if (alert->series && !err_is(find_named(look, alert->series, &series)) &&
        is_fresh(look, series))
        alert->value = series->last;
    set_state(look->call, alert, "ok");
    log_change(look, alert, false);
    err_t err = keep_change(look, alert, false);
    if (err_is(err) || (alert->has_told && !alert->told))
        return err;
    return messages_about(look->self, look->call, look->company, look->txn, alert, false, began);
}

/* *changed: the row must be kept. */
static err_t step(const look_t *look, watch_t *watch, alert_t *alert, const found_t *found,
                  bool is_due, bool *changed)
{
    bool firing = !strcmp(alert->state, "firing"), pending = !strcmp(alert->state, "pending");
    *changed = true;
    if (firing && found->so) {
        if (is_due && alert->has_told && !alert->told)
            return tell_fire(look, watch, alert);
        *changed = false;
        return err_ok();
    }
    if (firing)
        return resolve(look, alert);
    if (found->so && (pending ? is_due : alert->for_ms == 0))
        return fire(look, watch, alert);
    if (found->so && !pending) {
        set_state(look->call, alert, "pending");
        watches_due(look->watches, watch, look->call, alert->for_ms);
    } else if (!found->so && pending) {
        set_state(look->call, alert, "ok");
    } else {
        *changed = false;
    }
    return err_ok();
}

/* A batch may be run twice: the watch is due until what was found is on disk. By its id, since the
 * watches may be built anew meanwhile. */
typedef struct done {
    const char *company, *id;
    int64_t due_ms;
} done_t;

static void on_done(void *state, void *ctx)
{
    const done_t *done = ctx;
    const watches_t *watches = health_company(state, done->company)->watches;
    watch_t *watch = watches ? watches_find(watches, done->id) : NULL;
    if (watch && watch->due_ms == done->due_ms) /* else it is due again */
        watch->due_ms = 0;
}

static void done_after_commit(const look_t *look, const watch_t *watch)
{
    arena_t *arena = call_arena(look->call);
    done_t *done = ARENA_NEW(arena, done_t);
    *done =
        (done_t){arena_strdup(arena, look->company), arena_strdup(arena, watch->id), watch->due_ms};
    call_after_commit(look->call, on_done, done);
}

static err_t look_at(const look_t *look, watch_t *watch, const series_t *touched)
{
    alert_t alert;
    found_t found;
    bool changed;
    arena_t *arena = call_arena(look->call);
    err_t err = alerts_load(look->txn, arena, watch->id, &alert);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err; /* set by a call that was rolled back */
    bool is_due = watches_is_due(watch, look->call);
    err = judge(look, &alert, watch, touched, &found);
    if (err_is(err) || !found.by) /* stale: it stays as it is */
        return err;
    const char *by = arena_printf(arena, "%s:%s", found.by->agent, found.by->metric);
    bool other = found.so && (!alert.by || strcmp(alert.by, by) != 0);
    if (found.so || !alert.by)
        alert.by = by;
    if (!alert.series || strcmp(alert.state, "firing") != 0)
        alert.series = alert.by;
    alert.value = found.by->last;
    alert.has_value = true;
    if (is_due)
        done_after_commit(look, watch);
    err = step(look, watch, &alert, &found, is_due, &changed);
    return err_is(err) || (!changed && !other) ? err : save(look->txn, arena, &alert);
}

/* The watches of the company; NULL: it has no rules. */
static err_t open_look(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                       look_t *look)
{
    watched_company_t *watched = health_company(self, company);
    *look = (look_t){self, call, company, txn, NULL};
    if (!store_count(txn, TABLE_alerts)) {
        watches_destroy(&watched->watches);
        return err_ok();
    }
    err_t err = watched->watches ? err_ok() : watches_build(call, txn, &watched->watches);
    look->watches = watched->watches;
    return err;
}

static void close_look(const look_t *look)
{
    if (store_count(look->txn, TABLE_messages) > 0)
        messages_go(look->self, look->call, look->company);
}

err_t alerts_touched(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                     const series_batch_t *batch)
{
    look_t look;
    err_t err = open_look(self, call, company, txn, &look);
    if (err_is(err) || !look.watches)
        return err;
    series_list_t touched = series_batch_list(batch);
    for (size_t i = 0; i < touched.count && !err_is(err); i++) {
        ear_t *ear = NULL;
        while (!err_is(err) && (ear = watches_next(look.watches, &touched.items[i], ear))) {
            watches_meet(ear->watch, &touched.items[i]);
            err = look_at(&look, ear->watch, &touched.items[i]);
        }
    }
    close_look(&look);
    return err;
}

bool alerts_are_due(const watched_company_t *company, call_t *call)
{
    return company->watches &&
           watches_next_due(company->watches) <= actor_mono_us(call_actor(call)) / 1000;
}

err_t alerts_due(health_t *self, call_t *call, const char *company, store_txn_t *txn)
{
    look_t look;
    err_t err = open_look(self, call, company, txn, &look);
    if (err_is(err) || !look.watches)
        return err;
    for (watch_t *watch = watches_first(look.watches); watch && !err_is(err); watch = watch->next)
        if (watches_is_due(watch, call))
            err = look_at(&look, watch, NULL);
    watches_plan(look.watches, call, STALE_LOOK_MS);
    close_look(&look);
    return err;
}

err_t alerts_check(alert_t *alert, arena_t *arena)
{
    const char *plain = plain_operator(alert->operator);
    if (!plain)
        return err_make(arena, ERR_ARGUMENT,
                        "operator '%s' is none of > >= < <= == !=", alert->operator);
    alert->operator= plain;
    if (alert->contact && strncmp(alert->contact, "http://", 7) != 0 &&
        strncmp(alert->contact, "https://", 8) != 0)
        return err_of(ERR_ARGUMENT, "contact must be a URL that begins with http:// or https://");
    if (!alert->id)
        alert->id =
            arena_printf(arena, "%s %s %g", alert->metric, alert->operator, alert->threshold);
    return err_ok();
}

/* The one with its id goes on in it. */
static void go_on(alert_t *alert, const alert_t *old)
{
    alert->silenced_until = old->silenced_until;
    alert->has_silenced_until = old->has_silenced_until;
    alert->fired = old->fired;
    if (strcmp(old->metric, alert->metric) != 0)
        return;
    alert->state = old->state; /* no second fire */
    alert->series = old->series;
    alert->by = old->by;
    alert->value = old->value;
    alert->has_value = old->has_value;
    alert->since = old->since;
    alert->has_since = old->has_since;
    alert->told = old->told;
    alert->has_told = old->has_told;
}

static err_t put(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                 alert_t *alert, const alert_t *old)
{
    err_t err = err_ok();
    if (old && !strcmp(old->state, "firing") && strcmp(old->metric, alert->metric) != 0) {
        alert_t gone = *old;
        err = alerts_drop(self, call, company, txn, &gone);
    }
    if (old)
        go_on(alert, old);
    return err_is(err) ? err : save(txn, call_arena(call), alert);
}

err_t alerts_set(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                 alert_t *alert, const alert_t *old)
{
    look_t look;
    watch_t *watch;
    err_t err = put(self, call, company, txn, alert, old);
    if (!err_is(err))
        err = open_look(self, call, company, txn, &look);
    if (err_is(err))
        return err;
    err = watches_add(look.watches, call, txn, alert, &watch);
    if (!err_is(err))
        err = look_at(&look, watch, NULL);
    close_look(&look);
    return err;
}

/* The watches are built once, not for each of them. */
err_t alerts_set_all(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                     const alert_pair_t *pairs, size_t count)
{
    look_t look;
    err_t err = err_ok();
    for (size_t i = 0; i < count && !err_is(err); i++)
        err = put(self, call, company, txn, pairs[i].alert, pairs[i].old);
    watches_destroy(&health_company(self, company)->watches);
    if (!err_is(err))
        err = open_look(self, call, company, txn, &look);
    if (err_is(err))
        return err;
    for (size_t i = 0; i < count && !err_is(err); i++)
        err = look_at(&look, watches_find(look.watches, pairs[i].alert->id), NULL);
    close_look(&look);
    return err;
}

err_t alerts_drop(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                  alert_t *alert)
{
    look_t look = {self, call, company, txn, NULL};
    err_t err = strcmp(alert->state, "firing") ? err_ok() : resolve(&look, alert);
    close_look(&look);
    return err_is(err) ? err : store_del(txn, TABLE_alerts, id_key(alert->id));
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
        watched_company_t *company = health_company(self, companies.items[i]);
        err = call_read(call, company->name, &txn);
        if (!err_is(err) && !company->watches && store_count(txn, TABLE_alerts) > 0)
            err = watches_build(call, txn, &company->watches);
        if (!err_is(err) && store_count(txn, TABLE_messages) > 0)
            messages_go(self, call, company->name);
    }
    return err;
}

void alerts_open(health_t *self, call_t *call)
{
    (void)self;
    call_work(call, 0, look_through, NULL);
}
