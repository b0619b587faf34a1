/* general: from what was given in several runs to one text with references that gives each of them.
 *
 * What is the same in all runs stays as it is. What differs must be, in every run, the value of the
 * same source (the input, an earlier result, a field of one), or a text that holds such values at
 * the same places; otherwise nobody can tell where it came from, and nothing is found.
 * Values are msgpack. Everything lives in the given arena. Thread: pure. */
#ifndef AGENT_GENERAL_H
#define AGENT_GENERAL_H

#include "proto/arena.h"
#include "proto/err.h"

typedef struct sources sources_t;

/* `runs` is how many values each list below has. */
sources_t *general_open(arena_t *arena, size_t runs);
/* What {{ref}} stood for in each run, with its fields. Not there in every run: not a source. */
void general_add(sources_t *sources, const char *ref, const bytes_t *values);
/* Appends JSON with references in its texts. False: *where says which part has no source. */
bool general_find(sources_t *sources, const bytes_t *values, buf_t *json, const char **where);

#endif
