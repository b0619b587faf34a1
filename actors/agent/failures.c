#include "actors/agent/failures.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/queue.h"
#include "actors/agent/run_state.h"
#include "bus/digest.h"

RECORD_DEFINE(cluster, cluster_FIELDS)
RECORD_DEFINE(analysis, analysis_FIELDS)

enum { RUNS_SHOWN = 10, CLUSTERS_MOST = 500, CLUSTERS_SHOWN = 50, PATTERN_MOST = 300 };

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || strchr("_-./:@%+~", c);
}

/* What a word without blanks stands for; NULL: itself. */
static const char *stands_for(const char *word, size_t size)
{
    size_t digits = 0, slashes = 0, hex = 0;
    for (size_t i = 0; i < size; i++) {
        digits += isdigit((unsigned char)word[i]) != 0;
        hex += isxdigit((unsigned char)word[i]) || word[i] == '-';
        slashes += word[i] == '/';
    }
    if (slashes && size > 1)
        return "<path>";
    if (digits == 0)
        return NULL;
    return hex == size && size >= 8 ? "<id>" : digits * 2 >= size || digits >= 6 ? "<n>" : NULL;
}

/* The error without what differs from time to time. */
static const char *pattern_of(arena_t *arena, const char *error)
{
    buf_t out;
    buf_open(&out, arena);
    for (const char *at = error; *at && out.size < PATTERN_MOST;) {
        const char *end = *at == '"' || *at == '\'' || *at == '`' ? strchr(at + 1, *at) : NULL;
        if (end && end - at < 200) {
            buf_puts(&out, "<text>");
            at = end + 1;
            continue;
        }
        size_t size = 0;
        while (at[size] && word_char(at[size]))
            size++;
        size_t bare = size; /* without what ends a sentence */
        while (bare && strchr(".:-", at[bare - 1]))
            bare--;
        const char *other = bare ? stands_for(at, bare) : NULL;
        if (other)
            buf_puts(&out, other);
        else if (bare)
            buf_put(&out, at, bare);
        at += bare;
        if (bare)
            continue;
        if (!isspace((unsigned char)*at))
            buf_put(&out, at, 1);
        else if (out.size && out.data[out.size - 1] != ' ')
            buf_puts(&out, " ");
        at++;
    }
    return out.size ? out.data : "(no error was given)";
}

typedef struct group {
    cluster_t cluster;
    const char *ids[RUNS_SHOWN];
} group_t;

typedef struct study {
    arena_t *arena;
    group_t *groups;
    size_t count;
    analysis_t found;
} study_t;

static void note_failure(study_t *study, const task_t *task)
{
    const char *error = task->error ? task->error : "";
    const char *subject = task->sop ? task->sop : task->kind;
    const char *pattern = pattern_of(study->arena, error);
    group_t *group = study->groups;
    size_t i = 0;
    while (i < study->count && (strcmp(group[i].cluster.pattern, pattern) != 0 ||
                                strcmp(group[i].cluster.subject, subject) != 0))
        i++;
    if (i == CLUSTERS_MOST)
        return;
    group += i;
    if (i == study->count) {
        study->count++;
        group->cluster =
            (cluster_t){.id = arena_strndup(study->arena,
                                            digest_texts(study->arena, subject, pattern, NULL), 16),
                        .subject = subject,
                        .agent = task->sop ? "sop_engine" : task->kind,
                        .pattern = pattern,
                        .has_count = true,
                        .example = error};
        group->cluster.runs.items = group->ids;
    }
    if (group->cluster.runs.count < RUNS_SHOWN)
        group->ids[group->cluster.runs.count++] = task->id;
    group->cluster.count++;
}

static bool concerns(const task_t *task, const char *agent)
{
    size_t size = agent ? strlen(agent) : 0;
    if (!agent || !strcmp(task->kind, agent) || (task->sop && !strcmp(task->sop, agent)))
        return true;
    if (task->sop && !strcmp(agent, "sop_engine"))
        return true;
    return task->worker && !strncmp(task->worker, agent, size) &&
           (!task->worker[size] || task->worker[size] == '/');
}

static int by_count(const void *one, const void *other)
{
    const cluster_t *a = &((const group_t *)one)->cluster, *b = &((const group_t *)other)->cluster;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->id, b->id);
}

static void finish(study_t *study)
{
    analysis_t *found = &study->found;
    size_t shown = study->count < CLUSTERS_SHOWN ? study->count : CLUSTERS_SHOWN;
    qsort(study->groups, study->count, sizeof(*study->groups), by_count);
    found->clusters.items = ARENA_ARRAY(study->arena, cluster_t, shown + 1);
    for (size_t i = 0; i < shown; i++) {
        group_t *group = &study->groups[i];
        group->cluster.runs.items = group->ids; /* sorting moved it */
        found->clusters.items[found->clusters.count++] = group->cluster;
    }
    found->has_ended = found->has_completed = found->has_failed = true;
}

static bool simulated(call_t *call, store_txn_t *txn, const task_t *task)
{
    run_row_t row;
    return task->sop && !err_is(run_row_load(call, txn, task->id, &row)) && row.simulate;
}

/* Newest first, the newest `most`. */
err_t failures_analyze(agent_t *agent, call_t *call, const char *name, int64_t since_ms,
                       int64_t most, analysis_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value;
    uint64_t number;
    arena_t *arena = call_arena(call);
    study_t study = {.arena = arena, .groups = ARENA_ARRAY(arena, group_t, CLUSTERS_MOST)};
    err_t err = call_read(call, call_company(call), &txn);
    int64_t left = agent->settings->review_most;
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_tasks, (bytes_t){0}, (bytes_t){0}, true);
    if (err.code == ERR_NOT_FOUND) {
        finish(&study);
        *out = study.found;
        return err_ok();
    }
    if (err_is(err))
        return err;
    while (!err_is(err) && left-- > 0 && study.found.ended < most &&
           store_scan_next(&scan, &key, &value) && key_read_u64(&key, &number)) {
        task_t task;
        err = tasks_load(agent->tasks, call, call_company(call), number, &task);
        if (err_is(err) || !task.has_finished_ms || task.finished_ms < since_ms ||
            !concerns(&task, name) || task.state == TASK_CANCELLED || simulated(call, txn, &task))
            continue;
        study.found.ended++;
        if (task.state == TASK_COMPLETED) {
            study.found.completed++;
        } else if (task.state == TASK_FAILED || task.state == TASK_BURIED) {
            study.found.failed++;
            note_failure(&study, &task);
        }
    }
    store_scan_close(&scan);
    finish(&study);
    *out = study.found;
    return err;
}

const char *failures_words(arena_t *arena, const analysis_t *found)
{
    buf_t out;
    buf_open(&out, arena);
    if (!found->ended)
        return "No logs found to analyze.";
    buf_printf(&out, "%lld ended, %lld completed, %lld failed.", (long long)found->ended,
               (long long)found->completed, (long long)found->failed);
    for (size_t i = 0; i < found->clusters.count; i++)
        buf_printf(&out, "\n%lld x %s: %s", (long long)found->clusters.items[i].count,
                   found->clusters.items[i].subject, found->clusters.items[i].pattern);
    return out.data;
}
