/* The gateway over real HTTP: clients that are hostile, slow, many, or gone. ctest timeout: 180 */
#include <arpa/inet.h>
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "actors/gateway/gateway.h"
#include "actors/gateway/seal.h"
#include "house.h"
#include "proto/mp.h"

/* ---- A pillar ---- */

typedef struct desk {
    int cancelled;
} desk_t;

#define desk_say_ARGS(F) F(STR, text, must, 0, 100000, "What comes back.")
#define desk_say_REPLY(F) F(STR, text, must, 0, 0, "What came.")
#define desk_wait_ARGS(F)
#define desk_wait_REPLY(F) F(BOOL, done, must, 0, 0, "Never.")
#define desk_cancelled_ARGS(F)
#define desk_cancelled_REPLY(F) F(INT, count, must, 0, 0, "Calls that were given up.")
#define DESK_METHODS(M)                                                                            \
    M(desk_t, desk_say, TOOL | READS | PARKS | ANY_COMPANY, "Echo.")                               \
    M(desk_t, desk_wait, TOOL | READS | PARKS | ANY_COMPANY, "Never answers.")                     \
    M(desk_t, desk_cancelled, READS | PARKS | ANY_COMPANY, "How many gave up.")
METHODS(desk_methods, DESK_METHODS)

static err_t desk_say(desk_t *self, call_t *call, const desk_say_args_t *args,
                      desk_say_reply_t *reply)
{
    (void)self;
    (void)call;
    reply->text = args->text;
    return err_ok();
}

static void gave_up(void *state, call_t *call, void *ctx)
{
    desk_t *self = state;
    (void)call;
    (void)ctx;
    self->cancelled++;
}

static err_t desk_wait(desk_t *self, call_t *call, const desk_wait_args_t *args,
                       desk_wait_reply_t *reply)
{
    (void)self;
    (void)args;
    (void)reply;
    call_on_gone(call, gave_up, NULL);
    return call_park(call);
}

static err_t desk_cancelled(desk_t *self, call_t *call, const desk_cancelled_args_t *args,
                            desk_cancelled_reply_t *reply)
{
    (void)call;
    (void)args;
    reply->count = self->cancelled;
    return err_ok();
}

static const actor_def_t desk_actor = {
    .name = "desk", .doc = "", .size = sizeof(desk_t), .methods = desk_methods};

/* ---- A house with a port ---- */

static house_t house;
static int port;

static int open_port(void)
{
    int found = 0;
    sscanf(house_call(&house, "gateway", "gateway_port", "{}"), "{'port':%d", &found);
    return found;
}

static char *http(const char *method, const char *path, const char *headers, const char *body);

static void open_with(const char *const *settings)
{
    house_open(&house, TRANSPORT_INPROC);
    house_down(&house);
    house.settings = settings;
    house_up(&house);
    house_start(&house, &desk_actor);
    house_start(&house, &gateway_actor);
    port = open_port();
    ck_assert_int_gt(port, 0);
    int64_t until = mono_ms() + 10000;
    while (!strstr(http("GET", "/readyz", "", ""), " 200 ")) /* it learns the tools */
        ck_assert_int_lt(mono_ms(), until);
}

static void setup(void)
{
    static const char *const settings[] = {"gateway.pillar=desk", "gateway.keep_alive_ms=1000",
                                           NULL};
    open_with(settings);
}

static void teardown(void)
{
    house_close(&house);
}

/* ---- A client ---- */

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ck_assert_msg(!connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");
    return fd;
}

static void say(int fd, const char *method, const char *path, const char *headers, const char *body)
{
    char *text = arena_printf(
        house.arena, "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n%s", method,
        path, headers, strlen(body), body);
    size_t size = strlen(text), sent = 0;
    while (sent < size) {
        ssize_t part = send(fd, text + sent, size - sent, MSG_NOSIGNAL);
        if (part <= 0)
            return; /* the other side has hung up: what it said is still to be read */
        sent += (size_t)part;
    }
}

/* Until `mark` came or the connection ended. */
static char *hear(int fd, const char *mark)
{
    buf_t all;
    char part[4096];
    buf_open(&all, house.arena);
    while (!mark || !strstr(all.data ? all.data : "", mark)) {
        ssize_t size = recv(fd, part, sizeof(part), 0);
        if (size <= 0)
            break;
        buf_put(&all, part, (size_t)size);
    }
    return all.data ? all.data : "";
}

static char *http(const char *method, const char *path, const char *headers, const char *body)
{
    int fd = dial();
    say(fd, method, path, arena_printf(house.arena, "Connection: close\r\n%s", headers), body);
    char *answer = hear(fd, NULL);
    close(fd);
    return answer;
}

#define JSON "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
#define MODERN JSON "MCP-Protocol-Version: 2026-07-28\r\n"
#define META                                                                                       \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                       \
    "\"io.modelcontextprotocol/clientCapabilities\":{\"extensions\":{"                             \
    "\"io.modelcontextprotocol/tasks\":{}}}}"
#define INITIALIZE                                                                                 \
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":"     \
    "\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"t\",\"version\":\"1\"}}}"
#define PING "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}"

static const char *new_session(void)
{
    char *answer = http("POST", "/mcp", JSON, INITIALIZE), *at, *end;
    ck_assert_msg((at = strcasestr(answer, "mcp-session-id: ")) != NULL, "%s", answer);
    at += strlen("mcp-session-id: ");
    end = strchr(at, '\r');
    return arena_strndup(house.arena, at, (size_t)(end - at));
}

static const char *with_session(const char *id)
{
    return arena_printf(house.arena, JSON "Mcp-Session-Id: %s\r\n", id);
}

static long memory_kb(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert_int_eq(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static double cpu_ms(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec * 1e3 + (double)used.tv_nsec / 1e6;
}

/* ---- Hostile ---- */

typedef struct hostile {
    const char *what, *method, *path, *headers, *body;
    int status;
    const char *says; /* NULL: whatever */
} hostile_t;

static const hostile_t hostiles[] = {
    {"a foreign Origin", "POST", "/mcp", JSON "Origin: http://evil.example\r\n", PING, 403,
     "allowed_origins"},
    {"a look-alike Origin", "POST", "/mcp", JSON "Origin: http://localhost.evil.example\r\n", PING,
     403, "allowed_origins"},
    {"Origin null", "POST", "/mcp", JSON "Origin: null\r\n", PING, 403, NULL},
    {"no JSON", "POST", "/mcp", "Content-Type: text/plain\r\n", PING, 415, "application/json"},
    {"an Accept that wants neither", "POST", "/mcp",
     "Content-Type: application/json\r\nAccept: image/png\r\n", PING, 406, "Accept"},
    {"a method that is none", "PATCH", "/mcp", JSON, PING, 405, "Allow"},
    {"GET without a session", "GET", "/mcp", "", "", 405, "Mcp-Session-Id"},
    {"DELETE without a session", "DELETE", "/mcp", "", "", 400, "Mcp-Session-Id"},
    {"DELETE of a session that is none", "DELETE", "/mcp", "Mcp-Session-Id: x\r\n", "", 404, NULL},
    {"a session that is none", "POST", "/mcp", JSON "Mcp-Session-Id: ..\r\n", PING, 404,
     "initialize"},
    {"a session of Base64 without a seal", "POST", "/mcp",
     JSON "Mcp-Session-Id: AAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n", PING, 404,
     "initialize"},
    {"the old door without a stream", "POST", "/messages?sessionId=x", JSON, PING, 404, NULL},
    {"POST to the stream", "POST", "/sse", JSON, PING, 405, NULL},
    {"a modern cursor that is none", "POST", "/mcp", MODERN "Mcp-Method: resources/list\r\n",
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/list\",\"params\":{\"cursor\":"
     "\"AAAA.BBBB\"," META "}}",
     200, "-32602"},
    {"a state that is none", "POST", "/mcp", MODERN "Mcp-Method: prompts/get\r\nMcp-Name: p\r\n",
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"prompts/get\",\"params\":{\"name\":\"p\","
     "\"requestState\":\"AAAA.AAAA\"," META "}}",
     400, "-32602"},
    {"a task that is none", "POST", "/mcp", MODERN "Mcp-Method: tasks/get\r\nMcp-Name: t\r\n",
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tasks/get\",\"params\":{\"taskId\":\"t\"," META
     "}}",
     200, "-32602"},
    {"a subscription of nothing", "POST", "/mcp", MODERN "Mcp-Method: subscriptions/listen\r\n",
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscriptions/listen\",\"params\":{" META "}}",
     200, "-32602"},
    {"a level that is none", "POST", "/mcp", JSON,
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"logging/setLevel\",\"params\":{\"level\":\"x\"}}",
     200, "-32602"},
    {"an answer that nobody asked for", "POST", "/mcp", JSON,
     "{\"jsonrpc\":\"2.0\",\"id\":\"1-1\",\"result\":{}}", 202, NULL},
    {"a resource elsewhere", "POST", "/mcp", JSON,
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/read\",\"params\":{\"uri\":"
     "\"file:///etc/passwd\"}}",
     200, "-32002"},
    {"a ref of nothing", "POST", "/mcp", JSON,
     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"completion/complete\",\"params\":{\"ref\":7}}",
     200, "-32602"},
};

START_TEST(what_is_hostile_is_refused_with_what_to_change)
{
    const hostile_t *row = &hostiles[_i];
    char *answer = http(row->method, row->path, row->headers, row->body);
    ck_assert_msg(strstr(answer, arena_printf(house.arena, "HTTP/1.1 %d ", row->status)) == answer,
                  "%s: %s", row->what, answer);
    ck_assert_msg(!row->says || strstr(answer, row->says), "%s: %s", row->what, answer);
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp", JSON, PING), "\"result\":{}"));
}
END_TEST

START_TEST(a_foreign_host_is_refused)
{
    int fd = dial();
    const char *text = "POST /mcp HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n" JSON
                       "Content-Length: 0\r\n\r\n";
    ck_assert_int_gt(send(fd, text, strlen(text), 0), 0);
    ck_assert_ptr_nonnull(strstr(hear(fd, NULL), " 403 "));
    close(fd);
}
END_TEST

/* Does a page that was loaded from `host` come through when it says that it is of `origin`? */
static bool page_may(const char *host, const char *origin)
{
    int fd = dial();
    const char *text = arena_printf(house.arena,
                                    "POST /mcp HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\n"
                                    "Connection: close\r\n" JSON "Content-Length: %zu\r\n\r\n" PING,
                                    host, origin, strlen(PING));
    ck_assert_int_gt(send(fd, text, strlen(text), 0), 0);
    const char *answer = hear(fd, NULL);
    close(fd);
    return strstr(answer, " 200 ") != NULL;
}

START_TEST(our_own_page_may_ask_where_the_host_is_known)
{
    static const char *const named[] = {"gateway.pillar=desk",
                                        "gateway.allowed_hosts=agency.example:3000", NULL};
    static const char *const proxied[] = {"gateway.pillar=desk", "gateway.behind_proxy=true", NULL};
    house_close(&house);
    open_with(named);
    ck_assert(page_may("agency.example:3000", "http://agency.example:3000"));
    ck_assert(page_may("agency.example:3000", "https://Agency.example:3000"));
    ck_assert(!page_may("agency.example:3000", "http://agency.example"));
    ck_assert(!page_may("agency.example:3000", "ftp://agency.example:3000"));
    ck_assert(!page_may("agency.example:3000", "http://evil.example"));
    house_close(&house);
    open_with(proxied);
    ck_assert(!page_may("evil.example", "http://evil.example")); /* a name that points here */
    ck_assert(page_may("evil.example", "http://localhost:3000"));
}
END_TEST

/* ---- Sessions and streams ---- */

START_TEST(pages_of_an_allowed_origin_may_ask)
{
    const char *ask = "Access-Control-Request-Method: POST\r\n"
                      "Access-Control-Request-Headers: mcp-param-region, authorization\r\n";
    char *mine = http("OPTIONS", "/mcp",
                      arena_printf(house.arena, "Origin: http://localhost:8080\r\n%s", ask), "");
    ck_assert_ptr_nonnull(strstr(mine, " 204 "));
    ck_assert_ptr_nonnull(strstr(mine, "Access-Control-Allow-Origin: http://localhost:8080\r\n"));
    ck_assert_ptr_nonnull(
        strstr(mine, "Access-Control-Allow-Headers: mcp-param-region, authorization\r\n"));
    char *other = http("OPTIONS", "/mcp",
                       arena_printf(house.arena, "Origin: http://evil.example\r\n%s", ask), "");
    ck_assert_ptr_nonnull(strstr(other, " 403 "));
    ck_assert_ptr_null(strstr(other, "Access-Control-Allow"));
}
END_TEST

START_TEST(every_bit_of_a_session_id_counts)
{
    const char *id = new_session();
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp", with_session(id), PING), " 200 "));
    for (size_t i = 0; id[i]; i++) {
        char *forged = arena_strdup(house.arena, id);
        forged[i] = forged[i] == 'A' ? 'B' : 'A';
        ck_assert_msg(strstr(http("POST", "/mcp", with_session(forged), PING), " 404 "), "%zu", i);
    }
}
END_TEST

START_TEST(a_session_has_one_stream_which_ends_with_it)
{
    const char *id = new_session();
    int fd = dial();
    say(fd, "GET", "/mcp", with_session(id), "");
    ck_assert_ptr_nonnull(strstr(hear(fd, ": open"), "text/event-stream"));
    ck_assert_ptr_nonnull(strstr(http("GET", "/mcp", with_session(id), ""), " 409 "));
    ck_assert_ptr_nonnull(strstr(hear(fd, ": still here"), ": still here")); /* keep-alive */
    ck_assert_ptr_nonnull(strstr(http("DELETE", "/mcp", with_session(id), ""), " 204 "));
    ck_assert_ptr_nonnull(strstr(hear(fd, "0\r\n\r\n"), "0\r\n\r\n"));
    close(fd);
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp", with_session(id), PING), " 404 "));
}
END_TEST

START_TEST(who_leaves_cancels_in_the_modern_era)
{
    int fd = dial();
    say(fd, "POST", "/mcp", MODERN "Mcp-Method: tools/call\r\nMcp-Name: desk_wait\r\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":"
        "\"desk_wait\"," META "}}");
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp", JSON, PING), " 200 ")); /* it was read */
    close(fd);
    int64_t until = mono_ms() + 10000;
    while (strcmp(house_call(&house, "desk", "desk_cancelled", "{}"), "{'count':1}") != 0)
        ck_assert_int_lt(mono_ms(), until);
}
END_TEST

START_TEST(a_cancelled_request_of_a_session_ends)
{
    const char *id = new_session();
    int fd = dial();
    say(fd, "POST", "/mcp", with_session(id),
        "{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"tools/call\",\"params\":{\"name\":"
        "\"desk_wait\"}}");
    const char *cancel = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{"
                         "\"requestId\":77}}";
    const char *other = new_session();
    int64_t until = mono_ms() + 10000;
    http("POST", "/mcp", with_session(other), cancel); /* not theirs to cancel */
    ck_assert_str_eq(house_call(&house, "desk", "desk_cancelled", "{}"), "{'count':0}");
    do
        ck_assert_ptr_nonnull(strstr(http("POST", "/mcp", with_session(id), cancel), " 202 "));
    while (strcmp(house_call(&house, "desk", "desk_cancelled", "{}"), "{'count':1}") != 0 &&
           mono_ms() < until);
    ck_assert_str_eq(house_call(&house, "desk", "desk_cancelled", "{}"), "{'count':1}");
    close(fd);
}
END_TEST

START_TEST(a_path_narrows_the_tools)
{
    const char *list = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}";
    const char *call = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{"
                       "\"name\":\"desk_say\",\"arguments\":{\"text\":\"hello\"}}}";
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp/desk", JSON, list), "\"desk_say\""));
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp/desk", JSON, call), "\"text\":\"hello\""));
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp/nobody", JSON, list), " 404 "));
}
END_TEST

START_TEST(who_comes_before_the_pillar_waits_a_moment)
{
    static const char *const settings[] = {"gateway.pillar=desk", NULL};
    house_close(&house);
    house_open(&house, TRANSPORT_INPROC);
    house_down(&house);
    house.settings = settings;
    house_up(&house);
    house_start(&house, &gateway_actor);
    port = open_port();
    int early = dial(), gone = dial();
    const char *call = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{"
                       "\"name\":\"desk_say\",\"arguments\":{\"text\":\"hello\"}}}";
    say(early, "POST", "/mcp", JSON, call);
    say(gone, "POST", "/mcp", JSON, call);
    close(gone);
    house_start(&house, &desk_actor);
    ck_assert_ptr_nonnull(strstr(hear(early, "structuredContent"), "\"hello\""));
    close(early);
}
END_TEST

START_TEST(who_does_not_read_is_cut_off)
{
    enum { EVENTS = 400 };
    char *big = arena_alloc(house.arena, 90001);
    memset(big, 'x', 90000);
    int stuck = dial();
    const char *id;
    say(stuck, "GET", "/sse", "", "");
    char *answer = hear(stuck, "sessionId=");
    while (!strstr(answer + strcspn(answer, "?"), "\n"))
        answer = arena_printf(house.arena, "%s%s", answer, hear(stuck, "\n"));
    id = strstr(answer, "sessionId=") + strlen("sessionId=");
    id = arena_strndup(house.arena, id, strcspn(id, "\r\n"));
    const char *path = arena_printf(house.arena, "/messages?sessionId=%s", id);
    const char *body = arena_printf(house.arena,
                                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\","
                                    "\"params\":{\"name\":\"desk_say\",\"arguments\":{\"text\":"
                                    "\"%s\"}}}",
                                    big);
    int sent = 0;
    while (sent < EVENTS && strstr(http("POST", path, JSON, body), " 202 "))
        sent++;
    ck_assert_int_gt(sent, 10);
    ck_assert_int_lt(sent, EVENTS); /* then the stream was gone */
    ck_assert_ptr_nonnull(strstr(http("POST", "/mcp", JSON, PING), " 200 "));
    close(stuck);
}
END_TEST

/* ---- Many ---- */

/* AddressSanitizer keeps what was freed for a while. */
enum { GROWTH_KB = SLOW_BUILD ? 512 << 10 : 4096 };

START_TEST(sessions_that_are_abandoned_cost_nothing)
{
    int fd = dial();
    long before = 0;
    const char *text = arena_printf(house.arena,
                                    "POST /mcp HTTP/1.1\r\nHost: localhost\r\n" JSON
                                    "Content-Length: %zu\r\n\r\n" INITIALIZE,
                                    strlen(INITIALIZE));
    for (int i = 0; i < 10000; i++) {
        if (i == 2000) /* caches are warm */
            before = memory_kb();
        char part[2048];
        ck_assert_int_eq(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
        size_t size = 0;
        do {
            ssize_t got = recv(fd, part + size, sizeof(part) - 1 - size, 0);
            ck_assert_int_gt(got, 0);
            size += (size_t)got;
            part[size] = '\0';
        } while (!strstr(part, "optional company.\"}}"));
        ck_assert_ptr_nonnull(strstr(part, " 200 "));
    }
    close(fd);
    ck_assert_int_lt(memory_kb() - before, GROWTH_KB);
}
END_TEST

START_TEST(idle_streams_need_no_cpu_and_slow_clients_delay_nobody)
{
    enum { IDLE = 400, SLOW = 200 };
    static int idle[IDLE], slow[SLOW];
    const char *listen = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscriptions/listen\","
                         "\"params\":{\"notifications\":{\"toolsListChanged\":true}," META "}}";
    for (int i = 0; i < IDLE; i++) {
        idle[i] = dial();
        say(idle[i], "POST", "/mcp", MODERN "Mcp-Method: subscriptions/listen\r\n", listen);
        ck_assert_ptr_nonnull(strstr(hear(idle[i], "acknowledged"), "acknowledged"));
    }
    for (int i = 0; i < SLOW; i++) { /* the head of a request and nothing more */
        slow[i] = dial();
        ck_assert_int_gt(send(slow[i], "POST /mcp HTTP/1.1\r\nHost: loc", 30, 0), 0);
    }
    struct pollfd nobody = {.fd = idle[0], .events = POLLHUP};
    double used = cpu_ms();
    int64_t began = mono_ms();
    while (mono_ms() - began < 1000) /* the wait itself is what is measured */
        poll(&nobody, 0, 1000);
    used = cpu_ms() - used;
    ck_assert_msg(used < 300, "%.0f ms of CPU in a second of nothing", used);
    began = mono_ms();
    for (int i = 0; i < 20; i++)
        ck_assert_ptr_nonnull(strstr(http("POST", "/mcp", JSON, PING), " 200 "));
    ck_assert_int_lt(mono_ms() - began, 2000);
    for (int i = 0; i < IDLE; i++)
        close(idle[i]);
    for (int i = 0; i < SLOW; i++)
        close(slow[i]);
}
END_TEST

/* ---- Seals ---- */

START_TEST(a_seal_opens_only_as_it_was_made)
{
    seal_t one = {.key = {1}}, other = {.key = {2}};
    arena_t *arena = house.arena;
    bytes_t got;
    for (size_t size = 0; size < 50; size++) {
        uint8_t data[50];
        memset(data, (int)size, sizeof(data));
        const char *text = seal_put(&one, arena, "test", (bytes_t){data, size});
        ck_assert(seal_get(&one, arena, "test", text, &got));
        ck_assert_uint_eq(got.size, size);
        ck_assert(!size || !memcmp(got.data, data, size));
        ck_assert(!seal_get(&one, arena, "tesT", text, &got));
        ck_assert(!seal_get(&other, arena, "test", text, &got));
        ck_assert(!seal_get(&one, arena, "test", arena_printf(arena, "%sA", text), &got));
        ck_assert(!seal_get(&one, arena, "test", arena_printf(arena, "A%s", text), &got));
    }
}
END_TEST

START_TEST(the_key_is_made_once_and_kept)
{
    uint8_t fresh[SEAL_KEY] = {7}, fresher[SEAL_KEY] = {8};
    seal_t first, second;
    const char *path = arena_printf(house.arena, "%s/key", house.data);
    ck_assert_int_eq(seal_open(path, fresh, house.arena, &first).code, ERR_OK);
    ck_assert_int_eq(seal_open(path, fresher, house.arena, &second).code, ERR_OK);
    ck_assert(!memcmp(&first, &second, sizeof(first)));
    write_file(path, "short");
    ck_assert_int_eq(seal_open(path, fresher, house.arena, &second).code, ERR_ARGUMENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway");
    TCase *doors = tcase_create("doors");
    tcase_add_checked_fixture(doors, setup, teardown);
    tcase_set_timeout(doors, 60);
    tcase_add_loop_test(doors, what_is_hostile_is_refused_with_what_to_change, 0,
                        sizeof(hostiles) / sizeof(hostiles[0]));
    tcase_add_test(doors, a_foreign_host_is_refused);
    tcase_add_test(doors, our_own_page_may_ask_where_the_host_is_known);
    tcase_add_test(doors, pages_of_an_allowed_origin_may_ask);
    tcase_add_test(doors, every_bit_of_a_session_id_counts);
    tcase_add_test(doors, a_session_has_one_stream_which_ends_with_it);
    tcase_add_test(doors, who_leaves_cancels_in_the_modern_era);
    tcase_add_test(doors, a_cancelled_request_of_a_session_ends);
    tcase_add_test(doors, a_path_narrows_the_tools);
    tcase_add_test(doors, who_comes_before_the_pillar_waits_a_moment);
    tcase_add_test(doors, who_does_not_read_is_cut_off);
    tcase_add_test(doors, a_seal_opens_only_as_it_was_made);
    tcase_add_test(doors, the_key_is_made_once_and_kept);
    suite_add_tcase(suite, doors);
    TCase *many = tcase_create("many");
    tcase_add_checked_fixture(many, setup, teardown);
    tcase_set_timeout(many, 60);
    tcase_add_test(many, sessions_that_are_abandoned_cost_nothing);
    tcase_add_test(many, idle_streams_need_no_cpu_and_slow_clients_delay_nobody);
    suite_add_tcase(suite, many);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
