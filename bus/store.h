/* store: the one door to LMDB. A pool is the directory of one pillar; in it each company has an
 * environment of its own, <dir>/<company>/store/.
 *
 * CAVEATS FIRST
 * - One owner: opening a pool takes flock on <dir>/owner for the life of the pool and raises a
 *   durable epoch. A second process gets ERR_OWNED. Every commit checks that the lock file is still
 *   ours: whoever replaced the directory under a running owner gets its commits refused.
 * - A pool's functions, and write transactions, belong to one thread. store_begin_read and what is
 *   done with that snapshot may happen on other threads.
 * - Keys and values that a get or scan yields point into the map: they die with the transaction
 *   and, in a write transaction, with its next write.
 * - A failed sync poisons the pool: everything after it is ERR_IO, and the process must end; the
 *   truth is on disk.
 * - A map that is too small makes a write fail with ERR_FULL. It grows only when no transaction is
 *   open: abort the batch, store_grow, do it again.
 * - Never on NFS, never one environment twice in a process.
 */
#ifndef BUS_STORE_H
#define BUS_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/key.h"
#include "proto/arena.h"
#include "proto/err.h"
#include "proto/record.h"

typedef struct store_pool store_pool_t;
typedef struct store_txn store_txn_t;

/* A table of every environment of the pool; its index in the list is its handle. */
typedef struct store_table {
    const char *name;
} store_table_t;

enum { STORE_TABLES = 24, STORE_OPEN_DEFAULT = 64 };

/* What a fault switch may answer. Only looked at in builds with AGENCY_FAULTS. */
typedef enum store_fault_kind {
    STORE_GO,
    STORE_FAIL_FULL,  /* as if the disk were full: ERR_FULL, nothing written */
    STORE_FAIL_SYNC,  /* the commit fails: ERR_IO, pool poisoned, nothing written */
    STORE_FAIL_AFTER, /* at "commit.after": it is on disk, but the process dies before it knows */
} store_fault_kind_t;

/* Called at named points: "begin", "put", "commit.before", "commit.after". */
typedef struct store_fault {
    store_fault_kind_t (*at)(void *ctx, const char *point);
    void *ctx;
} store_fault_t;

typedef struct store_pool_options {
    const char *dir;
    const store_table_t *tables; /* ends with name NULL */
    uint32_t format;             /* version of the stored format, from 1 */
    /* Brings one environment, a copy, from an older format to this one. NULL: refused. */
    err_t (*migrate)(store_txn_t *txn, uint32_t from);
    int open_limit;        /* environments open at once, 1..1024; 0: 64 */
    int64_t largest_bytes; /* map of one company; 0: 64 GiB */
    store_fault_t fault;
    bool nosync; /* simulation only: never for data that matters */
    /* A commit that was started is over; called on another thread. NULL: nobody asks. */
    void (*synced)(void *ctx);
    void *synced_ctx;
} store_pool_options_t;

/* Takes the lock and raises the epoch. ERR_OWNED, ERR_IO, ERR_FULL, ERR_VERSION; the sentence lives
 * in `arena`. */
err_t store_pool_open(const store_pool_options_t *options, store_pool_t **out, arena_t *arena);
/* Aborts what is open, closes all, releases the lock. */
void store_pool_close(store_pool_t **pool);
/* The same as dying, for simulation: nothing is committed. */
void store_pool_abandon(store_pool_t **pool);

uint64_t store_pool_epoch(const store_pool_t *pool);
/* Companies that have an environment on disk, sorted. */
err_t store_pool_companies(store_pool_t *pool, arena_t *arena, strs_t *out);
/* Once a minute: frees reader slots of dead threads. */
void store_pool_tick(store_pool_t *pool, int64_t now_ms);
/* How many environments are open. */
int store_pool_open_count(const store_pool_t *pool);

/* ---- Transactions ---- */

/* Creates the environment when there is none. ERR_FULL, ERR_IO, ERR_VERSION, ERR_COMPANY. */
err_t store_begin_write(store_pool_t *pool, const char *company, store_txn_t **out, arena_t *arena);
/* A snapshot of the last commit. ERR_NOT_FOUND when the company has no environment. */
err_t store_begin_read(store_pool_t *pool, const char *company, store_txn_t **out, arena_t *arena);
/* Nested in a write transaction; while it is open the parent must not be used. */
err_t store_child_begin(store_txn_t *parent, store_txn_t **out);
/* Top level: on disk when it returns OK. Child: merged into the parent. The handle is gone either
 * way. ERR_FULL: nothing was written and the pool lives on. */
err_t store_commit(store_txn_t **txn);
/* Top level, before store_commit: lets it sync beside other companies, where a thread of its own
 * began it. True when it does. */
bool store_commit_start(store_txn_t *txn);
/* Of one that was started: store_commit will not have to wait. */
bool store_commit_over(const store_txn_t *txn);
/* From now on every company is synced on a thread of its own, so that the owner's has its hands
 * free; or only those beside the first. */
void store_pool_sync_aside(store_pool_t *pool, bool aside);
void store_abort(store_txn_t **txn);

/* How many rows this transaction has put and deleted, not counting those of its children. */
uint64_t store_writes(const store_txn_t *txn);

/* Would the write that just failed with ERR_FULL succeed on a larger map? */
bool store_wants_growth(store_pool_t *pool, const char *company);
/* Doubles the map; waits up to 5 s for snapshots on other threads. ERR_QUOTA at the largest size,
 * ERR_BUSY when snapshots do not end. */
err_t store_grow(store_pool_t *pool, const char *company);

/* ---- Rows ---- */

/* ERR_NOT_FOUND (without a sentence). */
err_t store_get(store_txn_t *txn, int table, bytes_t key, bytes_t *value);
err_t store_put(store_txn_t *txn, int table, bytes_t key, bytes_t value);
/* ERR_EXISTS when the key is there. */
err_t store_put_new(store_txn_t *txn, int table, bytes_t key, bytes_t value);
/* For keys that only grow: faster, and falls back to store_put. */
err_t store_append(store_txn_t *txn, int table, bytes_t key, bytes_t value);
/* ERR_NOT_FOUND when it was not there. */
err_t store_del(store_txn_t *txn, int table, bytes_t key);
int64_t store_count(store_txn_t *txn, int table);

/* Rows in order. A write to the table during a scan is allowed only through store_scan_del. */
typedef struct store_scan {
    void *cursor;
    store_txn_t *txn;
    bytes_t prefix;
    bool reverse, started;
    bytes_t from;
} store_scan_t;

/* Rows whose key begins with `prefix` (empty: all), beginning at the first key >= `from`, or in
 * reverse at the last key <= `from`; an empty `from` means the end that comes first. `prefix` and
 * `from` must stay valid during the scan. */
err_t store_scan_open(store_scan_t *scan, store_txn_t *txn, int table, bytes_t prefix, bytes_t from,
                      bool reverse);
bool store_scan_next(store_scan_t *scan, bytes_t *key, bytes_t *value);
/* Deletes the row that store_scan_next gave last. */
err_t store_scan_del(store_scan_t *scan);
void store_scan_close(store_scan_t *scan);

/* ---- Looking after it ---- */

/* A consistent copy of one company's environment into an existing empty directory, on disk when it
 * returns. ERR_NOT_FOUND, ERR_FULL, ERR_IO. */
err_t store_copy(store_pool_t *pool, const char *company, const char *dir, arena_t *arena);
/* The same from a process of its own that the owner starts, so that the owner goes on: main of
 * `agency store-copy FROM TO`, both directories of stores. */
int store_copy_main(int argc, char **argv);

/* The version of the stored format, read without the owner's lock. `live`: somebody may be writing.
 * ERR_NOT_FOUND: no store there. ERR_CORRUPT, ERR_IO. */
err_t store_peek(const char *dir, bool live, arena_t *arena, uint32_t *format);

#define store_table_stat_FIELDS(F)                                                                 \
    F(STR, name, must, 0, 0, "Table.")                                                             \
    F(INT, rows, must, 0, 0, "Rows in it.")                                                        \
    F(INT, bytes, must, 0, 0, "Bytes of its pages.")
RECORD_STRUCT(store_table_stat, store_table_stat_FIELDS)
extern const record_t store_table_stat_record;

#define store_stat_FIELDS(F)                                                                       \
    F(STR, company, must, 0, 0, "Whose environment.")                                              \
    F(INT, format, must, 0, 0, "Version of the stored format.")                                    \
    F(INT, map_bytes, must, 0, 0, "Size of the map.")                                              \
    F(INT, file_bytes, must, 0, 0, "Size of the file.")                                            \
    F(INT, used_bytes, must, 0, 0, "Bytes in use.")                                                \
    F(INT, last_txn, must, 0, 0, "Number of the last transaction.")                                \
    F(LIST(store_table_stat), tables, must, 0, 0, "By table.")
RECORD_STRUCT(store_stat, store_stat_FIELDS)
extern const record_t store_stat_record;

err_t store_stat(store_pool_t *pool, const char *company, arena_t *arena, store_stat_t *out);
/* Reads every row of every table and compares the counts. ERR_CORRUPT. */
err_t store_check(store_pool_t *pool, const char *company, arena_t *arena);

#endif
