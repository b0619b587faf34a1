/* How a step ends or pauses, and what that means for the run and its task. What is journalled here
 * and what follows from it are one commit. */
#include <inttypes.h>
#include <string.h>

#include "actors/agent/run_drive.h"
#include "proto/mp.h"

/* What a simulated run ends with: it says in every view what it is. */
static err_t simulated_result(run_t *run, bytes_t last, bytes_t *result)
{
    run_refusal_list_t list;
    buf_t out;
    err_t err = run_refusals(run, &list);
    if (err_is(err))
        return err;
    buf_open(&out, run->arena);
    mp_put_map(&out, 3);
    mp_put_str(&out, "simulated");
    mp_put_bool(&out, true);
    mp_put_str(&out, "refused");
    mp_put_array(&out, (uint32_t)list.count);
    for (size_t i = 0; i < list.count; i++)
        mp_put_raw(&out, call_encode(run->call, &run_refusal_record, &list.items[i]));
    mp_put_str(&out, "result");
    mp_put_raw(&out, last);
    *result = buf_bytes(&out);
    return err;
}

static err_t finish(run_t *run, const char *error)
{
    run_row_t *row = &run->row;
    row->outcome = error ? "failed" : "completed";
    row->error = error;
    row->finished_ms = call_now_ms(run->call);
    row->finishes++;
    err_t err = run_save(run);
    if (!err_is(err))
        err = run_log_finish(run);
    if (err_is(err))
        return err;
    if (error)
        return tasks_fail(run->agent->tasks, run->call, &run->task, error, false, 0);
    bytes_t result;
    err = run_result(run, &result);
    if (err_is(err))
        return err;
    if (!result.size)
        result = mp_str(run->arena, "");
    if (run->row.simulate)
        err = simulated_result(run, result, &result);
    if (err_is(err))
        return err;
    return tasks_complete(run->agent->tasks, run->call, &run->task, result);
}

static err_t journal_failure(run_t *run, size_t index, step_row_t *row, const char *error)
{
    row->state = STEP_FAILED;
    row->error = error;
    row->why = NULL;
    row->finished_ms = call_now_ms(run->call);
    err_t err = step_save(run, index, row);
    return err_is(err) ? err : run_log_step(run, index, row);
}

static const char *failure(run_t *run, size_t index, const char *error)
{
    const sop_step_t *step = &run->sop->steps[index];
    return arena_printf(run->arena, "step %zu (%s): %s", index + 1, step->name, error);
}

err_t run_completed(run_t *run, run_perform_t *reply)
{
    reply->action = "done";
    reply->why = "completed";
    return finish(run, NULL);
}

err_t run_failed(run_t *run, size_t index, const char *error, run_perform_t *reply)
{
    reply->action = "done";
    reply->why = failure(run, index, error);
    return finish(run, reply->why);
}

err_t run_step_failed(run_t *run, size_t index, step_row_t *row, const char *error,
                      run_perform_t *reply)
{
    err_t err = journal_failure(run, index, row, error);
    return err_is(err) ? err : run_failed(run, index, error, reply);
}

err_t run_step_completed(run_t *run, size_t index, step_row_t *row, bytes_t result)
{
    row->state = STEP_COMPLETED;
    row->result = result;
    row->error = row->why = NULL;
    row->finished_ms = call_now_ms(run->call);
    run->row.at = (int64_t)index + 1;
    err_t err = step_save(run, index, row);
    if (!err_is(err))
        err = note_drop(run, index);
    return err_is(err) ? err : run_log_step(run, index, row);
}

err_t run_step_refused(run_t *run, size_t index, step_row_t *row, bytes_t input, const char *why)
{
    row->state = STEP_REFUSED;
    row->input = input;
    row->result = (bytes_t){0};
    row->error = NULL;
    row->why = why;
    row->finished_ms = call_now_ms(run->call);
    if (!row->started_ms)
        row->started_ms = row->finished_ms;
    run->row.at = (int64_t)index + 1;
    err_t err = step_save(run, index, row);
    if (!err_is(err))
        err = note_drop(run, index);
    if (!err_is(err))
        err = run_save(run);
    return err_is(err) ? err : run_log_step(run, index, row);
}

err_t run_ask(run_t *run, size_t index, step_row_t *row, const char *why, run_perform_t *reply)
{
    row->why = why;
    err_t err = step_save(run, index, row);
    if (!err_is(err))
        err = run_save(run);
    if (!err_is(err))
        err = tasks_require_input(run->agent->tasks, run->call, &run->task, why);
    reply->action = "wait";
    reply->why = why;
    return err;
}

err_t run_sleep(run_t *run, size_t index, step_row_t *row, const char *why, run_perform_t *reply)
{
    row->why = why;
    err_t err = step_save(run, index, row);
    if (!err_is(err))
        err = run_save(run);
    if (!err_is(err))
        err = tasks_wait_until(run->agent->tasks, run->call, &run->task, row->until_ms, why);
    reply->action = "wait";
    reply->why = why;
    return err;
}

/* Doubling, with full jitter above the half. */
int64_t run_pause_ms(const run_t *run, int64_t failures)
{
    uint32_t random;
    int64_t pause = run->agent->settings->step_retry_ms;
    int64_t longest = run->agent->settings->step_retry_limit_ms;
    for (int64_t i = 1; i < failures && pause < longest; i++)
        pause *= 2;
    if (pause > longest)
        pause = longest;
    call_random(run->call, &random, sizeof(random));
    return pause / 2 + (int64_t)(random % (uint32_t)(pause / 2 + 1));
}

err_t run_no_room(run_t *run, size_t index, step_row_t *row, const char *why, run_perform_t *reply)
{
    enum { AS_AFTER = 4 /* failures */ };
    row->until_ms = call_now_ms(run->call) + run_pause_ms(run, AS_AFTER);
    return run_sleep(run, index, row, why, reply);
}

bool run_repeatable(const effect_row_t *effect, int64_t now_ms)
{
    if (!strcmp(effect->replay, "safe"))
        return true;
    return !strcmp(effect->replay, "keyed") && now_ms - effect->intended_ms < RUN_KEY_TRUSTED_MS;
}

static const char *doubt(run_t *run, size_t index, const effect_row_t *effect, const char *why)
{
    const sop_step_t *step = &run->sop->steps[index];
    return arena_printf(
        run->arena,
        "step %zu (%s): nobody knows whether '%s' happened, because %s (effect %.12s). Look, then: "
        "step_complete when it did, step_fail to give up, run_retry_from to do it again",
        index + 1, step->name, effect->tool, why, effect->effect_id);
}

err_t run_ask_about(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect,
                    const char *why, run_perform_t *reply)
{
    effect->state = EFFECT_UNKNOWN;
    row->state = STEP_UNKNOWN;
    err_t err = effect_save(run, index, row->attempt, at, effect);
    return err_is(err) ? err : run_ask(run, index, row, doubt(run, index, effect, why), reply);
}

err_t run_check_result(const run_t *run, bytes_t result)
{
    int64_t largest = run->agent->settings->step_result_bytes;
    if ((int64_t)result.size <= largest)
        return err_ok();
    return err_make(run->arena, ERR_TOO_LARGE,
                    "the result is larger than %" PRId64 " bytes: write it to a file and give its "
                    "name, or raise agent.step_result_bytes",
                    largest);
}

/* The item in doubt; the step goes on behind it, unless it ends with the first failure. */
static err_t settle_item(run_t *run, size_t index, step_row_t *row, bool completed, bytes_t result,
                         const char *error)
{
    run_outcome_of_t outcome = {.good = completed, .result = result, .error = error};
    const char *stop = NULL;
    err_t err = run_each_settle(run, index, row, &outcome, &stop);
    if (err_is(err))
        return err;
    if (!stop) {
        err = run_save(run);
        return err_is(err) ? err : tasks_make_ready(run->agent->tasks, run->call, &run->task);
    }
    err = journal_failure(run, index, row, stop);
    return err_is(err) ? err : finish(run, failure(run, index, stop));
}

err_t run_settle_step(run_t *run, bool completed, bytes_t result, const char *error)
{
    size_t index = (size_t)run->row.at;
    step_row_t row;
    effect_row_t effect;
    err_t err = step_load(run, index, &row);
    if (err_is(err))
        return err;
    row.by = call_principal(run->call);
    if (row.state == STEP_UNKNOWN && run->sop->steps[index].kind == SOP_EACH)
        return settle_item(run, index, &row, completed, result, error);
    if (row.state == STEP_UNKNOWN) {
        err = effect_load(run, index, row.attempt, 0, &effect);
        if (!err_is(err)) {
            effect.state = completed ? EFFECT_COMMITTED : EFFECT_FAILED;
            effect.finished_ms = call_now_ms(run->call);
            err = effect_save(run, index, row.attempt, 0, &effect);
        }
    }
    if (err_is(err))
        return err;
    if (!completed) {
        err = journal_failure(run, index, &row, error);
        return err_is(err) ? err : finish(run, failure(run, index, error));
    }
    err = run_step_completed(run, index, &row, result);
    if (!err_is(err))
        err = run_save(run);
    return err_is(err) ? err : tasks_make_ready(run->agent->tasks, run->call, &run->task);
}
