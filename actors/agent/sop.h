/* sop: a procedure in Markdown, read into steps.
 *
 * A title, prose, optional front matter, and a numbered list; each item is a step. docs/sop.md is
 * the user's reference. The file is read with libcmark, so what counts as a list or a block is
 * what CommonMark says.
 *
 * Problems carry the line of the file and say what to change. All are collected, up to
 * SOP_PROBLEMS_MOST. A warning does not keep the procedure from running.
 * Everything returned lives in the given arena. Thread: pure.
 */
#ifndef AGENT_SOP_H
#define AGENT_SOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/err.h"

/* Kinds of steps. Columns: constant, word behind the ``` ("" prose only), doc. */
#define SOP_KIND_ROWS(K)                                                                           \
    K(LLM, "", "Prose only: done by a model, or completed by a person or client.")                 \
    K(TOOL, "tool", "A call of a tool: its name and its arguments.")                               \
    K(SH, "sh", "A shell script, run by a worker.")                                                \
    K(WAIT, "wait", "A pause: for a duration or until a time.")                                    \
    K(APPROVE, "approve", "A person must approve before the run goes on.")                         \
    K(EACH, "each", "The same call of a tool or procedure for each item of a list.")               \
    K(IF, "if", "A branch: a condition, and the later step to go to.")                             \
    K(SOP, "sop", "Another procedure, run inside this one.")

typedef enum sop_kind {
#define SOP_KIND_ENUM(name, word, doc) SOP_##name,
    SOP_KIND_ROWS(SOP_KIND_ENUM)
#undef SOP_KIND_ENUM
        SOP_KIND_COUNT
} sop_kind_t;

typedef struct sop_kind_info {
    const char *name; /* "llm", "tool" ... */
    const char *word;
    const char *doc;
} sop_kind_info_t;

const sop_kind_info_t *sop_kind_info(sop_kind_t kind);

/* What may be done with an effect of which nobody knows whether it happened. */
#define SOP_REPLAY_ROWS(R)                                                                         \
    R(UNSAID, "", "As the tool says; a script counts as manual.")                                  \
    R(SAFE, "safe", "Doing it twice does no harm: do it again.")                                   \
    R(KEYED, "keyed", "The receiver knows the effect id and ignores a repetition: do it again.")   \
    R(CHECK, "check", "A person looks first.")                                                     \
    R(MANUAL, "manual", "Never on its own: a person decides.")

typedef enum sop_replay {
#define SOP_REPLAY_ENUM(name, word, doc) SOP_REPLAY_##name,
    SOP_REPLAY_ROWS(SOP_REPLAY_ENUM)
#undef SOP_REPLAY_ENUM
        SOP_REPLAY_COUNT
} sop_replay_t;

const char *sop_replay_name(sop_replay_t replay);

enum {
    SOP_BYTES_LARGEST = 256 * 1024,
    SOP_BYTES_CEILING = 4 << 20, /* the option goes no further */
    SOP_STEPS_MOST = 200,
    SOP_STEPS_CEILING = 2000,
    SOP_DEPTH_DEEPEST = 32, /* of Markdown blocks inside each other */
    SOP_TITLE_LONGEST = 200,
    SOP_PARALLEL_MOST = 64,
    SOP_PROBLEMS_MOST = 100
};

/* 0 is the default of each, above; larger than the ceiling counts as the ceiling. */
typedef struct sop_options {
    size_t largest_bytes;
    size_t most_steps;
} sop_options_t;

typedef struct sop_names {
    const char *const *items;
    size_t count;
} sop_names_t;

/* An entry of `inputs:`. */
typedef struct sop_input {
    const char *name;
    bool optional; /* written name? */
} sop_input_t;

typedef struct sop_step {
    const char *name;  /* slug, unique in the procedure */
    const char *title; /* as written, for people */
    unsigned line;     /* of the item */
    sop_kind_t kind;
    const char *prose; /* Markdown of the item without its executable block; "" when none */
    unsigned prose_line;
    const char *body; /* the executable block as written, "" for prose only */
    size_t body_size;
    unsigned body_line; /* its first line */

    /* tool, sop, and each: the one or the other */
    const char *tool;
    const char *procedure; /* its name, without .md */
    bytes_t args; /* msgpack map, of a procedure also one text; strings may hold references */

    /* each */
    bytes_t list;     /* msgpack array, or a text that is one reference */
    bool goes_on;     /* on_error=continue: behind an item that failed too */
    int64_t parallel; /* runs of the procedure at the same time; 0: not said */

    /* if */
    const char *condition;
    size_t then_at, else_at; /* index of the step to go on with; step_count: the end */

    /* attributes; 0 and empty mean: not said */
    sop_replay_t replay;
    int64_t timeout_ms;
    int64_t output_bytes;
    int64_t retries; /* -1: not said */
    sop_names_t env;
} sop_step_t;

typedef struct sop {
    const char *title;
    const char *description; /* Markdown between the title and the first step */
    const sop_step_t *steps;
    size_t step_count;

    /* front matter; 0 and empty mean: not said */
    const sop_input_t *inputs;
    size_t input_count;
    int64_t max_steps;
    int64_t max_wall_ms;
    int64_t max_tokens;
    int64_t max_calls;
    sop_names_t env;
    sop_names_t hosts;
    sop_names_t tools; /* of foreign servers, for prose: SERVER/TOOL, or the server with a star */
    const char *cwd;   /* NULL: the workspace of the run */
} sop_t;

typedef struct sop_problem {
    unsigned line; /* from 1 */
    bool warning;
    const char *what;
} sop_problem_t;

/* Reads a procedure. `options` may be NULL. `*problems` is in order of lines and may hold warnings
 * also on success. ERR_ARGUMENT when any is not a warning (`what` repeats the first, with its
 * line), ERR_TOO_LARGE; `*out` is then NULL. */
err_t sop_parse(arena_t *arena, const char *markdown, size_t size, const sop_options_t *options,
                const sop_t **out, const sop_problem_t **problems, size_t *count);

/* The name of a kind, a replay, a problem list for people: one "line N: ..." each. */
const char *sop_problems_text(arena_t *arena, const sop_problem_t *problems, size_t count);

/* What the caller gave, as the input of a run: the text of a JSON object counts as that object;
 * with `inputs:` of one required name, any other text is the value of that name. `given` is
 * msgpack, size 0: nil. ERR_ARGUMENT names an input that is missing or unknown. */
err_t sop_input(arena_t *arena, const sop_t *sop, bytes_t given, bytes_t *input);

/* "500ms", "90s", "10m", "1h30m", "2d" in ms; from 1 ms to 366 days. */
bool sop_duration(const char *text, int64_t *ms);

/* Where in the body of an each the call begins, behind the list; its size when there is none. */
size_t sop_call_at(const sop_step_t *step);

/* When a wait ends, in ms since 1970. `text` is the body after its references are replaced: a
 * duration counted from `now_ms`, or a time (RFC 3339, or ms since 1970), with or without the word
 * "until". ERR_ARGUMENT. */
err_t sop_wait(arena_t *arena, const char *text, int64_t now_ms, int64_t *until_ms);

#endif
