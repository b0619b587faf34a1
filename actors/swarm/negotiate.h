/* negotiate: the arithmetic of a contract net. Pure: the same bidders give the same award.
 *
 *   quality = success rate, smoothed, halved when no capability fits the task
 *   cost    = mean of load, duration and tokens, the last two as a share of the largest bid;
 *             what was never measured counts as 0.5
 *   score   = quality - cost / 2
 *
 * Equal scores: less load, then more experience, then the smaller id. */
#ifndef ACTORS_SWARM_NEGOTIATE_H
#define ACTORS_SWARM_NEGOTIATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/record.h"

typedef struct bidder {
    const char *id, *role;
    strs_t capabilities;
    double load; /* 0..1 */
    int64_t runs, successes;
    double duration, tokens; /* means */
    bool has_duration, has_tokens;
} bidder_t;

typedef struct bid_score {
    double quality, cost, score;
    bool fits; /* a capability, or the role, is named in the task */
} bid_score_t;

/* Does a word of the task begin with this, whatever the case? */
bool negotiate_fits(const bidder_t *bidder, const char *task);
/* Fills scores[count]. Numbers that are no numbers count as not measured. */
void negotiate_score(const bidder_t *bidders, size_t count, const char *task, bid_score_t *scores);
/* Index of the winner; count when there is none. */
size_t negotiate_award(const bidder_t *bidders, const bid_score_t *scores, size_t count);

#endif
