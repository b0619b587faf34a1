#include "bus/digest.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Found once: looking it up takes as long as a short digest. */
static EVP_MD *sha256;

static void find_sha256(void)
{
    if (!(sha256 = EVP_MD_fetch(NULL, "SHA256", NULL)))
        abort();
}

void digest_of(bytes_t bytes, uint8_t out[DIGEST_BYTES])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    unsigned size = 0;
    pthread_once(&once, find_sha256);
    /* Fails only for want of memory, or of SHA-256 itself. */
    if (!EVP_Digest(bytes.data, bytes.size, out, &size, sha256, NULL) || size != DIGEST_BYTES)
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

static bool verify(EVP_PKEY *key, bytes_t message, bytes_t signature)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool fine =
        context && EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
        EVP_DigestVerify(context, signature.data, signature.size, message.data, message.size) == 1;
    EVP_MD_CTX_free(context);
    return fine;
}

/* NULL when the numbers make no key. */
static EVP_PKEY *make_key(const char *type, OSSL_PARAM_BLD *build)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!params || !context || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(params);
    return key;
}

bool digest_signed_rsa(bytes_t modulus, bytes_t exponent, bytes_t message, bytes_t signature)
{
    enum { LEAST_BITS = 2048, MOST_BYTES = 1024 };
    if (modulus.size > MOST_BYTES || !exponent.size || exponent.size > 8)
        return false;
    BIGNUM *n = BN_bin2bn(modulus.data, (int)modulus.size, NULL);
    BIGNUM *e = BN_bin2bn(exponent.data, (int)exponent.size, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (n && e && build && BN_num_bits(n) >= LEAST_BITS &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e))
        key = make_key("RSA", build);
    bool fine = key && verify(key, message, signature);
    EVP_PKEY_free(key);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
    return fine;
}

/* The two numbers as libcrypto wants them (DER). Freed with OPENSSL_free; 0: malformed. */
static int pair_to_der(bytes_t pair, unsigned char **out)
{
    ECDSA_SIG *both = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(pair.data, 32, NULL), *s = BN_bin2bn(pair.data + 32, 32, NULL);
    int size = 0;
    if (both && r && s && ECDSA_SIG_set0(both, r, s)) {
        r = s = NULL; /* owned by both */
        size = i2d_ECDSA_SIG(both, out);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(both);
    return size > 0 ? size : 0;
}

bool digest_signed_p256(bytes_t x, bytes_t y, bytes_t message, bytes_t signature)
{
    unsigned char point[65] = {4}, *der = NULL;
    if (x.size != 32 || y.size != 32 || signature.size != 64)
        return false;
    memcpy(point + 1, x.data, 32);
    memcpy(point + 33, y.data, 32);
    int size = pair_to_der(signature, &der);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (size && build &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)))
        key = make_key("EC", build);
    bool fine = key && verify(key, message, (bytes_t){der, (size_t)size});
    EVP_PKEY_free(key);
    OSSL_PARAM_BLD_free(build);
    OPENSSL_free(der);
    return fine;
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
