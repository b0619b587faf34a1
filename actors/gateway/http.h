/* http: a small HTTP server inside a foreign event loop. The one door to libmicrohttpd, which runs
 * in external epoll mode: its epoll descriptor and ours for parked sockets sit in one.
 *
 * A request is handed over when its whole body has arrived; its connection is then suspended until
 * http_reply or http_stream_end, at once or much later. A suspended connection of libmicrohttpd
 * notices neither the client's close nor any timeout, so parked sockets are watched here.
 * Thread: the loop's.
 */
#ifndef ACTORS_GATEWAY_HTTP_H
#define ACTORS_GATEWAY_HTTP_H

#include <stdbool.h>

#include "proto/arena.h"
#include "proto/err.h"

typedef struct http_server http_server_t;
typedef struct http_request http_request_t;

/* A request that is over, for a log. Texts may be NULL and live during the call only. */
typedef struct http_done {
    int64_t ended_ms, took_us;
    const char *peer, *method, *path; /* without the query: it may hold a session */
    int status;                       /* 0: the client went before there was one */
    bool cut;                         /* the client went before the end */
    uint64_t bytes_in, bytes_out;     /* bodies */
    const char *rpc_method, *name, *principal, *company, *trace;
} http_done_t;

typedef struct http_options {
    const char *bind; /* numeric address */
    int port;         /* 0: any; see http_server_port */
    size_t largest_body;
    size_t stream_waiting; /* what a stream's client may leave unread; then it is cut off */
    unsigned connections, connections_per_address, idle_timeout_s;
    /* A request with its whole body. Answer it now or later, exactly once. */
    void (*on_request)(void *ctx, http_request_t *request);
    /* The client went away before the answer was complete; do not answer any more. */
    void (*on_gone)(void *ctx, http_request_t *request);
    /* NULL: nobody wants to know. */
    void (*on_done)(void *ctx, const http_done_t *done);
    void *ctx;
} http_options_t;

/* ERR_IO with a sentence when the port is taken. */
err_t http_server_open(const http_options_t *options, arena_t *arena, http_server_t **out);
/* Drops every connection; on_gone is called for those parked. */
void http_server_close(http_server_t **server);
int http_server_port(const http_server_t *server);

int http_server_fd(const http_server_t *server);
void http_server_on_readable(http_server_t *server);
/* ms until http_server_on_readable must be called anyway; -1: no need. */
int64_t http_server_deadline_ms(const http_server_t *server);
/* The next flush looks for connections whose time is over. */
void http_server_look(http_server_t *server);
/* Answers given since the last turn begin to leave. Cheap when there are none. */
void http_server_flush(http_server_t *server);

enum { HTTP_STATUS_CLASSES = 5 };

typedef struct http_stats {
    unsigned connections;
    uint64_t answers[HTTP_STATUS_CLASSES]; /* 1xx to 5xx, since the start */
} http_stats_t;

void http_server_stats(http_server_t *server, http_stats_t *out);

/* ---- A request; everything lives until it is answered or gone ---- */

const char *http_method(const http_request_t *request);
const char *http_path(const http_request_t *request);
/* NULL when absent. Names ignore case; of a repeated header the first counts. */
const char *http_header(const http_request_t *request, const char *name);
/* The value of ?name=…, or NULL. */
const char *http_query(const http_request_t *request, const char *name);
bytes_t http_body(const http_request_t *request);
bool http_too_large(const http_request_t *request); /* the body was dropped */
const char *http_peer(const http_request_t *request);
arena_t *http_arena(http_request_t *request);
void *http_user(const http_request_t *request);
void http_set_user(http_request_t *request, void *user);

/* What the log says about the request; copied. NULL leaves what is there. */
void http_log_who(http_request_t *request, const char *principal, const char *trace);
void http_log_method(http_request_t *request, const char *rpc_method);
void http_log_name(http_request_t *request, const char *name, const char *company);

/* A header of the answer that follows; one of this name is replaced. */
void http_set_header(http_request_t *request, const char *name, const char *value);
void http_reply(http_request_t *request, int status, const char *type, bytes_t body);

/* An answer in parts: server-sent events. A client that leaves 16 MiB unread is cut off. */
void http_stream_start(http_request_t *request, int status, const char *type);
void http_stream_send(http_request_t *request, bytes_t part);
void http_stream_end(http_request_t *request);

#endif
