/* pair: a wire over HTTP+SSE, the transport of 2024-11-05. One GET stays open: its first event
 * names the endpoint, all others are messages. What we say goes to the endpoint by POST, which is
 * only accepted; the answer comes on the stream. A stream that ends is the end of the wire. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "actors/outside/answer.h"
#include "actors/outside/wire.h"
#include "bus/http_client.h"

enum { HEADERS_MOST = 64, ENDPOINT_LONGEST = 4096 };

typedef struct pair pair_t;

/* One message on its way, or waiting for the endpoint. */
typedef struct sent {
    struct sent *next;
    pair_t *pair;
    int64_t id, timeout_ms;
    http_transfer_t *transfer; /* NULL: it waits */
    char *json;
    size_t size;
} sent_t;

struct pair {
    wire_t wire; /* first */
    wire_owner_t owner;
    wire_limits_t limits;
    http_client_t *client;
    const config_server_t *config;
    http_transfer_t *stream;
    events_t *events;
    char *endpoint; /* NULL: not named yet */
    sent_t *sent;   /* in the order of sending */
    size_t waiting_bytes;
    bool over;
};

static void end(pair_t *pair, const char *why)
{
    if (pair->over)
        return;
    pair->over = true;
    pair->owner.on_end(pair->owner.ctx, why);
}

/* ---- The endpoint ---- */

static char *joined(const char *base, size_t size, const char *text)
{
    size_t rest = strlen(text) + 1;
    char *url = malloc(size + rest);
    if (!url)
        abort();
    memcpy(url, base, size);
    memcpy(url + size, text, rest);
    return url;
}

char *pair_endpoint(const char *url, const char *text)
{
    const char *host = strstr(url, "://");
    if (!host || !*text || strlen(text) > ENDPOINT_LONGEST)
        return NULL;
    for (const char *at = text; *at; at++)
        if (*at <= 0x20 || *at > 0x7e)
            return NULL;
    size_t origin = (size_t)(host + 3 - url) + strcspn(host + 3, "/?#");
    if (strstr(text, "://") && strcspn(text, ":") < strcspn(text, "/?#")) {
        bool own = !strncmp(url, text, origin) && strchr("/?#", text[origin]);
        return own ? joined(text, strlen(text), "") : NULL;
    }
    if (*text == '/')
        return text[1] == '/' ? NULL : joined(url, origin, text);
    size_t path = origin + strcspn(url + origin, "?#");
    while (path > origin && url[path - 1] != '/')
        path--;
    return path > origin ? joined(url, path, text) : NULL;
}

/* ---- What goes ---- */

static void sent_free(sent_t *sent)
{
    sent_t **at = &sent->pair->sent;
    while (*at != sent)
        at = &(*at)->next;
    *at = sent->next;
    if (sent->transfer)
        http_cancel(sent->transfer);
    else
        sent->pair->waiting_bytes -= sent->size;
    free(sent->json);
    free(sent);
}

static size_t put_headers(const pair_t *pair, const char **all, size_t count)
{
    all[count++] = "User-Agent: agency/" AGENCY_VERSION;
    for (const char *const *at = pair->config->headers; at && *at && count < HEADERS_MOST; at++)
        all[count++] = *at;
    return count;
}

static void on_sent(void *ctx, const http_call_outcome_t *outcome)
{
    sent_t *sent = ctx;
    pair_t *pair = sent->pair;
    int64_t id = sent->id;
    int status = outcome->status;
    bool failed = err_is(outcome->err), left = http_sent(sent->transfer);
    char why[256];
    snprintf(why, sizeof(why), "%s", failed ? err_what(outcome->err) : "");
    if (!failed)
        snprintf(why, sizeof(why), "the server answered with status %d", status);
    sent->transfer = NULL; /* ends with this call */
    pair->waiting_bytes += sent->size;
    sent_free(sent);
    if (!failed && status >= 200 && status < 300)
        return;
    if (id >= 0)
        pair->owner.on_loss(pair->owner.ctx, id,
                            failed ? (left ? LOSS_UNKNOWN : LOSS_UNSENT)
                            : status == 404 || status == 429 || status == 503 ? LOSS_UNSENT
                            : status >= 500                                   ? LOSS_UNKNOWN
                                                                              : LOSS_REFUSED,
                            why);
    if (!failed && status == 404)
        end(pair, "the server has forgotten the session");
}

static void post(sent_t *sent)
{
    pair_t *pair = sent->pair;
    const char *all[HEADERS_MOST + 8] = {"Content-Type: application/json",
                                         "Accept: application/json, text/event-stream"};
    put_headers(pair, all, 2);
    http_call_request_t request = {.method = "POST",
                                   .url = pair->endpoint,
                                   .headers = all,
                                   .body = {(const uint8_t *)sent->json, sent->size},
                                   .timeout_ms = sent->timeout_ms,
                                   .response_limit = pair->limits.message_bytes + 65536,
                                   .once = true};
    pair->waiting_bytes -= sent->size;
    sent->transfer = http_start(pair->client, &request, on_sent, sent);
}

static bool pair_send(wire_t *wire, const wire_message_t *message)
{
    pair_t *pair = (pair_t *)wire;
    if (pair->over || pair->waiting_bytes + message->json.size > (size_t)pair->limits.queue_bytes)
        return false;
    sent_t *sent = calloc(1, sizeof(*sent)), **at = &pair->sent;
    if (!sent || !(sent->json = malloc(message->json.size + 1)))
        abort();
    memcpy(sent->json, message->json.data, message->json.size);
    sent->pair = pair;
    sent->id = message->id;
    sent->size = message->json.size;
    sent->timeout_ms = message->timeout_ms;
    while (*at)
        at = &(*at)->next;
    *at = sent;
    pair->waiting_bytes += sent->size;
    if (pair->endpoint)
        post(sent);
    return true;
}

/* ---- What comes ---- */

static void on_event(void *ctx, const event_seen_t *event)
{
    pair_t *pair = ctx;
    if (pair->over || !event->data || !event->size)
        return;
    if (pair->endpoint) {
        pair->owner.on_message(pair->owner.ctx, event->data, event->size);
        return;
    }
    pair->endpoint = pair_endpoint(pair->config->url, event->data);
    if (!pair->endpoint) {
        end(pair, "its first event names no endpoint at its own address");
        return;
    }
    for (sent_t *at = pair->sent; at; at = at->next)
        if (!at->transfer)
            post(at);
}

static void on_part(void *ctx, bytes_t part)
{
    pair_t *pair = ctx;
    const char *type = http_header_of(pair->stream, "Content-Type");
    if (pair->over || http_status_of(pair->stream) != 200)
        return;
    if (!type || strncasecmp(type, "text/event-stream", 17) != 0)
        end(pair, "its url answers with something that is no stream of events");
    else if (!events_feed(pair->events, part, on_event, pair))
        end(pair, "it sent a message larger than outside.message_bytes");
}

static void on_stream_done(void *ctx, const http_call_outcome_t *outcome)
{
    pair_t *pair = ctx;
    char why[160];
    pair->stream = NULL; /* ends with this call */
    snprintf(why, sizeof(why),
             outcome->status == 401
                 ? "the server wants to know who we are (status %d): look at its headers in "
                   "mcp.json"
                 : "the server answered with status %d",
             outcome->status);
    end(pair, err_is(outcome->err)     ? err_what(outcome->err)
              : outcome->status == 200 ? "its stream ended"
                                       : why);
}

/* ---- Life ---- */

static void pair_forget(wire_t *wire, int64_t id)
{
    for (sent_t *at = ((pair_t *)wire)->sent; at; at = at->next)
        if (at->id == id && id >= 0) {
            sent_free(at);
            return;
        }
}

static void pair_listen(wire_t *wire, const char *version)
{
    (void)wire; /* the stream is open */
    (void)version;
}

static int64_t pair_tend(wire_t *wire, int64_t now_us)
{
    (void)wire;
    (void)now_us;
    return INT64_MAX;
}

static void pair_close(wire_t **handle)
{
    pair_t *pair = (pair_t *)*handle;
    *handle = NULL;
    while (pair->sent)
        sent_free(pair->sent);
    if (pair->stream)
        http_cancel(pair->stream);
    events_destroy(&pair->events);
    free(pair->endpoint);
    free(pair);
}

wire_t *pair_open(http_client_t *client, const config_server_t *config, const wire_limits_t *limits,
                  const wire_owner_t *owner)
{
    static const wire_ops_t ops = {.send = pair_send,
                                   .forget = pair_forget,
                                   .listen = pair_listen,
                                   .tend = pair_tend,
                                   .close = pair_close};
    pair_t *pair = calloc(1, sizeof(*pair));
    if (!pair)
        abort();
    *pair = (pair_t){.wire = {&ops},
                     .owner = *owner,
                     .limits = *limits,
                     .client = client,
                     .config = config,
                     .events = events_new((size_t)limits->message_bytes)};
    const char *all[HEADERS_MOST + 8] = {"Accept: text/event-stream"};
    put_headers(pair, all, 1);
    http_call_request_t request = {.method = "GET",
                                   .url = config->url,
                                   .headers = all,
                                   .response_limit = limits->message_bytes + 65536,
                                   .once = true};
    pair->stream = http_start_parts(client, &request, on_part, on_stream_done, pair);
    return &pair->wire;
}
