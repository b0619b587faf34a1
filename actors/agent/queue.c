#include "actors/agent/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/due.h"
#include "bus/bug.h"
#include "proto/mp.h"

enum {
    BUCKETS = 4096,
    OPEN_SLICE = 50, /* companies looked at in one batch while starting */
    DUE_SLICE = 500, /* tasks moved from delayed to ready in one batch */
    FORGET_SLICE = 500,
    SCAN_MOST = 10000, /* ready tasks looked at for one lease call */
    EARLIEST_WAKE_MS = 1,
    OLDEST_LOOKS = 16, /* stores opened for one question about the demand */
    NAMES = 4096
};

struct queue {
    queue_t *next;      /* all */
    queue_t *same_name; /* in its bucket of names */
    tasks_t *tasks;
    char company[65];
    uint64_t salt; /* of its buckets; from the name, so that a run can be repeated exactly */
    uint64_t next_number;
    int64_t ready, delayed, running, leases;
    int64_t next_due_ms; /* 0: nothing is delayed */
    due_table_t due;
    /* The first in line that nobody holds. A stale one was the first: those behind it came later.
     */
    int64_t oldest_ms; /* ready since; 0: none */
    uint64_t oldest;
    bool oldest_stale;
    uint64_t forget_from;  /* where the search for old tasks goes on */
    int64_t forget_due_ms; /* nothing can be old before; INT64_MAX: it has no tasks */
    bool paused;
    bool maybe_ready; /* false: there is nothing that could be leased */
};

typedef struct waiter {
    struct waiter *next;
    call_t *call;
    resume_fn_t *fn;
    void *ctx;
    uint64_t round; /* of waking, in which it had its chance */
    bool told;      /* of another demand; it has not looked yet */
} waiter_t;

typedef struct watcher {
    struct watcher *next;
    call_t *call;
    queue_t *queue;
    char company[65], id[24];
    resume_fn_t *fn;
    void *ctx;
} watcher_t;

/* A worker that gets no more work, by the name of its process or pod. */
typedef struct cordon {
    struct cordon *next;
    int64_t until_ms;
    char name[65];
} cordon_t;

struct tasks {
    cordon_t *cordons;
    agent_t *agent;
    actor_t *actor;
    queue_t *queues;
    queue_t *names[NAMES];
    queue_t *turn;   /* whose turn it is to give work */
    queue_t *forget; /* whose old tasks are looked for next */
    lease_t *leases[BUCKETS];
    int64_t lease_count;
    uint32_t fence_counter;
    waiter_t *waiters, **waiters_end;
    uint64_t wake_round; /* counts the occasions to wake somebody */
    watcher_t *watchers;
    waiter_t *demanders;                   /* wait for another demand */
    int64_t due_armed_ms, expire_armed_ms; /* when the timers fire; 0: not armed */
    /* While starting: */
    char **unopened;
    size_t unopened_count, unopened_at;
};

/* ---- Life ---- */

tasks_t *tasks_new(agent_t *agent, actor_t *actor)
{
    tasks_t *tasks = calloc(1, sizeof(*tasks));
    if (!tasks)
        abort();
    tasks->agent = agent;
    tasks->actor = actor;
    tasks->waiters_end = &tasks->waiters;
    return tasks;
}

static void drop_unopened(tasks_t *tasks)
{
    for (size_t i = 0; i < tasks->unopened_count; i++)
        free(tasks->unopened[i]);
    free(tasks->unopened);
    tasks->unopened = NULL;
    tasks->unopened_count = 0;
}

static void free_lease(lease_t *lease)
{
    free((void *)lease->progress.data);
    free(lease);
}

void tasks_destroy(tasks_t **handle)
{
    tasks_t *tasks = *handle;
    if (!tasks)
        return;
    drop_unopened(tasks);
    for (int i = 0; i < BUCKETS; i++)
        while (tasks->leases[i]) {
            lease_t *gone = tasks->leases[i];
            tasks->leases[i] = gone->next;
            free_lease(gone);
        }
    while (tasks->queues) {
        queue_t *gone = tasks->queues;
        tasks->queues = gone->next;
        due_free(&gone->due);
        free(gone);
    }
    while (tasks->cordons) {
        cordon_t *gone = tasks->cordons;
        tasks->cordons = gone->next;
        free(gone);
    }
    while (tasks->waiters) {
        waiter_t *gone = tasks->waiters;
        tasks->waiters = gone->next;
        free(gone);
    }
    while (tasks->demanders) {
        waiter_t *gone = tasks->demanders;
        tasks->demanders = gone->next;
        free(gone);
    }
    while (tasks->watchers) {
        watcher_t *gone = tasks->watchers;
        tasks->watchers = gone->next;
        free(gone);
    }
    free(tasks);
    *handle = NULL;
}

const agent_settings_t *queue_settings(const tasks_t *tasks)
{
    return tasks->agent->settings;
}

const char *queue_company(const queue_t *queue)
{
    return queue->company;
}

bool queue_paused(const queue_t *queue)
{
    return queue->paused;
}

/* ---- Leases ---- */

static lease_t **bucket(const queue_t *queue, uint64_t number)
{
    uint64_t mixed = (number ^ queue->salt) * UINT64_C(0x9e3779b97f4a7c15);
    return &queue->tasks->leases[mixed >> 52];
}

static lease_t *find_lease(const queue_t *queue, uint64_t number)
{
    lease_t *lease = *bucket(queue, number);
    while (lease && (lease->queue != queue || lease->number != number))
        lease = lease->next;
    return lease;
}

const lease_t *queue_lease(const queue_t *queue, uint64_t number)
{
    return find_lease(queue, number);
}

static lease_t *add_lease(queue_t *queue, uint64_t number, const char *worker, int64_t fence,
                          int64_t until_ms)
{
    lease_t *lease = calloc(1, sizeof(*lease));
    if (!lease)
        abort();
    *lease = (lease_t){.queue = queue,
                       .number = number,
                       .fence = fence,
                       .until_ms = until_ms,
                       .limit_ms = INT64_MAX};
    snprintf(lease->worker, sizeof(lease->worker), "%s", worker);
    lease_t **at = bucket(queue, number);
    lease->next = *at;
    *at = lease;
    queue->leases++;
    queue->tasks->lease_count++;
    return lease;
}

static void drop_lease(queue_t *queue, uint64_t number)
{
    for (lease_t **at = bucket(queue, number); *at; at = &(*at)->next) {
        lease_t *lease = *at;
        if (lease->queue != queue || lease->number != number)
            continue;
        *at = lease->next;
        free_lease(lease);
        queue->leases--;
        queue->tasks->lease_count--;
        return;
    }
}

static err_t expire_leases(void *self, call_t *call, void *ctx);

static void arm_expiry(tasks_t *tasks, int64_t at_ms, int64_t now_ms)
{
    if (tasks->expire_armed_ms && tasks->expire_armed_ms <= at_ms)
        return;
    tasks->expire_armed_ms = at_ms;
    actor_work(tasks->actor, at_ms > now_ms ? at_ms - now_ms + 1 : EARLIEST_WAKE_MS, expire_leases,
               tasks);
}

int64_t queue_extend(queue_t *queue, uint64_t number, int64_t fence, int64_t now_ms)
{
    lease_t *lease = find_lease(queue, number);
    if (!lease || lease->fence != fence)
        return now_ms;
    lease->until_ms = now_ms + queue_settings(queue->tasks)->lease_ms;
    if (lease->until_ms > lease->limit_ms)
        lease->until_ms = lease->limit_ms;
    return lease->until_ms;
}

void queue_progress(queue_t *queue, uint64_t number, bytes_t progress)
{
    lease_t *lease = find_lease(queue, number);
    uint8_t *copy = lease ? malloc(progress.size + 1) : NULL;
    if (!lease)
        return;
    if (!copy)
        abort();
    memcpy(copy, progress.data, progress.size);
    free((void *)lease->progress.data);
    lease->progress = (bytes_t){copy, progress.size};
}

/* A batch entry a lease: a lost one is on disk before anybody else gets the task. */
static err_t expire_leases(void *self, call_t *call, void *ctx)
{
    tasks_t *tasks = ctx;
    (void)self;
    int64_t now = call_now_ms(call), next = 0;
    tasks->expire_armed_ms = 0;
    err_t err = err_ok();
    for (int i = 0; i < BUCKETS && !err_is(err); i++)
        for (lease_t *lease = tasks->leases[i]; lease && !err_is(err); lease = lease->next) {
            if (lease->until_ms <= now)
                err = tasks_lost_lease(tasks, call, lease->queue->company, lease->number);
            else if (!next || lease->until_ms < next)
                next = lease->until_ms;
        }
    if (!err_is(err) && next)
        arm_expiry(tasks, next, now);
    return err;
}

/* ---- Who waits ---- */

/* The next in line that had no chance in this round. One that finds nothing for itself (other
 * kinds, other labels) passes it on by waiting again. */
static void wake_next(tasks_t *tasks)
{
    for (waiter_t *waiter = tasks->waiters; waiter; waiter = waiter->next) {
        if (waiter->round == tasks->wake_round)
            continue;
        waiter->round = tasks->wake_round;
        if (!bug(BUG_LOST_WAKEUP))
            actor_resume(tasks->actor, waiter->call, waiter->fn, waiter->ctx);
        return;
    }
}

static void wake_one(tasks_t *tasks)
{
    tasks->wake_round++;
    wake_next(tasks);
}

void queue_stop_waiting(tasks_t *tasks, call_t *call)
{
    for (waiter_t **at = &tasks->waiters; *at;) {
        waiter_t *waiter = *at;
        if (waiter->call != call) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        if (!*at)
            tasks->waiters_end = at;
        free(waiter);
    }
}

int64_t queue_end_waits(tasks_t *tasks, call_t *by, bool (*ends)(void *ctx, const void *with),
                        const void *with)
{
    int64_t count = 0;
    for (waiter_t *waiter = tasks->waiters; waiter; waiter = waiter->next)
        if (ends(waiter->ctx, with)) {
            call_resume(by, waiter->call, waiter->fn, waiter->ctx);
            count++;
        }
    return count;
}

static void waiter_gone(void *self, call_t *call, void *ctx)
{
    (void)self;
    queue_stop_waiting(ctx, call);
}

void queue_wait(tasks_t *tasks, call_t *call, int64_t wait_ms, resume_fn_t *fn, void *ctx)
{
    for (waiter_t *waiter = tasks->waiters; waiter; waiter = waiter->next)
        if (waiter->call == call) {
            wake_next(tasks);
            return;
        }
    waiter_t *waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        abort();
    *waiter = (waiter_t){.call = call, .fn = fn, .ctx = ctx, .round = tasks->wake_round};
    *tasks->waiters_end = waiter;
    tasks->waiters_end = &waiter->next;
    call_on_gone(call, waiter_gone, tasks);
    call_resume_after(call, wait_ms, fn, ctx);
}

void queue_off_demand(tasks_t *tasks, call_t *call)
{
    for (waiter_t **at = &tasks->demanders; *at;) {
        waiter_t *waiter = *at;
        if (waiter->call != call) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        free(waiter);
    }
}

static void demander_gone(void *self, call_t *call, void *ctx)
{
    (void)self;
    queue_off_demand(ctx, call);
}

void queue_on_demand(tasks_t *tasks, call_t *call, int64_t wait_ms, resume_fn_t *fn, void *ctx)
{
    for (waiter_t *waiter = tasks->demanders; waiter; waiter = waiter->next)
        if (waiter->call == call) { /* its timer runs already */
            waiter->told = false;
            return;
        }
    waiter_t *waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        abort();
    *waiter = (waiter_t){.next = tasks->demanders, .call = call, .fn = fn, .ctx = ctx};
    tasks->demanders = waiter;
    call_on_gone(call, demander_gone, tasks);
    call_resume_after(call, wait_ms, fn, ctx);
}

static void tell_demanders(tasks_t *tasks)
{
    for (waiter_t *waiter = tasks->demanders; waiter; waiter = waiter->next) {
        if (!waiter->told)
            actor_resume(tasks->actor, waiter->call, waiter->fn, waiter->ctx);
        waiter->told = true;
    }
}

static void watcher_gone(void *self, call_t *call, void *ctx)
{
    tasks_t *tasks = ctx;
    (void)self;
    for (watcher_t **at = &tasks->watchers; *at;) {
        watcher_t *watcher = *at;
        if (watcher->call != call) {
            at = &watcher->next;
            continue;
        }
        *at = watcher->next;
        free(watcher);
    }
}

void tasks_on_settled(tasks_t *tasks, call_t *waiting, const char *id, resume_fn_t *fn, void *ctx)
{
    watcher_gone(NULL, waiting, tasks); /* a replayed entry registers again */
    watcher_t *watcher = calloc(1, sizeof(*watcher));
    if (!watcher)
        abort();
    *watcher = (watcher_t){.next = tasks->watchers, .call = waiting, .fn = fn, .ctx = ctx};
    snprintf(watcher->company, sizeof(watcher->company), "%s", call_company(waiting));
    snprintf(watcher->id, sizeof(watcher->id), "%s", id);
    tasks->watchers = watcher;
    call_on_gone(waiting, watcher_gone, tasks);
}

void tasks_off_settled(tasks_t *tasks, call_t *waiting)
{
    watcher_gone(NULL, waiting, tasks);
    call_on_gone(waiting, NULL, NULL);
}

typedef struct telling {
    int64_t done, total;
    const char *words;
} telling_t;

static err_t tell_progress(void *self, call_t *call, void *reply, void *ctx)
{
    const telling_t *telling = ctx;
    (void)self;
    (void)reply;
    call_progress(call, (double)telling->done, (double)telling->total, telling->words);
    call_note(call, "info", telling->words);
    return call_park(call);
}

void tasks_tell_waiting(tasks_t *tasks, call_t *by, const char *company, const char *id,
                        int64_t done, int64_t total, const char *words)
{
    for (const watcher_t *at = tasks->watchers; at; at = at->next) {
        if (strcmp(at->id, id) != 0 || strcmp(at->company, company) != 0)
            continue;
        telling_t *telling = ARENA_NEW(call_arena(at->call), telling_t);
        *telling = (telling_t){done, total, arena_strdup(call_arena(at->call), words)};
        call_resume(by, at->call, tell_progress, telling);
    }
}

static void tell_watchers(queue_t *queue, uint64_t number)
{
    char id[24];
    tasks_t *tasks = queue->tasks;
    snprintf(id, sizeof(id), "t%010llx", (unsigned long long)number);
    for (watcher_t **at = &tasks->watchers; *at;) {
        watcher_t *watcher = *at;
        if (strcmp(watcher->id, id) != 0 || strcmp(watcher->company, queue->company) != 0) {
            at = &watcher->next;
            continue;
        }
        *at = watcher->next;
        actor_resume(tasks->actor, watcher->call, watcher->fn, watcher->ctx);
        free(watcher);
    }
}

/* ---- Due times ---- */

static err_t move_due(void *self, call_t *call, void *ctx);

static void arm_due(tasks_t *tasks, int64_t at_ms, int64_t now_ms)
{
    if (!at_ms || (tasks->due_armed_ms && tasks->due_armed_ms <= at_ms))
        return;
    tasks->due_armed_ms = at_ms;
    actor_work(tasks->actor, at_ms > now_ms ? at_ms - now_ms : EARLIEST_WAKE_MS, move_due, tasks);
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
    arm_due(tasks, next, now);
    return err_ok();
}

/* ---- After the commit ---- */

change_t *queue_change(queue_t *queue, call_t *call, uint64_t number)
{
    change_t *change = ARENA_NEW(call_arena(call), change_t);
    change->queue = queue;
    change->number = number;
    return change;
}

/* Keeps the first in line true, or marks it as to be looked up. */
static void note_oldest(queue_t *queue, const change_t *change)
{
    bool left = change->granted || change->ready < 0;
    /* Released, or lost and ready again: it may have been the first before. */
    bool back = change->drop_lease && !change->ready && !change->running && queue->ready > 0;
    if (left && change->number == queue->oldest)
        queue->oldest_stale = true;
    if ((change->ready > 0 || back) && !queue->oldest_ms) {
        queue->oldest_ms = actor_wall_ms(queue->tasks->actor);
        queue->oldest = change->number;
        queue->oldest_stale = false;
    }
    if (back)
        queue->oldest_stale = true;
    if (queue->forget_due_ms == INT64_MAX)
        queue->forget_due_ms =
            actor_wall_ms(queue->tasks->actor) + queue_settings(queue->tasks)->retention_ms;
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
        drop_lease(queue, change->number);
    lease_t *lease = change->granted ? find_lease(queue, change->number) : NULL;
    if (lease)
        lease->by = NULL;
    note_oldest(queue, change);
    if (change->due_gone_ms)
        due_add(&queue->due, change->due_gone_ms, -1);
    if (change->due_ms)
        due_add(&queue->due, change->due_ms, 1);
    if (change->due_ms && (!queue->next_due_ms || change->due_ms < queue->next_due_ms)) {
        queue->next_due_ms = change->due_ms;
        int64_t now = actor_wall_ms(tasks->actor);
        arm_due(tasks, change->due_ms, now);
    }
    if (change->settled)
        tell_watchers(queue, change->number);
    tell_demanders(tasks);
    if (change->ready > 0 || (change->drop_lease && queue->ready > 0)) {
        queue->maybe_ready = true;
        wake_one(tasks);
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
        add_lease(queue, number, worker ? worker : "", fence, until);
    }
    store_scan_close(&scan);
    if (queue->leases)
        arm_expiry(queue->tasks, until, call_now_ms(call));
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
    queue_t *queue = tasks->names[hash_name(company) % NAMES];
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
    queue->same_name = tasks->names[queue->salt % NAMES];
    tasks->names[queue->salt % NAMES] = tasks->queues = *out = queue;
    arm_due(tasks, queue->next_due_ms, call_now_ms(call));
    if (queue->maybe_ready)
        wake_one(tasks);
    return err_ok();
}

/* A number that is not committed is lost, which leaves a gap and harms nobody. */
uint64_t queue_next_number(queue_t *queue)
{
    return queue->next_number++;
}

/* Looks the first in line up. ERR_NOT_FOUND: the company is gone. */
static err_t look_up_oldest(queue_t *queue, call_t *call)
{
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value, none = {0};
    int64_t rank;
    uint64_t number;
    task_t task = {0};
    err_t err = call_read(call, queue->company, &txn);
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_ready, none, none, false);
    if (err_is(err))
        return err;
    queue->oldest_ms = 0;
    queue->oldest = 0;
    queue->oldest_stale = false;
    for (int seen = 0; seen < SCAN_MOST && store_scan_next(&scan, &key, &value); seen++) {
        if (!key_read_i64(&key, &rank) || !key_read_u64(&key, &number) ||
            find_lease(queue, number) ||
            err_is(tasks_load(queue->tasks, call, queue->company, number, &task)))
            continue;
        queue->oldest_ms = task.updated_ms; /* when it became ready */
        queue->oldest = number;
        break;
    }
    store_scan_close(&scan);
    return err_ok();
}

/* ---- Starting: every company is looked at, but not all at once ---- */

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
            err = look_up_oldest(queue, call);
        if (err_is(err) && err.code != ERR_NOT_FOUND)
            call_log(call, LOG_ERROR, "the tasks of company '%s' cannot be read: %s", company,
                     err_what(err));
        tasks->unopened_at++;
    }
    if (tasks->unopened_at < tasks->unopened_count)
        call_work(call, 0, open_slice, tasks);
    else
        drop_unopened(tasks);
    return err_ok();
}

/* ---- Old tasks: one company an entry, so that few stores are open at once ---- */

/* Deletes what is old among the next rows. *more: there may be more to delete right now. */
static err_t forget_of(tasks_t *tasks, call_t *call, queue_t *queue, bool *more)
{
    store_txn_t *txn;
    store_scan_t scan;
    store_key_t from;
    bytes_t key, value, none = {0};
    int64_t before = call_now_ms(call) - queue_settings(tasks)->retention_ms;
    uint64_t *old = ARENA_ARRAY(call_arena(call), uint64_t, FORGET_SLICE);
    size_t count = 0, forgotten = 0;
    key_open(&from);
    key_u64(&from, queue->forget_from);
    err_t err = call_read(call, queue->company, &txn);
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_tasks, none, key_bytes(&from), false);
    if (err_is(err))
        return err;
    while (count < FORGET_SLICE && store_scan_next(&scan, &key, &value))
        if (key_read_u64(&key, &old[count]) && old[count] + 1 < queue->next_number)
            count++; /* the newest stays, so that no number is given twice */
    store_scan_close(&scan);
    bool whole = count < FORGET_SLICE;
    if (!count && !queue->forget_from)
        queue->forget_due_ms = INT64_MAX; /* until something is submitted */
    for (size_t i = 0; i < count && !err_is(err); i++) {
        bool gone = false;
        task_t task;
        err = tasks_load(tasks, call, queue->company, old[i], &task);
        if (!err_is(err) && task.created_ms >= before) { /* all behind it are younger still */
            if (!queue->forget_from)
                queue->forget_due_ms = task.created_ms + queue_settings(tasks)->retention_ms;
            whole = true;
            break;
        }
        if (!err_is(err))
            err = tasks_forget(tasks, call, queue->company, old[i], before, &gone);
        forgotten += gone;
        queue->forget_from = old[i] + 1;
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

/* ---- Workers that are to leave ---- */

/* agent-1 is the worker agent-1/2 and agent-1-worker/2, but not agent-10/2. */
static bool is_of(const char *worker, const char *name)
{
    size_t size = strlen(name);
    return !strncmp(worker, name, size) && (!worker[size] || strchr("/-.", worker[size]));
}

static bool cordoned(const tasks_t *tasks, const char *worker, int64_t now_ms)
{
    for (const cordon_t *at = tasks->cordons; at; at = at->next)
        if (at->until_ms > now_ms && is_of(worker, at->name))
            return true;
    return false;
}

int64_t queue_cordon(tasks_t *tasks, const char *name, int64_t until_ms)
{
    int64_t count = 0;
    cordon_t *cordon = tasks->cordons;
    while (cordon && strcmp(cordon->name, name) != 0)
        cordon = cordon->next;
    if (!cordon) {
        if (!(cordon = calloc(1, sizeof(*cordon))))
            abort();
        snprintf(cordon->name, sizeof(cordon->name), "%s", name);
        cordon->next = tasks->cordons;
        tasks->cordons = cordon;
    }
    cordon->until_ms = until_ms;
    if (!until_ms)
        wake_one(tasks);
    for (int i = 0; i < BUCKETS; i++)
        for (const lease_t *lease = tasks->leases[i]; lease; lease = lease->next)
            count += is_of(lease->worker, name);
    return count;
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
    lease_t *lease = find_lease(queue, number);
    if (lease)
        drop_lease(queue, number);
    lease = add_lease(queue, number, want->worker, new_fence(tasks), until);
    lease->granted_ms = call_now_ms(call);
    lease->limit_ms = limit;
    lease->by = call;
    change_t *change = queue_change(queue, call, number);
    change->granted = true;
    queue_after_commit(call, change);
    arm_expiry(tasks, until, call_now_ms(call));
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
    const lease_t *lease = find_lease(queue, number);
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
        if (*count == (size_t)want->most || seen == SCAN_MOST) {
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
    if (want->worker && cordoned(tasks, want->worker, call_now_ms(call)))
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

/* ---- Demand ---- */

static bool counts(const queue_t *queue, const char *company)
{
    return !queue->paused && (!company || !strcmp(company, queue->company));
}

/* The smallest of all. A stale one can only turn out larger, so that only the smallest has to be
 * looked up, until it is a true one. */
static int64_t oldest_ready(tasks_t *tasks, call_t *call, const char *company)
{
    for (int looks = 0;; looks++) {
        queue_t *first = NULL;
        for (queue_t *queue = tasks->queues; queue; queue = queue->next)
            if (queue->oldest_ms && counts(queue, company) &&
                (!first || queue->oldest_ms < first->oldest_ms))
                first = queue;
        if (!first)
            return 0;
        if (!first->oldest_stale)
            return first->oldest_ms;
        if (looks == OLDEST_LOOKS || err_is(look_up_oldest(first, call)))
            return first->oldest_ms > 1 ? first->oldest_ms : 0;
    }
}

void queue_demand(tasks_t *tasks, call_t *call, const char *company, demand_t *out)
{
    *out = (demand_t){0};
    int64_t soon = call_now_ms(call) + queue_settings(tasks)->due_soon_ms;
    for (queue_t *queue = tasks->queues; queue; queue = queue->next) {
        if (!counts(queue, company))
            continue;
        int64_t leased = queue->leases - queue->running > 0 ? queue->leases - queue->running : 0;
        out->ready += queue->ready > leased ? queue->ready - leased : 0;
        out->leased += leased;
        out->running += queue->running;
        out->delayed += queue->delayed;
        if (queue->delayed > 0 && queue->next_due_ms <= soon)
            out->due_soon += due_count(&queue->due, queue->next_due_ms, soon);
    }
    out->oldest_ready_ms = oldest_ready(tasks, call, company);
}
