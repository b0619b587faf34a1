/* alert_tools: what can be asked of the alert rules. */
#include <inttypes.h>
#include <string.h>

#include "actors/health/health.h"

enum { NEAR_MS = 300000 };

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
    F(LIST(alert), alerts, must, 0, 0, "All rules with their states.")                             \
    F(STR, rules_error, opt(), 0, 0,                                                               \
      "What is wrong with the file of rules; those before it stay. Default company only.")

#define alert_remove_ARGS(F)                                                                       \
    F(STR, id, must, 1, 128, "Id of the rule.")                                                    \
    COMPANY_ROW(F)
#define alert_remove_REPLY(F) F(BOOL, removed, must, 0, 0, "True.")

#define silence_alert_ARGS(F)                                                                      \
    F(STR, id, must, 1, 128, "Id of the rule.")                                                    \
    F(INT, for_ms, opt(3600000), 0, 2592000000,                                                    \
      "Nobody is told that it fires for so long; 0: from now on they are.")                        \
    COMPANY_ROW(F)
#define silence_alert_REPLY(F) F(REC(alert), alert, must, 0, 0, "The rule.")

#define alert_group_FIELDS(F)                                                                      \
    F(STR, id, must, 0, 0,                                                                         \
      "The same again for the same group: when it began, and its first rule.")                     \
    F(STR, timestamp, must, 0, 0, "from, as text.")                                                \
    F(STR, summary, must, 0, 0, "The group in a line.")                                            \
    F(STR, severity, must, 0, 0, "low; medium: more than 2 alerts; high: more than 5.")            \
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
    M(health_t, get_correlated_alerts, TOOL | READS | SAYS_FIRST,                                  \
      "Alerts that fired near each other in time.")
METHODS_SHARED(alerts_methods, ALERTS_METHODS)

/* ---- Setting, removing, silencing ---- */

static err_t refuse_file_rule(call_t *call, const alert_t *alert)
{
    return err_make(call_arena(call), ERR_STATE,
                    "rule '%s' is in the file of rules; change it there, or take another id",
                    alert->id);
}

static err_t alert_on_threshold(health_t *self, call_t *call, const alert_on_threshold_args_t *args,
                                alert_on_threshold_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    alert_t old, alert = {.metric = args->metric,
                          .operator= args->operator,
                          .threshold = args->threshold,
                          .for_ms = args->for_ms,
                          .contact = args->contact,
                          .state = "ok",
                          .id = args->id};
    err_t err = alerts_check(&alert, arena);
    if (!err_is(err))
        err = call_write(call, call_company(call), &txn);
    if (err_is(err))
        return err;
    err = alerts_load(txn, arena, alert.id, &old);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    reply->replaced = !err_is(err);
    if (!reply->replaced && store_count(txn, TABLE_alerts) >= self->settings->max_alerts)
        return err_make(arena, ERR_QUOTA,
                        "there are %" PRId64 " alert rules already; remove one with alert_remove "
                        "or raise health.max_alerts",
                        self->settings->max_alerts);
    if (reply->replaced && old.from_file)
        return refuse_file_rule(call, &old);
    reply->id = alert.id;
    err = alerts_set(self, call, call_company(call), txn, &alert, reply->replaced ? &old : NULL);
    call_say(call, "Alert rule added for %s %s %g\nIts id: %s", alert.metric, alert.operator,
             alert.threshold, alert.id);
    return err;
}

static void say_rules(call_t *call, const check_alerts_reply_t *reply)
{
    buf_t text;
    buf_open(&text, call_arena(call));
    for (size_t i = 0; i < reply->alerts.count; i++) {
        const alert_t *alert = &reply->alerts.items[i];
        if (!strcmp(alert->state, "firing"))
            buf_printf(&text, "%sALERT: %s is %.2f (%s %g)", text.size ? "\n" : "", alert->series,
                       alert->value, alert->operator, alert->threshold);
    }
    if (!text.size)
        buf_puts(&text, "No alerts triggered.");
    for (size_t i = 0; i < reply->alerts.count; i++) {
        const alert_t *alert = &reply->alerts.items[i];
        buf_printf(&text, "\n%s: %s", alert->id, alert->state);
        if (alert->has_value)
            buf_printf(&text, " (%s is %g)", alert->series, alert->value);
    }
    if (reply->rules_error)
        buf_printf(&text, "\nThe file of rules is wrong: %s", reply->rules_error);
    call_say_text(call, text.data);
}

static err_t check_alerts(health_t *self, call_t *call, const check_alerts_args_t *args,
                          check_alerts_reply_t *reply)
{
    store_txn_t *txn;
    (void)args;
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = alerts_list(txn, call_arena(call), false, &reply->alerts);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    for (size_t i = 0; i < reply->alerts.count; i++)
        reply->firing += !strcmp(reply->alerts.items[i].state, "firing");
    if (!strcmp(call_company(call), actor_default_company(self->actor)))
        reply->rules_error = rulesfile_error(self, call_arena(call));
    say_rules(call, reply);
    return err_ok();
}

static err_t alert_remove(health_t *self, call_t *call, const alert_remove_args_t *args,
                          alert_remove_reply_t *reply)
{
    store_txn_t *txn;
    alert_t alert;
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = alerts_load(txn, call_arena(call), args->id, &alert);
    if (!err_is(err) && alert.from_file)
        err = refuse_file_rule(call, &alert);
    if (!err_is(err))
        err = alerts_drop(self, call, call_company(call), txn, &alert);
    reply->removed = true;
    call_say(call, "Alert '%s' is removed.", args->id);
    return err;
}

static err_t silence_alert(health_t *self, call_t *call, const silence_alert_args_t *args,
                           silence_alert_reply_t *reply)
{
    store_txn_t *txn;
    alert_t *alert = ARENA_NEW(call_arena(call), alert_t);
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = alerts_load(txn, call_arena(call), args->id, alert);
    if (err_is(err))
        return err;
    alert->silenced_until = call_now_ms(call) + args->for_ms;
    alert->has_silenced_until = args->for_ms > 0;
    /* One that fires untold is told now, or when that is over. */
    err = alerts_set(self, call, call_company(call), txn, alert, NULL);
    if (!err_is(err))
        err = alerts_load(txn, call_arena(call), args->id, alert);
    alert_t *copy = ARENA_NEW(call_arena(call), alert_t);
    record_copy(&alert_record, alert, call_arena(call), copy);
    reply->alert = copy;
    if (args->for_ms)
        call_say(call, "Nobody is told that '%s' fires for %" PRId64 " s.", args->id,
                 args->for_ms / 1000);
    else
        call_say(call, "It is told again when '%s' fires.", args->id);
    return err;
}

/* ---- What began together ---- */

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

/* What the earlier system said of a group, once all its alerts are known. */
static void sum_up(arena_t *arena, alert_group_t *group)
{
    size_t count = group->alerts.count;
    buf_t line;
    buf_open(&line, arena);
    for (size_t i = 0; i < count; i++)
        buf_printf(&line, "%s%s (%s was %g)", i ? ", " : "", group->alerts.items[i].id,
                   group->alerts.items[i].series, group->alerts.items[i].value);
    group->summary = line.data;
    group->timestamp = record_time_text(arena, group->from);
    group->severity = count > 5 ? "high" : count > 2 ? "medium" : "low";
    group->id =
        arena_printf(arena, "%" PRId64 ":%s", group->from, group->alerts.items[count - 1].id);
}

static void say_groups(call_t *call, const alert_group_list_t *groups)
{
    buf_t text;
    buf_open(&text, call_arena(call));
    for (size_t i = 0; i < groups->count; i++) {
        sum_up(text.arena, &groups->items[i]);
        buf_printf(&text, "%s%s: %s", i ? "\n" : "", groups->items[i].timestamp,
                   groups->items[i].summary);
    }
    call_say_text(call, text.size ? text.data : "No alert has fired.");
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
    say_groups(call, &reply->groups);
    return err;
}
