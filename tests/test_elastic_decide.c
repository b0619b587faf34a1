/* How many replicas: the decision as a table, and over time. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "actors/elastic/decide.h"
#include "house.h"

static const scale_policy_t usual = {.min_replicas = 1,
                                     .max_replicas = 5,
                                     .target_per_replica = 5,
                                     .tolerance = 0.1,
                                     .up_percent = 100,
                                     .up_count = 4,
                                     .up_period_ms = 15000,
                                     .down_stabilization_ms = 300000,
                                     .down_count = 1,
                                     .down_period_ms = 60000,
                                     .age_ms = 30000};

static decision_t look(const scale_policy_t *policy, history_t *history, observed_t seen)
{
    decision_t out;
    decide(policy, &seen, history, &out);
    decide_scaled(history, seen.now_ms, out.desired - seen.current);
    return out;
}

START_TEST(defaults_are_those_of_the_rows)
{
    arena_t *arena = arena_new();
    scale_policy_t policy;
    err_t err = record_decode(&scale_policy_record, (bytes_t){0}, arena, "policy", &policy);
    ck_assert(!err_is(err));
    ck_assert_int_eq(policy.min_replicas, usual.min_replicas);
    ck_assert_int_eq(policy.max_replicas, usual.max_replicas);
    ck_assert_int_eq(policy.target_per_replica, usual.target_per_replica);
    ck_assert(policy.tolerance == usual.tolerance);
    ck_assert_int_eq(policy.up_stabilization_ms, 0);
    ck_assert_int_eq(policy.up_percent, usual.up_percent);
    ck_assert_int_eq(policy.up_count, usual.up_count);
    ck_assert_int_eq(policy.up_period_ms, usual.up_period_ms);
    ck_assert_int_eq(policy.down_stabilization_ms, usual.down_stabilization_ms);
    ck_assert_int_eq(policy.down_count, usual.down_count);
    ck_assert_int_eq(policy.down_period_ms, usual.down_period_ms);
    ck_assert(!err_is(record_check(&scale_policy_record, arena)));
    arena_destroy(&arena);
}
END_TEST

typedef struct row {
    int64_t current, queue, age_ms, floor;
    bool metric;
    int64_t desired;
    decide_why_t why;
} row_t;

/* With no history worth speaking of: the last wish was what runs. */
static const row_t rows[] = {
    {1, 0, 0, 0, true, 1, WHY_MIN},
    {1, 1, 0, 0, true, 1, WHY_STEADY},
    {1, 5, 0, 0, true, 1, WHY_STEADY},
    {1, 6, 0, 0, true, 2, WHY_QUEUE},
    {1, 10, 0, 0, true, 2, WHY_QUEUE},
    {1, 11, 0, 0, true, 3, WHY_QUEUE},
    {1, 25, 0, 0, true, 5, WHY_QUEUE},
    {1, 1000000000000, 0, 0, true, 5, WHY_MAX},
    {2, 11, 0, 0, true, 3, WHY_QUEUE}, /* 11 / 10 - 1 is a hair above 0.1, as in the HPA */
    {20, 11, 0, 0, true, 5, WHY_MAX},
    {4, 21, 0, 0, true, 4, WHY_TOLERANCE},
    {2, 12, 0, 0, true, 3, WHY_QUEUE},
    {2, 9, 0, 0, true, 2, WHY_TOLERANCE},
    {2, 8, 0, 0, true, 2, WHY_STEADY}, /* ceil(8 / 5) */
    {3, 5, 0, 0, true, 3, WHY_STABILIZING},
    {0, 0, 0, 0, true, 1, WHY_MIN},
    {0, 0, 0, 0, false, 1, WHY_MIN},
    {7, 0, 0, 0, true, 5, WHY_MAX},
    {7, 0, 0, 0, false, 7, WHY_NO_METRIC}, /* never in without a metric */
    {4, 0, 0, 0, false, 4, WHY_NO_METRIC},
    {1, 3, 30000, 0, true, 1, WHY_STEADY},
    {1, 3, 30001, 0, true, 2, WHY_AGE},
    {2, 2, 99999, 0, true, 2, WHY_AGE}, /* no more hands than tasks */
    {1, 1, 99999, 0, true, 1, WHY_STEADY},
    {1, 0, 0, 3, true, 3, WHY_FLOOR},
    {1, 0, 0, 99, true, 5, WHY_MAX},
    {1, 0, 0, 3, false, 3, WHY_FLOOR},
    {5, 25, 0, 2, true, 5, WHY_STEADY},
};

START_TEST(the_table)
{
    const row_t *row = &rows[_i];
    history_t *history = calloc(1, sizeof(*history));
    decision_t out = look(&usual, history,
                          (observed_t){.now_ms = 1000000,
                                       .current = row->current,
                                       .has_metric = row->metric,
                                       .queue_length = row->queue,
                                       .oldest_age_ms = row->age_ms,
                                       .floor = row->floor});
    ck_assert_msg(out.desired == row->desired && out.why == row->why,
                  "row %d: %d (%s), expected %d (%s)", _i, (int)out.desired,
                  decide_why_names[out.why], (int)row->desired, decide_why_names[row->why]);
    free(history);
}
END_TEST

/* Feeds one demand each second and gives the number at the end. */
static int64_t run(const scale_policy_t *policy, history_t *history, int64_t *now_ms,
                   int64_t current, int64_t queue, int seconds)
{
    for (int i = 0; i < seconds; i++) {
        *now_ms += 1000;
        current = look(policy, history,
                       (observed_t){.now_ms = *now_ms,
                                    .current = current,
                                    .has_metric = true,
                                    .queue_length = queue})
                      .desired;
    }
    return current;
}

START_TEST(down_after_300_s_and_one_each_60_s)
{
    history_t *history = calloc(1, sizeof(*history));
    int64_t now = 0;
    int64_t current = run(&usual, history, &now, 1, 100, 1);
    ck_assert_int_eq(current, 5);
    current = run(&usual, history, &now, current, 0, 299);
    ck_assert_int_eq(current, 5);
    current = run(&usual, history, &now, current, 0, 1);
    ck_assert_int_eq(current, 4);
    current = run(&usual, history, &now, current, 0, 59);
    ck_assert_int_eq(current, 4);
    current = run(&usual, history, &now, current, 0, 1);
    ck_assert_int_eq(current, 3);
    current = run(&usual, history, &now, current, 0, 120);
    ck_assert_int_eq(current, 1);
    current = run(&usual, history, &now, current, 0, 1000);
    ck_assert_int_eq(current, 1);
    free(history);
}
END_TEST

/* Demand that comes back within the window never lets it go down. */
START_TEST(flapping_does_not_scale_in)
{
    history_t *history = calloc(1, sizeof(*history));
    int64_t now = 0, current = 1;
    for (int i = 0; i < 20; i++) {
        current = run(&usual, history, &now, current, 25, 5);
        ck_assert_int_eq(current, 5);
        current = run(&usual, history, &now, current, 0, 290);
        ck_assert_int_eq(current, 5);
    }
    free(history);
}
END_TEST

START_TEST(up_at_most_doubles_or_4_each_15_s)
{
    scale_policy_t wide = usual;
    wide.max_replicas = 100;
    history_t *history = calloc(1, sizeof(*history));
    int64_t now = 0;
    static const int64_t expected[] = {5, 10, 20, 40, 80, 100, 100};
    int64_t current = 1;
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
        current = run(&wide, history, &now, current, 100000, 1);
        ck_assert_int_eq(current, expected[i]);
        current = run(&wide, history, &now, current, 100000, 14);
        ck_assert_int_eq(current, expected[i]);
    }
    free(history);
}
END_TEST

START_TEST(a_new_life_does_not_scale_in_early)
{
    history_t *history = calloc(1, sizeof(*history));
    int64_t now = 5000000;
    ck_assert_int_eq(run(&usual, history, &now, 5, 0, 300), 5);
    ck_assert_int_eq(run(&usual, history, &now, 5, 0, 1), 4);
    free(history);
}
END_TEST

START_TEST(a_missing_metric_holds_and_begins_the_window_again)
{
    history_t *history = calloc(1, sizeof(*history));
    int64_t now = 0;
    run(&usual, history, &now, 5, 0, 290);
    now += 1000;
    observed_t blind = {.now_ms = now, .current = 5};
    ck_assert_int_eq(look(&usual, history, blind).desired, 5);
    ck_assert_int_eq(run(&usual, history, &now, 5, 0, 299), 5);
    ck_assert_int_eq(run(&usual, history, &now, 5, 0, 1), 4);
    free(history);
}
END_TEST

/* The API server was away for ten minutes: what was wanted meanwhile is not known. */
START_TEST(a_gap_begins_the_window_again)
{
    history_t *history = calloc(1, sizeof(*history));
    int64_t now = 0;
    run(&usual, history, &now, 5, 0, 290);
    now += 600000;
    ck_assert_int_eq(run(&usual, history, &now, 5, 0, 300), 5);
    ck_assert_int_eq(run(&usual, history, &now, 5, 0, 1), 4);
    free(history);
}
END_TEST

START_TEST(age_raises_once_a_period)
{
    scale_policy_t policy = usual;
    policy.max_replicas = 50;
    history_t *history = calloc(1, sizeof(*history));
    int64_t current = 1;
    for (int second = 1; second <= 45; second++) {
        observed_t seen = {.now_ms = second * 1000,
                           .current = current,
                           .has_metric = true,
                           .queue_length = 4,
                           .oldest_age_ms = 60000};
        current = look(&policy, history, seen).desired;
        ck_assert_int_eq(current, 2 + (second - 1) / 15);
    }
    free(history);
}
END_TEST

START_TEST(up_stabilization_takes_the_least_wish)
{
    scale_policy_t slow = usual;
    slow.up_stabilization_ms = 10000;
    history_t *history = calloc(1, sizeof(*history));
    int64_t now = 0;
    ck_assert_int_eq(run(&slow, history, &now, 1, 0, 1), 1);
    ck_assert_int_eq(run(&slow, history, &now, 1, 25, 9), 1);
    ck_assert_int_eq(run(&slow, history, &now, 1, 25, 1), 5);
    free(history);
}
END_TEST

/* Whatever the demand does: within the bounds, never down without a metric, never faster than the
 * rates, and the memory of it does not overflow. */
START_TEST(any_demand)
{
    scale_policy_t policy = usual;
    unsigned chance = (unsigned)_i * 2654435761U + 1;
    policy.max_replicas = 1 + _i * 37 % 1000;
    policy.up_count = 1 + _i % 7;
    policy.up_percent = _i % 3 * 50;
    policy.down_stabilization_ms = _i % 5 * 1000;
    policy.down_period_ms = 1000;
    policy.up_period_ms = 1000;
    history_t *history = calloc(1, sizeof(*history));
    int64_t current = 1, now = 0;
    for (int i = 0; i < (SLOW_BUILD ? 2000 : 20000); i++) {
        chance = chance * 1103515245U + 12345;
        now += 1 + (chance >> 16) % 200;
        observed_t seen = {.now_ms = now,
                           .current = current,
                           .has_metric = (chance >> 8) % 10 != 0,
                           .queue_length = (chance >> 12) % 6000,
                           .oldest_age_ms = (chance >> 10) % 60000};
        decision_t out = look(&policy, history, seen);
        ck_assert_int_ge(out.desired, policy.min_replicas);
        ck_assert_int_le(out.desired, policy.max_replicas);
        ck_assert_int_ge(out.desired, current - policy.down_count);
        if (!seen.has_metric)
            ck_assert_int_ge(out.desired, current);
        ck_assert_int_le(history->event_count, DECIDE_EVENTS);
        ck_assert_int_lt(history->largest.count, DECIDE_WISHES);
        current = out.desired;
    }
    free(history);
}
END_TEST

START_TEST(policies_that_cannot_be)
{
    arena_t *arena = arena_new();
    scale_policy_t policy = usual;
    ck_assert(!err_is(decide_check(&policy, arena)));
    policy.min_replicas = 6;
    ck_assert_int_eq(decide_check(&policy, arena).code, ERR_ARGUMENT);
    policy = usual;
    policy.up_percent = policy.up_count = 0;
    ck_assert_int_eq(decide_check(&policy, arena).code, ERR_ARGUMENT);
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("elastic_decide");
    TCase *tests = tcase_create("decide");
    tcase_add_test(tests, defaults_are_those_of_the_rows);
    tcase_add_loop_test(tests, the_table, 0, sizeof(rows) / sizeof(*rows));
    tcase_add_test(tests, down_after_300_s_and_one_each_60_s);
    tcase_add_test(tests, flapping_does_not_scale_in);
    tcase_add_test(tests, up_at_most_doubles_or_4_each_15_s);
    tcase_add_test(tests, a_new_life_does_not_scale_in_early);
    tcase_add_test(tests, a_missing_metric_holds_and_begins_the_window_again);
    tcase_add_test(tests, a_gap_begins_the_window_again);
    tcase_add_test(tests, age_raises_once_a_period);
    tcase_add_test(tests, up_stabilization_takes_the_least_wish);
    tcase_add_loop_test(tests, any_demand, 0, 30);
    tcase_add_test(tests, policies_that_cannot_be);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
