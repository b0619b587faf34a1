/* Timers of an actor: a binary heap whose members know their place, and what happens when one is
 * due. */
#include <stdlib.h>

#include "bus/inside.h"

static bool earlier(const timer_t_ *one, const timer_t_ *other)
{
    return one->at_us != other->at_us ? one->at_us < other->at_us : one->order < other->order;
}

static void heap_set(actor_t *actor, size_t index, timer_t_ *timer)
{
    actor->heap[index] = timer;
    timer->index = index;
}

static void heap_up(actor_t *actor, size_t index)
{
    timer_t_ *timer = actor->heap[index];
    while (index && earlier(timer, actor->heap[(index - 1) / 2])) {
        heap_set(actor, index, actor->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_set(actor, index, timer);
}

static void heap_down(actor_t *actor, size_t index)
{
    timer_t_ *timer = actor->heap[index];
    for (;;) {
        size_t child = index * 2 + 1;
        if (child >= actor->heap_count)
            break;
        if (child + 1 < actor->heap_count && earlier(actor->heap[child + 1], actor->heap[child]))
            child++;
        if (!earlier(actor->heap[child], timer))
            break;
        heap_set(actor, index, actor->heap[child]);
        index = child;
    }
    heap_set(actor, index, timer);
}

timer_t_ *inside_timer(actor_t *actor, int64_t delay_ms, call_t *call)
{
    timer_t_ *timer = calloc(1, sizeof(*timer));
    if (actor->heap_count == actor->heap_capacity) {
        actor->heap_capacity = actor->heap_capacity ? actor->heap_capacity * 2 : 64;
        actor->heap = realloc(actor->heap, actor->heap_capacity * sizeof(timer_t_ *));
    }
    if (!timer || !actor->heap)
        abort();
    if (delay_ms < 0)
        delay_ms = 0;
    int64_t now = actor_mono_us(actor);
    timer->at_us = delay_ms > (INT64_MAX - now) / 1000 ? INT64_MAX : now + delay_ms * 1000;
    timer->order = actor->timer_order++;
    timer->call = call;
    if (call) {
        timer->next = call->timers;
        if (call->timers)
            call->timers->prev = timer;
        call->timers = timer;
    }
    heap_set(actor, actor->heap_count++, timer);
    heap_up(actor, timer->index);
    return timer;
}

static void timer_unlink(timer_t_ *timer)
{
    if (!timer->call)
        return;
    if (timer->prev)
        timer->prev->next = timer->next;
    else
        timer->call->timers = timer->next;
    if (timer->next)
        timer->next->prev = timer->prev;
}

void inside_timer_drop(actor_t *actor, timer_t_ *timer)
{
    size_t index = timer->index;
    timer_t_ *last = actor->heap[--actor->heap_count];
    if (last != timer) {
        heap_set(actor, index, last);
        heap_up(actor, index);
        heap_down(actor, last->index);
    }
    timer_unlink(timer);
    free(timer);
}

static void expire(call_t *call)
{
    call->deadline = NULL;
    if (call->state == CALL_READING) {
        return; /* the answer comes soon; the caller may have gone */
    }
    inside_call_gone(call);
    inside_reply(call,
                 err_make(call->arena, ERR_TIMEOUT, "%s did not finish before the deadline",
                          call->method ? call->method->name : "the call"),
                 NULL, (bytes_t){0});
    inside_call_end(call);
}

static void fire(actor_t *actor, timer_t_ *timer)
{
    timer_t_ fired = *timer;
    inside_timer_drop(actor, timer);
    if (fired.tick) {
        fired.tick(actor);
    } else if (fired.operation) {
        fired.operation->deadline = NULL;
        inside_peer_timeout(fired.operation);
    } else if (fired.deadline) {
        expire(fired.call);
    } else if (fired.resume) {
        if (fired.call->state != CALL_PARKED)
            return;
        entry_t *entry = inside_entry(fired.call, ENTRY_RESUME, fired.ctx);
        entry->fn.resume = fired.resume;
        inside_queue(actor, entry);
    } else {
        actor_work(actor, 0, fired.work, fired.ctx);
    }
}

void inside_timers_fire(actor_t *actor)
{
    int64_t now = actor_mono_us(actor);
    while (actor->heap_count && actor->heap[0]->at_us <= now)
        fire(actor, actor->heap[0]);
}

int64_t actor_next_us(const actor_t *actor)
{
    return actor->heap_count ? actor->heap[0]->at_us : INT64_MAX;
}
