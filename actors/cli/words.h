/* words: `agency GROUP WORD …`, the short names of tools. Thread: the main one. */
#ifndef ACTORS_CLI_WORDS_H
#define ACTORS_CLI_WORDS_H

#include "actors/cli/toolbox.h"

typedef struct word {
    const char *name, *tool;
} word_t;

/* The words of a group whose tools there are, ending with a NULL name; they live in cli->arena. */
const word_t *words_of(cli_t *cli, const toolbox_t *list, const char *group);

#endif
