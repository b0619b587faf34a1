/* failures: what failed, sorted into clusters by the pattern of the error and counted. No model is
 * asked. Simulated runs count neither as good nor as bad: nothing was done by them.
 * Thread: the agent's. */
#ifndef AGENT_FAILURES_H
#define AGENT_FAILURES_H

#include "bus/actor.h"

typedef struct agent agent_t;

#define cluster_FIELDS(F)                                                                          \
    F(STR, id, must, 0, 0, "The same failure has the same id in every analysis.")                  \
    F(STR, subject, must, 0, 0, "The procedure, or the kind of task.")                             \
    F(STR, agent, must, 0, 0, "Whose soul it concerns.")                                           \
    F(STR, pattern, must, 0, 0, "The error without its numbers, ids, paths and quoted texts.")     \
    F(INT, count, must, 0, 0, "How often.")                                                        \
    F(STR, example, must, 0, 0, "The newest error as it was.")                                     \
    F(STRS, runs, must, 0, 0, "The newest runs or tasks.")
RECORD_STRUCT(cluster, cluster_FIELDS)
extern const record_t cluster_record;

#define ANALYSIS_ROWS(F)                                                                           \
    F(INT, ended, must, 0, 0, "Tasks and runs that ended.")                                        \
    F(INT, completed, must, 0, 0, "Of them completed.")                                            \
    F(INT, failed, must, 0, 0, "Of them failed or buried.")                                        \
    F(LIST(cluster), clusters, must, 0, 0, "Failures by pattern, the most frequent first.")
#define analysis_FIELDS(F) ANALYSIS_ROWS(F)
RECORD_STRUCT(analysis, analysis_FIELDS)
extern const record_t analysis_record;

/* Tasks of the call's company that ended since then, the newest `most`; `name` is a procedure, a
 * kind, a worker or sop_engine; NULL: all. From any entry. */
err_t failures_analyze(agent_t *agent, call_t *call, const char *name, int64_t since_ms,
                       int64_t most, analysis_t *out);
/* The same for people. */
const char *failures_words(arena_t *arena, const analysis_t *found);

#endif
