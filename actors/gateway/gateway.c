#include "actors/gateway/gateway.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "actors/gateway/parts.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_ROWS_(gateway_settings, gateway_settings_FIELDS)
static const record_t gateway_settings_record = {"gateway_settings", gateway_settings_rows,
                                                 sizeof(gateway_settings_t)};
enum {
    ASK_AGAIN_MS = 200,
    AWAY_MS = 3000,
    LOOK_AGAIN_MS = 30000,
    REPORT_MS = 5000,
    TEND_MS = 2000
};

const char *const gateway_all_pillars[] = {"agent", "brain",   "health",
                                           "swarm", "elastic", "outside"};
const size_t gateway_all_pillar_count = sizeof(gateway_all_pillars) / sizeof(*gateway_all_pillars);

static void on_delete(gateway_t *self, http_request_t *request, const principal_t *principal)
{
    session_claims_t claims;
    const char *id = http_header(request, "Mcp-Session-Id");
    mcp_refusal_t refusal = stream_no_legacy(request);
    if (!refusal.status && !id)
        refusal = (mcp_refusal_t){.status = 400,
                                  .code = MCP_LEGACY_TRANSPORT,
                                  .text = "the header Mcp-Session-Id must name the session to end"};
    if (!refusal.status)
        refusal = session_read(self, http_arena(request), principal, id, &claims);
    if (refusal.status) {
        gateway_reply_error(request, refusal.status, refusal.code, refusal.text);
        return;
    }
    session_end(self, id);
    http_reply(request, 204, NULL, (bytes_t){0});
}

/* /mcp/brain: only the tools of that pillar. NULL: another path. */
static const char *toolset(const gateway_t *self, const char *path)
{
    if (strncmp(path, "/mcp/", 5) != 0)
        return NULL;
    for (size_t i = 0; i < self->pillar_count; i++)
        if (!strcmp(self->pillars[i], path + 5))
            return self->pillars[i];
    return NULL;
}

void gateway_on_request(gateway_t *self, http_request_t *request)
{
    const char *path = http_path(request), *method = http_method(request);
    if (!access_check(self, request))
        return;
    if (!strcmp(method, "OPTIONS")) {
        access_preflight(request);
        return;
    }
    const char *only = toolset(self, path);
    bool mcp = only || !strcmp(path, "/mcp") || !strcmp(path, "/mcp/"),
         old_door = !strcmp(path, "/messages");
    bool sse = !strcmp(path, "/sse");
    bool scale = !strcmp(path, "/api/v1/scale") && !strcmp(self->settings->pillar, "agent");
    if (access_metadata(self, request, path))
        return;
    if (!mcp && !old_door && !scale && !sse) {
        pages_get(self, request, path);
        return;
    }
    const principal_t *principal = access_who(self, request);
    if (!principal)
        return;
    if (scale) {
        pages_get(self, request, path);
    } else if (!strcmp(method, "GET") && !old_door) {
        stream_get(self, request, principal, sse);
    } else if (mcp && !strcmp(method, "DELETE")) {
        on_delete(self, request, principal);
    } else if (strcmp(method, "POST") != 0 || sse) {
        http_set_header(request, "Allow", sse ? "GET" : old_door ? "POST" : "GET, POST, DELETE");
        gateway_reply_error(request, 405, MCP_LEGACY_TRANSPORT,
                            "this HTTP method is not answered here; see the header Allow");
    } else {
        post_begin(self, request, principal, only, old_door);
    }
}

static void on_request(void *ctx, http_request_t *request)
{
    gateway_on_request(ctx, request);
}

/* A client has gone before its answer. */
static void on_gone(void *ctx, http_request_t *request)
{
    gateway_t *self = ctx;
    visitor_t *visitor = http_user(request);
    if (!visitor)
        return;
    http_set_user(request, NULL);
    if (*visitor == VISITOR_KEYS)
        jwks_gone(self, (key_waiter_t *)visitor);
    else if (*visitor == VISITOR_STREAM)
        stream_gone(self, (stream_t *)visitor);
    else if (*visitor == VISITOR_EXCHANGE)
        exchange_gone((exchange_t *)visitor);
    else
        pages_gone(self, (probe_t *)visitor);
}

static void on_done(void *ctx, const http_done_t *done)
{
    const gateway_t *self = ctx;
    access_log_write(self->access_log, done);
}

/* ---- Asking the pillars ---- */

static err_t ask(void *state, call_t *call, void *ctx);

static err_t on_rich_tools(void *state, call_t *call, void *reply, const peer_answer_t *got,
                           void *ctx)
{
    gateway_t *self = state;
    (void)call;
    (void)reply;
    if (!err_is(got->err) && catalogue_learn_rich(self->catalogue, ctx, got->body))
        streams_changed(self, "tools");
    return err_ok();
}

static err_t ask_rich_tools(void *state, call_t *call, void *ctx)
{
    const char *pillar = ctx;
    (void)state;
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "kind");
    mp_put_str(&args, "tools");
    peer_call_t request = {.peer = pillar,
                           .method = arena_printf(call_arena(call), "%s_mcp_list", pillar),
                           .args = buf_bytes(&args),
                           .timeout_ms = LOOK_AGAIN_MS};
    call_peer(call, &request, on_rich_tools, ctx);
    return call_park(call);
}

void gateway_ask_tools(gateway_t *self, const char *pillar)
{
    for (size_t i = 0; i < self->pillar_count; i++)
        if (!strcmp(self->pillars[i], pillar)) /* the name must outlive the question */
            actor_work(self->actor, 0, ask_rich_tools, (void *)self->pillars[i]);
}

static void learn(gateway_t *self, call_t *call, const char *pillar, bytes_t description)
{
    if (catalogue_learn(self->catalogue, pillar, description))
        streams_changed(self, "tools");
    if (catalogue_is_rich(self->catalogue, pillar))
        call_work(call, 0, ask_rich_tools, (void *)pillar);
}

static size_t pillar_index(const gateway_t *self, const char *pillar)
{
    size_t i = 0;
    while (i + 1 < self->pillar_count && strcmp(self->pillars[i], pillar) != 0)
        i++;
    return i;
}

static err_t on_description(void *state, call_t *call, void *reply, const peer_answer_t *got,
                            void *ctx)
{
    gateway_t *self = state;
    const char *pillar = ctx;
    (void)reply;
    int64_t *away = &self->away_since_ms[pillar_index(self, pillar)];
    if (!err_is(got->err)) {
        *away = 0;
        learn(self, call, pillar, got->body);
        call_work(call, LOOK_AGAIN_MS, ask, ctx);
        return err_ok();
    }
    int64_t now = call_now_ms(call), limit = self->settings->forget_pillar_ms;
    if (!*away)
        *away = now;
    if (limit && now - *away >= limit && catalogue_forget(self->catalogue, pillar)) {
        call_log(call, LOG_WARN, "%s is away for long: its tools are listed no more", pillar);
        streams_changed(self, "tools");
    }
    call_work(call, now - *away > AWAY_MS ? AWAY_MS : ASK_AGAIN_MS, ask, ctx);
    return err_ok();
}

static err_t ask(void *state, call_t *call, void *ctx)
{
    const char *pillar = ctx;
    (void)state;
    peer_call_t request = {.peer = pillar,
                           .method = arena_printf(call_arena(call), "%s.describe", pillar),
                           .timeout_ms = LOOK_AGAIN_MS};
    call_peer(call, &request, on_description, ctx);
    return call_park(call);
}

/* ---- What pillars tell ---- */

static const struct {
    const char *begins, *field, *kind, *kind_too, *list;
} events[] = {{"run.", "run", "run", "task", "queue/now"},
              {"task.", "id", "task", "run", "queue/now"},
              {"proposal.", "id", "proposal", NULL, "proposals/pending"},
              {"memory.", "id", "memory", NULL, NULL},
              {"alert.", "id", NULL, NULL, "alerts/now"}};

/* Something that a pillar keeps changed: whoever subscribed to it hears. */
static err_t on_change(void *state, call_t *call, const char *topic, bytes_t body)
{
    arena_t *arena = call_arena(call);
    gateway_t *self = state;
    const char *company = mp_member_text(arena, body, "company");
    for (size_t i = 0; self->streams && company && i < sizeof(events) / sizeof(*events); i++) {
        const char *id = NULL;
        if (!strncmp(topic, events[i].begins, strlen(events[i].begins)))
            id = mp_member_text(arena, body, events[i].field);
        if (!id)
            continue;
        if (events[i].kind)
            kept_changed(self, arena, events[i].kind, company, id);
        if (events[i].kind_too)
            kept_changed(self, arena, events[i].kind_too, company, id);
        if (events[i].list)
            kept_moved(self, events[i].list, company);
        if (!strncmp(topic, "run.step", 8))
            kept_changed(self, arena, "log", company, "steps");
        if (events[i].kind && !strcmp(events[i].kind, "task") &&
            mp_equals(mp_member(body, "kind"), "sop"))
            task_status_changed(self, company, id);
    }
    return err_ok();
}

/* Points come by the thousand: the reports are said to have changed every few seconds at most. */
static err_t on_metric(void *state, call_t *call, const char *topic, bytes_t body)
{
    gateway_t *self = state;
    const char *company = mp_member_text(call_arena(call), body, "company");
    int64_t now = actor_mono_us(self->actor);
    (void)topic;
    if (!self->streams || !company || now - self->reported_us < REPORT_MS * 1000)
        return err_ok();
    self->reported_us = now;
    static const char *const reports[] = {"last_hour", "last_day", "last_week"};
    for (int i = 0; i < 3; i++)
        kept_changed(self, call_arena(call), "report", company, reports[i]);
    return err_ok();
}

static const hear_t gateway_hears[] = {{"agent", "run.", on_change},
                                       {"agent", "task.", on_change},
                                       {"agent", "proposal.", on_change},
                                       {"brain", "memory.", on_change},
                                       {"health", "alert.", on_change},
                                       {"health", "metric.tracked", on_metric},
                                       {NULL, NULL, NULL}};

/* ---- Life ---- */

static void on_readable(void *state, void *ctx)
{
    gateway_t *self = state;
    (void)ctx;
    http_server_on_readable(self->http);
    if (http_server_deadline_ms(self->http) == 0)
        gateway_flush_soon(self);
}

/* libmicrohttpd closes quiet connections only when it is run. */
static err_t tend(void *state, call_t *call, void *ctx)
{
    gateway_t *self = state;
    const char *trouble = self->tokens ? tokens_trouble(self->tokens) : NULL;
    if (trouble)
        call_log(call, LOG_ERROR, "%s", trouble);
    streams_tend(self);
    exchange_tend(self);
    http_server_look(self->http);
    gateway_flush_soon(self);
    call_work(call, TEND_MS, tend, ctx);
    return err_ok();
}

static bool gateway_drained(void *state)
{
    const gateway_t *self = state;
    return self->exchanges == 0;
}

static err_t open_http(gateway_t *self, arena_t *arena)
{
    const gateway_settings_t *settings = self->settings;
    http_options_t options = {.bind = settings->bind,
                              .port = (int)settings->port,
                              .largest_body = (size_t)settings->max_body,
                              .stream_waiting = (size_t)settings->stream_bytes,
                              .connections = (unsigned)settings->max_connections,
                              .connections_per_address = (unsigned)settings->max_per_address,
                              .idle_timeout_s = (unsigned)settings->idle_timeout_s,
                              .on_request = on_request,
                              .on_gone = on_gone,
                              .on_done = self->access_log ? on_done : NULL,
                              .ctx = self};
    return http_server_open(&options, arena, &self->http);
}

static err_t gateway_open(void *state, call_t *call)
{
    gateway_t *self = state;
    const gateway_settings_t *settings = self->settings;
    self->actor = call_actor(call);
    self->pillars = &settings->pillar;
    self->pillar_count = 1;
    if (settings->pillars.count) {
        self->pillars = settings->pillars.items;
        self->pillar_count = settings->pillars.count;
    } else if (!strcmp(settings->pillar, "agent")) {
        self->pillars = gateway_all_pillars;
        self->pillar_count = gateway_all_pillar_count;
    }
    uint8_t fresh[SEAL_KEY];
    call_random(call, fresh, sizeof(fresh));
    call_random(call, &self->salt, sizeof(self->salt));
    err_t err = seal_open(settings->key_file ? settings->key_file
                                             : arena_printf(call_arena(call), "%s/gateway.key",
                                                            actor_data_dir(self->actor)),
                          fresh, call_arena(call), &self->seal);
    if (err_is(err))
        return err;
    if (!(self->away_since_ms = calloc(self->pillar_count, sizeof(int64_t))))
        abort();
    self->catalogue = catalogue_new(self->pillars, self->pillar_count);
    self->born_us = actor_mono_us(self->actor);
    err = access_open(self, call_arena(call));
    if (!err_is(err))
        err = tools_check_settings(settings, call_arena(call));
    if (!err_is(err))
        err = access_log_open(settings, call_arena(call), &self->access_log);
    if (!err_is(err))
        err = open_http(self, call_arena(call));
    if (err_is(err))
        return err;
    for (size_t i = 0; i < self->pillar_count; i++)
        call_work(call, 0, ask, (void *)self->pillars[i]);
    jwks_start(self, call);
    call_work(call, TEND_MS, tend, NULL);
    actor_watch(self->actor, http_server_fd(self->http), on_readable, NULL);
    return err_ok();
}

static void gateway_close(void *state)
{
    gateway_t *self = state;
    streams_close(self);
    http_server_close(&self->http);
    tokens_close(&self->tokens);
    jwt_close(&self->jwt);
    task_status_close(self);
    catalogue_destroy(&self->catalogue);
    access_log_close(&self->access_log);
    free(self->tool_counts);
    free(self->away_since_ms);
}

/* ---- What the bus may ask ---- */

#define gateway_port_ARGS(F)
#define gateway_port_REPLY(F) F(INT, port, must, 0, 0, "Where it listens.")
#define GATEWAY_METHODS(M) M(gateway_t, gateway_port, READS | ANY_COMPANY, "Where it listens.")
METHODS(gateway_methods, GATEWAY_METHODS)

static err_t gateway_port(gateway_t *self, call_t *call, const gateway_port_args_t *args,
                          gateway_port_reply_t *reply)
{
    (void)call;
    (void)args;
    reply->port = http_server_port(self->http);
    return err_ok();
}

static void gateway_measure(void *state, call_t *call, metrics_t *out)
{
    const gateway_t *self = state;
    const char *labels[] = {"pillar", self->settings->pillar, NULL, NULL, NULL};
    http_stats_t stats;
    (void)call;
    http_server_stats(self->http, &stats);
    metrics_family(out, "agency_http_connections", METRIC_GAUGE, "Connections that are open.");
    metrics_put(out, stats.connections, labels);
    metrics_family(out, "agency_http_requests_open", METRIC_GAUGE,
                   "Requests of MCP that are not answered yet.");
    metrics_put(out, self->exchanges, labels);
    metrics_family(out, "agency_http_sessions_known", METRIC_GAUGE,
                   "Sessions of which something is remembered.");
    metrics_put(out, (double)self->session_count, labels);
    tools_measure(self, out);
    metrics_family(out, "agency_http_answers", METRIC_COUNTER,
                   "Answers, by class of their status.");
    labels[2] = "status";
    for (int i = 0; i < HTTP_STATUS_CLASSES; i++) {
        char *status = arena_printf(metrics_arena(out), "%dxx", i + 1);
        labels[3] = status;
        metrics_put(out, (double)stats.answers[i], labels);
    }
}

const actor_def_t gateway_actor = {
    .name = "gateway",
    .doc = "Speaks MCP over HTTP for the pillar beside it.",
    .size = sizeof(gateway_t),
    .open = gateway_open,
    .close = gateway_close,
    .drained = gateway_drained,
    .hears = gateway_hears,
    .methods = gateway_methods,
    .measure = gateway_measure,
    .settings = &gateway_settings_record,
};
