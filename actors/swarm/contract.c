/* contract: negotiate_task, a contract net. The task is announced (a durable row), bids are made of
 * what was measured (the brain's experience by role), the present load and the capabilities, and
 * the award is durable before it is told. A brain that does not answer until the deadline leaves
 * its part of the bids unknown, and the answer says so. */
#include <inttypes.h>
#include <string.h>

#include "actors/swarm/negotiate.h"
#include "actors/swarm/swarm.h"
#include "proto/mp.h"

enum { BIDDERS_MOST = 100, PATTERNS_MOST = 3, STALE_MS = 120000 };

#define swarm_bid_FIELDS(F)                                                                        \
    F(STR, agent_id, must, 0, 0, "Who bids.")                                                      \
    F(STR, agentId, opt(), 0, 0, "The same, under its older name.")                                \
    F(STR, role, must, 0, 0, "Its role; experience is by role.")                                   \
    F(REAL, quality, must, 0, 0, "Success rate, smoothed; halved when no capability fits.")        \
    F(REAL, cost, must, 0, 0, "Mean of load, duration and tokens, each 0 to 1.")                   \
    F(REAL, score, must, 0, 0, "quality - cost / 2.")                                              \
    F(BOOL, fits, must, 0, 0, "The task names a capability or the role.")                          \
    F(REAL, load, must, 0, 0, "Present load.")                                                     \
    F(INT, runs, must, 0, 0, "Experiences that it rests on.")                                      \
    F(STR, rationale, opt(), 0, 0, "The same in words.")
RECORD(swarm_bid, swarm_bid_FIELDS)

#define negotiation_state_VALUES(V)                                                                \
    V(NEGOTIATION_ANNOUNCED, "announced")                                                          \
    V(NEGOTIATION_AWARDED, "awarded")                                                              \
    V(NEGOTIATION_ABANDONED, "abandoned")
RECORD_ENUM(negotiation_state, negotiation_state_VALUES)

#define negotiation_FIELDS(F)                                                                      \
    F(STR, task, must, 0, 0, "What was announced.")                                                \
    F(ENUM(negotiation_state), state, must, 0, 0, "How far it came.")                              \
    F(TIME, at_ms, must, 0, 0, "When.")                                                            \
    F(STR, winner, opt(), 0, 0, "Who was awarded.")                                                \
    F(STR, role, opt(), 0, 0, "Its role.")                                                         \
    F(LIST(swarm_bid), bids, opt(), 0, 0, "Best first.")                                           \
    F(BOOL, measured, must, 0, 0, "The brain gave its part.")                                      \
    F(STR, assigned, opt(), 0, 0, "The subagent that the award began.")                            \
    F(STR, outcome, opt(), 0, 0, "How that one ended.")
RECORD(negotiation, negotiation_FIELDS)

#define negotiate_task_ARGS(F)                                                                     \
    F(STRS, agent_ids, opt(), 0, 100, "Who may bid; absent: all subagents that take work.")        \
    F(STR, task_description, must, 1, 8192, "What is to be done.")                                 \
    F(BOOL, simulation_mode, opt(false), 0, 0, "Only show the award: nothing is kept or logged.")  \
    F(BOOL, assign, opt(false), 0, 0,                                                              \
      "Begin the work: a subagent of the winner's role and procedure, below the winner.")          \
    COMPANY_ROW(F)
#define negotiate_task_REPLY(F)                                                                    \
    F(STR, negotiation_id, opt(), 0, 0, "Id of the record; absent in simulation.")                 \
    F(STR, winner, must, 0, 0, "Id of the subagent that is awarded.")                              \
    F(STR, winner_id, must, 0, 0, "The same, under its older name.")                               \
    F(REC(swarm_bid), winning_bid, must, 0, 0, "Its bid.")                                         \
    F(STR, role, must, 0, 0, "Its role.")                                                          \
    F(REAL, score, must, 0, 0, "Its score.")                                                       \
    F(LIST(swarm_bid), bids, must, 0, 0, "All bids, best first.")                                  \
    F(LIST(swarm_bid), all_bids, must, 0, 0, "The same, under its older name.")                    \
    F(BOOL, simulation, must, 0, 0, "Nothing was awarded.")                                        \
    F(BOOL, measured, must, 0, 0, "False: the brain's experience did not come in time.")           \
    F(STR, problem, opt(), 0, 0, "Why it did not.")                                                \
    F(STRS, patterns, opt(), 0, 0, "Earlier negotiations of the like, from the brain.")            \
    F(STR, assigned_agent_id, opt(), 0, 0, "assign: the subagent that does it.")                   \
    F(STR, run_id, opt(), 0, 0, "assign: its run.")

#define CONTRACT_METHODS(M)                                                                        \
    M(swarm_t, negotiate_task, TOOL | WRITES | SAYS_JSON,                                          \
      "Ask the subagents for bids on a task and award it to the best.")
CONTRACT_METHODS(METHOD_DECLARE_)
const method_t contract_methods[] = {CONTRACT_METHODS(METHOD_ROW_){.name = NULL}};

/* One negotiation under way, in the arena of the call. */
typedef struct contract {
    const char *id, *task;
    bool simulation, measured, assign;
    const char *problem;
    int64_t deadline_ms;
    bidder_t *bidders;
    bid_score_t *scores;
    size_t count;
    strs_t patterns;
} contract_t;

/* ---- Bidders ---- */

static void add_bidder(contract_t *contract, const swarm_agent_t *agent)
{
    for (size_t i = 0; i < contract->count; i++)
        if (!strcmp(contract->bidders[i].id, agent->agent_id))
            return;
    contract->bidders[contract->count++] = (bidder_t){.id = agent->agent_id,
                                                      .role = agent->role,
                                                      .capabilities = agent->capabilities,
                                                      .load = agent->load};
}

static bool takes_work(const agent_row_t *row, const void *ctx)
{
    (void)ctx;
    return row->wish == WISH_LIVE && (row->state == AGENT_READY || row->state == AGENT_BUSY);
}

static err_t named_bidders(call_t *call, strs_t ids, contract_t *contract)
{
    for (size_t i = 0; i < ids.count; i++) {
        agent_row_t row;
        err_t err = agents_get(call, call_company(call), ids.items[i], &row);
        if (err_is(err))
            return err;
        if (!takes_work(&row, NULL))
            return err_make(call_arena(call), ERR_STATE,
                            "%s is %s and cannot bid: leave it out of agent_ids", row.agent_id,
                            agent_state_names[row.state]);
        swarm_agent_t agent = agents_show(&row, call_now_ms(call));
        add_bidder(contract, &agent);
    }
    return err_ok();
}

static err_t find_bidders(call_t *call, const negotiate_task_args_t *args, contract_t *contract)
{
    swarm_agent_list_t live;
    contract->bidders = ARENA_ARRAY(call_arena(call), bidder_t, BIDDERS_MOST + 1);
    contract->scores = ARENA_ARRAY(call_arena(call), bid_score_t, BIDDERS_MOST + 1);
    if (args->agent_ids.count)
        return named_bidders(call, args->agent_ids, contract);
    err_t err = agents_list(call, call_company(call), true, BIDDERS_MOST, takes_work, NULL, &live);
    for (size_t i = 0; !err_is(err) && i < live.count; i++)
        add_bidder(contract, &live.items[i]);
    if (!err_is(err) && !contract->count)
        return err_of(ERR_STATE, "Negotiation failed: No valid bids received. There is no subagent "
                                 "that takes work; begin one with spawn_subagent");
    return err;
}

/* ---- The record ---- */

static bytes_t key_of(const char *id)
{
    return (bytes_t){(const uint8_t *)id, strlen(id)};
}

static err_t write_row(call_t *call, const char *company, const char *id, const negotiation_t *row,
                       bool live)
{
    store_txn_t *txn;
    buf_t out;
    buf_open(&out, call_arena(call));
    record_encode(&negotiation_record, row, &out);
    err_t err = call_write(call, company, &txn);
    if (!err_is(err))
        err = store_put(txn, TABLE_NEGOTIATIONS, key_of(id), buf_bytes(&out));
    if (err_is(err))
        return err;
    if (live)
        return store_put(txn, TABLE_LIVE, key_of(id), key_of("n"));
    err = store_del(txn, TABLE_LIVE, key_of(id));
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

static const char *rationale(call_t *call, const bidder_t *bidder, const bid_score_t *score)
{
    return arena_printf(
        call_arena(call), "%s; %" PRId64 " of %" PRId64 " runs succeeded; load %.2f; score %.3f",
        score->fits ? "the task names what it can do" : "the task names nothing that it can do",
        bidder->successes, bidder->runs, bidder->load, score->score);
}

static void show_bids(call_t *call, const contract_t *contract, swarm_bid_list_t *out)
{
    bool *taken = ARENA_ARRAY(call_arena(call), bool, contract->count + 1);
    memset(taken, 0, contract->count + 1);
    *out = (swarm_bid_list_t){ARENA_ARRAY(call_arena(call), swarm_bid_t, contract->count + 1), 0};
    bidder_t *left = ARENA_ARRAY(call_arena(call), bidder_t, contract->count + 1);
    bid_score_t *scores = ARENA_ARRAY(call_arena(call), bid_score_t, contract->count + 1);
    memcpy(left, contract->bidders, contract->count * sizeof(*left));
    memcpy(scores, contract->scores, contract->count * sizeof(*scores));
    for (size_t rest = contract->count; rest; rest--) {
        size_t best = negotiate_award(left, scores, rest);
        out->items[out->count++] =
            (swarm_bid_t){.agent_id = left[best].id,
                          .agentId = left[best].id,
                          .role = left[best].role,
                          .quality = scores[best].quality,
                          .cost = scores[best].cost,
                          .score = scores[best].score,
                          .fits = scores[best].fits,
                          .load = left[best].load,
                          .runs = left[best].runs,
                          .rationale = rationale(call, &left[best], &scores[best])};
        left[best] = left[rest - 1];
        scores[best] = scores[rest - 1];
    }
}

static err_t read_row(call_t *call, const char *company, const char *id, negotiation_t *row);

/* An error says that no work was begun; the award stands. */
static err_t on_begun(swarm_t *self, call_t *call, void *out, tend_t *tend)
{
    negotiate_task_reply_t *reply = out;
    const agent_row_t *agent = &tend->row;
    negotiation_t row;
    (void)self;
    const char *why = err_is(tend->err) ? err_what(tend->err)
                      : agent->outcome && !strcmp(agent->outcome, "never started")
                          ? (agent->error ? agent->error : "it was ended before it began")
                          : NULL;
    if (why)
        return err_make(call_arena(call), err_is(tend->err) ? tend->err.code : ERR_STATE,
                        "%s was awarded (%s), but its work was not begun: %s", reply->winner,
                        reply->negotiation_id, why);
    reply->assigned_agent_id = agent->agent_id;
    reply->run_id = agent->run_id;
    call_say(call, "%s (%s) is best of %zu bids with %.3f; subagent %s does it.", reply->winner,
             reply->role, reply->bids.count, reply->score, agent->agent_id);
    err_t err = read_row(call, call_company(call), reply->negotiation_id, &row);
    row.assigned = agent->agent_id;
    return err_is(err) ? err
                       : write_row(call, call_company(call), reply->negotiation_id, &row, true);
}

/* A subagent has one run: the winner's new task is one of its own, below it. */
static err_t begin_work(swarm_t *self, call_t *call, negotiate_task_reply_t *reply,
                        const contract_t *contract)
{
    agent_row_t winner;
    tend_t *tend = ARENA_NEW(call_arena(call), tend_t);
    *tend = (tend_t){.then = on_begun, .first = true, .company = call_company(call)};
    err_t err = agents_get(call, tend->company, reply->winner, &winner);
    if (err_is(err))
        return err;
    agent_row_t want = {.role = winner.role,
                        .task = contract->task,
                        .parent_agent_id = winner.agent_id,
                        .sop = winner.sop,
                        .capabilities = winner.capabilities,
                        .negotiation = contract->id};
    err = swarm_register(self, call, &want, tend);
    if (err_is(err))
        return err_make(call_arena(call), err.code,
                        "%s is the best bidder, but its work cannot begin, so nothing was awarded: "
                        "%s",
                        winner.agent_id, err_what(err));
    return tend_agent(self, call, reply, tend);
}

static err_t award(swarm_t *self, call_t *call, negotiate_task_reply_t *reply,
                   const contract_t *contract)
{
    negotiate_score(contract->bidders, contract->count, contract->task, contract->scores);
    show_bids(call, contract, &reply->bids);
    reply->all_bids = reply->bids;
    const swarm_bid_t *best = reply->bids.items;
    reply->winner = reply->winner_id = best->agent_id;
    reply->winning_bid = best;
    reply->role = best->role;
    reply->score = best->score;
    reply->simulation = contract->simulation;
    reply->measured = contract->measured;
    reply->problem = contract->measured ? NULL : contract->problem;
    reply->patterns = contract->patterns;
    call_say(call, "%s%s (%s) is best of %zu bids with %.3f%s%s.",
             contract->simulation ? "Simulation, nothing was awarded: " : "", best->agent_id,
             best->role, reply->bids.count, best->score,
             contract->measured ? "" : "; without the brain's experience: ",
             contract->measured || !contract->problem ? "" : contract->problem);
    if (contract->simulation)
        return err_ok();
    reply->negotiation_id = contract->id;
    negotiation_t row = {.task = contract->task,
                         .state = NEGOTIATION_AWARDED,
                         .at_ms = call_now_ms(call),
                         .winner = best->agent_id,
                         .role = best->role,
                         .bids = reply->bids,
                         .measured = contract->measured};
    err_t err = write_row(call, call_company(call), contract->id, &row, true);
    return err_is(err) || !contract->assign ? err : begin_work(self, call, reply, contract);
}

/* ---- What the brain knows ---- */

static void take_pattern(contract_t *contract, const char *role, bytes_t pattern)
{
    bytes_t field;
    for (size_t i = 0; i < contract->count; i++) {
        bidder_t *bidder = &contract->bidders[i];
        if (strcmp(bidder->role, role) != 0)
            continue;
        if (mp_get(pattern, "runs", &field))
            mp_int(field, &bidder->runs);
        if (mp_get(pattern, "successes", &field))
            mp_int(field, &bidder->successes);
        bidder->has_duration =
            mp_get(pattern, "mean_duration", &field) && mp_real(field, &bidder->duration);
        bidder->has_tokens =
            mp_get(pattern, "mean_tokens", &field) && mp_real(field, &bidder->tokens);
    }
}

static err_t on_patterns(void *state, call_t *call, void *reply, const peer_answer_t *got,
                         void *ctx)
{
    contract_t *contract = ctx;
    bytes_t memories, memory, text;
    if (!err_is(got->err) && mp_get(got->body, "memories", &memories)) {
        const char **items = ARENA_ARRAY(call_arena(call), const char *, PATTERNS_MOST);
        for (uint32_t i = 0; i < PATTERNS_MOST && mp_at(memories, i, &memory); i++)
            if (mp_get(memory, "solution", &text) &&
                (items[contract->patterns.count] = mp_text(call_arena(call), text)))
                contract->patterns.count++;
        contract->patterns.items = items;
    }
    return award(state, call, reply, contract);
}

static err_t ask_patterns(swarm_t *self, call_t *call, negotiate_task_reply_t *reply,
                          contract_t *contract)
{
    buf_t args;
    int64_t left = contract->deadline_ms - actor_mono_us(self->actor) / 1000;
    if (left <= 0)
        return award(self, call, reply, contract);
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 3);
    mp_put_str(&args, "query");
    mp_put_str(&args, contract->task);
    mp_put_str(&args, "type");
    mp_put_str(&args, "swarm_negotiation_pattern");
    mp_put_str(&args, "limit");
    mp_put_int(&args, PATTERNS_MOST);
    return swarm_ask(call, "brain", "brain_query", call_company(call), &args, left, NULL,
                     on_patterns, contract);
}

static err_t on_experience(void *state, call_t *call, void *reply, const peer_answer_t *got,
                           void *ctx)
{
    contract_t *contract = ctx;
    bytes_t agents, pattern, role;
    if (err_is(got->err)) {
        contract->problem = err_what(got->err);
        return award(state, call, reply, contract);
    }
    contract->measured = true;
    if (mp_get(got->body, "agents", &agents))
        for (uint32_t i = 0; mp_at(agents, i, &pattern); i++) {
            const char *name =
                mp_get(pattern, "agent", &role) ? mp_text(call_arena(call), role) : NULL;
            if (name)
                take_pattern(contract, name, pattern);
        }
    return ask_patterns(state, call, reply, contract);
}

static err_t negotiate_task(swarm_t *self, call_t *call, const negotiate_task_args_t *args,
                            negotiate_task_reply_t *reply)
{
    contract_t *contract = ARENA_NEW(call_arena(call), contract_t);
    buf_t query;
    (void)reply;
    if (args->assign && args->simulation_mode)
        return err_of(ERR_ARGUMENT, "give assign or simulation_mode, not both: a simulation begins "
                                    "no work");
    *contract =
        (contract_t){.task = args->task_description,
                     .simulation = args->simulation_mode,
                     .assign = args->assign,
                     .deadline_ms = actor_mono_us(self->actor) / 1000 + self->settings->bid_ms};
    err_t err = find_bidders(call, args, contract);
    if (!err_is(err) && !contract->simulation) {
        negotiation_t row = {
            .task = contract->task, .state = NEGOTIATION_ANNOUNCED, .at_ms = call_now_ms(call)};
        contract->id = call_new_id(call, "neg_");
        err = write_row(call, call_company(call), contract->id, &row, true);
    }
    if (err_is(err))
        return err;
    buf_open(&query, call_arena(call));
    mp_put_map(&query, 1);
    mp_put_str(&query, "task_type");
    mp_put_str(&query, "swarm_task");
    return swarm_ask(call, "brain", "recall_delegation_patterns", call_company(call), &query,
                     self->settings->bid_ms, NULL, on_experience, contract);
}

/* ---- Afterwards ---- */

static err_t read_row(call_t *call, const char *company, const char *id, negotiation_t *row)
{
    store_txn_t *txn;
    bytes_t value = {0};
    negotiation_t raw;
    err_t err = call_read(call, company, &txn);
    if (!err_is(err))
        err = store_get(txn, TABLE_NEGOTIATIONS, key_of(id), &value);
    if (!err_is(err))
        err = record_decode(&negotiation_record, value, call_arena(call), "stored field", &raw);
    if (!err_is(err))
        record_copy(&negotiation_record, &raw, call_arena(call), row);
    return err;
}

static err_t on_kept(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    negotiation_t row;
    self->looked_us = actor_mono_us(self->actor);
    if (err_is(got->err) && err_info(got->err.code)->retry)
        return tend->then(self, call, reply, tend); /* the next sweep tries again */
    if (err_is(got->err))
        call_log(call, LOG_WARN, "the brain does not take the award %s: %s", tend->id,
                 err_what(got->err));
    err_t err = read_row(call, tend->company, tend->id, &row);
    if (!err_is(err))
        err = write_row(call, tend->company, tend->id, &row, false);
    return err_is(err) ? err : tend->then(self, call, reply, tend);
}

static err_t tell(swarm_t *self, call_t *call, tend_t *tend, const negotiation_t *row)
{
    arena_t *arena = call_arena(call);
    buf_t args;
    buf_open(&args, arena);
    mp_put_map(&args, 5);
    mp_put_str(&args, "taskId");
    mp_put_str(&args, tend->id);
    mp_put_str(&args, "id");
    mp_put_str(&args, tend->id);
    mp_put_str(&args, "type");
    mp_put_str(&args, "swarm_negotiation_pattern");
    mp_put_str(&args, "request");
    mp_put_str(&args, row->task);
    mp_put_str(&args, "solution");
    mp_put_str(&args,
               arena_printf(arena, "Awarded to %s (%s), best of %zu bids with %.3f%s.%s%s%s%s",
                            row->winner, row->role, row->bids.count,
                            row->bids.count ? row->bids.items[0].score : 0,
                            row->measured ? "" : ", without measured experience",
                            row->assigned ? " Subagent " : "", row->assigned ? row->assigned : "",
                            row->outcome    ? " ended: "
                            : row->assigned ? " does it."
                                            : "",
                            row->outcome ? row->outcome : ""));
    return swarm_ask(call, "brain", "brain_store", tend->company, &args, self->settings->call_ms,
                     arena_printf(arena, "swarm/%s%s%s", tend->id, row->assigned ? "/" : "",
                                  row->outcome    ? "ended"
                                  : row->assigned ? "begun"
                                                  : ""),
                     on_kept, tend);
}

err_t contract_outcome(call_t *call, const char *company, const agent_row_t *agent)
{
    negotiation_t row;
    err_t err = read_row(call, company, agent->negotiation, &row);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    row.assigned = agent->agent_id;
    row.outcome = arena_printf(call_arena(call), "%s%s%.500s", agent->outcome,
                               agent->error ? ": " : "", agent->error ? agent->error : "");
    return err_is(err) ? err : write_row(call, company, agent->negotiation, &row, true);
}

err_t contract_tend(swarm_t *self, call_t *call, void *reply, tend_t *tend)
{
    negotiation_t row;
    err_t err = read_row(call, tend->company, tend->id, &row);
    if (err_is(err))
        return err;
    if (row.state == NEGOTIATION_AWARDED)
        return tell(self, call, tend, &row);
    if (call_now_ms(call) - row.at_ms > STALE_MS) { /* its call died with the last life */
        row.state = NEGOTIATION_ABANDONED;
        err = write_row(call, tend->company, tend->id, &row, false);
    }
    return err_is(err) ? err : tend->then(self, call, reply, tend);
}
