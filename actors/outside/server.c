#include "actors/outside/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/outside/server_parts.h"

enum { HEALTHY_MS = 30000 };

const char *const server_state_names[] = {"starting", "ready", "away", "wrong", "disabled", NULL};

int64_t server_now_us(const server_t *server)
{
    return actor_mono_us(server->world.actor);
}

void server_hurry(server_t *server, int64_t due_us)
{
    server->world.hurry(server->world.ctx, due_us);
}

void server_say(server_t *server, log_level_t level, const char *text)
{
    arena_t *arena = arena_new();
    const char *whole = arena_printf(arena, "mcp server %s %s", server->config->name, text);
    server->world.log(server->world.ctx, level, config_redact(server->config, whole, arena));
    arena_destroy(&arena);
}
/* ---- Life ---- */

static void tell_state(server_t *server, server_state_t state)
{
    server->state = state;
    server->since_us = server_now_us(server);
    server->since_ms = actor_wall_ms(server->world.actor);
}

/* The end of this life of the server; the wire is closed when nobody is inside it. */
void server_fail(server_t *server, const char *why)
{
    if (server->end_wire || server->state == SERVER_AWAY)
        return;
    if (server->state == SERVER_READY &&
        server_now_us(server) - server->since_us > HEALTHY_MS * INT64_C(1000))
        server->failures = 0;
    arena_t *arena = arena_new();
    why = config_redact(server->config, why, arena);
    bool news = strncmp(server->problem, why, sizeof(server->problem) - 1) != 0;
    snprintf(server->problem, sizeof(server->problem), "%s", why);
    if (news) /* the same again and again is said once */
        server_say(server, LOG_WARN, arena_printf(arena, "is away: %s", server->problem));
    arena_destroy(&arena);
    tell_state(server, SERVER_AWAY);
    server->end_wire = true;
    server_hurry(server, 0);
}

/* Outside of every callback: the wire is closed, whoever waits is told, the next start planned. */
static void end_life(server_t *server)
{
    server->end_wire = server->listens = server->list_again = false;
    if (server->wire)
        server->wire->ops->close(&server->wire);
    for (request_t *request = server->requests, *next; request; request = next) {
        next = request->next;
        if (!request->call)
            server_drop(request);
        else if (!request->held)
            server_end_call(request, END_UNKNOWN, (bytes_t){0},
                            arena_printf(call_arena(request->call), "the server %s was lost: %s",
                                         server->config->name, server->problem));
    }
    if (server->at_once) {
        server->at_once = false;
        server->due_us = server_now_us(server);
        return;
    }
    int64_t pause = server->world.settings->retry_ms;
    for (int64_t i = 0; i < server->failures && pause < server->world.settings->retry_longest_ms;
         i++)
        pause *= 2;
    if (pause > server->world.settings->retry_longest_ms)
        pause = server->world.settings->retry_longest_ms;
    server->failures++;
    server->due_us = server_now_us(server) + pause * 1000;
}

void server_on_ready(server_t *server)
{
    if (server->state != SERVER_READY)
        server_say(server, LOG_INFO, "is ready");
    if (server->state != SERVER_READY)
        tell_state(server, SERVER_READY);
    *server->problem = '\0';
    server->ping_us = server_now_us(server) + server->world.settings->ping_ms * 1000;
    server->due_us = INT64_MAX;
    server_hurry(server, server->ping_us);
    server_send_held(server);
}
static void on_end(void *ctx, const char *why)
{
    server_t *server = ctx;
    /* One that cannot bear a question of the newest era is asked in the old way. */
    for (request_t *at = server->requests; at; at = at->next)
        server->legacy_only = server->legacy_only || at->asked == ASKED_DISCOVER;
    server_fail(server, why);
}

static void on_line(void *ctx, const char *text)
{
    arena_t *arena = arena_new();
    server_say(ctx, LOG_INFO, arena_printf(arena, "says: %s", text));
    arena_destroy(&arena);
}

static void start(server_t *server)
{
    const outside_settings_t *settings = server->world.settings;
    wire_limits_t limits = {settings->message_bytes, settings->queue_bytes};
    wire_owner_t owner = {server_on_message, server_on_loss, on_end, on_line, server};
    tell_state(server, SERVER_STARTING);
    server->starts++;
    server->due_us = INT64_MAX;
    server->version = server->title = NULL;
    arena_reset(server->about_arena);
    err_t err = err_ok();
    if (server->config->sse)
        server->wire = pair_open(server->world.http, server->config, &limits, &owner);
    else if (server->config->url)
        server->wire = web_open(server->world.http, server->config, &limits, &owner);
    else
        err = pipe_open(server->world.children, server->config, &limits, &owner,
                        server->about_arena, &server->wire);
    if (err_is(err)) {
        server_fail(server, err_what(err));
        return;
    }
    server->modern = true;
    if (server->legacy_only || server->config->sse)
        server_initialize(server);
    else
        server_ask(server, ASKED_DISCOVER, "server/discover", "", settings->probe_ms);
}
/* ---- Time ---- */

static void on_late(server_t *server, request_t *request)
{
    asked_t asked = request->asked;
    int64_t id = request->id;
    server_drop(request);
    if (asked == ASKED_DISCOVER) {
        server->wire->ops->forget(server->wire, id);
        server_initialize(server);
    } else {
        server_fail(server, asked == ASKED_PING ? "it does not answer any more"
                                                : "it did not say in time what it has");
    }
}

static void look_at_requests(server_t *server, int64_t now, int64_t *next)
{
    for (request_t *at = server->requests; at; at = at->next) {
        if (at->call || at->due_us == INT64_MAX)
            continue;
        if (at->due_us <= now) {
            on_late(server, at);
            *next = now;
            return; /* the list has changed */
        }
        if (at->due_us < *next)
            *next = at->due_us;
    }
}

/* One that does not tell when its tools change is asked for them instead. */
static void ping(server_t *server)
{
    server->ping_us = INT64_MAX;
    if (!server->can_list_changes) {
        server_list_tools(server);
        return;
    }
    server_ask(server, ASKED_PING, server->modern ? "server/discover" : "ping", "",
               server->world.settings->ping_timeout_ms);
}

static int64_t sooner(int64_t one, int64_t other)
{
    return one < other ? one : other;
}

int64_t server_tend(server_t *server, int64_t now)
{
    int64_t next = INT64_MAX;
    if (server->state == SERVER_WRONG || server->state == SERVER_OFF)
        return next;
    if (server->wire && !server->end_wire)
        next = sooner(next, server->wire->ops->tend(server->wire, now));
    if (!server->end_wire)
        look_at_requests(server, now, &next);
    if (server->end_wire)
        end_life(server);
    if (server->state == SERVER_AWAY) {
        if (server->listing_arena)
            arena_destroy(&server->listing_arena);
        if (server->due_us <= now)
            start(server);
        else
            next = sooner(next, server->due_us);
    }
    if (server->end_wire)
        return now;
    if (server->state == SERVER_READY && server->ping_us <= now)
        ping(server);
    if (server->state == SERVER_READY)
        next = sooner(next, server->ping_us);
    if (server->state == SERVER_READY && server->modern && !server->listens &&
        server->can_list_changes) {
        if (server->listen_us <= now)
            server_listen(server);
        else
            next = sooner(next, server->listen_us);
    }
    return next;
}
/* ---- Asking about it ---- */

server_t *server_new(const server_world_t *world, const config_server_t *config, arena_t *arena)
{
    server_t *server = calloc(1, sizeof(*server));
    if (!server)
        abort();
    *server = (server_t){.world = *world,
                         .arena = arena,
                         .config = config,
                         .about_arena = arena_new(),
                         .ping_us = INT64_MAX};
    tell_state(server, config->disabled  ? SERVER_OFF
                       : config->problem ? SERVER_WRONG
                                         : SERVER_AWAY);
    if (config->problem) {
        snprintf(server->problem, sizeof(server->problem), "%s", config->problem);
        arena_t *words = arena_new();
        server_say(server, LOG_ERROR, arena_printf(words, "cannot be used: %s", server->problem));
        arena_destroy(&words);
    }
    return server;
}

void server_destroy(server_t **handle)
{
    server_t *server = *handle;
    if (!server)
        return;
    *handle = NULL;
    snprintf(server->problem, sizeof(server->problem), "mcp.json has changed, or the agency stops");
    for (request_t *at = server->requests; at; at = at->next)
        at->held = false;
    end_life(server);
    if (server->tools_arena)
        arena_destroy(&server->tools_arena);
    if (server->listing_arena)
        arena_destroy(&server->listing_arena);
    arena_destroy(&server->about_arena);
    arena_destroy(&server->arena);
    free(server);
}

const config_server_t *server_config(const server_t *server)
{
    return server->config;
}

server_state_t server_state(const server_t *server)
{
    return server->state;
}

const char *server_problem(const server_t *server)
{
    return *server->problem ? server->problem : NULL;
}

const foreign_tool_t *server_tools(const server_t *server, size_t *count)
{
    *count = server->tool_count;
    return server->tools;
}

const foreign_tool_t *server_tool(const server_t *server, const char *name)
{
    for (size_t i = 0; i < server->tool_count; i++)
        if (!strcmp(server->tools[i].name, name))
            return &server->tools[i];
    return NULL;
}

void server_facts(const server_t *server, server_facts_t *out)
{
    *out = (server_facts_t){.transport = server->config->sse   ? "sse"
                                         : server->config->url ? "http"
                                                               : "stdio",
                            .version = server->version,
                            .title = server->title,
                            .since_ms = server->since_ms,
                            .starts = server->starts,
                            .calls = server->calls,
                            .errors = server->errors,
                            .open_calls = server->open_calls,
                            .dropped_tools = (int64_t)server->dropped};
}
