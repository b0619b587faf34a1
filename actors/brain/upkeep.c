#include "actors/brain/upkeep.h"

#include <string.h>

#include "actors/brain/care.h"
#include "actors/brain/policy.h"
#include "actors/brain/quiet.h"
#include "actors/brain/rebuild.h"

enum { LOOK = 50, LONGEST_MS = 24 * 3600 * 1000 };

#define brain_upkeep_ARGS(F) COMPANY_ROW(F)
#define brain_upkeep_REPLY(F) F(INT, deleted, must, 0, 0, "Memories whose time was over.")

#define UPKEEP_METHODS(M)                                                                          \
    M(brain_t, brain_upkeep, WRITES | IDEMPOTENT | UNREMEMBERED,                                   \
      "Finish what waits: rebuilds, and deleting memories whose time is over.")
UPKEEP_METHODS(METHOD_DECLARE_)
const method_t upkeep_methods[] = {UPKEEP_METHODS(METHOD_ROW_){.name = NULL}};

/* ---- one company, a slice an entry ---- */

typedef struct round {
    bool rebuilt, swept, expired;
    care_place_t place;
    uint64_t from;
    int64_t deleted;
} round_t;

static err_t expire(brain_t *self, call_t *call, store_txn_t *txn, round_t *round)
{
    policy_t *policy = ARENA_NEW(call_arena(call), policy_t);
    err_t err = policy_read(txn, call_arena(call), policy);
    bool more = false;

    if (!err_is(err) && policy->count) {
        care_wish_t wish = {.policy = policy, .now_ms = call_now_ms(call)};
        err = care_forget(self, call, call_company(call), &wish, &round->from, &round->deleted,
                          &more);
    }
    round->expired = !more;
    return err;
}

static err_t upkeep_on(void *state, call_t *call, void *out, void *ctx)
{
    brain_t *self = state;
    brain_upkeep_reply_t *reply = out;
    round_t *round = ARENA_NEW(call_arena(call), round_t);
    store_txn_t *txn;
    bool more = false;
    int64_t done = 0;
    err_t err = call_read(call, call_company(call), &txn);

    *round = *(const round_t *)ctx; /* a slice may be run twice, from the same place */
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    if (rebuild_waits(self, txn, call_arena(call))) {
        round->rebuilt = true;
        err = rebuild_step(self, call, call_company(call), &more, &done);
    } else if (round->rebuilt && !round->swept) {
        err = care_vacuum(self, call, call_company(call), &round->place, &more);
        round->swept = !more;
    } else {
        err = expire(self, call, txn, round);
        reply->deleted = round->deleted;
    }
    if (err_is(err) || round->expired)
        return err;
    call_resume(call, call, upkeep_on, round);
    return call_park(call);
}

static err_t brain_upkeep(brain_t *self, call_t *call, const brain_upkeep_args_t *args,
                          brain_upkeep_reply_t *reply)
{
    (void)args;
    return upkeep_on(self, call, reply, ARENA_NEW(call_arena(call), round_t));
}

/* ---- all of them ---- */

typedef struct walk {
    strs_t companies;
    size_t at;
} walk_t;

static err_t walk_on(void *state, call_t *call, void *out, void *ctx);

static err_t on_company(void *state, call_t *call, void *out, const peer_answer_t *answer,
                        void *ctx)
{
    if (answer->progress)
        return call_park(call);
    return walk_on(state, call, out, ctx); /* an error was logged; the next round tries again */
}

static bool wants_upkeep(brain_t *self, call_t *call, const char *company)
{
    store_txn_t *txn;
    policy_t *policy = ARENA_NEW(call_arena(call), policy_t);

    if (err_is(call_read(call, company, &txn)))
        return false;
    quiet_found(self, call, txn, company);
    return rebuild_waits(self, txn, call_arena(call)) ||
           (!err_is(policy_read(txn, call_arena(call), policy)) && policy->count);
}

static err_t walk_on(void *state, call_t *call, void *out, void *ctx)
{
    brain_t *self = state;
    walk_t *walk = ARENA_NEW(call_arena(call), walk_t);

    *walk = *(const walk_t *)ctx; /* this may be run twice, from the same place */
    (void)out;
    for (int looked = 0; walk->at < walk->companies.count && looked < LOOK; looked++) {
        const char *company = walk->companies.items[walk->at++];
        peer_call_t request = {.peer = "brain",
                               .method = "brain_upkeep",
                               .timeout_ms = LONGEST_MS,
                               .company = company};
        if (!wants_upkeep(self, call, company))
            continue;
        call_peer(call, &request, on_company, walk);
        return call_park(call);
    }
    if (walk->at == walk->companies.count)
        return err_ok();
    call_resume(call, call, walk_on, walk);
    return call_park(call);
}

static err_t look(void *state, call_t *call, void *ctx)
{
    walk_t *walk = ARENA_NEW(call_arena(call), walk_t);
    err_t err = call_companies(call, &walk->companies);

    (void)ctx;
    return err_is(err) ? err : walk_on(state, call, NULL, walk);
}

static err_t again(void *state, call_t *call, void *ctx)
{
    brain_t *self = state;

    (void)ctx;
    call_work(call, 0, look, NULL);
    call_work(call, self->settings->upkeep_ms, again, NULL);
    return err_ok();
}

void upkeep_start(brain_t *self, call_t *call)
{
    (void)self;
    call_work(call, 0, again, NULL);
}

void upkeep_wake(call_t *call)
{
    call_work(call, 0, look, NULL);
}
