/* Whatever the file of alert rules holds: a list within its limits, or a sentence with the line. */
#include <stdint.h>
#include <stdlib.h>

#include "actors/health/health.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    record_list_t list;
    err_t err = rulesfile_parse((const char *)data, size, arena, &list);
    if (err_is(err) && !err_what(err))
        abort();
    if (!err_is(err) && list.count && !list.items)
        abort();
    arena_destroy(&arena);
    return 0;
}
