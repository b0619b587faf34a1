/* outside: MCP servers that others run, as tools for the steps of runs.
 *
 * One entry of mcp.json is one server_t (server.c): it is found out about, kept alive and called
 * over a wire (pipe.c, web.c). All of them live in this one actor's loop, and none waits for
 * another. A tool is known as SERVER/TOOL; the tools of our pillars have no '/'.
 *
 * A worker asks `outside_look` before it says that an effect is dispatched, and gives what it was
 * told (the life of this actor) to `outside_call`. So a call that the bus repeats after a crash is
 * recognised by another life and answered "unknown" instead of being made a second time.
 */
#ifndef ACTORS_OUTSIDE_OUTSIDE_H
#define ACTORS_OUTSIDE_OUTSIDE_H

#include "bus/actor.h"

extern const actor_def_t outside_actor;

#endif
