/* Fields of a procedure: `key: value` lines of its front matter and `key=value` attributes of its
 * blocks. Which there are and how the text of each is read is one list of rows each. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "actors/agent/sop_parts.h"
#include "proto/record.h"

/* ---- rows --------------------------------------------------------------------------------- */

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
    READ_ON_ERROR,
    READ_NAME
} field_kind_t;

typedef struct row {
    const char *name;
    field_kind_t kind;
    int64_t min, max;
    size_t offset;
    unsigned kinds; /* attributes: bits of sop_kind_t */
} row_t;

enum { ONE_SECOND = 1000, ONE_HOUR = 3600 * ONE_SECOND, ONE_DAY = 24 * ONE_HOUR };
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
    {"replay", READ_REPLAY, 0, 0, offsetof(sop_step_t, replay), KIND(TOOL) | KIND(SH) | KIND(EACH)},
    {"timeout", READ_DURATION, 10, ONE_DAY, offsetof(sop_step_t, timeout_ms),
     KIND(TOOL) | KIND(SH) | KIND(EACH)},
    {"retries", READ_NUMBER, 0, 20, offsetof(sop_step_t, retries),
     KIND(TOOL) | KIND(SH) | KIND(EACH)},
    {"on_error", READ_ON_ERROR, 0, 0, offsetof(sop_step_t, goes_on), KIND(EACH)},
    {"parallel", READ_NUMBER, 1, SOP_PARALLEL_MOST, offsetof(sop_step_t, parallel), KIND(EACH)},
    {"output", READ_BYTES, 256, 16 << 20, offsetof(sop_step_t, output_bytes), KIND(SH)},
    {"env", READ_VARIABLES, 0, 0, offsetof(sop_step_t, env), KIND(SH)},
};

enum {
    FRONT_COUNT = sizeof(front_rows) / sizeof(front_rows[0]),
    ATTRIBUTE_COUNT = sizeof(attribute_rows) / sizeof(attribute_rows[0])
};

static const char *const replay_words[] = {
#define REPLAY_WORD(name, word, doc) word,
    SOP_REPLAY_ROWS(REPLAY_WORD)
#undef REPLAY_WORD
        NULL};

const char *sop_replay_name(sop_replay_t replay)
{
    return (unsigned)replay < SOP_REPLAY_COUNT ? replay_words[replay] : "";
}

static const char *row_names(arena_t *arena, const row_t *rows, size_t count)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < count; i++)
        buf_printf(&out, "%s%s", i ? ", " : "", rows[i].name);
    return out.data;
}

/* Behind "there is no 'text'": the nearest name, or all that there are. */
static const char *row_hint(arena_t *arena, const char *text, const row_t *rows, size_t count)
{
    const char *names[FRONT_COUNT + ATTRIBUTE_COUNT + 1] = {0};
    for (size_t i = 0; i < count; i++)
        names[i] = rows[i].name;
    const char *near = sop_hint(arena, text, names);
    return *near ? near : arena_printf(arena, ": it knows %s", row_names(arena, rows, count));
}

static const row_t *find_row(const row_t *rows, size_t count, span_t name)
{
    for (size_t i = 0; i < count; i++)
        if (span_is(name, rows[i].name))
            return &rows[i];
    return NULL;
}

/* ---- single values ------------------------------------------------------------------------ */

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

err_t sop_wait(arena_t *arena, const char *text, int64_t now_ms, int64_t *until_ms)
{
    span_t span = span_trim(span_of(text));
    bool until =
        span.size > 6 && !memcmp(span.text, "until", 5) && isspace((unsigned char)span.text[5]);
    if (until)
        span = span_trim(span_skip(span, 5));
    const char *word = span_copy(arena, span);
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
        span_t part = span_split(&rest, '/');
        if (span_is(part, ".."))
            return false;
    }
    return true;
}

/* "A, B" into names; each must pass `good`. */
static bool read_names(sop_parse_t *parse, unsigned line, const char *text,
                       bool (*good)(const char *), sop_names_t *names)
{
    const char **items = ARENA_ARRAY(parse->arena, const char *, SOP_NAMES_MOST);
    size_t count = 0;
    for (span_t rest = span_of(text); rest.size;) {
        const char *name = span_copy(parse->arena, span_trim(span_split(&rest, ',')));
        if (!good(name) || count == SOP_NAMES_MOST) {
            sop_wrong(parse, line,
                      "'%s' is no name that can stand here: write names with commas "
                      "between them, at most %d",
                      name, SOP_NAMES_MOST);
            return false;
        }
        items[count++] = name;
    }
    *names = (sop_names_t){items, count};
    return true;
}

static void read_inputs(sop_parse_t *parse, unsigned line, const char *text)
{
    sop_input_t *inputs = ARENA_ARRAY(parse->arena, sop_input_t, SOP_NAMES_MOST);
    size_t count = 0;
    for (span_t rest = span_of(text); rest.size;) {
        char *name = span_copy(parse->arena, span_trim(span_split(&rest, ',')));
        size_t size = strlen(name);
        bool optional = size && name[size - 1] == '?';
        if (optional)
            name[size - 1] = '\0';
        if (!is_variable(name) || count == SOP_NAMES_MOST) {
            sop_wrong(parse, line,
                      "'%s' is no name of an input: write `inputs: folder, depth?` with letters, "
                      "digits and _, at most %d",
                      name, SOP_NAMES_MOST);
            return;
        }
        inputs[count++] = (sop_input_t){name, optional};
    }
    parse->sop.inputs = inputs;
    parse->sop.input_count = count;
}

static void wrong_range(sop_parse_t *parse, unsigned line, const row_t *row, const char *text,
                        const char *example)
{
    sop_wrong(parse, line, "%s cannot be '%s': write %s, from %" PRId64 " to %" PRId64 "%s",
              row->name, text, example, row->min, row->max,
              row->kind == READ_DURATION ? " ms" : "");
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
static void read_field(sop_parse_t *parse, unsigned line, const row_t *row, const char *text,
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
            sop_wrong(parse, line, "cwd cannot be '%s': write a folder, without ..", text);
        memcpy(field, &text, sizeof(text));
        return;
    case READ_REPLAY: {
        sop_replay_t replay = SOP_REPLAY_SAFE;
        while (replay < SOP_REPLAY_COUNT && strcmp(replay_words[replay], text) != 0)
            replay++;
        if (replay == SOP_REPLAY_COUNT)
            sop_wrong(parse, line, "replay cannot be '%s': it is safe, keyed, check or manual%s",
                      text, sop_hint(parse->arena, text, replay_words + 1));
        else
            memcpy(field, &replay, sizeof(replay));
        return;
    }
    case READ_ON_ERROR: {
        bool goes_on = !strcmp(text, "continue");
        if (!goes_on && strcmp(text, "stop") != 0)
            sop_wrong(parse, line, "on_error cannot be '%s': it is stop or continue", text);
        memcpy(field, &goes_on, sizeof(goes_on));
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
    return span_is(span_trim(line), "---");
}

/* `key: value`, `# comment` or nothing. */
static void front_line(sop_parse_t *parse, unsigned line, bool *seen)
{
    span_t rest = span_trim(sop_line(parse, line));
    if (!rest.size || *rest.text == '#')
        return;
    bool colon = memchr(rest.text, ':', rest.size) != NULL;
    span_t key = span_trim(span_split(&rest, ':'));
    const char *name = span_copy(parse->arena, key);
    const char *value = span_copy(parse->arena, span_trim(rest));
    if (!colon) {
        sop_wrong(parse, line, "front matter is `key: value` lines: '%s' has no colon", name);
        return;
    }
    const row_t *row = find_row(front_rows, FRONT_COUNT, key);
    if (!row) {
        sop_wrong(parse, line, "the front matter knows no '%s'%s", name,
                  row_hint(parse->arena, name, front_rows, FRONT_COUNT));
    } else if (seen[row - front_rows]) {
        sop_wrong(parse, line, "'%s' is there twice: keep one", name);
    } else {
        seen[row - front_rows] = true;
        read_field(parse, line, row, value, &parse->sop);
    }
}

void sop_front_matter(sop_parse_t *parse)
{
    bool seen[FRONT_COUNT] = {false};
    parse->body_first = 1;
    if (!is_dashes(sop_line(parse, 1)))
        return;
    unsigned last = 2;
    while (last <= parse->line_count && !is_dashes(sop_line(parse, last)))
        last++;
    if (last > parse->line_count) {
        sop_wrong(parse, 1,
                  "the front matter that begins here is not closed: end it with a line ---");
        return;
    }
    for (unsigned line = 2; line < last; line++)
        front_line(parse, line, seen);
    parse->body_first = last + 1;
}

/* ---- attributes --------------------------------------------------------------------------- */

/* The next `key=value` or `key="v w"` of an info string. */
static span_t take_attribute(span_t *rest, span_t *value)
{
    *rest = span_trim(*rest);
    size_t size = 0;
    bool quoted = false;
    while (size < rest->size && (quoted || !isspace((unsigned char)rest->text[size])))
        quoted ^= rest->text[size++] == '"';
    span_t whole = {rest->text, size};
    *rest = span_skip(*rest, size);
    span_t name = span_split(&whole, '=');
    if (whole.size >= 2 && *whole.text == '"' && whole.text[whole.size - 1] == '"')
        whole = (span_t){whole.text + 1, whole.size - 2};
    *value = whole;
    return name;
}

static void attribute(sop_parse_t *parse, unsigned line, span_t name, const char *value,
                      sop_step_t *step)
{
    arena_t *arena = parse->arena;
    const char *word = sop_kind_info(step->kind)->word;
    const row_t *row = find_row(attribute_rows, ATTRIBUTE_COUNT, name);
    const char *text = span_copy(arena, name);
    if (!row) {
        sop_wrong(parse, line, "a block knows no attribute '%s'%s", text,
                  row_hint(arena, text, attribute_rows, ATTRIBUTE_COUNT));
    } else if (!(row->kinds & (1u << step->kind))) {
        sop_wrong(parse, line, "```%s takes no '%s': remove it", word, text);
    } else if (!*value) {
        sop_wrong(parse, line, "the attribute '%s' has no value: write %s=...", text, text);
    } else {
        read_field(parse, line, row, value, step);
    }
}

void sop_attributes(sop_parse_t *parse, unsigned line, span_t rest, sop_item_t *item)
{
    const char *seen[ATTRIBUTE_COUNT] = {0};
    size_t seen_count = 0;
    for (rest = span_trim(rest); rest.size; rest = span_trim(rest)) {
        span_t value;
        span_t name = take_attribute(&rest, &value);
        const char *text = span_copy(parse->arena, name);
        for (size_t i = 0; i < seen_count; i++)
            if (!strcmp(seen[i], text))
                sop_wrong(parse, line, "the attribute '%s' is there twice: keep one", text);
        if (seen_count < ATTRIBUTE_COUNT)
            seen[seen_count++] = text;
        attribute(parse, line, name, span_copy(parse->arena, value), &item->step);
        item->named |= !strcmp(text, "name");
    }
}
