/* experience: who did what kind of task, how well and at what cost. One row per logged run, written
 * with the memory that tells of it and removed with it. Patterns are exact: every run of the task
 * type in the time window counts, and nothing else does.
 */
#ifndef ACTORS_BRAIN_EXPERIENCE_H
#define ACTORS_BRAIN_EXPERIENCE_H

#include "actors/brain/memory.h"

typedef struct experience {
    const char *task_type, *agent, *outcome;
    int64_t tokens;
    double duration;
    bool has_tokens, has_duration;
} experience_t;

/* success, succeeded, completed, done, ok, passed, in any case; also with words after it. */
bool experience_succeeded(const char *outcome);

/* `episode` was put by memory_put in this entry. */
err_t experience_put(brain_t *self, call_t *call, const char *company, const episode_t *episode,
                     const experience_t *experience);

#define agent_pattern_FIELDS(F)                                                                    \
    F(STR, agent, must, 0, 0, "Who did it.")                                                       \
    F(INT, runs, must, 0, 0, "How often.")                                                         \
    F(INT, successes, must, 0, 0, "How often with success.")                                       \
    F(REAL, success_rate, must, 0, 0, "0 to 1.")                                                   \
    F(REAL, mean_duration, opt(), 0, 0, "In the unit it was logged in.")                           \
    F(REAL, p95_duration, opt(), 0, 0, "19 of 20 took no longer.")                                 \
    F(REAL, mean_tokens, opt(), 0, 0, "Tokens a run.")                                             \
    F(TIME, last, must, 0, 0, "When it did so last.")
RECORD_STRUCT(agent_pattern, agent_pattern_FIELDS)
extern const record_t agent_pattern_record;

typedef struct patterns {
    int64_t runs, successes, tokens;
    double duration;             /* of all that told theirs … */
    int64_t durations;           /* … and how many these are */
    agent_pattern_list_t agents; /* best first: success rate, then runs, then name */
} patterns_t;

/* Runs with since <= timestamp < until; task_type NULL: of all kinds. A company that has nothing
 * gives nothing. */
err_t experience_patterns(brain_t *self, call_t *call, const char *company, const char *task_type,
                          int64_t since, int64_t until, patterns_t *out);

#endif
