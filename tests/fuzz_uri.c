/* Addresses of resources, as clients ask for them and as templates have them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "actors/gateway/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    const char *text = arena_strndup(arena, (const char *)data, size);
    uri_t uri, again;
    buf_t out;
    uri_kind(arena, text);
    buf_open(&out, arena);
    if (uri_read(arena, text, &uri)) { /* what was read is written and read the same */
        uri_put(&out, uri.kind, uri.id, uri.company);
        if (!uri_read(arena, out.data, &again) || strcmp(uri.id, again.id) != 0 ||
            strcmp(uri.kind, again.kind) != 0 || !uri.company != !again.company)
            abort();
    }
    arena_destroy(&arena);
    return 0;
}
