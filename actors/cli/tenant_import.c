/* tenant_import: see tenant.h. Copied and checked aside first; then the parts move in, one after
 * the other, which can be ended by a second life. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "actors/cli/restore_parts.h"
#include "actors/cli/tenant.h"

static err_t move(restoring_t *self, const char *path)
{
    arena_t *arena = self->cli->arena;
    const char *from = arena_printf(arena, "%s/%s", self->stage, path);
    const char *to = arena_printf(arena, "%s/%s", self->data, path);
    err_t err = files_make_dir(arena, files_parent(arena, to));
    if (!err_is(err) && rename(from, to))
        err = err_make(arena, ERR_IO, "cannot move %s to %s: %s", from, to, strerror(errno));
    return err_is(err) ? err : files_sync_dir(arena, files_parent(arena, to));
}

/* The present owners' epochs, made larger than those of the company's earlier life. */
static err_t move_owners(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    err_t err = err_ok();
    for (const cli_actor_t *at = self->cli->house->actors; at->def && !err_is(err); at++) {
        const char *path = arena_printf(arena, "%s/owner", at->def->name);
        if (files_kind(arena_printf(arena, "%s/%s", self->stage, path)) == FILES_PLAIN)
            err = move(self, path);
    }
    return err;
}

static err_t move_in(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    strs_t parts;
    err_t err = tenant_parts(self->cli, self->stage, self->company, &parts);
    while (!err_is(err) && parts.count) {
        for (size_t i = 0; i < parts.count && !err_is(err); i++)
            err = move(self, parts.items[i]);
        if (!err_is(err))
            err = tenant_parts(self->cli, self->stage, self->company, &parts);
    }
    /* Gone: an earlier life put it in place. */
    const char *log = arena_printf(arena, "%s/" STEP_LOG, self->stage);
    if (!err_is(err) && files_kind(log) == FILES_PLAIN)
        err = tenant_put_log(self->cli, log, self->company);
    if (!err_is(err))
        err = move_owners(self);
    if (!err_is(err))
        err = files_remove(arena, self->stage);
    return err_is(err) ? err : tenant_set_state(self->cli, NULL, self->company);
}

static err_t check_free(restoring_t *self)
{
    strs_t parts;
    cli_t *cli = self->cli;
    bool top = !strcmp(self->company, cli->company ? cli->company : "default");
    if (top != self->was_default)
        return err_make(cli->arena, ERR_STATE,
                        "%s %s the default company where it was exported, and %s here: --company "
                        "says which one is",
                        self->company, self->was_default ? "was" : "was not",
                        top ? "is" : "is not");
    err_t err = tenant_parts(cli, self->data, self->company, &parts);
    if (!err_is(err) && parts.count)
        err = err_make(cli->arena, ERR_EXISTS,
                       "there is a company '%s' in %s already: erase it first (agency tenant erase "
                       "%s), or use another --data",
                       self->company, self->data, self->company);
    return err;
}

/* The stage is whole once the state says import. */
static bool read_state(restoring_t *self)
{
    const char *state = tenant_state(self->cli);
    if (strncmp(state, "import ", 7) != 0)
        return false;
    self->company = state + 7;
    return frame_company_name(self->company);
}

static err_t bring_in(restoring_t *self, bool *resumed)
{
    arena_t *arena = self->cli->arena;
    *resumed = read_state(self);
    err_t err = *resumed ? err_ok() : cli_check_restored(self->cli);
    if (!err_is(err) && !*resumed)
        err = restore_read(self, TENANT_KEY);
    if (!err_is(err))
        err = files_make_dir(arena, self->data);
    if (!err_is(err))
        err = restore_lock(self);
    if (!err_is(err) && !*resumed) {
        err = check_free(self);
        if (!err_is(err))
            err = restore_stage(self);
        if (!err_is(err))
            err = tenant_set_state(self->cli, "import", self->company);
    }
    return err_is(err) ? err : move_in(self);
}

int tenant_import(cli_t *cli, const char *dir)
{
    arena_t *arena = cli->arena;
    restoring_t self = {.cli = cli,
                        .from = backup_dir(arena, dir),
                        .data = cli->data_dir,
                        .stage = arena_printf(arena, "%s/" STAGE_DIR, cli->data_dir)};
    bool resumed;
    buf_t out;
    err_t err = bring_in(&self, &resumed);
    restore_unlock(&self);
    if (err_is(err))
        return cli_fail(err);
    buf_open(&out, arena);
    mp_put_map(&out, 2);
    mp_put_str(&out, "imported");
    mp_put_str(&out, self.company);
    mp_put_str(&out, "resumed");
    mp_put_bool(&out, resumed);
    cli_print(cli,
              arena_printf(arena, "%s is in %s%s", self.company, self.data,
                           resumed ? " (an interrupted import was finished)" : ""),
              buf_bytes(&out));
    return EXIT_DONE;
}
