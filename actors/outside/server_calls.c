/* server_calls: requests that have no answer yet: our own questions, and the calls of others. */
#include "actors/outside/server_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

/* ---- Requests ---- */

request_t *server_find(const server_t *server, int64_t id)
{
    request_t *at = server->requests;
    while (at && at->id != id)
        at = at->next;
    return at;
}

void server_unlink(request_t *request)
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

void server_drop(request_t *request)
{
    server_unlink(request);
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
    server_unlink(request);
}

/* The caller goes on with this outcome. */
void server_end_call(request_t *request, call_end_t end, bytes_t value, const char *text)
{
    if (request->over)
        return;
    settle(request, end, value, text);
    actor_resume(request->server->world.actor, request->call, on_over, request);
}

bool server_transmit(server_t *server, int64_t id, const buf_t *json, const char *method,
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

void server_note(server_t *server, const char *method, const char *params)
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
    server_transmit(server, -1, &json, method, NULL, first ? headers : NULL, 10000);
    arena_destroy(&arena);
}

/* A question of our own. `params` are members behind _meta, "" for none. */
void server_ask(server_t *server, asked_t asked, const char *method, const char *params,
                int64_t timeout_ms)
{
    request_t *request = calloc(1, sizeof(*request));
    if (!request)
        abort();
    *request =
        (request_t){.next = server->requests,
                    .server = server,
                    .id = ++server->next_id,
                    .asked = asked,
                    .due_us = timeout_ms ? server_now_us(server) + timeout_ms * 1000 : INT64_MAX};
    server->requests = request;
    arena_t *arena = arena_new();
    buf_t json;
    open_params(server, request, method, &json, arena);
    buf_printf(&json, "%s%s}}", *params && json.data[json.size - 1] == '}' ? "," : "", params);
    bool taken = server_transmit(server, request->id, &json, method, NULL, NULL, timeout_ms);
    arena_destroy(&arena);
    if (!taken)
        server_fail(server, "it does not read what it is sent");
    else if (timeout_ms)
        server_hurry(server, request->due_us);
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
    return server_transmit(server, request->id, &json, "tools/call", tool->name, more,
                           request->timeout_ms);
}

void server_send_held(server_t *server)
{
    for (request_t *request = server->requests, *next; request; request = next) {
        next = request->next;
        if (!request->held)
            continue;
        request->held = false;
        request->tool = server_tool(server, request->tool->name);
        if (!request->tool)
            server_end_call(request, END_REFUSED, (bytes_t){0},
                            "the server has no such tool any more");
        else if (!send_call(request))
            server_end_call(request, END_UNSENT, (bytes_t){0}, "the server has too much to do");
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
        server_note(server, "notifications/cancelled", params);
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
    server_unlink(request);
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
        server_unlink(request);
        return fn(call_self(call), call, reply, &busy);
    }
    call_on_gone(call, on_gone, request);
    call_resume_after(call, timeout_ms, on_timeout, request);
    return call_park(call);
}
