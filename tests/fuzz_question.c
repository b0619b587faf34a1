/* fuzz_question: any bytes as a question: dates, words, synonyms, and the second look at any text;
 * within the promised bounds. */
#include <stdlib.h>
#include <string.h>

#include "actors/brain/dates.h"
#include "actors/brain/look.h"
#include "actors/brain/question.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const languages[] = {"english", "german", "russian", "none"};
    arena_t *arena = arena_new();
    char *text = arena_strndup(arena, (const char *)data, size);
    words_t *words = NULL;
    question_t *question = ARENA_NEW(arena, question_t);
    date_terms_t dates;
    int64_t now = 1715774400000;

    if (size >= 8)
        memcpy(&now, data, sizeof now);
    dates_in(arena, text, now, &dates);
    demand(dates.count <= DATES_MAX);
    for (size_t i = 0; i < dates.count; i++)
        demand(dates.items[i].term[0] == '@' && dates.items[i].boost > 0 &&
               dates.items[i].boost <= 1);
    demand(!err_is(words_new(&words, languages[size % 4])));
    question_read(words, arena, text, now, question);
    demand(question->count <= RANK_TERMS_MAX && question->asked <= question->count);
    for (size_t i = 0; i < question->count; i++)
        demand(*question->terms[i] && question->boosts[i] > 0);
    words_destroy(&words);
    look_t look;
    look_seen_t seen = {0};
    float score;
    look_question(&look, languages[size % 4], text);
    demand(look.count <= LOOK_SMALL);
    look_text(&look, arena, (bytes_t){data, size}, &seen);
    look_scores(&look, &seen, 1, &score);
    demand(score >= 0);
    arena_destroy(&arena);
    return 0;
}
