#include "actors/agent/hr.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "actors/agent/agent.h"
#include "actors/agent/diff.h"
#include "actors/agent/queue.h"
#include "actors/agent/rows.h"
#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- rows and methods --------------------------------------------------------------------- */

enum {
    FILES_MOST = 8,
    RUNS_SHOWN = 10,
    CLUSTERS_MOST = 500,
    CLUSTERS_SHOWN = 50,
    PATTERN_MOST = 300,
    PROPOSALS_MOST = 10000,
    DAY_H = 24,
    WEEK_H = 168
};

#define proposal_state_VALUES(V)                                                                   \
    V(PROPOSAL_PENDING, "pending")                                                                 \
    V(PROPOSAL_APPROVED, "approved")                                                               \
    V(PROPOSAL_REJECTED, "rejected")                                                               \
    V(PROPOSAL_APPLIED, "applied")                                                                 \
    V(PROPOSAL_ROLLED_BACK, "rolled_back")
RECORD_ENUM(proposal_state, proposal_state_VALUES)

#define cluster_FIELDS(F)                                                                          \
    F(STR, id, must, 0, 0, "The same failure has the same id in every analysis.")                  \
    F(STR, subject, must, 0, 0, "The procedure, or the kind of task.")                             \
    F(STR, agent, must, 0, 0, "Whose soul it concerns.")                                           \
    F(STR, pattern, must, 0, 0, "The error without its numbers, ids, paths and quoted texts.")     \
    F(INT, count, must, 0, 0, "How often.")                                                        \
    F(STR, example, must, 0, 0, "The newest error as it was.")                                     \
    F(STRS, runs, must, 0, 0, "The newest runs or tasks.")
RECORD(cluster, cluster_FIELDS)

#define ANALYSIS_ROWS(F)                                                                           \
    F(INT, ended, must, 0, 0, "Tasks and runs that ended.")                                        \
    F(INT, completed, must, 0, 0, "Of them completed.")                                            \
    F(INT, failed, must, 0, 0, "Of them failed or buried.")                                        \
    F(LIST(cluster), clusters, must, 0, 0, "Failures by pattern, the most frequent first.")
#define analysis_FIELDS(F) ANALYSIS_ROWS(F)
RECORD(analysis, analysis_FIELDS)

#define proposal_change_FIELDS(F)                                                                  \
    F(STR, file, must, 0, 0, "souls/AGENT.md or sops/NAME.md.")                                    \
    F(STR, diff, must, 0, 0, "Unified diff.")                                                      \
    F(STR, added, opt(), 0, 0, "Text that is put at the end, whatever the file holds by then.")    \
    F(STR, before, opt(), 0, 0, "Version before it was applied; absent: there was none.")          \
    F(STR, after, opt(), 0, 0, "Version that applying it made.")
RECORD(proposal_change, proposal_change_FIELDS)

#define proposal_FIELDS(F)                                                                         \
    F(STR, id, must, 0, 0, "Id of the proposal.")                                                  \
    F(STR, title, must, 0, 0, "Title.")                                                            \
    F(STR, description, must, 0, 0, "What for.")                                                   \
    F(ENUM(proposal_state), status, must, 0, 0, "Where it is.")                                    \
    F(STR, maker, must, 0, 0, "Who made it; hr: a review.")                                        \
    F(STR, risk, must, 0, 0, "What could go wrong.")                                               \
    F(STRS, affectedFiles, must, 0, 0, "Files it changes.")                                        \
    F(LIST(proposal_change), changes, must, 0, 0, "The changes.")                                  \
    F(LIST(cluster), evidence, must, 0, 0, "Failures that speak for it.")                          \
    F(TIME, createdAt, must, 0, 0, "When it was made.")                                            \
    F(TIME, updatedAt, must, 0, 0, "Last change of status.")                                       \
    F(STR, decided_by, opt(), 0, 0, "Who approved or rejected it.")                                \
    F(STR, note, opt(), 0, 0, "What was said about it.")
RECORD(proposal, proposal_FIELDS)

#define PROPOSAL_ID_ROW(F) F(STR, proposal_id, must, 1, 64, "Id of the proposal.")
#define PROPOSAL_REPLY(F) F(REC(proposal), proposal, must, 0, 0, "The proposal as it is now.")

#define analyze_agent_logs_ARGS(F)                                                                 \
    F(STR, agent_name, must, 1, 64,                                                                \
      "Procedure, kind of task, worker, or sop_engine for all runs.")                              \
    F(INT, timeframe_hours, opt(24), 1, 8760, "How far to look back.")                             \
    COMPANY_ROW(F)
#define analyze_agent_logs_REPLY(F) ANALYSIS_ROWS(F)
#define analyze_logs_ARGS(F)                                                                       \
    F(INT, limit, opt(10), 1, 1000, "How many of the newest ended tasks to look at.")              \
    COMPANY_ROW(F)
#define analyze_logs_REPLY(F) ANALYSIS_ROWS(F)
#define perform_weekly_review_ARGS(F) COMPANY_ROW(F)
#define perform_weekly_review_REPLY(F)                                                             \
    F(REC(analysis), analysis, must, 0, 0, "What happened in seven days.")                         \
    F(STRS, proposals, must, 0, 0, "Ids of the proposals that it made.")
#define suggest_agent_improvement_ARGS(F)                                                          \
    F(STR, agent_name, must, 1, 64, "Whose soul is to change.")                                    \
    F(STR, title, must, 1, 200, "Title.")                                                          \
    F(STR, description, must, 1, 8192, "What for.")                                                \
    F(STR, changes, must, 1, 65536, "A unified diff of the soul, or text to add at its end.")      \
    COMPANY_ROW(F)
#define suggest_agent_improvement_REPLY(F) PROPOSAL_REPLY(F)
#define propose_change_ARGS(F)                                                                     \
    F(STR, title, must, 1, 200, "Title.")                                                          \
    F(STR, description, must, 1, 8192, "What for.")                                                \
    F(STRS, affectedFiles, must, 1, 8, "Files that the patch changes: souls/X.md or sops/X.md.")   \
    F(STR, patch, must, 1, 262144, "Unified diff.")                                                \
    COMPANY_ROW(F)
#define propose_change_REPLY(F) PROPOSAL_REPLY(F)
#define list_pending_proposals_ARGS(F) COMPANY_ROW(F)
#define list_pending_proposals_REPLY(F)                                                            \
    F(LIST(proposal), proposals, must, 0, 0, "Pending and approved ones, oldest first.")
#define update_agent_soul_ARGS(F) PROPOSAL_ID_ROW(F) COMPANY_ROW(F)
#define update_agent_soul_REPLY(F) PROPOSAL_REPLY(F)
#define proposal_get_ARGS(F) PROPOSAL_ID_ROW(F) COMPANY_ROW(F)
#define proposal_get_REPLY(F) PROPOSAL_REPLY(F)
#define proposal_approve_ARGS(F)                                                                   \
    PROPOSAL_ID_ROW(F)                                                                             \
    F(STR, note, opt(), 1, 4096, "Remark; kept with it.")                                          \
    COMPANY_ROW(F)
#define proposal_approve_REPLY(F) PROPOSAL_REPLY(F)
#define proposal_reject_ARGS(F)                                                                    \
    PROPOSAL_ID_ROW(F) F(STR, why, must, 1, 4096, "Reason; kept with it.") COMPANY_ROW(F)
#define proposal_reject_REPLY(F) PROPOSAL_REPLY(F)
#define proposal_rollback_ARGS(F) PROPOSAL_ID_ROW(F) COMPANY_ROW(F)
#define proposal_rollback_REPLY(F) PROPOSAL_REPLY(F)

#define HR_METHODS(M)                                                                              \
    M(agent_t, analyze_agent_logs, TOOL | READS, "Failures of one agent by pattern, counted.")     \
    M(agent_t, analyze_logs, TOOL | READS, "Failures among the newest tasks and runs by pattern.") \
    M(agent_t, perform_weekly_review, TOOL | WRITES,                                               \
      "Count the failures of seven days and propose what to learn from frequent ones.")            \
    M(agent_t, suggest_agent_improvement, TOOL | WRITES, "Propose a change of an agent's soul.")   \
    M(agent_t, propose_change, TOOL | WRITES, "Propose a change of souls and procedures.")         \
    M(agent_t, list_pending_proposals, TOOL | READS, "Proposals that wait for somebody.")          \
    M(agent_t, proposal_get, TOOL | READS, "A proposal with its diff and evidence.")               \
    M(agent_t, proposal_approve, TOOL | WRITES, "Approve a proposal that somebody else made.")     \
    M(agent_t, proposal_reject, TOOL | WRITES, "Reject a proposal.")                               \
    M(agent_t, update_agent_soul, TOOL | WRITES | DESTRUCTIVE,                                     \
      "Apply an approved proposal to its souls and procedures, all of it or nothing.")             \
    M(agent_t, proposal_rollback, TOOL | WRITES | DESTRUCTIVE, "Undo an applied proposal.")
HR_METHODS(METHOD_DECLARE_)
const method_t hr_methods[] = {HR_METHODS(METHOD_ROW_){.name = NULL}};

/* ---- failures by pattern ------------------------------------------------------------------ */

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

/* Tasks that ended since then, of one agent or all, the newest `most`. */
static err_t analyze(agent_t *agent, call_t *call, const char *name, int64_t since_ms, int64_t most,
                     analysis_t *out)
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
            !concerns(&task, name) || task.state == TASK_CANCELLED)
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

static const char *analysis_words(arena_t *arena, const analysis_t *found)
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

static err_t analyze_agent_logs(agent_t *self, call_t *call, const analyze_agent_logs_args_t *args,
                                analyze_agent_logs_reply_t *reply)
{
    analysis_t found;
    int64_t since = call_now_ms(call) - args->timeframe_hours * 3600000;
    err_t err = analyze(self, call, args->agent_name, since, INT64_MAX, &found);
    if (err_is(err))
        return err;
    memcpy(reply, &found, sizeof(found));
    call_say_text(call, analysis_words(call_arena(call), &found));
    return err_ok();
}
_Static_assert(sizeof(analysis_t) == sizeof(analyze_agent_logs_reply_t), "the same rows");
_Static_assert(sizeof(analysis_t) == sizeof(analyze_logs_reply_t), "the same rows");

static err_t analyze_logs(agent_t *self, call_t *call, const analyze_logs_args_t *args,
                          analyze_logs_reply_t *reply)
{
    analysis_t found;
    err_t err = analyze(self, call, NULL, 0, args->limit, &found);
    if (err_is(err))
        return err;
    memcpy(reply, &found, sizeof(found));
    call_say_text(call, analysis_words(call_arena(call), &found));
    return err_ok();
}

/* ---- proposals in the store --------------------------------------------------------------- */

static store_key_t key_of(const char *id)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    return key;
}

static void write_copy(call_t *call, const proposal_t *proposal)
{
    arena_t *arena = call_arena(call);
    const char *company = call_company(call), *data = actor_data_dir(call_actor(call));
    const char *folder = !strcmp(company, actor_default_company(call_actor(call)))
                             ? arena_printf(arena, "%s/hr/proposals", data)
                             : arena_printf(arena, "%s/agent/%s/hr/proposals", data, company);
    buf_t row, text;
    buf_open(&row, arena);
    buf_open(&text, arena);
    record_encode(&proposal_record, proposal, &row);
    err_t err = json_from_msgpack(buf_bytes(&row), JSON_PRETTY, &text);
    if (!err_is(err)) {
        buf_puts(&text, "\n");
        papers_write(call, folder, arena_printf(arena, "%s/%s.json", folder, proposal->id),
                     text.data);
    }
}

#define proposal_event_FIELDS(F)                                                                   \
    F(STR, company, must, 0, 0, "Whose.")                                                          \
    F(STR, id, must, 0, 0, "The proposal.")                                                        \
    F(STR, title, must, 0, 0, "Its title.")                                                        \
    F(ENUM(proposal_state), status, must, 0, 0, "Its new status.")
RECORD(proposal_event, proposal_event_FIELDS)

static err_t save(call_t *call, proposal_t *proposal)
{
    store_txn_t *txn;
    store_key_t key = key_of(proposal->id);
    proposal->updatedAt = call_now_ms(call);
    proposal->has_updatedAt = proposal->has_createdAt = proposal->has_status = true;
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = rows_put(txn, TABLE_proposals, &key, &proposal_record, call_arena(call), proposal);
    if (err_is(err))
        return err;
    write_copy(call, proposal);
    proposal_event_t event = {.company = call_company(call),
                              .id = proposal->id,
                              .title = proposal->title,
                              .status = proposal->status,
                              .has_status = true};
    call_publish(
        call, arena_printf(call_arena(call), "proposal.%s", proposal_state_names[proposal->status]),
        &proposal_event_record, &event);
    return err_ok();
}

static err_t load(call_t *call, const char *id, proposal_t *proposal)
{
    store_txn_t *txn;
    store_key_t key = key_of(id);
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = rows_get(txn, TABLE_proposals, &key, &proposal_record, call_arena(call), proposal);
    if (err.code == ERR_NOT_FOUND)
        return err_make(call_arena(call), ERR_NOT_FOUND,
                        "there is no proposal '%s': see list_pending_proposals", id);
    return err;
}

/* All, oldest first; a company without a store has none. */
static err_t load_all(call_t *call, proposal_list_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value;
    arena_t *arena = call_arena(call);
    *out = (proposal_list_t){0};
    err_t err = call_read(call, call_company(call), &txn);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_proposals, (bytes_t){0}, (bytes_t){0}, false);
    if (err_is(err))
        return err;
    out->items = ARENA_ARRAY(arena, proposal_t, (size_t)store_count(txn, TABLE_proposals) + 1);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        value.data = arena_copy(arena, value.data, value.size);
        err = record_decode(&proposal_record, value, arena, "stored proposal",
                            &out->items[out->count++]);
    }
    store_scan_close(&scan);
    return err;
}

/* ---- making them -------------------------------------------------------------------------- */

/* souls/X.md or sops/X.md. */
static err_t target(arena_t *arena, const char *file, paper_t *paper, const char **name)
{
    bool soul = !strncmp(file, "souls/", 6), sop = !strncmp(file, "sops/", 5);
    if (!soul && !sop)
        return err_make(arena, ERR_ARGUMENT,
                        "'%.100s' cannot be changed by a proposal: only souls/AGENT.md and "
                        "sops/NAME.md can",
                        file);
    *paper = soul ? PAPER_SOUL : PAPER_SOP;
    return sops_name(arena, file + (soul ? 6 : 5), name);
}

/* The present text; "" when there is none. */
static err_t present(call_t *call, const char *file, sops_version_t *out, paper_t *paper)
{
    const char *name;
    err_t err = target(call_arena(call), file, paper, &name);
    if (!err_is(err))
        err = papers_read(call, *paper, name, NULL, out);
    if (err.code == ERR_NOT_FOUND)
        *out = (sops_version_t){.name = name, .content = ""}, err = err_ok();
    return err;
}

static const char *with_added(arena_t *arena, const char *text, const char *added)
{
    size_t size = strlen(text);
    const char *gap = !size ? "" : text[size - 1] == '\n' ? "\n" : "\n\n";
    return arena_printf(arena, "%s%s%s\n", text, gap, added);
}

/* The text after the change, as things are now. */
static err_t changed(call_t *call, const proposal_change_t *change, const sops_version_t *now,
                     paper_t paper, const char **after)
{
    arena_t *arena = call_arena(call);
    const sop_t *sop;
    const sop_problem_t *problems;
    size_t count;
    err_t err = err_ok();
    if (change->added)
        *after = with_added(arena, now->content, change->added);
    else
        err = diff_apply(arena, now->content, strstr(change->diff, "@@"), after);
    if (err_is(err))
        return err_make(arena, err.code, "%s: %s", change->file, err_what(err));
    if (!**after || strlen(*after) > SOP_BYTES_LARGEST)
        return err_make(arena, ERR_ARGUMENT, "%s would be empty or too large", change->file);
    if (paper == PAPER_SOP)
        err = sop_parse(arena, *after, strlen(*after), NULL, &sop, &problems, &count);
    if (err_is(err))
        return err_make(arena, ERR_ARGUMENT, "%s would not be valid any more: %s", change->file,
                        sop_problems_text(arena, problems, count));
    return err_ok();
}

/* Checks that it can be applied and fills in the diff. */
static err_t check_change(call_t *call, proposal_change_t *change)
{
    sops_version_t now;
    paper_t paper;
    const char *after;
    arena_t *arena = call_arena(call);
    err_t err = present(call, change->file, &now, &paper);
    if (!err_is(err))
        err = changed(call, change, &now, paper, &after);
    if (err_is(err))
        return err;
    change->file = arena_printf(arena, "%s/%s.md", paper == PAPER_SOP ? "sops" : "souls", now.name);
    change->diff = diff_make(arena, now.content, after, arena_printf(arena, "a/%s", change->file),
                             arena_printf(arena, "b/%s", change->file));
    return *change->diff ? err_ok()
                         : err_make(arena, ERR_ARGUMENT, "%s would not change", change->file);
}

static err_t make(call_t *call, proposal_t *proposal, proposal_change_t *changes, size_t count)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    const char **files = ARENA_ARRAY(arena, const char *, count);
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err) && store_count(txn, TABLE_proposals) >= PROPOSALS_MOST)
        err = err_of(ERR_QUOTA, "a company has at most 10000 proposals");
    for (size_t i = 0; i < count && !err_is(err); i++) {
        err = check_change(call, &changes[i]);
        files[i] = changes[i].file;
    }
    if (err_is(err))
        return err;
    const char *random = call_new_id(call, "");
    proposal->id = arena_printf(arena, "prop-%011llx-%.8s", (long long)call_now_ms(call), random);
    proposal->status = PROPOSAL_PENDING;
    proposal->createdAt = call_now_ms(call);
    proposal->affectedFiles = (strs_t){files, count};
    proposal->changes = (proposal_change_list_t){changes, count};
    return save(call, proposal);
}

static err_t made(call_t *call, const proposal_t *proposal, const proposal_t **out)
{
    *out = proposal;
    call_say(call, "Proposal '%s' created with ID: %s", proposal->title, proposal->id);
    return err_ok();
}

static err_t suggest_agent_improvement(agent_t *self, call_t *call,
                                       const suggest_agent_improvement_args_t *args,
                                       suggest_agent_improvement_reply_t *reply)
{
    (void)self;
    arena_t *arena = call_arena(call);
    proposal_t *proposal = ARENA_NEW(arena, proposal_t);
    proposal_change_t *change = ARENA_NEW(arena, proposal_change_t);
    bool diff = !strncmp(args->changes, "--- ", 4) || !strncmp(args->changes, "@@ ", 3);
    *change = (proposal_change_t){.file = arena_printf(arena, "souls/%s.md", args->agent_name),
                                  .diff = diff ? args->changes : "",
                                  .added = diff ? NULL : args->changes};
    if (diff && !strstr(args->changes, "@@"))
        return err_of(ERR_ARGUMENT, "changes begins like a diff but has no @@ line");
    *proposal = (proposal_t){.title = args->title,
                             .description = args->description,
                             .maker = call_principal(call),
                             .risk = "Changes how this agent behaves from now on."};
    err_t err = make(call, proposal, change, 1);
    return err_is(err) ? err : made(call, proposal, &reply->proposal);
}

static bool listed(const strs_t *files, const char *path)
{
    for (size_t i = 0; i < files->count; i++)
        if (!strcmp(files->items[i], path))
            return true;
    return false;
}

static err_t propose_change(agent_t *self, call_t *call, const propose_change_args_t *args,
                            propose_change_reply_t *reply)
{
    (void)self;
    arena_t *arena = call_arena(call);
    diff_file_t files[FILES_MOST];
    size_t count;
    err_t err = diff_split(arena, args->patch, files, FILES_MOST, &count);
    if (err_is(err))
        return err;
    proposal_change_t *changes = ARENA_ARRAY(arena, proposal_change_t, count);
    for (size_t i = 0; i < count; i++) {
        if (!listed(&args->affectedFiles, files[i].path))
            return err_make(arena, ERR_ARGUMENT,
                            "the patch changes '%.100s', which affectedFiles does not name",
                            files[i].path);
        if (!strstr(files[i].hunks, "@@"))
            return err_make(arena, ERR_ARGUMENT, "the patch has no @@ line for '%.100s'",
                            files[i].path);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(files[k].path, files[i].path))
                return err_make(arena, ERR_ARGUMENT, "'%.100s' is in the patch twice",
                                files[i].path);
        changes[i] = (proposal_change_t){.file = files[i].path, .diff = files[i].hunks};
    }
    proposal_t *proposal = ARENA_NEW(arena, proposal_t);
    *proposal = (proposal_t){.title = args->title,
                             .description = args->description,
                             .maker = call_principal(call),
                             .risk = "Changes how agents and procedures behave from now on."};
    err = make(call, proposal, changes, count);
    return err_is(err) ? err : made(call, proposal, &reply->proposal);
}

/* ---- reviews ------------------------------------------------------------------------------ */

/* Was this failure proposed already, and not taken back? A rejected one is not asked again. */
static bool known(const proposal_list_t *all, const char *cluster)
{
    for (size_t i = 0; i < all->count; i++)
        for (size_t k = 0; k < all->items[i].evidence.count; k++)
            if (!strcmp(all->items[i].evidence.items[k].id, cluster) &&
                all->items[i].status != PROPOSAL_ROLLED_BACK)
                return true;
    return false;
}

static err_t propose_lesson(call_t *call, const cluster_t *cluster, const analysis_t *found,
                            proposal_t *proposal)
{
    arena_t *arena = call_arena(call);
    proposal_change_t *change = ARENA_NEW(arena, proposal_change_t);
    cluster_t *evidence = ARENA_NEW(arena, cluster_t);
    *evidence = *cluster;
    *change = (proposal_change_t){
        .file = arena_printf(arena, "souls/%s.md", cluster->agent),
        .diff = "",
        .added = arena_printf(arena,
                              "## Known failure of %s\n\n"
                              "Seen %lld times up to %.10s: %s\n\n"
                              "Before doing this again, make sure that the cause is gone; if it is "
                              "not, stop and ask a person instead of trying again.",
                              cluster->subject, (long long)cluster->count,
                              record_time_text(arena, call_now_ms(call)), cluster->pattern)};
    *proposal = (proposal_t){
        .title = arena_printf(arena, "%s keeps failing: %.80s", cluster->subject, cluster->pattern),
        .description =
            arena_printf(arena, "%lld of %lld failures are of this pattern. The newest: %.500s",
                         (long long)cluster->count, (long long)found->failed, cluster->example),
        .maker = "hr",
        .risk = "Adds a remark to a soul; no procedure changes. It may make the agent ask more.",
        .evidence = {evidence, 1}};
    return make(call, proposal, change, 1);
}

static err_t review(agent_t *agent, call_t *call, int64_t hours, analysis_t *found,
                    strs_t *made_ids)
{
    arena_t *arena = call_arena(call);
    proposal_list_t all;
    int64_t since = call_now_ms(call) - hours * 3600000;
    err_t err = analyze(agent, call, NULL, since, INT64_MAX, found);
    if (!err_is(err))
        err = load_all(call, &all);
    const char **ids = ARENA_ARRAY(arena, const char *, CLUSTERS_SHOWN);
    *made_ids = (strs_t){ids, 0};
    for (size_t i = 0; !err_is(err) && i < found->clusters.count; i++) {
        const cluster_t *cluster = &found->clusters.items[i];
        proposal_t proposal;
        if (cluster->count < agent->settings->review_min_failures || known(&all, cluster->id))
            continue;
        err = propose_lesson(call, cluster, found, &proposal);
        if (!err_is(err))
            ids[made_ids->count++] = proposal.id;
    }
    return err;
}

err_t hr_review(agent_t *agent, call_t *call, int64_t hours, const char **words)
{
    analysis_t found;
    strs_t ids;
    err_t err = review(agent, call, hours, &found, &ids);
    if (!err_is(err) && words)
        *words = analysis_words(call_arena(call), &found);
    return err;
}

static err_t perform_weekly_review(agent_t *self, call_t *call,
                                   const perform_weekly_review_args_t *args,
                                   perform_weekly_review_reply_t *reply)
{
    (void)args;
    analysis_t *found = ARENA_NEW(call_arena(call), analysis_t);
    err_t err = review(self, call, WEEK_H, found, &reply->proposals);
    if (err_is(err))
        return err;
    reply->analysis = found;
    call_say(call, "%s\nNew proposals: %zu.", analysis_words(call_arena(call), found),
             reply->proposals.count);
    return err_ok();
}

/* ---- deciding and applying ---------------------------------------------------------------- */

static err_t list_pending_proposals(agent_t *self, call_t *call,
                                    const list_pending_proposals_args_t *args,
                                    list_pending_proposals_reply_t *reply)
{
    (void)self, (void)args;
    proposal_list_t all;
    buf_t words;
    buf_open(&words, call_arena(call));
    err_t err = load_all(call, &all);
    if (err_is(err))
        return err;
    reply->proposals.items = all.items;
    for (size_t i = 0; i < all.count; i++) {
        const proposal_t *one = &all.items[i];
        if (one->status != PROPOSAL_PENDING && one->status != PROPOSAL_APPROVED)
            continue;
        all.items[reply->proposals.count++] = *one;
        buf_printf(&words,
                   "%sID: %s\nTitle: %s\nDescription: %s\nFiles:", words.size ? "---\n" : "",
                   one->id, one->title, one->description);
        for (size_t k = 0; k < one->affectedFiles.count; k++)
            buf_printf(&words, " %s", one->affectedFiles.items[k]);
        buf_printf(&words, "\nStatus: %s\n", proposal_state_names[one->status]);
    }
    call_say_text(call, words.size ? words.data : "No pending proposals.");
    return err_ok();
}

static err_t tell(call_t *call, const proposal_t *proposal, const proposal_t **out)
{
    *out = proposal;
    call_say(call, "Proposal %s (%s) is %s.", proposal->id, proposal->title,
             proposal_state_names[proposal->status]);
    return err_ok();
}

static err_t proposal_get(agent_t *self, call_t *call, const proposal_get_args_t *args,
                          proposal_get_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = load(call, args->proposal_id, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}

static err_t wrong_state(call_t *call, const proposal_t *proposal, const char *want)
{
    return err_make(call_arena(call), ERR_STATE, "proposal %s is %s; this needs one that is %s",
                    proposal->id, proposal_state_names[proposal->status], want);
}

static err_t proposal_approve(agent_t *self, call_t *call, const proposal_approve_args_t *args,
                              proposal_approve_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = load(call, args->proposal_id, proposal);
    if (err_is(err))
        return err;
    if (proposal->status != PROPOSAL_PENDING)
        return wrong_state(call, proposal, "pending");
    if (!strcmp(proposal->maker, call_principal(call)))
        return err_make(call_arena(call), ERR_FORBIDDEN,
                        "'%s' made this proposal and so cannot approve it: call with the token of "
                        "another principal. Who works alone without tokens approves proposals of "
                        "reviews, and makes own changes with sop_create or in souls/",
                        proposal->maker);
    proposal->status = PROPOSAL_APPROVED;
    proposal->decided_by = call_principal(call);
    proposal->note = args->note;
    err = save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}

static err_t proposal_reject(agent_t *self, call_t *call, const proposal_reject_args_t *args,
                             proposal_reject_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = load(call, args->proposal_id, proposal);
    if (err_is(err))
        return err;
    if (proposal->status != PROPOSAL_PENDING && proposal->status != PROPOSAL_APPROVED)
        return wrong_state(call, proposal, "pending or approved");
    proposal->status = PROPOSAL_REJECTED;
    proposal->decided_by = call_principal(call);
    proposal->note = args->why;
    err = save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}

static err_t apply(call_t *call, const proposal_t *proposal, proposal_change_t *change)
{
    sops_version_t now, saved;
    paper_t paper;
    const char *after;
    bool created;
    err_t err = present(call, change->file, &now, &paper);
    if (!err_is(err))
        err = changed(call, change, &now, paper, &after);
    if (err_is(err))
        return err;
    change->before = now.hash;
    err = papers_save(call, paper, now.name, after, proposal->id, &saved, &created);
    change->after = saved.hash;
    return err;
}

static err_t update_agent_soul(agent_t *self, call_t *call, const update_agent_soul_args_t *args,
                               update_agent_soul_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = load(call, args->proposal_id, proposal);
    if (err_is(err))
        return err;
    if (proposal->status != PROPOSAL_APPROVED)
        return wrong_state(call, proposal, "approved (proposal_approve)");
    for (size_t i = 0; i < proposal->changes.count && !err_is(err); i++)
        err = apply(call, proposal, &proposal->changes.items[i]);
    proposal->status = PROPOSAL_APPLIED;
    if (!err_is(err))
        err = save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}

static err_t undo(call_t *call, const proposal_t *proposal, const proposal_change_t *change)
{
    sops_version_t now, before, saved;
    paper_t paper;
    bool created;
    err_t err = present(call, change->file, &now, &paper);
    if (err_is(err))
        return err;
    if (!now.hash || strcmp(now.hash, change->after) != 0)
        return err_make(call_arena(call), ERR_STATE,
                        "%s was changed after this proposal was applied: propose a change of the "
                        "present version instead",
                        change->file);
    if (!change->before)
        return papers_drop(call, paper, now.name);
    err = papers_read(call, paper, now.name, change->before, &before);
    return err_is(err) ? err
                       : papers_save(call, paper, now.name, before.content,
                                     arena_printf(call_arena(call), "rollback of %s", proposal->id),
                                     &saved, &created);
}

static err_t proposal_rollback(agent_t *self, call_t *call, const proposal_rollback_args_t *args,
                               proposal_rollback_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = load(call, args->proposal_id, proposal);
    if (err_is(err))
        return err;
    if (proposal->status != PROPOSAL_APPLIED)
        return wrong_state(call, proposal, "applied");
    for (size_t i = 0; i < proposal->changes.count && !err_is(err); i++)
        err = undo(call, proposal, &proposal->changes.items[i]);
    proposal->status = PROPOSAL_ROLLED_BACK;
    if (!err_is(err))
        err = save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}
