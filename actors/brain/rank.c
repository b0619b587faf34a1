#include "actors/brain/rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

rank_options_t rank_defaults(void)
{
    rank_options_t options;

    memset(&options, 0, sizeof options);
    options.k1 = 1.2F;
    options.fields[0] = (rank_field_t){.weight = 1, .b = 0.75F, .mean = 1};
    return options;
}

rank_fusion_t rank_fusion_defaults(void)
{
    return (rank_fusion_t){.method = RANK_SCORES,
                           .vector_weight = 0.3F,
                           .rrf_k = 60,
                           .recency_weight = 0,
                           .half_life_days = 30};
}

float rank_idf(uint64_t all, uint64_t having)
{
    double n = (double)all, df = (double)having;

    if (df > n)
        n = df;
    return (float)log(1 + (n - df + 0.5) / (df + 0.5));
}

float rank_posting_score(const rank_options_t *options, const rank_posting_t *posting, float idf)
{
    float sum = 0;

    for (int i = 0; i < RANK_FIELDS; i++) {
        const rank_field_t *field = &options->fields[i];
        if (field->weight <= 0 || !posting->counts[i])
            continue;
        float mean = field->mean > 0 ? field->mean : 1;
        sum += field->weight * posting->counts[i] /
               (1 - field->b + field->b * posting->lengths[i] / mean);
    }
    return sum > 0 ? idf * sum / (options->k1 + sum) : 0;
}

/* ---- words: MaxScore ---- */

typedef struct cursor {
    const rank_list_t *list;
    float idf;   /* with the boost */
    float bound; /* no posting scores more */
    float reach; /* bounds of this and all weaker cursors together */
    rank_block_t block;
    size_t at;
} cursor_t;

static err_t cursor_seek(cursor_t *cursor, uint64_t from)
{
    while (cursor->at < cursor->block.count && cursor->block.postings[cursor->at].id < from)
        cursor->at++;
    if (cursor->at < cursor->block.count || !cursor->block.count)
        return err_ok();
    cursor->at = 0;
    err_t err = cursor->list->seek(cursor->list->self, from, &cursor->block);
    while (!err_is(err) && cursor->at < cursor->block.count &&
           cursor->block.postings[cursor->at].id < from)
        cursor->at++;
    return err;
}

static const rank_posting_t *cursor_now(const cursor_t *cursor)
{
    return cursor->at < cursor->block.count ? &cursor->block.postings[cursor->at] : NULL;
}

static int by_bound(const void *a, const void *b)
{
    const cursor_t *x = a, *y = b;

    if (x->bound != y->bound)
        return x->bound < y->bound ? -1 : 1;
    return x->list < y->list ? -1 : x->list > y->list;
}

static err_t cursors_open(const rank_options_t *options, const rank_list_t *lists, size_t count,
                          cursor_t *cursors)
{
    float reach = 0;

    for (size_t i = 0; i < count; i++) {
        cursor_t *cursor = &cursors[i];
        float idf = rank_idf(options->memories, lists[i].memories) * lists[i].boost;
        *cursor = (cursor_t){.list = &lists[i], .idf = idf, .bound = idf};
        err_t err = lists[i].seek(lists[i].self, 0, &cursor->block);
        if (err_is(err))
            return err;
    }
    qsort(cursors, count, sizeof cursors[0], by_bound);
    for (size_t i = 0; i < count; i++)
        cursors[i].reach = reach += cursors[i].bound;
    return err_ok();
}

/* The least id that the strong cursors stand on; false at the end. */
static bool next_id(const cursor_t *cursors, size_t first, size_t count, uint64_t *id)
{
    bool any = false;

    for (size_t i = first; i < count; i++) {
        const rank_posting_t *posting = cursor_now(&cursors[i]);
        if (posting && (!any || posting->id < *id)) {
            *id = posting->id;
            any = true;
        }
    }
    return any;
}

/* Scores one id, strongest terms first, and gives up when the rest cannot lift it over the bar. */
static err_t score_id(const rank_options_t *options, cursor_t *cursors, size_t count, uint64_t id,
                      float bar, size_t first, float *score)
{
    float sum = 0;

    for (size_t i = count; i-- > 0;) {
        cursor_t *cursor = &cursors[i];
        if (i < first && sum + cursor->reach * 1.0001F < bar)
            break;
        err_t err = cursor_seek(cursor, id);
        if (err_is(err))
            return err;
        const rank_posting_t *posting = cursor_now(cursor);
        if (posting && posting->id == id)
            sum += rank_posting_score(options, posting, cursor->idf);
    }
    *score = sum;
    return err_ok();
}

static err_t run(const rank_options_t *options, cursor_t *cursors, size_t count, top_t *top)
{
    size_t first = 0; /* cursors below it cannot bring in anything new by themselves */
    uint64_t id = 0;

    while (next_id(cursors, first, count, &id)) {
        float bar = top_threshold(top), score = 0;
        err_t err = score_id(options, cursors, count, id, bar, first, &score);
        if (err_is(err))
            return err;
        if (score > 0 && score >= bar && (!options->accept || options->accept(options->self, id)))
            top_offer(top, id, score);
        bar = top_threshold(top);
        while (first < count && cursors[first].reach * 1.0001F < bar)
            first++;
        if (id == UINT64_MAX)
            break;
        for (size_t i = first; i < count; i++) {
            err = cursor_seek(&cursors[i], id + 1);
            if (err_is(err))
                return err;
        }
    }
    return err_ok();
}

err_t rank_words(const rank_options_t *options, const rank_list_t *lists, size_t list_count,
                 size_t k, arena_t *arena, top_hit_t **hits, size_t *count)
{
    top_t top;

    if (list_count > RANK_TERMS_MAX)
        return err_of(ERR_ARGUMENT, "the query has too many different words");
    cursor_t *cursors = ARENA_ARRAY(arena, cursor_t, list_count ? list_count : 1);
    err_t err = cursors_open(options, lists, list_count, cursors);
    if (err_is(err))
        return err;
    top_open(&top, arena, k);
    if (k)
        err = run(options, cursors, list_count, &top);
    if (err_is(err))
        return err;
    top_sort(&top);
    *hits = top.heap;
    *count = top.count;
    return err_ok();
}

/* ---- fusion ---- */

static int by_id(const void *a, const void *b)
{
    const rank_candidate_t *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

rank_candidate_t *rank_union(arena_t *arena, const top_hit_t *words, size_t word_count,
                             const top_hit_t *vectors, size_t vector_count, size_t *count)
{
    rank_candidate_t *all = ARENA_ARRAY(arena, rank_candidate_t, word_count + vector_count + 1);
    size_t kept = 0;

    for (size_t i = 0; i < word_count; i++)
        all[i] = (rank_candidate_t){.id = words[i].id,
                                    .words = words[i].score,
                                    .vector = NAN,
                                    .word_rank = (uint32_t)i + 1};
    for (size_t i = 0; i < vector_count; i++)
        all[word_count + i] = (rank_candidate_t){.id = vectors[i].id,
                                                 .words = NAN,
                                                 .vector = vectors[i].score,
                                                 .vector_rank = (uint32_t)i + 1};
    qsort(all, word_count + vector_count, sizeof all[0], by_id);
    for (size_t i = 0; i < word_count + vector_count; i++) {
        if (kept && all[kept - 1].id == all[i].id) {
            rank_candidate_t *same = &all[kept - 1];
            if (all[i].word_rank) {
                same->words = all[i].words;
                same->word_rank = all[i].word_rank;
            } else {
                same->vector = all[i].vector;
                same->vector_rank = all[i].vector_rank;
            }
        } else {
            all[kept++] = all[i];
        }
    }
    *count = kept;
    return all;
}

static int by_score(const void *a, const void *b)
{
    const rank_candidate_t *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id > y->id ? -1 : x->id < y->id;
}

/* What the scores of this query are measured against. */
typedef struct scale {
    float best_words, best_vector;
} scale_t;

static scale_t scale_of(const rank_candidate_t *candidates, size_t count)
{
    scale_t scale = {0, 0};

    for (size_t i = 0; i < count; i++) {
        if (candidates[i].words > scale.best_words)
            scale.best_words = candidates[i].words;
        if (candidates[i].vector > scale.best_vector)
            scale.best_vector = candidates[i].vector;
    }
    return scale;
}

static float fused(const rank_fusion_t *fusion, const rank_candidate_t *one, scale_t scale)
{
    float words = 0, vector = 0;

    if (fusion->method == RANK_RRF) {
        words = one->word_rank ? 1 / (fusion->rrf_k + (float)one->word_rank) : 0;
        vector = one->vector_rank ? 1 / (fusion->rrf_k + (float)one->vector_rank) : 0;
    } else {
        words = one->words > 0 && scale.best_words > 0 ? one->words / scale.best_words : 0;
        vector = one->vector > 0 && scale.best_vector > 0 ? one->vector / scale.best_vector : 0;
    }
    return words + fusion->vector_weight * vector;
}

void rank_fuse(const rank_fusion_t *fusion, rank_candidate_t *candidates, size_t count)
{
    scale_t scale = scale_of(candidates, count);

    for (size_t i = 0; i < count; i++) {
        float score = fused(fusion, &candidates[i], scale);
        if (fusion->recency_weight > 0 && fusion->half_life_days > 0) {
            double age = candidates[i].age_days > 0 ? candidates[i].age_days : 0;
            score *= 1 + fusion->recency_weight * (float)exp2(-age / fusion->half_life_days);
        }
        candidates[i].score = score;
    }
    qsort(candidates, count, sizeof candidates[0], by_score);
}
