/* import_read: the files of an `.agent` folder of the earlier system, as calls of tools.
 *
 * Each function reads the bytes of one file. What it understands becomes an item: the arguments of
 * a tool, with an id that depends on the content alone, so that a second import finds it again.
 * What it does not understand becomes a problem with its place. Nothing is dropped in silence,
 * except vectors and distances, which are computed anew. Everything lives in the given arena.
 * Thread: pure.
 */
#ifndef ACTORS_CLI_IMPORT_READ_H
#define ACTORS_CLI_IMPORT_READ_H

#include "proto/arena.h"
#include "proto/err.h"

typedef enum import_kind {
    IMPORT_MEMORY,
    IMPORT_NODE,
    IMPORT_EDGE,
    IMPORT_PROPOSAL,
    IMPORT_KINDS
} import_kind_t;

typedef struct import_item {
    import_kind_t kind;
    const char *id;    /* memory, proposal: the id of its memory; else NULL */
    const char *where; /* "line 7", "nodes[3]" */
    bytes_t args;      /* msgpack map for brain_store or brain_update_graph */
    /* Of a proposal that nobody has decided on: the tool that makes it anew, and its arguments. */
    const char *tool;
    bytes_t propose;
} import_item_t;

typedef struct import_problem {
    const char *where; /* "" when it is the whole file */
    const char *why;
} import_problem_t;

typedef struct import_read {
    arena_t *arena;
    const char *company; /* whose file it is by its path; NULL: nobody's in particular */
    buf_t items, problems;
    size_t item_count, problem_count;
} import_read_t;

void import_read_open(import_read_t *read, arena_t *arena, const char *company);
const import_item_t *import_items(const import_read_t *read);
const import_problem_t *import_problems(const import_read_t *read);

/* graph.json: {nodes, edges}; nodes come first. */
void import_graph(import_read_t *read, const char *text, size_t size);
/* Memories: a list, an object with a list `episodes` or `memories`, or one object. */
void import_memories(import_read_t *read, const char *text, size_t size);
/* Memories, one JSON object a line. */
void import_memory_lines(import_read_t *read, const char *text, size_t size);
/* ghost_logs/…json: how a background task went. */
void import_ghost_log(import_read_t *read, const char *text, size_t size);
/* hr/proposals/…json and hr_proposals/…json. Each becomes a memory; a pending or approved one is
 * proposed anew, since nobody can tell who approved it. */
void import_proposal(import_read_t *read, const char *text, size_t size);
/* metrics/…ndjson: appends the sound lines to `out` as they are and returns how many. */
size_t import_metric_lines(import_read_t *read, const char *text, size_t size, buf_t *out);

#endif
