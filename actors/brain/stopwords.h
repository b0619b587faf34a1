/* stopwords: the function words that say nothing about what a text is about. For words.c only.
 * One row per language; words in folded form, sorted in strcmp order (a test proves it).
 */
#ifndef ACTORS_BRAIN_STOPWORDS_H
#define ACTORS_BRAIN_STOPWORDS_H

#include <stdbool.h>
#include <stddef.h>

/* Is the folded word a stop word of the language? Languages without a list have none. */
bool stopwords_has(const char *language, const char *word);

/* The list of a language for tests: NULL-terminated, or NULL. */
const char *const *stopwords_of(const char *language);

#endif
