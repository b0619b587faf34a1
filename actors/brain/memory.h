/* memory: the episodes of a company; the storage seam of SPECS §4 (LMDB and FAISS are behind it).
 *
 * A memory, its words and its vector are written in one transaction: either all of it can be found
 * or none. Each has a number that grows and is never used again; a replaced id gets a new number,
 * so a number always means the same text.
 *
 * Finding: BM25F over the words of its fields and cosine of vectors, fused; see rank.h. A memory in
 * a thread also gets a part of the score of its neighbours there, more when it follows a question.
 * Filters act before the limit.
 *
 * Writers run in an entry of the brain (call_write); what they change in memory follows the commit.
 * memory_find, memory_get and memory_list may run on reader threads.
 */
#ifndef ACTORS_BRAIN_MEMORY_H
#define ACTORS_BRAIN_MEMORY_H

#include "actors/brain/brain.h"

/* Of one task; a number that is larger is a mistake of the caller, not a bill. */
#define TOKENS_MOST 1000000000000
#define DURATION_MOST 1e15

/* What is kept of an episode; also a line of an export. */
#define EPISODE_ROWS(F)                                                                            \
    F(STR, id, must, 0, 256, "Id of the memory.")                                                  \
    F(STR, taskId, opt(), 0, 1024, "The task it came from.")                                       \
    F(STR, type, opt(), 0, 128, "Kind of memory; experience is what log_experience writes.")       \
    F(TIME, timestamp, must, 0, 0, "When it happened, ms since 1970.")                             \
    F(STR, author, opt(), 0, 256, "Who said or did it.")                                           \
    F(STR, thread, opt(), 0, 256, "Conversation or case it belongs to.")                           \
    F(STR, request, opt(), 0, 0, "What was asked.")                                                \
    F(STR, solution, opt(), 0, 0, "What was answered or done.")                                    \
    F(ANY, artifacts, opt(), 0, 1048576, "Files or things that came of it.")                       \
    F(ANY, metadata, opt(), 0, 1048576, "Facts to filter by: names and values.")                   \
    F(INT, tokens, opt(), 0, 0, "Tokens it took.")                                                 \
    F(REAL, duration, opt(), 0, 0, "How long it took, as given.")                                  \
    F(STR, related_episode_id, opt(), 0, 256, "Another memory that this one refers to.")           \
    F(ANY, simulation_attempts, opt(), 0, 1048576, "Tries in simulation.")                         \
    F(BOOL, resolved_via_dreaming, opt(), 0, 0, "Solved in simulation.")                           \
    F(ANY, dreaming_outcomes, opt(), 0, 1048576, "What simulation brought.")                       \
    F(REAL, forecast_horizon, opt(), 0, 0, "How far ahead a forecast looked.")                     \
    F(REAL, error_margin, opt(), 0, 0, "How far off it may be.")                                   \
    F(STR, source_agency, opt(), 0, 256, "Which agency it came from.")                             \
    F(TIME, created, opt(), 0, 0, "When it was stored, ms since 1970.")                            \
    F(STR, stored_by, opt(), 0, 256, "The principal who stored it.")

#define episode_FIELDS(F) EPISODE_ROWS(F)
RECORD_STRUCT(episode, episode_FIELDS)
extern const record_t episode_record;

#define explanation_FIELDS(F)                                                                      \
    F(STRS, words, must, 0, 0, "Terms of the query that the memory has; those with @ are dates.")  \
    F(REAL, word_score, opt(), 0, 0, "BM25F of the memory itself.")                                \
    F(REAL, word_weight, must, 0, 0, "Weight of the words against the vectors.")                   \
    F(REAL, neighbour_score, opt(), 0, 0,                                                          \
      "What its neighbours in the thread added, less what a question gave to its answer.")         \
    F(REAL, look_score, opt(), 0, 0, "What small words, and saying when if asked, added.")         \
    F(REAL, cosine, opt(), 0, 0, "Likeness of the vectors, -1 to 1.")                              \
    F(REAL, vector_weight, must, 0, 0, "Weight of the vectors against the words.")                 \
    F(REAL, recency, opt(), 0, 0, "Factor for being new.")
RECORD_STRUCT(explanation, explanation_FIELDS)
extern const record_t explanation_record;

/* An episode as an answer. */
#define memory_FIELDS(F)                                                                           \
    EPISODE_ROWS(F)                                                                                \
    F(REAL, score, opt(), 0, 0, "How well it fits; only comparable within one answer.")            \
    F(INT, word_rank, opt(), 0, 0, "Its place by words, 1 is best; absent: not found by words.")   \
    F(INT, vector_rank, opt(), 0, 0, "Its place by vectors; absent: not found by them.")           \
    F(REAL, distance, opt(), 0, 0, "1 - cosine.")                                                  \
    F(REC(explanation), explanation, opt(), 0, 0, "Why it was found, when asked for.")
RECORD_STRUCT(memory, memory_FIELDS)
extern const record_t memory_record;

/* Keeps an episode; one with the same id is replaced. `replaced` tells. QUOTA, FULL, ... */
err_t memory_put(brain_t *self, call_t *call, const char *company, episode_t *episode,
                 bool *replaced);
/* The id of a memory with the same request, solution, author and thread that was stored with
 * memory_put_hash; NULL: none. */
err_t memory_same(brain_t *self, call_t *call, const char *company, const episode_t *episode,
                  const char **id);
err_t memory_put_hash(brain_t *self, call_t *call, const char *company, const episode_t *episode);

/* Merges the words of the newest memories into the index now. */
err_t memory_merge(brain_t *self, call_t *call, const char *company);

/* ERR_NOT_FOUND when there is none (also when the company has nothing at all). */
err_t memory_delete(brain_t *self, call_t *call, const char *company, const char *id);
err_t memory_get(brain_t *self, call_t *call, const char *company, const char *id, memory_t *out);

/* The memory with a number, into the arena; for the parts of the brain that hold the transaction.
 * ERR_NOT_FOUND. */
err_t memory_load(store_txn_t *txn, arena_t *arena, uint64_t number, memory_t *out);

/* Newest stored first; `cursor` 0 begins, and is 0 again at the end. */
err_t memory_list(brain_t *self, call_t *call, const char *company, const char *type, size_t limit,
                  uint64_t *cursor, memory_list_t *out);

typedef struct memory_query {
    const char *text;
    size_t limit;
    const char *type; /* NULL: any */
    bool has_since, has_until;
    int64_t since, until; /* ms; since <= timestamp < until */
    bytes_t filter;       /* msgpack map, see filter.h; empty: none */
    bool explain;
    double recency_weight; /* 0: time does not matter */
    double half_life_days;
    const float *vector; /* of the text, by the endpoint; NULL: words alone, or built-in vectors */
    uint32_t dims;       /* of it */
} memory_query_t;

/* Best first; in find.c. ERR_ARGUMENT (filter). A company that has nothing gives nothing. */
err_t memory_find(brain_t *self, call_t *call, const char *company, const memory_query_t *query,
                  memory_list_t *out);

#define memory_counts_FIELDS(F)                                                                    \
    F(INT, memories, must, 0, 0, "Memories.")                                                      \
    F(INT, vectors, must, 0, 0, "Of them with a vector.")                                          \
    F(STR, model, must, 0, 0, "What makes the vectors.")                                           \
    F(INT, dims, must, 0, 0, "Dimensions of the vectors.")                                         \
    F(INT, pending, opt(), 0, 0, "Memories whose vectors are still to be made.")                   \
    F(STR, next_model, opt(), 0, 0, "What will make the vectors once all have theirs.")            \
    F(STR, language, must, 0, 0, "Language of stems and stop words.")
RECORD_STRUCT(memory_counts, memory_counts_FIELDS)
extern const record_t memory_counts_record;
err_t memory_counts(brain_t *self, call_t *call, const char *company, memory_counts_t *out);

#endif
