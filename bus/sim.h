/* sim: a whole agency in one thread, with virtual time, seeded chance and faults.
 *
 * The actors are the production ones; only the env is ours. Everything that could differ from run
 * to run comes from the seed: the same seed gives the same event log, byte for byte. Time stands
 * still while something can be done and then jumps to the next event. Frames take their time but
 * those from one node to another keep their order, and none is doubled: ZeroMQ promises that. What
 * goes wrong is SIM_FAULT_ROWS. Who died comes back from its store some time later, and may die
 * again while it opens.
 *
 * CAVEATS
 * - Stores are real, without sync, below `dir`: what was committed is what survives. A torn sync
 *   is not a fault of its own: the store has one commit point, so it ends as one of
 *   die_before_commit and die_after_commit.
 * - Reader jobs run inline; their answers come later.
 * - What a published event or a world function says must be constant: nothing is copied.
 *
 * Thread: one owner. Only in builds with AGENCY_FAULTS.
 */
#ifndef BUS_SIM_H
#define BUS_SIM_H

#include "bus/actor.h"

typedef struct sim sim_t;

/* Id, name, one chance in so many occasions, what happens. */
#define SIM_FAULT_ROWS(F)                                                                          \
    F(DIE_BEFORE_COMMIT, "die_before_commit", 150, "A node dies with a commit not yet on disk.")   \
    F(DIE_AFTER_COMMIT, "die_after_commit", 150,                                                   \
      "A node dies with a commit on disk, not knowing.")                                           \
    F(FAIL_SYNC, "fail_sync", 400, "A sync fails: the actor itself must let nothing out.")         \
    F(FILL_DISK, "fill_disk", 500, "A row does not fit on the disk, or nothing does for a while.") \
    F(DIE_AT_SEND, "die_at_send", 800, "A node dies instead of sending.")                          \
    F(DIE_BY_CHANCE, "die_by_chance", 4000, "A node dies at any moment.")                          \
    F(LOSE_SENT, "lose_sent", 2, "What a dead node had on the way is lost.")                       \
    F(HOLD_FRAME, "hold_frame", 2, "What is sent to a dead node waits for its next life.")         \
    F(BREAK_CONNECTION, "break_connection", 600, "A connection loses what is on the way.")         \
    F(REPEAT_CALL, "repeat_call", 100, "A call is sent again though nothing was lost.")            \
    F(LOSE_EVENT, "lose_event", 10, "A subscriber misses an event.")

typedef enum sim_fault {
#define SIM_FAULT_ENUM(id, name, one_in, doc) SIM_##id,
    SIM_FAULT_ROWS(SIM_FAULT_ENUM)
#undef SIM_FAULT_ENUM
        SIM_FAULTS
} sim_fault_t;

/* What the world does when a command is started. One that outlasts the timeout of its request is
 * ended then. */
typedef struct sim_child {
    int64_t duration_ms; /* when it ends */
    int64_t effect_ms;   /* when `effect` runs, unless it was killed before */
    void (*effect)(void *ctx, const char *what);
    char what[256]; /* handed to `effect` */
    int exit_status;
    const char *output; /* constant */
} sim_child_t;

/* What the world answers to a request, and when. */
typedef struct sim_http {
    int64_t duration_ms;
    http_call_outcome_t outcome; /* what it points to is constant */
} sim_http_t;

typedef struct sim_options {
    uint64_t seed;
    const char *dir; /* existing, empty, ours alone */
    bool faults;     /* until sim_calm */
    unsigned never;  /* faults left out: 1u << SIM_FILL_DISK | ... */
    /* `out` is zeroed. NULL: no command can be started, no network is there. */
    void (*child)(void *ctx, const child_request_t *request, uint64_t chance, sim_child_t *out);
    void (*http)(void *ctx, const http_call_request_t *request, uint64_t chance, sim_http_t *out);
    void *ctx;
} sim_options_t;

sim_t *sim_new(const sim_options_t *options);
void sim_destroy(sim_t **sim);

/* Adds a node; `mortal` ones die and come back. `settings` ("actor.key=value", NULL-terminated) and
 * the definition must outlive the sim. ERR_* of actor_open. */
err_t sim_add(sim_t *sim, const actor_def_t *def, const char *instance, bool mortal,
              const char *const *settings, arena_t *arena);

/* Runs until `done` says so or the virtual time is over; true: done. */
bool sim_run(sim_t *sim, int64_t until_ms, bool (*done)(void *ctx), void *ctx);
/* No more faults from now on; who is dead comes back. */
void sim_calm(sim_t *sim);

/* That mortal node dies as the next thing that happens, and comes back as ever. */
void sim_kill(sim_t *sim, const char *instance);

int64_t sim_now_ms(const sim_t *sim);
uint64_t sim_random(sim_t *sim);
/* Text of the event log so far, at most 16 MiB, not ended by 0. */
const char *sim_log(const sim_t *sim, size_t *size);
/* How many nodes died, and how often a fault happened. */
int sim_deaths(const sim_t *sim);
int sim_fault_count(const sim_t *sim, sim_fault_t fault);
const char *sim_fault_name(sim_fault_t fault);

#endif
