/* References: what they yield in texts, in trees and in scripts, and that no value is ever code. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/agent/values.h"
#include "proto/json.h"
#include "proto/mp.h"

/* A value that does harm wherever a shell reads it as code. */
#define NASTY "a'; echo PWNED; $(echo PWNED) `echo PWNED` \" ; echo PWNED #\n* ~ \\ end"

typedef struct given {
    arena_t *arena;
    values_t values;
    value_step_t steps[2];
} given_t;

static bytes_t packed(arena_t *arena, const char *json)
{
    bytes_t value;
    err_t err = json_to_msgpack(arena, json, strlen(json), NULL, &value);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    return value;
}

static void open_given(given_t *given)
{
    arena_t *arena = given->arena = arena_new();
    given->steps[0] =
        (value_step_t){"count",
                       packed(arena, "{\"stdout\":\"42\\n\",\"exit_code\":0,\"list\":[\"a\",{\"b\":"
                                     "1.5}],\"odd key\":true,\"none\":null}"),
                       .refused = false};
    given->steps[1] = (value_step_t){.name = "empty"};
    given->values = (values_t){.input = packed(arena, "{\"name\":\"it's\",\"big\":"
                                                      "9223372036854775807,\"deep\":[[1,2],[3]]}"),
                               .run_id = "run-1",
                               .company = "acme",
                               .steps = given->steps,
                               .step_count = 2};
}

/* The expansion, or the sentence of the error. */
static const char *text_of(given_t *given, const char *text)
{
    buf_t out;
    buf_open(&out, given->arena);
    err_t err = values_text(given->arena, &given->values, text, strlen(text), &out);
    return err_is(err) ? err_what(err) : out.data;
}

static const char *tree_of(given_t *given, const char *json)
{
    buf_t out, text;
    buf_open(&out, given->arena);
    buf_open(&text, given->arena);
    err_t err = values_tree(given->arena, &given->values, packed(given->arena, json), &out);
    if (err_is(err))
        return err_what(err);
    ck_assert(!err_is(mp_check(buf_bytes(&out))));
    ck_assert(!err_is(json_from_msgpack(buf_bytes(&out), JSON_COMPACT, &text)));
    return text.data;
}

static void assert_part(const char *whole, const char *part)
{
    ck_assert_msg(strstr(whole, part) != NULL, "no '%s' in '%s'", part, whole);
}

START_TEST(fills_texts)
{
    given_t g;
    open_given(&g);
    ck_assert_str_eq(text_of(&g, "no reference { } }} {x}"), "no reference { } }} {x}");
    ck_assert_str_eq(text_of(&g, "{{input.name}} {{ run.id }}/{{company}}"), "it's run-1/acme");
    ck_assert_str_eq(text_of(&g, "{{steps.count.result.stdout}}{{steps.Count.result.exit_code}}"),
                     "42\n0");
    ck_assert_str_eq(text_of(&g, "{{steps.count.result.list[1].b}}"), "1.5");
    ck_assert_str_eq(text_of(&g, "{{steps.count.result.list.0}}"), "a");
    ck_assert_str_eq(text_of(&g, "{{steps.count.result[\"odd key\"]}}"), "true");
    ck_assert_str_eq(text_of(&g, "{{steps.count.result['odd key']}}"), "true");
    ck_assert_str_eq(text_of(&g, "{{input.deep}} {{input.deep[0][1]}}"), "[[1,2],[3]] 2");
    ck_assert_str_eq(text_of(&g, "<{{steps.count.result.none}}{{steps.empty.result}}>"), "<>");
    ck_assert_str_eq(text_of(&g, "{{input.big}}"), "9223372036854775807");
    ck_assert_str_eq(text_of(&g, "\\{{input.name}} \\{{ \\ {{company}}"),
                     "{{input.name}} {{ \\ acme");
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(filters)
{
    given_t g;
    open_given(&g);
    ck_assert_str_eq(text_of(&g, "{{input.name | json}}"), "\"it's\"");
    ck_assert_str_eq(text_of(&g, "{{input.name | shell}}"), "'it'\\''s'");
    ck_assert_str_eq(text_of(&g, "{{input.no | default(a (b) c)}}"), "a (b) c");
    ck_assert_str_eq(text_of(&g, "{{input.no.way[3] | default('x y') | shell}}"), "'x y'");
    ck_assert_str_eq(text_of(&g, "{{steps.count.result.none | default(0)}}"), "0");
    ck_assert_str_eq(text_of(&g, "{{steps.gone.result | default()}}"), "");
    ck_assert_str_eq(text_of(&g, "{{input.name | default(z)}}"), "it's");
    ck_assert_str_eq(text_of(&g, "{{steps.count.result.none | json}}"), "null");
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(says_what_is_wrong)
{
    given_t g;
    open_given(&g);
    assert_part(text_of(&g, "{{input.nmae}}"), "{{input.nmae}}: there is no 'nmae': it has name");
    assert_part(text_of(&g, "{{input.deep[9]}}"), "there is no [9]: it is a list of 2");
    assert_part(text_of(&g, "{{input.name.x}}"), "it has no fields");
    assert_part(text_of(&g, "{{steps.later.result}}"), "step 'later' has no result yet");
    assert_part(text_of(&g, "{{steps.count}}"), "{{steps.NAME.result}}");
    assert_part(text_of(&g, "{{steps.count.stdout}}"), "only the result");
    assert_part(text_of(&g, "{{steps}}"), "{{steps.NAME.result}}");
    assert_part(text_of(&g, "{{run.name}}"), "{{run.id}}");
    assert_part(text_of(&g, "{{}}"), "\\{{");
    assert_part(text_of(&g, "{{.Names}}"), "\\{{");
    assert_part(text_of(&g, "{{input name}}"), "write {{input.FIELD}}");
    assert_part(text_of(&g, "{{input.}}"), "after a dot");
    assert_part(text_of(&g, "{{input[x]}}"), "number from 0");
    assert_part(text_of(&g, "{{input[99999999999999999999]}}"), "number from 0");
    assert_part(text_of(&g, "{{input[1}}"), "[ is not closed");
    assert_part(text_of(&g, "{{input[\"a}}"), "closing quote");
    assert_part(text_of(&g, "{{input | upper}}"), "default(text), json, lines and shell");
    assert_part(text_of(&g, "{{input | default}}"), "default(text)");
    assert_part(text_of(&g, "{{input | default(a}}"), "not closed");
    assert_part(text_of(&g, "{{input | json|json|json|json|json}}"), "more than 4");
    assert_part(text_of(&g, "{{input.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a}}"), "longer than 16");
    assert_part(text_of(&g, "x {{input.name"), "not closed with }}");
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(fills_trees)
{
    given_t g;
    open_given(&g);
    ck_assert_str_eq(tree_of(&g, "{\"a\":\"{{input.big}}\",\"b\":\"x{{input.big}}\"}"),
                     "{\"a\":9223372036854775807,\"b\":\"x9223372036854775807\"}");
    ck_assert_str_eq(tree_of(&g, "[\"{{steps.count.result.list}}\",[\"{{company}}\"],1,null,true]"),
                     "[[\"a\",{\"b\":1.5}],[\"acme\"],1,null,true]");
    ck_assert_str_eq(tree_of(&g, "\"{{steps.count.result.none}}\""), "null");
    ck_assert_str_eq(tree_of(&g, "\" {{steps.count.result.exit_code}}\""), "\" 0\"");
    ck_assert_str_eq(tree_of(&g, "{\"n\":\"{{input.n | default(3)}}\",\"s\":\"{{input.s | "
                                 "default(x)}}\"}"),
                     "{\"n\":3,\"s\":\"x\"}");
    ck_assert_str_eq(tree_of(&g, "\"{{company}}{{company}}\""), "\"acmeacme\"");
    ck_assert_str_eq(tree_of(&g, "{\"{{company}}\":\"\\\\{{x}}\"}"), "{\"{{company}}\":\"{{x}}\"}");
    assert_part(tree_of(&g, "{\"a\":[\"{{input.x}}\"]}"), "there is no 'x'");
    arena_destroy(&g.arena);
}
END_TEST

/* A str in a value stays a str, whatever it looks like: no injection into JSON. */
START_TEST(keeps_texts_inside_trees)
{
    given_t g;
    open_given(&g);
    g.values.input = packed(g.arena, "\"\\\",\\\"admin\\\":true,\\\"{{company}}\"");
    ck_assert_str_eq(tree_of(&g, "{\"a\":\"<{{input}}>\"}"),
                     "{\"a\":\"<\\\",\\\"admin\\\":true,\\\"{{company}}>\"}");
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(refuses_bad_trees)
{
    given_t g;
    open_given(&g);
    static const uint8_t cut[] = {0x82, 0xa1, 'a'}, two[] = {0x01, 0x02};
    buf_t out;
    buf_open(&out, g.arena);
    err_t err = values_tree(g.arena, &g.values, (bytes_t){cut, sizeof(cut)}, &out);
    ck_assert_int_eq(err.code, ERR_PARSE);
    err = values_tree(g.arena, &g.values, (bytes_t){two, sizeof(two)}, &out);
    ck_assert_int_eq(err.code, ERR_PARSE);
    uint8_t deep[200];
    memset(deep, 0x91, sizeof(deep));
    err = values_tree(g.arena, &g.values, (bytes_t){deep, sizeof(deep)}, &out);
    ck_assert_int_eq(err.code, ERR_PARSE);
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(stops_growth)
{
    given_t g;
    open_given(&g);
    g.values.largest_bytes = 20;
    ck_assert_str_eq(text_of(&g, "{{run.id}}{{run.id}}"), "run-1run-1");
    assert_part(text_of(&g, "{{run.id}}{{run.id}}{{run.id}}{{run.id}}{{run.id}}"),
                "larger than 20");
    assert_part(tree_of(&g, "[\"{{input}}\"]"), "larger than 20");
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(makes_slugs)
{
    static const struct {
        const char *text, *slug;
    } rows[] = {{"Count files", "count_files"},
                {"  --Go on?! ", "go_on"},
                {"step-2.1", "step_2_1"},
                {"Pr\xc3\xbc"
                 "fen",
                 "pr\xc3\xbc"
                 "fen"},
                {"!!!", ""},
                {"", ""}};
    arena_t *arena = arena_new();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_str_eq(value_slug(arena, rows[i].text, strlen(rows[i].text)), rows[i].slug);
    char wide[200];
    for (size_t i = 0; i < sizeof(wide); i += 2)
        memcpy(wide + i, "\xc3\xbc", 2);
    const char *slug = value_slug(arena, wide + 1, sizeof(wide) - 1);
    ck_assert_uint_le(strlen(slug), VALUE_NAME_LONGEST);
    slug = value_slug(arena, wide, sizeof(wide));
    ck_assert_uint_eq(strlen(slug), VALUE_NAME_LONGEST);
    arena_destroy(&arena);
}
END_TEST

/* ---- scripts: what a real shell makes of them ---- */

/* Runs the script as a worker would, and yields what it wrote. */
static const char *run(given_t *given, const value_script_t *script)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (!child) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        for (size_t i = 0; i < script->count; i++)
            setenv(script->variables[i].name, script->variables[i].value, 1);
        execl("/bin/sh", "sh", "-c", script->text, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    buf_t out;
    buf_open(&out, given->arena);
    char part[512];
    for (ssize_t got; (got = read(ends[0], part, sizeof(part))) > 0;)
        buf_put(&out, part, (size_t)got);
    close(ends[0]);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return out.data;
}

static const char *script_says(given_t *given, const char *text)
{
    value_script_t script;
    err_t err = values_script(given->arena, &given->values, text, strlen(text), &script);
    return err_is(err) ? err_what(err) : run(given, &script);
}

static void open_nasty(given_t *given)
{
    open_given(given);
    buf_t out;
    buf_open(&out, given->arena);
    mp_put_map(&out, 2);
    mp_put_str(&out, "x");
    mp_put_str(&out, NASTY);
    mp_put_str(&out, "n");
    mp_put_int(&out, 20);
    given->values.input = buf_bytes(&out);
}

START_TEST(values_are_single_words)
{
    static const char *const scripts[] = {
        "printf %s {{input.x}}",
        "printf %s \"{{input.x}}\"",
        "printf '%s' '' {{input.x}}",
        "printf \"%s\" \"$(printf %s {{input.x}})\"",
        "printf \"%s\" \"$(printf %s \"{{input.x}}\")\"",
        "v={{input.x}}; printf %s \"$v\"",
        "printf %s \\\"\"\" {{input.x}} | tail -c +2",
        "# it's a comment\nprintf %s {{input.x}}",
        "cat <<END | head -c -1\n{{input.x}}\nEND\n",
        "cat <<-END | head -c -1\n{{input.x}}\n\tEND\n",
        "cat <<A >/dev/null\nit's \"\nA\nprintf %s {{input.x}}",
        "cat <<'A' >/dev/null\nit's \"\nA\nprintf %s {{input.x}}",
        "f() { printf %s \"$1\"; }\nf {{input.x}}",
        "case {{input.x}} in PWNED) echo PWNED;; *) printf %s {{input.x}};; esac",
        "printf %s \"${NOTHING:-{{input.x}}}\"",
        "echo $((1 << 2)) >/dev/null\nprintf %s {{input.x}}",
        "echo ${#HOME} >/dev/null; printf %s {{input.x}}",
        "if [ -n {{input.x}} ]; then printf %s {{input.x}}; fi"};
    given_t g;
    open_nasty(&g);
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
        ck_assert_msg(!strcmp(script_says(&g, scripts[i]), NASTY), "%s\ngave: %s", scripts[i],
                      script_says(&g, scripts[i]));
    ck_assert_str_eq(script_says(&g, "echo $(( {{input.n}} + (2 * {{input.n}}) ))"), "60\n");
    ck_assert_str_eq(script_says(&g, "echo `echo {{input.n}}`"), "20\n");
    ck_assert_str_eq(script_says(&g, "echo 1 # {{input.x}}\necho {{input.n}}"), "1\n20\n");
    ck_assert_str_eq(script_says(&g, "echo \\{{x}} {{run.id}}"), "{{x}} run-1\n");
    arena_destroy(&g.arena);
}
END_TEST

/* Wherever the reference stands and however odd the script, the value is not run. */
START_TEST(values_are_never_code)
{
    static const char *const pieces[] = {"\"",  "'", "`",  "$(",    ")",   "${", "}",
                                         "\\",  "#", "\n", "<<A\n", "A\n", " ",  "echo ",
                                         "$((", "(", ";",  "|",     "\""};
    const size_t count = sizeof(pieces) / sizeof(pieces[0]);
    given_t g;
    open_nasty(&g);
    unsigned seed = 12345;
    for (int round = 0; round < 400; round++) {
        buf_t text;
        buf_open(&text, g.arena);
        buf_puts(&text, "exec 2>/dev/null </dev/null\n: ");
        for (int i = 0; i < 6; i++) {
            seed = seed * 1103515245u + 12345u;
            buf_puts(&text, pieces[(seed >> 16) % count]);
            if (i == 2 || i == 4)
                buf_puts(&text, "{{input.x}}");
        }
        const char *said = script_says(&g, text.data);
        /* A value that is printed still has its quotes around; one that ran is a bare line. */
        const char *line = said;
        for (const char *next; line && *line; line = next ? next + 1 : NULL) {
            next = strchr(line, '\n');
            size_t size = next ? (size_t)(next - line) : strlen(line);
            ck_assert_msg(size != 5 || memcmp(line, "PWNED", 5) != 0, "ran: %s", text.data);
        }
    }
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(scripts_say_what_is_wrong)
{
    given_t g;
    value_script_t script;
    open_nasty(&g);
    assert_part(script_says(&g, "echo '{{input.x}}'"), "single quotes");
    assert_part(script_says(&g, "cat <<'E'\n{{input.x}}\nE\n"), "here document");
    assert_part(script_says(&g, "echo {{input.y}}"), "there is no 'y'");
    static const char late[] = "echo 1\necho '{{input.x}}'";
    err_t err = values_script(g.arena, NULL, late, strlen(late), &script);
    ck_assert_int_eq(err.code, ERR_ARGUMENT);
    ck_assert_uint_eq(script.at, 13);
    static const char fine[] = "echo {{input.not.there}}";
    ck_assert(!err_is(values_script(g.arena, NULL, fine, strlen(fine), &script)));
    g.values.input = packed(g.arena, "\"a\\u0000b\"");
    assert_part(script_says(&g, "echo {{input}}"), "NUL");
    arena_destroy(&g.arena);
}
END_TEST

START_TEST(scripts_hold_their_limits)
{
    given_t g;
    value_script_t script;
    open_given(&g);
    size_t size = VALUE_VARIABLE_LARGEST + 1;
    char *large = malloc(size + 1);
    memset(large, 'x', size);
    large[size] = '\0';
    buf_t out;
    buf_open(&out, g.arena);
    mp_put_strn(&out, large, size);
    g.values.input = buf_bytes(&out);
    err_t err = values_script(g.arena, &g.values, "echo {{input}}", 14, &script);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    buf_open(&out, g.arena);
    mp_put_strn(&out, large, size - 1);
    g.values.input = buf_bytes(&out);
    err = values_script(g.arena, &g.values, "echo {{input}}", 14, &script);
    ck_assert(!err_is(err));
    buf_open(&out, g.arena);
    for (int i = 0; i < 12; i++)
        buf_puts(&out, "echo {{input}}\n");
    err = values_script(g.arena, &g.values, out.data, out.size, &script);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    free(large);
    arena_destroy(&g.arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("values");
    TCase *texts = tcase_create("texts");
    tcase_add_test(texts, fills_texts);
    tcase_add_test(texts, filters);
    tcase_add_test(texts, says_what_is_wrong);
    tcase_add_test(texts, fills_trees);
    tcase_add_test(texts, keeps_texts_inside_trees);
    tcase_add_test(texts, refuses_bad_trees);
    tcase_add_test(texts, stops_growth);
    tcase_add_test(texts, makes_slugs);
    suite_add_tcase(suite, texts);
    TCase *scripts = tcase_create("scripts");
    tcase_set_timeout(scripts, 30);
    tcase_add_test(scripts, values_are_single_words);
    tcase_add_test(scripts, values_are_never_code);
    tcase_add_test(scripts, scripts_say_what_is_wrong);
    tcase_add_test(scripts, scripts_hold_their_limits);
    suite_add_tcase(suite, scripts);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
