#include "bus/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "bus/address.h"
#include "bus/curve.h"
#include "bus/handover.h"
#include "proto/mp.h"

enum { PING_MS = 100, DEFAULT_TIMEOUT_MS = 30000, NEXT_KEY_MS = 1500 };

/* A request that has no answer yet. */
typedef struct waiting {
    struct waiting *next;
    uint64_t id;
    int64_t first_ms, deadline_ms;
    uint64_t epoch; /* of the peer when it was sent last */
    header_t header;
    bytes_t body;
    arena_t *arena;
    void (*on_progress)(void *ctx, bytes_t body);
    void *ctx;
} waiting_t;

typedef struct door {
    struct door *next;
    char *peer;
    void *dealer;
    uint64_t epoch; /* 0: unknown */
    int64_t pinged_ms;
    int64_t connected_ms;
    unsigned attempt; /* chooses the key of a server on another machine */
    waiting_t *waiting;
} door_t;

struct client {
    void *context;
    bool own_context;
    curve_t *curve; /* NULL: nobody is reached by tcp */
    char *where;    /* NULL: nobody is reached otherwise */
    transport_t transport;
    char from[64];
    uint64_t next_id;
    door_t *doors;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static client_t *client_new(void *context, const char *where, transport_t transport)
{
    client_t *client = calloc(1, sizeof(*client));
    uint64_t random = 0;
    if (!client || (where && !(client->where = strdup(where))) ||
        getrandom(&random, sizeof(random), 0) != sizeof(random))
        abort();
    client->own_context = !context;
    client->context = context ? context : zmq_ctx_new();
    client->transport = transport;
    snprintf(client->from, sizeof(client->from), "client-%d-%016" PRIx64, (int)getpid(), random);
    return client;
}

err_t client_open(const char *run_dir, arena_t *arena, client_t **out)
{
    *out = NULL;
    if (access(run_dir, R_OK | X_OK))
        return err_make(arena, ERR_UNAVAILABLE, "cannot read %s; is the agency up? Try: agency up",
                        run_dir);
    *out = client_new(NULL, run_dir, TRANSPORT_IPC);
    return err_ok();
}

err_t client_open_away(const char *run_dir, const curve_options_t *options, arena_t *arena,
                       client_t **out)
{
    *out = NULL;
    client_t *client = client_new(NULL, run_dir, TRANSPORT_IPC);
    err_t err = curve_open(options, client->context, arena, &client->curve);
    if (err_is(err))
        client_close(&client);
    *out = client;
    return err;
}

err_t client_open_host(host_t *host, client_t **out)
{
    *out = client_new(host_zmq_context(host), host_inproc_prefix(host), TRANSPORT_INPROC);
    return err_ok();
}

static void waiting_free(waiting_t *waiting)
{
    arena_destroy(&waiting->arena);
    free(waiting);
}

static bool is_away(const client_t *client, const char *peer)
{
    return client->curve && curve_remote(client->curve, peer);
}

bool client_has_tcp(const client_t *client)
{
    return client->curve && place_any_away(curve_place(client->curve));
}

bool client_reaches(const client_t *client, const char *peer)
{
    if (is_away(client, peer) || client->transport == TRANSPORT_INPROC)
        return true;
    if (!client->where)
        return false;
    arena_t *arena = arena_new();
    bool there = !access(arena_printf(arena, "%s/%s.call", client->where, peer), F_OK);
    arena_destroy(&arena);
    return there;
}

/* Nobody may be there at all: then calls end by their deadline. */
static void connect_socket(const client_t *client, void *socket, const char *peer, bool event,
                           unsigned attempt)
{
    arena_t *arena = arena_new();
    uint64_t keys;
    if (is_away(client, peer))
        curve_connect(client->curve, socket, peer, event, attempt, &keys, arena);
    else if (client->where)
        zmq_connect(socket, event ? address_event(client->where, client->transport, peer, arena)
                                  : address_call(client->where, client->transport, peer, arena));
    arena_destroy(&arena);
}

static void connect_door(client_t *client, door_t *door)
{
    door->dealer = zmq_socket(client->context, ZMQ_DEALER);
    if (!door->dealer)
        abort();
    int linger = 0, hwm = 0, reconnect = 20, longest = 100;
    zmq_setsockopt(door->dealer, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(door->dealer, ZMQ_SNDHWM, &hwm, sizeof(hwm));
    zmq_setsockopt(door->dealer, ZMQ_RCVHWM, &hwm, sizeof(hwm));
    zmq_setsockopt(door->dealer, ZMQ_RECONNECT_IVL, &reconnect, sizeof(reconnect));
    zmq_setsockopt(door->dealer, ZMQ_RECONNECT_IVL_MAX, &longest, sizeof(longest));
    connect_socket(client, door->dealer, door->peer, false, door->attempt);
    door->connected_ms = now_ms();
}

static door_t *door_to(client_t *client, const char *peer)
{
    for (door_t *door = client->doors; door; door = door->next)
        if (!strcmp(door->peer, peer))
            return door;
    door_t *door = calloc(1, sizeof(*door));
    if (!door || !(door->peer = strdup(peer)))
        abort();
    connect_door(client, door);
    door->next = client->doors;
    client->doors = door;
    return door;
}

void client_close(client_t **handle)
{
    client_t *client = *handle;
    if (!client)
        return;
    while (client->doors) {
        door_t *door = client->doors;
        client->doors = door->next;
        while (door->waiting) {
            waiting_t *gone = door->waiting;
            door->waiting = gone->next;
            waiting_free(gone);
        }
        zmq_close(door->dealer);
        free(door->peer);
        free(door);
    }
    curve_close(&client->curve);
    if (client->own_context)
        zmq_ctx_term(client->context);
    free(client->where);
    free(client);
    *handle = NULL;
}

/* ---- Sending ---- */

static void send_frame(door_t *door, const header_t *header, bytes_t body)
{
    arena_t *arena = arena_new();
    buf_t out;
    buf_open(&out, arena);
    frame_encode(header, &out);
    if (handover_send(door->dealer, out.data, out.size, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        handover_send(door->dealer, body.data, body.size, ZMQ_DONTWAIT);
    arena_destroy(&arena);
}

static void send_waiting(door_t *door, waiting_t *waiting)
{
    int64_t age = now_ms() - waiting->first_ms;
    waiting->header.deadline_ms = waiting->deadline_ms - now_ms();
    waiting->epoch = door->epoch;
    send_frame(door, &waiting->header, waiting->body);
    /* From the second time on it says that it was sent before. */
    waiting->header.age_ms = age + 1;
    waiting->header.has_age_ms = true;
}

static strs_t copy_strs(arena_t *arena, strs_t in)
{
    const char **items = ARENA_ARRAY(arena, const char *, in.count + 1);
    for (size_t i = 0; i < in.count; i++)
        items[i] = arena_strdup(arena, in.items[i]);
    return (strs_t){items, in.count};
}

static void fill_header(const client_t *client, const client_call_t *call, waiting_t *waiting,
                        int64_t timeout_ms)
{
    arena_t *arena = waiting->arena;
    waiting->header =
        (header_t){.v = FRAME_VERSION,
                   .kind = FRAME_CALL,
                   .id = (int64_t)waiting->id,
                   .has_id = true,
                   .from = arena_strdup(arena, client->from),
                   .method = arena_strdup(arena, call->method),
                   .company = arena_strdup(arena, call->company),
                   .principal = arena_strdup(arena, call->principal ? call->principal : "local"),
                   .role = (int)call->role,
                   .has_role = true,
                   .companies = copy_strs(arena, call->companies),
                   .has_companies = call->companies.count > 0,
                   .key = arena_strdup(arena, call->key),
                   .deadline_ms = timeout_ms,
                   .has_deadline_ms = true};
}

uint64_t client_send(client_t *client, const client_call_t *call)
{
    door_t *door = door_to(client, call->peer);
    waiting_t *waiting = calloc(1, sizeof(*waiting));
    if (!waiting)
        abort();
    int64_t timeout_ms = call->timeout_ms > 0 ? call->timeout_ms : DEFAULT_TIMEOUT_MS;
    waiting->arena = arena_new();
    waiting->id = ++client->next_id;
    waiting->first_ms = now_ms();
    waiting->deadline_ms = waiting->first_ms + timeout_ms;
    waiting->on_progress = call->on_progress;
    waiting->ctx = call->ctx;
    waiting->body =
        (bytes_t){arena_copy(waiting->arena, call->args.data, call->args.size), call->args.size};
    fill_header(client, call, waiting, timeout_ms);
    waiting->next = door->waiting;
    door->waiting = waiting;
    send_waiting(door, waiting);
    return waiting->id;
}

/* ---- Receiving ---- */

/* An answer that arrived, or what became of a call. */
typedef struct answer {
    uint64_t id; /* 0: none */
    client_reply_t reply;
} answer_t;

static waiting_t *take_waiting(door_t *door, uint64_t id)
{
    for (waiting_t **at = &door->waiting; *at; at = &(*at)->next)
        if ((*at)->id == id) {
            waiting_t *found = *at;
            *at = found->next;
            return found;
        }
    return NULL;
}

static waiting_t *find_waiting(const door_t *door, uint64_t id)
{
    waiting_t *at = door->waiting;
    while (at && at->id != id)
        at = at->next;
    return at;
}

static void on_pong(door_t *door, const header_t *header)
{
    door->epoch = (uint64_t)header->epoch;
    for (waiting_t *at = door->waiting; at; at = at->next)
        if (at->epoch != door->epoch)
            send_waiting(door, at);
}

static void on_reply(door_t *door, arena_t *arena, const header_t *header, bytes_t body,
                     answer_t *out)
{
    waiting_t *waiting = take_waiting(door, (uint64_t)header->id);
    if (!waiting)
        return;
    door->epoch = (uint64_t)header->epoch;
    out->id = waiting->id;
    out->reply = (client_reply_t){.text = arena_strdup(arena, header->what ? header->what : ""),
                                  .body = {arena_copy(arena, body.data, body.size), body.size}};
    if (header->err)
        out->reply.err = err_of(err_by_name(header->err), arena_strdup(arena, header->what));
    waiting_free(waiting);
}

static bool receive_parts(void *socket, zmq_msg_t parts[3], int *count)
{
    *count = 0;
    for (;;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (handover_receive(&part, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return false;
        }
        bool more = zmq_msg_more(&part);
        if (*count < 3) {
            zmq_msg_init(&parts[*count]);
            zmq_msg_move(&parts[(*count)++], &part);
        }
        zmq_msg_close(&part);
        if (!more)
            return true;
    }
}

static bytes_t part_bytes(zmq_msg_t *part)
{
    return (bytes_t){zmq_msg_data(part), zmq_msg_size(part)};
}

/* Reads what is there until a final answer came. */
static void read_door(door_t *door, arena_t *arena, answer_t *out)
{
    zmq_msg_t parts[3];
    int count;
    while (!out->id && receive_parts(door->dealer, parts, &count)) {
        bytes_t body = count > 1 ? part_bytes(&parts[1]) : (bytes_t){0};
        header_t header;
        arena_t *scratch = arena_new();
        if (!err_is(frame_decode(part_bytes(&parts[0]), body, scratch, &header))) {
            waiting_t *waiting = find_waiting(door, (uint64_t)header.id);
            if (header.kind == FRAME_PONG)
                on_pong(door, &header);
            else if (header.kind == FRAME_REPLY)
                on_reply(door, arena, &header, body, out);
            else if (header.kind == FRAME_PROGRESS && waiting && waiting->on_progress)
                waiting->on_progress(waiting->ctx, body);
        }
        arena_destroy(&scratch);
        for (int i = 0; i < count; i++)
            zmq_msg_close(&parts[i]);
    }
}

static void ping(client_t *client, door_t *door, int64_t now)
{
    if (!door->waiting || now - door->pinged_ms < PING_MS)
        return;
    bool old = false;
    for (waiting_t *at = door->waiting; at; at = at->next)
        old = old || now - at->first_ms >= PING_MS;
    if (!old)
        return;
    door->pinged_ms = now;
    header_t header = {.v = FRAME_VERSION, .kind = FRAME_PING, .from = client->from};
    send_frame(door, &header, (bytes_t){0});
}

static void expire(const client_t *client, door_t *door, arena_t *arena, int64_t now, answer_t *out)
{
    const char *address =
        client->curve ? place_address(curve_place(client->curve), door->peer) : NULL;
    for (waiting_t *at = door->waiting; at && !out->id; at = at->next) {
        if (now < at->deadline_ms)
            continue;
        out->id = at->id;
        out->reply = (client_reply_t){
            .err = err_make(arena, door->epoch ? ERR_TIMEOUT : ERR_UNAVAILABLE,
                            "no answer from '%s'%s%s within %lld ms%s", door->peer,
                            address ? " at " : "", address ? address : "",
                            (long long)(at->deadline_ms - at->first_ms),
                            door->epoch ? ""
                            : address ? "; is it up, and is the key of this process allowed there?"
                                      : "; is it running? Try: agency status"),
            .text = ""};
        waiting_free(take_waiting(door, at->id));
        return;
    }
}

/* A server that has changed its key, or is just starting: the other keys are tried too. */
static void knock_again(client_t *client, door_t *door, int64_t now)
{
    if (door->epoch || !door->waiting || !is_away(client, door->peer) ||
        now - door->connected_ms < NEXT_KEY_MS)
        return;
    zmq_close(door->dealer);
    door->attempt++;
    connect_door(client, door);
    for (waiting_t *at = door->waiting; at; at = at->next)
        send_waiting(door, at);
}

static int64_t earliest(const client_t *client, int64_t end)
{
    for (const door_t *door = client->doors; door; door = door->next)
        for (const waiting_t *at = door->waiting; at; at = at->next)
            if (at->deadline_ms < end)
                end = at->deadline_ms;
    return end;
}

static bool wait_once(client_t *client, int64_t end)
{
    zmq_pollitem_t polls[32];
    int count = 0;
    bool waiting = false;
    for (door_t *door = client->doors; door && count < 32; door = door->next) {
        polls[count++] = (zmq_pollitem_t){.socket = door->dealer, .events = ZMQ_POLLIN};
        waiting = waiting || door->waiting;
    }
    int64_t left = earliest(client, end) - now_ms();
    if (!waiting || left <= 0)
        return false;
    zmq_poll(polls, count, (long)(left < PING_MS ? left : PING_MS));
    return true;
}

client_reply_t client_wait(client_t *client, arena_t *arena, int64_t timeout_ms, uint64_t *id)
{
    answer_t answer = {0};
    int64_t end = now_ms() + timeout_ms;
    for (;;) {
        for (door_t *door = client->doors; door && !answer.id; door = door->next)
            read_door(door, arena, &answer);
        int64_t now = now_ms();
        for (door_t *door = client->doors; door && !answer.id; door = door->next) {
            expire(client, door, arena, now, &answer);
            ping(client, door, now);
            knock_again(client, door, now);
        }
        if (answer.id || now >= end || !wait_once(client, end))
            break;
    }
    /* A deadline may have passed while waiting. */
    for (door_t *door = client->doors; door && !answer.id; door = door->next)
        expire(client, door, arena, now_ms(), &answer);
    *id = answer.id;
    return answer.reply;
}

client_reply_t client_call(client_t *client, arena_t *arena, const client_call_t *call)
{
    uint64_t id = client_send(client, call), got;
    door_t *door = door_to(client, call->peer);
    for (;;) {
        waiting_t *waiting = find_waiting(door, id);
        int64_t left = waiting ? waiting->deadline_ms - now_ms() : 0;
        client_reply_t reply = client_wait(client, arena, left > 0 ? left : 0, &got);
        if (got == id)
            return reply;
        if (!find_waiting(door, id))
            return (client_reply_t){.err = err_of(ERR_INTERNAL, "the answer went astray")};
    }
}

/* ---- Events ---- */

err_t client_tap(client_t *client, const char *publisher, const char *topic, int64_t timeout_ms,
                 bool (*fn)(void *ctx, const char *topic, const header_t *header, bytes_t body),
                 void *ctx)
{
    void *sub = zmq_socket(client->context, ZMQ_SUB);
    arena_t *arena = arena_new();
    int linger = 0;
    zmq_setsockopt(sub, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, topic, strlen(topic));
    connect_socket(client, sub, publisher, true, 0);
    int64_t end = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
    bool more = true;
    while (more && now_ms() < end) {
        zmq_pollitem_t item = {.socket = sub, .events = ZMQ_POLLIN};
        int64_t left = end - now_ms();
        zmq_poll(&item, 1, (long)(left < 1000 ? left : 1000));
        zmq_msg_t parts[3];
        int count;
        while (more && receive_parts(sub, parts, &count)) {
            header_t header;
            arena_reset(arena);
            if (count == 3 &&
                !err_is(frame_decode(part_bytes(&parts[1]), part_bytes(&parts[2]), arena, &header)))
                more = fn(ctx, header.method ? header.method : "", &header, part_bytes(&parts[2]));
            for (int i = 0; i < count; i++)
                zmq_msg_close(&parts[i]);
        }
    }
    zmq_close(sub);
    arena_destroy(&arena);
    return more && timeout_ms >= 0 ? err_of(ERR_TIMEOUT, "no event came") : err_ok();
}
