#include "actors/gateway/mcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

#define META MCP_META

static const char *const legacy_versions[] = {"2025-11-25", "2025-06-18", "2025-03-26",
                                              "2024-11-05", NULL};

const char mcp_versions_text[] =
    "this protocol version is not supported: here " MCP_MODERN " is spoken, and after initialize "
    "2025-11-25, 2025-06-18, 2025-03-26 and 2024-11-05";

const char *mcp_legacy_version(const char *text)
{
    for (int i = 0; text && legacy_versions[i]; i++)
        if (!strcmp(legacy_versions[i], text))
            return legacy_versions[i];
    return NULL;
}

mcp_refusal_t mcp_refuse(const mcp_message_t *message, int status, int code, const char *text)
{
    return (mcp_refusal_t){
        .status = status, .code = code, .text = text, .id = message ? message->id : (bytes_t){0}};
}

static const mcp_refusal_t fine = {0};

/* ---- Members of a message ---- */

bytes_t mcp_param(const mcp_message_t *message, const char *name)
{
    bytes_t field = mp_member(message->params, name);
    mp_type_t type;
    return field.size && mp_type_of(field, &type) && type != MP_NIL ? field : (bytes_t){0};
}

const char *mcp_text_param(arena_t *arena, const mcp_message_t *message, const char *name)
{
    return mp_member_text(arena, message->params, name);
}

bool mcp_declares(const mcp_message_t *message, const char *one, const char *two)
{
    bytes_t field;
    return mcp_meta(message, "clientCapabilities", &field) && mp_get(field, one, &field) &&
           (!two || mp_get(field, two, &field));
}

/* {} means forms, and {"url":{}} addresses only. */
bool mcp_shows_forms(bytes_t capabilities)
{
    bytes_t field, how;
    mp_type_t type;
    return capabilities.size && mp_get(capabilities, "elicitation", &field) &&
           mp_type_of(field, &type) && type == MP_MAP &&
           (!mp_get(field, "url", &how) || mp_get(field, "form", &how));
}

bool mcp_has_tasks(const mcp_message_t *message)
{
    return !message->modern && !strcmp(message->version, "2025-11-25");
}

const char *mcp_traceparent(arena_t *arena, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    static const char zeros[] = "00000000000000000000000000000000";
    if (!text || strlen(text) != 55 || strncmp(text, "00-", 3) != 0 || text[35] != '-' ||
        text[52] != '-' || strspn(text + 3, digits) != 32 || strspn(text + 36, digits) != 16 ||
        strspn(text + 53, digits) != 2 || !strncmp(text + 3, zeros, 32) ||
        !strncmp(text + 36, zeros, 16))
        return NULL;
    return arena_strdup(arena, text);
}

/* ---- Headers ---- */

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 §4, strict: padding is needed and the bits behind it are zero. */
static const char *decode_base64(arena_t *arena, const char *text, size_t size)
{
    char *out = arena_alloc(arena, size / 4 * 3 + 1);
    size_t at = 0;
    if (size % 4)
        return NULL;
    for (size_t i = 0; i < size; i += 4) {
        bool last = i + 4 == size;
        int pad = last ? (text[i + 3] == '=') + (text[i + 2] == '=' && text[i + 3] == '=') : 0;
        uint32_t bits = 0;
        for (int j = 0; j < 4; j++) {
            int digit = j >= 4 - pad ? 0 : base64_digit(text[i + j]);
            if (digit < 0)
                return NULL;
            bits = bits << 6 | (uint32_t)digit;
        }
        if ((pad == 1 && bits & 0xff) || (pad == 2 && bits & 0xffff))
            return NULL;
        for (int j = 0; j < 3 - pad; j++)
            out[at++] = (char)(bits >> (16 - 8 * j) & 0xff);
    }
    return mp_utf8(out, at) && !memchr(out, 0, at) ? out : NULL;
}

const char *mcp_header_value(arena_t *arena, const char *value)
{
    static const char begin[] = "=?base64?", end[] = "?=";
    size_t size = strlen(value), first = sizeof(begin) - 1, last = sizeof(end) - 1;
    if (size < first + last || strncmp(value, begin, first) != 0 ||
        strcmp(value + size - last, end) != 0)
        return value;
    return decode_base64(arena, value + first, size - first - last);
}

/* White space around a value is none of it (RFC 9110 §5.5). */
static const char *header_of(arena_t *arena, const mcp_headers_t *headers, const char *name)
{
    const char *value = headers->get(headers->ctx, name);
    if (!value)
        return NULL;
    value += strspn(value, " \t");
    size_t size = strlen(value);
    if (!size || !strchr(" \t", value[size - 1]))
        return value;
    while (size && strchr(" \t", value[size - 1]))
        size--;
    return arena_strndup(arena, value, size);
}

static mcp_refusal_t mirror(arena_t *arena, const mcp_message_t *message,
                            const mcp_headers_t *headers, const char *name, const char *wanted)
{
    const char *value = header_of(arena, headers, name);
    if (!value)
        return mcp_refuse(message, 400, MCP_HEADER_MISMATCH,
                          arena_printf(arena, "the header %s is missing", name));
    const char *decoded = mcp_header_value(arena, value);
    if (!decoded)
        return mcp_refuse(message, 400, MCP_HEADER_MISMATCH,
                          arena_printf(arena, "the header %s is not valid Base64", name));
    if (strcmp(decoded, wanted) != 0)
        return mcp_refuse(message, 400, MCP_HEADER_MISMATCH,
                          arena_printf(arena, "the header %s is not what the body says", name));
    return fine;
}

/* ---- Reading a message ---- */

/* Some languages write 1 as 1.0. */
static bool is_whole(bytes_t value)
{
    double number;
    return mp_real(value, &number) && number > -9.1e15 && number < 9.1e15 &&
           number == (double)(int64_t)number;
}

static mcp_refusal_t read_shape(arena_t *arena, bytes_t value, mcp_message_t *out)
{
    enum { ID, JSONRPC, METHOD, PARAMS, RESULT, ERROR, PARTS };
    static const char *const names[PARTS] = {"id",     "jsonrpc", "method",
                                             "params", "result",  "error"};
    mp_type_t type;
    bytes_t parts[PARTS];
    if (!mp_pick(value, names, PARTS, parts))
        return mcp_refuse(NULL, 400, MCP_INVALID, "a JSON-RPC message is an object");
    if (parts[ID].size) {
        if (!mp_type_of(parts[ID], &type) || (type != MP_STR && type != MP_INT && type != MP_UINT &&
                                              !(type == MP_REAL && is_whole(parts[ID]))))
            return mcp_refuse(NULL, 400, MCP_INVALID, "id must be a string or an integer");
        out->id = parts[ID];
    }
    if (!parts[JSONRPC].size || !mp_equals(parts[JSONRPC], "2.0"))
        return mcp_refuse(out, 400, MCP_INVALID, "jsonrpc must be \"2.0\"");
    if (!parts[METHOD].size) {
        if (!parts[RESULT].size && !parts[ERROR].size)
            return mcp_refuse(out, 400, MCP_INVALID, "method is missing");
        out->kind = MCP_RESPONSE;
        return fine;
    }
    out->method = mp_text(arena, parts[METHOD]);
    if (!out->method)
        return mcp_refuse(out, 400, MCP_INVALID, "method must be a string");
    out->kind = out->id.size ? MCP_REQUEST : MCP_NOTIFICATION;
    if (!parts[PARAMS].size)
        return fine;
    if (!mp_type_of(parts[PARAMS], &type) || type != MP_MAP)
        return mcp_refuse(out, 400, MCP_INVALID, "params must be an object");
    out->params = parts[PARAMS];
    return fine;
}

int mcp_level(const char *name)
{
    static const char *const levels[] = {"debug",    "info",  "notice",    "warning", "error",
                                         "critical", "alert", "emergency", NULL};
    for (int i = 0; name && levels[i]; i++)
        if (!strcmp(levels[i], name))
            return i + 1;
    return 0;
}

static bytes_t meta_of(const mcp_message_t *message)
{
    bytes_t meta = {0};
    if (message->params.size)
        mp_get(message->params, "_meta", &meta);
    return meta;
}

bool mcp_meta(const mcp_message_t *message, const char *name, bytes_t *out)
{
    char key[128];
    bytes_t meta = meta_of(message);
    snprintf(key, sizeof(key), META "%s", name);
    return meta.size && mp_get(meta, key, out);
}

static mcp_refusal_t unsupported(arena_t *arena, const mcp_message_t *message,
                                 const char *requested)
{
    mcp_refusal_t refusal = mcp_refuse(message, 400, MCP_VERSION, mcp_versions_text);
    buf_t data;
    buf_open(&data, arena);
    buf_puts(&data, "{\"supported\":[\"" MCP_MODERN "\"],\"requested\":");
    bool text = mp_utf8(requested, strlen(requested)); /* a header may be any bytes */
    json_put_string(&data, requested, text ? strlen(requested) : 0);
    buf_puts(&data, "}");
    refusal.data = data.data;
    return refusal;
}

static mcp_refusal_t check_meta(arena_t *arena, mcp_message_t *out, bytes_t meta)
{
    bytes_t field;
    mp_type_t type;
    if (!mp_get(meta, META "clientCapabilities", &field) || !mp_type_of(field, &type) ||
        type != MP_MAP)
        return mcp_refuse(out, 400, MCP_PARAMS,
                          "_meta must carry " META "clientCapabilities, an object");
    if (mp_get(meta, META "logLevel", &field)) {
        if (!mcp_level(mp_text(arena, field)))
            return mcp_refuse(out, 400, MCP_PARAMS, "_meta has an unknown " META "logLevel");
    }
    return fine;
}

/* Which params member the header Mcp-Name mirrors; NULL: none. */
static const char *named_by(const char *method)
{
    if (!strcmp(method, "tools/call") || !strcmp(method, "prompts/get"))
        return "name";
    if (!strcmp(method, "resources/read"))
        return "uri";
    if (!strcmp(method, "tasks/get") || !strcmp(method, "tasks/update") ||
        !strcmp(method, "tasks/cancel"))
        return "taskId";
    return NULL;
}

static mcp_refusal_t check_mirrors(arena_t *arena, const mcp_message_t *message,
                                   const mcp_headers_t *headers)
{
    mcp_refusal_t refusal =
        mirror(arena, message, headers, "MCP-Protocol-Version", message->version);
    if (!refusal.status && message->kind == MCP_REQUEST)
        refusal = mirror(arena, message, headers, "Mcp-Method", message->method);
    const char *member = named_by(message->method);
    bytes_t field;
    if (refusal.status || !member || !message->params.size ||
        !mp_get(message->params, member, &field))
        return refusal;
    const char *name = mp_text(arena, field);
    return name ? mirror(arena, message, headers, "Mcp-Name", name) : refusal;
}

/* What a client brings back when it was asked for input. */
static mcp_refusal_t check_answers(const mcp_message_t *message)
{
    bytes_t field;
    mp_type_t type;
    if (mp_get(message->params, "inputResponses", &field) && mp_type_of(field, &type) &&
        type != MP_MAP && type != MP_NIL)
        return mcp_refuse(message, 400, MCP_PARAMS,
                          "params.inputResponses must be an object: what was answered, by the keys "
                          "of inputRequests");
    if (mp_get(message->params, "requestState", &field) && mp_type_of(field, &type) &&
        type != MP_STR && type != MP_NIL)
        return mcp_refuse(message, 400, MCP_PARAMS,
                          "params.requestState must be the text that came with inputRequests");
    return fine;
}

static mcp_refusal_t read_modern(arena_t *arena, bytes_t meta, bytes_t version,
                                 const mcp_headers_t *headers, mcp_message_t *out)
{
    const char *text = mp_text(arena, version);
    out->modern = true;
    out->version = MCP_MODERN;
    if (!text)
        return mcp_refuse(out, 400, MCP_PARAMS, META "protocolVersion must be a string");
    const char *header = header_of(arena, headers, "MCP-Protocol-Version");
    if (header && strcmp(header, text) != 0)
        return mcp_refuse(out, 400, MCP_HEADER_MISMATCH,
                          "the header MCP-Protocol-Version is not what the body says");
    if (strcmp(text, MCP_MODERN) != 0)
        return unsupported(arena, out, text);
    mcp_refusal_t refusal = check_meta(arena, out, meta);
    if (!refusal.status)
        refusal = check_mirrors(arena, out, headers);
    return refusal.status ? refusal : check_answers(out);
}

static mcp_refusal_t read_legacy(arena_t *arena, const mcp_headers_t *headers, mcp_message_t *out)
{
    const char *header = header_of(arena, headers, "MCP-Protocol-Version");
    bool initialize = out->method && !strcmp(out->method, "initialize");
    if (header && !strcmp(header, MCP_MODERN) && !initialize && out->kind != MCP_RESPONSE)
        return mcp_refuse(out, 400, MCP_PARAMS,
                          "version " MCP_MODERN " needs _meta with " META "protocolVersion");
    if (header && !initialize && !mcp_legacy_version(header))
        return unsupported(arena, out, header);
    out->version = mcp_legacy_version(header);
    if (!out->version)
        out->version = "2025-03-26";
    return fine;
}

const char *mcp_trace_of(arena_t *arena, const mcp_message_t *message)
{
    return mp_member_text(arena, meta_of(message), "traceparent");
}

mcp_refusal_t mcp_read(arena_t *arena, bytes_t value, const mcp_headers_t *headers,
                       mcp_message_t *out)
{
    *out = (mcp_message_t){.version = "2025-03-26"};
    mcp_refusal_t refusal = read_shape(arena, value, out);
    if (refusal.status)
        return refusal;
    bytes_t meta = meta_of(out), version, token;
    mp_type_t type;
    if (meta.size && mp_get(meta, "progressToken", &token) && mp_type_of(token, &type) &&
        (type == MP_STR || type == MP_INT))
        out->progress_token = token;
    if (meta.size && mp_get(meta, META "protocolVersion", &version))
        return read_modern(arena, meta, version, headers, out);
    return read_legacy(arena, headers, out);
}

mcp_refusal_t mcp_read_call(arena_t *arena, const mcp_message_t *message, const char **name,
                            bytes_t *arguments)
{
    bytes_t field;
    mp_type_t type;
    *arguments = (bytes_t){0};
    *name = message->params.size && mp_get(message->params, "name", &field) ? mp_text(arena, field)
                                                                            : NULL;
    int status = message->modern ? 400 : 200;
    if (!*name)
        return mcp_refuse(message, status, MCP_PARAMS, "params.name must name a tool");
    if (mp_get(message->params, "arguments", &field) && mp_type_of(field, &type) &&
        type != MP_NIL) {
        if (type != MP_MAP)
            return mcp_refuse(message, status, MCP_PARAMS, "params.arguments must be an object");
        *arguments = field;
    }
    return fine;
}

/* ---- Mcp-Param-… ---- */

/* Does the header say what the argument says? */
static bool says_the_same(arena_t *arena, const char *header, bytes_t argument)
{
    mp_type_t type;
    bool flag;
    double number;
    if (!mp_type_of(argument, &type))
        return false;
    if (type == MP_STR)
        return mp_equals(argument, header);
    if (type == MP_BOOL)
        return mp_bool(argument, &flag) && !strcmp(header, flag ? "true" : "false");
    bytes_t value, more;
    if (!mp_real(argument, &number) ||
        err_is(json_to_msgpack(arena, arena_printf(arena, "[%s]", header), strlen(header) + 2, NULL,
                               &value)) ||
        mp_at(value, 1, &more) || !mp_at(value, 0, &value))
        return false;
    return mp_same(value, argument);
}

static mcp_refusal_t check_param(arena_t *arena, const mcp_message_t *message, const char *name,
                                 bytes_t argument, const mcp_headers_t *headers)
{
    const char *header = arena_printf(arena, "Mcp-Param-%s", name);
    const char *value = header_of(arena, headers, header);
    mp_type_t type;
    bool given = argument.size && mp_type_of(argument, &type) && type != MP_NIL;
    if (!given && !value)
        return fine;
    if (!value)
        return mcp_refuse(message, 400, MCP_HEADER_MISMATCH,
                          arena_printf(arena, "the header %s is missing", header));
    const char *decoded = mcp_header_value(arena, value);
    if (!decoded)
        return mcp_refuse(message, 400, MCP_HEADER_MISMATCH,
                          arena_printf(arena, "the header %s is not valid Base64", header));
    if (!given || !says_the_same(arena, decoded, argument))
        return mcp_refuse(
            message, 400, MCP_HEADER_MISMATCH,
            arena_printf(arena, "the header %s is not what the arguments say", header));
    return fine;
}

mcp_refusal_t mcp_check_params(arena_t *arena, const mcp_message_t *message, bytes_t schema,
                               bytes_t arguments, const mcp_headers_t *headers)
{
    bytes_t properties, key, property, mark;
    mp_value_t head;
    if (!mp_get(schema, "properties", &properties))
        return fine;
    mp_reader_t reader = mp_reader(properties);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return fine;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key); i++) {
        if (!mp_slice(&reader, &property))
            break;
        const char *name = mp_text(arena, key);
        const char *header = mp_get(property, "x-mcp-header", &mark) ? mp_text(arena, mark) : NULL;
        bytes_t argument = {0};
        if (arguments.size && name)
            mp_get(arguments, name, &argument);
        mcp_refusal_t refusal = header
                                    ? check_param(arena, message, header, argument, headers)
                                    : mcp_check_params(arena, message, property, argument, headers);
        if (refusal.status)
            return refusal;
    }
    return fine;
}

/* ---- Writing ---- */

static void put_id(buf_t *out, bytes_t id)
{
    if (!id.size || err_is(json_from_msgpack(id, JSON_COMPACT, out)))
        buf_puts(out, "null");
}

void mcp_put_refusal(buf_t *out, const mcp_refusal_t *refusal)
{
    buf_puts(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    put_id(out, refusal->id);
    buf_printf(out, ",\"error\":{\"code\":%d,\"message\":", refusal->code);
    json_put_string(out, refusal->text, strlen(refusal->text));
    if (refusal->data)
        buf_printf(out, ",\"data\":%s", refusal->data);
    buf_puts(out, "}}");
}

void mcp_open_result(buf_t *out, const mcp_message_t *message, const char *server_version)
{
    mcp_open_result_of(out, message, server_version, "complete");
}

void mcp_put_cache(buf_t *out, const mcp_message_t *message)
{
    if (message->modern)
        buf_puts(out, ",\"ttlMs\":60000,\"cacheScope\":\"private\"");
}

void mcp_put_log(buf_t *out, const char *level, const char *logger, const char *text)
{
    buf_puts(out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{"
                  "\"level\":");
    json_put_string(out, level, strlen(level));
    if (logger) {
        buf_puts(out, ",\"logger\":");
        json_put_string(out, logger, strlen(logger));
    }
    buf_puts(out, ",\"data\":");
    json_put_string(out, text, strlen(text));
    buf_puts(out, "}}");
}

void mcp_open_result_of(buf_t *out, const mcp_message_t *message, const char *server_version,
                        const char *type)
{
    buf_puts(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    put_id(out, message->id);
    buf_puts(out, ",\"result\":{");
    if (message->modern)
        buf_printf(out,
                   "\"resultType\":\"%s\",\"_meta\":{\"" META
                   "serverInfo\":{\"name\":\"agency\",\"version\":\"%s\"}}",
                   type, server_version);
}

void mcp_close_result(buf_t *out)
{
    buf_puts(out, "}}");
}

void mcp_put_tool_result(buf_t *out, const mcp_message_t *message, const char *server_version,
                         const char *text, bytes_t body, bool is_error)
{
    buf_t json;
    buf_open(&json, out->arena);
    bool structured =
        !is_error && body.size && !err_is(json_from_msgpack(body, JSON_COMPACT, &json));
    if (!text || !*text) {
        buf_t pretty;
        buf_open(&pretty, out->arena);
        if (structured && !err_is(json_from_msgpack(body, JSON_PRETTY, &pretty)))
            text = pretty.data;
        else
            text = "";
    }
    mcp_open_result(out, message, server_version);
    buf_puts(out, message->modern ? ",\"content\":[{\"type\":\"text\",\"text\":"
                                  : "\"content\":[{\"type\":\"text\",\"text\":");
    json_put_string(out, text, strlen(text));
    buf_puts(out, "}]");
    if (structured) {
        buf_puts(out, ",\"structuredContent\":");
        buf_put(out, json.data, json.size);
    }
    if (is_error)
        buf_puts(out, ",\"isError\":true");
    mcp_close_result(out);
}

void mcp_put_progress(buf_t *out, bytes_t token, bytes_t progress)
{
    buf_puts(out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{"
                  "\"progressToken\":");
    put_id(out, token);
    static const char *const members[] = {"progress", "total", "message"};
    for (int i = 0; i < 3; i++) {
        bytes_t field;
        if (!mp_get(progress, members[i], &field))
            continue;
        buf_printf(out, ",\"%s\":", members[i]);
        put_id(out, field);
    }
    buf_puts(out, "}}");
}

void mcp_put_text(buf_t *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\":", name);
    json_put_string(out, text, strlen(text));
}

void mcp_put_members(buf_t *out, bytes_t map, bool comma)
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

const char *mcp_json(arena_t *arena, bytes_t value)
{
    buf_t out;
    buf_open(&out, arena);
    return err_is(json_from_msgpack(value, JSON_COMPACT, &out)) ? "null" : out.data;
}

const char *mcp_pretty(arena_t *arena, bytes_t value)
{
    buf_t out;
    buf_open(&out, arena);
    return err_is(json_from_msgpack(value, JSON_PRETTY, &out)) ? "" : out.data;
}
