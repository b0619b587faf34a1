/* run: one pillar with its gateway in the foreground, until SIGTERM or a fatal error. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "actors/cli/cli.h"

enum { DRAIN_MS = 20000 };

extern char **environ;

/* When `agency up` dies, however suddenly, so do we; what is acknowledged is on disk. */
static bool follow_parent(void)
{
    const char *parent = getenv("AGENCY_PARENT");
    if (!parent)
        return true;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == (pid_t)strtol(parent, NULL, 10);
}

/* Runs in a thread that we did not make: a library may start some before main, and those do not
 * block the signal. The main thread, whose id is that of the process, does. */
static void hand_to_main(int number)
{
    syscall(SYS_tgkill, getpid(), getpid(), number);
}

int cli_stop_signals(void)
{
    static const int stops[] = {SIGTERM, SIGINT};
    struct sigaction action = {.sa_handler = hand_to_main, .sa_flags = SA_RESTART};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(stops) / sizeof(*stops); i++)
        sigaddset(&set, stops[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (size_t i = 0; i < sizeof(stops) / sizeof(*stops); i++)
        sigaction(stops[i], &action, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static err_t write_pid(cli_t *cli, const char *run_dir, const char *name)
{
    const char *path = arena_printf(cli->arena, "%s/%s.pid", run_dir, name);
    FILE *file = fopen(path, "w");
    if (!file)
        return err_make(cli->arena, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
    return err_ok();
}

/* Tells whoever waits (agency up, a test) that this pillar answers. */
static void tell_ready(const char *name)
{
    const char *fd = getenv("AGENCY_READY_FD");
    if (fd) {
        if (write((int)strtol(fd, NULL, 10), "r", 1) != 1)
            fprintf(stderr, "agency: nobody waits for %s\n", name);
        close((int)strtol(fd, NULL, 10));
        return;
    }
    printf("%s is ready\n", name);
    fflush(stdout);
}

/* Settings that follow from the command line, and from names shared with other programs. */
static const char **process_settings(cli_t *cli, const cli_actor_t *actor)
{
    const char **list = ARENA_ARRAY(cli->arena, const char *, 16);
    const char *url = getenv("AGENCY_LLM_URL"), *key = getenv("AGENCY_LLM_KEY"),
               *model = getenv("AGENCY_LLM_MODEL");
    int count = 0;
    if (url && *url) {
        list[count++] = "agent.llm=true";
        list[count++] = arena_printf(cli->arena, "worker.llm_url=%s", url);
        if (key && *key)
            list[count++] = arena_printf(cli->arena, "worker.llm_key=%s", key);
        if (model && *model)
            list[count++] = arena_printf(cli->arena, "worker.llm_model=%s", model);
    }
    if (cli->workers >= 0 && !strcmp(actor->def->name, "elastic"))
        list[count++] = "elastic.mode=off";
    if (!actor->port)
        return list;
    list[count++] = arena_printf(cli->arena, "gateway.port=%d", actor->port + cli->port_offset);
    list[count++] = arena_printf(cli->arena, "gateway.pillar=%s", actor->def->name);
    if (cli->bind)
        list[count++] = arena_printf(cli->arena, "gateway.bind=%s", cli->bind);
    if (cli->tokens)
        list[count++] = arena_printf(cli->arena, "gateway.tokens=%s", cli->tokens);
    if (cli->behind_proxy)
        list[count++] = "gateway.behind_proxy=true";
    return list;
}

static err_t start_all(cli_t *cli, host_t *host, const cli_actor_t *actor, const char *instance)
{
    err_t err = host_start(host, actor->def, instance, cli->arena);
    if (!err_is(err) && actor->port)
        err = host_start(host, cli->house->gateway,
                         arena_printf(cli->arena, "gateway-%s", instance), cli->arena);
    return err;
}

/* True: asked to stop. False: an actor failed. */
static bool wait_for_end(const host_t *host, int signals)
{
    struct pollfd polls[] = {{.fd = signals, .events = POLLIN},
                             {.fd = host_fd(host), .events = POLLIN}};
    while (poll(polls, 2, -1) < 0 && errno == EINTR) {
    }
    return !host_failed(host);
}

static int run_actor(cli_t *cli, const cli_actor_t *actor, const char *instance)
{
    int signals = cli_stop_signals();
    signal(SIGPIPE, SIG_IGN);
    const char *run_dir;
    host_t *host;
    host_options_t options = {.data_dir = cli->data_dir,
                              .transport = TRANSPORT_IPC,
                              .default_company = cli->company,
                              .settings = process_settings(cli, actor),
                              .environment = (const char *const *)environ,
                              .log_level = getenv("AGENCY_DEBUG") ? LOG_DEBUG : LOG_INFO};
    err_t err = cli_check_settings(cli);
    if (!err_is(err))
        err = cli_check_restored(cli);
    if (!err_is(err))
        err = host_open(&options, cli->arena, &host);
    if (err_is(err))
        return cli_fail(err);
    run_dir = arena_strdup(cli->arena, host_run_dir(host)); /* outlives the host */
    err = start_all(cli, host, actor, instance);
    if (!err_is(err))
        err = write_pid(cli, run_dir, instance);
    if (err_is(err)) {
        host_close(&host, 0);
        return cli_fail(err);
    }
    tell_ready(instance);
    if (!wait_for_end(host, signals))
        _exit(EXIT_REFUSED); /* the store failed: nothing in memory is worth saving */
    host_close(&host, DRAIN_MS);
    unlink(arena_printf(cli->arena, "%s/%s.pid", run_dir, instance));
    close(signals);
    return EXIT_DONE;
}

int cli_run(cli_t *cli)
{
    if (cli->count != 1 && !(cli->count == 2 && !strcmp(cli->words[0], "worker")))
        return cli_usage("say which pillar: agency run agent");
    const cli_actor_t *actor = cli_find_actor(cli, cli->words[0]);
    if (!actor) {
        buf_t names;
        buf_open(&names, cli->arena);
        for (const cli_actor_t *at = cli->house->actors; at->def; at++)
            buf_printf(&names, "%s%s", at == cli->house->actors ? "" : ", ", at->def->name);
        return cli_usage("there is no pillar '%s'; there are: %s", cli->words[0], names.data);
    }
    if (!follow_parent())
        return EXIT_REFUSED;
    return run_actor(cli, actor, cli->count == 2 ? cli->words[1] : actor->def->name);
}
