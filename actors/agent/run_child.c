/* A procedure within a procedure. The run of the inner one is a run of its own: it has its task,
 * its journal and its version, and nobody holds a worker while the outer one waits for it. What
 * ties them together is the effect of the outer step, which is dispatched in the commit that
 * submits the inner run, and the parent that the inner run's task names: its end makes the outer
 * task ready. */
#include <inttypes.h>
#include <string.h>

#include "actors/agent/run_drive.h"
#include "bus/digest.h"
#include "proto/mp.h"

enum { RUN_ATTEMPTS = 1 /* steps have their own retries */, RUN_TIMEOUT_MS = 24 * 3600 * 1000 };

/* ---- beginning a run ---------------------------------------------------------------------- */

static void fill_row(call_t *call, const run_new_t *new, run_row_t *row)
{
    const sop_t *sop = new->version->sop;
    const run_t *parent = new->parent;
    *row = (run_row_t){.sop = new->version->name,
                       .hash = new->version->hash,
                       .title = sop->title,
                       .input = new->input,
                       .simulate = new->simulate,
                       .soul = new->soul,
                       .created_ms = call_now_ms(call),
                       .parent = parent ? parent->id : NULL,
                       .depth = parent ? parent->row.depth + 1 : 0};
    run_budgets(row, sop);
    row->asked = run_is_tool(row); /* needs no experience */
}

err_t run_begin(agent_t *agent, call_t *call, const run_new_t *new, const char **id, bool *existed)
{
    const sop_t *sop = new->version->sop;
    task_new_t task = {.kind = "sop",
                       .sop = new->version->name,
                       .input = new->input,
                       .priority = new->priority,
                       .max_attempts = RUN_ATTEMPTS,
                       .timeout_ms = sop->max_wall_ms ? sop->max_wall_ms : RUN_TIMEOUT_MS,
                       .idempotency_key = new->key,
                       .by = new->by,
                       .parent = new->parent ? new->parent->id : NULL};
    err_t err = tasks_submit(agent->tasks, call, &task, id, existed);
    if (err_is(err) || *existed)
        return err;
    run_t run = {.agent = agent, .call = call, .arena = call_arena(call), .id = *id, .sop = sop};
    fill_row(call, new, &run.row);
    err = call_write(call, call_company(call), &run.txn);
    return err_is(err) ? err : run_save(&run);
}

/* ---- budgets ------------------------------------------------------------------------------ */

static const char *over(run_t *run, const run_row_t *row, const char *whose, unsigned what)
{
    arena_t *arena = run->arena;
    if ((what & BUDGET_STEP) && row->max_steps && row->started >= row->max_steps)
        return arena_printf(arena, "the budget max_steps: %" PRId64 "%s is used up", row->max_steps,
                            whose);
    if (row->max_wall_ms && call_now_ms(run->call) - row->created_ms > row->max_wall_ms)
        return arena_printf(arena, "the budget max_wall of %" PRId64 " ms%s is used up",
                            row->max_wall_ms, whose);
    if ((what & BUDGET_CALL) && row->max_calls && row->calls >= row->max_calls)
        return arena_printf(arena, "the budget max_calls: %" PRId64 "%s is used up", row->max_calls,
                            whose);
    if ((what & BUDGET_TOKENS) && row->max_tokens && row->tokens >= row->max_tokens)
        return arena_printf(arena, "the budget max_tokens: %" PRId64 "%s is used up",
                            row->max_tokens, whose);
    return NULL;
}

/* The run that `row` is inside of. false: none, or forgotten. */
static bool above(run_t *run, const run_row_t *row, run_row_t *out)
{
    return row->parent && !err_is(run_row_load(run->call, run->txn, row->parent, out));
}

const char *run_over_budget(run_t *run, unsigned what)
{
    run_row_t row = run->row;
    const char *why = over(run, &row, "", what);
    while (!why) {
        const char *id = row.parent;
        if (!above(run, &row, &row))
            break;
        why = over(run, &row, arena_printf(run->arena, " of the run %s", id), what);
    }
    return why;
}

bool run_tokens_left(run_t *run, int64_t *left)
{
    bool any = false;
    run_row_t row = run->row;
    do {
        int64_t here = row.max_tokens - row.tokens;
        if (row.max_tokens && (!any || here < *left))
            *left = here;
        any = any || row.max_tokens;
    } while (above(run, &row, &row));
    return any;
}

/* ---- what a step began -------------------------------------------------------------------- */

err_t run_children(run_t *run, size_t index, const step_row_t *row, run_child_fn *fn, void *ctx)
{
    sop_kind_t kind = run->sop->steps[index].kind;
    bool each = kind == SOP_EACH;
    if (!row->attempt || (!each && kind != SOP_SOP))
        return err_ok();
    effect_row_t *effect = ARENA_NEW(run->arena, effect_row_t);
    for (int64_t at = each; at <= (each ? row->items : 0); at++) {
        err_t err = effect_load(run, index, row->attempt, at, effect);
        if (err.code == ERR_NOT_FOUND)
            break;
        if (!err_is(err) && effect->child)
            err = fn(run, effect, at, ctx);
        if (err_is(err))
            return err;
    }
    return err_ok();
}

static err_t stop_child(run_t *run, const effect_row_t *effect, int64_t at, void *ctx)
{
    task_t task;
    (void)at;
    if (effect->state != EFFECT_DISPATCHED)
        return err_ok();
    err_t err = tasks_get(run->agent->tasks, run->call, effect->child, &task);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    if (task.finished_ms)
        return err_ok();
    return tasks_cancel(run->agent->tasks, run->call, &task, ctx);
}

err_t run_stop_step(run_t *run, size_t index, const step_row_t *row, const char *why)
{
    return run_children(run, index, row, stop_child, (void *)(uintptr_t)why);
}

static err_t stop_children(agent_t *agent, call_t *call, const char *id)
{
    run_t *run = ARENA_NEW(call_arena(call), run_t);
    step_row_t row;
    err_t err = run_load(agent, call, id, true, run);
    if (err.code == ERR_NOT_FOUND ||
        err.code == ERR_ARGUMENT) /* no run, or nothing to read it by */
        return err_ok();
    if (err_is(err) || (size_t)run->row.at >= run->sop->step_count)
        return err;
    err = step_load(run, (size_t)run->row.at, &row);
    if (err_is(err))
        return err;
    return run_stop_step(run, (size_t)run->row.at, &row,
                         arena_printf(run->arena, "the run %s that began it has ended", id));
}

/* The entry may be that of leases that ran out, of all companies. */
err_t runs_stop_children(agent_t *agent, call_t *call, const char *company, const char *id)
{
    const char *before = call_company(call);
    call_for_company(call, company);
    err_t err = stop_children(agent, call, id);
    call_for_company(call, before);
    return err;
}

typedef struct need {
    const char *id, *why;
} need_t;

static err_t needs_child(run_t *run, const effect_row_t *effect, int64_t at, void *ctx)
{
    need_t *need = ctx;
    run_t child;
    (void)at;
    if (need->why || effect->state != EFFECT_DISPATCHED)
        return err_ok();
    err_t err = run_load(run->agent, run->call, effect->child, false, &child);
    if (err_is(err))
        return err_ok();
    if (child.task.state == TASK_INPUT_REQUIRED)
        *need = (need_t){child.id,
                         arena_printf(run->arena, "the run %s (%s) needs a person: %s", child.id,
                                      child.row.sop, child.task.why ? child.task.why : "")};
    else
        need->why = run_needs(&child, &need->id);
    return err_ok();
}

const char *run_needs(run_t *run, const char **id)
{
    step_row_t row;
    need_t need = {NULL, NULL};
    size_t index = (size_t)run->row.at;
    *id = NULL;
    if (run->task.state != TASK_WAITING_CHILD || index >= run->sop->step_count)
        return NULL;
    err_t err = step_load(run, index, &row);
    if (!err_is(err))
        err = run_children(run, index, &row, needs_child, &need);
    *id = err_is(err) ? NULL : need.id;
    return err_is(err) ? NULL : need.why;
}

/* ---- the run of a step -------------------------------------------------------------------- */

/* Is the procedure carried out further up, or is this too deep? NULL: neither. */
static const char *entangled(run_t *run, const char *name)
{
    const char *path = name;
    run_row_t row = run->row;
    int64_t deepest = run->agent->settings->sop_depth;
    do {
        path = arena_printf(run->arena, "%s → %s", row.sop, path);
        if (!strcmp(row.sop, name))
            return arena_printf(run->arena,
                                "the procedure '%s' is carried out already, further up (%s): a "
                                "procedure cannot be inside itself",
                                name, path);
    } while (above(run, &row, &row));
    if (run->row.depth + 1 < deepest)
        return NULL;
    return arena_printf(run->arena,
                        "the procedure '%s' would be number %" PRId64
                        " inside each other (%s), and agent.sop_depth allows %" PRId64,
                        name, run->row.depth + 2, path, deepest);
}

err_t run_procedure(run_t *run, const char *name, const char *hash, sops_version_t *version)
{
    err_t err = hash ? sops_by_hash(run->call, run->txn, hash, version)
                     : sops_current(run->call, name, version);
    version->name = name; /* the content may have come in under another one */
    const char *why = err_is(err) ? NULL : entangled(run, name);
    if (why)
        return err_make(run->arena, ERR_ARGUMENT, "%s", why);
    if (!err_is(err) && !version->sop)
        return err_make(run->arena, ERR_ARGUMENT, "the procedure '%s' cannot run: %s", name,
                        err_what(version->err));
    return err;
}

err_t run_begin_child(run_t *run, const sops_version_t *version, bytes_t given,
                      effect_row_t *effect)
{
    bool existed = false;
    bytes_t input;
    err_t err = sop_input(run->arena, version->sop, given, &input);
    if (err_is(err))
        return err_make(run->arena, err.code, "the procedure '%s': %s", version->name,
                        err_what(err));
    run_new_t new = {.version = version,
                     .input = input,
                     .priority = run->task.priority,
                     .key = arena_printf(run->arena, "run:%s", effect->effect_id),
                     .by = run->task.by,
                     .soul = run->row.soul,
                     .simulate = run->row.simulate,
                     .parent = run};
    err = run_begin(run->agent, run->call, &new, &effect->child, &existed);
    if (!err_is(err) && existed) /* with the journal of this very run it cannot be */
        err = err_make(run->arena, ERR_ARGUMENT, "the task %s took the key of the run",
                       effect->child);
    effect->state = EFFECT_DISPATCHED;
    return err;
}

/* The last step that a simulated run came to was refused: what it would end with nobody knows. */
static err_t ended_unknown(run_t *run, const char *id, bool *unknown)
{
    run_t child;
    step_row_t row = {.state = STEP_SKIPPED};
    err_t err = run_load(run->agent, run->call, id, false, &child);
    for (size_t i = err_is(err) ? 0 : child.sop->step_count;
         i && !err_is(err) && row.state == STEP_SKIPPED; i--)
        err = step_load(&child, i - 1, &row);
    *unknown = row.state == STEP_REFUSED;
    return err;
}

static err_t completed_child(run_t *run, const task_t *task, run_end_t *end)
{
    bytes_t inner;
    end->result = task->result;
    if (!run->row.simulate)
        return err_ok();
    if (mp_get(task->result, "result", &inner))
        end->result = inner;
    return ended_unknown(run, task->id, &end->unknown);
}

err_t run_child_end(run_t *run, const char *id, run_end_t *end)
{
    task_t task;
    run_row_t row;
    *end = (run_end_t){.over = true};
    err_t err = tasks_get(run->agent->tasks, run->call, id, &task);
    if (err.code == ERR_NOT_FOUND) {
        end->error = arena_printf(run->arena, "its run %s is forgotten", id);
        return err_ok();
    }
    if (!err_is(err))
        err = run_row_load(run->call, run->txn, id, &row);
    if (err_is(err))
        return err;
    end->over = task.finished_ms > 0;
    end->tokens = row.tokens;
    end->duration_ms = task.finished_ms - task.created_ms;
    if (task.state == TASK_COMPLETED)
        return completed_child(run, &task, end);
    const char *how = task.state == TASK_FAILED ? "" : task_state_names[task.state];
    end->error = arena_printf(run->arena, "the run %s (%s)%s%s: %s", id, row.sop,
                              *how ? " is " : "", how, task.error ? task.error : "it failed");
    return err_ok();
}

err_t run_wait_child(run_t *run, size_t index, step_row_t *row, const char *why,
                     run_perform_t *reply)
{
    row->state = STEP_WAITING;
    row->why = why;
    err_t err = step_save(run, index, row);
    if (!err_is(err))
        err = run_save(run);
    if (!err_is(err))
        err = tasks_wait_child(run->agent->tasks, run->call, &run->task, why);
    reply->action = "wait";
    reply->why = why;
    return err;
}

/* ---- sop ---------------------------------------------------------------------------------- */

static err_t prepare(run_t *run, size_t index, sops_version_t *version, bytes_t *given)
{
    const sop_step_t *step = &run->sop->steps[index];
    values_t values;
    buf_t args;
    buf_open(&args, run->arena);
    err_t err = run_values(run, index, &values);
    if (!err_is(err))
        err = values_tree(run->arena, &values, step->args, &args);
    *given = buf_bytes(&args);
    return err_is(err) ? err : run_procedure(run, step->procedure, NULL, version);
}

static err_t wait_for(run_t *run, size_t index, step_row_t *row, const effect_row_t *effect,
                      run_perform_t *reply)
{
    return run_wait_child(run, index, row,
                          arena_printf(run->arena, "waits for the run %s of '%s'", effect->child,
                                       run->sop->steps[index].procedure),
                          reply);
}

err_t run_sop_begin(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    sops_version_t version;
    bytes_t given = {0};
    effect_row_t effect = {.replay = "safe",
                           .tool = run->sop->steps[index].procedure,
                           .effect_id = effect_name(run, index, row->attempt + 1, 0),
                           .intended_ms = call_now_ms(run->call)};
    err_t err = prepare(run, index, &version, &given);
    if (!err_is(err))
        err = run_begin_child(run, &version, given, &effect);
    if (err.code == ERR_QUOTA)
        return run_no_room(run, index, row, err_what(err), reply);
    if (run_misfit(run, err))
        return run_fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    effect.args_hash = digest_hex(run->arena, given);
    row->attempt++;
    row->started_ms = call_now_ms(run->call);
    row->until_ms = row->finished_ms = 0;
    row->input = given;
    row->by = NULL;
    run->row.started++;
    err = effect_save(run, index, row->attempt, 0, &effect);
    return err_is(err) ? err : wait_for(run, index, row, &effect, reply);
}

err_t run_sop_go_on(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    effect_row_t effect;
    run_end_t end;
    err_t err = effect_load(run, index, row->attempt, 0, &effect);
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_CORRUPT, "a step without its effect");
    if (!err_is(err))
        err = run_child_end(run, effect.child, &end);
    if (err_is(err))
        return err;
    if (!end.over)
        return wait_for(run, index, row, &effect, reply);
    effect.state = end.error ? EFFECT_FAILED : end.unknown ? EFFECT_REFUSED : EFFECT_COMMITTED;
    effect.error = end.error;
    effect.finished_ms = call_now_ms(run->call);
    row->tokens += end.tokens;
    row->duration_ms += end.duration_ms;
    err = effect_save(run, index, row->attempt, 0, &effect);
    if (err_is(err))
        return err;
    if (end.error)
        return run_step_failed(run, index, row, end.error, reply);
    if (end.unknown)
        return run_step_refused(run, index, row, row->input,
                                arena_printf(run->arena,
                                             "the simulated run %s ended with a refused step: its "
                                             "result is not known",
                                             effect.child));
    return run_step_completed(run, index, row, end.result);
}
