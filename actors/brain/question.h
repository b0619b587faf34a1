/* question: what a query asks the words index for: its words, each with a weight, the dates it
 * means, the parts of its compounds, and words that mean the like. Thread: pure apart from words_t.
 */
#ifndef ACTORS_BRAIN_QUESTION_H
#define ACTORS_BRAIN_QUESTION_H

#include "actors/brain/rank.h"
#include "actors/brain/words.h"

typedef struct question {
    word_list_t words; /* of the text, for the vector */
    const char *terms[RANK_TERMS_MAX];
    float boosts[RANK_TERMS_MAX];
    size_t count;
    size_t asked; /* so many of them are the text's own words; dates, parts and likes follow */
} question_t;

/* At most RANK_TERMS_MAX terms; the rest of a very long query is left out. */
void question_read(words_t *words, arena_t *arena, const char *text, int64_t now_ms,
                   question_t *out);

#endif
