/* Whatever a foreign server sends, as a stream of events that is cut anywhere (the first byte says
 * where), as lines, and as one message; and whatever mcp.json holds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "actors/outside/answer.h"
#include "actors/outside/config.h"
#include "actors/outside/wire.h"
#include "proto/json.h"
#include "proto/mp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LARGEST = 4096 };

static void read_tools(arena_t *arena, bytes_t list)
{
    bytes_t item;
    for (uint32_t i = 0; i < 100 && mp_at(list, i, &item); i++) {
        foreign_tool_t tool;
        if (!answer_tool(arena, item, &tool) || tool.problem)
            continue;
        if (!*tool.name || err_is(mp_check(tool.input)))
            abort();
        for (size_t j = 0; j < tool.header_count; j++)
            answer_header(arena, &tool.headers[j], list);
    }
}

static void read_message(arena_t *arena, const char *text, size_t size)
{
    json_limits_t limits = {.largest_bytes = LARGEST * 4};
    bytes_t value, tools, out;
    answer_t answer;
    const char *error;
    if (err_is(json_to_msgpack(arena, text, size, &limits, &value)) ||
        err_is(answer_read(arena, value, &answer)) || answer.kind != ANSWER_RESULT)
        return;
    if (!err_is(answer_value(arena, answer.result, &out, &error)) && err_is(mp_check(out)))
        abort(); /* what a step is given is always whole */
    if (mp_get(answer.result, "tools", &tools))
        read_tools(arena, tools);
}

static void on_event(void *ctx, const event_seen_t *event)
{
    if (event->size > LARGEST || (event->data && strlen(event->data) > event->size))
        abort();
    if (event->data)
        read_message(ctx, event->data, event->size);
}

static void on_line(void *ctx, const char *line, size_t size)
{
    if (size > LARGEST)
        abort();
    read_message(ctx, line, size);
}

static const char *variable(const char *name)
{
    return *name == 'P' ? "/bin" : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    arena_t *arena = arena_new();
    events_t *events = events_new(LARGEST);
    lines_t *lines = lines_new(LARGEST);
    config_t config;
    size_t step = (size_t)data[0] + 1;
    data++;
    size--;
    for (size_t at = 0; at < size; at += step) {
        bytes_t part = {data + at, size - at < step ? size - at : step};
        events_feed(events, part, on_event, arena);
        lines_feed(lines, part, on_line, arena);
    }
    read_message(arena, (const char *)data, size);
    answer_id((const char *)data, size);
    static const char url[] = "https://a.example:1/b/c?d";
    const char *text = arena_strndup(arena, (const char *)data, size);
    char *endpoint = pair_endpoint(url, text);
    if (endpoint && strncmp(endpoint, url, 19) != 0)
        abort(); /* another origin would be told our headers */
    free(endpoint);
    err_t err = config_parse((const char *)data, size, (config_limits_t){1 << 20, 64}, variable,
                             arena, &config);
    for (size_t i = 0; !err_is(err) && i < config.count; i++) {
        const config_server_t *server = &config.servers[i];
        if (!server->problem && !server->command == !server->url)
            abort();
        config_redact(server, server->name, arena);
    }
    lines_destroy(&lines);
    events_destroy(&events);
    arena_destroy(&arena);
    return 0;
}
