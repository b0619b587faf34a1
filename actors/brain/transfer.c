#include "actors/brain/transfer.h"

#include <stdio.h>
#include <string.h>

#include "actors/brain/episode.h"
#include "actors/brain/experience.h"
#include "actors/brain/graph.h"
#include "actors/brain/policy.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_DEFINE(import_fault, import_fault_FIELDS)

enum { FAULTS = 100 };

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

static bool gone(const policy_t *policy, arena_t *arena, bytes_t episode, int64_t now_ms)
{
    bytes_t type, time;
    int64_t ms;

    if (!policy->count || !mp_get(episode, "timestamp", &time) || !mp_int(time, &ms))
        return false;
    const char *name = mp_get(episode, "type", &type) ? mp_text(arena, type) : "";
    return policy_gone(policy, episode_type_hash(name), ms, now_ms);
}

err_t transfer_out(brain_t *self, call_t *call, const char *company, const char *cursor,
                   size_t limit, size_t largest, buf_t *lines, const char **next, int64_t *count)
{
    store_txn_t *txn;
    store_key_t from;
    store_scan_t scan;
    bytes_t key, value;
    int kind;
    arena_t *arena = call_arena(call);
    policy_t policy;
    err_t err = call_read(call, company, &txn);

    (void)self;
    if (!err_is(err))
        err = policy_read(txn, arena, &policy);
    *next = NULL;
    *count = 0;
    if (!cursor_read(cursor, &kind, &from))
        return err_of(ERR_ARGUMENT, "cursor is not one that brain_export gave");
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    for (; kind < KINDS && !*next && !err_is(err); kind++, key_open(&from)) {
        err = store_scan_open(&scan, txn, kind_tables[kind], (bytes_t){0}, key_bytes(&from), false);
        while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
            if (kind == 0 && gone(&policy, arena, value, call_now_ms(call)))
                continue;
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

err_t transfer_read_line(arena_t *arena, const char *text, size_t size, transfer_line_t *out)
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
    if (!err_is(err) && out->episode.metadata.size &&
        (!mp_type_of(out->episode.metadata, &type) || type != MP_MAP))
        return err_of(ERR_ARGUMENT, "metadata must be an object");
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

static err_t put_imported(brain_t *self, call_t *call, const char *company, transfer_line_t *in)
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
    const char *what = err_what(err);

    if (faults->count == FAULTS)
        return;
    if (strncmp(what, "line 1, ", 8) == 0) /* of the line itself: its number is told already */
        what += 8;
    if (!faults->items)
        faults->items = ARENA_ARRAY(arena, import_fault_t, FAULTS);
    faults->items[faults->count++] =
        (import_fault_t){.line = line, .has_line = true, .what = arena_strdup(arena, what)};
}

err_t transfer_in(brain_t *self, call_t *call, const char *company, const char *lines,
                  int64_t *imported, int64_t *refused, import_fault_list_t *faults)
{
    arena_t *arena = call_arena(call);
    int64_t number = 0;

    for (const char *at = lines; *at;) {
        size_t size = strcspn(at, "\n");
        transfer_line_t in;
        number++;
        if (strspn(at, " \t\r") < size) {
            err_t bad = transfer_read_line(arena, at, size, &in);
            err_t err = err_is(bad) ? err_ok() : put_imported(self, call, company, &in);
            if (err.code == ERR_ARGUMENT)
                bad = err;
            else if (err_is(err))
                return err_make(arena, err.code, "line %lld: %s", (long long)number, err_what(err));
            *(err_is(bad) ? refused : imported) += 1;
            if (err_is(bad))
                add_fault(arena, faults, number, bad);
        }
        at += size + (at[size] == '\n');
    }
    return err_ok();
}
