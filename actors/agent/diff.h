/* diff: what differs between two texts as a unified diff, and applying one. Thread: pure. */
#ifndef AGENT_DIFF_H
#define AGENT_DIFF_H

#include "proto/arena.h"
#include "proto/err.h"

/* "" when they are the same. `from`, `to` name the texts in the head of the diff. */
const char *diff_make(arena_t *arena, const char *before, const char *after, const char *from,
                      const char *to);

/* One file of a patch. */
typedef struct diff_file {
    const char *path;  /* without a/ and b/ */
    const char *hunks; /* from the first @@ on */
} diff_file_t;
/* ERR_ARGUMENT: it is no unified diff, or of more than `most` files. */
err_t diff_split(arena_t *arena, const char *patch, diff_file_t *files, size_t most, size_t *count);

/* All hunks must fit exactly, though a hunk may have moved. ERR_ARGUMENT says which line does not.
 */
err_t diff_apply(arena_t *arena, const char *base, const char *hunks, const char **out);

#endif
