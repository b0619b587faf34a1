/* What Prometheus reads: the two formats, and the thread that looks after the loops. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bus/process.h"
#include "bus/watchdog.h"
#include "house.h"
#include "proto/metrics.h"

static arena_t *arena;

static void setup(void)
{
    arena = arena_new();
}

static void teardown(void)
{
    arena_destroy(&arena);
}

static const char *written(const metrics_t *metrics, metrics_format_t format)
{
    buf_t out;
    buf_open(&out, arena);
    metrics_write(metrics, format, &out);
    return out.data;
}

static metrics_t *sample(void)
{
    const char *labels[] = {"tool", "a\"b\\c\nd", NULL};
    const double bounds[] = {0.1, 1};
    const uint64_t counts[] = {2, 1, 4};
    metrics_t *metrics = metrics_new(arena);
    metrics_family(metrics, "agency_calls", METRIC_COUNTER, "Calls \"all\"\nof them.");
    metrics_put(metrics, 3, labels);
    metrics_family(metrics, "agency_time_seconds", METRIC_HISTOGRAM, "Time.");
    metrics_put_histogram(metrics, bounds, counts, 2, 7.25, NULL);
    metrics_family(metrics, "agency_empty", METRIC_GAUGE, "Nothing.");
    metrics_family(metrics, "agency_calls", METRIC_COUNTER, "Not read.");
    metrics_put(metrics, 0.3, NULL);
    metrics_put(metrics, strtod("nan", NULL), NULL);
    return metrics;
}

START_TEST(text_format)
{
    ck_assert_str_eq(written(sample(), METRICS_TEXT),
                     "# HELP agency_calls_total Calls \"all\"\\nof them.\n"
                     "# TYPE agency_calls_total counter\n"
                     "agency_calls_total{tool=\"a\\\"b\\\\c\\nd\"} 3\n"
                     "agency_calls_total 0.3\n"
                     "# HELP agency_time_seconds Time.\n"
                     "# TYPE agency_time_seconds histogram\n"
                     "agency_time_seconds_bucket{le=\"0.1\"} 2\n"
                     "agency_time_seconds_bucket{le=\"1\"} 3\n"
                     "agency_time_seconds_bucket{le=\"+Inf\"} 7\n"
                     "agency_time_seconds_sum 7.25\n"
                     "agency_time_seconds_count 7\n");
}
END_TEST

START_TEST(open_metrics)
{
    const char *text = written(sample(), METRICS_OPENMETRICS);
    ck_assert_ptr_nonnull(strstr(text, "# HELP agency_calls Calls \\\"all\\\"\\nof them.\n"
                                       "# TYPE agency_calls counter\nagency_calls_total{"));
    ck_assert_str_eq(text + strlen(text) - 6, "# EOF\n");
    ck_assert_int_eq(metrics_negotiate("application/openmetrics-text;version=1.0.0,*/*;q=0.1"),
                     METRICS_OPENMETRICS);
    ck_assert_int_eq(metrics_negotiate("text/plain"), METRICS_TEXT);
    ck_assert_int_eq(metrics_negotiate(NULL), METRICS_TEXT);
}
END_TEST

START_TEST(names_are_made_sound)
{
    metrics_t *metrics = metrics_new(arena);
    const char *labels[] = {"9 b-c", "v", NULL};
    metrics_family(metrics, "0a.b é", METRIC_GAUGE, "Odd.");
    metrics_put(metrics, -1, labels);
    const char *text = written(metrics, METRICS_TEXT);
    ck_assert_msg(strstr(text, "\n_a_b___{__b_c=\"v\"} -1\n") != NULL, "%s", text);
}
END_TEST

START_TEST(this_process)
{
    process_usage_t usage;
    process_usage(&usage);
    ck_assert(usage.resident_bytes > 100000 && usage.virtual_bytes > usage.resident_bytes);
    ck_assert(usage.open_fds >= 3 && usage.open_fds <= usage.max_fds);
    ck_assert(usage.start_seconds > 1e9 && usage.start_seconds <= (double)time(NULL) + 1);
}
END_TEST

/* ---- The watchdog ---- */

START_TEST(lag_is_seen_while_it_lasts)
{
    watchdog_t *watchdog = watchdog_start(50, 0);
    watched_t *watched = watchdog_add(watchdog, "tortoise");
    ck_assert_int_eq(watchdog_lag_us(watchdog), 0);
    watched_begin(watched);
    int64_t end = mono_ms() + 5000;
    while (watchdog_lag_us(watchdog) < 60000 && mono_ms() < end) {
    }
    ck_assert(watchdog_lag_us(watchdog) >= watchdog_limit_us(watchdog));
    watched_end(watched);
    ck_assert_int_eq(watchdog_lag_us(watchdog), 0);
    ck_assert(watched_worst_us(watched) >= 60000);
    watchdog_remove(watchdog, &watched);
    watchdog_stop(&watchdog);
    ck_assert_ptr_null(watchdog);
}
END_TEST

START_TEST(a_stuck_loop_ends_the_process)
{
    watchdog_t *watchdog = watchdog_start(20, 40);
    watched_begin(watchdog_add(watchdog, "stuck"));
    for (;;) {
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, text_format);
    tcase_add_test(tests, open_metrics);
    tcase_add_test(tests, names_are_made_sound);
    tcase_add_test(tests, this_process);
    tcase_add_test(tests, lag_is_seen_while_it_lasts);
    tcase_add_test_raise_signal(tests, a_stuck_loop_ends_the_process, SIGABRT);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
