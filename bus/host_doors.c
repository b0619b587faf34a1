/* The doors of an actor: one for calls and one for events, in this process and on this machine; and
 * the same for other machines, which are closed and made anew when a key is taken off the list. */
#include "bus/host_parts.h"

enum {
    FAR_LOOK_MS = 1000, /* for keys that were taken off the list */
    FAR_WAIT_MS = 3000,
    FAR_AGAIN_MS = 20 /* a port is free a moment after its socket was closed */
};

/* ---- Doors for other machines ---- */

void host_close_far(node_t *node)
{
    void **const sockets[] = {&node->far_router, &node->far_publisher};
    for (int i = 0; i < 2; i++) {
        if (*sockets[i])
            zmq_close(*sockets[i]);
        *sockets[i] = NULL;
    }
    node->loop->polls_stale = true;
}

static err_t open_far(node_t *node, arena_t *arena)
{
    host_t *host = node->loop->host;
    if (!curve_serves(host->curve, node->instance))
        return err_ok();
    int mandatory = 1;
    node->far_cuts = curve_cuts(host->curve);
    node->far_life++;
    node->far_router = host_new_socket(host, ZMQ_ROUTER);
    node->far_publisher = host_new_socket(host, ZMQ_PUB);
    zmq_setsockopt(node->far_router, ZMQ_ROUTER_MANDATORY, &mandatory, sizeof(mandatory));
    err_t err = curve_bind(host->curve, node->far_router, node->instance, false, arena);
    if (!err_is(err))
        err = curve_bind(host->curve, node->far_publisher, node->instance, true, arena);
    node->loop->polls_stale = true;
    return err;
}

/* A former life of this actor in the same process may still be giving the port back. */
static err_t open_far_soon(node_t *node, arena_t *arena)
{
    int64_t end = host_clock_us(CLOCK_MONOTONIC) + FAR_WAIT_MS * 1000;
    err_t err = open_far(node, arena);
    while (err.code == ERR_BUSY && host_clock_us(CLOCK_MONOTONIC) < end) {
        host_close_far(node);
        zmq_poll(NULL, 0, FAR_AGAIN_MS);
        err = open_far(node, arena);
    }
    return err;
}

int64_t host_tend_far(node_t *node)
{
    host_t *host = node->loop->host;
    int64_t now = host_clock_us(CLOCK_MONOTONIC);
    if (!curve_serves(host->curve, node->instance))
        return INT64_MAX;
    if (node->far_cuts == curve_cuts(host->curve) && !node->far_retry_us)
        return now + FAR_LOOK_MS * 1000;
    if (node->far_retry_us > now)
        return node->far_retry_us;
    arena_t *arena = arena_new();
    host_close_far(node);
    node->far_retry_us = 0;
    if (err_is(open_far(node, arena))) {
        host_close_far(node);
        node->far_retry_us = now + FAR_AGAIN_MS * 1000;
    }
    arena_destroy(&arena);
    return node->far_retry_us ? node->far_retry_us : now + FAR_LOOK_MS * 1000;
}

/* ---- All doors ---- */

static err_t bind_door(void *socket, const char *address, arena_t *arena)
{
    if (!zmq_bind(socket, address))
        return err_ok();
    return err_make(arena, ERR_IO, "cannot listen at %s: %s", address, zmq_strerror(zmq_errno()));
}

err_t host_bind_doors(node_t *node, arena_t *arena)
{
    host_t *host = node->loop->host;
    err_t err = err_ok();
    node->router = host_new_socket(host, ZMQ_ROUTER);
    int mandatory = 1;
    zmq_setsockopt(node->router, ZMQ_ROUTER_MANDATORY, &mandatory, sizeof(mandatory));
    node->publisher = host_new_socket(host, ZMQ_PUB);
    for (transport_t at = TRANSPORT_INPROC; at <= host->options.transport && !err_is(err); at++) {
        const char *prefix = at == TRANSPORT_INPROC ? host->prefix : host->run_dir;
        err = bind_door(node->router, address_call(prefix, at, node->instance, arena), arena);
        if (!err_is(err))
            err =
                bind_door(node->publisher, address_event(prefix, at, node->instance, arena), arena);
    }
    return err_is(err) ? err : open_far_soon(node, arena);
}

/* A closed socket gives its inproc name back only later; an unbound one at once, so that the actor
 * can be started again right away. */
void host_leave_doors(node_t *node)
{
    arena_t *arena = arena_new();
    const char *prefix = node->loop->host->prefix;
    if (node->router) {
        zmq_unbind(node->router, address_call(prefix, TRANSPORT_INPROC, node->instance, arena));
        zmq_close(node->router);
    }
    if (node->publisher) {
        zmq_unbind(node->publisher, address_event(prefix, TRANSPORT_INPROC, node->instance, arena));
        zmq_close(node->publisher);
    }
    arena_destroy(&arena);
}
