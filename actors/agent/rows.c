#include "actors/agent/rows.h"

err_t rows_get(store_txn_t *txn, int table, const store_key_t *key, const record_t *record,
               arena_t *arena, void *out)
{
    bytes_t value;
    err_t err = store_get(txn, table, key_bytes(key), &value);
    if (err_is(err))
        return err;
    value.data = arena_copy(arena, value.data, value.size);
    err = record_decode(record, value, arena, record->name, out);
    if (err_is(err))
        return err_make(arena, ERR_CORRUPT, "a stored %s cannot be read: %s", record->name,
                        err_what(err));
    return err;
}

err_t rows_put(store_txn_t *txn, int table, const store_key_t *key, const record_t *record,
               arena_t *arena, const void *in)
{
    buf_t out;
    buf_open(&out, arena);
    record_encode(record, in, &out);
    return store_put(txn, table, key_bytes(key), buf_bytes(&out));
}

err_t rows_clear(store_txn_t *txn, int table, const store_key_t *prefix)
{
    store_scan_t scan;
    bytes_t key, value;
    err_t err = store_scan_open(&scan, txn, table, key_bytes(prefix), (bytes_t){0}, false);
    if (err_is(err))
        return err;
    while (!err_is(err) && store_scan_next(&scan, &key, &value))
        err = store_scan_del(&scan);
    store_scan_close(&scan);
    return err;
}
