/* The HR loop: a procedure fails for real, a review makes a proposal of it, which is approved,
 * applied and taken back, with a restart between every step. And diffs. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "actors/agent/diff.h"
#include "house.h"

extern const actor_def_t agent_actor, worker_actor;

static house_t house;

static void restart(void)
{
    house_down(&house);
    house_up(&house);
    house_start(&house, &agent_actor);
    house_start(&house, &worker_actor);
}

static void open_house(void)
{
    house_open(&house, TRANSPORT_INPROC);
    restart();
}

static const char *as(const char *principal, const char *method, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static const char *as(const char *principal, const char *method, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *json = arena_vprintf(house.arena, format, args);
    va_end(args);
    client_call_t call = {
        .peer = "agent", .method = method, .role = ROLE_ADMIN, .principal = principal};
    return house_call_as(&house, call, json);
}
#define ask(...) as(NULL, __VA_ARGS__)

static void has(const char *answer, const char *part)
{
    ck_assert_msg(strstr(answer, part) != NULL, "%s is not in %s (%s)", part, answer, house.text);
}

static void hasnt(const char *answer, const char *part)
{
    ck_assert_msg(strstr(answer, part) == NULL, "%s is in %s", part, answer);
}

static const char *field(const char *answer, const char *name)
{
    const char *at = strstr(answer, arena_printf(house.arena, "'%s':'", name));
    ck_assert_msg(at, "no %s in %s (%s)", name, answer, house.text);
    at += strlen(name) + 4;
    return arena_strndup(house.arena, at, strcspn(at, "'"));
}

static const char *file(const char *path)
{
    const char *text = read_file(house.arena, arena_printf(house.arena, "%s/%s", house.data, path));
    return text ? text : "(absent)";
}

/* As a process leaves it that died between the commit and what follows: the file of before. */
static void left_behind(const char *path, const char *text)
{
    const char *full = arena_printf(house.arena, "%s/%s", house.data, path);
    struct timespec times[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};
    write_file(full, text);
    ck_assert_int_eq(utimensat(AT_FDCWD, full, times, 0), 0);
}

/* Waits: files are repaired right after the start. */
static void becomes(const char *path, const char *part)
{
    for (int64_t end = mono_ms() + 10000; mono_ms() < end && !strstr(file(path), part);)
        ask("list_pending_proposals", "{}");
    has(file(path), part);
}

/* Asks for tasks that are not there. */
static void fail_times(int times)
{
    ask("sop_create", "{'name':'fetch','content':'# Fetch\\n\\n1. **Get** it\\n\\n   ```tool\\n   "
                      "task_get {\\\"id\\\": \\\"t00000{{input}}\\\"}\\n   ```\\n'}");
    ck_assert_msg(!err_is(house.err), "%s", house.text);
    for (int i = 0; i < times; i++)
        has(ask("sop_execute", "{'name':'fetch','input':'%d','wait_ms':15000}", 1000 + i),
            "'state':'failed'");
}

START_TEST(from_failure_to_soul_and_back)
{
    open_house();
    fail_times(3);
    restart();
    const char *found = ask("analyze_agent_logs", "{'agent_name':'fetch'}");
    has(found, "'failed':3");
    has(found, "'count':3"); /* the ids differ, the pattern is one */
    has(ask("analyze_agent_logs", "{'agent_name':'other'}"), "'ended':0");
    /* What a simulated run does is no experience. */
    has(ask("sop_execute", "{'name':'fetch','input':'9','wait_ms':15000,'simulate':true}"),
        "'state':'failed'");
    has(ask("analyze_logs", "{}"), "'ended':3");
    const char *review = ask("perform_weekly_review", "{}");
    has(review, "'count':3");
    const char *id = strstr(review, "'proposals':['");
    ck_assert_ptr_nonnull(id);
    id = arena_strndup(house.arena, id + 14, strcspn(id + 14, "'"));
    has(ask("perform_weekly_review", "{}"), "'proposals':[]"); /* once is enough */
    restart();
    const char *pending = ask("list_pending_proposals", "{}");
    has(pending, id);
    has(pending, "'maker':'hr'");
    has(pending, "'runs':['t0");
    has(file(arena_printf(house.arena, "hr/proposals/%s.json", id)), "\"pending\"");
    has(ask("update_agent_soul", "{'proposal_id':'%s'}", id), "ERR STATE"); /* not approved */
    has(ask("proposal_approve", "{'proposal_id':'%s'}", id), "'status':'approved'");
    restart();
    has(ask("update_agent_soul", "{'proposal_id':'%s'}", id), "'status':'applied'");
    has(ask("update_agent_soul", "{'proposal_id':'%s'}", id), "ERR STATE"); /* once */
    restart();
    has(file("souls/sop_engine.md"), "Known failure of fetch");
    const char *applied = file("souls/sop_engine.md");
    has(ask("proposal_rollback", "{'proposal_id':'%s'}", id), "'status':'rolled_back'");
    has(file("souls/sop_engine.md"), "(absent)");
    restart();
    has(ask("proposal_get", "{'proposal_id':'%s'}", id), "'status':'rolled_back'");
    has(ask("proposal_rollback", "{'proposal_id':'%s'}", id), "ERR STATE");
    const char *copy = arena_printf(house.arena, "hr/proposals/%s.json", id);
    left_behind("souls/sop_engine.md", applied);
    left_behind(copy, "{\"status\":\"applied\"}");
    restart();
    becomes("souls/sop_engine.md", "(absent)");
    becomes(copy, "\"rolled_back\"");
    has(file(arena_printf(house.arena, "hr/proposals/%s.json", id)), "\"rolled_back\"");
    has(ask("list_pending_proposals", "{}"), "'proposals':[]");
    has(ask("schedule_list", "{}"), "'id':'hr-weekly'"); /* since something failed */
    house_close(&house);
}
END_TEST

START_TEST(nobody_approves_what_he_proposed)
{
    open_house();
    const char *id = field(as("ann", "suggest_agent_improvement",
                              "{'agent_name':'writer','title':'t','description':'d',"
                              "'changes':'Be brief.'}"),
                           "id");
    has(as("ann", "proposal_approve", "{'proposal_id':'%s'}", id), "ERR FORBIDDEN");
    has(as("bob", "proposal_approve", "{'proposal_id':'%s','company':'other'}", id),
        "ERR NOT_FOUND");
    has(as("bob", "proposal_approve", "{'proposal_id':'%s'}", id), "'decided_by':'bob'");
    has(as("ann", "update_agent_soul", "{'proposal_id':'%s'}", id), "applied");
    ck_assert_str_eq(file("souls/writer.md"), "Be brief.\n");
    /* What a person changed since is not overwritten by an undo. */
    write_file(arena_printf(house.arena, "%s/souls/writer.md", house.data), "By hand.\n");
    has(ask("proposal_rollback", "{'proposal_id':'%s'}", id), "ERR STATE");
    const char *other = field(as("ann", "suggest_agent_improvement",
                                 "{'agent_name':'writer','title':'t','description':'d',"
                                 "'changes':'More.'}"),
                              "id");
    has(as("bob", "proposal_reject", "{'proposal_id':'%s','why':'no'}", other), "rejected");
    has(as("bob", "proposal_approve", "{'proposal_id':'%s'}", other), "ERR STATE");
    has(as("bob", "update_agent_soul", "{'proposal_id':'%s'}", other), "ERR STATE");
    house_close(&house);
}
END_TEST

START_TEST(a_patch_of_a_procedure)
{
    open_house();
    ask("sop_create",
        "{'name':'job','content':'# Job\\n\\n1. **One** do it\\n2. **Two** check\\n'}");
    static const char args[] =
        "{'title':'t','description':'d','affectedFiles':['%s'],'patch':'--- a/%s\\n+++ b/%s\\n"
        "@@ -3,2 +3,2 @@\\n 1. **One** do it\\n-2. **Two** %s\\n+2. **Two** check twice\\n'}";
#define PATCH(file, old) arena_printf(house.arena, args, file, file, file, old)
    has(ask("propose_change", "%s", PATCH("src/main.c", "check")), "ERR ARGUMENT");
    has(ask("propose_change", "%s", PATCH("sops/../x.md", "check")), "ERR ARGUMENT");
    has(ask("propose_change", "%s", PATCH("sops/job.md", "wrong")), "ERR ARGUMENT");
    has(house.text, "does not fit");
    const char *id = field(as("ann", "propose_change", "%s", PATCH("sops/job.md", "check")), "id");
    ask("proposal_approve", "{'proposal_id':'%s'}", id);
    has(ask("update_agent_soul", "{'proposal_id':'%s'}", id), "applied");
    has(file("sops/job.md"), "check twice");
    const char *now = ask("sop_get", "{'name':'job'}");
    const char *hash = field(now, "hash");
    has(ask("proposal_rollback", "{'proposal_id':'%s'}", id), "rolled_back");
    hasnt(file("sops/job.md"), "twice");
    has(ask("sop_diff", "{'name':'job','from':'%s'}", hash), "-2. **Two** check twice");
    has(ask("sop_rollback", "{'name':'job','version':'%.8s'}", hash), hash);
    restart();
    has(file("sops/job.md"), "check twice");
    has(ask("sop_rollback", "{'name':'job','version':'ffffffff'}"), "ERR NOT_FOUND");
    house_close(&house);
}
END_TEST

/* Random texts: the diff of two makes one of the other. */
START_TEST(diffs_apply)
{
    arena_t *arena = arena_new();
    srand((unsigned)_i + 1);
    for (int round = 0; round < 200; round++) {
        buf_t text[2];
        for (int k = 0; k < 2; k++) {
            buf_open(&text[k], arena);
            buf_puts(&text[k], "");
            for (int line = rand() % 30; line > 0; line--)
                buf_printf(&text[k], "line %d%s", rand() % 6, line > 1 || rand() % 4 ? "\n" : "");
        }
        const char *a = text[0].data ? text[0].data : "", *b = text[1].data ? text[1].data : "";
        const char *diff = diff_make(arena, a, b, "a/x", "b/x"), *out;
        diff_file_t files[1];
        size_t count;
        if (!*diff) {
            ck_assert_str_eq(a, b);
            continue;
        }
        ck_assert(!err_is(diff_split(arena, diff, files, 1, &count)));
        err_t err = diff_apply(arena, a, files[0].hunks, &out);
        ck_assert_msg(!err_is(err), "%s\n%s\n---\n%s\n---\n%s", err_what(err), diff, a, b);
        ck_assert_msg(!strcmp(out, b), "%s\n---\n%s\n---\n%s\n---\n%s", diff, a, b, out);
    }
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hr");
    TCase *tcase = tcase_create("hr");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, from_failure_to_soul_and_back);
    tcase_add_test(tcase, nobody_approves_what_he_proposed);
    tcase_add_test(tcase, a_patch_of_a_procedure);
    tcase_add_loop_test(tcase, diffs_apply, 0, 10);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
