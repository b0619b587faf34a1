/* rank: which memories answer best, given postings. It knows no store.
 *
 * BM25F: the counts of a term in the fields of a memory are weighted, divided by how long each
 * field is against its mean, added, and then saturated once:
 *
 *   score = sum over terms of  idf * w / (k1 + w),   w = sum over fields of
 *           weight * count / (1 - b + b * length / mean length)
 *
 * Whoever holds the postings works out w (rank_weight, rank_unit) and hands out blocks
 * of ascending ids with their w through rank_list_t; whole blocks can be skipped.
 *
 * Fusion joins the word scores with cosines. Filters belong into rank_options_t.accept: they act
 * before the limit. Results are deterministic: equal scores are ordered newest id first.
 * Thread: pure; a list belongs to one search.
 */
#ifndef ACTORS_BRAIN_RANK_H
#define ACTORS_BRAIN_RANK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actors/brain/top.h"
#include "proto/arena.h"
#include "proto/err.h"

#define RANK_FIELDS 6 /* most fields a memory may have */
#define RANK_TERMS_MAX 256

typedef struct rank_block {
    const uint64_t *ids;  /* ascending; valid until the next call on the list */
    const float *weights; /* w of each */
    size_t count;         /* 0: no more */
} rank_block_t;

/* One term of the query. */
typedef struct rank_list {
    void *self;
    /* The block that holds the first id >= from (it may begin before), or an empty one. `from`
     * never goes back. Errors end the search. */
    err_t (*seek)(void *self, uint64_t from, rank_block_t *block);
    uint64_t memories; /* how many memories have the term */
    float boost;       /* of this term in the query; 1 is usual */
} rank_list_t;

typedef struct rank_field {
    float weight; /* 0: the field is not searched */
    float b;      /* 0 to 1: how much length matters */
    float mean;   /* mean length in words; at most 0 counts as 1 */
} rank_field_t;

typedef struct rank_options {
    rank_field_t fields[RANK_FIELDS];
    float k1;
    uint64_t memories;                             /* in all */
    bool (*accept)(const void *self, uint64_t id); /* NULL: all; asked only of contenders */
    const void *self;
} rank_options_t;

/* k1 1.2 and one field of weight 1, b 0.75; the rest zero. */
rank_options_t rank_defaults(void);

/* How much a term tells that `having` of `all` memories have: always positive. */
float rank_idf(uint64_t all, uint64_t having);

/* w of a memory that has the term `counts` times in fields of `lengths` words. */
float rank_weight(const rank_options_t *options, const uint16_t *counts, const uint16_t *lengths);
/* What one occurrence in a field of that length adds to w. */
float rank_unit(const rank_options_t *options, int field, unsigned length);

/* The k best ids by words, best first, in the arena. Terms that cannot lift anything into the
 * answer any more are passed over (MaxScore); the answer is that of scoring everything.
 * Errors: ARGUMENT (more than RANK_TERMS_MAX lists), those of the lists. */
err_t rank_words(const rank_options_t *options, const rank_list_t *lists, size_t list_count,
                 size_t k, arena_t *arena, top_hit_t **hits, size_t *count);

/* A memory that either search found. */
typedef struct rank_candidate {
    uint64_t id;
    float words;                     /* BM25F, or NAN */
    float vector;                    /* cosine, or NAN */
    uint32_t word_rank, vector_rank; /* 1 is best; 0: not found by that search */
    float lift;                      /* what its neighbours gave: added to the fused score */
    float look;                      /* what a second look (look.h) gave: likewise */
    double age_days;                 /* for recency; 0 is new */
    float score;                     /* set by rank_fuse */
} rank_candidate_t;

typedef enum rank_method {
    RANK_SCORES, /* words / best words + vector_weight * cosine / best cosine */
    RANK_RRF,    /* 1 / (rrf_k + rank), summed: for embeddings that know meaning */
} rank_method_t;

typedef struct rank_fusion {
    rank_method_t method;
    float word_weight, vector_weight; /* of each against the other */
    float rrf_k;                      /* 60 is usual */
    float recency_weight;             /* 0: time does not matter; 1: a new memory counts twice */
    float half_life_days;             /* after which recency is worth half */
} rank_fusion_t;

rank_fusion_t rank_fusion_defaults(void);

/* Joins the results of both searches into one list without doubles, in the arena. */
rank_candidate_t *rank_union(arena_t *arena, const top_hit_t *words, size_t word_count,
                             const top_hit_t *vectors, size_t vector_count, size_t *count);

/* Scores and sorts the candidates in place, best first. May be called again after lifts changed. */
void rank_fuse(const rank_fusion_t *fusion, rank_candidate_t *candidates, size_t count);

#endif
