/* What stands in the blocks of a procedure: waits, scripts and branches (calls: sop_call.c), and
 * the references in all of them. A fault that would only show when a run comes to the step is told
 * here. */
#include <ctype.h>
#include <string.h>

#include "actors/agent/condition.h"
#include "actors/agent/sop_parts.h"
#include "actors/agent/values.h"

/* ---- bodies ------------------------------------------------------------------------------- */

static bool is_blank(const char *text)
{
    return span_trim(span_of(text)).size == 0;
}

static void wait_body(sop_parse_t *parse, sop_step_t *step)
{
    int64_t until;
    if (strstr(step->body, "{{"))
        return; /* known at run time */
    err_t err = sop_wait(parse->arena, step->body, 0, &until);
    if (err_is(err))
        sop_wrong(parse, step->body_line, "%s", err_what(err));
}

static void script_body(sop_parse_t *parse, sop_step_t *step)
{
    value_script_t script = {0};
    err_t err = values_script(parse->arena, NULL, step->body, step->body_size, &script);
    if (err_is(err))
        sop_wrong(parse, step->body_line + sop_newlines(step->body, script.at), "%s",
                  err_what(err));
}

/* `then: NAME` or `else: NAME`, a line of its own? `*name` is what stands behind. */
static bool is_target(span_t line, const char *word, span_t *name)
{
    size_t size = strlen(word);
    line = span_trim(line);
    if (line.size < size || memcmp(line.text, word, size) != 0)
        return false;
    *name = span_trim(span_skip(line, size));
    return true;
}

/* The step that a branch names, behind the branch itself. */
static size_t target(sop_parse_t *parse, size_t self, unsigned line, span_t name)
{
    const char *slug = value_slug(parse->arena, name.text, name.size);
    const char **names = ARENA_ARRAY(parse->arena, const char *, parse->count + 1);
    for (size_t i = 0; i < parse->count; i++) {
        names[i] = parse->items[i].step.name;
        if (strcmp(names[i], slug) != 0)
            continue;
        if (i <= self)
            sop_wrong(parse, line, "a branch only goes forward, and '%s' is %s: name a later step",
                      slug, i == self ? "this step itself" : "an earlier one");
        return i;
    }
    if (strcmp(slug, "end") != 0)
        sop_wrong(parse, line, "there is no step '%s'%s", slug,
                  sop_hint(parse->arena, slug, names));
    return parse->count;
}

/* A condition, then at least one of the lines `then: STEP`, `else: STEP`. */
static void branch_body(sop_parse_t *parse, size_t self, bool sound)
{
    sop_step_t *step = &parse->items[self].step;
    span_t rest = span_of(step->body), name;
    size_t condition = step->body_size, at = 0;
    unsigned then_line = 0, else_line = 0, line = step->body_line;
    bool holds;
    step->then_at = step->else_at = self + 1;
    for (; rest.size; line++) {
        size_t start = (size_t)(rest.text - step->body);
        span_t text = span_split(&rest, '\n');
        bool then = is_target(text, "then:", &name);
        if (!then && !is_target(text, "else:", &name)) {
            if ((then_line || else_line) && span_trim(text).size)
                sop_wrong(parse, line, "the condition stands before `then:` and `else:`");
            continue;
        }
        unsigned *seen = then ? &then_line : &else_line;
        condition = start < condition ? start : condition;
        if (*seen)
            sop_wrong(parse, line, "this line is there twice (first on line %u): keep one", *seen);
        *seen = line;
        *(then ? &step->then_at : &step->else_at) = target(parse, self, line, name);
    }
    if (!then_line && !else_line)
        sop_wrong(
            parse, step->body_line,
            "an ```if needs a line `then: STEP` or `else: STEP`: the later step to go on with "
            "(`end`: none)");
    step->condition = arena_strndup(parse->arena, step->body, condition);
    err_t err = condition_holds(parse->arena, NULL, step->condition, condition, &at, &holds);
    if (err_is(err) && sound) /* else the references are told of already */
        sop_wrong(parse, step->body_line + sop_newlines(step->condition, at), "%s", err_what(err));
}

static void check_body(sop_parse_t *parse, sop_step_t *step)
{
    bool blank = is_blank(step->body);
    if (step->kind == SOP_APPROVE && blank && *step->prose) {
        step->body = step->prose;
        step->body_size = strlen(step->prose);
        step->body_line = step->prose_line;
        blank = is_blank(step->body);
    }
    if (step->kind == SOP_LLM && is_blank(step->prose))
        sop_wrong(parse, step->line, "the step says nothing to do: write what, or give it a block");
    else if (step->kind != SOP_LLM && blank)
        sop_wrong(parse, step->body_line ? step->body_line - 1 : step->line,
                  "the ```%s block is empty", sop_kind_info(step->kind)->word);
    else if (step->kind == SOP_TOOL || step->kind == SOP_SOP || step->kind == SOP_EACH)
        sop_call_body(parse, step);
    else if (step->kind == SOP_WAIT)
        wait_body(parse, step);
}

/* ---- references --------------------------------------------------------------------------- */

static void check_step_ref(sop_parse_t *parse, unsigned line, size_t self, const value_ref_t *ref)
{
    size_t at = 0;
    while (at < parse->count && strcmp(parse->items[at].step.name, ref->step) != 0)
        at++;
    if (at < self)
        return;
    if (at < parse->count) {
        sop_wrong(parse, line, "{{%s}}: step '%s' is %s: only results of earlier steps are known",
                  ref->text, ref->step, at == self ? "this step itself" : "a later step");
        return;
    }
    const char **names = ARENA_ARRAY(parse->arena, const char *, parse->count + 1);
    for (size_t i = 0; i < parse->count; i++)
        names[i] = parse->items[i].step.name;
    sop_wrong(parse, line, "{{%s}}: there is no step '%s'%s", ref->text, ref->step,
              sop_hint(parse->arena, ref->step, names));
}

static void check_input_ref(sop_parse_t *parse, unsigned line, const value_ref_t *ref)
{
    const sop_t *sop = &parse->sop;
    const char *key = ref->path_count ? ref->path[0].key : NULL;
    if (!sop->input_count || !key)
        return;
    const char *names[SOP_NAMES_MOST + 1] = {0};
    for (size_t i = 0; i < sop->input_count; i++) {
        names[i] = sop->inputs[i].name;
        if (!strcmp(names[i], key))
            return;
    }
    sop_wrong(parse, line, "{{%s}}: '%s' is not among the inputs of the front matter%s", ref->text,
              key, sop_hint(parse->arena, key, names));
}

/* Every reference of a text that the run will fill in; from `item_at` on there is an item. */
static void check_text(sop_parse_t *parse, size_t self, const char *text, unsigned line,
                       size_t item_at)
{
    size_t size = strlen(text), at = 0, counted = 0;
    while (at < size) {
        value_ref_t ref = {0};
        bool found = true;
        const char *open = strstr(text + at, "{{");
        size_t place = open ? (size_t)(open - text) : at;
        err_t err = value_next(parse->arena, text, size, &at, &ref, &found);
        if (found)
            place = ref.start;
        line += sop_newlines(text + counted, place - counted);
        counted = place;
        if (err_is(err))
            sop_wrong(parse, line, "%s", err_what(err));
        else if (found && ref.root == VALUE_STEP)
            check_step_ref(parse, line, self, &ref);
        else if (found && ref.root == VALUE_INPUT)
            check_input_ref(parse, line, &ref);
        else if (found && (ref.root == VALUE_ITEM || ref.root == VALUE_INDEX) && place < item_at)
            sop_wrong(parse, line,
                      "{{%s}}: there is an item only in what an ```each does with its list",
                      ref.text);
    }
}

static void check_references(sop_parse_t *parse, size_t index)
{
    sop_step_t *step = &parse->items[index].step;
    size_t before = parse->problem_count;
    if (step->kind == SOP_LLM)
        check_text(parse, index, step->prose, step->prose_line, SIZE_MAX);
    else
        check_text(parse, index, step->body, step->body_line,
                   step->kind == SOP_EACH ? sop_call_at(step) : SIZE_MAX);
    bool sound = parse->problem_count == before;
    if (step->kind == SOP_SH && sound)
        script_body(parse, step);
    if (step->kind == SOP_IF && !is_blank(step->body))
        branch_body(parse, index, sound);
}

void sop_check(sop_parse_t *parse)
{
    for (size_t i = 0; i < parse->count; i++) {
        check_body(parse, &parse->items[i].step);
        check_references(parse, i);
    }
}
