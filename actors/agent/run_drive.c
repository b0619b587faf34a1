/* What comes next in a run: which step, whether it may begin, and what it is to do or to wait for.
 */
#include "actors/agent/run_drive.h"

#include <string.h>

#include "actors/agent/condition.h"
#include "bus/digest.h"
#include "proto/mp.h"

/* ---- beginning a step --------------------------------------------------------------------- */

static unsigned budgets_of(const sop_step_t *step)
{
    bool calls = step->kind == SOP_TOOL || step->kind == SOP_SH;
    return BUDGET_STEP | (calls ? BUDGET_CALL : 0) | (step->kind == SOP_LLM ? BUDGET_TOKENS : 0);
}

const char *run_replay_of(const sop_step_t *step)
{
    if (step->kind == SOP_LLM)
        return "safe";
    if (step->replay != SOP_REPLAY_UNSAID)
        return sop_replay_name(step->replay);
    return step->tool && !strchr(step->tool, '/') ? "keyed" : "manual";
}

bool run_misfit(const run_t *run, err_t err)
{
    return err.code == ERR_NOT_FOUND || err.code == ERR_ARGUMENT || err.code == ERR_TOO_LARGE ||
           (err.code == ERR_STATE && run->row.simulate);
}

err_t run_fail_misfit(run_t *run, size_t index, step_row_t *row, err_t problem,
                      run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    if (problem.code != ERR_STATE)
        return run_step_failed(run, index, row, err_what(problem), reply);
    bytes_t raw = step->args.size         ? step->args
                  : step->kind == SOP_LLM ? mp_str(run->arena, step->prose)
                                          : mp_str(run->arena, step->body);
    run->row.started++;
    return run_step_refused(run, index, row, raw, err_what(problem));
}

void run_describe(run_t *run, size_t index, const step_row_t *row, const effect_row_t *effect,
                  run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    reply->action = "perform";
    reply->sop = run->row.sop;
    reply->step = (int64_t)index;
    reply->has_step = true;
    reply->name = step->name;
    reply->title = step->title;
    reply->kind = sop_kind_info(step->kind)->name;
    reply->attempt = row->attempt;
    reply->has_attempt = true;
    reply->effect_id = effect->effect_id;
    reply->replay = effect->replay;
    reply->simulate = run->row.simulate;
    reply->has_simulate = run->row.simulate;
}

err_t run_journal(run_t *run)
{
    if (run->task.state != TASK_LEASED)
        return err_ok();
    return tasks_journal(run->agent->tasks, run->call, &run->task);
}

/* The step is begun: its effect is intended, in the same commit. */
static err_t begin(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    bytes_t input = run_given(run, reply);
    row->state = STEP_RUNNING;
    row->attempt++;
    row->started_ms = call_now_ms(run->call);
    row->until_ms = row->finished_ms = 0;
    row->input = input;
    row->why = row->by = NULL;
    run->row.started++;
    run->row.calls += step->kind != SOP_LLM;
    effect_row_t effect = {.state = EFFECT_INTENDED,
                           .replay = run->row.simulate ? "safe" : run_replay_of(step),
                           .effect_id = effect_name(run, index, row->attempt, 0),
                           .tool = step->tool ? step->tool : sop_kind_info(step->kind)->name,
                           .args_hash = digest_hex(run->arena, input),
                           .intended_ms = call_now_ms(run->call)};
    err_t err = effect_save(run, index, row->attempt, 0, &effect);
    if (!err_is(err))
        err = step_save(run, index, row);
    if (!err_is(err))
        err = run_save(run);
    if (!err_is(err))
        err = run_journal(run);
    run_describe(run, index, row, &effect, reply);
    return err;
}

static bytes_t wait_result(run_t *run, const step_row_t *row, bool skipped)
{
    buf_t result;
    buf_open(&result, run->arena);
    mp_put_map(&result, skipped ? 2 : 1);
    mp_put_str(&result, "until");
    mp_put_str(&result, record_time_text(run->arena, row->until_ms));
    if (skipped) {
        mp_put_str(&result, "skipped");
        mp_put_bool(&result, true);
    }
    return buf_bytes(&result);
}

static err_t begin_wait(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    values_t values;
    const char *text = "";
    err_t err = run_values(run, index, &values);
    if (!err_is(err))
        err = run_filled(run, &values, step->body, &text);
    if (!err_is(err))
        err = sop_wait(run->arena, text, call_now_ms(run->call), &row->until_ms);
    if (run_misfit(run, err))
        return run_fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    row->state = STEP_WAITING;
    row->started_ms = call_now_ms(run->call);
    row->input = mp_str(run->arena, text);
    run->row.started++;
    if (run->row.simulate)
        return run_step_completed(run, index, row, wait_result(run, row, true));
    const char *until = record_time_text(run->arena, row->until_ms);
    return run_sleep(run, index, row, arena_printf(run->arena, "waits until %s", until), reply);
}

/* Steps between a branch and where it goes. */
static err_t skip_steps(run_t *run, size_t from, size_t to, const char *why)
{
    err_t err = err_ok();
    for (size_t i = from; i < to && !err_is(err); i++) {
        step_row_t row;
        err = step_load(run, i, &row);
        row.state = STEP_SKIPPED;
        row.why = why;
        row.finished_ms = call_now_ms(run->call);
        if (!err_is(err))
            err = step_save(run, i, &row);
    }
    return err;
}

static bytes_t branch_result(run_t *run, bool holds, size_t to)
{
    buf_t out;
    buf_open(&out, run->arena);
    mp_put_map(&out, 2);
    mp_put_str(&out, "holds");
    mp_put_bool(&out, holds);
    mp_put_str(&out, "next");
    mp_put_str(&out, to < run->sop->step_count ? run->sop->steps[to].name : "end");
    return buf_bytes(&out);
}

/* Decided here: what it says, what it skips and where the run goes on are one commit. */
static err_t take_branch(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    values_t values;
    bool holds = false;
    size_t at;
    err_t err = run_values(run, index, &values);
    if (!err_is(err))
        err = condition_holds(run->arena, &values, step->condition, strlen(step->condition), &at,
                              &holds);
    if (run_misfit(run, err))
        return run_fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    size_t to = holds ? step->then_at : step->else_at;
    row->started_ms = call_now_ms(run->call);
    row->input = mp_str(run->arena, step->condition);
    run->row.started++;
    err = run_step_completed(run, index, row, branch_result(run, holds, to));
    if (!err_is(err))
        err = skip_steps(run, index + 1, to,
                         arena_printf(run->arena, "step %zu (%s) is %s", index + 1, step->name,
                                      holds ? "true" : "false"));
    run->row.at = (int64_t)to;
    return err_is(err) ? err : run_save(run);
}

static err_t begin_question(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    bool approve = step->kind == SOP_APPROVE;
    values_t values;
    const char *text = "";
    err_t err = run_values(run, index, &values);
    if (!err_is(err))
        err = run_filled(run, &values, approve ? step->body : step->prose, &text);
    if (run_misfit(run, err))
        return run_fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    row->started_ms = call_now_ms(run->call);
    run->row.started++;
    if (run->row.simulate)
        return run_step_refused(
            run, index, row, mp_str(run->arena, text),
            approve ? "a person would be asked to approve"
                    : "prose: somebody would do it, with effects nobody can refuse");
    row->state = STEP_WAITING;
    row->input = mp_str(run->arena, text);
    const char *how = approve ? "needs approval (approve or reject)"
                              : "is prose and no model is configured: someone must do it "
                                "(step_complete or step_fail)";
    return run_ask(
        run, index, row,
        arena_printf(run->arena, "step %zu (%s) %s: %s", index + 1, step->name, how, text), reply);
}

/* In a simulated run: why the step is refused before any worker sees it. NULL: it is not; of a
 * tool of ours the worker knows whether it only reads. */
static const char *refusal(const run_t *run, const sop_step_t *step)
{
    if (!run->row.simulate)
        return NULL;
    if (step->kind == SOP_SH)
        return "a script: nobody knows what it changes";
    if (step->kind == SOP_TOOL && strchr(step->tool, '/'))
        return "a tool outside of Agency";
    return NULL;
}

static bool by_model(const run_t *run)
{
    const agent_settings_t *settings = run->agent->settings;
    return settings->llm && (!run->row.simulate || settings->simulate_llm);
}

/* A step that was not begun, or is to be begun again. */
static err_t start(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    const char *budget = run_over_budget(run, budgets_of(step));
    if (budget)
        return run_step_failed(run, index, row, budget, reply);
    if (row->until_ms > call_now_ms(run->call))
        return run_sleep(run, index, row, "pauses before it tries again", reply);
    if (step->kind == SOP_WAIT)
        return begin_wait(run, index, row, reply);
    if (step->kind == SOP_IF)
        return take_branch(run, index, row, reply);
    if (step->kind == SOP_SOP)
        return run_sop_begin(run, index, row, reply);
    if (step->kind == SOP_EACH)
        return run_each_begin(run, index, row, reply);
    if (step->kind == SOP_APPROVE || (step->kind == SOP_LLM && !by_model(run)))
        return begin_question(run, index, row, reply);
    err_t err = run_fill(run, index, reply);
    if (run_misfit(run, err)) {
        *reply = (run_perform_t){.action = NULL};
        return run_fail_misfit(run, index, row, err, reply);
    }
    if (err_is(err))
        return err;
    const char *why = refusal(run, step);
    if (!why)
        return begin(run, index, row, reply);
    bytes_t input = run_given(run, reply);
    *reply = (run_perform_t){.action = NULL};
    run->row.started++;
    return run_step_refused(run, index, row, input, why);
}

/* ---- after a lost lease, and after a wait ------------------------------------------------- */

/* The step was running when its worker was lost. */
static err_t recover(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    effect_row_t effect;
    if (run->sop->steps[index].kind == SOP_EACH)
        return run_each_go_on(run, index, row, reply);
    err_t err = effect_load(run, index, row->attempt, 0, &effect);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_of(ERR_CORRUPT, "a step without its effect") : err;
    bool dispatched = effect.state == EFFECT_DISPATCHED;
    if (dispatched && !run_repeatable(&effect, call_now_ms(run->call)))
        return run_ask_about(run, index, row, 0, &effect, RUN_WORKER_LOST, reply);
    effect.state = EFFECT_INTENDED;
    err = effect_save(run, index, row->attempt, 0, &effect);
    if (!err_is(err))
        err =
            run_fill(run, index, reply); /* the same values again: earlier results do not change */
    if (!err_is(err))
        err = run_journal(run);
    run_describe(run, index, row, &effect, reply);
    return err;
}

/* Somebody or something woke the run while it waited. */
static err_t wake(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    if (step->kind == SOP_WAIT && row->until_ms > call_now_ms(run->call))
        return run_sleep(run, index, row, row->why, reply);
    if (step->kind == SOP_WAIT)
        return run_step_completed(run, index, row, wait_result(run, row, false));
    if (step->kind == SOP_SOP)
        return run_sop_go_on(run, index, row, reply);
    if (step->kind == SOP_EACH)
        return run_each_go_on(run, index, row, reply);
    if (step->kind == SOP_LLM && run->agent->settings->llm)
        return start(run, index, row, reply); /* there is a model now */
    return run_ask(run, index, row, row->why, reply);
}

/* ---- going on ----------------------------------------------------------------------------- */

err_t run_advance(run_t *run, run_perform_t *reply)
{
    while ((size_t)run->row.at < run->sop->step_count) {
        size_t index = (size_t)run->row.at;
        step_row_t row;
        err_t err = step_load(run, index, &row);
        if (err_is(err))
            return err;
        switch (row.state) {
        case STEP_PENDING:
            err = start(run, index, &row, reply);
            break;
        case STEP_RUNNING:
            err = recover(run, index, &row, reply);
            break;
        case STEP_WAITING:
            err = wake(run, index, &row, reply);
            break;
        case STEP_UNKNOWN:
            err = run_ask(run, index, &row, row.why, reply);
            break;
        case STEP_COMPLETED:
        case STEP_REFUSED:
        case STEP_SKIPPED:
            run->row.at++;
            break;
        default:
            err = run_failed(run, index, row.error ? row.error : "failed", reply);
        }
        if (err_is(err) || reply->action)
            return err;
    }
    return run_completed(run, reply);
}

/* The attempts go on counting: what is done again has a new effect id. */
static err_t again(run_t *run, size_t index, step_row_t *row)
{
    err_t err = run_stop_step(run, index, row, "its step is done again");
    if (!err_is(err) && run_each_keeps(run, index, row))
        return run_each_again(run, index, row);
    *row = (step_row_t){.state = STEP_PENDING, .attempt = row->attempt};
    return err_is(err) ? err : step_save(run, index, row);
}

/* All that it did is to be done again, and not only what is missing. */
static err_t undo(run_t *run, size_t index, step_row_t *row)
{
    row->items = 0;
    return again(run, index, row);
}

err_t run_reopen(run_t *run)
{
    size_t index = (size_t)run->row.at;
    step_row_t row;
    run->row.outcome = run->row.error = NULL;
    run->row.finished_ms = 0;
    if (index >= run->sop->step_count)
        return run_save(run);
    err_t err = step_load(run, index, &row);
    if (err_is(err))
        return err;
    if (row.state == STEP_FAILED)
        err = again(run, index, &row);
    return err_is(err) ? err : run_save(run);
}

err_t run_rewind(run_t *run, size_t index)
{
    for (size_t i = index; i < run->sop->step_count; i++) {
        step_row_t row;
        err_t err = step_load(run, i, &row);
        if (err_is(err))
            return err;
        if (row.state == STEP_PENDING && !row.attempt)
            continue;
        err = (i == index ? again : undo)(run, i, &row);
        if (!err_is(err))
            err = note_drop(run, i);
        if (err_is(err))
            return err;
    }
    run->row.at = (int64_t)index;
    run->row.outcome = run->row.error = NULL;
    run->row.finished_ms = 0;
    err_t err = run_save(run);
    if (!err_is(err)) /* the end of a run that it waited for may have woken it */
        err = tasks_get(run->agent->tasks, run->call, run->id, &run->task);
    if (err_is(err) || run->task.state == TASK_READY)
        return err;
    return tasks_make_ready(run->agent->tasks, run->call, &run->task);
}
