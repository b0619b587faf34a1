#include "actors/agent/sop.h"

#include <ctype.h>
#include <string.h>

#include "actors/agent/sop_parts.h"
#include "actors/agent/values.h"
#include "proto/mp.h"
#include "proto/record.h"

static const sop_kind_info_t kinds[SOP_KIND_COUNT] = {
#define KIND_INFO(name, word, doc) {sizeof(word) > 1 ? word : "llm", word, doc},
    SOP_KIND_ROWS(KIND_INFO)
#undef KIND_INFO
};

const sop_kind_info_t *sop_kind_info(sop_kind_t kind)
{
    return (unsigned)kind < SOP_KIND_COUNT ? &kinds[kind] : &kinds[SOP_LLM];
}

/* ---- the file and its problems ------------------------------------------------------------ */

static void problem_at(sop_parse_t *parse, unsigned line, bool warning, const char *what)
{
    if (parse->problem_count == SOP_PROBLEMS_MOST)
        return;
    size_t at = parse->problem_count++;
    for (; at && parse->problems[at - 1].line > line; at--)
        parse->problems[at] = parse->problems[at - 1];
    parse->problems[at] = (sop_problem_t){line ? line : 1, warning, what};
}

void sop_wrong(sop_parse_t *parse, unsigned line, const char *format, ...)
{
    if (parse->problem_count == SOP_PROBLEMS_MOST)
        return;
    va_list args;
    va_start(args, format);
    problem_at(parse, line, false, arena_vprintf(parse->arena, format, args));
    va_end(args);
}

void sop_warn(sop_parse_t *parse, unsigned line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    problem_at(parse, line, true, arena_vprintf(parse->arena, format, args));
    va_end(args);
}

static void index_lines(sop_parse_t *parse)
{
    unsigned count = 1;
    for (size_t i = 0; i < parse->size; i++)
        count += parse->text[i] == '\n';
    size_t *starts = ARENA_ARRAY(parse->arena, size_t, count + 1);
    unsigned line = 1;
    for (size_t i = 0; i < parse->size; i++)
        if (parse->text[i] == '\n')
            starts[line++] = i + 1;
    starts[line] = parse->size + 1;
    parse->starts = starts;
    parse->line_count = count;
}

span_t sop_line(const sop_parse_t *parse, unsigned line)
{
    if (!line || line > parse->line_count)
        return (span_t){"", 0};
    size_t start = parse->starts[line - 1], end = parse->starts[line] - 1;
    while (end > start && (parse->text[end - 1] == '\r' || parse->text[end - 1] == '\n'))
        end--;
    return (span_t){parse->text + start, end - start};
}

unsigned sop_newlines(const char *text, size_t size)
{
    unsigned count = 0;
    for (size_t i = 0; i < size; i++)
        count += text[i] == '\n';
    return count;
}

/* Text that is not text; no sense in going on then. */
static bool check_characters(sop_parse_t *parse)
{
    size_t before = parse->problem_count;
    for (unsigned line = 1; line <= parse->line_count; line++) {
        span_t span = sop_line(parse, line);
        if (span.size && memchr(span.text, '\0', span.size))
            sop_wrong(parse, line, "the line holds a NUL character: remove it");
        else if (!mp_utf8(span.text, span.size))
            sop_wrong(parse, line, "the line is not valid UTF-8: save the file as UTF-8");
    }
    return parse->problem_count == before;
}

const char *sop_hint(arena_t *arena, const char *text, const char *const *names)
{
    const char *nearest = record_nearest(text, names);
    return nearest && *nearest ? arena_printf(arena, ": did you mean '%s'?", nearest) : "";
}

/* ---- what a step says --------------------------------------------------------------------- */

/* Spaces a line begins with. */
static size_t indent_of(span_t line)
{
    size_t indent = 0;
    while (indent < line.size && line.text[indent] == ' ')
        indent++;
    return indent;
}

/* The first line of an item without number and bold lead. */
static span_t first_words(span_t line, bool named)
{
    line = span_trim(line);
    while (line.size && isdigit((unsigned char)*line.text))
        line = span_skip(line, 1);
    if (line.size)
        line = span_trim(span_skip(line, 1)); /* . or ) */
    bool bold = line.size > 4 && (!memcmp(line.text, "**", 2) || !memcmp(line.text, "__", 2));
    if (!named || !bold)
        return line;
    for (size_t i = 2; i + 1 < line.size; i++) {
        if (memcmp(line.text + i, line.text, 2) != 0)
            continue;
        line = span_trim(span_skip(line, i + 2));
        if (line.size && *line.text == ':')
            line = span_trim(span_skip(line, 1));
        return line;
    }
    return line;
}

/* Lines `from` to `to` without those of the block, all moved left by the least indent. */
static void put_lines(const sop_parse_t *parse, const sop_item_t *item, unsigned from, unsigned to,
                      buf_t *out)
{
    size_t least = SIZE_MAX;
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned line = from; line <= to; line++) {
            span_t span = sop_line(parse, line);
            if (item && line >= item->fence_line && line <= item->fence_end)
                continue;
            size_t indent = indent_of(span);
            if (pass == 0) {
                least = span_trim(span).size && indent < least ? indent : least;
                continue;
            }
            size_t cut = indent < least ? indent : least;
            buf_put(out, span.text + cut, span.size - cut);
            buf_puts(out, "\n");
        }
    }
}

static void prose_of(sop_parse_t *parse, sop_item_t *item)
{
    buf_t out;
    buf_open(&out, parse->arena);
    sop_step_t *step = &item->step;
    if (item->fence_line != step->line) {
        span_t first = first_words(sop_line(parse, step->line), item->named);
        buf_put(&out, first.text, first.size);
        buf_puts(&out, "\n");
    }
    put_lines(parse, item, step->line + 1, item->last_line, &out);
    step->prose_line = step->line;
    for (const char *c = out.data; isspace((unsigned char)*c); c++)
        step->prose_line += *c == '\n';
    step->prose = span_copy(parse->arena, span_trim(span_of(out.data)));
}

/* A title for people where none was written: the first words. */
static const char *short_title(arena_t *arena, const sop_step_t *step)
{
    span_t rest = span_of(step->prose);
    span_t line = span_trim(span_split(&rest, '\n'));
    if (!line.size)
        return arena_strdup(arena, step->name);
    size_t size = line.size < 60 ? line.size : 60;
    while (size && !mp_utf8(line.text, size))
        size--;
    return arena_printf(arena, "%.*s%s", (int)size, line.text, size < line.size ? " ..." : "");
}

static void name_step(sop_parse_t *parse, size_t index)
{
    sop_item_t *item = &parse->items[index];
    sop_step_t *step = &item->step;
    const char *slug =
        step->title ? value_slug(parse->arena, step->title, strlen(step->title)) : "";
    step->name = *slug ? slug : arena_printf(parse->arena, "step_%zu", index + 1);
    for (size_t i = 0; i < index; i++)
        if (!strcmp(parse->items[i].step.name, step->name)) {
            sop_wrong(parse, step->line,
                      "the name '%s' is that of the step on line %u too: give one of them another "
                      "bold name",
                      step->name, parse->items[i].step.line);
            break;
        }
    if (!step->title)
        step->title = short_title(parse->arena, step);
}

/* ---- the whole ---------------------------------------------------------------------------- */

static void describe_whole(sop_parse_t *parse)
{
    if (!parse->sop.title)
        sop_wrong(parse, parse->body_first <= parse->line_count ? parse->body_first : 1,
                  "there is no title: begin with a line `# What this procedure does`");
    if (!parse->count && !parse->swallowed)
        sop_wrong(parse, parse->line_count,
                  "there are no steps: write them as a numbered list, `1. **Name**: what to do`");
    buf_t out;
    buf_open(&out, parse->arena);
    unsigned from = parse->title_line ? parse->title_line + 1 : parse->body_first;
    unsigned to = parse->count ? parse->items[0].step.line - 1 : parse->line_count;
    put_lines(parse, NULL, from, to, &out);
    parse->sop.description = span_copy(parse->arena, span_trim(span_of(out.data)));
}

static void finish_steps(sop_parse_t *parse)
{
    for (size_t i = 0; i < parse->count; i++) {
        prose_of(parse, &parse->items[i]);
        name_step(parse, i);
    }
    sop_check(parse);
    sop_step_t *steps = ARENA_ARRAY(parse->arena, sop_step_t, parse->count);
    for (size_t i = 0; i < parse->count; i++)
        steps[i] = parse->items[i].step;
    parse->sop.steps = steps;
    parse->sop.step_count = parse->count;
}

static void read_file(sop_parse_t *parse)
{
    index_lines(parse);
    if (!check_characters(parse))
        return;
    sop_front_matter(parse);
    sop_markdown(parse);
    describe_whole(parse);
    finish_steps(parse);
}

static size_t limit(size_t asked, size_t normal, size_t ceiling)
{
    if (!asked)
        return normal;
    return asked < ceiling ? asked : ceiling;
}

/* ERR_OK when only warnings were found. */
static err_t verdict(const sop_parse_t *parse)
{
    size_t wrong_count = 0;
    const sop_problem_t *first = NULL;
    for (size_t i = 0; i < parse->problem_count; i++) {
        const sop_problem_t *problem = &parse->problems[i];
        if (problem->warning)
            continue;
        first = first ? first : problem;
        wrong_count++;
    }
    if (!first)
        return err_ok();
    if (wrong_count == 1)
        return err_make(parse->arena, ERR_ARGUMENT, "line %u: %s", first->line, first->what);
    return err_make(parse->arena, ERR_ARGUMENT, "line %u: %s (and %zu more)", first->line,
                    first->what, wrong_count - 1);
}

err_t sop_parse(arena_t *arena, const char *markdown, size_t size, const sop_options_t *options,
                const sop_t **out, const sop_problem_t **problems, size_t *count)
{
    static const sop_options_t normal;
    options = options ? options : &normal;
    size_t largest = limit(options->largest_bytes, SOP_BYTES_LARGEST, SOP_BYTES_CEILING);
    sop_parse_t parse = {.arena = arena, .text = markdown, .size = size};
    parse.most_steps = limit(options->most_steps, SOP_STEPS_MOST, SOP_STEPS_CEILING);
    parse.problems = ARENA_ARRAY(arena, sop_problem_t, SOP_PROBLEMS_MOST);
    *out = NULL;
    if (size > largest)
        sop_wrong(&parse, 1, "the file is larger than %zu bytes: split it, or move data out of it",
                  largest);
    *problems = parse.problems;
    *count = parse.problem_count;
    if (size > largest)
        return err_of(ERR_TOO_LARGE, parse.problems[0].what);
    if (size >= 3 && !memcmp(markdown, "\xef\xbb\xbf", 3)) {
        parse.text += 3;
        parse.size -= 3;
    }
    parse.items = ARENA_ARRAY(arena, sop_item_t, parse.most_steps);
    read_file(&parse);
    *count = parse.problem_count;
    err_t err = verdict(&parse);
    if (!err_is(err))
        *out = arena_copy(arena, &parse.sop, sizeof(parse.sop));
    return err;
}

const char *sop_problems_text(arena_t *arena, const sop_problem_t *problems, size_t count)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < count; i++)
        buf_printf(&out, "%sline %u: %s%s", i ? "\n" : "", problems[i].line,
                   problems[i].warning ? "warning: " : "", problems[i].what);
    return out.data;
}
