/* jwks: the keys of the authorisation server, fetched from where it publishes them. In the
 * background: at the start, from time to time, and when a token names a key that is not known, yet
 * never more often than oauth_unknown_ms says. What was fetched stays when a fetch fails. Requests
 * whose token needs a fetch that is under way wait for it. */
#include "actors/gateway/parts.h"

#include <string.h>
#include <strings.h>

#include "proto/json.h"
#include "proto/mp.h"

enum {
    AGAIN_MS = 2000, /* after one that failed; doubles */
    AGAIN_MOST_MS = 60000,
    BYTES_MOST = 1 << 20
};

/* A request that is looked at again when the keys are there. */
struct key_waiter {
    visitor_t visitor; /* first */
    key_waiter_t *next;
    http_request_t *request;
};

/* ---- Where ---- */

static bool loopback(const char *host)
{
    size_t size = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
    if (memchr(host, '@', strcspn(host, "/?#"))) /* "localhost:x@elsewhere" */
        return false;
    return (size == 9 && !strncasecmp(host, "localhost", 9)) ||
           (size == 9 && !strncmp(host, "127.0.0.1", 9)) ||
           (size == 5 && !strncmp(host, "[::1]", 5));
}

bool jwks_is_url(const char *text)
{
    return !strncmp(text, "https://", 8) || !strncmp(text, "http://", 7);
}

/* Keys that came in clear could be anybody's. */
static bool trustworthy(const char *url)
{
    return !strncmp(url, "https://", 8) ? url[8] && url[8] != '/'
                                        : !strncmp(url, "http://", 7) && loopback(url + 7);
}

err_t jwks_check_settings(const gateway_settings_t *settings, arena_t *arena)
{
    const char *url = settings->oauth_keys ? settings->oauth_keys : settings->oauth_issuer;
    if (settings->oauth_keys && !jwks_is_url(url))
        return err_ok();
    if (strlen(url) < 1000 && trustworthy(url))
        return err_ok();
    return err_make(arena, ERR_ARGUMENT,
                    "gateway.%s: keys are fetched by https only, or by http from this machine; "
                    "'%.120s' is neither (a file of keys may be given as gateway.oauth_keys)",
                    settings->oauth_keys ? "oauth_keys" : "oauth_issuer", url);
}

/* Without oauth_keys the issuer's metadata say where the keys are. RFC 8414 §3 puts its path
 * between host and the path of the issuer, OpenID Connect behind it. */
static const char *metadata_url(const gateway_t *self, arena_t *arena)
{
    const char *issuer = self->settings->oauth_issuer;
    size_t host = (size_t)(strstr(issuer, "://") - issuer) + 3;
    host += strcspn(issuer + host, "/");
    size_t size = strlen(issuer);
    while (size > host && issuer[size - 1] == '/')
        size--;
    if (self->keys.openid)
        return arena_printf(arena, "%.*s/.well-known/openid-configuration", (int)size, issuer);
    return arena_printf(arena, "%.*s/.well-known/oauth-authorization-server%.*s", (int)host, issuer,
                        (int)(size - host), issuer + host);
}

/* ---- Fetching ---- */

static err_t fetch(void *state, call_t *call, void *ctx);

static void wake_waiters(gateway_t *self)
{
    key_waiter_t *list = self->keys.waiters;
    self->keys.waiters = NULL;
    self->keys.waiting = 0;
    while (list) {
        http_request_t *request = list->request;
        list = list->next; /* in the arena of the request */
        http_set_user(request, NULL);
        gateway_on_request(self, request);
    }
    gateway_flush_soon(self);
}

/* The next regular fetch follows this one: those planned before are not needed any more. Who waited
 * must not wait for another one at once, however long this one took. */
static void over(gateway_t *self, call_t *call, int64_t next_ms)
{
    self->keys.fetching = false;
    self->keys.fetched_us = actor_mono_us(self->actor);
    self->keys.generation++;
    call_work(call, next_ms, fetch, (void *)self->keys.generation);
    wake_waiters(self);
}

static err_t failed(gateway_t *self, call_t *call, const char *why)
{
    int64_t pause = AGAIN_MS << (self->keys.failures < 5 ? self->keys.failures : 5);
    if (self->keys.failures++ == 0)
        call_log(call, LOG_WARN, "the keys of %s cannot be fetched: %s",
                 self->settings->oauth_issuer, why);
    self->keys.openid = !self->keys.openid; /* the other place, next time */
    over(self, call, pause < AGAIN_MOST_MS ? pause : AGAIN_MOST_MS);
    return err_ok();
}

static const char *problem(call_t *call, const http_call_outcome_t *outcome)
{
    if (err_is(outcome->err))
        return err_what(outcome->err);
    if (outcome->status != 200)
        return arena_printf(call_arena(call), "the answer is HTTP %d", outcome->status);
    return NULL;
}

static err_t on_keys(void *state, call_t *call, void *reply, const http_call_outcome_t *outcome,
                     void *ctx)
{
    gateway_t *self = state;
    const char *wrong = problem(call, outcome);
    (void)reply;
    (void)ctx;
    if (!wrong && !jwt_take_keys(self->jwt, outcome->body))
        wrong = "the answer is no set of keys: {\"keys\":[...]} is wanted";
    if (wrong)
        return failed(self, call, wrong);
    if (self->keys.failures)
        call_log(call, LOG_INFO, "the keys of %s are there", self->settings->oauth_issuer);
    self->keys.failures = 0;
    over(self, call, self->settings->oauth_refresh_s * 1000);
    return err_ok();
}

static err_t get(gateway_t *self, call_t *call, const char *url, http_fn_t *fn)
{
    static const char *const headers[] = {"Accept: application/json", NULL};
    http_call_request_t request = {.method = "GET",
                                   .url = url,
                                   .headers = headers,
                                   .ca_file = self->settings->oauth_ca_file,
                                   .timeout_ms = self->settings->oauth_fetch_ms,
                                   .response_limit = BYTES_MOST};
    call_http(call, &request, fn, NULL);
    return call_park(call);
}

static err_t on_metadata(void *state, call_t *call, void *reply, const http_call_outcome_t *outcome,
                         void *ctx)
{
    gateway_t *self = state;
    bytes_t value;
    const char *wrong = problem(call, outcome);
    (void)reply;
    (void)ctx;
    if (wrong)
        return failed(self, call, wrong);
    if (err_is(json_to_msgpack(call_arena(call), (const char *)outcome->body.data,
                               outcome->body.size, NULL, &value)))
        return failed(self, call, "its metadata are no JSON");
    if (!mp_equals(mp_member(value, "issuer"), self->settings->oauth_issuer))
        return failed(self, call, "its metadata name another issuer");
    const char *url = mp_member_text(call_arena(call), value, "jwks_uri");
    if (!url || strlen(url) > 1000 || !trustworthy(url))
        return failed(self, call, "its metadata name no jwks_uri by https");
    return get(self, call, url, on_keys);
}

/* `ctx`: the generation that a regular fetch follows; an older one is not needed any more. */
static err_t fetch(void *state, call_t *call, void *ctx)
{
    gateway_t *self = state;
    if (self->keys.fetching || (ctx && (uintptr_t)ctx != self->keys.generation))
        return err_ok();
    self->keys.fetching = true;
    self->keys.fetched_us = actor_mono_us(self->actor);
    if (self->settings->oauth_keys)
        return get(self, call, self->settings->oauth_keys, on_keys);
    return get(self, call, metadata_url(self, call_arena(call)), on_metadata);
}

void jwks_start(gateway_t *self, call_t *call)
{
    const char *keys = self->settings->oauth_keys;
    self->keys.remote = self->jwt && (!keys || jwks_is_url(keys));
    if (self->keys.remote)
        call_work(call, 0, fetch, NULL);
}

/* ---- A token names a key that is not known ---- */

bool jwks_wait(gateway_t *self, http_request_t *request)
{
    if (!self->keys.remote || self->keys.waiting >= self->settings->oauth_max_waiting)
        return false;
    bool soon = self->keys.fetched_us && actor_mono_us(self->actor) - self->keys.fetched_us <
                                             self->settings->oauth_unknown_ms * 1000;
    if (!self->keys.fetching && soon)
        return false;
    key_waiter_t *waiter = ARENA_NEW(http_arena(request), key_waiter_t);
    *waiter =
        (key_waiter_t){.visitor = VISITOR_KEYS, .next = self->keys.waiters, .request = request};
    self->keys.waiters = waiter;
    self->keys.waiting++;
    http_set_user(request, waiter);
    if (!self->keys.fetching)
        actor_work(self->actor, 0, fetch, NULL);
    return true;
}

void jwks_gone(gateway_t *self, key_waiter_t *waiter)
{
    for (key_waiter_t **at = &self->keys.waiters; *at; at = &(*at)->next)
        if (*at == waiter) {
            *at = waiter->next;
            self->keys.waiting--;
            return;
        }
}
