/* What is understood of the files of the earlier system, and that the rest is named. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "actors/cli/import_read.h"
#include "house.h"
#include "proto/json.h"

typedef struct desk {
    arena_t *arena;
    import_read_t read;
} desk_t;

static void open_desk(desk_t *desk, const char *company)
{
    desk->arena = arena_new();
    import_read_open(&desk->read, desk->arena, company);
}

static void expect_counts(const desk_t *desk, size_t items, size_t problems)
{
    ck_assert_uint_eq(desk->read.item_count, items);
    ck_assert_uint_eq(desk->read.problem_count, problems);
}

static void expect_args(const desk_t *desk, size_t index, const char *json)
{
    buf_t out;
    buf_open(&out, desk->arena);
    ck_assert(
        !err_is(json_from_msgpack(import_items(&desk->read)[index].args, JSON_COMPACT, &out)));
    for (size_t i = 0; i < out.size; i++)
        if (out.data[i] == '"')
            out.data[i] = '\'';
    ck_assert_str_eq(out.data, json);
}

static void expect_problem(const desk_t *desk, size_t index, const char *where, const char *part)
{
    const import_problem_t *problem = &import_problems(&desk->read)[index];
    ck_assert_str_eq(problem->where, where);
    ck_assert_msg(strstr(problem->why, part), "%s", problem->why);
}

START_TEST(a_graph)
{
    desk_t desk;
    static const char text[] =
        "{\"nodes\":[{\"id\":\"a\",\"type\":\"t\",\"properties\":{\"x\":1},\"y\":2},{\"type\":"
        "\"t\"},"
        "{\"id\":7}],\"edges\":[{\"from\":\"a\",\"to\":\"b\",\"relation\":\"r\"},{\"from\":\"a\"}],"
        "\"layout\":3}";
    open_desk(&desk, NULL);
    import_graph(&desk.read, text, strlen(text));
    expect_counts(&desk, 2, 4);
    expect_args(&desk, 0,
                "{'operation':'add_node','args':{'id':'a','type':'t','properties':{'x':1,'y':2}}}");
    expect_args(&desk, 1,
                "{'operation':'add_edge','args':{'from':'a','to':'b','relation':'r','properties':{}"
                "}}");
    expect_problem(&desk, 0, "nodes[1]", "without id");
    expect_problem(&desk, 1, "nodes[2]", "must be text");
    expect_problem(&desk, 2, "edges[1]", "from, to and relation");
    expect_problem(&desk, 3, "layout", "not understood");
    arena_destroy(&desk.arena);
}
END_TEST

START_TEST(memories)
{
    desk_t desk;
    static const char text[] =
        "{\"id\":\"e1\",\"taskId\":\"t\",\"userPrompt\":\"q\",\"agentResponse\":\"s\",\"vector\":["
        "1],"
        "\"type\":\"\",\"mood\":\"calm\",\"metadata\":{\"k\":1}}\n\n{\"request\":\"q\"}\n{\"torn";
    open_desk(&desk, NULL);
    import_memory_lines(&desk.read, text, strlen(text));
    expect_counts(&desk, 1, 2);
    expect_args(&desk, 0,
                "{'taskId':'t','request':'q','solution':'s','id':'e1','metadata':{'k':1,'mood':"
                "'calm'}}");
    expect_problem(&desk, 0, "line 3", "request and solution");
    expect_problem(&desk, 1, "line 4", "");
    arena_destroy(&desk.arena);
}
END_TEST

START_TEST(ids_come_from_the_content)
{
    desk_t one, other;
    static const char text[] = "[{\"request\":\"q\",\"solution\":\"s\"},{\"request\":\"q\","
                               "\"solution\":\"other\"}]";
    open_desk(&one, NULL);
    open_desk(&other, NULL);
    import_memories(&one.read, text, strlen(text));
    import_memories(&other.read, text, strlen(text));
    expect_counts(&one, 2, 0);
    ck_assert_str_eq(import_items(&one.read)[0].id, import_items(&other.read)[0].id);
    ck_assert_str_ne(import_items(&one.read)[0].id, import_items(&one.read)[1].id);
    arena_destroy(&one.arena);
    arena_destroy(&other.arena);
}
END_TEST

START_TEST(a_company_is_never_swapped)
{
    desk_t desk;
    static const char text[] = "[{\"request\":\"q\",\"solution\":\"s\",\"company\":\"globex\"}]";
    open_desk(&desk, "acme");
    import_memories(&desk.read, text, strlen(text));
    expect_counts(&desk, 0, 1);
    expect_problem(&desk, 0, "[0]", "'acme'");
    arena_destroy(&desk.arena);
}
END_TEST

START_TEST(metrics_and_ghost_logs)
{
    desk_t desk;
    buf_t out;
    static const char text[] =
        "{\"timestamp\":1,\"agent\":\"a\",\"metric\":\"m\",\"value\":2}\r\n"
        "{\"timestamp\":1,\"agent\":\"a\",\"metric\":\"m\",\"value\":\"x\"}\n"
        "{\"agent\":\"a\",\"metric\":\"m\",\"value\":1}";
    static const char log[] = "{\"taskId\":\"t\",\"status\":\"failed\",\"errorMessage\":\"why\"}";
    open_desk(&desk, NULL);
    buf_open(&out, desk.arena);
    ck_assert_uint_eq(import_metric_lines(&desk.read, text, strlen(text), &out), 1);
    ck_assert_str_eq(out.data,
                     "{\"timestamp\":1,\"agent\":\"a\",\"metric\":\"m\",\"value\":2}\r\n");
    expect_problem(&desk, 0, "line 2", "number");
    expect_problem(&desk, 1, "line 3", "timestamp");
    import_ghost_log(&desk.read, log, strlen(log));
    expect_counts(&desk, 1, 2);
    ck_assert_int_eq(import_items(&desk.read)[0].kind, IMPORT_MEMORY);
    arena_destroy(&desk.arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("import");
    TCase *all = tcase_create("all");
    tcase_add_test(all, a_graph);
    tcase_add_test(all, memories);
    tcase_add_test(all, ids_come_from_the_content);
    tcase_add_test(all, a_company_is_never_swapped);
    tcase_add_test(all, metrics_and_ghost_logs);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
