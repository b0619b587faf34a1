/* env: everything an actor needs from the world, behind one table.
 *
 * In production bus/host_env.c fills it in (ZeroMQ, clocks, child processes, HTTP); in simulation
 * bus/sim.c does, with virtual time and faults. Actors and the skeleton reach the world through
 * nothing else. Every function is called on the actor's own thread. Bytes and strings handed over
 * are only valid during the call: the env copies what it keeps.
 */
#ifndef BUS_ENV_H
#define BUS_ENV_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/err.h"
#include "proto/frame.h"

typedef struct actor actor_t;
typedef struct actor_env actor_env_t;

/* The way back to whoever sent a frame; what the bytes mean is the env's business. */
typedef struct route {
    uint8_t size;
    uint8_t data[47];
} route_t;

typedef struct child_request {
    const char *const *argv; /* NULL-terminated */
    const char *const *env;  /* "NAME=value", NULL-terminated; complete */
    const char *cwd;         /* NULL: the process's own */
    bytes_t input;           /* standard input */
    int64_t timeout_ms;      /* 0: none */
    int64_t output_limit;    /* bytes, for each of stdout and stderr */
    int64_t memory_limit;    /* bytes of address space; 0: none */
    int64_t process_limit;   /* 0: none */
} child_request_t;

typedef struct child_outcome {
    err_t err;       /* it could not be started */
    int exit_status; /* -1 when ended by a signal */
    int signal;
    bool timed_out;
    bool truncated;
    int64_t duration_ms;
    bytes_t output, errors;
} child_outcome_t;

typedef struct http_call_request {
    const char *method, *url;
    const char *const *headers; /* "Name: value", NULL-terminated; NULL: none */
    bytes_t body;
    const char *ca_file; /* PEM, read anew for each connection; NULL: the system's */
    int64_t timeout_ms;
    int64_t response_limit; /* bytes */
    bool once;              /* never sent twice, also when its connection was dead already */
} http_call_request_t;

typedef struct http_call_outcome {
    err_t err; /* no answer came */
    int status;
    const char *content_type; /* "" when absent */
    int64_t retry_after_ms;   /* -1 when absent */
    bytes_t body;
} http_call_outcome_t;

/* How the loops of this process turn; zeros in simulation. */
typedef struct loop_lag {
    int64_t now_us;   /* the slowest of them has not turned for so long */
    int64_t limit_us; /* that is not well */
    int64_t worst_us; /* longest turn of this actor's own, in the last one to two minutes */
} loop_lag_t;

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level_t;

typedef struct actor_env_ops {
    int64_t (*wall_ms)(actor_env_t *env); /* since 1970 */
    int64_t (*mono_us)(actor_env_t *env);
    void (*random)(actor_env_t *env, void *data, size_t size);

    /* To a pillar's call door by name; back along a route; to whoever subscribed. */
    void (*send)(actor_env_t *env, const char *peer, bytes_t header, bytes_t body);
    void (*send_back)(actor_env_t *env, const route_t *route, bytes_t header, bytes_t body);
    void (*publish)(actor_env_t *env, const char *topic, bytes_t header, bytes_t body);
    void (*subscribe)(actor_env_t *env, const char *publisher, const char *topic);

    /* The same for a brief call to an actor of this process that sleeps: it is served at once, on
     * this thread, and its answer is with the caller's actor when this returns. False: to be sent.
     * NULL in simulation. */
    bool (*call_here)(actor_env_t *env, const char *peer, const header_t *header, bytes_t body);
    bool (*answer_here)(actor_env_t *env, const route_t *route, const header_t *header,
                        bytes_t body);

    /* Answered by actor_on_child / actor_on_http with the same token, exactly once, later. */
    void (*child_start)(actor_env_t *env, uint64_t token, const child_request_t *request);
    void (*child_kill)(actor_env_t *env, uint64_t token);
    void (*http_start)(actor_env_t *env, uint64_t token, const http_call_request_t *request);
    void (*http_cancel)(actor_env_t *env, uint64_t token);

    /* Runs job(ctx) on a reader thread (inline when there is none), then actor_on_read(token). */
    void (*read_start)(actor_env_t *env, uint64_t token, void (*job)(void *ctx), void *ctx);
    /* In the middle of a batch: calls that have come and reads that are done are handed to the
     * actor, the rest waits for the batch's end. With `wait`, first sleeps until there is something
     * or `wake` was called. NULL in simulation. */
    void (*attend)(actor_env_t *env, bool wait);
    /* Ends the sleep of attend. On any thread. NULL in simulation. */
    void (*wake)(actor_env_t *env);

    /* Tells when `fd` is readable by fn(ctx); fn NULL forgets it. Not available in simulation. */
    void (*watch)(actor_env_t *env, int fd, void (*fn)(void *ctx), void *ctx);

    /* fn(ctx) once at the end of this turn, outside any batch; asked again before, it still runs
     * once. NULL in simulation. */
    void (*after)(actor_env_t *env, void (*fn)(void *ctx), void *ctx);

    void (*lag)(actor_env_t *env, loop_lag_t *out);

    /* The actor cannot go on (a failed sync): the process ends, or the simulated one crashes. */
    void (*fatal)(actor_env_t *env, err_t err);

    void (*log)(actor_env_t *env, log_level_t level, const char *text);
} actor_env_ops_t;

struct actor_env {
    const actor_env_ops_t *ops;
};

#endif
