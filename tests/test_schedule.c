/* Schedules: each due time gives one task, also across restarts and in a simulation where the agent
 * dies at any moment. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "bus/sim.h"
#include "house.h"
#include "proto/mp.h"

extern const actor_def_t agent_actor;

static house_t house;

static void open_house(const char *const *settings)
{
    house_open(&house, TRANSPORT_INPROC);
    house.settings = settings;
    house_down(&house);
    house_up(&house);
    house_start(&house, &agent_actor);
}

static const char *ask(const char *method, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static const char *ask(const char *method, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *json = arena_vprintf(house.arena, format, args);
    va_end(args);
    return house_call(&house, "agent", method, json);
}

static void has(const char *answer, const char *part)
{
    ck_assert_msg(strstr(answer, part) != NULL, "%s is not in %s (%s)", part, answer, house.text);
}

static int count_of(const char *text, const char *part)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

/* Nothing of the agency runs meanwhile: the time itself is what is waited for. */
static void let_pass(int64_t ms)
{
    uint64_t times;
    struct itimerspec when = {.it_value = {ms / 1000, ms % 1000 * 1000000 + 1}};
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    ck_assert_int_eq(timerfd_settime(fd, 0, &when, NULL), 0);
    ck_assert_int_eq(read(fd, &times, sizeof(times)), sizeof(times));
    close(fd);
}

START_TEST(bad_schedules_are_refused)
{
    static const struct {
        const char *args, *part;
    } bad[] = {
        {"{'id':'a','task':{'kind':'x'}}", "cron or every_ms"},
        {"{'id':'a','cron':'@daily','every_ms':1000,'task':{'kind':'x'}}", "cron or every_ms"},
        {"{'id':'a b','cron':'@daily','task':{'kind':'x'}}", "letters"},
        {"{'id':'a','cron':'61 * * * *','task':{'kind':'x'}}", "minute '61'"},
        {"{'id':'a','cron':'@daily','timezone':'Mars/Base','task':{'kind':'x'}}", "Mars/Base"},
        {"{'id':'a','cron':'@daily','task':{}}", "kind"},
        {"{'id':'a','cron':'@daily','task':{'kind':'sop'}}", "task.sop"},
        {"{'id':'a','cron':'@daily','task':{'sop':'nope'}}", "no procedure 'nope'"},
        {"{'id':'a','every_ms':1,'task':{'kind':'x'}}", "every_ms"},
        {"{'id':'a','cron':'@daily','task':{'kind':'x'},'catch_up':'some'}", "catch_up"},
    };
    open_house(NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        has(ask("schedule_add", "%s", bad[i].args), "ERR");
        ck_assert_msg(strstr(house.text, bad[i].part) != NULL, "%s: %s", bad[i].args, house.text);
    }
    has(ask("schedule_list", "{}"), "'schedules':[]");
    has(ask("schedule_remove", "{'id':'a'}"), "ERR NOT_FOUND");
    house_close(&house);
}
END_TEST

START_TEST(added_listed_replaced_removed)
{
    open_house(NULL);
    const char *args = "{'id':'d','cron':'0 9 * * *','timezone':'Europe/Berlin','task':{'kind':'x',"
                       "'input':{'n':1}}%s}";
    has(ask("schedule_add", args, ""), "'created':true");
    house_restart(&house, &agent_actor);
    has(ask("schedule_add", args, ""), "'created':false"); /* the same again */
    has(ask("schedule_add", args, ",'catch_up':'none'"), "ERR EXISTS");
    has(ask("schedule_add", args, ",'catch_up':'none','replace':true"), "'catch_up':'none'");
    const char *list = ask("schedule_list", "{}");
    has(list, "'next_ms':");
    ck_assert_int_eq(count_of(list, "'id':"), 1);
    has(ask("schedule_list", "{'company':'other'}"), "'schedules':[]");
    has(ask("schedule_remove", "{'id':'d'}"), "'id':'d'");
    has(ask("schedule_list", "{}"), "'schedules':[]");
    house_close(&house);
}
END_TEST

START_TEST(a_due_time_gives_a_task)
{
    open_house(NULL);
    ask("schedule_add", "{'id':'tick','every_ms':1000,'task':{'kind':'beat','input':{'n':7}}}");
    const char *held = ask("task_lease", "{'worker':'w','wait_ms':5000,'company':'default'}");
    has(held, "'kind':'beat'");
    has(held, "'input':{'n':7}");
    has(held, "'idempotency_key':'schedule:tick:");
    has(ask("schedule_list", "{}"), "'submitted':1");
    house_restart(&house, &agent_actor);
    has(ask("task_lease", "{'worker':'w','wait_ms':5000,'company':'default'}"), "'kind':'beat'");
    house_close(&house);
}
END_TEST

START_TEST(a_procedure_by_schedule)
{
    open_house(NULL);
    ask("sop_create", "{'name':'job','content':'# Job\\n\\n1. **Do** it.\\n'}");
    has(ask("schedule_add", "{'id':'s','every_ms':1000,'task':{'sop':'job'}}"), "'created':true");
    const char *held = ask("task_lease", "{'worker':'w','wait_ms':5000,'company':'default'}");
    has(held, "'kind':'sop'");
    const char *id = strstr(held, "'id':'") + 6;
    has(ask("run_get", "{'id':'%.*s'}", (int)strcspn(id, "'"), id), "'sop':'job'");
    house_close(&house);
}
END_TEST

START_TEST(what_passed_unseen)
{
    static const char *const settings[] = {"agent.schedule_grace_ms=0", "agent.catch_up_most=2",
                                           NULL};
    open_house(settings);
    /* An hour is too far away for a first one: these three are due each second. */
    ask("queue_pause", "{}");
    for (int i = 0; i < 3; i++) {
        static const char *const ways[] = {"none", "last", "all"};
        has(ask("schedule_add", "{'id':'%s','every_ms':2000,'task':{'kind':'%s'},'catch_up':'%s'}",
                ways[i], ways[i], ways[i]),
            "'created':true");
    }
    house_down(&house);
    let_pass(7000); /* three due times of each */
    house_up(&house);
    house_start(&house, &agent_actor);
    const char *list = "";
    for (int64_t end = mono_ms() + 10000; mono_ms() < end && count_of(list, "'last_ms'") < 2;)
        list = ask("schedule_list", "{}");
    const char *tasks = ask("task_list", "{}");
    ck_assert_int_eq(count_of(tasks, "'kind':'none'"), 0);
    ck_assert_int_eq(count_of(tasks, "'kind':'last'"), 1);
    ck_assert_int_eq(count_of(tasks, "'kind':'all'"), 2);
    has(ask("schedule_list", "{'id':'none'}"), "'missed':3");
    has(ask("schedule_list", "{'id':'last'}"), "'missed':2");
    has(ask("schedule_list", "{'id':'all'}"), "'missed':1");
    house_close(&house);
}
END_TEST

#ifdef AGENCY_FAULTS
/* ---- An hour in simulation, with an agent that dies again and again ---- */

enum { EVERY_MS = 60000, HOUR_MS = 3600000 };

typedef struct seen {
    bool added, looked;
    int64_t times[200];
    int count;
} seen_t;

static seen_t seen;

typedef struct desk {
    int unused;
} desk_t;

static err_t add(void *self, call_t *call, void *ctx);

static err_t on_added(void *self, call_t *call, void *reply, const peer_answer_t *answer, void *ctx)
{
    (void)self, (void)reply, (void)ctx;
    if (answer->progress)
        return call_park(call);
    seen.added = !err_is(answer->err);
    if (!seen.added)
        call_work(call, 1000, add, NULL);
    return err_ok();
}

static void to_agent(call_t *call, const char *method, const char *json, answer_fn_t *fn)
{
    peer_call_t request = {.peer = "agent",
                           .method = method,
                           .args = house_pack(call_arena(call), json),
                           .company = "acme",
                           .timeout_ms = 60000};
    call_peer(call, &request, fn, NULL);
}

static err_t add(void *self, call_t *call, void *ctx)
{
    (void)self, (void)ctx;
    to_agent(call, "schedule_add",
             "{'id':'beat','every_ms':60000,'catch_up':'all','task':{'kind':'beat'}}", on_added);
    return call_park(call);
}

static err_t look(void *self, call_t *call, void *ctx);

static err_t on_looked(void *self, call_t *call, void *reply, const peer_answer_t *answer,
                       void *ctx)
{
    bytes_t tasks, task, key;
    (void)self, (void)reply, (void)ctx;
    if (answer->progress)
        return call_park(call);
    if (err_is(answer->err)) {
        call_work(call, 1000, look, NULL);
        return err_ok();
    }
    ck_assert(mp_get(answer->body, "tasks", &tasks));
    for (uint32_t i = 0; mp_at(tasks, i, &task) && seen.count < 200; i++) {
        ck_assert(mp_get(task, "idempotency_key", &key));
        const char *text = mp_text(call_arena(call), key);
        ck_assert_msg(!strncmp(text, "schedule:beat:", 14), "%s", text);
        seen.times[seen.count++] = atoll(text + 14);
    }
    seen.looked = true;
    return err_ok();
}

static err_t look(void *self, call_t *call, void *ctx)
{
    (void)self, (void)ctx;
    to_agent(call, "task_list", "{'limit':1000}", on_looked);
    return call_park(call);
}

static err_t desk_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 0, add, NULL);
    return err_ok();
}

static err_t looker_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 0, look, NULL);
    return err_ok();
}

static const actor_def_t desk_actor = {
    .name = "desk", .doc = "Adds.", .size = sizeof(desk_t), .open = desk_open};
static const actor_def_t looker_actor = {
    .name = "looker", .doc = "Looks.", .size = sizeof(desk_t), .open = looker_open};

static bool was_added(void *ctx)
{
    (void)ctx;
    return seen.added;
}

static bool was_looked(void *ctx)
{
    (void)ctx;
    return seen.looked;
}

START_TEST(each_due_time_once_whatever_dies)
{
    char dir[64];
    arena_t *arena = arena_new();
    scratch_make(dir);
    seen = (seen_t){0};
    sim_options_t options = {.seed = (uint64_t)_i + 1, .dir = dir, .faults = true};
    sim_t *sim = sim_new(&options);
    ck_assert(!err_is(sim_add(sim, &agent_actor, "agent", true, NULL, arena)));
    ck_assert(!err_is(sim_add(sim, &desk_actor, "desk", false, NULL, arena)));
    ck_assert(sim_run(sim, sim_now_ms(sim) + HOUR_MS, was_added, NULL));
    int64_t began = sim_now_ms(sim);
    for (int i = 1; i <= 6; i++) { /* by chance alone too little dies in an idle hour */
        sim_run(sim, began + i * HOUR_MS / 7 - 1, NULL, NULL);
        sim_kill(sim, "agent");
    }
    sim_run(sim, began + HOUR_MS, NULL, NULL);
    sim_calm(sim);
    sim_run(sim, began + HOUR_MS + 30000, NULL, NULL);
    ck_assert(!err_is(sim_add(sim, &looker_actor, "looker", false, NULL, arena)));
    ck_assert(sim_run(sim, sim_now_ms(sim) + HOUR_MS, was_looked, NULL));
    ck_assert_int_ge(sim_deaths(sim), 6);
    ck_assert_int_ge(seen.count, HOUR_MS / EVERY_MS - 1);
    for (int i = 1; i < seen.count; i++) /* newest first: none is twice, none is missing */
        ck_assert_int_eq(seen.times[i - 1] - seen.times[i], EVERY_MS);
    sim_destroy(&sim);
    scratch_remove(dir);
    arena_destroy(&arena);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("schedule");
    TCase *tcase = tcase_create("schedule");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, bad_schedules_are_refused);
    tcase_add_test(tcase, added_listed_replaced_removed);
    tcase_add_test(tcase, a_due_time_gives_a_task);
    tcase_add_test(tcase, a_procedure_by_schedule);
    tcase_add_test(tcase, what_passed_unseen);
#ifdef AGENCY_FAULTS
    tcase_add_loop_test(tcase, each_due_time_once_whatever_dies, 0, 20);
#endif
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
