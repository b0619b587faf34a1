/* shell: where a place in a shell script is: between words, in quotes, in a here document. Enough
 * of the grammar of sh to know what the shell will do with a variable that stands there; scripts
 * that are nested more deeply than it can follow are at worst split into words, never run as code.
 * Thread: pure. */
#ifndef AGENT_SHELL_H
#define AGENT_SHELL_H

#include <stdbool.h>
#include <stddef.h>

/* What becomes of a variable there. */
typedef enum shell_place {
    SHELL_WORDS,   /* replaced, and split into words unless it is quoted */
    SHELL_TEXT,    /* replaced: in double quotes, here documents, ${ } and $(( )) */
    SHELL_QUOTED,  /* not replaced: in single quotes */
    SHELL_HEREDOC, /* not replaced: in a here document with a quoted word */
    SHELL_COMMENT
} shell_place_t;

enum { SHELL_DEEPEST = 64, SHELL_HEREDOCS_MOST = 8 };

typedef struct shell_heredoc {
    const char *word;
    size_t size;
    bool quoted; /* <<'WORD': nothing is expanded inside */
    bool tabs;   /* <<- */
} shell_heredoc_t;

/* A walk through a script; the text must live as long. */
typedef struct shell {
    const char *text;
    size_t size;
    size_t at;
    char inside[SHELL_DEEPEST]; /* a stack, because "$( ... )" starts afresh inside quotes */
    size_t depth;               /* at least 1 */
    shell_heredoc_t waiting[SHELL_HEREDOCS_MOST];
    size_t waiting_count; /* opened on this line, start on the next */
    size_t heredoc;       /* 1 + index of the one we are inside, 0: none */
} shell_t;

void shell_open(shell_t *shell, const char *text, size_t size);
/* Goes on to `end`, an index into the text. */
void shell_walk(shell_t *shell, size_t end);
/* Goes on to `end` without looking: what stands between is no part of the script. */
void shell_skip(shell_t *shell, size_t end);
shell_place_t shell_place(const shell_t *shell);

#endif
