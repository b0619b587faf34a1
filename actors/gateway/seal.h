/* seal: text that a client keeps for us and cannot change: ids of sessions and tasks, states of
 * questions, cursors. It is `<Base64url of the payload>.<Base64url of its HMAC-SHA-256>`; the
 * payload can be read by whoever holds it. The key is a file, so that a seal outlives the process,
 * and gateways that share the file accept one another's. Thread: pure, but for seal_open. */
#ifndef ACTORS_GATEWAY_SEAL_H
#define ACTORS_GATEWAY_SEAL_H

#include <stdbool.h>

#include "proto/arena.h"
#include "proto/err.h"

enum { SEAL_KEY = 32 };

typedef struct seal {
    uint8_t key[SEAL_KEY];
} seal_t;

/* Reads the key; makes the file with `fresh` as the key when there is none. Several may do so at
 * once: all end up with the same. ERR_IO, ERR_ARGUMENT when the file is no key. */
err_t seal_open(const char *path, const uint8_t fresh[SEAL_KEY], arena_t *arena, seal_t *out);

/* `purpose` keeps a seal for one thing from being used for another. */
const char *seal_put(const seal_t *seal, arena_t *arena, const char *purpose, bytes_t payload);
/* False when it was not made by seal_put for this purpose. The payload ends with a NUL that is not
 * counted. */
bool seal_get(const seal_t *seal, arena_t *arena, const char *purpose, const char *text,
              bytes_t *payload);

/* Base64url without padding, as JOSE has it too. False: not that, or not the one text for it. */
bool seal_base64(arena_t *arena, const char *text, size_t size, bytes_t *out);

#endif
