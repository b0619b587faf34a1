/* endpoint: what is said to and heard from an OpenAI-compatible POST /v1/embeddings. Only bytes:
 * sending them is the caller's business. Thread: pure.
 */
#ifndef ACTORS_BRAIN_ENDPOINT_H
#define ACTORS_BRAIN_ENDPOINT_H

#include "actors/brain/brain.h"

/* The name that vectors of an endpoint's model carry; lives in the arena. */
const char *endpoint_model(arena_t *arena, const char *model);
/* False for models of the built-in embedder. */
bool endpoint_makes(const char *model);

/* The request for vectors of these texts, with the settings' URL, model and key; everything lives
 * in the arena. ERR_IO or ERR_ARGUMENT when the key file cannot be read. */
err_t endpoint_request(const brain_settings_t *settings, arena_t *arena, const char *const *texts,
                       size_t count, http_call_request_t *out);

/* The vectors of an answer to `count` texts, normalised, count * *dims floats in the arena.
 * ERR_PARSE says what is wrong with the answer. */
err_t endpoint_read(arena_t *arena, bytes_t body, size_t count, float **vectors, uint32_t *dims);

#endif
