/* server_begin: what a server speaks, who it is, and which tools it has. */
#include "actors/outside/server_parts.h"

#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

/* ---- Beginning ---- */

static const char *keep_about(server_t *server, bytes_t value)
{
    const char *text = mp_text(server->about_arena, value);
    return text && strlen(text) <= 200 ? text : NULL;
}

void server_initialize(server_t *server)
{
    server->modern = false;
    server_ask(
        server, ASKED_INITIALIZE, "initialize",
        "\"protocolVersion\":\"" NEWEST_LEGACY
        "\",\"capabilities\":{},\"clientInfo\":{\"name\":\"agency\",\"version\":\"" AGENCY_VERSION
        "\"}",
        server->world.settings->start_ms);
}

static bool speaks(bytes_t versions, const char *version)
{
    bytes_t item;
    for (uint32_t i = 0; i < 64 && mp_at(versions, i, &item); i++)
        if (mp_equals(item, version))
            return true;
    return false;
}

static void note_capabilities(server_t *server, bytes_t result)
{
    bytes_t capabilities, tools, field;
    bool changes = false;
    server->can_list_changes =
        mp_get(result, "capabilities", &capabilities) && mp_get(capabilities, "tools", &tools) &&
        mp_get(tools, "listChanged", &field) && mp_bool(field, &changes) && changes;
}

void server_listen(server_t *server)
{
    if (!server->can_list_changes || server->listens || server->state == SERVER_AWAY)
        return;
    server->listens = true;
    server_ask(server, ASKED_LISTEN, "subscriptions/listen",
               "\"notifications\":{\"toolsListChanged\":true}", 0);
}

void server_on_discovered(server_t *server, bytes_t result)
{
    bytes_t versions, info, field;
    if (!mp_get(result, "supportedVersions", &versions) || !speaks(versions, MODERN)) {
        server_initialize(server);
        return;
    }
    server->version = MODERN;
    if (mp_get(result, "_meta", &info) && mp_get(info, META "serverInfo", &info) &&
        mp_get(info, "name", &field))
        server->title = keep_about(server, field);
    note_capabilities(server, result);
    server_listen(server);
    server_list_tools(server);
}

void server_on_initialized(server_t *server, bytes_t result)
{
    bytes_t field, info;
    static const char *const known[] = {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05",
                                        NULL};
    const char *version =
        mp_get(result, "protocolVersion", &field) ? keep_about(server, field) : NULL;
    bool good = false;
    for (int i = 0; version && known[i]; i++)
        good = good || !strcmp(known[i], version);
    if (!good) {
        server_fail(server, "it speaks no version of the protocol that we know");
        return;
    }
    server->version = version;
    if (mp_get(result, "serverInfo", &info) && mp_get(info, "name", &field))
        server->title = keep_about(server, field);
    server_note(server, "notifications/initialized", "");
    server->wire->ops->listen(server->wire, version);
    server_list_tools(server);
}

/* ---- Listing ---- */

static void ask_page(server_t *server, const char *cursor)
{
    arena_t *arena = arena_new();
    buf_t params;
    buf_open(&params, arena);
    if (cursor) {
        buf_puts(&params, "\"cursor\":");
        json_put_string(&params, cursor, strlen(cursor));
    }
    server_ask(server, ASKED_TOOLS, "tools/list", params.data, server->world.settings->start_ms);
    arena_destroy(&arena);
}

void server_list_tools(server_t *server)
{
    if (server->listing_arena) { /* it changed meanwhile */
        server->list_again = true;
        return;
    }
    server->list_again = false;
    server->listing_arena = arena_new();
    server->listing =
        ARENA_ARRAY(server->listing_arena, foreign_tool_t, (size_t)server->world.settings->tools);
    server->listing_count = server->listing_dropped = 0;
    server->pages = 0;
    ask_page(server, NULL);
}

static void end_listing(server_t *server)
{
    if (server->tools_arena)
        arena_destroy(&server->tools_arena);
    server->tools_arena = server->listing_arena;
    server->tools = server->listing;
    server->tool_count = server->listing_count;
    server->dropped = server->listing_dropped;
    server->listing_arena = NULL;
    server_on_ready(server);
    if (server->list_again)
        server_list_tools(server);
}

void server_take_page(server_t *server, bytes_t result)
{
    bytes_t tools, item, cursor;
    mp_value_t head;
    if (!server->listing_arena)
        return;
    if (!mp_get(result, "tools", &tools)) {
        server_fail(server, "its answer to tools/list has no tools");
        return;
    }
    mp_reader_t reader = mp_reader(tools);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        head.count = 0;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
        foreign_tool_t tool;
        if ((int64_t)server->listing_count == server->world.settings->tools ||
            !answer_tool(server->listing_arena, item, &tool))
            server->listing_dropped++;
        else if (config_offers(server->config, tool.name))
            server->listing[server->listing_count++] = tool;
    }
    const char *next =
        mp_get(result, "nextCursor", &cursor) ? mp_text(server->listing_arena, cursor) : NULL;
    if (!next || ++server->pages >= server->world.settings->pages)
        end_listing(server);
    else
        ask_page(server, next);
}
