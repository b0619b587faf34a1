/* detect: what is unusual, and what comes next. Pure functions over values in their order of time.
 * Median and MAD: Iglewicz and Hoaglin, "How to detect and handle outliers", 1993 (modified z-score
 * above 3.5). EWMA limits: Roberts, "Control chart tests based on geometric moving averages", 1959.
 * Prediction: least squares with its prediction interval. */
#ifndef ACTORS_HEALTH_DETECT_H
#define ACTORS_HEALTH_DETECT_H

#include <stdbool.h>
#include <stddef.h>

enum { DETECT_LEAST = 12, SEASON_LEAST = 6, PREDICT_LEAST = 5 };

typedef struct verdict {
    bool odd;
    double expected, score; /* score: how many robust deviations away */
    const char *method;     /* "median", "ewma" or "seasonal" */
} verdict_t;

/* Is the last of these values unusual beside those before it? Fewer than DETECT_LEAST: never.
 * Scratch holds `count` values. */
verdict_t detect(const double *values, size_t count, double *scratch);
/* Is `last` unusual beside these, of the same place in earlier seasons? Fewer than SEASON_LEAST:
 * never. Scratch holds `count` values. */
verdict_t detect_season(const double *same, size_t count, double last, double *scratch);

typedef struct forecast {
    double value, low, high; /* 95 % of outcomes lie between, if it goes on as before */
    double slope;            /* by unit of x */
} forecast_t;

/* y at x = ahead, after values at x = xs[i]. False with fewer than PREDICT_LEAST, or all at one x.
 */
bool predict(const double *xs, const double *ys, size_t count, double ahead, forecast_t *out);

#endif
