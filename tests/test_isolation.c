/* Companies are apart, whatever is asked: secrets are planted in the texts, names, ids, metadata
 * and graph of several companies, then somebody of another one calls every method of the agent and
 * the brain with hostile names, known ids and random arguments made from the methods' own schemas.
 * No secret may come back in an answer, an error, a metric, a log, or an event that is not of the
 * company whose secret it is.
 *
 * AGENCY_ISOLATION_SEED and AGENCY_ISOLATION_ROUNDS (60) repeat or lengthen a run.
 * ctest timeout: 300 */
#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "house.h"
#include "proto/json.h"
#include "proto/mp.h"

extern const actor_def_t agent_actor, brain_actor;

/* In everything that the victims keep, and in nothing that the attacker says. */
#define SECRET "zyzzyva"

enum { VICTIMS = 4 };

static house_t house;
static uint64_t seed;
static int calls, answered;

static uint64_t chance(uint64_t below)
{
    uint64_t x = seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

/* ---- The victims ---- */

static void keep(const char *peer, const char *method, const char *company, const char *json)
{
    client_call_t call = {.peer = peer, .method = method, .company = company, .role = ROLE_ADMIN};
    house_call_as(&house, call, json);
    ck_assert_msg(!err_is(house.err), "%s: %s", method, house.text);
}

static void plant(const char *company)
{
    keep("brain", "brain_store", company,
         "{'id':'known-1','taskId':'known-task','request':'the " SECRET " plan','solution':'" SECRET
         "','author':'" SECRET "','thread':'known-thread','metadata':{'" SECRET "':'" SECRET
         "','kind':'known'},'type':'known'}");
    keep("brain", "brain_store", company,
         "{'id':'" SECRET "-id','taskId':'t','request':'known words','solution':'known words'}");
    keep("brain", "brain_update_graph", company,
         "{'operation':'add_node','args':{'id':'known-node','type':'known','properties':{'name':"
         "'" SECRET "'}}}");
    keep("brain", "brain_update_graph", company,
         "{'operation':'add_node','args':{'id':'" SECRET "-node','type':'known'}}");
    keep("brain", "brain_update_graph", company,
         "{'operation':'add_edge','args':{'from':'known-node','to':'" SECRET
         "-node','relation':'" SECRET "'}}");
    keep("brain", "brain_configure", company, "{'keep_days':{'" SECRET "':3000}}");
    keep("brain", "brain_store", company,
         "{'taskId':'t','request':'once','solution':'" SECRET "','thread':'known-thread','dedupe':"
         "true}");
    keep("brain", "log_experience", company,
         "{'taskId':'known-task','task_type':'known','agent_used':'" SECRET
         "','outcome':'success','summary':'" SECRET "'}");
    keep("agent", "task_submit", company,
         "{'kind':'" SECRET "','input':{'what':'" SECRET "'},'idempotency_key':'known-key'}");
    keep("agent", "task_submit", company, "{'kind':'known','input':'" SECRET "'}");
    keep("agent", "sop_create", company,
         "{'name':'known-sop','content':'# " SECRET
         "\\n\\n1. **One**\\n\\n   ```approve\\n   " SECRET "\\n   ```\\n'}");
    keep("agent", "sop_create", company,
         "{'name':'" SECRET
         "','content':'# X\\n\\n1. **One**\\n\\n   ```approve\\n   x\\n   ```\\n'}");
    keep("agent", "sop_execute", company, "{'name':'known-sop','wait_ms':0}");
}

/* ---- The attacker ---- */

static const char *const words[] = {"known-1",
                                    "known-task",
                                    "known-node",
                                    "known-thread",
                                    "known-key",
                                    "known-sop",
                                    "known",
                                    "t0000000001",
                                    "t0000000002",
                                    "t0000000003",
                                    "../victim-0",
                                    "victim-0",
                                    "*",
                                    "%",
                                    "",
                                    "known words",
                                    "victim-0/known-1",
                                    "a' OR '1'='1",
                                    "0",
                                    "../../agent/victim-0",
                                    "..",
                                    "victim-0\xc0\xaf",
                                    "\xe2\x80\xaevictim-0",
                                    "known-1' OR company='victim-0",
                                    "@2024",
                                    "n00",
                                    "N00",
                                    "m",
                                    "german",
                                    "1970-01-01"};

static const char *any_word(void)
{
    return words[chance(sizeof(words) / sizeof(words[0]))];
}

static void put_value(buf_t *out, const char *name, bytes_t schema, int depth);

static void put_object(buf_t *out, bytes_t schema, int depth)
{
    bytes_t properties, key, value;
    mp_value_t head;
    if (!mp_get(schema, "properties", &properties)) {
        mp_put_map(out, 1);
        mp_put_str(out, chance(2) ? "id" : "kind");
        mp_put_str(out, any_word());
        return;
    }
    buf_t body;
    uint32_t count = 0;
    buf_open(&body, house.arena);
    mp_reader_t reader = mp_reader(properties);
    mp_read(&reader, &head);
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key) && mp_slice(&reader, &value);
         i++) {
        const char *name = mp_text(house.arena, key);
        if (chance(10) < 3 && strcmp(name, "name") != 0 && strcmp(name, "id") != 0)
            continue;
        mp_put_str(&body, name);
        put_value(&body, name, value, depth + 1);
        count++;
    }
    mp_put_map(out, count);
    mp_put_raw(out, buf_bytes(&body));
}

static void put_value(buf_t *out, const char *name, bytes_t schema, int depth)
{
    static const int64_t numbers[] = {0, 1, 2, 10, 50, -1, 1000000000};
    bytes_t type, names, one;
    const char *kind = mp_get(schema, "type", &type) ? mp_text(house.arena, type) : NULL;
    if (mp_get(schema, "enum", &names)) {
        mp_value_t head;
        mp_reader_t reader = mp_reader(names);
        mp_read(&reader, &head);
        if (head.count && mp_at(names, (uint32_t)chance(head.count), &one)) {
            mp_put_raw(out, one);
            return;
        }
    }
    if (!strcmp(name, "company"))
        mp_put_str(out, chance(8) ? "umbra" : any_word());
    else if (strstr(name, "wait_ms"))
        mp_put_int(out, 0);
    else if (!kind || !strcmp(kind, "object"))
        put_object(out, schema, depth);
    else if (!strcmp(kind, "integer") || !strcmp(kind, "number"))
        mp_put_int(out, numbers[chance(7)]);
    else if (!strcmp(kind, "boolean"))
        mp_put_bool(out, chance(2));
    else if (!strcmp(kind, "array")) {
        mp_put_array(out, 1);
        if (depth < 4 && mp_get(schema, "items", &one))
            put_value(out, "", one, depth + 1);
        else
            mp_put_str(out, any_word());
    } else
        mp_put_str(out, any_word());
}

static bool leaks(bytes_t bytes)
{
    return bytes.size && memmem(bytes.data, bytes.size, SECRET, strlen(SECRET));
}

static void attack(const char *peer, const char *method, bytes_t schema)
{
    static const char *const mine[] = {"umbra"};
    buf_t args;
    buf_open(&args, house.arena);
    put_object(&args, schema, 0);
    client_call_t call = {.peer = peer,
                          .method = method,
                          .args = buf_bytes(&args),
                          .company = chance(4) ? NULL : "victim-0",
                          .principal = "mallory",
                          .role = ROLE_ADMIN,
                          .companies = {mine, 1},
                          .timeout_ms = 10000};
    client_reply_t reply = client_call(house.client, house.arena, &call);
    calls++;
    answered += !err_is(reply.err);
    const char *sentence = err_is(reply.err) ? err_what(reply.err) : reply.text;
    buf_t said;
    buf_open(&said, house.arena);
    if (err_is(json_from_msgpack(call.args, JSON_COMPACT, &said)))
        buf_puts(&said, "?");
    ck_assert_msg(!leaks(reply.body) && !(sentence && strstr(sentence, SECRET)),
                  "%s %s tells a secret of another company: %s", method, said.data, sentence);
}

static void attack_all(const char *peer)
{
    arena_t *arena = house.arena;
    client_call_t ask = {
        .peer = peer, .method = arena_printf(arena, "%s.describe", peer), .role = ROLE_ADMIN};
    client_reply_t reply = client_call(house.client, arena, &ask);
    bytes_t methods, method, name, input;
    ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
    ck_assert(mp_get(reply.body, "methods", &methods));
    house.arena = arena_new(); /* of one method */
    for (uint32_t i = 0; mp_at(methods, i, &method); i++) {
        ck_assert(mp_get(method, "name", &name) && mp_get(method, "input", &input));
        attack(peer, mp_text(house.arena, name), input);
        arena_reset(house.arena);
    }
    attack(peer, ask.method, (bytes_t){0});
    attack(peer, arena_printf(house.arena, "%s.stats", peer), (bytes_t){0});
    attack(peer, arena_printf(house.arena, "%s.metrics", peer), (bytes_t){0});
    arena_destroy(&house.arena);
    house.arena = arena;
}

/* ---- Whoever hears everything ---- */

typedef struct ear {
    const char *peer;
    client_t *client;
    pthread_t thread;
    atomic_bool stop;
    atomic_int heard, leaked;
} ear_t;

static bool on_event(void *ctx, const char *topic, const header_t *header, bytes_t body)
{
    ear_t *ear = ctx;
    bytes_t company;
    bool theirs = header->company && strncmp(header->company, "victim-", 7) == 0;
    arena_t *arena = arena_new();

    if (mp_get(body, "company", &company))
        theirs = strncmp(mp_text(arena, company), "victim-", 7) == 0;
    atomic_fetch_add(&ear->heard, 1);
    if (!theirs && (leaks(body) || strstr(topic, SECRET)))
        atomic_fetch_add(&ear->leaked, 1);
    arena_destroy(&arena);
    return !atomic_load(&ear->stop);
}

static void *listen_on(void *ctx)
{
    ear_t *ear = ctx;

    while (!atomic_load(&ear->stop))
        (void)client_tap(ear->client, ear->peer, "", 200, on_event, ear);
    return NULL;
}

static void ear_open(ear_t *ear, const char *peer)
{
    *ear = (ear_t){.peer = peer, .client = house_client(&house)};
    ck_assert_int_eq(pthread_create(&ear->thread, NULL, listen_on, ear), 0);
}

static void ear_close(ear_t *ear)
{
    atomic_store(&ear->stop, true);
    pthread_join(ear->thread, NULL);
    client_close(&ear->client);
    ck_assert_msg(!atomic_load(&ear->leaked), "an event of %s tells a secret", ear->peer);
}

START_TEST(no_secret_leaves_its_company)
{
    ear_t ears[2];
    const char *text = getenv("AGENCY_ISOLATION_ROUNDS");
    int rounds = text ? atoi(text) : 60;
    char log[64];
    text = getenv("AGENCY_ISOLATION_SEED");
    seed = text ? strtoull(text, NULL, 10) : 1;
    snprintf(log, sizeof(log), "/tmp/agency-test-isolation-%d.log", (int)getpid());
    ck_assert_ptr_nonnull(freopen(log, "w", stderr));
    house_open(&house, TRANSPORT_INPROC);
    house_start(&house, &brain_actor);
    house_start(&house, &agent_actor);
    for (int i = 0; i < VICTIMS; i++)
        plant(arena_printf(house.arena, "victim-%d", i));
    ear_open(&ears[0], "brain");
    ear_open(&ears[1], "agent");
    for (int round = 0; round < rounds; round++) {
        attack_all("brain");
        attack_all("agent");
    }
    int heard = atomic_load(&ears[0].heard) + atomic_load(&ears[1].heard);
    ear_close(&ears[0]);
    ear_close(&ears[1]);
    printf("isolation: %d calls, %d answered without an error, %d events\n", calls, answered,
           heard);
    ck_assert_int_gt(heard, 0);
    ck_assert_int_gt(answered, calls / 20); /* it did get through to the methods */
    /* Nothing was lost by it either. */
    client_call_t look = {
        .peer = "brain", .method = "brain_get", .company = "victim-0", .role = ROLE_ADMIN};
    ck_assert_ptr_nonnull(strstr(house_call_as(&house, look, "{'id':'known-1'}"), SECRET));
    house_close(&house);
    fflush(stderr);
    arena_t *arena = arena_new();
    const char *said = read_file(arena, log);
    ck_assert_msg(!said || !strstr(said, SECRET), "a log tells a secret: %s", said);
    arena_destroy(&arena);
    unlink(log);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("isolation");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 240);
    tcase_add_test(all, no_secret_leaves_its_company);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
