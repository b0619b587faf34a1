#include "actors/agent/runs.h"

#include <inttypes.h>
#include <string.h>

#include "actors/agent/rows.h"
#include "actors/agent/run_drive.h"
#include "bus/bug.h"
#include "bus/digest.h"
#include "proto/mp.h"

/* ---- methods ------------------------------------------------------------------------------ */

#define LEASE_ROWS(F)                                                                              \
    F(STR, id, must, 1, 128, "Id of the run.")                                                     \
    F(INT, fence, must, 0, 0, "Token of the lease.")                                               \
    COMPANY_ROW(F)
#define STEP_ROWS(F)                                                                               \
    LEASE_ROWS(F)                                                                                  \
    F(INT, step, must, 0, SOP_STEPS_CEILING, "Index of the step, as run_next gave it.")            \
    F(INT, index, opt(0), 0, 100000,                                                               \
      "0: the step's own effect; from 1: those inside a prose step, and the items of an each.")

#define run_outcome_VALUES(V)                                                                      \
    V(OUTCOME_OK, "ok")                                                                            \
    V(OUTCOME_ERROR, "error") V(OUTCOME_REFUSED, "refused") V(OUTCOME_UNKNOWN, "unknown")
RECORD_ENUM(run_outcome, run_outcome_VALUES)

#define run_next_ARGS(F) LEASE_ROWS(F)
#define run_next_REPLY(F) RUN_PERFORM_ROWS(F)

#define step_start_ARGS(F)                                                                         \
    STEP_ROWS(F)                                                                                   \
    F(BOOL, reads, opt(false), 0, 0, "The tool only reads; simulated runs start no other.")        \
    F(BOOL, repeatable, opt(false), 0, 0,                                                          \
      "The foreign server says that a second time does no harm; what the step says counts more.")
#define step_start_REPLY(F) F(STR, effect_id, must, 0, 0, "Idempotency key of the effect.")

#define step_done_ARGS(F)                                                                          \
    STEP_ROWS(F)                                                                                   \
    F(ENUM(run_outcome), outcome, must, 0, 0,                                                      \
      "ok; error; unknown: nobody knows whether it happened; in a simulated run, without "         \
      "step_start: refused.")                                                                      \
    F(ANY, result, opt(), 0, 0, "ok: what came of it.")                                            \
    F(STR, error, opt(), 0, 0, "error, refused: the sentence.")                                    \
    F(BOOL, retryable, opt(false), 0, 0, "error: it may pass, for example a peer was away.")       \
    F(INT, tokens, opt(0), 0, 0, "Tokens used.")                                                   \
    F(INT, duration_ms, opt(0), 0, 0, "Time spent.")
#define step_done_REPLY(F) RUN_PERFORM_ROWS(F)

#define step_note_ARGS(F)                                                                          \
    STEP_ROWS(F)                                                                                   \
    F(ANY, transcript, must, 0, 0, "The conversation so far.")
#define step_note_REPLY(F) F(INT, bytes, must, 0, 0, "What was kept.")

#define effect_begin_ARGS(F)                                                                       \
    STEP_ROWS(F)                                                                                   \
    F(STR, tool, must, 1, 128, "Tool that the model wants to call.")                               \
    F(ANY, args, opt(), 0, 0, "Its arguments.")                                                    \
    F(STR, replay, opt(keyed), 0, 16, "safe, keyed or manual: what a repetition would do.")
#define effect_begin_REPLY(F)                                                                      \
    F(STR, effect_id, must, 0, 0, "Idempotency key of the effect.")                                \
    F(STR, state, must, 0, 0,                                                                      \
      "intended: do it (after step_start). committed, failed: it was done, this came of it. "      \
      "unknown: the lease is over, a person is asked. refused: the run is simulated.")             \
    F(ANY, result, opt(), 0, 0, "committed: what came of it.")                                     \
    F(STR, error, opt(), 0, 0, "failed: why.")

#define effect_done_ARGS(F)                                                                        \
    STEP_ROWS(F)                                                                                   \
    F(ENUM(run_outcome), outcome, must, 0, 0, "ok, error or unknown.")                             \
    F(ANY, result, opt(), 0, 0, "ok: what came of it.")                                            \
    F(STR, error, opt(), 0, 0, "error: the sentence.")
#define effect_done_REPLY(F)                                                                       \
    F(STR, state, must, 0, 0, "committed or failed; unknown: the lease is over, a person is asked.")

#define RUNS_METHODS(M)                                                                            \
    M(agent_t, run_next, WRITES, "Worker: what is to be done next in a leased run?")               \
    M(agent_t, step_start, WRITES, "Worker: the effect happens now.")                              \
    M(agent_t, step_done, WRITES, "Worker: the outcome of a step; answers as run_next.")           \
    M(agent_t, step_note, WRITES, "Worker: keeps the conversation of a prose step.")               \
    M(agent_t, effect_begin, WRITES, "Worker: a prose step wants to call a tool.")                 \
    M(agent_t, effect_done, WRITES, "Worker: the outcome of that call.")

RUNS_METHODS(METHOD_DECLARE_)
const method_t runs_methods[] = {RUNS_METHODS(METHOD_ROW_){.name = NULL}};

_Static_assert(sizeof(run_next_reply_t) == sizeof(run_perform_t), "the same rows");
_Static_assert(sizeof(step_done_reply_t) == sizeof(run_perform_t), "the same rows");

enum {
    NOTE_LARGEST = 8 << 20,
    ARGS_KEPT = 16 * 1024, /* of a call that a model made */
    EXPERIENCE_LARGEST = 16 * 1024
};

/* The run, if this is still the worker's lease. */
static err_t load_leased(agent_t *self, call_t *call, const char *id, int64_t fence, run_t *run)
{
    task_t task;
    err_t err = tasks_check_fence(self->tasks, call, call_company(call), id, fence, &task);
    if (!err_is(err))
        err = run_load(self, call, id, true, run);
    run->task = task;
    return err;
}

/* ---- the next step; before the first the brain is asked for experience --------------------- */

typedef struct asking {
    const char *id;
    int64_t fence;
} asking_t;

#define experience_query_FIELDS(F)                                                                 \
    F(STR, query, must, 0, 0, "What to look for.")                                                 \
    F(INT, limit, must, 0, 0, "How many.")
RECORD(experience_query, experience_query_FIELDS)

static err_t answer_next(run_t *run, void *reply)
{
    run_perform_t next = {.action = NULL};
    err_t err = run_advance(run, &next);
    memcpy(reply, &next, sizeof(next));
    return err;
}

static err_t on_experience(void *self, call_t *call, void *reply, const peer_answer_t *answer,
                           void *ctx)
{
    const asking_t *asking = ctx;
    bytes_t memories;
    run_t run;
    if (answer->progress)
        return call_park(call);
    err_t err = load_leased(self, call, asking->id, asking->fence, &run);
    if (err_is(err))
        return err;
    run.row.asked = true;
    bool told = !err_is(answer->err) && mp_get(answer->body, "memories", &memories);
    if (told && memories.size > 1 && memories.size <= EXPERIENCE_LARGEST)
        run.row.experience = memories;
    err = run_save(&run);
    return err_is(err) ? err : answer_next(&run, reply);
}

static err_t ask_brain(run_t *run, int64_t fence)
{
    asking_t *asking = ARENA_NEW(run->arena, asking_t);
    *asking = (asking_t){run->id, fence};
    experience_query_t query = {.query =
                                    arena_printf(run->arena, "%s %s", run->row.sop, run->row.title),
                                .limit = 3,
                                .has_limit = true};
    peer_call_t request = {.peer = "brain",
                           .method = "brain_query",
                           .args = call_encode(run->call, &experience_query_record, &query),
                           .timeout_ms = run->agent->settings->experience_ms,
                           .company = call_company(run->call)};
    call_peer(run->call, &request, on_experience, asking);
    return call_park(run->call);
}

/* The planted mistake: a finished step is done again. */
static void plant_replay(run_t *run)
{
    step_row_t row, before;
    if (!bug(BUG_REPLAYED_DONE_STEP))
        return;
    size_t index = (size_t)run->row.at;
    if (!index || index >= run->sop->step_count || err_is(step_load(run, index, &row)) ||
        row.state != STEP_RUNNING || err_is(step_load(run, index - 1, &before)) ||
        before.state != STEP_COMPLETED || !before.attempt)
        return;
    before.state = STEP_PENDING;
    step_save(run, index - 1, &before);
    run->row.at--;
}

static err_t run_next(agent_t *self, call_t *call, const run_next_args_t *args,
                      run_next_reply_t *reply)
{
    run_t run;
    err_t err = load_leased(self, call, args->id, args->fence, &run);
    if (err_is(err))
        return err;
    if (run.row.outcome) /* the task was retried or kicked */
        err = run_reopen(&run);
    if (err_is(err))
        return err;
    if (!run.row.asked)
        return ask_brain(&run, args->fence);
    plant_replay(&run);
    return answer_next(&run, reply);
}

/* ---- an effect happens -------------------------------------------------------------------- */

/* The running step with its effect `index`. */
static err_t load_effect(agent_t *self, call_t *call, const char *id, int64_t fence, int64_t step,
                         int64_t index, run_t *run, step_row_t *row, effect_row_t *effect)
{
    err_t err = load_leased(self, call, id, fence, run);
    if (!err_is(err) && step != run->row.at)
        err =
            err_make(call_arena(call), ERR_STATE,
                     "step %" PRId64 " is not the present one, %" PRId64 " is", step, run->row.at);
    if (!err_is(err) && (size_t)step >= run->sop->step_count)
        err = err_of(ERR_STATE, "there is no such step");
    if (!err_is(err))
        err = step_load(run, (size_t)step, row);
    if (!err_is(err) && row->state != STEP_RUNNING)
        err = err_make(call_arena(call), ERR_STATE, "step %" PRId64 " is %s, not running", step,
                       run_step_state_names[row->state]);
    return err_is(err) ? err : effect_load(run, (size_t)step, row->attempt, index, effect);
}

static bool started(const effect_row_t *effect)
{
    return effect->state == EFFECT_DISPATCHED || bug(BUG_EFFECT_BEFORE_INTENT);
}

static err_t no_effect(err_t err)
{
    return err.code == ERR_NOT_FOUND && !err.what
               ? err_of(ERR_STATE, "there is no such effect: effect_begin comes first")
               : err;
}

/* Then what its server says counts. */
static bool unsaid_foreign(const sop_step_t *step)
{
    return step->tool && step->replay == SOP_REPLAY_UNSAID && strchr(step->tool, '/');
}

static err_t step_start(agent_t *self, call_t *call, const step_start_args_t *args,
                        step_start_reply_t *reply)
{
    run_t run;
    step_row_t row;
    effect_row_t effect;
    err_t err = load_effect(self, call, args->id, args->fence, args->step, args->index, &run, &row,
                            &effect);
    if (err_is(err))
        return no_effect(err);
    if (effect.state != EFFECT_INTENDED)
        return err_make(call_arena(call), ERR_STATE, "the effect is %s, not intended",
                        effect_state_names[effect.state]);
    if (run.row.simulate && !args->reads && run.sop->steps[args->step].kind != SOP_LLM)
        return err_of(ERR_STATE, "the run is simulated: say `reads` when the tool only reads, else "
                                 "end the step with the outcome refused");
    reply->effect_id = effect.effect_id;
    if (bug(BUG_EFFECT_BEFORE_INTENT))
        return err_ok();
    effect.state = EFFECT_DISPATCHED;
    if (args->repeatable && unsaid_foreign(&run.sop->steps[args->step]))
        effect.replay = "safe";
    return effect_save(&run, (size_t)args->step, row.attempt, args->index, &effect);
}

/* ---- the outcome of a step ---------------------------------------------------------------- */

/* Output that ends in newlines loses them, as in $( ): it is more often a word than a text. */
static void put_trimmed(buf_t *out, bytes_t value)
{
    mp_value_t head;
    mp_reader_t reader = mp_reader(value);
    if (!mp_read(&reader, &head) || head.type != MP_STR) {
        mp_put_raw(out, value);
        return;
    }
    while (head.size && (head.text[head.size - 1] == '\n' || head.text[head.size - 1] == '\r'))
        head.size--;
    mp_put_strn(out, head.text, head.size);
}

/* The result of a script, with its outputs trimmed. */
static bytes_t trimmed(arena_t *arena, bytes_t result)
{
    mp_value_t head;
    mp_reader_t reader = mp_reader(result);
    buf_t out;
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return result;
    buf_open(&out, arena);
    mp_put_map(&out, head.count);
    for (uint32_t i = 0; i < head.count; i++) {
        bytes_t key, value;
        if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
            return result;
        mp_put_raw(&out, key);
        if (mp_equals(key, "stdout") || mp_equals(key, "stderr"))
            put_trimmed(&out, value);
        else
            mp_put_raw(&out, value);
    }
    return buf_bytes(&out);
}

static err_t on_error(run_t *run, size_t index, step_row_t *row, const char *error, bool retryable,
                      run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    int64_t unsaid = retryable ? run->agent->settings->step_retries : 0;
    int64_t retries = step->retries >= 0 ? step->retries : unsaid;
    if (row->failures >= retries)
        return run_step_failed(run, index, row, error, reply);
    row->failures++;
    row->state = STEP_PENDING;
    row->error = error;
    row->until_ms = call_now_ms(run->call) + run_pause_ms(run, row->failures);
    return run_sleep(run, index, row,
                     arena_printf(run->arena, "step %zu (%s) failed and is tried again: %s",
                                  index + 1, step->name, error),
                     reply);
}

/* The worker found that the step of a simulated run would change something. */
static err_t on_refused(run_t *run, size_t index, step_row_t *row, effect_row_t *effect,
                        const char *why, run_perform_t *next)
{
    if (!run->row.simulate || effect->state != EFFECT_INTENDED)
        return err_of(ERR_STATE, "only a step of a simulated run is refused, before step_start");
    effect->state = EFFECT_REFUSED;
    effect->finished_ms = call_now_ms(run->call);
    run->row.calls--; /* begun, and not made */
    err_t err = effect_save(run, index, row->attempt, 0, effect);
    if (!err_is(err))
        err =
            run_step_refused(run, index, row, row->input, why ? why : "it would change something");
    return err_is(err) ? err : run_advance(run, next);
}

static err_t on_result(run_t *run, size_t index, step_row_t *row, bytes_t result,
                       run_perform_t *next)
{
    if (run->sop->steps[index].kind == SOP_SH)
        result = trimmed(run->arena, result);
    err_t err = run_step_completed(run, index, row, result);
    if (!err_is(err))
        err = run_save(run);
    return err_is(err) ? err : run_advance(run, next);
}

static err_t on_item(run_t *run, step_row_t *row, effect_row_t *effect,
                     const step_done_args_t *args, run_perform_t *next)
{
    run_outcome_of_t outcome = {.good = args->outcome == OUTCOME_OK,
                                .refused = args->outcome == OUTCOME_REFUSED,
                                .unknown = args->outcome == OUTCOME_UNKNOWN,
                                .retryable = args->retryable,
                                .result = args->result,
                                .error = args->error ? args->error : "it failed without saying why",
                                .duration_ms = args->duration_ms};
    if (args->index != row->next + 1)
        return err_make(run->arena, ERR_STATE,
                        "item %" PRId64 " is not the present one, %" PRId64 " is", args->index - 1,
                        row->next);
    if (outcome.refused ? !run->row.simulate || effect->state != EFFECT_INTENDED : !started(effect))
        return err_of(ERR_STATE, "an item is done after step_start, and refused before it");
    err_t err = run_each_outcome(run, (size_t)args->step, row, args->index, effect, &outcome, next);
    return err_is(err) || next->action ? err : run_advance(run, next);
}

static err_t on_outcome(run_t *run, step_row_t *row, effect_row_t *effect,
                        const step_done_args_t *args, run_perform_t *next)
{
    size_t index = (size_t)args->step;
    const char *error = args->error ? args->error : "it failed without saying why";
    bool unknown = args->outcome == OUTCOME_UNKNOWN, good = args->outcome == OUTCOME_OK;
    if (run->sop->steps[index].kind == SOP_EACH)
        return on_item(run, row, effect, args, next);
    if (args->outcome == OUTCOME_REFUSED && !args->index)
        return on_refused(run, index, row, effect, args->error, next);
    if (args->index || !started(effect))
        return err_of(ERR_STATE, "a step is done after step_start, with index 0");
    if (unknown && !run_repeatable(effect, call_now_ms(run->call)))
        return run_ask_about(run, index, row, 0, effect, error, next);
    err_t fits = run_check_result(run, args->result);
    if (good && err_is(fits)) {
        good = false;
        error = err_what(fits);
    }
    effect->state = good ? EFFECT_COMMITTED : EFFECT_FAILED;
    effect->error = good ? NULL : error;
    effect->finished_ms = call_now_ms(run->call);
    row->tokens += args->tokens;
    row->duration_ms += args->duration_ms;
    run->row.tokens += args->tokens;
    err_t err = effect_save(run, index, row->attempt, 0, effect);
    if (err_is(err))
        return err;
    return good ? on_result(run, index, row, args->result, next)
                : on_error(run, index, row, error, args->retryable || unknown, next);
}

static err_t step_done(agent_t *self, call_t *call, const step_done_args_t *args,
                       step_done_reply_t *reply)
{
    run_t run;
    step_row_t row;
    effect_row_t effect;
    run_perform_t next = {.action = NULL};
    err_t err = load_effect(self, call, args->id, args->fence, args->step, args->index, &run, &row,
                            &effect);
    if (err_is(err))
        return no_effect(err);
    err = on_outcome(&run, &row, &effect, args, &next);
    memcpy(reply, &next, sizeof(*reply));
    return err;
}

/* ---- what a model does inside its step ---------------------------------------------------- */

static err_t step_note(agent_t *self, call_t *call, const step_note_args_t *args,
                       step_note_reply_t *reply)
{
    run_t run;
    step_row_t row;
    effect_row_t effect;
    err_t err = load_effect(self, call, args->id, args->fence, args->step, 0, &run, &row, &effect);
    if (err_is(err))
        return no_effect(err);
    if (args->transcript.size > NOTE_LARGEST)
        return err_of(ERR_TOO_LARGE, "the conversation is larger than 8 MiB");
    reply->bytes = (int64_t)args->transcript.size;
    reply->has_bytes = true;
    return note_save(&run, (size_t)args->step, args->transcript);
}

/* An effect inside a prose step that was begun before. */
static err_t effect_again(run_t *run, size_t step, step_row_t *row, int64_t index,
                          effect_row_t *effect, effect_begin_reply_t *reply)
{
    run_perform_t ignored = {.action = NULL};
    bool dispatched = effect->state == EFFECT_DISPATCHED;
    if (dispatched && !run_repeatable(effect, call_now_ms(run->call))) {
        reply->state = "unknown";
        return run_ask_about(run, step, row, index, effect, RUN_WORKER_LOST, &ignored);
    }
    if (dispatched)
        effect->state = EFFECT_INTENDED;
    reply->state = effect_state_names[effect->state];
    if (effect->state != EFFECT_REFUSED) {
        reply->result = effect->result;
        reply->error = effect->error;
    }
    return effect_save(run, step, row->attempt, index, effect);
}

static err_t effect_begin(agent_t *self, call_t *call, const effect_begin_args_t *args,
                          effect_begin_reply_t *reply)
{
    run_t run;
    step_row_t row;
    effect_row_t effect;
    size_t step = (size_t)args->step;
    const char *hash = digest_hex(call_arena(call), args->args);
    err_t err = load_effect(self, call, args->id, args->fence, args->step, args->index, &run, &row,
                            &effect);
    if (err_is(err) && (err.code != ERR_NOT_FOUND || err.what))
        return err;
    if (!args->index || run.sop->steps[step].kind != SOP_LLM)
        return err_of(ERR_STATE, "only a prose step has effects inside, from index 1");
    if (!err_is(err)) {
        reply->effect_id = effect.effect_id;
        if (strcmp(hash, effect.args_hash) != 0 || strcmp(args->tool, effect.tool) != 0)
            return err_make(call_arena(call), ERR_STATE, "effect %" PRId64 " was another one: %s",
                            args->index, effect.tool);
        return effect_again(&run, step, &row, args->index, &effect, reply);
    }
    const char *over = run_over_budget(&run, BUDGET_CALL);
    if (over)
        return err_make(call_arena(call), ERR_QUOTA, "%s", over);
    bool refused = run.row.simulate && strcmp(args->replay, "safe") != 0;
    run.row.calls += !refused;
    effect = (effect_row_t){.state = EFFECT_INTENDED,
                            .replay = args->replay,
                            .tool = args->tool,
                            .effect_id = effect_name(&run, step, row.attempt, args->index),
                            .args_hash = hash,
                            .intended_ms = call_now_ms(call)};
    if (args->args.size <= ARGS_KEPT)
        effect.args = args->args;
    if (refused) {
        effect.state = EFFECT_REFUSED;
        effect.result = args->args;
        effect.error = "a model wanted to call a tool that changes something";
    }
    reply->effect_id = effect.effect_id;
    reply->state = effect_state_names[effect.state];
    err = run_save(&run);
    return err_is(err) ? err : effect_save(&run, step, row.attempt, args->index, &effect);
}

static err_t effect_done(agent_t *self, call_t *call, const effect_done_args_t *args,
                         effect_done_reply_t *reply)
{
    run_t run;
    step_row_t row;
    effect_row_t effect;
    err_t err = load_effect(self, call, args->id, args->fence, args->step, args->index, &run, &row,
                            &effect);
    if (err_is(err))
        return no_effect(err);
    if (!args->index || !started(&effect))
        return err_of(ERR_STATE, "an effect inside a step is done after step_start");
    if (args->outcome == OUTCOME_UNKNOWN && !run_repeatable(&effect, call_now_ms(call))) {
        run_perform_t ignored = {.action = NULL};
        reply->state = "unknown";
        return run_ask_about(&run, (size_t)args->step, &row, args->index, &effect,
                             args->error ? args->error : "its outcome was lost", &ignored);
    }
    err_t fits = run_check_result(&run, args->result);
    bool good = args->outcome == OUTCOME_OK && !err_is(fits);
    effect.state = good ? EFFECT_COMMITTED : EFFECT_FAILED;
    effect.result = good ? args->result : (bytes_t){0};
    effect.error = good           ? NULL
                   : err_is(fits) ? err_what(fits)
                   : args->error  ? args->error
                                  : "it failed without saying why";
    effect.finished_ms = call_now_ms(call);
    reply->state = effect_state_names[effect.state];
    return effect_save(&run, (size_t)args->step, row.attempt, args->index, &effect);
}

/* ---- of the agent ------------------------------------------------------------------------- */

err_t runs_forget(call_t *call, const char *company, const char *id)
{
    static const int tables[] = {TABLE_run_steps, TABLE_run_notes, TABLE_effects};
    store_txn_t *txn;
    store_key_t key;
    err_t err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    err = store_del(txn, TABLE_runs, key_bytes(&key));
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    key_open(&key);
    key_str(&key, id);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && !err_is(err); i++)
        err = rows_clear(txn, tables[i], &key);
    return err;
}

err_t runs_open(agent_t *agent, call_t *call)
{
    return run_log_open(agent, call);
}

void runs_close(agent_t *agent)
{
    run_log_close(agent);
}
