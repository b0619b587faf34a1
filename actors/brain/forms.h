/* forms: irregular forms that no stemmer joins: went is go, geschrieben is schreiben. For words.c
 * only. Folded words; languages without a list have none. Thread: pure.
 */
#ifndef ACTORS_BRAIN_FORMS_H
#define ACTORS_BRAIN_FORMS_H

#include <stddef.h>

/* The form that the stemmer is to be given instead, or NULL. */
const char *forms_base(const char *language, const char *word);

/* The forms in order, for tests; NULL after the last. */
const char *forms_at(const char *language, size_t at);

#endif
