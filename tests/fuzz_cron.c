/* Any bytes as a cron line and as a time zone file: no crash, and a due time is later than now. */
#include <stdlib.h>
#include <string.h>

#include "actors/agent/cron.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    arena_t *arena = arena_new();
    const zone_t *zone = NULL, *utc;
    cron_t cron;
    int64_t next;
    size_t line = 0;
    while (line < size && data[line] != '\n')
        line++;
    err_t err = zone_load(arena, "/nowhere", "UTC", &utc);
    if (line < size)
        err = zone_parse(arena, (bytes_t){data + line + 1, size - line - 1}, &zone);
    if (zone)
        for (int64_t at = -4000000000; at < 9000000000; at += 1000000007)
            zone_instant(zone, at);
    if (!zone)
        zone = utc;
    err = cron_parse(arena, arena_strndup(arena, (const char *)data, line), &cron);
    if (!err_is(err) && cron_next(&cron, zone, INT64_C(1790000000000), &next) &&
        next <= INT64_C(1790000000000) - 1000)
        abort();
    arena_destroy(&arena);
    return 0;
}
