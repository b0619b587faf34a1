#include "actors/health/bucket.h"

#include <math.h>
#include <string.h>

/* Neighbouring bins differ by 4 %, so a value is within 2 % of its bin's middle. */
#define GAMMA 1.04
enum { ZERO_OFFSET = 16384, KEY_MOST = 16000, HEAD_BYTES = 52, BIN_BYTES = 8 };

static int32_t key_of(double value)
{
    if (value == 0)
        return 0;
    double power = ceil(log(fabs(value)) / log(GAMMA));
    power = power > KEY_MOST ? KEY_MOST : power < -KEY_MOST ? -KEY_MOST : power;
    int32_t key = (int32_t)power + ZERO_OFFSET;
    return value > 0 ? key : -key;
}

static double value_of(int32_t key)
{
    if (key == 0)
        return 0;
    int32_t power = (key > 0 ? key : -key) - ZERO_OFFSET;
    double value = 2 * exp(power * log(GAMMA)) / (GAMMA + 1);
    return key > 0 ? value : -value;
}

static void collapse(bucket_t *bucket)
{
    bucket->bins[1].count += bucket->bins[0].count;
    memmove(bucket->bins, bucket->bins + 1, (bucket->used - 1) * sizeof(bin_t));
    bucket->used--;
}

static void add_bin(bucket_t *bucket, arena_t *arena, int32_t key, uint32_t count)
{
    size_t at = bucket->used;
    while (at > 0 && bucket->bins[at - 1].key >= key)
        at--;
    if (at < bucket->used && bucket->bins[at].key == key) {
        bucket->bins[at].count += count;
        return;
    }
    if (bucket->used == bucket->capacity) {
        bucket->capacity = bucket->capacity ? bucket->capacity * 2 : 8;
        bin_t *larger = ARENA_ARRAY(arena, bin_t, bucket->capacity);
        if (bucket->used)
            memcpy(larger, bucket->bins, bucket->used * sizeof(bin_t));
        bucket->bins = larger;
    }
    memmove(bucket->bins + at + 1, bucket->bins + at, (bucket->used - at) * sizeof(bin_t));
    bucket->bins[at] = (bin_t){key, count};
    if (++bucket->used > BUCKET_BINS)
        collapse(bucket);
}

static void note(bucket_t *bucket, double min, double max, double last, int64_t last_ms)
{
    if (!bucket->count || min < bucket->min)
        bucket->min = min;
    if (!bucket->count || max > bucket->max)
        bucket->max = max;
    if (!bucket->count || last_ms >= bucket->last_ms) {
        bucket->last = last;
        bucket->last_ms = last_ms;
    }
}

void bucket_add(bucket_t *bucket, arena_t *arena, double value, int64_t at_ms)
{
    note(bucket, value, value, value, at_ms);
    bucket->count++;
    bucket->sum += value;
    add_bin(bucket, arena, key_of(value), 1);
}

void bucket_merge(bucket_t *bucket, arena_t *arena, const bucket_t *other)
{
    if (!other->count)
        return;
    note(bucket, other->min, other->max, other->last, other->last_ms);
    bucket->count += other->count;
    bucket->sum += other->sum;
    for (size_t i = 0; i < other->used; i++)
        add_bin(bucket, arena, other->bins[i].key, other->bins[i].count);
}

double bucket_quantile(const bucket_t *bucket, double part)
{
    double rank = ceil(part * (double)bucket->count) - 1, seen = 0; /* the nearest rank */
    if (!bucket->count)
        return 0;
    if (part <= 0)
        return bucket->min;
    if (part >= 1)
        return bucket->max;
    for (size_t i = 0; i < bucket->used; i++) {
        seen += bucket->bins[i].count;
        if (seen <= rank)
            continue;
        double value = value_of(bucket->bins[i].key);
        return value < bucket->min ? bucket->min : value > bucket->max ? bucket->max : value;
    }
    return bucket->max;
}

/* One machine writes and reads them, so the bytes are in its own order. */
void bucket_write(const bucket_t *bucket, buf_t *out)
{
    uint32_t used = (uint32_t)bucket->used;
    buf_put(out, &bucket->count, 8);
    buf_put(out, &bucket->last_ms, 8);
    buf_put(out, &bucket->sum, 8);
    buf_put(out, &bucket->min, 8);
    buf_put(out, &bucket->max, 8);
    buf_put(out, &bucket->last, 8);
    buf_put(out, &used, 4);
    if (used)
        buf_put(out, bucket->bins, used * sizeof(bin_t));
}

bool bucket_read(bytes_t bytes, arena_t *arena, bucket_t *out)
{
    uint32_t used;
    *out = (bucket_t){0};
    if (bytes.size < HEAD_BYTES)
        return false;
    memcpy(&out->count, bytes.data, 8);
    memcpy(&out->last_ms, bytes.data + 8, 8);
    memcpy(&out->sum, bytes.data + 16, 8);
    memcpy(&out->min, bytes.data + 24, 8);
    memcpy(&out->max, bytes.data + 32, 8);
    memcpy(&out->last, bytes.data + 40, 8);
    memcpy(&used, bytes.data + 48, 4);
    if (used > BUCKET_BINS || bytes.size != HEAD_BYTES + (size_t)used * BIN_BYTES)
        return false;
    out->used = used;
    out->capacity = used;
    out->bins = used ? arena_copy(arena, bytes.data + HEAD_BYTES, used * sizeof(bin_t)) : NULL;
    return true;
}
