/* The arithmetic of negotiations, as a table: who wins, and why. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "actors/swarm/negotiate.h"

static const char *const sql[] = {"sql"};
static const char *const paint[] = {"paint"};

#define ANY(name) .id = name, .role = "clerk", .capabilities = {sql, 1}
#define COST(d, t) .has_duration = true, .duration = (d), .has_tokens = true, .tokens = (t)

typedef struct row {
    const char *why;
    bidder_t bidders[3];
    size_t count, winner;
} row_t;

static const row_t rows[] = {
    {"nobody", {{0}}, 0, 0},
    {"the only one", {{ANY("a")}}, 1, 0},
    {"success",
     {{ANY("a"), .runs = 10, .successes = 2}, {ANY("b"), .runs = 10, .successes = 9}},
     2,
     1},
    {"many runs say more than one",
     {{ANY("a"), .runs = 1, .successes = 1}, {ANY("b"), .runs = 50, .successes = 50}},
     2,
     1},
    {"a capability that fits",
     {{.id = "a", .role = "clerk", .capabilities = {paint, 1}, .runs = 8, .successes = 8},
      {ANY("b"), .runs = 8, .successes = 8}},
     2,
     1},
    {"load", {{ANY("a"), .load = 1}, {ANY("b"), .load = 0}}, 2, 1},
    {"duration", {{ANY("a"), COST(60, 10)}, {ANY("b"), COST(6, 10)}}, 2, 1},
    {"tokens", {{ANY("a"), COST(6, 900)}, {ANY("b"), COST(6, 10)}}, 2, 1},
    {"quality outweighs cost",
     {{ANY("a"), .runs = 20, .successes = 20, COST(60, 60)},
      {ANY("b"), .runs = 20, .successes = 2, COST(30, 30)}},
     2,
     0},
    {"a tie goes to the smaller id", {{ANY("c")}, {ANY("a")}, {ANY("b")}}, 3, 1},
    {"more successes than runs count as all",
     {{ANY("a"), .runs = 1, .successes = 1000}, {ANY("b"), .runs = 9, .successes = 9}},
     2,
     1},
    {"no number is not measured",
     {{ANY("a"), COST(NAN, -1)}, {ANY("b"), COST(INFINITY, NAN)}},
     2,
     0},
    {"load that is no number is none", {{ANY("b"), .load = 0.5}, {ANY("a"), .load = -7}}, 2, 1},
};

START_TEST(the_best_bid_wins)
{
    const row_t *row = &rows[_i];
    bid_score_t scores[3];
    negotiate_score(row->bidders, row->count, "Tune the SQL of the report", scores);
    ck_assert_msg(negotiate_award(row->bidders, scores, row->count) == row->winner, "%s", row->why);
    for (size_t i = 0; i < row->count; i++) {
        ck_assert_msg(isfinite(scores[i].score), "%s", row->why);
        ck_assert_double_eq(scores[i].score, scores[i].quality - scores[i].cost / 2);
        ck_assert(scores[i].cost >= 0 && scores[i].cost <= 1);
    }
}
END_TEST

/* The order in which they are asked is no part of the award. */
START_TEST(order_does_not_matter)
{
    bidder_t bidders[] = {{ANY("b")}, {ANY("a")}, {ANY("c"), .load = 0.1}}, turned[3];
    bid_score_t scores[3];
    for (size_t turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < 3; i++)
            turned[i] = bidders[(i + turn) % 3];
        negotiate_score(turned, 3, "sql", scores);
        ck_assert_str_eq(turned[negotiate_award(turned, scores, 3)].id, "a");
    }
}
END_TEST

START_TEST(words_begin_where_words_begin)
{
    bidder_t bidder = {ANY("a")};
    ck_assert(negotiate_fits(&bidder, "write SQL."));
    ck_assert(negotiate_fits(&bidder, "a clerk's work"));
    ck_assert(!negotiate_fits(&bidder, "mysql"));
    ck_assert(!negotiate_fits(&bidder, ""));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("negotiate");
    TCase *tcase = tcase_create("negotiate");
    tcase_add_loop_test(tcase, the_best_bid_wins, 0, sizeof(rows) / sizeof(*rows));
    tcase_add_test(tcase, order_does_not_matter);
    tcase_add_test(tcase, words_begin_where_words_begin);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
