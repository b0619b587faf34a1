#include "bus/store.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/store_parts.h"
#include "proto/frame.h"

enum { TICK_MS = 60000 };

static const int64_t LARGEST_MAP = (int64_t)64 << 30;

/* A company whose environment a thread is opening; lives on that thread's stack. */
typedef struct opening {
    struct opening *next;
    const char *company;
} opening_t;

/* ---- Faults and errors ---- */

#ifdef AGENCY_FAULTS
/* AGENCY_FAULT="kill@commit.before:17": SIGKILL at the 17th pass of that point. */
static void read_kill_switch(store_pool_t *pool)
{
    const char *text = getenv("AGENCY_FAULT");
    if (!text || strncmp(text, "kill@", 5) != 0)
        return;
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text - 5) : 0;
    if (!colon || size >= sizeof(pool->kill_point))
        return;
    memcpy(pool->kill_point, text + 5, size);
    pool->kill_countdown = strtol(colon + 1, NULL, 10);
}

store_fault_kind_t store_fault_at(store_pool_t *pool, const char *point)
{
    if (pool->kill_countdown > 0 && !strcmp(pool->kill_point, point) && --pool->kill_countdown == 0)
        raise(SIGKILL);
    return pool->options.fault.at ? pool->options.fault.at(pool->options.fault.ctx, point)
                                  : STORE_GO;
}
#else
static void read_kill_switch(store_pool_t *pool)
{
    (void)pool;
}
#endif

err_t store_error(store_t *store, int code)
{
    switch (code) {
    case MDB_SUCCESS:
        return err_ok();
    case MDB_NOTFOUND:
        return err_of(ERR_NOT_FOUND, NULL);
    case MDB_KEYEXIST:
        return err_of(ERR_EXISTS, NULL);
    case MDB_MAP_FULL:
        if (store)
            memcpy(store->pool->wants_growth, store->company, sizeof(store->company));
        return err_of(ERR_FULL, "the map of this company is full");
    case ENOSPC:
    case EDQUOT:
        return err_of(ERR_FULL, "the disk is full: free some space or enlarge the volume");
    case MDB_BAD_VALSIZE:
        return err_of(ERR_ARGUMENT, "a key is empty or longer than 511 bytes");
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        return err_of(ERR_CORRUPT, "the data file is damaged: restore it from a backup");
    case EROFS:
    case EACCES:
        return err_of(ERR_IO, "the data directory is not writable: change its owner or mode");
    default:
        return err_of(ERR_IO, mdb_strerror(code));
    }
}

/* ---- The pool ---- */

err_t store_pool_open(const store_pool_options_t *options, store_pool_t **out, arena_t *arena)
{
    *out = NULL;
    err_t err = dir_make(options->dir, arena);
    if (err_is(err))
        return err;
    store_pool_t *pool = calloc(1, sizeof(*pool));
    if (!pool || !(pool->dir = strdup(options->dir)))
        abort();
    pool->options = *options;
    pool->owner.fd = -1;
    if (pool->options.open_limit <= 0)
        pool->options.open_limit = STORE_OPEN_DEFAULT;
    if (pool->options.largest_bytes <= 0)
        pool->options.largest_bytes = LARGEST_MAP;
    while (options->tables[pool->table_count].name)
        pool->table_count++;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->calm, NULL);
    read_kill_switch(pool);
    err = pool->table_count > STORE_TABLES ? err_of(ERR_INTERNAL, "too many tables")
                                           : dir_take(pool->dir, &pool->owner, arena);
    if (err_is(err)) {
        store_pool_close(&pool);
        return err;
    }
    *out = pool;
    return err_ok();
}

static void close_store(store_t *store)
{
    store_pool_t *pool = store->pool;
    if (store->writer) {
        store_txn_t *writer = store->writer;
        store_abort(&writer);
    }
    mdb_env_close(store->env);
    pool->open_count--;
    free(store);
}

void store_pool_close(store_pool_t **handle)
{
    store_pool_t *pool = *handle;
    if (!pool)
        return;
    while (pool->stores) {
        store_t *store = pool->stores;
        pool->stores = store->next;
        close_store(store);
    }
    for (int i = 0; i < STORE_LANES; i++)
        lane_close(&pool->lanes[i]);
    dir_leave(&pool->owner);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->calm);
    free(pool->dir);
    free(pool);
    *handle = NULL;
}

void store_pool_abandon(store_pool_t **pool)
{
    store_pool_close(pool);
}

uint64_t store_pool_epoch(const store_pool_t *pool)
{
    return pool->owner.epoch;
}

int store_pool_open_count(const store_pool_t *pool)
{
    return pool->open_count;
}

static int compare_text(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

err_t store_pool_companies(store_pool_t *pool, arena_t *arena, strs_t *out)
{
    DIR *dir = opendir(pool->dir);
    if (!dir)
        return dir_error(arena, pool->dir, errno);
    size_t capacity = 64, count = 0;
    const char **names = ARENA_ARRAY(arena, const char *, capacity);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!frame_company_name(entry->d_name) || !store_on_disk(pool, entry->d_name, arena))
            continue;
        if (count == capacity) {
            const char **grown = ARENA_ARRAY(arena, const char *, capacity * 2);
            memcpy(grown, names, capacity * sizeof(*names));
            names = grown;
            capacity *= 2;
        }
        names[count++] = arena_strdup(arena, entry->d_name);
    }
    closedir(dir);
    qsort(names, count, sizeof(*names), compare_text);
    *out = (strs_t){names, count};
    return err_ok();
}

void store_pool_tick(store_pool_t *pool, int64_t now_ms)
{
    if (now_ms - pool->ticked_ms < TICK_MS)
        return;
    pool->ticked_ms = now_ms;
    pthread_mutex_lock(&pool->mutex);
    for (store_t *store = pool->stores; store; store = store->next)
        mdb_reader_check(store->env, NULL);
    pthread_mutex_unlock(&pool->mutex);
}

/* ---- The open environments ---- */

/* Closes the one unused for longest; those with a transaction stay. */
static void make_room(store_pool_t *pool)
{
    if (pool->open_count < pool->options.open_limit)
        return;
    store_t **victim = NULL;
    for (store_t **at = &pool->stores; *at; at = &(*at)->next)
        if (!(*at)->pinned && !(*at)->snapshots)
            victim = at;
    if (!victim)
        return;
    store_t *store = *victim;
    *victim = store->next;
    close_store(store);
}

store_t *store_opened(store_pool_t *pool, const char *company)
{
    for (store_t **at = &pool->stores; *at; at = &(*at)->next) {
        if (strcmp((*at)->company, company) != 0)
            continue;
        store_t *store = *at; /* moves to the front */
        *at = store->next;
        store->next = pool->stores;
        pool->stores = store;
        return store;
    }
    return NULL;
}

static bool is_opening(const store_pool_t *pool, const char *company)
{
    const opening_t *at = pool->opening;
    while (at && strcmp(at->company, company) != 0)
        at = at->next;
    return at != NULL;
}

static void stop_opening(store_pool_t *pool, const opening_t *mine)
{
    opening_t **at = &pool->opening;
    while (*at != mine)
        at = &(*at)->next;
    *at = mine->next;
    pthread_cond_broadcast(&pool->calm);
}

err_t store_find(store_pool_t *pool, const char *company, bool create, store_t **out,
                 arena_t *arena)
{
    while (!(*out = store_opened(pool, company)) && is_opening(pool, company))
        pthread_cond_wait(&pool->calm, &pool->mutex);
    if (*out)
        return err_ok();
    if (!frame_company_name(company))
        return err_of(ERR_COMPANY, NULL);
    make_room(pool);
    opening_t mine = {pool->opening, company};
    pool->opening = &mine; // cppcheck-suppress autoVariables ; taken off before it ends
    pool->open_count++;
    pthread_mutex_unlock(&pool->mutex);
    err_t err = store_open(pool, company, create, out, arena);
    pthread_mutex_lock(&pool->mutex);
    stop_opening(pool, &mine);
    if (err_is(err)) {
        pool->open_count--;
        return err;
    }
    (*out)->next = pool->stores;
    pool->stores = *out;
    return err_ok();
}

void store_pin(store_t *store, bool pinned)
{
    pthread_mutex_lock(&store->pool->mutex);
    store->pinned = pinned;
    pthread_mutex_unlock(&store->pool->mutex);
}
