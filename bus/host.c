#include "bus/host.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bus/host_parts.h"
#include "bus/settings.h"

/* ---- Who lives in this host ---- */

static generation_t *generation_of(host_t *host, const char *instance)
{
    generation_t *at = host->generations;
    while (at && strcmp(at->instance, instance) != 0)
        at = at->next;
    return at;
}

unsigned host_generation(host_t *host, const char *instance)
{
    pthread_mutex_lock(&host->mutex);
    generation_t *at = generation_of(host, instance);
    unsigned count = at ? at->count : 0;
    pthread_mutex_unlock(&host->mutex);
    return count;
}

static void wake_all(host_t *host)
{
    for (loop_t *loop = host->loops; loop; loop = loop->next)
        eventfd_write(loop->wake, 1);
}

uint8_t host_place_of(const node_t *node)
{
    return (uint8_t)(node - node->loop->nodes);
}

address_t host_address_of(const node_t *node)
{
    return (address_t){
        .box = node->loop->box, .life = node->loop->box_life, .place = host_place_of(node)};
}

void host_set_up(const node_t *node)
{
    host_t *host = node->loop->host;
    pthread_mutex_lock(&host->mutex);
    generation_t *at = generation_of(host, node->instance);
    if (!at) {
        at = calloc(1, sizeof(*at));
        if (!at || !(at->instance = strdup(node->instance)))
            abort();
        at->next = host->generations;
        host->generations = at;
    }
    at->count++;
    at->at = host_address_of(node);
    pthread_mutex_unlock(&host->mutex);
    atomic_fetch_add(&host->births, 1);
    wake_all(host);
}

void host_set_down(const node_t *node)
{
    host_t *host = node->loop->host;
    pthread_mutex_lock(&host->mutex);
    generation_t *at = generation_of(host, node->instance);
    if (at && at->at.box == node->loop->box)
        at->at.box = NULL;
    pthread_mutex_unlock(&host->mutex);
}

unsigned host_find_here(host_t *host, const char *instance, address_t *here)
{
    pthread_mutex_lock(&host->mutex);
    const generation_t *at = generation_of(host, instance);
    unsigned count = at ? at->count : 0;
    *here = at ? at->at : (address_t){0};
    pthread_mutex_unlock(&host->mutex);
    return count;
}

static mailbox_t *take_box(host_t *host, uint32_t *life)
{
    *life = 0;
    pthread_mutex_lock(&host->mutex);
    box_t *box = host->boxes;
    while (box && !(*life = mailbox_open(box->mailbox)))
        box = box->next;
    if (!box) {
        box = calloc(1, sizeof(*box));
        if (!box)
            abort();
        box->mailbox = mailbox_new();
        box->next = host->boxes;
        host->boxes = box;
        *life = mailbox_open(box->mailbox);
    }
    pthread_mutex_unlock(&host->mutex);
    return box->mailbox;
}

/* ---- Starting and stopping loops ---- */

static loop_t *loop_new(host_t *host, const actor_def_t *const *defs, const char *instance,
                        size_t count)
{
    loop_t *loop = calloc(1, sizeof(*loop));
    if (!loop)
        abort();
    loop->host = host;
    loop->nodes = calloc(count, sizeof(node_t));
    loop->node_count = count;
    loop->inbox_end = &loop->inbox;
    loop->outbox_end = &loop->outbox;
    loop->read_queue_end = &loop->read_queue;
    loop->box = take_box(host, &loop->box_life);
    loop->wake = mailbox_fd(loop->box);
    loop->polls_stale = true;
    pthread_mutex_init(&loop->read_mutex, NULL);
    pthread_cond_init(&loop->read_cond, NULL);
    pthread_mutex_init(&loop->start_mutex, NULL);
    pthread_cond_init(&loop->start_cond, NULL);
    for (size_t i = 0; i < count; i++) {
        node_t *node = &loop->nodes[i];
        node->env.ops = &host_env_ops;
        node->loop = loop;
        node->def = defs[i];
        node->instance = strdup(instance ? instance : defs[i]->name);
    }
    return loop;
}

static void loop_free(loop_t *loop)
{
    mailbox_close(loop->box);
    pthread_mutex_destroy(&loop->read_mutex);
    pthread_cond_destroy(&loop->read_cond);
    pthread_mutex_destroy(&loop->start_mutex);
    pthread_cond_destroy(&loop->start_cond);
    free(loop->nodes);
    free(loop);
}

/* Signals belong to the main thread. */
static int start_thread(loop_t *loop)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&loop->thread, NULL, host_loop_main, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static err_t start_loop(host_t *host, loop_t *loop, arena_t *arena)
{
    loop->start_arena = arena;
    if (start_thread(loop)) {
        loop_free(loop);
        return err_of(ERR_INTERNAL, "cannot make a thread");
    }
    pthread_mutex_lock(&loop->start_mutex);
    while (!loop->start_done)
        pthread_cond_wait(&loop->start_cond, &loop->start_mutex);
    err_t err = loop->start_err;
    pthread_mutex_unlock(&loop->start_mutex);
    if (err_is(err)) {
        pthread_join(loop->thread, NULL);
        loop_free(loop);
        return err;
    }
    loop->next = host->loops;
    host->loops = loop;
    wake_all(host);
    return err_ok();
}

err_t host_start(host_t *host, const actor_def_t *def, const char *instance, arena_t *arena)
{
    return start_loop(host, loop_new(host, &def, instance, 1), arena);
}

err_t host_start_together(host_t *host, const actor_def_t *const *defs, size_t count,
                          arena_t *arena)
{
    return start_loop(host, loop_new(host, defs, NULL, count), arena);
}

static void stop_loop(loop_t *loop, int64_t drain_ms)
{
    atomic_store(&loop->drain_ms, (int)drain_ms);
    atomic_store(&loop->stopping, true);
    eventfd_write(loop->wake, 1);
    pthread_join(loop->thread, NULL);
    loop_free(loop);
}

void host_stop(host_t *host, const char *instance, int64_t drain_ms)
{
    for (loop_t **at = &host->loops; *at; at = &(*at)->next) {
        loop_t *loop = *at;
        if (!host_neighbour(loop, instance))
            continue;
        *at = loop->next;
        stop_loop(loop, drain_ms);
        return;
    }
}

/* ---- The host ---- */

static err_t make_dir(const char *path, mode_t mode, arena_t *arena)
{
    if (!mkdir(path, mode) || errno == EEXIST)
        return err_ok();
    return err_make(arena, ERR_IO,
                    "cannot make the directory %s: %s; choose another with --data or make it "
                    "writable",
                    path, strerror(errno));
}

err_t host_open(const host_options_t *options, arena_t *arena, host_t **out)
{
    *out = NULL;
    err_t err = make_dir(options->data_dir, 0750, arena);
    const char *run_dir = options->run_dir;
    if (!err_is(err) && !run_dir)
        err = host_default_run_dir(options->data_dir, arena, &run_dir);
    limits_t limits;
    if (!err_is(err))
        err = settings_load(&limits_record, "limits", options->settings, options->environment,
                            options->data_dir, arena, &limits);
    if (err_is(err))
        return err;
    void *context = zmq_ctx_new();
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, 4096);
    curve_t *curve;
    curve_options_t keys = {.settings = options->settings,
                            .environment = options->environment,
                            .data_dir = options->data_dir};
    err = curve_open(&keys, context, arena, &curve);
    if (err_is(err)) {
        zmq_ctx_term(context);
        return err;
    }
    host_t *host = calloc(1, sizeof(*host));
    if (!host)
        abort();
    host->arena = arena_new();
    host->options = *options;
    host->data_dir = arena_strdup(host->arena, options->data_dir);
    host->run_dir = arena_strdup(host->arena, run_dir);
    host->prefix = arena_printf(host->arena, "%p", (void *)host);
    host->context = context;
    host->curve = curve;
    host->fail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&host->mutex, NULL);
    host->watchdog = watchdog_start(limits.lag_ms, limits.stuck_ms);
    *out = host;
    return err_ok();
}

void host_close(host_t **handle, int64_t drain_ms)
{
    host_t *host = *handle;
    if (!host)
        return;
    while (host->loops) {
        loop_t *loop = host->loops;
        host->loops = loop->next;
        stop_loop(loop, drain_ms);
    }
    watchdog_stop(&host->watchdog);
    zmq_ctx_shutdown(host->context);
    curve_close(&host->curve);
    zmq_ctx_term(host->context);
    while (host->generations) {
        generation_t *gone = host->generations;
        host->generations = gone->next;
        free(gone->instance);
        free(gone);
    }
    while (host->boxes) {
        box_t *gone = host->boxes;
        host->boxes = gone->next;
        mailbox_destroy(&gone->mailbox);
        free(gone);
    }
    pthread_mutex_destroy(&host->mutex);
    close(host->fail_fd);
    arena_destroy(&host->arena);
    free(host);
    *handle = NULL;
}

bool host_failed(const host_t *host)
{
    return atomic_load(&((host_t *)host)->failed);
}

int host_fd(const host_t *host)
{
    return host->fail_fd;
}

const char *host_run_dir(const host_t *host)
{
    return host->run_dir;
}

void *host_zmq_context(host_t *host)
{
    return host->context;
}

const char *host_inproc_prefix(host_t *host)
{
    return host->prefix;
}
