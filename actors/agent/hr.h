/* hr: learning from failures. Failures of the store are counted by pattern, proposals to change a
 * soul or a procedure wait for a person, and what was applied can be taken back.
 *
 *   pending ──approve──▶ approved ──update_agent_soul──▶ applied ──rollback──▶ rolled_back
 *      └─────reject────▶ rejected ◀──reject── approved
 *
 * Who made a proposal cannot approve it; those of a review are made by "hr". Truth is the store;
 * hr/proposals/ID.json on the volume is a copy for people. Thread: the agent's.
 */
#ifndef AGENT_HR_H
#define AGENT_HR_H

#include "bus/actor.h"

#define HR_TABLES(T) T(proposals)

typedef struct agent agent_t;

extern const method_t hr_methods[];
extern const method_t patterns_methods[]; /* patterns.c */

/* What a schedule submits to have a review made in its own transaction instead of a task. */
#define HR_DAILY "hr.review_daily"
#define HR_WEEKLY "hr.review_weekly"

/* Looks at what ended in the last `hours` and proposes; of the call's company. Reads failures only
 * once each. `words` (may be NULL) says what came of it. */
err_t hr_review(agent_t *agent, call_t *call, int64_t hours, const char **words);

#endif
