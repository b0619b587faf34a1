/* rulesfile: alert rules that users keep in a file on the volume, alert_rules.json:
 *
 *     [{"id": "slow", "metric": "latency", "operator": ">", "threshold": 5, "for_ms": 60000,
 *       "contact": "https://example.org/hook", "company": "acme"}]
 *
 * When it changes they are brought into the stores of their companies, all in one commit; there
 * they live as those of alert_on_threshold do. A file that is wrong changes nothing. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/health/health.h"
#include "proto/frame.h"

enum { MOST_RULES = 4096 };

#define alert_rule_FIELDS(F)                                                                       \
    F(STR, id, opt(), 1, 128, "Id of the rule; absent: made up.")                                  \
    F(STR, metric, must, 1, 330, "Name of the metric, or agent:metric.")                           \
    F(STR, operator, must, 1, 8, "> >= < <= == or !=; also gt gte lt lte eq ne.")                  \
    F(REAL, threshold, must, 0, 0, "What the last value is held against.")                         \
    F(INT, for_ms, opt(0), 0, 604800000, "It must hold for so long before it fires.")              \
    F(STR, contact, opt(), 1, 4096, "URL of a webhook; absent: the one of the settings.")          \
    F(STR, company, opt(), 1, 64, "Whose rule it is; absent: the default company's.")
RECORD(alert_rule, alert_rule_FIELDS)

static err_t alert_of(const alert_rule_t *rule, arena_t *arena, alert_t *out)
{
    *out = (alert_t){.id = rule->id,
                     .metric = rule->metric,
                     .operator= rule->operator,
                     .threshold = rule->threshold,
                     .for_ms = rule->for_ms,
                     .contact = rule->contact,
                     .state = "ok",
                     .from_file = true,
                     .has_from_file = true};
    return alerts_check(out, arena);
}

static err_t check_rule(const void *item, arena_t *arena)
{
    const alert_rule_t *rule = item;
    alert_t alert;
    if (rule->company && !frame_company_name(rule->company))
        return err_of(
            ERR_ARGUMENT,
            "company must have 1 to 64 letters, digits, '-' or '_', beginning with a letter or "
            "digit");
    return alert_of(rule, arena, &alert);
}

static const listfile_kind_t kind = {&alert_rule_record, MOST_RULES, check_rule};

err_t rulesfile_parse(const char *text, size_t size, arena_t *arena, record_list_t *out)
{
    return listfile_parse(&kind, text, size, arena, out);
}

/* ---- Can all of it be taken? ---- */

typedef struct wanted {
    const char *company;
    alert_t alert;
} wanted_t;

typedef struct wanted_list {
    wanted_t *items;
    size_t count;
} wanted_list_t;

static wanted_list_t what_is_wanted(const health_t *self, call_t *call)
{
    const alert_rule_t *rules = self->rules.items;
    wanted_list_t list = {ARENA_ARRAY(call_arena(call), wanted_t, self->rules.count + 1), 0};
    for (; list.count < self->rules.count; list.count++) {
        const alert_rule_t *rule = &rules[list.count];
        wanted_t *wanted = &list.items[list.count];
        wanted->company = rule->company ? rule->company : actor_default_company(self->actor);
        alert_of(rule, call_arena(call), &wanted->alert); /* was checked */
    }
    return list;
}

static const char *find_twin(const wanted_list_t *list, arena_t *arena)
{
    for (size_t i = 0; i < list->count; i++)
        for (size_t j = i + 1; j < list->count; j++)
            if (!strcmp(list->items[i].alert.id, list->items[j].alert.id) &&
                !strcmp(list->items[i].company, list->items[j].company))
                return arena_printf(arena, "rules %zu and %zu have the same id '%s'", i + 1, j + 1,
                                    list->items[i].alert.id);
    return NULL;
}

/* NULL: no objection. */
static const char *objection(const health_t *self, call_t *call, const wanted_list_t *list)
{
    arena_t *arena = call_arena(call);
    const char *twin = find_twin(list, arena);
    for (size_t i = 0; i < list->count && !twin; i++) {
        store_txn_t *txn;
        alert_t old;
        const char *id = list->items[i].alert.id;
        int64_t count = 0;
        if (!err_is(call_read(call, list->items[i].company, &txn)) &&
            !err_is(alerts_load(txn, arena, id, &old)) && !old.from_file)
            return arena_printf(arena,
                                "rule %zu: alert_on_threshold has set a rule '%s' already; remove "
                                "that with alert_remove, or take another id",
                                i + 1, id);
        for (size_t j = 0; j <= i; j++)
            count += !strcmp(list->items[j].company, list->items[i].company);
        if (count > self->settings->max_alerts)
            return arena_printf(arena, "%s has more than health.max_alerts (%" PRId64 ") rules",
                                list->items[i].company, self->settings->max_alerts);
    }
    return twin;
}

/* ---- Bringing them in ---- */

static const wanted_t *find_wanted(const wanted_list_t *list, const char *company, const char *id)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].company, company) && !strcmp(list->items[i].alert.id, id))
            return &list->items[i];
    return NULL;
}

static bool is_same(const alert_t *old, const alert_t *new)
{
    const char *one = old->contact ? old->contact : "", *other = new->contact ? new->contact : "";
    return old->from_file && !strcmp(old->metric, new->metric) &&
           !strcmp(old->operator, new->operator) && old->threshold == new->threshold &&
           old->for_ms == new->for_ms && !strcmp(one, other);
}

static err_t drop_gone(health_t *self, call_t *call, const char *company, const alert_list_t *old,
                       const wanted_list_t *list)
{
    store_txn_t *txn;
    err_t err = err_ok();
    for (size_t i = 0; i < old->count && !err_is(err); i++) {
        if (!old->items[i].from_file || find_wanted(list, company, old->items[i].id))
            continue;
        err = call_write(call, company, &txn);
        if (!err_is(err))
            err = alerts_drop(self, call, company, txn, &old->items[i]);
    }
    return err;
}

static const alert_t *find_old(const alert_list_t *old, const char *id)
{
    for (size_t i = 0; i < old->count; i++)
        if (!strcmp(old->items[i].id, id))
            return &old->items[i];
    return NULL;
}

static err_t bring(health_t *self, call_t *call, const char *company, const wanted_list_t *list)
{
    store_txn_t *txn;
    alert_list_t old = {0};
    err_t err = call_read(call, company, &txn);
    if (!err_is(err))
        err = alerts_list(txn, call_arena(call), false, &old);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    err = drop_gone(self, call, company, &old, list);
    alert_pair_t *pairs = ARENA_ARRAY(call_arena(call), alert_pair_t, list->count + 1);
    size_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        wanted_t *wanted = &list->items[i];
        const alert_t *before = find_old(&old, wanted->alert.id);
        if (!strcmp(wanted->company, company) && !(before && is_same(before, &wanted->alert)))
            pairs[count++] = (alert_pair_t){&wanted->alert, before};
    }
    if (!count || err_is(err))
        return err;
    err = call_write(call, company, &txn);
    return err_is(err) ? err : alerts_set_all(self, call, company, txn, pairs, count);
}

/* Each company once: those that have a store, and those that get one by a rule. */
static err_t bring_all(health_t *self, call_t *call, const wanted_list_t *list)
{
    strs_t stores;
    err_t err = call_companies(call, &stores);
    for (size_t i = 0; i < stores.count && !err_is(err); i++)
        err = bring(self, call, stores.items[i], list);
    for (size_t i = 0; i < list->count && !err_is(err); i++) {
        bool done = false;
        for (size_t j = 0; j < stores.count && !done; j++)
            done = !strcmp(stores.items[j], list->items[i].company);
        for (size_t j = 0; j < i && !done; j++)
            done = !strcmp(list->items[j].company, list->items[i].company);
        if (!done)
            err = bring(self, call, list->items[i].company, list);
    }
    return err;
}

/* Unless a newer list has come in between. */
static void forget_rules(void *state, void *ctx)
{
    health_t *self = state;
    if (self->rules_arena != ctx)
        return;
    arena_destroy(&self->rules_arena);
    self->rules = (record_list_t){0};
}

/* Fails where the disk is full, and is run again until it is not. */
static err_t take_rules(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    (void)ctx;
    if (!self->rules_arena)
        return err_ok();
    wanted_list_t list = what_is_wanted(self, call);
    const char *why = objection(self, call, &list);
    call_after_commit(call, forget_rules, self->rules_arena);
    if (why) {
        listfile_refuse(self->rules_file, why);
        call_log(call, LOG_ERROR, "the alert rules stay as they were: %s",
                 listfile_error(self->rules_file));
        return err_ok();
    }
    if (list.count)
        call_log(call, LOG_INFO, "%zu alert rules of the file are in force", list.count);
    return bring_all(self, call, &list);
}

/* Memory only, so that it never fails. */
static err_t look(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    arena_t *arena;
    record_list_t list;
    const char *before = rulesfile_error(self, call_arena(call));
    call_work(call, self->settings->poll_ms, look, ctx);
    if (listfile_look(self->rules_file, &arena, &list)) {
        arena_destroy(&self->rules_arena);
        self->rules_arena = arena;
        self->rules = list;
        call_work(call, 0, take_rules, NULL);
    }
    const char *after = listfile_error(self->rules_file);
    if (after && (!before || strcmp(before, after) != 0))
        call_log(call, LOG_ERROR, "the alert rules stay as they were: %s", after);
    return err_ok();
}

const char *rulesfile_error(const health_t *self, arena_t *arena)
{
    const char *error = listfile_error(self->rules_file);
    return error ? arena_strdup(arena, error) : NULL;
}

void rulesfile_open(health_t *self, call_t *call)
{
    const char *path = self->settings->rules_file;
    if (!path)
        path = arena_printf(call_arena(call), "%s/alert_rules.json", actor_data_dir(self->actor));
    self->rules_file = listfile_new(&kind, path);
    call_work(call, 0, look, NULL);
}

void rulesfile_close(health_t *self)
{
    listfile_destroy(&self->rules_file);
    arena_destroy(&self->rules_arena);
}
