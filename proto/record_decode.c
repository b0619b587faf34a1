/* Decoding: msgpack from anywhere into a struct. What is wrong is told with its place in the input,
 * what was expected and what was found. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"
#include "proto/record_parts.h"

/* ---- Sentences ---- */

/* Where in the input we are: "memories[2].id". */
typedef struct place {
    const struct place *outer;
    const char *name;
    size_t index;
    bool indexed;
} place_t;

typedef struct decoder {
    arena_t *arena;
    const char *what;   /* "argument" */
    size_t used_before; /* of the arena */
} decoder_t;

static void put_place(buf_t *out, const place_t *place)
{
    if (place->outer) {
        put_place(out, place->outer);
        if (!place->indexed)
            buf_puts(out, ".");
    }
    if (place->indexed)
        buf_printf(out, "[%zu]", place->index);
    else
        buf_puts(out, place->name);
}

static const char *place_text(const decoder_t *in, const place_t *place)
{
    buf_t out;
    buf_open(&out, in->arena);
    put_place(&out, place);
    return out.data;
}

/* Foreign text for a sentence: short, and without control characters. */
static const char *shown(arena_t *arena, const char *text, size_t size)
{
    buf_t out;
    buf_open(&out, arena);
    size_t length = size > 80 ? 80 : size;
    while (length < size && length && ((unsigned char)text[length] & 0xc0) == 0x80)
        length--;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f)
            buf_printf(&out, "\\x%02x", c);
        else
            buf_put(&out, &text[i], 1);
    }
    if (length < size)
        buf_puts(&out, "...");
    return mp_utf8(out.data, out.size) ? out.data : "(not UTF-8)";
}

static const char *value_text(arena_t *arena, const mp_value_t *value)
{
    switch (value->type) {
    case MP_NIL:
        return "nothing";
    case MP_BOOL:
        return value->boolean ? "true" : "false";
    case MP_INT:
        return arena_printf(arena, "%lld", (long long)value->integer);
    case MP_UINT:
        return arena_printf(arena, "%llu", (unsigned long long)value->natural);
    case MP_REAL:
        return arena_printf(arena, "%.15g", value->real);
    case MP_STR:
        return arena_printf(arena, "the text '%s'", shown(arena, value->text, value->size));
    case MP_BIN:
        return "bytes";
    case MP_ARRAY:
        return "a list";
    case MP_MAP:
        return "an object";
    }
    return "something else";
}

static err_t wrong(const decoder_t *in, const place_t *place, const char *wanted,
                   const mp_value_t *value)
{
    return err_make(in->arena, ERR_ARGUMENT, "%s '%s' must be %s, not %s", in->what,
                    place_text(in, place), wanted, value_text(in->arena, value));
}

static err_t out_of_range(const decoder_t *in, const place_t *place, const char *unit,
                          const field_t *field, int64_t got)
{
    return err_make(in->arena, ERR_ARGUMENT, "%s '%s' must have %lld to %lld %s, not %lld",
                    in->what, place_text(in, place), (long long)field->min, (long long)field->max,
                    unit, (long long)got);
}

/* ---- Decoding one value ---- */

static err_t decode_record(const decoder_t *in, const place_t *place, const record_t *record,
                           mp_reader_t *reader, void *out);

static const char *range_text(const decoder_t *in, const field_t *field, const char *thing)
{
    if (!record_limited(field))
        return thing;
    if (record_endless(field))
        return arena_printf(in->arena, "%s of at least %lld", thing, (long long)field->min);
    return arena_printf(in->arena, "%s from %lld to %lld", thing, (long long)field->min,
                        (long long)field->max);
}

static err_t check_size(const decoder_t *in, const place_t *place, const field_t *field,
                        size_t size, int64_t otherwise, const char *unit)
{
    field_t bounds = {.min = field->min, .max = record_largest(field, otherwise)};
    if ((int64_t)size < bounds.min || (int64_t)size > bounds.max)
        return out_of_range(in, place, unit, &bounds, (int64_t)size);
    return err_ok();
}

static err_t decode_text(const decoder_t *in, const place_t *place, const mp_value_t *value,
                         const char **out)
{
    if (value->type != MP_STR)
        return wrong(in, place, "text", value);
    if (!mp_utf8(value->text, value->size))
        return err_make(in->arena, ERR_ARGUMENT, "%s '%s' is not valid UTF-8", in->what,
                        place_text(in, place));
    if (memchr(value->text, 0, value->size))
        return err_make(in->arena, ERR_ARGUMENT, "%s '%s' has a NUL character inside", in->what,
                        place_text(in, place));
    *out = arena_strndup(in->arena, value->text, value->size);
    return err_ok();
}

static bool whole(const mp_value_t *value, int64_t *out)
{
    if (value->type == MP_INT) {
        *out = value->integer;
        return true;
    }
    if (value->type != MP_REAL || !(fabs(value->real) <= 9007199254740992.0) ||
        value->real != floor(value->real))
        return false;
    *out = (int64_t)value->real;
    return true;
}

static err_t decode_int(const decoder_t *in, const place_t *place, const field_t *field,
                        const mp_value_t *value, int64_t *out)
{
    if (!whole(value, out) || !record_within(field, *out))
        return wrong(in, place, range_text(in, field, "a whole number"), value);
    return err_ok();
}

static bool time_of(const mp_value_t *value, int64_t *out)
{
    char text[48]; /* longer is no time */
    if (value->type != MP_STR)
        return whole(value, out);
    if (value->size >= sizeof(text) || memchr(value->text, 0, value->size))
        return false;
    memcpy(text, value->text, value->size);
    text[value->size] = '\0';
    return record_time(text, out);
}

static err_t decode_time(const decoder_t *in, const place_t *place, const field_t *field,
                         const mp_value_t *value, int64_t *out)
{
    if (!time_of(value, out))
        return wrong(in, place,
                     "a time: milliseconds since 1970, or text such as 2026-01-31T12:00:00Z",
                     value);
    if (!record_within(field, *out))
        return wrong(in, place,
                     arena_printf(in->arena, "a time from %s to %s",
                                  record_time_text(in->arena, field->min),
                                  record_time_text(in->arena, field->max)),
                     value);
    return err_ok();
}

static err_t decode_real(const decoder_t *in, const place_t *place, const field_t *field,
                         const mp_value_t *value, double *out)
{
    if (value->type == MP_INT)
        *out = (double)value->integer;
    else if (value->type == MP_UINT)
        *out = (double)value->natural;
    else if (value->type == MP_REAL && isfinite(value->real))
        *out = value->real;
    else
        return wrong(in, place, range_text(in, field, "a number"), value);
    if (!record_within_real(field, *out))
        return wrong(in, place, range_text(in, field, "a number"), value);
    return err_ok();
}

static const char *one_of(arena_t *arena, const char *const *names)
{
    buf_t list;
    buf_open(&list, arena);
    for (int i = 0; names[i]; i++)
        buf_printf(&list, "%s%s", i ? ", " : "one of ", names[i]);
    return list.data;
}

static bool is_name(const mp_value_t *text, const char *name)
{
    return strlen(name) == text->size && !memcmp(name, text->text, text->size);
}

static err_t decode_enum(const decoder_t *in, const place_t *place, const field_t *field,
                         const mp_value_t *value, int *out)
{
    for (int i = 0; value->type == MP_STR && field->names[i]; i++)
        if (is_name(value, field->names[i])) {
            *out = i;
            return err_ok();
        }
    return wrong(in, place, one_of(in->arena, field->names), value);
}

static err_t decode_vec(const decoder_t *in, const place_t *place, const field_t *field,
                        const mp_value_t *value, mp_reader_t *reader, vec_t *out)
{
    if (value->type != MP_ARRAY)
        return wrong(in, place, "a list of numbers", value);
    err_t err = check_size(in, place, field, value->count, RECORD_LIST_LARGEST, "numbers");
    if (err_is(err))
        return err;
    float *items = ARENA_ARRAY(in->arena, float, value->count + 1);
    for (uint32_t i = 0; i < value->count; i++) {
        place_t at = {.outer = place, .index = i, .indexed = true};
        field_t any = {0};
        double number;
        mp_value_t item;
        if (!mp_read(reader, &item))
            return err_of(ERR_PARSE, "the msgpack is cut off");
        err = decode_real(in, &at, &any, &item, &number);
        if (err_is(err))
            return err;
        if (fabs(number) > FLT_MAX)
            return wrong(in, &at, "a number that fits 32 bits", &item);
        items[i] = (float)number;
    }
    *out = (vec_t){items, value->count};
    return err_ok();
}

static err_t decode_strs(const decoder_t *in, const place_t *place, const field_t *field,
                         const mp_value_t *value, mp_reader_t *reader, strs_t *out)
{
    if (value->type != MP_ARRAY)
        return wrong(in, place, "a list of texts", value);
    err_t err = check_size(in, place, field, value->count, RECORD_LIST_LARGEST, "items");
    if (err_is(err))
        return err;
    const char **items = ARENA_ARRAY(in->arena, const char *, value->count + 1);
    for (uint32_t i = 0; i < value->count; i++) {
        place_t at = {.outer = place, .index = i, .indexed = true};
        mp_value_t item;
        if (!mp_read(reader, &item))
            return err_of(ERR_PARSE, "the msgpack is cut off");
        err = decode_text(in, &at, &item, &items[i]);
        if (err_is(err))
            return err;
    }
    *out = (strs_t){items, value->count};
    return err_ok();
}

static err_t decode_list(const decoder_t *in, const place_t *place, const field_t *field,
                         const mp_value_t *value, mp_reader_t *reader, record_list_t *out)
{
    if (value->type != MP_ARRAY)
        return wrong(in, place, "a list", value);
    err_t err = check_size(in, place, field, value->count, RECORD_LIST_LARGEST, "items");
    if (err_is(err))
        return err;
    size_t size = field->sub->size * (value->count + (size_t)1);
    if (arena_used(in->arena) - in->used_before + size > RECORD_MEMORY_LARGEST)
        return err_make(in->arena, ERR_TOO_LARGE, "%s '%s' has too many items in all", in->what,
                        place_text(in, place));
    out->count = value->count;
    out->items = arena_alloc(in->arena, size);
    for (size_t i = 0; i < out->count; i++) {
        place_t at = {.outer = place, .index = i, .indexed = true};
        err = decode_record(in, &at, field->sub, reader, (char *)out->items + i * field->sub->size);
        if (err_is(err))
            return err;
    }
    return err_ok();
}

/* A str that holds an array or object counts as that. */
static err_t decode_json(const decoder_t *in, const place_t *place, bytes_t raw, bytes_t *out)
{
    mp_reader_t reader = mp_reader(raw);
    mp_value_t value;
    *out = raw;
    if (!mp_read(&reader, &value) || value.type != MP_STR)
        return err_ok();
    size_t start = 0;
    while (start < value.size && memchr(" \t\r\n", value.text[start], 4))
        start++;
    if (start == value.size || (value.text[start] != '[' && value.text[start] != '{'))
        return err_ok();
    err_t err = json_to_msgpack(in->arena, value.text, value.size, NULL, out);
    if (err_is(err))
        return err_make(in->arena, ERR_ARGUMENT,
                        "%s '%s' is text that begins like JSON but is not: %s", in->what,
                        place_text(in, place), err_what(err));
    return err_ok();
}

static err_t decode_any(const decoder_t *in, const place_t *place, const field_t *field,
                        bytes_t raw, bytes_t *out)
{
    err_t err = mp_check_depth(raw, RECORD_ANY_DEEPEST);
    if (err_is(err))
        return err_make(in->arena, ERR_ARGUMENT, "%s '%s': %s", in->what, place_text(in, place),
                        err_what(err));
    err = check_size(in, place, field, raw.size, RECORD_ANY_LARGEST, "bytes");
    if (err_is(err))
        return err;
    if (field->type == FIELD_JSON)
        return decode_json(in, place, raw, out);
    *out = raw;
    return err_ok();
}

static err_t decode_str(const decoder_t *in, const place_t *place, const field_t *field,
                        const mp_value_t *value, const char **out)
{
    err_t err = decode_text(in, place, value, out);
    if (err_is(err) || field->type == FIELD_COMPANY)
        return err;
    return check_size(in, place, field, value->size, RECORD_STR_LARGEST, "bytes");
}

static err_t decode_bytes(const decoder_t *in, const place_t *place, const field_t *field,
                          const mp_value_t *value, bytes_t *out)
{
    if (value->type != MP_BIN && value->type != MP_STR)
        return wrong(in, place, "bytes", value);
    *out = (bytes_t){(const uint8_t *)value->text, value->size};
    return check_size(in, place, field, value->size, RECORD_ANY_LARGEST, "bytes");
}

/* A value whose head has been read. */
static err_t decode_value(const decoder_t *in, const place_t *place, const field_t *field,
                          const mp_value_t *value, mp_reader_t *reader, void *at)
{
    switch (field->type) {
    case FIELD_STR:
    case FIELD_COMPANY:
        return decode_str(in, place, field, value, at);
    case FIELD_BYTES:
        return decode_bytes(in, place, field, value, at);
    case FIELD_INT:
        return decode_int(in, place, field, value, at);
    case FIELD_TIME:
        return decode_time(in, place, field, value, at);
    case FIELD_REAL:
        return decode_real(in, place, field, value, at);
    case FIELD_BOOL:
        if (value->type != MP_BOOL)
            return wrong(in, place, "true or false", value);
        *(bool *)at = value->boolean;
        return err_ok();
    case FIELD_ENUM:
        return decode_enum(in, place, field, value, at);
    case FIELD_VEC:
        return decode_vec(in, place, field, value, reader, at);
    case FIELD_STRS:
        return decode_strs(in, place, field, value, reader, at);
    case FIELD_LIST:
        return decode_list(in, place, field, value, reader, at);
    case FIELD_REC:
    case FIELD_ANY:
    case FIELD_JSON:
        break; /* done by decode_field from the whole bytes */
    }
    return err_of(ERR_INTERNAL, "a field of no type");
}

static err_t decode_rec(const decoder_t *in, const place_t *place, const field_t *field,
                        mp_reader_t *reader, void *at)
{
    void *inner = arena_alloc(in->arena, field->sub->size);
    *(void **)at = inner;
    return decode_record(in, place, field->sub, reader, inner);
}

static err_t decode_field(const decoder_t *in, const place_t *outer, const field_t *field,
                          mp_reader_t *reader, void *out)
{
    place_t place = {.outer = outer, .name = field->name};
    mp_reader_t start = *reader;
    mp_value_t value;
    if (!mp_read(reader, &value))
        return err_of(ERR_PARSE, "the msgpack is cut off");
    bool any = field->type == FIELD_ANY || field->type == FIELD_JSON;
    if (value.type == MP_NIL && !(any && field->must))
        return err_ok(); /* the same as absent */
    err_t err;
    if (field->type == FIELD_REC) {
        *reader = start;
        err = decode_rec(in, &place, field, reader, record_member(field, out));
    } else if (any) {
        bytes_t raw;
        *reader = start;
        if (!mp_slice(reader, &raw))
            return err_of(ERR_PARSE, "the msgpack is cut off or nested too deep");
        err = decode_any(in, &place, field, raw, record_member(field, out));
    } else {
        err = decode_value(in, &place, field, &value, reader, record_member(field, out));
    }
    if (!err_is(err))
        *record_has(field, out) = true;
    return err;
}

/* ---- Decoding a record ---- */

static const field_t *find_field(const field_t *fields, const mp_value_t *key, const field_t *next)
{
    /* Keys mostly come in the order of the rows, with optional ones left out. */
    for (const field_t *field = next; field->name; field++)
        if (is_name(key, field->name))
            return field;
    for (const field_t *field = fields; field != next; field++)
        if (is_name(key, field->name))
            return field;
    return NULL;
}

static err_t unknown_field(const decoder_t *in, const place_t *place, const field_t *fields,
                           const mp_value_t *key)
{
    size_t count = 0;
    while (fields[count].name)
        count++;
    const char **names = ARENA_ARRAY(in->arena, const char *, count + 1);
    buf_t list;
    buf_open(&list, in->arena);
    for (size_t i = 0; i < count; i++) {
        names[i] = fields[i].name;
        buf_printf(&list, "%s%s", i ? ", " : "", fields[i].name);
    }
    const char *name = shown(in->arena, key->text, key->size);
    const char *near = record_nearest(name, names);
    const char *where = place ? arena_printf(in->arena, " in '%s'", place_text(in, place)) : "";
    if (near)
        return err_make(in->arena, ERR_ARGUMENT, "unknown %s '%s'%s; did you mean '%s'?", in->what,
                        name, where, near);
    if (!count)
        return err_make(in->arena, ERR_ARGUMENT, "unknown %s '%s'%s; there are none", in->what,
                        name, where);
    return err_make(in->arena, ERR_ARGUMENT, "unknown %s '%s'%s; the %ss are: %s", in->what, name,
                    where, in->what, list.data);
}

static err_t decode_pairs(const decoder_t *in, const place_t *place, const field_t *fields,
                          uint32_t count, mp_reader_t *reader, void *out)
{
    const field_t *next = fields;
    for (uint32_t i = 0; i < count; i++) {
        mp_value_t key;
        if (!mp_read(reader, &key) || key.type != MP_STR)
            return err_make(in->arena, ERR_ARGUMENT, "the name of every %s must be text", in->what);
        const field_t *field = find_field(fields, &key, next);
        if (!field)
            return unknown_field(in, place, fields, &key);
        if (*record_has(field, out)) {
            place_t at = {.outer = place, .name = field->name};
            return err_make(in->arena, ERR_ARGUMENT, "%s '%s' is given twice", in->what,
                            place_text(in, &at));
        }
        err_t err = decode_field(in, place, field, reader, out);
        if (err_is(err))
            return err;
        next = field + 1;
    }
    return err_ok();
}

static err_t fill_absent(const decoder_t *in, const place_t *outer, const field_t *fields,
                         void *out)
{
    for (const field_t *field = fields; field->name; field++) {
        if (*record_has(field, out))
            continue;
        place_t place = {.outer = outer, .name = field->name};
        if (field->must)
            return err_make(in->arena, ERR_ARGUMENT, "%s '%s' is missing: %s", in->what,
                            place_text(in, &place), field->doc);
        if (*field->def && !record_set_default(field, out))
            return err_make(in->arena, ERR_INTERNAL, "the default of '%s' is not readable",
                            field->name);
    }
    return err_ok();
}

static err_t decode_record(const decoder_t *in, const place_t *place, const record_t *record,
                           mp_reader_t *reader, void *out)
{
    mp_value_t head;
    if (!mp_read(reader, &head))
        return err_of(ERR_PARSE, "the msgpack is cut off");
    const field_t *fields = record->fields();
    if (head.type != MP_MAP) {
        if (place)
            return wrong(in, place, "an object", &head);
        return err_make(in->arena, ERR_ARGUMENT, "the %ss must be an object, not %s", in->what,
                        value_text(in->arena, &head));
    }
    err_t err = decode_pairs(in, place, fields, head.count, reader, out);
    return err_is(err) ? err : fill_absent(in, place, fields, out);
}

err_t record_decode(const record_t *record, bytes_t bytes, arena_t *arena, const char *what,
                    void *out)
{
    decoder_t in = {arena, what, arena_used(arena)};
    memset(out, 0, record->size);
    if (!bytes.size)
        return fill_absent(&in, NULL, record->fields(), out);
    mp_reader_t reader = mp_reader(bytes);
    err_t err = decode_record(&in, NULL, record, &reader, out);
    if (!err_is(err) && reader.at != reader.end)
        return err_of(ERR_PARSE, "there are bytes behind the msgpack value");
    return err;
}
