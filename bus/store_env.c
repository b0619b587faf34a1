/* One company's environment: opened, created when it is new, brought to the present format when it
 * is old. */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bus/store_parts.h"

enum { FIRST_MAP = 1 << 20 };

const char *store_dir(const store_pool_t *pool, const char *company, arena_t *arena)
{
    return arena_printf(arena, "%s/%s/store", pool->dir, company);
}

bool store_on_disk(const store_pool_t *pool, const char *company, arena_t *arena)
{
    struct stat info;
    return !stat(arena_printf(arena, "%s/data.mdb", store_dir(pool, company, arena)), &info);
}

int64_t store_file_size(MDB_env *env)
{
    int fd;
    struct stat info;
    if (mdb_env_get_fd(env, &fd) || fstat(fd, &info))
        return 0;
    return info.st_size;
}

/* LMDB allocates 3 MiB of lists for an environment and 2 MiB for a child transaction, and touches
 * little of either. Lists that live long are mapped, so that only what is touched costs memory;
 * those of each call come from the heap, which keeps them, since mapping costs more than the call.
 */
static int open_lean(MDB_env *env, const char *dir, unsigned flags)
{
    enum { SMALLEST_LIST = 1 << 20, LARGEST_LIST = 4 << 20, KEPT = 16 << 20 };
    mallopt(M_MMAP_THRESHOLD, SMALLEST_LIST);
    int code = mdb_env_open(env, dir, flags, 0640);
    mallopt(M_MMAP_THRESHOLD, LARGEST_LIST);
    mallopt(M_TRIM_THRESHOLD, KEPT);
    return code;
}

static int open_env(const store_pool_t *pool, const char *dir, MDB_env **out)
{
    MDB_env *env;
    int code = mdb_env_create(&env);
    if (code)
        return code;
    unsigned flags = MDB_NOTLS | MDB_NORDAHEAD;
    if (pool->options.nosync)
        flags |= MDB_NOSYNC | MDB_NOMETASYNC;
    mdb_env_set_maxdbs(env, STORE_TABLES);
    mdb_env_set_maxreaders(env, STORE_READERS);
    mdb_env_set_mapsize(env, FIRST_MAP);
    code = open_lean(env, dir, flags);
    /* A file that has grown beyond the first map keeps its size and room to write. */
    int64_t size = store_file_size(env);
    if (!code && size * 4 > (int64_t)FIRST_MAP * 3)
        code = mdb_env_set_mapsize(env, (size_t)size * 2);
    if (code) {
        mdb_env_close(env);
        return code;
    }
    int dead;
    mdb_reader_check(env, &dead);
    *out = env;
    return 0;
}

/* The version of the stored format is a row of the unnamed table. */
static MDB_val format_key(void)
{
    return (MDB_val){6, (void *)"format"};
}

static int put_format(const store_t *store, MDB_txn *txn)
{
    const uint32_t *format = &store->pool->options.format;
    MDB_dbi root;
    MDB_val key = format_key(), value = {sizeof(*format), (void *)format};
    int code = mdb_dbi_open(txn, NULL, 0, &root);
    return code ? code : mdb_put(txn, root, &key, &value, 0);
}

/* MDB_NOTFOUND: the environment is new. */
static int get_format(MDB_txn *txn, uint32_t *format)
{
    MDB_dbi root;
    MDB_val key = format_key(), value;
    int code = mdb_dbi_open(txn, NULL, 0, &root);
    if (!code)
        code = mdb_get(txn, root, &key, &value);
    if (!code && value.mv_size != sizeof(*format))
        code = MDB_CORRUPTED;
    if (!code)
        memcpy(format, value.mv_data, sizeof(*format));
    return code;
}

static int end_txn(MDB_txn *txn, int code)
{
    if (!code)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return code;
}

/* Opens all tables, and makes them when they are not there. */
static int open_tables(store_t *store, uint32_t *format)
{
    store_pool_t *pool = store->pool;
    MDB_txn *txn;
    int code = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (code)
        return code;
    code = get_format(txn, format);
    if (code == MDB_NOTFOUND) {
        *format = pool->options.format;
        code = put_format(store, txn);
    }
    for (int i = 0; i < pool->table_count && !code; i++)
        code = mdb_dbi_open(txn, pool->options.tables[i].name, MDB_CREATE, &store->tables[i]);
    return end_txn(txn, code);
}

static int write_format(store_t *store)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(store->env, NULL, 0, &txn);
    return code ? code : end_txn(txn, put_format(store, txn));
}

static err_t open_at(store_pool_t *pool, const char *company, const char *dir, store_t **out,
                     uint32_t *format, arena_t *arena)
{
    store_t *store = calloc(1, sizeof(*store));
    if (!store)
        abort();
    store->pool = pool;
    snprintf(store->company, sizeof(store->company), "%s", company);
    int code = open_env(pool, dir, &store->env);
    if (!code) {
        code = open_tables(store, format);
        if (code)
            mdb_env_close(store->env);
    }
    if (code) {
        free(store);
        err_t err = store_error(NULL, code);
        return err_make(arena, err.code, "cannot open the data of company '%s': %s", company,
                        err_what(err));
    }
    *out = store;
    return err_ok();
}

/* An older format is brought up to date on a copy, which then takes the place of the original. */
static err_t migrate(store_t *old, uint32_t from, const char *dir, arena_t *arena)
{
    store_pool_t *pool = old->pool;
    const char *fresh = arena_printf(arena, "%s.migrating", dir);
    const char *data = arena_printf(arena, "%s/data.mdb", fresh);
    unlink(data);
    unlink(arena_printf(arena, "%s/lock.mdb", fresh));
    if (mkdir(fresh, 0750) && errno != EEXIST)
        return dir_error(arena, fresh, errno);
    int code = mdb_env_copy2(old->env, fresh, MDB_CP_COMPACT);
    if (code)
        return store_error(NULL, code);
    store_t *copy;
    uint32_t format;
    err_t err = open_at(pool, old->company, fresh, &copy, &format, arena);
    if (err_is(err))
        return err;
    store_txn_t txn = {.store = copy, .write = true};
    code = mdb_txn_begin(copy->env, NULL, 0, &txn.txn);
    err = code ? store_error(NULL, code) : pool->options.migrate(&txn, from);
    if (err_is(err)) {
        if (!code)
            mdb_txn_abort(txn.txn);
    } else {
        code = mdb_txn_commit(txn.txn);
        err = store_error(NULL, code ? code : write_format(copy));
    }
    mdb_env_close(copy->env);
    free(copy);
    if (!err_is(err) && rename(data, arena_printf(arena, "%s/data.mdb", dir)))
        err = dir_error(arena, dir, errno);
    return err_is(err) ? err : dir_sync(dir, arena);
}

static err_t check_format(store_t *store, uint32_t format, const char *dir, arena_t *arena)
{
    const store_pool_options_t *options = &store->pool->options;
    if (format == options->format)
        return err_ok();
    if (format > options->format)
        return err_make(arena, ERR_VERSION,
                        "the data of company '%s' is of format %u, newer than %u: use the newer "
                        "program that wrote it",
                        store->company, format, options->format);
    if (!options->migrate)
        return err_make(arena, ERR_VERSION,
                        "the data of company '%s' is of format %u and this program cannot bring "
                        "it to %u",
                        store->company, format, options->format);
    err_t err = migrate(store, format, dir, arena);
    return err_is(err) ? err : err_of(ERR_BUSY, "open it again");
}

static void drop(store_t **store)
{
    mdb_env_close((*store)->env);
    free(*store);
    *store = NULL;
}

/* A second time after a migration, which put another file in the place of this one. */
static err_t open_present(store_pool_t *pool, const char *company, const char *dir, store_t **out,
                          arena_t *arena)
{
    uint32_t format;
    err_t err = err_ok();
    for (int tries = 0; tries < 2; tries++) {
        err = open_at(pool, company, dir, out, &format, arena);
        if (err_is(err))
            return err;
        err = check_format(*out, format, dir, arena);
        if (!err_is(err))
            return err;
        drop(out);
        if (err.code != ERR_BUSY)
            return err;
    }
    return err;
}

/* The names of the new directories must survive a crash as well as the data in them. */
static err_t sync_new(const store_pool_t *pool, const char *company, const char *dir,
                      arena_t *arena)
{
    err_t err = dir_sync(dir, arena);
    if (!err_is(err))
        err = dir_sync(arena_printf(arena, "%s/%s", pool->dir, company), arena);
    return err_is(err) ? err : dir_sync(pool->dir, arena);
}

err_t store_open(store_pool_t *pool, const char *company, bool create, store_t **out,
                 arena_t *arena)
{
    const char *dir = store_dir(pool, company, arena);
    bool fresh = !store_on_disk(pool, company, arena);
    if (fresh && !create)
        return err_of(ERR_NOT_FOUND, NULL);
    err_t err = fresh ? dir_make(dir, arena) : err_ok();
    if (!err_is(err))
        err = open_present(pool, company, dir, out, arena);
    if (err_is(err) || !fresh || pool->options.nosync)
        return err;
    err = sync_new(pool, company, dir, arena);
    if (err_is(err))
        drop(out);
    return err;
}

static int read_format(MDB_env *env, uint32_t *format)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (code)
        return code;
    code = get_format(txn, format);
    mdb_txn_abort(txn);
    return code;
}

err_t store_peek(const char *dir, bool live, arena_t *arena, uint32_t *format)
{
    MDB_env *env;
    struct stat info;
    if (stat(arena_printf(arena, "%s/data.mdb", dir), &info))
        return err_of(ERR_NOT_FOUND, "there is no store");
    int code = mdb_env_create(&env);
    if (code)
        return store_error(NULL, code);
    mdb_env_set_maxreaders(env, STORE_READERS);
    code = mdb_env_open(env, dir, MDB_RDONLY | MDB_NOTLS | (live ? 0 : MDB_NOLOCK), 0640);
    if (!code)
        code = read_format(env, format);
    mdb_env_close(env);
    return store_error(NULL, code);
}
