/* step_abroad: a step that calls a tool of a foreign MCP server, SERVER/TOOL. Before the effect is
 * dispatched the actor `outside` is asked whether the tool is there and what its server says of a
 * repetition; the life that it names goes with the call, so that a call which the bus repeats after
 * a crash is not made twice. When nobody knows whether it happened the agent is told so. */
#include <string.h>

#include "actors/worker/abroad.h"
#include "proto/mp.h"

enum { LOOK_MS = 5000, SLACK_MS = 3000, AWAY_MS = 60000, DAY_MS = 24 * 3600 * 1000 };

typedef struct abroad {
    err_t (*fn)(call_t *call, step_t *step);
    bool ready, known;
    const char *life, *why;
} abroad_t;

bool step_is_abroad(const step_t *step)
{
    return step->perform.kind && !strcmp(step->perform.kind, "tool") && step->perform.tool &&
           strchr(step->perform.tool, '/');
}

static bool flag(bytes_t body, const char *name)
{
    bytes_t field;
    bool value = false;
    return mp_get(body, name, &field) && mp_bool(field, &value) && value;
}

static const char *text(call_t *call, bytes_t body, const char *name)
{
    bytes_t field;
    return body.size && mp_get(body, name, &field) ? mp_text(call_arena(call), field) : NULL;
}

/* ---- Before step_start ---- */

static err_t on_look(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    step_t *step = ctx;
    abroad_t *abroad = step->abroad;
    (void)self;
    (void)reply;
    if (err_is(got->err)) {
        abroad->known = true;
        abroad->why = arena_printf(call_arena(call), "the mcp servers cannot be reached: %s",
                                   err_what(got->err));
    } else {
        abroad->ready = flag(got->body, "ready");
        abroad->known = flag(got->body, "known");
        abroad->life = text(call, got->body, "life");
        abroad->why = text(call, got->body, "why");
        step->repeatable = flag(got->body, "repeatable");
    }
    return abroad->fn(call, step);
}

err_t step_abroad_look(call_t *call, step_t *step, err_t (*fn)(call_t *call, step_t *step))
{
    buf_t args;
    step->abroad = ARENA_NEW(call_arena(call), abroad_t);
    step->abroad->fn = fn;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "tool");
    mp_put_str(&args, step->perform.tool);
    peer_call_t request = {.peer = "outside",
                           .method = "outside_look",
                           .args = buf_bytes(&args),
                           .company = step->slot->company,
                           .timeout_ms = LOOK_MS};
    call_peer(call, &request, on_look, step);
    return call_park(call);
}

/* ---- After it ---- */

peer_call_t abroad_request(call_t *call, const slot_t *slot, const char *tool, const char *life,
                           bytes_t arguments, const char *effect, int64_t timeout_ms)
{
    buf_t args;
    bool said = timeout_ms > 0; /* else mcp.json says, or outside.call_timeout_ms */
    buf_open(&args, call_arena(call));
    mp_put_map(&args, said ? 5 : 4);
    mp_put_str(&args, "tool");
    mp_put_str(&args, tool);
    mp_put_str(&args, "life");
    mp_put_str(&args, life ? life : "");
    mp_put_str(&args, "arguments");
    mp_put_raw(&args, arguments);
    mp_put_str(&args, "effect");
    mp_put_str(&args, effect ? effect : "");
    if (said) {
        mp_put_str(&args, "timeout_ms");
        mp_put_int(&args, timeout_ms);
    }
    return (peer_call_t){.peer = "outside",
                         .method = "outside_call",
                         .args = buf_bytes(&args),
                         .company = slot->company,
                         .timeout_ms = said ? timeout_ms + SLACK_MS : DAY_MS,
                         .away_ms = AWAY_MS,
                         .want_progress = true};
}

/* What the bus itself says: refused at the door is not done, whatever else may have happened. */
static abroad_outcome_t read_error(err_t err)
{
    switch (err.code) {
    case ERR_BUSY:
    case ERR_DRAINING:
        return (abroad_outcome_t){.end = ABROAD_PASSES, .why = err_what(err)};
    case ERR_ARGUMENT:
    case ERR_METHOD:
    case ERR_COMPANY:
    case ERR_FORBIDDEN:
    case ERR_TOO_LARGE:
        return (abroad_outcome_t){.end = ABROAD_FAILED, .why = err_what(err)};
    default:
        return (abroad_outcome_t){.end = ABROAD_UNKNOWN, .why = err_what(err)};
    }
}

abroad_outcome_t abroad_read(call_t *call, const peer_answer_t *got)
{
    bytes_t end = {0}, result = {0};
    if (err_is(got->err))
        return read_error(got->err);
    const char *why = text(call, got->body, "why");
    abroad_outcome_t outcome = {.end = ABROAD_UNKNOWN, .why = why ? why : "it gave no reason"};
    mp_get(got->body, "end", &end);
    if (mp_get(got->body, "result", &result))
        outcome.result = result;
    if (mp_equals(end, "done"))
        outcome.end = ABROAD_DONE;
    else if (mp_equals(end, "failed") || mp_equals(end, "refused"))
        outcome.end = ABROAD_FAILED;
    else if (mp_equals(end, "unsent"))
        outcome.end = ABROAD_PASSES;
    return outcome;
}

static err_t on_answer(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    step_t *step = ctx;
    (void)self;
    (void)reply;
    if (got->progress) {
        slot_progress(call, step, got->body);
        return call_park(call);
    }
    abroad_outcome_t outcome = abroad_read(call, got);
    switch (outcome.end) {
    case ABROAD_DONE:
        return slot_step_ok(call, step, outcome.result);
    case ABROAD_UNKNOWN:
        return slot_step_unknown(call, step, outcome.why);
    default:
        return slot_step_error(call, step, outcome.why, outcome.end == ABROAD_PASSES);
    }
}

err_t step_abroad_perform(call_t *call, step_t *step)
{
    const abroad_t *abroad = step->abroad;
    const perform_t *perform = &step->perform;
    if (!abroad || !abroad->ready)
        return slot_step_error(call, step,
                               abroad && abroad->why ? abroad->why : "the tool is not there",
                               abroad && abroad->known);
    peer_call_t request = abroad_request(call, step->slot, perform->tool, abroad->life,
                                         perform->args, perform->effect_id, perform->timeout_ms);
    call_peer(call, &request, on_answer, step);
    return call_park(call);
}

/* ---- For prose ---- */

enum { FUNCTION_LONGEST = 64 };

const abroad_tool_t *abroad_find(const abroad_list_t *list, const char *function)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].function, function))
            return &list->items[i];
    return NULL;
}

/* server/tool becomes server__tool; one that is taken already gets a number. */
static const char *function_name(arena_t *arena, const abroad_list_t *list, const char *name)
{
    char clean[FUNCTION_LONGEST + 1];
    size_t size = 0;
    for (const char *at = name; *at && size + 1 < sizeof(clean); at++) {
        bool fits = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                    (*at >= '0' && *at <= '9') || *at == '-';
        clean[size++] = fits ? *at : '_';
        if (at == strchr(name, '/') && size + 1 < sizeof(clean))
            clean[size++] = '_';
    }
    clean[size] = '\0';
    const char *function = arena_strdup(arena, clean);
    for (int i = 2; abroad_find(list, function); i++)
        function = arena_printf(arena, "%.58s_%d", clean, i);
    return function;
}

typedef struct listing {
    abroad_list_t *out;
    err_t (*fn)(call_t *call, void *ctx);
    void *ctx;
} listing_t;

static void learn(call_t *call, abroad_list_t *list, bytes_t tools)
{
    bytes_t row, field = {0};
    mp_value_t head;
    mp_reader_t reader = mp_reader(tools);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    list->items = ARENA_ARRAY(call_arena(call), abroad_tool_t, head.count + 1);
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &row); i++) {
        abroad_tool_t tool = {.name = text(call, row, "name"), .doc = text(call, row, "doc")};
        if (!tool.name || !tool.doc || !mp_get(row, "input", &tool.input))
            continue;
        tool.safe = mp_get(row, "replay", &field) && mp_equals(field, "safe");
        tool.function = function_name(call_arena(call), list, tool.name);
        list->items[list->count++] = tool;
    }
}

static err_t on_list(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const listing_t *listing = ctx;
    bytes_t tools;
    (void)self;
    (void)reply;
    if (!err_is(got->err) && mp_get(got->body, "tools", &tools)) {
        listing->out->life = text(call, got->body, "life");
        learn(call, listing->out, tools);
    }
    return listing->fn(call, listing->ctx);
}

err_t abroad_list_then(call_t *call, const step_t *step, abroad_list_t *out,
                       err_t (*fn)(call_t *call, void *ctx), void *ctx)
{
    strs_t allowed = step->perform.tools;
    if (!allowed.count)
        return fn(call, ctx);
    listing_t *listing = ARENA_NEW(call_arena(call), listing_t);
    *listing = (listing_t){out, fn, ctx};
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "allowed");
    mp_put_array(&args, (uint32_t)allowed.count);
    for (size_t i = 0; i < allowed.count; i++)
        mp_put_str(&args, allowed.items[i]);
    peer_call_t request = {.peer = "outside",
                           .method = "outside_tools",
                           .args = buf_bytes(&args),
                           .company = step->slot->company,
                           .timeout_ms = LOOK_MS};
    call_peer(call, &request, on_list, listing);
    return call_park(call);
}
