/* kept: what the pillars keep, as resources, templates and prompts. The pillars know nothing of
 * that: the rows below say which of their tools list and read it. */
#include "actors/gateway/parts.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "actors/gateway/args.h"
#include "actors/gateway/uri.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { PAGE = 100 };

typedef struct kept_row {
    const char *pillar, *kind;     /* agency://<kind>/<id> */
    const char *list, *list_field; /* the tool that lists them; NULL: only read by id */
    const char *id, *title;        /* fields of an item */
    const char *get, *get_arg;     /* get_arg NULL: the tool takes none */
    const char *content;           /* field with the text; NULL: all of it as JSON */
    const char *mime, *doc;
    bool pages;                      /* the list has limit and cursor */
    const char *list_arg, *list_all; /* argument of the list, and what gives all */
    bool finds;                      /* that argument also takes the beginning of an id */
    const char *const *fixed;        /* ids that there always are, ends with NULL */
} kept_row_t;

static const char *const reports[] = {"last_hour", "last_day", "last_week", NULL};
static const char *const today[] = {"today", NULL};
static const char *const logs[] = {"steps", NULL};
static const char *const now[] = {"now", NULL};
static const char *const pending_ones[] = {"pending", NULL};

static const kept_row_t rows[] = {
    {.pillar = "agent",
     .kind = "sop",
     .list = "sop_list",
     .list_field = "sops",
     .id = "name",
     .title = "title",
     .get = "sop_get",
     .get_arg = "name",
     .content = "content",
     .mime = "text/markdown",
     .doc = "A procedure (SOP)."},
    {.pillar = "agent",
     .kind = "task",
     .list = "task_list",
     .list_field = "tasks",
     .id = "id",
     .title = "kind",
     .get = "task_get",
     .get_arg = "id",
     .mime = "application/json",
     .doc = "A task with its state and result.",
     .pages = true},
    {.pillar = "agent",
     .kind = "run",
     .list = "task_list",
     .list_field = "tasks",
     .id = "id",
     .title = "sop",
     .get = "run_get",
     .get_arg = "id",
     .mime = "application/json",
     .doc = "A run of a procedure, step by step.",
     .pages = true,
     .list_arg = "kind",
     .list_all = "sop"},
    {.pillar = "agent",
     .kind = "proposal",
     .list = "list_pending_proposals",
     .list_field = "proposals",
     .id = "id",
     .title = "title",
     .get = "proposal_get",
     .get_arg = "proposal_id",
     .mime = "application/json",
     .doc = "A proposed change with its diff and evidence."},
    {.pillar = "agent",
     .kind = "log",
     .get = "sop_logs",
     .content = "log",
     .mime = "application/x-ndjson",
     .doc = "The last steps of runs, a line of JSON each.",
     .fixed = logs},
    {.pillar = "brain",
     .kind = "memory",
     .list = "brain_list",
     .list_field = "memories",
     .id = "id",
     .title = "request",
     .get = "brain_get",
     .get_arg = "id",
     .mime = "application/json",
     .doc = "A memory.",
     .pages = true},
    {.pillar = "brain",
     .kind = "node",
     .list = "brain_query_graph",
     .list_field = "nodes",
     .id = "id",
     .title = "type",
     .get = "graph_neighbors",
     .get_arg = "id",
     .mime = "application/json",
     .doc = "A node of the graph with its edges and neighbours.",
     .list_arg = "query",
     .list_all = "",
     .finds = true},
    {.pillar = "health",
     .kind = "report",
     .get = "get_health_report",
     .get_arg = "timeframe",
     .mime = "application/json",
     .doc = "What was measured, by agent and metric.",
     .fixed = reports},
    {.pillar = "health",
     .kind = "daily",
     .get = "daily_report",
     .content = "report",
     .mime = "text/markdown",
     .doc = "The last day in a page.",
     .fixed = today},
    {.pillar = "swarm",
     .kind = "agent",
     .list = "list_agents",
     .list_field = "agents",
     .id = "agent_id",
     .title = "role",
     .get = "agent_card",
     .get_arg = "agent_id",
     .mime = "application/json",
     .doc = "A subagent: what it is, can do and did."},
    {.pillar = "agent",
     .kind = "queue",
     .get = "queue_stats",
     .mime = "application/json",
     .doc = "How much work there is; changes with every task.",
     .fixed = now},
    {.pillar = "agent",
     .kind = "proposals",
     .get = "list_pending_proposals",
     .mime = "application/json",
     .doc = "Proposals that wait for somebody.",
     .fixed = pending_ones},
    {.pillar = "health",
     .kind = "alerts",
     .get = "check_alerts",
     .mime = "application/json",
     .doc = "The alert rules and which of them fire.",
     .fixed = now},
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]), RUNS_PLACE = 2 };

/* What a tool changes when it succeeds. */
static const struct {
    const char *tool, *what, *what_too;
} changes[] = {{"sop_create", "prompts", "resources"}, {"sop_rollback", "prompts", NULL},
               {"brain_store", "resources", NULL},     {"brain_delete_episode", "resources", NULL},
               {"brain_forget", "resources", NULL},    {"brain_import", "resources", NULL},
               {"task_submit", "resources", NULL},     {"task_submit_batch", "resources", NULL},
               {"sop_execute", "resources", NULL}};

void kept_on_success(const pending_t *pending)
{
    const exchange_t *exchange = pending->exchange;
    gateway_t *self = exchange->gateway;
    const char *tool = pending->tool;
    if (!self->streams) /* the usual case costs nothing */
        return;
    const char *name = mp_member_text(exchange->arena, pending->arguments, "name");
    const char *company =
        exchange_company(exchange, mp_member_text(exchange->arena, pending->arguments, "company"));
    if (name && company && (!strcmp(tool, "sop_create") || !strcmp(tool, "sop_rollback")))
        kept_changed(self, exchange->arena, "sop", company, name);
    for (size_t i = 0; company && i < sizeof(changes) / sizeof(changes[0]); i++)
        if (!strcmp(changes[i].tool, tool)) {
            streams_list_changed(self, changes[i].what, company);
            if (changes[i].what_too)
                streams_list_changed(self, changes[i].what_too, company);
        }
}

static bool is_open(const gateway_t *self, const kept_row_t *row)
{
    return catalogue_find(self->catalogue, row->get, NULL) != NULL;
}

static const kept_row_t *row_of(const gateway_t *self, const char *kind)
{
    for (size_t i = 0; kind && i < ROWS; i++)
        if (!strcmp(rows[i].kind, kind) && is_open(self, &rows[i]))
            return &rows[i];
    return NULL;
}

/* What only a pillar with words of its own may know of is believed. */
bool kept_is_one(const exchange_t *exchange, const char *text)
{
    size_t at = 0;
    uri_t uri;
    if (get_next_pillar(exchange->gateway, &at))
        return true;
    const kept_row_t *row =
        uri_read(exchange->arena, text, &uri) ? row_of(exchange->gateway, uri.kind) : NULL;
    return row && exchange_offers(exchange, row->pillar);
}

/* ---- Lists ---- */

bool kept_lists(const exchange_t *exchange, const char *kind, size_t place)
{
    bool prompts = !strcmp(kind, "prompts");
    size_t index = place % ROWS;
    if (place >= ROWS && !strcmp(kind, "templates"))
        return false;
    return is_open(exchange->gateway, &rows[index]) &&
           exchange_offers(exchange, rows[index].pillar) &&
           (!prompts || !strcmp(rows[index].kind, "sop"));
}

const char *kept_template(arena_t *arena, size_t index)
{
    buf_t out;
    buf_open(&out, arena);
    buf_printf(&out,
               "{\"uriTemplate\":\"" URI_SCHEME
               "%s/{id}{?company}\",\"name\":\"%s\",\"mimeType\":\"%s\","
               "\"description\":\"%s\"}",
               rows[index].kind, rows[index].kind, rows[index].mime, rows[index].doc);
    return out.data;
}

static peer_call_t list_call(const pending_t *pending, const kept_row_t *row, const char *find)
{
    arena_t *arena = pending->exchange->arena;
    buf_t pairs;
    uint32_t count = 0;
    buf_open(&pairs, arena);
    if (row->pages || row->finds) {
        mp_put_str(&pairs, "limit");
        mp_put_int(&pairs, PAGE);
        count++;
    }
    args_put_text(&pairs, &count, "cursor", row->pages ? pending->cursor : NULL);
    if (row->list_arg)
        args_put_text(&pairs, &count, row->list_arg, row->finds && find ? find : row->list_all);
    args_put_text(&pairs, &count, "company", pending->company);
    return pending_request(pending, row->pillar, row->list, args_map(arena, &pairs, count));
}

/* One whose token names several companies sees what all of them have. */
size_t kept_places(const exchange_t *exchange)
{
    const principal_t *principal = &exchange->principal;
    return ROWS * (principal->any_company || principal->companies.count < 2
                       ? 1
                       : principal->companies.count);
}

static const char *company_at(const exchange_t *exchange, size_t place)
{
    const principal_t *principal = &exchange->principal;
    return principal->any_company || principal->companies.count < 2
               ? NULL
               : principal->companies.items[place / ROWS];
}

bool kept_list_call(pending_t *pending, size_t place, peer_call_t *out)
{
    const kept_row_t *row = &rows[place % ROWS];
    pending->company = company_at(pending->exchange, place);
    if (!row->list)
        return false;
    *out = list_call(pending, row, NULL);
    return true;
}

static void put_resource(arena_t *arena, const kept_row_t *row, bytes_t item, const char *id,
                         const char *company, buf_t *out)
{
    buf_t uri;
    const char *title = row->title ? mp_member_text(arena, item, row->title) : NULL;
    buf_open(&uri, arena);
    uri_put(&uri, row->kind, id, company);
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

void kept_put_fixed(const pending_t *pending, size_t place, buf_t *out, bool *any)
{
    const kept_row_t *row = &rows[place % ROWS];
    for (size_t i = 0; row->fixed && row->fixed[i]; i++) {
        buf_puts(out, *any ? "," : "");
        *any = true;
        put_resource(pending->exchange->arena, row, (bytes_t){0}, row->fixed[i],
                     company_at(pending->exchange, place), out);
    }
}

void kept_put_items(const pending_t *pending, size_t place, bytes_t body, buf_t *out, bool *any)
{
    arena_t *arena = pending->exchange->arena;
    const kept_row_t *row = &rows[place % ROWS];
    bool prompts = !strcmp(pending->kind, "prompts");
    bytes_t items = mp_member(body, row->list_field), item;
    mp_value_t head;
    mp_reader_t reader = mp_reader(items);
    if (!items.size || !mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
        const char *id = mp_member_text(arena, item, row->id);
        bool valid = true;
        if (!id || (prompts && mp_bool(mp_member(item, "valid"), &valid) && !valid))
            continue; /* a procedure with errors is read and mended, not carried out */
        buf_puts(out, *any ? "," : "");
        *any = true;
        if (prompts)
            put_prompt(arena, item, id, out);
        else
            put_resource(arena, row, item, id, company_at(pending->exchange, place), out);
    }
}

bool kept_get_call(pending_t *pending, peer_call_t *out)
{
    const gateway_t *self = pending->exchange->gateway;
    uri_t uri = {.kind = "sop", .id = pending->tool};
    if (strcmp(pending->kind, "prompt") != 0) {
        if (!uri_read(pending->exchange->arena, pending->tool, &uri))
            return false;
        pending->company = uri.company;
    }
    const kept_row_t *row = row_of(self, uri.kind);
    const char *id = uri.id;
    if (!row || !id || !exchange_offers(pending->exchange, row->pillar))
        return false;
    if (row->fixed) { /* nothing else there is */
        size_t i = 0;
        while (row->fixed[i] && strcmp(row->fixed[i], id) != 0)
            i++;
        if (!row->fixed[i])
            return false;
    }
    *out =
        pending_request(pending, row->pillar, row->get,
                        pending_args(pending, row->get_arg, row->get_arg ? id : NULL, NULL, NULL));
    return true;
}

const char *kept_prompt_lacks(const pending_t *pending, bytes_t body)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t inputs = mp_member(body, "inputs"), input;
    if (strcmp(pending->kind, "prompt") != 0)
        return NULL;
    for (uint32_t i = 0; inputs.size && mp_at(inputs, i, &input); i++) {
        const char *name = mp_member_text(arena, input, "name");
        if (name && mp_member_true(input, "required") && !mp_member(pending->arguments, name).size)
            return arena_printf(arena, "params.arguments must have '%.80s': '%.80s' wants it", name,
                                pending->tool);
    }
    return NULL;
}

/* "contents":[…] */
static void put_contents(const pending_t *pending, bytes_t body, buf_t *out)
{
    arena_t *arena = pending->exchange->arena;
    const kept_row_t *row = row_of(pending->exchange->gateway, uri_kind(arena, pending->tool));
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

/* ---- Completion ---- */

static void put_value(completion_t *out, const char *value, const char *begin)
{
    if (strncmp(value, begin, strlen(begin)) != 0)
        return;
    for (size_t i = 0; i < out->count; i++)
        if (!strcmp(out->values[i], value))
            return;
    if (out->count == COMPLETION_MOST)
        out->more = true;
    else
        out->values[out->count++] = arena_strdup(out->arena, value);
}

/* Those of the token; of the lone user, those that this machine has something of. */
static void put_companies(const exchange_t *exchange, const char *begin, completion_t *out)
{
    const principal_t *principal = &exchange->principal;
    const gateway_t *self = exchange->gateway;
    for (size_t i = 0; i < principal->companies.count; i++)
        put_value(out, principal->companies.items[i], begin);
    if (!principal->any_company)
        return;
    put_value(out, actor_default_company(self->actor), begin);
    for (size_t i = 0; i < self->pillar_count; i++) {
        DIR *folder = opendir(
            arena_printf(out->arena, "%s/%s", actor_data_dir(self->actor), self->pillars[i]));
        for (const struct dirent *entry; folder && (entry = readdir(folder));)
            if (entry->d_type == DT_DIR && frame_company_name(entry->d_name))
                put_value(out, entry->d_name, begin);
        if (folder)
            closedir(folder);
    }
}

kept_completion_t kept_complete(pending_t *pending, const char *argument, const char *begin,
                                completion_t *out, peer_call_t *call)
{
    const exchange_t *exchange = pending->exchange;
    const gateway_t *self = exchange->gateway;
    bool prompt = !strcmp(pending->kind, "prompt");
    const kept_row_t *row = row_of(self, prompt ? "sop" : uri_kind(out->arena, pending->tool));
    if (!row || !exchange_offers(exchange, row->pillar))
        return KEPT_NOTHING;
    if (prompt) { /* what earlier runs of the procedure were given */
        pending->at = RUNS_PLACE;
        *call = list_call(pending, &rows[RUNS_PLACE], NULL);
        return KEPT_ASK;
    }
    if (!strcmp(argument, "company")) {
        put_companies(exchange, begin, out);
        return KEPT_DONE;
    }
    if (strcmp(argument, "id") != 0)
        return KEPT_NOTHING;
    for (size_t i = 0; row->fixed && row->fixed[i]; i++)
        put_value(out, row->fixed[i], begin);
    if (!row->list)
        return KEPT_DONE;
    pending->at = (size_t)(row - rows);
    *call = list_call(pending, row, begin);
    return KEPT_ASK;
}

void kept_complete_from(const pending_t *pending, bytes_t body, const char *argument,
                        const char *begin, completion_t *out)
{
    const kept_row_t *row = &rows[pending->at];
    bool prompt = !strcmp(pending->kind, "prompt");
    bytes_t items = mp_member(body, row->list_field), item;
    mp_value_t head;
    mp_reader_t reader = mp_reader(items);
    if (!items.size || !mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
        const char *value;
        if (!prompt)
            value = mp_member_text(out->arena, item, row->id);
        else if (mp_equals(mp_member(item, "sop"), pending->tool))
            value = mp_member_text(out->arena, mp_member(item, "input"), argument);
        else
            value = NULL;
        if (value)
            put_value(out, value, begin);
    }
    out->more |= mp_member(body, "cursor").size > 0 || mp_member_true(body, "more");
}

/* ---- Changes ---- */

void kept_changed(gateway_t *self, arena_t *arena, const char *kind, const char *company,
                  const char *id)
{
    buf_t uri;
    if (!self->streams)
        return;
    buf_open(&uri, arena);
    uri_put(&uri, kind, id, NULL);
    streams_changed_of(self, uri.data, company);
}

void kept_moved(gateway_t *self, const char *path, const char *company)
{
    char uri[64];
    if (!self->streams)
        return;
    snprintf(uri, sizeof(uri), URI_SCHEME "%s", path);
    streams_changed_soon(self, uri, company);
}
