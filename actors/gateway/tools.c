/* tools: tools/call, how long one may take, and what is counted of each. */
#include "actors/gateway/parts.h"

#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

/* ---- How long ---- */

static bool is_name(const char *text, size_t size)
{
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/";
    return size && size <= 128 && strspn(text, fine) >= size;
}

err_t tools_check_settings(const gateway_settings_t *settings, arena_t *arena)
{
    for (size_t i = 0; i < settings->tool_timeouts.count; i++) {
        const char *item = settings->tool_timeouts.items[i];
        size_t size = strcspn(item, "=");
        char *end;
        long ms = item[size] ? strtol(item + size + 1, &end, 10) : 0;
        if (!is_name(item, size) || !item[size] || !item[size + 1] || *end || ms < 100 ||
            ms > 3600000)
            return err_make(arena, ERR_ARGUMENT,
                            "gateway.tool_timeouts: '%.80s' is not TOOL=MS with 100 to 3600000 ms",
                            item);
    }
    return err_ok();
}

int64_t tools_timeout_ms(const gateway_t *self, const char *tool)
{
    const strs_t *list = &self->settings->tool_timeouts;
    for (size_t i = 0; i < list->count; i++) {
        size_t size = strcspn(list->items[i], "=");
        if (strlen(tool) == size && !strncmp(list->items[i], tool, size))
            return strtol(list->items[i] + size + 1, NULL, 10);
    }
    return self->settings->call_timeout_ms;
}

/* ---- What is counted ---- */

enum { TOOLS_COUNTED = 512, BUCKETS = 11 };

static const double bounds[BUCKETS] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300};

/* Only tools that are listed are counted, so nobody can make up labels. */
struct tool_count {
    char name[129];
    uint64_t calls, errors;
    uint64_t buckets[BUCKETS + 1];
    double seconds;
};

void tools_count(gateway_t *self, const char *tool, bool failed, int64_t took_us)
{
    tool_count_t *count = NULL;
    for (size_t i = 0; !count && i < self->tool_counts_count; i++)
        if (!strcmp(self->tool_counts[i].name, tool))
            count = &self->tool_counts[i];
    if (!count) {
        if (self->tool_counts_count == TOOLS_COUNTED || strlen(tool) >= sizeof(count->name))
            return;
        if (!self->tool_counts &&
            !(self->tool_counts = calloc(TOOLS_COUNTED, sizeof(tool_count_t))))
            abort();
        count = &self->tool_counts[self->tool_counts_count++];
        memcpy(count->name, tool, strlen(tool) + 1);
    }
    double seconds = (double)took_us / 1e6;
    size_t bucket = 0;
    while (bucket < BUCKETS && seconds > bounds[bucket])
        bucket++;
    count->buckets[bucket]++;
    count->seconds += seconds;
    count->calls++;
    count->errors += failed;
}

void tools_measure(const gateway_t *self, metrics_t *out)
{
    const char *labels[] = {"pillar", self->settings->pillar, "tool", NULL, "outcome", NULL, NULL};
    if (self->tool_counts_count)
        metrics_family(out, "agency_mcp_tool_calls", METRIC_COUNTER,
                       "Calls of tools by MCP clients, by outcome.");
    for (size_t i = 0; i < self->tool_counts_count; i++) {
        const tool_count_t *count = &self->tool_counts[i];
        labels[3] = count->name;
        labels[5] = "ok";
        metrics_put(out, (double)(count->calls - count->errors), labels);
        labels[5] = "error";
        metrics_put(out, (double)count->errors, labels);
    }
    labels[4] = NULL;
    if (self->tool_counts_count)
        metrics_family(out, "agency_mcp_tool_duration_seconds", METRIC_HISTOGRAM,
                       "Time from a tools/call to its answer.");
    for (size_t i = 0; i < self->tool_counts_count; i++) {
        const tool_count_t *count = &self->tool_counts[i];
        labels[3] = count->name;
        metrics_put_histogram(out, bounds, count->buckets, BUCKETS, count->seconds, labels);
    }
}

/* ---- tools/call ---- */

err_t tools_failed(pending_t *pending, call_t *call, err_t err)
{
    arena_t *arena = pending->exchange->arena;
    const char *text = err_what(err);
    if (err_info(err.code)->rpc_code)
        text = arena_printf(arena, "MCP error %d: %s", err_info(err.code)->rpc_code, text);
    buf_t out;
    buf_open(&out, arena);
    mcp_put_tool_result(&out, &pending->message, AGENCY_VERSION, text, (bytes_t){0}, true);
    pending->failed = true;
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

static err_t on_tool_answer(void *self, call_t *call, void *reply, const peer_answer_t *got,
                            void *ctx)
{
    pending_t *pending = ctx;
    exchange_t *exchange = pending->exchange;
    (void)self;
    (void)reply;
    if (got->progress) {
        pending->heard_us = actor_mono_us(exchange->gateway->actor);
        pending_note(pending, got->body);
        return call_park(call);
    }
    if (err_is(got->err))
        return tools_failed(pending, call, got->err);
    buf_t out;
    bytes_t part = catalogue_json_part(exchange->gateway->catalogue, pending->tool, got->body);
    const char *text = part.size ? mcp_pretty(exchange->arena, part) : got->text;
    buf_open(&out, exchange->arena);
    mcp_put_tool_result(&out, &pending->message, AGENCY_VERSION, text, got->body, false);
    exchange_answer(exchange, 200, out.data);
    kept_on_success(pending);
    return pending_done(pending, call);
}

/* Who hears progress waits as long as there is some. */
static err_t on_quiet(void *state, call_t *call, void *reply, void *ctx)
{
    const gateway_t *self = state;
    pending_t *pending = ctx;
    (void)reply;
    int64_t quiet_ms = (actor_mono_us(self->actor) - pending->heard_us) / 1000;
    int64_t left = tools_timeout_ms(self, pending->tool) - quiet_ms;
    if (left > 0) {
        call_resume_after(call, left, on_quiet, pending);
        return call_park(call);
    }
    return tools_failed(pending, call,
                        err_make(call_arena(call), ERR_TIMEOUT,
                                 "%s said nothing for %lld ms; gateway.tool_timeouts and "
                                 "gateway.call_timeout_ms say how long it may",
                                 pending->tool, (long long)quiet_ms));
}

static err_t begin_tool(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    pending->call = call;
    peer_call_t request =
        pending_request(pending, pending->pillar, pending->tool, pending->arguments);
    request.want_progress = pending->wants_notes;
    request.timeout_ms = tools_timeout_ms(self, pending->tool);
    if (pending->wants_notes && pending->message.progress_token.size) {
        pending->heard_us = actor_mono_us(self->actor);
        call_resume_after(call, request.timeout_ms, on_quiet, pending);
        request.timeout_ms = self->settings->progress_timeout_ms;
    }
    call_peer(call, &request, on_tool_answer, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

/* An answer like that of a tool that failed. */
static mcp_refusal_t say_no_tool(exchange_t *exchange, const mcp_message_t *message,
                                 const char *text)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_put_tool_result(&out, message, AGENCY_VERSION, text, (bytes_t){0}, true);
    exchange_answer(exchange, 200, out.data);
    return (mcp_refusal_t){0};
}

/* Whether there is such a tool is not known before every pillar has said what it can do. */
static mcp_refusal_t no_tool(exchange_t *exchange, const mcp_message_t *message, const char *tool)
{
    const gateway_t *self = exchange->gateway;
    buf_t silent;
    buf_open(&silent, exchange->arena);
    for (size_t i = 0; i < self->pillar_count; i++)
        if (!catalogue_knows(self->catalogue, self->pillars[i]))
            buf_printf(&silent, "%s%s", silent.size ? ", " : "", self->pillars[i]);
    if (silent.size && !exchange->only && !exchange->principal.has_toolsets)
        return say_no_tool(exchange, message,
                           arena_printf(exchange->arena,
                                        "'%.128s' is no tool of the pillars that have answered "
                                        "since this gateway began; away or starting: %s. Try again",
                                        tool, silent.data));
    const char *text =
        arena_printf(exchange->arena, "there is no tool '%.128s'; tools/list names them", tool);
    if (exchange->earlier)
        return say_no_tool(exchange, message,
                           arena_printf(exchange->arena, "MCP error %d: %s", MCP_PARAMS, text));
    return mcp_refuse(message, 200, MCP_PARAMS, text);
}

/* sop_execute begins a run and waits for it: as long as wait_ms says, or while progress is heard,
 * or as long as the agent thinks right. */
static mcp_refusal_t begin_follow(pending_t *pending)
{
    exchange_t *exchange = pending->exchange;
    const gateway_t *self = exchange->gateway;
    int64_t wait_ms;
    int64_t now = actor_mono_us(self->actor);
    bytes_t state = mcp_param(&pending->message, "requestState");
    pending->kind = "tool";
    pending->company = mp_member_text(exchange->arena, pending->arguments, "company");
    pending->owns_run = !mp_member(pending->arguments, "idempotency_key").size;
    if (mp_int(mp_member(pending->arguments, "wait_ms"), &wait_ms) && wait_ms >= 0)
        pending->until_us = now + wait_ms * 1000;
    else if (pending->wants_notes && pending->message.progress_token.size)
        pending->until_us = now + self->settings->progress_timeout_ms * 1000;
    else
        pending->until_us = -1;
    if (pending->message.modern && state.size) {
        if (!ask_unseal(pending, mp_text(exchange->arena, state)))
            return mcp_refuse(&pending->message, 400, MCP_PARAMS,
                              "params.requestState is not what this server gave for this request, "
                              "or is too old: begin again without it");
        pending->responses = mcp_param(&pending->message, "inputResponses");
    }
    pending_begin(pending, follow_tool);
    return (mcp_refusal_t){0};
}

/* 2025-11-25 asks for a task by params.task; who declared the extension gets one where it fits. Who
 * comes again with a state has begun without one: it must not begin twice. */
static bool wants_task(const gateway_t *self, const mcp_message_t *message, const char *tool)
{
    if (!message->modern)
        return mcp_has_tasks(message) && mcp_param(message, "task").size;
    return run_task_fits(self, tool) && !mcp_param(message, "requestState").size &&
           mcp_declares(message, "extensions", MCP_TASKS);
}

mcp_refusal_t tools_call(exchange_t *exchange, const mcp_message_t *message)
{
    gateway_t *self = exchange->gateway;
    const char *tool;
    bytes_t arguments;
    mcp_refusal_t refusal = mcp_read_call(exchange->arena, message, &tool, &arguments);
    if (refusal.status)
        return refusal;
    bool rich = false;
    const char *pillar = catalogue_find(self->catalogue, tool, &rich);
    if (!pillar || !exchange_offers(exchange, pillar))
        return no_tool(exchange, message, tool);
    exchange_names(exchange, tool, mp_member_text(exchange->arena, arguments, "company"));
    if (self->jwt)
        refusal = access_too_small(exchange, message, catalogue_role(self->catalogue, tool));
    if (refusal.status)
        return refusal;
    if (rich)
        return get_begin(exchange, message, "tool");
    mp_type_t type;
    bool task = wants_task(self, message, tool);
    if (task && !message->modern &&
        !(mp_type_of(mcp_param(message, "task"), &type) && type == MP_MAP))
        return mcp_refuse(message, 200, MCP_PARAMS, "params.task must be an object, as {}");
    if (task && !run_task_fits(self, tool))
        return mcp_refuse(message, 200, MCP_NO_METHOD,
                          arena_printf(exchange->arena,
                                       "the tool '%.128s' cannot be a task: call it without "
                                       "params.task",
                                       tool));
    pending_t *pending = pending_new(exchange, message);
    pending->tool = tool;
    pending->arguments = arguments;
    pending->pillar = pillar;
    pending->counted = true;
    pending->wants_notes = exchange_hears_notes(exchange, message);
    if (task)
        return tasks_begin(pending);
    if (!strcmp(tool, RUN_TOOL) && run_task_fits(self, tool)) {
        refusal = begin_follow(pending);
        if (refusal.status)
            pending_over(pending);
        return refusal;
    }
    pending_begin(pending, begin_tool);
    return (mcp_refusal_t){0};
}
