/* bucket: what is kept of the points of one series in one span of time: count, sum, extremes, the
 * last one, and a sketch from which any quantile is read within 2 %.
 * Sketch: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
 * relative-error guarantees", VLDB 2019. Beyond BUCKET_BINS bins the lowest ones become one.
 * Memory of the bins is the arena's. Thread: pure. */
#ifndef ACTORS_HEALTH_BUCKET_H
#define ACTORS_HEALTH_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"

enum { BUCKET_BINS = 256 };

typedef struct bin {
    int32_t key; /* in the order of the values; 0: zero */
    uint32_t count;
} bin_t;

/* Starts zeroed: empty. */
typedef struct bucket {
    int64_t count, last_ms;
    double sum, min, max, last;
    bin_t *bins;
    size_t used, capacity;
} bucket_t;

/* `value` is finite. */
void bucket_add(bucket_t *bucket, arena_t *arena, double value, int64_t at_ms);
void bucket_merge(bucket_t *bucket, arena_t *arena, const bucket_t *other);
/* part 0..1; 0 of an empty bucket. */
double bucket_quantile(const bucket_t *bucket, double part);

void bucket_write(const bucket_t *bucket, buf_t *out);
/* False when these bytes are no bucket. */
bool bucket_read(bytes_t bytes, arena_t *arena, bucket_t *out);

#endif
