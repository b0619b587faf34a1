/* run_task: a run in the durable queue, as a task of MCP: how it looks in the extension and in
 * version 2025-11-25, what it asks, and what is said to it. No calls but those it names. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- Which tools, and how they begin ---- */

bool run_task_fits(const gateway_t *self, const char *tool)
{
    return catalogue_is_long(self->catalogue, tool) &&
           catalogue_find(self->catalogue, "run_get", NULL);
}

/* The same arguments without wait_ms. */
static uint32_t put_arguments(buf_t *out, bytes_t arguments)
{
    bytes_t key, value;
    mp_value_t head = {.count = 0};
    uint32_t kept = 0;
    mp_reader_t reader = mp_reader(arguments);
    if (arguments.size)
        mp_read(&reader, &head);
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
            break;
        if (mp_equals(key, "wait_ms"))
            continue;
        mp_put_raw(out, key);
        mp_put_raw(out, value);
        kept++;
    }
    return kept;
}

static bytes_t map_of(arena_t *arena, const buf_t *pairs, uint32_t count)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, count);
    buf_put(&out, pairs->data, pairs->size);
    return buf_bytes(&out);
}

/* A procedure is a run already; any other tool becomes a run of one step. Neither is waited for:
 * the run is on disk when the answer comes. */
peer_call_t run_task_start(const pending_t *pending)
{
    arena_t *arena = pending->exchange->arena;
    buf_t pairs;
    buf_open(&pairs, arena);
    bool sop = !strcmp(pending->tool, RUN_TOOL);
    uint32_t count = put_arguments(&pairs, pending->arguments);
    if (sop) {
        mp_put_str(&pairs, "wait_ms");
        mp_put_int(&pairs, 0);
        return pending_request(pending, "agent", RUN_TOOL, map_of(arena, &pairs, count + 1));
    }
    bytes_t args = map_of(arena, &pairs, count);
    buf_open(&pairs, arena);
    mp_put_str(&pairs, "tool");
    mp_put_str(&pairs, pending->tool);
    mp_put_str(&pairs, "args");
    mp_put_raw(&pairs, args);
    if (pending->company) {
        mp_put_str(&pairs, "company");
        mp_put_str(&pairs, pending->company);
    }
    return pending_request(pending, "agent", "tool_run",
                           map_of(arena, &pairs, pending->company ? 3 : 2));
}

/* ---- What it looks like ---- */

typedef struct look {
    const char *state, *extension, *legacy;
    bool over;
} look_t;

/* To the extension a tool that failed is a completed task; to 2025-11-25 a failed one. */
static const look_t looks[] = {{"completed", "completed", "completed", true},
                               {"failed", "completed", "failed", true},
                               {"buried", "completed", "failed", true},
                               {"cancelled", "cancelled", "cancelled", true},
                               {"input_required", "input_required", "input_required", false},
                               {NULL, "working", "working", false}};

static const look_t *look_of(arena_t *arena, bytes_t run)
{
    const char *state = mp_member_text(arena, run, "state");
    if (mp_member(run, "asks").size) /* one inside of it does */
        state = "input_required";
    const look_t *look = looks;
    while (look->state && (!state || strcmp(look->state, state) != 0))
        look++;
    return look;
}

bool run_task_over(arena_t *arena, bytes_t run)
{
    return look_of(arena, run)->over;
}

bool run_task_asks(arena_t *arena, bytes_t run)
{
    return !strcmp(look_of(arena, run)->legacy, "input_required");
}

bytes_t run_task_waiting(bytes_t run)
{
    bytes_t steps = mp_member(run, "steps"), step;
    for (uint32_t i = 0; steps.size && mp_at(steps, i, &step); i++)
        if (mp_equals(mp_member(step, "state"), "waiting") ||
            mp_equals(mp_member(step, "state"), "unknown"))
            return step;
    return (bytes_t){0};
}

static bool is_approval(bytes_t step)
{
    return step.size && mp_equals(mp_member(step, "kind"), "approve");
}

bytes_t run_task_asking(const pending_t *pending, bytes_t run)
{
    return mp_member(run, "asks").size ? pending->asker : run;
}

/* No two questions of a task have the same: a repeated answer must not answer the next one. */
const char *run_task_key(arena_t *arena, bytes_t run)
{
    int64_t number = 0, started = 0;
    bytes_t step = run_task_waiting(run);
    const char *id = mp_member_text(arena, run, "id");
    mp_int(mp_member(step, "number"), &number);
    if (mp_member(step, "started_ms").size)
        mp_int(mp_member(step, "started_ms"), &started);
    return arena_printf(arena, "%s_%lld_%llx", id ? id : "run", (long long)number,
                        (unsigned long long)started);
}

bytes_t run_task_reply(const pending_t *pending, bytes_t run)
{
    return mp_member(pending->responses, run_task_key(pending->exchange->arena, run));
}

const char *run_task_question(arena_t *arena, bytes_t run, const char *task)
{
    bytes_t step = run_task_waiting(run);
    const char *why = mp_member_text(arena, run, "why"),
               *title = mp_member_text(arena, step, "title");
    buf_t out;
    buf_open(&out, arena);
    buf_printf(&out, "{\"%s\":{\"method\":\"elicitation/create\",\"params\":{",
               run_task_key(arena, run));
    if (task) {
        buf_puts(&out, "\"_meta\":{\"" MCP_RELATED_TASK "\":{");
        mcp_put_text(&out, "taskId", task);
        buf_puts(&out, "}},");
    }
    mcp_put_text(&out, "message",
                 arena_printf(arena, "%s%s%s", title ? title : "The run waits", why ? ": " : "",
                              why ? why : ""));
    buf_puts(&out, is_approval(step)
                       ? ",\"requestedSchema\":{\"type\":\"object\",\"properties\":{\"approve\":{"
                         "\"type\":\"boolean\",\"description\":\"May it go on?\"},\"note\":{"
                         "\"type\":\"string\",\"description\":\"A remark, or why not.\"}},"
                         "\"required\":[\"approve\"]}}}}"
                       : ",\"requestedSchema\":{\"type\":\"object\",\"properties\":{\"result\":{"
                         "\"type\":\"string\",\"description\":\"What came of this step.\"}},"
                         "\"required\":[\"result\"]}}}}");
    return out.data;
}

/* What the tool answered: of a run that is one, the run; of one step, the result of the step. */
static void put_result(arena_t *arena, bytes_t run, const char *text, buf_t *out)
{
    bytes_t body = run;
    bool fine = !strcmp(look_of(arena, run)->legacy, "completed");
    const char *sop = mp_member_text(arena, run, "sop");
    if (sop && strchr(sop, ':')) {
        body = mp_member(run, "result");
        text = fine ? NULL : mp_member_text(arena, run, "error");
    }
    buf_puts(out, "\"content\":[{\"type\":\"text\",");
    mcp_put_text(out, "text", text && *text ? text : mcp_pretty(arena, body));
    buf_puts(out, "}]");
    if (!fine) {
        buf_puts(out, ",\"isError\":true");
    } else {
        buf_puts(out, ",\"structuredContent\":");
        buf_puts(out, mcp_json(arena, body));
    }
}

static void put_times(arena_t *arena, bytes_t run, bool first, int64_t now_ms, buf_t *out)
{
    int64_t created = 0, finished = 0;
    mp_int(mp_member(run, "created_ms"), &created);
    if (!mp_member(run, "finished_ms").size || !mp_int(mp_member(run, "finished_ms"), &finished))
        finished = now_ms;
    buf_printf(out, "\"createdAt\":\"%s\",\"lastUpdatedAt\":\"%s\"",
               record_time_text(arena, created),
               record_time_text(arena, first ? created : finished));
}

static void put_why(arena_t *arena, bytes_t run, buf_t *out)
{
    const char *why = mp_member_text(arena, run, "why");
    if (!why)
        why = mp_member_text(arena, run, "error");
    if (!why)
        return;
    buf_puts(out, ",");
    mcp_put_text(out, "statusMessage", why);
}

void run_task_put(const pending_t *pending, bytes_t run, const char *text, int64_t now_ms,
                  bool first, buf_t *out)
{
    arena_t *arena = pending->exchange->arena;
    const look_t *look = look_of(arena, run);
    bytes_t asking = run_task_asking(pending, run);
    bool asks = run_task_asks(arena, run) && asking.size;
    bool works = first || (!asks && run_task_asks(arena, run));
    buf_printf(out, ",\"status\":\"%s\",", works ? "working" : look->extension);
    put_times(arena, run, first, now_ms, out);
    buf_printf(out, ",\"ttlMs\":null,\"pollIntervalMs\":%d", RUN_POLL_MS);
    put_why(arena, run, out);
    if (!first && !strcmp(look->extension, "completed")) {
        buf_puts(out, ",\"result\":{\"resultType\":\"complete\","); /* it is a whole result */
        put_result(arena, run, text, out);
        buf_puts(out, "}");
    }
    bytes_t step = run_task_waiting(asking);
    if (!first && asks)
        buf_printf(out, ",\"inputRequests\":%s",
                   sampling_fits_task(pending, step) ? sampling_question(pending, asking, step)
                                                     : run_task_question(arena, asking, NULL));
}

void run_task_put_legacy(arena_t *arena, bytes_t run, const char *task, int64_t now_ms, bool first,
                         buf_t *out)
{
    mcp_put_text(out, "taskId", task);
    buf_printf(out, ",\"status\":\"%s\",", first ? "working" : look_of(arena, run)->legacy);
    put_times(arena, run, first, now_ms, out);
    buf_printf(out, ",\"ttl\":null,\"pollInterval\":%d", RUN_POLL_MS);
    put_why(arena, run, out);
}

void run_task_put_result(arena_t *arena, bytes_t run, const char *text, const char *task,
                         buf_t *out)
{
    buf_puts(out, "\"_meta\":{\"" MCP_RELATED_TASK "\":{");
    mcp_put_text(out, "taskId", task);
    buf_puts(out, "}},");
    put_result(arena, run, text, out);
}

/* ---- What the client says to it ---- */

/* Which step is said as well: the run may go on before this arrives. */
static peer_call_t say_to_step(const pending_t *pending, bytes_t step, const char *id,
                               const char *method, const char *name, const char *value)
{
    arena_t *arena = pending->exchange->arena;
    buf_t pairs;
    uint32_t count = 0;
    buf_open(&pairs, arena);
    args_put_text(&pairs, &count, "id", id);
    args_put_text(&pairs, &count, "step",
                  arena_printf(arena, "%lld", (long long)sampling_number(step)));
    args_put_text(&pairs, &count, name, value);
    args_put_text(&pairs, &count, "company", pending->company);
    return pending_request(pending, "agent", method, args_map(arena, &pairs, count));
}

const char *run_task_wrong(const pending_t *pending, bytes_t run)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t step = run_task_waiting(run), answer = run_task_reply(pending, run),
            content = mp_member(answer, "content");
    bool accepted = mp_equals(mp_member(answer, "action"), "accept"), flag;
    if (!answer.size || sampling_answered(pending, run))
        return NULL;
    if (!accepted && !mp_equals(mp_member(answer, "action"), "decline") &&
        !mp_equals(mp_member(answer, "action"), "cancel"))
        return "action must be accept, decline or cancel";
    if (accepted && is_approval(step) &&
        (!mp_member(content, "approve").size || !mp_bool(mp_member(content, "approve"), &flag)))
        return "content.approve must be true or false";
    if (accepted && !is_approval(step) && !mp_member_text(arena, content, "result"))
        return "content.result must be the text of what came of the step";
    return NULL;
}

/* Only who accepts or declines has decided: one who closed the question, or could not be asked, has
 * not, and the run goes on waiting. */
bool run_task_answer(const pending_t *pending, bytes_t run, const char *id, peer_call_t *out)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t step = run_task_waiting(run), answer = run_task_reply(pending, run);
    bytes_t content = mp_member(answer, "content");
    bool accepted = mp_equals(mp_member(answer, "action"), "accept");
    bool declined = mp_equals(mp_member(answer, "action"), "decline");
    const char *note = mp_member_text(arena, content, "note");
    if (!answer.size || !step.size)
        return false;
    bool model = pending->sampling || sampling_answered(pending, run) ||
                 (sampling_fits_task(pending, step) && !mp_member(answer, "action").size);
    if (model)
        return sampling_answer(pending, run, id, out);
    if ((!accepted && !declined) || run_task_wrong(pending, run))
        return false;
    if (is_approval(step)) {
        bool fine = accepted && mp_member_true(content, "approve");
        const char *why = note && *note ? note : "declined";
        *out = say_to_step(pending, step, id, fine ? "approve" : "reject", fine ? "note" : "why",
                           fine ? note : why);
        return true;
    }
    *out = say_to_step(
        pending, step, id, accepted ? "step_complete" : "step_fail", accepted ? "result" : "error",
        accepted ? mp_member_text(arena, content, "result") : "declined by the client");
    return true;
}
