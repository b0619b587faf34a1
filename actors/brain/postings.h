/* postings: the inverted index of one company in the store: term → memories, with the counts and
 * lengths that BM25F wants. Written in the transaction of the memory itself.
 *
 * A new memory's terms are first one row of table fresh: touching the pages of a hundred terms for
 * each memory would cost more than everything else. When POSTINGS_FRESH have gathered, all are
 * merged into the terms' own rows, a page at a time instead of a term at a time. Searches read
 * both; numbers in fresh are newer than all that is merged.
 *
 * A term has one head row with its count of memories and its newest postings, and full blocks of
 * older ones, each under the number of its first memory.
 * Lengths are kept in 8 bits, as coarse as 1/8 of themselves.
 */
#ifndef ACTORS_BRAIN_POSTINGS_H
#define ACTORS_BRAIN_POSTINGS_H

#include "actors/brain/rank.h"
#include "actors/brain/words.h"
#include "bus/actor.h"

enum { POSTINGS_BLOCK = 128, POSTINGS_FRESH = 2000 };

/* What one memory says: its terms, each once, with counts by field, sorted. */
typedef struct posting_term {
    const char *term;
    uint16_t size;
    uint16_t counts[RANK_FIELDS];
} posting_term_t;

typedef struct posting_doc {
    posting_term_t *terms;
    size_t count, capacity;
    uint16_t lengths[RANK_FIELDS]; /* in words, without stop words */
} posting_doc_t;

/* Adds the words of one field (stop words are left out) to `doc`, which starts zeroed. What a
 * compound may be made of goes to the field `parts` and makes nothing longer. */
void posting_doc_add(posting_doc_t *doc, arena_t *arena, int field, int parts,
                     const word_list_t *list);
/* Adds one term, as it is; makes nothing longer either. It must live as long as the doc. */
void posting_doc_add_term(posting_doc_t *doc, arena_t *arena, int field, const char *term);
/* Sorts and joins; call once, after the last field. */
void posting_doc_finish(posting_doc_t *doc);

/* The index of one generation: a rebuild writes a new one beside the one that is searched. What is
 * fresh belongs to no generation. */
typedef struct postings {
    store_txn_t *txn;
    uint8_t generation;
} postings_t;

/* `number` is larger than every number added before. ERR_FULL, ERR_IO, ERR_CORRUPT. */
err_t postings_add(const postings_t *in, arena_t *arena, uint64_t number, const posting_doc_t *doc);
/* Takes back exactly what postings_add put. ERR_CORRUPT when it is not there. */
err_t postings_remove(const postings_t *in, arena_t *arena, uint64_t number,
                      const posting_doc_t *doc);
/* Enough is fresh to be merged. */
bool postings_is_full(const postings_t *in);
/* Merges what is fresh, however little it is; a long run in which the call attends. */
err_t postings_merge(const postings_t *in, call_t *call);
bool postings_is_fresh(const postings_t *in, uint64_t number);

/* Deletes all that is fresh: it was built into this generation. */
err_t postings_drop_fresh(const postings_t *in);

/* For rebuilding: writes memories of ascending numbers, all larger than those before. */
err_t postings_build(const postings_t *in, const uint64_t *numbers, const posting_doc_t *docs,
                     size_t count);
/* Deletes at most `most` rows of the generation. */
err_t postings_clear(const postings_t *in, size_t most, bool *more);

/* What an occurrence in each field is worth by the code of the field's length; filled once a
 * search.
 */
typedef struct postings_units {
    float units[RANK_FIELDS][256];
} postings_units_t;

void postings_units(const rank_options_t *options, postings_units_t *out);

/* The lists of a query's terms. Close them in any case. */
typedef struct postings_list {
    store_scan_t scan;
    store_key_t prefix;
    arena_t *arena;
    const postings_units_t *units;
    bytes_t head; /* the newest merged postings, not yet decoded */
    uint64_t *ids;
    float *weights;
    uint64_t *fresh_ids; /* newer than all of them */
    float *fresh_weights;
    size_t fresh_count, fresh_capacity;
    bool open;
    int stage; /* blocks, head, fresh, end */
} postings_list_t;

/* Opens `count` terms for rank_words: fills lists[i], whose `memories` is 0 when nobody has the
 * term, and opened[i] behind it. `units` must live as long. */
err_t postings_open(const postings_t *in, arena_t *arena, const postings_units_t *units,
                    const char *const *terms, size_t count, postings_list_t *opened,
                    rank_list_t *lists);
void postings_close(postings_list_t *opened, size_t count);

/* A sum over memories that tells whether the postings are theirs: postings_check gives the sum over
 * what is stored, posting_doc_sum what one memory should add to it. */
uint64_t posting_doc_sum(uint64_t number, const posting_doc_t *doc);

typedef struct postings_sum {
    uint64_t terms, postings, sum;
} postings_sum_t;

/* Reads every block: are order, counts and heads right? ERR_CORRUPT with the term. */
err_t postings_check(const postings_t *in, arena_t *arena, postings_sum_t *out);

#endif
