#include "actors/cli/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
    GIVE_UP_MS = 30000,    /* so many deaths before readiness within this time are hopeless */
    FIRST_BACKOFF_MS = 10, /* who was ready is back at once */
    LONGEST_BACKOFF_MS = 5000,
    READY_FD = 3
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

kid_t *crew_add(crew_t *crew, const char *actor, const char *instance, int port)
{
    kid_t *kid = &crew->kids[crew->count++];
    *kid = (kid_t){.actor = actor,
                   .instance = instance,
                   .port = port,
                   .pidfd = -1,
                   .ready_fd = -1,
                   .backoff_ms = FIRST_BACKOFF_MS};
    return kid;
}

kid_t *crew_find(crew_t *crew, const char *instance)
{
    for (int i = 0; i < crew->count; i++)
        if (!strcmp(crew->kids[i].instance, instance))
            return &crew->kids[i];
    return NULL;
}

bool crew_ready(const crew_t *crew)
{
    for (int i = 0; i < crew->count; i++)
        if (!crew->kids[i].ready)
            return false;
    return true;
}

/* ---- Starting ---- */

static char **kid_arguments(const cli_t *cli, const kid_t *kid, arena_t *arena)
{
    enum { FLAGS = 16 };
    char **argv = ARENA_ARRAY(arena, char *, (size_t)cli->set_count + FLAGS);
    int count = 0;
    argv[count++] = "agency";
    argv[count++] = "run";
    argv[count++] = (char *)kid->actor;
    if (strcmp(kid->actor, kid->instance) != 0)
        argv[count++] = (char *)kid->instance;
    argv[count++] = "--data";
    argv[count++] = (char *)cli->data_dir;
    argv[count++] = arena_printf(arena, "--port-offset=%d", cli->port_offset);
    if (cli->company)
        argv[count++] = arena_printf(arena, "--company=%s", cli->company);
    if (cli->bind)
        argv[count++] = arena_printf(arena, "--bind=%s", cli->bind);
    if (cli->tokens)
        argv[count++] = arena_printf(arena, "--tokens=%s", cli->tokens);
    if (cli->behind_proxy)
        argv[count++] = "--behind-proxy";
    if (cli->workers >= 0 && !strcmp(kid->actor, "elastic"))
        argv[count++] = arena_printf(arena, "--workers=%d", cli->workers);
    for (int i = 0; i < cli->set_count; i++)
        argv[count++] = arena_printf(arena, "--set=%s", cli->sets[i]);
    return argv;
}

static char **kid_environment(arena_t *arena)
{
    size_t count = 0;
    while (environ[count])
        count++;
    char **list = ARENA_ARRAY(arena, char *, count + 3);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "AGENCY_PARENT=", 14) != 0 &&
            strncmp(environ[i], "AGENCY_READY_FD=", 16) != 0)
            list[kept++] = environ[i];
    list[kept++] = arena_printf(arena, "AGENCY_PARENT=%d", (int)getpid());
    list[kept++] = arena_printf(arena, "AGENCY_READY_FD=%d", READY_FD);
    return list;
}

/* It inherits nothing but the standard descriptors: no lock and no socket of ours outlives us. */
static int spawn_kid(const crew_t *crew, kid_t *kid, int ready_fd)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ready_fd, READY_FD);
    posix_spawn_file_actions_addclosefrom_np(&actions, READY_FD + 1);
    arena_t *arena = arena_new();
    int failed = posix_spawn(&kid->pid, "/proc/self/exe", &actions, &attributes,
                             kid_arguments(crew->cli, kid, arena), kid_environment(arena));
    arena_destroy(&arena);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static void start_kid(const crew_t *crew, kid_t *kid)
{
    int fds[2];
    kid->ready = false;
    kid->restart_at_ms = 0;
    if (pipe2(fds, O_CLOEXEC)) {
        kid->restart_at_ms = now_ms() + kid->backoff_ms;
        return;
    }
    int failed = spawn_kid(crew, kid, fds[1]);
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

void crew_start_due(crew_t *crew)
{
    for (int i = 0; i < crew->count; i++) {
        kid_t *kid = &crew->kids[i];
        if (kid->pidfd < 0 && !kid->leaving && kid->restart_at_ms <= now_ms())
            start_kid(crew, kid);
    }
}

int64_t crew_next_restart(const crew_t *crew)
{
    int64_t wait = -1, now = now_ms();
    for (int i = 0; i < crew->count; i++) {
        const kid_t *kid = &crew->kids[i];
        if (kid->pidfd >= 0 || kid->leaving)
            continue;
        int64_t left = kid->restart_at_ms > now ? kid->restart_at_ms - now : 0;
        if (wait < 0 || left < wait)
            wait = left;
    }
    return wait;
}

/* ---- Readiness and death ---- */

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
    bool end = kept == CREW_GIVE_UP_EXITS;
    kid->early_count = end ? 0 : kept;
    return end;
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

static void plan_restart(kid_t *kid)
{
    kid->restart_at_ms = now_ms() + kid->backoff_ms;
    if (!kid->ready && kid->backoff_ms < LONGEST_BACKOFF_MS)
        kid->backoff_ms =
            kid->backoff_ms * 4 < LONGEST_BACKOFF_MS ? kid->backoff_ms * 4 : LONGEST_BACKOFF_MS;
    kid->ready = false;
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
    plan_restart(kid);
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

int crew_fill_polls(const crew_t *crew, struct pollfd *polls)
{
    int count = 0;
    for (int i = 0; i < crew->count; i++) {
        polls[count++] = (struct pollfd){.fd = crew->kids[i].pidfd, .events = POLLIN};
        polls[count++] = (struct pollfd){.fd = crew->kids[i].ready_fd, .events = POLLIN};
    }
    return count;
}

const kid_t *crew_look(crew_t *crew, const struct pollfd *polls)
{
    const kid_t *found = NULL;
    for (int i = 0; i < crew->count; i++) {
        kid_t *kid = &crew->kids[i];
        if (polls[2 * i + 1].revents && kid->ready_fd >= 0)
            on_ready(kid);
        if (polls[2 * i].revents && kid->pidfd >= 0 && !on_death(kid))
            found = kid;
    }
    return found;
}

bool crew_forget_gone(crew_t *crew)
{
    bool any = false;
    for (int i = 0; i < crew->count;) {
        if (!crew->kids[i].leaving || crew->kids[i].pidfd >= 0) {
            i++;
            continue;
        }
        memmove(&crew->kids[i], &crew->kids[i + 1],
                (size_t)(crew->count - i - 1) * sizeof(*crew->kids));
        crew->count--;
        any = true;
    }
    return any;
}

/* ---- Stopping ---- */

static bool is_of(const kid_t *kid, bool workers)
{
    return kid->pidfd >= 0 && !strcmp(kid->actor, "worker") == workers;
}

static void signal_all(crew_t *crew, int number, bool workers)
{
    for (int i = 0; i < crew->count; i++)
        if (is_of(&crew->kids[i], workers))
            kill(crew->kids[i].pid, number);
}

static bool wait_all(crew_t *crew, bool workers, int64_t end_ms)
{
    for (;;) {
        struct pollfd polls[CREW_MOST];
        kid_t *kids[CREW_MOST];
        int count = 0;
        for (int i = 0; i < crew->count; i++)
            if (is_of(&crew->kids[i], workers)) {
                kids[count] = &crew->kids[i];
                polls[count++] = (struct pollfd){.fd = crew->kids[i].pidfd, .events = POLLIN};
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

void crew_stop(crew_t *crew, bool workers, int64_t ms)
{
    signal_all(crew, SIGTERM, workers);
    if (wait_all(crew, workers, now_ms() + ms))
        return;
    signal_all(crew, SIGKILL, workers);
    wait_all(crew, workers, now_ms() + ms);
}
