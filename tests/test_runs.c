/* Runs of procedures: a real agent with a real store; the test is its worker, so that it can die
 * between any two messages. The brain is an actor that only remembers what it was told. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/json.h"
#include "proto/mp.h"
#include "support_runs.h"

static const char two_steps[] = "---\ninputs: folder\n---\n# Two steps\n\nDoes two things.\n\n"
                                "1. **Count**: counts.\n"
                                "   ```sh replay=safe env=LANG timeout=5s\n"
                                "   ls {{input.folder}} | wc -l\n"
                                "   ```\n"
                                "2. **Remember**\n"
                                "   ```tool\n"
                                "   brain_store {\"taskId\": \"{{run.id}}\", \"tokens\": "
                                "\"{{steps.count.result.exit}}\", \"solution\": "
                                "\"n={{steps.count.result.stdout}}\"}\n"
                                "   ```\n";

/* ---- procedures ---- */

START_TEST(procedures_are_kept_as_versions)
{
    house_t h;
    open_house(&h, NULL);
    client_reply_t reply = ask(&h, "sop_list", "{}");
    ck_assert_str_eq(reply.text, "No SOPs found.");
    reply = ask(&h, "sop_create", "{'name':'one','content':'# T\\n1. **A**: do\\n'}");
    ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
    ck_assert_ptr_nonnull(strstr(reply.text, "SOP 'one' created successfully in "));
    is(&h, reply.body, "created", "true");
    ck_assert_str_eq(file_text(&h, "sops/one.md"), "# T\n1. **A**: do\n");
    bytes_t body = good(&h, "sop_create", "{'name':'one.md','content':'# T2\\n1. x\\n'}");
    is(&h, body, "created", "false");
    body = good(&h, "sop_get", "{'name':'one'}");
    is(&h, body, "content", "# T2\n1. x\n");
    const char *old = get(&h, body, "versions.1.hash");
    body = good(&h, "sop_get", arena_printf(h.arena, "{'name':'one','version':'%.12s'}", old));
    is(&h, body, "content", "# T\n1. **A**: do\n");
    put_file(&h, "two", "# Two\n1. y\n");
    reply = ask(&h, "sop_list", "{}");
    ck_assert_str_eq(reply.text, "one, two");
    is(&h, reply.body, "sops.1.title", "Two");
    reply = ask(&h, "validate_sop", "{'name':'two'}");
    ck_assert_ptr_nonnull(strstr(reply.text, "SOP 'two' is valid.\nTitle: Two\nSteps: 1"));
    close_house(&h);
}
END_TEST

START_TEST(bad_procedures_are_refused)
{
    house_t h;
    open_house(&h, NULL);
    bad(&h, "sop_create", "{'name':'a/b','content':'# T\\n1. x\\n'}", ERR_ARGUMENT, "no folders");
    bad(&h, "sop_create", "{'name':'../b','content':'# T\\n1. x\\n'}", ERR_ARGUMENT, "no folders");
    bad(&h, "sop_create", "{'name':'a','content':'# T\\n'}", ERR_ARGUMENT,
        "line 2: there are no steps");
    bad(&h, "validate_sop", "{'name':'gone'}", ERR_NOT_FOUND, "no procedure 'gone'");
    bad(&h, "sop_execute", "{'name':'gone'}", ERR_NOT_FOUND, "no procedure 'gone'");
    put_file(&h, "wrong", "# T\n1. {{nonsense}}\n");
    client_reply_t reply = ask(&h, "validate_sop", "{'name':'wrong'}");
    ck_assert_ptr_nonnull(strstr(reply.text, "SOP Invalid: wrong\nline 2: "));
    is(&h, reply.body, "valid", "false");
    bad(&h, "sop_execute", "{'name':'wrong'}", ERR_ARGUMENT, "line 2");
    bad(&h, "run_get", "{'id':'t0000000099'}", ERR_NOT_FOUND, "no run");
    close_house(&h);
}
END_TEST

START_TEST(an_edited_file_is_the_next_version)
{
    house_t h;
    open_house(&h, NULL);
    good(&h, "sop_create", "{'name':'one','content':'# First\\n1. x\\n'}");
    const char *first = execute(&h, "{'name':'one','wait_ms':0}");
    put_file(&h, "one", "# Second\n1. y\n");
    const char *second = execute(&h, "{'name':'one','wait_ms':0}");
    is(&h, run_of(&h, first), "title", "First");
    is(&h, run_of(&h, second), "title", "Second");
    bytes_t body = good(&h, "sop_get", "{'name':'one'}");
    is(&h, body, "versions.0.author", "file");
    is(&h, body, "versions.1.author", "local");
    close_house(&h);
}
END_TEST

/* ---- runs ---- */

START_TEST(a_run_goes_from_step_to_step)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "two", two_steps);
    const char *id = execute(&h, "{'name':'two','input':'/a b','wait_ms':0}");
    is(&h, run_of(&h, id), "state", "ready");
    lease(&h);
    ck_assert_str_eq(h.id, id);
    bytes_t step = next(&h);
    is(&h, step, "action", "perform");
    is(&h, step, "kind", "sh");
    is(&h, step, "script", "ls \"${VALUE_1}\" | wc -l\n");
    is(&h, step, "env.0.value", "/a b");
    is(&h, step, "env_pass.0", "LANG");
    is(&h, step, "timeout_ms", "5000");
    is(&h, step, "replay", "safe");
    const char *effect = get(&h, step, "effect_id");
    ck_assert_uint_eq(strlen(effect), 64);
    is(&h, run_of(&h, id), "state", "running");
    is(&h, run_of(&h, id), "steps.0.effect", "intended");
    begin(&h, 0);
    is(&h, run_of(&h, id), "steps.0.effect", "dispatched");
    step = done(&h, 0, "{'exit':0,'stdout':'42\\n','stderr':''}");
    is(&h, step, "kind", "tool");
    is(&h, step, "tool", "brain_store");
    is(&h, step, "replay", "keyed");
    is(&h, step, "args.solution", "n=42");
    is(&h, step, "args.tokens", "0");
    is(&h, step, "args.taskId", id);
    begin(&h, 1);
    is(&h, done(&h, 1, "{'id':'m1'}"), "action", "done");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "completed");
    is(&h, run, "result.id", "m1");
    is(&h, run, "steps.1.state", "completed");
    is(&h, run, "experience.0", "last time it took long");
    ck_assert_int_eq(atomic_load(&told.queries), 1);
    until_told(&h, 1);
    ck_assert_ptr_nonnull(strstr(told.last, "default sop_execution sop_engine success two: Two"));
    const char *log = file_text(&h, "sop_logs.ndjson");
    ck_assert_ptr_nonnull(
        strstr(log, "\"step\":\"count\",\"status\":\"success\",\"details\":\"42\""));
    close_house(&h);
}
END_TEST

START_TEST(execute_waits_for_the_end)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one", "# One\n1. **A**\n   ```sh\n   true\n   ```\n");
    client_call_t call = {
        .peer = "agent", .method = "sop_execute", .role = ROLE_ADMIN, .timeout_ms = 20000};
    const char json[] = "{\"name\":\"one\"}";
    json_to_msgpack(h.arena, json, strlen(json), NULL, &call.args);
    uint64_t sent = client_send(h.client, &call);
    lease(&h);
    next(&h);
    begin(&h, 0);
    done(&h, 0, "{'exit':0,'stdout':'fine'}");
    uint64_t id = 0;
    client_reply_t reply = client_wait(h.client, h.arena, 10000, &id);
    ck_assert_uint_eq(id, sent);
    ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
    is(&h, reply.body, "state", "completed");
    ck_assert_str_eq(reply.text, "SOP 'One' executed successfully.\nSummary:\nStep 1 completed: A: "
                                 "fine");
    close_house(&h);
}
END_TEST

START_TEST(execute_answers_with_the_id_when_time_is_up)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one", "# One\n1. **A**\n   ```sh\n   true\n   ```\n");
    client_reply_t reply = ask(&h, "sop_execute", "{'name':'one','wait_ms':50}");
    is(&h, reply.body, "state", "ready");
    ck_assert_ptr_nonnull(strstr(reply.text, "is not finished"));
    const char *first = execute(&h, "{'name':'one','wait_ms':0,'idempotency_key':'k'}");
    const char *again = execute(&h, "{'name':'one','wait_ms':0,'idempotency_key':'k'}");
    ck_assert_str_eq(first, again);
    close_house(&h);
}
END_TEST

START_TEST(inputs_are_checked)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "two", two_steps);
    bad(&h, "sop_execute", "{'name':'two'}", ERR_ARGUMENT, "'folder' is missing");
    bad(&h, "sop_execute", "{'name':'two','input':{'folder':'x','z':1}}", ERR_ARGUMENT,
        "no input 'z'");
    close_house(&h);
}
END_TEST

START_TEST(a_lost_worker_before_dispatch_repeats)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one", "# One\n1. **A**\n   ```sh\n   true\n   ```\n");
    const char *id = execute(&h, "{'name':'one','wait_ms':0}");
    lease(&h);
    const char *effect = get(&h, next(&h), "effect_id");
    int64_t fence = h.fence;
    lease(&h); /* after the first lease has ended */
    ck_assert_str_eq(h.id, id);
    ck_assert_int_gt(h.fence, fence);
    bytes_t step = next(&h);
    is(&h, step, "action", "perform");
    is(&h, step, "effect_id", effect);
    is(&h, step, "attempt", "1");
    int64_t fresh = h.fence;
    h.fence = fence;
    bad(&h, "step_start", leased(&h, ",'step':0"), ERR_FENCED, "lease");
    h.fence = fresh;
    begin(&h, 0);
    is(&h, done(&h, 0, "{'exit':0}"), "action", "done");
    close_house(&h);
}
END_TEST

START_TEST(a_lost_worker_after_dispatch_leaves_doubt)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one",
             "# One\n1. **A**\n   ```sh\n   true\n   ```\n2. **B** {{steps.a.result.x}}\n"
             "   ```sh\n   true\n   ```\n");
    const char *id = execute(&h, "{'name':'one','wait_ms':0}");
    lease(&h);
    next(&h);
    begin(&h, 0);
    lease(&h);
    bytes_t step = next(&h);
    is(&h, step, "action", "wait");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "input_required");
    is(&h, run, "steps.0.state", "unknown");
    is(&h, run, "steps.0.effect", "unknown");
    has(&h, run, "why", "nobody knows whether");
    ck_assert(!lease_within(&h, 100));
    bad(&h, "approve", arena_printf(h.arena, "{'id':'%s'}", id), ERR_STATE, "no approval");
    run = good(&h, "step_complete",
               arena_printf(h.arena, "{'id':'%s','step':'a','result':{'x':'seen'}}", id));
    is(&h, run, "steps.0.state", "completed");
    is(&h, run, "steps.0.by", "local");
    lease(&h);
    is(&h, next(&h), "name", "b");
    begin(&h, 1);
    is(&h, done(&h, 1, "{'exit':0}"), "action", "done");
    close_house(&h);
}
END_TEST

START_TEST(safe_and_keyed_are_repeated_with_their_id)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one",
             "# One\n1. **A**\n   ```sh replay=safe\n   true\n   ```\n"
             "2. **B**\n   ```tool\n   brain_store {}\n   ```\n"
             "3. **C**\n   ```tool\n   other/thing {}\n   ```\n");
    execute(&h, "{'name':'one','wait_ms':0}");
    for (int i = 0; i < 2; i++) {
        lease(&h);
        bytes_t step = next(&h);
        const char *effect = get(&h, step, "effect_id");
        begin(&h, i);
        lease(&h);
        step = next(&h);
        is(&h, step, "action", "perform");
        is(&h, step, "effect_id", effect);
        begin(&h, i);
        step = done(&h, i, "{'exit':0}");
        is(&h, step, "step", i ? "2" : "1");
        good(&h, "task_release", leased(&h, ""));
    }
    lease(&h);
    is(&h, next(&h), "replay", "manual"); /* a foreign tool */
    close_house(&h);
}
END_TEST

START_TEST(a_restart_resumes_where_it_was)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "two", two_steps);
    const char *id = execute(&h, "{'name':'two','input':'x','wait_ms':0}");
    lease(&h);
    next(&h);
    begin(&h, 0);
    bytes_t step = done(&h, 0, "{'exit':0,'stdout':'7'}");
    const char *effect = get(&h, step, "effect_id");
    stop(&h);
    start(&h, NULL);
    is(&h, run_of(&h, id), "steps.0.state", "completed");
    lease(&h);
    step = next(&h);
    is(&h, step, "name", "remember");
    is(&h, step, "effect_id", effect);
    is(&h, step, "args.solution", "n=7");
    begin(&h, 1);
    is(&h, done(&h, 1, "{}"), "action", "done");
    until_told(&h, 1);
    close_house(&h);
}
END_TEST

START_TEST(failures_are_retried_as_told)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one", "# One\n1. **A**\n   ```sh retries=1\n   true\n   ```\n");
    const char *id = execute(&h, "{'name':'one','wait_ms':0}");
    lease(&h);
    const char *effect = get(&h, next(&h), "effect_id");
    begin(&h, 0);
    bytes_t step = broken(&h, 0, "exit 1", false);
    is(&h, step, "action", "wait");
    is(&h, run_of(&h, id), "state", "waiting_timer");
    lease(&h); /* wakes when the pause is over */
    step = next(&h);
    is(&h, step, "attempt", "2");
    ck_assert_str_ne(get(&h, step, "effect_id"), effect);
    begin(&h, 0);
    step = broken(&h, 0, "exit 2", true);
    is(&h, step, "action", "done");
    has(&h, step, "why", "step 1 (a): exit 2");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "failed");
    is(&h, run, "steps.0.state", "failed");
    client_reply_t reply = ask(&h, "run_get", arena_printf(h.arena, "{'id':'%s'}", id));
    ck_assert_ptr_nonnull(strstr(reply.text, "Error executing SOP 'One': step 1 (a): exit 2"));
    until_told(&h, 1);
    ck_assert_ptr_nonnull(strstr(told.last, "failure"));
    close_house(&h);
}
END_TEST

START_TEST(limits_of_a_step_are_settings)
{
    house_t h;
    open_house(&h, NULL);
    stop(&h);
    start_with(&h, "agent.step_sh_ms=12345", "agent.step_result_bytes=1024");
    put_file(&h, "one", "# One\n1. **A**\n   ```sh\n   true\n   ```\n");
    execute(&h, "{'name':'one','wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "timeout_ms", "12345");
    begin(&h, 0);
    bytes_t end = done(&h, 0, arena_printf(h.arena, "'%02000d'", 1));
    is(&h, end, "action", "done");
    has(&h, end, "why", "larger than 1024 bytes");
    has(&h, end, "why", "agent.step_result_bytes");
    close_house(&h);
}
END_TEST

START_TEST(a_person_goes_back)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "two",
             "# Two\n1. **A**\n   ```sh\n   true\n   ```\n2. **B**\n   ```sh\n   false\n"
             "   ```\n");
    const char *id = execute(&h, "{'name':'two','wait_ms':0}");
    lease(&h);
    const char *first = get(&h, next(&h), "effect_id");
    begin(&h, 0);
    done(&h, 0, "{'exit':0}");
    begin(&h, 1);
    is(&h, broken(&h, 1, "no", false), "action", "done");
    const char *retry = "{'id':'%s','step':'%s'}";
    bad(&h, "run_retry_from", arena_printf(h.arena, retry, id, "zzz"), ERR_ARGUMENT, "no step");
    bytes_t run = good(&h, "run_retry_from", arena_printf(h.arena, retry, id, "b"));
    is(&h, run, "state", "ready");
    is(&h, run, "steps.0.state", "completed");
    is(&h, run, "steps.1.state", "pending");
    bad(&h, "run_retry_from", arena_printf(h.arena, retry, id, "1"), ERR_STATE, "ready");
    lease(&h);
    is(&h, next(&h), "name", "b");
    begin(&h, 1);
    broken(&h, 1, "again no", false);
    good(&h, "run_retry_from", arena_printf(h.arena, retry, id, "1"));
    /* Of its first end nothing is left: whoever waits for it waits. */
    client_reply_t reply =
        ask(&h, "run_wait", arena_printf(h.arena, "{'id':'%s','wait_ms':50}", id));
    ck_assert_ptr_nonnull(strstr(reply.text, "is not finished"));
    lease(&h);
    bytes_t step = next(&h);
    is(&h, step, "name", "a");
    is(&h, step, "attempt", "2");
    ck_assert_str_ne(get(&h, step, "effect_id"), first);
    begin(&h, 0);
    done(&h, 0, "{}");
    begin(&h, 1);
    is(&h, done(&h, 1, "{}"), "action", "done");
    is(&h, run_of(&h, id), "state", "completed");
    until_told(&h, 3);
    close_house(&h);
}
END_TEST

START_TEST(approvals)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "ask",
             "# Ask\n1. **Ask**\n   ```approve\n   Release {{input}}?\n   ```\n"
             "2. **Go** {{steps.ask.result.by}}\n   ```sh\n   true\n   ```\n");
    const char *id = execute(&h, "{'name':'ask','input':'v1','wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "action", "wait");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "input_required");
    has(&h, run, "why", "needs approval");
    has(&h, run, "why", "Release v1?");
    const char *this = arena_printf(h.arena, "{'id':'%s'}", id);
    bad(&h, "step_complete", this, ERR_STATE, "approve or reject");
    const char *other = arena_printf(h.arena, "{'id':'%s','step':'2'}", id);
    bad(&h, "approve", other, ERR_STATE, "waits at step 1");
    run = good(&h, "approve", arena_printf(h.arena, "{'id':'%s','step':'1','note':'fine'}", id));
    is(&h, run, "state", "ready");
    is(&h, run, "steps.0.result.note", "fine");
    bad(&h, "approve", this, ERR_STATE, "waits for nobody");
    lease(&h);
    is(&h, next(&h), "name", "go");
    id = execute(&h, "{'name':'ask','input':'v2','wait_ms':0}");
    lease(&h);
    ck_assert_str_eq(h.id, id);
    next(&h);
    run = good(&h, "reject", arena_printf(h.arena, "{'id':'%s','why':'too early'}", id));
    is(&h, run, "state", "failed");
    has(&h, run, "error", "rejected by local: too early");
    close_house(&h);
}
END_TEST

START_TEST(waits)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "wait",
             "# Wait\n1. **W**\n   ```wait\n   {{input.time}}\n   ```\n"
             "2. **Go**\n   ```sh\n   true\n   ```\n");
    const char *id = execute(&h, "{'name':'wait','input':{'time':'300ms'},'wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "action", "wait");
    is(&h, run_of(&h, id), "state", "waiting_timer");
    lease(&h);
    is(&h, next(&h), "name", "go");
    id = execute(&h, "{'name':'wait','input':{'time':'2020-01-01T00:00:00Z'},'wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "action", "wait"); /* due at once */
    lease(&h);
    is(&h, next(&h), "name", "go");
    id = execute(&h, "{'name':'wait','input':{'time':'soon'},'wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "action", "done");
    has(&h, run_of(&h, id), "error", "nothing to wait for");
    close_house(&h);
}
END_TEST

START_TEST(prose_without_a_model_is_for_people)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "think",
             "# Think\n1. **Judge**: Is {{input}} good?\n2. **Say**\n   ```tool\n"
             "   brain_store {\"solution\": \"{{steps.judge.result.summary}}\"}\n"
             "   ```\n");
    const char *id = execute(&h, "{'name':'think','input':'tea','wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "action", "wait");
    has(&h, run_of(&h, id), "why", "no model is configured");
    has(&h, run_of(&h, id), "steps.0.input", "Is tea good?");
    bad(&h, "step_complete", arena_printf(h.arena, "{'id':'%s','step':'say'}", id), ERR_STATE,
        "waits at step 1 (judge)");
    good(&h, "step_complete", arena_printf(h.arena, "{'id':'%s','result':{'summary':'yes'}}", id));
    lease(&h);
    is(&h, next(&h), "args.solution", "yes");
    id = execute(&h, "{'name':'think','input':'mud','wait_ms':0}");
    lease(&h);
    next(&h);
    bytes_t run = good(&h, "step_fail", arena_printf(h.arena, "{'id':'%s','error':'no'}", id));
    is(&h, run, "state", "failed");
    close_house(&h);
}
END_TEST

START_TEST(prose_with_a_model_keeps_its_effects)
{
    house_t h;
    open_house(&h, "agent.llm=true");
    put_file(&h, "think",
             "---\nmax_calls: 2\n---\n# Think\nCarefully.\n\n1. **Judge**: Is {{input}} "
             "good?\n");
    const char *id = execute(&h, "{'name':'think','input':'tea','wait_ms':0}");
    lease(&h);
    bytes_t step = next(&h);
    is(&h, step, "kind", "llm");
    has(&h, step, "prompt", "Is tea good?");
    has(&h, step, "prompt", "Carefully.");
    has(&h, step, "prompt", "last time it took long");
    begin(&h, 0);
    good(&h, "step_note", leased(&h, ",'step':0,'transcript':[{'role':'user'}]"));
    const char *effect = ",'step':0,'index':1,'tool':'brain_query','args':{'query':'tea'}";
    step = good(&h, "effect_begin", leased(&h, effect));
    is(&h, step, "state", "intended");
    const char *name = get(&h, step, "effect_id");
    good(&h, "step_start", leased(&h, ",'step':0,'index':1"));
    good(&h, "effect_done", leased(&h, ",'step':0,'index':1,'outcome':'ok','result':{'n':1}"));
    /* The worker is lost; the next one goes on from the note, and nothing happens twice. */
    lease(&h);
    step = next(&h);
    is(&h, step, "transcript.0.role", "user");
    begin(&h, 0);
    step = good(&h, "effect_begin", leased(&h, effect));
    is(&h, step, "state", "committed");
    is(&h, step, "effect_id", name);
    is(&h, step, "result.n", "1");
    bad(&h, "effect_begin", leased(&h, ",'step':0,'index':1,'tool':'other','args':{}"), ERR_STATE,
        "was another one");
    good(&h, "effect_begin", leased(&h, ",'step':0,'index':2,'tool':'a','replay':'manual'"));
    bad(&h, "effect_begin", leased(&h, ",'step':0,'index':3,'tool':'a'"), ERR_QUOTA, "max_calls");
    good(&h, "step_start", leased(&h, ",'step':0,'index':2"));
    lease(&h);
    next(&h);
    begin(&h, 0);
    step = good(&h, "effect_begin", leased(&h, ",'step':0,'index':2,'tool':'a'"));
    is(&h, step, "state", "unknown");
    is(&h, run_of(&h, id), "state", "input_required");
    close_house(&h);
}
END_TEST

START_TEST(budgets_end_a_run)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "few",
             "---\nmax_steps: 1\n---\n# Few\n1. **A**\n   ```sh\n   true\n   ```\n2. **B**\n"
             "   ```sh\n   true\n   ```\n");
    const char *id = execute(&h, "{'name':'few','wait_ms':0}");
    lease(&h);
    next(&h);
    begin(&h, 0);
    bytes_t step = done(&h, 0, "{}");
    is(&h, step, "action", "done");
    has(&h, step, "why", "max_steps: 1 is used up");
    is(&h, run_of(&h, id), "state", "failed");
    is(&h, run_of(&h, id), "steps.1.attempt", "0");
    close_house(&h);
}
END_TEST

START_TEST(values_that_are_missing_fail_the_step)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "v",
             "# V\n1. **A**\n   ```sh\n   true\n   ```\n2. **B**\n   ```sh\n"
             "   echo {{steps.a.result.nothing}}\n   ```\n");
    execute(&h, "{'name':'v','wait_ms':0}");
    lease(&h);
    next(&h);
    begin(&h, 0);
    bytes_t step = done(&h, 0, "{'exit':0,'stdout':''}");
    is(&h, step, "action", "done");
    has(&h, step, "why", "there is no 'nothing': it has exit, stdout");
    close_house(&h);
}
END_TEST

START_TEST(the_protocol_is_strict)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one", "# One\n1. **A**\n   ```sh\n   true\n   ```\n2. **B** x\n");
    execute(&h, "{'name':'one','wait_ms':0}");
    lease(&h);
    bad(&h, "step_start", leased(&h, ",'step':0"), ERR_STATE, "not running");
    next(&h);
    bad(&h, "step_done", leased(&h, ",'step':0,'outcome':'ok'"), ERR_STATE, "after step_start");
    bad(&h, "step_start", leased(&h, ",'step':1"), ERR_STATE, "not the present one");
    begin(&h, 0);
    bad(&h, "step_start", leased(&h, ",'step':0"), ERR_STATE, "dispatched, not intended");
    bad(&h, "effect_begin", leased(&h, ",'step':0,'index':1,'tool':'x'"), ERR_STATE, "prose");
    done(&h, 0, "{}");
    bad(&h, "step_done", leased(&h, ",'step':0,'outcome':'ok'"), ERR_FENCED, "over");
    close_house(&h);
}
END_TEST

START_TEST(experience_is_told_in_the_end)
{
    house_t h;
    open_house(&h, NULL);
    atomic_store(&told.refuse, true);
    put_file(&h, "one", "# One\n1. **A**\n   ```sh\n   true\n   ```\n");
    execute(&h, "{'name':'one','wait_ms':0}");
    lease(&h);
    next(&h);
    begin(&h, 0);
    done(&h, 0, "{}");
    stop(&h);
    ck_assert_int_eq(atomic_load(&told.experiences), 0);
    atomic_store(&told.refuse, false);
    start(&h, NULL);
    until_told(&h, 1);
    close_house(&h);
}
END_TEST

START_TEST(companies_are_apart)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one", "# One\n1. x\n");
    const char *id = execute(&h, "{'name':'one','wait_ms':0}");
    bad(&h, "run_get", arena_printf(h.arena, "{'id':'%s','company':'other'}", id), ERR_NOT_FOUND,
        "no run");
    bad(&h, "sop_get", "{'name':'one','company':'other'}", ERR_NOT_FOUND, "no procedure");
    good(&h, "sop_create", "{'name':'mine','content':'# M\\n1. x\\n','company':'other'}");
    ck_assert_str_eq(file_text(&h, "agent/other/sops/mine.md"), "# M\n1. x\n");
    bad(&h, "sop_get", "{'name':'mine'}", ERR_NOT_FOUND, "no procedure");
    close_house(&h);
}
END_TEST

static const char effects[] =
    "# Effects\n\n"
    "1. **Look**\n   ```tool\n   brain_query {\"query\": \"tea\"}\n   ```\n"
    "2. **Write**\n   ```sh\n   echo {{input}} > file; cat file\n   ```\n"
    "3. **Store**\n   ```tool\n"
    "   brain_store {\"solution\": \"{{steps.look.result.n}}\"}\n   ```\n"
    "4. **Pause**\n   ```wait\n   2d\n   ```\n"
    "5. **Ask**\n   ```approve\n   Send {{input}}?\n   ```\n"
    "6. **Tell**\n   ```tool\n"
    "   brain_query {\"query\": \"{{steps.write.result.stdout}}\"}\n   ```\n"
    "7. Think about {{input}}.\n"
    "8. **End**\n   ```tool\n   brain_query {\"query\": \"end\"}\n   ```\n";

static bytes_t refused(house_t *house, int step)
{
    return good(
        house, "step_done",
        leased(house, arena_printf(house->arena,
                                   ",'step':%d,'outcome':'refused','error':'it writes'", step)));
}

static void begin_reading(house_t *house, int step)
{
    good(house, "step_start",
         leased(house, arena_printf(house->arena, ",'step':%d,'reads':true", step)));
}

START_TEST(a_simulated_run_refuses_effects)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "effects", effects);
    const char *id = execute(&h, "{'name':'effects','input':'tea','wait_ms':0,'simulate':true}");
    is(&h, run_of(&h, id), "simulated", "true");
    lease(&h);
    bytes_t step = next(&h);
    is(&h, step, "tool", "brain_query");
    is(&h, step, "simulate", "true");
    bad(&h, "step_start", leased(&h, ",'step':0"), ERR_STATE, "simulated: say `reads`");
    begin_reading(&h, 0);
    bad(&h, "step_done", leased(&h, ",'step':0,'outcome':'refused'"), ERR_STATE,
        "before step_start");
    step = done(&h, 0, "{'n':7}");
    /* The script is refused without a worker; of the tool only the worker knows what it does. */
    is(&h, step, "step", "2");
    is(&h, step, "args.solution", "7");
    is(&h, run_of(&h, id), "steps.1.state", "refused");
    /* The worker and the agent die: the step is offered again and refused then. */
    stop(&h);
    start(&h, NULL);
    lease(&h);
    is(&h, next(&h), "step", "2");
    is(&h, run_of(&h, id), "steps.2.effect", "intended");
    step = refused(&h, 2);
    is(&h, step, "step", "7");
    stop(&h);
    start(&h, NULL);
    lease(&h);
    is(&h, next(&h), "step", "7");
    begin_reading(&h, 7);
    is(&h, done(&h, 7, "{'n':8}"), "action", "done");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "completed");
    is(&h, run, "simulated", "true");
    static const char *const states[] = {"completed", "refused", "refused", "completed",
                                         "refused",   "refused", "refused", "completed"};
    for (int i = 0; i < 8; i++)
        is(&h, run, arena_printf(h.arena, "steps.%d.state", i), states[i]);
    is(&h, run, "calls", "2");
    is(&h, run, "steps.3.result.skipped", "true");
    is(&h, run, "refused.0.name", "write");
    is(&h, run, "refused.0.args.VALUE_1", "tea");
    is(&h, run, "refused.1.tool", "brain_store");
    is(&h, run, "refused.1.args.solution", "7");
    is(&h, run, "refused.1.why", "it writes");
    has(&h, run, "refused.2.args", "Send tea?");
    has(&h, run, "refused.3.why", "step 'write' was refused");
    is(&h, run, "refused.3.args.query", "{{steps.write.result.stdout}}");
    is(&h, run, "refused.4.args", "Think about tea.");
    is(&h, run, "refused.5", "");
    bytes_t task = good(&h, "task_get", arena_printf(h.arena, "{'id':'%s'}", id));
    is(&h, task, "task.result.simulated", "true");
    is(&h, task, "task.result.refused.1.tool", "brain_store");
    is(&h, task, "task.result.result.n", "8");
    ck_assert_str_eq(file_text(&h, "sop_logs.ndjson"), "");
    close_house(&h);
}
END_TEST

START_TEST(a_simulated_run_is_no_experience)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "one", "# One\n1. **A**\n   ```sh\n   true\n   ```\n");
    client_reply_t reply;
    const char *id =
        execute(&h, "{'name':'one','wait_ms':0,'simulate':true,'idempotency_key':'k'}");
    bad(&h, "sop_execute", "{'name':'one','wait_ms':0,'idempotency_key':'k'}", ERR_STATE,
        "which is simulated: give another key");
    lease(&h);
    is(&h, next(&h), "action", "done");
    reply = ask(&h, "run_get", arena_printf(h.arena, "{'id':'%s'}", id));
    ck_assert_str_eq(reply.text, "SOP 'One' was simulated: outside effects were refused.\nSummary:"
                                 "\nStep 1 refused: A: would do {\"script\":\"true\\n\"}");
    put_file(&h, "real", "# Real\n1. **A**\n   ```sh\n   true\n   ```\n");
    execute(&h, "{'name':'real','wait_ms':0,'idempotency_key':'r'}");
    bad(&h, "sop_execute", "{'name':'real','wait_ms':0,'idempotency_key':'r','simulate':true}",
        ERR_STATE, "which is real: give another key");
    lease(&h);
    is(&h, next(&h), "kind", "sh");
    bad(&h, "step_done", leased(&h, ",'step':0,'outcome':'refused'"), ERR_STATE,
        "only a step of a simulated run");
    begin(&h, 0);
    done(&h, 0, "{}");
    until_told(&h, 1);
    ck_assert_ptr_nonnull(strstr(told.last, "success real: Real"));
    close_house(&h);
}
END_TEST

START_TEST(a_failing_look_fails_the_simulation)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "look",
             "# Look\n1. **A**\n   ```tool\n   brain_query {\"query\": \"x\"}\n   ```\n"
             "2. **B**\n   ```tool\n   brain_query {\"query\": "
             "\"{{steps.a.result.no}}\"}\n   ```\n");
    const char *id = execute(&h, "{'name':'look','wait_ms':0,'simulate':true}");
    lease(&h);
    next(&h);
    begin_reading(&h, 0);
    /* A field that is missing is a mistake of the procedure, refusals or not. */
    has(&h, done(&h, 0, "{'n':1}"), "why", "there is no 'no'");
    is(&h, run_of(&h, id), "state", "failed");
    is(&h, run_of(&h, id), "simulated", "true");
    close_house(&h);
}
END_TEST

START_TEST(a_model_in_a_simulated_run_only_reads)
{
    house_t h;
    open_house(&h, "agent.llm=true");
    put_file(&h, "think", "# Think\n1. **Judge**: Is {{input}} good?\n");
    const char *id = execute(&h, "{'name':'think','input':'tea','wait_ms':0,'simulate':true}");
    lease(&h);
    is(&h, next(&h), "action", "done"); /* the setting does not allow it */
    is(&h, run_of(&h, id), "refused.0.args", "Is tea good?");
    close_house(&h);
    /* A second house would be another host in one process: the same one, with other settings. */
    h = (house_t){.arena = arena_new()};
    snprintf(h.data, sizeof(h.data), "/tmp/test-runs-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(h.data));
    start_with(&h, "agent.llm=true", "agent.simulate_llm=true");
    put_file(&h, "think", "# Think\n1. **Judge**: Is {{input}} good?\n");
    id = execute(&h, "{'name':'think','input':'tea','wait_ms':0,'simulate':true}");
    lease(&h);
    bytes_t step = next(&h);
    is(&h, step, "kind", "llm");
    has(&h, step, "prompt", "This run is simulated");
    begin(&h, 0);
    const char *write = ",'step':0,'index':1,'tool':'brain_store','args':{'a':1}";
    is(&h, good(&h, "effect_begin", leased(&h, write)), "state", "refused");
    bad(&h, "step_start", leased(&h, ",'step':0,'index':1"), ERR_STATE, "refused, not intended");
    /* After a lost worker it is refused still. */
    lease(&h);
    next(&h);
    begin(&h, 0);
    is(&h, good(&h, "effect_begin", leased(&h, write)), "state", "refused");
    step = good(&h, "effect_begin",
                leased(&h, ",'step':0,'index':2,'tool':'brain_query','replay':'safe'"));
    is(&h, step, "state", "intended");
    good(&h, "step_start", leased(&h, ",'step':0,'index':2"));
    good(&h, "effect_done", leased(&h, ",'step':0,'index':2,'outcome':'ok','result':{'n':1}"));
    is(&h, done(&h, 0, "'good'"), "action", "done");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "completed");
    is(&h, run, "result", "good");
    is(&h, run, "refused.0.tool", "brain_store");
    is(&h, run, "refused.0.args.a", "1");
    is(&h, run, "refused.1", "");
    close_house(&h);
}
END_TEST

static const char branches[] = "# Branches\n1. **Look**\n   ```sh\n   true\n   ```\n"
                               "2. **Many**\n   ```if\n   {{steps.look.result.stdout}} > 10\n"
                               "   else: few\n   ```\n"
                               "3. **Sort**\n   ```sh\n   true\n   ```\n"
                               "4. **Over**\n   ```if\n   true\n   then: report\n   ```\n"
                               "5. **Few**\n   ```sh\n   true\n   ```\n"
                               "6. **Report**\n   ```sh\n   echo {{steps.sort.result.stdout "
                               "| default(unsorted)}}\n   ```\n"
                               "7. **Rest**\n   ```if\n   {{steps.report.result.exit}} == 0\n"
                               "   then: end\n   ```\n"
                               "8. **Never**\n   ```sh\n   true\n   ```\n";

START_TEST(a_branch_goes_one_way)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "branches", branches);
    for (int many = 0; many < 2; many++) {
        const char *id = execute(&h, "{'name':'branches','wait_ms':0}");
        lease(&h);
        next(&h);
        begin(&h, 0);
        bytes_t step = done(&h, 0, many ? "{'exit':0,'stdout':'11'}" : "{'exit':0,'stdout':'9'}");
        is(&h, step, "step", many ? "2" : "4");
        /* Killed at the branch: what was decided stays decided. */
        stop(&h);
        start(&h, NULL);
        lease(&h);
        is(&h, next(&h), "step", many ? "2" : "4");
        is(&h, run_of(&h, id), many ? "steps.2.state" : "steps.4.state", "running");
        begin(&h, many ? 2 : 4);
        step = done(&h, many ? 2 : 4, "{'exit':0,'stdout':'sorted'}");
        is(&h, step, "step", "5");
        is(&h, step, "env.0.value", many ? "sorted" : "unsorted");
        begin(&h, 5);
        is(&h, done(&h, 5, "{'exit':0,'stdout':'end'}"), "action", "done");
        bytes_t run = run_of(&h, id);
        is(&h, run, "state", "completed");
        is(&h, run, "result.stdout", "end");
        is(&h, run, "steps.1.result.holds", many ? "true" : "false");
        is(&h, run, "steps.1.result.next", many ? "sort" : "few");
        is(&h, run, "steps.2.state", many ? "completed" : "skipped");
        is(&h, run, "steps.3.state", many ? "completed" : "skipped");
        is(&h, run, "steps.4.state", many ? "skipped" : "completed");
        is(&h, run, "steps.6.result.next", "end");
        is(&h, run, "steps.7.state", "skipped");
        is(&h, run, "steps.7.why", "step 7 (rest) is true");
    }
    close_house(&h);
}
END_TEST

START_TEST(a_person_takes_the_branch_again)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "b",
             "# B\n1. **A**\n   ```sh\n   true\n   ```\n2. **C**\n   ```if\n"
             "   {{steps.a.result.exit}} == 0\n   else: z\n   ```\n3. **M**\n   "
             "```sh\n   true\n   ```\n4. **Z**\n   ```sh\n   true\n   ```\n");
    const char *id = execute(&h, "{'name':'b','wait_ms':0}");
    lease(&h);
    next(&h);
    begin(&h, 0);
    is(&h, done(&h, 0, "{'exit':1}"), "step", "3");
    begin(&h, 3);
    is(&h, broken(&h, 3, "no", false), "action", "done");
    good(&h, "run_retry_from", arena_printf(h.arena, "{'id':'%s','step':'a'}", id));
    is(&h, run_of(&h, id), "steps.2.state", "pending");
    lease(&h);
    next(&h);
    begin(&h, 0);
    is(&h, done(&h, 0, "{'exit':0}"), "step", "2");
    close_house(&h);
}
END_TEST

START_TEST(a_condition_that_cannot_be_fails_the_step)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "b", "# B\n1. **C**\n   ```if\n   {{input.n}} > 3\n   then: end\n   ```\n2. x\n");
    const char *id = execute(&h, "{'name':'b','input':{'m':1},'wait_ms':0}");
    lease(&h);
    has(&h, next(&h), "why", "step 1 (c): {{input.n}}: there is no 'n'");
    is(&h, run_of(&h, id), "state", "failed");
    close_house(&h);
}
END_TEST

/* ---- tools of foreign servers ---- */

static void start_as(house_t *house, bool repeatable)
{
    good(house, "step_start",
         leased(house, repeatable ? ",'step':0,'repeatable':true" : ",'step':0"));
}

static bytes_t lost(house_t *house)
{
    return good(house, "step_done",
                leased(house, ",'step':0,'outcome':'unknown','error':'the line went dead'"));
}

START_TEST(a_foreign_effect_of_which_nobody_knows)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "far", "# Far\n1. **Call**\n   ```tool\n   far/away {}\n   ```\n");
    put_file(&h, "safe", "# Safe\n1. **Call**\n   ```tool replay=safe\n   far/away {}\n   ```\n");
    put_file(&h, "manual", "# M\n1. **Call**\n   ```tool replay=manual\n   far/away {}\n   ```\n");
    const char *id = execute(&h, "{'name':'far','input':{},'wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "replay", "manual");
    start_as(&h, false);
    is(&h, lost(&h), "action", "wait");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "input_required");
    is(&h, run, "steps.0.effect", "unknown");
    has(&h, run, "why", "nobody knows whether 'far/away' happened, because the line went dead");
    /* What the server says counts where the step says nothing. */
    static const struct {
        const char *sop;
        bool repeatable, again;
    } rows[] = {{"far", true, true}, {"safe", false, true}, {"manual", true, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        id =
            execute(&h, arena_printf(h.arena, "{'name':'%s','input':{},'wait_ms':0}", rows[i].sop));
        lease(&h);
        next(&h);
        start_as(&h, rows[i].repeatable);
        lost(&h);
        is(&h, run_of(&h, id), "state", rows[i].again ? "waiting_timer" : "input_required");
    }
    close_house(&h);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("runs");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, procedures_are_kept_as_versions);
    tcase_add_test(all, bad_procedures_are_refused);
    tcase_add_test(all, an_edited_file_is_the_next_version);
    tcase_add_test(all, a_run_goes_from_step_to_step);
    tcase_add_test(all, execute_waits_for_the_end);
    tcase_add_test(all, execute_answers_with_the_id_when_time_is_up);
    tcase_add_test(all, inputs_are_checked);
    tcase_add_test(all, a_lost_worker_before_dispatch_repeats);
    tcase_add_test(all, a_lost_worker_after_dispatch_leaves_doubt);
    tcase_add_test(all, safe_and_keyed_are_repeated_with_their_id);
    tcase_add_test(all, a_restart_resumes_where_it_was);
    tcase_add_test(all, failures_are_retried_as_told);
    tcase_add_test(all, limits_of_a_step_are_settings);
    tcase_add_test(all, a_person_goes_back);
    tcase_add_test(all, approvals);
    tcase_add_test(all, waits);
    tcase_add_test(all, prose_without_a_model_is_for_people);
    tcase_add_test(all, prose_with_a_model_keeps_its_effects);
    tcase_add_test(all, budgets_end_a_run);
    tcase_add_test(all, values_that_are_missing_fail_the_step);
    tcase_add_test(all, the_protocol_is_strict);
    tcase_add_test(all, experience_is_told_in_the_end);
    tcase_add_test(all, companies_are_apart);
    tcase_add_test(all, a_simulated_run_refuses_effects);
    tcase_add_test(all, a_branch_goes_one_way);
    tcase_add_test(all, a_person_takes_the_branch_again);
    tcase_add_test(all, a_condition_that_cannot_be_fails_the_step);
    tcase_add_test(all, a_simulated_run_is_no_experience);
    tcase_add_test(all, a_failing_look_fails_the_simulation);
    tcase_add_test(all, a_model_in_a_simulated_run_only_reads);
    tcase_add_test(all, a_foreign_effect_of_which_nobody_knows);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
