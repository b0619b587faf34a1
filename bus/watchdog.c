#include "bus/watchdog.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bus/log.h"

enum { LOOKS_PER_LAG = 4, WORST_US = 60000000 };

struct watched {
    watched_t *next;
    char *name;
    atomic_llong busy_since_us; /* 0: waits */
    int64_t told_us;            /* of which turn the log was told; the watchdog's */
    /* The loop's: two minutes, the one that fills and the one before. */
    int64_t window_us, worst_us, worst_before_us;
};

struct watchdog {
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the list and `stop` */
    pthread_cond_t cond;
    watched_t *list;
    int64_t lag_us, stuck_us;
    bool stop;
};

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void look_at(watchdog_t *watchdog, watched_t *watched)
{
    char text[256];
    int64_t since = atomic_load_explicit(&watched->busy_since_us, memory_order_relaxed);
    int64_t lag = since ? now_us() - since : 0;
    if (lag < watchdog->lag_us)
        return;
    bool stuck = watchdog->stuck_us && lag >= watchdog->stuck_us;
    if (watched->told_us == since && !stuck)
        return;
    watched->told_us = since;
    snprintf(text, sizeof(text), "its loop has not turned for %" PRId64 " ms%s", lag / 1000,
             stuck ? ": the process ends; what it acknowledged is on disk" : "");
    log_line(STDERR_FILENO, stuck ? LOG_ERROR : LOG_WARN, watched->name, text);
    if (stuck)
        abort();
}

static void wait_a_while(watchdog_t *watchdog)
{
    struct timespec until;
    int64_t pause_us = watchdog->lag_us / LOOKS_PER_LAG;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t nsec = until.tv_nsec + pause_us % 1000000 * 1000;
    until.tv_sec += pause_us / 1000000 + nsec / 1000000000;
    until.tv_nsec = nsec % 1000000000;
    pthread_cond_timedwait(&watchdog->cond, &watchdog->mutex, &until);
}

static void *watchdog_main(void *arg)
{
    watchdog_t *watchdog = arg;
    pthread_mutex_lock(&watchdog->mutex);
    while (!watchdog->stop) {
        for (watched_t *at = watchdog->list; at; at = at->next)
            look_at(watchdog, at);
        wait_a_while(watchdog);
    }
    pthread_mutex_unlock(&watchdog->mutex);
    return NULL;
}

/* Signals belong to the main thread. */
static bool start_thread(watchdog_t *watchdog)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&watchdog->thread, NULL, watchdog_main, watchdog);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

watchdog_t *watchdog_start(int64_t lag_ms, int64_t stuck_ms)
{
    watchdog_t *watchdog = calloc(1, sizeof(*watchdog));
    pthread_condattr_t monotonic;
    if (!watchdog)
        abort();
    watchdog->lag_us = lag_ms * 1000;
    watchdog->stuck_us = stuck_ms * 1000;
    pthread_mutex_init(&watchdog->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog->cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (start_thread(watchdog))
        return watchdog;
    pthread_cond_destroy(&watchdog->cond);
    pthread_mutex_destroy(&watchdog->mutex);
    free(watchdog);
    return NULL;
}

void watchdog_stop(watchdog_t **handle)
{
    watchdog_t *watchdog = *handle;
    if (!watchdog)
        return;
    pthread_mutex_lock(&watchdog->mutex);
    watchdog->stop = true;
    pthread_cond_signal(&watchdog->cond);
    pthread_mutex_unlock(&watchdog->mutex);
    pthread_join(watchdog->thread, NULL);
    while (watchdog->list) {
        watched_t *gone = watchdog->list;
        watchdog->list = gone->next;
        free(gone->name);
        free(gone);
    }
    pthread_cond_destroy(&watchdog->cond);
    pthread_mutex_destroy(&watchdog->mutex);
    free(watchdog);
    *handle = NULL;
}

watched_t *watchdog_add(watchdog_t *watchdog, const char *name)
{
    if (!watchdog)
        return NULL;
    watched_t *watched = calloc(1, sizeof(*watched));
    if (!watched || !(watched->name = strdup(name)))
        abort();
    pthread_mutex_lock(&watchdog->mutex);
    watched->next = watchdog->list;
    watchdog->list = watched;
    pthread_mutex_unlock(&watchdog->mutex);
    return watched;
}

void watchdog_remove(watchdog_t *watchdog, watched_t **handle)
{
    watched_t *watched = *handle;
    if (!watchdog || !watched)
        return;
    pthread_mutex_lock(&watchdog->mutex);
    for (watched_t **at = &watchdog->list; *at; at = &(*at)->next)
        if (*at == watched) {
            *at = watched->next;
            break;
        }
    pthread_mutex_unlock(&watchdog->mutex);
    free(watched->name);
    free(watched);
    *handle = NULL;
}

void watched_begin(watched_t *watched)
{
    if (watched)
        atomic_store_explicit(&watched->busy_since_us, now_us(), memory_order_relaxed);
}

void watched_end(watched_t *watched)
{
    if (!watched)
        return;
    int64_t now = now_us();
    int64_t turn = now - atomic_load_explicit(&watched->busy_since_us, memory_order_relaxed);
    atomic_store_explicit(&watched->busy_since_us, 0, memory_order_relaxed);
    if (now - watched->window_us >= WORST_US) {
        watched->worst_before_us = now - watched->window_us < 2 * WORST_US ? watched->worst_us : 0;
        watched->worst_us = 0;
        watched->window_us = now;
    }
    if (turn > watched->worst_us)
        watched->worst_us = turn;
}

int64_t watchdog_lag_us(watchdog_t *watchdog)
{
    int64_t now = now_us(), longest = 0;
    if (!watchdog)
        return 0;
    pthread_mutex_lock(&watchdog->mutex);
    for (const watched_t *at = watchdog->list; at; at = at->next) {
        int64_t since = atomic_load_explicit(&at->busy_since_us, memory_order_relaxed);
        if (since && now - since > longest)
            longest = now - since;
    }
    pthread_mutex_unlock(&watchdog->mutex);
    return longest;
}

int64_t watched_worst_us(const watched_t *watched)
{
    if (!watched)
        return 0;
    return watched->worst_us > watched->worst_before_us ? watched->worst_us
                                                        : watched->worst_before_us;
}

int64_t watchdog_limit_us(const watchdog_t *watchdog)
{
    return watchdog ? watchdog->lag_us : INT64_MAX;
}
