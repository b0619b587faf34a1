/* server_parts: what the files of a server share. Inside them only.
 *
 *   server.c        its life: it is started, is ready, is lost, is started again
 *   server_begin.c  what it speaks and which tools it has
 *   server_calls.c  requests: questions of our own, calls of others
 *   server_hear.c   what it says
 */
#ifndef ACTORS_OUTSIDE_SERVER_PARTS_H
#define ACTORS_OUTSIDE_SERVER_PARTS_H

#include "actors/outside/server.h"

#define MODERN "2026-07-28"
#define NEWEST_LEGACY "2025-11-25"
#define META "io.modelcontextprotocol/"

enum { STALE_RETRY_MS = 5000 }; /* to a stream of changes that has ended */

typedef enum asked {
    ASKED_DISCOVER,
    ASKED_INITIALIZE,
    ASKED_TOOLS,
    ASKED_PING,
    ASKED_LISTEN,
    ASKED_CALL
} asked_t;

/* One request that the server has not answered. */
typedef struct request {
    struct request *next;
    server_t *server;
    int64_t id;
    asked_t asked;
    int64_t due_us; /* not of calls, which have timers of their own */
    /* Calls; what belongs to the call lives in its arena: */
    call_t *call;
    server_fn_t *fn;
    server_outcome_t outcome;
    const foreign_tool_t *tool;
    bytes_t arguments;
    const char *effect;
    int64_t timeout_ms;
    bool over;          /* it is resumed, or its caller has gone */
    bool held, again;   /* it waits for a new session; it has waited once */
    double done, total; /* progress that the caller has not heard */
    bool progress;
} request_t;

struct server {
    server_world_t world;
    arena_t *arena;
    const config_server_t *config;
    wire_t *wire; /* NULL: none */
    request_t *requests;
    server_state_t state;
    bool modern, legacy_only, end_wire, at_once, list_again, can_list_changes, listens;
    const char *version, *title; /* in about_arena */
    arena_t *about_arena;
    char problem[400];
    /* The tools, and those being listed: */
    arena_t *tools_arena, *listing_arena;
    foreign_tool_t *tools, *listing;
    size_t tool_count, listing_count, dropped, listing_dropped;
    int pages;
    int64_t next_id, since_ms, since_us, due_us, ping_us, failures, listen_us;
    int64_t starts, calls, errors, open_calls;
};

/* ---- server.c ---- */

int64_t server_now_us(const server_t *server);
void server_hurry(server_t *server, int64_t due_us);
/* To the log, without secrets. */
void server_say(server_t *server, log_level_t level, const char *text);
/* The end of this life of the server; the wire is closed when nobody is inside it. */
void server_fail(server_t *server, const char *why);
void server_on_ready(server_t *server);

/* ---- server_calls.c ---- */

request_t *server_find(const server_t *server, int64_t id); /* NULL */
void server_unlink(request_t *request);
/* Of a question of our own: it is freed. */
void server_drop(request_t *request);
/* The caller goes on with this outcome; nothing when it does already. */
void server_end_call(request_t *request, call_end_t end, bytes_t value, const char *text);
/* What waited for a new session. */
void server_send_held(server_t *server);
/* `id` -1: nothing answers. False: there is no room. */
bool server_transmit(server_t *server, int64_t id, const buf_t *json, const char *method,
                     const char *name, const char *const *more, int64_t timeout_ms);
void server_note(server_t *server, const char *method, const char *params);
/* A question of our own. `params` are members behind _meta, "" for none; 0 ms: no end. */
void server_ask(server_t *server, asked_t asked, const char *method, const char *params,
                int64_t timeout_ms);

/* ---- server_begin.c ---- */

void server_initialize(server_t *server);
void server_on_discovered(server_t *server, bytes_t result);
void server_on_initialized(server_t *server, bytes_t result);
/* To changes of its tools, in the newest era. */
void server_listen(server_t *server);
void server_list_tools(server_t *server);
void server_take_page(server_t *server, bytes_t result);

/* ---- server_hear.c: for the wire ---- */

void server_on_message(void *ctx, const char *json, size_t size);
void server_on_loss(void *ctx, int64_t id, wire_loss_t loss, const char *why);

#endif
