#include "actors/agent/cron.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { DAY_S = 86400, DAYS_MOST = 41 * 366, ELAPSED_MOST = DAYS_MOST + 3000, FIELDS = 5 };

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL",
                                          "AUG", "SEP", "OCT", "NOV", "DEC", NULL};
static const char *const weekday_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL};

typedef struct field_rule {
    const char *name;
    int least, most;
    const char *const *names; /* the first one is `least` */
} field_rule_t;

static const field_rule_t rules[FIELDS] = {{"minute", 0, 59, NULL},
                                           {"hour", 0, 23, NULL},
                                           {"day", 1, 31, NULL},
                                           {"month", 1, 12, month_names},
                                           {"weekday", 0, 7, weekday_names}};

static const struct {
    const char *name, *line;
} nicknames[] = {{"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
                 {"@weekly", "0 0 * * 0"},  {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
                 {"@annually", "0 0 1 1 *"}};

static bool read_value(const field_rule_t *rule, const char **at, int *out)
{
    size_t size = strspn(*at, "0123456789");
    if (size) {
        *out = size <= 4 ? atoi(*at) : 9999;
        *at += size;
        return *out >= rule->least && *out <= rule->most;
    }
    for (int i = 0; rule->names && rule->names[i]; i++)
        if (!strncasecmp(*at, rule->names[i], 3)) {
            *out = rule->least + i;
            *at += 3;
            return true;
        }
    return false;
}

/* One of the list: *, a, a-b, with /step; up to , or the end. */
static bool read_item(const field_rule_t *rule, const char **at, uint64_t *bits)
{
    int first = rule->least, last = rule->most, step = 1;
    bool range = true;
    if (**at == '*') {
        (*at)++;
    } else {
        if (!read_value(rule, at, &first))
            return false;
        last = first;
        range = **at == '-';
        if (range && ((*at)++, !read_value(rule, at, &last)))
            return false;
    }
    if (**at == '/') {
        size_t size = strspn(++*at, "0123456789");
        step = size && size <= 4 ? atoi(*at) : 0;
        *at += size;
        if (!range)
            return false;
    }
    if (first > last || step < 1)
        return false;
    for (int value = first; value <= last; value += step)
        *bits |= UINT64_C(1) << value;
    return true;
}

static err_t read_field(arena_t *arena, const field_rule_t *rule, const char *text, uint64_t *bits)
{
    const char *at = text;
    *bits = 0;
    while (read_item(rule, &at, bits)) {
        if (!*at)
            return err_ok();
        if (*at++ != ',')
            break;
    }
    return err_make(arena, ERR_ARGUMENT,
                    "the %s '%.40s' cannot be read: write *, numbers from %d to %d%s, ranges that "
                    "go up (%d-%d), lists (a,b) and steps after * or a range (*/2)",
                    rule->name, text, rule->least, rule->most, rule->names ? " or names" : "",
                    rule->least, rule->least + 2);
}

/* Does any of the months have any of the days? */
static bool ever(const cron_t *cron)
{
    static const int longest[] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (!cron->star_day && !cron->star_weekday)
        return true; /* a weekday comes in every month */
    for (int month = 1; month <= 12; month++)
        for (int day = 1; day <= longest[month]; day++)
            if (cron->months >> month & 1 && cron->days >> day & 1)
                return true;
    return false;
}

err_t cron_parse(arena_t *arena, const char *text, cron_t *out)
{
    const char *fields[FIELDS + 1] = {NULL};
    size_t count = 0;
    *out = (cron_t){0};
    text += strspn(text, " \t");
    if (*text == '@') {
        const char *line = NULL;
        for (size_t i = 0; i < sizeof(nicknames) / sizeof(*nicknames); i++)
            if (!strcasecmp(text, nicknames[i].name))
                line = nicknames[i].line;
        if (!line)
            return err_make(arena, ERR_ARGUMENT,
                            "'%.40s' is unknown: there are @hourly, @daily, @weekly, @monthly and "
                            "@yearly; for an interval use every_ms",
                            text);
        text = line;
    }
    char *rest = arena_strdup(arena, text), *save = NULL;
    for (char *part; (part = strtok_r(rest, " \t", &save)) != NULL; rest = NULL) {
        if (count <= FIELDS)
            fields[count] = part;
        if (++count > FIELDS)
            break;
    }
    if (count != FIELDS)
        return err_make(arena, ERR_ARGUMENT,
                        "a cron line has five fields (minute hour day month weekday), as in "
                        "'30 6 * * MON-FRI'; '%.80s' has %s",
                        text, count > FIELDS ? "more" : "less");
    uint64_t *bits[FIELDS] = {&out->minutes, &out->hours, &out->days, &out->months, &out->weekdays};
    for (int i = 0; i < FIELDS; i++) {
        err_t err = read_field(arena, &rules[i], fields[i], bits[i]);
        if (err_is(err))
            return err;
    }
    if (out->weekdays >> 7 & 1) /* 7 is Sunday too */
        out->weekdays |= 1;
    out->star_day = fields[2][0] == '*';
    out->star_weekday = fields[4][0] == '*';
    if (!ever(out))
        return err_make(arena, ERR_ARGUMENT, "'%.80s' never comes: no such month has such a day",
                        text);
    return err_ok();
}

static int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

static bool fits_day(const cron_t *cron, int64_t days)
{
    int64_t year;
    int month, day;
    zone_date(days, &year, &month, &day);
    int64_t weekday = days + 4 - floor_div(days + 4, 7) * 7;
    bool by_day = cron->days >> day & 1, by_weekday = cron->weekdays >> weekday & 1;
    bool fits = cron->star_day || cron->star_weekday ? by_day && by_weekday : by_day || by_weekday;
    return fits && cron->months >> month & 1;
}

/* Every hour: by elapsed minutes, whatever the clocks do. */
static bool next_elapsed(const cron_t *cron, const zone_t *zone, int64_t after_s, int64_t *next_s)
{
    int64_t at = floor_div(after_s, 60) * 60 + 60;
    for (int i = 0; i < ELAPSED_MOST; i++) {
        int64_t local = at + zone_offset(zone, at), day = floor_div(local, DAY_S);
        if (!fits_day(cron, day)) {
            int64_t morning = zone_instant(zone, (day + 1) * DAY_S);
            at = morning > at ? morning : at + 60;
            continue;
        }
        if (cron->minutes >> (local - day * DAY_S) / 60 % 60 & 1) {
            *next_s = at;
            return true;
        }
        at += 60;
    }
    return false;
}

static bool next_local(const cron_t *cron, const zone_t *zone, int64_t after_s, int64_t *next_s)
{
    int64_t local = after_s + zone_offset(zone, after_s), day = floor_div(local, DAY_S);
    int64_t from = (local - day * DAY_S) / 60;
    for (int i = 0; i < DAYS_MOST; i++, day++, from = 0) {
        if (!fits_day(cron, day))
            continue;
        for (int64_t minute = from; minute < 24 * 60; minute++) {
            if (!(cron->hours >> minute / 60 & 1) || !(cron->minutes >> minute % 60 & 1))
                continue;
            *next_s = zone_instant(zone, day * DAY_S + minute * 60);
            if (*next_s > after_s)
                return true;
        }
    }
    return false;
}

bool cron_next(const cron_t *cron, const zone_t *zone, int64_t after_ms, int64_t *next_ms)
{
    int64_t after_s = floor_div(after_ms, 1000), next_s = 0;
    bool all_hours = (cron->hours & 0xffffff) == 0xffffff;
    bool found = all_hours ? next_elapsed(cron, zone, after_s, &next_s)
                           : next_local(cron, zone, after_s, &next_s);
    *next_ms = next_s * 1000;
    return found;
}
