#include "actors/agent/proposals.h"

#include <string.h>
#include <sys/stat.h>

#include "actors/agent/agent.h"
#include "actors/agent/diff.h"
#include "actors/agent/rows.h"
#include "proto/json.h"

RECORD_DEFINE(proposal_change, proposal_change_FIELDS)
RECORD_DEFINE(proposal, proposal_FIELDS)

enum { PROPOSALS_MOST = 10000 };

/* ---- proposals in the store --------------------------------------------------------------- */

static store_key_t key_of(const char *id)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    return key;
}

static const char *copies_of(call_t *call)
{
    arena_t *arena = call_arena(call);
    const char *company = call_company(call), *data = actor_data_dir(call_actor(call));
    return !strcmp(company, actor_default_company(call_actor(call)))
               ? arena_printf(arena, "%s/hr/proposals", data)
               : arena_printf(arena, "%s/agent/%s/hr/proposals", data, company);
}

static void write_copy(call_t *call, const proposal_t *proposal)
{
    arena_t *arena = call_arena(call);
    const char *folder = copies_of(call);
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

err_t proposals_save(call_t *call, proposal_t *proposal)
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

err_t proposals_load(call_t *call, const char *id, proposal_t *proposal)
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

err_t proposals_load_all(call_t *call, proposal_list_t *out)
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

bool proposals_known(const proposal_list_t *all, const char *evidence_id)
{
    for (size_t i = 0; i < all->count; i++)
        for (size_t k = 0; k < all->items[i].evidence.count; k++)
            if (!strcmp(all->items[i].evidence.items[k].id, evidence_id) &&
                all->items[i].status != PROPOSAL_ROLLED_BACK)
                return true;
    return false;
}

err_t proposals_repair(call_t *call)
{
    proposal_list_t all;
    err_t err = proposals_load_all(call, &all);
    for (size_t i = 0; i < all.count && !err_is(err); i++) {
        const proposal_t *one = &all.items[i];
        struct stat info;
        const char *path = arena_printf(call_arena(call), "%s/%s.json", copies_of(call), one->id);
        bool fresh =
            !stat(path, &info) &&
            (int64_t)info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1000000 >= one->updatedAt;
        if (!fresh)
            write_copy(call, one);
    }
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

err_t proposals_make(call_t *call, proposal_t *proposal, proposal_change_t *changes, size_t count)
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
    return proposals_save(call, proposal);
}

/* ---- applying and taking back --------------------------------------------------------------- */

err_t proposals_apply(call_t *call, const proposal_t *proposal, proposal_change_t *change)
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

err_t proposals_undo(call_t *call, const proposal_t *proposal, const proposal_change_t *change)
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
