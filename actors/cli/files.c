#include "actors/cli/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bus/digest.h"

enum { BLOCK_BYTES = 1 << 20, DEEPEST = 16, HEX = 64 };

static err_t failed(arena_t *arena, const char *what, const char *path, int code)
{
    return err_make(arena, code == ENOSPC || code == EDQUOT ? ERR_FULL : ERR_IO, "cannot %s %s: %s",
                    what, path, strerror(code));
}

files_kind_t files_kind(const char *path)
{
    struct stat info;
    if (lstat(path, &info))
        return FILES_ABSENT;
    return S_ISREG(info.st_mode) ? FILES_PLAIN : S_ISDIR(info.st_mode) ? FILES_DIR : FILES_OTHER;
}

err_t files_make_dir(arena_t *arena, const char *path)
{
    char *copy = arena_strdup(arena, path);
    for (char *at = copy + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (mkdir(copy, 0700) && errno != EEXIST)
            return failed(arena, "make", copy, errno);
        *at = '/';
    }
    return mkdir(copy, 0700) && errno != EEXIST ? failed(arena, "make", copy, errno) : err_ok();
}

err_t files_sync_dir(arena_t *arena, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = fd < 0 || fsync(fd) ? errno : 0;
    if (fd >= 0)
        close(fd);
    return code ? failed(arena, "sync", path, code) : err_ok();
}

static int write_all(int fd, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t put = write(fd, data + done, size - done);
        if (put < 0 && errno != EINTR)
            return errno;
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

err_t files_write(arena_t *arena, const char *path, const char *text, size_t size)
{
    const char *fresh = arena_printf(arena, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int code = fd < 0 ? errno : write_all(fd, text, size);
    if (!code && fsync(fd))
        code = errno;
    if (fd >= 0 && close(fd) && !code)
        code = errno;
    if (!code && rename(fresh, path))
        code = errno;
    return code ? failed(arena, "write", path, code) : err_ok();
}

static int copy_bytes(int from, int to, int64_t left, char *block)
{
    while (left > 0) {
        ssize_t got = read(from, block, left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES);
        if (got < 0 && errno != EINTR)
            return errno;
        if (!got)
            break; /* it was cut meanwhile */
        int code = got > 0 ? write_all(to, block, (size_t)got) : 0;
        if (code)
            return code;
        left -= got > 0 ? got : 0;
    }
    return fsync(to) ? errno : 0;
}

err_t files_copy(arena_t *arena, const char *from, const char *to)
{
    struct stat info;
    int source = open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (source < 0 || fstat(source, &info)) {
        int code = errno;
        if (source >= 0)
            close(source);
        return failed(arena, "read", from, code);
    }
    int target = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, info.st_mode & 0777);
    int code = target < 0 ? errno : 0;
    char *block = malloc(BLOCK_BYTES);
    if (!block)
        abort();
    if (!code)
        code = copy_bytes(source, target, info.st_size, block);
    free(block);
    close(source);
    if (target >= 0 && close(target) && !code)
        code = errno;
    return code ? failed(arena, "write", to, code) : err_ok();
}

err_t files_digest(arena_t *arena, const char *path, const char **hex)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info)) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return failed(arena, "read", path, code);
    }
    size_t size = (size_t)info.st_size;
    void *map = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int code = map == MAP_FAILED ? errno : 0;
    close(fd);
    if (code)
        return failed(arena, "read", path, code);
    *hex = digest_hex(arena, (bytes_t){map, size});
    if (map)
        munmap(map, size);
    return err_ok();
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path) ? errno : 0;
}

err_t files_remove(arena_t *arena, const char *path)
{
    if (files_kind(path) == FILES_ABSENT)
        return err_ok();
    int code = nftw(path, remove_entry, DEEPEST, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return code ? failed(arena, "remove", path, code < 0 ? errno : code) : err_ok();
}

const char *files_parent(arena_t *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? "." : slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

bool files_empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = dir != NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            empty = false;
    if (dir)
        closedir(dir);
    return empty;
}

/* ---- Walking ---- */

typedef struct walk {
    arena_t *arena;
    const char *root;
    files_fn_t *fn;
    void *ctx;
} walk_t;

static err_t walk_dir(const walk_t *walk, const char *dir, int depth)
{
    struct dirent **entries;
    const char *full = *dir ? arena_printf(walk->arena, "%s/%s", walk->root, dir) : walk->root;
    int count = scandir(full, &entries, NULL, alphasort);
    if (count < 0)
        return failed(walk->arena, "read", full, errno);
    err_t err = err_ok();
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !err_is(err)) {
            const char *path = arena_printf(walk->arena, "%s%s%s", dir, *dir ? "/" : "", name);
            files_kind_t kind = files_kind(arena_printf(walk->arena, "%s/%s", walk->root, path));
            if (walk->fn(walk->ctx, path, kind) && kind == FILES_DIR)
                err = depth < DEEPEST * 4 ? walk_dir(walk, path, depth + 1)
                                          : failed(walk->arena, "enter", path, ELOOP);
        }
        free(entries[i]);
    }
    free(entries);
    return err;
}

err_t files_walk(arena_t *arena, const char *root, files_fn_t *fn, void *ctx)
{
    walk_t walk = {arena, root, fn, ctx};
    return walk_dir(&walk, "", 0);
}

/* ---- Lists of digests ---- */

bool files_plain_path(const char *path)
{
    if (!*path || *path == '/' || strpbrk(path, "\n\r\\"))
        return false;
    for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL) {
        size_t size = strcspn(part, "/");
        if (!size || (size == 1 && *part == '.') || (size == 2 && !strncmp(part, "..", 2)))
            return false;
    }
    return true;
}

static int by_path(const void *one, const void *other)
{
    return strcmp(((const files_sum_t *)one)->path, ((const files_sum_t *)other)->path);
}

static bool read_sum(arena_t *arena, const char *line, size_t size, files_sum_t *sum)
{
    if (size < HEX + 3 || memchr(line, 0, size) || strspn(line, "0123456789abcdef") != HEX ||
        line[HEX] != ' ' || line[HEX + 1] != ' ')
        return false;
    *sum = (files_sum_t){arena_strndup(arena, line, HEX),
                         arena_strndup(arena, line + HEX + 2, size - HEX - 2)};
    return files_plain_path(sum->path);
}

err_t files_read_sums(arena_t *arena, const char *text, size_t size, files_sum_t **out,
                      size_t *count)
{
    size_t lines = 0, number = 0;
    const char *end = text + size;
    for (const char *at = text; at < end; at++)
        lines += *at == '\n';
    *out = ARENA_ARRAY(arena, files_sum_t, lines + 1);
    *count = 0;
    for (const char *at = text, *stop; at < end; at = stop + 1) {
        number++;
        stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop || !read_sum(arena, at, (size_t)(stop - at), &(*out)[*count]))
            return err_make(arena, ERR_PARSE, "line %zu of the list of digests is not sound",
                            number);
        (*count)++;
    }
    qsort(*out, *count, sizeof(**out), by_path);
    for (size_t i = 1; i < *count; i++)
        if (!strcmp((*out)[i].path, (*out)[i - 1].path))
            return err_make(arena, ERR_PARSE, "the list of digests names %s twice", (*out)[i].path);
    return err_ok();
}
