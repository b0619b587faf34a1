/* run_task: a run of a procedure, as a task of MCP. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

bool run_task_fits(const gateway_t *self, const char *tool)
{
    return !strcmp(tool, "sop_execute") && catalogue_find(self->catalogue, "run_get", NULL);
}

/* The same arguments, but it is not waited for: the run is on disk when the answer comes. */
bytes_t run_task_args(arena_t *arena, bytes_t arguments)
{
    buf_t out;
    bytes_t key, value;
    mp_value_t head = {.count = 0};
    uint32_t kept = 0;
    buf_t pairs;
    buf_open(&pairs, arena);
    mp_reader_t reader = mp_reader(arguments);
    if (arguments.size)
        mp_read(&reader, &head);
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
            break;
        if (mp_equals(key, "wait_ms"))
            continue;
        mp_put_raw(&pairs, key);
        mp_put_raw(&pairs, value);
        kept++;
    }
    buf_open(&out, arena);
    mp_put_map(&out, kept + 1);
    buf_put(&out, pairs.data, pairs.size);
    mp_put_str(&out, "wait_ms");
    mp_put_int(&out, 0);
    return buf_bytes(&out);
}

/* ---- What it looks like ---- */

static const char *status_of(const char *state)
{
    static const char *const names[][2] = {{"completed", "completed"},
                                           {"failed", "completed"}, /* the tool failed */
                                           {"buried", "completed"},
                                           {"cancelled", "cancelled"},
                                           {"input_required", "input_required"}};
    for (size_t i = 0; state && i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(names[i][0], state))
            return names[i][1];
    return "working";
}

/* The step that somebody has to say something about; size 0: none. */
static bytes_t waiting_step(bytes_t run)
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

static void put_question(arena_t *arena, bytes_t run, buf_t *out)
{
    bytes_t step = waiting_step(run);
    const char *why = mp_member_text(arena, run, "why"),
               *title = mp_member_text(arena, step, "title");
    buf_puts(out, ",\"inputRequests\":{\"step\":{\"method\":\"elicitation/create\",\"params\":{");
    mcp_put_text(out, "message",
                 arena_printf(arena, "%s%s%s", title ? title : "The run waits", why ? ": " : "",
                              why ? why : ""));
    buf_puts(out, is_approval(step)
                      ? ",\"requestedSchema\":{\"type\":\"object\",\"properties\":{\"approve\":{"
                        "\"type\":\"boolean\",\"description\":\"May it go on?\"},\"note\":{"
                        "\"type\":\"string\",\"description\":\"A remark, or why not.\"}},"
                        "\"required\":[\"approve\"]}}}}"
                      : ",\"requestedSchema\":{\"type\":\"object\",\"properties\":{\"result\":{"
                        "\"type\":\"string\",\"description\":\"What came of this step.\"}},"
                        "\"required\":[\"result\"]}}}}");
}

void run_task_put(arena_t *arena, bytes_t run, const char *text, int64_t now_ms, bool full,
                  buf_t *out)
{
    const char *state = mp_member_text(arena, run, "state"), *status = status_of(state);
    const char *why = mp_member_text(arena, run, "why");
    int64_t created = 0, finished = 0;
    mp_int(mp_member(run, "created_ms"), &created);
    if (!mp_member(run, "finished_ms").size || !mp_int(mp_member(run, "finished_ms"), &finished))
        finished = now_ms;
    buf_printf(out,
               ",\"status\":\"%s\",\"createdAt\":\"%s\",\"lastUpdatedAt\":\"%s\",\"ttlMs\":null,"
               "\"pollIntervalMs\":1000",
               full ? status : "working", record_time_text(arena, created),
               record_time_text(arena, full ? finished : created));
    if (why) {
        buf_puts(out, ",");
        mcp_put_text(out, "statusMessage", why);
    }
    if (full && !strcmp(status, "completed")) {
        buf_puts(out, ",\"result\":{\"content\":[{\"type\":\"text\",");
        mcp_put_text(out, "text", text && *text ? text : mcp_pretty(arena, run));
        buf_puts(out, "}]");
        if (strcmp(state, "completed") != 0) {
            buf_puts(out, ",\"isError\":true");
        } else {
            buf_puts(out, ",\"structuredContent\":");
            json_from_msgpack(run, JSON_COMPACT, out);
        }
        buf_puts(out, "}");
    }
    if (full && !strcmp(status, "input_required"))
        put_question(arena, run, out);
}

/* ---- What the client says to it ---- */

/* What tasks/update says to a run; NULL: nothing that it waits for. */
static const char *update_call(const pending_t *pending, bytes_t run, const char *id, bytes_t *args)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t answer = mp_member(pending->responses, "step"), content = mp_member(answer, "content");
    bytes_t step = waiting_step(run);
    bool accepted = mp_equals(mp_member(answer, "action"), "accept"), approve = false;
    const char *note = mp_member_text(arena, content, "note"),
               *result = mp_member_text(arena, content, "result");
    if (!answer.size || !step.size)
        return NULL;
    if (is_approval(step) && accepted && mp_bool(mp_member(content, "approve"), &approve) &&
        approve) {
        *args = pending_args(pending, "id", id, "note", note);
        return "approve";
    }
    if (is_approval(step)) {
        *args = pending_args(pending, "id", id, "why", note && *note ? note : "declined");
        return "reject";
    }
    if (accepted && !result)
        return NULL;
    *args = pending_args(pending, "id", id, accepted ? "result" : "error",
                         accepted ? result : "declined by the client");
    return accepted ? "step_complete" : "step_fail";
}

bool run_task_call(const pending_t *pending, const char *id, bytes_t run, peer_call_t *out)
{
    const char *operation = pending->message.method + strlen("tasks/");
    bytes_t args;
    if (!run.size) {
        *out = pending_request(pending, "agent", "run_get",
                               pending_args(pending, "id", id, NULL, NULL));
        return true;
    }
    if (!strcmp(operation, "cancel")) {
        const char *status = status_of(mp_member_text(pending->exchange->arena, run, "state"));
        if (!strcmp(status, "completed") || !strcmp(status, "cancelled"))
            return false;
        *out = pending_request(pending, "agent", "task_cancel",
                               pending_args(pending, "id", id, NULL, NULL));
        return true;
    }
    const char *method = !strcmp(operation, "update") ? update_call(pending, run, id, &args) : NULL;
    if (!method)
        return false;
    *out = pending_request(pending, "agent", method, args);
    return true;
}
