/* rows: records in the tables of the agent's store. Thread: the agent's. */
#ifndef AGENT_ROWS_H
#define AGENT_ROWS_H

#include "bus/store.h"
#include "proto/record.h"

/* What is read is a copy in `arena`, so it stays valid whatever is written later.
 * ERR_NOT_FOUND without a sentence. */
err_t rows_get(store_txn_t *txn, int table, const store_key_t *key, const record_t *record,
               arena_t *arena, void *out);
err_t rows_put(store_txn_t *txn, int table, const store_key_t *key, const record_t *record,
               arena_t *arena, const void *in);
/* Deletes every row whose key begins with `prefix`. */
err_t rows_clear(store_txn_t *txn, int table, const store_key_t *prefix);

#endif
