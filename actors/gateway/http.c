#include "actors/gateway/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "bus/listen.h"

enum {
    EVENTS = 64,
    ROUNDS = 64,
    HEADERS_MOST = 16,
    CONNECTION_MEMORY = 32 << 10, /* cleared for each request */
    WATCH_MS = 50,
    HELD_MOST = 64,
    STREAM_BLOCK = 16 << 10
};

typedef struct reply_header {
    const char *name, *value;
} reply_header_t;

struct http_request {
    http_request_t *next, *prev; /* all of the server */
    http_request_t *next_ready;
    http_server_t *server;
    struct MHD_Connection *connection;
    arena_t *arena;
    const char *method, *path;
    struct sockaddr_in6 address; /* or a sockaddr_in */
    buf_t body;
    bool too_large, handed_over, answered, suspended, ready, gone, watched, fresh;
    bool held, held_long;
    unsigned long read_in; /* a round */
    int fd;
    void *user;
    /* The answer: */
    int status;
    const char *type;
    bytes_t reply;
    reply_header_t headers[HEADERS_MOST];
    int header_count;
    /* A stream: */
    bool streaming, stream_queued, ended;
    buf_t pending;
    size_t pending_at;
    /* For the log: */
    int64_t began_us;
    uint64_t sent;
    const char *rpc_method, *name, *principal, *company, *trace;
};

struct http_server {
    struct MHD_Daemon *daemon;
    http_options_t options;
    int epoll; /* outer: libmicrohttpd's epoll, the parked sockets and the timer */
    int timer; /* looks for requests that are parked for longer than a moment */
    bool timer_armed;
    int inner;
    int port;
    bool closing, running;
    /* Whether libmicrohttpd has more to do, which it cannot say while requests are held: */
    bool due;
    int held;
    int reading;        /* requests that began or went on in this round and are not whole */
    unsigned long runs; /* rounds, from 1 */
    http_request_t *requests;
    http_request_t *ready; /* to be resumed */
    uint64_t answers[HTTP_STATUS_CLASSES];
};

/* ---- Requests ---- */

static void count_answer(http_server_t *server, int status)
{
    if (status >= 100 && status < 600)
        server->answers[status / 100 - 1]++;
}

void http_server_stats(http_server_t *server, http_stats_t *out)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    *out = (http_stats_t){.connections = info ? info->num_connections : 0};
    memcpy(out->answers, server->answers, sizeof(out->answers));
}

static int64_t now_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static http_request_t *request_new(http_server_t *server, struct MHD_Connection *connection,
                                   const char *method, const char *path)
{
    arena_t *arena = arena_new();
    http_request_t *request = ARENA_NEW(arena, http_request_t);
    request->arena = arena;
    request->server = server;
    request->connection = connection;
    request->method = arena_strdup(arena, method);
    request->path = arena_strdup(arena, path);
    request->fd = -1;
    request->began_us = now_us(CLOCK_MONOTONIC);
    buf_open(&request->body, arena);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info && info->client_addr)
        memcpy(&request->address, info->client_addr,
               info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                        : sizeof(struct sockaddr_in));
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info)
        request->fd = info->connect_fd;
    request->next = server->requests;
    if (server->requests)
        server->requests->prev = request;
    server->requests = request;
    return request;
}

static void unwatch(http_request_t *request)
{
    if (request->watched)
        epoll_ctl(request->server->epoll, EPOLL_CTL_DEL, request->fd, NULL);
    request->watched = false;
}

static void unready(http_request_t *request)
{
    if (!request->ready)
        return;
    http_request_t **at = &request->server->ready;
    while (*at != request)
        at = &(*at)->next_ready;
    *at = request->next_ready;
    request->ready = false;
}

static void unhold(http_request_t *request)
{
    if (request->held)
        request->server->held--;
    request->held = false;
}

/* There may be more to read, or "100 Continue" to be said. */
static void reads(http_request_t *request)
{
    http_server_t *server = request->server;
    server->reading += request->read_in != server->runs;
    request->read_in = server->runs;
}

static void has_read(http_request_t *request)
{
    request->server->reading -= request->read_in == request->server->runs;
    request->read_in = 0;
}

static void request_free(http_request_t *request)
{
    unwatch(request);
    unready(request);
    unhold(request);
    has_read(request);
    if (request->prev)
        request->prev->next = request->next;
    else
        request->server->requests = request->next;
    if (request->next)
        request->next->prev = request->prev;
    arena_t *arena = request->arena;
    arena_destroy(&arena);
}

const char *http_method(const http_request_t *request)
{
    return request->method;
}

const char *http_path(const http_request_t *request)
{
    return request->path;
}

const char *http_header(const http_request_t *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

const char *http_query(const http_request_t *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

bytes_t http_body(const http_request_t *request)
{
    return buf_bytes(&request->body);
}

bool http_too_large(const http_request_t *request)
{
    return request->too_large;
}

const char *http_peer(const http_request_t *request)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&request->address;
    char *text = arena_alloc(request->arena, INET6_ADDRSTRLEN);
    if (in->sin_family == AF_INET)
        inet_ntop(AF_INET, &in->sin_addr, text, INET6_ADDRSTRLEN);
    else if (in->sin_family == AF_INET6)
        inet_ntop(AF_INET6, &request->address.sin6_addr, text, INET6_ADDRSTRLEN);
    return text;
}

arena_t *http_arena(http_request_t *request)
{
    return request->arena;
}

void *http_user(const http_request_t *request)
{
    return request->user;
}

void http_set_user(http_request_t *request, void *user)
{
    request->user = user;
}

/* ---- For the log ---- */

static void keep(http_request_t *request, const char **place, const char *text)
{
    if (text && request->server->options.on_done)
        *place = arena_strdup(request->arena, text);
}

void http_log_who(http_request_t *request, const char *principal, const char *trace)
{
    keep(request, &request->principal, principal);
    keep(request, &request->trace, trace);
}

void http_log_method(http_request_t *request, const char *rpc_method)
{
    keep(request, &request->rpc_method, rpc_method);
}

void http_log_name(http_request_t *request, const char *name, const char *company)
{
    keep(request, &request->name, name);
    keep(request, &request->company, company);
}

static void tell_done(const http_request_t *request, bool cut)
{
    const http_options_t *options = &request->server->options;
    if (!options->on_done)
        return;
    http_done_t done = {.ended_ms = now_us(CLOCK_REALTIME) / 1000,
                        .took_us = now_us(CLOCK_MONOTONIC) - request->began_us,
                        .peer = http_peer(request),
                        .method = request->method,
                        .path = request->path,
                        .status = request->status,
                        .cut = cut,
                        .bytes_in = request->body.size,
                        .bytes_out = request->sent,
                        .rpc_method = request->rpc_method,
                        .name = request->name,
                        .principal = request->principal,
                        .company = request->company,
                        .trace = request->trace};
    options->on_done(options->ctx, &done);
}

/* ---- Parking and resuming ---- */

static void arm_timer(http_server_t *server)
{
    struct itimerspec soon = {.it_value = {.tv_nsec = WATCH_MS * 1000000L}};
    if (!server->timer_armed)
        timerfd_settime(server->timer, 0, &soon, NULL);
    server->timer_armed = true;
}

/* Most answers come at once: to watch each socket for a client that leaves would cost two system
 * calls a request. Those that are still parked when the timer comes the second time are watched. */
static void park(http_request_t *request)
{
    MHD_suspend_connection(request->connection);
    request->suspended = request->fresh = true;
    arm_timer(request->server);
}

/* Half-closed counts as gone: an MCP client that waits for an answer keeps its side open. */
static void watch(http_request_t *request)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = request};
    request->watched =
        request->fd >= 0 && !epoll_ctl(request->server->epoll, EPOLL_CTL_ADD, request->fd, &event);
}

/* Most answers come at once. To suspend a connection and to resume it costs three system calls more
 * than to let libmicrohttpd ask again each time it is run, so a few requests are only held; those
 * that are still there when the timer comes the second time are parked. */
static void hold(http_request_t *request)
{
    http_server_t *server = request->server;
    if (server->held >= HELD_MOST) {
        park(request);
        return;
    }
    request->held = request->fresh = true;
    server->held++;
    arm_timer(server);
}

static void still_held(http_request_t *request)
{
    if (!request->held || !request->held_long)
        return;
    unhold(request);
    park(request);
    watch(request);
}

static void watch_parked(http_server_t *server)
{
    bool again = false;
    uint64_t times;
    if (read(server->timer, &times, sizeof(times)) < 0)
        return;
    server->timer_armed = false;
    for (http_request_t *request = server->requests; request; request = request->next) {
        if ((!request->suspended && !request->held) || request->watched)
            continue;
        if (!request->fresh && request->held)
            request->held_long = server->due = true;
        else if (!request->fresh)
            watch(request);
        again = again || request->fresh;
        request->fresh = false;
    }
    if (again)
        arm_timer(server);
}

static void make_ready(http_request_t *request)
{
    if (request->held)
        request->server->due = true;
    if (request->ready || !request->suspended)
        return;
    request->ready = true;
    request->next_ready = request->server->ready;
    request->server->ready = request;
}

static void resume_ready(http_server_t *server)
{
    while (server->ready) {
        http_request_t *request = server->ready;
        server->ready = request->next_ready;
        request->ready = false;
        request->suspended = false;
        unwatch(request);
        MHD_resume_connection(request->connection);
    }
}

static void tell_gone(http_request_t *request)
{
    if (request->gone || !request->handed_over || (request->answered && !request->streaming))
        return;
    request->gone = true;
    request->server->options.on_gone(request->server->options.ctx, request);
}

/* ---- Answers ---- */

void http_set_header(http_request_t *request, const char *name, const char *value)
{
    for (int i = 0; i < request->header_count; i++)
        if (!strcasecmp(request->headers[i].name, name)) {
            request->headers[i].value = arena_strdup(request->arena, value);
            return;
        }
    if (request->header_count == HEADERS_MOST)
        return;
    request->headers[request->header_count++] =
        (reply_header_t){arena_strdup(request->arena, name), arena_strdup(request->arena, value)};
}

static void add_headers(http_request_t *request, struct MHD_Response *response)
{
    if (request->type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, request->type);
    for (int i = 0; i < request->header_count; i++)
        MHD_add_response_header(response, request->headers[i].name, request->headers[i].value);
}

static enum MHD_Result queue_reply(http_request_t *request)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(request->reply.size, (void *)request->reply.data,
                                        MHD_RESPMEM_PERSISTENT); /* the arena outlives it */
    add_headers(request, response);
    enum MHD_Result result =
        MHD_queue_response(request->connection, (unsigned)request->status, response);
    MHD_destroy_response(response);
    request->server->due = true; /* to send it */
    return result;
}

void http_reply(http_request_t *request, int status, const char *type, bytes_t body)
{
    if (request->answered || request->gone)
        return;
    request->answered = true;
    count_answer(request->server, status);
    request->status = status;
    request->type = type ? arena_strdup(request->arena, type) : NULL;
    request->reply = (bytes_t){arena_copy(request->arena, body.data, body.size), body.size};
    request->sent = body.size;
    make_ready(request);
}

/* ---- Streams ---- */

static ssize_t read_stream(void *ctx, uint64_t at, char *out, size_t room)
{
    http_request_t *request = ctx;
    (void)at;
    size_t size = request->pending.size - request->pending_at;
    if (!size && request->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (!size) {
        park(request); /* never 0 in a loop: it would spin */
        return 0;
    }
    if (size > room)
        size = room;
    memcpy(out, request->pending.data + request->pending_at, size);
    request->pending_at += size;
    request->sent += size;
    request->server->due = true;
    if (request->pending_at == request->pending.size)
        request->pending_at = request->pending.size = 0;
    return (ssize_t)size;
}

static enum MHD_Result queue_stream(http_request_t *request)
{
    request->stream_queued = request->server->due = true;
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, request, NULL);
    add_headers(request, response);
    enum MHD_Result result =
        MHD_queue_response(request->connection, (unsigned)request->status, response);
    MHD_destroy_response(response);
    return result;
}

void http_stream_start(http_request_t *request, int status, const char *type)
{
    if (request->answered || request->gone)
        return;
    request->answered = request->streaming = true;
    count_answer(request->server, status);
    request->status = status;
    request->type = arena_strdup(request->arena, type);
    buf_open(&request->pending, request->arena);
    make_ready(request);
}

/* What a client that is always a little behind has read makes room, or the buffer would grow as
 * long as the stream lives. */
static void drop_what_was_read(http_request_t *request)
{
    buf_t *pending = &request->pending;
    if (request->pending_at < STREAM_BLOCK || request->pending_at < pending->size / 2)
        return;
    pending->size -= request->pending_at;
    memmove(pending->data, pending->data + request->pending_at, pending->size);
    request->pending_at = 0;
}

void http_stream_send(http_request_t *request, bytes_t part)
{
    if (!request->streaming || request->ended || request->gone)
        return;
    if (request->pending.size - request->pending_at > request->server->options.stream_waiting) {
        shutdown(request->fd, SHUT_RDWR); /* it does not read: on_gone follows */
        return;
    }
    drop_what_was_read(request);
    buf_put(&request->pending, part.data, part.size);
    make_ready(request);
}

void http_stream_end(http_request_t *request)
{
    if (!request->streaming || request->gone)
        return;
    request->ended = true;
    make_ready(request);
}

/* ---- libmicrohttpd calls us ---- */

static enum MHD_Result hand_over(http_request_t *request)
{
    request->handed_over = true;
    has_read(request);
    request->server->options.on_request(request->server->options.ctx, request);
    if (!request->answered) {
        hold(request);
        return MHD_YES;
    }
    return request->streaming ? queue_stream(request) : queue_reply(request);
}

static enum MHD_Result on_access(void *ctx, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **state)
{
    http_server_t *server = ctx;
    http_request_t *request = *state;
    (void)version;
    if (server->closing && (!request || !request->handed_over))
        return MHD_NO; /* nobody is left to answer */
    if (!request) {
        *state = request_new(server, connection, method, url);
        reads(*state);
        return MHD_YES;
    }
    if (*size) {
        if (request->body.size + *size > server->options.largest_body)
            request->too_large = true;
        else
            buf_put(&request->body, data, *size);
        *size = 0;
        reads(request);
        return MHD_YES;
    }
    if (!request->handed_over)
        return hand_over(request);
    if (request->gone)
        return MHD_NO;
    if (!request->answered) {
        still_held(request);
        return MHD_YES;
    }
    unhold(request);
    if (request->stream_queued)
        return MHD_YES;
    return request->streaming ? queue_stream(request) : queue_reply(request);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    http_request_t *request = *state;
    (void)ctx;
    (void)connection;
    if (!request)
        return;
    *state = NULL;
    request->server->due = true; /* the next request may be there already */
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        tell_gone(request);
    tell_done(request, code != MHD_REQUEST_TERMINATED_COMPLETED_OK);
    request_free(request);
}

/* ---- Life ---- */

static void quiet(void *ctx, const char *format, va_list args)
{
    (void)ctx;
    (void)format;
    (void)args; /* its complaints are about clients; ours are errors */
}

static err_t start_daemon(http_server_t *server, arena_t *arena)
{
    const http_options_t *options = &server->options;
    struct sockaddr_storage address;
    socklen_t size;
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    if (!listen_address(options->bind, options->port, &address, &size))
        return err_make(arena, ERR_ARGUMENT, "'%s' is no numeric address to listen at",
                        options->bind);
    if (address.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, server, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL,
        MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_CONNECTION_LIMIT, options->connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        options->connections_per_address, MHD_OPTION_CONNECTION_TIMEOUT, options->idle_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
    if (!server->daemon)
        return err_make(arena, ERR_IO,
                        "cannot listen at %s:%d: %s; stop what listens there or choose "
                        "another --port-offset",
                        options->bind, options->port, strerror(errno));
    return err_ok();
}

err_t http_server_open(const http_options_t *options, arena_t *arena, http_server_t **out)
{
    *out = NULL;
    /* libmicrohttpd would share the port with another listener on some systems: look first. */
    err_t err = options->port ? listen_probe(options->bind, options->port, arena) : err_ok();
    if (err_is(err))
        return err;
    http_server_t *server = calloc(1, sizeof(*server));
    if (!server)
        abort();
    server->options = *options;
    err = start_daemon(server, arena);
    if (err_is(err)) {
        free(server);
        return err;
    }
    server->inner = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    server->port = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->inner, &event);
    server->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    event.data.ptr = &server->timer;
    epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->timer, &event);
    *out = server;
    return err_ok();
}

int http_server_port(const http_server_t *server)
{
    return server->port;
}

int http_server_fd(const http_server_t *server)
{
    return server->epoll;
}

/* Its epoll is edge-triggered: what it has read and not looked at yet fires no event. */
static void run_daemon(http_server_t *server)
{
    server->running = true;
    for (int round = 0; round < ROUNDS; round++) {
        server->due = false;
        server->reading = 0;
        server->runs++;
        resume_ready(server);
        MHD_run(server->daemon);
        if (http_server_deadline_ms(server) != 0)
            break;
    }
    server->running = false;
}

void http_server_close(http_server_t **handle)
{
    http_server_t *server = *handle;
    if (!server)
        return;
    server->closing = true;
    for (http_request_t *request = server->requests, *next; request; request = next) {
        next = request->next;
        tell_gone(request);
        request->ended = true;
        make_ready(request); /* none may be suspended at the stop, or it waits for ever */
    }
    run_daemon(server); /* streams have said their last word: it leaves before the stop */
    MHD_stop_daemon(server->daemon);
    close(server->timer);
    close(server->epoll);
    free(server);
    *handle = NULL;
}

void http_server_on_readable(http_server_t *server)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(server->epoll, events, EVENTS, 0);
    server->running = true;
    for (int i = 0; i < count; i++) {
        http_request_t *request = events[i].data.ptr;
        if (!request)
            continue;
        if (events[i].data.ptr == (void *)&server->timer) {
            watch_parked(server);
            continue;
        }
        tell_gone(request);
        request->ended = true;
        make_ready(request); /* libmicrohttpd then finds the closed socket by itself */
    }
    run_daemon(server);
}

int64_t http_server_deadline_ms(const http_server_t *server)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (server->ready || server->due || server->reading)
        return 0;
    if (server->held)
        return WATCH_MS; /* libmicrohttpd would say 0: it is not asked, and the timer comes */
    if (MHD_get_timeout(server->daemon, &ms) != MHD_YES)
        return -1;
    return (int64_t)ms;
}

void http_server_look(http_server_t *server)
{
    server->due = true;
}

void http_server_flush(http_server_t *server)
{
    if (!server->running && http_server_deadline_ms(server) == 0)
        run_daemon(server);
}
