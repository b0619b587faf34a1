/* What a client gives as a session, a cursor, a state, a task or a bearer token. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/gateway/jwt.h"
#include "actors/gateway/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static jwt_t *open_keys(void)
{
    static const char set[] = "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"},{\"kty\":"
                              "\"EC\",\"crv\":\"P-256\","
                              "\"x\":\"AAAA\",\"y\":\"AAAA\"},{\"kty\":\"oct\",\"k\":\"AAAA\"},7]}";
    char path[] = "/tmp/agency-fuzz-XXXXXX";
    arena_t *arena = arena_new();
    jwt_t *jwt = NULL;
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, set, sizeof(set) - 1) < 0 ||
        err_is(jwt_open(path, "issuer", "audience", arena, &jwt)))
        abort();
    close(fd);
    unlink(path);
    arena_destroy(&arena);
    return jwt;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const seal_t seal = {.key = {1, 2, 3}};
    static jwt_t *jwt;
    arena_t *arena = arena_new();
    char *text = arena_strndup(arena, (const char *)data, size);
    bytes_t payload;
    principal_t principal;
    const char *why;
    if (!jwt)
        jwt = open_keys();
    /* Nothing that we did not make opens; what we make does. */
    if (seal_get(&seal, arena, "fuzz", text, &payload))
        abort();
    const char *made = seal_put(&seal, arena, "fuzz", (bytes_t){data, size});
    if (size < 100000 && (!seal_get(&seal, arena, "fuzz", made, &payload) || payload.size != size ||
                          (size && memcmp(payload.data, data, size) != 0)))
        abort();
    if (jwt_check(jwt, arena, text, 0, &principal, &why) != JWT_REFUSED)
        abort();
    arena_destroy(&arena);
    return 0;
}
