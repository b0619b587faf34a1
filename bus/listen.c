#include "bus/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

bool listen_address(const char *text, int port, struct sockaddr_storage *out, socklen_t *size)
{
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out;
    memset(out, 0, sizeof(*out));
    if (!strcmp(text, "localhost"))
        text = "127.0.0.1";
    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *size = sizeof(*in);
        return true;
    }
    if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1)
        return false;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    *size = sizeof(*in6);
    return true;
}

err_t listen_probe(const char *text, int port, arena_t *arena)
{
    struct sockaddr_storage address;
    socklen_t size;
    int one = 1;
    if (!listen_address(text, port, &address, &size))
        return err_make(arena, ERR_ARGUMENT, "'%s' is no numeric address to listen at", text);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    int failed = bind(fd, (struct sockaddr *)&address, size) || listen(fd, 1) ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (!failed)
        return err_ok();
    return err_make(arena, ERR_IO,
                    "cannot listen at %s:%d: %s; stop what listens there or choose another "
                    "--port-offset",
                    text, port, strerror(failed));
}
