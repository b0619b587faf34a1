/* A procedure as CommonMark has it: title, numbered items, and the blocks in them. What people
 * often get wrong (a fence that closes nothing, a block indented too far or below no step) is told
 * here, because only here it is seen. */
#include <cmark.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "actors/agent/sop_parts.h"
#include "proto/record.h"

static const char *const kind_words[] = {
#define KIND_WORD(name, word, doc) word,
    SOP_KIND_ROWS(KIND_WORD)
#undef KIND_WORD
        NULL};

/* Where in the document we are. */
typedef struct walk {
    sop_parse_t *parse;
    bool open;          /* blocks now belong to the last item */
    bool new_section;   /* a heading came after the last list */
    unsigned fence_end; /* last line of the previous code block */
} walk_t;

/* ---- blocks ------------------------------------------------------------------------------- */

static sop_item_t *last_item(sop_parse_t *parse)
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
        if (!strcmp(sop_kind_info(kind)->word, word))
            return kind;
    return SOP_LLM;
}

/* Is a code block the indented kind? Then its first line is already content. */
static bool is_indented(const sop_parse_t *parse, cmark_node *node)
{
    span_t literal = span_of(cmark_node_get_literal(node));
    span_t first = span_split(&literal, '\n');
    span_t line = sop_line(parse, first_line(node));
    size_t column = (size_t)cmark_node_get_start_column(node) - 1;
    return column <= line.size && line.size - column >= first.size && first.size &&
           !memcmp(line.text + column, first.text, first.size);
}

/* ``` or ~~~ and spaces only, whatever stands before on the line? */
static bool closes(const sop_parse_t *parse, cmark_node *node)
{
    unsigned start = first_line(node), end = (unsigned)cmark_node_get_end_line(node);
    span_t line = span_trim(sop_line(parse, end));
    while (line.size && strchr("> \t", *line.text))
        line = span_skip(line, 1);
    if (end <= start || line.size < 3)
        return false;
    for (size_t i = 0; i < line.size; i++)
        if (line.text[i] != line.text[0] || !strchr("`~", line.text[i]))
            return false;
    return true;
}

/* A fence that closes nothing or is not closed takes what follows with it: the commonest slip. */
static void check_closed(walk_t *walk, cmark_node *node, const char *info)
{
    sop_parse_t *parse = walk->parse;
    unsigned line = first_line(node);
    if (line == walk->fence_end) {
        sop_wrong(
            parse, line,
            "this fence begins a new block, it does not close the one above: indent it like the "
            "fence that opens the block");
        parse->swallowed = true;
    } else if (!closes(parse, node)) {
        sop_wrong(parse, line,
                  "the ```%s block that begins here is not closed: end it with ``` "
                  "indented like this line",
                  info);
        parse->swallowed = true;
    }
    walk->fence_end = (unsigned)cmark_node_get_end_line(node);
}

/* Words that people write where they mean one of ours. */
static void check_word(sop_parse_t *parse, unsigned line, const char *word)
{
    static const char *const shells[] = {"bash", "shell", "zsh", "console", "dash", "ksh", NULL};
    for (size_t i = 0; shells[i]; i++)
        if (!strcmp(word, shells[i])) {
            sop_warn(parse, line, "a ```%s block is text and is not run: write ```sh to run it",
                     word);
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
        sop_warn(parse, line, "a ```%s block is text and does nothing: did you mean ```%s?", word,
                 near);
}

/* A block of ours in a step. */
static void executable(walk_t *walk, cmark_node *node, sop_kind_t kind, span_t rest)
{
    sop_parse_t *parse = walk->parse;
    unsigned line = first_line(node);
    const char *word = sop_kind_info(kind)->word;
    if (!walk->open) {
        sop_wrong(parse, line,
                  "this ```%s block is in no step and would never run: put it below a "
                  "numbered item, or write ```text if it is an example",
                  word);
        return;
    }
    sop_item_t *item = last_item(parse);
    if (item->fence_line) {
        sop_wrong(parse, line,
                  "a second block to run in one step (the first is on line %u): make it a "
                  "step of its own",
                  item->fence_line);
        return;
    }
    const char *body = cmark_node_get_literal(node);
    item->fence_line = line;
    item->fence_end = (unsigned)cmark_node_get_end_line(node);
    item->step.kind = kind;
    item->step.body = arena_strdup(parse->arena, body);
    item->step.body_size = strlen(body);
    item->step.body_line = line + 1;
    sop_attributes(parse, line, rest, item);
}

static void code_block(walk_t *walk, cmark_node *node)
{
    sop_parse_t *parse = walk->parse;
    bool indented = is_indented(parse, node);
    span_t rest =
        span_of(indented ? cmark_node_get_literal(node) : cmark_node_get_fence_info(node));
    if (indented) {
        if (rest.size < 3 || (memcmp(rest.text, "```", 3) != 0 && memcmp(rest.text, "~~~", 3) != 0))
            return;
        rest = span_split(&rest, '\n');
        rest = span_skip(rest, 3);
    }
    rest = span_trim(rest);
    const char *word = span_copy(parse->arena, span_word(&rest));
    sop_kind_t kind = kind_of(word);
    if (indented) {
        if (kind)
            sop_wrong(parse, first_line(node),
                      "this ```%s block is indented so far that it counts as "
                      "text: indent it by three spaces under its number",
                      word);
        return;
    }
    bool swallowed = parse->swallowed;
    check_closed(walk, node, word);
    if (kind)
        executable(walk, node, kind, rest);
    else if (!swallowed && *word)
        check_word(parse, first_line(node), word);
}

/* All code blocks below a block, in order. */
static void blocks_below(walk_t *walk, cmark_node *top)
{
    sop_parse_t *parse = walk->parse;
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
            sop_wrong(parse, first_line(node),
                      "lists and quotes are more than %d deep: flatten them", SOP_DEPTH_DEEPEST);
            told = true;
        }
        if (event == CMARK_EVENT_ENTER && type == CMARK_NODE_CODE_BLOCK)
            code_block(walk, node);
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
    return span_copy(arena, span_trim(span_of(out.data)));
}

/* ---- items -------------------------------------------------------------------------------- */

/* `**Name**` or `**Name:**` at the very start of an item, or NULL. */
static const char *bold_lead(sop_parse_t *parse, cmark_node *item)
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
    return name.size ? span_copy(parse->arena, name) : NULL;
}

static bool add_item(walk_t *walk, cmark_node *node)
{
    sop_parse_t *parse = walk->parse;
    unsigned line = first_line(node);
    if (parse->count == parse->most_steps) {
        sop_wrong(parse, line, "more than %zu steps: split the procedure", parse->most_steps);
        return false;
    }
    sop_item_t *item = &parse->items[parse->count++];
    const char *name = bold_lead(parse, node);
    item->step = (sop_step_t){.title = name, .line = line, .body = "", .prose = "", .retries = -1};
    item->named = name != NULL;
    item->last_line = (unsigned)cmark_node_get_end_line(node);
    walk->open = true;
    blocks_below(walk, node);
    return true;
}

static void on_list(walk_t *walk, cmark_node *list)
{
    sop_parse_t *parse = walk->parse;
    unsigned start = (unsigned)cmark_node_get_list_start(list);
    if (parse->count && walk->new_section && start != parse->count + 1)
        sop_wrong(
            parse, first_line(list),
            "another numbered list under another heading: number it from %zu if it goes on with "
            "the steps, or use bullets if its items are no steps",
            parse->count + 1);
    walk->new_section = false;
    for (cmark_node *item = cmark_node_first_child(list); item; item = cmark_node_next(item))
        if (!add_item(walk, item))
            return;
}

static void on_heading(walk_t *walk, cmark_node *node)
{
    sop_parse_t *parse = walk->parse;
    walk->open = false;
    walk->new_section = parse->count > 0;
    if (parse->sop.title || cmark_node_get_heading_level(node) != 1)
        return;
    const char *title = plain_text(parse->arena, node);
    parse->title_line = (unsigned)cmark_node_get_end_line(node);
    parse->sop.title = title;
    if (!*title)
        sop_wrong(parse, parse->title_line,
                  "the title is empty: write `# What this procedure does`");
    if (strlen(title) > SOP_TITLE_LONGEST)
        sop_wrong(parse, parse->title_line, "the title is longer than %d bytes: shorten it",
                  SOP_TITLE_LONGEST);
}

static void on_blocks(walk_t *walk, cmark_node *document)
{
    sop_parse_t *parse = walk->parse;
    for (cmark_node *node = cmark_node_first_child(document); node; node = cmark_node_next(node)) {
        cmark_node_type type = cmark_node_get_type(node);
        if (type == CMARK_NODE_LIST && cmark_node_get_list_type(node) == CMARK_ORDERED_LIST) {
            on_list(walk, node);
        } else if (type == CMARK_NODE_HEADING) {
            on_heading(walk, node);
        } else {
            /* Files of old do not indent what belongs to a step. */
            if (walk->open)
                last_item(parse)->last_line = (unsigned)cmark_node_get_end_line(node);
            blocks_below(walk, node);
        }
    }
}

static cmark_node *read_markdown(sop_parse_t *parse)
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

void sop_markdown(sop_parse_t *parse)
{
    walk_t walk = {.parse = parse};
    cmark_node *document = read_markdown(parse);
    on_blocks(&walk, document);
    cmark_node_free(document);
}
