/* Any bytes as the arguments of a call and as a frame: an error in words, or a record that goes
 * there and back unchanged. */
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "proto/mp.h"
#include "proto/record.h"

#define colour_VALUES(V) V(RED, "red") V(GREEN, "green")
RECORD_ENUM(colour, colour_VALUES)

#define item_FIELDS(F)                                                                             \
    F(STR, id, must, 1, 8, "The id.")                                                              \
    F(INT, weight, opt(7), 0, 100, "How heavy.")                                                   \
    F(STRS, words, opt(), 0, 0, "Words.")
RECORD(item, item_FIELDS)

/* Names of one letter, so that the fuzzer finds them. */
#define all_FIELDS(F)                                                                              \
    F(STR, s, opt(), 0, 64, "S.")                                                                  \
    F(INT, i, opt(3), 1, 100, "I.")                                                                \
    F(TIME, t, opt(), 0, 0, "T.")                                                                  \
    F(REAL, r, opt(), -1, 1, "R.")                                                                 \
    F(BOOL, b, opt(true), 0, 0, "B.")                                                              \
    F(ENUM(colour), e, opt(green), 0, 0, "E.")                                                     \
    F(VEC, v, opt(), 0, 0, "V.")                                                                   \
    F(STRS, w, opt(), 0, 3, "W.")                                                                  \
    F(REC(item), o, opt(), 0, 0, "O.")                                                             \
    F(LIST(item), l, opt(), 0, 0, "L.")                                                            \
    F(COMPANY, c, opt(), 0, 0, "C.")                                                               \
    F(ANY, a, opt(), 0, 0, "A.")                                                                   \
    F(JSON, j, opt(), 0, 0, "J.")                                                                  \
    F(BYTES, y, opt(), 0, 0, "Y.")
RECORD(all, all_FIELDS)

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static bytes_t encoded(arena_t *arena, const record_t *record, const void *value)
{
    buf_t out;
    buf_open(&out, arena);
    record_encode(record, value, &out);
    return buf_bytes(&out);
}

static void same(bytes_t one, bytes_t other)
{
    if (one.size != other.size || memcmp(one.data, other.data, one.size) != 0)
        abort();
}

static void as_record(arena_t *arena, bytes_t bytes)
{
    all_t all, again, copy;
    err_t err = record_decode(&all_record, bytes, arena, "argument", &all);
    if (err_is(err)) {
        if (!err.what || !mp_utf8(err.what, strlen(err.what)) || strlen(err.what) > 1000)
            abort();
        return;
    }
    bytes_t first = encoded(arena, &all_record, &all);
    if (err_is(record_decode(&all_record, first, arena, "argument", &again)))
        abort();
    same(first, encoded(arena, &all_record, &again));
    record_copy(&all_record, &all, arena, &copy);
    same(first, encoded(arena, &all_record, &copy));
}

static void as_frame(arena_t *arena, bytes_t bytes)
{
    header_t header, again;
    if (err_is(frame_decode(bytes, (bytes_t){NULL, 0}, arena, &header)))
        return;
    buf_t first, second;
    buf_open(&first, arena);
    buf_open(&second, arena);
    frame_encode(&header, &first);
    if (first.size <= FRAME_HEADER_LARGEST &&
        err_is(frame_decode(buf_bytes(&first), (bytes_t){NULL, 0}, arena, &again)))
        abort();
}

static void as_time(arena_t *arena, const char *text)
{
    int64_t ms, again;
    if (record_time(text, &ms) &&
        (!record_time(record_time_text(arena, ms), &again) || again != ms))
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    arena_t *arena = arena_new();
    as_record(arena, (bytes_t){data, size});
    as_frame(arena, (bytes_t){data, size});
    as_time(arena, arena_strndup(arena, (const char *)data, size));
    arena_destroy(&arena);
    return 0;
}
