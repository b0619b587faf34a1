/* audit: `agency audit list` and `agency audit verify`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/cli/audit_logs.h"
#include "actors/cli/tool.h"

enum { HEX = 2 * DIGEST_BYTES, LIST_LEAST = 1, LIST_MOST = 100000, LIST_DEFAULT = 100 };

static const char *to_hex(arena_t *arena, const uint8_t *bytes)
{
    buf_t out;
    buf_open(&out, arena);
    for (int i = 0; i < DIGEST_BYTES; i++)
        buf_printf(&out, "%02x", bytes[i]);
    return out.data;
}

static void put_text(buf_t *out, const char *key, const char *value)
{
    mp_put_str(out, key);
    mp_put_str(out, value);
}

static void put_number(buf_t *out, const char *key, int64_t value)
{
    mp_put_str(out, key);
    mp_put_int(out, value);
}

/* ---- Words: [PILLAR] [key=value…] ---- */

typedef struct wanted {
    const char *pillar, *who, *tool, *outcome, *heads;
    int64_t since_ms, limit;
} wanted_t;

static bool bad_value(const char *key, const char *value, const char *what)
{
    cli_usage("%s must be %s, not '%s'", key, what, value);
    return false;
}

static bool read_limit(const char *value, int64_t *out)
{
    char *end;
    *out = strtoll(value, &end, 10);
    if (*value && !*end && *out >= LIST_LEAST && *out <= LIST_MOST)
        return true;
    return bad_value("limit", value, "a whole number from 1 to 100000");
}

static bool read_pair(const char *key, const char *value, bool list, wanted_t *out)
{
    const char **texts[] = {&out->who, &out->tool, &out->outcome, &out->heads};
    static const char *const names[] = {"who", "tool", "outcome", "heads", "since", "limit", NULL};
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], key) != 0 || list == (i == 3))
            continue;
        if (i < 4)
            *texts[i] = value;
        else if (i == 4)
            return record_time(value, &out->since_ms) ||
                   bad_value(key, value, "a time such as 2026-11-28T09:00:00Z");
        return i != 5 || read_limit(value, &out->limit);
    }
    cli_usage("agency audit %s knows no '%s='; it knows %s", list ? "list" : "verify", key,
              list ? "since=, who=, tool=, outcome= and limit=" : "heads=FILE");
    return false;
}

static bool read_wanted(cli_t *cli, bool list, wanted_t *out)
{
    *out = (wanted_t){.limit = LIST_DEFAULT};
    for (int i = 1; i < cli->count; i++) {
        const char *word = cli->words[i], *equals = strchr(word, '=');
        if (!equals && out->pillar) {
            cli_usage("what is '%s'? One pillar can be named, or none", word);
            return false;
        }
        if (!equals)
            out->pillar = word;
        else if (!read_pair(arena_strndup(cli->arena, word, (size_t)(equals - word)), equals + 1,
                            list, out))
            return false;
    }
    return true;
}

/* ---- list ---- */

typedef struct shown {
    int64_t at_ms, number;
    const char *pillar, *company;
    audit_record_t record; /* in the arena of the listing */
} shown_t;

typedef struct listing {
    cli_t *cli;
    const wanted_t *wanted;
    const char *pillar, *company;
    arena_t *arena;
    shown_t *items; /* room for twice what is wanted */
    size_t count;
    int faults;
} listing_t;

static int by_time(const void *one, const void *other)
{
    const shown_t *a = one, *b = other;
    if (a->at_ms != b->at_ms)
        return a->at_ms < b->at_ms ? -1 : 1;
    int order = strcmp(a->pillar, b->pillar);
    if (!order)
        order = strcmp(a->company, b->company);
    return order ? order : (a->number > b->number) - (a->number < b->number);
}

/* Only the newest stay; what they point to moves to a fresh arena. */
static void settle(listing_t *self)
{
    size_t most = (size_t)self->wanted->limit;
    arena_t *fresh = arena_new();
    qsort(self->items, self->count, sizeof(*self->items), by_time);
    if (self->count > most) {
        memmove(self->items, self->items + self->count - most, most * sizeof(*self->items));
        self->count = most;
    }
    for (size_t i = 0; i < self->count; i++) {
        audit_record_t old = self->items[i].record;
        record_copy(&audit_record_record, &old, fresh, &self->items[i].record);
    }
    arena_destroy(&self->arena);
    self->arena = fresh;
}

static bool is_wanted(const wanted_t *wanted, const audit_record_t *record)
{
    return record->at >= wanted->since_ms && (!wanted->who || !strcmp(wanted->who, record->who)) &&
           (!wanted->tool || !strcmp(wanted->tool, record->tool)) &&
           (!wanted->outcome || !strcmp(wanted->outcome, record->outcome));
}

static void list_begin(void *ctx, const char *pillar, const char *company)
{
    listing_t *self = ctx;
    self->pillar = pillar;
    self->company = company;
}

static void list_row(void *ctx, const audit_chain_t *chain, const audit_row_t *row)
{
    listing_t *self = ctx;
    (void)chain;
    for (size_t i = 0; i < row->records.count; i++) {
        const audit_record_t *record = &row->records.items[i];
        if (!is_wanted(self->wanted, record))
            continue;
        if (self->count == 2 * (size_t)self->wanted->limit)
            settle(self);
        shown_t *shown = &self->items[self->count++];
        *shown = (shown_t){.at_ms = record->at,
                           .number = row->first + (int64_t)i,
                           .pillar = self->pillar,
                           .company = self->company};
        record_copy(&audit_record_record, record, self->arena, &shown->record);
    }
}

static bool list_fault(void *ctx, err_t err)
{
    listing_t *self = ctx;
    fprintf(stderr, "agency: %s/%s: %s; see agency audit verify\n", self->pillar, self->company,
            err_what(err));
    self->faults++;
    return true;
}

static void print_line(const listing_t *self, const shown_t *shown)
{
    const audit_record_t *record = &shown->record;
    printf("%s %s/%s #%" PRId64 " %s %s by %s (%s) from %s",
           record_time_text(self->arena, shown->at_ms), shown->pillar, shown->company,
           shown->number, record->tool, record->outcome, *record->who ? record->who : "the agency",
           role_names[record->role], record->door);
    for (size_t i = 0; i < record->ids.count; i++)
        printf("%s%s", i ? ", " : ": ", record->ids.items[i]);
    if (record->times > 1)
        printf(" (%" PRId64 " times)", record->times);
    putchar('\n');
}

static void put_shown(const listing_t *self, const shown_t *shown, buf_t *out)
{
    const audit_record_t *record = &shown->record;
    mp_put_map(out, 12);
    put_text(out, "at", record_time_text(self->arena, shown->at_ms));
    put_text(out, "pillar", shown->pillar);
    put_text(out, "company", shown->company);
    put_number(out, "number", shown->number);
    put_text(out, "who", record->who);
    put_text(out, "role", role_names[record->role]);
    put_text(out, "door", record->door);
    put_text(out, "tool", record->tool);
    mp_put_str(out, "ids");
    mp_put_array(out, (uint32_t)record->ids.count);
    for (size_t i = 0; i < record->ids.count; i++)
        mp_put_str(out, record->ids.items[i]);
    put_text(out, "arguments_sha256", to_hex(self->arena, record->args.data));
    put_text(out, "outcome", record->outcome);
    put_number(out, "times", record->times);
}

static int list(cli_t *cli)
{
    wanted_t wanted;
    if (!read_wanted(cli, true, &wanted))
        return EXIT_USAGE;
    listing_t self = {.cli = cli,
                      .wanted = &wanted,
                      .arena = arena_new(),
                      .items = ARENA_ARRAY(cli->arena, shown_t, 2 * (size_t)wanted.limit)};
    audit_visitor_t visitor = {
        .ctx = &self, .begin = list_begin, .row = list_row, .fault = list_fault};
    int code = audit_visit(cli, wanted.pillar, &visitor);
    settle(&self);
    buf_t out;
    buf_open(&out, cli->arena);
    mp_put_array(&out, (uint32_t)self.count);
    for (size_t i = 0; i < self.count; i++)
        if (cli->json)
            put_shown(&self, &self.items[i], &out);
        else
            print_line(&self, &self.items[i]);
    if (cli->json)
        cli_print(cli, NULL, buf_bytes(&out));
    arena_destroy(&self.arena);
    return code == EXIT_DONE && self.faults ? EXIT_REFUSED : code;
}

/* ---- verify ---- */

/* Of a log that was looked at before. */
typedef struct head {
    const char *pillar, *company, *hash;
    int64_t last;
    bool met, seen; /* the log is still there; and this record with this hash in it */
} head_t;

typedef struct verifying {
    cli_t *cli;
    const char *pillar, *company, *problem; /* of the present log */
    head_t *heads, *head;
    size_t head_count;
    buf_t out; /* what was found, for -o json */
    uint32_t count;
    int broken;
} verifying_t;

static void verify_begin(void *ctx, const char *pillar, const char *company)
{
    verifying_t *self = ctx;
    self->pillar = pillar;
    self->company = company;
    self->problem = NULL;
    self->head = NULL;
    for (size_t i = 0; i < self->head_count; i++)
        if (!strcmp(self->heads[i].pillar, pillar) && !strcmp(self->heads[i].company, company))
            self->head = &self->heads[i];
    if (self->head)
        self->head->met = true;
}

static void verify_row(void *ctx, const audit_chain_t *chain, const audit_row_t *row)
{
    verifying_t *self = ctx;
    (void)row;
    if (self->head && chain->next == self->head->last + 1)
        self->head->seen = !strcmp(to_hex(self->cli->arena, chain->head), self->head->hash);
}

static bool verify_fault(void *ctx, err_t err)
{
    verifying_t *self = ctx;
    self->problem = arena_strdup(self->cli->arena, err_what(err));
    return false;
}

/* Does the log still hold what it held when its head was kept? */
static void compare_head(verifying_t *self, const audit_chain_t *chain)
{
    arena_t *arena = self->cli->arena;
    const head_t *head = self->head;
    if (!head || head->seen || self->problem || !head->last)
        return;
    if (chain->next && chain->first > head->last)
        return; /* it is older than what is kept */
    self->problem = chain->next <= head->last
                        ? arena_printf(arena,
                                       "it ends with record %" PRId64 ", and had record %" PRId64
                                       ": its end was cut off",
                                       chain->next ? chain->next - 1 : 0, head->last)
                        : arena_printf(arena,
                                       "record %" PRId64 " is not the one that it was: the log "
                                       "was made anew",
                                       head->last);
}

static void report(verifying_t *self, int64_t first, int64_t last, const char *hash)
{
    buf_t *out = &self->out;
    bool fine = !self->problem;
    self->broken += !fine;
    self->count++;
    mp_put_map(out, fine ? 6 : 4);
    put_text(out, "pillar", self->pillar);
    put_text(out, "company", self->company);
    mp_put_str(out, "ok");
    mp_put_bool(out, fine);
    if (!fine) {
        put_text(out, "problem", self->problem);
    } else {
        put_number(out, "first", first);
        put_number(out, "last", last);
        put_text(out, "hash", hash);
    }
    if (self->cli->json)
        return;
    if (!fine)
        printf("%s/%s: BROKEN: %s\n", self->pillar, self->company, self->problem);
    else if (!last)
        printf("%s/%s: ok, no records\n", self->pillar, self->company);
    else
        printf("%s/%s: ok, records %" PRId64 " to %" PRId64 ", the hash of the last is %s\n",
               self->pillar, self->company, first, last, hash);
}

static void verify_end(void *ctx, const audit_chain_t *chain)
{
    verifying_t *self = ctx;
    compare_head(self, chain);
    report(self, chain->first, chain->next ? chain->next - 1 : 0,
           chain->next ? to_hex(self->cli->arena, chain->head) : "");
}

/* What `agency audit verify -o json` printed earlier. */
static err_t read_heads(verifying_t *self, const char *path)
{
    const char *text;
    size_t size;
    bytes_t all, one;
    arena_t *arena = self->cli->arena;
    err_t err = tool_read_file(self->cli, path, &text, &size);
    if (!err_is(err))
        err = json_to_msgpack(arena, text, size, NULL, &all);
    if (err_is(err))
        return err_make(arena, err.code, "%s: %s", path, err_what(err));
    self->heads = ARENA_ARRAY(arena, head_t, all.size + 1);
    for (uint32_t i = 0; mp_at(all, i, &one); i++) {
        head_t head = {.pillar = mp_member_text(arena, one, "pillar"),
                       .company = mp_member_text(arena, one, "company"),
                       .hash = mp_member_text(arena, one, "hash"),
                       .last = mp_member_int(one, "last")};
        if (head.pillar && head.company && head.hash)
            self->heads[self->head_count++] = head;
    }
    return self->head_count ? err_ok()
                            : err_make(arena, ERR_PARSE,
                                       "%s holds no heads: it must be what agency audit verify -o "
                                       "json printed",
                                       path);
}

/* Whole logs that are gone. */
static void miss(verifying_t *self, const char *pillar)
{
    for (size_t i = 0; i < self->head_count; i++) {
        const head_t *head = &self->heads[i];
        if (head->met || (pillar && strcmp(pillar, head->pillar) != 0) ||
            (self->cli->company && strcmp(self->cli->company, head->company) != 0))
            continue;
        self->pillar = head->pillar;
        self->company = head->company;
        self->problem = "the whole log is gone";
        report(self, 0, 0, "");
    }
}

static int verify(cli_t *cli)
{
    wanted_t wanted;
    verifying_t self = {.cli = cli};
    if (!read_wanted(cli, false, &wanted))
        return EXIT_USAGE;
    buf_open(&self.out, cli->arena);
    err_t err = wanted.heads ? read_heads(&self, wanted.heads) : err_ok();
    if (err_is(err))
        return cli_fail(err);
    audit_visitor_t visitor = {.ctx = &self,
                               .begin = verify_begin,
                               .row = verify_row,
                               .fault = verify_fault,
                               .end = verify_end};
    int code = audit_visit(cli, wanted.pillar, &visitor);
    if (code == EXIT_DONE)
        miss(&self, wanted.pillar);
    if (cli->json) {
        buf_t out;
        buf_open(&out, cli->arena);
        mp_put_array(&out, self.count);
        buf_put(&out, self.out.data, self.out.size);
        cli_print(cli, NULL, buf_bytes(&out));
    }
    return self.broken ? EXIT_REFUSED : code;
}

int cli_audit(cli_t *cli)
{
    const char *word = cli->count ? cli->words[0] : "";
    if (!strcmp(word, "list"))
        return list(cli);
    if (!strcmp(word, "verify"))
        return verify(cli);
    return cli_usage("agency audit list [PILLAR] [since=TIME] [who=NAME] [tool=TOOL] "
                     "[outcome=ok|begun|ERROR] [limit=100], or agency audit verify [PILLAR] "
                     "[heads=FILE]");
}
