/* The swarm with a real agent and a real brain. No model is configured, so the work of a subagent
 * waits for somebody to complete it: the test does. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actors/swarm/swarm.h"
#include "house.h"
#include "proto/mp.h"

extern const actor_def_t agent_actor, brain_actor, worker_actor;

static const char *const settings[] = {
    "swarm.look_ms=50",    "swarm.restart_delay_ms=0", "swarm.restarts_most=1",
    "swarm.call_ms=1000",  "swarm.agents_most=3",      "swarm.bid_ms=300",
    "agent.lease_ms=2000", "swarm.depth_most=1",       NULL};
static house_t house;

static void begin(bool with_agent, bool with_brain)
{
    house_open(&house, TRANSPORT_INPROC);
    house_down(&house);
    house.settings = settings;
    house_up(&house);
    if (with_agent) {
        house_start(&house, &agent_actor);
        house_start(&house, &worker_actor);
    }
    if (with_brain)
        house_start(&house, &brain_actor);
    house_start(&house, &swarm_actor);
}

static const char *call(const char *method, const char *json)
{
    return house_call(&house, "swarm", method, json);
}

/* The value of 'name':'value' in an answer. */
static char *value_of(const char *said, const char *name)
{
    const char *at = strstr(said, arena_printf(house.arena, "'%s':'", name));
    ck_assert_msg(at != NULL, "no %s in %s (%s)", name, said, house.text);
    at += strlen(name) + 4;
    return arena_strndup(house.arena, at, strcspn(at, "'"));
}

static char *spawn(const char *role)
{
    return value_of(
        call("spawn_subagent",
             arena_printf(house.arena, "{'role':'%s','task':'count sheep','parent_agent_id':'me'}",
                          role)),
        "agent_id");
}

static const char *card(const char *id)
{
    return call("agent_card", arena_printf(house.arena, "{'agent_id':'%s'}", id));
}

static const char *wait_card(const char *id, const char *part)
{
    const char *said = "";
    for (int64_t end = mono_ms() + 10000; mono_ms() < end;) {
        said = card(id);
        if (strstr(said, part))
            return said;
    }
    ck_abort_msg("no %s in %s", part, said);
    return said;
}

static void by_hand(const char *method, const char *run, const char *more)
{
    house_call(&house, "agent", method, arena_printf(house.arena, "{'id':'%s'%s}", run, more));
    ck_assert_msg(!err_is(house.err), "%s: %s", method, house.text);
}

START_TEST(a_subagent_works_and_is_gone)
{
    begin(true, true);
    char path[128];
    snprintf(path, sizeof(path), "%s/souls", house.data);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/souls/clerk.md", house.data);
    write_file(path, "Never hurry.");
    char *id = spawn("clerk");
    const char *said = wait_card(id, "'run_state':'input_required'");
    ck_assert_msg(strstr(said, "'soul':true") && strstr(said, "'state':'ready'"), "%s", said);
    char *run = value_of(said, "run_id");
    const char *seen =
        house_call(&house, "agent", "run_get", arena_printf(house.arena, "{'id':'%s'}", run));
    ck_assert_msg(strstr(seen, "count sheep") != NULL, "%s", seen);
    by_hand("step_complete", run, ",'result':{'sheep':7}");
    wait_card(id, "'outcome':'completed'");
    ck_assert(!strstr(call("list_agents", "{}"), id));
    ck_assert(strstr(call("list_agents", "{'gone':true}"), id));
    ck_assert(strstr(call("get_agent_metrics", "{}"), "'completed':1"));
    const char *told = "";
    for (int64_t end = mono_ms() + 10000; mono_ms() < end && !strstr(told, "'runs':1");)
        told =
            house_call(&house, "brain", "recall_delegation_patterns", "{'task_type':'swarm_task'}");
    ck_assert_msg(strstr(told, "'agent':'clerk'") && strstr(told, "'successes':1"), "%s", told);
    /* Every event, in one memory. */
    for (int64_t end = mono_ms() + 10000; mono_ms() < end && !strstr(told, " gone: completed");)
        told = house_call(&house, "brain", "brain_list", "{'type':'swarm_event'}");
    ck_assert_msg(strstr(told, " starting: wanted") && strstr(told, " ready: ") &&
                      strstr(told, " gone: completed"),
                  "%s", told);
    house_close(&house);
}
END_TEST

START_TEST(failures_are_restarted_and_then_final)
{
    begin(true, false);
    char *id = spawn("clerk");
    char *run = value_of(wait_card(id, "'run_state':'input_required'"), "run_id");
    by_hand("step_fail", run, ",'error':'they ran away'");
    const char *said = wait_card(id, "'restarts':1");
    for (int64_t end = mono_ms() + 10000;
         mono_ms() < end && !strstr(said, "'run_state':'input_required'");)
        said = card(id);
    ck_assert_str_eq(value_of(said, "run_id"), run);
    by_hand("step_fail", run, ",'error':'again'");
    said = wait_card(id, "'outcome':'failed'");
    ck_assert_msg(strstr(said, "again") && strstr(said, "'restarts':1"), "%s", said);
    house_close(&house);
}
END_TEST

START_TEST(a_start_that_fails_is_no_spawn)
{
    begin(true, false);
    const char *said = call("spawn_subagent", "{'role':'clerk','task':'t','parent_agent_id':'me',"
                                              "'sop':'no_such'}");
    ck_assert_str_eq(said, "ERR NOT_FOUND");
    ck_assert_msg(strstr(house.text, "no subagent was spawned"), "%s", house.text);
    ck_assert_str_eq(call("list_agents", "{}"), "{'agents':[]}");
    ck_assert(strstr(call("get_agent_metrics", "{}"), "'never_started':1"));
    house_close(&house);
}
END_TEST

START_TEST(without_the_agent_pillar_nothing_is_spawned)
{
    begin(false, false);
    const char *said = call("spawn_subagent", "{'role':'c','task':'t','parent_agent_id':'me'}");
    ck_assert_msg(!strncmp(said, "ERR ", 4), "%s", said);
    ck_assert_msg(strstr(house.text, "no subagent was spawned"), "%s", house.text);
    /* When it is back, what nobody was told of is looked for, and there is nothing. */
    house_start(&house, &agent_actor);
    const char *seen = "";
    for (int64_t end = mono_ms() + 15000; mono_ms() < end && !strstr(seen, "'never_started':1");)
        seen = call("get_agent_metrics", "{}");
    ck_assert_msg(strstr(seen, "'never_started':1"), "%s", seen);
    ck_assert(strstr(house_call(&house, "agent", "task_list", "{}"), "'tasks':[]"));
    house_close(&house);
}
END_TEST

START_TEST(ends_are_cancelled_runs)
{
    begin(true, false);
    char *one = spawn("clerk"), *other = spawn("clerk");
    char *run = value_of(wait_card(one, "'run_state':'input_required'"), "run_id");
    const char *said = call("terminate_agent", arena_printf(house.arena, "{'agent_id':'%s'}", one));
    ck_assert_msg(strstr(said, "'state':'gone'") && strstr(said, "'outcome':'terminated'"), "%s",
                  said);
    said = house_call(&house, "agent", "run_get", arena_printf(house.arena, "{'id':'%s'}", run));
    ck_assert_msg(strstr(said, "'state':'cancelled'"), "%s", said);
    said = call("terminate_agent", arena_printf(house.arena, "{'agent_id':'%s'}", one));
    ck_assert_msg(strstr(said, "'state':'gone'"), "%s", said);
    /* One that is in the middle of its work may finish it. */
    run = value_of(wait_card(other, "'run_state':'input_required'"), "run_id");
    said = call("agent_drain", arena_printf(house.arena, "{'agent_id':'%s'}", other));
    ck_assert_msg(strstr(said, "'state':'draining'"), "%s", said);
    by_hand("step_complete", run, "");
    wait_card(other, "'outcome':'completed'");
    house_close(&house);
}
END_TEST

START_TEST(other_companies_have_no_such_agent)
{
    begin(true, false);
    char *id = spawn("clerk");
    static const char *const methods[] = {"terminate_agent", "agent_drain", "agent_card"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
        ck_assert_str_eq(
            call(methods[i], arena_printf(house.arena, "{'agent_id':'%s','company':'rival'}", id)),
            "ERR NOT_FOUND");
    ck_assert_str_eq(
        call("negotiate_task", arena_printf(house.arena,
                                            "{'agent_ids':['%s'],'task_description':'t',"
                                            "'company':'rival'}",
                                            id)),
        "ERR NOT_FOUND");
    ck_assert_str_eq(
        call("spawn_subagent", arena_printf(house.arena,
                                            "{'role':'c','task':'t','parent_agent_id':'%s',"
                                            "'company_id':'rival'}",
                                            id)),
        "ERR NOT_FOUND");
    ck_assert_str_eq(call("spawn_subagent",
                          "{'role':'c','task':'t','parent_agent_id':'me','company_id':'../rival'}"),
                     "ERR COMPANY");
    ck_assert(strstr(card(id), id));
    house_close(&house);
}
END_TEST

START_TEST(limits_hold)
{
    begin(true, false);
    char *top = spawn("clerk");
    const char *child = "{'role':'c','task':'t','parent_agent_id':'%s'}";
    char *below =
        value_of(call("spawn_subagent", arena_printf(house.arena, child, top)), "agent_id");
    ck_assert_str_eq(call("spawn_subagent", arena_printf(house.arena, child, below)), "ERR QUOTA");
    ck_assert_msg(strstr(house.text, "depth_most"), "%s", house.text);
    spawn("clerk");
    ck_assert_str_eq(call("spawn_subagent", arena_printf(house.arena, child, "me")), "ERR QUOTA");
    ck_assert_msg(strstr(house.text, "agents_most"), "%s", house.text);
    house_close(&house);
}
END_TEST

START_TEST(subagents_outlive_the_swarm)
{
    begin(true, false);
    char *id = spawn("clerk");
    char *run = value_of(wait_card(id, "'run_state':'input_required'"), "run_id");
    host_stop(house.host, "swarm", 2000);
    by_hand("step_complete", run, "");
    house_restart(&house, &swarm_actor);
    wait_card(id, "'outcome':'completed'");
    house_close(&house);
}
END_TEST

START_TEST(a_simulation_changes_nothing)
{
    begin(true, true);
    ck_assert_str_eq(call("run_simulation", "{'role':'clerk','task':'nothing like it'}"),
                     "ERR NOT_FOUND");
    ck_assert(strstr(house.text, "sop_list") != NULL);
    house_call(
        &house, "agent", "sop_create",
        "{'name':'keep','content':'# Keep\\n\\n1. **Save**\\n\\n   ```tool\\n   brain_store "
        "{\\'taskId\\': \\'t\\', \\'request\\': \\'r\\', \\'solution\\': \\'s\\'}\\n   ```\\n'}");
    ck_assert_msg(!err_is(house.err), "%s", house.text);
    const char *said = call("run_simulation", "{'role':'clerk','task':'keep'}");
    ck_assert_msg(strstr(said, "'simulated':true") && strstr(said, "'tool':'brain_store'"),
                  "%s (%s)", said, house.text);
    const char *kept = house_call(&house, "brain", "brain_list", "{}");
    ck_assert_msg(strstr(kept, "'memories':[]") || !strcmp(kept, "ERR NOT_FOUND"), "%s", kept);
    ck_assert(strstr(call("list_agents", "{}"), "'agents':[]"));
    house_close(&house);
}
END_TEST

START_TEST(the_best_bid_is_awarded)
{
    begin(true, true);
    ck_assert_str_eq(call("negotiate_task", "{'task_description':'x'}"), "ERR STATE");
    for (int i = 0; i < 5; i++)
        house_call(&house, "brain", "log_experience",
                   arena_printf(house.arena,
                                "{'taskId':'t%d','task_type':'swarm_task','agent_used':'%s',"
                                "'outcome':'%s','summary':'s','duration':3}",
                                i, i < 3 ? "painter" : "clerk", i < 3 ? "success" : "failed"));
    char *clerk = spawn("clerk"), *painter = spawn("painter");
    wait_card(clerk, "'run_state':'input_required'");
    wait_card(painter, "'run_state':'input_required'");
    const char *said = call("negotiate_task", "{'task_description':'the hall',"
                                              "'simulation_mode':true}");
    ck_assert_str_eq(value_of(said, "winner"), painter);
    ck_assert_msg(strstr(said, "'simulation':true") && strstr(said, "'measured':true") &&
                      !strstr(said, "negotiation_id"),
                  "%s", said);
    ck_assert_msg(strstr(house.text, "nothing was awarded"), "%s", house.text);
    ck_assert(
        strstr(house_call(&house, "brain", "brain_list", "{'type':'swarm_negotiation_pattern'}"),
               "'memories':[]"));
    said = call("negotiate_task", "{'task_description':'the hall'}");
    char *id = value_of(said, "negotiation_id");
    const char *kept = "";
    for (int64_t end = mono_ms() + 10000; mono_ms() < end && !strstr(kept, id);)
        kept = house_call(&house, "brain", "brain_list", "{'type':'swarm_negotiation_pattern'}");
    ck_assert_msg(strstr(kept, painter), "%s", kept);
    said = call("negotiate_task", "{'task_description':'the hall'}");
    ck_assert_msg(strstr(said, "'patterns':['Awarded to"), "%s", said);
    house_close(&house);
}
END_TEST

static const char *wait_pattern(const char *part)
{
    const char *kept = "";
    for (int64_t end = mono_ms() + 15000; mono_ms() < end && !strstr(kept, part);)
        kept = house_call(&house, "brain", "brain_list", "{'type':'swarm_negotiation_pattern'}");
    ck_assert_msg(strstr(kept, part) != NULL, "no %s in %s", part, kept);
    return kept;
}

START_TEST(an_award_that_begins_the_work)
{
    begin(true, true);
    char *clerk = spawn("clerk");
    wait_card(clerk, "'run_state':'input_required'");
    ck_assert_str_eq(call("negotiate_task", "{'task_description':'the clerk counts','assign':true,"
                                            "'simulation_mode':true}"),
                     "ERR ARGUMENT");
    const char *said =
        call("negotiate_task", "{'task_description':'the clerk counts','assign':true}");
    ck_assert_str_eq(value_of(said, "winner_id"), clerk);
    char *worker = value_of(said, "assigned_agent_id"), *run = value_of(said, "run_id");
    ck_assert_str_ne(worker, clerk);
    said = wait_card(worker, "'run_state':'input_required'");
    ck_assert_str_eq(value_of(said, "parent_agent_id"), clerk);
    ck_assert(strstr(said, "'task':'the clerk counts'") && strstr(said, "'role':'clerk'"));
    wait_pattern(worker);
    by_hand("step_complete", run, "");
    wait_pattern("ended: completed");
    /* An award whose work cannot begin says so, and stands. */
    call("terminate_agent", arena_printf(house.arena, "{'agent_id':'%s'}", clerk));
    char *top = spawn("painter");
    wait_card(top, "'run_state':'input_required'");
    said = call("negotiate_task", arena_printf(house.arena,
                                               "{'task_description':'x','assign':true,"
                                               "'agent_ids':['%s']}",
                                               top));
    char *below = value_of(said, "assigned_agent_id");
    wait_card(below, "'run_state':'input_required'");
    said = call("negotiate_task", arena_printf(house.arena,
                                               "{'task_description':'y','assign':true,"
                                               "'agent_ids':['%s']}",
                                               below));
    ck_assert_str_eq(said, "ERR QUOTA"); /* depth_most */
    ck_assert_msg(strstr(house.text, "depth_most") != NULL, "%s", house.text);
    house_close(&house);
}
END_TEST

START_TEST(bids_that_never_come_do_not_stop_an_award)
{
    begin(true, false); /* no brain */
    char *id = spawn("clerk");
    wait_card(id, "'run_state':'input_required'");
    int64_t start = mono_ms();
    const char *said = call("negotiate_task", "{'task_description':'x'}");
    ck_assert_str_eq(value_of(said, "winner"), id);
    ck_assert_msg(strstr(said, "'measured':false") && strstr(said, "'problem':'"), "%s", said);
    ck_assert_msg(strstr(house.text, "without the brain's experience"), "%s", house.text);
    ck_assert_int_lt(mono_ms() - start, 3000);
    house_close(&house);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swarm");
    TCase *tcase = tcase_create("swarm");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, a_subagent_works_and_is_gone);
    tcase_add_test(tcase, failures_are_restarted_and_then_final);
    tcase_add_test(tcase, a_start_that_fails_is_no_spawn);
    tcase_add_test(tcase, without_the_agent_pillar_nothing_is_spawned);
    tcase_add_test(tcase, ends_are_cancelled_runs);
    tcase_add_test(tcase, other_companies_have_no_such_agent);
    tcase_add_test(tcase, limits_hold);
    tcase_add_test(tcase, subagents_outlive_the_swarm);
    tcase_add_test(tcase, a_simulation_changes_nothing);
    tcase_add_test(tcase, the_best_bid_is_awarded);
    tcase_add_test(tcase, an_award_that_begins_the_work);
    tcase_add_test(tcase, bids_that_never_come_do_not_stop_an_award);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
