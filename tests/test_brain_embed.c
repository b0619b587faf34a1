/* The brain with an embedding endpoint: a real HTTP server that also fails in every way we know. */
#include <check.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actors/brain/brain.h"
#include "actors/brain/endpoint.h"
#include "bus/client.h"
#include "bus/host.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- the endpoint ---- */

typedef enum how { WELL, REFUSES, LATER, DROPS, HANGS, NONSENSE, TOO_LONG } how_t;

typedef struct endpoint {
    struct MHD_Daemon *daemon;
    atomic_int how, dims, asked, largest_batch, later;
    atomic_bool keyed; /* the last request had the key */
    char url[64];
} endpoint_t;

typedef struct upload {
    char *data;
    size_t size;
} upload_t;

/* Two words for one thing lie together, which words alone cannot know. */
static int meaning(const char *text)
{
    static const char *const things[][2] = {
        {"car", "automobile"}, {"apple", "fruit"}, {"doctor", "physician"}};

    for (int i = 0; i < 3; i++)
        if (strstr(text, things[i][0]) || strstr(text, things[i][1]))
            return i;
    return 3;
}

static char *answer_for(endpoint_t *self, const upload_t *upload)
{
    arena_t *arena = arena_new();
    bytes_t map, input, item;
    buf_t out;
    int dims = atomic_load(&self->dims), count = 0;

    ck_assert(!err_is(json_to_msgpack(arena, upload->data, upload->size, NULL, &map)));
    ck_assert(mp_get(map, "input", &input));
    buf_open(&out, arena);
    buf_puts(&out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; mp_at(input, i, &item); i++, count++) {
        const char *text = mp_text(arena, item);
        if (atomic_load(&self->how) == TOO_LONG && strlen(text) > 600) {
            arena_destroy(&arena);
            return NULL;
        }
        buf_printf(&out, "%s{\"index\":%u,\"embedding\":[", i ? "," : "", i);
        for (int d = 0; d < dims; d++)
            buf_printf(&out, "%s%s", d ? "," : "", d == meaning(text) ? "2" : "0.01");
        buf_puts(&out, "]}");
    }
    buf_puts(&out, "]}");
    if (count > atomic_load(&self->largest_batch))
        atomic_store(&self->largest_batch, count);
    char *text = strdup(out.data);
    arena_destroy(&arena);
    return text;
}

static ssize_t half(void *ctx, uint64_t at, char *to, size_t most)
{
    (void)ctx, (void)most;
    if (at > 0)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    memcpy(to, "{\"data\":[", 9);
    return 9;
}

static enum MHD_Result say(struct MHD_Connection *to, unsigned status, char *text,
                           const char *retry_after)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (retry_after)
        MHD_add_response_header(response, "Retry-After", retry_after);
    enum MHD_Result result = MHD_queue_response(to, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result drop(struct MHD_Connection *to)
{
    struct MHD_Response *response = MHD_create_response_from_callback(1000, 1000, half, NULL, NULL);
    enum MHD_Result result = MHD_queue_response(to, 200, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *from, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **state)
{
    endpoint_t *self = ctx;
    upload_t *upload = *state;

    (void)url, (void)method, (void)version;
    if (!upload) {
        *state = calloc(1, sizeof *upload);
        return MHD_YES;
    }
    if (*size) {
        upload->data = realloc(upload->data, upload->size + *size);
        memcpy(upload->data + upload->size, data, *size);
        upload->size += *size;
        *size = 0;
        return MHD_YES;
    }
    const char *key = MHD_lookup_connection_value(from, MHD_HEADER_KIND, "Authorization");
    atomic_store(&self->keyed, key && strcmp(key, "Bearer sesame") == 0);
    atomic_fetch_add(&self->asked, 1);
    switch (atomic_load(&self->how)) {
    case REFUSES:
        return say(from, 500, strdup("no"), NULL);
    case LATER:
        if (atomic_fetch_sub(&self->later, 1) > 0)
            return say(from, 429, strdup("slow down"), "1");
        break;
    case DROPS:
        return drop(from);
    case HANGS:
        MHD_suspend_connection(from);
        return MHD_YES;
    case NONSENSE:
        return say(from, 200, strdup("{\"data\":[{\"embedding\":\"x\"}]}"), NULL);
    }
    char *text = answer_for(self, upload);
    return text ? say(from, 200, text, NULL) : say(from, 400, strdup("too long"), NULL);
}

static void on_done(void *ctx, struct MHD_Connection *from, void **state,
                    enum MHD_RequestTerminationCode why)
{
    upload_t *upload = *state;

    (void)ctx, (void)from, (void)why;
    if (upload)
        free(upload->data);
    free(upload);
}

static void open_endpoint(endpoint_t *self)
{
    memset(self, 0, sizeof *self);
    atomic_store(&self->dims, 8);
    self->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0,
                                    NULL, NULL, on_request, self, MHD_OPTION_NOTIFY_COMPLETED,
                                    on_done, NULL, MHD_OPTION_END);
    ck_assert_ptr_nonnull(self->daemon);
    snprintf(self->url, sizeof self->url, "brain.embed_url=http://127.0.0.1:%u/v1/embeddings",
             MHD_get_daemon_info(self->daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
}

/* ---- the house ---- */

typedef struct house {
    arena_t *arena;
    host_t *host;
    client_t *client;
    char data[64];
} house_t;

static void start(house_t *house, const char *const *settings)
{
    host_options_t options = {
        .data_dir = house->data, .settings = settings, .log_level = LOG_ERROR};
    err_t err = host_open(&options, house->arena, &house->host);

    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = host_start(house->host, &brain_actor, NULL, house->arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = client_open_host(house->host, &house->client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

static void stop(house_t *house)
{
    client_close(&house->client);
    host_close(&house->host, 2000);
}

static void open_data(house_t *house)
{
    *house = (house_t){.arena = arena_new()};
    snprintf(house->data, sizeof house->data, "/tmp/test-embed-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(house->data));
}

static void close_house(house_t *house)
{
    char command[128];

    stop(house);
    snprintf(command, sizeof command, "rm -rf %s", house->data);
    ck_assert_int_eq(system(command), 0);
    arena_destroy(&house->arena);
}

static client_reply_t good(house_t *house, const char *method, const char *args)
{
    char *json = arena_strdup(house->arena, args);
    bytes_t packed;

    for (char *c = json; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    ck_assert(!err_is(json_to_msgpack(house->arena, json, strlen(json), NULL, &packed)));
    client_call_t call = {
        .peer = "brain", .method = method, .args = packed, .role = ROLE_ADMIN, .timeout_ms = 20000};
    client_reply_t reply = client_call(house->client, house->arena, &call);
    ck_assert_msg(!err_is(reply.err), "%s %s: %s", method, args, err_what(reply.err));
    return reply;
}

static const char *text_in(house_t *house, bytes_t body, const char *name)
{
    bytes_t value;

    return mp_get(body, name, &value) ? mp_text(house->arena, value) : "";
}

static int64_t number_in(bytes_t body, const char *name)
{
    bytes_t value;
    int64_t number = -1;

    return mp_get(body, name, &value) && mp_int(value, &number) ? number : -1;
}

static int64_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* The stat once it has moved to `model` (or is there) and nothing waits. */
static bytes_t filled(house_t *house, const char *model)
{
    int64_t end = now_s() + 30;

    for (;;) {
        bytes_t stat = good(house, "brain_stat", "{}").body;
        if (strncmp(text_in(house, stat, "model"), model, strlen(model)) == 0 &&
            number_in(stat, "pending") <= 0 && !*text_in(house, stat, "next_model"))
            return stat;
        ck_assert_msg(now_s() < end, "model %s pending %d trouble %s",
                      text_in(house, stat, "model"), (int)number_in(stat, "pending"),
                      text_in(house, stat, "trouble"));
    }
}

static void await_trouble(house_t *house, const char *part)
{
    int64_t end = now_s() + 30;

    while (!strstr(text_in(house, good(house, "brain_stat", "{}").body, "trouble"), part))
        ck_assert_msg(now_s() < end, "no trouble '%s'", part);
}

static void store(house_t *house, const char *id, const char *text)
{
    good(house, "brain_store",
         arena_printf(house->arena, "{'id': '%s', 'taskId': 't', 'request': '%s', 'solution': ''}",
                      id, text));
}

static const char *first(house_t *house, const char *query, const char **words_only)
{
    client_reply_t reply = good(house, "brain_query",
                                arena_printf(house->arena, "{'query': '%s', 'limit': 1}", query));
    bytes_t list, one;

    *words_only = text_in(house, reply.body, "words_only");
    return mp_get(reply.body, "memories", &list) && mp_at(list, 0, &one) ? text_in(house, one, "id")
                                                                         : "";
}

static void finds(house_t *house, const char *query, const char *id)
{
    const char *words_only, *found = first(house, query, &words_only);

    ck_assert_str_eq(words_only, "");
    ck_assert_str_eq(found, id);
}

static const char *const *settings_of(const endpoint_t *endpoint, const char *more)
{
    static const char *settings[6];

    settings[0] = endpoint->url;
    settings[1] = "brain.embed_model=m1";
    settings[2] = "brain.embed_timeout_ms=500";
    settings[3] = "brain.embed_query_ms=300";
    settings[4] = more;
    settings[5] = NULL;
    return settings;
}

static void open_both(house_t *house, endpoint_t *endpoint, const char *more)
{
    open_endpoint(endpoint);
    open_data(house);
    start(house, settings_of(endpoint, more));
}

static void close_both(house_t *house, endpoint_t *endpoint)
{
    close_house(house);
    MHD_stop_daemon(endpoint->daemon);
}

/* ---- tests ---- */

START_TEST(meaning_is_found_by_vectors_of_the_endpoint)
{
    house_t house;
    endpoint_t endpoint;
    char key[128];
    open_endpoint(&endpoint);
    open_data(&house);
    snprintf(key, sizeof key, "%s/key", house.data);
    FILE *file = fopen(key, "w");
    fputs("sesame\n", file);
    fclose(file);
    start(&house,
          settings_of(&endpoint, arena_printf(house.arena, "brain.embed_key_file=%s", key)));
    store(&house, "a", "the red car");
    store(&house, "b", "an apple a day");
    store(&house, "c", "to the doctor");
    bytes_t stat = filled(&house, "endpoint:m1");
    ck_assert_int_eq(number_in(stat, "vectors"), 3);
    ck_assert_int_eq(number_in(stat, "dims"), 8);
    finds(&house, "automobile", "a");
    finds(&house, "fruit", "b");
    finds(&house, "physician", "c");
    ck_assert(atomic_load(&endpoint.keyed));
    good(&house, "brain_delete_episode", "{'id': 'b'}");
    store(&house, "d", "fruit salad");
    filled(&house, "endpoint:m1");
    finds(&house, "apple", "d");
    good(&house, "brain_check", "{}");
    good(&house, "brain_maintenance", "{'action': 'rebuild_indices'}");
    good(&house, "brain_check", "{}");
    finds(&house, "automobile", "a");
    store(&house, "z", "gone at once");
    good(&house, "brain_delete_episode", "{'id': 'z'}");
    good(&house, "brain_reembed", "{'again': true}");
    filled(&house, "endpoint:m1");
    good(&house, "brain_check", "{}");
    finds(&house, "automobile", "a");
    stop(&house);
    start(&house, settings_of(&endpoint, NULL));
    finds(&house, "physician", "c");
    store(&house, "e", "car again");
    ck_assert_int_eq(number_in(filled(&house, "endpoint:m1"), "vectors"), 4);
    good(&house, "brain_check", "{}");
    close_both(&house, &endpoint);
}
END_TEST

/* In every bad mode: stores are taken, words answer and say so; later all is filled. */
START_TEST(a_bad_endpoint_costs_nothing_but_vectors)
{
    static const how_t modes[] = {REFUSES, DROPS, NONSENSE, HANGS};
    house_t house;
    endpoint_t endpoint;
    const char *words_only;
    open_both(&house, &endpoint, NULL);
    store(&house, "a", "the red car");
    filled(&house, "endpoint:m1");
    atomic_store(&endpoint.how, modes[_i]);
    store(&house, "b", "an apple a day");
    ck_assert_str_eq(first(&house, "apple", &words_only), "b");
    ck_assert_msg(*words_only, "nothing says that words had to do");
    await_trouble(&house, "endpoint");
    good(&house, "brain_check", "{}");
    if (modes[_i] != HANGS) { /* what hangs is ended by our own timeout, and stays hung there */
        atomic_store(&endpoint.how, WELL);
        ck_assert_int_eq(number_in(filled(&house, "endpoint:m1"), "vectors"), 2);
        good(&house, "brain_check", "{}");
    }
    stop(&house);
    if (modes[_i] == HANGS) {
        atomic_store(&endpoint.how, WELL);
    }
    start(&house, settings_of(&endpoint, NULL));
    ck_assert_int_eq(number_in(filled(&house, "endpoint:m1"), "vectors"), 2);
    finds(&house, "fruit", "b");
    close_house(&house);
    if (modes[_i] != HANGS)
        MHD_stop_daemon(endpoint.daemon);
}
END_TEST

START_TEST(retry_after_is_kept_and_long_texts_are_shortened)
{
    house_t house;
    endpoint_t endpoint;
    open_both(&house, &endpoint, "brain.embed_batch=4");
    atomic_store(&endpoint.how, LATER);
    atomic_store(&endpoint.later, 2);
    int64_t begin = now_s();
    for (int i = 0; i < 10; i++)
        store(&house, arena_printf(house.arena, "m%d", i), "the red car");
    filled(&house, "endpoint:m1");
    ck_assert_int_ge(now_s() - begin, 1);
    ck_assert_int_le(atomic_load(&endpoint.largest_batch), 4);
    atomic_store(&endpoint.how, TOO_LONG);
    char big[2001];
    memset(big, 'x', 2000);
    big[2000] = 0;
    store(&house, "big", big);
    store(&house, "small", "one apple");
    ck_assert_int_eq(number_in(filled(&house, "endpoint:m1"), "vectors"), 12);
    finds(&house, "fruit", "small");
    close_both(&house, &endpoint);
}
END_TEST

/* As long as a name may be. */
#define TWENTY "abcdefghijklmnopqrst"
#define M2 TWENTY TWENTY TWENTY TWENTY TWENTY

START_TEST(models_are_never_mixed)
{
    house_t house;
    endpoint_t endpoint;
    const char *words_only;
    open_both(&house, &endpoint, NULL);
    store(&house, "a", "the red car");
    filled(&house, "endpoint:m1");
    atomic_store(&endpoint.dims, 16);
    store(&house, "b", "an apple a day");
    await_trouble(&house, "16 dimensions");
    ck_assert_str_eq(first(&house, "apple", &words_only), "b");
    ck_assert_ptr_nonnull(strstr(words_only, "16 dimensions, the memories have 8"));
    good(&house, "brain_check", "{}");
    stop(&house);
    const char *other[] = {endpoint.url, "brain.embed_model=" M2, NULL};
    start(&house, other);
    ck_assert_str_eq(first(&house, "apple", &words_only), "b");
    ck_assert_ptr_nonnull(strstr(words_only, "brain_reembed"));
    await_trouble(&house, "brain_reembed");
    good(&house, "brain_reembed", "{}");
    bytes_t stat = filled(&house, "endpoint:" M2);
    ck_assert_int_eq(number_in(stat, "dims"), 16);
    ck_assert_int_eq(number_in(stat, "vectors"), 2);
    finds(&house, "fruit", "b");
    good(&house, "brain_check", "{}");
    stop(&house);
    start(&house, NULL); /* back to the built-in ones */
    good(&house, "brain_reembed", "{}");
    stat = filled(&house, "hash-");
    ck_assert_int_eq(number_in(stat, "vectors"), 2);
    finds(&house, "apple", "b");
    good(&house, "brain_check", "{}");
    close_both(&house, &endpoint);
}
END_TEST

/* A process that stores and moves to the endpoint is killed; whatever it had acknowledged is there,
 * sound, and the move is finished by the next. */
START_TEST(a_move_survives_being_killed)
{
    house_t house;
    endpoint_t endpoint;
    open_endpoint(&endpoint);
    open_data(&house);
    for (int round = 0; round < 6; round++) {
        int pipes[2];
        ck_assert_int_eq(pipe(pipes), 0);
        pid_t pid = fork();
        if (pid == 0) {
            start(&house, settings_of(&endpoint, "brain.embed_batch=2"));
            for (int i = 0; i < 40; i++) {
                store(&house, arena_printf(house.arena, "r%d-%d", round, i), "the red car");
                if (i == 5)
                    good(&house, "brain_reembed", "{'again': true}");
                if (i % 10 == 9)
                    good(&house, "brain_delete_episode",
                         arena_printf(house.arena, "{'id': 'r%d-%d'}", round, i));
                if (write(pipes[1], "x", 1) != 1)
                    _exit(1);
            }
            for (;;)
                pause();
        }
        char done;
        for (int i = 0; i < 12 + round * 5; i++)
            ck_assert_int_eq(read(pipes[0], &done, 1), 1);
        kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        close(pipes[0]);
        close(pipes[1]);
    }
    start(&house, settings_of(&endpoint, NULL));
    good(&house, "brain_check", "{}");
    bytes_t stat = filled(&house, "endpoint:m1");
    ck_assert_int_eq(number_in(stat, "vectors"), number_in(stat, "memories"));
    good(&house, "brain_check", "{}");
    close_both(&house, &endpoint);
}
END_TEST

START_TEST(bad_answers_are_refused)
{
    static const char *const answers[] = {"",
                                          "{",
                                          "[]",
                                          "{}",
                                          "{\"data\":{}}",
                                          "{\"data\":[]}",
                                          "{\"data\":[1]}",
                                          "{\"data\":[{\"embedding\":[]}]}",
                                          "{\"data\":[{\"embedding\":[\"1\"]}]}",
                                          "{\"data\":[{\"embedding\":[0,0]}]}",
                                          "{\"data\":[{\"embedding\":[1e300,1]}]}",
                                          "{\"data\":[{\"embedding\":[null]}]}",
                                          "{\"data\":[{\"index\":-1,\"embedding\":[1]}]}",
                                          "{\"data\":[{\"index\":1,\"embedding\":[1]}]}",
                                          "{\"data\":[{\"index\":\"0\",\"embedding\":[1]}]}",
                                          "{\"data\":[{\"embedding\":[1]},{\"embedding\":[1]}]}"};
    arena_t *arena = arena_new();
    float *vectors;
    uint32_t dims;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        bytes_t body = {(const uint8_t *)answers[i], strlen(answers[i])};
        err_t err = endpoint_read(arena, body, 1, &vectors, &dims);
        ck_assert_msg(err.code == ERR_PARSE, "%s: %s", answers[i], err_what(err));
    }
    const char *mixed = "{\"data\":[{\"embedding\":[1,2]},{\"embedding\":[1]}]}";
    const char *twice =
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}";
    const char *swapped = "{\"data\":[{\"index\":1,\"embedding\":[3,4]},"
                          "{\"index\":0,\"embedding\":[0,-2]}]}";
    ck_assert_int_eq(
        endpoint_read(arena, (bytes_t){(const uint8_t *)mixed, strlen(mixed)}, 2, &vectors, &dims)
            .code,
        ERR_PARSE);
    ck_assert_int_eq(
        endpoint_read(arena, (bytes_t){(const uint8_t *)twice, strlen(twice)}, 2, &vectors, &dims)
            .code,
        ERR_PARSE);
    ck_assert(!err_is(endpoint_read(arena, (bytes_t){(const uint8_t *)swapped, strlen(swapped)}, 2,
                                    &vectors, &dims)));
    ck_assert_uint_eq(dims, 2);
    ck_assert_float_eq_tol(vectors[1], -1, 1e-6);
    ck_assert_float_eq_tol(vectors[2], 0.6, 1e-6);
    /* 0, 3, 4 as little-endian floats; then a NaN, half a float, a wrong letter. */
    const char *coded = "{\"data\":[{\"embedding\":\"AAAAAAAAQEAAAIBA\"}]}";
    ck_assert(!err_is(endpoint_read(arena, (bytes_t){(const uint8_t *)coded, strlen(coded)}, 1,
                                    &vectors, &dims)));
    ck_assert_uint_eq(dims, 3);
    ck_assert_float_eq_tol(vectors[1], 0.6, 1e-6);
    ck_assert_float_eq_tol(vectors[2], 0.8, 1e-6);
    static const char *const wrong[] = {
        "AADAfwAAgD8=", "AAAAAAAA", "AAAAAAAAQE==", "AAAA*AAAQEAAAIBA", "====", "AAAAAAAAAAA="};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *text = arena_printf(arena, "{\"data\":[{\"embedding\":\"%s\"}]}", wrong[i]);
        err_t err = endpoint_read(arena, (bytes_t){(const uint8_t *)text, strlen(text)}, 1,
                                  &vectors, &dims);
        ck_assert_msg(err.code == ERR_PARSE, "%s", text);
    }
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain_embed");
    TCase *tcase = tcase_create("brain_embed");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, bad_answers_are_refused);
    tcase_add_test(tcase, meaning_is_found_by_vectors_of_the_endpoint);
    tcase_add_loop_test(tcase, a_bad_endpoint_costs_nothing_but_vectors, 0, 4);
    tcase_add_test(tcase, retry_after_is_kept_and_long_texts_are_shortened);
    tcase_add_test(tcase, models_are_never_mixed);
    tcase_add_test(tcase, a_move_survives_being_killed);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
