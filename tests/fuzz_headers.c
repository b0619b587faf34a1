/* Values of headers as clients send them, one a line: Accept, Host, Origin, Authorization,
 * Last-Event-ID, traceparent, a value in the Base64 form of MCP, Mcp-Param-X with its argument
 * (JSON), and Content-Type. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "actors/gateway/headers.h"
#include "actors/gateway/mcp.h"
#include "proto/json.h"
#include "proto/mp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *get(void *ctx, const char *name)
{
    return !strcmp(name, "Mcp-Param-X") ? ctx : NULL;
}

static void check_param(arena_t *arena, const char *header, const char *argument)
{
    static const char schema[] =
        "{\"properties\":{\"x\":{\"type\":\"string\",\"x-mcp-header\":\"X\"},"
        "\"y\":{\"properties\":{\"z\":{\"x-mcp-header\":\"X\"}}}}}";
    bytes_t rules, value;
    mcp_message_t message = {.modern = true};
    mcp_headers_t headers = {get, (void *)header};
    if (err_is(json_to_msgpack(arena, schema, sizeof(schema) - 1, NULL, &rules)))
        abort();
    if (err_is(json_to_msgpack(arena, argument, strlen(argument), NULL, &value)))
        return;
    mcp_check_params(arena, &message, rules, value, &headers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { LINES = 10 };
    arena_t *arena = arena_new();
    char *text = arena_strndup(arena, (const char *)data, size), *state = NULL;
    const char *line[LINES] = {"", "", "", "", "", "", "", "", "", ""};
    size_t stream_size;
    int number;
    for (int i = 0; i < LINES; i++) {
        char *next = strtok_r(i ? NULL : text, "\n", &state);
        line[i] = next ? next : "";
    }
    bool named = headers_accept_named(line[0], "text/event-stream");
    if (named && !headers_accept(line[0], "text/event-stream"))
        abort(); /* what is named is let through */
    /* Only these spellings are this machine's own. */
    if (headers_host_is_loopback(line[1]) && strncasecmp(line[1], "localhost", 9) != 0 &&
        strncmp(line[1], "127.0.0.1", 9) != 0 && strncmp(line[1], "[::1]", 5) != 0)
        abort();
    if (headers_origin_is_loopback(line[2]) && strchr(line[2], '@'))
        abort();
    const char *token = headers_bearer(line[3]);
    if (token && !*token)
        abort();
    if (headers_event_id(line[4], &stream_size, &number) &&
        (number < 0 || stream_size >= strlen(line[4])))
        abort();
    const char *trace = mcp_traceparent(arena, line[5]);
    if (trace && strlen(trace) != 55)
        abort();
    const char *value = mcp_header_value(arena, line[6]);
    if (value && value != line[6] && !mp_utf8(value, strlen(value)))
        abort();
    check_param(arena, line[7], line[8]);
    if (headers_is_json(line[9]) && strncasecmp(line[9], "application/json", 16) != 0)
        abort();
    arena_destroy(&arena);
    return 0;
}
