/* backup: `agency store backup DIR` and `agency store restore DIR`.
 *
 * A backup is a data directory, with a list of digests beside it. Each store is copied as of one
 * commit, while it is in use: its owner starts the copying, or we do when it is down. Stores come
 * first and the plain files after them, so that a file is never older than what a store says about
 * it. Everything is made in DIR.partial-…, which becomes DIR when all of it is on disk.
 *
 * A restore copies into <data>/.restore, checks every digest and every row, and only then swaps:
 * what was there moves to <data>/before-restore-TIME, then the copy moves in. The file
 * <data>/.restoring says how far that is; while it is there nothing starts. */
#ifndef ACTORS_CLI_BACKUP_H
#define ACTORS_CLI_BACKUP_H

#include "actors/cli/cli.h"

enum { BACKUP_FORMAT = 1 };
/* What the head calls its format: a program that knows no tenants must not take an export for the
 * whole. */
#define BACKUP_KEY "backup_format"
#define TENANT_KEY "tenant_format"

/* In a backup: what it is, and the digests of everything in it. */
#define HEAD_FILE "backup.json"
#define SUMS_FILE "SHA256SUMS"
/* In one that is not finished; locked by whoever makes it. */
#define MARK_FILE ".backup-under-way"
/* In a data directory. */
#define STAGE_DIR ".restore"
#define STATE_FILE ".restoring"
#define ASIDE_DIR "before-restore-"

/* The same of one company, as a tenant's export; the exit code. */
int backup_company(cli_t *cli, const char *dir, const char *company);

bool backup_begins(const char *text, const char *start);
/* The name without slashes at its end. */
const char *backup_dir(arena_t *arena, const char *dir);

#endif
