/* volume: the metrics files of a volume, metrics/YYYY-MM-DD.ndjson and metrics/<company>/…, as
 * whoever reads them sees them. Thread: one actor's. */
#ifndef ACTORS_HEALTH_VOLUME_H
#define ACTORS_HEALTH_VOLUME_H

#include "bus/actor.h"

enum { VOLUME_HEAD_BYTES = 64, VOLUME_SLICE_BYTES = 1 << 18 };

typedef struct volume_file {
    char name[64];
    char path[4400];
} volume_file_t;

/* Grows as needed; free(items). */
typedef struct volume_files {
    volume_file_t *items;
    size_t count;
} volume_files_t;

/* How far a file was read. The first bytes tell whether it is still the same: inodes are used
 * again, and files are written anew. */
typedef struct volume_place {
    int64_t offset;
    uint64_t head_size, head_hash;
} volume_place_t;

/* metrics/ of the company. */
const char *volume_dir(actor_t *actor, const char *company, arena_t *arena);
/* Its files by name; without `all` only those of today and yesterday. */
void volume_list(actor_t *actor, const char *company, bool all, volume_files_t *files);
/* The company after `at`: the default one first (at ""), then the directories by name; NULL: none.
 */
const char *volume_next_company(actor_t *actor, const char *at, arena_t *arena);

/* The next whole lines of an open file behind `place`, at most VOLUME_SLICE_BYTES, as `*text` in
 * the arena, and the place behind them. Returns their size; 0: nothing new, or the last line is
 * being written. A line that fills the slice is passed over as it is. */
size_t volume_read(int fd, int64_t file_size, const volume_place_t *place, arena_t *arena,
                   const char **text, volume_place_t *next);
/* Is this still the file of which the place speaks, and not shorter? */
bool volume_same(int fd, int64_t file_size, const volume_place_t *place);

#endif
