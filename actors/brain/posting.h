/* posting: what one memory says to the words index, and how postings lie in a block. For
 * postings.c, which keeps the blocks in the store.
 *
 * A block: u64 last number, then postings: varint step of the number (the first from 0), a byte of
 * fields, for each a varint count and a length code. Numbers in the machine's byte order: the store
 * as a whole is not portable either. Thread: pure.
 */
#ifndef ACTORS_BRAIN_POSTING_H
#define ACTORS_BRAIN_POSTING_H

#include "actors/brain/postings.h"

enum { POSTING_LAST = 8, POSTING_LARGEST = 10 + 1 + RANK_FIELDS * 4 };

/* How often a term is in the fields of one memory, and how long these are. */
typedef struct posting {
    uint64_t id;
    uint16_t counts[RANK_FIELDS];
    uint16_t lengths[RANK_FIELDS];
} posting_t;

/* Lengths in 8 bits: exact to 15, then 3 bits after the leading one. */
uint8_t posting_length_code(unsigned length);

/* One posting whose number is a step from `before`; `out` has POSTING_LARGEST bytes. */
size_t posting_put(uint8_t *out, uint64_t before, const posting_t *posting);
bool posting_get(const uint8_t **at, const uint8_t *end, uint64_t before, posting_t *posting);

/* Decodes at most `most` postings; false when the bytes are no block. */
bool posting_decode(bytes_t block, posting_t *postings, size_t most, size_t *count);
/* The same as ids and weights, POSTINGS_BLOCK at most; this is where a search spends its time. */
bool posting_decode_weights(bytes_t block, const postings_units_t *units, uint64_t *ids,
                            float *weights, size_t *count);
/* A block of them; `out` has room for all. */
size_t posting_encode(uint8_t *out, const posting_t *postings, size_t count);

/* Of a block that has its POSTING_LAST bytes. */
uint64_t posting_last_of(bytes_t block);
uint64_t posting_first_of(bytes_t block);
/* SIZE_MAX when the bytes are no block. */
size_t posting_count_in(bytes_t block);

#endif
