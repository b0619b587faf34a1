#include "actors/cli/processes.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HERE_MS = 1000, AWAY_MS = 3000 };

static int read_pid(const char *path)
{
    FILE *file = fopen(path, "r");
    int pid = 0;
    if (file && fscanf(file, "%d", &pid) != 1)
        pid = 0;
    if (file)
        fclose(file);
    return pid;
}

static int by_name(const struct dirent **one, const struct dirent **other)
{
    return strcmp((*one)->d_name, (*other)->d_name);
}

static int has_pid(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && !strcmp(dot, ".pid") && strcmp(entry->d_name, "up.pid") != 0;
}

process_t *processes_list(cli_t *cli, const char *run_dir, size_t *count)
{
    struct dirent **entries = NULL;
    int found = run_dir ? scandir(run_dir, &entries, has_pid, by_name) : 0;
    size_t most = found > 0 ? (size_t)found : 0;
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        most++;
    process_t *list = ARENA_ARRAY(cli->arena, process_t, most);
    *count = 0;
    for (int i = 0; i < found; i++) {
        const char *file = entries[i]->d_name;
        list[(*count)++] =
            (process_t){.name = arena_strndup(cli->arena, file, strlen(file) - strlen(".pid")),
                        .pid = read_pid(arena_printf(cli->arena, "%s/%s", run_dir, file))};
        free(entries[i]);
    }
    free(entries);
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        if (cli_is_away(cli, at->def->name))
            list[(*count)++] = (process_t){.name = at->def->name};
    return list;
}

client_reply_t process_stats(cli_t *cli, client_t *client, const process_t *process)
{
    client_call_t call = {.peer = process->name,
                          .method =
                              arena_printf(cli->arena, "%s.stats", cli_kind_of(cli, process->name)),
                          .role = ROLE_ADMIN,
                          .timeout_ms = process->pid ? HERE_MS : AWAY_MS};
    return client_call(client, cli->arena, &call);
}

int64_t process_total(bytes_t stats, const char *key)
{
    bytes_t methods = mp_member(stats, "methods"), row;
    int64_t sum = 0;
    for (uint32_t i = 0; methods.size && mp_at(methods, i, &row); i++)
        sum += mp_member_int(row, key);
    return sum;
}

int64_t process_resident_kib(int pid)
{
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    long long kib = 0;
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmRSS: %lld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

int64_t process_cpu_ms(int pid)
{
    char path[64], line[1024];
    long long user = 0, kernel = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    /* The name may hold anything, so the fields begin behind its last bracket: utime and stime are
     * the 12th and 13th from there, proc(5). */
    const char *rest = file && fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
    if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld", &user,
                        &kernel) != 2)
        user = kernel = 0;
    if (file)
        fclose(file);
    return (user + kernel) * 1000 / sysconf(_SC_CLK_TCK);
}

const char *process_duration(arena_t *arena, int64_t ms)
{
    int64_t s = ms / 1000;
    if (s < 60)
        return arena_printf(arena, "%lld.%llds", (long long)s, (long long)(ms % 1000 / 100));
    if (s < 3600)
        return arena_printf(arena, "%lldm%02llds", (long long)(s / 60), (long long)(s % 60));
    return arena_printf(arena, "%lldh%02lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
}
