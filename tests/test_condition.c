/* The language of conditions, as a table. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/condition.h"
#include "proto/json.h"

static const char given[] =
    "{\"n\":3,\"r\":3.0,\"text\":\"42\",\"word\":\"tea\",\"empty\":\"\",\"none\":null,\"list\":[1,"
    "\"two\",3],\"map\":{\"a\":1},\"no\":[],\"yes\":true,\"big\":9223372036854775807}";

static err_t holds(arena_t *arena, const char *text, size_t size, bool form, bool *out)
{
    bytes_t input;
    size_t at;
    ck_assert(!err_is(json_to_msgpack(arena, given, strlen(given), NULL, &input)));
    value_step_t steps[2] = {{.name = "done", .result = input}, {.name = "gone", .refused = true}};
    values_t values = {
        .input = input, .run_id = "r", .company = "c", .steps = steps, .step_count = 2};
    err_t err = condition_holds(arena, form ? NULL : &values, text, size, &at, out);
    ck_assert_uint_le(at, size);
    return err;
}

static const struct {
    const char *text;
    bool holds;
} rows[] = {
    {"true", true},
    {"false", false},
    {"null", false},
    {"0", false},
    {"0.0", false},
    {"-1", true},
    {"''", false},
    {"'x'", true},
    {"{{input.n}}", true},
    {"{{input.empty}}", false},
    {"{{input.no}}", false},
    {"{{input.map}}", true},
    {"{{input.none}}", false},
    {"not {{input.yes}}", false},
    {"not not {{input.yes}}", true},
    {"{{input.n}} == 3", true},
    {"{{input.n}}==3", true},
    {"{{input.n}} == {{input.r}}", true},
    {"{{input.n}} != 3", false},
    {"{{input.n}} == '3'", true},
    {"{{input.text}} > 9", true},
    {"{{input.text}} < '9'", true}, /* both are texts */
    {"{{input.text}} >= 42 and {{input.text}} <= 42.0", true},
    {"{{input.big}} > 9223372036854775806", true},
    {"{{input.word}} == \"tea\"", true},
    {"{{input.word}} == 3", false},
    {"{{input.none}} == null", true},
    {"{{input.yes}} == true", true},
    {"'two' in {{input.list}}", true},
    {"'3' in {{input.list}}", true},
    {"4 in {{input.list}}", false},
    {"not 4 in {{input.list}}", true},
    {"'a' in {{input.map}}", true},
    {"'b' in {{input.map}}", false},
    {"'ea' in {{input.word}}", true},
    {"'' in {{input.word}}", true},
    {"'tean' in {{input.word}}", false},
    {"exists {{input.n}}", true},
    {"exists {{input.nothing}}", false},
    {"exists {{input.none}}", false},
    {"exists {{steps.done.result.n}}", true},
    {"exists {{input.nothing}} and {{input.nothing}} > 3", false},
    {"not exists {{input.nothing}} or {{input.nothing}} > 3", true},
    {"{{input.nothing | default(7)}} > 6", true},
    {"true or false and false", true},
    {"(true or false) and false", false},
    {"false and false or true", true},
    {"'it\\'s' == \"it's\"", true},
    {"  \n{{ input.n }}\n  > 2\n", true},
    {"'and' == 'and' and 'or' != 'and'", true},
};

START_TEST(holds_or_not)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        arena_t *arena = arena_new();
        bool out = !rows[i].holds;
        err_t err = holds(arena, rows[i].text, strlen(rows[i].text), false, &out);
        ck_assert_msg(!err_is(err), "%s: %s", rows[i].text, err_what(err));
        ck_assert_msg(out == rows[i].holds, "%s is %d", rows[i].text, out);
        err = holds(arena, rows[i].text, strlen(rows[i].text), true, &out);
        ck_assert_msg(!err_is(err), "%s: %s", rows[i].text, err_what(err));
        arena_destroy(&arena);
    }
}
END_TEST

static const struct {
    const char *text;
    err_code_t code;
    const char *part;
    bool form; /* seen without values too */
} wrongs[] = {
    {"", ERR_ARGUMENT, "the condition ends", true},
    {"{{input.n}} =", ERR_ARGUMENT, "at '=': and, or, a comparison", true},
    {"{{input.n}} ==", ERR_ARGUMENT, "the condition ends", true},
    {"tea == 'tea'", ERR_ARGUMENT, "at 'tea ==", true},
    {"(true", ERR_ARGUMENT, "where )", true},
    {"true)", ERR_ARGUMENT, "at ')'", true},
    {"'open", ERR_ARGUMENT, "closing quote", true},
    {"exists 3", ERR_ARGUMENT, "at '3': a {{reference}}", true},
    {"{{input.n", ERR_ARGUMENT, "not closed", true},
    {"{{other}} == 1", ERR_ARGUMENT, "{{other}}", true},
    {"false and {{", ERR_ARGUMENT, "not closed", true},
    {"{{input.nothing}} == 1", ERR_NOT_FOUND, "there is no 'nothing'", false},
    {"{{input.nothing}}", ERR_NOT_FOUND, "there is no 'nothing'", false},
    {"{{input.list}} > 1", ERR_ARGUMENT, "only two numbers", false},
    {"{{input.word}} > 1", ERR_ARGUMENT, "only two numbers", false},
    {"1 in 2", ERR_ARGUMENT, "behind `in`", false},
    {"exists {{steps.gone.result.x}}", ERR_STATE, "was refused", false},
};

START_TEST(says_what_is_wrong)
{
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        arena_t *arena = arena_new();
        bool out = true;
        err_t err = holds(arena, wrongs[i].text, strlen(wrongs[i].text), false, &out);
        ck_assert_msg(err.code == wrongs[i].code && strstr(err_what(err), wrongs[i].part), "%s: %s",
                      wrongs[i].text, err_what(err));
        ck_assert(!out);
        err = holds(arena, wrongs[i].text, strlen(wrongs[i].text), true, &out);
        ck_assert_msg(err_is(err) == wrongs[i].form, "%s: %s", wrongs[i].text, err_what(err));
        arena_destroy(&arena);
    }
}
END_TEST

START_TEST(depth_is_bounded)
{
    arena_t *arena = arena_new();
    buf_t text;
    bool out;
    buf_open(&text, arena);
    for (int i = 0; i < 100000; i++)
        buf_puts(&text, i % 2 ? "(" : "not ");
    err_t err = holds(arena, text.data, text.size, false, &out);
    ck_assert_int_eq(err.code, ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err_what(err), "32 deep"));
    arena_destroy(&arena);
}
END_TEST

START_TEST(survives_cuts)
{
    static const char text[] = "not ({{input.n}} >= 3 or 'a\\'' in {{input.map}}) and exists "
                               "{{steps.done.result.list[0] | default(1)}} or -1.5e3 != null";
    for (size_t size = 0; size < sizeof(text); size++) {
        arena_t *arena = arena_new();
        bool out;
        holds(arena, arena_strndup(arena, text, size), size, false, &out);
        holds(arena, arena_strndup(arena, text, size), size, true, &out);
        arena_destroy(&arena);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("condition");
    TCase *all = tcase_create("all");
    tcase_add_test(all, holds_or_not);
    tcase_add_test(all, says_what_is_wrong);
    tcase_add_test(all, depth_is_bounded);
    tcase_add_test(all, survives_cuts);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
