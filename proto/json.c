#include "proto/json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

/* jansson has a macro of the name of our style; without this it would be 0x20 in here. */
#undef JSON_COMPACT

enum { LARGEST_BYTES = 16 << 20, DEEPEST = MP_DEPTH };

/* ---- Reading ---- */

/* What jansson does not check before it works: depth, and integers it could not hold. */
typedef struct scanner {
    const char *text;
    size_t size, at;
    unsigned deepest;
} scanner_t;

static void position(const char *text, size_t at, int *line, int *column)
{
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n') {
            (*line)++;
            *column = 0;
        }
        (*column)++;
    }
}

static err_t scan_error(arena_t *arena, const scanner_t *scan, const char *what)
{
    int line, column;
    position(scan->text, scan->at, &line, &column);
    return err_make(arena, ERR_PARSE, "line %d, column %d: %s", line, column, what);
}

static void skip_string(scanner_t *scan)
{
    for (scan->at++; scan->at < scan->size && scan->text[scan->at] != '"'; scan->at++)
        if (scan->text[scan->at] == '\\')
            scan->at++;
    scan->at++;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Can the number at `at` be held? Integers: -2^63 to 2^64-1. */
static bool skip_number(scanner_t *scan, bool *above_signed)
{
    size_t start = scan->at;
    bool negative = scan->text[start] == '-';
    size_t at = start + negative;
    while (at < scan->size && digit(scan->text[at]))
        at++;
    size_t digits = at - start - negative;
    bool real = at < scan->size && strchr(".eE", scan->text[at]) && scan->text[at];
    scan->at = at;
    if (real) {
        while (scan->at < scan->size && scan->text[scan->at] &&
               strchr("0123456789+-.eE", scan->text[scan->at]))
            scan->at++;
        return true;
    }
    const char *first = scan->text + start + negative;
    const char *most = negative ? "9223372036854775808" : "18446744073709551615";
    size_t most_digits = strlen(most);
    if (digits < 19)
        return true;
    if (digits > most_digits || (digits == most_digits && strncmp(first, most, digits) > 0))
        return false;
    if (!negative && (digits == 20 || strncmp(first, "9223372036854775807", 19) > 0))
        *above_signed = true;
    return true;
}

static err_t scan_all(arena_t *arena, scanner_t *scan, bool *above_signed)
{
    unsigned depth = 0;
    *above_signed = false;
    while (scan->at < scan->size) {
        char c = scan->text[scan->at];
        if (c == '"') {
            skip_string(scan);
        } else if (c == '-' || digit(c)) {
            if (!skip_number(scan, above_signed))
                return scan_error(arena, scan,
                                  "this integer is larger than 64 bits: write it as a string");
        } else {
            if ((c == '[' || c == '{') && ++depth > scan->deepest)
                return scan_error(arena, scan, "values are nested too deep");
            if ((c == ']' || c == '}') && depth)
                depth--;
            scan->at++;
        }
    }
    return err_ok();
}

static void write_value(const json_t *value, buf_t *out);

static void write_object(const json_t *object, buf_t *out)
{
    const char *key;
    json_t *value;
    mp_put_map(out, (uint32_t)json_object_size(object));
    json_object_foreach((json_t *)object, key, value)
    {
        mp_put_strn(out, key, strlen(key));
        write_value(value, out);
    }
}

/* jansson keeps an integer above INT64_MAX as text here: see mark_large. */
static const char LARGE_MARK[] = "\x01uint64:";

static void write_text(const json_t *value, buf_t *out)
{
    const char *text = json_string_value(value);
    size_t size = json_string_length(value), mark = sizeof(LARGE_MARK) - 1;
    if (size > mark && !memcmp(text, LARGE_MARK, mark))
        mp_put_uint(out, strtoull(text + mark, NULL, 10));
    else
        mp_put_strn(out, text, size);
}

/* The depth is bounded by scan_all. */
static void write_value(const json_t *value, buf_t *out)
{
    size_t index;
    json_t *item;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_object(value, out);
        break;
    case JSON_ARRAY:
        mp_put_array(out, (uint32_t)json_array_size(value));
        json_array_foreach(value, index, item) write_value(item, out);
        break;
    case JSON_STRING:
        write_text(value, out);
        break;
    case JSON_INTEGER:
        mp_put_int(out, json_integer_value(value));
        break;
    case JSON_REAL:
        mp_put_real(out, json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        mp_put_bool(out, json_is_true(value));
        break;
    case JSON_NULL:
        mp_put_nil(out);
        break;
    }
}

/* Integers above INT64_MAX become marked strings, since jansson has no place for them. */
static void mark_large(const char *text, size_t size, buf_t *out)
{
    scanner_t scan = {.text = text, .size = size};
    while (scan.at < size) {
        size_t start = scan.at;
        bool above = false;
        if (text[start] == '"') {
            skip_string(&scan);
            if (scan.at > size)
                scan.at = size;
        } else if (text[start] == '-' || digit(text[start])) {
            skip_number(&scan, &above);
        } else {
            scan.at++;
        }
        if (above)
            buf_puts(out, "\"\\u0001uint64:");
        buf_put(out, text + start, scan.at - start);
        if (above)
            buf_puts(out, "\"");
    }
}

static err_t parse_error(arena_t *arena, const json_error_t *error)
{
    return err_make(arena, ERR_PARSE, "line %d, column %d: %s", error->line, error->column,
                    error->text);
}

err_t json_to_msgpack(arena_t *arena, const char *text, size_t size, const json_limits_t *limits,
                      bytes_t *out)
{
    size_t largest = limits && limits->largest_bytes ? limits->largest_bytes : LARGEST_BYTES;
    unsigned deepest = limits && limits->deepest ? limits->deepest : DEEPEST;
    if (deepest > DEEPEST)
        deepest = DEEPEST;
    if (size > largest)
        return err_make(arena, ERR_TOO_LARGE, "the JSON has %zu bytes; at most %zu are allowed",
                        size, largest);
    scanner_t scan = {.text = text, .size = size, .deepest = deepest};
    bool above_signed;
    err_t err = scan_all(arena, &scan, &above_signed);
    if (err_is(err))
        return err;
    buf_t marked;
    if (above_signed) {
        buf_open(&marked, arena);
        mark_large(text, size, &marked);
        text = marked.data;
        size = marked.size;
    }
    json_error_t error;
    json_t *root =
        json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!root)
        return parse_error(arena, &error);
    buf_t written;
    buf_open(&written, arena);
    write_value(root, &written);
    json_decref(root);
    *out = buf_bytes(&written);
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
    if (!put_value(&reader, style, 0, out) || reader.at != reader.end)
        return err_of(ERR_PARSE, "the value is not well-formed msgpack");
    return err_ok();
}
