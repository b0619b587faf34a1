/* track_metric (each acknowledged after its sync) against a bare LMDB that commits one row for each
 * that waits, also with a thousand alert rules and thousands of metrics; lines of a metrics file a
 * second; what a report costs with more and more points behind it; and the start with all of that.
 *
 *     bench_health [SECONDS [POINTS…]]     default: 3 1000 100000; 10000000 takes some minutes */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bus/client.h"
#include "bus/host.h"
#include "bus/process.h"
#include "proto/mp.h"
#include "support_floor.h"

extern const actor_def_t health_actor;

enum { MOST = 16, REPORTS = 50, METRICS = 10, RULES = 1000, SERIES = 5000 };

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

typedef struct load {
    const char *run_dir;
    int number;
    double end;
    uint64_t count;
    pthread_t thread;
} load_t;

static bytes_t ask(client_t *client, arena_t *arena, const char *method, const buf_t *args)
{
    client_call_t call = {.peer = "health",
                          .method = method,
                          .args = buf_bytes(args),
                          .role = ROLE_ADMIN,
                          .timeout_ms = 60000};
    client_reply_t reply = client_call(client, arena, &call);
    if (err_is(reply.err)) {
        fprintf(stderr, "bench_health: %s: %s\n", method, err_what(reply.err));
        exit(1);
    }
    return reply.body;
}

static void *run_load(void *arg)
{
    load_t *load = arg;
    arena_t *arena = arena_new();
    client_t *client;
    if (err_is(client_open(load->run_dir, arena, &client)))
        abort();
    for (; now_s() < load->end; load->count++) {
        buf_t args;
        arena_reset(arena);
        buf_open(&args, arena);
        mp_put_map(&args, 3);
        mp_put_str(&args, "agent");
        mp_put_str(&args, arena_printf(arena, "client-%d", load->number));
        mp_put_str(&args, "metric");
        mp_put_str(&args, "latency");
        mp_put_str(&args, "value");
        mp_put_real(&args, (double)load->count);
        ask(client, arena, "track_metric", &args);
    }
    client_close(&client);
    arena_destroy(&arena);
    return NULL;
}

static double track_rate(const char *run_dir, int clients, double seconds)
{
    load_t loads[MOST] = {0};
    uint64_t count = 0;
    double began = now_s();
    for (int i = 0; i < clients; i++) {
        loads[i] = (load_t){.run_dir = run_dir, .number = i, .end = began + seconds};
        pthread_create(&loads[i].thread, NULL, run_load, &loads[i]);
    }
    for (int i = 0; i < clients; i++) {
        pthread_join(loads[i].thread, NULL);
        count += loads[i].count;
    }
    return (double)count / (now_s() - began);
}

/* ---- Many rules and metrics ---- */

static FILE *open_today(const char *data)
{
    char path[256], day[32];
    time_t now = time(NULL);
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(day, sizeof(day), "%Y-%m-%d", &parts);
    snprintf(path, sizeof(path), "%s/metrics/%s.ndjson", data, day);
    FILE *file = fopen(path, "ae");
    if (!file)
        abort();
    return file;
}

/* Until the rules are in force and the metrics known. */
static void write_many(const char *data, client_t *client, arena_t *arena)
{
    char path[256];
    bytes_t field;
    buf_t none;
    int64_t seen = 0;
    snprintf(path, sizeof(path), "%s/alert_rules.json", data);
    FILE *rules = fopen(path, "we"), *file = open_today(data);
    if (!rules)
        abort();
    for (int i = 0; i < RULES; i++)
        fprintf(rules, "%c{\"metric\":\"s%d\",\"operator\":\">\",\"threshold\":1e9}\n",
                i ? ',' : '[', i);
    fprintf(rules, "]");
    fclose(rules);
    for (int i = 0; i < SERIES; i++)
        fprintf(file, "{\"timestamp\":%lld,\"agent\":\"many\",\"metric\":\"s%d\",\"value\":1}\n",
                (long long)time(NULL) * 1000, i);
    fclose(file);
    buf_open(&none, arena);
    for (int i = 0; i < 2; i++)
        do
            seen = mp_get(ask(client, arena, "get_company_metrics", &none),
                          i ? "metrics" : "alerts", &field) &&
                           mp_int(field, &seen)
                       ? seen
                       : 0;
        while (seen < (i ? SERIES : RULES));
}

/* ---- Reports ---- */

static void write_points(const char *data, int64_t from, int64_t to)
{
    time_t now = time(NULL);
    FILE *file = open_today(data);
    for (int64_t i = from; i < to; i++)
        fprintf(file,
                "{\"timestamp\":%" PRId64 ",\"agent\":\"file\",\"metric\":\"m%d\",\"value\":%d}\n",
                ((int64_t)now - i % 3000) * 1000, (int)(i % METRICS), (int)(i * 7919 % 1000));
    fclose(file);
}

static bytes_t report(client_t *client, arena_t *arena, const char *timeframe)
{
    buf_t args;
    arena_reset(arena);
    buf_open(&args, arena);
    mp_put_map(&args, 2);
    mp_put_str(&args, "timeframe");
    mp_put_str(&args, timeframe);
    mp_put_str(&args, "agent");
    mp_put_str(&args, "file");
    return ask(client, arena, "get_health_report", &args);
}

static int64_t counted(bytes_t body)
{
    bytes_t metrics, metric, field;
    char name[32];
    int64_t total = 0, count;
    if (!mp_get(body, "metrics", &metrics))
        return 0;
    for (int i = 0; i < METRICS; i++) {
        snprintf(name, sizeof(name), "file:m%d", i);
        if (mp_get(metrics, name, &metric) && mp_get(metric, "count", &field) &&
            mp_int(field, &count))
            total += count;
    }
    return total;
}

static int by_value(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void time_reports(client_t *client, arena_t *arena, int64_t points)
{
    static const char *const frames[] = {"last_hour", "last_day", "last_week"};
    process_usage_t usage;
    process_usage(&usage);
    printf("%10" PRId64 " points:", points);
    for (int frame = 0; frame < 3; frame++) {
        double times[REPORTS];
        for (int i = 0; i < REPORTS; i++) {
            double began = now_s();
            report(client, arena, frames[frame]);
            times[i] = (now_s() - began) * 1e3;
        }
        qsort(times, REPORTS, sizeof(*times), by_value);
        printf("  %s p50 %.2f ms p99 %.2f ms", frames[frame], times[REPORTS / 2],
               times[REPORTS - 1]);
    }
    printf("  memory %.1f MiB\n", (double)usage.resident_bytes / 1048576);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const int clients[] = {1, 16};
    double seconds = argc > 1 ? atof(argv[1]) : 3;
    const char *const settings[] = {"health.poll_ms=50", "health.observe_ms=0", NULL};
    char dir[] = "/var/tmp/agency-bench-XXXXXX", command[128];
    arena_t *arena = arena_new(), *scratch = arena_new();
    host_t *host;
    client_t *client;
    if (seconds <= 0 || !mkdtemp(dir))
        return 2;
    host_options_t options = {.data_dir = dir, .transport = TRANSPORT_IPC, .settings = settings};
    double began = now_s();
    err_t err = host_open(&options, arena, &host);
    if (!err_is(err))
        err = host_start(host, &health_actor, NULL, arena);
    if (!err_is(err))
        err = client_open(host_run_dir(host), arena, &client);
    if (err_is(err)) {
        fprintf(stderr, "bench_health: %s\n", err_what(err));
        return 1;
    }
    printf("start %.1f ms\n", (now_s() - began) * 1e3);
    for (int i = 0; i < 2; i++) {
        double floor =
            floor_rows(arena_printf(arena, "%s/floor%d", dir, i), clients[i], 100, seconds);
        double rate = track_rate(host_run_dir(host), clients[i], seconds);
        printf("track_metric %2d clients %8.0f/s   bare LMDB %8.0f/s   ratio %.2f\n", clients[i],
               rate, floor, rate / floor);
    }
    double plain = track_rate(host_run_dir(host), MOST, seconds);
    write_many(dir, client, scratch);
    double watched = track_rate(host_run_dir(host), MOST, seconds);
    printf("track_metric %2d clients %8.0f/s   with %d alert rules and %d metrics   ratio %.2f\n",
           MOST, watched, RULES, SERIES, watched / plain);
    int64_t written = 0;
    for (int i = 2; i < argc || i < 4; i++) {
        int64_t points = i < argc ? atoll(argv[i]) : i == 2 ? 1000 : 100000;
        if (argc > 2 && i >= argc)
            break;
        write_points(dir, written, points);
        double from = now_s();
        while (counted(report(client, scratch, "last_hour")) < points) {
        }
        printf("%10" PRId64 " lines of a file taken in: %.0f/s\n", points - written,
               (double)(points - written) / (now_s() - from));
        written = points;
        time_reports(client, scratch, points);
    }
    client_close(&client);
    host_close(&host, 1000);
    began = now_s();
    err = host_open(&options, arena, &host);
    if (!err_is(err))
        err = host_start(host, &health_actor, NULL, arena);
    if (!err_is(err))
        err = client_open(host_run_dir(host), arena, &client);
    if (err_is(err))
        abort();
    report(client, scratch, "last_hour");
    printf("start with all of that, to the first report %.1f ms\n", (now_s() - began) * 1e3);
    client_close(&client);
    host_close(&host, 1000);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    arena_destroy(&scratch);
    arena_destroy(&arena);
    return system(command) ? 1 : 0;
}
