#include "actors/agent/general.h"

#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

enum {
    SOURCES_MOST = 200,
    DEEPEST = 16,
    SHORTEST_PART = 3 /* a shorter text inside another may be there by chance */
};

/* A value that every run has under the same reference. */
typedef struct source {
    const char *ref;
    bytes_t *values; /* one for each run */
} source_t;

struct sources {
    arena_t *arena;
    size_t runs;
    source_t items[SOURCES_MOST];
    size_t count;
};

sources_t *general_open(arena_t *arena, size_t runs)
{
    sources_t *sources = ARENA_NEW(arena, sources_t);
    *sources = (sources_t){.arena = arena, .runs = runs};
    return sources;
}

static bool type_is(bytes_t value, mp_type_t type)
{
    mp_type_t have;
    return value.size && mp_type_of(value, &have) && have == type;
}

static bool plain_key(const char *text)
{
    return *text &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") ==
               strlen(text);
}

static bool scalar(bytes_t value)
{
    return value.size && !type_is(value, MP_MAP) && !type_is(value, MP_ARRAY) &&
           !type_is(value, MP_NIL) && !type_is(value, MP_BIN);
}

static void add_source(sources_t *sources, const char *ref, const bytes_t *values)
{
    if (sources->count == SOURCES_MOST)
        return;
    for (size_t i = 0; i < sources->runs; i++)
        if (!scalar(values[i]))
            return;
    sources->items[sources->count++] =
        (source_t){ref, arena_copy(sources->arena, values, sources->runs * sizeof(*values))};
}

void general_add(sources_t *sources, const char *ref, const bytes_t *values)
{
    mp_reader_t reader = mp_reader(values[0]);
    mp_value_t head;
    bytes_t key;
    add_source(sources, ref, values);
    if (!type_is(values[0], MP_MAP) || !mp_read(&reader, &head))
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key) && mp_skip(&reader); i++) {
        bytes_t *fields = ARENA_ARRAY(sources->arena, bytes_t, sources->runs);
        const char *name = mp_text(sources->arena, key);
        bool all = name && plain_key(name);
        for (size_t k = 0; k < sources->runs && all; k++)
            all = mp_get(values[k], name, &fields[k]);
        if (all)
            add_source(sources, arena_printf(sources->arena, "%s.%s", ref, name), fields);
    }
}

typedef struct general {
    sources_t *sources;
    buf_t *out;        /* JSON with references */
    const char *where; /* what could not be explained */
} general_t;

static bool same_in_all(const bytes_t *values, const bytes_t *others, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!mp_same(values[i], others[i]))
            return false;
    return true;
}

/* A reference in it would be read as one. */
static void put_literal(general_t *self, bytes_t value)
{
    arena_t *arena = self->sources->arena;
    buf_t json;
    buf_open(&json, arena);
    if (err_is(json_from_msgpack(value, JSON_COMPACT, &json)))
        return;
    for (size_t i = 0; i < json.size; i++) {
        if (json.data[i] == '{' && i + 1 < json.size && json.data[i + 1] == '{')
            buf_puts(self->out, "\\\\");
        buf_put(self->out, json.data + i, 1);
    }
}

static const char *replaced(arena_t *arena, const char *text, const char *part, const char *by)
{
    buf_t out;
    buf_open(&out, arena);
    const char *at = text, *next;
    for (; (next = strstr(at, part)); at = next + strlen(part)) {
        buf_put(&out, at, (size_t)(next - at));
        buf_puts(&out, by);
    }
    buf_puts(&out, at);
    return out.data;
}

/* Texts that hold values of the same sources at the same places. */
static bool put_template(general_t *self, const bytes_t *values)
{
    sources_t *sources = self->sources;
    arena_t *arena = sources->arena;
    const char **texts = ARENA_ARRAY(arena, const char *, sources->runs);
    for (size_t i = 0; i < sources->runs; i++) {
        texts[i] = mp_text(arena, values[i]);
        if (!texts[i] || strstr(texts[i], "{{"))
            return false;
    }
    for (size_t k = 0; k < sources->count; k++) {
        const source_t *source = &sources->items[k];
        for (size_t i = 0; i < sources->runs; i++) {
            const char *part =
                type_is(source->values[i], MP_STR) ? mp_text(arena, source->values[i]) : NULL;
            if (part && strlen(part) >= SHORTEST_PART)
                texts[i] =
                    replaced(arena, texts[i], part, arena_printf(arena, "{{%s}}", source->ref));
        }
    }
    for (size_t i = 1; i < sources->runs; i++)
        if (strcmp(texts[i], texts[0]) != 0)
            return false;
    json_put_string(self->out, texts[0], strlen(texts[0]));
    return true;
}

static bool generalise(general_t *self, const bytes_t *values, const char *where, int depth);

static bool put_members(general_t *self, const bytes_t *values, const char *where, int depth)
{
    sources_t *sources = self->sources;
    mp_reader_t reader = mp_reader(values[0]);
    mp_value_t head, other;
    bytes_t key, *fields = ARENA_ARRAY(sources->arena, bytes_t, sources->runs);
    bool map = type_is(values[0], MP_MAP);
    if (!mp_read(&reader, &head))
        return false;
    for (size_t k = 1; k < sources->runs; k++) {
        mp_reader_t its = mp_reader(values[k]);
        if (!mp_read(&its, &other) || other.type != head.type || other.count != head.count)
            return false;
    }
    buf_puts(self->out, map ? "{" : "[");
    for (uint32_t i = 0; i < head.count; i++) {
        const char *name = "";
        if (map && (!mp_slice(&reader, &key) || !mp_skip(&reader) ||
                    !(name = mp_text(sources->arena, key))))
            return false;
        for (size_t k = 0; k < sources->runs; k++)
            if (!(map ? mp_get(values[k], name, &fields[k]) : mp_at(values[k], i, &fields[k])))
                return false;
        buf_puts(self->out, i ? ", " : "");
        if (map) {
            json_put_string(self->out, name, strlen(name));
            buf_puts(self->out, ": ");
        }
        if (!generalise(self, fields,
                        map ? arena_printf(sources->arena, "%s.%s", where, name) : where,
                        depth + 1))
            return false;
    }
    buf_puts(self->out, map ? "}" : "]");
    return true;
}

static bool generalise(general_t *self, const bytes_t *values, const char *where, int depth)
{
    sources_t *sources = self->sources;
    bool same = true;
    for (size_t i = 1; i < sources->runs && same; i++)
        same = mp_same(values[i], values[0]);
    if (same) {
        put_literal(self, values[0]);
        return true;
    }
    for (size_t i = 0; i < sources->count; i++)
        if (same_in_all(values, sources->items[i].values, sources->runs)) {
            buf_printf(self->out, "\"{{%s}}\"", sources->items[i].ref);
            return true;
        }
    bool nested = type_is(values[0], MP_MAP) || type_is(values[0], MP_ARRAY);
    if (nested ? depth < DEEPEST && put_members(self, values, where, depth)
               : type_is(values[0], MP_STR) && put_template(self, values))
        return true;
    if (!self->where)
        self->where = where;
    return false;
}

bool general_find(sources_t *sources, const bytes_t *values, buf_t *json, const char **where)
{
    general_t self = {.sources = sources, .out = json};
    bool found = generalise(&self, values, "", 0);
    *where = self.where && *self.where ? self.where + 1 : "the value";
    return found;
}
