/* tokens: who may come in. A file of lines
 *
 *     sha256:<64 hex digits> companies=acme,beta role=operator name=ci
 *
 * holds only digests of the bearer tokens, so that reading it lets nobody in. `companies=*` means
 * any. # begins a comment. The file is read again when it changes. Thread: one owner. */
#ifndef ACTORS_GATEWAY_TOKENS_H
#define ACTORS_GATEWAY_TOKENS_H

#include "proto/frame.h"

typedef struct tokens tokens_t;

typedef struct principal {
    const char *name;
    role_t role;
    strs_t companies;
    bool any_company;
} principal_t;

/* ERR_ARGUMENT names file, line and what is wrong. */
err_t tokens_open(const char *path, arena_t *arena, tokens_t **out);
void tokens_close(tokens_t **tokens);
/* The holder of a token, or NULL. Lives until the next call. Takes as long for every token. */
const principal_t *tokens_find(tokens_t *tokens, const char *token);

#endif
