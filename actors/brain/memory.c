#include "actors/brain/memory.h"

#include <stdlib.h>
#include <string.h>

#include "actors/brain/endpoint.h"
#include "actors/brain/episode.h"
#include "actors/brain/fill.h"
#include "actors/brain/meta.h"
#include "actors/brain/policy.h"
#include "actors/brain/postings.h"
#include "actors/brain/quiet.h"
#include "bus/digest.h"
#include "proto/mp.h"

RECORD_DEFINE(explanation, explanation_FIELDS)
RECORD_DEFINE(memory, memory_FIELDS)
RECORD_DEFINE(memory_counts, memory_counts_FIELDS)

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

/* What a rebuild that may be in another language has of it. */
static err_t remove_from_rebuild(store_txn_t *txn, arena_t *arena, const meta_config_t *config,
                                 uint64_t number, const episode_t *episode, bool had_vector)
{
    meta_rebuild_t rebuild;
    meta_config_t next = *config;
    episode_words_t words;

    if (!meta_rebuild(txn, &rebuild) || number > rebuild.done)
        return err_ok();
    next.language = rebuild.language;
    err_t err = episode_analyse(arena, &next, episode, false, &words);
    if (err_is(err))
        return err;
    rebuild.memories--;
    rebuild.vectors -= had_vector;
    for (int field = 0; field < EPISODE_FIELDS; field++)
        rebuild.lengths[field] -= words.doc.lengths[field];
    err = postings_remove(&(postings_t){txn, rebuild.generation}, arena, number, &words.doc);
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
        err = postings_remove(&(postings_t){txn, (uint8_t)config->generation}, arena, number,
                              &words.doc);
    if (!err_is(err))
        err = remove_from_rebuild(txn, arena, config, number, &episode, had_vector);
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
    postings_t in = {txn, (uint8_t)config->generation};
    if (!err_is(err))
        err = postings_add(&in, arena, number, &analysis.doc);
    if (!err_is(err) && postings_is_full(&in))
        err = postings_merge(&in, call);
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
        return err_make(
            call_arena(call), ERR_QUOTA,
            "this company has its most memories (brain.memories_max = %lld): let some go with "
            "brain_forget or brain_configure keep_days, or raise the setting",
            (long long)self->settings->memories_max);
    if (*replaced) {
        err = remove_number(call, company, txn, &config, &counts, number);
        if (err_is(err))
            return err;
    }
    err = add_number(call, txn, &config, &counts, episode);
    if (!err_is(err))
        quiet_wake(self, call, company);
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
    return postings_merge(&(postings_t){txn, (uint8_t)config.generation}, call);
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

err_t memory_load(store_txn_t *txn, arena_t *arena, uint64_t number, memory_t *out)
{
    bytes_t bytes;
    err_t err = episode_bytes(txn, arena, number, &bytes);

    return err_is(err) ? err : record_decode(&memory_record, bytes, arena, "stored field", out);
}

err_t memory_get(brain_t *self, call_t *call, const char *company, const char *id, memory_t *out)
{
    store_txn_t *txn;
    uint64_t number;
    policy_t policy;
    err_t err = call_read(call, company, &txn);

    (void)self;
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no memory with that id");
    if (!err_is(err))
        err = episode_find(txn, id, &number);
    if (!err_is(err))
        err = policy_read(txn, call_arena(call), &policy);
    if (!err_is(err))
        err = memory_load(txn, call_arena(call), number, out);
    if (!err_is(err) &&
        policy_gone(&policy, episode_type_hash(out->type), out->timestamp, call_now_ms(call)))
        return err_of(ERR_NOT_FOUND, "there is no memory with that id");
    return err;
}

err_t memory_list(brain_t *self, call_t *call, const char *company, const char *type, size_t limit,
                  uint64_t *cursor, memory_list_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    store_key_t from;
    bytes_t key, value;
    head_row_t head = {0};
    policy_t policy;
    uint64_t begin = *cursor, number = 0;
    arena_t *arena = call_arena(call);
    err_t err = call_read(call, company, &txn);

    (void)self;
    *cursor = 0;
    *out = (memory_list_t){.items = ARENA_ARRAY(arena, memory_t, limit)};
    if (!err_is(err))
        err = policy_read(txn, arena, &policy);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    bytes_t start = begin ? episode_number_key(&from, begin) : (bytes_t){0};
    err = store_scan_open(&scan, txn, TABLE_heads, (bytes_t){0}, start, true);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        key_read_u64(&key, &number);
        if (!head_row_read(value, &head) || (type && head.type_hash != episode_type_hash(type)) ||
            policy_gone(&policy, head.type_hash, head.timestamp_ms, call_now_ms(call)))
            continue;
        if (out->count == limit) {
            *cursor = number;
            break;
        }
        err = memory_load(txn, arena, number, &out->items[out->count]);
        out->count += !err_is(err);
    }
    store_scan_close(&scan);
    return err;
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
