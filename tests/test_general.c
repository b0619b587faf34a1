/* From several runs to one text with references, and the refusal to guess. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/general.h"
#include "house.h"

static arena_t *arena;

static void open_arena(void)
{
    arena = arena_new();
}

static void close_arena(void)
{
    arena_destroy(&arena);
}

static bytes_t *packed(const char *one, const char *other)
{
    bytes_t *values = ARENA_ARRAY(arena, bytes_t, 2);
    values[0] = house_pack(arena, one);
    values[1] = house_pack(arena, other);
    return values;
}

/* JSON with ' for ", or where it failed. */
static const char *found(const char *one, const char *other)
{
    buf_t out;
    const char *where;
    sources_t *sources = general_open(arena, 2);
    general_add(sources, "input", packed("{'city':'Oslo','n':3}", "{'city':'Rome','n':4}"));
    general_add(sources, "steps.look.result", packed("'first'", "'other'"));
    buf_open(&out, arena);
    if (!general_find(sources, packed(one, other), &out, &where))
        return arena_printf(arena, "? %s", where);
    for (size_t i = 0; i < out.size; i++)
        if (out.data[i] == '"')
            out.data[i] = '\'';
    return out.data;
}

START_TEST(what_is_the_same_stays)
{
    ck_assert_str_eq(found("{'a':1,'b':[true,null]}", "{'a':1,'b':[true,null]}"),
                     "{'a':1,'b':[true,null]}");
    ck_assert_str_eq(found("'a {{b'", "'a {{b'"), "'a \\\\{{b'");
}
END_TEST

START_TEST(what_differs_has_a_source)
{
    ck_assert_str_eq(found("{'c':'Oslo','n':3}", "{'c':'Rome','n':4}"),
                     "{'c': '{{input.city}}', 'n': '{{input.n}}'}");
    ck_assert_str_eq(found("['at Oslo: first']", "['at Rome: other']"),
                     "['at {{input.city}}: {{steps.look.result}}']");
}
END_TEST

START_TEST(nobody_guesses)
{
    ck_assert_str_eq(found("{'c':{'d':'x'}}", "{'c':{'d':'y'}}"), "? c.d");
    ck_assert_str_eq(found("{'c':3}", "{'c':5}"), "? c");
    ck_assert_str_eq(found("{'c':1}", "{'d':1}"), "? the value");
    ck_assert_str_eq(found("[1]", "[1,2]"), "? the value");
    ck_assert_str_eq(found("'{{x}} Oslo'", "'{{x}} Rome'"), "? the value");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("general");
    TCase *tcase = tcase_create("general");
    tcase_add_checked_fixture(tcase, open_arena, close_arena);
    tcase_add_test(tcase, what_is_the_same_stays);
    tcase_add_test(tcase, what_differs_has_a_source);
    tcase_add_test(tcase, nobody_guesses);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
