#include "bus/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "bus/lane.h"
#include "proto/frame.h"

RECORD_DEFINE(store_table_stat, store_table_stat_FIELDS)
RECORD_DEFINE(store_stat, store_stat_FIELDS)

enum {
    FIRST_MAP = 1 << 20,
    GROW_WAIT_S = 5,
    READERS = 126,
    LANES = 8, /* companies synced at once, besides the one on the owner's thread */
    TICK_MS = 60000,
    NFS_MAGIC = 0x6969,
    FORMAT_TABLE = 0 /* of the unnamed table: the row "format" */
};

static const int64_t LARGEST_MAP = (int64_t)64 << 30;

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

/* A company whose environment a thread is opening; lives on that thread's stack. */
typedef struct opening {
    struct opening *next;
    const char *company;
} opening_t;

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
    int owner_fd;
    dev_t owner_dev;
    ino_t owner_ino;
    uint64_t epoch;
    store_t *stores;
    opening_t *opening;
    int open_count; /* with those being opened */
    lane_t *lanes[LANES];
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

/* ---- Faults ---- */

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

static store_fault_kind_t fault(store_pool_t *pool, const char *point)
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

static store_fault_kind_t fault(store_pool_t *pool, const char *point)
{
    (void)pool;
    (void)point;
    return STORE_GO;
}
#endif

/* ---- Errors ---- */

static err_t poisoned_error(void)
{
    return err_of(ERR_IO, "the store failed earlier: the process must start again from disk");
}

static err_t map_error(store_t *store, int code)
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

static err_t dir_error(arena_t *arena, const char *path, int code)
{
    if (code == ENOSPC || code == EDQUOT)
        return err_make(arena, ERR_FULL, "no space left on the disk of %s", path);
    return err_make(arena, ERR_IO, "cannot use the data directory %s: %s", path, strerror(code));
}

/* ---- The owner ---- */

static err_t make_dirs(const char *path, arena_t *arena)
{
    char *copy = arena_strdup(arena, path);
    for (char *at = copy + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (mkdir(copy, 0750) && errno != EEXIST)
            return dir_error(arena, copy, errno);
        *at = '/';
    }
    if (mkdir(copy, 0750) && errno != EEXIST)
        return dir_error(arena, copy, errno);
    return err_ok();
}

static err_t refuse_nfs(const char *dir, arena_t *arena)
{
    struct statfs info;
    if (!statfs(dir, &info) && (uint32_t)info.f_type == NFS_MAGIC)
        return err_make(arena, ERR_IO,
                        "%s is on NFS, where locks and maps cannot be trusted: "
                        "use a local disk or a ReadWriteOnce volume",
                        dir);
    return err_ok();
}

static err_t sync_dir(const char *dir, arena_t *arena)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd)) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return dir_error(arena, dir, code);
    }
    close(fd);
    return err_ok();
}

/* The file holds the epoch as text and is locked for life. */
static err_t take_ownership(store_pool_t *pool, arena_t *arena)
{
    const char *path = arena_printf(arena, "%s/owner", pool->dir);
    pool->owner_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (pool->owner_fd < 0)
        return dir_error(arena, path, errno);
    if (flock(pool->owner_fd, LOCK_EX | LOCK_NB))
        return err_make(arena, ERR_OWNED,
                        "another process owns %s; stop it (agency down) or use another --data",
                        pool->dir);
    char text[32] = "";
    ssize_t size = pread(pool->owner_fd, text, sizeof(text) - 1, 0);
    text[size > 0 ? size : 0] = '\0';
    pool->epoch = strtoull(text, NULL, 10) + 1;
    int length = snprintf(text, sizeof(text), "%020" PRIu64 "\n", pool->epoch);
    if (pwrite(pool->owner_fd, text, (size_t)length, 0) != length || fsync(pool->owner_fd))
        return dir_error(arena, path, errno);
    struct stat info;
    if (fstat(pool->owner_fd, &info))
        return dir_error(arena, path, errno);
    pool->owner_dev = info.st_dev;
    pool->owner_ino = info.st_ino;
    return sync_dir(pool->dir, arena);
}

/* Is <dir>/owner still the file that we hold? */
static bool still_owner(const store_pool_t *pool)
{
    char path[4096];
    struct stat info;
    snprintf(path, sizeof(path), "%s/owner", pool->dir);
    return !stat(path, &info) && info.st_dev == pool->owner_dev && info.st_ino == pool->owner_ino;
}

err_t store_pool_open(const store_pool_options_t *options, store_pool_t **out, arena_t *arena)
{
    *out = NULL;
    err_t err = make_dirs(options->dir, arena);
    if (!err_is(err))
        err = refuse_nfs(options->dir, arena);
    if (err_is(err))
        return err;
    store_pool_t *pool = calloc(1, sizeof(*pool));
    if (!pool || !(pool->dir = strdup(options->dir)))
        abort();
    pool->options = *options;
    pool->owner_fd = -1;
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
                                           : take_ownership(pool, arena);
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
    for (int i = 0; i < LANES; i++)
        lane_close(&pool->lanes[i]);
    if (pool->owner_fd >= 0)
        close(pool->owner_fd);
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
    return pool->epoch;
}

int store_pool_open_count(const store_pool_t *pool)
{
    return pool->open_count;
}

static const char *store_dir(const store_pool_t *pool, const char *company, arena_t *arena)
{
    return arena_printf(arena, "%s/%s/store", pool->dir, company);
}

static bool on_disk(const store_pool_t *pool, const char *company, arena_t *arena)
{
    struct stat info;
    return !stat(arena_printf(arena, "%s/data.mdb", store_dir(pool, company, arena)), &info);
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
        if (!frame_company_name(entry->d_name) || !on_disk(pool, entry->d_name, arena))
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

/* ---- Opening an environment ---- */

static int64_t file_size(MDB_env *env)
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
    mdb_env_set_maxreaders(env, READERS);
    mdb_env_set_mapsize(env, FIRST_MAP);
    code = open_lean(env, dir, flags);
    /* A file that has grown beyond the first map keeps its size and room to write. */
    int64_t size = file_size(env);
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

/* Opens all tables; with `format` 0 on disk the environment is new. */
static int open_tables(store_t *store, uint32_t *format)
{
    store_pool_t *pool = store->pool;
    MDB_txn *txn;
    MDB_dbi root;
    int code = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (code)
        return code;
    code = mdb_dbi_open(txn, NULL, 0, &root);
    MDB_val key = {6, "format"}, value;
    *format = 0;
    if (!code && !mdb_get(txn, root, &key, &value) && value.mv_size == sizeof(*format))
        memcpy(format, value.mv_data, sizeof(*format));
    if (!code && !*format) {
        value = (MDB_val){sizeof(pool->options.format), (void *)&pool->options.format};
        code = mdb_put(txn, root, &key, &value, 0);
        *format = pool->options.format;
    }
    for (int i = 0; i < pool->table_count && !code; i++)
        code = mdb_dbi_open(txn, pool->options.tables[i].name, MDB_CREATE, &store->tables[i]);
    if (code) {
        mdb_txn_abort(txn);
        return code;
    }
    return mdb_txn_commit(txn);
}

static int write_format(store_t *store)
{
    MDB_txn *txn;
    MDB_dbi root;
    int code = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (code)
        return code;
    MDB_val key = {6, "format"};
    MDB_val value = {sizeof(store->pool->options.format), (void *)&store->pool->options.format};
    code = mdb_dbi_open(txn, NULL, 0, &root);
    if (!code)
        code = mdb_put(txn, root, &key, &value, 0);
    if (code) {
        mdb_txn_abort(txn);
        return code;
    }
    return mdb_txn_commit(txn);
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
        err_t err = map_error(NULL, code);
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
        return map_error(NULL, code);
    store_t *copy;
    uint32_t format;
    err_t err = open_at(pool, old->company, fresh, &copy, &format, arena);
    if (err_is(err))
        return err;
    store_txn_t txn = {.store = copy, .write = true};
    code = mdb_txn_begin(copy->env, NULL, 0, &txn.txn);
    err = code ? map_error(NULL, code) : pool->options.migrate(&txn, from);
    if (err_is(err)) {
        if (!code)
            mdb_txn_abort(txn.txn);
    } else {
        code = mdb_txn_commit(txn.txn);
        err = map_error(NULL, code ? code : write_format(copy));
    }
    mdb_env_close(copy->env);
    free(copy);
    if (!err_is(err) && rename(data, arena_printf(arena, "%s/data.mdb", dir)))
        err = dir_error(arena, dir, errno);
    return err_is(err) ? err : sync_dir(dir, arena);
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

static store_t *find_open(store_pool_t *pool, const char *company)
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

/* Opens, and creates or migrates, without the mutex: it may take a while. */
static err_t open_company(store_pool_t *pool, const char *company, bool create, store_t **out,
                          arena_t *arena)
{
    const char *dir = store_dir(pool, company, arena);
    bool fresh = !on_disk(pool, company, arena);
    if (fresh && !create)
        return err_of(ERR_NOT_FOUND, NULL);
    err_t err = fresh ? make_dirs(dir, arena) : err_ok();
    uint32_t format;
    for (int tries = 0; !err_is(err) && tries < 2; tries++) {
        err = open_at(pool, company, dir, out, &format, arena);
        if (err_is(err))
            return err;
        err = check_format(*out, format, dir, arena);
        if (!err_is(err))
            break;
        mdb_env_close((*out)->env);
        free(*out);
        *out = NULL;
        if (err.code != ERR_BUSY)
            return err;
        err = err_ok();
    }
    /* The names of the new directories must survive a crash as well as the data in them. */
    if (err_is(err) || !fresh || pool->options.nosync)
        return err;
    err = sync_dir(dir, arena);
    if (!err_is(err))
        err = sync_dir(arena_printf(arena, "%s/%s", pool->dir, company), arena);
    if (!err_is(err))
        err = sync_dir(pool->dir, arena);
    if (err_is(err)) {
        mdb_env_close((*out)->env);
        free(*out);
        *out = NULL;
    }
    return err;
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

/* With the mutex held, which is let go while an environment is opened: one thread opens it, the
 * others wait for that. */
static err_t find_store(store_pool_t *pool, const char *company, bool create, store_t **out,
                        arena_t *arena)
{
    while (!(*out = find_open(pool, company)) && is_opening(pool, company))
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
    err_t err = open_company(pool, company, create, out, arena);
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

/* ---- Transactions ---- */

static store_txn_t *txn_new(store_t *store, MDB_txn *raw, store_txn_t *parent, bool write)
{
    store_txn_t *txn = malloc(sizeof(*txn));
    if (!txn)
        abort();
    *txn = (store_txn_t){.store = store, .txn = raw, .parent = parent, .write = write};
    return txn;
}

/* The owner's hold on an environment, which reader threads would otherwise close to make room. */
static void pin(store_t *store, bool pinned)
{
    pthread_mutex_lock(&store->pool->mutex);
    store->pinned = pinned;
    pthread_mutex_unlock(&store->pool->mutex);
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
    int64_t size = file_size(store->env);
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
    lane_t **lane = &pool->lanes[pool->next_lane++ % LANES];
    if (!*lane)
        *lane = lane_open();
    return *lane;
}

err_t store_begin_write(store_pool_t *pool, const char *company, store_txn_t **out, arena_t *arena)
{
    *out = NULL;
    if (pool->poisoned)
        return poisoned_error();
    if (fault(pool, "begin") == STORE_FAIL_FULL)
        return map_error(NULL, ENOSPC);
    store_t *store;
    pthread_mutex_lock(&pool->mutex);
    err_t err = find_store(pool, company, true, &store, arena);
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
        err = map_error(store, txn->code);
        pin(store, false);
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
    err_t err = pool->poisoned ? poisoned_error() : find_store(pool, company, false, &store, arena);
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
    return map_error(store, code);
}

err_t store_child_begin(store_txn_t *parent, store_txn_t **out)
{
    MDB_txn *raw;
    *out = NULL;
    int code = mdb_txn_begin(parent->store->env, parent->txn, 0, &raw);
    if (code)
        return map_error(parent->store, code);
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
    pin(store, false);
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
    store_fault_kind_t kind = fault(pool, "commit.before");
    if (pool->poisoned)
        return poisoned_error();
    if (kind == STORE_FAIL_FULL)
        return map_error(NULL, ENOSPC);
    if (kind != STORE_GO)
        return err_of(ERR_IO, "the disk refused to sync");
    if (!pool->options.nosync && !still_owner(pool))
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
    err = map_error(store, txn->code);
    release_writer(store);
    if (txn->code)
        return err.code == ERR_FULL ? err : poison(pool, err);
    if (fault(pool, "commit.after") == STORE_FAIL_AFTER)
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
    err = txn->parent ? map_error(txn->store, mdb_txn_commit(txn->txn)) : commit_top(txn);
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
    store_t *store = find_open(pool, company);
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
            err = map_error(store, mdb_env_set_mapsize(store->env, info.me_mapsize * 2));
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

/* ---- Rows ---- */

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
    return map_error(txn->store, code);
}

/* A failed write may leave half of itself behind, unless it was refused before it began. */
static err_t wrote(store_txn_t *txn, int code)
{
    txn->writes += code != MDB_KEYEXIST && code != MDB_NOTFOUND && code != MDB_BAD_VALSIZE;
    return map_error(txn->store, code);
}

static err_t put(store_txn_t *txn, int table, bytes_t key, bytes_t value, unsigned flags)
{
    if (fault(txn->store->pool, "put") == STORE_FAIL_FULL)
        return map_error(NULL, ENOSPC);
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
    return map_error(txn->store, code);
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

/* ---- Keys ---- */

void key_open(store_key_t *key)
{
    key->size = 0;
    key->overflow = false;
}

void key_raw(store_key_t *key, const void *data, size_t size)
{
    if (size > sizeof(key->data) - key->size) {
        key->overflow = true;
        return;
    }
    if (size)
        memcpy(key->data + key->size, data, size);
    key->size += size;
}

void key_u8(store_key_t *key, uint8_t value)
{
    key_raw(key, &value, 1);
}

void key_u64(store_key_t *key, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    key_raw(key, bytes, 8);
}

void key_i64(store_key_t *key, int64_t value)
{
    key_u64(key, (uint64_t)value ^ (uint64_t)1 << 63);
}

void key_str(store_key_t *key, const char *text)
{
    /* No 0 can be inside a C string, so 0 ends it and prefix order holds. */
    key_raw(key, text, strlen(text) + 1);
}

bytes_t key_bytes(const store_key_t *key)
{
    /* An overflown key is empty: LMDB refuses it, ERR_ARGUMENT. */
    return (bytes_t){key->data, key->overflow ? 0 : key->size};
}

bool key_read_u8(bytes_t *key, uint8_t *value)
{
    if (!key->size)
        return false;
    *value = *key->data++;
    key->size--;
    return true;
}

bool key_read_u64(bytes_t *key, uint64_t *value)
{
    if (key->size < 8)
        return false;
    *value = 0;
    for (int i = 0; i < 8; i++)
        *value = *value << 8 | key->data[i];
    key->data += 8;
    key->size -= 8;
    return true;
}

bool key_read_i64(bytes_t *key, int64_t *value)
{
    uint64_t raw;
    if (!key_read_u64(key, &raw))
        return false;
    *value = (int64_t)(raw ^ (uint64_t)1 << 63);
    return true;
}

bool key_read_str(bytes_t *key, arena_t *arena, const char **text)
{
    const uint8_t *end = memchr(key->data, 0, key->size);
    if (!end)
        return false;
    size_t size = (size_t)(end - key->data);
    *text = arena_strndup(arena, (const char *)key->data, size);
    key->data += size + 1;
    key->size -= size + 1;
    return true;
}

/* ---- Looking after it ---- */

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
    return code ? dir_error(arena, data, code) : sync_dir(dir, arena);
}

err_t store_copy(store_pool_t *pool, const char *company, const char *dir, arena_t *arena)
{
    store_t *store;
    pthread_mutex_lock(&pool->mutex);
    err_t err = find_store(pool, company, false, &store, arena);
    bool held = !err_is(err) && store->pinned; /* by a write transaction */
    if (!err_is(err))
        store->pinned = true;
    pthread_mutex_unlock(&pool->mutex);
    if (err_is(err))
        return err;
    err = copy_env(store->env, dir, arena);
    pin(store, held);
    return err;
}

/* Its own map, of the size the file has now: the owner may let its map grow meanwhile. */
static err_t copy_apart(const char *from, const char *to, arena_t *arena)
{
    MDB_env *env;
    MDB_txn *txn;
    int code = mdb_env_create(&env);
    if (code)
        return map_error(NULL, code);
    mdb_env_set_maxreaders(env, READERS);
    code = mdb_env_open(env, from, MDB_RDONLY | MDB_NOTLS, 0640);
    /* The file may have grown between the two; 0 takes over its size. */
    while (!code && (code = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)) == MDB_MAP_RESIZED)
        code = mdb_env_set_mapsize(env, 0);
    err_t err = code ? map_error(NULL, code) : err_ok();
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

static int read_format(MDB_env *env, uint32_t *format)
{
    MDB_txn *txn;
    MDB_dbi root;
    MDB_val key = {6, "format"}, value;
    int code = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (code)
        return code;
    code = mdb_dbi_open(txn, NULL, 0, &root);
    if (!code)
        code = mdb_get(txn, root, &key, &value);
    if (!code && value.mv_size != sizeof(*format))
        code = MDB_CORRUPTED;
    if (!code)
        memcpy(format, value.mv_data, sizeof(*format));
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
        return map_error(NULL, code);
    mdb_env_set_maxreaders(env, READERS);
    code = mdb_env_open(env, dir, MDB_RDONLY | MDB_NOTLS | (live ? 0 : MDB_NOLOCK), 0640);
    if (!code)
        code = read_format(env, format);
    mdb_env_close(env);
    return map_error(NULL, code);
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
                          .file_bytes = file_size(txn->store->env),
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
