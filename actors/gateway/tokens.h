/* tokens: who may come in. A file of lines
 *
 *     sha256:<64 hex digits> companies=acme,beta role=operator name=ci
 *
 * holds only digests of the bearer tokens, so that reading it lets nobody in. `companies=*` means
 * any; toolsets=brain,health offers the tools of these pillars only. # begins a comment. The file
 * is read again when it changes. Thread: one owner. */
#ifndef ACTORS_GATEWAY_TOKENS_H
#define ACTORS_GATEWAY_TOKENS_H

#include "proto/frame.h"

typedef struct tokens tokens_t;

/* Whoever asks. */
typedef struct principal {
    const char *name;
    role_t role;
    strs_t companies;
    bool any_company;
    bool has_toolsets; /* only these pillars are offered */
    strs_t toolsets;
    const char *digest; /* of the token in the file; NULL: it came by another way */
    int64_t expires_ms; /* wall clock; 0: never */
} principal_t;

principal_t principal_copy(arena_t *arena, const principal_t *principal);
bool principal_may(const principal_t *principal, const char *company);

/* `pillars`: what toolsets= may name; they outlive the tokens. ERR_ARGUMENT names file, line and
 * what is wrong. */
err_t tokens_open(const char *path, const char *const *pillars, size_t pillar_count, arena_t *arena,
                  tokens_t **out);
void tokens_close(tokens_t **tokens);
/* The holder of a token, or NULL. Lives until the next call. Takes as long for every token. */
const principal_t *tokens_find(tokens_t *tokens, const char *token);
/* Another number when the file was read again since. */
uint64_t tokens_version(tokens_t *tokens);
/* Is the line by which this one came in still there, and grants it the same? */
bool tokens_stand(const tokens_t *tokens, const principal_t *principal);
/* What is wrong with the file as it is now: once for each trouble, else NULL. Lives until the next
 * call. */
const char *tokens_trouble(tokens_t *tokens);

#endif
