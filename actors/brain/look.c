#include "actors/brain/look.h"

#include <string.h>

#include "actors/brain/dates.h"
#include "actors/brain/rank.h"
#include "actors/brain/stopwords.h"
#include "actors/brain/words.h"

/* ---- words as they are written: folded, neither stemmed nor looked up ---- */

/* The bytes of “ ” … and the like, which divide words; 0: it is none. */
static size_t punctuation(const uint8_t *at, const uint8_t *end)
{
    return end - at >= 3 && at[0] == 0xe2 && at[1] == 0x80 ? 3 : 0;
}

static bool is_letter(const uint8_t *at, const uint8_t *end)
{
    uint8_t c = *at;

    if (c >= 0x80)
        return !punctuation(at, end);
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

/* An apostrophe inside a word: ' or ’. Its bytes, or 0. */
static size_t apostrophe(const uint8_t *at, const uint8_t *end)
{
    size_t size = *at == '\'' ? 1 : punctuation(at, end) && at[2] == 0x99 ? 3 : 0;

    return size && (size_t)(end - at) > size && is_letter(at + size, end) ? size : 0;
}

/* The next word from *at, folded; false at the end. What is too long for a small word has size 0.
 */
static bool next_word(const uint8_t **at, const uint8_t *end, look_word_t *word)
{
    char raw[sizeof word->text];
    size_t size = 0, step;
    const uint8_t *c = *at;

    while (c < end && !is_letter(c, end)) {
        step = punctuation(c, end);
        c += step ? step : 1;
    }
    if (c == end)
        return false;
    for (; c < end && ((step = apostrophe(c, end)) != 0 || is_letter(c, end)); size++) {
        if (size < sizeof raw)
            raw[size] = (char)(step ? '\'' : *c);
        c += step ? step : 1;
    }
    *at = c;
    word->size = size + 3 < sizeof raw ? words_small(raw, size, word->text, sizeof word->text) : 0;
    return true;
}

static size_t place_of(const look_t *look, const look_word_t *word)
{
    size_t i = 0;

    while (i < look->count && (look->small[i].size != word->size ||
                               memcmp(look->small[i].text, word->text, word->size) != 0))
        i++;
    return i;
}

/* ---- the question and the texts ---- */

void look_question(look_t *look, const char *language, const char *question)
{
    const uint8_t *at = (const uint8_t *)question, *end = at + strlen(question);
    look_word_t word;

    *look = (look_t){.when = dates_asked(question)};
    while (look->count < LOOK_SMALL && next_word(&at, end, &word))
        if (word.size && stopwords_has(language, word.text) && place_of(look, &word) == look->count)
            look->small[look->count++] = word;
}

void look_text(const look_t *look, arena_t *arena, bytes_t text, look_seen_t *seen)
{
    size_t size = text.size < LOOK_BYTES ? text.size : LOOK_BYTES;
    const uint8_t *at = text.data, *end = size ? at + size : at;
    look_word_t word;

    while (look->count && next_word(&at, end, &word)) {
        size_t i = word.size ? place_of(look, &word) : look->count;
        if (i < look->count)
            seen->small |= UINT32_C(1) << i;
    }
    if (look->when && !seen->when)
        seen->when = dates_told(arena_strndup(arena, (const char *)text.data, size));
}

void look_scores(const look_t *look, const look_seen_t *seen, size_t count, float *scores)
{
    memset(scores, 0, sizeof *scores * count);
    for (size_t i = 0; i < look->count; i++) {
        uint32_t bit = UINT32_C(1) << i;
        uint64_t having = 0;
        for (size_t at = 0; at < count; at++)
            having += (seen[at].small & bit) != 0;
        float idf = rank_idf(count, having);
        for (size_t at = 0; at < count; at++)
            scores[at] += seen[at].small & bit ? idf : 0;
    }
}
