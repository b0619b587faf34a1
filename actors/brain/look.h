/* look: a second look at the few best memories, at what the indexes do not hold: the small words
 * ("how do I", "from", "not"), which tell intents apart where all else is alike, and whether a text
 * says when, if that is what is asked for.
 *
 * Small words are the stop words of the language in the question; how rare each is is counted among
 * the memories looked at. Any bytes will do. Thread: pure.
 */
#ifndef ACTORS_BRAIN_LOOK_H
#define ACTORS_BRAIN_LOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/mp.h"

enum {
    LOOK_SMALL = 24,   /* small words of a question that are looked for */
    LOOK_BYTES = 2048, /* of a text that are read */
};

typedef struct look_word {
    char text[24];
    size_t size;
} look_word_t;

typedef struct look {
    look_word_t small[LOOK_SMALL];
    size_t count;
    bool when; /* it asks when something was */
} look_t;

/* What one memory has of it. */
typedef struct look_seen {
    uint32_t small; /* a bit for each of the small words */
    bool when;      /* it says when */
} look_seen_t;

void look_question(look_t *look, const char *language, const char *question);

/* Adds what the text has; may be called for each text of a memory. `seen` begins as zeros. */
void look_text(const look_t *look, arena_t *arena, bytes_t text, look_seen_t *seen);

/* How much each of the memories has of the small words, comparable with word scores. */
void look_scores(const look_t *look, const look_seen_t *seen, size_t count, float *scores);

#endif
