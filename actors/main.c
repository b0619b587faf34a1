/* agency: one binary that plays every part. The list of the actors is here and nowhere else. */
#include <string.h>

#include "actors/cli/cli.h"
#include "bus/child.h"

#ifndef AGENCY_VERSION
#define AGENCY_VERSION "0.1.0"
#endif

/* Each in actors/<name>/<name>.c; their headers are their own business. */
extern const actor_def_t agent_actor, brain_actor, worker_actor, gateway_actor, health_actor,
    swarm_actor, elastic_actor, feed_actor, outside_actor;

static const cli_actor_t actors[] = {
    {&agent_actor, 3000, true, NULL, NULL},    {&brain_actor, 3002, true, NULL, NULL},
    {&worker_actor, 0, true, NULL, NULL},      {&health_actor, 3004, true, &feed_actor, NULL},
    {&swarm_actor, 3005, true, NULL, NULL},    {&elastic_actor, 3006, true, NULL, NULL},
    {&outside_actor, 0, false, NULL, "agent"}, {NULL, 0, false, NULL, NULL}};

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "exec-helper"))
        return child_helper_main(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "store-copy"))
        return store_copy_main(argc, argv);
    cli_house_t house = {.actors = actors, .gateway = &gateway_actor, .version = AGENCY_VERSION};
    return cli_main(&house, argc, argv);
}
