/* tenant: one company as a whole: made, taken out, brought in, removed.
 *
 * What a company has is its folder of each pillar (store, index, procedures, souls, proposals), of
 * metrics/ and of work/, and its lines of sop_logs.ndjson. The default company's procedures, souls,
 * proposals and metrics files stand at the top of the data directory; which company that is says
 * --company, as for `agency up`.
 *
 * An export is made like a backup (backup.h) and holds just these. Import and erase need that
 * nothing runs; the file <data>/.tenant says what they are at, and while it is there nothing
 * starts: the same command given again ends what was cut off. */
#ifndef ACTORS_CLI_TENANT_H
#define ACTORS_CLI_TENANT_H

#include "actors/cli/cli.h"
#include "actors/cli/files.h"

/* In a data directory: "import NAME" or "erase NAME". */
#define TENANT_FILE ".tenant"
#define STEP_LOG "sop_logs.ndjson"

typedef enum tenant_part {
    TENANT_NOT, /* somebody else's, or everybody's */
    TENANT_WAY, /* a folder in which there may be something of it */
    TENANT_OWN  /* of the company, with everything below it */
} tenant_part_t;

/* Whose is this path of a data directory? The step log is nobody's here. */
tenant_part_t tenant_part(const cli_t *cli, const char *company, const char *path,
                          files_kind_t kind);
/* The lines of a step log that are the company's, or those that are not, behind what `to` holds;
 * on disk. No log: nothing. ERR_IO, ERR_FULL. */
err_t tenant_copy_log(arena_t *arena, const char *from, const char *to, const char *company,
                      bool own);
/* Is there a line of it? */
bool tenant_in_log(arena_t *arena, const char *log, const char *company);

/* The parts of it below a data directory or a stage, relative to that; so many as fit: call again
 * when they are gone. */
err_t tenant_parts(cli_t *cli, const char *root, const char *company, strs_t *out);
/* What is under way, "" or the text of TENANT_FILE; and set, durably: `word` NULL: nothing is. */
const char *tenant_state(cli_t *cli);
err_t tenant_set_state(cli_t *cli, const char *word, const char *company);
/* Takes the company's lines out of the step log, and puts in those of the log `own`, if any. */
err_t tenant_put_log(cli_t *cli, const char *own, const char *company);

/* `agency tenant import DIR`; the exit code. */
int tenant_import(cli_t *cli, const char *dir);

#endif
