/* Calls that wait: for work, for another demand, for the result of a task. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/queue_parts.h"
#include "bus/bug.h"

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

static waiter_t **find_waiter(waiter_t **list, const call_t *call)
{
    while (*list && (*list)->call != call)
        list = &(*list)->next;
    return list;
}

static waiter_t *add_waiter(waiter_t **at, call_t *call, resume_fn_t *fn, void *ctx)
{
    waiter_t *waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        abort();
    *waiter = (waiter_t){.next = *at, .call = call, .fn = fn, .ctx = ctx};
    *at = waiter;
    return waiter;
}

static void drop_waiter(waiter_t **at)
{
    waiter_t *gone = *at;
    if (!gone)
        return;
    *at = gone->next;
    free(gone);
}

/* ---- For work ---- */

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

void queue_wake_one(tasks_t *tasks)
{
    tasks->wake_round++;
    wake_next(tasks);
}

void queue_stop_waiting(tasks_t *tasks, call_t *call)
{
    drop_waiter(find_waiter(&tasks->waiters, call));
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
    waiter_t **at = find_waiter(&tasks->waiters, call);
    if (*at) {
        wake_next(tasks);
        return;
    }
    add_waiter(at, call, fn, ctx)->round = tasks->wake_round; /* the last in line */
    call_on_gone(call, waiter_gone, tasks);
    call_resume_after(call, wait_ms, fn, ctx);
}

/* ---- For another demand ---- */

void queue_off_demand(tasks_t *tasks, call_t *call)
{
    drop_waiter(find_waiter(&tasks->demanders, call));
}

static void demander_gone(void *self, call_t *call, void *ctx)
{
    (void)self;
    queue_off_demand(ctx, call);
}

void queue_on_demand(tasks_t *tasks, call_t *call, int64_t wait_ms, resume_fn_t *fn, void *ctx)
{
    waiter_t **at = find_waiter(&tasks->demanders, call);
    if (*at) { /* its timer runs already */
        (*at)->told = false;
        return;
    }
    add_waiter(&tasks->demanders, call, fn, ctx);
    call_on_gone(call, demander_gone, tasks);
    call_resume_after(call, wait_ms, fn, ctx);
}

void queue_tell_demanders(tasks_t *tasks)
{
    for (waiter_t *waiter = tasks->demanders; waiter; waiter = waiter->next) {
        if (!waiter->told)
            actor_resume(tasks->actor, waiter->call, waiter->fn, waiter->ctx);
        waiter->told = true;
    }
}

/* ---- For a result ---- */

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

void queue_tell_settled(queue_t *queue, uint64_t number)
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

void queue_free_waits(tasks_t *tasks)
{
    while (tasks->waiters)
        drop_waiter(&tasks->waiters);
    while (tasks->demanders)
        drop_waiter(&tasks->demanders);
    while (tasks->watchers) {
        watcher_t *gone = tasks->watchers;
        tasks->watchers = gone->next;
        free(gone);
    }
}
