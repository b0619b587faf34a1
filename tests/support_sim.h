/* support_sim: the simulation of one test: a directory of its own, time that passes, what was
 * logged. What is not as it should be fails the test. Only in builds with AGENCY_FAULTS. */
#ifndef TESTS_SUPPORT_SIM_H
#define TESTS_SUPPORT_SIM_H

#include "bus/sim.h"

typedef struct lab {
    sim_t *sim;
    arena_t *arena;
    char dir[32];
} lab_t;

/* `http` as in sim_options_t. */
void lab_open(lab_t *lab, uint64_t seed, bool faults,
              void (*http)(void *ctx, const http_call_request_t *request, uint64_t chance,
                           sim_http_t *out));
/* Adds a node; one that is mortal dies while there are faults. The settings end with NULL. */
void lab_add(lab_t *lab, const actor_def_t *def, const char *name, bool mortal,
             const char *const *settings);
/* Goes on for so long in virtual time. */
void lab_pass(lab_t *lab, int64_t ms);
/* Is that in the log? */
bool lab_said(const lab_t *lab, const char *words);
/* The end of the log on stderr, for a test that is about to fail. */
void lab_show_log(const lab_t *lab);
void lab_close(lab_t *lab);

#endif
