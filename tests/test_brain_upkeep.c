/* What a company chooses for itself, its language and how long memories are kept, and what the
 * brain then does by itself. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/brain/meta.h"
#include "house.h"
#include "proto/mp.h"

enum { PATIENCE_MS = 60000 };

static house_t house;

static void open_brain(const char *const *settings)
{
    house_open(&house, TRANSPORT_INPROC);
    house_down(&house);
    house.settings = settings;
    house_up(&house);
    house_start(&house, &brain_actor);
}

static const char *good(const char *method, const char *json)
{
    const char *answer = house_call(&house, "brain", method, json);

    ck_assert_msg(!err_is(house.err), "%s %s: %s", method, json, house.text);
    return answer;
}

static void has(const char *answer, const char *part)
{
    ck_assert_msg(strstr(answer, part) != NULL, "no %s in %s", part, answer);
}

static void lacks(const char *answer, const char *part)
{
    ck_assert_msg(!strstr(answer, part), "%s in %s", part, answer);
}

/* Asks brain_stat until its answer has one part and lacks the other. */
static void await_stat(const char *part, const char *without)
{
    int64_t deadline = mono_ms() + PATIENCE_MS;
    arena_t *own = house.arena, *arena = arena_new();

    for (;;) {
        house.arena = arena;
        const char *answer = good("brain_stat", "{}");
        if (strstr(answer, part) && !(without && strstr(answer, without)))
            break;
        ck_assert_msg(mono_ms() < deadline, "still %s", answer);
        arena_reset(arena);
    }
    arena_destroy(&arena);
    house.arena = own;
}

static void keep(int from, int to)
{
    for (int i = from; i < to; i++)
        good("brain_store",
             arena_printf(
                 house.arena,
                 "{'id':'m%d','taskId':'t','request':'Vorgang %d','solution':'Die %s wurde "
                 "bearbeitet','thread':'th%d'}",
                 i, i, i % 50 == 7 ? "Krankenversicherungskarte" : "Reisekostenabrechnung", i % 7));
}

START_TEST(a_language_is_chosen_and_the_words_follow)
{
    open_brain(NULL);
    keep(0, 230); /* more than one slice of a rebuild */
    good("brain_maintenance", "{'action':'optimize'}");
    keep(230, 260); /* not yet among the merged postings */
    has(good("brain_configure", "{}"), "'language':'english'");
    house_call(&house, "brain", "brain_configure", "{'language':'klingon'}");
    ck_assert_int_eq(house.err.code, ERR_ARGUMENT);
    has(house.text, "german");
    has(good("brain_configure", "{'language':'german'}"), "'next_language':'german'");
    /* Deleting and storing go on beside it. */
    good("brain_delete_episode", "{'id':'m3'}");
    good("brain_delete_episode", "{'id':'m258'}");
    keep(260, 270);
    await_stat("'language':'german'", "next_language");
    has(good("brain_check", "{}"), "'memories':268");
    has(good("brain_query", "{'query':'Karten','limit':1}"), "Krankenversicherungskarte");
    await_stat("-german'", "next_model"); /* the vectors follow */
    has(good("brain_check", "{}"), "'vectors':268");
    has(good("brain_query", "{'query':'Versicherung','limit':1}"), "Krankenversicherungskarte");
    house_restart(&house, &brain_actor);
    has(good("brain_configure", "{'language':'german'}"), "'language':'german'");
    lacks(good("brain_stat", "{}"), "next_language");
    /* There and back, changed before it is through. */
    good("brain_configure", "{'language':'none'}");
    good("brain_configure", "{'language':'dutch'}");
    await_stat("'language':'dutch'", "next_");
    has(good("brain_check", "{}"), "'memories':268");
    house_close(&house);
}
END_TEST

/* As a store of an older version has it. */
static void pretend_older_rules(void)
{
    static const store_table_t tables[] = {
#define TABLE_ROW(name) {#name},
        BRAIN_TABLES(TABLE_ROW)
#undef TABLE_ROW
            {NULL}};
    static const bytes_t name = {(const uint8_t *)"config", 6};
    store_pool_options_t options = {
        .dir = arena_printf(house.arena, "%s/brain", house.data), .tables = tables, .format = 1};
    store_pool_t *pool;
    store_txn_t *txn;
    bytes_t value;
    meta_config_t config;
    buf_t out;

    ck_assert(!err_is(store_pool_open(&options, &pool, house.arena)));
    ck_assert(!err_is(store_begin_write(pool, "default", &txn, house.arena)));
    ck_assert(!err_is(store_get(txn, TABLE_meta, name, &value)));
    value.data = arena_copy(house.arena, value.data, value.size);
    ck_assert(!err_is(record_decode(&meta_config_record, value, house.arena, "field", &config)));
    config.words_version = 1;
    config.model = "hash-1-384-english";
    buf_open(&out, house.arena);
    record_encode(&meta_config_record, &config, &out);
    ck_assert(!err_is(store_put(txn, TABLE_meta, name, buf_bytes(&out))));
    ck_assert(!err_is(store_commit(&txn)));
    store_pool_close(&pool);
}

START_TEST(a_store_of_older_rules_is_made_anew_by_itself)
{
    open_brain(NULL);
    keep(0, 230);
    good("brain_maintenance", "{'action':'optimize'}");
    keep(230, 240);
    house_down(&house);
    pretend_older_rules();
    house_up(&house);
    house_start(&house, &brain_actor);
    int64_t deadline = mono_ms() + PATIENCE_MS;
    for (;;) { /* refused with a sentence until the words are there */
        const char *answer = house_call(&house, "brain", "brain_query", "{'query':'Vorgang 17'}");
        if (!err_is(house.err) && strstr(answer, "'m17'"))
            break;
        ck_assert_msg(!err_is(house.err) || house.err.code == ERR_VERSION, "%s", house.text);
        ck_assert_int_lt(mono_ms(), deadline);
    }
    await_stat("'hash-2-384-english'", "next_model");
    has(good("brain_check", "{}"), "'vectors':240");
    house_close(&house);
}
END_TEST

START_TEST(a_new_company_begins_with_its_language)
{
    open_brain(NULL);
    good("brain_configure", "{'language':'german','company':'neu'}");
    good("brain_store", "{'taskId':'t','request':'Lagerhaus','solution':'','company':'neu'}");
    has(good("brain_query", "{'query':'Haus','company':'neu'}"), "Lagerhaus");
    has(good("brain_stat", "{'company':'neu'}"), "-german'");
    good("brain_check", "{'company':'neu'}");
    house_close(&house);
}
END_TEST

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

START_TEST(memories_end_with_their_time)
{
    const int64_t day = 86400000;
    int64_t deadline = mono_ms() + PATIENCE_MS;

    open_brain(NULL);
    good("brain_store",
         "{'id':'note','taskId':'t','type':'note','request':'harbour plan','solution':"
         "'keep','timestamp':1500000000000}");
    good("brain_configure", "{'keep_days':{'chat':1}}");
    good("brain_store", arena_printf(house.arena,
                                     "{'id':'talk','taskId':'t','type':'chat','request':'harbour "
                                     "talk','solution':'goes','timestamp':%lld}",
                                     (long long)(now_ms() - day + 1500)));
    has(good("brain_query", "{'query':'harbour'}"), "'talk'");
    arena_t *own = house.arena, *arena = arena_new();
    for (house.arena = arena; strstr(good("brain_query", "{'query':'harbour'}"), "'talk'");
         arena_reset(arena))
        ck_assert_int_lt(mono_ms(), deadline);
    house.arena = own;
    arena_destroy(&arena);
    /* Gone for everybody, though its rows are there until upkeep comes by. */
    has(good("brain_query", "{'query':'harbour'}"), "'note'");
    house_call(&house, "brain", "brain_get", "{'id':'talk'}");
    ck_assert_int_eq(house.err.code, ERR_NOT_FOUND);
    lacks(good("brain_list", "{}"), "'talk'");
    lacks(good("brain_export", "{}"), "talk");
    has(good("brain_stat", "{}"), "'memories':2");
    good("brain_check", "{}");
    good("brain_maintenance", "{'action':'vacuum'}");
    has(good("brain_stat", "{}"), "'memories':1");
    good("brain_check", "{}");
    house_close(&house);
}
END_TEST

START_TEST(upkeep_comes_by_itself)
{
    static const char *const settings[] = {"brain.upkeep_ms=100", NULL};

    open_brain(settings);
    for (int i = 0; i < 300; i++)
        good("brain_store", arena_printf(house.arena,
                                         "{'taskId':'t','type':'%s','request':'number "
                                         "%d','solution':'','timestamp':1500000000000}",
                                         i % 3 ? "log" : "note", i));
    good("log_experience", "{'taskId':'t','task_type':'deploy','agent_used':'ann','outcome':'ok',"
                           "'summary':'new'}");
    good("brain_configure", "{'keep_days':{'*':365,'note':null}}");
    await_stat("'memories':1,", NULL); /* all were old; null takes nothing out of * */
    has(good("recall_delegation_patterns", "{'task_type':'deploy'}"), "'runs':1");
    good("brain_check", "{}");
    has(good("brain_configure", "{'keep_days':{'*':null}}"), "'keep_days':{}");
    good("brain_store", "{'taskId':'t','request':'old','solution':'','timestamp':1500000000000}");
    has(good("brain_query", "{'query':'old'}"), "'old'");
    house_close(&house);
}
END_TEST

/* A call that writes and then fails makes its batch run again: what was in it with it is done from
 * the same place as before. */
START_TEST(forgetting_beside_calls_that_fail_leaves_nothing)
{
    enum { MEMORIES = 700, BESIDE = 8 };
    open_brain(NULL);
    keep(0, MEMORIES);
    client_call_t failing = {
        .peer = "brain",
        .method = "brain_configure",
        .role = ROLE_ADMIN,
        .args = house_pack(house.arena, "{'language':'german','keep_days':{'a':-1}}"),
        .timeout_ms = PATIENCE_MS};
    client_call_t forget = {.peer = "brain",
                            .method = "brain_forget",
                            .role = ROLE_ADMIN,
                            .args = house_pack(house.arena, "{'everything':true}"),
                            .timeout_ms = PATIENCE_MS};
    uint64_t forgetting = client_send(house.client, &forget), id = 0;
    for (int i = 0; i < BESIDE; i++)
        client_send(house.client, &failing);
    int64_t deleted = 0;
    while (id != forgetting) {
        client_reply_t reply = client_wait(house.client, house.arena, PATIENCE_MS, &id);
        if (id != forgetting) {
            ck_assert_msg(reply.err.code == ERR_ARGUMENT, "%s", err_what(reply.err));
            client_send(house.client, &failing);
            continue;
        }
        ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
        ck_assert(mp_int(mp_member(reply.body, "deleted"), &deleted));
    }
    for (int i = 0; i < BESIDE; i++)
        client_wait(house.client, house.arena, PATIENCE_MS, &id);
    ck_assert_int_eq(deleted, MEMORIES);
    has(good("brain_stat", "{}"), "'memories':0,");
    house_close(&house);
}
END_TEST

START_TEST(bad_rules_are_refused)
{
    static const char *const rows[] = {
        "{'keep_days':[1]}",       "{'keep_days':{'a':0}}",     "{'keep_days':{'a':-1}}",
        "{'keep_days':{'a':'x'}}", "{'keep_days':{'a':99999}}", "{'keep_days':{'':1}}",
        "{'keep_days':3}",         "{'language':''}",           "{'language':'Deutsch'}"};

    open_brain(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        house_call(&house, "brain", "brain_configure", rows[i]);
        ck_assert_msg(house.err.code == ERR_ARGUMENT, "%s: %s", rows[i], house.text);
    }
    has(good("brain_configure", "{}"), "'keep_days':{}");
    house_close(&house);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain upkeep");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 110);
    tcase_add_test(all, a_language_is_chosen_and_the_words_follow);
    tcase_add_test(all, a_store_of_older_rules_is_made_anew_by_itself);
    tcase_add_test(all, a_new_company_begins_with_its_language);
    tcase_add_test(all, memories_end_with_their_time);
    tcase_add_test(all, upkeep_comes_by_itself);
    tcase_add_test(all, forgetting_beside_calls_that_fail_leaves_nothing);
    tcase_add_test(all, bad_rules_are_refused);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
