/* References as they are written: {{root.path | filters}}, and where they stand in a text. */
#include <ctype.h>
#include <string.h>

#include "actors/agent/span.h"
#include "actors/agent/values.h"
#include "proto/json.h"
#include "proto/mp.h"

/* A cursor in the text between the braces. */
typedef struct scan {
    arena_t *arena;
    const char *at;
    const char *end;
    const char *whole; /* the reference as written, for sentences */
} scan_t;

static const char how_to[] =
    "write {{input.FIELD}}, {{steps.NAME.result.FIELD}}, {{run.id}} or {{company}} (in an ```each "
    "{{item}} or {{index}}), or \\{{ for a plain {{";

static bool is_name(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || (unsigned char)c >= 0x80;
}

static void skip_spaces(scan_t *scan)
{
    while (scan->at < scan->end && isspace((unsigned char)*scan->at))
        scan->at++;
}

static bool take(scan_t *scan, char c)
{
    if (scan->at == scan->end || *scan->at != c)
        return false;
    scan->at++;
    return true;
}

/* A name, or NULL. */
static const char *take_name(scan_t *scan)
{
    const char *start = scan->at;
    while (scan->at < scan->end && is_name(*scan->at))
        scan->at++;
    return scan->at == start ? NULL : arena_strndup(scan->arena, start, (size_t)(scan->at - start));
}

static err_t faulty(const scan_t *scan, const char *why)
{
    return err_make(scan->arena, ERR_ARGUMENT, "{{%s}}: %s", scan->whole, why);
}

/* The inside of [...]: an index or a quoted key. */
static err_t take_index(scan_t *scan, value_hop_t *hop)
{
    skip_spaces(scan);
    char quote = scan->at < scan->end ? *scan->at : '\0';
    if (quote == '"' || quote == '\'') {
        const char *start = ++scan->at;
        while (scan->at < scan->end && *scan->at != quote)
            scan->at++;
        hop->key = arena_strndup(scan->arena, start, (size_t)(scan->at - start));
        if (!take(scan, quote))
            return faulty(scan, "the key in [\"...\"] has no closing quote");
    } else {
        uint64_t index = 0;
        const char *start = scan->at;
        while (scan->at < scan->end && isdigit((unsigned char)*scan->at) && index <= UINT32_MAX)
            index = index * 10 + (uint64_t)(*scan->at++ - '0');
        if (scan->at == start || index > UINT32_MAX)
            return faulty(scan, "between [ and ] belongs a number from 0 or a key in quotes");
        hop->index = (uint32_t)index;
    }
    skip_spaces(scan);
    return take(scan, ']') ? err_ok() : faulty(scan, "a [ is not closed");
}

static err_t take_path(scan_t *scan, value_ref_t *ref)
{
    for (;;) {
        value_hop_t hop = {0};
        if (take(scan, '.')) {
            hop.key = take_name(scan);
            if (!hop.key)
                return faulty(scan, "a name is missing after a dot");
        } else if (take(scan, '[')) {
            err_t err = take_index(scan, &hop);
            if (err_is(err))
                return err;
        } else {
            return err_ok();
        }
        if (ref->path_count == VALUE_PATH_LONGEST)
            return faulty(scan, "the path is longer than 16 parts");
        ref->path[ref->path_count++] = hop;
    }
}

/* After `steps`: .NAME.result */
static err_t take_step(scan_t *scan, value_ref_t *ref)
{
    if (!take(scan, '.'))
        return faulty(scan, "write {{steps.NAME.result}}");
    const char *start = scan->at;
    while (scan->at < scan->end && (is_name(*scan->at) || *scan->at == ' '))
        scan->at++;
    ref->step = value_slug(scan->arena, start, (size_t)(scan->at - start));
    const char *result = *ref->step && take(scan, '.') ? take_name(scan) : NULL;
    if (!result || strcmp(result, "result"))
        return faulty(scan, "of a step only the result can be named: {{steps.NAME.result}} or "
                            "{{steps.NAME.result.FIELD}}");
    return err_ok();
}

static err_t take_root(scan_t *scan, value_ref_t *ref)
{
    const char *name = take_name(scan);
    if (name && !strcmp(name, "input")) {
        ref->root = VALUE_INPUT;
    } else if (name && !strcmp(name, "steps")) {
        ref->root = VALUE_STEP;
        return take_step(scan, ref);
    } else if (name && !strcmp(name, "company")) {
        ref->root = VALUE_COMPANY;
    } else if (name && !strcmp(name, "item")) {
        ref->root = VALUE_ITEM;
    } else if (name && !strcmp(name, "index")) {
        ref->root = VALUE_INDEX;
    } else if (name && !strcmp(name, "run")) {
        const char *id = take(scan, '.') ? take_name(scan) : NULL;
        if (!id || strcmp(id, "id"))
            return faulty(scan, "of the run only {{run.id}} can be named");
        ref->root = VALUE_RUN_ID;
    } else {
        return faulty(scan, how_to);
    }
    return err_ok();
}

/* The text of default(...): a JSON scalar when it reads as one, else a str. */
static bytes_t fallback_of(arena_t *arena, const char *text, size_t size)
{
    bytes_t value;
    mp_type_t type;
    err_t err = json_to_msgpack(arena, text, size, NULL, &value);
    if (!err_is(err) && mp_type_of(value, &type) && type != MP_ARRAY && type != MP_MAP)
        return value;
    if (size >= 2 && text[0] == '\'' && text[size - 1] == '\'') {
        text++;
        size -= 2;
    }
    buf_t out;
    buf_open(&out, arena);
    mp_put_strn(&out, text, size);
    return buf_bytes(&out);
}

static err_t take_default(scan_t *scan, value_ref_t *ref)
{
    skip_spaces(scan);
    if (!take(scan, '('))
        return faulty(scan, "write | default(text)");
    skip_spaces(scan);
    const char *start = scan->at;
    unsigned open = 1;
    while (scan->at < scan->end && open) {
        open += *scan->at == '(';
        open -= *scan->at == ')';
        scan->at++;
    }
    if (open)
        return faulty(scan, "the ( of default is not closed");
    const char *end = scan->at - 1;
    while (end > start && isspace((unsigned char)end[-1]))
        end--;
    ref->fallback = fallback_of(scan->arena, start, (size_t)(end - start));
    return err_ok();
}

static err_t take_filters(scan_t *scan, value_ref_t *ref)
{
    for (skip_spaces(scan); take(scan, '|'); skip_spaces(scan)) {
        skip_spaces(scan);
        const char *name = take_name(scan);
        if (ref->filter_count == VALUE_FILTERS_MOST)
            return faulty(scan, "more than 4 filters");
        value_filter_t *filter = &ref->filters[ref->filter_count++];
        if (name && !strcmp(name, "json")) {
            *filter = VALUE_JSON;
        } else if (name && !strcmp(name, "shell")) {
            *filter = VALUE_SHELL;
        } else if (name && !strcmp(name, "lines")) {
            *filter = VALUE_LINES;
        } else if (name && !strcmp(name, "default")) {
            *filter = VALUE_DEFAULT;
            err_t err = take_default(scan, ref);
            if (err_is(err))
                return err;
        } else {
            return faulty(scan, "the filters are default(text), json, lines and shell");
        }
    }
    if (scan->at != scan->end)
        return faulty(scan, how_to);
    return err_ok();
}

static err_t ref_parse(arena_t *arena, const char *text, size_t size, value_ref_t *ref)
{
    span_t span = span_trim((span_t){text, size});
    ref->text = span_copy(arena, span);
    scan_t scan = {arena, span.text, span.text + span.size, ref->text};
    err_t err = take_root(&scan, ref);
    if (!err_is(err))
        err = take_path(&scan, ref);
    if (!err_is(err))
        err = take_filters(&scan, ref);
    return err;
}

/* Finds the next `{{` that is not `\{{`; size when none. */
static size_t find_open(const char *text, size_t size, size_t at)
{
    for (; at + 1 < size; at++) {
        if (text[at] != '{' || text[at + 1] != '{')
            continue;
        if (!at || text[at - 1] != '\\')
            return at;
        at++;
    }
    return size;
}

/* Finds the }} of a reference; a quoted key or default may hold one brace. size when none. */
static size_t find_close(const char *text, size_t size, size_t at)
{
    for (; at + 1 < size; at++)
        if (text[at] == '}' && text[at + 1] == '}')
            return at;
    return size;
}

err_t value_next(arena_t *arena, const char *text, size_t size, size_t *at, value_ref_t *ref,
                 bool *found)
{
    size_t open = find_open(text, size, *at);
    *found = false;
    if (open == size) {
        *at = size;
        return err_ok();
    }
    size_t close = find_close(text, size, open + 2);
    if (close == size) {
        *at = size;
        return err_of(ERR_ARGUMENT, "a {{ is not closed with }}; write \\{{ for a plain {{");
    }
    *ref = (value_ref_t){.start = open, .end = close + 2};
    *at = close + 2;
    err_t err = ref_parse(arena, text + open + 2, close - open - 2, ref);
    *found = !err_is(err);
    return err;
}

const char *value_slug(arena_t *arena, const char *text, size_t size)
{
    char slug[VALUE_NAME_LONGEST];
    size_t length = 0;
    bool gap = false;
    for (size_t i = 0; i < size && length < sizeof(slug); i++) {
        unsigned char c = (unsigned char)text[i];
        if (!isalnum(c) && c < 0x80) {
            gap = length > 0;
            continue;
        }
        if (gap && length + 1 < sizeof(slug))
            slug[length++] = '_';
        gap = false;
        slug[length++] = (char)tolower(c);
    }
    while (length && !mp_utf8(slug, length)) /* cut inside a character */
        length--;
    return arena_strndup(arena, slug, length);
}
