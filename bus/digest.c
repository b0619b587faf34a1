#include "bus/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void digest_of(bytes_t bytes, uint8_t out[DIGEST_BYTES])
{
    unsigned size = 0;
    /* Fails only for want of memory, or of SHA-256 itself. */
    if (!EVP_Digest(bytes.data, bytes.size, out, &size, EVP_sha256(), NULL) || size != DIGEST_BYTES)
        abort();
}

void digest_keyed(bytes_t key, bytes_t bytes, uint8_t out[DIGEST_BYTES])
{
    unsigned size = 0;
    if (!HMAC(EVP_sha256(), key.data, (int)key.size, bytes.data, bytes.size, out, &size) ||
        size != DIGEST_BYTES)
        abort();
}

bool digest_same(const uint8_t one[DIGEST_BYTES], const uint8_t other[DIGEST_BYTES])
{
    return CRYPTO_memcmp(one, other, DIGEST_BYTES) == 0;
}

const char *digest_hex(arena_t *arena, bytes_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[DIGEST_BYTES];
    char hex[2 * DIGEST_BYTES];
    digest_of(bytes, raw);
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        hex[2 * i] = digits[raw[i] >> 4];
        hex[2 * i + 1] = digits[raw[i] & 15];
    }
    return arena_strndup(arena, hex, sizeof(hex));
}

const char *digest_texts(arena_t *arena, const char *first, ...)
{
    buf_t all;
    va_list args;
    buf_open(&all, arena);
    va_start(args, first);
    for (const char *text = first; text; text = va_arg(args, const char *))
        buf_put(&all, text, strlen(text) + 1); /* the NUL parts them */
    va_end(args);
    return digest_hex(arena, buf_bytes(&all));
}
