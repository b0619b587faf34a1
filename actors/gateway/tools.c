/* tools: tools/call. */
#include "actors/gateway/parts.h"

#include <string.h>

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
        pending_note(pending, got->body);
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
        kept_on_success(exchange->gateway, pending->tool);
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

/* Whether there is such a tool is not known before every pillar has said what it can do. */
static mcp_refusal_t no_tool(exchange_t *exchange, const mcp_message_t *message, const char *tool)
{
    const gateway_t *self = exchange->gateway;
    buf_t silent, out;
    buf_open(&silent, exchange->arena);
    for (size_t i = 0; i < self->pillar_count; i++)
        if (!catalogue_knows(self->catalogue, self->pillars[i]))
            buf_printf(&silent, "%s%s", silent.size ? ", " : "", self->pillars[i]);
    if (!silent.size || exchange->only)
        return (mcp_refusal_t){.status = 200,
                               .code = MCP_PARAMS,
                               .id = message->id,
                               .text = arena_printf(exchange->arena,
                                                    "there is no tool '%.128s'; tools/list names "
                                                    "them",
                                                    tool)};
    buf_open(&out, exchange->arena);
    mcp_put_tool_result(&out, message, AGENCY_VERSION,
                        arena_printf(exchange->arena,
                                     "'%.128s' is no tool of the pillars that have answered since "
                                     "this gateway began; away or starting: %s. Try again",
                                     tool, silent.data),
                        (bytes_t){0}, true);
    exchange_answer(exchange, 200, out.data);
    return (mcp_refusal_t){0};
}

mcp_refusal_t tools_call(exchange_t *exchange, const mcp_message_t *message)
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
        return no_tool(exchange, message, tool);
    if (rich)
        return get_begin(exchange, message, "tool");
    if (run_task_fits(self, tool) && message->modern &&
        mcp_declares(message, "extensions", MCP_TASKS))
        return tasks_begin(exchange, message, pillar, tool, arguments);
    pending_t *pending = pending_new(exchange, message);
    pending->tool = tool;
    pending->arguments = arguments;
    pending->pillar = pillar;
    pending_begin(pending, begin_tool);
    return (mcp_refusal_t){0};
}
