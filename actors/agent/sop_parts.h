/* sop_parts: a procedure while it is read, and what the files that read it give each other. Inside
 * sop only; users include sop.h. One parse belongs to one call of sop_parse; its memory is the
 * arena of that call. Thread: pure.
 *
 *   sop.c           the order of the work: lines, front matter, Markdown, what each step says,
 * checks sop_fields.c    `key: value` of the front matter and `key=value` behind the word of a
 * block sop_markdown.c  title, items and blocks, as CommonMark has them: the one door to libcmark
 *   sop_call.c      what a block calls: tool or procedure, its arguments, and the list of an each
 *   sop_check.c     what stands in the other blocks, and the references in all
 */
#ifndef AGENT_SOP_PARTS_H
#define AGENT_SOP_PARTS_H

#include "actors/agent/sop.h"
#include "actors/agent/span.h"

enum { SOP_NAMES_MOST = 64 /* in one list of names */ };

/* A step while it is read: which lines of the file are its own. */
typedef struct sop_item {
    sop_step_t step;
    unsigned last_line;
    unsigned fence_line; /* of the executable block, 0: none */
    unsigned fence_end;
    bool named; /* by bold lead or attribute */
} sop_item_t;

typedef struct sop_parse {
    arena_t *arena;
    const char *text;
    size_t size;
    const size_t *starts; /* of lines, from 0; one more than there are lines */
    unsigned line_count;
    size_t most_steps;
    sop_t sop;
    unsigned title_line;
    unsigned body_first; /* first line behind the front matter */
    sop_item_t *items;
    size_t count;
    bool swallowed; /* an unclosed block took what follows: say no more about it */
    sop_problem_t *problems;
    size_t problem_count;
} sop_parse_t;

/* A problem at a line. Beyond SOP_PROBLEMS_MOST they are dropped. */
void sop_wrong(sop_parse_t *parse, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void sop_warn(sop_parse_t *parse, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ": did you mean 'x'?" or "". `names` ends with NULL. */
const char *sop_hint(arena_t *arena, const char *text, const char *const *names);

/* A line from 1, without its end. Out of range: empty. */
span_t sop_line(const sop_parse_t *parse, unsigned line);

unsigned sop_newlines(const char *text, size_t size);

/* Reads the front matter, if there is one, into parse->sop; sets body_first. */
void sop_front_matter(sop_parse_t *parse);

/* Reads the attributes of a block into the step of the item. */
void sop_attributes(sop_parse_t *parse, unsigned line, span_t rest, sop_item_t *item);

/* Reads title, items and their blocks, from body_first on. */
void sop_markdown(sop_parse_t *parse);

/* Reads the body of a tool, a sop or an each block into its step. */
void sop_call_body(sop_parse_t *parse, sop_step_t *step);

/* Checks what the steps say, and fills in what they say it about: arguments, branches. All have
 * their names and prose by then. */
void sop_check(sop_parse_t *parse);

#endif
