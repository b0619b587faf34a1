#include "house.h"

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/json.h"

enum { CALL_MS = 20000, DRAIN_MS = 2000 };

void scratch_make(char *path)
{
    snprintf(path, 32, "/tmp/agency-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

void scratch_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    fclose(file);
}

char *read_file(arena_t *arena, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return NULL;
    buf_t text;
    char chunk[4096];
    buf_open(&text, arena);
    for (size_t got; (got = fread(chunk, 1, sizeof(chunk), file)) > 0;)
        buf_put(&text, chunk, got);
    fclose(file);
    return text.data;
}

int64_t mono_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

client_t *house_client(house_t *house)
{
    client_t *client;
    err_t err = house->transport == TRANSPORT_INPROC
                    ? client_open_host(house->host, &client)
                    : client_open(host_run_dir(house->host), house->arena, &client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    return client;
}

void house_up(house_t *house)
{
    host_options_t options = {.data_dir = house->data,
                              .transport = house->transport,
                              .settings = house->settings,
                              .log_level = LOG_ERROR,
                              .store_fault = house->fault};
    err_t err = host_open(&options, house->arena, &house->host);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    house->client = house_client(house);
}

void house_open(house_t *house, transport_t transport)
{
    *house = (house_t){.arena = arena_new(), .transport = transport, .text = ""};
    scratch_make(house->data);
    house_up(house);
}

void house_down(house_t *house)
{
    client_close(&house->client);
    host_close(&house->host, DRAIN_MS);
}

void house_close(house_t *house)
{
    house_down(house);
    scratch_remove(house->data);
    arena_destroy(&house->arena);
}

void house_start(house_t *house, const actor_def_t *def)
{
    err_t err = host_start(house->host, def, NULL, house->arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

void house_restart(house_t *house, const actor_def_t *def)
{
    host_stop(house->host, def->name, DRAIN_MS);
    house_start(house, def);
    client_close(&house->client);
    house->client = house_client(house);
}

static char *swap_quotes(arena_t *arena, const char *text, char from, char to)
{
    char *copy = arena_strdup(arena, text);
    for (char *at = copy; *at; at++)
        if (*at == from)
            *at = to;
    return copy;
}

bytes_t house_pack(arena_t *arena, const char *json)
{
    bytes_t packed;
    const char *text = swap_quotes(arena, json, '\'', '"');
    err_t err = json_to_msgpack(arena, text, strlen(text), NULL, &packed);
    ck_assert_msg(!err_is(err), "%s: %s", json, err_what(err));
    return packed;
}

const char *house_reply_text(arena_t *arena, client_reply_t reply)
{
    if (err_is(reply.err))
        return arena_printf(arena, "ERR %s", err_info(reply.err.code)->name);
    buf_t out;
    buf_open(&out, arena);
    err_t err = json_from_msgpack(reply.body, JSON_COMPACT, &out);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    return swap_quotes(arena, out.data, '"', '\'');
}

const char *house_call_as(house_t *house, client_call_t call, const char *json)
{
    call.args = house_pack(house->arena, json);
    if (!call.timeout_ms)
        call.timeout_ms = CALL_MS;
    client_reply_t reply = client_call(house->client, house->arena, &call);
    house->err = reply.err;
    house->text = err_is(reply.err) ? err_what(reply.err) : reply.text ? reply.text : "";
    return house_reply_text(house->arena, reply);
}

const char *house_call(house_t *house, const char *peer, const char *method, const char *json)
{
    return house_call_as(house, (client_call_t){.peer = peer, .method = method, .role = ROLE_ADMIN},
                         json);
}
