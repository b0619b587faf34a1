#include "actors/agent/values.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "actors/agent/span.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- looking up --------------------------------------------------------------------------- */

static bytes_t nil_value(arena_t *arena)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_nil(&out);
    return buf_bytes(&out);
}

static bytes_t index_value(arena_t *arena, int64_t index)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_int(&out, index);
    return buf_bytes(&out);
}

static bool is_nil(bytes_t value)
{
    mp_type_t type;
    return mp_type_of(value, &type) && type == MP_NIL;
}

static const value_step_t *find_step(const values_t *values, const char *name)
{
    for (size_t i = 0; i < values->step_count; i++)
        if (!strcmp(values->steps[i].name, name))
            return &values->steps[i];
    return NULL;
}

/* One hop down. A name of digits is also an index. */
static bool hop_down(const value_hop_t *hop, bytes_t from, bytes_t *to)
{
    mp_type_t type;
    if (!mp_type_of(from, &type))
        return false;
    if (type == MP_MAP)
        return hop->key && mp_get(from, hop->key, to);
    if (type != MP_ARRAY)
        return false;
    if (!hop->key)
        return mp_at(from, hop->index, to);
    uint64_t index = 0;
    for (const char *c = hop->key; *c; c++) {
        if (!isdigit((unsigned char)*c) || index > UINT32_MAX)
            return false;
        index = index * 10 + (uint64_t)(*c - '0');
    }
    return index <= UINT32_MAX && mp_at(from, (uint32_t)index, to);
}

/* What a value has instead, for the sentence. */
static const char *keys_of(arena_t *arena, bytes_t value)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    if (!mp_read(&reader, &head))
        return "it is empty";
    if (head.type == MP_ARRAY)
        return arena_printf(arena, "it is a list of %" PRIu32, head.count);
    if (head.type != MP_MAP)
        return "it has no fields";
    buf_t out;
    buf_open(&out, arena);
    buf_puts(&out, head.count ? "it has " : "it is an object without fields");
    for (uint32_t i = 0; i < head.count && i < 12; i++) {
        mp_value_t key;
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_skip(&reader))
            break;
        if (i)
            buf_puts(&out, ", ");
        buf_put(&out, key.text, key.size < 40 ? key.size : 40);
    }
    if (head.count > 12)
        buf_puts(&out, " ...");
    return out.data;
}

static err_t not_found(arena_t *arena, const value_ref_t *ref, const value_hop_t *hop, bytes_t from)
{
    const char *keys = keys_of(arena, from);
    if (hop->key)
        return err_make(arena, ERR_NOT_FOUND, "{{%s}}: there is no '%s': %s", ref->text, hop->key,
                        keys);
    return err_make(arena, ERR_NOT_FOUND, "{{%s}}: there is no [%" PRIu32 "]: %s", ref->text,
                    hop->index, keys);
}

static err_t root_value(arena_t *arena, const values_t *values, const value_ref_t *ref,
                        bytes_t *value)
{
    const char *text = ref->root == VALUE_RUN_ID ? values->run_id : values->company;
    switch (ref->root) {
    case VALUE_INPUT:
        *value = values->input.size ? values->input : nil_value(arena);
        return err_ok();
    case VALUE_STEP: {
        const value_step_t *step = find_step(values, ref->step);
        if (!step)
            return err_make(arena, ERR_NOT_FOUND, "{{%s}}: step '%s' has no result yet", ref->text,
                            ref->step);
        if (step->refused)
            return err_make(arena, ERR_STATE,
                            "{{%s}}: step '%s' was refused because the run is simulated, so it has "
                            "no result",
                            ref->text, ref->step);
        *value = step->result.size ? step->result : nil_value(arena);
        return err_ok();
    }
    case VALUE_RUN_ID:
    case VALUE_COMPANY:
        *value = text ? mp_str(arena, text) : nil_value(arena);
        return err_ok();
    case VALUE_ITEM:
    case VALUE_INDEX:
        if (!values->item)
            return err_make(arena, ERR_NOT_FOUND, "{{%s}}: there is an item only in an ```each",
                            ref->text);
        *value = ref->root == VALUE_ITEM ? *values->item : index_value(arena, values->index);
        return err_ok();
    }
    return err_of(ERR_INTERNAL, "a reference without a root");
}

static err_t raw_value(arena_t *arena, const values_t *values, const value_ref_t *ref,
                       bytes_t *value)
{
    err_t err = root_value(arena, values, ref, value);
    for (size_t i = 0; i < ref->path_count && !err_is(err); i++) {
        bytes_t from = *value;
        if (!hop_down(&ref->path[i], from, value))
            err = not_found(arena, ref, &ref->path[i], from);
    }
    return err;
}

err_t value_put_text(bytes_t value, buf_t *out)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    if (!mp_read(&reader, &head))
        return err_of(ERR_PARSE, "a value is not msgpack");
    if (head.type == MP_NIL)
        return err_ok();
    if (head.type != MP_STR)
        return json_from_msgpack(value, JSON_COMPACT, out);
    buf_put(out, head.text, head.size);
    return err_ok();
}

static void put_quoted(buf_t *out, const char *text, size_t size)
{
    buf_puts(out, "'");
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\'')
            buf_puts(out, "'\\''");
        else
            buf_put(out, text + i, 1);
    buf_puts(out, "'");
}

/* A list stays as it is. */
static err_t lines_of(arena_t *arena, const value_ref_t *ref, bytes_t *value)
{
    mp_reader_t reader = mp_reader(*value);
    mp_value_t head;
    buf_t items, out;
    uint32_t count = 0;
    if (!mp_read(&reader, &head))
        return err_of(ERR_PARSE, "a value is not msgpack");
    if (head.type == MP_ARRAY)
        return err_ok();
    if (head.type != MP_STR)
        return err_make(arena, ERR_ARGUMENT, "{{%s}}: only a text has lines", ref->text);
    buf_open(&items, arena);
    buf_open(&out, arena);
    for (span_t rest = {head.text, head.size}; rest.size;) {
        span_t line = span_split(&rest, '\n');
        if (line.size && line.text[line.size - 1] == '\r')
            line.size--;
        if (!span_trim(line).size)
            continue;
        mp_put_strn(&items, line.text, line.size);
        count++;
    }
    mp_put_array(&out, count);
    buf_put(&out, items.data, items.size);
    *value = buf_bytes(&out);
    return err_ok();
}

static err_t filter(arena_t *arena, const value_ref_t *ref, value_filter_t which, bytes_t *value)
{
    buf_t plain, text, out;
    err_t err = err_ok();
    if (which == VALUE_DEFAULT) {
        if (is_nil(*value))
            *value = ref->fallback;
        return err;
    }
    if (which == VALUE_LINES)
        return lines_of(arena, ref, value);
    buf_open(&plain, arena);
    buf_open(&text, arena);
    buf_open(&out, arena);
    if (which == VALUE_JSON) {
        err = json_from_msgpack(*value, JSON_COMPACT, &text);
    } else {
        err = value_put_text(*value, &plain);
        put_quoted(&text, plain.data, plain.size);
    }
    mp_put_strn(&out, text.data, text.size);
    *value = buf_bytes(&out);
    return err;
}

err_t value_get(arena_t *arena, const values_t *values, const value_ref_t *ref, bytes_t *value)
{
    err_t err = raw_value(arena, values, ref, value);
    if (err.code == ERR_NOT_FOUND && ref->fallback.size) {
        *value = nil_value(arena);
        err = err_ok();
    }
    for (size_t i = 0; i < ref->filter_count && !err_is(err); i++)
        err = filter(arena, ref, ref->filters[i], value);
    return err;
}

/* ---- texts and trees ---------------------------------------------------------------------- */

static size_t largest(const values_t *values)
{
    return values->largest_bytes ? values->largest_bytes : VALUE_TEXT_LARGEST;
}

static err_t check_size(arena_t *arena, const values_t *values, size_t size)
{
    if (size <= largest(values))
        return err_ok();
    return err_make(arena, ERR_TOO_LARGE,
                    "with its values filled in the step is larger than %zu bytes: pass a file name "
                    "instead of the content",
                    largest(values));
}

void value_put_literal(buf_t *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\\' && i + 2 < size && text[i + 1] == '{' && text[i + 2] == '{')
            continue;
        buf_put(out, text + i, 1);
    }
}

err_t values_text(arena_t *arena, const values_t *values, const char *text, size_t size, buf_t *out)
{
    size_t start = out->size, done = 0, at = 0;
    for (;;) {
        value_ref_t ref;
        bool found;
        bytes_t value;
        err_t err = value_next(arena, text, size, &at, &ref, &found);
        if (err_is(err))
            return err;
        value_put_literal(out, text + done, (found ? ref.start : size) - done);
        if (!found)
            return check_size(arena, values, out->size - start);
        err = value_get(arena, values, &ref, &value);
        if (!err_is(err))
            err = value_put_text(value, out);
        if (!err_is(err))
            err = check_size(arena, values, out->size - start);
        if (err_is(err))
            return err;
        done = ref.end;
    }
}

bool value_is_ref(arena_t *arena, const char *text, size_t size, value_ref_t *ref)
{
    size_t at = 0;
    bool found;
    if (size < 4 || memcmp(text, "{{", 2) != 0)
        return false;
    err_t err = value_next(arena, text, size, &at, ref, &found);
    return !err_is(err) && found && ref->start == 0 && ref->end == size;
}

static err_t put_str(arena_t *arena, const values_t *values, const mp_value_t *head, buf_t *out)
{
    value_ref_t ref;
    buf_t text;
    if (value_is_ref(arena, head->text, head->size, &ref)) {
        bytes_t value;
        err_t err = value_get(arena, values, &ref, &value);
        if (!err_is(err))
            mp_put_raw(out, value);
        return err;
    }
    buf_open(&text, arena);
    err_t err = values_text(arena, values, head->text, head->size, &text);
    mp_put_strn(out, text.data, text.size);
    return err;
}

static err_t tree(arena_t *arena, const values_t *values, mp_reader_t *reader, unsigned depth,
                  buf_t *out)
{
    const uint8_t *start = reader->at;
    mp_value_t head;
    if (depth > MP_DEPTH || !mp_read(reader, &head))
        return err_of(ERR_PARSE, "a template is not msgpack, or nested too deeply");
    if (head.type == MP_STR)
        return put_str(arena, values, &head, out);
    buf_put(out, start, (size_t)(reader->at - start));
    if (head.type != MP_ARRAY && head.type != MP_MAP)
        return err_ok();
    for (uint32_t i = 0; i < head.count; i++) {
        err_t err;
        bytes_t key;
        if (head.type == MP_MAP) {
            if (!mp_slice(reader, &key))
                return err_of(ERR_PARSE, "a template is not msgpack");
            buf_put(out, key.data, key.size);
        }
        err = tree(arena, values, reader, depth + 1, out);
        if (err_is(err))
            return err;
    }
    return err_ok();
}

err_t values_tree(arena_t *arena, const values_t *values, bytes_t template, buf_t *out)
{
    size_t start = out->size;
    mp_reader_t reader = mp_reader(template);
    err_t err = tree(arena, values, &reader, 0, out);
    if (!err_is(err) && reader.at != reader.end)
        err = err_of(ERR_PARSE, "a template holds more than one value");
    return err_is(err) ? err : check_size(arena, values, out->size - start);
}
