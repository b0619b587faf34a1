/* tool: calling tools by name from the command line. Thread: the main one. */
#ifndef ACTORS_CLI_TOOL_H
#define ACTORS_CLI_TOOL_H

#include "actors/cli/toolbox.h"

/* Calls it with words `key=value`, `key:=JSON`, `key=@FILE`, or bare ones in the order of what is
 * required; with --help explains it. Returns the exit code. */
int tool_call(cli_t *cli, client_t *client, const toolbox_t *list, const char *name, char **words,
              int count);

/* Connects, asks the pillars and hands over to `fn`; returns its exit code, or that of the error.
 */
int tool_with_toolbox(cli_t *cli, bool docs,
                      int (*fn)(cli_t *cli, client_t *client, const toolbox_t *list));

/* "-": standard input. ERR_ARGUMENT. */
err_t tool_read_file(cli_t *cli, const char *path, const char **text, size_t *size);

#endif
