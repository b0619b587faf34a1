/* fuzz_memory_line: any bytes as a line of an import, and as a filter over what came of them. */
#include <stdlib.h>
#include <string.h>

#include "actors/brain/filter.h"
#include "actors/brain/transfer.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

/* The text up to a line end is a line, what follows a filter. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    const char *text = arena_strndup(arena, (const char *)data, size);
    size_t first = strcspn(text, "\n");
    transfer_line_t line = {0};
    bytes_t filter;
    err_t err = transfer_read_line(arena, text, first, &line);

    demand(!err_is(err) || *err_what(err));
    if (!err_is(err)) {
        demand(line.kind >= 0 && line.kind <= 2);
        demand(line.kind != 0 || *line.episode.id);
        demand(line.kind != 1 || *line.node.id);
        demand(line.kind != 2 || (*line.edge.from && *line.edge.relation && *line.edge.to));
    }
    if (!err_is(err) && line.kind == 0 && text[first] &&
        !err_is(
            json_to_msgpack(arena, text + first + 1, strlen(text + first + 1), NULL, &filter)) &&
        !err_is(filter_read(filter, arena, &filter))) {
        buf_t bytes;
        buf_open(&bytes, arena);
        record_encode(&episode_record, &line.episode, &bytes);
        (void)filter_passes(filter, buf_bytes(&bytes));
    }
    arena_destroy(&arena);
    return 0;
}
