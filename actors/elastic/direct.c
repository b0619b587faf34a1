/* direct: the number is that of a StatefulSet, changed through the scale subresource.
 *
 *   tick: lead (Lease) -> rivals? (HPA, ScaledObject) -> GET scale -> decide -> more: PATCH
 *                                                                   -> fewer: cordon, wait, PATCH
 *
 * Only the holder of the Lease acts, and only where no other scaler does. Going down, the agent is
 * asked to give the highest ordinal no more work and to say how many leases it still holds; at
 * none, and only then, one replica is taken away. The cordon ends by itself when nobody renews it,
 * so a dead elastic takes no worker out of service. Token and CA are read anew for each request:
 * the cluster rotates them. Every PATCH names the resourceVersion that was read. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/elastic/elastic.h"
#include "proto/json.h"
#include "proto/mp.h"

enum {
    ANSWER_MS = 5000,
    ANSWER_BYTES = 4 << 20,
    CORDON_MS = 60000, /* a cordon that nobody renews */
    AGENT_MS = 2000,
    RIVALS_MS = 15000,
    PAUSE_MS = 60000, /* the longest Retry-After that is obeyed */
    TOKEN_BYTES = 65536
};

struct direct {
    char *url, *namespace, *identity, *lease;
    bool leads;
    char *lease_seen; /* holder and renewTime, as last read */
    int64_t lease_seen_ms, renewed_ms, rivals_ms;
    int64_t asked_ms; /* monotonic: when the Lease was written */
    int64_t pause_ms; /* the server's Retry-After; 0: none */
    bool rivals_checked, known;
    int64_t replicas, ready;
    int64_t cordoned; /* ordinal; -1: none */
    char problem[512];
    char version[128]; /* resourceVersion of the scale */
};

typedef err_t then_t(elastic_t *self, call_t *call, int status, bytes_t body);

/* ---- Problems are told once ---- */

static void problem(direct_t *direct, call_t *call, const char *text)
{
    if (!strcmp(direct->problem, text))
        return;
    snprintf(direct->problem, sizeof(direct->problem), "%s", text);
    call_log(call, *text ? LOG_WARN : LOG_INFO, "%s", *text ? text : "the API server answers");
}

static err_t again(elastic_t *self, call_t *call);

static err_t stop_for_now(elastic_t *self, call_t *call, const char *text)
{
    problem(self->direct, call, text);
    return again(self, call);
}

/* What a status that is no success means for whoever must act; `body` is a Status object, or
 * nothing. */
static err_t refused(elastic_t *self, call_t *call, const char *what, int status, bytes_t body)
{
    bytes_t field;
    const char *says = NULL;
    if (mp_get(body, "message", &field))
        says = mp_text(call_arena(call), field);
    self->direct->known = false;
    const char *hint = status == 401   ? "; the token is not accepted: look at elastic.token_file"
                       : status == 403 ? "; the ServiceAccount lacks this right: look at its Role"
                       : status == 404 ? "; look at elastic.statefulset and elastic.namespace"
                       : status == 409 ? "; somebody else changed it: read again"
                       : status == 422 ? "; the API server does not take this number"
                       : status == 429 ? "; it has too much to do: asked again later"
                                       : "";
    return stop_for_now(self, call,
                        arena_printf(call_arena(call), "%s: the API server answers %d%s%s%.300s%s",
                                     what, status, hint, says && *says ? " (it says: " : "",
                                     says ? says : "", says && *says ? ")" : ""));
}

/* ---- Requests ---- */

typedef struct request {
    const char *what;
    then_t *then;
} request_t;

static err_t on_answer(void *state, call_t *call, void *reply, const http_call_outcome_t *got,
                       void *ctx)
{
    elastic_t *self = state;
    const request_t *request = ctx;
    bytes_t body = {0};
    (void)reply;
    err_t err = got->err;
    self->direct->pause_ms = !err_is(err) && got->retry_after_ms > 0 ? got->retry_after_ms : 0;
    if (!err_is(err)) {
        err = json_to_msgpack(call_arena(call), (const char *)got->body.data, got->body.size, NULL,
                              &body);
        if (got->status >= 300 && err_is(err)) { /* "404 page not found" is no JSON */
            err = err_ok();
            body = (bytes_t){0};
        }
    }
    if (!err_is(err))
        return request->then(self, call, got->status, body);
    self->direct->known = false;
    return stop_for_now(self, call,
                        arena_printf(call_arena(call), "%s: no answer that can be read: %s",
                                     request->what, err_what(err)));
}

static const char *read_token(const char *path, arena_t *arena)
{
    char *text = arena_alloc(arena, TOKEN_BYTES);
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    size_t size = fread(text, 1, TOKEN_BYTES - 1, file);
    fclose(file);
    text[size] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    return *text ? text : NULL;
}

static err_t ask_api(elastic_t *self, call_t *call, const char *what, const char *method,
                     const char *path, bytes_t body, then_t *then)
{
    arena_t *arena = call_arena(call);
    const elastic_settings_t *settings = self->settings;
    const char *token = read_token(settings->token_file, arena);
    if (!token)
        return stop_for_now(self, call,
                            arena_printf(arena, "cannot read elastic.token_file %s: %s",
                                         settings->token_file, strerror(errno)));
    const char **headers = ARENA_ARRAY(arena, const char *, 4);
    headers[0] = arena_printf(arena, "Authorization: Bearer %s", token);
    headers[1] = "Accept: application/json";
    headers[2] = !body.size                 ? NULL
                 : !strcmp(method, "PATCH") ? "Content-Type: application/merge-patch+json"
                                            : "Content-Type: application/json";
    request_t *request = ARENA_NEW(arena, request_t);
    *request = (request_t){what, then};
    http_call_request_t http = {
        .method = method,
        .url = arena_printf(arena, "%s%s", self->direct->url, path),
        .headers = headers,
        .body = body,
        .ca_file = strncmp(self->direct->url, "https:", 6) ? NULL : settings->ca_file,
        .timeout_ms = ANSWER_MS,
        .response_limit = ANSWER_BYTES};
    call_http(call, &http, on_answer, request);
    return call_park(call);
}

static bool deep(bytes_t value, const char *one, const char *two, bytes_t *out)
{
    bytes_t part;
    return mp_get(value, one, &part) && mp_get(part, two, out);
}

static const char *deep_text(arena_t *arena, bytes_t value, const char *one, const char *two)
{
    bytes_t field;
    const char *text = deep(value, one, two, &field) ? mp_text(arena, field) : NULL;
    return text ? text : "";
}

/* ---- Leading ---- */

static err_t look_for_rivals(elastic_t *self, call_t *call);

static const char *lease_path(const elastic_t *self, call_t *call, bool one)
{
    return arena_printf(call_arena(call), "/apis/coordination.k8s.io/v1/namespaces/%s/leases%s%s",
                        self->direct->namespace, one ? "/" : "", one ? self->direct->lease : "");
}

static void put_pair(buf_t *out, const char *key, const char *text)
{
    mp_put_str(out, key);
    mp_put_str(out, text);
}

/* The Lease as we want it; msgpack. `version` NULL: a new one. */
static void put_lease(const elastic_t *self, call_t *call, buf_t *out, const char *version,
                      const char *acquired, int64_t transitions)
{
    const direct_t *direct = self->direct;
    const char *now = record_time_text(call_arena(call), call_now_ms(call));
    /* MicroTime wants six digits. */
    now = arena_printf(call_arena(call), "%.*s000Z", (int)strlen(now) - 1, now);
    mp_put_map(out, 4);
    put_pair(out, "apiVersion", "coordination.k8s.io/v1");
    put_pair(out, "kind", "Lease");
    mp_put_str(out, "metadata");
    mp_put_map(out, version ? 3 : 2);
    put_pair(out, "name", direct->lease);
    put_pair(out, "namespace", direct->namespace);
    if (version)
        put_pair(out, "resourceVersion", version);
    mp_put_str(out, "spec");
    mp_put_map(out, 5);
    put_pair(out, "holderIdentity", direct->identity);
    mp_put_str(out, "leaseDurationSeconds");
    mp_put_int(out, self->settings->lease_s);
    put_pair(out, "acquireTime", *acquired ? acquired : now);
    put_pair(out, "renewTime", now);
    mp_put_str(out, "leaseTransitions");
    mp_put_int(out, transitions);
}

static err_t on_lease_written(elastic_t *self, call_t *call, int status, bytes_t body)
{
    (void)body;
    if (status >= 300) {
        self->direct->leads = false;
        return refused(self, call, "taking the Lease", status, body);
    }
    if (!self->direct->leads)
        call_log(call, LOG_INFO, "%s leads: it holds the Lease %s", self->direct->identity,
                 self->direct->lease);
    self->direct->leads = true;
    self->direct->renewed_ms = self->direct->asked_ms;
    return look_for_rivals(self, call);
}

static err_t write_lease(elastic_t *self, call_t *call, const char *version, const char *acquired,
                         int64_t transitions)
{
    buf_t packed, json;
    buf_open(&packed, call_arena(call));
    buf_open(&json, call_arena(call));
    put_lease(self, call, &packed, version, acquired, transitions);
    err_t err = json_from_msgpack(buf_bytes(&packed), JSON_COMPACT, &json);
    if (err_is(err))
        return err;
    self->direct->asked_ms = actor_mono_us(self->actor) / 1000;
    return ask_api(self, call, "taking the Lease", version ? "PUT" : "POST",
                   lease_path(self, call, version != NULL), buf_bytes(&json), on_lease_written);
}

/* Nobody's clock is trusted but ours: a holder is gone when its entry did not change for as long as
 * the Lease lasts. */
static bool holder_is_gone(elastic_t *self, call_t *call, bytes_t lease, const char *holder)
{
    direct_t *direct = self->direct;
    int64_t now = actor_mono_us(self->actor) / 1000, seconds = self->settings->lease_s;
    bytes_t field;
    const char *seen = arena_printf(call_arena(call), "%s %s", holder,
                                    deep_text(call_arena(call), lease, "spec", "renewTime"));
    if (deep(lease, "spec", "leaseDurationSeconds", &field))
        mp_int(field, &seconds);
    if (!*holder)
        return true;
    if (direct->lease_seen && !strcmp(direct->lease_seen, seen))
        return now - direct->lease_seen_ms >= seconds * 1000;
    free(direct->lease_seen);
    if (!(direct->lease_seen = strdup(seen)))
        abort();
    direct->lease_seen_ms = now;
    return false;
}

static err_t on_lease_read(elastic_t *self, call_t *call, int status, bytes_t body)
{
    arena_t *arena = call_arena(call);
    if (status == 404)
        return write_lease(self, call, NULL, "", 0);
    if (status >= 300) {
        self->direct->leads = false;
        return refused(self, call, "reading the Lease", status, body);
    }
    const char *holder = deep_text(arena, body, "spec", "holderIdentity");
    const char *version = deep_text(arena, body, "metadata", "resourceVersion");
    bytes_t field;
    int64_t transitions = 0;
    if (deep(body, "spec", "leaseTransitions", &field))
        mp_int(field, &transitions);
    if (!strcmp(holder, self->direct->identity))
        return write_lease(self, call, version, deep_text(arena, body, "spec", "acquireTime"),
                           transitions);
    self->direct->leads = false;
    if (holder_is_gone(self, call, body, holder))
        return write_lease(self, call, version, "", transitions + 1);
    return stop_for_now(self, call, arena_printf(arena, "%s leads; this one waits", holder));
}

/* ---- Rivals ---- */

static err_t read_scale(elastic_t *self, call_t *call);

/* Name of the first item whose scaleTargetRef is our StatefulSet. */
static const char *rival_in(const elastic_t *self, call_t *call, bytes_t list)
{
    bytes_t items, item, spec;
    arena_t *arena = call_arena(call);
    if (!mp_get(list, "items", &items))
        return NULL;
    for (uint32_t i = 0; mp_at(items, i, &item); i++) {
        if (!mp_get(item, "spec", &spec))
            continue;
        const char *kind = deep_text(arena, spec, "scaleTargetRef", "kind");
        if (!strcmp(kind, "StatefulSet") &&
            !strcmp(deep_text(arena, spec, "scaleTargetRef", "name"), self->settings->statefulset))
            return deep_text(arena, item, "metadata", "name");
    }
    return NULL;
}

static err_t refuse_rival(elastic_t *self, call_t *call, const char *kind, const char *name)
{
    self->direct->rivals_checked = false;
    return stop_for_now(self, call,
                        arena_printf(call_arena(call),
                                     "the %s %s scales the same StatefulSet %s: nothing is done; "
                                     "delete it, or set elastic.mode=hpa",
                                     kind, name, self->settings->statefulset));
}

static err_t on_scaled_objects(elastic_t *self, call_t *call, int status, bytes_t body)
{
    const char *rival = status < 300 ? rival_in(self, call, body) : NULL;
    if (rival)
        return refuse_rival(self, call, "ScaledObject", rival);
    /* 404: there is no KEDA. 403: what KEDA would make is an HPA, and that was looked at. */
    if (status >= 300 && status != 404 && status != 403)
        return refused(self, call, "listing ScaledObjects", status, body);
    self->direct->rivals_checked = true;
    self->direct->rivals_ms = actor_mono_us(self->actor) / 1000;
    return read_scale(self, call);
}

static err_t on_hpas(elastic_t *self, call_t *call, int status, bytes_t body)
{
    if (status >= 300)
        return refused(self, call, "listing HorizontalPodAutoscalers", status, body);
    const char *rival = rival_in(self, call, body);
    if (rival)
        return refuse_rival(self, call, "HorizontalPodAutoscaler", rival);
    return ask_api(self, call, "listing ScaledObjects", "GET",
                   arena_printf(call_arena(call),
                                "/apis/keda.sh/v1alpha1/namespaces/%s/scaledobjects",
                                self->direct->namespace),
                   (bytes_t){0}, on_scaled_objects);
}

static err_t look_for_rivals(elastic_t *self, call_t *call)
{
    const direct_t *direct = self->direct;
    int64_t now = actor_mono_us(self->actor) / 1000;
    if (direct->rivals_checked && now - direct->rivals_ms < RIVALS_MS)
        return read_scale(self, call);
    return ask_api(self, call, "listing HorizontalPodAutoscalers", "GET",
                   arena_printf(call_arena(call),
                                "/apis/autoscaling/v2/namespaces/%s/horizontalpodautoscalers",
                                direct->namespace),
                   (bytes_t){0}, on_hpas);
}

/* ---- The scale ---- */

static const char *scale_path(const elastic_t *self, call_t *call)
{
    return arena_printf(call_arena(call), "/apis/apps/v1/namespaces/%s/statefulsets/%s/scale",
                        self->direct->namespace, self->settings->statefulset);
}

static bool take_scale(direct_t *direct, call_t *call, bytes_t body)
{
    bytes_t wanted, have;
    if (!deep(body, "spec", "replicas", &wanted)) {
        direct->replicas = 0; /* zero is left out by the API server */
    } else if (!mp_int(wanted, &direct->replicas)) {
        return false;
    }
    if (!deep(body, "status", "replicas", &have) || !mp_int(have, &direct->ready))
        return false;
    snprintf(direct->version, sizeof(direct->version), "%s",
             deep_text(call_arena(call), body, "metadata", "resourceVersion"));
    return *direct->version != '\0';
}

static err_t on_patched(elastic_t *self, call_t *call, int status, bytes_t body)
{
    direct_t *direct = self->direct;
    int64_t from = direct->replicas;
    if (status >= 300)
        return refused(self, call, "changing the scale", status, body);
    if (!take_scale(direct, call, body))
        return stop_for_now(self, call, "changing the scale: this is no Scale object");
    decide_scaled(&self->history, actor_mono_us(self->actor) / 1000, direct->replicas - from);
    elastic_note_change(self, call, from, direct->replicas);
    problem(direct, call, "");
    return again(self, call);
}

/* Slow answers may have used up the Lease since it was written: then it is taken anew first. */
static bool leads_still(const elastic_t *self)
{
    return actor_mono_us(self->actor) / 1000 - self->direct->renewed_ms <
           self->settings->lease_s * 1000 * 2 / 3;
}

static err_t patch_scale(elastic_t *self, call_t *call, int64_t replicas)
{
    buf_t body;
    if (!leads_still(self))
        return again(self, call);
    buf_open(&body, call_arena(call));
    buf_printf(&body, "{\"metadata\":{\"resourceVersion\":");
    json_put_string(&body, self->direct->version, strlen(self->direct->version));
    buf_printf(&body, "},\"spec\":{\"replicas\":%" PRId64 "}}", replicas);
    return ask_api(self, call, "changing the scale", "PATCH", scale_path(self, call),
                   buf_bytes(&body), on_patched);
}

/* ---- Cordon, wait, shrink ---- */

static err_t on_cordoned(void *state, call_t *call, void *reply, const peer_answer_t *got,
                         void *ctx)
{
    elastic_t *self = state;
    int64_t ordinal = self->direct->replicas - 1, leases = -1;
    bytes_t field;
    (void)reply;
    (void)ctx;
    if (err_is(got->err) || !mp_get(got->body, "leases", &field) || !mp_int(field, &leases))
        return stop_for_now(self, call, "the agent does not say what the last replica holds");
    if (self->direct->cordoned != ordinal)
        call_log(call, LOG_INFO, "%s-%" PRId64 " is cordoned; it holds %" PRId64 " leases",
                 self->settings->statefulset, ordinal, leases);
    self->direct->cordoned = ordinal;
    if (leases) {
        problem(self->direct, call, "");
        return again(self, call);
    }
    call_log(call, LOG_INFO, "%s-%" PRId64 " has drained: it holds no lease and gets none",
             self->settings->statefulset, ordinal);
    return patch_scale(self, call, ordinal);
}

/* for_ms 0 lifts it. */
static err_t cordon(elastic_t *self, call_t *call, int64_t ordinal, int64_t for_ms,
                    answer_fn_t *then)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 2);
    mp_put_str(&args, "worker");
    mp_put_str(&args,
               arena_printf(call_arena(call), "%s-%" PRId64, self->settings->statefulset, ordinal));
    mp_put_str(&args, "for_ms");
    mp_put_int(&args, for_ms);
    peer_call_t request = {.peer = "agent",
                           .method = "task_cordon",
                           .args = buf_bytes(&args),
                           .timeout_ms = AGENT_MS,
                           .principal = "elastic",
                           .role = ROLE_ADMIN,
                           .any_company = true};
    call_peer(call, &request, then, NULL);
    return call_park(call);
}

/* What is wanted again, or is gone and may come back, is not cordoned. */
static err_t on_lifted(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    elastic_t *self = state;
    (void)reply;
    (void)ctx;
    if (!err_is(got->err))
        self->direct->cordoned = -1;
    return again(self, call);
}

static err_t on_scale(elastic_t *self, call_t *call, int status, bytes_t body)
{
    direct_t *direct = self->direct;
    if (status >= 300)
        return refused(self, call, "reading the scale", status, body);
    if (!take_scale(direct, call, body))
        return stop_for_now(self, call, "reading the scale: this is no Scale object");
    if (!direct->known)
        problem(direct, call, "");
    direct->known = true;
    *direct->problem = '\0';
    if (direct->ready > direct->replicas) /* the one that was taken away is still there */
        return again(self, call);
    if (direct->cordoned >= direct->replicas)
        return cordon(self, call, direct->cordoned, 0, on_lifted);
    elastic_decide(self, call, direct->replicas);
    int64_t desired = self->last.desired;
    if (desired < direct->replicas)
        return cordon(self, call, direct->replicas - 1, CORDON_MS, on_cordoned);
    if (direct->cordoned >= 0)
        return cordon(self, call, direct->cordoned, 0, on_lifted);
    return desired > direct->replicas ? patch_scale(self, call, desired) : again(self, call);
}

static err_t read_scale(elastic_t *self, call_t *call)
{
    return ask_api(self, call, "reading the scale", "GET", scale_path(self, call), (bytes_t){0},
                   on_scale);
}

/* ---- Life ---- */

static err_t tick(void *state, call_t *call, void *ctx)
{
    elastic_t *self = state;
    (void)ctx;
    if (actor_draining(self->actor))
        return err_ok();
    return ask_api(self, call, "reading the Lease", "GET", lease_path(self, call, true),
                   (bytes_t){0}, on_lease_read);
}

static err_t again(elastic_t *self, call_t *call)
{
    int64_t pause = self->settings->api_poll_ms, asked = self->direct->pause_ms;
    call_work(call, asked > pause ? (asked < PAUSE_MS ? asked : PAUSE_MS) : pause, tick, NULL);
    return err_ok();
}

static char *copy(const char *text)
{
    char *out = strdup(text);
    if (!out)
        abort();
    return out;
}

static const char *find_namespace(const elastic_settings_t *settings, arena_t *arena)
{
    if (settings->namespace)
        return settings->namespace;
    return read_token(settings->namespace_file, arena);
}

err_t direct_open(elastic_t *elastic, call_t *call)
{
    const elastic_settings_t *settings = elastic->settings;
    arena_t *arena = call_arena(call);
    const char *namespace = find_namespace(settings, arena);
    if (!settings->statefulset)
        return err_of(ERR_ARGUMENT, "mode direct needs elastic.statefulset");
    if (!namespace)
        return err_make(arena, ERR_ARGUMENT, "mode direct needs elastic.namespace, or the file %s",
                        settings->namespace_file);
    direct_t *direct = elastic->direct = calloc(1, sizeof(*direct));
    if (!direct)
        abort();
    direct->cordoned = -1;
    direct->url = copy(settings->api_url ? settings->api_url : "https://kubernetes.default.svc");
    direct->namespace = copy(namespace);
    direct->identity =
        copy(settings->identity ? settings->identity : call_new_id(call, "elastic_"));
    direct->lease = copy(arena_printf(arena, "%s-elastic", settings->statefulset));
    call_work(call, 0, tick, NULL);
    return err_ok();
}

void direct_destroy(direct_t **handle)
{
    direct_t *direct = *handle;
    if (!direct)
        return;
    free(direct->url);
    free(direct->namespace);
    free(direct->identity);
    free(direct->lease);
    free(direct->lease_seen);
    free(direct);
    *handle = NULL;
}

int64_t direct_count(const direct_t *direct)
{
    return direct->replicas;
}

bool direct_leads(const direct_t *direct)
{
    return direct->leads;
}

const char *direct_problem(const direct_t *direct)
{
    return *direct->problem ? direct->problem : NULL;
}
