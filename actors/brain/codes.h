/* codes: unit vectors in a quarter of their memory, for looking at many.
 *
 * Each number becomes a byte, with a scale for each vector. The cosine of two codes is off by at
 * most a bound that is known for each pair, so a scan that asks the whole vectors only where the
 * bound leaves a doubt finds exactly what a scan of the whole vectors would.
 *
 * A row is codes_stride bytes, on a multiple of 64: the bytes, scale and error, then nothing.
 * Thread: pure.
 */
#ifndef ACTORS_BRAIN_CODES_H
#define ACTORS_BRAIN_CODES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CODES_ALIGN = 64 };

/* Bytes of a row. */
size_t codes_stride(uint32_t dims);

/* `unit` has length 1. */
void codes_put(uint8_t *row, const float *unit, uint32_t dims);

/* A query, made once. */
typedef struct codes_query {
    int8_t *bytes; /* as many as are multiplied: a multiple of 64 */
    size_t size;
    int32_t offset; /* what the rows' being unsigned adds */
    float scale, error;
    uint32_t tail_at; /* where scale and error stand in a row */
} codes_query_t;

/* Room for `bytes` of a query. */
size_t codes_query_bytes(uint32_t dims);
void codes_query(codes_query_t *query, int8_t *room, const float *unit, uint32_t dims);
/* The query that a row was made of, without its error: for codes_score only. */
void codes_query_of_row(codes_query_t *query, int8_t *room, const uint8_t *row, uint32_t dims);

/* Sum of row[i] * query->bytes[i], by the widest instructions there are. */
int32_t codes_product(const uint8_t *row, const int8_t *bytes, size_t size);

/* About the cosine. */
static inline float codes_score(const codes_query_t *query, const uint8_t *row)
{
    float scale;

    memcpy(&scale, row + query->tail_at, sizeof scale);
    return (float)(codes_product(row, query->bytes, query->size) - query->offset) * scale *
           query->scale;
}

/* The cosine is no larger than that. */
static inline float codes_most(const codes_query_t *query, const uint8_t *row)
{
    float error;

    memcpy(&error, row + query->tail_at + sizeof error, sizeof error);
    return codes_score(query, row) + error * (1 + query->error) + query->error;
}

#ifdef __cplusplus
}
#endif

#endif
