/* The blocking client: answers in any order, deadlines, peers that are not there or come back. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/actor.h"
#include "house.h"
#include "proto/mp.h"

#define echo_ARGS(F)                                                                               \
    F(INT, number, must, 0, 0, "A number.")                                                        \
    F(INT, delay, opt(0), 0, 0, "ms to wait.")
#define echo_REPLY(F) F(INT, number, must, 0, 0, "The same.")
#define shout_ARGS(F) F(STR, word, must, 1, 64, "What.")
#define shout_REPLY(F) F(BOOL, said, must, 0, 0, "Done.")
typedef struct wall {
    int unused;
} wall_t;
#define WALL_METHODS(M)                                                                            \
    M(wall_t, echo, READS | PARKS | ANY_COMPANY, "Says it again.")                                 \
    M(wall_t, shout, READS | PARKS | ANY_COMPANY, "Tells everybody.")
METHODS(wall_methods, WALL_METHODS)

#define shouted_FIELDS(F) F(STR, word, must, 0, 0, "What.")
RECORD(shouted, shouted_FIELDS)

static err_t echoed(void *self, call_t *call, void *reply, void *ctx)
{
    (void)self, (void)call;
    *(echo_reply_t *)reply =
        (echo_reply_t){.number = ((const echo_args_t *)ctx)->number, .has_number = true};
    return err_ok();
}

static err_t echo(wall_t *self, call_t *call, const echo_args_t *args, echo_reply_t *reply)
{
    if (!args->delay)
        return echoed(self, call, reply, (void *)args);
    call_resume_after(call, args->delay, echoed, (void *)args);
    return call_park(call);
}

static err_t shout(wall_t *self, call_t *call, const shout_args_t *args, shout_reply_t *reply)
{
    (void)self;
    shouted_t event = {.word = args->word};
    call_publish(call, "shouted", &shouted_record, &event);
    reply->said = reply->has_said = true;
    return err_ok();
}

static const actor_def_t wall = {
    .name = "wall", .doc = "Echoes.", .size = sizeof(wall_t), .methods = wall_methods};

static uint64_t send_echo(house_t *house, int number, int delay)
{
    client_call_t call = {
        .peer = "wall",
        .method = "echo",
        .timeout_ms = 10000,
        .args = house_pack(house->arena,
                           arena_printf(house->arena, "{'number':%d,'delay':%d}", number, delay))};
    return client_send(house->client, &call);
}

START_TEST(answers_in_any_order)
{
    enum { COUNT = 50 };
    house_t house;
    uint64_t ids[COUNT], id;
    int64_t seen = 0;
    house_open(&house, (transport_t)_i);
    house_start(&house, &wall);
    for (int i = 0; i < COUNT; i++)
        ids[i] = send_echo(&house, i, (COUNT - i) * 2);
    for (int i = 0; i < COUNT; i++) {
        client_reply_t reply = client_wait(house.client, house.arena, 10000, &id);
        bytes_t value;
        int64_t number;
        ck_assert(id && !err_is(reply.err) && mp_get(reply.body, "number", &value));
        ck_assert(mp_int(value, &number));
        ck_assert_uint_eq(ids[number], id);
        seen += number;
    }
    ck_assert_int_eq(seen, COUNT * (COUNT - 1) / 2);
    client_wait(house.client, house.arena, 0, &id);
    ck_assert_uint_eq(id, 0);
    house_close(&house);
}
END_TEST

START_TEST(deadlines)
{
    house_t house;
    house_open(&house, (transport_t)_i);
    client_call_t call = {.peer = "wall", .method = "echo", .timeout_ms = 50};
    ck_assert_str_eq(house_call_as(&house, call, "{'number':1}"), "ERR UNAVAILABLE");
    ck_assert_ptr_nonnull(strstr(house.text, "wall"));
    house_start(&house, &wall);
    /* An inproc door that was not there when the client knocked is another one now. */
    client_close(&house.client);
    house.client = house_client(&house);
    ck_assert_str_eq(house_call(&house, "wall", "echo", "{'number':1}"), "{'number':1}");
    ck_assert_str_eq(house_call_as(&house, call, "{'number':1,'delay':5000}"), "ERR TIMEOUT");
    ck_assert_str_eq(house_call(&house, "wall", "echo", "{'number':2}"), "{'number':2}");
    house_close(&house);
}
END_TEST

/* Over ipc a call waits for a peer that is still to come, and is sent again after a restart. */
START_TEST(a_peer_that_comes_late)
{
    house_t house;
    uint64_t id;
    house_open(&house, TRANSPORT_IPC);
    send_echo(&house, 7, 0);
    client_reply_t reply = client_wait(house.client, house.arena, 50, &id);
    ck_assert_uint_eq(id, 0);
    house_start(&house, &wall);
    reply = client_wait(house.client, house.arena, 10000, &id);
    ck_assert_str_eq(house_reply_text(house.arena, reply), "{'number':7}");
    send_echo(&house, 8, 300);
    client_wait(house.client, house.arena, 20, &id);
    ck_assert_uint_eq(id, 0);
    host_close(&house.host, 0); /* the agency dies under the client */
    client_t *survivor = house.client;
    house_up(&house);
    client_close(&house.client);
    house.client = survivor;
    house_start(&house, &wall);
    reply = client_wait(house.client, house.arena, 10000, &id);
    const char *text = house_reply_text(house.arena, reply);
    ck_assert_msg(!strcmp(text, "{'number':8}") || !strcmp(text, "ERR DRAINING"), "%s", text);
    house_close(&house);
}
END_TEST

START_TEST(no_directory_no_client)
{
    arena_t *arena = arena_new();
    client_t *client;
    err_t err = client_open("/no/such/run/dir", arena, &client);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
    ck_assert_ptr_null(client);
    arena_destroy(&arena);
}
END_TEST

typedef struct tap {
    house_t *house;
    err_t err;
    char word[64];
} tap_t;

static bool on_event(void *ctx, const char *topic, const header_t *header, bytes_t body)
{
    tap_t *tap = ctx;
    bytes_t word;
    arena_t *arena = arena_new();
    if (!strcmp(topic, "shouted") && header->seq > 0 && mp_get(body, "word", &word))
        snprintf(tap->word, sizeof(tap->word), "%s", mp_text(arena, word));
    arena_destroy(&arena);
    return false;
}

static void *tap_main(void *ctx)
{
    tap_t *tap = ctx;
    client_t *client = house_client(tap->house);
    tap->err = client_tap(client, "wall", "shout", 10000, on_event, tap);
    client_close(&client);
    return NULL;
}

START_TEST(events_are_tapped)
{
    house_t house;
    pthread_t thread;
    house_open(&house, (transport_t)_i);
    house_start(&house, &wall);
    tap_t tap = {.house = &house};
    ck_assert(!pthread_create(&thread, NULL, tap_main, &tap));
    int64_t end = mono_ms() + 10000;
    while (pthread_tryjoin_np(thread, NULL)) { /* until the subscription has arrived */
        ck_assert_int_lt(mono_ms(), end);
        house_call(&house, "wall", "shout", "{'word':'fire'}");
    }
    ck_assert(!err_is(tap.err));
    ck_assert_str_eq(tap.word, "fire");
    ck_assert_int_eq(client_tap(house.client, "wall", "silence", 30, on_event, &tap).code,
                     ERR_TIMEOUT);
    house_close(&house);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client");
    TCase *all = tcase_create("over inproc and ipc");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, answers_in_any_order, 0, 2);
    tcase_add_loop_test(all, deadlines, 0, 2);
    tcase_add_test(all, a_peer_that_comes_late);
    tcase_add_test(all, no_directory_no_client);
    tcase_add_loop_test(all, events_are_tapped, 0, 2);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
