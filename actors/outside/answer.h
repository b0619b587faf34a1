/* answer: what foreign servers send, read with care: lines, server-sent events, JSON-RPC, tools.
 * Nothing here trusts a byte; what is too large or broken is an error of that part alone.
 * Thread: pure. */
#ifndef ACTORS_OUTSIDE_ANSWER_H
#define ACTORS_OUTSIDE_ANSWER_H

#include <stdbool.h>

#include "proto/arena.h"
#include "proto/err.h"

/* ---- Lines, as they come in parts ---- */

typedef struct lines lines_t;
typedef void line_fn_t(void *ctx, const char *line, size_t size);

/* No line may be longer than `largest`. */
lines_t *lines_new(size_t largest);
void lines_destroy(lines_t **lines);
/* fn for each line that is complete, without its end (\n, \r\n or \r). False: one is too long; what
 * follows makes no sense. */
bool lines_feed(lines_t *lines, bytes_t part, line_fn_t *fn, void *ctx);

/* ---- Server-sent events ---- */

typedef struct events events_t;
typedef struct event_seen {
    const char *data; /* NULL: an event without data */
    size_t size;
    const char *id;   /* the latest one, "" when there was none */
    int64_t retry_ms; /* -1: never said */
} event_seen_t;
typedef void event_fn_t(void *ctx, const event_seen_t *event);

events_t *events_new(size_t largest);
void events_destroy(events_t **events);
/* False: an event is larger than `largest`. */
bool events_feed(events_t *events, bytes_t part, event_fn_t *fn, void *ctx);

/* ---- JSON-RPC ---- */

typedef enum answer_kind {
    ANSWER_RESULT,
    ANSWER_ERROR,
    ANSWER_REQUEST, /* the server asks something */
    ANSWER_NOTE
} answer_kind_t;

typedef struct answer {
    answer_kind_t kind;
    int64_t id;         /* of our request; -1: none that we could have given */
    bytes_t raw_id;     /* of its request, msgpack */
    const char *method; /* REQUEST, NOTE */
    bytes_t params, result;
    int64_t code;        /* ERROR */
    const char *message; /* ERROR; text, at most a few hundred bytes */
} answer_t;

/* One message from msgpack. ERR_PARSE says what is wrong. */
err_t answer_read(arena_t *arena, bytes_t value, answer_t *out);

/* The id that a message which cannot be read says at its top, when it is one that we could have
 * given; else -1. */
int64_t answer_id(const char *json, size_t size);

/* ---- Tools ---- */

enum { TOOL_NAME_LONGEST = 128, TOOL_SCHEMA_LARGEST = 64 << 10, TOOL_DOC_LONGEST = 4096 };

typedef struct tool_header {
    const char *name;        /* of the header, without Mcp-Param- */
    const char *const *path; /* through the arguments, NULL-terminated */
} tool_header_t;

typedef struct foreign_tool {
    const char *name, *doc;
    bytes_t input;       /* JSON Schema as msgpack */
    bool reads;          /* annotations.readOnlyHint */
    bool repeatable;     /* readOnlyHint or idempotentHint: a second time does no harm */
    const char *problem; /* NULL: none; else why it cannot be called */
    const tool_header_t *headers;
    size_t header_count;
} foreign_tool_t;

/* One item of tools/list. False: not even a name can be told. */
bool answer_tool(arena_t *arena, bytes_t item, foreign_tool_t *out);

/* The result of tools/call as a step sees it: structuredContent, or {text, content}. `*error` is
 * set when the tool says that it failed. ERR_PARSE: it is no such result. */
err_t answer_value(arena_t *arena, bytes_t result, bytes_t *value, const char **error);

/* A header's value for an argument; NULL: the argument is absent or null. What does not fit into a
 * header is written as =?base64?…?=. */
const char *answer_header(arena_t *arena, const tool_header_t *header, bytes_t arguments);
const char *answer_header_text(arena_t *arena, const char *text);

#endif
