#include "actors/health/volume.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/frame.h"

enum { FILES_MOST = 4096 };

const char *volume_dir(actor_t *actor, const char *company, arena_t *arena)
{
    const char *data = actor_data_dir(actor);
    bool own = !strcmp(company, actor_default_company(actor));
    return own ? arena_printf(arena, "%s/metrics", data)
               : arena_printf(arena, "%s/metrics/%s", data, company);
}

static bool is_metrics_file(const char *name)
{
    size_t size = strlen(name);
    return size < 60 && size > 7 && name[0] != '.' && strstr(name, ".ndjson") != NULL;
}

static bool recent(const char *name, int64_t now_ms, arena_t *arena)
{
    return !strncmp(name, record_time_text(arena, now_ms), 10) ||
           !strncmp(name, record_time_text(arena, now_ms - 86400000), 10);
}

static int by_name(const void *one, const void *other)
{
    return strcmp(((const volume_file_t *)one)->name, ((const volume_file_t *)other)->name);
}

void volume_list(actor_t *actor, const char *company, bool all, volume_files_t *files)
{
    arena_t *arena = arena_new();
    const char *dir = volume_dir(actor, company, arena);
    struct dirent *row;
    DIR *open_dir = opendir(dir);
    files->count = 0;
    while (open_dir && (row = readdir(open_dir)) && files->count < FILES_MOST) {
        if (!is_metrics_file(row->d_name) ||
            (!all && !recent(row->d_name, actor_wall_ms(actor), arena)))
            continue;
        files->items = realloc(files->items, (files->count + 1) * sizeof(volume_file_t));
        if (!files->items)
            abort();
        volume_file_t *file = &files->items[files->count++];
        snprintf(file->name, sizeof(file->name), "%s", row->d_name);
        snprintf(file->path, sizeof(file->path), "%s/%s", dir, row->d_name);
    }
    if (open_dir)
        closedir(open_dir);
    if (files->count)
        qsort(files->items, files->count, sizeof(volume_file_t), by_name);
    arena_destroy(&arena);
}

const char *volume_next_company(actor_t *actor, const char *at, arena_t *arena)
{
    const char *first = actor_default_company(actor), *best = NULL;
    struct dirent *row;
    if (!*at)
        return first;
    const char *after = strcmp(at, first) ? at : "";
    DIR *open_dir = opendir(volume_dir(actor, first, arena));
    while (open_dir && (row = readdir(open_dir)))
        if ((row->d_type == DT_DIR || row->d_type == DT_UNKNOWN) &&
            frame_company_name(row->d_name) && strcmp(row->d_name, first) != 0 &&
            strcmp(row->d_name, after) > 0 && (!best || strcmp(row->d_name, best) < 0))
            best = arena_strdup(arena, row->d_name);
    if (open_dir)
        closedir(open_dir);
    return best;
}

/* ---- One file ---- */

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash_head(int fd, size_t size)
{
    uint8_t head[VOLUME_HEAD_BYTES];
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    ssize_t got = pread(fd, head, size, 0);
    for (ssize_t i = 0; i < got; i++)
        hash = (hash ^ head[i]) * UINT64_C(0x100000001b3);
    return hash;
}

bool volume_same(int fd, int64_t file_size, const volume_place_t *place)
{
    return place->offset <= file_size && place->head_size <= VOLUME_HEAD_BYTES &&
           hash_head(fd, place->head_size) == place->head_hash;
}

size_t volume_read(int fd, int64_t file_size, const volume_place_t *place, arena_t *arena,
                   const char **text, volume_place_t *next)
{
    int64_t left = file_size > place->offset ? file_size - place->offset : 0;
    size_t size = left < VOLUME_SLICE_BYTES ? (size_t)left : VOLUME_SLICE_BYTES;
    char *slice = size ? arena_alloc(arena, size) : NULL; /* most looks find nothing new */
    ssize_t got = size ? pread(fd, slice, size, place->offset) : 0;
    const char *last = got > 0 ? memrchr(slice, '\n', (size_t)got) : NULL;
    size_t whole = last ? (size_t)(last - slice) + 1 : 0;
    *text = slice;
    if (!whole && got == VOLUME_SLICE_BYTES)
        whole = VOLUME_SLICE_BYTES;
    next->offset = place->offset + (int64_t)whole;
    next->head_size = next->offset < VOLUME_HEAD_BYTES ? (uint64_t)next->offset : VOLUME_HEAD_BYTES;
    next->head_hash = hash_head(fd, next->head_size);
    return whole;
}
