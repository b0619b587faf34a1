/* transfer: a company's memory as lines of JSON, out and in.
 */
#ifndef ACTORS_BRAIN_TRANSFER_H
#define ACTORS_BRAIN_TRANSFER_H

#include "actors/brain/graph.h"
#include "actors/brain/memory.h"

/* Lines of JSON, one a memory, node or edge, in the order of a cursor; "" begins, NULL: the end. A
 * page ends at `largest` bytes or `limit` lines, but has one line at least. */
err_t transfer_out(brain_t *self, call_t *call, const char *company, const char *cursor,
                   size_t limit, size_t largest, buf_t *lines, const char **next, int64_t *count);

#define import_fault_FIELDS(F)                                                                     \
    F(INT, line, must, 0, 0, "Number of the line in this call, from 1.")                           \
    F(STR, what, must, 0, 0, "What is wrong with it.")
RECORD_STRUCT(import_fault, import_fault_FIELDS)
extern const record_t import_fault_record;

/* Takes lines as transfer_out gives them; what is there under an id is replaced. A line that cannot
 * be read is skipped and reported. Other errors (FULL, QUOTA) end it with nothing imported. */
err_t transfer_in(brain_t *self, call_t *call, const char *company, const char *lines,
                  int64_t *imported, int64_t *refused, import_fault_list_t *faults);

/* A line as it comes in, in the arena. */
typedef struct transfer_line {
    int kind; /* 0 memory, 1 node, 2 edge: which of these is filled in */
    episode_t episode;
    graph_node_t node;
    graph_edge_t edge;
} transfer_line_t;

/* ERR_PARSE, ERR_ARGUMENT. Thread: pure. */
err_t transfer_read_line(arena_t *arena, const char *text, size_t size, transfer_line_t *out);

#endif
