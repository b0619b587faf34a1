/* care: looking after a company's memory: proving it, repairing it, moving it, forgetting it.
 *
 * What can take long goes a slice at a time: each call does a little in a transaction of its own
 * and says whether there is more. Between slices everything is consistent, other calls are served,
 * and a crash loses nothing but the place, which is stored (rebuild) or found again (the rest).
 */
#ifndef ACTORS_BRAIN_CARE_H
#define ACTORS_BRAIN_CARE_H

#include "actors/brain/memory.h"

/* Do episodes, ids, heads, threads, words and vectors agree? Reads everything; may run on a reader
 * thread. ERR_CORRUPT says where not; ERR_NOT_FOUND: there is nothing. */
err_t care_check(brain_t *self, call_t *call, const char *company);

/* Makes words, heads, ids, threads and missing vectors anew from the episodes, in a new generation
 * of the words index that is switched to at the end. Goes on where an earlier one stopped. */
err_t care_rebuild(brain_t *self, call_t *call, const char *company, bool *more, int64_t *done);

/* Deletes rows that nothing leads to any more. `place` starts zeroed and lives as long as the run.
 */
typedef struct care_place {
    int step;
    store_key_t from;
    int64_t deleted;
} care_place_t;
err_t care_vacuum(brain_t *self, call_t *call, const char *company, care_place_t *place,
                  bool *more);

/* Which memories to forget; all conditions must hold. */
typedef struct care_wish {
    const char *type;
    bool has_since, has_until, everything; /* everything: all memories and the graph */
    int64_t since, until;
    bytes_t filter;
} care_wish_t;
err_t care_forget(brain_t *self, call_t *call, const char *company, const care_wish_t *wish,
                  uint64_t *from, int64_t *deleted, bool *more);

/* Lines of JSON, one a memory, node or edge, in the order of a cursor; "" begins, NULL: the end. A
 * page ends at `largest` bytes or `limit` lines, but has one line at least. */
err_t care_export(brain_t *self, call_t *call, const char *company, const char *cursor,
                  size_t limit, size_t largest, buf_t *lines, const char **next, int64_t *count);

#define import_fault_FIELDS(F)                                                                     \
    F(INT, line, must, 0, 0, "Number of the line in this call, from 1.")                           \
    F(STR, what, must, 0, 0, "What is wrong with it.")
RECORD_STRUCT(import_fault, import_fault_FIELDS)
extern const record_t import_fault_record;

/* Takes lines as care_export gives them; what is there under an id is replaced. A line that cannot
 * be read is skipped and reported. Other errors (FULL, QUOTA) end it with nothing imported. */
err_t care_import(brain_t *self, call_t *call, const char *company, const char *lines,
                  int64_t *imported, import_fault_list_t *faults);

#endif
