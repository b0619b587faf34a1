#include "proto/describe.h"

#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

/* ---- JSON Schema 2020-12 ---- */

static void pair_text(buf_t *out, const char *key, const char *value)
{
    mp_put_str(out, key);
    mp_put_str(out, value);
}

static void pair_int(buf_t *out, const char *key, int64_t value)
{
    mp_put_str(out, key);
    mp_put_int(out, value);
}

/* The pairs of one property; counted by writing them to a buffer of their own first. */
typedef struct pairs {
    buf_t buf;
    uint32_t count;
} pairs_t;

static void add_text(pairs_t *pairs, const char *key, const char *value)
{
    pair_text(&pairs->buf, key, value);
    pairs->count++;
}

static void add_int(pairs_t *pairs, const char *key, int64_t value)
{
    pair_int(&pairs->buf, key, value);
    pairs->count++;
}

static void add_limits(pairs_t *pairs, const field_t *field, const char *least, const char *most)
{
    if (!field->min && !field->max)
        return;
    add_int(pairs, least, field->min);
    if (field->max || field->min < 0)
        add_int(pairs, most, field->max);
}

static void add_default(pairs_t *pairs, const field_t *field)
{
    if (!*field->def)
        return;
    mp_put_str(&pairs->buf, "default");
    pairs->count++;
    switch (field->type) {
    case FIELD_INT:
        mp_put_int(&pairs->buf, strtoll(field->def, NULL, 10));
        break;
    case FIELD_REAL:
        mp_put_real(&pairs->buf, strtod(field->def, NULL));
        break;
    case FIELD_BOOL:
        mp_put_bool(&pairs->buf, !strcmp(field->def, "true"));
        break;
    default:
        mp_put_str(&pairs->buf, field->def);
    }
}

static void add_items(pairs_t *pairs, const char *type)
{
    mp_put_str(&pairs->buf, "items");
    mp_put_map(&pairs->buf, 1);
    pair_text(&pairs->buf, "type", type);
    pairs->count++;
}

static void add_enum(pairs_t *pairs, const field_t *field)
{
    uint32_t count = 0;
    while (field->names[count])
        count++;
    mp_put_str(&pairs->buf, "enum");
    mp_put_array(&pairs->buf, count);
    for (uint32_t i = 0; i < count; i++)
        mp_put_str(&pairs->buf, field->names[i]);
    pairs->count++;
}

static void schema_pairs(const record_t *record, pairs_t *pairs);

static void add_type(pairs_t *pairs, const field_t *field)
{
    switch (field->type) {
    case FIELD_STR:
        add_text(pairs, "type", "string");
        add_limits(pairs, field, "minLength", "maxLength");
        break;
    case FIELD_COMPANY:
        add_text(pairs, "type", "string");
        add_text(pairs, "pattern", "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$");
        break;
    case FIELD_BYTES:
        add_text(pairs, "type", "string");
        add_text(pairs, "contentEncoding", "base64");
        break;
    case FIELD_INT:
        add_text(pairs, "type", "integer");
        add_limits(pairs, field, "minimum", "maximum");
        break;
    case FIELD_TIME:
        mp_put_str(&pairs->buf, "type");
        mp_put_array(&pairs->buf, 2);
        mp_put_str(&pairs->buf, "integer");
        mp_put_str(&pairs->buf, "string");
        mp_put_str(&pairs->buf, "examples");
        mp_put_array(&pairs->buf, 2);
        mp_put_str(&pairs->buf, "2026-01-31T12:00:00Z");
        mp_put_int(&pairs->buf, INT64_C(1769860800000));
        pairs->count += 2;
        break;
    case FIELD_REAL:
        add_text(pairs, "type", "number");
        add_limits(pairs, field, "minimum", "maximum");
        break;
    case FIELD_BOOL:
        add_text(pairs, "type", "boolean");
        break;
    case FIELD_ENUM:
        add_text(pairs, "type", "string");
        add_enum(pairs, field);
        break;
    case FIELD_VEC:
        add_text(pairs, "type", "array");
        add_items(pairs, "number");
        add_limits(pairs, field, "minItems", "maxItems");
        break;
    case FIELD_STRS:
        add_text(pairs, "type", "array");
        add_items(pairs, "string");
        add_limits(pairs, field, "minItems", "maxItems");
        break;
    case FIELD_REC:
        schema_pairs(field->sub, pairs);
        break;
    case FIELD_LIST:
        add_text(pairs, "type", "array");
        mp_put_str(&pairs->buf, "items");
        describe_schema(field->sub, &pairs->buf);
        pairs->count++;
        add_limits(pairs, field, "minItems", "maxItems");
        break;
    case FIELD_ANY:
    case FIELD_JSON:
        break; /* anything */
    }
}

static void put_pairs(buf_t *out, const pairs_t *pairs)
{
    mp_put_map(out, pairs->count);
    buf_put(out, pairs->buf.data, pairs->buf.size);
}

static void put_property(buf_t *out, const field_t *field)
{
    pairs_t pairs = {.count = 0};
    buf_open(&pairs.buf, out->arena);
    add_type(&pairs, field);
    add_text(&pairs, "description", field->doc);
    add_default(&pairs, field);
    mp_put_str(out, field->name);
    put_pairs(out, &pairs);
}

static void schema_pairs(const record_t *record, pairs_t *pairs)
{
    uint32_t count = 0, must = 0;
    for (const field_t *field = record->fields(); field->name; field++) {
        count++;
        must += field->must;
    }
    add_text(pairs, "type", "object");
    mp_put_str(&pairs->buf, "properties");
    mp_put_map(&pairs->buf, count);
    for (const field_t *field = record->fields(); field->name; field++)
        put_property(&pairs->buf, field);
    pairs->count++;
    if (must) {
        mp_put_str(&pairs->buf, "required");
        mp_put_array(&pairs->buf, must);
        for (const field_t *field = record->fields(); field->name; field++)
            if (field->must)
                mp_put_str(&pairs->buf, field->name);
        pairs->count++;
    }
    mp_put_str(&pairs->buf, "additionalProperties");
    mp_put_bool(&pairs->buf, false);
    pairs->count++;
}

void describe_schema(const record_t *record, buf_t *out)
{
    pairs_t pairs = {.count = 0};
    buf_open(&pairs.buf, out->arena);
    schema_pairs(record, &pairs);
    put_pairs(out, &pairs);
}

/* ---- Markdown ---- */

const char *describe_type(const field_t *field, arena_t *arena)
{
    switch (field->type) {
    case FIELD_STR:
        return "text";
    case FIELD_COMPANY:
        return "company";
    case FIELD_BYTES:
        return "bytes";
    case FIELD_INT:
        return "integer";
    case FIELD_TIME:
        return "time";
    case FIELD_REAL:
        return "number";
    case FIELD_BOOL:
        return "boolean";
    case FIELD_VEC:
        return "list of numbers";
    case FIELD_STRS:
        return "list of text";
    case FIELD_REC:
        return field->sub->name;
    case FIELD_LIST:
        return arena_printf(arena, "list of %s", field->sub->name);
    case FIELD_ANY:
    case FIELD_JSON:
        return "anything";
    case FIELD_ENUM: {
        buf_t list;
        buf_open(&list, arena);
        for (int i = 0; field->names[i]; i++)
            buf_printf(&list, "%s%s", i ? ", " : "", field->names[i]);
        return list.data;
    }
    }
    return "";
}

static const char *limits_text(const field_t *field, arena_t *arena)
{
    if (!field->min && !field->max)
        return "";
    if (!field->max && field->min > 0)
        return arena_printf(arena, "from %lld", (long long)field->min);
    return arena_printf(arena, "%lld to %lld", (long long)field->min, (long long)field->max);
}

/* A bar would end the cell. */
static void put_cell(buf_t *out, const char *text)
{
    buf_puts(out, " ");
    for (; *text; text++) {
        if (*text == '|')
            buf_puts(out, "\\");
        buf_put(out, text, 1);
    }
    buf_puts(out, " |");
}

static void put_row(buf_t *out, const field_t *field)
{
    buf_printf(out, "| `%s` |", field->name);
    put_cell(out, describe_type(field, out->arena));
    put_cell(out, *field->def ? field->def : field->must ? "required" : "");
    put_cell(out, limits_text(field, out->arena));
    put_cell(out, field->doc);
    buf_puts(out, "\n");
}

/* Is this the first field of its record with that record inside? */
static bool first_of_its_kind(const record_t *record, const field_t *field)
{
    for (const field_t *other = record->fields(); other != field; other++)
        if (other->sub == field->sub)
            return false;
    return true;
}

void describe_markdown(const record_t *record, buf_t *out)
{
    if (!record->fields()->name) {
        buf_puts(out, "None.\n");
        return;
    }
    buf_puts(out, "| name | type | default | limits | |\n|---|---|---|---|---|\n");
    for (const field_t *field = record->fields(); field->name; field++)
        put_row(out, field);
    for (const field_t *field = record->fields(); field->name; field++)
        if (field->sub && first_of_its_kind(record, field)) {
            buf_printf(out, "\n`%s` is:\n\n", field->sub->name);
            describe_markdown(field->sub, out);
        }
}
