/* What a caller gives to a run, as the inputs that the procedure names. */
#include <string.h>

#include "actors/agent/sop.h"
#include "actors/agent/span.h"
#include "proto/json.h"
#include "proto/mp.h"

static bool in_inputs(const sop_t *sop, const mp_value_t *key)
{
    for (size_t i = 0; i < sop->input_count; i++)
        if (span_is((span_t){key->text, key->size}, sop->inputs[i].name))
            return true;
    return false;
}

static const char *inputs_text(arena_t *arena, const sop_t *sop)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < sop->input_count; i++)
        buf_printf(&out, "%s%s%s", i ? ", " : "", sop->inputs[i].name,
                   sop->inputs[i].optional ? " (optional)" : "");
    return out.data;
}

static err_t check_inputs(arena_t *arena, const sop_t *sop, bytes_t map)
{
    bytes_t value;
    for (size_t i = 0; i < sop->input_count; i++)
        if (!sop->inputs[i].optional && !mp_get(map, sop->inputs[i].name, &value))
            return err_make(arena, ERR_ARGUMENT, "the input '%s' is missing: it takes %s",
                            sop->inputs[i].name, inputs_text(arena, sop));
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    if (!mp_read(&reader, &head))
        return err_of(ERR_PARSE, "the input is not msgpack");
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || !mp_skip(&reader))
            return err_of(ERR_PARSE, "the input is not msgpack");
        if (key.type != MP_STR || !in_inputs(sop, &key))
            return err_make(arena, ERR_ARGUMENT, "there is no input '%.*s': it takes %s",
                            key.type == MP_STR ? (int)key.size : 0, key.text,
                            inputs_text(arena, sop));
    }
    return err_ok();
}

/* The only input that must be given, or NULL. */
static const char *single_input(const sop_t *sop)
{
    const char *name = NULL;
    for (size_t i = 0; i < sop->input_count; i++) {
        if (sop->inputs[i].optional)
            continue;
        if (name)
            return NULL;
        name = sop->inputs[i].name;
    }
    return name;
}

/* A text that is a JSON object counts as that object. */
static bytes_t opened(arena_t *arena, bytes_t given)
{
    bytes_t value;
    mp_type_t type;
    const char *text = mp_text(arena, given);
    if (!text || *span_trim(span_of(text)).text != '{')
        return given;
    err_t err = json_to_msgpack(arena, text, strlen(text), NULL, &value);
    return !err_is(err) && mp_type_of(value, &type) && type == MP_MAP ? value : given;
}

err_t sop_input(arena_t *arena, const sop_t *sop, bytes_t given, bytes_t *input)
{
    buf_t out;
    mp_type_t type = MP_NIL;
    buf_open(&out, arena);
    mp_put_raw(&out, given);
    given = opened(arena, buf_bytes(&out));
    if (!mp_type_of(given, &type))
        return err_of(ERR_PARSE, "the input is not msgpack");
    bool nothing = type == MP_NIL || (type == MP_STR && !*mp_text(arena, given));
    if (sop->input_count && type != MP_MAP) {
        const char *name = nothing ? NULL : single_input(sop);
        if (!nothing && !name)
            return err_make(arena, ERR_ARGUMENT, "the input must be an object with %s",
                            inputs_text(arena, sop));
        buf_open(&out, arena);
        mp_put_map(&out, name ? 1 : 0);
        if (name) {
            mp_put_str(&out, name);
            mp_put_raw(&out, given);
        }
        given = buf_bytes(&out);
    }
    *input = given;
    return sop->input_count ? check_inputs(arena, sop, given) : err_ok();
}
