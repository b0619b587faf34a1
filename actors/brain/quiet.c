#include "actors/brain/quiet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/memory.h"
#include "actors/brain/meta.h"

/* Fewer fresh memories cost a search less than a merge costs the disk. */
enum { QUIET_MS = 1000, FRESH_LEAST = 256 };

struct quiet {
    struct quiet *next;
    char company[65];
    uint64_t number; /* of the next memory, when it was last looked at */
};

static void on_done(void *state, void *ctx)
{
    brain_t *self = state;
    struct quiet **at = &self->quiet, *quiet = ctx;

    while (*at && *at != quiet)
        at = &(*at)->next;
    if (*at)
        *at = quiet->next;
    free(quiet);
}

static err_t look(void *state, call_t *call, void *ctx)
{
    brain_t *self = state;
    struct quiet *quiet = ctx;
    store_txn_t *txn;
    meta_counts_t counts;
    err_t err = call_read(call, quiet->company, &txn);

    if (!err_is(err) && store_count(txn, TABLE_fresh) >= FRESH_LEAST) {
        meta_counts(txn, &counts);
        if (counts.next_number != quiet->number) {
            quiet->number = counts.next_number;
            call_work(call, QUIET_MS, look, quiet);
            return err_ok();
        }
        err = memory_merge(self, call, quiet->company);
    }
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err; /* and later again */
    call_after_commit(call, on_done, quiet);
    return err_ok();
}

static void on_stored(void *state, void *company)
{
    brain_t *self = state;
    struct quiet *quiet = self->quiet;

    while (quiet && strcmp(quiet->company, company) != 0)
        quiet = quiet->next;
    if (quiet)
        return;
    quiet = calloc(1, sizeof *quiet);
    if (!quiet)
        abort();
    snprintf(quiet->company, sizeof quiet->company, "%s", (const char *)company);
    quiet->next = self->quiet;
    self->quiet = quiet;
    actor_work(self->actor, QUIET_MS, look, quiet);
}

void quiet_wake(brain_t *self, call_t *call, const char *company)
{
    (void)self;
    call_after_commit(call, on_stored, arena_strdup(call_arena(call), company));
}

void quiet_found(brain_t *self, call_t *call, store_txn_t *txn, const char *company)
{
    if (store_count(txn, TABLE_fresh) >= FRESH_LEAST)
        quiet_wake(self, call, company);
}

void quiet_stop(brain_t *self)
{
    while (self->quiet) {
        struct quiet *quiet = self->quiet;
        self->quiet = quiet->next;
        free(quiet);
    }
}
