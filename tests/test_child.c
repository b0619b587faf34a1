/* Commands in processes of their own, without an actor around them. */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus/child.h"
#include "house.h"

typedef struct shop {
    children_t *children;
    arena_t *arena;
    child_outcome_t last;
    int done;
} shop_t;

static void open_shop(shop_t *shop)
{
    *shop = (shop_t){.children = children_new(), .arena = arena_new()};
}

static void close_shop(shop_t *shop)
{
    children_destroy(&shop->children);
    arena_destroy(&shop->arena);
}

static void on_done(void *ctx, const child_outcome_t *outcome)
{
    shop_t *shop = ctx;
    shop->done++;
    shop->last = *outcome;
    shop->last.output.data = (const uint8_t *)arena_strndup(
        shop->arena, (const char *)outcome->output.data, outcome->output.size);
    shop->last.errors.data = (const uint8_t *)arena_strndup(
        shop->arena, (const char *)outcome->errors.data, outcome->errors.size);
}

static void until_done(shop_t *shop, int count)
{
    int64_t end = mono_ms() + 15000;
    while (shop->done < count) {
        struct pollfd item = {.fd = children_fd(shop->children), .events = POLLIN};
        int64_t left = end - mono_ms();
        ck_assert_msg(left > 0, "a command does not end");
        poll(&item, 1, (int)left);
        children_on_readable(shop->children);
    }
}

static child_t *start(shop_t *shop, const child_request_t *request)
{
    child_t *child;
    err_t err = child_start(shop->children, request, on_done, shop, &child);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    return child;
}

static const child_outcome_t *run(shop_t *shop, const char *script, child_request_t request)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    request.argv = argv;
    start(shop, &request);
    until_done(shop, shop->done + 1);
    return &shop->last;
}

static const char *output(const child_outcome_t *outcome)
{
    return (const char *)outcome->output.data;
}

START_TEST(what_a_command_is_given)
{
    shop_t shop;
    char dir[32];
    open_shop(&shop);
    scratch_make(dir);
    static const char *const env[] = {"GREETING=hello", NULL};
    const char *input = "from outside";
    child_request_t request = {
        .env = env, .cwd = dir, .input = {(const uint8_t *)input, strlen(input)}};
    const child_outcome_t *got =
        run(&shop, "cat; echo \" $GREETING\"; pwd; echo oops >&2; exit 7", request);
    ck_assert_str_eq(output(got), arena_printf(shop.arena, "from outside hello\n%s\n", dir));
    ck_assert_str_eq((const char *)got->errors.data, "oops\n");
    ck_assert_int_eq(got->exit_status, 7);
    ck_assert_int_eq(got->signal, 0);
    /* Nothing of our environment, and no descriptor but the three. */
    setenv("SECRET", "x", 1);
    got = run(&shop, "echo \"${SECRET-none}\"; ls /proc/self/fd | wc -l", (child_request_t){0});
    ck_assert_str_eq(output(got), "none\n4\n"); /* ls itself opens one */
    scratch_remove(dir);
    close_shop(&shop);
}
END_TEST

START_TEST(limits)
{
    shop_t shop;
    open_shop(&shop);
    const child_outcome_t *got =
        run(&shop, "trap '' TERM; sleep 1000", (child_request_t){.timeout_ms = 100});
    ck_assert(got->timed_out);
    ck_assert_int_eq(got->signal, SIGKILL);
    ck_assert_int_eq(got->exit_status, -1);
    ck_assert_int_ge(got->duration_ms, 100);
    got = run(&shop, "head -c 5000000 /dev/zero", (child_request_t){.output_limit = 1000});
    ck_assert(got->truncated && !got->timed_out);
    ck_assert_uint_eq(got->output.size, 1000);
    ck_assert_int_eq(got->exit_status, 0); /* it was not blocked by what nobody kept */
    got = run(&shop, "head -c 900000000 /dev/zero | tail -c 800000000 | wc -c",
              (child_request_t){.memory_limit = 64 << 20});
    ck_assert_ptr_null(strstr(output(got), "800000000"));
    close_shop(&shop);
}
END_TEST

START_TEST(what_cannot_be_started)
{
    shop_t shop;
    open_shop(&shop);
    const char *const argv[] = {"/no/such/file", NULL};
    start(&shop, &(child_request_t){.argv = argv});
    until_done(&shop, 1);
    ck_assert_int_eq(shop.last.err.code, ERR_IO);
    const child_outcome_t *got = run(&shop, "true", (child_request_t){.cwd = "/no/such/dir"});
    ck_assert_int_eq(got->err.code, ERR_IO);
    close_shop(&shop);
}
END_TEST

/* The processes whose ids a script wrote, one on a line. */
static int alive(shop_t *shop, const char *path)
{
    int count = 0;
    char *rest = read_file(shop->arena, path);
    for (char *line; rest && (line = strsep(&rest, "\n"));)
        count += *line && !kill((pid_t)atol(line), 0);
    return count;
}

static const char tree_of_processes[] =
    "for i in 1 2 3; do"
    "  setsid sh -c '(sh -c \"echo \\$\\$ >> $0; exec sleep 1000\" &) ; echo $$ >> $0;"
    " trap \"\" TERM HUP; while :; do sleep 1000; done' \"$FILE\" >/dev/null 2>&1 & "
    "done; while [ $(wc -l < \"$FILE\") -lt 6 ]; do :; done; ";

static const child_outcome_t *run_tree(shop_t *shop, const char *file, const char *then,
                                       int64_t timeout_ms)
{
    write_file(file, "");
    const char *const env[] = {arena_printf(shop->arena, "FILE=%s", file), "PATH=/usr/bin:/bin",
                               NULL};
    const char *script = arena_printf(shop->arena, "%s%s", tree_of_processes, then);
    return run(shop, script, (child_request_t){.env = env, .timeout_ms = timeout_ms});
}

START_TEST(nobody_below_survives)
{
    shop_t shop;
    char dir[32];
    open_shop(&shop);
    scratch_make(dir);
    const char *file = arena_printf(shop.arena, "%s/pids", dir);
    ck_assert_int_eq(run_tree(&shop, file, "exit 0", 10000)->exit_status, 0);
    ck_assert_int_eq(alive(&shop, file), 0);
    ck_assert(run_tree(&shop, file, "sleep 1000", 2000)->timed_out);
    ck_assert_int_eq(alive(&shop, file), 0);
    scratch_remove(dir);
    close_shop(&shop);
}
END_TEST

START_TEST(a_child_is_killed_on_request)
{
    shop_t shop;
    open_shop(&shop);
    const char *const argv[] = {"/bin/sleep", "1000", NULL};
    child_t *one = start(&shop, &(child_request_t){.argv = argv});
    start(&shop, &(child_request_t){.argv = argv});
    child_kill(one);
    until_done(&shop, 1);
    ck_assert_int_eq(shop.last.signal, SIGKILL);
    ck_assert(!shop.last.timed_out);
    close_shop(&shop); /* the other one is ended with the shop */
    ck_assert_int_eq(shop.done, 1);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

/* Whoever started it is killed at once: what it started ends too. */
START_TEST(commands_die_with_us)
{
    char dir[32];
    int ends[2];
    arena_t *arena = arena_new();
    scratch_make(dir);
    const char *file = arena_printf(arena, "%s/pid", dir);
    ck_assert(!pipe(ends));
    pid_t pid = fork();
    if (pid == 0) {
        shop_t shop;
        open_shop(&shop);
        const char *const argv[] = {
            "/bin/sh", "-c", arena_printf(arena, "echo $$ > %s; echo up; sleep 1000", file), NULL};
        start(&shop, &(child_request_t){.argv = argv});
        struct pollfd item = {.fd = children_fd(shop.children), .events = POLLIN};
        poll(&item, 1, -1); /* it said "up" */
        if (write(ends[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    ck_assert_int_eq(read(ends[0], &byte, 1), 1);
    const char *command = read_file(arena, file);
    ck_assert(command && atol(command) > 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    int64_t end = mono_ms() + 1000;
    while (!kill((pid_t)atol(command), 0))
        ck_assert_msg(mono_ms() < end, "the command lives on");
    scratch_remove(dir);
    arena_destroy(&arena);
}
END_TEST

/* ---- Talking ---- */

typedef struct talk {
    shop_t shop; /* first: on_done sees it */
    buf_t said, errors;
} talk_t;

static void on_part(void *ctx, bool errors, bytes_t part)
{
    talk_t *talk = ctx;
    buf_put(errors ? &talk->errors : &talk->said, part.data, part.size);
}

static child_t *open_talk(talk_t *talk, const char *script)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    child_request_t request = {.argv = argv};
    child_t *child;
    signal(SIGPIPE, SIG_IGN);
    open_shop(&talk->shop);
    buf_open(&talk->said, talk->shop.arena);
    buf_open(&talk->errors, talk->shop.arena);
    err_t err = child_talk(talk->shop.children, &request, on_part, on_done, talk, &child);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    return child;
}

static void until_said(talk_t *talk, const char *text)
{
    int64_t end = mono_ms() + 15000;
    while (!strstr(talk->said.data, text)) {
        struct pollfd item = {.fd = children_fd(talk->shop.children), .events = POLLIN};
        ck_assert_msg(mono_ms() < end, "'%s' is never said: %s", text, talk->said.data);
        poll(&item, 1, 1000);
        children_on_readable(talk->shop.children);
    }
}

static bool tell(child_t *child, const char *text, size_t most)
{
    return child_write(child, (bytes_t){(const uint8_t *)text, strlen(text)}, most);
}

START_TEST(a_child_is_talked_to)
{
    talk_t talk;
    child_t *child = open_talk(&talk, "while read line; do echo \"<$line>\"; echo e >&2; done");
    ck_assert(tell(child, "one\n", 1000));
    until_said(&talk, "<one>");
    ck_assert(tell(child, "two\nthr", 1000));
    until_said(&talk, "<two>");
    ck_assert(tell(child, "ee\n", 1000));
    until_said(&talk, "<three>");
    ck_assert_ptr_nonnull(strstr(talk.errors.data, "e\n"));
    child_kill(child);
    until_done(&talk.shop, 1);
    ck_assert_int_eq(talk.shop.last.signal, SIGKILL);
    close_shop(&talk.shop);
}
END_TEST

/* What it does not read waits, up to a limit; and is read in the end. */
START_TEST(a_child_that_does_not_read)
{
    talk_t talk;
    char chunk[4097];
    memset(chunk, 'x', sizeof(chunk) - 1);
    chunk[sizeof(chunk) - 1] = '\0';
    child_t *child = open_talk(&talk, "read first; wc -c");
    int taken = 0;
    ck_assert(tell(child, "go\n", 1 << 20));
    while (taken < 1000 && tell(child, chunk, 64 << 10))
        taken++;
    ck_assert_int_ge(taken, 16);
    child_forget(child); /* nobody is called any more */
    close_shop(&talk.shop);
    child = open_talk(&talk, "exec 0<&-; echo closed; sleep 100");
    until_said(&talk, "closed");
    while (tell(child, "x", 1 << 20)) {
    }
    close_shop(&talk.shop);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "exec-helper"))
        return child_helper_main(argc, argv);
    Suite *suite = suite_create("child");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, what_a_command_is_given);
    tcase_add_test(all, limits);
    tcase_add_test(all, what_cannot_be_started);
    tcase_add_test(all, nobody_below_survives);
    tcase_add_test(all, a_child_is_killed_on_request);
    tcase_add_test(all, commands_die_with_us);
    tcase_add_test(all, a_child_is_talked_to);
    tcase_add_test(all, a_child_that_does_not_read);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
