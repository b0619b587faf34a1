/* Records: rows become structs; what is decoded, what is refused and in which words. Arguments are
 * written as JSON with ' for ". */
#include "proto/record.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/actor.h"
#include "proto/json.h"
#include "proto/mp.h"

#define colour_VALUES(V) V(RED, "red") V(GREEN, "green") V(BLUE, "blue")
RECORD_ENUM(colour, colour_VALUES)

#define item_FIELDS(F)                                                                             \
    F(STR, id, must, 1, 8, "The id.")                                                              \
    F(INT, weight, opt(7), 0, 100, "How heavy.")                                                   \
    F(STRS, words, opt(), 0, 0, "Words.")
RECORD(item, item_FIELDS)

#define all_FIELDS(F)                                                                              \
    F(STR, query, must, 1, 16, "What to look for.")                                                \
    F(INT, limit, opt(3), 1, 100, "How many.")                                                     \
    F(TIME, since, opt(), 0, 0, "From when.")                                                      \
    F(REAL, score, opt(), 0, 1, "How good.")                                                       \
    F(BOOL, exact, opt(true), 0, 0, "Exactly?")                                                    \
    F(ENUM(colour), colour, opt(green), 0, 0, "Which colour.")                                     \
    F(VEC, vector, opt(), 0, 4, "A vector.")                                                       \
    F(STRS, labels, opt(), 0, 3, "Labels.")                                                        \
    F(REC(item), best, opt(), 0, 0, "The best item.")                                              \
    F(LIST(item), items, opt(), 0, 5, "The items.")                                                \
    F(COMPANY, company, opt(), 0, 0, "Whose.")                                                     \
    F(ANY, extra, opt(), 0, 64, "Anything.")                                                       \
    F(JSON, args, opt(), 0, 0, "Arguments.")                                                       \
    F(BYTES, blob, opt(), 0, 8, "Bytes.")                                                          \
    F(STR, mood, opt(calm), 0, 0, "A text with a default.")                                        \
    F(INT, any_int, opt(), 0, 0, "Any integer.")                                                   \
    F(REAL, any_real, opt(), 0, 0, "Any number.")
RECORD(all, all_FIELDS)

#define owed_FIELDS(F)                                                                             \
    F(STR, text, must, 0, 0, "Text.")                                                              \
    F(STRS, texts, must, 0, 0, "Texts.")                                                           \
    F(VEC, vector, must, 0, 0, "A vector.")                                                        \
    F(LIST(item), items, must, 0, 0, "Items.")                                                     \
    F(ANY, any, must, 0, 0, "Anything.")                                                           \
    F(BYTES, blob, must, 0, 0, "Bytes.")
RECORD(owed, owed_FIELDS)

#define nothing_FIELDS(F)
typedef struct nothing {
    char end_of_record;
} nothing_t;
RECORD_ROWS_(nothing, nothing_FIELDS)
static const record_t nothing_record = {"nothing", nothing_rows, sizeof(nothing_t)};

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
    char *text = arena_strdup(arena, json);
    for (char *at = text; *at; at++)
        if (*at == '\'')
            *at = '"';
    bytes_t value = {NULL, 0};
    err_t err = json_to_msgpack(arena, text, strlen(text), NULL, &value);
    ck_assert_msg(!err_is(err), "%s: %s", text, err_what(err));
    return value;
}

static all_t decoded(const char *json)
{
    all_t all;
    err_t err = record_decode(&all_record, packed(json), arena, "argument", &all);
    ck_assert_msg(!err_is(err), "%s: %s", json, err_what(err));
    return all;
}

static const char *refused_bytes(bytes_t bytes)
{
    all_t all;
    err_t err = record_decode(&all_record, bytes, arena, "argument", &all);
    ck_assert_msg(err.code == ERR_ARGUMENT, "%s", err_what(err));
    ck_assert(mp_utf8(err_what(err), strlen(err_what(err))));
    return err_what(err);
}

static const char *refused(const char *json)
{
    return refused_bytes(packed(json));
}

/* ---- Decoding ---- */

START_TEST(fills_everything)
{
    all_t all = decoded(
        "{'query':'q','limit':5,'since':1700000000000,'score':0.5,'exact':false,'colour':'blue',"
        "'vector':[1,2.5],'labels':['a','b'],'best':{'id':'x'},'items':[{'id':'1','weight':9},"
        "{'words':['w'],'id':'2'}],'company':'acme','extra':{'k':[1]},'args':[1],'mood':'glad'}");
    ck_assert_str_eq(all.query, "q");
    ck_assert(all.has_query && all.has_limit && all.limit == 5 && all.since == 1700000000000);
    ck_assert(all.score == 0.5 && !all.exact && all.colour == BLUE);
    ck_assert(all.vector.count == 2 && all.vector.items[1] == 2.5f);
    ck_assert(all.labels.count == 2 && !strcmp(all.labels.items[1], "b"));
    ck_assert(all.best && !strcmp(all.best->id, "x") && all.best->weight == 7);
    ck_assert(all.items.count == 2 && all.items.items[0].weight == 9);
    ck_assert_str_eq(all.items.items[1].words.items[0], "w");
    ck_assert_str_eq(all.company, "acme");
    ck_assert(all.extra.size == 5 && all.args.size == 2);
    ck_assert(!all.has_blob && !all.blob.size && !strcmp(all.mood, "glad"));
}
END_TEST

START_TEST(fills_defaults)
{
    static const char *const least[] = {"{'query':'q'}",
                                        "{'limit':null,'since':null,'score':null,'exact':null,"
                                        "'colour':null,'vector':null,'labels':null,'best':null,"
                                        "'items':null,'company':null,'extra':null,'args':null,"
                                        "'blob':null,'query':'q','mood':null}"};
    for (int i = 0; i < 2; i++) {
        all_t all = decoded(least[i]);
        ck_assert(all.has_limit && all.limit == 3 && all.has_exact && all.exact);
        ck_assert(all.has_colour && all.colour == GREEN && !strcmp(all.mood, "calm"));
        ck_assert(!all.has_since && !all.has_score && !all.has_vector && !all.has_labels);
        ck_assert(!all.has_best && !all.best && !all.has_items && !all.items.count);
        ck_assert(!all.has_company && !all.company && !all.has_extra && !all.extra.size);
        ck_assert(!all.has_args && !all.has_blob && !all.has_any_int);
    }
}
END_TEST

START_TEST(no_bytes_are_no_arguments)
{
    nothing_t nothing;
    item_t item;
    bytes_t none = {NULL, 0};
    ck_assert(!err_is(record_decode(&nothing_record, none, arena, "argument", &nothing)));
    ck_assert(!err_is(record_decode(&nothing_record, packed("{}"), arena, "argument", &nothing)));
    err_t err = record_decode(&item_record, none, arena, "argument", &item);
    ck_assert_int_eq(err.code, ERR_ARGUMENT);
    ck_assert_str_eq(err.what, "argument 'id' is missing: The id.");
    err = record_decode(&nothing_record, packed("{'x':1}"), arena, "argument", &nothing);
    ck_assert_str_eq(err.what, "unknown argument 'x'; there are none");
}
END_TEST

START_TEST(takes_any_order)
{
    all_t all = decoded("{'mood':'m','args':1,'limit':2,'labels':[],'query':'q','extra':0}");
    ck_assert(!strcmp(all.mood, "m") && all.limit == 2 && !strcmp(all.query, "q"));
    ck_assert(all.has_labels && all.labels.count == 0 && all.args.size == 1);
}
END_TEST

/* The skeleton judges the name of a company; it must see what was given. */
START_TEST(keeps_an_empty_company)
{
    all_t all = decoded("{'query':'q','company':''}");
    ck_assert(all.has_company && all.company && !*all.company);
    ck_assert_str_eq(refused("{'query':'q','company':5}"),
                     "argument 'company' must be text, not 5");
}
END_TEST

START_TEST(integers)
{
    ck_assert_int_eq(decoded("{'query':'q','limit':100}").limit, 100);
    ck_assert_int_eq(decoded("{'query':'q','limit':3.0}").limit, 3);
    ck_assert(decoded("{'query':'q','any_int':-9223372036854775808}").any_int == INT64_MIN);
    ck_assert(decoded("{'query':'q','any_int':9223372036854775807}").any_int == INT64_MAX);
    ck_assert_str_eq(refused("{'query':'q','limit':1000}"),
                     "argument 'limit' must be a whole number from 1 to 100, not 1000");
    ck_assert_str_eq(refused("{'query':'q','limit':0}"),
                     "argument 'limit' must be a whole number from 1 to 100, not 0");
    ck_assert_str_eq(refused("{'query':'q','limit':3.5}"),
                     "argument 'limit' must be a whole number from 1 to 100, not 3.5");
    ck_assert_str_eq(refused("{'query':'q','limit':'3'}"),
                     "argument 'limit' must be a whole number from 1 to 100, not the text '3'");
    ck_assert_str_eq(refused("{'query':'q','any_int':18446744073709551615}"),
                     "argument 'any_int' must be a whole number, not 18446744073709551615");
    ck_assert_str_eq(refused("{'query':'q','any_int':1e300}"),
                     "argument 'any_int' must be a whole number, not 1e+300");
    ck_assert_str_eq(refused("{'query':'q','any_int':[1]}"),
                     "argument 'any_int' must be a whole number, not a list");
}
END_TEST

START_TEST(reals)
{
    ck_assert(decoded("{'query':'q','score':1}").score == 1.0);
    ck_assert(decoded("{'query':'q','any_real':18446744073709551615}").any_real == 0x1p64);
    ck_assert_str_eq(refused("{'query':'q','score':1.0000001}"),
                     "argument 'score' must be a number from 0 to 1, not 1.0000001");
    ck_assert_str_eq(refused("{'query':'q','score':{}}"),
                     "argument 'score' must be a number from 0 to 1, not an object");
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, 1);
    mp_put_str(&out, "any_real");
    mp_put_real(&out, (double)NAN);
    ck_assert_ptr_nonnull(strstr(refused_bytes(buf_bytes(&out)), "must be a number, not"));
    ck_assert_str_eq(refused("{'query':'q','vector':[1,1e39]}"),
                     "argument 'vector[1]' must be a number that fits 32 bits, not 1e+39");
    ck_assert_str_eq(refused("{'query':'q','vector':[1,'x']}"),
                     "argument 'vector[1]' must be a number, not the text 'x'");
    ck_assert_str_eq(refused("{'query':'q','vector':[1,2,3,4,5]}"),
                     "argument 'vector' must have 0 to 4 numbers, not 5");
}
END_TEST

START_TEST(words)
{
    ck_assert_int_eq(decoded("{'query':'q','colour':'red'}").colour, RED);
    ck_assert_str_eq(refused("{'query':'q','colour':'pink'}"),
                     "argument 'colour' must be one of red, green, blue, not the text 'pink'");
    ck_assert_str_eq(refused("{'query':'q','colour':1}"),
                     "argument 'colour' must be one of red, green, blue, not 1");
    ck_assert_str_eq(refused("{'query':'q','colour':'re'}"),
                     "argument 'colour' must be one of red, green, blue, not the text 're'");
    ck_assert_str_eq(refused("{'query':'q','exact':1}"),
                     "argument 'exact' must be true or false, not 1");
}
END_TEST

START_TEST(texts)
{
    ck_assert_str_eq(refused("{'query':''}"), "argument 'query' must have 1 to 16 bytes, not 0");
    ck_assert_str_eq(refused("{'query':'12345678901234567'}"),
                     "argument 'query' must have 1 to 16 bytes, not 17");
    ck_assert_str_eq(refused("{'query':'a\\u0000b'}"),
                     "argument 'query' has a NUL character inside");
    ck_assert_str_eq(refused_bytes((bytes_t){(const uint8_t *)"\x81\xa5query\xa1\xff", 9}),
                     "argument 'query' is not valid UTF-8");
    ck_assert_str_eq(refused("{'query':'q','labels':['a',2]}"),
                     "argument 'labels[1]' must be text, not 2");
    ck_assert_str_eq(refused("{'query':'q','labels':'a'}"),
                     "argument 'labels' must be a list of texts, not the text 'a'");
    ck_assert_str_eq(refused("{'query':'q','labels':['a','b','c','d']}"),
                     "argument 'labels' must have 0 to 3 items, not 4");
    ck_assert_str_eq(refused("{'query':null}"), "argument 'query' is missing: What to look for.");
}
END_TEST

START_TEST(nested)
{
    ck_assert_str_eq(refused("{'query':'q','items':[{'id':'a'},{'id':'b'},{}]}"),
                     "argument 'items[2].id' is missing: The id.");
    ck_assert_str_eq(refused("{'query':'q','items':[{'id':'a','words':['x',false]}]}"),
                     "argument 'items[0].words[1]' must be text, not false");
    ck_assert_str_eq(refused("{'query':'q','items':[1]}"),
                     "argument 'items[0]' must be an object, not 1");
    ck_assert_str_eq(refused("{'query':'q','best':{'id':'a','wieght':1}}"),
                     "unknown argument 'wieght' in 'best'; did you mean 'weight'?");
    ck_assert_str_eq(refused("{'query':'q','items':[{'id':'a','x':1}]}"),
                     "unknown argument 'x' in 'items[0]'; the arguments are: id, weight, words");
    ck_assert_str_eq(refused("{'query':'q','best':[]}"),
                     "argument 'best' must be an object, not a list");
}
END_TEST

START_TEST(unknown_names)
{
    ck_assert_str_eq(refused("{'query':'q','limt':3}"),
                     "unknown argument 'limt'; did you mean 'limit'?");
    ck_assert_str_eq(refused("{'x':3}"),
                     "unknown argument 'x'; the arguments are: query, limit, since, score, exact, "
                     "colour, vector, labels, best, items, company, extra, args, blob, mood, "
                     "any_int, any_real");
    ck_assert_str_eq(refused("[1]"), "the arguments must be an object, not a list");
    ck_assert_str_eq(refused_bytes((bytes_t){(const uint8_t *)"\x81\x01\x01", 3}),
                     "the name of every argument must be text");
}
END_TEST

START_TEST(names_given_twice)
{
    static const char twice[] = "\x82\xa5query\xa1q\xa5query\xa1r";
    ck_assert_str_eq(refused_bytes((bytes_t){(const uint8_t *)twice, sizeof(twice) - 1}),
                     "argument 'query' is given twice");
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, 1);
    mp_put_str(&out, "best");
    mp_put_map(&out, 2);
    for (int i = 0; i < 2; i++) {
        mp_put_str(&out, "id");
        mp_put_str(&out, "a");
    }
    ck_assert_str_eq(refused_bytes(buf_bytes(&out)), "argument 'best.id' is given twice");
}
END_TEST

/* What comes from outside is cut, and cannot write to a terminal or a log of lines. */
START_TEST(foreign_values_are_tamed)
{
    buf_t json;
    buf_open(&json, arena);
    buf_puts(&json, "{'colour':'\\u001b[31m\\n");
    for (int i = 0; i < 1000; i++)
        buf_puts(&json, "\xc3\xa9");
    buf_puts(&json, "'}");
    const char *what = refused(json.data);
    ck_assert_uint_lt(strlen(what), 200);
    ck_assert_ptr_nonnull(strstr(what, "\\x1b[31m\\x0a\xc3\xa9"));
    ck_assert_ptr_nonnull(strstr(what, "...'"));
    ck_assert_ptr_nonnull(strstr(refused("{'evil\\r\\nname':1}"), "'evil\\x0d\\x0aname'"));
    ck_assert_ptr_nonnull(
        strstr(refused_bytes((bytes_t){(const uint8_t *)"\x81\xa2\xff\xfe\x01", 5}), "not UTF-8"));
}
END_TEST

/* ---- Free-form values ---- */

START_TEST(json_text_counts_as_json)
{
    const char *args[][2] = {{"'[1,2]'", "[1,2]"},
                             {"' \\n\\t{\\\"a\\\":1}'", "{\"a\":1}"},
                             {"[1,2]", "[1,2]"},
                             {"'plain'", "\"plain\""},
                             {"''", "\"\""},
                             {"'5'", "\"5\""},
                             {"7", "7"}};
    for (size_t i = 0; i < sizeof(args) / sizeof(*args); i++) {
        buf_t out;
        buf_open(&out, arena);
        all_t all =
            decoded(arena_printf(arena, "{'query':'q','extra':'[1]','args':%s}", args[i][0]));
        ck_assert(!err_is(json_from_msgpack(all.args, JSON_COMPACT, &out)));
        ck_assert_str_eq(out.data, args[i][1]);
        ck_assert(mp_equals(all.extra, "[1]"));
    }
    ck_assert_ptr_nonnull(strstr(refused("{'query':'q','args':'{oops'}"),
                                 "argument 'args' is text that begins like JSON but is not: line"));
}
END_TEST

START_TEST(free_values_are_checked)
{
    ck_assert_str_eq(refused_bytes((bytes_t){(const uint8_t *)"\x81\xa5"
                                                              "extra\x91\xa1\xff",
                                             10}),
                     "argument 'extra': a string is not valid UTF-8");
    ck_assert_str_eq(refused("{'query':'q','extra':'"
                             "1234567890123456789012345678901234567890123456789012345678901234'}"),
                     "argument 'extra' must have 0 to 64 bytes, not 66");
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, 1);
    mp_put_str(&out, "args");
    for (int i = 0; i <= RECORD_ANY_DEEPEST; i++)
        mp_put_array(&out, 1);
    mp_put_nil(&out);
    ck_assert_str_eq(refused_bytes(buf_bytes(&out)), "argument 'args': values are nested too deep");
}
END_TEST

/* ---- Bytes that lie ---- */

START_TEST(every_cut_is_refused)
{
    bytes_t whole = packed("{'query':'q','limit':5,'vector':[1,2.5],'labels':['a'],'best':{'id':"
                           "'x'},'items':[{'id':'1'}],'extra':{'k':[1]},'args':[1]}");
    all_t all;
    for (size_t cut = 1; cut < whole.size; cut++) {
        bytes_t part = {arena_copy(arena, whole.data, cut), cut};
        err_t err = record_decode(&all_record, part, arena, "argument", &all);
        ck_assert(err.code == ERR_PARSE || err.code == ERR_ARGUMENT);
    }
    buf_t more;
    buf_open(&more, arena);
    buf_put(&more, whole.data, whole.size);
    buf_put(&more, "\xc0", 1);
    ck_assert_int_eq(record_decode(&all_record, buf_bytes(&more), arena, "argument", &all).code,
                     ERR_PARSE);
}
END_TEST

#define wide_FIELDS(F)                                                                             \
    F(STRS, a, opt(), 0, 0, "A.")                                                                  \
    F(STRS, b, opt(), 0, 0, "B.")                                                                  \
    F(STRS, c, opt(), 0, 0, "C.")                                                                  \
    F(STRS, d, opt(), 0, 0, "D.")
RECORD(wide, wide_FIELDS)
#define rows_FIELDS(F) F(LIST(wide), l, must, 0, 0, "Items of few bytes.")
RECORD(rows, rows_FIELDS)
#define bomb_FIELDS(F) F(LIST(rows), rows, must, 0, 0, "Lists of them.")
RECORD(bomb, bomb_FIELDS)

/* Two megabytes that would be more than 256 MiB of structs. */
START_TEST(memory_is_bounded)
{
    enum { ROWS = 40, ITEMS = 90000 };
    buf_t out;
    bomb_t bomb;
    buf_open(&out, arena);
    mp_put_map(&out, 1);
    mp_put_str(&out, "rows");
    mp_put_array(&out, ROWS);
    for (int row = 0; row < ROWS; row++) {
        mp_put_map(&out, 1);
        mp_put_str(&out, "l");
        mp_put_array(&out, ITEMS);
        for (int i = 0; i < ITEMS; i++)
            mp_put_map(&out, 0);
    }
    err_t err = record_decode(&bomb_record, buf_bytes(&out), arena, "argument", &bomb);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    ck_assert_uint_lt(arena_used(arena), RECORD_MEMORY_LARGEST + (64u << 20));
}
END_TEST

/* ---- Encoding ---- */

static const char *encoded(const record_t *record, const void *value)
{
    buf_t bytes, out;
    buf_open(&bytes, arena);
    buf_open(&out, arena);
    record_encode(record, value, &bytes);
    ck_assert(!err_is(json_from_msgpack(buf_bytes(&bytes), JSON_COMPACT, &out)));
    return out.data;
}

START_TEST(writes_what_is_owed)
{
    owed_t owed = {0};
    ck_assert_str_eq(
        encoded(&owed_record, &owed),
        "{\"text\":\"\",\"texts\":[],\"vector\":[],\"items\":[],\"any\":null,\"blob\":\"\"}");
    const char *texts[] = {"a", NULL};
    owed.texts = (strs_t){texts, 2};
    ck_assert_ptr_nonnull(strstr(encoded(&owed_record, &owed), "\"texts\":[\"a\",\"\"]"));
    all_t all = {.query = "q"};
    ck_assert_str_eq(encoded(&all_record, &all), "{\"query\":\"q\"}");
}
END_TEST

START_TEST(writes_what_is_there)
{
    item_t item = {.id = "i"};
    float numbers[] = {1, 2};
    all_t all = {.query = "q",
                 .has_limit = true,
                 .has_exact = true,
                 .has_score = true,
                 .has_colour = true,
                 .colour = BLUE,
                 .has_since = true,
                 .since = 5,
                 .vector = {numbers, 2},
                 .best = &item,
                 .items = {&item, 1},
                 .company = "",
                 .extra = {(const uint8_t *)"\x07", 1},
                 .blob = {(const uint8_t *)"foo", 3}};
    ck_assert_str_eq(encoded(&all_record, &all),
                     "{\"query\":\"q\",\"limit\":0,\"since\":5,\"score\":0.0,\"exact\":false,"
                     "\"colour\":\"blue\",\"vector\":[1.0,2.0],\"best\":{\"id\":\"i\"},"
                     "\"items\":[{\"id\":\"i\"}],\"company\":\"\",\"extra\":7,\"blob\":\"Zm9v\"}");
}
END_TEST

static const char everything[] =
    "{'query':'q','limit':5,'since':1700000000000,'score':0.5,'exact':false,'colour':'blue',"
    "'vector':[1,2.5],'labels':['a',''],'best':{'id':'x','words':[]},'items':[{'id':'1'},{'id':"
    "'2','words':['caf\xc3\xa9']}],'company':'acme','extra':{'k':[1]},'args':[1],'blob':'bytes'}";

START_TEST(goes_there_and_back)
{
    all_t one = decoded(everything), other;
    buf_t first, second;
    buf_open(&first, arena);
    buf_open(&second, arena);
    record_encode(&all_record, &one, &first);
    ck_assert(!err_is(record_decode(&all_record, buf_bytes(&first), arena, "field", &other)));
    record_encode(&all_record, &other, &second);
    ck_assert_uint_eq(first.size, second.size);
    ck_assert_mem_eq(first.data, second.data, first.size);
}
END_TEST

/* The copy stays whole when the arena of the original is gone. */
START_TEST(copies_deeply)
{
    all_t copy;
    item_t odd = {0}, odd_copy; /* would not pass the checks of its rows */
    arena_t *kept = arena;
    arena_t *gone = arena = arena_new();
    all_t one = decoded(everything);
    buf_t before, after;
    buf_open(&before, kept);
    buf_open(&after, kept);
    record_encode(&all_record, &one, &before);
    record_copy(&all_record, &one, kept, &copy);
    arena_destroy(&gone);
    arena = kept;
    record_encode(&all_record, &copy, &after);
    ck_assert_uint_eq(before.size, after.size);
    ck_assert_mem_eq(before.data, after.data, after.size);
    record_copy(&item_record, &odd, arena, &odd_copy);
    ck_assert(!odd_copy.id && !odd_copy.has_weight);
}
END_TEST

/* ---- The rows themselves ---- */

#define low_FIELDS(F) F(INT, n, opt(0), 1, 9, "N.")
RECORD(low, low_FIELDS)
#define high_FIELDS(F) F(REAL, n, opt(9.5), 1, 9, "N.")
RECORD(high, high_FIELDS)
#define word_FIELDS(F) F(ENUM(colour), n, opt(pink), 0, 0, "N.")
RECORD(word, word_FIELDS)
#define upside_FIELDS(F) F(INT, n, opt(), 9, 1, "N.")
RECORD(upside, upside_FIELDS)
#define number_FIELDS(F) F(INT, n, opt(3x), 0, 0, "N.")
RECORD(number, number_FIELDS)
#define maybe_FIELDS(F) F(BOOL, n, opt(yes), 0, 0, "N.")
RECORD(maybe, maybe_FIELDS)
#define long_text_FIELDS(F) F(STR, n, opt(abcd), 1, 3, "N.")
RECORD(long_text, long_text_FIELDS)
#define inside_FIELDS(F) F(LIST(low), lows, opt(), 0, 0, "Lows.")
RECORD(inside, inside_FIELDS)

static const field_t *twice_rows(void)
{
    static const field_t rows[] = {{.name = "n", .doc = "N.", .def = "", .type = FIELD_INT},
                                   {.name = "n", .doc = "N.", .def = "", .type = FIELD_INT},
                                   {.name = NULL}};
    return rows;
}
static const record_t twice_record = {"twice", twice_rows, 64};

START_TEST(checks_rows)
{
    static const struct {
        const record_t *record;
        const char *what;
    } bad[] = {{&low_record, "low.n: its default is out of range"},
               {&high_record, "high.n: its default is out of range"},
               {&word_record, "word.n: its default is not readable"},
               {&upside_record, "upside.n: smallest is above largest"},
               {&number_record, "number.n: its default is not readable"},
               {&maybe_record, "maybe.n: its default is not readable"},
               {&long_text_record, "long_text.n: its default is out of range"},
               {&inside_record, "low.n: its default is out of range"},
               {&twice_record, "twice.n: it stands twice"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        err_t err = record_check(bad[i].record, arena);
        ck_assert_int_eq(err.code, ERR_INTERNAL);
        ck_assert_str_eq(err_what(err), bad[i].what);
    }
    ck_assert(!err_is(record_check(&all_record, arena)));
    ck_assert(!err_is(record_check(&nothing_record, arena)));
}
END_TEST

extern const actor_def_t agent_actor, brain_actor, worker_actor, gateway_actor, elastic_actor,
    swarm_actor;

static void check_methods(const char *actor, const method_t *methods)
{
    for (; methods && methods->name; methods++) {
        const record_t *records[] = {methods->args, methods->reply};
        for (int i = 0; i < 2; i++) {
            err_t err = records[i] ? record_check(records[i], arena) : err_ok();
            ck_assert_msg(!err_is(err), "%s.%s: %s", actor, methods->name, err_what(err));
        }
    }
}

START_TEST(all_actors_have_sound_rows)
{
    const actor_def_t *const actors[] = {&agent_actor,   &brain_actor,   &worker_actor,
                                         &gateway_actor, &elastic_actor, &swarm_actor};
    for (size_t i = 0; i < sizeof(actors) / sizeof(*actors); i++) {
        err_t err = actors[i]->settings ? record_check(actors[i]->settings, arena) : err_ok();
        ck_assert_msg(!err_is(err), "%s: %s", actors[i]->name, err_what(err));
        check_methods(actors[i]->name, actors[i]->methods);
        for (const method_t *const *more = actors[i]->more_methods; more && *more; more++)
            check_methods(actors[i]->name, *more);
    }
}
END_TEST

/* ---- Names and times ---- */

START_TEST(finds_the_nearest_name)
{
    static const char *const names[] = {"query", "limit", "company", "id", "timestamp", NULL};
    static const char *const none[] = {NULL};
    ck_assert_str_eq(record_nearest("limt", names), "limit");
    ck_assert_str_eq(record_nearest("Limit", names), "limit");
    ck_assert_str_eq(record_nearest("compnay", names), "company");
    ck_assert_str_eq(record_nearest("time_stamps", names), "timestamp");
    ck_assert_str_eq(record_nearest("query", names), "query");
    ck_assert_ptr_null(record_nearest("x", names));
    ck_assert_ptr_null(record_nearest("ix", names));
    ck_assert_ptr_null(record_nearest("", names));
    ck_assert_ptr_null(record_nearest("completely else", names));
    ck_assert_ptr_null(record_nearest("limit", none));
    char longer[1000];
    memset(longer, 'q', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    ck_assert_ptr_null(record_nearest(longer, names));
}
END_TEST

START_TEST(reads_times)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"1970-01-01T00:00:00Z", 0},
                {"1970-01-01", 0},
                {"1970-01-01T00:00:00", 0},
                {"2026-01-31T12:00:00Z", 1769860800000},
                {"2026-01-31t12:00:00z", 1769860800000},
                {"2026-01-31 12:00:00.5Z", 1769860800500},
                {"2026-01-31T12:00:00.123456789Z", 1769860800123},
                {"2026-01-31T14:30:00+02:30", 1769860800000},
                {"2026-01-31T07:00:00-05:00", 1769860800000},
                {"1969-12-31T23:59:59.999Z", -1},
                {"2000-02-29T00:00:00Z", 951782400000},
                {"2016-12-31T23:59:60Z", 1483228800000},
                {"0000-01-01T00:00:00Z", -62167219200000},
                {"9999-12-31T23:59:59.999Z", 253402300799999},
                {"0", 0},
                {"-5", -5},
                {"1700000000000", 1700000000000}};
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        int64_t ms = 12345;
        ck_assert_msg(record_time(good[i].text, &ms), "%s", good[i].text);
        ck_assert_msg(ms == good[i].ms, "%s: %lld", good[i].text, (long long)ms);
    }
}
END_TEST

START_TEST(refuses_times)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "-",
                                      "+5",
                                      "2026",
                                      "12x",
                                      " 123456",
                                      "99999999999999999999",
                                      "tomorrow",
                                      "2026-1-31",
                                      "2026-13-01",
                                      "2026-00-01",
                                      "2026-01-32",
                                      "2026-02-29",
                                      "1900-02-29",
                                      "  26-01-01",
                                      "-026-01-01",
                                      "2026-+1-01",
                                      "2026-01-31T",
                                      "2026-01-31T12",
                                      "2026-01-31T12:00",
                                      "2026-01-31T24:00:00Z",
                                      "2026-01-31T12:60:00Z",
                                      "2026-01-31T12:00:61Z",
                                      "2026-01-31T12:00:00.Z",
                                      "2026-01-31T12:00:00+0200",
                                      "2026-01-31T12:00:00+25:00",
                                      "2026-01-31T12:00:00Zx",
                                      "2026-01-31T12:00:00 Z",
                                      "2026-01-31T-1:00:00Z",
                                      "2026-01-31T 1:00:00Z",
                                      "2026-01-31T12:00:00+ 2:00",
                                      "2026-01-31x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        int64_t ms;
        ck_assert_msg(!record_time(bad[i], &ms), "%s", bad[i]);
    }
    ck_assert_ptr_nonnull(strstr(refused("{'query':'q','since':'yesterday'}"),
                                 "'since' must be a time: milliseconds since 1970"));
    ck_assert_ptr_nonnull(
        strstr(refused("{'query':'q','since':'2026-01-31\\u0000T'}"), "must be a time"));
    ck_assert(decoded("{'query':'q','since':'1970-01-01T01:00:00+01:00'}").since == 0);
    ck_assert(decoded("{'query':'q','since':1e3}").since == 1000);
}
END_TEST

START_TEST(writes_times)
{
    ck_assert_str_eq(record_time_text(arena, 0), "1970-01-01T00:00:00.000Z");
    ck_assert_str_eq(record_time_text(arena, -1), "1969-12-31T23:59:59.999Z");
    ck_assert_str_eq(record_time_text(arena, 1769860800123), "2026-01-31T12:00:00.123Z");
    static const int64_t edges[] = {INT64_MIN,       INT64_MAX,       253402300799999,
                                    253402300800000, -62167219200000, -62167219200001};
    for (size_t i = 0; i < sizeof(edges) / sizeof(*edges); i++) {
        int64_t back = 0;
        ck_assert(record_time(record_time_text(arena, edges[i]), &back));
        ck_assert(back == edges[i]);
    }
    for (int64_t ms = -62167219200000; ms < 253402300799999; ms += 7777777777777 / 100) {
        int64_t back = 0;
        ck_assert(record_time(record_time_text(arena, ms), &back) && back == ms);
    }
}
END_TEST

static TCase *decoding(void)
{
    TCase *tcase = tcase_create("decoding");
    tcase_add_checked_fixture(tcase, open_arena, close_arena);
    tcase_add_test(tcase, fills_everything);
    tcase_add_test(tcase, fills_defaults);
    tcase_add_test(tcase, no_bytes_are_no_arguments);
    tcase_add_test(tcase, takes_any_order);
    tcase_add_test(tcase, keeps_an_empty_company);
    tcase_add_test(tcase, integers);
    tcase_add_test(tcase, reals);
    tcase_add_test(tcase, words);
    tcase_add_test(tcase, texts);
    tcase_add_test(tcase, nested);
    tcase_add_test(tcase, unknown_names);
    tcase_add_test(tcase, names_given_twice);
    tcase_add_test(tcase, foreign_values_are_tamed);
    tcase_add_test(tcase, json_text_counts_as_json);
    tcase_add_test(tcase, free_values_are_checked);
    tcase_add_test(tcase, every_cut_is_refused);
    tcase_add_test(tcase, memory_is_bounded);
    return tcase;
}

static TCase *the_rest(void)
{
    TCase *tcase = tcase_create("encoding, rows, names and times");
    tcase_add_checked_fixture(tcase, open_arena, close_arena);
    tcase_add_test(tcase, writes_what_is_owed);
    tcase_add_test(tcase, writes_what_is_there);
    tcase_add_test(tcase, goes_there_and_back);
    tcase_add_test(tcase, copies_deeply);
    tcase_add_test(tcase, checks_rows);
    tcase_add_test(tcase, all_actors_have_sound_rows);
    tcase_add_test(tcase, finds_the_nearest_name);
    tcase_add_test(tcase, reads_times);
    tcase_add_test(tcase, refuses_times);
    tcase_add_test(tcase, writes_times);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("record");
    suite_add_tcase(suite, decoding());
    suite_add_tcase(suite, the_rest());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
