#include "bus/host.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "bus/address.h"
#include "bus/child.h"
#include "bus/curve.h"
#include "bus/handover.h"
#include "bus/http_client.h"
#include "bus/log.h"
#include "bus/mailbox.h"
#include "bus/settings.h"
#include "bus/watchdog.h"
#include "proto/mp.h"

enum {
    DRAIN_FRAMES = 256,
    STEPS = 2, /* batches in a turn */
    INPROC_HWM = 20000,
    SPARES_MOST = 64, /* arenas; as many as requests are under way at once */
    LONGEST_WAIT_MS = 60000,
    RECONNECT_MS = 20,
    RETRY_LEAST_MS = 100,
    TOPICS_MOST = 16,
    FAR_LOOK_MS = 1000, /* for keys that were taken off the list */
    FAR_WAIT_MS = 3000,
    FAR_AGAIN_MS = 20, /* a port is free a moment after its socket was closed */
    ATTEND_MS = 1000
};

typedef struct loop loop_t;
typedef struct node node_t;

#define HANDSHAKE_FAILED                                                                           \
    (ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                       \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)

/* One connection to a peer's call door, or to that of its events. */
typedef struct link {
    struct link *next;
    char *peer;
    bool event;
    void *socket;  /* NULL: see `here` */
    void *monitor; /* NULL: nobody needs to know when it breaks */
    bool inproc;
    address_t here;            /* of a call door in this process, which needs no socket */
    char *topics[TOPICS_MOST]; /* of events */
    int topic_count;
    /* tcp: libzmq knocks no more after it was refused, and knows one key only. So do we it. */
    bool shaken;         /* the handshake has succeeded */
    bool refused;        /* and it was said */
    uint64_t keys;       /* of the peer, when it was connected */
    unsigned attempt;    /* chooses the key; since the last handshake that succeeded */
    int64_t retry_us;    /* 0: not planned */
    unsigned generation; /* of the peer in this host */
    unsigned lives;      /* how often it was connected */
} link_t;

typedef struct fd_watch {
    struct fd_watch *next;
    int fd;
    void (*fn)(void *ctx);
    void *ctx;
} fd_watch_t;

/* A child or an HTTP request under way. */
typedef struct foreign {
    struct foreign *next;
    node_t *node;
    uint64_t token;
    child_t *child;
    http_transfer_t *transfer;
} foreign_t;

typedef struct read_job {
    struct read_job *next;
    node_t *node;
    uint64_t token;
    void (*job)(void *ctx);
    void *ctx;
} read_job_t;

/* One actor in a loop, with its doors. */
struct node {
    actor_env_t env; /* first: the env is the node */
    loop_t *loop;
    const actor_def_t *def;
    char *instance;
    actor_t *actor;
    void *router, *publisher;
    /* The same for other machines; NULL: none, or just being made anew. */
    void *far_router, *far_publisher;
    uint8_t far_life;
    unsigned far_cuts;
    int64_t far_retry_us; /* 0: they are there */
    link_t *links;
    fd_watch_t *watches;
    uint64_t random_state;
};

/* What the loop waits for: a socket, or a plain descriptor.
 *
 * zmq_poll asks each socket anew in each turn, which is two system calls a socket. We wait for the
 * descriptors of the sockets and ask only those that are in doubt. Such a descriptor becomes
 * readable once and may be read by any call on the socket, a send included; so a socket is in doubt
 * from any such call until it was drained (a receive found nothing) or says that it has nothing. */
typedef struct source {
    void *socket; /* NULL: a plain descriptor */
    bool doubt;
    bool ready;
} source_t;

struct loop {
    loop_t *next;
    host_t *host;
    pthread_t thread;
    bool started;
    node_t *nodes;
    size_t node_count;
    mailbox_t *box; /* what other loops send */
    uint32_t box_life;
    letter_t *inbox, **inbox_end;   /* what is to be delivered in the next turn */
    letter_t *outbox, **outbox_end; /* what leaves at the end of this one */
    children_t *children;
    http_client_t *http;
    foreign_t *foreigns;
    watched_t *watched;
    int wake; /* of the box: letters, stop, reads that are done, peers that came or went */
    atomic_bool stopping;
    atomic_int drain_ms;
    bool polls_stale, retries; /* a link is to be connected again some time */
    bool woken;                /* by what env_attend left for the next turn */
    unsigned births;           /* of the host, when the links were last looked at */
    source_t *sources;
    struct pollfd *fds; /* one for each source */
    size_t source_count, source_capacity;
    /* Reader threads. The mutex guards the two lists; it is the only one in the loop, and the
     * actor's thread holds it only to move a pointer. */
    pthread_mutex_t read_mutex;
    pthread_cond_t read_cond;
    read_job_t *read_queue, **read_queue_end, *read_done;
    pthread_t *readers;
    size_t reader_count;
    bool readers_stop;
    /* How the start went. */
    pthread_mutex_t start_mutex;
    pthread_cond_t start_cond;
    bool start_done;
    err_t start_err;
    arena_t *start_arena;
};

typedef struct generation {
    struct generation *next;
    char *instance;
    unsigned count;
    address_t at; /* of the last one, while it lives */
} generation_t;

/* Boxes are used again, since letters to a loop that has ended may still be on their way. */
typedef struct box {
    struct box *next;
    mailbox_t *mailbox;
} box_t;

struct host {
    arena_t *arena;
    host_options_t options;
    const char *data_dir, *run_dir, *prefix;
    void *context;
    curve_t *curve;
    loop_t *loops;
    watchdog_t *watchdog;
    atomic_bool failed;
    int fail_fd;
    /* Who lives here: read by all loops when they connect. */
    pthread_mutex_t mutex;
    generation_t *generations;
    box_t *boxes;
    atomic_uint births; /* all generations together */
};

/* ---- Clocks, randomness, log ---- */

static int64_t clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t env_wall_ms(actor_env_t *env)
{
    (void)env;
    return clock_us(CLOCK_REALTIME) / 1000;
}

static int64_t env_mono_us(actor_env_t *env)
{
    (void)env;
    return clock_us(CLOCK_MONOTONIC);
}

static void env_random(actor_env_t *env, void *data, size_t size)
{
    (void)env;
    for (size_t done = 0; done < size;) {
        ssize_t got = getrandom((char *)data + done, size - done, 0);
        if (got < 0 && errno != EINTR)
            abort();
        if (got > 0)
            done += (size_t)got;
    }
}

static void env_log(actor_env_t *env, log_level_t level, const char *text)
{
    const node_t *node = (const node_t *)env;
    if (level >= node->loop->host->options.log_level)
        log_line(STDERR_FILENO, level, node->instance, text);
}

/* ---- Who lives in this host ---- */

static generation_t *generation_of(host_t *host, const char *instance)
{
    generation_t *at = host->generations;
    while (at && strcmp(at->instance, instance) != 0)
        at = at->next;
    return at;
}

unsigned host_generation(host_t *host, const char *instance)
{
    pthread_mutex_lock(&host->mutex);
    generation_t *at = generation_of(host, instance);
    unsigned count = at ? at->count : 0;
    pthread_mutex_unlock(&host->mutex);
    return count;
}

static void wake_all(host_t *host)
{
    for (loop_t *loop = host->loops; loop; loop = loop->next)
        eventfd_write(loop->wake, 1);
}

static uint8_t place_of(const node_t *node)
{
    return (uint8_t)(node - node->loop->nodes);
}

static address_t address_of(const node_t *node)
{
    return (address_t){
        .box = node->loop->box, .life = node->loop->box_life, .place = place_of(node)};
}

static void set_up(const node_t *node)
{
    host_t *host = node->loop->host;
    pthread_mutex_lock(&host->mutex);
    generation_t *at = generation_of(host, node->instance);
    if (!at) {
        at = calloc(1, sizeof(*at));
        if (!at || !(at->instance = strdup(node->instance)))
            abort();
        at->next = host->generations;
        host->generations = at;
    }
    at->count++;
    at->at = address_of(node);
    pthread_mutex_unlock(&host->mutex);
    atomic_fetch_add(&host->births, 1);
    wake_all(host);
}

static void set_down(const node_t *node)
{
    host_t *host = node->loop->host;
    pthread_mutex_lock(&host->mutex);
    generation_t *at = generation_of(host, node->instance);
    if (at && at->at.box == node->loop->box)
        at->at.box = NULL;
    pthread_mutex_unlock(&host->mutex);
}

static unsigned find_here(host_t *host, const char *instance, address_t *here)
{
    pthread_mutex_lock(&host->mutex);
    const generation_t *at = generation_of(host, instance);
    unsigned count = at ? at->count : 0;
    *here = at ? at->at : (address_t){0};
    pthread_mutex_unlock(&host->mutex);
    return count;
}

static mailbox_t *take_box(host_t *host, uint32_t *life)
{
    *life = 0;
    pthread_mutex_lock(&host->mutex);
    box_t *box = host->boxes;
    while (box && !(*life = mailbox_open(box->mailbox)))
        box = box->next;
    if (!box) {
        box = calloc(1, sizeof(*box));
        if (!box)
            abort();
        box->mailbox = mailbox_new();
        box->next = host->boxes;
        host->boxes = box;
        *life = mailbox_open(box->mailbox);
    }
    pthread_mutex_unlock(&host->mutex);
    return box->mailbox;
}

/* ---- Links to peers ---- */

static void *new_socket(host_t *host, int type)
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
    link->generation = find_here(host, link->peer, &link->here);
    node->loop->polls_stale = true;
    if (link->inproc && !link->event)
        return; /* before the peer has begun, what is sent is dropped and later sent again */
    link->here.box = NULL;
    link->socket = new_socket(host, link->event ? ZMQ_SUB : ZMQ_DEALER);
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

static void link_free(link_t *link)
{
    disconnect_link(link);
    for (int i = 0; i < link->topic_count; i++)
        free(link->topics[i]);
    free(link->peer);
    free(link);
}

static link_t *find_link(const node_t *node, const char *peer, bool event)
{
    link_t *link = node->links;
    while (link && (link->event != event || strcmp(link->peer, peer) != 0))
        link = link->next;
    return link;
}

static link_t *new_link(node_t *node, const char *peer, bool event, const char *topic)
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

static link_t *link_to(node_t *node, const char *peer)
{
    link_t *link = find_link(node, peer, false);
    return link ? link : new_link(node, peer, false, NULL);
}

/* Calls that were under way are sent again; events are hints. */
static void tell_lost(node_t *node, const link_t *link)
{
    if (!link->event)
        actor_on_lost(node->actor, link->peer);
}

/* An inproc connection does not come back by itself when the peer is started again. */
static void renew_links(node_t *node)
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

/* ---- Sending ---- */

/* A call on this socket may have read its descriptor. */
static void touch(loop_t *loop, const void *socket)
{
    for (size_t i = 0; i < loop->source_count; i++)
        if (loop->sources[i].socket == socket)
            loop->sources[i].doubt = true;
}

static void send_parts(loop_t *loop, void *socket, const void *first, size_t first_size,
                       bytes_t header, bytes_t body)
{
    touch(loop, socket);
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

static void empty_outbox(loop_t *loop)
{
    letter_t *letter = loop->outbox;
    loop->outbox = NULL;
    loop->outbox_end = &loop->outbox;
    while (letter) {
        letter_t *next = letter->next;
        letter->next = NULL;
        mailbox_post(letter);
        letter = next;
    }
}

/* What many requests of one turn send wakes the other loop once. Not so for an actor that keeps
 * something: it may sync before the turn ends, and nobody shall wait for that who need not. */
static void send_away(const node_t *from, letter_t *letter)
{
    loop_t *loop = from->loop;
    if (from->def->tables) {
        mailbox_post(letter);
        return;
    }
    *loop->outbox_end = letter;
    loop->outbox_end = &letter->next;
}

enum { ROUTE_SOCKET = 0, ROUTE_LOCAL = 1, ROUTE_FAR = 2, ROUTE_BOX = 3 };

static void send_box(const node_t *from, const address_t *to, bytes_t header, bytes_t body)
{
    address_t back = address_of(from);
    route_t route = {.size = 1 + sizeof(back), .data = {ROUTE_BOX}};
    memcpy(route.data + 1, &back, sizeof(back));
    if (to->box)
        send_away(from, letter_new(to, &route, header, body));
}

static void send_box_back(const node_t *from, const route_t *route, bytes_t header, bytes_t body)
{
    address_t to;
    memcpy(&to, route->data + 1, sizeof(to));
    send_away(from, letter_new(&to, NULL, header, body));
}

static node_t *neighbour(const loop_t *loop, const char *instance)
{
    for (size_t i = 0; i < loop->node_count; i++)
        if (!strcmp(loop->nodes[i].instance, instance))
            return &loop->nodes[i];
    return NULL;
}

static void env_send(actor_env_t *env, const char *peer, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env;
    node_t *near = neighbour(node->loop, peer);
    if (near) {
        route_t route = {.size = 2, .data = {ROUTE_LOCAL, place_of(node)}};
        send_inside(node->loop, place_of(near), &route, header, body);
        return;
    }
    const link_t *link = link_to(node, peer);
    if (link->socket)
        send_parts(node->loop, link->socket, NULL, 0, header, body);
    else
        send_box(node, &link->here, header, body);
}

static void env_send_back(actor_env_t *env, const route_t *route, bytes_t header, bytes_t body)
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

static void env_publish(actor_env_t *env, const char *topic, bytes_t header, bytes_t body)
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

static void env_subscribe(actor_env_t *env, const char *publisher, const char *topic)
{
    node_t *node = (node_t *)env;
    if (neighbour(node->loop, publisher))
        return; /* handed over inside the loop */
    link_t *link = find_link(node, publisher, true);
    if (!link) {
        new_link(node, publisher, true, topic);
        return;
    }
    if (link->topic_count == TOPICS_MOST || !(link->topics[link->topic_count++] = strdup(topic)))
        abort();
    touch(node->loop, link->socket);
    zmq_setsockopt(link->socket, ZMQ_SUBSCRIBE, topic, strlen(topic));
}

/* ---- Children and HTTP ---- */

static foreign_t *foreign_new(node_t *node, uint64_t token)
{
    foreign_t *foreign = calloc(1, sizeof(*foreign));
    if (!foreign)
        abort();
    foreign->node = node;
    foreign->token = token;
    foreign->next = node->loop->foreigns;
    node->loop->foreigns = foreign;
    return foreign;
}

static foreign_t *foreign_find(node_t *node, uint64_t token)
{
    foreign_t *at = node->loop->foreigns;
    while (at && (at->node != node || at->token != token))
        at = at->next;
    return at;
}

static void foreign_drop(foreign_t *foreign)
{
    foreign_t **at = &foreign->node->loop->foreigns;
    while (*at != foreign)
        at = &(*at)->next;
    *at = foreign->next;
    free(foreign);
}

static void on_child_done(void *ctx, const child_outcome_t *outcome)
{
    foreign_t *foreign = ctx;
    actor_on_child(foreign->node->actor, foreign->token, outcome);
    foreign_drop(foreign);
}

static void env_child_start(actor_env_t *env, uint64_t token, const child_request_t *request)
{
    node_t *node = (node_t *)env;
    loop_t *loop = node->loop;
    if (!loop->children) {
        loop->children = children_new();
        loop->polls_stale = true;
    }
    foreign_t *foreign = foreign_new(node, token);
    err_t err = child_start(loop->children, request, on_child_done, foreign, &foreign->child);
    if (!err_is(err))
        return;
    child_outcome_t outcome = {.err = err, .exit_status = -1};
    on_child_done(foreign, &outcome);
}

static void env_child_kill(actor_env_t *env, uint64_t token)
{
    foreign_t *foreign = foreign_find((node_t *)env, token);
    if (foreign && foreign->child)
        child_kill(foreign->child);
}

static void on_http_done(void *ctx, const http_call_outcome_t *outcome)
{
    foreign_t *foreign = ctx;
    actor_on_http(foreign->node->actor, foreign->token, outcome);
    foreign_drop(foreign);
}

static void env_http_start(actor_env_t *env, uint64_t token, const http_call_request_t *request)
{
    node_t *node = (node_t *)env;
    if (!node->loop->http) {
        node->loop->http = http_client_new();
        node->loop->polls_stale = true;
    }
    foreign_t *foreign = foreign_new(node, token);
    foreign->transfer = http_start(node->loop->http, request, on_http_done, foreign);
}

static void env_http_cancel(actor_env_t *env, uint64_t token)
{
    foreign_t *foreign = foreign_find((node_t *)env, token);
    if (!foreign || !foreign->transfer)
        return;
    http_cancel(foreign->transfer);
    foreign_drop(foreign);
}

/* ---- Reader threads ---- */

static void *reader_main(void *arg)
{
    loop_t *loop = arg;
    pthread_mutex_lock(&loop->read_mutex);
    for (;;) {
        while (!loop->read_queue && !loop->readers_stop)
            pthread_cond_wait(&loop->read_cond, &loop->read_mutex);
        if (!loop->read_queue)
            break;
        read_job_t *job = loop->read_queue;
        loop->read_queue = job->next;
        if (!loop->read_queue)
            loop->read_queue_end = &loop->read_queue;
        pthread_mutex_unlock(&loop->read_mutex);
        job->job(job->ctx);
        pthread_mutex_lock(&loop->read_mutex);
        bool first = !loop->read_done;
        job->next = loop->read_done;
        loop->read_done = job;
        if (first)
            eventfd_write(loop->wake, 1);
    }
    pthread_mutex_unlock(&loop->read_mutex);
    return NULL;
}

static void env_read_start(actor_env_t *env, uint64_t token, void (*job)(void *ctx), void *ctx)
{
    node_t *node = (node_t *)env;
    loop_t *loop = node->loop;
    read_job_t *read = calloc(1, sizeof(*read));
    if (!read)
        abort();
    *read = (read_job_t){.node = node, .token = token, .job = job, .ctx = ctx};
    pthread_mutex_lock(&loop->read_mutex);
    *loop->read_queue_end = read;
    loop->read_queue_end = &read->next;
    pthread_cond_signal(&loop->read_cond);
    pthread_mutex_unlock(&loop->read_mutex);
}

static void collect_reads(loop_t *loop)
{
    pthread_mutex_lock(&loop->read_mutex);
    read_job_t *done = loop->read_done;
    loop->read_done = NULL;
    pthread_mutex_unlock(&loop->read_mutex);
    while (done) {
        read_job_t *job = done;
        done = job->next;
        actor_on_read(job->node->actor, job->token);
        free(job);
    }
}

static bool on_router(node_t *node, void *router, bool in_batch);
static void on_box(node_t *node);

static void env_attend(actor_env_t *env, bool wait)
{
    node_t *node = (node_t *)env;
    loop_t *loop = node->loop;
    zmq_pollitem_t polls[] = {{.fd = loop->wake, .events = ZMQ_POLLIN},
                              {.socket = node->router, .events = ZMQ_POLLIN},
                              {.socket = node->far_router, .events = ZMQ_POLLIN}};
    int count = node->far_router ? 3 : 2;
    empty_outbox(loop);
    if (wait && zmq_poll(polls, count, mailbox_sleep(loop->box) ? ATTEND_MS : 0) > 0 &&
        polls[0].revents) {
        eventfd_t woken;
        eventfd_read(loop->wake, &woken);
        loop->woken = true;
    }
    collect_reads(loop);
    on_box(node);
    touch(loop, node->router);
    on_router(node, node->router, true);
    if (node->far_router) {
        touch(loop, node->far_router);
        on_router(node, node->far_router, true);
    }
}

static void env_wake(actor_env_t *env)
{
    eventfd_write(((node_t *)env)->loop->wake, 1);
}

static void start_readers(loop_t *loop)
{
    for (size_t i = 0; i < loop->node_count; i++)
        loop->reader_count += (size_t)loop->nodes[i].def->readers;
    loop->readers = calloc(loop->reader_count + 1, sizeof(pthread_t));
    for (size_t i = 0; i < loop->reader_count; i++)
        if (pthread_create(&loop->readers[i], NULL, reader_main, loop))
            abort();
}

static void stop_readers(loop_t *loop)
{
    pthread_mutex_lock(&loop->read_mutex);
    loop->readers_stop = true;
    pthread_cond_broadcast(&loop->read_cond);
    pthread_mutex_unlock(&loop->read_mutex);
    for (size_t i = 0; i < loop->reader_count; i++)
        pthread_join(loop->readers[i], NULL);
    free(loop->readers);
    collect_reads(loop);
}

/* ---- Descriptors and death ---- */

static void env_watch(actor_env_t *env, int fd, void (*fn)(void *ctx), void *ctx)
{
    node_t *node = (node_t *)env;
    node->loop->polls_stale = true;
    for (fd_watch_t **at = &node->watches; *at; at = &(*at)->next) {
        if ((*at)->fd != fd)
            continue;
        if (fn) {
            (*at)->fn = fn;
            (*at)->ctx = ctx;
        } else {
            fd_watch_t *gone = *at;
            *at = gone->next;
            free(gone);
        }
        return;
    }
    if (!fn)
        return;
    fd_watch_t *watch = calloc(1, sizeof(*watch));
    if (!watch)
        abort();
    *watch = (fd_watch_t){.next = node->watches, .fd = fd, .fn = fn, .ctx = ctx};
    node->watches = watch;
}

static void env_fatal(actor_env_t *env, err_t err)
{
    node_t *node = (node_t *)env;
    host_t *host = node->loop->host;
    log_line(STDERR_FILENO, LOG_ERROR, node->instance, err_what(err));
    atomic_store(&host->failed, true);
    eventfd_write(host->fail_fd, 1);
}

static void env_lag(actor_env_t *env, loop_lag_t *out)
{
    const loop_t *loop = ((const node_t *)env)->loop;
    *out = (loop_lag_t){.now_us = watchdog_lag_us(loop->host->watchdog),
                        .limit_us = watchdog_limit_us(loop->host->watchdog),
                        .worst_us = watched_worst_us(loop->watched)};
}

static const actor_env_ops_t host_ops = {
    .wall_ms = env_wall_ms,
    .mono_us = env_mono_us,
    .random = env_random,
    .send = env_send,
    .send_back = env_send_back,
    .publish = env_publish,
    .subscribe = env_subscribe,
    .child_start = env_child_start,
    .child_kill = env_child_kill,
    .http_start = env_http_start,
    .http_cancel = env_http_cancel,
    .read_start = env_read_start,
    .attend = env_attend,
    .wake = env_wake,
    .watch = env_watch,
    .lag = env_lag,
    .fatal = env_fatal,
    .log = env_log,
};

/* ---- Receiving ---- */

typedef struct parts {
    zmq_msg_t messages[3];
    int count;
    bool more; /* more than three: malformed */
} parts_t;

/* One whole multipart message; false when there is none. */
static bool receive(void *socket, parts_t *parts)
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

static void parts_close(parts_t *parts)
{
    for (int i = 0; i < parts->count; i++)
        zmq_msg_close(&parts->messages[i]);
}

static bytes_t part(parts_t *parts, int index)
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

/* These return whether the socket was drained: a receive found nothing. */
static bool on_router(node_t *node, void *router, bool in_batch)
{
    parts_t parts;
    uint8_t far[] = {ROUTE_FAR, node->far_life}, near[] = {ROUTE_SOCKET};
    const uint8_t *kind = router == node->far_router ? far : near;
    size_t kind_size = router == node->far_router ? sizeof(far) : sizeof(near);
    for (int i = 0; i < DRAIN_FRAMES; i++) {
        if (!receive(router, &parts))
            return true;
        bytes_t identity = part(&parts, 0);
        route_t route = {.size = (uint8_t)(identity.size + kind_size)};
        if (parts.count >= 2 && !parts.more && identity.size + kind_size <= sizeof(route.data)) {
            memcpy(route.data, kind, kind_size);
            memcpy(route.data + kind_size, identity.data, identity.size);
            if (in_batch && !may_enter_batch(part(&parts, 1)))
                send_inside(node->loop, place_of(node), &route, part(&parts, 1), part(&parts, 2));
            else
                actor_on_frame(node->actor, &route, part(&parts, 1), part(&parts, 2));
        }
        parts_close(&parts);
    }
    return false;
}

static bool on_dealer(node_t *node, link_t *link)
{
    parts_t parts;
    for (int i = 0; i < DRAIN_FRAMES; i++) {
        if (!receive(link->socket, &parts))
            return true;
        if (!parts.more)
            actor_on_frame(node->actor, NULL, part(&parts, 0), part(&parts, 1));
        parts_close(&parts);
    }
    return false;
}

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
        link->retry_us = clock_us(CLOCK_MONOTONIC) + (int64_t)delay_ms * 1000;
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

static void on_monitor(node_t *node, link_t *link)
{
    host_t *host = node->loop->host;
    parts_t parts;
    bool lost = false;
    while (receive(link->monitor, &parts)) {
        uint16_t event = 0;
        if (part(&parts, 0).size >= sizeof(event))
            memcpy(&event, part(&parts, 0).data, sizeof(event));
        if (event == ZMQ_EVENT_DISCONNECTED)
            lost = true;
        else
            on_handshake(node, link, event);
        parts_close(&parts);
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

/* Returns when the next one is due; INT64_MAX: none. */
static int64_t retry_links(loop_t *loop)
{
    int64_t next = INT64_MAX, now = clock_us(CLOCK_MONOTONIC);
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

static bool on_event(node_t *node, link_t *link)
{
    parts_t parts;
    for (int i = 0; i < DRAIN_FRAMES; i++) {
        if (!receive(link->socket, &parts))
            return true;
        actor_on_frame(node->actor, NULL, part(&parts, 1), part(&parts, 2));
        parts_close(&parts);
    }
    return false;
}

static void deliver(loop_t *loop, letter_t *letter)
{
    actor_on_frame(loop->nodes[letter->to.place].actor, letter->has_route ? &letter->route : NULL,
                   letter->header, letter->body);
    free(letter);
}

static void deliver_all(loop_t *loop, letter_t *letter)
{
    while (letter) {
        letter_t *next = letter->next;
        deliver(loop, letter);
        letter = next;
    }
}

static void deliver_local(loop_t *loop)
{
    letter_t *all = loop->inbox;
    loop->inbox = NULL;
    loop->inbox_end = &loop->inbox;
    deliver_all(loop, all);
}

/* In a batch. */
static void on_box(node_t *node)
{
    loop_t *loop = node->loop;
    for (letter_t *letter = mailbox_take(loop->box), *next; letter; letter = next) {
        next = letter->next;
        if (letter->to.place == place_of(node) && letter->has_route &&
            may_enter_batch(letter->header))
            deliver(loop, letter);
        else
            deliver_later(loop, letter);
    }
}

/* ---- Doors for other machines ---- */

static void close_far(node_t *node)
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
    node->far_router = new_socket(host, ZMQ_ROUTER);
    node->far_publisher = new_socket(host, ZMQ_PUB);
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
    int64_t end = clock_us(CLOCK_MONOTONIC) + FAR_WAIT_MS * 1000;
    err_t err = open_far(node, arena);
    while (err.code == ERR_BUSY && clock_us(CLOCK_MONOTONIC) < end) {
        close_far(node);
        zmq_poll(NULL, 0, FAR_AGAIN_MS);
        err = open_far(node, arena);
    }
    return err;
}

/* Whose key was taken off the list is cut off: new doors, to which the others come back. Returns
 * when to look again; INT64_MAX: never. */
static int64_t tend_far(node_t *node)
{
    host_t *host = node->loop->host;
    int64_t now = clock_us(CLOCK_MONOTONIC);
    if (!curve_serves(host->curve, node->instance))
        return INT64_MAX;
    if (node->far_cuts == curve_cuts(host->curve) && !node->far_retry_us)
        return now + FAR_LOOK_MS * 1000;
    if (node->far_retry_us > now)
        return node->far_retry_us;
    arena_t *arena = arena_new();
    close_far(node);
    node->far_retry_us = 0;
    if (err_is(open_far(node, arena))) {
        close_far(node);
        node->far_retry_us = now + FAR_AGAIN_MS * 1000;
    }
    arena_destroy(&arena);
    return node->far_retry_us ? node->far_retry_us : now + FAR_LOOK_MS * 1000;
}

/* ---- The loop ---- */

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
    if (poll(loop->fds, (nfds_t)loop->source_count, (int)timeout_ms) <= 0)
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
    collect_reads(loop);
    unsigned births = atomic_load(&loop->host->births);
    if (loop->births == births)
        return;
    loop->births = births;
    for (size_t i = 0; i < loop->node_count; i++)
        renew_links(&loop->nodes[i]);
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
            return on_router(node, socket, false);
        for (link_t *link = node->links; link; link = link->next) {
            if (socket == link->socket)
                return link->event ? on_event(node, link) : on_dealer(node, link);
            if (socket == link->monitor) {
                on_monitor(node, link);
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
    int64_t next = loop->retries ? retry_links(loop) : INT64_MAX;
    for (size_t i = 0; i < loop->node_count; i++) {
        actor_t *actor = loop->nodes[i].actor;
        int64_t far = tend_far(&loop->nodes[i]);
        if (far < next)
            next = far;
        if (actor_ready(actor))
            return 0;
        if (actor_next_us(actor) < next)
            next = actor_next_us(actor);
    }
    int64_t now = clock_us(CLOCK_MONOTONIC);
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
    deliver_local(loop);
    deliver_all(loop, mailbox_take(loop->box));
    step_all(loop);
    empty_outbox(loop);
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
    int64_t end = clock_us(CLOCK_MONOTONIC) + (int64_t)atomic_load(&loop->drain_ms) * 1000;
    for (size_t i = 0; i < loop->node_count; i++)
        actor_drain(loop->nodes[i].actor);
    while (!all_idle(loop) && clock_us(CLOCK_MONOTONIC) < end) {
        /* Ask again now and then: `drained` has no event of its own. */
        wait_for_sources(loop, !loop->inbox && mailbox_sleep(loop->box) ? 5 : 0);
        attend_sources(loop);
        deliver_local(loop);
        deliver_all(loop, mailbox_take(loop->box));
        step_all(loop);
        empty_outbox(loop);
    }
}

/* ---- Start and stop of a loop, on its own thread ---- */

static err_t bind_door(void *socket, const char *address, arena_t *arena)
{
    if (!zmq_bind(socket, address))
        return err_ok();
    return err_make(arena, ERR_IO, "cannot listen at %s: %s", address, zmq_strerror(zmq_errno()));
}

static err_t bind_doors(node_t *node, arena_t *arena)
{
    host_t *host = node->loop->host;
    err_t err = err_ok();
    node->router = new_socket(host, ZMQ_ROUTER);
    int mandatory = 1;
    zmq_setsockopt(node->router, ZMQ_ROUTER_MANDATORY, &mandatory, sizeof(mandatory));
    node->publisher = new_socket(host, ZMQ_PUB);
    for (transport_t at = TRANSPORT_INPROC; at <= host->options.transport && !err_is(err); at++) {
        const char *prefix = at == TRANSPORT_INPROC ? host->prefix : host->run_dir;
        err = bind_door(node->router, address_call(prefix, at, node->instance, arena), arena);
        if (!err_is(err))
            err =
                bind_door(node->publisher, address_event(prefix, at, node->instance, arena), arena);
    }
    return err_is(err) ? err : open_far_soon(node, arena);
}

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
        err = bind_doors(node, arena);
    if (!err_is(err))
        set_up(node);
    return err;
}

/* A closed socket gives its inproc name back only later; an unbound one at once, so that the actor
 * can be started again right away. */
static void leave_doors(node_t *node)
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

static void close_node(node_t *node)
{
    set_down(node);
    if (node->actor) {
        if (atomic_load(&node->loop->host->failed))
            actor_abandon(&node->actor);
        else
            actor_close(&node->actor);
    }
    while (node->links) {
        link_t *link = node->links;
        node->links = link->next;
        link_free(link);
    }
    while (node->watches) {
        fd_watch_t *watch = node->watches;
        node->watches = watch->next;
        free(watch);
    }
    leave_doors(node);
    close_far(node);
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
    stop_readers(loop);
    for (size_t i = 0; i < loop->node_count; i++)
        close_node(&loop->nodes[i]);
    empty_outbox(loop);
    while (loop->inbox) {
        letter_t *letter = loop->inbox;
        loop->inbox = letter->next;
        free(letter);
    }
    while (loop->foreigns)
        foreign_drop(loop->foreigns);
    children_destroy(&loop->children);
    http_client_destroy(&loop->http);
    free(loop->sources);
    free(loop->fds);
}

static void *loop_main(void *arg)
{
    loop_t *loop = arg;
    arena_spares(SPARES_MOST);
    arena_t *arena = arena_new();
    err_t err = err_ok();
    start_readers(loop);
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
    arena_spares(0);
    return NULL;
}

/* ---- The host ---- */

static loop_t *loop_new(host_t *host, const actor_def_t *const *defs, const char *instance,
                        size_t count)
{
    loop_t *loop = calloc(1, sizeof(*loop));
    if (!loop)
        abort();
    loop->host = host;
    loop->nodes = calloc(count, sizeof(node_t));
    loop->node_count = count;
    loop->inbox_end = &loop->inbox;
    loop->outbox_end = &loop->outbox;
    loop->read_queue_end = &loop->read_queue;
    loop->box = take_box(host, &loop->box_life);
    loop->wake = mailbox_fd(loop->box);
    loop->polls_stale = true;
    pthread_mutex_init(&loop->read_mutex, NULL);
    pthread_cond_init(&loop->read_cond, NULL);
    pthread_mutex_init(&loop->start_mutex, NULL);
    pthread_cond_init(&loop->start_cond, NULL);
    for (size_t i = 0; i < count; i++) {
        node_t *node = &loop->nodes[i];
        node->env.ops = &host_ops;
        node->loop = loop;
        node->def = defs[i];
        node->instance = strdup(instance ? instance : defs[i]->name);
    }
    return loop;
}

static void loop_free(loop_t *loop)
{
    mailbox_close(loop->box);
    pthread_mutex_destroy(&loop->read_mutex);
    pthread_cond_destroy(&loop->read_cond);
    pthread_mutex_destroy(&loop->start_mutex);
    pthread_cond_destroy(&loop->start_cond);
    free(loop->nodes);
    free(loop);
}

/* Signals belong to the main thread. */
static int start_thread(loop_t *loop)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&loop->thread, NULL, loop_main, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static err_t start_loop(host_t *host, loop_t *loop, arena_t *arena)
{
    loop->start_arena = arena;
    if (start_thread(loop)) {
        loop_free(loop);
        return err_of(ERR_INTERNAL, "cannot make a thread");
    }
    pthread_mutex_lock(&loop->start_mutex);
    while (!loop->start_done)
        pthread_cond_wait(&loop->start_cond, &loop->start_mutex);
    err_t err = loop->start_err;
    pthread_mutex_unlock(&loop->start_mutex);
    if (err_is(err)) {
        pthread_join(loop->thread, NULL);
        loop_free(loop);
        return err;
    }
    loop->next = host->loops;
    host->loops = loop;
    wake_all(host);
    return err_ok();
}

err_t host_start(host_t *host, const actor_def_t *def, const char *instance, arena_t *arena)
{
    return start_loop(host, loop_new(host, &def, instance, 1), arena);
}

err_t host_start_together(host_t *host, const actor_def_t *const *defs, size_t count,
                          arena_t *arena)
{
    return start_loop(host, loop_new(host, defs, NULL, count), arena);
}

static void stop_loop(loop_t *loop, int64_t drain_ms)
{
    atomic_store(&loop->drain_ms, (int)drain_ms);
    atomic_store(&loop->stopping, true);
    eventfd_write(loop->wake, 1);
    pthread_join(loop->thread, NULL);
    loop_free(loop);
}

void host_stop(host_t *host, const char *instance, int64_t drain_ms)
{
    for (loop_t **at = &host->loops; *at; at = &(*at)->next) {
        loop_t *loop = *at;
        if (!neighbour(loop, instance))
            continue;
        *at = loop->next;
        stop_loop(loop, drain_ms);
        return;
    }
}

static err_t make_dir(const char *path, mode_t mode, arena_t *arena)
{
    if (!mkdir(path, mode) || errno == EEXIST)
        return err_ok();
    return err_make(arena, ERR_IO,
                    "cannot make the directory %s: %s; choose another with --data or make it "
                    "writable",
                    path, strerror(errno));
}

err_t host_open(const host_options_t *options, arena_t *arena, host_t **out)
{
    *out = NULL;
    err_t err = make_dir(options->data_dir, 0750, arena);
    const char *run_dir = options->run_dir;
    if (!err_is(err) && !run_dir)
        err = host_default_run_dir(options->data_dir, arena, &run_dir);
    limits_t limits;
    if (!err_is(err))
        err = settings_load(&limits_record, "limits", options->settings, options->environment,
                            options->data_dir, arena, &limits);
    if (err_is(err))
        return err;
    void *context = zmq_ctx_new();
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, 4096);
    curve_t *curve;
    curve_options_t keys = {.settings = options->settings,
                            .environment = options->environment,
                            .data_dir = options->data_dir};
    err = curve_open(&keys, context, arena, &curve);
    if (err_is(err)) {
        zmq_ctx_term(context);
        return err;
    }
    host_t *host = calloc(1, sizeof(*host));
    if (!host)
        abort();
    host->arena = arena_new();
    host->options = *options;
    host->data_dir = arena_strdup(host->arena, options->data_dir);
    host->run_dir = arena_strdup(host->arena, run_dir);
    host->prefix = arena_printf(host->arena, "%p", (void *)host);
    host->context = context;
    host->curve = curve;
    host->fail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&host->mutex, NULL);
    host->watchdog = watchdog_start(limits.lag_ms, limits.stuck_ms);
    *out = host;
    return err_ok();
}

void host_close(host_t **handle, int64_t drain_ms)
{
    host_t *host = *handle;
    if (!host)
        return;
    while (host->loops) {
        loop_t *loop = host->loops;
        host->loops = loop->next;
        stop_loop(loop, drain_ms);
    }
    watchdog_stop(&host->watchdog);
    zmq_ctx_shutdown(host->context);
    curve_close(&host->curve);
    zmq_ctx_term(host->context);
    while (host->generations) {
        generation_t *gone = host->generations;
        host->generations = gone->next;
        free(gone->instance);
        free(gone);
    }
    while (host->boxes) {
        box_t *gone = host->boxes;
        host->boxes = gone->next;
        mailbox_destroy(&gone->mailbox);
        free(gone);
    }
    pthread_mutex_destroy(&host->mutex);
    close(host->fail_fd);
    arena_destroy(&host->arena);
    free(host);
    *handle = NULL;
}

bool host_failed(const host_t *host)
{
    return atomic_load(&((host_t *)host)->failed);
}

int host_fd(const host_t *host)
{
    return host->fail_fd;
}

const char *host_run_dir(const host_t *host)
{
    return host->run_dir;
}

void *host_zmq_context(host_t *host)
{
    return host->context;
}

const char *host_inproc_prefix(host_t *host)
{
    return host->prefix;
}
