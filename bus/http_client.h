/* http_client: outbound HTTP from a foreign event loop. The one door to libcurl. No redirects, no
 * proxies from the environment, only http and https. Thread: one owner. */
#ifndef BUS_HTTP_CLIENT_H
#define BUS_HTTP_CLIENT_H

#include "bus/env.h"

typedef struct http_client http_client_t;
typedef struct http_transfer http_transfer_t;

/* Called once per started transfer, later. The outcome lives during the call. */
typedef void http_done_t(void *ctx, const http_call_outcome_t *outcome);

http_client_t *http_client_new(void);
/* Calls off what is under way; nobody is called. */
void http_client_destroy(http_client_t **client);

/* Readable when http_client_on_readable has something to do, timers included. */
int http_client_fd(const http_client_t *client);
void http_client_on_readable(http_client_t *client);

/* The request is copied. A request that cannot be made is reported through `done` too. */
http_transfer_t *http_start(http_client_t *client, const http_call_request_t *request,
                            http_done_t *done, void *ctx);
/* `done` is not called. */
void http_cancel(http_transfer_t *transfer);

/* A part of the answer's body as it comes; any transfer may be started or cancelled from it. */
typedef void http_part_t(void *ctx, bytes_t part);

/* The same for an answer that is read in parts: the outcome has no body, request->response_limit
 * bounds what one part gathers, and timeout_ms 0 is no limit. */
http_transfer_t *http_start_parts(http_client_t *client, const http_call_request_t *request,
                                  http_part_t *part, http_done_t *done, void *ctx);
/* From `part` or `done`: the status, and a header of the answer, or NULL. */
int http_status_of(const http_transfer_t *transfer);
const char *http_header_of(const http_transfer_t *transfer, const char *name);
/* From `done`: has any of the request left? False: the server cannot have taken it. */
bool http_sent(const http_transfer_t *transfer);

#endif
