/* graph_rows: how the graph lies in the store; what graph (writing), graph_search and graph_walk
 * have in common. Inside the brain only. Texts live in the arena unless said otherwise.
 */
#ifndef ACTORS_BRAIN_GRAPH_ROWS_H
#define ACTORS_BRAIN_GRAPH_ROWS_H

#include "actors/brain/graph.h"

/* The bytes of a text, where they are. */
bytes_t graph_text(const char *text);
/* from, relation, to for table edges; to, relation, from for edges_in. */
bytes_t graph_edge_key(store_key_t *key, const char *one, const char *two, const char *three);
bool graph_read_edge_key(bytes_t key, arena_t *arena, const char **one, const char **two,
                         const char **three);

/* ERR_NOT_FOUND. */
err_t graph_get_node(store_txn_t *txn, arena_t *arena, const char *id, graph_node_t *out);
/* ERR_CORRUPT. */
err_t graph_read_edge(arena_t *arena, bytes_t key, bytes_t value, graph_edge_t *out);

/* What a row is indexed by, and where. */
typedef struct graph_indexed {
    int table;
    bytes_t key;        /* of the row */
    const char **words; /* each once, sorted, not stemmed */
    size_t count;
} graph_indexed_t;

graph_indexed_t graph_node_words(arena_t *arena, const graph_node_t *node);
graph_indexed_t graph_edge_words(arena_t *arena, const graph_edge_t *edge, bytes_t key);
size_t graph_words(arena_t *arena, const char *const *texts, bytes_t properties, const char ***out);
/* key->overflow: the word is not indexed there. */
bytes_t graph_word_key(store_key_t *key, const char *word, bytes_t row);

/* Room for one more item behind `count`. */
void *graph_grown(arena_t *arena, void *items, size_t count, size_t size);
void graph_answer_node(graph_part_t *out, arena_t *arena, const graph_node_t *node);
void graph_answer_edge(graph_part_t *out, arena_t *arena, const graph_edge_t *edge);

#endif
