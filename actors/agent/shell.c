#include "actors/agent/shell.h"

#include <ctype.h>
#include <string.h>

/* What shell->inside holds. */
typedef enum place {
    PLAIN,
    DOUBLE,   /* "..." */
    SINGLE,   /* '...' */
    COMMAND,  /* $( ... ) or ( ... ), plain again */
    BACKTICK, /* `...`, plain again */
    BRACES,   /* ${ ... } */
    ARITH,    /* each ( of $(( ... )) */
    COMMENT   /* # to the end of the line */
} place_t;

static place_t here(const shell_t *shell)
{
    return (place_t)shell->inside[shell->depth - 1];
}

/* Deeper than the stack: stay; worst case a value is split into words, never run. */
static void enter(shell_t *shell, place_t place)
{
    if (shell->depth < SHELL_DEEPEST)
        shell->inside[shell->depth++] = (char)place;
}

static void leave(shell_t *shell)
{
    if (shell->depth > 1)
        shell->depth--;
}

static char peek(const shell_t *shell, size_t ahead)
{
    return shell->at + ahead < shell->size ? shell->text[shell->at + ahead] : '\0';
}

/* Of the word that ends a here document. */
static bool in_word(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("_-.", c)) || (unsigned char)c >= 0x80;
}

/* Is the line at `at` the end of this here document? */
static bool ends_heredoc(const shell_t *shell, const shell_heredoc_t *doc, size_t at)
{
    while (doc->tabs && at < shell->size && shell->text[at] == '\t')
        at++;
    if (shell->size - at < doc->size || memcmp(shell->text + at, doc->word, doc->size) != 0)
        return false;
    at += doc->size;
    return at == shell->size || shell->text[at] == '\n' || shell->text[at] == '\r';
}

/* `at` is behind a newline: begin or end here documents. */
static void on_line(shell_t *shell)
{
    if (!shell->heredoc) {
        shell->heredoc = shell->waiting_count ? 1 : 0;
        if (!shell->heredoc)
            return;
    }
    if (!ends_heredoc(shell, &shell->waiting[shell->heredoc - 1], shell->at))
        return;
    while (shell->at < shell->size && shell->text[shell->at] != '\n')
        shell->at++;
    if (shell->heredoc++ == shell->waiting_count)
        shell->heredoc = shell->waiting_count = 0;
}

/* `at` is on <<: note the word. */
static void open_heredoc(shell_t *shell)
{
    shell_heredoc_t doc = {0};
    shell->at += 2;
    if (peek(shell, 0) == '-') {
        doc.tabs = true;
        shell->at++;
    }
    while (peek(shell, 0) == ' ' || peek(shell, 0) == '\t')
        shell->at++;
    char quote = peek(shell, 0);
    doc.quoted = quote == '\'' || quote == '"' || quote == '\\';
    if (doc.quoted)
        shell->at++;
    doc.word = shell->text + shell->at;
    while (in_word(peek(shell, 0))) {
        doc.size++;
        shell->at++;
    }
    if (doc.quoted && quote != '\\' && peek(shell, 0) == quote)
        shell->at++;
    if (doc.size && !isdigit((unsigned char)*doc.word) &&
        shell->waiting_count < SHELL_HEREDOCS_MOST)
        shell->waiting[shell->waiting_count++] = doc;
}

/* A # begins a comment only where a word could begin. */
static bool begins_comment(const shell_t *shell)
{
    return shell->text[shell->at] == '#' &&
           (!shell->at || strchr(" \t\n;&|()", shell->text[shell->at - 1]));
}

/* One character of script outside quotes. */
static void step_plain(shell_t *shell)
{
    char c = peek(shell, 0);
    if (c == '\'')
        enter(shell, SINGLE);
    else if (c == '"')
        enter(shell, DOUBLE);
    else if (begins_comment(shell))
        enter(shell, COMMENT);
    else if (c == '(')
        enter(shell, COMMAND);
    else if (c == ')' && here(shell) == COMMAND)
        leave(shell);
    else if (c == '<' && peek(shell, 1) == '<' && peek(shell, 2) != '<') {
        open_heredoc(shell);
        return;
    }
    shell->at++;
}

/* One character, in quotes or not; \ has been dealt with. */
static void step_script(shell_t *shell)
{
    char c = peek(shell, 0);
    place_t place = here(shell);
    if (place == SINGLE || place == COMMENT) {
        if ((place == SINGLE && c == '\'') || (place == COMMENT && c == '\n'))
            leave(shell);
        shell->at += place == SINGLE || c != '\n';
        return;
    }
    if (c == '$' && peek(shell, 1) == '(' && peek(shell, 2) == '(') {
        enter(shell, ARITH);
        enter(shell, ARITH);
        shell->at += 3;
    } else if (c == '$' && (peek(shell, 1) == '(' || peek(shell, 1) == '{')) {
        enter(shell, peek(shell, 1) == '(' ? COMMAND : BRACES);
        shell->at += 2;
    } else if (c == '`') {
        if (place == BACKTICK)
            leave(shell);
        else
            enter(shell, BACKTICK);
        shell->at++;
    } else if (place == ARITH) {
        if (c == '(')
            enter(shell, ARITH);
        else if (c == ')')
            leave(shell);
        shell->at++;
    } else if (place == DOUBLE || place == BRACES) {
        if (c == (place == DOUBLE ? '"' : '}'))
            leave(shell);
        shell->at++;
    } else {
        step_plain(shell);
    }
}

void shell_walk(shell_t *shell, size_t end)
{
    while (shell->at < end) {
        char c = peek(shell, 0);
        bool escapes = !shell->heredoc && here(shell) != SINGLE && here(shell) != COMMENT;
        if (c == '\n' && here(shell) != COMMENT) {
            shell->at++;
            if (here(shell) != SINGLE && here(shell) != DOUBLE)
                on_line(shell);
        } else if (shell->heredoc) {
            shell->at++;
        } else if (c == '\\' && escapes) {
            shell->at += 2;
        } else {
            step_script(shell);
        }
    }
}

void shell_open(shell_t *shell, const char *text, size_t size)
{
    *shell = (shell_t){.text = text, .size = size, .inside = {PLAIN}, .depth = 1};
}

void shell_skip(shell_t *shell, size_t end)
{
    shell->at = end;
}

shell_place_t shell_place(const shell_t *shell)
{
    if (shell->heredoc)
        return shell->waiting[shell->heredoc - 1].quoted ? SHELL_HEREDOC : SHELL_TEXT;
    switch (here(shell)) {
    case COMMENT:
        return SHELL_COMMENT;
    case SINGLE:
        return SHELL_QUOTED;
    case DOUBLE:
    case BRACES:
    case ARITH:
        return SHELL_TEXT;
    default:
        return SHELL_WORDS;
    }
}
