/* server: one foreign MCP server, from its start to its end.
 *
 *   starting ──▶ ready ──▶ away ──(pause, doubling)──▶ starting        wrong: mcp.json is, disabled
 *
 * Starting asks server/discover (2026-07-28) first, and initialize (2025-11-25 and older) when that
 * is not understood; then the tools are listed, page by page. A ready server is asked now and then
 * whether it lives; one that does not answer is ended and started again. Thread: the actor's.
 */
#ifndef ACTORS_OUTSIDE_SERVER_H
#define ACTORS_OUTSIDE_SERVER_H

#include "actors/outside/answer.h"
#include "actors/outside/config.h"
#include "actors/outside/wire.h"
#include "bus/actor.h"

#define outside_settings_FIELDS(F)                                                                 \
    F(STR, file, opt(), 1, 4096, "The servers; absent: <data>/mcp.json.")                          \
    F(INT, reload_ms, opt(2000), 50, 600000, "How often it is looked whether the file changed.")   \
    F(INT, start_ms, opt(30000), 100, 600000, "How long a server may take to say what it has.")    \
    F(INT, probe_ms, opt(10000), 50, 600000,                                                       \
      "How long it may take to say whether it speaks the newest protocol.")                        \
    F(INT, ping_ms, opt(30000), 100, 3600000, "Pause between two questions whether it lives.")     \
    F(INT, ping_timeout_ms, opt(10000), 50, 600000, "How long the answer may take.")               \
    F(INT, call_timeout_ms, opt(60000), 10, 86400000,                                              \
      "How long a call may take where mcp.json and the step say nothing.")                         \
    F(INT, retry_ms, opt(500), 1, 600000, "First pause before it is started again; it doubles.")   \
    F(INT, retry_longest_ms, opt(60000), 1, 3600000, "Longest such pause.")                        \
    F(INT, calls, opt(64), 1, 10000, "Calls to one server at the same time.")                      \
    F(INT, tools, opt(500), 1, 1000, "Tools of one server; the rest is not offered.")              \
    F(INT, pages, opt(200), 1, 10000, "Pages of such a list that are asked for.")                  \
    F(INT, servers, opt(64), 1, CONFIG_SERVERS_MOST, "Servers that mcp.json may have.")            \
    F(INT, file_bytes, opt(1048576), 1024, 16777216, "How large it may be.")                       \
    F(INT, depth, opt(60), 8, 60,                                                                  \
      "How deep a message of a server may be nested; one that is deeper cannot be read.")          \
    F(INT, message_bytes, opt(4194304), 1024, 16777216, "Largest message of a server.")            \
    F(INT, queue_bytes, opt(8388608), 1024, 268435456,                                             \
      "What may wait for a server that does not read.")
RECORD_STRUCT(outside_settings, outside_settings_FIELDS)

typedef struct server server_t;

typedef enum server_state {
    SERVER_STARTING,
    SERVER_READY,
    SERVER_AWAY,
    SERVER_WRONG,
    SERVER_OFF
} server_state_t;
extern const char *const server_state_names[];

/* What it takes from the actor. */
typedef struct server_world {
    const outside_settings_t *settings;
    actor_t *actor;
    struct children *children;
    struct http_client *http;
    /* Something is due earlier than was said. */
    void (*hurry)(void *ctx, int64_t due_us);
    void (*log)(void *ctx, log_level_t level, const char *text);
    void *ctx;
} server_world_t;

/* The configuration lives in `arena`, which becomes the server's. */
server_t *server_new(const server_world_t *world, const config_server_t *config, arena_t *arena);
/* Everything that waits is answered. */
void server_destroy(server_t **server);

/* Does what is due; when there is something again. */
int64_t server_tend(server_t *server, int64_t now_us);

const config_server_t *server_config(const server_t *server);
server_state_t server_state(const server_t *server);
const char *server_problem(const server_t *server); /* why it is not ready; NULL */
const foreign_tool_t *server_tools(const server_t *server, size_t *count);
/* NULL: it has none of that name. */
const foreign_tool_t *server_tool(const server_t *server, const char *name);

typedef struct server_facts {
    const char *transport, *version, *title; /* NULL: not known yet */
    int64_t since_ms, starts, calls, errors, open_calls, dropped_tools;
} server_facts_t;
void server_facts(const server_t *server, server_facts_t *out);

/* How a call ended. */
typedef enum call_end {
    END_DONE,    /* value */
    END_FAILED,  /* the tool says so */
    END_REFUSED, /* it was certainly not done, and again would not help */
    END_UNSENT,  /* the same, but later it may work */
    END_UNKNOWN  /* it may have happened */
} call_end_t;

typedef struct server_outcome {
    call_end_t end;
    bytes_t value;    /* DONE, FAILED; in the call's arena */
    const char *text; /* for people */
} server_outcome_t;

/* Calls a tool in the name of `call`, which is then parked: fn runs with the outcome once. */
typedef err_t server_fn_t(void *self, call_t *call, void *reply, const server_outcome_t *outcome);
err_t server_call(server_t *server, call_t *call, const foreign_tool_t *tool, bytes_t arguments,
                  const char *effect, int64_t timeout_ms, void *reply, server_fn_t *fn);

#endif
