/* methods: which JSON-RPC method is answered by whom, and the answers that need no pillar. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "proto/mp.h"

/* ---- Beginning ---- */

static void put_capabilities(buf_t *out, const mcp_message_t *message, bool has_tasks)
{
    buf_puts(out, "\"capabilities\":{\"tools\":{\"listChanged\":true},"
                  "\"resources\":{\"listChanged\":true,\"subscribe\":true},"
                  "\"prompts\":{\"listChanged\":true},\"completions\":{},\"logging\":{}");
    if (message->modern)
        buf_puts(out, ",\"extensions\":{\"" MCP_TASKS "\":{}}");
    else if (has_tasks)
        buf_puts(out,
                 ",\"tasks\":{\"list\":{},\"cancel\":{},\"requests\":{\"tools\":{\"call\":{}}}}");
    buf_puts(out, "},\"instructions\":\"A team's desk (task_*), procedures (sop_*, run_*) and "
                  "memory (brain_*). Every tool takes an optional company.\"");
}

static const char *initialize(exchange_t *exchange, const mcp_message_t *message)
{
    bytes_t field, capabilities = {0};
    const char *wanted = NULL;
    if (message->params.size && mp_get(message->params, "protocolVersion", &field))
        wanted = mcp_legacy_version(mp_text(exchange->arena, field));
    if (!wanted)
        wanted = "2025-11-25";
    if (message->params.size)
        mp_get(message->params, "capabilities", &capabilities);
    if (exchange->request && !exchange->old_door && !exchange->batch)
        http_set_header(exchange->request, "Mcp-Session-Id",
                        session_new(exchange->gateway, exchange->arena, &exchange->principal,
                                    wanted, capabilities));
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    buf_printf(&out,
               "\"protocolVersion\":\"%s\",\"serverInfo\":{\"name\":\"agency\",\"title\":"
               "\"Agency\",\"version\":\"%s\"},",
               wanted, AGENCY_VERSION);
    put_capabilities(&out, message,
                     !strcmp(wanted, "2025-11-25") && run_task_fits(exchange->gateway, RUN_TOOL));
    mcp_close_result(&out);
    return out.data;
}

static const char *discover(exchange_t *exchange, const mcp_message_t *message)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    buf_puts(&out, ",\"supportedVersions\":[\"" MCP_MODERN "\"],");
    put_capabilities(&out, message, false);
    mcp_put_cache(&out, message);
    mcp_close_result(&out);
    return out.data;
}

/* ---- Tools ---- */

static bool offers(const void *exchange, const char *pillar)
{
    return exchange_offers(exchange, pillar);
}

static const char *list_tools(exchange_t *exchange, const mcp_message_t *message)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    if (message->modern)
        buf_puts(&out, ",");
    bool all = !exchange->only && !exchange->principal.has_toolsets;
    buf_puts(&out,
             all ? catalogue_json(exchange->gateway->catalogue)
                 : catalogue_json_of(exchange->gateway->catalogue, offers, exchange, out.arena));
    mcp_put_cache(&out, message);
    mcp_close_result(&out);
    return out.data;
}

static const char *empty_result(exchange_t *exchange, const mcp_message_t *message)
{
    buf_t out;
    buf_open(&out, exchange->arena);
    mcp_open_result(&out, message, AGENCY_VERSION);
    mcp_close_result(&out);
    return out.data;
}

/* ---- Sessions ---- */

static const char *text_param(exchange_t *exchange, const mcp_message_t *message, const char *name)
{
    bytes_t field;
    return message->params.size && mp_get(message->params, name, &field)
               ? mp_text(exchange->arena, field)
               : NULL;
}

static mcp_refusal_t bad_params(const mcp_message_t *message, const char *text)
{
    return (mcp_refusal_t){.status = 200, .code = MCP_PARAMS, .id = message->id, .text = text};
}

/* Without a session there is nowhere to keep a level or a subscription: every message then names
 * its own level, and nothing is sent unasked. */
static mcp_refusal_t set_level(exchange_t *exchange, const mcp_message_t *message)
{
    const char *level = text_param(exchange, message, "level");
    if (!mcp_level(level))
        return bad_params(message, "params.level must be debug, info, notice, warning, error, "
                                   "critical, alert or emergency");
    if (exchange->session.id)
        session_set_level(exchange->gateway, exchange->session.id, level);
    exchange_answer(exchange, 200, empty_result(exchange, message));
    return (mcp_refusal_t){0};
}

static mcp_refusal_t subscribe(exchange_t *exchange, const mcp_message_t *message, bool on)
{
    const char *uri = text_param(exchange, message, "uri");
    if (!uri || strlen(uri) > 2048)
        return bad_params(message, "params.uri must be the URI of a resource, at most 2048 bytes");
    if (!exchange->session.id)
        return bad_params(message, "a subscription needs a session: send the Mcp-Session-Id that "
                                   "initialize gave you");
    if (on && !kept_is_one(exchange, uri))
        return get_no_resource(exchange, message, uri);
    const char *why = session_subscribe(exchange, uri, on);
    if (why)
        return bad_params(message, why);
    exchange_answer(exchange, 200, empty_result(exchange, message));
    return (mcp_refusal_t){0};
}

/* ---- By name ---- */

#define MODERN_ONLY                                                                                \
    ": it is of version " MCP_MODERN ", which _meta " MCP_META                                     \
    "protocolVersion and the header MCP-Protocol-Version must name"
#define TASKS_ONLY ": tasks are of version 2025-11-25, and of " MCP_MODERN " as an extension"

/* Why a method that another version has is not offered in this one; "": none has it. */
static const char *of_other_version(const mcp_message_t *message)
{
    static const struct {
        const char *method, *why;
        bool modern; /* in which era it is missed */
    } rows[] = {
        {"server/discover", MODERN_ONLY, false},
        {"subscriptions/listen", MODERN_ONLY, false},
        {"tasks/update", MODERN_ONLY, false},
        {"tasks/get", TASKS_ONLY, false},
        {"tasks/list", TASKS_ONLY, false},
        {"tasks/result", TASKS_ONLY, false},
        {"tasks/cancel", TASKS_ONLY, false},
        {"initialize", ": version " MCP_MODERN " begins without it, see server/discover", true},
        {"ping", ": version " MCP_MODERN " has none", true},
        {"logging/setLevel",
         ": in version " MCP_MODERN " each request names its level, _meta " MCP_META "logLevel",
         true},
        {"resources/subscribe", ": in version " MCP_MODERN " it is subscriptions/listen", true},
        {"resources/unsubscribe", ": in version " MCP_MODERN " it is subscriptions/listen", true},
        {"tasks/list", ": version " MCP_MODERN " has none", true},
        {"tasks/result", ": in version " MCP_MODERN " tasks/get has the result", true}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].modern == message->modern && !strcmp(rows[i].method, message->method))
            return rows[i].why;
    return "";
}

static mcp_refusal_t unknown_method(exchange_t *exchange, const mcp_message_t *message)
{
    return mcp_refuse(message, message->modern ? 404 : 200, MCP_NO_METHOD,
                      arena_printf(exchange->arena, "the method '%.64s' is not offered here%s",
                                   message->method, of_other_version(message)));
}

typedef const char *plain_fn_t(exchange_t *exchange, const mcp_message_t *message);

static plain_fn_t *plain_method(const mcp_message_t *message)
{
    static const struct {
        const char *method;
        plain_fn_t *fn;
        bool modern, legacy;
    } rows[] = {{"tools/list", list_tools, true, true},
                {"server/discover", discover, true, false},
                {"initialize", initialize, false, true},
                {"ping", empty_result, false, true}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!strcmp(rows[i].method, message->method) &&
            (message->modern ? rows[i].modern : rows[i].legacy))
            return rows[i].fn;
    return NULL;
}

static mcp_refusal_t handle_asked(exchange_t *exchange, const mcp_message_t *message)
{
    const char *method = message->method;
    if (!strcmp(method, "resources/list"))
        return list_begin(exchange, message, "resources");
    if (!strcmp(method, "resources/templates/list"))
        return list_begin(exchange, message, "templates");
    if (!strcmp(method, "prompts/list"))
        return list_begin(exchange, message, "prompts");
    if (!strcmp(method, "resources/read"))
        return get_begin(exchange, message, "resource");
    if (!strcmp(method, "prompts/get"))
        return get_begin(exchange, message, "prompt");
    if (!strcmp(method, "completion/complete"))
        return complete_begin(exchange, message);
    return unknown_method(exchange, message);
}

/* A request; the answer is given now or by a call over the bus. */
mcp_refusal_t methods_handle(exchange_t *exchange, const mcp_message_t *message)
{
    const char *method = message->method;
    plain_fn_t *plain = plain_method(message);
    if (plain == list_tools && mcp_param(message, "cursor").size)
        return bad_params(message, "params.cursor is no nextCursor of this list: it has one page, "
                                   "begin without one");
    if (plain) {
        exchange_answer(exchange, 200, plain(exchange, message));
        return (mcp_refusal_t){0};
    }
    if (!strcmp(method, "tools/call"))
        return tools_call(exchange, message);
    if (message->modern && !strcmp(method, "subscriptions/listen"))
        return stream_listen(exchange, message);
    if (message->modern && (!strcmp(method, "tasks/get") || !strcmp(method, "tasks/update") ||
                            !strcmp(method, "tasks/cancel")))
        return tasks_request(exchange, message);
    if (mcp_has_tasks(message) && !strcmp(method, "tasks/list"))
        return tasks_list(exchange, message);
    if (mcp_has_tasks(message) &&
        (!strcmp(method, "tasks/get") || !strcmp(method, "tasks/result") ||
         !strcmp(method, "tasks/cancel")))
        return tasks_request(exchange, message);
    if (!message->modern && !strcmp(method, "logging/setLevel"))
        return set_level(exchange, message);
    if (!message->modern && !strcmp(method, "resources/subscribe"))
        return subscribe(exchange, message, true);
    if (!message->modern && !strcmp(method, "resources/unsubscribe"))
        return subscribe(exchange, message, false);
    return handle_asked(exchange, message);
}
