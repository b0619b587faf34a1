/* How much there is to do, and since when: what scaling looks at. */
#include <string.h>

#include "actors/agent/queue_parts.h"

enum { OLDEST_LOOKS = 16 /* stores opened for one question about the demand */ };

void queue_note_oldest(queue_t *queue, const change_t *change)
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

err_t queue_look_up_oldest(queue_t *queue, call_t *call)
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
    for (int seen = 0; seen < QUEUE_SCAN_MOST && store_scan_next(&scan, &key, &value); seen++) {
        if (!key_read_i64(&key, &rank) || !key_read_u64(&key, &number) ||
            queue_find_lease(queue, number) ||
            err_is(tasks_load(queue->tasks, call, queue->company, number, &task)))
            continue;
        queue->oldest_ms = task.updated_ms; /* when it became ready */
        queue->oldest = number;
        break;
    }
    store_scan_close(&scan);
    return err_ok();
}

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
        if (looks == OLDEST_LOOKS || err_is(queue_look_up_oldest(first, call)))
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
