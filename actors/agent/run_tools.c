/* The tools with which people and clients start, watch and steer runs. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/run_state.h"
#include "actors/agent/values.h"
#include "proto/json.h"
#include "proto/mp.h"

#define RUN_ID_ROW(F) F(STR, id, must, 1, 128, "Id of the run.")

#define sop_execute_ARGS(F)                                                                        \
    F(STR, name, must, 1, 80, "Name of the procedure, with or without .md.")                       \
    F(JSON, input, opt(), 0, 0,                                                                    \
      "What it works on: an object, or text (which counts as the only required input).")           \
    F(INT, wait_ms, opt(), 0, 3600000,                                                             \
      "How long to wait for the end; absent: as the setting sop_wait_ms says, 0: not at all.")     \
    F(INT, priority, opt(5), 0, 9, "9 is the most urgent.")                                        \
    F(STR, idempotency_key, opt(), 1, 128, "The same key again gives the first run.")              \
    F(BOOL, simulate, opt(false), 0, 0,                                                            \
      "Refuse outside effects: only tools that read are called; the rest is listed as refused.")   \
    F(STR, soul, opt(), 1, 64,                                                                     \
      "Whose soul a model is given for its steps of prose; absent: that of sop_engine.")           \
    COMPANY_ROW(F)
#define sop_execute_REPLY(F) RUN_VIEW_ROWS(F)

#define run_get_ARGS(F) RUN_ID_ROW(F) COMPANY_ROW(F)
#define run_get_REPLY(F) RUN_VIEW_ROWS(F)

#define run_wait_ARGS(F)                                                                           \
    RUN_ID_ROW(F)                                                                                  \
    F(INT, wait_ms, opt(), 0, 3600000, "How long; absent: as the setting sop_wait_ms says.")       \
    COMPANY_ROW(F)
#define run_wait_REPLY(F) RUN_VIEW_ROWS(F)

#define tool_run_ARGS(F)                                                                           \
    F(STR, tool, must, 1, 64, "Name of the tool.")                                                 \
    F(ANY, args, opt(), 0, 0, "Its arguments.")                                                    \
    COMPANY_ROW(F)
#define tool_run_REPLY(F) RUN_VIEW_ROWS(F)

#define run_retry_from_ARGS(F)                                                                     \
    RUN_ID_ROW(F)                                                                                  \
    F(STR, step, must, 1, 80, "Name or number of the step; it and all behind it are done again.")  \
    COMPANY_ROW(F)
#define run_retry_from_REPLY(F) RUN_VIEW_ROWS(F)

#define STEP_MEANT_ROW(F)                                                                          \
    F(STR, step, opt(), 1, 80, "Name or number of the step, to be sure it is the one meant.")

#define approve_ARGS(F)                                                                            \
    RUN_ID_ROW(F)                                                                                  \
    STEP_MEANT_ROW(F)                                                                              \
    F(STR, note, opt(), 0, 4096, "Remark; kept with the run.")                                     \
    COMPANY_ROW(F)
#define approve_REPLY(F) RUN_VIEW_ROWS(F)

#define reject_ARGS(F)                                                                             \
    RUN_ID_ROW(F)                                                                                  \
    STEP_MEANT_ROW(F)                                                                              \
    F(STR, why, must, 1, 4096, "Reason; the run fails with it.")                                   \
    COMPANY_ROW(F)
#define reject_REPLY(F) RUN_VIEW_ROWS(F)

#define step_complete_ARGS(F)                                                                      \
    RUN_ID_ROW(F)                                                                                  \
    STEP_MEANT_ROW(F)                                                                              \
    F(JSON, result, opt(), 0, 0, "What came of it; later steps refer to its fields.")              \
    COMPANY_ROW(F)
#define step_complete_REPLY(F) RUN_VIEW_ROWS(F)

#define step_fail_ARGS(F)                                                                          \
    RUN_ID_ROW(F)                                                                                  \
    STEP_MEANT_ROW(F)                                                                              \
    F(STR, error, must, 1, 4096, "Why it cannot be done; the run fails with it.")                  \
    COMPANY_ROW(F)
#define step_fail_REPLY(F) RUN_VIEW_ROWS(F)

#define RUN_TOOLS_METHODS(M)                                                                       \
    M(agent_t, sop_execute, TOOL | WRITES | OPEN_WORLD | LONG,                                     \
      "Run a procedure durably; waits for the end, or answers with the id of the run.")            \
    M(agent_t, run_get, TOOL | READS, "A run: every step with state, attempt, input, result.")     \
    M(agent_t, run_wait, READS | PARKS, "The same, when it has ended or waits for somebody.")      \
    M(agent_t, tool_run, WRITES | OPEN_WORLD | AUDITED,                                            \
      "Call one tool durably: a run of one step, for gateways whose clients have tasks.")          \
    M(agent_t, run_retry_from, TOOL | WRITES | OPEN_WORLD,                                         \
      "Go on with a run that failed or waits, from a step that is done again.")                    \
    M(agent_t, approve, TOOL | WRITES, "Approve what a run waits for.")                            \
    M(agent_t, reject, TOOL | WRITES, "Reject what a run waits for; the run fails.")               \
    M(agent_t, step_complete, TOOL | WRITES,                                                       \
      "Complete a step of prose, or one of which nobody knows whether it happened.")               \
    M(agent_t, step_fail, TOOL | WRITES, "Say that such a step cannot be done; the run fails.")

RUN_TOOLS_METHODS(METHOD_DECLARE_)
const method_t run_tools_methods[] = {RUN_TOOLS_METHODS(METHOD_ROW_){.name = NULL}};

enum { ANSWER_MARGIN_MS = 500 /* before the caller's own deadline */ };

/* ---- answers ------------------------------------------------------------------------------ */

static void say_simulated(run_t *run, const run_view_t *view, buf_t *out)
{
    buf_printf(out, "SOP '%s' was simulated: outside effects were refused.\nSummary:", view->title);
    for (size_t i = 0; i < view->steps.count; i++) {
        const run_step_t *step = &view->steps.items[i];
        bool refused = !strcmp(step->state, "refused");
        const char *words = run_words(run->arena, refused ? step->input : step->result);
        buf_printf(out, "\nStep %zu %s: %s%s%s", i + 1, step->state, step->title,
                   !*words   ? ""
                   : refused ? ": would do "
                             : ": ",
                   words);
    }
}

static void say_completed(run_t *run, const run_view_t *view, buf_t *out)
{
    buf_printf(out, "SOP '%s' executed successfully.\nSummary:", view->title);
    for (size_t i = 0; i < view->steps.count; i++) {
        const run_step_t *step = &view->steps.items[i];
        const char *words = run_words(run->arena, step->result);
        buf_printf(out, "\nStep %zu %s: %s%s%s", i + 1, step->state, step->title,
                   *words ? ": " : "", words);
    }
}

static void say_unfinished(const run_view_t *view, buf_t *out)
{
    buf_printf(out, "SOP '%s' is not finished: the run %s is %s.", view->title, view->id,
               view->state);
    if (view->why && *view->why)
        buf_printf(out, "\nIt waits: %s", view->why);
    for (size_t i = 0; i < view->steps.count; i++) {
        const run_step_t *step = &view->steps.items[i];
        buf_printf(out, "\nStep %zu %s: %s", i + 1, step->state, step->title);
        if (step->child)
            buf_printf(out, " (run %s)", step->child);
        if (step->has_total && step->total)
            buf_printf(out, " (%lld of %lld items are over)", (long long)step->finished,
                       (long long)step->total);
    }
}

static void say(run_t *run, const run_view_t *view)
{
    buf_t out;
    buf_open(&out, run->arena);
    const char *outcome = run->row.outcome;
    if (outcome && !strcmp(outcome, "completed"))
        (run->row.simulate ? say_simulated : say_completed)(run, view, &out);
    else if (outcome || run->task.state == TASK_FAILED)
        buf_printf(&out, "Error executing SOP '%s': %s\nRun: %s", view->title,
                   view->error ? view->error : "it failed", view->id);
    else
        say_unfinished(view, &out);
    call_say_text(run->call, out.data);
}

/* All tools here answer with the run as it is. The replies are made of the same rows. */
static err_t answer(run_t *run, void *reply)
{
    run_view_t view;
    err_t err = run_show(run, &view);
    if (err_is(err))
        return err;
    say(run, &view);
    memcpy(reply, &view, sizeof(view));
    return err;
}
_Static_assert(sizeof(run_view_t) == sizeof(sop_execute_reply_t), "the same rows");
_Static_assert(sizeof(run_view_t) == sizeof(approve_reply_t), "the same rows");
_Static_assert(sizeof(run_view_t) == sizeof(run_wait_reply_t), "the same rows");

/* After a change: the task is in another state now. */
static err_t answer_anew(agent_t *self, call_t *call, const char *id, void *reply)
{
    run_t run;
    err_t err = run_load(self, call, id, true, &run);
    return err_is(err) ? err : answer(&run, reply);
}

/* ---- sop_execute -------------------------------------------------------------------------- */

static err_t on_settled(void *state, call_t *call, void *reply, void *ctx)
{
    agent_t *self = state;
    run_t run;
    tasks_off_settled(self->tasks, call); /* when the time was up, it still waits */
    err_t err = run_load(self, call, ctx, false, &run);
    return err_is(err) ? err : answer(&run, reply);
}

/* `wanted` below 0: as the setting says. */
static int64_t patience_ms(const agent_t *self, call_t *call, int64_t wanted)
{
    int64_t wait = wanted >= 0 ? wanted : self->settings->sop_wait_ms;
    int64_t left = call_left_ms(call);
    if (left == INT64_MAX)
        return wait;
    left -= left > 2 * ANSWER_MARGIN_MS ? ANSWER_MARGIN_MS : left / 2;
    return wait < left ? wait : left;
}

/* Answers when the run has ended, waits for somebody, or the time is up. */
static err_t wait_for(run_t *run, int64_t wait_ms, void *reply)
{
    call_t *call = run->call;
    task_state_t state = (task_state_t)run->task.state;
    const char *inside;
    int64_t patience = patience_ms(run->agent, call, wait_ms);
    bool settled = state == TASK_INPUT_REQUIRED || state == TASK_FAILED ||
                   state == TASK_CANCELLED || state == TASK_BURIED || run->row.outcome ||
                   run_needs(run, &inside);
    if (patience <= 0 || settled)
        return answer(run, reply);
    char *copy = arena_strdup(call_arena(call), run->id);
    tasks_on_settled(run->agent->tasks, call, copy, on_settled, copy);
    call_resume_after(call, patience, on_settled, copy);
    return call_park(call);
}

/* A simulated run must not pass for a real one because of its key, nor the other way round. */
static err_t same_reality(agent_t *self, call_t *call, const char *id, bool simulate)
{
    run_t run;
    err_t err = run_load(self, call, id, true, &run);
    if (err_is(err) || run.row.simulate == simulate)
        return err;
    return err_make(call_arena(call), ERR_STATE,
                    "the idempotency key belongs to the run %s, which is %s: give another key", id,
                    simulate ? "real" : "simulated");
}

static err_t submit(agent_t *self, call_t *call, const sop_execute_args_t *args,
                    const sops_version_t *version, bytes_t input, const char **id)
{
    bool existed = false;
    /* It waits for the end, so a crash meanwhile makes the caller send it again. */
    run_new_t new = {.version = version,
                     .input = input,
                     .priority = args->priority,
                     .key = args->idempotency_key ? args->idempotency_key : call_identity(call),
                     .by = call_principal(call),
                     .soul = args->soul,
                     .simulate = args->simulate};
    err_t err = run_begin(self, call, &new, id, &existed);
    return !err_is(err) && existed ? same_reality(self, call, *id, args->simulate) : err;
}

err_t runs_submit(agent_t *agent, call_t *call, const char *name, bytes_t given, int64_t priority,
                  const char *key, const char **id)
{
    sops_version_t version;
    bytes_t input;
    sop_execute_args_t args = {.name = name, .priority = priority, .idempotency_key = key};
    err_t err = sops_current(call, name, &version);
    if (err_is(err))
        return err;
    if (!version.sop)
        return err_make(call_arena(call), version.err.code, "the procedure '%s' cannot run: %s",
                        version.name, err_what(version.err));
    err = sop_input(call_arena(call), version.sop, given, &input);
    return err_is(err) ? err : submit(agent, call, &args, &version, input, id);
}

static err_t begin_run(agent_t *self, call_t *call, const sop_execute_args_t *args, run_t *run)
{
    sops_version_t version;
    bytes_t input = {0};
    const char *id, *soul;
    err_t err = sops_current(call, args->name, &version);
    if (!err_is(err) && args->soul)
        err = sops_name(call_arena(call), args->soul, &soul);
    if (!err_is(err) && !version.sop)
        err = version.err;
    if (!err_is(err))
        err = sop_input(call_arena(call), version.sop, args->input, &input);
    if (!err_is(err))
        err = submit(self, call, args, &version, input, &id);
    return err_is(err) ? err : run_load(self, call, id, true, run);
}

static err_t sop_execute(agent_t *self, call_t *call, const sop_execute_args_t *args,
                         sop_execute_reply_t *reply)
{
    run_t run;
    err_t err = begin_run(self, call, args, &run);
    if (err_is(err))
        return err_make(call_arena(call), err.code, "Error executing SOP '%.128s': %s", args->name,
                        err_what(err));
    return wait_for(&run, args->has_wait_ms ? args->wait_ms : -1, reply);
}

static err_t run_wait(agent_t *self, call_t *call, const run_wait_args_t *args,
                      run_wait_reply_t *reply)
{
    run_t run;
    err_t err = run_load(self, call, args->id, false, &run);
    return err_is(err) ? err : wait_for(&run, args->has_wait_ms ? args->wait_ms : -1, reply);
}

/* ---- tool_run ----------------------------------------------------------------------------- */

/* The procedure of one step that calls the tool. It depends only on which arguments there are, so
 * few versions are kept. Tools that may be long can be called again, or know the key. */
static err_t one_step(call_t *call, const char *tool, bytes_t args, const char **content)
{
    arena_t *arena = call_arena(call);
    buf_t inputs, values, out;
    bytes_t key, value;
    mp_value_t head = {.count = 0};
    mp_reader_t reader = mp_reader(args);
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    if (!mp_read(&reader, &head) || head.type != MP_MAP || head.count > 64)
        return err_of(ERR_ARGUMENT, "args must be an object of at most 64 members");
    buf_open(&inputs, arena);
    buf_open(&values, arena);
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key); i++) {
        const char *name = mp_text(arena, key);
        if (!name || !*name || strlen(name) > 64 || name[strspn(name, fine)] ||
            !mp_slice(&reader, &value))
            return err_of(ERR_ARGUMENT, "args has a member that no tool has");
        buf_printf(&inputs, "%s%s", i ? ", " : "", name);
        buf_printf(&values, "%s\n     \"%s\": \"{{input.%s}}\"", i ? "," : "", name, name);
    }
    buf_open(&out, arena);
    if (head.count)
        buf_printf(&out, "---\ninputs: %s\n---\n", inputs.data);
    buf_printf(
        &out,
        "# %s\n\n1. **Call**\n\n   ```tool replay=keyed timeout=24h\n   %s {%s\n   }\n   ```\n",
        tool, tool, values.data ? values.data : "");
    *content = out.data;
    return err_ok();
}

static err_t tool_run(agent_t *self, call_t *call, const tool_run_args_t *args,
                      tool_run_reply_t *reply)
{
    const char *content, *id;
    sops_version_t version;
    bytes_t input;
    run_t run;
    bytes_t given = args->args.size ? args->args : (bytes_t){(const uint8_t *)"\x80", 1};
    if (args->tool[strspn(args->tool, "abcdefghijklmnopqrstuvwxyz0123456789_")])
        return err_make(call_arena(call), ERR_ARGUMENT, "'%s' is no name of a tool", args->tool);
    err_t err = one_step(call, args->tool, given, &content);
    if (!err_is(err))
        err = sops_keep(call, arena_printf(call_arena(call), "tool:%s", args->tool), content,
                        &version);
    if (!err_is(err))
        err = sop_input(call_arena(call), version.sop, given, &input);
    if (!err_is(err))
        err = submit(self, call, &(sop_execute_args_t){.priority = 5}, &version, input, &id);
    if (!err_is(err))
        err = run_load(self, call, id, true, &run);
    return err_is(err) ? err : answer(&run, reply);
}

/* ---- looking ------------------------------------------------------------------------------ */

static err_t run_get(agent_t *self, call_t *call, const run_get_args_t *args,
                     run_get_reply_t *reply)
{
    run_t run;
    err_t err = run_load(self, call, args->id, false, &run);
    return err_is(err) ? err : answer(&run, reply);
}

/* ---- steering ----------------------------------------------------------------------------- */

/* The step by name or number. */
static err_t find_step(const run_t *run, const char *text, size_t *index)
{
    const char *slug = value_slug(run->arena, text, strlen(text));
    bool number = text[strspn(text, "0123456789")] == '\0' && strlen(text) <= 6;
    for (size_t i = 0; i < run->sop->step_count; i++)
        if (number ? (size_t)atol(text) == i + 1 : !strcmp(run->sop->steps[i].name, slug)) {
            *index = i;
            return err_ok();
        }
    return err_make(run->arena, ERR_ARGUMENT, "the run has no step '%s': it has %zu, see run_get",
                    text, run->sop->step_count);
}

/* A run that waits for a person, and its present step. `text` NULL: whichever it is. */
static err_t load_waiting(agent_t *self, call_t *call, const char *id, const char *text, run_t *run,
                          step_row_t *row)
{
    size_t index;
    err_t err = run_load(self, call, id, true, run);
    if (err_is(err))
        return err;
    if (run->task.state != TASK_INPUT_REQUIRED || (size_t)run->row.at >= run->sop->step_count)
        return err_make(run->arena, ERR_STATE, "the run waits for nobody: it is %s%s%s",
                        task_state_names[run->task.state], run->task.why ? ": " : "",
                        run->task.why ? run->task.why : "");
    err = text ? find_step(run, text, &index) : err_ok();
    if (err_is(err))
        return err;
    if (text && index != (size_t)run->row.at)
        return err_make(run->arena, ERR_STATE, "the run waits at step %d (%s), not at '%s'",
                        (int)run->row.at + 1, run->sop->steps[run->row.at].name, text);
    return step_load(run, (size_t)run->row.at, row);
}

static err_t load_approval(agent_t *self, call_t *call, const char *id, const char *text,
                           run_t *run)
{
    step_row_t row;
    err_t err = load_waiting(self, call, id, text, run, &row);
    if (err_is(err))
        return err;
    const sop_step_t *step = &run->sop->steps[run->row.at];
    if (step->kind == SOP_APPROVE && row.state == STEP_WAITING)
        return err_ok();
    return err_make(run->arena, ERR_STATE,
                    "step %d (%s) waits for no approval: use step_complete or step_fail",
                    (int)run->row.at + 1, step->name);
}

static bytes_t approval(call_t *call, const char *note)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    mp_put_map(&out, note ? 4 : 3);
    mp_put_str(&out, "approved");
    mp_put_bool(&out, true);
    mp_put_str(&out, "by");
    mp_put_str(&out, call_principal(call));
    mp_put_str(&out, "at");
    mp_put_str(&out, record_time_text(call_arena(call), call_now_ms(call)));
    if (note) {
        mp_put_str(&out, "note");
        mp_put_str(&out, note);
    }
    return buf_bytes(&out);
}

static err_t approve(agent_t *self, call_t *call, const approve_args_t *args,
                     approve_reply_t *reply)
{
    run_t run;
    err_t err = load_approval(self, call, args->id, args->step, &run);
    if (!err_is(err))
        err = run_settle_step(&run, true, approval(call, args->note), NULL);
    return err_is(err) ? err : answer_anew(self, call, args->id, reply);
}

static err_t reject(agent_t *self, call_t *call, const reject_args_t *args, reject_reply_t *reply)
{
    run_t run;
    err_t err = load_approval(self, call, args->id, args->step, &run);
    if (!err_is(err))
        err = run_settle_step(
            &run, false, (bytes_t){0},
            arena_printf(call_arena(call), "rejected by %s: %s", call_principal(call), args->why));
    return err_is(err) ? err : answer_anew(self, call, args->id, reply);
}

/* Prose that waits, or any step in doubt; approvals have their own tools. */
static err_t load_open_step(agent_t *self, call_t *call, const char *id, const char *text,
                            run_t *run)
{
    step_row_t row;
    err_t err = load_waiting(self, call, id, text, run, &row);
    if (err_is(err))
        return err;
    if (run->sop->steps[run->row.at].kind == SOP_APPROVE && row.state == STEP_WAITING)
        return err_make(run->arena, ERR_STATE,
                        "step %d (%s) waits for an approval: use approve or reject",
                        (int)run->row.at + 1, run->sop->steps[run->row.at].name);
    return err_ok();
}

static err_t step_complete(agent_t *self, call_t *call, const step_complete_args_t *args,
                           step_complete_reply_t *reply)
{
    run_t run;
    err_t err = load_open_step(self, call, args->id, args->step, &run);
    if (!err_is(err))
        err = run_check_result(&run, args->result);
    if (!err_is(err))
        err = run_settle_step(&run, true, args->result, NULL);
    return err_is(err) ? err : answer_anew(self, call, args->id, reply);
}

static err_t step_fail(agent_t *self, call_t *call, const step_fail_args_t *args,
                       step_fail_reply_t *reply)
{
    run_t run;
    err_t err = load_open_step(self, call, args->id, args->step, &run);
    if (!err_is(err))
        err = run_settle_step(&run, false, (bytes_t){0}, args->error);
    return err_is(err) ? err : answer_anew(self, call, args->id, reply);
}

static err_t run_retry_from(agent_t *self, call_t *call, const run_retry_from_args_t *args,
                            run_retry_from_reply_t *reply)
{
    run_t run;
    size_t index;
    err_t err = run_load(self, call, args->id, true, &run);
    if (!err_is(err))
        err = find_step(&run, args->step, &index);
    if (err_is(err))
        return err;
    task_state_t state = (task_state_t)run.task.state;
    if (state != TASK_FAILED && state != TASK_INPUT_REQUIRED && state != TASK_WAITING_TIMER &&
        state != TASK_WAITING_CHILD && state != TASK_BURIED && state != TASK_CANCELLED)
        return err_make(
            call_arena(call), ERR_STATE,
            "the run is %s: only one that failed, waits, was cancelled or buried can go on from "
            "an earlier step",
            task_state_names[state]);
    if ((int64_t)index > run.row.at)
        return err_make(call_arena(call), ERR_ARGUMENT,
                        "the run has only come to step %d: it can go on from there or earlier",
                        (int)run.row.at + 1);
    err = run_rewind(&run, index);
    return err_is(err) ? err : answer_anew(self, call, args->id, reply);
}
