/* tasks: the extension io.modelcontextprotocol/tasks, and tasks as version 2025-11-25 has them. A
 * task is a run in the durable queue (run_task.c), or what a pillar with words of its own calls
 * one; whatever happens to this process, its sealed id says where to ask, and for whom. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { TASKS_PAGE = 100 };

static const char run_tasks[] = "agent:run";

static const char *seal_task(const pending_t *pending, const char *pillar, const char *id,
                             const char *company)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mp_put_array(&out, 4);
    mp_put_str(&out, pillar);
    mp_put_str(&out, id);
    mp_put_str(&out, pending->exchange->principal.name);
    mp_put_str(&out, company ? company : "");
    return seal_put(&pending->exchange->gateway->seal, pending->exchange->arena, "task",
                    buf_bytes(&out));
}

mcp_refusal_t tasks_unknown(const mcp_message_t *message)
{
    return mcp_refuse(message, 200, MCP_PARAMS, "params.taskId names no task of yours");
}

/* ---- Making one ---- */

err_t tasks_created(pending_t *pending, call_t *call, const char *id, bytes_t detail)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "task");
    buf_printf(&out, ",\"taskId\":\"%s\"",
               seal_task(pending, pending->pillar, id, pending->company));
    mcp_put_members(&out, detail, true);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t on_begun(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    exchange_t *exchange = pending->exchange;
    arena_t *arena = exchange->arena;
    (void)state;
    (void)unused;
    if (err_is(got->err))
        return tools_failed(pending, call, got->err);
    const char *id = mp_member_text(arena, got->body, "id");
    const char *task = seal_task(pending, run_tasks, id ? id : "", pending->company);
    buf_t out;
    buf_open(&out, arena);
    if (pending->message.modern) {
        mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "task");
        buf_printf(&out, ",\"taskId\":\"%s\"", task);
        run_task_put(pending, got->body, NULL, call_now_ms(call), true, &out);
    } else {
        mcp_open_result(&out, &pending->message, AGENCY_VERSION);
        buf_puts(&out, "\"task\":{");
        run_task_put_legacy(arena, got->body, task, call_now_ms(call), true, &out);
        buf_puts(&out, "}");
        if (exchange->session.id)
            task_status_watch(exchange, id ? id : "", pending->company, task);
    }
    mcp_close_result(&out);
    exchange_answer(exchange, 200, out.data);
    kept_on_success(pending);
    return pending_done(pending, call);
}

static err_t begin_run(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    pending->call = call;
    peer_call_t request = run_task_start(pending);
    call_peer(call, &request, on_begun, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t tasks_begin(pending_t *pending)
{
    pending->kind = "tool";
    /* Named, so that the id of one task is always the same text. */
    pending->company = exchange_company(
        pending->exchange, mp_member_text(pending->exchange->arena, pending->arguments, "company"));
    pending_begin(pending, begin_run);
    return (mcp_refusal_t){0};
}

/* ---- Tasks of a pillar with words of its own ---- */

static err_t on_task(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    if (mp_member_true(got->body, "missing"))
        return pending_refuse(pending, call, tasks_unknown(&pending->message));
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    if (!strcmp(pending->message.method, "tasks/get")) {
        buf_puts(&out, ",");
        mcp_put_text(&out, "taskId", pending->task);
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
    args_put_text(&pairs, &count, "id", pending->run);
    args_put_text(&pairs, &count, "operation", pending->message.method + strlen("tasks/"));
    args_put(&pairs, &count, "responses", pending->responses);
    peer_call_t request = pending_request(pending, pending->pillar,
                                          arena_printf(arena, "%s_mcp_task", pending->pillar),
                                          args_map(arena, &pairs, count));
    call_peer(call, &request, on_task, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

/* ---- Runs: tasks/get, /update, /cancel ---- */

static err_t answer_empty(pending_t *pending, call_t *call)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t answer_task(pending_t *pending, call_t *call, bytes_t run, const char *text)
{
    arena_t *arena = pending->exchange->arena;
    buf_t out;
    buf_open(&out, arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    if (pending->message.modern) {
        buf_puts(&out, ",");
        mcp_put_text(&out, "taskId", pending->task);
        run_task_put(pending, run, text, call_now_ms(call), false, &out);
    } else {
        run_task_put_legacy(arena, run, pending->task, call_now_ms(call), false, &out);
    }
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t begin_run_task(void *state, call_t *call, void *ctx);

static err_t on_run_told(void *state, call_t *call, void *unused, const peer_answer_t *got,
                         void *ctx)
{
    pending_t *pending = ctx;
    (void)unused;
    if (err_is(got->err) && got->err.code != ERR_STATE) /* it went on meanwhile: as good */
        return pending_fail(pending, call, got->err);
    if (pending->message.modern)
        return answer_empty(pending, call);
    pending->message.method = "tasks/get"; /* it answers with the task as it is now */
    return begin_run_task(state, call, pending);
}

static err_t cancel_run(pending_t *pending, call_t *call, bytes_t run)
{
    if (!run_task_over(pending->exchange->arena, run)) {
        peer_call_t request = pending_request(
            pending, "agent", "task_cancel",
            pending_args(pending, "id", pending->run, "why", "called off by its client"));
        call_peer(call, &request, on_run_told, pending);
        return call_park(call);
    }
    if (pending->message.modern)
        return answer_empty(pending, call);
    return pending_refuse(pending, call,
                          mcp_refuse(&pending->message, 200, MCP_PARAMS,
                                     "the task has ended: there is nothing to cancel"));
}

/* What its client says to the run, or to the one inside of it that asks. */
static err_t update_run(pending_t *pending, call_t *call)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t run = run_task_asking(pending, pending->outer);
    peer_call_t request;
    if (run_task_answer(pending, run, pending->inner ? pending->inner : pending->run, &request)) {
        call_peer(call, &request, on_run_told, pending);
        return call_park(call);
    }
    const char *wrong = run_task_wrong(pending, run);
    if (wrong)
        return pending_refuse(pending, call,
                              mcp_refuse(&pending->message, 200, MCP_PARAMS,
                                         arena_printf(arena, "params.inputResponses.%s: %s",
                                                      run_task_key(arena, run), wrong)));
    if (!sampling_answered(pending, run))
        return answer_empty(pending, call);
    return pending_refuse(
        pending, call,
        mcp_refuse(&pending->message, 200, MCP_PARAMS,
                   "this answer completes no step: it was cut off, or says that it cannot be "
                   "done, or does not call complete_step; step_complete and step_fail do"));
}

static err_t with_asker(pending_t *pending, call_t *call)
{
    if (!strcmp(pending->message.method, "tasks/get"))
        return answer_task(pending, call, pending->outer, pending->outer_text);
    return update_run(pending, call);
}

static err_t on_inner(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (!err_is(got->err) && run_task_asks(pending->exchange->arena, got->body))
        pending->asker = (bytes_t){
            arena_copy(pending->exchange->arena, got->body.data, got->body.size), got->body.size};
    return with_asker(pending, call);
}

static err_t on_run(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    (void)state;
    (void)unused;
    if (got->err.code == ERR_NOT_FOUND)
        return pending_refuse(pending, call, tasks_unknown(&pending->message));
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    pending->outer = (bytes_t){arena_copy(arena, got->body.data, got->body.size), got->body.size};
    pending->outer_text = got->text ? arena_strdup(arena, got->text) : NULL;
    if (!strcmp(pending->message.method, "tasks/cancel"))
        return cancel_run(pending, call, pending->outer);
    pending->inner = mp_member_text(arena, pending->outer, "asks");
    if (!pending->inner || !pending->message.modern)
        return with_asker(pending, call);
    peer_call_t request = pending_request(pending, "agent", "run_get",
                                          pending_args(pending, "id", pending->inner, NULL, NULL));
    call_peer(call, &request, on_inner, pending);
    return call_park(call);
}

static err_t begin_run_task(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    pending->call = call;
    peer_call_t request = pending_request(pending, "agent", "run_get",
                                          pending_args(pending, "id", pending->run, NULL, NULL));
    call_peer(call, &request, on_run, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

/* ---- By id ---- */

/* Sealed, and for this principal. */
static bool unseal_task(exchange_t *exchange, const char *id, pending_t *out)
{
    bytes_t payload, field;
    arena_t *arena = exchange->arena;
    const char *company;
    if (!id || !seal_get(&exchange->gateway->seal, arena, "task", id, &payload) ||
        !mp_at(payload, 0, &field) || !(out->pillar = mp_text(arena, field)) ||
        !mp_at(payload, 1, &field) || !(out->run = mp_text(arena, field)) ||
        !mp_at(payload, 2, &field) || !mp_equals(field, exchange->principal.name) ||
        !mp_at(payload, 3, &field) || !(company = mp_text(arena, field)))
        return false;
    out->company = *company ? company : NULL;
    return true;
}

mcp_refusal_t tasks_request(exchange_t *exchange, const mcp_message_t *message)
{
    gateway_t *self = exchange->gateway;
    if (message->modern && !mcp_declares(message, "extensions", MCP_TASKS)) {
        mcp_refusal_t refusal =
            mcp_refuse(message, 400, MCP_CAPABILITY,
                       "declare the extension " MCP_TASKS " in _meta to use tasks");
        refusal.data = "{\"requiredCapabilities\":{\"extensions\":{\"" MCP_TASKS "\":{}}}}";
        return refusal;
    }
    pending_t found = {.run = NULL};
    const char *id = mcp_text_param(exchange->arena, message, "taskId");
    if (!unseal_task(exchange, id, &found))
        return tasks_unknown(message);
    bool run = !strcmp(found.pillar, run_tasks);
    if (!run && (!catalogue_is_rich(self->catalogue, found.pillar) || !message->modern))
        return tasks_unknown(message);
    pending_t *pending = pending_new(exchange, message);
    pending->kind = "task";
    pending->pillar = found.pillar;
    pending->run = found.run;
    pending->task = id;
    pending->company = found.company;
    pending->responses = mcp_param(message, "inputResponses");
    bool result = !strcmp(message->method, "tasks/result");
    pending->wants_notes = result && message->progress_token.size && exchange->events;
    pending_begin(pending, !run ? begin_task : result ? follow_result : begin_run_task);
    return (mcp_refusal_t){0};
}

/* ---- tasks/list, of version 2025-11-25 ---- */

/* A task of the queue has the members of a run that are shown here. */
static err_t on_list(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    exchange_t *exchange = pending->exchange;
    arena_t *arena = exchange->arena;
    bytes_t tasks = mp_member(got->body, "tasks"), item;
    mp_value_t head = {.count = 0};
    mp_reader_t reader = mp_reader(tasks);
    buf_t out;
    bool any = false;
    (void)unused;
    if (err_is(got->err) && got->err.code != ERR_NOT_FOUND)
        return pending_fail(pending, call, got->err);
    buf_open(&out, arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_puts(&out, "\"tasks\":[");
    if (tasks.size)
        mp_read(&reader, &head);
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
        const char *id = mp_member_text(arena, item, "id");
        const char *company = mp_member_text(arena, item, "company");
        if (!id || !mp_equals(mp_member(item, "by"), exchange->principal.name))
            continue;
        buf_puts(&out, any ? ",{" : "{");
        any = true;
        run_task_put_legacy(arena, item, seal_task(pending, run_tasks, id, company),
                            call_now_ms(call), false, &out);
        buf_puts(&out, "}");
    }
    buf_puts(&out, "]");
    const char *next = mp_member_text(arena, got->body, "cursor");
    if (next) {
        buf_puts(&out, ",");
        mcp_put_text(&out, "nextCursor", list_cursor(self, arena, "tasks", 0, next));
    }
    mcp_close_result(&out);
    exchange_answer(exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t begin_list(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    buf_t pairs;
    uint32_t count = 1;
    (void)state;
    pending->call = call;
    buf_open(&pairs, arena);
    mp_put_str(&pairs, "limit");
    mp_put_int(&pairs, TASKS_PAGE);
    args_put_text(&pairs, &count, "kind", "sop");
    args_put_text(&pairs, &count, "cursor", pending->cursor);
    args_put_text(&pairs, &count, "company", pending->company);
    peer_call_t request =
        pending_request(pending, "agent", "task_list", args_map(arena, &pairs, count));
    call_peer(call, &request, on_list, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t tasks_list(exchange_t *exchange, const mcp_message_t *message)
{
    size_t at;
    const char *cursor;
    mcp_refusal_t refusal = list_read_cursor(exchange, message, "tasks", &at, &cursor);
    if (refusal.status)
        return refusal;
    pending_t *pending = pending_new(exchange, message);
    pending->kind = "task";
    pending->cursor = cursor;
    pending->company = exchange_company(exchange, NULL);
    pending_begin(pending, begin_list);
    return (mcp_refusal_t){0};
}
