#include "actors/cli/audit_logs.h"

#include <stdio.h>
#include <string.h>

#include "actors/cli/files.h"
#include "proto/mp.h"

/* Where the logs of one pillar come from: its files, or itself. */
typedef struct source {
    cli_t *cli;
    const actor_def_t *def;
    store_pool_t *pool;
    client_t *client;
    arena_t *page;
} source_t;

static err_t ask(source_t *self, const char *company, int64_t from, client_reply_t *reply)
{
    buf_t args;
    buf_open(&args, self->page);
    mp_put_map(&args, company ? 2 : 0);
    if (company) {
        mp_put_str(&args, "company");
        mp_put_str(&args, company);
        mp_put_str(&args, "from");
        mp_put_int(&args, from);
    }
    client_call_t call = {.peer = self->def->name,
                          .method = arena_printf(self->page, "%s.audit", self->def->name),
                          .role = ROLE_ADMIN,
                          .args = buf_bytes(&args),
                          .timeout_ms = self->cli->timeout_ms};
    *reply = client_call(self->client, self->page, &call);
    return reply->err;
}

static err_t read_page(source_t *self, const char *company, int64_t from, audit_kept_list_t *out)
{
    client_reply_t reply;
    bytes_t rows, row;
    uint32_t count = 0;
    if (self->pool)
        return audit_read(self->def, self->pool, company, from, self->page, out);
    err_t err = ask(self, company, from, &reply);
    if (err_is(err))
        return err;
    rows = mp_member(reply.body, "rows");
    mp_value_t head = {.count = 0};
    mp_reader_t reader = mp_reader(rows);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return err_of(ERR_PARSE, "the answer has no rows");
    out->items = ARENA_ARRAY(self->page, audit_kept_t, rows.size / 2 + 1);
    while (count < head.count && mp_slice(&reader, &row)) {
        err = record_decode(&audit_kept_record, row, self->page, "field", &out->items[count++]);
        if (err_is(err))
            return err;
    }
    out->count = count;
    return err;
}

static void take_rows(source_t *self, const audit_kept_list_t *rows, audit_chain_t *chain,
                      const audit_visitor_t *visitor, bool *more)
{
    for (size_t i = 0; i < rows->count && *more; i++) {
        const audit_kept_t *kept = &rows->items[i];
        audit_row_t row;
        err_t err = audit_chain_take(chain, kept->number, kept->value, self->page, &row);
        if (err_is(err)) {
            *more = visitor->fault(visitor->ctx, err);
            *chain = (audit_chain_t){.first = chain->first};
            if (!*more ||
                err_is(audit_chain_take(chain, kept->number, kept->value, self->page, &row)))
                continue;
        }
        if (visitor->row)
            visitor->row(visitor->ctx, chain, &row);
    }
}

static err_t visit_log(source_t *self, const char *company, const audit_visitor_t *visitor)
{
    audit_chain_t chain = {0};
    audit_kept_list_t rows = {0};
    int64_t from = 0;
    bool more = true;
    err_t err = err_ok();
    if (visitor->begin)
        visitor->begin(visitor->ctx, self->def->name, company);
    while (more) {
        arena_reset(self->page);
        err = read_page(self, company, from, &rows);
        if (err_is(err) || !rows.count)
            break;
        from = rows.items[rows.count - 1].number + 1;
        take_rows(self, &rows, &chain, visitor, &more);
    }
    if (err.code == ERR_NOT_FOUND)
        err = err_ok();
    if (!err_is(err) && visitor->end)
        visitor->end(visitor->ctx, &chain);
    if (err_is(err))
        err.what = arena_strdup(self->cli->arena, err_what(err));
    return err;
}

static err_t list_companies(source_t *self, strs_t *out)
{
    client_reply_t reply;
    bytes_t list, item;
    arena_t *arena = self->cli->arena;
    if (self->pool)
        return store_pool_companies(self->pool, arena, out);
    err_t err = ask(self, NULL, 0, &reply);
    if (err_is(err))
        return err_make(arena, err.code, "%s", err_what(err));
    list = mp_member(reply.body, "companies");
    const char **names = ARENA_ARRAY(arena, const char *, list.size + 1);
    *out = (strs_t){names, 0};
    for (uint32_t i = 0; mp_at(list, i, &item); i++)
        names[out->count++] = mp_text(arena, item);
    return err;
}

static err_t visit_pillar(source_t *self, const audit_visitor_t *visitor)
{
    strs_t companies;
    err_t err = list_companies(self, &companies);
    for (size_t i = 0; i < companies.count && !err_is(err); i++)
        if (!self->cli->company || !strcmp(self->cli->company, companies.items[i]))
            err = visit_log(self, companies.items[i], visitor);
    return err;
}

/* The files when nobody owns them. False: there is nothing of this pillar here. */
static bool open_source(source_t *self, err_t *err)
{
    cli_t *cli = self->cli;
    bool away = cli_is_away(cli, self->def->name);
    const char *dir = arena_printf(cli->arena, "%s/%s", cli->data_dir, self->def->name);
    *err = err_ok();
    if (!away && files_kind(dir) != FILES_DIR)
        return false;
    if (!away)
        *err = actor_store_open(self->def, cli->data_dir, cli->arena, &self->pool);
    if (away || err->code == ERR_OWNED)
        *err = cli_client(cli, &self->client);
    return true;
}

int audit_visit(cli_t *cli, const char *pillar, const audit_visitor_t *visitor)
{
    int code = EXIT_DONE;
    bool any = false;
    for (const cli_actor_t *at = cli->house->actors; at->def; at++) {
        source_t self = {.cli = cli, .def = at->def};
        err_t err;
        if (!at->def->tables || (pillar && strcmp(pillar, at->def->name) != 0) ||
            !open_source(&self, &err))
            continue;
        any = true;
        self.page = arena_new();
        if (!err_is(err))
            err = visit_pillar(&self, visitor);
        if (err_is(err))
            code = cli_fail(err_make(cli->arena, err.code, "%s: %s", at->def->name, err_what(err)));
        if (self.pool)
            store_pool_close(&self.pool);
        if (self.client)
            client_close(&self.client);
        arena_destroy(&self.page);
    }
    if (any)
        return code;
    const cli_actor_t *named = pillar ? cli_find_actor(cli, pillar) : NULL;
    if (pillar && (!named || !named->def->tables))
        return cli_usage("there is no pillar with a store called '%s'", pillar);
    return cli_fail(err_make(cli->arena, ERR_NOT_FOUND, "there is no data of %s in %s",
                             pillar ? pillar : "any pillar", cli->data_dir));
}
