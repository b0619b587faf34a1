#include "actors/brain/rebuild.h"

#include <stdio.h>
#include <string.h>

#include "actors/brain/embedder.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/episode.h"
#include "actors/brain/fill.h"
#include "actors/brain/words.h"

enum { SLICE = 200, CLEAR = 20000 };

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

/* Vectors that were made in the background, or by rules that are no more, are not made again. */
static err_t mend_marks(mending_t *mending, uint64_t number)
{
    meta_fill_t fill;
    uint32_t current = (uint32_t)mending->config.model_number;
    err_t err = err_ok();

    bool kept = endpoint_makes(mending->config.model) || !embedder_language(mending->config.model);

    if (kept && has_row(mending->txn, current, number)) {
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

/* What is left are fresh memories: they go into the new generation, as their words may have been
 * made by another language's rules. */
static err_t mend_rest(mending_t *mending)
{
    store_key_t from;
    store_scan_t scan;
    bytes_t key, value;
    size_t count = 0, most = POSTINGS_FRESH * 2;
    uint64_t *numbers = ARENA_ARRAY(mending->arena, uint64_t, most);
    posting_doc_t *docs = ARENA_ARRAY(mending->arena, posting_doc_t, most);
    postings_t in = {mending->txn, mending->rebuild.generation};
    err_t err = store_scan_open(&scan, mending->txn, TABLE_episodes, (bytes_t){0},
                                episode_number_key(&from, mending->rebuild.done + 1), false);

    while (!err_is(err) && count < most && store_scan_next(&scan, &key, &value))
        count += key_read_u64(&key, &numbers[count]);
    store_scan_close(&scan);
    for (size_t i = 0; i < count && !err_is(err); i++)
        err = mend_one(mending, numbers[i], &docs[i]);
    if (!err_is(err))
        err = postings_build(&in, numbers, docs, count);
    return err_is(err) ? err : postings_drop_fresh(&in);
}

/* Vectors of the built-in embedder follow the words: they are made anew in the background. */
static err_t follow(mending_t *mending, call_t *call, const char *company,
                    const meta_config_t *config)
{
    meta_fill_t fill;
    bool some = meta_fill(mending->txn, &fill);
    const char *wanted =
        embedder_name(mending->arena, (uint32_t)config->dims, mending->rebuild.language);

    if (endpoint_makes(config->model) || strcmp(config->model, wanted) == 0 ||
        (some && endpoint_makes(fill.model)))
        return err_ok();
    uint32_t number =
        some && fill.number > config->model_number ? fill.number : (uint32_t)config->model_number;
    memset(&fill, 0, sizeof fill);
    fill.number = number + 1;
    fill.dims = (uint32_t)config->dims;
    snprintf(fill.model, sizeof fill.model, "%s", wanted);
    fill_wake(mending->self, call, company);
    return meta_put_fill(mending->txn, &fill);
}

/* The new generation has everything: from now on it is the one. */
static err_t switch_over(mending_t *mending, call_t *call, const char *company)
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
    config.language = mending->rebuild.language;
    err_t err = meta_put_config(mending->txn, mending->arena, &config);
    if (!err_is(err))
        err = meta_put_counts(mending->txn, &counts);
    if (!err_is(err))
        err = follow(mending, call, company, &config);
    return err_is(err) ? err : meta_put_rebuild(mending->txn, NULL);
}

static err_t mend_slice(mending_t *mending, call_t *call, const char *company, bool *more)
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
    err = mend_rest(mending);
    return err_is(err) ? err : switch_over(mending, call, company);
}

static void on_rebuilt(void *state, void *ctx)
{
    brain_t *self = state;

    indexes_forget(self->indexes, ctx);
}

/* The one that is on its way, or a new one in the present language. */
static meta_rebuild_t open_rebuild(const mending_t *mending, store_txn_t *txn)
{
    meta_rebuild_t rebuild, fresh;
    const meta_config_t *config = &mending->config;
    bool some = meta_rebuild(txn, &rebuild);

    if (some && rebuild.words_version == WORDS_VERSION)
        return rebuild;
    memset(&fresh, 0, sizeof fresh); /* also what lies between the fields: it is stored */
    fresh.generation = (uint8_t)(config->generation + 1);
    fresh.words_version = WORDS_VERSION;
    snprintf(fresh.language, sizeof fresh.language, "%s",
             some ? rebuild.language : config->language);
    return fresh;
}

err_t rebuild_step(brain_t *self, call_t *call, const char *company, bool *more, int64_t *done)
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
    mending->rebuild = open_rebuild(mending, mending->txn);
    mending->config.language = mending->rebuild.language;
    if (!mending->rebuild.cleared) {
        postings_t in = {mending->txn, mending->rebuild.generation};
        err = postings_clear(&in, CLEAR, more);
        mending->rebuild.cleared = !*more;
        if (err_is(err) || *more)
            return err_is(err) ? err : meta_put_rebuild(mending->txn, &mending->rebuild);
    }
    mending->scratch = arena_new();
    err = mend_slice(mending, call, company, more);
    if (err_is(err) && err.what)
        err.what = arena_strdup(call_arena(call), err.what);
    arena_destroy(&mending->scratch);
    *done = (int64_t)mending->rebuild.memories;
    if (!err_is(err) && !*more)
        call_after_commit(call, on_rebuilt, arena_strdup(call_arena(call), company));
    return err;
}

bool rebuild_waits(brain_t *self, store_txn_t *txn, arena_t *arena)
{
    meta_config_t config;
    meta_rebuild_t rebuild;

    return meta_config(self, txn, arena, &config).code == ERR_VERSION ||
           meta_rebuild(txn, &rebuild);
}

err_t rebuild_language(brain_t *self, call_t *call, const char *company, const char *language,
                       bool *started)
{
    arena_t *arena = call_arena(call);
    mending_t mending = {.self = self, .arena = arena};
    meta_rebuild_t rebuild;
    meta_counts_t counts;
    words_t *words = NULL;

    *started = false;
    if (err_is(words_new(&words, language)))
        return err_make(arena, ERR_ARGUMENT, "there are no stems for language '%s'; there are: %s",
                        language, words_languages(arena));
    words_destroy(&words);
    err_t err = call_write(call, company, &mending.txn);
    if (!err_is(err))
        err = meta_open(self, mending.txn, arena, &mending.config);
    if (err_is(err) && err.code != ERR_VERSION)
        return err;
    bool some = meta_rebuild(mending.txn, &rebuild);
    if (strcmp(some ? rebuild.language : mending.config.language, language) == 0)
        return err_ok();
    meta_counts(mending.txn, &counts);
    *started = true;
    if (counts.next_number == 1) { /* no memory yet: nothing to make anew */
        mending.config.language = language;
        if (!endpoint_makes(mending.config.model))
            mending.config.model = embedder_name(arena, (uint32_t)mending.config.dims, language);
        return meta_put_config(mending.txn, arena, &mending.config);
    }
    if (some) { /* half of it is in the other language */
        err = meta_put_rebuild(mending.txn, NULL);
        if (err_is(err))
            return err;
    }
    rebuild = open_rebuild(&mending, mending.txn);
    snprintf(rebuild.language, sizeof rebuild.language, "%s", language);
    rebuild.cleared = false;
    return meta_put_rebuild(mending.txn, &rebuild);
}
