/* episode: one memory as rows and words; what memory (storing, finding) and care (checking,
 * rebuilding, moving) have in common. Inside the brain only.
 */
#ifndef ACTORS_BRAIN_EPISODE_H
#define ACTORS_BRAIN_EPISODE_H

#include "actors/brain/memory.h"
#include "actors/brain/meta.h"
#include "actors/brain/postings.h"

/* The fields of a memory for BM25F. */
enum {
    EPISODE_REQUEST,
    EPISODE_SOLUTION,
    EPISODE_NAMES, /* thread, task, type, artifacts, metadata */
    EPISODE_DATES, /* terms of dates.h */
    EPISODE_WHO,   /* its author */
    EPISODE_PARTS, /* what compounds in any of them may be made of */
    EPISODE_FIELDS
};
typedef struct episode_field {
    float weight, b;
} episode_field_t;
extern const episode_field_t episode_fields[EPISODE_FIELDS];

typedef struct episode_words {
    posting_doc_t doc;
    float *vector; /* NULL: no word to embed, or not asked for */
} episode_words_t;

/* The same episode and configuration always give the same words: deleting relies on it. */
err_t episode_analyse(arena_t *arena, const meta_config_t *config, const episode_t *episode,
                      bool with_vector, episode_words_t *out);

bytes_t episode_number_key(store_key_t *key, uint64_t number);
bytes_t episode_id_key(store_key_t *key, const char *id);
bytes_t episode_thread_key(store_key_t *key, const char *thread, int64_t ms, uint64_t number);
bool episode_has_thread(const episode_t *episode);
uint64_t episode_type_hash(const char *type);

/* ERR_NOT_FOUND, ERR_CORRUPT. */
err_t episode_find(store_txn_t *txn, const char *id, uint64_t *number);
/* A copy in the arena: it outlives writes and the snapshot. */
err_t episode_bytes(store_txn_t *txn, arena_t *arena, uint64_t number, bytes_t *out);
/* ERR_CORRUPT when there is none. */
err_t episode_get(store_txn_t *txn, arena_t *arena, uint64_t number, episode_t *out);

/* The rows of tables episodes, heads, episode_ids and threads. model 0: it has no vector. */
err_t episode_put_rows(store_txn_t *txn, arena_t *arena, uint64_t number, const episode_t *episode,
                       uint32_t model);
err_t episode_del_rows(store_txn_t *txn, uint64_t number, const episode_t *episode);
/* In its head: it has a vector of `model`; that it has one of `current` stays. */
err_t episode_mark_vector(store_txn_t *txn, uint64_t number, uint32_t current, uint32_t model);
err_t episode_put_vector(store_txn_t *txn, const meta_config_t *config, uint64_t number,
                         const float *vector);

#endif
