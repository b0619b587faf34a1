/* The name that somebody may have meant. */
#include <string.h>

#include "proto/record.h"

static size_t least(size_t one, size_t other)
{
    return one < other ? one : other;
}

/* Levenshtein distance, https://en.wikipedia.org/wiki/Levenshtein_distance (two rows). */
static size_t distance(const char *one, const char *other)
{
    enum { LONGEST = 64 };
    size_t row[LONGEST + 1];
    size_t n = strlen(one), m = strlen(other);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j];
            size_t step = diagonal + (one[i - 1] != other[j - 1]);
            row[j] = least(step, least(above, row[j - 1]) + 1);
            diagonal = above;
        }
    }
    return row[m];
}

const char *record_nearest(const char *text, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = 4;
    for (; *names; names++) {
        size_t d = distance(text, *names);
        if (d < best_distance && d * 2 < strlen(text)) {
            best_distance = d;
            best = *names;
        }
    }
    return best;
}
