/* Frames to and from actors. A neighbour in the same loop and another loop of this process get
 * letters, everybody else gets messages. */
#include <stdlib.h>
#include <string.h>

#include "bus/handover.h"
#include "bus/host_parts.h"
#include "proto/mp.h"

enum { DRAIN_FRAMES = 256 };

/* ---- Sending ---- */

void host_touch(loop_t *loop, const void *socket)
{
    for (size_t i = 0; i < loop->source_count; i++)
        if (loop->sources[i].socket == socket)
            loop->sources[i].doubt = true;
}

static void send_parts(loop_t *loop, void *socket, const void *first, size_t first_size,
                       bytes_t header, bytes_t body)
{
    host_touch(loop, socket);
    if (first && handover_send(socket, first, first_size, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return; /* the receiver is gone or does not read: it will ask again */
    if (handover_send(socket, header.data, header.size, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return;
    handover_send(socket, body.data, body.size, ZMQ_DONTWAIT);
}

/* In the next turn. */
static void deliver_later(loop_t *loop, letter_t *letter)
{
    letter->next = NULL;
    *loop->inbox_end = letter;
    loop->inbox_end = &letter->next;
}

static void send_inside(loop_t *loop, uint8_t place, const route_t *route, bytes_t header,
                        bytes_t body)
{
    address_t to = {.place = place};
    deliver_later(loop, letter_new(&to, route, header, body));
}

void host_empty_outbox(loop_t *loop)
{
    letter_t *letter = loop->outbox;
    loop->outbox = NULL;
    loop->outbox_end = &loop->outbox;
    loop->outbox_count = 0;
    while (letter) {
        letter_t *next = letter->next;
        letter->next = NULL;
        mailbox_post(letter);
        letter = next;
    }
}

/* What some requests of one turn send wakes the other loop once; it begins with them while this one
 * reads on. Not so for an actor that keeps something: it may sync before the turn ends, and nobody
 * shall wait for that who need not. */
enum { OUTBOX_MOST = 4 }; /* 2 to 8 measured best, bench_gateway at 16 and 64 connections */

static void send_away(const node_t *from, letter_t *letter)
{
    loop_t *loop = from->loop;
    if (from->def->tables) {
        mailbox_post(letter);
        return;
    }
    *loop->outbox_end = letter;
    loop->outbox_end = &letter->next;
    if (++loop->outbox_count == OUTBOX_MOST)
        host_empty_outbox(loop);
}

enum { ROUTE_SOCKET = 0, ROUTE_LOCAL = 1, ROUTE_FAR = 2, ROUTE_BOX = 3 };

route_t host_route_to(const node_t *node)
{
    address_t back = host_address_of(node);
    route_t route = {.size = 1 + sizeof(back), .data = {ROUTE_BOX}};
    memcpy(route.data + 1, &back, sizeof(back));
    return route;
}

bool host_is_route_to(const route_t *route, const node_t *node)
{
    address_t to, own = host_address_of(node);
    if (!route->size || route->data[0] != ROUTE_BOX)
        return false;
    memcpy(&to, route->data + 1, sizeof(to));
    return to.box == own.box && to.life == own.life && to.place == own.place;
}

static void send_box(const node_t *from, const address_t *to, bytes_t header, bytes_t body)
{
    route_t route = host_route_to(from);
    if (to->box)
        send_away(from, letter_new(to, &route, header, body));
}

static void send_box_back(const node_t *from, const route_t *route, bytes_t header, bytes_t body)
{
    address_t to;
    memcpy(&to, route->data + 1, sizeof(to));
    send_away(from, letter_new(&to, NULL, header, body));
}

node_t *host_neighbour(const loop_t *loop, const char *instance)
{
    for (size_t i = 0; i < loop->node_count; i++)
        if (!strcmp(loop->nodes[i].instance, instance))
            return &loop->nodes[i];
    return NULL;
}

void host_env_send(actor_env_t *env, const char *peer, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env;
    node_t *near = host_neighbour(node->loop, peer);
    if (near) {
        route_t route = {.size = 2, .data = {ROUTE_LOCAL, host_place_of(node)}};
        send_inside(node->loop, host_place_of(near), &route, header, body);
        return;
    }
    const link_t *link = host_link_to(node, peer);
    if (link->socket)
        send_parts(node->loop, link->socket, NULL, 0, header, body);
    else
        send_box(node, &link->here, header, body);
}

void host_env_send_back(actor_env_t *env, const route_t *route, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env;
    if (route->size && route->data[0] == ROUTE_LOCAL)
        send_inside(node->loop, route->data[1], NULL, header, body);
    else if (route->size && route->data[0] == ROUTE_BOX)
        send_box_back(node, route, header, body);
    else if (route->size && route->data[0] == ROUTE_FAR) {
        if (node->far_router && route->data[1] == node->far_life)
            send_parts(node->loop, node->far_router, route->data + 2, (size_t)route->size - 2,
                       header, body);
    } else if (route->size)
        send_parts(node->loop, node->router, route->data + 1, (size_t)route->size - 1, header,
                   body);
}

void host_env_publish(actor_env_t *env, const char *topic, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env;
    if (node->publisher)
        send_parts(node->loop, node->publisher, topic, strlen(topic), header, body);
    if (node->far_publisher)
        send_parts(node->loop, node->far_publisher, topic, strlen(topic), header, body);
    for (size_t i = 0; i < node->loop->node_count; i++)
        if (&node->loop->nodes[i] != node)
            send_inside(node->loop, (uint8_t)i, NULL, header, body);
}

void host_env_subscribe(actor_env_t *env, const char *publisher, const char *topic)
{
    node_t *node = (node_t *)env;
    if (host_neighbour(node->loop, publisher))
        return; /* handed over inside the loop */
    link_t *link = host_find_link(node, publisher, true);
    if (!link) {
        host_new_link(node, publisher, true, topic);
        return;
    }
    if (link->topic_count == TOPICS_MOST || !(link->topics[link->topic_count++] = strdup(topic)))
        abort();
    host_touch(node->loop, link->socket);
    zmq_setsockopt(link->socket, ZMQ_SUBSCRIBE, topic, strlen(topic));
}

/* ---- Receiving ---- */

bool host_receive(void *socket, parts_t *parts)
{
    parts->count = 0;
    parts->more = false;
    for (;;) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        if (handover_receive(&message, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&message);
            return false;
        }
        bool more = zmq_msg_more(&message);
        if (parts->count < 3) {
            zmq_msg_init(&parts->messages[parts->count]);
            zmq_msg_move(&parts->messages[parts->count++], &message);
        } else {
            parts->more = true;
        }
        zmq_msg_close(&message);
        if (!more)
            return true;
    }
}

void host_parts_close(parts_t *parts)
{
    for (int i = 0; i < parts->count; i++)
        zmq_msg_close(&parts->messages[i]);
}

bytes_t host_part(parts_t *parts, int index)
{
    if (index >= parts->count)
        return (bytes_t){0};
    return (bytes_t){zmq_msg_data(&parts->messages[index]), zmq_msg_size(&parts->messages[index])};
}

/* In a batch only calls are for the actor. */
static bool may_enter_batch(bytes_t header)
{
    bytes_t kind;
    return mp_get(header, "kind", &kind) && mp_equals(kind, "call");
}

bool host_on_router(node_t *node, void *router, bool in_batch)
{
    parts_t parts;
    uint8_t far[] = {ROUTE_FAR, node->far_life}, near[] = {ROUTE_SOCKET};
    const uint8_t *kind = router == node->far_router ? far : near;
    size_t kind_size = router == node->far_router ? sizeof(far) : sizeof(near);
    for (int i = 0; i < DRAIN_FRAMES; i++) {
        if (!host_receive(router, &parts))
            return true;
        bytes_t identity = host_part(&parts, 0);
        route_t route = {.size = (uint8_t)(identity.size + kind_size)};
        if (parts.count >= 2 && !parts.more && identity.size + kind_size <= sizeof(route.data)) {
            memcpy(route.data, kind, kind_size);
            memcpy(route.data + kind_size, identity.data, identity.size);
            if (in_batch && !may_enter_batch(host_part(&parts, 1)))
                send_inside(node->loop, host_place_of(node), &route, host_part(&parts, 1),
                            host_part(&parts, 2));
            else
                actor_on_frame(node->actor, &route, host_part(&parts, 1), host_part(&parts, 2));
        }
        host_parts_close(&parts);
    }
    return false;
}

bool host_on_dealer(node_t *node, link_t *link)
{
    parts_t parts;
    for (int i = 0; i < DRAIN_FRAMES; i++) {
        if (!host_receive(link->socket, &parts))
            return true;
        if (!parts.more)
            actor_on_frame(node->actor, NULL, host_part(&parts, 0), host_part(&parts, 1));
        host_parts_close(&parts);
    }
    return false;
}

bool host_on_event(node_t *node, link_t *link)
{
    parts_t parts;
    for (int i = 0; i < DRAIN_FRAMES; i++) {
        if (!host_receive(link->socket, &parts))
            return true;
        actor_on_frame(node->actor, NULL, host_part(&parts, 1), host_part(&parts, 2));
        host_parts_close(&parts);
    }
    return false;
}

static void deliver(loop_t *loop, letter_t *letter)
{
    actor_on_frame(loop->nodes[letter->to.place].actor, letter->has_route ? &letter->route : NULL,
                   letter->header, letter->body);
    free(letter);
}

void host_deliver_all(loop_t *loop, letter_t *letter)
{
    while (letter) {
        letter_t *next = letter->next;
        deliver(loop, letter);
        letter = next;
    }
}

void host_deliver_local(loop_t *loop)
{
    letter_t *all = loop->inbox;
    loop->inbox = NULL;
    loop->inbox_end = &loop->inbox;
    host_deliver_all(loop, all);
}

void host_on_box(node_t *node)
{
    loop_t *loop = node->loop;
    for (letter_t *letter = mailbox_take(loop->box), *next; letter; letter = next) {
        next = letter->next;
        if (letter->to.place == host_place_of(node) && letter->has_route &&
            may_enter_batch(letter->header))
            deliver(loop, letter);
        else
            deliver_later(loop, letter);
    }
}
