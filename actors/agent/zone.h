/* zone: time zones by their IANA name, from the TZif files of tzdata (RFC 8536), without touching
 * the TZ of the process. Thread: pure; zone_load reads a file. */
#ifndef AGENT_ZONE_H
#define AGENT_ZONE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/err.h"

typedef struct zone zone_t;

/* "UTC" needs no file. ERR_ARGUMENT says what a zone is called; ERR_PARSE: the file is none. The
 * zone lives in `arena`. `dir` is where tzdata lies, e.g. /usr/share/zoneinfo. */
err_t zone_load(arena_t *arena, const char *dir, const char *name, const zone_t **out);
/* From the bytes of a TZif file, version 2 or later. ERR_PARSE. */
err_t zone_parse(arena_t *arena, bytes_t file, const zone_t **out);

/* Seconds east of UTC at that time (seconds since 1970). */
int64_t zone_offset(const zone_t *zone, int64_t at_s);
/* When the clocks of the zone show `local_s` (civil time, counted as if it were UTC). A time that
 * comes twice is the first of the two; one that is skipped is the moment after the gap. */
int64_t zone_instant(const zone_t *zone, int64_t local_s);

/* Days since 1970 and the date. */
int64_t zone_days(int64_t year, int month, int day);
void zone_date(int64_t days, int64_t *year, int *month, int *day);

#endif
