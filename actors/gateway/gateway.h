/* gateway: speaks MCP over HTTP outside and calls over the bus inside. One beside each pillar that
 * has a port, in the pillar's process, with a thread and a loop of its own. It knows no tool by
 * heart: it asks `describe`. */
#ifndef ACTORS_GATEWAY_GATEWAY_H
#define ACTORS_GATEWAY_GATEWAY_H

#include "bus/actor.h"

extern const actor_def_t gateway_actor;

#endif
