/* top: the k best of many, in a heap of k.
 *
 * Order: higher score first, then the larger (newer) id, so that results never depend on the order
 * in which they were offered. NaN scores are refused. Thread: one owner.
 */
#ifndef ACTORS_BRAIN_TOP_H
#define ACTORS_BRAIN_TOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"

typedef struct top_hit {
    uint64_t id;
    float score;
} top_hit_t;

typedef struct top {
    top_hit_t *heap; /* worst at [0] once count == k */
    size_t count, k;
} top_t;

/* k may be 0: nothing is kept. Memory for k hits is taken from the arena at once. */
void top_open(top_t *top, arena_t *arena, size_t k);

/* Offers one hit; for the hot path. */
static inline bool top_better(top_hit_t a, top_hit_t b)
{
    return a.score > b.score || (a.score == b.score && a.id > b.id);
}

void top_put(top_t *top, top_hit_t hit);

static inline void top_offer(top_t *top, uint64_t id, float score)
{
    top_hit_t hit = {id, score};

    if (score == score && (top->count < top->k || (top->k && top_better(hit, top->heap[0]))))
        top_put(top, hit);
}

/* The score that a hit must exceed to get in; -INFINITY while there is room. */
float top_threshold(const top_t *top);

/* Sorts in place, best first; the heap is no heap any more. */
void top_sort(top_t *top);

#endif
