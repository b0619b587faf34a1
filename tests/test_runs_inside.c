/* Procedures within procedures, and the same for each item of a list: a real agent with a real
 * store; the test is its worker, so that it can die between any two messages. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"
#include "support_runs.h"

/* ---- help --------------------------------------------------------------------------------- */

static const char inner[] = "---\ninputs: folder\n---\n# Inner\n\n1. **Look**\n   ```sh\n"
                            "   ls {{input.folder}}\n   ```\n";
static const char outer[] =
    "---\ninputs: where\n---\n# Outer\n\n1. **Before**\n   ```sh\n   true\n   ```\n"
    "2. **Inside**\n   ```sop\n   inner {\"folder\": \"{{input.where}}/x\"}\n   ```\n"
    "3. **After**\n   ```sh\n   echo {{steps.inside.result.stdout}}\n   ```\n";

static const char *outer_run(house_t *h)
{
    put_file(h, "inner", inner);
    put_file(h, "outer", outer);
    return execute(h, "{'name':'outer','input':'/a','wait_ms':0}");
}

/* Leases the run, asks what is next and performs steps of it until another answer comes. */
static bytes_t carry_on(house_t *h, const char *result)
{
    lease(h);
    bytes_t step = next(h);
    while (!strcmp(get(h, step, "action"), "perform")) {
        const char *more = arena_printf(h->arena, ",'step':%s,'index':%s", get(h, step, "step"),
                                        *get(h, step, "index") ? get(h, step, "index") : "0");
        good(h, "step_start", leased(h, more));
        step =
            good(h, "step_done",
                 leased(h, arena_printf(h->arena, "%s,'outcome':'ok','result':%s", more, result)));
    }
    return step;
}

/* Carries on with whatever is ready, until the run is over or nothing is ready for longer than a
 * lease of a lost worker lasts. Each script gives its first value back. */
static void carry_all(house_t *h, const char *id)
{
    while (!*get(h, run_of(h, id), "finished_ms") && lease_within(h, 1500)) {
        bytes_t step = next(h);
        while (!strcmp(get(h, step, "action"), "perform")) {
            const char *at = arena_printf(h->arena, ",'step':%s", get(h, step, "step"));
            const char *value = get(h, step, "env.0.value");
            good(h, "step_start", leased(h, at));
            step = good(
                h, "step_done",
                leased(h, arena_printf(h->arena, "%s,'outcome':'ok','result':'%s'", at, value)));
        }
    }
}

static bytes_t item(house_t *h, const char *method, int at, const char *more)
{
    return good(h, method,
                leased(h, arena_printf(h->arena, ",'step':0,'index':%d%s", at + 1, more)));
}

static int tasks_of(house_t *h, const char *parent)
{
    bytes_t list = good(h, "task_list", "{'limit':1000}"), tasks, task;
    int count = 0;
    ck_assert(mp_get(list, "tasks", &tasks));
    for (uint32_t i = 0; mp_at(tasks, i, &task); i++)
        count += !strcmp(get(h, task, "parent"), parent);
    return count;
}

static void cancel(house_t *h, const char *id)
{
    good(h, "task_cancel", arena_printf(h->arena, "{'id':'%s','why':'enough'}", id));
}

/* ---- sop ---------------------------------------------------------------------------------- */

START_TEST(a_procedure_runs_inside_another)
{
    house_t h;
    open_house(&h, NULL);
    const char *id = outer_run(&h);
    bytes_t end = carry_on(&h, "{'exit':0,'stdout':'b'}");
    is(&h, end, "action", "wait");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "waiting_child");
    is(&h, run, "steps.1.state", "waiting");
    is(&h, run, "steps.1.effect", "dispatched");
    is(&h, run, "steps.1.input.folder", "/a/x");
    const char *child = get(&h, run, "steps.1.child");
    has(&h, run, "why", arena_printf(h.arena, "waits for the run %s of 'inner'", child));
    client_reply_t seen = ask(&h, "run_get", arena_printf(h.arena, "{'id':'%s'}", id));
    ck_assert_ptr_nonnull(
        strstr(seen.text, arena_printf(h.arena, "Step 2 waiting: Inside (run %s)", child)));
    bytes_t below = run_of(&h, child);
    is(&h, below, "parent", id);
    is(&h, below, "state", "ready");
    is(&h, below, "input.folder", "/a/x");
    is(&h, good(&h, "task_why", arena_printf(h.arena, "{'id':'%s'}", id)), "state",
       "waiting_child");
    bytes_t stats = good(&h, "queue_stats", "{}");
    is(&h, stats, "queue_length", "1"); /* who waits is no work */
    lease(&h);
    ck_assert_str_eq(h.id, child);
    is(&h, next(&h), "env.0.value", "/a/x");
    begin(&h, 0);
    is(&h, done(&h, 0, "{'exit':0,'stdout':'seen'}"), "action", "done");
    is(&h, run_of(&h, id), "state", "ready"); /* woken in the same commit */
    lease(&h);
    ck_assert_str_eq(h.id, id);
    bytes_t step = next(&h);
    is(&h, step, "name", "after");
    is(&h, step, "env.0.value", "seen");
    begin(&h, 2);
    is(&h, done(&h, 2, "{'exit':0,'stdout':'end'}"), "action", "done");
    run = run_of(&h, id);
    is(&h, run, "state", "completed");
    is(&h, run, "steps.1.result.stdout", "seen");
    is(&h, run, "steps.1.effect", "committed");
    is(&h, run, "calls", "3"); /* with those of the inner one */
    ck_assert_int_eq(tasks_of(&h, id), 1);
    close_house(&h);
}
END_TEST

/* The machine dies after each commit on the way; there is never a second child. */
START_TEST(a_crash_anywhere_leaves_one_child)
{
    house_t h;
    open_house(&h, NULL);
    const char *id = outer_run(&h);
    lease(&h);
    next(&h);
    begin(&h, 0);
    stop(&h);
    start(&h, NULL);
    good(&h, "step_done", leased(&h, ",'step':0,'outcome':'ok','result':{'exit':0}"));
    stop(&h); /* its answer is lost: the child is begun */
    start(&h, NULL);
    const char *child = get(&h, run_of(&h, id), "steps.1.child");
    ck_assert_int_eq(tasks_of(&h, id), 1);
    lease(&h);
    ck_assert_str_eq(h.id, child);
    next(&h);
    stop(&h);
    start(&h, NULL);
    begin(&h, 0); /* its lease is on disk */
    done(&h, 0, "{'exit':0,'stdout':'once'}");
    stop(&h);
    start(&h, NULL);
    lease(&h);
    ck_assert_str_eq(h.id, id);
    is(&h, next(&h), "env.0.value", "once");
    stop(&h);
    start(&h, NULL);
    is(&h, run_of(&h, id), "steps.1.state", "completed");
    begin(&h, 2);
    is(&h, done(&h, 2, "{'exit':0}"), "action", "done");
    ck_assert_int_eq(tasks_of(&h, id), 1);
    close_house(&h);
}
END_TEST

START_TEST(what_fails_inside_fails_outside)
{
    house_t h;
    open_house(&h, NULL);
    const char *id = outer_run(&h);
    carry_on(&h, "{'exit':0}");
    lease(&h);
    const char *child = h.id;
    next(&h);
    begin(&h, 0);
    broken(&h, 0, "exit 2", false);
    lease(&h);
    bytes_t end = next(&h);
    is(&h, end, "action", "done");
    has(&h, end, "why", "step 2 (inside): the run ");
    has(&h, end, "why", "(inner): step 1 (look): exit 2");
    is(&h, run_of(&h, id), "steps.1.effect", "failed");
    /* Repaired, it goes on with another child. */
    good(&h, "run_retry_from", arena_printf(h.arena, "{'id':'%s','step':'inside'}", id));
    carry_on(&h, "{'exit':0}");
    bytes_t run = run_of(&h, id);
    is(&h, run, "steps.1.attempt", "2");
    ck_assert_str_ne(get(&h, run, "steps.1.child"), child);
    ck_assert_int_eq(tasks_of(&h, id), 2);
    close_house(&h);
}
END_TEST

START_TEST(a_run_takes_its_children_along)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "inner", inner);
    put_file(&h, "middle", "# M\n1. **In**\n   ```sop\n   inner\n   folder: /m\n   ```\n");
    put_file(&h, "top",
             "# T\n1. **In**\n   ```sop\n   middle\n   ```\n2. **B**\n   ```sh\n   "
             "true\n   ```\n");
    const char *id = execute(&h, "{'name':'top','wait_ms':0}");
    carry_on(&h, "{}");
    carry_on(&h, "{}");
    const char *middle = get(&h, run_of(&h, id), "steps.0.child");
    const char *low = get(&h, run_of(&h, middle), "steps.0.child");
    cancel(&h, id);
    is(&h, run_of(&h, middle), "state", "cancelled");
    is(&h, run_of(&h, low), "state", "cancelled");
    has(&h, run_of(&h, low), "error", "that began it has ended");
    client_reply_t list =
        ask(&h, "task_list", "{'state':'cancelled'}"); /* not what it waited for */
    ck_assert_ptr_nonnull(strstr(list.text, "that began it has ended\n"));
    bytes_t task, gone;
    ck_assert(
        mp_get(good(&h, "task_get", arena_printf(h.arena, "{'id':'%s'}", middle)), "task", &task));
    ck_assert(!mp_get(task, "why", &gone));
    /* Again from the step: new ones. Then only the lowest is called off. */
    good(&h, "run_retry_from", arena_printf(h.arena, "{'id':'%s','step':'in'}", id));
    carry_on(&h, "{}");
    carry_on(&h, "{}");
    middle = get(&h, run_of(&h, id), "steps.0.child");
    cancel(&h, get(&h, run_of(&h, middle), "steps.0.child"));
    lease(&h);
    ck_assert_str_eq(h.id, middle);
    next(&h);
    lease(&h);
    ck_assert_str_eq(h.id, id);
    has(&h, next(&h), "why", "is cancelled: enough");
    is(&h, run_of(&h, id), "state", "failed");
    /* From a step while a child is under way: that one is over. */
    id = execute(&h, "{'name':'top','wait_ms':0}");
    carry_on(&h, "{}");
    middle = get(&h, run_of(&h, id), "steps.0.child");
    bytes_t run = good(&h, "run_retry_from", arena_printf(h.arena, "{'id':'%s','step':'1'}", id));
    is(&h, run, "state", "ready");
    is(&h, run_of(&h, middle), "state", "cancelled");
    close_house(&h);
}
END_TEST

START_TEST(budgets_hold_inside)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "two",
             "# Two\n1. a\n   ```sh\n   true\n   ```\n2. b\n   ```sh\n   true\n   ```\n");
    put_file(&h, "top",
             "---\nmax_calls: 2\n---\n# T\n1. **A**\n   ```sh\n   true\n   ```\n"
             "2. **In**\n   ```sop\n   two\n   ```\n");
    const char *id = execute(&h, "{'name':'top','wait_ms':0}");
    carry_on(&h, "{}");
    has(&h, carry_on(&h, "{}"), "why",
        arena_printf(h.arena, "the budget max_calls: 2 of the run %s is used up", id));
    lease(&h);
    has(&h, next(&h), "why", "is used up");
    is(&h, run_of(&h, id), "calls", "2");
    is(&h, run_of(&h, id), "state", "failed");
    close_house(&h);
}
END_TEST

START_TEST(a_procedure_is_not_inside_itself)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "a", "# A\n1. **In**\n   ```sop\n   b\n   ```\n");
    put_file(&h, "b", "# B\n1. **In**\n   ```sop\n   a\n   ```\n");
    put_file(&h, "self", "# S\n\n1. x\n   ```each\n   [1]\n   sop: self\n   ```\n");
    execute(&h, "{'name':'a','wait_ms':0}");
    carry_on(&h, "{}");
    lease(&h);
    has(&h, next(&h), "why", "the procedure 'a' is carried out already, further up (a → b → a)");
    client_reply_t reply = ask(&h, "validate_sop", "{'name':'self'}");
    is(&h, reply.body, "valid", "false");
    is(&h, reply.body, "problems.0.line", "6");
    has(&h, reply.body, "problems.0.what", "a procedure cannot be inside itself: self → self");
    has(&h, good(&h, "validate_sop", "{'name':'a'}"), "problems.0.what", "a → b → a");
    close_house(&h);
}
END_TEST

START_TEST(depth_has_a_limit)
{
    house_t h;
    open_house(&h, "agent.sop_depth=2");
    put_file(&h, "a", "# A\n1. **In**\n   ```sop\n   b\n   ```\n");
    put_file(&h, "b", "# B\n1. **In**\n   ```sop\n   c\n   ```\n");
    put_file(&h, "c", "# C\n1. x\n");
    execute(&h, "{'name':'a','wait_ms':0}");
    carry_on(&h, "{}");
    lease(&h);
    has(&h, next(&h), "why", "number 3 inside each other (a → b → c), and agent.sop_depth");
    close_house(&h);
}
END_TEST

START_TEST(what_cannot_run_inside_is_told)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "inner", inner);
    put_file(&h, "broken", "# Broken\n");
    put_file(&h, "a",
             "# A\n1. x\n   ```sop\n   innr\n   ```\n2. y\n   ```sop\n   inner\n"
             "   ```\n3. z\n   ```sop\n   inner {\"folder\": 1, \"depth\": 2}\n   ```\n"
             "4. w\n   ```sop\n   broken\n   ```\n5. v\n   ```sop\n   inner {{input}}\n"
             "   ```\n");
    bytes_t body = good(&h, "validate_sop", "{'name':'a'}");
    is(&h, body, "valid", "false");
    is(&h, body, "problems.0.line", "4");
    has(&h, body, "problems.0.what", "there is no procedure 'innr': did you mean 'inner'?");
    is(&h, body, "problems.1.line", "8");
    has(&h, body, "problems.1.what", "the input 'folder' is missing");
    is(&h, body, "problems.2.line", "12");
    has(&h, body, "problems.2.what", "there is no input 'depth'");
    is(&h, body, "problems.3.line", "16");
    has(&h, body, "problems.3.what", "the procedure 'broken' cannot run: line");
    is(&h, body, "problems.4", "");
    put_file(&h, "b", "# B\n1. x\n   ```sop\n   inner {{input}}\n   ```\n");
    is(&h, good(&h, "validate_sop", "{'name':'b'}"), "valid", "true");
    execute(&h, "{'name':'b','input':{'x':1},'wait_ms':0}");
    lease(&h);
    has(&h, next(&h), "why", "step 1 (step_1): the procedure 'inner': the input 'folder'");
    execute(&h, "{'name':'b','input':'/plain','wait_ms':0}");
    lease(&h);
    is(&h, next(&h), "action", "wait");
    lease(&h);
    is(&h, next(&h), "env.0.value", "/plain");
    close_house(&h);
}
END_TEST

/* Whoever waits for the outer one hears that the inner one needs a person. */
START_TEST(a_person_is_needed_inside)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "ask", "# Ask\n1. **Ask**\n   ```approve\n   Go?\n   ```\n");
    put_file(&h, "mid", "# Mid\n1. **In**\n   ```sop\n   ask\n   ```\n");
    put_file(&h, "top", "# Top\n1. **In**\n   ```sop\n   mid\n   ```\n");
    const char *id = execute(&h, "{'name':'top','wait_ms':0}");
    client_call_t call = {
        .peer = "agent", .method = "run_wait", .role = ROLE_ADMIN, .timeout_ms = 20000};
    buf_t args;
    buf_open(&args, h.arena);
    mp_put_map(&args, 1);
    mp_put_str(&args, "id");
    mp_put_str(&args, id);
    call.args = buf_bytes(&args);
    uint64_t sent = client_send(h.client, &call), got = 0;
    for (int i = 0; i < 3; i++)
        carry_on(&h, "{}");
    client_reply_t reply = client_wait(h.client, h.arena, 10000, &got);
    ck_assert_uint_eq(got, sent);
    ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
    is(&h, reply.body, "state", "waiting_child");
    has(&h, reply.body, "why", "(ask) needs a person: step 1 (ask) needs approval");
    const char *asks = get(&h, reply.body, "asks");
    const char *mid = get(&h, run_of(&h, id), "steps.0.child");
    const char *low = get(&h, run_of(&h, mid), "steps.0.child");
    ck_assert_str_eq(asks, low);
    bad(&h, "approve", arena_printf(h.arena, "{'id':'%s'}", id), ERR_STATE, "waits for the run");
    good(&h, "approve", arena_printf(h.arena, "{'id':'%s'}", low));
    for (int i = 0; i < 3; i++)
        carry_on(&h, "{}");
    is(&h, run_of(&h, id), "state", "completed");
    is(&h, run_of(&h, id), "result.approved", "true");
    close_house(&h);
}
END_TEST

START_TEST(the_version_is_that_of_the_beginning)
{
    house_t h;
    open_house(&h, NULL);
    const char *id = outer_run(&h);
    put_file(&h, "inner",
             "---\ninputs: folder\n---\n# Second\n1. **Look**\n   ```sh\n   true\n   "
             "```\n");
    carry_on(&h, "{'exit':0}"); /* the child is begun: it takes the file as it is now */
    const char *child = get(&h, run_of(&h, id), "steps.1.child");
    put_file(&h, "inner", "# Third\n1. x\n");
    is(&h, run_of(&h, child), "title", "Second");
    carry_on(&h, "{'exit':0}");
    is(&h, run_of(&h, child), "state", "completed");
    close_house(&h);
}
END_TEST

/* ---- each --------------------------------------------------------------------------------- */

static const char each_tool[] =
    "# Each\n\n1. **All**\n   ```each\n   {{input}}\n"
    "   tool: brain_store\n   id: n-{{index}}\n   x: {{item}}\n   ```\n";

START_TEST(a_tool_for_each_item)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "each", each_tool);
    const char *id = execute(&h, "{'name':'each','input':['a',{'b':2},3],'wait_ms':0}");
    lease(&h);
    bytes_t step = next(&h);
    is(&h, step, "kind", "tool");
    is(&h, step, "tool", "brain_store");
    is(&h, step, "index", "1");
    is(&h, step, "args.id", "n-0");
    is(&h, step, "args.x", "a");
    is(&h, step, "replay", "keyed");
    const char *effect = get(&h, step, "effect_id");
    bad(&h, "step_start", leased(&h, ",'step':0,'index':2"), ERR_STATE, "no such effect");
    item(&h, "step_start", 0, "");
    step = item(&h, "step_done", 0, ",'outcome':'ok','result':{'id':'n0'}");
    is(&h, step, "args.x.b", "2");
    ck_assert_str_ne(get(&h, step, "effect_id"), effect);
    bytes_t run = run_of(&h, id);
    is(&h, run, "steps.0.total", "3");
    is(&h, run, "steps.0.finished", "1");
    is(&h, run, "steps.0.items.0.state", "completed");
    is(&h, run, "steps.0.items.1.state", "running");
    client_reply_t seen = ask(&h, "run_get", arena_printf(h.arena, "{'id':'%s'}", id));
    ck_assert_ptr_nonnull(strstr(seen.text, "Step 1 running: All (1 of 3 items are over)"));
    bad(&h, "step_done", leased(&h, ",'step':0,'index':1,'outcome':'ok'"), ERR_STATE, "item 0");
    /* The agent dies: what is done stays, and the same item comes again. */
    stop(&h);
    start(&h, NULL);
    lease(&h);
    is(&h, next(&h), "effect_id", get(&h, step, "effect_id"));
    item(&h, "step_start", 1, "");
    lease(&h); /* the worker dies: keyed is done again, with its id */
    is(&h, next(&h), "effect_id", get(&h, step, "effect_id"));
    item(&h, "step_start", 1, "");
    step = item(&h, "step_done", 1, ",'outcome':'ok','result':2");
    is(&h, step, "args.x", "3");
    item(&h, "step_start", 2, "");
    is(&h, item(&h, "step_done", 2, ",'outcome':'ok'"), "action", "done");
    run = run_of(&h, id);
    is(&h, run, "state", "completed");
    is(&h, run, "result", "[{\"id\":\"n0\"},2,null]");
    is(&h, run, "calls", "3");
    has(&h, run, "steps.0.input", "\"items\":3");
    const char *log = file_text(&h, "sop_logs.ndjson");
    ck_assert_ptr_nonnull(strstr(log, "\"step\":\"all[0]\",\"status\":\"success\""));
    ck_assert_ptr_nonnull(strstr(log, "\"step\":\"all\",\"status\":\"success\""));
    close_house(&h);
}
END_TEST

START_TEST(lists_of_all_kinds)
{
    static const struct {
        const char *list, *input, *want;
    } rows[] = {
        {"{{input}}", "[]", "[]"},
        {"[]", "{}", "[]"},
        {"{{input.none | default([])}}", "{}", "[]"},
        {"{{input.t | lines}}", "{'t':'a b\\n\\n c\\r\\n'}", "[\"a b\",\" c\"]"},
        {"{{input.t}}", "{'t':'[1,{\\\"a\\\":2}]'}", "[1,{\"a\":2}]"},
        {"[\"x\", \"{{input.t}}\"]", "{'t':[7]}", "[\"x\",[7]]"},
    };
    house_t h;
    open_house(&h, NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        put_file(&h, "l",
                 arena_printf(h.arena,
                              "# L\n1. a\n   ```each\n   %s\n   tool: x\n   v: "
                              "{{item}}\n   ```\n",
                              rows[i].list));
        const char *id = execute(
            &h, arena_printf(h.arena, "{'name':'l','input':%s,'wait_ms':0}", rows[i].input));
        lease(&h);
        bytes_t step = next(&h);
        buf_t seen;
        buf_open(&seen, h.arena);
        for (int at = 0; !strcmp(get(&h, step, "action"), "perform"); at++) {
            bytes_t value;
            ck_assert(mp_get(step, "args", &value) && mp_get(value, "v", &value));
            item(&h, "step_start", at, "");
            const char *json = get(&h, step, "args.v");
            mp_type_t type;
            ck_assert(mp_type_of(value, &type));
            if (type == MP_STR)
                json = arena_printf(h.arena, "'%s'", json);
            step = item(&h, "step_done", at,
                        arena_printf(h.arena, ",'outcome':'ok','result':%s", json));
        }
        is(&h, run_of(&h, id), "result", rows[i].want);
    }
    put_file(&h, "l", "# L\n1. a\n   ```each\n   {{input.t}}\n   tool: x\n   ```\n");
    execute(&h, "{'name':'l','input':{'t':'a\\nb'},'wait_ms':0}");
    lease(&h);
    has(&h, next(&h), "why",
        "the list is a text, not a list (the lines of a text: {{... | lines}}");
    close_house(&h);
}
END_TEST

START_TEST(a_list_has_a_limit)
{
    house_t h;
    open_house(&h, "agent.each_items=2");
    put_file(&h, "each", each_tool);
    execute(&h, "{'name':'each','input':[1,2,3],'wait_ms':0}");
    lease(&h);
    has(&h, next(&h), "why", "the list has 3 items and agent.each_items allows 2");
    close_house(&h);
}
END_TEST

static bytes_t break_item(house_t *h, int at, bool retryable)
{
    item(h, "step_start", at, "");
    return item(h, "step_done", at,
                retryable ? ",'outcome':'error','error':'away','retryable':true"
                          : ",'outcome':'error','error':'bad'");
}

static bytes_t finish_item(house_t *h, int at)
{
    item(h, "step_start", at, "");
    return item(h, "step_done", at, ",'outcome':'ok','result':'fine'");
}

START_TEST(the_first_failure_ends_it)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "each", each_tool);
    const char *id = execute(&h, "{'name':'each','input':['a','b','c'],'wait_ms':0}");
    lease(&h);
    next(&h);
    finish_item(&h, 0);
    bytes_t step = break_item(&h, 1, false);
    is(&h, step, "action", "done");
    has(&h, step, "why", "step 1 (all): item [1]: bad");
    bytes_t run = run_of(&h, id);
    is(&h, run, "steps.0.items.1.error", "bad");
    const char *effect = get(&h, run, "steps.0.items.1.effect_id");
    /* Once more: what is done stays done. */
    good(&h, "run_retry_from", arena_printf(h.arena, "{'id':'%s','step':'all'}", id));
    lease(&h);
    step = next(&h);
    is(&h, step, "args.x", "b");
    ck_assert_str_ne(get(&h, step, "effect_id"), effect);
    finish_item(&h, 1);
    is(&h, finish_item(&h, 2), "action", "done");
    is(&h, run_of(&h, id), "result", "[\"fine\",\"fine\",\"fine\"]");
    /* When it is completed, all of it is done again. */
    close_house(&h);
}
END_TEST

START_TEST(or_it_goes_on_behind_failures)
{
    house_t h;
    open_house(&h, "agent.step_retry_ms=1");
    put_file(&h, "each",
             "# Each\n1. **All**\n   ```each on_error=continue\n   {{input}}\n   tool: x\n   ```\n"
             "2. **Then**\n   ```sh\n   echo {{steps.all.result[0].error}}\n   ```\n");
    const char *id = execute(&h, "{'name':'each','input':['a','b'],'wait_ms':0}");
    lease(&h);
    next(&h);
    is(&h, break_item(&h, 0, false), "index", "2");
    /* An error that may pass is tried again, with another id. */
    const char *effect = get(&h, run_of(&h, id), "steps.0.items.1.effect_id");
    is(&h, break_item(&h, 1, true), "action", "wait");
    is(&h, run_of(&h, id), "state", "waiting_timer");
    lease(&h);
    ck_assert_str_ne(get(&h, next(&h), "effect_id"), effect);
    bytes_t step = finish_item(&h, 1);
    is(&h, step, "env.0.value", "bad");
    is(&h, run_of(&h, id), "steps.0.result", "[{\"error\":\"bad\"},\"fine\"]");
    is(&h, run_of(&h, id), "calls", "4"); /* with the script */
    close_house(&h);
}
END_TEST

START_TEST(an_item_of_which_nobody_knows)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "each",
             "# E\n1. **All**\n   ```each replay=manual\n   [1, 2, 3]\n   tool: x\n"
             "   ```\n");
    const char *id = execute(&h, "{'name':'each','wait_ms':0}");
    lease(&h);
    next(&h);
    finish_item(&h, 0);
    item(&h, "step_start", 1, "");
    lease(&h); /* the worker is lost */
    is(&h, next(&h), "action", "wait");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "input_required");
    is(&h, run, "steps.0.state", "unknown");
    is(&h, run, "steps.0.items.1.state", "unknown");
    good(&h, "step_complete", arena_printf(h.arena, "{'id':'%s','result':'seen'}", id));
    lease(&h);
    is(&h, next(&h), "index", "3");
    item(&h, "step_start", 2, "");
    lease(&h);
    next(&h);
    /* It did not happen: only that one is done again. */
    good(&h, "run_retry_from", arena_printf(h.arena, "{'id':'%s','step':'all'}", id));
    lease(&h);
    is(&h, next(&h), "index", "3");
    is(&h, finish_item(&h, 2), "action", "done");
    is(&h, run_of(&h, id), "result", "[\"fine\",\"seen\",\"fine\"]");
    close_house(&h);
}
END_TEST

START_TEST(budgets_count_items)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "each",
             "---\nmax_calls: 2\n---\n# E\n1. **All**\n   ```each\n   [1, 2, 3]\n   "
             "tool: x\n   ```\n");
    execute(&h, "{'name':'each','wait_ms':0}");
    lease(&h);
    next(&h);
    finish_item(&h, 0);
    has(&h, finish_item(&h, 1), "why", "max_calls: 2 is used up");
    close_house(&h);
}
END_TEST

/* ---- each of a procedure ---- */

static const char each_run[] = "# Each\n1. **All**\n   ```each parallel=2%s\n   {{input}}\n"
                               "   sop: inner {{item}}\n   ```\n";

START_TEST(runs_side_by_side)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "inner", inner);
    put_file(&h, "each", arena_printf(h.arena, each_run, ""));
    const char *id = execute(&h, "{'name':'each','input':['a','b','c','d'],'wait_ms':0}");
    is(&h, carry_on(&h, "{}"), "action", "wait");
    ck_assert_int_eq(tasks_of(&h, id), 2);
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "waiting_child");
    has(&h, run, "why", "waits for 2 runs of 'inner' (0 of 4 items are over)");
    const char *first = get(&h, run, "steps.0.items.0.child");
    /* The second ends first: the third begins. */
    lease(&h);
    ck_assert_str_eq(h.id, first);
    next(&h);
    good(&h, "step_start", leased(&h, ",'step':0"));
    carry_on(&h, "'b'");
    stop(&h);
    start(&h, NULL);
    lease(&h);
    ck_assert_str_eq(h.id, id);
    next(&h);
    ck_assert_int_eq(tasks_of(&h, id), 3);
    has(&h, run_of(&h, id), "why", "(1 of 4 items are over)");
    is(&h, run_of(&h, id), "steps.0.items.1.words", "b");
    carry_all(&h, id);
    is(&h, run_of(&h, first), "state", "input_required"); /* its worker was lost with it */
    is(&h, run_of(&h, id), "state", "waiting_child");
    has(&h, run_of(&h, id), "why", "needs a person");
    good(&h, "step_complete", arena_printf(h.arena, "{'id':'%s','result':'a'}", first));
    carry_all(&h, id);
    run = run_of(&h, id);
    is(&h, run, "state", "completed");
    is(&h, run, "result", "[\"a\",\"b\",\"c\",\"d\"]");
    is(&h, run, "calls", "4");
    ck_assert_int_eq(tasks_of(&h, id), 4);
    close_house(&h);
}
END_TEST

START_TEST(a_failing_run_stops_the_others)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "inner", inner);
    put_file(&h, "each", arena_printf(h.arena, each_run, ""));
    const char *id = execute(&h, "{'name':'each','input':['a','b','c'],'wait_ms':0}");
    carry_on(&h, "{}");
    const char *other = get(&h, run_of(&h, id), "steps.0.items.1.child");
    lease(&h);
    next(&h);
    begin(&h, 0);
    broken(&h, 0, "no", false);
    lease(&h);
    has(&h, next(&h), "why", "step 1 (all): item [0]: the run ");
    is(&h, run_of(&h, other), "state", "cancelled");
    is(&h, run_of(&h, id), "state", "failed");
    good(&h, "run_retry_from", arena_printf(h.arena, "{'id':'%s','step':'all'}", id));
    carry_all(&h, id);
    is(&h, run_of(&h, id), "result", "[\"a\",\"b\",\"c\"]");
    close_house(&h);
}
END_TEST

static bytes_t of_acme(house_t *h, const char *method, const char *args)
{
    return good(h, method, arena_printf(h->arena, "{'company':'acme',%s}", args));
}

static const char *lease_acme(house_t *h)
{
    bytes_t body = of_acme(h, "task_lease", "'worker':'w','n':1,'wait_ms':10000");
    h->id = get(h, body, "tasks.0.id");
    ck_assert(*h->id);
    return arena_printf(h->arena, "'id':'%s','fence':%s", h->id, get(h, body, "tasks.0.fence"));
}

/* The outer run is held until its time is up: what it began ends with it, in its company. */
START_TEST(a_run_that_takes_too_long_stops_its_runs)
{
    house_t h;
    open_house(&h, NULL);
    of_acme(&h, "sop_create",
            "'name':'slow','content':'# S\\n1. x\\n   ```sh\\n   true\\n   ```\\n'");
    of_acme(&h, "sop_create",
            "'name':'top','content':'---\\nmax_wall: 1s\\n---\\n# T\\n1. **All**\\n   ```each "
            "parallel=2\\n   [1, 2]\\n   sop: slow\\n   ```\\n'");
    const char *id = get(&h, of_acme(&h, "sop_execute", "'name':'top','wait_ms':0"), "id");
    is(&h, of_acme(&h, "run_next", lease_acme(&h)), "action", "wait");
    const char *first = lease_acme(&h);
    of_acme(&h, "run_next", first);
    of_acme(&h, "step_start", arena_printf(h.arena, "%s,'step':0", first));
    of_acme(&h, "step_done", arena_printf(h.arena, "%s,'step':0,'outcome':'ok'", first));
    lease_acme(&h);
    ck_assert_str_eq(h.id, id);
    bytes_t run = of_acme(&h, "run_wait", arena_printf(h.arena, "'id':'%s','wait_ms':15000", id));
    is(&h, run, "state", "failed");
    has(&h, run, "error", "longer than its timeout_ms");
    const char *other = get(&h, run, "steps.0.items.1.child");
    run = of_acme(&h, "run_get", arena_printf(h.arena, "'id':'%s'", other));
    is(&h, run, "state", "cancelled");
    close_house(&h);
}
END_TEST

START_TEST(failing_runs_may_be_results)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "inner", inner);
    put_file(&h, "each", arena_printf(h.arena, each_run, " on_error=continue"));
    const char *id = execute(&h, "{'name':'each','input':[{'x':1},'b'],'wait_ms':0}");
    carry_on(&h, "{}");
    ck_assert_int_eq(tasks_of(&h, id), 1); /* the input of the other is none */
    lease(&h);
    next(&h);
    begin(&h, 0);
    broken(&h, 0, "no", false);
    carry_on(&h, "{}");
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "completed");
    has(&h, run, "result.0.error", "the input 'folder' is missing");
    has(&h, run, "result.1.error", "(inner): step 1 (look): no");
    close_house(&h);
}
END_TEST

/* ---- simulated ---------------------------------------------------------------------------- */

START_TEST(a_simulation_goes_inside)
{
    house_t h;
    open_house(&h, NULL);
    put_file(&h, "look",
             "# Look\n1. **Q**\n   ```tool\n   brain_query\n   query: {{input.q}}\n"
             "   ```\n");
    put_file(&h, "change", "# Change\n1. **Do**\n   ```sh\n   rm {{input.q}}\n   ```\n");
    put_file(&h, "top",
             "# Top\n1. **A**\n   ```sop\n   look\n   q: 1\n   ```\n2. **B**\n"
             "   ```sop\n   change\n   q: {{steps.a.result.text}}\n   ```\n"
             "3. **C**\n   ```each\n   [5, 6]\n   sop: change\n   q: {{item}}\n   ```\n"
             "4. **D**\n   ```each\n   [7, 8]\n   tool: far/away\n   q: {{item}}\n   ```\n"
             "5. **E**\n   ```sh\n   echo {{steps.b.result}}\n   ```\n");
    const char *id = execute(&h, "{'name':'top','simulate':true,'wait_ms':0}");
    carry_on(&h, "{}");
    lease(&h);
    next(&h);
    good(&h, "step_start", leased(&h, ",'step':0,'reads':true"));
    done(&h, 0, "{'text':'/t'}");
    carry_all(&h, id);
    bytes_t run = run_of(&h, id);
    is(&h, run, "state", "completed");
    is(&h, run, "steps.0.state", "completed");
    is(&h, run, "steps.1.state", "refused");
    is(&h, run, "steps.2.state", "refused");
    is(&h, run, "steps.3.state", "refused");
    is(&h, run, "steps.4.state", "refused");
    is(&h, run, "refused.0.name", "b/do");
    is(&h, run, "refused.0.kind", "sh");
    has(&h, run, "refused.0.args", "/t");
    is(&h, run, "refused.1.name", "c/do");
    is(&h, run, "refused.2.name", "c/do");
    is(&h, run, "refused.3.name", "d");
    is(&h, run, "refused.3.args.q", "7");
    is(&h, run, "refused.5.name", "e");
    is(&h, run, "refused.6", "");
    is(&h, run, "calls", "1");
    bytes_t below = run_of(&h, get(&h, run, "steps.1.child"));
    is(&h, below, "simulated", "true");
    ck_assert_int_eq(atomic_load(&told.experiences), 0);
    close_house(&h);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("runs inside");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, a_procedure_runs_inside_another);
    tcase_add_test(all, a_crash_anywhere_leaves_one_child);
    tcase_add_test(all, what_fails_inside_fails_outside);
    tcase_add_test(all, a_run_takes_its_children_along);
    tcase_add_test(all, budgets_hold_inside);
    tcase_add_test(all, a_procedure_is_not_inside_itself);
    tcase_add_test(all, depth_has_a_limit);
    tcase_add_test(all, what_cannot_run_inside_is_told);
    tcase_add_test(all, a_person_is_needed_inside);
    tcase_add_test(all, the_version_is_that_of_the_beginning);
    tcase_add_test(all, a_tool_for_each_item);
    tcase_add_test(all, lists_of_all_kinds);
    tcase_add_test(all, a_list_has_a_limit);
    tcase_add_test(all, the_first_failure_ends_it);
    tcase_add_test(all, or_it_goes_on_behind_failures);
    tcase_add_test(all, an_item_of_which_nobody_knows);
    tcase_add_test(all, budgets_count_items);
    tcase_add_test(all, runs_side_by_side);
    tcase_add_test(all, a_failing_run_stops_the_others);
    tcase_add_test(all, a_run_that_takes_too_long_stops_its_runs);
    tcase_add_test(all, failing_runs_may_be_results);
    tcase_add_test(all, a_simulation_goes_inside);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
