/* sim: a whole agency in one thread, with virtual time, seeded chance and faults.
 *
 * The actors are the production ones; only the env is ours. Everything that could differ from run
 * to run comes from the seed: the same seed gives the same event log, byte for byte. Time stands
 * still while something can be done and then jumps to the next event. Faults: frames are delayed
 * or lost with their connection (ZeroMQ doubles none); a node dies at a commit (before or right
 * after the sync), at a send, or at any moment, and comes back from its store some time later.
 *
 * Stores are real, without sync, below `dir`: what was committed is what survives.
 * Thread: one owner. Only in builds with AGENCY_FAULTS.
 */
#ifndef BUS_SIM_H
#define BUS_SIM_H

#include "bus/actor.h"

typedef struct sim sim_t;

/* What the world does when a command is started. */
typedef struct sim_child {
    int64_t duration_ms; /* when it ends */
    int64_t effect_ms;   /* when `effect` runs, unless it was killed before */
    void (*effect)(void *ctx, const char *what);
    char what[256]; /* handed to `effect` */
    int exit_status;
    const char *output; /* constant */
} sim_child_t;

typedef struct sim_options {
    uint64_t seed;
    const char *dir; /* existing, empty, ours alone */
    bool faults;     /* until sim_calm */
    void (*child)(void *ctx, const child_request_t *request, uint64_t chance, sim_child_t *out);
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

int64_t sim_now_ms(const sim_t *sim);
uint64_t sim_random(sim_t *sim);
/* Text of the event log so far, and how many nodes died. */
const char *sim_log(const sim_t *sim, size_t *size);
int sim_deaths(const sim_t *sim);

#endif
