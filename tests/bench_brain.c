/* bench_brain: how fast the brain stores, finds, and starts, and what it needs.
 *
 *     bench_brain [memories] [seconds a measure] [dimensions] [DIR]      default 10000 2 384
 *
 * With DIR the data stay there, and what is there already is not stored again. Everything goes over
 * inproc calls to the real actor on a real disk. Memories are made of a vocabulary with the skew of
 * language, so that postings are as long as they would be. At the end bench_vectors compares the
 * vector part with hnswlib and FAISS, with as many vectors (BENCH_PEERS=0: not).
 *
 * "cpu" is the time of all threads for a call, the client's too: it bears a busy machine better
 * than the clock does. Compare only what stands in one run.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "actors/brain/brain.h"
#include "actors/brain/simd.h"
#include "bus/client.h"
#include "bus/host.h"
#include "proto/mp.h"

enum { WORDS = 20000, STOP_WORDS = 40, FLIGHT = 64, SAMPLES = 200000, STEADY = 200 };
enum { WORDS_LEAST = 30, WORDS_MOST = 60 }; /* of a memory */

typedef struct bench {
    arena_t *arena;
    host_t *host;
    char data[128], dims[24];
    const char *settings[2];
    atomic_ullong text_bytes;
} bench_t;

typedef struct times {
    double rate, p50, p99;
} times_t;

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

static char vocabulary[WORDS][12];

static void make_vocabulary(void)
{
    for (uint64_t rank = 0; rank < WORDS; rank++) {
        uint64_t spell = rank * 2654435761U + 7;
        for (uint64_t i = 0; i < 3 + rank % 3; i++, spell /= 95) {
            vocabulary[rank][i * 2] = "bcdfghklmnprstvwz"[spell % 17];
            vocabulary[rank][i * 2 + 1] = "aeiou"[spell / 17 % 5];
        }
    }
}

/* The word of a rank drawn with about Zipf's skew. The first ranks of a language are its stop
 * words, which are in no index: they are not drawn. */
static void put_word(buf_t *out, uint64_t *seed)
{
    double u = (double)(next_random(seed) >> 11) / 9007199254740992.0;
    uint64_t rank = (uint64_t)(STOP_WORDS * exp(u * log((double)WORDS / STOP_WORDS))) - 1;

    buf_puts(out, vocabulary[rank]);
    buf_puts(out, " ");
}

static const char *text_of(arena_t *arena, uint64_t seed, uint64_t words)
{
    buf_t out;

    buf_open(&out, arena);
    while (words--)
        put_word(&out, &seed);
    return out.data;
}

static bytes_t memory_args(bench_t *bench, arena_t *arena, uint64_t number)
{
    buf_t out;
    uint64_t words = WORDS_LEAST + number * 7 % (WORDS_MOST - WORDS_LEAST + 1);
    const char *request = text_of(arena, number * 2 + 1, words / 3);
    const char *solution = text_of(arena, number * 2, words - words / 3);

    atomic_fetch_add(&bench->text_bytes, strlen(request) + strlen(solution));
    buf_open(&out, arena);
    mp_put_map(&out, 4);
    mp_put_str(&out, "id");
    mp_put_str(&out, arena_printf(arena, "m%llu", (unsigned long long)number));
    mp_put_str(&out, "taskId");
    mp_put_str(&out, "bench");
    mp_put_str(&out, "request");
    mp_put_str(&out, request);
    mp_put_str(&out, "solution");
    mp_put_str(&out, solution);
    return buf_bytes(&out);
}

/* `words` 0: 2 to 10 of them. */
static bytes_t query_args(arena_t *arena, uint64_t number, uint64_t words)
{
    buf_t out;

    buf_open(&out, arena);
    mp_put_map(&out, 2);
    mp_put_str(&out, "query");
    mp_put_str(&out, text_of(arena, number * 7919 + 3, words ? words : 2 + number % 9));
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
    host_options_t options = {
        .data_dir = bench->data, .log_level = LOG_ERROR, .settings = bench->settings};
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

static double cpu_s(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void store(bench_t *bench, const char *name, uint64_t from, uint64_t to, int flight)
{
    client_t *client = client_of(bench);
    arena_t *arena = arena_new();
    double begin = now_s(), cpu = cpu_s();
    uint64_t sent = from, done = from, id;

    while (done < to) {
        while (sent < to && sent - done < (uint64_t)flight) {
            client_call_t call = {.peer = "brain",
                                  .method = "brain_store",
                                  .args = memory_args(bench, arena, sent++),
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
    printf("%-34s %8.0f/s   cpu %.3f ms\n", name, (double)(to - from) / (now_s() - begin),
           (cpu_s() - cpu) * 1e3 / (double)(to - from));
    fflush(stdout);
    arena_destroy(&arena);
    client_close(&client);
}

/* ---- queries ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* One client that asks again when it was answered; `words` as in query_args. */
static times_t query(bench_t *bench, const char *name, double seconds, uint64_t words)
{
    client_t *client = client_of(bench);
    arena_t *arena = arena_new();
    double *ms = malloc(sizeof *ms * SAMPLES), begun = now_s(), cpu = cpu_s();
    size_t count = 0;

    while ((now_s() < begun + seconds || !count) && count < SAMPLES) {
        client_call_t call = {.peer = "brain",
                              .method = "brain_query",
                              .args = query_args(arena, count, words),
                              .role = ROLE_ADMIN,
                              .timeout_ms = 600000};
        double begin = now_s();
        client_reply_t reply = client_call(client, arena, &call);
        if (err_is(reply.err))
            die("brain_query", reply.err);
        ms[count++] = (now_s() - begin) * 1e3;
        arena_reset(arena);
    }
    cpu = cpu_s() - cpu;
    double took = now_s() - begun;
    qsort(ms, count, sizeof *ms, by_value);
    times_t times = {(double)count / took, ms[count / 2], ms[count * 99 / 100]};
    printf("%-34s %8.0f/s   p50 %.3f ms   p99 %.3f ms   cpu %.3f ms\n", name, times.rate, times.p50,
           times.p99, cpu * 1e3 / (double)count);
    fflush(stdout);
    free(ms);
    arena_destroy(&arena);
    client_close(&client);
    return times;
}

/* ---- stores beside queries ---- */

typedef struct load {
    bench_t *bench;
    uint64_t next; /* number of a memory */
    double rate;   /* stores a second; 0: as many as there can be, 8 in flight */
    atomic_bool stop;
    atomic_ullong stored;
} load_t;

static bool is_due(const load_t *load, uint64_t sent, uint64_t done, double begin)
{
    if (load->rate <= 0)
        return sent - done < 8;
    return sent - done < FLIGHT && (double)sent < (now_s() - begin) * load->rate;
}

static void *store_on(void *ctx)
{
    load_t *load = ctx;
    client_t *client = client_of(load->bench);
    arena_t *arena = arena_new();
    double begin = now_s();
    uint64_t sent = 0, done = 0, id;

    while (!atomic_load(&load->stop) || done < sent) {
        while (!atomic_load(&load->stop) && is_due(load, sent, done, begin)) {
            client_call_t call = {.peer = "brain",
                                  .method = "brain_store",
                                  .args = memory_args(load->bench, arena, load->next++),
                                  .role = ROLE_ADMIN,
                                  .timeout_ms = 60000};
            client_send(client, &call);
            sent++;
        }
        client_reply_t reply = client_wait(client, arena, 1, &id);
        if (id && err_is(reply.err))
            die("brain_store", reply.err);
        done += id != 0;
        if (done == sent && arena_used(arena) > 1 << 20)
            arena_reset(arena);
    }
    atomic_store(&load->stored, done);
    arena_destroy(&arena);
    client_close(&client);
    return NULL;
}

static void query_beside(bench_t *bench, load_t *load, double rate, double seconds, times_t alone)
{
    pthread_t thread;
    char name[64];

    load->rate = rate;
    atomic_store(&load->stop, false);
    if (pthread_create(&thread, NULL, store_on, load))
        exit(1);
    snprintf(name, sizeof name, rate > 0 ? "queries beside %.0f stores/s" : "queries beside stores",
             rate);
    double begin = now_s();
    times_t beside = query(bench, name, seconds, 0);
    double took = now_s() - begin;
    atomic_store(&load->stop, true);
    pthread_join(thread, NULL);
    printf("%-34s %8.0f/s   p99 is %.1f times that of queries alone\n", "  stores meanwhile",
           (double)atomic_load(&load->stored) / took, beside.p99 / alone.p99);
}

/* ---- what it needs ---- */

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
    char command[256], line[64] = "0";

    snprintf(command, sizeof command, "du -s -B1 %s | cut -f1", bench->data);
    FILE *pipe = popen(command, "r");
    if (pipe) {
        if (!fgets(line, sizeof line, pipe))
            line[0] = 0;
        pclose(pipe);
    }
    return strtod(line, NULL);
}

/* Until the index has been built. */
static void settle(bench_t *bench)
{
    client_t *client = client_of(bench);
    arena_t *arena = arena_new();
    client_call_t call = {
        .peer = "brain", .method = "brain_index_build", .role = ROLE_ADMIN, .timeout_ms = 7200000};
    double begin = now_s();
    client_reply_t reply = client_call(client, arena, &call);

    printf("%-34s %8.1f s%s\n", "building the index", now_s() - begin,
           err_is(reply.err) ? err_what(reply.err) : "");
    arena_destroy(&arena);
    client_close(&client);
}

static void fill(bench_t *bench, uint64_t memories, int dims)
{
    uint64_t some = memories / 10 < 500 ? memories / 10 : 500;
    store(bench, "stores, 1 client", 0, some, 1);
    store(bench, "stores, 16 clients", some, some * 3, 16);
    store(bench, "stores, 64 clients", some * 3, memories, FLIGHT);
    double text = (double)atomic_load(&bench->text_bytes) / (double)memories;
    double disk = disk_bytes(bench) / (double)memories, raw = dims * 4.0 + text;
    printf("%-34s %8.0f on disk, %.1f times its vector and text (%.0f bytes)\n", "bytes a memory",
           disk, disk / raw, raw);
    fflush(stdout);
}

/* Drops what the system has cached of the files, so that a start is cold. */
static void chill(const bench_t *bench)
{
    char command[256], path[1024];

    snprintf(command, sizeof command, "find %s -type f", bench->data);
    FILE *pipe = popen(command, "r");
    while (pipe && fgets(path, sizeof path, pipe)) {
        path[strcspn(path, "\n")] = 0;
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            continue;
        fdatasync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
    if (pipe)
        pclose(pipe);
}

static void restart(bench_t *bench, const char *name, bool cold)
{
    host_close(&bench->host, 5000);
    if (cold)
        chill(bench);
    double begin = now_s();
    start(bench);
    double up = now_s() - begin;
    query(bench, "  the first query then", 0, 8);
    printf("%-34s %8.0f ms (%.0f until it is up)\n", name, (now_s() - begin) * 1e3, up * 1e3);
}

static void measure_queries(bench_t *bench, uint64_t next, double seconds)
{
    char name[32];
    load_t load = {.bench = bench, .next = next};

    for (uint64_t words = 2; words <= 10; words += 4) {
        snprintf(name, sizeof name, "queries of %d words", (int)words);
        query(bench, name, seconds / 2, words);
    }
    times_t alone = query(bench, "queries", seconds, 0);
    query_beside(bench, &load, STEADY, seconds, alone);
    query_beside(bench, &load, 0, seconds, alone);
}

/* The vector part alone, beside others. */
static int bench_peers(const char *me, uint64_t memories, int dims)
{
    char command[512], number[32], size[16];
    const char *wish = getenv("BENCH_PEERS"), *slash = strrchr(me, '/');

    snprintf(command, sizeof command, "%.*sbench_vectors", slash ? (int)(slash - me + 1) : 0, me);
    if ((wish && strcmp(wish, "0") == 0) || access(command, X_OK))
        return 0;
    fflush(stdout);
    snprintf(number, sizeof number, "%llu", (unsigned long long)memories);
    snprintf(size, sizeof size, "%d", dims);
    execl(command, command, number, size, (char *)NULL);
    return 1;
}

int main(int argc, char **argv)
{
    uint64_t memories = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
    int dims = argc > 3 ? atoi(argv[3]) : 384;
    bench_t bench = {.arena = arena_new()};
    bool kept = argc > 4, full = false;

    snprintf(bench.dims, sizeof bench.dims, "brain.dims=%d", dims);
    bench.settings[0] = bench.dims;
    snprintf(bench.data, sizeof bench.data, "%s", kept ? argv[4] : "/tmp/bench-brain-XXXXXX");
    if (kept)
        full = mkdir(bench.data, 0700) && errno == EEXIST;
    else if (!mkdtemp(bench.data))
        return 1;
    make_vocabulary();
    printf("%llu memories of %d to %d words, %d dimensions, %s\n", (unsigned long long)memories,
           WORDS_LEAST, WORDS_MOST, dims, simd_level());
    start(&bench);
    if (!full)
        fill(&bench, memories, dims);
    query(&bench, "the first query (index loads)", 0, 8);
    settle(&bench);
    measure_queries(&bench, memories, seconds);
    printf("%-34s %8.0f, %.1f MiB in all\n", "bytes a memory, resident",
           (double)status_kib("VmRSS:") * 1024 / (double)memories,
           (double)status_kib("VmRSS:") / 1024);
    restart(&bench, "restart to first answer", false);
    restart(&bench, "the same, files not in memory", true);
    host_close(&bench.host, 5000);
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s", bench.data);
    int failed = kept ? 0 : system(command);
    arena_destroy(&bench.arena);
    return failed ? 1 : bench_peers(argv[0], memories, dims);
}
