/* span: a piece of a text that somebody else keeps. Nothing is copied but by span_copy; a span
 * lives as long as its text, and no zero need follow it. Thread: pure. */
#ifndef AGENT_SPAN_H
#define AGENT_SPAN_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/arena.h"

typedef struct span {
    const char *text;
    size_t size;
} span_t;

span_t span_of(const char *text);

/* Without the white space at both ends. */
span_t span_trim(span_t span);

/* Without its first `count` bytes, which it must have. */
span_t span_skip(span_t span, size_t count);

/* The part before the first `stop`; `rest` goes on behind it, and is empty when there was none. */
span_t span_split(span_t *rest, char stop);

/* The first run of bytes that are not white space; `rest` goes on behind it. */
span_t span_word(span_t *rest);

bool span_is(span_t span, const char *text);

/* As a string of its own, in the arena. */
char *span_copy(arena_t *arena, span_t span);

#endif
