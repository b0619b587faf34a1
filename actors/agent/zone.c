#include "actors/agent/zone.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 44, FILE_MOST = 1 << 20, DAY_S = 86400, OFFSET_MOST = 26 * 3600 };

/* When a year's change happens, as a footer says it. */
typedef struct change_rule {
    enum { RULE_MONTH, RULE_JULIAN, RULE_DAY } kind;
    int month, week, day;
    int64_t time_s;
} change_rule_t;

struct zone {
    const int64_t *times; /* ascending */
    const int64_t *after; /* the offset from that time on */
    size_t count;
    int64_t first;     /* the offset before the first change */
    bool ruled, saves; /* the rule counts after the last change; with summer time */
    int64_t std_s, dst_s;
    change_rule_t start, end;
};

/* ---- dates -------------------------------------------------------------------------------- */

int64_t zone_days(int64_t year, int month, int day)
{
    year -= month <= 2; /* the year begins in March, so that the odd day is its last */
    int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void zone_date(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
    int64_t year_of = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year_of + year_of / 4 - year_of / 100);
    int64_t shifted = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = year_of + era * 400 + (*month <= 2);
}

static int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

static bool leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* ---- the footer: a POSIX TZ text ---------------------------------------------------------- */

static bool read_number(const char **at, int least, int most, int *out)
{
    int value = 0, digits = 0;
    for (; isdigit((unsigned char)**at) && digits < 4; digits++, (*at)++)
        value = value * 10 + (**at - '0');
    *out = value;
    return digits > 0 && value >= least && value <= most;
}

/* [+-]h[:m[:s]] */
static bool read_time(const char **at, int64_t *out)
{
    int sign = 1, part[3] = {0};
    if (**at == '+' || **at == '-')
        sign = *(*at)++ == '-' ? -1 : 1;
    for (int i = 0; i < 3; i++) {
        if (i && *(*at)++ != ':')
            return false;
        if (!read_number(at, 0, i ? 59 : 167, &part[i]))
            return false;
        if (**at != ':')
            break;
    }
    *out = sign * (int64_t)(part[0] * 3600 + part[1] * 60 + part[2]);
    return true;
}

static bool skip_name(const char **at)
{
    const char *begin = *at;
    if (**at == '<') {
        while (**at && **at != '>')
            (*at)++;
        return *(*at)++ == '>';
    }
    while (isalpha((unsigned char)**at))
        (*at)++;
    return *at - begin >= 3;
}

static bool read_rule(const char **at, change_rule_t *rule)
{
    *rule = (change_rule_t){.kind = RULE_DAY, .time_s = 7200};
    if (*(*at)++ != ',')
        return false;
    if (**at == 'M') {
        (*at)++;
        rule->kind = RULE_MONTH;
        if (!read_number(at, 1, 12, &rule->month) || *(*at)++ != '.' ||
            !read_number(at, 1, 5, &rule->week) || *(*at)++ != '.' ||
            !read_number(at, 0, 6, &rule->day))
            return false;
    } else {
        bool julian = **at == 'J';
        *at += julian;
        rule->kind = julian ? RULE_JULIAN : RULE_DAY;
        if (!read_number(at, julian, 365, &rule->day))
            return false;
    }
    if (**at != '/')
        return true;
    (*at)++;
    return read_time(at, &rule->time_s);
}

static bool read_footer(zone_t *zone, const char *text)
{
    int64_t west;
    if (!*text)
        return true; /* the last offset stays */
    if (!skip_name(&text) || !read_time(&text, &west) || llabs(west) > OFFSET_MOST)
        return false;
    zone->ruled = true;
    zone->std_s = -west;
    if (!*text)
        return true;
    zone->saves = true;
    zone->dst_s = zone->std_s + 3600;
    if (!skip_name(&text))
        return false;
    if (*text != ',') {
        if (!read_time(&text, &west) || llabs(west) > OFFSET_MOST)
            return false;
        zone->dst_s = -west;
    }
    return read_rule(&text, &zone->start) && read_rule(&text, &zone->end) && !*text;
}

/* Civil time of the change in that year. */
static int64_t rule_time(const change_rule_t *rule, int64_t year)
{
    int64_t days = zone_days(year, 1, 1);
    if (rule->kind == RULE_JULIAN) {
        days += rule->day - 1 + (leap(year) && rule->day >= 60);
    } else if (rule->kind == RULE_DAY) {
        days += rule->day;
    } else {
        int64_t first = zone_days(year, rule->month, 1);
        int64_t next =
            rule->month == 12 ? zone_days(year + 1, 1, 1) : zone_days(year, rule->month + 1, 1);
        int64_t weekday = (first + 4) - floor_div(first + 4, 7) * 7;
        days = first + (rule->day - weekday + 7) % 7 + (rule->week - 1) * 7;
        while (days >= next)
            days -= 7;
    }
    return days * DAY_S + rule->time_s;
}

static int64_t ruled_offset(const zone_t *zone, int64_t at_s)
{
    int64_t year;
    int month, day;
    if (!zone->saves)
        return zone->std_s;
    zone_date(floor_div(at_s + zone->std_s, DAY_S), &year, &month, &day);
    int64_t start = rule_time(&zone->start, year) - zone->std_s;
    int64_t end = rule_time(&zone->end, year) - zone->dst_s;
    bool saving = start < end ? at_s >= start && at_s < end : at_s >= start || at_s < end;
    return saving ? zone->dst_s : zone->std_s;
}

/* ---- the file ----------------------------------------------------------------------------- */

static uint64_t big_endian(const uint8_t *at, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value = value << 8 | at[i];
    return value;
}

typedef struct counts {
    size_t isut, isstd, leaps, times, types, chars;
} counts_t;

static bool read_header(bytes_t file, counts_t *counts)
{
    if (file.size < HEADER || memcmp(file.data, "TZif", 4) != 0)
        return false;
    size_t *fields[] = {&counts->isut,  &counts->isstd, &counts->leaps,
                        &counts->times, &counts->types, &counts->chars};
    for (int i = 0; i < 6; i++) {
        *fields[i] = (size_t)big_endian(file.data + 20 + 4 * i, 4);
        if (*fields[i] > FILE_MOST)
            return false;
    }
    return true;
}

static size_t block_size(const counts_t *counts, size_t time_size)
{
    return counts->times * time_size + counts->times + counts->types * 6 + counts->chars +
           counts->leaps * (time_size + 4) + counts->isstd + counts->isut;
}

static bytes_t skip(bytes_t file, size_t size)
{
    return (bytes_t){file.data + size, file.size - size};
}

static bool read_changes(arena_t *arena, bytes_t block, const counts_t *counts, zone_t *zone)
{
    int64_t *times = ARENA_ARRAY(arena, int64_t, counts->times + 1);
    int64_t *after = ARENA_ARRAY(arena, int64_t, counts->times + 1);
    const uint8_t *types = block.data + counts->times * 8, *rows = types + counts->times;
    for (size_t i = 0; i < counts->times; i++) {
        times[i] = (int64_t)big_endian(block.data + i * 8, 8);
        if (types[i] >= counts->types || (i && times[i] <= times[i - 1]))
            return false;
        after[i] = (int32_t)big_endian(rows + types[i] * 6, 4);
        if (llabs(after[i]) > OFFSET_MOST)
            return false;
    }
    zone->times = times;
    zone->after = after;
    zone->count = counts->times;
    zone->first = (int32_t)big_endian(rows, 4);
    return llabs(zone->first) <= OFFSET_MOST;
}

err_t zone_parse(arena_t *arena, bytes_t file, const zone_t **out)
{
    static const err_t bad = {ERR_PARSE, "it is no TZif file of version 2 or later"};
    zone_t *zone = ARENA_NEW(arena, zone_t);
    counts_t counts;
    *out = NULL;
    if (!read_header(file, &counts) || file.data[4] < '2' ||
        HEADER + block_size(&counts, 4) > file.size)
        return bad;
    file = skip(file, HEADER + block_size(&counts, 4));
    if (!read_header(file, &counts) || !counts.types || HEADER + block_size(&counts, 8) > file.size)
        return bad;
    if (!read_changes(arena, skip(file, HEADER), &counts, zone))
        return bad;
    file = skip(file, HEADER + block_size(&counts, 8));
    if (file.size < 2 || file.data[0] != '\n' || file.data[file.size - 1] != '\n')
        return bad;
    char *footer = arena_strndup(arena, (const char *)file.data + 1, file.size - 2);
    if (!read_footer(zone, footer))
        return bad;
    *out = zone;
    return err_ok();
}

static bool good_name(const char *name)
{
    size_t size = strlen(name);
    return size && size <= 64 && isalpha((unsigned char)name[0]) &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/") ==
               size &&
           !strstr(name, "//") && name[size - 1] != '/';
}

err_t zone_load(arena_t *arena, const char *dir, const char *name, const zone_t **out)
{
    struct stat info;
    if (!strcmp(name, "UTC")) {
        *out = ARENA_NEW(arena, zone_t); /* no change, offset 0 */
        return err_ok();
    }
    int fd =
        good_name(name) ? open(arena_printf(arena, "%s/%s", dir, name), O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0 || fstat(fd, &info) || !S_ISREG(info.st_mode) || info.st_size > FILE_MOST) {
        if (fd >= 0)
            close(fd);
        return err_make(arena, ERR_ARGUMENT,
                        "there is no time zone '%.64s' in %s: use a name such as UTC, "
                        "Europe/Berlin or America/New_York%s",
                        name, dir,
                        access(dir, R_OK) ? " (the package tzdata is not installed, so only UTC "
                                            "is known)"
                                          : "");
    }
    uint8_t *data = arena_alloc(arena, (size_t)info.st_size + 1);
    ssize_t got;
    do
        got = read(fd, data, (size_t)info.st_size);
    while (got < 0 && errno == EINTR);
    close(fd);
    err_t err =
        got < 0 ? err_of(ERR_IO, NULL) : zone_parse(arena, (bytes_t){data, (size_t)got}, out);
    if (err_is(err))
        return err_make(arena, ERR_ARGUMENT, "the time zone '%s' cannot be used: %s", name,
                        err_what(err));
    return err;
}

/* ---- asking ------------------------------------------------------------------------------- */

int64_t zone_offset(const zone_t *zone, int64_t at_s)
{
    size_t low = 0, high = zone->count; /* the first change after at_s */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (zone->times[middle] <= at_s)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == zone->count && zone->ruled)
        return ruled_offset(zone, at_s);
    return low ? zone->after[low - 1] : zone->first;
}

int64_t zone_instant(const zone_t *zone, int64_t local_s)
{
    int64_t before = zone_offset(zone, local_s - DAY_S - OFFSET_MOST / 2);
    int64_t after = zone_offset(zone, local_s + DAY_S + OFFSET_MOST / 2);
    int64_t one = local_s - before, other = local_s - after;
    bool good = zone_offset(zone, one) == before, fine = zone_offset(zone, other) == after;
    if (good && fine)
        return one < other ? one : other;
    if (good || fine)
        return good ? one : other;
    int64_t low = one < other ? one : other, high = one < other ? other : one;
    int64_t was = zone_offset(zone, low);
    if (zone_offset(zone, high) == was)
        return high;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (zone_offset(zone, middle) == was)
            low = middle;
        else
            high = middle;
    }
    return high;
}
