/* Demand rules: what is refused and where, hot reload, thresholds, metrics of the volume. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/elastic/rules.h"
#include "house.h"

#define GOOD                                                                                       \
    "[\n  {\"metric\": \"queue_length\", \"threshold\": 20, \"action\": \"scale_agents\",\n"       \
    "   \"agent_template\": \"worker\", \"count\": 4, \"cooldown_threshold\": 5},\n"               \
    "  {\"metric\": \"sales:orders\", \"threshold\": 1.5, \"action\": \"spawn\",\n"                \
    "   \"agent_template\": \"clerk\", \"count\": 2}\n]\n"

enum { NOON = 1000 }; /* any time; the day is 1970-01-01 */

typedef struct wrong {
    const char *text, *says;
} wrong_t;

static const wrong_t wrongs[] = {
    {"[\n{\"metric\": \"a\",\n", "line"},
    {"{\"metric\": \"a\"}", "no list of rules"},
    {"[{\"metric\": \"a\",\n \"threshold\": 1,\n \"action\": \"spawn\", \"count\": 0}]", "line 3"},
    {"[{\"metric\": \"a\",\n \"threshold\": \"x\",\n \"action\": \"spawn\", \"count\": 1}]",
     "line 2"},
    {"[{\"metric\": \"a\", \"threshold\": 1, \"action\": \"spawn\", \"count\": 1},\n\n {}]",
     "line 3: rule 2"},
    {"[{\"metric\": \"a\", \"threshold\": 1, \"action\": \"explode\", \"count\": 1}]", "action"},
    {"[{\"metric\": \"a\", \"threshold\": 1, \"action\": \"spawn\", \"count\": 1, \"more\": 1}]",
     "more"},
    {"{\"rules\": [\n {\"metric\": \"{[\", \"threshold\": 1, \"action\": \"spawn\", \"count\": "
     "1},\n"
     " {\"metric\": \"a\", \"threshold\": 1, \"action\": \"spawn\", \"count\": 1,\n"
     "  \"cooldown_threshold\": 2}]}",
     "line 4: rule 2"},
    {"", "line"},
};

START_TEST(wrong_ones_are_refused_with_their_line)
{
    arena_t *arena = arena_new();
    rule_list_t list;
    const wrong_t *wrong = &wrongs[_i];
    err_t err = rules_parse(wrong->text, strlen(wrong->text), arena, &list);
    ck_assert_msg(err_is(err), "%s", wrong->text);
    ck_assert_msg(strstr(err_what(err), wrong->says) != NULL, "no '%s' in: %s", wrong->says,
                  err_what(err));
    arena_destroy(&arena);
}
END_TEST

typedef struct place {
    char dir[64];
    char file[128], metrics[128], today[192];
    rules_t *rules;
} place_t;

static void open_place(place_t *place)
{
    scratch_make(place->dir);
    snprintf(place->file, sizeof(place->file), "%s/elastic_rules.json", place->dir);
    snprintf(place->metrics, sizeof(place->metrics), "%s/metrics", place->dir);
    snprintf(place->today, sizeof(place->today), "%s/1970-01-01.ndjson", place->metrics);
    ck_assert(!mkdir(place->metrics, 0700));
    place->rules = rules_new(place->file, place->metrics);
}

static void close_place(place_t *place)
{
    rules_destroy(&place->rules);
    scratch_remove(place->dir);
}

/* The wall clock may be coarse: a file of another size is another file. */
START_TEST(a_bad_file_leaves_the_old_rules)
{
    place_t place;
    open_place(&place);
    rules_look(place.rules, NOON);
    ck_assert_int_eq(rules_count(place.rules), 0);
    ck_assert_ptr_null(rules_error(place.rules));
    write_file(place.file, GOOD);
    rules_look(place.rules, NOON);
    ck_assert_int_eq(rules_count(place.rules), 2);
    write_file(place.file, "[\n\n{\"metric\": 1}]");
    rules_look(place.rules, NOON);
    ck_assert_int_eq(rules_count(place.rules), 2);
    ck_assert_ptr_nonnull(strstr(rules_error(place.rules), "line 3"));
    write_file(place.file, "[]");
    rules_look(place.rules, NOON);
    ck_assert_int_eq(rules_count(place.rules), 0);
    ck_assert_ptr_null(rules_error(place.rules));
    write_file(place.file, GOOD);
    rules_look(place.rules, NOON);
    ck_assert(!unlink(place.file));
    rules_look(place.rules, NOON);
    ck_assert_int_eq(rules_count(place.rules), 0);
    close_place(&place);
}
END_TEST

static int64_t floor_at(place_t *place, double value, int64_t now)
{
    rules_tell(place->rules, "queue_length", value, now);
    rules_judge(place->rules, now);
    return rules_floor(place->rules);
}

START_TEST(between_the_thresholds_nothing_changes)
{
    place_t place;
    open_place(&place);
    write_file(place.file, GOOD);
    rules_look(place.rules, NOON);
    ck_assert_int_eq(floor_at(&place, 20, NOON), 0);
    ck_assert_int_eq(floor_at(&place, 21, NOON), 4);
    ck_assert_int_eq(floor_at(&place, 6, NOON), 4);
    rules_judge(place.rules, NOON + 400000); /* unknown: it stays */
    ck_assert_int_eq(rules_floor(place.rules), 4);
    ck_assert_int_eq(floor_at(&place, 5, NOON + 400000), 0);
    ck_assert_int_eq(floor_at(&place, 6, NOON + 400000), 0);
    close_place(&place);
}
END_TEST

static void append(const char *path, const char *text)
{
    FILE *file = fopen(path, "a");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

START_TEST(metrics_of_the_volume)
{
    place_t place;
    open_place(&place);
    write_file(place.file, GOOD);
    append(place.today, "garbage\n{\"timestamp\":1,\"agent\":\"other\",\"metric\":\"orders\","
                        "\"value\":9}\n");
    rules_look(place.rules, NOON);
    ck_assert(!rules_state(place.rules, 1).known);
    append(place.today, "{\"timestamp\":\"1970-01-01T00:00:01Z\",\"agent\":\"sales\",\"metric\":"
                        "\"orders\",\"val");
    rules_look(place.rules, NOON);
    ck_assert_msg(!rules_state(place.rules, 1).known, "a torn line was read");
    append(place.today, "ue\":2,\"tags\":{}}\n");
    rules_look(place.rules, NOON);
    rules_judge(place.rules, NOON);
    rule_state_t state = rules_state(place.rules, 1);
    ck_assert(state.known && state.acts && state.value == 2);
    ck_assert_int_eq(rules_floor(place.rules), 0);
    ck_assert(!truncate(place.today, 0));
    append(place.today,
           "{\"timestamp\":1001,\"agent\":\"sales\",\"metric\":\"orders\",\"value\":1}\n");
    rules_look(place.rules, NOON);
    rules_judge(place.rules, NOON);
    state = rules_state(place.rules, 1);
    ck_assert(!state.acts && state.cool && state.value == 1);
    close_place(&place);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("elastic_rules");
    TCase *tests = tcase_create("rules");
    tcase_add_loop_test(tests, wrong_ones_are_refused_with_their_line, 0,
                        sizeof(wrongs) / sizeof(*wrongs));
    tcase_add_test(tests, a_bad_file_leaves_the_old_rules);
    tcase_add_test(tests, between_the_thresholds_nothing_changes);
    tcase_add_test(tests, metrics_of_the_volume);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
