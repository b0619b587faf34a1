/* Proposals in a simulation where the agent dies at any moment: each is made, approved, applied and
 * taken back, and afterwards everything is as it was, in the store and on the volume; daily reviews
 * come by the virtual clock, once each. Only in builds with fault switches. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "house.h"
#include "proto/mp.h"

#ifdef AGENCY_FAULTS
#include "bus/sim.h"

extern const actor_def_t agent_actor;

enum { STEPS = 4, HOUR_MS = 3600000, RETRY_MS = 500, CALL_MS = 20000 };

/* What is asked for, by whom, and the status that it leads to. */
static const struct {
    const char *method, *principal, *status;
} steps[STEPS] = {{"propose_change", "ann", "pending"},
                  {"proposal_approve", "bob", "approved"},
                  {"update_agent_soul", "ann", "applied"},
                  {"proposal_rollback", "ann", "rolled_back"}};

static const char patch[] = "--- /dev/null\n+++ b/souls/writer.md\n@@ -0,0 +1 @@\n+Be brief.\n"
                            "--- a/sops/job.md\n+++ b/sops/job.md\n@@ -3 +3 @@\n-1. **One** do "
                            "it\n+1. **One** do it well\n";

typedef struct story {
    int step, wrong;
    bool written, over;
    char id[64], last[200];
} story_t;

static story_t story;

static err_t go_on(void *self, call_t *call, void *ctx);

static void again(call_t *call)
{
    call_work(call, RETRY_MS, go_on, NULL);
}

static bytes_t args_of(call_t *call)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    if (!story.written) {
        mp_put_map(&out, 2);
        mp_put_str(&out, "name");
        mp_put_str(&out, "job");
        mp_put_str(&out, "content");
        mp_put_str(&out, "# Job\n\n1. **One** do it\n");
    } else if (!story.step) {
        mp_put_map(&out, 4);
        mp_put_str(&out, "title");
        mp_put_str(&out, "t");
        mp_put_str(&out, "description");
        mp_put_str(&out, "d");
        mp_put_str(&out, "affectedFiles");
        mp_put_array(&out, 2);
        mp_put_str(&out, "souls/writer.md");
        mp_put_str(&out, "sops/job.md");
        mp_put_str(&out, "patch");
        mp_put_str(&out, patch);
    } else {
        mp_put_map(&out, 1);
        mp_put_str(&out, "proposal_id");
        mp_put_str(&out, story.id);
    }
    return buf_bytes(&out);
}

static bool has_status(bytes_t body, const char *status)
{
    bytes_t proposal, field;
    return mp_get(body, "proposal", &proposal) && mp_get(proposal, "status", &field) &&
           mp_equals(field, status);
}

static err_t on_looked(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self, (void)reply, (void)ctx;
    if (got->progress)
        return call_park(call);
    if (!err_is(got->err) && has_status(got->body, steps[story.step].status))
        story.step++;
    again(call);
    return err_ok();
}

/* Was it done although the answer was lost? */
static err_t look(call_t *call)
{
    peer_call_t request = {.peer = "agent",
                           .method = "proposal_get",
                           .args = args_of(call),
                           .company = "acme",
                           .timeout_ms = CALL_MS};
    call_peer(call, &request, on_looked, NULL);
    return call_park(call);
}

static err_t on_done(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    bytes_t proposal, id;
    (void)self, (void)reply, (void)ctx;
    if (got->progress)
        return call_park(call);
    if (err_is(got->err)) {
        snprintf(story.last, sizeof(story.last), "%s", err_what(got->err));
        /* An answer that was lost for good makes the next try come too late: look. */
        if (story.written && story.step && got->err.code == ERR_STATE)
            return look(call);
        story.wrong += !err_info(got->err.code)->retry && got->err.code != ERR_TIMEOUT &&
                       got->err.code != ERR_FULL && got->err.code != ERR_IO;
    } else if (!story.written) {
        story.written = true;
    } else {
        if (!story.step && mp_get(got->body, "proposal", &proposal) && mp_get(proposal, "id", &id))
            snprintf(story.id, sizeof(story.id), "%s", mp_text(call_arena(call), id));
        story.step += has_status(got->body, steps[story.step].status);
    }
    again(call);
    return err_ok();
}

static err_t go_on(void *self, call_t *call, void *ctx)
{
    (void)self, (void)ctx;
    story.over = story.step == STEPS;
    if (story.over)
        return err_ok();
    peer_call_t request = {.peer = "agent",
                           .method = story.written ? steps[story.step].method : "sop_create",
                           .args = args_of(call),
                           .company = "acme",
                           .principal = story.written ? steps[story.step].principal : "ann",
                           .role = ROLE_ADMIN,
                           .any_company = true,
                           .timeout_ms = CALL_MS};
    call_peer(call, &request, on_done, NULL);
    return call_park(call);
}

static err_t desk_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 0, go_on, NULL);
    return err_ok();
}

typedef struct desk {
    int unused;
} desk_t;

static const actor_def_t desk_actor = {
    .name = "desk", .doc = "Proposes and decides.", .size = sizeof(desk_t), .open = desk_open};

static bool is_over(void *ctx)
{
    (void)ctx;
    return story.over;
}

static const char *file_in(arena_t *arena, const char *dir, const char *path)
{
    const char *text = read_file(arena, arena_printf(arena, "%s/agent/acme/%s", dir, path));
    return text ? text : "(absent)";
}

START_TEST(a_proposal_is_whole_whatever_dies)
{
    char dir[64];
    arena_t *arena = arena_new();
    scratch_make(dir);
    story = (story_t){0};
    sim_options_t options = {.seed = (uint64_t)_i + 1, .dir = dir, .faults = true};
    sim_t *sim = sim_new(&options);
    ck_assert(!err_is(sim_add(sim, &agent_actor, "agent", true, NULL, arena)));
    ck_assert(!err_is(sim_add(sim, &desk_actor, "desk", false, NULL, arena)));
    /* Between any two steps it also dies for sure. */
    int64_t began = sim_now_ms(sim);
    int seen = -1;
    for (int64_t at = began; !story.over && at < began + HOUR_MS; at += 20) {
        sim_run(sim, at, is_over, NULL);
        if (story.step != seen)
            sim_kill(sim, "agent");
        seen = story.step;
        ck_assert_msg(!story.wrong, "seed %d, step %d: %s", _i + 1, story.step, story.last);
    }
    ck_assert_msg(story.over, "seed %d, step %d: %s", _i + 1, story.step, story.last);
    sim_calm(sim);
    sim_kill(sim, "agent"); /* the next life repairs what lies on the volume */
    sim_run(sim, sim_now_ms(sim) + HOUR_MS, NULL, NULL);
    ck_assert_msg(!story.wrong, "seed %d: %s", _i + 1, story.last);
    ck_assert_str_eq(file_in(arena, dir, "souls/writer.md"), "(absent)");
    ck_assert_str_eq(file_in(arena, dir, "sops/job.md"), "# Job\n\n1. **One** do it\n");
    const char *copy = file_in(arena, dir, arena_printf(arena, "hr/proposals/%s.json", story.id));
    ck_assert_msg(strstr(copy, "\"rolled_back\"") != NULL, "%s", copy);
    sim_destroy(&sim);
    scratch_remove(dir);
    arena_destroy(&arena);
}
END_TEST

/* ---- Reviews by the virtual clock ---- */

enum { FAILURES = 3, LEASE = 1 + FAILURES, RUN, REST, DAYS = 8, DAY_HOURS = 24 };

typedef struct week {
    int stage, failed;
    const char *id;
    int64_t fence;
    bool looked;
    const char *proposals, *schedules;
    arena_t *arena;
} week_t;

static week_t week;

static err_t work(void *self, call_t *call, void *ctx);

static bytes_t field_of(bytes_t map, const char *name)
{
    bytes_t value = {0};
    mp_get(map, name, &value);
    return value;
}

static void note_answer(bytes_t body)
{
    bytes_t task;
    if (week.stage < LEASE) {
        week.stage++;
    } else if (week.stage == LEASE && mp_at(field_of(body, "tasks"), 0, &task)) {
        week.id = mp_text(week.arena, field_of(task, "id"));
        mp_int(field_of(task, "fence"), &week.fence);
        week.stage = RUN;
    } else if (week.stage == RUN) {
        week.failed += mp_equals(field_of(body, "action"), "done");
        week.stage = week.failed == FAILURES ? REST : LEASE;
    }
}

static err_t on_worked(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self, (void)reply, (void)ctx;
    if (got->progress)
        return call_park(call);
    if (!err_is(got->err))
        note_answer(got->body);
    call_work(call, RETRY_MS, work, NULL);
    return err_ok();
}

/* Writes a procedure that always fails, runs it, and is its worker. */
static err_t work(void *self, call_t *call, void *ctx)
{
    (void)self, (void)ctx;
    const char *method = !week.stage          ? "sop_create"
                         : week.stage < LEASE ? "sop_execute"
                         : week.stage < RUN   ? "task_lease"
                                              : "run_next";
    const char *json =
        !week.stage          ? "{'name':'bad','content':'# Bad\\n\\n1. **Weigh**\\n\\n   ```if\\n"
                               "   {{input}} < 3\\n   then: end\\n   ```\\n\\n2. **Say** it\\n'}"
        : week.stage < LEASE ? "{'name':'bad','input':'heavy','wait_ms':0}"
        : week.stage < RUN   ? "{'worker':'w','kinds':['sop']}"
                             : arena_printf(call_arena(call), "{'id':'%s','fence':%lld}", week.id,
                                            (long long)week.fence);
    if (week.stage == REST)
        return err_ok();
    peer_call_t request = {.peer = "agent",
                           .method = method,
                           .args = house_pack(call_arena(call), json),
                           .company = "acme",
                           .timeout_ms = CALL_MS};
    call_peer(call, &request, on_worked, NULL);
    return call_park(call);
}

static err_t on_schedules(void *self, call_t *call, void *reply, const peer_answer_t *got,
                          void *ctx)
{
    (void)self, (void)call, (void)reply, (void)ctx;
    week.schedules = house_reply_text(
        week.arena, (client_reply_t){.err = got->err, .text = "", .body = got->body});
    week.looked = true;
    return err_ok();
}

static err_t on_proposals(void *self, call_t *call, void *reply, const peer_answer_t *got,
                          void *ctx)
{
    (void)self, (void)reply, (void)ctx;
    week.proposals = house_reply_text(
        week.arena, (client_reply_t){.err = got->err, .text = "", .body = got->body});
    peer_call_t request = {
        .peer = "agent", .method = "schedule_list", .company = "acme", .timeout_ms = CALL_MS};
    call_peer(call, &request, on_schedules, NULL);
    return call_park(call);
}

static err_t worker_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 0, work, NULL);
    return err_ok();
}

static err_t look_back(void *self, call_t *call, void *ctx)
{
    (void)self, (void)ctx;
    peer_call_t request = {.peer = "agent",
                           .method = "list_pending_proposals",
                           .company = "acme",
                           .timeout_ms = CALL_MS};
    call_peer(call, &request, on_proposals, NULL);
    return call_park(call);
}

static err_t looker_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 0, look_back, NULL);
    return err_ok();
}

static const actor_def_t worker_desk = {
    .name = "hands", .doc = "Fails.", .size = sizeof(desk_t), .open = worker_open};
static const actor_def_t looker_desk = {
    .name = "looker", .doc = "Looks.", .size = sizeof(desk_t), .open = looker_open};

static bool has_failed(void *ctx)
{
    (void)ctx;
    return week.stage == REST;
}

static bool has_looked(void *ctx)
{
    (void)ctx;
    return week.looked;
}

/* The hour of the day at which a schedule was served last. */
static int hour_of(const char *schedules, const char *id)
{
    const char *at = strstr(schedules, id), *last = at ? strstr(at, "'last_ms':") : NULL;
    ck_assert_msg(last != NULL, "%s was never due: %s", id, schedules);
    return (int)(atoll(last + 10) / HOUR_MS % DAY_HOURS);
}

START_TEST(reviews_come_by_the_clock)
{
    char dir[64];
    week = (week_t){.arena = arena_new()};
    scratch_make(dir);
    sim_options_t options = {.seed = 7, .dir = dir};
    sim_t *sim = sim_new(&options);
    ck_assert(!err_is(sim_add(sim, &agent_actor, "agent", true, NULL, week.arena)));
    ck_assert(!err_is(sim_add(sim, &worker_desk, "hands", false, NULL, week.arena)));
    ck_assert(sim_run(sim, sim_now_ms(sim) + HOUR_MS, has_failed, NULL));
    sim_kill(sim, "agent"); /* the schedules are in the store */
    sim_run(sim, sim_now_ms(sim) + (int64_t)DAYS * DAY_HOURS * HOUR_MS, NULL, NULL);
    ck_assert(!err_is(sim_add(sim, &looker_desk, "looker", false, NULL, week.arena)));
    ck_assert(sim_run(sim, sim_now_ms(sim) + HOUR_MS, has_looked, NULL));
    const char *made = strstr(week.proposals, "'maker':'hr'");
    ck_assert_msg(made != NULL, "%s", week.proposals);
    ck_assert_msg(!strstr(made + 1, "'maker':'hr'"), "once is enough: %s", week.proposals);
    ck_assert_int_eq(hour_of(week.schedules, "'id':'hr-daily'"), 6);
    ck_assert_int_eq(hour_of(week.schedules, "'id':'hr-weekly'"), 7);
    sim_destroy(&sim);
    scratch_remove(dir);
    arena_destroy(&week.arena);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("hr_crash");
    TCase *tcase = tcase_create("hr_crash");
    tcase_set_timeout(tcase, 60);
#ifdef AGENCY_FAULTS
    tcase_add_test(tcase, reviews_come_by_the_clock);
    tcase_add_loop_test(tcase, a_proposal_is_whole_whatever_dies, 0, 20);
#endif
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
