/* counts: what the agent has done since it started, for /metrics. A number changes after the commit
 * of what it counts. Thread: the agent's. */
#ifndef ACTORS_AGENT_COUNTS_H
#define ACTORS_AGENT_COUNTS_H

#include "bus/actor.h"

typedef struct counts counts_t;

counts_t *counts_new(void);
void counts_destroy(counts_t **counts);

/* Called in an entry of the agent: a task came into this state, a step or an effect too, a run
 * ended. The numbers are of their enums. */
void counts_task(call_t *call, int state);
void counts_step(call_t *call, int state, int64_t duration_ms);
void counts_effect(call_t *call, int state);
void counts_run(call_t *call, bool completed, int64_t tokens);

void counts_measure(const counts_t *counts, metrics_t *out);

#endif
