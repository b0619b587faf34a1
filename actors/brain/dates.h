/* dates: when a memory was, as terms of the words index, and which of these terms a question means.
 *
 * A time gives the terms @2024-05-17 @-05-17 @2024-05 @-05 @2024 @w5 (Friday). No word begins with
 * @, so they meet no word. A question is read in English, German, French, Spanish, Italian,
 * Portuguese, Dutch, Russian, Chinese, Japanese and Korean: "in May 2023", "17.05.2024",
 * "12/24/2024", "Q3 2024", "yesterday", "vor drei Wochen", "last Tuesday", "3月", "上周". Days are
 * those of UTC. Thread: pure.
 */
#ifndef ACTORS_BRAIN_DATES_H
#define ACTORS_BRAIN_DATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"

typedef struct date_term {
    const char *term; /* in the arena */
    float boost;      /* above 0, at most 1: how surely the question means it */
} date_term_t;

enum { DATES_MAX = 64, DATES_OF = 6 };

typedef struct date_terms {
    date_term_t items[DATES_MAX];
    size_t count;
} date_terms_t;

/* The terms of a time, each once; how many were written: 0 when it is beyond all calendars. */
size_t dates_of(arena_t *arena, int64_t ms, const char *terms[DATES_OF]);

/* What a question says about when. More than DATES_MAX are left out. Any bytes will do. */
void dates_in(arena_t *arena, const char *text, int64_t now_ms, date_terms_t *out);

/* Does the question ask when something was or how long it took? */
bool dates_asked(const char *question);

/* Does the text say when, in its first 128 words? More than that is not told. */
bool dates_told(const char *text);

#endif
