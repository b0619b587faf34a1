/* host: one process of the agency: a ZeroMQ context and loops, each a thread with one or more
 * actors. Start returns when the actor answers, stop when it is gone.
 * Thread: host functions are called from the thread that opened the host. */
#ifndef BUS_HOST_H
#define BUS_HOST_H

#include "bus/actor.h"

typedef struct host host_t;

typedef enum transport { TRANSPORT_INPROC, TRANSPORT_IPC } transport_t;

typedef struct host_options {
    const char *data_dir;
    const char *run_dir;            /* NULL: <data_dir>/run; sockets, 0700 */
    transport_t transport;          /* INPROC: doors only inside this host. IPC: both */
    const char *default_company;    /* NULL: "default" */
    const char *const *settings;    /* "brain.limit=3", NULL-terminated; NULL: none */
    const char *const *environment; /* as environ; NULL: none */
    log_level_t log_level;          /* less is not written */
    store_fault_t store_fault;
} host_options_t;

err_t host_open(const host_options_t *options, arena_t *arena, host_t **out);

/* Starts one actor in a thread of its own; up when it returns OK. `instance` may be NULL. */
err_t host_start(host_t *host, const actor_def_t *def, const char *instance, arena_t *arena);
/* Starts several in one thread: they call each other without a socket. */
err_t host_start_together(host_t *host, const actor_def_t *const *defs, size_t count,
                          arena_t *arena);

/* Drains and stops one actor's loop, or all of them; waits at most drain_ms for work in flight. */
void host_stop(host_t *host, const char *instance, int64_t drain_ms);
void host_close(host_t **host, int64_t drain_ms);

/* Has an actor died of a fatal error (a failed sync)? The process should end then. */
bool host_failed(const host_t *host);
/* Becomes readable when an actor fails. */
int host_fd(const host_t *host);

const char *host_run_dir(const host_t *host);
/* For bus/client.c: the ZeroMQ context, and the prefix of this host's inproc names. */
void *host_zmq_context(host_t *host);
const char *host_inproc_prefix(host_t *host);
/* The number of times an actor of that name was started here; 0: never. Thread-safe. */
unsigned host_generation(host_t *host, const char *instance);
/* The directory for sockets: that of AGENCY_RUN, else below data_dir, or /tmp/agency-<uid>-<hash>
 * when an ipc path would be longer than 107 bytes. Created 0700. */
err_t host_default_run_dir(const char *data_dir, arena_t *arena, const char **out);

#endif
