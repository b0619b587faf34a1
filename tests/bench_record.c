/* bench_record: a record of 8 fields, encoded and decoded with all checks, against msgpack-c
 * packing and unpacking the same bytes without any, in interleaved rounds of one run; and JSON
 * against RapidJSON alone. */
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/json.h"
#include "proto/json_parse.h"
#include "proto/mp.h"
#include "proto/record.h"

#define state_VALUES(V) V(READY, "ready") V(LEASED, "leased") V(RUNNING, "running")
RECORD_ENUM(state, state_VALUES)

#define envelope_FIELDS(F)                                                                         \
    F(INT, version, must, 1, 255, "Version.")                                                      \
    F(ENUM(state), kind, must, 0, 0, "Kind.")                                                      \
    F(INT, id, must, 0, 0, "Number of the call.")                                                  \
    F(STR, method, must, 1, 128, "Method.")                                                        \
    F(STR, company, opt(), 0, 64, "Company.")                                                      \
    F(STR, from, opt(), 0, 128, "From.")                                                           \
    F(REAL, score, opt(), 0, 0, "Score.")                                                          \
    F(BOOL, last, opt(false), 0, 0, "Last?")
RECORD(envelope, envelope_FIELDS)

enum { ROUNDS = 15, CALLS = 50000, KINDS = 6 };

static volatile uint64_t seen; /* what is computed is used */

static void ours_encode(arena_t *arena, const envelope_t *in, bytes_t bytes)
{
    (void)bytes;
    buf_t out;
    buf_open(&out, arena);
    record_encode(&envelope_record, in, &out);
    seen += out.size;
}

static void pack_text(msgpack_packer *pack, const char *text)
{
    msgpack_pack_str_with_body(pack, text, strlen(text));
}

static void theirs_encode(arena_t *arena, const envelope_t *in, bytes_t bytes)
{
    (void)arena;
    (void)bytes;
    msgpack_sbuffer out;
    msgpack_packer pack;
    msgpack_sbuffer_init(&out);
    msgpack_packer_init(&pack, &out, msgpack_sbuffer_write);
    msgpack_pack_map(&pack, 8);
    pack_text(&pack, "version");
    msgpack_pack_int64(&pack, in->version);
    pack_text(&pack, "kind");
    pack_text(&pack, state_names[in->kind]);
    pack_text(&pack, "id");
    msgpack_pack_int64(&pack, in->id);
    pack_text(&pack, "method");
    pack_text(&pack, in->method);
    pack_text(&pack, "company");
    pack_text(&pack, in->company);
    pack_text(&pack, "from");
    pack_text(&pack, in->from);
    pack_text(&pack, "score");
    msgpack_pack_double(&pack, in->score);
    pack_text(&pack, "last");
    msgpack_pack_true(&pack);
    seen += out.size;
    msgpack_sbuffer_destroy(&out);
}

static void ours_decode(arena_t *arena, const envelope_t *in, bytes_t bytes)
{
    (void)in;
    envelope_t out;
    if (err_is(record_decode(&envelope_record, bytes, arena, "field", &out)))
        abort();
    seen += (uint64_t)out.id;
}

static void theirs_decode(arena_t *arena, const envelope_t *in, bytes_t bytes)
{
    (void)arena;
    (void)in;
    msgpack_unpacked out;
    msgpack_unpacked_init(&out);
    if (msgpack_unpack_next(&out, (const char *)bytes.data, bytes.size, NULL) !=
        MSGPACK_UNPACK_SUCCESS)
        abort();
    seen += out.data.via.map.size;
    msgpack_unpacked_destroy(&out);
}

static const char call_json[] =
    "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"brain_query\","
    "\"arguments\":{\"query\":\"how did we deploy the chart\",\"limit\":5,\"since\":1700000000000}"
    "}}";

static void ours_json(arena_t *arena, const envelope_t *in, bytes_t bytes)
{
    (void)in;
    (void)bytes;
    bytes_t value;
    if (err_is(json_to_msgpack(arena, call_json, sizeof(call_json) - 1, NULL, &value)))
        abort();
    seen += value.size;
}

static bool taken(void *ctx)
{
    ++*(size_t *)ctx;
    return true;
}

static bool take_nil(void *ctx)
{
    return taken(ctx);
}

static bool take_boolean(void *ctx, bool value)
{
    (void)value;
    return taken(ctx);
}

static bool take_number(void *ctx, const char *text, size_t at)
{
    (void)text, (void)at;
    return taken(ctx);
}

static bool take_text(void *ctx, const char *text, size_t size, size_t at)
{
    (void)text, (void)size, (void)at;
    return taken(ctx);
}

static bool take_begin(void *ctx, bool object, size_t at)
{
    (void)object, (void)at;
    return taken(ctx);
}

static bool take_end(void *ctx, bool object, size_t count)
{
    (void)object, (void)count;
    return taken(ctx);
}

static void theirs_json(arena_t *arena, const envelope_t *in, bytes_t bytes)
{
    (void)arena;
    (void)in;
    (void)bytes;
    static const json_events_t events = {.nil = take_nil,
                                         .boolean = take_boolean,
                                         .number = take_number,
                                         .string = take_text,
                                         .key = take_text,
                                         .begin = take_begin,
                                         .end = take_end};
    size_t count = 0;
    if (json_parse(call_json, sizeof(call_json) - 1, true, &events, &count).what)
        abort();
    seen += count;
}

typedef void (*work_t)(arena_t *arena, const envelope_t *in, bytes_t bytes);

static double ns_per_call(work_t work, arena_t *arena, const envelope_t *in, bytes_t bytes)
{
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < CALLS; i++) {
        work(arena, in, bytes);
        arena_reset(arena);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double ns = (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
    return ns / CALLS;
}

static int by_size(const void *one, const void *other)
{
    double first = *(const double *)one, second = *(const double *)other;
    return (first > second) - (first < second);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(*values), by_size);
    return values[ROUNDS / 2];
}

int main(void)
{
    static const work_t works[KINDS] = {ours_encode,   theirs_encode, ours_decode,
                                        theirs_decode, ours_json,     theirs_json};
    static const char *const names[] = {"encode, 8 fields (msgpack-c: sbuffer)",
                                        "decode and check (msgpack-c: unpack only)",
                                        "JSON to msgpack (RapidJSON: parse only)"};
    static double ns[KINDS][ROUNDS];
    const envelope_t in = {.version = 1,
                           .kind = LEASED,
                           .id = 123456789,
                           .method = "brain_query",
                           .company = "acme",
                           .has_company = true,
                           .from = "gateway-4711-1",
                           .has_from = true,
                           .score = 0.25,
                           .has_score = true,
                           .last = true,
                           .has_last = true};
    arena_t *input = arena_new(), *arena = arena_new();
    buf_t bytes;
    buf_open(&bytes, input);
    record_encode(&envelope_record, &in, &bytes);
    for (int round = 0; round < ROUNDS; round++)
        for (int kind = 0; kind < KINDS; kind++)
            ns[kind][round] = ns_per_call(works[kind], arena, &in, buf_bytes(&bytes));
    printf("%zu bytes, median of %d rounds of %d\n", bytes.size, ROUNDS, CALLS);
    for (int pair = 0; pair < KINDS / 2; pair++) {
        double ours = median(ns[2 * pair]), theirs = median(ns[2 * pair + 1]);
        printf("%-42s %7.1f ns, library %7.1f ns, ratio %.2f\n", names[pair], ours, theirs,
               ours / theirs);
    }
    arena_destroy(&arena);
    arena_destroy(&input);
    return EXIT_SUCCESS;
}
