/* A loop: a thread with one or more actors, what it waits for and what it does in a turn. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bus/host_parts.h"

enum {
    STEPS = 2,        /* batches in a turn */
    SPARES_MOST = 64, /* arenas; as many as requests are under way at once */
    LONGEST_WAIT_MS = 60000
};

static void add_source(loop_t *loop, void *socket, int fd)
{
    if (loop->source_count == loop->source_capacity) {
        loop->source_capacity = loop->source_capacity ? loop->source_capacity * 2 : 16;
        loop->sources = realloc(loop->sources, loop->source_capacity * sizeof(source_t));
        loop->fds = realloc(loop->fds, loop->source_capacity * sizeof(struct pollfd));
        if (!loop->sources || !loop->fds)
            abort();
    }
    size_t size = sizeof(fd);
    if (socket)
        zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
    loop->fds[loop->source_count] = (struct pollfd){.fd = fd, .events = POLLIN};
    loop->sources[loop->source_count++] = (source_t){.socket = socket, .doubt = socket != NULL};
}

static void add_node(loop_t *loop, node_t *node)
{
    add_source(loop, node->router, -1);
    if (node->far_router)
        add_source(loop, node->far_router, -1);
    for (link_t *link = node->links; link; link = link->next) {
        if (link->socket)
            add_source(loop, link->socket, -1);
        if (link->monitor)
            add_source(loop, link->monitor, -1);
    }
    for (fd_watch_t *watch = node->watches; watch; watch = watch->next)
        add_source(loop, NULL, watch->fd);
}

static void renew_sources(loop_t *loop)
{
    loop->polls_stale = false;
    loop->source_count = 0;
    add_source(loop, NULL, loop->wake);
    if (loop->children)
        add_source(loop, NULL, children_fd(loop->children));
    if (loop->http)
        add_source(loop, NULL, http_client_fd(loop->http));
    for (size_t i = 0; i < loop->node_count; i++)
        add_node(loop, &loop->nodes[i]);
}

/* Who sleeps lends itself. */
static int poll_sources(loop_t *loop, long timeout_ms)
{
    if (!timeout_ms)
        return poll(loop->fds, (nfds_t)loop->source_count, 0);
    mailbox_lend(loop->box, loop->box_life, loop);
    int count = poll(loop->fds, (nfds_t)loop->source_count, (int)timeout_ms);
    mailbox_take_back(loop->box);
    return count;
}

/* Marks the sources that are ready; those in doubt are asked first, and then nobody waits. */
static void wait_for_sources(loop_t *loop, long timeout_ms)
{
    if (loop->polls_stale)
        renew_sources(loop);
    for (size_t i = 0; i < loop->source_count; i++) {
        source_t *source = &loop->sources[i];
        int events = 0;
        size_t size = sizeof(events);
        source->ready = false;
        if (!source->doubt)
            continue;
        zmq_getsockopt(source->socket, ZMQ_EVENTS, &events, &size);
        source->ready = source->doubt = (events & ZMQ_POLLIN) != 0;
        if (source->ready)
            timeout_ms = 0;
    }
    if (poll_sources(loop, timeout_ms) <= 0)
        return;
    for (size_t i = 0; i < loop->source_count; i++)
        loop->sources[i].ready = loop->sources[i].ready || loop->fds[i].revents;
}

static void on_wake(loop_t *loop)
{
    eventfd_t count;
    if (!loop->woken)
        eventfd_read(loop->wake, &count);
    loop->woken = false;
    host_collect_reads(loop);
    unsigned births = atomic_load(&loop->host->births);
    if (loop->births == births)
        return;
    loop->births = births;
    for (size_t i = 0; i < loop->node_count; i++)
        host_renew_links(&loop->nodes[i]);
}

static void on_ready_fd(loop_t *loop, int fd)
{
    if (fd == loop->wake) {
        on_wake(loop);
    } else if (loop->children && fd == children_fd(loop->children)) {
        children_on_readable(loop->children);
    } else if (loop->http && fd == http_client_fd(loop->http)) {
        http_client_on_readable(loop->http);
    } else {
        for (size_t i = 0; i < loop->node_count; i++)
            for (fd_watch_t *watch = loop->nodes[i].watches; watch; watch = watch->next)
                if (watch->fd == fd) {
                    watch->fn(watch->ctx);
                    return; /* the list may have changed */
                }
    }
}

static bool on_ready_socket(loop_t *loop, void *socket)
{
    for (size_t i = 0; i < loop->node_count; i++) {
        node_t *node = &loop->nodes[i];
        if (socket == node->router || socket == node->far_router)
            return host_on_router(node, socket, false);
        for (link_t *link = node->links; link; link = link->next) {
            if (socket == link->socket)
                return link->event ? host_on_event(node, link) : host_on_dealer(node, link);
            if (socket == link->monitor) {
                host_on_monitor(node, link);
                return true;
            }
        }
    }
    return true;
}

/* Those that are left when the list is stale are ready again in the next turn. */
static void attend_sources(loop_t *loop)
{
    for (size_t i = 0; i < loop->source_count && !loop->polls_stale; i++) {
        source_t *source = &loop->sources[i];
        if (!source->ready)
            continue;
        if (source->socket)
            source->doubt = !on_ready_socket(loop, source->socket);
        else
            on_ready_fd(loop, loop->fds[i].fd);
    }
}

static long poll_timeout(loop_t *loop)
{
    if (loop->inbox || loop->woken)
        return 0;
    int64_t next = loop->retries ? host_retry_links(loop) : INT64_MAX;
    for (size_t i = 0; i < loop->node_count; i++) {
        actor_t *actor = loop->nodes[i].actor;
        int64_t far = host_tend_far(&loop->nodes[i]);
        if (far < next)
            next = far;
        if (actor_ready(actor) || loop->nodes[i].after)
            return 0;
        if (actor_next_us(actor) < next)
            next = actor_next_us(actor);
    }
    int64_t now = host_clock_us(CLOCK_MONOTONIC);
    int64_t wait = LONGEST_WAIT_MS;
    if (next != INT64_MAX && (next - now + 999) / 1000 < wait)
        wait = next > now ? (next - now + 999) / 1000 : 0;
    return (long)wait;
}

/* What a batch leaves to be done at once is done before anything is asked of the kernel. */
static void step_all(loop_t *loop)
{
    bool any = true;
    for (int round = 0; any && round < STEPS; round++) {
        any = false;
        for (size_t i = 0; i < loop->node_count; i++)
            if (actor_ready(loop->nodes[i].actor)) {
                any = true;
                actor_step(loop->nodes[i].actor);
            }
    }
}

static void run_after(loop_t *loop)
{
    for (size_t i = 0; i < loop->node_count; i++) {
        void (*after)(void *ctx) = loop->nodes[i].after;
        loop->nodes[i].after = NULL;
        if (after)
            after(loop->nodes[i].after_ctx);
    }
}

static void do_all(loop_t *loop)
{
    host_deliver_local(loop);
    host_deliver_all(loop, mailbox_take(loop->box));
    step_all(loop);
    run_after(loop);
    host_empty_outbox(loop);
}

static void turn(loop_t *loop)
{
    long timeout = poll_timeout(loop); /* may connect a link again */
    if (timeout && !mailbox_sleep(loop->box))
        timeout = 0;
    wait_for_sources(loop, timeout);
    watched_begin(loop->watched);
    attend_sources(loop);
    if (loop->woken)
        on_wake(loop);
    do_all(loop);
    watched_end(loop->watched);
}

static bool all_idle(loop_t *loop)
{
    for (size_t i = 0; i < loop->node_count; i++)
        if (!actor_idle(loop->nodes[i].actor))
            return false;
    return !loop->inbox;
}

static void drain(loop_t *loop)
{
    int64_t end = host_clock_us(CLOCK_MONOTONIC) + (int64_t)atomic_load(&loop->drain_ms) * 1000;
    for (size_t i = 0; i < loop->node_count; i++)
        actor_drain(loop->nodes[i].actor);
    while (!all_idle(loop) && host_clock_us(CLOCK_MONOTONIC) < end) {
        /* Ask again now and then: `drained` has no event of its own. */
        wait_for_sources(loop, !loop->inbox && mailbox_sleep(loop->box) ? 5 : 0);
        attend_sources(loop);
        do_all(loop);
    }
}

/* ---- The life of a loop, on its own thread ---- */

/* The queue and what belongs to it have one writer in a cluster, whatever volume is mounted. */
static err_t may_own(const node_t *node, arena_t *arena)
{
    const place_t *place = curve_place(node->loop->host->curve);
    if (!node->def->tables || !place_forwards(place, node->def->name))
        return err_ok();
    return err_make(arena, ERR_OWNED,
                    "%s is replica %d: only ordinal 0 owns the store of '%s'; `agency run %s` "
                    "forwards to it",
                    place->settings.pod, place->ordinal, node->def->name, node->def->name);
}

static err_t open_node(node_t *node, arena_t *arena)
{
    host_t *host = node->loop->host;
    actor_options_t options = {.data_dir = host->data_dir,
                               .instance = node->instance,
                               .default_company = host->options.default_company,
                               .settings = host->options.settings,
                               .environment = host->options.environment,
                               .store_fault = host->options.store_fault};
    err_t err = may_own(node, arena);
    if (err_is(err))
        return err;
    /* The store first: its lock tells whether another process has this door. */
    err = actor_open(node->def, &node->env, &options, arena, &node->actor);
    if (!err_is(err))
        err = host_bind_doors(node, arena);
    if (!err_is(err))
        host_set_up(node);
    return err;
}

static void close_node(node_t *node)
{
    host_set_down(node);
    if (node->actor) {
        if (atomic_load(&node->loop->host->failed))
            actor_abandon(&node->actor);
        else
            actor_close(&node->actor);
    }
    while (node->links) {
        link_t *link = node->links;
        node->links = link->next;
        host_link_free(link);
    }
    while (node->watches) {
        fd_watch_t *watch = node->watches;
        node->watches = watch->next;
        free(watch);
    }
    host_leave_doors(node);
    host_close_far(node);
    free(node->instance);
}

static void tell_start(loop_t *loop, err_t err)
{
    pthread_mutex_lock(&loop->start_mutex);
    loop->start_err =
        err_is(err) ? err_make(loop->start_arena, err.code, "%s", err_what(err)) : err;
    loop->start_done = true;
    pthread_cond_signal(&loop->start_cond);
    pthread_mutex_unlock(&loop->start_mutex);
}

static void close_loop(loop_t *loop)
{
    host_stop_readers(loop);
    for (size_t i = 0; i < loop->node_count; i++)
        close_node(&loop->nodes[i]);
    host_empty_outbox(loop);
    while (loop->inbox) {
        letter_t *letter = loop->inbox;
        loop->inbox = letter->next;
        free(letter);
    }
    host_drop_foreigns(loop);
    children_destroy(&loop->children);
    http_client_destroy(&loop->http);
    free(loop->sources);
    free(loop->fds);
}

void *host_loop_main(void *arg)
{
    loop_t *loop = arg;
    mailbox_take_back(loop->box);
    arena_spares(SPARES_MOST);
    arena_t *arena = arena_new();
    err_t err = err_ok();
    host_start_readers(loop);
    for (size_t i = 0; i < loop->node_count && !err_is(err); i++)
        err = open_node(&loop->nodes[i], arena);
    bool up = !err_is(err);
    tell_start(loop, err);
    arena_destroy(&arena);
    loop->polls_stale = true;
    if (up)
        loop->watched = watchdog_add(loop->host->watchdog, loop->nodes[0].instance);
    while (up && !atomic_load(&loop->stopping))
        turn(loop);
    watchdog_remove(loop->host->watchdog, &loop->watched);
    if (up && !atomic_load(&loop->host->failed))
        drain(loop);
    close_loop(loop);
    mailbox_lend(loop->box, 0, NULL);
    arena_spares(0);
    return NULL;
}
