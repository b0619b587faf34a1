/* slot: one pair of hands, and what it is holding. Inside the worker only. */
#ifndef ACTORS_WORKER_SLOT_H
#define ACTORS_WORKER_SLOT_H

#include "bus/actor.h"

#define worker_settings_FIELDS(F)                                                                  \
    F(INT, slots, opt(2), 1, 64, "Runs worked on at the same time.")                               \
    F(STRS, labels, opt(), 0, 64, "What this worker offers; tasks may ask for it.")                \
    F(INT, wait_ms, opt(20000), 0, 60000, "How long one question for work waits.")                 \
    F(INT, retry_ms, opt(300), 1, 60000, "Pause when the agent does not answer.")                  \
    F(STR, workspace, opt(), 1, 4096, "Folder of the runs' workspaces; absent: <data>/work.")      \
    F(INT, memory_limit, opt(0), 0, 1099511627776, "Address space of a script in bytes; 0: any.")  \
    F(INT, process_limit, opt(0), 0, 1000000, "Processes of the user that runs scripts; 0: any.")  \
    F(STR, llm_url, opt(), 1, 4096, "OpenAI-compatible endpoint, e.g. http://127.0.0.1:8080/v1.")  \
    F(STR, llm_key, opt(), 1, 4096, "Its bearer token.")                                           \
    F(STR, llm_key_file, opt(), 1, 4096, "Or a file with it, read for each question.")             \
    F(STR, llm_model, opt(default), 1, 256, "Its model.")                                          \
    F(INT, llm_timeout_ms, opt(120000), 100, 3600000, "Longest wait for one answer of the model.") \
    F(INT, llm_turns, opt(40), 1, 1000, "Answers of the model in one step.")
RECORD_STRUCT(worker_settings, worker_settings_FIELDS)

#define variable_FIELDS(F)                                                                         \
    F(STR, name, must, 1, 128, "Name of the variable.")                                            \
    F(STR, value, must, 0, 0, "Its value.")
RECORD_STRUCT(variable, variable_FIELDS)
extern const record_t variable_record;

/* What run_next and step_done answer; the rows are the agent's. */
#define perform_FIELDS(F)                                                                          \
    F(STR, action, must, 0, 0, "perform, wait or done.")                                           \
    F(STR, why, opt(), 0, 0, "Why not.")                                                           \
    F(STR, sop, opt(), 0, 0, "Procedure.")                                                         \
    F(INT, step, opt(), 0, 0, "Index of the step.")                                                \
    F(STR, name, opt(), 0, 0, "Name of the step.")                                                 \
    F(STR, title, opt(), 0, 0, "Title of the step.")                                               \
    F(STR, kind, opt(), 0, 0, "tool, sh or llm.")                                                  \
    F(INT, index, opt(0), 0, 0, "Of its effect.")                                                  \
    F(INT, attempt, opt(), 0, 0, "How often it was begun.")                                        \
    F(STR, effect_id, opt(), 0, 0, "Idempotency key.")                                             \
    F(STR, replay, opt(), 0, 0, "safe, keyed, check or manual.")                                   \
    F(INT, timeout_ms, opt(), 0, 0, "How long it may take.")                                       \
    F(STR, tool, opt(), 0, 0, "tool: its name.")                                                   \
    F(ANY, args, opt(), 0, 0, "tool: its arguments.")                                              \
    F(STR, script, opt(), 0, 0, "sh: the text.")                                                   \
    F(LIST(variable), env, opt(), 0, 0, "sh: variables.")                                          \
    F(STRS, env_pass, opt(), 0, 0, "sh: variables of the worker that it may see.")                 \
    F(INT, output_limit, opt(), 0, 0, "sh: bytes kept of each output.")                            \
    F(STR, cwd, opt(), 0, 0, "sh: folder.")                                                        \
    F(BOOL, simulate, opt(false), 0, 0, "Only what reads may happen.")                             \
    F(STR, prompt, opt(), 0, 0, "llm: what to do.")                                                \
    F(STR, soul, opt(), 0, 0, "llm: who does it.")                                                 \
    F(ANY, transcript, opt(), 0, 0, "llm: the conversation so far.")                               \
    F(STRS, tools, opt(), 0, 0, "llm: tools of foreign servers that it may use.")                  \
    F(INT, tokens_left, opt(), 0, 0, "llm: budget; absent: none.")
RECORD_STRUCT(perform, perform_FIELDS)
extern const record_t perform_record;

typedef struct worker worker_t;

typedef struct slot {
    worker_t *worker;
    int number;
    bool busy;
    bool asking;    /* a question for work is on its way: a lease may come */
    uint64_t lease; /* counts leases, so that an old timer knows that it is old */
    char id[129], company[65];
    int64_t fence, lease_ms;
    call_t *performing; /* the step under way; NULL: none */
} slot_t;

struct worker {
    const worker_settings_t *settings; /* first: the skeleton fills it in */
    actor_t *actor;
    slot_t *slots;
    struct tools *tools;
    bool leaving; /* draining, and the agent was told */
    int untold;   /* how often it did not hear */
};

/* One step under way. All memory is the call's. */
typedef struct step {
    slot_t *slot;
    perform_t perform;
    int64_t began_ms;
    int64_t tokens, told_ms; /* when the agent heard last how far it is */
    bool repeatable;         /* a foreign server says so */
    struct abroad *abroad;   /* tool of a foreign server; step_abroad.c */
    void *own;               /* of the kind */
} step_t;

/* The outcome of a step: leaves for the agent, whose answer is the next thing to do. A handler's
 * return value. `result` msgpack. */
err_t slot_step_ok(call_t *call, step_t *step, bytes_t result);
err_t slot_step_error(call_t *call, step_t *step, const char *error, bool retryable);
/* Nobody knows whether it happened. */
err_t slot_step_unknown(call_t *call, step_t *step, const char *why);
/* Tells the agent how far the step is, at most once a second. `progress` msgpack. From an answer of
 * a call that goes on. */
void slot_progress(call_t *call, step_t *step, bytes_t progress);
/* Of a simulated run, before step_start: the step would change something. */
err_t slot_step_refused(call_t *call, step_t *step, const char *why);
/* A call to the agent that states company, id, fence, step and index; `more` further pairs
 * (count of them) as msgpack. */
void slot_ask(call_t *call, step_t *step, const char *method, int64_t index, uint32_t more_count,
              bytes_t more, answer_fn_t *fn, void *ctx);
/* The lease is lost or the agent is gone: forget the step, go for the next task. */
err_t slot_give_up(call_t *call, slot_t *slot, int64_t pause_ms);

/* The kinds: each begins after step_start and ends with slot_step_ok or slot_step_error. */
err_t step_tool_perform(call_t *call, step_t *step);
/* Of a simulated run, before step_start: goes on with fn when the tool only reads (or is unknown,
 * which is an error when it is performed), otherwise the step is refused. */
err_t step_tool_simulate(call_t *call, step_t *step, err_t (*fn)(call_t *call, step_t *step));
/* SERVER/TOOL: asks for it before step_start, then goes on with fn; performs it. */
bool step_is_abroad(const step_t *step);
err_t step_abroad_look(call_t *call, step_t *step, err_t (*fn)(call_t *call, step_t *step));
err_t step_abroad_perform(call_t *call, step_t *step);
err_t step_sh_perform(call_t *call, step_t *step);
err_t step_llm_perform(call_t *call, step_t *step);

#endif
