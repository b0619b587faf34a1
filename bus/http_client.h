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

int http_client_fd(const http_client_t *client);
void http_client_on_readable(http_client_t *client);
/* ms until http_client_on_time must be called; -1: no need. */
int64_t http_client_deadline_ms(const http_client_t *client);
void http_client_on_time(http_client_t *client);

/* The request is copied. A request that cannot be made is reported through `done` too. */
http_transfer_t *http_start(http_client_t *client, const http_call_request_t *request,
                            http_done_t *done, void *ctx);
/* `done` is not called. */
void http_cancel(http_transfer_t *transfer);

#endif
