/* JSON to msgpack and back: exact numbers, limits, sentences, and round trips of random trees. */
#include "proto/json.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

static arena_t *arena;

static void open_arena(void)
{
    arena = arena_new();
}

static void close_arena(void)
{
    arena_destroy(&arena);
}

static bytes_t packed(const char *json)
{
    bytes_t value = {NULL, 0};
    err_t err = json_to_msgpack(arena, json, strlen(json), NULL, &value);
    ck_assert_msg(!err_is(err), "%s: %s", json, err_what(err));
    ck_assert(!err_is(mp_check(value)));
    return value;
}

static const char *text_of(bytes_t value)
{
    buf_t out;
    buf_open(&out, arena);
    err_t err = json_from_msgpack(value, JSON_COMPACT, &out);
    return err_is(err) ? err_info(err.code)->name : out.data;
}

static const char *again(const char *json)
{
    return text_of(packed(json));
}

/* The sentence of the error; "" when there is none. */
static const char *refused_size(const char *json, size_t size)
{
    bytes_t value;
    err_t err = json_to_msgpack(arena, json, size, NULL, &value);
    ck_assert(!err_is(err) || err.code == ERR_PARSE || err.code == ERR_TOO_LARGE);
    return err_is(err) ? err_what(err) : "";
}

static const char *refused(const char *json)
{
    return refused_size(json, strlen(json));
}

/* ---- Reading ---- */

START_TEST(keeps_values)
{
    static const char *const same[] = {"null",
                                       "true",
                                       "false",
                                       "0",
                                       "-1",
                                       "1.5",
                                       "\"\"",
                                       "\"text\"",
                                       "[]",
                                       "{}",
                                       "[[],{}]",
                                       "{\"z\":1,\"a\":2,\"m\":[1,2,{\"y\":null,\"b\":false}]}",
                                       "\"caf\xc3\xa9 \xf0\x9f\x98\x80\"",
                                       "\"\\\"\\\\\\n\\r\\t\\u0001\\u001f\\u007f\"",
                                       "\"a\\u0000b\"",
                                       "\"/\""};
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        ck_assert_str_eq(again(same[i]), same[i]);
    ck_assert_str_eq(again(" \t\r\n[ 1 , 2 ]\n"), "[1,2]");
    ck_assert_str_eq(again("\"\\u00e9\\ud83d\\ude00\\/\\b\\f\""),
                     "\"\xc3\xa9\xf0\x9f\x98\x80/\\u0008\\u000c\"");
}
END_TEST

START_TEST(keeps_integers)
{
    static const char *const same[] = {
        "9007199254740991",     "9007199254740992",     "9007199254740993",
        "-9007199254740993",    "9223372036854775807",  "9223372036854775808",
        "9999999999999999999",  "10000000000000000000", "18446744073709551614",
        "18446744073709551615", "-9223372036854775808", "-9223372036854775807"};
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        ck_assert_str_eq(again(same[i]), same[i]);
    mp_type_t type;
    ck_assert(mp_type_of(packed("18446744073709551615"), &type) && type == MP_UINT);
    ck_assert(mp_type_of(packed("9223372036854775807"), &type) && type == MP_INT);
    ck_assert_str_eq(again("{\"a\":[1,18446744073709551615,2.5,\"18446744073709551615\"],"
                           "\"b\":9223372036854775808,\"c\":3,\"d\":9223372036854775809}"),
                     "{\"a\":[1,18446744073709551615,2.5,\"18446744073709551615\"],"
                     "\"b\":9223372036854775808,\"c\":3,\"d\":9223372036854775809}");
}
END_TEST

START_TEST(refuses_larger_integers)
{
    ck_assert_str_eq(refused("18446744073709551616"),
                     "line 1, column 1: this integer is larger than 64 bits: write it as a string");
    ck_assert_str_eq(refused("{\n  \"caf\xc3\xa9\": -9223372036854775809}"),
                     "line 2, column 11: this integer is larger than 64 bits: write it as a "
                     "string");
    ck_assert_str_ne(refused("123456789012345678901234567890"), "");
    ck_assert_str_eq(refused("123456789012345678901234567890.0"), "");
    ck_assert_str_eq(refused("1e30"), "");
    ck_assert_str_eq(refused("\"18446744073709551616\""), "");
}
END_TEST

/* A text is a text, whatever it says. */
START_TEST(no_text_becomes_a_number)
{
    static const char *const same[] = {"[\"\\u0001uint64:123\",18446744073709551615]",
                                       "\"\\u0001uint64:123\"", "[\"0.0000000000000000000\"]",
                                       "[\"\\\"\",18446744073709551615,\"\\\\\"]"};
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        ck_assert_str_eq(again(same[i]), same[i]);
}
END_TEST

START_TEST(keeps_reals)
{
    static const char *const same[] = {"3.0",
                                       "-0.0",
                                       "0.1",
                                       "1e+22",
                                       "1.7976931348623157e+308",
                                       "2.5e-08",
                                       "123456789.125",
                                       "0.30000000000000004"};
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        ck_assert_str_eq(again(same[i]), same[i]);
    ck_assert_str_eq(again("1E5"), "100000.0");
    ck_assert_str_eq(again("-1.50"), "-1.5");
    ck_assert_str_ne(refused("1e999"), "");
    ck_assert_str_ne(refused("-1e999"), "");
}
END_TEST

START_TEST(refuses_what_is_no_json)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "[",
                                      "\"",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "[1 2]",
                                      "01",
                                      "-",
                                      "+1",
                                      ".5",
                                      "1.",
                                      "1e",
                                      "0x10",
                                      "NaN",
                                      "Infinity",
                                      "-Infinity",
                                      "nul",
                                      "True",
                                      "[1]x",
                                      "[1][2]",
                                      "// c\n1",
                                      "\"\n\"",
                                      "\"\t\"",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00x\"",
                                      "]",
                                      "}",
                                      "[}",
                                      "{]",
                                      "{1:2}",
                                      "{\"a\"}",
                                      "01234567890123456789",
                                      "[00000000000000000000]",
                                      "-09223372036854775808",
                                      "9223372036854775808x",
                                      "1-1",
                                      "--1",
                                      "18446744073709551615-",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"a\":1,\"\\u0061\":2}",
                                      "{\"a\\u0000b\":1}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *what = refused(bad[i]);
        ck_assert_msg(!strncmp(what, "line ", 5), "%s: '%s'", bad[i], what);
    }
    ck_assert_str_ne(refused_size("\xef\xbb\xbf{}", 5), "");
    ck_assert_str_ne(refused_size("{}\0", 3), "");
    ck_assert_str_ne(refused_size("[1\0]", 4), "");
}
END_TEST

START_TEST(refuses_bad_utf8)
{
    static const char *const bad[] = {"\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\xe2\x82\"",
                                      "{\"\x80\":1}",
                                      "\xff",
                                      "[\"ok\",\"\xf4\x90\x80\x80\"]"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *what = refused(bad[i]);
        ck_assert_str_ne(what, "");
        ck_assert(mp_utf8(what, strlen(what)));
    }
}
END_TEST

START_TEST(says_where)
{
    const char *what = refused("{\n \"a\": 1,\n \"b\": x}");
    ck_assert_msg(!strncmp(what, "line 3, column ", 15), "%s", what);
    ck_assert_msg(strstr(what, "'x'") != NULL, "%s", what);
}
END_TEST

/* Integers above INT64_MAX do not move the place of an error. */
START_TEST(large_integers_keep_places)
{
    const char *plain = refused("[1000000000000000000, 1000000000000000000, x]");
    const char *large = refused("[9999999999999999999, 9999999999999999999, x]");
    ck_assert_str_ne(plain, "");
    ck_assert_str_eq(plain, large);
}
END_TEST

/* Input is quoted in sentences; it must not bring control characters along. */
START_TEST(sentences_are_one_line)
{
    static const char *const bad[] = {"[1\x01]", "\x1b[31mred", "[\"a\nb\"]", "{\"a\":\x7f}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        for (const char *at = refused(bad[i]); *at; at++)
            ck_assert_msg((unsigned char)*at >= 0x20 && *at != 0x7f, "%zu", i);
}
END_TEST

/* ---- Limits ---- */

static char *nested(size_t depth)
{
    char *text = arena_alloc(arena, 2 * depth + 1);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    return text;
}

START_TEST(depth_has_a_limit)
{
    ck_assert_str_eq(again(nested(64)), nested(64));
    ck_assert_str_eq(refused(nested(65)),
                     "line 1, column 65: values are nested deeper than 64 levels");
    ck_assert_str_ne(refused(nested(1 << 20)), "");
    json_limits_t limits = {.deepest = 2};
    bytes_t value;
    ck_assert(!err_is(json_to_msgpack(arena, "[[]]", 4, &limits, &value)));
    ck_assert(err_is(json_to_msgpack(arena, "[[[]]]", 6, &limits, &value)));
    limits.deepest = 1000;
    ck_assert(err_is(json_to_msgpack(arena, nested(65), 130, &limits, &value)));
    ck_assert_str_eq(
        refused("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\""), "");
}
END_TEST

START_TEST(size_has_a_limit)
{
    json_limits_t limits = {.largest_bytes = 10};
    bytes_t value;
    ck_assert(!err_is(json_to_msgpack(arena, "\"12345678\"", 10, &limits, &value)));
    err_t err = json_to_msgpack(arena, "\"123456789\"", 11, &limits, &value);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    ck_assert_str_eq(err.what, "the JSON has 11 bytes; at most 10 are allowed");
}
END_TEST

START_TEST(containers_have_a_limit)
{
    size_t count = JSON_CONTAINERS_MOST + 10, size = 3 * count + 1;
    char *text = malloc(size);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < count; i++)
        memcpy(text + 3 * i, ",{}", 3);
    text[0] = '[';
    text[size - 1] = ']';
    bytes_t value;
    ck_assert_int_eq(json_to_msgpack(arena, text, size, NULL, &value).code, ERR_TOO_LARGE);
    free(text);
}
END_TEST

/* A head has one, three or five bytes, and what is inside moves behind it. */
START_TEST(any_number_of_members)
{
    static const size_t counts[] = {0, 1, 15, 16, 17, 65535, 65536};
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        buf_t json;
        buf_open(&json, arena);
        buf_puts(&json, "[[");
        for (size_t n = 0; n < counts[i]; n++)
            buf_printf(&json, "%s\"%zu\"", n ? "," : "", n);
        buf_puts(&json, "],{");
        for (size_t n = 0; n < counts[i]; n++)
            buf_printf(&json, "%s\"k%zu\":[%zu]", n ? "," : "", n, n);
        buf_puts(&json, "},7]");
        ck_assert_str_eq(again(json.data), json.data);
    }
}
END_TEST

START_TEST(each_key_once)
{
    ck_assert_str_eq(refused("{\"a\":1,\"b\":{\"a\":2},\n\"a\":3}"),
                     "line 2, column 4: the key 'a' comes twice");
    for (size_t count = 2; count < 40; count++) {
        buf_t json;
        buf_open(&json, arena);
        buf_puts(&json, "{");
        for (size_t n = 0; n < count; n++)
            buf_printf(&json, "\"k%zu\":{\"k1\":0},", n);
        char *at_end = arena_strdup(arena, json.data);
        ck_assert_str_eq(again(arena_printf(arena, "%s\"k\":0}", at_end)),
                         arena_printf(arena, "%s\"k\":0}", at_end));
        const char *what = refused(arena_printf(arena, "%s\"\\u006b%zu\":0}", at_end, count / 2));
        ck_assert_msg(strstr(what, arena_printf(arena, "'k%zu' comes twice", count / 2)) != NULL,
                      "%s", what);
    }
}
END_TEST

/* ---- Writing ---- */

static bytes_t real_value(double value)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_real(&out, value);
    return buf_bytes(&out);
}

START_TEST(writes_what_json_lacks)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_array(&out, 8);
    mp_put_bin(&out, "", 0);
    mp_put_bin(&out, "f", 1);
    mp_put_bin(&out, "fo", 2);
    mp_put_bin(&out, "foo", 3);
    mp_put_bin(&out, "\xff\xfe\xfd\xfc", 4);
    mp_put_real(&out, (double)NAN);
    mp_put_real(&out, (double)INFINITY);
    mp_put_real(&out, (double)-INFINITY);
    ck_assert_str_eq(text_of(buf_bytes(&out)),
                     "[\"\",\"Zg==\",\"Zm8=\",\"Zm9v\",\"//79/A==\",null,null,null]");
    ck_assert_str_eq(text_of((bytes_t){(const uint8_t *)"\xca\x3f\x80\0\0", 5}), "1.0");
}
END_TEST

START_TEST(reals_read_back_the_same)
{
    static const double edges[] = {0x1p-1074, 0x1p-1022, 0x1.fffffffffffffp+1023, 0.1,   1.0 / 3,
                                   1e15,      1e16,      123456789012345678.0,    5e-324};
    uint64_t seed = 2463534242u;
    for (size_t i = 0; i < 20000; i++) {
        double value, back = 0;
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        memcpy(&value, &seed, sizeof(value));
        if (i < sizeof(edges) / sizeof(*edges))
            value = edges[i];
        if (!isfinite(value))
            continue;
        bytes_t read = packed(text_of(real_value(value)));
        mp_type_t type;
        ck_assert(mp_type_of(read, &type) && type == MP_REAL);
        ck_assert(mp_real(read, &back) && !memcmp(&back, &value, sizeof(value)));
        if (i % 100 == 0)
            arena_reset(arena);
    }
}
END_TEST

START_TEST(writes_pretty)
{
    buf_t out;
    buf_open(&out, arena);
    ck_assert(!err_is(json_from_msgpack(packed("{\"a\":[1,{}],\"b\":[]}"), JSON_PRETTY, &out)));
    ck_assert_str_eq(out.data, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
}
END_TEST

START_TEST(refuses_bad_msgpack)
{
    static const struct {
        const char *data;
        size_t size;
    } bad[] = {{"", 0},
               {"\xc1", 1},
               {"\xa1\xff", 2},
               {"\x81\x01\x01", 3},
               {"\x81\xa1\xff\x01", 4},
               {"\x92\x01", 2},
               {"\x01\x01", 2},
               {"\xd4\x01\x01", 3},
               {"\x93\xa3not\xa1\xff\x01", 8}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        buf_t out;
        buf_open(&out, arena);
        buf_puts(&out, "before");
        bytes_t value = {(const uint8_t *)bad[i].data, bad[i].size};
        ck_assert_int_eq(json_from_msgpack(value, JSON_COMPACT, &out).code, ERR_PARSE);
        ck_assert_str_eq(out.data, "before");
        ck_assert_uint_eq(out.size, 6);
    }
    uint8_t deep[MP_DEPTH + 3];
    memset(deep, 0x91, sizeof(deep));
    deep[MP_DEPTH + 1] = 0xc0;
    ck_assert_str_eq(text_of((bytes_t){deep, MP_DEPTH + 2}), "PARSE");
    deep[MP_DEPTH] = 0xc0;
    ck_assert_str_ne(text_of((bytes_t){deep, MP_DEPTH + 1}), "PARSE");
}
END_TEST

/* ---- Random trees there and back ---- */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void put_leaf(buf_t *out, uint64_t *seed)
{
    char text[48];
    size_t size = next_random(seed) % sizeof(text);
    uint64_t shift = next_random(seed) % 64;
    switch (next_random(seed) % 6) {
    case 0:
        mp_put_nil(out);
        break;
    case 1:
        mp_put_bool(out, shift & 1);
        break;
    case 2:
        mp_put_int(out, (int64_t)next_random(seed) >> shift);
        break;
    case 3:
        mp_put_uint(out, next_random(seed) >> shift);
        break;
    case 4:
        mp_put_real(out, (double)(int64_t)next_random(seed) / (double)(1ULL << shift));
        break;
    default: /* any ASCII, control characters too */
        for (size_t i = 0; i < size; i++)
            text[i] = (char)(next_random(seed) & 0x7f);
        mp_put_strn(out, text, size);
    }
}

static void put_tree(buf_t *out, uint64_t *seed, int depth)
{
    uint32_t count = (uint32_t)(next_random(seed) % 6);
    switch (depth < 8 ? next_random(seed) % 4 : 3) {
    case 0:
        mp_put_array(out, count);
        while (count--)
            put_tree(out, seed, depth + 1);
        break;
    case 1:
        mp_put_map(out, count);
        while (count--) {
            char key[24];
            snprintf(key, sizeof(key), "\"\n\xc3\xa9%u", count * 7919 % 13);
            mp_put_str(out, key);
            put_tree(out, seed, depth + 1);
        }
        break;
    default:
        put_leaf(out, seed);
    }
}

START_TEST(trees_survive)
{
    uint64_t seed = 1234567891011u;
    for (int i = 0; i < 4000; i++) {
        buf_t tree, text;
        bytes_t back = {NULL, 0};
        buf_open(&tree, arena);
        buf_open(&text, arena);
        put_tree(&tree, &seed, 0);
        json_style_t style = i % 2 ? JSON_PRETTY : JSON_COMPACT;
        ck_assert(!err_is(json_from_msgpack(buf_bytes(&tree), style, &text)));
        err_t err = json_to_msgpack(arena, text.data, text.size, NULL, &back);
        ck_assert_msg(!err_is(err), "%s in %s", err_what(err), text.data);
        ck_assert_uint_eq(back.size, tree.size);
        ck_assert_mem_eq(back.data, tree.data, tree.size);
        arena_reset(arena);
    }
}
END_TEST

static void add_writing(TCase *core)
{
    tcase_add_test(core, writes_what_json_lacks);
    tcase_add_test(core, reals_read_back_the_same);
    tcase_add_test(core, writes_pretty);
    tcase_add_test(core, refuses_bad_msgpack);
    tcase_add_test(core, trees_survive);
}

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *core = tcase_create("core");
    tcase_add_checked_fixture(core, open_arena, close_arena);
    tcase_add_test(core, keeps_values);
    tcase_add_test(core, keeps_integers);
    tcase_add_test(core, refuses_larger_integers);
    tcase_add_test(core, no_text_becomes_a_number);
    tcase_add_test(core, keeps_reals);
    tcase_add_test(core, refuses_what_is_no_json);
    tcase_add_test(core, refuses_bad_utf8);
    tcase_add_test(core, says_where);
    tcase_add_test(core, large_integers_keep_places);
    tcase_add_test(core, sentences_are_one_line);
    tcase_add_test(core, depth_has_a_limit);
    tcase_add_test(core, size_has_a_limit);
    tcase_add_test(core, containers_have_a_limit);
    tcase_add_test(core, any_number_of_members);
    tcase_add_test(core, each_key_once);
    add_writing(core);
    suite_add_tcase(suite, core);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
