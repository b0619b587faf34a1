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
#endif

int main(void)
{
    Suite *suite = suite_create("hr_crash");
    TCase *tcase = tcase_create("hr_crash");
    tcase_set_timeout(tcase, 60);
#ifdef AGENCY_FAULTS
    tcase_add_loop_test(tcase, a_proposal_is_whole_whatever_dies, 0, 20);
#endif
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
