/* sampling: a step of prose for which no model is configured, done by the client's own model.
 *
 * Where the client can call tools in sampling its model must end the step as any other model does,
 * by complete_step or fail_step. Otherwise its text is the result. What it did not finish, or says
 * it cannot do, completes nothing: the step then waits for a person, as it did before. It is given
 * no tools that act: what it did with them would be in no journal. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

#define CANNOT "CANNOT:"

static bool can_sample(const pending_t *pending)
{
    return pending->message.modern
               ? !pending->task && mcp_declares(&pending->message, "sampling", NULL)
               : ask_can(pending->exchange, "sampling/createMessage");
}

static bool with_tools(const pending_t *pending)
{
    return pending->message.modern ? mcp_declares(&pending->message, "sampling", "tools")
                                   : pending->exchange->session.sampling_tools;
}

int64_t sampling_number(bytes_t step)
{
    int64_t number = 0;
    return step.size && mp_int(mp_member(step, "number"), &number) ? number : 0;
}

static bool is_prose(bytes_t step)
{
    return step.size && mp_equals(mp_member(step, "kind"), "llm") &&
           mp_equals(mp_member(step, "state"), "waiting");
}

bool sampling_fits(const pending_t *pending, bytes_t step)
{
    return is_prose(step) && can_sample(pending) && pending->unsampled != sampling_number(step);
}

bool sampling_fits_task(const pending_t *pending, bytes_t step)
{
    return is_prose(step) && pending->message.modern &&
           mcp_declares(&pending->message, "sampling", NULL);
}

/* ---- The question ---- */

static void put_earlier(arena_t *arena, size_t most, bytes_t run, int64_t before, buf_t *out)
{
    bytes_t steps = mp_member(run, "steps"), step;
    for (uint32_t i = 0; steps.size && mp_at(steps, i, &step); i++) {
        bytes_t result = mp_member(step, "result");
        if (sampling_number(step) >= before || !result.size)
            continue;
        const char *json = mcp_json(arena, result), *title = mp_member_text(arena, step, "title");
        size_t size = strlen(json), kept = size < most ? size : most;
        while (kept && !mp_utf8(json, kept))
            kept--;
        buf_printf(out, "%u. %s: %.*s%s\n", i + 1, title ? title : "", (int)kept, json,
                   kept < size ? " ... (cut)" : "");
    }
}

static const char *prompt(const pending_t *pending, bytes_t run, bytes_t step, bool tools)
{
    arena_t *arena = pending->exchange->arena;
    const gateway_settings_t *settings = pending->exchange->gateway->settings;
    const char *title = mp_member_text(arena, run, "title"),
               *name = mp_member_text(arena, step, "title"),
               *text = mp_member_text(arena, step, "input");
    bytes_t input = mp_member(run, "input");
    buf_t out;
    buf_open(&out, arena);
    buf_printf(&out, "You carry out one step of a procedure.\n\n# %s\n\nInput of the run: %s\n\n",
               title ? title : "", input.size ? mcp_json(arena, input) : "none");
    buf_puts(&out, "Results of the earlier steps:\n");
    put_earlier(arena, (size_t)settings->sampling_earlier_bytes, run, sampling_number(step), &out);
    buf_printf(&out, "\nYour step, number %lld: %s\n\n%s\n\n", (long long)sampling_number(step),
               name ? name : "", text ? text : "");
    buf_puts(&out, tools
                       ? "When it is done call complete_step with what came of it; if it cannot "
                         "be done call fail_step and say why."
                       : "Answer with what came of the step and nothing else: your answer is kept "
                         "as its result. If it cannot be done by answering, for example because "
                         "it needs tools, answer with one line that begins with " CANNOT
                         " and the reason.");
    return out.data;
}

static const char tool_list[] =
    ",\"tools\":[{\"name\":\"complete_step\",\"description\":\"The step is "
    "done.\",\"inputSchema\":{"
    "\"type\":\"object\",\"properties\":{\"result\":{\"description\":\"What came of it.\"}},"
    "\"required\":[\"result\"]}},{\"name\":\"fail_step\",\"description\":\"The step cannot be "
    "done.\",\"inputSchema\":{\"type\":\"object\",\"properties\":{\"reason\":{\"type\":\"string\","
    "\"description\":\"Why not.\"}},\"required\":[\"reason\"]}}],"
    "\"toolChoice\":{\"mode\":\"required\"}";

const char *sampling_question(const pending_t *pending, bytes_t run, bytes_t step)
{
    arena_t *arena = pending->exchange->arena;
    bool tools = with_tools(pending);
    buf_t out;
    buf_open(&out, arena);
    buf_printf(&out,
               "{\"%s\":{\"method\":\"sampling/createMessage\",\"params\":{\"messages\":[{"
               "\"role\":\"user\",\"content\":{\"type\":\"text\",",
               run_task_key(arena, run));
    mcp_put_text(&out, "text", prompt(pending, run, step, tools));
    buf_puts(&out, "}}],");
    mcp_put_text(&out, "systemPrompt",
                 "You carry out one step of a written procedure for a company. Do only this step, "
                 "and never claim what you did not do.");
    buf_printf(&out, ",\"maxTokens\":%lld%s}}}",
               (long long)pending->exchange->gateway->settings->sampling_tokens,
               tools ? tool_list : "");
    return out.data;
}

/* ---- The answer ---- */

/* One block, or several: those of this type, one after the other. */
static bytes_t block_of(bytes_t content, const char *type, uint32_t at)
{
    mp_type_t kind;
    bytes_t block;
    if (!content.size || !mp_type_of(content, &kind))
        return (bytes_t){0};
    if (kind == MP_MAP)
        return !at && mp_equals(mp_member(content, "type"), type) ? content : (bytes_t){0};
    for (uint32_t i = 0; mp_at(content, i, &block); i++)
        if (mp_equals(mp_member(block, "type"), type) && !at--)
            return block;
    return (bytes_t){0};
}

static const char *text_of(arena_t *arena, bytes_t content)
{
    buf_t out;
    bytes_t block;
    buf_open(&out, arena);
    for (uint32_t i = 0; (block = block_of(content, "text", i)).size; i++) {
        const char *text = mp_member_text(arena, block, "text");
        buf_printf(&out, "%s%s", out.size ? "\n" : "", text ? text : "");
    }
    return out.data;
}

/* Whether the model came to an end by itself; what was cut off is no result. */
static bool ended(bytes_t answer)
{
    bytes_t reason = mp_member(answer, "stopReason");
    return !reason.size || mp_equals(reason, "endTurn") || mp_equals(reason, "stopSequence") ||
           mp_equals(reason, "toolUse");
}

/* The result, or with `*failed` the reason; size 0: neither, the step goes on waiting. */
static bytes_t verdict(const pending_t *pending, bytes_t answer, bool *failed)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t content = mp_member(answer, "content"), call = block_of(content, "tool_use", 0);
    *failed = false;
    if (!mp_equals(mp_member(answer, "role"), "assistant") || !ended(answer))
        return (bytes_t){0};
    if (with_tools(pending)) {
        *failed = mp_equals(mp_member(call, "name"), "fail_step");
        if (!*failed && !mp_equals(mp_member(call, "name"), "complete_step"))
            return (bytes_t){0};
        return mp_member(mp_member(call, "input"), *failed ? "reason" : "result");
    }
    const char *text = text_of(arena, content);
    text += strspn(text, " \t\r\n");
    if (!*text || !strncasecmp(text, CANNOT, strlen(CANNOT)))
        return (bytes_t){0};
    return mp_str(arena, text);
}

/* Whose word it is: the client's, and of which model. */
static const char *speaker(const pending_t *pending, bytes_t answer)
{
    arena_t *arena = pending->exchange->arena;
    const char *model = mp_member_text(arena, answer, "model");
    return arena_printf(arena, "%s by sampling (%.80s)", pending->exchange->principal.name,
                        model && mp_utf8(model, strnlen(model, 80)) ? model : "a model");
}

bool sampling_answer(const pending_t *pending, bytes_t run, const char *id, peer_call_t *out)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t step = run_task_waiting(run), answer = run_task_reply(pending, run);
    bool failed;
    buf_t pairs;
    uint32_t count = 0;
    if (!is_prose(step))
        return false;
    bytes_t value = verdict(pending, answer, &failed);
    if (!value.size ||
        value.size > (size_t)pending->exchange->gateway->settings->sampling_result_bytes)
        return false;
    const char *reason = failed ? mp_text(arena, value) : NULL;
    buf_open(&pairs, arena);
    args_put_text(&pairs, &count, "id", id);
    args_put_text(&pairs, &count, "step",
                  arena_printf(arena, "%lld", (long long)sampling_number(step)));
    args_put_text(&pairs, &count, "company", pending->company);
    if (failed)
        args_put_text(&pairs, &count, "error",
                      reason && *reason ? reason : "the client's model gave the step up");
    else
        args_put(&pairs, &count, "result", value);
    *out = pending_request(pending, "agent", failed ? "step_fail" : "step_complete",
                           args_map(arena, &pairs, count));
    out->principal = speaker(pending, answer);
    return true;
}

bool sampling_answered(const pending_t *pending, bytes_t run)
{
    bytes_t answer = run_task_reply(pending, run);
    return answer.size && mp_member(answer, "role").size;
}
