/* store_parts: what the files of the store give each other. Inside the store only; users include
 * store.h.
 *
 *   store.c        the pool, and which environments are open
 *   store_txn.c    transactions, and maps that grow
 *   store_env.c    one environment: opened, created, brought to the present format
 *   store_rows.c   rows and scans
 *   store_care.c   copies, figures, checks
 *
 * The five are together the one door to LMDB. Thread: as store.h says; what is guarded by the mutex
 * says so.
 */
#ifndef BUS_STORE_PARTS_H
#define BUS_STORE_PARTS_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "bus/dir.h"
#include "bus/lane.h"
#include "bus/store.h"

enum {
    STORE_READERS = 126, /* snapshots of one environment at once, over all processes */
    STORE_LANES = 8      /* companies synced at once, besides the one on the owner's thread */
};

/* One company's environment. */
typedef struct store {
    struct store *next; /* most recently used first */
    store_pool_t *pool;
    char company[65];
    MDB_env *env;
    MDB_dbi tables[STORE_TABLES];
    int snapshots;          /* open read transactions, any thread; guarded by pool->mutex */
    bool growing;           /* no new snapshots; guarded by pool->mutex */
    int64_t reserved_bytes; /* the file is so long; 0: not looked at yet; owner's thread */
    bool pinned;            /* in use by the owner: not to be closed; guarded by pool->mutex */
    store_txn_t *writer;
} store_t;

struct store_txn {
    store_t *store;
    MDB_txn *txn;
    store_txn_t *parent;
    bool write;
    uint64_t writes;
    lane_t *lane;  /* where it was begun; NULL: on the owner's thread */
    bool starting; /* its commit was given to the lane */
    err_t refused; /* or could not be */
    int code;      /* what LMDB said, on the lane */
    atomic_bool over;
};

struct store_pool {
    store_pool_options_t options;
    char *dir;
    int table_count;
    dir_owner_t owner;
    store_t *stores;
    struct opening *opening; /* companies whose environments threads are opening */
    int open_count;          /* with those being opened */
    lane_t *lanes[STORE_LANES];
    int writers, next_lane; /* top-level write transactions that are open; owner's thread */
    bool poisoned, aside;
    char wants_growth[65]; /* the company whose write failed for want of room; owner's thread */
    int64_t ticked_ms;
    /* Snapshots begin and end on reader threads while the owner opens, grows and closes. */
    pthread_mutex_t mutex;
    pthread_cond_t calm;
#ifdef AGENCY_FAULTS
    char kill_point[32];
    long kill_countdown;
#endif
};

/* ---- store.c ---- */

/* What LMDB said. `store`, when not NULL, is remembered as too small after MDB_MAP_FULL. */
err_t store_error(store_t *store, int code);
#ifdef AGENCY_FAULTS
store_fault_kind_t store_fault_at(store_pool_t *pool, const char *point);
#else
static inline store_fault_kind_t store_fault_at(store_pool_t *pool, const char *point)
{
    (void)pool;
    (void)point;
    return STORE_GO;
}
#endif

/* The open environment of a company, opened when it was not; `create`: and made. With the mutex
 * held, which is let go while an environment is opened: one thread opens it, the others wait for
 * that. ERR_NOT_FOUND, ERR_COMPANY, and what opening says. */
err_t store_find(store_pool_t *pool, const char *company, bool create, store_t **out,
                 arena_t *arena);
/* The environment if it is open, which counts as a use of it. With the mutex held. */
store_t *store_opened(store_pool_t *pool, const char *company);
/* The owner's hold on an environment, which reader threads would otherwise close to make room. */
void store_pin(store_t *store, bool pinned);

/* ---- store_env.c ---- */

const char *store_dir(const store_pool_t *pool, const char *company, arena_t *arena);
bool store_on_disk(const store_pool_t *pool, const char *company, arena_t *arena);
int64_t store_file_size(MDB_env *env);
/* Opens, and creates or migrates, without the mutex: it may take a while. The caller puts it into
 * the pool, and ends it with mdb_env_close and free. */
err_t store_open(store_pool_t *pool, const char *company, bool create, store_t **out,
                 arena_t *arena);

#endif
