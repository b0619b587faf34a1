/* own: what the pillars count and measure becomes metrics of the default company, so that reports,
 * alerts and predictions know it: agent is the actor, metric the name without agency_. */
#include <stdio.h>
#include <string.h>

#include "actors/health/health.h"
#include "actors/health/series.h"

enum { PILLAR_MS = 3000 };

const char *const own_pillars[OWN_PILLARS] = {"agent",   "brain",   "swarm",
                                              "elastic", "outside", "health"};

bool own_is_pillar(const char *agent)
{
    for (int i = 0; i < OWN_PILLARS; i++)
        if (!strcmp(agent, own_pillars[i]))
            return true;
    return false;
}

#define measured_FIELDS(F) F(LIST(metric_family), families, must, 0, 0, "What it measures.")
RECORD(measured, measured_FIELDS)

static err_t observe(void *state, call_t *call, void *ctx);

/* Of use to Prometheus, and in the way of people who read a report. */
static bool is_plumbing(const char *name)
{
    static const char *const some[] = {"actor_start_time_seconds", "actor_epoch", "actor_batches",
                                       "actor_draining", "store_environments_open"};
    for (size_t i = 0; i < sizeof(some) / sizeof(*some); i++)
        if (!strcmp(name, some[i]))
            return true;
    return !strncmp(name, "bus_", 4);
}

/* How the work went is in one family by state; people chart these two. */
static bool is_outcome(const metric_family_t *family, const metric_sample_t *sample)
{
    return !strcmp(family->name, "agency_task_transitions") && sample->labels.count == 2 &&
           (!strcmp(sample->labels.items[1], "completed") ||
            !strcmp(sample->labels.items[1], "failed"));
}

/* task_transitions_completed; otherwise the family's name. */
static const char *name_of(arena_t *arena, const metric_family_t *family,
                           const metric_sample_t *sample)
{
    const char *name = family->name;
    if (!strncmp(name, "agency_", 7))
        name += 7;
    return is_outcome(family, sample) ? arena_printf(arena, "%s_%s", name, sample->labels.items[1])
                                      : name;
}

/* One value a name: no labels but the actor, or an outcome. NULL: this sample is of another kind.
 */
static const char *agent_of(const metric_family_t *family, const metric_sample_t *sample,
                            const char *pillar)
{
    if (sample->suffix)
        return NULL;
    if (!sample->labels.count || is_outcome(family, sample))
        return pillar;
    return sample->labels.count == 2 && !strcmp(sample->labels.items[0], "actor")
               ? sample->labels.items[1]
               : NULL;
}

bool own_is_counter(const health_t *self, const char *agent, const char *metric)
{
    bool found = false;
    for (size_t i = 0; i < self->counter_count && !found; i++)
        found = !strcmp(self->counters[i], metric);
    return found && own_is_pillar(agent);
}

static void note_counter(health_t *self, const char *pillar, const char *name)
{
    if (self->counter_count == COUNTERS_MOST || own_is_counter(self, pillar, name))
        return;
    snprintf(self->counters[self->counter_count++], sizeof(self->counters[0]), "%s", name);
}

static err_t keep(health_t *self, call_t *call, const metric_family_list_t *list,
                  const char *pillar)
{
    store_txn_t *txn;
    const char *company = actor_default_company(self->actor);
    err_t err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    series_batch_t *batch = series_batch_new(call, txn, self->settings->max_series);
    for (size_t i = 0; i < list->count; i++) {
        const metric_family_t *family = &list->items[i];
        for (size_t j = 0; j < family->samples.count && !err_is(err); j++) {
            const metric_sample_t *sample = &family->samples.items[j];
            const char *name = name_of(call_arena(call), family, sample);
            point_t point = {agent_of(family, sample, pillar), name, sample->value,
                             call_now_ms(call)};
            if (!point.agent || is_plumbing(name))
                continue;
            if (family->kind == METRIC_COUNTER)
                note_counter(self, pillar, name);
            err = series_batch_add(batch, &point);
        }
    }
    if (!err_is(err))
        err = series_batch_write(batch);
    return err_is(err) ? err : alerts_touched(self, call, company, txn, batch);
}

static err_t on_measured(void *state, call_t *call, void *reply, const peer_answer_t *got,
                         void *ctx)
{
    health_t *self = state;
    const char *pillar = ctx;
    measured_t measured;
    (void)reply;
    if (err_is(got->err))
        return err_ok(); /* it is away: its series has a gap */
    err_t err = record_decode(&measured_record, got->body, call_arena(call), "field", &measured);
    return err_is(err) ? err : keep(self, call, &measured.families, pillar);
}

static err_t ask(void *state, call_t *call, void *ctx)
{
    const char *pillar = ctx;
    (void)state;
    peer_call_t request = {.peer = pillar,
                           .method = arena_printf(call_arena(call), "%s.metrics", pillar),
                           .timeout_ms = PILLAR_MS};
    call_peer(call, &request, on_measured, ctx);
    return call_park(call);
}

static err_t observe(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    for (int i = 0; i < OWN_PILLARS; i++)
        if (strcmp(own_pillars[i], "health") != 0) /* one does not call oneself */
            call_work(call, 0, ask, (void *)own_pillars[i]);
    call_work(call, self->settings->observe_ms, observe, ctx);
    return err_ok();
}

void own_open(health_t *self, call_t *call)
{
    if (self->settings->observe_ms)
        call_work(call, 0, observe, NULL);
}
