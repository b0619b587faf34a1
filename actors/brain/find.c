/* find: memory_find of memory.h. Words and vectors each bring candidates; their scores are joined;
 * what stands beside a good one in its thread gets a part of its score; the best are loaded. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/embedder.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/episode.h"
#include "actors/brain/filter.h"
#include "actors/brain/look.h"
#include "actors/brain/memory.h"
#include "actors/brain/policy.h"
#include "actors/brain/question.h"
#include "proto/mp.h"

/* Measured by bench_retrieval. */
#define LEAN 0.7F          /* towards what the best by words have in common */
#define COMMON_WORD 0.5F   /* exponent of how rare a word is, for the vector of a question */
#define NOISE 0.12F        /* built-in vectors of unrelated texts are as near as that */
#define ANSWER_FACTOR 2.5F /* an answer gets that much more from its question than a neighbour */
#define ASKED 1.2F         /* a question that has an answer gives up so much of that share */
#define NEXT_BUT_ONE 0.4F  /* of a neighbour's share */
#define SMALL_WORDS 0.15F  /* of the second look, against other words */
#define SAYS_WHEN 0.15F    /* of the best score by words */
#define B_SENTENCE 0.4F    /* b of BM25 among memories of a sentence or two */

enum { POOL = 120, NEIGHBOURS_OF = 60, LIFTS_OF = 5, LEAN_ON = 3, LOOK_AT = 40 };

/* What every step of one search shares. */
typedef struct search {
    brain_t *self;
    call_t *call;
    arena_t *arena;
    store_txn_t *txn;
    const char *company;
    const memory_query_t *query;
    meta_config_t config;
    meta_counts_t counts;
    policy_t policy;
    int64_t now_ms;
    const question_t *question;
    uint64_t *having; /* how many memories have each of its terms */
    uint64_t type_hash;
    bool narrowed, filtered; /* by the query; by that or by what the company keeps */
    rank_options_t rank;
    rank_fusion_t fusion;
    size_t pool;
    index_view_t *view; /* NULL: words alone */
    float *vector;      /* of the question */
    rank_candidate_t *candidates;
    size_t count;
} search_t;

static bool passes(const void *ctx, uint64_t number)
{
    const search_t *search = ctx;
    const memory_query_t *query = search->query;
    store_key_t key;
    bytes_t value;
    head_row_t head;

    if (err_is(store_get(search->txn, TABLE_heads, episode_number_key(&key, number), &value)) ||
        !head_row_read(value, &head))
        return false;
    if ((query->has_since && head.timestamp_ms < query->since) ||
        (query->has_until && head.timestamp_ms >= query->until) ||
        (query->type && head.type_hash != search->type_hash) ||
        policy_gone(&search->policy, head.type_hash, head.timestamp_ms, search->now_ms))
        return false;
    if (!query->filter.size)
        return true;
    return !err_is(store_get(search->txn, TABLE_episodes, key_bytes(&key), &value)) &&
           filter_passes(query->filter, value);
}

/* ---- by words ---- */

/* How much length matters depends on how long memories are, in words that count: in a few words
 * each more is another matter, and pages have more than one; but a sentence of twelve words is one
 * thought as one of twenty is. */
static float length_matters(float b, float mean)
{
    float few = (12 - mean) / 4, many = (mean - 20) / 20, part = few > many ? few : many;

    part = part < 0 ? 0 : part > 1 ? 1 : part;
    return B_SENTENCE + (b - B_SENTENCE) * part;
}

static rank_options_t rank_options(const search_t *search)
{
    rank_options_t options = rank_defaults();
    double memories = search->counts.memories ? (double)search->counts.memories : 1;

    for (int field = 0; field < EPISODE_FIELDS; field++)
        options.fields[field] =
            (rank_field_t){.weight = episode_fields[field].weight,
                           .b = episode_fields[field].b,
                           .mean = (float)((double)search->counts.lengths[field] / memories)};
    rank_field_t *request = &options.fields[EPISODE_REQUEST];
    rank_field_t *solution = &options.fields[EPISODE_SOLUTION];
    float mean = request->mean + solution->mean;
    request->b = length_matters(request->b, mean);
    solution->b = length_matters(solution->b, mean);
    options.memories = search->counts.memories;
    if (search->filtered) {
        options.accept = passes;
        options.self = search;
    }
    return options;
}

static err_t find_by_words(search_t *search, top_hit_t **hits, size_t *count)
{
    const question_t *question = search->question;
    size_t term_count = question->count;
    postings_list_t *opened = ARENA_ARRAY(search->arena, postings_list_t, term_count + 1);
    rank_list_t *lists = ARENA_ARRAY(search->arena, rank_list_t, term_count + 1);
    postings_units_t *units = ARENA_NEW(search->arena, postings_units_t);
    postings_t in = {search->txn, (uint8_t)search->config.generation};

    search->rank = rank_options(search);
    postings_units(&search->rank, units);
    err_t err =
        postings_open(&in, search->arena, units, question->terms, term_count, opened, lists);
    for (size_t i = 0; i < term_count; i++) {
        lists[i].boost = question->boosts[i];
        search->having[i] = lists[i].memories;
    }
    if (!err_is(err))
        err =
            rank_words(&search->rank, lists, term_count, search->pool, search->arena, hits, count);
    postings_close(opened, term_count);
    return err;
}

/* How much of the question built-in vectors can see: all but its dates. */
static float seen_by_vectors(const search_t *search)
{
    const question_t *question = search->question;
    float words = 0, dates = 0;

    for (size_t i = 0; i < question->count; i++) {
        float tells = question->boosts[i] * rank_idf(search->counts.memories, search->having[i]);
        if (i < question->asked)
            words += tells;
        else if (*question->terms[i] == '@')
            dates += tells;
    }
    return words > 0 ? words / (words + dates) : 1;
}

/* ---- the vector of the question ---- */

/* Rare words tell more than common ones, and those that nobody has most of all: a misspelled one
 * is found by its runs of letters. */
static float *word_weights(const search_t *search)
{
    const question_t *question = search->question;
    float *weights = ARENA_ARRAY(search->arena, float, question->words.count + 1);

    for (size_t i = 0; i < question->words.count; i++) {
        size_t term = 0;
        while (term < question->asked &&
               strcmp(question->terms[term], question->words.words[i].term) != 0)
            term++;
        uint64_t having = term < question->asked ? search->having[term] : 0;
        weights[i] = powf(rank_idf(search->counts.memories, having), COMMON_WORD);
    }
    return weights;
}

/* False: there is no word to go by, or the vectors there are by other rules. */
static bool embed_question(search_t *search, uint32_t dims, float *vector)
{
    const char *language = embedder_language(search->config.model);
    words_t *words = NULL;

    if (!language)
        return false;
    if (strcmp(language, search->config.language) == 0)
        return !err_is(embedder_terms(search->arena, &search->question->words, word_weights(search),
                                      dims, vector));
    if (err_is(words_new(&words, language)))
        return false;
    const char *text = search->query->text;
    err_t err = embedder_text(words, search->arena, text, strlen(text), dims, vector);
    words_destroy(&words);
    return !err_is(err);
}

static void add_scaled(float *to, const float *from, uint32_t dims, float factor)
{
    for (uint32_t i = 0; i < dims; i++)
        to[i] += from[i] * factor;
}

static float length_of(const float *vector, uint32_t dims)
{
    double sum = 0;

    for (uint32_t i = 0; i < dims; i++)
        sum += (double)vector[i] * vector[i];
    return (float)sqrt(sum);
}

/* The built-in vector knows only the words of the question. What the best by words have in common
 * is likely wanted too, so it leans towards them. */
static void lean(search_t *search, const top_hit_t *words, size_t count, uint32_t dims)
{
    float *common = ARENA_ARRAY(search->arena, float, dims);
    float *one = ARENA_ARRAY(search->arena, float, dims);
    size_t took = 0;

    for (size_t i = 0; i < count && took < LEAN_ON; i++) {
        store_key_t key;
        bytes_t value;
        vector_key(&key, (uint32_t)search->config.model_number, words[i].id);
        if (err_is(store_get(search->txn, TABLE_vectors, key_bytes(&key), &value)) ||
            value.size != dims * sizeof(float))
            continue;
        memcpy(one, value.data, value.size);
        add_scaled(common, one, dims, words[i].score / words[0].score);
        took++;
    }
    float length = length_of(common, dims);
    if (length <= 0)
        return;
    add_scaled(search->vector, common, dims, LEAN / length);
    length = length_of(search->vector, dims);
    for (uint32_t i = 0; i < dims && length > 0; i++)
        search->vector[i] /= length;
}

static bool have_vector(search_t *search, uint32_t dims, const top_hit_t *words, size_t count)
{
    const memory_query_t *query = search->query;

    if (endpoint_makes(search->config.model)) {
        search->vector = (float *)query->vector;
        return query->vector && query->dims == dims;
    }
    search->vector = ARENA_ARRAY(search->arena, float, dims);
    if (!embed_question(search, dims, search->vector))
        return false;
    if (search->fusion.word_weight > 0)
        lean(search, words, count, dims);
    return true;
}

/* ---- candidates ---- */

/* A cosine for each candidate, also those that only words or neighbours brought in. */
static err_t score_vectors(search_t *search)
{
    uint64_t *ids = ARENA_ARRAY(search->arena, uint64_t, search->count + 1);
    float *scores = ARENA_ARRAY(search->arena, float, search->count + 1);
    size_t count = 0;

    if (!search->view)
        return err_ok();
    for (size_t i = 0; i < search->count; i++)
        if (isnan(search->candidates[i].vector))
            ids[count++] = search->candidates[i].id;
    err_t err = index_score(search->view, search->vector, ids, count, scores);
    count = 0;
    for (size_t i = 0; i < search->count && !err_is(err); i++)
        if (isnan(search->candidates[i].vector))
            search->candidates[i].vector = scores[count++];
    return err;
}

/* search->view, if there are vectors and the question has one. */
static err_t open_view(search_t *search, const top_hit_t *words, size_t word_count)
{
    vectors_of_t of = {.model = search->config.model,
                       .number = (uint32_t)search->config.model_number,
                       .dims = (uint32_t)search->config.dims,
                       .newest = search->counts.next_number - 1,
                       .count = search->counts.vectors};
    meta_fill_t fill;

    if (meta_fill(search->txn, &fill) && fill.number == of.number)
        of.newest = fill.done;
    if (!search->counts.vectors || !have_vector(search, of.dims, words, word_count))
        return err_ok();
    err_t err = indexes_view(search->self->indexes, search->company, search->txn, &of,
                             search->arena, &search->view);
    return err.code == ERR_STATE || err.code == ERR_NOT_FOUND ? err_ok() : err;
}

static err_t find_candidates(search_t *search)
{
    top_hit_t *words = NULL, *hits = NULL;
    size_t word_count = 0, count = 0;
    index_filter_t filter = {passes, search, 0};
    err_t err = find_by_words(search, &words, &word_count);

    if (!err_is(err) && !endpoint_makes(search->config.model))
        search->fusion.vector_weight *= seen_by_vectors(search);
    if (!err_is(err))
        err = open_view(search, words, word_count);
    if (!err_is(err) && search->view)
        err = index_search(search->view, search->vector, search->pool / 3,
                           search->filtered ? &filter : NULL, search->arena, &hits, &count);
    if (err_is(err))
        return err;
    if (!endpoint_makes(search->config.model) && !search->narrowed)
        while (count && hits[count - 1].score < NOISE)
            count--;
    search->candidates = rank_union(search->arena, words, word_count, hits, count, &search->count);
    return score_vectors(search);
}

/* ---- neighbours in a thread ---- */

typedef struct lift {
    uint64_t id;
    float score;
} lift_t;

/* The two memories before or after one in its thread, nearest first; how many there are. */
static size_t beside(search_t *search, const store_key_t *place, size_t prefix, bool before,
                     uint64_t numbers[2])
{
    store_scan_t scan;
    bytes_t key, value, from = key_bytes(place), thread = {place->data, prefix};
    size_t found = 0;
    int64_t ms;

    if (err_is(store_scan_open(&scan, search->txn, TABLE_threads, thread, from, before)))
        return 0;
    if (store_scan_next(&scan, &key, &value)) /* the one itself */
        while (found < 2 && store_scan_next(&scan, &key, &value)) {
            bytes_t rest = {key.data + prefix, key.size - prefix};
            if (!key_read_i64(&rest, &ms) || !key_read_u64(&rest, &numbers[found]))
                break;
            found++;
        }
    store_scan_close(&scan);
    return found;
}

static bytes_t text_of(bytes_t episode, const char *name)
{
    bytes_t field;
    mp_value_t value;

    if (!mp_get(episode, name, &field))
        return (bytes_t){0};
    mp_reader_t reader = mp_reader(field);
    if (!mp_read(&reader, &value) || value.type != MP_STR)
        return (bytes_t){0};
    return (bytes_t){(const uint8_t *)value.text, value.size};
}

/* Does it end by asking? Then what follows in the thread is likely the answer. */
static bool asks(bytes_t episode)
{
    bytes_t text = text_of(episode, "solution");

    if (!text.size) /* all of it was in the request */
        text = text_of(episode, "request");
    while (text.size && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\n'))
        text.size--;
    return (text.size && text.data[text.size - 1] == '?') ||
           (text.size >= 3 && memcmp(text.data + text.size - 3, "\xef\xbc\x9f", 3) == 0);
}

/* What one memory gives to those beside it. A question gives most to its answer, and gives up
 * something itself: who asks wants to be told, not to be asked. */
static size_t lifts_of(search_t *search, uint64_t number, float score, lift_t out[LIFTS_OF])
{
    store_key_t key, prefix;
    bytes_t value, thread;
    head_row_t head;
    uint64_t others[2];
    size_t count = 0;

    if (err_is(store_get(search->txn, TABLE_heads, episode_number_key(&key, number), &value)) ||
        !head_row_read(value, &head) || !(head.flags & HEAD_HAS_THREAD) ||
        err_is(store_get(search->txn, TABLE_episodes, key_bytes(&key), &value)) ||
        !mp_get(value, "thread", &thread))
        return 0;
    const char *name = mp_text(search->arena, thread);
    bool question = asks(value);
    key_open(&prefix);
    key_str(&prefix, name);
    episode_thread_key(&key, name, head.timestamp_ms, number);
    float share = (float)search->self->settings->neighbour_weight * score;
    for (int before = 0; before < 2; before++) {
        bool answered = question && !before;
        size_t found = beside(search, &key, prefix.size, before, others);
        if (found > 0)
            out[count++] = (lift_t){others[0], answered ? share * ANSWER_FACTOR : share};
        if (found > 0 && answered)
            out[count++] = (lift_t){number, -share * ASKED};
        if (found > 1)
            out[count++] = (lift_t){others[1], share * NEXT_BUT_ONE};
    }
    return count;
}

static int lift_by_id(const void *a, const void *b)
{
    const lift_t *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static int candidate_by_id(const void *a, const void *b)
{
    const rank_candidate_t *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

/* Adds the lifts to the candidates and makes candidates of those who are none and got any. */
static void apply_lifts(search_t *search, lift_t *lifts, size_t lift_count)
{
    rank_candidate_t *all =
        ARENA_ARRAY(search->arena, rank_candidate_t, search->count + lift_count + 1);
    size_t at = 0, kept = 0;

    qsort(search->candidates, search->count, sizeof search->candidates[0], candidate_by_id);
    qsort(lifts, lift_count, sizeof lifts[0], lift_by_id);
    for (size_t i = 0; i < lift_count;) {
        float sum = 0;
        uint64_t id = lifts[i].id;
        for (; i < lift_count && lifts[i].id == id; i++)
            sum += lifts[i].score;
        while (at < search->count && search->candidates[at].id < id)
            all[kept++] = search->candidates[at++];
        if (at < search->count && search->candidates[at].id == id) {
            all[kept] = search->candidates[at++];
            all[kept++].lift = sum;
        } else if (!search->filtered || passes(search, id)) {
            all[kept++] = (rank_candidate_t){.id = id, .words = NAN, .vector = NAN, .lift = sum};
        }
    }
    while (at < search->count)
        all[kept++] = search->candidates[at++];
    search->candidates = all;
    search->count = kept;
}

/* The candidates are scored and sorted; if it lifted any they are not sorted afterwards. */
static err_t lift_neighbours(search_t *search, bool *lifted)
{
    lift_t *lifts = ARENA_ARRAY(search->arena, lift_t, NEIGHBOURS_OF * LIFTS_OF);
    size_t count = 0;

    *lifted = false;
    if (search->self->settings->neighbour_weight <= 0 || !store_count(search->txn, TABLE_threads))
        return err_ok();
    for (size_t i = 0; i < search->count && i < NEIGHBOURS_OF; i++) {
        const rank_candidate_t *one = &search->candidates[i];
        count += lifts_of(search, one->id, one->score, lifts + count);
    }
    *lifted = count > 0;
    if (!count)
        return err_ok();
    apply_lifts(search, lifts, count);
    return score_vectors(search);
}

/* ---- a second look ---- */

static float best_by_words(const search_t *search)
{
    float best = 0;

    for (size_t i = 0; i < search->count; i++)
        if (search->candidates[i].words > best)
            best = search->candidates[i].words;
    return best;
}

/* At the first LOOK_AT candidates, which are sorted; if it says true they are not sorted
 * afterwards. */
static bool look_again(search_t *search)
{
    size_t count = search->count < LOOK_AT ? search->count : LOOK_AT;
    look_seen_t *seen = ARENA_ARRAY(search->arena, look_seen_t, count + 1);
    float *scores = ARENA_ARRAY(search->arena, float, count + 1);
    float weight = (float)search->self->settings->look_weight * search->fusion.word_weight;
    float best = best_by_words(search);
    look_t look;
    store_key_t key;
    bytes_t episode;

    look_question(&look, search->config.language, search->query->text);
    if (search->fusion.method == RANK_RRF || weight <= 0 || best <= 0 ||
        (!look.count && !look.when)) /* vectors of a model know small words */
        return false;
    for (size_t i = 0; i < count; i++) {
        episode_number_key(&key, search->candidates[i].id);
        if (err_is(store_get(search->txn, TABLE_episodes, key_bytes(&key), &episode)) ||
            (text_of(episode, "thread").size && asks(episode))) /* it shares them by asking */
            continue;
        look_text(&look, search->arena, text_of(episode, "request"), &seen[i]);
        look_text(&look, search->arena, text_of(episode, "solution"), &seen[i]);
    }
    look_scores(&look, seen, count, scores);
    for (size_t i = 0; i < count; i++)
        search->candidates[i].look =
            weight * (SMALL_WORDS * scores[i] / best + (seen[i].when ? SAYS_WHEN : 0));
    return true;
}

/* ---- the answer ---- */

static double age_days(search_t *search, uint64_t number)
{
    store_key_t key;
    bytes_t value;
    head_row_t head;

    if (err_is(store_get(search->txn, TABLE_heads, episode_number_key(&key, number), &value)) ||
        !head_row_read(value, &head))
        return 0;
    return (double)(search->now_ms - head.timestamp_ms) / 86400e3;
}

static rank_fusion_t fusion_of(const search_t *search)
{
    const brain_settings_t *settings = search->self->settings;
    rank_fusion_t fusion = rank_fusion_defaults();
    bool model = endpoint_makes(search->config.model);

    fusion.method = model ? RANK_RRF : RANK_SCORES;
    fusion.word_weight = (float)settings->word_weight;
    fusion.vector_weight = (float)(model ? settings->model_weight : settings->vector_weight);
    return fusion;
}

static err_t order(search_t *search)
{
    bool lifted;

    rank_fuse(&search->fusion, search->candidates, search->count);
    err_t err = lift_neighbours(search, &lifted);
    if (err_is(err))
        return err;
    if (lifted)
        rank_fuse(&search->fusion, search->candidates, search->count);
    if (!look_again(search) && search->query->recency_weight <= 0)
        return err;
    if (search->query->recency_weight > 0) {
        search->fusion.recency_weight = (float)search->query->recency_weight;
        search->fusion.half_life_days = (float)search->query->half_life_days;
        for (size_t i = 0; i < search->count; i++)
            search->candidates[i].age_days = age_days(search, search->candidates[i].id);
    }
    rank_fuse(&search->fusion, search->candidates, search->count);
    return err_ok();
}

static bool query_has(const search_t *search, const char *term)
{
    for (size_t i = 0; i < search->question->count; i++)
        if (strcmp(search->question->terms[i], term) == 0)
            return true;
    return false;
}

static err_t explain(search_t *search, const rank_candidate_t *one, memory_t *memory)
{
    explanation_t *why = ARENA_NEW(search->arena, explanation_t);
    episode_t episode;
    episode_words_t analysis;
    err_t err = episode_get(search->txn, search->arena, one->id, &episode);

    if (!err_is(err))
        err = episode_analyse(search->arena, &search->config, &episode, false, &analysis);
    if (err_is(err))
        return err;
    const char **terms = ARENA_ARRAY(search->arena, const char *, analysis.doc.count + 1);
    for (size_t i = 0; i < analysis.doc.count; i++)
        if (query_has(search, analysis.doc.terms[i].term))
            terms[why->words.count++] = analysis.doc.terms[i].term;
    why->words.items = terms;
    why->word_score = isnan(one->words) ? 0 : one->words;
    why->has_word_score = one->words > 0;
    why->word_weight = search->fusion.word_weight;
    why->neighbour_score = one->lift;
    why->has_neighbour_score = one->lift != 0;
    why->look_score = one->look;
    why->has_look_score = one->look > 0;
    why->cosine = isnan(one->vector) ? 0 : one->vector;
    why->has_cosine = !isnan(one->vector);
    why->vector_weight = search->fusion.vector_weight;
    if (search->query->recency_weight > 0) {
        double age = one->age_days > 0 ? one->age_days : 0;
        why->recency =
            1 + search->query->recency_weight * exp2(-age / search->query->half_life_days);
        why->has_recency = true;
    }
    memory->explanation = why;
    return err_ok();
}

static err_t take_best(search_t *search, memory_list_t *out)
{
    size_t limit = search->query->limit;
    err_t err = err_ok();

    out->items = ARENA_ARRAY(search->arena, memory_t, limit);
    for (size_t i = 0; i < search->count && out->count < limit && !err_is(err); i++) {
        const rank_candidate_t *one = &search->candidates[i];
        memory_t *memory = &out->items[out->count];
        err = memory_load(search->txn, search->arena, one->id, memory);
        if (err.code == ERR_NOT_FOUND) { /* the vector is newer or older than the snapshot */
            err = err_ok();
            continue;
        }
        memory->score = one->score;
        memory->has_score = true;
        memory->word_rank = one->word_rank;
        memory->has_word_rank = one->word_rank > 0;
        memory->vector_rank = one->vector_rank;
        memory->has_vector_rank = one->vector_rank > 0;
        memory->distance = isnan(one->vector) ? 0 : 1 - one->vector;
        memory->has_distance = !isnan(one->vector);
        if (!err_is(err) && search->query->explain)
            err = explain(search, one, memory);
        out->count++;
    }
    return err;
}

static err_t search_open(search_t *search, const char *company)
{
    const memory_query_t *query = search->query;
    words_t *words = NULL;
    err_t err = call_read(search->call, company, &search->txn);

    if (!err_is(err))
        err = meta_config(search->self, search->txn, search->arena, &search->config);
    if (!err_is(err))
        err = policy_read(search->txn, search->arena, &search->policy);
    if (!err_is(err))
        err = words_new(&words, search->config.language);
    if (err_is(err))
        return err;
    search->now_ms = call_now_ms(search->call);
    question_t *question = ARENA_NEW(search->arena, question_t);
    question_read(words, search->arena, query->text, search->now_ms, question);
    words_destroy(&words);
    search->question = question;
    search->having = ARENA_ARRAY(search->arena, uint64_t, question->count + 1);
    meta_counts(search->txn, &search->counts);
    search->company = company;
    search->type_hash = episode_type_hash(query->type);
    search->narrowed =
        query->type || query->has_since || query->has_until || query->filter.size > 0;
    search->filtered = search->narrowed || search->policy.count > 0;
    search->pool = query->limit * 2 > POOL ? query->limit * 2 : POOL;
    search->fusion = fusion_of(search);
    return err_ok();
}

err_t memory_find(brain_t *self, call_t *call, const char *company, const memory_query_t *query,
                  memory_list_t *out)
{
    memory_query_t read = *query;
    search_t search = {.self = self, .call = call, .arena = call_arena(call), .query = &read};

    *out = (memory_list_t){0};
    if (query->has_since && query->has_until && query->since >= query->until)
        return err_of(ERR_ARGUMENT, "since must be before until");
    if (query->filter.size) {
        err_t bad = filter_read(query->filter, search.arena, &read.filter);
        if (err_is(bad))
            return bad;
    }
    err_t err = search_open(&search, company);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (!err_is(err))
        err = find_candidates(&search);
    if (!err_is(err))
        err = order(&search);
    if (search.view)
        index_view_release(&search.view);
    return err_is(err) ? err : take_best(&search, out);
}
