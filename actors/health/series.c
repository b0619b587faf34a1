#include "actors/health/series.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "actors/health/health.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { CELLS = 1024, LINE_BYTES = 65536 };

#define DAY_MS INT64_C(86400000)

static const struct {
    int64_t span_ms, kept_ms;
} levels[SERIES_LEVELS] = {{10000, DAY_MS}, {60000, 7 * DAY_MS}, {3600000, 366 * DAY_MS}};

int64_t series_span_ms(series_level_t level)
{
    return levels[level].span_ms;
}

int64_t series_kept_ms(series_level_t level)
{
    return levels[level].kept_ms;
}

/* ---- Points ---- */

static err_t check_name(arena_t *arena, const char *what, const char *name, size_t most)
{
    size_t size = name ? strlen(name) : 0;
    if (!size || size > most)
        return err_make(arena, ERR_ARGUMENT, "%s must have 1 to %zu bytes; it has %zu", what, most,
                        size);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return err_make(arena, ERR_ARGUMENT, "%s holds a control character; take it out", what);
    if (!mp_utf8(name, size))
        return err_make(arena, ERR_ARGUMENT, "%s is not UTF-8", what);
    return err_ok();
}

err_t point_check(arena_t *arena, const point_t *point, int64_t now_ms)
{
    err_t err = check_name(arena, "agent", point->agent, AGENT_BYTES);
    if (!err_is(err))
        err = check_name(arena, "metric", point->metric, METRIC_BYTES);
    if (err_is(err))
        return err;
    if (strchr(point->agent, ':'))
        return err_of(ERR_ARGUMENT, "agent holds a colon, which parts agent:metric in reports");
    if (!isfinite(point->value))
        return err_of(ERR_ARGUMENT, "value must be a finite number");
    if (point->at_ms > now_ms + 3600000)
        return err_of(ERR_ARGUMENT, "timestamp lies more than an hour in the future");
    if (point->at_ms < now_ms - series_kept_ms(LEVEL_HOUR))
        return err_of(ERR_ARGUMENT, "timestamp lies more than a year back, which is not kept");
    return err_ok();
}

err_t point_parse(arena_t *arena, const char *text, size_t size, int64_t now_ms, point_t *out,
                  const char **own)
{
    bytes_t line, field;
    const char *when;
    *out = (point_t){0};
    *own = NULL;
    if (size > LINE_BYTES)
        return err_of(ERR_TOO_LARGE, "the line is too long");
    err_t err = json_to_msgpack(arena, text, size, NULL, &line);
    if (err_is(err))
        return err;
    if (mp_get(line, "agent", &field))
        out->agent = mp_text(arena, field);
    if (mp_get(line, "metric", &field))
        out->metric = mp_text(arena, field);
    if (mp_get(line, "by", &field))
        *own = mp_text(arena, field);
    if (!mp_get(line, "value", &field) || !mp_real(field, &out->value))
        return err_of(ERR_ARGUMENT, "value must be a number");
    if (!mp_get(line, "timestamp", &field) ||
        (!mp_int(field, &out->at_ms) &&
         (!(when = mp_text(arena, field)) || !record_time(when, &out->at_ms))))
        return err_of(ERR_ARGUMENT, "timestamp must be RFC 3339 text or ms since 1970");
    return point_check(arena, out, now_ms);
}

/* ---- Names to numbers ---- */

static store_key_t name_key(const char *agent, const char *metric)
{
    store_key_t key;
    key_open(&key);
    key_str(&key, agent);
    key_str(&key, metric);
    return key;
}

typedef struct name_row {
    uint64_t id;
    double last;
    int64_t last_ms, count;
} name_row_t;

static bool read_name(bytes_t value, name_row_t *row)
{
    if (value.size != sizeof(*row))
        return false;
    memcpy(row, value.data, sizeof(*row));
    return true;
}

/* ---- A batch ---- */

typedef struct cell {
    struct cell *next;
    uint64_t id;
    series_level_t level;
    int64_t from_ms;
    bucket_t bucket;
} cell_t;

typedef struct known {
    struct known *next;
    const char *agent, *metric;
    name_row_t row;
    bool fresh;
} known_t;

struct series_batch {
    call_t *call;
    arena_t *arena;
    store_txn_t *txn;
    int64_t most, fresh;
    cell_t *cells[CELLS];
    known_t *known;
    size_t known_count;
};

series_batch_t *series_batch_new(call_t *call, store_txn_t *txn, int64_t most_series)
{
    series_batch_t *batch = ARENA_NEW(call_arena(call), series_batch_t);
    batch->call = call;
    batch->arena = call_arena(call);
    batch->txn = txn;
    batch->most = most_series;
    return batch;
}

/* The last used is first, since points of one series come together. */
static known_t *find_known(series_batch_t *batch, const point_t *point)
{
    for (known_t **at = &batch->known; *at; at = &(*at)->next)
        if (!strcmp((*at)->metric, point->metric) && !strcmp((*at)->agent, point->agent)) {
            known_t *found = *at;
            *at = found->next;
            found->next = batch->known;
            batch->known = found;
            return found;
        }
    return NULL;
}

static err_t know(series_batch_t *batch, const point_t *point, known_t **out)
{
    bytes_t value;
    store_key_t key = name_key(point->agent, point->metric);
    if ((*out = find_known(batch, point)))
        return err_ok();
    known_t *known = ARENA_NEW(batch->arena, known_t);
    err_t err = store_get(batch->txn, TABLE_series, key_bytes(&key), &value);
    if (err.code == ERR_NOT_FOUND) {
        int64_t count = store_count(batch->txn, TABLE_series) + batch->fresh;
        if (count >= batch->most)
            return err_make(batch->arena, ERR_QUOTA,
                            "there are %" PRId64 " metrics already; use a name that is known, put "
                            "what differs into tags, or raise health.max_series",
                            count);
        known->row.id = (uint64_t)count + 1; /* names are never deleted */
        known->fresh = true;
        batch->fresh++;
    } else if (err_is(err) || !read_name(value, &known->row)) {
        return err_is(err) ? err : err_of(ERR_CORRUPT, "a row of a metric makes no sense");
    }
    known->agent = arena_strdup(batch->arena, point->agent);
    known->metric = arena_strdup(batch->arena, point->metric);
    known->next = batch->known;
    batch->known = known;
    batch->known_count++;
    *out = known;
    return err_ok();
}

static cell_t *cell_of(series_batch_t *batch, uint64_t id, series_level_t level, int64_t from_ms)
{
    uint64_t hash = (id * 31 + (uint64_t)level) * UINT64_C(0x9E3779B97F4A7C15) ^
                    (uint64_t)(from_ms / 10000) * UINT64_C(0xC2B2AE3D27D4EB4F);
    cell_t **at = &batch->cells[(hash >> 32) % CELLS];
    for (; *at; at = &(*at)->next)
        if ((*at)->id == id && (*at)->level == level && (*at)->from_ms == from_ms)
            return *at;
    *at = ARENA_NEW(batch->arena, cell_t);
    **at = (cell_t){.id = id, .level = level, .from_ms = from_ms};
    return *at;
}

err_t series_batch_add(series_batch_t *batch, const point_t *point)
{
    known_t *known;
    err_t err = know(batch, point, &known);
    if (err_is(err))
        return err;
    known->row.count++;
    /* A last point beyond now: the clock went back, or was wrong. */
    if (point->at_ms >= known->row.last_ms || known->row.last_ms > call_now_ms(batch->call)) {
        known->row.last = point->value;
        known->row.last_ms = point->at_ms;
    }
    for (int level = 0; level < SERIES_LEVELS; level++) {
        int64_t from = point->at_ms - point->at_ms % levels[level].span_ms;
        if (from < call_now_ms(batch->call) - levels[level].kept_ms)
            continue;
        cell_t *cell = cell_of(batch, known->row.id, (series_level_t)level, from);
        bucket_add(&cell->bucket, batch->arena, point->value, point->at_ms);
    }
    return err_ok();
}

static store_key_t span_key(series_level_t level, uint64_t id, int64_t from_ms)
{
    store_key_t key;
    key_open(&key);
    key_u8(&key, (uint8_t)level);
    key_u64(&key, id);
    key_i64(&key, from_ms);
    return key;
}

static err_t write_cell(series_batch_t *batch, const cell_t *cell)
{
    bytes_t value;
    bucket_t all = {0};
    buf_t out;
    store_key_t key = span_key(cell->level, cell->id, cell->from_ms);
    err_t err = store_get(batch->txn, TABLE_spans, key_bytes(&key), &value);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    if (!err_is(err) && !bucket_read(value, batch->arena, &all))
        return err_of(ERR_CORRUPT, "a span of a metric makes no sense");
    bucket_merge(&all, batch->arena, &cell->bucket);
    buf_open(&out, batch->arena);
    bucket_write(&all, &out);
    return store_put(batch->txn, TABLE_spans, key_bytes(&key), buf_bytes(&out));
}

err_t series_batch_write(series_batch_t *batch)
{
    err_t err = err_ok();
    for (known_t *known = batch->known; known && !err_is(err); known = known->next) {
        store_key_t key = name_key(known->agent, known->metric);
        err = store_put(batch->txn, TABLE_series, key_bytes(&key),
                        (bytes_t){(const uint8_t *)&known->row, sizeof(known->row)});
    }
    for (size_t i = 0; i < CELLS; i++)
        for (cell_t *cell = batch->cells[i]; cell && !err_is(err); cell = cell->next)
            err = write_cell(batch, cell);
    return err;
}

/* ---- Reading ---- */

static series_t series_of(const char *agent, const char *metric, const name_row_t *row)
{
    return (series_t){.id = row->id,
                      .agent = agent,
                      .metric = metric,
                      .last = row->last,
                      .last_ms = row->last_ms,
                      .count = row->count};
}

series_list_t series_batch_list(const series_batch_t *batch)
{
    series_list_t list = {ARENA_ARRAY(batch->arena, series_t, batch->known_count + 1), 0};
    for (const known_t *known = batch->known; known; known = known->next) {
        series_t *series = &list.items[list.count++];
        *series = series_of(known->agent, known->metric, &known->row);
        series->fresh = known->fresh;
    }
    return list;
}

err_t series_find(store_txn_t *txn, const char *agent, const char *metric, series_t *out)
{
    bytes_t value;
    name_row_t row;
    store_key_t key = name_key(agent, metric);
    err_t err = store_get(txn, TABLE_series, key_bytes(&key), &value);
    if (err_is(err))
        return err;
    if (!read_name(value, &row))
        return err_of(ERR_CORRUPT, "a row of a metric makes no sense");
    *out = series_of(agent, metric, &row);
    return err_ok();
}

bool series_is_named(const char *wanted, const series_t *series)
{
    size_t size = strlen(series->agent);
    return !strcmp(wanted, series->metric) ||
           (!strncmp(wanted, series->agent, size) && wanted[size] == ':' &&
            !strcmp(wanted + size + 1, series->metric));
}

err_t series_list(store_txn_t *txn, arena_t *arena, const char *agent, const char *metric,
                  series_list_t *out)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    name_row_t row;
    *out = (series_list_t){ARENA_ARRAY(arena, series_t, (size_t)store_count(txn, TABLE_series) + 1),
                           0};
    err_t err = store_scan_open(&scan, txn, TABLE_series, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        series_t *series = &out->items[out->count];
        if (!key_read_str(&key, arena, &series->agent) ||
            !key_read_str(&key, arena, &series->metric) || !read_name(value, &row)) {
            err = err_of(ERR_CORRUPT, "a row of a metric makes no sense");
            break;
        }
        *series = series_of(series->agent, series->metric, &row);
        if ((!agent || !strcmp(agent, series->agent)) &&
            (!metric || !strcmp(metric, series->metric)))
            out->count++;
    }
    store_scan_close(&scan);
    return err;
}

err_t series_spans(store_txn_t *txn, arena_t *arena, uint64_t id, series_level_t level,
                   int64_t from_ms, span_list_t *out)
{
    store_scan_t scan;
    store_key_t prefix, from = span_key(level, id, from_ms);
    bytes_t key, value;
    size_t capacity = 64;
    *out = (span_list_t){ARENA_ARRAY(arena, span_t, capacity), 0};
    key_open(&prefix);
    key_u8(&prefix, (uint8_t)level);
    key_u64(&prefix, id);
    err_t err =
        store_scan_open(&scan, txn, TABLE_spans, key_bytes(&prefix), key_bytes(&from), false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        uint8_t of_level;
        uint64_t of_id;
        if (out->count == capacity) {
            span_t *larger = ARENA_ARRAY(arena, span_t, capacity * 2);
            memcpy(larger, out->items, capacity * sizeof(span_t));
            out->items = larger;
            capacity *= 2;
        }
        span_t *span = &out->items[out->count++];
        if (!key_read_u8(&key, &of_level) || !key_read_u64(&key, &of_id) ||
            !key_read_i64(&key, &span->from_ms) || !bucket_read(value, arena, &span->bucket))
            err = err_of(ERR_CORRUPT, "a span of a metric makes no sense");
    }
    store_scan_close(&scan);
    return err;
}

err_t series_span(store_txn_t *txn, arena_t *arena, uint64_t id, series_level_t level,
                  int64_t from_ms, span_t *out)
{
    bytes_t value;
    store_key_t key = span_key(level, id, from_ms);
    *out = (span_t){.from_ms = from_ms};
    err_t err = store_get(txn, TABLE_spans, key_bytes(&key), &value);
    if (err_is(err))
        return err;
    return bucket_read(value, arena, &out->bucket)
               ? err_ok()
               : err_of(ERR_CORRUPT, "a span of a metric makes no sense");
}

static err_t trim_one(store_txn_t *txn, uint64_t id, series_level_t level, int64_t before_ms,
                      int64_t *most)
{
    store_scan_t scan;
    store_key_t prefix;
    bytes_t key, value, none = {0};
    key_open(&prefix);
    key_u8(&prefix, (uint8_t)level);
    key_u64(&prefix, id);
    err_t err = store_scan_open(&scan, txn, TABLE_spans, key_bytes(&prefix), none, false);
    while (!err_is(err) && *most > 0 && store_scan_next(&scan, &key, &value)) {
        uint8_t of_level;
        uint64_t of_id;
        int64_t from_ms;
        if (!key_read_u8(&key, &of_level) || !key_read_u64(&key, &of_id) ||
            !key_read_i64(&key, &from_ms) || from_ms >= before_ms)
            break;
        err = store_scan_del(&scan);
        --*most;
    }
    store_scan_close(&scan);
    return err;
}

err_t series_trim(store_txn_t *txn, arena_t *arena, int64_t now_ms, int64_t most)
{
    series_list_t list;
    err_t err = series_list(txn, arena, NULL, NULL, &list);
    for (size_t i = 0; i < list.count && most > 0 && !err_is(err); i++)
        for (int level = 0; level < SERIES_LEVELS && !err_is(err); level++)
            err = trim_one(txn, list.items[i].id, (series_level_t)level,
                           now_ms - levels[level].kept_ms, &most);
    return err;
}
