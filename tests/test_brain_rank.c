#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/rank.h"

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ULL;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* Postings in memory, handed out in small blocks so that seeking is exercised. */
typedef struct posting {
    uint16_t counts[RANK_FIELDS], lengths[RANK_FIELDS];
} posting_t;

typedef struct shelf {
    posting_t *postings;
    uint64_t *ids;
    float *weights;
    size_t count, block, seeks, at;
    err_code_t fail;
} shelf_t;

static err_t seek(void *self, uint64_t from, rank_block_t *block)
{
    shelf_t *shelf = self;
    size_t at = 0;

    shelf->seeks++;
    if (shelf->fail != ERR_OK)
        return err_of(shelf->fail, "as asked");
    at = shelf->at;
    while (at < shelf->count && shelf->ids[at] < from)
        at++;
    shelf->at = at;
    *block = (rank_block_t){0};
    if (at == shelf->count)
        return err_ok();
    at -= at % shelf->block; /* a block may begin before what was asked for */
    size_t count = shelf->count - at < shelf->block ? shelf->count - at : shelf->block;
    *block = (rank_block_t){shelf->ids + at, shelf->weights + at, count};
    return err_ok();
}

static shelf_t shelf_of(arena_t *arena, uint64_t *seed, const rank_options_t *options,
                        uint64_t memories, uint64_t one_in)
{
    shelf_t shelf = {.postings = ARENA_ARRAY(arena, posting_t, memories),
                     .ids = ARENA_ARRAY(arena, uint64_t, memories),
                     .weights = ARENA_ARRAY(arena, float, memories),
                     .block = 1 + next_random(seed) % 8};

    for (uint64_t id = 0; id < memories; id++) {
        if (next_random(seed) % one_in)
            continue;
        posting_t *posting = &shelf.postings[shelf.count];
        shelf.ids[shelf.count] = id;
        posting->counts[0] = (uint16_t)(1 + next_random(seed) % 5);
        posting->counts[2] = (uint16_t)(next_random(seed) % 3);
        for (int field = 0; field < RANK_FIELDS; field++) /* lengths depend on the memory alone */
            posting->lengths[field] = (uint16_t)(5 + (id * 31 + (uint64_t)field * 7) % 40);
        shelf.weights[shelf.count++] = rank_weight(options, posting->counts, posting->lengths);
    }
    return shelf;
}

static float by_hand(const rank_options_t *options, const rank_list_t *lists, size_t count,
                     uint64_t id)
{
    float sum = 0;

    for (size_t i = 0; i < count; i++) {
        const shelf_t *shelf = lists[i].self;
        float idf = rank_idf(options->memories, lists[i].memories) * lists[i].boost;
        size_t low = 0, high = shelf->count;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (shelf->ids[middle] < id)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < shelf->count && shelf->ids[low] == id)
            sum += idf * shelf->weights[low] / (options->k1 + shelf->weights[low]);
    }
    return sum;
}

static bool accept_odd(const void *self, uint64_t id)
{
    (void)self;
    return id % 2;
}

/* Skipping must not change the answer: against scoring every memory, on many random shelves. */
START_TEST(skipping_changes_nothing)
{
    uint64_t seed = 21;

    for (int turn = 0; turn < 300; turn++) {
        arena_t *arena = arena_new();
        uint64_t memories = 1 + next_random(&seed) % (turn % 10 ? 300 : 9000);
        size_t terms = next_random(&seed) % 8, k = 1 + next_random(&seed) % 12, count;
        rank_options_t options = rank_defaults();
        shelf_t shelves[8];
        rank_list_t lists[8];
        top_t expected;
        top_hit_t *hits;
        options.memories = memories;
        options.fields[0].mean = 20;
        options.fields[2] = (rank_field_t){.weight = 0.4F, .b = 0.5F, .mean = 24};
        options.accept = turn % 3 ? NULL : accept_odd;
        for (size_t i = 0; i < terms; i++) {
            shelves[i] = shelf_of(arena, &seed, &options, memories, 1 + next_random(&seed) % 20);
            lists[i] = (rank_list_t){&shelves[i], seek, shelves[i].count,
                                     1 + (float)(next_random(&seed) % 3)};
        }
        top_open(&expected, arena, k);
        for (uint64_t id = 0; id < memories; id++) {
            float score = by_hand(&options, lists, terms, id);
            if (score > 0 && (!options.accept || accept_odd(NULL, id)))
                top_offer(&expected, id, score);
        }
        top_sort(&expected);
        ck_assert(!err_is(rank_words(&options, lists, terms, k, arena, &hits, &count)));
        ck_assert_uint_eq(count, expected.count);
        for (size_t i = 0; i < count; i++) {
            ck_assert_double_eq_tol(hits[i].score, expected.heap[i].score, 1e-4);
            ck_assert_double_eq_tol(by_hand(&options, lists, terms, hits[i].id), hits[i].score,
                                    1e-4);
        }
        arena_destroy(&arena);
    }
}
END_TEST

START_TEST(rare_words_long_texts_and_repeats)
{
    rank_options_t options = rank_defaults();
    const uint16_t once[RANK_FIELDS] = {1}, twice[RANK_FIELDS] = {2};
    const uint16_t usual[RANK_FIELDS] = {10}, longer[RANK_FIELDS] = {40};

    options.fields[0].mean = 10;
    ck_assert(rank_idf(1000, 1) > rank_idf(1000, 10));
    ck_assert(rank_idf(1000, 1000) > 0);
    ck_assert(rank_idf(10, 1000) > 0); /* counts may disagree for a moment */
    ck_assert(isfinite(rank_idf(0, 0)));
    ck_assert(rank_weight(&options, twice, usual) > rank_weight(&options, once, usual));
    ck_assert(rank_weight(&options, once, longer) < rank_weight(&options, once, usual));
    ck_assert_double_eq_tol(rank_weight(&options, once, usual), 1, 1e-6);
    ck_assert_double_eq_tol(rank_weight(&options, once, longer), 1 / 3.25, 1e-6);
    options.fields[0].weight = 0;
    ck_assert_double_eq_tol(rank_weight(&options, once, usual), 0, 1e-9);
}
END_TEST

START_TEST(errors_of_lists_end_the_search)
{
    arena_t *arena = arena_new();
    uint64_t seed = 4;
    rank_options_t options = rank_defaults();
    shelf_t shelf = shelf_of(arena, &seed, &options, 50, 2);
    rank_list_t list = {&shelf, seek, shelf.count, 1};
    rank_list_t many[RANK_TERMS_MAX + 1];
    top_hit_t *hits;
    size_t count;

    options.memories = 50;
    shelf.fail = ERR_CORRUPT;
    ck_assert_int_eq(rank_words(&options, &list, 1, 3, arena, &hits, &count).code, ERR_CORRUPT);
    for (size_t i = 0; i <= RANK_TERMS_MAX; i++)
        many[i] = list;
    ck_assert_int_eq(rank_words(&options, many, RANK_TERMS_MAX + 1, 3, arena, &hits, &count).code,
                     ERR_ARGUMENT);
    shelf.fail = ERR_OK;
    ck_assert_int_eq(rank_words(&options, &list, 1, 0, arena, &hits, &count).code, ERR_OK);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(rank_words(&options, NULL, 0, 5, arena, &hits, &count).code, ERR_OK);
    ck_assert_uint_eq(count, 0);
    arena_destroy(&arena);
}
END_TEST

/* The heap against sorting everything; ties go to the newer. */
START_TEST(the_best_are_the_best)
{
    uint64_t seed = 8;

    for (int turn = 0; turn < 200; turn++) {
        arena_t *arena = arena_new();
        size_t n = next_random(&seed) % 60, k = next_random(&seed) % 20;
        top_t all, best;
        top_open(&all, arena, n);
        top_open(&best, arena, k);
        for (size_t i = 0; i < n; i++) {
            float score = (float)(next_random(&seed) % 10);
            top_offer(&all, i, score);
            top_offer(&best, i, score);
        }
        top_offer(&best, 1, NAN);
        top_sort(&all);
        top_sort(&best);
        ck_assert_uint_eq(best.count, n < k ? n : k);
        for (size_t i = 0; i < best.count; i++)
            ck_assert_uint_eq(best.heap[i].id, all.heap[i].id);
        for (size_t i = 1; i < all.count; i++)
            ck_assert(top_better(all.heap[i - 1], all.heap[i]));
        arena_destroy(&arena);
    }
}
END_TEST

START_TEST(fusion)
{
    arena_t *arena = arena_new();
    const top_hit_t words[] = {{7, 9.0F}, {3, 4.5F}, {5, 1.0F}};
    const top_hit_t vectors[] = {{3, 0.8F}, {9, 0.4F}};
    size_t count;
    rank_fusion_t fusion = rank_fusion_defaults();
    rank_candidate_t *all = rank_union(arena, words, 3, vectors, 2, &count);

    ck_assert_uint_eq(count, 4);
    rank_fuse(&fusion, all, count);
    ck_assert_uint_eq(all[0].id, 7);
    ck_assert_double_eq_tol(all[0].score, 1, 1e-6);
    ck_assert_uint_eq(all[1].id, 3);
    ck_assert_double_eq_tol(all[1].score, 0.5 + 0.3, 1e-6);
    ck_assert_uint_eq(all[1].word_rank, 2);
    ck_assert_uint_eq(all[1].vector_rank, 1);
    ck_assert_uint_eq(all[3].id, 5);
    ck_assert_uint_eq(all[3].vector_rank, 0);
    ck_assert(isnan(all[3].vector));
    fusion.method = RANK_RRF;
    fusion.vector_weight = 1;
    rank_fuse(&fusion, all, count);
    ck_assert_uint_eq(all[0].id, 3);
    ck_assert_double_eq_tol(all[0].score, 1.0 / 62 + 1.0 / 61, 1e-6);
    fusion.recency_weight = 1;
    for (size_t i = 0; i < count; i++)
        all[i].age_days = all[i].id == 5 ? 0 : 10000;
    rank_fuse(&fusion, all, count);
    ck_assert_uint_eq(all[1].id, 5); /* 2/63 is more than 1/61, less than both lists together */
    rank_fuse(&fusion, all, 0);
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain_rank");
    TCase *tcase = tcase_create("rank");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, skipping_changes_nothing);
    tcase_add_test(tcase, rare_words_long_texts_and_repeats);
    tcase_add_test(tcase, errors_of_lists_end_the_search);
    tcase_add_test(tcase, the_best_are_the_best);
    tcase_add_test(tcase, fusion);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
