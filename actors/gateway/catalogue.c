#include "actors/gateway/catalogue.h"

#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

typedef struct pillar {
    char *name;
    arena_t *arena;     /* NULL: never heard */
    const char **tools; /* ends with NULL */
    const char *json;   /* its tools, with commas between */
} pillar_t;

struct catalogue {
    pillar_t *pillars;
    size_t count;
    arena_t *arena; /* of `json` */
    const char *json;
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
    buf_puts(out, "}}");
}

void catalogue_learn(catalogue_t *catalogue, const char *name, bytes_t description)
{
    pillar_t *pillar = find(catalogue, name);
    bytes_t methods, row, field;
    mp_reader_t reader;
    mp_value_t head;
    if (!pillar || !mp_get(description, "methods", &methods))
        return;
    reader = mp_reader(methods);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    arena_t *arena = arena_new();
    buf_t json;
    buf_open(&json, arena);
    const char **tools = ARENA_ARRAY(arena, const char *, head.count + 1);
    size_t count = 0;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &row); i++) {
        if (!flag(row, "tool") || !mp_get(row, "name", &field))
            continue;
        if (count)
            buf_puts(&json, ",");
        tools[count++] = mp_text(arena, field);
        put_tool(&json, row);
    }
    arena_destroy(&pillar->arena);
    pillar->arena = arena;
    pillar->tools = tools;
    pillar->json = json.data;
    catalogue->json = NULL;
}

bool catalogue_knows(const catalogue_t *catalogue, const char *name)
{
    const pillar_t *pillar = find(catalogue, name);
    return pillar && pillar->arena;
}

bool catalogue_complete(const catalogue_t *catalogue)
{
    for (size_t i = 0; i < catalogue->count; i++)
        if (!catalogue->pillars[i].arena)
            return false;
    return true;
}

const char *catalogue_find(const catalogue_t *catalogue, const char *tool)
{
    for (size_t i = 0; i < catalogue->count; i++)
        for (const char **at = catalogue->pillars[i].tools; at && *at; at++)
            if (!strcmp(*at, tool))
                return catalogue->pillars[i].name;
    return NULL;
}

const char *catalogue_json(catalogue_t *catalogue)
{
    if (catalogue->json)
        return catalogue->json;
    arena_reset(catalogue->arena);
    buf_t out;
    buf_open(&out, catalogue->arena);
    buf_puts(&out, "\"tools\":[");
    bool any = false;
    for (size_t i = 0; i < catalogue->count; i++) {
        const char *json = catalogue->pillars[i].json;
        if (!json || !*json)
            continue;
        buf_printf(&out, "%s", any ? "," : "");
        buf_puts(&out, json);
        any = true;
    }
    buf_puts(&out, "]");
    catalogue->json = out.data;
    return out.data;
}
