#include "actors/brain/top.h"

#include <math.h>
#include <stdlib.h>

void top_open(top_t *top, arena_t *arena, size_t k)
{
    *top = (top_t){.heap = ARENA_ARRAY(arena, top_hit_t, k ? k : 1), .k = k};
}

static void sift_up(top_hit_t *heap, size_t at)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!top_better(heap[parent], heap[at]))
            break;
        top_hit_t swap = heap[parent];
        heap[parent] = heap[at];
        heap[at] = swap;
        at = parent;
    }
}

static void sift_down(top_hit_t *heap, size_t count)
{
    for (size_t at = 0;;) {
        size_t worst = 2 * at + 1;
        if (worst >= count)
            break;
        if (worst + 1 < count && top_better(heap[worst], heap[worst + 1]))
            worst++;
        if (!top_better(heap[at], heap[worst]))
            break;
        top_hit_t swap = heap[worst];
        heap[worst] = heap[at];
        heap[at] = swap;
        at = worst;
    }
}

void top_put(top_t *top, top_hit_t hit)
{
    if (top->count < top->k) {
        top->heap[top->count] = hit;
        sift_up(top->heap, top->count++);
    } else {
        top->heap[0] = hit;
        sift_down(top->heap, top->count);
    }
}

float top_threshold(const top_t *top)
{
    return top->count < top->k ? -INFINITY : top->k ? top->heap[0].score : INFINITY;
}

static int compare(const void *a, const void *b)
{
    const top_hit_t *x = a, *y = b;

    return top_better(*x, *y) ? -1 : top_better(*y, *x) ? 1 : 0;
}

void top_sort(top_t *top)
{
    qsort(top->heap, top->count, sizeof top->heap[0], compare);
}
