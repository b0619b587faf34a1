/* run_state: what is stored about a run, and how it looks to people. Inside runs only. */
#ifndef AGENT_RUN_STATE_H
#define AGENT_RUN_STATE_H

#include <string.h>

#include "actors/agent/agent.h"

#define run_step_state_VALUES(V)                                                                   \
    V(STEP_PENDING, "pending")                                                                     \
    V(STEP_RUNNING, "running")                                                                     \
    V(STEP_WAITING, "waiting")                                                                     \
    V(STEP_UNKNOWN, "unknown")                                                                     \
    V(STEP_COMPLETED, "completed")                                                                 \
    V(STEP_FAILED, "failed")                                                                       \
    V(STEP_REFUSED, "refused")                                                                     \
    V(STEP_SKIPPED, "skipped")
RECORD_ENUM(run_step_state, run_step_state_VALUES)

#define effect_state_VALUES(V)                                                                     \
    V(EFFECT_INTENDED, "intended")                                                                 \
    V(EFFECT_DISPATCHED, "dispatched")                                                             \
    V(EFFECT_COMMITTED, "committed")                                                               \
    V(EFFECT_FAILED, "failed")                                                                     \
    V(EFFECT_UNKNOWN, "unknown")                                                                   \
    V(EFFECT_REFUSED, "refused")
RECORD_ENUM(effect_state, effect_state_VALUES)

/* Table runs, key: id. */
#define run_row_FIELDS(F)                                                                          \
    F(STR, sop, must, 0, 0, "Name of the procedure.")                                              \
    F(STR, hash, must, 0, 0, "Version of the procedure; it never changes.")                        \
    F(STR, title, must, 0, 0, "Title of the procedure.")                                           \
    F(ANY, input, opt(), 0, 0, "What it was given.")                                               \
    F(TIME, created_ms, must, 0, 0, "When it was submitted.")                                      \
    F(TIME, finished_ms, opt(), 0, 0, "When it ended.")                                            \
    F(INT, at, must, 0, 0, "Index of the present step; after the last: all are done.")             \
    F(INT, started, must, 0, 0, "Steps started, repetitions included.")                            \
    F(INT, tokens, must, 0, 0, "Tokens used.")                                                     \
    F(INT, calls, must, 0, 0, "Tool calls and scripts.")                                           \
    F(INT, finishes, must, 0, 0, "How often it ended; run_retry_from goes on again.")              \
    F(STR, outcome, opt(), 0, 0, "completed or failed; absent while it goes on.")                  \
    F(STR, error, opt(), 0, 0, "Why it failed.")                                                   \
    F(BOOL, asked, must, 0, 0, "The brain was asked for experience.")                              \
    F(ANY, experience, opt(), 0, 0, "What the brain remembered of such runs.")                     \
    F(BOOL, simulate, opt(false), 0, 0, "Outside effects are refused.")                            \
    F(STR, soul, opt(), 0, 0, "Whose soul stands in front of its prose; absent: sop_engine.")      \
    F(STR, parent, opt(), 0, 0, "The run whose step began it.")                                    \
    F(INT, depth, opt(0), 0, 0, "How many runs it is inside of.")                                  \
    F(INT, max_steps, opt(0), 0, 0, "Budgets of the procedure, for the runs inside; 0: none.")     \
    F(INT, max_calls, opt(0), 0, 0, "The same.")                                                   \
    F(INT, max_tokens, opt(0), 0, 0, "The same.")                                                  \
    F(INT, max_wall_ms, opt(0), 0, 0, "The same.")
RECORD_STRUCT(run_row, run_row_FIELDS)

/* Table run_steps, key: id, index. */
#define step_row_FIELDS(F)                                                                         \
    F(ENUM(run_step_state), state, must, 0, 0, "Where the step is.")                               \
    F(INT, attempt, must, 0, 0, "How often it was begun with an effect of its own.")               \
    F(INT, failures, must, 0, 0, "Failures since it was last retried by a person.")                \
    F(TIME, started_ms, opt(), 0, 0, "When it was begun last.")                                    \
    F(TIME, finished_ms, opt(), 0, 0, "When it ended.")                                            \
    F(TIME, until_ms, opt(), 0, 0, "Not before then: end of a wait or of a pause.")                \
    F(ANY, input, opt(), 0, 0, "What was to be done, values filled in.")                           \
    F(ANY, result, opt(), 0, 0, "What came of it.")                                                \
    F(STR, error, opt(), 0, 0, "Why it failed, or why the last attempt did.")                      \
    F(STR, why, opt(), 0, 0, "What it waits for.")                                                 \
    F(STR, by, opt(), 0, 0, "Who decided or completed it.")                                        \
    F(INT, tokens, must, 0, 0, "Tokens used.")                                                     \
    F(INT, duration_ms, must, 0, 0, "Time spent performing.")                                      \
    F(INT, items, opt(0), 0, 0, "each: length of its list.")                                       \
    F(INT, next, opt(0), 0, 0, "each: items before this one are done or under way.")               \
    F(INT, bytes, opt(0), 0, 0, "each: size of the results so far.")                               \
    F(ANY, open, opt(), 0, 0, "each: places of the items whose runs are under way.")               \
    F(STR, version, opt(), 0, 0, "each: hash of the procedure that all its items follow.")
RECORD_STRUCT(step_row, step_row_FIELDS)

/* Table effects, key: id, index of the step, attempt, index of the effect: 0 is the step's own,
 * from 1 on those inside a step of prose, or the items of an each. */
#define effect_row_FIELDS(F)                                                                       \
    F(ENUM(effect_state), state, must, 0, 0, "Where the effect is.")                               \
    F(STR, effect_id, must, 0, 0, "Its name; receivers know a repetition by it.")                  \
    F(STR, replay, must, 0, 0, "safe, keyed, check or manual.")                                    \
    F(STR, tool, must, 0, 0, "Tool, or sh or llm.")                                                \
    F(STR, args_hash, must, 0, 0, "SHA-256 of what was to be done.")                               \
    F(TIME, intended_ms, must, 0, 0, "When it was written down first.")                            \
    F(TIME, finished_ms, opt(), 0, 0, "When its outcome was known.")                               \
    F(ANY, args, opt(), 0, 0, "Inside a step of prose: what was to be done, unless it is large.")  \
    F(ANY, result, opt(), 0, 0,                                                                    \
      "What came of it (of the step's own effect see the step); refused: what it would have "      \
      "done.")                                                                                     \
    F(STR, error, opt(), 0, 0, "Why it failed.")                                                   \
    F(STR, child, opt(), 0, 0, "The run that it is.")                                              \
    F(INT, tries, opt(0), 0, 0, "each: how often the item was begun before, with another id.")
RECORD_STRUCT(effect_row, effect_row_FIELDS)

/* Receivers remember keys for a day; an effect older than this is not repeated by key. */
#define RUN_KEY_TRUSTED_MS (INT64_C(23) * 3600 * 1000)

/* Begun with tool_run: one call of one tool; no name of a procedure has a colon. */
static inline bool run_is_tool(const run_row_t *row)
{
    return strchr(row->sop, ':') != NULL;
}

/* A run in the hands of one entry; all memory is the call's. */
typedef struct run {
    agent_t *agent;
    call_t *call;
    arena_t *arena;
    store_txn_t *txn;
    const char *id;
    task_t task;
    run_row_t row;
    const sop_t *sop;
    struct {
        int64_t started, tokens, calls;
    } charged; /* of row: what the runs that this one is inside of know of */
} run_t;

/* Run, task and procedure. ERR_NOT_FOUND: no such run (or a task of another kind). `write`: the
 * entry may change it. */
err_t run_load(agent_t *agent, call_t *call, const char *id, bool write, run_t *run);
/* What it used since it was loaded counts for every run that it is inside of, too. */
err_t run_save(run_t *run);
/* Only what is stored about the run itself. ERR_NOT_FOUND without a sentence. */
err_t run_row_load(call_t *call, store_txn_t *txn, const char *id, run_row_t *row);

/* Writes the budgets of the procedure into the row, where the runs inside find them. */
void run_budgets(run_row_t *row, const sop_t *sop);

/* A step that was never begun is pending. */
err_t step_load(run_t *run, size_t index, step_row_t *row);
err_t step_save(run_t *run, size_t index, const step_row_t *row);

/* ERR_NOT_FOUND without a sentence. */
err_t effect_load(run_t *run, size_t step, int64_t attempt, int64_t index, effect_row_t *row);
err_t effect_save(run_t *run, size_t step, int64_t attempt, int64_t index, const effect_row_t *row);
const char *effect_name(run_t *run, size_t step, int64_t attempt, int64_t index);
/* The same of an item of an each (index from 1) that was begun so often before. */
const char *item_name(run_t *run, size_t step, int64_t attempt, int64_t index, int64_t tries);

/* The conversation of a prose step; size 0: none. */
err_t note_load(run_t *run, size_t step, bytes_t *note);
err_t note_save(run_t *run, size_t step, bytes_t note);
err_t note_drop(run_t *run, size_t step);

/* How a run looks from outside. */
#define run_item_FIELDS(F)                                                                         \
    F(INT, index, must, 0, 0, "Place in the list, from 0.")                                        \
    F(STR, state, must, 0, 0, "running, unknown, completed, failed or refused.")                   \
    F(STR, effect_id, must, 0, 0, "Name of its effect.")                                           \
    F(STR, child, opt(), 0, 0, "Id of its run; see run_get.")                                      \
    F(STR, words, opt(), 0, 0, "A few words about what came of it.")                               \
    F(STR, error, opt(), 0, 0, "Why it failed, or why it last did.")
RECORD_STRUCT(run_item, run_item_FIELDS)
extern const record_t run_item_record;

#define run_step_FIELDS(F)                                                                         \
    F(INT, number, must, 1, 0, "Place in the procedure, from 1.")                                  \
    F(STR, name, must, 0, 0, "Name in references.")                                                \
    F(STR, title, must, 0, 0, "Name for people.")                                                  \
    F(STR, kind, must, 0, 0, "llm, tool, sh, wait, approve, if, each or sop.")                     \
    F(STR, state, must, 0, 0,                                                                      \
      "pending, running, waiting, unknown, completed, failed, skipped or refused.")                \
    F(INT, attempt, must, 0, 0, "How often it was begun.")                                         \
    F(STR, effect_id, opt(), 0, 0, "Name of its effect.")                                          \
    F(STR, effect, opt(), 0, 0, "State of its effect.")                                            \
    F(ANY, input, opt(), 0, 0, "What was to be done, values filled in.")                           \
    F(ANY, result, opt(), 0, 0, "What came of it.")                                                \
    F(STR, error, opt(), 0, 0, "Why it failed.")                                                   \
    F(STR, why, opt(), 0, 0, "What it waits for.")                                                 \
    F(STR, by, opt(), 0, 0, "Who decided or completed it.")                                        \
    F(TIME, started_ms, opt(), 0, 0, "When it was begun last.")                                    \
    F(TIME, finished_ms, opt(), 0, 0, "When it ended.")                                            \
    F(TIME, until_ms, opt(), 0, 0, "When its wait or pause ends.")                                 \
    F(INT, duration_ms, must, 0, 0, "Time spent performing it.")                                   \
    F(INT, tokens, must, 0, 0, "Tokens used.")                                                     \
    F(STR, child, opt(), 0, 0, "sop: id of the run that it began; see run_get.")                   \
    F(INT, total, opt(), 0, 0, "each: length of its list.")                                        \
    F(INT, finished, opt(), 0, 0, "each: items that are over.")                                    \
    F(LIST(run_item), items, opt(), 0, 0,                                                          \
      "each: its items as far as begun; of more than 100 those that are not completed come "       \
      "first.")
RECORD_STRUCT(run_step, run_step_FIELDS)
extern const record_t run_step_record;

#define run_refusal_FIELDS(F)                                                                      \
    F(INT, number, must, 1, 0, "Place of the step in the procedure, from 1.")                      \
    F(STR, name, must, 0, 0, "Name of the step; behind a slash that of a step in its run.")        \
    F(STR, kind, must, 0, 0, "llm, tool, sh, approve, each or sop.")                               \
    F(STR, tool, opt(), 0, 0, "Tool that would have been called.")                                 \
    F(ANY, args, opt(), 0, 0, "What it would have been given, as far as the values were known.")   \
    F(STR, why, opt(), 0, 0, "Why it was refused.")
RECORD_STRUCT(run_refusal, run_refusal_FIELDS)
extern const record_t run_refusal_record;

#define RUN_VIEW_ROWS(F)                                                                           \
    F(STR, id, must, 0, 0, "Id of the run, which is the id of its task.")                          \
    F(STR, state, must, 0, 0, "State of the task: ready, running, input_required, completed ...")  \
    F(STR, sop, must, 0, 0, "Name of the procedure.")                                              \
    F(STR, title, must, 0, 0, "Its title.")                                                        \
    F(STR, hash, must, 0, 0, "Version of the procedure that this run follows.")                    \
    F(ANY, input, opt(), 0, 0, "What it was given.")                                               \
    F(STR, why, opt(), 0, 0, "What it waits for.")                                                 \
    F(STR, error, opt(), 0, 0, "Why it failed.")                                                   \
    F(ANY, result, opt(), 0, 0, "Result of the last step, when completed.")                        \
    F(TIME, created_ms, must, 0, 0, "When it was submitted.")                                      \
    F(TIME, finished_ms, opt(), 0, 0, "When it ended.")                                            \
    F(INT, tokens, must, 0, 0, "Tokens used.")                                                     \
    F(INT, calls, must, 0, 0, "Tool calls and scripts.")                                           \
    F(ANY, experience, opt(), 0, 0, "What the brain remembered of such runs.")                     \
    F(STR, parent, opt(), 0, 0, "The run whose step began this one.")                              \
    F(STR, asks, opt(), 0, 0, "The run inside this one that needs a person, which is told there.") \
    F(BOOL, simulated, must, 0, 0, "Outside effects were refused: nothing was changed by it.")     \
    F(LIST(run_refusal), refused, opt(), 0, 0, "simulated: what it would have done.")              \
    F(LIST(run_step), steps, must, 0, 0, "Every step.")
RECORD_STRUCT(run_view, RUN_VIEW_ROWS)

err_t run_show(run_t *run, run_view_t *view);

/* A simulated run: what was refused so far. */
err_t run_refusals(run_t *run, run_refusal_list_t *out);

/* The last result: of the last step that was not skipped or refused. */
err_t run_result(run_t *run, bytes_t *result);

/* A few words about a value, for people. */
const char *run_words(arena_t *arena, bytes_t value);

/* ---- what the files of runs give each other ---- */

/* The present step gets its end from a person or client, and the run goes on (or ends). */
err_t run_settle_step(run_t *run, bool completed, bytes_t result, const char *error);
/* ERR_TOO_LARGE: the result of a step is larger than the setting. */
err_t run_check_result(const run_t *run, bytes_t result);
/* The step at row.at and all behind it are to be done again. */
err_t run_rewind(run_t *run, size_t index);

/* run_child.c: runs of procedures, on their own or for a step of another run. */
typedef struct run_new {
    const sops_version_t *version;
    bytes_t input;
    int64_t priority;
    const char *key, *by, *soul; /* key: must be given */
    bool simulate;
    const run_t *parent; /* NULL: none */
} run_new_t;
/* Its task and its row. *existed: the key was known, and *id is that task. ERR_QUOTA. */
err_t run_begin(agent_t *agent, call_t *call, const run_new_t *new, const char **id, bool *existed);

enum { BUDGET_STEP = 1, BUDGET_CALL = 2, BUDGET_TOKENS = 4 };
/* Why one more of these is too much, for this run or one that it is inside of; NULL: it is not. */
const char *run_over_budget(run_t *run, unsigned what);
/* Tokens that are left in all of them; false: there is no such budget. */
bool run_tokens_left(run_t *run, int64_t *left);

/* Calls fn for the runs that the present attempt of a step began. */
typedef err_t run_child_fn(run_t *run, const effect_row_t *effect, int64_t at, void *ctx);
err_t run_children(run_t *run, size_t index, const step_row_t *row, run_child_fn *fn, void *ctx);
/* What a run that waits for its children waits for in the end: the words of one that needs a
 * person, and its id. NULL: nobody is needed. */
const char *run_needs(run_t *run, const char **id);

/* run_log.c: outcomes to the log file, to whoever listens, and to the brain. */
err_t run_log_step(run_t *run, size_t index, const step_row_t *row);
/* An item of an each: `at` from 1. */
err_t run_log_item(run_t *run, size_t index, int64_t total, int64_t at, const effect_row_t *effect);
err_t run_log_finish(run_t *run);
err_t run_log_open(agent_t *agent, call_t *call);
void run_log_close(agent_t *agent);

#endif
