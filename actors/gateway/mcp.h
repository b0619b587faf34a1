/* mcp: the Model Context Protocol, as far as it is words: which era a message is of, whether it is
 * well formed, and how answers are written. No sockets, no calls.
 *
 * Two eras on one endpoint: modern (2026-07-28, stateless, every request carries _meta) and legacy
 * (2025-11-25, 2025-06-18, 2025-03-26, begun by initialize). The order of the checks is the
 * one that the specification's versioning page and its reference SDK share.
 * Source: the specification at modelcontextprotocol.io, pages basic, versioning, tools.
 */
#ifndef ACTORS_GATEWAY_MCP_H
#define ACTORS_GATEWAY_MCP_H

#include <stdbool.h>

#include "proto/arena.h"
#include "proto/err.h"

#define MCP_MODERN "2026-07-28"
#define MCP_META "io.modelcontextprotocol/"
#define MCP_TASKS "io.modelcontextprotocol/tasks"
#define MCP_RELATED_TASK "io.modelcontextprotocol/related-task"

enum {
    MCP_PARSE = -32700,
    MCP_INVALID = -32600,
    MCP_NO_METHOD = -32601,
    MCP_PARAMS = -32602,
    MCP_INTERNAL = -32603,
    MCP_LEGACY_TRANSPORT = -32000,
    MCP_SESSION = -32001,
    MCP_LEGACY_NO_RESOURCE = -32002,
    MCP_HEADER_MISMATCH = -32020,
    MCP_CAPABILITY = -32021,
    MCP_VERSION = -32022
};

typedef enum mcp_kind {
    MCP_REQUEST,
    MCP_NOTIFICATION,
    MCP_RESPONSE /* of a client, to something that we never asked */
} mcp_kind_t;

/* How the HTTP door looks up a header; NULL when absent. */
typedef struct mcp_headers {
    const char *(*get)(void *ctx, const char *name);
    void *ctx;
} mcp_headers_t;

typedef struct mcp_message {
    mcp_kind_t kind;
    bool modern;
    const char *version;
    bytes_t id; /* msgpack; size 0: none */
    const char *method;
    bytes_t params; /* msgpack map; size 0: none */
    bytes_t progress_token;
} mcp_message_t;

typedef struct mcp_refusal {
    int status; /* 0: not refused */
    int code;
    const char *text;
    const char *data; /* JSON, or NULL */
    bytes_t id;
} mcp_refusal_t;

/* One message (not an array) that was already turned into msgpack. */
mcp_refusal_t mcp_read(arena_t *arena, bytes_t value, const mcp_headers_t *headers,
                       mcp_message_t *out);

/* What a message asked for is refused. */
mcp_refusal_t mcp_refuse(const mcp_message_t *message, int status, int code, const char *text);
/* A member of params; size 0: absent or null. mcp_text_param: NULL unless it is a string. */
bytes_t mcp_param(const mcp_message_t *message, const char *name);
const char *mcp_text_param(arena_t *arena, const mcp_message_t *message, const char *name);
/* Is capabilities.<one>[.<two>] declared in this modern message? */
bool mcp_declares(const mcp_message_t *message, const char *one, const char *two);

/* Can a client with these capabilities show its user a form? */
bool mcp_shows_forms(bytes_t capabilities);
/* Is this of the one legacy version that has tasks? */
bool mcp_has_tasks(const mcp_message_t *message);

/* The tool that tools/call names and its arguments (size 0: none). */
mcp_refusal_t mcp_read_call(arena_t *arena, const mcp_message_t *message, const char **name,
                            bytes_t *arguments);

/* Is this a version of the legacy era? NULL: no. */
const char *mcp_legacy_version(const char *text);
/* That a version is not supported, and which are. */
extern const char mcp_versions_text[];

/* {"jsonrpc":"2.0","id":…,"error":…} */
void mcp_put_refusal(buf_t *out, const mcp_refusal_t *refusal);
/* {"jsonrpc":"2.0","id":…,"result":{ … the caller writes members, then mcp_close_result. In the
 * modern era the result begins with resultType and serverInfo. */
void mcp_open_result(buf_t *out, const mcp_message_t *message, const char *server_version);
void mcp_close_result(buf_t *out);
/* The same with another resultType; legacy messages have none. */
void mcp_open_result_of(buf_t *out, const mcp_message_t *message, const char *server_version,
                        const char *type);
/* ,"ttlMs":…,"cacheScope":… in the modern era. */
void mcp_put_cache(buf_t *out, const mcp_message_t *message);
/* A member of params._meta with the prefix of the specification; false when absent. */
bool mcp_meta(const mcp_message_t *message, const char *name, bytes_t *out);
/* 1 (debug) to 8 (emergency); 0: no level. */
int mcp_level(const char *name);
/* A log line; `logger` may be NULL. */
void mcp_put_log(buf_t *out, const char *level, const char *logger, const char *text);
/* Header Mcp-Param-<name> against the arguments, for every property of the tool's schema (msgpack)
 * that has x-mcp-header. */
mcp_refusal_t mcp_check_params(arena_t *arena, const mcp_message_t *message, bytes_t schema,
                               bytes_t arguments, const mcp_headers_t *headers);

/* "answer": of tools/call. `body` msgpack, may be empty; `text` for people. */
void mcp_put_tool_result(buf_t *out, const mcp_message_t *message, const char *server_version,
                         const char *text, bytes_t body, bool is_error);
void mcp_put_progress(buf_t *out, bytes_t token, bytes_t progress);

/* The members of a map behind what is written already. */
void mcp_put_members(buf_t *out, bytes_t map, bool comma);
/* As JSON text; "null" when it is none. */
const char *mcp_json(arena_t *arena, bytes_t value);
/* The same for people; "" when it is none. */
const char *mcp_pretty(arena_t *arena, bytes_t value);
/* "name":"text" */
void mcp_put_text(buf_t *out, const char *name, const char *text);

/* _meta.traceparent of a message; NULL when absent. */
const char *mcp_trace_of(arena_t *arena, const mcp_message_t *message);
/* A traceparent of W3C Trace Context, version 00; NULL when it is not one (or NULL). */
const char *mcp_traceparent(arena_t *arena, const char *text);

/* Decodes =?base64?…?= ; a value of another form is literal. NULL: bad padding or alphabet. */
const char *mcp_header_value(arena_t *arena, const char *value);

#endif
