/* Brief calls: run on the thread of their caller while the actor's own thread sleeps. The caller
 * has other things to do than to wait for us, so a method whose row promises too much (pages that
 * must come from the disk are enough) goes back to the actor's thread for a while, each time for
 * longer. A thread that was only put aside by the system looks the same: one such call is forgiven.
 */
#include <string.h>

#include "bus/inside.h"

enum {
    OVERLONG_US = 2000,
    FAR_TOO_LONG_US = 50000,
    FORGIVEN = 300,     /* overlong calls count 100, and each one that is not takes 1 off */
    KEEP_US = 10000000, /* at first */
    KEEP_DOUBLINGS = 5
};

static const method_t *brief_method(const actor_t *actor, const char *name)
{
    for (const method_t *method = actor->methods; method->name; method++)
        if ((method->flags & BRIEF) && !strcmp(name, method->name))
            return method;
    return NULL;
}

static void look_at_time(method_stats_t *stats, int64_t began, int64_t now)
{
    if (now - began < OVERLONG_US) {
        stats->overlong -= stats->overlong > 0;
        return;
    }
    stats->overlong += 100;
    if (now - began < FAR_TOO_LONG_US && stats->overlong < FORGIVEN)
        return;
    stats->overlong = 0;
    stats->kept_until_us = now + ((int64_t)KEEP_US << stats->kept);
    stats->kept += stats->kept < KEEP_DOUBLINGS;
}

bool actor_serve_brief(actor_t *actor, const route_t *route, const header_t *header, bytes_t body)
{
    if (actor->failed || actor->in_batch || actor->queue || body.size > FRAME_BODY_LARGEST)
        return false;
    const method_t *method = brief_method(actor, header->method);
    if (!method)
        return false;
    method_stats_t *stats = &actor->stats[method - actor->methods];
    int64_t began = actor_mono_us(actor);
    if (began < stats->kept_until_us)
        return false;
    actor->lent = true;
    inside_take_header(actor, route, header, body);
    if (actor->queue)
        inside_run_queue(actor);
    actor->lent = false;
    look_at_time(stats, began, actor_mono_us(actor));
    return true;
}
