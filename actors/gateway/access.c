/* access: who may come in: Host and Origin, bearer tokens of a file or of an authorisation server,
 * preflights of browsers. */
#include "actors/gateway/parts.h"

#include <string.h>
#include <strings.h>

#include "actors/gateway/headers.h"
#include "proto/json.h"

#define METADATA_ROOT "/.well-known/oauth-protected-resource"

static bool listed(const strs_t *list, const char *value)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcasecmp(list->items[i], value))
            return true;
    return false;
}

static bool host_is_known(const gateway_t *self, const char *host)
{
    return listed(&self->settings->allowed_hosts, host) || headers_host_is_loopback(host) ||
           headers_host_is(host, self->settings->bind);
}

static bool host_allowed(const gateway_t *self, http_request_t *request)
{
    const char *host = http_header(request, "Host");
    return !host || self->settings->behind_proxy || host_is_known(self, host);
}

/* The dashboard's own calls. A name that somebody made point here (DNS rebinding) is the same
 * origin as well, but it is no known host and has no token. */
static bool is_own_page(const gateway_t *self, http_request_t *request, const char *origin)
{
    const char *host = http_header(request, "Host"), *at = strstr(origin, "://");
    bool http = at && (!strncasecmp(origin, "http:", 5) || !strncasecmp(origin, "https:", 6));
    return host && http && !strcasecmp(at + 3, host) &&
           (host_is_known(self, host) || self->tokens || self->jwt);
}

static bool origin_allowed(const gateway_t *self, http_request_t *request)
{
    const char *origin = http_header(request, "Origin");
    return !origin || listed(&self->settings->allowed_origins, origin) ||
           headers_origin_is_loopback(origin) || is_own_page(self, request, origin);
}

bool access_check(const gateway_t *self, http_request_t *request)
{
    if (!origin_allowed(self, request)) {
        gateway_reply_error(request, 403, MCP_LEGACY_TRANSPORT,
                            "this Origin is not allowed: add it to gateway.allowed_origins");
        return false;
    }
    if (!host_allowed(self, request)) {
        gateway_reply_error(
            request, 403, MCP_LEGACY_TRANSPORT,
            "this Host is not allowed: add it to gateway.allowed_hosts, or start with "
            "--behind-proxy");
        return false;
    }
    if (http_too_large(request)) {
        gateway_reply_error(request, 413, MCP_LEGACY_TRANSPORT,
                            "the body is larger than gateway.max_body allows");
        return false;
    }
    const char *origin = http_header(request, "Origin");
    if (origin) {
        http_set_header(request, "Access-Control-Allow-Origin", origin);
        http_set_header(request, "Access-Control-Expose-Headers",
                        "Mcp-Session-Id, WWW-Authenticate");
        http_set_header(request, "Vary", "Origin");
    }
    return true;
}

/* ---- Tokens ---- */

/* The path of the URL that users type, such as /mcp: it may lie below another one at a proxy. */
static const char *path_of(const char *url)
{
    const char *host = strstr(url, "://"), *path = host ? strchr(host + 3, '/') : NULL;
    return path && path[1] ? path : "";
}

/* RFC 6750 §3, RFC 9728 §3.1 and §5.1. */
static void challenge(gateway_t *self, http_request_t *request, const char *error,
                      const char *scopes)
{
    arena_t *arena = http_arena(request);
    const char *what = error ? arena_printf(arena, "error=\"%s\"", error) : "";
    if (!self->jwt) {
        http_set_header(request, "WWW-Authenticate",
                        error ? arena_printf(arena, "Bearer %s", what) : "Bearer");
        return;
    }
    const char *resource = self->settings->oauth_audience, *host = strstr(resource, "://");
    size_t origin = host ? (size_t)(host + 3 - resource) + strcspn(host + 3, "/") : 0;
    http_set_header(
        request, "WWW-Authenticate",
        arena_printf(arena,
                     "Bearer resource_metadata=\"%.*s" METADATA_ROOT "%s\", scope=\"%s\"%s%s",
                     (int)origin, resource, path_of(resource), scopes, *what ? ", " : "", what));
}

mcp_refusal_t access_too_small(exchange_t *exchange, const mcp_message_t *message, role_t role)
{
    static const char *const scopes[] = {"agency:read", "agency:read agency:operate",
                                         "agency:read agency:operate agency:admin"};
    gateway_t *self = exchange->gateway;
    const principal_t *who = &exchange->principal;
    if (who->digest || who->role >= role || !exchange->request)
        return (mcp_refusal_t){0};
    challenge(self, exchange->request, "insufficient_scope", scopes[role]);
    return mcp_refuse(message, 403, MCP_LEGACY_TRANSPORT,
                      arena_printf(exchange->arena,
                                   "this needs a token with the scope %s: this one is for the role "
                                   "%s",
                                   strrchr(scopes[role], ' ') + 1, role_names[who->role]));
}

static const principal_t *refuse_token(gateway_t *self, http_request_t *request, int status,
                                       const char *error, const char *why)
{
    challenge(self, request, error, "agency:read agency:operate");
    gateway_reply_error(request, status, MCP_LEGACY_TRANSPORT, why);
    return NULL;
}

const principal_t *access_who(gateway_t *self, http_request_t *request)
{
    static const principal_t local = {.name = "local", .role = ROLE_ADMIN, .any_company = true};
    if (!self->tokens && !self->jwt)
        return &local;
    const char *token = headers_bearer(http_header(request, "Authorization")), *why;
    if (!token)
        return refuse_token(self, request, 401, NULL, "a bearer token is needed");
    const principal_t *found = self->tokens ? tokens_find(self->tokens, token) : NULL;
    if (found)
        return found;
    if (!self->jwt)
        return refuse_token(self, request, 401, "invalid_token", "the bearer token is not known");
    principal_t *bearer = ARENA_NEW(http_arena(request), principal_t);
    switch (jwt_check(self->jwt, http_arena(request), token, actor_wall_ms(self->actor), bearer,
                      &why)) {
    case JWT_FINE:
        return bearer;
    case JWT_NO_KEY:
        if (jwks_wait(self, request))
            return NULL;
        return refuse_token(self, request, 401, "invalid_token", why);
    case JWT_NO_SCOPE:
        return refuse_token(self, request, 403, "insufficient_scope", why);
    default:
        return refuse_token(self, request, 401, "invalid_token", why);
    }
}

/* ---- What anybody may read ---- */

/* Of the root, of the URL that users type, and of our own endpoints: clients differ in where they
 * look, and a proxy may have taken the first part of the path away. */
static bool is_resource(const gateway_t *self, const char *path)
{
    return !*path || !strcmp(path, path_of(self->settings->oauth_audience)) ||
           !strcmp(path, "/mcp") || !strncmp(path, "/mcp/", 5) || !strcmp(path, "/sse");
}

/* Protected resource metadata, RFC 9728. */
bool access_metadata(gateway_t *self, http_request_t *request, const char *path)
{
    size_t root = strlen(METADATA_ROOT);
    if (!self->jwt || strncmp(path, METADATA_ROOT, root) != 0 || !is_resource(self, path + root))
        return false;
    buf_t out;
    const gateway_settings_t *settings = self->settings;
    buf_open(&out, http_arena(request));
    buf_puts(&out, "{\"resource\":");
    json_put_string(&out, settings->oauth_audience, strlen(settings->oauth_audience));
    buf_puts(&out, ",\"authorization_servers\":[");
    json_put_string(&out, settings->oauth_issuer, strlen(settings->oauth_issuer));
    buf_puts(&out, "],\"bearer_methods_supported\":[\"header\"],\"scopes_supported\":["
                   "\"agency:read\",\"agency:operate\",\"agency:admin\"]}");
    gateway_reply_json(request, 200, out.data);
    return true;
}

/* The Origin is one of ours, so its pages may send what they ask for: Mcp-Param-… has no end. */
void access_preflight(http_request_t *request)
{
    const char *wanted = http_header(request, "Access-Control-Request-Headers");
    http_set_header(request, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
    http_set_header(request, "Access-Control-Allow-Headers",
                    wanted ? wanted
                           : "Content-Type, Accept, Authorization, MCP-Protocol-Version, "
                             "Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID, traceparent");
    http_set_header(request, "Access-Control-Max-Age", "600");
    http_reply(request, 204, NULL, (bytes_t){0});
}

/* ---- Opening ---- */

static bool is_loopback(const char *address)
{
    return !strncmp(address, "127.", 4) || !strcmp(address, "::1") || !strcmp(address, "localhost");
}

static err_t open_jwt(gateway_t *self, arena_t *arena)
{
    const gateway_settings_t *settings = self->settings;
    if (!settings->oauth_keys && !settings->oauth_issuer && !settings->oauth_audience)
        return err_ok();
    if (!settings->oauth_issuer || !settings->oauth_audience)
        return err_make(arena, ERR_ARGUMENT,
                        "gateway.oauth_issuer and oauth_audience go together: one of them is "
                        "missing");
    err_t err = jwks_check_settings(settings, arena);
    if (err_is(err))
        return err;
    const char *keys = settings->oauth_keys;
    return jwt_open(keys && !jwks_is_url(keys) ? keys : NULL, settings->oauth_issuer,
                    settings->oauth_audience, arena, &self->jwt);
}

err_t access_open(gateway_t *self, arena_t *arena)
{
    const gateway_settings_t *settings = self->settings;
    err_t err = open_jwt(self, arena);
    if (!err_is(err) && settings->tokens)
        err = tokens_open(settings->tokens, gateway_all_pillars, gateway_all_pillar_count, arena,
                          &self->tokens);
    if (err_is(err) || self->tokens || self->jwt || is_loopback(settings->bind) ||
        settings->behind_proxy)
        return err;
    return err_make(arena, ERR_ARGUMENT,
                    "%s reaches beyond this machine: give a file of tokens (--tokens), or "
                    "--behind-proxy when a proxy in front checks who comes in",
                    settings->bind);
}
