/* graph_search: graph_query of graph.h. A page is taken either from the rows themselves, one after
 * another, or from the index of words; its cursor says which, and where the next one begins. */
#include <stdio.h>
#include <string.h>

#include "actors/brain/graph_rows.h"
#include "actors/brain/meta.h"
#include "proto/json.h"

enum { PREFIX_ROWS = 50000 /* looked at for one page */, COUNTED = 200, WORDS_MOST = 32 };

/* Where a page is taken from, in order; the letter stands in cursors. */
typedef struct source {
    char letter;
    int table;
    bool by_words;
    char next; /* 0: the end */
} source_t;

static const source_t sources[] = {{'n', TABLE_nodes, false, 'e'},
                                   {'e', TABLE_edges, false, 0},
                                   {'N', TABLE_node_words, true, 'E'},
                                   {'E', TABLE_edge_words, true, 0}};

static const source_t *source_of(char letter)
{
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        if (sources[i].letter == letter)
            return &sources[i];
    return NULL;
}

typedef struct asked {
    arena_t *arena;
    store_txn_t *txn;
    const char *needle; /* folded */
    const char **words;
    size_t chosen; /* of the words: the one whose rows are read */
    size_t word_count, limit;
    const source_t *source;
    store_key_t from;
    graph_part_t *out;
} asked_t;

/* ---- cursors: the letter of a source, two digits for the chosen word, and the hex of the key to
 * begin with ---- */

static void stop_at(asked_t *asked, bytes_t key)
{
    buf_t out;

    buf_open(&out, asked->arena);
    buf_printf(&out, "%c%02x", asked->source->letter, (unsigned)asked->chosen);
    for (size_t i = 0; i < key.size; i++)
        buf_printf(&out, "%02x", key.data[i]);
    asked->out->more = true;
    asked->out->cursor = out.data;
}

static bool read_byte(const char **cursor, unsigned *byte)
{
    if (strspn(*cursor, "0123456789abcdef") < 2 || sscanf(*cursor, "%2x", byte) != 1)
        return false;
    *cursor += 2;
    return true;
}

static bool read_cursor(asked_t *asked, const char *cursor)
{
    unsigned byte, chosen;

    asked->source = source_of(*cursor++);
    if (!asked->source || !read_byte(&cursor, &chosen))
        return false;
    asked->chosen = chosen;
    while (*cursor) {
        if (!read_byte(&cursor, &byte))
            return false;
        key_u8(&asked->from, (uint8_t)byte);
    }
    return !asked->from.overflow && (asked->chosen < asked->word_count || !asked->source->by_words);
}

/* ---- does a row fit? ---- */

/* Lower case for comparing: the folded words of a text joined by blanks would lose what is between
 * them, so only ASCII is folded here; the words index folds everything. */
static char *lowered(arena_t *arena, const char *text, size_t size)
{
    char *copy = arena_strndup(arena, text, size);

    for (char *c = copy; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + 32);
    return copy;
}

static bool occurs(const asked_t *asked, const char *text)
{
    return text && strstr(lowered(asked->arena, text, strlen(text)), asked->needle);
}

static bool occurs_in(const asked_t *asked, bytes_t properties)
{
    buf_t json;

    if (!properties.size)
        return false;
    buf_open(&json, asked->arena);
    if (err_is(json_from_msgpack(properties, JSON_COMPACT, &json)) || !json.data)
        return false;
    return strstr(lowered(asked->arena, json.data, json.size), asked->needle);
}

/* Does the row have words that begin with each word of the question? */
static bool has_all(const asked_t *asked, const graph_indexed_t *row)
{
    for (size_t i = 0; i < asked->word_count; i++) {
        bool found = false;
        for (size_t j = 0; j < row->count && !found; j++)
            found = strncmp(row->words[j], asked->words[i], strlen(asked->words[i])) == 0;
        if (!found)
            return false;
    }
    return true;
}

/* A row stands under each of its words; it is answered at the first that begins as asked. */
static bool is_first(const asked_t *asked, const graph_indexed_t *row, const char *word)
{
    size_t size = strlen(asked->words[asked->chosen]);
    store_key_t key;

    for (size_t i = 0; i < row->count; i++) {
        if (strncmp(row->words[i], asked->words[asked->chosen], size) != 0)
            continue;
        graph_word_key(&key, row->words[i], row->key);
        if (!key.overflow)
            return strcmp(row->words[i], word) == 0;
    }
    return false;
}

static err_t take_node(asked_t *asked, const graph_node_t *node, const char *word)
{
    if (word) {
        graph_indexed_t row = graph_node_words(asked->arena, node);
        if (!has_all(asked, &row) || !is_first(asked, &row, word))
            return err_ok();
    } else if (!occurs(asked, node->id) && !occurs(asked, node->type) &&
               !occurs_in(asked, node->properties)) {
        return err_ok();
    }
    graph_answer_node(asked->out, asked->arena, node);
    return err_ok();
}

static err_t take_edge(asked_t *asked, const graph_edge_t *edge, bytes_t key, const char *word)
{
    if (word) {
        graph_indexed_t row = graph_edge_words(asked->arena, edge, key);
        if (!has_all(asked, &row) || !is_first(asked, &row, word))
            return err_ok();
    } else if (!occurs(asked, edge->from) && !occurs(asked, edge->to) &&
               !occurs(asked, edge->relation) && !occurs_in(asked, edge->properties)) {
        return err_ok();
    }
    graph_answer_edge(asked->out, asked->arena, edge);
    return err_ok();
}

/* ---- rows ---- */

static err_t on_node(asked_t *asked, bytes_t key, const char *word)
{
    graph_node_t node;
    err_t err =
        graph_get_node(asked->txn, asked->arena,
                       arena_strndup(asked->arena, (const char *)key.data, key.size), &node);

    return err_is(err) ? err : take_node(asked, &node, word);
}

static err_t on_edge(asked_t *asked, bytes_t key, const char *word)
{
    store_key_t copy;
    bytes_t value;
    graph_edge_t edge;

    key_open(&copy);
    key_raw(&copy, key.data, key.size);
    err_t err = store_get(asked->txn, TABLE_edges, key_bytes(&copy), &value);
    if (!err_is(err))
        err = graph_read_edge(asked->arena, key_bytes(&copy), value, &edge);
    return err_is(err) ? err : take_edge(asked, &edge, key_bytes(&copy), word);
}

static err_t on_row(asked_t *asked, bytes_t key)
{
    const char *word = NULL;

    if (asked->source->by_words && !key_read_str(&key, asked->arena, &word))
        return err_of(ERR_CORRUPT, "a word of the graph has a bad key");
    bool node = asked->source->table == TABLE_nodes || asked->source->table == TABLE_node_words;
    err_t err = node ? on_node(asked, key, word) : on_edge(asked, key, word);
    return err.code == ERR_NOT_FOUND
               ? err_of(ERR_CORRUPT, "the words index of the graph is damaged")
               : err;
}

static bool full(const asked_t *asked)
{
    return asked->out->nodes.count + asked->out->edges.count >= asked->limit;
}

static err_t run_source(asked_t *asked)
{
    store_scan_t scan;
    bytes_t key, value;
    bytes_t prefix =
        asked->source->by_words ? graph_text(asked->words[asked->chosen]) : (bytes_t){0};
    int64_t rows = 0;
    err_t err = store_scan_open(&scan, asked->txn, asked->source->table, prefix,
                                key_bytes(&asked->from), false);

    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        if (full(asked) || rows++ == PREFIX_ROWS) {
            stop_at(asked, key);
            break;
        }
        err = on_row(asked, key);
    }
    store_scan_close(&scan);
    return err;
}

/* How many rows have words that begin like this one; COUNTED at most. */
static err_t count_rows(const asked_t *asked, const char *word, int *rows)
{
    static const int tables[] = {TABLE_node_words, TABLE_edge_words};
    store_scan_t scan;
    bytes_t key, value;
    err_t err = err_ok();

    for (size_t i = 0; i < 2 && !err_is(err); i++) {
        err = store_scan_open(&scan, asked->txn, tables[i], graph_text(word), (bytes_t){0}, false);
        while (!err_is(err) && *rows < COUNTED && store_scan_next(&scan, &key, &value))
            ++*rows;
        store_scan_close(&scan);
    }
    return err;
}

/* The rarest word; the longest of those that are common. */
static err_t choose_word(asked_t *asked)
{
    int least = COUNTED + 1;
    err_t err = err_ok();

    for (size_t i = 0; i < asked->word_count && i < WORDS_MOST && !err_is(err); i++) {
        int rows = 0;
        err = count_rows(asked, asked->words[i], &rows);
        if (rows < least ||
            (rows == least && strlen(asked->words[i]) > strlen(asked->words[asked->chosen]))) {
            least = rows;
            asked->chosen = i;
        }
    }
    return err;
}

/* Small graphs are looked through row by row, so that middles of words are found too. */
static err_t choose_source(asked_t *asked)
{
    meta_counts_t counts;

    meta_counts(asked->txn, &counts);
    bool rows = !*asked->needle || counts.nodes + counts.edges <= GRAPH_SCAN;
    if (!rows && !asked->word_count)
        return err_of(ERR_ARGUMENT, "in a graph of this size a query needs a word");
    asked->source = source_of(rows ? 'n' : 'N');
    return rows ? err_ok() : choose_word(asked);
}

err_t graph_query(brain_t *self, call_t *call, const char *company, const char *text, size_t limit,
                  const char *cursor, graph_part_t *out)
{
    asked_t asked = {.arena = call_arena(call), .limit = limit, .out = out};
    const char *none[] = {text, NULL};
    err_t err = call_read(call, company, &asked.txn);

    (void)self;
    *out = (graph_part_t){0};
    asked.needle = lowered(asked.arena, text, strlen(text));
    asked.word_count = graph_words(asked.arena, none, (bytes_t){0}, &asked.words);
    key_open(&asked.from);
    if (cursor && !read_cursor(&asked, cursor))
        return err_of(ERR_ARGUMENT, "cursor is not one that brain_query_graph gave to this query");
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    if (!cursor)
        err = choose_source(&asked);
    while (!err_is(err) && asked.source && !out->more) {
        err = run_source(&asked);
        asked.source = source_of(asked.source->next);
        key_open(&asked.from);
    }
    return err;
}
