/* The list of digests in a backup: whatever it says, no path leads out of the folder. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "actors/cli/files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    arena_t *arena = arena_new();
    files_sum_t *sums;
    size_t count;
    const char *text = arena_strndup(arena, (const char *)data, size);
    if (!err_is(files_read_sums(arena, text, size, &sums, &count)))
        for (size_t i = 0; i < count; i++)
            if (!files_plain_path(sums[i].path) || strlen(sums[i].hex) != 64 ||
                strstr(sums[i].path, "/../") || !strncmp(sums[i].path, "../", 3) ||
                (i && !strcmp(sums[i].path, sums[i - 1].path)))
                abort();
    arena_destroy(&arena);
    return 0;
}
