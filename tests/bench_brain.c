/* bench_brain: how fast the brain stores, finds, and starts, and what it needs.
 *
 *     bench_brain [memories] [seconds a measure] [DIR]        default 10000 3
 *
 * With DIR the data stay there, and what is there already is not stored again.
 *
 * Everything goes over inproc calls to the real actor on a real disk. Memories are made of a
 * vocabulary with the skew of language, so that postings are as long as they would be.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "actors/brain/brain.h"
#include "actors/brain/simd.h"
#include "bus/client.h"
#include "bus/host.h"
#include "proto/mp.h"

enum { WORDS = 20000, STOP_WORDS = 40, TEXT_WORDS = 60, FLIGHT = 64, SAMPLES = 200000 };

typedef struct bench {
    arena_t *arena;
    host_t *host;
    char data[64];
} bench_t;

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ULL;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* The word of a rank drawn with about Zipf's skew. The first ranks of a language are its stop
 * words, which are in no index: they are not drawn. */
static void put_word(buf_t *out, uint64_t *seed)
{
    double u = (double)(next_random(seed) >> 11) / 9007199254740992.0;
    uint64_t rank = (uint64_t)(STOP_WORDS * exp(u * log(WORDS / STOP_WORDS))) - 1,
             spell = rank * 2654435761U + 7;

    for (int i = 0; i < 3 + (int)(rank % 3); i++, spell /= 95)
        buf_printf(out, "%c%c", "bcdfghklmnprstvwz"[spell % 17], "aeiou"[spell / 17 % 5]);
    buf_puts(out, " ");
}

static const char *text_of(arena_t *arena, uint64_t seed, int words)
{
    buf_t out;

    buf_open(&out, arena);
    while (words--)
        put_word(&out, &seed);
    return out.data;
}

static bytes_t memory_args(arena_t *arena, uint64_t number)
{
    buf_t out;

    buf_open(&out, arena);
    mp_put_map(&out, 4);
    mp_put_str(&out, "id");
    mp_put_str(&out, arena_printf(arena, "m%llu", (unsigned long long)number));
    mp_put_str(&out, "taskId");
    mp_put_str(&out, "bench");
    mp_put_str(&out, "request");
    mp_put_str(&out, text_of(arena, number * 2 + 1, TEXT_WORDS / 3));
    mp_put_str(&out, "solution");
    mp_put_str(&out, text_of(arena, number * 2, TEXT_WORDS * 2 / 3));
    return buf_bytes(&out);
}

static bytes_t query_args(arena_t *arena, uint64_t number)
{
    buf_t out;

    buf_open(&out, arena);
    mp_put_map(&out, 2);
    mp_put_str(&out, "query");
    mp_put_str(&out, text_of(arena, number * 7919 + 3, 8));
    mp_put_str(&out, "limit");
    mp_put_int(&out, 10);
    return buf_bytes(&out);
}

static void die(const char *what, err_t err)
{
    fprintf(stderr, "bench_brain: %s: %s\n", what, err_what(err));
    exit(1);
}

static double start(bench_t *bench)
{
    double begin = now_s();
    host_options_t options = {.data_dir = bench->data, .log_level = LOG_ERROR};
    err_t err = host_open(&options, bench->arena, &bench->host);

    if (!err_is(err))
        err = host_start(bench->host, &brain_actor, NULL, bench->arena);
    if (err_is(err))
        die("start", err);
    return now_s() - begin;
}

static client_t *client_of(bench_t *bench)
{
    client_t *client = NULL;
    err_t err = client_open_host(bench->host, &client);

    if (err_is(err))
        die("client", err);
    return client;
}

/* ---- stores: `flight` calls under way at once ---- */

static double store(bench_t *bench, uint64_t from, uint64_t to, int flight)
{
    client_t *client = client_of(bench);
    arena_t *arena = arena_new();
    double begin = now_s();
    uint64_t sent = from, done = from, id;

    while (done < to) {
        while (sent < to && sent - done < (uint64_t)flight) {
            client_call_t call = {.peer = "brain",
                                  .method = "brain_store",
                                  .args = memory_args(arena, sent++),
                                  .role = ROLE_ADMIN,
                                  .timeout_ms = 60000};
            client_send(client, &call);
        }
        client_reply_t reply = client_wait(client, arena, 60000, &id);
        if (err_is(reply.err))
            die("brain_store", reply.err);
        done++;
        if (arena_used(arena) > 1 << 20)
            arena_reset(arena);
    }
    double seconds = now_s() - begin;
    arena_destroy(&arena);
    client_close(&client);
    return (double)(to - from) / seconds;
}

/* ---- queries ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void query(bench_t *bench, const char *name, double seconds)
{
    client_t *client = client_of(bench);
    arena_t *arena = arena_new();
    double *ms = malloc(sizeof *ms * SAMPLES), end = now_s() + seconds;
    size_t count = 0;

    while (now_s() < end && count < SAMPLES) {
        client_call_t call = {.peer = "brain",
                              .method = "brain_query",
                              .args = query_args(arena, count),
                              .role = ROLE_ADMIN,
                              .timeout_ms = 60000};
        double begin = now_s();
        client_reply_t reply = client_call(client, arena, &call);
        if (err_is(reply.err))
            die("brain_query", reply.err);
        ms[count++] = (now_s() - begin) * 1e3;
        arena_reset(arena);
    }
    qsort(ms, count, sizeof *ms, by_value);
    printf("%-34s %8.0f/s   p50 %.3f ms   p99 %.3f ms\n", name, (double)count / seconds,
           ms[count / 2], ms[count * 99 / 100]);
    free(ms);
    arena_destroy(&arena);
    client_close(&client);
}

typedef struct load {
    bench_t *bench;
    uint64_t from;
    atomic_bool stop;
    atomic_ullong stored;
} load_t;

static void *store_on(void *ctx)
{
    load_t *load = ctx;

    while (!atomic_load(&load->stop)) {
        uint64_t at = load->from + atomic_load(&load->stored);
        store(load->bench, at, at + 200, 8);
        atomic_fetch_add(&load->stored, 200);
    }
    return NULL;
}

static long status_kib(const char *field)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long kib = 0;

    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtol(line + strlen(field), NULL, 10);
    if (file)
        fclose(file);
    return kib;
}

static double disk_bytes(const bench_t *bench)
{
    char command[128], line[64] = "0";

    snprintf(command, sizeof command, "du -s -B1 %s | cut -f1", bench->data);
    FILE *pipe = popen(command, "r");
    if (pipe) {
        if (!fgets(line, sizeof line, pipe))
            line[0] = 0;
        pclose(pipe);
    }
    return strtod(line, NULL);
}

/* Until no index is being built: a query waits for nothing, so we ask whether two are as quick. */
static void settle(bench_t *bench)
{
    client_t *client = client_of(bench);
    arena_t *arena = arena_new();
    client_call_t call = {
        .peer = "brain", .method = "brain_index_build", .role = ROLE_ADMIN, .timeout_ms = 3600000};
    double begin = now_s();
    client_reply_t reply = client_call(client, arena, &call);

    printf("%-34s %8.1f s%s\n", "building the index", now_s() - begin,
           err_is(reply.err) ? err_what(reply.err) : "");
    arena_destroy(&arena);
    client_close(&client);
}

static void fill(bench_t *bench, uint64_t memories)
{
    uint64_t some = memories / 10 < 500 ? memories / 10 : 500;
    printf("%-34s %8.0f/s\n", "stores, 1 at a time", store(bench, 0, some, 1));
    printf("%-34s %8.0f/s\n", "stores, 16 in flight", store(bench, some, some * 3, 16));
    printf("%-34s %8.0f/s\n", "stores, 64 in flight", store(bench, some * 3, memories, FLIGHT));
    printf("%-34s %8.0f\n", "bytes a memory on disk", disk_bytes(bench) / (double)memories);
}

int main(int argc, char **argv)
{
    uint64_t memories = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 3;
    bench_t bench = {.arena = arena_new()};
    load_t load = {.bench = &bench};
    pthread_t thread;

    bool kept = argc > 3, full = false;
    snprintf(bench.data, sizeof bench.data, "%s", kept ? argv[3] : "/tmp/bench-brain-XXXXXX");
    if (kept)
        full = mkdir(bench.data, 0700) && errno == EEXIST;
    else if (!mkdtemp(bench.data))
        return 1;
    printf("%llu memories of %d words, 384 dimensions, %s\n", (unsigned long long)memories,
           TEXT_WORDS, simd_level());
    start(&bench);
    if (!full)
        fill(&bench, memories);
    query(&bench, "first queries (index loads)", 0.2);
    if (memories > 20000)
        settle(&bench);
    query(&bench, "queries", seconds);
    load.from = memories;
    pthread_create(&thread, NULL, store_on, &load);
    query(&bench, "queries beside stores", seconds);
    atomic_store(&load.stop, true);
    pthread_join(thread, NULL);
    printf("%-34s %8.0f/s\n", "  stores beside queries",
           (double)atomic_load(&load.stored) / seconds);
    printf("%-34s %8.1f MiB\n", "resident", (double)status_kib("VmRSS:") / 1024);
    host_close(&bench.host, 5000);
    double begin = now_s();
    start(&bench);
    query(&bench, "after a restart, the first", 0.0005);
    printf("%-34s %8.0f ms\n", "restart to first answer", (now_s() - begin) * 1e3);
    host_close(&bench.host, 5000);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", bench.data);
    int failed = kept ? 0 : system(command);
    arena_destroy(&bench.arena);
    return failed ? 1 : 0;
}
