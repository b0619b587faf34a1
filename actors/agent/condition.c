#include "actors/agent/condition.h"

#include <ctype.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

enum { DEEPEST = 32 };

typedef struct reading {
    arena_t *arena;
    const values_t *values; /* NULL: the form only */
    const char *text;
    size_t size, at;
    unsigned depth;
} reading_t;

/* What an operand stands for. `missing`: a reference to nothing, an error unless asked by exists.
 */
typedef struct operand {
    bytes_t value;
    err_t missing;
} operand_t;

typedef enum compare { EQUAL, UNEQUAL, AT_MOST, AT_LEAST, BELOW, ABOVE, IN, NONE } compare_t;

static const struct {
    const char *word;
    compare_t compare;
} compares[] = {{"==", EQUAL}, {"!=", UNEQUAL}, {"<=", AT_MOST}, {">=", AT_LEAST},
                {"<", BELOW},  {">", ABOVE},    {"in", IN}};

static void skip_spaces(reading_t *in)
{
    while (in->at < in->size && isspace((unsigned char)in->text[in->at]))
        in->at++;
}

static bool in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static bool take(reading_t *in, const char *word)
{
    size_t size = strlen(word);
    skip_spaces(in);
    if (in->size - in->at < size || memcmp(in->text + in->at, word, size) != 0)
        return false;
    if (in_word(*word) && in->at + size < in->size && in_word(in->text[in->at + size]))
        return false;
    in->at += size;
    return true;
}

static err_t faulty(reading_t *in, const char *what)
{
    size_t left = 0;
    while (in->at + left < in->size && in->text[in->at + left] != '\n')
        left++;
    if (!left)
        return err_make(in->arena, ERR_ARGUMENT, "the condition ends where %s was expected", what);
    for (left = left > 30 ? 30 : left; left && !mp_utf8(in->text + in->at, left);)
        left--;
    return err_make(in->arena, ERR_ARGUMENT, "at '%.*s': %s was expected", (int)left,
                    in->text + in->at, what);
}

/* ---- operands ----------------------------------------------------------------------------- */

static err_t take_reference(reading_t *in, bool live, operand_t *out)
{
    value_ref_t ref = {0};
    bool found = false;
    size_t at = in->at;
    err_t err = value_next(in->arena, in->text, in->size, &at, &ref, &found);
    if (err_is(err))
        return err;
    in->at = at;
    if (live && in->values) {
        out->missing = value_get(in->arena, in->values, &ref, &out->value);
        if (err_is(out->missing) && out->missing.code != ERR_NOT_FOUND)
            return out->missing;
    }
    return err_ok();
}

static err_t take_text(reading_t *in, operand_t *out)
{
    char quote = in->text[in->at];
    buf_t text, packed;
    buf_open(&text, in->arena);
    buf_open(&packed, in->arena);
    for (size_t at = in->at + 1; at < in->size; at++) {
        if (in->text[at] == quote) {
            in->at = at + 1;
            mp_put_strn(&packed, text.data, text.size);
            out->value = buf_bytes(&packed);
            return err_ok();
        }
        at += in->text[at] == '\\' && at + 1 < in->size; /* the next one as it is */
        buf_put(&text, in->text + at, 1);
    }
    return err_of(ERR_ARGUMENT, "a text in the condition has no closing quote");
}

static bool as_scalar(arena_t *arena, const char *text, size_t size, bytes_t *value)
{
    mp_type_t type;
    err_t err = json_to_msgpack(arena, text, size, NULL, value);
    return !err_is(err) && mp_type_of(*value, &type) && type != MP_ARRAY && type != MP_MAP;
}

static err_t take_operand(reading_t *in, bool live, operand_t *out)
{
    static const char what[] = "a {{reference}}, a \"text\", a number, true, false or null";
    *out = (operand_t){.value = {0}};
    skip_spaces(in);
    size_t left = in->size - in->at;
    const char *start = in->text + in->at;
    if (left > 1 && !memcmp(start, "{{", 2))
        return take_reference(in, live, out);
    if (left && (*start == '"' || *start == '\''))
        return take_text(in, out);
    size_t size = 0;
    while (size < left && (in_word(start[size]) || strchr("+-.", start[size])))
        size++;
    if (!size || !as_scalar(in->arena, start, size, &out->value))
        return faulty(in, what);
    in->at += size;
    return err_ok();
}

/* ---- values ------------------------------------------------------------------------------- */

static bool head_of(bytes_t value, mp_value_t *head)
{
    mp_reader_t reader = mp_reader(value);
    return mp_read(&reader, head);
}

static bool truth(bytes_t value)
{
    mp_value_t head;
    if (!head_of(value, &head))
        return false;
    switch (head.type) {
    case MP_NIL:
        return false;
    case MP_BOOL:
        return head.boolean;
    case MP_INT:
        return head.integer != 0;
    case MP_REAL:
        return head.real != 0;
    case MP_STR:
    case MP_BIN:
        return head.size > 0;
    case MP_ARRAY:
    case MP_MAP:
        return head.count > 0;
    default:
        return true;
    }
}

static bool is_number(const mp_value_t *head)
{
    return head->type == MP_INT || head->type == MP_UINT || head->type == MP_REAL;
}

static double number(const mp_value_t *head)
{
    return head->type == MP_INT    ? (double)head->integer
           : head->type == MP_UINT ? (double)head->natural
                                   : head->real;
}

/* Text beside a number: the number it reads as, if it does. */
static void even_out(arena_t *arena, bytes_t *one, bytes_t *other)
{
    mp_value_t a, b;
    if (!head_of(*one, &a) || !head_of(*other, &b))
        return;
    bytes_t *text = a.type == MP_STR && is_number(&b)   ? one
                    : b.type == MP_STR && is_number(&a) ? other
                                                        : NULL;
    const mp_value_t *head = text == one ? &a : &b;
    bytes_t value;
    mp_value_t read;
    if (text && as_scalar(arena, head->text, head->size, &value) && head_of(value, &read) &&
        is_number(&read))
        *text = value;
}

static bool equal(arena_t *arena, bytes_t one, bytes_t other)
{
    even_out(arena, &one, &other);
    return mp_same(one, other);
}

static int order_of_texts(const mp_value_t *a, const mp_value_t *b)
{
    size_t size = a->size < b->size ? a->size : b->size;
    int order = size ? memcmp(a->text, b->text, size) : 0;
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

/* -1, 0, 1 in `*order`. */
static err_t order_of(arena_t *arena, bytes_t one, bytes_t other, int *order)
{
    mp_value_t a, b;
    even_out(arena, &one, &other);
    if (!head_of(one, &a) || !head_of(other, &b))
        return err_of(ERR_PARSE, "a value is not msgpack");
    if (a.type == MP_INT && b.type == MP_INT)
        *order = (a.integer > b.integer) - (a.integer < b.integer);
    else if (is_number(&a) && is_number(&b))
        *order = (number(&a) > number(&b)) - (number(&a) < number(&b));
    else if (a.type == MP_STR && b.type == MP_STR)
        *order = order_of_texts(&a, &b);
    else
        return err_of(ERR_ARGUMENT, "only two numbers or two texts are smaller or larger than one "
                                    "another");
    return err_ok();
}

static bool contains(const mp_value_t *whole, const mp_value_t *part)
{
    for (size_t i = 0; i + part->size <= whole->size; i++)
        if (!part->size || !memcmp(whole->text + i, part->text, part->size))
            return true;
    return false;
}

static err_t is_in(arena_t *arena, bytes_t part, bytes_t whole, bool *holds)
{
    mp_value_t a, b;
    bytes_t item;
    *holds = false;
    if (!head_of(part, &a) || !head_of(whole, &b))
        return err_of(ERR_PARSE, "a value is not msgpack");
    if (b.type == MP_ARRAY) {
        mp_reader_t reader = mp_reader(whole);
        mp_read(&reader, &b);
        for (uint32_t i = 0; i < b.count && !*holds && mp_slice(&reader, &item); i++)
            *holds = equal(arena, part, item);
        return err_ok();
    }
    if (a.type == MP_STR && b.type == MP_STR) {
        *holds = contains(&b, &a);
        return err_ok();
    }
    if (a.type == MP_STR && b.type == MP_MAP) {
        *holds = mp_get(whole, mp_text(arena, part), &item);
        return err_ok();
    }
    return err_of(ERR_ARGUMENT, "behind `in` belongs a list, or for a text also a text or object");
}

static err_t compared(arena_t *arena, compare_t compare, bytes_t one, bytes_t other, bool *holds)
{
    int order = 0;
    if (compare == IN)
        return is_in(arena, one, other, holds);
    if (compare == EQUAL || compare == UNEQUAL) {
        *holds = equal(arena, one, other) == (compare == EQUAL);
        return err_ok();
    }
    err_t err = order_of(arena, one, other, &order);
    *holds = compare == BELOW     ? order < 0
             : compare == ABOVE   ? order > 0
             : compare == AT_MOST ? order <= 0
                                  : order >= 0;
    return err;
}

/* ---- the grammar -------------------------------------------------------------------------- */

static err_t take_any(reading_t *in, bool live, bool *holds);

static err_t take_exists(reading_t *in, bool live, bool *holds)
{
    operand_t operand;
    mp_value_t head;
    skip_spaces(in);
    if (in->size - in->at < 2 || memcmp(in->text + in->at, "{{", 2) != 0)
        return faulty(in, "a {{reference}}");
    err_t err = take_operand(in, live, &operand);
    *holds = !err_is(err) && !err_is(operand.missing) && head_of(operand.value, &head) &&
             head.type != MP_NIL;
    return err;
}

static compare_t take_compare(reading_t *in)
{
    for (size_t i = 0; i < sizeof(compares) / sizeof(compares[0]); i++)
        if (take(in, compares[i].word))
            return compares[i].compare;
    return NONE;
}

static err_t take_comparison(reading_t *in, bool live, bool *holds)
{
    operand_t one, other;
    live = live && in->values;
    err_t err = take_operand(in, live, &one);
    if (err_is(err))
        return err;
    compare_t compare = take_compare(in);
    if (compare == NONE) {
        *holds = live && truth(one.value);
        return live ? one.missing : err_ok();
    }
    err = take_operand(in, live, &other);
    if (err_is(err) || !live)
        return err;
    if (err_is(one.missing))
        return one.missing;
    if (err_is(other.missing))
        return other.missing;
    return compared(in->arena, compare, one.value, other.value, holds);
}

static err_t take_one(reading_t *in, bool live, bool *holds)
{
    err_t err;
    *holds = false;
    if (in->depth == DEEPEST)
        return err_of(ERR_ARGUMENT, "the condition is nested more than 32 deep: simplify it");
    in->depth++;
    if (take(in, "not")) {
        err = take_one(in, live, holds);
        *holds = !*holds;
    } else if (take(in, "(")) {
        err = take_any(in, live, holds);
        if (!err_is(err) && !take(in, ")"))
            err = faulty(in, ")");
    } else if (take(in, "exists")) {
        err = take_exists(in, live, holds);
    } else {
        err = take_comparison(in, live, holds);
    }
    in->depth--;
    return err;
}

static err_t take_all(reading_t *in, bool live, bool *holds)
{
    err_t err = take_one(in, live, holds);
    while (!err_is(err) && take(in, "and")) {
        bool right;
        err = take_one(in, live && *holds, &right);
        *holds = *holds && right;
    }
    return err;
}

static err_t take_any(reading_t *in, bool live, bool *holds)
{
    err_t err = take_all(in, live, holds);
    while (!err_is(err) && take(in, "or")) {
        bool right;
        err = take_all(in, live && !*holds, &right);
        *holds = *holds || right;
    }
    return err;
}

err_t condition_holds(arena_t *arena, const values_t *values, const char *text, size_t size,
                      size_t *at, bool *holds)
{
    reading_t in = {.arena = arena, .values = values, .text = text, .size = size};
    err_t err = take_any(&in, true, holds);
    skip_spaces(&in);
    if (!err_is(err) && in.at < size)
        err = faulty(&in, "and, or, a comparison or the end");
    *at = in.at;
    *holds = *holds && values && !err_is(err);
    return err;
}
