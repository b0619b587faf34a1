/* headers: values of HTTP headers as clients send them. Thread: pure. */
#ifndef ACTORS_GATEWAY_HEADERS_H
#define ACTORS_GATEWAY_HEADERS_H

#include <stdbool.h>
#include <stddef.h>

/* Does an Accept header let this type ("application/json") through? NULL: no header, anything is
 * fine. Wildcards count, q=0 does not. RFC 9110 §12.5.1. */
bool headers_accept(const char *accept, const char *type);
/* The same, but only where the type itself is named: no header and wildcards are no wish for it. */
bool headers_accept_named(const char *accept, const char *type);
/* Content-Type: application/json, of no other charset than UTF-8. */
bool headers_is_json(const char *type);

/* localhost, 127.0.0.1 or [::1], with or without a port. */
bool headers_host_is_loopback(const char *host);
/* The same as http(s) origin: nothing but scheme, host and port. */
bool headers_origin_is_loopback(const char *origin);
/* Is the host of a Host header, without its port, this one? */
bool headers_host_is(const char *host, const char *name);

/* "Bearer TOKEN": the token; NULL: it is another scheme, or empty. RFC 6750 §2.1. */
const char *headers_bearer(const char *authorization);

/* Last-Event-ID <stream>-<number>; false when it is not such a one of ours. */
bool headers_event_id(const char *text, size_t *stream_size, int *number);

#endif
