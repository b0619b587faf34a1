/* inspect: looking at a running agency over the bus, and at its files when it is down. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "actors/cli/processes.h"
#include "bus/client.h"

/* ---- status ---- */

static bool show(cli_t *cli, client_t *client, const process_t *process)
{
    int pid = process->pid;
    const char *where = pid ? arena_printf(cli->arena, "%d", pid) : "tcp";
    client_reply_t reply = process_stats(cli, client, process);
    if (err_is(reply.err)) {
        printf("%-20s %8s  does not answer\n", process->name, where);
        return false;
    }
    printf("%-20s %8s %10s %7s KiB %9lld %7lld %7lld %8lld\n", process->name, where,
           process_duration(cli->arena, mp_member_int(reply.body, "uptime_ms")),
           pid ? arena_printf(cli->arena, "%lld", (long long)process_resident_kib(pid)) : "-",
           (long long)process_total(reply.body, "calls"),
           (long long)process_total(reply.body, "errors"),
           (long long)mp_member_int(reply.body, "inbox"),
           (long long)mp_member_int(reply.body, "commits"));
    return true;
}

/* The MCP servers of mcp.json, when there are any. */
static void show_servers(cli_t *cli, client_t *client)
{
    client_call_t call = {.peer = "outside",
                          .method = "mcp_servers",
                          .company = cli->company,
                          .role = ROLE_ADMIN,
                          .timeout_ms = 1000};
    client_reply_t reply = client_call(client, cli->arena, &call);
    if (err_is(reply.err))
        return;
    bytes_t first, servers = mp_member(reply.body, "servers");
    if (mp_member(reply.body, "problem").size || (servers.size && mp_at(servers, 0, &first)))
        printf("\nmcp servers\n%s\n", reply.text ? reply.text : "");
}

int cli_status(cli_t *cli)
{
    const char *run_dir;
    client_t *client;
    size_t count, up = 0;
    err_t err = cli_client(cli, &client);
    if (err_is(err))
        return cli_fail(err);
    if (err_is(cli_run_dir(cli, &run_dir)))
        run_dir = NULL;
    else
        printf("data %s, sockets %s\n", cli->data_dir, run_dir);
    printf("%-20s %8s %10s %11s %9s %7s %7s %8s\n", "process", "pid", "up", "resident", "calls",
           "errors", "inbox", "commits");
    const process_t *list = processes_list(cli, run_dir, &count);
    for (size_t i = 0; i < count; i++)
        up += show(cli, client, &list[i]);
    if (up)
        show_servers(cli, client);
    client_close(&client);
    if (!up)
        puts("nothing is up; try: agency up");
    return up && up == count ? EXIT_DONE : EXIT_UNREACHABLE;
}

/* ---- bus tap, bus lat ---- */

static bool show_event(void *ctx, const char *topic, const header_t *header, bytes_t body)
{
    cli_t *cli = ctx;
    arena_t *arena = arena_new();
    buf_t json;
    buf_open(&json, arena);
    if (err_is(json_from_msgpack(body, JSON_COMPACT, &json)))
        buf_puts(&json, "(not readable)");
    if (cli->json)
        printf("{\"from\":\"%s\",\"seq\":%lld,\"topic\":\"%s\",\"body\":%s}\n", header->from,
               (long long)header->seq, topic, json.data);
    else
        printf("%s #%lld %s %s\n", header->from, (long long)header->seq, topic, json.data);
    fflush(stdout);
    arena_destroy(&arena);
    return true;
}

static int compare(const void *one, const void *other)
{
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

static client_reply_t ping(cli_t *cli, client_t *client, const char *pillar)
{
    client_call_t call = {.peer = pillar,
                          .method = arena_printf(cli->arena, "%s.ping", cli_kind_of(cli, pillar)),
                          .role = ROLE_ADMIN,
                          .timeout_ms = cli->timeout_ms};
    return client_call(client, cli->arena, &call);
}

static int measure(cli_t *cli, client_t *client, const char *pillar)
{
    enum { ROUNDS = 1000 };
    int64_t *us = ARENA_ARRAY(cli->arena, int64_t, ROUNDS);
    for (int i = 0; i < ROUNDS; i++) {
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        client_reply_t reply = ping(cli, client, pillar);
        clock_gettime(CLOCK_MONOTONIC, &after);
        if (err_is(reply.err))
            return cli_fail(reply.err);
        us[i] = (int64_t)(after.tv_sec - before.tv_sec) * 1000000 +
                (after.tv_nsec - before.tv_nsec) / 1000;
    }
    qsort(us, ROUNDS, sizeof(*us), compare);
    printf("%s: %d round trips, p50 %lld us, p99 %lld us, max %lld us\n", pillar, ROUNDS,
           (long long)us[ROUNDS / 2], (long long)us[ROUNDS * 99 / 100], (long long)us[ROUNDS - 1]);
    return EXIT_DONE;
}

int cli_bus(cli_t *cli)
{
    if (cli->count < 2)
        return cli_usage("agency bus tap PILLAR [TOPIC], or agency bus lat PILLAR");
    const char *word = cli->words[0], *pillar = cli->words[1];
    bool tap = !strcmp(word, "tap");
    if (!tap && (strcmp(word, "lat") != 0 || cli->count > 2))
        return cli_usage("agency bus knows tap PILLAR [TOPIC] and lat PILLAR, not '%s'",
                         cli->count > 2 && !strcmp(word, "lat") ? cli->words[2] : word);
    client_t *client;
    err_t err = cli_client(cli, &client);
    if (err_is(err))
        return cli_fail(err);
    int code = EXIT_DONE;
    if (!tap) {
        code = measure(cli, client, pillar);
    } else {
        /* Events come whenever they come; that there is no such pillar is said at once. */
        if (!client_reaches(client, pillar))
            err = err_make(cli->arena, ERR_UNAVAILABLE,
                           "there is no '%s' here: agency status lists who is up", pillar);
        else
            err = client_tap(client, pillar, cli->count == 3 ? cli->words[2] : "", -1, show_event,
                             cli);
        code = err_is(err) ? cli_fail(err) : EXIT_DONE;
    }
    client_close(&client);
    return code;
}

/* ---- store stat, store check ---- */

static int show_stat(cli_t *cli, store_pool_t *pool, const char *pillar, const char *company)
{
    store_stat_t stat;
    err_t err = store_stat(pool, company, cli->arena, &stat);
    if (err_is(err))
        return cli_fail(err);
    buf_t body;
    buf_open(&body, cli->arena);
    record_encode(&store_stat_record, &stat, &body);
    if (cli->json) {
        cli_print(cli, NULL, buf_bytes(&body));
        return EXIT_DONE;
    }
    printf("%s/%s: format %lld, file %lld KiB, in use %lld KiB, map %lld KiB\n", pillar, company,
           (long long)stat.format, (long long)stat.file_bytes / 1024,
           (long long)stat.used_bytes / 1024, (long long)stat.map_bytes / 1024);
    for (size_t i = 0; i < stat.tables.count; i++)
        if (stat.tables.items[i].rows)
            printf("  %-16s %10lld rows %10lld KiB\n", stat.tables.items[i].name,
                   (long long)stat.tables.items[i].rows,
                   (long long)stat.tables.items[i].bytes / 1024);
    return EXIT_DONE;
}

static int check_one(cli_t *cli, store_pool_t *pool, const char *pillar, const char *company)
{
    err_t err = store_check(pool, company, cli->arena);
    printf("%s/%s: %s\n", pillar, company, err_is(err) ? err_what(err) : "ok");
    return err_is(err) ? EXIT_REFUSED : EXIT_DONE;
}

static int each_company(cli_t *cli, const actor_def_t *def, bool check)
{
    store_pool_t *pool;
    strs_t companies;
    err_t err = actor_store_open(def, cli->data_dir, cli->arena, &pool);
    if (err_is(err))
        return cli_fail(err);
    int code = EXIT_DONE;
    err = store_pool_companies(pool, cli->arena, &companies);
    for (size_t i = 0; !err_is(err) && i < companies.count; i++) {
        const char *company = companies.items[i];
        if (cli->company && strcmp(cli->company, company) != 0)
            continue;
        int one = check ? check_one(cli, pool, def->name, company)
                        : show_stat(cli, pool, def->name, company);
        if (one != EXIT_DONE)
            code = one;
    }
    store_pool_close(&pool);
    return err_is(err) ? cli_fail(err) : code;
}

int cli_store(cli_t *cli)
{
    const char *word = cli->count ? cli->words[0] : "";
    bool check = !strcmp(word, "check"), restore = !strcmp(word, "restore");
    if (cli->force && !restore)
        return cli_usage("--force is for store restore");
    if (restore || !strcmp(word, "backup")) {
        if (cli->count != 2)
            return cli_usage("say which directory: agency store %s DIR", word);
        return restore ? cli_restore(cli, cli->words[1]) : cli_backup(cli, cli->words[1]);
    }
    if (!cli->count || cli->count > 2 || (!check && strcmp(word, "stat") != 0))
        return cli_usage("agency store backup DIR, restore DIR, stat [PILLAR] or check [PILLAR]");
    if (access(cli->data_dir, R_OK))
        return cli_fail(
            err_make(cli->arena, ERR_NOT_FOUND, "there is no data directory %s", cli->data_dir));
    int code = EXIT_DONE;
    bool any = false;
    for (const cli_actor_t *at = cli->house->actors; at->def; at++) {
        if (!at->def->tables || (cli->count == 2 && strcmp(cli->words[1], at->def->name) != 0))
            continue;
        const char *dir = arena_printf(cli->arena, "%s/%s", cli->data_dir, at->def->name);
        if (access(dir, R_OK) && cli->count < 2)
            continue;
        any = true;
        int one = each_company(cli, at->def, check);
        if (one != EXIT_DONE)
            code = one;
    }
    return any ? code
               : cli_usage("there is no pillar with a store called '%s'",
                           cli->count == 2 ? cli->words[1] : "");
}
