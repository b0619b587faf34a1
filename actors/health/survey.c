/* survey: every pillar is asked how it is. */
#include <inttypes.h>
#include <string.h>

#include "actors/health/health.h"
#include "proto/mp.h"

enum { STATS_MS = 2000 };

/* ---- Tools ---- */

#define pillar_health_FIELDS(F)                                                                    \
    F(STR, name, must, 0, 0, "The pillar.")                                                        \
    F(BOOL, up, must, 0, 0, "It answers.")                                                         \
    F(STR, problem, opt(), 0, 0, "Why not.")                                                       \
    F(STR, version, opt(), 0, 0, "Version of the program.")                                        \
    F(TIME, since, opt(), 0, 0, "When this life of it began.")                                     \
    F(INT, lives, opt(), 0, 0, "How often it has started on this data, if it keeps any.")          \
    F(INT, lag_ms, opt(), 0, 0, "Longest turn of its loop in the last one to two minutes.")        \
    F(INT, inbox, opt(), 0, 0, "Calls waiting.")                                                   \
    F(INT, calls, opt(), 0, 0, "Calls answered.")                                                  \
    F(INT, errors, opt(), 0, 0, "Of them with an error.")                                          \
    F(BOOL, draining, opt(), 0, 0, "It takes no new work.")
RECORD(pillar_health, pillar_health_FIELDS)

#define HEALTH_REPLY(F)                                                                            \
    F(STR, status, must, 0, 0, "healthy, degraded or down.")                                       \
    F(LIST(pillar_health), pillars, must, 0, 0, "Each pillar.")                                    \
    F(ANY, scale, opt(), 0, 0, "The demand, as the agent says.")                                   \
    F(INT, alerts_firing, must, 0, 0, "Alerts of this company that fire.")
#define get_ecosystem_health_ARGS(F) COMPANY_ROW(F)
#define get_ecosystem_health_REPLY(F) HEALTH_REPLY(F)
#define get_system_health_summary_ARGS(F) COMPANY_ROW(F)
#define get_system_health_summary_REPLY(F) HEALTH_REPLY(F)

#define get_swarm_fleet_status_ARGS(F) COMPANY_ROW(F)
#define get_swarm_fleet_status_REPLY(F)                                                            \
    F(STR, status, must, 0, 0, "working, idle, or partly known where somebody did not answer.")    \
    F(INT, subagents_live, opt(), 0, 0, "Subagents that are not gone.")                            \
    F(INT, subagents_busy, opt(), 0, 0, "Of them at work.")                                        \
    F(INT, workers_active, opt(), 0, 0, "Workers that take work.")                                 \
    F(INT, workers_busy, opt(), 0, 0, "Runs under way, as the workers last said.")                 \
    F(INT, queue_length, opt(), 0, 0, "Work of this company.")                                     \
    F(ANY, subagents, opt(), 0, 0, "As get_agent_metrics of the swarm says.")                      \
    F(ANY, workers, opt(), 0, 0, "As get_swarm_status of elastic says.")                           \
    F(ANY, queue, opt(), 0, 0, "As queue_stats of the agent says.")                                \
    F(STRS, silent, must, 0, 0, "Pillars that did not answer.")

#define SURVEY_METHODS(M)                                                                          \
    M(health_t, get_ecosystem_health, TOOL | READS | PARKS, "Every pillar, and how it is.")        \
    M(health_t, get_system_health_summary, TOOL | READS | PARKS,                                   \
      "Every pillar, and how it is, in a few lines.")                                              \
    M(health_t, get_swarm_fleet_status, TOOL | READS | PARKS,                                      \
      "Subagents, workers and queue of a company at one glance.")
METHODS_SHARED(survey_methods, SURVEY_METHODS)

/* ---- Every pillar ---- */

/* Whose answers are there, rather than how many: an answer may be taken in twice. */
static bool all_of(const bool *answered, int count)
{
    for (int i = 0; i < count; i++)
        if (!answered[i])
            return false;
    return true;
}

enum { SCALE = OWN_PILLARS, SURVEYED };

typedef struct survey {
    pillar_health_t rows[OWN_PILLARS];
    bool answered[SURVEYED];
} survey_t;

typedef struct survey_row {
    survey_t *survey;
    int index;
} survey_row_t;

static void read_methods(bytes_t body, pillar_health_t *row)
{
    bytes_t methods, method, field;
    int64_t number;
    if (!mp_get(body, "methods", &methods))
        return;
    for (uint32_t i = 0; mp_at(methods, i, &method); i++) {
        if (mp_get(method, "calls", &field) && mp_int(field, &number))
            row->calls += number;
        if (mp_get(method, "errors", &field) && mp_int(field, &number))
            row->errors += number;
    }
    row->has_calls = row->has_errors = true;
}

static void read_stats(arena_t *arena, bytes_t body, int64_t now_ms, pillar_health_t *row)
{
    bytes_t field;
    int64_t uptime;
    row->up = true;
    row->has_lives = mp_get(body, "lives", &field) && mp_int(field, &row->lives);
    if (mp_get(body, "version", &field))
        row->version = mp_text(arena, field);
    if ((row->has_lag_ms = mp_get(body, "lag_us", &field) && mp_int(field, &row->lag_ms)))
        row->lag_ms /= 1000;
    row->has_inbox = mp_get(body, "inbox", &field) && mp_int(field, &row->inbox);
    row->has_draining = mp_get(body, "draining", &field) && mp_bool(field, &row->draining);
    if ((row->has_since = mp_get(body, "uptime_ms", &field) && mp_int(field, &uptime)))
        row->since = now_ms - uptime;
    read_methods(body, row);
}

static err_t finish_survey(call_t *call, const survey_t *survey, get_ecosystem_health_reply_t *out)
{
    buf_t text;
    store_txn_t *txn;
    alert_list_t firing = {0};
    int up = 0;
    buf_open(&text, call_arena(call));
    if (!err_is(call_read(call, call_company(call), &txn))) {
        err_t err = alerts_list(txn, call_arena(call), true, &firing);
        if (err_is(err))
            return err;
    }
    out->alerts_firing = (int64_t)firing.count;
    out->pillars.items = ARENA_ARRAY(call_arena(call), pillar_health_t, OWN_PILLARS);
    out->pillars.count = OWN_PILLARS;
    for (int i = 0; i < OWN_PILLARS; i++) {
        const pillar_health_t *row = &survey->rows[i];
        out->pillars.items[i] = *row;
        up += row->up;
        buf_printf(&text, "\n%s: %s", row->name, row->up ? "up" : "DOWN");
        if (row->up)
            buf_printf(&text, ", %" PRId64 " calls, %" PRId64 " errors, %" PRId64 " open",
                       row->calls, row->errors, row->inbox);
    }
    out->status = !survey->rows[0].up                    ? "down"
                  : up < OWN_PILLARS || firing.count > 0 ? "degraded"
                                                         : "healthy";
    call_say(call, "%s; alerts that fire: %zu%s", out->status, firing.count, text.data);
    return err_ok();
}

static err_t survey_end(survey_t *survey, int index, call_t *call, void *reply)
{
    survey->answered[index] = true;
    return all_of(survey->answered, SURVEYED) ? finish_survey(call, survey, reply)
                                              : call_park(call);
}

static err_t on_stats(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const survey_row_t *at = ctx;
    pillar_health_t *row = &at->survey->rows[at->index];
    (void)state;
    *row = (pillar_health_t){.name = row->name};
    if (err_is(got->err))
        row->problem = arena_strdup(call_arena(call), err_what(got->err));
    else
        read_stats(call_arena(call), got->body, call_now_ms(call), row);
    return survey_end(at->survey, at->index, call, reply);
}

static err_t on_scale(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    get_ecosystem_health_reply_t *out = reply;
    (void)state;
    if (!err_is(got->err))
        out->scale =
            (bytes_t){arena_copy(call_arena(call), got->body.data, got->body.size), got->body.size};
    return survey_end(ctx, SCALE, call, reply);
}

static err_t get_ecosystem_health(health_t *self, call_t *call,
                                  const get_ecosystem_health_args_t *args,
                                  get_ecosystem_health_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    survey_t *survey = ARENA_NEW(arena, survey_t);
    (void)self;
    (void)args;
    (void)reply;
    for (int i = 0; i < OWN_PILLARS; i++) {
        survey_row_t *row = ARENA_NEW(arena, survey_row_t);
        *row = (survey_row_t){survey, i};
        survey->rows[i].name = own_pillars[i];
        peer_call_t request = {.peer = own_pillars[i],
                               .method = arena_printf(arena, "%s.stats", own_pillars[i]),
                               .timeout_ms = STATS_MS};
        call_peer(call, &request, on_stats, row);
    }
    peer_call_t scale = {.peer = "agent", .method = "scale", .timeout_ms = STATS_MS};
    call_peer(call, &scale, on_scale, survey);
    return call_park(call);
}

static err_t get_system_health_summary(health_t *self, call_t *call,
                                       const get_system_health_summary_args_t *args,
                                       get_system_health_summary_reply_t *reply)
{
    /* The same rows under both names. */
    return get_ecosystem_health(self, call, (const get_ecosystem_health_args_t *)(const void *)args,
                                (get_ecosystem_health_reply_t *)(void *)reply);
}

/* ---- The fleet ---- */

enum { ASKED = 3 };
static const struct {
    const char *peer, *method;
} asked[ASKED] = {
    {"swarm", "get_agent_metrics"}, {"elastic", "get_swarm_status"}, {"agent", "queue_stats"}};

typedef struct fleet {
    bytes_t answers[ASKED]; /* empty: none */
    bool answered[ASKED];
} fleet_t;

typedef struct fleet_row {
    fleet_t *fleet;
    int index;
} fleet_row_t;

static bool number_in(bytes_t answer, const char *name, int64_t *out)
{
    bytes_t field;
    return answer.size && mp_get(answer, name, &field) && mp_int(field, out);
}

static void say_fleet(call_t *call, const get_swarm_fleet_status_reply_t *out)
{
    buf_t text;
    buf_open(&text, call_arena(call));
    buf_printf(&text, "%s", out->status);
    if (out->has_subagents_live)
        buf_printf(&text, "; %" PRId64 " subagents, %" PRId64 " at work", out->subagents_live,
                   out->subagents_busy);
    if (out->has_workers_active)
        buf_printf(&text, "; %" PRId64 " workers, %" PRId64 " runs under way", out->workers_active,
                   out->workers_busy);
    if (out->has_queue_length)
        buf_printf(&text, "; %" PRId64 " tasks", out->queue_length);
    for (size_t i = 0; i < out->silent.count; i++)
        buf_printf(&text, "; %s does not answer", out->silent.items[i]);
    call_say_text(call, text.data);
}

static err_t finish_fleet(call_t *call, const fleet_t *fleet, get_swarm_fleet_status_reply_t *out)
{
    bytes_t swarm = fleet->answers[0], elastic = fleet->answers[1], agent = fleet->answers[2];
    const char **silent = ARENA_ARRAY(call_arena(call), const char *, ASKED);
    out->silent.count = 0;
    for (int i = 0; i < ASKED; i++)
        if (!fleet->answers[i].size)
            silent[out->silent.count++] = asked[i].peer;
    out->silent.items = silent;
    out->subagents = swarm;
    out->workers = elastic;
    out->queue = agent;
    out->has_subagents_live = number_in(swarm, "live", &out->subagents_live);
    out->has_subagents_busy = number_in(swarm, "busy", &out->subagents_busy);
    out->has_workers_active = number_in(elastic, "active_agents", &out->workers_active);
    out->has_workers_busy = number_in(elastic, "busy", &out->workers_busy);
    out->has_queue_length = number_in(agent, "queue_length", &out->queue_length);
    bool works = out->subagents_busy || out->workers_busy || out->queue_length;
    out->status = out->silent.count ? "partly known" : works ? "working" : "idle";
    say_fleet(call, out);
    return err_ok();
}

static err_t on_fleet(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const fleet_row_t *at = ctx;
    fleet_t *fleet = at->fleet;
    (void)state;
    if (!err_is(got->err))
        fleet->answers[at->index] =
            (bytes_t){arena_copy(call_arena(call), got->body.data, got->body.size), got->body.size};
    fleet->answered[at->index] = true;
    return all_of(fleet->answered, ASKED) ? finish_fleet(call, fleet, reply) : call_park(call);
}

static err_t get_swarm_fleet_status(health_t *self, call_t *call,
                                    const get_swarm_fleet_status_args_t *args,
                                    get_swarm_fleet_status_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    fleet_t *fleet = ARENA_NEW(arena, fleet_t);
    (void)self;
    (void)args;
    (void)reply;
    for (int i = 0; i < ASKED; i++) {
        fleet_row_t *row = ARENA_NEW(arena, fleet_row_t);
        *row = (fleet_row_t){fleet, i};
        peer_call_t request = {
            .peer = asked[i].peer, .method = asked[i].method, .timeout_ms = STATS_MS};
        call_peer(call, &request, on_fleet, row);
    }
    return call_park(call);
}
