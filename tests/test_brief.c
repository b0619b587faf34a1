/* Brief calls: on the thread of the caller while the callee sleeps, and never in anybody's way. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "house.h"
#include "proto/mp.h"

/* ---- Who is called ---- */

typedef struct clerk {
    int unused;
} clerk_t;

static atomic_int entered, may_go;
static char long_text[600000];

#define WHERE_REPLY(F)                                                                             \
    F(INT, thread, must, 0, 0, "Where it ran.")                                                    \
    F(STR, text, must, 0, 0, "What came.")
#define clerk_brief_ARGS(F)                                                                        \
    F(STR, text, opt(), 0, 0, "What comes back.")                                                  \
    F(INT, ms, opt(0), 0, 1000, "How long it takes.")                                              \
    F(STR, fails, opt(), 0, 0, "With what words.")
#define clerk_brief_REPLY WHERE_REPLY
#define clerk_plain_ARGS(F)
#define clerk_plain_REPLY WHERE_REPLY
#define clerk_hold_ARGS(F)
#define clerk_hold_REPLY WHERE_REPLY
#define clerk_chain_ARGS(F)
#define clerk_chain_REPLY WHERE_REPLY
#define clerk_late_ARGS(F)
#define clerk_late_REPLY WHERE_REPLY
#define CLERK_METHODS(M)                                                                           \
    M(clerk_t, clerk_brief, READS | BRIEF | ANY_COMPANY, "Says where it ran.")                     \
    M(clerk_t, clerk_plain, READS | ANY_COMPANY, "The same on its own thread.")                    \
    M(clerk_t, clerk_hold, READS | ANY_COMPANY, "Keeps its thread until it may go.")               \
    M(clerk_t, clerk_chain, READS | BRIEF | ANY_COMPANY, "Starts what its own thread must do.")    \
    M(clerk_t, clerk_late, READS | BRIEF | ANY_COMPANY, "Answers later, against its row.")
METHODS(clerk_methods, CLERK_METHODS)

static int64_t here(void)
{
    return syscall(SYS_gettid);
}

static err_t clerk_brief(clerk_t *self, call_t *call, const clerk_brief_args_t *args,
                         clerk_brief_reply_t *reply)
{
    int64_t until = mono_ms() + args->ms;
    (void)self;
    if (args->fails)
        return err_make(call_arena(call), ERR_ARGUMENT, "%s", args->fails);
    while (args->ms && mono_ms() <= until) {
    }
    reply->thread = here();
    reply->text = args->text ? args->text : call_principal(call);
    return err_ok();
}

static err_t clerk_plain(clerk_t *self, call_t *call, const clerk_plain_args_t *args,
                         clerk_plain_reply_t *reply)
{
    (void)self;
    (void)call;
    (void)args;
    reply->thread = here();
    reply->text = "";
    return err_ok();
}

static err_t clerk_hold(clerk_t *self, call_t *call, const clerk_hold_args_t *args,
                        clerk_hold_reply_t *reply)
{
    atomic_store(&entered, 1);
    while (!atomic_load(&may_go)) {
    }
    return clerk_plain(self, call, (const clerk_plain_args_t *)args, (clerk_plain_reply_t *)reply);
}

static atomic_long worked_on;

static err_t work(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)call;
    (void)ctx;
    atomic_store(&worked_on, here());
    return err_ok();
}

static err_t clerk_chain(clerk_t *self, call_t *call, const clerk_chain_args_t *args,
                         clerk_chain_reply_t *reply)
{
    call_work(call, 1, work, NULL);
    return clerk_plain(self, call, (const clerk_plain_args_t *)args, (clerk_plain_reply_t *)reply);
}

static err_t later(void *self, call_t *call, void *reply, void *ctx)
{
    (void)ctx;
    return clerk_plain(self, call, NULL, reply);
}

static err_t clerk_late(clerk_t *self, call_t *call, const clerk_late_args_t *args,
                        clerk_late_reply_t *reply)
{
    (void)self;
    (void)args;
    (void)reply;
    call_resume_after(call, 1, later, NULL);
    return call_park(call);
}

static const actor_def_t clerk_actor = {
    .name = "clerk", .doc = "", .size = sizeof(clerk_t), .methods = clerk_methods};

/* ---- Who calls ---- */

typedef struct boss {
    int unused;
} boss_t;

#define boss_ask_ARGS(F)                                                                           \
    F(STR, method, must, 0, 0, "Which of the clerk's.")                                            \
    F(STR, text, opt(), 0, 0, "For the clerk.")                                                    \
    F(INT, ms, opt(0), 0, 1000, "For the clerk.")                                                  \
    F(STR, fails, opt(), 0, 0, "For the clerk.")                                                   \
    F(INT, times, opt(1), 1, 100000, "How often.")
#define boss_ask_REPLY(F)                                                                          \
    F(INT, own, must, 0, 0, "The boss's thread.")                                                  \
    F(INT, thread, opt(), 0, 0, "The clerk's.")                                                    \
    F(INT, size, opt(), 0, 0, "Of its text.")                                                      \
    F(INT, here, must, 0, 0, "How many ran on the boss's thread.")
#define BOSS_METHODS(M) M(boss_t, boss_ask, READS | PARKS | ANY_COMPANY, "Asks the clerk.")
METHODS(boss_methods, BOSS_METHODS)

typedef struct asking {
    peer_call_t request;
    int64_t left;
} asking_t;

static err_t on_answer(void *self, call_t *call, void *out, const peer_answer_t *got, void *ctx)
{
    boss_ask_reply_t *reply = out;
    asking_t *asking = ctx;
    bytes_t field;
    (void)self;
    if (err_is(got->err))
        return err_make(call_arena(call), got->err.code, "%s", err_what(got->err));
    reply->own = here();
    ck_assert(mp_get(got->body, "thread", &field) && mp_int(field, &reply->thread));
    reply->has_thread = reply->has_size = true;
    mp_type_t type;
    ck_assert(mp_get(got->body, "text", &field) && mp_type_of(field, &type));
    reply->size = (int64_t)field.size;
    reply->here += reply->thread == reply->own;
    if (!--asking->left)
        return err_ok();
    call_peer(call, &asking->request, on_answer, asking);
    return call_park(call);
}

#define order_FIELDS(F)                                                                            \
    F(STR, text, opt(), 0, 0, "For the clerk.")                                                    \
    F(INT, ms, opt(), 0, 1000, "For the clerk.")                                                   \
    F(STR, fails, opt(), 0, 0, "For the clerk.")
RECORD(order, order_FIELDS)

static err_t boss_ask(boss_t *self, call_t *call, const boss_ask_args_t *args,
                      boss_ask_reply_t *reply)
{
    asking_t *asking = ARENA_NEW(call_arena(call), asking_t);
    order_t order = {
        .text = args->text, .ms = args->ms, .has_ms = args->ms > 0, .fails = args->fails};
    (void)self;
    (void)reply;
    if (args->text && !strcmp(args->text, "long"))
        order.text = long_text;
    asking->left = args->times;
    asking->request = (peer_call_t){
        .peer = "clerk", .method = args->method, .args = call_encode(call, &order_record, &order)};
    call_peer(call, &asking->request, on_answer, asking);
    return call_park(call);
}

static const actor_def_t boss_actor = {
    .name = "boss", .doc = "", .size = sizeof(boss_t), .methods = boss_methods};

/* ---- Tests ---- */

static house_t house;

static void setup(void)
{
    memset(long_text, 'x', sizeof(long_text) - 1);
    atomic_store(&entered, 0);
    atomic_store(&may_go, 0);
    house_open(&house, TRANSPORT_INPROC);
    house_start(&house, &clerk_actor);
    house_start(&house, &boss_actor);
}

static void teardown(void)
{
    house_close(&house);
}

typedef struct said {
    long own, thread, size, here;
} said_t;

static said_t ask(const char *json)
{
    said_t said = {0};
    const char *text = house_call(&house, "boss", "boss_ask", json);
    ck_assert_msg(sscanf(text, "{'own':%ld,'thread':%ld,'size':%ld,'here':%ld", &said.own,
                         &said.thread, &said.size, &said.here) == 4,
                  "%s: %s", text, house.text);
    return said;
}

/* The clerk has gone to sleep when a brief call ran elsewhere. */
static void wait_asleep(void)
{
    int64_t until = mono_ms() + 30000;
    while (!ask("{'method':'clerk_brief'}").here)
        ck_assert_int_lt(mono_ms(), until);
}

START_TEST(a_brief_call_runs_on_the_thread_of_its_caller)
{
    wait_asleep();
    said_t said = ask("{'method':'clerk_brief','text':'hello','times':1000}");
    ck_assert_int_gt(said.here, 500); /* it may wake for reasons of its own */
    ck_assert_int_eq(said.size, 6);
    said = ask("{'method':'clerk_plain','times':10}");
    ck_assert_int_eq(said.here, 0);
    ck_assert_int_ne(said.own, said.thread);
    wait_asleep(); /* it sleeps again */
    ck_assert_int_gt(ask("{'method':'clerk_brief','text':'long'}").size,
                     (int)sizeof(long_text) - 1);
}
END_TEST

START_TEST(its_errors_are_those_of_any_call)
{
    wait_asleep();
    ck_assert_str_eq(
        house_call(&house, "boss", "boss_ask", "{'method':'clerk_brief','fails':'no such thing'}"),
        "ERR ARGUMENT");
    ck_assert_str_eq(house.text, "no such thing");
    ck_assert_str_eq(house_call(&house, "boss", "boss_ask", "{'method':'clerk_none'}"),
                     "ERR METHOD");
    wait_asleep();
}
END_TEST

/* It promised to be brief: the second one, and those after it, are the clerk's own. */
START_TEST(one_that_takes_long_is_not_run_there_again)
{
    wait_asleep();
    said_t said = ask("{'method':'clerk_brief','ms':80,'times':3}");
    ck_assert_int_eq(said.here, 1);
    said = ask("{'method':'clerk_brief','times':100}");
    ck_assert_int_eq(said.here, 0);
}
END_TEST

START_TEST(what_it_leaves_is_done_by_the_sleeper)
{
    wait_asleep();
    atomic_store(&worked_on, 0);
    said_t said = ask("{'method':'clerk_chain'}");
    int64_t until = mono_ms() + 30000;
    while (!atomic_load(&worked_on))
        ck_assert_int_lt(mono_ms(), until);
    ck_assert_int_eq(atomic_load(&worked_on), ask("{'method':'clerk_plain'}").thread);
    ck_assert_int_ne(atomic_load(&worked_on), said.own);
    said = ask("{'method':'clerk_late','times':20}"); /* the answers come by mailbox */
    ck_assert_int_eq(said.here, 0);
}
END_TEST

static void *hold(void *ctx)
{
    client_t *client = ctx;
    arena_t *arena = arena_new();
    client_call_t call = {.peer = "clerk", .method = "clerk_hold", .timeout_ms = 60000};
    ck_assert(!err_is(client_call(client, arena, &call).err));
    arena_destroy(&arena);
    return NULL;
}

static void *ask_once(void *ctx)
{
    client_t *client = ctx;
    arena_t *arena = arena_new();
    client_call_t call = {.peer = "boss",
                          .method = "boss_ask",
                          .args = house_pack(arena, "{'method':'clerk_brief'}"),
                          .timeout_ms = 60000};
    ck_assert(!err_is(client_call(client, arena, &call).err));
    arena_destroy(&arena);
    return NULL;
}

START_TEST(a_caller_never_waits_for_who_is_awake)
{
    pthread_t holder, asker;
    client_t *clients[] = {house_client(&house), house_client(&house)};
    wait_asleep();
    pthread_create(&holder, NULL, hold, clients[0]);
    int64_t until = mono_ms() + 30000;
    while (!atomic_load(&entered))
        ck_assert_int_lt(mono_ms(), until);
    pthread_create(&asker, NULL, ask_once, clients[1]);
    /* The boss goes on, whatever its call to the clerk waits for. */
    for (int i = 0; i < 100; i++)
        ck_assert_str_eq(house_call(&house, "boss", "boss.ping", "{}"),
                         house_call(&house, "boss", "boss.ping", "{}"));
    atomic_store(&may_go, 1);
    pthread_join(holder, NULL);
    pthread_join(asker, NULL);
    for (int i = 0; i < 2; i++)
        client_close(&clients[i]);
}
END_TEST

static void *ask_much(void *ctx)
{
    client_t *client = ctx;
    arena_t *arena = arena_new();
    client_call_t call = {.peer = "boss",
                          .method = "boss_ask",
                          .args = house_pack(arena, "{'method':'clerk_brief','times':3000}"),
                          .timeout_ms = 60000};
    ck_assert(!err_is(client_call(client, arena, &call).err));
    arena_destroy(&arena);
    return NULL;
}

/* Its own thread comes and goes meanwhile, and so does the clerk. */
START_TEST(the_callee_may_wake_and_end_at_any_time)
{
    pthread_t askers[3];
    client_t *clients[3];
    for (int i = 0; i < 3; i++) {
        clients[i] = house_client(&house);
        pthread_create(&askers[i], NULL, ask_much, clients[i]);
    }
    for (int i = 0; i < 200; i++)
        house_call(&house, "clerk", "clerk_plain", "{}");
    for (int i = 0; i < 5; i++)
        house_restart(&house, &clerk_actor);
    for (int i = 0; i < 3; i++) {
        pthread_join(askers[i], NULL);
        client_close(&clients[i]);
    }
    wait_asleep();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brief");
    TCase *calls = tcase_create("calls");
    tcase_add_checked_fixture(calls, setup, teardown);
    tcase_set_timeout(calls, 120);
    tcase_add_test(calls, a_brief_call_runs_on_the_thread_of_its_caller);
    tcase_add_test(calls, its_errors_are_those_of_any_call);
    tcase_add_test(calls, one_that_takes_long_is_not_run_there_again);
    tcase_add_test(calls, what_it_leaves_is_done_by_the_sleeper);
    tcase_add_test(calls, a_caller_never_waits_for_who_is_awake);
    tcase_add_test(calls, the_callee_may_wake_and_end_at_any_time);
    suite_add_tcase(suite, calls);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
