/* cron: when a line of five fields is due, in a time zone.
 *
 *     minute 0-59   hour 0-23   day 1-31   month 1-12 or JAN-DEC   weekday 0-7 or SUN-SAT
 *
 * Each field: * or a list of values and ranges, with steps after * and ranges (0-30/10). Also
 * @hourly @daily @midnight @weekly @monthly @yearly @annually. As in every cron, a day counts when
 * day or weekday fits if both are given, and when both fit if one of them begins with *.
 *
 * When clocks change: a line whose hours are all (*) goes by elapsed time. Any other one is due
 * once for each local time: a time that comes twice counts the first time, one that is skipped is
 * due at the moment after the gap (several skipped ones together once).
 * Thread: pure.
 */
#ifndef AGENT_CRON_H
#define AGENT_CRON_H

#include "actors/agent/zone.h"

typedef struct cron {
    uint64_t minutes, hours, days, months, weekdays; /* a bit for each value */
    bool star_day, star_weekday;
} cron_t;

/* ERR_ARGUMENT says which field is wrong and what to write. */
err_t cron_parse(arena_t *arena, const char *text, cron_t *out);
/* The first due time after `after_ms`; false when there is none in 40 years. */
bool cron_next(const cron_t *cron, const zone_t *zone, int64_t after_ms, int64_t *next_ms);

#endif
