#include "proto/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json_parse.h"
#include "proto/mp.h"

/* ---- Reading ---- */

/* An array or object that is open. Its head is written when its size is known. */
typedef struct level {
    size_t head;      /* where in `out` */
    size_t first_key; /* of its keys in `keys` */
} level_t;

typedef struct seen_key {
    size_t from, size; /* in `out`, which moves when it grows */
    size_t at;         /* behind it in the text */
} seen_key_t;

typedef struct reading {
    const char *text;
    size_t size;
    arena_t *arena;
    buf_t out;
    buf_t keys; /* seen_key_t, of all open objects */
    level_t levels[JSON_DEEPEST];
    unsigned depth, deepest;
    size_t containers;
    err_t err; /* why an event said no */
} reading_t;

/* Columns count characters, from 1. */
static err_t error_at(arena_t *arena, const char *text, size_t at, const char *what)
{
    int line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return err_make(arena, ERR_PARSE, "line %d, column %d: %s", line, column, what);
}

static bool refuse(reading_t *in, size_t at, const char *what)
{
    in->err = error_at(in->arena, in->text, at, what);
    return false;
}

static bool on_nil(void *ctx)
{
    mp_put_nil(&((reading_t *)ctx)->out);
    return true;
}

static bool on_boolean(void *ctx, bool value)
{
    mp_put_bool(&((reading_t *)ctx)->out, value);
    return true;
}

static bool put_integer(reading_t *in, const char *text)
{
    char *end;
    errno = 0;
    if (*text == '-')
        mp_put_int(&in->out, strtoll(text, &end, 10));
    else
        mp_put_uint(&in->out, strtoull(text, &end, 10));
    return !errno;
}

/* strtod(3) rounds right whatever the number of digits. */
static bool on_number(void *ctx, const char *text, size_t at)
{
    reading_t *in = ctx;
    size_t from = at - strlen(text);
    if (!strpbrk(text, ".eE"))
        return put_integer(in, text) ||
               refuse(in, from, "this integer is larger than 64 bits: write it as a string");
    double value = strtod(text, NULL);
    if (!isfinite(value))
        return refuse(in, from, "this number is too large");
    mp_put_real(&in->out, value);
    return true;
}

/* The parser lets the second half of a pair pass alone; in UTF-8 that begins with ED. */
static bool no_halves(reading_t *in, const char *text, size_t size, size_t at)
{
    return !memchr(text, 0xed, size) || mp_utf8(text, size) ||
           refuse(in, at, "a \\u is half of a pair, and the other half is missing");
}

static bool on_string(void *ctx, const char *text, size_t size, size_t at)
{
    reading_t *in = ctx;
    mp_put_strn(&in->out, text, size);
    return no_halves(in, text, size, at);
}

static bool on_key(void *ctx, const char *text, size_t size, size_t at)
{
    reading_t *in = ctx;
    if (memchr(text, 0, size))
        return refuse(in, at, "a key holds a NUL character");
    if (!no_halves(in, text, size, at))
        return false;
    mp_put_strn(&in->out, text, size);
    seen_key_t key = {.from = in->out.size - size, .size = size, .at = at};
    buf_put(&in->keys, &key, sizeof(key));
    return true;
}

static bool on_begin(void *ctx, bool object, size_t at)
{
    reading_t *in = ctx;
    (void)object;
    if (in->depth == in->deepest)
        return refuse(
            in, at - 1,
            arena_printf(in->arena, "values are nested deeper than %u levels", in->deepest));
    if (++in->containers > JSON_CONTAINERS_MOST) {
        in->err = err_of(ERR_TOO_LARGE, "the JSON has too many arrays and objects");
        return false;
    }
    in->levels[in->depth++] = (level_t){in->out.size, in->keys.size / sizeof(seen_key_t)};
    buf_put(&in->out, "", 1);
    return true;
}

static int compare_keys(const void *one, const void *other, void *out)
{
    const seen_key_t *a = one, *b = other;
    const char *data = ((const buf_t *)out)->data;
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    int order = memcmp(data + a->from, data + b->from, a->size);
    return order ? order : (a->at > b->at) - (a->at < b->at);
}

static bool same_key(const reading_t *in, const seen_key_t *a, const seen_key_t *b)
{
    return a->size == b->size && !memcmp(in->out.data + a->from, in->out.data + b->from, a->size);
}

/* The later one of two keys that are the same; NULL: there are none. */
static const seen_key_t *twice(reading_t *in, seen_key_t *keys, size_t count)
{
    enum { FEW = 12 };
    for (size_t i = 1; count <= FEW && i < count; i++)
        for (size_t j = 0; j < i; j++)
            if (same_key(in, &keys[i], &keys[j]))
                return &keys[i];
    if (count <= FEW)
        return NULL;
    qsort_r(keys, count, sizeof(*keys), compare_keys, &in->out);
    for (size_t i = 1; i < count; i++)
        if (same_key(in, &keys[i], &keys[i - 1]))
            return &keys[i];
    return NULL;
}

static bool plain(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return size < 64;
}

static bool one_of_each(reading_t *in, size_t first)
{
    seen_key_t *keys = (seen_key_t *)(void *)in->keys.data + first;
    const seen_key_t *again = twice(in, keys, in->keys.size / sizeof(*keys) - first);
    if (!again)
        return true;
    const char *name = in->out.data + again->from;
    return refuse(in, again->at,
                  plain(name, again->size) ? arena_printf(in->arena, "the key '%.*s' comes twice",
                                                          (int)again->size, name)
                                           : "a key comes twice");
}

/* The head was taken to have one byte. */
static void write_head(reading_t *in, size_t at, bool object, size_t count)
{
    buf_t *out = &in->out;
    size_t body = out->size - at - 1;
    if (object)
        mp_put_map(out, (uint32_t)count);
    else
        mp_put_array(out, (uint32_t)count);
    size_t head = out->size - at - 1 - body;
    char bytes[5];
    memcpy(bytes, out->data + out->size - head, head);
    memmove(out->data + at + head, out->data + at + 1, body);
    memcpy(out->data + at, bytes, head);
    out->size = at + head + body;
}

static bool on_end(void *ctx, bool object, size_t count)
{
    reading_t *in = ctx;
    const level_t *level = &in->levels[in->depth - 1];
    if (object && !one_of_each(in, level->first_key))
        return false;
    in->keys.size = level->first_key * sizeof(seen_key_t);
    write_head(in, level->head, object, count);
    in->depth--;
    return true;
}

static const json_events_t events = {.nil = on_nil,
                                     .boolean = on_boolean,
                                     .number = on_number,
                                     .string = on_string,
                                     .key = on_key,
                                     .begin = on_begin,
                                     .end = on_end};

/* The word that stands there, when it is one: people look for what they wrote. */
static const char *quoted(arena_t *arena, const char *text, size_t size, size_t at)
{
    size_t end = at;
    while (end < size && end - at < 20 && text[end] > ' ' && text[end] < 0x7f &&
           !strchr("\"',:[]{}\\", text[end]))
        end++;
    return end > at ? arena_printf(arena, ", not '%.*s'", (int)(end - at), text + at) : "";
}

static err_t fault_of(const reading_t *in, json_fault_t fault)
{
    if (err_is(in->err))
        return in->err;
    size_t at = fault.at < in->size ? fault.at : in->size;
    const char *there =
        strstr(fault.what, "expected") ? quoted(in->arena, in->text, in->size, at) : "";
    return error_at(in->arena, in->text, at, arena_printf(in->arena, "%s%s", fault.what, there));
}

err_t json_to_msgpack(arena_t *arena, const char *text, size_t size, const json_limits_t *limits,
                      bytes_t *out)
{
    size_t largest = limits && limits->largest_bytes ? limits->largest_bytes : JSON_LARGEST_BYTES;
    unsigned deepest = limits && limits->deepest ? limits->deepest : JSON_DEEPEST;
    if (size > largest)
        return err_make(arena, ERR_TOO_LARGE, "the JSON has %zu bytes; at most %zu are allowed",
                        size, largest);
    const char *nul = memchr(text, 0, size);
    if (nul) /* to the parser it is the end */
        return error_at(arena, text, (size_t)(nul - text), "a NUL byte");
    reading_t in = {.text = text,
                    .size = size,
                    .arena = arena,
                    .deepest = deepest < JSON_DEEPEST ? deepest : JSON_DEEPEST};
    buf_open(&in.out, arena);
    buf_open(&in.keys, arena);
    json_fault_t fault = json_parse(text, size, mp_utf8(text, size), &events, &in);
    if (fault.what)
        return fault_of(&in, fault);
    *out = buf_bytes(&in.out);
    return err_ok();
}

/* ---- Writing ---- */

void json_put_string(buf_t *out, const char *text, size_t size)
{
    size_t start = 0;
    buf_put(out, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        buf_put(out, text + start, i - start);
        start = i + 1;
        switch (c) {
        case '"':
            buf_puts(out, "\\\"");
            break;
        case '\\':
            buf_puts(out, "\\\\");
            break;
        case '\n':
            buf_puts(out, "\\n");
            break;
        case '\r':
            buf_puts(out, "\\r");
            break;
        case '\t':
            buf_puts(out, "\\t");
            break;
        default:
            buf_printf(out, "\\u%04x", c);
        }
    }
    buf_put(out, text + start, size - start);
    buf_put(out, "\"", 1);
}

/* The shortest text that reads back as the same number; a whole one keeps its ".0". */
static void put_real(buf_t *out, double value)
{
    char text[40];
    if (!isfinite(value)) {
        buf_puts(out, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_puts(out, text);
    if (!strpbrk(text, ".e"))
        buf_puts(out, ".0");
}

/* RFC 4648, section 4. */
static void put_base64(buf_t *out, const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    buf_put(out, "\"", 1);
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t three = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                         (left > 2 ? data[i + 2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63],
                        left > 1 ? digits[three >> 6 & 63] : '=',
                        left > 2 ? digits[three & 63] : '='};
        buf_put(out, four, 4);
    }
    buf_put(out, "\"", 1);
}

static void new_line(buf_t *out, json_style_t style, int depth)
{
    if (style == JSON_COMPACT)
        return;
    buf_puts(out, "\n");
    while (depth-- > 0)
        buf_puts(out, "  ");
}

static bool put_value(mp_reader_t *reader, json_style_t style, int depth, buf_t *out);

static bool put_container(mp_reader_t *reader, const mp_value_t *head, json_style_t style,
                          int depth, buf_t *out)
{
    bool map = head->type == MP_MAP;
    buf_puts(out, map ? "{" : "[");
    for (uint32_t i = 0; i < head->count; i++) {
        if (i)
            buf_puts(out, ",");
        new_line(out, style, depth + 1);
        if (map) {
            mp_value_t key;
            if (!mp_read(reader, &key) || key.type != MP_STR || !mp_utf8(key.text, key.size))
                return false;
            json_put_string(out, key.text, key.size);
            buf_puts(out, style == JSON_PRETTY ? ": " : ":");
        }
        if (!put_value(reader, style, depth + 1, out))
            return false;
    }
    if (head->count)
        new_line(out, style, depth);
    buf_puts(out, map ? "}" : "]");
    return true;
}

static bool put_value(mp_reader_t *reader, json_style_t style, int depth, buf_t *out)
{
    mp_value_t value;
    if (depth > MP_DEPTH || !mp_read(reader, &value))
        return false;
    switch (value.type) {
    case MP_NIL:
        buf_puts(out, "null");
        return true;
    case MP_BOOL:
        buf_puts(out, value.boolean ? "true" : "false");
        return true;
    case MP_INT:
        buf_printf(out, "%lld", (long long)value.integer);
        return true;
    case MP_UINT:
        buf_printf(out, "%llu", (unsigned long long)value.natural);
        return true;
    case MP_REAL:
        put_real(out, value.real);
        return true;
    case MP_STR:
        if (!mp_utf8(value.text, value.size))
            return false;
        json_put_string(out, value.text, value.size);
        return true;
    case MP_BIN:
        put_base64(out, (const uint8_t *)value.text, value.size);
        return true;
    case MP_ARRAY:
    case MP_MAP:
        return put_container(reader, &value, style, depth, out);
    }
    return false;
}

err_t json_from_msgpack(bytes_t value, json_style_t style, buf_t *out)
{
    mp_reader_t reader = mp_reader(value);
    size_t before = out->size;
    if (put_value(&reader, style, 0, out) && reader.at == reader.end)
        return err_ok();
    out->size = before;
    out->data[before] = '\0';
    return err_of(ERR_PARSE, "the value is not well-formed msgpack");
}
