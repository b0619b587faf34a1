#include "bus/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { NFS_MAGIC = 0x6969 };

err_t dir_error(arena_t *arena, const char *path, int code)
{
    if (code == ENOSPC || code == EDQUOT)
        return err_make(arena, ERR_FULL, "no space left on the disk of %s", path);
    return err_make(arena, ERR_IO, "cannot use the data directory %s: %s", path, strerror(code));
}

err_t dir_make(const char *path, arena_t *arena)
{
    char *copy = arena_strdup(arena, path);
    for (char *at = copy + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (mkdir(copy, 0750) && errno != EEXIST)
            return dir_error(arena, copy, errno);
        *at = '/';
    }
    if (mkdir(copy, 0750) && errno != EEXIST)
        return dir_error(arena, copy, errno);
    return err_ok();
}

static err_t refuse_nfs(const char *dir, arena_t *arena)
{
    struct statfs info;
    if (!statfs(dir, &info) && (uint32_t)info.f_type == NFS_MAGIC)
        return err_make(arena, ERR_IO,
                        "%s is on NFS, where locks and maps cannot be trusted: "
                        "use a local disk or a ReadWriteOnce volume",
                        dir);
    return err_ok();
}

err_t dir_sync(const char *dir, arena_t *arena)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd)) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return dir_error(arena, dir, code);
    }
    close(fd);
    return err_ok();
}

/* The epoch stands in the file as text. */
static err_t raise_epoch(dir_owner_t *owner, const char *path, arena_t *arena)
{
    char text[32] = "";
    ssize_t size = pread(owner->fd, text, sizeof(text) - 1, 0);
    text[size > 0 ? size : 0] = '\0';
    owner->epoch = strtoull(text, NULL, 10) + 1;
    int length = snprintf(text, sizeof(text), "%020" PRIu64 "\n", owner->epoch);
    if (pwrite(owner->fd, text, (size_t)length, 0) != length || fsync(owner->fd))
        return dir_error(arena, path, errno);
    return dir_sync(owner->dir, arena);
}

err_t dir_take(const char *dir, dir_owner_t *owner, arena_t *arena)
{
    *owner = (dir_owner_t){.dir = dir, .fd = -1};
    err_t err = refuse_nfs(dir, arena);
    if (err_is(err))
        return err;
    const char *path = arena_printf(arena, "%s/owner", dir);
    owner->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (owner->fd < 0)
        return dir_error(arena, path, errno);
    struct stat info;
    if (flock(owner->fd, LOCK_EX | LOCK_NB))
        err = err_make(arena, ERR_OWNED,
                       "another process owns %s; stop it (agency down) or use another --data", dir);
    else if (fstat(owner->fd, &info))
        err = dir_error(arena, path, errno);
    else
        err = raise_epoch(owner, path, arena);
    if (err_is(err)) {
        dir_leave(owner);
        return err;
    }
    owner->dev = info.st_dev;
    owner->ino = info.st_ino;
    return err;
}

bool dir_owned(const dir_owner_t *owner)
{
    char path[4096];
    struct stat info;
    snprintf(path, sizeof(path), "%s/owner", owner->dir);
    return !stat(path, &info) && info.st_dev == owner->dev && info.st_ino == owner->ino;
}

void dir_leave(dir_owner_t *owner)
{
    if (owner->fd >= 0)
        close(owner->fd);
    owner->fd = -1;
}
