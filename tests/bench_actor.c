/* A call between actors against the least that libzmq can do: ROUTER and DEALER with the same
 * payload, in interleaved rounds of one run. Prints microseconds and ratios.
 *
 *     bench_actor [ROUNDS] */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "bus/client.h"
#include "proto/mp.h"

enum { CALLS = 2000, IN_FLIGHT = 64, PAYLOAD = 64 };

/* ---- The actor: echoes ---- */

typedef struct echo {
    int unused;
} echo_t;

#define echo_say_ARGS(F) F(STR, text, must, 0, 0, "What comes back.")
#define echo_say_REPLY(F) F(STR, text, must, 0, 0, "What came.")
#define ECHO_METHODS(M) M(echo_t, echo_say, READS | ANY_COMPANY, "Echo.")
METHODS(echo_methods, ECHO_METHODS)

static err_t echo_say(echo_t *self, call_t *call, const echo_say_args_t *args,
                      echo_say_reply_t *reply)
{
    (void)self;
    (void)call;
    reply->text = args->text;
    return err_ok();
}

static const actor_def_t echo_actor = {
    .name = "echo", .doc = "", .size = sizeof(echo_t), .methods = echo_methods};

/* ---- Time ---- */

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(*values), compare);
    return values[count / 2];
}

/* ---- The floor: a thread with a ROUTER that echoes ---- */

typedef struct floor_server {
    void *context;
    const char *address;
    pthread_t thread;
} floor_server_t;

static void *serve(void *arg)
{
    floor_server_t *server = arg;
    void *router = zmq_socket(server->context, ZMQ_ROUTER);
    int linger = 0;
    zmq_setsockopt(router, ZMQ_LINGER, &linger, sizeof(linger));
    if (zmq_bind(router, server->address))
        abort();
    for (;;) {
        zmq_pollitem_t item = {.socket = router, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, -1) < 0)
            break;
        zmq_msg_t identity, body;
        zmq_msg_init(&identity);
        zmq_msg_init(&body);
        while (zmq_msg_recv(&identity, router, ZMQ_DONTWAIT) >= 0) {
            zmq_msg_recv(&body, router, 0);
            bool stop = zmq_msg_size(&body) == 1;
            zmq_msg_send(&identity, router, ZMQ_SNDMORE);
            zmq_msg_send(&body, router, 0);
            if (stop) {
                zmq_close(router);
                return NULL;
            }
        }
        zmq_msg_close(&identity);
        zmq_msg_close(&body);
    }
    zmq_close(router);
    return NULL;
}

static double floor_latency(void *dealer)
{
    static double us[CALLS];
    char payload[PAYLOAD] = "x";
    for (int i = 0; i < CALLS; i++) {
        double before = now_us();
        zmq_send(dealer, payload, sizeof(payload), 0);
        zmq_pollitem_t item = {.socket = dealer, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, -1);
        zmq_recv(dealer, payload, sizeof(payload), 0);
        us[i] = now_us() - before;
    }
    return median(us, CALLS);
}

static double floor_rate(void *dealer)
{
    char payload[PAYLOAD] = "x";
    double before = now_us();
    int sent = 0, got = 0;
    while (got < CALLS * 10) {
        while (sent < CALLS * 10 && sent - got < IN_FLIGHT) {
            zmq_send(dealer, payload, sizeof(payload), 0);
            sent++;
        }
        zmq_pollitem_t item = {.socket = dealer, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, -1);
        while (zmq_recv(dealer, payload, sizeof(payload), ZMQ_DONTWAIT) >= 0)
            got++;
    }
    return got / (now_us() - before) * 1e6;
}

/* ---- The actor, through the client ---- */

static client_call_t say(arena_t *arena)
{
    char text[PAYLOAD + 1];
    memset(text, 'x', PAYLOAD);
    text[PAYLOAD] = '\0';
    buf_t args;
    buf_open(&args, arena);
    mp_put_map(&args, 1);
    mp_put_str(&args, "text");
    mp_put_str(&args, text);
    return (client_call_t){.peer = "echo", .method = "echo_say", .args = buf_bytes(&args)};
}

static double actor_latency(client_t *client)
{
    static double us[CALLS];
    arena_t *arena = arena_new(), *scratch = arena_new();
    client_call_t call = say(arena);
    for (int i = 0; i < CALLS; i++) {
        double before = now_us();
        client_reply_t reply = client_call(client, scratch, &call);
        us[i] = now_us() - before;
        if (err_is(reply.err))
            abort();
        arena_reset(scratch);
    }
    arena_destroy(&arena);
    arena_destroy(&scratch);
    return median(us, CALLS);
}

static double actor_rate(client_t *client)
{
    arena_t *arena = arena_new(), *scratch = arena_new();
    client_call_t call = say(arena);
    double before = now_us();
    int sent = 0, got = 0;
    while (got < CALLS * 10) {
        while (sent < CALLS * 10 && sent - got < IN_FLIGHT) {
            client_send(client, &call);
            sent++;
        }
        uint64_t id;
        client_wait(client, scratch, 1000, &id);
        got += id != 0;
        arena_reset(scratch);
    }
    arena_destroy(&arena);
    arena_destroy(&scratch);
    return got / (now_us() - before) * 1e6;
}

static void measure(const char *name, void *context, const char *address, client_t *client,
                    int rounds)
{
    floor_server_t server = {.context = context, .address = address};
    pthread_create(&server.thread, NULL, serve, &server);
    void *dealer = zmq_socket(context, ZMQ_DEALER);
    zmq_connect(dealer, address);
    double *floor_us = calloc((size_t)rounds * 4, sizeof(double));
    double *ours_us = floor_us + rounds, *floor_hz = ours_us + rounds, *ours_hz = floor_hz + rounds;
    for (int i = 0; i < rounds; i++) {
        floor_us[i] = floor_latency(dealer);
        ours_us[i] = actor_latency(client);
        floor_hz[i] = floor_rate(dealer);
        ours_hz[i] = actor_rate(client);
    }
    double fl = median(floor_us, rounds), ou = median(ours_us, rounds);
    double fr = median(floor_hz, rounds), or = median(ours_hz, rounds);
    printf("%-7s call p50: raw libzmq %6.1f us, actor %6.1f us, ratio %.2f\n", name, fl, ou,
           ou / fl);
    printf("%-7s %d in flight: raw libzmq %8.0f/s, actor %8.0f/s, ratio %.2f\n", name, IN_FLIGHT,
           fr, or, or / fr);
    zmq_send(dealer, "", 1, 0);
    pthread_join(server.thread, NULL);
    int linger = 0;
    zmq_setsockopt(dealer, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_close(dealer);
    free(floor_us);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    arena_t *arena = arena_new();
    char dir[] = "/tmp/agency-bench-XXXXXX";
    host_t *host;
    client_t *inproc, *ipc;
    if (rounds < 1 || !mkdtemp(dir))
        return 2;
    host_options_t options = {.data_dir = dir, .transport = TRANSPORT_IPC};
    err_t err = host_open(&options, arena, &host);
    if (!err_is(err))
        err = host_start(host, &echo_actor, NULL, arena);
    if (!err_is(err))
        err = client_open(host_run_dir(host), arena, &ipc);
    if (err_is(err)) {
        fprintf(stderr, "bench_actor: %s\n", err_what(err));
        return 1;
    }
    client_open_host(host, &inproc);
    measure("inproc", host_zmq_context(host), "inproc://floor", inproc, rounds);
    measure("ipc", host_zmq_context(host), arena_printf(arena, "ipc://%s/floor", dir), ipc, rounds);
    client_close(&inproc);
    client_close(&ipc);
    host_close(&host, 0);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    int removed = system(command);
    arena_destroy(&arena);
    return removed;
}
