#include "actors/agent/sops.h"

#include <string.h>

#include "actors/agent/agent.h"
#include "actors/agent/diff.h"
#include "actors/agent/papers.h"
#include "proto/mp.h"

/* ---- methods ------------------------------------------------------------------------------ */

#define sop_parameter_FIELDS(F)                                                                    \
    F(STR, name, must, 0, 0, "Name of the input.")                                                 \
    F(BOOL, required, must, 0, 0, "It cannot run without.")
RECORD(sop_parameter, sop_parameter_FIELDS)

#define sop_entry_FIELDS(F)                                                                        \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, title, opt(), 0, 0, "Its title.")                                                       \
    F(INT, steps, opt(), 0, 0, "How many steps it has.")                                           \
    F(BOOL, valid, must, 0, 0, "Can it be run as it is?")                                          \
    F(LIST(sop_parameter), inputs, opt(), 0, 0, "What it wants to be given.")                      \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")
RECORD(sop_entry, sop_entry_FIELDS)

#define sop_issue_FIELDS(F)                                                                        \
    F(INT, line, must, 1, 0, "Line of the file.")                                                  \
    F(BOOL, warning, must, 0, 0, "It runs all the same.")                                          \
    F(STR, what, must, 0, 0, "What is wrong and what to change.")
RECORD(sop_issue, sop_issue_FIELDS)

#define sop_outline_FIELDS(F)                                                                      \
    F(INT, number, must, 1, 0, "Place in the list, from 1.")                                       \
    F(STR, name, must, 0, 0, "Name in references.")                                                \
    F(STR, title, must, 0, 0, "Name for people.")                                                  \
    F(STR, kind, must, 0, 0, "llm, tool, sh, wait or approve.")                                    \
    F(INT, line, must, 1, 0, "Line of the file.")
RECORD(sop_outline, sop_outline_FIELDS)

#define NAME_ROW(F) F(STR, name, must, 1, 80, "Name of the procedure, with or without .md.")

#define sop_list_ARGS(F) COMPANY_ROW(F)
#define sop_list_REPLY(F)                                                                          \
    F(LIST(sop_entry), sops, must, 0, SOPS_FILES_MOST, "All procedures, by name.")

#define validate_sop_ARGS(F) NAME_ROW(F) COMPANY_ROW(F)
#define validate_sop_REPLY(F)                                                                      \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(BOOL, valid, must, 0, 0, "Can it be run?")                                                   \
    F(STR, title, opt(), 0, 0, "Its title.")                                                       \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(LIST(sop_outline), steps, must, 0, 0, "The steps; empty when there are errors.")             \
    F(LIST(sop_issue), problems, must, 0, 0, "Errors and warnings, by line.")

#define sop_create_ARGS(F)                                                                         \
    NAME_ROW(F)                                                                                    \
    F(STR, content, must, 1, SOP_BYTES_LARGEST, "The Markdown.")                                   \
    COMPANY_ROW(F)
#define sop_create_REPLY(F)                                                                        \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(BOOL, created, must, 0, 0, "False: there was one of that name; it is kept as a version.")    \
    F(STR, file, must, 0, 0, "The working copy.")                                                  \
    F(LIST(sop_issue), problems, must, 0, 0, "Warnings.")

#define sop_get_ARGS(F)                                                                            \
    NAME_ROW(F)                                                                                    \
    F(STR, version, opt(), 4, 64, "Hash of a version, or its beginning; absent: the current one.") \
    COMPANY_ROW(F)
#define sop_get_REPLY(F)                                                                           \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, content, must, 0, 0, "The Markdown.")                                                   \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(LIST(sop_parameter), inputs, opt(), 0, 0, "What it wants to be given.")                      \
    F(LIST(sop_version_ref), versions, must, 0, 0, "Versions in the store, newest first.")

#define sop_diff_ARGS(F)                                                                           \
    NAME_ROW(F)                                                                                    \
    F(STR, from, must, 4, 64, "Hash of a version, or its beginning; see sop_get.")                 \
    F(STR, to, opt(), 4, 64, "Of another one; absent: the current one.")                           \
    COMPANY_ROW(F)
#define sop_diff_REPLY(F)                                                                          \
    F(STR, diff, must, 0, 0, "A unified diff; empty when they are the same.")                      \
    F(STR, from, must, 0, 0, "Hash of the one.")                                                   \
    F(STR, to, must, 0, 0, "Hash of the other.")

#define sop_rollback_ARGS(F)                                                                       \
    NAME_ROW(F)                                                                                    \
    F(STR, version, must, 4, 64, "Hash of the version to go back to, or its beginning.")           \
    COMPANY_ROW(F)
#define sop_rollback_REPLY(F)                                                                      \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, hash, must, 0, 0, "The version that is current now.")                                   \
    F(STR, file, must, 0, 0, "The working copy, written anew.")

#define SOPS_METHODS(M)                                                                            \
    M(agent_t, sop_list, TOOL | READS, "List the procedures (SOPs).")                              \
    M(agent_t, validate_sop, TOOL | READS | PARKS,                                                 \
      "Check a procedure; every problem with its line and what to change.")                        \
    M(agent_t, sop_get, TOOL | READS, "Read a procedure, also in an earlier version.")             \
    M(agent_t, sop_diff, TOOL | READS, "What differs between two versions of a procedure.")        \
    M(agent_t, sop_rollback, TOOL | WRITES,                                                        \
      "Make an earlier version of a procedure current again; nothing is lost.")                    \
    M(agent_t, sop_create, TOOL | WRITES | IDEMPOTENT,                                             \
      "Write a procedure; what was there under the name stays as an earlier version.")
SOPS_METHODS(METHOD_DECLARE_)
const method_t sops_methods[] = {SOPS_METHODS(METHOD_ROW_){.name = NULL}};

/* ---- the tools ---------------------------------------------------------------------------- */

static sop_parameter_list_t parameters(arena_t *arena, const sop_t *sop)
{
    sop_parameter_list_t list = {ARENA_ARRAY(arena, sop_parameter_t, sop->input_count + 1),
                                 sop->input_count};
    for (size_t i = 0; i < list.count; i++)
        list.items[i] = (sop_parameter_t){.name = sop->inputs[i].name,
                                          .required = !sop->inputs[i].optional,
                                          .has_required = true};
    return list;
}

static err_t sop_list(agent_t *self, call_t *call, const sop_list_args_t *args,
                      sop_list_reply_t *reply)
{
    (void)self, (void)args;
    store_txn_t *txn;
    names_t names;
    err_t err = papers_snapshot(call, &txn);
    if (!err_is(err))
        err = papers_names(call, txn, &names);
    if (err_is(err))
        return err;
    sop_entry_t *items = ARENA_ARRAY(call_arena(call), sop_entry_t, names.count);
    for (size_t i = 0; i < names.count; i++) {
        found_t found;
        sops_version_t version;
        err = papers_effective(call, txn, PAPER_SOP, names.items[i], &found, &version);
        if (err.code == ERR_NOT_FOUND)
            continue; /* a file that went away meanwhile, or no regular one */
        if (err_is(err))
            return err;
        const sop_t *sop = version.sop;
        items[reply->sops.count++] = (sop_entry_t){.name = names.items[i],
                                                   .title = sop ? sop->title : NULL,
                                                   .steps = sop ? (int64_t)sop->step_count : 0,
                                                   .has_steps = sop != NULL,
                                                   .valid = sop != NULL,
                                                   .has_valid = true,
                                                   .hash = version.hash};
        if (sop && sop->input_count) {
            items[reply->sops.count - 1].inputs = parameters(call_arena(call), sop);
            items[reply->sops.count - 1].has_inputs = true;
        }
    }
    reply->sops.items = items;
    call_say_text(call, names.count ? papers_joined(call_arena(call), &names) : "No SOPs found.");
    return err_ok();
}

static sop_issue_list_t issues_of(arena_t *arena, const sops_version_t *version)
{
    sop_issue_t *items = ARENA_ARRAY(arena, sop_issue_t, version->problem_count);
    for (size_t i = 0; i < version->problem_count; i++)
        items[i] = (sop_issue_t){.line = version->problems[i].line,
                                 .has_line = true,
                                 .warning = version->problems[i].warning,
                                 .has_warning = true,
                                 .what = version->problems[i].what};
    return (sop_issue_list_t){items, version->problem_count};
}

static sop_outline_list_t outline_of(arena_t *arena, const sop_t *sop)
{
    size_t count = sop ? sop->step_count : 0;
    sop_outline_t *items = ARENA_ARRAY(arena, sop_outline_t, count);
    for (size_t i = 0; i < count; i++) {
        const sop_step_t *step = &sop->steps[i];
        items[i] = (sop_outline_t){.number = (int64_t)i + 1,
                                   .has_number = true,
                                   .name = step->name,
                                   .title = step->title,
                                   .kind = sop_kind_info(step->kind)->name,
                                   .line = step->line,
                                   .has_line = true};
    }
    return (sop_outline_list_t){items, count};
}

static void say_validity(call_t *call, const sops_version_t *version, bool valid)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    const char *problems =
        sop_problems_text(call_arena(call), version->problems, version->problem_count);
    if (!valid) {
        buf_printf(&out, "SOP Invalid: %s\n%s", version->name, problems);
    } else {
        buf_printf(&out, "SOP '%s' is valid.\nTitle: %s\nSteps: %zu", version->name,
                   version->sop->title, version->sop->step_count);
        for (size_t i = 0; i < version->sop->step_count; i++)
            buf_printf(&out, "\n%zu. %s (%s)", i + 1, version->sop->steps[i].title,
                       sop_kind_info(version->sop->steps[i].kind)->name);
        if (*problems)
            buf_printf(&out, "\n%s", problems);
    }
    call_say_text(call, out.data);
}

/* For the READS: the version of a name. */
static err_t look_up(call_t *call, const char *text, store_txn_t **txn, found_t *found,
                     sops_version_t *version)
{
    const char *name;
    err_t err = sops_name(call_arena(call), text, &name);
    if (!err_is(err))
        err = papers_snapshot(call, txn);
    if (err_is(err))
        return err;
    err = papers_effective(call, *txn, PAPER_SOP, name, found, version);
    return err.code == ERR_NOT_FOUND && !err.what ? papers_no_such(call, *txn, name) : err;
}

/* ---- validate_sop: tools of foreign servers are looked for where they are ---- */

enum { LOOK_MS = 3000 };

typedef struct validation {
    sops_version_t version;
    sop_problem_t *problems; /* those of the file, then what the servers say */
    int waiting;
    bool fails;
} validation_t;

typedef struct look {
    validation_t *validation;
    const sop_step_t *step;
} look_t;

#define look_args_FIELDS(F) F(STR, tool, must, 0, 0, "SERVER/TOOL.")
RECORD(look_args, look_args_FIELDS)

static err_t show_validity(call_t *call, validation_t *validation, validate_sop_reply_t *reply)
{
    sops_version_t *version = &validation->version;
    version->problems = validation->problems;
    reply->name = version->name;
    reply->valid = version->sop != NULL && !validation->fails;
    reply->has_valid = true;
    reply->title = version->sop ? version->sop->title : NULL;
    reply->hash = version->hash;
    reply->steps = outline_of(call_arena(call), version->sop);
    reply->problems = issues_of(call_arena(call), version);
    say_validity(call, version, reply->valid);
    return err_ok();
}

static err_t on_look(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const look_t *look = ctx;
    validation_t *validation = look->validation;
    bytes_t field;
    bool ready = false, known = true;
    (void)self;
    const char *why = NULL;
    if (err_is(got->err))
        why = arena_printf(call_arena(call), "nobody answers who knows the mcp servers: %s",
                           err_what(got->err));
    else if (mp_get(got->body, "why", &field))
        why = mp_text(call_arena(call), field);
    if (mp_get(got->body, "ready", &field))
        mp_bool(field, &ready);
    if (mp_get(got->body, "known", &field))
        mp_bool(field, &known);
    if (!ready) {
        validation->fails = validation->fails || !known;
        validation->problems[validation->version.problem_count++] = (sop_problem_t){
            .line = look->step->body_line,
            .warning = known,
            .what = known
                        ? arena_printf(call_arena(call), "the tool %s cannot be looked for now: %s",
                                       look->step->tool, why ? why : "its server is away")
                        : why};
    }
    return --validation->waiting ? call_park(call) : show_validity(call, validation, reply);
}

static void look_for(call_t *call, validation_t *validation, const sop_step_t *step)
{
    look_t *look = ARENA_NEW(call_arena(call), look_t);
    *look = (look_t){validation, step};
    look_args_t args = {.tool = step->tool};
    peer_call_t request = {.peer = "outside",
                           .method = "outside_look",
                           .args = call_encode(call, &look_args_record, &args),
                           .company = call_company(call),
                           .timeout_ms = LOOK_MS};
    validation->waiting++;
    call_peer(call, &request, on_look, look);
}

static err_t validate_sop(agent_t *self, call_t *call, const validate_sop_args_t *args,
                          validate_sop_reply_t *reply)
{
    (void)self;
    store_txn_t *txn;
    found_t found;
    validation_t *validation = ARENA_NEW(call_arena(call), validation_t);
    sops_version_t *version = &validation->version;
    err_t err = look_up(call, args->name, &txn, &found, version);
    if (err_is(err))
        return err;
    size_t steps = version->sop ? version->sop->step_count : 0, have = version->problem_count;
    validation->problems = ARENA_ARRAY(call_arena(call), sop_problem_t, have + steps + 1);
    if (have)
        memcpy(validation->problems, version->problems, have * sizeof(sop_problem_t));
    if (steps) {
        size_t more = sops_check_inside(call, txn, version, validation->problems + have);
        version->problem_count += more;
        validation->fails = more > 0;
    }
    for (size_t i = 0; i < steps; i++)
        if (version->sop->steps[i].tool && strchr(version->sop->steps[i].tool, '/'))
            look_for(call, validation, &version->sop->steps[i]);
    return validation->waiting ? call_park(call) : show_validity(call, validation, reply);
}

static err_t sop_get(agent_t *self, call_t *call, const sop_get_args_t *args,
                     sop_get_reply_t *reply)
{
    (void)self;
    store_txn_t *txn;
    found_t found;
    sops_version_t version;
    err_t err = look_up(call, args->name, &txn, &found, &version);
    if (err_is(err))
        return err;
    const char *name = version.name, *hash;
    if (args->version && strncmp(version.hash, args->version, strlen(args->version)) != 0) {
        err = papers_find_hash(call_arena(call), &found, args->version, &hash);
        if (!err_is(err))
            err = sops_by_hash(call, txn, hash, &version);
        if (err_is(err))
            return err;
    }
    bool text = mp_utf8(version.content, version.size) && !memchr(version.content, 0, version.size);
    if (!text)
        return err_make(call_arena(call), ERR_ARGUMENT, "the file of '%s' is no UTF-8 text", name);
    reply->name = name;
    reply->content = version.content;
    reply->hash = version.hash;
    reply->versions = found.row.versions;
    if (version.sop && version.sop->input_count) {
        reply->inputs = parameters(call_arena(call), version.sop);
        reply->has_inputs = true;
    }
    call_say_text(call, version.content);
    return err_ok();
}

static err_t sop_create(agent_t *self, call_t *call, const sop_create_args_t *args,
                        sop_create_reply_t *reply)
{
    (void)self;
    sops_version_t version;
    err_t err = papers_save(call, PAPER_SOP, args->name, args->content, call_principal(call),
                            &version, &reply->created);
    if (err_is(err))
        return err;
    reply->name = version.name;
    reply->hash = version.hash;
    reply->has_created = true;
    reply->file = papers_file(call, PAPER_SOP, version.name);
    reply->problems = issues_of(call_arena(call), &version);
    call_say(call, "SOP '%s' created successfully in %s.", version.name,
             papers_folder(call, PAPER_SOP));
    return err_ok();
}

static err_t sop_diff(agent_t *self, call_t *call, const sop_diff_args_t *args,
                      sop_diff_reply_t *reply)
{
    (void)self;
    sops_version_t from, to;
    arena_t *arena = call_arena(call);
    err_t err = papers_read(call, PAPER_SOP, args->name, args->from, &from);
    if (!err_is(err))
        err = papers_read(call, PAPER_SOP, args->name, args->to, &to);
    if (err_is(err))
        return err;
    if (!mp_utf8(to.content, to.size) || memchr(to.content, 0, to.size))
        return err_make(arena, ERR_ARGUMENT, "the file of '%s' is no UTF-8 text", to.name);
    reply->diff = diff_make(arena, from.content, to.content,
                            arena_printf(arena, "sops/%s.md %.12s", from.name, from.hash),
                            arena_printf(arena, "sops/%s.md %.12s", to.name, to.hash));
    reply->from = from.hash;
    reply->to = to.hash;
    call_say_text(call, *reply->diff ? reply->diff : "They are the same.");
    return err_ok();
}

static err_t sop_rollback(agent_t *self, call_t *call, const sop_rollback_args_t *args,
                          sop_rollback_reply_t *reply)
{
    (void)self;
    sops_version_t version, saved;
    bool created;
    err_t err = papers_read(call, PAPER_SOP, args->name, args->version, &version);
    if (!err_is(err))
        err = papers_save(call, PAPER_SOP, version.name, version.content, call_principal(call),
                          &saved, &created);
    if (err_is(err))
        return err;
    reply->name = saved.name;
    reply->hash = saved.hash;
    reply->file = papers_file(call, PAPER_SOP, saved.name);
    call_say(call, "SOP '%s' is as it was in version %.12s.", saved.name, saved.hash);
    return err_ok();
}
