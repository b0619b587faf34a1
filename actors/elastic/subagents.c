/* subagents: what demand rules ask of the swarm. One row for each place of a rule: who fills it,
 * and how often it was filled. The row's count is part of the idempotency key of the call, so a
 * crash between the swarm's answer and our commit finds the same subagent again instead of a
 * second. One thing at a time; the next tick goes on. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/elastic/elastic.h"
#include "proto/mp.h"

enum { SWARM_MS = 10000, BUSY_MS = 50, IDLE_MS = 1000 };

/* A place, while the swarm is asked. Lives in the arena of the tick. */
typedef struct place {
    const char *row; /* its key */
    const char *id;  /* NULL: nobody fills it */
    int64_t count;
} place_t;

static err_t tick(void *state, call_t *call, void *ctx);

static err_t next(call_t *call, int64_t pause_ms)
{
    call_work(call, pause_ms, tick, NULL);
    return err_ok();
}

static bytes_t row_key(const char *row)
{
    return (bytes_t){(const uint8_t *)row, strlen(row)};
}

static err_t read_place(elastic_t *self, call_t *call, const rule_t *rule, int64_t number,
                        place_t *place)
{
    store_txn_t *txn;
    bytes_t value, field;
    *place = (place_t){.row = arena_printf(call_arena(call), "%.128s/%.256s/%" PRId64,
                                           rule->agent_template, rule->metric, number)};
    err_t err = call_read(call, actor_default_company(self->actor), &txn);
    if (!err_is(err))
        err = store_get(txn, TABLE_SUBAGENTS, row_key(place->row), &value);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    if (mp_get(value, "count", &field))
        mp_int(field, &place->count);
    if (mp_get(value, "id", &field))
        place->id = mp_text(call_arena(call), field);
    return err_ok();
}

static err_t write_place(elastic_t *self, call_t *call, const place_t *place)
{
    store_txn_t *txn;
    buf_t out;
    buf_open(&out, call_arena(call));
    mp_put_map(&out, place->id ? 2 : 1);
    mp_put_str(&out, "count");
    mp_put_int(&out, place->count);
    if (place->id) {
        mp_put_str(&out, "id");
        mp_put_str(&out, place->id);
    }
    err_t err = call_write(call, actor_default_company(self->actor), &txn);
    return err_is(err) ? err
                       : store_put(txn, TABLE_SUBAGENTS, row_key(place->row), buf_bytes(&out));
}

static void tell(elastic_t *self, call_t *call, const char *text)
{
    if (!strcmp(self->swarm_problem, text))
        return;
    snprintf(self->swarm_problem, sizeof(self->swarm_problem), "%s", text);
    if (*text)
        call_log(call, LOG_WARN, "%s", text);
}

static err_t failed(elastic_t *self, call_t *call, const char *what, const peer_answer_t *got)
{
    tell(self, call,
         arena_printf(call_arena(call), "the swarm cannot %s a subagent: %s", what,
                      err_what(got->err)));
    return next(call, IDLE_MS);
}

static err_t on_spawned(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    elastic_t *self = state;
    place_t *place = ctx;
    bytes_t field;
    (void)reply;
    if (err_is(got->err))
        return failed(self, call, "spawn", got);
    if (!mp_get(got->body, "agent_id", &field) || !(place->id = mp_text(call_arena(call), field))) {
        tell(self, call, "the swarm's answer to spawn_subagent has no agent_id");
        return next(call, IDLE_MS);
    }
    tell(self, call, "");
    call_log(call, LOG_INFO, "subagent %s fills %s", place->id, place->row);
    err_t err = write_place(self, call, place);
    return err_is(err) ? err : next(call, BUSY_MS);
}

static err_t on_gone(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    elastic_t *self = state;
    place_t *place = ctx;
    (void)reply;
    if (err_is(got->err) && got->err.code != ERR_NOT_FOUND)
        return failed(self, call, "end", got);
    tell(self, call, "");
    call_log(call, LOG_INFO, "subagent %s is no longer needed for %s", place->id, place->row);
    place->id = NULL;
    place->count++;
    err_t err = write_place(self, call, place);
    return err_is(err) ? err : next(call, BUSY_MS);
}

static err_t ask(call_t *call, const char *method, buf_t *args, const char *key, answer_fn_t *then,
                 place_t *place)
{
    peer_call_t request = {.peer = "swarm",
                           .method = method,
                           .args = buf_bytes(args),
                           .key = key,
                           .timeout_ms = SWARM_MS,
                           .company = actor_default_company(call_actor(call)),
                           .principal = "elastic",
                           .role = ROLE_ADMIN,
                           .any_company = true};
    call_peer(call, &request, then, place);
    return call_park(call);
}

static err_t spawn(call_t *call, const rule_state_t *state, place_t *place)
{
    buf_t args;
    arena_t *arena = call_arena(call);
    buf_open(&args, arena);
    mp_put_map(&args, 3);
    mp_put_str(&args, "role");
    mp_put_str(&args, state->rule->agent_template);
    mp_put_str(&args, "task");
    mp_put_str(&args, arena_printf(arena, "Help with %s, which is at %g (threshold %g).",
                                   state->rule->metric, state->value, state->rule->threshold));
    mp_put_str(&args, "parent_agent_id");
    mp_put_str(&args, "elastic");
    const char *key = arena_printf(arena, "elastic/%s/%" PRId64, place->row, place->count);
    return ask(call, "spawn_subagent", &args, key, on_spawned, place);
}

static err_t end(call_t *call, const rule_state_t *state, place_t *place)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "agent_id");
    mp_put_str(&args, place->id);
    bool now = state->rule->cooldown_action == COOLDOWN_TERMINATE;
    return ask(call, now ? "terminate_agent" : "agent_drain", &args, NULL, on_gone, place);
}

/* The first place of the rule that is not as it should be; false: all are. */
static bool find_work(elastic_t *self, call_t *call, const rule_state_t *state, place_t *place)
{
    for (int64_t i = 0; i < state->rule->count; i++) {
        if (err_is(read_place(self, call, state->rule, i, place)))
            return false;
        if ((state->acts && !place->id) || (state->cool && place->id))
            return true;
    }
    return false;
}

static err_t tick(void *state, call_t *call, void *ctx)
{
    elastic_t *self = state;
    (void)ctx;
    if (actor_draining(self->actor))
        return err_ok();
    place_t *place = ARENA_NEW(call_arena(call), place_t);
    for (size_t i = 0; i < rules_count(self->rules); i++) {
        rule_state_t *rule = ARENA_NEW(call_arena(call), rule_state_t);
        *rule = rules_state(self->rules, i);
        if (!strcmp(rule->rule->agent_template, "worker") || (!rule->acts && !rule->cool) ||
            (rule->cool && rule->rule->cooldown_action == COOLDOWN_NONE) ||
            !find_work(self, call, rule, place))
            continue;
        return place->id ? end(call, rule, place) : spawn(call, rule, place);
    }
    return next(call, IDLE_MS);
}

void subagents_open(elastic_t *elastic, call_t *call)
{
    (void)elastic;
    call_work(call, IDLE_MS, tick, NULL);
}
