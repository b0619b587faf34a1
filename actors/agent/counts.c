#include "actors/agent/counts.h"

#include <stdlib.h>

#include "actors/agent/run_state.h"

enum { STEP_BUCKETS = 10 };

static const double step_bounds[STEP_BUCKETS] = {0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800};

struct counts {
    uint64_t tasks[task_state_COUNT], steps[run_step_state_COUNT], effects[effect_state_COUNT];
    uint64_t runs[2], tokens; /* runs: failed, completed */
    uint64_t step_buckets[STEP_BUCKETS + 1];
    double step_seconds;
};

counts_t *counts_new(void)
{
    counts_t *counts = calloc(1, sizeof(*counts));
    if (!counts)
        abort();
    return counts;
}

void counts_destroy(counts_t **counts)
{
    free(*counts);
    *counts = NULL;
}

/* What a commit will add. Lives in the arena of the call. */
typedef struct addition {
    uint64_t *counter, by;
} addition_t;

static void add(void *self, void *ctx)
{
    const addition_t *addition = ctx;
    (void)self;
    *addition->counter += addition->by;
}

static counts_t *counts_of(call_t *call)
{
    return ((agent_t *)call_self(call))->counts;
}

static void add_later(call_t *call, uint64_t *counter, uint64_t by)
{
    addition_t *addition = ARENA_NEW(call_arena(call), addition_t);
    *addition = (addition_t){counter, by};
    call_after_commit(call, add, addition);
}

void counts_task(call_t *call, int state)
{
    add_later(call, &counts_of(call)->tasks[state], 1);
}

typedef struct step_done {
    int state;
    double seconds;
} step_done_t;

static void add_step(void *self, void *ctx)
{
    counts_t *counts = ((agent_t *)self)->counts;
    const step_done_t *done = ctx;
    int bucket = 0;
    while (bucket < STEP_BUCKETS && done->seconds > step_bounds[bucket])
        bucket++;
    counts->steps[done->state]++;
    counts->step_buckets[bucket]++;
    counts->step_seconds += done->seconds;
}

void counts_step(call_t *call, int state, int64_t duration_ms)
{
    step_done_t *done = ARENA_NEW(call_arena(call), step_done_t);
    *done = (step_done_t){state, (double)duration_ms / 1000};
    call_after_commit(call, add_step, done);
}

void counts_effect(call_t *call, int state)
{
    add_later(call, &counts_of(call)->effects[state], 1);
}

void counts_run(call_t *call, bool completed, int64_t tokens)
{
    counts_t *counts = counts_of(call);
    add_later(call, &counts->runs[completed], 1);
    add_later(call, &counts->tokens, tokens > 0 ? (uint64_t)tokens : 0);
}

static void put_states(metrics_t *out, const char *name, const char *help, const uint64_t *values,
                       const char *const *names, int count)
{
    const char *labels[] = {"state", NULL, NULL};
    metrics_family(out, name, METRIC_COUNTER, help);
    for (int i = 0; i < count; i++) {
        labels[1] = names[i];
        metrics_put(out, (double)values[i], labels);
    }
}

void counts_measure(const counts_t *counts, metrics_t *out)
{
    static const char *const outcomes[] = {"failed", "completed"};
    put_states(out, "agency_task_transitions", "How often a task came into a state.", counts->tasks,
               task_state_names, task_state_COUNT);
    put_states(out, "agency_steps", "Steps of runs that ended, by state.", counts->steps,
               run_step_state_names, run_step_state_COUNT);
    put_states(out, "agency_effects", "Effects of steps, by the state they came into.",
               counts->effects, effect_state_names, effect_state_COUNT);
    put_states(out, "agency_runs", "Runs that ended, by outcome.", counts->runs, outcomes, 2);
    metrics_counter(out, "agency_run_tokens", "Tokens used by runs that ended.",
                    (double)counts->tokens);
    metrics_family(out, "agency_step_duration_seconds", METRIC_HISTOGRAM,
                   "Time that steps took to perform.");
    metrics_put_histogram(out, step_bounds, counts->step_buckets, STEP_BUCKETS,
                          counts->step_seconds, NULL);
}
