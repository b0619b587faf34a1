/* What an actor takes from its host, beside frames and readers: clocks, randomness, log, children,
 * HTTP and descriptors. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "bus/host_parts.h"
#include "bus/log.h"

/* A child or an HTTP request under way. */
typedef struct foreign {
    struct foreign *next;
    node_t *node;
    uint64_t token;
    child_t *child;
    http_transfer_t *transfer;
} foreign_t;

/* ---- Clocks, randomness, log ---- */

int64_t host_clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t env_wall_ms(actor_env_t *env)
{
    (void)env;
    return host_clock_us(CLOCK_REALTIME) / 1000;
}

static int64_t env_mono_us(actor_env_t *env)
{
    (void)env;
    return host_clock_us(CLOCK_MONOTONIC);
}

static void env_random(actor_env_t *env, void *data, size_t size)
{
    (void)env;
    for (size_t done = 0; done < size;) {
        ssize_t got = getrandom((char *)data + done, size - done, 0);
        if (got < 0 && errno != EINTR)
            abort();
        if (got > 0)
            done += (size_t)got;
    }
}

static void env_log(actor_env_t *env, log_level_t level, const char *text)
{
    const node_t *node = (const node_t *)env;
    if (level >= node->loop->host->options.log_level)
        log_line(STDERR_FILENO, level, node->instance, text);
}

/* ---- Children and HTTP ---- */

static foreign_t *foreign_new(node_t *node, uint64_t token)
{
    foreign_t *foreign = calloc(1, sizeof(*foreign));
    if (!foreign)
        abort();
    foreign->node = node;
    foreign->token = token;
    foreign->next = node->loop->foreigns;
    node->loop->foreigns = foreign;
    return foreign;
}

static foreign_t *foreign_find(node_t *node, uint64_t token)
{
    foreign_t *at = node->loop->foreigns;
    while (at && (at->node != node || at->token != token))
        at = at->next;
    return at;
}

static void foreign_drop(foreign_t *foreign)
{
    foreign_t **at = &foreign->node->loop->foreigns;
    while (*at != foreign)
        at = &(*at)->next;
    *at = foreign->next;
    free(foreign);
}

static void on_child_done(void *ctx, const child_outcome_t *outcome)
{
    foreign_t *foreign = ctx;
    actor_on_child(foreign->node->actor, foreign->token, outcome);
    foreign_drop(foreign);
}

static void env_child_start(actor_env_t *env, uint64_t token, const child_request_t *request)
{
    node_t *node = (node_t *)env;
    loop_t *loop = node->loop;
    if (!loop->children) {
        loop->children = children_new();
        loop->polls_stale = true;
    }
    foreign_t *foreign = foreign_new(node, token);
    err_t err = child_start(loop->children, request, on_child_done, foreign, &foreign->child);
    if (!err_is(err))
        return;
    child_outcome_t outcome = {.err = err, .exit_status = -1};
    on_child_done(foreign, &outcome);
}

static void env_child_kill(actor_env_t *env, uint64_t token)
{
    foreign_t *foreign = foreign_find((node_t *)env, token);
    if (foreign && foreign->child)
        child_kill(foreign->child);
}

static void on_http_done(void *ctx, const http_call_outcome_t *outcome)
{
    foreign_t *foreign = ctx;
    actor_on_http(foreign->node->actor, foreign->token, outcome);
    foreign_drop(foreign);
}

static void env_http_start(actor_env_t *env, uint64_t token, const http_call_request_t *request)
{
    node_t *node = (node_t *)env;
    if (!node->loop->http) {
        node->loop->http = http_client_new();
        node->loop->polls_stale = true;
    }
    foreign_t *foreign = foreign_new(node, token);
    foreign->transfer = http_start(node->loop->http, request, on_http_done, foreign);
}

static void env_http_cancel(actor_env_t *env, uint64_t token)
{
    foreign_t *foreign = foreign_find((node_t *)env, token);
    if (!foreign || !foreign->transfer)
        return;
    http_cancel(foreign->transfer);
    foreign_drop(foreign);
}

void host_drop_foreigns(loop_t *loop)
{
    while (loop->foreigns)
        foreign_drop(loop->foreigns);
}

/* ---- Descriptors and death ---- */

static void env_watch(actor_env_t *env, int fd, void (*fn)(void *ctx), void *ctx)
{
    node_t *node = (node_t *)env;
    node->loop->polls_stale = true;
    for (fd_watch_t **at = &node->watches; *at; at = &(*at)->next) {
        if ((*at)->fd != fd)
            continue;
        if (fn) {
            (*at)->fn = fn;
            (*at)->ctx = ctx;
        } else {
            fd_watch_t *gone = *at;
            *at = gone->next;
            free(gone);
        }
        return;
    }
    if (!fn)
        return;
    fd_watch_t *watch = calloc(1, sizeof(*watch));
    if (!watch)
        abort();
    *watch = (fd_watch_t){.next = node->watches, .fd = fd, .fn = fn, .ctx = ctx};
    node->watches = watch;
}

static void env_after(actor_env_t *env, void (*fn)(void *ctx), void *ctx)
{
    node_t *node = (node_t *)env;
    node->after = fn;
    node->after_ctx = ctx;
}

static void env_fatal(actor_env_t *env, err_t err)
{
    node_t *node = (node_t *)env;
    host_t *host = node->loop->host;
    log_line(STDERR_FILENO, LOG_ERROR, node->instance, err_what(err));
    atomic_store(&host->failed, true);
    eventfd_write(host->fail_fd, 1);
}

static void env_lag(actor_env_t *env, loop_lag_t *out)
{
    const loop_t *loop = ((const node_t *)env)->loop;
    *out = (loop_lag_t){.now_us = watchdog_lag_us(loop->host->watchdog),
                        .limit_us = watchdog_limit_us(loop->host->watchdog),
                        .worst_us = watched_worst_us(loop->watched)};
}

const actor_env_ops_t host_env_ops = {
    .wall_ms = env_wall_ms,
    .mono_us = env_mono_us,
    .random = env_random,
    .send = host_env_send,
    .send_back = host_env_send_back,
    .publish = host_env_publish,
    .subscribe = host_env_subscribe,
    .child_start = env_child_start,
    .child_kill = env_child_kill,
    .http_start = env_http_start,
    .http_cancel = env_http_cancel,
    .read_start = host_env_read_start,
    .call_here = host_env_call_here,
    .answer_here = host_env_answer_here,
    .attend = host_env_attend,
    .wake = host_env_wake,
    .watch = env_watch,
    .after = env_after,
    .lag = env_lag,
    .fatal = env_fatal,
    .log = env_log,
};
