/* Looking after a store: copies of it, figures about it, and a check of every row. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bus/store_parts.h"

RECORD_DEFINE(store_table_stat, store_table_stat_FIELDS)
RECORD_DEFINE(store_stat, store_stat_FIELDS)

/* A file that lost pages to a crash of long ago cannot be packed, but copied as it is. */
static err_t copy_env(MDB_env *env, const char *dir, arena_t *arena)
{
    const char *data = arena_printf(arena, "%s/data.mdb", dir);
    int code = mdb_env_copy2(env, dir, MDB_CP_COMPACT);
    if (code == MDB_INCOMPATIBLE) {
        unlink(data);
        code = mdb_env_copy2(env, dir, 0);
    }
    if (code == ENOSPC || code == EDQUOT)
        return err_make(arena, ERR_FULL, "no space left on the disk of %s", dir);
    if (code)
        return err_make(arena, ERR_IO, "cannot copy to %s: %s", dir, mdb_strerror(code));
    int fd = open(data, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd))
        code = errno;
    if (fd >= 0)
        close(fd);
    return code ? dir_error(arena, data, code) : dir_sync(dir, arena);
}

err_t store_copy(store_pool_t *pool, const char *company, const char *dir, arena_t *arena)
{
    store_t *store;
    pthread_mutex_lock(&pool->mutex);
    err_t err = store_find(pool, company, false, &store, arena);
    bool held = !err_is(err) && store->pinned; /* by a write transaction */
    if (!err_is(err))
        store->pinned = true;
    pthread_mutex_unlock(&pool->mutex);
    if (err_is(err))
        return err;
    err = copy_env(store->env, dir, arena);
    store_pin(store, held);
    return err;
}

/* Its own map, of the size the file has now: the owner may let its map grow meanwhile. */
static err_t copy_apart(const char *from, const char *to, arena_t *arena)
{
    MDB_env *env;
    MDB_txn *txn;
    int code = mdb_env_create(&env);
    if (code)
        return store_error(NULL, code);
    mdb_env_set_maxreaders(env, STORE_READERS);
    code = mdb_env_open(env, from, MDB_RDONLY | MDB_NOTLS, 0640);
    /* The file may have grown between the two; 0 takes over its size. */
    while (!code && (code = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)) == MDB_MAP_RESIZED)
        code = mdb_env_set_mapsize(env, 0);
    err_t err = code ? store_error(NULL, code) : err_ok();
    if (!code) {
        mdb_txn_abort(txn);
        err = copy_env(env, to, arena);
    }
    mdb_env_close(env);
    return err;
}

int store_copy_main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("this is for the agency itself: store-copy FROM TO\n", stderr);
        return 2;
    }
    arena_t *arena = arena_new();
    err_t err = copy_apart(argv[2], argv[3], arena);
    if (err_is(err))
        fputs(err_what(err), stderr);
    arena_destroy(&arena);
    return err_is(err) ? 1 : 0;
}

err_t store_stat(store_pool_t *pool, const char *company, arena_t *arena, store_stat_t *out)
{
    store_txn_t *txn;
    err_t err = store_begin_read(pool, company, &txn, arena);
    if (err_is(err))
        return err;
    MDB_envinfo info;
    MDB_stat stat;
    mdb_env_info(txn->store->env, &info);
    mdb_env_stat(txn->store->env, &stat);
    *out = (store_stat_t){.company = arena_strdup(arena, company),
                          .format = pool->options.format,
                          .map_bytes = (int64_t)info.me_mapsize,
                          .file_bytes = store_file_size(txn->store->env),
                          .used_bytes = (int64_t)(info.me_last_pgno + 1) * stat.ms_psize,
                          .last_txn = (int64_t)info.me_last_txnid};
    out->tables.count = (size_t)pool->table_count;
    out->tables.items = ARENA_ARRAY(arena, store_table_stat_t, out->tables.count);
    for (int i = 0; i < pool->table_count; i++) {
        mdb_stat(txn->txn, txn->store->tables[i], &stat);
        size_t pages = stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
        out->tables.items[i] = (store_table_stat_t){.name = pool->options.tables[i].name,
                                                    .rows = (int64_t)stat.ms_entries,
                                                    .bytes = (int64_t)(pages * stat.ms_psize)};
    }
    store_abort(&txn);
    return err_ok();
}

static err_t check_table(store_txn_t *txn, int table, arena_t *arena)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    const char *name = txn->store->pool->options.tables[table].name;
    err_t err = store_scan_open(&scan, txn, table, none, none, false);
    if (err_is(err))
        return err;
    store_key_t last;
    key_open(&last);
    int64_t rows = 0;
    unsigned sum = 0;
    while (store_scan_next(&scan, &key, &value)) {
        size_t common = key.size < last.size ? key.size : last.size;
        int order = memcmp(last.data, key.data, common);
        if (rows && (order > 0 || (!order && last.size >= key.size)))
            err = err_make(arena, ERR_CORRUPT, "table %s is out of order at row %" PRId64, name,
                           rows);
        key_open(&last);
        key_raw(&last, key.data, key.size);
        for (size_t i = 0; i < value.size; i += 512) /* touch every page */
            sum += value.data[i];
        rows++;
    }
    store_scan_close(&scan);
    (void)sum;
    if (!err_is(err) && rows != store_count(txn, table))
        err = err_make(arena, ERR_CORRUPT, "table %s says %" PRId64 " rows and has %" PRId64, name,
                       store_count(txn, table), rows);
    return err;
}

err_t store_check(store_pool_t *pool, const char *company, arena_t *arena)
{
    store_txn_t *txn;
    err_t err = store_begin_read(pool, company, &txn, arena);
    if (err_is(err))
        return err;
    for (int i = 0; i < pool->table_count && !err_is(err); i++)
        err = check_table(txn, i, arena);
    store_abort(&txn);
    return err;
}
