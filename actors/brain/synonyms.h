/* synonyms: common words that stand for one another, so that a question in other words finds.
 * English and German; hand-made and small. A question's words get them at a fraction of their own
 * weight. Thread: any.
 */
#ifndef ACTORS_BRAIN_SYNONYMS_H
#define ACTORS_BRAIN_SYNONYMS_H

#include <stddef.h>

#include "actors/brain/words.h"

/* Stems of words that mean the like of `stem`, without itself; they live for ever. */
size_t synonyms_of(const char *language, const char *stem, const char **out, size_t most);

#endif
