#include "proto/metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

RECORD_DEFINE(metric_sample, metric_sample_FIELDS)
RECORD_DEFINE(metric_family, metric_family_FIELDS)

typedef struct family {
    const char *name, *help;
    metric_kind_t kind;
    metric_sample_t *samples;
    size_t count, capacity;
} family_t;

struct metrics {
    arena_t *arena;
    family_t *families;
    size_t count, capacity, at;
};

metrics_t *metrics_new(arena_t *arena)
{
    metrics_t *metrics = ARENA_NEW(arena, metrics_t);
    metrics->arena = arena;
    return metrics;
}

arena_t *metrics_arena(const metrics_t *metrics)
{
    return metrics->arena;
}

/* Twice as large; the old array stays behind in the arena. */
static void *grown(arena_t *arena, const void *items, size_t size, size_t count, size_t *capacity)
{
    if (count < *capacity)
        return (void *)items;
    *capacity = *capacity ? *capacity * 2 : 16;
    char *larger = arena_alloc(arena, *capacity * size);
    if (count)
        memcpy(larger, items, count * size);
    return larger;
}

void metrics_family(metrics_t *metrics, const char *name, metric_kind_t kind, const char *help)
{
    for (metrics->at = 0; metrics->at < metrics->count; metrics->at++)
        if (!strcmp(metrics->families[metrics->at].name, name))
            return;
    metrics->families = grown(metrics->arena, metrics->families, sizeof(family_t), metrics->count,
                              &metrics->capacity);
    metrics->families[metrics->count++] = (family_t){.name = name, .kind = kind, .help = help};
}

static void put_sample(metrics_t *metrics, const metric_sample_t *sample)
{
    family_t *family = &metrics->families[metrics->at];
    if (!isfinite(sample->value))
        return;
    family->samples = grown(metrics->arena, family->samples, sizeof(metric_sample_t), family->count,
                            &family->capacity);
    family->samples[family->count++] = *sample;
}

/* A copy of the labels, with room for one more pair. */
static strs_t copy_labels(metrics_t *metrics, const char *const *labels, const char *name,
                          const char *value)
{
    size_t count = 0;
    while (labels && labels[count])
        count++;
    const char **items = ARENA_ARRAY(metrics->arena, const char *, count + 2);
    if (count)
        memcpy(items, labels, count * sizeof(*items));
    if (name) {
        items[count++] = name;
        items[count++] = value;
    }
    return (strs_t){items, count};
}

void metrics_put(metrics_t *metrics, double value, const char *const *labels)
{
    metric_sample_t sample = {.value = value, .labels = copy_labels(metrics, labels, NULL, NULL)};
    put_sample(metrics, &sample);
}

void metrics_gauge(metrics_t *metrics, const char *name, const char *help, double value)
{
    metrics_family(metrics, name, METRIC_GAUGE, help);
    metrics_put(metrics, value, NULL);
}

void metrics_counter(metrics_t *metrics, const char *name, const char *help, double value)
{
    metrics_family(metrics, name, METRIC_COUNTER, help);
    metrics_put(metrics, value, NULL);
}

static const char *number(arena_t *arena, double value)
{
    char *text = arena_printf(arena, "%.15g", value);
    return strtod(text, NULL) == value ? text : arena_printf(arena, "%.17g", value);
}

void metrics_put_histogram(metrics_t *metrics, const double *bounds, const uint64_t *counts,
                           size_t count, double sum, const char *const *labels)
{
    uint64_t total = 0;
    for (size_t i = 0; i <= count; i++) {
        total += counts[i];
        const char *bound = i < count ? number(metrics->arena, bounds[i]) : "+Inf";
        metric_sample_t sample = {.suffix = "_bucket",
                                  .value = (double)total,
                                  .labels = copy_labels(metrics, labels, "le", bound)};
        put_sample(metrics, &sample);
    }
    strs_t plain = copy_labels(metrics, labels, NULL, NULL);
    put_sample(metrics, &(metric_sample_t){.suffix = "_sum", .value = sum, .labels = plain});
    put_sample(metrics,
               &(metric_sample_t){.suffix = "_count", .value = (double)total, .labels = plain});
}

void metrics_add(metrics_t *metrics, const metric_family_list_t *families)
{
    for (size_t i = 0; i < families->count; i++) {
        const metric_family_t *family = &families->items[i];
        metrics_family(metrics, family->name, (metric_kind_t)family->kind, family->help);
        for (size_t j = 0; j < family->samples.count; j++)
            put_sample(metrics, &family->samples.items[j]);
    }
}

metric_family_list_t metrics_list(const metrics_t *metrics)
{
    metric_family_list_t list = {ARENA_ARRAY(metrics->arena, metric_family_t, metrics->count + 1),
                                 metrics->count};
    for (size_t i = 0; i < metrics->count; i++) {
        const family_t *family = &metrics->families[i];
        list.items[i] = (metric_family_t){.name = family->name,
                                          .kind = (int)family->kind,
                                          .has_kind = true,
                                          .help = family->help,
                                          .samples = {family->samples, family->count}};
    }
    return list;
}

/* ---- Writing ---- */

static void put_name(buf_t *out, const char *name, bool colons)
{
    for (size_t i = 0; name[i]; i++) {
        unsigned char at = (unsigned char)name[i];
        bool fine = isalpha(at) || at == '_' || (i && isdigit(at)) || (colons && at == ':');
        buf_put(out, fine ? &name[i] : "_", 1);
    }
}

/* Help in the text format keeps its quotes; everything else escapes them. */
static void put_escaped(buf_t *out, const char *text, bool quotes)
{
    for (; *text; text++)
        if (*text == '\n')
            buf_puts(out, "\\n");
        else if (*text == '\\')
            buf_puts(out, "\\\\");
        else if (*text == '"' && quotes)
            buf_puts(out, "\\\"");
        else
            buf_put(out, text, 1);
}

static void put_labels(buf_t *out, strs_t labels)
{
    if (labels.count < 2)
        return;
    for (size_t i = 0; i + 1 < labels.count; i += 2) {
        buf_puts(out, i ? "," : "{");
        put_name(out, labels.items[i], false);
        buf_puts(out, "=\"");
        put_escaped(out, labels.items[i + 1], true);
        buf_puts(out, "\"");
    }
    buf_puts(out, "}");
}

static void put_family(const family_t *family, metrics_format_t format, buf_t *out)
{
    const char *total = family->kind == METRIC_COUNTER ? "_total" : "";
    const char *in_head = format == METRICS_TEXT ? total : "";
    buf_puts(out, "# HELP ");
    put_name(out, family->name, true);
    buf_printf(out, "%s ", in_head);
    put_escaped(out, family->help, format == METRICS_OPENMETRICS);
    buf_puts(out, "\n# TYPE ");
    put_name(out, family->name, true);
    buf_printf(out, "%s %s\n", in_head, metric_kind_names[family->kind]);
    for (size_t i = 0; i < family->count; i++) {
        const metric_sample_t *sample = &family->samples[i];
        put_name(out, family->name, true);
        buf_puts(out, sample->suffix ? sample->suffix : total);
        put_labels(out, sample->labels);
        buf_printf(out, " %s\n", number(out->arena, sample->value));
    }
}

void metrics_write(const metrics_t *metrics, metrics_format_t format, buf_t *out)
{
    for (size_t i = 0; i < metrics->count; i++)
        if (metrics->families[i].count)
            put_family(&metrics->families[i], format, out);
    if (format == METRICS_OPENMETRICS)
        buf_puts(out, "# EOF\n");
}

const char *metrics_content_type(metrics_format_t format)
{
    return format == METRICS_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}

metrics_format_t metrics_negotiate(const char *accept)
{
    return accept && strstr(accept, "application/openmetrics-text") ? METRICS_OPENMETRICS
                                                                    : METRICS_TEXT;
}
