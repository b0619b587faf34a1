#include "actors/elastic/rules.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bus/listfile.h"
#include "proto/json.h"
#include "proto/mp.h"

enum {
    MOST_RULES = 256,
    STALE_MS = 300000,
    TAIL_BYTES = 1 << 20, /* of a metrics file, when it is first seen */
    SLICE_BYTES = 1 << 18,
    LINE_BYTES = 65536
};

RECORD_DEFINE(rule, rule_FIELDS)

/* What is known of the metric of one rule. */
typedef struct reading {
    double value;
    int64_t at_ms; /* 0: never heard of */
    bool acts, cool;
} reading_t;

struct rules {
    char *metrics_dir;
    listfile_t *file;
    arena_t *arena; /* of the rules in force */
    rule_list_t list;
    reading_t readings[MOST_RULES];
    /* The metrics of today, as far as they were read. */
    char today[16];
    int64_t offset;
    ino_t metrics_inode;
};

/* ---- The file ---- */

static err_t check_rule(const void *item, arena_t *arena)
{
    const rule_t *rule = item;
    (void)arena;
    if (rule->has_cooldown_threshold && rule->cooldown_threshold > rule->threshold)
        return err_of(ERR_ARGUMENT, "cooldown_threshold is above threshold: it would act and stop "
                                    "at the same time; lower it");
    return err_ok();
}

static const listfile_kind_t kind = {&rule_record, MOST_RULES, check_rule};

err_t rules_parse(const char *text, size_t size, arena_t *arena, rule_list_t *out)
{
    record_list_t list;
    err_t err = listfile_parse(&kind, text, size, arena, &list);
    *out = (rule_list_t){list.items, list.count};
    return err;
}

rules_t *rules_new(const char *file, const char *metrics_dir)
{
    rules_t *rules = calloc(1, sizeof(*rules));
    if (!rules || !(rules->metrics_dir = strdup(metrics_dir)))
        abort();
    rules->file = listfile_new(&kind, file);
    return rules;
}

void rules_destroy(rules_t **handle)
{
    rules_t *rules = *handle;
    if (!rules)
        return;
    arena_destroy(&rules->arena);
    listfile_destroy(&rules->file);
    free(rules->metrics_dir);
    free(rules);
    *handle = NULL;
}

/* A rule that stays the same goes on as it was. */
static void take(rules_t *rules, arena_t *arena, const rule_list_t *list)
{
    reading_t old[MOST_RULES];
    memcpy(old, rules->readings, sizeof(old));
    memset(rules->readings, 0, sizeof(rules->readings));
    for (size_t i = 0; i < list->count; i++)
        for (size_t j = 0; j < rules->list.count; j++)
            if (!strcmp(list->items[i].metric, rules->list.items[j].metric) &&
                !strcmp(list->items[i].agent_template, rules->list.items[j].agent_template))
                rules->readings[i] = old[j];
    arena_destroy(&rules->arena);
    rules->arena = arena;
    rules->list = *list;
}

/* ---- The metrics of the volume ---- */

static bool is_meant(const rule_t *rule, const char *agent, const char *metric)
{
    size_t size = strlen(agent);
    return !strcmp(rule->metric, metric) ||
           (!strncmp(rule->metric, agent, size) && rule->metric[size] == ':' &&
            !strcmp(rule->metric + size + 1, metric));
}

static bool when(bytes_t line, arena_t *arena, int64_t *at_ms)
{
    bytes_t field;
    const char *text;
    if (!mp_get(line, "timestamp", &field))
        return false;
    if (mp_int(field, at_ms))
        return true;
    text = mp_text(arena, field);
    return text && record_time(text, at_ms);
}

/* Lines of others are not to be trusted: what is not understood is passed over. */
static void read_line(rules_t *rules, const char *text, size_t size, int64_t now_ms)
{
    arena_t *arena = arena_new();
    bytes_t line, field;
    double value;
    int64_t at;
    const char *agent = NULL, *metric = NULL;
    if (!err_is(json_to_msgpack(arena, text, size, NULL, &line)) && mp_get(line, "value", &field) &&
        mp_real(field, &value) && mp_get(line, "metric", &field) &&
        (metric = mp_text(arena, field)) && when(line, arena, &at) && at <= now_ms + STALE_MS) {
        agent = mp_get(line, "agent", &field) ? mp_text(arena, field) : NULL;
        for (size_t i = 0; i < rules->list.count; i++)
            if (is_meant(&rules->list.items[i], agent ? agent : "", metric) &&
                at >= rules->readings[i].at_ms) {
                rules->readings[i].value = value;
                rules->readings[i].at_ms = at;
            }
    }
    arena_destroy(&arena);
}

/* Whole lines only: the last one may still be written. */
static void read_lines(rules_t *rules, FILE *file, int64_t now_ms)
{
    char *slice = malloc(SLICE_BYTES);
    if (!slice)
        abort();
    fseeko(file, (off_t)rules->offset, SEEK_SET);
    size_t size = fread(slice, 1, SLICE_BYTES, file);
    char *at = slice, *end;
    while ((end = memchr(at, '\n', (size_t)(slice + size - at)))) {
        if (end - at <= LINE_BYTES)
            read_line(rules, at, (size_t)(end - at), now_ms);
        at = end + 1;
    }
    if (at == slice && size == SLICE_BYTES)
        at = slice + size; /* no line is so long */
    rules->offset += at - slice;
    free(slice);
}

static void look_at_metrics(rules_t *rules, int64_t now_ms)
{
    char path[4200];
    struct stat stat_now;
    arena_t *arena = arena_new();
    const char *day = record_time_text(arena, now_ms);
    if (strncmp(rules->today, day, 10) != 0) {
        snprintf(rules->today, sizeof(rules->today), "%.10s", day);
        rules->offset = 0;
        rules->metrics_inode = 0;
    }
    arena_destroy(&arena);
    snprintf(path, sizeof(path), "%s/%s.ndjson", rules->metrics_dir, rules->today);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (!fstat(fileno(file), &stat_now)) {
        if (stat_now.st_ino != rules->metrics_inode || stat_now.st_size < rules->offset)
            rules->offset = stat_now.st_size > TAIL_BYTES ? stat_now.st_size - TAIL_BYTES : 0;
        rules->metrics_inode = stat_now.st_ino;
        if (stat_now.st_size > rules->offset)
            read_lines(rules, file, now_ms);
    }
    fclose(file);
}

void rules_look(rules_t *rules, int64_t now_ms)
{
    arena_t *arena;
    record_list_t list;
    if (listfile_look(rules->file, &arena, &list))
        take(rules, arena, &(rule_list_t){list.items, list.count});
    if (rules->list.count)
        look_at_metrics(rules, now_ms);
}

/* ---- Judging ---- */

void rules_tell(rules_t *rules, const char *metric, double value, int64_t now_ms)
{
    for (size_t i = 0; i < rules->list.count; i++)
        if (!strcmp(rules->list.items[i].metric, metric)) {
            rules->readings[i].value = value;
            rules->readings[i].at_ms = now_ms;
        }
}

static bool fresh(const reading_t *reading, int64_t now_ms)
{
    return reading->at_ms && now_ms - reading->at_ms <= STALE_MS;
}

void rules_judge(rules_t *rules, int64_t now_ms)
{
    for (size_t i = 0; i < rules->list.count; i++) {
        const rule_t *rule = &rules->list.items[i];
        reading_t *reading = &rules->readings[i];
        double low = rule->has_cooldown_threshold ? rule->cooldown_threshold : rule->threshold;
        reading->cool = false;
        if (!fresh(reading, now_ms))
            continue;
        reading->cool = reading->value <= low;
        reading->acts = reading->value > rule->threshold || (reading->acts && !reading->cool);
    }
}

int64_t rules_floor(const rules_t *rules)
{
    int64_t floor = 0;
    for (size_t i = 0; i < rules->list.count; i++)
        if (rules->readings[i].acts && !strcmp(rules->list.items[i].agent_template, "worker") &&
            rules->list.items[i].count > floor)
            floor = rules->list.items[i].count;
    return floor;
}

const char *rules_error(const rules_t *rules)
{
    return listfile_error(rules->file);
}

size_t rules_count(const rules_t *rules)
{
    return rules->list.count;
}

rule_state_t rules_state(const rules_t *rules, size_t index)
{
    const reading_t *reading = &rules->readings[index];
    return (rule_state_t){.rule = &rules->list.items[index],
                          .known = reading->at_ms != 0,
                          .acts = reading->acts,
                          .cool = reading->cool,
                          .value = reading->value};
}
