/* digest: SHA-256 of bytes. The one door to libcrypto. Thread: pure. */
#ifndef BUS_DIGEST_H
#define BUS_DIGEST_H

#include "proto/arena.h"

enum { DIGEST_BYTES = 32 };

void digest_of(bytes_t bytes, uint8_t out[DIGEST_BYTES]);

/* 64 lower-case hex digits, in the arena. */
const char *digest_hex(arena_t *arena, bytes_t bytes);

/* The digest of several texts as hex; "ab","c" and "a","bc" differ. Ends with NULL. */
const char *digest_texts(arena_t *arena, const char *first, ...) __attribute__((sentinel));

#endif
