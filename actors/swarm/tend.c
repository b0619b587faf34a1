/* tend: one agent's next thing, again and again until there is nothing to do for now. What is done
 * follows only from the row and from what the other pillars say, so it can begin anew after any
 * crash: the run is begun under the agent's id as idempotency key, a restart is counted before it
 * is asked for, and an end stays wished until the run has ended. */
#include <inttypes.h>
#include <string.h>

#include "actors/swarm/swarm.h"
#include "proto/mp.h"

enum { TICK_MS = 100, STUCK_US = 60000000, STEPS_MOST = 8, PAGES_MOST = 1000 };

/* What a subagent without a procedure of its own runs. People may change the working copy. */
#define OWN_SOP "subagent"
static const char own_sop[] = "# Subagent\n"
                              "\n"
                              "The work of a subagent that has no procedure of its own. The swarm "
                              "starts it.\n"
                              "\n"
                              "1. **Work**: you are a subagent, your role is {{input.role}}.\n"
                              "\n"
                              "   Your task, which you do with the tools you have, and whose "
                              "outcome you report:\n"
                              "\n"
                              "   {{input.task}}\n";

err_t swarm_ask(call_t *call, const char *peer, const char *method, const char *company,
                buf_t *args, int64_t timeout_ms, const char *key, answer_fn_t *fn, void *ctx)
{
    peer_call_t request = {.peer = peer,
                           .method = method,
                           .args = buf_bytes(args),
                           .timeout_ms = timeout_ms,
                           .key = key,
                           .company = company,
                           .principal = "swarm",
                           .role = ROLE_ADMIN,
                           .any_company = true};
    call_peer(call, &request, fn, ctx);
    return call_park(call);
}

static err_t ask(swarm_t *self, call_t *call, tend_t *tend, const char *method, buf_t *args,
                 answer_fn_t *fn)
{
    return swarm_ask(call, "agent", method, tend->company, args, self->settings->call_ms, NULL, fn,
                     tend);
}

static void put_pair(buf_t *out, const char *key, const char *value)
{
    mp_put_str(out, key);
    mp_put_str(out, value ? value : "");
}

static buf_t args_of_run(call_t *call, const tend_t *tend)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    put_pair(&args, "id", tend->row.run_id);
    return args;
}

static const char *member(call_t *call, bytes_t map, const char *key)
{
    bytes_t field;
    mp_type_t type;
    return mp_get(map, key, &field) && mp_type_of(field, &type) && type == MP_STR
               ? mp_text(call_arena(call), field)
               : NULL;
}

/* Nobody can tell whether it was done. */
static bool unsure(err_t err)
{
    return err_info(err.code)->retry || err.code == ERR_CANCELLED;
}

static err_t done(swarm_t *self, call_t *call, void *reply, tend_t *tend, err_t err)
{
    tend->err = err;
    return tend->then(self, call, reply, tend);
}

static err_t say_now(void *state, call_t *call, void *reply, void *ctx)
{
    tend_t *tend = ctx;
    return tend->then(state, call, reply, tend);
}

/* The same in an entry of its own: an error that is told takes back what its entry wrote. */
static err_t done_apart(call_t *call, tend_t *tend, err_t err)
{
    tend->err = err;
    call_resume(call, call, say_now, tend);
    return call_park(call);
}

/* After an answer: the row as it is now, since another entry may have changed it meanwhile. */
static err_t reload(call_t *call, tend_t *tend)
{
    return agents_get(call, tend->company, tend->id, &tend->row);
}

static err_t keep(call_t *call, tend_t *tend, int before, const char *note)
{
    return agents_put(call, tend->company, &tend->row, before, note);
}

/* ---- The run as the agent pillar tells of it ---- */

static bool one_of(const char *text, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(text, *list))
            return true;
    return false;
}

static bool at_work(const char *state)
{
    static const char *const list[] = {"leased", "running", NULL};
    return one_of(state, list);
}

static bool may_restart(const swarm_t *self, agent_row_t *row, int64_t now)
{
    if (row->wish != WISH_LIVE)
        return false;
    if (!row->has_window_ms || now - row->window_ms >= self->settings->restart_window_ms) {
        row->window_ms = now;
        row->has_window_ms = true;
        row->in_window = 0;
    }
    return row->in_window < self->settings->restarts_most;
}

static void plan_restart(const swarm_t *self, agent_row_t *row, int64_t now)
{
    int64_t pause = self->settings->restart_delay_ms;
    for (int64_t i = 0; i < row->in_window && pause < 600000; i++)
        pause *= 2;
    row->in_window++;
    row->restarts++;
    row->restarting = true;
    row->not_before_ms = now + pause;
    row->has_not_before_ms = true;
    agents_move(row, AGENT_STARTING, now);
}

static void on_failure(const swarm_t *self, call_t *call, agent_row_t *row, const char *state,
                       const char *error)
{
    int64_t now = call_now_ms(call);
    row->error = error;
    if (row->restarting) /* its run_retry_from has not come through yet */
        return;
    if (may_restart(self, row, now))
        plan_restart(self, row, now);
    else
        agents_end(row, row->wish == WISH_LIVE ? "failed" : "terminated",
                   error ? error : arena_printf(call_arena(call), "its run is %s", state), now);
}

/* Brings the row to what the run's state means for it. */
static void follow(const swarm_t *self, call_t *call, agent_row_t *row, const char *state,
                   const char *why, const char *error)
{
    static const char *const failed[] = {"failed", "buried", NULL};
    int64_t now = call_now_ms(call);
    row->run_state = state;
    row->why = why;
    if (!strcmp(state, "completed")) {
        agents_end(row, "completed", NULL, now);
    } else if (!strcmp(state, "cancelled")) {
        agents_end(row, "terminated", row->error ? row->error : "its run was cancelled", now);
    } else if (one_of(state, failed)) {
        on_failure(self, call, row, state, error);
    } else {
        row->restarting = false;
        row->has_not_before_ms = false;
        agents_move(row,
                    row->wish != WISH_LIVE ? AGENT_DRAINING
                    : at_work(state)       ? AGENT_BUSY
                                           : AGENT_READY,
                    now);
    }
}

static err_t on_run(swarm_t *self, call_t *call, void *reply, tend_t *tend, bytes_t run)
{
    const char *state = member(call, run, "state");
    if (!state)
        return done(self, call, reply, tend,
                    err_of(ERR_VERSION, "the agent pillar told of a run without a state"));
    int before = tend->row.state;
    if (before == AGENT_GONE && strcmp(tend->row.outcome, "never started") != 0)
        return done(self, call, reply, tend, err_ok()); /* an older look that came late */
    if (before == AGENT_GONE) {                         /* it did begin, and nobody wants it */
        tend->row.wish = WISH_END;
        tend->row.outcome = NULL;
        tend->row.has_ended_ms = false;
    }
    follow(self, call, &tend->row, state, member(call, run, "why"), member(call, run, "error"));
    err_t err = keep(call, tend, before,
                     tend->row.state == AGENT_GONE ? tend->row.outcome
                     : tend->row.restarting        ? "restart after a failure"
                                                   : state);
    if (err_is(err))
        return err;
    bool more = tend->row.state == AGENT_GONE || (tend->row.wish != WISH_LIVE && !at_work(state)) ||
                tend->row.wish == WISH_END;
    return more && tend->steps < STEPS_MOST ? tend_agent(self, call, reply, tend)
                                            : done(self, call, reply, tend, err_ok());
}

static err_t on_task(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    bytes_t task;
    self->looked_us = actor_mono_us(self->actor);
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (got->err.code == ERR_NOT_FOUND && tend->row.state != AGENT_GONE) {
        int before = tend->row.state;
        agents_end(&tend->row, tend->row.wish == WISH_LIVE ? "failed" : "terminated",
                   "its run is no longer kept by the agent pillar", call_now_ms(call));
        err = keep(call, tend, before, "the run is no longer kept");
        return err_is(err) ? err : done(self, call, reply, tend, err_ok());
    }
    if (err_is(got->err))
        return done(self, call, reply, tend, got->err);
    if (!mp_get(got->body, "task", &task))
        task = got->body;
    return on_run(self, call, reply, tend, task);
}

static err_t look(swarm_t *self, call_t *call, tend_t *tend)
{
    buf_t args = args_of_run(call, tend);
    return ask(self, call, tend, "task_get", &args, on_task);
}

/* ---- Ending ---- */

static err_t on_cancelled(void *state, call_t *call, void *reply, const peer_answer_t *got,
                          void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (err_is(got->err) && unsure(got->err))
        return done(self, call, reply, tend, got->err);
    return look(self, call, tend); /* refused: it had ended by itself */
}

static err_t cancel(swarm_t *self, call_t *call, tend_t *tend)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 2);
    put_pair(&args, "id", tend->row.run_id);
    put_pair(&args, "why",
             tend->row.wish == WISH_DRAIN ? "its subagent was drained"
                                          : "its subagent was terminated");
    return ask(self, call, tend, "task_cancel", &args, on_cancelled);
}

/* ---- Starting ---- */

static err_t start(swarm_t *self, call_t *call, void *reply, tend_t *tend);

/* Nothing runs, and nothing will. */
static err_t never_started(call_t *call, tend_t *tend, const char *error)
{
    int before = tend->row.state;
    agents_end(&tend->row, "never started", error, call_now_ms(call));
    tend->row.told = true; /* there is no experience in it */
    err_t err = keep(call, tend, before, error);
    return err_is(err) ? err : done_apart(call, tend, err_ok());
}

static err_t start_failed(swarm_t *self, call_t *call, void *reply, tend_t *tend, err_t cause)
{
    arena_t *arena = call_arena(call);
    err_t told = err_make(arena, cause.code, "no subagent was spawned: %s", err_what(cause));
    int before = tend->row.state;
    if (!tend->first && unsure(cause))
        return done(self, call, reply, tend, cause);       /* the next sweep tries again */
    if (tend->row.state == AGENT_GONE || tend->row.run_id) /* somebody else came first */
        return done(self, call, reply, tend, told);
    tend->row.error = err_what(cause);
    if (!tend->again && !unsure(cause)) {
        agents_end(&tend->row, "never started", err_what(cause), call_now_ms(call));
        tend->row.told = true;
    } else { /* a run may have begun: it is looked for, and ended */
        tend->row.wish = WISH_END;
        agents_move(&tend->row, AGENT_DRAINING, call_now_ms(call));
    }
    err_t err = keep(call, tend, before, err_what(cause));
    return err_is(err) ? err : done_apart(call, tend, told);
}

static err_t on_sop_made(void *state, call_t *call, void *reply, const peer_answer_t *got,
                         void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    return err_is(got->err) ? start_failed(self, call, reply, tend, got->err)
                            : start(self, call, reply, tend);
}

static err_t make_sop(swarm_t *self, call_t *call, tend_t *tend)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 2);
    put_pair(&args, "name", OWN_SOP);
    put_pair(&args, "content", own_sop);
    return ask(self, call, tend, "sop_create", &args, on_sop_made);
}

static err_t on_started(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    self->looked_us = actor_mono_us(self->actor);
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (got->err.code == ERR_NOT_FOUND && !tend->row.sop && tend->steps < STEPS_MOST)
        return make_sop(self, call, tend);
    if (err_is(got->err))
        return start_failed(self, call, reply, tend, got->err);
    tend->row.run_id = member(call, got->body, "id");
    if (!tend->row.run_id)
        return done(self, call, reply, tend,
                    err_of(ERR_VERSION, "the agent pillar began a run without an id"));
    return on_run(self, call, reply, tend, got->body);
}

static err_t start(swarm_t *self, call_t *call, void *reply, tend_t *tend)
{
    const agent_row_t *row = &tend->row;
    const char *soul;
    buf_t args;
    tend->steps++;
    err_t err = agents_soul(call, tend->company, row->role, &soul);
    if (err_is(err))
        return start_failed(self, call, reply, tend, err);
    buf_open(&args, call_arena(call));
    bool named = frame_company_name(row->role); /* souls have the same alphabet */
    mp_put_map(&args, named ? 5 : 4);
    if (named)
        put_pair(&args, "soul", row->role);
    put_pair(&args, "name", row->sop ? row->sop : OWN_SOP);
    put_pair(&args, "idempotency_key", row->agent_id);
    mp_put_str(&args, "wait_ms");
    mp_put_int(&args, 0);
    mp_put_str(&args, "input");
    if (row->sop) {
        mp_put_str(&args, row->task);
    } else {
        mp_put_map(&args, 4);
        put_pair(&args, "role", row->role);
        put_pair(&args, "task", row->task);
        put_pair(&args, "agent_id", row->agent_id);
        put_pair(&args, "parent_agent_id", row->parent_agent_id);
    }
    return ask(self, call, tend, "sop_execute", &args, on_started);
}

/* A start of which nobody knows how it went, and an end is wished: is there a run? */
static err_t find_run(swarm_t *self, call_t *call, tend_t *tend, const char *cursor);

static err_t on_page(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    bytes_t tasks, task, key;
    self->looked_us = actor_mono_us(self->actor);
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (err_is(got->err))
        return done(self, call, reply, tend, got->err);
    if (mp_get(got->body, "tasks", &tasks))
        for (uint32_t i = 0; mp_at(tasks, i, &task); i++)
            if (mp_get(task, "idempotency_key", &key) && mp_equals(key, tend->id)) {
                tend->row.run_id = member(call, task, "id");
                return on_run(self, call, reply, tend, task);
            }
    const char *cursor = member(call, got->body, "cursor");
    if (cursor && tend->steps++ < PAGES_MOST)
        return find_run(self, call, tend, cursor);
    return never_started(call, tend, tend->row.error);
}

static err_t find_run(swarm_t *self, call_t *call, tend_t *tend, const char *cursor)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, cursor ? 4 : 3);
    put_pair(&args, "kind", "sop");
    mp_put_str(&args, "since");
    mp_put_int(&args, tend->row.created_ms);
    mp_put_str(&args, "limit");
    mp_put_int(&args, 1000);
    if (cursor)
        put_pair(&args, "cursor", cursor);
    return ask(self, call, tend, "task_list", &args, on_page);
}

/* ---- Restarting: from the step that failed, so that nothing done is done again ---- */

static err_t on_retried(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (!err_is(got->err))
        return on_run(self, call, reply, tend, got->body);
    if (unsure(got->err))
        return done(self, call, reply, tend, got->err);
    int before = tend->row.state;
    agents_end(&tend->row, "failed", err_what(got->err), call_now_ms(call));
    err = keep(call, tend, before, "it could not be restarted");
    return err_is(err) ? err : done(self, call, reply, tend, err_ok());
}

static const char *failed_step(call_t *call, bytes_t run)
{
    bytes_t steps, step, state;
    if (mp_get(run, "steps", &steps))
        for (uint32_t i = 0; mp_at(steps, i, &step); i++)
            if (mp_get(step, "state", &state) && !mp_equals(state, "completed"))
                return member(call, step, "name");
    return NULL;
}

static err_t on_failed_run(void *state, call_t *call, void *reply, const peer_answer_t *got,
                           void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    buf_t args;
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (err_is(got->err))
        return done(self, call, reply, tend, got->err);
    const char *run_state = member(call, got->body, "state"), *step = failed_step(call, got->body);
    /* The last life asked for it already, or there is nothing to go on from. */
    if (!run_state || (strcmp(run_state, "failed") != 0 && strcmp(run_state, "buried") != 0) ||
        !step) {
        tend->row.restarting = false;
        return on_run(self, call, reply, tend, got->body);
    }
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 2);
    put_pair(&args, "id", tend->row.run_id);
    put_pair(&args, "step", step);
    return ask(self, call, tend, "run_retry_from", &args, on_retried);
}

static err_t restart(swarm_t *self, call_t *call, void *reply, tend_t *tend)
{
    if (tend->row.has_not_before_ms && call_now_ms(call) < tend->row.not_before_ms)
        return done(self, call, reply, tend, err_ok());
    buf_t args = args_of_run(call, tend);
    return ask(self, call, tend, "run_get", &args, on_failed_run);
}

/* ---- Telling the brain ---- */

static err_t on_told(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    self->looked_us = actor_mono_us(self->actor);
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (err_is(got->err) && unsure(got->err))
        return done(self, call, reply, tend, err_ok()); /* the next sweep tries again */
    if (err_is(got->err))
        call_log(call, LOG_WARN, "the brain does not take the experience of %s: %s", tend->id,
                 err_what(got->err));
    tend->row.told = true;
    err = keep(call, tend, tend->row.state, NULL);
    if (!err_is(err) && tend->row.negotiation)
        err = contract_outcome(call, tend->company, &tend->row);
    return err_is(err) ? err : done(self, call, reply, tend, err_ok());
}

static err_t tell(swarm_t *self, call_t *call, tend_t *tend)
{
    const agent_row_t *row = &tend->row;
    arena_t *arena = call_arena(call);
    bool good = !strcmp(row->outcome, "completed");
    buf_t args;
    buf_open(&args, arena);
    mp_put_map(&args, 6);
    put_pair(&args, "taskId", row->agent_id);
    put_pair(&args, "task_type", "swarm_task");
    put_pair(&args, "agent_used", row->role);
    put_pair(&args, "outcome",
             good ? "success"
                  : arena_printf(arena, "%s: %.500s", row->outcome,
                                 row->error ? row->error : "no reason given"));
    put_pair(&args, "summary",
             arena_printf(arena, "Subagent %s (%s) for %s: %s", row->agent_id, row->role,
                          row->parent_agent_id, row->task));
    mp_put_str(&args, "duration");
    mp_put_real(&args, (double)row->busy_ms / 1000);
    return swarm_ask(call, "brain", "log_experience", tend->company, &args, self->settings->call_ms,
                     arena_printf(arena, "swarm/%s", row->agent_id), on_told, tend);
}

/* ---- What is next ---- */

static err_t end_or_look(swarm_t *self, call_t *call, tend_t *tend)
{
    const agent_row_t *row = &tend->row;
    bool late = row->has_drain_until_ms && call_now_ms(call) >= row->drain_until_ms;
    bool idle = row->run_state &&
                (!strcmp(row->run_state, "ready") || !strcmp(row->run_state, "scheduled"));
    if (row->wish == WISH_END || (row->wish == WISH_DRAIN && (late || idle || row->restarting)))
        return cancel(self, call, tend);
    return look(self, call, tend);
}

/* The call that wants it sees to its start; a sweep only does so when that call is dead. */
static bool is_fresh(const swarm_t *self, call_t *call, const agent_row_t *row)
{
    int64_t age = call_now_ms(call) - row->created_ms;
    return row->created_ms >= self->opened_ms && age >= 0 && age < self->settings->call_ms * 4;
}

err_t tend_agent(swarm_t *self, call_t *call, void *reply, tend_t *tend)
{
    self->looked_us = actor_mono_us(self->actor);
    if (!strncmp(tend->id, "neg_", 4))
        return contract_tend(self, call, reply, tend);
    err_t err = reload(call, tend);
    if (err_is(err))
        return err;
    if (tend->steps++ >= STEPS_MOST)
        return done(self, call, reply, tend, err_ok());
    if (tend->row.state == AGENT_GONE)
        return tend->row.told || tend->first ? done(self, call, reply, tend, err_ok())
                                             : tell(self, call, tend);
    if (!tend->row.run_id && !tend->first && is_fresh(self, call, &tend->row))
        return done(self, call, reply, tend, err_ok());
    if (!tend->row.run_id)
        return tend->row.wish == WISH_LIVE ? start(self, call, reply, tend)
                                           : find_run(self, call, tend, NULL);
    if (tend->row.restarting && tend->row.wish == WISH_LIVE)
        return restart(self, call, reply, tend);
    /* A cancelled failure: it has ended already. */
    if (tend->row.restarting) {
        int before = tend->row.state;
        agents_end(&tend->row, "terminated", tend->row.error, call_now_ms(call));
        err = keep(call, tend, before, "ended instead of restarted");
        return err_is(err) ? err : done(self, call, reply, tend, err_ok());
    }
    return end_or_look(self, call, tend);
}

/* ---- Sweeps: every agent in live, one after the other ---- */

typedef struct sweep {
    tend_t tend;
    strs_t companies, ids;
    size_t company, id;
    bool brain_away;
} sweep_t;

static err_t next(swarm_t *self, call_t *call, void *reply, tend_t *tend);
static err_t tell_events(void *state, call_t *call, void *reply, void *ctx);

/* An entry of its own, so that one commit does not wait for all. */
static err_t on_tended(swarm_t *self, call_t *call, void *reply, tend_t *tend)
{
    (void)reply;
    (void)self;
    call_resume(call, call, tell_events, tend);
    return call_park(call);
}

/* Of whom the brain was told: the sweep has gone on when this is run a second time. */
typedef struct events_told {
    tend_t *tend;
    const char *company, *id;
    int64_t events;
} events_told_t;

static err_t on_events_told(void *state, call_t *call, void *reply, const peer_answer_t *got,
                            void *ctx)
{
    swarm_t *self = state;
    const events_told_t *told = ctx;
    tend_t *tend = told->tend;
    sweep_t *sweep = tend->ctx;
    tend->company = told->company;
    tend->id = told->id;
    self->looked_us = actor_mono_us(self->actor);
    if (err_is(got->err) && unsure(got->err)) {
        sweep->brain_away = true; /* the next sweep tries again */
        return next(self, call, reply, tend);
    }
    if (err_is(got->err))
        call_log(call, LOG_WARN, "the brain does not take the events of %s: %s", tend->id,
                 err_what(got->err));
    err_t err = reload(call, tend);
    tend->row.events_told = told->events;
    if (!err_is(err))
        err = keep(call, tend, tend->row.state, NULL);
    return err_is(err) ? err : next(self, call, reply, tend);
}

/* One memory for each subagent, which grows with every event: nothing else is crowded out. */
static err_t tell_events(void *state, call_t *call, void *reply, void *ctx)
{
    swarm_t *self = state;
    tend_t *tend = ctx;
    sweep_t *sweep = tend->ctx;
    arena_t *arena = call_arena(call);
    const char *story;
    buf_t args;
    if (sweep->brain_away || !strncmp(tend->id, "neg_", 4) || err_is(reload(call, tend)) ||
        tend->row.events_told >= tend->row.events)
        return next(self, call, reply, tend);
    const agent_row_t *row = &tend->row;
    err_t err = agents_story(call, tend->company, row, &story);
    if (err_is(err))
        return err;
    events_told_t *told = ARENA_NEW(arena, events_told_t);
    *told = (events_told_t){tend, tend->company, tend->id, row->events};
    buf_open(&args, arena);
    mp_put_map(&args, 6);
    put_pair(&args, "id", arena_printf(arena, "swarm-%s", row->agent_id));
    put_pair(&args, "taskId", row->agent_id);
    put_pair(&args, "type", "swarm_event");
    put_pair(&args, "author", row->role);
    put_pair(&args, "request",
             arena_printf(arena, "Subagent %s (%s) for %s: %.4000s", row->agent_id, row->role,
                          row->parent_agent_id, row->task));
    put_pair(&args, "solution", story);
    return swarm_ask(call, "brain", "brain_store", tend->company, &args, self->settings->call_ms,
                     arena_printf(arena, "swarm/%s/%" PRId64, row->agent_id, row->events),
                     on_events_told, told);
}

static err_t sweep_over(swarm_t *self)
{
    self->sweeping = false;
    return err_ok();
}

static err_t next(swarm_t *self, call_t *call, void *reply, tend_t *tend)
{
    sweep_t *sweep = tend->ctx;
    if (err_is(tend->err) && unsure(tend->err)) /* away: no use in asking it for each */
        return sweep_over(self);
    while (sweep->id >= sweep->ids.count) {
        if (sweep->company >= sweep->companies.count)
            return sweep_over(self);
        tend->company = sweep->companies.items[sweep->company++];
        err_t err = agents_live(call, tend->company, &sweep->ids);
        if (err_is(err))
            call_log(call, LOG_ERROR, "cannot look after the subagents of %s: %s", tend->company,
                     err_what(err));
        sweep->id = 0;
    }
    tend->id = sweep->ids.items[sweep->id++];
    tend->again = true;
    tend->steps = 0;
    tend->err = err_ok();
    return tend_agent(self, call, reply, tend);
}

static err_t sweep(void *state, call_t *call, void *ctx)
{
    swarm_t *self = state;
    sweep_t *sweep = ARENA_NEW(call_arena(call), sweep_t);
    (void)ctx;
    *sweep = (sweep_t){.tend = {.then = on_tended}};
    sweep->tend.ctx = sweep;
    self->looked_us = actor_mono_us(self->actor);
    err_t err = call_companies(call, &sweep->companies);
    if (err_is(err)) {
        self->sweeping = false;
        return err;
    }
    return next(self, call, NULL, &sweep->tend);
}

/* The clock: it only says when, so that a sweep that fails cannot stop it. */
static err_t tick(void *state, call_t *call, void *ctx)
{
    swarm_t *self = state;
    int64_t now = actor_mono_us(self->actor), since = now - self->looked_us;
    (void)ctx;
    if (actor_draining(self->actor))
        return err_ok();
    bool due = self->stirred || since >= self->settings->look_ms * 1000;
    if (self->sweeping ? since >= STUCK_US : due) {
        self->stirred = false;
        self->sweeping = true;
        self->looked_us = now;
        call_work(call, 0, sweep, NULL);
    }
    call_work(call, TICK_MS, tick, NULL);
    return err_ok();
}

void tend_open(swarm_t *self, call_t *call)
{
    self->stirred = true;
    self->opened_ms = call_now_ms(call);
    call_work(call, 0, tick, NULL);
}

err_t tend_on_task(void *state, call_t *call, const char *topic, bytes_t body)
{
    swarm_t *self = state;
    (void)call;
    (void)topic;
    (void)body;
    self->stirred = true;
    return err_ok();
}
