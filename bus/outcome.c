/* outcome: the first outcome of a WRITES call, kept in the same transaction as what it wrote, so
 * that a caller who lost the answer gets it again instead of doing the thing twice.
 *
 * Two tables. `outcomes`: (number) → {from, id, at, text, body}, only ever appended, and trimmed at
 * the old end; a repeated call says how old it is, so only rows since then are looked at. `keys`:
 * (method, key) → the same, for effects that bear a key of their own; kept for a day. */
#include <stdio.h>
#include <string.h>

#include "bus/inside.h"
#include "proto/mp.h"

enum { KEEP_MS = 120000, KEEP_ROWS = 100000, KEY_KEEP_MS = 86400000, SLACK_MS = 5000, TRIM = 4 };

const store_table_t inside_outcome_tables[2] = {{"outcomes"}, {"keys"}};

#define outcome_FIELDS(F)                                                                          \
    F(STR, from, must, 0, 0, "Caller.")                                                            \
    F(INT, id, must, 0, 0, "Number of the call.")                                                  \
    F(INT, at, must, 0, 0, "When, ms.")                                                            \
    F(STR, text, opt(), 0, 0, "Sentence of the answer.")                                           \
    F(BYTES, body, must, 0, 67108864, "The answer.")
RECORD(outcome, outcome_FIELDS)

static bytes_t encode_outcome(call_t *call, bytes_t body)
{
    outcome_t row = {.from = call->header.from,
                     .id = call->header.id,
                     .at = call_now_ms(call),
                     .text = call->text,
                     .body = body};
    return call_encode(call, &outcome_record, &row);
}

/* Old rows go a few at a time, with the commits that add new ones. */
static err_t trim(store_txn_t *txn, int table, int64_t now_ms)
{
    store_scan_t scan;
    bytes_t key, value, none = {0}, at;
    int64_t when, rows = store_count(txn, table);
    err_t err = store_scan_open(&scan, txn, table, none, none, false);
    for (int i = 0; i < TRIM && !err_is(err) && store_scan_next(&scan, &key, &value); i++) {
        bool old = mp_get(value, "at", &at) && mp_int(at, &when) && now_ms - when > KEEP_MS;
        if (!old && rows <= KEEP_ROWS)
            break;
        err = store_scan_del(&scan);
    }
    store_scan_close(&scan);
    return err;
}

static uint64_t next_number(store_txn_t *txn, int table)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    uint64_t last = 0;
    if (!err_is(store_scan_open(&scan, txn, table, none, none, true)) &&
        store_scan_next(&scan, &key, &value))
        key_read_u64(&key, &last);
    store_scan_close(&scan);
    return last + 1;
}

/* A key that is too long is refused by the store. */
static bytes_t effect_key(const call_t *call, store_key_t *key)
{
    key_open(key);
    key_str(key, call->method->name);
    key_raw(key, call->header.key, strlen(call->header.key));
    return key_bytes(key);
}

err_t inside_outcome_keep(call_t *call, store_txn_t *txn, bytes_t body)
{
    const actor_t *actor = call->actor;
    bytes_t row = encode_outcome(call, body);
    store_key_t key;
    if (call->header.key)
        return store_put(txn, actor->keys_table, effect_key(call, &key), row);
    err_t err = trim(txn, actor->outcomes_table, call_now_ms(call));
    if (err_is(err))
        return err;
    key_open(&key);
    key_u64(&key, next_number(txn, actor->outcomes_table));
    return store_append(txn, actor->outcomes_table, key_bytes(&key), row);
}

static bool same_call(const call_t *call, bytes_t row)
{
    bytes_t from, id;
    int64_t number;
    return mp_get(row, "from", &from) && mp_equals(from, call->header.from) &&
           mp_get(row, "id", &id) && mp_int(id, &number) && number == call->header.id;
}

static err_t find_repeated(call_t *call, store_txn_t *txn, bytes_t *row)
{
    store_scan_t scan;
    bytes_t key, value, at, none = {0};
    int64_t when, oldest = call_now_ms(call) - call->header.age_ms - SLACK_MS;
    err_t err = store_scan_open(&scan, txn, call->actor->outcomes_table, none, none, true);
    bool found = false;
    while (!err_is(err) && !found && store_scan_next(&scan, &key, &value)) {
        if (mp_get(value, "at", &at) && mp_int(at, &when) && when < oldest)
            break;
        found = same_call(call, value);
    }
    store_scan_close(&scan);
    *row = value;
    return err_is(err) || found ? err : err_of(ERR_NOT_FOUND, NULL);
}

err_t inside_outcome_find(call_t *call, store_txn_t *txn, const char **text, bytes_t *body)
{
    bytes_t row;
    store_key_t key;
    err_t err = call->header.key
                    ? store_get(txn, call->actor->keys_table, effect_key(call, &key), &row)
                    : find_repeated(call, txn, &row);
    if (err_is(err))
        return err;
    outcome_t outcome;
    err = record_decode(&outcome_record, row, call->arena, "field", &outcome);
    *text = outcome.text;
    *body = outcome.body;
    return err;
}

/* ---- Keys of effects that are older than a day ---- */

static err_t trim_keys(void *self, call_t *call, void *ctx)
{
    const char *company = ctx;
    (void)self;
    store_txn_t *txn;
    err_t err = call_write(call, company, &txn);
    store_scan_t scan = {0};
    bytes_t key, value, at, none = {0};
    int64_t when;
    if (!err_is(err))
        err = store_scan_open(&scan, txn, call->actor->keys_table, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value))
        if (mp_get(value, "at", &at) && mp_int(at, &when) && call_now_ms(call) - when > KEY_KEEP_MS)
            err = store_scan_del(&scan);
    store_scan_close(&scan);
    return err;
}

/* One company an hour or so is enough; which one follows the minutes. */
void inside_outcome_trim(actor_t *actor)
{
    arena_t *arena = arena_new();
    strs_t companies;
    if (!err_is(store_pool_companies(actor->pool, arena, &companies)) && companies.count) {
        int64_t minute = actor->env->ops->wall_ms(actor->env) / 60000;
        const char *company = companies.items[(uint64_t)minute % companies.count];
        snprintf(actor->trimmed, sizeof(actor->trimmed), "%s", company);
        actor_work(actor, 0, trim_keys, actor->trimmed);
    }
    arena_destroy(&arena);
}
