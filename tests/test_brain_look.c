/* The second look of the brain: small words, and what asks and tells when. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/dates.h"
#include "actors/brain/look.h"

START_TEST(small_words_of_a_question)
{
    static const struct {
        const char *language, *question, *small[6];
    } rows[] = {
        {"english", "How DO I move money from savings?", {"how", "do", "i", "from", NULL}},
        {"english", "don\xe2\x80\x99t \xe2\x80\x9cwe\xe2\x80\x9d we", {"don't", "we", NULL}},
        {"german",
         "\xc3\x9c"
         "ber wen?",
         {"\xc3\xbc"
          "ber",
          NULL}},
        {"english", "invoice", {NULL}},
        {"none", "how do I", {NULL}},
        {"english", "", {NULL}},
        {"english", "how\xff\xe2\x80", {NULL}},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        look_t look;
        size_t count = 0;
        look_question(&look, rows[i].language, rows[i].question);
        for (; rows[i].small[count]; count++) {
            ck_assert_uint_lt(count, look.count);
            ck_assert_str_eq(look.small[count].text, rows[i].small[count]);
        }
        ck_assert_uint_eq(look.count, count);
    }
}
END_TEST

static bytes_t text(const char *words)
{
    return (bytes_t){(const uint8_t *)words, strlen(words)};
}

START_TEST(who_has_rare_small_words_scores)
{
    static const char *const texts[] = {"money into savings", "money From savings", "savings", ""};
    arena_t *arena = arena_new();
    look_seen_t seen[4] = {{0}};
    float scores[4];
    look_t look;

    look_question(&look, "english", "from savings");
    for (size_t i = 0; i < 4; i++)
        look_text(&look, arena, text(texts[i]), &seen[i]);
    look_scores(&look, seen, 4, scores);
    ck_assert_float_gt(scores[1], 0);
    ck_assert(scores[0] <= 0 && scores[2] <= 0 && scores[3] <= 0);
    arena_destroy(&arena);
}
END_TEST

START_TEST(more_small_words_than_are_looked_for)
{
    arena_t *arena = arena_new();
    look_seen_t seen = {0};
    float score;
    look_t look;
    const char *all = "a about above after again against all am an and any are as at be because "
                      "been before being below between both but by can did do does doing down";

    look_question(&look, "english", all);
    ck_assert_uint_eq(look.count, LOOK_SMALL);
    look_text(&look, arena, text(all), &seen);
    ck_assert_uint_eq(seen.small, (UINT32_C(1) << LOOK_SMALL) - 1);
    look_scores(&look, &seen, 1, &score);
    look_text(&look, arena, (bytes_t){0}, &seen);
    arena_destroy(&arena);
}
END_TEST

START_TEST(asking_and_telling_when)
{
    static const char *const asking[] = {
        "When did Mia move?",
        "How long did it take?",
        "In which year was that?",
        "And what time is it?",
        "Wann war das?",
        "Wie lange dauerte es?",
        "\xe4\xbb\x80\xe4\xb9\x88\xe6\x97\xb6\xe5\x80\x99\xe8\xb5\xb0",
        "Quand part-il ?"};
    static const char *const not_asking[] = {"What did Mia say when she left?", "long ago", "",
                                             "how", "Wie geht es?"};
    static const char *const telling[] = {
        "yesterday", "It took three weeks", "in May 2023 or so",        "seit letztem Freitag",
        "2019",      "two years ago",       "\xe5\x8e\xbb\xe5\xb9\xb4", "2024\xe5\xb9\xb4"};
    static const char *const not_telling[] = {"you may go", "Room 12345", "", "march on",
                                              "hier ist es"};
    for (size_t i = 0; i < sizeof asking / sizeof asking[0]; i++)
        ck_assert_msg(dates_asked(asking[i]), "%s", asking[i]);
    for (size_t i = 0; i < sizeof not_asking / sizeof not_asking[0]; i++)
        ck_assert_msg(!dates_asked(not_asking[i]), "%s", not_asking[i]);
    for (size_t i = 0; i < sizeof telling / sizeof telling[0]; i++)
        ck_assert_msg(dates_told(telling[i]), "%s", telling[i]);
    for (size_t i = 0; i < sizeof not_telling / sizeof not_telling[0]; i++)
        ck_assert_msg(!dates_told(not_telling[i]), "%s", not_telling[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain look");
    TCase *all = tcase_create("all");
    tcase_add_test(all, small_words_of_a_question);
    tcase_add_test(all, who_has_rare_small_words_scores);
    tcase_add_test(all, more_small_words_than_are_looked_for);
    tcase_add_test(all, asking_and_telling_when);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
