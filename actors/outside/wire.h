/* wire: how messages travel to one foreign server: over its standard input and output (pipe.c),
 * by Streamable HTTP (web.c) or by HTTP+SSE (pair.c). A wire knows JSON-RPC ids and nothing of what
 * is said. It never blocks, and what it gathers is bounded. Thread: the actor's. */
#ifndef ACTORS_OUTSIDE_WIRE_H
#define ACTORS_OUTSIDE_WIRE_H

#include "actors/outside/config.h"

typedef struct wire wire_t;

/* What became of a request whose answer will not come. */
typedef enum wire_loss {
    LOSS_UNSENT,  /* it has certainly not been taken: again is harmless */
    LOSS_REFUSED, /* the same, and again would not help */
    LOSS_SESSION, /* the server has forgotten the session: it was not taken */
    LOSS_UNKNOWN  /* it may have happened */
} wire_loss_t;

/* What a wire tells its owner; never from within a function of the wire. */
typedef struct wire_owner {
    /* One message, or a batch of them, as JSON. */
    void (*on_message)(void *ctx, const char *json, size_t size);
    void (*on_loss)(void *ctx, int64_t id, wire_loss_t loss, const char *why);
    /* The whole wire is dead. */
    void (*on_end)(void *ctx, const char *why);
    /* A line for the log. */
    void (*on_line)(void *ctx, const char *text);
    void *ctx;
} wire_owner_t;

typedef struct wire_message {
    int64_t id; /* -1: no answer comes */
    bytes_t json;
    const char *const *headers; /* of this message; NULL-terminated; NULL: none */
    int64_t timeout_ms;         /* 0: it stays open for as long as it likes */
} wire_message_t;

typedef struct wire_limits {
    int64_t message_bytes; /* the largest message that is read */
    int64_t queue_bytes;   /* waiting for a server that does not read */
} wire_limits_t;

typedef struct wire_ops {
    /* False: it is not taken, the server is too far behind. */
    bool (*send)(wire_t *wire, const wire_message_t *message);
    /* Nobody waits for this answer any more. */
    void (*forget)(wire_t *wire, int64_t id);
    /* A session of the legacy era is on: listen for what the server says unasked. */
    void (*listen)(wire_t *wire, const char *version);
    /* Does what is due; when there is something again, by the monotonic clock. INT64_MAX: never. */
    int64_t (*tend)(wire_t *wire, int64_t now_us);
    void (*close)(wire_t **wire);
} wire_ops_t;

struct wire {
    const wire_ops_t *ops;
};

struct children;
struct http_client;

/* ERR_IO, ERR_NOT_FOUND: it cannot be started. */
err_t pipe_open(struct children *children, const config_server_t *config,
                const wire_limits_t *limits, const wire_owner_t *owner, arena_t *arena,
                wire_t **out);
wire_t *web_open(struct http_client *client, const config_server_t *config,
                 const wire_limits_t *limits, const wire_owner_t *owner);

/* HTTP+SSE, for servers of before 2025. */
wire_t *pair_open(struct http_client *client, const config_server_t *config,
                  const wire_limits_t *limits, const wire_owner_t *owner);
/* Where the endpoint is that such a server names on its stream at `url`; NULL: nowhere, or not at
 * the same origin. The caller frees it. */
char *pair_endpoint(const char *url, const char *text);

#endif
