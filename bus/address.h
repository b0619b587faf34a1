/* address: from the name of an actor to where its doors are. Pure but for the environment that the
 * caller hands over. */
#ifndef BUS_ADDRESS_H
#define BUS_ADDRESS_H

#include "bus/host.h"

enum { ADDRESS_IPC_LONGEST = 107 };

/* `where` is the prefix of the host for INPROC, the run directory for IPC. */
const char *address_call(const char *where, transport_t transport, const char *actor,
                         arena_t *arena);
const char *address_event(const char *where, transport_t transport, const char *actor,
                          arena_t *arena);

#endif
