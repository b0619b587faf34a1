/* Leases: who holds which task until when. One that is journalled outlives the process in the
 * store; the others live here only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/queue_parts.h"

/* A worker that gets no more work, by the name of its process or pod. */
typedef struct cordon {
    struct cordon *next;
    int64_t until_ms;
    char name[65];
} cordon_t;

static void free_lease(lease_t *lease)
{
    free((void *)lease->progress.data);
    free(lease);
}

static lease_t **bucket(const queue_t *queue, uint64_t number)
{
    uint64_t mixed = (number ^ queue->salt) * UINT64_C(0x9e3779b97f4a7c15);
    return &queue->tasks->leases[mixed >> 52];
}

lease_t *queue_find_lease(const queue_t *queue, uint64_t number)
{
    lease_t *lease = *bucket(queue, number);
    while (lease && (lease->queue != queue || lease->number != number))
        lease = lease->next;
    return lease;
}

const lease_t *queue_lease(const queue_t *queue, uint64_t number)
{
    return queue_find_lease(queue, number);
}

lease_t *queue_add_lease(queue_t *queue, uint64_t number, const char *worker, int64_t fence,
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

void queue_drop_lease(queue_t *queue, uint64_t number)
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

void queue_arm_expiry(tasks_t *tasks, int64_t at_ms, int64_t now_ms)
{
    if (tasks->expire_armed_ms && tasks->expire_armed_ms <= at_ms)
        return;
    tasks->expire_armed_ms = at_ms;
    actor_work(tasks->actor, at_ms > now_ms ? at_ms - now_ms + 1 : QUEUE_EARLIEST_MS, expire_leases,
               tasks);
}

int64_t queue_extend(queue_t *queue, uint64_t number, int64_t fence, int64_t now_ms)
{
    lease_t *lease = queue_find_lease(queue, number);
    if (!lease || lease->fence != fence)
        return now_ms;
    lease->until_ms = now_ms + queue_settings(queue->tasks)->lease_ms;
    if (lease->until_ms > lease->limit_ms)
        lease->until_ms = lease->limit_ms;
    return lease->until_ms;
}

void queue_progress(queue_t *queue, uint64_t number, bytes_t progress)
{
    lease_t *lease = queue_find_lease(queue, number);
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
    for (int i = 0; i < QUEUE_BUCKETS && !err_is(err); i++)
        for (lease_t *lease = tasks->leases[i]; lease && !err_is(err); lease = lease->next) {
            if (lease->until_ms <= now)
                err = tasks_lost_lease(tasks, call, lease->queue->company, lease->number);
            else if (!next || lease->until_ms < next)
                next = lease->until_ms;
        }
    if (!err_is(err) && next)
        queue_arm_expiry(tasks, next, now);
    return err;
}

/* ---- Workers that are to leave ---- */

/* agent-1 is the worker agent-1/2 and agent-1-worker/2, but not agent-10/2. */
static bool is_of(const char *worker, const char *name)
{
    size_t size = strlen(name);
    return !strncmp(worker, name, size) && (!worker[size] || strchr("/-.", worker[size]));
}

bool queue_cordoned(const tasks_t *tasks, const char *worker, int64_t now_ms)
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
        queue_wake_one(tasks);
    for (int i = 0; i < QUEUE_BUCKETS; i++)
        for (const lease_t *lease = tasks->leases[i]; lease; lease = lease->next)
            count += is_of(lease->worker, name);
    return count;
}

void queue_free_leases(tasks_t *tasks)
{
    for (int i = 0; i < QUEUE_BUCKETS; i++)
        while (tasks->leases[i]) {
            lease_t *gone = tasks->leases[i];
            tasks->leases[i] = gone->next;
            free_lease(gone);
        }
    while (tasks->cordons) {
        cordon_t *gone = tasks->cordons;
        tasks->cordons = gone->next;
        free(gone);
    }
}
