/* worker: hands. Leases runs from the agent and performs their steps, one at a time a slot: a tool
 * call, a shell script, or a step of prose by a language model. It holds no state worth saving:
 * what is done is in the agent's journal before the next step begins. */
#ifndef ACTORS_WORKER_WORKER_H
#define ACTORS_WORKER_WORKER_H

#include "bus/actor.h"

extern const actor_def_t worker_actor;

#endif
