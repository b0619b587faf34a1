/* list: resources/list, resources/templates/list, prompts/list. First the pillars with words of
 * their own, then what the others keep, page by page. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

typedef struct pending_list {
    buf_t items;
    bool any;
} pending_list_t;

static const char *member_of_list(const char *kind)
{
    return !strcmp(kind, "templates") ? "resourceTemplates" : kind;
}

const char *list_cursor(gateway_t *self, arena_t *arena, const char *kind, size_t at,
                        const char *inner)
{
    buf_t cursor;
    buf_open(&cursor, arena);
    mp_put_array(&cursor, 3);
    mp_put_str(&cursor, kind);
    mp_put_int(&cursor, (int64_t)at);
    mp_put_str(&cursor, inner);
    return seal_put(&self->seal, arena, "cursor", buf_bytes(&cursor));
}

mcp_refusal_t list_read_cursor(exchange_t *exchange, const mcp_message_t *message, const char *kind,
                               size_t *at, const char **inner)
{
    arena_t *arena = exchange->arena;
    bytes_t cursor = mcp_param(message, "cursor"), payload, field;
    int64_t place = 0;
    *inner = NULL;
    *at = 0;
    if (!cursor.size)
        return (mcp_refusal_t){0};
    const char *text = mp_text(arena, cursor);
    if (!text || !seal_get(&exchange->gateway->seal, arena, "cursor", text, &payload) ||
        !mp_at(payload, 0, &field) || !mp_equals(field, kind) || !mp_at(payload, 1, &field) ||
        !mp_int(field, &place) || !mp_at(payload, 2, &field) || !(*inner = mp_text(arena, field)))
        return mcp_refuse(message, 200, MCP_PARAMS,
                          "params.cursor is no nextCursor of this list: begin without one");
    *at = (size_t)place;
    return (mcp_refusal_t){0};
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
        buf_puts(&out, ",");
        mcp_put_text(
            &out, "nextCursor",
            list_cursor(exchange->gateway, exchange->arena, pending->kind, pending->at, next));
    }
    mcp_put_cache(&out, &pending->message);
    mcp_close_result(&out);
    exchange_answer(exchange, 200, out.data);
    return pending_done(pending, call);
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
    /* A company that has nothing yet; or its pillar is away: the others are there. */
    if (got->err.code == ERR_NOT_FOUND || got->err.code == ERR_UNAVAILABLE)
        return list_on(state, call, pending);
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    if (pending->at >= self->pillar_count) {
        kept_put_items(pending, pending->at - self->pillar_count, got->body, &pending->list->items,
                       &pending->list->any);
        const char *rest = mp_member_text(arena, got->body, "cursor");
        return rest ? list_done(pending, call, rest) : list_on(state, call, pending);
    }
    bytes_t items = mp_member(got->body, "items");
    mp_reader_t reader = mp_reader(items);
    if (items.size && mp_read(&reader, &head) && head.type == MP_ARRAY)
        for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
            buf_puts(&pending->list->items, pending->list->any ? "," : "");
            json_from_msgpack(item, JSON_COMPACT, &pending->list->items);
            pending->list->any = true;
        }
    const char *next = mp_member_text(arena, got->body, "next");
    if (next)
        return list_done(pending, call, next);
    return list_on(state, call, pending);
}

/* What is not asked for is written here. */
static err_t begin_kept_list(gateway_t *self, call_t *call, pending_t *pending)
{
    arena_t *arena = pending->exchange->arena;
    peer_call_t request;
    for (; pending->at < self->pillar_count + kept_places(pending->exchange); pending->at++) {
        size_t index = pending->at - self->pillar_count;
        if (!kept_lists(pending->exchange, pending->kind, index))
            continue;
        if (!strcmp(pending->kind, "templates")) {
            buf_puts(&pending->list->items, pending->list->any ? "," : "");
            buf_puts(&pending->list->items, kept_template(arena, index));
            pending->list->any = true;
            continue;
        }
        if (!strcmp(pending->kind, "resources"))
            kept_put_fixed(pending, index, &pending->list->items, &pending->list->any);
        if (kept_list_call(pending, index, &request)) {
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
    const char *pillar = get_next_pillar(self, &pending->at);
    pending->call = call;
    if (!pillar)
        return begin_kept_list(self, call, pending);
    buf_t pairs;
    uint32_t count = 0;
    buf_open(&pairs, arena);
    args_put_text(&pairs, &count, "kind", pending->kind);
    args_put_text(&pairs, &count, "cursor", pending->cursor);
    peer_call_t request =
        pending_request(pending, pillar, arena_printf(arena, "%s_mcp_list", pillar),
                        args_map(arena, &pairs, count));
    call_peer(call, &request, on_list, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

mcp_refusal_t list_begin(exchange_t *exchange, const mcp_message_t *message, const char *kind)
{
    size_t at;
    const char *inner;
    mcp_refusal_t refusal = list_read_cursor(exchange, message, kind, &at, &inner);
    if (refusal.status)
        return refusal;
    pending_t *pending = pending_new(exchange, message);
    pending->kind = kind;
    pending->at = at;
    pending->cursor = inner;
    pending->list = ARENA_NEW(exchange->arena, pending_list_t);
    buf_open(&pending->list->items, exchange->arena);
    pending_begin(pending, begin_list);
    return (mcp_refusal_t){0};
}
