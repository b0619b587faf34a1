/* restore_parts: what bringing back a whole backup (restore.c) and one company (tenant_import.c)
 * share. Inside these two only. Sentences live in cli->arena. Thread: the main one. */
#ifndef ACTORS_CLI_RESTORE_PARTS_H
#define ACTORS_CLI_RESTORE_PARTS_H

#include "actors/cli/backup.h"
#include "actors/cli/files.h"

typedef struct restoring {
    cli_t *cli;
    const char *from, *data, *stage, *state, *aside;
    const char *company; /* of a tenant's export; else NULL */
    bool was_default;    /* and it was the default company there */
    files_sum_t *sums;
    size_t count;
    int owners[16];
    size_t owner_count;
    uint64_t epochs[16]; /* of the present owners, in the order of the house */
    err_t err;
} restoring_t;

/* Is it a backup (`key` BACKUP_KEY) or an export (TENANT_KEY, which sets company) that this program
 * understands? Reads its list of digests. ERR_NOT_FOUND, ERR_STATE, ERR_PARSE, ERR_VERSION. */
err_t restore_read(restoring_t *self, const char *key);
/* Nobody may run on the directory; the locks are held until restore_unlock. ERR_OWNED. */
err_t restore_lock(restoring_t *self);
void restore_unlock(restoring_t *self);
/* Copies everything into the stage; each digest and each row is right when it returns OK, and the
 * epochs in it are beyond those of both lives. ERR_CORRUPT, ERR_IO, ERR_FULL. */
err_t restore_stage(restoring_t *self);
/* A small file; ERR_NOT_FOUND. */
err_t restore_text(arena_t *arena, const char *path, size_t most, const char **text, size_t *size);

#endif
