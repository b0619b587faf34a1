#include "actors/swarm/agents.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { SOUL_LARGEST = 64 << 10, HISTORY_MOST = 200, LIVE_MOST = 20000 };

RECORD_DEFINE(swarm_agent, swarm_agent_FIELDS)
RECORD_DEFINE(agent_event, agent_event_FIELDS)
RECORD_ROWS_(agent_row, agent_row_FIELDS)
static const record_t agent_row_record = {"agent_row", agent_row_rows, sizeof(agent_row_t)};

static bytes_t key_of(const char *id)
{
    return (bytes_t){(const uint8_t *)id, strlen(id)};
}

static err_t no_such(call_t *call, const char *id)
{
    return err_make(call_arena(call), ERR_NOT_FOUND,
                    "there is no subagent '%.128s' in this company; list_agents shows those there "
                    "are",
                    id);
}

err_t agents_get(call_t *call, const char *company, const char *id, agent_row_t *row)
{
    store_txn_t *txn;
    bytes_t value;
    if (strlen(id) > STORE_KEY)
        return no_such(call, id);
    err_t err = call_read(call, company, &txn);
    if (!err_is(err))
        err = store_get(txn, TABLE_AGENTS, key_of(id), &value);
    if (err.code == ERR_NOT_FOUND)
        return no_such(call, id);
    if (err_is(err))
        return err;
    agent_row_t raw;
    err = record_decode(&agent_row_record, value, call_arena(call), "stored field", &raw);
    if (err_is(err))
        return err_make(call_arena(call), ERR_CORRUPT, "subagent %s cannot be read: %s", id,
                        err_what(err));
    record_copy(&agent_row_record, &raw, call_arena(call), row);
    return err_ok();
}

static err_t put_history(call_t *call, store_txn_t *txn, const agent_row_t *row, const char *note)
{
    store_key_t key;
    buf_t out;
    store_scan_t scan;
    bytes_t last, value;
    uint64_t number = 0;
    key_open(&key);
    key_str(&key, row->agent_id);
    store_key_t prefix = key;
    err_t err = store_scan_open(&scan, txn, TABLE_HISTORY, key_bytes(&prefix), (bytes_t){0}, true);
    if (err_is(err))
        return err;
    if (store_scan_next(&scan, &last, &value)) {
        last.data += prefix.size;
        last.size -= prefix.size;
        key_read_u64(&last, &number);
    }
    store_scan_close(&scan);
    key_u64(&key, number + 1);
    agent_event_t event = {.at_ms = row->updated_ms, .state = row->state, .note = note};
    buf_open(&out, call_arena(call));
    record_encode(&agent_event_record, &event, &out);
    err = store_put(txn, TABLE_HISTORY, key_bytes(&key), buf_bytes(&out));
    if (err_is(err) || number < HISTORY_MOST)
        return err;
    key = prefix;
    key_u64(&key, number + 1 - HISTORY_MOST);
    err = store_del(txn, TABLE_HISTORY, key_bytes(&key));
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

static void publish(call_t *call, const agent_row_t *row)
{
    swarm_agent_t shown = agents_show(row, call_now_ms(call));
    call_publish(call, arena_printf(call_arena(call), "agent.%s", agent_state_names[row->state]),
                 &swarm_agent_record, &shown);
}

err_t agents_put(call_t *call, const char *company, agent_row_t *row, int before, const char *note)
{
    store_txn_t *txn;
    buf_t out;
    row->updated_ms = call_now_ms(call);
    row->events += row->state != before;
    err_t err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    buf_open(&out, call_arena(call));
    record_encode(&agent_row_record, row, &out);
    err = store_put(txn, TABLE_AGENTS, key_of(row->agent_id), buf_bytes(&out));
    if (err_is(err))
        return err;
    if (row->state == AGENT_GONE && row->told && row->events_told >= row->events) {
        err = store_del(txn, TABLE_LIVE, key_of(row->agent_id));
        if (err.code == ERR_NOT_FOUND)
            err = err_ok();
    } else {
        err = store_put(txn, TABLE_LIVE, key_of(row->agent_id), key_of("a"));
    }
    if (err_is(err) || row->state == before)
        return err;
    publish(call, row);
    return put_history(call, txn, row, note);
}

void agents_move(agent_row_t *row, agent_state_t state, int64_t now_ms)
{
    bool at_work =
        row->run_state && (!strcmp(row->run_state, "running") || !strcmp(row->run_state, "leased"));
    at_work = at_work && state != AGENT_GONE;
    if (at_work && !row->has_busy_since_ms) {
        row->busy_since_ms = now_ms;
        row->has_busy_since_ms = true;
    }
    if (!at_work && row->has_busy_since_ms) {
        row->busy_ms += now_ms > row->busy_since_ms ? now_ms - row->busy_since_ms : 0;
        row->has_busy_since_ms = false;
    }
    row->state = state;
    row->load = state == AGENT_GONE ? 0 : at_work ? 1 : 0.5;
}

void agents_end(agent_row_t *row, const char *outcome, const char *error, int64_t now_ms)
{
    agents_move(row, AGENT_GONE, now_ms);
    row->outcome = outcome;
    row->error = error;
    row->why = NULL;
    row->ended_ms = now_ms;
    row->has_ended_ms = true;
}

swarm_agent_t agents_show(const agent_row_t *row, int64_t now_ms)
{
    bool idle = row->load < 1 && now_ms > row->updated_ms;
    swarm_agent_t out = {.id = row->agent_id,
                         .parentId = row->parent_agent_id,
                         .lastActive = row->updated_ms,
                         .idleSeconds = idle ? (now_ms - row->updated_ms) / 1000 : 0,
                         .agent_id = row->agent_id,
                         .role = row->role,
                         .task = row->task,
                         .parent_agent_id = row->parent_agent_id,
                         .depth = row->depth,
                         .sop = row->sop,
                         .capabilities = row->capabilities,
                         .state = row->state,
                         .load = row->load,
                         .run_id = row->run_id,
                         .run_state = row->run_state,
                         .why = row->why,
                         .outcome = row->outcome,
                         .error = row->error,
                         .restarts = row->restarts,
                         .busy_ms = row->busy_ms,
                         .created_ms = row->created_ms,
                         .updated_ms = row->updated_ms,
                         .ended_ms = row->ended_ms,
                         .has_ended_ms = row->has_ended_ms};
    return out;
}

/* ---- Calls that were there before ---- */

err_t agents_asked(call_t *call, const char *company, const char **id)
{
    store_txn_t *txn;
    bytes_t value;
    const char *identity = call_identity(call);
    *id = NULL;
    err_t err = identity ? call_read(call, company, &txn) : err_of(ERR_NOT_FOUND, NULL);
    if (!err_is(err))
        err = store_get(txn, TABLE_ASKED, key_of(identity), &value);
    if (!err_is(err))
        *id = arena_strndup(call_arena(call), (const char *)value.data, value.size);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

err_t agents_note_asked(call_t *call, const char *company, const char *id)
{
    store_txn_t *txn;
    const char *identity = call_identity(call);
    if (!identity)
        return err_ok();
    err_t err = call_write(call, company, &txn);
    return err_is(err) ? err : store_put(txn, TABLE_ASKED, key_of(identity), key_of(id));
}

/* ---- Lists ---- */

err_t agents_live(call_t *call, const char *company, strs_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value, none = {0};
    *out = (strs_t){0};
    err_t err = call_read(call, company, &txn);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    int64_t most = store_count(txn, TABLE_LIVE);
    size_t room = most < LIVE_MOST ? (size_t)(most > 0 ? most : 0) : LIVE_MOST;
    const char **ids = ARENA_ARRAY(call_arena(call), const char *, room + 1);
    err = store_scan_open(&scan, txn, TABLE_LIVE, none, none, false);
    while (!err_is(err) && out->count < room && store_scan_next(&scan, &key, &value))
        ids[out->count++] = arena_strndup(call_arena(call), (const char *)key.data, key.size);
    store_scan_close(&scan);
    out->items = ids;
    return err;
}

static int newest_first(const swarm_agent_t *one, const swarm_agent_t *other)
{
    if (one->created_ms != other->created_ms)
        return one->created_ms > other->created_ms ? -1 : 1;
    return strcmp(one->agent_id, other->agent_id);
}

/* Keeps the newest `limit` in order: insertion, since limits are small. */
static void insert(swarm_agent_list_t *list, size_t limit, swarm_agent_t agent)
{
    size_t at = list->count;
    while (at && newest_first(&agent, &list->items[at - 1]) < 0)
        at--;
    if (at >= limit)
        return;
    size_t last = list->count < limit ? list->count : limit - 1;
    memmove(&list->items[at + 1], &list->items[at], (last - at) * sizeof(agent));
    list->items[at] = agent;
    list->count = last + 1;
}

err_t agents_list(call_t *call, const char *company, bool live_only, size_t limit,
                  bool (*fits)(const agent_row_t *row, const void *ctx), const void *ctx,
                  swarm_agent_list_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value, none = {0};
    *out = (swarm_agent_list_t){ARENA_ARRAY(call_arena(call), swarm_agent_t, limit + 1), 0};
    err_t err = call_read(call, company, &txn);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    err = store_scan_open(&scan, txn, live_only ? TABLE_LIVE : TABLE_AGENTS, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        agent_row_t row;
        if (key.size > 4 && !memcmp(key.data, "neg_", 4))
            continue;
        err = agents_get(call, company,
                         arena_strndup(call_arena(call), (const char *)key.data, key.size), &row);
        if (!err_is(err) && (!live_only || row.state != AGENT_GONE) && (!fits || fits(&row, ctx)))
            insert(out, limit, agents_show(&row, call_now_ms(call)));
    }
    store_scan_close(&scan);
    return err;
}

err_t agents_history(call_t *call, const char *company, const char *id, agent_event_list_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    store_key_t prefix;
    bytes_t key, value;
    *out = (agent_event_list_t){ARENA_ARRAY(call_arena(call), agent_event_t, HISTORY_MOST + 1), 0};
    key_open(&prefix);
    key_str(&prefix, id);
    err_t err = call_read(call, company, &txn);
    if (err_is(err))
        return err;
    err = store_scan_open(&scan, txn, TABLE_HISTORY, key_bytes(&prefix), (bytes_t){0}, false);
    while (!err_is(err) && out->count < HISTORY_MOST && store_scan_next(&scan, &key, &value))
        err = record_decode(&agent_event_record, value, call_arena(call), "stored field",
                            &out->items[out->count++]);
    store_scan_close(&scan);
    return err;
}

err_t agents_story(call_t *call, const char *company, const agent_row_t *row, const char **text)
{
    agent_event_list_t events;
    buf_t out;
    err_t err = agents_history(call, company, row->agent_id, &events);
    buf_open(&out, call_arena(call));
    for (size_t i = 0; i < events.count; i++) {
        const agent_event_t *event = &events.items[i];
        buf_printf(&out, "%s%s %s%s%.500s", i ? "\n" : "",
                   record_time_text(call_arena(call), event->at_ms),
                   agent_state_names[event->state], event->note ? ": " : "",
                   event->note ? event->note : "");
    }
    *text = out.size ? out.data : "";
    return err;
}

/* ---- Souls ---- */

static bool is_file_name(const char *role)
{
    for (const char *at = role; *at; at++)
        if (!isalnum((unsigned char)*at) && *at != '_' && *at != '-')
            return false;
    return true;
}

err_t agents_soul(call_t *call, const char *company, const char *role, const char **text)
{
    arena_t *arena = call_arena(call);
    const actor_t *actor = call_actor(call);
    *text = "";
    if (!is_file_name(role))
        return err_ok();
    bool own = !strcmp(company, actor_default_company(actor));
    const char *path =
        own ? arena_printf(arena, "%s/souls/%s.md", actor_data_dir(actor), role)
            : arena_printf(arena, "%s/agent/%s/souls/%s.md", actor_data_dir(actor), company, role);
    FILE *file = fopen(path, "r");
    if (!file)
        return err_ok();
    char *data = ARENA_ARRAY(arena, char, SOUL_LARGEST + 2);
    size_t size = fread(data, 1, SOUL_LARGEST + 1, file);
    bool broken = ferror(file);
    fclose(file);
    data[size] = '\0';
    if (broken)
        return err_make(arena, ERR_IO, "%s cannot be read", path);
    if (size > SOUL_LARGEST)
        return err_make(arena, ERR_TOO_LARGE, "%s is larger than 64 KiB: shorten it", path);
    if (strlen(data) != size)
        return err_make(arena, ERR_PARSE, "%s holds a zero byte: it must be text", path);
    *text = data;
    return err_ok();
}
