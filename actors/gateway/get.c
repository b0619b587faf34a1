/* get: tools/call of what is not made of rows, prompts/get and resources/read.
 *
 * A pillar that serves more than rows has these methods, found by describe; everything in them is
 * as MCP words it:
 *
 *   <pillar>_mcp_list     {kind, cursor?}                    -> {items, next?}
 *   <pillar>_mcp_call     {kind, name, arguments?, responses?, state?, capabilities?, tasks}
 *                         -> one of {result} {inputs, state?} {task, detail} {needs} {missing},
 *                            and {changed?}
 *   <pillar>_mcp_complete {kind, name, argument, value}      -> {values, total?} {missing}
 *   <pillar>_mcp_task     {id, operation, responses?}        -> {detail} {missing}
 *
 * kind is tool(s), prompt(s), resource(s) or templates. A pillar knows nothing of eras. What no
 * pillar serves so is looked for among what they keep (kept.c). */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

/* The next pillar with words of its own, from `at` on; NULL: none. */
const char *get_next_pillar(const gateway_t *self, size_t *at)
{
    for (; *at < self->pillar_count; ++*at)
        if (catalogue_is_rich(self->catalogue, self->pillars[*at]))
            return self->pillars[*at];
    return NULL;
}

/* ---- Answers ---- */

mcp_refusal_t get_no_resource(exchange_t *exchange, const mcp_message_t *message, const char *uri)
{
    arena_t *arena = exchange->arena;
    mcp_refusal_t refusal =
        mcp_refuse(message, 200, message->modern ? MCP_PARAMS : MCP_LEGACY_NO_RESOURCE,
                   arena_printf(arena, "there is no resource '%.256s'", uri));
    buf_t data;
    buf_open(&data, arena);
    buf_puts(&data, "{\"uri\":");
    json_put_string(&data, uri, strlen(uri));
    buf_puts(&data, "}");
    refusal.data = data.data;
    return refusal;
}

err_t get_missing(pending_t *pending, call_t *call)
{
    if (!strcmp(pending->kind, "resource"))
        return pending_refuse(pending, call,
                              get_no_resource(pending->exchange, &pending->message, pending->tool));
    return pending_refuse(
        pending, call,
        mcp_refuse(&pending->message, 200, MCP_PARAMS,
                   arena_printf(pending->exchange->arena, "there is no %s '%.256s'", pending->kind,
                                pending->tool)));
}

static err_t lacks(pending_t *pending, call_t *call, bytes_t needs)
{
    arena_t *arena = pending->exchange->arena;
    if (!pending->message.modern)
        return pending_fail(
            pending, call,
            err_make(arena, ERR_STATE, "this needs a client with %s", mcp_json(arena, needs)));
    mcp_refusal_t refusal =
        mcp_refuse(&pending->message, 400, MCP_CAPABILITY,
                   "this needs capabilities that the client did not declare in _meta");
    refusal.data = arena_printf(arena, "{\"requiredCapabilities\":%s}", mcp_json(arena, needs));
    return pending_refuse(pending, call, refusal);
}

static err_t complete(pending_t *pending, call_t *call, bytes_t result)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    mcp_put_members(&out, result, pending->message.modern);
    if (!strcmp(pending->kind, "resource"))
        mcp_put_cache(&out, &pending->message);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static void tell_changes(pending_t *pending, bytes_t reply)
{
    gateway_t *self = pending->exchange->gateway;
    arena_t *arena = pending->exchange->arena;
    bytes_t list = mp_member(reply, "changed"), item;
    for (uint32_t i = 0; list.size && mp_at(list, i, &item); i++) {
        const char *what = mp_text(arena, item);
        if (what && !strcmp(what, "tools"))
            gateway_ask_tools(self, pending->pillar);
        else if (what)
            streams_changed(self, what);
    }
}

/* ---- From a pillar with words of its own ---- */

static err_t begin_own(void *state, call_t *call, void *ctx);

static err_t on_own(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    if (got->progress) {
        pending_note(pending, got->body);
        return call_park(call);
    }
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    bytes_t body = {arena_copy(arena, got->body.data, got->body.size), got->body.size};
    if (mp_member_true(body, "missing")) {
        pending->at++;
        if (strcmp(pending->kind, "tool") != 0 && get_next_pillar(self, &pending->at))
            return begin_own(self, call, pending);
        return get_missing(pending, call);
    }
    tell_changes(pending, body);
    if (mp_member(body, "needs").size)
        return lacks(pending, call, mp_member(body, "needs"));
    if (mp_member(body, "task").size)
        return tasks_created(pending, call, mp_member_text(arena, body, "task"),
                             mp_member(body, "detail"));
    if (!mp_member(body, "inputs").size)
        return complete(pending, call, mp_member(body, "result"));
    if (pending->message.modern)
        return ask_modern(pending, call, body);
    pending->state = mp_member_text(arena, body, "state");
    pending->again = get_again;
    return ask_legacy(pending, call, mp_member(body, "inputs"));
}

static bytes_t own_args(const pending_t *pending)
{
    buf_t pairs;
    uint32_t count = 0;
    bytes_t capabilities = {0};
    buf_open(&pairs, pending->exchange->arena);
    mcp_meta(&pending->message, "clientCapabilities", &capabilities);
    args_put_text(&pairs, &count, "kind", pending->kind);
    args_put_text(&pairs, &count, "name", pending->tool);
    args_put(&pairs, &count, "arguments", pending->arguments);
    args_put(&pairs, &count, "responses", pending->responses);
    args_put_text(&pairs, &count, "state", pending->state);
    args_put(&pairs, &count, "capabilities", capabilities);
    mp_put_str(&pairs, "tasks");
    mp_put_bool(&pairs, mcp_declares(&pending->message, "extensions", NULL) &&
                            mcp_declares(&pending->message, "extensions", MCP_TASKS));
    return args_map(pending->exchange->arena, &pairs, count + 1);
}

static err_t begin_own(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    pending->call = call;
    if (strcmp(pending->kind, "tool") != 0)
        pending->pillar = self->pillars[pending->at];
    peer_call_t request =
        pending_request(pending, pending->pillar,
                        arena_printf(arena, "%s_mcp_call", pending->pillar), own_args(pending));
    request.want_progress = exchange_may_stream(pending->exchange);
    call_peer(call, &request, on_own, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

err_t get_again(void *self, call_t *call, void *reply, void *ctx)
{
    (void)reply;
    return begin_own(self, call, ctx);
}

/* ---- From what the pillars keep ---- */

/* From the shelf, where no pillar has words of its own. */
static err_t on_kept(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (got->err.code == ERR_NOT_FOUND || got->err.code == ERR_ARGUMENT)
        return get_missing(pending, call);
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    const char *lacking = kept_prompt_lacks(pending, got->body);
    if (lacking)
        return pending_refuse(pending, call,
                              mcp_refuse(&pending->message, 200, MCP_PARAMS, lacking));
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_puts(&out, pending->message.modern ? "," : "");
    kept_put_result(pending, got->body, &out);
    if (!strcmp(pending->kind, "resource"))
        mcp_put_cache(&out, &pending->message);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t begin_kept(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    peer_call_t request;
    (void)state;
    pending->call = call;
    if (!kept_get_call(pending, &request))
        return get_missing(pending, call);
    call_peer(call, &request, on_kept, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

static const char *get_header(void *ctx, const char *name)
{
    return http_header(ctx, name);
}

mcp_refusal_t get_begin(exchange_t *exchange, const mcp_message_t *message, const char *kind)
{
    gateway_t *self = exchange->gateway;
    arena_t *arena = exchange->arena;
    bool tool = !strcmp(kind, "tool");
    const char *name = mcp_text_param(arena, message, strcmp(kind, "resource") ? "name" : "uri");
    if (!name)
        return mcp_refuse(message, message->modern ? 400 : 200, MCP_PARAMS,
                          strcmp(kind, "resource") ? "params.name must name what is wanted"
                                                   : "params.uri must name a resource");
    bytes_t arguments = mcp_param(message, "arguments");
    mp_type_t type;
    if (arguments.size && mp_type_of(arguments, &type) && type != MP_MAP)
        return mcp_refuse(message, 200, MCP_PARAMS, "params.arguments must be an object");
    if (tool && message->modern && exchange->request) {
        mcp_headers_t headers = {get_header, exchange->request};
        mcp_refusal_t refusal = mcp_check_params(
            arena, message, catalogue_schema(self->catalogue, name), arguments, &headers);
        if (refusal.status)
            return refusal;
    }
    pending_t probe = {.exchange = exchange,
                       .message = *message,
                       .kind = kind,
                       .tool = name,
                       .arguments = arguments,
                       .responses = mcp_param(message, "inputResponses")};
    bytes_t state = mcp_param(message, "requestState");
    if (message->modern && state.size && !ask_unseal(&probe, mp_text(arena, state)))
        return mcp_refuse(
            message, 400, MCP_PARAMS,
            "params.requestState is not what this server gave for this request, or is "
            "too old: begin again without it");
    size_t at = 0;
    bool shelf = !tool && !get_next_pillar(self, &at);
    pending_t *pending = pending_new(exchange, message);
    pending->kind = kind;
    pending->counted = tool;
    pending->tool = name;
    pending->arguments = arguments;
    pending->responses = message->modern ? probe.responses : (bytes_t){0};
    pending->state = probe.state;
    pending->at = at;
    if (shelf) {
        pending_begin(pending, begin_kept);
        return (mcp_refusal_t){0};
    }
    pending->pillar = tool ? catalogue_find(self->catalogue, name, NULL) : self->pillars[at];
    pending_begin(pending, begin_own);
    return (mcp_refusal_t){0};
}
