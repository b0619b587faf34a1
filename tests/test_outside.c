/* Foreign MCP servers, as far as they are words: mcp.json, and what servers send. The whole of it,
 * with real servers, is tests/e2e/outside.test.mjs. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "actors/outside/answer.h"
#include "actors/outside/begun.h"
#include "actors/outside/config.h"
#include "actors/outside/outside.h"
#include "actors/outside/wire.h"
#include "bus/address.h"
#include "bus/child.h"
#include "bus/handover.h"
#include "house.h"
#include "proto/frame.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- mcp.json ---- */

static const char *variable(const char *name)
{
    if (!strcmp(name, "TOKEN"))
        return "s3cret-token";
    return !strcmp(name, "PATH") ? "/usr/bin" : NULL;
}

static char *quoted(arena_t *arena, const char *json)
{
    char *copy = arena_strdup(arena, json);
    for (char *at = copy; *at; at++)
        *at = *at == '\'' ? '"' : *at;
    return copy;
}

static err_t parse(arena_t *arena, const char *json, config_t *config)
{
    const char *text = quoted(arena, json);
    return config_parse(text, strlen(text), (config_limits_t){1 << 20, 64}, variable, arena,
                        config);
}

typedef struct wrong {
    const char *json, *said;
} wrong_t;

static const wrong_t wrongs[] = {
    {"[]", "must be an object"},
    {"{", "line 1"},
    {"{'servers':{}}", "servers"},
    {"{'mcpServers':[]}", "name to server"},
    {"{'mcpServers':{'a/b':{'command':'x'}}}", "no name of a server"},
    {"{'mcpServers':{'a':{}}}", "needs command"},
    {"{'mcpServers':{'a':{'command':'x','url':'http://x'}}}", "keep one"},
    {"{'mcpServers':{'a':{'command':'x','arg':['1']}}}", "args"},
    {"{'mcpServers':{'a':{'command':'x','headers':{'A':'b'}}}}", "headers go with url"},
    {"{'mcpServers':{'a':{'url':'http://x','cwd':'/'}}}", "go with command"},
    {"{'mcpServers':{'a':{'url':'http://x','type':'websocket'}}}", "type 'websocket'"},
    {"{'mcpServers':{'a':{'url':'http://x','headers':{'A':7}}}}", "quote numbers"},
    {"{'mcpServers':{'a':{'url':'http://x','headers':{'A':'b\\r\\nC: d'}}}}", "line end"},
    {"{'mcpServers':{'a':{'command':'x','timeout_ms':0}}}", "timeout_ms"},
    {"{'mcpServers':{'a':{'command':'x','tool_timeout_ms':{'t':-1}}}}", "tool_timeout_ms"}};

static const char *endpoint(arena_t *arena, const char *text)
{
    char *url = pair_endpoint("https://a.example:1/b/sse?k=v", text);
    const char *copy = url ? arena_strdup(arena, url) : "none";
    free(url);
    return copy;
}

START_TEST(the_endpoint_is_at_its_own_address)
{
    static const char *const rows[][2] = {{"/messages?s=1", "https://a.example:1/messages?s=1"},
                                          {"messages?s=1", "https://a.example:1/b/messages?s=1"},
                                          {"https://a.example:1/m", "https://a.example:1/m"},
                                          {"https://a.example:1.evil/m", "none"},
                                          {"https://evil.example/m", "none"},
                                          {"//evil.example/m", "none"},
                                          {"/m\r\nX: y", "none"},
                                          {"", "none"}};
    arena_t *arena = arena_new();
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        ck_assert_str_eq(endpoint(arena, rows[i][0]), rows[i][1]);
    arena_destroy(&arena);
}
END_TEST

START_TEST(the_id_of_what_cannot_be_read)
{
    static const struct {
        const char *json;
        int64_t id;
    } rows[] = {{"{\"id\":7,\"result\":[[[", 7},
                {"{\"result\":{\"id\":9},\"a\":\"\\\"id\\\":3\", \"id\" : 12}", 12},
                {"{\"method\":\"id\",\"x\":1}", -1},
                {"{\"id\":\"7\"}", -1},
                {"[{\"id\":7}]", -1},
                {"{\"id", -1},
                {"{\"id\"", -1},
                {"{\"id\":", -1}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        ck_assert_int_eq(answer_id(rows[i].json, strlen(rows[i].json)), rows[i].id);
}
END_TEST

START_TEST(what_is_wrong_with_the_file_is_said)
{
    const wrong_t *row = &wrongs[_i];
    arena_t *arena = arena_new();
    config_t config;
    err_t err = parse(arena, row->json, &config);
    ck_assert_msg(err_is(err) && strstr(err_what(err), row->said), "%s: %s", row->json,
                  err_what(err));
    ck_assert_uint_eq(config.count, 0);
    arena_destroy(&arena);
}
END_TEST

START_TEST(a_server_is_what_the_file_says)
{
    arena_t *arena = arena_new();
    config_t config;
    err_t err = parse(arena,
                      "{'mcpServers':{'one':{'command':'srv','args':['-t','${TOKEN}'],"
                      "'env':{'A':'x${TOKEN}y','B':'${NOT:-b}'},'companies':['acme'],"
                      "'tools':['t'],'timeout_ms':5,'tool_timeout_ms':{'u':7}},"
                      "'two':{'type':'http','url':'https://h/${TOKEN}','headers':{'X':'${NOPE}'}},"
                      "'three':{'url':'ftp://h'}}}",
                      &config);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    ck_assert_uint_eq(config.count, 3);
    const config_server_t *one = &config.servers[0], *two = &config.servers[1];
    ck_assert_ptr_null(one->problem);
    ck_assert_str_eq(one->argv[2], "s3cret-token");
    ck_assert_str_eq(one->env[0], "A=xs3cret-tokeny");
    ck_assert_str_eq(one->env[1], "B=b");
    ck_assert_str_eq(one->env[2], "PATH=/usr/bin");
    ck_assert_ptr_null(one->env[3]);
    ck_assert(config_serves(one, "acme") && !config_serves(one, "other"));
    ck_assert(config_serves(two, "other"));
    ck_assert(config_offers(one, "t") && !config_offers(one, "u"));
    ck_assert_int_eq(config_timeout_of(one, "t"), 5);
    ck_assert_int_eq(config_timeout_of(one, "u"), 7);
    ck_assert_str_eq(config_redact(one, "a s3cret-token, xs3cret-tokeny", arena), "a ***, ***");
    ck_assert_ptr_nonnull(strstr(two->problem, "NOPE is not set"));
    ck_assert_ptr_nonnull(strstr(config.servers[2].problem, "http://"));
    ck_assert_str_ne(one->digest, two->digest);
    err = parse(arena, "{'mcpServers':{'a':{'url':'http://h','headers':{'A':'Bearer sk-123456'}}}}",
                &config);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    ck_assert_str_eq(config_redact(config.servers, "no such key: sk-123456", arena),
                     "no such key: ***");
    arena_destroy(&arena);
}
END_TEST

/* ---- Events ---- */

typedef struct heard {
    buf_t text;
} heard_t;

static void hear(void *ctx, const event_seen_t *event)
{
    heard_t *heard = ctx;
    buf_printf(&heard->text, "[%s|%s|%lld]", event->data ? event->data : "-", event->id,
               (long long)event->retry_ms);
}

static const struct {
    const char *stream, *heard;
} streams[] = {
    {"data: a\n\n", "[a||-1]"},
    {"data:a\r\ndata: b\r\n\r\n", "[a\nb||-1]"},
    {": comment\n\ndata: x\n\n", "[x||-1]"},
    {"id: 7\nretry: 250\ndata:\n\ndata: y\n\n", "[|7|250][y|7|250]"},
    {"id: 1\n\n", "[-|1|-1]"},
    {"retry: 1x\ndata: z\r\r", "[z||-1]"},
    {"event: message\ndata: {\"a\":1}\n\ndata: never ended", "[{\"a\":1}||-1]"},
    {"data\n\n", "[||-1]"},
};

/* However the bytes are cut. */
START_TEST(events_are_read_in_parts)
{
    const char *stream = streams[_i].stream;
    size_t size = strlen(stream);
    for (size_t step = 1; step <= size; step++) {
        arena_t *arena = arena_new();
        events_t *events = events_new(1000);
        heard_t heard;
        buf_open(&heard.text, arena);
        for (size_t at = 0; at < size; at += step) {
            size_t part = size - at < step ? size - at : step;
            ck_assert(
                events_feed(events, (bytes_t){(const uint8_t *)stream + at, part}, hear, &heard));
        }
        ck_assert_str_eq(heard.text.data, streams[_i].heard);
        events_destroy(&events);
        arena_destroy(&arena);
    }
}
END_TEST

START_TEST(an_event_without_end_is_refused)
{
    events_t *events = events_new(100);
    bytes_t part = {(const uint8_t *)"data: 0123456789\n", 17};
    arena_t *arena = arena_new();
    heard_t heard;
    bool fine = true;
    buf_open(&heard.text, arena);
    for (int i = 0; i < 20 && fine; i++)
        fine = events_feed(events, part, hear, &heard);
    ck_assert(!fine);
    ck_assert_str_eq(heard.text.data, "");
    events_destroy(&events);
    arena_destroy(&arena);
}
END_TEST

/* ---- Answers ---- */

static const struct {
    const char *json;
    bool good;
    answer_kind_t kind;
    int64_t id;
} messages[] = {
    {"{'jsonrpc':'2.0','id':7,'result':{}}", true, ANSWER_RESULT, 7},
    {"{'jsonrpc':'2.0','id':'x','result':{}}", true, ANSWER_RESULT, -1},
    {"{'jsonrpc':'2.0','id':7,'error':{'code':-5,'message':'no'}}", true, ANSWER_ERROR, 7},
    {"{'jsonrpc':'2.0','id':7,'error':{}}", true, ANSWER_ERROR, 7},
    {"{'jsonrpc':'2.0','id':7,'method':'ping'}", true, ANSWER_REQUEST, 7},
    {"{'jsonrpc':'2.0','method':'notifications/progress','params':[1]}", true, ANSWER_NOTE, -1},
    {"{'jsonrpc':'1.0','id':7,'result':{}}", false, 0, 0},
    {"{'jsonrpc':'2.0','id':7,'result':[]}", false, 0, 0},
    {"{'jsonrpc':'2.0','id':7,'method':8}", false, 0, 0},
    {"{'jsonrpc':'2.0','id':7}", false, 0, 0},
    {"[]", false, 0, 0},
    {"null", false, 0, 0},
};

START_TEST(messages_are_sorted)
{
    arena_t *arena = arena_new();
    answer_t answer;
    err_t err = answer_read(arena, house_pack(arena, messages[_i].json), &answer);
    ck_assert_msg(err_is(err) != messages[_i].good, "%s", messages[_i].json);
    if (messages[_i].good) {
        ck_assert_int_eq(answer.kind, messages[_i].kind);
        ck_assert_int_eq(answer.id, messages[_i].id);
    }
    arena_destroy(&arena);
}
END_TEST

START_TEST(a_result_is_what_a_step_sees)
{
    static const struct {
        const char *result, *value, *error;
    } rows[] = {
        {"{'content':[],'structuredContent':{'a':1}}", "{'a':1}", NULL},
        {"{'content':[{'type':'text','text':'a'},{'type':'image'},{'type':'text','text':'b'}]}",
         "{'text':'a\\nb','content':[{'type':'text','text':'a'},{'type':'image'},"
         "{'type':'text','text':'b'}]}",
         NULL},
        {"{}", "{'text':'','content':[]}", NULL},
        {"{'content':[{'type':'text','text':'no'}],'isError':true}", NULL, "no"},
        {"{'isError':true}", NULL, "the tool failed without saying why"},
        {"{'content':'x','structuredContent':7}", "{'text':'','content':'x'}", NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        arena_t *arena = arena_new();
        bytes_t value;
        const char *error;
        buf_t json;
        buf_open(&json, arena);
        err_t err = answer_value(arena, house_pack(arena, rows[i].result), &value, &error);
        ck_assert(!err_is(err));
        ck_assert(!err_is(json_from_msgpack(value, JSON_COMPACT, &json)));
        if (rows[i].value)
            ck_assert_str_eq(json.data, quoted(arena, rows[i].value));
        if (rows[i].error)
            ck_assert_str_eq(error, rows[i].error);
        else
            ck_assert_ptr_null(error);
        arena_destroy(&arena);
    }
    arena_t *arena = arena_new();
    bytes_t value;
    const char *error;
    ck_assert(err_is(
        answer_value(arena, house_pack(arena, "{'resultType':'input_required'}"), &value, &error)));
    arena_destroy(&arena);
}
END_TEST

START_TEST(a_tool_is_judged_alone)
{
    arena_t *arena = arena_new();
    foreign_tool_t tool;
    ck_assert(!answer_tool(arena, house_pack(arena, "7"), &tool));
    ck_assert(!answer_tool(arena, house_pack(arena, "{'name':''}"), &tool));
    ck_assert(answer_tool(arena, house_pack(arena, "{'name':'a b','inputSchema':{}}"), &tool));
    ck_assert_ptr_nonnull(tool.problem);
    ck_assert(answer_tool(
        arena,
        house_pack(arena,
                   "{'name':'t','title':'T','annotations':{'idempotentHint':true},"
                   "'inputSchema':{'type':'object','properties':{'r':{'type':'string',"
                   "'x-mcp-header':'Region'},'o':{'type':'object','properties':{'n':{"
                   "'type':'integer','x-mcp-header':'Num'}}},'b':{'x-mcp-header':'no ok'}}}}"),
        &tool));
    ck_assert_ptr_null(tool.problem);
    ck_assert(tool.repeatable && !tool.reads);
    ck_assert_str_eq(tool.doc, "T");
    ck_assert_uint_eq(tool.header_count, 2);
    bytes_t args = house_pack(arena, "{'r':'Zürich','o':{'n':5}}");
    ck_assert_str_eq(tool.headers[0].name, "Region");
    ck_assert_str_eq(answer_header(arena, &tool.headers[0], args), "=?base64?WsO8cmljaA==?=");
    ck_assert_str_eq(answer_header(arena, &tool.headers[1], args), "5");
    ck_assert_ptr_null(answer_header(arena, &tool.headers[1], house_pack(arena, "{'r':'a'}")));
    ck_assert_str_eq(answer_header_text(arena, "plain text"), "plain text");
    ck_assert_str_eq(answer_header_text(arena, " x"), "=?base64?IHg=?=");
    ck_assert_str_eq(answer_header_text(arena, "=?base64?x?="), "=?base64?PT9iYXNlNjQ/eD89?=");
    arena_destroy(&arena);
}
END_TEST

/* ---- A call whose answer is lost ---- */

START_TEST(what_was_forgotten_counts_as_begun)
{
    static begun_t begun;
    char effect[16];
    begun = (begun_t){0};
    ck_assert(begun_maybe(&begun, "acme", "", 5));
    ck_assert(!begun_maybe(&begun, "acme", "e0", 5));
    for (int i = 0; i < BEGUN_MOST; i++) {
        snprintf(effect, sizeof(effect), "e%d", i);
        begun_note(&begun, "acme", effect, 10 + i);
    }
    ck_assert(begun_maybe(&begun, "acme", "e0", 5));
    ck_assert(!begun_maybe(&begun, "other", "e0", 5));
    ck_assert(!begun_maybe(&begun, "acme", "new", 5));
    begun_note(&begun, "acme", "one more", 9999);
    ck_assert(begun_maybe(&begun, "acme", "e1", 10000));
    ck_assert(begun_maybe(&begun, "acme", "new", 10)); /* it may have been e0 */
    ck_assert(!begun_maybe(&begun, "acme", "new", 11));
}
END_TEST

/* Writes a line for each call; twice/add says that a second time does no harm. */
static const char server_text[] =
    "#!/bin/sh\n"
    "say() { printf '{\"jsonrpc\":\"2.0\",\"id\":%s,%s}\\n' \"$id\" \"$1\"; }\n"
    "while read -r line; do\n"
    "  id=${line#*\\\"id\\\":}; id=${id%%,*}\n"
    "  case $line in\n"
    "  *server/discover*) say '\"error\":{\"code\":-32601,\"message\":\"no\"}' ;;\n"
    "  *'\"initialize\"'*) say '\"result\":{\"protocolVersion\":\"2025-11-25\"}' ;;\n"
    "  *tools/list*) say '\"result\":{\"tools\":[{\"name\":\"add\",\"inputSchema\":{}},"
    "{\"name\":\"put\",\"inputSchema\":{},\"annotations\":{\"idempotentHint\":true}}]}' ;;\n"
    "  *tools/call*) echo call >>\"$1\"; say '\"result\":{\"structuredContent\":{\"ok\":1}}' ;;\n"
    "  esac\n"
    "done\n";

static void *raw_open(house_t *house)
{
    void *socket = zmq_socket(host_zmq_context(house->host), ZMQ_DEALER);
    int linger = 0;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    ck_assert(!zmq_connect(socket, address_call(host_inproc_prefix(house->host), TRANSPORT_INPROC,
                                                "outside", house->arena)));
    return socket;
}

/* What becomes of a call that is `age_ms` old; 0: a new one. */
static const char *raw_call(house_t *house, void *socket, int64_t id, int64_t age_ms,
                            const char *json)
{
    header_t header = {.v = FRAME_VERSION,
                       .kind = FRAME_CALL,
                       .id = id,
                       .has_id = true,
                       .from = "raw",
                       .method = "outside_call",
                       .role = ROLE_ADMIN,
                       .has_role = true,
                       .age_ms = age_ms,
                       .has_age_ms = age_ms > 0};
    bytes_t body = house_pack(house->arena, json), end;
    buf_t out;
    zmq_msg_t part;
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    buf_open(&out, house->arena);
    frame_encode(&header, &out);
    ck_assert_int_ge(handover_send(socket, out.data, out.size, ZMQ_SNDMORE), 0);
    ck_assert_int_ge(handover_send(socket, body.data, body.size, 0), 0);
    ck_assert_msg(zmq_poll(&item, 1, 30000) == 1, "no answer");
    const char *text = NULL;
    for (int i = 0; i < 2; i++) {
        zmq_msg_init(&part);
        ck_assert_int_ge(handover_receive(&part, socket, 0), 0);
        bytes_t reply = {zmq_msg_data(&part), zmq_msg_size(&part)};
        if (i && mp_get(reply, "end", &end))
            text = mp_text(house->arena, end);
        zmq_msg_close(&part);
    }
    return text ? text : "an error";
}

static void until_ready(house_t *house)
{
    int64_t end = mono_ms() + 30000;
    const char *told = "";
    while (!strstr(told, "'ready':true")) {
        told = house_call(house, "outside", "outside_look", "{'tool':'one/add'}");
        ck_assert_msg(mono_ms() < end, "it is never ready: %s", told);
    }
}

static const char *call_json(house_t *house, const char *tool, const char *effect)
{
    bytes_t life;
    client_call_t look = {.peer = "outside",
                          .method = "outside_look",
                          .args = house_pack(house->arena, "{'tool':'one/add'}")};
    client_reply_t reply = client_call(house->client, house->arena, &look);
    ck_assert(!err_is(reply.err) && mp_get(reply.body, "life", &life));
    return arena_printf(house->arena, "{'tool':'one/%s','life':'%s','arguments':{},'effect':'%s'}",
                        tool, mp_text(house->arena, life), effect);
}

START_TEST(a_call_whose_answer_was_lost_is_not_made_twice)
{
    house_t house;
    house_open(&house, TRANSPORT_INPROC);
    const char *script = arena_printf(house.arena, "%s/server.sh", house.data);
    const char *log = arena_printf(house.arena, "%s/calls", house.data);
    write_file(script, server_text);
    write_file(arena_printf(house.arena, "%s/mcp.json", house.data),
               arena_printf(house.arena,
                            "{\"mcpServers\":{\"one\":{\"command\":\"/bin/sh\","
                            "\"args\":[\"%s\",\"%s\"]}}}",
                            script, log));
    house_start(&house, &outside_actor);
    until_ready(&house);
    void *raw = raw_open(&house);
    const char *add = call_json(&house, "add", "e1"), *put = call_json(&house, "put", "e2");
    ck_assert_str_eq(raw_call(&house, raw, 1, 0, add), "done");
    ck_assert_str_eq(raw_call(&house, raw, 1, 50, add), "unknown");
    ck_assert_str_eq(read_file(house.arena, log), "call\n");
    /* One that never came is made, and so is one that its server lets us repeat. */
    ck_assert_str_eq(raw_call(&house, raw, 2, 50, call_json(&house, "add", "e3")), "done");
    ck_assert_str_eq(raw_call(&house, raw, 3, 0, put), "done");
    ck_assert_str_eq(raw_call(&house, raw, 3, 50, put), "done");
    ck_assert_str_eq(read_file(house.arena, log), "call\ncall\ncall\ncall\n");
    zmq_close(raw);
    house_close(&house);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "exec-helper"))
        return child_helper_main(argc, argv);
    Suite *suite = suite_create("outside");
    TCase *all = tcase_create("all");
    tcase_add_test(all, the_endpoint_is_at_its_own_address);
    tcase_add_test(all, the_id_of_what_cannot_be_read);
    tcase_add_loop_test(all, what_is_wrong_with_the_file_is_said, 0,
                        sizeof(wrongs) / sizeof(wrongs[0]));
    tcase_add_test(all, a_server_is_what_the_file_says);
    tcase_add_loop_test(all, events_are_read_in_parts, 0, sizeof(streams) / sizeof(streams[0]));
    tcase_add_test(all, an_event_without_end_is_refused);
    tcase_add_loop_test(all, messages_are_sorted, 0, sizeof(messages) / sizeof(messages[0]));
    tcase_add_test(all, a_result_is_what_a_step_sees);
    tcase_add_test(all, a_tool_is_judged_alone);
    tcase_add_test(all, what_was_forgotten_counts_as_begun);
    tcase_add_test(all, a_call_whose_answer_was_lost_is_not_made_twice);
    tcase_set_timeout(all, 120);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
