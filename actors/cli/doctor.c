#include "actors/cli/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bus/client.h"

enum { FILES_WANTED = 1024, ANSWER_MS = 1000, MEMORY_WARN_MIB = 512 };

static const char *const finding_names[] = {"ok", "warn", "fail"};

void doctor_say(doctor_t *self, finding_t finding, const char *name, const char *what,
                const char *advice)
{
    if (!self->cli->json)
        printf("%-5s %-18s %s%s%s\n", finding_names[finding], name, what, *advice ? "; " : "",
               advice);
    mp_put_map(&self->rows, 4);
    mp_put_str(&self->rows, "finding");
    mp_put_str(&self->rows, finding_names[finding]);
    mp_put_str(&self->rows, "name");
    mp_put_str(&self->rows, name);
    mp_put_str(&self->rows, "what");
    mp_put_str(&self->rows, what);
    mp_put_str(&self->rows, "advice");
    mp_put_str(&self->rows, advice);
    self->count++;
    if (finding > self->worst)
        self->worst = finding;
}

/* ---- The machine ---- */

static void look_at_clock(doctor_t *self)
{
    char text[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    bool wrong = tm.tm_year + 1900 < 2024;
    doctor_say(self, wrong ? FINDING_FAIL : FINDING_OK, "clock", text,
               wrong ? "set it; leases and schedules go by it" : "");
}

static void look_at_files(doctor_t *self)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return;
    bool few = limit.rlim_cur < FILES_WANTED;
    doctor_say(
        self, few ? FINDING_WARN : FINDING_OK, "file descriptors",
        arena_printf(self->cli->arena, "%llu per process", (unsigned long long)limit.rlim_cur),
        few ? "ulimit -n 1024 or more; each open company takes three" : "");
}

/* A number in a file of /proc, or -1. */
static long long proc_number(const char *path)
{
    FILE *file = fopen(path, "r");
    long long number = -1;
    if (file && fscanf(file, "%lld", &number) != 1)
        number = -1;
    if (file)
        fclose(file);
    return number;
}

/* In MiB: of the control group when it has a limit, else of the machine. */
static long long memory_mib(void)
{
    long long limit = proc_number("/sys/fs/cgroup/memory.max");
    char line[256];
    long long kib = -1;
    if (limit > 0)
        return limit >> 20;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && kib < 0 && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemTotal: %lld", &kib) != 1)
            kib = -1;
    if (file)
        fclose(file);
    return kib < 0 ? -1 : kib >> 10;
}

static void look_at_memory(doctor_t *self)
{
    long long mib = memory_mib();
    if (mib < 0)
        return;
    doctor_say(self, mib < MEMORY_WARN_MIB ? FINDING_WARN : FINDING_OK, "memory",
               arena_printf(self->cli->arena, "%lld MiB", mib),
               mib < MEMORY_WARN_MIB ? "the agent pod asks for 448 MiB, the brain for 256" : "");
}

static void look_at_zones(doctor_t *self)
{
    bool there = !access("/usr/share/zoneinfo/Europe/Berlin", R_OK);
    doctor_say(self, there ? FINDING_OK : FINDING_WARN, "time zones",
               there ? "tzdata is there" : "without tzdata only UTC is known",
               there ? "" : "install tzdata if schedules name other zones");
}

static void look_at_kernel(doctor_t *self)
{
    bool none = access("/proc/self/ns/user", F_OK) ||
                proc_number("/proc/sys/user/max_user_namespaces") == 0 ||
                proc_number("/proc/sys/kernel/unprivileged_userns_clone") == 0;
    doctor_say(self, none ? FINDING_WARN : FINDING_OK, "user namespaces",
               none ? "the kernel forbids them" : "the kernel allows them",
               none ? "sh steps run without a namespace of their own" : "");
}

/* ---- The pillars ---- */

int doctor_lock_holder(const char *path)
{
    struct stat stat_of;
    if (stat(path, &stat_of))
        return 0;
    FILE *file = fopen("/proc/locks", "r");
    char line[256];
    int found = 0;
    while (file && !found && fgets(line, sizeof(line), file)) {
        int pid;
        unsigned major, minor;
        unsigned long long inode;
        if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%llu", &pid, &major, &minor, &inode) == 4 &&
            inode == (unsigned long long)stat_of.st_ino)
            found = pid;
    }
    if (file)
        fclose(file);
    return found;
}

/* proc(5), /proc/net/tcp: "sl local_address rem_address st …"; state 0A listens. */
static bool listens_in(const char *path, int port)
{
    char line[512];
    unsigned at, state;
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof(line), file))
        found = sscanf(line, " %*[^:]: %*[0-9A-Fa-f]:%x %*s %x", &at, &state) == 2 &&
                (int)at == port && state == 0x0A;
    fclose(file);
    return found;
}

static bool listens(int port)
{
    return listens_in("/proc/net/tcp", port) || listens_in("/proc/net/tcp6", port);
}

static bool answers(doctor_t *self, client_t *client, const char *pillar)
{
    client_call_t call = {.peer = pillar,
                          .method = arena_printf(self->cli->arena, "%s.ping", pillar),
                          .role = ROLE_ADMIN,
                          .timeout_ms = ANSWER_MS};
    return client && !err_is(client_call(client, self->cli->arena, &call).err);
}

static void look_at_port(doctor_t *self, const char *pillar, int port, bool up)
{
    arena_t *arena = self->cli->arena;
    const char *name = arena_printf(arena, "port %d", port);
    bool taken = port <= 65535 && listens(port);
    if (port > 65535)
        doctor_say(self, FINDING_FAIL, name, "there is no such port",
                   "use a smaller --port-offset");
    else if (up && !taken)
        doctor_say(self, FINDING_WARN, name,
                   arena_printf(arena, "%s does not listen there", pillar),
                   "it was started with another --port-offset or --bind");
    else if (!up && taken)
        doctor_say(self, FINDING_FAIL, name,
                   arena_printf(arena, "%s needs it; somebody has it", pillar),
                   "stop that program or use --port-offset");
    else
        doctor_say(self, FINDING_OK, name, up ? "listens" : "free", "");
}

static void look_at_pillar(doctor_t *self, client_t *client, const cli_actor_t *actor)
{
    arena_t *arena = self->cli->arena;
    const char *pillar = actor->def->name;
    int holder =
        doctor_lock_holder(arena_printf(arena, "%s/%s/owner", self->cli->data_dir, pillar));
    bool up = answers(self, client, pillar);
    self->answering += up;
    if (up)
        doctor_say(self, FINDING_OK, pillar, "answers", "");
    else if (holder)
        doctor_say(self, FINDING_FAIL, pillar,
                   arena_printf(arena, "process %d owns its files but it does not answer", holder),
                   "look at its log; stop that process and start again");
    else
        doctor_say(self, FINDING_OK, pillar, "does not run", "");
    look_at_port(self, pillar, actor->port + self->cli->port_offset, up);
}

static void look_at_pillars(doctor_t *self)
{
    cli_t *cli = self->cli;
    const char *run_dir;
    client_t *client = NULL;
    err_t err = cli_run_dir(cli, &run_dir);
    if (!err_is(err))
        doctor_say(self, FINDING_OK, "run directory", run_dir, "");
    else if (err.code != ERR_NOT_FOUND && !access(cli->data_dir, F_OK))
        doctor_say(self, FINDING_FAIL, "run directory", err_what(err), "use a shorter --data");
    /* Without the directory nothing can run in it, and looking must not make it. */
    if (!err_is(err) && !access(run_dir, X_OK) && err_is(cli_client(cli, &client)))
        client = NULL; /* then nobody answers, which is said below */
    size_t count = 0;
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        if (place_address(&self->place, at->def->name)) {
            doctor_say(self, FINDING_OK, at->def->name,
                       arena_printf(cli->arena, "is at %s, not on this machine",
                                    place_address(&self->place, at->def->name)),
                       "");
        } else if (at->up && at->port) { /* workers come and go, and are not needed to answer */
            look_at_pillar(self, client, at);
            count++;
        }
    if (self->answering && self->answering < count)
        doctor_say(self, FINDING_FAIL, "pillars",
                   arena_printf(cli->arena, "only %zu of %zu answer", self->answering, count),
                   "agency status shows who; look at the log of agency up");
    if (client)
        client_close(&client);
}

int cli_doctor(cli_t *cli)
{
    if (cli->count)
        return cli_usage("doctor takes no words");
    doctor_t self = {.cli = cli};
    buf_open(&self.rows, cli->arena);
    doctor_say(&self, FINDING_OK, "version", cli->house->version, "");
    look_at_clock(&self);
    look_at_files(&self);
    look_at_kernel(&self);
    look_at_memory(&self);
    look_at_zones(&self);
    doctor_settings(&self);
    doctor_data(&self);
    doctor_secrets(&self);
    look_at_pillars(&self);
    if (cli->json) {
        buf_t out;
        buf_open(&out, cli->arena);
        mp_put_map(&out, 2);
        mp_put_str(&out, "worst");
        mp_put_str(&out, finding_names[self.worst]);
        mp_put_str(&out, "findings");
        mp_put_array(&out, self.count);
        buf_put(&out, self.rows.data, self.rows.size);
        cli_print(cli, NULL, buf_bytes(&out));
    }
    return self.worst == FINDING_FAIL ? EXIT_REFUSED : EXIT_DONE;
}
