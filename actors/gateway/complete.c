/* complete: completion/complete. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- By a pillar with words of its own ---- */

static err_t begin_complete(void *state, call_t *call, void *ctx);

static err_t on_complete(void *state, call_t *call, void *unused, const peer_answer_t *got,
                         void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    pending->at++;
    if (mp_member_true(got->body, "missing") && get_next_pillar(self, &pending->at))
        return begin_complete(self, call, pending);
    if (mp_member_true(got->body, "missing"))
        return get_missing(pending, call);
    bytes_t values = mp_member(got->body, "values"), item, total = mp_member(got->body, "total");
    buf_t out;
    uint32_t count = 0;
    int64_t all = 0;
    buf_open(&out, arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_printf(&out, "%s\"completion\":{\"values\":[", pending->message.modern ? "," : "");
    for (; values.size && count < 100 && mp_at(values, count, &item); count++)
        buf_printf(&out, "%s%s", count ? "," : "", mcp_json(arena, item));
    if (!total.size || !mp_int(total, &all))
        all = count;
    buf_printf(&out, "],\"total\":%lld,\"hasMore\":%s}", (long long)all,
               all > count ? "true" : "false");
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t begin_complete(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    const char *pillar = get_next_pillar(self, &pending->at);
    bytes_t argument = mcp_param(&pending->message, "argument");
    buf_t pairs;
    uint32_t count = 0;
    pending->call = call;
    buf_open(&pairs, arena);
    args_put_text(&pairs, &count, "kind", pending->kind);
    args_put_text(&pairs, &count, "name", pending->tool);
    args_put_text(&pairs, &count, "argument", mp_member_text(arena, argument, "name"));
    args_put_text(&pairs, &count, "value", mp_member_text(arena, argument, "value"));
    peer_call_t request =
        pending_request(pending, pillar, arena_printf(arena, "%s_mcp_complete", pillar),
                        args_map(arena, &pairs, count));
    call_peer(call, &request, on_complete, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

/* ---- By what the pillars keep ---- */

static err_t put_completion(pending_t *pending, call_t *call, const completion_t *completion)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_printf(&out, "%s\"completion\":{\"values\":[", pending->message.modern ? "," : "");
    for (size_t i = 0; i < completion->count; i++) {
        buf_puts(&out, i ? "," : "");
        json_put_string(&out, completion->values[i], strlen(completion->values[i]));
    }
    buf_puts(&out, "]");
    if (!completion->more)
        buf_printf(&out, ",\"total\":%zu", completion->count);
    buf_printf(&out, ",\"hasMore\":%s}", completion->more ? "true" : "false");
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static const char *argument_of(const pending_t *pending, const char *member)
{
    return mp_member_text(pending->exchange->arena, mcp_param(&pending->message, "argument"),
                          member);
}

static err_t on_kept_complete(void *state, call_t *call, void *unused, const peer_answer_t *got,
                              void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (err_is(got->err) && got->err.code != ERR_NOT_FOUND)
        return pending_fail(pending, call, got->err);
    completion_t *completion = pending->completion;
    if (!err_is(got->err))
        kept_complete_from(pending, got->body, argument_of(pending, "name"),
                           argument_of(pending, "value"), completion);
    return put_completion(pending, call, completion);
}

static err_t begin_kept_complete(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    peer_call_t request;
    (void)state;
    pending->call = call;
    pending->completion = ARENA_NEW(arena, completion_t);
    pending->completion->arena = arena;
    pending->company = mp_member_text(
        arena, mp_member(mcp_param(&pending->message, "context"), "arguments"), "company");
    switch (kept_complete(pending, argument_of(pending, "name"), argument_of(pending, "value"),
                          pending->completion, &request)) {
    case KEPT_NOTHING:
        return pending_refuse(
            pending, call,
            mcp_refuse(&pending->message, 200, MCP_PARAMS,
                       "params.ref must name a template of resources/templates/list or a prompt, "
                       "and params.argument.name one of its variables"));
    case KEPT_DONE:
        return put_completion(pending, call, pending->completion);
    default:
        call_peer(call, &request, on_kept_complete, pending);
        call_on_gone(call, pending_lost, pending);
        return call_park(call);
    }
}

mcp_refusal_t complete_begin(exchange_t *exchange, const mcp_message_t *message)
{
    arena_t *arena = exchange->arena;
    bytes_t ref = mcp_param(message, "ref"), argument = mcp_param(message, "argument");
    const char *type = mp_member_text(arena, ref, "type");
    bool prompt = type && !strcmp(type, "ref/prompt");
    const char *name = mp_member_text(arena, ref, prompt ? "name" : "uri");
    if (!type || (!prompt && strcmp(type, "ref/resource") != 0) || !name ||
        !mp_member_text(arena, argument, "name") || !mp_member_text(arena, argument, "value"))
        return mcp_refuse(
            message, 200, MCP_PARAMS,
            "params.ref must be {\"type\":\"ref/prompt\",\"name\"} or "
            "{\"type\":\"ref/resource\",\"uri\"}, params.argument {\"name\",\"value\"}");
    size_t at = 0;
    bool kept = !get_next_pillar(exchange->gateway, &at);
    pending_t *pending = pending_new(exchange, message);
    pending->kind = prompt ? "prompt" : "resource";
    pending->tool = name;
    pending->at = at;
    pending_begin(pending, kept ? begin_kept_complete : begin_complete);
    return (mcp_refusal_t){0};
}
