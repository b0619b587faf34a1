/* web: a foreign server over Streamable HTTP. Each message is a POST of its own; its answer is JSON
 * or a stream of events. A stream that ends before the answer is taken up again with GET where the
 * server gave its events ids (2025-11-25). In the legacy era a GET stream brings what the server
 * says unasked, and a session id goes with everything. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "actors/outside/answer.h"
#include "actors/outside/wire.h"
#include "bus/http_client.h"
#include "proto/mp.h"

enum {
    SESSION_LONGEST = 1024,
    RESUME_MS = 1000,
    RESUME_LONGEST_MS = 60000,
    RESUMES_MOST = 100,
    HEADERS_MOST = 64
};

typedef struct web web_t;

/* One POST under way, or the GET stream. */
typedef struct post {
    struct post *next;
    web_t *web;
    int64_t id;                /* -1: nobody waits */
    http_transfer_t *transfer; /* NULL: it waits to be taken up again */
    bool listening;            /* the GET stream */
    bool started, streams;     /* the answer has begun; as events */
    bool answered;
    events_t *events;
    char last_id[1024];
    char *body;
    size_t size;
    int64_t due_us;   /* of taking up */
    int64_t end_us;   /* INT64_MAX: none */
    int64_t retry_ms; /* as the server says */
    int resumes;
} post_t;

struct web {
    wire_t wire; /* first */
    wire_owner_t owner;
    wire_limits_t limits;
    http_client_t *client;
    const config_server_t *config;
    post_t *posts;
    char session[SESSION_LONGEST];
    char version[32];
    bool session_lost;
};

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void post_free(post_t *post)
{
    post_t **at = &post->web->posts;
    while (*at != post)
        at = &(*at)->next;
    *at = post->next;
    if (post->transfer)
        http_cancel(post->transfer);
    events_destroy(&post->events);
    free(post->body);
    free(post);
}

static post_t *post_new(web_t *web, int64_t id)
{
    post_t *post = calloc(1, sizeof(*post));
    if (!post)
        abort();
    *post = (post_t){
        .next = web->posts, .web = web, .id = id, .end_us = INT64_MAX, .retry_ms = RESUME_MS};
    web->posts = post;
    return post;
}

/* ---- What comes ---- */

/* Does this message answer the request of the post? Only looked for, not parsed: who is wrong here
 * merely takes a stream up once more. */
static void note_answer(post_t *post, const char *json)
{
    if (strstr(json, "\"result\"") || strstr(json, "\"error\""))
        post->answered = true;
}

static void on_event(void *ctx, const event_seen_t *event)
{
    post_t *post = ctx;
    snprintf(post->last_id, sizeof(post->last_id), "%s", event->id);
    if (event->retry_ms >= 0)
        post->retry_ms = event->retry_ms;
    if (!event->data || !event->size)
        return;
    if (post->listening)
        post->resumes = 0;
    note_answer(post, event->data);
    post->web->owner.on_message(post->web->owner.ctx, event->data, event->size);
}

static bool keep_body(post_t *post, bytes_t part)
{
    if (part.size > (size_t)post->web->limits.message_bytes - post->size)
        return false;
    post->body = realloc(post->body, post->size + part.size + 1);
    if (!post->body)
        abort();
    memcpy(post->body + post->size, part.data, part.size);
    post->size += part.size;
    post->body[post->size] = '\0';
    return true;
}

static void take_session(web_t *web, const http_transfer_t *transfer)
{
    const char *id = http_header_of(transfer, "Mcp-Session-Id");
    if (!id || *web->session || strlen(id) >= sizeof(web->session))
        return;
    for (const char *at = id; *at; at++)
        if (*at < 0x21 || *at > 0x7e)
            return;
    snprintf(web->session, sizeof(web->session), "%s", id);
}

static void begin_answer(post_t *post)
{
    const char *type = http_header_of(post->transfer, "Content-Type");
    post->started = true;
    post->streams = http_status_of(post->transfer) == 200 && type &&
                    !strncasecmp(type, "text/event-stream", 17);
    if (post->streams && !post->events)
        post->events = events_new((size_t)post->web->limits.message_bytes);
    if (!post->listening)
        take_session(post->web, post->transfer);
}

static void on_part(void *ctx, bytes_t part)
{
    post_t *post = ctx;
    if (!post->started)
        begin_answer(post);
    bool fine =
        post->streams ? events_feed(post->events, part, on_event, post) : keep_body(post, part);
    if (fine)
        return;
    int64_t id = post->id;
    web_t *web = post->web;
    post_free(post);
    if (id >= 0)
        web->owner.on_loss(web->owner.ctx, id, LOSS_UNKNOWN,
                           "its answer is larger than outside.message_bytes");
}

/* ---- Ends ---- */

static void lose(post_t *post, wire_loss_t loss, const char *why)
{
    int64_t id = post->id;
    web_t *web = post->web;
    char copy[512];
    snprintf(copy, sizeof(copy), "%s", why);
    for (size_t size = strlen(copy); size && !mp_utf8(copy, size);)
        copy[--size] = '\0';
    post_free(post);
    if (id >= 0)
        web->owner.on_loss(web->owner.ctx, id, loss, copy);
}

/* The stream ended early: it is taken up again where it was, if that is possible. */
static bool take_up_later(post_t *post)
{
    int64_t wait = post->retry_ms;
    if (post->listening) {
        wait = wait < RESUME_MS ? RESUME_MS : wait;
        for (int i = 0; i < post->resumes && wait < RESUME_LONGEST_MS; i++)
            wait *= 2;
    } else if (!*post->last_id || post->answered || post->resumes >= RESUMES_MOST) {
        return false;
    }
    if (wait > RESUME_LONGEST_MS)
        wait = RESUME_LONGEST_MS;
    post->resumes++;
    post->due_us = now_us() + wait * 1000;
    return post->due_us < post->end_us;
}

static void finish_status(post_t *post, int status)
{
    web_t *web = post->web;
    char why[200];
    snprintf(why, sizeof(why), "the server answered with status %d%s", status,
             status != 404 && status != 405 ? ""
                                            : "; one that only speaks the older HTTP+SSE needs "
                                              "\"type\": \"sse\" in mcp.json");
    if (post->listening) { /* 405: it has none, which is fine */
        post_free(post);
    } else if (post->resumes) {
        lose(post, LOSS_UNKNOWN, "its stream ended before the answer and cannot be taken up again");
    } else if (status == 404 && *web->session) {
        lose(post, LOSS_SESSION, "the server has forgotten the session");
    } else if (status == 401 || status == 403) {
        lose(post, LOSS_REFUSED,
             status == 401
                 ? "the server wants to know who we are (status 401): look at its headers "
                   "in mcp.json"
                 : "the server does not let us in (status 403)");
    } else if (post->id >= 0 && post->size && strstr(post->body, "\"jsonrpc\"")) {
        char *body = post->body; /* an error in its own words */
        size_t size = post->size;
        int64_t id = post->id;
        post->body = NULL;
        post_free(post);
        web->owner.on_message(web->owner.ctx, body, size);
        free(body);
        /* When that was not the answer, this is; otherwise nobody waits any more. */
        web->owner.on_loss(web->owner.ctx, id, LOSS_REFUSED, why);
    } else if (status == 429 || status == 503) {
        lose(post, LOSS_UNSENT, why);
    } else {
        lose(post, status >= 500 ? LOSS_UNKNOWN : LOSS_REFUSED, why);
    }
}

static void finish_good(post_t *post)
{
    web_t *web = post->web;
    if (post->streams) {
        if (take_up_later(post))
            return;
        lose(post, LOSS_UNKNOWN, "its stream ended before the answer");
        return;
    }
    char *body = post->body;
    size_t size = post->size;
    int64_t id = post->id;
    post->body = NULL;
    post_free(post);
    if (size && id >= 0)
        web->owner.on_message(web->owner.ctx, body, size);
    free(body);
    if (id >= 0)
        web->owner.on_loss(web->owner.ctx, id, LOSS_UNKNOWN, "its answer was none to this request");
}

static void on_done(void *ctx, const http_call_outcome_t *outcome)
{
    post_t *post = ctx;
    bool sent = http_sent(post->transfer);
    if (!post->started)
        begin_answer(post);
    post->transfer = NULL; /* ends with this call */
    if (err_is(outcome->err)) {
        if ((post->streams || post->listening || post->resumes) && take_up_later(post))
            return;
        lose(post, sent || post->resumes ? LOSS_UNKNOWN : LOSS_UNSENT, err_what(outcome->err));
    } else if (outcome->status == 200) {
        finish_good(post);
    } else if (outcome->status == 202 && post->id < 0) {
        post_free(post);
    } else {
        finish_status(post, outcome->status);
    }
}

/* ---- What goes ---- */

static size_t add_list(const char **all, size_t count, const char *const *list)
{
    for (; list && *list && count < HEADERS_MOST; list++)
        all[count++] = *list;
    return count;
}

static void begin(post_t *post, const char *method, bytes_t body, const char *const *headers,
                  const char *last_id, int64_t timeout_ms)
{
    web_t *web = post->web;
    const char *all[HEADERS_MOST + 8] = {"Accept: application/json, text/event-stream",
                                         "User-Agent: agency/" AGENCY_VERSION};
    char session[SESSION_LONGEST + 32], version[64], last[1100];
    size_t count = 2;
    if (body.size)
        all[count++] = "Content-Type: application/json";
    if (*web->session) {
        snprintf(session, sizeof(session), "Mcp-Session-Id: %s", web->session);
        all[count++] = session;
    }
    if (*web->version) {
        snprintf(version, sizeof(version), "MCP-Protocol-Version: %s", web->version);
        all[count++] = version;
    }
    if (last_id && *last_id) {
        snprintf(last, sizeof(last), "Last-Event-ID: %s", last_id);
        all[count++] = last;
    }
    count = add_list(all, count, web->config->headers);
    add_list(all, count, headers);
    http_call_request_t request = {.method = method,
                                   .url = web->config->url,
                                   .headers = all,
                                   .body = body,
                                   .timeout_ms = timeout_ms,
                                   .response_limit = web->limits.message_bytes + 65536,
                                   .once = true};
    post->started = post->streams = false;
    post->transfer = http_start_parts(web->client, &request, on_part, on_done, post);
}

static bool web_send(wire_t *wire, const wire_message_t *message)
{
    post_t *post = post_new((web_t *)wire, message->id);
    if (message->timeout_ms)
        post->end_us = now_us() + message->timeout_ms * 1000;
    begin(post, "POST", message->json, message->headers, NULL, message->timeout_ms);
    return true;
}

static void web_forget(wire_t *wire, int64_t id)
{
    for (post_t *post = ((web_t *)wire)->posts; post; post = post->next)
        if (post->id == id && id >= 0) {
            post_free(post); /* closing the connection is how a client of the modern era cancels */
            return;
        }
}

static void web_listen(wire_t *wire, const char *version)
{
    web_t *web = (web_t *)wire;
    snprintf(web->version, sizeof(web->version), "%s", version);
    post_t *post = post_new(web, -1);
    post->listening = true;
    begin(post, "GET", (bytes_t){0}, NULL, NULL, 0);
}

static int64_t web_tend(wire_t *wire, int64_t now)
{
    int64_t next = INT64_MAX;
    for (post_t *post = ((web_t *)wire)->posts; post; post = post->next) {
        if (post->transfer)
            continue;
        if (post->due_us <= now) {
            events_destroy(&post->events); /* half an event is of no use */
            begin(post, "GET", (bytes_t){0}, NULL, post->last_id,
                  post->end_us == INT64_MAX ? 0 : (post->end_us - now) / 1000 + 1);
        } else if (post->due_us < next) {
            next = post->due_us;
        }
    }
    return next;
}

static void on_ended(void *ctx, const http_call_outcome_t *outcome)
{
    (void)ctx;
    (void)outcome;
}

/* Kind to servers that keep sessions. */
static void end_session(const web_t *web)
{
    char session[SESSION_LONGEST + 32];
    const char *all[HEADERS_MOST + 8] = {session};
    snprintf(session, sizeof(session), "Mcp-Session-Id: %s", web->session);
    add_list(all, 1, web->config->headers);
    http_call_request_t request = {
        .method = "DELETE", .url = web->config->url, .headers = all, .timeout_ms = 2000};
    http_start(web->client, &request, on_ended, NULL);
}

static void web_close(wire_t **handle)
{
    web_t *web = (web_t *)*handle;
    *handle = NULL;
    while (web->posts)
        post_free(web->posts);
    if (*web->session && !web->session_lost)
        end_session(web);
    free(web);
}

wire_t *web_open(http_client_t *client, const config_server_t *config, const wire_limits_t *limits,
                 const wire_owner_t *owner)
{
    static const wire_ops_t ops = {.send = web_send,
                                   .forget = web_forget,
                                   .listen = web_listen,
                                   .tend = web_tend,
                                   .close = web_close};
    web_t *web = calloc(1, sizeof(*web));
    if (!web)
        abort();
    *web = (web_t){
        .wire = {&ops}, .owner = *owner, .limits = *limits, .client = client, .config = config};
    return &web->wire;
}
