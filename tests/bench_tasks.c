/* Durable task cycles (submit, lease, complete; each acknowledged after its sync) of the production
 * agent, against a bare LMDB that commits the same three writes for as many at once as are waiting.
 *
 *     bench_tasks [SECONDS] */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bus/client.h"
#include "proto/mp.h"
#include "support_floor.h"

extern const actor_def_t agent_actor;

enum { PAYLOAD = 200, MOST = 64, BATCH = 64 };

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- Clients ---- */

typedef struct load {
    const char *run_dir;
    int number, companies, batch;
    double end;
    uint64_t cycles;
    pthread_t thread;
} load_t;

static client_reply_t ask(client_t *client, arena_t *arena, const char *method, const buf_t *args)
{
    client_call_t call = {.peer = "agent",
                          .method = method,
                          .args = buf_bytes(args),
                          .role = ROLE_ADMIN,
                          .timeout_ms = 30000};
    client_reply_t reply = client_call(client, arena, &call);
    if (err_is(reply.err)) {
        fprintf(stderr, "bench_tasks: %s: %s\n", method, err_what(reply.err));
        exit(1);
    }
    return reply;
}

static void put_pair(buf_t *args, const char *key, const char *value)
{
    mp_put_str(args, key);
    mp_put_str(args, value);
}

/* Submits `batch` tasks, leases as many, completes them. */
static void cycle(load_t *load, client_t *client, arena_t *arena)
{
    char payload[PAYLOAD + 1], kind[32];
    const char *company = arena_printf(arena, "c%d", load->number % load->companies);
    memset(payload, 'x', PAYLOAD);
    payload[PAYLOAD] = '\0';
    snprintf(kind, sizeof(kind), "k%d", load->number);
    buf_t args;
    buf_open(&args, arena);
    mp_put_map(&args, 2);
    put_pair(&args, "company", company);
    mp_put_str(&args, "tasks");
    mp_put_array(&args, (uint32_t)load->batch);
    for (int i = 0; i < load->batch; i++) {
        mp_put_map(&args, 2);
        put_pair(&args, "kind", kind);
        put_pair(&args, "input", payload);
    }
    ask(client, arena, "task_submit_batch", &args);
    buf_open(&args, arena);
    mp_put_map(&args, 5);
    put_pair(&args, "company", company);
    put_pair(&args, "worker", kind);
    mp_put_str(&args, "n");
    mp_put_int(&args, load->batch);
    mp_put_str(&args, "kinds");
    mp_put_array(&args, 1);
    mp_put_str(&args, kind);
    mp_put_str(&args, "wait_ms");
    mp_put_int(&args, 1000);
    bytes_t tasks, task, id, fence;
    client_reply_t leased = ask(client, arena, "task_lease", &args);
    mp_value_t head;
    if (!mp_get(leased.body, "tasks", &tasks))
        return;
    mp_reader_t reader = mp_reader(tasks);
    mp_read(&reader, &head);
    buf_open(&args, arena);
    mp_put_map(&args, 2);
    put_pair(&args, "company", company);
    mp_put_str(&args, "tasks");
    mp_put_array(&args, head.count);
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &task); i++) {
        mp_get(task, "id", &id);
        mp_get(task, "fence", &fence);
        mp_put_map(&args, 2);
        mp_put_str(&args, "id");
        mp_put_raw(&args, id);
        mp_put_str(&args, "fence");
        mp_put_raw(&args, fence);
    }
    if (head.count)
        ask(client, arena, "task_complete_batch", &args);
    load->cycles += head.count;
}

static void *run_load(void *arg)
{
    load_t *load = arg;
    arena_t *arena = arena_new();
    client_t *client;
    if (err_is(client_open(load->run_dir, arena, &client)))
        abort();
    while (now_s() < load->end) {
        cycle(load, client, arena);
        arena_reset(arena);
    }
    client_close(&client);
    arena_destroy(&arena);
    return NULL;
}

static double agent_cycles(const char *run_dir, int clients, int companies, int batch,
                           double seconds)
{
    load_t loads[MOST] = {0};
    double began = now_s();
    uint64_t cycles = 0;
    for (int i = 0; i < clients; i++) {
        loads[i] = (load_t){.run_dir = run_dir,
                            .number = i,
                            .companies = companies,
                            .batch = batch,
                            .end = began + seconds};
        pthread_create(&loads[i].thread, NULL, run_load, &loads[i]);
    }
    for (int i = 0; i < clients; i++) {
        pthread_join(loads[i].thread, NULL);
        cycles += loads[i].cycles;
    }
    return (double)cycles / (now_s() - began);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 3;
    char dir[] = "/var/tmp/agency-bench-XXXXXX", command[128];
    arena_t *arena = arena_new();
    host_t *host;
    if (seconds <= 0 || !mkdtemp(dir))
        return 2;
    host_options_t options = {.data_dir = dir, .transport = TRANSPORT_IPC};
    err_t err = host_open(&options, arena, &host);
    if (!err_is(err))
        err = host_start(host, &agent_actor, NULL, arena);
    if (err_is(err)) {
        fprintf(stderr, "bench_tasks: %s\n", err_what(err));
        return 1;
    }
    static const struct {
        int clients, companies, batch;
    } rows[] = {{1, 1, 1}, {16, 1, 1}, {64, 1, 1}, {64, 16, 1}, {4, 1, BATCH}};
    printf("clients companies batch   agent cycles/s   raw LMDB cycles/s   ratio\n");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int waiting = rows[i].clients * rows[i].batch;
        /* A cycle is two commits: one for the submissions, one for the completions. */
        double bare =
            floor_rows(arena_printf(arena, "%s/floor", dir), waiting, PAYLOAD, seconds) / 2;
        double ours = agent_cycles(host_run_dir(host), rows[i].clients, rows[i].companies,
                                   rows[i].batch, seconds);
        printf("%7d %9d %5d %16.0f %19.0f %7.2f\n", rows[i].clients, rows[i].companies,
               rows[i].batch, ours, bare, ours / bare);
    }
    host_close(&host, 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    int removed = system(command);
    arena_destroy(&arena);
    return removed;
}
