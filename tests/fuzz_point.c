/* Lines of metrics files, from anybody who can write to the volume. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/health/series.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    point_t point;
    const char *own;
    err_t err = point_parse(arena, (const char *)data, size, INT64_C(1795478865000), &point, &own);
    if (!err_is(err) && (!isfinite(point.value) || !*point.agent || strlen(point.metric) > 200))
        abort();
    arena_destroy(&arena);
    return 0;
}
