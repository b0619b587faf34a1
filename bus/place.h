/* place: where a process stands in a cluster: which replica it is, and where the pillars are that
 * are not on this machine. Ordinal 0 owns the queue; the others forward to it. Pure but for the
 * settings that it reads. */
#ifndef BUS_PLACE_H
#define BUS_PLACE_H

#include "proto/record.h"

enum { PLACE_EVENT_PORT = 100 }; /* from the call door to the event door */

#define bus_FIELDS(F)                                                                              \
    F(STR, pod, opt(), 0, 63, "Name of this pod; its ordinal is the digits after the last '-'.")   \
    F(STR, owner, opt(), 1, 253, "Host name or IPv4 address of ordinal 0, which owns the queue.")  \
    F(INT, workers, opt(), 0, 64,                                                                  \
      "Workers that `agency run agent` keeps; absent: 1 in a pod, else 0.")                        \
    F(STR, listen, opt(), 1, 64, "Interface to listen on by tcp: * or an IPv4 address.")           \
    F(INT, port_offset, opt(0), 0, 59900, "Added to the tcp ports of the pillars.")                \
    F(STR, curve_key, opt(), 1, 4096, "File with the secret key of this process.")                 \
    F(STR, curve_allow, opt(), 1, 4096, "File or directory of public keys that may connect.")      \
    F(STR, curve_servers, opt(), 1, 4096,                                                          \
      "File, or directory with <pillar>.pub: keys of servers.")                                    \
    F(STR, agent, opt(), 1, 300, "tcp://host:port of the agent; absent: owner, or here.")          \
    F(STR, brain, opt(), 1, 300, "tcp://host:port of the brain; absent: on this machine.")         \
    F(STR, health, opt(), 1, 300, "tcp://host:port of health; absent: owner, or here.")            \
    F(STR, swarm, opt(), 1, 300, "tcp://host:port of the swarm; absent: owner, or here.")          \
    F(STR, elastic, opt(), 1, 300, "tcp://host:port of elastic; absent: owner, or here.")          \
    F(STR, outside, opt(), 1, 300, "tcp://host:port of outside; absent: owner, or here.")
RECORD_STRUCT(bus, bus_FIELDS)

enum { PLACE_PILLARS = 6 };

typedef struct place {
    bus_t settings;
    int ordinal;                          /* 0 without a pod */
    const char *addresses[PLACE_PILLARS]; /* of the call doors; NULL: on this machine */
} place_t;

/* Reads the settings `bus.…`. What is pointed to lives in `arena`. ERR_ARGUMENT when a name, an
 * address or a combination cannot be. */
err_t place_load(const char *const *settings, const char *const *environment, const char *data_dir,
                 arena_t *arena, place_t *out);

/* The pillars that have tcp doors, by index; NULL behind the last. */
const char *place_pillar(int index);
/* -1: no pillar. */
int place_index(const char *name);
/* The tcp port of its call door, with the offset; 0: it has none. */
int place_port(const place_t *place, const char *pillar);
/* NULL: it is on this machine. */
const char *place_address(const place_t *place, const char *pillar);
/* Is this one of the pillars that only ordinal 0 runs, and this another ordinal? */
bool place_forwards(const place_t *place, const char *pillar);
/* Is anything reached by tcp? */
bool place_any_away(const place_t *place);

#endif
