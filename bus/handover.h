/* handover: tells ThreadSanitizer what it cannot see, that a message sent on one thread is read on
 * another only after it went through libzmq, which is not instrumented. Nothing in other builds. */
#ifndef BUS_HANDOVER_H
#define BUS_HANDOVER_H

#include <string.h>
#include <zmq.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HANDOVER_SEEN 1
#endif
#endif

#ifdef HANDOVER_SEEN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#endif

/* Like zmq_send. */
static inline int handover_send(void *socket, const void *data, size_t size, int flags)
{
    zmq_msg_t message;
    if (zmq_msg_init_size(&message, size))
        return -1;
    if (size)
        memcpy(zmq_msg_data(&message), data, size);
#ifdef HANDOVER_SEEN
    __tsan_release(zmq_msg_data(&message));
#endif
    int sent = zmq_msg_send(&message, socket, flags);
    if (sent < 0)
        zmq_msg_close(&message);
    return sent;
}

/* Like zmq_msg_recv. */
static inline int handover_receive(zmq_msg_t *message, void *socket, int flags)
{
    int got = zmq_msg_recv(message, socket, flags);
#ifdef HANDOVER_SEEN
    if (got >= 0)
        __tsan_acquire(zmq_msg_data(message));
#endif
    return got;
}

#endif
