/* exchange: one HTTP request with JSON-RPC in it, how it is answered, and the calls over the bus
 * that it waits for. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

/* ---- What libmicrohttpd has to send leaves once a turn ---- */

/* Not as an entry: the requests that libmicrohttpd reads meanwhile are begun at once. */
static void flush(void *state)
{
    gateway_t *self = state;
    http_server_flush(self->http);
    if (http_server_deadline_ms(self->http) == 0)
        gateway_flush_soon(self);
}

void gateway_flush_soon(gateway_t *self)
{
    if (self->http)
        actor_after_turn(self->actor, flush);
}

/* ---- Life ---- */

exchange_t *exchange_new(gateway_t *self, http_request_t *request, const principal_t *principal)
{
    arena_t *arena = arena_new();
    exchange_t *exchange = ARENA_NEW(arena, exchange_t);
    *exchange =
        (exchange_t){.visitor = VISITOR_EXCHANGE,
                     .gateway = self,
                     .request = request,
                     .refs = 1,
                     .arena = arena,
                     .sent_us = actor_mono_us(self->actor),
                     .traceparent = mcp_traceparent(arena, http_header(request, "traceparent"))};
    /* The list of tokens may be read anew while a call is under way. */
    exchange->principal = principal_copy(arena, principal);
    http_log_who(request, exchange->principal.name, exchange->traceparent);
    http_set_user(request, exchange);
    self->exchanges++;
    exchange->next = self->live;
    if (self->live)
        self->live->prev = exchange;
    self->live = exchange;
    return exchange;
}

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

static bool has(const strs_t *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i], name))
            return true;
    return false;
}

bool exchange_offers(const exchange_t *exchange, const char *pillar)
{
    return (!exchange->only || !strcmp(exchange->only, pillar)) &&
           (!exchange->principal.has_toolsets || has(&exchange->principal.toolsets, pillar));
}

const char *exchange_company(const exchange_t *exchange, const char *named)
{
    const principal_t *principal = &exchange->principal;
    if (named || (!principal->any_company && principal->companies.count != 1))
        return named;
    return principal->any_company ? actor_default_company(exchange->gateway->actor)
                                  : principal->companies.items[0];
}

void exchange_names(exchange_t *exchange, const char *name, const char *company)
{
    if (exchange->request)
        http_log_name(exchange->request, name, company);
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
    exchange->sent_us = actor_mono_us(exchange->gateway->actor);
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

void exchange_accept(exchange_t *exchange)
{
    if (!exchange->request)
        return;
    http_reply(exchange->request, 202, NULL, (bytes_t){0});
    exchange_let_go(exchange);
}

void exchange_error(exchange_t *exchange, int status, int code, const char *text)
{
    gateway_reply_error(exchange->request, status, code, text);
    exchange_let_go(exchange);
}

/* One message of a batch less. Notifications only: there is nothing to say. */
static void batch_on(exchange_t *exchange)
{
    if (--exchange->waiting)
        return;
    if (exchange->answers.size == 1) {
        exchange_accept(exchange);
        return;
    }
    buf_puts(&exchange->answers, "]");
    finish(exchange, 200, exchange->answers.data);
}

void exchange_answer(exchange_t *exchange, int status, const char *json)
{
    if (!exchange->batch) {
        finish(exchange, status, json);
        return;
    }
    buf_puts(&exchange->answers, exchange->answers.size > 1 ? "," : "");
    buf_puts(&exchange->answers, json);
    batch_on(exchange);
}

void exchange_no_answer(exchange_t *exchange)
{
    if (exchange->batch)
        batch_on(exchange);
    else
        exchange_accept(exchange);
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
    pending->progress = -1;
    pending->began_us = actor_mono_us(exchange->gateway->actor);
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
    if (pending->counted)
        tools_count(pending->exchange->gateway, pending->tool, pending->failed,
                    actor_mono_us(pending->exchange->gateway->actor) - pending->began_us);
    ask_forget(pending);
    exchange_unref(pending->exchange);
}

/* The call ended without an answer: cancelled, or the gateway stops. */
void pending_lost(void *self, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    (void)self;
    (void)call;
    pending->failed = true;
    pending_over(pending);
}

peer_call_t pending_request(const pending_t *pending, const char *pillar, const char *method,
                            bytes_t args)
{
    const principal_t *principal = &pending->exchange->principal;
    return (peer_call_t){.peer = pillar,
                         .method = method,
                         .args = args,
                         .timeout_ms = pending->exchange->gateway->settings->call_timeout_ms,
                         .away_ms = pending->exchange->gateway->settings->away_ms,
                         .principal = principal->name,
                         .role = principal->role,
                         .companies = principal->companies,
                         .any_company = principal->any_company,
                         .traceparent = pending->exchange->traceparent};
}

err_t pending_done(pending_t *pending, call_t *call)
{
    call_on_gone(call, NULL, NULL);
    pending_over(pending);
    return err_ok();
}

err_t pending_refuse(pending_t *pending, call_t *call, mcp_refusal_t refusal)
{
    exchange_refuse(pending->exchange, &refusal);
    return pending_done(pending, call);
}

err_t pending_fail(pending_t *pending, call_t *call, err_t err)
{
    buf_t out;
    exchange_t *exchange = pending->exchange;
    if (pending->kind && !strcmp(pending->kind, "tool")) {
        buf_open(&out, exchange->arena);
        mcp_put_tool_result(&out, &pending->message, AGENCY_VERSION, err_what(err), (bytes_t){0},
                            true);
        pending->failed = true;
        exchange_answer(exchange, 200, out.data);
        return pending_done(pending, call);
    }
    int code = err_info(err.code)->rpc_code;
    return pending_refuse(
        pending, call,
        mcp_refuse(&pending->message, 200, code ? code : MCP_INTERNAL, err_what(err)));
}

bytes_t pending_args(const pending_t *pending, const char *name, const char *value,
                     const char *name_too, const char *value_too)
{
    const char *const pairs[][2] = {
        {name, value}, {name_too, value_too}, {"company", pending->company}};
    buf_t args;
    uint32_t count = 0;
    for (int i = 0; i < 3; i++)
        count += pairs[i][1] != NULL;
    buf_open(&args, pending->exchange->arena);
    mp_put_map(&args, count);
    for (int i = 0; i < 3; i++)
        if (pairs[i][1]) {
            mp_put_str(&args, pairs[i][0]);
            mp_put_str(&args, pairs[i][1]);
        }
    return buf_bytes(&args);
}

/* ---- Notes on the way ---- */

/* Where the client may lose its stream and fetch the rest later, the stream says how. */
void exchange_fetchable(exchange_t *exchange, const mcp_message_t *message)
{
    if (exchange->started || !exchange->request || exchange->batch || exchange->old_door)
        return;
    if (!message->modern && exchange->session.id &&
        strcmp(exchange->session.version, "2025-11-25") >= 0)
        replay_new(exchange);
}

bool exchange_may_stream(const exchange_t *exchange)
{
    return exchange->streams && !exchange->batch;
}

bool exchange_hears_notes(const exchange_t *exchange, const mcp_message_t *message)
{
    bytes_t field;
    if (!exchange_may_stream(exchange))
        return false;
    if (message->progress_token.size)
        return true;
    return message->modern ? mcp_meta(message, "logLevel", &field) : exchange->session.id != NULL;
}

static bool wants_log(const pending_t *pending, const char *level)
{
    const exchange_t *exchange = pending->exchange;
    const mcp_message_t *message = &pending->message;
    const char *least = NULL;
    bytes_t field;
    if (!message->modern)
        least = session_level(exchange->gateway, exchange->session.id);
    else if (mcp_meta(message, "logLevel", &field))
        least = mp_text(exchange->arena, field);
    return least && mcp_level(level) >= mcp_level(least);
}

/* It only ever grows. */
static bool moves_on(pending_t *pending, bytes_t note)
{
    double progress;
    if (!mp_real(mp_member(note, "progress"), &progress) || progress <= pending->progress)
        return false;
    pending->progress = progress;
    return true;
}

void pending_note(pending_t *pending, bytes_t note)
{
    exchange_t *exchange = pending->exchange;
    const char *level = mp_member_text(exchange->arena, note, "level");
    buf_t out;
    buf_open(&out, exchange->arena);
    if (exchange->batch)
        return;
    if (mp_member_true(note, "fetch_later")) {
        exchange_fetchable(exchange, &pending->message);
        replay_hang_up(exchange);
        return;
    }
    if (level && exchange_may_stream(exchange) && wants_log(pending, level))
        mcp_put_log(&out, level, pending->pillar, mp_member_text(exchange->arena, note, "text"));
    else if (!level && pending->message.progress_token.size && moves_on(pending, note))
        mcp_put_progress(&out, pending->message.progress_token, note);
    if (!out.size)
        return;
    exchange_fetchable(exchange, &pending->message);
    exchange_send(exchange, out.data);
}

/* ---- The client goes, or thinks better of it ---- */

void exchange_gone(exchange_t *exchange)
{
    gateway_t *self = exchange->gateway;
    exchange->refs++; /* the last call may let go of it */
    exchange->request = NULL;
    for (pending_t *at = exchange->calls; at; at = at->next)
        /* leaving cancels; in the legacy era it does not */
        if (at->call && (at->message.modern ? !follow_cancel(at) : at->open_questions > 0))
            actor_cancel(self->actor, at->call);
    exchange_unref(exchange);
}

/* A cancelled request gets no answer; its stream ends. */
void exchange_cancel(exchange_t *exchange)
{
    exchange->refs++; /* the last call may let go of it */
    for (pending_t *at = exchange->calls; at; at = at->next)
        if (at->call && !follow_cancel(at))
            actor_cancel(exchange->gateway->actor, at->call);
    if (exchange->replay)
        replay_end(exchange->gateway, exchange);
    if (exchange->request && exchange->started) {
        http_stream_end(exchange->request);
        exchange_let_go(exchange);
    } else {
        exchange_accept(exchange);
    }
    exchange_unref(exchange);
}

void exchange_tend(gateway_t *self)
{
    static const char comment[] = ": still here\n\n";
    int64_t now = actor_mono_us(self->actor);
    for (exchange_t *at = self->live; at; at = at->next) {
        if (!at->request || !at->calls || at->old_door || !exchange_may_stream(at) ||
            now - at->sent_us < self->settings->keep_alive_ms * 1000)
            continue;
        exchange_fetchable(at, &at->calls->message);
        start_events(at);
        http_stream_send(at->request, (bytes_t){(const uint8_t *)comment, sizeof(comment) - 1});
        at->sent_us = now;
        gateway_flush_soon(self);
    }
}
