/* tasks: the durable queue of one agent; the storage seam of SPECS §1 (LMDB is behind it).
 *
 *   submit ──▶ scheduled ──due──▶ ready ──lease──▶ leased ──journal──▶ running ──▶ completed
 *                  ▲                ▲  ▲              │ lost lease        │   │
 *                  │ retry, backoff │  └──────────────┴───────────────────┘   ├──▶ failed
 *                  └────────────────┼──────────────────── fail(retryable) ◀───┤
 *                                   │ due, answered                           ▼
 *                                   └──────────────── waiting_timer, input_required, waiting_child
 *   any state that is not final ──▶ cancelled, buried; buried ──kick──▶ ready
 *
 * A lease lives in memory until the run's first journal record (tasks_journal), which stores holder
 * and fence. After a restart an unjournalled lease is gone: the task is ready again and the old
 * holder's fence is refused. A journalled one is honoured for one lease time.
 * Fence = epoch of the store << 32 | counter: it grows with every lease, also across restarts.
 *
 * Order within a company: by submission time less priority × aging_ms, so that a higher priority
 * overtakes and a lower one is never starved. Between companies: round robin.
 *
 * All functions run in a batch entry of the agent (call_write / call_read); memory that must follow
 * the commit is changed by after-commit functions inside. Thread: the agent's.
 */
#ifndef ACTORS_AGENT_TASKS_H
#define ACTORS_AGENT_TASKS_H

#include "bus/actor.h"

#define task_state_VALUES(V)                                                                       \
    V(TASK_SCHEDULED, "scheduled")                                                                 \
    V(TASK_READY, "ready")                                                                         \
    V(TASK_LEASED, "leased")                                                                       \
    V(TASK_RUNNING, "running")                                                                     \
    V(TASK_WAITING_TIMER, "waiting_timer")                                                         \
    V(TASK_INPUT_REQUIRED, "input_required")                                                       \
    V(TASK_WAITING_CHILD, "waiting_child")                                                         \
    V(TASK_COMPLETED, "completed")                                                                 \
    V(TASK_FAILED, "failed")                                                                       \
    V(TASK_CANCELLED, "cancelled")                                                                 \
    V(TASK_BURIED, "buried")
RECORD_ENUM(task_state, task_state_VALUES)

/* What a client sees of a task; what task_get answers. */
#define task_FIELDS(F)                                                                             \
    F(STR, id, must, 0, 0, "Id of the task; for kind sop also the id of the run.")                 \
    F(STR, company, must, 0, 0, "Whose it is.")                                                    \
    F(STR, kind, must, 0, 0, "What is to be done: sop, or a kind that your own workers know.")     \
    F(ENUM(task_state), state, must, 0, 0, "Where it is on its way.")                              \
    F(ANY, input, must, 0, 0, "What it was given.")                                                \
    F(STR, sop, opt(), 0, 0, "The procedure, for kind sop.")                                       \
    F(INT, priority, must, 0, 9, "9 is the most urgent.")                                          \
    F(STRS, labels, opt(), 0, 16, "Only a worker that offers all of these gets it.")               \
    F(INT, attempts, must, 0, 0, "Tries that ended in a failure.")                                 \
    F(INT, max_attempts, must, 0, 0, "After so many failures it is failed.")                       \
    F(INT, crashes, must, 0, 0, "Leases that were lost with their worker.")                        \
    F(INT, timeout_ms, must, 0, 0, "Longest time one attempt may take.")                           \
    F(TIME, created_ms, must, 0, 0, "When it was submitted.")                                      \
    F(TIME, run_at_ms, opt(), 0, 0, "Not before this time.")                                       \
    F(TIME, updated_ms, must, 0, 0, "Last change of state.")                                       \
    F(TIME, finished_ms, opt(), 0, 0, "When it reached a final state.")                            \
    F(STR, worker, opt(), 0, 0, "Who holds the lease.")                                            \
    F(INT, fence, opt(), 0, 0, "Token of the lease.")                                              \
    F(TIME, lease_until_ms, opt(), 0, 0, "When the lease ends unless extended.")                   \
    F(ANY, result, opt(), 0, 0, "What came of it.")                                                \
    F(STR, error, opt(), 0, 0, "Why it failed, or why the last attempt did.")                      \
    F(STR, why, opt(), 0, 0, "What it waits for, in one line.")                                    \
    F(STR, idempotency_key, opt(), 0, 0, "Key of the submitter.")                                  \
    F(STR, by, opt(), 0, 0, "Who began the run, for kind sop.")                                    \
    F(STR, parent, opt(), 0, 0, "The run that began this one and waits for it.")                   \
    F(ANY, progress, opt(), 0, 0, "Last word of the worker.")
RECORD_STRUCT(task, task_FIELDS)
extern const record_t task_record;

typedef struct tasks tasks_t;

typedef struct task_new {
    const char *kind, *sop; /* sop may be NULL */
    bytes_t input;          /* msgpack; empty: nil */
    int64_t priority;       /* 0..9 */
    int64_t run_at_ms;      /* 0: now */
    int64_t max_attempts;
    int64_t timeout_ms;
    strs_t labels;
    const char *idempotency_key; /* NULL: none */
    const char *by;              /* NULL: not kept */
    const char *parent;          /* NULL: none; else woken when this one ends */
} task_new_t;

/* Submits; a known idempotency key gives the first task and *existed. ERR_QUOTA. */
err_t tasks_submit(tasks_t *tasks, call_t *call, const task_new_t *task, const char **id,
                   bool *existed);
/* ERR_NOT_FOUND. Of the call's company. */
err_t tasks_get(tasks_t *tasks, call_t *call, const char *id, task_t *task);

/* The holder of a fence asks: is this still the lease? ERR_FENCED says who holds it now,
 * ERR_NOT_FOUND. Every write of a worker begins with this. */
err_t tasks_check_fence(tasks_t *tasks, call_t *call, const char *company, const char *id,
                        int64_t fence, task_t *task);
/* First journal record of a run: from now on the lease is on disk, and the task is running. */
err_t tasks_journal(tasks_t *tasks, call_t *call, const task_t *task);
/* Worker is alive: the lease ends lease_ms from now, at *until_ms, yet never after the attempt's
 * timeout_ms. `progress`, when there is some, is what tasks_get shows until the lease ends. */
err_t tasks_extend(tasks_t *tasks, call_t *call, const task_t *task, bytes_t progress,
                   int64_t *until_ms);

/* The lease is over; the task goes where these say. `result` msgpack. */
err_t tasks_complete(tasks_t *tasks, call_t *call, const task_t *task, bytes_t result);
err_t tasks_fail(tasks_t *tasks, call_t *call, const task_t *task, const char *error,
                 bool retryable, int64_t retry_after_ms);
err_t tasks_release(tasks_t *tasks, call_t *call, const task_t *task);
/* Waits for a time (waiting_timer), then is ready again. */
err_t tasks_wait_until(tasks_t *tasks, call_t *call, const task_t *task, int64_t at_ms,
                       const char *why);
/* Waits for a human or client (input_required) until tasks_make_ready. */
err_t tasks_require_input(tasks_t *tasks, call_t *call, const task_t *task, const char *why);
/* Waits (waiting_child) until a task with this one as its parent ends, then is ready again. */
err_t tasks_wait_child(tasks_t *tasks, call_t *call, const task_t *task, const char *why);
/* From a waiting state, failed or buried back to ready. ERR_STATE otherwise. */
err_t tasks_make_ready(tasks_t *tasks, call_t *call, const task_t *task);
err_t tasks_cancel(tasks_t *tasks, call_t *call, const task_t *task, const char *why);

/* Runs fn(self…) in an entry after the commit when a task of this company reaches a final state or
 * input_required: sop_execute waits with it. */
void tasks_on_settled(tasks_t *tasks, call_t *waiting, const char *id, resume_fn_t *fn, void *ctx);
/* The call waits no longer. Must be called before it is answered otherwise. */
void tasks_off_settled(tasks_t *tasks, call_t *waiting);
/* What whoever waits for it so is to hear meanwhile. `by` is the present entry. */
void tasks_tell_waiting(tasks_t *tasks, call_t *by, const char *company, const char *id,
                        int64_t done, int64_t total, const char *words);

#endif
