/* drain: what a preStop hook calls. The gateways here say that they are not ready, the workers
 * here take no new work; then it waits until they hold no lease. Nothing is ended by it.
 *
 * The hooks of a pod's containers run side by side. Only that of the agent makes the workers drain;
 * the others wait for them as well, since the last steps may still need what they serve. When the
 * workers do not drain, only that one container is to be started again. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/cli/cli.h"

enum { ASK_MS = 2000, AGAIN_MS = 100, BESIDE_MS = 3000, MOST = 128 };

typedef struct drained {
    const char *name;
    int pid;
    bool done;
} drained_t;

typedef struct draining {
    cli_t *cli;
    client_t *client;
    const char *run_dir;
    int64_t end_ms;
    drained_t list[MOST]; /* workers */
    int count;
    int gateways, silent;
    bool beside; /* the workers are told by somebody else, or not at all */
} draining_t;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ERR_TIMEOUT, ERR_UNAVAILABLE: no answer. */
static err_t ask(draining_t *self, const char *name, const char *what, const char *field_name,
                 bool *yes)
{
    bytes_t field;
    int64_t left = self->end_ms - now_ms();
    client_call_t call = {
        .peer = name,
        .method = arena_printf(self->cli->arena, "%s.%s", cli_kind_of(self->cli, name), what),
        .role = ROLE_ADMIN,
        .timeout_ms = left < 1        ? 1
                      : left < ASK_MS ? left
                                      : ASK_MS};
    client_reply_t reply = client_call(self->client, self->cli->arena, &call);
    *yes =
        !err_is(reply.err) && mp_get(reply.body, field_name, &field) && mp_bool(field, yes) && *yes;
    return reply.err;
}

/* ---- Who is here: those that have left a pid file in the run directory ---- */

static int read_pid(const draining_t *self, const char *name)
{
    int pid = 0;
    FILE *file = fopen(arena_printf(self->cli->arena, "%s/%s.pid", self->run_dir, name), "re");
    if (file && fscanf(file, "%d", &pid) != 1)
        pid = 0;
    if (file)
        fclose(file);
    return pid;
}

static bool is_gone(const draining_t *self, drained_t *worker)
{
    worker->pid = read_pid(self, worker->name); /* a new life of it, perhaps */
    return worker->pid <= 0 || (kill(worker->pid, 0) && errno == ESRCH);
}

static void close_gateway(draining_t *self, const char *pillar)
{
    bool idle;
    const char *name = strncmp(pillar, "gateway-", 8)
                           ? arena_printf(self->cli->arena, "gateway-%s", pillar)
                           : pillar;
    if (!err_is(ask(self, name, "drain", "idle", &idle))) {
        self->gateways++;
        return;
    }
    self->silent++;
    fprintf(stderr, "agency: %s does not answer\n", name);
}

/* Is this the gateway's process of the pillar that was named, if one was? */
static bool is_meant(const draining_t *self, const char *name)
{
    const char *only = self->cli->count ? self->cli->words[0] : NULL;
    const char *pillar = strncmp(name, "gateway-", 8) ? name : name + 8;
    const cli_actor_t *actor = cli_find_actor(self->cli, pillar);
    return actor && actor->port && (!only || !strcmp(only, pillar));
}

static void find(draining_t *self)
{
    struct dirent **entries;
    int count = scandir(self->run_dir, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char *name = arena_strdup(self->cli->arena, entries[i]->d_name), *dot = strrchr(name, '.');
        free(entries[i]);
        if (!dot || strcmp(dot, ".pid") != 0 || !strcmp(name, "up.pid"))
            continue;
        *dot = '\0';
        if (!strcmp(cli_kind_of(self->cli, name), "worker")) {
            if (self->count < MOST)
                self->list[self->count++] = (drained_t){.name = name};
        } else if (is_meant(self, name)) {
            close_gateway(self, name);
        }
    }
    if (count >= 0)
        free(entries);
}

/* ---- Until nothing is left ---- */

/* True: all of them have drained. */
static bool ask_all(draining_t *self)
{
    bool all = true;
    for (int i = 0; i < self->count; i++) {
        drained_t *worker = &self->list[i];
        bool idle;
        if (worker->done)
            continue;
        err_t err = ask(self, worker->name, "drain", "idle", &idle);
        worker->done = idle || (err_is(err) && is_gone(self, worker));
        if (worker->done)
            printf("%s %s\n", worker->name, idle ? "has drained: it holds no lease" : "is gone");
        all = all && worker->done;
    }
    return all;
}

/* Takes the workers off the list that were not told to drain within a moment. */
static void keep_draining(draining_t *self)
{
    int64_t until = now_ms() + BESIDE_MS;
    int kept = 0;
    bool any = false;
    while (self->count && !any && now_ms() < until && now_ms() < self->end_ms) {
        for (int i = 0; i < self->count && !any; i++)
            ask(self, self->list[i].name, "stats", "draining", &any);
        if (!any)
            poll(NULL, 0, AGAIN_MS);
    }
    for (int i = 0; i < self->count; i++) {
        bool draining = false;
        if (any && !err_is(ask(self, self->list[i].name, "stats", "draining", &draining)) &&
            draining)
            self->list[kept++] = self->list[i];
    }
    self->count = kept;
}

static int wait_all(draining_t *self)
{
    if (self->beside)
        keep_draining(self);
    while (!ask_all(self)) {
        if (now_ms() >= self->end_ms) {
            for (int i = 0; i < self->count; i++)
                if (!self->list[i].done)
                    fprintf(stderr, "agency: %s is still at work after %lld ms\n",
                            self->list[i].name, (long long)self->cli->timeout_ms);
            return EXIT_REFUSED;
        }
        poll(NULL, 0, AGAIN_MS);
    }
    return EXIT_DONE;
}

int cli_drain(cli_t *cli)
{
    if (cli->count > 1)
        return cli_usage("agency drain takes one pillar at most, not '%s'", cli->words[1]);
    const cli_actor_t *actor = cli->count ? cli_find_actor(cli, cli->words[0]) : NULL;
    if (cli->count && (!actor || !actor->port))
        return cli_usage("there is no pillar '%s'", cli->words[0]);
    if (cli->read_only)
        return cli_usage("drain changes what is under way, and --read-only was given");
    draining_t self = {.cli = cli,
                       .end_ms = now_ms() + cli->timeout_ms,
                       .beside = cli->count && strcmp(cli->words[0], "agent") != 0};
    err_t err = cli_run_dir(cli, &self.run_dir);
    if (!err_is(err))
        err = client_open(self.run_dir, cli->arena, &self.client);
    if (err_is(err))
        return cli_fail(err);
    find(&self);
    int code = EXIT_DONE;
    if (!self.gateways && (!self.count || self.beside)) {
        fprintf(stderr, "agency: nothing to drain answers in %s\n", self.run_dir);
        code = EXIT_UNREACHABLE;
    } else {
        code = wait_all(&self);
        if (code == EXIT_DONE && self.silent)
            code = EXIT_UNREACHABLE;
    }
    client_close(&self.client);
    return code;
}
