/* decide: how many replicas there should be. The words, defaults and order of steps are those of
 * the HorizontalPodAutoscaler (autoscaling/v2) with its behavior rules, so that `local`, `direct`
 * and `hpa` do the same with the same demand; on top of it, the age of the oldest task and the
 * demand rules may raise the number, never lower it.
 *
 *   by_queue   = within tolerance ? current : ceil(queue_length / target)
 *   by_age     = one more than now, when the oldest waits too long, never more than there are tasks
 *   proposed   = the largest of by_queue, by_age, floor
 *   stabilized = not below what was proposed within down_stabilization_ms, not above the least
 *                within up_stabilization_ms
 *   desired    = stabilized within the rates and within min and max
 *
 * No metric: hold; min still holds and a floor may still raise, but nothing goes down. The same
 * where nobody looked for DECIDE_GAP_MS (the API server was away): the window begins again.
 * Pure: no clock, no file, no allocation; what it must remember is the history it is given.
 */
#ifndef ACTORS_ELASTIC_DECIDE_H
#define ACTORS_ELASTIC_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/record.h"

/* Type, name, default, smallest, largest, meaning. R adds what else its record needs. */
#define SCALE_POLICY_ROWS(R, F)                                                                    \
    R(F, INT, min_replicas, 1, 1, 1000, "Never fewer than this.")                                  \
    R(F, INT, max_replicas, 5, 1, 1000, "Never more than this.")                                   \
    R(F, INT, target_per_replica, 5, 1, 100000, "Tasks that one replica is expected to hold.")     \
    R(F, REAL, tolerance, 0.1, 0, 1, "A demand that is off by less changes nothing.")              \
    R(F, INT, up_stabilization_ms, 0, 0, 3600000, "The least wish of this time goes up.")          \
    R(F, INT, up_percent, 100, 0, 10000, "In one period at most so many percent more.")            \
    R(F, INT, up_count, 4, 0, 1000, "Or so many more, whichever is the most.")                     \
    R(F, INT, up_period_ms, 15000, 100, 1800000, "Period of the two.")                             \
    R(F, INT, down_stabilization_ms, 300000, 0, 3600000,                                           \
      "Only below the largest wish of this time does it go down.")                                 \
    R(F, INT, down_count, 1, 1, 1000, "In one period at most so many fewer.")                      \
    R(F, INT, down_period_ms, 60000, 100, 1800000, "Period of it.")                                \
    R(F, INT, age_ms, 30000, 0, 86400000,                                                          \
      "One replica more in each up_period_ms while the oldest task waits longer; 0: never.")
#define SCALE_POLICY_ROW(F, type, name, def, smallest, largest, doc)                               \
    F(type, name, opt(def), smallest, largest, doc)
#define scale_policy_FIELDS(F) SCALE_POLICY_ROWS(SCALE_POLICY_ROW, F)
RECORD_STRUCT(scale_policy, scale_policy_FIELDS)
extern const record_t scale_policy_record;

enum { DECIDE_WISHES = 1024, DECIDE_EVENTS = 256, DECIDE_GAP_MS = 150000 };

typedef struct wish {
    int64_t at_ms, replicas;
} wish_t;

/* The extreme of a sliding window: only wishes that can still become it are kept, so that there is
 * at most one for each number of replicas. */
typedef struct wishes {
    wish_t items[DECIDE_WISHES];
    int first, count;
} wishes_t;

typedef struct scale_event {
    int64_t at_ms, change;
} scale_event_t;

/* Zeroed: nothing is remembered, and the first decision counts what runs as wished for, so that a
 * new life never scales in early. */
typedef struct history {
    wishes_t largest, least;
    scale_event_t events[DECIDE_EVENTS];
    int event_count;
    int64_t raised_by_age_ms, looked_ms;
    bool begun, aged;
} history_t;

typedef struct observed {
    int64_t now_ms;  /* of a clock that never goes back */
    int64_t current; /* replicas that take work */
    bool has_metric;
    int64_t queue_length, oldest_age_ms;
    int64_t floor; /* at least so many, by demand rules or by hand; 0: no say */
} observed_t;

#define decide_why_VALUES(V)                                                                       \
    V(WHY_STEADY, "steady")                                                                        \
    V(WHY_NO_METRIC, "no_metric")                                                                  \
    V(WHY_TOLERANCE, "within_tolerance")                                                           \
    V(WHY_QUEUE, "queue")                                                                          \
    V(WHY_AGE, "oldest_age")                                                                       \
    V(WHY_FLOOR, "floor")                                                                          \
    V(WHY_STABILIZING, "stabilizing")                                                              \
    V(WHY_RATE, "rate_limit")                                                                      \
    V(WHY_MIN, "min_replicas")                                                                     \
    V(WHY_MAX, "max_replicas")
RECORD_ENUM(decide_why, decide_why_VALUES)

typedef struct decision {
    int64_t by_queue, by_age, proposed, stabilized, desired;
    decide_why_t why; /* what bounded the last step */
} decision_t;

/* Is the policy sound as a whole? ERR_ARGUMENT says what to change. Single rows are checked when
 * the record is decoded. */
err_t decide_check(const scale_policy_t *policy, arena_t *arena);

void decide(const scale_policy_t *policy, const observed_t *seen, history_t *history,
            decision_t *out);
/* The number was really changed by so many: the rates count it. */
void decide_scaled(history_t *history, int64_t now_ms, int64_t change);

#endif
