#include "actors/swarm/negotiate.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include <strings.h>

static const double unknown_share = 0.5;

static bool names(const char *task, const char *word)
{
    size_t size = strlen(word);
    for (const char *at = task; size && *at; at++)
        if ((at == task || !isalnum((unsigned char)at[-1])) && !strncasecmp(at, word, size))
            return true;
    return false;
}

bool negotiate_fits(const bidder_t *bidder, const char *task)
{
    if (names(task, bidder->role))
        return true;
    for (size_t i = 0; i < bidder->capabilities.count; i++)
        if (names(task, bidder->capabilities.items[i]))
            return true;
    return false;
}

static bool usable(bool has, double value)
{
    return has && isfinite(value) && value >= 0;
}

static double share(bool has, double value, double largest)
{
    return !usable(has, value) ? unknown_share : largest > 0 ? value / largest : 0;
}

static double within(double value)
{
    return !(value > 0) ? 0 : value > 1 ? 1 : value;
}

static double success(const bidder_t *bidder)
{
    double runs = bidder->runs > 0 ? (double)bidder->runs : 0;
    double good = bidder->successes > 0 ? (double)bidder->successes : 0;
    return ((good < runs ? good : runs) + 1) / (runs + 2);
}

void negotiate_score(const bidder_t *bidders, size_t count, const char *task, bid_score_t *scores)
{
    double duration = 0, tokens = 0;
    for (size_t i = 0; i < count; i++) {
        if (usable(bidders[i].has_duration, bidders[i].duration))
            duration = fmax(duration, bidders[i].duration);
        if (usable(bidders[i].has_tokens, bidders[i].tokens))
            tokens = fmax(tokens, bidders[i].tokens);
    }
    for (size_t i = 0; i < count; i++) {
        const bidder_t *one = &bidders[i];
        bid_score_t *score = &scores[i];
        score->fits = negotiate_fits(one, task);
        score->quality = success(one) * (score->fits ? 1 : 0.5);
        score->cost = (within(one->load) + share(one->has_duration, one->duration, duration) +
                       share(one->has_tokens, one->tokens, tokens)) /
                      3;
        score->score = score->quality - score->cost / 2;
    }
}

/* Before the other one in the order of awards. */
static bool better(const bidder_t *one, const bid_score_t *its, const bidder_t *other,
                   const bid_score_t *others)
{
    if (its->score != others->score)
        return its->score > others->score;
    if (one->load != other->load)
        return one->load < other->load;
    if (one->runs != other->runs)
        return one->runs > other->runs;
    return strcmp(one->id, other->id) < 0;
}

size_t negotiate_award(const bidder_t *bidders, const bid_score_t *scores, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (better(&bidders[i], &scores[i], &bidders[best], &scores[best]))
            best = i;
    return count ? best : count;
}
