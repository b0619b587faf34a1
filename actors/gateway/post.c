/* post: what a client posts: one message, or a batch of the one old version that has them. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/headers.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { LEARNING_MS = 2000, LEARN_AGAIN_MS = 3 };

/* ---- One message ---- */

static const char *get_header(void *ctx, const char *name)
{
    return http_header(ctx, name);
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
            exchange_cancel(at);
            return;
        }
}

/* Batches are of a version in which initialize is sent alone. */
static bool may_not_be_in_batch(const exchange_t *exchange, const mcp_message_t *message)
{
    return exchange->batch && message->method && !strcmp(message->method, "initialize");
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
    if (exchange->request && !refusal.status)
        http_log_method(exchange->request, exchange->batch ? "batch" : message.method);
    if (!exchange->traceparent && (exchange->traceparent = mcp_traceparent(
                                       exchange->arena, mcp_trace_of(exchange->arena, &message))))
        http_log_who(exchange->request, NULL, exchange->traceparent);
    if (!refusal.status && may_not_be_in_batch(exchange, &message))
        refusal = mcp_refuse(&message, 200, MCP_INVALID, "initialize must be sent alone");
    if (!refusal.status && message.kind == MCP_REQUEST)
        refusal = methods_handle(exchange, &message);
    else if (!refusal.status) {
        if (message.kind == MCP_NOTIFICATION && !message.modern &&
            !strcmp(message.method, "notifications/cancelled"))
            cancel_request(exchange, &message);
        if (message.kind == MCP_RESPONSE)
            ask_on_response(exchange, &message, value);
        exchange_no_answer(exchange);
    }
    if (refusal.status)
        exchange_refuse(exchange, &refusal);
}

/* ---- Batches ---- */

/* The version that this client speaks; NULL: it did not say. */
static const char *version_of(exchange_t *exchange, mcp_refusal_t *refusal)
{
    const char *version = http_header(exchange->request, "MCP-Protocol-Version");
    const char *session = http_header(exchange->request, "Mcp-Session-Id");
    if (session && !exchange->session.id)
        *refusal = session_read(exchange->gateway, exchange->arena, &exchange->principal, session,
                                &exchange->session);
    return version || exchange->old_door ? version : exchange->session.version;
}

static void on_batch(exchange_t *exchange, bytes_t list)
{
    mcp_refusal_t refusal = {0};
    const char *version = version_of(exchange, &refusal);
    bytes_t value;
    mp_reader_t reader = mp_reader(list);
    mp_value_t head;
    if (refusal.status) {
        exchange_error(exchange, refusal.status, refusal.code, refusal.text);
        return;
    }
    if (version && strcmp(version, "2025-03-26") != 0) {
        exchange_error(exchange, 400, MCP_INVALID,
                       "only protocol version 2025-03-26 has batches: send one message");
        return;
    }
    if (!mp_read(&reader, &head) || !head.count ||
        head.count > exchange->gateway->settings->max_batch) {
        exchange_error(exchange, 400, MCP_INVALID,
                       arena_printf(exchange->arena,
                                    "a batch has 1 to %lld messages (gateway.max_batch)",
                                    (long long)exchange->gateway->settings->max_batch));
        return;
    }
    exchange->batch = true;
    exchange->waiting = head.count;
    buf_open(&exchange->answers, exchange->arena);
    buf_puts(&exchange->answers, "[");
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &value); i++)
        on_message(exchange, value);
}

/* ---- Bodies ---- */

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
        exchange_error(exchange, 400, MCP_PARSE, err_what(err));
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
        exchange_error(exchange, refusal.status, refusal.code, refusal.text);
        return false;
    }
    exchange->session = claims;
    exchange->old_door = claims.id;
    exchange->streams = exchange->events = true;
    return true;
}

/* A client says the same each time. */
static const accepts_t *read_accept(gateway_t *self, const char *accept)
{
    accepts_t *last = &self->accepts;
    if (accept && *accept && !strcmp(accept, last->header))
        return last;
    last->json = headers_accept(accept, "application/json");
    last->events = headers_accept(accept, "text/event-stream");
    last->streams = headers_accept_named(accept, "text/event-stream");
    bool fits = accept && strlen(accept) < sizeof(last->header);
    memcpy(last->header, fits ? accept : "", fits ? strlen(accept) + 1 : 1);
    return last;
}

void post_begin(gateway_t *self, http_request_t *request, const principal_t *principal,
                const char *only, bool old_door)
{
    const char *type = http_header(request, "Content-Type");
    const char *accept = http_header(request, "Accept");
    if (!type || !headers_is_json(type)) {
        gateway_reply_error(request, 415, MCP_LEGACY_TRANSPORT,
                            "Content-Type must be application/json, in UTF-8");
        return;
    }
    const accepts_t *accepts = read_accept(self, accept);
    const char *session = old_door ? http_query(request, "sessionId") : NULL;
    if (!accepts->json && !accepts->events && !session) {
        gateway_reply_error(request, 406, MCP_LEGACY_TRANSPORT,
                            "Accept must allow application/json or text/event-stream");
        return;
    }
    exchange_t *exchange = exchange_new(self, request, principal);
    exchange->only = only;
    exchange->earlier = old_door && !session;
    exchange->events = !accepts->json || (old_door && accept && accepts->events);
    exchange->streams = accepts->streams;
    if (!session && still_learning(self))
        read_body_soon(exchange);
    else if (!session || take_old_door(exchange, session))
        read_body(exchange);
    if (exchange->old_door && exchange->request)
        exchange_accept(exchange);
    exchange_unref(exchange);
}
