/* agents: the registry. One row for each subagent that was ever begun, with its history, in the
 * store of its company. Ids that need care (not gone, or something is not yet told to the brain)
 * are also in the table live, so that a sweep costs by these and not by all.
 *
 *   starting -> ready <-> busy -> draining -> gone
 *
 * Functions run in an entry of the swarm; what they give lives in the call's arena. */
#ifndef ACTORS_SWARM_AGENTS_H
#define ACTORS_SWARM_AGENTS_H

#include "bus/actor.h"

enum { TABLE_AGENTS, TABLE_LIVE, TABLE_ASKED, TABLE_HISTORY, TABLE_NEGOTIATIONS };

#define agent_state_VALUES(V)                                                                      \
    V(AGENT_STARTING, "starting")                                                                  \
    V(AGENT_READY, "ready")                                                                        \
    V(AGENT_BUSY, "busy")                                                                          \
    V(AGENT_DRAINING, "draining")                                                                  \
    V(AGENT_GONE, "gone")
RECORD_ENUM(agent_state, agent_state_VALUES)

#define agent_wish_VALUES(V)                                                                       \
    V(WISH_LIVE, "live")                                                                           \
    V(WISH_DRAIN, "drain")                                                                         \
    V(WISH_END, "end")
RECORD_ENUM(agent_wish, agent_wish_VALUES)

/* What is stored of it and shown. */
#define agent_told_FIELDS(F)                                                                       \
    F(STR, agent_id, must, 0, 0, "Id of the subagent.")                                            \
    F(STR, role, must, 0, 0, "What it is.")                                                        \
    F(STR, task, must, 0, 0, "What it does.")                                                      \
    F(STR, parent_agent_id, must, 0, 0, "Who wanted it.")                                          \
    F(INT, depth, must, 0, 0, "Subagents above it.")                                               \
    F(STR, sop, opt(), 0, 0, "Procedure that it runs.")                                            \
    F(STRS, capabilities, must, 0, 0, "What it can do.")                                           \
    F(ENUM(agent_state), state, must, 0, 0, "starting, ready, busy, draining or gone.")            \
    F(REAL, load, must, 0, 0, "0 nothing to do, 0.5 work that waits, 1 at work.")                  \
    F(STR, run_id, opt(), 0, 0, "Its run: see run_get.")                                           \
    F(STR, run_state, opt(), 0, 0, "State of the run.")                                            \
    F(STR, why, opt(), 0, 0, "What it waits for.")                                                 \
    F(STR, outcome, opt(), 0, 0, "gone: completed, failed, terminated or never started.")          \
    F(STR, error, opt(), 0, 0, "What went wrong last.")                                            \
    F(INT, restarts, must, 0, 0, "How often it was begun again after a failure.")                  \
    F(INT, busy_ms, must, 0, 0, "How long it was at work.")                                        \
    F(TIME, created_ms, must, 0, 0, "When it was wanted.")                                         \
    F(TIME, updated_ms, must, 0, 0, "Last change.")                                                \
    F(TIME, ended_ms, opt(), 0, 0, "When it was gone.")

/* As it is shown: also under the names of the earlier system. */
#define swarm_agent_FIELDS(F)                                                                      \
    F(STR, id, must, 0, 0, "agent_id, under its older name.")                                      \
    F(STR, parentId, must, 0, 0, "parent_agent_id, under its older name.")                         \
    F(TIME, lastActive, must, 0, 0, "updated_ms, under its older name.")                           \
    F(INT, idleSeconds, must, 0, 0, "Seconds since then; 0 while it is at work.")                  \
    agent_told_FIELDS(F)
RECORD_STRUCT(swarm_agent, swarm_agent_FIELDS)
extern const record_t swarm_agent_record;

/* As it is stored: what is shown, and what only the swarm needs. */
#define agent_row_FIELDS(F)                                                                        \
    agent_told_FIELDS(F) F(ENUM(agent_wish), wish, must, 0, 0, "What is to become of it.")         \
        F(BOOL, restarting, must, 0, 0, "A restart is counted, and its run may not have begun.")   \
            F(TIME, not_before_ms, opt(), 0, 0, "A restart waits until then.")                     \
                F(TIME, window_ms, opt(), 0, 0, "When the first of the counted restarts was.")     \
                    F(INT, in_window, must, 0, 0, "Restarts since then.")                          \
                        F(TIME, busy_since_ms, opt(), 0, 0, "At work since.")                      \
                            F(TIME, drain_until_ms, opt(), 0, 0, "draining: it is ended then.")    \
                                F(BOOL, told, must, 0, 0, "The brain knows how it ended.") F(      \
                                    INT, events, opt(0), 0, 0, "Events in its history.")           \
                                    F(INT, events_told, opt(0), 0, 0, "Of them the brain knows.")  \
                                        F(STR, negotiation, opt(), 0, 0,                           \
                                          "The award that it works on.")
RECORD_STRUCT(agent_row, agent_row_FIELDS)

#define agent_event_FIELDS(F)                                                                      \
    F(TIME, at_ms, must, 0, 0, "When.")                                                            \
    F(ENUM(agent_state), state, must, 0, 0, "State from then on.")                                 \
    F(STR, note, opt(), 0, 0, "Why.")
RECORD_STRUCT(agent_event, agent_event_FIELDS)
extern const record_t agent_event_record;

/* ERR_NOT_FOUND with a sentence, also for an id of another company. */
err_t agents_get(call_t *call, const char *company, const char *id, agent_row_t *row);
/* Writes the row; a state that differs from `before` also into the history, and publishes it. */
err_t agents_put(call_t *call, const char *company, agent_row_t *row, int before, const char *note);
/* Moves it to a state, with what that means for its clocks. Only memory. */
void agents_move(agent_row_t *row, agent_state_t state, int64_t now_ms);
void agents_end(agent_row_t *row, const char *outcome, const char *error, int64_t now_ms);
swarm_agent_t agents_show(const agent_row_t *row, int64_t now_ms);

/* The agent that an earlier delivery of this call began; NULL: none. */
err_t agents_asked(call_t *call, const char *company, const char **id);
err_t agents_note_asked(call_t *call, const char *company, const char *id);

/* Newest first, at most `limit`. `fits` decides; NULL: all. ERR_CORRUPT. */
err_t agents_list(call_t *call, const char *company, bool live_only, size_t limit,
                  bool (*fits)(const agent_row_t *row, const void *ctx), const void *ctx,
                  swarm_agent_list_t *out);
/* Ids in live of one company, of agents and negotiations. */
err_t agents_live(call_t *call, const char *company, strs_t *out);
/* What the brain is told of its events: who, and each event in a line. */
err_t agents_story(call_t *call, const char *company, const agent_row_t *row, const char **text);
err_t agents_history(call_t *call, const char *company, const char *id, agent_event_list_t *out);

/* The text of souls/<role>.md; "" when there is none. ERR_TOO_LARGE. */
err_t agents_soul(call_t *call, const char *company, const char *role, const char **text);

#endif
