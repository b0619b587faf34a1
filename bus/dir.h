/* dir: directories of data: made, synced, and held by one process for life. LMDB's own lock does
 * not keep a second process from writing, so <dir>/owner is locked (flock) and holds the epoch: how
 * often the directory was taken. Thread: any; an owner belongs to who took it. */
#ifndef BUS_DIR_H
#define BUS_DIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/arena.h"
#include "proto/err.h"

/* Makes the directory and those above it, without syncing them. ERR_FULL, ERR_IO. */
err_t dir_make(const char *path, arena_t *arena);
/* What was made or renamed in it survives a crash. */
err_t dir_sync(const char *dir, arena_t *arena);
/* What errno said about a path: ERR_FULL, ERR_IO. */
err_t dir_error(arena_t *arena, const char *path, int code);

typedef struct dir_owner {
    const char *dir; /* the taker's; outlives the owner */
    int fd;          /* below 0: not taken */
    dev_t dev;
    ino_t ino;
    uint64_t epoch;
} dir_owner_t;

/* Locks <dir>/owner and raises the epoch, on disk when it returns. ERR_OWNED: another process has
 * it. ERR_IO also for NFS, where locks cannot be trusted. */
err_t dir_take(const char *dir, dir_owner_t *owner, arena_t *arena);
/* Is <dir>/owner still the file that we hold? */
bool dir_owned(const dir_owner_t *owner);
void dir_leave(dir_owner_t *owner);

#endif
