/* crew: child processes of this binary, kept running: `agency run NAME …`. Started again when they
 * die, with a growing pause when they die before they were ready; all of them die with this
 * process. Thread: the main one, which must stay until the end (the children follow it). */
#ifndef ACTORS_CLI_CREW_H
#define ACTORS_CLI_CREW_H

#include <poll.h>
#include <sys/types.h>

#include "actors/cli/cli.h"

enum { CREW_MOST = 80, CREW_POLLS = 2 * CREW_MOST, CREW_GIVE_UP_EXITS = 5 };

typedef struct kid {
    const char *actor, *instance;
    int port;
    pid_t pid;
    int pidfd;    /* -1: not running */
    int ready_fd; /* -1: ready, or not running */
    bool ready;
    bool leaving; /* a worker that nobody wants any more */
    int64_t backoff_ms, restart_at_ms;
    int64_t early_at_ms[CREW_GIVE_UP_EXITS];
    int early_count;
} kid_t;

typedef struct crew {
    cli_t *cli; /* its flags are handed on */
    kid_t kids[CREW_MOST];
    int count;
} crew_t;

/* The names must live as long as the crew. It is started by crew_start_due. */
kid_t *crew_add(crew_t *crew, const char *actor, const char *instance, int port);
kid_t *crew_find(crew_t *crew, const char *instance);
bool crew_ready(const crew_t *crew);

/* Starts who is due; then how long to wait for the next one, in ms; -1: for ever. */
void crew_start_due(crew_t *crew);
int64_t crew_next_restart(const crew_t *crew);
/* Two entries for each kid; returns how many. crew_look takes the same after poll(2) and returns a
 * kid that keeps dying before it is ready, or NULL. That one is tried again all the same. */
int crew_fill_polls(const crew_t *crew, struct pollfd *polls);
const kid_t *crew_look(crew_t *crew, const struct pollfd *polls);
/* Takes those off the list that were to leave and have; false: nobody. */
bool crew_forget_gone(crew_t *crew);
/* SIGTERM to the workers, or to all others; after ms SIGKILL. */
void crew_stop(crew_t *crew, bool workers, int64_t ms);

#endif
