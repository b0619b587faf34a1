/* proposals: what somebody wants to change of souls and procedures, kept until a person decides.
 * Truth is the store; hr/proposals/ID.json on the volume is a copy for people. All functions work
 * for the call's company; what they give lives in the call's arena. Thread: the agent's. */
#ifndef AGENT_PROPOSALS_H
#define AGENT_PROPOSALS_H

#include "actors/agent/failures.h"

#define proposal_state_VALUES(V)                                                                   \
    V(PROPOSAL_PENDING, "pending")                                                                 \
    V(PROPOSAL_APPROVED, "approved")                                                               \
    V(PROPOSAL_REJECTED, "rejected")                                                               \
    V(PROPOSAL_APPLIED, "applied")                                                                 \
    V(PROPOSAL_ROLLED_BACK, "rolled_back")
RECORD_ENUM(proposal_state, proposal_state_VALUES)

#define proposal_change_FIELDS(F)                                                                  \
    F(STR, file, must, 0, 0, "souls/AGENT.md or sops/NAME.md.")                                    \
    F(STR, diff, must, 0, 0, "Unified diff.")                                                      \
    F(STR, added, opt(), 0, 0, "Text that is put at the end, whatever the file holds by then.")    \
    F(STR, before, opt(), 0, 0, "Version before it was applied; absent: there was none.")          \
    F(STR, after, opt(), 0, 0, "Version that applying it made.")
RECORD_STRUCT(proposal_change, proposal_change_FIELDS)
extern const record_t proposal_change_record;

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
RECORD_STRUCT(proposal, proposal_FIELDS)
extern const record_t proposal_record;

/* Checks that each change can be made now, fills in files and diffs, gives it an id, keeps it as
 * pending. ERR_ARGUMENT, ERR_QUOTA. From a WRITES entry. */
err_t proposals_make(call_t *call, proposal_t *proposal, proposal_change_t *changes, size_t count);
/* The row, its copy on the volume and an event. */
err_t proposals_save(call_t *call, proposal_t *proposal);
/* Copies that are older than the store, or absent, are written anew after the commit. */
err_t proposals_repair(call_t *call);
/* ERR_NOT_FOUND with a sentence. */
err_t proposals_load(call_t *call, const char *id, proposal_t *proposal);
/* All, oldest first; a company without a store has none. */
err_t proposals_load_all(call_t *call, proposal_list_t *out);
/* Was something proposed for this evidence already, and not taken back? A rejected one is not asked
 * again. */
bool proposals_known(const proposal_list_t *all, const char *evidence_id);

/* One change made, as things are now; or unmade. An error undoes the whole entry. */
err_t proposals_apply(call_t *call, const proposal_t *proposal, proposal_change_t *change);
err_t proposals_undo(call_t *call, const proposal_t *proposal, const proposal_change_t *change);

#endif
