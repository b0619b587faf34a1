/* agent: the desk where tasks wait and are never lost, and the procedures they follow. One actor;
 * its parts are tasks (the queue), sops (procedures and their versions) and runs (executing them).
 * The parts share this state and the tables below; nothing outside the folder sees them. */
#ifndef ACTORS_AGENT_AGENT_H
#define ACTORS_AGENT_AGENT_H

#include "actors/agent/counts.h"
#include "actors/agent/hr.h"
#include "actors/agent/runs.h"
#include "actors/agent/schedule.h"
#include "actors/agent/sops.h"
#include "actors/agent/tasks.h"
#include "bus/actor.h"

#define agent_settings_FIELDS(F)                                                                   \
    F(INT, lease_ms, opt(30000), 1000, 3600000, "How long a lease lasts without a sign of life.")  \
    F(INT, aging_ms, opt(60000), 0, 86400000, "One step of priority is worth this much waiting.")  \
    F(INT, due_soon_ms, opt(15000), 0, 3600000, "Tasks due within this time count as demand.")     \
    F(INT, target_per_replica, opt(5), 1, 100000, "Tasks that one worker is expected to hold.")    \
    F(INT, min_replicas, opt(1), 0, 1000, "Fewest workers to wish for.")                           \
    F(INT, max_replicas, opt(5), 1, 1000, "Most workers to wish for.")                             \
    F(INT, backoff_ms, opt(1000), 1, 3600000, "Pause before the second attempt; doubles.")         \
    F(INT, backoff_limit_ms, opt(300000), 1, 86400000, "Longest pause between attempts.")          \
    F(INT, max_crashes, opt(5), 1, 1000, "Lost leases after which a task is buried.")              \
    F(INT, max_waiting, opt(1000000), 1, 100000000, "Most unfinished tasks of one company.")       \
    F(INT, retention_ms, opt(604800000), 1000, 31536000000, "How long finished tasks are kept.")   \
    F(INT, forget_every_ms, opt(60000), 100, 86400000,                                             \
      "How often finished tasks are looked through.")                                              \
    F(INT, sop_wait_ms, opt(50000), 0, 3600000, "How long sop_execute waits for its run.")         \
    F(STR, zoneinfo, opt(), 1, 255, "Folder of tzdata; absent: that of Debian.")                   \
    F(INT, schedule_grace_ms, opt(60000), 0, 86400000,                                             \
      "With catch_up none a due time is served when it is not later than this.")                   \
    F(INT, catch_up_most, opt(100), 1, 1000, "With catch_up all so many due times are made up.")   \
    F(STR, review_daily, opt(), 1, 200, "cron of the daily review; off: none; absent: 06:00.")     \
    F(STR, review_weekly, opt(), 1, 200, "cron of the weekly one; off; absent: Monday 07:00.")     \
    F(STR, review_timezone, opt(UTC), 1, 64, "Zone of both.")                                      \
    F(INT, review_min_failures, opt(3), 1, 1000000,                                                \
      "A review proposes something for failures that came so often.")                              \
    F(INT, review_most, opt(10000), 10, 1000000, "Newest tasks that an analysis looks at.")        \
    F(BOOL, llm, opt(false), 0, 0, "A worker can run steps of prose (AGENCY_LLM_URL is set).")     \
    F(BOOL, simulate_llm, opt(false), 0, 0,                                                        \
      "The model does the steps of prose in simulated runs, which costs tokens; else refused.")    \
    F(INT, step_tool_ms, opt(60000), 10, 86400000, "How long a tool of a step may take, unsaid.")  \
    F(INT, step_sh_ms, opt(600000), 10, 86400000, "The same of a script.")                         \
    F(INT, step_llm_ms, opt(900000), 10, 86400000, "The same of a model.")                         \
    F(INT, step_output_bytes, opt(65536), 256, 16777216,                                           \
      "Kept of what a script writes, unless the step says output=.")                               \
    F(INT, step_result_bytes, opt(1048576), 1024, 8388608, "Largest result of a step.")            \
    F(INT, step_retries, opt(3), 0, 20,                                                            \
      "A step whose error may pass is tried again so often, unless it says retries=.")             \
    F(INT, step_retry_ms, opt(1000), 1, 3600000, "Pause before the first of these; doubles.")      \
    F(INT, step_retry_limit_ms, opt(300000), 1, 86400000, "Longest such pause.")                   \
    F(INT, sop_depth, opt(8), 1, 32, "How many runs of procedures may be inside each other.")      \
    F(INT, each_items, opt(1000), 1, 10000, "Longest list of an ```each.")                         \
    F(INT, experience_ms, opt(1500), 1, 60000,                                                     \
      "How long a new run waits for what the brain remembers of such runs.")
RECORD_STRUCT(agent_settings, agent_settings_FIELDS)
extern const record_t agent_settings_record;

/* Tables in each company's store; TABLE_<name> is the index. */
#define AGENT_TABLES(T)                                                                            \
    TASKS_TABLES(T) SOPS_TABLES(T) RUNS_TABLES(T) SCHEDULE_TABLES(T) HR_TABLES(T)
#define TASKS_TABLES(T)                                                                            \
    T(tasks) T(task_states) T(task_results) T(task_keys) T(ready) T(delayed) T(running) T(meta)
enum {
#define AGENT_TABLE_INDEX(name) TABLE_##name,
    AGENT_TABLES(AGENT_TABLE_INDEX)
#undef AGENT_TABLE_INDEX
        AGENT_TABLE_COUNT
};

/* By what desired_replicas is counted: the settings, until elastic tells its policy. */
typedef struct scale_terms {
    int64_t target_per_replica, min_replicas, max_replicas;
} scale_terms_t;

typedef struct agent {
    const agent_settings_t *settings; /* first: the skeleton fills it in */
    tasks_t *tasks;
    sops_t *sops;
    schedules_t *schedules;
    counts_t *counts;
    scale_terms_t terms;
} agent_t;

extern const actor_def_t agent_actor;

#endif
