/* Times on the wire: RFC 3339 text, or ms since 1970. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/record.h"

/* Days since 1970-01-01 of a date in the Gregorian calendar; the method of Howard Hinnant,
 * https://howardhinnant.github.io/date_algorithms.html#days_from_civil */
static int64_t days_of(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

/* Exactly that many digits. */
static bool digits(const char **text, int count, int *number)
{
    for (*number = 0; count; count--, (*text)++) {
        if (**text < '0' || **text > '9')
            return false;
        *number = *number * 10 + (**text - '0');
    }
    return true;
}

static bool mark(const char **text, char wanted)
{
    if (**text != wanted)
        return false;
    (*text)++;
    return true;
}

/* `Z`, `+hh:mm`, `-hh:mm` or nothing, which counts as UTC. */
static bool zone(const char *text, int64_t *minutes)
{
    int hours, rest;
    *minutes = 0;
    if (!*text || !strcmp(text, "Z") || !strcmp(text, "z"))
        return true;
    bool west = *text == '-';
    if (!mark(&text, west ? '-' : '+') || !digits(&text, 2, &hours) || !mark(&text, ':') ||
        !digits(&text, 2, &rest) || *text || hours > 23 || rest > 59)
        return false;
    *minutes = (west ? -1 : 1) * (hours * 60 + rest);
    return true;
}

/* Digits beyond ms are read and dropped. */
static bool fraction(const char **text, int64_t *ms)
{
    *ms = 0;
    if (!mark(text, '.'))
        return true;
    if (**text < '0' || **text > '9')
        return false;
    for (int64_t scale = 100; **text >= '0' && **text <= '9'; (*text)++, scale /= 10)
        *ms += (**text - '0') * scale;
    return true;
}

static bool valid_date(int year, int month, int day)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (month < 1 || month > 12 || day < 1 || day > days[month - 1])
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month != 2 || day < 29 || leap;
}

/* hh:mm:ss, maybe a fraction, maybe an offset: ms since midnight in UTC. Second 60 is a leap
 * second and counts as the next one. */
static bool clock_ms(const char *text, int64_t *ms)
{
    int hour, minute, second;
    int64_t part, offset;
    if (!digits(&text, 2, &hour) || !mark(&text, ':') || !digits(&text, 2, &minute) ||
        !mark(&text, ':') || !digits(&text, 2, &second) || hour > 23 || minute > 59 ||
        second > 60 || !fraction(&text, &part) || !zone(text, &offset))
        return false;
    *ms = ((hour * 60 + minute - offset) * 60 + second) * 1000 + part;
    return true;
}

static bool plain_number(const char *text, int64_t *number)
{
    size_t sign = *text == '-', count = strspn(text + sign, "0123456789");
    if (!count || text[sign + count] || (count == 4 && !sign))
        return false;
    errno = 0;
    *number = strtoll(text, NULL, 10);
    return !errno;
}

bool record_time(const char *text, int64_t *ms)
{
    int year, month, day;
    int64_t clock = 0;
    if (plain_number(text, ms))
        return true;
    if (!digits(&text, 4, &year) || !mark(&text, '-') || !digits(&text, 2, &month) ||
        !mark(&text, '-') || !digits(&text, 2, &day) || !valid_date(year, month, day))
        return false;
    if (*text && ((*text != 'T' && *text != 't' && *text != ' ') || !clock_ms(text + 1, &clock)))
        return false;
    *ms = days_of(year, month, day) * 86400000 + clock;
    return true;
}

const char *record_time_text(arena_t *arena, int64_t ms)
{
    int64_t floor_s = ms / 1000 - (ms % 1000 < 0);
    time_t seconds = (time_t)floor_s;
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || tm.tm_year < -1900 || tm.tm_year > 9999 - 1900)
        return arena_printf(arena, "%lld", (long long)ms);
    return arena_printf(arena, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
                        tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                        (int)(ms - floor_s * 1000));
}
