/* files: whole files and trees, made durable, and lists of their digests. What is written is on
 * disk when a function returns, but for the names in folders: files_sync_dir. Sentences of errors
 * live in the given arena. Thread: any. */
#ifndef ACTORS_CLI_FILES_H
#define ACTORS_CLI_FILES_H

#include "proto/arena.h"
#include "proto/err.h"

/* What a path is; links are not followed. */
typedef enum files_kind { FILES_ABSENT, FILES_PLAIN, FILES_DIR, FILES_OTHER } files_kind_t;
files_kind_t files_kind(const char *path);

/* ERR_IO, ERR_FULL. */
err_t files_make_dir(arena_t *arena, const char *path); /* with those above it; it may be there */
err_t files_sync_dir(arena_t *arena, const char *path);
err_t files_write(arena_t *arena, const char *path, const char *text, size_t size);
/* The bytes that the file has when it is opened, and its mode. `to` must not exist. */
err_t files_copy(arena_t *arena, const char *from, const char *to);
/* SHA-256 as hex. */
err_t files_digest(arena_t *arena, const char *path, const char **hex);
/* With everything below it; nothing to do when it is absent. */
err_t files_remove(arena_t *arena, const char *path);
bool files_empty_dir(const char *path);
const char *files_parent(arena_t *arena, const char *path);

/* Every entry below `root`, by name; `path` is relative to it. A folder is entered when `fn`
 * returns true for it. */
typedef bool files_fn_t(void *ctx, const char *path, files_kind_t kind);
err_t files_walk(arena_t *arena, const char *root, files_fn_t *fn, void *ctx);

/* A list as sha256sum(1) writes and checks it. */
typedef struct files_sum {
    const char *hex, *path;
} files_sum_t;

/* A path that stays inside its folder and can be written in the list. */
bool files_plain_path(const char *path);
/* ERR_PARSE with the line: also for a path that leads out of the folder, or comes twice. */
err_t files_read_sums(arena_t *arena, const char *text, size_t size, files_sum_t **out,
                      size_t *count);

#endif
