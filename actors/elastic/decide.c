#include "actors/elastic/decide.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

RECORD_DEFINE(scale_policy, scale_policy_FIELDS)

err_t decide_check(const scale_policy_t *policy, arena_t *arena)
{
    if (policy->min_replicas > policy->max_replicas)
        return err_make(arena, ERR_ARGUMENT,
                        "min_replicas %" PRId64 " is more than max_replicas %" PRId64
                        "; raise the one or lower the other",
                        policy->min_replicas, policy->max_replicas);
    if (!policy->up_percent && !policy->up_count)
        return err_of(ERR_ARGUMENT, "up_percent and up_count are both 0: it could never grow; set "
                                    "one of them");
    return err_ok();
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- What is remembered ---- */

static wish_t *wish_at(wishes_t *wishes, int i)
{
    return &wishes->items[(wishes->first + i) % DECIDE_WISHES];
}

/* `sign` 1 keeps the largest, -1 the least. Newer wishes make lesser old ones pointless. */
static void keep_wish(wishes_t *wishes, int64_t now_ms, int64_t replicas, int sign)
{
    while (wishes->count && wish_at(wishes, wishes->count - 1)->replicas * sign <= replicas * sign)
        wishes->count--;
    if (wishes->count == DECIDE_WISHES) { /* cannot be: 1000 replicas at most */
        wishes->first = (wishes->first + 1) % DECIDE_WISHES;
        wishes->count--;
    }
    *wish_at(wishes, wishes->count++) = (wish_t){now_ms, replicas};
}

static int64_t extreme(wishes_t *wishes, int64_t now_ms, int64_t window_ms)
{
    while (wishes->count > 1 && wish_at(wishes, 0)->at_ms <= now_ms - window_ms) {
        wishes->first = (wishes->first + 1) % DECIDE_WISHES;
        wishes->count--;
    }
    return wish_at(wishes, 0)->replicas;
}

void decide_scaled(history_t *history, int64_t now_ms, int64_t change)
{
    if (!change)
        return;
    if (history->event_count == DECIDE_EVENTS) { /* two as one, at the later time: cautious */
        history->events[1].change += history->events[0].change;
        memmove(history->events, history->events + 1,
                (DECIDE_EVENTS - 1) * sizeof(*history->events));
        history->event_count--;
    }
    history->events[history->event_count++] = (scale_event_t){now_ms, change};
}

/* What the number was when the period began, as a rate sees it: what was taken away may come back
 * at once, but what was added does not make going down faster. */
static int64_t at_start(const history_t *history, const observed_t *seen, int64_t period_ms,
                        bool up)
{
    int64_t start = seen->current;
    for (int i = 0; i < history->event_count; i++)
        if (history->events[i].at_ms > seen->now_ms - period_ms &&
            (up || history->events[i].change < 0))
            start -= history->events[i].change;
    return start;
}

/* ---- The steps ---- */

static int64_t wish_by_queue(const scale_policy_t *policy, const observed_t *seen, decision_t *out)
{
    int64_t target = policy->target_per_replica;
    if (seen->current > 0) {
        double ratio = (double)seen->queue_length / ((double)target * (double)seen->current);
        if (fabs(1.0 - ratio) <= policy->tolerance) {
            if (ratio != 1.0)
                out->why = WHY_TOLERANCE;
            return seen->current;
        }
    }
    return (seen->queue_length + target - 1) / target;
}

/* More hands than tasks help nobody, so a task that nobody can do does not raise for ever. */
static int64_t wish_by_age(const scale_policy_t *policy, const observed_t *seen, history_t *history)
{
    if (!policy->age_ms || seen->oldest_age_ms <= policy->age_ms) {
        history->aged = false;
        return 0;
    }
    bool due = !history->aged || seen->now_ms - history->raised_by_age_ms >= policy->up_period_ms;
    int64_t wish = least(seen->current + (due ? 1 : 0), seen->queue_length);
    if (due && wish > seen->current) {
        history->aged = true;
        history->raised_by_age_ms = seen->now_ms;
    }
    return wish;
}

static void propose(const scale_policy_t *policy, const observed_t *seen, history_t *history,
                    decision_t *out)
{
    if (!seen->has_metric) {
        out->by_queue = seen->current;
        out->why = WHY_NO_METRIC;
    } else {
        out->by_queue = wish_by_queue(policy, seen, out);
        out->by_age = wish_by_age(policy, seen, history);
    }
    out->proposed = out->by_queue;
    if (out->proposed != seen->current)
        out->why = WHY_QUEUE;
    if (out->by_age > out->proposed) {
        out->proposed = out->by_age;
        out->why = WHY_AGE;
    }
    if (seen->floor > out->proposed) {
        out->proposed = seen->floor;
        out->why = WHY_FLOOR;
    }
}

static void stabilize(const scale_policy_t *policy, const observed_t *seen, history_t *history,
                      decision_t *out)
{
    int64_t now = seen->now_ms, current = seen->current;
    if (!history->begun || now - history->looked_ms > DECIDE_GAP_MS) {
        keep_wish(&history->largest, now, current, 1);
        keep_wish(&history->least, now, current, -1);
        history->begun = true;
    }
    history->looked_ms = now;
    int64_t wish = most(least(out->proposed, policy->max_replicas), policy->min_replicas);
    keep_wish(&history->largest, now, wish, 1);
    keep_wish(&history->least, now, wish, -1);
    int64_t not_below = extreme(&history->largest, now, policy->down_stabilization_ms);
    int64_t not_above = extreme(&history->least, now, policy->up_stabilization_ms);
    int64_t value = current;
    if (value < not_above)
        value = not_above;
    if (value > not_below)
        value = not_below;
    out->stabilized = value;
    if (value != wish)
        out->why = WHY_STABILIZING;
    else if (out->proposed < wish)
        out->why = WHY_MIN;
}

static int64_t within_rates(const scale_policy_t *policy, const observed_t *seen,
                            const history_t *history, decision_t *out)
{
    int64_t wish = out->stabilized, limit = wish;
    if (wish > seen->current) {
        int64_t start = at_start(history, seen, policy->up_period_ms, true);
        int64_t by_percent =
            (int64_t)ceil((double)start * (1.0 + (double)policy->up_percent / 100.0));
        limit = most(seen->current, most(start + policy->up_count, by_percent));
        limit = least(wish, limit);
    } else if (wish < seen->current) {
        int64_t start = at_start(history, seen, policy->down_period_ms, false);
        limit = least(seen->current, start - policy->down_count);
        limit = most(wish, limit);
    }
    if (limit != wish)
        out->why = WHY_RATE;
    return limit;
}

void decide(const scale_policy_t *policy, const observed_t *seen, history_t *history,
            decision_t *out)
{
    *out = (decision_t){.why = WHY_STEADY};
    propose(policy, seen, history, out);
    stabilize(policy, seen, history, out);
    int64_t desired = within_rates(policy, seen, history, out);
    /* The bounds hold at once, whatever the windows say; but what is not known takes nothing. */
    if (desired < policy->min_replicas) {
        desired = policy->min_replicas;
        out->why = WHY_MIN;
    }
    if (seen->current > policy->max_replicas || desired > policy->max_replicas ||
        (out->proposed > policy->max_replicas && desired == policy->max_replicas)) {
        desired = policy->max_replicas;
        out->why = WHY_MAX;
    }
    if (!seen->has_metric && desired < seen->current) {
        desired = seen->current;
        out->why = WHY_NO_METRIC;
    }
    out->desired = desired;
}
