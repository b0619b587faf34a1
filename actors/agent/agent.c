#include "actors/agent/agent.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/agent/queue.h"

/* ---- Tools of the queue ---- */

#define task_submit_ARGS(F)                                                                        \
    F(STR, kind, must, 1, 64, "What is to be done, e.g. email; sop runs a procedure.")             \
    F(JSON, input, opt(), 0, 0, "What the worker needs to know.")                                  \
    F(STR, sop, opt(), 1, 64, "Name of the procedure, for kind sop: use sop_execute instead.")     \
    F(INT, priority, opt(4), 0, 9, "9 is the most urgent.")                                        \
    F(TIME, run_at, opt(), 0, 0, "Not before this time.")                                          \
    F(INT, delay_ms, opt(), 0, 31536000000, "Not before so many ms from now.")                     \
    F(STR, idempotency_key, opt(), 1, 256,                                                         \
      "The same key gives the same task instead of a new one.")                                    \
    F(INT, max_attempts, opt(3), 1, 1000, "After so many failures it is failed.")                  \
    F(INT, timeout_ms, opt(600000), 1, 86400000, "Longest time one attempt may take.")             \
    F(STRS, labels, opt(), 0, 16, "Only a worker that offers all of these gets it.")               \
    COMPANY_ROW(F)
#define task_submit_REPLY(F)                                                                       \
    F(STR, id, must, 0, 0, "Id of the task.")                                                      \
    F(BOOL, existed, must, 0, 0, "The idempotency key was known: this is the first task.")

#define task_draft_FIELDS(F)                                                                       \
    F(STR, kind, must, 1, 64, "What is to be done.")                                               \
    F(JSON, input, opt(), 0, 0, "What the worker needs to know.")                                  \
    F(INT, priority, opt(4), 0, 9, "9 is the most urgent.")                                        \
    F(TIME, run_at, opt(), 0, 0, "Not before this time.")                                          \
    F(INT, delay_ms, opt(), 0, 31536000000, "Not before so many ms from now.")                     \
    F(STR, idempotency_key, opt(), 1, 256, "The same key gives the same task.")                    \
    F(INT, max_attempts, opt(3), 1, 1000, "After so many failures it is failed.")                  \
    F(INT, timeout_ms, opt(600000), 1, 86400000, "Longest time one attempt may take.")             \
    F(STRS, labels, opt(), 0, 16, "Wanted of the worker.")
RECORD(task_draft, task_draft_FIELDS)
#define task_submit_batch_ARGS(F)                                                                  \
    F(LIST(task_draft), tasks, must, 1, 1000, "All are submitted, or none.")                       \
    COMPANY_ROW(F)
#define task_submit_batch_REPLY(F) F(STRS, ids, must, 0, 0, "Ids in the same order.")

#define ID_ARGS(F)                                                                                 \
    F(STR, id, must, 1, 64, "Id of the task.")                                                     \
    COMPANY_ROW(F)
#define ID_WHY_ARGS(F)                                                                             \
    F(STR, id, must, 1, 64, "Id of the task.")                                                     \
    F(STR, why, opt(), 0, 1024, "Why.")                                                            \
    COMPANY_ROW(F)
#define task_get_ARGS(F) ID_ARGS(F)
#define task_get_REPLY(F) F(REC(task), task, must, 0, 0, "The task.")
#define task_list_ARGS(F)                                                                          \
    F(ENUM(task_state), state, opt(), 0, 0, "Only those in this state.")                           \
    F(STR, kind, opt(), 1, 64, "Only those of this kind.")                                         \
    F(TIME, since, opt(), 0, 0, "Only those submitted since.")                                     \
    F(INT, limit, opt(50), 1, 1000, "How many at most.")                                           \
    F(STR, cursor, opt(), 1, 64, "Where the last page ended.")                                     \
    COMPANY_ROW(F)
#define task_list_REPLY(F)                                                                         \
    F(LIST(task), tasks, must, 0, 0, "Newest first.")                                              \
    F(STR, cursor, opt(), 0, 0, "Give it back for the next page; absent at the end.")
#define task_cancel_ARGS(F) ID_WHY_ARGS(F)
#define task_cancel_REPLY(F) F(REC(task), task, must, 0, 0, "The task.")
#define task_bury_ARGS(F) ID_WHY_ARGS(F)
#define task_bury_REPLY(F) F(REC(task), task, must, 0, 0, "The task.")
#define task_retry_ARGS(F) ID_ARGS(F)
#define task_retry_REPLY(F) F(REC(task), task, must, 0, 0, "The task.")
#define task_kick_ARGS(F) ID_ARGS(F)
#define task_kick_REPLY(F) F(REC(task), task, must, 0, 0, "The task.")
#define task_why_ARGS(F) ID_ARGS(F)
#define task_why_REPLY(F)                                                                          \
    F(STR, why, must, 0, 0, "What it waits for, in one line.")                                     \
    F(ENUM(task_state), state, must, 0, 0, "Where it is.")
#define queue_stats_ARGS(F) COMPANY_ROW(F)
#define queue_stats_REPLY(F)                                                                       \
    F(INT, ready, must, 0, 0, "Could begin now.")                                                  \
    F(INT, leased, must, 0, 0, "Given to a worker.")                                               \
    F(INT, running, must, 0, 0, "Being worked on, with a journal.")                                \
    F(INT, delayed, must, 0, 0, "Scheduled, or waiting for a time.")                               \
    F(INT, due_soon, must, 0, 0, "Of them due within agent.due_soon_ms.")                          \
    F(INT, queue_length, must, 0, 0, "What scaling looks at: ready, leased, running, due soon.")   \
    F(REAL, oldest_ready_age_seconds, must, 0, 0, "How long the first in line has waited.")        \
    F(BOOL, paused, must, 0, 0, "No work is given out.")
#define queue_pause_ARGS(F) COMPANY_ROW(F)
#define queue_pause_REPLY(F) F(BOOL, paused, must, 0, 0, "No work is given out.")
#define queue_resume_ARGS(F) COMPANY_ROW(F)
#define queue_resume_REPLY(F) F(BOOL, paused, must, 0, 0, "No work is given out.")

/* ---- Protocol of the workers ---- */

#define task_lease_ARGS(F)                                                                         \
    F(STR, worker, must, 1, 63, "Who asks.")                                                       \
    F(INT, n, opt(1), 1, 256, "How many at most.")                                                 \
    F(STRS, kinds, opt(), 0, 64, "Only these kinds; absent: any.")                                 \
    F(STRS, labels, opt(), 0, 64, "What the worker offers.")                                       \
    F(INT, wait_ms, opt(0), 0, 60000, "How long to wait for work.")                                \
    COMPANY_ROW(F)
#define task_lease_REPLY(F)                                                                        \
    F(LIST(task), tasks, must, 0, 0, "The tasks, with fence and end of the lease.")                \
    F(INT, lease_ms, must, 0, 0, "How long a lease lasts without task_extend.")

#define task_lease_stop_ARGS(F)                                                                    \
    F(STR, worker, must, 1, 64, "Name of the worker; its slots are NAME/1 and so on.")
#define task_lease_stop_REPLY(F) F(INT, ended, must, 0, 0, "Questions that got an empty answer.")

#define task_cordon_ARGS(F)                                                                        \
    F(STR, worker, must, 1, 64, "Name of its process or pod; its slots are NAME/1 and so on.")     \
    F(INT, for_ms, must, 0, 3600000, "For so long, unless it is said again; 0 lifts it.")
#define task_cordon_REPLY(F) F(INT, leases, must, 0, 0, "Leases that it still holds.")

#define HELD_ARGS(F)                                                                               \
    F(STR, id, must, 1, 64, "Id of the task.")                                                     \
    F(INT, fence, must, 0, 0, "Token of the lease.")                                               \
    COMPANY_ROW(F)
#define DONE_REPLY(F) F(ENUM(task_state), state, must, 0, 0, "Where the task is now.")
#define task_extend_ARGS(F) HELD_ARGS(F)
#define task_extend_REPLY(F) F(TIME, lease_until_ms, must, 0, 0, "New end of the lease.")
#define task_progress_ARGS(F)                                                                      \
    F(ANY, progress, must, 0, 65536, "How far it is.")                                             \
    HELD_ARGS(F)
#define task_progress_REPLY(F) F(TIME, lease_until_ms, must, 0, 0, "New end of the lease.")
#define task_complete_ARGS(F)                                                                      \
    F(ANY, result, opt(), 0, 0, "What came of it.")                                                \
    F(INT, next, opt(0), 0, 256, "Also lease so many more tasks.")                                 \
    F(STR, worker, opt(), 1, 63, "Who asks for more.")                                             \
    F(STRS, kinds, opt(), 0, 64, "Kinds of the next.")                                             \
    HELD_ARGS(F)
#define task_complete_REPLY(F)                                                                     \
    F(ENUM(task_state), state, must, 0, 0, "Where the task is now.")                               \
    F(LIST(task), tasks, must, 0, 0, "The next tasks.")
#define task_done_FIELDS(F)                                                                        \
    F(STR, id, must, 1, 64, "Id of the task.")                                                     \
    F(INT, fence, must, 0, 0, "Token of the lease.")                                               \
    F(ANY, result, opt(), 0, 0, "What came of it.")
RECORD(task_done, task_done_FIELDS)
#define task_complete_batch_ARGS(F)                                                                \
    F(LIST(task_done), tasks, must, 1, 256, "All are completed, or none.")                         \
    F(INT, next, opt(0), 0, 256, "Also lease so many more tasks.")                                 \
    F(STR, worker, opt(), 1, 63, "Who asks for more.")                                             \
    F(STRS, kinds, opt(), 0, 64, "Kinds of the next.")                                             \
    COMPANY_ROW(F)
#define task_complete_batch_REPLY(F) F(LIST(task), tasks, must, 0, 0, "The next tasks.")
#define task_fail_ARGS(F)                                                                          \
    F(STR, error, must, 1, 16384, "What went wrong.")                                              \
    F(BOOL, retryable, opt(true), 0, 0, "Another attempt may succeed.")                            \
    F(INT, retry_after_ms, opt(0), 0, 86400000, "Not before so many ms from now.")                 \
    HELD_ARGS(F)
#define task_fail_REPLY(F) DONE_REPLY(F)
#define task_release_ARGS(F) HELD_ARGS(F)
#define task_release_REPLY(F) DONE_REPLY(F)

#define scale_ARGS(F)                                                                              \
    F(INT, unlike, opt(), 0, 0, "Wait while queue_length is this.")                                \
    F(INT, wait_ms, opt(0), 0, 60000, "How long to wait at most.")                                 \
    F(INT, target_per_replica, opt(), 1, 100000,                                                   \
      "Of elastic's policy: desired_replicas is counted by it from now on, for everybody.")        \
    F(INT, min_replicas, opt(), 0, 1000, "The same.")                                              \
    F(INT, max_replicas, opt(), 1, 1000, "The same.")
#define scale_REPLY(F)                                                                             \
    F(INT, queue_length, must, 0, 0, "Ready, leased, running and due soon, of all companies.")     \
    F(INT, ready, must, 0, 0, "Could begin now.")                                                  \
    F(INT, leased, must, 0, 0, "Given to a worker, journalled or not.")                            \
    F(INT, due_soon, must, 0, 0, "Due within agent.due_soon_ms.")                                  \
    F(REAL, oldest_ready_age_seconds, must, 0, 0, "How long the first in line has waited.")        \
    F(INT, target_per_replica, must, 0, 0, "Tasks one worker is expected to hold.")                \
    F(INT, desired_replicas, must, 0, 0, "Workers that this demand calls for.")

#define AGENT_METHODS(M)                                                                           \
    M(agent_t, task_submit, TOOL | WRITES, "Put a task on the desk; it is never lost.")            \
    M(agent_t, task_submit_batch, TOOL | WRITES, "Put many tasks on the desk at once.")            \
    M(agent_t, task_get, TOOL | READS | BRIEF, "One task with its state and result.")              \
    M(agent_t, task_list, TOOL | READS, "Tasks, newest first, by state, kind or time.")            \
    M(agent_t, task_cancel, TOOL | WRITES | DESTRUCTIVE, "Call a task off.")                       \
    M(agent_t, task_retry, TOOL | WRITES, "Try a failed or cancelled task again from the start.")  \
    M(agent_t, task_bury, TOOL | WRITES | DESTRUCTIVE, "Set a task aside until it is kicked.")     \
    M(agent_t, task_kick, TOOL | WRITES, "Bring a buried or waiting task back to ready.")          \
    M(agent_t, task_why, TOOL | READS, "Why is this task not done yet? In one line.")              \
    M(agent_t, queue_stats, TOOL | READS, "How much work there is.")                               \
    M(agent_t, queue_pause, TOOL | WRITES | IDEMPOTENT, "Give out no more work.")                  \
    M(agent_t, queue_resume, TOOL | WRITES | IDEMPOTENT, "Give out work again.")                   \
    M(agent_t, task_lease, WRITES | ANY_COMPANY | UNREMEMBERED, "Take work.")                      \
    M(agent_t, task_lease_stop, WRITES | ANY_COMPANY | UNREMEMBERED,                               \
      "Answer this worker's questions for work now, it is leaving.")                               \
    M(agent_t, task_cordon, WRITES | ADMIN | ANY_COMPANY | UNREMEMBERED,                           \
      "Give this worker nothing more for a while.")                                                \
    M(agent_t, task_extend, WRITES | UNREMEMBERED, "Still at it.")                                 \
    M(agent_t, task_progress, WRITES | UNREMEMBERED, "Still at it, and this far.")                 \
    M(agent_t, task_complete, WRITES, "Done.")                                                     \
    M(agent_t, task_complete_batch, WRITES, "Many done.")                                          \
    M(agent_t, task_fail, WRITES, "It did not work.")                                              \
    M(agent_t, task_release, WRITES, "Give it back untouched.")                                    \
    M(agent_t, scale, READS | PARKS | ANY_COMPANY,                                                 \
      "Demand of all companies, for whoever scales workers.")
METHODS(agent_methods, AGENT_METHODS)

/* ---- Submitting ---- */

static err_t submit_one(agent_t *self, call_t *call, const task_draft_t *draft, const char *sop,
                        const char **id, bool *existed)
{
    task_new_t task = {.kind = draft->kind,
                       .sop = sop,
                       .input = draft->input,
                       .priority = draft->priority,
                       .max_attempts = draft->max_attempts,
                       .timeout_ms = draft->timeout_ms,
                       .labels = draft->labels,
                       .idempotency_key = draft->idempotency_key};
    if (draft->has_run_at && draft->has_delay_ms)
        return err_of(ERR_ARGUMENT, "give run_at or delay_ms, not both");
    if (draft->has_run_at)
        task.run_at_ms = draft->run_at;
    else if (draft->has_delay_ms && draft->delay_ms)
        task.run_at_ms = call_now_ms(call) + draft->delay_ms;
    if (!strcmp(draft->kind, "sop"))
        return err_of(ERR_ARGUMENT, "a run of a procedure is begun with sop_execute");
    return tasks_submit(self->tasks, call, &task, id, existed);
}

static err_t task_submit(agent_t *self, call_t *call, const task_submit_args_t *args,
                         task_submit_reply_t *reply)
{
    task_draft_t draft = {.kind = args->kind,
                          .input = args->input,
                          .priority = args->priority,
                          .run_at = args->run_at,
                          .has_run_at = args->has_run_at,
                          .delay_ms = args->delay_ms,
                          .has_delay_ms = args->has_delay_ms,
                          .idempotency_key = args->idempotency_key,
                          .max_attempts = args->max_attempts,
                          .timeout_ms = args->timeout_ms,
                          .labels = args->labels};
    err_t err = submit_one(self, call, &draft, args->sop, &reply->id, &reply->existed);
    if (!err_is(err))
        call_say(call, "Task %s %s.", reply->id, reply->existed ? "exists already" : "submitted");
    return err;
}

static err_t task_submit_batch(agent_t *self, call_t *call, const task_submit_batch_args_t *args,
                               task_submit_batch_reply_t *reply)
{
    const char **ids = ARENA_ARRAY(call_arena(call), const char *, args->tasks.count + 1);
    err_t err = err_ok();
    for (size_t i = 0; i < args->tasks.count && !err_is(err); i++) {
        bool existed;
        err = submit_one(self, call, &args->tasks.items[i], NULL, &ids[i], &existed);
        if (err_is(err))
            err = err_make(call_arena(call), err.code, "tasks[%zu]: %s", i, err_what(err));
    }
    reply->ids = (strs_t){ids, args->tasks.count};
    call_say(call, "%zu tasks submitted.", args->tasks.count);
    return err;
}

/* ---- Looking ---- */

static err_t task_get(agent_t *self, call_t *call, const task_get_args_t *args,
                      task_get_reply_t *reply)
{
    task_t *task = ARENA_NEW(call_arena(call), task_t);
    reply->task = task;
    return tasks_get(self->tasks, call, args->id, task);
}

static bool wanted(const task_list_args_t *args, const task_t *task)
{
    return (!args->has_state || args->state == task->state) &&
           (!args->kind || !strcmp(args->kind, task->kind)) &&
           (!args->has_since || task->created_ms >= args->since);
}

/* Pages also end after this many rows that were not wanted, so that no call takes long. */
enum { LIST_LOOKS = 10000 };

static err_t list_from(agent_t *self, call_t *call, const task_list_args_t *args, bytes_t from,
                       store_txn_t *txn, task_list_reply_t *reply)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    err_t err = store_scan_open(&scan, txn, TABLE_tasks, none, from, true);
    if (err_is(err))
        return err;
    task_t *tasks = ARENA_ARRAY(call_arena(call), task_t, (size_t)args->limit);
    int looks = 0;
    uint64_t number = 0;
    bool more = false;
    while (!err_is(err) && (more = store_scan_next(&scan, &key, &value)) &&
           (int64_t)reply->tasks.count < args->limit && looks++ < LIST_LOOKS) {
        key_read_u64(&key, &number);
        task_t *task = &tasks[reply->tasks.count];
        err = tasks_load(self->tasks, call, call_company(call), number, task);
        if (!err_is(err) && wanted(args, task))
            reply->tasks.count++;
        if (!err_is(err) && args->has_since && task->created_ms < args->since)
            break;
    }
    store_scan_close(&scan);
    reply->tasks.items = tasks;
    if (more && number > 1)
        reply->cursor = arena_printf(call_arena(call), "%" PRIx64, number - 1);
    return err;
}

static err_t task_list(agent_t *self, call_t *call, const task_list_args_t *args,
                       task_list_reply_t *reply)
{
    store_txn_t *txn;
    store_key_t from;
    uint64_t number;
    key_open(&from);
    if (args->cursor) {
        if (sscanf(args->cursor, "%16" SCNx64, &number) != 1)
            return err_of(ERR_ARGUMENT, "the cursor is not one that task_list gave");
        key_u64(&from, number);
    }
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = list_from(self, call, args, key_bytes(&from), txn, reply);
    if (err.code == ERR_NOT_FOUND) /* a company that has no task yet */
        err = err_ok();
    buf_t text;
    buf_open(&text, call_arena(call));
    for (size_t i = 0; i < reply->tasks.count; i++) {
        const task_t *task = &reply->tasks.items[i];
        buf_printf(&text, "%s%s  %-14s %-10s %s%s%s", i ? "\n" : "", task->id,
                   task_state_names[task->state], task->kind,
                   record_time_text(call_arena(call), task->created_ms),
                   task->why || task->error ? "  " : "",
                   task->why     ? task->why
                   : task->error ? task->error
                                 : "");
    }
    call_say_text(call, reply->tasks.count ? text.data : "No tasks found.");
    return err;
}

static const char *explain(agent_t *self, call_t *call, const task_t *task)
{
    arena_t *arena = call_arena(call);
    demand_t demand;
    queue_demand(self->tasks, call, task->company, &demand);
    switch (task->state) {
    case TASK_SCHEDULED:
    case TASK_WAITING_TIMER:
        return arena_printf(arena, "it waits until %s%s%s",
                            record_time_text(arena, task->run_at_ms), task->why ? ": " : "",
                            task->why ? task->why : "");
    case TASK_READY:
        return arena_printf(arena,
                            "it waits for a worker%s; %" PRId64 " tasks of this company are ready",
                            task->labels.count ? " that offers its labels" : "", demand.ready);
    case TASK_LEASED:
    case TASK_RUNNING:
        return arena_printf(arena,
                            "%s works on it; its lease ends at %s unless it says it is "
                            "alive",
                            task->worker, record_time_text(arena, task->lease_until_ms));
    case TASK_WAITING_CHILD:
        return task->why ? task->why : "it waits for a run that it began";
    case TASK_INPUT_REQUIRED:
        return task->why ? task->why : "it waits for an answer";
    case TASK_COMPLETED:
        return "it is done";
    default:
        return task->error ? task->error
                           : arena_printf(arena, "it is %s", task_state_names[task->state]);
    }
}

static err_t task_why(agent_t *self, call_t *call, const task_why_args_t *args,
                      task_why_reply_t *reply)
{
    task_t task;
    err_t err = tasks_get(self->tasks, call, args->id, &task);
    if (err_is(err))
        return err;
    reply->state = task.state;
    reply->why = explain(self, call, &task);
    call_say(call, "Task %s is %s: %s.", task.id, task_state_names[task.state], reply->why);
    return err_ok();
}

/* ---- Moving by hand ---- */

typedef err_t by_hand_t(tasks_t *tasks, call_t *call, const task_t *task, const char *why);

static err_t by_hand(agent_t *self, call_t *call, const char *id, by_hand_t *fn, const char *why,
                     const task_t **out)
{
    task_t *task = ARENA_NEW(call_arena(call), task_t);
    store_txn_t *txn;
    err_t err = call_read(call, call_company(call), &txn); /* never makes a company */
    if (!err_is(err) || err.code == ERR_NOT_FOUND)
        err = tasks_get(self->tasks, call, id, task);
    if (!err_is(err))
        err = fn(self->tasks, call, task, why);
    if (!err_is(err))
        err = tasks_get(self->tasks, call, id, task);
    if (err_is(err))
        return err;
    *out = task;
    call_say(call, "Task %s is %s.", task->id, task_state_names[task->state]);
    return err_ok();
}

static err_t to_ready(tasks_t *tasks, call_t *call, const task_t *task, const char *why)
{
    (void)why;
    if (task->state == TASK_READY)
        return err_ok();
    return tasks_make_ready(tasks, call, task);
}

static err_t retry(tasks_t *tasks, call_t *call, const task_t *task, const char *why)
{
    if (!strcmp(task->kind, "sop"))
        return err_of(ERR_STATE, "a run goes on with run_retry_from, which says from which step");
    return to_ready(tasks, call, task, why);
}

static err_t task_cancel(agent_t *self, call_t *call, const task_cancel_args_t *args,
                         task_cancel_reply_t *reply)
{
    const char *why = args->why ? args->why : "cancelled";
    return by_hand(self, call, args->id, tasks_cancel, why, &reply->task);
}

static err_t task_bury(agent_t *self, call_t *call, const task_bury_args_t *args,
                       task_bury_reply_t *reply)
{
    const char *why = args->why ? args->why : "buried";
    return by_hand(self, call, args->id, tasks_bury, why, &reply->task);
}

static err_t task_retry(agent_t *self, call_t *call, const task_retry_args_t *args,
                        task_retry_reply_t *reply)
{
    return by_hand(self, call, args->id, retry, NULL, &reply->task);
}

static err_t task_kick(agent_t *self, call_t *call, const task_kick_args_t *args,
                       task_kick_reply_t *reply)
{
    return by_hand(self, call, args->id, to_ready, NULL, &reply->task);
}

/* ---- Demand ---- */

static double age_seconds(call_t *call, const demand_t *demand)
{
    if (!demand->oldest_ready_ms)
        return 0;
    return (double)(call_now_ms(call) - demand->oldest_ready_ms) / 1000;
}

static int64_t queue_length(const demand_t *demand)
{
    return demand->ready + demand->leased + demand->running + demand->due_soon;
}

static err_t queue_stats(agent_t *self, call_t *call, const queue_stats_args_t *args,
                         queue_stats_reply_t *reply)
{
    (void)args;
    demand_t demand;
    store_txn_t *txn;
    queue_t *queue = NULL;
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = queue_of(self->tasks, call, call_company(call), txn, &queue);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    queue_demand(self->tasks, call, call_company(call), &demand);
    *reply = (queue_stats_reply_t){.ready = demand.ready,
                                   .leased = demand.leased,
                                   .running = demand.running,
                                   .delayed = demand.delayed,
                                   .due_soon = demand.due_soon,
                                   .queue_length = queue_length(&demand),
                                   .oldest_ready_age_seconds = age_seconds(call, &demand),
                                   .paused = queue && queue_paused(queue)};
    return err_ok();
}

static err_t pause_queue(agent_t *self, call_t *call, bool paused, bool *out)
{
    *out = paused;
    call_say(call, "The queue of %s %s.", call_company(call),
             paused ? "is paused" : "gives out work");
    return queue_pause_all(self->tasks, call, paused);
}

static err_t queue_pause(agent_t *self, call_t *call, const queue_pause_args_t *args,
                         queue_pause_reply_t *reply)
{
    (void)args;
    return pause_queue(self, call, true, &reply->paused);
}

static err_t queue_resume(agent_t *self, call_t *call, const queue_resume_args_t *args,
                          queue_resume_reply_t *reply)
{
    (void)args;
    return pause_queue(self, call, false, &reply->paused);
}

static void fill_scale(agent_t *self, call_t *call, scale_reply_t *reply)
{
    const scale_terms_t *terms = &self->terms;
    demand_t demand;
    queue_demand(self->tasks, call, NULL, &demand);
    int64_t length = queue_length(&demand), target = terms->target_per_replica;
    int64_t desired = (length + target - 1) / target;
    if (desired < terms->min_replicas)
        desired = terms->min_replicas;
    if (desired > terms->max_replicas)
        desired = terms->max_replicas;
    *reply = (scale_reply_t){.queue_length = length,
                             .ready = demand.ready,
                             .leased = demand.leased + demand.running,
                             .due_soon = demand.due_soon,
                             .oldest_ready_age_seconds = age_seconds(call, &demand),
                             .target_per_replica = target,
                             .desired_replicas = desired};
}

static void agent_measure(void *state, call_t *call, metrics_t *out)
{
    agent_t *self = state;
    scale_reply_t scale;
    demand_t demand;
    fill_scale(self, call, &scale);
    queue_demand(self->tasks, call, NULL, &demand);
    metrics_gauge(out, "agency_queue_length",
                  "Work there is: ready, leased, running and due soon, of all companies.",
                  (double)scale.queue_length);
    metrics_gauge(out, "agency_queue_ready_tasks", "Tasks that wait for a worker.",
                  (double)demand.ready);
    metrics_gauge(out, "agency_queue_leased_tasks", "Tasks that a worker holds.",
                  (double)scale.leased);
    metrics_gauge(out, "agency_queue_delayed_tasks", "Tasks that wait for their time.",
                  (double)demand.delayed);
    metrics_gauge(out, "agency_queue_due_soon_tasks", "Of those, tasks whose time comes soon.",
                  (double)demand.due_soon);
    metrics_gauge(out, "agency_queue_oldest_ready_age_seconds",
                  "How long the first in line has waited.", scale.oldest_ready_age_seconds);
    metrics_gauge(out, "agency_queue_desired_replicas", "Workers that the queue calls for.",
                  (double)scale.desired_replicas);
    counts_measure(self->counts, out);
}

typedef struct scale_wait {
    int64_t unlike, end_ms;
} scale_wait_t;

static err_t scale_again(void *state, call_t *call, void *reply, void *ctx)
{
    agent_t *self = state;
    const scale_wait_t *wait = ctx;
    scale_reply_t *out = reply;
    fill_scale(self, call, out);
    int64_t left = wait->end_ms - call_now_ms(call);
    if (out->queue_length != wait->unlike || left <= 0 || actor_draining(call_actor(call))) {
        queue_off_demand(self->tasks, call);
        return err_ok();
    }
    queue_on_demand(self->tasks, call, left, scale_again, ctx);
    return call_park(call);
}

static err_t scale(agent_t *self, call_t *call, const scale_args_t *args, scale_reply_t *reply)
{
    scale_wait_t *wait = ARENA_NEW(call_arena(call), scale_wait_t);
    int64_t left = call_left_ms(call) - 100;
    if (args->has_target_per_replica && args->has_min_replicas && args->has_max_replicas)
        self->terms =
            (scale_terms_t){args->target_per_replica, args->min_replicas, args->max_replicas};
    int64_t wait_ms = !args->has_unlike ? 0 : args->wait_ms < left ? args->wait_ms : left;
    *wait = (scale_wait_t){.unlike = args->unlike, .end_ms = call_now_ms(call) + wait_ms};
    return scale_again(self, call, reply, wait);
}

/* ---- Workers ---- */

static err_t lease_now(agent_t *self, call_t *call, const task_lease_args_t *args,
                       task_lease_reply_t *reply)
{
    lease_want_t want = {.company = call_company(call),
                         .kinds = args->kinds,
                         .labels = args->labels,
                         .worker = args->worker,
                         .most = args->n};
    reply->lease_ms = self->settings->lease_ms;
    reply->tasks.items = ARENA_ARRAY(call_arena(call), task_t, (size_t)args->n);
    return queue_lease_some(self->tasks, call, &want, reply->tasks.items, &reply->tasks.count);
}

typedef struct lease_wait {
    const task_lease_args_t *args;
    int64_t end_ms;
} lease_wait_t;

static err_t lease_again(void *state, call_t *call, void *reply, void *ctx)
{
    agent_t *self = state;
    const lease_wait_t *wait = ctx;
    task_lease_reply_t *out = reply;
    err_t err = lease_now(self, call, wait->args, out);
    int64_t left = wait->end_ms - call_now_ms(call);
    if (!err_is(err) && !out->tasks.count && left > 0 && !actor_draining(call_actor(call))) {
        queue_wait(self->tasks, call, left, lease_again, ctx);
        return call_park(call);
    }
    queue_stop_waiting(self->tasks, call);
    return err;
}

static bool ends_wait(void *ctx, const void *worker)
{
    lease_wait_t *wait = ctx;
    size_t size = strlen(worker);
    const char *asks = wait->args->worker;
    if (strncmp(asks, worker, size) != 0 || (asks[size] && asks[size] != '/'))
        return false;
    wait->end_ms = 0;
    return true;
}

static err_t task_lease_stop(agent_t *self, call_t *call, const task_lease_stop_args_t *args,
                             task_lease_stop_reply_t *reply)
{
    reply->ended = queue_end_waits(self->tasks, call, ends_wait, args->worker);
    return err_ok();
}

static err_t task_cordon(agent_t *self, call_t *call, const task_cordon_args_t *args,
                         task_cordon_reply_t *reply)
{
    int64_t until = args->for_ms ? call_now_ms(call) + args->for_ms : 0;
    reply->leases = queue_cordon(self->tasks, args->worker, until);
    return err_ok();
}

static err_t task_lease(agent_t *self, call_t *call, const task_lease_args_t *args,
                        task_lease_reply_t *reply)
{
    lease_wait_t *wait = ARENA_NEW(call_arena(call), lease_wait_t);
    int64_t left = call_left_ms(call) - 100;
    int64_t wait_ms = args->wait_ms < left ? args->wait_ms : left;
    *wait = (lease_wait_t){.args = args, .end_ms = call_now_ms(call) + wait_ms};
    return lease_again(self, call, reply, wait);
}

static err_t extend(agent_t *self, call_t *call, const char *id, int64_t fence, bytes_t progress,
                    int64_t *until_ms)
{
    task_t task;
    err_t err = tasks_check_fence(self->tasks, call, call_company(call), id, fence, &task);
    return err_is(err) ? err : tasks_extend(self->tasks, call, &task, progress, until_ms);
}

static err_t task_extend(agent_t *self, call_t *call, const task_extend_args_t *args,
                         task_extend_reply_t *reply)
{
    bytes_t none = {0};
    return extend(self, call, args->id, args->fence, none, &reply->lease_until_ms);
}

#define task_progress_event_FIELDS(F)                                                              \
    F(STR, id, must, 0, 0, "Task.")                                                                \
    F(STR, company, must, 0, 0, "Whose.")                                                          \
    F(ANY, progress, must, 0, 0, "How far it is.")
RECORD(task_progress_event, task_progress_event_FIELDS)

static err_t task_progress(agent_t *self, call_t *call, const task_progress_args_t *args,
                           task_progress_reply_t *reply)
{
    err_t err = extend(self, call, args->id, args->fence, args->progress, &reply->lease_until_ms);
    if (err_is(err))
        return err;
    task_progress_event_t event = {
        .id = args->id, .company = call_company(call), .progress = args->progress};
    call_publish(call, "task.progress", &task_progress_event_record, &event);
    return err_ok();
}

static err_t complete(agent_t *self, call_t *call, const char *id, int64_t fence, bytes_t result)
{
    task_t task;
    err_t err = tasks_check_fence(self->tasks, call, call_company(call), id, fence, &task);
    return err_is(err) ? err : tasks_complete(self->tasks, call, &task, result);
}

static err_t lease_next(agent_t *self, call_t *call, const char *worker, strs_t kinds, int64_t n,
                        task_list_t *out)
{
    if (!n)
        return err_ok();
    if (!worker)
        return err_of(ERR_ARGUMENT, "next needs worker");
    lease_want_t want = {
        .company = call_company(call), .kinds = kinds, .worker = worker, .most = n};
    out->items = ARENA_ARRAY(call_arena(call), task_t, (size_t)n);
    return queue_lease_some(self->tasks, call, &want, out->items, &out->count);
}

static err_t task_complete(agent_t *self, call_t *call, const task_complete_args_t *args,
                           task_complete_reply_t *reply)
{
    err_t err = complete(self, call, args->id, args->fence, args->result);
    reply->state = TASK_COMPLETED;
    return err_is(err)
               ? err
               : lease_next(self, call, args->worker, args->kinds, args->next, &reply->tasks);
}

static err_t task_complete_batch(agent_t *self, call_t *call,
                                 const task_complete_batch_args_t *args,
                                 task_complete_batch_reply_t *reply)
{
    err_t err = err_ok();
    for (size_t i = 0; i < args->tasks.count && !err_is(err); i++) {
        const task_done_t *done = &args->tasks.items[i];
        err = complete(self, call, done->id, done->fence, done->result);
    }
    return err_is(err)
               ? err
               : lease_next(self, call, args->worker, args->kinds, args->next, &reply->tasks);
}

static err_t task_fail(agent_t *self, call_t *call, const task_fail_args_t *args,
                       task_fail_reply_t *reply)
{
    task_t task;
    err_t err =
        tasks_check_fence(self->tasks, call, call_company(call), args->id, args->fence, &task);
    if (!err_is(err))
        err = tasks_fail(self->tasks, call, &task, args->error, args->retryable,
                         args->retry_after_ms);
    if (!err_is(err))
        err = tasks_get(self->tasks, call, args->id, &task);
    reply->state = task.state;
    return err;
}

static err_t task_release(agent_t *self, call_t *call, const task_release_args_t *args,
                          task_release_reply_t *reply)
{
    task_t task;
    err_t err =
        tasks_check_fence(self->tasks, call, call_company(call), args->id, args->fence, &task);
    reply->state = TASK_READY;
    return err_is(err) ? err : tasks_release(self->tasks, call, &task);
}

/* ---- The actor ---- */

static err_t agent_open(void *state, call_t *call)
{
    agent_t *self = state;
    self->terms = (scale_terms_t){self->settings->target_per_replica, self->settings->min_replicas,
                                  self->settings->max_replicas};
    self->counts = counts_new();
    self->tasks = tasks_new(self, call_actor(call));
    err_t err = tasks_open(self->tasks, call);
    if (!err_is(err))
        err = runs_open(self, call);
    return err_is(err) ? err : schedules_open(self, call);
}

static void agent_close(void *state)
{
    agent_t *self = state;
    schedules_close(self);
    runs_close(self);
    tasks_destroy(&self->tasks);
    counts_destroy(&self->counts);
}

static const store_table_t agent_tables[] = {
#define AGENT_TABLE_ROW(name) {#name},
    AGENT_TABLES(AGENT_TABLE_ROW)
#undef AGENT_TABLE_ROW
        {NULL}};

static const method_t *const more_methods[] = {
    sops_methods,     run_tools_methods, run_log_methods,  runs_methods,
    schedule_methods, hr_methods,        patterns_methods, NULL};

RECORD_DEFINE(agent_settings, agent_settings_FIELDS)

const actor_def_t agent_actor = {
    .name = "agent",
    .doc = "The desk where tasks wait and are never lost, and the procedures they follow.",
    .size = sizeof(agent_t),
    .open = agent_open,
    .close = agent_close,
    .methods = agent_methods,
    .more_methods = more_methods,
    .settings = &agent_settings_record,
    .tables = agent_tables,
    .format = 1,
    .measure = agent_measure,
};
