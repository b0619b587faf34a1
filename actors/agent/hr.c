#include "actors/agent/hr.h"

#include <string.h>

#include "actors/agent/agent.h"
#include "actors/agent/diff.h"
#include "actors/agent/proposals.h"

/* ---- rows and methods --------------------------------------------------------------------- */

enum { FILES_MOST = 8, MADE_MOST = 50, WEEK_H = 168 };

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

static err_t analyze_agent_logs(agent_t *self, call_t *call, const analyze_agent_logs_args_t *args,
                                analyze_agent_logs_reply_t *reply)
{
    analysis_t found;
    int64_t since = call_now_ms(call) - args->timeframe_hours * 3600000;
    err_t err = failures_analyze(self, call, args->agent_name, since, INT64_MAX, &found);
    if (err_is(err))
        return err;
    memcpy(reply, &found, sizeof(found));
    call_say_text(call, failures_words(call_arena(call), &found));
    return err_ok();
}
_Static_assert(sizeof(analysis_t) == sizeof(analyze_agent_logs_reply_t), "the same rows");
_Static_assert(sizeof(analysis_t) == sizeof(analyze_logs_reply_t), "the same rows");

static err_t analyze_logs(agent_t *self, call_t *call, const analyze_logs_args_t *args,
                          analyze_logs_reply_t *reply)
{
    analysis_t found;
    err_t err = failures_analyze(self, call, NULL, 0, args->limit, &found);
    if (err_is(err))
        return err;
    memcpy(reply, &found, sizeof(found));
    call_say_text(call, failures_words(call_arena(call), &found));
    return err_ok();
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
    err_t err = proposals_make(call, proposal, change, 1);
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
    err = proposals_make(call, proposal, changes, count);
    return err_is(err) ? err : made(call, proposal, &reply->proposal);
}

/* ---- reviews ------------------------------------------------------------------------------ */

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
    return proposals_make(call, proposal, change, 1);
}

static err_t review(agent_t *agent, call_t *call, int64_t hours, analysis_t *found,
                    strs_t *made_ids)
{
    arena_t *arena = call_arena(call);
    proposal_list_t all;
    int64_t since = call_now_ms(call) - hours * 3600000;
    err_t err = failures_analyze(agent, call, NULL, since, INT64_MAX, found);
    if (!err_is(err))
        err = proposals_load_all(call, &all);
    const char **ids = ARENA_ARRAY(arena, const char *, MADE_MOST);
    *made_ids = (strs_t){ids, 0};
    for (size_t i = 0; !err_is(err) && i < found->clusters.count; i++) {
        const cluster_t *cluster = &found->clusters.items[i];
        proposal_t proposal;
        if (cluster->count < agent->settings->review_min_failures ||
            proposals_known(&all, cluster->id))
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
        *words = failures_words(call_arena(call), &found);
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
    call_say(call, "%s\nNew proposals: %zu.", failures_words(call_arena(call), found),
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
    err_t err = proposals_load_all(call, &all);
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
    err_t err = proposals_load(call, args->proposal_id, proposal);
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
    err_t err = proposals_load(call, args->proposal_id, proposal);
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
    err = proposals_save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}

static err_t proposal_reject(agent_t *self, call_t *call, const proposal_reject_args_t *args,
                             proposal_reject_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = proposals_load(call, args->proposal_id, proposal);
    if (err_is(err))
        return err;
    if (proposal->status != PROPOSAL_PENDING && proposal->status != PROPOSAL_APPROVED)
        return wrong_state(call, proposal, "pending or approved");
    proposal->status = PROPOSAL_REJECTED;
    proposal->decided_by = call_principal(call);
    proposal->note = args->why;
    err = proposals_save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}

static err_t update_agent_soul(agent_t *self, call_t *call, const update_agent_soul_args_t *args,
                               update_agent_soul_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = proposals_load(call, args->proposal_id, proposal);
    if (err_is(err))
        return err;
    if (proposal->status != PROPOSAL_APPROVED)
        return wrong_state(call, proposal, "approved (proposal_approve)");
    for (size_t i = 0; i < proposal->changes.count && !err_is(err); i++)
        err = proposals_apply(call, proposal, &proposal->changes.items[i]);
    proposal->status = PROPOSAL_APPLIED;
    if (!err_is(err))
        err = proposals_save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}

static err_t proposal_rollback(agent_t *self, call_t *call, const proposal_rollback_args_t *args,
                               proposal_rollback_reply_t *reply)
{
    (void)self;
    proposal_t *proposal = ARENA_NEW(call_arena(call), proposal_t);
    err_t err = proposals_load(call, args->proposal_id, proposal);
    if (err_is(err))
        return err;
    if (proposal->status != PROPOSAL_APPLIED)
        return wrong_state(call, proposal, "applied");
    for (size_t i = 0; i < proposal->changes.count && !err_is(err); i++)
        err = proposals_undo(call, proposal, &proposal->changes.items[i]);
    proposal->status = PROPOSAL_ROLLED_BACK;
    if (!err_is(err))
        err = proposals_save(call, proposal);
    return err_is(err) ? err : tell(call, proposal, &reply->proposal);
}
