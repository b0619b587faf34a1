/* The brain as a client meets it: a real actor with a real store, over inproc. */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actors/brain/brain.h"
#include "bus/client.h"
#include "bus/host.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- an agent that knows one procedure ---- */

#define sop_get_ARGS(F)                                                                            \
    F(STR, name, must, 0, 0, "Name.")                                                              \
    COMPANY_ROW(F)
#define sop_get_REPLY(F)                                                                           \
    F(STR, name, must, 0, 0, "Name.")                                                              \
    F(STR, content, must, 0, 0, "Markdown.")
typedef struct agent {
    int unused;
} agent_t;
#define AGENT_METHODS(M) M(agent_t, sop_get, READS, "Read.")
METHODS(agent_methods, AGENT_METHODS)

static err_t sop_get(agent_t *self, call_t *call, const sop_get_args_t *args,
                     sop_get_reply_t *reply)
{
    (void)self;
    if (strcmp(args->name, "deploy") != 0)
        return err_make(call_arena(call), ERR_NOT_FOUND, "there is no %s; there are: deploy",
                        args->name);
    reply->name = args->name;
    reply->content = "# Deploy\n\n1. Push.\n";
    return err_ok();
}

static const actor_def_t test_agent = {
    .name = "agent", .doc = "Knows.", .size = sizeof(agent_t), .methods = agent_methods};

/* ---- the house ---- */

typedef struct house {
    arena_t *arena;
    host_t *host;
    client_t *client;
    char data[64];
} house_t;

static void start(house_t *house, const char *const *settings)
{
    host_options_t options = {
        .data_dir = house->data, .settings = settings, .log_level = LOG_ERROR};
    err_t err = host_open(&options, house->arena, &house->host);

    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = host_start(house->host, &test_agent, NULL, house->arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = host_start(house->host, &brain_actor, NULL, house->arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = client_open_host(house->host, &house->client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

static void stop(house_t *house)
{
    client_close(&house->client);
    host_close(&house->host, 2000);
}

static void open_house_with(house_t *house, const char *const *settings)
{
    *house = (house_t){.arena = arena_new()};
    snprintf(house->data, sizeof house->data, "/tmp/test-brain-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(house->data));
    start(house, settings);
}

static void open_house(house_t *house)
{
    open_house_with(house, NULL);
}

static void close_house(house_t *house)
{
    char command[128];

    stop(house);
    snprintf(command, sizeof command, "rm -rf %s", house->data);
    ck_assert_int_eq(system(command), 0);
    arena_destroy(&house->arena);
}

/* Args as JSON with ' for ". */
static bytes_t packed(house_t *house, const char *args)
{
    char *json = arena_strdup(house->arena, args);
    bytes_t out;

    for (char *c = json; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    err_t err = json_to_msgpack(house->arena, json, strlen(json), NULL, &out);
    ck_assert_msg(!err_is(err), "%s: %s", json, err_what(err));
    return out;
}

static client_reply_t ask(house_t *house, const char *method, const char *args)
{
    client_call_t call = {.peer = "brain",
                          .method = method,
                          .args = packed(house, args),
                          .role = ROLE_ADMIN,
                          .timeout_ms = 20000};
    return client_call(house->client, house->arena, &call);
}

static client_reply_t good(house_t *house, const char *method, const char *args)
{
    client_reply_t reply = ask(house, method, args);

    ck_assert_msg(!err_is(reply.err), "%s %s: %s", method, args, err_what(reply.err));
    return reply;
}

static void bad(house_t *house, const char *method, const char *args, err_code_t code,
                const char *part)
{
    client_reply_t reply = ask(house, method, args);

    ck_assert_msg(reply.err.code == code, "%s %.200s: %s: %s", method, args,
                  err_info(reply.err.code)->name, err_what(reply.err));
    ck_assert_msg(strstr(err_what(reply.err), part) != NULL, "no '%s' in: %s", part,
                  err_what(reply.err));
}

/* A field by path ("memories.0.id") as compact JSON; "" when absent. */
static const char *get(house_t *house, bytes_t body, const char *path)
{
    char *rest = arena_strdup(house->arena, path), *save = NULL;
    buf_t out;

    for (char *part = strtok_r(rest, ".", &save); part; part = strtok_r(NULL, ".", &save)) {
        char *end;
        unsigned long index = strtoul(part, &end, 10);
        bool found = *end ? mp_get(body, part, &body) : mp_at(body, (uint32_t)index, &body);
        if (!found)
            return "";
    }
    buf_open(&out, house->arena);
    ck_assert(!err_is(json_from_msgpack(body, JSON_COMPACT, &out)));
    return out.data;
}

static void is(house_t *house, bytes_t body, const char *path, const char *json)
{
    const char *found = get(house, body, path);

    ck_assert_msg(strcmp(found, json) == 0, "%s is %s, not %s", path, found, json);
}

static void sound(house_t *house)
{
    good(house, "brain_check", "{}");
}

/* Memories m<from> to m<to - 1>, many under way at once. */
static void fill(house_t *house, int from, int to)
{
    static const char *const topics[] = {"database migration", "wing flutter", "invoice export",
                                         "chart deployment",   "login page",   "sensor drift"};
    uint64_t id;

    for (int sent = from, done = from; done < to; done++) {
        for (; sent < to && sent - done < 64; sent++) {
            const char *json = arena_printf(
                house->arena,
                "{'id': 'm%d', 'taskId': 't%d', 'request': 'Please look at %s number %d', "
                "'solution': 'Handled case %d of %s', 'timestamp': %lld, "
                "'metadata': {'n': %d, 'even': %s}}",
                sent, sent, topics[sent % 6], sent, sent * 7, topics[sent % 6],
                1700000000000LL + sent * 1000LL, sent, sent % 2 ? "false" : "true");
            client_call_t call = {.peer = "brain",
                                  .method = "brain_store",
                                  .args = packed(house, json),
                                  .role = ROLE_ADMIN,
                                  .timeout_ms = 20000};
            client_send(house->client, &call);
        }
        client_reply_t reply = client_wait(house->client, house->arena, 20000, &id);
        ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
    }
}

/* ---- memories ---- */

START_TEST(a_memory_is_stored_found_read_and_deleted)
{
    house_t house;
    open_house(&house);
    client_reply_t reply =
        good(&house, "brain_store",
             "{'taskId': 'T-1', 'request': 'Why does the kubernetes pod restart?', 'solution': "
             "'The liveness probe was too strict', 'artifacts': '[\\\"a.yaml\\\", \\\"b.md\\\"]'}");
    ck_assert_str_eq(reply.text, "Memory stored successfully.");
    is(&house, reply.body, "stored", "true");
    const char *id = get(&house, reply.body, "id");
    fill(&house, 0, 12);
    reply = good(&house, "brain_query", "{'query': 'pods restarting in kubernetes'}");
    is(&house, reply.body, "memories.0.taskId", "\"T-1\"");
    is(&house, reply.body, "memories.0.id", id);
    is(&house, reply.body, "memories.0.artifacts", "[\"a.yaml\",\"b.md\"]");
    is(&house, reply.body, "memories.0.word_rank", "1");
    is(&house, reply.body, "memories.0.vector_rank", "1");
    ck_assert_ptr_nonnull(strstr(reply.text, "[Task: T-1]\nTimestamp: 20"));
    ck_assert_ptr_nonnull(strstr(reply.text, "Artifacts: a.yaml, b.md"));
    reply = good(&house, "brain_get", arena_printf(house.arena, "{'id': %s}", id));
    is(&house, reply.body, "memory.solution", "\"The liveness probe was too strict\"");
    sound(&house);
    reply = good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': %s}", id));
    is(&house, reply.body, "deleted", "true");
    reply = good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': %s}", id));
    is(&house, reply.body, "deleted", "false");
    bad(&house, "brain_get", arena_printf(house.arena, "{'id': %s}", id), ERR_NOT_FOUND,
        "no memory");
    reply = good(&house, "brain_query", "{'query': 'liveness probe', 'limit': 100}");
    ck_assert_ptr_null(strstr(reply.text, "liveness"));
    sound(&house);
    close_house(&house);
}
END_TEST

START_TEST(nothing_answers_nothing)
{
    house_t house;
    open_house(&house);
    client_reply_t reply =
        good(&house, "brain_query", "{'query': 'anything', 'company': 'nobody'}");
    ck_assert_str_eq(reply.text, "No relevant memories found.");
    is(&house, reply.body, "memories", "[]");
    is(&house, good(&house, "brain_list", "{'company': 'nobody'}").body, "memories", "[]");
    is(&house, good(&house, "brain_query_graph", "{'query': 'x', 'company': 'nobody'}").body,
       "nodes", "[]");
    is(&house, good(&house, "brain_delete_episode", "{'id': 'x', 'company': 'nobody'}").body,
       "deleted", "false");
    reply = good(&house, "recall_delegation_patterns", "{'task_type': 'x', 'company': 'nobody'}");
    ck_assert_str_eq(reply.text, "No past experiences found for task type: x");
    /* Reading and deleting made no company. */
    char path[128];
    snprintf(path, sizeof path, "%s/brain/nobody", house.data);
    ck_assert_int_ne(access(path, F_OK), 0);
    good(&house, "brain_store", "{'taskId': '', 'request': '?!', 'solution': ''}");
    reply = good(&house, "brain_query", "{'query': '...'}");
    is(&house, reply.body, "memories", "[]");
    sound(&house);
    close_house(&house);
}
END_TEST

START_TEST(an_id_is_replaced_not_doubled)
{
    house_t house;
    open_house(&house);
    fill(&house, 0, 10);
    client_reply_t reply = good(&house, "brain_store",
                                "{'taskId': 'new', 'id': 'm3', 'request': 'purple elephants', "
                                "'solution': 'dance'}");
    is(&house, reply.body, "replaced", "true");
    reply = good(&house, "brain_query", "{'query': 'purple elephants', 'limit': 1}");
    is(&house, reply.body, "memories.0.id", "\"m3\"");
    reply = good(&house, "brain_query", "{'query': 'chart deployment number 3', 'limit': 100}");
    ck_assert_ptr_null(strstr(reply.text, "[Task: t3]"));
    is(&house, good(&house, "brain_get", "{'id': 'm3'}").body, "memory.taskId", "\"new\"");
    is(&house, good(&house, "brain_check", "{}").body, "memories", "10");
    close_house(&house);
}
END_TEST

START_TEST(memory_survives_and_stays_sound)
{
    house_t house;
    open_house(&house);
    fill(&house, 0, 50);
    for (int i = 0; i < 50; i += 3)
        good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': 'm%d'}", i));
    const char *before =
        get(&house, good(&house, "brain_query", "{'query': 'wing flutter 7', 'limit': 20}").body,
            "memories");
    stop(&house);
    start(&house, NULL);
    const char *after =
        get(&house, good(&house, "brain_query", "{'query': 'wing flutter 7', 'limit': 20}").body,
            "memories");
    ck_assert_str_eq(before, after);
    sound(&house);
    fill(&house, 50, 60);
    client_reply_t reply = good(&house, "brain_query", "{'query': 'invoice export number 56'}");
    is(&house, reply.body, "memories.0.id", "\"m56\"");
    close_house(&house);
}
END_TEST

START_TEST(lists_come_in_pages)
{
    house_t house;
    char seen[64] = {0};
    const char *cursor = "";
    open_house(&house);
    fill(&house, 0, 23);
    for (int page = 0; page < 10; page++) {
        client_reply_t reply =
            good(&house, "brain_list",
                 *cursor ? arena_printf(house.arena, "{'limit': 5, 'cursor': %s}", cursor)
                         : "{'limit': 5}");
        for (int i = 0; i < 5; i++) {
            const char *id =
                get(&house, reply.body, arena_printf(house.arena, "memories.%d.id", i));
            if (*id)
                seen[atoi(id + 2)]++;
        }
        cursor = get(&house, reply.body, "cursor");
        if (!*cursor)
            break;
    }
    for (int i = 0; i < 23; i++)
        ck_assert_int_eq(seen[i], 1);
    bad(&house, "brain_list", "{'cursor': 'x'}", ERR_ARGUMENT, "cursor");
    close_house(&house);
}
END_TEST

START_TEST(filters_act_before_the_limit)
{
    house_t house;
    open_house(&house);
    fill(&house, 0, 60);
    good(&house, "brain_store",
         "{'taskId': 'typed', 'type': 'note', 'request': 'login page', 'solution': 'noted', "
         "'author': 'Ada', 'metadata': {'tags': ['x', 'y'], 'cost': 2.5}}");
    client_reply_t reply =
        good(&house, "brain_query", "{'query': 'login page', 'type': 'note', 'limit': 50}");
    is(&house, reply.body, "memories.0.taskId", "\"typed\"");
    is(&house, reply.body, "memories.1", "");
    reply = good(&house, "brain_query",
                 "{'query': 'login page', 'filter': {'tags': 'y', 'cost': {'gt': 2, 'lte': 2.5}}}");
    is(&house, reply.body, "memories.0.taskId", "\"typed\"");
    is(&house, reply.body, "memories.1", "");
    reply = good(&house, "brain_query",
                 "{'query': 'login page', 'filter': {'author': {'ne': 'Ada'}, 'n': {'in': [4, "
                 "10]}}, 'limit': 9}");
    is(&house, reply.body, "memories.1.type", "");
    is(&house, reply.body, "memories.2", "");
    reply = good(&house, "brain_query",
                 "{'query': 'sensor drift', 'since': 1700000040000, 'until': 1700000042000, "
                 "'limit': 50}");
    is(&house, reply.body, "memories.1.timestamp",
       strcmp(get(&house, reply.body, "memories.0.timestamp"), "1700000040000") == 0
           ? "1700000041000"
           : "1700000040000");
    is(&house, reply.body, "memories.2", "");
    reply = good(&house, "brain_query",
                 "{'query': 'wing flutter', 'filter': '{\\\"n\\\": {\\\"exists\\\": false}}'}");
    is(&house, reply.body, "memories.0.taskId", "\"typed\"");
    bad(&house, "brain_query", "{'query': 'x', 'filter': {'n': {'like': 3}}}", ERR_ARGUMENT,
        "unknown condition like");
    bad(&house, "brain_query", "{'query': 'x', 'filter': [1]}", ERR_ARGUMENT, "object");
    bad(&house, "brain_query", "{'query': 'x', 'filter': {'n': {'in': 3}}}", ERR_ARGUMENT, "list");
    bad(&house, "brain_query", "{'query': 'x', 'filter': {'n': {}}}", ERR_ARGUMENT, "no condition");
    close_house(&house);
}
END_TEST

START_TEST(who_when_and_what_was_next_help)
{
    house_t house;
    open_house(&house);
    fill(&house, 0, 30);
    good(
        &house, "brain_store",
        "{'taskId': '1', 'thread': 'trip', 'author': 'Caroline', 'timestamp': "
        "'2023-05-08T10:00:00Z', 'request': 'Where did you go for your holiday?', 'solution': ''}");
    good(&house, "brain_store",
         "{'taskId': '2', 'thread': 'trip', 'author': 'Melanie', 'timestamp': "
         "'2023-05-08T10:01:00Z', 'request': 'To the mountains, it was lovely.', 'solution': ''}");
    good(&house, "brain_store",
         "{'taskId': '3', 'thread': 'other', 'author': 'Bob', 'timestamp': "
         "'2023-07-01T10:01:00Z', 'request': 'The server is down again.', 'solution': ''}");
    client_reply_t reply =
        good(&house, "brain_query", "{'query': 'holiday', 'limit': 2, 'explain': true}");
    is(&house, reply.body, "memories.0.taskId", "\"1\"");
    is(&house, reply.body, "memories.1.taskId", "\"2\""); /* has no such word; its neighbour has */
    ck_assert_str_ne(get(&house, reply.body, "memories.1.explanation.neighbour_score"), "");
    is(&house, reply.body, "memories.0.explanation.words", "[\"holiday\",\"trip\"]"); /* alike */
    reply = good(&house, "brain_query", "{'query': 'What did Bob say in July 2023?', 'limit': 1}");
    is(&house, reply.body, "memories.0.taskId", "\"3\"");
    close_house(&house);
}
END_TEST

START_TEST(newer_comes_first_when_asked)
{
    house_t house;
    open_house(&house);
    good(&house, "brain_store",
         "{'taskId': 'old', 'request': 'backup schedule', 'solution': 'weekly', 'timestamp': "
         "'2001-01-01T00:00:00Z'}");
    good(&house, "brain_store",
         "{'taskId': 'now', 'request': 'backup schedule of the archive and its siblings', "
         "'solution': 'daily', 'metadata': {'a': 'padding words so that it is longer'}}");
    is(&house, good(&house, "brain_query", "{'query': 'backup schedule'}").body,
       "memories.0.taskId", "\"old\"");
    is(&house,
       good(&house, "brain_query", "{'query': 'backup schedule', 'recency_weight': 3}").body,
       "memories.0.taskId", "\"now\"");
    close_house(&house);
}
END_TEST

START_TEST(the_same_text_is_kept_once_on_request)
{
    house_t house;
    const char *text = "{'taskId': 'a', 'request': 'q', 'solution': 's', 'dedupe': true}";
    open_house(&house);
    client_reply_t first = good(&house, "brain_store", text);
    const char *id = get(&house, first.body, "id");
    client_reply_t again = good(&house, "brain_store", text);
    is(&house, again.body, "stored", "false");
    is(&house, again.body, "id", id);
    good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': %s}", id));
    is(&house, good(&house, "brain_store", text).body, "stored", "true");
    is(&house, good(&house, "brain_check", "{}").body, "memories", "1");
    close_house(&house);
}
END_TEST

START_TEST(answers_have_the_old_form_too)
{
    house_t house;
    bytes_t rows;
    open_house(&house);
    good(&house, "brain_store",
         "{'taskId': 'T', 'request': 'ask', 'solution': 'tell', 'timestamp': 1700000000123}");
    client_reply_t reply = good(&house, "brain_query", "{'query': 'ask', 'format': 'json'}");
    ck_assert(!err_is(json_to_msgpack(house.arena, reply.text, strlen(reply.text), NULL, &rows)));
    is(&house, rows, "0.userPrompt", "\"ask\"");
    is(&house, rows, "0.agentResponse", "\"tell\"");
    is(&house, rows, "0.timestamp", "1700000000123");
    is(&house, rows, "0.artifacts", "[]");
    ck_assert_str_ne(get(&house, rows, "0._distance"), "");
    reply = good(&house, "brain_query", "{'query': 'ask'}");
    char *big = arena_alloc(house.arena, (1 << 20) + 1);
    memset(big, 'y', 1 << 20);
    good(&house, "brain_store",
         arena_printf(house.arena, "{'taskId': 'B', 'request': 'ask', 'solution': '%s'}", big));
    bad(&house, "brain_query", "{'query': 'ask', 'format': 'json'}", ERR_TOO_LARGE,
        "smaller limit");
    good(&house, "brain_query", "{'query': 'ask', 'format': 'text'}");
    good(&house, "brain_forget", "{'filter': {'taskId': 'B'}}");
    reply = good(&house, "brain_query", "{'query': 'ask'}");
    const char *old = "[Task: T]\nTimestamp: 2023-11-14T22:13:20.123Z\nRequest: ask\n"
                      "Solution: tell\nArtifacts: \nId: ";
    ck_assert_msg(strncmp(reply.text, old, strlen(old)) == 0, "%s", reply.text);
    close_house(&house);
}
END_TEST

static void says(const client_reply_t *reply, const char *text)
{
    ck_assert_msg(strstr(reply->text, text) != NULL, "no \"%s\" in:\n%s", text, reply->text);
}

START_TEST(the_text_says_what_the_reply_says)
{
    house_t house;
    open_house(&house);
    good(&house, "brain_store",
         "{'taskId': 'T', 'id': 'm1', 'type': 'chat', 'author': 'Ann\\nScore: 9', 'thread': "
         "'budget', "
         "'request': 'How much is the rent?', 'solution': '980 euros', 'artifacts': {'a': 1}, "
         "'metadata': {'area': 'home'}, 'source_agency': 'north', 'timestamp': '2024-05-02'}");
    client_reply_t reply =
        good(&house, "brain_query", "{'query': 'rent in May 2024', 'explain': true}");
    says(&reply, "[Task: T]\nTimestamp: 2024-05-02T00:00:00.000Z\nRequest: How much is the rent?\n"
                 "Solution: 980 euros\nArtifacts: {\"a\":1}\nId: m1\nType: chat\n"
                 "Author: Ann Score: 9\nThread: budget\nMetadata: {\"area\":\"home\"}\n"
                 "Source agency: north\nCreated: 20");
    says(&reply, "\nStored by: local\nScore: ");
    says(&reply, ", place 1 by words, place 1 by likeness\nWhy: shares ");
    says(&reply, "@2024-05");
    says(&reply, "; likeness ");
    reply = good(&house, "brain_query", "{'query': 'rent'}");
    ck_assert_ptr_null(strstr(reply.text, "Why:"));
    reply = good(&house, "brain_get", "{'id': 'm1'}");
    says(&reply, "Timestamp: 2024-05-02T00:00:00.000Z\n");
    ck_assert_ptr_null(strstr(reply.text, "\nScore: "));
    good(&house, "brain_store", "{'taskId': 'U', 'request': 'b', 'solution': 'c'}");
    reply = good(&house, "brain_list", "{'limit': 1}");
    says(&reply, "[Task: U]");
    says(&reply, arena_printf(house.arena, "cursor=%s",
                              strtok((char *)get(&house, reply.body, "cursor"), "\"")));
    bad(&house, "brain_list", "{'cursor': '-1'}", ERR_ARGUMENT, "cursor");
    reply = good(&house, "brain_list", "{'company': 'nobody'}");
    ck_assert_str_eq(reply.text, "There are no memories.");
    close_house(&house);
}
END_TEST

START_TEST(filters_look_into_objects_and_times)
{
    static const char *const yes[] = {"{'customer.plan': 'pro'}",
                                      "{'customer': {'eq': {'plan': 'pro', 'seats': 3}}}",
                                      "{'customer.seats': {'gt': 2}}",
                                      "{'a.b': 1}",
                                      "{'timestamp': {'gte': '2024-05-01', 'lt': '2024-06-01'}}",
                                      "{'timestamp': '2024-05-02T00:00:00Z'}",
                                      "{'timestamp': {'in': ['2024-05-02', 7]}}",
                                      "{'stored_by': 'local', 'id': 'm1'}"};
    static const char *const no[] = {"{'customer.plan': 'free'}", "{'customer.plan.x': 1}",
                                     "{'timestamp': {'gte': '2024-06-01'}}", "{'id': 'm2'}",
                                     "{'stored_by': 'else'}"};
    house_t house;
    open_house(&house);
    good(&house, "brain_store",
         "{'taskId': 'T', 'id': 'm1', 'request': 'rent', 'solution': 'x', 'timestamp': "
         "'2024-05-02', 'metadata': {'customer': {'plan': 'pro', 'seats': 3}, 'a.b': 1}}");
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        client_reply_t reply =
            good(&house, "brain_query",
                 arena_printf(house.arena, "{'query': 'rent', 'filter': %s}", yes[i]));
        is(&house, reply.body, "memories.0.id", "\"m1\"");
    }
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        client_reply_t reply =
            good(&house, "brain_query",
                 arena_printf(house.arena, "{'query': 'rent', 'filter': %s}", no[i]));
        is(&house, reply.body, "memories", "[]");
    }
    bad(&house, "brain_query", "{'query': 'x', 'filter': {'timestamp': {'gt': 'soon'}}}",
        ERR_ARGUMENT, "not 'soon'");
    bad(&house, "brain_query", "{'query': 'x', 'filter': {'customer': {'plan': 'pro'}}}",
        ERR_ARGUMENT, "customer.plan");
    bad(&house, "brain_forget", "{'filter': {}}", ERR_ARGUMENT, "everything");
    is(&house, good(&house, "brain_stat", "{}").body, "memories", "1");
    client_reply_t gone = good(&house, "brain_forget", "{'filter': {'customer.plan': 'pro'}}");
    is(&house, gone.body, "deleted", "1");
    says(&gone, "Memories forgotten: 1.");
    gone = good(&house, "brain_maintenance", "{'action': 'vacuum'}");
    says(&gone, "Rows deleted that nothing led to: ");
    gone = good(&house, "brain_maintenance", "{'action': 'rebuild_indices'}");
    says(&gone, "Memories whose indexes are made anew: 0. Rows deleted");
    gone = good(&house, "brain_maintenance", "{'action': 'optimize'}");
    says(&gone, "the vector index needed no build");
    gone = good(&house, "brain_maintenance", "{'action': 'verify'}");
    says(&gone, "graph agree. Memories: 0.");
    ck_assert_str_eq(good(&house, "brain_check", "{}").text, gone.text);
    close_house(&house);
}
END_TEST

START_TEST(bad_input_is_refused_clearly)
{
    house_t house;
    open_house(&house);
    char *big = arena_alloc(house.arena, (1 << 20) + 64);
    memset(big, 'a', 1 << 20);
    bad(&house, "brain_query", "{'query': ''}", ERR_ARGUMENT, "query");
    bad(&house, "brain_query", arena_printf(house.arena, "{'query': '%s'}", big), ERR_ARGUMENT,
        "query");
    bad(&house, "brain_query", "{'query': 'x', 'limit': 0}", ERR_ARGUMENT, "limit");
    bad(&house, "brain_query", "{'query': 'x', 'limit': -1}", ERR_ARGUMENT, "limit");
    bad(&house, "brain_query", "{'query': 'x', 'limit': 1000000000}", ERR_ARGUMENT, "limit");
    bad(&house, "brain_query", "{'query': 5}", ERR_ARGUMENT, "query");
    bad(&house, "brain_query", "{'query': 'x', 'filters': {}}", ERR_ARGUMENT, "filters");
    bad(&house, "brain_query", "{'query': 'x', 'company': '../x'}", ERR_COMPANY, "company");
    bad(&house, "brain_store", "{'taskId': 'x', 'request': 'x'}", ERR_ARGUMENT, "solution");
    bad(&house, "brain_store", "{'taskId': 'x', 'request': 'x', 'solution': '', 'metadata': [1]}",
        ERR_ARGUMENT, "metadata must be an object");
    bad(&house, "brain_store",
        "{'taskId': 'x', 'request': 'x', 'solution': 'x', 'tokens': 1000000000000000000}",
        ERR_ARGUMENT, "'tokens' must be");
    bad(&house, "log_experience",
        "{'taskId': 'x', 'agent_used': 'a', 'task_type': 't', 'outcome': 'ok', 'summary': 's', "
        "'tokens': -1}",
        ERR_ARGUMENT, "'tokens' must be");
    bad(&house, "brain_update_graph", "{'operation': 'add_node', 'args': {'id': 7}}", ERR_ARGUMENT,
        "id");
    bad(&house, "brain_update_graph", "{'operation': 'add_node', 'args': 'x'}", ERR_ARGUMENT, "");
    bad(&house, "brain_update_graph", "{'operation': 'burn', 'args': {}}", ERR_ARGUMENT, "burn");
    bad(&house, "brain_update_graph",
        "{'operation': 'add_node', 'args': {'id': 'a', 'properties': [1]}}", ERR_ARGUMENT,
        "properties must be an object");
    good(
        &house, "brain_store",
        arena_printf(house.arena, "{'taskId': 'x', 'request': '%.1000000s', 'solution': ''}", big));
    sound(&house);
    close_house(&house);
}
END_TEST

/* What JSON cannot say but the wire can. */
static void bad_bytes(house_t *house, const char *method, const char *name, bytes_t value,
                      const char *part)
{
    buf_t args;

    buf_open(&args, house->arena);
    mp_put_map(&args, 2);
    mp_put_str(&args, "query");
    mp_put_str(&args, "x");
    mp_put_str(&args, name);
    mp_put_raw(&args, value);
    client_call_t call = {.peer = "brain",
                          .method = method,
                          .args = buf_bytes(&args),
                          .role = ROLE_ADMIN,
                          .timeout_ms = 20000};
    client_reply_t reply = client_call(house->client, house->arena, &call);
    ck_assert_msg(reply.err.code == ERR_ARGUMENT || reply.err.code == ERR_PARSE, "%s: %s", name,
                  err_what(reply.err));
    ck_assert_msg(strstr(err_what(reply.err), part) != NULL, "no '%s' in: %s", part,
                  err_what(reply.err));
}

START_TEST(what_json_cannot_say_is_refused)
{
    static const uint8_t nan_real[] = {0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0};
    static const uint8_t infinite[] = {0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0};
    static const uint8_t not_utf8[] = {0xa2, 0xc3, 0x28};
    house_t house;
    open_house(&house);
    bad_bytes(&house, "brain_query", "recency_weight", (bytes_t){nan_real, 9}, "recency_weight");
    bad_bytes(&house, "brain_query", "recency_weight", (bytes_t){infinite, 9}, "recency_weight");
    bad_bytes(&house, "brain_query", "half_life_days", (bytes_t){nan_real, 9}, "half_life_days");
    bad_bytes(&house, "brain_query", "type", (bytes_t){not_utf8, 3}, "");
    bad(&house, "brain_query", "{'query': 'x', 'filter': {'a': {'near': 1}}}", ERR_ARGUMENT,
        "near");
    bad(&house, "brain_query", "{'query': 'x', 'filter': [1]}", ERR_ARGUMENT, "");
    bad(&house, "brain_query", "{'query': 'x', 'since': 'soon'}", ERR_ARGUMENT, "since");
    bad(&house, "brain_list", "{'limit': 0}", ERR_ARGUMENT, "limit");
    bad(&house, "brain_query_graph", "{'query': '', 'limit': -1}", ERR_ARGUMENT, "limit");
    bad(&house, "brain_reembed", "{'again': 7}", ERR_ARGUMENT, "again");
    bad(&house, "brain_reembed", "{}", ERR_NOT_FOUND, "no memory");
    close_house(&house);
}
END_TEST

/* Each with a word of the sentence that says what to change. */
START_TEST(every_tool_refuses_what_it_cannot_use)
{
    static const struct {
        const char *method, *args, *part;
    } rows[] = {
        {"brain_query", "{}", "query"},
        {"brain_query", "{'query': null}", "query"},
        {"brain_query", "{'query': ['x']}", "query"},
        {"brain_query", "{'query': 'x', 'limit': 1.5}", "limit"},
        {"brain_query", "{'query': 'x', 'limit': 'many'}", "limit"},
        {"brain_query", "{'query': 'x', 'format': 'xml'}", "format"},
        {"brain_query", "{'query': 'x', 'recency_weight': -1}", "recency_weight"},
        {"brain_query", "{'query': 'x', 'half_life_days': 0}", "half_life_days"},
        {"brain_query", "{'query': 'x', 'filter': {'a': {'gt': 1, 'nearly': 2}}}", "nearly"},
        {"brain_query", "{'query': 'x', 'filter': {'a': {'exists': 1}}}", "exists"},
        {"brain_query", "{'query': 'x', 'filter': 'n=1'}", ""},
        {"brain_query", "{'query': 'x', 'since': 5, 'until': 5}", "since must be before until"},
        {"brain_query", "{'query': 'x', 'explain': 'yes'}", "explain"},
        {"brain_query", "{'query': 'x', 'company': ''}", "company"},
        {"brain_query", "{'query': 'x', 'company': 'a/../b'}", "company"},
        {"brain_get", "{'id': ''}", "id"},
        {"brain_get", "{'id': 7}", "id"},
        {"brain_list", "{'cursor': 'x'}", "cursor"},
        {"brain_list", "{'limit': 1000000000}", "limit"},
        {"brain_store", "{'taskId': 't', 'request': 'r', 'solution': 's', 'id': ''}", "id"},
        {"brain_store", "{'taskId': 't', 'request': 'r', 'solution': 's', 'tokens': 'x'}",
         "tokens"},
        {"brain_store", "{'taskId': 't', 'request': 'r', 'solution': 's', 'timestamp': 'then'}",
         "timestamp"},
        {"brain_store", "{'taskId': 't', 'request': 'r', 'solution': 's', 'artifacts': '[1'}",
         "artifacts"},
        {"brain_update_graph", "{'operation': 'add_edge', 'args': {'from': 'a', 'to': 'b'}}",
         "relation"},
        {"brain_update_graph",
         "{'operation': 'add_edge', 'args': {'from': 'a', 'to': 'b', "
         "'relation': 'r', 'weight': 1}}",
         "weight"},
        {"brain_update_graph", "{'operation': 'add_node', 'args': '{\\'id\\':'}", ""},
        {"brain_query_graph", "{'query': 'x', 'limit': 0}", "limit"},
        {"graph_neighbors", "{'id': 'a', 'depth': 0}", "depth"},
        {"graph_neighbors", "{'id': 'a', 'depth': 1000000000}", "depth"},
        {"graph_path", "{'from': 'a'}", "to"},
        {"recall_delegation_patterns", "{'task_type': ''}", "task_type"},
        {"recall_delegation_patterns", "{'task_type': 'x', 'since': 9, 'until': 1}", "since"},
        {"log_experience",
         "{'taskId': 't', 'task_type': 'x', 'agent_used': 'a', 'outcome': '', "
         "'summary': ''}",
         "outcome"},
        {"brain_forget", "{}", "everything"},
        {"brain_forget", "{'everything': true, 'type': 'x'}", "everything"},
        {"brain_forget", "{'filter': {'a': {'about': 1}}}", "about"},
        {"brain_forget", "{'since': 9, 'until': 1}", "since"},
        {"brain_export", "{'cursor': 'zz'}", "cursor"},
        {"brain_export", "{'limit': -1}", "limit"},
        {"brain_maintenance", "{'action': 'polish'}", "rebuild_indices"},
        {"brain_maintenance", "{'action': 'vacuum', 'company': 'nobody'}", "no memory"},
        {"brain_configure", "{'language': 'klingon'}", "there are"},
        {"brain_configure", "{'keep_days': {'a': 'b'}}", "keep_days"},
    };
    house_t house;
    open_house(&house);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        client_reply_t reply = ask(&house, rows[i].method, rows[i].args);
        ck_assert_msg(err_is(reply.err), "%s %s was taken", rows[i].method, rows[i].args);
        ck_assert_msg(reply.err.code != ERR_INTERNAL && reply.err.code != ERR_CORRUPT &&
                          reply.err.code != ERR_IO,
                      "%s %s: %s", rows[i].method, rows[i].args, err_what(reply.err));
        ck_assert_msg(strstr(err_what(reply.err), rows[i].part) != NULL, "no '%s' for %s %s: %s",
                      rows[i].part, rows[i].method, rows[i].args, err_what(reply.err));
    }
    close_house(&house);
}
END_TEST

START_TEST(a_company_has_its_most_memories)
{
    static const char *const settings[] = {"brain.memories_max=3", NULL};
    house_t house;
    open_house_with(&house, settings);
    fill(&house, 0, 3);
    bad(&house, "brain_store", "{'taskId': 'x', 'request': 'x', 'solution': ''}", ERR_QUOTA,
        "brain.memories_max = 3");
    fill(&house, 1, 2); /* in its place */
    good(&house, "brain_store",
         "{'company': 'other', 'taskId': 'x', 'request': 'x', 'solution': ''}");
    good(&house, "brain_delete_episode", "{'id': 'm0'}");
    fill(&house, 9, 10);
    is(&house, good(&house, "brain_check", "{}").body, "memories", "3");
    close_house(&house);
}
END_TEST

START_TEST(companies_do_not_meet)
{
    house_t house;
    open_house(&house);
    good(&house, "brain_store",
         "{'company': 'one', 'id': 'same', 'taskId': 'x', 'request': 'secret plan', 'solution': "
         "'canary1'}");
    good(&house, "brain_store",
         "{'company': 'two', 'id': 'same', 'taskId': 'x', 'request': 'secret plan', 'solution': "
         "'canary2'}");
    good(&house, "brain_update_graph",
         "{'company': 'one', 'operation': 'add_node', 'args': {'id': 'canary1'}}");
    for (int i = 0; i < 2; i++) {
        const char *mine = i ? "two" : "one", *other = i ? "canary1" : "canary2";
        client_reply_t reply = good(
            &house, "brain_query",
            arena_printf(house.arena, "{'company': '%s', 'query': 'secret plan canary'}", mine));
        ck_assert_ptr_null(strstr(get(&house, reply.body, "memories"), other));
        ck_assert_str_ne(get(&house, reply.body, "memories.0"), "");
        is(&house, reply.body, "memories.1", "");
        reply = good(&house, "brain_get",
                     arena_printf(house.arena, "{'company': '%s', 'id': 'same'}", mine));
        ck_assert_ptr_null(strstr(get(&house, reply.body, "memory"), other));
    }
    is(&house, good(&house, "brain_query_graph", "{'company': 'two', 'query': ''}").body, "nodes",
       "[]");
    good(&house, "brain_delete_episode", "{'company': 'one', 'id': 'same'}");
    good(&house, "brain_get", "{'company': 'two', 'id': 'same'}");
    close_house(&house);
}
END_TEST

/* Many companies, few indexes in memory: each still finds its own. */
START_TEST(indexes_come_and_go)
{
    const char *settings[] = {"brain.indexes_open=2", NULL};
    house_t house;
    open_house_with(&house, settings);
    for (int i = 0; i < 8; i++)
        good(&house, "brain_store",
             arena_printf(
                 house.arena,
                 "{'company': 'c%d', 'taskId': 'x', 'request': 'topic %d', 'solution': ''}", i, i));
    for (int i = 0; i < 24; i++) {
        client_reply_t reply =
            good(&house, "brain_query",
                 arena_printf(house.arena, "{'company': 'c%d', 'query': 'topic'}", i * 5 % 8));
        is(&house, reply.body, "memories.0.request",
           arena_printf(house.arena, "\"topic %d\"", i * 5 % 8));
        is(&house, reply.body, "memories.0.vector_rank", "1");
    }
    close_house(&house);
}
END_TEST

static void flip_last_byte_before(const char *path, off_t from_end)
{
    char byte;
    int fd = open(path, O_RDWR);
    off_t at = lseek(fd, 0, SEEK_END) - from_end;

    ck_assert(pread(fd, &byte, 1, at) == 1);
    byte ^= 4;
    ck_assert(pwrite(fd, &byte, 1, at) == 1 && !close(fd));
}

/* Builds come by themselves, after a query that would have liked one. */
static void await_index(house_t *house, const char *indexed)
{
    time_t deadline = time(NULL) + 100;

    while (strcmp(get(house, good(house, "brain_stat", "{}").body, "indexed"), indexed) != 0) {
        ck_assert_msg(time(NULL) < deadline, "%s are not in the index", indexed);
        good(house, "brain_query", "{'query': 'wing flutter'}");
    }
}

static void index_is(house_t *house, const char *indexed, const char *tombstones)
{
    client_reply_t reply = good(house, "brain_stat", "{}");

    is(house, reply.body, "loaded", "true");
    is(house, reply.body, "indexed", indexed);
    is(house, reply.body, "tombstones", tombstones);
}

/* What the store got while the snapshot of the vectors lay on the disk is in the index after the
 * next start; and a snapshot that is found damaged while it is used is thrown away. The vectors are
 * long, so that they are more than a start checks before it uses them. */
START_TEST(snapshots_follow_their_store)
{
    enum { MEMORIES = 2200 };
    const char *settings[] = {"brain.dims=1100", "brain.exact_max=1000", "brain.index=HNSW8",
                              "brain.ef_search=64", NULL};
    house_t house;
    open_house_with(&house, settings);
    const char *path = arena_printf(house.arena, "%s/brain/default/vectors.index", house.data);
    fill(&house, 0, MEMORIES);
    await_index(&house, "2200");
    stop(&house);
    start(&house, settings);
    fill(&house, MEMORIES, MEMORIES + 5);
    good(&house, "brain_query", "{'query': 'wing flutter'}");
    index_is(&house, "2200", "0");
    stop(&house);
    start(&house, settings);
    good(&house, "brain_delete_episode", "{'id': 'm5'}");
    fill(&house, 6, 7);
    client_reply_t reply =
        good(&house, "brain_query", "{'query': 'Please look at wing flutter number 2203'}");
    is(&house, reply.body, "memories.0.id", "\"m2203\"");
    is(&house, reply.body, "memories.0.vector_rank", "1");
    index_is(&house, "2200", "2");
    stop(&house);
    flip_last_byte_before(path, MEMORIES * 4 * 2);
    start(&house, settings);
    time_t deadline = time(NULL) + 60;
    do {
        reply = good(&house, "brain_query", "{'query': 'Please look at wing flutter number 2203'}");
        ck_assert_msg(time(NULL) < deadline, "the damage was not found");
    } while (access(path, F_OK) == 0);
    is(&house, reply.body, "memories.0.vector_rank", "1");
    await_index(&house, "2204");
    index_is(&house, "2204", "0");
    close_house(&house);
}
END_TEST

/* Whoever ends the brain does not wait for a build. */
START_TEST(the_end_of_the_brain_ends_a_build)
{
    enum { MEMORIES = 4000 };
    const char *building[] = {"brain.dims=1100", "brain.exact_max=1000", NULL};
    const char *exact[] = {"brain.dims=1100", "brain.exact_max=100000", NULL};
    house_t house;
    open_house_with(&house, exact);
    fill(&house, 0, MEMORIES);
    stop(&house);
    start(&house, building);
    for (int i = 0; i < 3; i++) /* the first one loads it, the next begins a build */
        good(&house, "brain_query", "{'query': 'wing flutter'}");
    stop(&house);
    start(&house, exact);
    good(&house, "brain_query", "{'query': 'wing flutter'}");
    index_is(&house, "0", "0");
    close_house(&house);
}
END_TEST

/* ---- the graph ---- */

static void graph(house_t *house, const char *operation, const char *args)
{
    good(house, "brain_update_graph",
         arena_printf(house->arena, "{'operation': '%s', 'args': %s}", operation, args));
}

START_TEST(the_graph_merges_finds_and_forgets)
{
    house_t house;
    open_house(&house);
    client_reply_t reply = good(&house, "brain_update_graph",
                                "{'operation': 'add_node', 'args': '{\\\"id\\\": \\\"ada\\\", "
                                "\\\"type\\\": \\\"Person\\\"}'}");
    ck_assert_str_eq(reply.text, "Node 'ada' added/updated.");
    graph(&house, "add_node", "{'id': 'ada', 'properties': {'city': 'London', 'born': 1815}}");
    graph(&house, "add_node", "{'id': 'ada', 'properties': {'city': 'Paris', 'born': null}}");
    graph(&house, "add_node", "{'id': 'engine', 'type': 'Machine'}");
    graph(&house, "add_edge",
          "{'from': 'ada', 'to': 'engine', 'relation': 'programs', 'properties': {'since': 1843}}");
    reply = good(&house, "brain_query_graph", "{'query': 'PARIS'}");
    is(&house, reply.body, "nodes",
       "[{\"id\":\"ada\",\"type\":\"Person\",\"properties\":{\"city\":\"Paris\"}}]");
    reply = good(&house, "brain_query_graph", "{'query': 'rogram'}"); /* the middle of a word */
    is(&house, reply.body, "edges.0.relation", "\"programs\"");
    is(&house, reply.body, "nodes", "[]");
    reply = good(&house, "brain_query_graph", "{'query': ''}");
    is(&house, reply.body, "nodes.1.id", "\"engine\"");
    sound(&house);
    graph(&house, "delete_node", "{'id': 'engine'}");
    reply = good(&house, "brain_query_graph", "{'query': ''}");
    is(&house, reply.body, "edges", "[]");
    is(&house, reply.body, "nodes.1", "");
    is(&house,
       good(&house, "brain_update_graph", "{'operation': 'delete_node', 'args': {'id': 'x'}}").body,
       "changed", "false");
    sound(&house);
    close_house(&house);
}
END_TEST

START_TEST(the_graph_is_walked)
{
    house_t house;
    open_house(&house);
    for (int i = 0; i < 20; i++)
        graph(&house, "add_node", arena_printf(house.arena, "{'id': 'n%d'}", i));
    for (int i = 0; i < 19; i++)
        graph(&house, "add_edge",
              arena_printf(house.arena, "{'from': 'n%d', 'to': 'n%d', 'relation': '%s'}", i, i + 1,
                           i % 2 ? "odd" : "even"));
    graph(&house, "add_edge", "{'from': 'n0', 'to': 'n10', 'relation': 'short'}");
    client_reply_t reply = good(&house, "graph_neighbors", "{'id': 'n19'}");
    says(&reply, "'n19' (of no type)\n");
    reply = good(&house, "graph_path", "{'from': 'n0', 'to': 'n12'}");
    is(&house, reply.body, "found", "true");
    is(&house, reply.body, "nodes.1.id", "\"n10\"");
    is(&house, reply.body, "nodes.3.id", "\"n12\"");
    is(&house, reply.body, "edges.2.to", "\"n12\"");
    ck_assert_str_eq(reply.text, "'n0' -[short]-> 'n10' -[even]-> 'n11' -[odd]-> 'n12'");
    is(&house, good(&house, "graph_path", "{'from': 'n12', 'to': 'n0'}").body, "found", "false");
    reply = good(&house, "graph_path", "{'from': 'n0', 'to': 'n12', 'depth': 2}");
    is(&house, reply.body, "found", "false");
    says(&reply, "of at most 2 steps along the edges' directions");
    reply = good(&house, "graph_path", "{'from': 'n0', 'to': 'n21'}");
    is(&house, reply.body, "found", "false");
    says(&reply, "No way from 'n0' to 'n21': there is no node 'n21'.");
    reply = good(&house, "graph_path", "{'from': 'n20', 'to': 'n0', 'company': 'nobody'}");
    says(&reply, "there is no node 'n20'.");
    reply = good(&house, "graph_neighbors", "{'id': 'n10'}");
    is(&house, reply.body, "nodes.2.id", "\"n9\"");
    is(&house, reply.body, "nodes.4", "");
    reply = good(&house, "graph_neighbors", "{'id': 'n10', 'relation': 'short', 'depth': 5}");
    is(&house, reply.body, "edges.0.from", "\"n0\"");
    is(&house, reply.body, "edges.1", "");
    bad(&house, "graph_neighbors", "{'id': 'nothing'}", ERR_NOT_FOUND, "no such node");
    close_house(&house);
}
END_TEST

/* Against a model: random puts and deletes, then everything must agree. */
/* Counts what pages of `limit` bring together; `begin` is the first cursor, "" for none. */
static int read_pages(house_t *house, const char *method, const char *args, const char *begin)
{
    const char *cursor = begin;
    char seen[400][16];
    int count = 0;

    for (int page = 0; page < 100; page++) {
        const char *more = *cursor ? arena_printf(house->arena, ", 'cursor': %s", cursor) : "";
        client_reply_t reply =
            good(house, method, arena_printf(house->arena, "{%s, 'limit': 7%s}", args, more));
        int on_page = 0;
        for (int i = 0; i < 8; i++) {
            const char *node = get(house, reply.body, arena_printf(house->arena, "nodes.%d.id", i));
            const char *edge =
                get(house, reply.body, arena_printf(house->arena, "edges.%d.from", i));
            if (*node)
                snprintf(seen[count + on_page++], 16, "n%s", node);
            if (*edge)
                snprintf(seen[count + on_page++], 16, "e%s", edge);
        }
        count += on_page;
        ck_assert_int_le(on_page, 7);
        ck_assert_int_lt(count, 390);
        cursor = get(house, reply.body, "cursor");
        is(house, reply.body, "more", *cursor ? "true" : "false");
        if (!*cursor)
            break;
    }
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(seen[i], seen[j]);
    return count;
}

START_TEST(the_graph_comes_in_pages)
{
    house_t house;
    open_house(&house);
    for (int i = 0; i < 60; i++)
        good(&house, "brain_update_graph",
             arena_printf(house.arena,
                          "{'operation': 'add_node', 'args': {'id': 'c%d', 'type': 'city', "
                          "'properties': {'names': ['citadel', 'cite%d']}}}",
                          i, i));
    for (int i = 0; i < 40; i++)
        good(&house, "brain_update_graph",
             arena_printf(house.arena,
                          "{'operation': 'add_edge', 'args': {'from': 'c%d', 'to': 'c%d', "
                          "'relation': 'citylink'}}",
                          i, i + 1));
    ck_assert_int_eq(read_pages(&house, "brain_query_graph", "'query': ''", ""), 100);
    ck_assert_int_eq(read_pages(&house, "brain_query_graph", "'query': 'cit'", ""), 100);
    ck_assert_int_eq(read_pages(&house, "brain_query_graph", "'query': 'cit'", "'N00'"), 100);
    ck_assert_int_eq(read_pages(&house, "brain_query_graph", "'query': 'citade'", "'N00'"), 60);
    ck_assert_int_eq(read_pages(&house, "brain_query_graph", "'query': 'cite7'", "'N00'"), 1);
    ck_assert_int_eq(read_pages(&house, "graph_neighbors", "'id': 'c20', 'depth': 5", ""), 21);
    bad(&house, "brain_query_graph", "{'query': '', 'cursor': 'x12'}", ERR_ARGUMENT, "cursor");
    bad(&house, "brain_query_graph", "{'query': '', 'cursor': 'n001'}", ERR_ARGUMENT, "cursor");
    bad(&house, "brain_query_graph", "{'query': '', 'cursor': 'N00'}", ERR_ARGUMENT, "cursor");
    bad(&house, "graph_neighbors", "{'id': 'c1', 'cursor': '-1'}", ERR_ARGUMENT, "cursor");
    close_house(&house);
}
END_TEST

START_TEST(the_graph_agrees_with_a_model)
{
    house_t house;
    bool nodes[8] = {0}, edges[8][8] = {{0}};
    uint64_t seed = 77;
    open_house(&house);
    for (int turn = 0; turn < 300; turn++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        int a = (int)(seed >> 40) % 8, b = (int)(seed >> 45) % 8, what = (int)(seed >> 50) % 5;
        if (what <= 1) {
            graph(&house, "add_node",
                  arena_printf(house.arena, "{'id': 'k%d', 'properties': {'v%d': 'word%d'}}", a, b,
                               turn % 9));
            nodes[a] = true;
        } else if (what <= 2) {
            graph(&house, "add_edge",
                  arena_printf(house.arena,
                               "{'from': 'k%d', 'to': 'k%d', 'relation': 'r', 'properties': {'w': "
                               "%d}}",
                               a, b, turn));
            edges[a][b] = true;
        } else if (what == 3) {
            graph(&house, "delete_edge",
                  arena_printf(house.arena, "{'from': 'k%d', 'to': 'k%d', 'relation': 'r'}", a, b));
            edges[a][b] = false;
        } else {
            graph(&house, "delete_node", arena_printf(house.arena, "{'id': 'k%d'}", a));
            for (int i = 0; nodes[a] && i < 8; i++)
                edges[a][i] = edges[i][a] = false;
            nodes[a] = false;
        }
    }
    sound(&house);
    bytes_t all = good(&house, "brain_query_graph", "{'query': ''}").body;
    const char *node_text = get(&house, all, "nodes"), *edge_text = get(&house, all, "edges");
    for (int i = 0; i < 8; i++) {
        const char *id = arena_printf(house.arena, "{\"id\":\"k%d\"", i);
        ck_assert_msg(nodes[i] == (strstr(node_text, id) != NULL), "node %d", i);
        for (int j = 0; j < 8; j++) {
            const char *edge = arena_printf(house.arena, "{\"from\":\"k%d\",\"to\":\"k%d\"", i, j);
            ck_assert_msg(edges[i][j] == (strstr(edge_text, edge) != NULL), "edge %d %d", i, j);
        }
    }
    close_house(&house);
}
END_TEST

/* ---- experience ---- */

START_TEST(experience_is_counted_exactly)
{
    house_t house;
    open_house(&house);
    for (int i = 0; i < 40; i++)
        good(&house, "log_experience",
             arena_printf(house.arena,
                          "{'taskId': 't%d', 'task_type': '%s', 'agent_used': '%s', 'outcome': "
                          "'%s', 'summary': 'went %d', 'tokens': %d, 'duration': %d}",
                          i, i % 4 == 3 ? "deployment" : "deploy", i % 2 ? "bea" : "abe",
                          i % 4 == 0   ? "success"
                          : i % 4 == 1 ? "Completed."
                                       : "failure",
                          i, i, i));
    fill(&house, 0, 5); /* ordinary memories do not count */
    client_reply_t reply = good(&house, "recall_delegation_patterns", "{'task_type': 'deploy'}");
    is(&house, reply.body, "runs", "30");
    is(&house, reply.body, "agents.0.agent", "\"bea\"");
    is(&house, reply.body, "agents.0.runs", "10");
    is(&house, reply.body, "agents.1.success_rate", "0.5");
    is(&house, reply.body, "agents.1.p95_duration", "36.0");
    ck_assert_ptr_nonnull(strstr(reply.text, "Found 30 relevant experiences for 'deploy'.\n"
                                             "Overall Success Rate: 67%\n\nAgent Performance:\n"
                                             "- bea: 100% success (10/10)"));
    ck_assert_ptr_nonnull(strstr(reply.text, "\n- abe: 50% success (10/20)"));
    reply =
        good(&house, "recall_delegation_patterns", "{'task_type': 'deploy', 'query': 'went 20'}");
    is(&house, reply.body, "examples.0.taskId", "\"t20\"");
    says(&reply, "\n\nNearest Experiences:\n\n[Task: t20]\n");
    const char *id = get(&house, reply.body, "examples.0.id");
    good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': %s}", id));
    is(&house, good(&house, "recall_delegation_patterns", "{'task_type': 'deploy'}").body, "runs",
       "29");
    is(&house,
       good(&house, "recall_delegation_patterns",
            "{'task_type': 'deploy', 'until': '2001-01-01T00:00:00Z'}")
           .body,
       "runs", "0");
    good(&house, "log_experience",
         "{'taskId': 'x', 'task_type': 'slow', 'agent_used': 'abe', 'outcome': 'done', 'summary': "
         "'', 'duration': 1234567}");
    reply = good(&house, "recall_delegation_patterns", "{'task_type': 'slow'}");
    says(&reply, "mean duration 1234567, p95 1234567");
    bad(&house, "log_experience",
        "{'taskId': 'x', 'task_type': 'slow', 'agent_used': 'abe', 'outcome': 'done', 'summary': "
        "'', 'duration': -1}",
        ERR_ARGUMENT, "duration");
    sound(&house);
    close_house(&house);
}
END_TEST

START_TEST(procedures_come_from_the_agent)
{
    house_t house;
    open_house(&house);
    client_reply_t reply = good(&house, "brain_get_sop", "{'name': 'deploy'}");
    ck_assert_str_eq(reply.text, "# Deploy\n\n1. Push.\n");
    is(&house, reply.body, "content", "\"# Deploy\\n\\n1. Push.\\n\"");
    bad(&house, "brain_get_sop", "{'name': 'x'}", ERR_NOT_FOUND, "there are: deploy");
    close_house(&house);
}
END_TEST

/* Enough memories that fresh words are merged, with deletions on both sides of the border. */
START_TEST(words_are_the_same_before_and_after_merging)
{
    house_t house;
    open_house(&house);
    fill(&house, 0, 1990);
    client_reply_t before =
        good(&house, "brain_query", "{'query': 'chart deployment number 777', 'limit': 30}");
    fill(&house, 1990, 2100);
    client_reply_t after =
        good(&house, "brain_query",
             "{'query': 'chart deployment number 777', 'limit': 30, 'until': 1700001990000}");
    for (int i = 0; i < 5; i++)
        ck_assert_str_eq(get(&house, before.body, arena_printf(house.arena, "memories.%d.id", i)),
                         get(&house, after.body, arena_printf(house.arena, "memories.%d.id", i)));
    sound(&house);
    for (int i = 0; i < 2100; i += 7)
        good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': 'm%d'}", i));
    is(&house, good(&house, "brain_check", "{}").body, "memories", "1800");
    client_reply_t reply =
        good(&house, "brain_query", "{'query': 'chart deployment', 'limit': 100}");
    for (int i = 0; i < 2100; i += 7)
        ck_assert_ptr_null(strstr(reply.text, arena_printf(house.arena, "[Task: t%d]", i)));
    close_house(&house);
}
END_TEST

/* ---- care ---- */

/* Deletes or spoils some rows of a table behind the brain's back. */
static void damage(house_t *house, int table, int every)
{
    static const store_table_t tables[] = {
#define TABLE_ROW(name) {#name},
        BRAIN_TABLES(TABLE_ROW)
#undef TABLE_ROW
            {NULL}};
    store_pool_t *pool;
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value;
    int row = 0;
    store_pool_options_t options = {
        .dir = arena_printf(house->arena, "%s/brain", house->data), .tables = tables, .format = 1};

    ck_assert(!err_is(store_pool_open(&options, &pool, house->arena)));
    ck_assert(!err_is(store_begin_write(pool, "default", &txn, house->arena)));
    ck_assert(!err_is(store_scan_open(&scan, txn, table, (bytes_t){0}, (bytes_t){0}, false)));
    while (store_scan_next(&scan, &key, &value))
        if (row++ % every == 0)
            ck_assert(!err_is(store_scan_del(&scan)));
    store_scan_close(&scan);
    ck_assert(!err_is(store_commit(&txn)));
    store_pool_close(&pool);
    ck_assert_int_gt(row, 0);
}

static void store_apples(house_t *house, int from, int to)
{
    for (int i = from; i < to; i++)
        good(house, "brain_store",
             arena_printf(house->arena,
                          "{'taskId': 'x', 'request': 'apple number %d', 'solution': 'pear'}", i));
}

static void wait_for_merge(house_t *house)
{
    client_reply_t reply;
    time_t end = time(NULL) + 30;

    do {
        ck_assert_int_lt(time(NULL), end);
        reply = good(house, "brain_stat", "{}");
    } while (strcmp(get(house, reply.body, "unmerged"), "0") != 0);
}

/* Without anybody asking, once nothing more is stored, and also when the brain ended before. */
START_TEST(words_are_merged_when_it_is_quiet)
{
    house_t house;

    open_house(&house);
    store_apples(&house, 0, 300);
    wait_for_merge(&house);
    store_apples(&house, 300, 600);
    stop(&house);
    start(&house, NULL);
    wait_for_merge(&house);
    client_reply_t reply = good(&house, "brain_query", "{'query': 'apple 377'}");
    is(&house, reply.body, "memories.0.request", "\"apple number 377\"");
    good(&house, "brain_check", "{}");
    close_house(&house);
}
END_TEST

START_TEST(damage_is_found_and_mended)
{
    static const int tables[] = {TABLE_postings, TABLE_heads,   TABLE_episode_ids,
                                 TABLE_threads,  TABLE_vectors, TABLE_episodes};
    house_t house;
    open_house(&house);
    fill(&house, 0, 450);
    for (int i = 0; i < 10; i++)
        good(&house, "brain_store",
             arena_printf(house.arena,
                          "{'id': 'th%d', 'taskId': 'x', 'thread': 'th', 'request': 'say %d', "
                          "'solution': ''}",
                          i, i));
    good(&house, "brain_maintenance", "{'action': 'optimize'}"); /* so that there are postings */
    fill(&house, 450, 470);
    const char *before =
        get(&house, good(&house, "brain_query", "{'query': 'wing flutter 77', 'limit': 50}").body,
            "memories");
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        stop(&house);
        damage(&house, tables[i], 7);
        start(&house, NULL);
        bad(&house, "brain_maintenance", "{'action': 'verify'}", ERR_CORRUPT, "");
        client_reply_t reply = good(&house, "brain_maintenance", "{'action': 'rebuild_indices'}");
        ck_assert_str_ne(get(&house, reply.body, "memories"), "");
        good(&house, "brain_maintenance", "{'action': 'verify'}");
        if (tables[i] == TABLE_episodes)
            break; /* those are lost, but nothing leads to them any more */
        const char *after = get(
            &house, good(&house, "brain_query", "{'query': 'wing flutter 77', 'limit': 50}").body,
            "memories");
        ck_assert_str_eq(before, after);
    }
    fill(&house, 470, 480);
    sound(&house);
    close_house(&house);
}
END_TEST

START_TEST(a_rebuild_goes_on_beside_writers)
{
    house_t house;
    uint64_t id;
    open_house(&house);
    fill(&house, 0, 900);
    good(&house, "brain_maintenance", "{'action': 'optimize'}");
    const char *json = "{\"action\": \"rebuild_indices\"}";
    bytes_t args;
    ck_assert(!err_is(json_to_msgpack(house.arena, json, strlen(json), NULL, &args)));
    client_call_t call = {.peer = "brain",
                          .method = "brain_maintenance",
                          .args = args,
                          .role = ROLE_ADMIN,
                          .timeout_ms = 60000};
    client_t *other = NULL;
    ck_assert(!err_is(client_open_host(house.host, &other)));
    client_send(other, &call);
    for (int i = 0; i < 60; i++) { /* on both sides of the rebuild's place */
        good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': 'm%d'}", i * 14));
        fill(&house, 900 + i, 901 + i);
    }
    client_reply_t reply = client_wait(other, house.arena, 60000, &id);
    ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
    client_close(&other);
    is(&house, good(&house, "brain_check", "{}").body, "memories", "900");
    close_house(&house);
}
END_TEST

/* Everything out, everything in again elsewhere, twice, in small pages. */
START_TEST(export_and_import_move_a_company)
{
    house_t house;
    const char *cursor = "";
    open_house(&house);
    fill(&house, 0, 40);
    for (int i = 0; i < 9; i++)
        good(&house, "log_experience",
             arena_printf(house.arena,
                          "{'taskId': 't', 'task_type': 'move', 'agent_used': 'a%d', 'outcome': "
                          "'success', 'summary': 's', 'duration': %d}",
                          i % 2, i));
    graph(&house, "add_node", "{'id': 'n', 'type': 'T', 'properties': {'a': [1, 'x']}}");
    graph(&house, "add_edge", "{'from': 'n', 'to': 'm', 'relation': 'r', 'properties': {'b': 2}}");
    for (int page = 0; page < 100; page++) {
        client_reply_t reply =
            good(&house, "brain_export",
                 *cursor ? arena_printf(house.arena, "{'limit': 7, 'cursor': %s}", cursor)
                         : "{'limit': 7}");
        buf_t in;
        bytes_t lines;
        buf_open(&in, house.arena);
        ck_assert(mp_get(reply.body, "lines", &lines));
        mp_put_map(&in, 2);
        mp_put_str(&in, "company");
        mp_put_str(&in, "copy");
        mp_put_str(&in, "lines");
        mp_put_raw(&in, lines);
        client_call_t call = {.peer = "brain",
                              .method = "brain_import",
                              .args = buf_bytes(&in),
                              .role = ROLE_ADMIN,
                              .timeout_ms = 20000};
        for (int twice = 0; twice < 2; twice++) {
            client_reply_t put = client_call(house.client, house.arena, &call);
            ck_assert_msg(!err_is(put.err), "%s", err_what(put.err));
            is(&house, put.body, "faults", "[]");
            is(&house, put.body, "imported", get(&house, reply.body, "count"));
        }
        cursor = get(&house, reply.body, "cursor");
        if (!*cursor)
            break;
    }
    is(&house, good(&house, "brain_check", "{'company': 'copy'}").body, "memories", "49");
    static const char *const questions[][2] = {
        {"brain_query", "'query': 'login page 10', 'limit': 1"},
        {"brain_query_graph", "'query': ''"},
        {"recall_delegation_patterns", "'task_type': 'move'"}};
    for (int i = 0; i < 3; i++) {
        const char *one =
            good(&house, questions[i][0], arena_printf(house.arena, "{%s}", questions[i][1])).text;
        const char *two =
            good(&house, questions[i][0],
                 arena_printf(house.arena, "{'company': 'copy', %s}", questions[i][1]))
                .text;
        ck_assert_str_eq(one, two);
    }
    client_reply_t reply =
        good(&house, "brain_import",
             "{'lines': '{\\\"id\\\": \\\"whole\\\", \\\"timestamp\\\": 5, \\\"request\\\": "
             "\\\"kept\\\"}\\nrubbish\\n{\\\"id\\\": \\\"half\\\", \\\"tim'}");
    is(&house, reply.body, "imported", "1");
    is(&house, reply.body, "refused", "2");
    is(&house, reply.body, "faults.0.line", "2");
    is(&house, reply.body, "faults.1.line", "3");
    reply = good(&house, "brain_import",
                 "{'lines': '{\\\"id\\\": \\\"flat\\\", \\\"timestamp\\\": 5, \\\"metadata\\\": "
                 "\\\"x\\\"}'}");
    is(&house, reply.body, "imported", "0");
    is(&house, reply.body, "faults.0.what", "\"metadata must be an object\"");
    bad(&house, "brain_export", "{'cursor': 'zz'}", ERR_ARGUMENT, "cursor");
    sound(&house);
    close_house(&house);
}
END_TEST

START_TEST(what_is_to_be_forgotten_is)
{
    house_t house;
    open_house(&house);
    fill(&house, 0, 500);
    graph(&house, "add_edge", "{'from': 'a', 'to': 'b', 'relation': 'r'}");
    graph(&house, "add_node", "{'id': 'a'}");
    bad(&house, "brain_forget", "{}", ERR_ARGUMENT, "say what");
    bad(&house, "brain_forget", "{'everything': true, 'type': 'x'}", ERR_ARGUMENT, "everything");
    client_reply_t reply =
        good(&house, "brain_forget", "{'filter': {'even': true}, 'until': 1700000400000}");
    is(&house, reply.body, "deleted", "200");
    is(&house, good(&house, "brain_check", "{}").body, "memories", "300");
    is(&house, good(&house, "brain_stat", "{}").body, "memories", "300");
    reply = good(&house, "brain_forget", "{'everything': true}");
    is(&house, reply.body, "deleted", "300");
    is(&house, good(&house, "brain_query", "{'query': 'wing flutter'}").body, "memories", "[]");
    is(&house, good(&house, "brain_query_graph", "{'query': ''}").body, "edges", "[]");
    sound(&house);
    good(&house, "brain_maintenance", "{'action': 'vacuum'}");
    fill(&house, 0, 5);
    is(&house, good(&house, "brain_check", "{}").body, "memories", "5");
    close_house(&house);
}
END_TEST

/* ---- readers beside writers ---- */

typedef struct reader {
    house_t *house;
    client_t *client;
    atomic_bool *stop;
    atomic_int *asked, *wrong;
} reader_t;

static void *read_on(void *ctx)
{
    reader_t *reader = ctx;
    arena_t *arena = arena_new();

    while (!atomic_load(reader->stop)) {
        bytes_t args;
        const char *json = "{\"query\": \"cornerstone\", \"limit\": 5}";
        ck_assert(!err_is(json_to_msgpack(arena, json, strlen(json), NULL, &args)));
        client_call_t call = {.peer = "brain",
                              .method = "brain_query",
                              .args = args,
                              .role = ROLE_ADMIN,
                              .timeout_ms = 20000};
        client_reply_t reply = client_call(reader->client, arena, &call);
        bytes_t found, first, id;
        if (err_is(reply.err) || !mp_get(reply.body, "memories", &found) ||
            !mp_at(found, 0, &first) || !mp_get(first, "id", &id) || !mp_equals(id, "corner"))
            atomic_fetch_add(reader->wrong, 1);
        atomic_fetch_add(reader->asked, 1);
        arena_reset(arena);
    }
    arena_destroy(&arena);
    return NULL;
}

/* Memories that differ only by when they were; a query says how long ago. */
START_TEST(a_distance_in_time_is_understood)
{
    static const struct {
        const char *query, *id;
    } asked[] = {{"the budget meeting yesterday", "day-1"},
                 {"What was said of the budget LAST YEAR?", "day-3"},
                 {"budget meeting today", "day-0"},
                 {"budget von gestern", "day-1"}};
    house_t house;
    open_house(&house);
    time_t now = time(NULL);
    struct tm summer;
    ck_assert_ptr_nonnull(gmtime_r(&now, &summer));
    summer = (struct tm){.tm_year = summer.tm_year - 1, .tm_mon = 6, .tm_mday = 1};
    const time_t times[] = {now, now - 86400, now - 2 * 86400, timegm(&summer)};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        good(&house, "brain_store",
             arena_printf(house.arena,
                          "{'id': 'day-%zu', 'taskId': 't', 'request': 'budget meeting', "
                          "'solution': 'notes of the budget', 'timestamp': %lld}",
                          i, (long long)times[i] * 1000));
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        client_reply_t reply = good(&house, "brain_query",
                                    arena_printf(house.arena, "{'query': '%s'}", asked[i].query));
        is(&house, reply.body, "memories.0.id", arena_printf(house.arena, "\"%s\"", asked[i].id));
    }
    close_house(&house);
}
END_TEST

/* With the index small enough that it is rebuilt again and again meanwhile. */
START_TEST(reading_goes_on_beside_writing_and_rebuilding)
{
    const char *settings[] = {"brain.exact_max=50", "brain.index=HNSW8", NULL};
    atomic_bool end = false;
    atomic_int asked = 0, wrong = 0;
    reader_t readers[2];
    pthread_t threads[2];
    house_t house;
    open_house_with(&house, settings);
    good(&house, "brain_store",
         "{'id': 'corner', 'taskId': 'c', 'request': 'cornerstone', 'solution': ''}");
    for (int i = 0; i < 2; i++) {
        readers[i] = (reader_t){&house, NULL, &end, &asked, &wrong};
        ck_assert(!err_is(client_open_host(house.host, &readers[i].client)));
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    fill(&house, 0, 300);
    for (int i = 0; i < 300; i += 2)
        good(&house, "brain_delete_episode", arena_printf(house.arena, "{'id': 'm%d'}", i));
    fill(&house, 300, 400);
    atomic_store(&end, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        client_close(&readers[i].client);
    }
    ck_assert_int_gt(atomic_load(&asked), 0);
    ck_assert_int_eq(atomic_load(&wrong), 0);
    sound(&house);
    client_reply_t reply = good(&house, "brain_query", "{'query': 'wing flutter', 'limit': 100}");
    for (int i = 0; i < 300; i += 2)
        ck_assert_ptr_null(strstr(reply.text, arena_printf(house.arena, "[Task: t%d]", i)));
    close_house(&house);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain");
    TCase *tcase = tcase_create("brain");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, a_memory_is_stored_found_read_and_deleted);
    tcase_add_test(tcase, nothing_answers_nothing);
    tcase_add_test(tcase, an_id_is_replaced_not_doubled);
    tcase_add_test(tcase, memory_survives_and_stays_sound);
    tcase_add_test(tcase, lists_come_in_pages);
    tcase_add_test(tcase, filters_act_before_the_limit);
    tcase_add_test(tcase, who_when_and_what_was_next_help);
    tcase_add_test(tcase, newer_comes_first_when_asked);
    tcase_add_test(tcase, the_same_text_is_kept_once_on_request);
    tcase_add_test(tcase, answers_have_the_old_form_too);
    tcase_add_test(tcase, the_text_says_what_the_reply_says);
    tcase_add_test(tcase, filters_look_into_objects_and_times);
    tcase_add_test(tcase, bad_input_is_refused_clearly);
    tcase_add_test(tcase, what_json_cannot_say_is_refused);
    tcase_add_test(tcase, every_tool_refuses_what_it_cannot_use);
    tcase_add_test(tcase, a_company_has_its_most_memories);
    tcase_add_test(tcase, companies_do_not_meet);
    tcase_add_test(tcase, indexes_come_and_go);
    tcase_add_test(tcase, snapshots_follow_their_store);
    tcase_add_test(tcase, the_end_of_the_brain_ends_a_build);
    tcase_add_test(tcase, the_graph_merges_finds_and_forgets);
    tcase_add_test(tcase, the_graph_is_walked);
    tcase_add_test(tcase, the_graph_comes_in_pages);
    tcase_add_test(tcase, the_graph_agrees_with_a_model);
    tcase_add_test(tcase, experience_is_counted_exactly);
    tcase_add_test(tcase, procedures_come_from_the_agent);
    tcase_add_test(tcase, words_are_the_same_before_and_after_merging);
    tcase_add_test(tcase, words_are_merged_when_it_is_quiet);
    tcase_add_test(tcase, damage_is_found_and_mended);
    tcase_add_test(tcase, a_rebuild_goes_on_beside_writers);
    tcase_add_test(tcase, export_and_import_move_a_company);
    tcase_add_test(tcase, what_is_to_be_forgotten_is);
    tcase_add_test(tcase, a_distance_in_time_is_understood);
    tcase_add_test(tcase, reading_goes_on_beside_writing_and_rebuilding);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
