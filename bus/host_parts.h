/* host_parts: what the files of a host give each other. Inside host only; users include host.h.
 *
 *   host.c           the process: its loops, who lives here, start and stop
 *   host_loop.c      a loop: what it waits for, a turn, the life of its actors
 *   host_frames.c    frames to and from actors: in the loop, by mailbox, by socket
 *   host_lend.c      brief calls to a loop that sleeps, on the thread of the caller
 *   host_links.c     links to peers: made, watched, made anew
 *   host_doors.c     the doors that others knock at, also from other machines
 *   host_readers.c   reader threads, and reads in the middle of a batch
 *   host_env.c       the rest of what an actor takes from its host
 *
 * Thread: all belongs to the thread of the loop, except what says otherwise.
 */
#ifndef BUS_HOST_PARTS_H
#define BUS_HOST_PARTS_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <zmq.h>

#include "bus/address.h"
#include "bus/child.h"
#include "bus/curve.h"
#include "bus/host.h"
#include "bus/http_client.h"
#include "bus/mailbox.h"
#include "bus/watchdog.h"

enum { TOPICS_MOST = 16 };

typedef struct loop loop_t;
typedef struct node node_t;

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
    void (*after)(void *ctx); /* NULL: nothing is to be done after this turn */
    void *after_ctx;
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
    node_t *borrower;               /* whose thread is doing this loop's work; see host_lend.c */
    letter_t *inbox, **inbox_end;   /* what is to be delivered in the next turn */
    letter_t *outbox, **outbox_end; /* what leaves at the end of this one, or when it is enough */
    size_t outbox_count;
    children_t *children;
    http_client_t *http;
    struct foreign *foreigns; /* children and requests under way */
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
    struct read_job *read_queue, **read_queue_end, *read_done;
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

/* ---- host.c; any thread ---- */

void host_set_up(const node_t *node);
void host_set_down(const node_t *node);
/* Where the actor of that name is in this process (box NULL: it is not), and its generation. */
unsigned host_find_here(host_t *host, const char *instance, address_t *here);
uint8_t host_place_of(const node_t *node);
address_t host_address_of(const node_t *node);

/* ---- host_loop.c ---- */

/* The thread of a loop. */
void *host_loop_main(void *loop);

/* ---- host_frames.c ---- */

typedef struct parts {
    zmq_msg_t messages[3];
    int count;
    bool more; /* more than three: malformed */
} parts_t;

/* One whole multipart message; false when there is none. */
bool host_receive(void *socket, parts_t *parts);
bytes_t host_part(parts_t *parts, int index);
void host_parts_close(parts_t *parts);

/* These return whether the socket was drained: a receive found nothing. */
bool host_on_router(node_t *node, void *router, bool in_batch);
bool host_on_dealer(node_t *node, link_t *link);
bool host_on_event(node_t *node, link_t *link);
/* What came by mailbox; in a batch, only calls go to the actor at once. */
void host_on_box(node_t *node);
void host_deliver_all(loop_t *loop, letter_t *letter);
void host_deliver_local(loop_t *loop);

/* A call on this socket may have read its descriptor. */
void host_touch(loop_t *loop, const void *socket);
void host_empty_outbox(loop_t *loop);
/* The way back to this actor by mailbox. */
route_t host_route_to(const node_t *node);
bool host_is_route_to(const route_t *route, const node_t *node);
/* NULL: no actor of that name is in this loop. */
node_t *host_neighbour(const loop_t *loop, const char *instance);
void host_env_send(actor_env_t *env, const char *peer, bytes_t header, bytes_t body);
void host_env_send_back(actor_env_t *env, const route_t *route, bytes_t header, bytes_t body);
void host_env_publish(actor_env_t *env, const char *topic, bytes_t header, bytes_t body);
void host_env_subscribe(actor_env_t *env, const char *publisher, const char *topic);

/* ---- host_lend.c ---- */

bool host_env_call_here(actor_env_t *env, const char *peer, const header_t *header, bytes_t body);
bool host_env_answer_here(actor_env_t *env, const route_t *route, const header_t *header,
                          bytes_t body);

/* ---- host_links.c ---- */

void *host_new_socket(host_t *host, int type);
link_t *host_find_link(const node_t *node, const char *peer, bool event);
link_t *host_new_link(node_t *node, const char *peer, bool event, const char *topic);
/* To the calls of a peer, made when there was none. */
link_t *host_link_to(node_t *node, const char *peer);
void host_link_free(link_t *link);
/* An inproc connection does not come back by itself when the peer is started again. */
void host_renew_links(node_t *node);
/* Returns when the next one is due; INT64_MAX: none. */
int64_t host_retry_links(loop_t *loop);
void host_on_monitor(node_t *node, link_t *link);

/* ---- host_doors.c ---- */

err_t host_bind_doors(node_t *node, arena_t *arena);
void host_leave_doors(node_t *node);
void host_close_far(node_t *node);
/* Whose key was taken off the list is cut off: new doors, to which the others come back. Returns
 * when to look again; INT64_MAX: never. */
int64_t host_tend_far(node_t *node);

/* ---- host_readers.c ---- */

void host_start_readers(loop_t *loop);
void host_stop_readers(loop_t *loop);
/* Gives the actors what the readers have done. */
void host_collect_reads(loop_t *loop);
void host_env_read_start(actor_env_t *env, uint64_t token, void (*job)(void *ctx), void *ctx);
void host_env_attend(actor_env_t *env, bool wait);
void host_env_wake(actor_env_t *env);

/* ---- host_env.c ---- */

extern const actor_env_ops_t host_env_ops;
int64_t host_clock_us(clockid_t clock);
/* Forgets the children and requests under way; nobody is told. */
void host_drop_foreigns(loop_t *loop);

#endif
