#include "actors/agent/runs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/condition.h"
#include "actors/agent/rows.h"
#include "actors/agent/run_state.h"
#include "actors/agent/values.h"
#include "bus/bug.h"
#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- methods: the worker's side ----------------------------------------------------------- */

#define LEASE_ROWS(F)                                                                              \
    F(STR, id, must, 1, 128, "Id of the run.")                                                     \
    F(INT, fence, must, 0, 0, "Token of the lease.")                                               \
    COMPANY_ROW(F)
#define STEP_ROWS(F)                                                                               \
    LEASE_ROWS(F)                                                                                  \
    F(INT, step, must, 0, SOP_STEPS_CEILING, "Index of the step, as run_next gave it.")            \
    F(INT, index, opt(0), 0, 100000, "0: the step's own effect; from 1: those inside a prose step.")

#define run_outcome_VALUES(V)                                                                      \
    V(OUTCOME_OK, "ok")                                                                            \
    V(OUTCOME_ERROR, "error") V(OUTCOME_REFUSED, "refused") V(OUTCOME_UNKNOWN, "unknown")
RECORD_ENUM(run_outcome, run_outcome_VALUES)

#define run_variable_FIELDS(F)                                                                     \
    F(STR, name, must, 1, 128, "Name of the variable.")                                            \
    F(STR, value, must, 0, 0, "Its value.")
RECORD(run_variable, run_variable_FIELDS)

#define PERFORM_ROWS(F)                                                                            \
    F(STR, action, must, 0, 0, "perform, wait (the lease is over) or done (so is the run).")       \
    F(STR, why, opt(), 0, 0, "wait: what for; done: how it ended.")                                \
    F(STR, sop, opt(), 0, 0, "Name of the procedure.")                                             \
    F(INT, step, opt(), 0, 0, "Index of the step.")                                                \
    F(STR, name, opt(), 0, 0, "Name of the step.")                                                 \
    F(STR, title, opt(), 0, 0, "Title of the step.")                                               \
    F(STR, kind, opt(), 0, 0, "tool, sh or llm.")                                                  \
    F(INT, attempt, opt(), 0, 0, "How often the step was begun.")                                  \
    F(STR, effect_id, opt(), 0, 0, "Idempotency key of the effect.")                               \
    F(STR, replay, opt(), 0, 0, "safe, keyed, check or manual.")                                   \
    F(INT, timeout_ms, opt(), 0, 0, "How long it may take.")                                       \
    F(STR, tool, opt(), 0, 0, "tool: its name.")                                                   \
    F(ANY, args, opt(), 0, 0, "tool: its arguments, a map.")                                       \
    F(STR, script, opt(), 0, 0, "sh: the text for /bin/sh.")                                       \
    F(LIST(run_variable), env, opt(), 0, 0, "sh: variables that hold the values.")                 \
    F(STRS, env_pass, opt(), 0, 0, "sh: variables of the worker that the script may see.")         \
    F(INT, output_limit, opt(), 0, 0, "sh: bytes kept of each output stream.")                     \
    F(STR, cwd, opt(), 0, 0, "sh: folder, absolute or below the workspace; absent: the latter.")   \
    F(BOOL, simulate, opt(false), 0, 0, "Only what reads may happen.")                             \
    F(STR, prompt, opt(), 0, 0, "llm: what to do.")                                                \
    F(STR, soul, opt(), 0, 0, "llm: who does it; for the system's part of the conversation.")      \
    F(ANY, transcript, opt(), 0, 0, "llm: the conversation so far, from step_note.")               \
    F(STRS, tools, opt(), 0, 0, "llm: tools of foreign servers that it may use.")                  \
    F(INT, tokens_left, opt(), 0, 0, "llm: budget of the run; absent: none.")

#define run_next_ARGS(F) LEASE_ROWS(F)
#define run_next_REPLY(F) PERFORM_ROWS(F)

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
#define step_done_REPLY(F) PERFORM_ROWS(F)

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

/* run_next and step_done answer the same rows. */
typedef run_next_reply_t perform_t;

enum {
    TOOL_TIMEOUT_MS = 60 * 1000,
    SH_TIMEOUT_MS = 10 * 60 * 1000,
    LLM_TIMEOUT_MS = 15 * 60 * 1000,
    OUTPUT_LIMIT = 64 * 1024,
    RESULT_LARGEST = 1 << 20,
    NOTE_LARGEST = 8 << 20,
    ARGS_KEPT = 16 * 1024,  /* of a call that a model made */
    EARLIER_LARGEST = 4000, /* bytes of each earlier result in a prompt */
    EXPERIENCE_LARGEST = 16 * 1024,
    EXPERIENCE_WAIT_MS = 1500,
    RETRY_FIRST_MS = 1000,
    RETRY_LONGEST_MS = 5 * 60 * 1000,
    RETRIES_UNSAID = 3 /* of errors that may pass */
};

/* ---- values ------------------------------------------------------------------------------- */

/* Everything that references of step `self` may name. */
static err_t values_of(run_t *run, size_t self, values_t *values)
{
    value_step_t *steps = ARENA_ARRAY(run->arena, value_step_t, self);
    for (size_t i = 0; i < self; i++) {
        step_row_t row;
        err_t err = step_load(run, i, &row);
        if (err_is(err))
            return err;
        steps[i] = (value_step_t){run->sop->steps[i].name, row.result, row.state == STEP_REFUSED};
    }
    *values = (values_t){.input = run->row.input,
                         .run_id = run->id,
                         .company = call_company(run->call),
                         .steps = steps,
                         .step_count = self};
    return err_ok();
}

static err_t filled(run_t *run, const values_t *values, const char *text, const char **out)
{
    buf_t buf;
    buf_open(&buf, run->arena);
    err_t err = values_text(run->arena, values, text, strlen(text), &buf);
    *out = buf.data;
    return err;
}

static bytes_t text_value(arena_t *arena, const char *text)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_str(&out, text);
    return buf_bytes(&out);
}

/* ---- ends --------------------------------------------------------------------------------- */

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
        result = text_value(run->arena, "");
    if (run->row.simulate)
        err = simulated_result(run, result, &result);
    if (err_is(err))
        return err;
    return tasks_complete(run->agent->tasks, run->call, &run->task, result);
}

static err_t done(run_t *run, const char *error, perform_t *reply)
{
    reply->action = "done";
    reply->why = error ? error : "completed";
    return finish(run, error);
}

static err_t step_failed(run_t *run, size_t index, step_row_t *row, const char *error)
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

/* The step and with it the run fail. */
static err_t fail_at(run_t *run, size_t index, step_row_t *row, const char *error, perform_t *reply)
{
    err_t err = step_failed(run, index, row, error);
    return err_is(err) ? err : done(run, failure(run, index, error), reply);
}

static err_t step_completed(run_t *run, size_t index, step_row_t *row, bytes_t result)
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

/* A simulated run goes on behind what it must not do. `input`: what would have been done. */
static err_t step_refused(run_t *run, size_t index, step_row_t *row, bytes_t input, const char *why)
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

/* The values do not fit the step; in a simulated run perhaps only because of an earlier refusal. */
static bool misfit(const run_t *run, err_t err)
{
    return err.code == ERR_NOT_FOUND || err.code == ERR_ARGUMENT || err.code == ERR_TOO_LARGE ||
           (err.code == ERR_STATE && run->row.simulate);
}

static err_t fail_misfit(run_t *run, size_t index, step_row_t *row, err_t problem, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    if (problem.code != ERR_STATE)
        return fail_at(run, index, row, err_what(problem), reply);
    bytes_t raw = step->kind == SOP_TOOL  ? step->args
                  : step->kind == SOP_LLM ? text_value(run->arena, step->prose)
                                          : text_value(run->arena, step->body);
    run->row.started++;
    return step_refused(run, index, row, raw, err_what(problem));
}

/* A person is needed; the lease is over. */
static err_t ask(run_t *run, size_t index, step_row_t *row, const char *why, perform_t *reply)
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

static err_t sleep_until(run_t *run, size_t index, step_row_t *row, const char *why,
                         perform_t *reply)
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

/* ---- beginning a step --------------------------------------------------------------------- */

/* NULL: within the budgets. */
static const char *over_budget(run_t *run, const sop_step_t *step)
{
    const sop_t *sop = run->sop;
    const run_row_t *row = &run->row;
    arena_t *arena = run->arena;
    bool calls = step->kind == SOP_TOOL || step->kind == SOP_SH;
    if (sop->max_steps && row->started >= sop->max_steps)
        return arena_printf(arena, "the budget max_steps: %" PRId64 " is used up", sop->max_steps);
    if (sop->max_wall_ms && call_now_ms(run->call) - row->created_ms > sop->max_wall_ms)
        return arena_printf(arena, "the budget max_wall of %" PRId64 " ms is used up",
                            sop->max_wall_ms);
    if (sop->max_calls && calls && row->calls >= sop->max_calls)
        return arena_printf(arena, "the budget max_calls: %" PRId64 " is used up", sop->max_calls);
    if (sop->max_tokens && step->kind == SOP_LLM && row->tokens >= sop->max_tokens)
        return arena_printf(arena, "the budget max_tokens: %" PRId64 " is used up",
                            sop->max_tokens);
    return NULL;
}

/* Our own tools remember keys; nobody knows what a script or a foreign tool does. */
static const char *replay_of(const sop_step_t *step)
{
    if (step->kind == SOP_LLM)
        return "safe";
    if (step->replay != SOP_REPLAY_UNSAID)
        return sop_replay_name(step->replay);
    return step->kind == SOP_TOOL && !strchr(step->tool, '/') ? "keyed" : "manual";
}

/* Then what its server says counts. */
static bool unsaid_foreign(const sop_step_t *step)
{
    return step->kind == SOP_TOOL && step->replay == SOP_REPLAY_UNSAID && strchr(step->tool, '/');
}

static strs_t joined_names(arena_t *arena, const sop_names_t *one, const sop_names_t *other)
{
    const char **items = ARENA_ARRAY(arena, const char *, one->count + other->count);
    if (one->count)
        memcpy(items, one->items, one->count * sizeof(*items));
    if (other->count)
        memcpy(items + one->count, other->items, other->count * sizeof(*items));
    return (strs_t){items, one->count + other->count};
}

static err_t fill_tool(run_t *run, const sop_step_t *step, const values_t *values, perform_t *reply)
{
    buf_t args;
    buf_open(&args, run->arena);
    err_t err = values_tree(run->arena, values, step->args, &args);
    reply->tool = step->tool;
    reply->args = buf_bytes(&args);
    reply->timeout_ms = step->timeout_ms          ? step->timeout_ms
                        : strchr(step->tool, '/') ? 0 /* mcp.json says it */
                                                  : TOOL_TIMEOUT_MS;
    return err;
}

static err_t fill_script(run_t *run, const sop_step_t *step, const values_t *values,
                         perform_t *reply)
{
    value_script_t script;
    err_t err = values_script(run->arena, values, step->body, step->body_size, &script);
    if (err_is(err))
        return err;
    run_variable_t *env = ARENA_ARRAY(run->arena, run_variable_t, script.count);
    for (size_t i = 0; i < script.count; i++)
        env[i] =
            (run_variable_t){.name = script.variables[i].name, .value = script.variables[i].value};
    reply->script = script.text;
    reply->env = (run_variable_list_t){env, script.count};
    reply->env_pass = joined_names(run->arena, &run->sop->env, &step->env);
    reply->has_env_pass = reply->env_pass.count > 0;
    reply->output_limit = step->output_bytes ? step->output_bytes : OUTPUT_LIMIT;
    reply->has_output_limit = true;
    reply->cwd = run->sop->cwd;
    reply->timeout_ms = step->timeout_ms ? step->timeout_ms : SH_TIMEOUT_MS;
    return err;
}

static void put_earlier(run_t *run, size_t self, const values_t *values, buf_t *out)
{
    for (size_t i = 0; i < self; i++) {
        buf_t json;
        buf_open(&json, run->arena);
        bytes_t result = values->steps[i].result;
        err_t err = result.size ? json_from_msgpack(result, JSON_COMPACT, &json) : err_ok();
        size_t size = err_is(err) ? 0 : json.size;
        bool cut = size > EARLIER_LARGEST;
        for (size = cut ? EARLIER_LARGEST : size; size && !mp_utf8(json.data, size);)
            size--;
        buf_printf(out, "%zu. %s: ", i + 1, run->sop->steps[i].title);
        buf_put(out, json.data, size);
        buf_puts(out, cut ? " ... (cut)\n" : "\n");
    }
}

/* Souls are any text, and what a proposal adds to them counts from the next step on. */
static err_t fill_soul(run_t *run, perform_t *reply)
{
    sops_version_t soul;
    err_t err = run->row.soul ? papers_read(run->call, PAPER_SOUL, run->row.soul, NULL, &soul)
                              : err_of(ERR_NOT_FOUND, NULL);
    if (err.code == ERR_NOT_FOUND)
        err = papers_read(run->call, PAPER_SOUL, "sop_engine", NULL, &soul);
    if (err.code == ERR_NOT_FOUND || err.code == ERR_ARGUMENT)
        return err_ok();
    if (!err_is(err) && mp_utf8(soul.content, soul.size) && !memchr(soul.content, 0, soul.size))
        reply->soul = soul.content;
    return err;
}

static err_t fill_prompt(run_t *run, size_t index, const values_t *values, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    const char *text = "";
    buf_t out;
    buf_open(&out, run->arena);
    err_t err = filled(run, values, step->prose, &text);
    if (err_is(err))
        return err;
    buf_printf(&out, "You carry out one step of a procedure.\n\n# %s\n\n", run->sop->title);
    buf_printf(&out, "%s\n\nInput of the run: ", run->sop->description);
    if (run->row.input.size)
        err = json_from_msgpack(run->row.input, JSON_COMPACT, &out);
    if (index)
        buf_puts(&out, "\n\nResults of the earlier steps:\n");
    put_earlier(run, index, values, &out);
    if (run->row.experience.size && !err_is(err)) {
        buf_puts(&out, "\n\nMemories of earlier work that may help:\n");
        err = json_from_msgpack(run->row.experience, JSON_COMPACT, &out);
    }
    buf_printf(&out, "\n\nYour step, number %zu of %zu: %s\n\n", index + 1, run->sop->step_count,
               step->title);
    buf_puts(&out, text);
    if (run->row.simulate)
        buf_puts(&out, "\n\nThis run is simulated: tools that change anything are refused. Call "
                       "them all the same where the step needs them, it is kept what you wanted; "
                       "then complete the step with what would have come of it.");
    buf_puts(&out, "\n\nWhen it is done call complete_step with what came of it; if it cannot be "
                   "done call fail_step and say why. Do only this step, and never claim what you "
                   "did not do.\n");
    reply->prompt = out.data;
    reply->timeout_ms = LLM_TIMEOUT_MS;
    reply->has_tokens_left = run->sop->max_tokens > 0;
    reply->tokens_left = run->sop->max_tokens - run->row.tokens;
    if (!err_is(err))
        err = fill_soul(run, reply);
    reply->tools = (strs_t){run->sop->tools.items, run->sop->tools.count};
    reply->has_tools = reply->tools.count > 0;
    return err_is(err) ? err : note_load(run, index, &reply->transcript);
}

/* What is to be performed, values filled in. ERR_NOT_FOUND, ERR_ARGUMENT, ERR_TOO_LARGE: the
 * values do not fit the step. */
static err_t fill(run_t *run, size_t index, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    values_t values;
    err_t err = values_of(run, index, &values);
    if (err_is(err))
        return err;
    reply->has_timeout_ms = true;
    if (step->kind == SOP_TOOL)
        return fill_tool(run, step, &values, reply);
    if (step->kind == SOP_SH)
        return fill_script(run, step, &values, reply);
    return fill_prompt(run, index, &values, reply);
}

/* What a step was given, for people and for the hash: args, script with its values, or prompt. */
static bytes_t given(run_t *run, const perform_t *perform)
{
    buf_t out;
    if (perform->tool)
        return perform->args;
    if (perform->prompt)
        return text_value(run->arena, perform->prompt);
    buf_open(&out, run->arena);
    mp_put_map(&out, 1 + (uint32_t)perform->env.count);
    mp_put_str(&out, "script");
    mp_put_str(&out, perform->script);
    for (size_t i = 0; i < perform->env.count; i++) {
        mp_put_str(&out, perform->env.items[i].name);
        mp_put_str(&out, perform->env.items[i].value);
    }
    return buf_bytes(&out);
}

static void describe(run_t *run, size_t index, const step_row_t *row, const effect_row_t *effect,
                     perform_t *reply)
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

/* From now on the lease is on disk. */
static err_t journal(run_t *run)
{
    if (run->task.state != TASK_LEASED)
        return err_ok();
    return tasks_journal(run->agent->tasks, run->call, &run->task);
}

/* The step is begun: its effect is intended, in the same commit. */
static err_t begin(run_t *run, size_t index, step_row_t *row, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    bytes_t input = given(run, reply);
    row->state = STEP_RUNNING;
    row->attempt++;
    row->started_ms = call_now_ms(run->call);
    row->until_ms = row->finished_ms = 0;
    row->input = input;
    row->why = row->by = NULL;
    run->row.started++;
    run->row.calls += step->kind != SOP_LLM;
    effect_row_t effect = {.state = EFFECT_INTENDED,
                           .replay = run->row.simulate ? "safe" : replay_of(step),
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
        err = journal(run);
    describe(run, index, row, &effect, reply);
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

static err_t begin_wait(run_t *run, size_t index, step_row_t *row, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    values_t values;
    const char *text = "";
    err_t err = values_of(run, index, &values);
    if (!err_is(err))
        err = filled(run, &values, step->body, &text);
    if (!err_is(err))
        err = sop_wait(run->arena, text, call_now_ms(run->call), &row->until_ms);
    if (misfit(run, err))
        return fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    row->state = STEP_WAITING;
    row->started_ms = call_now_ms(run->call);
    row->input = text_value(run->arena, text);
    run->row.started++;
    if (run->row.simulate)
        return step_completed(run, index, row, wait_result(run, row, true));
    const char *until = record_time_text(run->arena, row->until_ms);
    return sleep_until(run, index, row, arena_printf(run->arena, "waits until %s", until), reply);
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
static err_t take_branch(run_t *run, size_t index, step_row_t *row, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    values_t values;
    bool holds = false;
    size_t at;
    err_t err = values_of(run, index, &values);
    if (!err_is(err))
        err = condition_holds(run->arena, &values, step->condition, strlen(step->condition), &at,
                              &holds);
    if (misfit(run, err))
        return fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    size_t to = holds ? step->then_at : step->else_at;
    row->started_ms = call_now_ms(run->call);
    row->input = text_value(run->arena, step->condition);
    run->row.started++;
    err = step_completed(run, index, row, branch_result(run, holds, to));
    if (!err_is(err))
        err = skip_steps(run, index + 1, to,
                         arena_printf(run->arena, "step %zu (%s) is %s", index + 1, step->name,
                                      holds ? "true" : "false"));
    run->row.at = (int64_t)to;
    return err_is(err) ? err : run_save(run);
}

static err_t begin_question(run_t *run, size_t index, step_row_t *row, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    bool approve = step->kind == SOP_APPROVE;
    values_t values;
    const char *text = "";
    err_t err = values_of(run, index, &values);
    if (!err_is(err))
        err = filled(run, &values, approve ? step->body : step->prose, &text);
    if (misfit(run, err))
        return fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    row->started_ms = call_now_ms(run->call);
    run->row.started++;
    if (run->row.simulate)
        return step_refused(run, index, row, text_value(run->arena, text),
                            approve
                                ? "a person would be asked to approve"
                                : "prose: somebody would do it, with effects nobody can refuse");
    row->state = STEP_WAITING;
    row->input = text_value(run->arena, text);
    const char *how = approve ? "needs approval (approve or reject)"
                              : "is prose and no model is configured: someone must do it "
                                "(step_complete or step_fail)";
    return ask(run, index, row,
               arena_printf(run->arena, "step %zu (%s) %s: %s", index + 1, step->name, how, text),
               reply);
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
static err_t start(run_t *run, size_t index, step_row_t *row, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    const char *budget = over_budget(run, step);
    if (budget)
        return fail_at(run, index, row, budget, reply);
    if (row->until_ms > call_now_ms(run->call))
        return sleep_until(run, index, row, "pauses before it tries again", reply);
    if (step->kind == SOP_WAIT)
        return begin_wait(run, index, row, reply);
    if (step->kind == SOP_IF)
        return take_branch(run, index, row, reply);
    if (step->kind == SOP_APPROVE || (step->kind == SOP_LLM && !by_model(run)))
        return begin_question(run, index, row, reply);
    err_t err = fill(run, index, reply);
    if (misfit(run, err)) {
        *reply = (perform_t){.action = NULL};
        return fail_misfit(run, index, row, err, reply);
    }
    if (err_is(err))
        return err;
    const char *why = refusal(run, step);
    if (!why)
        return begin(run, index, row, reply);
    bytes_t input = given(run, reply);
    *reply = (perform_t){.action = NULL};
    run->row.started++;
    return step_refused(run, index, row, input, why);
}

/* ---- after a lost lease ------------------------------------------------------------------- */

static bool repeatable(const effect_row_t *effect, int64_t now_ms)
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

/* Of the step, or of what a model did inside it: a person is asked, the lease is over. */
static err_t ask_about(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect,
                       const char *why, perform_t *reply)
{
    effect->state = EFFECT_UNKNOWN;
    row->state = STEP_UNKNOWN;
    err_t err = effect_save(run, index, row->attempt, at, effect);
    return err_is(err) ? err : ask(run, index, row, doubt(run, index, effect, why), reply);
}

#define WORKER_LOST "the worker was lost before its outcome was on disk"

/* The step was running when its worker was lost. */
static err_t recover(run_t *run, size_t index, step_row_t *row, perform_t *reply)
{
    effect_row_t effect;
    err_t err = effect_load(run, index, row->attempt, 0, &effect);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_of(ERR_CORRUPT, "a step without its effect") : err;
    bool dispatched = effect.state == EFFECT_DISPATCHED;
    if (dispatched && !repeatable(&effect, call_now_ms(run->call)))
        return ask_about(run, index, row, 0, &effect, WORKER_LOST, reply);
    effect.state = EFFECT_INTENDED;
    err = effect_save(run, index, row->attempt, 0, &effect);
    if (!err_is(err))
        err = fill(run, index, reply); /* the same values again: earlier results do not change */
    if (!err_is(err))
        err = journal(run);
    describe(run, index, row, &effect, reply);
    return err;
}

/* Somebody woke the run while it waited. */
static err_t wake(run_t *run, size_t index, step_row_t *row, perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    if (step->kind == SOP_WAIT && row->until_ms > call_now_ms(run->call))
        return sleep_until(run, index, row, row->why, reply);
    if (step->kind == SOP_WAIT)
        return step_completed(run, index, row, wait_result(run, row, false));
    if (step->kind == SOP_LLM && run->agent->settings->llm)
        return start(run, index, row, reply); /* there is a model now */
    return ask(run, index, row, row->why, reply);
}

/* ---- going on ----------------------------------------------------------------------------- */

static void plant_replay(run_t *run, size_t index, step_row_t *row)
{
    step_row_t before;
    if (!index || row->state != STEP_RUNNING)
        return;
    err_t err = step_load(run, index - 1, &before);
    if (err_is(err) || before.state != STEP_COMPLETED || !before.attempt)
        return;
    before.state = STEP_PENDING;
    step_save(run, index - 1, &before);
    run->row.at--;
}

/* Until there is something to perform, to wait for, or nothing more to do. */
static err_t advance(run_t *run, perform_t *reply)
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
            err = ask(run, index, &row, row.why, reply);
            break;
        case STEP_COMPLETED:
        case STEP_REFUSED:
        case STEP_SKIPPED:
            run->row.at++;
            break;
        default:
            err = done(run, failure(run, index, row.error ? row.error : "failed"), reply);
        }
        if (err_is(err) || reply->action)
            return err;
    }
    return done(run, NULL, reply);
}

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

/* ---- experience: once per run, before its first step --------------------------------------- */

typedef struct asking {
    const char *id;
    int64_t fence;
} asking_t;

#define experience_query_FIELDS(F)                                                                 \
    F(STR, query, must, 0, 0, "What to look for.")                                                 \
    F(INT, limit, must, 0, 0, "How many.")
RECORD(experience_query, experience_query_FIELDS)

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
    return err_is(err) ? err : advance(&run, reply);
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
                           .timeout_ms = EXPERIENCE_WAIT_MS,
                           .company = call_company(run->call)};
    call_peer(run->call, &request, on_experience, asking);
    return call_park(run->call);
}

/* A run that failed goes on at the step that failed. */
static err_t reopen(run_t *run)
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
    if (row.state == STEP_FAILED) {
        row = (step_row_t){.state = STEP_PENDING, .attempt = row.attempt};
        err = step_save(run, index, &row);
    }
    return err_is(err) ? err : run_save(run);
}

/* ---- the worker's methods ----------------------------------------------------------------- */

static err_t run_next(agent_t *self, call_t *call, const run_next_args_t *args,
                      run_next_reply_t *reply)
{
    run_t run;
    err_t err = load_leased(self, call, args->id, args->fence, &run);
    if (err_is(err))
        return err;
    if (run.row.outcome) /* the task was retried or kicked */
        err = reopen(&run);
    if (err_is(err))
        return err;
    if (!run.row.asked)
        return ask_brain(&run, args->fence);
    if (bug(BUG_REPLAYED_DONE_STEP)) {
        step_row_t row = {0};
        if ((size_t)run.row.at < run.sop->step_count) {
            step_load(&run, (size_t)run.row.at, &row);
            plant_replay(&run, (size_t)run.row.at, &row);
        }
    }
    return advance(&run, reply);
}

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
    if (run.row.simulate && !args->index && !args->reads &&
        run.sop->steps[args->step].kind != SOP_LLM)
        return err_of(ERR_STATE, "the run is simulated: say `reads` when the tool only reads, else "
                                 "end the step with the outcome refused");
    reply->effect_id = effect.effect_id;
    if (bug(BUG_EFFECT_BEFORE_INTENT))
        return err_ok();
    effect.state = EFFECT_DISPATCHED;
    if (args->repeatable && !args->index && unsaid_foreign(&run.sop->steps[args->step]))
        effect.replay = "safe";
    return effect_save(&run, (size_t)args->step, row.attempt, args->index, &effect);
}

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

/* Doubling from a second, with full jitter above the half. */
static int64_t pause_ms(call_t *call, int64_t failures)
{
    uint32_t random;
    int64_t pause = RETRY_FIRST_MS;
    for (int64_t i = 1; i < failures && pause < RETRY_LONGEST_MS; i++)
        pause *= 2;
    if (pause > RETRY_LONGEST_MS)
        pause = RETRY_LONGEST_MS;
    call_random(call, &random, sizeof(random));
    return pause / 2 + (int64_t)(random % (uint32_t)(pause / 2 + 1));
}

static err_t on_error(run_t *run, size_t index, step_row_t *row, const char *error, bool retryable,
                      perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    int64_t retries = step->retries >= 0 ? step->retries : retryable ? RETRIES_UNSAID : 0;
    if (row->failures >= retries)
        return fail_at(run, index, row, error, reply);
    row->failures++;
    row->state = STEP_PENDING;
    row->error = error;
    row->until_ms = call_now_ms(run->call) + pause_ms(run->call, row->failures);
    return sleep_until(run, index, row,
                       arena_printf(run->arena, "step %zu (%s) failed and is tried again: %s",
                                    index + 1, step->name, error),
                       reply);
}

/* The worker found that the step of a simulated run would change something. */
static err_t on_refused(run_t *run, size_t index, step_row_t *row, effect_row_t *effect,
                        const char *why, perform_t *next)
{
    if (!run->row.simulate || effect->state != EFFECT_INTENDED)
        return err_of(ERR_STATE, "only a step of a simulated run is refused, before step_start");
    effect->state = EFFECT_REFUSED;
    effect->finished_ms = call_now_ms(run->call);
    run->row.calls--; /* begun, and not made */
    err_t err = effect_save(run, index, row->attempt, 0, effect);
    if (!err_is(err))
        err = step_refused(run, index, row, row->input, why ? why : "it would change something");
    return err_is(err) ? err : advance(run, next);
}

static err_t step_done(agent_t *self, call_t *call, const step_done_args_t *args,
                       step_done_reply_t *out)
{
    run_t run;
    step_row_t row;
    effect_row_t effect;
    perform_t next = {.action = NULL};
    size_t index = (size_t)args->step;
    const char *error = args->error ? args->error : "it failed without saying why";
    err_t err = load_effect(self, call, args->id, args->fence, args->step, args->index, &run, &row,
                            &effect);
    if (err_is(err))
        return no_effect(err);
    if (args->outcome == OUTCOME_REFUSED && !args->index) {
        err = on_refused(&run, index, &row, &effect, args->error, &next);
        memcpy(out, &next, sizeof(*out));
        return err;
    }
    if (args->index || !started(&effect))
        return err_of(ERR_STATE, "a step is done after step_start, with index 0");
    if (args->outcome == OUTCOME_UNKNOWN && !repeatable(&effect, call_now_ms(call))) {
        err = ask_about(&run, index, &row, 0, &effect, error, &next);
        memcpy(out, &next, sizeof(*out));
        return err;
    }
    bool good = args->outcome == OUTCOME_OK;
    if (good && args->result.size > RESULT_LARGEST) {
        good = false;
        error = "the result is larger than 1 MiB: write it to a file and give its name";
    }
    effect.state = good ? EFFECT_COMMITTED : EFFECT_FAILED;
    effect.error = good ? NULL : error;
    effect.finished_ms = call_now_ms(call);
    row.tokens += args->tokens;
    row.duration_ms += args->duration_ms;
    run.row.tokens += args->tokens;
    err = effect_save(&run, index, row.attempt, 0, &effect);
    if (err_is(err))
        return err;
    if (good) {
        bool script = run.sop->steps[index].kind == SOP_SH;
        bytes_t result = script ? trimmed(call_arena(call), args->result) : args->result;
        err = step_completed(&run, index, &row, result);
        if (!err_is(err))
            err = run_save(&run);
        if (!err_is(err))
            err = advance(&run, &next);
    } else {
        bool again = args->retryable || args->outcome == OUTCOME_UNKNOWN;
        err = on_error(&run, index, &row, error, again, &next);
    }
    memcpy(out, &next, sizeof(*out));
    return err;
}
_Static_assert(sizeof(step_done_reply_t) == sizeof(perform_t), "the same rows");

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
    perform_t ignored = {.action = NULL};
    bool dispatched = effect->state == EFFECT_DISPATCHED;
    if (dispatched && !repeatable(effect, call_now_ms(run->call))) {
        reply->state = "unknown";
        return ask_about(run, step, row, index, effect, WORKER_LOST, &ignored);
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
    if (run.sop->max_calls && run.row.calls >= run.sop->max_calls)
        return err_make(call_arena(call), ERR_QUOTA, "the budget max_calls: %" PRId64 " is used up",
                        run.sop->max_calls);
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
    if (args->outcome == OUTCOME_UNKNOWN && !repeatable(&effect, call_now_ms(call))) {
        perform_t ignored = {.action = NULL};
        reply->state = "unknown";
        return ask_about(&run, (size_t)args->step, &row, args->index, &effect,
                         args->error ? args->error : "its outcome was lost", &ignored);
    }
    bool good = args->outcome == OUTCOME_OK && args->result.size <= RESULT_LARGEST;
    effect.state = good ? EFFECT_COMMITTED : EFFECT_FAILED;
    effect.result = good ? args->result : (bytes_t){0};
    effect.error = good ? NULL : args->error ? args->error : "it failed, or said more than 1 MiB";
    effect.finished_ms = call_now_ms(call);
    reply->state = effect_state_names[effect.state];
    return effect_save(&run, (size_t)args->step, row.attempt, args->index, &effect);
}

/* ---- for the tools ------------------------------------------------------------------------ */

err_t run_settle_step(run_t *run, bool completed, bytes_t result, const char *error)
{
    size_t index = (size_t)run->row.at;
    step_row_t row;
    effect_row_t effect;
    err_t err = step_load(run, index, &row);
    if (err_is(err))
        return err;
    row.by = call_principal(run->call);
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
        err = step_failed(run, index, &row, error);
        return err_is(err) ? err : finish(run, failure(run, index, error));
    }
    err = step_completed(run, index, &row, result);
    if (!err_is(err))
        err = run_save(run);
    return err_is(err) ? err : tasks_make_ready(run->agent->tasks, run->call, &run->task);
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
        /* The attempts go on counting: what is done again has a new effect id. */
        row = (step_row_t){.state = STEP_PENDING, .attempt = row.attempt};
        err = step_save(run, i, &row);
        if (!err_is(err))
            err = note_drop(run, i);
        if (err_is(err))
            return err;
    }
    run->row.at = (int64_t)index;
    run->row.outcome = run->row.error = NULL;
    run->row.finished_ms = 0;
    err_t err = run_save(run);
    return err_is(err) ? err : tasks_make_ready(run->agent->tasks, run->call, &run->task);
}

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
