/* The store alone: rows, scans, transactions, ownership, growth, formats and faults. Crashes are
 * real: a child process is killed inside its commits and the parent compares what is on disk with
 * what the child had acknowledged. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus/store.h"
#include "house.h"

enum { ROWS, OTHER };
static const store_table_t tables[] = {{"rows"}, {"other"}, {NULL}};

typedef struct bench {
    char dir[32];
    arena_t *arena;
    store_pool_t *pool;
    store_pool_options_t options;
} bench_t;

static err_t try_pool(bench_t *bench)
{
    bench->options.dir = bench->dir;
    bench->options.tables = tables;
    if (!bench->options.format)
        bench->options.format = 1;
    return store_pool_open(&bench->options, &bench->pool, bench->arena);
}

static void open_pool(bench_t *bench)
{
    err_t err = try_pool(bench);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

static void open_bench(bench_t *bench)
{
    *bench = (bench_t){.arena = arena_new()};
    scratch_make(bench->dir);
    open_pool(bench);
}

static void close_bench(bench_t *bench)
{
    store_pool_close(&bench->pool);
    scratch_remove(bench->dir);
    arena_destroy(&bench->arena);
}

static bytes_t text(const char *text)
{
    return (bytes_t){(const uint8_t *)text, strlen(text)};
}

static void ok(err_t err)
{
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

static store_txn_t *begin(bench_t *bench, const char *company)
{
    store_txn_t *txn;
    ok(store_begin_write(bench->pool, company, &txn, bench->arena));
    return txn;
}

static store_txn_t *look(bench_t *bench, const char *company)
{
    store_txn_t *txn;
    ok(store_begin_read(bench->pool, company, &txn, bench->arena));
    return txn;
}

static void keep(bench_t *bench, const char *company, const char *key, const char *value)
{
    store_txn_t *txn = begin(bench, company);
    ok(store_put(txn, ROWS, text(key), text(value)));
    ok(store_commit(&txn));
}

static const char *found(bench_t *bench, const char *company, const char *key)
{
    store_txn_t *txn = look(bench, company);
    bytes_t value;
    err_t err = store_get(txn, ROWS, text(key), &value);
    const char *copy =
        err_is(err) ? "-" : arena_strndup(bench->arena, (const char *)value.data, value.size);
    store_abort(&txn);
    return copy;
}

START_TEST(rows_and_their_errors)
{
    bench_t bench;
    open_bench(&bench);
    store_txn_t *txn = begin(&bench, "acme");
    bytes_t value;
    ck_assert_int_eq(store_get(txn, ROWS, text("a"), &value).code, ERR_NOT_FOUND);
    ok(store_put(txn, ROWS, text("a"), text("1")));
    ck_assert_int_eq(store_put_new(txn, ROWS, text("a"), text("2")).code, ERR_EXISTS);
    ok(store_put(txn, ROWS, text("a"), text("3")));
    ok(store_put_new(txn, ROWS, text("b"), text("")));
    ok(store_append(txn, ROWS, text("c"), text("5")));
    ok(store_append(txn, ROWS, text("aa"), text("6"))); /* out of order: still stored */
    ck_assert_int_eq(store_del(txn, ROWS, text("zz")).code, ERR_NOT_FOUND);
    ok(store_del(txn, ROWS, text("c")));
    ck_assert_int_eq(store_put(txn, ROWS, text(""), text("x")).code, ERR_ARGUMENT);
    char wide[600];
    memset(wide, 'k', sizeof(wide));
    bytes_t long_key = {(uint8_t *)wide, 512};
    ck_assert_int_eq(store_put(txn, ROWS, long_key, text("x")).code, ERR_ARGUMENT);
    ck_assert_int_eq(store_count(txn, ROWS), 3);
    ck_assert_int_eq(store_count(txn, OTHER), 0);
    ok(store_commit(&txn));
    ck_assert_ptr_null(txn);
    ck_assert_str_eq(found(&bench, "acme", "a"), "3");
    ck_assert_str_eq(found(&bench, "acme", "aa"), "6");
    ck_assert_str_eq(found(&bench, "acme", "b"), "");
    ck_assert_str_eq(found(&bench, "acme", "c"), "-");
    close_bench(&bench);
}
END_TEST

/* Keys of a scan, joined. */
static const char *walk(bench_t *bench, const char *prefix, const char *from, bool reverse)
{
    store_txn_t *txn = look(bench, "acme");
    store_scan_t scan;
    bytes_t key, value;
    buf_t out;
    buf_open(&out, bench->arena);
    ok(store_scan_open(&scan, txn, ROWS, text(prefix), text(from), reverse));
    while (store_scan_next(&scan, &key, &value))
        buf_printf(&out, "%s%.*s", out.size ? " " : "", (int)key.size, (const char *)key.data);
    store_scan_close(&scan);
    store_abort(&txn);
    return out.data;
}

START_TEST(scans_both_ways)
{
    bench_t bench;
    open_bench(&bench);
    keep(&bench, "acme", "only", "x");
    ck_assert_str_eq(walk(&bench, "", "", true), "only");
    const char *keys[] = {"a1", "a2", "a3", "b1", "b2", "c\xff", "c\xff\xff", "d"};
    store_txn_t *txn = begin(&bench, "acme");
    ok(store_del(txn, ROWS, text("only")));
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
        ok(store_put(txn, ROWS, text(keys[i]), text("v")));
    ok(store_commit(&txn));
    ck_assert_str_eq(walk(&bench, "a", "", false), "a1 a2 a3");
    ck_assert_str_eq(walk(&bench, "a", "", true), "a3 a2 a1");
    ck_assert_str_eq(walk(&bench, "b", "", true), "b2 b1");
    ck_assert_str_eq(walk(&bench, "d", "", true), "d");
    ck_assert_str_eq(walk(&bench, "e", "", true), "");
    ck_assert_str_eq(walk(&bench, "e", "", false), "");
    ck_assert_str_eq(walk(&bench, "a", "a2", false), "a2 a3");
    ck_assert_str_eq(walk(&bench, "a", "a2", true), "a2 a1");
    ck_assert_str_eq(walk(&bench, "a", "a25", false), "a3");
    ck_assert_str_eq(walk(&bench, "a", "a25", true), "a2 a1");
    ck_assert_str_eq(walk(&bench, "b", "b9", true), "b2 b1");
    ck_assert_str_eq(walk(&bench, "", "b1", true), "b1 a3 a2 a1");
    ck_assert_str_eq(walk(&bench, "", "zz", true), "d c\xff\xff c\xff b2 b1 a3 a2 a1");
    ck_assert_str_eq(walk(&bench, "c\xff", "", true), "c\xff\xff c\xff");
    ck_assert_str_eq(walk(&bench, "c\xff", "", false), "c\xff c\xff\xff");
    /* A beginning outside the prefix is moved to its edge. */
    ck_assert_str_eq(walk(&bench, "b", "a2", false), "b1 b2");
    ck_assert_str_eq(walk(&bench, "a", "b2", true), "a3 a2 a1");
    ck_assert_str_eq(walk(&bench, "a", "b2", false), "");
    ck_assert_str_eq(walk(&bench, "b", "a2", true), "");
    close_bench(&bench);
}
END_TEST

static void fill(store_txn_t *txn, int count)
{
    for (int i = 0; i < count; i++) {
        store_key_t key;
        key_open(&key);
        key_u64(&key, (uint64_t)i);
        ok(store_put(txn, ROWS, key_bytes(&key), text("some words to fill pages with")));
    }
}

/* Every other row of many pages is deleted during the scan; each row is seen once. */
static void thin_out(bench_t *bench, bool reverse)
{
    enum { COUNT = 3000 };
    store_txn_t *txn = begin(bench, "acme");
    fill(txn, COUNT);
    store_scan_t scan;
    bytes_t key, value, none = {0};
    uint64_t number, expected = reverse ? COUNT - 1 : 0, seen = 0;
    ok(store_scan_open(&scan, txn, ROWS, none, none, reverse));
    while (store_scan_next(&scan, &key, &value)) {
        ck_assert(key_read_u64(&key, &number));
        ck_assert_uint_eq(number, expected);
        expected = reverse ? expected - 1 : expected + 1;
        seen++;
        if (number % 2 || number > COUNT - 100)
            ok(store_scan_del(&scan));
    }
    store_scan_close(&scan);
    ck_assert_uint_eq(seen, COUNT);
    ck_assert_int_eq(store_count(txn, ROWS), COUNT / 2 - 49);
    ok(store_commit(&txn));
}

START_TEST(rows_are_deleted_during_a_scan)
{
    bench_t bench;
    open_bench(&bench);
    thin_out(&bench, _i == 1);
    ok(store_check(bench.pool, "acme", bench.arena));
    close_bench(&bench);
}
END_TEST

START_TEST(keys_keep_their_order)
{
    arena_t *arena = arena_new();
    const int64_t numbers[] = {INT64_MIN, -256, -1, 0, 1, 255, 256, INT64_MAX};
    store_key_t last = {.size = 0};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        store_key_t key;
        key_open(&key);
        key_str(&key, "t");
        key_i64(&key, numbers[i]);
        key_u8(&key, 7);
        if (i)
            ck_assert_int_lt(memcmp(last.data, key.data, key.size), 0);
        bytes_t at = key_bytes(&key);
        const char *name;
        int64_t number;
        uint8_t end;
        ck_assert(key_read_str(&at, arena, &name) && key_read_i64(&at, &number) &&
                  key_read_u8(&at, &end));
        ck_assert_str_eq(name, "t");
        ck_assert(number == numbers[i] && end == 7 && !key_read_u8(&at, &end));
        last = key;
    }
    store_key_t one, other;
    key_open(&one), key_open(&other);
    key_str(&one, "a"), key_str(&one, "z");
    key_str(&other, "ab"), key_str(&other, "a");
    ck_assert_int_lt(memcmp(one.data, other.data, 3), 0);
    char wide[STORE_KEY + 2];
    memset(wide, 'w', sizeof(wide));
    key_raw(&one, wide, STORE_KEY);
    ck_assert(one.overflow);
    ck_assert_uint_eq(key_bytes(&one).size, 0);
    arena_destroy(&arena);
}
END_TEST

START_TEST(an_aborted_child_leaves_nothing)
{
    bench_t bench;
    open_bench(&bench);
    store_txn_t *txn = begin(&bench, "acme"), *child;
    ok(store_put(txn, ROWS, text("before"), text("1")));
    ok(store_child_begin(txn, &child));
    ok(store_put(child, ROWS, text("lost"), text("1")));
    ok(store_del(child, ROWS, text("before")));
    store_abort(&child);
    ok(store_child_begin(txn, &child));
    ok(store_put(child, ROWS, text("kept"), text("1")));
    ok(store_commit(&child));
    ok(store_commit(&txn));
    ck_assert_str_eq(walk(&bench, "", "", false), "before kept");
    txn = begin(&bench, "acme");
    ok(store_put(txn, ROWS, text("gone"), text("1")));
    store_abort(&txn);
    ck_assert_str_eq(walk(&bench, "", "", false), "before kept");
    close_bench(&bench);
}
END_TEST

/* As the skeleton does it: abort the batch, grow, replay. */
static int write_big(bench_t *bench, size_t size)
{
    uint8_t *big = calloc(1, size);
    int grown = 0;
    for (;;) {
        store_txn_t *txn = begin(bench, "acme"), *child;
        ok(store_child_begin(txn, &child));
        memset(big, 'x', size);
        err_t err = store_put(child, ROWS, text("big"), (bytes_t){big, size});
        if (!err_is(err)) {
            ok(store_commit(&child));
            ok(store_commit(&txn));
            free(big);
            return grown;
        }
        ck_assert_int_eq(err.code, ERR_FULL);
        ck_assert(store_wants_growth(bench->pool, "acme"));
        store_abort(&child);
        store_abort(&txn);
        ok(store_grow(bench->pool, "acme"));
        grown++;
    }
}

START_TEST(the_map_grows)
{
    bench_t bench;
    open_bench(&bench);
    keep(&bench, "acme", "small", "1");
    ck_assert(!store_wants_growth(bench.pool, "acme"));
    ck_assert_int_ge(write_big(&bench, 5 << 20), 2);
    ck_assert_str_eq(walk(&bench, "", "", false), "big small");
    store_pool_close(&bench.pool);
    open_pool(&bench); /* a file larger than the first map opens again */
    ck_assert_str_eq(found(&bench, "acme", "small"), "1");
    ok(store_check(bench.pool, "acme", bench.arena));
    close_bench(&bench);
}
END_TEST

START_TEST(growth_has_an_end)
{
    bench_t bench;
    open_bench(&bench);
    store_pool_close(&bench.pool);
    bench.options.largest_bytes = 2 << 20;
    open_pool(&bench);
    keep(&bench, "acme", "a", "1");
    ok(store_grow(bench.pool, "acme"));
    ck_assert_int_eq(store_grow(bench.pool, "acme").code, ERR_QUOTA);
    ck_assert_str_eq(found(&bench, "acme", "a"), "1");
    close_bench(&bench);
}
END_TEST

START_TEST(few_environments_stay_open)
{
    enum { COMPANIES = 200, LIMIT = 8 };
    bench_t bench;
    char name[16];
    open_bench(&bench);
    store_pool_close(&bench.pool);
    bench.options.open_limit = LIMIT;
    open_pool(&bench);
    for (int i = 0; i < COMPANIES; i++) {
        snprintf(name, sizeof(name), "c%03d", i);
        keep(&bench, name, "who", name);
        ck_assert_int_le(store_pool_open_count(bench.pool), LIMIT);
    }
    store_txn_t *held = look(&bench, "c000"); /* one with a snapshot is not closed */
    for (int i = COMPANIES - 1; i >= 0; i--) {
        snprintf(name, sizeof(name), "c%03d", i);
        ck_assert_str_eq(found(&bench, name, "who"), name);
        ck_assert_int_le(store_pool_open_count(bench.pool), LIMIT);
    }
    bytes_t value;
    ok(store_get(held, ROWS, text("who"), &value));
    store_abort(&held);
    strs_t companies;
    ok(store_pool_companies(bench.pool, bench.arena, &companies));
    ck_assert_uint_eq(companies.count, COMPANIES);
    ck_assert_str_eq(companies.items[0], "c000");
    ck_assert_str_eq(companies.items[COMPANIES - 1], "c199");
    close_bench(&bench);
}
END_TEST

START_TEST(one_owner_and_a_rising_epoch)
{
    bench_t bench;
    open_bench(&bench);
    uint64_t epoch = store_pool_epoch(bench.pool);
    bench_t second = {.arena = bench.arena};
    memcpy(second.dir, bench.dir, sizeof(bench.dir));
    ck_assert_int_eq(try_pool(&second).code, ERR_OWNED);
    ck_assert_ptr_null(second.pool);
    store_pool_close(&bench.pool);
    open_pool(&bench);
    ck_assert_uint_gt(store_pool_epoch(bench.pool), epoch);
    close_bench(&bench);
}
END_TEST

START_TEST(a_replaced_directory_refuses_commits)
{
    bench_t bench;
    open_bench(&bench);
    keep(&bench, "acme", "a", "1");
    const char *owner = arena_printf(bench.arena, "%s/owner", bench.dir);
    ck_assert(!unlink(owner));
    write_file(owner, "00000000000000000099\n");
    store_txn_t *txn = begin(&bench, "acme");
    ok(store_put(txn, ROWS, text("b"), text("1")));
    ck_assert_int_eq(store_commit(&txn).code, ERR_OWNED);
    ck_assert_int_eq(store_begin_write(bench.pool, "acme", &txn, bench.arena).code, ERR_IO);
    close_bench(&bench);
}
END_TEST

START_TEST(reads_never_create)
{
    bench_t bench;
    struct stat info;
    open_bench(&bench);
    store_txn_t *txn;
    ck_assert_int_eq(store_begin_read(bench.pool, "nobody", &txn, bench.arena).code, ERR_NOT_FOUND);
    ck_assert_int_eq(store_begin_read(bench.pool, "../x", &txn, bench.arena).code, ERR_COMPANY);
    ck_assert_int_eq(store_begin_write(bench.pool, "../x", &txn, bench.arena).code, ERR_COMPANY);
    ck_assert_int_eq(store_begin_write(bench.pool, "", &txn, bench.arena).code, ERR_COMPANY);
    ck_assert_int_ne(stat(arena_printf(bench.arena, "%s/nobody", bench.dir), &info), 0);
    strs_t companies;
    ok(store_pool_companies(bench.pool, bench.arena, &companies));
    ck_assert_uint_eq(companies.count, 0);
    close_bench(&bench);
}
END_TEST

/* ---- Snapshots on other threads ---- */

typedef struct watcher {
    bench_t *bench;
    atomic_bool *stop;
    atomic_int *looks;
} watcher_t;

/* Both rows of a commit are always the same; no company is ever missing. */
static void *watch_rows(void *ctx)
{
    watcher_t *watcher = ctx;
    arena_t *arena = arena_new();
    for (int i = 0; !atomic_load(watcher->stop); i++) {
        const char *company = i % 3 == 0 ? "one" : i % 3 == 1 ? "two" : "three";
        store_txn_t *txn;
        err_t err = store_begin_read(watcher->bench->pool, company, &txn, arena);
        if (err_is(err))
            return "a snapshot was refused";
        bytes_t left, right;
        if (err_is(store_get(txn, ROWS, text("left"), &left)) ||
            err_is(store_get(txn, ROWS, text("right"), &right)))
            return "a row is missing";
        if (left.size != right.size || memcmp(left.data, right.data, left.size) != 0)
            return "half a commit was seen";
        store_abort(&txn);
        atomic_fetch_add(watcher->looks, 1);
        arena_reset(arena);
    }
    arena_destroy(&arena);
    return NULL;
}

static void write_pair(bench_t *bench, const char *company, int number)
{
    char value[6000];
    memset(value, 'a' + number % 26, sizeof(value));
    bytes_t bytes = {(uint8_t *)value, sizeof(value)};
    for (;;) {
        store_txn_t *txn = begin(bench, company);
        char extra[32];
        snprintf(extra, sizeof(extra), "extra-%d", number);
        err_t err = store_put(txn, ROWS, text("left"), bytes);
        if (!err_is(err))
            err = store_put(txn, ROWS, text("right"), bytes);
        if (!err_is(err))
            err = store_put(txn, ROWS, text(extra), bytes);
        if (!err_is(err)) {
            ok(store_commit(&txn));
            return;
        }
        ck_assert_int_eq(err.code, ERR_FULL);
        store_abort(&txn);
        ok(store_grow(bench->pool, company));
    }
}

START_TEST(snapshots_on_other_threads)
{
    bench_t bench;
    open_bench(&bench);
    store_pool_close(&bench.pool);
    bench.options.open_limit = 2; /* three companies: they are opened and closed all the time */
    open_pool(&bench);
    for (int i = 0; i < 3; i++)
        write_pair(&bench, i == 0 ? "one" : i == 1 ? "two" : "three", 0);
    atomic_bool stop = false;
    atomic_int looks = 0;
    watcher_t watcher = {&bench, &stop, &looks};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        ck_assert(!pthread_create(&threads[i], NULL, watch_rows, &watcher));
    for (int i = 0; i < 300 || atomic_load(&looks) < 300; i++) {
        write_pair(&bench, i % 3 == 0 ? "one" : i % 3 == 1 ? "two" : "three", i % 400);
        store_pool_tick(bench.pool, (int64_t)i * 60001);
        arena_reset(bench.arena);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) {
        void *complaint;
        pthread_join(threads[i], &complaint);
        ck_assert_msg(!complaint, "%s", (const char *)complaint);
    }
    close_bench(&bench);
}
END_TEST

/* ---- Crashes ---- */

/* In the child: writes numbers, and acknowledges each on the pipe once it is committed. */
static void write_until_killed(bench_t *bench, int pipe_fd)
{
    ok(try_pool(bench));
    uint64_t next = 0;
    for (;; next++) {
        const char *company = next % 2 ? "odd" : "even";
        store_txn_t *txn;
        if (err_is(store_begin_write(bench->pool, company, &txn, bench->arena)))
            _exit(1);
        store_key_t key;
        key_open(&key);
        key_u64(&key, (uint64_t)store_count(txn, ROWS));
        if (err_is(store_put(txn, ROWS, key_bytes(&key), text("row"))) ||
            err_is(store_put(txn, OTHER, key_bytes(&key), text("twin"))) ||
            err_is(store_commit(&txn)))
            _exit(2);
        char who = next % 2 ? 'o' : 'e';
        if (write(pipe_fd, &who, 1) != 1)
            _exit(3);
    }
}

static int64_t rows_of(bench_t *bench, const char *company)
{
    store_txn_t *txn;
    err_t err = store_begin_read(bench->pool, company, &txn, bench->arena);
    if (err.code == ERR_NOT_FOUND)
        return 0;
    ok(err);
    int64_t rows = store_count(txn, ROWS);
    ck_assert_int_eq(rows, store_count(txn, OTHER)); /* never half a commit */
    store_abort(&txn);
    ok(store_check(bench->pool, company, bench->arena));
    return rows;
}

START_TEST(nothing_acknowledged_is_lost)
{
#ifdef AGENCY_FAULTS
    static const char *const points[] = {"begin", "put", "commit.before", "commit.after"};
    bench_t bench;
    open_bench(&bench);
    int64_t odd = 0, even = 0;
    for (int round = 0; round < 24; round++) {
        store_pool_close(&bench.pool);
        int ends[2];
        ck_assert(!pipe(ends));
        pid_t pid = fork();
        if (pid == 0) {
            char fault[64];
            snprintf(fault, sizeof(fault), "kill@%s:%d", points[round % 4], 1 + round * 3 % 17);
            setenv("AGENCY_FAULT", fault, 1);
            close(ends[0]);
            write_until_killed(&bench, ends[1]);
        }
        close(ends[1]);
        char who;
        while (read(ends[0], &who, 1) == 1)
            *(who == 'o' ? &odd : &even) += 1;
        close(ends[0]);
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        open_pool(&bench);
        /* What was not acknowledged may be there or not: at most one row. */
        int64_t odd_rows = rows_of(&bench, "odd"), even_rows = rows_of(&bench, "even");
        ck_assert_int_ge(odd_rows, odd);
        ck_assert_int_ge(even_rows, even);
        ck_assert_int_le(odd_rows + even_rows, odd + even + 1);
        odd = odd_rows;
        even = even_rows;
    }
    close_bench(&bench);
#endif
}
END_TEST

/* ---- Looking after it ---- */

START_TEST(a_copy_is_whole)
{
    bench_t bench, copy = {.arena = arena_new()};
    open_bench(&bench);
    keep(&bench, "acme", "a", "1");
    keep(&bench, "acme", "b", "2");
    ck_assert_int_eq(store_copy(bench.pool, "nobody", bench.dir, bench.arena).code, ERR_NOT_FOUND);
    scratch_make(copy.dir);
    const char *company = arena_printf(copy.arena, "%s/acme", copy.dir);
    const char *into = arena_printf(copy.arena, "%s/store", company);
    ck_assert(!mkdir(company, 0700) && !mkdir(into, 0700));
    ok(store_copy(bench.pool, "acme", into, bench.arena));
    keep(&bench, "acme", "c", "3"); /* after the copy */
    open_pool(&copy);
    ok(store_check(copy.pool, "acme", copy.arena));
    ck_assert_str_eq(walk(&copy, "", "", false), "a b");
    store_stat_t stat;
    ok(store_stat(copy.pool, "acme", copy.arena, &stat));
    ck_assert_str_eq(stat.company, "acme");
    ck_assert_int_eq(stat.format, 1);
    ck_assert_uint_eq(stat.tables.count, 2);
    ck_assert_int_eq(stat.tables.items[ROWS].rows, 2);
    close_bench(&copy);
    close_bench(&bench);
}
END_TEST

START_TEST(a_damaged_file_is_refused)
{
    bench_t bench;
    open_bench(&bench);
    keep(&bench, "acme", "a", "1");
    store_pool_close(&bench.pool);
    write_file(arena_printf(bench.arena, "%s/acme/store/data.mdb", bench.dir),
               "this is no database, whatever its name says");
    open_pool(&bench);
    store_txn_t *txn;
    err_t err = store_begin_read(bench.pool, "acme", &txn, bench.arena);
    ck_assert_int_eq(err.code, ERR_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err_what(err), "acme"));
    close_bench(&bench);
}
END_TEST

static err_t add_a_row(store_txn_t *txn, uint32_t from)
{
    char value[16];
    snprintf(value, sizeof(value), "from %u", from);
    return store_put(txn, ROWS, text("migrated"), text(value));
}

static err_t add_and_fail(store_txn_t *txn, uint32_t from)
{
    err_t err = add_a_row(txn, from);
    return err_is(err) ? err : err_of(ERR_CORRUPT, "the old rows make no sense");
}

START_TEST(formats_old_and_new)
{
    bench_t bench;
    store_txn_t *txn;
    open_bench(&bench);
    keep(&bench, "acme", "a", "1");
    store_pool_close(&bench.pool);
    bench.options.format = 2;
    open_pool(&bench); /* older, and nobody knows how to migrate */
    ck_assert_int_eq(store_begin_read(bench.pool, "acme", &txn, bench.arena).code, ERR_VERSION);
    store_pool_close(&bench.pool);
    bench.options.migrate = add_and_fail;
    open_pool(&bench); /* a failed migration leaves the original alone */
    ck_assert_int_eq(store_begin_read(bench.pool, "acme", &txn, bench.arena).code, ERR_CORRUPT);
    store_pool_close(&bench.pool);
    bench.options.migrate = add_a_row;
    open_pool(&bench);
    ck_assert_str_eq(found(&bench, "acme", "migrated"), "from 1");
    ck_assert_str_eq(found(&bench, "acme", "a"), "1");
    store_pool_close(&bench.pool);
    open_pool(&bench); /* once */
    ck_assert_str_eq(walk(&bench, "", "", false), "a migrated");
    store_pool_close(&bench.pool);
    bench.options.format = 1;
    open_pool(&bench);
    ck_assert_int_eq(store_begin_write(bench.pool, "acme", &txn, bench.arena).code, ERR_VERSION);
    close_bench(&bench);
}
END_TEST

/* ---- Faults ---- */

#ifdef AGENCY_FAULTS
typedef struct switches {
    const char *point;
    store_fault_kind_t kind;
} switches_t;

static store_fault_kind_t at_point(void *ctx, const char *point)
{
    const switches_t *switches = ctx;
    return switches->point && !strcmp(switches->point, point) ? switches->kind : STORE_GO;
}
#endif

START_TEST(a_full_disk_and_a_failed_sync)
{
#ifdef AGENCY_FAULTS
    bench_t bench;
    switches_t switches = {0};
    open_bench(&bench);
    store_pool_close(&bench.pool);
    bench.options.fault = (store_fault_t){at_point, &switches};
    open_pool(&bench);
    keep(&bench, "acme", "a", "1");
    store_txn_t *txn;
    switches = (switches_t){"begin", STORE_FAIL_FULL};
    ck_assert_int_eq(store_begin_write(bench.pool, "acme", &txn, bench.arena).code, ERR_FULL);
    switches = (switches_t){"put", STORE_FAIL_FULL};
    txn = begin(&bench, "acme");
    ck_assert_int_eq(store_put(txn, ROWS, text("b"), text("1")).code, ERR_FULL);
    ck_assert(!store_wants_growth(bench.pool, "acme")); /* a larger map would not help */
    store_abort(&txn);
    switches = (switches_t){"commit.before", STORE_FAIL_FULL};
    txn = begin(&bench, "acme");
    ok(store_put(txn, ROWS, text("b"), text("1")));
    ck_assert_int_eq(store_commit(&txn).code, ERR_FULL);
    switches.point = NULL;
    keep(&bench, "acme", "c", "1"); /* the pool lives on */
    ck_assert_str_eq(walk(&bench, "", "", false), "a c");
    switches = (switches_t){"commit.before", STORE_FAIL_SYNC};
    txn = begin(&bench, "acme");
    ok(store_put(txn, ROWS, text("d"), text("1")));
    ck_assert_int_eq(store_commit(&txn).code, ERR_IO);
    switches.point = NULL;
    ck_assert_int_eq(store_begin_write(bench.pool, "acme", &txn, bench.arena).code, ERR_IO);
    ck_assert_int_eq(store_begin_read(bench.pool, "acme", &txn, bench.arena).code, ERR_IO);
    store_pool_close(&bench.pool);
    open_pool(&bench);
    ck_assert_str_eq(walk(&bench, "", "", false), "a c");
    switches = (switches_t){"commit.after", STORE_FAIL_AFTER};
    txn = begin(&bench, "acme");
    ok(store_put(txn, ROWS, text("e"), text("1")));
    ck_assert_int_eq(store_commit(&txn).code, ERR_IO);
    switches.point = NULL;
    store_pool_close(&bench.pool);
    open_pool(&bench);
    ck_assert_str_eq(walk(&bench, "", "", false), "a c e");
    close_bench(&bench);
#endif
}
END_TEST

START_TEST(companies_sync_beside_one_another)
{
    bench_t bench;
    enum { COMPANIES = 20 };
    store_txn_t *txns[COMPANIES];
    open_bench(&bench);
    for (int round = 0; round < 3; round++) {
        int started = 0;
        for (int i = 0; i < COMPANIES; i++) {
            txns[i] = begin(&bench, arena_printf(bench.arena, "c%d", i));
            ok(store_put(txns[i], ROWS, text(arena_printf(bench.arena, "r%d", round)), text("1")));
            ck_assert_uint_eq(store_writes(txns[i]), 1);
        }
        store_abort(&txns[7]);
        for (int i = 0; i < COMPANIES; i++)
            started += txns[i] && store_commit_start(txns[i]);
        ck_assert_int_ge(started, COMPANIES - 2); /* the first is on this thread, one is gone */
        for (int i = 0; i < COMPANIES; i++)
            if (txns[i])
                ok(store_commit(&txns[i]));
    }
    store_pool_close(&bench.pool);
    open_pool(&bench);
    for (int i = 0; i < COMPANIES; i++)
        ck_assert_str_eq(found(&bench, arena_printf(bench.arena, "c%d", i), "r2"),
                         i == 7 ? "-" : "1");
    /* One that was started and then given up: it is on disk, and nothing hangs. */
    txns[0] = begin(&bench, "c0");
    txns[1] = begin(&bench, "c1");
    ok(store_put(txns[1], ROWS, text("late"), text("1")));
    ck_assert(store_commit_start(txns[1]));
    store_abort(&txns[1]);
    store_abort(&txns[0]);
    ck_assert_str_eq(found(&bench, "c1", "late"), "1");
    close_bench(&bench);
}
END_TEST

#ifdef AGENCY_FAULTS
/* Fails the first commit that it sees. */
static store_fault_kind_t first_commit(void *ctx, const char *point)
{
    int *seen = ctx;
    return !strcmp(point, "commit.before") && (*seen)++ == 0 ? STORE_FAIL_FULL : STORE_GO;
}
#endif

START_TEST(one_of_several_syncs_fails)
{
#ifdef AGENCY_FAULTS
    bench_t bench;
    int seen = 1;
    open_bench(&bench);
    store_pool_close(&bench.pool);
    bench.options.fault = (store_fault_t){first_commit, &seen};
    open_pool(&bench);
    store_txn_t *one = begin(&bench, "one"), *two = begin(&bench, "two");
    ok(store_put(one, ROWS, text("a"), text("1")));
    ok(store_put(two, ROWS, text("a"), text("1")));
    seen = 0;
    ck_assert(!store_commit_start(two));
    ok(store_commit(&one));
    ck_assert_int_eq(store_commit(&two).code, ERR_FULL); /* said once, meant once */
    ck_assert_str_eq(found(&bench, "one", "a"), "1");
    ck_assert_str_eq(found(&bench, "two", "a"), "-");
    keep(&bench, "two", "b", "1");
    close_bench(&bench);
#endif
}
END_TEST

/* Somebody who may not write there is told so, and nothing is made. */
START_TEST(a_directory_that_cannot_be_written)
{
    bench_t bench = {.arena = arena_new()};
    scratch_make(bench.dir);
    ck_assert_int_eq(chmod(bench.dir, 0555), 0);
    pid_t child = fork();
    if (!child) {
        if (!geteuid() && setuid(65534))
            _exit(2);
        err_t err = try_pool(&bench);
        _exit(err.code == ERR_IO && strstr(err_what(err), bench.dir) ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert(WIFEXITED(status));
    chmod(bench.dir, 0755);
    scratch_remove(bench.dir);
    arena_destroy(&bench.arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, rows_and_their_errors);
    tcase_add_test(all, scans_both_ways);
    tcase_add_loop_test(all, rows_are_deleted_during_a_scan, 0, 2);
    tcase_add_test(all, keys_keep_their_order);
    tcase_add_test(all, an_aborted_child_leaves_nothing);
    tcase_add_test(all, the_map_grows);
    tcase_add_test(all, growth_has_an_end);
    tcase_add_test(all, few_environments_stay_open);
    tcase_add_test(all, one_owner_and_a_rising_epoch);
    tcase_add_test(all, a_replaced_directory_refuses_commits);
    tcase_add_test(all, reads_never_create);
    tcase_add_test(all, snapshots_on_other_threads);
    tcase_add_test(all, nothing_acknowledged_is_lost);
    tcase_add_test(all, a_copy_is_whole);
    tcase_add_test(all, a_damaged_file_is_refused);
    tcase_add_test(all, formats_old_and_new);
    tcase_add_test(all, a_full_disk_and_a_failed_sync);
    tcase_add_test(all, companies_sync_beside_one_another);
    tcase_add_test(all, one_of_several_syncs_fails);
    tcase_add_test(all, a_directory_that_cannot_be_written);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
