/* config: mcp.json, the MCP servers that others run, in the common format:
 *
 *   {"mcpServers": {"files": {"command": "npx", "args": ["-y", "…"], "env": {"TOKEN": "${TOKEN}"}},
 *                   "tickets": {"url": "https://…/mcp", "headers": {"Authorization": "Bearer …"}}}}
 *
 * ${NAME} and ${NAME:-instead} are taken from the environment. Everything read lives in the given
 * arena. Thread: pure, but for the lookup that is handed in.
 */
#ifndef ACTORS_OUTSIDE_CONFIG_H
#define ACTORS_OUTSIDE_CONFIG_H

#include "proto/record.h"

enum { CONFIG_SERVERS_MOST = 1000 };

typedef struct config_limits {
    size_t bytes, servers; /* servers: up to CONFIG_SERVERS_MOST */
} config_limits_t;

typedef struct config_timeout {
    const char *tool;
    int64_t ms;
} config_timeout_t;

/* One server. Either command or url is set, unless there is a problem. */
typedef struct config_server {
    const char *name;
    const char *problem; /* NULL: none; else why this one cannot be used, the others can */
    const char *command;
    const char *const *argv; /* NULL-terminated, the command first */
    const char *const *env;  /* "NAME=value", NULL-terminated; complete */
    const char *cwd;         /* NULL: where the agency was started */
    const char *url;
    bool sse;                   /* the url is of HTTP+SSE, the transport of 2024 */
    const char *const *headers; /* "Name: value", NULL-terminated */
    bool disabled;
    bool for_some; /* only `companies` may use it */
    strs_t companies;
    bool only_some; /* only `tools` are offered */
    strs_t tools;
    int64_t timeout_ms; /* 0: the setting of the actor */
    const config_timeout_t *timeouts;
    size_t timeout_count;
    strs_t secrets;     /* values that must not be shown, longest first */
    const char *digest; /* another one: something about it changed */
} config_server_t;

typedef struct config {
    const config_server_t *servers; /* in the order of the file */
    size_t count;
} config_t;

/* The value of an environment variable, or NULL. */
typedef const char *config_lookup_t(const char *name);

/* ERR_ARGUMENT, ERR_PARSE, ERR_TOO_LARGE say what to change; nothing of the file is then used. */
err_t config_parse(const char *text, size_t size, config_limits_t most, config_lookup_t *lookup,
                   arena_t *arena, config_t *out);

/* May runs of this company use the server? */
bool config_serves(const config_server_t *server, const char *company);
/* Is this tool of the server offered? */
bool config_offers(const config_server_t *server, const char *tool);
/* How long a call of the tool may take; 0: nothing is said. */
int64_t config_timeout_of(const config_server_t *server, const char *tool);

/* The text with every secret replaced by ***. */
const char *config_redact(const config_server_t *server, const char *text, arena_t *arena);

#endif
