/* When a line of cron is due: a table, the changes of clocks, and what is refused. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/cron.h"
#include "proto/record.h"

#define ZONES "/usr/share/zoneinfo"

static arena_t *arena;

static const zone_t *zone_of(const char *name)
{
    const zone_t *zone;
    err_t err = zone_load(arena, ZONES, name, &zone);
    ck_assert_msg(!err_is(err), "%s: %s", name, err_what(err));
    return zone;
}

static const char *next_of(const char *line, const char *zone, const char *after)
{
    cron_t cron;
    int64_t ms, next;
    err_t err = cron_parse(arena, line, &cron);
    ck_assert_msg(!err_is(err), "%s: %s", line, err_what(err));
    ck_assert_msg(record_time(after, &ms), "%s", after);
    return cron_next(&cron, zone_of(zone), ms, &next) ? record_time_text(arena, next) : "never";
}

typedef struct row {
    const char *line, *zone, *after, *next;
} row_t;

static const row_t rows[] = {
    {"* * * * *", "UTC", "2026-11-24T00:00:00Z", "2026-11-24T00:01:00"},
    {"* * * * *", "UTC", "2026-11-24T00:00:59.999Z", "2026-11-24T00:01:00"},
    {"*/15 * * * *", "UTC", "2026-11-24T00:46:00Z", "2026-11-24T01:00:00"},
    {"30 6 * * *", "UTC", "2026-11-24T06:30:00Z", "2026-11-25T06:30:00"},
    {"30 6 * * MON-FRI", "UTC", "2026-11-27T07:00:00Z", "2026-11-30T06:30:00"},
    {"0 0 * * 7", "UTC", "2026-11-24T00:00:00Z", "2026-11-29T00:00:00"},
    {"0 0 * * sun,3", "UTC", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00"},
    {"5,10-20/5 1 * * *", "UTC", "2026-11-24T01:10:00Z", "2026-11-24T01:15:00"},
    {"0 0 13 * FRI", "UTC", "2026-11-24T00:00:00Z", "2026-11-27T00:00:00"}, /* either */
    {"0 0 31 * *", "UTC", "2026-11-24T00:00:00Z", "2026-12-31T00:00:00"},
    {"0 0 29 FEB *", "UTC", "2026-11-24T00:00:00Z", "2028-02-29T00:00:00"},
    {"0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00"},
    {"@hourly", "UTC", "2026-11-24T00:00:00Z", "2026-11-24T01:00:00"},
    {"@daily", "UTC", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00"},
    {"@weekly", "UTC", "2026-11-24T00:00:00Z", "2026-11-29T00:00:00"},
    {"@monthly", "UTC", "2026-11-24T00:00:00Z", "2026-12-01T00:00:00"},
    {"@yearly", "UTC", "2026-11-24T00:00:00Z", "2027-01-01T00:00:00"},
    {"0 9 * * *", "Europe/Berlin", "2026-11-24T00:00:00Z", "2026-11-24T08:00:00"},
    {"0 9 * * *", "Europe/Berlin", "2026-06-24T00:00:00Z", "2026-06-24T07:00:00"},
    {"0 9 * * *", "Asia/Kolkata", "2026-06-24T00:00:00Z", "2026-06-24T03:30:00"},
    {"0 9 * * *", "America/New_York", "2026-06-24T00:00:00Z", "2026-06-24T13:00:00"},
    /* The gap in Berlin, 2027-03-28: after 01:59:59 comes 03:00. */
    {"30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", "2027-03-28T01:00:00"},
    {"30 2 * * *", "Europe/Berlin", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00"},
    {"*/30 2 * * *", "Europe/Berlin", "2027-03-28T01:00:00Z", "2027-03-29T00:00:00"},
    {"30 * * * *", "Europe/Berlin", "2027-03-28T00:30:00Z", "2027-03-28T01:30:00"},
    /* The overlap, 2026-10-25: after 02:59:59 summer time comes 02:00 again. */
    {"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00"},
    {"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00"},
    {"30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00"},
    {"0 3 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-25T02:00:00"},
    /* Beyond the table of the file: by the rule in its footer. South of the equator too. */
    {"0 9 * * *", "Europe/Berlin", "2070-07-01T00:00:00Z", "2070-07-01T07:00:00"},
    {"0 9 * * *", "Europe/Berlin", "2070-12-01T00:00:00Z", "2070-12-01T08:00:00"},
    {"0 9 * * *", "Australia/Sydney", "2070-01-01T00:00:00Z", "2070-01-01T22:00:00"},
    {"0 9 * * *", "Australia/Sydney", "2070-07-01T00:00:00Z", "2070-07-01T23:00:00"},
    /* Half an hour of summer time. */
    {"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00"},
};

START_TEST(due_times)
{
    const row_t *row = &rows[_i];
    const char *next = next_of(row->line, row->zone, row->after);
    ck_assert_msg(!strncmp(next, row->next, strlen(row->next)), "%s in %s after %s: %s, not %s",
                  row->line, row->zone, row->after, next, row->next);
}
END_TEST

static const char *const bad_lines[] = {
    "",           "* * * *",      "* * * * * *", "60 * * * *",
    "* 24 * * *", "* * 0 * *",    "* * 32 * *",  "* * * 13 *",
    "* * * * 8",  "5-1 * * * *",  "5/2 * * * *", "*/0 * * * *",
    "a * * * *",  "1,,2 * * * *", "1, * * * *",  "@reboot",
    "0 0 30 2 *", "* * * FOO *",  "-1 * * * *",  "99999999999 * * * *",
};

START_TEST(bad_lines_are_refused)
{
    cron_t cron;
    err_t err = cron_parse(arena, bad_lines[_i], &cron);
    ck_assert_msg(err.code == ERR_ARGUMENT, "'%s' is accepted", bad_lines[_i]);
    ck_assert_ptr_nonnull(err.what);
}
END_TEST

START_TEST(unknown_zones_are_refused)
{
    static const char *const names[] = {
        "Europe/Bonn", "../../etc/passwd",        "",        "/etc/passwd",
        "Europe",      "Europe/../Europe/Berlin", "zone.tab"};
    const zone_t *zone;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        ck_assert_msg(zone_load(arena, ZONES, names[i], &zone).code == ERR_ARGUMENT, "'%s'",
                      names[i]);
    err_t err = zone_load(arena, "/nowhere", "Europe/Berlin", &zone);
    ck_assert_ptr_nonnull(strstr(err_what(err), "tzdata is not installed"));
    ck_assert(!err_is(zone_load(arena, "/nowhere", "UTC", &zone)));
}
END_TEST

/* Every local time maps to a moment that shows it, or to the moment after a gap; never backwards.
 */
START_TEST(instants_and_local_times_agree)
{
    static const char *const names[] = {"Europe/Berlin",       "America/New_York",  "Asia/Kolkata",
                                        "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const zone_t *zone = zone_of(names[i]);
        int64_t last = INT64_MIN;
        for (int64_t local = 1767225600; local < 1767225600 + 400 * 86400; local += 900) {
            int64_t at = zone_instant(zone, local), shown = at + zone_offset(zone, at);
            ck_assert_msg(shown == local || (shown > local && shown - local <= 3600),
                          "%s: %lld shows %lld", names[i], (long long)local, (long long)shown);
            ck_assert_int_ge(at, last);
            last = at;
        }
    }
}
END_TEST

static void setup(void)
{
    arena = arena_new();
}

static void teardown(void)
{
    arena_destroy(&arena);
}

int main(void)
{
    Suite *suite = suite_create("cron");
    TCase *tcase = tcase_create("cron");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, due_times, 0, (int)(sizeof(rows) / sizeof(*rows)));
    tcase_add_loop_test(tcase, bad_lines_are_refused, 0,
                        (int)(sizeof(bad_lines) / sizeof(*bad_lines)));
    tcase_add_test(tcase, unknown_zones_are_refused);
    tcase_add_test(tcase, instants_and_local_times_agree);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
