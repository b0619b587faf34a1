/* bench_graph: does a change of the graph cost the same however large it is?
 *
 *     bench_graph [nodes] [DIR]        default 100000, below /tmp; 1000000 takes some minutes
 *
 * Nodes with a property and an edge each are added with 64 calls in flight, over inproc calls to
 * the real actor on a real disk. At 1/100, 1/10 and all of the size it measures single changes
 * (merge of a property, a new edge), a walk of two steps and a query by word. What matters is the
 * last column against the first: 1.0 is flat. A busy disk moves everything: the last row says by
 * how much; a DIR in memory (/dev/shm) leaves it out. The cpu is that of all threads, the client's
 * too.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "actors/brain/brain.h"
#include "bus/client.h"
#include "bus/host.h"
#include "proto/json.h"

enum { FLIGHT = 64, SAMPLES = 300 };

typedef enum what { MERGE, LINK, WALK, QUERY, BULK, CPU, SYNC, WHATS } what_t;
static const char *const names[WHATS] = {"merge a property, ms",        "add an edge, ms",
                                         "two steps around a node, ms", "query by word, ms",
                                         "64 in flight, changes/s",     "  cpu of a change, us",
                                         "fdatasync of 4 KiB then, ms"};

static client_t *client;
static uint64_t seed = 7;

static uint64_t chance(uint64_t below)
{
    uint64_t x = seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void check(err_t err)
{
    if (!err_is(err))
        return;
    fprintf(stderr, "bench_graph: %s\n", err_what(err));
    exit(1);
}

/* `json` with ' for ". */
static client_call_t call_of(arena_t *arena, const char *method, const char *json)
{
    char *text = arena_strdup(arena, json);
    bytes_t args;

    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    check(json_to_msgpack(arena, text, strlen(text), NULL, &args));
    return (client_call_t){
        .peer = "brain", .method = method, .args = args, .role = ROLE_ADMIN, .timeout_ms = 120000};
}

static const char *node_json(arena_t *arena, uint64_t node)
{
    return arena_printf(arena,
                        "{'operation':'add_node','args':{'id':'node-%llu','type':'part','properties"
                        "':{'name':'widget %llu','weight':%llu}}}",
                        (unsigned long long)node, (unsigned long long)node,
                        (unsigned long long)(node % 97));
}

static const char *edge_json(arena_t *arena, uint64_t from, uint64_t to)
{
    return arena_printf(
        arena,
        "{'operation':'add_edge','args':{'from':'node-%llu','to':'node-%llu','relation':'holds'}}",
        (unsigned long long)from, (unsigned long long)to);
}

/* Of all threads. */
static double cpu_s(void)
{
    struct rusage use;

    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

/* Nodes from..to and an edge from each to an earlier one; changes a second. */
static double grow(uint64_t from, uint64_t to)
{
    uint64_t sent = from * 2, done = sent, end = to * 2, id;
    double start = now_s();

    while (done < end) {
        arena_t *arena = arena_new();
        for (int i = 0; i < 1000 && done < end; i++, done++) {
            for (; sent < end && sent - done < FLIGHT; sent++) {
                client_call_t call =
                    call_of(arena, "brain_update_graph",
                            sent % 2 ? edge_json(arena, sent / 2, chance(sent / 2 + 1))
                                     : node_json(arena, sent / 2));
                client_send(client, &call);
            }
            check(client_wait(client, arena, 120000, &id).err);
        }
        arena_destroy(&arena);
    }
    return (double)(end - from * 2) / (now_s() - start);
}

static const char *sample_json(arena_t *arena, what_t what, uint64_t size, const char **method)
{
    unsigned long long node = chance(size);

    *method = what == WALK    ? "graph_neighbors"
              : what == QUERY ? "brain_query_graph"
                              : "brain_update_graph";
    switch (what) {
    case MERGE:
        return arena_printf(arena,
                            "{'operation':'add_node','args':{'id':'node-%llu','properties':{'seen':"
                            "%llu}}}",
                            node, node);
    case LINK:
        return edge_json(arena, node, chance(size));
    case WALK:
        return arena_printf(arena, "{'id':'node-%llu','depth':2,'limit':100}", node);
    default: /* beyond GRAPH_SCAN rows words are looked up, before that all rows are read */
        return arena_printf(arena, "{'query':'%llu widget','limit':10,'cursor':'N00'}", node);
    }
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* The median of single calls, one after another. */
static double sample(what_t what, uint64_t size)
{
    double times[SAMPLES];

    for (int i = 0; i < SAMPLES; i++) {
        arena_t *arena = arena_new();
        const char *method, *json = sample_json(arena, what, size, &method);
        client_call_t call = call_of(arena, method, json);
        double start = now_s();
        check(client_call(client, arena, &call).err);
        times[i] = (now_s() - start) * 1e3;
        arena_destroy(&arena);
    }
    qsort(times, SAMPLES, sizeof times[0], by_value);
    return times[SAMPLES / 2];
}

/* What the disk takes by itself at that moment. */
static double sync_ms(const char *dir)
{
    double times[SAMPLES];
    char path[128], block[4096] = {0};

    snprintf(path, sizeof path, "%s/sync", dir);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return 0;
    for (int i = 0; i < SAMPLES; i++) {
        double start = now_s();
        if (pwrite(fd, block, sizeof block, (off_t)(i % 16) * 4096) < 0 || fdatasync(fd))
            exit(1);
        times[i] = (now_s() - start) * 1e3;
    }
    close(fd);
    qsort(times, SAMPLES, sizeof times[0], by_value);
    return times[SAMPLES / 2];
}

int main(int argc, char **argv)
{
    uint64_t size = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    uint64_t stages[] = {size / 100, size / 10, size};
    double found[WHATS][3];

    if (size < 10000) {
        fprintf(stderr, "bench_graph [nodes]: 10000 or more\n");
        return 2;
    }
    arena_t *arena = arena_new();
    host_t *host = NULL;
    char data[128], command[192];
    snprintf(data, sizeof data, "%s/bench-graph-XXXXXX", argc > 2 ? argv[2] : "/tmp");
    if (!mkdtemp(data))
        return 1;
    check(host_open(&(host_options_t){.data_dir = data, .log_level = LOG_ERROR}, arena, &host));
    check(host_start(host, &brain_actor, NULL, arena));
    check(client_open_host(host, &client));
    for (int stage = 0; stage < 3; stage++) {
        uint64_t before = stage ? stages[stage - 1] : 0, last = stages[stage] - size / 200;
        grow(before, last);
        double cpu = cpu_s();
        found[BULK][stage] = grow(last, stages[stage]);
        found[CPU][stage] = (cpu_s() - cpu) * 1e6 / (double)(2 * (stages[stage] - last));
        found[SYNC][stage] = sync_ms(data);
        for (int what = 0; what < BULK; what++)
            found[what][stage] = sample((what_t)what, stages[stage]);
    }
    printf("%-30s %12llu %12llu %12llu   last/first\n", "nodes (and as many edges)",
           (unsigned long long)stages[0], (unsigned long long)stages[1],
           (unsigned long long)stages[2]);
    for (int what = 0; what < WHATS; what++)
        printf("%-30s %12.3f %12.3f %12.3f   %.2f\n", names[what], found[what][0], found[what][1],
               found[what][2],
               what == BULK ? found[what][0] / found[what][2] : found[what][2] / found[what][0]);
    client_close(&client);
    host_close(&host, 10000);
    arena_destroy(&arena);
    snprintf(command, sizeof command, "rm -rf %s", data);
    return system(command) ? 1 : 0;
}
