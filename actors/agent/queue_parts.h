/* queue_parts: what the files of the queue give each other. Inside the queue only; users include
 * queue.h (tasks.c) or tasks.h (everybody else).
 *
 *   queue.c          each company's queue: loaded, changed after commits, leased from in turn
 *   queue_leases.c   who holds which task until when, and which workers get no more
 *   queue_waits.c    calls that wait: for work, for another demand, for a result
 *   queue_demand.c   how much there is to do, and since when
 *   queue_upkeep.c   what happens by itself: start-up, due times, old tasks
 *
 * Thread: the agent's.
 */
#ifndef ACTORS_AGENT_QUEUE_PARTS_H
#define ACTORS_AGENT_QUEUE_PARTS_H

#include "actors/agent/due.h"
#include "actors/agent/queue.h"

enum {
    QUEUE_BUCKETS = 4096,
    QUEUE_NAMES = 4096,
    QUEUE_SCAN_MOST = 10000, /* ready tasks looked at for one question */
    QUEUE_EARLIEST_MS = 1    /* an entry of its own, as soon as possible */
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

struct tasks {
    struct cordon *cordons;
    agent_t *agent;
    actor_t *actor;
    queue_t *queues;
    queue_t *names[QUEUE_NAMES];
    queue_t *turn;   /* whose turn it is to give work */
    queue_t *forget; /* whose old tasks are looked for next */
    lease_t *leases[QUEUE_BUCKETS];
    int64_t lease_count;
    uint32_t fence_counter;
    struct waiter *waiters; /* first come first */
    uint64_t wake_round;    /* counts the occasions to wake somebody */
    struct watcher *watchers;
    struct waiter *demanders;              /* wait for another demand */
    int64_t due_armed_ms, expire_armed_ms; /* when the timers fire; 0: not armed */
    /* While starting: */
    char **unopened;
    size_t unopened_count, unopened_at;
};

/* ---- queue_leases.c ---- */

/* NULL: nobody holds it. Gone with the next change of this task. */
lease_t *queue_find_lease(const queue_t *queue, uint64_t number);
lease_t *queue_add_lease(queue_t *queue, uint64_t number, const char *worker, int64_t fence,
                         int64_t until_ms);
void queue_drop_lease(queue_t *queue, uint64_t number);
/* Looks at that time, or earlier, which leases are over. */
void queue_arm_expiry(tasks_t *tasks, int64_t at_ms, int64_t now_ms);
/* This worker gets nothing. */
bool queue_cordoned(const tasks_t *tasks, const char *worker, int64_t now_ms);
void queue_free_leases(tasks_t *tasks);

/* ---- queue_waits.c ---- */

/* There may be work for one more: the next in line looks, and passes it on when it finds none. */
void queue_wake_one(tasks_t *tasks);
void queue_tell_demanders(tasks_t *tasks);
/* Wakes those who wait for the end of this task. */
void queue_tell_settled(queue_t *queue, uint64_t number);
void queue_free_waits(tasks_t *tasks);

/* ---- queue_demand.c ---- */

/* After a change: keeps the first in line true, or marks it as to be looked up. */
void queue_note_oldest(queue_t *queue, const change_t *change);
/* Looks the first in line up. ERR_NOT_FOUND: the company is gone. */
err_t queue_look_up_oldest(queue_t *queue, call_t *call);

/* ---- queue_upkeep.c ---- */

/* Moves what is due at that time, or earlier; 0: nothing is. */
void queue_arm_due(tasks_t *tasks, int64_t at_ms, int64_t now_ms);
void queue_drop_unopened(tasks_t *tasks);

#endif
