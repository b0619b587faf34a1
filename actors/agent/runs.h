/* runs: procedures being carried out.
 *
 * A run is a task of kind "sop"; the id of the run is the id of the task. The agent drives: it
 * knows the plan, fills in values, journals and decides what comes next. A worker holds the lease
 * and performs one step at a time, over these methods (bus only, each states the fence):
 *
 *   run_next   ──▶ perform: a step to perform; wait: the lease is over, go for another task;
 *                  done: the run is finished, the lease is over
 *   step_start     the effect is about to happen: on disk before it does
 *   step_done  ──▶ the outcome is on disk; answers as run_next
 *   effect_begin, step_start, effect_done     the same for what a model does inside its step
 *   step_note      the conversation so far, so that another worker can go on with it
 *
 *   step:    pending ─▶ running ─▶ completed        effect:  intended ─▶ dispatched ─▶ committed
 *               ▲          │  └──▶ failed                        │             │  └──▶ failed
 *               └─ retry ──┤                                     │             ▼
 *                          ├──▶ waiting ─▶ completed, failed     └ may run   unknown
 *                          └──▶ unknown ─▶ completed, failed, pending
 *
 * A simulated run refuses outside effects: a tool that only reads is really called (the worker, who
 * knows the tools, says so with `reads` in step_start), everything else becomes `refused` without
 * being dispatched; the worker says so with the outcome refused, instead of step_start. What such a
 * run ends with is no experience.
 *
 * After a lost lease: an effect that was only intended is performed; one that was dispatched is
 * performed again with the same effect id when it is safe or keyed (and younger than the day that
 * receivers remember keys); otherwise it is unknown, and a person is asked. What is finished is
 * never run again. The journal of a step and what follows from it are one commit.
 * Thread: the agent's.
 */
#ifndef AGENT_RUNS_H
#define AGENT_RUNS_H

#include "bus/actor.h"

#define RUNS_TABLES(T) T(runs) T(run_steps) T(run_notes) T(effects) T(run_logs)

typedef struct agent agent_t;

/* For workers, and for people and clients. */
extern const method_t runs_methods[];
extern const method_t run_tools_methods[];
extern const method_t run_log_methods[];

/* When the agent opens, after its tasks: takes up experience that was not yet told to the brain.
 * Sets agent->sops, which holds the memory of sops and runs. */
err_t runs_open(agent_t *agent, call_t *call);
void runs_close(agent_t *agent);

/* Submits a run of the current version; the same key gives the first one. From a WRITES entry or
 * internal work for a company. Errors of sops_current, sop_input and tasks_submit. */
err_t runs_submit(agent_t *agent, call_t *call, const char *name, bytes_t input, int64_t priority,
                  const char *key, const char **id);

/* A run ended without coming to its end: the runs that its present step began are cancelled. */
err_t runs_stop_children(agent_t *agent, call_t *call, const char *company, const char *id);

/* When a task is forgotten, its run is too. Nothing to do for a task of another kind. */
err_t runs_forget(call_t *call, const char *company, const char *id);

#endif
