/* schedules: tasks that are submitted at their due times.
 *
 * The row of a schedule holds its next due time. Submitting the task and moving that time on are
 * one transaction, and the idempotency key of the task is schedule:ID:DUE_MS: a due time gives one
 * task, whatever dies when. What is in memory (when to look at which company) is rebuilt.
 * Thread: the agent's.
 */
#ifndef AGENT_SCHEDULE_H
#define AGENT_SCHEDULE_H

#include "bus/actor.h"

#define SCHEDULE_TABLES(T) T(schedules) T(schedules_due)

typedef struct agent agent_t;
typedef struct schedules schedules_t;

extern const method_t schedule_methods[];

/* The reviews of agent.review_daily and agent.review_weekly, for a company where something failed;
 * from an entry that writes there. Nothing to do when they are there already. */
err_t schedules_want_reviews(agent_t *agent, call_t *call);

/* Looks at every company, one an entry. */
err_t schedules_open(agent_t *agent, call_t *call);
void schedules_close(agent_t *agent);

#endif
