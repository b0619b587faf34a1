/* support_tcp: keys and free ports for tests of what goes between machines. */
#ifndef TESTS_SUPPORT_TCP_H
#define TESTS_SUPPORT_TCP_H

#include "proto/arena.h"

/* A bus.port_offset at which the doors of all pillars are free on 127.0.0.1. */
int free_tcp_offset(void);
/* Makes <dir>/curve.key and .pub; returns the public key, in `arena`. */
const char *make_curve_key(const char *dir, arena_t *arena);

#endif
