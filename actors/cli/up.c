/* up: the supervisor. One process per pillar and worker, started again when it dies; all of them
 * die with it. It keeps no state worth saving, so it may be killed at any instant.
 *
 * Which workers there are is said by <run>/workers.want, one name a line, which elastic replaces as
 * a whole: a name that appears is started, one that is gone gets SIGTERM and may take its time. So
 * workers outlive elastic, and whoever dies finds the same wish again. --workers N fixes them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "actors/cli/crew.h"
#include "bus/listen.h"
#include "bus/process.h"

enum { STOP_MS = 25000, MOST_WORKERS = 64 };

static const char want_name[] = "workers.want";

typedef struct house_up {
    cli_t *cli;
    const char *run_dir;
    int signals;
    int notes; /* inotify of the run directory; -1: the workers are fixed */
    crew_t crew;
    bool announced;
} house_up_t;

/* ---- One supervisor for one data directory ---- */

static err_t lock_house(house_up_t *up)
{
    arena_t *arena = up->cli->arena;
    const char *path = arena_printf(arena, "%s/up.pid", up->run_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_make(arena, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        char pid[32] = "";
        ssize_t size = read(fd, pid, sizeof(pid) - 1);
        pid[size > 0 ? size : 0] = '\0';
        pid[strcspn(pid, "\n")] = '\0';
        close(fd);
        return err_make(arena, ERR_OWNED,
                        "an agency is already up on %s (process %s); stop it with `agency down`, "
                        "or choose another --data and --port-offset",
                        up->cli->data_dir, pid);
    }
    char text[32];
    int size = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)size, 0) != size)
        return err_make(arena, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    return err_ok(); /* held open, and locked, for life */
}

/* ---- Which workers there are ---- */

/* worker-1 to worker-64; anything else is no name of ours. */
static const char *worker_name(house_up_t *up, const char *line)
{
    char *end;
    long number = strncmp(line, "worker-", 7) ? 0 : strtol(line + 7, &end, 10);
    if (number < 1 || number > MOST_WORKERS || *end)
        return NULL;
    const char *name = arena_printf(up->cli->arena, "worker-%ld", number);
    return strcmp(name, line) ? NULL : name;
}

static void want_worker(house_up_t *up, const char *line, bool *wanted)
{
    kid_t *kid = crew_find(&up->crew, line);
    const char *name = kid ? kid->instance : worker_name(up, line);
    if (!name || (kid && strcmp(kid->actor, "worker") != 0)) {
        fprintf(stderr, "agency: %s: '%s' is no name of a worker\n", want_name, line);
        return;
    }
    if (!kid)
        kid = crew_add(&up->crew, "worker", name, 0);
    wanted[kid - up->crew.kids] = true;
}

/* No file means no wish, so nothing changes. */
static void read_want(house_up_t *up)
{
    bool wanted[CREW_MOST] = {false};
    char line[128], path[4096];
    snprintf(path, sizeof(path), "%s/%s", up->run_dir, want_name);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        want_worker(up, line, wanted);
    }
    fclose(file);
    for (int i = 0; i < up->crew.count; i++) {
        kid_t *kid = &up->crew.kids[i];
        if (wanted[i] || strcmp(kid->actor, "worker") != 0 || kid->leaving)
            continue;
        kid->leaving = true;
        if (kid->pidfd >= 0)
            kill(kid->pid, SIGTERM);
    }
}

/* A worker that was wanted again while it left is started again. */
static void forget_gone(house_up_t *up)
{
    if (crew_forget_gone(&up->crew))
        read_want(up);
}

static void watch_want(house_up_t *up)
{
    up->notes = -1;
    unlink(arena_printf(up->cli->arena, "%s/%s", up->run_dir, want_name));
    if (up->cli->workers >= 0)
        return;
    up->notes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    inotify_add_watch(up->notes, up->run_dir, IN_MOVED_TO | IN_CLOSE_WRITE);
}

static void on_notes(house_up_t *up)
{
    _Alignas(struct inotify_event) char data[4096];
    bool ours = false;
    for (ssize_t size; (size = read(up->notes, data, sizeof(data))) > 0;)
        for (char *at = data; at < data + size;) {
            const struct inotify_event *event = (const struct inotify_event *)at;
            ours |= event->mask & IN_Q_OVERFLOW || (event->len && !strcmp(event->name, want_name));
            at += sizeof(*event) + event->len;
        }
    if (ours)
        read_want(up);
}

/* ---- What the user sees ---- */

static void announce(house_up_t *up)
{
    cli_t *cli = up->cli;
    const char *at = cli->bind ? cli->bind : "127.0.0.1";
    printf("agency is ready: %d processes, data in %s\n\n", up->crew.count, cli->data_dir);
    for (int i = 0; i < up->crew.count; i++)
        if (up->crew.kids[i].port)
            printf("  %-8s http://%s:%d/mcp%s\n", up->crew.kids[i].instance, at,
                   up->crew.kids[i].port + cli->port_offset,
                   up->crew.kids[i].port == 3000 ? "   all tools: give this to your MCP client"
                                                 : "");
    printf("\nDashboard: http://%s:%d/\n",
           strcmp(at, "0.0.0.0") && strcmp(at, "::") ? at : "127.0.0.1", 3000 + cli->port_offset);
    if (!cli->tokens)
        puts("No tokens: whoever can reach this machine's loopback may name any company.");
    const char *flag = "";
    if (strcmp(cli->data_dir, ".agent") != 0)
        flag = arena_printf(cli->arena, " --data %s", cli->data_dir);
    printf("\nTry, in another terminal:\n"
           "  build/agency sop create examples/sops/workspace-report.md%s\n"
           "  build/agency sop run workspace-report input=$PWD%s\n"
           "  build/agency brain query 'workspace report'%s\n"
           "  build/agency status%s\n"
           "Stop it with Ctrl-C or build/agency down%s.\n",
           flag, flag, flag, flag, flag);
    fflush(stdout);
    up->announced = true;
}

/* ---- The watch ---- */

typedef enum verdict { GO_ON, STOP, GIVE_UP } verdict_t;

static verdict_t look(house_up_t *up, const struct pollfd *polls)
{
    if (polls[0].revents)
        return STOP;
    const kid_t *hopeless = crew_look(&up->crew, polls + 2);
    if (hopeless) {
        fprintf(stderr, "agency: %s cannot start; its own message is above. Giving up.\n",
                hopeless->instance);
        return GIVE_UP;
    }
    if (polls[1].revents)
        on_notes(up);
    forget_gone(up);
    return GO_ON;
}

static verdict_t watch(house_up_t *up)
{
    struct pollfd polls[2 + CREW_POLLS];
    for (;;) {
        crew_start_due(&up->crew);
        polls[0] = (struct pollfd){.fd = up->signals, .events = POLLIN};
        polls[1] = (struct pollfd){.fd = up->notes, .events = POLLIN};
        int count = 2 + crew_fill_polls(&up->crew, polls + 2);
        if (poll(polls, (nfds_t)count, (int)crew_next_restart(&up->crew)) < 0 && errno != EINTR)
            return GIVE_UP;
        verdict_t verdict = look(up, polls);
        if (verdict != GO_ON)
            return verdict;
        if (!up->announced && crew_ready(&up->crew)) {
            announce(up);
            process_settle();
        }
    }
}

/* Said once, instead of by each pillar at each attempt. */
static err_t check_ports(cli_t *cli)
{
    err_t err = err_ok();
    for (const cli_actor_t *at = cli->house->actors; at->def && !err_is(err); at++)
        if (at->up && at->port)
            err = listen_probe(cli->bind ? cli->bind : "127.0.0.1", at->port + cli->port_offset,
                               cli->arena);
    return err;
}

int cli_up(cli_t *cli)
{
    if (cli->count)
        return cli_usage("`agency up` takes flags only, not '%s'", cli->words[0]);
    if (cli->bind && strcmp(cli->bind, "127.0.0.1") != 0 && strcmp(cli->bind, "::1") != 0 &&
        strcmp(cli->bind, "localhost") != 0 && !cli->tokens)
        return cli_usage("--bind %s reaches beyond this machine: give --tokens FILE too",
                         cli->bind);
    host_options_t options = {.data_dir = cli->data_dir, .transport = TRANSPORT_IPC};
    host_t *host; /* makes the directories; nothing runs in it */
    err_t err = cli_check_settings(cli);
    if (!err_is(err))
        err = cli_check_restored(cli);
    if (!err_is(err))
        err = host_open(&options, cli->arena, &host);
    if (err_is(err))
        return cli_fail(err);
    house_up_t up = {.cli = cli, .run_dir = arena_strdup(cli->arena, host_run_dir(host))};
    up.crew.cli = cli;
    host_close(&host, 0);
    err = lock_house(&up);
    if (!err_is(err))
        err = check_ports(cli);
    if (err_is(err))
        return cli_fail(err);
    cli_warn_of_variables(cli);
    up.signals = cli_stop_signals();
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        if (at->up && strcmp(at->def->name, "worker") != 0)
            crew_add(&up.crew, at->def->name, at->def->name, at->port);
    watch_want(&up);
    for (int i = 1; i <= (cli->workers < 0 ? 1 : cli->workers); i++)
        crew_add(&up.crew, "worker", arena_printf(cli->arena, "worker-%d", i), 0);
    verdict_t verdict = watch(&up);
    /* Workers first, so that what they are doing can still be written down. */
    crew_stop(&up.crew, true, STOP_MS);
    crew_stop(&up.crew, false, STOP_MS);
    unlink(arena_printf(cli->arena, "%s/up.pid", up.run_dir));
    return verdict == STOP ? EXIT_DONE : EXIT_REFUSED;
}

/* ---- down ---- */

int cli_down(cli_t *cli)
{
    const char *run_dir;
    err_t err = cli_run_dir(cli, &run_dir);
    if (err_is(err))
        return cli_fail(err);
    const char *path = arena_printf(cli->arena, "%s/up.pid", run_dir);
    FILE *file = fopen(path, "r");
    int pid = 0;
    if (file) {
        if (fscanf(file, "%d", &pid) != 1)
            pid = 0;
        bool held = flock(fileno(file), LOCK_EX | LOCK_NB) != 0;
        fclose(file);
        if (!held)
            pid = 0;
    }
    if (pid <= 0) {
        fprintf(stderr, "agency: nothing is up on %s\n", cli->data_dir);
        return EXIT_UNREACHABLE;
    }
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0 || kill(pid, SIGTERM))
        return cli_fail(
            err_make(cli->arena, ERR_IO, "cannot stop process %d: %s", pid, strerror(errno)));
    struct pollfd gone = {.fd = fd, .events = POLLIN};
    if (poll(&gone, 1, 2 * STOP_MS + 5000) != 1)
        return cli_fail(err_make(cli->arena, ERR_TIMEOUT, "process %d is still draining", pid));
    puts("agency is down");
    return EXIT_DONE;
}
