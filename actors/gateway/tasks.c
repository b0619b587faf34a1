/* tasks: the extension io.modelcontextprotocol/tasks. A task is a run of a procedure in the durable
 * queue (run_task.c), or what a pillar with words of its own calls one; whatever happens to this
 * process, its sealed id says where to ask. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- Making one ---- */

static const char run_tasks[] = "agent:run";

static const char *seal_task(const pending_t *pending, const char *pillar, const char *id)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mp_put_array(&out, 4);
    mp_put_str(&out, pillar);
    mp_put_str(&out, id);
    mp_put_str(&out, pending->exchange->principal.name);
    mp_put_str(&out, pending->company ? pending->company : "");
    return seal_put(&pending->exchange->gateway->seal, pending->exchange->arena, "task",
                    buf_bytes(&out));
}

err_t tasks_created(pending_t *pending, call_t *call, const char *id, bytes_t detail)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "task");
    buf_printf(&out, ",\"taskId\":\"%s\"", seal_task(pending, pending->pillar, id));
    mcp_put_members(&out, detail, true);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t on_begun(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    const char *id = mp_member_text(arena, got->body, "id");
    buf_t out;
    buf_open(&out, arena);
    mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "task");
    buf_printf(&out, ",\"taskId\":\"%s\"", seal_task(pending, run_tasks, id ? id : ""));
    run_task_put(arena, got->body, NULL, call_now_ms(call), false, &out);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    kept_on_success(state, pending->tool);
    return pending_done(pending, call);
}

static err_t begin_run_task(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    pending->call = call;
    peer_call_t request =
        pending_request(pending, pending->pillar, pending->tool, pending->arguments);
    call_peer(call, &request, on_begun, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t tasks_begin(exchange_t *exchange, const mcp_message_t *message, const char *pillar,
                          const char *tool, bytes_t arguments)
{
    pending_t *pending = pending_new(exchange, message);
    pending->kind = "tool";
    pending->tool = tool;
    pending->pillar = pillar;
    pending->company = mp_member_text(exchange->arena, arguments, "company");
    pending->arguments = run_task_args(exchange->arena, arguments);
    pending_begin(pending, begin_run_task);
    return (mcp_refusal_t){0};
}

/* ---- Tasks of a pillar with words of its own ---- */

static mcp_refusal_t no_task(const mcp_message_t *message)
{
    return mcp_refuse(message, 200, MCP_PARAMS, "params.taskId names no task of yours");
}

static err_t on_task(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    if (mp_member_true(got->body, "missing"))
        return pending_refuse(pending, call, no_task(&pending->message));
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    if (!strcmp(pending->message.method, "tasks/get")) {
        buf_puts(&out, ",\"taskId\":");
        json_put_string(&out, pending->state, strlen(pending->state));
        mcp_put_members(&out, mp_member(got->body, "detail"), true);
    }
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t begin_task(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    buf_t pairs;
    uint32_t count = 0;
    (void)state;
    pending->call = call;
    buf_open(&pairs, arena);
    args_put_text(&pairs, &count, "id", pending->tool);
    args_put_text(&pairs, &count, "operation", pending->message.method + strlen("tasks/"));
    args_put(&pairs, &count, "responses", pending->responses);
    peer_call_t request = pending_request(pending, pending->pillar,
                                          arena_printf(arena, "%s_mcp_task", pending->pillar),
                                          args_map(arena, &pairs, count));
    call_peer(call, &request, on_task, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

/* ---- Runs ---- */

static err_t on_run_told(void *state, call_t *call, void *unused, const peer_answer_t *got,
                         void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (err_is(got->err) && got->err.code != ERR_STATE) /* it went on meanwhile: as good */
        return pending_fail(pending, call, got->err);
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t on_run(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    peer_call_t request;
    (void)unused;
    if (got->err.code == ERR_NOT_FOUND)
        return pending_refuse(pending, call, no_task(&pending->message));
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    if (strcmp(pending->message.method, "tasks/get") != 0) {
        bytes_t run = {arena_copy(arena, got->body.data, got->body.size), got->body.size};
        if (!run_task_call(pending, pending->tool, run, &request))
            return on_run_told(state, call, NULL, &(peer_answer_t){.err = err_ok()}, pending);
        call_peer(call, &request, on_run_told, pending);
        return call_park(call);
    }
    buf_t out;
    buf_open(&out, arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_puts(&out, ",\"taskId\":");
    json_put_string(&out, pending->state, strlen(pending->state));
    run_task_put(arena, got->body, got->text, call_now_ms(call), true, &out);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t begin_run(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    peer_call_t request;
    (void)state;
    pending->call = call;
    run_task_call(pending, pending->tool, (bytes_t){0}, &request);
    call_peer(call, &request, on_run, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t tasks_request(exchange_t *exchange, const mcp_message_t *message)
{
    gateway_t *self = exchange->gateway;
    arena_t *arena = exchange->arena;
    if (!mcp_declares(message, "extensions", MCP_TASKS)) {
        mcp_refusal_t refusal =
            mcp_refuse(message, 400, MCP_CAPABILITY,
                       "declare the extension " MCP_TASKS " in _meta to use tasks");
        refusal.data = "{\"requiredCapabilities\":{\"extensions\":{\"" MCP_TASKS "\":{}}}}";
        return refusal;
    }
    const char *id = mcp_text_param(arena, message, "taskId");
    const char *pillar = NULL, *inner = NULL, *company = NULL;
    bytes_t payload, field;
    if (!id || !seal_get(&self->seal, arena, "task", id, &payload) || !mp_at(payload, 0, &field) ||
        !(pillar = mp_text(arena, field)) || !mp_at(payload, 1, &field) ||
        !(inner = mp_text(arena, field)) || !mp_at(payload, 2, &field) ||
        !mp_equals(field, exchange->principal.name) || !mp_at(payload, 3, &field) ||
        !(company = mp_text(arena, field)))
        return no_task(message);
    bool shelf = !strcmp(pillar, run_tasks);
    if (!shelf && !catalogue_is_rich(self->catalogue, pillar))
        return no_task(message);
    pending_t *pending = pending_new(exchange, message);
    pending->kind = "task";
    pending->pillar = pillar;
    pending->tool = inner;
    pending->state = id;
    pending->company = *company ? company : NULL;
    pending->responses = mcp_param(message, "inputResponses");
    pending_begin(pending, shelf ? begin_run : begin_task);
    return (mcp_refusal_t){0};
}
