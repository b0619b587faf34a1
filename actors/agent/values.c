#include "actors/agent/values.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

/* ---- references: reading ------------------------------------------------------------------ */

/* A cursor in the text between the braces. */
typedef struct scan {
    arena_t *arena;
    const char *at;
    const char *end;
    const char *whole; /* the reference as written, for sentences */
} scan_t;

static const char how_to[] =
    "write {{input.FIELD}}, {{steps.NAME.result.FIELD}}, {{run.id}} or {{company}}, or \\{{ for a "
    "plain {{";

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
        } else if (name && !strcmp(name, "default")) {
            *filter = VALUE_DEFAULT;
            err_t err = take_default(scan, ref);
            if (err_is(err))
                return err;
        } else {
            return faulty(scan, "the filters are default(text), json and shell");
        }
    }
    if (scan->at != scan->end)
        return faulty(scan, how_to);
    return err_ok();
}

static err_t ref_parse(arena_t *arena, const char *text, size_t size, value_ref_t *ref)
{
    while (size && isspace((unsigned char)*text)) {
        text++;
        size--;
    }
    while (size && isspace((unsigned char)text[size - 1]))
        size--;
    ref->text = arena_strndup(arena, text, size);
    scan_t scan = {arena, text, text + size, ref->text};
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

/* ---- references: looking up --------------------------------------------------------------- */

static bytes_t text_value(arena_t *arena, const char *text, size_t size)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_strn(&out, text, size);
    return buf_bytes(&out);
}

static bytes_t nil_value(arena_t *arena)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_nil(&out);
    return buf_bytes(&out);
}

static bool is_nil(bytes_t value)
{
    mp_type_t type;
    return mp_type_of(value, &type) && type == MP_NIL;
}

static const value_step_t *find_step(const values_t *values, const char *name)
{
    for (size_t i = 0; i < values->step_count; i++)
        if (!strcmp(values->steps[i].name, name))
            return &values->steps[i];
    return NULL;
}

/* One hop down. A name of digits is also an index. */
static bool hop_down(const value_hop_t *hop, bytes_t from, bytes_t *to)
{
    mp_type_t type;
    if (!mp_type_of(from, &type))
        return false;
    if (type == MP_MAP)
        return hop->key && mp_get(from, hop->key, to);
    if (type != MP_ARRAY)
        return false;
    if (!hop->key)
        return mp_at(from, hop->index, to);
    uint64_t index = 0;
    for (const char *c = hop->key; *c; c++) {
        if (!isdigit((unsigned char)*c) || index > UINT32_MAX)
            return false;
        index = index * 10 + (uint64_t)(*c - '0');
    }
    return index <= UINT32_MAX && mp_at(from, (uint32_t)index, to);
}

/* What a value has instead, for the sentence. */
static const char *keys_of(arena_t *arena, bytes_t value)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    if (!mp_read(&reader, &head))
        return "it is empty";
    if (head.type == MP_ARRAY)
        return arena_printf(arena, "it is a list of %" PRIu32, head.count);
    if (head.type != MP_MAP)
        return "it has no fields";
    buf_t out;
    buf_open(&out, arena);
    buf_puts(&out, head.count ? "it has " : "it is an object without fields");
    for (uint32_t i = 0; i < head.count && i < 12; i++) {
        mp_value_t key;
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_skip(&reader))
            break;
        if (i)
            buf_puts(&out, ", ");
        buf_put(&out, key.text, key.size < 40 ? key.size : 40);
    }
    if (head.count > 12)
        buf_puts(&out, " ...");
    return out.data;
}

static err_t not_found(arena_t *arena, const value_ref_t *ref, const value_hop_t *hop, bytes_t from)
{
    const char *keys = keys_of(arena, from);
    if (hop->key)
        return err_make(arena, ERR_NOT_FOUND, "{{%s}}: there is no '%s': %s", ref->text, hop->key,
                        keys);
    return err_make(arena, ERR_NOT_FOUND, "{{%s}}: there is no [%" PRIu32 "]: %s", ref->text,
                    hop->index, keys);
}

static err_t root_value(arena_t *arena, const values_t *values, const value_ref_t *ref,
                        bytes_t *value)
{
    const char *text = ref->root == VALUE_RUN_ID ? values->run_id : values->company;
    switch (ref->root) {
    case VALUE_INPUT:
        *value = values->input.size ? values->input : nil_value(arena);
        return err_ok();
    case VALUE_STEP: {
        const value_step_t *step = find_step(values, ref->step);
        if (!step)
            return err_make(arena, ERR_NOT_FOUND, "{{%s}}: step '%s' has no result yet", ref->text,
                            ref->step);
        if (step->refused)
            return err_make(arena, ERR_STATE,
                            "{{%s}}: step '%s' was refused because the run is simulated, so it has "
                            "no result",
                            ref->text, ref->step);
        *value = step->result.size ? step->result : nil_value(arena);
        return err_ok();
    }
    case VALUE_RUN_ID:
    case VALUE_COMPANY:
        *value = text ? text_value(arena, text, strlen(text)) : nil_value(arena);
        return err_ok();
    }
    return err_of(ERR_INTERNAL, "a reference without a root");
}

static err_t raw_value(arena_t *arena, const values_t *values, const value_ref_t *ref,
                       bytes_t *value)
{
    err_t err = root_value(arena, values, ref, value);
    for (size_t i = 0; i < ref->path_count && !err_is(err); i++) {
        bytes_t from = *value;
        if (!hop_down(&ref->path[i], from, value))
            err = not_found(arena, ref, &ref->path[i], from);
    }
    return err;
}

/* Appends a value as text. */
static err_t put_text(bytes_t value, buf_t *out)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    if (!mp_read(&reader, &head))
        return err_of(ERR_PARSE, "a value is not msgpack");
    if (head.type == MP_NIL)
        return err_ok();
    if (head.type != MP_STR)
        return json_from_msgpack(value, JSON_COMPACT, out);
    buf_put(out, head.text, head.size);
    return err_ok();
}

static void put_quoted(buf_t *out, const char *text, size_t size)
{
    buf_puts(out, "'");
    for (size_t i = 0; i < size; i++)
        if (text[i] == '\'')
            buf_puts(out, "'\\''");
        else
            buf_put(out, text + i, 1);
    buf_puts(out, "'");
}

static err_t filter(arena_t *arena, const value_ref_t *ref, value_filter_t which, bytes_t *value)
{
    buf_t plain, out;
    err_t err = err_ok();
    if (which == VALUE_DEFAULT) {
        if (is_nil(*value))
            *value = ref->fallback;
        return err;
    }
    buf_open(&plain, arena);
    buf_open(&out, arena);
    if (which == VALUE_JSON) {
        err = json_from_msgpack(*value, JSON_COMPACT, &out);
    } else {
        err = put_text(*value, &plain);
        put_quoted(&out, plain.data, plain.size);
    }
    *value = text_value(arena, out.data, out.size);
    return err;
}

err_t value_get(arena_t *arena, const values_t *values, const value_ref_t *ref, bytes_t *value)
{
    err_t err = raw_value(arena, values, ref, value);
    if (err.code == ERR_NOT_FOUND && ref->fallback.size) {
        *value = nil_value(arena);
        err = err_ok();
    }
    for (size_t i = 0; i < ref->filter_count && !err_is(err); i++)
        err = filter(arena, ref, ref->filters[i], value);
    return err;
}

/* ---- texts and trees ---------------------------------------------------------------------- */

static size_t largest(const values_t *values)
{
    return values->largest_bytes ? values->largest_bytes : VALUE_TEXT_LARGEST;
}

static err_t check_size(arena_t *arena, const values_t *values, size_t size)
{
    if (size <= largest(values))
        return err_ok();
    return err_make(arena, ERR_TOO_LARGE,
                    "with its values filled in the step is larger than %zu bytes: pass a file name "
                    "instead of the content",
                    largest(values));
}

/* Appends text between references, \{{ as {{. */
static void put_literal(buf_t *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\\' && i + 2 < size && text[i + 1] == '{' && text[i + 2] == '{')
            continue;
        buf_put(out, text + i, 1);
    }
}

err_t values_text(arena_t *arena, const values_t *values, const char *text, size_t size, buf_t *out)
{
    size_t start = out->size, done = 0, at = 0;
    for (;;) {
        value_ref_t ref;
        bool found;
        bytes_t value;
        err_t err = value_next(arena, text, size, &at, &ref, &found);
        if (err_is(err))
            return err;
        put_literal(out, text + done, (found ? ref.start : size) - done);
        if (!found)
            return check_size(arena, values, out->size - start);
        err = value_get(arena, values, &ref, &value);
        if (!err_is(err))
            err = put_text(value, out);
        if (!err_is(err))
            err = check_size(arena, values, out->size - start);
        if (err_is(err))
            return err;
        done = ref.end;
    }
}

/* Is the text one reference and nothing else? */
static bool whole_ref(arena_t *arena, const char *text, size_t size, value_ref_t *ref)
{
    size_t at = 0;
    bool found;
    if (size < 4 || memcmp(text, "{{", 2) != 0)
        return false;
    err_t err = value_next(arena, text, size, &at, ref, &found);
    return !err_is(err) && found && ref->start == 0 && ref->end == size;
}

static err_t put_str(arena_t *arena, const values_t *values, const mp_value_t *head, buf_t *out)
{
    value_ref_t ref;
    buf_t text;
    if (whole_ref(arena, head->text, head->size, &ref)) {
        bytes_t value;
        err_t err = value_get(arena, values, &ref, &value);
        if (!err_is(err))
            mp_put_raw(out, value);
        return err;
    }
    buf_open(&text, arena);
    err_t err = values_text(arena, values, head->text, head->size, &text);
    mp_put_strn(out, text.data, text.size);
    return err;
}

static err_t tree(arena_t *arena, const values_t *values, mp_reader_t *reader, unsigned depth,
                  buf_t *out)
{
    const uint8_t *start = reader->at;
    mp_value_t head;
    if (depth > MP_DEPTH || !mp_read(reader, &head))
        return err_of(ERR_PARSE, "a template is not msgpack, or nested too deeply");
    if (head.type == MP_STR)
        return put_str(arena, values, &head, out);
    buf_put(out, start, (size_t)(reader->at - start));
    if (head.type != MP_ARRAY && head.type != MP_MAP)
        return err_ok();
    for (uint32_t i = 0; i < head.count; i++) {
        err_t err;
        bytes_t key;
        if (head.type == MP_MAP) {
            if (!mp_slice(reader, &key))
                return err_of(ERR_PARSE, "a template is not msgpack");
            buf_put(out, key.data, key.size);
        }
        err = tree(arena, values, reader, depth + 1, out);
        if (err_is(err))
            return err;
    }
    return err_ok();
}

err_t values_tree(arena_t *arena, const values_t *values, bytes_t template, buf_t *out)
{
    size_t start = out->size;
    mp_reader_t reader = mp_reader(template);
    err_t err = tree(arena, values, &reader, 0, out);
    if (!err_is(err) && reader.at != reader.end)
        err = err_of(ERR_PARSE, "a template holds more than one value");
    return err_is(err) ? err : check_size(arena, values, out->size - start);
}

/* ---- scripts ------------------------------------------------------------------------------ */

/* Where in a script we are. Kept on a stack because "$( ... )" starts afresh inside quotes. */
typedef enum place {
    PLAIN,
    DOUBLE,   /* "..." */
    SINGLE,   /* '...' */
    COMMAND,  /* $( ... ) or ( ... ), plain again */
    BACKTICK, /* `...`, plain again */
    BRACES,   /* ${ ... } */
    ARITH,    /* each ( of $(( ... )) */
    COMMENT   /* # to the end of the line */
} place_t;

enum { PLACES_DEEPEST = 64, HEREDOCS_MOST = 8 };

typedef struct heredoc {
    const char *word;
    size_t size;
    bool quoted; /* <<'WORD': nothing is expanded inside */
    bool tabs;   /* <<- */
} heredoc_t;

typedef struct shell {
    const char *text;
    size_t size;
    size_t at;
    place_t places[PLACES_DEEPEST];
    size_t depth; /* at least 1 */
    heredoc_t waiting[HEREDOCS_MOST];
    size_t waiting_count; /* opened on this line, start on the next */
    size_t heredoc;       /* 1 + index of the one we are inside, 0: none */
} shell_t;

static place_t here(const shell_t *shell)
{
    return shell->places[shell->depth - 1];
}

/* Deeper than the stack: stay; worst case a value is split into words, never run. */
static void enter(shell_t *shell, place_t place)
{
    if (shell->depth < PLACES_DEEPEST)
        shell->places[shell->depth++] = place;
}

static void leave(shell_t *shell)
{
    if (shell->depth > 1)
        shell->depth--;
}

static char peek(const shell_t *shell, size_t ahead)
{
    return shell->at + ahead < shell->size ? shell->text[shell->at + ahead] : '\0';
}

/* Is the line at `at` the end of this here document? */
static bool ends_heredoc(const shell_t *shell, const heredoc_t *doc, size_t at)
{
    while (doc->tabs && at < shell->size && shell->text[at] == '\t')
        at++;
    if (shell->size - at < doc->size || memcmp(shell->text + at, doc->word, doc->size) != 0)
        return false;
    at += doc->size;
    return at == shell->size || shell->text[at] == '\n' || shell->text[at] == '\r';
}

/* `at` is behind a newline: begin or end here documents. */
static void on_line(shell_t *shell)
{
    if (!shell->heredoc) {
        shell->heredoc = shell->waiting_count ? 1 : 0;
        if (!shell->heredoc)
            return;
    }
    if (!ends_heredoc(shell, &shell->waiting[shell->heredoc - 1], shell->at))
        return;
    while (shell->at < shell->size && shell->text[shell->at] != '\n')
        shell->at++;
    if (shell->heredoc++ == shell->waiting_count)
        shell->heredoc = shell->waiting_count = 0;
}

/* `at` is on <<: note the word. */
static void open_heredoc(shell_t *shell)
{
    heredoc_t doc = {0};
    shell->at += 2;
    if (peek(shell, 0) == '-') {
        doc.tabs = true;
        shell->at++;
    }
    while (peek(shell, 0) == ' ' || peek(shell, 0) == '\t')
        shell->at++;
    char quote = peek(shell, 0);
    doc.quoted = quote == '\'' || quote == '"' || quote == '\\';
    if (doc.quoted)
        shell->at++;
    doc.word = shell->text + shell->at;
    while (is_name(peek(shell, 0)) || (peek(shell, 0) == '.')) {
        doc.size++;
        shell->at++;
    }
    if (doc.quoted && quote != '\\' && peek(shell, 0) == quote)
        shell->at++;
    if (doc.size && !isdigit((unsigned char)*doc.word) && shell->waiting_count < HEREDOCS_MOST)
        shell->waiting[shell->waiting_count++] = doc;
}

/* A # begins a comment only where a word could begin. */
static bool begins_comment(const shell_t *shell)
{
    return shell->text[shell->at] == '#' &&
           (!shell->at || strchr(" \t\n;&|()", shell->text[shell->at - 1]));
}

/* One character of script outside quotes. */
static void step_plain(shell_t *shell)
{
    char c = peek(shell, 0);
    if (c == '\'')
        enter(shell, SINGLE);
    else if (c == '"')
        enter(shell, DOUBLE);
    else if (begins_comment(shell))
        enter(shell, COMMENT);
    else if (c == '(')
        enter(shell, COMMAND);
    else if (c == ')' && here(shell) == COMMAND)
        leave(shell);
    else if (c == '<' && peek(shell, 1) == '<' && peek(shell, 2) != '<') {
        open_heredoc(shell);
        return;
    }
    shell->at++;
}

/* One character, in quotes or not; \ has been dealt with. */
static void step_script(shell_t *shell)
{
    char c = peek(shell, 0);
    place_t place = here(shell);
    if (place == SINGLE || place == COMMENT) {
        if ((place == SINGLE && c == '\'') || (place == COMMENT && c == '\n'))
            leave(shell);
        shell->at += place == SINGLE || c != '\n';
        return;
    }
    if (c == '$' && peek(shell, 1) == '(' && peek(shell, 2) == '(') {
        enter(shell, ARITH);
        enter(shell, ARITH);
        shell->at += 3;
    } else if (c == '$' && (peek(shell, 1) == '(' || peek(shell, 1) == '{')) {
        enter(shell, peek(shell, 1) == '(' ? COMMAND : BRACES);
        shell->at += 2;
    } else if (c == '`') {
        if (place == BACKTICK)
            leave(shell);
        else
            enter(shell, BACKTICK);
        shell->at++;
    } else if (place == ARITH) {
        if (c == '(')
            enter(shell, ARITH);
        else if (c == ')')
            leave(shell);
        shell->at++;
    } else if (place == DOUBLE || place == BRACES) {
        if (c == (place == DOUBLE ? '"' : '}'))
            leave(shell);
        shell->at++;
    } else {
        step_plain(shell);
    }
}

/* Walks up to `end`. */
static void walk(shell_t *shell, size_t end)
{
    while (shell->at < end) {
        char c = peek(shell, 0);
        bool escapes = !shell->heredoc && here(shell) != SINGLE && here(shell) != COMMENT;
        if (c == '\n' && here(shell) != COMMENT) {
            shell->at++;
            if (here(shell) != SINGLE && here(shell) != DOUBLE)
                on_line(shell);
        } else if (shell->heredoc) {
            shell->at++;
        } else if (c == '\\' && escapes) {
            shell->at += 2;
        } else {
            step_script(shell);
        }
    }
}

/* What is known of a script while it is rewritten. */
typedef struct script {
    arena_t *arena;
    const values_t *values;
    shell_t shell;
    buf_t out;
    value_variable_t *variables;
    size_t count;
    size_t capacity;
    size_t bytes;
} script_t;

static err_t variable_value(script_t *script, const value_ref_t *ref, const char **text)
{
    bytes_t value;
    buf_t out;
    err_t err = value_get(script->arena, script->values, ref, &value);
    buf_open(&out, script->arena);
    if (!err_is(err))
        err = put_text(value, &out);
    if (err_is(err))
        return err;
    if (memchr(out.data, '\0', out.size))
        return err_make(script->arena, ERR_ARGUMENT,
                        "{{%s}}: the value holds a NUL character, which no command can take",
                        ref->text);
    script->bytes += out.size;
    if (out.size > VALUE_VARIABLE_LARGEST || script->bytes > VALUE_VARIABLES_LARGEST)
        return err_make(script->arena, ERR_TOO_LARGE,
                        "{{%s}}: the value of %zu bytes is too large for a script (%d each, %d in "
                        "all): write it to a file and pass the name",
                        ref->text, out.size, VALUE_VARIABLE_LARGEST, VALUE_VARIABLES_LARGEST);
    *text = out.data;
    return err_ok();
}

static const char *add_variable(script_t *script, const char *text)
{
    if (script->count == script->capacity) {
        size_t capacity = script->capacity ? script->capacity * 2 : 8;
        value_variable_t *grown = ARENA_ARRAY(script->arena, value_variable_t, capacity);
        if (script->count)
            memcpy(grown, script->variables, script->count * sizeof(*grown));
        script->variables = grown;
        script->capacity = capacity;
    }
    const char *name = arena_printf(script->arena, "VALUE_%zu", script->count + 1);
    script->variables[script->count++] = (value_variable_t){name, text};
    return name;
}

/* Where no variable is expanded a reference cannot work: say so, do not run something else. */
static err_t check_place(const script_t *script, const value_ref_t *ref)
{
    const shell_t *shell = &script->shell;
    if (shell->heredoc && shell->waiting[shell->heredoc - 1].quoted)
        return err_make(script->arena, ERR_ARGUMENT,
                        "{{%s}}: inside a here document with a quoted word nothing is replaced: "
                        "write <<WORD without quotes",
                        ref->text);
    if (!shell->heredoc && here(shell) == SINGLE)
        return err_make(script->arena, ERR_ARGUMENT,
                        "{{%s}}: inside single quotes nothing is replaced: use double quotes, or "
                        "none (a value is always one word)",
                        ref->text);
    return err_ok();
}

/* `shell` stands on the reference. */
static err_t put_reference(script_t *script, const value_ref_t *ref)
{
    const shell_t *shell = &script->shell;
    if (!shell->heredoc && here(shell) == COMMENT) {
        buf_put(&script->out, shell->text + ref->start, ref->end - ref->start);
        return err_ok();
    }
    err_t err = check_place(script, ref);
    if (err_is(err) || !script->values)
        return err;
    const char *text = "";
    err = variable_value(script, ref, &text);
    if (err_is(err))
        return err;
    const char *name = add_variable(script, text);
    place_t place = here(shell);
    bool quoted = shell->heredoc || place == DOUBLE || place == BRACES || place == ARITH;
    buf_printf(&script->out, quoted ? "${%s}" : "\"${%s}\"", name);
    return err_ok();
}

err_t values_script(arena_t *arena, const values_t *values, const char *text, size_t size,
                    value_script_t *out)
{
    script_t script = {.arena = arena, .values = values};
    shell_t *shell = &script.shell;
    *shell = (shell_t){.text = text, .size = size, .depth = 1};
    buf_open(&script.out, arena);
    size_t done = 0, at = 0;
    for (;;) {
        value_ref_t ref;
        bool found;
        out->at = at;
        err_t err = value_next(arena, text, size, &at, &ref, &found);
        if (err_is(err))
            return err;
        size_t until = found ? ref.start : size;
        out->at = until;
        put_literal(&script.out, text + done, until - done);
        if (!found)
            break;
        walk(shell, until);
        err = put_reference(&script, &ref);
        if (err_is(err))
            return err;
        done = ref.end;
        shell->at = ref.end;
    }
    *out = (value_script_t){script.out.data, script.variables, script.count, size};
    return err_ok();
}
