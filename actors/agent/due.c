#include "actors/agent/due.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 16 };

void due_free(due_table_t *table)
{
    free(table->slots);
    *table = (due_table_t){0};
}

/* The slot of that quarter, or the free one where it would be. */
static due_slot_t *slot_of(const due_table_t *table, int64_t quarter)
{
    size_t at = (size_t)(((uint64_t)quarter * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
    for (;; at++) {
        due_slot_t *slot = &table->slots[at & (table->capacity - 1)];
        if (!slot->quarter || slot->quarter == quarter)
            return slot;
    }
}

/* Into a table with room for twice what still counts; quarters that are over are left behind. */
static void rebuild(due_table_t *table)
{
    size_t counting = 0;
    for (size_t i = 0; i < table->capacity; i++)
        counting += table->slots[i].count != 0;
    due_table_t fresh = {.capacity = FIRST_CAPACITY};
    while (fresh.capacity < counting * 4)
        fresh.capacity *= 2;
    if (!(fresh.slots = calloc(fresh.capacity, sizeof(due_slot_t))))
        abort();
    for (size_t i = 0; i < table->capacity; i++) {
        if (!table->slots[i].count)
            continue;
        *slot_of(&fresh, table->slots[i].quarter) = table->slots[i];
        fresh.used++;
    }
    free(table->slots);
    *table = fresh;
}

/* 0 marks a free slot. */
static int64_t quarter_of(int64_t at_ms)
{
    return at_ms >= DUE_GRAIN_MS ? at_ms / DUE_GRAIN_MS : 1;
}

void due_add(due_table_t *table, int64_t at_ms, int64_t by)
{
    if ((table->used + 1) * 2 > table->capacity)
        rebuild(table);
    due_slot_t *slot = slot_of(table, quarter_of(at_ms));
    if (!slot->quarter) {
        slot->quarter = quarter_of(at_ms);
        table->used++;
    }
    slot->count += by;
}

int64_t due_count(const due_table_t *table, int64_t from_ms, int64_t until_ms)
{
    int64_t first = quarter_of(from_ms), end = until_ms / DUE_GRAIN_MS, sum = 0;
    if (!table->used || end <= first)
        return 0;
    if (end - first < (int64_t)table->capacity) {
        for (int64_t at = first; at < end; at++)
            sum += slot_of(table, at)->count;
        return sum;
    }
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].quarter >= first && table->slots[i].quarter < end)
            sum += table->slots[i].count;
    return sum;
}
