/* Links to peers: one for the calls of each and one for its events. A link by inproc is made anew
 * when the peer was started again, one to another machine also when the peer refused our key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bus/host_parts.h"
#include "bus/log.h"

enum { INPROC_HWM = 20000, RECONNECT_MS = 20, RETRY_LEAST_MS = 100 };

#define HANDSHAKE_FAILED                                                                           \
    (ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                       \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)

void *host_new_socket(host_t *host, int type)
{
    void *socket = zmq_socket(host->context, type);
    if (!socket)
        abort();
    int none = 0, hwm = INPROC_HWM, reconnect = RECONNECT_MS, longest = RECONNECT_MS * 5;
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_SNDHWM, &hwm, sizeof(hwm));
    zmq_setsockopt(socket, ZMQ_RCVHWM, &hwm, sizeof(hwm));
    zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &reconnect, sizeof(reconnect));
    zmq_setsockopt(socket, ZMQ_RECONNECT_IVL_MAX, &longest, sizeof(longest));
    int64_t largest = (int64_t)FRAME_BODY_LARGEST;
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof(largest));
    return socket;
}

/* Its way leads to another machine. */
static bool lives_away(host_t *host, const char *peer)
{
    return curve_remote(host->curve, peer) && host_generation(host, peer) == 0;
}

static bool lives_here(host_t *host, const char *peer)
{
    if (lives_away(host, peer))
        return false;
    return host->options.transport == TRANSPORT_INPROC || host_generation(host, peer) > 0;
}

/* A key file that cannot be read is said; calls then end by their deadline. */
static void connect_away(node_t *node, link_t *link, arena_t *arena)
{
    /* A call that finds no connection is not kept for the day when there is one: its caller may
     * have given up by then. It is sent again when the peer answers. */
    int immediate = !link->event;
    zmq_setsockopt(link->socket, ZMQ_IMMEDIATE, &immediate, sizeof(immediate));
    err_t err = curve_connect(node->loop->host->curve, link->socket, link->peer, link->event,
                              link->attempt, &link->keys, arena);
    if (err_is(err))
        log_line(STDERR_FILENO, LOG_ERROR, node->instance, err_what(err));
}

static void watch_link(node_t *node, link_t *link, arena_t *arena)
{
    host_t *host = node->loop->host;
    bool away = lives_away(host, link->peer);
    if (link->inproc || (link->event && !away))
        return; /* a subscription by ipc comes back by itself, and nobody waits for an answer */
    /* A name of its own each time: a closed socket gives its name back only later. */
    const char *name = arena_printf(arena, "inproc://monitor-%p-%u", (void *)link, link->lives++);
    zmq_socket_monitor(link->socket, name,
                       ZMQ_EVENT_DISCONNECTED |
                           (away ? ZMQ_EVENT_HANDSHAKE_SUCCEEDED | HANDSHAKE_FAILED : 0));
    link->monitor = zmq_socket(host->context, ZMQ_PAIR);
    zmq_connect(link->monitor, name);
}

static void connect_link(node_t *node, link_t *link)
{
    host_t *host = node->loop->host;
    link->inproc = lives_here(host, link->peer);
    link->generation = host_find_here(host, link->peer, &link->here);
    node->loop->polls_stale = true;
    if (link->inproc && !link->event)
        return; /* before the peer has begun, what is sent is dropped and later sent again */
    link->here.box = NULL;
    link->socket = host_new_socket(host, link->event ? ZMQ_SUB : ZMQ_DEALER);
    for (int i = 0; i < link->topic_count; i++)
        zmq_setsockopt(link->socket, ZMQ_SUBSCRIBE, link->topics[i], strlen(link->topics[i]));
    arena_t *arena = arena_new();
    watch_link(node, link, arena);
    if (lives_away(host, link->peer)) {
        connect_away(node, link, arena);
    } else {
        const char *where = link->inproc ? host->prefix : host->run_dir;
        transport_t transport = link->inproc ? TRANSPORT_INPROC : TRANSPORT_IPC;
        zmq_connect(link->socket, link->event ? address_event(where, transport, link->peer, arena)
                                              : address_call(where, transport, link->peer, arena));
    }
    arena_destroy(&arena);
}

static void disconnect_link(link_t *link)
{
    if (link->monitor) {
        zmq_socket_monitor(link->socket, NULL, 0);
        zmq_close(link->monitor);
        link->monitor = NULL;
    }
    if (link->socket)
        zmq_close(link->socket);
    link->socket = NULL;
}

void host_link_free(link_t *link)
{
    disconnect_link(link);
    for (int i = 0; i < link->topic_count; i++)
        free(link->topics[i]);
    free(link->peer);
    free(link);
}

link_t *host_find_link(const node_t *node, const char *peer, bool event)
{
    link_t *link = node->links;
    while (link && (link->event != event || strcmp(link->peer, peer) != 0))
        link = link->next;
    return link;
}

link_t *host_new_link(node_t *node, const char *peer, bool event, const char *topic)
{
    link_t *link = calloc(1, sizeof(*link));
    if (!link || !(link->peer = strdup(peer)) ||
        (topic && !(link->topics[link->topic_count++] = strdup(topic))))
        abort();
    link->event = event;
    link->next = node->links;
    node->links = link;
    connect_link(node, link);
    return link;
}

link_t *host_link_to(node_t *node, const char *peer)
{
    link_t *link = host_find_link(node, peer, false);
    return link ? link : host_new_link(node, peer, false, NULL);
}

/* Calls that were under way are sent again; events are hints. */
static void tell_lost(node_t *node, const link_t *link)
{
    if (!link->event)
        actor_on_lost(node->actor, link->peer);
}

void host_renew_links(node_t *node)
{
    host_t *host = node->loop->host;
    for (link_t *link = node->links; link; link = link->next) {
        unsigned generation = host_generation(host, link->peer);
        if (generation == link->generation)
            continue;
        disconnect_link(link);
        connect_link(node, link);
        tell_lost(node, link);
    }
}

/* ---- Links that break ---- */

static void say_refused(const node_t *node, link_t *link)
{
    if (link->refused)
        return;
    link->refused = true;
    arena_t *arena = arena_new();
    log_line(STDERR_FILENO, LOG_ERROR, node->instance,
             arena_printf(arena,
                          "'%s' refuses the key of this process; add its public key to the allow "
                          "list there (bus.curve_allow)",
                          link->peer));
    arena_destroy(&arena);
}

/* Not here: the caller may be going through the polls. */
static void plan_retry(node_t *node, link_t *link)
{
    unsigned delay_ms = RETRY_LEAST_MS << (link->attempt < 4 ? link->attempt : 4);
    if (!link->retry_us)
        link->retry_us = host_clock_us(CLOCK_MONOTONIC) + (int64_t)delay_ms * 1000;
    node->loop->retries = true;
}

static void on_handshake(node_t *node, link_t *link, uint16_t event)
{
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        link->shaken = true;
        link->refused = false;
        tell_lost(node, link); /* what found no connection is sent now */
        return;
    }
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        say_refused(node, link);
    plan_retry(node, link);
}

void host_on_monitor(node_t *node, link_t *link)
{
    host_t *host = node->loop->host;
    parts_t parts;
    bool lost = false;
    while (host_receive(link->monitor, &parts)) {
        uint16_t event = 0;
        if (host_part(&parts, 0).size >= sizeof(event))
            memcpy(&event, host_part(&parts, 0).data, sizeof(event));
        if (event == ZMQ_EVENT_DISCONNECTED)
            lost = true;
        else
            on_handshake(node, link, event);
        host_parts_close(&parts);
    }
    if (!lost)
        return;
    /* It may come back with another key, which may be in the files by now. */
    if (lives_away(host, link->peer) &&
        (!link->shaken || curve_changed(host->curve, link->peer, link->keys)))
        plan_retry(node, link);
    tell_lost(node, link);
}

/* The next key of the peer, or the same again when there is one. */
static void retry_link(node_t *node, link_t *link)
{
    link->attempt = link->shaken ? link->attempt : link->attempt + 1;
    link->shaken = false;
    link->retry_us = 0;
    disconnect_link(link);
    connect_link(node, link);
    tell_lost(node, link);
}

int64_t host_retry_links(loop_t *loop)
{
    int64_t next = INT64_MAX, now = host_clock_us(CLOCK_MONOTONIC);
    for (size_t i = 0; i < loop->node_count; i++)
        for (link_t *link = loop->nodes[i].links; link; link = link->next) {
            if (link->retry_us && link->retry_us <= now)
                retry_link(&loop->nodes[i], link);
            else if (link->retry_us && link->retry_us < next)
                next = link->retry_us;
        }
    loop->retries = next != INT64_MAX;
    return next;
}
