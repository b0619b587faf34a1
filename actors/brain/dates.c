#include "actors/brain/dates.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/brain/date_words.h"
#include "actors/brain/words.h"

#define DAY_MS INT64_C(86400000)

enum { TOKENS_MAX = 256, TOLD_MAX = 128, WORD_MAX = 32, YEAR_FIRST = 1900, YEAR_LAST = 2099 };

/* ---- times ---- */

static bool calendar(int64_t ms, struct tm *tm)
{
    time_t seconds = (time_t)(ms / 1000 - (ms % 1000 < 0));

    return gmtime_r(&seconds, tm) && tm->tm_year >= 0 - 1900 && tm->tm_year <= 9999 - 1900;
}

size_t dates_of(arena_t *arena, int64_t ms, const char *terms[DATES_OF])
{
    struct tm tm;

    if (!calendar(ms, &tm))
        return 0;
    int year = tm.tm_year + 1900, month = tm.tm_mon + 1;
    terms[0] = arena_printf(arena, "@%d-%02d-%02d", year, month, tm.tm_mday);
    terms[1] = arena_printf(arena, "@-%02d-%02d", month, tm.tm_mday);
    terms[2] = arena_printf(arena, "@%d-%02d", year, month);
    terms[3] = arena_printf(arena, "@-%02d", month);
    terms[4] = arena_printf(arena, "@%d", year);
    terms[5] = arena_printf(arena, "@w%d", tm.tm_wday);
    return DATES_OF;
}

/* ---- tokens ---- */

typedef struct token {
    char word[WORD_MAX]; /* in small letters; "" for numbers */
    int number;          /* -1: no number */
    uint8_t digits;      /* of the number */
    char before;         /* what divides it from the one before: 0 nothing, a blank, or a sign */
    bool capital;
    meaning_t meaning;
    uint8_t value;
    bool doubtful;
} token_t;

typedef struct reading {
    arena_t *arena;
    int64_t now_ms;
    date_terms_t *out;
    token_t *tokens;
    size_t count, most;
} reading_t;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
}

/* 年 月 日 号 and 년 월 일: they end a number. */
static bool unit_glyph(const char *at, char *unit)
{
    static const struct {
        const char *glyph;
        char unit;
    } units[] = {{"年", 'y'}, {"月", 'm'}, {"日", 'd'}, {"号", 'd'},
                 {"년", 'y'}, {"월", 'm'}, {"일", 'd'}};

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strncmp(at, units[i].glyph, 3) == 0) {
            *unit = units[i].unit;
            return true;
        }
    return false;
}

static void know(token_t *token)
{
    const say_t *say = date_word(token->word);

    if (!say)
        return;
    token->meaning = (meaning_t)say->meaning;
    token->value = say->value;
    token->doubtful = say->doubtful;
}

static char divider(const char *from, const char *to)
{
    char sign = 0;

    for (const char *c = from; c < to; c++)
        if (*c != ' ' && *c != '\t')
            sign = sign ? '?' : *c;
    return sign ? sign : from < to ? ' ' : 0;
}

static void read_tokens(reading_t *in, const char *text)
{
    const char *end = text;

    for (const char *at = text; *at && in->count < in->most;) {
        const char *from = at;
        if (is_digit(*at)) {
            while (is_digit(*at))
                at++;
        } else if (is_letter(*at)) {
            while (is_letter(*at) || (*at == '\'' && is_letter(at[1])))
                at++;
        } else {
            at++;
            continue;
        }
        token_t *token = &in->tokens[in->count++];
        size_t size = (size_t)(at - from);
        *token = (token_t){.number = -1, .before = divider(end, from)};
        if (is_digit(*from) && size <= 4) {
            token->number = atoi(from);
            token->digits = (uint8_t)size;
        } else if (!is_digit(*from)) {
            words_small(from, size, token->word, WORD_MAX);
            token->capital = *from >= 'A' && *from <= 'Z';
            know(token);
        }
        end = at;
    }
}

/* ---- what is meant ---- */

static void mean(reading_t *in, const char *term, float boost)
{
    date_terms_t *out = in->out;

    for (size_t i = 0; i < out->count; i++)
        if (strcmp(out->items[i].term, term) == 0) {
            if (out->items[i].boost < boost)
                out->items[i].boost = boost;
            return;
        }
    if (out->count < DATES_MAX)
        out->items[out->count++] = (date_term_t){term, boost};
}

/* year 0: any. day 0: the whole month. */
static bool mean_date(reading_t *in, int year, int month, int day)
{
    if (month < 1 || month > 12 || day < 0 || day > 31 ||
        (year && (year < YEAR_FIRST || year > YEAR_LAST)))
        return false;
    if (year && day) {
        mean(in, arena_printf(in->arena, "@%d-%02d-%02d", year, month, day), 1);
        mean(in, arena_printf(in->arena, "@%d-%02d", year, month), 0.3F);
    } else if (year) {
        mean(in, arena_printf(in->arena, "@%d-%02d", year, month), 1);
    } else if (day) {
        mean(in, arena_printf(in->arena, "@-%02d-%02d", month, day), 1);
        mean(in, arena_printf(in->arena, "@-%02d", month), 0.3F);
    } else {
        mean(in, arena_printf(in->arena, "@-%02d", month), 1);
    }
    return true;
}

static void mean_year(reading_t *in, int year)
{
    mean(in, arena_printf(in->arena, "@%d", year), 0.7F);
}

static void mean_days(reading_t *in, int64_t from_ms, int days)
{
    struct tm tm;

    for (int i = 0; i < days; i++)
        if (calendar(from_ms + i * DAY_MS, &tm))
            mean(in,
                 arena_printf(in->arena, "@%d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1,
                              tm.tm_mday),
                 1);
}

/* Three months from the first of the quarter; quarters before January are those of the year
 * before. */
static void mean_quarter(reading_t *in, int year, int quarter)
{
    for (; quarter < 1; quarter += 4)
        year -= year > 0;
    for (int month = quarter * 3 - 2; month <= quarter * 3; month++)
        mean_date(in, year, month, 0);
}

/* `back` units before the present one. */
static void mean_unit(reading_t *in, int unit, int back)
{
    struct tm tm;

    if (!calendar(in->now_ms, &tm))
        return;
    int months = (tm.tm_year + 1900) * 12 + tm.tm_mon - back;
    switch (unit) {
    case DAYS:
        mean_days(in, in->now_ms - back * DAY_MS, 1);
        break;
    case WEEKS: /* from Monday on */
        mean_days(in, in->now_ms - ((tm.tm_wday + 6) % 7 + 7 * (int64_t)back) * DAY_MS, 7);
        break;
    case MONTHS:
        if (months > 0)
            mean_date(in, months / 12, months % 12 + 1, 0);
        break;
    case QUARTERS:
        mean_quarter(in, tm.tm_year + 1900, tm.tm_mon / 3 + 1 - back);
        break;
    case WEEKENDS:
        mean_days(in, in->now_ms - ((tm.tm_wday + 6) % 7 - 5 + 7 * (int64_t)back) * DAY_MS, 2);
        break;
    case NIGHTS: /* of two days */
        mean_days(in, in->now_ms - back * DAY_MS, 1 + (back > 0));
        break;
    default:
        mean_year(in, tm.tm_year + 1900 - back);
    }
}

/* ---- forms of dates; each says how many tokens it took, 0: it is none ---- */

static const token_t *token_at(const reading_t *in, size_t at)
{
    static const token_t nothing = {.number = -1, .before = '?'};

    return at < in->count ? &in->tokens[at] : &nothing;
}

static bool is_year(const token_t *token)
{
    return token->digits == 4 && token->number >= YEAR_FIRST && token->number <= YEAR_LAST;
}

static bool is_day(const token_t *token)
{
    return token->digits && token->digits <= 2 && token->number >= 1 && token->number <= 31;
}

static bool near(const token_t *token)
{
    return token->before == ' ' || token->before == ',' || token->before == '.';
}

/* 2024-05-17, 2024/5/17, 2024-05 */
static size_t year_first(reading_t *in, size_t at)
{
    const token_t *year = token_at(in, at), *month = token_at(in, at + 1),
                  *day = token_at(in, at + 2);
    char sign = month->before;

    if (!is_year(year) || !is_day(month) || (sign != '-' && sign != '/' && sign != '.'))
        return 0;
    if (is_day(day) && day->before == sign)
        return mean_date(in, year->number, month->number, day->number) ? 3 : 0;
    return sign == '-' && mean_date(in, year->number, month->number, 0) ? 2 : 0;
}

/* 17.05.2024; 5/17/2024 and 17/5/2024: when both can be, both are meant. */
static size_t year_third(reading_t *in, size_t at)
{
    const token_t *one = token_at(in, at), *two = token_at(in, at + 1),
                  *year = token_at(in, at + 2);
    char sign = two->before;
    bool any = false;

    if (!is_day(one) || !is_day(two) || !is_year(year) || year->before != sign ||
        (sign != '.' && sign != '/' && sign != '-'))
        return 0;
    if (two->number <= 12)
        any = mean_date(in, year->number, two->number, one->number);
    if (sign == '/' && one->number <= 12)
        any |= mean_date(in, year->number, one->number, two->number);
    return any ? 3 : 0;
}

/* The th of 8th, the ª and º of others. */
static size_t skip_ending(const reading_t *in, size_t at)
{
    static const char *const endings[] = {"st", "nd", "rd", "th", "er", "º", "ª"};

    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (!token_at(in, at)->before && strcmp(token_at(in, at)->word, endings[i]) == 0)
            return at + 1;
    return at;
}

static size_t skip_of(const reading_t *in, size_t at)
{
    const char *word = token_at(in, at)->word;

    return strcmp(word, "of") == 0 || strcmp(word, "de") == 0 || strcmp(word, "in") == 0 ? at + 1
                                                                                         : at;
}

/* The year of "last year", letzten Jahres; 0: it is none. */
static int relative_year(const reading_t *in, size_t at)
{
    const token_t *which = token_at(in, at), *what = token_at(in, at + 1);
    struct tm tm;

    if ((which->meaning != LAST && which->meaning != THIS) || what->meaning != UNIT ||
        what->value != YEARS || !calendar(in->now_ms, &tm))
        return 0;
    return tm.tm_year + 1900 - (which->meaning == LAST) - which->value;
}

/* May, May 2024, May 17, May 17th, 2024, May last year */
static size_t month_first(reading_t *in, size_t at, bool lead)
{
    const token_t *month = token_at(in, at);
    size_t next = at + 1;
    int day = 0, year = 0;

    if (month->meaning != MONTH)
        return 0;
    if (is_day(token_at(in, next)) && near(token_at(in, next))) {
        day = token_at(in, next)->number;
        next = skip_ending(in, next + 1);
    }
    size_t after = skip_of(in, next);
    if (is_year(token_at(in, after)) && near(token_at(in, after))) {
        year = token_at(in, after)->number;
        next = after + 1;
    } else {
        year = relative_year(in, next);
        next += year ? 2 : 0;
    }
    if (month->doubtful && !day && !year && !lead && !(month->capital && at > 0))
        return 0;
    return mean_date(in, year, month->value, day) ? next - at : 0;
}

/* 17 May, 17th of May 2024, 17. Mai 2024 */
static size_t day_first(reading_t *in, size_t at)
{
    if (!is_day(token_at(in, at)))
        return 0;
    size_t month = skip_of(in, skip_ending(in, at + 1)), next = month + 1;
    int year = 0;
    if (token_at(in, month)->meaning != MONTH || !near(token_at(in, month)))
        return 0;
    next = skip_of(in, next);
    if (is_year(token_at(in, next)) && near(token_at(in, next)))
        year = token_at(in, next++)->number;
    else
        next = month + 1;
    return mean_date(in, year, token_at(in, month)->value, token_at(in, at)->number) ? next - at
                                                                                     : 0;
}

/* Q3, Q3 2024, third quarter of 2024, 3. Quartal 2024 */
static size_t quarter(reading_t *in, size_t at)
{
    const token_t *one = token_at(in, at), *two = token_at(in, at + 1);
    int which = 0, year = 0;
    size_t next = at + 2;

    if (strcmp(one->word, "q") == 0 && two->digits == 1 && !two->before)
        which = two->number;
    else if (two->meaning == UNIT && two->value == QUARTERS)
        which = one->meaning == ORDINAL ? one->value : one->digits == 1 ? one->number : 0;
    if (which < 1 || which > 4)
        return 0;
    size_t after = skip_of(in, next);
    if (is_year(token_at(in, after))) {
        year = token_at(in, after)->number;
        next = after + 1;
    }
    mean_quarter(in, year, which);
    return next - at;
}

static int number_of(const token_t *token)
{
    return token->meaning == NUMBER              ? token->value
           : token->digits && token->digits <= 3 ? token->number
                                                 : -1;
}

/* So many units back. Weeks are some days this way or that. */
static void mean_ago(reading_t *in, int unit, int count)
{
    if (unit == WEEKS)
        mean_days(in, in->now_ms - (7 * (int64_t)count + 3) * DAY_MS, 7);
    else
        mean_unit(in, unit, count);
}

/* two weeks ago, vor zwei Wochen, a couple of days ago */
static size_t ago(reading_t *in, size_t at)
{
    bool before = token_at(in, at)->meaning == BEFORE;
    size_t next = at + before;
    int count = number_of(token_at(in, next));

    if (count < 0)
        return 0;
    if (number_of(token_at(in, next + 1)) >= 0) /* a couple */
        count = number_of(token_at(in, ++next));
    next = skip_of(in, next + 1);
    const token_t *unit = token_at(in, next);
    if (unit->meaning != UNIT || (!before && token_at(in, next + 1)->meaning != AGO))
        return 0;
    mean_ago(in, unit->value, count);
    return next + 2 - before - at;
}

/* The latest of that weekday before today. */
static void mean_last_weekday(reading_t *in, int weekday)
{
    struct tm tm;

    if (calendar(in->now_ms, &tm))
        mean_days(in, in->now_ms - ((tm.tm_wday - weekday + 6) % 7 + 1) * DAY_MS, 1);
}

/* the day before yesterday, the week before last */
static size_t before_that(reading_t *in, size_t at)
{
    const token_t *unit = token_at(in, at), *that = token_at(in, at + 2);

    if (unit->meaning != UNIT || strcmp(token_at(in, at + 1)->word, "before") != 0)
        return 0;
    if (that->meaning == LAST)
        mean_unit(in, unit->value, 2);
    else if (that->meaning == DAY && unit->value == DAYS)
        mean_unit(in, DAYS, that->value + 1);
    else
        return 0;
    return 3;
}

/* last week, diesen Monat, last Tuesday, last May, la semana pasada */
static size_t relative(reading_t *in, size_t at)
{
    bool gone = token_at(in, at + 1)->meaning == GONE;
    const token_t *which = token_at(in, at + gone), *what = token_at(in, at + !gone);
    struct tm tm;

    if ((!gone && which->meaning != LAST && which->meaning != THIS) || !calendar(in->now_ms, &tm))
        return 0;
    int back = which->meaning == THIS ? 0 : 1 + which->value;
    if (what->meaning == UNIT) {
        mean_unit(in, what->value, back);
    } else if (what->meaning == WEEKDAY && back) {
        mean_last_weekday(in, what->value);
    } else if (what->meaning == MONTH) {
        int year = tm.tm_year + 1900 - (back && what->value > tm.tm_mon);
        mean_date(in, year, what->value, 0);
    } else {
        return 0;
    }
    return 2;
}

static size_t one_word(reading_t *in, size_t at, bool lead)
{
    const token_t *token = token_at(in, at);

    if (token->meaning == DAY && !token->doubtful)
        mean_unit(in, DAYS, token->value);
    else if (token->meaning == WEEKDAY && (!token->doubtful || lead))
        mean(in, arena_printf(in->arena, "@w%d", token->value), 0.7F);
    else if (is_year(token) && token->before != '.' && token->before != ':' &&
             token_at(in, at + 1)->before != '.')
        mean_year(in, token->number);
    else
        return 0;
    return 1;
}

static size_t one_date(reading_t *in, size_t at)
{
    bool lead =
        at > 0 && (in->tokens[at - 1].meaning == LEAD || in->tokens[at - 1].meaning == LAST);
    size_t used = year_first(in, at);

    used = used ? used : year_third(in, at);
    used = used ? used : day_first(in, at);
    used = used ? used : quarter(in, at);
    used = used ? used : ago(in, at);
    used = used ? used : before_that(in, at);
    used = used ? used : relative(in, at);
    used = used ? used : month_first(in, at, lead);
    used = used ? used : one_word(in, at, lead);
    return used ? used : 1;
}

/* ---- scripts without spaces ---- */

/* The number that ends at `end`: digits, or 一 to 九十九, or 二〇二四; -1 when there is none. */
static int number_before(const char *text, const char *end)
{
    static const char *const numerals[] = {"〇", "一", "二", "三", "四", "五",
                                           "六", "七", "八", "九", "十"};
    const char *at = end;
    int value = 0, count = 0, read[8];

    if (at > text && at[-1] == ' ')
        at--;
    if (at > text && is_digit(at[-1])) {
        while (at > text && is_digit(at[-1]))
            at--;
        return end - at > 5 ? -1 : atoi(at);
    }
    if (at - text >= 3 && (strncmp(at - 3, "两", 3) == 0 || strncmp(at - 3, "兩", 3) == 0))
        return 2;
    for (bool found = true; found && count < 8 && at - text >= 3;) {
        found = false;
        for (int i = 0; i <= 10 && !found; i++)
            if (strncmp(at - 3, numerals[i], 3) == 0) {
                read[count++] = i;
                at -= 3;
                found = true;
            }
    }
    for (int i = count; i-- > 0;) /* as they stand */
        value = read[i] == 10     ? (value ? value : 1) * 10
                : count == 4      ? value * 10 + read[i]
                : value % 10 == 0 ? value + read[i]
                                  : -1;
    return count ? value : -1;
}

/* 三天前, 两个月前, 2주 전 */
static void read_glyph_ago(reading_t *in, const char *text)
{
    static const glyphs_t units[] = {
        {"天前", DAYS, 0},     {"日前", DAYS, 0},      {"星期前", WEEKS, 0},  {"周前", WEEKS, 0},
        {"週間前", WEEKS, 0},  {"个月前", MONTHS, 0},  {"個月前", MONTHS, 0}, {"か月前", MONTHS, 0},
        {"ヶ月前", MONTHS, 0}, {"年前", YEARS, 0},     {"일 전", DAYS, 0},    {"주 전", WEEKS, 0},
        {"달 전", MONTHS, 0},  {"개월 전", MONTHS, 0}, {"년 전", YEARS, 0},
    };

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        const char *at = strstr(text, units[i].text);
        int count = at ? number_before(text, at) : -1;
        if (count > 0 && count < 100)
            mean_ago(in, units[i].unit, count);
    }
}

/* 去年 and the like say which year a month is of; 0: none does. */
static int glyph_year(const reading_t *in, const char *text)
{
    struct tm tm;

    for (size_t i = 0; i < date_glyph_count; i++)
        if (date_glyphs[i].unit == YEARS && strstr(text, date_glyphs[i].text) &&
            calendar(in->now_ms, &tm))
            return tm.tm_year + 1900 - date_glyphs[i].back;
    return 0;
}

/* 2024年5月17日 and parts of it, 去年三月. */
static void read_glyph_dates(reading_t *in, const char *text)
{
    int year = 0, month = 0, day = 0;
    char unit = 0;

    for (const char *at = text;; at++) {
        if (*at && !unit_glyph(at, &unit))
            continue;
        int number = *at ? number_before(text, at) : -1;
        bool begins = *at && (unit == 'y' || (unit == 'm' && month));
        if (!*at || begins) {
            if (month)
                mean_date(in, year ? year : glyph_year(in, text), month, day);
            else if (year)
                mean_year(in, year);
            if (!*at)
                return;
            month = day = 0;
            year = unit == 'y' ? 0 : year;
        }
        if (number < 0)
            continue;
        if (unit == 'y')
            year = number >= YEAR_FIRST && number <= YEAR_LAST ? number : 0;
        else if (unit == 'm')
            month = number >= 1 && number <= 12 ? number : 0;
        else if (month)
            day = number >= 1 && number <= 31 ? number : 0;
    }
}

/* Is what was found at `at` only a part of something longer, as 前天 of 大前天? */
static bool part_of_more(const char *text, const char *at, const char *found)
{
    for (size_t i = 0; i < date_glyph_count; i++) {
        const char *whole = date_glyphs[i].text, *inside = strstr(whole, found);
        if (!inside || strlen(whole) == strlen(found) || inside - whole > at - text)
            continue;
        if (strncmp(at - (inside - whole), whole, strlen(whole)) == 0)
            return true;
    }
    return false;
}

static void read_glyphs(reading_t *in, const char *text)
{
    for (size_t i = 0; i < date_glyph_count; i++) {
        const char *at = strstr(text, date_glyphs[i].text);
        while (at && part_of_more(text, at, date_glyphs[i].text))
            at = strstr(at + 1, date_glyphs[i].text);
        if (at)
            mean_unit(in, date_glyphs[i].unit, date_glyphs[i].back);
    }
    read_glyph_ago(in, text);
    read_glyph_dates(in, text);
}

void dates_in(arena_t *arena, const char *text, int64_t now_ms, date_terms_t *out)
{
    const int64_t farthest = INT64_C(200000000000000); /* some thousand years */
    reading_t in = {.arena = arena, .now_ms = now_ms, .out = out, .most = TOKENS_MAX};

    out->count = 0;
    if (now_ms < -farthest || now_ms > farthest)
        in.now_ms = 0;
    in.tokens = ARENA_ARRAY(arena, token_t, TOKENS_MAX);
    read_tokens(&in, text);
    for (size_t at = 0; at < in.count;)
        at += one_date(&in, at);
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c >= 0xe3) {
            read_glyphs(&in, text);
            break;
        }
}

/* ---- does a question ask when, does a text say when? ---- */

static bool is_one_of(const char *word, const char *const *words)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words;
}

static bool has_one_of(const char *text, const char *const *parts)
{
    while (*parts && !strstr(text, *parts))
        parts++;
    return *parts;
}

/* Begins it "when", "how long", "in which year"? */
bool dates_asked(const char *question)
{
    static const char *const whens[] = {"when",    "wann",  "quand", "cuándo",  "cuando", "quando",
                                        "wanneer", "когда", "när",   "hvornår", NULL};
    static const char *const whats[] = {"what",    "which",   "welchem", "welcher",
                                        "welchen", "welches", "welche",  NULL};
    static const char *const hows[] = {"how", "wie", NULL}, *const longs[] = {"long", "lange",
                                                                              NULL};
    static const char *const times[] = {"time", "date", "datum", "uhrzeit", NULL};
    static const char *const anywhere[] = {"什么时候", "何时", "什么时间", "哪年", "哪一年",
                                           "几月",     "哪天", "哪一天",   "多久", "いつ",
                                           "何年",     "何月", "何日",     "언제", NULL};
    token_t tokens[4] = {0};
    reading_t in = {.tokens = tokens, .most = 4};

    read_tokens(&in, question);
    for (size_t i = 0; i + 1 < in.count; i++) {
        const char *word = tokens[i].word, *next = tokens[i + 1].word;
        if (is_one_of(word, whens) || (is_one_of(word, hows) && is_one_of(next, longs)) ||
            (is_one_of(word, whats) && (tokens[i + 1].meaning == UNIT || is_one_of(next, times))))
            return true;
    }
    return has_one_of(question, anywhere);
}

static bool says_when(const token_t *token)
{
    switch (token->meaning) {
    case MONTH:
    case WEEKDAY:
    case DAY:
    case UNIT:
    case LAST:
    case AGO:
        return !token->doubtful;
    default:
        return is_year(token);
    }
}

bool dates_told(const char *text)
{
    token_t tokens[TOLD_MAX];
    reading_t in = {.tokens = tokens, .most = TOLD_MAX};
    char unit;

    read_tokens(&in, text);
    for (size_t i = 0; i < in.count; i++)
        if (says_when(&tokens[i]))
            return true;
    for (size_t i = 0; i < date_glyph_count; i++)
        if (strstr(text, date_glyphs[i].text))
            return true;
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at >= 0xe3 && unit_glyph(at, &unit) && number_before(text, at) >= 0)
            return true;
    return false;
}
