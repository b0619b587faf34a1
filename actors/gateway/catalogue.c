#include "actors/gateway/catalogue.h"

#include <stdlib.h>
#include <string.h>

#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

typedef struct pillar {
    char *name;
    arena_t *arena;            /* NULL: never heard */
    const char **tools;        /* ends with NULL */
    bool *may_be_long;         /* of each */
    role_t *roles;             /* of each: who may call it */
    const char **json_members; /* of each, as describe says; NULL: it has words of its own */
    const char *json;          /* its tools, with commas between; NULL: not listed */
    char digest[65];           /* of the description that it was made of */
    bool is_rich;
    arena_t *rich_arena;     /* NULL: never heard */
    const char **rich_tools; /* ends with NULL */
    bytes_t *rich_schemas;
    const char *rich_json;
} pillar_t;

struct catalogue {
    pillar_t *pillars;
    size_t count;
    arena_t *arena; /* of `json` */
    const char *json;
    bool given; /* somebody has been given a list */
};

catalogue_t *catalogue_new(const char *const *pillars, size_t count)
{
    catalogue_t *catalogue = calloc(1, sizeof(*catalogue));
    if (!catalogue || !(catalogue->pillars = calloc(count + 1, sizeof(pillar_t))))
        abort();
    for (size_t i = 0; i < count; i++)
        if (!(catalogue->pillars[i].name = strdup(pillars[i])))
            abort();
    catalogue->count = count;
    catalogue->arena = arena_new();
    return catalogue;
}

void catalogue_destroy(catalogue_t **handle)
{
    catalogue_t *catalogue = *handle;
    if (!catalogue)
        return;
    for (size_t i = 0; i < catalogue->count; i++) {
        free(catalogue->pillars[i].name);
        arena_destroy(&catalogue->pillars[i].arena);
        arena_destroy(&catalogue->pillars[i].rich_arena);
    }
    arena_destroy(&catalogue->arena);
    free(catalogue->pillars);
    free(catalogue);
    *handle = NULL;
}

static pillar_t *find(const catalogue_t *catalogue, const char *name)
{
    for (size_t i = 0; i < catalogue->count; i++)
        if (!strcmp(catalogue->pillars[i].name, name))
            return &catalogue->pillars[i];
    return NULL;
}

static bool flag(bytes_t row, const char *name)
{
    bytes_t field;
    bool value = false;
    return mp_get(row, name, &field) && mp_bool(field, &value) && value;
}

static void put_flag(buf_t *out, const char *name, bool value)
{
    buf_printf(out, "\"%s\":%s", name, value ? "true" : "false");
}

static void put_text(buf_t *out, bytes_t row, const char *name)
{
    bytes_t field;
    if (!mp_get(row, name, &field) || err_is(json_from_msgpack(field, JSON_COMPACT, out)))
        buf_puts(out, "null");
}

static void put_tool(buf_t *out, bytes_t row)
{
    buf_puts(out, "{\"name\":");
    put_text(out, row, "name");
    buf_puts(out, ",\"description\":");
    put_text(out, row, "doc");
    buf_puts(out, ",\"inputSchema\":");
    put_text(out, row, "input");
    buf_puts(out, ",\"outputSchema\":");
    put_text(out, row, "output");
    buf_puts(out, ",\"annotations\":{");
    put_flag(out, "readOnlyHint", flag(row, "reads"));
    buf_puts(out, ",");
    put_flag(out, "destructiveHint", flag(row, "destructive"));
    buf_puts(out, ",");
    put_flag(out, "idempotentHint", flag(row, "idempotent") || flag(row, "reads"));
    buf_puts(out, ",");
    put_flag(out, "openWorldHint", flag(row, "open_world"));
    buf_puts(out,
             flag(row, "may_be_long") ? "},\"execution\":{\"taskSupport\":\"optional\"}}" : "}}");
}

static bool has_method(bytes_t methods, const char *name)
{
    bytes_t row, field;
    mp_value_t head;
    mp_reader_t reader = mp_reader(methods);
    if (!mp_read(&reader, &head))
        return false;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &row); i++)
        if (mp_get(row, "name", &field) && mp_equals(field, name))
            return true;
    return false;
}

bool catalogue_learn(catalogue_t *catalogue, const char *name, bytes_t description)
{
    pillar_t *pillar = find(catalogue, name);
    bytes_t methods, row, field;
    mp_reader_t reader;
    mp_value_t head;
    if (!pillar || !mp_get(description, "methods", &methods))
        return false;
    reader = mp_reader(methods);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return false;
    arena_t *arena = arena_new();
    const char *digest = digest_hex(arena, methods);
    if (pillar->json && !strcmp(pillar->digest, digest)) { /* the usual case */
        arena_destroy(&arena);
        return false;
    }
    buf_t json;
    buf_open(&json, arena);
    const char **tools = ARENA_ARRAY(arena, const char *, head.count + 1);
    bool *may_be_long = ARENA_ARRAY(arena, bool, head.count + 1);
    role_t *roles = ARENA_ARRAY(arena, role_t, head.count + 1);
    const char **json_members = ARENA_ARRAY(arena, const char *, head.count + 1);
    size_t count = 0;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &row); i++) {
        if (!flag(row, "tool") || !mp_get(row, "name", &field))
            continue;
        if (count)
            buf_puts(&json, ",");
        may_be_long[count] = flag(row, "may_be_long");
        roles[count] = flag(row, "admin")   ? ROLE_ADMIN
                       : flag(row, "reads") ? ROLE_READER
                                            : ROLE_OPERATOR;
        tools[count] = mp_text(arena, field);
        if (mp_get(row, "json", &field))
            json_members[count] = mp_text(arena, field);
        count++;
        put_tool(&json, row);
    }
    bool changed =
        pillar->json ? strcmp(pillar->json, json.data) != 0 : catalogue->given && count > 0;
    memcpy(pillar->digest, digest, sizeof(pillar->digest));
    pillar->is_rich = has_method(methods, arena_printf(arena, "%s_mcp_list", name));
    arena_destroy(&pillar->arena);
    pillar->arena = arena;
    pillar->tools = tools;
    pillar->may_be_long = may_be_long;
    pillar->roles = roles;
    pillar->json_members = json_members;
    pillar->json = json.data;
    catalogue->json = NULL;
    return changed;
}

bool catalogue_is_rich(const catalogue_t *catalogue, const char *name)
{
    const pillar_t *pillar = find(catalogue, name);
    return pillar && pillar->is_rich;
}

bool catalogue_learn_rich(catalogue_t *catalogue, const char *name, bytes_t reply)
{
    pillar_t *pillar = find(catalogue, name);
    bytes_t items, item, field;
    mp_value_t head;
    if (!pillar || !mp_get(reply, "items", &items))
        return false;
    arena_t *arena = arena_new();
    items.data = arena_copy(arena, items.data, items.size);
    mp_reader_t reader = mp_reader(items);
    buf_t json;
    buf_open(&json, arena);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY) {
        arena_destroy(&arena);
        return false;
    }
    const char **tools = ARENA_ARRAY(arena, const char *, head.count + 1);
    bytes_t *schemas = ARENA_ARRAY(arena, bytes_t, head.count + 1);
    size_t count = 0;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++) {
        if (!mp_get(item, "name", &field) || !(tools[count] = mp_text(arena, field)))
            continue;
        mp_get(item, "inputSchema", &schemas[count]);
        if (count++)
            buf_puts(&json, ",");
        json_from_msgpack(item, JSON_COMPACT, &json);
    }
    tools[count] = NULL;
    bool changed = pillar->rich_json ? strcmp(pillar->rich_json, json.data) != 0
                                     : catalogue->given && count > 0;
    arena_destroy(&pillar->rich_arena);
    pillar->rich_arena = arena;
    pillar->rich_tools = tools;
    pillar->rich_schemas = schemas;
    pillar->rich_json = json.data;
    catalogue->json = NULL;
    return changed;
}

bytes_t catalogue_schema(const catalogue_t *catalogue, const char *tool)
{
    for (size_t i = 0; i < catalogue->count; i++) {
        const pillar_t *pillar = &catalogue->pillars[i];
        for (size_t j = 0; pillar->rich_tools && pillar->rich_tools[j]; j++)
            if (!strcmp(pillar->rich_tools[j], tool))
                return pillar->rich_schemas[j];
    }
    return (bytes_t){0};
}

bool catalogue_knows(const catalogue_t *catalogue, const char *name)
{
    const pillar_t *pillar = find(catalogue, name);
    return pillar && pillar->json;
}

bool catalogue_complete(const catalogue_t *catalogue)
{
    for (size_t i = 0; i < catalogue->count; i++)
        if (!catalogue->pillars[i].arena ||
            (catalogue->pillars[i].is_rich && !catalogue->pillars[i].rich_arena))
            return false;
    return true;
}

static bool among(const char *const *names, const char *name)
{
    for (; names && *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

const char *catalogue_find(const catalogue_t *catalogue, const char *tool, bool *rich)
{
    for (size_t i = 0; i < catalogue->count; i++) {
        const pillar_t *pillar = &catalogue->pillars[i];
        bool is_rich = among(pillar->rich_tools, tool);
        if (!is_rich && !among(pillar->tools, tool))
            continue;
        if (rich)
            *rich = is_rich;
        return pillar->name;
    }
    return NULL;
}

static void put_pillar(buf_t *out, const pillar_t *pillar, bool *any)
{
    const char *const parts[] = {pillar->json, pillar->rich_json};
    for (int i = 0; i < 2; i++)
        if (parts[i] && *parts[i]) {
            buf_puts(out, *any ? "," : "");
            buf_puts(out, parts[i]);
            *any = true;
        }
}

/* NULL: no pillar has it among the tools that are made of rows. */
static const pillar_t *pillar_with(const catalogue_t *catalogue, const char *tool, size_t *at)
{
    for (size_t i = 0; i < catalogue->count; i++) {
        const pillar_t *pillar = &catalogue->pillars[i];
        for (*at = 0; pillar->tools && pillar->tools[*at]; ++*at)
            if (!strcmp(pillar->tools[*at], tool))
                return pillar;
    }
    return NULL;
}

bool catalogue_is_long(const catalogue_t *catalogue, const char *tool)
{
    size_t at;
    const pillar_t *pillar = pillar_with(catalogue, tool, &at);
    return pillar && pillar->may_be_long[at];
}

role_t catalogue_role(const catalogue_t *catalogue, const char *tool)
{
    size_t at;
    const pillar_t *pillar = pillar_with(catalogue, tool, &at);
    return pillar ? pillar->roles[at] : ROLE_READER;
}

bytes_t catalogue_json_part(const catalogue_t *catalogue, const char *tool, bytes_t reply)
{
    size_t at;
    bytes_t part = {0};
    const pillar_t *pillar = pillar_with(catalogue, tool, &at);
    const char *member = pillar ? pillar->json_members[at] : NULL;
    if (!member)
        return (bytes_t){0};
    return strcmp(member, "*") == 0 ? reply : mp_get(reply, member, &part) ? part : (bytes_t){0};
}

bool catalogue_forget(catalogue_t *catalogue, const char *name)
{
    pillar_t *pillar = find(catalogue, name);
    if (!pillar || (!pillar->json && !pillar->rich_json))
        return false;
    bool any = (pillar->json && *pillar->json) || (pillar->rich_json && *pillar->rich_json);
    pillar->json = pillar->rich_json = NULL;
    pillar->tools = pillar->rich_tools = NULL;
    pillar->is_rich = false;
    catalogue->json = NULL;
    return any;
}

const char *catalogue_json_of(catalogue_t *catalogue,
                              bool (*offers)(const void *ctx, const char *pillar), const void *ctx,
                              arena_t *arena)
{
    bool any = false;
    buf_t out;
    catalogue->given = true;
    buf_open(&out, arena);
    buf_puts(&out, "\"tools\":[");
    for (size_t i = 0; i < catalogue->count; i++)
        if (offers(ctx, catalogue->pillars[i].name))
            put_pillar(&out, &catalogue->pillars[i], &any);
    buf_puts(&out, "]");
    return out.data;
}

const char *catalogue_json(catalogue_t *catalogue)
{
    bool any = false;
    catalogue->given = true;
    if (catalogue->json)
        return catalogue->json;
    arena_reset(catalogue->arena);
    buf_t out;
    buf_open(&out, catalogue->arena);
    buf_puts(&out, "\"tools\":[");
    for (size_t i = 0; i < catalogue->count; i++)
        put_pillar(&out, &catalogue->pillars[i], &any);
    buf_puts(&out, "]");
    catalogue->json = out.data;
    return out.data;
}
