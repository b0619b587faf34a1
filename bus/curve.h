/* curve: the doors to other machines. tcp is always CURVE: a server has a key of its own and a list
 * of those who may come; a client knows the keys of the servers. Keys are Z85 text, 40 characters.
 * Caveat: whoever is on the list is trusted with the principal that he names, as peers on one
 * machine are. */
#ifndef BUS_CURVE_H
#define BUS_CURVE_H

#include "proto/record.h"

enum { CURVE_KEY_SIZE = 40, CURVE_KEYS_MOST = 4 };

#define CURVE_EVENTS UINT32_MAX

typedef struct curve curve_t;

/* Reads the settings `bus.…` and the key, and answers those who knock until curve_close.
 * ERR_ARGUMENT or ERR_IO when an address is given but a key is not, or cannot be read. Thread: the
 * one of the host; `context` is a ZeroMQ context. */
err_t curve_open(const char *const *settings, const char *const *environment, const char *data_dir,
                 void *context, arena_t *arena, curve_t **out);
/* Only after the context was shut down or is being ended by zmq_ctx_shutdown. */
void curve_close(curve_t **curve);

/* The functions below may be called from any thread. */

/* Binds the tcp door of a pillar, when it is to have one; else OK. Must be the last bind of the
 * socket: doors bound before stay as they are. ERR_IO. */
err_t curve_bind(const curve_t *curve, void *socket, const char *instance, bool event,
                 arena_t *arena);
/* Is this actor reached by tcp from here? */
bool curve_remote(const curve_t *curve, const char *peer);
/* Connects to the call door with one of the known keys of the peer, the next one at each attempt;
 * CURVE_EVENTS: to the event door, with all of them, of which only the right one becomes a way.
 * What the files held is remembered in *used. ERR_IO, ERR_ARGUMENT when they cannot be read. */
err_t curve_connect(const curve_t *curve, void *socket, const char *peer, unsigned attempt,
                    uint64_t *used, arena_t *arena);
/* Are the keys of the peer in the files others than *used? */
bool curve_changed(const curve_t *curve, const char *peer, uint64_t used);

/* Makes `dir` if needed and writes curve.key (secret) and curve.pub, both 0600. ERR_EXISTS when
 * one is there already, ERR_IO. *public_key is the text of the public key. */
err_t curve_keygen(const char *dir, arena_t *arena, const char **public_key);

#endif
