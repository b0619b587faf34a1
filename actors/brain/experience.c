#include "actors/brain/experience.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "actors/brain/episode.h"
#include "actors/brain/policy.h"

#define TOKENS_SUM 9e15 /* JSON numbers are exact to here */

RECORD_DEFINE(agent_pattern, agent_pattern_FIELDS)

#define experience_row_FIELDS(F)                                                                   \
    F(STR, agent, must, 0, 0, "Who did it.")                                                       \
    F(STR, outcome, must, 0, 0, "How it ended.")                                                   \
    F(BOOL, success, must, 0, 0, "Was that a success?")                                            \
    F(INT, tokens, opt(), 0, 0, "Tokens it took.")                                                 \
    F(REAL, duration, opt(), 0, 0, "How long it took.")
RECORD(experience_row, experience_row_FIELDS)

bool experience_succeeded(const char *outcome)
{
    static const char *const words[] = {"success",   "successful", "succeeded", "succeed", "ok",
                                        "completed", "complete",   "done",      "passed",  "pass"};
    size_t size = strcspn(outcome, " .,:;!-\t\n");

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i]) == size && strncasecmp(words[i], outcome, size) == 0)
            return true;
    return false;
}

static err_t number_of(store_txn_t *txn, const char *id, uint64_t *number)
{
    bytes_t value;
    err_t err =
        store_get(txn, TABLE_episode_ids, (bytes_t){(const uint8_t *)id, strlen(id)}, &value);

    if (!err_is(err) && !key_read_u64(&value, number))
        return err_of(ERR_CORRUPT, "the id of a memory leads nowhere");
    return err;
}

err_t experience_put(brain_t *self, call_t *call, const char *company, const episode_t *episode,
                     const experience_t *experience)
{
    store_txn_t *txn;
    store_key_t key;
    uint64_t number;
    buf_t out;
    experience_row_t row = {.agent = experience->agent,
                            .outcome = experience->outcome,
                            .success = experience_succeeded(experience->outcome),
                            .has_success = true,
                            .tokens = experience->tokens,
                            .has_tokens = experience->has_tokens,
                            .duration = experience->duration,
                            .has_duration = experience->has_duration};
    err_t err = call_write(call, company, &txn);

    (void)self;
    if (!err_is(err))
        err = number_of(txn, episode->id, &number);
    if (err_is(err))
        return err;
    key_open(&key);
    key_str(&key, experience->task_type);
    key_i64(&key, episode->timestamp);
    key_u64(&key, number);
    buf_open(&out, call_arena(call));
    record_encode(&experience_row_record, &row, &out);
    return store_put(txn, TABLE_experience, key_bytes(&key), buf_bytes(&out));
}

/* ---- patterns ---- */

/* What is gathered of one agent; its durations are kept for the percentile. */
typedef struct tally {
    const char *agent;
    int64_t runs, successes, last;
    double tokens, duration;
    int64_t token_runs;
    double *durations;
    size_t duration_count, duration_capacity;
} tally_t;

typedef struct tallies {
    arena_t *arena;
    tally_t *items;
    size_t count, capacity;
} tallies_t;

static tally_t *tally_of(tallies_t *all, const char *agent)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->items[i].agent, agent) == 0)
            return &all->items[i];
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 8;
        tally_t *items = ARENA_ARRAY(all->arena, tally_t, capacity);
        if (all->count)
            memcpy(items, all->items, all->count * sizeof *items);
        all->items = items;
        all->capacity = capacity;
    }
    tally_t *tally = &all->items[all->count++];
    *tally = (tally_t){.agent = arena_strdup(all->arena, agent)};
    return tally;
}

static void keep_duration(arena_t *arena, tally_t *tally, double duration)
{
    if (tally->duration_count == tally->duration_capacity) {
        size_t capacity = tally->duration_capacity ? tally->duration_capacity * 2 : 16;
        double *durations = ARENA_ARRAY(arena, double, capacity);
        if (tally->duration_count)
            memcpy(durations, tally->durations, tally->duration_count * sizeof *durations);
        tally->durations = durations;
        tally->duration_capacity = capacity;
    }
    tally->durations[tally->duration_count++] = duration;
    tally->duration += duration;
}

static void count_run(tallies_t *all, const experience_row_t *row, int64_t ms)
{
    tally_t *tally = tally_of(all, row->agent);

    tally->runs++;
    tally->successes += row->success;
    if (ms > tally->last || tally->runs == 1)
        tally->last = ms;
    if (row->has_tokens) {
        tally->tokens += (double)row->tokens;
        tally->token_runs++;
    }
    if (row->has_duration)
        keep_duration(all->arena, tally, row->duration);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static int by_merit(const void *a, const void *b)
{
    const agent_pattern_t *x = a, *y = b;

    if (x->success_rate != y->success_rate)
        return x->success_rate > y->success_rate ? -1 : 1;
    if (x->runs != y->runs)
        return x->runs > y->runs ? -1 : 1;
    return strcmp(x->agent, y->agent);
}

static agent_pattern_t pattern_of(tally_t *tally)
{
    agent_pattern_t out = {.agent = tally->agent,
                           .runs = tally->runs,
                           .successes = tally->successes,
                           .success_rate = (double)tally->successes / (double)tally->runs,
                           .last = tally->last,
                           .has_runs = true,
                           .has_successes = true,
                           .has_success_rate = true,
                           .has_last = true};

    if (tally->duration_count) {
        size_t at = (tally->duration_count * 95 + 99) / 100 - 1;
        qsort(tally->durations, tally->duration_count, sizeof tally->durations[0], by_value);
        out.mean_duration = tally->duration / (double)tally->duration_count;
        out.p95_duration = tally->durations[at];
        out.has_mean_duration = out.has_p95_duration = true;
    }
    if (tally->token_runs) {
        out.mean_tokens = tally->tokens / (double)tally->token_runs;
        out.has_mean_tokens = true;
    }
    return out;
}

static err_t read_runs(store_txn_t *txn, tallies_t *all, const char *task_type, int64_t since,
                       int64_t until)
{
    store_scan_t scan;
    store_key_t prefix, from;
    bytes_t key, value;
    arena_t *scratch = arena_new();

    key_open(&prefix);
    if (task_type)
        key_str(&prefix, task_type);
    from = prefix;
    if (task_type)
        key_i64(&from, since);
    err_t err =
        store_scan_open(&scan, txn, TABLE_experience, key_bytes(&prefix), key_bytes(&from), false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        experience_row_t row;
        const char *type;
        int64_t ms = 0;
        bytes_t rest = {key.data + prefix.size, key.size - prefix.size};
        if (!task_type && !key_read_str(&rest, scratch, &type))
            break;
        if (!key_read_i64(&rest, &ms) || (task_type && ms >= until))
            break;
        if (ms < since || ms >= until)
            continue; /* the next kind begins anew */
        err = record_decode(&experience_row_record, value, scratch, "stored field", &row);
        if (!err_is(err))
            count_run(all, &row, ms);
        else
            err = err_of(ERR_CORRUPT, "a logged experience cannot be read");
        arena_reset(scratch);
    }
    store_scan_close(&scan);
    arena_destroy(&scratch);
    return err;
}

err_t experience_patterns(brain_t *self, call_t *call, const char *company, const char *task_type,
                          int64_t since, int64_t until, patterns_t *out)
{
    store_txn_t *txn;
    tallies_t all = {.arena = call_arena(call)};
    policy_t policy = {.count = 0};
    err_t err = call_read(call, company, &txn);

    (void)self;
    *out = (patterns_t){0};
    if (since >= until)
        return err_of(ERR_ARGUMENT, "since must be before until");
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (!err_is(err))
        err = policy_read(txn, all.arena, &policy);
    int64_t oldest = policy_since(&policy, episode_type_hash("experience"), call_now_ms(call));
    if (!err_is(err))
        err = read_runs(txn, &all, task_type, since > oldest ? since : oldest, until);
    if (err_is(err))
        return err;
    double tokens = 0; /* an old import may have any */
    out->agents.items = ARENA_ARRAY(all.arena, agent_pattern_t, all.count + 1);
    for (size_t i = 0; i < all.count; i++) {
        out->runs += all.items[i].runs;
        out->successes += all.items[i].successes;
        tokens += all.items[i].tokens;
        out->duration += all.items[i].duration;
        out->durations += (int64_t)all.items[i].duration_count;
        out->agents.items[out->agents.count++] = pattern_of(&all.items[i]);
    }
    out->tokens = (int64_t)fmax(-TOKENS_SUM, fmin(tokens, TOKENS_SUM));
    if (all.count)
        qsort(out->agents.items, all.count, sizeof out->agents.items[0], by_merit);
    return err_ok();
}
