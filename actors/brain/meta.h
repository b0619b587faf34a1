/* meta: what a company's memory is made with, and how much of it there is. Two rows of table meta.
 * The configuration is written with the first memory and stays: settings only choose for new
 * companies. Thread: whoever holds the transaction.
 */
#ifndef ACTORS_BRAIN_META_H
#define ACTORS_BRAIN_META_H

#include "actors/brain/brain.h"
#include "actors/brain/rank.h"

#define meta_config_FIELDS(F)                                                                      \
    F(INT, words_version, must, 0, 0, "Rules that made the terms.")                                \
    F(STR, language, must, 0, 0, "Of stems and stop words.")                                       \
    F(STR, model, must, 0, 0, "What made the vectors.")                                            \
    F(INT, model_number, must, 1, 4294967295, "Its number in keys.")                               \
    F(INT, dims, must, 1, 8192, "Dimensions of a vector.")                                         \
    F(INT, generation, must, 0, 255, "Of the words index: a rebuild makes the next.")
RECORD_STRUCT(meta_config, meta_config_FIELDS)
extern const record_t meta_config_record;

typedef struct meta_counts {
    uint64_t memories, vectors;
    uint64_t next_number; /* from 1 */
    uint64_t lengths[RANK_FIELDS];
    uint64_t nodes, edges;
} meta_counts_t;

/* The configuration; ERR_NOT_FOUND while there has been no memory. ERR_VERSION (and the
 * configuration) when the terms were made by other rules: a rebuild is on its way. */
err_t meta_config(brain_t *self, store_txn_t *txn, arena_t *arena, meta_config_t *out);
/* The same for writers: made from the settings when there is none. */
err_t meta_open(brain_t *self, store_txn_t *txn, arena_t *arena, meta_config_t *out);
err_t meta_put_config(store_txn_t *txn, arena_t *arena, const meta_config_t *config);

/* A rebuild of the words index on its way: what is done of the next generation, and what it
 * counted.
 */
typedef struct meta_rebuild {
    uint64_t done; /* memories up to this number are in it */
    uint64_t memories, vectors;
    uint64_t lengths[RANK_FIELDS];
    uint32_t words_version; /* rules it is made by; by others it begins again */
    uint8_t generation;
    bool cleared;      /* leftovers of an earlier one are gone */
    char language[32]; /* of the next generation */
} meta_rebuild_t;

/* False when there is none. */
bool meta_rebuild(store_txn_t *txn, meta_rebuild_t *out);
/* NULL: there is none any more. */
err_t meta_put_rebuild(store_txn_t *txn, const meta_rebuild_t *rebuild);

/* Vectors that are made in the background: of the model in use (number is the configuration's), or
 * of the next one. Not there: vectors are made with the memory. */
typedef struct meta_fill {
    uint64_t done;         /* memories up to this number have what they can have */
    uint64_t vectors;      /* of this number */
    uint32_t number, dims; /* dims 0: not known yet */
    char model[128];
} meta_fill_t;
bool meta_fill(store_txn_t *txn, meta_fill_t *out);
/* NULL: there is none any more. */
err_t meta_put_fill(store_txn_t *txn, const meta_fill_t *fill);
/* A fill from the beginning to the model that the settings name; its number is the caller's. */
meta_fill_t meta_fill_wanted(brain_t *self, arena_t *arena, const char *language);

/* Zeros, and next_number 1, when there is nothing. */
void meta_counts(store_txn_t *txn, meta_counts_t *out);
err_t meta_put_counts(store_txn_t *txn, const meta_counts_t *counts);

#endif
