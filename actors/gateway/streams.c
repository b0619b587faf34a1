#include "actors/gateway/parts.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/gateway/headers.h"
#include "actors/gateway/uri.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { SOON_MS = 250 };

/* agency://memory/ID?company=NAME: what changes is told by path and company. */
typedef struct subject {
    const char *uri, *path;
    const char *company; /* NULL: of none, such a path is enough */
    bool stale;          /* it changed and nobody was told yet */
} subject_t;

typedef enum stream_kind { STREAM_GET, STREAM_SSE, STREAM_LISTEN } stream_kind_t;

struct stream {
    visitor_t visitor; /* first */
    stream_t *next, *prev;
    gateway_t *gateway;
    http_request_t *request;
    arena_t *arena;
    stream_kind_t kind;
    principal_t principal;    /* who opened it */
    const char *session;      /* NULL for STREAM_LISTEN */
    const char *subscription; /* of STREAM_LISTEN: the request id as JSON */
    bool tools, prompts, resources;
    bool stale_prompts, stale_resources; /* that list changed and its client was not told yet */
    subject_t *subjects;
    size_t subject_count;
    replay_t *replay; /* whose rest it carries */
    int64_t sent_us;
};

typedef struct watch {
    struct watch *next;
    arena_t *arena;
    subject_t subject;
} watch_t;

/* What is remembered of a session beside its id. */
struct session {
    session_t *next, *prev;
    char *id;
    char level[16];
    bool ended;
    watch_t *watches;
    int watch_count;
    int64_t touched_us;
};

typedef struct event {
    struct event *next;
    int number;
    const char *json;
} event_t;

/* Events of one answer, so that a client that lost its stream can fetch the rest. */
struct replay {
    replay_t *next;
    arena_t *arena;
    const char *id, *session;
    event_t *first, **last;
    int count;
    size_t bytes;
    bool done;
    exchange_t *exchange; /* NULL when the answer is complete */
    stream_t *stream;     /* the GET that carries on; NULL: none */
    int64_t ended_us;
};

/* ---- Ids of sessions ---- */

static bool declares(bytes_t capabilities, const char *name)
{
    bytes_t field;
    return capabilities.size && mp_get(capabilities, name, &field);
}

const char *session_new(gateway_t *self, arena_t *arena, const principal_t *principal,
                        const char *version, bytes_t capabilities)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_array(&out, 6);
    mp_put_str(&out, version);
    mp_put_int(&out, (declares(capabilities, "sampling") ? 1 : 0) |
                         (mcp_shows_forms(capabilities) ? 2 : 0) |
                         (declares(capabilities, "roots") ? 4 : 0) |
                         (declares(mp_member(capabilities, "sampling"), "tools") ? 8 : 0));
    mp_put_int(&out, actor_wall_ms(self->actor));
    mp_put_uint(&out, self->salt);
    mp_put_uint(&out, self->next_number++);
    mp_put_str(&out, principal->name);
    return seal_put(&self->seal, arena, "session", buf_bytes(&out));
}

static int by_id(const void *one, const void *other)
{
    return strcmp(((const session_t *)one)->id, ((const session_t *)other)->id);
}

static session_t *session_find(const gateway_t *self, const char *id)
{
    const session_t key = {.id = (char *)id};
    session_t *const *found = tfind(&key, &self->session_tree, by_id);
    return found ? *found : NULL;
}

static bool read_claims(gateway_t *self, arena_t *arena, const char *principal, const char *id,
                        session_claims_t *out)
{
    bytes_t payload, field;
    int64_t bits, issued;
    if (strlen(id) > 1024 || !seal_get(&self->seal, arena, "session", id, &payload) ||
        !mp_at(payload, 0, &field) || !(out->version = mp_text(arena, field)) ||
        !mp_at(payload, 1, &field) || !mp_int(field, &bits) || !mp_at(payload, 2, &field) ||
        !mp_int(field, &issued) || !mp_at(payload, 5, &field) || !mp_equals(field, principal))
        return false;
    out->sampling = bits & 1;
    out->elicitation = bits & 2;
    out->roots = bits & 4;
    out->sampling_tools = bits & 8;
    int64_t age = actor_wall_ms(self->actor) - issued;
    const session_t *session = session_find(self, id);
    return age < self->settings->session_ttl_s * 1000 && !(session && session->ended);
}

mcp_refusal_t session_read(gateway_t *self, arena_t *arena, const principal_t *principal,
                           const char *id, session_claims_t *out)
{
    *out = (session_claims_t){0};
    if (!read_claims(self, arena, principal->name, id, out))
        return (mcp_refusal_t){.status = 404,
                               .code = MCP_SESSION,
                               .text = "this session is unknown or has ended: send initialize "
                                       "again"};
    out->id = arena_strdup(arena, id);
    return (mcp_refusal_t){0};
}

/* ---- What is subscribed to ---- */

/* False: the client may not see that company. */
static bool read_subject(const exchange_t *exchange, arena_t *arena, const char *uri,
                         subject_t *out)
{
    static const char mark[] = "?company=";
    const char *at = strstr(uri, mark), *named = at ? at + strlen(mark) : NULL;
    const char *company = exchange_company(exchange, named);
    if (named && !principal_may(&exchange->principal, named))
        return false;
    uri_t parts;
    buf_t path;
    out->uri = arena_strdup(arena, uri);
    out->path = at ? arena_strndup(arena, uri, (size_t)(at - uri)) : out->uri;
    if (uri_read(arena, uri, &parts)) { /* %2f is %2F */
        buf_open(&path, arena);
        uri_put(&path, parts.kind, parts.id, NULL);
        out->path = path.data;
    }
    out->company = arena_strdup(arena, company ? company : "");
    return true;
}

/* A session may have subscribed when its principal had more rights than now. */
static bool is_about(const subject_t *subject, const principal_t *who, const char *path,
                     const char *company)
{
    return !strcmp(subject->path, path) && (!company || !strcmp(subject->company, company)) &&
           (!*subject->company || principal_may(who, subject->company));
}

/* ---- What is remembered ---- */

static void watch_free(watch_t *watch)
{
    arena_t *arena = watch->arena;
    arena_destroy(&arena);
}

static void unlink_session(gateway_t *self, session_t *session)
{
    if (session->prev)
        session->prev->next = session->next;
    else
        self->sessions = session->next;
    if (session->next)
        session->next->prev = session->prev;
    else
        self->oldest_session = session->prev;
}

static void link_session(gateway_t *self, session_t *session)
{
    session->prev = NULL;
    session->next = self->sessions;
    if (self->sessions)
        self->sessions->prev = session;
    else
        self->oldest_session = session;
    self->sessions = session;
    session->touched_us = actor_mono_us(self->actor);
}

static void session_drop(gateway_t *self, session_t *session)
{
    unlink_session(self, session);
    tdelete(session, &self->session_tree, by_id);
    self->session_count--;
    while (session->watches) {
        watch_t *watch = session->watches;
        session->watches = watch->next;
        watch_free(watch);
    }
    free(session->id);
    free(session);
}

/* The one that was touched least recently makes room. */
static session_t *session_keep(gateway_t *self, const char *id)
{
    session_t *session = session_find(self, id);
    if (session) {
        unlink_session(self, session);
        link_session(self, session);
        return session;
    }
    if (self->session_count >= (size_t)self->settings->max_sessions)
        session_drop(self, self->oldest_session);
    session = calloc(1, sizeof(*session));
    if (!session || !(session->id = strdup(id)) || !tsearch(session, &self->session_tree, by_id))
        abort();
    link_session(self, session);
    self->session_count++;
    return session;
}

/* Its id is refused by then. */
static void drop_expired(gateway_t *self, int64_t now)
{
    int64_t oldest = now - self->settings->session_ttl_s * 1000000;
    while (self->oldest_session && self->oldest_session->touched_us <= oldest)
        session_drop(self, self->oldest_session);
}

void session_set_level(gateway_t *self, const char *id, const char *level)
{
    session_t *session = session_keep(self, id);
    snprintf(session->level, sizeof(session->level), "%s", level);
}

const char *session_level(const gateway_t *self, const char *id)
{
    const session_t *session = id ? session_find(self, id) : NULL;
    return session && *session->level ? session->level : "info";
}

const char *session_subscribe(exchange_t *exchange, const char *uri, bool on)
{
    session_t *session = session_keep(exchange->gateway, exchange->session.id);
    for (watch_t **at = &session->watches; *at; at = &(*at)->next)
        if (!strcmp((*at)->subject.uri, uri)) {
            watch_t *watch = *at;
            if (on)
                return NULL;
            *at = watch->next;
            watch_free(watch);
            session->watch_count--;
            return NULL;
        }
    if (!on)
        return NULL;
    int64_t most = exchange->gateway->settings->max_subscriptions;
    if (session->watch_count >= most)
        return arena_printf(exchange->arena,
                            "a session has %lld subscriptions at most (gateway.max_subscriptions): "
                            "unsubscribe from one first",
                            (long long)most);
    arena_t *arena = arena_new();
    watch_t *watch = ARENA_NEW(arena, watch_t);
    watch->arena = arena;
    if (!read_subject(exchange, arena, uri, &watch->subject)) {
        arena_destroy(&arena);
        return "params.uri names a company that is not yours";
    }
    watch->next = session->watches;
    session->watches = watch;
    session->watch_count++;
    return NULL;
}

/* ---- Streams ---- */

static void send_text(stream_t *stream, const char *text)
{
    http_stream_send(stream->request, (bytes_t){(const uint8_t *)text, strlen(text)});
    stream->sent_us = actor_mono_us(stream->gateway->actor);
    gateway_flush_soon(stream->gateway);
}

static void send_message(stream_t *stream, const char *id, const char *json)
{
    arena_t *arena = arena_new();
    buf_t out;
    buf_open(&out, arena);
    if (id)
        buf_printf(&out, "id: %s\n", id);
    buf_puts(&out, "event: message\ndata: ");
    buf_puts(&out, json);
    buf_puts(&out, "\n\n");
    send_text(stream, out.data);
    arena_destroy(&arena);
}

static stream_t *stream_new(gateway_t *self, http_request_t *request, stream_kind_t kind,
                            const principal_t *principal)
{
    arena_t *arena = arena_new();
    stream_t *stream = ARENA_NEW(arena, stream_t);
    *stream = (stream_t){.visitor = VISITOR_STREAM,
                         .next = self->streams,
                         .gateway = self,
                         .request = request,
                         .arena = arena,
                         .kind = kind,
                         .principal = principal_copy(arena, principal),
                         .sent_us = actor_mono_us(self->actor)};
    if (self->streams)
        self->streams->prev = stream;
    self->streams = stream;
    self->stream_count++;
    http_set_header(request, "Cache-Control", "no-cache");
    http_set_header(request, "X-Accel-Buffering", "no");
    http_stream_start(request, 200, "text/event-stream");
    http_set_user(request, stream);
    return stream;
}

static void stream_free(stream_t *stream)
{
    gateway_t *self = stream->gateway;
    self->stream_count--;
    if (stream->replay)
        stream->replay->stream = NULL;
    if (stream->prev)
        stream->prev->next = stream->next;
    else
        self->streams = stream->next;
    if (stream->next)
        stream->next->prev = stream->prev;
    arena_t *arena = stream->arena;
    arena_destroy(&arena);
}

static void stream_end(stream_t *stream)
{
    http_set_user(stream->request, NULL);
    http_stream_end(stream->request);
    gateway_flush_soon(stream->gateway);
    stream_free(stream);
}

void stream_gone(gateway_t *self, stream_t *stream)
{
    (void)self;
    stream_free(stream);
}

static stream_t *stream_of(const gateway_t *self, const char *session)
{
    for (stream_t *at = self->streams; at; at = at->next)
        if (at->session && !at->replay && !strcmp(at->session, session))
            return at;
    return NULL;
}

bool stream_send(gateway_t *self, const char *session, const char *json)
{
    stream_t *stream = stream_of(self, session);
    if (stream && json)
        send_message(stream, NULL, json);
    return stream != NULL;
}

/* ---- GET ---- */

static void refuse_get(http_request_t *request, const mcp_refusal_t *refusal)
{
    gateway_reply_error(request, refusal->status, refusal->code, refusal->text);
}

static void begin_sse(gateway_t *self, http_request_t *request, const principal_t *principal)
{
    buf_t all;
    buf_open(&all, http_arena(request));
    mp_put_map(&all, 3);
    static const char *const names[] = {"sampling", "elicitation", "roots"};
    for (int i = 0; i < 3; i++) {
        mp_put_str(&all, names[i]); /* its initialize comes later; an error is an answer too */
        mp_put_map(&all, 0);
    }
    stream_t *stream = stream_new(self, request, STREAM_SSE, principal);
    stream->session = session_new(self, stream->arena, principal, "2024-11-05", buf_bytes(&all));
    send_text(stream,
              arena_printf(stream->arena, "event: endpoint\ndata: /messages?sessionId=%s\n\n",
                           stream->session));
}

static replay_t *replay_find(const gateway_t *self, const char *session, const char *event,
                             int *number)
{
    size_t size;
    if (!headers_event_id(event, &size, number))
        return NULL;
    for (replay_t *at = self->replays; at; at = at->next)
        if (strlen(at->id) == size && !strncmp(at->id, event, size) &&
            !strcmp(at->session, session))
            return at;
    return NULL;
}

static void send_event(stream_t *stream, const replay_t *replay, const event_t *event)
{
    send_message(stream, arena_printf(stream->arena, "%s-%d", replay->id, event->number),
                 event->json);
}

static void carry_on(stream_t *stream, replay_t *replay, int after)
{
    if (replay->stream)
        stream_end(replay->stream);
    for (const event_t *at = replay->first; at; at = at->next)
        if (at->number > after)
            send_event(stream, replay, at);
    if (replay->done) {
        stream_end(stream);
        return;
    }
    stream->replay = replay;
    replay->stream = stream;
}

static bool too_many(const gateway_t *self, mcp_refusal_t *refusal)
{
    if (self->stream_count < self->settings->max_streams)
        return false;
    *refusal = (mcp_refusal_t){.status = 503,
                               .code = MCP_LEGACY_TRANSPORT,
                               .text = "as many streams are open as gateway.max_streams allows: "
                                       "close one, or try again later"};
    return true;
}

mcp_refusal_t stream_no_legacy(http_request_t *request)
{
    const char *version = http_header(request, "MCP-Protocol-Version");
    if (!version || mcp_legacy_version(version))
        return (mcp_refusal_t){0};
    bool modern = !strcmp(version, MCP_MODERN);
    if (modern)
        http_set_header(request, "Allow", "POST");
    return (mcp_refusal_t){.status = modern ? 405 : 400,
                           .code = MCP_LEGACY_TRANSPORT,
                           .text = modern ? "version " MCP_MODERN " has neither sessions nor GET: "
                                            "POST subscriptions/listen"
                                          : mcp_versions_text};
}

/* Whatever it says of JSON: a stream is all that there is. */
static mcp_refusal_t no_events(http_request_t *request)
{
    mcp_refusal_t refusal = stream_no_legacy(request);
    if (!refusal.status && !headers_accept(http_header(request, "Accept"), "text/event-stream"))
        refusal = (mcp_refusal_t){.status = 406,
                                  .code = MCP_LEGACY_TRANSPORT,
                                  .text = "GET answers with a stream: Accept must allow "
                                          "text/event-stream"};
    return refusal;
}

void stream_get(gateway_t *self, http_request_t *request, const principal_t *principal, bool old)
{
    mcp_refusal_t full = no_events(request);
    if (full.status || too_many(self, &full)) {
        refuse_get(request, &full);
        return;
    }
    if (old) {
        begin_sse(self, request, principal);
        return;
    }
    const char *id = http_header(request, "Mcp-Session-Id");
    const char *last = http_header(request, "Last-Event-ID");
    session_claims_t claims;
    mcp_refusal_t refusal = {.status = id ? 0 : 405,
                             .code = MCP_LEGACY_TRANSPORT,
                             .text = "a stream needs the header Mcp-Session-Id of an initialize; "
                                     "in version " MCP_MODERN " use subscriptions/listen"};
    if (id)
        refusal = session_read(self, http_arena(request), principal, id, &claims);
    int after = 0;
    replay_t *replay = !refusal.status && last ? replay_find(self, id, last, &after) : NULL;
    if (!refusal.status && !replay && stream_of(self, id))
        refusal = (mcp_refusal_t){.status = 409,
                                  .code = MCP_LEGACY_TRANSPORT,
                                  .text = "this session has a stream already"};
    if (refusal.status) {
        if (refusal.status == 405)
            http_set_header(request, "Allow", "POST");
        refuse_get(request, &refusal);
        return;
    }
    stream_t *stream = stream_new(self, request, STREAM_GET, principal);
    stream->session = arena_strdup(stream->arena, id);
    if (replay)
        carry_on(stream, replay, after);
    else
        send_text(stream, ": open\n\n");
}

/* ---- subscriptions/listen ---- */

static const char *const filter_names[] = {"toolsListChanged", "promptsListChanged",
                                           "resourcesListChanged"};

/* NULL, or what is wrong with it. */
static const char *filter_wrong(arena_t *arena, bytes_t filter)
{
    bytes_t field, item;
    mp_type_t type;
    if (!filter.size || !mp_type_of(filter, &type) || type != MP_MAP)
        return "params.notifications must be an object that says what to send, e.g. "
               "{\"toolsListChanged\":true}";
    for (int i = 0; i < 3; i++)
        if (mp_get(filter, filter_names[i], &field) && mp_type_of(field, &type) && type != MP_BOOL)
            return arena_printf(arena, "params.notifications.%s must be true or false",
                                filter_names[i]);
    if (!mp_get(filter, "resourceSubscriptions", &field))
        return NULL;
    bool list = mp_type_of(field, &type) && type == MP_ARRAY;
    for (uint32_t i = 0; list && mp_at(field, i, &item); i++)
        list = mp_text(arena, item) != NULL;
    return list ? NULL : "params.notifications.resourceSubscriptions must be a list of URIs";
}

static bool wants(bytes_t filter, const char *name)
{
    bytes_t field;
    bool value = false;
    return filter.size && mp_get(filter, name, &field) && mp_bool(field, &value) && value;
}

static void read_filter(const exchange_t *exchange, stream_t *stream, bytes_t filter)
{
    bytes_t list, item;
    mp_value_t head;
    stream->tools = wants(filter, filter_names[0]);
    stream->prompts = wants(filter, filter_names[1]);
    stream->resources = wants(filter, filter_names[2]);
    if (!mp_get(filter, "resourceSubscriptions", &list))
        return;
    mp_reader_t reader = mp_reader(list);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    uint32_t most = (uint32_t)stream->gateway->settings->max_subscriptions;
    if (head.count < most)
        most = head.count;
    stream->subjects = ARENA_ARRAY(stream->arena, subject_t, most + 1);
    for (uint32_t i = 0; i < most && mp_slice(&reader, &item); i++) {
        const char *uri = mp_text(stream->arena, item);
        if (uri && kept_is_one(exchange, uri) &&
            read_subject(exchange, stream->arena, uri, &stream->subjects[stream->subject_count]))
            stream->subject_count++; /* the others are not among what is acknowledged */
    }
}

static void put_subscription(buf_t *out, const stream_t *stream)
{
    buf_printf(out, "\"_meta\":{\"" MCP_META "subscriptionId\":%s}", stream->subscription);
}

static void acknowledge(stream_t *stream)
{
    buf_t out;
    buf_open(&out, stream->arena);
    buf_puts(&out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\","
                   "\"params\":{");
    put_subscription(&out, stream);
    buf_puts(&out, ",\"notifications\":{");
    const char *comma = "";
    const bool on[] = {stream->tools, stream->prompts, stream->resources};
    for (int i = 0; i < 3; i++)
        if (on[i]) {
            buf_printf(&out, "%s\"%s\":true", comma, filter_names[i]);
            comma = ",";
        }
    if (stream->subject_count) {
        buf_printf(&out, "%s\"resourceSubscriptions\":[", comma);
        for (size_t i = 0; i < stream->subject_count; i++) {
            const char *uri = stream->subjects[i].uri;
            buf_puts(&out, i ? "," : "");
            json_put_string(&out, uri, strlen(uri));
        }
        buf_puts(&out, "]");
    }
    buf_puts(&out, "}}}");
    send_message(stream, NULL, out.data);
}

mcp_refusal_t stream_listen(exchange_t *exchange, const mcp_message_t *message)
{
    gateway_t *self = exchange->gateway;
    bytes_t filter = {0};
    if (!exchange->streams && !exchange->events)
        return (mcp_refusal_t){.status = 406,
                               .code = MCP_LEGACY_TRANSPORT,
                               .id = message->id,
                               .text = "subscriptions/listen answers with a stream: Accept must "
                                       "allow text/event-stream"};
    if (message->params.size)
        mp_get(message->params, "notifications", &filter);
    const char *wrong = filter_wrong(exchange->arena, filter);
    if (wrong)
        return mcp_refuse(message, 200, MCP_PARAMS, wrong);
    mcp_refusal_t full;
    if (too_many(self, &full)) {
        full.id = message->id;
        return full;
    }
    http_request_t *request = exchange->request;
    exchange->request = NULL; /* the stream answers it */
    stream_t *stream = stream_new(self, request, STREAM_LISTEN, &exchange->principal);
    buf_t id;
    buf_open(&id, stream->arena);
    json_from_msgpack(message->id, JSON_COMPACT, &id);
    stream->subscription = id.data;
    read_filter(exchange, stream, filter);
    acknowledge(stream);
    return (mcp_refusal_t){0};
}

/* ---- Something changed ---- */

static void notify(stream_t *stream, const char *what, bool is_list)
{
    buf_t out;
    arena_t *arena = arena_new();
    buf_open(&out, arena);
    if (is_list)
        buf_printf(&out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/%s/list_changed\"", what);
    else
        buf_puts(&out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\"");
    if (!is_list || stream->subscription)
        buf_puts(&out, ",\"params\":{");
    if (!is_list) {
        buf_puts(&out, "\"uri\":");
        json_put_string(&out, what, strlen(what));
    }
    if (stream->subscription) {
        buf_puts(&out, is_list ? "" : ",");
        put_subscription(&out, stream);
    }
    buf_puts(&out, !is_list || stream->subscription ? "}}" : "}");
    send_message(stream, NULL, out.data);
    arena_destroy(&arena);
}

static bool wants_list(const stream_t *stream, const char *what)
{
    if (stream->kind != STREAM_LISTEN)
        return true;
    return !strcmp(what, "tools")     ? stream->tools
           : !strcmp(what, "prompts") ? stream->prompts
                                      : stream->resources;
}

/* The URI as the client gave it; NULL: it did not ask for this. */
static const char *subscribed(const gateway_t *self, const stream_t *stream, const char *path,
                              const char *company)
{
    if (stream->kind != STREAM_LISTEN) {
        const session_t *session = session_find(self, stream->session);
        for (const watch_t *at = session ? session->watches : NULL; at; at = at->next)
            if (is_about(&at->subject, &stream->principal, path, company))
                return at->subject.uri;
        return NULL;
    }
    for (size_t i = 0; i < stream->subject_count; i++)
        if (is_about(&stream->subjects[i], &stream->principal, path, company))
            return stream->subjects[i].uri;
    return NULL;
}

void streams_changed_of(gateway_t *self, const char *what, const char *company)
{
    for (stream_t *at = self->streams; at; at = at->next) {
        const char *uri = at->replay ? NULL : subscribed(self, at, what, company);
        if (uri)
            notify(at, uri, false);
    }
}

void streams_changed(gateway_t *self, const char *what)
{
    if (strcmp(what, "tools") != 0 && strcmp(what, "prompts") != 0 &&
        strcmp(what, "resources") != 0) {
        streams_changed_of(self, what, NULL);
        return;
    }
    for (stream_t *at = self->streams; at; at = at->next)
        if (!at->replay && wants_list(at, what))
            notify(at, what, true);
}

/* ---- Something changes all the time ---- */

/* The subjects of a stream one by one; NULL after the last. */
static subject_t *next_subject(const gateway_t *self, stream_t *stream, size_t at)
{
    if (stream->kind == STREAM_LISTEN)
        return at < stream->subject_count ? &stream->subjects[at] : NULL;
    const session_t *session = session_find(self, stream->session);
    watch_t *watch = session ? session->watches : NULL;
    while (watch && at--)
        watch = watch->next;
    return watch ? &watch->subject : NULL;
}

static err_t tell_stale(void *state, call_t *call, void *ctx)
{
    gateway_t *self = state;
    subject_t *subject;
    (void)call;
    (void)ctx;
    self->stale_armed = false;
    for (stream_t *at = self->streams; at; at = at->next) {
        if (at->stale_prompts && !at->replay)
            notify(at, "prompts", true);
        if (at->stale_resources && !at->replay)
            notify(at, "resources", true);
        at->stale_prompts = at->stale_resources = false;
    }
    for (stream_t *at = self->streams; at; at = at->next)
        for (size_t i = 0; !at->replay && (subject = next_subject(self, at, i)); i++)
            if (subject->stale) {
                subject->stale = false;
                notify(at, subject->uri, false);
            }
    return err_ok();
}

static void tell_soon(gateway_t *self)
{
    if (self->stale_armed)
        return;
    self->stale_armed = true;
    actor_work(self->actor, SOON_MS, tell_stale, NULL);
}

void streams_list_changed(gateway_t *self, const char *what, const char *company)
{
    bool prompts = !strcmp(what, "prompts"), any = false;
    for (stream_t *at = self->streams; at; at = at->next)
        if (wants_list(at, what) && principal_may(&at->principal, company))
            any = *(prompts ? &at->stale_prompts : &at->stale_resources) = true;
    if (any)
        tell_soon(self);
}

void streams_changed_soon(gateway_t *self, const char *what, const char *company)
{
    subject_t *subject;
    bool any = false;
    for (stream_t *at = self->streams; at; at = at->next)
        for (size_t i = 0; !at->replay && (subject = next_subject(self, at, i)); i++)
            if (is_about(subject, &at->principal, what, company))
                subject->stale = any = true;
    if (any)
        tell_soon(self);
}

void session_end(gateway_t *self, const char *id)
{
    session_keep(self, id)->ended = true;
    task_status_forget(self, id);
    for (stream_t *at = self->streams, *next; at; at = next) {
        next = at->next;
        if (at->session && !strcmp(at->session, id))
            stream_end(at);
    }
}

/* ---- Answers that can be fetched later ---- */

replay_t *replay_new(exchange_t *exchange)
{
    gateway_t *self = exchange->gateway;
    size_t count = 0;
    for (const replay_t *at = self->replays; at; at = at->next)
        count++;
    if (count >= (size_t)self->settings->max_replays)
        return NULL;
    arena_t *arena = arena_new();
    replay_t *replay = ARENA_NEW(arena, replay_t);
    *replay = (replay_t){.next = self->replays,
                         .arena = arena,
                         .id = arena_printf(arena, "%016llx%llx", (unsigned long long)self->salt,
                                            (unsigned long long)self->next_number++),
                         .session = arena_strdup(arena, exchange->session.id),
                         .exchange = exchange};
    replay->last = &replay->first;
    self->replays = replay;
    exchange->replay = replay;
    /* The first event names the stream, so that it can be found again. */
    exchange->started = exchange->events = true;
    http_set_header(exchange->request, "Cache-Control", "no-cache");
    http_set_header(exchange->request, "X-Accel-Buffering", "no");
    http_stream_start(exchange->request, 200, "text/event-stream");
    const char *prime = arena_printf(arena, "id: %s-0\nretry: %lld\ndata: \n\n", replay->id,
                                     (long long)self->settings->reconnect_ms);
    http_stream_send(exchange->request, (bytes_t){(const uint8_t *)prime, strlen(prime)});
    gateway_flush_soon(self);
    return replay;
}

/* What would be too much is heard only by who listens now. */
static void keep_event(gateway_t *self, replay_t *replay, const event_t *event, size_t size)
{
    if (replay->bytes + size > (size_t)self->settings->replay_bytes ||
        self->replay_bytes + size > (size_t)self->settings->replay_total_bytes)
        return;
    event_t *kept = ARENA_NEW(replay->arena, event_t);
    *kept = (event_t){.number = event->number, .json = arena_strdup(replay->arena, event->json)};
    replay->bytes += size;
    self->replay_bytes += size;
    *replay->last = kept;
    replay->last = &kept->next;
}

void replay_put(gateway_t *self, exchange_t *exchange, const char *json)
{
    replay_t *replay = exchange->replay;
    if (!replay)
        return;
    size_t size = strlen(json);
    const event_t one = {.number = ++replay->count, .json = json}, *event = &one;
    keep_event(self, replay, event, size);
    if (replay->stream) {
        send_event(replay->stream, replay, event);
    } else if (exchange->request) {
        const char *text = arena_printf(
            exchange->arena, "id: %s-%d\nevent: message\ndata: ", replay->id, event->number);
        http_stream_send(exchange->request, (bytes_t){(const uint8_t *)text, strlen(text)});
        http_stream_send(exchange->request, (bytes_t){(const uint8_t *)json, size});
        http_stream_send(exchange->request, (bytes_t){(const uint8_t *)"\n\n", 2});
        gateway_flush_soon(self);
    }
}

void replay_end(gateway_t *self, exchange_t *exchange)
{
    replay_t *replay = exchange->replay;
    exchange->replay = NULL;
    if (!replay)
        return;
    replay->done = true;
    replay->exchange = NULL;
    replay->ended_us = actor_mono_us(self->actor);
    stream_t *stream = replay->stream;
    if (stream) {
        replay->stream = NULL;
        stream->replay = NULL;
        stream_end(stream);
    }
}

void replay_hang_up(exchange_t *exchange)
{
    if (!exchange->replay || !exchange->request)
        return;
    http_stream_end(exchange->request);
    exchange_let_go(exchange);
}

static void drop_replay(gateway_t *self, replay_t **at)
{
    replay_t *replay = *at;
    self->replay_bytes -= replay->bytes;
    *at = replay->next;
    if (replay->stream)
        replay->stream->replay = NULL;
    if (replay->exchange)
        replay->exchange->replay = NULL;
    arena_t *arena = replay->arena;
    arena_destroy(&arena);
}

/* ---- Life ---- */

/* subscriptions/listen ends with a result, which names the subscription as well. */
static void end_in_order(stream_t *stream)
{
    if (stream->kind == STREAM_LISTEN) {
        buf_t out;
        buf_open(&out, stream->arena);
        buf_printf(&out, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"resultType\":\"complete\",",
                   stream->subscription);
        put_subscription(&out, stream);
        buf_puts(&out, "}}");
        send_message(stream, NULL, out.data);
    }
    stream_end(stream);
}

static bool may_stay(const gateway_t *self, const principal_t *who, bool tokens_changed)
{
    if (who->expires_ms && actor_wall_ms(self->actor) >= who->expires_ms)
        return false;
    return !tokens_changed || !who->digest || tokens_stand(self->tokens, who);
}

/* Whose token is gone, over or another one now: the client comes again with what it has. */
static void end_unwanted(gateway_t *self)
{
    uint64_t version = self->tokens ? tokens_version(self->tokens) : 0;
    bool changed = version != self->tokens_seen;
    self->tokens_seen = version;
    for (stream_t *at = self->streams, *next; at; at = next) {
        next = at->next;
        if (!may_stay(self, &at->principal, changed))
            end_in_order(at);
    }
}

void streams_tend(gateway_t *self)
{
    int64_t now = actor_mono_us(self->actor);
    drop_expired(self, now);
    if (self->streams)
        end_unwanted(self);
    for (stream_t *at = self->streams; at; at = at->next)
        if (now - at->sent_us >= self->settings->keep_alive_ms * 1000)
            send_text(at, ": still here\n\n");
    for (replay_t **at = &self->replays; *at;)
        if ((*at)->done && now - (*at)->ended_us > self->settings->keep_answer_s * 1000000)
            drop_replay(self, at);
        else
            at = &(*at)->next;
}

void streams_close(gateway_t *self)
{
    while (self->streams)
        end_in_order(self->streams);
    while (self->replays)
        drop_replay(self, &self->replays);
    while (self->sessions)
        session_drop(self, self->sessions);
}
