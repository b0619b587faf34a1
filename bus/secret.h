/* secret: a key that lies in a file, as a Secret that is mounted into a container does. It is read
 * for each use, so that a new key needs no restart. Never logged. Thread: any. */
#ifndef BUS_SECRET_H
#define BUS_SECRET_H

#include "proto/arena.h"
#include "proto/err.h"

/* The one word in the file, without the space around it, in the arena. Errors name the setting:
 * ERR_IO (cannot be read), ERR_ARGUMENT (empty, longer than 4 KiB, more than a word, or control
 * characters). */
err_t secret_read(arena_t *arena, const char *setting, const char *path, const char **out);

#endif
