/* Transactions: begun and committed on the owner's thread or on a lane, snapshots on any thread,
 * and maps that grow between them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bus/store_parts.h"

enum { GROW_WAIT_S = 5 };

static err_t poisoned_error(void)
{
    return err_of(ERR_IO, "the store failed earlier: the process must start again from disk");
}

static store_txn_t *txn_new(store_t *store, MDB_txn *raw, store_txn_t *parent, bool write)
{
    store_txn_t *txn = malloc(sizeof(*txn));
    if (!txn)
        abort();
    *txn = (store_txn_t){.store = store, .txn = raw, .parent = parent, .write = write};
    return txn;
}

static void forget_growth(store_t *store)
{
    if (!strcmp(store->pool->wants_growth, store->company))
        *store->pool->wants_growth = '\0';
}

static err_t grow(store_pool_t *pool, const char *company, bool patient);

/* Growing before a batch is cheaper than replaying it. */
static void grow_early(store_t *store)
{
    MDB_envinfo info;
    MDB_stat stat;
    if (mdb_env_info(store->env, &info) || mdb_env_stat(store->env, &stat))
        return;
    size_t used = (info.me_last_pgno + 1) * stat.ms_psize;
    /* Never waits: the snapshot that is in the way may be the caller's own. */
    if (used > info.me_mapsize / 4 * 3)
        grow(store->pool, store->company, false);
}

/* Lengthens the file before LMDB does, which for each commit would have to sync its new length too.
 * Real zeros: blocks that are only allocated cost the file system a record when they are written
 * (both measured by bench_tasks). Behind the end of the file there is nothing of LMDB's, and
 * whether the disk is full is for the commit to find out. */
static void reserve(store_t *store)
{
    enum { SMALL = 1 << 20, LARGEST_STEP = 1 << 20 };
    static const char zeros[LARGEST_STEP];
    MDB_envinfo info;
    MDB_stat stat;
    int fd;
    if (store->pool->options.nosync || mdb_env_info(store->env, &info) ||
        mdb_env_stat(store->env, &stat) || mdb_env_get_fd(store->env, &fd))
        return;
    int64_t used = (int64_t)(info.me_last_pgno + 1) * stat.ms_psize;
    int64_t step = used / 4 < LARGEST_STEP ? used / 4 : LARGEST_STEP;
    if (used < SMALL || used + step / 4 < store->reserved_bytes)
        return;
    int64_t size = store_file_size(store->env);
    if (used + step / 4 >= size && size >= used) {
        ssize_t written = pwrite(fd, zeros, (size_t)step, size);
        size += written > 0 ? written : 0;
    }
    store->reserved_bytes = size;
}

static void begin_raw(void *ctx)
{
    store_txn_t *txn = ctx;
    txn->code = mdb_txn_begin(txn->store->env, NULL, 0, &txn->txn);
}

static void commit_raw(void *ctx)
{
    store_txn_t *txn = ctx;
    txn->code = mdb_txn_commit(txn->txn);
}

static void commit_aside(void *ctx)
{
    store_txn_t *txn = ctx;
    const store_pool_options_t *options = &txn->store->pool->options;
    commit_raw(ctx);
    atomic_store(&txn->over, true);
    if (options->synced)
        options->synced(options->synced_ctx);
}

static void abort_raw(void *ctx)
{
    store_txn_t *txn = ctx;
    mdb_txn_abort(txn->txn);
}

static void on_lane(store_txn_t *txn, lane_fn_t *fn)
{
    if (!txn->lane) {
        fn(txn);
        return;
    }
    lane_start(txn->lane, fn, txn);
    lane_wait(txn->lane);
}

void store_pool_sync_aside(store_pool_t *pool, bool aside)
{
    pool->aside = aside;
}

/* The first company of a batch is written on the owner's thread (which costs it less than to ask
 * another), the others on lanes. In simulation there is one thread. */
static lane_t *lane_for_another(store_pool_t *pool)
{
    if ((!pool->writers && !pool->aside) || pool->options.nosync)
        return NULL;
    lane_t **lane = &pool->lanes[pool->next_lane++ % STORE_LANES];
    if (!*lane)
        *lane = lane_open();
    return *lane;
}

err_t store_begin_write(store_pool_t *pool, const char *company, store_txn_t **out, arena_t *arena)
{
    *out = NULL;
    if (pool->poisoned)
        return poisoned_error();
    if (store_fault_at(pool, "begin") == STORE_FAIL_FULL)
        return store_error(NULL, ENOSPC);
    store_t *store;
    pthread_mutex_lock(&pool->mutex);
    err_t err = store_find(pool, company, true, &store, arena);
    if (!err_is(err))
        store->pinned = true;
    pthread_mutex_unlock(&pool->mutex);
    if (err_is(err))
        return err;
    if (store->writer)
        return err_of(ERR_INTERNAL, "a company has one write transaction at a time");
    grow_early(store);
    forget_growth(store);
    reserve(store);
    store_txn_t *txn = txn_new(store, NULL, NULL, true);
    txn->lane = lane_for_another(pool);
    on_lane(txn, begin_raw);
    if (txn->code) {
        err = store_error(store, txn->code);
        store_pin(store, false);
        free(txn);
        return err;
    }
    pool->writers++;
    *out = store->writer = txn;
    return err_ok();
}

err_t store_begin_read(store_pool_t *pool, const char *company, store_txn_t **out, arena_t *arena)
{
    *out = NULL;
    store_t *store;
    pthread_mutex_lock(&pool->mutex);
    err_t err = pool->poisoned ? poisoned_error() : store_find(pool, company, false, &store, arena);
    if (err_is(err)) {
        pthread_mutex_unlock(&pool->mutex);
        return err;
    }
    while (store->growing)
        pthread_cond_wait(&pool->calm, &pool->mutex);
    store->snapshots++;
    pthread_mutex_unlock(&pool->mutex);
    MDB_txn *raw;
    int code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &raw);
    *out = txn_new(store, code ? NULL : raw, NULL, false);
    if (!code)
        return err_ok();
    store_abort(out);
    if (code == MDB_READERS_FULL)
        return err_of(ERR_BUSY, "too many snapshots are open");
    return store_error(store, code);
}

err_t store_child_begin(store_txn_t *parent, store_txn_t **out)
{
    MDB_txn *raw;
    *out = NULL;
    int code = mdb_txn_begin(parent->store->env, parent->txn, 0, &raw);
    if (code)
        return store_error(parent->store, code);
    *out = txn_new(parent->store, raw, parent, true);
    return err_ok();
}

static void end_snapshot(store_t *store)
{
    store_pool_t *pool = store->pool;
    pthread_mutex_lock(&pool->mutex);
    if (--store->snapshots == 0)
        pthread_cond_broadcast(&pool->calm);
    pthread_mutex_unlock(&pool->mutex);
}

/* From here on `store` may be closed at any time. */
static void release_writer(store_t *store)
{
    store->pool->writers--;
    store->writer = NULL;
    store_pin(store, false);
}

void store_abort(store_txn_t **handle)
{
    store_txn_t *txn = *handle;
    *handle = NULL;
    if (!txn)
        return;
    if (txn->starting)
        lane_wait(txn->lane); /* too late: it is on disk, though nobody was told */
    else if (txn->txn)
        on_lane(txn, abort_raw);
    if (!txn->write)
        end_snapshot(txn->store);
    else if (!txn->parent)
        release_writer(txn->store);
    free(txn);
}

static err_t poison(store_pool_t *pool, err_t err)
{
    pthread_mutex_lock(&pool->mutex);
    pool->poisoned = true;
    pthread_mutex_unlock(&pool->mutex);
    return err;
}

/* Nothing is in the way of the sync; else what is. */
static err_t may_commit(store_pool_t *pool)
{
    store_fault_kind_t kind = store_fault_at(pool, "commit.before");
    if (pool->poisoned)
        return poisoned_error();
    if (kind == STORE_FAIL_FULL)
        return store_error(NULL, ENOSPC);
    if (kind != STORE_GO)
        return err_of(ERR_IO, "the disk refused to sync");
    if (!pool->options.nosync && !dir_owned(&pool->owner))
        return err_of(ERR_OWNED, "the data directory was replaced under us");
    return err_ok();
}

bool store_commit_start(store_txn_t *txn)
{
    if (!txn->lane)
        return false;
    txn->refused = may_commit(txn->store->pool);
    if (err_is(txn->refused))
        return false; /* store_commit will say so */
    txn->starting = true;
    lane_start(txn->lane, commit_aside, txn);
    return true;
}

bool store_commit_over(const store_txn_t *txn)
{
    return atomic_load(&txn->over);
}

static err_t commit_top(store_txn_t *txn)
{
    store_t *store = txn->store;
    store_pool_t *pool = store->pool;
    err_t err = txn->refused;
    if (!txn->starting && !err_is(err))
        err = may_commit(pool);
    if (err_is(err)) {
        on_lane(txn, abort_raw);
        release_writer(store);
        return err.code == ERR_FULL ? err : poison(pool, err);
    }
    if (txn->starting)
        lane_wait(txn->lane);
    else
        on_lane(txn, commit_raw);
    err = store_error(store, txn->code);
    release_writer(store);
    if (txn->code)
        return err.code == ERR_FULL ? err : poison(pool, err);
    if (store_fault_at(pool, "commit.after") == STORE_FAIL_AFTER)
        return poison(pool, err_of(ERR_IO, "the process died right after the sync"));
    return err_ok();
}

err_t store_commit(store_txn_t **handle)
{
    store_txn_t *txn = *handle;
    *handle = NULL;
    err_t err;
    if (!txn->write) {
        *handle = txn;
        store_abort(handle);
        return err_of(ERR_INTERNAL, "a snapshot cannot be committed");
    }
    err = txn->parent ? store_error(txn->store, mdb_txn_commit(txn->txn)) : commit_top(txn);
    free(txn);
    return err;
}

uint64_t store_writes(const store_txn_t *txn)
{
    return txn->writes;
}

/* ---- Growth ---- */

bool store_wants_growth(store_pool_t *pool, const char *company)
{
    return !strcmp(pool->wants_growth, company);
}

/* With the mutex held: no snapshot is open when it returns true. */
static bool wait_calm(store_t *store)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += GROW_WAIT_S;
    while (store->snapshots)
        if (pthread_cond_timedwait(&store->pool->calm, &store->pool->mutex, &end) == ETIMEDOUT)
            return false;
    return true;
}

/* Without patience it grows only when no snapshot is open right now. */
static err_t grow(store_pool_t *pool, const char *company, bool patient)
{
    pthread_mutex_lock(&pool->mutex);
    store_t *store = store_opened(pool, company);
    err_t err;
    MDB_envinfo info;
    if (!store || store->writer) {
        err = err_of(ERR_INTERNAL, "a map grows only between transactions");
    } else if (mdb_env_info(store->env, &info) ||
               (int64_t)info.me_mapsize * 2 > pool->options.largest_bytes) {
        err = err_of(ERR_QUOTA, "the company's store is at its largest size");
    } else if (!patient && store->snapshots) {
        err = err_of(ERR_BUSY, "a snapshot is open");
    } else {
        store->growing = true;
        if (!wait_calm(store))
            err = err_of(ERR_BUSY, "snapshots are open for too long: the map cannot grow");
        else
            err = store_error(store, mdb_env_set_mapsize(store->env, info.me_mapsize * 2));
        store->growing = false;
        forget_growth(store);
        pthread_cond_broadcast(&pool->calm);
    }
    pthread_mutex_unlock(&pool->mutex);
    return err;
}

err_t store_grow(store_pool_t *pool, const char *company)
{
    return grow(pool, company, true);
}
