/* measure: what every actor counts. Its labels are the actor, its methods and two outcomes. */
#include <string.h>

#include "bus/inside.h"

enum { BUCKETS = 11 };

/* Method times are kept by powers of two of a microsecond; these are every second one of them. */
static const int bucket_ends[BUCKETS] = {5, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22};

static void put_durations(const method_stats_t *stats, const char *const *labels, metrics_t *out)
{
    double bounds[BUCKETS];
    uint64_t counts[BUCKETS + 1] = {0};
    for (int i = 0, from = 0; i < BUCKETS; from = bucket_ends[i++] + 1) {
        bounds[i] = (double)((uint64_t)1 << bucket_ends[i]) / 1e6;
        for (int j = from; j <= bucket_ends[i]; j++)
            counts[i] += stats->buckets[j];
    }
    counts[BUCKETS] = stats->buckets[23];
    metrics_put_histogram(out, bounds, counts, BUCKETS, (double)stats->total_us / 1e6, labels);
}

static const method_t *method_at(const actor_t *actor, int index)
{
    return index < actor->method_count ? &actor->methods[index]
                                       : &inside_builtins[index - actor->method_count];
}

static void put_calls(actor_t *actor, metrics_t *out)
{
    int total = actor->method_count + inside_builtin_count();
    const char *labels[] = {"actor", actor->instance, "method", NULL, "outcome", NULL, NULL};
    metrics_family(out, "agency_calls", METRIC_COUNTER, "Calls answered, by outcome.");
    for (int i = 0; i < total; i++) {
        const method_stats_t *stats = &actor->stats[i];
        if (!stats->calls)
            continue;
        labels[3] = method_at(actor, i)->name;
        labels[5] = "ok";
        metrics_put(out, (double)(stats->calls - stats->errors), labels);
        labels[5] = "error";
        metrics_put(out, (double)stats->errors, labels);
    }
    labels[4] = NULL;
    metrics_family(out, "agency_call_duration_seconds", METRIC_HISTOGRAM,
                   "Time from the arrival of a call to its answer.");
    for (int i = 0; i < total; i++)
        if (actor->stats[i].calls) {
            labels[3] = method_at(actor, i)->name;
            put_durations(&actor->stats[i], labels, out);
        }
}

static void put_one(metrics_t *out, const actor_t *actor, const char *name, metric_kind_t kind,
                    const char *help, double value)
{
    const char *labels[] = {"actor", actor->instance, NULL};
    metrics_family(out, name, kind, help);
    metrics_put(out, value, labels);
}

static void put_store(metrics_t *out, const actor_t *actor)
{
    put_one(out, actor, "agency_actor_epoch", METRIC_GAUGE, "Lives of its store so far.",
            (double)actor->epoch);
    put_one(out, actor, "agency_store_commits", METRIC_COUNTER, "Transactions committed.",
            (double)actor->commits);
    put_one(out, actor, "agency_store_commit_seconds", METRIC_COUNTER,
            "Time spent in commits with their syncs.", (double)actor->commit_us / 1e6);
    put_one(out, actor, "agency_audit_unrecorded", METRIC_COUNTER,
            "Calls that should be in the audit log and are not.", (double)actor->unrecorded);
    put_one(out, actor, "agency_store_environments_open", METRIC_GAUGE,
            "Companies whose store is open.", store_pool_open_count(actor->pool));
}

void actor_measure(actor_t *actor, call_t *call, metrics_t *out)
{
    loop_lag_t lag;
    actor->env->ops->lag(actor->env, &lag);
    put_one(out, actor, "agency_actor_start_time_seconds", METRIC_GAUGE,
            "When this life of the actor began, since 1970.", (double)actor->started_ms / 1000);
    if (actor->pool)
        put_store(out, actor);
    put_one(out, actor, "agency_actor_inbox", METRIC_GAUGE, "Calls waiting, parked or being read.",
            actor->live);
    put_one(out, actor, "agency_actor_draining", METRIC_GAUGE, "1: it takes no new work.",
            actor->draining);
    put_one(out, actor, "agency_actor_loop_turn_max_seconds", METRIC_GAUGE,
            "The longest turn of its loop in the last one to two minutes.",
            (double)lag.worst_us / 1e6);
    put_one(out, actor, "agency_actor_batches", METRIC_COUNTER, "Batches run.",
            (double)actor->batches);
    put_one(out, actor, "agency_bus_malformed_frames", METRIC_COUNTER,
            "Frames dropped because they made no sense.", (double)actor->malformed);
    put_one(out, actor, "agency_bus_refused_calls", METRIC_COUNTER,
            "Calls refused because the inbox was full.", (double)actor->dropped_busy);
    put_one(out, actor, "agency_bus_repeated_calls", METRIC_COUNTER,
            "Repeated calls answered with their first outcome.", (double)actor->duplicates);
    put_one(out, actor, "agency_bus_events", METRIC_COUNTER, "Events published.",
            (double)actor->event_seq);
    put_calls(actor, out);
    if (actor->def->measure)
        actor->def->measure(actor->self, call, out);
}

bool actor_turns(actor_t *actor, int64_t *lag_us)
{
    loop_lag_t lag;
    actor->env->ops->lag(actor->env, &lag);
    *lag_us = lag.now_us;
    return lag.now_us < lag.limit_us;
}
