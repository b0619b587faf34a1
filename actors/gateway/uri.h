/* uri: addresses of what pillars keep: agency://<kind>/<id>?company=<name>. Thread: pure. */
#ifndef ACTORS_GATEWAY_URI_H
#define ACTORS_GATEWAY_URI_H

#include <stdbool.h>

#include "proto/arena.h"

#define URI_SCHEME "agency://"

typedef struct uri {
    const char *kind;
    const char *id;      /* decoded */
    const char *company; /* NULL: not named */
} uri_t;

/* False: it is no such address. Texts live in the arena. */
bool uri_read(arena_t *arena, const char *text, uri_t *out);
/* The kind of a template such as agency://memory/{id}{?company}, or of an address; NULL: neither.
 */
const char *uri_kind(arena_t *arena, const char *text);
/* Writes one; company NULL: not named. */
void uri_put(buf_t *out, const char *kind, const char *id, const char *company);

#endif
