#include "actors/brain/care.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/brain/endpoint.h"
#include "actors/brain/episode.h"
#include "actors/brain/experience.h"
#include "actors/brain/filter.h"
#include "actors/brain/graph.h"
#include "actors/brain/words.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_DEFINE(import_fault, import_fault_FIELDS)

enum { SLICE = 200, SWEEP = 5000, CLEAR = 20000, FAULTS = 100 };

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

/* ---- repairing ---- */

/* One slice of a rebuild. */
typedef struct mending {
    brain_t *self;
    arena_t *arena;   /* the call's */
    arena_t *scratch; /* of this slice */
    store_txn_t *txn;
    meta_config_t config;
    meta_rebuild_t rebuild;
    uint64_t numbers[SLICE];
    posting_doc_t docs[SLICE];
    size_t count; /* of them */
} mending_t;

/* The configuration even when its words were made by older rules: they are about to go. */
static err_t open_config(mending_t *mending)
{
    err_t err = meta_config(mending->self, mending->txn, mending->arena, &mending->config);

    if (err.code == ERR_VERSION)
        return err_ok();
    return err;
}

static bool has_row(store_txn_t *txn, uint32_t model, uint64_t number)
{
    store_key_t key;
    bytes_t value;

    vector_key(&key, model, number);
    return !err_is(store_get(txn, TABLE_vectors, key_bytes(&key), &value));
}

/* Vectors that were made in the background are not made again. */
static err_t mend_marks(mending_t *mending, uint64_t number)
{
    meta_fill_t fill;
    uint32_t current = (uint32_t)mending->config.model_number;
    err_t err = err_ok();

    if (endpoint_makes(mending->config.model) && has_row(mending->txn, current, number)) {
        err = episode_mark_vector(mending->txn, number, current, current);
        mending->rebuild.vectors++;
    }
    if (!err_is(err) && meta_fill(mending->txn, &fill) && fill.number != current &&
        has_row(mending->txn, fill.number, number))
        err = episode_mark_vector(mending->txn, number, current, fill.number);
    return err;
}

static err_t mend_rows(mending_t *mending, uint64_t number, const episode_t *episode,
                       const float *vector)
{
    store_key_t key;
    bytes_t value;
    uint32_t model = vector ? (uint32_t)mending->config.model_number : 0;
    err_t err = episode_put_rows(mending->txn, mending->scratch, number, episode, model);

    if (!err_is(err))
        err = mend_marks(mending, number);
    if (err_is(err) || !vector)
        return err;
    vector_key(&key, model, number);
    if (!err_is(store_get(mending->txn, TABLE_vectors, key_bytes(&key), &value)) &&
        value.size == (size_t)mending->config.dims * 4)
        return err;
    return episode_put_vector(mending->txn, &mending->config, number, vector);
}

static err_t mend_one(mending_t *mending, uint64_t number, posting_doc_t *doc)
{
    episode_t episode;
    episode_words_t words;
    err_t err = episode_get(mending->txn, mending->scratch, number, &episode);

    if (!err_is(err))
        err = episode_analyse(mending->scratch, &mending->config, &episode, true, &words);
    if (!err_is(err))
        err = mend_rows(mending, number, &episode, words.vector);
    if (err_is(err))
        return err;
    mending->rebuild.memories++;
    mending->rebuild.vectors += words.vector != NULL;
    for (int field = 0; field < EPISODE_FIELDS; field++)
        mending->rebuild.lengths[field] += words.doc.lengths[field];
    *doc = words.doc;
    mending->rebuild.done = number;
    return err_ok();
}

/* The next numbers that are to be written; fewer than SLICE: only fresh ones are behind. */
static err_t next_numbers(mending_t *mending)
{
    store_scan_t scan;
    store_key_t from;
    bytes_t key, value;
    uint64_t number;
    postings_t in = {mending->txn, mending->rebuild.generation};
    err_t err = store_scan_open(&scan, mending->txn, TABLE_episodes, (bytes_t){0},
                                episode_number_key(&from, mending->rebuild.done + 1), false);

    while (!err_is(err) && mending->count < SLICE && store_scan_next(&scan, &key, &value)) {
        if (!key_read_u64(&key, &number))
            continue;
        if (postings_is_fresh(&in, number))
            break;
        mending->numbers[mending->count++] = number;
    }
    store_scan_close(&scan);
    return err;
}

/* Fresh memories belong to no generation: they are mended and counted, no more. */
static err_t mend_rest(mending_t *mending)
{
    store_key_t from;
    store_scan_t scan;
    bytes_t key, value;
    posting_doc_t doc;
    size_t count = 0, most = POSTINGS_FRESH * 2;
    uint64_t *numbers = ARENA_ARRAY(mending->arena, uint64_t, most);
    err_t err = store_scan_open(&scan, mending->txn, TABLE_episodes, (bytes_t){0},
                                episode_number_key(&from, mending->rebuild.done + 1), false);

    while (!err_is(err) && count < most && store_scan_next(&scan, &key, &value))
        count += key_read_u64(&key, &numbers[count]);
    store_scan_close(&scan);
    for (size_t i = 0; i < count && !err_is(err); i++) {
        err = mend_one(mending, numbers[i], &doc);
        arena_reset(mending->scratch);
    }
    return err;
}

/* The new generation has everything that is not fresh: from now on it is the one. */
static err_t switch_over(mending_t *mending)
{
    meta_counts_t counts;
    meta_fill_t fill;
    meta_config_t config = mending->config;

    meta_counts(mending->txn, &counts);
    counts.memories = mending->rebuild.memories;
    counts.vectors = mending->rebuild.vectors;
    if (meta_fill(mending->txn, &fill) && fill.number == config.model_number)
        counts.vectors = fill.vectors; /* some came after their memory was mended */
    memcpy(counts.lengths, mending->rebuild.lengths, sizeof counts.lengths);
    config.generation = mending->rebuild.generation;
    config.words_version = WORDS_VERSION;
    err_t err = meta_put_config(mending->txn, mending->arena, &config);
    if (!err_is(err))
        err = meta_put_counts(mending->txn, &counts);
    return err_is(err) ? err : meta_put_rebuild(mending->txn, NULL);
}

static err_t mend_slice(mending_t *mending, bool *more)
{
    postings_t in = {mending->txn, mending->rebuild.generation};
    err_t err = next_numbers(mending);

    for (size_t i = 0; i < mending->count && !err_is(err); i++)
        err = mend_one(mending, mending->numbers[i], &mending->docs[i]);
    if (!err_is(err))
        err = postings_build(&in, mending->numbers, mending->docs, mending->count);
    if (err_is(err))
        return err;
    *more = mending->count == SLICE;
    if (*more)
        return meta_put_rebuild(mending->txn, &mending->rebuild);
    arena_reset(mending->scratch);
    err = mend_rest(mending);
    return err_is(err) ? err : switch_over(mending);
}

static void on_rebuilt(void *state, void *ctx)
{
    brain_t *self = state;

    indexes_forget(self->indexes, ctx);
}

err_t care_rebuild(brain_t *self, call_t *call, const char *company, bool *more, int64_t *done)
{
    mending_t *mending = ARENA_NEW(call_arena(call), mending_t);
    err_t err;

    *mending = (mending_t){.self = self, .arena = call_arena(call)};
    *more = false;
    err = call_write(call, company, &mending->txn);
    if (!err_is(err))
        err = open_config(mending);
    if (err_is(err))
        return err;
    if (!meta_rebuild(mending->txn, &mending->rebuild))
        mending->rebuild =
            (meta_rebuild_t){.generation = (uint8_t)(mending->config.generation + 1)};
    if (!mending->rebuild.cleared) {
        postings_t in = {mending->txn, mending->rebuild.generation};
        err = postings_clear(&in, CLEAR, more);
        mending->rebuild.cleared = !*more;
        if (err_is(err) || *more)
            return err_is(err) ? err : meta_put_rebuild(mending->txn, &mending->rebuild);
    }
    mending->scratch = arena_new();
    err = mend_slice(mending, more);
    if (err_is(err) && err.what)
        err.what = arena_strdup(call_arena(call), err.what);
    arena_destroy(&mending->scratch);
    *done = (int64_t)mending->rebuild.memories;
    if (!err_is(err) && !*more)
        call_after_commit(call, on_rebuilt, arena_strdup(call_arena(call), company));
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
        (wish->type && head->type_hash != episode_type_hash(wish->type)))
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
    err_t err = graph_query(self, call, company, "", SLICE, &part);

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

/* ---- moving ---- */

static const char *const kinds[] = {"memory", "node", "edge"};
static const int kind_tables[] = {TABLE_episodes, TABLE_nodes, TABLE_edges};
enum { KINDS = 3 };

/* A cursor is the kind's first letter and the hex of the key to begin with. */
static const char *cursor_of(arena_t *arena, int kind, bytes_t key)
{
    buf_t out;

    buf_open(&out, arena);
    buf_printf(&out, "%c", kinds[kind][0]);
    for (size_t i = 0; i < key.size; i++)
        buf_printf(&out, "%02x", key.data[i]);
    return out.data;
}

static bool cursor_read(const char *cursor, int *kind, store_key_t *from)
{
    key_open(from);
    *kind = 0;
    if (!*cursor)
        return true;
    while (*kind < KINDS && kinds[*kind][0] != *cursor)
        (*kind)++;
    if (*kind == KINDS || strlen(cursor + 1) % 2)
        return false;
    for (cursor++; *cursor; cursor += 2) {
        unsigned byte;
        if (strspn(cursor, "0123456789abcdef") < 2 || sscanf(cursor, "%2x", &byte) != 1)
            return false;
        key_u8(from, (uint8_t)byte);
    }
    return !from->overflow;
}

/* One row as a map with its kind first. */
static err_t put_line(arena_t *arena, int kind, bytes_t key, bytes_t value, buf_t *lines)
{
    buf_t all;
    mp_value_t head;
    const char *from, *relation;
    mp_reader_t reader = mp_reader(value);

    buf_open(&all, arena);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return err_of(ERR_CORRUPT, "a row cannot be exported");
    mp_put_map(&all, kind == 2 ? 5 : head.count + 1);
    mp_put_str(&all, "kind");
    mp_put_str(&all, kinds[kind]);
    if (kind == 2) {
        if (!key_read_str(&key, arena, &from) || !key_read_str(&key, arena, &relation))
            return err_of(ERR_CORRUPT, "an edge has a bad key");
        mp_put_str(&all, "from");
        mp_put_str(&all, from);
        mp_put_str(&all, "relation");
        mp_put_str(&all, relation);
        mp_put_str(&all, "to");
        mp_put_strn(&all, (const char *)key.data, key.size);
        mp_put_str(&all, "properties");
        mp_put_raw(&all, value);
    } else {
        buf_put(&all, reader.at, (size_t)(reader.end - reader.at));
    }
    err_t err = json_from_msgpack(buf_bytes(&all), JSON_COMPACT, lines);
    buf_puts(lines, "\n");
    return err;
}

err_t care_export(brain_t *self, call_t *call, const char *company, const char *cursor,
                  size_t limit, size_t largest, buf_t *lines, const char **next, int64_t *count)
{
    store_txn_t *txn;
    store_key_t from;
    store_scan_t scan;
    bytes_t key, value;
    int kind;
    arena_t *arena = call_arena(call);
    err_t err = call_read(call, company, &txn);

    (void)self;
    *next = NULL;
    *count = 0;
    if (!cursor_read(cursor, &kind, &from))
        return err_of(ERR_ARGUMENT, "cursor is not one that brain_export gave");
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    for (; kind < KINDS && !*next && !err_is(err); kind++, key_open(&from)) {
        err = store_scan_open(&scan, txn, kind_tables[kind], (bytes_t){0}, key_bytes(&from), false);
        while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
            if (*count && ((size_t)*count == limit || lines->size + value.size > largest)) {
                *next = cursor_of(arena, kind, key);
                break;
            }
            err = put_line(arena, kind, key, value, lines);
            (*count)++;
        }
        store_scan_close(&scan);
    }
    return err;
}

/* ---- import ---- */

/* A line as it comes in: any of the three, told by kind. */
typedef struct imported {
    int kind;
    episode_t episode;
    graph_node_t node;
    graph_edge_t edge;
} imported_t;

static err_t without_kind(arena_t *arena, bytes_t map, bytes_t *out)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    bytes_t value;
    buf_t rest;
    uint32_t count = 0;

    buf_open(&rest, arena);
    mp_read(&reader, &head);
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || !mp_slice(&reader, &value))
            return err_of(ERR_PARSE, "the line cannot be read");
        if (key.size == 4 && memcmp(key.text, "kind", 4) == 0)
            continue;
        mp_put_strn(&rest, key.text, key.size);
        mp_put_raw(&rest, value);
        count++;
    }
    buf_t all;
    buf_open(&all, arena);
    mp_put_map(&all, count);
    buf_put(&all, rest.data, rest.size);
    *out = buf_bytes(&all);
    return err_ok();
}

static err_t read_line(arena_t *arena, const char *text, size_t size, imported_t *out)
{
    bytes_t map, kind, rest;
    mp_type_t type;
    err_t err = json_to_msgpack(arena, text, size, NULL, &map);

    if (err_is(err))
        return err;
    if (!mp_type_of(map, &type) || type != MP_MAP)
        return err_of(ERR_PARSE, "a line must be a JSON object");
    out->kind = 0;
    if (mp_get(map, "kind", &kind))
        while (out->kind < KINDS && !mp_equals(kind, kinds[out->kind]))
            out->kind++;
    if (out->kind == KINDS)
        return err_of(ERR_ARGUMENT, "kind must be memory, node or edge");
    err = without_kind(arena, map, &rest);
    if (err_is(err))
        return err;
    if (out->kind == 1)
        return record_decode(&graph_node_record, rest, arena, "field", &out->node);
    if (out->kind == 2)
        return record_decode(&graph_edge_record, rest, arena, "field", &out->edge);
    err = record_decode(&episode_record, rest, arena, "field", &out->episode);
    if (!err_is(err) && !*out->episode.id)
        return err_of(ERR_ARGUMENT, "a memory needs an id");
    return err;
}

static const char *fact(arena_t *arena, bytes_t metadata, const char *name)
{
    bytes_t value;
    mp_type_t type;

    if (!metadata.size || !mp_get(metadata, name, &value) || !mp_type_of(value, &type) ||
        type != MP_STR)
        return NULL;
    return mp_text(arena, value);
}

/* What log_experience wrote comes back as experience. */
static err_t put_experience(brain_t *self, call_t *call, const char *company,
                            const episode_t *episode)
{
    arena_t *arena = call_arena(call);
    experience_t experience = {.task_type = fact(arena, episode->metadata, "task_type"),
                               .agent = fact(arena, episode->metadata, "agent_used"),
                               .outcome = fact(arena, episode->metadata, "outcome"),
                               .tokens = episode->tokens,
                               .has_tokens = episode->has_tokens,
                               .duration = episode->duration,
                               .has_duration = episode->has_duration};

    if (!episode->type || strcmp(episode->type, "experience") != 0 || !experience.task_type ||
        !experience.agent || !experience.outcome || strlen(experience.task_type) > 128)
        return err_ok();
    return experience_put(self, call, company, episode, &experience);
}

static err_t put_imported(brain_t *self, call_t *call, const char *company, imported_t *in)
{
    bool replaced;

    if (in->kind == 1)
        return graph_put_node(self, call, company, &in->node);
    if (in->kind == 2)
        return graph_put_edge(self, call, company, &in->edge);
    err_t err = memory_put(self, call, company, &in->episode, &replaced);
    return err_is(err) ? err : put_experience(self, call, company, &in->episode);
}

static void add_fault(arena_t *arena, import_fault_list_t *faults, int64_t line, err_t err)
{
    if (faults->count == FAULTS)
        return;
    if (!faults->items)
        faults->items = ARENA_ARRAY(arena, import_fault_t, FAULTS);
    faults->items[faults->count++] = (import_fault_t){
        .line = line, .has_line = true, .what = arena_strdup(arena, err_what(err))};
}

err_t care_import(brain_t *self, call_t *call, const char *company, const char *lines,
                  int64_t *imported, import_fault_list_t *faults)
{
    arena_t *arena = call_arena(call);
    int64_t number = 0;

    for (const char *at = lines; *at;) {
        size_t size = strcspn(at, "\n");
        imported_t in;
        number++;
        if (strspn(at, " \t\r") < size) {
            err_t err = read_line(arena, at, size, &in);
            if (err_is(err)) {
                add_fault(arena, faults, number, err);
            } else {
                err = put_imported(self, call, company, &in);
                if (err.code == ERR_ARGUMENT)
                    add_fault(arena, faults, number, err);
                else if (err_is(err))
                    return err;
                else
                    (*imported)++;
            }
        }
        at += size + (at[size] == '\n');
    }
    return err_ok();
}
