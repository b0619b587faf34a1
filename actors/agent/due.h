/* due: how many tasks of a company become due before a given time, without looking into the store.
 * A hash table of counts, one for each quarter of a second in which something is due.
 * Memory: 16 bytes for each such quarter. Thread: the agent's. */
#ifndef ACTORS_AGENT_DUE_H
#define ACTORS_AGENT_DUE_H

#include <stddef.h>
#include <stdint.h>

typedef struct due_slot {
    int64_t quarter; /* ms / DUE_GRAIN_MS; 0: the slot is free */
    int64_t count;   /* 0: nothing is due then any more */
} due_slot_t;

enum { DUE_GRAIN_MS = 250 };

/* Starts zeroed. */
typedef struct due_table {
    due_slot_t *slots;
    size_t capacity, used;
} due_table_t;

void due_free(due_table_t *table);
/* One more (1) or one less (-1) is due at that time. */
void due_add(due_table_t *table, int64_t at_ms, int64_t by);
/* Due from `from_ms` (its quarter included) up to `until_ms`, in quarters that end by then. Looks
 * at each quarter between the two or at the whole table, whichever is less. */
int64_t due_count(const due_table_t *table, int64_t from_ms, int64_t until_ms);

#endif
