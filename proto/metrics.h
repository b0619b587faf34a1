/* metrics: what an actor counts and measures, and how Prometheus reads it.
 *
 * A family is a name with samples; names are in base units without the suffix _total, which a
 * counter gets on the way out. Labels are bounded: never an id, a company or words of a user.
 * Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4) and
 * https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md.
 * Everything lives in the arena that metrics_new got. Thread: pure.
 */
#ifndef PROTO_METRICS_H
#define PROTO_METRICS_H

#include "proto/record.h"

#define metric_kind_VALUES(V)                                                                      \
    V(METRIC_COUNTER, "counter")                                                                   \
    V(METRIC_GAUGE, "gauge")                                                                       \
    V(METRIC_HISTOGRAM, "histogram")
RECORD_ENUM(metric_kind, metric_kind_VALUES)

#define metric_sample_FIELDS(F)                                                                    \
    F(STR, suffix, opt(), 0, 16, "Of a histogram: _bucket, _sum or _count.")                       \
    F(STRS, labels, opt(), 0, 32, "Name, value, name, value.")                                     \
    F(REAL, value, must, 0, 0, "The value.")
RECORD_STRUCT(metric_sample, metric_sample_FIELDS)
extern const record_t metric_sample_record;

#define metric_family_FIELDS(F)                                                                    \
    F(STR, name, must, 1, 200, "Without _total.")                                                  \
    F(ENUM(metric_kind), kind, must, 0, 0, "counter, gauge or histogram.")                         \
    F(STR, help, must, 1, 400, "What it means.")                                                   \
    F(LIST(metric_sample), samples, must, 0, 0, "By labels.")
RECORD_STRUCT(metric_family, metric_family_FIELDS)
extern const record_t metric_family_record;

typedef struct metrics metrics_t;

metrics_t *metrics_new(arena_t *arena);
arena_t *metrics_arena(const metrics_t *metrics);

/* The family that the following samples are of. A name that is there already goes on with what it
 * has. All texts must live as long as the arena. */
void metrics_family(metrics_t *metrics, const char *name, metric_kind_t kind, const char *help);
/* One sample. `labels` are name, value, …, NULL; NULL: none. Not finite: left out. */
void metrics_put(metrics_t *metrics, double value, const char *const *labels);
/* A family of one sample without labels. */
void metrics_gauge(metrics_t *metrics, const char *name, const char *help, double value);
void metrics_counter(metrics_t *metrics, const char *name, const char *help, double value);
/* A histogram of `count` buckets: counts[i] observations were at most bounds[i] (and above the
 * bound before), counts[count] above all of them. */
void metrics_put_histogram(metrics_t *metrics, const double *bounds, const uint64_t *counts,
                           size_t count, double sum, const char *const *labels);
/* What somebody else counted, e.g. out of a reply; its texts must live as long. */
void metrics_add(metrics_t *metrics, const metric_family_list_t *families);

metric_family_list_t metrics_list(const metrics_t *metrics);

typedef enum metrics_format { METRICS_TEXT, METRICS_OPENMETRICS } metrics_format_t;

/* Appends everything. Bytes that a name may not have become '_'. */
void metrics_write(const metrics_t *metrics, metrics_format_t format, buf_t *out);
/* The value of the header Content-Type. */
const char *metrics_content_type(metrics_format_t format);
/* What the header Accept asks for; NULL: the text format. */
metrics_format_t metrics_negotiate(const char *accept);

#endif
