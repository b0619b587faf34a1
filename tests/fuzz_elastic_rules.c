/* Whatever the file of rules holds: a list within its limits, or a sentence with the line. */
#include <stdint.h>
#include <stdlib.h>

#include "actors/elastic/rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    rule_list_t list;
    err_t err = rules_parse((const char *)data, size, arena, &list);
    for (size_t i = 0; !err_is(err) && i < list.count; i++)
        if (list.items[i].count < 1 || !list.items[i].metric)
            abort();
    if (err_is(err) && !err_what(err))
        abort();
    arena_destroy(&arena);
    return 0;
}
