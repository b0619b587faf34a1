#include "actors/agent/tasks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/agent.h"
#include "actors/agent/queue.h"
#include "bus/bug.h"
#include "proto/mp.h"

RECORD_DEFINE(task, task_FIELDS)

/* ---- What is stored ---- */

/* Table tasks, key: number. Written once, with the submission. */
#define task_row_FIELDS(F)                                                                         \
    F(STR, kind, must, 0, 0, "What is to be done.")                                                \
    F(STR, sop, opt(), 0, 0, "The procedure.")                                                     \
    F(ANY, input, must, 0, 0, "What it was given.")                                                \
    F(INT, priority, must, 0, 0, "9 is the most urgent.")                                          \
    F(STRS, labels, opt(), 0, 0, "Wanted of the worker.")                                          \
    F(INT, max_attempts, must, 0, 0, "Failures until it is failed.")                               \
    F(INT, timeout_ms, must, 0, 0, "Longest attempt.")                                             \
    F(INT, created_ms, must, 0, 0, "When it was submitted.")                                       \
    F(INT, run_at_ms, must, 0, 0, "Not before; 0: at once.")                                       \
    F(INT, rank, must, 0, 0, "Its place among the ready.")                                         \
    F(STR, idempotency_key, opt(), 0, 0, "Key of the submitter.")                                  \
    F(STR, by, opt(), 0, 0, "Who submitted it.")                                                   \
    F(STR, parent, opt(), 0, 0, "The task that waits for it.")
RECORD(task_row, task_row_FIELDS)

/* Table task_states, key: number. Absent until the first change: then it is fresh, scheduled while
 * it stands among the delayed, else ready. */
#define task_live_FIELDS(F)                                                                        \
    F(ENUM(task_state), state, must, 0, 0, "Where it is; leased is never stored.")                 \
    F(INT, attempts, must, 0, 0, "Failures.")                                                      \
    F(INT, crashes, must, 0, 0, "Lost leases.")                                                    \
    F(INT, run_at_ms, must, 0, 0, "Its key among the delayed; 0: not there.")                      \
    F(INT, updated_ms, must, 0, 0, "Last change.")                                                 \
    F(INT, finished_ms, must, 0, 0, "When it ended; 0: it has not.")                               \
    F(STR, worker, opt(), 0, 0, "Holder of a journalled lease, or the last one.")                  \
    F(INT, fence, must, 0, 0, "Token of a journalled lease; 0: none.")                             \
    F(STR, error, opt(), 0, 0, "Why the last attempt failed.")                                     \
    F(STR, why, opt(), 0, 0, "What it waits for.")
RECORD(task_live, task_live_FIELDS)

enum { LARGEST_BACKOFF_SHIFT = 30 };

/* A task in the hands of one entry. */
typedef struct item {
    tasks_t *tasks;
    queue_t *queue;
    uint64_t number;
    store_txn_t *txn;
    task_row_t row;
    task_live_t live;
} item_t;

static bool final_state(int state)
{
    return state == TASK_COMPLETED || state == TASK_FAILED || state == TASK_CANCELLED ||
           state == TASK_BURIED;
}

/* ---- Keys and ids ---- */

static bytes_t number_key(store_key_t *key, uint64_t number)
{
    key_open(key);
    key_u64(key, number);
    return key_bytes(key);
}

static bytes_t ordered_key(store_key_t *key, int64_t order, uint64_t number)
{
    key_open(key);
    key_i64(key, order);
    key_u64(key, number);
    return key_bytes(key);
}

static const char *id_of(arena_t *arena, uint64_t number)
{
    return arena_printf(arena, "t%010" PRIx64, number);
}

static bool number_of(const char *id, uint64_t *number)
{
    char *end;
    if (id[0] != 't' || strlen(id) < 2 || strlen(id) > 17 ||
        strspn(id + 1, "0123456789abcdef") != strlen(id) - 1)
        return false;
    *number = strtoull(id + 1, &end, 16);
    return true;
}

/* ---- Reading ---- */

static err_t get_record(item_t *item, call_t *call, int table, const record_t *record, void *out)
{
    store_key_t key;
    bytes_t value;
    err_t err = store_get(item->txn, table, number_key(&key, item->number), &value);
    if (err_is(err))
        return err;
    return record_decode(record, value, call_arena(call), "stored field", out);
}

static bool is_delayed(const item_t *item, int64_t at_ms)
{
    store_key_t key;
    bytes_t value;
    return at_ms > 0 && !err_is(store_get(item->txn, TABLE_delayed,
                                          ordered_key(&key, at_ms, item->number), &value));
}

static err_t load_item(tasks_t *tasks, call_t *call, const char *company, uint64_t number,
                       bool write, item_t *item)
{
    *item = (item_t){.tasks = tasks, .number = number};
    err_t err =
        write ? call_write(call, company, &item->txn) : call_read(call, company, &item->txn);
    if (!err_is(err))
        err = queue_of(tasks, call, company, item->txn, &item->queue);
    if (!err_is(err))
        err = get_record(item, call, TABLE_tasks, &task_row_record, &item->row);
    if (err_is(err))
        return err;
    err = get_record(item, call, TABLE_task_states, &task_live_record, &item->live);
    if (err.code != ERR_NOT_FOUND)
        return err;
    bool delayed = is_delayed(item, item->row.run_at_ms);
    item->live = (task_live_t){.state = delayed ? TASK_SCHEDULED : TASK_READY,
                               .run_at_ms = delayed ? item->row.run_at_ms : 0,
                               .updated_ms = item->row.created_ms};
    return err_ok();
}

static err_t find_item(tasks_t *tasks, call_t *call, const char *company, const char *id,
                       bool write, item_t *item)
{
    uint64_t number;
    err_t err = number_of(id, &number) ? load_item(tasks, call, company, number, write, item)
                                       : err_of(ERR_NOT_FOUND, NULL);
    if (err.code == ERR_NOT_FOUND)
        return err_make(call_arena(call), ERR_NOT_FOUND, "there is no task '%.64s'", id);
    return err;
}

static void show(call_t *call, const item_t *item, task_t *task)
{
    const task_row_t *row = &item->row;
    const task_live_t *live = &item->live;
    const lease_t *lease = queue_lease(item->queue, item->number);
    *task = (task_t){.id = id_of(call_arena(call), item->number),
                     .company = queue_company(item->queue),
                     .kind = row->kind,
                     .state = live->state,
                     .input = row->input,
                     .sop = row->sop,
                     .priority = row->priority,
                     .labels = row->labels,
                     .attempts = live->attempts,
                     .max_attempts = row->max_attempts,
                     .crashes = live->crashes,
                     .timeout_ms = row->timeout_ms,
                     .created_ms = row->created_ms,
                     .run_at_ms = live->run_at_ms,
                     .has_run_at_ms = live->run_at_ms > 0,
                     .updated_ms = live->updated_ms,
                     .finished_ms = live->finished_ms,
                     .has_finished_ms = live->finished_ms > 0,
                     .worker = live->worker,
                     .error = live->error,
                     .why = live->why,
                     .idempotency_key = row->idempotency_key,
                     .by = row->by,
                     .parent = row->parent};
    if (lease && !final_state(live->state)) {
        if (live->state == TASK_READY)
            task->state = TASK_LEASED;
        task->worker = arena_strdup(call_arena(call), lease->worker);
        task->fence = lease->fence;
        task->has_fence = true;
        task->lease_until_ms = lease->until_ms;
        task->has_lease_until_ms = true;
        task->progress =
            (bytes_t){arena_copy(call_arena(call), lease->progress.data, lease->progress.size),
                      lease->progress.size};
    }
    store_key_t key;
    bytes_t result;
    if (final_state(live->state) &&
        !err_is(store_get(item->txn, TABLE_task_results, number_key(&key, item->number), &result)))
        task->result = result;
}

err_t tasks_get(tasks_t *tasks, call_t *call, const char *id, task_t *task)
{
    item_t item;
    err_t err = find_item(tasks, call, call_company(call), id, false, &item);
    if (!err_is(err))
        show(call, &item, task);
    return err;
}

err_t tasks_load(tasks_t *tasks, call_t *call, const char *company, uint64_t number, task_t *task)
{
    item_t item;
    err_t err = load_item(tasks, call, company, number, false, &item);
    if (!err_is(err))
        show(call, &item, task);
    return err;
}

/* ---- Writing ---- */

static err_t put_record(item_t *item, call_t *call, int table, const record_t *record,
                        const void *value)
{
    store_key_t key;
    return store_put(item->txn, table, number_key(&key, item->number),
                     call_encode(call, record, value));
}

/* What was there when it was read may be gone. */
static err_t put_live(item_t *item, call_t *call)
{
    task_live_t *live = &item->live;
    live->has_worker = live->worker != NULL;
    live->has_error = live->error != NULL;
    live->has_why = live->why != NULL;
    return put_record(item, call, TABLE_task_states, &task_live_record, live);
}

static err_t put_ready(item_t *item)
{
    store_key_t key;
    return store_put(item->txn, TABLE_ready, ordered_key(&key, item->row.rank, item->number),
                     (bytes_t){0});
}

static err_t put_delayed(item_t *item, int64_t at_ms)
{
    store_key_t key;
    return store_put(item->txn, TABLE_delayed, ordered_key(&key, at_ms, item->number),
                     (bytes_t){0});
}

/* Takes it off whatever list it stands on. */
static err_t unlist(item_t *item, change_t *change)
{
    store_key_t key;
    switch (item->live.state) {
    case TASK_READY:
        change->ready--;
        return store_del(item->txn, TABLE_ready, ordered_key(&key, item->row.rank, item->number));
    case TASK_SCHEDULED:
    case TASK_WAITING_TIMER:
        change->delayed--;
        change->due_gone_ms = item->live.run_at_ms;
        return store_del(item->txn, TABLE_delayed,
                         ordered_key(&key, item->live.run_at_ms, item->number));
    case TASK_RUNNING:
        change->running--;
        return store_del(item->txn, TABLE_running, number_key(&key, item->number));
    default:
        return err_ok();
    }
}

#define task_event_FIELDS(F)                                                                       \
    F(STR, id, must, 0, 0, "Task.")                                                                \
    F(STR, company, must, 0, 0, "Whose.")                                                          \
    F(STR, kind, must, 0, 0, "What it is.")                                                        \
    F(ENUM(task_state), state, must, 0, 0, "New state.")                                           \
    F(STR, why, opt(), 0, 0, "What it waits for, or why it failed.")
RECORD(task_event, task_event_FIELDS)

static void publish(call_t *call, const item_t *item)
{
    task_event_t event = {.id = id_of(call_arena(call), item->number),
                          .company = queue_company(item->queue),
                          .kind = item->row.kind,
                          .state = item->live.state,
                          .why = item->live.why ? item->live.why : item->live.error};
    counts_task(call, event.state);
    call_publish(call, arena_printf(call_arena(call), "task.%s", task_state_names[event.state]),
                 &task_event_record, &event);
}

static err_t tell_family(call_t *call, const item_t *item);

/* One move on the picture in tasks.h: off the old list, on the new one, all in one transaction. */
static err_t move(call_t *call, item_t *item, task_state_t to, int64_t at_ms, bool drop_lease)
{
    change_t *change = queue_change(item->queue, call, item->number);
    err_t err = unlist(item, change);
    if (err_is(err))
        return err_make(call_arena(call), ERR_CORRUPT, "task %s is not where it should be: %s",
                        id_of(call_arena(call), item->number), err_what(err));
    task_live_t *live = &item->live;
    live->state = (int)to;
    live->updated_ms = call_now_ms(call);
    live->run_at_ms = 0;
    store_key_t key;
    if (final_state((int)to)) {
        live->finished_ms = live->updated_ms;
        change->settled = true;
    } else if (to == TASK_READY) {
        err = put_ready(item);
        change->ready++;
    } else if (to == TASK_SCHEDULED || to == TASK_WAITING_TIMER) {
        live->run_at_ms = at_ms;
        err = put_delayed(item, at_ms);
        change->delayed++;
        change->due_ms = at_ms;
    } else if (to == TASK_RUNNING) {
        err = store_put(item->txn, TABLE_running, number_key(&key, item->number), (bytes_t){0});
        change->running++;
    } else if (to == TASK_INPUT_REQUIRED) {
        change->settled = true; /* whoever waits is told */
    }
    if (to != TASK_RUNNING)
        live->fence = 0;
    change->drop_lease = drop_lease;
    if (!err_is(err))
        err = put_live(item, call);
    if (!err_is(err)) {
        queue_after_commit(call, change);
        publish(call, item);
        err = tell_family(call, item);
    }
    return err;
}

/* The task that waits for this one: the end wakes it; that a person is needed is told to whoever
 * waits for it, and for what waits for it in turn. */
static err_t tell_parent(call_t *call, const item_t *item)
{
    item_t parent;
    bool over = final_state(item->live.state);
    if (!item->row.parent || (!over && item->live.state != TASK_INPUT_REQUIRED))
        return err_ok();
    err_t err =
        find_item(item->tasks, call, queue_company(item->queue), item->row.parent, true, &parent);
    if (err_is(err) || parent.live.state != TASK_WAITING_CHILD)
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    if (!over) {
        change_t *change = queue_change(parent.queue, call, parent.number);
        change->settled = true;
        queue_after_commit(call, change);
        parent.live.state = TASK_INPUT_REQUIRED; /* only here, for the next in line */
        return tell_parent(call, &parent);
    }
    parent.live.why = NULL;
    return bug(BUG_LOST_CHILD) ? err_ok() : move(call, &parent, TASK_READY, 0, false);
}

/* The runs that this one began end with it when it did not come to its end. */
static err_t tell_family(call_t *call, const item_t *item)
{
    int state = item->live.state;
    err_t err = err_ok();
    if ((state == TASK_FAILED || state == TASK_CANCELLED) && !strcmp(item->row.kind, "sop"))
        err = runs_stop_children(queue_agent(item->tasks), call, queue_company(item->queue),
                                 id_of(call_arena(call), item->number));
    return err_is(err) ? err : tell_parent(call, item);
}

/* ---- Submitting ---- */

static err_t known_key(call_t *call, store_txn_t *txn, const char *name, const char **id)
{
    store_key_t key;
    bytes_t value;
    uint64_t number;
    key_open(&key);
    key_str(&key, name);
    err_t err = store_get(txn, TABLE_task_keys, key_bytes(&key), &value);
    if (err_is(err))
        return err;
    if (!key_read_u64(&value, &number))
        return err_of(ERR_CORRUPT, "a row of task_keys is damaged");
    *id = id_of(call_arena(call), number);
    return err_ok();
}

static err_t remember_key(item_t *item, const char *name)
{
    store_key_t key, value;
    key_open(&key);
    key_str(&key, name);
    return store_put(item->txn, TABLE_task_keys, key_bytes(&key), number_key(&value, item->number));
}

static void fill_row(tasks_t *tasks, call_t *call, const task_new_t *task, task_row_t *row)
{
    static const uint8_t nil = 0xc0;
    int64_t now = call_now_ms(call), aging = queue_settings(tasks)->aging_ms;
    *row = (task_row_t){.kind = task->kind,
                        .sop = task->sop,
                        .input = task->input.size ? task->input : (bytes_t){&nil, 1},
                        .priority = task->priority,
                        .labels = task->labels,
                        .max_attempts = task->max_attempts,
                        .timeout_ms = task->timeout_ms,
                        .created_ms = now,
                        .run_at_ms = task->run_at_ms > now ? task->run_at_ms : 0,
                        .idempotency_key = task->idempotency_key,
                        .by = task->by,
                        .parent = task->parent};
    int64_t from = row->run_at_ms ? row->run_at_ms : now;
    row->rank = from - task->priority * aging;
}

static err_t check_quota(tasks_t *tasks, call_t *call, store_txn_t *txn)
{
    int64_t most = queue_settings(tasks)->max_waiting;
    int64_t waiting = store_count(txn, TABLE_ready) + store_count(txn, TABLE_delayed) +
                      store_count(txn, TABLE_running);
    if (waiting < most)
        return err_ok();
    return err_make(call_arena(call), ERR_QUOTA,
                    "company '%s' has %" PRId64 " unfinished tasks, the most that "
                    "agent.max_waiting allows; wait, cancel some or raise it",
                    call_company(call), waiting);
}

err_t tasks_submit(tasks_t *tasks, call_t *call, const task_new_t *task, const char **id,
                   bool *existed)
{
    item_t item = {.tasks = tasks};
    *existed = false;
    err_t err = call_write(call, call_company(call), &item.txn);
    if (!err_is(err))
        err = queue_of(tasks, call, call_company(call), item.txn, &item.queue);
    if (err_is(err))
        return err;
    if (task->idempotency_key) {
        err = known_key(call, item.txn, task->idempotency_key, id);
        *existed = !err_is(err);
        if (err.code != ERR_NOT_FOUND)
            return err;
    }
    err = check_quota(tasks, call, item.txn);
    if (err_is(err))
        return err;
    item.number = queue_next_number(item.queue);
    fill_row(tasks, call, task, &item.row);
    change_t *change = queue_change(item.queue, call, item.number);
    store_key_t key;
    err = store_append(item.txn, TABLE_tasks, number_key(&key, item.number),
                       call_encode(call, &task_row_record, &item.row));
    if (!err_is(err) && item.row.run_at_ms) {
        err = put_delayed(&item, item.row.run_at_ms);
        change->delayed++;
        change->due_ms = item.row.run_at_ms;
        item.live.state = TASK_SCHEDULED;
    } else if (!err_is(err)) {
        err = put_ready(&item);
        change->ready++;
        item.live.state = TASK_READY;
    }
    if (!err_is(err) && task->idempotency_key)
        err = remember_key(&item, task->idempotency_key);
    if (err_is(err))
        return err;
    *id = id_of(call_arena(call), item.number);
    queue_after_commit(call, change);
    publish(call, &item);
    return err_ok();
}

/* ---- The holder of a lease ---- */

static err_t fenced(call_t *call, const char *id, const lease_t *lease)
{
    if (lease)
        return err_make(call_arena(call), ERR_FENCED,
                        "the lease of task %s is lost: %s holds it now", id, lease->worker);
    return err_make(call_arena(call), ERR_FENCED, "the lease of task %s is over", id);
}

err_t tasks_check_fence(tasks_t *tasks, call_t *call, const char *company, const char *id,
                        int64_t fence, task_t *task)
{
    item_t item;
    err_t err = find_item(tasks, call, company, id, true, &item);
    if (err_is(err))
        return err;
    const lease_t *lease = queue_lease(item.queue, item.number);
    bool holds = lease && lease->fence == fence &&
                 (item.live.state == TASK_READY || item.live.state == TASK_RUNNING);
    if (!holds && !bug(BUG_MISSING_FENCE_CHECK))
        return fenced(call, id, final_state(item.live.state) ? NULL : lease);
    show(call, &item, task);
    return err_ok();
}

/* The task again, to be changed; `task` came from tasks_check_fence or tasks_get. */
static err_t reload(tasks_t *tasks, call_t *call, const task_t *task, item_t *item)
{
    return find_item(tasks, call, task->company, task->id, true, item);
}

err_t tasks_journal(tasks_t *tasks, call_t *call, const task_t *task)
{
    item_t item;
    err_t err = reload(tasks, call, task, &item);
    if (err_is(err))
        return err;
    item.live.fence = task->fence;
    item.live.worker = task->worker;
    if (item.live.state == TASK_RUNNING)
        return put_live(&item, call);
    err = move(call, &item, TASK_RUNNING, 0, false);
    return err;
}

err_t tasks_extend(tasks_t *tasks, call_t *call, const task_t *task, bytes_t progress,
                   int64_t *until_ms)
{
    uint64_t number;
    queue_t *queue;
    store_txn_t *txn;
    err_t err = call_read(call, task->company, &txn);
    if (!err_is(err))
        err = queue_of(tasks, call, task->company, txn, &queue);
    if (err_is(err) || !number_of(task->id, &number))
        return err;
    *until_ms = queue_extend(queue, number, task->fence, call_now_ms(call));
    if (progress.size)
        queue_progress(queue, number, progress);
    return err_ok();
}

static err_t put_result(item_t *item, bytes_t result)
{
    store_key_t key;
    if (!result.size)
        return err_ok();
    return store_put(item->txn, TABLE_task_results, number_key(&key, item->number), result);
}

err_t tasks_complete(tasks_t *tasks, call_t *call, const task_t *task, bytes_t result)
{
    item_t item;
    err_t err = reload(tasks, call, task, &item);
    if (err_is(err))
        return err;
    item.live.error = item.live.why = NULL;
    item.live.worker = task->worker;
    err = put_result(&item, result);
    return err_is(err) ? err : move(call, &item, TASK_COMPLETED, 0, true);
}

/* Exponential backoff with full jitter,
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ */
static int64_t pause_ms(tasks_t *tasks, call_t *call, int64_t attempts)
{
    const agent_settings_t *settings = queue_settings(tasks);
    int64_t shift = attempts > LARGEST_BACKOFF_SHIFT ? LARGEST_BACKOFF_SHIFT : attempts;
    int64_t most = settings->backoff_ms << shift;
    if (most > settings->backoff_limit_ms || most <= 0)
        most = settings->backoff_limit_ms;
    uint32_t random;
    call_random(call, &random, sizeof(random));
    return 1 + (int64_t)((double)random / 4294967296.0 * (double)most);
}

err_t tasks_fail(tasks_t *tasks, call_t *call, const task_t *task, const char *error,
                 bool retryable, int64_t retry_after_ms)
{
    item_t item;
    err_t err = reload(tasks, call, task, &item);
    if (err_is(err))
        return err;
    item.live.error = error;
    item.live.why = NULL;
    item.live.worker = task->worker;
    item.live.attempts++;
    bool again = retryable && item.live.attempts < item.row.max_attempts && !bug(BUG_SPENT_RETRY);
    if (!again)
        return move(call, &item, TASK_FAILED, 0, true);
    int64_t wait = pause_ms(tasks, call, item.live.attempts - 1);
    if (wait < retry_after_ms)
        wait = retry_after_ms;
    item.live.why = arena_printf(call_arena(call), "attempt %" PRId64 " of %" PRId64 " failed",
                                 item.live.attempts, item.row.max_attempts);
    return move(call, &item, TASK_SCHEDULED, call_now_ms(call) + wait, true);
}

err_t tasks_release(tasks_t *tasks, call_t *call, const task_t *task)
{
    item_t item;
    err_t err = reload(tasks, call, task, &item);
    if (err_is(err))
        return err;
    if (item.live.state == TASK_READY) { /* only the lease in memory ends */
        change_t *change = queue_change(item.queue, call, item.number);
        change->drop_lease = true;
        queue_after_commit(call, change);
        return err_ok();
    }
    return move(call, &item, TASK_READY, 0, true);
}

static err_t wait_in(tasks_t *tasks, call_t *call, const task_t *task, task_state_t state,
                     int64_t at_ms, const char *why)
{
    item_t item;
    err_t err = reload(tasks, call, task, &item);
    if (err_is(err))
        return err;
    item.live.why = why;
    return move(call, &item, state, at_ms, true);
}

err_t tasks_wait_until(tasks_t *tasks, call_t *call, const task_t *task, int64_t at_ms,
                       const char *why)
{
    return wait_in(tasks, call, task, TASK_WAITING_TIMER, at_ms > 0 ? at_ms : 1, why);
}

err_t tasks_require_input(tasks_t *tasks, call_t *call, const task_t *task, const char *why)
{
    return wait_in(tasks, call, task, TASK_INPUT_REQUIRED, 0, why);
}

err_t tasks_wait_child(tasks_t *tasks, call_t *call, const task_t *task, const char *why)
{
    return wait_in(tasks, call, task, TASK_WAITING_CHILD, 0, why);
}

err_t tasks_make_ready(tasks_t *tasks, call_t *call, const task_t *task)
{
    item_t item;
    err_t err = reload(tasks, call, task, &item);
    if (err_is(err))
        return err;
    int state = item.live.state;
    if (state != TASK_INPUT_REQUIRED && state != TASK_WAITING_TIMER && state != TASK_FAILED &&
        state != TASK_BURIED && state != TASK_SCHEDULED && state != TASK_CANCELLED &&
        state != TASK_WAITING_CHILD)
        return err_make(call_arena(call), ERR_STATE,
                        "task %s is %s: only a waiting, failed, cancelled or buried one can be "
                        "made ready",
                        task->id, task_state_names[task->state]);
    if (final_state(state)) {
        item.live.attempts = item.live.crashes = item.live.finished_ms = 0;
        store_key_t key;
        err = store_del(item.txn, TABLE_task_results, number_key(&key, item.number));
        if (err_is(err) && err.code != ERR_NOT_FOUND)
            return err;
    }
    item.live.why = NULL;
    return move(call, &item, TASK_READY, 0, true);
}

static err_t end_task(tasks_t *tasks, call_t *call, const task_t *task, task_state_t to,
                      const char *why)
{
    item_t item;
    err_t err = reload(tasks, call, task, &item);
    if (err_is(err))
        return err;
    if (final_state(item.live.state))
        return err_make(call_arena(call), ERR_STATE, "task %s is already %s", task->id,
                        task_state_names[item.live.state]);
    item.live.why = NULL;
    item.live.error = why;
    return move(call, &item, to, 0, true);
}

err_t tasks_cancel(tasks_t *tasks, call_t *call, const task_t *task, const char *why)
{
    return end_task(tasks, call, task, TASK_CANCELLED, why);
}

err_t tasks_bury(tasks_t *tasks, call_t *call, const task_t *task, const char *why)
{
    return end_task(tasks, call, task, TASK_BURIED, why);
}

/* ---- What happens by itself ---- */

err_t tasks_lost_lease(tasks_t *tasks, call_t *call, const char *company, uint64_t number)
{
    item_t item;
    err_t err = load_item(tasks, call, company, number, true, &item);
    if (err_is(err))
        return err;
    if (item.live.state != TASK_READY && item.live.state != TASK_RUNNING)
        return err_ok();
    const lease_t *lease = queue_lease(item.queue, number);
    if (lease && lease->limit_ms <= call_now_ms(call)) {
        task_t task;
        show(call, &item, &task);
        const char *error =
            arena_printf(call_arena(call), "it took longer than its timeout_ms of %" PRId64,
                         item.row.timeout_ms);
        return tasks_fail(tasks, call, &task, error, true, 0);
    }
    item.live.crashes++;
    if (item.live.crashes >= queue_settings(tasks)->max_crashes) {
        item.live.error = arena_printf(call_arena(call),
                                       "its worker was lost %" PRId64 " times; see what it does, "
                                       "then task_kick it",
                                       item.live.crashes);
        return move(call, &item, TASK_BURIED, 0, true);
    }
    item.live.why = "its worker was lost";
    return move(call, &item, TASK_READY, 0, true);
}

err_t tasks_due(tasks_t *tasks, call_t *call, const char *company, uint64_t number)
{
    item_t item;
    err_t err = load_item(tasks, call, company, number, true, &item);
    if (err_is(err) || (item.live.state != TASK_SCHEDULED && item.live.state != TASK_WAITING_TIMER))
        return err;
    item.live.why = NULL;
    return move(call, &item, TASK_READY, 0, true);
}

/* A run that is not over may yet look at it. */
static bool is_wanted(call_t *call, const item_t *item)
{
    item_t parent;
    return item->row.parent &&
           !err_is(find_item(item->tasks, call, queue_company(item->queue), item->row.parent, false,
                             &parent)) &&
           !final_state(parent.live.state);
}

err_t tasks_forget(tasks_t *tasks, call_t *call, const char *company, uint64_t number,
                   int64_t before_ms, bool *gone)
{
    item_t item;
    store_key_t key;
    *gone = false;
    err_t err = load_item(tasks, call, company, number, true, &item);
    if (err_is(err) || !final_state(item.live.state) || item.live.finished_ms >= before_ms ||
        is_wanted(call, &item))
        return err;
    static const int tables[] = {TABLE_tasks, TABLE_task_states, TABLE_task_results};
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        err = store_del(item.txn, tables[i], number_key(&key, number));
        if (err_is(err) && err.code != ERR_NOT_FOUND)
            return err;
    }
    if (item.row.idempotency_key) {
        key_open(&key);
        key_str(&key, item.row.idempotency_key);
        err = store_del(item.txn, TABLE_task_keys, key_bytes(&key));
    }
    *gone = true;
    if (err.code == ERR_NOT_FOUND)
        err = err_ok();
    return err_is(err) ? err : runs_forget(call, company, id_of(call_arena(call), number));
}

bool tasks_fits(tasks_t *tasks, call_t *call, const char *company, uint64_t number,
                const lease_want_t *want, task_t *task)
{
    item_t item;
    if (err_is(load_item(tasks, call, company, number, false, &item)))
        return false;
    bool kind = !want->kinds.count;
    for (size_t i = 0; i < want->kinds.count; i++)
        kind = kind || !strcmp(want->kinds.items[i], item.row.kind);
    for (size_t i = 0; kind && i < item.row.labels.count; i++) {
        bool offered = false;
        for (size_t j = 0; j < want->labels.count; j++)
            offered = offered || !strcmp(want->labels.items[j], item.row.labels.items[i]);
        kind = offered;
    }
    if (kind)
        show(call, &item, task);
    return kind;
}
