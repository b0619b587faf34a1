#include <check.h>
#include <fcntl.h>
#include <glob.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actors/brain/codes.h"
#include "actors/brain/index.h"
#include "actors/brain/indexes.h"
#include "actors/brain/simd.h"

#define DIMS 48

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ULL;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* A vector that depends on its id alone: near one of 32 centres, as real texts are near topics. */
static void vector_of(uint64_t id, uint32_t dims, float *vector)
{
    uint64_t centre = 1000 + id % 32, noise = id * 7919 + 13;

    for (uint32_t i = 0; i < dims; i++) {
        float c = (float)(next_random(&centre) % 2001) / 1000 - 1;
        float n = (float)(next_random(&noise) % 2001) / 1000 - 1;
        vector[i] = c + 0.7F * n;
    }
}

/* Built by so many threads. */
static index_t *open_wide(const char *factory, uint32_t exact_max, unsigned threads)
{
    index_t *index = NULL;
    index_options_t options = {.dims = DIMS,
                               .factory = factory,
                               .exact_max = exact_max,
                               .build_threads = threads,
                               .model = "test"};

    ck_assert_int_eq(index_new(&index, &options).code, ERR_OK);
    return index;
}

static index_t *open_index(const char *factory, uint32_t exact_max)
{
    return open_wide(factory, exact_max, 1);
}

static void add_range(index_t *index, uint64_t from, uint64_t to)
{
    float vector[DIMS];

    for (uint64_t id = from; id < to; id++) {
        vector_of(id, DIMS, vector);
        ck_assert_int_eq(index_add(index, id, vector).code, ERR_OK);
    }
}

static void rebuild(index_t *index)
{
    index_base_t *base = NULL;
    index_view_t *view = index_acquire(index);
    err_t err = index_build(view, NULL, NULL, &base);

    index_view_release(&view);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    ck_assert_int_eq(index_swap(index, &base).code, ERR_OK);
}

/* The share of the exact ten that the index finds, over some queries. */
static double recall(index_t *index, const index_filter_t *filter, uint64_t seed)
{
    arena_t *arena = arena_new();
    index_view_t *view = index_acquire(index);
    double found = 0, all = 0;

    for (int q = 0; q < 40; q++) {
        float query[DIMS];
        index_hit_t *exact, *hits;
        size_t exact_count, count;
        vector_of(next_random(&seed), DIMS, query);
        ck_assert(
            !err_is(index_search_exact(view, query, 10, filter, arena, &exact, &exact_count)));
        ck_assert(!err_is(index_search(view, query, 10, filter, arena, &hits, &count)));
        ck_assert_uint_eq(count, exact_count);
        all += (double)exact_count;
        for (size_t i = 0; i < exact_count; i++)
            for (size_t j = 0; j < count; j++)
                found += exact[i].id == hits[j].id;
        for (size_t j = 1; j < count; j++)
            ck_assert(hits[j - 1].score >= hits[j].score);
    }
    index_view_release(&view);
    arena_destroy(&arena);
    return found / all;
}

START_TEST(distances_agree_with_plain_arithmetic)
{
    float a[300], b[300];
    uint64_t seed = 5;

    for (int i = 0; i < 300; i++) {
        a[i] = (float)(next_random(&seed) % 1000) / 500 - 1;
        b[i] = (float)(next_random(&seed) % 1000) / 500 - 1;
    }
    for (size_t dims = 0; dims < 300; dims++) {
        double ip = 0, l2 = 0;
        for (size_t i = 0; i < dims; i++) {
            ip += (double)a[i] * b[i];
            l2 += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        }
        ck_assert_double_eq_tol(simd_inner_product(a, b, dims), ip, 1e-4);
        ck_assert_double_eq_tol(simd_l2_squared(a, b, dims), l2, 1e-4);
    }
}
END_TEST

/* Every kernel of this machine gives one sum, and the bound holds, also where dimensions are odd.
 */
START_TEST(codes_are_within_their_bound)
{
    static const uint32_t sizes[] = {1, 2, 31, 48, 63, 64, 65, 127, 300, 384};
    uint64_t seed = 9;
    float far = 0;

    for (int turn = 0; turn < 400; turn++) {
        uint32_t dims = sizes[turn % 10];
        float a[384], b[384], sums[2] = {0, 0}, exact = 0;
        for (uint32_t i = 0; i < dims; i++) {
            a[i] = (float)(next_random(&seed) % 2001) / 1000 - 1;
            b[i] = turn % 3 ? (float)(next_random(&seed) % 2001) / 1000 - 1 : a[i];
            sums[0] += a[i] * a[i];
            sums[1] += b[i] * b[i];
        }
        if (!(sums[0] > 0) || !(sums[1] > 0))
            continue;
        for (uint32_t i = 0; i < dims; i++) {
            a[i] /= sqrtf(sums[0]);
            b[i] /= sqrtf(sums[1]);
            exact += a[i] * b[i];
        }
        uint8_t *row = aligned_alloc(CODES_ALIGN, codes_stride(dims));
        int8_t room[448];
        codes_query_t query;
        codes_put(row, a, dims);
        codes_query(&query, room, b, dims);
        int32_t plain = 0;
        for (size_t i = 0; i < query.size; i++)
            plain += (i < dims ? row[i] : 0) * query.bytes[i];
        ck_assert_int_eq(codes_product(row, query.bytes, query.size), plain);
        ck_assert_float_le(exact, codes_most(&query, row));
        float gap = codes_most(&query, row) - exact;
        far = gap > far && dims > 30 ? gap : far;
        free(row);
    }
    ck_assert_float_lt(far, 0.1F); /* a bound that bounds nothing would be of no use */
}
END_TEST

START_TEST(bad_options_are_refused)
{
    index_t *index = NULL;
    const index_options_t bad[] = {
        {.dims = 0},
        {.dims = INDEX_DIMS_MAX + 1},
        {.dims = 4, .factory = "PQ8"},
        {.dims = 4, .factory = "HNSW"},
        {.dims = 4, .factory = "HNSW1"},
        {.dims = 4, .factory = "HNSW32_SQ8"},
        {.dims = 4, .factory = "IVF0,Flat"},
        {.dims = 4, .factory = "IVF8,PQ4"},
        {.dims = 4, .factory = ""},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(index_new(&index, &bad[i]).code, ERR_ARGUMENT);
        ck_assert_ptr_null(index);
    }
}
END_TEST

START_TEST(bad_vectors_and_ids_are_refused)
{
    index_t *index = open_index(NULL, 0);
    float vector[DIMS] = {0};
    arena_t *arena = arena_new();
    index_hit_t *hits;
    size_t count;

    ck_assert_int_eq(index_add(index, 1, vector).code, ERR_ARGUMENT);
    vector[3] = NAN;
    ck_assert_int_eq(index_add(index, 1, vector).code, ERR_ARGUMENT);
    vector[3] = INFINITY;
    ck_assert_int_eq(index_add(index, 1, vector).code, ERR_ARGUMENT);
    index_view_t *view = index_acquire(index);
    ck_assert_int_eq(index_search(view, vector, 3, NULL, arena, &hits, &count).code, ERR_ARGUMENT);
    vector[3] = 2;
    ck_assert_int_eq(index_add(index, 5, vector).code, ERR_OK);
    ck_assert_int_eq(index_add(index, 5, vector).code, ERR_ARGUMENT);
    ck_assert_int_eq(index_add(index, 4, vector).code, ERR_ARGUMENT);
    ck_assert_int_eq(index_search(view, vector, 3, NULL, arena, &hits, &count).code, ERR_OK);
    ck_assert_uint_eq(count, 0); /* the view is older than the vector */
    index_view_release(&view);
    index_destroy(&index);
    arena_destroy(&arena);
}
END_TEST

START_TEST(small_sets_are_exact)
{
    index_t *index = open_index(NULL, 0);
    arena_t *arena = arena_new();
    float query[DIMS];
    index_hit_t *hits;
    size_t count;

    add_range(index, 10, 3010);
    index_view_t *view = index_acquire(index);
    for (uint64_t id = 10; id < 3010; id += 97) {
        vector_of(id, DIMS, query);
        ck_assert_int_eq(index_search(view, query, 1, NULL, arena, &hits, &count).code, ERR_OK);
        ck_assert_uint_eq(count, 1);
        ck_assert_uint_eq(hits[0].id, id);
        ck_assert_double_eq_tol(hits[0].score, 1, 1e-5);
    }
    ck_assert_int_eq(index_search(view, query, 1000000, NULL, arena, &hits, &count).code, ERR_OK);
    ck_assert_uint_eq(count, 3000);
    ck_assert_int_eq(index_search(view, query, 0, NULL, arena, &hits, &count).code, ERR_OK);
    ck_assert_uint_eq(count, 0);
    index_view_release(&view);
    index_destroy(&index);
    arena_destroy(&arena);
}
END_TEST

/* The same story for each kind of FAISS index: grow, drop, rebuild, extend, drop, rebuild. */
static void tell_story(const char *factory, unsigned threads, double at_least)
{
    index_t *index = open_wide(factory, 500, threads);

    add_range(index, 0, 4000);
    ck_assert(index_stats(index).wants_build);
    rebuild(index);
    index_stats_t stats = index_stats(index);
    ck_assert_uint_eq(stats.base, 4000);
    ck_assert_uint_eq(stats.tail, 0);
    ck_assert(!stats.wants_build);
    ck_assert_double_ge(recall(index, NULL, 1), at_least);
    for (uint64_t id = 0; id < 4000; id += 5)
        ck_assert(index_drop(index, id));
    ck_assert(!index_drop(index, 0));
    ck_assert(!index_drop(index, 99999));
    add_range(index, 4000, 5000);
    ck_assert(index_drop(index, 4500));
    ck_assert_double_ge(recall(index, NULL, 2), at_least);
    rebuild(index); /* few tombstones: extended */
    ck_assert_uint_eq(index_stats(index).live, 4199);
    ck_assert_double_ge(recall(index, NULL, 3), at_least);
    for (uint64_t id = 1; id < 4000; id += 2)
        index_drop(index, id);
    ck_assert(index_stats(index).wants_build);
    ck_assert_double_ge(recall(index, NULL, 4), at_least);
    size_t live = index_stats(index).live;
    rebuild(index); /* many: from scratch */
    stats = index_stats(index);
    ck_assert_uint_eq(stats.live, live);
    ck_assert_uint_eq(stats.dead, 0);
    ck_assert_double_ge(recall(index, NULL, 5), at_least);
    index_destroy(&index);
}

START_TEST(hnsw_grows_and_shrinks)
{
    tell_story("HNSW16", 1, 0.95);
}
END_TEST

START_TEST(many_threads_build_as_well)
{
    tell_story("HNSW16", 4, 0.95);
}
END_TEST

/* Lists of neighbours fill with copies, none of which is farther than another. */
START_TEST(copies_of_one_vector_are_all_found)
{
    enum { COPIES = 2000 };
    index_t *index = open_index("HNSW8", 100);
    arena_t *arena = arena_new();
    index_hit_t *hits;
    size_t count;
    float vector[DIMS];

    vector_of(1, DIMS, vector);
    for (uint64_t id = 0; id < COPIES; id++)
        ck_assert_int_eq(index_add(index, id, vector).code, ERR_OK);
    rebuild(index);
    index_view_t *view = index_acquire(index);
    ck_assert_int_eq(index_search(view, vector, 20, NULL, arena, &hits, &count).code, ERR_OK);
    ck_assert_uint_eq(count, 20);
    for (size_t i = 0; i < count; i++)
        ck_assert_double_eq_tol(hits[i].score, 1, 1e-5);
    index_view_release(&view);
    arena_destroy(&arena);
    index_destroy(&index);
}
END_TEST

START_TEST(flat_grows_and_shrinks)
{
    tell_story("Flat", 1, 1.0);
}
END_TEST

START_TEST(ivf_grows_and_shrinks)
{
    tell_story("IVF16,Flat", 1, 0.95);
}
END_TEST

static bool accept_share(const void *self, uint64_t id)
{
    uint64_t state = id;

    return next_random(&state) % *(const uint64_t *)self == 0;
}

/* Keeps or hides whole topics, so that the nearest answers may all lie beyond hidden ones. */
static bool accept_modulo(const void *self, uint64_t id)
{
    return id % *(const uint64_t *)self == 0;
}

START_TEST(filters_act_before_the_limit)
{
    index_t *index = open_index("HNSW16", 500);
    arena_t *arena = arena_new();
    float query[DIMS];
    index_hit_t *hits;
    size_t count;

    add_range(index, 0, 5000);
    rebuild(index);
    add_range(index, 5000, 6000);
    for (uint64_t modulo = 2; modulo <= 2048; modulo *= 4) {
        index_filter_t filter = {accept_modulo, &modulo, 0};
        index_filter_t share = {accept_share, &modulo, 0};
        ck_assert_double_ge(recall(index, &share, modulo), 0.98);
        ck_assert_double_ge(recall(index, &filter, modulo), 0.8);
        share.about = 6000 / modulo;
        ck_assert_double_ge(recall(index, &share, modulo), 0.98);
        index_view_t *view = index_acquire(index);
        vector_of(77, DIMS, query);
        ck_assert(!err_is(index_search(view, query, 10, &filter, arena, &hits, &count)));
        size_t having = 5999 / modulo + 1;
        ck_assert_uint_eq(count, having < 10 ? having : 10);
        for (size_t i = 0; i < count; i++)
            ck_assert_uint_eq(hits[i].id % modulo, 0);
        index_view_release(&view);
    }
    index_destroy(&index);
    arena_destroy(&arena);
}
END_TEST

START_TEST(scores_of_given_ids)
{
    index_t *index = open_index("HNSW16", 100);
    float query[DIMS], scores[4];
    const uint64_t ids[4] = {1100, 3, 500, 9999};

    add_range(index, 0, 1000);
    rebuild(index);
    add_range(index, 1000, 1200);
    index_drop(index, 500);
    index_view_t *view = index_acquire(index);
    vector_of(3, DIMS, query);
    ck_assert_int_eq(index_score(view, query, ids, 4, scores).code, ERR_OK);
    ck_assert(scores[0] > -1 && scores[0] < 0.9999F);
    ck_assert_double_eq_tol(scores[1], 1, 1e-5);
    ck_assert(isnan(scores[2]));
    ck_assert(isnan(scores[3]));
    index_view_release(&view);
    index_destroy(&index);
}
END_TEST

START_TEST(what_happens_during_a_build_is_kept)
{
    index_t *index = open_index("HNSW16", 100);
    index_base_t *base = NULL, *late = NULL;

    add_range(index, 0, 1000);
    index_view_t *view = index_acquire(index);
    add_range(index, 1000, 1100); /* after the view */
    ck_assert_int_eq(index_build(view, NULL, NULL, &base).code, ERR_OK);
    ck_assert_int_eq(index_build(view, NULL, NULL, &late).code, ERR_OK);
    index_view_release(&view);
    ck_assert(index_drop(index, 5));
    ck_assert(index_drop(index, 1050));
    add_range(index, 1100, 1200);
    ck_assert_int_eq(index_swap(index, &base).code, ERR_OK);
    ck_assert_ptr_null(base);
    index_stats_t stats = index_stats(index);
    ck_assert_uint_eq(stats.base, 1000);
    ck_assert_uint_eq(stats.tail, 199);
    ck_assert_uint_eq(stats.live, 1198);
    ck_assert_int_eq(index_swap(index, &late).code, ERR_STATE);
    ck_assert(!index_drop(index, 5));
    ck_assert(!index_drop(index, 1050));
    ck_assert_double_ge(recall(index, NULL, 9), 0.95);
    index_destroy(&index);
}
END_TEST

static bool always(const void *self)
{
    (void)self;
    return true;
}

static bool at_last(const void *self)
{
    return --*(int *)(uintptr_t)self == 0;
}

/* Wherever it is: while FAISS takes the vectors in, or while they are linked (by one thread, which
 * is therefore asked a known number of times). */
START_TEST(a_build_can_be_stopped_anywhere)
{
    index_t *index = open_index("HNSW16", 100);
    index_base_t *base = NULL;
    int asked = 0;

    add_range(index, 0, 3000);
    index_view_t *view = index_acquire(index);
    for (int times = 1; times < 20; times += 3) {
        asked = times;
        ck_assert_int_eq(index_build(view, at_last, &asked, &base).code, ERR_CANCELLED);
        ck_assert_ptr_null(base);
        ck_assert_int_eq(asked, 0);
    }
    index_view_release(&view);
    index_destroy(&index);
}
END_TEST

START_TEST(a_build_can_be_stopped_or_impossible)
{
    index_t *index = open_index("HNSW16", 100);
    index_base_t *base = NULL;
    index_view_t *view = index_acquire(index);

    ck_assert_int_eq(index_build(view, NULL, NULL, &base).code, ERR_STATE);
    index_view_release(&view);
    add_range(index, 0, 1000);
    view = index_acquire(index);
    ck_assert_int_eq(index_build(view, always, NULL, &base).code, ERR_CANCELLED);
    ck_assert_ptr_null(base);
    index_view_release(&view);
    index_destroy(&index);
    /* Fewer vectors than lists: FAISS throws, we answer. */
    index = open_index("IVF64,Flat", 1);
    add_range(index, 0, 10);
    view = index_acquire(index);
    ck_assert_int_eq(index_build(view, NULL, NULL, &base).code, ERR_ARGUMENT);
    index_view_release(&view);
    index_destroy(&index);
}
END_TEST

/* ---- snapshots ---- */

static void scratch_path(char *path, size_t size)
{
    const char *dir = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";

    snprintf(path, size, "%s/test_brain_index.%d.snapshot", dir, (int)getpid());
}

/* What writers that were killed left beside `path`; how many. */
static size_t unlink_parts(const char *path)
{
    char pattern[600];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s" INDEX_PART "*", path);
    if (glob(pattern, 0, NULL, &found))
        return 0;
    size_t count = found.gl_pathc;
    for (size_t i = 0; i < count; i++)
        unlink(found.gl_pathv[i]);
    globfree(&found);
    return count;
}

static void save(index_t *index, const char *path, uint64_t generation)
{
    index_view_t *view = index_acquire(index);
    err_t err = index_save(view, path, generation);

    index_view_release(&view);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

static void same_answers(index_t *a, index_t *b)
{
    arena_t *arena = arena_new();
    index_view_t *va = index_acquire(a), *vb = index_acquire(b);

    for (uint64_t q = 0; q < 50; q++) {
        float query[DIMS];
        index_hit_t *ha, *hb;
        size_t ca, cb;
        vector_of(q * 31, DIMS, query);
        ck_assert(!err_is(index_search(va, query, 20, NULL, arena, &ha, &ca)));
        ck_assert(!err_is(index_search(vb, query, 20, NULL, arena, &hb, &cb)));
        ck_assert_uint_eq(ca, cb);
        for (size_t i = 0; i < ca; i++)
            ck_assert_uint_eq(ha[i].id, hb[i].id);
    }
    index_view_release(&va);
    index_view_release(&vb);
    arena_destroy(&arena);
}

static void snapshot_story(const char *factory, bool build)
{
    char path[512];
    uint64_t generation = 0;
    index_t *index = open_index(factory, 100), *again = open_index(factory, 100);

    scratch_path(path, sizeof path);
    add_range(index, 7, 1500);
    if (build)
        rebuild(index);
    add_range(index, 1500, 1700);
    for (uint64_t id = 8; id < 1700; id += 13)
        index_drop(index, id);
    save(index, path, 42);
    ck_assert_int_eq(index_load(again, path, &generation).code, ERR_OK);
    ck_assert_uint_eq(generation, 42);
    ck_assert_uint_eq(index_stats(again).live, index_stats(index).live);
    same_answers(index, again);
    ck_assert_int_eq(index_load(again, path, &generation).code, ERR_STATE);
    add_range(again, 1700, 1710); /* ids go on */
    unlink(path);
    index_destroy(&index);
    index_destroy(&again);
}

START_TEST(snapshots_come_back)
{
    snapshot_story("HNSW16", true);
    snapshot_story("Flat", true);
    snapshot_story("IVF8,Flat", true);
    snapshot_story("HNSW16", false);
}
END_TEST

START_TEST(an_empty_index_has_a_snapshot)
{
    char path[512];
    uint64_t generation = 0;
    index_t *index = open_index(NULL, 0), *again = open_index(NULL, 0);

    scratch_path(path, sizeof path);
    ck_assert_int_eq(index_load(again, path, &generation).code, ERR_NOT_FOUND);
    save(index, path, 3);
    ck_assert_int_eq(index_load(again, path, &generation).code, ERR_OK);
    ck_assert_uint_eq(generation, 3);
    add_range(again, 0, 3);
    unlink(path);
    index_destroy(&index);
    index_destroy(&again);
}
END_TEST

START_TEST(snapshots_of_others_are_refused)
{
    char path[512];
    uint64_t generation = 0;
    index_t *index = open_index("HNSW16", 100), *other = NULL;
    index_options_t options = {.dims = DIMS, .factory = "HNSW16", .model = "another"};

    scratch_path(path, sizeof path);
    add_range(index, 0, 300);
    rebuild(index);
    save(index, path, 1);
    ck_assert(!err_is(index_new(&other, &options)));
    ck_assert_int_eq(index_load(other, path, &generation).code, ERR_VERSION);
    index_destroy(&other);
    options = (index_options_t){.dims = DIMS + 1, .factory = "HNSW16", .model = "test"};
    ck_assert(!err_is(index_new(&other, &options)));
    ck_assert_int_eq(index_load(other, path, &generation).code, ERR_VERSION);
    index_destroy(&other);
    FILE *file = fopen(path, "r+b"); /* of another version of the program */
    uint32_t version = 99;
    ck_assert(file && !fseek(file, 8, SEEK_SET) && fwrite(&version, sizeof version, 1, file) == 1);
    fclose(file);
    other = open_index("HNSW16", 100);
    ck_assert_int_eq(index_load(other, path, &generation).code, ERR_VERSION);
    index_destroy(&other);
    unlink(path);
    index_destroy(&index);
}
END_TEST

START_TEST(torn_or_flipped_snapshots_are_refused)
{
    char path[512];
    uint64_t generation = 0, seed = 11;
    index_t *index = open_index("HNSW16", 100);

    scratch_path(path, sizeof path);
    add_range(index, 0, 400);
    rebuild(index);
    add_range(index, 400, 420);
    save(index, path, 1);
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(size);
    ck_assert_uint_eq(fread(bytes, 1, size, file), size);
    fclose(file);
    for (int turn = 0; turn < 60; turn++) {
        size_t keep = turn % 2 ? size : next_random(&seed) % size;
        size_t flip = next_random(&seed) % size;
        file = fopen(path, "wb");
        bytes[flip] ^= 1 << (turn % 8);
        fwrite(bytes, 1, keep, file);
        bytes[flip] ^= 1 << (turn % 8);
        fclose(file);
        index_t *again = open_index("HNSW16", 100);
        err_t err = index_load(again, path, &generation);
        ck_assert_msg(err.code == ERR_CORRUPT || err.code == ERR_VERSION, "turn %d: %s", turn,
                      err_what(err));
        ck_assert_uint_eq(index_stats(again).live, 0);
        add_range(again, 0, 2); /* still of use */
        index_destroy(&again);
    }
    free(bytes);
    unlink(path);
    index_destroy(&index);
}
END_TEST

/* Saves again and again, and says so, until it is killed. */
static void save_for_ever(index_t *index, const char *path, int tell)
{
    for (uint64_t generation = 2;; generation++) {
        index_view_t *view = index_acquire(index);
        if (err_is(index_save(view, path, generation)) || write(tell, ".", 1) != 1)
            _exit(1);
        index_view_release(&view);
    }
}

/* Whoever is killed while writing leaves the snapshot before or the new one, whole. */
START_TEST(a_snapshot_survives_its_writer)
{
    char path[512], byte;
    uint64_t seed = 3, generation = 0;
    index_t *index = open_index("HNSW16", 100);

    scratch_path(path, sizeof path);
    add_range(index, 0, 3000);
    rebuild(index);
    add_range(index, 3000, 3020);
    save(index, path, 1);
    for (int turn = 0; turn < 12; turn++) {
        int fds[2], status;
        ck_assert(!pipe(fds));
        pid_t child = fork();
        if (!child)
            save_for_ever(index, path, fds[1]);
        for (uint64_t saves = 1 + next_random(&seed) % 3; saves; saves--)
            ck_assert(read(fds[0], &byte, 1) == 1);
        for (uint64_t spin = next_random(&seed) % 3000000; spin; spin--)
            __asm__ volatile("");
        kill(child, SIGKILL);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status));
        close(fds[0]);
        close(fds[1]);
        index_t *again = open_index("HNSW16", 100);
        err_t err = index_load(again, path, &generation);
        ck_assert_msg(!err_is(err), "turn %d: %s", turn, err_what(err));
        ck_assert_uint_eq(index_stats(again).live, 3020);
        ck_assert_double_ge(recall(again, NULL, seed), 0.9);
        index_destroy(&again);
    }
    unlink_parts(path);
    unlink(path);
    index_destroy(&index);
}
END_TEST

/* Damage to the vectors is found by a thread while they are in use, any other before they are. */
static bool damage_is_found(index_t *index, const char *path)
{
    time_t deadline = time(NULL) + 60;
    uint64_t generation;
    index_base_t *base = NULL;
    err_t err = index_load(index, path, &generation);

    if (err_is(err))
        return err.code == ERR_CORRUPT;
    index_view_t *view = index_acquire(index);
    ck_assert_int_eq(index_build(view, NULL, NULL, &base).code, ERR_CORRUPT);
    ck_assert_int_eq(index_save(view, path, 2).code, ERR_CORRUPT);
    index_view_release(&view);
    while (!index_is_damaged(index) && time(NULL) < deadline)
        sched_yield();
    return index_is_damaged(index);
}

START_TEST(each_block_of_a_large_snapshot_is_checked)
{
    enum { BROAD = 640, VECTORS = 4000, BLOCK = 1 << 20 };
    char path[512];
    float vector[BROAD];
    uint64_t generation = 0;
    struct stat info;
    int in_use = 0;
    index_t *index = NULL, *again = NULL;
    index_options_t options = {
        .dims = BROAD, .factory = "HNSW8", .exact_max = 100, .ef_construction = 16};

    scratch_path(path, sizeof path);
    ck_assert(!err_is(index_new(&index, &options)));
    for (uint64_t id = 1; id <= VECTORS; id++) {
        vector_of(id, BROAD, vector);
        ck_assert(!err_is(index_add(index, id, vector)));
    }
    rebuild(index);
    save(index, path, 1);
    ck_assert(!err_is(index_new(&again, &options)));
    ck_assert(!err_is(index_load(again, path, &generation)));
    arena_t *arena = arena_new();
    index_view_t *views[] = {index_acquire(index), index_acquire(again)};
    for (uint64_t id = 1; id <= VECTORS; id += 150) {
        index_hit_t *hits[2];
        size_t counts[2];
        vector_of(id, BROAD, vector);
        for (int i = 0; i < 2; i++)
            ck_assert(
                !err_is(index_search(views[i], vector, 10, NULL, arena, &hits[i], &counts[i])));
        ck_assert_uint_eq(counts[0], counts[1]);
        ck_assert_mem_eq(hits[0], hits[1], counts[0] * sizeof *hits[0]);
    }
    for (int i = 0; i < 2; i++)
        index_view_release(&views[i]);
    arena_destroy(&arena);
    index_destroy(&again);
    ck_assert(!stat(path, &info) && info.st_size > 3 * BLOCK);
    for (off_t at = 700; at < info.st_size; at += BLOCK / 2 + 12345) {
        char byte = 0;
        int fd = open(path, O_RDWR);
        ck_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
        byte ^= 4;
        ck_assert(pwrite(fd, &byte, 1, at) == 1);
        ck_assert(!err_is(index_new(&again, &options)));
        ck_assert(damage_is_found(again, path));
        in_use += index_stats(again).live > 0;
        index_destroy(&again);
        byte ^= 4;
        ck_assert(pwrite(fd, &byte, 1, at) == 1 && !close(fd));
    }
    ck_assert_int_gt(in_use, 5);
    ck_assert(!err_is(index_new(&again, &options)));
    ck_assert(!err_is(index_load(again, path, &generation)));
    rebuild(again); /* which looks at all of it */
    ck_assert(!index_is_damaged(again));
    index_destroy(&again);
    unlink(path);
    index_destroy(&index);
}
END_TEST

typedef struct saving {
    index_t *index;
    const char *path;
} saving_t;

static void *save_some(void *ctx)
{
    saving_t *saving = ctx;

    for (uint64_t generation = 1; generation <= 10; generation++)
        save(saving->index, saving->path, generation);
    return NULL;
}

START_TEST(two_save_at_once)
{
    char path[512];
    uint64_t generation = 0;
    pthread_t threads[2];
    index_t *index = open_index("HNSW16", 100), *again = open_index("HNSW16", 100);
    saving_t saving = {index, path};

    scratch_path(path, sizeof path);
    add_range(index, 0, 2000);
    for (int i = 0; i < 2; i++)
        ck_assert(!pthread_create(&threads[i], NULL, save_some, &saving));
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert(!err_is(index_load(again, path, &generation)));
    ck_assert_uint_eq(index_stats(again).live, 2000);
    ck_assert_uint_eq(unlink_parts(path), 0);
    unlink(path);
    index_destroy(&index);
    index_destroy(&again);
}
END_TEST

/* The one before is still there, and nothing beside it. */
START_TEST(a_save_that_fails_changes_nothing)
{
    char path[512];
    uint64_t generation = 0;
    struct rlimit small = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY}, before;
    index_t *index = open_index("HNSW16", 100), *again = open_index("HNSW16", 100);

    scratch_path(path, sizeof path);
    add_range(index, 0, 1000);
    save(index, path, 1);
    add_range(index, 1000, 2000);
    rebuild(index);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    index_view_t *view = index_acquire(index);
    ck_assert_int_eq(index_save(view, path, 2).code, ERR_IO);
    index_view_release(&view);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    ck_assert_uint_eq(unlink_parts(path), 0);
    ck_assert(!err_is(index_load(again, path, &generation)));
    ck_assert_uint_eq(generation, 1);
    ck_assert_uint_eq(index_stats(again).live, 1000);
    unlink(path);
    index_destroy(&index);
    index_destroy(&again);
}
END_TEST

/* Whoever opens the directory next removes what was being saved, and nothing else. */
START_TEST(leftovers_are_swept)
{
    char dir[] = "/tmp/test_brain_index.XXXXXX", company[64], part[128], other[128];
    indexes_t *indexes = NULL;
    indexes_options_t options = {.dir = dir, .factory = "HNSW16", .open_limit = 2};

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(company, sizeof company, "%s/acme", dir);
    snprintf(part, sizeof part, "%s/vectors.index" INDEX_PART "a1B2c3", company);
    snprintf(other, sizeof other, "%s/vectors.index", company);
    ck_assert(!mkdir(company, 0700));
    for (int i = 0; i < 2; i++) {
        int fd = open(i ? part : other, O_CREAT | O_WRONLY, 0600);
        ck_assert(fd >= 0 && !close(fd));
    }
    ck_assert(!err_is(indexes_new(&indexes, &options)));
    ck_assert(access(part, F_OK) != 0 && access(other, F_OK) == 0);
    indexes_destroy(&indexes);
    unlink(other);
    rmdir(company);
    rmdir(dir);
}
END_TEST

/* ---- reconcile ---- */

typedef struct stored {
    const uint64_t *ids;
    size_t count, at;
} stored_t;

static bool next_stored(void *self, uint64_t *id)
{
    stored_t *stored = self;

    if (stored->at == stored->count)
        return false;
    *id = stored->ids[stored->at++];
    return true;
}

static err_t add_missing(void *self, index_t *index, uint64_t id)
{
    float vector[DIMS];

    (void)self;
    vector_of(id, DIMS, vector);
    return index_add(index, id, vector);
}

static err_t reconcile(index_t *index, const uint64_t *ids, size_t count)
{
    stored_t stored = {ids, count, 0};
    index_reconcile_t with = {&stored, next_stored, add_missing};

    return index_reconcile(index, &with);
}

START_TEST(a_stale_index_is_brought_up_to_date)
{
    index_t *index = open_index("Flat", 10);
    const uint64_t stored[] = {1, 2, 5, 19, 20, 25, 31, 40};

    add_range(index, 0, 20);
    rebuild(index);
    add_range(index, 20, 30);
    ck_assert_int_eq(reconcile(index, stored, 8).code, ERR_OK);
    ck_assert_uint_eq(index_stats(index).live, 8);
    ck_assert(index_drop(index, 40));
    ck_assert(index_drop(index, 25));
    ck_assert(!index_drop(index, 3));
    /* 25 lives in the store, yet is buried here: only a rebuild helps. */
    ck_assert_int_eq(reconcile(index, stored, 8).code, ERR_STATE);
    index_destroy(&index);
    index = open_index("Flat", 10);
    add_range(index, 10, 20);
    const uint64_t older[] = {3, 15};
    ck_assert_int_eq(reconcile(index, older, 2).code, ERR_STATE);
    index_destroy(&index);
    index = open_index("Flat", 10);
    ck_assert_int_eq(reconcile(index, stored, 8).code, ERR_OK);
    ck_assert_uint_eq(index_stats(index).live, 8);
    index_destroy(&index);
}
END_TEST

/* ---- threads ---- */

typedef struct reading {
    index_t *index;
    atomic_bool stop;
    atomic_size_t searches, wrong;
} reading_t;

static void *read_on(void *self)
{
    reading_t *reading = self;
    arena_t *arena = arena_new();
    uint64_t q = 0;

    while (!atomic_load(&reading->stop)) {
        float query[DIMS];
        index_hit_t *hits;
        size_t count;
        vector_of(q++ % 400 * 2 + 1, DIMS, query); /* odd ids stay */
        index_view_t *view = index_acquire(reading->index);
        err_t err = index_search(view, query, 5, NULL, arena, &hits, &count);
        index_view_release(&view);
        if (err_is(err) || count == 0 || hits[0].score < 0.9999F)
            atomic_fetch_add(&reading->wrong, 1);
        atomic_fetch_add(&reading->searches, 1);
        arena_reset(arena);
    }
    arena_destroy(&arena);
    return NULL;
}

START_TEST(readers_go_on_through_adds_drops_and_swaps)
{
    reading_t reading = {.index = open_index("HNSW16", 100)};
    pthread_t threads[3];

    add_range(reading.index, 0, 1000);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_on, &reading), 0);
    for (uint64_t round = 0; round < 4; round++) {
        index_base_t *base = NULL;
        index_view_t *view = index_acquire(reading.index);
        ck_assert(!err_is(index_build(view, NULL, NULL, &base)));
        index_view_release(&view);
        add_range(reading.index, 1000 + round * 300, 1300 + round * 300);
        for (uint64_t id = round * 200; id < round * 200 + 200; id += 2)
            ck_assert(index_drop(reading.index, id));
        ck_assert(!err_is(index_swap(reading.index, &base)));
    }
    atomic_store(&reading.stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_gt(atomic_load(&reading.searches), 0);
    ck_assert_uint_eq(atomic_load(&reading.wrong), 0);
    index_destroy(&reading.index);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain_index");
    TCase *tcase = tcase_create("index");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, distances_agree_with_plain_arithmetic);
    tcase_add_test(tcase, codes_are_within_their_bound);
    tcase_add_test(tcase, bad_options_are_refused);
    tcase_add_test(tcase, bad_vectors_and_ids_are_refused);
    tcase_add_test(tcase, small_sets_are_exact);
    tcase_add_test(tcase, hnsw_grows_and_shrinks);
    tcase_add_test(tcase, many_threads_build_as_well);
    tcase_add_test(tcase, copies_of_one_vector_are_all_found);
    tcase_add_test(tcase, flat_grows_and_shrinks);
    tcase_add_test(tcase, ivf_grows_and_shrinks);
    tcase_add_test(tcase, filters_act_before_the_limit);
    tcase_add_test(tcase, scores_of_given_ids);
    tcase_add_test(tcase, what_happens_during_a_build_is_kept);
    tcase_add_test(tcase, a_build_can_be_stopped_anywhere);
    tcase_add_test(tcase, a_build_can_be_stopped_or_impossible);
    tcase_add_test(tcase, snapshots_come_back);
    tcase_add_test(tcase, an_empty_index_has_a_snapshot);
    tcase_add_test(tcase, snapshots_of_others_are_refused);
    tcase_add_test(tcase, torn_or_flipped_snapshots_are_refused);
    tcase_add_test(tcase, a_snapshot_survives_its_writer);
    tcase_add_test(tcase, each_block_of_a_large_snapshot_is_checked);
    tcase_add_test(tcase, two_save_at_once);
    tcase_add_test(tcase, a_save_that_fails_changes_nothing);
    tcase_add_test(tcase, leftovers_are_swept);
    tcase_add_test(tcase, a_stale_index_is_brought_up_to_date);
    tcase_add_test(tcase, readers_go_on_through_adds_drops_and_swaps);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
