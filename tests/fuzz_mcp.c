/* Whatever a client sends to /mcp: the first line is the headers that MCP mirrors (split by '|'),
 * the rest is the body. */
#include <stdint.h>
#include <string.h>

#include "actors/gateway/mcp.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct given {
    const char *version, *method, *name;
} given_t;

static const char *get(void *ctx, const char *name)
{
    const given_t *given = ctx;
    if (!strcmp(name, "MCP-Protocol-Version"))
        return given->version;
    if (!strcmp(name, "Mcp-Method"))
        return given->method;
    return !strcmp(name, "Mcp-Name") ? given->name : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    const uint8_t *line = memchr(data, '\n', size);
    size_t head = line ? (size_t)(line - data) : 0;
    char *headers = arena_strndup(arena, (const char *)data, head), *state = NULL;
    given_t given = {strtok_r(headers, "|", &state), strtok_r(NULL, "|", &state),
                     strtok_r(NULL, "|", &state)};
    mcp_headers_t lookup = {get, &given};
    size_t skip = line ? head + 1 : 0;
    bytes_t value, arguments;
    mcp_message_t message;
    const char *name;
    if (!err_is(json_to_msgpack(arena, (const char *)data + skip, size - skip, NULL, &value))) {
        mcp_refusal_t refusal = mcp_read(arena, value, &lookup, &message);
        buf_t out;
        buf_open(&out, arena);
        if (refusal.status)
            mcp_put_refusal(&out, &refusal);
        else if (message.kind == MCP_REQUEST &&
                 !mcp_read_call(arena, &message, &name, &arguments).status)
            mcp_put_tool_result(&out, &message, "0", NULL, arguments, false);
        bytes_t again;
        if (out.size && err_is(json_to_msgpack(arena, out.data, out.size, NULL, &again)))
            __builtin_trap(); /* what we answer is always JSON */
    }
    arena_destroy(&arena);
    return 0;
}
