/* run: one pillar with its gateway in the foreground, until SIGTERM or a fatal error. On a replica
 * that does not own the queue it is the gateway alone, whose calls go to the owner. `run agent`
 * keeps the workers of its replica as children. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "actors/cli/crew.h"
#include "bus/process.h"

enum { DRAIN_MS = 20000, WORKERS_MS = 25000, SETTINGS = 16 };

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

/* What is to be run, and where in a cluster. */
typedef struct running {
    cli_t *cli;
    const cli_actor_t *actor;
    const char *instance;
    place_t place;
    bool forwards;
    crew_t crew; /* workers, of the agent */
} running_t;

/* Settings that follow from the command line, and from names shared with other programs. */
static const char **process_settings(const running_t *run)
{
    cli_t *cli = run->cli;
    const cli_actor_t *actor = run->actor;
    int count;
    const char **list = cli_settings(cli, SETTINGS, &count);
    const char *url = getenv("AGENCY_LLM_URL"), *key = getenv("AGENCY_LLM_KEY"),
               *model = getenv("AGENCY_LLM_MODEL");
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
    if (!strcmp(actor->def->name, "brain"))
        list[count++] = "bus.pod="; /* it is no replica of the agent */
    if (!actor->port)
        return list;
    if (run->forwards) {
        list[count++] = "gateway.forwards=true";
        list[count++] = arena_printf(cli->arena, "feed.pod=%s", run->place.settings.pod);
    }
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

/* The gateway, and behind it the pillar, or nothing: then its calls go to the owner. */
static err_t start_all(const running_t *run, host_t *host)
{
    arena_t *arena = run->cli->arena;
    err_t err = err_ok();
    if (!run->forwards)
        err = host_start(host, run->actor->def, run->instance, arena);
    else if (run->actor->beside_forward)
        err = host_start(host, run->actor->beside_forward, NULL, arena);
    if (!err_is(err) && run->actor->port)
        err = host_start(host, run->cli->house->gateway,
                         arena_printf(arena, "gateway-%s", run->instance), arena);
    /* They are where their pillar is, once in a cluster. */
    for (const cli_actor_t *at = run->cli->house->actors; at->def && !err_is(err); at++)
        if (!run->forwards && at->inside && !strcmp(at->inside, run->actor->def->name))
            err = host_start(host, at->def, NULL, arena);
    return err;
}

/* ---- The workers of this replica ---- */

static int count_workers(const running_t *run)
{
    const bus_t *bus = &run->place.settings;
    if (strcmp(run->actor->def->name, "agent") != 0 || getenv("AGENCY_PARENT"))
        return 0; /* below `agency up` they are the supervisor's */
    if (run->cli->workers >= 0)
        return run->cli->workers;
    if (bus->has_workers)
        return (int)bus->workers;
    return bus->pod != NULL;
}

/* The first bears the pod's name, so that whoever cordons the pod cordons its workers. */
static void hire_workers(running_t *run)
{
    arena_t *arena = run->cli->arena;
    const char *pod = run->place.settings.pod;
    int count = count_workers(run);
    run->crew.cli = run->cli;
    for (int i = 1; i <= count; i++)
        crew_add(&run->crew, "worker",
                 !pod     ? arena_printf(arena, "worker-%d", i)
                 : i == 1 ? pod
                          : arena_printf(arena, "%s.%d", pod, i),
                 0);
}

/* True: asked to stop. False: an actor failed. */
static bool wait_for_end(running_t *run, const host_t *host, int signals)
{
    struct pollfd polls[2 + CREW_POLLS];
    for (;;) {
        crew_start_due(&run->crew);
        polls[0] = (struct pollfd){.fd = signals, .events = POLLIN};
        polls[1] = (struct pollfd){.fd = host_fd(host), .events = POLLIN};
        int count = 2 + crew_fill_polls(&run->crew, polls + 2);
        if (poll(polls, (nfds_t)count, (int)crew_next_restart(&run->crew)) < 0)
            continue; /* a signal */
        if (polls[0].revents || polls[1].revents)
            return !host_failed(host);
        const kid_t *hopeless = crew_look(&run->crew, polls + 2);
        if (hopeless) /* the queue goes on without it */
            fprintf(stderr,
                    "agency: %s cannot start; its own message is above. It is tried again.\n",
                    hopeless->instance);
    }
}

/* ---- One process ---- */

static int run_actor(running_t *run)
{
    cli_t *cli = run->cli;
    int signals = cli_stop_signals();
    process_raise_files();
    signal(SIGPIPE, SIG_IGN);
    const char *run_dir, *name = run->instance;
    host_t *host;
    host_options_t options = {.data_dir = cli->data_dir,
                              .transport = TRANSPORT_IPC,
                              .default_company = cli->company,
                              .settings = process_settings(run),
                              .environment = (const char *const *)environ,
                              .log_level = getenv("AGENCY_DEBUG") ? LOG_DEBUG : LOG_INFO};
    err_t err = host_open(&options, cli->arena, &host);
    if (err_is(err))
        return cli_fail(err);
    run_dir = arena_strdup(cli->arena, host_run_dir(host)); /* outlives the host */
    err = start_all(run, host);
    if (run->forwards)
        name = arena_printf(cli->arena, "gateway-%s", run->instance);
    if (!err_is(err))
        err = write_pid(cli, run_dir, name);
    if (err_is(err)) {
        host_close(&host, 0);
        return cli_fail(err);
    }
    hire_workers(run);
    tell_ready(name);
    process_settle();
    if (!wait_for_end(run, host, signals))
        _exit(EXIT_REFUSED); /* the store failed: nothing in memory is worth saving */
    crew_stop(&run->crew, true, WORKERS_MS); /* while there is somebody to report to */
    host_close(&host, DRAIN_MS);
    unlink(arena_printf(cli->arena, "%s/%s.pid", run_dir, name));
    close(signals);
    return EXIT_DONE;
}

/* Which part of the agency this process is, before anything is opened. */
static err_t find_place(running_t *run)
{
    int count;
    cli_t *cli = run->cli;
    const char *pillar = run->actor->def->name;
    place_t *place = &run->place;
    err_t err = cli_check_settings(cli);
    if (!err_is(err) && !getenv("AGENCY_PARENT")) /* else the parent has said so */
        cli_warn_of_variables(cli);
    if (!err_is(err))
        err = cli_check_restored(cli);
    if (!err_is(err))
        err = place_load(cli_settings(cli, 0, &count), (const char *const *)environ, cli->data_dir,
                         cli->arena, place);
    if (err_is(err))
        return err;
    if (!strcmp(pillar, "brain") && place->ordinal > 0)
        return err_make(cli->arena, ERR_ARGUMENT,
                        "%s: the brain has one replica and one writer; scale its StatefulSet to 1",
                        place->settings.pod);
    if (run->actor->port && strcmp(pillar, "brain") != 0 && place->settings.owner &&
        !place->settings.pod)
        return err_make(cli->arena, ERR_ARGUMENT,
                        "bus.owner is given but not which replica this is: set bus.pod "
                        "(AGENCY_BUS_POD) to the name of the pod, or leave both out");
    run->forwards = place_forwards(place, pillar);
    if (!strcmp(pillar, "worker") && !strcmp(run->instance, "worker") && place->settings.pod)
        run->instance = place->settings.pod;
    return err_ok();
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
    running_t run = {
        .cli = cli, .actor = actor, .instance = cli->count == 2 ? cli->words[1] : actor->def->name};
    err_t err = find_place(&run);
    return err_is(err) ? cli_fail(err) : run_actor(&run);
}
