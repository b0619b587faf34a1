#include "actors/gateway/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

/* A pillar that serves more than rows has these methods, found by describe; everything in them is
 * as MCP words it:
 *
 *   <pillar>_mcp_list     {kind, cursor?}                    -> {items, next?}
 *   <pillar>_mcp_call     {kind, name, arguments?, responses?, state?, capabilities?, tasks}
 *                         -> one of {result} {inputs, state?} {task, detail} {needs} {missing},
 *                            and {changed?}
 *   <pillar>_mcp_complete {kind, name, argument, value}      -> {values, total?} {missing}
 *   <pillar>_mcp_task     {id, operation, responses?}        -> {detail} {missing}
 *
 * kind is tool(s), prompt(s), resource(s) or templates. A pillar knows nothing of eras: where it
 * wants input, a modern client gets input_required and a legacy one is asked on its stream. */

enum { STATE_LIVES_MS = 3600000, ROUNDS_MOST = 32, ANSWERS_MOST = 16 };

typedef struct question {
    struct question *next;
    const char *id;
    bytes_t key, answer; /* size 0: still open */
} question_t;

typedef struct pending_list {
    buf_t items;
    bool any;
} pending_list_t;

/* ---- Small words ---- */

static mcp_refusal_t refuse(const mcp_message_t *message, int status, int code, const char *text)
{
    return (mcp_refusal_t){.status = status, .code = code, .text = text, .id = message->id};
}

static bytes_t param(const mcp_message_t *message, const char *name)
{
    bytes_t field = {0};
    mp_type_t type;
    if (message->params.size && mp_get(message->params, name, &field) && mp_type_of(field, &type) &&
        type != MP_NIL)
        return field;
    return (bytes_t){0};
}

static const char *text_param(arena_t *arena, const mcp_message_t *message, const char *name)
{
    bytes_t field = param(message, name);
    return field.size ? mp_text(arena, field) : NULL;
}

static const char *text_of(arena_t *arena, bytes_t map, const char *name)
{
    bytes_t field;
    return map.size && mp_get(map, name, &field) ? mp_text(arena, field) : NULL;
}

static bool flag_of(bytes_t map, const char *name)
{
    bytes_t field;
    bool value = false;
    return map.size && mp_get(map, name, &field) && mp_bool(field, &value) && value;
}

static bytes_t member(bytes_t map, const char *name)
{
    bytes_t field;
    return map.size && mp_get(map, name, &field) ? field : (bytes_t){0};
}

/* Is capabilities.<one>[.<two>] declared in this message? */
bool rich_declares(const mcp_message_t *message, const char *one, const char *two)
{
    bytes_t field;
    return mcp_meta(message, "clientCapabilities", &field) && mp_get(field, one, &field) &&
           (!two || mp_get(field, two, &field));
}

static void put_pair(buf_t *out, uint32_t *count, const char *name, bytes_t value)
{
    if (!value.size)
        return;
    mp_put_str(out, name);
    mp_put_raw(out, value);
    ++*count;
}

static void put_text_pair(buf_t *out, uint32_t *count, const char *name, const char *value)
{
    if (!value)
        return;
    mp_put_str(out, name);
    mp_put_str(out, value);
    ++*count;
}

/* A map of what was put into `pairs`. */
static bytes_t wrap(arena_t *arena, const buf_t *pairs, uint32_t count)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, count);
    buf_put(&out, pairs->data, pairs->size);
    return buf_bytes(&out);
}

/* The members of a map behind what is written already. */
static void put_members(buf_t *out, bytes_t map, bool comma)
{
    bytes_t key, value;
    mp_value_t head;
    mp_reader_t reader = mp_reader(map);
    if (!map.size || !mp_read(&reader, &head) || head.type != MP_MAP)
        return;
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
            return;
        buf_puts(out, comma ? "," : "");
        comma = true;
        json_from_msgpack(key, JSON_COMPACT, out);
        buf_puts(out, ":");
        json_from_msgpack(value, JSON_COMPACT, out);
    }
}

static const char *to_json(arena_t *arena, bytes_t value)
{
    buf_t out;
    buf_open(&out, arena);
    return err_is(json_from_msgpack(value, JSON_COMPACT, &out)) ? "null" : out.data;
}

static err_t over(pending_t *pending, call_t *call)
{
    call_on_gone(call, NULL, NULL);
    pending_over(pending);
    return err_ok();
}

static err_t over_refused(pending_t *pending, call_t *call, mcp_refusal_t refusal)
{
    exchange_refuse(pending->exchange, &refusal);
    return over(pending, call);
}

static err_t over_failed(pending_t *pending, call_t *call, err_t err)
{
    buf_t out;
    exchange_t *exchange = pending->exchange;
    if (pending->kind && !strcmp(pending->kind, "tool")) {
        buf_open(&out, exchange->arena);
        mcp_put_tool_result(&out, &pending->message, AGENCY_VERSION, err_what(err), (bytes_t){0},
                            true);
        exchange_answer(exchange, 200, out.data);
        return over(pending, call);
    }
    int code = err_info(err.code)->rpc_code;
    return over_refused(pending, call,
                        refuse(&pending->message, 200, code ? code : MCP_INTERNAL, err_what(err)));
}

/* The next pillar with words of its own, from `at` on; NULL: none. */
static const char *next_pillar(const gateway_t *self, size_t *at)
{
    for (; *at < self->pillar_count; ++*at)
        if (catalogue_is_rich(self->catalogue, self->pillars[*at]))
            return self->pillars[*at];
    return NULL;
}

/* ---- States that the client keeps ---- */

static const char *subject(const pending_t *pending)
{
    arena_t *arena = pending->exchange->arena;
    const char *arguments = pending->arguments.size ? to_json(arena, pending->arguments) : "{}";
    return digest_texts(arena, pending->kind, pending->tool, arguments, NULL);
}

static const char *seal_state(const pending_t *pending, const char *pillar, const char *state)
{
    gateway_t *self = pending->exchange->gateway;
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mp_put_array(&out, 5);
    mp_put_str(&out, state);
    mp_put_str(&out, pillar);
    mp_put_str(&out, subject(pending));
    mp_put_str(&out, pending->exchange->principal.name);
    mp_put_int(&out, actor_wall_ms(self->actor) + STATE_LIVES_MS);
    return seal_put(&self->seal, pending->exchange->arena, "state", buf_bytes(&out));
}

static bool unseal_state(pending_t *pending, const char *text)
{
    gateway_t *self = pending->exchange->gateway;
    arena_t *arena = pending->exchange->arena;
    bytes_t payload, field;
    int64_t until;
    if (!text || !seal_get(&self->seal, arena, "state", text, &payload) ||
        !mp_at(payload, 2, &field) || !mp_equals(field, subject(pending)) ||
        !mp_at(payload, 3, &field) || !mp_equals(field, pending->exchange->principal.name) ||
        !mp_at(payload, 4, &field) || !mp_int(field, &until) ||
        until < actor_wall_ms(self->actor) || !mp_at(payload, 0, &field))
        return false;
    pending->state = mp_text(arena, field);
    return pending->state != NULL;
}

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

/* ---- Asking a legacy client on its stream ---- */

static void forget_asking(pending_t *pending)
{
    gateway_t *self = pending->exchange->gateway;
    for (pending_t **at = &self->asking; *at; at = &(*at)->next_asking)
        if (*at == pending) {
            *at = pending->next_asking;
            break;
        }
    pending->open_questions = 0;
}

void rich_forget(pending_t *pending)
{
    forget_asking(pending);
}

/* Where the client may lose its stream and fetch the rest later, the stream says how. */
static void begin_stream(exchange_t *exchange, const mcp_message_t *message)
{
    if (exchange->started || !exchange->request || exchange->batch || exchange->old_door)
        return;
    if (!message->modern && exchange->session.id &&
        strcmp(exchange->session.version, "2025-11-25") >= 0)
        replay_new(exchange);
}

static bool may_stream(const exchange_t *exchange)
{
    return exchange->streams && !exchange->batch;
}

static bool legacy_can(const session_claims_t *claims, const char *method)
{
    if (!claims->id)
        return false;
    return !strcmp(method, "sampling/createMessage") ? claims->sampling
           : !strcmp(method, "elicitation/create")   ? claims->elicitation
           : !strcmp(method, "roots/list")           ? claims->roots
                                                     : false;
}

static void send_question(pending_t *pending, question_t *question, const char *method,
                          bytes_t params)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    buf_puts(&out, "{\"jsonrpc\":\"2.0\",\"id\":");
    json_put_string(&out, question->id, strlen(question->id));
    buf_puts(&out, ",\"method\":");
    json_put_string(&out, method, strlen(method));
    if (params.size)
        buf_printf(&out, ",\"params\":%s", to_json(pending->exchange->arena, params));
    buf_puts(&out, "}");
    exchange_send(pending->exchange, out.data);
}

/* NULL, or why the client cannot be asked. */
static const char *ask_one(pending_t *pending, bytes_t key, bytes_t request)
{
    exchange_t *exchange = pending->exchange;
    gateway_t *self = exchange->gateway;
    const char *method = text_of(exchange->arena, request, "method");
    if (!method || !may_stream(exchange) || !legacy_can(&exchange->session, method))
        return arena_printf(exchange->arena,
                            "this needs an answer to '%s', which this client did not offer when "
                            "its session began",
                            method ? method : "?");
    question_t *question = ARENA_NEW(exchange->arena, question_t);
    question->id = arena_printf(exchange->arena, "%llx-%llx", (unsigned long long)self->salt,
                                (unsigned long long)self->next_number++);
    question->key = key;
    question->next = pending->questions;
    pending->questions = question;
    pending->open_questions++;
    send_question(pending, question, method, member(request, "params"));
    return NULL;
}

static err_t call_again(void *self, call_t *call, void *reply, void *ctx);

static err_t on_silence(void *self, call_t *call, void *reply, void *ctx)
{
    pending_t *pending = ctx;
    (void)self;
    (void)reply;
    if (!pending->open_questions)
        return call_park(call);
    forget_asking(pending);
    return over_failed(pending, call, err_of(ERR_TIMEOUT, "the client gave no answer in time"));
}

static err_t ask_legacy(pending_t *pending, call_t *call, bytes_t inputs)
{
    gateway_t *self = pending->exchange->gateway;
    bytes_t key, request;
    mp_value_t head;
    mp_reader_t reader = mp_reader(inputs);
    if (pending->rounds++ > ROUNDS_MOST)
        return over_failed(pending, call, err_of(ERR_STATE, "the tool asks without end"));
    begin_stream(pending->exchange, &pending->message);
    pending->questions = NULL;
    if (!mp_read(&reader, &head) || head.type != MP_MAP || head.count > ANSWERS_MOST)
        return over_failed(pending, call, err_of(ERR_INTERNAL, "the tool asks nonsense"));
    pending->next_asking = self->asking;
    self->asking = pending;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key); i++) {
        if (!mp_slice(&reader, &request))
            break;
        const char *why = ask_one(pending, key, request);
        if (why) {
            forget_asking(pending);
            return over_failed(pending, call, err_of(ERR_STATE, why));
        }
    }
    call_resume_after(call, self->settings->call_timeout_ms, on_silence, pending);
    return call_park(call);
}

static bytes_t gather(pending_t *pending)
{
    buf_t pairs;
    uint32_t count = 0;
    buf_open(&pairs, pending->exchange->arena);
    for (const question_t *at = pending->questions; at; at = at->next) {
        mp_put_raw(&pairs, at->key);
        mp_put_raw(&pairs, at->answer);
        count++;
    }
    return wrap(pending->exchange->arena, &pairs, count);
}

static question_t *find_question(gateway_t *self, const exchange_t *from, bytes_t id,
                                 pending_t **of)
{
    for (pending_t *at = self->asking; at; at = at->next_asking) {
        if (strcmp(at->exchange->principal.name, from->principal.name) != 0)
            continue;
        for (question_t *question = at->questions; question; question = question->next)
            if (!question->answer.size && mp_equals(id, question->id)) {
                *of = at;
                return question;
            }
    }
    return NULL;
}

bool rich_on_response(exchange_t *exchange, const mcp_message_t *message, bytes_t value)
{
    gateway_t *self = exchange->gateway;
    pending_t *pending = NULL;
    question_t *question =
        message->id.size ? find_question(self, exchange, message->id, &pending) : NULL;
    if (!question)
        return false;
    bytes_t answer = member(value, "result");
    if (!answer.size) {
        buf_t out;
        uint32_t count = 0;
        buf_open(&out, exchange->arena);
        put_pair(&out, &count, "error", member(value, "error"));
        answer = wrap(exchange->arena, &out, count);
    }
    arena_t *arena = pending->exchange->arena;
    question->answer = (bytes_t){arena_copy(arena, answer.data, answer.size), answer.size};
    if (--pending->open_questions == 0) {
        forget_asking(pending);
        pending->responses = gather(pending);
        actor_resume(self->actor, pending->call, call_again, pending);
    }
    return true;
}

/* ---- Notes on the way ---- */

static bool wants_log(const pending_t *pending, const char *level)
{
    const exchange_t *exchange = pending->exchange;
    const mcp_message_t *message = &pending->message;
    const char *least = NULL;
    bytes_t field;
    if (!message->modern)
        least = session_level(exchange->gateway, exchange->session.id);
    else if (mcp_meta(message, "logLevel", &field))
        least = mp_text(exchange->arena, field);
    return least && mcp_level(level) >= mcp_level(least);
}

void rich_on_note(pending_t *pending, bytes_t note)
{
    exchange_t *exchange = pending->exchange;
    const char *level = text_of(exchange->arena, note, "level");
    buf_t out;
    buf_open(&out, exchange->arena);
    if (exchange->batch)
        return;
    if (flag_of(note, "fetch_later")) {
        begin_stream(exchange, &pending->message);
        replay_hang_up(exchange);
        return;
    }
    if (level && may_stream(exchange) && wants_log(pending, level))
        mcp_put_log(&out, level, pending->pillar, text_of(exchange->arena, note, "text"));
    else if (!level && pending->message.progress_token.size)
        mcp_put_progress(&out, pending->message.progress_token, note);
    if (!out.size)
        return;
    begin_stream(exchange, &pending->message);
    exchange_send(exchange, out.data);
}

/* ---- tools/call, prompts/get, resources/read ---- */

static err_t not_there(pending_t *pending, call_t *call)
{
    arena_t *arena = pending->exchange->arena;
    mcp_refusal_t refusal =
        refuse(&pending->message, 200, MCP_PARAMS,
               arena_printf(arena, "there is no %s '%.256s'", pending->kind, pending->tool));
    if (!strcmp(pending->kind, "resource")) {
        buf_t data;
        buf_open(&data, arena);
        buf_puts(&data, "{\"uri\":");
        json_put_string(&data, pending->tool, strlen(pending->tool));
        buf_puts(&data, "}");
        refusal.data = data.data;
        if (!pending->message.modern)
            refusal.code = MCP_LEGACY_NO_RESOURCE;
    }
    return over_refused(pending, call, refusal);
}

static err_t lacks(pending_t *pending, call_t *call, bytes_t needs)
{
    arena_t *arena = pending->exchange->arena;
    if (!pending->message.modern)
        return over_failed(
            pending, call,
            err_make(arena, ERR_STATE, "this needs a client with %s", to_json(arena, needs)));
    mcp_refusal_t refusal =
        refuse(&pending->message, 400, MCP_CAPABILITY,
               "this needs capabilities that the client did not declare in _meta");
    refusal.data = arena_printf(arena, "{\"requiredCapabilities\":%s}", to_json(arena, needs));
    return over_refused(pending, call, refusal);
}

static err_t complete(pending_t *pending, call_t *call, bytes_t result)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    put_members(&out, result, pending->message.modern);
    if (!strcmp(pending->kind, "resource"))
        mcp_put_cache(&out, &pending->message);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static const char *capability_of(const char *method)
{
    return !strcmp(method, "sampling/createMessage") ? "sampling"
           : !strcmp(method, "elicitation/create")   ? "elicitation"
           : !strcmp(method, "roots/list")           ? "roots"
                                                     : NULL;
}

/* Only what the client declared may be asked; what it did not is named when nothing is left. */
static uint32_t put_inputs(pending_t *pending, bytes_t inputs, buf_t *out, buf_t *lacking)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t key, request;
    mp_value_t head;
    uint32_t count = 0, missing = 0;
    mp_reader_t reader = mp_reader(inputs);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return 0;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key); i++) {
        if (!mp_slice(&reader, &request))
            break;
        const char *method = text_of(arena, request, "method");
        const char *needs = method ? capability_of(method) : NULL;
        if (!needs || !rich_declares(&pending->message, needs, NULL)) {
            buf_printf(lacking, "%s\"%s\":{}", missing++ ? "," : "", needs ? needs : "unknown");
            continue;
        }
        buf_printf(out, "%s%s:%s", count++ ? "," : "", to_json(arena, key),
                   to_json(arena, request));
    }
    return count;
}

static err_t input_required(pending_t *pending, call_t *call, bytes_t reply)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t inputs = member(reply, "inputs");
    const char *state = text_of(arena, reply, "state");
    buf_t list, lacking, out;
    buf_open(&list, arena);
    buf_open(&lacking, arena);
    buf_open(&out, arena);
    uint32_t count = put_inputs(pending, inputs, &list, &lacking);
    if (!count) {
        mcp_refusal_t refusal =
            refuse(&pending->message, 400, MCP_CAPABILITY,
                   "this needs capabilities that the client did not declare in _meta");
        refusal.data = arena_printf(arena, "{\"requiredCapabilities\":{%s}}", lacking.data);
        return over_refused(pending, call, refusal);
    }
    mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "input_required");
    buf_printf(&out, ",\"inputRequests\":{%s}", list.data);
    if (state)
        buf_printf(&out, ",\"requestState\":\"%s\"", seal_state(pending, pending->pillar, state));
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static err_t task_created(pending_t *pending, call_t *call, const char *id, bytes_t detail)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "task");
    buf_printf(&out, ",\"taskId\":\"%s\"", seal_task(pending, pending->pillar, id));
    put_members(&out, detail, true);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static void tell_changes(pending_t *pending, bytes_t reply)
{
    gateway_t *self = pending->exchange->gateway;
    arena_t *arena = pending->exchange->arena;
    bytes_t list = member(reply, "changed"), item;
    for (uint32_t i = 0; list.size && mp_at(list, i, &item); i++) {
        const char *what = mp_text(arena, item);
        if (what && !strcmp(what, "tools"))
            gateway_ask_tools(self, pending->pillar);
        else if (what)
            streams_changed(self, what);
    }
}

static err_t begin_rich(void *state, call_t *call, void *ctx);

static err_t on_rich(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    if (got->progress) {
        rich_on_note(pending, got->body);
        return call_park(call);
    }
    if (err_is(got->err))
        return over_failed(pending, call, got->err);
    bytes_t body = {arena_copy(arena, got->body.data, got->body.size), got->body.size};
    if (flag_of(body, "missing")) {
        pending->at++;
        if (strcmp(pending->kind, "tool") != 0 && next_pillar(self, &pending->at))
            return begin_rich(self, call, pending);
        return not_there(pending, call);
    }
    tell_changes(pending, body);
    if (member(body, "needs").size)
        return lacks(pending, call, member(body, "needs"));
    if (member(body, "task").size)
        return task_created(pending, call, text_of(arena, body, "task"), member(body, "detail"));
    if (!member(body, "inputs").size)
        return complete(pending, call, member(body, "result"));
    if (pending->message.modern)
        return input_required(pending, call, body);
    pending->state = text_of(arena, body, "state");
    return ask_legacy(pending, call, member(body, "inputs"));
}

static bytes_t rich_args(const pending_t *pending)
{
    buf_t pairs;
    uint32_t count = 0;
    bytes_t capabilities = {0};
    buf_open(&pairs, pending->exchange->arena);
    mcp_meta(&pending->message, "clientCapabilities", &capabilities);
    put_text_pair(&pairs, &count, "kind", pending->kind);
    put_text_pair(&pairs, &count, "name", pending->tool);
    put_pair(&pairs, &count, "arguments", pending->arguments);
    put_pair(&pairs, &count, "responses", pending->responses);
    put_text_pair(&pairs, &count, "state", pending->state);
    put_pair(&pairs, &count, "capabilities", capabilities);
    mp_put_str(&pairs, "tasks");
    mp_put_bool(&pairs, rich_declares(&pending->message, "extensions", NULL) &&
                            rich_declares(&pending->message, "extensions", MCP_TASKS));
    return wrap(pending->exchange->arena, &pairs, count + 1);
}

static err_t begin_rich(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    pending->call = call;
    if (strcmp(pending->kind, "tool") != 0)
        pending->pillar = self->pillars[pending->at];
    peer_call_t request =
        pending_request(pending, pending->pillar,
                        arena_printf(arena, "%s_mcp_call", pending->pillar), rich_args(pending));
    request.want_progress = may_stream(pending->exchange);
    call_peer(call, &request, on_rich, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

static err_t call_again(void *self, call_t *call, void *reply, void *ctx)
{
    (void)reply;
    return begin_rich(self, call, ctx);
}

/* From the shelf, where no pillar has words of its own. */
static err_t on_shelf_get(void *state, call_t *call, void *unused, const peer_answer_t *got,
                          void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (got->err.code == ERR_NOT_FOUND || got->err.code == ERR_ARGUMENT)
        return not_there(pending, call);
    if (err_is(got->err))
        return over_failed(pending, call, got->err);
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_puts(&out, pending->message.modern ? "," : "");
    shelf_put_result(pending, got->body, &out);
    if (!strcmp(pending->kind, "resource"))
        mcp_put_cache(&out, &pending->message);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static err_t begin_shelf_get(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    peer_call_t request;
    (void)state;
    pending->call = call;
    if (!shelf_get_call(pending, &request))
        return not_there(pending, call);
    call_peer(call, &request, on_shelf_get, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

static const char *get_header(void *ctx, const char *name)
{
    return http_header(ctx, name);
}

mcp_refusal_t rich_get(exchange_t *exchange, const mcp_message_t *message, const char *kind)
{
    gateway_t *self = exchange->gateway;
    arena_t *arena = exchange->arena;
    bool tool = !strcmp(kind, "tool");
    const char *name = text_param(arena, message, strcmp(kind, "resource") ? "name" : "uri");
    if (!name)
        return refuse(message, message->modern ? 400 : 200, MCP_PARAMS,
                      strcmp(kind, "resource") ? "params.name must name what is wanted"
                                               : "params.uri must name a resource");
    bytes_t arguments = param(message, "arguments");
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
                       .responses = param(message, "inputResponses")};
    bytes_t state = param(message, "requestState");
    if (message->modern && state.size && !unseal_state(&probe, mp_text(arena, state)))
        return refuse(message, 400, MCP_PARAMS,
                      "params.requestState is not what this server gave for this request, or is "
                      "too old: begin again without it");
    size_t at = 0;
    bool shelf = !tool && !next_pillar(self, &at);
    pending_t *pending = pending_new(exchange, message);
    pending->kind = kind;
    pending->tool = name;
    pending->arguments = arguments;
    pending->responses = message->modern ? probe.responses : (bytes_t){0};
    pending->state = probe.state;
    pending->at = at;
    if (shelf) {
        pending_begin(pending, begin_shelf_get);
        return (mcp_refusal_t){0};
    }
    pending->pillar = tool ? catalogue_find(self->catalogue, name, NULL) : self->pillars[at];
    pending_begin(pending, begin_rich);
    return (mcp_refusal_t){0};
}

/* ---- Lists ---- */

static const char *member_of_list(const char *kind)
{
    return !strcmp(kind, "templates") ? "resourceTemplates" : kind;
}

static err_t list_done(pending_t *pending, call_t *call, const char *next)
{
    exchange_t *exchange = pending->exchange;
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_printf(&out, "%s\"%s\":[", pending->message.modern ? "," : "",
               member_of_list(pending->kind));
    if (pending->list->any)
        buf_puts(&out, pending->list->items.data);
    buf_puts(&out, "]");
    if (next) {
        buf_t cursor;
        buf_open(&cursor, exchange->arena);
        mp_put_array(&cursor, 3);
        mp_put_str(&cursor, pending->kind);
        mp_put_int(&cursor, (int64_t)pending->at);
        mp_put_str(&cursor, next);
        buf_printf(
            &out, ",\"nextCursor\":\"%s\"",
            seal_put(&exchange->gateway->seal, exchange->arena, "cursor", buf_bytes(&cursor)));
    }
    mcp_put_cache(&out, &pending->message);
    mcp_close_result(&out);
    exchange_answer(exchange, 200, out.data);
    return over(pending, call);
}

static err_t begin_list(void *state, call_t *call, void *ctx);

/* The next part of the list. */
static err_t list_on(void *state, call_t *call, pending_t *pending)
{
    pending->at++;
    pending->cursor = NULL;
    return begin_list(state, call, pending);
}

static err_t on_list(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    const gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    bytes_t item;
    mp_value_t head;
    (void)unused;
    if (got->err.code == ERR_NOT_FOUND) /* a company that has nothing yet */
        return list_on(state, call, pending);
    if (err_is(got->err))
        return over_failed(pending, call, got->err);
    if (pending->at >= self->pillar_count) {
        shelf_put_items(arena, pending->at - self->pillar_count, pending->kind, got->body,
                        &pending->list->items, &pending->list->any);
        const char *rest = text_of(arena, got->body, "cursor");
        return rest ? list_done(pending, call, rest) : list_on(state, call, pending);
    }
    bytes_t items = member(got->body, "items");
    mp_reader_t reader = mp_reader(items);
    if (items.size && mp_read(&reader, &head) && head.type == MP_ARRAY)
        for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
            buf_puts(&pending->list->items, pending->list->any ? "," : "");
            json_from_msgpack(item, JSON_COMPACT, &pending->list->items);
            pending->list->any = true;
        }
    const char *next = text_of(arena, got->body, "next");
    if (next)
        return list_done(pending, call, next);
    return list_on(state, call, pending);
}

/* What is not asked for is written here. */
static err_t begin_shelf_list(gateway_t *self, call_t *call, pending_t *pending)
{
    arena_t *arena = pending->exchange->arena;
    peer_call_t request;
    for (; pending->at < self->pillar_count + shelf_count(); pending->at++) {
        size_t index = pending->at - self->pillar_count;
        if (!shelf_lists(self, pending->kind, index))
            continue;
        if (!strcmp(pending->kind, "templates")) {
            buf_puts(&pending->list->items, pending->list->any ? "," : "");
            buf_puts(&pending->list->items, shelf_template(arena, index));
            pending->list->any = true;
        } else if (shelf_list_call(pending, index, &request)) {
            call_peer(call, &request, on_list, pending);
            call_on_gone(call, pending_lost, pending);
            return call_park(call);
        }
    }
    return list_done(pending, call, NULL);
}

static err_t begin_list(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    const char *pillar = next_pillar(self, &pending->at);
    pending->call = call;
    if (!pillar)
        return begin_shelf_list(self, call, pending);
    buf_t pairs;
    uint32_t count = 0;
    buf_open(&pairs, arena);
    put_text_pair(&pairs, &count, "kind", pending->kind);
    put_text_pair(&pairs, &count, "cursor", pending->cursor);
    peer_call_t request = pending_request(
        pending, pillar, arena_printf(arena, "%s_mcp_list", pillar), wrap(arena, &pairs, count));
    call_peer(call, &request, on_list, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t rich_list(exchange_t *exchange, const mcp_message_t *message, const char *kind)
{
    arena_t *arena = exchange->arena;
    bytes_t cursor = param(message, "cursor"), payload, field;
    int64_t at = 0;
    const char *inner = NULL;
    if (cursor.size) {
        const char *text = mp_text(arena, cursor);
        if (!text || !seal_get(&exchange->gateway->seal, arena, "cursor", text, &payload) ||
            !mp_at(payload, 0, &field) || !mp_equals(field, kind) || !mp_at(payload, 1, &field) ||
            !mp_int(field, &at) || !mp_at(payload, 2, &field) || !(inner = mp_text(arena, field)))
            return refuse(message, 200, MCP_PARAMS,
                          "params.cursor is no nextCursor of this list: begin without one");
    }
    pending_t *pending = pending_new(exchange, message);
    pending->kind = kind;
    pending->at = (size_t)at;
    pending->cursor = inner;
    pending->list = ARENA_NEW(arena, pending_list_t);
    buf_open(&pending->list->items, arena);
    pending_begin(pending, begin_list);
    return (mcp_refusal_t){0};
}

/* ---- completion/complete ---- */

static err_t begin_complete(void *state, call_t *call, void *ctx);

static err_t on_complete(void *state, call_t *call, void *unused, const peer_answer_t *got,
                         void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    if (err_is(got->err))
        return over_failed(pending, call, got->err);
    pending->at++;
    if (flag_of(got->body, "missing") && next_pillar(self, &pending->at))
        return begin_complete(self, call, pending);
    if (flag_of(got->body, "missing"))
        return not_there(pending, call);
    bytes_t values = member(got->body, "values"), item, total = member(got->body, "total");
    buf_t out;
    uint32_t count = 0;
    int64_t all = 0;
    buf_open(&out, arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_printf(&out, "%s\"completion\":{\"values\":[", pending->message.modern ? "," : "");
    for (; values.size && count < 100 && mp_at(values, count, &item); count++)
        buf_printf(&out, "%s%s", count ? "," : "", to_json(arena, item));
    if (!total.size || !mp_int(total, &all))
        all = count;
    buf_printf(&out, "],\"total\":%lld,\"hasMore\":%s}", (long long)all,
               all > count ? "true" : "false");
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static err_t begin_complete(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    const char *pillar = next_pillar(self, &pending->at);
    bytes_t argument = param(&pending->message, "argument");
    buf_t pairs;
    uint32_t count = 0;
    pending->call = call;
    buf_open(&pairs, arena);
    put_text_pair(&pairs, &count, "kind", pending->kind);
    put_text_pair(&pairs, &count, "name", pending->tool);
    put_text_pair(&pairs, &count, "argument", text_of(arena, argument, "name"));
    put_text_pair(&pairs, &count, "value", text_of(arena, argument, "value"));
    peer_call_t request =
        pending_request(pending, pillar, arena_printf(arena, "%s_mcp_complete", pillar),
                        wrap(arena, &pairs, count));
    call_peer(call, &request, on_complete, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

static err_t put_completion(pending_t *pending, call_t *call, const char *values, uint32_t count)
{
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_printf(&out, "%s\"completion\":{\"values\":[", pending->message.modern ? "," : "");
    buf_puts(&out, values);
    buf_printf(&out, "],\"total\":%u,\"hasMore\":false}", (unsigned)count);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static err_t on_shelf_complete(void *state, call_t *call, void *unused, const peer_answer_t *got,
                               void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    (void)state;
    (void)unused;
    if (err_is(got->err) && got->err.code != ERR_NOT_FOUND)
        return over_failed(pending, call, got->err);
    buf_t values;
    buf_open(&values, arena);
    const char *begin = text_of(arena, param(&pending->message, "argument"), "value");
    uint32_t count = shelf_put_values(arena, pending->at, got->body, begin, &values);
    return put_completion(pending, call, values.size ? values.data : "", count);
}

/* Ids of resources are completed; inputs of procedures are free. */
static err_t begin_shelf_complete(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    peer_call_t request;
    (void)state;
    pending->call = call;
    if (!strcmp(pending->kind, "prompt"))
        return put_completion(pending, call, "", 0);
    if (!shelf_complete_call(pending, &pending->at, &request))
        return not_there(pending, call);
    call_peer(call, &request, on_shelf_complete, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t rich_complete(exchange_t *exchange, const mcp_message_t *message)
{
    arena_t *arena = exchange->arena;
    bytes_t ref = param(message, "ref"), argument = param(message, "argument");
    const char *type = text_of(arena, ref, "type");
    bool prompt = type && !strcmp(type, "ref/prompt");
    const char *name = text_of(arena, ref, prompt ? "name" : "uri");
    if (!type || (!prompt && strcmp(type, "ref/resource") != 0) || !name ||
        !text_of(arena, argument, "name") || !text_of(arena, argument, "value"))
        return refuse(message, 200, MCP_PARAMS,
                      "params.ref must be {\"type\":\"ref/prompt\",\"name\"} or "
                      "{\"type\":\"ref/resource\",\"uri\"}, params.argument {\"name\",\"value\"}");
    size_t at = 0;
    bool shelf = !next_pillar(exchange->gateway, &at);
    pending_t *pending = pending_new(exchange, message);
    pending->kind = prompt ? "prompt" : "resource";
    pending->tool = name;
    pending->at = at;
    pending_begin(pending, shelf ? begin_shelf_complete : begin_complete);
    return (mcp_refusal_t){0};
}

/* ---- tasks/get, tasks/update, tasks/cancel ---- */

static mcp_refusal_t no_task(const mcp_message_t *message)
{
    return refuse(message, 200, MCP_PARAMS, "params.taskId names no task of yours");
}

static err_t on_task(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (err_is(got->err))
        return over_failed(pending, call, got->err);
    if (flag_of(got->body, "missing"))
        return over_refused(pending, call, no_task(&pending->message));
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    if (!strcmp(pending->message.method, "tasks/get")) {
        buf_puts(&out, ",\"taskId\":");
        json_put_string(&out, pending->state, strlen(pending->state));
        put_members(&out, member(got->body, "detail"), true);
    }
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
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
    put_text_pair(&pairs, &count, "id", pending->tool);
    put_text_pair(&pairs, &count, "operation", pending->message.method + strlen("tasks/"));
    put_pair(&pairs, &count, "responses", pending->responses);
    peer_call_t request = pending_request(pending, pending->pillar,
                                          arena_printf(arena, "%s_mcp_task", pending->pillar),
                                          wrap(arena, &pairs, count));
    call_peer(call, &request, on_task, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

/* ---- Runs as tasks: they live in the durable queue, whatever happens to this process ---- */

static const char shelf_tasks[] = "agent:run";

static err_t on_long(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    if (err_is(got->err))
        return over_failed(pending, call, got->err);
    const char *id = text_of(arena, got->body, "id");
    buf_t out;
    buf_open(&out, arena);
    mcp_open_result_of(&out, &pending->message, AGENCY_VERSION, "task");
    buf_printf(&out, ",\"taskId\":\"%s\"", seal_task(pending, shelf_tasks, id ? id : ""));
    shelf_put_task(arena, got->body, NULL, call_now_ms(call), false, &out);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    shelf_on_success(state, pending->tool);
    return over(pending, call);
}

static err_t begin_long(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    pending->call = call;
    peer_call_t request =
        pending_request(pending, pending->pillar, pending->tool, pending->arguments);
    call_peer(call, &request, on_long, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t rich_long(exchange_t *exchange, const mcp_message_t *message, const char *pillar,
                        const char *tool, bytes_t arguments)
{
    pending_t *pending = pending_new(exchange, message);
    pending->kind = "tool";
    pending->tool = tool;
    pending->pillar = pillar;
    pending->company = text_of(exchange->arena, arguments, "company");
    pending->arguments = shelf_long_args(exchange->arena, arguments);
    pending_begin(pending, begin_long);
    return (mcp_refusal_t){0};
}

static err_t on_shelf_done(void *state, call_t *call, void *unused, const peer_answer_t *got,
                           void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    if (err_is(got->err) && got->err.code != ERR_STATE) /* it went on meanwhile: as good */
        return over_failed(pending, call, got->err);
    buf_t out;
    buf_open(&out, pending->exchange->arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static err_t on_shelf_task(void *state, call_t *call, void *unused, const peer_answer_t *got,
                           void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    peer_call_t request;
    (void)unused;
    if (got->err.code == ERR_NOT_FOUND)
        return over_refused(pending, call, no_task(&pending->message));
    if (err_is(got->err))
        return over_failed(pending, call, got->err);
    if (strcmp(pending->message.method, "tasks/get") != 0) {
        bytes_t run = {arena_copy(arena, got->body.data, got->body.size), got->body.size};
        if (!shelf_task_call(pending, pending->tool, run, &request))
            return on_shelf_done(state, call, NULL, &(peer_answer_t){.err = err_ok()}, pending);
        call_peer(call, &request, on_shelf_done, pending);
        return call_park(call);
    }
    buf_t out;
    buf_open(&out, arena);
    mcp_open_result(&out, &pending->message, AGENCY_VERSION);
    buf_puts(&out, ",\"taskId\":");
    json_put_string(&out, pending->state, strlen(pending->state));
    shelf_put_task(arena, got->body, got->text, call_now_ms(call), true, &out);
    mcp_close_result(&out);
    exchange_answer(pending->exchange, 200, out.data);
    return over(pending, call);
}

static err_t begin_shelf_task(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    peer_call_t request;
    (void)state;
    pending->call = call;
    shelf_task_call(pending, pending->tool, (bytes_t){0}, &request);
    call_peer(call, &request, on_shelf_task, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t rich_task(exchange_t *exchange, const mcp_message_t *message)
{
    gateway_t *self = exchange->gateway;
    arena_t *arena = exchange->arena;
    if (!rich_declares(message, "extensions", MCP_TASKS)) {
        mcp_refusal_t refusal = refuse(message, 400, MCP_CAPABILITY,
                                       "declare the extension " MCP_TASKS " in _meta to use tasks");
        refusal.data = "{\"requiredCapabilities\":{\"extensions\":{\"" MCP_TASKS "\":{}}}}";
        return refusal;
    }
    const char *id = text_param(arena, message, "taskId");
    const char *pillar = NULL, *inner = NULL, *company = NULL;
    bytes_t payload, field;
    if (!id || !seal_get(&self->seal, arena, "task", id, &payload) || !mp_at(payload, 0, &field) ||
        !(pillar = mp_text(arena, field)) || !mp_at(payload, 1, &field) ||
        !(inner = mp_text(arena, field)) || !mp_at(payload, 2, &field) ||
        !mp_equals(field, exchange->principal.name) || !mp_at(payload, 3, &field) ||
        !(company = mp_text(arena, field)))
        return no_task(message);
    bool shelf = !strcmp(pillar, shelf_tasks);
    if (!shelf && !catalogue_is_rich(self->catalogue, pillar))
        return no_task(message);
    pending_t *pending = pending_new(exchange, message);
    pending->kind = "task";
    pending->pillar = pillar;
    pending->tool = inner;
    pending->state = id;
    pending->company = *company ? company : NULL;
    pending->responses = param(message, "inputResponses");
    pending_begin(pending, shelf ? begin_shelf_task : begin_task);
    return (mcp_refusal_t){0};
}
