#include "proto/json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

/* jansson has a macro of the name of our style; without this it would be 0x20 in here. */
#undef JSON_COMPACT

/* ---- Reading ---- */

/* What jansson does not check before it works: depth, number of containers, and integers. Those
 * above INT64_MAX have no place in jansson; they are noted here by their ordinal among the numbers
 * of the text, which is the order in which the tree is walked later. */
typedef struct large {
    size_t at, digits, ordinal;
    uint64_t value;
} large_t;

typedef struct scanner {
    const char *text;
    size_t size, at;
    unsigned deepest;
    size_t numbers, containers;
    buf_t large; /* of large_t */
} scanner_t;

/* Columns count characters, from 1. */
static err_t scan_error(arena_t *arena, const scanner_t *scan, const char *what)
{
    int line = 1, column = 1;
    for (size_t i = 0; i < scan->at; i++) {
        if (scan->text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)scan->text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return err_make(arena, ERR_PARSE, "line %d, column %d: %s", line, column, what);
}

static void skip_string(scanner_t *scan)
{
    for (scan->at++; scan->at < scan->size && scan->text[scan->at] != '"'; scan->at++)
        if (scan->text[scan->at] == '\\')
            scan->at++;
    scan->at++;
}

static bool one_of(char c, const char *set)
{
    return c && strchr(set, c);
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* -2^63 to 2^64-1 can be held. Leading zeros are left to jansson, which refuses them. */
static bool fits(scanner_t *scan, size_t first, size_t digits, bool negative)
{
    static const char most_signed[] = "9223372036854775807";
    const char *most = negative ? "9223372036854775808" : "18446744073709551615";
    size_t most_digits = strlen(most);
    const char *text = scan->text + first;
    if (digits < 19 || text[0] == '0')
        return true;
    if (digits > most_digits || (digits == most_digits && memcmp(text, most, digits) > 0))
        return false;
    if (negative || (digits == 19 && memcmp(text, most_signed, 19) <= 0))
        return true;
    large_t large = {.at = first, .digits = digits, .ordinal = scan->numbers};
    for (size_t i = 0; i < digits; i++)
        large.value = large.value * 10 + (uint64_t)(text[i] - '0');
    buf_put(&scan->large, &large, sizeof(large));
    return true;
}

static bool skip_number(scanner_t *scan)
{
    bool negative = scan->text[scan->at] == '-';
    size_t first = scan->at + negative, at = first;
    while (at < scan->size && digit(scan->text[at]))
        at++;
    size_t digits = at - first;
    bool real = at < scan->size && one_of(scan->text[at], ".eE");
    if (!real && !fits(scan, first, digits, negative))
        return false;
    while (at < scan->size && one_of(scan->text[at], "0123456789+-.eE"))
        at++;
    scan->at = at;
    scan->numbers++;
    return true;
}

static err_t scan_all(arena_t *arena, scanner_t *scan)
{
    unsigned depth = 0;
    const char *nul = memchr(scan->text, 0, scan->size);
    if (nul) { /* jansson steps over one behind a number */
        scan->at = (size_t)(nul - scan->text);
        return scan_error(arena, scan, "a NUL byte");
    }
    while (scan->at < scan->size) {
        char c = scan->text[scan->at];
        if (c == '"') {
            skip_string(scan);
        } else if (c == '-' || digit(c)) {
            if (!skip_number(scan))
                return scan_error(arena, scan,
                                  "this integer is larger than 64 bits: write it as a string");
        } else {
            bool opens = c == '[' || c == '{';
            if (opens && ++depth > scan->deepest)
                return scan_error(
                    arena, scan,
                    arena_printf(arena, "values are nested deeper than %u levels", scan->deepest));
            if (opens && ++scan->containers > JSON_CONTAINERS_MOST)
                return err_of(ERR_TOO_LARGE, "the JSON has too many arrays and objects");
            if ((c == ']' || c == '}') && depth)
                depth--;
            scan->at++;
        }
    }
    return err_ok();
}

/* A copy in which each number that jansson cannot hold is a small one of the same length, so that
 * the places of errors stay right. */
static const char *without_large(arena_t *arena, const scanner_t *scan)
{
    char *copy = arena_strndup(arena, scan->text, scan->size);
    const large_t *large = (const large_t *)(const void *)scan->large.data;
    for (size_t i = 0; i < scan->large.size / sizeof(large_t); i++) {
        memset(copy + large[i].at, '0', large[i].digits);
        copy[large[i].at + 1] = '.';
    }
    return copy;
}

typedef struct writer {
    buf_t *out;
    size_t numbers;
    const large_t *large, *end;
} writer_t;

static void write_value(writer_t *writer, const json_t *value);

static void write_object(writer_t *writer, const json_t *object)
{
    const char *key;
    json_t *value;
    mp_put_map(writer->out, (uint32_t)json_object_size(object));
    json_object_foreach((json_t *)object, key, value)
    {
        mp_put_strn(writer->out, key, strlen(key)); /* jansson refuses NUL in keys */
        write_value(writer, value);
    }
}

static void write_array(writer_t *writer, const json_t *array)
{
    size_t index;
    json_t *item;
    mp_put_array(writer->out, (uint32_t)json_array_size(array));
    json_array_foreach(array, index, item) write_value(writer, item);
}

static void write_number(writer_t *writer, const json_t *value)
{
    size_t ordinal = writer->numbers++;
    if (writer->large < writer->end && writer->large->ordinal == ordinal)
        mp_put_uint(writer->out, (writer->large++)->value);
    else if (json_is_integer(value))
        mp_put_int(writer->out, json_integer_value(value));
    else
        mp_put_real(writer->out, json_real_value(value));
}

/* The depth is bounded by scan_all. */
static void write_value(writer_t *writer, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_object(writer, value);
        break;
    case JSON_ARRAY:
        write_array(writer, value);
        break;
    case JSON_STRING:
        mp_put_strn(writer->out, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        write_number(writer, value);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        mp_put_bool(writer->out, json_is_true(value));
        break;
    case JSON_NULL:
        mp_put_nil(writer->out);
        break;
    }
}

/* A tree of jansson is many small pieces that end together: they come from an arena, and nobody
 * frees them one by one. */
static _Thread_local arena_t *tree;

static void *take_piece(size_t size)
{
    return tree ? arena_piece(tree, size) : malloc(size);
}

static void give_piece(void *piece)
{
    if (!tree)
        free(piece);
}

/* Before there is any thread. */
__attribute__((constructor)) static void set_pieces(void)
{
    json_set_alloc_funcs(take_piece, give_piece);
}

/* jansson quotes the input in its sentences: one line, and no control characters. */
static err_t parse_error(arena_t *arena, const json_error_t *error)
{
    char *text = arena_strdup(arena, error->text);
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = ' ';
    if (!mp_utf8(text, strlen(text)))
        text = "not valid UTF-8, or not JSON";
    return err_make(arena, ERR_PARSE, "line %d, column %d: %s", error->line, error->column, text);
}

static void write_root(const scanner_t *scan, const json_t *root, buf_t *out)
{
    const large_t *large = (const large_t *)(const void *)scan->large.data;
    writer_t writer = {
        .out = out, .large = large, .end = large + scan->large.size / sizeof(large_t)};
    write_value(&writer, root);
}

err_t json_to_msgpack(arena_t *arena, const char *text, size_t size, const json_limits_t *limits,
                      bytes_t *out)
{
    size_t largest = limits && limits->largest_bytes ? limits->largest_bytes : JSON_LARGEST_BYTES;
    unsigned deepest = limits && limits->deepest ? limits->deepest : JSON_DEEPEST;
    if (size > largest)
        return err_make(arena, ERR_TOO_LARGE, "the JSON has %zu bytes; at most %zu are allowed",
                        size, largest);
    if (!size)
        return err_of(ERR_PARSE, "line 1, column 1: there is no JSON, only the end of the text");
    scanner_t scan = {
        .text = text, .size = size, .deepest = deepest < JSON_DEEPEST ? deepest : JSON_DEEPEST};
    buf_open(&scan.large, arena);
    err_t err = scan_all(arena, &scan);
    if (err_is(err))
        return err;
    json_error_t error;
    tree = arena_new();
    const json_t *root =
        json_loadb(scan.large.size ? without_large(arena, &scan) : text, size,
                   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (root) {
        buf_t written;
        buf_open(&written, arena);
        write_root(&scan, root, &written);
        *out = buf_bytes(&written);
    } else {
        err = parse_error(arena, &error);
    }
    arena_destroy(&tree);
    return err;
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
