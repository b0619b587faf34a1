/* What a block calls: a tool or a procedure with its arguments, once or for each item of a list. */
#include <ctype.h>
#include <string.h>

#include "actors/agent/sop_parts.h"
#include "actors/agent/values.h"
#include "proto/frame.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { ARGS_MOST = 256 /* in lines */ };

/* ---- arguments ---------------------------------------------------------------------------- */

/* The value of a `key: value` line: JSON when it reads as such, a str otherwise. */
static void put_plain(sop_parse_t *parse, span_t value, buf_t *out)
{
    bytes_t packed;
    err_t err = json_to_msgpack(parse->arena, value.text, value.size, NULL, &packed);
    if (err_is(err) || !value.size)
        mp_put_strn(out, value.text, value.size);
    else
        mp_put_raw(out, packed);
}

/* `key: value` lines into a map. */
static void plain_args(sop_parse_t *parse, sop_step_t *step, span_t rest, unsigned line)
{
    buf_t pairs, out;
    uint32_t count = 0;
    buf_open(&pairs, parse->arena);
    for (; rest.size; line++) {
        span_t text = span_trim(span_split(&rest, '\n'));
        if (!text.size || *text.text == '#')
            continue;
        bool colon = memchr(text.text, ':', text.size) != NULL;
        span_t key = span_trim(span_split(&text, ':'));
        if (!colon || !key.size || memchr(key.text, ' ', key.size)) {
            sop_wrong(parse, line,
                      "arguments are a JSON object, or lines `name: value`: '%.*s' is "
                      "neither",
                      (int)(key.size < 60 ? key.size : 60), key.text);
            return;
        }
        if (++count > ARGS_MOST) {
            sop_wrong(parse, line, "more than %d arguments in lines: write a JSON object",
                      ARGS_MOST);
            return;
        }
        mp_put_strn(&pairs, key.text, key.size);
        put_plain(parse, span_trim(text), &pairs);
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
                sop_wrong(parse, step->body_line, "the argument %s is there twice: keep one",
                          mp_text(parse->arena, key));
    }
}

/* Newlines before it make the parser's line numbers those of the file. */
static err_t json_at(sop_parse_t *parse, span_t rest, unsigned line, bytes_t *value)
{
    buf_t text;
    buf_open(&text, parse->arena);
    for (unsigned i = 1; i < line; i++)
        buf_puts(&text, "\n");
    buf_put(&text, rest.text, rest.size);
    return json_to_msgpack(parse->arena, text.data, text.size, NULL, value);
}

static void json_args(sop_parse_t *parse, sop_step_t *step, span_t rest, unsigned line)
{
    mp_type_t type;
    err_t err = json_at(parse, rest, line, &step->args);
    if (err_is(err))
        sop_wrong(parse, line,
                  "the arguments are no good JSON: %s (a {{reference}} belongs in quotes; "
                  "alone in its quotes it keeps its type)",
                  err_what(err));
    else if (!mp_type_of(step->args, &type) || type != MP_MAP)
        sop_wrong(parse, line, "the arguments are no object: write { \"name\": value }");
}

static bytes_t text_value(arena_t *arena, span_t text)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_strn(&out, text.text, text.size);
    return buf_bytes(&out);
}

static bool is_reference(sop_parse_t *parse, span_t text)
{
    value_ref_t ref;
    return value_is_ref(parse->arena, text.text, text.size, &ref);
}

/* ---- calls -------------------------------------------------------------------------------- */

/* Without the white space before it; `line` goes on with it. */
static span_t skip_blank(span_t rest, unsigned *line)
{
    span_t start = span_trim(rest);
    *line += sop_newlines(rest.text, (size_t)(start.text - rest.text));
    return start;
}

/* The first word, up to white space or a brace; `rest` goes on behind it. */
static span_t take_name(span_t *rest)
{
    size_t size = 0;
    while (size < rest->size && !isspace((unsigned char)rest->text[size]) &&
           rest->text[size] != '{')
        size++;
    span_t name = {rest->text, size};
    *rest = span_skip(*rest, size);
    return name;
}

static void read_args(sop_parse_t *parse, sop_step_t *step, span_t rest, unsigned line)
{
    rest = skip_blank(rest, &line);
    bool reference = rest.size > 1 && !memcmp(rest.text, "{{", 2);
    if (step->procedure && reference && is_reference(parse, rest))
        step->args = text_value(parse->arena, rest);
    else if (rest.size && *rest.text == '{' && !reference)
        json_args(parse, step, rest, line);
    else
        plain_args(parse, step, rest, line);
}

static bool is_tool_name(span_t name)
{
    bool good = name.size && name.size <= 128 && isalpha((unsigned char)*name.text);
    for (size_t i = 0; i < name.size; i++)
        good = good && (isalnum((unsigned char)name.text[i]) || strchr("_.-/", name.text[i]));
    return good;
}

static void tool_call(sop_parse_t *parse, sop_step_t *step, span_t rest, unsigned line)
{
    rest = skip_blank(rest, &line);
    span_t name = take_name(&rest);
    if (!is_tool_name(name)) {
        sop_wrong(parse, line,
                  "a call begins with the name of the tool, such as `brain_query {\"query\": "
                  "\"...\"}`");
        return;
    }
    step->tool = span_copy(parse->arena, name);
    read_args(parse, step, rest, line);
}

static void procedure_call(sop_parse_t *parse, sop_step_t *step, span_t rest, unsigned line)
{
    rest = skip_blank(rest, &line);
    span_t name = take_name(&rest);
    if (name.size > 3 && !memcmp(name.text + name.size - 3, ".md", 3))
        name.size -= 3;
    const char *text = span_copy(parse->arena, name);
    if (!frame_company_name(text)) { /* the same alphabet */
        sop_wrong(parse, line,
                  "'%.80s' is no name of a procedure: write it as sop_list shows it, then the "
                  "input, such as `count {\"folder\": \"...\"}`",
                  text);
        return;
    }
    step->procedure = text;
    read_args(parse, step, rest, line);
}

/* ---- each --------------------------------------------------------------------------------- */

/* `tool:` or `sop:` at the start of a line? Then `line` goes on behind it. */
static bool take_call(span_t *line, const char *word)
{
    size_t size = strlen(word);
    span_t text = span_trim(*line);
    if (text.size < size || memcmp(text.text, word, size) != 0)
        return false;
    *line = span_skip(text, size);
    return true;
}

size_t sop_call_at(const sop_step_t *step)
{
    for (span_t rest = span_of(step->body); rest.size;) {
        size_t start = (size_t)(rest.text - step->body);
        span_t line = span_split(&rest, '\n');
        if (take_call(&line, "tool:") || take_call(&line, "sop:"))
            return start;
    }
    return step->body_size;
}

static void list_of(sop_parse_t *parse, sop_step_t *step, span_t text)
{
    unsigned line = step->body_line;
    mp_type_t type;
    text = skip_blank(text, &line);
    if (text.size && *text.text == '[') {
        err_t err = json_at(parse, text, line, &step->list);
        if (err_is(err))
            sop_wrong(parse, line,
                      "the list is no good JSON: %s (a {{reference}} inside it belongs in quotes)",
                      err_what(err));
        else if (!mp_type_of(step->list, &type) || type != MP_ARRAY)
            sop_wrong(parse, line, "the list is no JSON list");
    } else if (is_reference(parse, text)) {
        step->list = text_value(parse->arena, text);
    } else {
        sop_wrong(parse, line,
                  "an ```each begins with its list: one {{reference}}, or a JSON list such as "
                  "[\"a\", \"b\"]");
    }
}

/* What is said of calls of a tool means nothing to runs of a procedure, and the other way round. */
static void check_attributes(sop_parse_t *parse, const sop_step_t *step)
{
    const char *idle = !step->procedure                    ? NULL
                       : step->replay != SOP_REPLAY_UNSAID ? "replay"
                       : step->timeout_ms                  ? "timeout"
                       : step->retries >= 0                ? "retries"
                                                           : NULL;
    if (idle)
        sop_wrong(parse, step->body_line - 1,
                  "an ```each of a procedure takes no '%s': the steps of the procedure say it",
                  idle);
    if (step->tool && step->parallel)
        sop_wrong(parse, step->body_line - 1,
                  "an ```each of a tool takes no 'parallel': its calls are made one after the "
                  "other (runs of a procedure go side by side: `sop: NAME`)");
}

static void each_body(sop_parse_t *parse, sop_step_t *step)
{
    size_t at = sop_call_at(step);
    unsigned line = step->body_line + sop_newlines(step->body, at);
    span_t call = span_skip(span_of(step->body), at);
    list_of(parse, step, (span_t){step->body, at});
    if (take_call(&call, "tool:"))
        tool_call(parse, step, call, line);
    else if (take_call(&call, "sop:"))
        procedure_call(parse, step, call, line);
    else
        sop_wrong(parse, step->body_line,
                  "an ```each needs a line `tool: NAME` or `sop: NAME`, with arguments: what is "
                  "done with each {{item}}");
    check_attributes(parse, step);
}

void sop_call_body(sop_parse_t *parse, sop_step_t *step)
{
    if (step->kind == SOP_EACH)
        each_body(parse, step);
    else
        (step->kind == SOP_SOP ? procedure_call : tool_call)(parse, step, span_of(step->body),
                                                             step->body_line);
}
