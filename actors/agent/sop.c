#include "actors/agent/sop.h"

#include <cmark.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/condition.h"
#include "actors/agent/values.h"
#include "proto/json.h"
#include "proto/mp.h"
#include "proto/record.h"

/* ---- rows --------------------------------------------------------------------------------- */

static const sop_kind_info_t kinds[SOP_KIND_COUNT] = {
#define KIND_INFO(name, word, runs, doc) {sizeof(word) > 1 ? word : "llm", word, runs, doc},
    SOP_KIND_ROWS(KIND_INFO)
#undef KIND_INFO
};

static const char *const kind_words[] = {
#define KIND_WORD(name, word, runs, doc) word,
    SOP_KIND_ROWS(KIND_WORD)
#undef KIND_WORD
        NULL};

static const char *const replay_words[] = {
#define REPLAY_WORD(name, word, doc) word,
    SOP_REPLAY_ROWS(REPLAY_WORD)
#undef REPLAY_WORD
        NULL};

const sop_kind_info_t *sop_kind_info(sop_kind_t kind)
{
    return (unsigned)kind < SOP_KIND_COUNT ? &kinds[kind] : &kinds[SOP_LLM];
}

const char *sop_replay_name(sop_replay_t replay)
{
    return (unsigned)replay < SOP_REPLAY_COUNT ? replay_words[replay] : "";
}

/* How the text of a front matter key or of an attribute is read. */
typedef enum field_kind {
    READ_NUMBER,
    READ_DURATION,
    READ_BYTES,
    READ_VARIABLES, /* names of environment variables */
    READ_HOSTS,
    READ_TOOLS,
    READ_INPUTS,
    READ_FOLDER,
    READ_REPLAY,
    READ_NAME
} field_kind_t;

typedef struct row {
    const char *name;
    field_kind_t kind;
    int64_t min, max;
    size_t offset;
    unsigned kinds; /* attributes: bits of sop_kind_t */
} row_t;

enum {
    ONE_SECOND = 1000,
    ONE_HOUR = 3600 * ONE_SECOND,
    ONE_DAY = 24 * ONE_HOUR,
    NAMES_MOST = 64,
    ARGS_MOST = 256 /* of a tool, in lines */
};
static const int64_t longest_ms = INT64_C(366) * ONE_DAY;

/* Front matter. */
static const row_t front_rows[] = {
    {"inputs", READ_INPUTS, 0, 0, offsetof(sop_t, inputs), 0},
    {"max_steps", READ_NUMBER, 1, 1000000, offsetof(sop_t, max_steps), 0},
    {"max_wall", READ_DURATION, ONE_SECOND, INT64_C(366) * ONE_DAY, offsetof(sop_t, max_wall_ms),
     0},
    {"max_tokens", READ_NUMBER, 1, INT64_C(1000000000000), offsetof(sop_t, max_tokens), 0},
    {"max_calls", READ_NUMBER, 1, 1000000, offsetof(sop_t, max_calls), 0},
    {"env", READ_VARIABLES, 0, 0, offsetof(sop_t, env), 0},
    {"hosts", READ_HOSTS, 0, 0, offsetof(sop_t, hosts), 0},
    {"tools", READ_TOOLS, 0, 0, offsetof(sop_t, tools), 0},
    {"cwd", READ_FOLDER, 0, 0, offsetof(sop_t, cwd), 0},
};

#define KIND(name) (1u << SOP_##name)

/* Attributes behind the word of a block. */
static const row_t attribute_rows[] = {
    {"name", READ_NAME, 0, 0, offsetof(sop_step_t, title),
     KIND(TOOL) | KIND(SH) | KIND(WAIT) | KIND(APPROVE) | KIND(EACH) | KIND(IF) | KIND(SOP)},
    {"replay", READ_REPLAY, 0, 0, offsetof(sop_step_t, replay), KIND(TOOL) | KIND(SH)},
    {"timeout", READ_DURATION, 10, ONE_DAY, offsetof(sop_step_t, timeout_ms),
     KIND(TOOL) | KIND(SH)},
    {"retries", READ_NUMBER, 0, 20, offsetof(sop_step_t, retries), KIND(TOOL) | KIND(SH)},
    {"output", READ_BYTES, 256, 16 << 20, offsetof(sop_step_t, output_bytes), KIND(SH)},
    {"env", READ_VARIABLES, 0, 0, offsetof(sop_step_t, env), KIND(SH)},
};

enum {
    FRONT_COUNT = sizeof(front_rows) / sizeof(front_rows[0]),
    ATTRIBUTE_COUNT = sizeof(attribute_rows) / sizeof(attribute_rows[0])
};

/* ---- the file and its problems ------------------------------------------------------------ */

typedef struct span {
    const char *text;
    size_t size;
} span_t;

/* A step while it is read: which lines of the file are its own. */
typedef struct item {
    sop_step_t step;
    unsigned last_line;
    unsigned fence_line; /* of the executable block, 0: none */
    unsigned fence_end;
    bool named; /* by bold lead or attribute */
} item_t;

typedef struct parse {
    arena_t *arena;
    const char *text;
    size_t size;
    const size_t *starts; /* of lines, from 0; one more than there are lines */
    unsigned line_count;
    size_t most_steps;
    bool any_kind;
    sop_t sop;
    unsigned title_line;
    unsigned body_first; /* first line behind the front matter */
    item_t *items;
    size_t count;
    bool open;          /* blocks now belong to the last item */
    bool new_section;   /* a heading came after the last list */
    bool swallowed;     /* an unclosed block took what follows: say no more about it */
    unsigned fence_end; /* last line of the previous code block */
    sop_problem_t *problems;
    size_t problem_count;
} parse_t;

static void problem_at(parse_t *parse, unsigned line, bool warning, const char *what)
{
    if (parse->problem_count == SOP_PROBLEMS_MOST)
        return;
    size_t at = parse->problem_count++;
    for (; at && parse->problems[at - 1].line > line; at--)
        parse->problems[at] = parse->problems[at - 1];
    parse->problems[at] = (sop_problem_t){line ? line : 1, warning, what};
}

__attribute__((format(printf, 3, 4))) static void wrong(parse_t *parse, unsigned line,
                                                        const char *format, ...)
{
    if (parse->problem_count == SOP_PROBLEMS_MOST)
        return;
    va_list args;
    va_start(args, format);
    problem_at(parse, line, false, arena_vprintf(parse->arena, format, args));
    va_end(args);
}

__attribute__((format(printf, 3, 4))) static void warn(parse_t *parse, unsigned line,
                                                       const char *format, ...)
{
    va_list args;
    va_start(args, format);
    problem_at(parse, line, true, arena_vprintf(parse->arena, format, args));
    va_end(args);
}

static void index_lines(parse_t *parse)
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

/* A line from 1, without its end. Out of range: empty. */
static span_t line_at(const parse_t *parse, unsigned line)
{
    if (!line || line > parse->line_count)
        return (span_t){"", 0};
    size_t start = parse->starts[line - 1], end = parse->starts[line] - 1;
    while (end > start && (parse->text[end - 1] == '\r' || parse->text[end - 1] == '\n'))
        end--;
    return (span_t){parse->text + start, end - start};
}

static span_t trim(span_t span)
{
    while (span.size && isspace((unsigned char)*span.text)) {
        span.text++;
        span.size--;
    }
    while (span.size && isspace((unsigned char)span.text[span.size - 1]))
        span.size--;
    return span;
}

static span_t span_of(const char *text)
{
    return (span_t){text, strlen(text)};
}

static char *copy(arena_t *arena, span_t span)
{
    return arena_strndup(arena, span.text, span.size);
}

/* The part before `stop`; `rest` goes on behind it. */
static span_t split(span_t *rest, char stop)
{
    const char *end = rest->size ? memchr(rest->text, stop, rest->size) : NULL;
    span_t part = {rest->text, end ? (size_t)(end - rest->text) : rest->size};
    size_t used = part.size + (end != NULL);
    *rest = (span_t){rest->text + used, rest->size - used};
    return part;
}

static unsigned newlines(const char *text, size_t size)
{
    unsigned count = 0;
    for (size_t i = 0; i < size; i++)
        count += text[i] == '\n';
    return count;
}

/* Text that is not text; no sense in going on then. */
static bool check_characters(parse_t *parse)
{
    size_t before = parse->problem_count;
    for (unsigned line = 1; line <= parse->line_count; line++) {
        span_t span = line_at(parse, line);
        if (span.size && memchr(span.text, '\0', span.size))
            wrong(parse, line, "the line holds a NUL character: remove it");
        else if (!mp_utf8(span.text, span.size))
            wrong(parse, line, "the line is not valid UTF-8: save the file as UTF-8");
    }
    return parse->problem_count == before;
}

/* ", did you mean 'x'?" or nothing. */
static const char *hint(arena_t *arena, const char *text, const char *const *names)
{
    const char *nearest = record_nearest(text, names);
    return nearest && *nearest ? arena_printf(arena, ": did you mean '%s'?", nearest) : "";
}

static const char *row_names(arena_t *arena, const row_t *rows, size_t count)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < count; i++)
        buf_printf(&out, "%s%s", i ? ", " : "", rows[i].name);
    return out.data;
}

static const char *row_hint(arena_t *arena, const char *text, const row_t *rows, size_t count)
{
    const char *names[FRONT_COUNT + ATTRIBUTE_COUNT + 1] = {0};
    for (size_t i = 0; i < count; i++)
        names[i] = rows[i].name;
    return hint(arena, text, names);
}

static const row_t *find_row(const row_t *rows, size_t count, span_t name)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(rows[i].name) == name.size && !memcmp(rows[i].name, name.text, name.size))
            return &rows[i];
    return NULL;
}

/* ---- reading single values ---------------------------------------------------------------- */

/* A whole number and where it ends; false when there is none or it is huge. */
static bool take_number(const char **at, int64_t *number)
{
    const char *c = *at;
    *number = 0;
    while (isdigit((unsigned char)*c) && *number < INT64_C(100000000000000))
        *number = *number * 10 + (*c++ - '0');
    if (c == *at || isdigit((unsigned char)*c))
        return false;
    *at = c;
    return true;
}

bool sop_duration(const char *text, int64_t *ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {
        {"ms", 1}, {"s", ONE_SECOND}, {"m", 60 * ONE_SECOND}, {"h", ONE_HOUR}, {"d", ONE_DAY}};
    const size_t unit_count = sizeof(units) / sizeof(units[0]);
    int64_t total = 0;
    while (*text) {
        int64_t number;
        size_t i = 0;
        if (!take_number(&text, &number))
            return false;
        size_t size = strspn(text, "abcdefghijklmnopqrstuvwxyz");
        while (i < unit_count &&
               (strlen(units[i].unit) != size || memcmp(units[i].unit, text, size)))
            i++;
        if (i == unit_count || number > longest_ms / units[i].ms)
            return false;
        total += number * units[i].ms;
        text += size;
        if (total > longest_ms)
            return false;
    }
    *ms = total;
    return total > 0;
}

/* "64KiB", "1MiB", "4096". */
static bool read_bytes(const char *text, int64_t *bytes)
{
    if (!take_number(&text, bytes))
        return false;
    if (!strcmp(text, "KiB"))
        *bytes *= 1024;
    else if (!strcmp(text, "MiB"))
        *bytes *= 1024 * 1024;
    else
        return !*text || !strcmp(text, "B");
    return true;
}

static bool is_variable(const char *text)
{
    bool good = isalpha((unsigned char)*text) || *text == '_';
    for (; *text; text++)
        good = good && (isalnum((unsigned char)*text) || *text == '_');
    return good;
}

static bool is_host(const char *text)
{
    bool good = *text != '\0';
    for (; *text; text++)
        good = good && (isalnum((unsigned char)*text) || strchr(".-:*[]", *text));
    return good;
}

/* SERVER/TOOL or SERVER/ *, without the blank. */
static bool is_foreign(const char *text)
{
    const char *slash = strchr(text, '/');
    if (!slash || slash == text || !slash[1])
        return false;
    for (const char *at = text; *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr("_.-/", *at) && strcmp(at, "*") != 0)
            return false;
    return !strchr(slash, '*') || !strcmp(slash, "/*");
}

/* Below its parent, or absolute; never up. */
static bool is_folder(const char *text)
{
    if (!*text)
        return false;
    for (span_t rest = span_of(text); rest.size;) {
        span_t part = split(&rest, '/');
        if (part.size == 2 && !memcmp(part.text, "..", 2))
            return false;
    }
    return true;
}

/* "A, B" into names; each must pass `good`. */
static bool read_names(parse_t *parse, unsigned line, const char *text, bool (*good)(const char *),
                       sop_names_t *names)
{
    const char **items = ARENA_ARRAY(parse->arena, const char *, NAMES_MOST);
    size_t count = 0;
    for (span_t rest = span_of(text); rest.size;) {
        const char *name = copy(parse->arena, trim(split(&rest, ',')));
        if (!good(name) || count == NAMES_MOST) {
            wrong(parse, line,
                  "'%s' is no name that can stand here: write names with commas "
                  "between them, at most %d",
                  name, NAMES_MOST);
            return false;
        }
        items[count++] = name;
    }
    *names = (sop_names_t){items, count};
    return true;
}

static void read_inputs(parse_t *parse, unsigned line, const char *text)
{
    sop_input_t *inputs = ARENA_ARRAY(parse->arena, sop_input_t, NAMES_MOST);
    size_t count = 0;
    for (span_t rest = span_of(text); rest.size;) {
        char *name = copy(parse->arena, trim(split(&rest, ',')));
        size_t size = strlen(name);
        bool optional = size && name[size - 1] == '?';
        if (optional)
            name[size - 1] = '\0';
        if (!is_variable(name) || count == NAMES_MOST) {
            wrong(parse, line,
                  "'%s' is no name of an input: write `inputs: folder, depth?` with letters, "
                  "digits and _, at most %d",
                  name, NAMES_MOST);
            return;
        }
        inputs[count++] = (sop_input_t){name, optional};
    }
    parse->sop.inputs = inputs;
    parse->sop.input_count = count;
}

static void wrong_range(parse_t *parse, unsigned line, const row_t *row, const char *text,
                        const char *example)
{
    wrong(parse, line, "%s cannot be '%s': write %s, from %" PRId64 " to %" PRId64 "%s", row->name,
          text, example, row->min, row->max, row->kind == READ_DURATION ? " ms" : "");
}

static bool read_scalar(const row_t *row, const char *text, int64_t *number)
{
    const char *at = text;
    if (row->kind == READ_DURATION)
        return sop_duration(text, number);
    if (row->kind == READ_BYTES)
        return read_bytes(text, number);
    return take_number(&at, number) && !*at;
}

/* Reads `text` into the field of `row` in `base`. */
static void read_field(parse_t *parse, unsigned line, const row_t *row, const char *text,
                       void *base)
{
    static const char *const examples[] = {"a whole number", "a duration such as 90s, 10m or 1h30m",
                                           "a size such as 64KiB"};
    void *field = (char *)base + row->offset;
    int64_t number = 0;
    switch (row->kind) {
    case READ_NUMBER:
    case READ_DURATION:
    case READ_BYTES:
        if (!read_scalar(row, text, &number) || number < row->min || number > row->max)
            wrong_range(parse, line, row, text, examples[row->kind]);
        else
            memcpy(field, &number, sizeof(number));
        return;
    case READ_VARIABLES:
        read_names(parse, line, text, is_variable, field);
        return;
    case READ_HOSTS:
        read_names(parse, line, text, is_host, field);
        return;
    case READ_TOOLS:
        read_names(parse, line, text, is_foreign, field);
        return;
    case READ_INPUTS:
        read_inputs(parse, line, text);
        return;
    case READ_FOLDER:
        if (!is_folder(text))
            wrong(parse, line, "cwd cannot be '%s': write a folder, without ..", text);
        memcpy(field, &text, sizeof(text));
        return;
    case READ_REPLAY: {
        sop_replay_t replay = SOP_REPLAY_SAFE;
        while (replay < SOP_REPLAY_COUNT && strcmp(replay_words[replay], text) != 0)
            replay++;
        if (replay == SOP_REPLAY_COUNT)
            wrong(parse, line, "replay cannot be '%s': it is safe, keyed, check or manual%s", text,
                  hint(parse->arena, text, replay_words + 1));
        else
            memcpy(field, &replay, sizeof(replay));
        return;
    }
    case READ_NAME:
        memcpy(field, &text, sizeof(text));
        return;
    }
}

/* ---- front matter ------------------------------------------------------------------------- */

static bool is_dashes(span_t line)
{
    line = trim(line);
    return line.size == 3 && !memcmp(line.text, "---", 3);
}

/* `key: value`, `# comment` or nothing. */
static void front_line(parse_t *parse, unsigned line, bool *seen)
{
    span_t rest = trim(line_at(parse, line));
    if (!rest.size || *rest.text == '#')
        return;
    bool colon = memchr(rest.text, ':', rest.size) != NULL;
    span_t key = trim(split(&rest, ':'));
    const char *name = copy(parse->arena, key);
    const char *value = copy(parse->arena, trim(rest));
    if (!colon) {
        wrong(parse, line, "front matter is `key: value` lines: '%s' has no colon", name);
        return;
    }
    const row_t *row = find_row(front_rows, FRONT_COUNT, key);
    if (!row) {
        const char *near = row_hint(parse->arena, name, front_rows, FRONT_COUNT);
        wrong(parse, line, "the front matter knows no '%s'%s%s", name, *near ? near : ": it knows ",
              *near ? "" : row_names(parse->arena, front_rows, FRONT_COUNT));
    } else if (seen[row - front_rows]) {
        wrong(parse, line, "'%s' is there twice: keep one", name);
    } else {
        seen[row - front_rows] = true;
        read_field(parse, line, row, value, &parse->sop);
    }
}

static void front_matter(parse_t *parse)
{
    bool seen[FRONT_COUNT] = {false};
    parse->body_first = 1;
    if (!is_dashes(line_at(parse, 1)))
        return;
    unsigned last = 2;
    while (last <= parse->line_count && !is_dashes(line_at(parse, last)))
        last++;
    if (last > parse->line_count) {
        wrong(parse, 1, "the front matter that begins here is not closed: end it with a line ---");
        return;
    }
    for (unsigned line = 2; line < last; line++)
        front_line(parse, line, seen);
    parse->body_first = last + 1;
}

/* ---- blocks ------------------------------------------------------------------------------- */

static item_t *last_item(parse_t *parse)
{
    return &parse->items[parse->count - 1];
}

static unsigned first_line(cmark_node *node)
{
    return (unsigned)cmark_node_get_start_line(node);
}

/* The kind with this word, or SOP_LLM. */
static sop_kind_t kind_of(const char *word)
{
    for (sop_kind_t kind = SOP_TOOL; kind < SOP_KIND_COUNT; kind++)
        if (!strcmp(kinds[kind].word, word))
            return kind;
    return SOP_LLM;
}

/* The next `key=value` or `key="v w"` of an info string. */
static span_t take_attribute(span_t *rest, span_t *value)
{
    *rest = trim(*rest);
    size_t size = 0;
    bool quoted = false;
    while (size < rest->size && (quoted || !isspace((unsigned char)rest->text[size])))
        quoted ^= rest->text[size++] == '"';
    span_t whole = {rest->text, size};
    *rest = (span_t){rest->text + size, rest->size - size};
    span_t name = split(&whole, '=');
    if (whole.size >= 2 && *whole.text == '"' && whole.text[whole.size - 1] == '"')
        whole = (span_t){whole.text + 1, whole.size - 2};
    *value = whole;
    return name;
}

static void attribute(parse_t *parse, unsigned line, span_t name, const char *value,
                      sop_step_t *step)
{
    arena_t *arena = parse->arena;
    const char *word = kinds[step->kind].word;
    const row_t *row = find_row(attribute_rows, ATTRIBUTE_COUNT, name);
    const char *text = copy(arena, name);
    if (!row) {
        const char *near = row_hint(arena, text, attribute_rows, ATTRIBUTE_COUNT);
        wrong(parse, line, "a block knows no attribute '%s'%s%s", text,
              *near ? near : ": it knows ",
              *near ? "" : row_names(arena, attribute_rows, ATTRIBUTE_COUNT));
    } else if (!(row->kinds & (1u << step->kind))) {
        wrong(parse, line, "```%s takes no '%s': remove it", word, text);
    } else if (!*value) {
        wrong(parse, line, "the attribute '%s' has no value: write %s=...", text, text);
    } else {
        read_field(parse, line, row, value, step);
    }
}

static void attributes(parse_t *parse, unsigned line, span_t rest, item_t *item)
{
    const char *seen[ATTRIBUTE_COUNT] = {0};
    size_t seen_count = 0;
    for (rest = trim(rest); rest.size; rest = trim(rest)) {
        span_t value;
        span_t name = take_attribute(&rest, &value);
        const char *text = copy(parse->arena, name);
        for (size_t i = 0; i < seen_count; i++)
            if (!strcmp(seen[i], text))
                wrong(parse, line, "the attribute '%s' is there twice: keep one", text);
        if (seen_count < ATTRIBUTE_COUNT)
            seen[seen_count++] = text;
        attribute(parse, line, name, copy(parse->arena, value), &item->step);
        item->named |= !strcmp(text, "name");
    }
}

/* Is a code block the indented kind? Then its first line is already content. */
static bool is_indented(const parse_t *parse, cmark_node *node)
{
    span_t literal = span_of(cmark_node_get_literal(node));
    span_t first = split(&literal, '\n');
    span_t line = line_at(parse, first_line(node));
    size_t column = (size_t)cmark_node_get_start_column(node) - 1;
    return column <= line.size && line.size - column >= first.size && first.size &&
           !memcmp(line.text + column, first.text, first.size);
}

/* ``` or ~~~ and spaces only, whatever stands before on the line? */
static bool closes(const parse_t *parse, cmark_node *node)
{
    unsigned start = first_line(node), end = (unsigned)cmark_node_get_end_line(node);
    span_t line = trim(line_at(parse, end));
    while (line.size && strchr("> \t", *line.text))
        line = (span_t){line.text + 1, line.size - 1};
    if (end <= start || line.size < 3)
        return false;
    for (size_t i = 0; i < line.size; i++)
        if (line.text[i] != line.text[0] || !strchr("`~", line.text[i]))
            return false;
    return true;
}

/* A fence that closes nothing or is not closed takes what follows with it: the commonest slip. */
static void check_closed(parse_t *parse, cmark_node *node, const char *info)
{
    unsigned line = first_line(node);
    if (line == parse->fence_end) {
        wrong(parse, line,
              "this fence begins a new block, it does not close the one above: indent it like the "
              "fence that opens the block");
        parse->swallowed = true;
    } else if (!closes(parse, node)) {
        wrong(parse, line,
              "the ```%s block that begins here is not closed: end it with ``` "
              "indented like this line",
              info);
        parse->swallowed = true;
    }
    parse->fence_end = (unsigned)cmark_node_get_end_line(node);
}

/* Words that people write where they mean one of ours. */
static void check_word(parse_t *parse, unsigned line, const char *word)
{
    static const char *const shells[] = {"bash", "shell", "zsh", "console", "dash", "ksh", NULL};
    for (size_t i = 0; shells[i]; i++)
        if (!strcmp(word, shells[i])) {
            warn(parse, line, "a ```%s block is text and is not run: write ```sh to run it", word);
            return;
        }
    char lower[16];
    snprintf(lower, sizeof(lower), "%s", word);
    for (char *c = lower; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    const char *near = kind_of(lower)      ? lower
                       : strlen(lower) > 4 ? record_nearest(lower, kind_words + 1)
                                           : NULL; /* short ones are languages: json, toml */
    if (near && *near)
        warn(parse, line, "a ```%s block is text and does nothing: did you mean ```%s?", word,
             near);
}

/* A block of ours in a step. */
static void executable(parse_t *parse, cmark_node *node, sop_kind_t kind, span_t rest)
{
    unsigned line = first_line(node);
    const char *word = kinds[kind].word;
    if (!parse->open) {
        wrong(parse, line,
              "this ```%s block is in no step and would never run: put it below a "
              "numbered item, or write ```text if it is an example",
              word);
        return;
    }
    item_t *item = last_item(parse);
    if (item->fence_line) {
        wrong(parse, line,
              "a second block to run in one step (the first is on line %u): make it a "
              "step of its own",
              item->fence_line);
        return;
    }
    if (!kinds[kind].runs && !parse->any_kind)
        wrong(parse, line, "```%s is not supported yet", word);
    const char *body = cmark_node_get_literal(node);
    item->fence_line = line;
    item->fence_end = (unsigned)cmark_node_get_end_line(node);
    item->step.kind = kind;
    item->step.body = arena_strdup(parse->arena, body);
    item->step.body_size = strlen(body);
    item->step.body_line = line + 1;
    attributes(parse, line, rest, item);
}

static void code_block(parse_t *parse, cmark_node *node)
{
    bool indented = is_indented(parse, node);
    span_t rest =
        span_of(indented ? cmark_node_get_literal(node) : cmark_node_get_fence_info(node));
    if (indented) {
        if (rest.size < 3 || (memcmp(rest.text, "```", 3) != 0 && memcmp(rest.text, "~~~", 3) != 0))
            return;
        rest = split(&rest, '\n');
        rest = (span_t){rest.text + 3, rest.size - 3};
    }
    rest = trim(rest);
    size_t size = 0;
    while (size < rest.size && !isspace((unsigned char)rest.text[size]))
        size++;
    const char *word = copy(parse->arena, (span_t){rest.text, size});
    sop_kind_t kind = kind_of(word);
    if (indented) {
        if (kind)
            wrong(parse, first_line(node),
                  "this ```%s block is indented so far that it counts as "
                  "text: indent it by three spaces under its number",
                  word);
        return;
    }
    bool swallowed = parse->swallowed;
    check_closed(parse, node, word);
    if (kind)
        executable(parse, node, kind, (span_t){rest.text + size, rest.size - size});
    else if (!swallowed && *word)
        check_word(parse, first_line(node), word);
}

/* All code blocks below a block, in order. */
static void blocks_below(parse_t *parse, cmark_node *top)
{
    cmark_iter *iter = cmark_iter_new(top);
    int depth = 0;
    bool told = false;
    for (cmark_event_type event; (event = cmark_iter_next(iter)) != CMARK_EVENT_DONE;) {
        cmark_node *node = cmark_iter_get_node(iter);
        cmark_node_type type = cmark_node_get_type(node);
        bool inside =
            type == CMARK_NODE_LIST || type == CMARK_NODE_ITEM || type == CMARK_NODE_BLOCK_QUOTE;
        depth += inside ? (event == CMARK_EVENT_ENTER ? 1 : -1) : 0;
        if (depth > SOP_DEPTH_DEEPEST && !told) {
            wrong(parse, first_line(node), "lists and quotes are more than %d deep: flatten them",
                  SOP_DEPTH_DEEPEST);
            told = true;
        }
        if (event == CMARK_EVENT_ENTER && type == CMARK_NODE_CODE_BLOCK)
            code_block(parse, node);
    }
    cmark_iter_free(iter);
}

/* The text below an inline or heading, without its marks. */
static const char *plain_text(arena_t *arena, cmark_node *top)
{
    buf_t out;
    buf_open(&out, arena);
    cmark_iter *iter = cmark_iter_new(top);
    for (cmark_event_type event; (event = cmark_iter_next(iter)) != CMARK_EVENT_DONE;) {
        cmark_node *node = cmark_iter_get_node(iter);
        cmark_node_type type = cmark_node_get_type(node);
        if (event != CMARK_EVENT_ENTER)
            continue;
        if (type == CMARK_NODE_TEXT || type == CMARK_NODE_CODE)
            buf_puts(&out, cmark_node_get_literal(node));
        else if (type == CMARK_NODE_SOFTBREAK || type == CMARK_NODE_LINEBREAK)
            buf_puts(&out, " ");
    }
    cmark_iter_free(iter);
    return copy(arena, trim(span_of(out.data)));
}

/* ---- steps -------------------------------------------------------------------------------- */

/* `**Name**` or `**Name:**` at the very start of an item, or NULL. */
static const char *bold_lead(parse_t *parse, cmark_node *item)
{
    cmark_node *block = cmark_node_first_child(item);
    if (!block || cmark_node_get_type(block) != CMARK_NODE_PARAGRAPH)
        return NULL;
    cmark_node *first = cmark_node_first_child(block);
    if (!first || cmark_node_get_type(first) != CMARK_NODE_STRONG)
        return NULL;
    span_t name = span_of(plain_text(parse->arena, first));
    while (name.size && (name.text[name.size - 1] == ':' || name.text[name.size - 1] == ' '))
        name.size--;
    return name.size ? copy(parse->arena, name) : NULL;
}

static bool add_item(parse_t *parse, cmark_node *node)
{
    unsigned line = first_line(node);
    if (parse->count == parse->most_steps) {
        wrong(parse, line, "more than %zu steps: split the procedure", parse->most_steps);
        return false;
    }
    item_t *item = &parse->items[parse->count++];
    const char *name = bold_lead(parse, node);
    item->step = (sop_step_t){.title = name, .line = line, .body = "", .prose = "", .retries = -1};
    item->named = name != NULL;
    item->last_line = (unsigned)cmark_node_get_end_line(node);
    parse->open = true;
    blocks_below(parse, node);
    return true;
}

static void on_list(parse_t *parse, cmark_node *list)
{
    unsigned start = (unsigned)cmark_node_get_list_start(list);
    if (parse->count && parse->new_section && start != parse->count + 1)
        wrong(parse, first_line(list),
              "another numbered list under another heading: number it from %zu if it goes on with "
              "the steps, or use bullets if its items are no steps",
              parse->count + 1);
    parse->new_section = false;
    for (cmark_node *item = cmark_node_first_child(list); item; item = cmark_node_next(item))
        if (!add_item(parse, item))
            return;
}

static void on_heading(parse_t *parse, cmark_node *node)
{
    parse->open = false;
    parse->new_section = parse->count > 0;
    if (parse->sop.title || cmark_node_get_heading_level(node) != 1)
        return;
    const char *title = plain_text(parse->arena, node);
    parse->title_line = (unsigned)cmark_node_get_end_line(node);
    parse->sop.title = title;
    if (!*title)
        wrong(parse, parse->title_line, "the title is empty: write `# What this procedure does`");
    if (strlen(title) > SOP_TITLE_LONGEST)
        wrong(parse, parse->title_line, "the title is longer than %d bytes: shorten it",
              SOP_TITLE_LONGEST);
}

static void on_blocks(parse_t *parse, cmark_node *document)
{
    for (cmark_node *node = cmark_node_first_child(document); node; node = cmark_node_next(node)) {
        cmark_node_type type = cmark_node_get_type(node);
        if (type == CMARK_NODE_LIST && cmark_node_get_list_type(node) == CMARK_ORDERED_LIST) {
            on_list(parse, node);
        } else if (type == CMARK_NODE_HEADING) {
            on_heading(parse, node);
        } else {
            /* Files of old do not indent what belongs to a step. */
            if (parse->open)
                last_item(parse)->last_line = (unsigned)cmark_node_get_end_line(node);
            blocks_below(parse, node);
        }
    }
}

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
    line = trim(line);
    while (line.size && isdigit((unsigned char)*line.text))
        line = (span_t){line.text + 1, line.size - 1};
    if (line.size)
        line = trim((span_t){line.text + 1, line.size - 1}); /* . or ) */
    bool bold = line.size > 4 && (!memcmp(line.text, "**", 2) || !memcmp(line.text, "__", 2));
    if (!named || !bold)
        return line;
    for (size_t i = 2; i + 1 < line.size; i++) {
        if (memcmp(line.text + i, line.text, 2) != 0)
            continue;
        line = trim((span_t){line.text + i + 2, line.size - i - 2});
        if (line.size && *line.text == ':')
            line = trim((span_t){line.text + 1, line.size - 1});
        return line;
    }
    return line;
}

/* Lines `from` to `to` without those of the block, all moved left by the least indent. */
static void put_lines(const parse_t *parse, const item_t *item, unsigned from, unsigned to,
                      buf_t *out)
{
    size_t least = SIZE_MAX;
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned line = from; line <= to; line++) {
            span_t span = line_at(parse, line);
            if (item && line >= item->fence_line && line <= item->fence_end)
                continue;
            size_t indent = indent_of(span);
            if (pass == 0) {
                least = trim(span).size && indent < least ? indent : least;
                continue;
            }
            size_t cut = indent < least ? indent : least;
            buf_put(out, span.text + cut, span.size - cut);
            buf_puts(out, "\n");
        }
    }
}

static void prose_of(parse_t *parse, item_t *item)
{
    buf_t out;
    buf_open(&out, parse->arena);
    sop_step_t *step = &item->step;
    if (item->fence_line != step->line) {
        span_t first = first_words(line_at(parse, step->line), item->named);
        buf_put(&out, first.text, first.size);
        buf_puts(&out, "\n");
    }
    put_lines(parse, item, step->line + 1, item->last_line, &out);
    step->prose_line = step->line;
    for (const char *c = out.data; isspace((unsigned char)*c); c++)
        step->prose_line += *c == '\n';
    step->prose = copy(parse->arena, trim(span_of(out.data)));
}

/* A title for people where none was written: the first words. */
static const char *short_title(arena_t *arena, const sop_step_t *step)
{
    span_t rest = span_of(step->prose);
    span_t line = trim(split(&rest, '\n'));
    if (!line.size)
        return arena_strdup(arena, step->name);
    size_t size = line.size < 60 ? line.size : 60;
    while (size && !mp_utf8(line.text, size))
        size--;
    return arena_printf(arena, "%.*s%s", (int)size, line.text, size < line.size ? " ..." : "");
}

static void name_step(parse_t *parse, size_t index)
{
    item_t *item = &parse->items[index];
    sop_step_t *step = &item->step;
    const char *slug =
        step->title ? value_slug(parse->arena, step->title, strlen(step->title)) : "";
    step->name = *slug ? slug : arena_printf(parse->arena, "step_%zu", index + 1);
    for (size_t i = 0; i < index; i++)
        if (!strcmp(parse->items[i].step.name, step->name)) {
            wrong(parse, step->line,
                  "the name '%s' is that of the step on line %u too: give one of them another "
                  "bold name",
                  step->name, parse->items[i].step.line);
            break;
        }
    if (!step->title)
        step->title = short_title(parse->arena, step);
}

/* ---- bodies ------------------------------------------------------------------------------- */

static bool is_blank(const char *text)
{
    return trim(span_of(text)).size == 0;
}

static bool is_tool_name(span_t name)
{
    bool good = name.size && name.size <= 128 && isalpha((unsigned char)*name.text);
    for (size_t i = 0; i < name.size; i++)
        good = good && (isalnum((unsigned char)name.text[i]) || strchr("_.-/", name.text[i]));
    return good;
}

/* The value of a `key: value` line: JSON when it reads as such, a str otherwise. */
static void put_plain(parse_t *parse, span_t value, buf_t *out)
{
    bytes_t packed;
    err_t err = json_to_msgpack(parse->arena, value.text, value.size, NULL, &packed);
    if (err_is(err) || !value.size)
        mp_put_strn(out, value.text, value.size);
    else
        mp_put_raw(out, packed);
}

/* `key: value` lines into a map. */
static void plain_args(parse_t *parse, sop_step_t *step, span_t rest, unsigned line)
{
    buf_t pairs, out;
    uint32_t count = 0;
    buf_open(&pairs, parse->arena);
    for (; rest.size; line++) {
        span_t text = trim(split(&rest, '\n'));
        if (!text.size || *text.text == '#')
            continue;
        bool colon = memchr(text.text, ':', text.size) != NULL;
        span_t key = trim(split(&text, ':'));
        if (!colon || !key.size || memchr(key.text, ' ', key.size)) {
            wrong(parse, line,
                  "arguments are a JSON object, or lines `name: value`: '%.*s' is "
                  "neither",
                  (int)(key.size < 60 ? key.size : 60), key.text);
            return;
        }
        if (++count > ARGS_MOST) {
            wrong(parse, line, "more than %d arguments in lines: write a JSON object", ARGS_MOST);
            return;
        }
        mp_put_strn(&pairs, key.text, key.size);
        put_plain(parse, trim(text), &pairs);
    }
    buf_open(&out, parse->arena);
    mp_put_map(&out, count);
    buf_put(&out, pairs.data, pairs.size);
    step->args = buf_bytes(&out);
    for (mp_reader_t reader = mp_reader(buf_bytes(&pairs)); count > 1; count--) {
        bytes_t key, value;
        const uint8_t *start = reader.at;
        mp_slice(&reader, &key);
        mp_skip(&reader);
        for (mp_reader_t later = reader; mp_slice(&later, &value) && mp_skip(&later);)
            if (value.size == key.size && !memcmp(value.data, start, key.size))
                wrong(parse, step->body_line, "the argument %s is there twice: keep one",
                      mp_text(parse->arena, key));
    }
}

/* A JSON object; newlines before it make jansson's line numbers those of the file. */
static void json_args(parse_t *parse, sop_step_t *step, span_t rest, unsigned line)
{
    buf_t text;
    mp_type_t type;
    buf_open(&text, parse->arena);
    for (unsigned i = 1; i < line; i++)
        buf_puts(&text, "\n");
    buf_put(&text, rest.text, rest.size);
    err_t err = json_to_msgpack(parse->arena, text.data, text.size, NULL, &step->args);
    if (err_is(err))
        wrong(parse, line,
              "the arguments are no good JSON: %s (a {{reference}} belongs in quotes; "
              "alone in its quotes it keeps its type)",
              err_what(err));
    else if (!mp_type_of(step->args, &type) || type != MP_MAP)
        wrong(parse, line, "the arguments are no object: write { \"name\": value }");
}

static void tool_body(parse_t *parse, sop_step_t *step)
{
    span_t rest = span_of(step->body);
    span_t start = trim(rest);
    unsigned line = step->body_line + newlines(rest.text, (size_t)(start.text - rest.text));
    size_t size = 0;
    while (size < start.size && !isspace((unsigned char)start.text[size]) &&
           start.text[size] != '{')
        size++;
    span_t name = {start.text, size};
    if (!is_tool_name(name)) {
        wrong(parse, line,
              "a ```tool block begins with the name of a tool, such as "
              "`brain_query {\"query\": \"...\"}`");
        return;
    }
    step->tool = copy(parse->arena, name);
    rest = (span_t){start.text + size, start.size - size};
    start = trim(rest);
    line += newlines(rest.text, (size_t)(start.text - rest.text));
    if (start.size && *start.text == '{' && strncmp(start.text, "{{", 2) != 0)
        json_args(parse, step, start, line);
    else
        plain_args(parse, step, start, line);
}

static void wait_body(parse_t *parse, sop_step_t *step)
{
    int64_t until;
    if (strstr(step->body, "{{"))
        return; /* known at run time */
    err_t err = sop_wait(parse->arena, step->body, 0, &until);
    if (err_is(err))
        wrong(parse, step->body_line, "%s", err_what(err));
}

static void script_body(parse_t *parse, sop_step_t *step)
{
    value_script_t script = {0};
    err_t err = values_script(parse->arena, NULL, step->body, step->body_size, &script);
    if (err_is(err))
        wrong(parse, step->body_line + newlines(step->body, script.at), "%s", err_what(err));
}

/* `then: NAME` or `else: NAME`, a line of its own? `*name` is what stands behind. */
static bool is_target(span_t line, const char *word, span_t *name)
{
    size_t size = strlen(word);
    line = trim(line);
    if (line.size < size || memcmp(line.text, word, size) != 0)
        return false;
    *name = trim((span_t){line.text + size, line.size - size});
    return true;
}

/* The step that a branch names, behind the branch itself. */
static size_t target(parse_t *parse, size_t self, unsigned line, span_t name)
{
    const char *slug = value_slug(parse->arena, name.text, name.size);
    const char **names = ARENA_ARRAY(parse->arena, const char *, parse->count + 1);
    for (size_t i = 0; i < parse->count; i++) {
        names[i] = parse->items[i].step.name;
        if (strcmp(names[i], slug) != 0)
            continue;
        if (i <= self)
            wrong(parse, line, "a branch only goes forward, and '%s' is %s: name a later step",
                  slug, i == self ? "this step itself" : "an earlier one");
        return i;
    }
    if (strcmp(slug, "end") != 0)
        wrong(parse, line, "there is no step '%s'%s", slug, hint(parse->arena, slug, names));
    return parse->count;
}

/* A condition, then at least one of the lines `then: STEP`, `else: STEP`. */
static void branch_body(parse_t *parse, size_t self, bool sound)
{
    sop_step_t *step = &parse->items[self].step;
    span_t rest = span_of(step->body), name;
    size_t condition = step->body_size, at = 0;
    unsigned then_line = 0, else_line = 0, line = step->body_line;
    bool holds;
    step->then_at = step->else_at = self + 1;
    for (; rest.size; line++) {
        size_t start = (size_t)(rest.text - step->body);
        span_t text = split(&rest, '\n');
        bool then = is_target(text, "then:", &name);
        if (!then && !is_target(text, "else:", &name)) {
            if ((then_line || else_line) && trim(text).size)
                wrong(parse, line, "the condition stands before `then:` and `else:`");
            continue;
        }
        unsigned *seen = then ? &then_line : &else_line;
        condition = start < condition ? start : condition;
        if (*seen)
            wrong(parse, line, "this line is there twice (first on line %u): keep one", *seen);
        *seen = line;
        *(then ? &step->then_at : &step->else_at) = target(parse, self, line, name);
    }
    if (!then_line && !else_line)
        wrong(parse, step->body_line,
              "an ```if needs a line `then: STEP` or `else: STEP`: the later step to go on with "
              "(`end`: none)");
    step->condition = arena_strndup(parse->arena, step->body, condition);
    err_t err = condition_holds(parse->arena, NULL, step->condition, condition, &at, &holds);
    if (err_is(err) && sound) /* else the references are told of already */
        wrong(parse, step->body_line + newlines(step->condition, at), "%s", err_what(err));
}

static void check_body(parse_t *parse, sop_step_t *step)
{
    bool blank = is_blank(step->body);
    if (step->kind == SOP_APPROVE && blank && *step->prose) {
        step->body = step->prose;
        step->body_size = strlen(step->prose);
        step->body_line = step->prose_line;
        blank = is_blank(step->body);
    }
    if (step->kind == SOP_LLM && is_blank(step->prose))
        wrong(parse, step->line, "the step says nothing to do: write what, or give it a block");
    else if (step->kind != SOP_LLM && blank)
        wrong(parse, step->body_line ? step->body_line - 1 : step->line, "the ```%s block is empty",
              kinds[step->kind].word);
    else if (step->kind == SOP_TOOL)
        tool_body(parse, step);
    else if (step->kind == SOP_WAIT)
        wait_body(parse, step);
}

/* ---- references --------------------------------------------------------------------------- */

static void check_step_ref(parse_t *parse, unsigned line, size_t self, const value_ref_t *ref)
{
    size_t at = 0;
    while (at < parse->count && strcmp(parse->items[at].step.name, ref->step) != 0)
        at++;
    if (at < self)
        return;
    if (at < parse->count) {
        wrong(parse, line, "{{%s}}: step '%s' is %s: only results of earlier steps are known",
              ref->text, ref->step, at == self ? "this step itself" : "a later step");
        return;
    }
    const char **names = ARENA_ARRAY(parse->arena, const char *, parse->count + 1);
    for (size_t i = 0; i < parse->count; i++)
        names[i] = parse->items[i].step.name;
    wrong(parse, line, "{{%s}}: there is no step '%s'%s", ref->text, ref->step,
          hint(parse->arena, ref->step, names));
}

static void check_input_ref(parse_t *parse, unsigned line, const value_ref_t *ref)
{
    const sop_t *sop = &parse->sop;
    const char *key = ref->path_count ? ref->path[0].key : NULL;
    if (!sop->input_count || !key)
        return;
    const char *names[NAMES_MOST + 1] = {0};
    for (size_t i = 0; i < sop->input_count; i++) {
        names[i] = sop->inputs[i].name;
        if (!strcmp(names[i], key))
            return;
    }
    wrong(parse, line, "{{%s}}: '%s' is not among the inputs of the front matter%s", ref->text, key,
          hint(parse->arena, key, names));
}

/* Every reference of a text that the run will fill in. */
static void check_text(parse_t *parse, size_t self, const char *text, unsigned line)
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
        line += newlines(text + counted, place - counted);
        counted = place;
        if (err_is(err))
            wrong(parse, line, "%s", err_what(err));
        else if (found && ref.root == VALUE_STEP)
            check_step_ref(parse, line, self, &ref);
        else if (found && ref.root == VALUE_INPUT)
            check_input_ref(parse, line, &ref);
    }
}

static void check_references(parse_t *parse)
{
    for (size_t i = 0; i < parse->count; i++) {
        sop_step_t *step = &parse->items[i].step;
        size_t before = parse->problem_count;
        if (step->kind == SOP_LLM)
            check_text(parse, i, step->prose, step->prose_line);
        else
            check_text(parse, i, step->body, step->body_line);
        if (step->kind == SOP_SH && parse->problem_count == before)
            script_body(parse, step);
        if (step->kind == SOP_IF && !is_blank(step->body))
            branch_body(parse, i,
                        parse->problem_count == before); /* here all steps have their names */
    }
}

/* ---- the whole ---------------------------------------------------------------------------- */

static cmark_node *read_markdown(parse_t *parse)
{
    /* Empty lines instead of the front matter keep the line numbers. */
    cmark_parser *parser = cmark_parser_new(CMARK_OPT_DEFAULT);
    for (unsigned line = 1; line < parse->body_first; line++)
        cmark_parser_feed(parser, "\n", 1);
    if (parse->body_first <= parse->line_count) {
        size_t start = parse->starts[parse->body_first - 1];
        cmark_parser_feed(parser, parse->text + start, parse->size - start);
    }
    cmark_node *document = cmark_parser_finish(parser);
    cmark_parser_free(parser);
    return document;
}

static void describe_whole(parse_t *parse)
{
    if (!parse->sop.title)
        wrong(parse, parse->body_first <= parse->line_count ? parse->body_first : 1,
              "there is no title: begin with a line `# What this procedure does`");
    if (!parse->count && !parse->swallowed)
        wrong(parse, parse->line_count,
              "there are no steps: write them as a numbered list, `1. **Name**: what to do`");
    buf_t out;
    buf_open(&out, parse->arena);
    unsigned from = parse->title_line ? parse->title_line + 1 : parse->body_first;
    unsigned to = parse->count ? parse->items[0].step.line - 1 : parse->line_count;
    put_lines(parse, NULL, from, to, &out);
    parse->sop.description = copy(parse->arena, trim(span_of(out.data)));
}

static void finish_steps(parse_t *parse)
{
    for (size_t i = 0; i < parse->count; i++) {
        prose_of(parse, &parse->items[i]);
        name_step(parse, i);
        check_body(parse, &parse->items[i].step);
    }
    check_references(parse);
    sop_step_t *steps = ARENA_ARRAY(parse->arena, sop_step_t, parse->count);
    for (size_t i = 0; i < parse->count; i++)
        steps[i] = parse->items[i].step;
    parse->sop.steps = steps;
    parse->sop.step_count = parse->count;
}

static void read_file(parse_t *parse)
{
    index_lines(parse);
    if (!check_characters(parse))
        return;
    front_matter(parse);
    cmark_node *document = read_markdown(parse);
    on_blocks(parse, document);
    cmark_node_free(document);
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
static err_t verdict(const parse_t *parse)
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
    parse_t parse = {.arena = arena, .text = markdown, .size = size, .any_kind = options->any_kind};
    parse.most_steps = limit(options->most_steps, SOP_STEPS_MOST, SOP_STEPS_CEILING);
    parse.problems = ARENA_ARRAY(arena, sop_problem_t, SOP_PROBLEMS_MOST);
    *out = NULL;
    if (size > largest)
        wrong(&parse, 1, "the file is larger than %zu bytes: split it, or move data out of it",
              largest);
    *problems = parse.problems;
    *count = parse.problem_count;
    if (size > largest)
        return err_of(ERR_TOO_LARGE, parse.problems[0].what);
    if (size >= 3 && !memcmp(markdown, "\xef\xbb\xbf", 3)) {
        parse.text += 3;
        parse.size -= 3;
    }
    parse.items = ARENA_ARRAY(arena, item_t, parse.most_steps);
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

err_t sop_wait(arena_t *arena, const char *text, int64_t now_ms, int64_t *until_ms)
{
    span_t span = trim(span_of(text));
    bool until =
        span.size > 6 && !memcmp(span.text, "until", 5) && isspace((unsigned char)span.text[5]);
    if (until)
        span = trim((span_t){span.text + 5, span.size - 5});
    const char *word = copy(arena, span);
    int64_t duration;
    if (sop_duration(word, &duration)) {
        *until_ms = now_ms + duration;
        return err_ok();
    }
    bool bare = word[strspn(word, "0123456789")] == '\0';
    if ((until || !bare) && record_time(word, until_ms))
        return err_ok();
    return err_make(
        arena, ERR_ARGUMENT,
        "'%.80s' is nothing to wait for: write a duration such as 90s, 10m or 1h30m (at "
        "most 366d), or a time such as 2030-01-31T09:00:00Z",
        word);
}

/* ---- inputs ------------------------------------------------------------------------------- */

static bool in_inputs(const sop_t *sop, const mp_value_t *key)
{
    for (size_t i = 0; i < sop->input_count; i++)
        if (strlen(sop->inputs[i].name) == key->size &&
            !memcmp(sop->inputs[i].name, key->text, key->size))
            return true;
    return false;
}

static const char *inputs_text(arena_t *arena, const sop_t *sop)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < sop->input_count; i++)
        buf_printf(&out, "%s%s%s", i ? ", " : "", sop->inputs[i].name,
                   sop->inputs[i].optional ? " (optional)" : "");
    return out.data;
}

static err_t check_inputs(arena_t *arena, const sop_t *sop, bytes_t map)
{
    bytes_t value;
    for (size_t i = 0; i < sop->input_count; i++)
        if (!sop->inputs[i].optional && !mp_get(map, sop->inputs[i].name, &value))
            return err_make(arena, ERR_ARGUMENT, "the input '%s' is missing: it takes %s",
                            sop->inputs[i].name, inputs_text(arena, sop));
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    if (!mp_read(&reader, &head))
        return err_of(ERR_PARSE, "the input is not msgpack");
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || !mp_skip(&reader))
            return err_of(ERR_PARSE, "the input is not msgpack");
        if (key.type != MP_STR || !in_inputs(sop, &key))
            return err_make(arena, ERR_ARGUMENT, "there is no input '%.*s': it takes %s",
                            key.type == MP_STR ? (int)key.size : 0, key.text,
                            inputs_text(arena, sop));
    }
    return err_ok();
}

/* The only input that must be given, or NULL. */
static const char *single_input(const sop_t *sop)
{
    const char *name = NULL;
    for (size_t i = 0; i < sop->input_count; i++) {
        if (sop->inputs[i].optional)
            continue;
        if (name)
            return NULL;
        name = sop->inputs[i].name;
    }
    return name;
}

/* A text that is a JSON object counts as that object. */
static bytes_t opened(arena_t *arena, bytes_t given)
{
    bytes_t value;
    mp_type_t type;
    const char *text = mp_text(arena, given);
    if (!text || *trim(span_of(text)).text != '{')
        return given;
    err_t err = json_to_msgpack(arena, text, strlen(text), NULL, &value);
    return !err_is(err) && mp_type_of(value, &type) && type == MP_MAP ? value : given;
}

err_t sop_input(arena_t *arena, const sop_t *sop, bytes_t given, bytes_t *input)
{
    buf_t out;
    mp_type_t type = MP_NIL;
    buf_open(&out, arena);
    mp_put_raw(&out, given);
    given = opened(arena, buf_bytes(&out));
    if (!mp_type_of(given, &type))
        return err_of(ERR_PARSE, "the input is not msgpack");
    bool nothing = type == MP_NIL || (type == MP_STR && !*mp_text(arena, given));
    if (sop->input_count && type != MP_MAP) {
        const char *name = nothing ? NULL : single_input(sop);
        if (!nothing && !name)
            return err_make(arena, ERR_ARGUMENT, "the input must be an object with %s",
                            inputs_text(arena, sop));
        buf_open(&out, arena);
        mp_put_map(&out, name ? 1 : 0);
        if (name) {
            mp_put_str(&out, name);
            mp_put_raw(&out, given);
        }
        given = buf_bytes(&out);
    }
    *input = given;
    return sop->input_count ? check_inputs(arena, sop, given) : err_ok();
}
