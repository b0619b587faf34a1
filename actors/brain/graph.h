/* graph: facts of a company as nodes and edges between them.
 *
 * A node has an id, a type and properties; an edge is known by from, relation and to and has
 * properties. Adding what is there merges properties: new names are added, known ones replaced,
 * null removes one. An edge may name nodes that are not (yet) there. Deleting a node deletes its
 * edges. Every row costs the same however large the graph is: records by key, edges indexed both
 * ways, and an index over the words of ids, types, relations and properties. Writers run in an
 * entry of the brain; readers may run on reader threads.
 */
#ifndef ACTORS_BRAIN_GRAPH_H
#define ACTORS_BRAIN_GRAPH_H

#include "actors/brain/brain.h"

enum { GRAPH_ID = 150 }; /* bytes of an id or relation: three fit into one key */

#define graph_node_FIELDS(F)                                                                       \
    F(STR, id, must, 1, 150, "Id of the node.")                                                    \
    F(STR, type, opt(), 0, 150, "What kind of thing it is.")                                       \
    F(ANY, properties, opt(), 0, 262144, "Names and values.")
RECORD_STRUCT(graph_node, graph_node_FIELDS)
extern const record_t graph_node_record;

#define graph_edge_FIELDS(F)                                                                       \
    F(STR, from, must, 1, 150, "Id of the node it leaves.")                                        \
    F(STR, to, must, 1, 150, "Id of the node it reaches.")                                         \
    F(STR, relation, must, 1, 150, "What holds between them.")                                     \
    F(ANY, properties, opt(), 0, 262144, "Names and values.")
RECORD_STRUCT(graph_edge, graph_edge_FIELDS)
extern const record_t graph_edge_record;

typedef struct graph_part {
    graph_node_list_t nodes;
    graph_edge_list_t edges;
    bool more;           /* the limit was reached */
    const char *cursor;  /* where the next page begins; NULL: there is none */
    const char *missing; /* graph_way found none: neither a node nor an edge has this id */
} graph_part_t;

/* ERR_ARGUMENT (properties are no object), ERR_QUOTA, ERR_FULL. */
err_t graph_put_node(brain_t *self, call_t *call, const char *company, const graph_node_t *node);
err_t graph_put_edge(brain_t *self, call_t *call, const char *company, const graph_edge_t *edge);
/* ERR_NOT_FOUND. */
err_t graph_del_node(brain_t *self, call_t *call, const char *company, const char *id);
err_t graph_del_edge(brain_t *self, call_t *call, const char *company, const char *from,
                     const char *relation, const char *to);

/* Nodes and edges in whose id, type, relation or properties the text occurs, in any case. Words of
 * the text are looked up by their beginnings; in a graph of at most GRAPH_SCAN rows every row is
 * looked at instead, so that also middles of words are found. "" finds all. A page has at most
 * `limit` of both together; `cursor` NULL begins. What is not
 * changed meanwhile is found once. In graph_search.c. ERR_ARGUMENT: such a text needs a word, a
 * cursor of something else.
 */
enum { GRAPH_SCAN = 20000 };
err_t graph_query(brain_t *self, call_t *call, const char *company, const char *text, size_t limit,
                  const char *cursor, graph_part_t *out);

/* What lies within `depth` steps of a node, by edges of one relation or any (NULL), both ways;
 * nodes as they are reached, then edges, `limit` of both together; the next page walks again. In
 * graph_walk.c. ERR_NOT_FOUND when neither a node nor an edge has that id. */
err_t graph_around(brain_t *self, call_t *call, const char *company, const char *id, int64_t depth,
                   const char *relation, size_t limit, const char *cursor, graph_part_t *out);

/* A shortest way along edges in their direction; no nodes when there is none within `depth` steps.
 */
err_t graph_way(brain_t *self, call_t *call, const char *company, const char *from, const char *to,
                int64_t depth, graph_part_t *out);

/* Do edges, their reverse index, words and counts agree? ERR_CORRUPT. */
err_t graph_check(brain_t *self, call_t *call, const char *company);

#endif
