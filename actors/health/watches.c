#include "actors/health/watches.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 512 };

struct watches {
    watch_t *first;
    ear_t *buckets[BUCKETS];
    int64_t next_due_ms;
};

static char *copy(const char *text, size_t size)
{
    char *out = strndup(text, size);
    if (!out)
        abort();
    return out;
}

static size_t bucket_of(const char *metric)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (; *metric; metric++)
        hash = (hash ^ (uint8_t)*metric) * 16777619U;
    return hash % BUCKETS;
}

static void add_ear(watches_t *watches, watch_t *watch, const char *agent, size_t agent_size,
                    const char *metric)
{
    ear_t *ear = calloc(1, sizeof(*ear));
    if (!ear)
        abort();
    *ear = (ear_t){.watch = watch,
                   .agent = agent ? copy(agent, agent_size) : NULL,
                   .metric = copy(metric, strlen(metric))};
    ear_t **bucket = &watches->buckets[bucket_of(metric)];
    ear->next = *bucket;
    *bucket = ear;
}

watch_t *watches_find(const watches_t *watches, const char *id)
{
    watch_t *watch = watches->first;
    while (watch && strcmp(watch->id, id) != 0)
        watch = watch->next;
    return watch;
}

/* `watch` NULL: a new one. */
static watch_t *add_watch(watches_t *watches, watch_t *watch, const alert_t *alert)
{
    const char *colon = strchr(alert->metric, ':');
    if (!watch) {
        watch = calloc(1, sizeof(*watch));
        if (!watch)
            abort();
        watch->id = copy(alert->id, strlen(alert->id));
        watch->next = watches->first;
        watches->first = watch;
    }
    add_ear(watches, watch, NULL, 0, alert->metric);
    if (colon)
        add_ear(watches, watch, alert->metric, (size_t)(colon - alert->metric), colon + 1);
    return watch;
}

watch_t *watches_first(const watches_t *watches)
{
    return watches->first;
}

ear_t *watches_next(const watches_t *watches, const series_t *series, ear_t *last)
{
    ear_t *ear = last ? last->next : watches->buckets[bucket_of(series->metric)];
    while (ear && (strcmp(ear->metric, series->metric) != 0 ||
                   (ear->agent && strcmp(ear->agent, series->agent) != 0)))
        ear = ear->next;
    return ear;
}

static void know(watch_t *watch, const series_t *series)
{
    if (watch->series.count == watch->series.capacity) {
        watch->series.capacity = watch->series.capacity ? 2 * watch->series.capacity : 2;
        watch->series.items = realloc(watch->series.items, watch->series.capacity * sizeof(char *));
        if (!watch->series.items)
            abort();
    }
    char **name = &watch->series.items[watch->series.count++];
    if (asprintf(name, "%s:%s", series->agent, series->metric) < 0)
        abort();
}

void watches_meet(watch_t *watch, const series_t *series)
{
    if (series->fresh)
        know(watch, series);
}

/* What waited when the last life ended goes on waiting. */
static void wait_on(watches_t *watches, watch_t *watch, call_t *call, const alert_t *alert)
{
    int64_t now = call_now_ms(call), left = -1;
    if (!strcmp(alert->state, "pending"))
        left = alert->for_ms - (now - alert->since);
    else if (!strcmp(alert->state, "firing") && alert->has_told && !alert->told)
        left = alert->silenced_until - now;
    else
        return;
    if (left > alert->for_ms && !strcmp(alert->state, "pending"))
        left = alert->for_ms; /* the clock went back */
    watches_due(watches, watch, call, left);
}

err_t watches_build(call_t *call, store_txn_t *txn, watches_t **out)
{
    alert_list_t alerts;
    series_list_t list;
    err_t err = alerts_list(txn, call_arena(call), false, &alerts);
    if (!err_is(err))
        err = series_list(txn, call_arena(call), NULL, NULL, &list);
    if (err_is(err))
        return err;
    watches_t *watches = calloc(1, sizeof(*watches));
    if (!watches)
        abort();
    watches->next_due_ms = INT64_MAX;
    for (size_t i = 0; i < alerts.count; i++)
        wait_on(watches, add_watch(watches, NULL, &alerts.items[i]), call, &alerts.items[i]);
    for (size_t i = 0; i < list.count; i++)
        for (ear_t *ear = NULL; (ear = watches_next(watches, &list.items[i], ear));)
            know(ear->watch, &list.items[i]);
    *out = watches;
    return err_ok();
}

static bool listens(const watches_t *watches, const watch_t *watch, const char *metric)
{
    for (ear_t *ear = watches->buckets[bucket_of(metric)]; ear; ear = ear->next)
        if (ear->watch == watch && !ear->agent && !strcmp(ear->metric, metric))
            return true;
    return false;
}

err_t watches_add(watches_t *watches, call_t *call, store_txn_t *txn, const alert_t *alert,
                  watch_t **out)
{
    series_list_t list;
    watch_t *watch = *out = watches_find(watches, alert->id);
    if (!watch || !listens(watches, watch, alert->metric)) {
        err_t err = series_list(txn, call_arena(call), NULL, NULL, &list);
        if (err_is(err))
            return err;
        watch = *out = add_watch(watches, watch, alert);
        for (size_t i = 0; i < list.count; i++)
            if (series_is_named(alert->metric, &list.items[i]))
                know(watch, &list.items[i]);
    }
    wait_on(watches, watch, call, alert);
    return err_ok();
}

void watches_destroy(watches_t **handle)
{
    watches_t *watches = *handle;
    if (!watches)
        return;
    for (int i = 0; i < BUCKETS; i++)
        while (watches->buckets[i]) {
            ear_t *gone = watches->buckets[i];
            watches->buckets[i] = gone->next;
            free(gone->agent);
            free(gone->metric);
            free(gone);
        }
    while (watches->first) {
        watch_t *gone = watches->first;
        watches->first = gone->next;
        for (size_t i = 0; i < gone->series.count; i++)
            free(gone->series.items[i]);
        free(gone->series.items);
        free(gone->id);
        free(gone);
    }
    free(watches);
    *handle = NULL;
}

/* ---- Who waits ---- */

static int64_t mono(call_t *call)
{
    return actor_mono_us(call_actor(call)) / 1000;
}

void watches_due(watches_t *watches, watch_t *watch, call_t *call, int64_t in_ms)
{
    watch->due_ms = mono(call) + (in_ms > 0 ? in_ms : 0);
    if (watch->due_ms < watches->next_due_ms)
        watches->next_due_ms = watch->due_ms;
}

bool watches_is_due(const watch_t *watch, call_t *call)
{
    return watch->due_ms && watch->due_ms <= mono(call);
}

int64_t watches_next_due(const watches_t *watches)
{
    return watches->next_due_ms;
}

void watches_plan(watches_t *watches, call_t *call, int64_t retry_ms)
{
    int64_t now = mono(call);
    watches->next_due_ms = INT64_MAX;
    for (watch_t *watch = watches->first; watch; watch = watch->next) {
        int64_t next = watch->due_ms > now ? watch->due_ms : now + retry_ms;
        if (watch->due_ms && next < watches->next_due_ms)
            watches->next_due_ms = next;
    }
}
