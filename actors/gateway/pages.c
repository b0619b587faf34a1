/* pages: what needs no JSON-RPC: probes, what Prometheus reads, and the demand. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/gateway/parts.h"
#include "bus/process.h"
#include "proto/json.h"

enum { PROBE_MS = 1000, METRICS_MS = 3000 };

typedef enum probe_kind { PROBE_READY, PROBE_STARTED, PROBE_SCALE, PROBE_METRICS } probe_kind_t;

struct probe {
    visitor_t visitor; /* first */
    probe_kind_t kind;
    http_request_t *request;
    call_t *call;
};

static void reply_text(http_request_t *request, int status, const char *text)
{
    http_reply(request, status, "text/plain", (bytes_t){(const uint8_t *)text, strlen(text)});
}

/* ---- Is it ready? ---- */

static void put_silent(const gateway_t *self, buf_t *out)
{
    const char *between = ",\"not_heard_yet\":[";
    for (size_t i = 0; i < self->pillar_count; i++)
        if (!catalogue_knows(self->catalogue, self->pillars[i])) {
            buf_printf(out, "%s\"%s\"", between, self->pillars[i]);
            between = ",";
        }
    buf_puts(out, *between == ',' && !between[1] ? "]" : "");
}

static void reply_ready(gateway_t *self, probe_t *probe, bool answers)
{
    buf_t out;
    bool draining = actor_draining(self->actor);
    bool known = answers && catalogue_complete(self->catalogue);
    self->began = self->began || answers; /* who starts later must not end this one */
    bool fine = probe->kind == PROBE_STARTED ? self->began : known && !draining;
    buf_open(&out, http_arena(probe->request));
    buf_printf(&out, "{\"%s\":%s,\"pillar\":\"%s\",\"forwards\":%s,\"answers\":%s,\"draining\":%s",
               probe->kind == PROBE_STARTED ? "started" : "ready", fine ? "true" : "false",
               self->settings->pillar, self->settings->forwards ? "true" : "false",
               answers ? "true" : "false", draining ? "true" : "false");
    if (!answers && self->settings->forwards)
        buf_printf(&out, ",\"why\":\"the owner of '%s' (ordinal 0) is not reached\"",
                   self->settings->pillar);
    else if (!known && answers)
        put_silent(self, &out);
    buf_puts(&out, "}");
    gateway_reply_json(probe->request, fine ? 200 : 503, out.data);
}

/* ---- What Prometheus reads ---- */

/* https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics */
static void measure_process(const gateway_t *self, metrics_t *out)
{
    process_usage_t usage;
    const char *build[] = {"version", AGENCY_VERSION, "pillar", self->settings->pillar, NULL};
    metrics_family(out, "agency_build_info", METRIC_GAUGE, "Always 1; its labels say what runs.");
    metrics_put(out, 1, build);
    process_usage(&usage);
    metrics_counter(out, "process_cpu_seconds", "CPU time of this process.", usage.cpu_seconds);
    metrics_gauge(out, "process_resident_memory_bytes", "Memory of this process that is in RAM.",
                  (double)usage.resident_bytes);
    metrics_gauge(out, "process_virtual_memory_bytes", "Address space of this process.",
                  (double)usage.virtual_bytes);
    metrics_gauge(out, "process_open_fds", "Open file descriptors.", (double)usage.open_fds);
    metrics_gauge(out, "process_max_fds", "Most file descriptors.", (double)usage.max_fds);
    metrics_gauge(out, "process_start_time_seconds", "When this process began, since 1970.",
                  usage.start_seconds);
}

#define measured_FIELDS(F)                                                                         \
    F(LIST(metric_family), families, must, 0, 0, "What it counts and measures.")
RECORD(measured, measured_FIELDS)

static void reply_metrics(gateway_t *self, probe_t *probe, call_t *call, const peer_answer_t *got)
{
    arena_t *arena = http_arena(probe->request);
    metrics_t *all = metrics_new(arena);
    metrics_format_t format = metrics_negotiate(http_header(probe->request, "Accept"));
    const char *labels[] = {"pillar", self->settings->pillar, NULL};
    measured_t measured = {0};
    measure_process(self, all);
    /* Its owner shows its metrics: whoever sums over the replicas must not count them twice. */
    bool forwards = self->settings->forwards;
    bool up = !err_is(got->err) && (forwards || !err_is(record_decode(&measured_record, got->body,
                                                                      arena, "field", &measured)));
    metrics_family(all, "agency_pillar_up", METRIC_GAUGE, "1: the pillar answers its gateway.");
    metrics_put(all, up, labels);
    if (up && !forwards)
        metrics_add(all, &measured.families);
    actor_measure(self->actor, call, all);
    buf_t out;
    buf_open(&out, arena);
    metrics_write(all, format, &out);
    http_reply(probe->request, 200, metrics_content_type(format), buf_bytes(&out));
}

/* ---- One question to a pillar for each ---- */

static err_t on_probe(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    probe_t *probe = ctx;
    gateway_t *self = state;
    (void)reply;
    bool fine = !err_is(got->err);
    buf_t out;
    buf_open(&out, http_arena(probe->request));
    if (probe->kind == PROBE_METRICS)
        reply_metrics(self, probe, call, got);
    else if (probe->kind != PROBE_SCALE)
        reply_ready(self, probe, fine);
    else if (fine && !err_is(json_from_msgpack(got->body, JSON_COMPACT, &out)))
        gateway_reply_json(probe->request, 200, out.data);
    else
        gateway_reply_json(probe->request, 503,
                           "{\"error\":\"the agent does not answer; ask again\"}");
    http_set_user(probe->request, NULL);
    gateway_flush_soon(self);
    call_on_gone(call, NULL, NULL);
    free(probe);
    return err_ok();
}

static void probe_lost(void *self, call_t *call, void *ctx)
{
    probe_t *probe = ctx;
    (void)self;
    (void)call;
    if (probe->request)
        http_set_user(probe->request, NULL);
    free(probe);
}

static err_t begin_probe(void *state, call_t *call, void *ctx)
{
    gateway_t *self = state;
    probe_t *probe = ctx;
    probe->call = call;
    bool metrics = probe->kind == PROBE_METRICS && !self->settings->forwards;
    peer_call_t request = {.peer = probe->kind == PROBE_SCALE ? "agent" : self->settings->pillar,
                           .method =
                               probe->kind == PROBE_SCALE
                                   ? "scale"
                                   : arena_printf(call_arena(call), "%s.%s", self->settings->pillar,
                                                  metrics ? "metrics" : "ping"),
                           .timeout_ms = metrics ? METRICS_MS : PROBE_MS};
    call_peer(call, &request, on_probe, probe);
    call_on_gone(call, probe_lost, probe);
    return call_park(call);
}

static void start_probe(gateway_t *self, http_request_t *request, probe_kind_t kind)
{
    probe_t *probe = calloc(1, sizeof(*probe));
    if (!probe)
        abort();
    *probe = (probe_t){.visitor = VISITOR_PROBE, .kind = kind, .request = request};
    http_set_user(request, probe);
    actor_work_now(self->actor, begin_probe, probe);
}

void pages_gone(gateway_t *self, probe_t *probe)
{
    probe->request = NULL;
    if (probe->call)
        actor_cancel(self->actor, probe->call);
}

/* Needs nobody else: this thread turns, so it looks at the other loops of the process. */
static void reply_alive(gateway_t *self, http_request_t *request)
{
    int64_t lag_us;
    if (actor_turns(self->actor, &lag_us))
        reply_text(request, 200, "OK");
    else
        reply_text(request, 503,
                   arena_printf(http_arena(request),
                                "a loop of this process has not turned for %" PRId64 " ms\n",
                                lag_us / 1000));
}

/* Only GET, and HEAD for those who look whether it is there. */
static bool reads_only(http_request_t *request)
{
    const char *method = http_method(request);
    if (!strcmp(method, "GET") || !strcmp(method, "HEAD"))
        return true;
    http_set_header(request, "Allow", "GET");
    reply_text(request, 405, "only GET is answered here\n");
    return false;
}

/* What forwards is up when it listens: nobody must end it because another pod is away. */
static void get_started(gateway_t *self, http_request_t *request)
{
    if (self->began || self->settings->forwards)
        reply_text(request, 200, "OK");
    else
        start_probe(self, request, PROBE_STARTED);
}

static void get_ready(gateway_t *self, http_request_t *request)
{
    start_probe(self, request, PROBE_READY);
}

static void get_metrics(gateway_t *self, http_request_t *request)
{
    start_probe(self, request, PROBE_METRICS);
}

static void get_scale(gateway_t *self, http_request_t *request)
{
    start_probe(self, request, PROBE_SCALE);
}

void pages_get(gateway_t *self, http_request_t *request, const char *path)
{
    static const struct {
        const char *path;
        void (*fn)(gateway_t *self, http_request_t *request);
    } rows[] = {{"/health", reply_alive},  {"/livez", reply_alive},
                {"/readyz", get_ready},    {"/startupz", get_started},
                {"/metrics", get_metrics}, {"/api/v1/scale", get_scale}};
    bool agent = !strcmp(self->settings->pillar, "agent");
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        if (!strcmp(path, rows[i].path) && (agent || rows[i].fn != get_scale)) {
            if (reads_only(request))
                rows[i].fn(self, request);
            return;
        }
    if (page_has(path)) {
        if (reads_only(request))
            page_get(request, path);
        return;
    }
    gateway_reply_json(request, 404,
                       "{\"error\":\"there is nothing here; see GET / (the dashboard), POST /mcp, "
                       "POST /messages, GET "
                       "/livez, /readyz, /startupz, /metrics, /health, /api/v1/scale\"}");
}
