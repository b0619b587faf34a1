/* patterns: generate_sop_from_patterns. What runs did again and again becomes a proposal to write
 * it down, without asking a model:
 *
 *   calls    a step of prose for which the model always made the same calls becomes those calls. An
 *            argument is kept as it is when it never differed; when it did, it must be made of the
 *            run's input or of earlier results in the same way in every run, else nothing is
 * proposed. retries  a step that failed, and succeeded when people had it done again, gets retries.
 *
 * Only completed runs of the present version count, and no simulated ones. */
#include <inttypes.h>
#include <string.h>

#include "actors/agent/diff.h"
#include "actors/agent/general.h"
#include "actors/agent/proposals.h"
#include "actors/agent/queue.h"
#include "actors/agent/run_state.h"
#include "actors/agent/values.h"
#include "bus/digest.h"

#define pattern_FIELDS(F)                                                                          \
    F(STR, kind, must, 0, 0,                                                                       \
      "calls: prose that is always the same calls; retries: it works later.")                      \
    F(STR, sop, must, 0, 0, "The procedure.")                                                      \
    F(STR, step, must, 0, 0, "Name of the step.")                                                  \
    F(STR, what, must, 0, 0, "What was done again and again.")                                     \
    F(INT, count, must, 0, 0, "In so many runs.")                                                  \
    F(INT, of, must, 0, 0, "Of so many completed ones.")                                           \
    F(STRS, runs, must, 0, 0, "Some of them.")                                                     \
    F(STR, proposal_id, opt(), 0, 0, "The proposal that it became.")                               \
    F(STR, why_not, opt(), 0, 0, "Or why it became none.")
RECORD(pattern, pattern_FIELDS)

#define generate_sop_from_patterns_ARGS(F)                                                         \
    F(STR, sop, opt(), 1, 80, "Only runs of this procedure.")                                      \
    F(INT, min_runs, opt(3), 2, 1000, "How often something must have been done in the same way.")  \
    F(INT, timeframe_hours, opt(720), 1, 8760, "How far to look back.")                            \
    COMPANY_ROW(F)
#define generate_sop_from_patterns_REPLY(F)                                                        \
    F(INT, runs, must, 0, 0, "Completed runs that were looked at.")                                \
    F(LIST(pattern), patterns, must, 0, 0, "What was found.")                                      \
    F(STRS, proposals, must, 0, 0, "Ids of the proposals that were made.")

#define PATTERNS_METHODS(M)                                                                        \
    M(agent_t, generate_sop_from_patterns, TOOL | WRITES,                                          \
      "Propose to write down what completed runs did again and again; no model is asked.")
PATTERNS_METHODS(METHOD_DECLARE_)
const method_t patterns_methods[] = {PATTERNS_METHODS(METHOD_ROW_){.name = NULL}};

enum {
    STUDIED_MOST = 1000, /* runs */
    SEEN_MOST = 100,     /* runs of one group that are compared */
    GROUPS_MOST = 200,
    VERSIONS_MOST = 64,
    CALLS_MOST = 10, /* of one step */
    SHOWN = 10,
    ALIKE_PERCENT = 80,
    RETRIES = 2
};

typedef struct seen_call {
    const char *tool;
    bytes_t args, result;
} seen_call_t;

/* One step of one run. */
typedef struct seen {
    const char *run;
    bytes_t input;
    const bytes_t *results; /* of the steps before it */
    seen_call_t calls[CALLS_MOST];
    size_t count;
} seen_t;

typedef struct group {
    const char *kind, *sop, *signature;
    const sops_version_t *version;
    size_t step;
    seen_t *seen;
    size_t count;
    int64_t of;
} group_t;

typedef struct study {
    agent_t *agent;
    call_t *call;
    arena_t *arena;
    group_t groups[GROUPS_MOST];
    size_t group_count;
    sops_version_t versions[VERSIONS_MOST];
    int64_t of[VERSIONS_MOST]; /* runs of each */
    size_t version_count;
    int64_t runs;
} study_t;

/* ---- what runs did ------------------------------------------------------------------------ */

static const sops_version_t *current(study_t *study, const char *name)
{
    for (size_t i = 0; i < study->version_count; i++)
        if (!strcmp(study->versions[i].name, name))
            return &study->versions[i];
    if (study->version_count == VERSIONS_MOST)
        return NULL;
    sops_version_t *version = &study->versions[study->version_count];
    err_t err = papers_read(study->call, PAPER_SOP, name, NULL, version);
    if (err_is(err) || !version->sop)
        return NULL;
    study->version_count++;
    return version;
}

static group_t *group_of(study_t *study, const char *kind, const sops_version_t *version,
                         size_t step, const char *signature)
{
    for (size_t i = 0; i < study->group_count; i++) {
        group_t *group = &study->groups[i];
        if (group->version == version && group->step == step && !strcmp(group->kind, kind) &&
            !strcmp(group->signature, signature))
            return group;
    }
    if (study->group_count == GROUPS_MOST)
        return NULL;
    group_t *group = &study->groups[study->group_count++];
    *group = (group_t){.kind = kind,
                       .sop = version->name,
                       .signature = signature,
                       .version = version,
                       .step = step,
                       .seen = ARENA_ARRAY(study->arena, seen_t, SEEN_MOST)};
    return group;
}

/* The calls that succeeded; false: none, or more than are looked at. */
static bool read_calls(run_t *run, size_t step, int64_t attempt, seen_t *seen, buf_t *signature)
{
    for (int64_t index = 1;; index++) {
        effect_row_t effect;
        err_t err = effect_load(run, step, attempt, index, &effect);
        if (err_is(err))
            break;
        if (effect.state != EFFECT_COMMITTED)
            continue;
        if (seen->count == CALLS_MOST || !effect.args.size)
            return false;
        seen->calls[seen->count++] = (seen_call_t){effect.tool, effect.args, effect.result};
        buf_printf(signature, "%s%s", signature->size ? ", " : "", effect.tool);
    }
    return seen->count > 0;
}

static void note(study_t *study, run_t *run, const sops_version_t *version, size_t step,
                 const step_row_t *row, const bytes_t *results)
{
    const sop_step_t *at = &version->sop->steps[step];
    seen_t seen = {.run = run->id, .input = run->row.input, .results = results};
    group_t *group = NULL;
    buf_t signature;
    buf_open(&signature, study->arena);
    bool again = run->row.finishes > 1 && row->attempt > 1; /* a person had it done again */
    if (at->kind == SOP_LLM && row->attempt) {
        if (read_calls(run, step, row->attempt, &seen, &signature))
            group = group_of(study, "calls", version, step, signature.data);
    } else if ((at->kind == SOP_SH || at->kind == SOP_TOOL) && at->retries < 0 && again) {
        group = group_of(study, "retries", version, step, "");
    }
    if (!group)
        return;
    if (group->count < SEEN_MOST)
        group->seen[group->count] = seen;
    group->count++;
}

static err_t study_run(study_t *study, const char *id)
{
    run_t run;
    err_t err = run_load(study->agent, study->call, id, false, &run);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    const sops_version_t *version = current(study, run.row.sop);
    if (run.row.simulate || !version || strcmp(version->hash, run.row.hash) != 0)
        return err_ok();
    study->runs++;
    bytes_t *results = ARENA_ARRAY(study->arena, bytes_t, run.sop->step_count);
    for (size_t i = 0; i < run.sop->step_count && !err_is(err); i++) {
        step_row_t row;
        err = step_load(&run, i, &row);
        results[i] = row.result;
        if (!err_is(err) && row.state == STEP_COMPLETED)
            note(study, &run, version, i, &row, results);
    }
    study->of[version - study->versions]++;
    return err;
}

/* The newest completed runs. */
static err_t study_all(study_t *study, store_txn_t *txn, const char *sop, int64_t since_ms)
{
    store_scan_t scan;
    bytes_t key, value;
    uint64_t number;
    int64_t left = study->agent->settings->review_most;
    err_t err = store_scan_open(&scan, txn, TABLE_tasks, (bytes_t){0}, (bytes_t){0}, true);
    while (!err_is(err) && left-- > 0 && study->runs < STUDIED_MOST &&
           store_scan_next(&scan, &key, &value) && key_read_u64(&key, &number)) {
        task_t task;
        err =
            tasks_load(study->agent->tasks, study->call, call_company(study->call), number, &task);
        if (!err_is(err) && task.sop && task.state == TASK_COMPLETED &&
            task.finished_ms >= since_ms && (!sop || !strcmp(task.sop, sop)))
            err = study_run(study, task.id);
    }
    store_scan_close(&scan);
    return err;
}

/* ---- the procedure with it written down --------------------------------------------------- */

typedef struct lines {
    const char **items;
    size_t count;
} lines_t;

static lines_t split_lines(arena_t *arena, const char *text)
{
    size_t count = 1;
    for (const char *at = text; *at; at++)
        count += *at == '\n';
    lines_t lines = {ARENA_ARRAY(arena, const char *, count), 0};
    for (const char *at = text; *at;) {
        size_t size = strcspn(at, "\n");
        lines.items[lines.count++] = arena_strndup(arena, at, size);
        at += size + (at[size] == '\n');
    }
    return lines;
}

/* `extra` behind line `after` (from 1; 0: none), and line `changed` (from 1) as `other`. */
static const char *rewritten(arena_t *arena, const lines_t *lines, size_t after, const char *extra,
                             size_t changed, const char *other)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < lines->count; i++) {
        buf_printf(&out, "%s\n", changed == i + 1 ? other : lines->items[i]);
        if (after == i + 1)
            buf_puts(&out, extra);
    }
    return out.data;
}

static bool is_fence(const char *line)
{
    line += strspn(line, " ");
    return !strncmp(line, "```", 3) || !strncmp(line, "~~~", 3);
}

/* The last line of a step that is not blank: before the next step, or the next heading. */
static size_t end_of_step(const sop_t *sop, size_t step, const lines_t *lines)
{
    size_t from = sop->steps[step].line, last = from;
    size_t stop = step + 1 < sop->step_count ? sop->steps[step + 1].line - 1 : lines->count;
    bool fenced = false;
    for (size_t line = from + 1; line <= stop; line++) {
        const char *text = lines->items[line - 1];
        fenced ^= is_fence(text);
        if (!fenced && *text == '#')
            break;
        if (text[strspn(text, " \t\r")])
            last = line;
    }
    return last;
}

/* Does another step use its result? */
static bool is_used(arena_t *arena, const sops_version_t *version, const char *name)
{
    const char *ref = arena_printf(arena, "steps.%s", name);
    for (const char *at = version->content; (at = strstr(at, ref)); at += strlen(ref)) {
        char next = at[strlen(ref)];
        if (next == '.' || next == '[' || next == ' ' || next == '}' || next == '|')
            return true;
    }
    return false;
}

static const bytes_t *args_of(arena_t *arena, const group_t *group, size_t count, size_t call,
                              bool result)
{
    bytes_t *values = ARENA_ARRAY(arena, bytes_t, count);
    for (size_t i = 0; i < count; i++)
        values[i] = result ? group->seen[i].calls[call].result : group->seen[i].calls[call].args;
    return values;
}

static sources_t *sources_of(arena_t *arena, const group_t *group, size_t count)
{
    sources_t *sources = general_open(arena, count);
    bytes_t *values = ARENA_ARRAY(arena, bytes_t, count);
    for (size_t i = 0; i < count; i++)
        values[i] = group->seen[i].input;
    general_add(sources, "input", values);
    for (size_t step = 0; step < group->step; step++) {
        for (size_t i = 0; i < count; i++)
            values[i] = group->seen[i].results[step];
        general_add(sources,
                    arena_printf(arena, "steps.%s.result", group->version->sop->steps[step].name),
                    values);
    }
    return sources;
}

/* The blocks that stand for the prose; NULL: *why says what is in the way. */
static const char *written_calls(arena_t *arena, const group_t *group, const char **why)
{
    const sop_step_t *step = &group->version->sop->steps[group->step];
    size_t count = group->count < SEEN_MOST ? group->count : SEEN_MOST;
    sources_t *sources = sources_of(arena, group, count);
    const char *where, *name = step->name;
    buf_t out;
    buf_open(&out, arena);
    for (size_t call = 0; call < group->seen[0].count; call++) {
        const char *tool = group->seen[0].calls[call].tool;
        if (call) {
            const char *title = arena_printf(arena, "%s %zu", step->title, call + 1);
            name = value_slug(arena, title, strlen(title));
            buf_printf(&out, "\n%zu. **%s**\n", group->step + call + 1, title);
        }
        buf_printf(&out, "\n   ```tool\n   %s ", tool);
        if (!general_find(sources, args_of(arena, group, count, call, false), &out, &where)) {
            *why = arena_printf(arena,
                                "the argument '%s' of %s differs from run to run, and nobody can "
                                "tell where it comes from",
                                where, tool);
            return NULL;
        }
        buf_puts(&out, "\n   ```\n");
        general_add(sources, arena_printf(arena, "steps.%s.result", name),
                    args_of(arena, group, count, call, true));
    }
    return out.data;
}

static const char *with_calls(arena_t *arena, const group_t *group, const char **why)
{
    const sop_t *sop = group->version->sop;
    const sop_step_t *step = &sop->steps[group->step];
    lines_t lines = split_lines(arena, group->version->content);
    if ((int64_t)group->count * 100 < group->of * ALIKE_PERCENT) {
        *why = arena_printf(arena, "in fewer than %d of 100 runs", ALIKE_PERCENT);
        return NULL;
    }
    if (is_used(arena, group->version, step->name)) {
        *why = "other steps use what the model says at the end of this one";
        return NULL;
    }
    const char *calls = written_calls(arena, group, why);
    return calls ? rewritten(arena, &lines, end_of_step(sop, group->step, &lines), calls, 0, NULL)
                 : NULL;
}

static const char *with_retries(arena_t *arena, const group_t *group, const char **why)
{
    const sop_step_t *step = &group->version->sop->steps[group->step];
    lines_t lines = split_lines(arena, group->version->content);
    size_t fence = step->body_line - 1;
    if (!fence || fence > lines.count || !is_fence(lines.items[fence - 1])) {
        *why = "its block was not found in the file";
        return NULL;
    }
    return rewritten(arena, &lines, 0, NULL, fence,
                     arena_printf(arena, "%s retries=%d", lines.items[fence - 1], RETRIES));
}

/* ---- proposing ---------------------------------------------------------------------------- */

static strs_t runs_of(arena_t *arena, const group_t *group)
{
    size_t count = group->count < SHOWN ? group->count : SHOWN;
    const char **runs = ARENA_ARRAY(arena, const char *, count);
    for (size_t i = 0; i < count; i++)
        runs[i] = group->seen[i].run;
    return (strs_t){runs, count};
}

static pattern_t pattern_of(arena_t *arena, const group_t *group)
{
    const sop_step_t *step = &group->version->sop->steps[group->step];
    bool calls = !strcmp(group->kind, "calls");
    return (pattern_t){.kind = group->kind,
                       .sop = group->sop,
                       .step = step->name,
                       .what = calls ? arena_printf(arena, "the model called %s", group->signature)
                                     : "it failed, and succeeded when it was done again",
                       .count = (int64_t)group->count,
                       .has_count = true,
                       .of = group->of,
                       .has_of = true,
                       .runs = runs_of(arena, group)};
}

static void fill_proposal(arena_t *arena, const group_t *group, const pattern_t *pattern,
                          const char *id, proposal_t *proposal)
{
    bool calls = !strcmp(group->kind, "calls");
    cluster_t *evidence = ARENA_NEW(arena, cluster_t);
    *evidence = (cluster_t){.id = id,
                            .subject = group->sop,
                            .agent = "sop_engine",
                            .pattern = arena_printf(arena, "%s: %s", pattern->step, pattern->what),
                            .count = pattern->count,
                            .has_count = true,
                            .example = group->seen[0].run,
                            .runs = pattern->runs};
    *proposal = (proposal_t){
        .title = arena_printf(arena,
                              calls ? "%s: write down what '%s' always does"
                                    : "%s: try '%s' again when it fails",
                              group->sop, pattern->step),
        .description = arena_printf(arena, "In %" PRId64 " of %" PRId64 " completed runs %s.",
                                    pattern->count, pattern->of, pattern->what),
        .maker = "hr",
        .risk = calls ? "The step asks no model any more: what a model would notice in an unusual "
                        "case goes unnoticed. Its result is that of the last call."
                      : "A step that failed may have done a part of its work; it is done again "
                        "without asking.",
        .evidence = {evidence, 1}};
}

static err_t propose(study_t *study, const group_t *group, const proposal_list_t *all,
                     pattern_t *pattern)
{
    arena_t *arena = study->arena;
    const char *why = NULL, *step = group->version->sop->steps[group->step].name;
    const char *id = arena_strndup(
        arena, digest_texts(arena, group->kind, group->sop, step, group->signature, NULL), 16);
    *pattern = pattern_of(arena, group);
    if (proposals_known(all, id)) {
        pattern->why_not = "it was proposed already";
        return err_ok();
    }
    const char *text = !strcmp(group->kind, "calls") ? with_calls(arena, group, &why)
                                                     : with_retries(arena, group, &why);
    pattern->why_not = why;
    if (!text)
        return err_ok();
    proposal_t proposal;
    proposal_change_t *change = ARENA_NEW(arena, proposal_change_t);
    *change = (proposal_change_t){.file = arena_printf(arena, "sops/%s.md", group->sop)};
    change->diff = diff_make(arena, group->version->content, text, "a/x", "b/x");
    fill_proposal(arena, group, pattern, id, &proposal);
    err_t err = proposals_make(study->call, &proposal, change, 1);
    if (err.code == ERR_ARGUMENT) { /* written down it would be no valid procedure */
        pattern->why_not = err_what(err);
        return err_ok();
    }
    pattern->proposal_id = proposal.id;
    return err;
}

static void say(call_t *call, const generate_sop_from_patterns_reply_t *reply, int64_t least)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    buf_printf(&out, "%" PRId64 " completed runs were looked at. ", reply->runs);
    if (!reply->patterns.count)
        buf_printf(&out,
                   "Nothing was done in the same way at least %" PRId64
                   " times that is not written down yet: there is nothing to propose.",
                   least);
    for (size_t i = 0; i < reply->patterns.count; i++) {
        const pattern_t *one = &reply->patterns.items[i];
        buf_printf(&out, "\n%s, step %s: %s (%" PRId64 " of %" PRId64 " runs). %s%s", one->sop,
                   one->step, one->what, one->count, one->of,
                   one->proposal_id ? "Proposal " : "Not proposed: ",
                   one->proposal_id ? one->proposal_id : one->why_not);
    }
    call_say_text(call, out.data);
}

static err_t generate_sop_from_patterns(agent_t *self, call_t *call,
                                        const generate_sop_from_patterns_args_t *args,
                                        generate_sop_from_patterns_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    proposal_list_t all;
    const char *sop = NULL;
    study_t *study = ARENA_NEW(arena, study_t);
    memset(study, 0, sizeof(*study));
    study->agent = self;
    study->call = call;
    study->arena = arena;
    err_t err = args->sop ? sops_name(arena, args->sop, &sop) : err_ok();
    if (!err_is(err))
        err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = study_all(study, txn, sop, call_now_ms(call) - args->timeframe_hours * 3600000);
    if (err.code == ERR_NOT_FOUND && !err.what)
        err = err_ok(); /* a company that nobody has written to */
    if (!err_is(err))
        err = proposals_load_all(call, &all);
    *reply = (generate_sop_from_patterns_reply_t){.runs = study->runs};
    reply->patterns.items = ARENA_ARRAY(arena, pattern_t, study->group_count + 1);
    const char **ids = ARENA_ARRAY(arena, const char *, study->group_count + 1);
    for (size_t i = 0; i < study->group_count && !err_is(err); i++) {
        pattern_t *pattern = &reply->patterns.items[reply->patterns.count];
        if ((int64_t)study->groups[i].count < args->min_runs)
            continue;
        study->groups[i].of = study->of[study->groups[i].version - study->versions];
        err = propose(study, &study->groups[i], &all, pattern);
        reply->patterns.count++;
        if (!err_is(err) && pattern->proposal_id)
            ids[reply->proposals.count++] = pattern->proposal_id;
    }
    reply->proposals.items = ids;
    if (!err_is(err))
        say(call, reply, args->min_runs);
    return err;
}
