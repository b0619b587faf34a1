/* date_words: the words that say when, in the languages that dates.h names. Thread: pure. */
#ifndef ACTORS_BRAIN_DATE_WORDS_H
#define ACTORS_BRAIN_DATE_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum meaning {
    NONE,
    MONTH,   /* 1 to 12 */
    WEEKDAY, /* 0 is Sunday */
    NUMBER,
    ORDINAL, /* first, second, third, fourth: of quarters */
    UNIT,    /* one of the units below */
    LAST,    /* the one before this; by so many more: vorletzte */
    GONE,    /* the same, and stands behind: la semana pasada */
    THIS,
    AGO,    /* stands behind: two days ago */
    BEFORE, /* stands before: vor zwei Tagen */
    DAY,    /* so many days back */
    LEAD,   /* what follows is likely a date */
} meaning_t;

enum { DAYS, WEEKS, MONTHS, QUARTERS, YEARS, WEEKENDS, NIGHTS };

typedef struct say {
    const char *word; /* in small letters */
    uint8_t meaning, value;
    bool doubtful; /* has other meanings: needs a number or a LEAD beside it */
} say_t;

/* NULL: the word says nothing about when. */
const say_t *date_word(const char *word);

/* The same in scripts without spaces; found anywhere, with nothing around them. */
typedef struct glyphs {
    const char *text;
    uint8_t unit, back;
} glyphs_t;

extern const glyphs_t date_glyphs[];
extern const size_t date_glyph_count;

#endif
