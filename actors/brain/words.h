/* words: from text in any language to the terms that memory is searched by.
 *
 * Segmentation follows Unicode (UAX 29), then:
 *  - case is folded and compatibility forms are unified (NFKC), marks are stripped after stemming;
 *  - words of the company's language are stemmed (Snowball), irregular forms first replaced by
 * their base, and its stop words are marked; words in Cyrillic, Greek, Arabic, Devanagari, Tamil or
 *    Armenian have the stemmer of their script;
 *  - long words of languages that write compounds as one word (German, Dutch, the Scandinavian
 * ones, Finnish, Hungarian) also give the parts they may be made of; ae, oe, ue are umlauts in
 * German;
 *  - names out of code are also given in parts: brain_query, IndexFlatIP, std::vector, a.b.c;
 *  - scripts without spaces (Han, Kana, Thai, Lao, Khmer, Myanmar) and Hangul give overlapping
 * pairs of letters besides the single letters or the whole word; what says nothing there (的, です)
 * is marked as stop words are. Bytes that are no UTF-8 end a word
 * and are otherwise skipped; nothing can make it fail. Bounded: terms of more than WORDS_TERM_MAX
 * bytes are cut at a letter, and after WORDS_MAX terms the rest of the text is ignored (`cut` says
 * so).
 *
 * The same text always gives the same terms: they are stored. A change of rules raises
 * WORDS_VERSION, and the inverted index is then rebuilt.
 * Thread: one words_t per thread (Snowball stemmers keep state).
 */
#ifndef ACTORS_BRAIN_WORDS_H
#define ACTORS_BRAIN_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/err.h"

#define WORDS_VERSION 2
#define WORDS_TERM_MAX 48
#define WORDS_MAX 65536

typedef struct words words_t;

typedef enum word_kind {
    WORD_STEM,   /* the stem of a word */
    WORD_WHOLE,  /* a composed name as it was written, besides its parts */
    WORD_NUMBER, /* begins with a digit */
    WORD_LETTER, /* one letter of a script without spaces */
    WORD_PAIR,   /* two neighbouring letters of it */
    WORD_PART,   /* what a compound may be made of; after the whole, at its position */
} word_kind_t;

typedef struct word {
    const char *term;  /* NUL-terminated UTF-8 in the arena */
    uint16_t size;     /* bytes of term */
    uint8_t kind;      /* word_kind_t */
    bool stop;         /* a stop word of the language */
    uint32_t position; /* counts words; a whole name has that of its first part */
} word_t;

typedef struct word_list {
    word_t *words;
    size_t count;
    uint32_t positions; /* length of the text in words */
    bool cut;           /* the text had more than WORDS_MAX terms */
} word_list_t;

/* `language`: a Snowball name ("english", "german", ...), or "none" for no stems or stop words.
 * Errors: ARGUMENT (no such language). */
err_t words_new(words_t **words, const char *language);
void words_destroy(words_t **words);

const char *words_language(const words_t *words);
/* All there are, with commas. */
const char *words_languages(arena_t *arena);

/* The terms of `size` bytes of text, in order. */
void words_split(words_t *words, arena_t *arena, const char *text, size_t size, word_list_t *list);

/* Both, as if one text had ended with a line; the words stay where they are. */
word_list_t words_join(arena_t *arena, const word_list_t *first, const word_list_t *second);

/* One code point at `text`, at most `size` bytes; *used is how many bytes it took, at least 1 when
 * size is. What is no UTF-8 (also surrogates, overlong forms) gives 0xFFFD and uses one byte. */
uint32_t words_decode(const char *text, size_t size, size_t *used);

/* Small letters, of Latin-1 and Cyrillic too, cut at `room` - 1 bytes and ended with NUL. Returns
 * how many bytes. For looking words up as they are written. */
size_t words_small(const char *text, size_t size, char *out, size_t room);

/* Is every byte of it UTF-8? */
bool words_is_utf8(const char *text, size_t size);

#endif
