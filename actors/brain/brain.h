/* brain: the memory of every company: episodes found by words and vectors, a graph of facts, and
 * the experience of who did what how well. One actor; its parts are memory (episodes), postings
 * (the inverted index), indexes (vectors in memory), graph and experience. They share this state
 * and the tables below; nothing outside the folder sees them.
 */
#ifndef ACTORS_BRAIN_BRAIN_H
#define ACTORS_BRAIN_BRAIN_H

#include "actors/brain/indexes.h"
#include "bus/actor.h"

#define brain_settings_FIELDS(F)                                                                   \
    F(STR, language, opt(english), 1, 31,                                                          \
      "Snowball language of companies that are new: stems and stop words; none for neither.")      \
    F(INT, dims, opt(384), 64, 4096, "Dimensions of the built-in embedder, for new companies.")    \
    F(STR, index, opt(HNSW32), 1, 64,                                                              \
      "FAISS factory string beyond exact search: HNSW<m>, IVF<n>,Flat or Flat.")                   \
    F(INT, exact_max, opt(10000), 1, 100000000, "Up to so many memories search is exact.")         \
    F(INT, ef_search, opt(64), 8, 4096, "Breadth of a search in HNSW.")                            \
    F(INT, build_threads, opt(0), 0, 256,                                                          \
      "Threads that build an HNSW index, after everybody else; 0: half of the processors.")        \
    F(INT, indexes_open, opt(64), 1, 10000, "Companies whose vectors stay in memory.")             \
    F(REAL, word_weight, opt(1), 0, 10, "Of words in the fused score; 0: vectors alone.")          \
    F(REAL, vector_weight, opt(0.3), 0, 10,                                                        \
      "Of the built-in vectors in the fused score; 0: words alone.")                               \
    F(REAL, model_weight, opt(1), 0, 10,                                                           \
      "Of an endpoint's vectors; they are joined by rank, not by score. 0: words alone.")          \
    F(REAL, neighbour_weight, opt(0.25), 0, 1,                                                     \
      "What a memory gets of the score of those before and after it in its thread.")               \
    F(REAL, look_weight, opt(1), 0, 10,                                                            \
      "Of a second look at the best: small words, and saying when if that is asked; 0: none.")     \
    F(INT, upkeep_ms, opt(3600000), 100, 86400000,                                                 \
      "How often memories whose time is over are deleted; they are not found from then on.")       \
    F(INT, memories_max, opt(20000000), 1, 1000000000, "Most memories of one company.")            \
    F(STR, embed_url, opt(), 1, 2048,                                                              \
      "An OpenAI-compatible endpoint, as http://host/v1/embeddings; absent: built-in vectors.")    \
    F(STR, embed_model, opt(), 1, 100, "Model of the endpoint; must be set with embed_url.")       \
    F(STR, embed_key_file, opt(), 1, 4096, "File with the endpoint's key; absent: none is sent.")  \
    F(INT, embed_timeout_ms, opt(30000), 100, 600000, "For one request that fills vectors.")       \
    F(INT, embed_query_ms, opt(2000), 50, 60000,                                                   \
      "For the vector of a query; later than that words answer alone.")                            \
    F(INT, embed_batch, opt(32), 1, 200, "Texts in one request.")                                  \
    F(INT, embed_text, opt(8000), 200, 1000000, "Bytes of a text that are embedded.")              \
    F(INT, nodes_max, opt(20000000), 1, 1000000000, "Most nodes and edges of one company's graph.")
RECORD_STRUCT(brain_settings, brain_settings_FIELDS)
extern const record_t brain_settings_record;

/* Tables in each company's store; TABLE_<name> is the index.
 *   episodes     number            the memory, as a record
 *   episode_ids  id                number
 *   heads        number            what filters ask first: time, type, has it a vector
 *   threads      thread, ms, number  -
 *   vectors      model, number     floats
 *   postings     term 0            how many memories, and the newest postings
 *                term 0 number     a full block of older ones, from that number on
 *   fresh        number            words of the newest memories, not yet among the postings
 *   meta         name              counts; what words and vectors are made with
 *   experience   task type, ms, number  who, how well, how long
 *   nodes        id                type and properties
 *   edges        from, relation, to   properties
 *   edges_in     to, relation, from   -
 *   node_words   word 0 id         -
 *   edge_words   word 0 from, relation, to  -
 *   hashes       digest of a text  number, where dedupe was asked for
 */
#define BRAIN_TABLES(T)                                                                            \
    T(episodes)                                                                                    \
    T(episode_ids)                                                                                 \
    T(heads)                                                                                       \
    T(threads)                                                                                     \
    T(vectors)                                                                                     \
    T(postings)                                                                                    \
    T(meta)                                                                                        \
    T(experience) T(nodes) T(edges) T(edges_in) T(node_words) T(edge_words) T(hashes) T(fresh)
enum {
#define BRAIN_TABLE_INDEX(name) TABLE_##name,
    BRAIN_TABLES(BRAIN_TABLE_INDEX)
#undef BRAIN_TABLE_INDEX
        BRAIN_TABLE_COUNT
};

typedef struct brain {
    const brain_settings_t *settings; /* first: the skeleton fills it in */
    indexes_t *indexes;
    actor_t *actor;
    struct filler *filler;    /* fill.c: what gives memories their vectors */
    struct quiet *quiet;      /* quiet.c: companies that were stored to */
    int64_t endpoint_rest_ms; /* the endpoint failed a query: not asked again before this time */
} brain_t;

extern const actor_def_t brain_actor;

/* Further tools of the actor: facts.c and keeping.c. */
extern const method_t facts_methods[], keeping_methods[];

/* Something was written: builds the company's vector index anew, in the background, if that pays.
 */
void brain_build_if_wanted(brain_t *self, call_t *call);

#endif
