#include "actors/brain/episode.h"

#include <stdlib.h>
#include <string.h>

#include "actors/brain/dates.h"
#include "actors/brain/embedder.h"
#include "proto/mp.h"

RECORD_DEFINE(episode, episode_FIELDS)

/* Chosen by bench_retrieval. Who and when have little to say about what, and say it once, so their
 * length does not matter. */
const episode_field_t episode_fields[EPISODE_FIELDS] = {
    [EPISODE_REQUEST] = {1.2F, 0.75F}, [EPISODE_SOLUTION] = {1.0F, 0.75F},
    [EPISODE_NAMES] = {0.6F, 0.3F},    [EPISODE_DATES] = {2.0F, 0.0F},
    [EPISODE_WHO] = {2.0F, 0.0F},      [EPISODE_PARTS] = {0.5F, 0.0F}};

/* ---- what a memory says ---- */

static void put_texts(buf_t *out, bytes_t value, int depth)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    bytes_t child;

    if (!value.size || depth > 4 || !mp_read(&reader, &head))
        return;
    if (head.type == MP_STR) {
        buf_put(out, head.text, head.size);
        buf_puts(out, "\n");
    }
    if (head.type != MP_ARRAY && head.type != MP_MAP)
        return;
    for (uint32_t i = 0; i < head.count; i++) {
        if (head.type == MP_MAP && !mp_skip(&reader))
            return;
        if (!mp_slice(&reader, &child))
            return;
        put_texts(out, child, depth + 1);
    }
}

static void put_text(buf_t *out, const char *text)
{
    if (text && *text) {
        buf_puts(out, text);
        buf_puts(out, "\n");
    }
}

static void put_names(buf_t *out, const episode_t *episode)
{
    put_text(out, episode->thread);
    put_text(out, episode->taskId);
    put_text(out, episode->type);
    put_text(out, episode->source_agency);
    put_texts(out, episode->artifacts, 0);
    put_texts(out, episode->metadata, 0);
}

/* ---- the words of an episode ---- */

static void split_text(words_t *words, arena_t *arena, const char *text, word_list_t *list)
{
    words_split(words, arena, text ? text : "", text ? strlen(text) : 0, list);
}

static void analyse_field(words_t *words, arena_t *arena, episode_words_t *into, int field,
                          const char *text, word_list_t *list)
{
    split_text(words, arena, text, list);
    posting_doc_add(&into->doc, arena, field, EPISODE_PARTS, list);
}

static void analyse_time(arena_t *arena, episode_words_t *into, int64_t ms)
{
    const char *terms[DATES_OF];
    size_t count = dates_of(arena, ms, terms);

    for (size_t i = 0; i < count; i++)
        posting_doc_add_term(&into->doc, arena, EPISODE_DATES, terms[i]);
}

/* By the rules of the model's name: after a change of language it is the older one for a while. */
static void embed(arena_t *arena, const meta_config_t *config, const episode_t *episode,
                  const word_list_t *request, const word_list_t *solution, episode_words_t *out)
{
    words_t *words = NULL;
    word_list_t both[2] = {*request, *solution};
    const char *language = embedder_language(config->model);
    float *vector = ARENA_ARRAY(arena, float, (size_t)config->dims);

    if (!language)
        return;
    if (strcmp(language, config->language) != 0) {
        if (err_is(words_new(&words, language)))
            return;
        split_text(words, arena, episode->request, &both[0]);
        split_text(words, arena, episode->solution, &both[1]);
        words_destroy(&words);
    }
    word_list_t all = words_join(arena, &both[0], &both[1]);
    if (!err_is(embedder_terms(arena, &all, NULL, (uint32_t)config->dims, vector)))
        out->vector = vector;
}

/* The same episode and configuration always give the same words: deleting relies on it. */
err_t episode_analyse(arena_t *arena, const meta_config_t *config, const episode_t *episode,
                      bool with_vector, episode_words_t *out)
{
    words_t *words = NULL;
    word_list_t request, solution, list;
    buf_t names;
    err_t err = words_new(&words, config->language);

    if (err_is(err))
        return err;
    memset(out, 0, sizeof *out);
    analyse_field(words, arena, out, EPISODE_REQUEST, episode->request, &request);
    analyse_field(words, arena, out, EPISODE_SOLUTION, episode->solution, &solution);
    buf_open(&names, arena);
    put_names(&names, episode);
    analyse_field(words, arena, out, EPISODE_NAMES, names.data, &list);
    analyse_field(words, arena, out, EPISODE_WHO, episode->author, &list);
    analyse_time(arena, out, episode->timestamp);
    words_destroy(&words);
    posting_doc_finish(&out->doc);
    if (with_vector)
        embed(arena, config, episode, &request, &solution, out);
    return err_ok();
}

uint64_t episode_type_hash(const char *text)
{
    uint64_t h = 0xcbf29ce484222325ULL;

    for (; text && *text; text++)
        h = (h ^ (uint8_t)*text) * 0x100000001b3ULL;
    return h;
}

/* ---- keys and rows ---- */

bytes_t episode_number_key(store_key_t *key, uint64_t number)
{
    key_open(key);
    key_u64(key, number);
    return key_bytes(key);
}

bytes_t episode_id_key(store_key_t *key, const char *id)
{
    key_open(key);
    key_raw(key, id, strlen(id));
    return key_bytes(key);
}

bytes_t episode_thread_key(store_key_t *key, const char *thread, int64_t ms, uint64_t number)
{
    key_open(key);
    key_str(key, thread);
    key_i64(key, ms);
    key_u64(key, number);
    return key_bytes(key);
}

bool episode_has_thread(const episode_t *episode)
{
    return episode->thread && *episode->thread;
}

err_t episode_find(store_txn_t *txn, const char *id, uint64_t *number)
{
    store_key_t key;
    bytes_t value;

    if (!*id)
        return err_of(ERR_NOT_FOUND, "there is no memory with that id");
    err_t err = store_get(txn, TABLE_episode_ids, episode_id_key(&key, id), &value);
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no memory with that id");
    if (!err_is(err) && !key_read_u64(&value, number))
        return err_of(ERR_CORRUPT, "the id of a memory leads nowhere");
    return err;
}

/* A copy in the arena: it outlives writes and the snapshot. */
err_t episode_bytes(store_txn_t *txn, arena_t *arena, uint64_t number, bytes_t *out)
{
    store_key_t key;
    err_t err = store_get(txn, TABLE_episodes, episode_number_key(&key, number), out);

    if (!err_is(err))
        out->data = arena_copy(arena, out->data, out->size);
    return err;
}

err_t episode_get(store_txn_t *txn, arena_t *arena, uint64_t number, episode_t *out)
{
    bytes_t bytes;
    err_t err = episode_bytes(txn, arena, number, &bytes);

    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_CORRUPT, "the text of a memory is missing");
    return err_is(err) ? err : record_decode(&episode_record, bytes, arena, "stored field", out);
}

err_t episode_put_rows(store_txn_t *txn, arena_t *arena, uint64_t number, const episode_t *episode,
                       uint32_t model)
{
    store_key_t key;
    uint8_t be[8];
    buf_t bytes;
    head_row_t head = {.timestamp_ms = episode->timestamp,
                       .type_hash = episode_type_hash(episode->type),
                       .model = model,
                       .flags = episode_has_thread(episode) ? HEAD_HAS_THREAD : 0};

    buf_open(&bytes, arena);
    record_encode(&episode_record, episode, &bytes);
    err_t err =
        store_append(txn, TABLE_episodes, episode_number_key(&key, number), buf_bytes(&bytes));
    memcpy(be, key.data, 8);
    if (!err_is(err))
        err = store_append(txn, TABLE_heads, key_bytes(&key),
                           (bytes_t){(const uint8_t *)&head, sizeof head});
    if (!err_is(err))
        err =
            store_put(txn, TABLE_episode_ids, episode_id_key(&key, episode->id), (bytes_t){be, 8});
    if (!err_is(err) && episode_has_thread(episode))
        err = store_put(txn, TABLE_threads,
                        episode_thread_key(&key, episode->thread, episode->timestamp, number),
                        (bytes_t){NULL, 0});
    return err;
}

err_t episode_del_rows(store_txn_t *txn, uint64_t number, const episode_t *episode)
{
    store_key_t key;
    err_t err = store_del(txn, TABLE_episodes, episode_number_key(&key, number));

    if (!err_is(err))
        err = store_del(txn, TABLE_heads, key_bytes(&key));
    if (!err_is(err))
        err = store_del(txn, TABLE_episode_ids, episode_id_key(&key, episode->id));
    if (!err_is(err) && episode_has_thread(episode))
        err = store_del(txn, TABLE_threads,
                        episode_thread_key(&key, episode->thread, episode->timestamp, number));
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_CORRUPT, "a row of a memory is missing");
    return err;
}

err_t episode_mark_vector(store_txn_t *txn, uint64_t number, uint32_t current, uint32_t model)
{
    store_key_t key;
    bytes_t value;
    head_row_t head;
    err_t err = store_get(txn, TABLE_heads, episode_number_key(&key, number), &value);

    if (err_is(err))
        return err;
    if (!head_row_read(value, &head))
        return err_of(ERR_CORRUPT, "the head of a memory cannot be read");
    if (head.model == current && current != model)
        head.flags = (head.flags & ((1U << HEAD_MODEL_SHIFT) - 1)) | model << HEAD_MODEL_SHIFT;
    else
        head.model = model;
    return store_put(txn, TABLE_heads, key_bytes(&key),
                     (bytes_t){(const uint8_t *)&head, sizeof head});
}

err_t episode_put_vector(store_txn_t *txn, const meta_config_t *config, uint64_t number,
                         const float *vector)
{
    store_key_t key;

    vector_key(&key, (uint32_t)config->model_number, number);
    return store_append(txn, TABLE_vectors, key_bytes(&key),
                        (bytes_t){(const uint8_t *)vector, (size_t)config->dims * 4});
}
