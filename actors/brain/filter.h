/* filter: which memories may be answers, by their facts.
 *
 * A filter is a map. Each entry must hold: a name, and either a value to equal, or a map of
 * conditions: eq ne gt gte lt lte in exists. Names are those of metadata; author, thread, taskId,
 * type, source_agency, tokens, duration and timestamp mean the memory's own; id, stored_by and
 * related_episode_id as well, unless metadata has such a name. Times may be text. What is inside an
 * object is named with a dot.
 *
 *     {"project": "apollo", "cost": {"gte": 10, "lt": 20}, "state": {"in": ["open", "held"]}}
 *
 * A list in metadata holds when one of its items does. Numbers compare with numbers, texts with
 * texts by bytes; anything else only by equality. Thread: pure.
 */
#ifndef ACTORS_BRAIN_FILTER_H
#define ACTORS_BRAIN_FILTER_H

#include <stdbool.h>

#include "proto/arena.h"
#include "proto/err.h"

/* The filter as filter_passes takes it, in the arena: its times are ms. ERR_ARGUMENT names what is
 * wrong: no map, unknown condition, no time, more than 64 names. */
err_t filter_read(bytes_t filter, arena_t *arena, bytes_t *out);

/* Does a stored episode (a msgpack map) pass a filter of filter_read? */
bool filter_passes(bytes_t filter, bytes_t episode);

#endif
