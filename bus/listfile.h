/* listfile: a list of records that users write as JSON into a file, e.g. rules. It is read again
 * when it changes; a file that is wrong is refused with its line, and the list before it stays.
 *
 *     [{...}, {...}]   or   {"rules": [{...}, {...}]}
 *
 * Thread: one owner. listfile_parse is pure. */
#ifndef BUS_LISTFILE_H
#define BUS_LISTFILE_H

#include "proto/record.h"

typedef struct listfile_kind {
    const record_t *record;
    size_t most;
    /* What the rows cannot say; NULL: nothing. ERR_ARGUMENT. */
    err_t (*check)(const void *item, arena_t *arena);
} listfile_kind_t;

/* ERR_PARSE, ERR_ARGUMENT: "line 3: rule 2: …". The items live in `arena`. */
err_t listfile_parse(const listfile_kind_t *kind, const char *text, size_t size, arena_t *arena,
                     record_list_t *out);

typedef struct listfile listfile_t;

/* `kind` must outlive it. */
listfile_t *listfile_new(const listfile_kind_t *kind, const char *path);
void listfile_destroy(listfile_t **file);
/* True: there is a list that the last look did not see; it lives in *arena, which is the caller's
 * to destroy. The first look at a file that is not there, and the first after it went away, find an
 * empty list. */
bool listfile_look(listfile_t *file, arena_t **arena, record_list_t *out);
/* The caller cannot take the list it was given; shown until the file changes. */
void listfile_refuse(listfile_t *file, const char *why);
/* What is wrong with the file as it is, with its path; NULL: nothing. */
const char *listfile_error(const listfile_t *file);

#endif
