/* Lending: a call that is brief, to a loop of this process that sleeps, is served on the thread of
 * its caller; nobody is woken. To hand it over and its answer back costs several times what a brief
 * handler does, and two processors.
 *
 * The loop belongs to whoever has its turn (bus/mailbox.h). A borrower runs one call, no timers and
 * nothing that waits; when it leaves something that the sleeper does not know of, it wakes it. It
 * never waits for a turn, and borrows one loop at a time, so nobody can wait in a circle. */
#include <sys/eventfd.h>

#include "bus/host_parts.h"

static bool in_doubt(const loop_t *loop)
{
    for (size_t i = 0; i < loop->source_count; i++)
        if (loop->sources[i].doubt)
            return true;
    return false;
}

/* Something that it must look at before it goes on sleeping. */
static bool stirred(loop_t *loop, int64_t next_us, const actor_t *actor)
{
    return loop->inbox || loop->polls_stale || actor_ready(actor) ||
           actor_next_us(actor) < next_us || in_doubt(loop);
}

bool host_env_call_here(actor_env_t *env, const char *peer, const header_t *header, bytes_t body)
{
    node_t *from = (node_t *)env;
    if (from->loop->borrower || host_neighbour(from->loop, peer))
        return false;
    const link_t *link = host_link_to(from, peer);
    const address_t to = link->here;
    loop_t *loop = !link->socket && to.box ? mailbox_borrow(&to) : NULL;
    if (!loop)
        return false;
    actor_t *actor = loop->nodes[to.place].actor;
    int64_t next_us = actor_next_us(actor);
    route_t route = host_route_to(from);
    loop->borrower = from;
    bool served = actor_serve_brief(actor, &route, header, body);
    host_empty_outbox(loop);
    loop->borrower = NULL;
    bool wake = served && stirred(loop, next_us, actor);
    mailbox_give_back(&to);
    if (wake)
        eventfd_write(mailbox_fd(to.box), 1);
    return served;
}

/* One that comes later, or is for another, goes by mailbox. */
bool host_env_answer_here(actor_env_t *env, const route_t *route, const header_t *header,
                          bytes_t body)
{
    const node_t *borrower = ((node_t *)env)->loop->borrower;
    if (!borrower || !host_is_route_to(route, borrower))
        return false;
    actor_on_answer(borrower->actor, header, body);
    return true;
}
