#include "bus/secret.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SECRET_LARGEST = 4096 };

static const char space[] = " \t\r\n";

/* The length of the word; 0 when it is none. */
static size_t word_size(const char *text, size_t size)
{
    while (size && strchr(space, text[size - 1]))
        size--;
    for (size_t i = 0; i < size; i++)
        if (text[i] <= ' ' || text[i] == 127)
            return 0;
    return size > SECRET_LARGEST ? 0 : size;
}

err_t secret_read(arena_t *arena, const char *setting, const char *path, const char **out)
{
    char text[SECRET_LARGEST + sizeof space];
    FILE *file = fopen(path, "re");
    if (!file)
        return err_make(arena, ERR_IO, "%s = %s: %s", setting, path, strerror(errno));
    size_t size = word_size(text, fread(text, 1, sizeof text, file));
    fclose(file);
    if (!size)
        return err_make(arena, ERR_ARGUMENT, "%s = %s holds no key", setting, path);
    *out = arena_printf(arena, "%.*s", (int)size, text);
    return err_ok();
}
