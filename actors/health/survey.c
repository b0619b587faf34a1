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
    F(TIME, since, opt(), 0, 0, "When this life of it began.")                                     \
    F(INT, lives, opt(), 0, 0, "How often it has started on this data.")                           \
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

#define SURVEY_METHODS(M)                                                                          \
    M(health_t, get_ecosystem_health, TOOL | READS | PARKS, "Every pillar, and how it is.")        \
    M(health_t, get_system_health_summary, TOOL | READS | PARKS,                                   \
      "Every pillar, and how it is, in a few lines.")
METHODS_SHARED(survey_methods, SURVEY_METHODS)

/* ---- Every pillar ---- */

static const char *const pillars[] = {"agent", "brain", "swarm", "elastic", "outside", "health"};
enum { PILLARS = sizeof(pillars) / sizeof(*pillars) };

typedef struct survey {
    pillar_health_t rows[PILLARS];
    int waiting;
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

static void read_stats(bytes_t body, int64_t now_ms, pillar_health_t *row)
{
    bytes_t field;
    int64_t uptime;
    row->up = true;
    row->has_lives = mp_get(body, "epoch", &field) && mp_int(field, &row->lives);
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
    out->pillars.items = ARENA_ARRAY(call_arena(call), pillar_health_t, PILLARS);
    out->pillars.count = PILLARS;
    for (int i = 0; i < PILLARS; i++) {
        const pillar_health_t *row = &survey->rows[i];
        out->pillars.items[i] = *row;
        up += row->up;
        buf_printf(&text, "%s: %s", row->name, row->up ? "up" : "DOWN");
        if (row->up)
            buf_printf(&text, ", %" PRId64 " calls, %" PRId64 " errors, %" PRId64 " waiting",
                       row->calls, row->errors, row->inbox);
        buf_puts(&text, "\n");
    }
    out->status = !survey->rows[0].up                ? "down"
                  : up < PILLARS || firing.count > 0 ? "degraded"
                                                     : "healthy";
    call_say(call, "%s; %zu alerts fire\n%s", out->status, firing.count, text.data);
    return err_ok();
}

static err_t survey_end(survey_t *survey, call_t *call, void *reply)
{
    return --survey->waiting ? call_park(call) : finish_survey(call, survey, reply);
}

static err_t on_stats(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const survey_row_t *at = ctx;
    pillar_health_t *row = &at->survey->rows[at->index];
    (void)state;
    if (err_is(got->err))
        row->problem = arena_strdup(call_arena(call), err_what(got->err));
    else
        read_stats(got->body, call_now_ms(call), row);
    return survey_end(at->survey, call, reply);
}

static err_t on_scale(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    get_ecosystem_health_reply_t *out = reply;
    (void)state;
    if (!err_is(got->err))
        out->scale =
            (bytes_t){arena_copy(call_arena(call), got->body.data, got->body.size), got->body.size};
    return survey_end(ctx, call, reply);
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
    for (int i = 0; i < PILLARS; i++) {
        survey_row_t *row = ARENA_NEW(arena, survey_row_t);
        *row = (survey_row_t){survey, i};
        survey->rows[i].name = pillars[i];
        peer_call_t request = {.peer = pillars[i],
                               .method = arena_printf(arena, "%s.stats", pillars[i]),
                               .timeout_ms = STATS_MS};
        call_peer(call, &request, on_stats, row);
        survey->waiting++;
    }
    peer_call_t scale = {.peer = "agent", .method = "scale", .timeout_ms = STATS_MS};
    call_peer(call, &scale, on_scale, survey);
    survey->waiting++;
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
