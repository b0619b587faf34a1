#include "support_floor.h"

#include <lmdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

enum { ROW_MOST = 4096 };

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double floor_rows(const char *dir, int waiting, int row_bytes, double seconds)
{
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn;
    char row[ROW_MOST] = {0};
    uint64_t number = 0;
    mkdir(dir, 0700);
    if (row_bytes > ROW_MOST || mdb_env_create(&env))
        abort();
    mdb_env_set_mapsize(env, (size_t)4 << 30);
    if (mdb_env_open(env, dir, 0, 0600))
        abort();
    double began = now_s();
    while (now_s() < began + seconds) {
        mdb_txn_begin(env, NULL, 0, &txn);
        mdb_dbi_open(txn, NULL, 0, &dbi);
        for (int i = 0; i < waiting; i++, number++) {
            uint64_t id = __builtin_bswap64(number);
            MDB_val key = {sizeof(id), &id}, value = {(size_t)row_bytes, row};
            if (mdb_put(txn, dbi, &key, &value, 0))
                abort();
        }
        if (mdb_txn_commit(txn))
            abort();
    }
    double rate = (double)number / (now_s() - began);
    mdb_env_close(env);
    return rate;
}
