/* err: one error value from the store to the wire to JSON.
 *
 * An err_t is returned by value. `what` says what happened and what to change; it is either a
 * string literal or lives in the arena given to err_make, so it is valid as long as that arena.
 * NULL means: the doc sentence of the code says it all.
 *
 * ERR_ROWS is the only list of errors. Columns: name, JSON-RPC code (0: a tool error, that is a
 * result with isError), HTTP status, may the caller retry the same call later, doc sentence.
 * Thread: pure, any thread.
 */
#ifndef PROTO_ERR_H
#define PROTO_ERR_H

#include <stdbool.h>

#include "proto/arena.h"

#define ERR_ROWS(E)                                                                                \
    E(OK, 0, 200, false, "Success.")                                                               \
    E(ARGUMENT, -32602, 400, false,                                                                \
      "An argument is missing, unknown, of the wrong type or out of range.")                       \
    E(PARSE, -32700, 400, false, "The bytes are not what they claim to be.")                       \
    E(METHOD, -32601, 404, false, "There is no such method or tool.")                              \
    E(NOT_FOUND, 0, 404, false, "There is nothing under that name or id.")                         \
    E(EXISTS, 0, 409, false, "Something with that name or id exists already.")                     \
    E(STATE, 0, 409, false, "The thing is not in a state that allows this.")                       \
    E(FENCED, 0, 409, false, "The lease is lost: another worker holds a newer fence.")             \
    E(COMPANY, 0, 403, false, "The company is missing, badly named or not yours.")                 \
    E(UNAUTHENTICATED, 0, 401, false, "The bearer token is missing or unknown.")                   \
    E(FORBIDDEN, 0, 403, false, "Your role does not allow this.")                                  \
    E(TOO_LARGE, 0, 413, false, "The input or the answer is larger than the limit.")               \
    E(QUOTA, 0, 429, false, "A quota is used up.")                                                 \
    E(BUSY, 0, 503, true, "The inbox is full: try again shortly.")                                 \
    E(UNAVAILABLE, 0, 503, true, "The peer cannot be reached or is starting.")                     \
    E(DRAINING, 0, 503, true, "The process is draining and takes no new work.")                    \
    E(TIMEOUT, 0, 504, true, "The deadline passed before an answer came.")                         \
    E(CANCELLED, 0, 499, false, "The caller went away or cancelled.")                              \
    E(FULL, 0, 507, true, "The disk or the map is full.")                                          \
    E(IO, 0, 500, true, "Reading or writing failed.")                                              \
    E(OWNED, 0, 500, false, "Another process owns this directory.")                                \
    E(VERSION, 0, 500, false, "The data or the peer is of a version that is not understood.")      \
    E(CORRUPT, 0, 500, false, "Stored data failed its check.")                                     \
    E(INTERNAL, -32603, 500, false, "A defect in the program.")                                    \
    E(PARKED, 0, 500, false, "Not an error: the call will be answered later.")

typedef enum err_code {
#define ERR_ENUM(name, rpc, http, retry, doc) ERR_##name,
    ERR_ROWS(ERR_ENUM)
#undef ERR_ENUM
        ERR_COUNT
} err_code_t;

typedef struct err {
    err_code_t code;
    const char *what;
} err_t;

typedef struct err_info {
    const char *name; /* "NOT_FOUND" */
    int rpc_code;     /* 0: report as a tool result with isError */
    int http_status;
    bool retry;
    const char *doc;
} err_info_t;

/* The success value. */
static inline err_t err_ok(void)
{
    return (err_t){ERR_OK, 0};
}

static inline bool err_is(err_t err)
{
    return err.code != ERR_OK;
}

/* An error without a sentence of its own, or with a literal. */
static inline err_t err_of(err_code_t code, const char *what)
{
    return (err_t){code, what};
}

/* An error whose sentence is printed into the arena. */
err_t err_make(arena_t *arena, err_code_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The row of a code; a code out of range gives the row of INTERNAL. Never NULL. */
const err_info_t *err_info(err_code_t code);

/* The sentence for people: `what`, or the doc sentence. Never NULL. */
const char *err_what(err_t err);

/* The code with that name, or ERR_INTERNAL. */
err_code_t err_by_name(const char *name);

#endif
