/* Any bytes as JSON, and as msgpack to be written as JSON: what is taken comes back the same. */
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void same(bytes_t one, bytes_t other)
{
    if (one.size != other.size || memcmp(one.data, other.data, one.size) != 0)
        abort();
}

static bytes_t through_text(arena_t *arena, bytes_t value, json_style_t style)
{
    buf_t text;
    bytes_t again;
    buf_open(&text, arena);
    if (err_is(json_from_msgpack(value, style, &text)) || !mp_utf8(text.data, text.size) ||
        err_is(json_to_msgpack(arena, text.data, text.size, NULL, &again)))
        abort();
    return again;
}

static void as_json(arena_t *arena, const char *text, size_t size)
{
    bytes_t value;
    err_t err = json_to_msgpack(arena, text, size, NULL, &value);
    if (err_is(err)) {
        if (!mp_utf8(err_what(err), strlen(err_what(err))))
            abort();
        return;
    }
    if (err_is(mp_check_depth(value, JSON_DEEPEST)))
        abort();
    same(value, through_text(arena, value, JSON_COMPACT));
    same(value, through_text(arena, value, JSON_PRETTY));
}

/* Good msgpack has a JSON form, and bad msgpack adds nothing. That form is a text of JSON unless
 * the value has a key twice, one with NUL, or more levels than a text may have. */
static void as_msgpack(arena_t *arena, bytes_t value)
{
    buf_t text;
    bytes_t first;
    bool good = !err_is(mp_check(value));
    buf_open(&text, arena);
    if (err_is(json_from_msgpack(value, JSON_COMPACT, &text)) == good)
        abort();
    if (!good && text.size)
        abort();
    if (good && !err_is(json_to_msgpack(arena, text.data, text.size, NULL, &first)))
        same(first, through_text(arena, first, JSON_COMPACT));
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    arena_t *arena = arena_new();
    as_json(arena, (const char *)data, size);
    as_msgpack(arena, (bytes_t){data, size});
    arena_destroy(&arena);
    return 0;
}
