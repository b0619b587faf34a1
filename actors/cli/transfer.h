/* transfer: a company's memory to a file and back. */
#ifndef ACTORS_CLI_TRANSFER_H
#define ACTORS_CLI_TRANSFER_H

#include "actors/cli/cli.h"

/* `out`: writes everything remembered into the file; else takes what is in it. Goes on where it
 * was killed. `path` NULL: standard output or input, from the beginning. Returns the exit code. */
int cli_brain_file(cli_t *cli, bool out, const char *path);

#endif
