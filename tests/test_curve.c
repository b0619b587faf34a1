/* Doors between machines: who is on the list comes in, nobody else; keys change while calls go on.
 * Two hosts in two directories stand for two machines; they know each other by tcp only. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "bus/actor.h"
#include "bus/curve.h"
#include "house.h"
#include "support_tcp.h"

#define recall_ARGS(F) F(INT, number, must, 0, 0, "A number.")
#define recall_REPLY(F) F(INT, number, must, 0, 0, "The same.")
#define news_FIELDS(F) F(INT, number, must, 0, 0, "A number.")
RECORD(news, news_FIELDS)
#define shout_ARGS(F) F(INT, number, must, 0, 0, "A number.")
#define shout_REPLY(F)
typedef struct store_room {
    int unused;
} store_room_t;
#define ROOM_METHODS(M)                                                                            \
    M(store_room_t, recall, READS | ANY_COMPANY, "Says it again.")                                 \
    M(store_room_t, shout, READS | PARKS | ANY_COMPANY, "Says it to all.")
METHODS(room_methods, ROOM_METHODS)

static err_t shout(store_room_t *self, call_t *call, const shout_args_t *args, shout_reply_t *reply)
{
    (void)self, (void)reply;
    news_t news = {.number = args->number, .has_number = true};
    call_publish(call, "news.number", &news_record, &news);
    return err_ok();
}

static err_t recall(store_room_t *self, call_t *call, const recall_args_t *args,
                    recall_reply_t *reply)
{
    (void)self, (void)call;
    *reply = (recall_reply_t){.number = args->number, .has_number = true};
    return err_ok();
}

static const actor_def_t room = {
    .name = "brain", .doc = "Echoes.", .size = sizeof(store_room_t), .methods = room_methods};

#define relay_ARGS(F)                                                                              \
    F(INT, number, must, 0, 0, "A number.")                                                        \
    F(INT, wait, opt(15000), 1, 60000, "ms.")                                                      \
    F(INT, away, opt(0), 0, 60000, "ms.")
#define relay_REPLY(F) F(INT, number, must, 0, 0, "The same.")
#define heard_ARGS(F)
#define heard_REPLY(F) F(INT, number, must, 0, 0, "Of the last event; 0: none.")
typedef struct desk {
    int64_t heard;
} desk_t;
#define DESK_METHODS(M)                                                                            \
    M(desk_t, relay, READS | PARKS | ANY_COMPANY, "Asks the other machine.")                       \
    M(desk_t, heard, READS | ANY_COMPANY, "What it heard.")
METHODS(desk_methods, DESK_METHODS)

static err_t heard(desk_t *self, call_t *call, const heard_args_t *args, heard_reply_t *reply)
{
    (void)call, (void)args;
    *reply = (heard_reply_t){.number = self->heard, .has_number = true};
    return err_ok();
}

static err_t on_news(void *state, call_t *call, const char *topic, bytes_t body)
{
    desk_t *self = state;
    news_t news;
    (void)topic;
    err_t err = record_decode(&news_record, body, call_arena(call), "field", &news);
    self->heard = err_is(err) ? self->heard : news.number;
    return err;
}

static const hear_t desk_hears[] = {{"brain", "news.", on_news}, {NULL, NULL, NULL}};

static err_t relayed(void *self, call_t *call, void *reply, const peer_answer_t *answer, void *ctx)
{
    (void)self, (void)call;
    if (err_is(answer->err))
        return answer->err;
    *(relay_reply_t *)reply =
        (relay_reply_t){.number = ((const relay_args_t *)ctx)->number, .has_number = true};
    return err_ok();
}

static err_t relay(desk_t *self, call_t *call, const relay_args_t *args, relay_reply_t *reply)
{
    (void)self, (void)reply;
    recall_args_t ask = {.number = args->number, .has_number = true};
    peer_call_t request = {.peer = "brain",
                           .method = "recall",
                           .args = call_encode(call, &recall_args_record, &ask),
                           .timeout_ms = args->wait,
                           .away_ms = args->away};
    call_peer(call, &request, relayed, (void *)args);
    return call_park(call);
}

static const actor_def_t desk = {.name = "desk",
                                 .doc = "Asks.",
                                 .size = sizeof(desk_t),
                                 .methods = desk_methods,
                                 .hears = desk_hears};

/* ---- Two machines ---- */

typedef struct town {
    char dir[32]; /* keys: server/ client/ stranger/ next/, lists: allow/ servers/ */
    arena_t *arena;
    house_t server, client;
    int offset;
    const char *server_key, *client_key, *stranger_key, *next_key;
} town_t;

static const char *in_town(town_t *town, const char *name)
{
    return arena_printf(town->arena, "%s/%s", town->dir, name);
}

static const char *make_key(town_t *town, const char *name)
{
    return make_curve_key(in_town(town, name), town->arena);
}

static void town_open(town_t *town)
{
    memset(town, 0, sizeof(*town));
    town->arena = arena_new();
    scratch_make(town->dir);
    town->offset = free_tcp_offset();
    town->server_key = make_key(town, "server");
    town->client_key = make_key(town, "client");
    town->stranger_key = make_key(town, "stranger");
    town->next_key = make_key(town, "next");
    mkdir(in_town(town, "allow"), 0700);
    mkdir(in_town(town, "servers"), 0700);
    write_file(in_town(town, "allow/client.pub"), town->client_key);
    write_file(in_town(town, "servers/brain.pub"), town->server_key);
}

static void machine_open(town_t *town, house_t *house, const char **settings)
{
    *house = (house_t){.arena = arena_new(), .transport = TRANSPORT_INPROC, .text = ""};
    scratch_make(house->data);
    house->settings = settings;
    (void)town;
    house_up(house);
}

static const char **server_settings(town_t *town, const char *key)
{
    const char **list = ARENA_ARRAY(town->arena, const char *, 8);
    list[0] = "bus.listen=127.0.0.1";
    list[1] = arena_printf(town->arena, "bus.port_offset=%d", town->offset);
    list[2] = arena_printf(town->arena, "bus.curve_key=%s/%s/curve.key", town->dir, key);
    list[3] = arena_printf(town->arena, "bus.curve_allow=%s/allow", town->dir);
    return list;
}

static void start_server(town_t *town, const char *key)
{
    machine_open(town, &town->server, server_settings(town, key));
    house_start(&town->server, &room);
}

static void start_client(town_t *town, const char *key)
{
    const char **list = ARENA_ARRAY(town->arena, const char *, 8);
    list[0] = arena_printf(town->arena, "bus.brain=tcp://127.0.0.1:%d", 5502 + town->offset);
    list[1] = arena_printf(town->arena, "bus.curve_key=%s/%s/curve.key", town->dir, key);
    list[2] = arena_printf(town->arena, "bus.curve_servers=%s/servers", town->dir);
    machine_open(town, &town->client, list);
    house_start(&town->client, &desk);
}

static void town_close(town_t *town)
{
    if (town->client.host)
        house_close(&town->client);
    if (town->server.host)
        house_close(&town->server);
    scratch_remove(town->dir);
    arena_destroy(&town->arena);
}

static const char *ask(town_t *town, int number, int wait)
{
    return house_call(&town->client, "desk", "relay",
                      arena_printf(town->arena, "{'number':%d,'wait':%d}", number, wait));
}

/* ---- Tests ---- */

START_TEST(on_the_list)
{
    town_t town;
    town_open(&town);
    start_server(&town, "server");
    start_client(&town, "client");
    for (int i = 0; i < 100; i++)
        ck_assert_str_eq(ask(&town, i, 15000), arena_printf(town.arena, "{'number':%d}", i));
    town_close(&town);
}
END_TEST

START_TEST(not_on_the_list_then_on_it_then_off)
{
    town_t town;
    town_open(&town);
    start_server(&town, "server");
    start_client(&town, "stranger");
    ck_assert_str_eq(ask(&town, 1, 500), "ERR TIMEOUT");
    /* The list is read at every handshake; the client knocks again by itself. */
    write_file(in_town(&town, "allow/more.pub"), town.stranger_key);
    ck_assert_str_eq(ask(&town, 2, 15000), "{'number':2}");
    /* Taken off: the next connection is refused. */
    unlink(in_town(&town, "allow/more.pub"));
    house_close(&town.client);
    start_client(&town, "stranger");
    ck_assert_str_eq(ask(&town, 3, 500), "ERR TIMEOUT");
    town_close(&town);
}
END_TEST

START_TEST(a_server_with_another_key_is_not_talked_to)
{
    town_t town;
    town_open(&town);
    start_server(&town, "next");
    start_client(&town, "client");
    ck_assert_str_eq(ask(&town, 1, 500), "ERR TIMEOUT");
    town_close(&town);
}
END_TEST

START_TEST(no_encryption_no_entry)
{
    town_t town;
    town_open(&town);
    start_server(&town, "server");
    void *context = zmq_ctx_new(), *plain = zmq_socket(context, ZMQ_DEALER),
         *monitor = zmq_socket(context, ZMQ_PAIR);
    int none = 0, wait = 10000;
    zmq_setsockopt(plain, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(monitor, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    zmq_socket_monitor(plain, "inproc://watch",
                       ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                           ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                           ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL);
    zmq_connect(monitor, "inproc://watch");
    zmq_connect(plain, arena_printf(town.arena, "tcp://127.0.0.1:%d", 5502 + town.offset));
    uint8_t event[16];
    uint16_t number = 0;
    ck_assert_int_ge(zmq_recv(monitor, event, sizeof(event), 0), 6);
    memcpy(&number, event, sizeof(number));
    ck_assert_int_ne(number, ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    zmq_socket_monitor(plain, NULL, 0);
    zmq_close(monitor);
    zmq_close(plain);
    zmq_ctx_term(context);
    town_close(&town);
}
END_TEST

/* The server changes its key while the client, which knows both, goes on. */
START_TEST(a_new_server_key_with_overlap)
{
    town_t town;
    town_open(&town);
    write_file(in_town(&town, "servers/brain.pub"),
               arena_printf(town.arena, "%s\n# the next\n%s\n", town.server_key, town.next_key));
    start_server(&town, "server");
    start_client(&town, "client");
    ck_assert_str_eq(ask(&town, 1, 15000), "{'number':1}");
    house_close(&town.server);
    start_server(&town, "next");
    ck_assert_str_eq(ask(&town, 2, 20000), "{'number':2}");
    town_close(&town);
}
END_TEST

/* The client learned of the new key only while it ran: the file is read again. */
START_TEST(a_new_server_key_from_the_file)
{
    town_t town;
    town_open(&town);
    start_server(&town, "server");
    start_client(&town, "client");
    ck_assert_str_eq(ask(&town, 1, 15000), "{'number':1}");
    write_file(in_town(&town, "servers/brain.pub"), town.next_key);
    house_close(&town.server);
    start_server(&town, "next");
    ck_assert_str_eq(ask(&town, 2, 20000), "{'number':2}");
    town_close(&town);
}
END_TEST

/* ---- Events ---- */

/* Events are hints: one may be lost while a connection is made. Sooner or later they come. */
static void hears(house_t *from, house_t *to, int number)
{
    arena_t *arena = arena_new();
    int64_t end = mono_ms() + 20000;
    const char *wanted = arena_printf(arena, "{'number':%d}", number);
    do {
        ck_assert_int_lt(mono_ms(), end);
        ck_assert_str_eq(house_call(from, "brain", "shout", wanted), "{}");
    } while (strcmp(house_call(to, "desk", "heard", "{}"), wanted) != 0);
    arena_destroy(&arena);
}

START_TEST(events_come_and_come_back)
{
    town_t town;
    town_open(&town);
    start_server(&town, "server");
    start_client(&town, "client");
    hears(&town.server, &town.client, 1);
    house_close(&town.server); /* the other machine is started again */
    start_server(&town, "server");
    hears(&town.server, &town.client, 2);
    /* With another key, which the client learns of only now. */
    write_file(in_town(&town, "servers/brain.pub"), town.next_key);
    house_close(&town.server);
    start_server(&town, "next");
    hears(&town.server, &town.client, 3);
    town_close(&town);
}
END_TEST

START_TEST(events_after_a_refusal)
{
    town_t town;
    town_open(&town);
    start_server(&town, "server");
    start_client(&town, "stranger");
    ck_assert_str_eq(ask(&town, 1, 300), "ERR TIMEOUT");
    write_file(in_town(&town, "allow/more.pub"), town.stranger_key);
    hears(&town.server, &town.client, 1);
    town_close(&town);
}
END_TEST

START_TEST(a_subscriber_inside_finds_its_publisher_again)
{
    house_t house;
    house_open(&house, TRANSPORT_INPROC);
    house_start(&house, &room);
    house_start(&house, &desk);
    hears(&house, &house, 1);
    house_restart(&house, &room);
    hears(&house, &house, 2);
    house_close(&house);
}
END_TEST

/* ---- Keys that are taken off the list; peers that are away ---- */

START_TEST(a_key_that_is_taken_off_ends_its_connection)
{
    town_t town;
    town_open(&town);
    start_server(&town, "server");
    start_client(&town, "client");
    ck_assert_str_eq(ask(&town, 1, 15000), "{'number':1}");
    unlink(in_town(&town, "allow/client.pub"));
    int64_t end = mono_ms() + 30000;
    while (strcmp(ask(&town, 2, 300), "ERR TIMEOUT") != 0)
        ck_assert_int_lt(mono_ms(), end);
    /* And back on it: the doors are still there. */
    write_file(in_town(&town, "allow/client.pub"), town.client_key);
    ck_assert_str_eq(ask(&town, 3, 30000), "{'number':3}");
    hears(&town.server, &town.client, 3);
    town_close(&town);
}
END_TEST

START_TEST(others_stay_when_a_key_is_taken_off)
{
    town_t town;
    town_open(&town);
    write_file(in_town(&town, "allow/more.pub"), town.stranger_key);
    start_server(&town, "server");
    start_client(&town, "stranger");
    ck_assert_str_eq(ask(&town, 1, 15000), "{'number':1}");
    house_close(&town.client); /* it has been there: it will be noticed */
    start_client(&town, "client");
    ck_assert_str_eq(ask(&town, 2, 15000), "{'number':2}");
    unlink(in_town(&town, "allow/more.pub"));
    for (int64_t end = mono_ms() + 3000; mono_ms() < end;) /* longer than it takes to notice */
        ck_assert_str_eq(ask(&town, 3, 15000), "{'number':3}");
    town_close(&town);
}
END_TEST

START_TEST(a_peer_that_is_away_is_said_to_be)
{
    town_t town;
    town_open(&town);
    start_client(&town, "client");
    ck_assert_str_eq(
        house_call(&town.client, "desk", "relay", "{'number':1,'wait':60000,'away':300}"),
        "ERR UNAVAILABLE");
    ck_assert_ptr_nonnull(strstr(town.client.text, "'brain' is away"));
    /* What nobody took then is not done when it comes; it answers what is asked now. */
    start_server(&town, "server");
    ck_assert_str_eq(ask(&town, 2, 15000), "{'number':2}");
    ck_assert_ptr_nonnull(strstr(house_call(&town.server, "brain", "brain.stats", "{}"),
                                 "'name':'recall','calls':1"));
    house_close(&town.server);
    ck_assert_str_eq(
        house_call(&town.client, "desk", "relay", "{'number':1,'wait':60000,'away':300}"),
        "ERR UNAVAILABLE");
    start_server(&town, "server");
    ck_assert_str_eq(ask(&town, 4, 15000), "{'number':4}");
    town_close(&town);
}
END_TEST

/* ---- Settings ---- */

static const char *refused(town_t *town, const char **settings)
{
    host_t *host;
    host_options_t options = {
        .data_dir = town->dir, .transport = TRANSPORT_INPROC, .settings = settings};
    err_t err = host_open(&options, town->arena, &host);
    ck_assert(err_is(err));
    return err_what(err);
}

START_TEST(settings_that_cannot_be)
{
    town_t town;
    town_open(&town);
    const char **set = server_settings(&town, "server"), *key = set[2];
    set[2] = "bus.port_offset=1"; /* no key */
    ck_assert_ptr_nonnull(strstr(refused(&town, set), "bus.curve_key"));
    set[2] = arena_printf(town.arena, "bus.curve_key=%s/allow/client.pub", town.dir);
    chmod(in_town(&town, "allow/client.pub"), 0644);
    ck_assert_ptr_nonnull(strstr(refused(&town, set), "chmod 0600"));
    set[2] = key;
    set[3] = NULL;
    ck_assert_ptr_nonnull(strstr(refused(&town, set), "bus.curve_allow"));
    const char *away[] = {"bus.brain=tcp://elsewhere", NULL, NULL, NULL};
    ck_assert_ptr_nonnull(strstr(refused(&town, away), "tcp://host:port"));
    away[0] = "bus.brain=ipc:///tmp/x:1";
    ck_assert_ptr_nonnull(strstr(refused(&town, away), "tcp://host:port"));
    away[0] = "bus.brain=tcp://elsewhere:5502";
    ck_assert_ptr_nonnull(strstr(refused(&town, away), "bus.curve_servers"));
    away[1] = arena_printf(town.arena, "bus.curve_servers=%s/servers", town.dir);
    ck_assert_ptr_nonnull(strstr(refused(&town, away), "bus.curve_key"));
    write_file(in_town(&town, "servers/brain.pub"), "secret\n");
    ck_assert_ptr_nonnull(strstr(refused(&town, away), "line 1"));
    away[0] = "bus.brian=tcp://elsewhere:5502";
    ck_assert_ptr_nonnull(strstr(refused(&town, away), "'brain'"));
    town_close(&town);
}
END_TEST

START_TEST(new_keys_are_private_and_never_overwritten)
{
    town_t town;
    struct stat info;
    const char *key;
    town_open(&town);
    ck_assert_int_eq(stat(in_town(&town, "server/curve.key"), &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0600);
    ck_assert_int_eq(stat(in_town(&town, "server/curve.pub"), &info), 0);
    ck_assert_int_eq(info.st_mode & 0777, 0600);
    const char *before = read_file(town.arena, in_town(&town, "server/curve.key"));
    ck_assert(err_is(curve_keygen(in_town(&town, "server"), town.arena, &key)));
    ck_assert_str_eq(read_file(town.arena, in_town(&town, "server/curve.key")), before);
    ck_assert_str_ne(town.server_key, town.client_key);
    town_close(&town);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("curve");
    TCase *tcase = tcase_create("curve");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, on_the_list);
    tcase_add_test(tcase, not_on_the_list_then_on_it_then_off);
    tcase_add_test(tcase, a_server_with_another_key_is_not_talked_to);
    tcase_add_test(tcase, no_encryption_no_entry);
    tcase_add_test(tcase, a_new_server_key_with_overlap);
    tcase_add_test(tcase, a_new_server_key_from_the_file);
    tcase_add_test(tcase, events_come_and_come_back);
    tcase_add_test(tcase, events_after_a_refusal);
    tcase_add_test(tcase, a_subscriber_inside_finds_its_publisher_again);
    tcase_add_test(tcase, a_key_that_is_taken_off_ends_its_connection);
    tcase_add_test(tcase, others_stay_when_a_key_is_taken_off);
    tcase_add_test(tcase, a_peer_that_is_away_is_said_to_be);
    tcase_add_test(tcase, settings_that_cannot_be);
    tcase_add_test(tcase, new_keys_are_private_and_never_overwritten);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
