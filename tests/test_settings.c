/* Settings from the command line, the environment and the file, and what is said about bad ones. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bus/settings.h"
#include "house.h"

#define sample_FIELDS(F)                                                                           \
    F(INT, limit, opt(3), 1, 100, "How many.")                                                     \
    F(REAL, ratio, opt(0.5), 0, 1, "How much.")                                                    \
    F(BOOL, eager, opt(false), 0, 0, "Whether.")                                                   \
    F(STR, where, opt(here), 0, 64, "Where.")                                                      \
    F(STRS, hosts, opt(), 0, 3, "Who.")
RECORD(sample, sample_FIELDS)

typedef struct desk {
    arena_t *arena;
    char dir[32];
    sample_t got;
    err_t err;
} desk_t;

static void open_desk(desk_t *desk)
{
    *desk = (desk_t){.arena = arena_new()};
    scratch_make(desk->dir);
}

static void close_desk(desk_t *desk)
{
    scratch_remove(desk->dir);
    arena_destroy(&desk->arena);
}

static void file_says(desk_t *desk, const char *text)
{
    write_file(arena_printf(desk->arena, "%s/agency.conf", desk->dir), text);
}

static void load(desk_t *desk, const char *given, const char *environment)
{
    const char *const all_given[] = {given, NULL}, *const all[] = {environment, NULL};
    desk->got = (sample_t){0};
    desk->err = settings_load(&sample_record, "brain", given ? all_given : NULL,
                              environment ? all : NULL, desk->dir, desk->arena, &desk->got);
}

static void expect_limit(desk_t *desk, int64_t limit)
{
    ck_assert_msg(!err_is(desk->err), "%s", err_what(desk->err));
    ck_assert_int_eq(desk->got.limit, limit);
}

static void expect_error(desk_t *desk, const char *one, const char *other)
{
    ck_assert_int_eq(desk->err.code, ERR_ARGUMENT);
    ck_assert_msg(strstr(err_what(desk->err), one) && strstr(err_what(desk->err), other),
                  "'%s' lacks '%s' or '%s'", err_what(desk->err), one, other);
}

START_TEST(the_strongest_source_wins)
{
    desk_t desk;
    open_desk(&desk);
    load(&desk, NULL, NULL);
    expect_limit(&desk, 3);
    ck_assert_str_eq(desk.got.where, "here");
    file_says(&desk, "# a comment\n\n  brain.limit = 4  \nagent.limit = nonsense\n");
    load(&desk, NULL, NULL);
    expect_limit(&desk, 4);
    load(&desk, NULL, "AGENCY_BRAIN_LIMIT=5");
    expect_limit(&desk, 5);
    load(&desk, "brain.limit=6", "AGENCY_BRAIN_LIMIT=5");
    expect_limit(&desk, 6);
    load(&desk, "agent.limit=7", "AGENCY_AGENT_LIMIT=8");
    expect_limit(&desk, 4);
    load(&desk, "brain.where=", NULL);
    ck_assert_str_eq(desk.got.where, "");
    close_desk(&desk);
}
END_TEST

START_TEST(types_and_lists)
{
    desk_t desk;
    open_desk(&desk);
    file_says(&desk, "brain.ratio = 0.25\nbrain.eager = true\nbrain.hosts = a, b,c\n"
                     "brain.where = a = b\n");
    load(&desk, NULL, NULL);
    expect_limit(&desk, 3);
    ck_assert(desk.got.ratio == 0.25 && desk.got.eager);
    ck_assert_uint_eq(desk.got.hosts.count, 3);
    ck_assert_str_eq(desk.got.hosts.items[1], "b");
    ck_assert_str_eq(desk.got.where, "a = b");
    close_desk(&desk);
}
END_TEST

START_TEST(bad_ones_are_refused_with_their_source)
{
    desk_t desk;
    open_desk(&desk);
    load(&desk, "brain.limit=0", NULL);
    expect_error(&desk, "limit", "command line");
    load(&desk, "brain.limit=many", NULL);
    expect_error(&desk, "limit", "command line");
    load(&desk, "brain.limit=99999999999999999999", NULL);
    expect_error(&desk, "limit", "command line");
    load(&desk, "brain.eager=yes", NULL);
    expect_error(&desk, "eager", "command line");
    load(&desk, "brain.ratio=nan", NULL);
    expect_error(&desk, "ratio", "command line");
    load(&desk, NULL, "AGENCY_BRAIN_RATIO=2");
    expect_error(&desk, "ratio", "AGENCY_BRAIN_RATIO");
    load(&desk, "brain.limt=1", NULL);
    expect_error(&desk, "brain.limt", "limit");
    file_says(&desk, "brain.hosts = a,b,c,d\n");
    load(&desk, NULL, NULL);
    expect_error(&desk, "hosts", "agency.conf");
    file_says(&desk, "\nno equals here\n");
    load(&desk, NULL, NULL);
    expect_error(&desk, "agency.conf", "no equals here");
    file_says(&desk, "brain.unheard = 1\n");
    load(&desk, NULL, NULL);
    expect_error(&desk, "agency.conf", "brain.unheard");
    close_desk(&desk);
}
END_TEST

START_TEST(names_of_nobody)
{
    static const char *const actors[] = {"agent", "brain", "limits", NULL};
    desk_t desk;
    open_desk(&desk);
    file_says(&desk, "# names\nagent.lease_ms = 1\n\nlimits.inbox = 3\n");
    ck_assert(!err_is(settings_check_file(desk.dir, actors, desk.arena)));
    file_says(&desk, "agent.lease_ms = 1\nbrian.limit = 3\n");
    desk.err = settings_check_file(desk.dir, actors, desk.arena);
    expect_error(&desk, "line 2", "brain");
    ck_assert_int_eq(unlink(arena_printf(desk.arena, "%s/agency.conf", desk.dir)), 0);
    ck_assert(!err_is(settings_check_file(desk.dir, actors, desk.arena)));
    ck_assert_int_eq(mkdir(arena_printf(desk.arena, "%s/agency.conf", desk.dir), 0700), 0);
    load(&desk, NULL, NULL);
    ck_assert_int_eq(desk.err.code, ERR_IO);
    ck_assert_ptr_nonnull(strstr(err_what(desk.err), "directory"));
    close_desk(&desk);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("settings");
    TCase *all = tcase_create("all");
    tcase_add_test(all, the_strongest_source_wins);
    tcase_add_test(all, types_and_lists);
    tcase_add_test(all, bad_ones_are_refused_with_their_source);
    tcase_add_test(all, names_of_nobody);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
