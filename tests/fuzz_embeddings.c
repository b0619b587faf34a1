/* Whatever an embedding endpoint answers. */
#include <math.h>
#include <stdlib.h>

#include "actors/brain/endpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    float *vectors = NULL;
    uint32_t dims = 0;
    size_t count = size ? data[0] % 4 + 1 : 1;
    bytes_t body = {size ? data + 1 : data, size ? size - 1 : 0};

    if (!err_is(endpoint_read(arena, body, count, &vectors, &dims)))
        for (size_t i = 0; i < count * dims; i++)
            if (!isfinite(vectors[i]))
                abort();
    arena_destroy(&arena);
    return 0;
}
