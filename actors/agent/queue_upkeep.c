/* What happens to the queue by itself: every company is looked at when the agent starts, tasks
 * become due, and old ones are forgotten. All of it in slices, between which others have their
 * turn. */
#include <stdlib.h>
#include <string.h>

#include "actors/agent/queue_parts.h"

enum {
    OPEN_SLICE = 50, /* companies looked at in one batch while starting */
    DUE_SLICE = 500, /* tasks moved from delayed to ready in one batch */
    FORGET_SLICE = 500
};

/* ---- Due times ---- */

static err_t move_due(void *self, call_t *call, void *ctx);

void queue_arm_due(tasks_t *tasks, int64_t at_ms, int64_t now_ms)
{
    if (!at_ms || (tasks->due_armed_ms && tasks->due_armed_ms <= at_ms))
        return;
    tasks->due_armed_ms = at_ms;
    actor_work(tasks->actor, at_ms > now_ms ? at_ms - now_ms : QUEUE_EARLIEST_MS, move_due, tasks);
}

typedef struct due {
    uint64_t *numbers;
    size_t count;
    int64_t next_ms; /* first one that is not due yet; 0: none */
} due_t;

static err_t find_due(call_t *call, store_txn_t *txn, int64_t now_ms, due_t *due)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    *due = (due_t){.numbers = ARENA_ARRAY(call_arena(call), uint64_t, DUE_SLICE)};
    err_t err = store_scan_open(&scan, txn, TABLE_delayed, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        int64_t at = 0;
        uint64_t number = 0;
        key_read_i64(&key, &at);
        key_read_u64(&key, &number);
        if (at > now_ms || due->count == DUE_SLICE) {
            due->next_ms = at;
            break;
        }
        due->numbers[due->count++] = number;
    }
    store_scan_close(&scan);
    return err;
}

static err_t move_due_of(tasks_t *tasks, call_t *call, queue_t *queue)
{
    store_txn_t *txn;
    due_t due = {0};
    err_t err = call_read(call, queue->company, &txn);
    if (!err_is(err))
        err = find_due(call, txn, call_now_ms(call), &due);
    for (size_t i = 0; !err_is(err) && i < due.count; i++)
        err = tasks_due(tasks, call, queue->company, due.numbers[i]);
    if (!err_is(err))
        queue->next_due_ms = due.next_ms;
    return err;
}

static err_t move_due(void *self, call_t *call, void *ctx)
{
    tasks_t *tasks = ctx;
    (void)self;
    int64_t now = call_now_ms(call), next = 0;
    tasks->due_armed_ms = 0;
    for (queue_t *queue = tasks->queues; queue; queue = queue->next) {
        /* No due time though some are delayed: the commit of an earlier round failed. */
        if (queue->delayed > 0 && queue->next_due_ms <= now) {
            err_t err = move_due_of(tasks, call, queue);
            if (err_is(err))
                return err;
        }
        if (queue->next_due_ms && (!next || queue->next_due_ms < next))
            next = queue->next_due_ms;
    }
    queue_arm_due(tasks, next, now);
    return err_ok();
}

/* ---- Starting: every company is looked at, but not all at once ---- */

void queue_drop_unopened(tasks_t *tasks)
{
    for (size_t i = 0; i < tasks->unopened_count; i++)
        free(tasks->unopened[i]);
    free(tasks->unopened);
    tasks->unopened = NULL;
    tasks->unopened_count = 0;
}

static err_t open_slice(void *self, call_t *call, void *ctx)
{
    tasks_t *tasks = ctx;
    (void)self;
    for (int i = 0; i < OPEN_SLICE && tasks->unopened_at < tasks->unopened_count; i++) {
        const char *company = tasks->unopened[tasks->unopened_at];
        store_txn_t *txn;
        queue_t *queue;
        err_t err = call_read(call, company, &txn);
        if (!err_is(err))
            err = queue_of(tasks, call, company, txn, &queue);
        if (!err_is(err) && queue->oldest_stale) /* while its store is open */
            err = queue_look_up_oldest(queue, call);
        if (err_is(err) && err.code != ERR_NOT_FOUND)
            call_log(call, LOG_ERROR, "the tasks of company '%s' cannot be read: %s", company,
                     err_what(err));
        tasks->unopened_at++;
    }
    if (tasks->unopened_at < tasks->unopened_count)
        call_work(call, 0, open_slice, tasks);
    else
        queue_drop_unopened(tasks);
    return err_ok();
}

/* ---- Old tasks: one company an entry, so that few stores are open at once ---- */

/* The next tasks to look at, at most FORGET_SLICE. */
static err_t next_tasks(queue_t *queue, call_t *call, uint64_t *numbers, size_t *count)
{
    store_txn_t *txn;
    store_scan_t scan;
    store_key_t from;
    bytes_t key, value, none = {0};
    key_open(&from);
    key_u64(&from, queue->forget_from);
    *count = 0;
    err_t err = call_read(call, queue->company, &txn);
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_tasks, none, key_bytes(&from), false);
    if (err_is(err))
        return err;
    while (*count < FORGET_SLICE && store_scan_next(&scan, &key, &value))
        if (key_read_u64(&key, &numbers[*count]) && numbers[*count] + 1 < queue->next_number)
            ++*count; /* the newest stays, so that no number is given twice */
    store_scan_close(&scan);
    return err_ok();
}

/* Deletes what is old among the next rows. *more: there may be more to delete right now. */
static err_t forget_of(tasks_t *tasks, call_t *call, queue_t *queue, bool *more)
{
    int64_t retention = queue_settings(tasks)->retention_ms;
    int64_t before = call_now_ms(call) - retention;
    uint64_t *numbers = ARENA_ARRAY(call_arena(call), uint64_t, FORGET_SLICE);
    size_t count, forgotten = 0;
    err_t err = next_tasks(queue, call, numbers, &count);
    if (err_is(err))
        return err;
    bool whole = count < FORGET_SLICE;
    if (!count && !queue->forget_from)
        queue->forget_due_ms = INT64_MAX; /* until something is submitted */
    for (size_t i = 0; i < count && !err_is(err); i++) {
        bool gone = false;
        task_t task;
        err = tasks_load(tasks, call, queue->company, numbers[i], &task);
        if (!err_is(err) && task.created_ms >= before) { /* all behind it are younger still */
            if (!queue->forget_from)
                queue->forget_due_ms = task.created_ms + retention;
            whole = true;
            break;
        }
        if (!err_is(err))
            err = tasks_forget(tasks, call, queue->company, numbers[i], before, &gone);
        forgotten += gone;
        queue->forget_from = numbers[i] + 1;
    }
    if (whole)
        queue->forget_from = 0;
    *more = forgotten > 0 && !whole;
    return err;
}

static err_t forget_old(void *self, call_t *call, void *ctx)
{
    tasks_t *tasks = ctx;
    bool more = false;
    (void)self;
    err_t err = err_ok();
    while (tasks->forget && tasks->forget->forget_due_ms > call_now_ms(call))
        tasks->forget = tasks->forget->next;
    if (tasks->forget)
        err = forget_of(tasks, call, tasks->forget, &more);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        call_log(call, LOG_ERROR, "the old tasks of company '%s' cannot be deleted: %s",
                 tasks->forget->company, err_what(err));
    if (tasks->forget && !more)
        tasks->forget = tasks->forget->next;
    if (tasks->forget) {
        call_work(call, 0, forget_old, tasks);
    } else {
        tasks->forget = tasks->queues;
        call_work(call, queue_settings(tasks)->forget_every_ms, forget_old, tasks);
    }
    return err_ok();
}

err_t tasks_open(tasks_t *tasks, call_t *call)
{
    strs_t companies;
    err_t err = call_companies(call, &companies);
    if (err_is(err))
        return err;
    tasks->unopened = calloc(companies.count + 1, sizeof(char *));
    if (!tasks->unopened)
        abort();
    for (size_t i = 0; i < companies.count; i++)
        if (!(tasks->unopened[tasks->unopened_count++] = strdup(companies.items[i])))
            abort();
    call_work(call, 0, open_slice, tasks);
    call_work(call, queue_settings(tasks)->forget_every_ms, forget_old, tasks);
    return err_ok();
}
