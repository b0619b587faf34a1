/* The words of MCP: which era a message is of, and what is refused how. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/gateway/catalogue.h"
#include "actors/gateway/mcp.h"
#include "actors/gateway/tokens.h"
#include "proto/json.h"

typedef struct case_row {
    const char *what;
    const char *version, *method, *name; /* headers */
    const char *body;
    int status, code;
    bool modern;
} case_row_t;

#define META                                                                                       \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                       \
    "\"io.modelcontextprotocol/clientCapabilities\":{}}"
#define CALL(more) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{" more "}}"

static const case_row_t rows[] = {
    {"not an object", NULL, NULL, NULL, "7", 400, -32600, false},
    {"no version of JSON-RPC", NULL, NULL, NULL, "{\"id\":1,\"method\":\"ping\"}", 400, -32600,
     false},
    {"id is null", NULL, NULL, NULL, "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", 400,
     -32600, false},
    {"method is no string", NULL, NULL, NULL, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", 400,
     -32600, false},
    {"params is no object", NULL, NULL, NULL,
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":[]}", 400, -32600, false},
    {"legacy without a header", NULL, NULL, NULL, CALL("\"name\":\"x\""), 0, 0, false},
    {"legacy with one", "2025-06-18", NULL, NULL, CALL("\"name\":\"x\""), 0, 0, false},
    {"legacy of no revision", "1999-01-01", NULL, NULL, CALL("\"name\":\"x\""), 400, -32022, false},
    {"modern", "2026-07-28", "tools/call", "x", CALL("\"name\":\"x\"," META), 0, 0, true},
    {"modern header without _meta", "2026-07-28", "tools/call", "x", CALL("\"name\":\"x\""), 400,
     -32602, false},
    {"no header at all", NULL, NULL, NULL, CALL("\"name\":\"x\"," META), 400, -32020, true},
    {"another method in the header", "2026-07-28", "tools/list", "x", CALL("\"name\":\"x\"," META),
     400, -32020, true},
    {"another name in the header", "2026-07-28", "tools/call", "y", CALL("\"name\":\"x\"," META),
     400, -32020, true},
    {"the name in Base64", "2026-07-28", "tools/call",
     "=?base64?eA==?=", CALL("\"name\":\"x\"," META), 0, 0, true},
    {"Base64 without padding", "2026-07-28", "tools/call",
     "=?base64?eA?=", CALL("\"name\":\"x\"," META), 400, -32020, true},
    {"Base64 of another alphabet", "2026-07-28", "tools/call",
     "=?base64?e_==?=", CALL("\"name\":\"x\"," META), 400, -32020, true},
    {"a header that only looks like Base64", "2026-07-28", "tools/call", "=?base64?x",
     CALL("\"name\":\"=?base64?x\"," META), 0, 0, true},
    {"capabilities are missing", "2026-07-28", "tools/call", "x",
     CALL("\"name\":\"x\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}"),
     400, -32602, true},
    {"a version of the future", "2030-01-01", "tools/call", "x",
     CALL("\"name\":\"x\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2030-01-01\"}"),
     400, -32022, true},
};

static const char *get(void *ctx, const char *name)
{
    const case_row_t *row = ctx;
    if (!strcmp(name, "MCP-Protocol-Version"))
        return row->version;
    if (!strcmp(name, "Mcp-Method"))
        return row->method;
    return !strcmp(name, "Mcp-Name") ? row->name : NULL;
}

START_TEST(each_message_is_read_as_the_specification_says)
{
    const case_row_t *row = &rows[_i];
    arena_t *arena = arena_new();
    bytes_t value;
    mcp_message_t message;
    mcp_headers_t headers = {get, (void *)row};
    ck_assert_int_eq(json_to_msgpack(arena, row->body, strlen(row->body), NULL, &value).code,
                     ERR_OK);
    mcp_refusal_t refusal = mcp_read(arena, value, &headers, &message);
    ck_assert_msg(refusal.status == row->status && refusal.code == row->code,
                  "%s: status %d, code %d, %s", row->what, refusal.status, refusal.code,
                  refusal.text ? refusal.text : "");
    if (!refusal.status)
        ck_assert_msg(message.modern == row->modern, "%s: the wrong era", row->what);
    arena_destroy(&arena);
}
END_TEST

START_TEST(ids_come_back_as_they_were)
{
    static const char *const ids[] = {"1", "\"a\\\"b\"", "9007199254740993", "-5"};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        arena_t *arena = arena_new();
        const char *body =
            arena_printf(arena, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"ping\"}", ids[i]);
        bytes_t value;
        mcp_message_t message;
        case_row_t none = {0};
        mcp_headers_t headers = {get, &none};
        buf_t out;
        buf_open(&out, arena);
        ck_assert_int_eq(json_to_msgpack(arena, body, strlen(body), NULL, &value).code, ERR_OK);
        ck_assert_int_eq(mcp_read(arena, value, &headers, &message).status, 0);
        mcp_open_result(&out, &message, "0");
        mcp_close_result(&out);
        ck_assert_str_eq(
            out.data, arena_printf(arena, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{}}", ids[i]));
        arena_destroy(&arena);
    }
}
END_TEST

/* ---- Mcp-Param-… ---- */

static const struct {
    const char *header, *argument;
    bool right;
} params[] = {{"7", "7", true},       {"7.0", "7", true},       {"8", "7", false},
              {"7,8", "7", false},    {"7],[7", "7", false},    {"", "7", false},
              {"true", "true", true}, {"false", "true", false}, {"a", "\"a\"", true},
              {"A", "\"a\"", false},  {NULL, "\"a\"", false},   {NULL, "null", true}};

static const char *get_param(void *ctx, const char *name)
{
    return strcmp(name, "Mcp-Param-N") ? NULL : ctx;
}

START_TEST(a_header_of_an_argument_says_the_same)
{
    arena_t *arena = arena_new();
    bytes_t schema, arguments;
    static const char schema_json[] =
        "{\"properties\":{\"n\":{\"type\":\"integer\",\"x-mcp-header\":\"N\"}}}";
    const char *json = arena_printf(arena, "{\"n\":%s}", params[_i].argument);
    const mcp_message_t message = {.modern = true};
    mcp_headers_t headers = {get_param, (void *)params[_i].header};
    ck_assert_int_eq(
        json_to_msgpack(arena, schema_json, sizeof(schema_json) - 1, NULL, &schema).code, ERR_OK);
    ck_assert_int_eq(json_to_msgpack(arena, json, strlen(json), NULL, &arguments).code, ERR_OK);
    mcp_refusal_t refusal = mcp_check_params(arena, &message, schema, arguments, &headers);
    ck_assert_int_eq(refusal.code, params[_i].right ? 0 : -32020);
    arena_destroy(&arena);
}
END_TEST

/* ---- The file of tokens ---- */

#define DIGEST_OF_X "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

static void put_file(const char *path, const char *text)
{
    static int64_t changes;
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
    changes++;
    struct timespec times[2] = {{.tv_sec = 1000000 + changes}, {.tv_sec = 1000000 + changes}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

START_TEST(a_bad_file_of_tokens_lets_nobody_in_and_says_why)
{
    static const char *const pillars[] = {"agent"};
    char path[] = "/tmp/agency-test-XXXXXX";
    arena_t *arena = arena_new();
    tokens_t *tokens;
    close(mkstemp(path));
    put_file(path, DIGEST_OF_X " companies=* name=a\n");
    ck_assert(!err_is(tokens_open(path, pillars, 1, arena, &tokens)));
    ck_assert_ptr_nonnull(tokens_find(tokens, "x"));
    ck_assert_ptr_null(tokens_trouble(tokens));
    put_file(path, DIGEST_OF_X " companies=* name=a\nnonsense\n");
    ck_assert_ptr_null(tokens_find(tokens, "x"));
    const char *why = tokens_trouble(tokens);
    ck_assert_ptr_nonnull(why);
    ck_assert_ptr_nonnull(strstr(why, "line 2"));
    ck_assert_ptr_null(tokens_trouble(tokens)); /* said */
    put_file(path, DIGEST_OF_X " companies=* name=a\n");
    ck_assert_ptr_nonnull(tokens_find(tokens, "x"));
    ck_assert_ptr_null(tokens_trouble(tokens));
    tokens_close(&tokens);
    unlink(path);
    arena_destroy(&arena);
}
END_TEST

/* ---- The catalogue: when a list that was given is no longer right ---- */

static bytes_t description(arena_t *arena, const char *tool, bool may_be_long)
{
    bytes_t value;
    const char *json =
        arena_printf(arena,
                     "{\"methods\":[{\"name\":\"%s\",\"doc\":\"d\",\"tool\":true,\"may_be_long\":%"
                     "s,\"input\":{},"
                     "\"output\":{}},{\"name\":\"inner\",\"doc\":\"d\",\"tool\":false}]}",
                     tool, may_be_long ? "true" : "false");
    ck_assert_int_eq(json_to_msgpack(arena, json, strlen(json), NULL, &value).code, ERR_OK);
    return value;
}

static bool all(const void *ctx, const char *pillar)
{
    return !ctx || !strcmp(ctx, pillar);
}

START_TEST(the_list_of_tools_changes_only_when_it_does)
{
    static const char *const pillars[] = {"one", "two"};
    arena_t *arena = arena_new();
    catalogue_t *catalogue = catalogue_new(pillars, 2);
    ck_assert(!catalogue_learn(catalogue, "one", description(arena, "a", false)));
    ck_assert(!catalogue_complete(catalogue));
    ck_assert_ptr_nonnull(strstr(catalogue_json(catalogue), "\"a\""));
    /* A pillar that comes after the list was given; the same once more; another tool. */
    ck_assert(catalogue_learn(catalogue, "two", description(arena, "b", false)));
    ck_assert(!catalogue_learn(catalogue, "two", description(arena, "b", false)));
    const char *before = arena_strdup(arena, catalogue_json(catalogue));
    ck_assert(catalogue_learn(catalogue, "two", description(arena, "c", true)));
    ck_assert(catalogue_is_long(catalogue, "c") && !catalogue_is_long(catalogue, "a"));
    ck_assert_ptr_nonnull(strstr(catalogue_json(catalogue), "taskSupport"));
    ck_assert_ptr_null(catalogue_find(catalogue, "b", NULL));
    ck_assert_ptr_null(catalogue_find(catalogue, "inner", NULL));
    /* One that stays away, and comes back: the list is the same as before, byte by byte. */
    ck_assert(catalogue_learn(catalogue, "two", description(arena, "b", false)));
    ck_assert(catalogue_forget(catalogue, "two") && !catalogue_forget(catalogue, "two"));
    ck_assert_ptr_null(strstr(catalogue_json(catalogue), "\"b\""));
    ck_assert(!catalogue_knows(catalogue, "two"));
    ck_assert(catalogue_learn(catalogue, "two", description(arena, "b", false)));
    ck_assert_str_eq(before, catalogue_json(catalogue));
    ck_assert_str_eq(before, catalogue_json_of(catalogue, all, NULL, arena));
    ck_assert_ptr_null(strstr(catalogue_json_of(catalogue, all, "one", arena), "\"b\""));
    catalogue_destroy(&catalogue);
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mcp");
    TCase *tcase = tcase_create("words");
    tcase_add_test(tcase, a_bad_file_of_tokens_lets_nobody_in_and_says_why);
    tcase_add_loop_test(tcase, a_header_of_an_argument_says_the_same, 0,
                        (int)(sizeof(params) / sizeof(params[0])));
    tcase_add_loop_test(tcase, each_message_is_read_as_the_specification_says, 0,
                        (int)(sizeof(rows) / sizeof(rows[0])));
    tcase_add_test(tcase, ids_come_back_as_they_were);
    tcase_add_test(tcase, the_list_of_tools_changes_only_when_it_does);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
