/* run_drive: how a run goes on. Inside runs only. All of it works in the entry that loaded the run:
 * what is journalled is on disk with the commit of that entry, and all memory is the call's.
 *
 *   runs.c       the worker's methods: what is next, that it begins, what came of it
 *   run_drive.c  what comes next: a step to perform, something to wait for, or the end
 *   run_fill.c   what a step is given: its text with the values of earlier steps
 *   run_ends.c   how a step ends or pauses, what that means for the run and its task
 *   run_child.c  a procedure within a procedure
 *   run_each.c   the same for each item of a list
 *
 * Functions with a `reply` set reply->action when the worker is to be answered; as long as it is
 * NULL the run goes on. Thread: the agent's.
 */
#ifndef AGENT_RUN_DRIVE_H
#define AGENT_RUN_DRIVE_H

#include "actors/agent/run_state.h"
#include "actors/agent/values.h"

#define run_variable_FIELDS(F)                                                                     \
    F(STR, name, must, 1, 128, "Name of the variable.")                                            \
    F(STR, value, must, 0, 0, "Its value.")
RECORD_STRUCT(run_variable, run_variable_FIELDS)
extern const record_t run_variable_record;

#define RUN_PERFORM_ROWS(F)                                                                        \
    F(STR, action, must, 0, 0, "perform, wait (the lease is over) or done (so is the run).")       \
    F(STR, why, opt(), 0, 0, "wait: what for; done: how it ended.")                                \
    F(STR, sop, opt(), 0, 0, "Name of the procedure.")                                             \
    F(INT, step, opt(), 0, 0, "Index of the step.")                                                \
    F(STR, name, opt(), 0, 0, "Name of the step.")                                                 \
    F(STR, title, opt(), 0, 0, "Title of the step.")                                               \
    F(STR, kind, opt(), 0, 0, "tool, sh or llm.")                                                  \
    F(INT, index, opt(0), 0, 0, "Of its effect, for step_start and step_done; each: the item's.")  \
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

RECORD_STRUCT(run_perform, RUN_PERFORM_ROWS)

/* ---- run_drive.c ---- */

/* Goes on until there is something to perform, to wait for, or nothing more to do. */
err_t run_advance(run_t *run, run_perform_t *reply);
/* A run that failed goes on at the step that failed. */
err_t run_reopen(run_t *run);
/* From now on the lease is on disk. */
err_t run_journal(run_t *run);
/* What the worker is told of every step. */
void run_describe(run_t *run, size_t index, const step_row_t *row, const effect_row_t *effect,
                  run_perform_t *reply);
/* Our own tools remember keys; nobody knows what a script or a foreign tool does. */
const char *run_replay_of(const sop_step_t *step);
/* The values do not fit the step; in a simulated run perhaps only because of an earlier refusal. */
bool run_misfit(const run_t *run, err_t err);
err_t run_fail_misfit(run_t *run, size_t index, step_row_t *row, err_t problem,
                      run_perform_t *reply);

/* ---- run_fill.c ---- */

/* Everything that references of step `self` may name. */
err_t run_values(run_t *run, size_t self, values_t *values);
/* A text with its references replaced. Errors of values_text. */
err_t run_filled(run_t *run, const values_t *values, const char *text, const char **out);
/* What is to be performed, values filled in. ERR_NOT_FOUND, ERR_ARGUMENT, ERR_TOO_LARGE: the
 * values do not fit the step; ERR_STATE: one is of a refused step. */
err_t run_fill(run_t *run, size_t index, run_perform_t *reply);
/* A tool with its arguments, values filled in. */
err_t run_fill_tool(run_t *run, const sop_step_t *step, const values_t *values,
                    run_perform_t *reply);
/* What run_fill gave the step, for people and for the hash: args, script with its values, prompt.
 */
bytes_t run_given(run_t *run, const run_perform_t *perform);

/* ---- run_ends.c ---- */

/* The run and its task are completed. */
err_t run_completed(run_t *run, run_perform_t *reply);
/* The run fails with the error of a step. */
err_t run_failed(run_t *run, size_t index, const char *error, run_perform_t *reply);

err_t run_step_completed(run_t *run, size_t index, step_row_t *row, bytes_t result);
/* The step and with it the run fail. */
err_t run_step_failed(run_t *run, size_t index, step_row_t *row, const char *error,
                      run_perform_t *reply);
/* A simulated run goes on behind what it must not do. `input`: what would have been done. */
err_t run_step_refused(run_t *run, size_t index, step_row_t *row, bytes_t input, const char *why);

/* A person is needed; the lease is over. */
err_t run_ask(run_t *run, size_t index, step_row_t *row, const char *why, run_perform_t *reply);
/* Nothing is to be done before row->until_ms; the lease is over. */
err_t run_sleep(run_t *run, size_t index, step_row_t *row, const char *why, run_perform_t *reply);

/* Pause after so many failures in a row: doubles, with jitter. */
int64_t run_pause_ms(const run_t *run, int64_t failures);
/* The company has too many tasks for one more: later. */
err_t run_no_room(run_t *run, size_t index, step_row_t *row, const char *why, run_perform_t *reply);

/* May an effect that was dispatched be dispatched again? */
bool run_repeatable(const effect_row_t *effect, int64_t now_ms);
/* Nobody knows whether effect `at` of the step happened, because of `why`: a person is asked. */
err_t run_ask_about(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect,
                    const char *why, run_perform_t *reply);
#define RUN_WORKER_LOST "the worker was lost before its outcome was on disk"

/* ---- run_child.c ---- */

/* How the run of a step ended. */
typedef struct run_end {
    bool over;
    bool unknown; /* simulated: its result is not known, because its last step was refused */
    const char *error;
    bytes_t result;
    int64_t tokens, duration_ms;
} run_end_t;

/* The procedure for a step: the current version, or the one with the hash. ERR_NOT_FOUND,
 * ERR_ARGUMENT: it has errors, is carried out further up, or is too deep. */
err_t run_procedure(run_t *run, const char *name, const char *hash, sops_version_t *version);
/* Submits its run, in the commit that dispatches the effect: sets state and child. ERR_ARGUMENT:
 * the input does not fit; ERR_QUOTA. */
err_t run_begin_child(run_t *run, const sops_version_t *version, bytes_t given,
                      effect_row_t *effect);
err_t run_child_end(run_t *run, const char *id, run_end_t *end);
/* The lease is over until a run that the step began ends. */
err_t run_wait_child(run_t *run, size_t index, step_row_t *row, const char *why,
                     run_perform_t *reply);
/* Cancels the runs of the step that are not over. */
err_t run_stop_step(run_t *run, size_t index, const step_row_t *row, const char *why);

err_t run_sop_begin(run_t *run, size_t index, step_row_t *row, run_perform_t *reply);
err_t run_sop_go_on(run_t *run, size_t index, step_row_t *row, run_perform_t *reply);

/* ---- run_each.c ---- */

/* What came of an item that a worker performed. */
typedef struct run_outcome_of {
    bool good, refused, unknown, retryable;
    bytes_t result;
    const char *error;
    int64_t duration_ms;
} run_outcome_of_t;

err_t run_each_begin(run_t *run, size_t index, step_row_t *row, run_perform_t *reply);
err_t run_each_go_on(run_t *run, size_t index, step_row_t *row, run_perform_t *reply);
/* Effect `at` of the step has this outcome, and the run goes on. */
err_t run_each_outcome(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect,
                       const run_outcome_of_t *outcome, run_perform_t *reply);
/* A person says what came of the item in doubt. *stop: why the step fails because of it; else it is
 * to go on. */
err_t run_each_settle(run_t *run, size_t index, step_row_t *row, const run_outcome_of_t *outcome,
                      const char **stop);
/* The step did not come to its end and is done again: items that are done stay done. */
err_t run_each_again(run_t *run, size_t index, step_row_t *row);
/* Is there anything to keep in it? */
bool run_each_keeps(const run_t *run, size_t index, const step_row_t *row);

#endif
