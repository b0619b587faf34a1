/* toolbox: which pillar has which tool, and the types of its arguments, as describe says; nothing
 * is known by heart. Everything lives as long as cli->arena. Thread: the main one. */
#ifndef ACTORS_CLI_TOOLBOX_H
#define ACTORS_CLI_TOOLBOX_H

#include "actors/cli/cli.h"

typedef struct tool {
    const char *pillar;
    bytes_t row; /* as describe gives it */
} tool_t;

typedef struct toolbox {
    tool_t *tools;
    size_t count;
    const char **names;  /* ends with NULL */
    const char *missing; /* a pillar that did not answer, or NULL */
} toolbox_t;

/* Asks every pillar of `up`; with `docs` for the pages about arguments too. ERR_UNAVAILABLE when
 * none answers. */
err_t toolbox_load(cli_t *cli, client_t *client, bool docs, toolbox_t *list);
const tool_t *toolbox_find(const toolbox_t *list, const char *name);
/* ERR_METHOD with the nearest name. */
err_t toolbox_no_such(cli_t *cli, const toolbox_t *list, const char *name);

/* A call by the person at this terminal; the arguments are still empty. */
client_call_t toolbox_call(cli_t *cli, const char *pillar, const char *method);

/* The entries of a msgpack container; 0 of nothing. */
uint32_t tool_count(bytes_t container);

#endif
