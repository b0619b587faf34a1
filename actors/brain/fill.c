#include "actors/brain/fill.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/embedder.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/episode.h"

enum { SLICE = 200, LOOK = 5000, SWEEP = 1000, TEXT_LEAST = 200, PAUSE_LONGEST_MS = 60000 };
enum { GUARD_MS = 60000 };

typedef struct dirty {
    struct dirty *next;
    char company[64];
} dirty_t;

struct filler {
    actor_t *actor;
    dirty_t *first;
    bool running;
    uintptr_t chain;  /* entries of an older chain end by themselves */
    int64_t moved_ms; /* when the chain was last seen alive */
    int64_t batch;    /* texts of a request; 0: as set */
    int64_t text;     /* bytes of a text; 0: as set */
    int failures;     /* since the last success */
    char trouble[512];
};

/* ---- the list of companies: after commits only ---- */

static err_t fill_step(void *state, call_t *call, void *ctx);

static void push(struct filler *filler, const char *company)
{
    dirty_t **at = &filler->first;

    for (; *at; at = &(*at)->next)
        if (strcmp((*at)->company, company) == 0)
            return;
    *at = calloc(1, sizeof **at);
    if (!*at)
        abort();
    snprintf((*at)->company, sizeof(*at)->company, "%s", company);
}

static void start_chain(struct filler *filler)
{
    filler->running = true;
    filler->moved_ms = actor_wall_ms(filler->actor);
    actor_work(filler->actor, 0, fill_step, (void *)++filler->chain);
}

static void on_wake(void *state, void *company)
{
    brain_t *self = state;

    push(self->filler, company);
    if (!self->filler->running)
        start_chain(self->filler);
}

void fill_wake(brain_t *self, call_t *call, const char *company)
{
    (void)self;
    call_after_commit(call, on_wake, arena_strdup(call_arena(call), company));
}

static void on_finished(void *state, void *company)
{
    brain_t *self = state;
    dirty_t *first = self->filler->first;

    if (first && strcmp(first->company, company) == 0) {
        self->filler->first = first->next;
        free(first);
    }
}

static void on_idle(void *state, void *ctx)
{
    brain_t *self = state;

    (void)ctx;
    self->filler->running = false;
    if (self->filler->first)
        start_chain(self->filler);
}

static void on_success(void *state, void *ctx)
{
    brain_t *self = state;

    (void)ctx;
    self->filler->failures = 0;
    self->filler->trouble[0] = 0;
}

/* The next company has its turn; this one waits at the end. */
static void on_failure(void *state, void *trouble)
{
    brain_t *self = state;
    struct filler *filler = self->filler;
    dirty_t *first = filler->first, **at = &filler->first;

    filler->failures += filler->failures < 20;
    snprintf(filler->trouble, sizeof filler->trouble, "%s", (const char *)trouble);
    if (!first || !first->next)
        return;
    filler->first = first->next;
    first->next = NULL;
    while (*at)
        at = &(*at)->next;
    *at = first;
}

static err_t go_on(call_t *call, int64_t delay_ms, uintptr_t chain)
{
    call_work(call, delay_ms, fill_step, (void *)chain);
    return err_ok();
}

static err_t try_later(brain_t *self, call_t *call, uintptr_t chain, int64_t pause_ms,
                       const char *trouble)
{
    int failures = self->filler->failures;

    if (pause_ms < 0)
        pause_ms = failures < 6 ? (int64_t)1000 << failures : PAUSE_LONGEST_MS;
    if (pause_ms > PAUSE_LONGEST_MS)
        pause_ms = PAUSE_LONGEST_MS;
    if (!failures)
        call_log(call, LOG_WARN, "vectors wait: %s", trouble);
    call_after_commit(call, on_failure, arena_strdup(call_arena(call), trouble));
    return go_on(call, pause_ms, chain);
}

/* ---- one batch ---- */

typedef struct batch {
    const char *company;
    uintptr_t chain;
    meta_config_t config;
    meta_fill_t fill;
    uint64_t numbers[SLICE];
    const char *texts[SLICE];
    float *vectors[SLICE]; /* NULL: there is no word to embed */
    size_t count;
    uint64_t past; /* everything up to this number is looked at once the batch is in */
} batch_t;

static const char *text_of(arena_t *arena, const episode_t *episode, size_t largest)
{
    char *text =
        arena_printf(arena, "%s%s%s", episode->request ? episode->request : "",
                     episode->request && *episode->request && episode->solution ? "\n" : "",
                     episode->solution ? episode->solution : "");
    size_t size = strlen(text);

    if (size > largest) {
        for (size = largest; size && ((uint8_t)text[size] & 0xc0) == 0x80;)
            size--;
        text[size] = 0;
    }
    return text[strspn(text, " \t\r\n")] ? text : "";
}

static err_t gather(store_txn_t *txn, arena_t *arena, size_t most, size_t largest, batch_t *batch)
{
    store_scan_t scan;
    store_key_t from;
    bytes_t key, value;
    uint64_t number;
    episode_t episode;
    episode_words_t words;
    meta_config_t config = batch->config;
    bool local = !endpoint_makes(batch->fill.model);
    err_t err = store_scan_open(&scan, txn, TABLE_heads, (bytes_t){0},
                                episode_number_key(&from, batch->fill.done + 1), false);

    config.model = batch->fill.model;
    config.dims = batch->fill.dims;
    batch->past = batch->fill.done;
    bool ended = false;
    for (int rows = 0; rows < LOOK && batch->count < most && !err_is(err); rows++) {
        ended = !store_scan_next(&scan, &key, &value);
        if (ended)
            break;
        if (!key_read_u64(&key, &number))
            continue;
        batch->past = number;
        err = episode_get(txn, arena, number, &episode);
        if (err_is(err))
            break;
        if (local) {
            err = episode_analyse(arena, &config, &episode, true, &words);
            batch->vectors[batch->count] = words.vector;
        }
        batch->texts[batch->count] = text_of(arena, &episode, largest);
        batch->numbers[batch->count] = number;
        batch->count += local ? words.vector != NULL : *batch->texts[batch->count] != 0;
    }
    store_scan_close(&scan);
    if (ended) { /* the newest may have been deleted */
        meta_counts_t counts;
        meta_counts(txn, &counts);
        batch->past = counts.next_number - 1;
    }
    return err;
}

/* The memory may have gone while the endpoint was thinking. */
static err_t put_vector(store_txn_t *txn, batch_t *batch, size_t i)
{
    meta_config_t target = {.model_number = batch->fill.number, .dims = batch->fill.dims};
    store_key_t key;
    bytes_t value;
    err_t err = store_get(txn, TABLE_heads, episode_number_key(&key, batch->numbers[i]), &value);

    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (!err_is(err))
        err = episode_mark_vector(txn, batch->numbers[i], (uint32_t)batch->config.model_number,
                                  batch->fill.number);
    if (!err_is(err))
        err = episode_put_vector(txn, &target, batch->numbers[i], batch->vectors[i]);
    batch->fill.vectors++;
    return err;
}

static void on_switched(void *state, void *company)
{
    brain_t *self = state;

    indexes_forget(self->indexes, company);
}

/* All memories have vectors of the next model: from now on it is the one. */
static err_t switch_over(call_t *call, store_txn_t *txn, batch_t *batch)
{
    meta_config_t config = batch->config;

    config.model = batch->fill.model;
    config.model_number = batch->fill.number;
    config.dims = batch->fill.dims;
    call_log(call, LOG_INFO, "vectors of %s are now by %s", batch->company, config.model);
    call_after_commit(call, on_switched, arena_strdup(call_arena(call), batch->company));
    return meta_put_config(txn, call_arena(call), &config);
}

static err_t keep(call_t *call, store_txn_t *txn, batch_t *batch)
{
    meta_counts_t counts;
    meta_rebuild_t rebuild; /* counts by the model in use, so that must not change meanwhile */
    bool current = batch->fill.number == batch->config.model_number;
    err_t err = err_ok();

    for (size_t i = 0; i < batch->count && !err_is(err); i++)
        err = put_vector(txn, batch, i);
    batch->fill.done = batch->past;
    meta_counts(txn, &counts);
    if (!err_is(err) && !current && batch->fill.dims && !meta_rebuild(txn, &rebuild) &&
        batch->fill.done + 1 >= counts.next_number) {
        err = switch_over(call, txn, batch);
        current = true;
    }
    if (!err_is(err) && current) {
        counts.vectors = batch->fill.vectors;
        err = meta_put_counts(txn, &counts);
    }
    if (err_is(err))
        return err;
    return meta_put_fill(txn, current && !endpoint_makes(batch->fill.model) ? NULL : &batch->fill);
}

/* ---- the endpoint's answer ---- */

static bool refused_texts(int status)
{
    return status == 400 || status == 413 || status == 422;
}

/* Perhaps one text is too long for the model: fewer, then shorter ones. */
static void on_refused(void *state, void *ctx)
{
    brain_t *self = state;
    const batch_t *batch = ctx;
    struct filler *filler = self->filler;

    if (batch->count > 1)
        filler->batch = (int64_t)batch->count / 2;
    else if (strlen(batch->texts[0]) > TEXT_LEAST)
        filler->text = (int64_t)strlen(batch->texts[0]) / 2;
}

static void on_accepted(void *state, void *ctx)
{
    brain_t *self = state;

    on_success(state, ctx);
    self->filler->batch = self->filler->text = 0;
}

static const char *failure_of(arena_t *arena, const http_call_outcome_t *outcome)
{
    if (err_is(outcome->err))
        return arena_printf(arena, "the embedding endpoint does not answer: %s",
                            err_what(outcome->err));
    return arena_printf(arena, "the embedding endpoint answers %d", outcome->status);
}

static err_t take_vectors(brain_t *self, call_t *call, batch_t *batch, bytes_t body)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    float *vectors;
    uint32_t dims;
    meta_fill_t fill;
    err_t err = endpoint_read(arena, body, batch->count, &vectors, &dims);

    if (err_is(err))
        return try_later(self, call, batch->chain, -1, err_what(err));
    err = call_write(call, batch->company, &txn);
    if (!err_is(err))
        err = meta_config(self, txn, arena, &batch->config);
    if (err_is(err))
        return try_later(self, call, batch->chain, -1, err_what(err));
    if (!meta_fill(txn, &fill) || fill.number != batch->fill.number ||
        fill.done != batch->fill.done)
        return go_on(call, 0, batch->chain); /* something else was decided meanwhile */
    batch->fill = fill;
    if (fill.dims && fill.dims != dims)
        return try_later(self, call, batch->chain, PAUSE_LONGEST_MS,
                         arena_printf(arena,
                                      "%s answers %u dimensions, its vectors here have %u: call "
                                      "brain_reembed with again, or set the old model back",
                                      fill.model, dims, fill.dims));
    batch->fill.dims = dims;
    for (size_t i = 0; i < batch->count; i++)
        batch->vectors[i] = vectors + i * dims;
    err = keep(call, txn, batch);
    if (err_is(err))
        return err;
    call_after_commit(call, on_accepted, NULL);
    return go_on(call, 0, batch->chain);
}

static err_t on_embedded(void *state, call_t *call, void *reply, const http_call_outcome_t *outcome,
                         void *ctx)
{
    brain_t *self = state;
    batch_t *batch = ARENA_NEW(call_arena(call), batch_t);

    (void)reply;
    *batch = *(const batch_t *)ctx; /* this may be run twice; nobody is asked again for that */
    if (batch->chain != self->filler->chain)
        return err_ok();
    if (!err_is(outcome->err) && outcome->status == 200)
        return take_vectors(self, call, batch, outcome->body);
    if (!err_is(outcome->err) && refused_texts(outcome->status) &&
        (batch->count > 1 || strlen(batch->texts[0]) > TEXT_LEAST)) {
        call_after_commit(call, on_refused, batch);
        return go_on(call, 0, batch->chain);
    }
    return try_later(self, call, batch->chain, outcome->retry_after_ms,
                     failure_of(call_arena(call), outcome));
}

/* ---- steps ---- */

static err_t finished(call_t *call, const char *company, uintptr_t chain)
{
    call_after_commit(call, on_finished, arena_strdup(call_arena(call), company));
    return go_on(call, 0, chain);
}

/* Vectors of models that are neither in use nor on the way. */
static err_t sweep(store_txn_t *txn, const meta_config_t *config, uint32_t target, int *deleted)
{
    uint32_t last = target > config->model_number ? target : (uint32_t)config->model_number;
    err_t err = err_ok();

    for (uint32_t model = 1; model < last && *deleted < SWEEP && !err_is(err); model++) {
        store_scan_t scan;
        store_key_t prefix;
        bytes_t key, value;
        if (model == config->model_number)
            continue;
        vector_key(&prefix, model, 0);
        bytes_t of_model = {prefix.data, prefix.size - 8};
        err = store_scan_open(&scan, txn, TABLE_vectors, of_model, (bytes_t){0}, false);
        while (!err_is(err) && *deleted < SWEEP && store_scan_next(&scan, &key, &value)) {
            err = store_scan_del(&scan);
            ++*deleted;
        }
        store_scan_close(&scan);
    }
    return err;
}

static err_t ask(brain_t *self, call_t *call, batch_t *batch)
{
    http_call_request_t request;
    const brain_settings_t *settings = self->settings;

    if (!settings->embed_url ||
        strcmp(endpoint_model(call_arena(call), settings->embed_model), batch->fill.model) != 0)
        return finished(call, batch->company, batch->chain); /* brain_stat says so */
    err_t err = endpoint_request(settings, call_arena(call), batch->texts, batch->count, &request);
    if (err_is(err))
        return try_later(self, call, batch->chain, -1, err_what(err));
    call_http(call, &request, on_embedded, batch);
    return call_park(call);
}

static err_t fill_company(brain_t *self, call_t *call, batch_t *batch)
{
    arena_t *arena = call_arena(call);
    const struct filler *filler = self->filler;
    int64_t most = filler->batch ? filler->batch : self->settings->embed_batch;
    int64_t largest = filler->text ? filler->text : self->settings->embed_text;
    store_txn_t *txn;
    int swept = 0;
    err_t err = call_read(call, batch->company, &txn);

    if (err.code == ERR_NOT_FOUND)
        return finished(call, batch->company, batch->chain);
    if (!err_is(err))
        err = call_write(call, batch->company, &txn);
    if (!err_is(err))
        err = meta_config(self, txn, arena, &batch->config);
    if (err_is(err))
        return finished(call, batch->company, batch->chain);
    bool some = meta_fill(txn, &batch->fill);
    err = sweep(txn, &batch->config, some ? batch->fill.number : 0, &swept);
    if (err_is(err) || swept)
        return err_is(err) ? err : go_on(call, 0, batch->chain);
    if (!some)
        return finished(call, batch->company, batch->chain);
    bool local = !endpoint_makes(batch->fill.model);
    err = gather(txn, arena, local ? SLICE : (size_t)most, (size_t)largest, batch);
    if (err_is(err))
        return err;
    if (batch->count && !local)
        return ask(self, call, batch);
    meta_rebuild_t rebuild;
    bool current = batch->fill.number == batch->config.model_number;
    if (batch->past == batch->fill.done && (current || !batch->fill.dims))
        return finished(call, batch->company, batch->chain);
    if (batch->past == batch->fill.done && meta_rebuild(txn, &rebuild))
        return try_later(self, call, batch->chain, 1000, "a rebuild of the indexes comes first");
    err = keep(call, txn, batch);
    return err_is(err) ? err : go_on(call, 0, batch->chain);
}

static void on_alive(void *state, void *ctx)
{
    brain_t *self = state;

    (void)ctx;
    self->filler->moved_ms = actor_wall_ms(self->filler->actor);
}

static err_t fill_step(void *state, call_t *call, void *ctx)
{
    brain_t *self = state;
    batch_t *batch;

    if ((uintptr_t)ctx != self->filler->chain)
        return err_ok();
    call_after_commit(call, on_alive, NULL);
    if (!self->filler->first) {
        call_after_commit(call, on_idle, NULL);
        return err_ok();
    }
    batch = ARENA_NEW(call_arena(call), batch_t);
    memset(batch, 0, sizeof *batch);
    batch->chain = (uintptr_t)ctx;
    batch->company = arena_strdup(call_arena(call), self->filler->first->company);
    return fill_company(self, call, batch);
}

/* An entry that failed (a full disk) has ended its chain: begin another. */
static err_t guard(void *state, call_t *call, void *ctx)
{
    brain_t *self = state;
    struct filler *filler = self->filler;
    int64_t quiet = call_now_ms(call) - filler->moved_ms;

    (void)ctx;
    if (filler->running && quiet > GUARD_MS + PAUSE_LONGEST_MS + self->settings->embed_timeout_ms)
        call_after_commit(call, on_idle, NULL);
    call_work(call, GUARD_MS, guard, NULL);
    return err_ok();
}

void fill_start(brain_t *self, call_t *call)
{
    strs_t companies = {0};

    self->filler = calloc(1, sizeof *self->filler);
    if (!self->filler)
        abort();
    self->filler->actor = call_actor(call);
    if (err_is(call_companies(call, &companies)))
        return;
    for (size_t i = 0; i < companies.count; i++)
        fill_wake(self, call, companies.items[i]);
    call_work(call, GUARD_MS, guard, NULL);
}

void fill_stop(brain_t *self)
{
    while (self->filler && self->filler->first) {
        dirty_t *first = self->filler->first;
        self->filler->first = first->next;
        free(first);
    }
    free(self->filler);
    self->filler = NULL;
}

const char *fill_trouble(const brain_t *self)
{
    return self->filler->trouble;
}

err_t fill_reembed(brain_t *self, call_t *call, const char *company, bool again, bool *started,
                   const char **model)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    meta_config_t config;
    meta_fill_t fill = {0};
    err_t err = call_read(call, company, &txn);

    if (!err_is(err))
        err = call_write(call, company, &txn);
    if (!err_is(err))
        err = meta_config(self, txn, arena, &config);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_of(ERR_NOT_FOUND, "the company has no memory yet")
                                         : err;
    bool some = meta_fill(txn, &fill);
    meta_fill_t next = meta_fill_wanted(self, arena, config.language);
    *model = arena_strdup(arena, next.model);
    *started = again || strcmp(some ? fill.model : config.model, next.model) != 0;
    if (!*started)
        return err_ok();
    next.number =
        (some && fill.number > config.model_number ? fill.number : (uint32_t)config.model_number) +
        1;
    fill_wake(self, call, company);
    return meta_put_fill(txn, &next);
}
