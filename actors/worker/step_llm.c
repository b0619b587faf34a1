/* step_llm: a step of prose, done by a language model that calls tools, over the protocol of
 * OpenAI's /v1/chat/completions. The step ends when the model calls complete_step or fail_step.
 *
 * The conversation is kept with the agent after every answer of the model, and each tool call is an
 * effect with an index of its own, so that another worker can go on in the middle: it takes the
 * conversation, and for tool calls already done the agent gives their outcome. */
#include <string.h>

#include "actors/worker/abroad.h"
#include "actors/worker/slot.h"
#include "actors/worker/tools.h"
#include "bus/secret.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { MESSAGES_MOST = 4096, RETRIES = 4, RETRY_MS = 1000, ANSWER_LARGEST = 8 << 20 };

typedef struct chat {
    step_t *step;
    bytes_t *messages; /* msgpack maps, as the endpoint wants them */
    size_t count;
    int64_t turns, retries;
    /* The tool call under way: */
    int64_t effect; /* its index; the first is 1 */
    const char *call_id, *tool, *effect_id;
    const abroad_tool_t *foreign; /* NULL: a tool of ours */
    bytes_t args;
    abroad_list_t abroad; /* tools of foreign servers */
} chat_t;

static err_t go_on(call_t *call, chat_t *chat);

/* ---- The conversation ---- */

static void add(chat_t *chat, bytes_t message)
{
    if (chat->count < MESSAGES_MOST)
        chat->messages[chat->count++] = message;
}

static bytes_t text_message(call_t *call, const char *role, const char *text)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    mp_put_map(&out, 2);
    mp_put_str(&out, "role");
    mp_put_str(&out, role);
    mp_put_str(&out, "content");
    mp_put_str(&out, text);
    return buf_bytes(&out);
}

static bytes_t tool_message(call_t *call, const char *id, const char *text)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    mp_put_map(&out, 3);
    mp_put_str(&out, "role");
    mp_put_str(&out, "tool");
    mp_put_str(&out, "tool_call_id");
    mp_put_str(&out, id);
    mp_put_str(&out, "content");
    mp_put_str(&out, text);
    return buf_bytes(&out);
}

static bytes_t transcript(call_t *call, const chat_t *chat)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    mp_put_array(&out, (uint32_t)chat->count);
    for (size_t i = 0; i < chat->count; i++)
        mp_put_raw(&out, chat->messages[i]);
    return buf_bytes(&out);
}

static bool has_role(bytes_t message, const char *role)
{
    bytes_t field;
    return mp_get(message, "role", &field) && mp_equals(field, role);
}

static uint32_t tool_calls(bytes_t message, bytes_t *calls)
{
    mp_value_t head;
    if (!mp_get(message, "tool_calls", calls))
        return 0;
    mp_reader_t reader = mp_reader(*calls);
    return mp_read(&reader, &head) && head.type == MP_ARRAY ? head.count : 0;
}

/* The first tool call that has no answer yet; its number over the whole conversation is the index
 * of its effect. */
static bool open_call(const chat_t *chat, bytes_t *out, int64_t *index)
{
    int64_t before = 0;
    for (size_t i = 0; i < chat->count; i++) {
        bytes_t calls;
        uint32_t count =
            has_role(chat->messages[i], "assistant") ? tool_calls(chat->messages[i], &calls) : 0;
        uint32_t answered = 0;
        while (i + 1 + answered < chat->count && has_role(chat->messages[i + 1 + answered], "tool"))
            answered++;
        if (answered < count) {
            *index = before + answered + 1;
            return mp_at(calls, answered, out);
        }
        before += count;
    }
    return false;
}

/* ---- What the model may call ---- */

static void put_function(buf_t *out, const char *name, const char *doc, bytes_t schema)
{
    mp_put_map(out, 2);
    mp_put_str(out, "type");
    mp_put_str(out, "function");
    mp_put_str(out, "function");
    mp_put_map(out, 3);
    mp_put_str(out, "name");
    mp_put_str(out, name);
    mp_put_str(out, "description");
    mp_put_str(out, doc);
    mp_put_str(out, "parameters");
    mp_put_raw(out, schema);
}

static bytes_t end_schema(call_t *call, const char *member, const char *doc, const char *type)
{
    bytes_t schema = {0};
    const char *json =
        arena_printf(call_arena(call),
                     "{\"type\":\"object\",\"properties\":{\"%s\":{%s\"description\":\"%s\"}},"
                     "\"required\":[\"%s\"]}",
                     member, type, doc, member);
    json_to_msgpack(call_arena(call), json, strlen(json), NULL, &schema);
    return schema;
}

static void put_tools(call_t *call, const chat_t *chat, buf_t *out)
{
    size_t count;
    const tool_t *all = tools_all(chat->step->slot->worker->tools, &count);
    const abroad_list_t *abroad = &chat->abroad;
    mp_put_array(out, (uint32_t)(count + abroad->count) + 2);
    put_function(out, "complete_step", "The step is done.",
                 end_schema(call, "result", "What came of it.", ""));
    put_function(out, "fail_step", "The step cannot be done.",
                 end_schema(call, "reason", "Why not.", "\"type\":\"string\","));
    for (size_t i = 0; i < count; i++)
        put_function(out, all[i].name, all[i].doc, all[i].input);
    for (size_t i = 0; i < abroad->count; i++)
        put_function(out, abroad->items[i].function, abroad->items[i].doc, abroad->items[i].input);
}

/* ---- Asking the model ---- */

static err_t ask_model(call_t *call, chat_t *chat);

static err_t ask_again(void *self, call_t *call, void *reply, void *ctx)
{
    (void)self;
    (void)reply;
    return ask_model(call, ctx);
}

static err_t model_failed(call_t *call, chat_t *chat, const http_call_outcome_t *got)
{
    bool passes = err_is(got->err) || got->status == 429 || got->status >= 500;
    if (passes && chat->retries < RETRIES) {
        int64_t wait = RETRY_MS << chat->retries++;
        call_resume_after(call, got->retry_after_ms > wait ? got->retry_after_ms : wait, ask_again,
                          chat);
        return call_park(call);
    }
    const char *what =
        err_is(got->err)
            ? arena_printf(call_arena(call), "the language model cannot be reached: %s",
                           err_what(got->err))
            : arena_printf(call_arena(call), "the language model answered with status %d: %.*s",
                           got->status, (int)(got->body.size > 300 ? 300 : got->body.size),
                           (const char *)got->body.data);
    if (!mp_utf8(what, strlen(what)))
        what = "the language model answered with an error that is no text";
    return slot_step_error(call, chat->step, what, passes);
}

static err_t on_noted(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    chat_t *chat = ctx;
    (void)self;
    (void)reply;
    if (err_is(got->err))
        return slot_give_up(call, chat->step->slot, RETRY_MS);
    return go_on(call, chat);
}

static err_t on_answer(void *self, call_t *call, void *reply, const http_call_outcome_t *got,
                       void *ctx)
{
    chat_t *chat = ctx;
    bytes_t body, choices, first, message, usage, total;
    int64_t tokens;
    (void)self;
    (void)reply;
    if (err_is(got->err) || got->status != 200)
        return model_failed(call, chat, got);
    if (err_is(json_to_msgpack(call_arena(call), (const char *)got->body.data, got->body.size, NULL,
                               &body)) ||
        !mp_get(body, "choices", &choices) || !mp_at(choices, 0, &first) ||
        !mp_get(first, "message", &message) || !has_role(message, "assistant"))
        return slot_step_error(call, chat->step,
                               "the language model's answer has no choices[0].message", true);
    if (mp_get(body, "usage", &usage) && mp_get(usage, "total_tokens", &total) &&
        mp_int(total, &tokens))
        chat->step->tokens += tokens;
    chat->retries = 0;
    chat->turns++;
    add(chat, message);
    bytes_t calls;
    if (!tool_calls(message, &calls))
        add(chat, text_message(call, "user",
                               "Go on. When the step is done call complete_step with its "
                               "result; when it cannot be done call fail_step with the reason."));
    buf_t more;
    buf_open(&more, call_arena(call));
    mp_put_str(&more, "transcript");
    mp_put_raw(&more, transcript(call, chat));
    slot_ask(call, chat->step, "step_note", 0, 1, buf_bytes(&more), on_noted, chat);
    return call_park(call);
}

static const char *url_of(call_t *call, const worker_settings_t *settings)
{
    size_t size = strlen(settings->llm_url);
    bool slash = size && settings->llm_url[size - 1] == '/';
    return arena_printf(call_arena(call), "%s%schat/completions", settings->llm_url,
                        slash ? "" : "/");
}

static err_t ask_model(call_t *call, chat_t *chat)
{
    const worker_settings_t *settings = chat->step->slot->worker->settings;
    const perform_t *perform = &chat->step->perform;
    if (chat->turns >= settings->llm_turns)
        return slot_step_error(call, chat->step,
                               "the language model did not end the step within worker.llm_turns "
                               "answers",
                               false);
    if (perform->has_tokens_left && chat->step->tokens >= perform->tokens_left)
        return slot_step_error(call, chat->step, "the run's budget of tokens is used up", false);
    buf_t value, json;
    buf_open(&value, call_arena(call));
    buf_open(&json, call_arena(call));
    mp_put_map(&value, 3);
    mp_put_str(&value, "model");
    mp_put_str(&value, settings->llm_model);
    mp_put_str(&value, "messages");
    mp_put_raw(&value, transcript(call, chat));
    mp_put_str(&value, "tools");
    put_tools(call, chat, &value);
    err_t err = json_from_msgpack(buf_bytes(&value), JSON_COMPACT, &json);
    if (err_is(err))
        return slot_step_error(call, chat->step, err_what(err), false);
    const char **headers = ARENA_ARRAY(call_arena(call), const char *, 3);
    headers[0] = "Content-Type: application/json";
    const char *key = settings->llm_key;
    if (settings->llm_key_file)
        err = secret_read(call_arena(call), "worker.llm_key_file", settings->llm_key_file, &key);
    if (err_is(err))
        return slot_step_error(call, chat->step, err_what(err), true);
    if (key)
        headers[1] = arena_printf(call_arena(call), "Authorization: Bearer %s", key);
    http_call_request_t request = {.method = "POST",
                                   .url = url_of(call, settings),
                                   .headers = headers,
                                   .body = buf_bytes(&json),
                                   .timeout_ms = settings->llm_timeout_ms,
                                   .response_limit = ANSWER_LARGEST};
    call_http(call, &request, on_answer, chat);
    return call_park(call);
}

/* ---- Doing what it asked for ---- */

static err_t answered(call_t *call, chat_t *chat, const char *text)
{
    add(chat, tool_message(call, chat->call_id, text));
    return go_on(call, chat);
}

static err_t answered_value(call_t *call, chat_t *chat, bytes_t value)
{
    buf_t json;
    buf_open(&json, call_arena(call));
    if (!value.size || err_is(json_from_msgpack(value, JSON_COMPACT, &json)))
        return answered(call, chat, "done");
    return answered(call, chat, json.data);
}

typedef struct outcome {
    chat_t *chat;
    bytes_t result;
    const char *error;
} outcome_t;

static err_t on_kept(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const outcome_t *outcome = ctx;
    bytes_t state = {0};
    (void)self;
    (void)reply;
    if (err_is(got->err))
        return slot_give_up(call, outcome->chat->step->slot, RETRY_MS);
    if (mp_get(got->body, "state", &state) && mp_equals(state, "unknown"))
        return slot_give_up(call, outcome->chat->step->slot, 0); /* a person is asked */
    if (outcome->error)
        return answered(call, outcome->chat,
                        arena_printf(call_arena(call), "error: %s", outcome->error));
    return answered_value(call, outcome->chat, outcome->result);
}

static err_t keep(call_t *call, chat_t *chat, const char *end, bytes_t result, const char *error)
{
    outcome_t *outcome = ARENA_NEW(call_arena(call), outcome_t);
    *outcome = (outcome_t){chat, result, error};
    buf_t more;
    buf_open(&more, call_arena(call));
    mp_put_str(&more, "outcome");
    mp_put_str(&more, end);
    mp_put_str(&more, error ? "error" : "result");
    if (error)
        mp_put_str(&more, error);
    else
        mp_put_raw(&more, result);
    slot_ask(call, chat->step, "effect_done", chat->effect, 2, buf_bytes(&more), on_kept, outcome);
    return call_park(call);
}

static err_t on_tool(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self;
    (void)reply;
    return keep(call, ctx, err_is(got->err) ? "error" : "ok", got->body,
                err_is(got->err) ? err_what(got->err) : NULL);
}

static err_t on_foreign(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    chat_t *chat = ctx;
    (void)self;
    (void)reply;
    if (got->progress) {
        slot_progress(call, chat->step, got->body);
        return call_park(call);
    }
    abroad_outcome_t outcome = abroad_read(call, got);
    return keep(call, chat,
                outcome.end == ABROAD_DONE      ? "ok"
                : outcome.end == ABROAD_UNKNOWN ? "unknown"
                                                : "error",
                outcome.result, outcome.end == ABROAD_DONE ? NULL : outcome.why);
}

static err_t on_dispatched(void *self, call_t *call, void *reply, const peer_answer_t *got,
                           void *ctx)
{
    chat_t *chat = ctx;
    slot_t *slot = chat->step->slot;
    (void)self;
    (void)reply;
    if (err_is(got->err))
        return slot_give_up(call, slot, RETRY_MS);
    if (chat->foreign) {
        peer_call_t request = abroad_request(call, slot, chat->foreign->name, chat->abroad.life,
                                             chat->args, chat->effect_id, 0);
        call_peer(call, &request, on_foreign, chat);
        return call_park(call);
    }
    const tool_t *tool = tools_find(slot->worker->tools, chat->tool);
    const char **companies = ARENA_ARRAY(call_arena(call), const char *, 1);
    companies[0] = arena_strdup(call_arena(call), slot->company);
    peer_call_t request = {.peer = tool->pillar,
                           .method = tool->name,
                           .args = chat->args,
                           .company = slot->company,
                           .key = tool->reads ? NULL : chat->effect_id,
                           .principal = arena_printf(call_arena(call), "run:%s", slot->id),
                           .role = ROLE_OPERATOR,
                           .companies = {companies, 1}};
    call_peer(call, &request, on_tool, chat);
    return call_park(call);
}

static err_t on_begun(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    chat_t *chat = ctx;
    bytes_t state = {0}, field = {0};
    (void)self;
    (void)reply;
    if (err_is(got->err) || !mp_get(got->body, "state", &state))
        return slot_give_up(call, chat->step->slot, RETRY_MS);
    if (mp_equals(state, "committed")) {
        mp_get(got->body, "result", &field);
        return answered_value(call, chat, field);
    }
    if (mp_equals(state, "failed")) {
        const char *error =
            mp_get(got->body, "error", &field) ? mp_text(call_arena(call), field) : NULL;
        return answered(call, chat,
                        arena_printf(call_arena(call), "error: %s", error ? error : "it failed"));
    }
    if (mp_equals(state, "refused"))
        return answered(call, chat,
                        "refused: this run is simulated, and the tool changes something");
    if (!mp_equals(state, "intended")) /* unknown: a person is asked, the lease is over */
        return slot_give_up(call, chat->step->slot, 0);
    if (mp_get(got->body, "effect_id", &field))
        chat->effect_id = mp_text(call_arena(call), field);
    slot_ask(call, chat->step, "step_start", chat->effect, 0, (bytes_t){0}, on_dispatched, chat);
    return call_park(call);
}

static err_t end_step(call_t *call, chat_t *chat, bool done, bytes_t args)
{
    bytes_t value = {0};
    if (done) {
        mp_get(args, "result", &value);
        return slot_step_ok(call, chat->step, value);
    }
    const char *reason = mp_get(args, "reason", &value) ? mp_text(call_arena(call), value) : NULL;
    return slot_step_error(call, chat->step,
                           reason && *reason ? reason : "the model gave the step up", false);
}

/* Ours know a repetition by its key; of foreign ones their server says. In a simulated run only
 * what reads is safe, and no foreign tool is called. */
static const char *replay_of(const chat_t *chat, const tool_t *tool)
{
    if (tool)
        return tool->reads ? "safe" : "keyed";
    return chat->foreign->safe && !chat->step->perform.simulate ? "safe" : "manual";
}

static err_t do_call(call_t *call, chat_t *chat, bytes_t wanted)
{
    bytes_t function, field;
    arena_t *arena = call_arena(call);
    chat->call_id = mp_get(wanted, "id", &field) ? mp_text(arena, field) : NULL;
    if (!chat->call_id)
        chat->call_id = "";
    const char *name = NULL, *args = NULL;
    if (mp_get(wanted, "function", &function)) {
        name = mp_get(function, "name", &field) ? mp_text(arena, field) : NULL;
        args = mp_get(function, "arguments", &field) ? mp_text(arena, field) : NULL;
    }
    if (!name)
        return answered(call, chat, "error: the tool call names no function");
    chat->args = (bytes_t){0};
    if (args && *args) {
        err_t err = json_to_msgpack(arena, args, strlen(args), NULL, &chat->args);
        if (err_is(err))
            return answered(
                call, chat,
                arena_printf(arena, "error: the arguments are no JSON: %s", err_what(err)));
    }
    if (!strcmp(name, "complete_step") || !strcmp(name, "fail_step"))
        return end_step(call, chat, !strcmp(name, "complete_step"), chat->args);
    const tool_t *tool = tools_find(chat->step->slot->worker->tools, name);
    chat->foreign = tool ? NULL : abroad_find(&chat->abroad, name);
    if (!tool && !chat->foreign)
        return answered(call, chat, arena_printf(arena, "error: there is no tool '%s'", name));
    chat->tool = tool ? tool->name : chat->foreign->name;
    buf_t more;
    buf_open(&more, arena);
    mp_put_str(&more, "tool");
    mp_put_str(&more, chat->tool);
    mp_put_str(&more, "args");
    mp_put_raw(&more, chat->args);
    mp_put_str(&more, "replay");
    mp_put_str(&more, replay_of(chat, tool));
    slot_ask(call, chat->step, "effect_begin", chat->effect, 3, buf_bytes(&more), on_begun, chat);
    return call_park(call);
}

static err_t go_on(call_t *call, chat_t *chat)
{
    bytes_t wanted;
    if (open_call(chat, &wanted, &chat->effect))
        return do_call(call, chat, wanted);
    return ask_model(call, chat);
}

/* ---- Beginning ---- */

static err_t with_all(call_t *call, void *ctx)
{
    return go_on(call, ctx);
}

static err_t with_tools(call_t *call, void *ctx)
{
    chat_t *chat = ctx;
    return abroad_list_then(call, chat->step, &chat->abroad, with_all, chat);
}

static void take_transcript(chat_t *chat)
{
    mp_reader_t reader = mp_reader(chat->step->perform.transcript);
    mp_value_t head;
    bytes_t message;
    if (!chat->step->perform.transcript.size || !mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &message); i++) {
        add(chat, message);
        chat->turns += has_role(message, "assistant");
    }
}

err_t step_llm_perform(call_t *call, step_t *step)
{
    const worker_settings_t *settings = step->slot->worker->settings;
    if (!settings->llm_url)
        return slot_step_error(call, step, "this worker has no language model: set AGENCY_LLM_URL",
                               true);
    chat_t *chat = ARENA_NEW(call_arena(call), chat_t);
    chat->step = step;
    chat->messages = ARENA_ARRAY(call_arena(call), bytes_t, MESSAGES_MOST);
    take_transcript(chat);
    if (!chat->count) {
        const char *soul = step->perform.soul;
        add(chat,
            text_message(call, "system",
                         arena_printf(call_arena(call),
                                      "%s%sYou carry out one step of a written procedure for a "
                                      "company, with the tools you are given. Do only this step. "
                                      "End it by calling complete_step or fail_step.",
                                      soul ? soul : "", soul ? "\n\n" : "")));
        add(chat, text_message(call, "user", step->perform.prompt ? step->perform.prompt : ""));
    }
    return tools_then(call, step->slot->worker, false, with_tools, chat);
}
