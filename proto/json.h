/* json: JSON text to msgpack and back. RapidJSON reads (json_parse.h); writing is ours so that
 * numbers come out shortest and exact.
 *
 * On purpose: integers are exact from -2^63 to 2^64-1, larger ones are an error that says to quote
 * them; NaN and infinity have no JSON form and are written as null; text that is not UTF-8,
 * duplicate keys, and depth or size beyond the limits are errors. bin is written as Base64 text.
 * Thread: pure.
 */
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include "proto/arena.h"
#include "proto/err.h"

/* Many small values become larger than their text, so their number has a limit too. */
enum { JSON_LARGEST_BYTES = 16 << 20, JSON_DEEPEST = 64, JSON_CONTAINERS_MOST = 500000 };

typedef struct json_limits {
    size_t largest_bytes; /* 0: JSON_LARGEST_BYTES */
    unsigned deepest;     /* 0, or more than that: JSON_DEEPEST */
} json_limits_t;

typedef enum json_style { JSON_COMPACT, JSON_PRETTY /* 2 spaces */ } json_style_t;

/* `limits` may be NULL. ERR_PARSE with line and column, ERR_TOO_LARGE. */
err_t json_to_msgpack(arena_t *arena, const char *text, size_t size, const json_limits_t *limits,
                      bytes_t *out);

/* Appends the value as JSON. ERR_PARSE when `value` is not one well-formed msgpack value; then
 * nothing is appended. */
err_t json_from_msgpack(bytes_t value, json_style_t style, buf_t *out);

/* Appends a JSON string with quotes; `text` is UTF-8. */
void json_put_string(buf_t *out, const char *text, size_t size);

#endif
