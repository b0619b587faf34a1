/* The parser of procedures: what it reads, and what it says about what it cannot. */
#include <check.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/sop.h"
#include "proto/json.h"

typedef struct parsed {
    arena_t *arena;
    err_t err;
    const sop_t *sop;
    const sop_problem_t *problems;
    size_t count;
} parsed_t;

static parsed_t parse_with(const char *text, size_t size, const sop_options_t *options)
{
    parsed_t parsed = {.arena = arena_new()};
    parsed.err =
        sop_parse(parsed.arena, text, size, options, &parsed.sop, &parsed.problems, &parsed.count);
    return parsed;
}

static parsed_t parse(const char *text)
{
    return parse_with(text, strlen(text), NULL);
}

static parsed_t good(const char *text)
{
    parsed_t parsed = parse(text);
    ck_assert_msg(!err_is(parsed.err), "%s", err_what(parsed.err));
    ck_assert_ptr_nonnull(parsed.sop);
    return parsed;
}

/* Is there a problem on this line whose sentence has this part? */
static bool tells(const parsed_t *parsed, unsigned line, const char *part)
{
    for (size_t i = 0; i < parsed->count; i++)
        if (parsed->problems[i].line == line && strstr(parsed->problems[i].what, part))
            return true;
    return false;
}

#define assert_tells(parsed, line, part)                                                           \
    ck_assert_msg(tells(&(parsed), (line), (part)), "no '%s' on line %d in:\n%s", (part),          \
                  (int)(line),                                                                     \
                  sop_problems_text((parsed).arena, (parsed).problems, (parsed).count))

/* One error, on this line. */
static void bad(const char *text, unsigned line, const char *part)
{
    parsed_t parsed = parse(text);
    ck_assert_int_eq(parsed.err.code, ERR_ARGUMENT);
    ck_assert_ptr_null(parsed.sop);
    assert_tells(parsed, line, part);
    ck_assert_msg(parsed.count == 1, "more than one problem:\n%s",
                  sop_problems_text(parsed.arena, parsed.problems, parsed.count));
    arena_destroy(&parsed.arena);
}

static const char *args_json(const parsed_t *parsed, size_t step)
{
    buf_t out;
    buf_open(&out, parsed->arena);
    ck_assert(!err_is(json_from_msgpack(parsed->sop->steps[step].args, JSON_COMPACT, &out)));
    return out.data;
}

static const char full[] = "---\n"
                           "inputs: folder, depth?\n"
                           "max_steps: 50\n"
                           "max_wall: 1h30m\n"
                           "# a comment\n"
                           "env: HOME, LANG\n"
                           "---\n"
                           "# Count *the* files\n"
                           "\n"
                           "Counts the files of a folder.\n"
                           "\n"
                           "1. **Count files**: counts them.\n"
                           "\n"
                           "   ```sh replay=safe timeout=10s output=64KiB env=PATH,TZ retries=2\n"
                           "   find {{input.folder}} -type f | wc -l\n"
                           "   ```\n"
                           "2. **Remember**\n"
                           "   ```tool replay=keyed\n"
                           "   brain_store {\n"
                           "     \"taskId\": \"{{run.id}}\",\n"
                           "     \"tokens\": \"{{steps.count_files.result.exit_code}}\"\n"
                           "   }\n"
                           "   ```\n"
                           "3. **Pause:**\n"
                           "   ```wait\n"
                           "   10m\n"
                           "   ```\n"
                           "4. **Go on?**\n"
                           "\n"
                           "   There were {{steps.count_files.result.stdout}} files.\n"
                           "   ```approve\n"
                           "   ```\n"
                           "5. Sum up what was found in\n"
                           "   {{input.folder}}.\n";

START_TEST(reads_everything)
{
    parsed_t p = good(full);
    const sop_t *sop = p.sop;
    ck_assert_uint_eq(p.count, 0);
    ck_assert_str_eq(sop->title, "Count the files");
    ck_assert_str_eq(sop->description, "Counts the files of a folder.");
    ck_assert_uint_eq(sop->input_count, 2);
    ck_assert_str_eq(sop->inputs[0].name, "folder");
    ck_assert(!sop->inputs[0].optional);
    ck_assert_str_eq(sop->inputs[1].name, "depth");
    ck_assert(sop->inputs[1].optional);
    ck_assert_int_eq(sop->max_steps, 50);
    ck_assert_int_eq(sop->max_wall_ms, 90 * 60 * 1000);
    ck_assert_uint_eq(sop->env.count, 2);
    ck_assert_str_eq(sop->env.items[1], "LANG");
    ck_assert_uint_eq(sop->step_count, 5);
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(reads_a_script)
{
    parsed_t p = good(full);
    const sop_step_t *step = &p.sop->steps[0];
    ck_assert_str_eq(step->name, "count_files");
    ck_assert_str_eq(step->title, "Count files");
    ck_assert_int_eq(step->kind, SOP_SH);
    ck_assert_uint_eq(step->line, 12);
    ck_assert_uint_eq(step->body_line, 15);
    ck_assert_str_eq(step->body, "find {{input.folder}} -type f | wc -l\n");
    ck_assert_str_eq(step->prose, "counts them.");
    ck_assert_int_eq(step->replay, SOP_REPLAY_SAFE);
    ck_assert_int_eq(step->timeout_ms, 10000);
    ck_assert_int_eq(step->output_bytes, 65536);
    ck_assert_int_eq(step->retries, 2);
    ck_assert_uint_eq(step->env.count, 2);
    ck_assert_str_eq(step->env.items[1], "TZ");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(reads_the_other_kinds)
{
    parsed_t p = good(full);
    const sop_step_t *steps = p.sop->steps;
    ck_assert_int_eq(steps[1].kind, SOP_TOOL);
    ck_assert_str_eq(sop_kind_info(steps[1].kind)->name, "tool");
    ck_assert_str_eq(sop_kind_info(SOP_LLM)->name, "llm");
    ck_assert_str_eq(steps[1].tool, "brain_store");
    ck_assert_int_eq(steps[1].replay, SOP_REPLAY_KEYED);
    ck_assert_int_eq(steps[1].retries, -1);
    ck_assert_str_eq(
        args_json(&p, 1),
        "{\"taskId\":\"{{run.id}}\",\"tokens\":\"{{steps.count_files.result.exit_code}}\"}");
    ck_assert_int_eq(steps[2].kind, SOP_WAIT);
    ck_assert_str_eq(steps[2].name, "pause");
    ck_assert_int_eq(steps[3].kind, SOP_APPROVE);
    ck_assert_str_eq(steps[3].name, "go_on");
    ck_assert_str_eq(steps[3].body, "There were {{steps.count_files.result.stdout}} files.");
    ck_assert_uint_eq(steps[3].body_line, 30);
    ck_assert_int_eq(steps[4].kind, SOP_LLM);
    ck_assert_str_eq(steps[4].name, "step_5");
    ck_assert_str_eq(steps[4].title, "Sum up what was found in");
    ck_assert_str_eq(steps[4].prose, "Sum up what was found in\n{{input.folder}}.");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(reads_files_of_old)
{
    parsed_t p = good("# Release Checklist\n"
                      "How we release.\n"
                      "\n"
                      "1. **Run tests**: Run `npm test`.\n"
                      "Look at the output.\n"
                      "2. **Build**: Build it like this:\n"
                      "```bash\n"
                      "1. npm run build\n"
                      "```\n"
                      "\n"
                      "and look at `dist/`.\n"
                      "\n"
                      "3. Tell the team\n"
                      "   1. in the channel\n"
                      "   2. by mail\n");
    ck_assert_uint_eq(p.sop->step_count, 3);
    ck_assert_str_eq(p.sop->steps[0].name, "run_tests");
    ck_assert_str_eq(p.sop->steps[0].prose, "Run `npm test`.\nLook at the output.");
    ck_assert_str_eq(p.sop->steps[1].prose,
                     "Build it like this:\n```bash\n1. npm run build\n```\n\nand look at `dist/`.");
    ck_assert_str_eq(p.sop->steps[2].name, "step_3");
    ck_assert_ptr_nonnull(strstr(p.sop->steps[2].prose, "by mail"));
    assert_tells(p, 7, "```sh");
    ck_assert(p.problems[0].warning);
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(reads_windows_files)
{
    parsed_t p = good("\xef\xbb\xbf---\r\ninputs: a\r\n---\r\n# T\r\n\r\n1. **A**: x\r\n"
                      "   ```sh\r\n   echo {{input.a}}\r\n   ```\r\n");
    ck_assert_str_eq(p.sop->title, "T");
    ck_assert_uint_eq(p.sop->steps[0].body_line, 8);
    ck_assert_ptr_null(strchr(p.sop->steps[0].body, '\r'));
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(reads_blocks_that_are_not_indented)
{
    parsed_t p = good("# T\n\n1. **A**\n```sh\necho 1\n```\n1. **B**\n```sh\necho 2\n```\n");
    ck_assert_uint_eq(p.sop->step_count, 2);
    ck_assert_str_eq(p.sop->steps[1].body, "echo 2\n");
    ck_assert_str_eq(p.sop->steps[0].prose, "");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(reads_tool_arguments_as_lines)
{
    parsed_t p =
        good("# T\n\n1. a\n   ```tool\n   brain_query\n   query: what is: this\n"
             "   limit: 3\n\n   # note\n   filter: {\"a\": [1]}\n   type: \"7\"\n"
             "   company: {{company}}\n   ```\n2. b\n   ```tool\n   queue_stats\n   ```\n");
    ck_assert_str_eq(args_json(&p, 0), "{\"query\":\"what is: this\",\"limit\":3,\"filter\":{\"a\":"
                                       "[1]},\"type\":\"7\",\"company\":\"{{company}}\"}");
    ck_assert_str_eq(args_json(&p, 1), "{}");
    ck_assert_str_eq(p.sop->steps[1].tool, "queue_stats");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(tells_what_is_missing)
{
    parsed_t p = parse("");
    assert_tells(p, 1, "no title");
    assert_tells(p, 1, "no steps");
    ck_assert_uint_eq(p.count, 2);
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(tells_of_no_steps)
{
    bad("# T\n\nJust prose.\n\n- a\n- b\n", 7, "there are no steps");
    bad("# T\n\n## 1. Not a list\n", 4, "there are no steps");
    bad("1. a\n", 1, "no title");
    bad("# T\n\n1. \n", 3, "nothing to do");
}
END_TEST

START_TEST(tells_of_names)
{
    bad("# T\n1. **Do it**: a\n2. b\n3. **do-it!**: c\n", 4, "step on line 2 too");
    bad("# T\n1. **Step 2**: a\n2. b\n", 3, "step_2");
}
END_TEST

START_TEST(tells_of_front_matter)
{
    bad("---\nenvs: A\n---\n# T\n1. a\n", 2, "did you mean 'env'");
    bad("---\nwhatever: A\n---\n# T\n1. a\n", 2, "it knows inputs, max_steps");
    bad("---\nenv: A\nenv: B\n---\n# T\n1. a\n", 3, "twice");
    bad("---\nenv: A=b\n---\n# T\n1. a\n", 2, "'A=b'");
    bad("---\nmax_wall: 5\n---\n# T\n1. a\n", 2, "a duration such as");
    bad("---\nmax_steps: 0\n---\n# T\n1. a\n", 2, "from 1 to");
    bad("---\nmax_steps: 99999999999999999999999\n---\n# T\n1. a\n", 2, "max_steps");
    bad("---\nnothing\n---\n# T\n1. a\n", 2, "no colon");
    bad("---\ncwd: a/../b\n---\n# T\n1. a\n", 2, "..");
    bad("---\ninputs: a b\n---\n# T\n1. a\n", 2, "no name of an input");
    bad("---\n# T\n1. a\n", 1, "not closed");
}
END_TEST

START_TEST(tells_of_attributes)
{
    bad("# T\n1. a\n   ```sh repay=safe\n   x\n   ```\n", 3, "did you mean 'replay'");
    bad("# T\n1. a\n   ```sh replay=saef\n   x\n   ```\n", 3, "safe, keyed, check or manual");
    bad("# T\n1. a\n   ```sh timeout=10\n   x\n   ```\n", 3, "timeout cannot be '10'");
    bad("# T\n1. a\n   ```sh timeout\n   x\n   ```\n", 3, "has no value");
    bad("# T\n1. a\n   ```sh output=1GiB\n   x\n   ```\n", 3, "output cannot be");
    bad("# T\n1. a\n   ```sh retries=2 retries=3\n   x\n   ```\n", 3, "twice");
    bad("# T\n1. a\n   ```wait timeout=3s\n   1s\n   ```\n", 3, "takes no 'timeout'");
    bad("# T\n1. a\n   ```tool env=A\n   x\n   ```\n", 3, "takes no 'env'");
}
END_TEST

START_TEST(names_by_attribute)
{
    parsed_t p = good("# T\n1. a\n   ```sh name=\"My Name\"\n   x\n   ```\n");
    ck_assert_str_eq(p.sop->steps[0].name, "my_name");
    ck_assert_str_eq(p.sop->steps[0].prose, "a");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(tells_of_fences)
{
    bad("# T\n1. a\n   ```sh\n   x\n   ```\n   ```sh\n   y\n   ```\n", 6, "the first is on line 3");
    bad("# T\n1. a\n   ```sh\n   x\n", 3, "not closed");
    bad("# T\n1. a\n   ```sh\n   x\n2. b\n", 3, "not closed");
    bad("# T\n1. a\n\n       ```sh\n       x\n       ```\n", 4, "indented so far");
    bad("# T\n```sh\nx\n```\n1. a\n", 2, "in no step");
    bad("# T\n1. a\n\n## Notes\n```sh\nx\n```\n", 5, "in no step");
    parsed_t p = parse("# T\n1. a\n   ```sh\n   x\n```\n2. b\n");
    assert_tells(p, 5, "indent it like");
    ck_assert_uint_eq(p.count, 1);
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(leaves_other_blocks_alone)
{
    parsed_t p =
        good("# T\n\n    indented code\n\n1. a\n   ````md\n   ```sh\n   x\n   ```\n   ````\n"
             "   ~~~json\n   {}\n   ~~~\n   > ```text\n   > quoted\n   > ```\n");
    ck_assert_uint_eq(p.count, 0);
    ck_assert_int_eq(p.sop->steps[0].kind, SOP_LLM);
    ck_assert_ptr_nonnull(strstr(p.sop->steps[0].prose, "```sh"));
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(warns_of_words)
{
    parsed_t p = good("# T\n1. a\n   ```Tool\n   x\n   ```\n2. b\n   ```aprove\n   x\n   ```\n");
    ck_assert_uint_eq(p.count, 2);
    assert_tells(p, 3, "did you mean ```tool");
    assert_tells(p, 7, "did you mean ```approve");
    ck_assert(p.problems[0].warning && p.problems[1].warning);
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(reads_branches)
{
    parsed_t parsed = good("# T\n1. **A**\n   ```if\n   {{input.n}} > 3\n   and true\n"
                           "   then: c d\n   else: end\n   ```\n2. b\n3. **C d** x\n");
    const sop_step_t *step = parsed.sop->steps;
    ck_assert_int_eq(step->kind, SOP_IF);
    ck_assert_str_eq(step->condition, "{{input.n}} > 3\nand true\n");
    ck_assert_uint_eq(step->then_at, 2);
    ck_assert_uint_eq(step->else_at, 3);
    arena_destroy(&parsed.arena);
}
END_TEST

START_TEST(tells_of_branches)
{
    bad("# T\n1. a\n   ```if\n   true\n   ```\n2. b\n", 4, "needs a line `then: STEP`");
    bad("# T\n1. a\n   ```if\n   true\n   then: nowhere\n   ```\n2. b\n", 5,
        "there is no step 'nowhere'");
    bad("# T\n1. **A** a\n2. **B**\n   ```if\n   true\n   else: a\n   ```\n", 6,
        "only goes forward");
    bad("# T\n1. **B**\n   ```if\n   true\n   else: b\n   ```\n", 5, "this step itself");
    bad("# T\n1. a\n   ```if\n   true\n   then: end\n   then: end\n   ```\n", 6, "twice");
    bad("# T\n1. a\n   ```if\n   true\n   then: end\n   false\n   ```\n", 6, "stands before");
    bad("# T\n1. a\n   ```if\n   {{input.n}}\n   > tea\n   then: end\n   ```\n", 5, "at 'tea'");
    bad("# T\n1. a\n   ```if\n   {{steps.z.result}} == 1\n   then: end\n   ```\n", 4,
        "there is no step 'z'");
    bad("# T\n1. a\n   ```if\n   ```\n", 3, "the ```if block is empty");
}
END_TEST

static const char *json_of(arena_t *arena, bytes_t value)
{
    buf_t out;
    buf_open(&out, arena);
    ck_assert(!err_is(json_from_msgpack(value, JSON_COMPACT, &out)));
    return out.data;
}

START_TEST(reads_procedures_inside)
{
    parsed_t p = good("# T\n1. a\n   ```sop\n   count.md {\"folder\": \"{{input.f}}\", \"n\": 2}\n"
                      "   ```\n2. b\n   ```sop name=again\n   count\n   folder: /x\n   ```\n"
                      "3. c\n   ```sop\n   count {{steps.again.result}}\n   ```\n"
                      "4. d\n   ```sop\n   count\n   ```\n");
    ck_assert_int_eq(p.sop->steps[0].kind, SOP_SOP);
    ck_assert_str_eq(p.sop->steps[0].procedure, "count");
    ck_assert_str_eq(json_of(p.arena, p.sop->steps[0].args),
                     "{\"folder\":\"{{input.f}}\",\"n\":2}");
    ck_assert_str_eq(p.sop->steps[1].name, "again");
    ck_assert_str_eq(json_of(p.arena, p.sop->steps[1].args), "{\"folder\":\"/x\"}");
    ck_assert_str_eq(json_of(p.arena, p.sop->steps[2].args), "\"{{steps.again.result}}\"");
    ck_assert_str_eq(json_of(p.arena, p.sop->steps[3].args), "{}");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(tells_of_procedures_inside)
{
    bad("# T\n1. a\n   ```sop\n   ../x\n   ```\n", 4, "'../x' is no name of a procedure");
    bad("# T\n1. a\n   ```sop\n   {}\n   ```\n", 4, "is no name of a procedure");
    bad("# T\n1. a\n   ```sop\n\n   x\n   {\"a\": }\n   ```\n", 6, "no good JSON");
    bad("# T\n1. a\n   ```sop\n   x y\n   ```\n", 4, "'y' is neither");
    bad("# T\n1. a\n   ```sop retries=2\n   x\n   ```\n", 3, "takes no 'retries'");
    bad("# T\n1. a\n   ```sop\n   x {{steps.b.result}}\n   ```\n", 4, "there is no step 'b'");
    bad("# T\n1. a\n   ```sop\n   x {{item}}\n   ```\n", 4, "an item only in what an ```each");
    bad("# T\n1. a\n   ```sop\n   ```\n", 3, "the ```sop block is empty");
}
END_TEST

START_TEST(reads_each)
{
    parsed_t p =
        good("# T\n1. a\n   ```each on_error=continue retries=1 timeout=5s\n   {{input.list}}\n"
             "   tool: brain_store {\"id\": \"n-{{index}}\",\n   \"x\": \"{{item.x}}\"}\n   ```\n"
             "2. b\n   ```each parallel=8\n   [\"de\", {\"y\": \"{{input.z}}\"},\n   3]\n\n"
             "   sop: other {{item}}\n   ```\n"
             "3. c\n   ```each\n   {{steps.step_2.result | lines}}\n   tool: notes/add\n   text: "
             "{{item}}\n"
             "   ```\n");
    const sop_step_t *steps = p.sop->steps;
    ck_assert_int_eq(steps[0].kind, SOP_EACH);
    ck_assert_str_eq(json_of(p.arena, steps[0].list), "\"{{input.list}}\"");
    ck_assert_str_eq(steps[0].tool, "brain_store");
    ck_assert_ptr_null(steps[0].procedure);
    ck_assert(steps[0].goes_on);
    ck_assert_int_eq(steps[0].retries, 1);
    ck_assert_str_eq(json_of(p.arena, steps[0].args),
                     "{\"id\":\"n-{{index}}\",\"x\":\"{{item.x}}\"}");
    ck_assert_str_eq(json_of(p.arena, steps[1].list), "[\"de\",{\"y\":\"{{input.z}}\"},3]");
    ck_assert_str_eq(steps[1].procedure, "other");
    ck_assert_ptr_null(steps[1].tool);
    ck_assert_int_eq(steps[1].parallel, 8);
    ck_assert(!steps[1].goes_on);
    ck_assert_str_eq(json_of(p.arena, steps[1].args), "\"{{item}}\"");
    ck_assert_str_eq(json_of(p.arena, steps[2].args), "{\"text\":\"{{item}}\"}");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(tells_of_each)
{
    bad("# T\n1. a\n   ```each\n   {{input.list}}\n   ```\n", 4, "needs a line `tool: NAME`");
    bad("# T\n1. a\n   ```each\n   tool: x\n   ```\n", 4, "begins with its list");
    bad("# T\n1. a\n   ```each\n   a, b\n   tool: x\n   ```\n", 4, "begins with its list");
    bad("# T\n1. a\n   ```each\n   {{input.a}} {{input.b}}\n   tool: x\n   ```\n", 4,
        "begins with its list");
    bad("# T\n1. a\n   ```each\n   [1,\n   2\n   tool: x\n   ```\n", 4, "the list is no good JSON");
    bad("# T\n1. a\n   ```each\n   {{item}}\n   tool: x\n   ```\n", 4, "an item only in what");
    bad("# T\n1. a\n   ```each\n   [1]\n   tool: 7\n   ```\n", 5, "begins with the name");
    bad("# T\n1. a\n   ```each\n   [1]\n\n   sop: a/b\n   ```\n", 6, "no name of a procedure");
    bad("# T\n1. a\n   ```each\n   [1]\n   tool: x\n   y: {{itm}}\n   ```\n", 6, "{{itm}}: write");
    bad("# T\n1. a\n   ```each parallel=2\n   [1]\n   tool: x\n   ```\n", 3, "no 'parallel'");
    bad("# T\n1. a\n   ```each parallel=65\n   [1]\n   sop: x\n   ```\n", 3, "from 1 to 64");
    bad("# T\n1. a\n   ```each replay=safe\n   [1]\n   sop: x\n   ```\n", 3, "takes no 'replay'");
    bad("# T\n1. a\n   ```each on_error=maybe\n   [1]\n   tool: x\n   ```\n", 3,
        "it is stop or continue");
    bad("# T\n1. a\n   ```sh on_error=stop\n   true\n   ```\n", 3, "```sh takes no 'on_error'");
    bad("# T\n1. {{item}}\n", 2, "an item only in what an ```each");
}
END_TEST

START_TEST(tells_of_bodies)
{
    bad("# T\n1. a\n   ```sh\n\n   ```\n", 3, "the ```sh block is empty");
    bad("# T\n1. **a**\n   ```approve\n   ```\n", 3, "the ```approve block is empty");
    bad("# T\n1. a\n   ```wait\n   soon\n   ```\n", 4, "nothing to wait for");
    bad("# T\n1. a\n   ```wait\n   10\n   ```\n", 4, "nothing to wait for");
    bad("# T\n1. a\n   ```wait\n   999d\n   ```\n", 4, "nothing to wait for");
    bad("# T\n1. a\n   ```tool\n   {\"a\": 1}\n   ```\n", 4, "begins with the name");
    bad("# T\n1. a\n   ```tool\n   x {\"a\": }\n   ```\n", 4, "line 4");
    bad("# T\n1. a\n   ```tool\n   x\n   {\n     \"a\": 1,\n     b\n   }\n   ```\n", 5, "line 7");
    bad("# T\n1. a\n   ```tool\n   x [1]\n   ```\n", 4, "neither");
    bad("# T\n1. a\n   ```tool\n   x\n   a: 1\n   b: 2\n   a: 3\n   ```\n", 4, "argument a");
    bad("# T\n1. a\n   ```tool\n   x {\"a\": {{input}}}\n   ```\n", 4, "belongs in quotes");
}
END_TEST

START_TEST(tells_of_references)
{
    bad("# T\n1. a\n   ```sh\n   echo 1\n   echo {{steps.b.result}}\n   ```\n2. **b** x\n", 5,
        "a later step");
    bad("# T\n1. **a** {{steps.a.result}}\n", 2, "this step itself");
    bad("# T\n1. **count** x\n2. b\n   {{steps.cuont.result}}\n", 4, "no step 'cuont'");
    bad("# T\n1. **count lines** x\n2. b\n   {{steps.count_line.result}}\n", 4,
        "did you mean 'count_lines'");
    bad("# T\n1. a {{inptu}}\n", 2, "{{inptu}}");
    bad("# T\n1. a\n   ```sh\n   docker ps --format \"{{.Names}}\"\n   ```\n", 4, "\\{{");
    bad("# T\n1. a {{input\n", 2, "not closed");
    bad("---\ninputs: folder\n---\n# T\n1. a {{input.foldre}}\n", 5, "not among the inputs");
    bad("# T\n1. a\n   ```sh\n   echo x\n   awk '{ print {{input.n}} }'\n   ```\n", 5,
        "single quotes");
}
END_TEST

START_TEST(collects_all)
{
    parsed_t p = parse("---\nenvs: A\n---\n1. **a** {{x}}\n   ```sh a=b\n   ```\n2. **a** y\n");
    ck_assert_int_eq(p.err.code, ERR_ARGUMENT);
    assert_tells(p, 2, "envs");
    assert_tells(p, 4, "no title");
    assert_tells(p, 5, "attribute 'a'");
    assert_tells(p, 5, "empty");
    assert_tells(p, 7, "too");
    ck_assert_ptr_nonnull(strstr(p.err.what, "line 2: "));
    ck_assert_ptr_nonnull(strstr(p.err.what, "more)"));
    for (size_t i = 1; i < p.count; i++)
        ck_assert_uint_le(p.problems[i - 1].line, p.problems[i].line);
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(tells_of_two_lists)
{
    bad("# T\n\n## Before\n\n1. have this\n2. and that\n\n## Steps\n\n1. do\n", 10,
        "number it from 3");
    parsed_t p = good("# T\n\n## One\n\n1. a\n2. b\n\n## Two\n\n3. c\n");
    ck_assert_uint_eq(p.sop->step_count, 3);
    ck_assert_str_eq(p.sop->steps[1].prose, "b");
    arena_destroy(&p.arena);
}
END_TEST

START_TEST(holds_its_limits)
{
    arena_t *arena = arena_new();
    buf_t text;
    buf_open(&text, arena);
    buf_puts(&text, "# T\n");
    for (int i = 0; i < SOP_STEPS_MOST + 1; i++)
        buf_puts(&text, "1. a\n");
    bad(text.data, SOP_STEPS_MOST + 2, "more than 200 steps");
    sop_options_t options = {.most_steps = 1000, .largest_bytes = 100};
    parsed_t p = parse_with(text.data, text.size, &options);
    ck_assert_int_eq(p.err.code, ERR_TOO_LARGE);
    ck_assert_uint_eq(p.count, 1);
    arena_destroy(&p.arena);
    options.largest_bytes = 0;
    p = parse_with(text.data, text.size, &options);
    ck_assert(!err_is(p.err));
    ck_assert_uint_eq(p.sop->step_count, SOP_STEPS_MOST + 1);
    arena_destroy(&p.arena);
    arena_destroy(&arena);
}
END_TEST

START_TEST(holds_depth_and_characters)
{
    arena_t *arena = arena_new();
    buf_t text;
    buf_open(&text, arena);
    buf_puts(&text, "# T\n1. a\n\n   ");
    for (int i = 0; i < 5000; i++)
        buf_puts(&text, ">");
    bad(text.data, 4, "deep");
    bad("# T\n1. a\xff\n", 2, "UTF-8");
    parsed_t p = parse_with("# T\n1. a\0\n", 10, NULL);
    ck_assert(tells(&p, 2, "NUL"));
    arena_destroy(&p.arena);
    arena_destroy(&arena);
}
END_TEST

START_TEST(keeps_problems_bounded)
{
    arena_t *arena = arena_new();
    buf_t text;
    buf_open(&text, arena);
    buf_puts(&text, "# T\n");
    for (int i = 0; i < 150; i++)
        buf_puts(&text, "1. **same** {{nothing}}\n");
    parsed_t p = parse(text.data);
    ck_assert_int_eq(p.err.code, ERR_ARGUMENT);
    ck_assert_uint_eq(p.count, SOP_PROBLEMS_MOST);
    arena_destroy(&p.arena);
    arena_destroy(&arena);
}
END_TEST

START_TEST(reads_durations)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {{"500ms", 500},    {"90s", 90000}, {"10m", 600000}, {"1h30m", 5400000},
                {"2d", 172800000}, {"", 0},        {"10", 0},       {"-1s", 0},
                {"1x", 0},         {"0s", 0},      {"367d", 0},     {"1.5h", 0},
                {"s", 0},          {"10 m", 0},    {"366d1ms", 0},  {"99999999999999999999d", 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t ms = 0;
        bool read = sop_duration(rows[i].text, &ms);
        ck_assert_msg(read == (rows[i].ms > 0), "%s", rows[i].text);
        if (read)
            ck_assert_int_eq(ms, rows[i].ms);
    }
}
END_TEST

START_TEST(reads_waits)
{
    arena_t *arena = arena_new();
    int64_t until = 0;
    ck_assert(!err_is(sop_wait(arena, " 10m\n", 1000, &until)));
    ck_assert_int_eq(until, 601000);
    ck_assert(!err_is(sop_wait(arena, "2030-01-01T00:00:00Z", 1000, &until)));
    ck_assert_int_eq(until, INT64_C(1893456000000));
    ck_assert(!err_is(sop_wait(arena, "until 2030-01-01T00:00:00Z", 1000, &until)));
    ck_assert_int_eq(until, INT64_C(1893456000000));
    ck_assert(!err_is(sop_wait(arena, "until 1893456000000", 1000, &until)));
    ck_assert_int_eq(until, INT64_C(1893456000000));
    ck_assert_int_eq(sop_wait(arena, "1893456000000", 1000, &until).code, ERR_ARGUMENT);
    ck_assert_int_eq(sop_wait(arena, "until the end", 1000, &until).code, ERR_ARGUMENT);
    ck_assert_int_eq(sop_wait(arena, "", 1000, &until).code, ERR_ARGUMENT);
    arena_destroy(&arena);
}
END_TEST

/* What sop_input makes of `given` (JSON), as JSON; or the sentence of the error. */
static const char *input_of(const parsed_t *p, const char *given)
{
    bytes_t value = {0}, input;
    buf_t out;
    buf_open(&out, p->arena);
    if (given)
        ck_assert(!err_is(json_to_msgpack(p->arena, given, strlen(given), NULL, &value)));
    err_t err = sop_input(p->arena, p->sop, value, &input);
    if (err_is(err))
        return err_what(err);
    ck_assert(!err_is(json_from_msgpack(input, JSON_COMPACT, &out)));
    return out.data;
}

START_TEST(takes_inputs)
{
    parsed_t p = good("---\ninputs: folder, depth?\n---\n# T\n1. a\n");
    ck_assert_str_eq(input_of(&p, "{\"folder\":\"x\"}"), "{\"folder\":\"x\"}");
    ck_assert_str_eq(input_of(&p, "\"{\\\"folder\\\":\\\"x\\\"}\""), "{\"folder\":\"x\"}");
    ck_assert_str_eq(input_of(&p, "\"x y\""), "{\"folder\":\"x y\"}");
    ck_assert_str_eq(input_of(&p, "7"), "{\"folder\":7}");
    ck_assert_ptr_nonnull(strstr(input_of(&p, NULL), "'folder' is missing"));
    ck_assert_ptr_nonnull(strstr(input_of(&p, "\"\""), "'folder' is missing"));
    ck_assert_ptr_nonnull(strstr(input_of(&p, "{\"folder\":1,\"x\":2}"), "no input 'x'"));
    arena_destroy(&p.arena);
    p = good("---\ninputs: a, b\n---\n# T\n1. a\n");
    ck_assert_ptr_nonnull(strstr(input_of(&p, "\"x\""), "must be an object with a, b"));
    arena_destroy(&p.arena);
    p = good("# T\n1. a\n");
    ck_assert_str_eq(input_of(&p, NULL), "null");
    ck_assert_str_eq(input_of(&p, "\"text\""), "\"text\"");
    ck_assert_str_eq(input_of(&p, "\"{\\\"a\\\":1}\""), "{\"a\":1}");
    ck_assert_str_eq(input_of(&p, "\"{not json\""), "\"{not json\"");
    arena_destroy(&p.arena);
}
END_TEST

#ifndef AGENCY_SOURCE
#define AGENCY_SOURCE "."
#endif

START_TEST(examples_are_good)
{
    glob_t found;
    ck_assert_int_eq(glob(AGENCY_SOURCE "/examples/sops/*.md", 0, NULL, &found), 0);
    ck_assert_uint_ge(found.gl_pathc, 3);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        static char text[SOP_BYTES_LARGEST];
        FILE *file = fopen(found.gl_pathv[i], "r");
        ck_assert_ptr_nonnull(file);
        size_t size = fread(text, 1, sizeof(text), file);
        fclose(file);
        parsed_t p = parse_with(text, size, NULL);
        ck_assert_msg(p.count == 0, "%s: %s", found.gl_pathv[i],
                      sop_problems_text(p.arena, p.problems, p.count));
        arena_destroy(&p.arena);
    }
    globfree(&found);
}
END_TEST

/* The whole text survives any cut: no crash, and an error or steps. */
START_TEST(survives_cuts)
{
    for (size_t size = 0; size < sizeof(full); size++) {
        char *copy = malloc(size ? size : 1);
        memcpy(copy, full, size);
        parsed_t p = parse_with(copy, size, NULL);
        ck_assert(err_is(p.err) == !p.sop);
        ck_assert(!err_is(p.err) || p.count);
        arena_destroy(&p.arena);
        free(copy);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sop");
    TCase *reads = tcase_create("reads");
    tcase_add_test(reads, reads_everything);
    tcase_add_test(reads, reads_a_script);
    tcase_add_test(reads, reads_the_other_kinds);
    tcase_add_test(reads, reads_files_of_old);
    tcase_add_test(reads, reads_windows_files);
    tcase_add_test(reads, reads_blocks_that_are_not_indented);
    tcase_add_test(reads, reads_tool_arguments_as_lines);
    tcase_add_test(reads, names_by_attribute);
    tcase_add_test(reads, leaves_other_blocks_alone);
    tcase_add_test(reads, reads_durations);
    tcase_add_test(reads, reads_waits);
    tcase_add_test(reads, takes_inputs);
    tcase_add_test(reads, examples_are_good);
    suite_add_tcase(suite, reads);
    TCase *tells_case = tcase_create("tells");
    tcase_add_test(tells_case, tells_what_is_missing);
    tcase_add_test(tells_case, tells_of_no_steps);
    tcase_add_test(tells_case, tells_of_names);
    tcase_add_test(tells_case, tells_of_front_matter);
    tcase_add_test(tells_case, tells_of_attributes);
    tcase_add_test(tells_case, tells_of_fences);
    tcase_add_test(tells_case, warns_of_words);
    tcase_add_test(tells_case, reads_procedures_inside);
    tcase_add_test(tells_case, tells_of_procedures_inside);
    tcase_add_test(tells_case, reads_each);
    tcase_add_test(tells_case, tells_of_each);
    tcase_add_test(tells_case, reads_branches);
    tcase_add_test(tells_case, tells_of_branches);
    tcase_add_test(tells_case, tells_of_bodies);
    tcase_add_test(tells_case, tells_of_references);
    tcase_add_test(tells_case, tells_of_two_lists);
    tcase_add_test(tells_case, collects_all);
    tcase_add_test(tells_case, holds_its_limits);
    tcase_add_test(tells_case, holds_depth_and_characters);
    tcase_add_test(tells_case, keeps_problems_bounded);
    tcase_add_test(tells_case, survives_cuts);
    suite_add_tcase(suite, tells_case);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
