#include "actors/brain/care.h"

#include <string.h>

#include "actors/brain/episode.h"
#include "actors/brain/filter.h"
#include "actors/brain/graph.h"
#include "proto/mp.h"

enum { SLICE = 200, SWEEP = 5000, CLEAR = 20000 };

/* ---- proving ---- */

typedef struct audit {
    arena_t *arena;
    store_txn_t *txn;
    meta_config_t config;
    meta_counts_t seen;
    int64_t threads;
    uint64_t sum, postings;
} audit_t;

static err_t wrong(arena_t *arena, const char *id, const char *what)
{
    return err_make(arena, ERR_CORRUPT, "memory %s: %s", id, what);
}

static err_t audit_rows(audit_t *audit, arena_t *arena, uint64_t number, const episode_t *episode)
{
    store_key_t key;
    bytes_t value;
    head_row_t head;
    uint64_t back;

    if (err_is(episode_find(audit->txn, episode->id, &back)) || back != number)
        return wrong(arena, episode->id, "its id leads elsewhere");
    if (err_is(store_get(audit->txn, TABLE_heads, episode_number_key(&key, number), &value)) ||
        !head_row_read(value, &head) || head.timestamp_ms != episode->timestamp ||
        head.type_hash != episode_type_hash(episode->type) ||
        !(head.flags & HEAD_HAS_THREAD) != !episode_has_thread(episode))
        return wrong(arena, episode->id, "its head says something else");
    if (episode_has_thread(episode)) {
        audit->threads++;
        if (err_is(store_get(audit->txn, TABLE_threads,
                             episode_thread_key(&key, episode->thread, episode->timestamp, number),
                             &value)))
            return wrong(arena, episode->id, "it is missing in its thread");
    }
    if (!head_has_vector(&head, (uint32_t)audit->config.model_number))
        return err_ok();
    vector_key(&key, (uint32_t)audit->config.model_number, number);
    if (err_is(store_get(audit->txn, TABLE_vectors, key_bytes(&key), &value)) ||
        value.size != (size_t)audit->config.dims * 4)
        return wrong(arena, episode->id, "its vector is missing");
    audit->seen.vectors++;
    return err_ok();
}

static err_t audit_memory(audit_t *audit, uint64_t number)
{
    arena_t *arena = audit->arena;
    episode_t episode;
    episode_words_t analysis;

    arena_reset(arena);
    err_t err = episode_get(audit->txn, arena, number, &episode);
    if (!err_is(err))
        err = audit_rows(audit, arena, number, &episode);
    if (!err_is(err))
        err = episode_analyse(arena, &audit->config, &episode, false, &analysis);
    if (err_is(err))
        return err;
    audit->seen.memories++;
    audit->postings += analysis.doc.count;
    audit->sum += posting_doc_sum(number, &analysis.doc);
    for (int field = 0; field < EPISODE_FIELDS; field++)
        audit->seen.lengths[field] += analysis.doc.lengths[field];
    return err_ok();
}

/* Of the model in use. Others are those of a move to another model, or what it left. */
static uint64_t count_vectors(const audit_t *audit)
{
    store_scan_t scan;
    store_key_t key;
    bytes_t at, value;
    uint64_t count = 0;

    vector_key(&key, (uint32_t)audit->config.model_number, 0);
    bytes_t prefix = {key.data, key.size - 8};
    if (err_is(store_scan_open(&scan, audit->txn, TABLE_vectors, prefix, (bytes_t){0}, false)))
        return UINT64_MAX;
    while (store_scan_next(&scan, &at, &value))
        count++;
    store_scan_close(&scan);
    return count;
}

static err_t audit_totals(const audit_t *audit, const postings_sum_t *words)
{
    meta_counts_t counts;

    meta_counts(audit->txn, &counts);
    if (counts.memories != audit->seen.memories || counts.vectors != audit->seen.vectors ||
        memcmp(counts.lengths, audit->seen.lengths, sizeof counts.lengths) != 0)
        return err_of(ERR_CORRUPT, "the counts are not those of the memories");
    if (store_count(audit->txn, TABLE_heads) != (int64_t)counts.memories ||
        store_count(audit->txn, TABLE_episode_ids) != (int64_t)counts.memories ||
        store_count(audit->txn, TABLE_threads) != audit->threads ||
        count_vectors(audit) != counts.vectors)
        return err_of(ERR_CORRUPT, "there are rows that belong to no memory");
    if (words->postings != audit->postings || words->sum != audit->sum)
        return err_of(ERR_CORRUPT, "the words index is not that of the memories: run "
                                   "brain_maintenance rebuild_indices");
    return err_ok();
}

err_t care_check(brain_t *self, call_t *call, const char *company)
{
    store_scan_t scan;
    bytes_t key, value;
    uint64_t number;
    postings_sum_t words = {0};
    audit_t audit = {.arena = NULL};
    err_t err = call_read(call, company, &audit.txn);

    if (!err_is(err))
        err = meta_config(self, audit.txn, call_arena(call), &audit.config);
    if (err_is(err))
        return err;
    audit.arena = arena_new();
    err = store_scan_open(&scan, audit.txn, TABLE_episodes, (bytes_t){0}, (bytes_t){0}, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value))
        err = key_read_u64(&key, &number) ? audit_memory(&audit, number)
                                          : err_of(ERR_CORRUPT, "a memory has a bad key");
    store_scan_close(&scan);
    if (!err_is(err))
        err = postings_check(&(postings_t){audit.txn, (uint8_t)audit.config.generation},
                             call_arena(call), &words);
    if (!err_is(err))
        err = audit_totals(&audit, &words);
    if (err_is(err) && err.what) /* the sentence may live in the arena that goes */
        err.what = arena_strdup(call_arena(call), err.what);
    arena_destroy(&audit.arena);
    return err;
}

/* ---- sweeping ---- */

static bool number_lives(store_txn_t *txn, uint64_t number)
{
    store_key_t key;
    bytes_t value;

    return !err_is(store_get(txn, TABLE_episodes, episode_number_key(&key, number), &value));
}

/* The number that a row of a table belongs to. */
static bool number_in(int table, bytes_t key, bytes_t value, arena_t *arena, uint64_t *number)
{
    const char *text;
    int64_t ms;
    uint64_t model;

    switch (table) {
    case TABLE_heads:
    case TABLE_fresh:
        return key_read_u64(&key, number);
    case TABLE_episode_ids:
        return key_read_u64(&value, number);
    case TABLE_vectors:
        return key_read_u64(&key, &model) && key_read_u64(&key, number);
    default: /* threads, experience */
        return key_read_str(&key, arena, &text) && key_read_i64(&key, &ms) &&
               key_read_u64(&key, number);
    }
}

static bool row_lives(store_txn_t *txn, int table, bytes_t key, bytes_t value, arena_t *arena)
{
    uint64_t number;

    if (table == TABLE_hashes)
        return !err_is(
            episode_find(txn, arena_strndup(arena, (const char *)value.data, value.size), &number));
    return number_in(table, key, value, arena, &number) && number_lives(txn, number);
}

static err_t sweep_table(store_txn_t *txn, int table, care_place_t *place, bool *end)
{
    store_scan_t scan;
    store_key_t from = place->from;
    bytes_t key, value;
    arena_t *arena = arena_new();
    err_t err = store_scan_open(&scan, txn, table, (bytes_t){0}, key_bytes(&from), false);

    *end = true;
    for (int rows = 0; !err_is(err) && store_scan_next(&scan, &key, &value); rows++) {
        if (rows == SWEEP) {
            key_open(&place->from);
            key_raw(&place->from, key.data, key.size);
            *end = false;
            break;
        }
        if (!row_lives(txn, table, key, value, arena)) {
            err = store_scan_del(&scan);
            place->deleted++;
        }
        arena_reset(arena);
    }
    store_scan_close(&scan);
    arena_destroy(&arena);
    return err;
}

/* Generations of the words index that nobody searches or builds. */
static err_t sweep_generations(store_txn_t *txn, const meta_config_t *config, bool *more)
{
    meta_rebuild_t rebuild;
    bool building = meta_rebuild(txn, &rebuild);
    err_t err = err_ok();

    *more = false;
    for (int generation = 0; generation < 256 && !*more && !err_is(err); generation++) {
        postings_t in = {txn, (uint8_t)generation};
        if (generation == config->generation || (building && generation == rebuild.generation))
            continue;
        err = postings_clear(&in, CLEAR, more);
    }
    return err;
}

err_t care_vacuum(brain_t *self, call_t *call, const char *company, care_place_t *place, bool *more)
{
    static const int tables[] = {TABLE_heads,      TABLE_episode_ids, TABLE_threads, TABLE_vectors,
                                 TABLE_experience, TABLE_hashes,      TABLE_fresh};
    enum { STEPS = sizeof tables / sizeof tables[0] };
    store_txn_t *txn;
    meta_config_t config;
    bool end = true;
    err_t err = call_write(call, company, &txn);

    *more = true;
    if (!err_is(err))
        err = meta_config(self, txn, call_arena(call), &config);
    if (err_is(err))
        return err;
    if (place->step == STEPS)
        return sweep_generations(txn, &config, more);
    err = sweep_table(txn, tables[place->step], place, &end);
    if (end) {
        place->step++;
        key_open(&place->from);
    }
    return err;
}

/* ---- forgetting ---- */

static bool wished(store_txn_t *txn, const care_wish_t *wish, uint64_t number,
                   const head_row_t *head)
{
    store_key_t key;
    bytes_t episode;

    if ((wish->has_since && head->timestamp_ms < wish->since) ||
        (wish->has_until && head->timestamp_ms >= wish->until) ||
        (wish->type && head->type_hash != episode_type_hash(wish->type)) ||
        (wish->policy &&
         !policy_gone(wish->policy, head->type_hash, head->timestamp_ms, wish->now_ms)))
        return false;
    if (!wish->filter.size)
        return true;
    return !err_is(store_get(txn, TABLE_episodes, episode_number_key(&key, number), &episode)) &&
           filter_passes(wish->filter, episode);
}

/* The ids of up to SLICE memories to forget, from a number on. */
static err_t find_wished(store_txn_t *txn, arena_t *arena, const care_wish_t *wish, uint64_t *from,
                         const char **ids, size_t *count, bool *more)
{
    store_scan_t scan;
    store_key_t key_from;
    bytes_t key, value;
    head_row_t head;
    episode_t episode;
    uint64_t number = 0;
    err_t err = store_scan_open(&scan, txn, TABLE_heads, (bytes_t){0},
                                episode_number_key(&key_from, *from), false);

    *more = false;
    for (int rows = 0; !err_is(err) && store_scan_next(&scan, &key, &value); rows++) {
        if (!key_read_u64(&key, &number))
            continue;
        if (*count == SLICE || rows == SWEEP) {
            *from = number;
            *more = true;
            break;
        }
        if (!head_row_read(value, &head) || !wished(txn, wish, number, &head))
            continue;
        err = episode_get(txn, arena, number, &episode);
        ids[(*count)++] = episode.id;
    }
    store_scan_close(&scan);
    return err;
}

static err_t forget_graph(brain_t *self, call_t *call, const char *company, bool *more)
{
    graph_part_t part;
    err_t err = graph_query(self, call, company, "", SLICE, NULL, &part);

    for (size_t i = 0; i < part.nodes.count && !err_is(err); i++)
        err = graph_del_node(self, call, company, part.nodes.items[i].id);
    for (size_t i = 0; i < part.edges.count && !err_is(err); i++) {
        const graph_edge_t *edge = &part.edges.items[i];
        err = graph_del_edge(self, call, company, edge->from, edge->relation, edge->to);
        if (err.code == ERR_NOT_FOUND) /* it went with its node */
            err = err_ok();
    }
    *more = part.nodes.count + part.edges.count > 0;
    return err;
}

err_t care_forget(brain_t *self, call_t *call, const char *company, const care_wish_t *wish,
                  uint64_t *from, int64_t *deleted, bool *more)
{
    store_txn_t *txn;
    const char *ids[SLICE];
    size_t count = 0;
    err_t err = call_read(call, company, &txn);

    *more = false;
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (!err_is(err))
        err = call_write(call, company, &txn);
    if (!err_is(err))
        err = find_wished(txn, call_arena(call), wish, from, ids, &count, more);
    for (size_t i = 0; i < count && !err_is(err); i++)
        err = memory_delete(self, call, company, ids[i]);
    if (err_is(err))
        return err;
    *deleted += (int64_t)count;
    if (!*more && wish->everything)
        err = forget_graph(self, call, company, more);
    return err;
}
