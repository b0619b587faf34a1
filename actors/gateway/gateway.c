#include "actors/gateway/gateway.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "actors/gateway/inside.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_ROWS_(gateway_settings, gateway_settings_FIELDS)
static const record_t gateway_settings_record = {"gateway_settings", gateway_settings_rows,
                                                 sizeof(gateway_settings_t)};

enum { LEARNING_MS = 2000, LEARN_AGAIN_MS = 3 };
enum { ASK_AGAIN_MS = 200, LOOK_AGAIN_MS = 30000, PING_MS = 1000, TEND_MS = 2000, BATCH_MOST = 64 };

#define METADATA_ROOT "/.well-known/oauth-protected-resource"
#define METADATA METADATA_ROOT "/mcp"

static const char *const all_pillars[] = {"agent", "brain", "health", "swarm", "elastic"};

void exchange_unref(exchange_t *exchange)
{
    if (--exchange->refs)
        return;
    gateway_t *self = exchange->gateway;
    self->exchanges--;
    if (exchange->prev)
        exchange->prev->next = exchange->next;
    else
        self->live = exchange->next;
    if (exchange->next)
        exchange->next->prev = exchange->prev;
    if (exchange->replay)
        replay_end(self, exchange);
    arena_t *arena = exchange->arena;
    arena_destroy(&arena);
}

/* ---- What libmicrohttpd has to send leaves once a batch ---- */

static err_t flush(void *state, call_t *call, void *ctx);

void gateway_flush_soon(gateway_t *self)
{
    if (self->flush_armed)
        return;
    self->flush_armed = true;
    actor_work(self->actor, 0, flush, NULL);
}

static err_t flush(void *state, call_t *call, void *ctx)
{
    gateway_t *self = state;
    (void)call;
    (void)ctx;
    self->flush_armed = false;
    http_server_flush(self->http);
    if (http_server_deadline_ms(self->http) == 0)
        gateway_flush_soon(self);
    return err_ok();
}

/* ---- Answers ---- */

void gateway_reply_json(http_request_t *request, int status, const char *json)
{
    http_reply(request, status, "application/json", (bytes_t){(const uint8_t *)json, strlen(json)});
}

void gateway_reply_error(http_request_t *request, int status, int code, const char *text)
{
    arena_t *arena = http_arena(request);
    buf_t out;
    buf_open(&out, arena);
    mcp_refusal_t refusal = {.status = status, .code = code, .text = text};
    mcp_put_refusal(&out, &refusal);
    gateway_reply_json(request, status, out.data);
}

static void start_events(exchange_t *exchange)
{
    if (exchange->started || !exchange->request)
        return;
    exchange->started = exchange->events = true;
    http_set_header(exchange->request, "Cache-Control", "no-cache");
    http_set_header(exchange->request, "X-Accel-Buffering", "no");
    http_stream_start(exchange->request, 200, "text/event-stream");
}

void exchange_send(exchange_t *exchange, const char *json)
{
    if (exchange->old_door) {
        stream_send(exchange->gateway, exchange->old_door, json);
        return;
    }
    if (exchange->replay) {
        replay_put(exchange->gateway, exchange, json);
        return;
    }
    if (!exchange->request)
        return;
    start_events(exchange);
    buf_t out;
    buf_open(&out, exchange->arena);
    buf_puts(&out, "event: message\ndata: ");
    buf_puts(&out, json);
    buf_puts(&out, "\n\n");
    http_stream_send(exchange->request, buf_bytes(&out));
    gateway_flush_soon(exchange->gateway);
}

/* The request is answered: it may be gone the next moment. */
void exchange_let_go(exchange_t *exchange)
{
    http_set_user(exchange->request, NULL);
    exchange->request = NULL;
    gateway_flush_soon(exchange->gateway);
}

/* What was streamed or asked for as a stream ends as one; an error that came before has a status
 * of its own. */
static void finish(exchange_t *exchange, int status, const char *json)
{
    if (exchange->old_door) {
        stream_send(exchange->gateway, exchange->old_door, json);
        return;
    }
    if (exchange->replay) {
        replay_put(exchange->gateway, exchange, json);
        replay_end(exchange->gateway, exchange);
        if (exchange->request) {
            http_stream_end(exchange->request);
            exchange_let_go(exchange);
        }
        return;
    }
    if (!exchange->request)
        return;
    if (exchange->started || (exchange->events && status == 200)) {
        exchange_send(exchange, json);
        http_stream_end(exchange->request);
    } else {
        gateway_reply_json(exchange->request, status, json);
    }
    exchange_let_go(exchange);
}

static void finish_empty(exchange_t *exchange)
{
    if (!exchange->request)
        return;
    http_reply(exchange->request, 202, NULL, (bytes_t){0});
    exchange_let_go(exchange);
}

static void finish_error(exchange_t *exchange, int status, int code, const char *text)
{
    gateway_reply_error(exchange->request, status, code, text);
    exchange_let_go(exchange);
}

void exchange_answer(exchange_t *exchange, int status, const char *json)
{
    if (!exchange->batch) {
        finish(exchange, status, json);
        return;
    }
    buf_puts(&exchange->answers, exchange->answers.size > 1 ? "," : "");
    buf_puts(&exchange->answers, json);
    if (--exchange->waiting == 0) {
        buf_puts(&exchange->answers, "]");
        finish(exchange, 200, exchange->answers.data);
    }
}

void exchange_refuse(exchange_t *exchange, const mcp_refusal_t *refusal)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_put_refusal(&out, refusal);
    exchange_answer(exchange, refusal->status, out.data);
}

/* ---- Calls over the bus ---- */

pending_t *pending_new(exchange_t *exchange, const mcp_message_t *message)
{
    pending_t *pending = ARENA_NEW(exchange->arena, pending_t);
    pending->exchange = exchange;
    pending->message = *message;
    pending->next = exchange->calls;
    exchange->calls = pending;
    exchange->refs++;
    return pending;
}

void pending_begin(pending_t *pending, work_fn_t *fn)
{
    actor_work_now(pending->exchange->gateway->actor, fn, pending);
}

void pending_over(pending_t *pending)
{
    pending->call = NULL;
    rich_forget(pending);
    exchange_unref(pending->exchange);
}

/* The call ended without an answer: cancelled, or the gateway stops. */
void pending_lost(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)call;
    pending_over(ctx);
}

peer_call_t pending_request(const pending_t *pending, const char *pillar, const char *method,
                            bytes_t args)
{
    const principal_t *principal = &pending->exchange->principal;
    return (peer_call_t){.peer = pillar,
                         .method = method,
                         .args = args,
                         .timeout_ms = pending->exchange->gateway->settings->call_timeout_ms,
                         .principal = principal->name,
                         .role = principal->role,
                         .companies = principal->companies,
                         .any_company = principal->any_company,
                         .traceparent = pending->exchange->traceparent};
}

/* ---- tools/call ---- */

static err_t on_tool_answer(void *self, call_t *call, void *reply, const peer_answer_t *got,
                            void *ctx)
{
    pending_t *pending = ctx;
    exchange_t *exchange = pending->exchange;
    (void)self;
    (void)reply;
    buf_t out;
    buf_open(&out, exchange->arena);
    if (got->progress) {
        rich_on_note(pending, got->body);
        return call_park(call);
    }
    bool is_error = err_is(got->err);
    const char *text = is_error ? err_what(got->err) : got->text;
    if (is_error && err_info(got->err.code)->rpc_code)
        text = arena_printf(exchange->arena, "MCP error %d: %s", err_info(got->err.code)->rpc_code,
                            text);
    mcp_put_tool_result(&out, &pending->message, AGENCY_VERSION, text, got->body, is_error);
    exchange_answer(exchange, 200, out.data);
    if (!is_error)
        shelf_on_success(exchange->gateway, pending->tool);
    call_on_gone(call, NULL, NULL);
    pending_over(pending);
    return err_ok();
}

static err_t begin_tool(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    pending->call = call;
    peer_call_t request =
        pending_request(pending, pending->pillar, pending->tool, pending->arguments);
    request.want_progress = pending->message.progress_token.size && pending->exchange->events;
    call_peer(call, &request, on_tool_answer, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

static mcp_refusal_t call_tool(exchange_t *exchange, const mcp_message_t *message)
{
    const gateway_t *self = exchange->gateway;
    const char *tool;
    bytes_t arguments;
    mcp_refusal_t refusal = mcp_read_call(exchange->arena, message, &tool, &arguments);
    if (refusal.status)
        return refusal;
    bool rich = false;
    const char *pillar = catalogue_find(self->catalogue, tool, &rich);
    if (!pillar || (exchange->only && strcmp(exchange->only, pillar) != 0))
        return (mcp_refusal_t){.status = 200,
                               .code = MCP_PARAMS,
                               .id = message->id,
                               .text = arena_printf(exchange->arena,
                                                    "there is no tool '%.128s'; tools/list names "
                                                    "them",
                                                    tool)};
    if (rich)
        return rich_get(exchange, message, "tool");
    if (shelf_is_long(self, tool) && message->modern &&
        rich_declares(message, "extensions", MCP_TASKS))
        return rich_long(exchange, message, pillar, tool, arguments);
    pending_t *pending = pending_new(exchange, message);
    pending->tool = tool;
    pending->arguments = arguments;
    pending->pillar = pillar;
    pending_begin(pending, begin_tool);
    return (mcp_refusal_t){0};
}

/* ---- The other methods ---- */

static void put_capabilities(buf_t *out, const mcp_message_t *message)
{
    buf_puts(out, "\"capabilities\":{\"tools\":{\"listChanged\":true},"
                  "\"resources\":{\"listChanged\":true,\"subscribe\":true},"
                  "\"prompts\":{\"listChanged\":true},\"completions\":{},\"logging\":{}");
    if (message->modern)
        buf_puts(out, ",\"extensions\":{\"io.modelcontextprotocol/tasks\":{}}");
    buf_puts(out, "},\"instructions\":\"A team's desk (task_*), procedures (sop_*, run_*) and "
                  "memory (brain_*). Every tool takes an optional company.\"");
}

static const char *initialize(exchange_t *exchange, const mcp_message_t *message)
{
    bytes_t field, capabilities = {0};
    const char *wanted = NULL;
    if (message->params.size && mp_get(message->params, "protocolVersion", &field))
        wanted = mcp_legacy_version(mp_text(exchange->arena, field));
    if (!wanted)
        wanted = "2025-11-25";
    if (message->params.size)
        mp_get(message->params, "capabilities", &capabilities);
    if (exchange->request && !exchange->old_door && !exchange->batch)
        http_set_header(exchange->request, "Mcp-Session-Id",
                        session_new(exchange->gateway, exchange->arena, &exchange->principal,
                                    wanted, capabilities));
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    buf_printf(&out,
               "\"protocolVersion\":\"%s\",\"serverInfo\":{\"name\":\"agency\",\"title\":"
               "\"Agency\",\"version\":\"%s\"},",
               wanted, AGENCY_VERSION);
    put_capabilities(&out, message);
    mcp_close_result(&out);
    return out.data;
}

static const char *discover(exchange_t *exchange, const mcp_message_t *message)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    buf_puts(&out, ",\"supportedVersions\":[\"" MCP_MODERN "\"],");
    put_capabilities(&out, message);
    mcp_put_cache(&out, message);
    mcp_close_result(&out);
    return out.data;
}

static const char *list_tools(exchange_t *exchange, const mcp_message_t *message)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    if (message->modern)
        buf_puts(&out, ",");
    buf_puts(&out, exchange->only
                       ? catalogue_json_of(exchange->gateway->catalogue, exchange->only, out.arena)
                       : catalogue_json(exchange->gateway->catalogue));
    mcp_put_cache(&out, message);
    mcp_close_result(&out);
    return out.data;
}

static const char *empty_result(exchange_t *exchange, const mcp_message_t *message)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    mcp_close_result(&out);
    return out.data;
}

static const char *text_param(exchange_t *exchange, const mcp_message_t *message, const char *name)
{
    bytes_t field;
    return message->params.size && mp_get(message->params, name, &field)
               ? mp_text(exchange->arena, field)
               : NULL;
}

static mcp_refusal_t bad_params(const mcp_message_t *message, const char *text)
{
    return (mcp_refusal_t){.status = 200, .code = MCP_PARAMS, .id = message->id, .text = text};
}

/* Without a session there is nowhere to keep a level or a subscription: every message then names
 * its own level, and nothing is sent unasked. */
static mcp_refusal_t set_level(exchange_t *exchange, const mcp_message_t *message)
{
    const char *level = text_param(exchange, message, "level");
    if (!mcp_level(level))
        return bad_params(message, "params.level must be debug, info, notice, warning, error, "
                                   "critical, alert or emergency");
    if (exchange->session.id)
        session_set_level(exchange->gateway, exchange->session.id, level);
    exchange_answer(exchange, 200, empty_result(exchange, message));
    return (mcp_refusal_t){0};
}

static mcp_refusal_t subscribe(exchange_t *exchange, const mcp_message_t *message, bool on)
{
    const char *uri = text_param(exchange, message, "uri");
    if (!uri || strlen(uri) > 2048)
        return bad_params(message, "params.uri must be the URI of a resource, at most 2048 bytes");
    if (!exchange->session.id)
        return bad_params(message, "a subscription needs a session: send the Mcp-Session-Id that "
                                   "initialize gave you");
    session_subscribe(exchange->gateway, exchange->session.id, uri, on);
    exchange_answer(exchange, 200, empty_result(exchange, message));
    return (mcp_refusal_t){0};
}

static mcp_refusal_t unknown_method(exchange_t *exchange, const mcp_message_t *message)
{
    return (mcp_refusal_t){.status = message->modern ? 404 : 200,
                           .code = MCP_NO_METHOD,
                           .id = message->id,
                           .text = arena_printf(exchange->arena,
                                                "the method '%.64s' is not offered here",
                                                message->method)};
}

typedef const char *plain_fn_t(exchange_t *exchange, const mcp_message_t *message);

static plain_fn_t *plain_method(const mcp_message_t *message)
{
    static const struct {
        const char *method;
        plain_fn_t *fn;
        bool modern, legacy;
    } rows[] = {{"tools/list", list_tools, true, true},
                {"server/discover", discover, true, false},
                {"initialize", initialize, false, true},
                {"ping", empty_result, false, true}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!strcmp(rows[i].method, message->method) &&
            (message->modern ? rows[i].modern : rows[i].legacy))
            return rows[i].fn;
    return NULL;
}

static mcp_refusal_t handle_rich(exchange_t *exchange, const mcp_message_t *message)
{
    const char *method = message->method;
    if (!strcmp(method, "resources/list"))
        return rich_list(exchange, message, "resources");
    if (!strcmp(method, "resources/templates/list"))
        return rich_list(exchange, message, "templates");
    if (!strcmp(method, "prompts/list"))
        return rich_list(exchange, message, "prompts");
    if (!strcmp(method, "resources/read"))
        return rich_get(exchange, message, "resource");
    if (!strcmp(method, "prompts/get"))
        return rich_get(exchange, message, "prompt");
    if (!strcmp(method, "completion/complete"))
        return rich_complete(exchange, message);
    return unknown_method(exchange, message);
}

/* A request; the answer is given now or by a call over the bus. */
static mcp_refusal_t handle(exchange_t *exchange, const mcp_message_t *message)
{
    const char *method = message->method;
    plain_fn_t *plain = plain_method(message);
    if (plain) {
        exchange_answer(exchange, 200, plain(exchange, message));
        return (mcp_refusal_t){0};
    }
    if (!strcmp(method, "tools/call"))
        return call_tool(exchange, message);
    if (message->modern && !strcmp(method, "subscriptions/listen"))
        return stream_listen(exchange, message);
    if (message->modern && (!strcmp(method, "tasks/get") || !strcmp(method, "tasks/update") ||
                            !strcmp(method, "tasks/cancel")))
        return rich_task(exchange, message);
    if (!message->modern && !strcmp(method, "logging/setLevel"))
        return set_level(exchange, message);
    if (!message->modern && !strcmp(method, "resources/subscribe"))
        return subscribe(exchange, message, true);
    if (!message->modern && !strcmp(method, "resources/unsubscribe"))
        return subscribe(exchange, message, false);
    return handle_rich(exchange, message);
}

/* ---- POST /mcp ---- */

static const char *get_header(void *ctx, const char *name)
{
    return http_header(ctx, name);
}

/* A cancelled request gets no answer; its stream ends. */
static void cancel_exchange(exchange_t *exchange)
{
    exchange->refs++; /* the last call may let go of it */
    for (pending_t *at = exchange->calls; at; at = at->next)
        if (at->call)
            actor_cancel(exchange->gateway->actor, at->call);
    if (exchange->replay)
        replay_end(exchange->gateway, exchange);
    if (exchange->request && exchange->started) {
        http_stream_end(exchange->request);
        exchange_let_go(exchange);
    } else {
        finish_empty(exchange);
    }
    exchange_unref(exchange);
}

static bool same_session(const exchange_t *one, const exchange_t *other)
{
    const char *id = one->old_door ? one->old_door : one->session.id;
    const char *their = other->old_door ? other->old_door : other->session.id;
    return id && their && !strcmp(id, their);
}

/* notifications/cancelled of a legacy client: params.requestId names a request of its session. */
static void cancel_request(exchange_t *exchange, const mcp_message_t *message)
{
    bytes_t id;
    if (!message->params.size || !mp_get(message->params, "requestId", &id))
        return;
    for (exchange_t *at = exchange->gateway->live; at; at = at->next)
        if (at != exchange && at->calls && !at->batch && same_session(exchange, at) &&
            at->calls->call && mp_same(at->calls->message.id, id)) {
            cancel_exchange(at);
            return;
        }
}

static void on_message(exchange_t *exchange, bytes_t value)
{
    mcp_message_t message;
    mcp_headers_t headers = {get_header, exchange->request};
    mcp_refusal_t refusal = mcp_read(exchange->arena, value, &headers, &message);
    const char *session = http_header(exchange->request, "Mcp-Session-Id");
    if (!refusal.status && !message.modern && session && !exchange->session.id &&
        (!message.method || strcmp(message.method, "initialize") != 0)) {
        refusal = session_read(exchange->gateway, exchange->arena, &exchange->principal, session,
                               &exchange->session);
        refusal.id = message.id;
    }
    if (exchange->session.id && !http_header(exchange->request, "MCP-Protocol-Version"))
        message.version = exchange->session.version;
    if (refusal.status && exchange->batch)
        refusal.status = 200;
    if (!refusal.status && message.kind == MCP_REQUEST)
        refusal = handle(exchange, &message);
    else if (!refusal.status && !exchange->batch && message.kind == MCP_RESPONSE && message.modern)
        refusal =
            (mcp_refusal_t){.status = 400, .code = MCP_INVALID, .text = "no answer was asked for"};
    else if (!refusal.status) {
        if (message.kind == MCP_NOTIFICATION && !message.modern &&
            !strcmp(message.method, "notifications/cancelled"))
            cancel_request(exchange, &message);
        if (message.kind == MCP_RESPONSE)
            rich_on_response(exchange, &message, value);
        if (!exchange->batch)
            finish_empty(exchange);
    }
    if (refusal.status)
        exchange_refuse(exchange, &refusal);
}

static bool is_request(bytes_t value)
{
    bytes_t field;
    return mp_get(value, "method", &field) && mp_get(value, "id", &field);
}

static void on_batch(exchange_t *exchange, bytes_t list)
{
    const char *version = http_header(exchange->request, "MCP-Protocol-Version");
    bytes_t value;
    mp_reader_t reader = mp_reader(list);
    mp_value_t head;
    if (version && strcmp(version, "2025-03-26") != 0) {
        finish_error(exchange, 400, MCP_INVALID,
                     "only protocol version 2025-03-26 has batches: send one message");
        return;
    }
    if (!mp_read(&reader, &head) || head.count > BATCH_MOST) {
        finish_error(exchange, 400, MCP_INVALID, "a batch has at most 64 messages");
        return;
    }
    exchange->batch = true;
    for (uint32_t i = 0; i < head.count && mp_at(list, i, &value); i++)
        exchange->waiting += is_request(value);
    if (!exchange->waiting) {
        finish_empty(exchange);
        return;
    }
    buf_open(&exchange->answers, exchange->arena);
    buf_puts(&exchange->answers, "[");
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &value); i++)
        if (is_request(value))
            on_message(exchange, value);
}

static bool accepts(const char *accept, const char *type)
{
    if (!accept || strstr(accept, "*/*"))
        return true;
    return strcasestr(accept, type) != NULL;
}

static exchange_t *exchange_new(gateway_t *self, http_request_t *request,
                                const principal_t *principal)
{
    arena_t *arena = arena_new();
    exchange_t *exchange = ARENA_NEW(arena, exchange_t);
    *exchange =
        (exchange_t){.visitor = VISITOR_EXCHANGE,
                     .gateway = self,
                     .request = request,
                     .refs = 1,
                     .arena = arena,
                     .principal = *principal,
                     .traceparent = arena_strdup(arena, http_header(request, "traceparent"))};
    /* The list of tokens may be read anew while a call is under way. */
    exchange->principal.name = arena_strdup(arena, principal->name);
    const char **companies = ARENA_ARRAY(arena, const char *, principal->companies.count + 1);
    for (size_t i = 0; i < principal->companies.count; i++)
        companies[i] = arena_strdup(arena, principal->companies.items[i]);
    exchange->principal.companies.items = companies;
    http_set_user(request, exchange);
    self->exchanges++;
    exchange->next = self->live;
    if (self->live)
        self->live->prev = exchange;
    self->live = exchange;
    return exchange;
}

static bool asks_for_progress(bytes_t value)
{
    bytes_t params, meta, token;
    return mp_get(value, "params", &params) && mp_get(params, "_meta", &meta) &&
           mp_get(meta, "progressToken", &token);
}

static void read_body(exchange_t *exchange)
{
    bytes_t value, body = http_body(exchange->request);
    mp_type_t shape;
    json_limits_t limits = {.largest_bytes = (size_t)exchange->gateway->settings->max_body};
    err_t err =
        json_to_msgpack(exchange->arena, (const char *)body.data, body.size, &limits, &value);
    if (err_is(err)) {
        finish_error(exchange, 400, MCP_PARSE, err_what(err));
    } else if (mp_type_of(value, &shape) && shape == MP_ARRAY) {
        on_batch(exchange, value);
    } else {
        /* Progress needs a stream; who asked for it and can read one gets one. */
        exchange->events = exchange->events || (exchange->streams && asks_for_progress(value));
        on_message(exchange, value);
    }
}

/* Right after the start the pillars have not yet said what they can do, and a client that was told
 * "ready" must not hear that a tool is missing. */
static bool still_learning(const gateway_t *self)
{
    return !catalogue_complete(self->catalogue) &&
           actor_mono_us(self->actor) - self->born_us < LEARNING_MS * 1000;
}

static err_t begin_body(void *state, call_t *call, void *ctx);

/* Holds a reference until then. */
static void read_body_soon(exchange_t *exchange)
{
    exchange->refs++;
    actor_work(exchange->gateway->actor, LEARN_AGAIN_MS, begin_body, exchange);
}

static err_t begin_body(void *state, call_t *call, void *ctx)
{
    exchange_t *exchange = ctx;
    (void)call;
    if (exchange->request && still_learning(state))
        read_body_soon(exchange);
    else if (exchange->request)
        read_body(exchange);
    exchange_unref(exchange);
    return err_ok();
}

/* The old pair of doors: the answer leaves by the session's GET /sse. */
static bool take_old_door(exchange_t *exchange, const char *id)
{
    gateway_t *self = exchange->gateway;
    session_claims_t claims;
    mcp_refusal_t refusal = session_read(self, exchange->arena, &exchange->principal, id, &claims);
    if (!refusal.status && !stream_send(self, id, NULL))
        refusal = (mcp_refusal_t){.status = 404,
                                  .code = MCP_SESSION,
                                  .text = "the stream of this session is closed: GET /sse again"};
    if (refusal.status) {
        finish_error(exchange, refusal.status, refusal.code, refusal.text);
        return false;
    }
    exchange->session = claims;
    exchange->old_door = claims.id;
    exchange->streams = exchange->events = true;
    return true;
}

static void on_mcp(gateway_t *self, http_request_t *request, const principal_t *principal,
                   const char *only, bool old_door)
{
    const char *type = http_header(request, "Content-Type");
    const char *accept = http_header(request, "Accept");
    if (!type || strncasecmp(type, "application/json", 16) != 0) {
        gateway_reply_error(request, 415, MCP_LEGACY_TRANSPORT,
                            "Content-Type must be application/json");
        return;
    }
    bool json = accepts(accept, "application/json"), events = accepts(accept, "text/event-stream");
    const char *session = old_door ? http_query(request, "sessionId") : NULL;
    if (!json && !events && !session) {
        gateway_reply_error(request, 406, MCP_LEGACY_TRANSPORT,
                            "Accept must allow application/json or text/event-stream");
        return;
    }
    exchange_t *exchange = exchange_new(self, request, principal);
    exchange->only = only;
    exchange->events = !json || (old_door && accept && events);
    exchange->streams = events && accept && strcasestr(accept, "text/event-stream");
    if (!session && still_learning(self))
        read_body_soon(exchange);
    else if (!session || take_old_door(exchange, session))
        read_body(exchange);
    if (exchange->old_door && exchange->request)
        finish_empty(exchange);
    exchange_unref(exchange);
}

/* ---- Who may come in ---- */

static bool loopback_name(const char *name, size_t size)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]", NULL};
    for (int i = 0; names[i]; i++)
        if (strlen(names[i]) == size && !strncasecmp(names[i], name, size))
            return true;
    return false;
}

static size_t host_size(const char *host)
{
    if (*host == '[') {
        const char *end = strchr(host, ']');
        return end ? (size_t)(end - host) + 1 : strlen(host);
    }
    return strcspn(host, ":");
}

static bool listed(const strs_t *list, const char *value)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcasecmp(list->items[i], value))
            return true;
    return false;
}

static bool host_allowed(const gateway_t *self, http_request_t *request)
{
    const char *host = http_header(request, "Host");
    if (!host || self->settings->behind_proxy || listed(&self->settings->allowed_hosts, host))
        return true;
    if (loopback_name(host, host_size(host)))
        return true;
    size_t size = strlen(self->settings->bind);
    return strlen(self->settings->bind) == host_size(host) &&
           !strncmp(host, self->settings->bind, size);
}

static bool origin_allowed(const gateway_t *self, http_request_t *request)
{
    const char *origin = http_header(request, "Origin");
    if (!origin || listed(&self->settings->allowed_origins, origin))
        return true;
    const char *host = strstr(origin, "://");
    return host && loopback_name(host + 3, host_size(host + 3));
}

static bool check_door(const gateway_t *self, http_request_t *request)
{
    if (!origin_allowed(self, request)) {
        gateway_reply_error(request, 403, MCP_LEGACY_TRANSPORT,
                            "this Origin is not allowed: add it to gateway.allowed_origins");
        return false;
    }
    if (!host_allowed(self, request)) {
        gateway_reply_error(
            request, 403, MCP_LEGACY_TRANSPORT,
            "this Host is not allowed: add it to gateway.allowed_hosts, or start with "
            "--behind-proxy");
        return false;
    }
    if (http_too_large(request)) {
        gateway_reply_error(request, 413, MCP_LEGACY_TRANSPORT,
                            "the body is larger than gateway.max_body allows");
        return false;
    }
    const char *origin = http_header(request, "Origin");
    if (origin) {
        http_set_header(request, "Access-Control-Allow-Origin", origin);
        http_set_header(request, "Access-Control-Expose-Headers",
                        "Mcp-Session-Id, WWW-Authenticate");
        http_set_header(request, "Vary", "Origin");
    }
    return true;
}

/* RFC 6750 §3, RFC 9728 §5.1. */
static void challenge(gateway_t *self, http_request_t *request, const char *error)
{
    arena_t *arena = http_arena(request);
    if (!self->jwt) {
        http_set_header(request, "WWW-Authenticate", "Bearer");
        return;
    }
    const char *resource = self->settings->oauth_audience;
    size_t origin = strcspn(resource, "/");
    if (!strncmp(resource + origin, "//", 2))
        origin += 2 + strcspn(resource + origin + 2, "/");
    http_set_header(request, "WWW-Authenticate",
                    arena_printf(arena,
                                 "Bearer resource_metadata=\"%.*s" METADATA
                                 "\", scope=\"agency:read agency:operate\"%s%s%s",
                                 (int)origin, resource, error ? ", error=\"" : "",
                                 error ? error : "", error ? "\"" : ""));
}

static const principal_t *refuse_token(gateway_t *self, http_request_t *request, int status,
                                       const char *error, const char *why)
{
    challenge(self, request, error);
    gateway_reply_error(request, status, MCP_LEGACY_TRANSPORT, why);
    return NULL;
}

static const principal_t *who(gateway_t *self, http_request_t *request)
{
    static const principal_t local = {.name = "local", .role = ROLE_ADMIN, .any_company = true};
    if (!self->tokens && !self->jwt)
        return &local;
    const char *header = http_header(request, "Authorization"), *why;
    if (!header || strncasecmp(header, "Bearer ", 7) != 0)
        return refuse_token(self, request, 401, NULL, "a bearer token is needed");
    const principal_t *found = self->tokens ? tokens_find(self->tokens, header + 7) : NULL;
    if (found)
        return found;
    if (!self->jwt)
        return refuse_token(self, request, 401, "invalid_token", "the bearer token is not known");
    principal_t *bearer = ARENA_NEW(http_arena(request), principal_t);
    switch (jwt_check(self->jwt, http_arena(request), header + 7, actor_wall_ms(self->actor),
                      bearer, &why)) {
    case JWT_FINE:
        return bearer;
    case JWT_NO_SCOPE:
        return refuse_token(self, request, 403, "insufficient_scope", why);
    default:
        return refuse_token(self, request, 401, "invalid_token", why);
    }
}

/* Protected resource metadata, RFC 9728; at the root and below the endpoint's path. */
static void on_metadata(gateway_t *self, http_request_t *request)
{
    buf_t out;
    const gateway_settings_t *settings = self->settings;
    buf_open(&out, http_arena(request));
    buf_puts(&out, "{\"resource\":");
    json_put_string(&out, settings->oauth_audience, strlen(settings->oauth_audience));
    buf_puts(&out, ",\"authorization_servers\":[");
    json_put_string(&out, settings->oauth_issuer, strlen(settings->oauth_issuer));
    buf_puts(&out, "],\"bearer_methods_supported\":[\"header\"],\"scopes_supported\":["
                   "\"agency:read\",\"agency:operate\",\"agency:admin\"]}");
    gateway_reply_json(request, 200, out.data);
}

/* The Origin is one of ours, so its pages may send what they ask for: Mcp-Param-… has no end. */
static void on_preflight(http_request_t *request)
{
    const char *wanted = http_header(request, "Access-Control-Request-Headers");
    http_set_header(request, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
    http_set_header(request, "Access-Control-Allow-Headers",
                    wanted ? wanted
                           : "Content-Type, Accept, Authorization, MCP-Protocol-Version, "
                             "Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID, traceparent");
    http_set_header(request, "Access-Control-Max-Age", "600");
    http_reply(request, 204, NULL, (bytes_t){0});
}

static void on_delete(gateway_t *self, http_request_t *request, const principal_t *principal)
{
    session_claims_t claims;
    const char *id = http_header(request, "Mcp-Session-Id");
    mcp_refusal_t refusal = {.status = 400,
                             .code = MCP_LEGACY_TRANSPORT,
                             .text = "the header Mcp-Session-Id must name the session to end"};
    if (id)
        refusal = session_read(self, http_arena(request), principal, id, &claims);
    if (refusal.status) {
        gateway_reply_error(request, refusal.status, refusal.code, refusal.text);
        return;
    }
    session_end(self, id);
    http_reply(request, 204, NULL, (bytes_t){0});
}

/* /mcp/brain: only the tools of that pillar. NULL: another path. */
static const char *toolset(const gateway_t *self, const char *path)
{
    if (strncmp(path, "/mcp/", 5) != 0)
        return NULL;
    for (size_t i = 0; i < self->pillar_count; i++)
        if (!strcmp(self->pillars[i], path + 5))
            return self->pillars[i];
    return NULL;
}

static void on_request(void *ctx, http_request_t *request)
{
    gateway_t *self = ctx;
    const char *path = http_path(request), *method = http_method(request);
    if (!check_door(self, request))
        return;
    if (!strcmp(method, "OPTIONS")) {
        on_preflight(request);
        return;
    }
    const char *only = toolset(self, path);
    bool mcp = only || !strcmp(path, "/mcp"), old_door = !strcmp(path, "/messages");
    bool sse = !strcmp(path, "/sse");
    bool scale = !strcmp(path, "/api/v1/scale") && !strcmp(self->settings->pillar, "agent");
    if (self->jwt && (!strcmp(path, METADATA_ROOT) || !strcmp(path, METADATA))) {
        on_metadata(self, request);
        return;
    }
    if (!mcp && !old_door && !scale && !sse) {
        plain_get(self, request, path);
        return;
    }
    const principal_t *principal = who(self, request);
    if (!principal)
        return;
    if (scale) {
        plain_get(self, request, path);
    } else if (!strcmp(method, "GET") && !old_door) {
        stream_get(self, request, principal, sse);
    } else if (mcp && !strcmp(method, "DELETE")) {
        on_delete(self, request, principal);
    } else if (strcmp(method, "POST") != 0 || sse) {
        http_set_header(request, "Allow", sse ? "GET" : old_door ? "POST" : "GET, POST, DELETE");
        gateway_reply_error(request, 405, MCP_LEGACY_TRANSPORT,
                            "this HTTP method is not answered here; see the header Allow");
    } else {
        on_mcp(self, request, principal, only, old_door);
    }
}

static void exchange_gone(exchange_t *exchange)
{
    gateway_t *self = exchange->gateway;
    exchange->refs++; /* the last call may let go of it */
    exchange->request = NULL;
    for (pending_t *at = exchange->calls; at; at = at->next)
        if (at->call && (at->message.modern ||
                         at->open_questions)) /* leaving cancels; in the legacy era it does not */
            actor_cancel(self->actor, at->call);
    exchange_unref(exchange);
}

/* A client has gone before its answer. */
static void on_gone(void *ctx, http_request_t *request)
{
    gateway_t *self = ctx;
    visitor_t *visitor = http_user(request);
    if (!visitor)
        return;
    http_set_user(request, NULL);
    if (*visitor == VISITOR_STREAM)
        stream_gone(self, (stream_t *)visitor);
    else if (*visitor == VISITOR_EXCHANGE)
        exchange_gone((exchange_t *)visitor);
    else
        plain_gone(self, (probe_t *)visitor);
}

/* ---- Asking the pillars ---- */

static err_t ask(void *state, call_t *call, void *ctx);

static err_t on_rich_tools(void *state, call_t *call, void *reply, const peer_answer_t *got,
                           void *ctx)
{
    gateway_t *self = state;
    (void)call;
    (void)reply;
    if (!err_is(got->err) && catalogue_learn_rich(self->catalogue, ctx, got->body))
        streams_changed(self, "tools");
    return err_ok();
}

static err_t ask_rich_tools(void *state, call_t *call, void *ctx)
{
    const char *pillar = ctx;
    (void)state;
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "kind");
    mp_put_str(&args, "tools");
    peer_call_t request = {.peer = pillar,
                           .method = arena_printf(call_arena(call), "%s_mcp_list", pillar),
                           .args = buf_bytes(&args),
                           .timeout_ms = LOOK_AGAIN_MS};
    call_peer(call, &request, on_rich_tools, ctx);
    return call_park(call);
}

void gateway_ask_tools(gateway_t *self, const char *pillar)
{
    for (size_t i = 0; i < self->pillar_count; i++)
        if (!strcmp(self->pillars[i], pillar)) /* the name must outlive the question */
            actor_work(self->actor, 0, ask_rich_tools, (void *)self->pillars[i]);
}

static void learn(gateway_t *self, call_t *call, const char *pillar, bytes_t description)
{
    if (catalogue_learn(self->catalogue, pillar, description))
        streams_changed(self, "tools");
    if (catalogue_is_rich(self->catalogue, pillar))
        call_work(call, 0, ask_rich_tools, (void *)pillar);
}

static err_t on_description(void *state, call_t *call, void *reply, const peer_answer_t *got,
                            void *ctx)
{
    gateway_t *self = state;
    const char *pillar = ctx;
    (void)reply;
    if (!err_is(got->err))
        learn(self, call, pillar, got->body);
    call_work(call, catalogue_knows(self->catalogue, pillar) ? LOOK_AGAIN_MS : ASK_AGAIN_MS, ask,
              ctx);
    return err_ok();
}

static err_t ask(void *state, call_t *call, void *ctx)
{
    const char *pillar = ctx;
    (void)state;
    peer_call_t request = {.peer = pillar,
                           .method = arena_printf(call_arena(call), "%s.describe", pillar),
                           .timeout_ms = LOOK_AGAIN_MS};
    call_peer(call, &request, on_description, ctx);
    return call_park(call);
}

/* ---- What pillars tell ---- */

static err_t on_run_event(void *state, call_t *call, const char *topic, bytes_t body)
{
    bytes_t field;
    const char *id;
    gateway_t *self = state;
    (void)topic;
    if (self->streams && mp_get(body, "run", &field) && (id = mp_text(call_arena(call), field))) {
        streams_changed(self, arena_printf(call_arena(call), "agency://run/%s", id));
        streams_changed(self, arena_printf(call_arena(call), "agency://task/%s", id));
    }
    return err_ok();
}

static const hear_t gateway_hears[] = {{"agent", "run.", on_run_event}, {NULL, NULL, NULL}};

/* ---- Life ---- */

static void on_readable(void *state, void *ctx)
{
    gateway_t *self = state;
    (void)ctx;
    http_server_on_readable(self->http);
    if (http_server_deadline_ms(self->http) == 0)
        gateway_flush_soon(self);
}

/* libmicrohttpd closes quiet connections only when it is run. */
static err_t tend(void *state, call_t *call, void *ctx)
{
    gateway_t *self = state;
    streams_tend(self);
    http_server_on_readable(self->http);
    call_work(call, TEND_MS, tend, ctx);
    return err_ok();
}

static bool gateway_drained(void *state)
{
    const gateway_t *self = state;
    return self->exchanges == 0;
}

static bool is_loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1") || !strcmp(address, "localhost");
}

static err_t open_jwt(gateway_t *self, arena_t *arena)
{
    const gateway_settings_t *settings = self->settings;
    if (!settings->oauth_keys && !settings->oauth_issuer && !settings->oauth_audience)
        return err_ok();
    if (!settings->oauth_keys || !settings->oauth_issuer || !settings->oauth_audience)
        return err_make(arena, ERR_ARGUMENT,
                        "gateway.oauth_keys, oauth_issuer and oauth_audience go together: one of "
                        "them is missing");
    return jwt_open(settings->oauth_keys, settings->oauth_issuer, settings->oauth_audience, arena,
                    &self->jwt);
}

static err_t open_tokens(gateway_t *self, arena_t *arena)
{
    const gateway_settings_t *settings = self->settings;
    err_t err = open_jwt(self, arena);
    if (!err_is(err) && settings->tokens)
        err = tokens_open(settings->tokens, arena, &self->tokens);
    if (err_is(err) || self->tokens || self->jwt || is_loopback(settings->bind) ||
        settings->behind_proxy)
        return err;
    return err_make(arena, ERR_ARGUMENT,
                    "%s reaches beyond this machine: give a file of tokens (--tokens), or "
                    "--behind-proxy when a proxy in front checks who comes in",
                    settings->bind);
}

static err_t open_http(gateway_t *self, arena_t *arena)
{
    const gateway_settings_t *settings = self->settings;
    http_options_t options = {.bind = settings->bind,
                              .port = (int)settings->port,
                              .largest_body = (size_t)settings->max_body,
                              .connections = (unsigned)settings->max_connections,
                              .connections_per_address = (unsigned)settings->max_per_address,
                              .idle_timeout_s = (unsigned)settings->idle_timeout_s,
                              .on_request = on_request,
                              .on_gone = on_gone,
                              .ctx = self};
    return http_server_open(&options, arena, &self->http);
}

static err_t gateway_open(void *state, call_t *call)
{
    gateway_t *self = state;
    const gateway_settings_t *settings = self->settings;
    self->actor = call_actor(call);
    self->pillars = &settings->pillar;
    self->pillar_count = 1;
    if (settings->pillars.count) {
        self->pillars = settings->pillars.items;
        self->pillar_count = settings->pillars.count;
    } else if (!strcmp(settings->pillar, "agent")) {
        self->pillars = all_pillars;
        self->pillar_count = sizeof(all_pillars) / sizeof(all_pillars[0]);
    }
    uint8_t fresh[SEAL_KEY];
    call_random(call, fresh, sizeof(fresh));
    call_random(call, &self->salt, sizeof(self->salt));
    err_t err = seal_open(settings->key_file ? settings->key_file
                                             : arena_printf(call_arena(call), "%s/gateway.key",
                                                            actor_data_dir(self->actor)),
                          fresh, call_arena(call), &self->seal);
    if (err_is(err))
        return err;
    self->catalogue = catalogue_new(self->pillars, self->pillar_count);
    self->born_us = actor_mono_us(self->actor);
    err = open_tokens(self, call_arena(call));
    if (!err_is(err))
        err = open_http(self, call_arena(call));
    if (err_is(err))
        return err;
    for (size_t i = 0; i < self->pillar_count; i++)
        call_work(call, 0, ask, (void *)self->pillars[i]);
    call_work(call, TEND_MS, tend, NULL);
    actor_watch(self->actor, http_server_fd(self->http), on_readable, NULL);
    return err_ok();
}

static void gateway_close(void *state)
{
    gateway_t *self = state;
    self->flush_armed = true; /* no more work: nobody would do it */
    streams_close(self);
    http_server_close(&self->http);
    tokens_close(&self->tokens);
    jwt_close(&self->jwt);
    catalogue_destroy(&self->catalogue);
}

/* ---- What the bus may ask ---- */

#define gateway_port_ARGS(F)
#define gateway_port_REPLY(F) F(INT, port, must, 0, 0, "Where it listens.")
#define GATEWAY_METHODS(M) M(gateway_t, gateway_port, READS | ANY_COMPANY, "Where it listens.")
METHODS(gateway_methods, GATEWAY_METHODS)

static err_t gateway_port(gateway_t *self, call_t *call, const gateway_port_args_t *args,
                          gateway_port_reply_t *reply)
{
    (void)call;
    (void)args;
    reply->port = http_server_port(self->http);
    return err_ok();
}

static void gateway_measure(void *state, call_t *call, metrics_t *out)
{
    const gateway_t *self = state;
    const char *labels[] = {"pillar", self->settings->pillar, NULL, NULL, NULL};
    http_stats_t stats;
    (void)call;
    http_server_stats(self->http, &stats);
    metrics_family(out, "agency_http_connections", METRIC_GAUGE, "Connections that are open.");
    metrics_put(out, stats.connections, labels);
    metrics_family(out, "agency_http_requests_open", METRIC_GAUGE,
                   "Requests of MCP that are not answered yet.");
    metrics_put(out, self->exchanges, labels);
    metrics_family(out, "agency_http_sessions_known", METRIC_GAUGE,
                   "Sessions of which something is remembered.");
    metrics_put(out, (double)self->session_count, labels);
    metrics_family(out, "agency_http_answers", METRIC_COUNTER,
                   "Answers, by class of their status.");
    labels[2] = "status";
    for (int i = 0; i < HTTP_STATUS_CLASSES; i++) {
        char *status = arena_printf(metrics_arena(out), "%dxx", i + 1);
        labels[3] = status;
        metrics_put(out, (double)stats.answers[i], labels);
    }
}

const actor_def_t gateway_actor = {
    .name = "gateway",
    .doc = "Speaks MCP over HTTP for the pillar beside it.",
    .size = sizeof(gateway_t),
    .open = gateway_open,
    .close = gateway_close,
    .drained = gateway_drained,
    .hears = gateway_hears,
    .methods = gateway_methods,
    .measure = gateway_measure,
    .settings = &gateway_settings_record,
};
