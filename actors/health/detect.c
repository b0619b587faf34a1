#include "actors/health/detect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ODD 3.5
#define MAD_TO_SIGMA 1.4826
#define EWMA_WEIGHT 0.3

static int by_value(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Deviations of a series that never moved: a thousandth of its level counts as one. */
static double floor_of(double level)
{
    return fabs(level) * 1e-3 + 1e-9;
}

static verdict_t beside(const double *before, size_t count, double last, double *scratch,
                        const char *method)
{
    memcpy(scratch, before, count * sizeof(*scratch));
    double middle = median(scratch, count);
    for (size_t i = 0; i < count; i++)
        scratch[i] = fabs(before[i] - middle);
    double sigma = median(scratch, count) * MAD_TO_SIGMA;
    sigma = sigma > floor_of(middle) ? sigma : floor_of(middle);
    double score = (last - middle) / sigma;
    return (verdict_t){fabs(score) > ODD, middle, score, method};
}

static verdict_t by_ewma(const double *before, size_t count, double last, double *scratch)
{
    double level = before[0];
    for (size_t i = 0; i < count; i++) {
        scratch[i] = fabs(before[i] - level);
        level += EWMA_WEIGHT * (before[i] - level);
    }
    double sigma = median(scratch, count) * MAD_TO_SIGMA;
    sigma = sigma > floor_of(level) ? sigma : floor_of(level);
    double score = (last - level) / sigma;
    return (verdict_t){fabs(score) > ODD, level, score, "ewma"};
}

verdict_t detect(const double *values, size_t count, double *scratch)
{
    if (count < DETECT_LEAST)
        return (verdict_t){.method = "median"};
    double last = values[count - 1];
    verdict_t robust = beside(values, count - 1, last, scratch, "median");
    /* A level that moved some time ago is no news: both must find it odd. */
    verdict_t smooth = by_ewma(values, count - 1, last, scratch);
    robust.odd = robust.odd && smooth.odd;
    return robust;
}

verdict_t detect_season(const double *same, size_t count, double last, double *scratch)
{
    if (count < SEASON_LEAST)
        return (verdict_t){.method = "seasonal"};
    return beside(same, count, last, scratch, "seasonal");
}

/* Student's t for 95 % both sides, by degrees of freedom; beyond the table the normal one. */
static double t95(size_t freedom)
{
    static const double table[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365,
                                   2.306,  2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
                                   2.131,  2.120, 2.110, 2.101, 2.093, 2.086};
    return freedom <= 20 ? table[freedom - 1] : 1.96 + 2.4 / (double)freedom;
}

bool predict(const double *xs, const double *ys, size_t count, double ahead, forecast_t *out)
{
    double mean_x = 0, mean_y = 0, sxx = 0, sxy = 0, rest = 0;
    if (count < PREDICT_LEAST)
        return false;
    for (size_t i = 0; i < count; i++) {
        mean_x += xs[i] / (double)count;
        mean_y += ys[i] / (double)count;
    }
    for (size_t i = 0; i < count; i++) {
        sxx += (xs[i] - mean_x) * (xs[i] - mean_x);
        sxy += (xs[i] - mean_x) * (ys[i] - mean_y);
    }
    if (sxx <= 1e-12 * (1 + mean_x * mean_x) * (double)count)
        return false;
    double slope = sxy / sxx;
    for (size_t i = 0; i < count; i++) {
        double off = ys[i] - mean_y - slope * (xs[i] - mean_x);
        rest += off * off;
    }
    double sigma = sqrt(rest / (double)(count - 2));
    double wide = t95(count - 2) * sigma *
                  sqrt(1 + 1 / (double)count + (ahead - mean_x) * (ahead - mean_x) / sxx);
    double value = mean_y + slope * (ahead - mean_x);
    *out = (forecast_t){value, value - wide, value + wide, slope};
    return true;
}
