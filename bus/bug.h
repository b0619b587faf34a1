/* bug: mistakes planted on purpose, to prove that the simulation finds them. They exist only in a
 * build with AGENCY_PLANTED_BUGS; elsewhere bug() is a constant and the compiler removes it. */
#ifndef BUS_BUG_H
#define BUS_BUG_H

#include <stdbool.h>

#define BUG_ROWS(B)                                                                                \
    B(NONE, "none", "No mistake.")                                                                 \
    B(REPLY_BEFORE_COMMIT, "reply_before_commit", "Answers leave before the sync.")                \
    B(MISSING_FENCE_CHECK, "missing_fence_check", "A late worker's result is taken.")              \
    B(LOST_ROLLBACK, "lost_rollback", "A failed call leaves its writes behind.")                   \
    B(EFFECT_BEFORE_INTENT, "effect_before_intent", "A step is performed before it is on disk.")   \
    B(DROPPED_DEDUPE, "dropped_dedupe", "A repeated call is done twice.")                          \
    B(TIMER_LOST_ON_RESTART, "timer_lost_on_restart", "Due times are forgotten by a restart.")     \
    B(DOUBLE_LEASE, "double_lease", "A leased task is leased again.")                              \
    B(LOST_WAKEUP, "lost_wakeup", "A waiting worker is not woken.")                                \
    B(STALE_READ_SNAPSHOT, "stale_read_snapshot", "A read sees what is not committed.")            \
    B(REPLAYED_DONE_STEP, "replayed_done_step", "A finished step runs again on resume.")           \
    B(FENCE_FORGETS_EPOCH, "fence_forgets_epoch", "Fences start again after a restart.")           \
    B(SPENT_RETRY, "spent_retry", "A failed task is not tried again.")                             \
    B(LOST_CHILD, "lost_child", "The end of a run does not wake the run that waits for it.")

typedef enum bug {
#define BUG_ENUM(id, name, doc) BUG_##id,
    BUG_ROWS(BUG_ENUM)
#undef BUG_ENUM
        BUG_COUNT
} bug_t;

#ifdef AGENCY_PLANTED_BUGS
/* Is this the planted one? */
bool bug(bug_t bug);
/* Plants one; BUG_NONE takes it out. For tests, before any actor runs. */
void bug_plant(bug_t bug);
const char *bug_name(bug_t bug);
const char *bug_doc(bug_t bug);
#else
#define bug(which) false
#endif

#endif
