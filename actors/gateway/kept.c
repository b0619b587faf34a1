/* kept: what the pillars keep, as resources, templates and prompts. The pillars know nothing of
 * that: the rows below say which of their tools list and read it. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

enum { PAGE = 100 };

#define SCHEME "agency://"

typedef struct kept_row {
    const char *pillar, *kind;     /* agency://<kind>/<id> */
    const char *list, *list_field; /* the tool that lists them; NULL: only read by id */
    const char *id, *title;        /* fields of an item */
    const char *get, *get_arg;
    const char *content; /* field with the text; NULL: all of it as JSON */
    const char *mime, *doc;
    bool pages; /* the list has limit and cursor */
} kept_row_t;

static const kept_row_t rows[] = {
    {"agent", "sop", "sop_list", "sops", "name", "title", "sop_get", "name", "content",
     "text/markdown", "A procedure (SOP).", false},
    {"agent", "task", "task_list", "tasks", "id", "kind", "task_get", "id", NULL,
     "application/json", "A task with its state and result.", true},
    {"agent", "run", NULL, NULL, NULL, NULL, "run_get", "id", NULL, "application/json",
     "A run of a procedure, step by step.", false},
    {"brain", "memory", "brain_list", "memories", "id", "request", "brain_get", "id", NULL,
     "application/json", "A memory.", true},
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

/* What a tool changes when it succeeds. */
static const struct {
    const char *tool, *what, *what_too;
} changes[] = {{"sop_create", "prompts", "resources"},      {"brain_store", "resources", NULL},
               {"brain_delete_episode", "resources", NULL}, {"brain_forget", "resources", NULL},
               {"brain_import", "resources", NULL},         {"task_submit", "resources", NULL},
               {"task_submit_batch", "resources", NULL},    {"sop_execute", "resources", NULL}};

void kept_on_success(gateway_t *self, const char *tool)
{
    if (!self->streams) /* the usual case costs nothing */
        return;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
        if (!strcmp(changes[i].tool, tool)) {
            streams_changed(self, changes[i].what);
            if (changes[i].what_too)
                streams_changed(self, changes[i].what_too);
        }
}

static bool is_open(const gateway_t *self, const kept_row_t *row)
{
    return catalogue_find(self->catalogue, row->get, NULL) != NULL;
}

static const kept_row_t *row_of(const gateway_t *self, const char *kind, size_t size)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strlen(rows[i].kind) == size && !strncmp(rows[i].kind, kind, size) &&
            is_open(self, &rows[i]))
            return &rows[i];
    return NULL;
}

/* ---- Lists ---- */

bool kept_lists(const exchange_t *exchange, const char *kind, size_t index)
{
    bool prompts = !strcmp(kind, "prompts");
    return index < ROWS && is_open(exchange->gateway, &rows[index]) &&
           exchange_offers(exchange, rows[index].pillar) &&
           (!prompts || !strcmp(rows[index].kind, "sop"));
}

size_t kept_count(void)
{
    return ROWS;
}

const char *kept_template(arena_t *arena, size_t index)
{
    buf_t out;
    buf_open(&out, arena);
    buf_printf(&out,
               "{\"uriTemplate\":\"" SCHEME "%s/{id}\",\"name\":\"%s\",\"mimeType\":\"%s\","
               "\"description\":\"%s\"}",
               rows[index].kind, rows[index].kind, rows[index].mime, rows[index].doc);
    return out.data;
}

bool kept_list_call(const pending_t *pending, size_t index, peer_call_t *out)
{
    const kept_row_t *row = &rows[index];
    buf_t args;
    if (!row->list)
        return false;
    buf_open(&args, pending->exchange->arena);
    mp_put_map(&args, row->pages ? 1 + (pending->cursor != NULL) : 0);
    if (row->pages) {
        mp_put_str(&args, "limit");
        mp_put_int(&args, PAGE);
        if (pending->cursor) {
            mp_put_str(&args, "cursor");
            mp_put_str(&args, pending->cursor);
        }
    }
    *out = pending_request(pending, row->pillar, row->list, buf_bytes(&args));
    return true;
}

/* Unreserved characters of RFC 3986 stay. */
static void put_path(buf_t *out, const char *text)
{
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++)
        if (strchr(fine, *text))
            buf_put(out, text, 1);
        else
            buf_printf(out, "%%%02X", (unsigned)(unsigned char)*text);
}

static void put_resource(arena_t *arena, const kept_row_t *row, bytes_t item, const char *id,
                         buf_t *out)
{
    buf_t uri;
    const char *title = mp_member_text(arena, item, row->title);
    buf_open(&uri, arena);
    buf_printf(&uri, SCHEME "%s/", row->kind);
    put_path(&uri, id);
    buf_puts(out, "{");
    mcp_put_text(out, "uri", uri.data);
    buf_puts(out, ",");
    mcp_put_text(out, "name", id);
    if (title && *title) {
        size_t size = strlen(title);
        size_t most = size < 120 ? size : 120;
        while (most && most < size && ((unsigned char)title[most] & 0xc0) == 0x80)
            most--; /* not within a character */
        buf_puts(out, ",\"title\":");
        json_put_string(out, title, most);
    }
    buf_printf(out, ",\"description\":\"%s\",\"mimeType\":\"%s\"}", row->doc, row->mime);
}

static void put_prompt(arena_t *arena, bytes_t item, const char *name, buf_t *out)
{
    const char *title = mp_member_text(arena, item, "title");
    bytes_t inputs = mp_member(item, "inputs"), input;
    buf_puts(out, "{");
    mcp_put_text(out, "name", name);
    if (title) {
        buf_puts(out, ",");
        mcp_put_text(out, "title", title);
    }
    buf_puts(out, ",");
    mcp_put_text(out, "description",
                 arena_printf(arena, "Carry out the procedure '%s'.", title ? title : name));
    buf_puts(out, ",\"arguments\":[");
    for (uint32_t i = 0; inputs.size && mp_at(inputs, i, &input); i++) {
        bool required = false;
        const char *argument = mp_member_text(arena, input, "name");
        mp_bool(mp_member(input, "required"), &required);
        buf_puts(out, i ? ",{" : "{");
        mcp_put_text(out, "name", argument ? argument : "");
        buf_printf(out, ",\"required\":%s}", required ? "true" : "false");
    }
    buf_puts(out, "]}");
}

void kept_put_items(arena_t *arena, size_t index, const char *kind, bytes_t body, buf_t *out,
                    bool *any)
{
    const kept_row_t *row = &rows[index];
    bytes_t items = mp_member(body, row->list_field), item;
    mp_value_t head;
    mp_reader_t reader = mp_reader(items);
    if (!items.size || !mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
        const char *id = mp_member_text(arena, item, row->id);
        bool valid = true;
        if (!id ||
            (!strcmp(kind, "prompts") && mp_bool(mp_member(item, "valid"), &valid) && !valid))
            continue; /* a procedure with errors is read and mended, not carried out */
        buf_puts(out, *any ? "," : "");
        *any = true;
        if (!strcmp(kind, "prompts"))
            put_prompt(arena, item, id, out);
        else
            put_resource(arena, row, item, id, out);
    }
}

/* ---- Reading ---- */

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static const char *unescape(arena_t *arena, const char *text)
{
    char *out = arena_alloc(arena, strlen(text) + 1);
    size_t at = 0;
    for (; *text; text++) {
        if (*text == '%') {
            int high = hex(text[1]), low = high < 0 ? -1 : hex(text[2]);
            if (low < 0 || !(high | low))
                return NULL;
            out[at++] = (char)(high << 4 | low);
            text += 2;
        } else {
            out[at++] = *text;
        }
    }
    return mp_utf8(out, at) ? out : NULL;
}

static const kept_row_t *row_of_uri(const gateway_t *self, const char *uri, const char **id)
{
    size_t scheme = strlen(SCHEME);
    if (strncmp(uri, SCHEME, scheme) != 0)
        return NULL;
    const char *slash = strchr(uri + scheme, '/');
    if (!slash || !slash[1])
        return NULL;
    *id = slash + 1;
    return row_of(self, uri + scheme, (size_t)(slash - uri) - scheme);
}

/* agency://memory/ID?company=NAME */
static const char *split_company(pending_t *pending, const char *id)
{
    static const char mark[] = "?company=";
    const char *at = strstr(id, mark);
    if (!at)
        return id;
    pending->company = at + strlen(mark);
    return arena_strndup(pending->exchange->arena, id, (size_t)(at - id));
}

bool kept_get_call(pending_t *pending, peer_call_t *out)
{
    const gateway_t *self = pending->exchange->gateway;
    arena_t *arena = pending->exchange->arena;
    const char *id = pending->tool;
    const kept_row_t *row =
        !strcmp(pending->kind, "prompt") ? row_of(self, "sop", 3) : row_of_uri(self, id, &id);
    if (row && strcmp(pending->kind, "prompt") != 0)
        id = unescape(arena, split_company(pending, id));
    if (!row || !id)
        return false;
    *out = pending_request(pending, row->pillar, row->get,
                           pending_args(pending, row->get_arg, id, NULL, NULL));
    return true;
}

/* "contents":[…] */
static void put_contents(const pending_t *pending, bytes_t body, buf_t *out)
{
    const char *id;
    arena_t *arena = pending->exchange->arena;
    const kept_row_t *row = row_of_uri(pending->exchange->gateway, pending->tool, &id);
    const char *text = row && row->content ? mp_member_text(arena, body, row->content) : NULL;
    buf_puts(out, "\"contents\":[{");
    mcp_put_text(out, "uri", pending->tool);
    buf_printf(out, ",\"mimeType\":\"%s\",", row ? row->mime : "application/json");
    mcp_put_text(out, "text", text ? text : mcp_pretty(arena, body));
    buf_puts(out, "}]");
}

/* "messages":[…] */
static void put_messages(const pending_t *pending, bytes_t body, buf_t *out)
{
    arena_t *arena = pending->exchange->arena;
    const char *content = mp_member_text(arena, body, "content");
    buf_t text;
    bytes_t key, value;
    mp_value_t head;
    mp_reader_t reader = mp_reader(pending->arguments);
    buf_open(&text, arena);
    buf_printf(&text,
               "Carry out the procedure below step by step and report each result. To run it "
               "durably instead, call sop_execute with the name \"%s\".\n",
               pending->tool);
    if (pending->arguments.size && mp_read(&reader, &head) && head.type == MP_MAP && head.count) {
        buf_puts(&text, "\nInputs:\n");
        for (uint32_t i = 0; i < head.count; i++) {
            if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
                break;
            const char *plain = mp_text(arena, value), *name = mp_text(arena, key);
            buf_printf(&text, "- %s: ", name ? name : "");
            buf_puts(&text, plain ? plain : mcp_pretty(arena, value));
            buf_puts(&text, "\n");
        }
    }
    buf_puts(&text, "\n");
    buf_puts(&text, content ? content : "");
    buf_puts(out, "\"messages\":[{\"role\":\"user\",\"content\":{\"type\":\"text\",");
    mcp_put_text(out, "text", text.data);
    buf_puts(out, "}}]");
}

void kept_put_result(const pending_t *pending, bytes_t body, buf_t *out)
{
    if (!strcmp(pending->kind, "prompt"))
        put_messages(pending, body, out);
    else
        put_contents(pending, body, out);
}

/* ---- Completion of ids ---- */

bool kept_complete_call(const pending_t *pending, size_t *index, peer_call_t *out)
{
    const char *id;
    const gateway_t *self = pending->exchange->gateway;
    const kept_row_t *row = row_of_uri(self, pending->tool, &id);
    if (!row || !row->list)
        return false;
    *index = (size_t)(row - rows);
    return kept_list_call(pending, *index, out);
}

uint32_t kept_put_values(arena_t *arena, size_t index, bytes_t body, const char *begin, buf_t *out)
{
    const kept_row_t *row = &rows[index];
    bytes_t items = mp_member(body, row->list_field), item;
    uint32_t count = 0;
    mp_value_t head;
    mp_reader_t reader = mp_reader(items);
    if (!items.size || !mp_read(&reader, &head) || head.type != MP_ARRAY)
        return 0;
    for (uint32_t i = 0; i < head.count && count < 100 && mp_slice(&reader, &item); i++) {
        const char *id = mp_member_text(arena, item, row->id);
        if (!id || strncmp(id, begin, strlen(begin)) != 0)
            continue;
        buf_puts(out, count++ ? "," : "");
        json_put_string(out, id, strlen(id));
    }
    return count;
}

/* ---- Changes ---- */

void kept_changed(gateway_t *self, arena_t *arena, const char *kind, const char *company,
                  const char *id)
{
    buf_t uri;
    if (!self->streams)
        return;
    buf_open(&uri, arena);
    buf_printf(&uri, SCHEME "%s/", kind);
    put_path(&uri, id);
    streams_changed_of(self, uri.data, company);
}
