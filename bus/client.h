/* client: blocking calls from a thread that is no actor: the CLI, tests.
 * Lost peers are called again with the same id until the deadline, as actors do.
 * Thread: one owner. */
#ifndef BUS_CLIENT_H
#define BUS_CLIENT_H

#include "bus/host.h"

typedef struct client client_t;
struct curve_options; /* bus/curve.h */

typedef struct client_reply {
    err_t err;
    const char *text;
    bytes_t body;
} client_reply_t;

typedef struct client_call {
    const char *peer, *method;
    bytes_t args;          /* msgpack map; empty: none */
    const char *company;   /* default company in the header; NULL: the callee's */
    const char *principal; /* NULL: "local" */
    role_t role;
    strs_t companies; /* count 0: any */
    const char *key;
    int64_t timeout_ms; /* 0: 30 s */
    void (*on_progress)(void *ctx, bytes_t body);
    void *ctx;
} client_call_t;

/* Over ipc to the sockets in run_dir. */
err_t client_open(const char *run_dir, arena_t *arena, client_t **out);
/* By tcp with CURVE to the pillars that the settings place elsewhere, by ipc to the others; run_dir
 * NULL: there are none. ERR_ARGUMENT, ERR_IO: a key is missing or cannot be read. */
err_t client_open_away(const char *run_dir, const struct curve_options *options, arena_t *arena,
                       client_t **out);
/* Over inproc to the actors of a host. */
err_t client_open_host(host_t *host, client_t **out);
void client_close(client_t **client);
/* Does it reach anybody by tcp? */
bool client_has_tcp(const client_t *client);
/* By tcp, or is there a door of that name on this machine? */
bool client_reaches(const client_t *client, const char *peer);

/* The reply's text and body live in `arena`. Never NULL err: ERR_TIMEOUT, ERR_UNAVAILABLE, … */
client_reply_t client_call(client_t *client, arena_t *arena, const client_call_t *call);

/* Sends without waiting; the answer is fetched by client_wait with the returned id. */
uint64_t client_send(client_t *client, const client_call_t *call);
/* The next answer of any call that was sent; its id in *id (0: none within timeout_ms). */
client_reply_t client_wait(client_t *client, arena_t *arena, int64_t timeout_ms, uint64_t *id);

/* Event tap: fn for each event of `topic` prefix from `publisher` until it returns false. */
err_t client_tap(client_t *client, const char *publisher, const char *topic, int64_t timeout_ms,
                 bool (*fn)(void *ctx, const char *topic, const header_t *header, bytes_t body),
                 void *ctx);

#endif
