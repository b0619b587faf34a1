#include "actors/outside/server.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

#define MODERN "2026-07-28"
#define NEWEST_LEGACY "2025-11-25"
#define META "io.modelcontextprotocol/"

enum { HEALTHY_MS = 30000, STALE_RETRY_MS = 5000 };

const char *const server_state_names[] = {"starting", "ready", "away", "wrong", "disabled", NULL};

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

static int64_t now_us(const server_t *server)
{
    return actor_mono_us(server->world.actor);
}

static void hurry(server_t *server, int64_t due_us)
{
    server->world.hurry(server->world.ctx, due_us);
}

static void say(server_t *server, log_level_t level, const char *text)
{
    arena_t *arena = arena_new();
    const char *whole = arena_printf(arena, "mcp server %s %s", server->config->name, text);
    server->world.log(server->world.ctx, level, config_redact(server->config, whole, arena));
    arena_destroy(&arena);
}

/* ---- Requests ---- */

static void say_passed_over(server_t *server, err_t err)
{
    arena_t *arena = arena_new();
    say(server, LOG_WARN,
        arena_printf(arena, "sent something that is passed over: %s", err_what(err)));
    arena_destroy(&arena);
}

static request_t *find(const server_t *server, int64_t id)
{
    request_t *at = server->requests;
    while (at && at->id != id)
        at = at->next;
    return at;
}

static void unlink_request(request_t *request)
{
    server_t *server = request->server;
    request_t **at = &server->requests;
    while (*at && *at != request)
        at = &(*at)->next;
    if (*at)
        *at = request->next;
    if (request->call)
        server->open_calls--;
}

static void drop(request_t *request)
{
    unlink_request(request);
    if (!request->call) /* else it lives in the call's arena */
        free(request);
}

static err_t on_over(void *self, call_t *call, void *reply, void *ctx)
{
    const request_t *request = ctx;
    call_on_gone(call, NULL, NULL);
    return request->fn(self, call, reply, &request->outcome);
}

/* Nothing of the request is the server's after it. */
static void settle(request_t *request, call_end_t end, bytes_t value, const char *text)
{
    server_t *server = request->server;
    arena_t *arena = call_arena(request->call);
    request->over = true;
    request->outcome = (server_outcome_t){
        end, value, config_redact(server->config, arena_strdup(arena, text ? text : ""), arena)};
    server->errors += end != END_DONE;
    unlink_request(request);
}

/* The caller goes on with this outcome. */
static void end_call(request_t *request, call_end_t end, bytes_t value, const char *text)
{
    if (request->over)
        return;
    settle(request, end, value, text);
    actor_resume(request->server->world.actor, request->call, on_over, request);
}

static bool transmit(server_t *server, int64_t id, const buf_t *json, const char *method,
                     const char *name, const char *const *more, int64_t timeout_ms)
{
    const char *headers[24] = {NULL};
    size_t count = 0;
    arena_t *arena = json->arena;
    if (server->modern) {
        headers[count++] = "MCP-Protocol-Version: " MODERN;
        headers[count++] = arena_printf(arena, "Mcp-Method: %s", method);
        if (name)
            headers[count++] = arena_printf(arena, "Mcp-Name: %s", answer_header_text(arena, name));
    }
    for (; more && *more && count < 22; more++)
        headers[count++] = *more;
    wire_message_t message = {
        .id = id, .json = buf_bytes(json), .headers = headers, .timeout_ms = timeout_ms};
    return server->wire && server->wire->ops->send(server->wire, &message);
}

static void put_meta(const server_t *server, const request_t *request, buf_t *out)
{
    bool effect = request->effect && *request->effect;
    if (!server->modern && request->asked != ASKED_CALL)
        return;
    buf_puts(out, "\"_meta\":{");
    if (server->modern)
        buf_puts(out, "\"" META "protocolVersion\":\"" MODERN "\",\"" META
                      "clientCapabilities\":{},\"" META
                      "clientInfo\":{\"name\":\"agency\",\"version\":\"" AGENCY_VERSION "\"}");
    if (request->asked == ASKED_CALL) {
        buf_printf(out, "%s\"progressToken\":%" PRId64, server->modern ? "," : "", request->id);
        if (effect) {
            buf_puts(out, ",\"agency/effect\":");
            json_put_string(out, request->effect, strlen(request->effect));
        }
    }
    buf_puts(out, "}");
}

/* {"jsonrpc":"2.0","id":…,"method":…,"params":{ … the caller goes on, then close_params. */
static void open_params(const server_t *server, const request_t *request, const char *method,
                        buf_t *out, arena_t *arena)
{
    buf_open(out, arena);
    buf_printf(out, "{\"jsonrpc\":\"2.0\",\"id\":%" PRId64 ",\"method\":\"%s\",\"params\":{",
               request->id, method);
    put_meta(server, request, out);
}

static void note(server_t *server, const char *method, const char *params)
{
    arena_t *arena = arena_new();
    buf_t json;
    const char *version = arena_printf(arena, "MCP-Protocol-Version: %s",
                                       server->version ? server->version : NEWEST_LEGACY);
    const char *headers[] = {version, NULL};
    bool first = !strcmp(method, "notifications/initialized");
    buf_open(&json, arena);
    buf_printf(&json, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\"%s%s%s}", method,
               *params ? ",\"params\":{" : "", params, *params ? "}" : "");
    transmit(server, -1, &json, method, NULL, first ? headers : NULL, 10000);
    arena_destroy(&arena);
}

static void fail(server_t *server, const char *why);

/* A question of our own. `params` are members behind _meta, "" for none. */
static void ask(server_t *server, asked_t asked, const char *method, const char *params,
                int64_t timeout_ms)
{
    request_t *request = calloc(1, sizeof(*request));
    if (!request)
        abort();
    *request = (request_t){.next = server->requests,
                           .server = server,
                           .id = ++server->next_id,
                           .asked = asked,
                           .due_us = timeout_ms ? now_us(server) + timeout_ms * 1000 : INT64_MAX};
    server->requests = request;
    arena_t *arena = arena_new();
    buf_t json;
    open_params(server, request, method, &json, arena);
    buf_printf(&json, "%s%s}}", *params && json.data[json.size - 1] == '}' ? "," : "", params);
    bool taken = transmit(server, request->id, &json, method, NULL, NULL, timeout_ms);
    arena_destroy(&arena);
    if (!taken)
        fail(server, "it does not read what it is sent");
    else if (timeout_ms)
        hurry(server, request->due_us);
}

/* ---- Life ---- */

static void tell_state(server_t *server, server_state_t state)
{
    server->state = state;
    server->since_us = now_us(server);
    server->since_ms = actor_wall_ms(server->world.actor);
}

/* The end of this life of the server; the wire is closed when nobody is inside it. */
static void fail(server_t *server, const char *why)
{
    if (server->end_wire || server->state == SERVER_AWAY)
        return;
    if (server->state == SERVER_READY &&
        now_us(server) - server->since_us > HEALTHY_MS * INT64_C(1000))
        server->failures = 0;
    arena_t *arena = arena_new();
    why = config_redact(server->config, why, arena);
    bool news = strncmp(server->problem, why, sizeof(server->problem) - 1) != 0;
    snprintf(server->problem, sizeof(server->problem), "%s", why);
    if (news) /* the same again and again is said once */
        say(server, LOG_WARN, arena_printf(arena, "is away: %s", server->problem));
    arena_destroy(&arena);
    tell_state(server, SERVER_AWAY);
    server->end_wire = true;
    hurry(server, 0);
}

static void start(server_t *server);

/* Outside of every callback: the wire is closed, whoever waits is told, the next start planned. */
static void end_life(server_t *server)
{
    server->end_wire = server->listens = server->list_again = false;
    if (server->wire)
        server->wire->ops->close(&server->wire);
    for (request_t *request = server->requests, *next; request; request = next) {
        next = request->next;
        if (!request->call)
            drop(request);
        else if (!request->held)
            end_call(request, END_UNKNOWN, (bytes_t){0},
                     arena_printf(call_arena(request->call), "the server %s was lost: %s",
                                  server->config->name, server->problem));
    }
    if (server->at_once) {
        server->at_once = false;
        server->due_us = now_us(server);
        return;
    }
    int64_t pause = server->world.settings->retry_ms;
    for (int64_t i = 0; i < server->failures && pause < server->world.settings->retry_longest_ms;
         i++)
        pause *= 2;
    if (pause > server->world.settings->retry_longest_ms)
        pause = server->world.settings->retry_longest_ms;
    server->failures++;
    server->due_us = now_us(server) + pause * 1000;
}

static void send_held(server_t *server);

static void on_ready(server_t *server)
{
    if (server->state != SERVER_READY)
        say(server, LOG_INFO, "is ready");
    if (server->state != SERVER_READY)
        tell_state(server, SERVER_READY);
    *server->problem = '\0';
    server->ping_us = now_us(server) + server->world.settings->ping_ms * 1000;
    server->due_us = INT64_MAX;
    hurry(server, server->ping_us);
    send_held(server);
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
    ask(server, ASKED_TOOLS, "tools/list", params.data, server->world.settings->start_ms);
    arena_destroy(&arena);
}

static void list_tools(server_t *server)
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
    on_ready(server);
    if (server->list_again)
        list_tools(server);
}

static void take_page(server_t *server, bytes_t result)
{
    bytes_t tools, item, cursor;
    mp_value_t head;
    if (!server->listing_arena)
        return;
    if (!mp_get(result, "tools", &tools)) {
        fail(server, "its answer to tools/list has no tools");
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

/* ---- Beginning ---- */

static const char *keep_about(server_t *server, bytes_t value)
{
    const char *text = mp_text(server->about_arena, value);
    return text && strlen(text) <= 200 ? text : NULL;
}

static void initialize(server_t *server)
{
    server->modern = false;
    ask(server, ASKED_INITIALIZE, "initialize",
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

static void listen_modern(server_t *server)
{
    if (!server->can_list_changes || server->listens || server->state == SERVER_AWAY)
        return;
    server->listens = true;
    ask(server, ASKED_LISTEN, "subscriptions/listen",
        "\"notifications\":{\"toolsListChanged\":true}", 0);
}

static void on_discovered(server_t *server, bytes_t result)
{
    bytes_t versions, info, field;
    if (!mp_get(result, "supportedVersions", &versions) || !speaks(versions, MODERN)) {
        initialize(server);
        return;
    }
    server->version = MODERN;
    if (mp_get(result, "_meta", &info) && mp_get(info, META "serverInfo", &info) &&
        mp_get(info, "name", &field))
        server->title = keep_about(server, field);
    note_capabilities(server, result);
    listen_modern(server);
    list_tools(server);
}

static void on_initialized(server_t *server, bytes_t result)
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
        fail(server, "it speaks no version of the protocol that we know");
        return;
    }
    server->version = version;
    if (mp_get(result, "serverInfo", &info) && mp_get(info, "name", &field))
        server->title = keep_about(server, field);
    note(server, "notifications/initialized", "");
    server->wire->ops->listen(server->wire, version);
    list_tools(server);
}

static void on_message(void *ctx, const char *json, size_t size);
static void on_loss(void *ctx, int64_t id, wire_loss_t loss, const char *why);

static void on_end(void *ctx, const char *why)
{
    server_t *server = ctx;
    /* One that cannot bear a question of the newest era is asked in the old way. */
    for (request_t *at = server->requests; at; at = at->next)
        server->legacy_only = server->legacy_only || at->asked == ASKED_DISCOVER;
    fail(server, why);
}

static void on_line(void *ctx, const char *text)
{
    arena_t *arena = arena_new();
    say(ctx, LOG_INFO, arena_printf(arena, "says: %s", text));
    arena_destroy(&arena);
}

static void start(server_t *server)
{
    const outside_settings_t *settings = server->world.settings;
    wire_limits_t limits = {settings->message_bytes, settings->queue_bytes};
    wire_owner_t owner = {on_message, on_loss, on_end, on_line, server};
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
        fail(server, err_what(err));
        return;
    }
    server->modern = true;
    if (server->legacy_only || server->config->sse)
        initialize(server);
    else
        ask(server, ASKED_DISCOVER, "server/discover", "", settings->probe_ms);
}

/* ---- What it says ---- */

static err_t on_progress(void *self, call_t *call, void *reply, void *ctx)
{
    request_t *request = ctx;
    (void)self;
    (void)reply;
    request->progress = false;
    call_progress(call, request->done, request->total, NULL);
    return call_park(call);
}

/* Only the latest is told: a server that says too much costs nobody anything. */
static void take_progress(server_t *server, bytes_t params)
{
    bytes_t token, field;
    int64_t id;
    if (!mp_get(params, "progressToken", &token) || !mp_int(token, &id))
        return;
    request_t *request = find(server, id);
    if (!request || !request->call || request->over || !mp_get(params, "progress", &field) ||
        !mp_real(field, &request->done))
        return;
    if (mp_get(params, "total", &field))
        mp_real(field, &request->total);
    if (request->progress)
        return;
    request->progress = true;
    actor_resume(server->world.actor, request->call, on_progress, request);
}

static void on_note(server_t *server, const answer_t *answer)
{
    if (!strcmp(answer->method, "notifications/tools/list_changed"))
        list_tools(server);
    else if (!strcmp(answer->method, "notifications/progress"))
        take_progress(server, answer->params);
}

/* It may ask whether we live; we have declared nothing else that it could ask for. */
static void on_question(server_t *server, const answer_t *answer)
{
    arena_t *arena = arena_new();
    buf_t json;
    buf_open(&json, arena);
    buf_puts(&json, "{\"jsonrpc\":\"2.0\",\"id\":");
    bool fine = answer->raw_id.size < 300 &&
                !err_is(json_from_msgpack(answer->raw_id, JSON_COMPACT, &json));
    if (!strcmp(answer->method, "ping"))
        buf_puts(&json, ",\"result\":{}}");
    else
        buf_puts(&json,
                 ",\"error\":{\"code\":-32601,\"message\":\"this client does not do that\"}}");
    if (fine)
        transmit(server, -1, &json, "ping", NULL, NULL, 10000);
    arena_destroy(&arena);
}

static void end_with_result(request_t *request, bytes_t result)
{
    arena_t *arena = call_arena(request->call);
    bytes_t value = {0}, copy = {arena_copy(arena, result.data, result.size), result.size};
    const char *error;
    err_t err = answer_value(arena, copy, &value, &error);
    if (err_is(err))
        end_call(request, END_FAILED, (bytes_t){0}, err_what(err));
    else
        end_call(request, error ? END_FAILED : END_DONE, value, error);
}

/* JSON-RPC's own words for: this was not even begun. */
static bool not_begun(int64_t code)
{
    return code == -32601 || code == -32602 || code == -32600 || code == -32700 ||
           (code <= -32020 && code >= -32022);
}

static void end_with_error(request_t *request, const answer_t *answer)
{
    end_call(request, not_begun(answer->code) ? END_REFUSED : END_FAILED, (bytes_t){0},
             arena_printf(call_arena(request->call), "%s (MCP error %" PRId64 ")", answer->message,
                          answer->code));
}

static void on_answer(server_t *server, request_t *request, const answer_t *answer)
{
    bool good = answer->kind == ANSWER_RESULT;
    asked_t asked = request->asked;
    if (asked == ASKED_CALL) {
        if (good)
            end_with_result(request, answer->result);
        else
            end_with_error(request, answer);
        return;
    }
    drop(request);
    if (server->end_wire)
        return; /* this life is over: nothing makes it ready again */
    if (asked == ASKED_DISCOVER) {
        if (good)
            on_discovered(server, answer->result);
        else
            initialize(server);
    } else if (asked == ASKED_LISTEN) {
        server->can_list_changes = good; /* closed in good order, or it does not have that */
        server->listens = false;
        server->listen_us = now_us(server) + STALE_RETRY_MS * INT64_C(1000);
    } else if (asked == ASKED_PING) {
        on_ready(server); /* an error is an answer as well */
    } else if (!good) {
        arena_t *arena = arena_new();
        fail(server, arena_printf(arena, "%s: %s (MCP error %" PRId64 ")",
                                  asked == ASKED_TOOLS ? "tools/list" : "initialize",
                                  answer->message, answer->code));
        arena_destroy(&arena);
    } else if (asked == ASKED_INITIALIZE) {
        on_initialized(server, answer->result);
    } else {
        take_page(server, answer->result);
    }
}

static void take(server_t *server, arena_t *arena, bytes_t value)
{
    answer_t answer;
    err_t err = answer_read(arena, value, &answer);
    if (err_is(err)) {
        say_passed_over(server, err);
        return;
    }
    if (answer.kind == ANSWER_REQUEST) {
        on_question(server, &answer);
    } else if (answer.kind == ANSWER_NOTE) {
        on_note(server, &answer);
    } else {
        request_t *request = find(server, answer.id);
        if (request)
            on_answer(server, request, &answer);
    }
}

/* Who waits for it need not wait until the time is up. */
static void on_unreadable(server_t *server, int64_t id, err_t err)
{
    request_t *request = find(server, id);
    arena_t *arena = arena_new();
    const char *why = arena_printf(arena, "its answer cannot be read: %s", err_what(err));
    if (!request) {
        say_passed_over(server, err);
    } else if (request->asked == ASKED_CALL) {
        end_call(request, END_UNKNOWN, (bytes_t){0}, why);
    } else {
        drop(request);
        fail(server, why);
    }
    arena_destroy(&arena);
}

static void on_message(void *ctx, const char *json, size_t size)
{
    server_t *server = ctx;
    arena_t *arena = arena_new();
    bytes_t value, item;
    mp_type_t type;
    json_limits_t limits = {.largest_bytes = (size_t)server->world.settings->message_bytes,
                            .deepest = (unsigned)server->world.settings->depth};
    err_t err = json_to_msgpack(arena, json, size, &limits, &value);
    if (err_is(err)) {
        on_unreadable(server, answer_id(json, size), err);
    } else if (mp_type_of(value, &type) && type == MP_ARRAY) { /* a batch of 2025-03-26 */
        mp_value_t head;
        mp_reader_t reader = mp_reader(value);
        mp_read(&reader, &head);
        for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++)
            take(server, arena, item);
    } else {
        take(server, arena, value);
    }
    arena_destroy(&arena);
}

/* ---- What is lost ---- */

static void lose_call(server_t *server, request_t *request, wire_loss_t loss, const char *why)
{
    if (loss == LOSS_SESSION && !request->again) { /* it was not taken: once more, in a new one */
        request->held = request->again = true;
        return;
    }
    static const call_end_t ends[] = {[LOSS_UNSENT] = END_UNSENT,
                                      [LOSS_REFUSED] = END_REFUSED,
                                      [LOSS_SESSION] = END_UNSENT,
                                      [LOSS_UNKNOWN] = END_UNKNOWN};
    end_call(request, ends[loss], (bytes_t){0},
             arena_printf(call_arena(request->call), "%s: %s", server->config->name, why));
}

static void on_loss(void *ctx, int64_t id, wire_loss_t loss, const char *why)
{
    server_t *server = ctx;
    request_t *request = find(server, id);
    if (!request)
        return;
    asked_t asked = request->asked;
    if (asked == ASKED_CALL)
        lose_call(server, request, loss, why);
    else
        drop(request);
    if (asked == ASKED_LISTEN) {
        server->listens = false;
        server->can_list_changes = server->can_list_changes && loss == LOSS_UNKNOWN;
        server->listen_us = now_us(server) + STALE_RETRY_MS * INT64_C(1000);
        hurry(server, server->listen_us);
    } else if (asked == ASKED_DISCOVER && loss != LOSS_UNSENT) {
        initialize(server);
    } else if (asked != ASKED_CALL || loss == LOSS_SESSION) {
        /* One that forgets each session before it was of use is asked less and less often. */
        bool lived = server->state == SERVER_READY;
        fail(server, why);
        server->at_once = server->at_once || (loss == LOSS_SESSION && lived);
    }
}

/* ---- Time ---- */

static void on_late(server_t *server, request_t *request)
{
    asked_t asked = request->asked;
    int64_t id = request->id;
    drop(request);
    if (asked == ASKED_DISCOVER) {
        server->wire->ops->forget(server->wire, id);
        initialize(server);
    } else {
        fail(server, asked == ASKED_PING ? "it does not answer any more"
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
        list_tools(server);
        return;
    }
    ask(server, ASKED_PING, server->modern ? "server/discover" : "ping", "",
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
            listen_modern(server);
        else
            next = sooner(next, server->listen_us);
    }
    return next;
}

/* ---- Calls ---- */

static bool send_call(request_t *request)
{
    server_t *server = request->server;
    const foreign_tool_t *tool = request->tool;
    arena_t *arena = call_arena(request->call);
    buf_t json;
    open_params(server, request, "tools/call", &json, arena);
    buf_puts(&json, ",\"name\":");
    json_put_string(&json, tool->name, strlen(tool->name));
    buf_puts(&json, ",\"arguments\":");
    if (!request->arguments.size)
        buf_puts(&json, "{}");
    else if (err_is(json_from_msgpack(request->arguments, JSON_COMPACT, &json)))
        return false;
    buf_puts(&json, "}}");
    const char *more[24] = {NULL};
    size_t count = 0;
    for (size_t i = 0; server->modern && i < tool->header_count && count < 20; i++) {
        const char *value = answer_header(arena, &tool->headers[i], request->arguments);
        if (value)
            more[count++] = arena_printf(arena, "Mcp-Param-%s: %s", tool->headers[i].name, value);
    }
    return transmit(server, request->id, &json, "tools/call", tool->name, more,
                    request->timeout_ms);
}

static void send_held(server_t *server)
{
    for (request_t *request = server->requests, *next; request; request = next) {
        next = request->next;
        if (!request->held)
            continue;
        request->held = false;
        request->tool = server_tool(server, request->tool->name);
        if (!request->tool)
            end_call(request, END_REFUSED, (bytes_t){0}, "the server has no such tool any more");
        else if (!send_call(request))
            end_call(request, END_UNSENT, (bytes_t){0}, "the server has too much to do");
    }
}

/* Nobody waits any more: the server is told, as its era has it. */
static void cancel(request_t *request, const char *why)
{
    server_t *server = request->server;
    char params[160];
    bool pipe = server->config->command != NULL;
    if (!server->wire || server->end_wire || request->held)
        return;
    if (pipe || !server->modern) {
        snprintf(params, sizeof(params), "\"requestId\":%" PRId64 ",\"reason\":\"%s\"", request->id,
                 why);
        note(server, "notifications/cancelled", params);
    }
    server->wire->ops->forget(server->wire, request->id);
}

static void on_gone(void *self, call_t *call, void *ctx)
{
    request_t *request = ctx;
    (void)self;
    (void)call;
    if (request->over)
        return;
    request->over = true;
    cancel(request, "the caller has gone");
    request->server->errors++;
    unlink_request(request);
}

static err_t on_timeout(void *self, call_t *call, void *reply, void *ctx)
{
    request_t *request = ctx;
    if (request->over) /* its outcome is on the way */
        return call_park(call);
    cancel(request, "it took too long");
    settle(request, request->held ? END_UNSENT : END_UNKNOWN, (bytes_t){0},
           arena_printf(call_arena(call), "%s did not answer within %" PRId64 " ms",
                        request->server->config->name, request->timeout_ms));
    return on_over(self, call, reply, request);
}

err_t server_call(server_t *server, call_t *call, const foreign_tool_t *tool, bytes_t arguments,
                  const char *effect, int64_t timeout_ms, void *reply, server_fn_t *fn)
{
    server_outcome_t busy = {
        .end = END_UNSENT,
        .text = arena_printf(call_arena(call), "%s has too much to do", server->config->name)};
    server->calls++;
    if (server->open_calls >= server->world.settings->calls)
        return fn(call_self(call), call, reply, &busy);
    arena_t *arena = call_arena(call);
    request_t *request = ARENA_NEW(arena, request_t);
    foreign_tool_t *copy = ARENA_NEW(arena, foreign_tool_t);
    *copy = *tool; /* a new list may come while it is under way; then only its name is used */
    copy->name = arena_strdup(arena, tool->name);
    *request = (request_t){.next = server->requests,
                           .server = server,
                           .id = ++server->next_id,
                           .asked = ASKED_CALL,
                           .call = call,
                           .fn = fn,
                           .tool = copy,
                           .arguments = arguments,
                           .effect = effect,
                           .timeout_ms = timeout_ms};
    server->requests = request;
    server->open_calls++;
    if (!send_call(request)) {
        unlink_request(request);
        return fn(call_self(call), call, reply, &busy);
    }
    call_on_gone(call, on_gone, request);
    call_resume_after(call, timeout_ms, on_timeout, request);
    return call_park(call);
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
        say(server, LOG_ERROR, arena_printf(words, "cannot be used: %s", server->problem));
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
