/* server_hear: what a server says, and what of it was lost. */
#include "actors/outside/server_parts.h"

#include <inttypes.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

static void say_passed_over(server_t *server, err_t err)
{
    arena_t *arena = arena_new();
    server_say(server, LOG_WARN,
               arena_printf(arena, "sent something that is passed over: %s", err_what(err)));
    arena_destroy(&arena);
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
    request_t *request = server_find(server, id);
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
        server_list_tools(server);
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
        server_transmit(server, -1, &json, "ping", NULL, NULL, 10000);
    arena_destroy(&arena);
}

static void end_with_result(request_t *request, bytes_t result)
{
    arena_t *arena = call_arena(request->call);
    bytes_t value = {0}, copy = {arena_copy(arena, result.data, result.size), result.size};
    const char *error;
    err_t err = answer_value(arena, copy, &value, &error);
    if (err_is(err))
        server_end_call(request, END_FAILED, (bytes_t){0}, err_what(err));
    else
        server_end_call(request, error ? END_FAILED : END_DONE, value, error);
}

/* JSON-RPC's own words for: this was not even begun. */
static bool not_begun(int64_t code)
{
    return code == -32601 || code == -32602 || code == -32600 || code == -32700 ||
           (code <= -32020 && code >= -32022);
}

static void end_with_error(request_t *request, const answer_t *answer)
{
    server_end_call(request, not_begun(answer->code) ? END_REFUSED : END_FAILED, (bytes_t){0},
                    arena_printf(call_arena(request->call), "%s (MCP error %" PRId64 ")",
                                 answer->message, answer->code));
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
    server_drop(request);
    if (server->end_wire)
        return; /* this life is over: nothing makes it ready again */
    if (asked == ASKED_DISCOVER) {
        if (good)
            server_on_discovered(server, answer->result);
        else
            server_initialize(server);
    } else if (asked == ASKED_LISTEN) {
        server->can_list_changes = good; /* closed in good order, or it does not have that */
        server->listens = false;
        server->listen_us = server_now_us(server) + STALE_RETRY_MS * INT64_C(1000);
    } else if (asked == ASKED_PING) {
        server_on_ready(server); /* an error is an answer as well */
    } else if (!good) {
        arena_t *arena = arena_new();
        server_fail(server, arena_printf(arena, "%s: %s (MCP error %" PRId64 ")",
                                         asked == ASKED_TOOLS ? "tools/list" : "initialize",
                                         answer->message, answer->code));
        arena_destroy(&arena);
    } else if (asked == ASKED_INITIALIZE) {
        server_on_initialized(server, answer->result);
    } else {
        server_take_page(server, answer->result);
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
        request_t *request = server_find(server, answer.id);
        if (request)
            on_answer(server, request, &answer);
    }
}

/* Who waits for it need not wait until the time is up. */
static void on_unreadable(server_t *server, int64_t id, err_t err)
{
    request_t *request = server_find(server, id);
    arena_t *arena = arena_new();
    const char *why = arena_printf(arena, "its answer cannot be read: %s", err_what(err));
    if (!request) {
        say_passed_over(server, err);
    } else if (request->asked == ASKED_CALL) {
        server_end_call(request, END_UNKNOWN, (bytes_t){0}, why);
    } else {
        server_drop(request);
        server_fail(server, why);
    }
    arena_destroy(&arena);
}

void server_on_message(void *ctx, const char *json, size_t size)
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
    server_end_call(request, ends[loss], (bytes_t){0},
                    arena_printf(call_arena(request->call), "%s: %s", server->config->name, why));
}

void server_on_loss(void *ctx, int64_t id, wire_loss_t loss, const char *why)
{
    server_t *server = ctx;
    request_t *request = server_find(server, id);
    if (!request)
        return;
    asked_t asked = request->asked;
    if (asked == ASKED_CALL)
        lose_call(server, request, loss, why);
    else
        server_drop(request);
    if (asked == ASKED_LISTEN) {
        server->listens = false;
        server->can_list_changes = server->can_list_changes && loss == LOSS_UNKNOWN;
        server->listen_us = server_now_us(server) + STALE_RETRY_MS * INT64_C(1000);
        server_hurry(server, server->listen_us);
    } else if (asked == ASKED_DISCOVER && loss != LOSS_UNSENT) {
        server_initialize(server);
    } else if (asked != ASKED_CALL || loss == LOSS_SESSION) {
        /* One that forgets each session before it was of use is asked less and less often. */
        bool lived = server->state == SERVER_READY;
        server_fail(server, why);
        server->at_once = server->at_once || (loss == LOSS_SESSION && lived);
    }
}
