#include "actors/brain/rank.h"

#include <float.h>
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
                           .word_weight = 1,
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

float rank_unit(const rank_options_t *options, int field, unsigned length)
{
    const rank_field_t *rule = &options->fields[field];
    float mean = rule->mean > 0 ? rule->mean : 1;

    return rule->weight > 0 ? rule->weight / (1 - rule->b + rule->b * (float)length / mean) : 0;
}

float rank_weight(const rank_options_t *options, const uint16_t *counts, const uint16_t *lengths)
{
    float sum = 0;

    for (int field = 0; field < RANK_FIELDS; field++)
        if (counts[field])
            sum += (float)counts[field] * rank_unit(options, field, lengths[field]);
    return sum;
}

/* ---- words ----
 * A window of ids at a time: each list adds its scores to an array that stays in the cache, rarest
 * term first. Terms so common that all together they cannot lift a memory over the bar do not open
 * windows, and are only added where the rarer ones have left something within reach. */

enum { WINDOW = 4096, GROUP = 16 };

typedef struct cursor {
    const rank_list_t *list;
    float idf;   /* with the boost: no memory gets more of this term */
    float reach; /* that of this and all weaker cursors together */
    rank_block_t block;
    size_t at;
} cursor_t;

typedef struct ranking {
    const rank_options_t *options;
    cursor_t *cursors; /* weakest first */
    size_t count;
    size_t first; /* cursors below it cannot bring in anything by themselves */
    float *scores;
    float best; /* highest score in the window so far */
    top_t top;
} ranking_t;

static err_t cursor_seek(cursor_t *cursor, uint64_t from)
{
    err_t err = err_ok();

    for (;;) {
        while (cursor->at < cursor->block.count && cursor->block.ids[cursor->at] < from)
            cursor->at++;
        if (cursor->at < cursor->block.count || !cursor->block.count)
            return err;
        cursor->at = 0;
        err = cursor->list->seek(cursor->list->self, from, &cursor->block);
        if (err_is(err))
            return err;
    }
}

static int by_idf(const void *a, const void *b)
{
    const cursor_t *x = a, *y = b;

    if (x->idf != y->idf)
        return x->idf < y->idf ? -1 : 1;
    return x->list < y->list ? -1 : x->list > y->list;
}

static err_t cursors_open(ranking_t *ranking, const rank_list_t *lists)
{
    float reach = 0;

    for (size_t i = 0; i < ranking->count; i++) {
        float idf = rank_idf(ranking->options->memories, lists[i].memories) * lists[i].boost;
        ranking->cursors[i] = (cursor_t){.list = &lists[i], .idf = idf};
        err_t err = lists[i].seek(lists[i].self, 0, &ranking->cursors[i].block);
        if (err_is(err))
            return err;
    }
    qsort(ranking->cursors, ranking->count, sizeof ranking->cursors[0], by_idf);
    for (size_t i = 0; i < ranking->count; i++)
        ranking->cursors[i].reach = reach += ranking->cursors[i].idf;
    return err_ok();
}

/* Where the next window begins; false at the end. */
static bool next_base(const ranking_t *ranking, uint64_t *base)
{
    bool any = false;

    for (size_t i = ranking->first; i < ranking->count; i++) {
        const cursor_t *cursor = &ranking->cursors[i];
        if (cursor->at < cursor->block.count && (!any || cursor->block.ids[cursor->at] < *base)) {
            *base = cursor->block.ids[cursor->at];
            any = true;
        }
    }
    return any;
}

typedef float float4_t __attribute__((vector_size(16)));
typedef int32_t int4_t __attribute__((vector_size(16)));
typedef int64_t int2_t __attribute__((vector_size(16)));

/* What a term adds to each of `count` memories with those weights. */
static void saturate(const float *weights, size_t count, float idf, float k1, float *out)
{
    const float4_t factor = {idf, idf, idf, idf}, add = {k1, k1, k1, k1};
    float4_t w;
    size_t i = 0;

    for (; i + 4 <= count; i += 4) {
        memcpy(&w, weights + i, sizeof w);
        w = factor * w / (add + w);
        memcpy(out + i, &w, sizeof w);
    }
    for (; i < count; i++)
        out[i] = idf * weights[i] / (k1 + weights[i]);
}

/* Adds postings [at, end) of the block, which lie in the window. */
static void add_postings(ranking_t *ranking, const cursor_t *cursor, size_t end, uint64_t base)
{
    enum { PART = 64 };
    const uint64_t *ids = cursor->block.ids;
    float adds[PART], best = ranking->best;

    for (size_t at = cursor->at; at < end;) {
        size_t count = end - at < PART ? end - at : PART;
        saturate(cursor->block.weights + at, count, cursor->idf, ranking->options->k1, adds);
        for (size_t i = 0; i < count; i++) {
            float *score = &ranking->scores[ids[at + i] - base];
            float sum = *score + adds[i];
            *score = sum;
            best = sum > best ? sum : best;
        }
        at += count;
    }
    ranking->best = best;
}

static err_t add_list(ranking_t *ranking, cursor_t *cursor, uint64_t base)
{
    err_t err = cursor_seek(cursor, base);

    while (!err_is(err) && cursor->at < cursor->block.count) {
        const uint64_t *ids = cursor->block.ids;
        size_t count = cursor->block.count, end = count;
        uint64_t last = ids[count - 1];
        while (end > cursor->at && ids[end - 1] - base >= WINDOW)
            end--;
        add_postings(ranking, cursor, end, base);
        cursor->at = end;
        if (end < count)
            break;
        if (last == UINT64_MAX) {
            cursor->block.count = 0;
            break;
        }
        err = cursor_seek(cursor, last + 1);
    }
    return err;
}

/* Is one of the next GROUP scores at least `bar`? Most are not. */
static inline bool any_reaches(const float *scores, float bar)
{
    const float4_t *at = (const float4_t *)(const void *)scores, least = {bar, bar, bar, bar};
    int4_t any = (at[0] >= least) | (at[1] >= least) | (at[2] >= least) | (at[3] >= least);
    int2_t halves = (int2_t)any;
    return (halves[0] | halves[1]) != 0;
}

static void collect(ranking_t *ranking, uint64_t base)
{
    const rank_options_t *options = ranking->options;
    float bar = top_threshold(&ranking->top);

    for (size_t group = 0; ranking->best >= bar && group < WINDOW; group += GROUP) {
        if (!any_reaches(ranking->scores + group, bar > 0 ? bar : FLT_MIN))
            continue;
        for (size_t i = group; i < group + GROUP; i++) {
            float score = ranking->scores[i];
            if (score > 0 && score >= bar &&
                (!options->accept || options->accept(options->self, base + i))) {
                top_offer(&ranking->top, base + i, score);
                bar = top_threshold(&ranking->top);
            }
        }
    }
    memset(ranking->scores, 0, WINDOW * sizeof ranking->scores[0]);
    ranking->best = 0;
}

static err_t run(ranking_t *ranking)
{
    uint64_t base = 0;

    while (next_base(ranking, &base)) {
        float bar = top_threshold(&ranking->top);
        for (size_t i = ranking->count; i-- > 0;) {
            cursor_t *cursor = &ranking->cursors[i];
            /* A little is added because sums of floats depend on their order. */
            if (i < ranking->first && (ranking->best + cursor->reach) * 1.0001F < bar)
                break;
            err_t err = add_list(ranking, cursor, base);
            if (err_is(err))
                return err;
        }
        collect(ranking, base);
        bar = top_threshold(&ranking->top);
        while (ranking->first < ranking->count &&
               ranking->cursors[ranking->first].reach * 1.0001F < bar)
            ranking->first++;
    }
    return err_ok();
}

err_t rank_words(const rank_options_t *options, const rank_list_t *lists, size_t list_count,
                 size_t k, arena_t *arena, top_hit_t **hits, size_t *count)
{
    ranking_t ranking = {.options = options, .count = list_count};

    if (list_count > RANK_TERMS_MAX)
        return err_of(ERR_ARGUMENT, "the query has too many different words");
    ranking.cursors = ARENA_ARRAY(arena, cursor_t, list_count + 1);
    ranking.scores = ARENA_ARRAY(arena, float, WINDOW);
    top_open(&ranking.top, arena, k);
    err_t err = k ? cursors_open(&ranking, lists) : err_ok();
    if (!err_is(err) && k)
        err = run(&ranking);
    if (err_is(err))
        return err;
    top_sort(&ranking.top);
    *hits = ranking.top.heap;
    *count = ranking.top.count;
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
    return fusion->word_weight * words + fusion->vector_weight * vector + one->lift + one->look;
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
