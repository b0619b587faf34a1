/* curve: the doors to other machines. tcp is always CURVE: a server has a key of its own and a list
 * of those who may come; a client knows the keys of the servers. Keys are Z85 text, 40 characters.
 * Caveat: whoever is on the list is trusted with the principal that he names, as peers on one
 * machine are. */
#ifndef BUS_CURVE_H
#define BUS_CURVE_H

#include "bus/place.h"

enum { CURVE_KEY_SIZE = 40, CURVE_KEYS_MOST = 4 };

typedef struct curve curve_t;

typedef struct curve_options {
    const char *const *settings, *const *environment;
    const char *data_dir; /* NULL: no agency.conf is read */
    bool calls_only;      /* bus.listen is not for this process */
} curve_options_t;

/* Reads the settings `bus.…` and the key, and answers those who knock until curve_close.
 * ERR_ARGUMENT or ERR_IO when an address is given but a key is not, or cannot be read. Thread: the
 * one of the host; `context` is a ZeroMQ context. */
err_t curve_open(const curve_options_t *options, void *context, arena_t *arena, curve_t **out);
/* Only after the context was shut down or is being ended by zmq_ctx_shutdown. */
void curve_close(curve_t **curve);

/* The functions below may be called from any thread. */

const place_t *curve_place(const curve_t *curve);
/* Has this actor a door for other machines? */
bool curve_serves(const curve_t *curve, const char *instance);
/* Binds that door. ERR_BUSY: somebody has the port, perhaps a socket that was just closed. ERR_IO.
 */
err_t curve_bind(const curve_t *curve, void *socket, const char *instance, bool event,
                 arena_t *arena);
/* Grows when a key that had come in was taken off the list: then tcp doors must be closed and made
 * anew, which ends its connection. Noticed within a few seconds. */
unsigned curve_cuts(curve_t *curve);
/* Is this actor reached by tcp from here? */
bool curve_remote(const curve_t *curve, const char *peer);
/* Connects to the call door, or that of the events, with one of the known keys of the peer, the
 * next one at each attempt. What the files held is remembered in *used. ERR_IO, ERR_ARGUMENT when
 * they cannot be read. */
err_t curve_connect(const curve_t *curve, void *socket, const char *peer, bool event,
                    unsigned attempt, uint64_t *used, arena_t *arena);
/* Are the keys of the peer in the files others than *used? */
bool curve_changed(const curve_t *curve, const char *peer, uint64_t used);

/* Makes `dir` if needed and writes curve.key (secret) and curve.pub, both 0600. ERR_EXISTS when
 * one is there already, ERR_IO. *public_key is the text of the public key. */
err_t curve_keygen(const char *dir, arena_t *arena, const char **public_key);

#endif
