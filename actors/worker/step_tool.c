/* step_tool: a step that calls a tool of one of our pillars. The effect's id is its idempotency
 * key: a repetition after a crash gets the first outcome. */
#include "actors/worker/slot.h"
#include "actors/worker/tools.h"
#include "proto/mp.h"

static err_t on_answer(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    step_t *step = ctx;
    (void)self;
    (void)reply;
    if (err_is(got->err))
        return slot_step_error(call, step, err_what(got->err), err_info(got->err.code)->retry);
    return slot_step_ok(call, step, got->body);
}

static err_t call_found(call_t *call, void *ctx)
{
    step_t *step = ctx;
    const perform_t *perform = &step->perform;
    const tool_t *tool = tools_find(step->slot->worker->tools, perform->tool);
    if (!tool)
        return slot_step_error(
            call, step, arena_printf(call_arena(call), "there is no tool '%s'", perform->tool),
            false);
    if (perform->simulate && !tool->reads)
        return slot_step_error(call, step, "the run is simulated and the tool changes something",
                               false);
    const char **companies = ARENA_ARRAY(call_arena(call), const char *, 1);
    companies[0] = arena_strdup(call_arena(call), step->slot->company);
    peer_call_t request = {.peer = tool->pillar,
                           .method = tool->name,
                           .args = perform->args,
                           .company = step->slot->company,
                           .key = tool->reads ? NULL : perform->effect_id,
                           .timeout_ms = perform->timeout_ms,
                           .principal = arena_printf(call_arena(call), "run:%s", step->slot->id),
                           .role = ROLE_OPERATOR,
                           .companies = {companies, 1}};
    call_peer(call, &request, on_answer, step);
    return call_park(call);
}

static err_t look_again(call_t *call, void *ctx)
{
    step_t *step = ctx;
    worker_t *worker = step->slot->worker;
    if (tools_find(worker->tools, step->perform.tool))
        return call_found(call, step);
    return tools_then(call, worker, true, call_found, step);
}

err_t step_tool_perform(call_t *call, step_t *step)
{
    if (!step->perform.tool)
        return slot_step_error(call, step, "the step names no tool", false);
    return tools_then(call, step->slot->worker, false, look_again, step);
}

/* ---- Simulated runs ---- */

typedef struct simulated {
    step_t *step;
    err_t (*fn)(call_t *call, step_t *step);
    bool asked; /* the pillars, once more */
} simulated_t;

static err_t judge(call_t *call, void *ctx)
{
    simulated_t *simulated = ctx;
    step_t *step = simulated->step;
    worker_t *worker = step->slot->worker;
    const tool_t *tool = tools_find(worker->tools, step->perform.tool);
    if (!tool && !simulated->asked) {
        simulated->asked = true;
        return tools_then(call, worker, true, judge, simulated);
    }
    if (tool && !tool->reads)
        return slot_step_refused(
            call, step,
            arena_printf(call_arena(call), "the tool %s changes something", tool->name));
    return simulated->fn(call, step);
}

err_t step_tool_simulate(call_t *call, step_t *step, err_t (*fn)(call_t *call, step_t *step))
{
    if (!step->perform.tool)
        return slot_step_refused(call, step, "the step names no tool");
    simulated_t *simulated = ARENA_NEW(call_arena(call), simulated_t);
    *simulated = (simulated_t){.step = step, .fn = fn};
    return tools_then(call, step->slot->worker, false, judge, simulated);
}
