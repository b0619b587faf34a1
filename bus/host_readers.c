/* Reader threads: handlers that only read run on them. The actor's thread hands them work and takes
 * their answers, also in the middle of a batch. */
#include <stdlib.h>
#include <sys/eventfd.h>

#include "bus/host_parts.h"

enum { ATTEND_MS = 1000 };

typedef struct read_job {
    struct read_job *next;
    node_t *node;
    uint64_t token;
    void (*job)(void *ctx);
    void *ctx;
} read_job_t;

static void *reader_main(void *arg)
{
    loop_t *loop = arg;
    pthread_mutex_lock(&loop->read_mutex);
    for (;;) {
        while (!loop->read_queue && !loop->readers_stop)
            pthread_cond_wait(&loop->read_cond, &loop->read_mutex);
        if (!loop->read_queue)
            break;
        read_job_t *job = loop->read_queue;
        loop->read_queue = job->next;
        if (!loop->read_queue)
            loop->read_queue_end = &loop->read_queue;
        pthread_mutex_unlock(&loop->read_mutex);
        job->job(job->ctx);
        pthread_mutex_lock(&loop->read_mutex);
        bool first = !loop->read_done;
        job->next = loop->read_done;
        loop->read_done = job;
        if (first)
            eventfd_write(loop->wake, 1);
    }
    pthread_mutex_unlock(&loop->read_mutex);
    return NULL;
}

void host_env_read_start(actor_env_t *env, uint64_t token, void (*job)(void *ctx), void *ctx)
{
    node_t *node = (node_t *)env;
    loop_t *loop = node->loop;
    read_job_t *read = calloc(1, sizeof(*read));
    if (!read)
        abort();
    *read = (read_job_t){.node = node, .token = token, .job = job, .ctx = ctx};
    pthread_mutex_lock(&loop->read_mutex);
    *loop->read_queue_end = read;
    loop->read_queue_end = &read->next;
    pthread_cond_signal(&loop->read_cond);
    pthread_mutex_unlock(&loop->read_mutex);
}

void host_collect_reads(loop_t *loop)
{
    pthread_mutex_lock(&loop->read_mutex);
    read_job_t *done = loop->read_done;
    loop->read_done = NULL;
    pthread_mutex_unlock(&loop->read_mutex);
    while (done) {
        read_job_t *job = done;
        done = job->next;
        actor_on_read(job->node->actor, job->token);
        free(job);
    }
}

void host_env_attend(actor_env_t *env, bool wait)
{
    node_t *node = (node_t *)env;
    loop_t *loop = node->loop;
    zmq_pollitem_t polls[] = {{.fd = loop->wake, .events = ZMQ_POLLIN},
                              {.socket = node->router, .events = ZMQ_POLLIN},
                              {.socket = node->far_router, .events = ZMQ_POLLIN}};
    int count = node->far_router ? 3 : 2;
    host_empty_outbox(loop);
    if (wait && zmq_poll(polls, count, mailbox_sleep(loop->box) ? ATTEND_MS : 0) > 0 &&
        polls[0].revents) {
        eventfd_t woken;
        eventfd_read(loop->wake, &woken);
        loop->woken = true;
    }
    host_collect_reads(loop);
    host_on_box(node);
    host_touch(loop, node->router);
    host_on_router(node, node->router, true);
    if (node->far_router) {
        host_touch(loop, node->far_router);
        host_on_router(node, node->far_router, true);
    }
}

void host_env_wake(actor_env_t *env)
{
    eventfd_write(((node_t *)env)->loop->wake, 1);
}

void host_start_readers(loop_t *loop)
{
    for (size_t i = 0; i < loop->node_count; i++)
        loop->reader_count += (size_t)loop->nodes[i].def->readers;
    loop->readers = calloc(loop->reader_count + 1, sizeof(pthread_t));
    for (size_t i = 0; i < loop->reader_count; i++)
        if (pthread_create(&loop->readers[i], NULL, reader_main, loop))
            abort();
}

void host_stop_readers(loop_t *loop)
{
    pthread_mutex_lock(&loop->read_mutex);
    loop->readers_stop = true;
    pthread_cond_broadcast(&loop->read_cond);
    pthread_mutex_unlock(&loop->read_mutex);
    for (size_t i = 0; i < loop->reader_count; i++)
        pthread_join(loop->readers[i], NULL);
    free(loop->readers);
    host_collect_reads(loop);
}
