#include "support_tcp.h"

#include <check.h>
#include <stdio.h>
#include <unistd.h>
#include <zmq.h>

#include "bus/curve.h"

static bool is_free(void *context, int port)
{
    char address[64];
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    snprintf(address, sizeof(address), "tcp://127.0.0.1:%d", port);
    bool good = !zmq_bind(socket, address);
    zmq_close(socket);
    return good;
}

int free_tcp_offset(void)
{
    static const int ports[] = {5500, 5502, 5504, 5505, 5506, 5507};
    void *context = zmq_ctx_new();
    int offset = 4500 + (int)getpid() % 400 * 7;
    for (size_t i = 0; i < sizeof(ports) / sizeof(*ports); i++)
        if (!is_free(context, ports[i] + offset) ||
            !is_free(context, ports[i] + offset + PLACE_EVENT_PORT)) {
            offset++;
            i = (size_t)-1; /* from the beginning */
        }
    zmq_ctx_term(context);
    return offset;
}

const char *make_curve_key(const char *dir, arena_t *arena)
{
    const char *key;
    err_t err = curve_keygen(dir, arena, &key);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    return key;
}
