/* listen: numeric addresses to listen at, and whether somebody does already. Thread: any. */
#ifndef BUS_LISTEN_H
#define BUS_LISTEN_H

#include <sys/socket.h>

#include "proto/arena.h"
#include "proto/err.h"

/* An IPv4 or IPv6 address, or "localhost", which is 127.0.0.1. False: it is none. */
bool listen_address(const char *text, int port, struct sockaddr_storage *out, socklen_t *size);

/* ERR_ARGUMENT: no numeric address; ERR_IO: nobody can listen there now, and why; the sentence
 * lives in the arena. */
err_t listen_probe(const char *text, int port, arena_t *arena);

#endif
