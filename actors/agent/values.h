/* values: {{references}} in a procedure and what they stand for.
 *
 * A reference is {{root}} or {{root.path}}, with filters behind it:
 *
 *     {{input}}  {{input.files[0].name}}  {{input["odd key"]}}  {{input['odd key']}}
 *     {{steps.NAME.result}}  {{steps.NAME.result.FIELD}}
 *     {{run.id}}  {{company}}
 *     {{item}}  {{item.FIELD}}  {{index}}     in an ```each
 *     | default(text)   when the value is absent or null
 *     | json            the value as JSON text
 *     | lines           a text as the list of its lines, blank ones left out
 *     | shell           the value as one quoted word for a shell
 *
 * NAME is the slug of a step name (see value_slug); any spelling with the same slug will do.
 * \{{ is a plain {{. Values and templates are msgpack, results are exact: no number is rounded.
 * Everything returned lives in the given arena, or in the values. Thread: pure.
 */
#ifndef AGENT_VALUES_H
#define AGENT_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/err.h"

enum {
    VALUE_PATH_LONGEST = 16,            /* keys and indexes in one reference */
    VALUE_FILTERS_MOST = 4,             /* filters in one reference */
    VALUE_NAME_LONGEST = 64,            /* bytes of a slug */
    VALUE_TEXT_LARGEST = 4 << 20,       /* default limit of one expanded text or tree */
    VALUE_VARIABLE_LARGEST = 96 * 1024, /* the kernel takes 128 KiB for one variable */
    VALUE_VARIABLES_LARGEST = 1 << 20   /* all variables of one script */
};

/* The result of a finished step. */
typedef struct value_step {
    const char *name; /* slug */
    bytes_t result;   /* msgpack */
    bool refused;     /* in a simulated run: it has no result */
} value_step_t;

/* What references may name. */
typedef struct values {
    bytes_t input; /* msgpack; size 0: nil */
    const char *run_id;
    const char *company;
    const value_step_t *steps;
    size_t step_count;
    const bytes_t *item; /* of an ```each, with its place from 0; NULL: none */
    int64_t index;
    size_t largest_bytes; /* of an expansion; 0: VALUE_TEXT_LARGEST */
} values_t;

typedef enum value_root {
    VALUE_INPUT,
    VALUE_STEP,
    VALUE_RUN_ID,
    VALUE_COMPANY,
    VALUE_ITEM,
    VALUE_INDEX
} value_root_t;

typedef enum value_filter { VALUE_DEFAULT, VALUE_JSON, VALUE_SHELL, VALUE_LINES } value_filter_t;

/* One way down into a value: by key, or by index where key is NULL. */
typedef struct value_hop {
    const char *key;
    uint32_t index;
} value_hop_t;

typedef struct value_ref {
    const char *text; /* as written between the braces, without outer spaces */
    size_t start;     /* where {{ begins in the template, and where }} ends */
    size_t end;
    value_root_t root;
    const char *step; /* VALUE_STEP: the slug */
    value_hop_t path[VALUE_PATH_LONGEST];
    size_t path_count;
    value_filter_t filters[VALUE_FILTERS_MOST];
    size_t filter_count;
    bytes_t fallback; /* of default(...): a msgpack scalar; size 0: no default */
} value_ref_t;

/* The next reference at or after `*at`; moves `*at` behind it. `*found` is false at the end.
 * ERR_ARGUMENT when braces hold no reference: says which and how to write it; `*at` is then
 * behind the faulty braces, so that a checker can go on. */
err_t value_next(arena_t *arena, const char *text, size_t size, size_t *at, value_ref_t *ref,
                 bool *found);

/* Lower case, every run of other characters than letters, digits and non-ASCII as one _, none at
 * the ends. May be empty; at most VALUE_NAME_LONGEST bytes. */
const char *value_slug(arena_t *arena, const char *text, size_t size);

/* Is the text one reference and nothing else? Then it is in `*ref`. */
bool value_is_ref(arena_t *arena, const char *text, size_t size, value_ref_t *ref);

/* The value of a reference, its own type; filters applied (json and shell make a str).
 * ERR_NOT_FOUND names the reference and what is missing; ERR_STATE: it is of a refused step;
 * ERR_ARGUMENT: a filter does not fit. */
err_t value_get(arena_t *arena, const values_t *values, const value_ref_t *ref, bytes_t *value);

/* Appends the text with every reference replaced: a str as it is, null as nothing, anything else
 * as JSON. ERR_ARGUMENT, ERR_NOT_FOUND, ERR_STATE, ERR_TOO_LARGE. */
err_t values_text(arena_t *arena, const values_t *values, const char *text, size_t size,
                  buf_t *out);

/* Appends a msgpack tree with the references in its strings replaced. A string that is exactly one
 * reference becomes the value with its own type; keys of maps stay as they are.
 * Errors as values_text; ERR_PARSE when the template is no msgpack. */
err_t values_tree(arena_t *arena, const values_t *values, bytes_t tree, buf_t *out);

/* Appends a value as values_text does. ERR_PARSE. */
err_t value_put_text(bytes_t value, buf_t *out);
/* Appends text between references, \{{ as {{. */
void value_put_literal(buf_t *out, const char *text, size_t size);

/* A variable that a script needs in its environment. */
typedef struct value_variable {
    const char *name;
    const char *value;
} value_variable_t;

typedef struct value_script {
    const char *text;
    const value_variable_t *variables;
    size_t count;
    size_t at; /* how far the text was read; after an error: where it is */
} value_script_t;

/* A shell script in which each reference stands for a variable, VALUE_1 and so on: the value
 * travels in the environment and is never part of the text that the shell reads as code, whatever
 * the quotes around it. Outside quotes the reference is one word; inside double quotes and here
 * documents it is text; inside single quotes, quoted here documents and comments of the script it
 * cannot work: ERR_ARGUMENT (a comment keeps it as it is). A value that holds a NUL or is over
 * VALUE_VARIABLE_LARGEST is ERR_ARGUMENT, ERR_TOO_LARGE. `values` NULL only checks the places. */
err_t values_script(arena_t *arena, const values_t *values, const char *text, size_t size,
                    value_script_t *out);

#endif
