#include "actors/brain/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/embedder.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/episode.h"
#include "actors/brain/fill.h"
#include "actors/brain/filter.h"
#include "actors/brain/meta.h"
#include "actors/brain/postings.h"
#include "bus/digest.h"
#include "proto/mp.h"

RECORD_DEFINE(explanation, explanation_FIELDS)
RECORD_DEFINE(memory, memory_FIELDS)
RECORD_DEFINE(memory_counts, memory_counts_FIELDS)

enum { POOL = 120, NEIGHBOURS_OF = 60 };

/* ---- deleting ---- */

typedef struct dropped {
    const char *company;
    uint64_t number;
} dropped_t;

static void on_dropped(void *state, void *ctx)
{
    brain_t *self = state;
    const dropped_t *dropped = ctx;

    indexes_drop(self->indexes, dropped->company, dropped->number);
}

static err_t forget_experience(store_txn_t *txn, arena_t *arena, uint64_t number,
                               const episode_t *episode)
{
    store_key_t key;
    bytes_t type;

    if (!mp_get(episode->metadata, "task_type", &type))
        return err_ok();
    key_open(&key);
    key_str(&key, mp_text(arena, type));
    key_i64(&key, episode->timestamp);
    key_u64(&key, number);
    err_t err = store_del(txn, TABLE_experience, key_bytes(&key));
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

/* Also from a rebuild that has come past it. */
static err_t remove_words(store_txn_t *txn, arena_t *arena, const meta_config_t *config,
                          uint64_t number, const posting_doc_t *doc, bool had_vector)
{
    meta_rebuild_t rebuild;
    postings_t in = {txn, (uint8_t)config->generation};
    err_t err = postings_remove(&in, arena, number, doc);

    if (err_is(err) || !meta_rebuild(txn, &rebuild) || number > rebuild.done)
        return err;
    in.generation = rebuild.generation;
    rebuild.memories--;
    rebuild.vectors -= had_vector;
    for (int field = 0; field < EPISODE_FIELDS; field++)
        rebuild.lengths[field] -= doc->lengths[field];
    err = postings_remove(&in, arena, number, doc);
    return err_is(err) ? err : meta_put_rebuild(txn, &rebuild);
}

/* Also from the vectors that are made in the background. */
static err_t remove_next_vector(store_txn_t *txn, const meta_config_t *config, uint64_t number)
{
    meta_fill_t fill;
    store_key_t key;
    head_row_t head;
    bytes_t value;

    if (!meta_fill(txn, &fill) ||
        err_is(store_get(txn, TABLE_heads, episode_number_key(&key, number), &value)) ||
        !head_row_read(value, &head) || !head_has_vector(&head, fill.number))
        return err_ok();
    fill.vectors--;
    err_t err = meta_put_fill(txn, &fill);
    if (err_is(err) || fill.number == config->model_number)
        return err;
    vector_key(&key, fill.number, number);
    err = store_del(txn, TABLE_vectors, key_bytes(&key));
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

static err_t remove_vector(store_txn_t *txn, const meta_config_t *config, uint64_t number,
                           bool *had)
{
    store_key_t key;

    vector_key(&key, (uint32_t)config->model_number, number);
    err_t err = store_del(txn, TABLE_vectors, key_bytes(&key));
    *had = !err_is(err);
    return err.code == ERR_NOT_FOUND ? remove_next_vector(txn, config, number)
           : err_is(err)             ? err
                                     : remove_next_vector(txn, config, number);
}

static void drop_after_commit(call_t *call, const char *company, uint64_t number)
{
    dropped_t *dropped = ARENA_NEW(call_arena(call), dropped_t);

    *dropped = (dropped_t){arena_strdup(call_arena(call), company), number};
    call_after_commit(call, on_dropped, dropped);
}

static err_t remove_number(call_t *call, const char *company, store_txn_t *txn,
                           const meta_config_t *config, meta_counts_t *counts, uint64_t number)
{
    arena_t *arena = call_arena(call);
    episode_t episode;
    episode_words_t words;
    bool had_vector = false;
    err_t err = episode_get(txn, arena, number, &episode);

    if (!err_is(err))
        err = episode_analyse(arena, config, &episode, false, &words);
    if (!err_is(err))
        err = remove_vector(txn, config, number, &had_vector);
    if (!err_is(err))
        err = remove_words(txn, arena, config, number, &words.doc, had_vector);
    if (!err_is(err))
        err = episode_del_rows(txn, number, &episode);
    if (!err_is(err))
        err = forget_experience(txn, arena, number, &episode);
    if (err_is(err))
        return err;
    counts->vectors -= had_vector;
    counts->memories--;
    for (int field = 0; field < EPISODE_FIELDS; field++)
        counts->lengths[field] -= words.doc.lengths[field];
    drop_after_commit(call, company, number);
    return err_ok();
}

err_t memory_delete(brain_t *self, call_t *call, const char *company, const char *id)
{
    store_txn_t *txn;
    meta_config_t config;
    meta_counts_t counts;
    uint64_t number;
    err_t err = call_read(call, company, &txn); /* a miss must not create a company */

    if (!err_is(err))
        err = call_write(call, company, &txn);
    if (!err_is(err))
        err = episode_find(txn, id, &number);
    if (!err_is(err))
        err = meta_config(self, txn, call_arena(call), &config);
    if (err_is(err))
        return err;
    meta_counts(txn, &counts);
    err = remove_number(call, company, txn, &config, &counts, number);
    return err_is(err) ? err : meta_put_counts(txn, &counts);
}

/* ---- storing ---- */

static err_t add_number(call_t *call, store_txn_t *txn, const meta_config_t *config,
                        meta_counts_t *counts, const episode_t *episode)
{
    arena_t *arena = call_arena(call);
    episode_words_t analysis;
    uint64_t number = counts->next_number++;
    err_t err = episode_analyse(arena, config, episode, true, &analysis);

    if (!err_is(err))
        err = episode_put_rows(txn, arena, number, episode,
                               analysis.vector ? (uint32_t)config->model_number : 0);
    if (!err_is(err) && analysis.vector)
        err = episode_put_vector(txn, config, number, analysis.vector);
    if (!err_is(err))
        err = postings_add(&(postings_t){txn, (uint8_t)config->generation}, arena, number,
                           &analysis.doc);
    counts->memories++;
    counts->vectors += analysis.vector != NULL;
    for (int field = 0; field < EPISODE_FIELDS; field++)
        counts->lengths[field] += analysis.doc.lengths[field];
    return err;
}

err_t memory_put(brain_t *self, call_t *call, const char *company, episode_t *episode,
                 bool *replaced)
{
    store_txn_t *txn;
    meta_config_t config;
    meta_counts_t counts;
    uint64_t number;
    err_t err = call_write(call, company, &txn);

    if (!err_is(err))
        err = meta_open(self, txn, call_arena(call), &config);
    if (err_is(err))
        return err;
    meta_counts(txn, &counts);
    if (!episode->id || !*episode->id)
        episode->id = call_new_id(call, "mem_");
    err = episode_find(txn, episode->id, &number);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    *replaced = !err_is(err);
    if (!*replaced && counts.memories >= (uint64_t)self->settings->memories_max)
        return err_make(call_arena(call), ERR_QUOTA,
                        "this company has its most memories (brain.memories_max = %lld)",
                        (long long)self->settings->memories_max);
    if (*replaced) {
        err = remove_number(call, company, txn, &config, &counts, number);
        if (err_is(err))
            return err;
    }
    err = add_number(call, txn, &config, &counts, episode);
    meta_fill_t fill;
    if (!err_is(err) && meta_fill(txn, &fill))
        fill_wake(self, call, company);
    return err_is(err) ? err : meta_put_counts(txn, &counts);
}

err_t memory_merge(brain_t *self, call_t *call, const char *company)
{
    store_txn_t *txn;
    meta_config_t config;
    err_t err = call_write(call, company, &txn);

    if (!err_is(err))
        err = meta_config(self, txn, call_arena(call), &config);
    if (err_is(err))
        return err;
    return postings_merge(&(postings_t){txn, (uint8_t)config.generation});
}

/* ---- the same text once ---- */

static bytes_t hash_key(store_key_t *key, arena_t *arena, const episode_t *episode)
{
    const char *hex = digest_texts(
        arena, episode->request ? episode->request : "", episode->solution ? episode->solution : "",
        episode->author ? episode->author : "", episode->thread ? episode->thread : "", NULL);

    return episode_id_key(key, hex);
}

/* The hash leads to an id; the memory behind it may have been replaced or deleted since. */
err_t memory_same(brain_t *self, call_t *call, const char *company, const episode_t *episode,
                  const char **id)
{
    store_txn_t *txn;
    store_key_t key;
    bytes_t value;
    memory_t found;
    episode_t there;
    arena_t *arena = call_arena(call);

    *id = NULL;
    err_t err = call_read(call, company, &txn);
    if (!err_is(err))
        err = store_get(txn, TABLE_hashes, hash_key(&key, arena, episode), &value);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    const char *known = arena_strndup(arena, (const char *)value.data, value.size);
    err = memory_get(self, call, company, known, &found);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    there = (episode_t){.request = found.request,
                        .solution = found.solution,
                        .author = found.author,
                        .thread = found.thread};
    store_key_t now;
    bytes_t mine = hash_key(&key, arena, episode), theirs = hash_key(&now, arena, &there);
    if (mine.size == theirs.size && memcmp(mine.data, theirs.data, mine.size) == 0)
        *id = known;
    return err_ok();
}

err_t memory_put_hash(brain_t *self, call_t *call, const char *company, const episode_t *episode)
{
    store_txn_t *txn;
    store_key_t key;
    err_t err = call_write(call, company, &txn);

    (void)self;
    if (err_is(err))
        return err;
    return store_put(txn, TABLE_hashes, hash_key(&key, call_arena(call), episode),
                     (bytes_t){(const uint8_t *)episode->id, strlen(episode->id)});
}

/* ---- reading ---- */

static err_t load_memory(store_txn_t *txn, arena_t *arena, uint64_t number, memory_t *out)
{
    bytes_t bytes;
    err_t err = episode_bytes(txn, arena, number, &bytes);

    return err_is(err) ? err : record_decode(&memory_record, bytes, arena, "stored field", out);
}

err_t memory_get(brain_t *self, call_t *call, const char *company, const char *id, memory_t *out)
{
    store_txn_t *txn;
    uint64_t number;
    err_t err = call_read(call, company, &txn);

    (void)self;
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no memory with that id");
    if (!err_is(err))
        err = episode_find(txn, id, &number);
    return err_is(err) ? err : load_memory(txn, call_arena(call), number, out);
}

err_t memory_list(brain_t *self, call_t *call, const char *company, const char *type, size_t limit,
                  uint64_t *cursor, memory_list_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    store_key_t from;
    bytes_t key, value;
    head_row_t head;
    uint64_t begin = *cursor, number = 0;
    arena_t *arena = call_arena(call);
    err_t err = call_read(call, company, &txn);

    (void)self;
    *cursor = 0;
    *out = (memory_list_t){.items = ARENA_ARRAY(arena, memory_t, limit)};
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    bytes_t start = begin ? episode_number_key(&from, begin) : (bytes_t){0};
    err = store_scan_open(&scan, txn, TABLE_heads, (bytes_t){0}, start, true);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        key_read_u64(&key, &number);
        if (type && (!head_row_read(value, &head) || head.type_hash != episode_type_hash(type)))
            continue;
        if (out->count == limit) {
            *cursor = number;
            break;
        }
        err = load_memory(txn, arena, number, &out->items[out->count]);
        out->count += !err_is(err);
    }
    store_scan_close(&scan);
    return err;
}

/* ---- finding ---- */

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
    word_list_t words;
    uint64_t type_hash;
    bool filtered;
    rank_options_t rank;
    size_t pool;
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
        (query->type && head.type_hash != search->type_hash))
        return false;
    if (!query->filter.size)
        return true;
    return !err_is(store_get(search->txn, TABLE_episodes, key_bytes(&key), &value)) &&
           filter_passes(query->filter, value);
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
    options.memories = search->counts.memories;
    if (search->filtered) {
        options.accept = passes;
        options.self = search;
    }
    return options;
}

/* The terms of the query, each once; doubled ones count more. */
static size_t query_terms(const search_t *search, const char **terms, float *boosts)
{
    size_t count = 0;

    for (size_t i = 0; i < search->words.count && count < RANK_TERMS_MAX; i++) {
        const word_t *word = &search->words.words[i];
        size_t same = 0;
        if (word->stop)
            continue;
        while (same < count && strcmp(terms[same], word->term) != 0)
            same++;
        boosts[same] = same < count ? boosts[same] + 1 : 1;
        terms[same] = word->term;
        count += same == count;
    }
    return count;
}

static err_t find_by_words(search_t *search, top_hit_t **hits, size_t *count)
{
    const char **terms = ARENA_ARRAY(search->arena, const char *, RANK_TERMS_MAX);
    float *boosts = ARENA_ARRAY(search->arena, float, RANK_TERMS_MAX);
    size_t term_count = query_terms(search, terms, boosts);
    postings_list_t *opened = ARENA_ARRAY(search->arena, postings_list_t, term_count + 1);
    rank_list_t *lists = ARENA_ARRAY(search->arena, rank_list_t, term_count + 1);
    postings_units_t *units = ARENA_NEW(search->arena, postings_units_t);
    postings_t in = {search->txn, (uint8_t)search->config.generation};

    search->rank = rank_options(search);
    postings_units(&search->rank, units);
    err_t err = postings_open(&in, search->arena, units, terms, term_count, opened, lists);
    for (size_t i = 0; i < term_count; i++)
        lists[i].boost = boosts[i];
    if (!err_is(err))
        err =
            rank_words(&search->rank, lists, term_count, search->pool, search->arena, hits, count);
    postings_close(opened, term_count);
    return err;
}

/* A cosine for each candidate, also those that only words found. */
static err_t score_vectors(search_t *search, const index_view_t *view, const float *vector)
{
    uint64_t *ids = ARENA_ARRAY(search->arena, uint64_t, search->count + 1);
    float *scores = ARENA_ARRAY(search->arena, float, search->count + 1);

    for (size_t i = 0; i < search->count; i++)
        ids[i] = search->candidates[i].id;
    err_t err = index_score(view, vector, ids, search->count, scores);
    for (size_t i = 0; i < search->count && !err_is(err); i++)
        if (isnan(search->candidates[i].vector))
            search->candidates[i].vector = scores[i];
    return err;
}

static err_t find_in_view(search_t *search, const index_view_t *view, const float *vector,
                          const top_hit_t *words, size_t word_count)
{
    top_hit_t *hits = NULL;
    size_t count = 0;
    index_filter_t filter = {passes, search, 0};
    err_t err = index_search(view, vector, search->pool / 3, search->filtered ? &filter : NULL,
                             search->arena, &hits, &count);

    if (err_is(err))
        return err;
    search->candidates = rank_union(search->arena, words, word_count, hits, count, &search->count);
    return score_vectors(search, view, vector);
}

static err_t find_candidates(search_t *search)
{
    top_hit_t *words = NULL;
    size_t word_count = 0;
    index_view_t *view = NULL;
    float *vector = ARENA_ARRAY(search->arena, float, (size_t)search->config.dims);
    vectors_of_t of = {.model = search->config.model,
                       .number = (uint32_t)search->config.model_number,
                       .dims = (uint32_t)search->config.dims,
                       .newest = search->counts.next_number - 1};
    err_t err = find_by_words(search, &words, &word_count);

    if (err_is(err))
        return err;
    bool embedded = false;
    meta_fill_t fill;
    if (!endpoint_makes(of.model)) {
        embedded = !err_is(embedder_terms(search->arena, &search->words, NULL, of.dims, vector));
    } else if (search->query->vector && search->query->dims == of.dims) {
        vector = (float *)search->query->vector;
        embedded = true;
    }
    if (meta_fill(search->txn, &fill) && fill.number == of.number)
        of.newest = fill.done;
    if (embedded && search->counts.vectors)
        err = indexes_view(search->self->indexes, search->company, search->txn, &of, search->arena,
                           &view);
    if (view) {
        err = find_in_view(search, view, vector, words, word_count);
        index_view_release(&view);
    } else if (!err_is(err) || err.code == ERR_STATE || err.code == ERR_NOT_FOUND) {
        err = err_ok();
        search->candidates = rank_union(search->arena, words, word_count, NULL, 0, &search->count);
    }
    return err;
}

/* ---- neighbours in a thread ---- */

typedef struct lift {
    uint64_t id;
    float score;
} lift_t;

/* The memory before or after one in its thread. */
static bool beside(search_t *search, const store_key_t *place, size_t prefix, bool before,
                   uint64_t *number)
{
    store_scan_t scan;
    bytes_t key, value, from = key_bytes(place), thread = {place->data, prefix};
    bool found = false;
    int64_t ms;

    if (err_is(store_scan_open(&scan, search->txn, TABLE_threads, thread, from, before)))
        return false;
    if (store_scan_next(&scan, &key, &value) && store_scan_next(&scan, &key, &value)) {
        bytes_t rest = {key.data + prefix, key.size - prefix};
        found = key_read_i64(&rest, &ms) && key_read_u64(&rest, number);
    }
    store_scan_close(&scan);
    return found;
}

static size_t lifts_of(search_t *search, uint64_t number, float words, lift_t *out)
{
    store_key_t key, prefix;
    bytes_t value, thread;
    head_row_t head;
    uint64_t other;
    size_t count = 0;

    if (err_is(store_get(search->txn, TABLE_heads, episode_number_key(&key, number), &value)) ||
        !head_row_read(value, &head) || !(head.flags & HEAD_HAS_THREAD) ||
        err_is(store_get(search->txn, TABLE_episodes, key_bytes(&key), &value)) ||
        !mp_get(value, "thread", &thread))
        return 0;
    const char *name = mp_text(search->arena, thread);
    key_open(&prefix);
    key_str(&prefix, name);
    episode_thread_key(&key, name, head.timestamp_ms, number);
    float share = (float)search->self->settings->neighbour_weight * words;
    for (int before = 0; before < 2; before++)
        if (beside(search, &key, prefix.size, before, &other))
            out[count++] = (lift_t){other, share};
    return count;
}

static int lift_by_id(const void *a, const void *b)
{
    const lift_t *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

/* Adds the lifts to candidates (both sorted by id) and makes candidates of those who are none. */
static void apply_lifts(search_t *search, lift_t *lifts, size_t lift_count)
{
    rank_candidate_t *all =
        ARENA_ARRAY(search->arena, rank_candidate_t, search->count + lift_count + 1);
    size_t at = 0, kept = 0;

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
            all[kept].lift = sum;
            all[kept].words = isnan(all[kept].words) ? sum : all[kept].words + sum;
            kept++;
        } else if (!search->filtered || passes(search, id)) {
            all[kept++] = (rank_candidate_t){.id = id, .words = sum, .vector = NAN, .lift = sum};
        }
    }
    while (at < search->count)
        all[kept++] = search->candidates[at++];
    search->candidates = all;
    search->count = kept;
}

static void lift_neighbours(search_t *search)
{
    lift_t *lifts = ARENA_ARRAY(search->arena, lift_t, NEIGHBOURS_OF * 2);
    size_t count = 0;

    if (search->self->settings->neighbour_weight <= 0)
        return;
    for (size_t i = 0; i < search->count; i++) {
        const rank_candidate_t *one = &search->candidates[i];
        if (one->word_rank && one->word_rank <= NEIGHBOURS_OF)
            count += lifts_of(search, one->id, one->words, lifts + count);
    }
    if (count)
        apply_lifts(search, lifts, count);
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
    return (double)(call_now_ms(search->call) - head.timestamp_ms) / 86400e3;
}

static void fuse(search_t *search)
{
    rank_fusion_t fusion = rank_fusion_defaults();

    fusion.vector_weight = (float)search->self->settings->vector_weight;
    if (search->query->recency_weight > 0) {
        fusion.recency_weight = (float)search->query->recency_weight;
        fusion.half_life_days = (float)search->query->half_life_days;
        for (size_t i = 0; i < search->count; i++)
            search->candidates[i].age_days = age_days(search, search->candidates[i].id);
    }
    rank_fuse(&fusion, search->candidates, search->count);
}

static bool query_has(const search_t *search, const char *term)
{
    for (size_t i = 0; i < search->words.count; i++)
        if (!search->words.words[i].stop && strcmp(search->words.words[i].term, term) == 0)
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
    float own = isnan(one->words) ? 0 : one->words - one->lift;
    why->word_score = own;
    why->has_word_score = own > 0;
    why->neighbour_score = one->lift;
    why->has_neighbour_score = one->lift > 0;
    why->cosine = isnan(one->vector) ? 0 : one->vector;
    why->has_cosine = !isnan(one->vector);
    why->vector_weight = search->self->settings->vector_weight;
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
        err = load_memory(search->txn, search->arena, one->id, memory);
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
        err = words_new(&words, search->config.language);
    if (err_is(err))
        return err;
    const char *text = episode_query_text(search->arena, query->text, call_now_ms(search->call));
    words_split(words, search->arena, text, strlen(text), &search->words);
    words_destroy(&words);
    meta_counts(search->txn, &search->counts);
    search->company = company;
    search->type_hash = episode_type_hash(query->type);
    search->filtered =
        query->type || query->has_since || query->has_until || query->filter.size > 0;
    search->pool = query->limit * 2 > POOL ? query->limit * 2 : POOL;
    return err_ok();
}

err_t memory_find(brain_t *self, call_t *call, const char *company, const memory_query_t *query,
                  memory_list_t *out)
{
    search_t search = {.self = self, .call = call, .arena = call_arena(call), .query = query};

    *out = (memory_list_t){0};
    if (query->filter.size) {
        err_t bad = filter_check(query->filter, search.arena);
        if (err_is(bad))
            return bad;
    }
    err_t err = search_open(&search, company);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (!err_is(err))
        err = find_candidates(&search);
    if (err_is(err))
        return err;
    lift_neighbours(&search);
    fuse(&search);
    return take_best(&search, out);
}

/* ---- looking after it ---- */

err_t memory_counts(brain_t *self, call_t *call, const char *company, memory_counts_t *out)
{
    store_txn_t *txn;
    meta_config_t config;
    meta_counts_t counts;
    err_t err = call_read(call, company, &txn);

    if (!err_is(err))
        err = meta_config(self, txn, call_arena(call), &config);
    if (err_is(err))
        return err;
    meta_counts(txn, &counts);
    *out = (memory_counts_t){.memories = (int64_t)counts.memories,
                             .vectors = (int64_t)counts.vectors,
                             .model = config.model,
                             .dims = config.dims,
                             .language = config.language};
    meta_fill_t fill;
    if (!meta_fill(txn, &fill))
        return err_ok();
    out->pending = (int64_t)(counts.next_number - 1 - fill.done);
    out->has_pending = true;
    if (fill.number != config.model_number)
        out->next_model = arena_strdup(call_arena(call), fill.model);
    return err_ok();
}
