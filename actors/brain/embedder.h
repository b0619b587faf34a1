/* embedder: the built-in way from text to vector: no model, no key, the same on every machine.
 *
 * Hashed features: stemmed words without stop words, and runs of 3 and 4 letters of each word, so
 * that related forms, misspellings and compounds come near each other in any language. Each feature
 * is counted sublinearly, hashed to a few signed places, and the vector is normalised.
 * It knows nothing about meaning; the name it gives says which rules made a vector, and vectors of
 * different names must never be compared. Thread: pure apart from the words_t it is given.
 */
#ifndef ACTORS_BRAIN_EMBEDDER_H
#define ACTORS_BRAIN_EMBEDDER_H

#include "actors/brain/words.h"
#include "proto/arena.h"
#include "proto/err.h"

#define EMBEDDER_DIMS 384
#define EMBEDDER_DIMS_MIN 64
#define EMBEDDER_DIMS_MAX 4096

/* "hash-1-384-english": rules, dimensions, language; lives in the arena. */
const char *embedder_name(arena_t *arena, uint32_t dims, const char *language);

/* The language in a name, inside it; NULL: these are not vectors that the present rules make. */
const char *embedder_language(const char *name);

/* Writes `dims` floats of length one. Errors: ARGUMENT (dims out of range; no word in the text). */
err_t embedder_text(words_t *words, arena_t *arena, const char *text, size_t size, uint32_t dims,
                    float *vector);

/* The same from terms that are already split. `weights`, one per term, say how much each tells (in
 * a query: how rare it is among the memories); NULL: all the same. */
err_t embedder_terms(arena_t *arena, const word_list_t *list, const float *weights, uint32_t dims,
                     float *vector);

#endif
