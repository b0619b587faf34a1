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
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actors/cli/cli.h"

extern char **environ;

enum {
    MOST_CHILDREN = 80,
    GIVE_UP_EXITS = 5,     /* deaths before readiness … */
    GIVE_UP_MS = 30000,    /* … within this time */
    FIRST_BACKOFF_MS = 10, /* a pillar that was ready is back at once */
    LONGEST_BACKOFF_MS = 5000,
    STOP_MS = 25000,
    MOST_WORKERS = 64
};

static const char want_name[] = "workers.want";

typedef struct kid {
    const char *actor, *instance;
    int port;
    pid_t pid;
    int pidfd;    /* -1: not running */
    int ready_fd; /* -1: ready, or not running */
    bool ready;
    bool leaving; /* a worker that nobody wants any more */
    int64_t backoff_ms, restart_at_ms;
    int64_t early_at_ms[GIVE_UP_EXITS];
    int early_count;
} kid_t;

typedef struct house_up {
    cli_t *cli;
    const char *run_dir;
    int signals;
    int notes; /* inotify of the run directory; -1: the workers are fixed */
    kid_t kids[MOST_CHILDREN];
    int count;
    bool announced;
} house_up_t;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

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

/* ---- Children ---- */

static void add_kid(house_up_t *up, const char *actor, const char *instance, int port)
{
    up->kids[up->count++] = (kid_t){.actor = actor,
                                    .instance = instance,
                                    .port = port,
                                    .pidfd = -1,
                                    .ready_fd = -1,
                                    .backoff_ms = FIRST_BACKOFF_MS};
}

static char **kid_arguments(house_up_t *up, const kid_t *kid)
{
    cli_t *cli = up->cli;
    char **argv = ARENA_ARRAY(cli->arena, char *, 20);
    int count = 0;
    argv[count++] = "agency";
    argv[count++] = "run";
    argv[count++] = (char *)kid->actor;
    if (strcmp(kid->actor, kid->instance) != 0)
        argv[count++] = (char *)kid->instance;
    argv[count++] = "--data";
    argv[count++] = (char *)cli->data_dir;
    argv[count++] = arena_printf(cli->arena, "--port-offset=%d", cli->port_offset);
    if (cli->company)
        argv[count++] = arena_printf(cli->arena, "--company=%s", cli->company);
    if (cli->bind)
        argv[count++] = arena_printf(cli->arena, "--bind=%s", cli->bind);
    if (cli->tokens)
        argv[count++] = arena_printf(cli->arena, "--tokens=%s", cli->tokens);
    if (cli->behind_proxy)
        argv[count++] = "--behind-proxy";
    if (cli->workers >= 0 && !strcmp(kid->actor, "elastic"))
        argv[count++] = arena_printf(cli->arena, "--workers=%d", cli->workers);
    return argv;
}

static char **kid_environment(house_up_t *up, int ready_fd)
{
    size_t count = 0;
    while (environ[count])
        count++;
    char **list = ARENA_ARRAY(up->cli->arena, char *, count + 3);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "AGENCY_PARENT=", 14) != 0 &&
            strncmp(environ[i], "AGENCY_READY_FD=", 16) != 0)
            list[kept++] = environ[i];
    list[kept++] = arena_printf(up->cli->arena, "AGENCY_PARENT=%d", (int)getpid());
    list[kept++] = arena_printf(up->cli->arena, "AGENCY_READY_FD=%d", ready_fd);
    return list;
}

static int spawn_kid(house_up_t *up, kid_t *kid, int ready_fd)
{
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    int failed = posix_spawn(&kid->pid, "/proc/self/exe", NULL, &attributes, kid_arguments(up, kid),
                             kid_environment(up, ready_fd));
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static void start_kid(house_up_t *up, kid_t *kid)
{
    int fds[2];
    kid->ready = false;
    kid->restart_at_ms = 0;
    if (pipe(fds)) {
        kid->restart_at_ms = now_ms() + kid->backoff_ms;
        return;
    }
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    int failed = spawn_kid(up, kid, fds[1]);
    close(fds[1]);
    if (failed) {
        fprintf(stderr, "agency: cannot start %s: %s\n", kid->instance, strerror(failed));
        close(fds[0]);
        kid->restart_at_ms = now_ms() + LONGEST_BACKOFF_MS;
        return;
    }
    kid->ready_fd = fds[0];
    kid->pidfd = (int)syscall(SYS_pidfd_open, kid->pid, 0);
}

/* Only deaths before readiness count towards giving up. */
static bool hopeless(kid_t *kid)
{
    if (kid->ready) {
        kid->early_count = 0;
        kid->backoff_ms = FIRST_BACKOFF_MS;
        return false;
    }
    int64_t now = now_ms();
    int kept = 0;
    for (int i = 0; i < kid->early_count; i++)
        if (now - kid->early_at_ms[i] < GIVE_UP_MS)
            kid->early_at_ms[kept++] = kid->early_at_ms[i];
    kid->early_at_ms[kept++] = now;
    kid->early_count = kept;
    return kept == GIVE_UP_EXITS;
}

static void tell_death(const kid_t *kid, int status)
{
    if (WIFSIGNALED(status))
        fprintf(stderr, "agency: %s (process %d) was ended by signal %d (%s); starting it again\n",
                kid->instance, (int)kid->pid, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        fprintf(stderr, "agency: %s (process %d) ended with status %d; starting it again\n",
                kid->instance, (int)kid->pid, WEXITSTATUS(status));
}

/* False: it keeps dying before it is ready. */
static bool on_death(kid_t *kid)
{
    int status = 0;
    waitpid(kid->pid, &status, 0);
    close(kid->pidfd);
    kid->pidfd = -1;
    if (kid->ready_fd >= 0)
        close(kid->ready_fd);
    kid->ready_fd = -1;
    if (kid->leaving) {
        fprintf(stderr, "agency: %s (process %d) has left\n", kid->instance, (int)kid->pid);
        return true;
    }
    /* A wrong setting stays wrong. */
    bool wrong = !kid->ready && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_USAGE;
    bool end = hopeless(kid) || wrong;
    if (!end)
        tell_death(kid, status);
    kid->restart_at_ms = now_ms() + kid->backoff_ms;
    if (!kid->ready && kid->backoff_ms < LONGEST_BACKOFF_MS)
        kid->backoff_ms =
            kid->backoff_ms * 4 < LONGEST_BACKOFF_MS ? kid->backoff_ms * 4 : LONGEST_BACKOFF_MS;
    kid->ready = false;
    return !end;
}

static void on_ready(kid_t *kid)
{
    char byte;
    if (read(kid->ready_fd, &byte, 1) == 1)
        kid->ready = true;
    close(kid->ready_fd);
    kid->ready_fd = -1;
}

/* ---- Which workers there are ---- */

static kid_t *find_kid(house_up_t *up, const char *instance)
{
    for (int i = 0; i < up->count; i++)
        if (!strcmp(up->kids[i].instance, instance))
            return &up->kids[i];
    return NULL;
}

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
    kid_t *kid = find_kid(up, line);
    const char *name = kid ? kid->instance : worker_name(up, line);
    if (!name || (kid && strcmp(kid->actor, "worker") != 0)) {
        fprintf(stderr, "agency: %s: '%s' is no name of a worker\n", want_name, line);
        return;
    }
    if (!kid) {
        add_kid(up, "worker", name, 0);
        kid = &up->kids[up->count - 1];
    }
    wanted[kid - up->kids] = true;
}

/* No file means no wish, so nothing changes. */
static void read_want(house_up_t *up)
{
    bool wanted[MOST_CHILDREN] = {false};
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
    for (int i = 0; i < up->count; i++) {
        kid_t *kid = &up->kids[i];
        if (wanted[i] || strcmp(kid->actor, "worker") != 0 || kid->leaving)
            continue;
        kid->leaving = true;
        if (kid->pidfd >= 0)
            kill(kid->pid, SIGTERM);
    }
}

/* A worker that has left is forgotten; wanted again meanwhile, it is started again. */
static void forget_gone(house_up_t *up)
{
    bool again = false;
    for (int i = 0; i < up->count;) {
        if (!up->kids[i].leaving || up->kids[i].pidfd >= 0) {
            i++;
            continue;
        }
        memmove(&up->kids[i], &up->kids[i + 1], (size_t)(up->count - i - 1) * sizeof(*up->kids));
        up->count--;
        again = true;
    }
    if (again)
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

static bool all_ready(const house_up_t *up)
{
    for (int i = 0; i < up->count; i++)
        if (!up->kids[i].ready)
            return false;
    return true;
}

static void announce(house_up_t *up)
{
    cli_t *cli = up->cli;
    const char *at = cli->bind ? cli->bind : "127.0.0.1";
    printf("agency is ready: %d processes, data in %s\n\n", up->count, cli->data_dir);
    for (int i = 0; i < up->count; i++)
        if (up->kids[i].port)
            printf("  %-8s http://%s:%d/mcp%s\n", up->kids[i].instance, at,
                   up->kids[i].port + cli->port_offset,
                   up->kids[i].port == 3000 ? "   all tools: give this to your MCP client" : "");
    if (!cli->tokens)
        puts("\nNo tokens: whoever can reach this machine's loopback may name any company.");
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

static int64_t next_restart(const house_up_t *up)
{
    int64_t wait = -1, now = now_ms();
    for (int i = 0; i < up->count; i++) {
        const kid_t *kid = &up->kids[i];
        if (kid->pidfd >= 0 || kid->leaving)
            continue;
        int64_t left = kid->restart_at_ms > now ? kid->restart_at_ms - now : 0;
        if (wait < 0 || left < wait)
            wait = left;
    }
    return wait;
}

static void start_due(house_up_t *up)
{
    for (int i = 0; i < up->count; i++)
        if (up->kids[i].pidfd < 0 && !up->kids[i].leaving && up->kids[i].restart_at_ms <= now_ms())
            start_kid(up, &up->kids[i]);
}

static int fill_polls(house_up_t *up, struct pollfd *polls)
{
    int count = 0;
    polls[count++] = (struct pollfd){.fd = up->signals, .events = POLLIN};
    polls[count++] = (struct pollfd){.fd = up->notes, .events = POLLIN};
    for (int i = 0; i < up->count; i++) {
        polls[count++] = (struct pollfd){.fd = up->kids[i].pidfd, .events = POLLIN};
        polls[count++] = (struct pollfd){.fd = up->kids[i].ready_fd, .events = POLLIN};
    }
    return count;
}

typedef enum verdict { GO_ON, STOP, GIVE_UP } verdict_t;

static verdict_t look(house_up_t *up, const struct pollfd *polls)
{
    if (polls[0].revents)
        return STOP;
    for (int i = 0; i < up->count; i++) {
        kid_t *kid = &up->kids[i];
        if (polls[3 + 2 * i].revents && kid->ready_fd >= 0)
            on_ready(kid);
        if (polls[2 + 2 * i].revents && kid->pidfd >= 0 && !on_death(kid)) {
            fprintf(stderr, "agency: %s cannot start; its own message is above. Giving up.\n",
                    kid->instance);
            return GIVE_UP;
        }
    }
    if (polls[1].revents)
        on_notes(up);
    forget_gone(up);
    return GO_ON;
}

static verdict_t watch(house_up_t *up)
{
    struct pollfd polls[2 + 2 * MOST_CHILDREN];
    for (;;) {
        start_due(up);
        int count = fill_polls(up, polls);
        if (poll(polls, (nfds_t)count, (int)next_restart(up)) < 0 && errno != EINTR)
            return GIVE_UP;
        verdict_t verdict = look(up, polls);
        if (verdict != GO_ON)
            return verdict;
        if (!up->announced && all_ready(up))
            announce(up);
    }
}

/* Workers first, so that what they are doing can still be written down. */
static void signal_all(house_up_t *up, int number, bool workers)
{
    for (int i = 0; i < up->count; i++)
        if (up->kids[i].pidfd >= 0 && !strcmp(up->kids[i].actor, "worker") == workers)
            kill(up->kids[i].pid, number);
}

static bool wait_all(house_up_t *up, bool workers, int64_t end_ms)
{
    for (;;) {
        struct pollfd polls[MOST_CHILDREN];
        kid_t *kids[MOST_CHILDREN];
        int count = 0;
        for (int i = 0; i < up->count; i++)
            if (up->kids[i].pidfd >= 0 && !strcmp(up->kids[i].actor, "worker") == workers) {
                kids[count] = &up->kids[i];
                polls[count++] = (struct pollfd){.fd = up->kids[i].pidfd, .events = POLLIN};
            }
        int64_t left = end_ms - now_ms();
        if (!count || left <= 0)
            return !count;
        if (poll(polls, (nfds_t)count, (int)left) <= 0)
            continue;
        for (int i = 0; i < count; i++)
            if (polls[i].revents) {
                waitpid(kids[i]->pid, NULL, 0);
                close(kids[i]->pidfd);
                kids[i]->pidfd = -1;
            }
    }
}

static void stop_all(house_up_t *up)
{
    for (int workers = 1; workers >= 0; workers--) {
        signal_all(up, SIGTERM, workers);
        if (wait_all(up, workers, now_ms() + STOP_MS))
            continue;
        signal_all(up, SIGKILL, workers);
        wait_all(up, workers, now_ms() + STOP_MS);
    }
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
    host_close(&host, 0);
    err = lock_house(&up);
    if (err_is(err))
        return cli_fail(err);
    up.signals = cli_stop_signals();
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        if (at->up && strcmp(at->def->name, "worker") != 0)
            add_kid(&up, at->def->name, at->def->name, at->port);
    watch_want(&up);
    for (int i = 1; i <= (cli->workers < 0 ? 1 : cli->workers); i++)
        add_kid(&up, "worker", arena_printf(cli->arena, "worker-%d", i), 0);
    verdict_t verdict = watch(&up);
    stop_all(&up);
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
