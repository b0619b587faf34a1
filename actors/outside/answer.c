#include "actors/outside/answer.h"

#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

enum {
    MESSAGE_LONGEST = 500,
    ERROR_LONGEST = 4000,
    ID_LONGEST = 1024,
    HEADERS_MOST = 16,
    SCHEMA_DEEPEST = 32,
    RETRY_LONGEST_MS = 600000
};

/* ---- Lines ---- */

struct lines {
    char *data;
    size_t size, capacity, largest;
    bool after_return; /* a \n that follows belongs to it */
    bool broken;
};

lines_t *lines_new(size_t largest)
{
    lines_t *lines = calloc(1, sizeof(*lines));
    if (!lines)
        abort();
    lines->largest = largest;
    return lines;
}

void lines_destroy(lines_t **lines)
{
    if (!*lines)
        return;
    free((*lines)->data);
    free(*lines);
    *lines = NULL;
}

static bool gather(lines_t *lines, const char *data, size_t size)
{
    if (size > lines->largest - lines->size)
        return false;
    if (lines->size + size + 1 > lines->capacity) {
        lines->capacity = (lines->size + size) * 2 + 64;
        lines->data = realloc(lines->data, lines->capacity);
        if (!lines->data)
            abort();
    }
    memcpy(lines->data + lines->size, data, size);
    lines->size += size;
    lines->data[lines->size] = '\0';
    return true;
}

bool lines_feed(lines_t *lines, bytes_t part, line_fn_t *fn, void *ctx)
{
    const char *at = (const char *)part.data, *end = at + part.size;
    while (at < end && !lines->broken) {
        if (lines->after_return && *at == '\n') {
            lines->after_return = false;
            at++;
            continue;
        }
        lines->after_return = false;
        const char *stop = at;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        if (!gather(lines, at, (size_t)(stop - at))) {
            lines->broken = true;
            break;
        }
        at = stop;
        if (stop == end)
            break;
        lines->after_return = *stop == '\r';
        at++;
        size_t size = lines->size;
        lines->size = 0;
        fn(ctx, lines->data, size);
    }
    return !lines->broken;
}

/* ---- Server-sent events ---- */

struct events {
    lines_t *lines;
    char *data;
    size_t size, capacity, largest;
    bool has_data, any, broken;
    char id[ID_LONGEST];
    int64_t retry_ms;
    event_fn_t *fn; /* while it is fed */
    void *ctx;
};

events_t *events_new(size_t largest)
{
    events_t *events = calloc(1, sizeof(*events));
    if (!events)
        abort();
    events->largest = largest;
    events->lines = lines_new(largest + 64);
    events->retry_ms = -1;
    return events;
}

void events_destroy(events_t **events)
{
    if (!*events)
        return;
    lines_destroy(&(*events)->lines);
    free((*events)->data);
    free(*events);
    *events = NULL;
}

static void add_data(events_t *events, const char *text, size_t size)
{
    size_t gap = events->has_data; /* lines of data are joined by \n */
    if (size + gap > events->largest - events->size) {
        events->broken = true;
        return;
    }
    if (events->size + size + gap + 1 > events->capacity) {
        events->capacity = (events->size + size) * 2 + 64;
        events->data = realloc(events->data, events->capacity);
        if (!events->data)
            abort();
    }
    if (gap)
        events->data[events->size++] = '\n';
    memcpy(events->data + events->size, text, size);
    events->size += size;
    events->data[events->size] = '\0';
    events->has_data = true;
}

static void take_retry(events_t *events, const char *text, size_t size)
{
    int64_t ms = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return;
        ms = ms * 10 + (text[i] - '0');
        if (ms > RETRY_LONGEST_MS)
            ms = RETRY_LONGEST_MS;
    }
    if (size)
        events->retry_ms = ms;
}

static void dispatch(events_t *events)
{
    event_seen_t seen = {.data = events->has_data ? events->data : NULL,
                         .size = events->size,
                         .id = events->id,
                         .retry_ms = events->retry_ms};
    bool any = events->any;
    events->size = 0;
    events->any = events->has_data = false;
    if (any)
        events->fn(events->ctx, &seen);
}

static void on_event_line(void *ctx, const char *line, size_t size)
{
    events_t *events = ctx;
    if (events->broken)
        return;
    if (!size) {
        dispatch(events);
        return;
    }
    const char *colon = memchr(line, ':', size);
    size_t name = colon ? (size_t)(colon - line) : size;
    const char *value = colon ? colon + 1 : line + size;
    size_t length = size - (size_t)(value - line);
    if (length && *value == ' ') {
        value++;
        length--;
    }
    if (!name)
        return; /* a comment */
    events->any = true;
    if (name == 4 && !memcmp(line, "data", 4))
        add_data(events, value, length);
    else if (name == 5 && !memcmp(line, "retry", 5))
        take_retry(events, value, length);
    else if (name == 2 && !memcmp(line, "id", 2) && length < ID_LONGEST &&
             !memchr(value, 0, length)) {
        memcpy(events->id, value, length);
        events->id[length] = '\0';
    }
}

bool events_feed(events_t *events, bytes_t part, event_fn_t *fn, void *ctx)
{
    events->fn = fn;
    events->ctx = ctx;
    return lines_feed(events->lines, part, on_event_line, events) && !events->broken;
}

/* ---- JSON-RPC ---- */

/* Of foreign text only so much, and never half a letter. */
static const char *some(arena_t *arena, const char *text, size_t most)
{
    size_t size = strlen(text);
    if (size <= most)
        return text;
    for (size = most; size && !mp_utf8(text, size);)
        size--;
    return arena_printf(arena, "%.*s …", (int)size, text);
}

static bool is_map(bytes_t value)
{
    mp_type_t type;
    return value.size && mp_type_of(value, &type) && type == MP_MAP;
}

static err_t read_error(arena_t *arena, bytes_t error, answer_t *out)
{
    bytes_t field;
    out->kind = ANSWER_ERROR;
    if (mp_get(error, "code", &field))
        mp_int(field, &out->code);
    const char *text = mp_get(error, "message", &field) ? mp_text(arena, field) : NULL;
    out->message = text && *text ? some(arena, text, MESSAGE_LONGEST) : "it gave no reason";
    return err_ok();
}

err_t answer_read(arena_t *arena, bytes_t value, answer_t *out)
{
    bytes_t field;
    *out = (answer_t){.id = -1};
    if (!is_map(value) || !mp_get(value, "jsonrpc", &field) || !mp_equals(field, "2.0"))
        return err_of(ERR_PARSE, "it is no JSON-RPC 2.0");
    if (mp_get(value, "id", &out->raw_id) && !mp_int(out->raw_id, &out->id))
        out->id = -1;
    if (mp_get(value, "params", &field) && is_map(field))
        out->params = field;
    if (mp_get(value, "method", &field)) {
        out->method = mp_text(arena, field);
        out->kind = out->raw_id.size ? ANSWER_REQUEST : ANSWER_NOTE;
        return out->method ? err_ok() : err_of(ERR_PARSE, "its method is no text");
    }
    if (mp_get(value, "error", &field) && is_map(field))
        return read_error(arena, field, out);
    if (!mp_get(value, "result", &out->result) || !is_map(out->result))
        return err_of(ERR_PARSE, "it has neither method nor result nor error");
    out->kind = ANSWER_RESULT;
    return err_ok();
}

/* Where the string ends that begins at `at`: its closing quote, or `size`. */
static size_t string_end(const char *json, size_t size, size_t at)
{
    while (at < size && json[at] != '"')
        at += json[at] == '\\' ? 2 : 1;
    return at < size ? at : size;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Of `"id" : 17` what is behind the name; -1: something else. */
static int64_t number_behind(const char *json, size_t size, size_t at)
{
    enum { DIGITS = 15 };
    int64_t number = 0;
    size_t from;
    while (at < size && is_space(json[at]))
        at++;
    if (at >= size || json[at++] != ':')
        return -1;
    while (at < size && is_space(json[at]))
        at++;
    for (from = at; at < size && at - from < DIGITS && json[at] >= '0' && json[at] <= '9'; at++)
        number = number * 10 + (json[at] - '0');
    return at == from ? -1 : number;
}

int64_t answer_id(const char *json, size_t size)
{
    size_t depth = 0;
    int64_t id = -1;
    for (size_t at = 0; at < size && id < 0; at++) {
        if (json[at] == '{' || json[at] == '[') {
            depth++;
        } else if ((json[at] == '}' || json[at] == ']') && depth) {
            depth--;
        } else if (json[at] == '"') {
            const char *name = json + at + 1;
            size_t end = string_end(json, size, at + 1);
            if (depth == 1 && end == at + 3 && !memcmp(name, "id", 2))
                id = number_behind(json, size, end + 1);
            at = end;
        }
    }
    return id;
}

/* ---- Tools ---- */

static bool good_name(const char *name)
{
    size_t size = strlen(name);
    if (!size || size > TOOL_NAME_LONGEST)
        return false;
    for (; *name; name++)
        if (!((*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') ||
              (*name >= '0' && *name <= '9') || strchr("_.-/", *name)))
            return false;
    return true;
}

static bool hint(bytes_t annotations, const char *name)
{
    bytes_t field;
    bool value = false;
    return annotations.size && mp_get(annotations, name, &field) && mp_bool(field, &value) && value;
}

static bool token(const char *name)
{
    bool good = *name && strlen(name) <= 64;
    for (; *name; name++)
        good = good && (unsigned char)*name < 0x7f && *name > ' ' &&
               !strchr("()<>@,;:\\\"/[]?={}", *name);
    return good;
}

typedef struct walk {
    arena_t *arena;
    tool_header_t *headers;
    size_t count;
    const char *path[SCHEMA_DEEPEST + 1];
} walk_t;

/* Properties with x-mcp-header, reached through `properties` only. */
static void find_headers(walk_t *walk, bytes_t schema, size_t depth)
{
    bytes_t properties, key, value, field;
    mp_value_t head;
    if (depth >= SCHEMA_DEEPEST || !mp_get(schema, "properties", &properties))
        return;
    mp_reader_t reader = mp_reader(properties);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key) && mp_slice(&reader, &value);
         i++) {
        walk->path[depth] = mp_text(walk->arena, key);
        if (!is_map(value) || !walk->path[depth])
            continue;
        const char *name =
            mp_get(value, "x-mcp-header", &field) ? mp_text(walk->arena, field) : NULL;
        if (name && token(name) && walk->count < HEADERS_MOST) {
            const char **path = ARENA_ARRAY(walk->arena, const char *, depth + 2);
            memcpy(path, walk->path, (depth + 1) * sizeof(*path));
            walk->headers[walk->count++] = (tool_header_t){name, path};
        }
        find_headers(walk, value, depth + 1);
    }
}

static const char *schema_problem(bytes_t item, bytes_t *schema)
{
    bytes_t type;
    if (!mp_get(item, "inputSchema", schema) || !is_map(*schema))
        return "its inputSchema is no object";
    if (schema->size > TOOL_SCHEMA_LARGEST)
        return "its inputSchema is larger than 64 KiB";
    if (err_is(mp_check_depth(*schema, SCHEMA_DEEPEST)))
        return "its inputSchema nests deeper than 32";
    if (mp_get(*schema, "type", &type) && !mp_equals(type, "object"))
        return "its inputSchema is for something else than an object";
    return NULL;
}

bool answer_tool(arena_t *arena, bytes_t item, foreign_tool_t *out)
{
    bytes_t field, annotations = {0}, schema = {0};
    *out = (foreign_tool_t){.doc = ""};
    const char *name = is_map(item) && mp_get(item, "name", &field) ? mp_text(arena, field) : NULL;
    if (!name || !*name)
        return false;
    out->name = some(arena, name, TOOL_NAME_LONGEST);
    const char *doc = mp_get(item, "description", &field) ? mp_text(arena, field) : NULL;
    if (!doc)
        doc = mp_get(item, "title", &field) ? mp_text(arena, field) : NULL;
    if (doc)
        out->doc = some(arena, doc, TOOL_DOC_LONGEST);
    mp_get(item, "annotations", &annotations);
    out->reads = hint(annotations, "readOnlyHint");
    out->repeatable = out->reads || hint(annotations, "idempotentHint");
    out->problem = good_name(name) ? schema_problem(item, &schema)
                                   : "its name has other letters than A-Z a-z 0-9 _ . - /, or more "
                                     "than 128 of them";
    if (out->problem)
        return true;
    out->input = (bytes_t){arena_copy(arena, schema.data, schema.size), schema.size};
    walk_t walk = {.arena = arena, .headers = ARENA_ARRAY(arena, tool_header_t, HEADERS_MOST)};
    find_headers(&walk, schema, 0);
    out->headers = walk.headers;
    out->header_count = walk.count;
    return true;
}

/* ---- Results ---- */

/* The texts of the content blocks, one after the other. */
static const char *texts(arena_t *arena, bytes_t content)
{
    bytes_t block, field;
    mp_value_t head;
    buf_t out;
    buf_open(&out, arena);
    mp_reader_t reader = mp_reader(content);
    if (!content.size || !mp_read(&reader, &head) || head.type != MP_ARRAY)
        return "";
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &block); i++) {
        const char *text = mp_get(block, "type", &field) && mp_equals(field, "text") &&
                                   mp_get(block, "text", &field)
                               ? mp_text(arena, field)
                               : NULL;
        if (text)
            buf_printf(&out, "%s%s", out.size ? "\n" : "", text);
    }
    return out.data;
}

err_t answer_value(arena_t *arena, bytes_t result, bytes_t *value, const char **error)
{
    bytes_t field, content = {0};
    bool failed = false;
    *error = NULL;
    if (mp_get(result, "resultType", &field) && !mp_equals(field, "complete"))
        return err_of(ERR_PARSE, mp_equals(field, "input_required")
                                     ? "the tool asks for input, which a procedure cannot give"
                                     : "the answer is of a kind that was not asked for");
    mp_get(result, "content", &content);
    const char *text = texts(arena, content);
    if (mp_get(result, "isError", &field) && mp_bool(field, &failed) && failed)
        *error = *text ? some(arena, text, ERROR_LONGEST) : "the tool failed without saying why";
    if (mp_get(result, "structuredContent", value) && is_map(*value))
        return err_ok();
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, 2);
    mp_put_str(&out, "text");
    mp_put_str(&out, text);
    mp_put_str(&out, "content");
    if (content.size)
        mp_put_raw(&out, content);
    else
        mp_put_array(&out, 0);
    *value = buf_bytes(&out);
    return err_ok();
}

/* ---- Headers ---- */

static const char *base64(arena_t *arena, const char *text)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    buf_t out;
    buf_open(&out, arena);
    buf_puts(&out, "=?base64?");
    for (size_t size = strlen(text), i = 0; i < size; i += 3) {
        size_t left = size - i;
        unsigned bits = (unsigned)(unsigned char)text[i] << 16;
        if (left > 1)
            bits |= (unsigned)(unsigned char)text[i + 1] << 8;
        if (left > 2)
            bits |= (unsigned char)text[i + 2];
        char four[4] = {letters[bits >> 18], letters[bits >> 12 & 63],
                        left > 1 ? letters[bits >> 6 & 63] : '=',
                        left > 2 ? letters[bits & 63] : '='};
        buf_put(&out, four, 4);
    }
    buf_puts(&out, "?=");
    return out.data;
}

const char *answer_header_text(arena_t *arena, const char *text)
{
    size_t size = strlen(text);
    bool fits = size && *text != ' ' && text[size - 1] != ' ' && strncmp(text, "=?base64?", 9) != 0;
    for (const char *at = text; *at; at++)
        fits = fits && *at >= 0x20 && *at < 0x7f;
    return fits ? text : base64(arena, text);
}

const char *answer_header(arena_t *arena, const tool_header_t *header, bytes_t arguments)
{
    mp_value_t head;
    for (const char *const *at = header->path; *at; at++)
        if (!arguments.size || !mp_get(arguments, *at, &arguments))
            return NULL;
    mp_reader_t reader = mp_reader(arguments);
    if (!mp_read(&reader, &head))
        return NULL;
    switch (head.type) {
    case MP_STR:
        return answer_header_text(arena, mp_text(arena, arguments));
    case MP_INT:
        return arena_printf(arena, "%lld", (long long)head.integer);
    case MP_UINT:
        return arena_printf(arena, "%llu", (unsigned long long)head.natural);
    case MP_BOOL:
        return head.boolean ? "true" : "false";
    default:
        return NULL;
    }
}
