#include "actors/brain/graph.h"

#include <stdlib.h>
#include <string.h>

#include "actors/brain/meta.h"
#include "actors/brain/words.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_DEFINE(graph_node, graph_node_FIELDS)
RECORD_DEFINE(graph_edge, graph_edge_FIELDS)

enum { WORDS_PER_ROW = 256, PREFIX_ROWS = 50000, VISITED_MAX = 100000 };

/* ---- keys ---- */

static bytes_t text_of(const char *text)
{
    return (bytes_t){(const uint8_t *)text, strlen(text)};
}

static bytes_t edge_key(store_key_t *key, const char *one, const char *two, const char *three)
{
    key_open(key);
    key_str(key, one);
    key_str(key, two);
    key_raw(key, three, strlen(three));
    return key_bytes(key);
}

static bool read_edge_key(bytes_t key, arena_t *arena, const char **one, const char **two,
                          const char **three)
{
    if (!key_read_str(&key, arena, one) || !key_read_str(&key, arena, two))
        return false;
    *three = arena_strndup(arena, (const char *)key.data, key.size);
    return true;
}

/* ---- properties ---- */

static err_t check_properties(arena_t *arena, bytes_t properties)
{
    mp_type_t type;

    if (properties.size && (!mp_type_of(properties, &type) || type != MP_MAP))
        return err_make(arena, ERR_ARGUMENT, "properties must be an object");
    return err_ok();
}

/* Copies the pairs of `map` that are not nil and not named in `but`. */
static uint32_t put_pairs(buf_t *out, arena_t *arena, bytes_t map, bytes_t but)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    bytes_t value, other;
    mp_type_t type;
    uint32_t count = 0;

    if (!map.size || !mp_read(&reader, &head))
        return 0;
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || !mp_slice(&reader, &value))
            break;
        const char *name = arena_strndup(arena, key.text, key.size);
        if ((but.size && mp_get(but, name, &other)) || !mp_type_of(value, &type) || type == MP_NIL)
            continue;
        mp_put_str(out, name);
        mp_put_raw(out, value);
        count++;
    }
    return count;
}

/* The old map with the new one laid over it; nil in the new one removes. */
static bytes_t merged(arena_t *arena, bytes_t old, bytes_t fresh)
{
    buf_t pairs, out;

    buf_open(&pairs, arena);
    uint32_t count = put_pairs(&pairs, arena, old, fresh);
    count += put_pairs(&pairs, arena, fresh, (bytes_t){0});
    buf_open(&out, arena);
    mp_put_map(&out, count);
    buf_put(&out, pairs.data, pairs.size);
    return buf_bytes(&out);
}

/* ---- the index of words ---- */

static void put_texts(buf_t *out, bytes_t value, int depth)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    bytes_t child;

    if (!value.size || depth > 8 || !mp_read(&reader, &head))
        return;
    if (head.type == MP_STR) {
        buf_put(out, head.text, head.size);
        buf_puts(out, "\n");
    } else if (head.type == MP_INT) {
        buf_printf(out, "%lld\n", (long long)head.integer);
    }
    if (head.type != MP_ARRAY && head.type != MP_MAP)
        return;
    for (uint32_t i = 0; i < head.count * (head.type == MP_MAP ? 2U : 1U); i++) {
        if (!mp_slice(&reader, &child))
            return;
        put_texts(out, child, depth + 1);
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct words of a row, unstemmed: people look for beginnings of names. */
static size_t words_of(arena_t *arena, const char *const *texts, bytes_t properties,
                       const char ***out)
{
    words_t *words = NULL;
    word_list_t list;
    buf_t all;
    size_t count = 0, kept = 0;

    buf_open(&all, arena);
    buf_puts(&all, "");
    for (; *texts; texts++) {
        buf_puts(&all, *texts);
        buf_puts(&all, "\n");
    }
    put_texts(&all, properties, 0);
    if (err_is(words_new(&words, "none")))
        abort();
    words_split(words, arena, all.data, all.size, &list);
    words_destroy(&words);
    const char **found = ARENA_ARRAY(arena, const char *, list.count + 1);
    for (size_t i = 0; i < list.count; i++)
        found[count++] = list.words[i].term;
    if (count)
        qsort(found, count, sizeof found[0], by_text);
    for (size_t i = 0; i < count && kept < WORDS_PER_ROW; i++)
        if (!kept || strcmp(found[kept - 1], found[i]) != 0)
            found[kept++] = found[i];
    *out = found;
    return kept;
}

/* What a row is indexed by, and where. */
typedef struct indexed {
    int table;
    bytes_t key; /* of the row */
    const char **words;
    size_t count;
} indexed_t;

static bytes_t word_key(store_key_t *key, const char *word, bytes_t row)
{
    key_open(key);
    key_str(key, word);
    key_raw(key, row.data, row.size);
    return key_bytes(key);
}

/* Writes the words that are new and takes away those that are no more. Both lists are sorted. */
static err_t change_words(store_txn_t *txn, const indexed_t *old, const indexed_t *fresh)
{
    store_key_t key;
    err_t err = err_ok();
    size_t i = 0, j = 0;

    while (!err_is(err) && (i < old->count || j < fresh->count)) {
        int order = i == old->count     ? 1
                    : j == fresh->count ? -1
                                        : strcmp(old->words[i], fresh->words[j]);
        if (order == 0) {
            i++;
            j++;
        } else if (order < 0) {
            err = store_del(txn, old->table, word_key(&key, old->words[i++], old->key));
            if (err.code == ERR_NOT_FOUND)
                err = err_ok();
        } else {
            bytes_t place = word_key(&key, fresh->words[j++], fresh->key);
            if (!key.overflow)
                err = store_put(txn, fresh->table, place, (bytes_t){NULL, 0});
        }
    }
    return err;
}

static indexed_t node_words(arena_t *arena, const graph_node_t *node)
{
    const char *texts[] = {node->id, node->type ? node->type : "", NULL};
    indexed_t out = {.table = TABLE_node_words, .key = text_of(node->id)};

    out.count = words_of(arena, texts, node->properties, &out.words);
    return out;
}

static indexed_t edge_words(arena_t *arena, const graph_edge_t *edge, bytes_t key)
{
    const char *texts[] = {edge->from, edge->relation, edge->to, NULL};
    indexed_t out = {.table = TABLE_edge_words, .key = key};

    out.count = words_of(arena, texts, edge->properties, &out.words);
    return out;
}

/* ---- rows ---- */

static err_t get_node(store_txn_t *txn, arena_t *arena, const char *id, graph_node_t *out)
{
    bytes_t value;
    err_t err = store_get(txn, TABLE_nodes, text_of(id), &value);

    if (err_is(err))
        return err;
    value.data = arena_copy(arena, value.data, value.size);
    return record_decode(&graph_node_record, value, arena, "stored field", out);
}

static err_t read_edge(arena_t *arena, bytes_t key, bytes_t value, graph_edge_t *out)
{
    *out = (graph_edge_t){0};
    if (!read_edge_key(key, arena, &out->from, &out->relation, &out->to))
        return err_of(ERR_CORRUPT, "an edge has a bad key");
    out->properties = (bytes_t){arena_copy(arena, value.data, value.size), value.size};
    return err_ok();
}

static err_t check_quota(brain_t *self, call_t *call, const meta_counts_t *counts)
{
    if (counts->nodes + counts->edges < (uint64_t)self->settings->nodes_max)
        return err_ok();
    return err_make(call_arena(call), ERR_QUOTA,
                    "the graph of this company is full (brain.nodes_max = %lld)",
                    (long long)self->settings->nodes_max);
}

err_t graph_put_node(brain_t *self, call_t *call, const char *company, const graph_node_t *node)
{
    store_txn_t *txn;
    arena_t *arena = call_arena(call);
    graph_node_t old = {0}, fresh = *node;
    indexed_t old_words = {0};
    meta_counts_t counts;
    err_t err = check_properties(arena, node->properties);

    if (!err_is(err))
        err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    err = get_node(txn, arena, node->id, &old);
    bool there = !err_is(err);
    if (there)
        old_words = node_words(arena, &old);
    else if (err.code != ERR_NOT_FOUND)
        return err;
    if (!fresh.type)
        fresh.type = old.type;
    fresh.properties = merged(arena, old.properties, node->properties);
    meta_counts(txn, &counts);
    err = there ? err_ok() : check_quota(self, call, &counts);
    if (err_is(err))
        return err;
    indexed_t fresh_words = node_words(arena, &fresh);
    buf_t out;
    buf_open(&out, arena);
    record_encode(&graph_node_record, &fresh, &out);
    err = store_put(txn, TABLE_nodes, text_of(node->id), buf_bytes(&out));
    if (!err_is(err))
        err = change_words(txn, &old_words, &fresh_words);
    if (err_is(err) || there)
        return err;
    counts.nodes++;
    return meta_put_counts(txn, &counts);
}

err_t graph_put_edge(brain_t *self, call_t *call, const char *company, const graph_edge_t *edge)
{
    store_txn_t *txn;
    arena_t *arena = call_arena(call);
    store_key_t key, back;
    bytes_t value;
    indexed_t old_words = {0};
    meta_counts_t counts;
    graph_edge_t old = {0}, fresh = *edge;
    err_t err = check_properties(arena, edge->properties);

    if (!err_is(err))
        err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    edge_key(&key, edge->from, edge->relation, edge->to);
    err = store_get(txn, TABLE_edges, key_bytes(&key), &value);
    bool there = !err_is(err);
    if (there) {
        err = read_edge(arena, key_bytes(&key), value, &old);
        old_words = edge_words(arena, &old, key_bytes(&key));
    } else if (err.code == ERR_NOT_FOUND) {
        meta_counts(txn, &counts);
        err = check_quota(self, call, &counts);
    }
    if (err_is(err))
        return err;
    fresh.properties = merged(arena, old.properties, edge->properties);
    indexed_t fresh_words = edge_words(arena, &fresh, key_bytes(&key));
    err = store_put(txn, TABLE_edges, key_bytes(&key), fresh.properties);
    if (!err_is(err))
        err = store_put(txn, TABLE_edges_in, edge_key(&back, edge->to, edge->relation, edge->from),
                        (bytes_t){NULL, 0});
    if (!err_is(err))
        err = change_words(txn, &old_words, &fresh_words);
    if (err_is(err) || there)
        return err;
    counts.edges++;
    return meta_put_counts(txn, &counts);
}

/* ---- deleting ---- */

static err_t del_edge(store_txn_t *txn, arena_t *arena, const char *from, const char *relation,
                      const char *to, meta_counts_t *counts)
{
    store_key_t key, back;
    bytes_t value;
    graph_edge_t edge;
    indexed_t none = {0};

    edge_key(&key, from, relation, to);
    err_t err = store_get(txn, TABLE_edges, key_bytes(&key), &value);
    if (!err_is(err))
        err = read_edge(arena, key_bytes(&key), value, &edge);
    if (err_is(err))
        return err;
    indexed_t words = edge_words(arena, &edge, key_bytes(&key));
    err = store_del(txn, TABLE_edges, key_bytes(&key));
    if (!err_is(err))
        err = store_del(txn, TABLE_edges_in, edge_key(&back, to, relation, from));
    if (!err_is(err))
        err = change_words(txn, &words, &none);
    counts->edges--;
    return err;
}

/* A miss must not create a company, hence the read before the write. */
static err_t begin_delete(call_t *call, const char *company, store_txn_t **txn,
                          meta_counts_t *counts)
{
    err_t err = call_read(call, company, txn);

    if (!err_is(err))
        err = call_write(call, company, txn);
    if (!err_is(err))
        meta_counts(*txn, counts);
    return err;
}

err_t graph_del_edge(brain_t *self, call_t *call, const char *company, const char *from,
                     const char *relation, const char *to)
{
    store_txn_t *txn;
    meta_counts_t counts;
    err_t err = begin_delete(call, company, &txn, &counts);

    (void)self;
    if (!err_is(err))
        err = del_edge(txn, call_arena(call), from, relation, to, &counts);
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no such edge");
    return err_is(err) ? err : meta_put_counts(txn, &counts);
}

/* The keys of a table that begin with the id: gathered first, because deleting moves them. */
static err_t keys_of(store_txn_t *txn, arena_t *arena, int table, const char *id, bytes_t **out,
                     size_t *count)
{
    store_scan_t scan;
    store_key_t prefix;
    bytes_t key, value;
    size_t capacity = 0;

    key_open(&prefix);
    key_str(&prefix, id);
    *out = NULL;
    *count = 0;
    err_t err = store_scan_open(&scan, txn, table, key_bytes(&prefix), (bytes_t){0}, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        if (*count == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            bytes_t *more = ARENA_ARRAY(arena, bytes_t, capacity);
            if (*count)
                memcpy(more, *out, *count * sizeof *more);
            *out = more;
        }
        (*out)[(*count)++] = (bytes_t){arena_copy(arena, key.data, key.size), key.size};
    }
    store_scan_close(&scan);
    return err;
}

static err_t del_edges_of(store_txn_t *txn, arena_t *arena, const char *id, meta_counts_t *counts)
{
    bytes_t *keys;
    size_t count;
    const char *one, *two, *three;
    err_t err = keys_of(txn, arena, TABLE_edges, id, &keys, &count);

    for (size_t i = 0; i < count && !err_is(err); i++)
        if (read_edge_key(keys[i], arena, &one, &two, &three))
            err = del_edge(txn, arena, one, two, three, counts);
    if (!err_is(err))
        err = keys_of(txn, arena, TABLE_edges_in, id, &keys, &count);
    for (size_t i = 0; i < count && !err_is(err); i++)
        if (read_edge_key(keys[i], arena, &one, &two, &three))
            err = del_edge(txn, arena, three, two, one, counts);
    return err;
}

err_t graph_del_node(brain_t *self, call_t *call, const char *company, const char *id)
{
    store_txn_t *txn;
    meta_counts_t counts;
    graph_node_t node;
    indexed_t none = {0};
    arena_t *arena = call_arena(call);
    err_t err = begin_delete(call, company, &txn, &counts);

    (void)self;
    if (!err_is(err))
        err = get_node(txn, arena, id, &node);
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no such node");
    if (err_is(err))
        return err;
    indexed_t words = node_words(arena, &node);
    err = store_del(txn, TABLE_nodes, text_of(id));
    if (!err_is(err))
        err = change_words(txn, &words, &none);
    if (!err_is(err))
        err = del_edges_of(txn, arena, id, &counts);
    counts.nodes--;
    return err_is(err) ? err : meta_put_counts(txn, &counts);
}

/* ---- answers ---- */

static void *grown(arena_t *arena, void *items, size_t count, size_t size)
{
    if (count && (count < 8 || (count & (count - 1))))
        return items;
    void *more = arena_alloc(arena, (count ? count * 2 : 8) * size);
    if (count)
        memcpy(more, items, count * size);
    return more;
}

static void answer_node(graph_part_t *out, arena_t *arena, const graph_node_t *node)
{
    out->nodes.items = grown(arena, out->nodes.items, out->nodes.count, sizeof *node);
    out->nodes.items[out->nodes.count++] = *node;
}

static void answer_edge(graph_part_t *out, arena_t *arena, const graph_edge_t *edge)
{
    out->edges.items = grown(arena, out->edges.items, out->edges.count, sizeof *edge);
    out->edges.items[out->edges.count++] = *edge;
}

/* ---- query ---- */

typedef struct asked {
    arena_t *arena;
    store_txn_t *txn;
    const char *needle; /* folded */
    const char **words;
    size_t word_count, limit;
    graph_part_t *out;
} asked_t;

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

static bool full(const asked_t *asked)
{
    return asked->out->nodes.count + asked->out->edges.count >= asked->limit;
}

static err_t scan_nodes(asked_t *asked)
{
    store_scan_t scan;
    bytes_t key, value;
    err_t err = store_scan_open(&scan, asked->txn, TABLE_nodes, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        graph_node_t node;
        err = record_decode(&graph_node_record, value, asked->arena, "stored field", &node);
        if (err_is(err) || !(occurs(asked, node.id) || occurs(asked, node.type) ||
                             occurs_in(asked, node.properties)))
            continue;
        if (full(asked)) {
            asked->out->more = true;
            break;
        }
        answer_node(asked->out, asked->arena, &node);
    }
    store_scan_close(&scan);
    return err;
}

static err_t scan_edges(asked_t *asked)
{
    store_scan_t scan;
    bytes_t key, value;
    err_t err = store_scan_open(&scan, asked->txn, TABLE_edges, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        graph_edge_t edge;
        err = read_edge(asked->arena, key, value, &edge);
        if (err_is(err) || !(occurs(asked, edge.from) || occurs(asked, edge.to) ||
                             occurs(asked, edge.relation) || occurs_in(asked, edge.properties)))
            continue;
        if (full(asked)) {
            asked->out->more = true;
            break;
        }
        answer_edge(asked->out, asked->arena, &edge);
    }
    store_scan_close(&scan);
    return err;
}

/* Does the row have words that begin with each word of the question? */
static bool has_all(const asked_t *asked, const indexed_t *row)
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

static bool answered(const graph_part_t *out, const graph_node_t *node, const graph_edge_t *edge)
{
    for (size_t i = 0; node && i < out->nodes.count; i++)
        if (strcmp(out->nodes.items[i].id, node->id) == 0)
            return true;
    for (size_t i = 0; edge && i < out->edges.count; i++)
        if (strcmp(out->edges.items[i].from, edge->from) == 0 &&
            strcmp(out->edges.items[i].relation, edge->relation) == 0 &&
            strcmp(out->edges.items[i].to, edge->to) == 0)
            return true;
    return false;
}

static err_t on_word(asked_t *asked, int table, bytes_t row)
{
    store_key_t key;
    bytes_t value;
    graph_node_t node;
    graph_edge_t edge;

    key_open(&key);
    key_raw(&key, row.data, row.size);
    if (table == TABLE_node_words) {
        err_t err = get_node(asked->txn, asked->arena,
                             arena_strndup(asked->arena, (const char *)row.data, row.size), &node);
        if (err_is(err))
            return err;
        indexed_t words = node_words(asked->arena, &node);
        if (has_all(asked, &words) && !answered(asked->out, &node, NULL))
            answer_node(asked->out, asked->arena, &node);
        return err_ok();
    }
    err_t err = store_get(asked->txn, TABLE_edges, key_bytes(&key), &value);
    if (!err_is(err))
        err = read_edge(asked->arena, key_bytes(&key), value, &edge);
    if (err_is(err))
        return err;
    indexed_t words = edge_words(asked->arena, &edge, key_bytes(&key));
    if (has_all(asked, &words) && !answered(asked->out, NULL, &edge))
        answer_edge(asked->out, asked->arena, &edge);
    return err_ok();
}

/* Rows by the longest word of the question, which is likely the rarest. */
static err_t look_up(asked_t *asked, int table)
{
    store_scan_t scan;
    bytes_t key, value;
    const char *longest = asked->words[0], *word;
    int64_t rows = 0;

    for (size_t i = 1; i < asked->word_count; i++)
        if (strlen(asked->words[i]) > strlen(longest))
            longest = asked->words[i];
    err_t err = store_scan_open(&scan, asked->txn, table, text_of(longest), (bytes_t){0}, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        if (full(asked) || rows++ == PREFIX_ROWS) {
            asked->out->more = true;
            break;
        }
        if (key_read_str(&key, asked->arena, &word))
            err = on_word(asked, table, key);
        if (err.code == ERR_NOT_FOUND)
            err = err_of(ERR_CORRUPT, "the words index of the graph is damaged: run "
                                      "brain_maintenance rebuild_indices");
    }
    store_scan_close(&scan);
    return err;
}

err_t graph_query(brain_t *self, call_t *call, const char *company, const char *text, size_t limit,
                  graph_part_t *out)
{
    asked_t asked = {.arena = call_arena(call), .limit = limit, .out = out};
    const char *none[] = {text, NULL};
    meta_counts_t counts;
    err_t err = call_read(call, company, &asked.txn);

    (void)self;
    *out = (graph_part_t){0};
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    meta_counts(asked.txn, &counts);
    asked.needle = lowered(asked.arena, text, strlen(text));
    asked.word_count = words_of(asked.arena, none, (bytes_t){0}, &asked.words);
    bool small = counts.nodes + counts.edges <= GRAPH_SCAN;
    if (!small && !asked.word_count)
        return err_of(ERR_ARGUMENT, "in a graph of this size a query needs a word");
    err = small ? scan_nodes(&asked) : look_up(&asked, TABLE_node_words);
    if (!err_is(err))
        err = small ? scan_edges(&asked) : look_up(&asked, TABLE_edge_words);
    return err;
}

/* ---- walking ---- */

/* Ids that were reached, in order, with how: a queue and a hash table in one. */
typedef struct place {
    const char *id;
    int64_t depth;
    size_t from;     /* index of the place before */
    graph_edge_t by; /* the edge it was reached by */
} place_t;

typedef struct walk {
    arena_t *arena;
    store_txn_t *txn;
    place_t *places;
    size_t count;
    uint32_t *table; /* index + 1 */
    size_t capacity;
    const char *relation;
    size_t limit;
} walk_t;

static void walk_open(walk_t *walk, size_t limit)
{
    walk->capacity = 1024;
    walk->limit = limit < VISITED_MAX ? limit : VISITED_MAX;
    walk->table = ARENA_ARRAY(walk->arena, uint32_t, walk->capacity);
}

static size_t slot_of(const walk_t *walk, const char *id)
{
    uint64_t h = 0xcbf29ce484222325ULL;

    for (const char *c = id; *c; c++)
        h = (h ^ (uint8_t)*c) * 0x100000001b3ULL;
    size_t at = (h ^ h >> 29) & (walk->capacity - 1);
    while (walk->table[at] && strcmp(walk->places[walk->table[at] - 1].id, id) != 0)
        at = (at + 1) & (walk->capacity - 1);
    return at;
}

static void widen(walk_t *walk)
{
    walk->capacity *= 2;
    walk->table = ARENA_ARRAY(walk->arena, uint32_t, walk->capacity);
    for (size_t i = 0; i < walk->count; i++)
        walk->table[slot_of(walk, walk->places[i].id)] = (uint32_t)i + 1;
}

/* False when it was reached before, or when there are too many. */
static bool reach(walk_t *walk, const char *id, int64_t depth, size_t from, const graph_edge_t *by)
{
    size_t at = slot_of(walk, id);

    if (walk->table[at] || walk->count >= walk->limit)
        return false;
    walk->places = grown(walk->arena, walk->places, walk->count, sizeof(place_t));
    walk->places[walk->count++] = (place_t){.id = id, .depth = depth, .from = from};
    if (by)
        walk->places[walk->count - 1].by = *by;
    walk->table[at] = (uint32_t)walk->count;
    if (walk->count * 2 > walk->capacity)
        widen(walk);
    return true;
}

/* Calls fn for the edges that leave (or, backwards, reach) an id. fn returns false to stop. */
static err_t each_edge(walk_t *walk, const char *id, bool backwards,
                       bool (*fn)(walk_t *walk, const graph_edge_t *edge, void *ctx), void *ctx)
{
    store_scan_t scan;
    store_key_t prefix, place;
    bytes_t key, value, found;
    const char *one, *two, *three;

    key_open(&prefix);
    key_str(&prefix, id);
    if (walk->relation)
        key_str(&prefix, walk->relation);
    err_t err = store_scan_open(&scan, walk->txn, backwards ? TABLE_edges_in : TABLE_edges,
                                key_bytes(&prefix), (bytes_t){0}, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        graph_edge_t edge = {0};
        if (!read_edge_key(key, walk->arena, &one, &two, &three))
            continue;
        edge.relation = two;
        edge.from = backwards ? three : one;
        edge.to = backwards ? one : three;
        if (!err_is(store_get(walk->txn, TABLE_edges,
                              edge_key(&place, edge.from, edge.relation, edge.to), &found)))
            edge.properties =
                (bytes_t){arena_copy(walk->arena, found.data, found.size), found.size};
        if (!fn(walk, &edge, ctx))
            break;
    }
    store_scan_close(&scan);
    return err;
}

typedef struct around {
    graph_part_t *out;
    size_t at, limit;
    bool any;
} around_t;

static bool on_around(walk_t *walk, const graph_edge_t *edge, void *ctx)
{
    around_t *around = ctx;
    const place_t here = walk->places[around->at];
    bool leaves = strcmp(edge->from, here.id) == 0;

    around->any = true;
    if (walk->count >= walk->limit || around->out->edges.count >= around->limit) {
        around->out->more = true;
        return false;
    }
    reach(walk, leaves ? edge->to : edge->from, here.depth + 1, around->at, edge);
    if (!answered(around->out, NULL, edge))
        answer_edge(around->out, walk->arena, edge);
    return true;
}

static err_t answer_places(walk_t *walk, graph_part_t *out, bool *any)
{
    err_t err = err_ok();

    for (size_t i = 0; i < walk->count && !err_is(err); i++) {
        graph_node_t node = {0};
        err = get_node(walk->txn, walk->arena, walk->places[i].id, &node);
        if (!err_is(err)) {
            answer_node(out, walk->arena, &node);
            *any = true;
        } else if (err.code == ERR_NOT_FOUND) {
            err = err_ok();
        }
    }
    return err;
}

err_t graph_around(brain_t *self, call_t *call, const char *company, const char *id, int64_t depth,
                   const char *relation, size_t limit, graph_part_t *out)
{
    walk_t walk = {.arena = call_arena(call), .relation = relation};
    around_t around = {.out = out, .limit = limit * 4};
    err_t err = call_read(call, company, &walk.txn);

    (void)self;
    *out = (graph_part_t){0};
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no such node");
    if (err_is(err))
        return err;
    walk_open(&walk, limit);
    reach(&walk, id, 0, 0, NULL);
    for (; around.at < walk.count && !err_is(err); around.at++) {
        if (walk.places[around.at].depth >= depth)
            break;
        const char *here = walk.places[around.at].id;
        err = each_edge(&walk, here, false, on_around, &around);
        if (!err_is(err))
            err = each_edge(&walk, here, true, on_around, &around);
    }
    bool any = around.any;
    if (!err_is(err))
        err = answer_places(&walk, out, &any);
    if (!err_is(err) && !any)
        return err_of(ERR_NOT_FOUND, "there is no such node");
    return err;
}

typedef struct way {
    size_t at;
    const char *to;
    bool found;
} way_t;

static bool on_way(walk_t *walk, const graph_edge_t *edge, void *ctx)
{
    way_t *way = ctx;

    if (reach(walk, edge->to, walk->places[way->at].depth + 1, way->at, edge))
        way->found = strcmp(edge->to, way->to) == 0;
    return !way->found;
}

static err_t answer_way(walk_t *walk, graph_part_t *out)
{
    walk_t back = {.arena = walk->arena, .txn = walk->txn};
    size_t steps[1024], count = 0;
    bool any = false;

    for (size_t at = walk->count - 1;; at = walk->places[at].from) {
        if (count == sizeof steps / sizeof steps[0])
            return err_of(ERR_INTERNAL, "the way is too long");
        steps[count++] = at;
        if (at == 0)
            break;
    }
    back.places = ARENA_ARRAY(walk->arena, place_t, count);
    while (count--) {
        back.places[back.count++] = walk->places[steps[count]];
        if (steps[count])
            answer_edge(out, walk->arena, &walk->places[steps[count]].by);
    }
    return answer_places(&back, out, &any);
}

err_t graph_way(brain_t *self, call_t *call, const char *company, const char *from, const char *to,
                int64_t depth, graph_part_t *out)
{
    walk_t walk = {.arena = call_arena(call)};
    way_t way = {.to = to, .found = strcmp(from, to) == 0};
    err_t err = call_read(call, company, &walk.txn);

    (void)self;
    *out = (graph_part_t){0};
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    walk_open(&walk, VISITED_MAX);
    reach(&walk, from, 0, 0, NULL);
    for (; way.at < walk.count && !way.found && !err_is(err); way.at++) {
        if (walk.places[way.at].depth >= depth)
            break;
        err = each_edge(&walk, walk.places[way.at].id, false, on_way, &way);
        if (way.found)
            break;
    }
    if (!err_is(err) && way.found)
        return answer_way(&walk, out);
    out->more = walk.count >= walk.limit;
    return err;
}

/* ---- checking ---- */

static err_t check_words(store_txn_t *txn, const indexed_t *row, int64_t *total)
{
    store_key_t key;
    bytes_t value;

    for (size_t i = 0; i < row->count; i++) {
        word_key(&key, row->words[i], row->key);
        if (key.overflow)
            continue;
        if (err_is(store_get(txn, row->table, key_bytes(&key), &value)))
            return err_of(ERR_CORRUPT, "the words index of the graph lacks a row");
        (*total)++;
    }
    return err_ok();
}

static err_t check_nodes(store_txn_t *txn, arena_t *arena, int64_t *words)
{
    store_scan_t scan;
    bytes_t key, value;
    err_t err = store_scan_open(&scan, txn, TABLE_nodes, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        graph_node_t node;
        err = record_decode(&graph_node_record, value, arena, "stored field", &node);
        if (!err_is(err)) {
            indexed_t row = node_words(arena, &node);
            err = check_words(txn, &row, words);
        }
        arena_reset(arena);
    }
    store_scan_close(&scan);
    return err;
}

static err_t check_edges(store_txn_t *txn, arena_t *arena, int64_t *words)
{
    store_scan_t scan;
    store_key_t back;
    bytes_t key, value, there;
    err_t err = store_scan_open(&scan, txn, TABLE_edges, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        graph_edge_t edge;
        err = read_edge(arena, key, value, &edge);
        if (!err_is(err)) {
            indexed_t row = edge_words(arena, &edge, key);
            err = check_words(txn, &row, words);
        }
        if (!err_is(err) &&
            err_is(store_get(txn, TABLE_edges_in,
                             edge_key(&back, edge.to, edge.relation, edge.from), &there)))
            err = err_of(ERR_CORRUPT, "an edge is missing in the reverse index");
        arena_reset(arena);
    }
    store_scan_close(&scan);
    return err;
}

err_t graph_check(brain_t *self, call_t *call, const char *company)
{
    store_txn_t *txn;
    meta_counts_t counts;
    int64_t in_nodes = 0, in_edges = 0;
    err_t err = call_read(call, company, &txn);

    (void)self;
    if (err_is(err))
        return err;
    arena_t *arena = arena_new();
    err = check_nodes(txn, arena, &in_nodes);
    if (!err_is(err))
        err = check_edges(txn, arena, &in_edges);
    if (err_is(err) && err.what)
        err.what = arena_strdup(call_arena(call), err.what);
    arena_destroy(&arena);
    meta_counts(txn, &counts);
    if (!err_is(err) && (store_count(txn, TABLE_nodes) != (int64_t)counts.nodes ||
                         store_count(txn, TABLE_edges) != (int64_t)counts.edges ||
                         store_count(txn, TABLE_edges_in) != (int64_t)counts.edges ||
                         store_count(txn, TABLE_node_words) != in_nodes ||
                         store_count(txn, TABLE_edge_words) != in_edges))
        return err_of(ERR_CORRUPT, "the graph has rows that belong to nothing");
    return err;
}
