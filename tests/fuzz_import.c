/* Any bytes as any file of the earlier system: whatever becomes an item is one sound map. */
#include <stdlib.h>

#include "actors/cli/import_read.h"
#include "proto/mp.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    arena_t *arena = arena_new();
    const char *text = arena_strndup(arena, (const char *)data, size);
    import_read_t read;
    buf_t out;
    import_read_open(&read, arena, size % 2 ? "acme" : NULL);
    buf_open(&out, arena);
    import_graph(&read, text, size);
    import_memories(&read, text, size);
    import_memory_lines(&read, text, size);
    import_ghost_log(&read, text, size);
    import_proposal(&read, text, size);
    import_metric_lines(&read, text, size, &out);
    const import_item_t *items = import_items(&read);
    for (size_t i = 0; i < read.item_count; i++)
        if (err_is(mp_check(items[i].args)) ||
            (items[i].tool && err_is(mp_check(items[i].propose))))
            abort();
    arena_destroy(&arena);
    return 0;
}
