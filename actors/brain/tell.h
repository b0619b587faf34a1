/* tell: memories as text, for people and for models that see no more than that. Thread: any. */
#ifndef ACTORS_BRAIN_TELL_H
#define ACTORS_BRAIN_TELL_H

#include "actors/brain/memory.h"

/* Blocks with a blank line, --- and a blank line between them; NULL when there are none. A block
 * begins with the five lines that clients of the old system read; what else is known of the memory
 * follows, a line each, and why it was found if it has an explanation. In the arena. */
const char *tell_blocks(arena_t *arena, const memory_list_t *memories);

/* A list of rows as JSON, with the names of the old system and ours. In the arena. */
const char *tell_rows(arena_t *arena, const memory_list_t *memories);

#endif
