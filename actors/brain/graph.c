#include "actors/brain/graph.h"

#include <stdlib.h>
#include <string.h>

#include "actors/brain/graph_rows.h"
#include "actors/brain/meta.h"
#include "actors/brain/words.h"
#include "proto/mp.h"

RECORD_DEFINE(graph_node, graph_node_FIELDS)
RECORD_DEFINE(graph_edge, graph_edge_FIELDS)

enum { WORDS_PER_ROW = 256 };

/* ---- keys ---- */

bytes_t graph_text(const char *text)
{
    return (bytes_t){(const uint8_t *)text, strlen(text)};
}

bytes_t graph_edge_key(store_key_t *key, const char *one, const char *two, const char *three)
{
    key_open(key);
    key_str(key, one);
    key_str(key, two);
    key_raw(key, three, strlen(three));
    return key_bytes(key);
}

bool graph_read_edge_key(bytes_t key, arena_t *arena, const char **one, const char **two,
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
size_t graph_words(arena_t *arena, const char *const *texts, bytes_t properties, const char ***out)
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

bytes_t graph_word_key(store_key_t *key, const char *word, bytes_t row)
{
    key_open(key);
    key_str(key, word);
    key_raw(key, row.data, row.size);
    return key_bytes(key);
}

/* Writes the words that are new and takes away those that are no more. Both lists are sorted. */
static err_t change_words(store_txn_t *txn, const graph_indexed_t *old,
                          const graph_indexed_t *fresh)
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
            err = store_del(txn, old->table, graph_word_key(&key, old->words[i++], old->key));
            if (err.code == ERR_NOT_FOUND)
                err = err_ok();
        } else {
            bytes_t place = graph_word_key(&key, fresh->words[j++], fresh->key);
            if (!key.overflow)
                err = store_put(txn, fresh->table, place, (bytes_t){NULL, 0});
        }
    }
    return err;
}

graph_indexed_t graph_node_words(arena_t *arena, const graph_node_t *node)
{
    const char *texts[] = {node->id, node->type ? node->type : "", NULL};
    graph_indexed_t out = {.table = TABLE_node_words, .key = graph_text(node->id)};

    out.count = graph_words(arena, texts, node->properties, &out.words);
    return out;
}

graph_indexed_t graph_edge_words(arena_t *arena, const graph_edge_t *edge, bytes_t key)
{
    const char *texts[] = {edge->from, edge->relation, edge->to, NULL};
    graph_indexed_t out = {.table = TABLE_edge_words, .key = key};

    out.count = graph_words(arena, texts, edge->properties, &out.words);
    return out;
}

/* ---- rows ---- */

err_t graph_get_node(store_txn_t *txn, arena_t *arena, const char *id, graph_node_t *out)
{
    bytes_t value;
    err_t err = store_get(txn, TABLE_nodes, graph_text(id), &value);

    if (err_is(err))
        return err;
    value.data = arena_copy(arena, value.data, value.size);
    return record_decode(&graph_node_record, value, arena, "stored field", out);
}

err_t graph_read_edge(arena_t *arena, bytes_t key, bytes_t value, graph_edge_t *out)
{
    *out = (graph_edge_t){0};
    if (!graph_read_edge_key(key, arena, &out->from, &out->relation, &out->to))
        return err_of(ERR_CORRUPT, "an edge has a bad key");
    out->properties = (bytes_t){arena_copy(arena, value.data, value.size), value.size};
    return err_ok();
}

static err_t check_quota(brain_t *self, call_t *call, const meta_counts_t *counts)
{
    if (counts->nodes + counts->edges < (uint64_t)self->settings->nodes_max)
        return err_ok();
    return err_make(
        call_arena(call), ERR_QUOTA,
        "the graph of this company is full (brain.nodes_max = %lld): delete nodes or edges, "
        "or raise the setting",
        (long long)self->settings->nodes_max);
}

err_t graph_put_node(brain_t *self, call_t *call, const char *company, const graph_node_t *node)
{
    store_txn_t *txn;
    arena_t *arena = call_arena(call);
    graph_node_t old = {0}, fresh = *node;
    graph_indexed_t old_words = {0};
    meta_counts_t counts;
    err_t err = check_properties(arena, node->properties);

    if (!err_is(err))
        err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    err = graph_get_node(txn, arena, node->id, &old);
    bool there = !err_is(err);
    if (there)
        old_words = graph_node_words(arena, &old);
    else if (err.code != ERR_NOT_FOUND)
        return err;
    if (!fresh.type)
        fresh.type = old.type;
    fresh.properties = merged(arena, old.properties, node->properties);
    meta_counts(txn, &counts);
    err = there ? err_ok() : check_quota(self, call, &counts);
    if (err_is(err))
        return err;
    graph_indexed_t fresh_words = graph_node_words(arena, &fresh);
    buf_t out;
    buf_open(&out, arena);
    record_encode(&graph_node_record, &fresh, &out);
    err = store_put(txn, TABLE_nodes, graph_text(node->id), buf_bytes(&out));
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
    graph_indexed_t old_words = {0};
    meta_counts_t counts;
    graph_edge_t old = {0}, fresh = *edge;
    err_t err = check_properties(arena, edge->properties);

    if (!err_is(err))
        err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    graph_edge_key(&key, edge->from, edge->relation, edge->to);
    err = store_get(txn, TABLE_edges, key_bytes(&key), &value);
    bool there = !err_is(err);
    if (there) {
        err = graph_read_edge(arena, key_bytes(&key), value, &old);
        old_words = graph_edge_words(arena, &old, key_bytes(&key));
    } else if (err.code == ERR_NOT_FOUND) {
        meta_counts(txn, &counts);
        err = check_quota(self, call, &counts);
    }
    if (err_is(err))
        return err;
    fresh.properties = merged(arena, old.properties, edge->properties);
    graph_indexed_t fresh_words = graph_edge_words(arena, &fresh, key_bytes(&key));
    err = store_put(txn, TABLE_edges, key_bytes(&key), fresh.properties);
    if (!err_is(err))
        err = store_put(txn, TABLE_edges_in,
                        graph_edge_key(&back, edge->to, edge->relation, edge->from),
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
    graph_indexed_t none = {0};

    graph_edge_key(&key, from, relation, to);
    err_t err = store_get(txn, TABLE_edges, key_bytes(&key), &value);
    if (!err_is(err))
        err = graph_read_edge(arena, key_bytes(&key), value, &edge);
    if (err_is(err))
        return err;
    graph_indexed_t words = graph_edge_words(arena, &edge, key_bytes(&key));
    err = store_del(txn, TABLE_edges, key_bytes(&key));
    if (!err_is(err))
        err = store_del(txn, TABLE_edges_in, graph_edge_key(&back, to, relation, from));
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
        if (graph_read_edge_key(keys[i], arena, &one, &two, &three))
            err = del_edge(txn, arena, one, two, three, counts);
    if (!err_is(err))
        err = keys_of(txn, arena, TABLE_edges_in, id, &keys, &count);
    for (size_t i = 0; i < count && !err_is(err); i++)
        if (graph_read_edge_key(keys[i], arena, &one, &two, &three))
            err = del_edge(txn, arena, three, two, one, counts);
    return err;
}

err_t graph_del_node(brain_t *self, call_t *call, const char *company, const char *id)
{
    store_txn_t *txn;
    meta_counts_t counts;
    graph_node_t node;
    graph_indexed_t none = {0};
    arena_t *arena = call_arena(call);
    err_t err = begin_delete(call, company, &txn, &counts);

    (void)self;
    if (!err_is(err))
        err = graph_get_node(txn, arena, id, &node);
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no such node");
    if (err_is(err))
        return err;
    graph_indexed_t words = graph_node_words(arena, &node);
    err = store_del(txn, TABLE_nodes, graph_text(id));
    if (!err_is(err))
        err = change_words(txn, &words, &none);
    if (!err_is(err))
        err = del_edges_of(txn, arena, id, &counts);
    counts.nodes--;
    return err_is(err) ? err : meta_put_counts(txn, &counts);
}

/* ---- answers ---- */

void *graph_grown(arena_t *arena, void *items, size_t count, size_t size)
{
    if (count && (count < 8 || (count & (count - 1))))
        return items;
    void *more = arena_alloc(arena, (count ? count * 2 : 8) * size);
    if (count)
        memcpy(more, items, count * size);
    return more;
}

void graph_answer_node(graph_part_t *out, arena_t *arena, const graph_node_t *node)
{
    out->nodes.items = graph_grown(arena, out->nodes.items, out->nodes.count, sizeof *node);
    out->nodes.items[out->nodes.count++] = *node;
}

void graph_answer_edge(graph_part_t *out, arena_t *arena, const graph_edge_t *edge)
{
    out->edges.items = graph_grown(arena, out->edges.items, out->edges.count, sizeof *edge);
    out->edges.items[out->edges.count++] = *edge;
}

/* ---- checking ---- */

static err_t check_words(store_txn_t *txn, const graph_indexed_t *row, int64_t *total)
{
    store_key_t key;
    bytes_t value;

    for (size_t i = 0; i < row->count; i++) {
        graph_word_key(&key, row->words[i], row->key);
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
            graph_indexed_t row = graph_node_words(arena, &node);
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
        err = graph_read_edge(arena, key, value, &edge);
        if (!err_is(err)) {
            graph_indexed_t row = graph_edge_words(arena, &edge, key);
            err = check_words(txn, &row, words);
        }
        if (!err_is(err) &&
            err_is(store_get(txn, TABLE_edges_in,
                             graph_edge_key(&back, edge.to, edge.relation, edge.from), &there)))
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
