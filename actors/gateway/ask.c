/* ask: a pillar wants input from the client. A modern client gets ask_modern and comes again with
 * its answers and a sealed state; a legacy one is asked on its stream, while the call waits. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

typedef struct question {
    struct question *next;
    const char *id;
    bytes_t key, answer; /* size 0: still open */
} question_t;

/* ---- States that the client keeps ---- */

static const char *subject(const pending_t *pending)
{
    arena_t *arena = pending->exchange->arena;
    const char *arguments = pending->arguments.size ? mcp_json(arena, pending->arguments) : "{}";
    return digest_texts(arena, pending->kind, pending->tool, arguments, NULL);
}

static const char *seal_state(const pending_t *pending, const char *pillar, const char *state)
{
    gateway_t *self = pending->exchange->gateway;
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mp_put_array(&out, 5);
    mp_put_str(&out, state);
    mp_put_str(&out, pillar);
    mp_put_str(&out, subject(pending));
    mp_put_str(&out, pending->exchange->principal.name);
    mp_put_int(&out, actor_wall_ms(self->actor) + self->settings->ask_state_s * 1000);
    return seal_put(&self->seal, pending->exchange->arena, "state", buf_bytes(&out));
}

bool ask_unseal(pending_t *pending, const char *text)
{
    gateway_t *self = pending->exchange->gateway;
    arena_t *arena = pending->exchange->arena;
    bytes_t payload, field;
    int64_t until;
    if (!text || !seal_get(&self->seal, arena, "state", text, &payload) ||
        !mp_at(payload, 2, &field) || !mp_equals(field, subject(pending)) ||
        !mp_at(payload, 3, &field) || !mp_equals(field, pending->exchange->principal.name) ||
        !mp_at(payload, 4, &field) || !mp_int(field, &until) ||
        until < actor_wall_ms(self->actor) || !mp_at(payload, 0, &field))
        return false;
    pending->state = mp_text(arena, field);
    return pending->state != NULL;
}

/* ---- Asking a modern client ---- */

static const char *capability_of(const char *method)
{
    return !strcmp(method, "sampling/createMessage") ? "sampling"
           : !strcmp(method, "elicitation/create")   ? "elicitation"
           : !strcmp(method, "roots/list")           ? "roots"
                                                     : NULL;
}

/* Only what the client declared may be asked; what it did not is named when nothing is left. */
static uint32_t put_inputs(pending_t *pending, bytes_t inputs, buf_t *out, buf_t *lacking)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t key, request;
    mp_value_t head;
    uint32_t count = 0, missing = 0;
    mp_reader_t reader = mp_reader(inputs);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return 0;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key); i++) {
        if (!mp_slice(&reader, &request))
            break;
        const char *method = mp_member_text(arena, request, "method");
        const char *needs = method ? capability_of(method) : NULL;
        if (!needs || !mcp_declares(&pending->message, needs, NULL)) {
            buf_printf(lacking, "%s\"%s\":{}", missing++ ? "," : "", needs ? needs : "unknown");
            continue;
        }
        buf_printf(out, "%s%s:%s", count++ ? "," : "", mcp_json(arena, key),
                   mcp_json(arena, request));
    }
    return count;
}

err_t ask_modern(pending_t *pending, call_t *call, bytes_t reply)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t inputs = mp_member(reply, "inputs");
    const char *state = mp_member_text(arena, reply, "state");
    buf_t list, lacking, out;
    buf_open(&list, arena);
    buf_open(&lacking, arena);
    buf_open(&out, arena);
    uint32_t count = put_inputs(pending, inputs, &list, &lacking);
    if (!count) {
        mcp_refusal_t refusal =
            mcp_refuse(&pending->message, 400, MCP_CAPABILITY,
                       "this needs capabilities that the client did not declare in _meta");
        refusal.data = arena_printf(arena, "{\"requiredCapabilities\":{%s}}", lacking.data);
        return pending_refuse(pending, call, refusal);
    }
    mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "input_required");
    buf_printf(&out, ",\"inputRequests\":{%s}", list.data);
    if (state)
        buf_printf(&out, ",\"requestState\":\"%s\"", seal_state(pending, pending->pillar, state));
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

/* ---- Asking a legacy client on its stream ---- */

static void forget_asking(pending_t *pending)
{
    gateway_t *self = pending->exchange->gateway;
    for (pending_t **at = &self->asking; *at; at = &(*at)->next_asking)
        if (*at == pending) {
            *at = pending->next_asking;
            break;
        }
    pending->open_questions = 0;
}

void ask_forget(pending_t *pending)
{
    forget_asking(pending);
}

static bool legacy_can(const session_claims_t *claims, const char *method)
{
    if (!claims->id)
        return false;
    return !strcmp(method, "sampling/createMessage") ? claims->sampling
           : !strcmp(method, "elicitation/create")   ? claims->elicitation
           : !strcmp(method, "roots/list")           ? claims->roots
                                                     : false;
}

bool ask_can(const exchange_t *exchange, const char *method)
{
    return exchange_may_stream(exchange) && legacy_can(&exchange->session, method);
}

static void send_question(pending_t *pending, question_t *question, const char *method,
                          bytes_t params)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    buf_puts(&out, "{\"jsonrpc\":\"2.0\",\"id\":");
    json_put_string(&out, question->id, strlen(question->id));
    buf_puts(&out, ",\"method\":");
    json_put_string(&out, method, strlen(method));
    if (params.size)
        buf_printf(&out, ",\"params\":%s", mcp_json(pending->exchange->arena, params));
    buf_puts(&out, "}");
    exchange_send(pending->exchange, out.data);
}

/* NULL, or why the client cannot be asked. */
static const char *ask_one(pending_t *pending, bytes_t key, bytes_t request)
{
    exchange_t *exchange = pending->exchange;
    gateway_t *self = exchange->gateway;
    const char *method = mp_member_text(exchange->arena, request, "method");
    if (!method || !ask_can(exchange, method))
        return arena_printf(exchange->arena,
                            "this needs an answer to '%s', which this client did not offer when "
                            "its session began",
                            method ? method : "?");
    question_t *question = ARENA_NEW(exchange->arena, question_t);
    question->id = arena_printf(exchange->arena, "%llx-%llx", (unsigned long long)self->salt,
                                (unsigned long long)self->next_number++);
    question->key = key;
    question->next = pending->questions;
    pending->questions = question;
    pending->open_questions++;
    send_question(pending, question, method, mp_member(request, "params"));
    return NULL;
}

static err_t on_silence(void *self, call_t *call, void *reply, void *ctx)
{
    pending_t *pending = ctx;
    (void)reply;
    const gateway_t *gateway = self;
    int64_t left_us = pending->asked_us + gateway->settings->call_timeout_ms * 1000 -
                      actor_mono_us(gateway->actor);
    if (!pending->open_questions || left_us > 0) /* of an earlier question */
        return call_park(call);
    forget_asking(pending);
    return pending_fail(pending, call, err_of(ERR_TIMEOUT, "the client gave no answer in time"));
}

err_t ask_legacy(pending_t *pending, call_t *call, bytes_t inputs)
{
    gateway_t *self = pending->exchange->gateway;
    bytes_t key, request;
    mp_value_t head;
    mp_reader_t reader = mp_reader(inputs);
    if (pending->rounds++ >= self->settings->max_rounds)
        return pending_fail(pending, call,
                            err_make(call_arena(call), ERR_STATE,
                                     "the tool has asked its client %lld times, as often as "
                                     "gateway.max_rounds allows",
                                     (long long)self->settings->max_rounds));
    exchange_fetchable(pending->exchange, &pending->message);
    pending->questions = NULL;
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return pending_fail(pending, call, err_of(ERR_INTERNAL, "the tool asks nonsense"));
    if (head.count > self->settings->max_questions)
        return pending_fail(pending, call,
                            err_make(call_arena(call), ERR_STATE,
                                     "the tool asks %u questions at once, and "
                                     "gateway.max_questions is %lld",
                                     head.count, (long long)self->settings->max_questions));
    pending->next_asking = self->asking;
    self->asking = pending;
    pending->asked_us = actor_mono_us(self->actor);
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key); i++) {
        if (!mp_slice(&reader, &request))
            break;
        const char *why = ask_one(pending, key, request);
        if (why) {
            forget_asking(pending);
            return pending_fail(pending, call, err_of(ERR_STATE, why));
        }
    }
    call_resume_after(call, self->settings->call_timeout_ms, on_silence, pending);
    return call_park(call);
}

static bytes_t gather(pending_t *pending)
{
    buf_t pairs;
    uint32_t count = 0;
    buf_open(&pairs, pending->exchange->arena);
    for (const question_t *at = pending->questions; at; at = at->next) {
        mp_put_raw(&pairs, at->key);
        mp_put_raw(&pairs, at->answer);
        count++;
    }
    return args_map(pending->exchange->arena, &pairs, count);
}

static question_t *find_question(gateway_t *self, const exchange_t *from, bytes_t id,
                                 pending_t **of)
{
    for (pending_t *at = self->asking; at; at = at->next_asking) {
        if (strcmp(at->exchange->principal.name, from->principal.name) != 0)
            continue;
        for (question_t *question = at->questions; question; question = question->next)
            if (!question->answer.size && mp_equals(id, question->id)) {
                *of = at;
                return question;
            }
    }
    return NULL;
}

bool ask_on_response(exchange_t *exchange, const mcp_message_t *message, bytes_t value)
{
    gateway_t *self = exchange->gateway;
    pending_t *pending = NULL;
    question_t *question =
        message->id.size ? find_question(self, exchange, message->id, &pending) : NULL;
    if (!question)
        return false;
    bytes_t answer = mp_member(value, "result");
    if (!answer.size) {
        buf_t out;
        uint32_t count = 0;
        buf_open(&out, exchange->arena);
        args_put(&out, &count, "error", mp_member(value, "error"));
        answer = args_map(exchange->arena, &out, count);
    }
    arena_t *arena = pending->exchange->arena;
    question->answer = (bytes_t){arena_copy(arena, answer.data, answer.size), answer.size};
    if (--pending->open_questions == 0) {
        forget_asking(pending);
        pending->responses = gather(pending);
        actor_resume(self->actor, pending->call, pending->again, pending);
    }
    return true;
}
