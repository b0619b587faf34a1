#include "bus/lane.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

struct lane {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    lane_fn_t *fn; /* NULL: idle */
    void *ctx;
    bool closing;
};

static void *run(void *arg)
{
    lane_t *lane = arg;
    pthread_mutex_lock(&lane->mutex);
    for (;;) {
        while (!lane->fn && !lane->closing)
            pthread_cond_wait(&lane->changed, &lane->mutex);
        if (!lane->fn)
            break;
        lane_fn_t *fn = lane->fn;
        void *ctx = lane->ctx;
        pthread_mutex_unlock(&lane->mutex);
        fn(ctx);
        pthread_mutex_lock(&lane->mutex);
        lane->fn = NULL;
        pthread_cond_broadcast(&lane->changed);
    }
    pthread_mutex_unlock(&lane->mutex);
    return NULL;
}

lane_t *lane_open(void)
{
    lane_t *lane = calloc(1, sizeof(*lane));
    if (!lane)
        abort();
    pthread_mutex_init(&lane->mutex, NULL);
    pthread_cond_init(&lane->changed, NULL);
    sigset_t all, before; /* signals are for the main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int code = pthread_create(&lane->thread, NULL, run, lane);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!code)
        return lane;
    pthread_cond_destroy(&lane->changed);
    pthread_mutex_destroy(&lane->mutex);
    free(lane);
    return NULL;
}

void lane_close(lane_t **handle)
{
    lane_t *lane = *handle;
    *handle = NULL;
    if (!lane)
        return;
    pthread_mutex_lock(&lane->mutex);
    lane->closing = true;
    pthread_cond_broadcast(&lane->changed);
    pthread_mutex_unlock(&lane->mutex);
    pthread_join(lane->thread, NULL);
    pthread_cond_destroy(&lane->changed);
    pthread_mutex_destroy(&lane->mutex);
    free(lane);
}

void lane_start(lane_t *lane, lane_fn_t *fn, void *ctx)
{
    pthread_mutex_lock(&lane->mutex);
    while (lane->fn)
        pthread_cond_wait(&lane->changed, &lane->mutex);
    lane->ctx = ctx;
    lane->fn = fn;
    pthread_cond_broadcast(&lane->changed);
    pthread_mutex_unlock(&lane->mutex);
}

void lane_wait(lane_t *lane)
{
    pthread_mutex_lock(&lane->mutex);
    while (lane->fn)
        pthread_cond_wait(&lane->changed, &lane->mutex);
    pthread_mutex_unlock(&lane->mutex);
}
