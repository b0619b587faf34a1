#include "actors/brain/question.h"

#include <string.h>

#include "actors/brain/dates.h"
#include "actors/brain/synonyms.h"

/* Measured by bench_retrieval. */
#define BOOST_LETTER 0.3F /* of a script without spaces, when pairs are there too */
#define BOOST_PART 0.4F
#define BOOST_LIKE 0.3F

enum { LIKES_MAX = 6, LIKES_TERMS = 24 /* longer questions need none */ };

/* The same word again counts more, a hint about it does not. */
static void add(question_t *out, const char *term, float boost, bool again)
{
    for (size_t i = 0; i < out->count; i++)
        if (strcmp(out->terms[i], term) == 0) {
            if (again)
                out->boosts[i] += boost;
            else if (out->boosts[i] < boost)
                out->boosts[i] = boost;
            return;
        }
    if (out->count == RANK_TERMS_MAX)
        return;
    out->terms[out->count] = term;
    out->boosts[out->count++] = boost;
}

static bool has_pair(const word_list_t *list, size_t at)
{
    return (at > 0 && list->words[at - 1].kind == WORD_PAIR) ||
           (at + 1 < list->count && list->words[at + 1].kind == WORD_PAIR);
}

static void add_words(question_t *out)
{
    const word_list_t *list = &out->words;

    for (size_t i = 0; i < list->count; i++) {
        const word_t *word = &list->words[i];
        if (word->stop || word->kind == WORD_PART)
            continue;
        bool weak = word->kind == WORD_LETTER && has_pair(list, i);
        add(out, word->term, weak ? BOOST_LETTER : 1, true);
    }
    out->asked = out->count;
}

static void add_parts(question_t *out)
{
    for (size_t i = 0; i < out->words.count; i++)
        if (out->words.words[i].kind == WORD_PART)
            add(out, out->words.words[i].term, BOOST_PART, false);
}

static void add_likes(question_t *out, const char *language)
{
    const char *likes[LIKES_MAX];

    for (size_t i = 0; i < out->asked && out->asked <= LIKES_TERMS; i++) {
        size_t count = synonyms_of(language, out->terms[i], likes, LIKES_MAX);
        for (size_t j = 0; j < count; j++)
            add(out, likes[j], BOOST_LIKE, false);
    }
}

/* Moeller is Möller, whose marks the index does not keep; in any language, since names travel. */
static void add_umlauts(question_t *out, arena_t *arena)
{
    for (size_t i = 0; i < out->asked; i++) {
        const char *term = out->terms[i];
        char *plain = arena_strndup(arena, term, strlen(term));
        size_t kept = 0;
        for (size_t at = 0; term[at]; at++) {
            plain[kept++] = term[at];
            if (strchr("aou", term[at]) && term[at + 1] == 'e' &&
                !(at && strchr("aeiouq", term[at - 1])))
                at++;
        }
        plain[kept] = 0;
        if (kept >= 3 && term[kept])
            add(out, plain, BOOST_LIKE, false);
    }
}

void question_read(words_t *words, arena_t *arena, const char *text, int64_t now_ms,
                   question_t *out)
{
    date_terms_t *dates = ARENA_NEW(arena, date_terms_t);

    memset(out, 0, sizeof *out);
    words_split(words, arena, text, strlen(text), &out->words);
    add_words(out);
    dates_in(arena, text, now_ms, dates);
    for (size_t i = 0; i < dates->count; i++)
        add(out, dates->items[i].term, dates->items[i].boost, false);
    add_parts(out);
    add_umlauts(out, arena);
    add_likes(out, words_language(words));
}
