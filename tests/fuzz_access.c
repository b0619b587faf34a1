/* Files and answers that decide who comes in: a file of tokens when the first byte is 't', else a
 * set of keys (JWKS) against which a token of every kind is checked. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "actors/gateway/jwt.h"
#include "actors/gateway/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_tokens(arena_t *arena, const uint8_t *data, size_t size)
{
    static const char *const pillars[] = {"agent", "brain"};
    tokens_t *tokens = NULL;
    int fd = memfd_create("tokens", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    err_t err =
        tokens_open(arena_printf(arena, "/proc/self/fd/%d", fd), pillars, 2, arena, &tokens);
    if (!err_is(err)) {
        const principal_t *found = tokens_find(tokens, "secret");
        if (found && (!found->name || (!found->any_company && !found->companies.count)))
            abort(); /* half a line lets nobody in */
    }
    tokens_close(&tokens);
    close(fd);
}

/* Not signed by anybody: whatever the keys are, it stays outside. */
static void try_keys(arena_t *arena, const uint8_t *data, size_t size)
{
    static const char *const tokens[] = {"eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJpIn0.AAAA",
                                         "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJpIn0."
                                         "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                                         "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                         "eyJhbGciOiJub25lIn0.eyJpc3MiOiJpIn0.",
                                         "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIn0.AAAA"};
    jwt_t *jwt = NULL;
    principal_t principal;
    const char *why;
    if (err_is(jwt_open(NULL, "i", "a", arena, &jwt)))
        abort();
    jwt_take_keys(jwt, (bytes_t){data, size});
    for (size_t i = 0; i < sizeof(tokens) / sizeof(*tokens); i++) {
        jwt_verdict_t verdict = jwt_check(jwt, arena, tokens[i], 0, &principal, &why);
        if (verdict == JWT_FINE || verdict == JWT_NO_SCOPE)
            abort();
    }
    jwt_close(&jwt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    if (size && *data == 't')
        try_tokens(arena, data + 1, size - 1);
    else if (size)
        try_keys(arena, data, size);
    arena_destroy(&arena);
    return 0;
}
