#include "actors/agent/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/queue_parts.h"
#include "bus/bug.h"
#include "proto/mp.h"

/* ---- Life ---- */

tasks_t *tasks_new(agent_t *agent, actor_t *actor)
{
    tasks_t *tasks = calloc(1, sizeof(*tasks));
    if (!tasks)
        abort();
    tasks->agent = agent;
    tasks->actor = actor;
    return tasks;
}

void tasks_destroy(tasks_t **handle)
{
    tasks_t *tasks = *handle;
    if (!tasks)
        return;
    queue_drop_unopened(tasks);
    queue_free_leases(tasks);
    queue_free_waits(tasks);
    while (tasks->queues) {
        queue_t *gone = tasks->queues;
        tasks->queues = gone->next;
        due_free(&gone->due);
        free(gone);
    }
    free(tasks);
    *handle = NULL;
}

const agent_settings_t *queue_settings(const tasks_t *tasks)
{
    return tasks->agent->settings;
}

agent_t *queue_agent(const tasks_t *tasks)
{
    return tasks->agent;
}

const char *queue_company(const queue_t *queue)
{
    return queue->company;
}

bool queue_paused(const queue_t *queue)
{
    return queue->paused;
}

/* ---- After the commit ---- */

change_t *queue_change(queue_t *queue, call_t *call, uint64_t number)
{
    change_t *change = ARENA_NEW(call_arena(call), change_t);
    change->queue = queue;
    change->number = number;
    return change;
}

static void apply(void *self, void *ctx)
{
    const change_t *change = ctx;
    queue_t *queue = change->queue;
    tasks_t *tasks = queue->tasks;
    (void)self;
    queue->ready += change->ready;
    queue->delayed += change->delayed;
    queue->running += change->running;
    if (change->drop_lease)
        queue_drop_lease(queue, change->number);
    lease_t *lease = change->granted ? queue_find_lease(queue, change->number) : NULL;
    if (lease)
        lease->by = NULL;
    queue_note_oldest(queue, change);
    if (change->due_gone_ms)
        due_add(&queue->due, change->due_gone_ms, -1);
    if (change->due_ms)
        due_add(&queue->due, change->due_ms, 1);
    if (change->due_ms && (!queue->next_due_ms || change->due_ms < queue->next_due_ms)) {
        queue->next_due_ms = change->due_ms;
        int64_t now = actor_wall_ms(tasks->actor);
        queue_arm_due(tasks, change->due_ms, now);
    }
    if (change->settled)
        queue_tell_settled(queue, change->number);
    queue_tell_demanders(tasks);
    if (change->ready > 0 || (change->drop_lease && queue->ready > 0)) {
        queue->maybe_ready = true;
        queue_wake_one(tasks);
    }
}

void queue_after_commit(call_t *call, change_t *change)
{
    call_after_commit(call, apply, change);
}

/* ---- Loading a company ---- */

static err_t load_number(queue_t *queue, store_txn_t *txn)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    uint64_t last = 0;
    err_t err = store_scan_open(&scan, txn, TABLE_tasks, none, none, true);
    if (!err_is(err) && store_scan_next(&scan, &key, &value))
        key_read_u64(&key, &last);
    store_scan_close(&scan);
    queue->next_number = last + 1;
    return err;
}

/* A journalled lease is honoured for one lease time. */
static err_t load_running(queue_t *queue, call_t *call, store_txn_t *txn)
{
    store_scan_t scan;
    bytes_t key, value, none = {0}, live, field;
    int64_t until = call_now_ms(call) + queue_settings(queue->tasks)->lease_ms;
    err_t err = store_scan_open(&scan, txn, TABLE_running, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        uint64_t number = 0;
        int64_t fence = 0;
        bytes_t whole = key;
        key_read_u64(&key, &number);
        err = store_get(txn, TABLE_task_states, whole, &live);
        if (err_is(err))
            break;
        if (mp_get(live, "fence", &field))
            mp_int(field, &fence);
        const char *worker =
            mp_get(live, "worker", &field) ? mp_text(call_arena(call), field) : NULL;
        queue_add_lease(queue, number, worker ? worker : "", fence, until);
    }
    store_scan_close(&scan);
    if (queue->leases)
        queue_arm_expiry(queue->tasks, until, call_now_ms(call));
    return err;
}

static err_t load_due(queue_t *queue, store_txn_t *txn)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    int64_t at;
    err_t err = store_scan_open(&scan, txn, TABLE_delayed, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value) && key_read_i64(&key, &at)) {
        due_add(&queue->due, at, 1);
        if (!queue->next_due_ms && !bug(BUG_TIMER_LOST_ON_RESTART))
            queue->next_due_ms = at;
    }
    store_scan_close(&scan);
    return err;
}

static bytes_t paused_key(void)
{
    return (bytes_t){(const uint8_t *)"paused", 6};
}

static err_t load(queue_t *queue, call_t *call, store_txn_t *txn)
{
    bytes_t value;
    queue->ready = store_count(txn, TABLE_ready);
    queue->delayed = store_count(txn, TABLE_delayed);
    queue->running = store_count(txn, TABLE_running);
    queue->maybe_ready = queue->ready > 0;
    queue->oldest_ms = queue->ready > 0; /* long ago, and to be looked up */
    queue->oldest_stale = true;
    queue->forget_due_ms = 0;
    queue->paused = !err_is(store_get(txn, TABLE_meta, paused_key(), &value));
    err_t err = load_number(queue, txn);
    if (!err_is(err))
        err = load_due(queue, txn);
    if (!err_is(err))
        err = load_running(queue, call, txn);
    return err;
}

/* The same in every run, so that a simulation can be repeated. */
static uint64_t hash_name(const char *company)
{
    uint64_t hash = 0;
    for (const char *at = company; *at; at++)
        hash = hash * 31 + (unsigned char)*at;
    return hash;
}

static queue_t *find_queue(const tasks_t *tasks, const char *company)
{
    queue_t *queue = tasks->names[hash_name(company) % QUEUE_NAMES];
    while (queue && strcmp(queue->company, company) != 0)
        queue = queue->same_name;
    return queue;
}

err_t queue_of(tasks_t *tasks, call_t *call, const char *company, store_txn_t *txn, queue_t **out)
{
    *out = find_queue(tasks, company);
    if (*out)
        return err_ok();
    queue_t *queue = calloc(1, sizeof(*queue));
    if (!queue)
        abort();
    queue->tasks = tasks;
    snprintf(queue->company, sizeof(queue->company), "%s", company);
    queue->salt = hash_name(company);
    err_t err = load(queue, call, txn);
    if (err_is(err)) {
        due_free(&queue->due);
        free(queue);
        return err;
    }
    queue->next = tasks->queues;
    queue->same_name = tasks->names[queue->salt % QUEUE_NAMES];
    tasks->names[queue->salt % QUEUE_NAMES] = tasks->queues = *out = queue;
    queue_arm_due(tasks, queue->next_due_ms, call_now_ms(call));
    if (queue->maybe_ready)
        queue_wake_one(tasks);
    return err_ok();
}

/* A number that is not committed is lost, which leaves a gap and harms nobody. */
uint64_t queue_next_number(queue_t *queue)
{
    return queue->next_number++;
}

/* ---- Giving work ---- */

static int64_t new_fence(tasks_t *tasks)
{
    uint64_t epoch = bug(BUG_FENCE_FORGETS_EPOCH) ? 1 : actor_epoch(tasks->actor);
    return (int64_t)(epoch << 32 | ++tasks->fence_counter);
}

static void grant(queue_t *queue, call_t *call, const lease_want_t *want, uint64_t number,
                  task_t *task)
{
    tasks_t *tasks = queue->tasks;
    int64_t limit = call_now_ms(call) + task->timeout_ms;
    int64_t until = call_now_ms(call) + queue_settings(tasks)->lease_ms;
    if (until > limit)
        until = limit;
    lease_t *lease = queue_find_lease(queue, number);
    if (lease)
        queue_drop_lease(queue, number);
    lease = queue_add_lease(queue, number, want->worker, new_fence(tasks), until);
    lease->granted_ms = call_now_ms(call);
    lease->limit_ms = limit;
    lease->by = call;
    change_t *change = queue_change(queue, call, number);
    change->granted = true;
    queue_after_commit(call, change);
    queue_arm_expiry(tasks, until, call_now_ms(call));
    task->state = TASK_LEASED;
    task->worker = arena_strdup(call_arena(call), lease->worker);
    task->fence = lease->fence;
    task->lease_until_ms = until;
    task->has_fence = task->has_lease_until_ms = true;
}

/* Free for this call: not leased, or leased by the first run of this very call, which was aborted
 * with its batch. */
static bool is_free(const queue_t *queue, call_t *call, uint64_t number)
{
    const lease_t *lease = queue_find_lease(queue, number);
    return !lease || bug(BUG_DOUBLE_LEASE) ||
           (lease->by == call && lease->granted_ms == call_now_ms(call));
}

static err_t lease_from(queue_t *queue, call_t *call, const lease_want_t *want, task_t *out,
                        size_t *count)
{
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value, none = {0};
    size_t before = *count;
    err_t err = call_read(call, queue->company, &txn);
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_ready, none, none, false);
    if (err_is(err))
        return err;
    bool all = true;
    for (int seen = 0; store_scan_next(&scan, &key, &value); seen++) {
        int64_t rank;
        uint64_t number;
        if (*count == (size_t)want->most || seen == QUEUE_SCAN_MOST) {
            all = false;
            break;
        }
        if (!key_read_i64(&key, &rank) || !key_read_u64(&key, &number) ||
            !is_free(queue, call, number))
            continue;
        all = false;
        if (tasks_fits(queue->tasks, call, queue->company, number, want, &out[*count])) {
            grant(queue, call, want, number, &out[*count]);
            (*count)++;
        }
    }
    store_scan_close(&scan);
    if (all && *count == before)
        queue->maybe_ready = false;
    return err_ok();
}

static bool may_give(const queue_t *queue, const call_t *call, const lease_want_t *want)
{
    if (!queue->maybe_ready || queue->paused)
        return false;
    if (want->company)
        return !strcmp(want->company, queue->company);
    return call_may(call, queue->company);
}

/* One task of each company in turn, until enough are found or nobody has more. */
err_t queue_lease_some(tasks_t *tasks, call_t *call, const lease_want_t *want, task_t *out,
                       size_t *count)
{
    *count = 0;
    size_t before;
    if (want->worker && queue_cordoned(tasks, want->worker, call_now_ms(call)))
        return err_ok();
    do {
        before = *count;
        size_t companies = 0;
        for (queue_t *queue = tasks->queues; queue; queue = queue->next)
            companies += may_give(queue, call, want);
        queue_t *queue = tasks->turn ? tasks->turn : tasks->queues;
        queue_t *first = queue;
        while (queue && *count < (size_t)want->most) {
            if (may_give(queue, call, want)) {
                lease_want_t one = *want;
                if (companies > 1)
                    one.most = (int64_t)*count + 1;
                err_t err = lease_from(queue, call, &one, out, count);
                if (err_is(err) && err.code != ERR_NOT_FOUND)
                    return err;
            }
            queue = queue->next ? queue->next : tasks->queues;
            if (queue == first)
                break;
        }
        tasks->turn = queue;
    } while (*count<(size_t)want->most && * count> before);
    return err_ok();
}

err_t queue_pause_all(tasks_t *tasks, call_t *call, bool paused)
{
    store_txn_t *txn;
    queue_t *queue;
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = queue_of(tasks, call, call_company(call), txn, &queue);
    if (!err_is(err))
        err = paused ? store_put(txn, TABLE_meta, paused_key(), paused_key())
                     : store_del(txn, TABLE_meta, paused_key());
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    queue->paused = paused; /* a failed commit only makes it early */
    if (!paused) {
        change_t *change = queue_change(queue, call, 0);
        change->drop_lease = true; /* wakes a worker when something is ready */
        queue_after_commit(call, change);
    }
    return err_ok();
}
