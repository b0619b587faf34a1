/* The conformance suite of the seam tasks.h: what every queue behind it must do, seen through the
 * methods of the agent, with restarts in between. Over inproc and over ipc.
 *
 * ctest timeout: 300 */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "house.h"
#include "proto/mp.h"

extern const actor_def_t agent_actor;

enum { MANY_COMPANIES = SLOW_BUILD ? 300 : 5000, PATIENCE_MS = 20000 };

static const transport_t transports[] = {TRANSPORT_INPROC, TRANSPORT_IPC};
enum { TRANSPORTS = 2 };

static house_t house;

static void open_house(int transport, const char *const *settings)
{
    house_open(&house, transports[transport]);
    house.settings = settings;
    house_down(&house);
    house_up(&house);
    house_start(&house, &agent_actor);
}

static void restart(void)
{
    house_restart(&house, &agent_actor);
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

/* The text of a field of an answer: 'name':'text' or 'name':number. */
static const char *field(const char *answer, const char *name)
{
    const char *at = strstr(answer, arena_printf(house.arena, "'%s':", name));
    ck_assert_msg(at, "no %s in %s", name, answer);
    at += strlen(name) + 3;
    size_t size = *at == '\'' ? strcspn(at + 1, "'") : strcspn(at, ",}]");
    return arena_strndup(house.arena, *at == '\'' ? at + 1 : at, size);
}

static void has(const char *answer, const char *part)
{
    ck_assert_msg(strstr(answer, part) != NULL, "%s is not in %s", part, answer);
}

static void refused(const char *answer, const char *error)
{
    ck_assert_str_eq(answer, arena_printf(house.arena, "ERR %s", error));
}

static const char *submit(const char *rest)
{
    return field(ask("task_submit", "{'kind':'chore'%s}", rest), "id");
}

typedef struct held {
    const char *id, *fence;
} held_t;

/* Leases one task, waiting for it as long as that takes. */
static held_t take(const char *worker)
{
    const char *answer =
        ask("task_lease", "{'worker':'%s','wait_ms':%d,'company':'default'}", worker, PATIENCE_MS);
    return (held_t){field(answer, "id"), field(answer, "fence")};
}

static const char *with(const char *method, held_t held, const char *rest)
{
    return ask(method, "{'id':'%s','fence':%s%s}", held.id, held.fence, rest);
}

static const char *state_of(const char *id)
{
    return field(ask("task_get", "{'id':'%s'}", id), "state");
}

static int nothing_left(void)
{
    return !strcmp(field(ask("task_lease", "{'worker':'w'}"), "tasks"), "[");
}

/* ---- From submission to the end ---- */

START_TEST(a_task_from_end_to_end)
{
    open_house(_i, NULL);
    const char *id = submit(",'input':{'n':7}");
    has(ask("task_get", "{'id':'%s'}", id), "'state':'ready'");
    restart();
    held_t held = take("w1");
    ck_assert_str_eq(held.id, id);
    has(ask("task_get", "{'id':'%s'}", id), "'worker':'w1'");
    has(with("task_complete", held, ",'result':{'sum':9}"), "'state':'completed'");
    for (int life = 0; life < 2; life++) {
        const char *task = ask("task_get", "{'id':'%s'}", id);
        has(task, "'state':'completed'");
        has(task, "'input':{'n':7}");
        has(task, "'result':{'sum':9}");
        has(task, "'finished_ms':");
        ck_assert(nothing_left());
        restart();
    }
    house_close(&house);
}
END_TEST

START_TEST(order_is_by_time_and_priority)
{
    static const char *const settings[] = {"agent.aging_ms=60000", NULL};
    open_house(_i, settings);
    const char *first = submit(""), *second = submit(""), *urgent = submit(",'priority':9"),
               *idle = submit(",'priority':0");
    const char *wanted[] = {urgent, first, second, idle};
    for (int i = 0; i < 4; i++)
        ck_assert_str_eq(take("w").id, wanted[i]);
    house_close(&house);
}
END_TEST

START_TEST(a_delay_is_kept)
{
    open_house(_i, NULL);
    int64_t began = mono_ms();
    const char *id = submit(",'delay_ms':300");
    ck_assert_str_eq(state_of(id), "scheduled");
    ck_assert(nothing_left());
    restart(); /* the timer is not in memory only */
    ck_assert_str_eq(take("w").id, id);
    ck_assert_int_ge(mono_ms() - began, 300);
    refused(ask("task_submit", "{'kind':'a','delay_ms':1,'run_at':'2030-01-01'}"), "ARGUMENT");
    house_close(&house);
}
END_TEST

START_TEST(a_key_gives_the_first_task)
{
    open_house(_i, NULL);
    const char *id = submit(",'idempotency_key':'k'");
    restart();
    const char *again = ask("task_submit", "{'kind':'other','idempotency_key':'k'}");
    ck_assert_str_eq(field(again, "id"), id);
    has(again, "'existed':true");
    with("task_complete", take("w"), "");
    has(ask("task_submit", "{'kind':'chore','idempotency_key':'k'}"), "'existed':true");
    has(ask("task_submit", "{'kind':'chore','idempotency_key':'k','company':'other'}"),
        "'existed':false");
    house_close(&house);
}
END_TEST

START_TEST(all_of_a_batch_or_nothing)
{
    open_house(_i, NULL);
    refused(ask("task_submit_batch", "{'tasks':[{'kind':'a'},{'kind':'sop'}]}"), "ARGUMENT");
    ck_assert(nothing_left());
    has(ask("task_submit_batch", "{'tasks':[{'kind':'a'},{'kind':'b'}]}"), "'ids':['");
    held_t a = take("w"), b = take("w");
    refused(ask("task_complete_batch", "{'tasks':[{'id':'%s','fence':%s},{'id':'%s','fence':%s1}]}",
                a.id, a.fence, b.id, b.fence),
            "FENCED");
    ck_assert_str_eq(state_of(a.id), "leased");
    ask("task_complete_batch", "{'tasks':[{'id':'%s','fence':%s},{'id':'%s','fence':%s}]}", a.id,
        a.fence, b.id, b.fence);
    ck_assert_str_eq(state_of(a.id), "completed");
    ck_assert_str_eq(state_of(b.id), "completed");
    house_close(&house);
}
END_TEST

START_TEST(complete_and_lease_in_one_message)
{
    open_house(_i, NULL);
    submit("");
    const char *second = submit("");
    const char *answer = with("task_complete", take("w"), ",'next':1,'worker':'w'");
    ck_assert_str_eq(field(answer, "id"), second);
    refused(with("task_complete", (held_t){second, field(answer, "fence")}, ",'next':1"),
            "ARGUMENT"); /* for whom? */
    ck_assert_str_eq(state_of(second), "leased");
    house_close(&house);
}
END_TEST

/* ---- Leases and fences ---- */

START_TEST(a_lost_lease_goes_to_the_next)
{
    static const char *const settings[] = {"agent.lease_ms=1000", NULL};
    open_house(_i, settings);
    submit("");
    held_t late = take("late"), next = take("next");
    ck_assert_str_eq(late.id, next.id);
    ck_assert_int_gt(atoll(next.fence), atoll(late.fence));
    refused(with("task_complete", late, ""), "FENCED");
    refused(with("task_extend", late, ""), "FENCED");
    refused(with("task_fail", late, ",'error':'x'"), "FENCED");
    refused(with("task_release", late, ""), "FENCED");
    const char *task = ask("task_get", "{'id':'%s'}", next.id);
    has(task, "'crashes':1");
    has(task, "'attempts':0"); /* no failure of the task */
    has(with("task_complete", next, ""), "'state':'completed'");
    refused(with("task_complete", next, ""), "FENCED");
    house_close(&house);
}
END_TEST

START_TEST(a_restart_forgets_leases_and_raises_fences)
{
    open_house(_i, NULL);
    submit("");
    held_t before = take("w");
    restart();
    refused(with("task_complete", before, ""), "FENCED");
    held_t after = take("w");
    ck_assert_str_eq(after.id, before.id);
    ck_assert_int_gt(atoll(after.fence), atoll(before.fence));
    has(with("task_complete", after, ""), "completed");
    house_close(&house);
}
END_TEST

START_TEST(a_sign_of_life_keeps_the_lease)
{
    static const char *const settings[] = {"agent.lease_ms=1000", NULL};
    open_house(_i, settings);
    const char *id = submit("");
    held_t held = take("w");
    int64_t end = mono_ms() + 1500;
    while (mono_ms() < end) { /* the other one asks all the time and gets nothing */
        with("task_progress", held, ",'progress':{'done':3}");
        has(ask("task_lease", "{'worker':'other','wait_ms':100}"), "'tasks':[]");
    }
    has(ask("task_get", "{'id':'%s'}", id), "'progress':{'done':3}");
    has(with("task_complete", held, ""), "completed");
    house_close(&house);
}
END_TEST

START_TEST(an_attempt_ends_with_its_time)
{
    static const char *const settings[] = {"agent.lease_ms=30000", "agent.backoff_ms=1", NULL};
    open_house(_i, settings);
    const char *id = submit(",'timeout_ms':200,'max_attempts':2");
    held_t held = take("w");
    with("task_extend", held, ""); /* does not help */
    held_t again = take("w");
    ck_assert_str_eq(again.id, id);
    refused(with("task_complete", held, ""), "FENCED");
    const char *task = ask("task_get", "{'id':'%s'}", id);
    has(task, "'attempts':1");
    has(task, "timeout_ms of 200");
    house_close(&house);
}
END_TEST

START_TEST(a_poison_task_is_buried)
{
    static const char *const settings[] = {"agent.lease_ms=1000", "agent.max_crashes=1", NULL};
    open_house(_i, settings);
    const char *id = submit("");
    take("w");
    const char *other = submit(",'delay_ms':1500"); /* an event to wait for */
    ck_assert_str_eq(take("w").id, other);
    ck_assert_str_eq(state_of(id), "buried");
    has(ask("task_why", "{'id':'%s'}", id), "was lost 1 times");
    has(ask("task_kick", "{'id':'%s'}", id), "'state':'ready'");
    ck_assert_str_eq(take("w").id, id);
    house_close(&house);
}
END_TEST

START_TEST(a_released_task_is_as_before)
{
    open_house(_i, NULL);
    const char *id = submit("");
    has(with("task_release", take("a"), ""), "ready");
    held_t held = take("b");
    ck_assert_str_eq(held.id, id);
    const char *task = ask("task_get", "{'id':'%s'}", id);
    has(task, "'crashes':0");
    has(task, "'attempts':0");
    house_close(&house);
}
END_TEST

/* ---- Failures ---- */

START_TEST(failures_are_tried_again)
{
    static const char *const settings[] = {"agent.backoff_ms=1", "agent.backoff_limit_ms=10", NULL};
    open_house(_i, settings);
    const char *id = submit(",'max_attempts':3");
    for (int i = 0; i < 2; i++) {
        has(with("task_fail", take("w"), ",'error':'no luck'"), "scheduled");
        has(ask("task_get", "{'id':'%s'}", id), "'error':'no luck'");
        restart();
    }
    has(with("task_fail", take("w"), ",'error':'enough'"), "'state':'failed'");
    const char *task = ask("task_get", "{'id':'%s'}", id);
    has(task, "'attempts':3");
    has(task, "'error':'enough'");
    has(ask("task_retry", "{'id':'%s'}", id), "'attempts':0");
    ck_assert_str_eq(take("w").id, id);
    house_close(&house);
}
END_TEST

START_TEST(some_failures_are_final)
{
    open_house(_i, NULL);
    submit("");
    has(with("task_fail", take("w"), ",'error':'no','retryable':false"), "'state':'failed'");
    house_close(&house);
}
END_TEST

START_TEST(a_wish_to_wait_is_honoured)
{
    static const char *const settings[] = {"agent.backoff_ms=1", "agent.backoff_limit_ms=1", NULL};
    open_house(_i, settings);
    submit("");
    held_t held = take("w");
    int64_t began = mono_ms();
    with("task_fail", held, ",'error':'busy','retry_after_ms':400");
    take("w");
    ck_assert_int_ge(mono_ms() - began, 400);
    house_close(&house);
}
END_TEST

/* ---- By hand ---- */

START_TEST(cancel_from_every_state)
{
    open_house(_i, NULL);
    const char *ready = submit(""), *later = submit(",'delay_ms':600000");
    has(ask("task_cancel", "{'id':'%s','why':'no need'}", ready), "'state':'cancelled'");
    has(ask("task_get", "{'id':'%s'}", ready), "no need");
    has(ask("task_cancel", "{'id':'%s'}", later), "'state':'cancelled'");
    const char *id = submit("");
    held_t held = take("w");
    ck_assert_str_eq(held.id, id);
    has(ask("task_cancel", "{'id':'%s'}", id), "'state':'cancelled'");
    refused(with("task_complete", held, ""), "FENCED");
    refused(ask("task_cancel", "{'id':'%s'}", id), "STATE");
    restart();
    ck_assert_str_eq(state_of(id), "cancelled");
    ck_assert(nothing_left());
    house_close(&house);
}
END_TEST

START_TEST(bury_and_kick)
{
    open_house(_i, NULL);
    const char *id = submit("");
    has(ask("task_bury", "{'id':'%s'}", id), "'state':'buried'");
    ck_assert(nothing_left());
    restart();
    has(ask("task_kick", "{'id':'%s'}", id), "'state':'ready'");
    ck_assert_str_eq(take("w").id, id);
    house_close(&house);
}
END_TEST

START_TEST(a_pause_holds_and_a_resume_wakes)
{
    open_house(_i, NULL);
    const char *id = submit("");
    ask("queue_pause", "{}");
    ck_assert(nothing_left());
    has(ask("scale", "{}"), "'queue_length':0");
    restart();
    ck_assert(nothing_left());
    ask("queue_resume", "{}");
    ck_assert_str_eq(take("w").id, id);
    house_close(&house);
}
END_TEST

/* ---- Who gets what ---- */

START_TEST(kinds_and_labels)
{
    open_house(_i, NULL);
    const char *gpu = submit(",'labels':['gpu','big']");
    const char *mail = field(ask("task_submit", "{'kind':'mail'}"), "id");
    const char *answer = ask("task_lease", "{'worker':'w','kinds':['mail','x']}");
    ck_assert_str_eq(field(answer, "id"), mail);
    has(ask("task_lease", "{'worker':'w','labels':['gpu']}"), "'tasks':[]");
    has(ask("task_lease", "{'worker':'w','kinds':['mail']}"), "'tasks':[]");
    answer = ask("task_lease", "{'worker':'w','labels':['big','x','gpu']}");
    ck_assert_str_eq(field(answer, "id"), gpu);
    house_close(&house);
}
END_TEST

START_TEST(companies_take_turns)
{
    open_house(_i, NULL);
    for (int i = 0; i < 10; i++)
        ask("task_submit", "{'kind':'a','company':'large'}");
    ask("task_submit", "{'kind':'a','company':'small'}");
    const char *answer = ask("task_lease", "{'worker':'w','n':3}");
    has(answer, "'company':'large'");
    has(answer, "'company':'small'");
    has(ask("task_lease", "{'worker':'w','n':3,'company':'small'}"), "'tasks':[]");
    const char *id = field(ask("task_submit", "{'kind':'a','company':'small'}"), "id");
    refused(ask("task_get", "{'id':'%s%s','company':'third'}", id, ""), "NOT_FOUND");
    house_close(&house);
}
END_TEST

typedef struct waiter {
    int64_t wait_ms;
    client_t *client;
    const char *answer;
    arena_t *arena;
} waiter_t;

static void *wait_for_work(void *arg)
{
    waiter_t *waiter = arg;
    buf_t args;
    buf_open(&args, waiter->arena);
    mp_put_map(&args, 2);
    mp_put_str(&args, "worker");
    mp_put_str(&args, "w");
    mp_put_str(&args, "wait_ms");
    mp_put_int(&args, waiter->wait_ms);
    client_call_t call = {.peer = "agent",
                          .method = "task_lease",
                          .args = buf_bytes(&args),
                          .role = ROLE_ADMIN,
                          .timeout_ms = PATIENCE_MS};
    do
        waiter->answer =
            house_reply_text(waiter->arena, client_call(waiter->client, waiter->arena, &call));
    while (!strcmp(waiter->answer, "ERR BUSY"));
    return NULL;
}

START_TEST(a_waiting_worker_is_woken)
{
    open_house(_i, NULL);
    waiter_t waiter = {PATIENCE_MS, house_client(&house), NULL, arena_new()};
    pthread_t thread;
    int64_t began = mono_ms(), end = began + PATIENCE_MS;
    pthread_create(&thread, NULL, wait_for_work, &waiter);
    while (strcmp(field(ask("agent.stats", "{}"), "inbox"), "2") != 0 && mono_ms() < end) {
    }
    const char *id = submit("");
    pthread_join(thread, NULL);
    ck_assert_str_eq(field(waiter.answer, "id"), id);
    ck_assert_int_lt(mono_ms() - began, PATIENCE_MS);
    client_close(&waiter.client);
    arena_destroy(&waiter.arena);
    house_close(&house);
}
END_TEST

START_TEST(a_quota_is_kept)
{
    static const char *const settings[] = {"agent.max_waiting=2", NULL};
    open_house(_i, settings);
    submit("");
    submit(",'delay_ms':600000");
    refused(ask("task_submit", "{'kind':'a'}"), "QUOTA");
    has(house.text, "agent.max_waiting");
    has(ask("task_submit", "{'kind':'a','company':'other'}"), "'id'");
    with("task_complete", take("w"), "");
    submit("");
    house_close(&house);
}
END_TEST

/* ---- Looking ---- */

START_TEST(demand_is_exact)
{
    static const char *const settings[] = {"agent.due_soon_ms=60000", NULL};
    open_house(_i, settings);
    for (int i = 0; i < 3; i++)
        submit("");
    submit(",'delay_ms':50000");
    submit(",'delay_ms':500000");
    const char *cancelled = submit(",'delay_ms':40000");
    ask("task_submit", "{'kind':'a','company':'other'}");
    take("w");
    ask("task_cancel", "{'id':'%s'}", cancelled);
    const char *scale = ask("scale", "{}");
    has(scale, "'queue_length':5"); /* 3, 1 due soon, 1 of the other company */
    has(scale, "'ready':3");
    has(scale, "'leased':1");
    has(scale, "'due_soon':1");
    has(scale, "'desired_replicas':1");
    const char *mine = ask("queue_stats", "{}");
    has(mine, "'ready':2");
    has(mine, "'delayed':2");
    restart();
    scale = ask("scale", "{}");
    has(scale, "'queue_length':5");
    has(scale, "'ready':4");
    has(scale, "'due_soon':1");
    for (int i = 0; i < 4; i++)
        ask("task_lease", "{'worker':'w'}");
    has(ask("scale", "{}"), "'oldest_ready_age_seconds':0");
    house_close(&house);
}
END_TEST

START_TEST(the_oldest_is_known)
{
    open_house(_i, NULL);
    submit("");
    submit(",'delay_ms':300");
    held_t first = take("w"), second = take("w"); /* 300 ms later */
    with("task_release", first, "");
    double age = atof(field(ask("scale", "{}"), "oldest_ready_age_seconds"));
    ck_assert_double_ge(age, 0.29);
    with("task_complete", second, "");
    restart();
    age = atof(field(ask("scale", "{}"), "oldest_ready_age_seconds"));
    ck_assert_double_ge(age, 0.29);
    with("task_complete", take("w"), "");
    ck_assert_double_eq(atof(field(ask("scale", "{}"), "oldest_ready_age_seconds")), 0);
    house_close(&house);
}
END_TEST

START_TEST(a_change_of_demand_is_heard)
{
    open_house(_i, NULL);
    int64_t began = mono_ms();
    has(ask("scale", "{'unlike':0,'wait_ms':300}"), "'queue_length':0");
    ck_assert_int_ge(mono_ms() - began, 300);
    has(ask("scale", "{'unlike':7,'wait_ms':20000}"), "'queue_length':0");
    submit(",'delay_ms':200"); /* due soon counts, and becoming ready changes nothing */
    has(ask("scale", "{'unlike':0,'wait_ms':20000}"), "'queue_length':1");
    has(ask("scale", "{'unlike':1,'wait_ms':400}"), "'ready':1");
    client_t *other = house_client(&house);
    client_call_t wait = {.peer = "agent",
                          .method = "scale",
                          .args = house_pack(house.arena, "{'unlike':1,'wait_ms':20000}"),
                          .role = ROLE_ADMIN,
                          .timeout_ms = PATIENCE_MS};
    uint64_t id;
    client_send(other, &wait);
    submit("");
    client_reply_t reply = client_wait(other, house.arena, PATIENCE_MS, &id);
    has(house_reply_text(house.arena, reply), "'queue_length':2");
    client_close(&other);
    ck_assert_int_lt(mono_ms() - began, PATIENCE_MS);
    house_close(&house);
}
END_TEST

START_TEST(lists_have_pages)
{
    open_house(_i, NULL);
    const char *ids[7];
    for (int i = 0; i < 7; i++)
        ids[i] = submit("");
    ask("task_cancel", "{'id':'%s'}", ids[3]);
    const char *cursor = "";
    int seen = 0;
    for (int pages = 0; pages < 10; pages++) {
        const char *page = ask("task_list", "{'limit':3,'state':'ready'%s}", cursor);
        for (const char *at = page; (at = strstr(at, "'id':'")); at++)
            seen++;
        if (!strstr(page, "'cursor':'"))
            break;
        cursor = arena_printf(house.arena, ",'cursor':'%s'", field(page, "cursor"));
    }
    ck_assert_int_eq(seen, 6);
    has(ask("task_list", "{'kind':'none'}"), "'tasks':[]");
    has(ask("task_list", "{'company':'nobody'}"), "'tasks':[]");
    refused(ask("task_list", "{'cursor':'zzz'}"), "ARGUMENT");
    house_close(&house);
}
END_TEST

START_TEST(every_state_says_why)
{
    open_house(_i, NULL);
    const char *id = submit(",'labels':['gpu']");
    has(ask("task_why", "{'id':'%s'}", id), "waits for a worker that offers its labels");
    ask("task_lease", "{'worker':'anna','labels':['gpu']}");
    has(ask("task_why", "{'id':'%s'}", id), "anna works on it");
    has(ask("task_why", "{'id':'%s'}", submit(",'delay_ms':600000")), "it waits until 2");
    house_close(&house);
}
END_TEST

START_TEST(old_tasks_are_forgotten)
{
    static const char *const settings[] = {"agent.retention_ms=1000", "agent.forget_every_ms=100",
                                           NULL};
    open_house(_i, settings);
    const char *stays = submit(",'delay_ms':600000"); /* older than those that go */
    const char *id = submit(",'idempotency_key':'k'");
    with("task_complete", take("w"), ",'result':1");
    const char *last = submit("");
    int64_t end = mono_ms() + PATIENCE_MS;
    while (strcmp(ask("task_get", "{'id':'%s'}", id), "ERR NOT_FOUND") != 0)
        ck_assert_int_lt(mono_ms(), end);
    ck_assert_str_eq(state_of(stays), "scheduled");
    ck_assert_str_eq(state_of(last), "ready");
    has(ask("task_submit", "{'kind':'a','idempotency_key':'k'}"), "'existed':false");
    house_close(&house);
}
END_TEST

/* ---- Wrong input ---- */

START_TEST(wrong_input_is_named)
{
    open_house(_i, NULL);
    static const char *const wrong[][3] = {
        {"task_submit", "{}", "kind"},
        {"task_submit", "{'kind':''}", "kind"},
        {"task_submit", "{'kind':'a','priority':10}", "priority"},
        {"task_submit", "{'kind':'a','prority':1}", "priority"},
        {"task_submit", "{'kind':'sop'}", "sop_execute"},
        {"task_submit", "{'kind':'a','max_attempts':0}", "max_attempts"},
        {"task_submit", "{'kind':'a','labels':'x'}", "labels"},
        {"task_lease", "{'worker':'w','n':0}", "n"},
        {"task_lease", "{}", "worker"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        refused(ask(wrong[i][0], "%s", wrong[i][1]), "ARGUMENT");
        has(house.text, wrong[i][2]);
    }
    /* An id with a quote too. */
    static const char *const ids[] = {"t", "x", "t00\\u0027", "../t1", "t9999999999999999999"};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        refused(ask("task_get", "{'id':'%s'}", ids[i]), "NOT_FOUND");
    refused(ask("task_get", "{'id':'t1','company':'../x'}"), "COMPANY");
    refused(ask("task_get", "{'id':'t1','company':''}"), "COMPANY");
    ck_assert(nothing_left());
    house_close(&house);
}
END_TEST

START_TEST(a_full_inbox_is_busy)
{
    static const char *const settings[] = {"limits.inbox=1", NULL};
    open_house(_i, settings);
    waiter_t waiter = {2000, house_client(&house), NULL, arena_new()};
    pthread_t thread;
    int64_t end = mono_ms() + PATIENCE_MS;
    pthread_create(&thread, NULL, wait_for_work, &waiter);
    while (strcmp(ask("agent.stats", "{}"), "ERR BUSY") != 0)
        ck_assert_int_lt(mono_ms(), end);
    has(house.text, "try again");
    pthread_join(thread, NULL);
    has(waiter.answer, "'tasks':[]"); /* who was there first is served */
    submit("");
    client_close(&waiter.client);
    arena_destroy(&waiter.arena);
    house_close(&house);
}
END_TEST

/* ---- Very many companies ---- */

static long resident_mib(void)
{
    long kib = 0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) && sscanf(line, "VmRSS: %ld", &kib) != 1) {
    }
    fclose(file);
    return kib / 1024;
}

START_TEST(five_thousand_companies)
{
    open_house(0, NULL);
    long before = resident_mib();
    arena_t *arena = house.arena;
    house.arena = arena_new();
    for (int i = 0; i < MANY_COMPANIES; i++) {
        ask("task_submit", "{'kind':'a','company':'c%d','delay_ms':%d}", i, i % 2);
        ck_assert_msg(!err_is(house.err), "c%d: %s", i, house.text);
        arena_reset(house.arena);
    }
    for (int life = 0; life < 2; life++) {
        int64_t end = mono_ms() + PATIENCE_MS;
        while (atol(field(ask("scale", "{}"), "ready")) != MANY_COMPANIES)
            ck_assert_int_lt(mono_ms(), end); /* the delayed are moved, or all are read again */
        has(ask("task_list", "{'company':'c%d'}", MANY_COMPANIES - 1), "'kind':'a'");
        if (!life)
            restart();
    }
    has(ask("task_lease", "{'worker':'w','n':256}"), "'company':'c");
    if (!SLOW_BUILD)
        ck_assert_int_lt(resident_mib() - before, 150);
    arena_destroy(&house.arena);
    house.arena = arena;
    house_close(&house);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tasks");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
#define EACH(test) tcase_add_loop_test(all, test, 0, TRANSPORTS)
    EACH(a_task_from_end_to_end);
    EACH(order_is_by_time_and_priority);
    EACH(a_delay_is_kept);
    EACH(a_key_gives_the_first_task);
    EACH(all_of_a_batch_or_nothing);
    EACH(complete_and_lease_in_one_message);
    EACH(a_lost_lease_goes_to_the_next);
    EACH(a_restart_forgets_leases_and_raises_fences);
    EACH(a_sign_of_life_keeps_the_lease);
    EACH(an_attempt_ends_with_its_time);
    EACH(a_poison_task_is_buried);
    EACH(a_released_task_is_as_before);
    EACH(failures_are_tried_again);
    EACH(some_failures_are_final);
    EACH(a_wish_to_wait_is_honoured);
    EACH(cancel_from_every_state);
    EACH(bury_and_kick);
    EACH(a_pause_holds_and_a_resume_wakes);
    EACH(kinds_and_labels);
    EACH(companies_take_turns);
    EACH(a_waiting_worker_is_woken);
    EACH(a_quota_is_kept);
    EACH(demand_is_exact);
    EACH(the_oldest_is_known);
    EACH(a_change_of_demand_is_heard);
    EACH(lists_have_pages);
    EACH(every_state_says_why);
    EACH(old_tasks_are_forgotten);
    EACH(wrong_input_is_named);
    EACH(a_full_inbox_is_busy);
    tcase_add_test(all, five_thousand_companies);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
