/* digest: SHA-256 of bytes, the same with a key, and signatures over it. The one door to libcrypto.
 * Thread: pure. */
#ifndef BUS_DIGEST_H
#define BUS_DIGEST_H

#include <stdbool.h>

#include "proto/arena.h"

enum { DIGEST_BYTES = 32 };

void digest_of(bytes_t bytes, uint8_t out[DIGEST_BYTES]);

/* HMAC-SHA-256. */
void digest_keyed(bytes_t key, bytes_t bytes, uint8_t out[DIGEST_BYTES]);
/* Takes as long whether they differ early or late. */
bool digest_same(const uint8_t one[DIGEST_BYTES], const uint8_t other[DIGEST_BYTES]);

/* Is this the signature of `message`? RSA: PKCS #1 v1.5 with SHA-256, a modulus of 2048 to 8192
 * bits, both numbers big-endian. P-256: ECDSA with SHA-256; x and y in 32 bytes each, and so are
 * the halves of the signature. Anything malformed is false. */
bool digest_signed_rsa(bytes_t modulus, bytes_t exponent, bytes_t message, bytes_t signature);
bool digest_signed_p256(bytes_t x, bytes_t y, bytes_t message, bytes_t signature);

/* 64 lower-case hex digits, in the arena. */
const char *digest_hex(arena_t *arena, bytes_t bytes);

/* The digest of several texts as hex; "ab","c" and "a","bc" differ. Ends with NULL. */
const char *digest_texts(arena_t *arena, const char *first, ...) __attribute__((sentinel));

#endif
