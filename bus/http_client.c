#include "bus/http_client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS = 32, CONNECT_TIMEOUT_MS = 10000, DEFAULT_LIMIT = 16 << 20 };

struct http_transfer {
    http_transfer_t *next;
    http_client_t *client;
    CURL *easy;
    struct curl_slist *headers;
    char *request_body;
    char *data;
    size_t size, capacity, limit;
    bool too_large;
    char error[CURL_ERROR_SIZE];
    http_part_t *part; /* NULL: the body is gathered */
    http_done_t *done;
    void *ctx;
};

struct http_client {
    CURLM *multi;
    int epoll, timer; /* the timer is in the epoll set */
    http_transfer_t *first;
};

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
    http_client_t *client = ctx;
    (void)easy;
    struct epoll_event event = {.data.fd = fd};
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(client->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    if (what & CURL_POLL_IN)
        event.events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        event.events |= EPOLLOUT;
    epoll_ctl(client->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    curl_multi_assign(client->multi, fd, client);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
    const http_client_t *client = ctx;
    struct itimerspec when = {.it_value = {0}};
    (void)multi;
    if (timeout_ms >= 0) {
        when.it_value.tv_sec = timeout_ms / 1000;
        when.it_value.tv_nsec = timeout_ms % 1000 * 1000000 + 1; /* 0 would disarm it */
    }
    timerfd_settime(client->timer, 0, &when, NULL);
    return 0;
}

static void init_once(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

http_client_t *http_client_new(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
    http_client_t *client = calloc(1, sizeof(*client));
    if (!client)
        abort();
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    client->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = client->timer};
    epoll_ctl(client->epoll, EPOLL_CTL_ADD, client->timer, &event);
    client->multi = curl_multi_init();
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    return client;
}

void http_cancel(http_transfer_t *transfer)
{
    http_client_t *client = transfer->client;
    http_transfer_t **at = &client->first;
    while (*at != transfer)
        at = &(*at)->next;
    *at = transfer->next;
    if (transfer->easy) {
        curl_multi_remove_handle(client->multi, transfer->easy);
        curl_easy_cleanup(transfer->easy);
    }
    curl_slist_free_all(transfer->headers);
    free(transfer->request_body);
    free(transfer->data);
    free(transfer);
}

void http_client_destroy(http_client_t **handle)
{
    http_client_t *client = *handle;
    if (!client)
        return;
    while (client->first)
        http_cancel(client->first);
    curl_multi_cleanup(client->multi);
    close(client->timer);
    close(client->epoll);
    free(client);
    *handle = NULL;
}

int http_client_fd(const http_client_t *client)
{
    return client->epoll;
}

/* ---- Outcomes ---- */

static void report(http_transfer_t *transfer, CURLcode code)
{
    http_call_outcome_t outcome = {.content_type = "", .retry_after_ms = -1};
    long status = 0;
    char *type = NULL;
    curl_off_t retry_s = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(transfer->easy, CURLINFO_CONTENT_TYPE, &type);
    curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &retry_s);
    outcome.status = (int)status;
    outcome.content_type = type ? type : "";
    if (retry_s > 0)
        outcome.retry_after_ms = (int64_t)retry_s * 1000;
    outcome.body = (bytes_t){(const uint8_t *)transfer->data, transfer->size};
    if (transfer->too_large)
        outcome.err = err_of(ERR_TOO_LARGE, "the answer is larger than the limit");
    else if (code == CURLE_OPERATION_TIMEDOUT)
        outcome.err = err_of(ERR_TIMEOUT, "the server did not answer in time");
    else if (code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT)
        outcome.err = err_of(ERR_ARGUMENT, "this is no http or https URL");
    else if (code != CURLE_OK)
        outcome.err =
            err_of(ERR_UNAVAILABLE, *transfer->error ? transfer->error : curl_easy_strerror(code));
    transfer->done(transfer->ctx, &outcome);
    http_cancel(transfer);
}

int http_status_of(const http_transfer_t *transfer)
{
    long status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

const char *http_header_of(const http_transfer_t *transfer, const char *name)
{
    struct curl_header *header;
    return curl_easy_header(transfer->easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK
               ? header->value
               : NULL;
}

bool http_sent(const http_transfer_t *transfer)
{
    long size = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &size);
    return size > 0;
}

static void collect(http_client_t *client)
{
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left));) {
        http_transfer_t *transfer;
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        report(transfer, code);
    }
}

/* Parts are handed over outside of libcurl, which does not bear being called from its callbacks.
 * Each may end any transfer, so the search begins anew. */
static void hand_over(http_client_t *client)
{
    http_transfer_t *at = client->first;
    while (at) {
        if (!at->part || !at->size) {
            at = at->next;
            continue;
        }
        bytes_t part = {(const uint8_t *)at->data, at->size};
        char *data = at->data; /* the transfer may be gone when it returns */
        at->data = NULL;
        at->size = at->capacity = 0;
        at->part(at->ctx, part);
        free(data);
        at = client->first;
    }
}

void http_client_on_readable(http_client_t *client)
{
    struct epoll_event events[EVENTS];
    int running, count = epoll_wait(client->epoll, events, EVENTS, 0);
    for (int i = 0; i < count; i++) {
        int mask = 0;
        uint64_t times;
        if (events[i].data.fd == client->timer) {
            if (read(client->timer, &times, sizeof(times)) > 0)
                curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
            continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            mask |= CURL_CSELECT_IN;
        if (events[i].events & EPOLLOUT)
            mask |= CURL_CSELECT_OUT;
        curl_multi_socket_action(client->multi, events[i].data.fd, mask, &running);
    }
    hand_over(client);
    collect(client);
}

/* ---- Starting ---- */

static size_t on_data(char *data, size_t one, size_t count, void *ctx)
{
    http_transfer_t *transfer = ctx;
    size_t size = one * count;
    if (size > transfer->limit - transfer->size) {
        transfer->too_large = true;
        return 0;
    }
    if (transfer->size + size > transfer->capacity) {
        transfer->capacity = (transfer->size + size) * 2;
        transfer->data = realloc(transfer->data, transfer->capacity);
        if (!transfer->data)
            abort();
    }
    memcpy(transfer->data + transfer->size, data, size);
    transfer->size += size;
    return size;
}

static void set_body(http_transfer_t *transfer, const http_call_request_t *request)
{
    CURL *easy = transfer->easy;
    if (!strcmp(request->method, "GET"))
        return;
    transfer->request_body = malloc(request->body.size + 1);
    if (!transfer->request_body)
        abort();
    if (request->body.size)
        memcpy(transfer->request_body, request->body.data, request->body.size);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->request_body);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

http_transfer_t *http_start(http_client_t *client, const http_call_request_t *request,
                            http_done_t *done, void *ctx)
{
    return http_start_parts(client, request, NULL, done, ctx);
}

http_transfer_t *http_start_parts(http_client_t *client, const http_call_request_t *request,
                                  http_part_t *part, http_done_t *done, void *ctx)
{
    http_transfer_t *transfer = calloc(1, sizeof(*transfer));
    if (!transfer || !(transfer->easy = curl_easy_init()))
        abort();
    transfer->client = client;
    transfer->part = part;
    transfer->done = done;
    transfer->ctx = ctx;
    transfer->limit = request->response_limit > 0 ? (size_t)request->response_limit : DEFAULT_LIMIT;
    transfer->next = client->first;
    client->first = transfer;
    for (const char *const *at = request->headers; at && *at; at++)
        transfer->headers = curl_slist_append(transfer->headers, *at);
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                     (long)(request->timeout_ms > 0 ? request->timeout_ms
                            : part                  ? 0
                                                    : 60000));
    if (request->once) /* on a connection that turns out to be dead it would be sent again */
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    if (request->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L); /* it may be rotated */
    }
    set_body(transfer, request);
    curl_multi_add_handle(client->multi, easy);
    return transfer;
}
