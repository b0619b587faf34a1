/* tools/call over HTTP, gateway -> actor -> gateway, against a bare libmicrohttpd that answers the
 * same number of bytes, with the same blocking clients in the same run.
 *
 *     bench_gateway [SECONDS] */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bus/client.h"
#include "proto/mp.h"

extern const actor_def_t gateway_actor;

enum { MOST = 64, SAMPLES = 200000 };

/* ---- An actor that echoes, behind the gateway ---- */

typedef struct echo {
    int unused;
} echo_t;

#define echo_say_ARGS(F) F(STR, text, must, 0, 0, "What comes back.")
#define echo_say_REPLY(F) F(STR, text, must, 0, 0, "What came.")
#define ECHO_METHODS(M) M(echo_t, echo_say, TOOL | READS | ANY_COMPANY, "Echo.")
METHODS(echo_methods, ECHO_METHODS)

static err_t echo_say(echo_t *self, call_t *call, const echo_say_args_t *args,
                      echo_say_reply_t *reply)
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

/* ---- Clients ---- */

static const char request[] =
    "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Content-Length: 104\r\n\r\n"
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\","
    "\"params\":{\"name\":\"echo_say\",\"arguments\":{\"text\":\"hello\"}}}";

typedef struct load {
    int port;
    double end;
    double *us;
    int count, most;
    pthread_t thread;
} load_t;

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
        abort();
    return fd;
}

/* One request and its whole answer; false: not a 200. */
static bool exchange(int fd)
{
    char buffer[4096];
    size_t size = 0;
    if (send(fd, request, sizeof(request) - 1, 0) != (ssize_t)sizeof(request) - 1)
        return false;
    for (;;) {
        ssize_t got = recv(fd, buffer + size, sizeof(buffer) - 1 - size, 0);
        if (got <= 0)
            return false;
        size += (size_t)got;
        buffer[size] = '\0';
        const char *body = strstr(buffer, "\r\n\r\n");
        const char *length = strcasestr(buffer, "content-length:");
        if (body && length && size >= (size_t)(body + 4 - buffer) + strtoul(length + 15, NULL, 10))
            return !strncmp(buffer, "HTTP/1.1 200", 12) && strstr(body, "hello");
    }
}

static void *run_load(void *arg)
{
    load_t *load = arg;
    int fd = dial(load->port);
    while (now_us() < load->end && load->count < load->most) {
        double before = now_us();
        if (!exchange(fd)) {
            fprintf(stderr, "bench_gateway: a wrong answer\n");
            exit(1);
        }
        load->us[load->count++] = now_us() - before;
    }
    close(fd);
    return NULL;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

typedef struct figures {
    double rate, p50, p99;
} figures_t;

static figures_t measure(int port, int connections, double seconds)
{
    static load_t loads[MOST];
    static double all[SAMPLES];
    double began = now_us();
    int count = 0, most = SAMPLES / connections;
    for (int i = 0; i < connections; i++) {
        loads[i] = (load_t){.port = port,
                            .end = began + seconds * 1e6,
                            .us = calloc((size_t)most, sizeof(double)),
                            .most = most};
        pthread_create(&loads[i].thread, NULL, run_load, &loads[i]);
    }
    for (int i = 0; i < connections; i++) {
        pthread_join(loads[i].thread, NULL);
        memcpy(all + count, loads[i].us, (size_t)loads[i].count * sizeof(double));
        count += loads[i].count;
        free(loads[i].us);
    }
    double took = now_us() - began;
    qsort(all, (size_t)count, sizeof(double), compare);
    return (figures_t){count / took * 1e6, all[count / 2], all[count / 100 * 99]};
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
    int fd = dial(port);
    while (!exchange(fd)) {
        close(fd);
        fd = dial(port);
    }
    close(fd);
}

int main(int argc, char **argv)
{
    static const int connections[] = {1, 16, 64};
    static const char *const settings[] = {"gateway.pillar=echo", "gateway.port=0", NULL};
    double seconds = argc > 1 ? atof(argv[1]) : 2;
    char dir[] = "/tmp/agency-bench-XXXXXX", command[128];
    arena_t *arena = arena_new();
    host_t *host;
    if (seconds <= 0 || !mkdtemp(dir))
        return 2;
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
    int port = gateway_port(host, arena);
    int floor = MHD_get_daemon_info(bare, MHD_DAEMON_INFO_BIND_PORT)->port;
    wait_ready(port);
    for (size_t i = 0; i < sizeof(connections) / sizeof(connections[0]); i++) {
        figures_t raw = measure(floor, connections[i], seconds);
        figures_t ours = measure(port, connections[i], seconds);
        printf("%2d connections: bare libmicrohttpd %7.0f/s p50 %5.0f us p99 %6.0f us; "
               "tools/call %7.0f/s p50 %5.0f us p99 %6.0f us; ratio %.2f\n",
               connections[i], raw.rate, raw.p50, raw.p99, ours.rate, ours.p50, ours.p99,
               ours.rate / raw.rate);
    }
    MHD_stop_daemon(bare);
    host_close(&host, 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    int removed = system(command);
    arena_destroy(&arena);
    return removed;
}
