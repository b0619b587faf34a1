/* queue: what the agent keeps in memory about each company's tasks: counts, leases, who waits for
 * work and who for a result. Everything here is rebuilt from the store; it changes only after the
 * commit of what it mirrors. Inside tasks only. Thread: the agent's. */
#ifndef ACTORS_AGENT_QUEUE_H
#define ACTORS_AGENT_QUEUE_H

#include "actors/agent/agent.h"

/* One company. */
typedef struct queue queue_t;

typedef struct lease {
    struct lease *next; /* in its bucket */
    queue_t *queue;
    uint64_t number;
    int64_t fence, until_ms;
    int64_t limit_ms; /* the attempt may last until then, however often it says it is alive */
    const call_t *by; /* the call that took it, while that call is not answered */
    int64_t granted_ms;
    bytes_t progress; /* the worker's last word; ours to free */
    char worker[64];
} lease_t;

/* What a commit will change in memory. Lives in the arena of the call. */
typedef struct change {
    queue_t *queue;
    uint64_t number;
    int ready, delayed, running;
    int64_t due_ms, due_gone_ms; /* it became due at that time, or is no longer; 0: neither */
    bool drop_lease, granted, settled;
} change_t;

typedef struct lease_want {
    const char *company; /* NULL: any that the caller may see */
    strs_t kinds, labels;
    const char *worker;
    int64_t most;
} lease_want_t;

tasks_t *tasks_new(agent_t *agent, actor_t *actor);
void tasks_destroy(tasks_t **tasks);
/* Looks at every company on disk, a slice at a time. */
err_t tasks_open(tasks_t *tasks, call_t *call);

const agent_settings_t *queue_settings(const tasks_t *tasks);
agent_t *queue_agent(const tasks_t *tasks);
const char *queue_company(const queue_t *queue);

/* The company's queue, loaded from the store on first use. */
err_t queue_of(tasks_t *tasks, call_t *call, const char *company, store_txn_t *txn, queue_t **out);
uint64_t queue_next_number(queue_t *queue);
const lease_t *queue_lease(const queue_t *queue, uint64_t number);
/* The new end of the lease: a lease time from now, or the end of the attempt. */
int64_t queue_extend(queue_t *queue, uint64_t number, int64_t fence, int64_t now_ms);
/* Keeps a copy; it is gone with the lease. */
void queue_progress(queue_t *queue, uint64_t number, bytes_t progress);

change_t *queue_change(queue_t *queue, call_t *call, uint64_t number);
void queue_after_commit(call_t *call, change_t *change);

/* Grants up to want->most leases into `out` (room for that many), round robin over companies. */
err_t queue_lease_some(tasks_t *tasks, call_t *call, const lease_want_t *want, task_t *out,
                       size_t *count);
/* Parks the call until there may be work or `wait_ms` are over; `fn` tries again. */
void queue_wait(tasks_t *tasks, call_t *call, int64_t wait_ms, resume_fn_t *fn, void *ctx);
void queue_stop_waiting(tasks_t *tasks, call_t *call);
/* Those for whose `ctx` of queue_wait `ends` is true try a last time. How many these are. */
int64_t queue_end_waits(tasks_t *tasks, call_t *by, bool (*ends)(void *ctx, const void *with),
                        const void *with);

/* Gives a worker (by the name of its process or pod) nothing until then; 0 lifts it. In memory: who
 * wants it says it again. The leases it holds. */
int64_t queue_cordon(tasks_t *tasks, const char *name, int64_t until_ms);

/* `fn` looks again when the demand may be another or `wait_ms` are over; the call is to be parked,
 * and taken off before it answers. */
void queue_on_demand(tasks_t *tasks, call_t *call, int64_t wait_ms, resume_fn_t *fn, void *ctx);
void queue_off_demand(tasks_t *tasks, call_t *call);

err_t queue_pause_all(tasks_t *tasks, call_t *call, bool paused);
bool queue_paused(const queue_t *queue);

typedef struct demand {
    int64_t ready, leased, running, delayed, due_soon, oldest_ready_ms; /* 0: none is ready */
} demand_t;

/* Of one company, or of all with NULL. */
void queue_demand(tasks_t *tasks, call_t *call, const char *company, demand_t *out);

/* In tasks.c: what the queue makes happen by itself. */
err_t tasks_load(tasks_t *tasks, call_t *call, const char *company, uint64_t number, task_t *task);
bool tasks_fits(tasks_t *tasks, call_t *call, const char *company, uint64_t number,
                const lease_want_t *want, task_t *task);
err_t tasks_lost_lease(tasks_t *tasks, call_t *call, const char *company, uint64_t number);
err_t tasks_due(tasks_t *tasks, call_t *call, const char *company, uint64_t number);
err_t tasks_bury(tasks_t *tasks, call_t *call, const task_t *task, const char *why);
/* Deletes a task that ended before that time. */
err_t tasks_forget(tasks_t *tasks, call_t *call, const char *company, uint64_t number,
                   int64_t before_ms, bool *gone);

#endif
