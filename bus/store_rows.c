/* Rows and scans: gets, puts and deletes of one transaction, and rows in order. */
#include <errno.h>
#include <string.h>

#include "bus/store_parts.h"

static MDB_val val(bytes_t bytes)
{
    return (MDB_val){bytes.size, (void *)bytes.data};
}

err_t store_get(store_txn_t *txn, int table, bytes_t key, bytes_t *value)
{
    MDB_val k = val(key), v;
    int code = mdb_get(txn->txn, txn->store->tables[table], &k, &v);
    if (!code)
        *value = (bytes_t){v.mv_data, v.mv_size};
    return store_error(txn->store, code);
}

/* A failed write may leave half of itself behind, unless it was refused before it began. */
static err_t wrote(store_txn_t *txn, int code)
{
    txn->writes += code != MDB_KEYEXIST && code != MDB_NOTFOUND && code != MDB_BAD_VALSIZE;
    return store_error(txn->store, code);
}

static err_t put(store_txn_t *txn, int table, bytes_t key, bytes_t value, unsigned flags)
{
    if (store_fault_at(txn->store->pool, "put") == STORE_FAIL_FULL)
        return store_error(NULL, ENOSPC);
    MDB_val k = val(key), v = val(value);
    return wrote(txn, mdb_put(txn->txn, txn->store->tables[table], &k, &v, flags));
}

err_t store_put(store_txn_t *txn, int table, bytes_t key, bytes_t value)
{
    return put(txn, table, key, value, 0);
}

err_t store_put_new(store_txn_t *txn, int table, bytes_t key, bytes_t value)
{
    return put(txn, table, key, value, MDB_NOOVERWRITE);
}

err_t store_append(store_txn_t *txn, int table, bytes_t key, bytes_t value)
{
    err_t err = put(txn, table, key, value, MDB_APPEND);
    return err.code == ERR_EXISTS ? put(txn, table, key, value, 0) : err;
}

err_t store_del(store_txn_t *txn, int table, bytes_t key)
{
    MDB_val k = val(key);
    return wrote(txn, mdb_del(txn->txn, txn->store->tables[table], &k, NULL));
}

int64_t store_count(store_txn_t *txn, int table)
{
    MDB_stat stat;
    return mdb_stat(txn->txn, txn->store->tables[table], &stat) ? 0 : (int64_t)stat.ms_entries;
}

/* ---- Scans ---- */

err_t store_scan_open(store_scan_t *scan, store_txn_t *txn, int table, bytes_t prefix, bytes_t from,
                      bool reverse)
{
    MDB_cursor *cursor;
    *scan = (store_scan_t){.txn = txn, .prefix = prefix, .from = from, .reverse = reverse};
    int code = mdb_cursor_open(txn->txn, txn->store->tables[table], &cursor);
    if (!code)
        scan->cursor = cursor;
    return store_error(txn->store, code);
}

/* The smallest key that is larger than all with this prefix; false when there is none. */
static bool after_prefix(bytes_t prefix, uint8_t *out, size_t *size)
{
    *size = prefix.size;
    memcpy(out, prefix.data, prefix.size);
    while (*size && out[*size - 1] == 0xff)
        (*size)--;
    if (!*size)
        return false;
    out[*size - 1]++;
    return true;
}

/* Where `from` lies: before all keys with the prefix, among them, or (1) after them. */
static int beside_prefix(const store_scan_t *scan)
{
    size_t size = scan->from.size < scan->prefix.size ? scan->from.size : scan->prefix.size;
    int order = size ? memcmp(scan->from.data, scan->prefix.data, size) : 0;
    if (!order && scan->from.size < scan->prefix.size)
        return -1;
    return order;
}

static int first_forward(store_scan_t *scan, MDB_val *key, MDB_val *value)
{
    bytes_t start = beside_prefix(scan) < 0 ? scan->prefix : scan->from;
    if (!start.size)
        return mdb_cursor_get(scan->cursor, key, value, MDB_FIRST);
    *key = val(start);
    return mdb_cursor_get(scan->cursor, key, value, MDB_SET_RANGE);
}

static int first_reverse(store_scan_t *scan, MDB_val *key, MDB_val *value)
{
    uint8_t bound[STORE_KEY];
    size_t size = 0;
    if (scan->from.size && beside_prefix(scan) <= 0) {
        *key = val(scan->from);
        int code = mdb_cursor_get(scan->cursor, key, value, MDB_SET_RANGE);
        if (code == MDB_NOTFOUND)
            return mdb_cursor_get(scan->cursor, key, value, MDB_LAST);
        bool same = !code && key->mv_size == scan->from.size &&
                    !memcmp(key->mv_data, scan->from.data, key->mv_size);
        return code || same ? code : mdb_cursor_get(scan->cursor, key, value, MDB_PREV);
    }
    if (!scan->prefix.size || !after_prefix(scan->prefix, bound, &size))
        return mdb_cursor_get(scan->cursor, key, value, MDB_LAST);
    *key = (MDB_val){size, bound};
    int code = mdb_cursor_get(scan->cursor, key, value, MDB_SET_RANGE);
    return mdb_cursor_get(scan->cursor, key, value, code ? MDB_LAST : MDB_PREV);
}

bool store_scan_next(store_scan_t *scan, bytes_t *key, bytes_t *value)
{
    MDB_val k, v;
    int code;
    if (!scan->cursor)
        return false;
    if (scan->started)
        code = mdb_cursor_get(scan->cursor, &k, &v, scan->reverse ? MDB_PREV : MDB_NEXT);
    else
        code = scan->reverse ? first_reverse(scan, &k, &v) : first_forward(scan, &k, &v);
    scan->started = true;
    if (code || k.mv_size < scan->prefix.size ||
        (scan->prefix.size && memcmp(k.mv_data, scan->prefix.data, scan->prefix.size) != 0))
        return false;
    *key = (bytes_t){k.mv_data, k.mv_size};
    *value = (bytes_t){v.mv_data, v.mv_size};
    return true;
}

/* After a deletion the cursor of LMDB stands on the next row: MDB_NEXT knows that. */
err_t store_scan_del(store_scan_t *scan)
{
    return wrote(scan->txn, mdb_cursor_del(scan->cursor, 0));
}

void store_scan_close(store_scan_t *scan)
{
    if (scan->cursor)
        mdb_cursor_close(scan->cursor);
    scan->cursor = NULL;
}
