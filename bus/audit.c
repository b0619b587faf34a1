/* What is recorded of an actor's calls, and when; see audit.h.
 *
 * An entry that has a transaction of its company is recorded in the row that inside_audit_write
 * adds to it before the commit. What touched nothing, as a refused call, is noted in memory and
 * written with the next commit of that company, at the latest after FLUSH_MS: it is no reason for a
 * sync of its own. */
#include "bus/audit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bus/inside.h"
#include "proto/mp.h"

enum {
    FLUSH_MS = 1000,
    SAY_MS = 1000,
    FLUSH_COMPANIES = 16,
    NOTES_MOST = 1024,
    NOTES_MANY = 512, /* they wait no longer */
    TRIM = 4,         /* old rows that go with a new one */
    IDS_MOST = 16,
    ID_LARGEST = 128,
    RECORD_BYTES = 256, /* most are shorter */
    PAGE_ROWS = 1000,
    PAGE_BYTES = 1 << 20,
    HOUR_MS = 3600000
};

RECORD_DEFINE(audit_settings, audit_settings_FIELDS)

const store_table_t inside_audit_table = {"audit"};

struct audit_note {
    audit_note_t *next;
    const batch_txn_t *in; /* it is in a row of this one, not yet committed */
    const method_t *method;
    err_code_t refused; /* OK: it is no refusal, and stands for itself */
    int64_t times;
    char company[65];
    size_t size;
    uint8_t record[];
};

/* ---- What is recorded of a call ---- */

static bool is_skipped(const actor_t *actor, const char *tool)
{
    const strs_t *skip = &actor->audit.skip;
    if (!actor->audit.has_skip)
        return !strcmp(tool, "track_metric");
    for (size_t i = 0; i < skip->count; i++)
        if (!strcmp(skip->items[i], tool))
            return true;
    return false;
}

static bool is_refusal(err_t err)
{
    return err.code == ERR_FORBIDDEN || err.code == ERR_COMPANY;
}

static bool is_recorded(const call_t *call, err_t err, bool wrote)
{
    const actor_t *actor = call->actor;
    if (call->internal || !call->method || !actor->pool || !actor->audit.on)
        return false;
    if (is_refusal(err))
        return true;
    if (!(call->method->flags & WRITES) || !(call->method->flags & (TOOL | AUDITED)) ||
        call->repeated)
        return false;
    if (err.code == ERR_PARKED && (call->audited || !wrote))
        return false;
    return !is_skipped(actor, call->method->name);
}

/* Of a call that was refused before its company was known: one that its principal may act for. */
static const char *whose(call_t *call)
{
    const header_t *header = &call->header;
    if (call->company)
        return call->company;
    const char *given = mp_member_text(call->arena, call->body, "company");
    if (!given || !frame_company_name(given) || !call_may(call, given))
        given = header->company;
    if (!given || !*given || !call_may(call, given))
        given = !header->has_companies    ? call->actor->default_company
                : header->companies.count ? header->companies.items[0]
                                          : NULL;
    return given && frame_company_name(given) ? given : NULL;
}

/* id, ids, name, task_id, agent_ids, agent_name, taskId. */
static bool names_something(const char *name)
{
    static const char *const ends[] = {"id", "ids", "name", NULL};
    size_t size = strlen(name);
    if (size > 2 && !strcmp(name + size - 2, "Id"))
        return true;
    for (const char *const *end = ends; *end; end++) {
        size_t tail = strlen(*end);
        if (size >= tail && !strcmp(name + size - tail, *end))
            return size == tail || name[size - tail - 1] == '_';
    }
    return false;
}

static void add_id(arena_t *arena, const char **ids, size_t *count, const char *id)
{
    if (!id || !*id || *count == IDS_MOST)
        return;
    for (size_t i = 0; i < *count; i++)
        if (!strcmp(ids[i], id))
            return;
    size_t size = strnlen(id, ID_LARGEST);
    if (size == ID_LARGEST)
        while (size && ((unsigned char)id[size] & 0xc0) == 0x80)
            size--;
    ids[(*count)++] = id[size] ? arena_strndup(arena, id, size) : id;
}

static void add_ids(arena_t *arena, const record_t *record, const void *values, const char **ids,
                    size_t *count)
{
    for (const field_t *field = record->fields(); values && field->name; field++) {
        const void *value = (const char *)values + field->offset;
        if ((field->type != FIELD_STR && field->type != FIELD_STRS) ||
            !names_something(field->name))
            continue;
        if (field->type == FIELD_STR)
            add_id(arena, ids, count, *(const char *const *)value);
        else
            for (size_t i = 0; i < ((const strs_t *)value)->count; i++)
                add_id(arena, ids, count, ((const strs_t *)value)->items[i]);
    }
}

/* A caller's name without the number of its life. */
static const char *door_of(const call_t *call)
{
    const char *end = strrchr(call->header.from, '-');
    return end ? arena_strndup(call->arena, call->header.from, (size_t)(end - call->header.from))
               : call->header.from;
}

static buf_t roomy(arena_t *arena, size_t size)
{
    return (buf_t){.arena = arena, .data = arena_piece(arena, size), .capacity = size};
}

static bytes_t make_record(call_t *call, err_t err)
{
    const char *ids[IDS_MOST];
    size_t count = 0;
    uint8_t hash[DIGEST_BYTES];
    bool done = !err_is(err);
    digest_of(call->body, hash);
    add_ids(call->arena, call->method->args, call->args, ids, &count);
    if (done && call->reply)
        add_ids(call->arena, call->method->reply, call->reply, ids, &count);
    audit_record_t record = {.at = call_now_ms(call),
                             .has_at = true,
                             .who = call_principal(call),
                             .role = (int)call_role(call),
                             .has_role = true,
                             .door = door_of(call),
                             .tool = call->method->name,
                             .ids = {ids, count},
                             .has_ids = count > 0,
                             .args = {hash, sizeof(hash)},
                             .has_args = true,
                             .outcome = done                     ? "ok"
                                        : err.code == ERR_PARKED ? "begun"
                                                                 : err_info(err.code)->name};
    buf_t out = roomy(call->arena, RECORD_BYTES);
    record_encode(&audit_record_record, &record, &out);
    return buf_bytes(&out);
}

void inside_audit(entry_t *entry, err_t err, bool wrote)
{
    call_t *call = entry->call;
    entry->audit = (bytes_t){0};
    entry->audit_company = NULL;
    entry->audit_next = NULL;
    if (!is_recorded(call, err, wrote) || !(entry->audit_company = whose(call)))
        return;
    entry->audit = make_record(call, err);
    for (touch_t *touch = call->touches; touch; touch = touch->next) {
        if (strcmp(touch->of->company, entry->audit_company) != 0)
            continue;
        batch_txn_t *of = touch->of;
        *(of->audited ? &of->audited_last->audit_next : &of->audited) = entry;
        of->audited_last = entry;
        of->audited_count++;
        entry->audit_company = NULL; /* it has a place */
        return;
    }
}

/* ---- Notes ---- */

static void drop_note(actor_t *actor, audit_note_t **at)
{
    audit_note_t *note = *at;
    *at = note->next;
    if (!note->next)
        actor->notes_end = at;
    actor->note_count--;
    free(note);
}

static void drop_notes(actor_t *actor, const char *company)
{
    for (audit_note_t **at = &actor->notes; *at;)
        if (!strcmp((*at)->company, company))
            drop_note(actor, at);
        else
            at = &(*at)->next;
}

static void not_recorded(actor_t *actor, const char *company, int count, const char *why)
{
    int64_t now_ms = actor->env->ops->wall_ms(actor->env);
    actor->unrecorded += (uint64_t)count;
    if (actor->unrecorded_said_ms && now_ms - actor->unrecorded_said_ms < SAY_MS)
        return;
    arena_t *arena = arena_new();
    uint64_t since = actor->unrecorded - actor->unrecorded_said;
    actor->unrecorded_said = actor->unrecorded;
    actor->unrecorded_said_ms = now_ms;
    actor->env->ops->log(actor->env, LOG_ERROR,
                         arena_printf(arena,
                                      "%" PRIu64 " calls are missing in audit logs, the last "
                                      "of company '%s': %s",
                                      since, company, why));
    arena_destroy(&arena);
}

static err_t flush(void *self, call_t *call, void *ctx);

static void arm(actor_t *actor)
{
    if (!actor->notes_armed)
        actor_work(actor, FLUSH_MS, flush, NULL);
    actor->notes_armed = true;
    if (actor->note_count < NOTES_MANY || actor->notes_pressing)
        return;
    actor_work(actor, 0, flush, NULL);
    actor->notes_pressing = true;
}

/* Opens a transaction for each company with notes: its commit takes them along. A company that has
 * nothing here is not made for the sake of a refused call. */
static err_t flush(void *self, call_t *call, void *ctx)
{
    actor_t *actor = call->actor;
    int companies = 0;
    (void)self, (void)ctx;
    actor->notes_armed = actor->notes_pressing = false;
    for (audit_note_t *note = actor->notes; note;) {
        const char *company = arena_strdup(call->arena, note->company);
        store_txn_t *txn;
        err_t err = call_read(call, company, &txn);
        if (!err_is(err))
            err = call_write(call, company, &txn);
        if (err_is(err)) {
            if (err.code != ERR_NOT_FOUND)
                not_recorded(actor, company, 1, err_what(err));
            drop_notes(actor, company);
            note = actor->notes;
            continue;
        }
        if (++companies == FLUSH_COMPANIES)
            break;
        do
            note = note->next;
        while (note && !strcmp(note->company, company));
    }
    if (companies == FLUSH_COMPANIES)
        arm(actor);
    return err_ok();
}

/* Whoever is refused again and again must not push older records out of the log. */
static bool joins_another(const entry_t *entry)
{
    const call_t *call = entry->call;
    if (!is_refusal(entry->result))
        return false;
    for (audit_note_t *note = call->actor->notes; note; note = note->next) {
        if (note->in || note->refused != entry->result.code || note->method != call->method ||
            strcmp(note->company, entry->audit_company) != 0 ||
            !mp_equals(mp_member((bytes_t){note->record, note->size}, "who"), call_principal(call)))
            continue;
        note->times++;
        return true;
    }
    return false;
}

void inside_audit_release(entry_t *entry)
{
    actor_t *actor = entry->call->actor;
    if (entry->audit.size && entry->result.code == ERR_PARKED)
        entry->call->audited = true;
    if (!entry->audit_company || joins_another(entry))
        return;
    if (actor->note_count == NOTES_MOST) {
        not_recorded(actor, entry->audit_company, 1, "too many at once");
        return;
    }
    audit_note_t *note = calloc(1, sizeof(*note) + entry->audit.size);
    if (!note)
        abort();
    memcpy(note->company, entry->audit_company, strlen(entry->audit_company) + 1);
    memcpy(note->record, entry->audit.data, entry->audit.size);
    note->size = entry->audit.size;
    note->method = entry->call->method;
    note->refused = is_refusal(entry->result) ? entry->result.code : ERR_OK;
    note->times = 1;
    if (!actor->notes_end)
        actor->notes_end = &actor->notes;
    *actor->notes_end = note;
    actor->notes_end = &note->next;
    actor->note_count++;
    entry->audit_company = NULL;
    arm(actor);
}

/* ---- Rows ---- */

static bytes_t row_key(store_key_t *key, int64_t number)
{
    key_open(key);
    key_u64(key, (uint64_t)number);
    return key_bytes(key);
}

static bool edge(store_txn_t *txn, int table, bool last, int64_t *number, bytes_t *value)
{
    store_scan_t scan;
    bytes_t key, none = {0};
    uint64_t at = 0;
    bool found = !err_is(store_scan_open(&scan, txn, table, none, none, last)) &&
                 store_scan_next(&scan, &key, value) && key_read_u64(&key, &at);
    store_scan_close(&scan);
    *number = (int64_t)at;
    return found;
}

static int claim_notes(actor_t *actor, const batch_txn_t *of)
{
    int count = 0;
    for (audit_note_t *note = actor->notes; note; note = note->next)
        if (!strcmp(note->company, of->company)) {
            note->in = of;
            count++;
        }
    return count;
}

static void put_note(actor_t *actor, const audit_note_t *note, buf_t *out)
{
    bytes_t bytes = {note->record, note->size};
    audit_record_t record;
    if (note->times > 1 &&
        !err_is(record_decode(&audit_record_record, bytes, actor->batch_arena, "field", &record))) {
        record.times = note->times;
        record_encode(&audit_record_record, &record, out);
        return;
    }
    mp_put_raw(out, bytes);
}

static void put_records(actor_t *actor, const batch_txn_t *of, uint32_t count, buf_t *out)
{
    mp_put_array(out, count);
    for (const audit_note_t *note = actor->notes; note; note = note->next)
        if (note->in == of)
            put_note(actor, note, out);
    for (const entry_t *entry = of->audited; entry; entry = entry->audit_next)
        mp_put_raw(out, entry->audit);
}

static err_t trim(actor_t *actor, store_txn_t *txn, int64_t next)
{
    bytes_t value;
    int64_t oldest;
    store_key_t key;
    err_t err = err_ok();
    for (int i = 0; i < TRIM && !err_is(err); i++) {
        if (!edge(txn, actor->audit_table, false, &oldest, &value) ||
            next - 1 - mp_member_int(value, "last") < actor->audit.keep)
            break;
        err = store_del(txn, actor->audit_table, row_key(&key, oldest));
    }
    return err;
}

/* The head goes to the log with the first row of an hour: who keeps the log elsewhere can tell
 * later whether an end was cut off. */
static void say_head(actor_t *actor, batch_txn_t *of, int64_t last, const uint8_t *hash)
{
    buf_t text;
    buf_open(&text, actor->batch_arena);
    buf_printf(&text, "audit log of company '%s': record %" PRId64 " ends it now, with the hash ",
               of->company, last);
    for (int i = 0; i < DIGEST_BYTES; i++)
        buf_printf(&text, "%02x", hash[i]);
    of->audit_head = text.data;
}

static err_t add_row(actor_t *actor, batch_txn_t *of, store_txn_t *txn, uint32_t count)
{
    static const uint8_t zeros[DIGEST_BYTES];
    uint8_t hash[DIGEST_BYTES];
    bytes_t last;
    int64_t number;
    store_key_t key;
    buf_t row = roomy(actor->batch_arena, (size_t)count * RECORD_BYTES + RECORD_BYTES);
    bool any = edge(txn, actor->audit_table, true, &number, &last) && last.size > DIGEST_BYTES;
    number = any ? mp_member_int(last, "last") + 1 : 1;
    int64_t was_ms = any ? mp_member_int(last, "at") : 0;
    mp_put_map(&row, 5);
    mp_put_str(&row, "before");
    mp_put_bin(&row, any ? last.data + last.size - DIGEST_BYTES : zeros, DIGEST_BYTES);
    mp_put_str(&row, "first");
    mp_put_int(&row, number);
    mp_put_str(&row, "last");
    mp_put_int(&row, number + count - 1);
    mp_put_str(&row, "at");
    mp_put_int(&row, inside_batch_ms(actor));
    mp_put_str(&row, "records");
    put_records(actor, of, count, &row);
    digest_of(buf_bytes(&row), hash);
    buf_put(&row, hash, sizeof(hash));
    of->audit_head = NULL;
    if (any && was_ms / HOUR_MS != inside_batch_ms(actor) / HOUR_MS)
        say_head(actor, of, number + count - 1, hash);
    err_t err = store_append(txn, actor->audit_table, row_key(&key, number), buf_bytes(&row));
    return err_is(err) ? err : trim(actor, txn, number + count);
}

/* When nothing else is left it is done in a child, so that a row that does not fit spoils no more
 * than itself: with a full quota it must still be possible to delete. */
static err_t add_row_apart(actor_t *actor, batch_txn_t *of, uint32_t count)
{
    store_txn_t *child;
    err_t err = store_child_begin(of->txn, &child);
    if (err_is(err))
        return err;
    err = add_row(actor, of, child, count);
    if (!err_is(err))
        return store_commit(&child);
    store_abort(&child);
    return err;
}

bool inside_audit_write(actor_t *actor)
{
    for (audit_note_t *note = actor->notes; note; note = note->next)
        note->in = NULL;
    for (batch_txn_t *of = actor->txns; of; of = of->next) {
        if (!of->txn)
            continue;
        int count = of->audited_count + (actor->note_count ? claim_notes(actor, of) : 0);
        if (!count)
            continue;
        bool apart = actor->careful || !actor->may_grow;
        err_t err = apart ? add_row_apart(actor, of, (uint32_t)count)
                          : add_row(actor, of, of->txn, (uint32_t)count);
        if (!err_is(err))
            continue;
        if (apart) {
            of->audit_head = NULL;
            not_recorded(actor, of->company, count, err_what(err));
            continue;
        }
        inside_store_error(actor, of->company, err);
        actor->wants_care = !actor->wants_growth;
        return false;
    }
    return true;
}

void inside_audit_committed(actor_t *actor, const batch_txn_t *of, bool fine)
{
    if (fine && of->audit_head)
        actor->env->ops->log(actor->env, LOG_INFO, of->audit_head);
    for (audit_note_t **at = &actor->notes; *at;) {
        if ((*at)->in == of && fine) {
            drop_note(actor, at);
            continue;
        }
        if ((*at)->in == of)
            (*at)->in = NULL;
        at = &(*at)->next;
    }
    if (actor->notes)
        arm(actor);
}

/* ---- The end ---- */

void inside_audit_close(actor_t *actor)
{
    arena_t *arena = arena_new();
    while (actor->notes && !actor->failed) {
        batch_txn_t of = {.company = arena_strdup(arena, actor->notes->company)};
        store_txn_t *there;
        err_t err = store_begin_read(actor->pool, of.company, &there, arena);
        if (!err_is(err)) {
            store_abort(&there);
            err = store_begin_write(actor->pool, of.company, &of.txn, arena);
        }
        if (!err_is(err)) {
            err = add_row_apart(actor, &of, (uint32_t)claim_notes(actor, &of));
            if (err_is(err))
                store_abort(&of.txn);
            else
                err = store_commit(&of.txn);
        }
        if (err_is(err) && err.code != ERR_NOT_FOUND)
            not_recorded(actor, of.company, 1, err_what(err));
        drop_notes(actor, of.company);
    }
    arena_destroy(&arena);
}

void inside_audit_free(actor_t *actor)
{
    while (actor->notes)
        drop_note(actor, &actor->notes);
}

/* ---- Reading ---- */

err_t audit_read(const actor_def_t *def, store_pool_t *pool, const char *company, int64_t from,
                 arena_t *arena, audit_kept_list_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    store_key_t start;
    bytes_t key, value, none = {0};
    size_t bytes = 0;
    int table = 0;
    uint64_t number;
    while (def->tables[table].name)
        table++;
    table += 2; /* behind those of outcomes */
    *out = (audit_kept_list_t){ARENA_ARRAY(arena, audit_kept_t, PAGE_ROWS), 0};
    err_t err = store_begin_read(pool, company, &txn, arena);
    if (err_is(err))
        return err;
    err = store_scan_open(&scan, txn, table, none, row_key(&start, from), false);
    while (!err_is(err) && out->count < PAGE_ROWS && bytes < PAGE_BYTES &&
           store_scan_next(&scan, &key, &value)) {
        if (!key_read_u64(&key, &number))
            number = 0; /* whoever checks will say so */
        out->items[out->count++] =
            (audit_kept_t){.number = (int64_t)number,
                           .has_number = true,
                           .value = {arena_copy(arena, value.data, value.size), value.size},
                           .has_value = true};
        bytes += value.size;
    }
    store_scan_close(&scan);
    store_abort(&txn);
    return err;
}
