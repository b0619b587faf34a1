/* mp: msgpack, read in place and written to a buffer.
 *
 * A reader is a cursor over bytes that somebody else owns; nothing is allocated and strings point
 * into those bytes (not NUL-terminated). After mp_read of an array or map its children follow:
 * `count` values, or `count` pairs. All functions are safe on any bytes: they return false at the
 * end or on malformed input and never read past the end. Writing uses msgpack-c.
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md. Ext types are refused.
 * Thread: pure.
 */
#ifndef PROTO_MP_H
#define PROTO_MP_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/err.h"

typedef enum mp_type {
    MP_NIL,
    MP_BOOL,
    MP_INT,  /* fits int64_t */
    MP_UINT, /* above INT64_MAX */
    MP_REAL,
    MP_STR,
    MP_BIN,
    MP_ARRAY,
    MP_MAP
} mp_type_t;

typedef struct mp_value {
    mp_type_t type;
    uint32_t count; /* array: values; map: pairs */
    union {
        bool boolean;
        int64_t integer;
        uint64_t natural;
        double real;
        struct {
            const char *text;
            uint32_t size;
        };
    };
} mp_value_t;

typedef struct mp_reader {
    const uint8_t *at;
    const uint8_t *end;
} mp_reader_t;

/* Deepest nesting that skip, slice and check follow. JSON text may nest 64 deep and a free-form
 * field RECORD_ANY_DEEPEST: what wraps them on their way always has room. */
enum { MP_DEPTH = 128 };

static inline mp_reader_t mp_reader(bytes_t bytes)
{
    return (mp_reader_t){bytes.data, bytes.size ? bytes.data + bytes.size : bytes.data};
}

/* Reads the head of the next value. */
bool mp_read(mp_reader_t *reader, mp_value_t *value);

/* Steps over one whole value, or yields its bytes. */
bool mp_skip(mp_reader_t *reader);
bool mp_slice(mp_reader_t *reader, bytes_t *whole);

/* One whole value and nothing after it: depth up to MP_DEPTH, valid UTF-8 in every str, map keys
 * are str and unique enough to read (duplicates: the first wins). ERR_PARSE. */
err_t mp_check(bytes_t bytes);
/* The same with a depth of its own, at most MP_DEPTH. */
err_t mp_check_depth(bytes_t bytes, int deepest);

bool mp_utf8(const char *text, size_t size);

/* The value of a key of a map, or of an index of an array; false when absent or not such. */
bool mp_get(bytes_t map, const char *key, bytes_t *value);
bool mp_at(bytes_t array, uint32_t index, bytes_t *value);
/* Several members in one pass, as mp_get finds them: values[i] is that of keys[i], empty when
 * absent. False: not a map. */
bool mp_pick(bytes_t map, const char *const *keys, size_t count, bytes_t *values);

/* The same member; empty when absent. The text of it, or NULL; whether it is true. */
bytes_t mp_member(bytes_t map, const char *key);
const char *mp_member_text(arena_t *arena, bytes_t map, const char *key);
bool mp_member_true(bytes_t map, const char *key);
/* 0 when absent or no integer. */
int64_t mp_member_int(bytes_t map, const char *key);

/* Reads one scalar; false when the value is of another type. mp_text copies into the arena. */
bool mp_int(bytes_t value, int64_t *out);
bool mp_real(bytes_t value, double *out);
bool mp_bool(bytes_t value, bool *out);
const char *mp_text(arena_t *arena, bytes_t value);
bool mp_type_of(bytes_t value, mp_type_t *out);
/* A string value equal to this text. */
bool mp_equals(bytes_t value, const char *text);

/* Same value by bytes, or the same number however it is written (1, 1.0). */
bool mp_same(bytes_t one, bytes_t other);

void mp_put_nil(buf_t *out);
void mp_put_bool(buf_t *out, bool value);
void mp_put_int(buf_t *out, int64_t value);
void mp_put_uint(buf_t *out, uint64_t value);
void mp_put_real(buf_t *out, double value);
void mp_put_str(buf_t *out, const char *text);
void mp_put_strn(buf_t *out, const char *text, size_t size);
void mp_put_bin(buf_t *out, const void *data, size_t size);
void mp_put_array(buf_t *out, uint32_t count);
void mp_put_map(buf_t *out, uint32_t pairs);
/* An already encoded value. An empty one is written as nil. */
void mp_put_raw(buf_t *out, bytes_t value);

/* A str of its own, in the arena. */
bytes_t mp_str(arena_t *arena, const char *text);

#endif
