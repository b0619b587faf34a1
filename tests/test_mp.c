/* msgpack read in place: every form, every cut, and the same answers as msgpack-c's own unpacker.
 */
#include "proto/mp.h"

#include <check.h>
#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* ---- Random trees, the same ones each run ---- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void put_tree(buf_t *out, uint64_t *seed, int depth);

static void put_leaf(buf_t *out, uint64_t *seed)
{
    static const char text[] = "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 plain text that is long "
                               "enough for a length of its own byte, and then some more of it";
    uint64_t random = next_random(seed);
    int shift = (int)(next_random(seed) % 64);
    double real;
    switch (random % 7) {
    case 0:
        mp_put_nil(out);
        break;
    case 1:
        mp_put_bool(out, random >> 32 & 1);
        break;
    case 2:
        mp_put_int(out, (int64_t)next_random(seed) >> shift);
        break;
    case 3:
        mp_put_uint(out, next_random(seed) >> shift);
        break;
    case 4:
        random = next_random(seed);
        memcpy(&real, &random, sizeof(real));
        mp_put_real(out, real);
        break;
    case 5:
        mp_put_strn(out, text, shift < 4 ? sizeof(text) - 1 : 3);
        break;
    default:
        mp_put_bin(out, text, (size_t)shift);
    }
}

static void put_tree(buf_t *out, uint64_t *seed, int depth)
{
    uint32_t count = (uint32_t)(next_random(seed) % (depth ? 5 : 20));
    switch (depth < 6 ? next_random(seed) % 4 : 3) {
    case 0:
        mp_put_array(out, count);
        while (count--)
            put_tree(out, seed, depth + 1);
        break;
    case 1:
        mp_put_map(out, count);
        while (count--) {
            char key[24];
            snprintf(key, sizeof(key), "key%u", count);
            mp_put_str(out, key);
            put_tree(out, seed, depth + 1);
        }
        break;
    default:
        put_leaf(out, seed);
    }
}

/* ---- Comparing with msgpack-c ---- */

static bool same_bytes(const mp_value_t *value, const char *data, uint32_t size)
{
    return value->size == size && (!size || !memcmp(value->text, data, size));
}

static bool same_as(mp_reader_t *reader, const msgpack_object *object)
{
    mp_value_t value;
    if (!mp_read(reader, &value))
        return false;
    switch (object->type) {
    case MSGPACK_OBJECT_NIL:
        return value.type == MP_NIL;
    case MSGPACK_OBJECT_BOOLEAN:
        return value.type == MP_BOOL && value.boolean == object->via.boolean;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return value.type == (object->via.u64 > INT64_MAX ? MP_UINT : MP_INT) &&
               value.natural == object->via.u64;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return value.type == MP_INT && value.integer == object->via.i64;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return value.type == MP_REAL &&
               (value.real == object->via.f64 || (isnan(value.real) && isnan(object->via.f64)));
    case MSGPACK_OBJECT_STR:
        return value.type == MP_STR &&
               same_bytes(&value, object->via.str.ptr, object->via.str.size);
    case MSGPACK_OBJECT_BIN:
        return value.type == MP_BIN &&
               same_bytes(&value, object->via.bin.ptr, object->via.bin.size);
    case MSGPACK_OBJECT_ARRAY:
        for (uint32_t i = 0; i < object->via.array.size; i++)
            if (!same_as(reader, &object->via.array.ptr[i]))
                return false;
        return value.type == MP_ARRAY && value.count == object->via.array.size;
    case MSGPACK_OBJECT_MAP:
        for (uint32_t i = 0; i < object->via.map.size; i++)
            if (!same_as(reader, &object->via.map.ptr[i].key) ||
                !same_as(reader, &object->via.map.ptr[i].val))
                return false;
        return value.type == MP_MAP && value.count == object->via.map.size;
    case MSGPACK_OBJECT_EXT:
        break;
    }
    return false;
}

static bool has_ext(const msgpack_object *object)
{
    bool found = object->type == MSGPACK_OBJECT_EXT;
    if (object->type == MSGPACK_OBJECT_ARRAY)
        for (uint32_t i = 0; i < object->via.array.size && !found; i++)
            found = has_ext(&object->via.array.ptr[i]);
    if (object->type == MSGPACK_OBJECT_MAP)
        for (uint32_t i = 0; i < object->via.map.size && !found; i++)
            found = has_ext(&object->via.map.ptr[i].key) || has_ext(&object->via.map.ptr[i].val);
    return found;
}

/* Both must take the same number of bytes and see the same values, or both refuse. */
static void check_against_library(const void *data, size_t size)
{
    msgpack_unpacked theirs;
    size_t used = 0;
    msgpack_unpacked_init(&theirs);
    bool taken = msgpack_unpack_next(&theirs, data, size, &used) == MSGPACK_UNPACK_SUCCESS &&
                 !has_ext(&theirs.data);
    mp_reader_t reader = mp_reader((bytes_t){data, size}), again = reader;
    ck_assert_int_eq(mp_skip(&reader), taken);
    if (taken) {
        ck_assert_uint_eq((size_t)(reader.at - (const uint8_t *)data), used);
        ck_assert(same_as(&again, &theirs.data));
        ck_assert(again.at == reader.at);
    }
    msgpack_unpacked_destroy(&theirs);
}

START_TEST(agrees_with_the_library)
{
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < 3000; i++) {
        arena_t *arena = arena_new();
        buf_t out;
        buf_open(&out, arena);
        put_tree(&out, &seed, 0);
        ck_assert(!err_is(mp_check(buf_bytes(&out))));
        check_against_library(out.data, out.size);
        arena_destroy(&arena);
    }
}
END_TEST

/* The library allocates for any count of 32 bits before it looks at the bytes left. */
static uint8_t without_huge_counts(uint8_t byte)
{
    return byte == 0xdd || byte == 0xdf ? byte - 0x4d : byte;
}

/* Short random bytes: every other lead byte, mostly nonsense behind it. */
START_TEST(agrees_on_nonsense)
{
    uint64_t seed = 362436069u;
    uint8_t data[24];
    for (int i = 0; i < 50000; i++) {
        size_t size = 1 + next_random(&seed) % sizeof(data);
        for (size_t j = 0; j < size; j++)
            data[j] = without_huge_counts((uint8_t)(next_random(&seed) >> 24));
        data[0] = without_huge_counts((uint8_t)i);
        uint8_t *exact = malloc(size); /* so that the sanitizer sees a read past the end */
        ck_assert_ptr_nonnull(exact);
        memcpy(exact, data, size);
        check_against_library(exact, size);
        free(exact);
    }
}
END_TEST

START_TEST(agrees_on_wide_forms)
{
    static const char *const wide[] = {"\xdd\0\0\0\x02\x01\x02", "\xdf\0\0\0\x01\xa1k\x02",
                                       "\xdb\0\0\0\x02hi\xc0",   "\xc6\0\0\0\x02hi\xc0",
                                       "\xdc\0\x02\xc2\xc3\0",   "\xde\0\x01\xa1k\xca?\x80\0\0"};
    static const size_t sizes[] = {7, 8, 8, 8, 6, 10};
    for (size_t i = 0; i < sizeof(wide) / sizeof(*wide); i++)
        for (size_t cut = 1; cut <= sizes[i]; cut++)
            check_against_library(wide[i], cut);
}
END_TEST

/* Every prefix of a good value is bad. */
START_TEST(every_cut_is_refused)
{
    uint64_t seed = 521288629u;
    for (int i = 0; i < 200; i++) {
        arena_t *arena = arena_new();
        buf_t out;
        buf_open(&out, arena);
        put_tree(&out, &seed, 0);
        for (size_t cut = 0; cut < out.size; cut++) {
            bytes_t part = {arena_copy(arena, out.data, cut), cut};
            mp_reader_t reader = mp_reader(part);
            ck_assert(!mp_skip(&reader));
            ck_assert_int_eq(mp_check(part).code, ERR_PARSE);
        }
        buf_put(&out, "\xc0", 1);
        ck_assert_int_eq(mp_check(buf_bytes(&out)).code, ERR_PARSE);
        arena_destroy(&arena);
    }
}
END_TEST

/* ---- Numbers ---- */

START_TEST(keeps_integers)
{
    static const int64_t edges[] = {0,          1,
                                    -1,         127,
                                    128,        255,
                                    256,        -32,
                                    -33,        -128,
                                    -129,       32767,
                                    -32768,     -32769,
                                    65535,      65536,
                                    INT32_MAX,  INT32_MIN,
                                    4294967295, 4294967296,
                                    1LL << 53,  (1LL << 53) + 1,
                                    INT64_MAX,  INT64_MIN};
    arena_t *arena = arena_new();
    for (size_t i = 0; i < sizeof(edges) / sizeof(*edges); i++) {
        buf_t out;
        int64_t back = 0;
        buf_open(&out, arena);
        mp_put_int(&out, edges[i]);
        ck_assert(mp_int(buf_bytes(&out), &back));
        ck_assert_int_eq(back, edges[i]);
    }
    buf_t out;
    int64_t none;
    mp_type_t type;
    double real;
    buf_open(&out, arena);
    mp_put_uint(&out, UINT64_MAX);
    ck_assert(!mp_int(buf_bytes(&out), &none));
    ck_assert(mp_type_of(buf_bytes(&out), &type) && type == MP_UINT);
    ck_assert(mp_real(buf_bytes(&out), &real) && real == 0x1p64);
    arena_destroy(&arena);
}
END_TEST

static bytes_t real_value(arena_t *arena, double value)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_real(&out, value);
    return buf_bytes(&out);
}

static bytes_t int_value(arena_t *arena, int64_t value)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_int(&out, value);
    return buf_bytes(&out);
}

START_TEST(whole_reals_are_integers)
{
    arena_t *arena = arena_new();
    int64_t back = 0;
    ck_assert(mp_int(real_value(arena, -3.0), &back) && back == -3);
    ck_assert(mp_int(real_value(arena, 0x1p53), &back) && back == 1LL << 53);
    ck_assert(!mp_int(real_value(arena, 3.5), &back));
    ck_assert(!mp_int(real_value(arena, 1e300), &back));
    ck_assert(!mp_int(real_value(arena, (double)NAN), &back));
    ck_assert(!mp_int(real_value(arena, (double)-INFINITY), &back));
    arena_destroy(&arena);
}
END_TEST

START_TEST(same_numbers)
{
    static const uint8_t wide_five[] = {0xcd, 0, 5}, large[] = {0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0};
    arena_t *arena = arena_new();
    int64_t odd = (1LL << 53) + 1;
    ck_assert(mp_same(int_value(arena, 5), real_value(arena, 5)));
    ck_assert(mp_same(real_value(arena, 5), int_value(arena, 5)));
    ck_assert(mp_same(int_value(arena, 5), (bytes_t){wide_five, 3}));
    ck_assert(!mp_same(int_value(arena, odd), int_value(arena, odd - 1)));
    ck_assert(!mp_same(int_value(arena, odd), real_value(arena, 0x1p53)));
    ck_assert(!mp_same(int_value(arena, INT64_MAX), real_value(arena, 0x1p63)));
    ck_assert(mp_same((bytes_t){large, 9}, real_value(arena, 0x1p63)));
    ck_assert(!mp_same((bytes_t){large, 9}, int_value(arena, INT64_MIN)));
    ck_assert(!mp_same(int_value(arena, 0), (bytes_t){(const uint8_t *)"\xc2", 1}));
    ck_assert(!mp_same((bytes_t){NULL, 0}, int_value(arena, 0)));
    arena_destroy(&arena);
}
END_TEST

/* ---- Text ---- */

START_TEST(knows_utf8)
{
    static const char *const good[] = {"",
                                       "plain ascii of more than eight",
                                       "\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "12345678\xe2\x82",
                                      "\xe2\x28\xa1",
                                      "\xf0\x9f\x98"};
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        ck_assert_msg(mp_utf8(good[i], strlen(good[i])), "good %zu", i);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_assert_msg(!mp_utf8(bad[i], strlen(bad[i])), "bad %zu", i);
    ck_assert(mp_utf8("a\0b", 3));
}
END_TEST

static err_t check_bytes(const char *data, size_t size)
{
    return mp_check((bytes_t){(const uint8_t *)data, size});
}

START_TEST(check_refuses)
{
    ck_assert_str_eq(err_what(check_bytes("\xa1\xff", 2)), "a string is not valid UTF-8");
    ck_assert_str_eq(err_what(check_bytes("\x81\x01\x02", 3)), "a map key is not a string");
    ck_assert_str_eq(err_what(check_bytes("\x81\xa1\xff\x02", 4)), "a string is not valid UTF-8");
    ck_assert_int_eq(check_bytes("", 0).code, ERR_PARSE);
    ck_assert_int_eq(check_bytes("\xc1", 1).code, ERR_PARSE);
    ck_assert_int_eq(check_bytes("\xd4\x01\x02", 3).code, ERR_PARSE);
    ck_assert_int_eq(check_bytes("\x01\x01", 2).code, ERR_PARSE);
    ck_assert(!err_is(check_bytes("\x82\xa1k\x01\xa1m\x81\xa1n\xc0", 10)));
    /* A lie about a count costs nothing. */
    ck_assert_int_eq(check_bytes("\xdd\xff\xff\xff\xff\x01", 6).code, ERR_PARSE);
    ck_assert_int_eq(check_bytes("\xdf\xff\xff\xff\xff\x01", 6).code, ERR_PARSE);
    ck_assert_int_eq(check_bytes("\xdb\xff\xff\xff\xff\x01", 6).code, ERR_PARSE);
}
END_TEST

START_TEST(depth_has_a_limit)
{
    uint8_t nested[MP_DEPTH + 2];
    memset(nested, 0x91, sizeof(nested)); /* an array of one */
    for (int depth = 1; depth <= MP_DEPTH + 1; depth++) {
        nested[depth] = 0xc0;
        bytes_t bytes = {nested, (size_t)depth + 1};
        mp_reader_t reader = mp_reader(bytes);
        ck_assert_int_eq(mp_skip(&reader), depth <= MP_DEPTH);
        ck_assert_int_eq(err_is(mp_check(bytes)), depth > MP_DEPTH);
        ck_assert_int_eq(err_is(mp_check_depth(bytes, 10)), depth > 10);
        ck_assert_int_eq(err_is(mp_check_depth(bytes, 1000)), depth > MP_DEPTH);
        nested[depth] = 0x91;
    }
    size_t size = 1 << 20;
    uint8_t *bomb = malloc(size);
    ck_assert_ptr_nonnull(bomb);
    memset(bomb, 0x91, size);
    mp_reader_t reader = mp_reader((bytes_t){bomb, size});
    ck_assert(!mp_skip(&reader));
    ck_assert(err_is(mp_check((bytes_t){bomb, size})));
    free(bomb);
}
END_TEST

/* ---- Looking things up ---- */

START_TEST(finds_by_key_and_index)
{
    arena_t *arena = arena_new();
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, 3);
    mp_put_str(&out, "list");
    mp_put_array(&out, 2);
    mp_put_str(&out, "first");
    mp_put_bool(&out, true);
    mp_put_str(&out, "twice");
    mp_put_int(&out, 1);
    mp_put_str(&out, "twice");
    mp_put_int(&out, 2);
    bytes_t list, item, value, map = buf_bytes(&out);
    bool truth = false;
    int64_t number = 0;
    ck_assert(mp_get(map, "list", &list) && mp_at(list, 0, &item) && mp_equals(item, "first"));
    ck_assert(!mp_equals(item, "firs") && !mp_equals(item, "firsts"));
    ck_assert_str_eq(mp_text(arena, item), "first");
    ck_assert(mp_at(list, 1, &item) && mp_bool(item, &truth) && truth);
    ck_assert_ptr_null(mp_text(arena, item));
    ck_assert(!mp_at(list, 2, &item) && !mp_at(map, 0, &item) && !mp_get(list, "x", &item));
    ck_assert(mp_get(map, "twice", &value) && mp_int(value, &number) && number == 1);
    ck_assert(!mp_get(map, "lis", &value) && !mp_get(map, "", &value));
    ck_assert(!mp_get((bytes_t){NULL, 0}, "x", &value) && !mp_at((bytes_t){NULL, 0}, 0, &value));
    arena_destroy(&arena);
}
END_TEST

START_TEST(writes_odd_things)
{
    arena_t *arena = arena_new();
    buf_t out;
    buf_open(&out, arena);
    mp_put_str(&out, NULL);
    mp_put_strn(&out, NULL, 0);
    mp_put_bin(&out, NULL, 0);
    mp_put_raw(&out, (bytes_t){NULL, 0});
    mp_put_raw(&out, (bytes_t){(const uint8_t *)"\x07", 1});
    ck_assert_uint_eq(out.size, 6);
    ck_assert_mem_eq(out.data, "\xc0\xa0\xc4\x00\xc0\x07", 6);
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mp");
    TCase *core = tcase_create("core");
    tcase_set_timeout(core, 60);
    tcase_add_test(core, agrees_with_the_library);
    tcase_add_test(core, agrees_on_nonsense);
    tcase_add_test(core, agrees_on_wide_forms);
    tcase_add_test(core, every_cut_is_refused);
    tcase_add_test(core, keeps_integers);
    tcase_add_test(core, whole_reals_are_integers);
    tcase_add_test(core, same_numbers);
    tcase_add_test(core, knows_utf8);
    tcase_add_test(core, check_refuses);
    tcase_add_test(core, depth_has_a_limit);
    tcase_add_test(core, finds_by_key_and_index);
    tcase_add_test(core, writes_odd_things);
    suite_add_tcase(suite, core);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
