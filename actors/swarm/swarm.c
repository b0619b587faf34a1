#include "actors/swarm/swarm.h"

#include <inttypes.h>
#include <string.h>

#include "proto/mp.h"

RECORD_DEFINE(swarm_settings, swarm_settings_FIELDS)

#define AGENT_ID_ROW(F) F(STR, agent_id, must, 1, 128, "Id of the subagent; see list_agents.")
#define COMPANY_ID_ROW(F)                                                                          \
    F(STR, company_id, opt(), 0, 64, "The same as company, under its older name.")

#define spawn_subagent_ARGS(F)                                                                     \
    F(STR, role, must, 1, 64, "What it is: its soul is souls/<role>.md, when there is one.")       \
    F(STR, task, must, 1, 65536, "What it is to do.")                                              \
    F(STR, parent_agent_id, must, 1, 128, "Who wants it: a subagent's id, or any other name.")     \
    COMPANY_ID_ROW(F)                                                                              \
    F(STR, sop, opt(), 1, 80,                                                                      \
      "Procedure that it runs with the task as input; absent: one step in prose, for a model.")    \
    F(STRS, capabilities, opt(), 0, 32, "What it can do, for negotiations; absent: its role.")     \
    COMPANY_ROW(F)
#define spawn_subagent_REPLY(F)                                                                    \
    F(STR, agent_id, must, 0, 0, "Id of the subagent.")                                            \
    F(STR, status, must, 0, 0, "spawned; whatever else is an error.")                              \
    F(STR, role, must, 0, 0, "What it is.")                                                        \
    F(ENUM(agent_state), state, must, 0, 0, "Where it is now.")                                    \
    F(STR, run_id, opt(), 0, 0, "Its run: see run_get.")                                           \
    F(BOOL, existed, must, 0, 0, "An earlier delivery of this call had spawned it.")

#define run_simulation_ARGS(F)                                                                     \
    F(STR, role, must, 1, 64, "Who would do it.")                                                  \
    F(STR, task, must, 1, 65536, "What is to be done: the input of the procedure.")                \
    COMPANY_ID_ROW(F)                                                                              \
    F(STR, sop, opt(), 1, 80, "The procedure; absent: the task is the name of one.")               \
    COMPANY_ROW(F)
#define run_simulation_REPLY(F)                                                                    \
    F(BOOL, simulated, must, 0, 0, "True: outside effects were refused, nothing was changed.")     \
    F(STR, role, must, 0, 0, "Who would have done it.")                                            \
    F(STR, run_id, must, 0, 0, "The run: see run_get.")                                            \
    F(STR, state, must, 0, 0, "How far it came.")                                                  \
    F(ANY, refused, opt(), 0, 0, "Effects that it would have had, in their order.")                \
    F(ANY, result, opt(), 0, 0, "Result of the last step.")                                        \
    F(STR, error, opt(), 0, 0, "Why it failed.")

#define list_agents_ARGS(F)                                                                        \
    F(ENUM(agent_state), state, opt(), 0, 0, "Only those in this state.")                          \
    F(STR, role, opt(), 1, 64, "Only those of this role.")                                         \
    F(STR, parent_agent_id, opt(), 1, 128, "Only those that this one wanted.")                     \
    F(STR, capability, opt(), 1, 128, "Only those that can do this.")                              \
    F(BOOL, gone, opt(false), 0, 0, "Also those that are gone.")                                   \
    F(INT, limit, opt(100), 1, 1000, "How many at most.")                                          \
    COMPANY_ROW(F)
#define list_agents_REPLY(F) F(LIST(swarm_agent), agents, must, 0, 0, "Newest first.")

#define terminate_agent_ARGS(F) AGENT_ID_ROW(F) COMPANY_ROW(F)
#define ENDING_REPLY(F)                                                                            \
    F(STR, agent_id, must, 0, 0, "Id of the subagent.")                                            \
    F(ENUM(agent_state), state, must, 0, 0, "Where it is now.")                                    \
    F(STR, outcome, opt(), 0, 0, "How it ended, when it is gone.")                                 \
    F(STR, problem, opt(), 0, 0, "Why it is not gone yet; it will be without a further call.")
#define terminate_agent_REPLY(F) ENDING_REPLY(F)
#define agent_drain_ARGS(F) AGENT_ID_ROW(F) COMPANY_ROW(F)
#define agent_drain_REPLY(F) ENDING_REPLY(F)

#define get_agent_metrics_ARGS(F)                                                                  \
    F(STR, role, opt(), 1, 64, "Only of this role.")                                               \
    COMPANY_ROW(F)
#define role_metrics_FIELDS(F)                                                                     \
    F(STR, role, must, 0, 0, "Role.")                                                              \
    F(INT, agents, must, 0, 0, "Subagents there were.")                                            \
    F(INT, live, must, 0, 0, "Of them not gone.")                                                  \
    F(INT, busy, must, 0, 0, "Of them at work.")                                                   \
    F(INT, completed, must, 0, 0, "Ended well.")                                                   \
    F(INT, failed, must, 0, 0, "Failed.")                                                          \
    F(INT, terminated, must, 0, 0, "Ended by a wish.")                                             \
    F(INT, never_started, must, 0, 0, "Could not start; nobody was told they had.")                \
    F(INT, restarts, must, 0, 0, "Restarts after failures.")                                       \
    F(REAL, success_rate, opt(), 0, 0, "Completed of those that completed or failed.")             \
    F(REAL, mean_busy_ms, opt(), 0, 0, "Time at work of those that are gone.")
RECORD(role_metrics, role_metrics_FIELDS)
#define get_agent_metrics_REPLY(F)                                                                 \
    F(INT, total, must, 0, 0, "Subagents there were.")                                             \
    F(INT, live, must, 0, 0, "Of them not gone.")                                                  \
    F(INT, busy, must, 0, 0, "Of them at work.")                                                   \
    F(INT, total_agents, must, 0, 0, "The same as live, under its older name.")                    \
    F(INT, active_agents, must, 0, 0, "The same as busy, under its older name.")                   \
    F(LIST(role_metrics), roles, must, 0, 0, "By role.")                                           \
    F(LIST(swarm_agent), agents, must, 0, 0, "Those that are not gone, newest first.")

#define agent_card_ARGS(F) AGENT_ID_ROW(F) COMPANY_ROW(F)
#define agent_card_REPLY(F)                                                                        \
    F(REC(swarm_agent), agent, must, 0, 0, "The subagent.")                                        \
    F(BOOL, soul, must, 0, 0, "There is a soul for its role.")                                     \
    F(LIST(agent_event), history, must, 0, 0, "What became of it, oldest first.")

#define SWARM_METHODS(M)                                                                           \
    M(swarm_t, spawn_subagent, TOOL | WRITES | OPEN_WORLD | SAYS_JSON,                             \
      "Begin a durable subagent for a task; an error means that none was begun.")                  \
    M(swarm_t, run_simulation, TOOL | WRITES,                                                      \
      "Run a procedure with outside effects refused, and see what it would have done.")            \
    M(swarm_t, list_agents, TOOL | READS | SAYS_FIRST,                                             \
      "Subagents with state, load and capabilities.")                                              \
    M(swarm_t, terminate_agent, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT,                          \
      "End a subagent now; its run is cancelled.")                                                 \
    M(swarm_t, agent_drain, TOOL | WRITES | IDEMPOTENT,                                            \
      "Let a subagent finish what it is at; what has not begun is cancelled.")                     \
    M(swarm_t, get_agent_metrics, TOOL | READS | SAYS_JSON, "How subagents did, by role.")         \
    M(swarm_t, agent_card, TOOL | READS, "One subagent: what it is and can do, and its history.")
METHODS(swarm_methods, SWARM_METHODS)

/* ---- Spawning ---- */

static bool of_role(const agent_row_t *row, const void *ctx)
{
    return !ctx || !strcmp(row->role, ctx);
}

/* company_id narrows like company does. */
static err_t company_of(call_t *call, const char *company_id, const char **company)
{
    *company = call_company(call);
    if (!company_id)
        return err_ok();
    if (!frame_company_name(company_id))
        return err_make(call_arena(call), ERR_COMPANY,
                        "company_id '%.64s' is no company name: use 1 to 64 letters, digits, '-' "
                        "or '_', beginning with a letter or digit",
                        company_id);
    if (!call_may(call, company_id))
        return err_make(call_arena(call), ERR_COMPANY, "company_id '%s' is not yours", company_id);
    *company = company_id;
    return err_ok();
}

static err_t check_room(swarm_t *self, call_t *call, const char *company)
{
    swarm_agent_list_t live;
    size_t most = (size_t)self->settings->agents_most;
    err_t err = agents_list(call, company, true, most, NULL, NULL, &live);
    if (!err_is(err) && live.count >= most)
        return err_make(call_arena(call), ERR_QUOTA,
                        "%s has %zu subagents, and swarm.agents_most is %zu: terminate some, or "
                        "raise the setting",
                        company, live.count, most);
    return err;
}

static err_t find_depth(swarm_t *self, call_t *call, const char *company, const char *parent,
                        int64_t *depth)
{
    agent_row_t row;
    *depth = 0;
    if (strncmp(parent, "agent_", 6) != 0)
        return err_ok();
    err_t err = agents_get(call, company, parent, &row);
    if (err_is(err))
        return err_make(call_arena(call), err.code, "parent_agent_id: %s", err_what(err));
    if (row.state == AGENT_GONE || row.wish != WISH_LIVE)
        return err_make(call_arena(call), ERR_STATE,
                        "parent_agent_id: %s is %s and may have no new subagents", parent,
                        agent_state_names[row.state]);
    *depth = row.depth + 1;
    return *depth <= self->settings->depth_most
               ? err_ok()
               : err_make(call_arena(call), ERR_QUOTA,
                          "%s is subagent number %" PRId64 " in its line, and swarm.depth_most "
                          "is %" PRId64,
                          parent, *depth, self->settings->depth_most);
}

static err_t on_spawned(swarm_t *self, call_t *call, void *out, tend_t *tend)
{
    spawn_subagent_reply_t *reply = out;
    const agent_row_t *row = &tend->row;
    (void)self;
    if (err_is(tend->err))
        return tend->err;
    if (row->outcome && !strcmp(row->outcome, "never started"))
        return err_make(call_arena(call), ERR_STATE, "no subagent was spawned: %s",
                        row->error ? row->error : "it was ended before it began");
    reply->agent_id = row->agent_id;
    reply->status = "spawned";
    reply->role = row->role;
    reply->state = row->state;
    reply->run_id = row->run_id;
    call_say(call, "Subagent %s (%s) is %s; its run is %s.", row->agent_id, row->role,
             agent_state_names[row->state], row->run_id ? row->run_id : "not known yet");
    return err_ok();
}

static err_t find_asked(call_t *call, const char *company, tend_t *tend)
{
    err_t err = agents_asked(call, company, &tend->id);
    if (err_is(err) || !tend->id)
        return err;
    err = agents_get(call, company, tend->id, &tend->row);
    if (err_is(err))
        return err;
    /* That start failed, and the caller was told so: this is a new attempt. */
    if (!tend->row.run_id && (tend->row.wish != WISH_LIVE || tend->row.state == AGENT_GONE))
        tend->id = NULL;
    return err_ok();
}

err_t swarm_register(swarm_t *self, call_t *call, const agent_row_t *want, tend_t *tend)
{
    agent_row_t *row = &tend->row;
    err_t err = find_asked(call, tend->company, tend);
    tend->again = tend->id != NULL;
    if (err_is(err) || tend->id)
        return err;
    err = check_room(self, call, tend->company);
    *row = *want;
    row->created_ms = call_now_ms(call);
    if (!row->capabilities.count) {
        const char **role = ARENA_NEW(call_arena(call), const char *);
        *role = row->role;
        row->capabilities = (strs_t){role, 1};
    }
    if (!err_is(err))
        err = find_depth(self, call, tend->company, row->parent_agent_id, &row->depth);
    if (err_is(err))
        return err;
    tend->id = row->agent_id = call_new_id(call, "agent_");
    agents_move(row, AGENT_STARTING, call_now_ms(call));
    err = agents_note_asked(call, tend->company, tend->id);
    return err_is(err) ? err : agents_put(call, tend->company, row, -1, "wanted");
}

static err_t spawn_subagent(swarm_t *self, call_t *call, const spawn_subagent_args_t *args,
                            spawn_subagent_reply_t *reply)
{
    tend_t *tend = ARENA_NEW(call_arena(call), tend_t);
    agent_row_t want = {.role = args->role,
                        .task = args->task,
                        .parent_agent_id = args->parent_agent_id,
                        .sop = args->sop,
                        .capabilities = args->capabilities};
    *tend = (tend_t){.then = on_spawned, .first = true};
    err_t err = company_of(call, args->company_id, &tend->company);
    if (!err_is(err))
        err = swarm_register(self, call, &want, tend);
    if (err_is(err))
        return err;
    reply->existed = tend->again;
    return tend_agent(self, call, reply, tend);
}

/* ---- Simulation ---- */

enum { SIMULATION_MS = 60000, SPARE_MS = 500 };

static const char *text_of(call_t *call, bytes_t body, const char *name)
{
    bytes_t field;
    return mp_get(body, name, &field) ? mp_text(call_arena(call), field) : NULL;
}

static bytes_t copy_of(call_t *call, bytes_t body, const char *name)
{
    bytes_t field = {0};
    if (!mp_get(body, name, &field))
        return (bytes_t){0};
    return (bytes_t){arena_copy(call_arena(call), field.data, field.size), field.size};
}

static err_t on_simulated(void *self, call_t *call, void *out, const peer_answer_t *got, void *ctx)
{
    run_simulation_reply_t *reply = out;
    const run_simulation_args_t *args = ctx;
    bytes_t field;
    (void)self;
    bool no_name = got->err.code == ERR_NOT_FOUND || got->err.code == ERR_ARGUMENT;
    if (no_name && !args->sop)
        return err_make(
            call_arena(call), ERR_NOT_FOUND,
            "Simulation error: the task '%.80s' names no procedure that runs without input: "
            "name one with sop, see sop_list",
            args->task);
    if (err_is(got->err))
        return err_make(call_arena(call), got->err.code, "Simulation error: %s",
                        err_what(got->err));
    if (!mp_get(got->body, "simulated", &field) || !mp_bool(field, &reply->simulated) ||
        !reply->simulated)
        return err_of(ERR_INTERNAL, "the agent did not say that the run was simulated");
    reply->role = args->role;
    reply->run_id = text_of(call, got->body, "id");
    reply->state = text_of(call, got->body, "state");
    reply->error = text_of(call, got->body, "error");
    reply->refused = copy_of(call, got->body, "refused");
    reply->result = copy_of(call, got->body, "result");
    call_say(call, "Simulated: run %s is %s. %s", reply->run_id, reply->state, got->text);
    return err_ok();
}

static err_t run_simulation(swarm_t *self, call_t *call, const run_simulation_args_t *args,
                            run_simulation_reply_t *reply)
{
    buf_t out;
    const char *company;
    int64_t left = call_left_ms(call) < SIMULATION_MS ? call_left_ms(call) : SIMULATION_MS;
    (void)self;
    (void)reply;
    err_t err = company_of(call, args->company_id, &company);
    if (err_is(err))
        return err;
    buf_open(&out, call_arena(call));
    mp_put_map(&out, args->sop ? 4 : 3);
    mp_put_str(&out, "name");
    mp_put_str(&out, args->sop ? args->sop : args->task);
    mp_put_str(&out, "simulate");
    mp_put_bool(&out, true);
    mp_put_str(&out, "wait_ms");
    mp_put_int(&out, left > 2 * SPARE_MS ? left - 2 * SPARE_MS : 0);
    if (args->sop) {
        mp_put_str(&out, "input");
        mp_put_str(&out, args->task);
    }
    return swarm_ask(call, "agent", "sop_execute", company, &out, left, NULL, on_simulated,
                     (void *)args);
}

/* ---- Ending ---- */

static err_t on_ended(swarm_t *self, call_t *call, void *out, tend_t *tend)
{
    terminate_agent_reply_t *reply = out; /* agent_drain's has the same rows */
    const agent_row_t *row = &tend->row;
    (void)self;
    reply->agent_id = row->agent_id;
    reply->state = row->state;
    reply->outcome = row->outcome;
    if (err_is(tend->err))
        reply->problem = err_what(tend->err);
    if (reply->outcome && !strcmp(reply->outcome, "terminated")) {
        call_say(call, "Agent %s terminated.", row->agent_id);
        return err_ok();
    }
    call_say(call, "Agent %s is %s%s%s.", row->agent_id, agent_state_names[row->state],
             reply->outcome   ? ": "
             : reply->problem ? "; the agent pillar does not answer, it ends when that does: "
                              : "",
             reply->outcome   ? reply->outcome
             : reply->problem ? reply->problem
                              : "");
    return err_ok();
}

static err_t end_agent(swarm_t *self, call_t *call, const char *id, agent_wish_t wish, void *reply)
{
    tend_t *tend = ARENA_NEW(call_arena(call), tend_t);
    *tend = (tend_t){
        .then = on_ended, .first = true, .again = true, .company = call_company(call), .id = id};
    err_t err = agents_get(call, tend->company, id, &tend->row);
    if (err_is(err))
        return err;
    agent_row_t *row = &tend->row;
    if (row->state == AGENT_GONE)
        return on_ended(self, call, reply, tend);
    if (wish == WISH_DRAIN && !row->has_drain_until_ms) {
        row->drain_until_ms = call_now_ms(call) + self->settings->drain_ms;
        row->has_drain_until_ms = true;
    }
    int before = row->state;
    if ((int)wish > row->wish)
        row->wish = (int)wish;
    agents_move(row, AGENT_DRAINING, call_now_ms(call));
    err = agents_put(call, tend->company, row, before,
                     wish == WISH_END ? "terminate_agent" : "agent_drain");
    return err_is(err) ? err : tend_agent(self, call, reply, tend);
}

static err_t terminate_agent(swarm_t *self, call_t *call, const terminate_agent_args_t *args,
                             terminate_agent_reply_t *reply)
{
    err_t err = end_agent(self, call, args->agent_id, WISH_END, reply);
    return err.code == ERR_NOT_FOUND
               ? err_make(call_arena(call), ERR_NOT_FOUND, "Agent %s not found: %s", args->agent_id,
                          err_what(err))
               : err;
}

static err_t agent_drain(swarm_t *self, call_t *call, const agent_drain_args_t *args,
                         agent_drain_reply_t *reply)
{
    return end_agent(self, call, args->agent_id, WISH_DRAIN, reply);
}

/* ---- Looking ---- */

static bool has_capability(strs_t list, const char *capability)
{
    for (size_t i = 0; i < list.count; i++)
        if (!strcmp(list.items[i], capability))
            return true;
    return false;
}

static bool wanted(const agent_row_t *row, const void *ctx)
{
    const list_agents_args_t *args = ctx;
    return (!args->has_state || args->state == row->state) &&
           (!args->role || !strcmp(args->role, row->role)) &&
           (!args->parent_agent_id || !strcmp(args->parent_agent_id, row->parent_agent_id)) &&
           (!args->capability || has_capability(row->capabilities, args->capability));
}

static const char *first_line(call_t *call, const char *text)
{
    return arena_strndup(call_arena(call), text, strcspn(text, "\n"));
}

static err_t list_agents(swarm_t *self, call_t *call, const list_agents_args_t *args,
                         list_agents_reply_t *reply)
{
    bool gone = args->gone || (args->has_state && args->state == AGENT_GONE);
    buf_t text;
    (void)self;
    err_t err = agents_list(call, call_company(call), !gone, (size_t)args->limit, wanted, args,
                            &reply->agents);
    if (err_is(err))
        return err;
    buf_open(&text, call_arena(call));
    for (size_t i = 0; i < reply->agents.count; i++) {
        const swarm_agent_t *agent = &reply->agents.items[i];
        buf_printf(&text, "%s%s  %-8s %s: %.80s%s%s", i ? "\n" : "", agent->agent_id,
                   agent_state_names[agent->state], agent->role, agent->task,
                   agent->why ? "  " : "", agent->why ? first_line(call, agent->why) : "");
    }
    call_say_text(call, reply->agents.count ? text.data : "There are no such subagents.");
    return err_ok();
}

enum { METRICS_MOST = 1000, METRICS_ROLES = 1000 };

static role_metrics_t *metrics_of(role_metrics_list_t *list, const char *role)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].role, role))
            return &list->items[i];
    if (list->count == METRICS_ROLES)
        return NULL;
    list->items[list->count] = (role_metrics_t){.role = role};
    return &list->items[list->count++];
}

static void count_agent(role_metrics_t *to, const swarm_agent_t *agent)
{
    const char *outcome = agent->outcome ? agent->outcome : "";
    to->agents++;
    to->live += agent->state != AGENT_GONE;
    to->busy += agent->state != AGENT_GONE && agent->load >= 1;
    to->completed += !strcmp(outcome, "completed");
    to->failed += !strcmp(outcome, "failed");
    to->terminated += !strcmp(outcome, "terminated");
    to->never_started += !strcmp(outcome, "never started");
    to->restarts += agent->restarts;
    if (agent->state == AGENT_GONE)
        to->mean_busy_ms += (double)agent->busy_ms;
}

static void finish(role_metrics_t *role)
{
    int64_t judged = role->completed + role->failed, gone = role->agents - role->live;
    role->has_success_rate = judged > 0;
    role->success_rate = judged ? (double)role->completed / (double)judged : 0;
    role->has_mean_busy_ms = gone > 0;
    role->mean_busy_ms = gone ? role->mean_busy_ms / (double)gone : 0;
}

static err_t get_agent_metrics(swarm_t *self, call_t *call, const get_agent_metrics_args_t *args,
                               get_agent_metrics_reply_t *reply)
{
    swarm_agent_list_t all;
    (void)self;
    err_t err =
        agents_list(call, call_company(call), false, METRICS_MOST, of_role, args->role, &all);
    if (err_is(err))
        return err;
    reply->roles.items = ARENA_ARRAY(call_arena(call), role_metrics_t, METRICS_ROLES);
    for (size_t i = 0; i < all.count; i++) {
        role_metrics_t *role = metrics_of(&reply->roles, all.items[i].role);
        if (role)
            count_agent(role, &all.items[i]);
    }
    for (size_t i = 0; i < reply->roles.count; i++) {
        role_metrics_t *role = &reply->roles.items[i];
        finish(role);
        reply->total += role->agents;
        reply->live += role->live;
        reply->busy += role->busy;
    }
    reply->agents.items = ARENA_ARRAY(call_arena(call), swarm_agent_t, all.count + 1);
    for (size_t i = 0; i < all.count; i++)
        if (all.items[i].state != AGENT_GONE)
            reply->agents.items[reply->agents.count++] = all.items[i];
    reply->total_agents = reply->live;
    reply->active_agents = reply->busy;
    call_say(call, "%" PRId64 " subagents%s, %" PRId64 " of them live, %" PRId64 " at work.",
             reply->total, all.count == METRICS_MOST ? " (the newest)" : "", reply->live,
             reply->busy);
    return err_ok();
}

static err_t agent_card(swarm_t *self, call_t *call, const agent_card_args_t *args,
                        agent_card_reply_t *reply)
{
    agent_row_t row;
    const char *soul;
    (void)self;
    err_t err = agents_get(call, call_company(call), args->agent_id, &row);
    if (!err_is(err))
        err = agents_history(call, call_company(call), args->agent_id, &reply->history);
    if (err_is(err))
        return err;
    swarm_agent_t *agent = ARENA_NEW(call_arena(call), swarm_agent_t);
    *agent = agents_show(&row, call_now_ms(call));
    reply->agent = agent;
    reply->soul = !err_is(agents_soul(call, call_company(call), row.role, &soul)) && *soul;
    return err_ok();
}

/* ---- Life ---- */

static err_t swarm_open(void *state, call_t *call)
{
    swarm_t *self = state;
    self->actor = call_actor(call);
    tend_open(self, call);
    return err_ok();
}

static void swarm_close(void *state)
{
    (void)state; /* everything is in the store */
}

static const store_table_t tables[] = {{"agents"},  {"live"},         {"asked"},
                                       {"history"}, {"negotiations"}, {NULL}};
static const hear_t hears[] = {{"agent", "task.", tend_on_task}, {NULL, NULL, NULL}};
static const method_t *const more_methods[] = {contract_methods, NULL};

const actor_def_t swarm_actor = {
    .name = "swarm",
    .doc = "Subagents: begun, followed, restarted, ended; and who of them should do what.",
    .size = sizeof(swarm_t),
    .open = swarm_open,
    .close = swarm_close,
    .methods = swarm_methods,
    .more_methods = more_methods,
    .hears = hears,
    .settings = &swarm_settings_record,
    .tables = tables,
    .format = 1,
};
