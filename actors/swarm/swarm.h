/* swarm: subagents, from the wish to the end, and who of them should do what. A subagent is a row
 * here and a durable run with the agent pillar; this pillar begins the run, follows it, begins it
 * again after a failure (within limits), ends it, and tells the brain how it went. */
#ifndef ACTORS_SWARM_SWARM_H
#define ACTORS_SWARM_SWARM_H

#include "actors/swarm/agents.h"

#define swarm_settings_FIELDS(F)                                                                   \
    F(INT, agents_most, opt(100), 1, 10000, "Subagents of one company that are not gone.")         \
    F(INT, depth_most, opt(4), 0, 100, "How deep subagents may have subagents.")                   \
    F(INT, call_ms, opt(3000), 50, 60000, "How long another pillar may take to answer.")           \
    F(INT, look_ms, opt(2000), 20, 60000, "Pause between two looks at the runs without news.")     \
    F(INT, restarts_most, opt(2), 0, 1000, "Restarts after failures within restart_window_ms.")    \
    F(INT, restart_window_ms, opt(600000), 1000, 86400000, "What restarts_most counts over.")      \
    F(INT, restart_delay_ms, opt(1000), 0, 600000, "Pause before the first restart; doubles.")     \
    F(INT, drain_ms, opt(600000), 0, 86400000, "A draining subagent is ended after so long.")      \
    F(INT, bid_ms, opt(2000), 20, 60000, "How long a negotiation waits for bids.")
RECORD_STRUCT(swarm_settings, swarm_settings_FIELDS)

typedef struct swarm {
    const swarm_settings_t *settings; /* first: the skeleton fills it in */
    actor_t *actor;
    bool stirred;      /* the agent said something: look soon */
    int64_t looked_us; /* when a sweep last came on; monotonic */
    int64_t opened_ms; /* wall clock: what is older was begun in another life */
    bool sweeping;
} swarm_t;

extern const actor_def_t swarm_actor;
extern const method_t contract_methods[]; /* contract.c */

/* A call to another pillar in the name of the swarm. Returns what call_park returns. */
err_t swarm_ask(call_t *call, const char *peer, const char *method, const char *company,
                buf_t *args, int64_t timeout_ms, const char *key, answer_fn_t *fn, void *ctx);

/* ---- tend.c: doing what one agent needs next ---- */

typedef struct tend tend_t;
typedef err_t tend_fn_t(swarm_t *swarm, call_t *call, void *reply, tend_t *tend);

/* In the arena of the call. */
struct tend {
    const char *company, *id;
    bool again; /* a start may have been sent before */
    bool first; /* somebody waits for the start */
    tend_fn_t *then;
    void *ctx;       /* of `then` */
    agent_row_t row; /* as it is when `then` runs */
    err_t err;       /* what could not be done; OK: done, for now */
    int steps;
};

/* Ends with tend->then; returns like a handler. */
err_t tend_agent(swarm_t *swarm, call_t *call, void *reply, tend_t *tend);
/* Begins the clock of the sweeps. */
void tend_open(swarm_t *swarm, call_t *call);
err_t tend_on_task(void *swarm, call_t *call, const char *topic, bytes_t body);

/* ---- contract.c ---- */

/* What a negotiation needs: the brain told of an award, an interrupted one closed. */
err_t contract_tend(swarm_t *swarm, call_t *call, void *reply, tend_t *tend);
/* The subagent that an award began is gone: the brain is told of it by and by. */
err_t contract_outcome(call_t *call, const char *company, const agent_row_t *row);

/* ---- swarm.c ---- */

/* Registers a subagent of this row's role, task, parent, procedure and capabilities, or finds the
 * one that an earlier delivery of this call began; then tend->id is set. ERR_QUOTA, ERR_STATE. */
err_t swarm_register(swarm_t *swarm, call_t *call, const agent_row_t *want, tend_t *tend);

#endif
