#include "actors/brain/brain.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/brain/embedder.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/fill.h"
#include "actors/brain/memory.h"
#include "actors/brain/quiet.h"
#include "actors/brain/tell.h"
#include "actors/brain/upkeep.h"
#include "actors/brain/words.h"
#include "bus/log.h"
#include "proto/frame.h"
#include "proto/mp.h"

RECORD_DEFINE(brain_settings, brain_settings_FIELDS)

enum { BUILD_WAIT_MS = 24 * 3600 * 1000 };

#define query_format_VALUES(V) V(QUERY_TEXT, "text") V(QUERY_JSON, "json")
RECORD_ENUM(query_format, query_format_VALUES)

/* ---- Memories ---- */

#define brain_store_ARGS(F)                                                                        \
    F(STR, taskId, must, 0, 1024, "The task it came from.")                                        \
    F(STR, request, must, 0, 1048576, "What was asked.")                                           \
    F(STR, solution, must, 0, 1048576, "What was answered or done.")                               \
    F(JSON, artifacts, opt(), 0, 262144, "Files or things that came of it, a list.")               \
    F(STR, id, opt(), 1, 256, "Id of the memory; one that is there already is replaced.")          \
    F(STR, type, opt(), 1, 128, "Kind of memory, to filter by.")                                   \
    F(STR, author, opt(), 1, 256, "Who said or did it; memories are found by it.")                 \
    F(STR, thread, opt(), 1, 256,                                                                  \
      "Conversation or case: what is near in it helps to find a memory.")                          \
    F(TIME, timestamp, opt(), 0, 0, "When it happened; absent: now.")                              \
    F(JSON, metadata, opt(), 0, 262144, "Facts to filter by, an object.")                          \
    F(INT, tokens, opt(), 0, TOKENS_MOST, "Tokens it took.")                                       \
    F(REAL, duration, opt(), 0, DURATION_MOST, "How long it took, in the unit of your choice.")    \
    F(STR, related_episode_id, opt(), 0, 256, "Another memory that this one refers to.")           \
    F(JSON, simulation_attempts, opt(), 0, 262144, "Tries in simulation, a list.")                 \
    F(BOOL, resolved_via_dreaming, opt(), 0, 0, "Solved in simulation.")                           \
    F(JSON, dreaming_outcomes, opt(), 0, 262144, "What simulation brought.")                       \
    F(REAL, forecast_horizon, opt(), 0, 0, "How far ahead a forecast looked.")                     \
    F(REAL, error_margin, opt(), 0, 0, "How far off it may be.")                                   \
    F(STR, source_agency, opt(), 0, 256, "Which agency it came from.")                             \
    F(BOOL, dedupe, opt(false), 0, 0,                                                              \
      "If the same text by the same author in the same thread was stored with dedupe, keep that.") \
    COMPANY_ROW(F)
#define brain_store_REPLY(F)                                                                       \
    F(STR, id, must, 0, 0, "Id of the memory.")                                                    \
    F(BOOL, stored, must, 0, 0, "False when dedupe found it there already.")                       \
    F(BOOL, replaced, must, 0, 0, "There was one with this id, and it is gone.")

#define brain_query_ARGS(F)                                                                        \
    F(STR, query, must, 1, 8192, "What to look for, in plain words.")                              \
    F(INT, limit, opt(3), 1, 100, "How many memories at most.")                                    \
    F(STR, type, opt(), 1, 128, "Only memories of this kind.")                                     \
    F(ENUM(query_format), format, opt(text), 0, 0, "Form of the readable answer.")                 \
    F(TIME, since, opt(), 0, 0, "Only what happened at or after this time.")                       \
    F(TIME, until, opt(), 0, 0, "Only what happened before this time.")                            \
    F(JSON, filter, opt(), 0, 65536,                                                               \
      "Only memories with these facts: names of metadata (a.b inside an object), or author, "      \
      "thread, taskId, type, source_agency, stored_by, id, tokens, duration, timestamp; each "     \
      "with a value, or with conditions eq ne gt gte lt lte in exists, as {\"cost\": {\"lt\": "    \
      "9}}.")                                                                                      \
    F(REAL, recency_weight, opt(0), 0, 10,                                                         \
      "Above 0 newer memories come first; 1: new counts "                                          \
      "double.")                                                                                   \
    F(REAL, half_life_days, opt(30), 1, 100000, "Age at which recency is worth half.")             \
    F(BOOL, explain, opt(false), 0, 0, "Also tell why each was found.")                            \
    COMPANY_ROW(F)
#define brain_query_REPLY(F)                                                                       \
    F(LIST(memory), memories, must, 0, 0, "Best first.")                                           \
    F(STR, words_only, opt(), 0, 0, "Why vectors took no part; absent: they did.")

#define brain_get_ARGS(F)                                                                          \
    F(STR, id, must, 1, 256, "Id of the memory.")                                                  \
    COMPANY_ROW(F)
#define brain_get_REPLY(F) F(REC(memory), memory, must, 0, 0, "The memory.")

#define brain_list_ARGS(F)                                                                         \
    F(INT, limit, opt(50), 1, 1000, "How many at most.")                                           \
    F(STR, type, opt(), 1, 128, "Only memories of this kind.")                                     \
    F(STR, cursor, opt(), 1, 32, "Where the last page ended.")                                     \
    COMPANY_ROW(F)
#define brain_list_REPLY(F)                                                                        \
    F(LIST(memory), memories, must, 0, 0, "Last stored first.")                                    \
    F(STR, cursor, opt(), 0, 0, "Give it back for the next page; absent at the end.")

#define brain_delete_episode_ARGS(F)                                                               \
    F(STR, id, must, 1, 256, "Id of the memory.")                                                  \
    COMPANY_ROW(F)
#define brain_delete_episode_REPLY(F)                                                              \
    F(BOOL, deleted, must, 0, 0, "False when there was none with that id.")

#define brain_index_build_ARGS(F) COMPANY_ROW(F)
#define brain_index_build_REPLY(F)                                                                 \
    F(BOOL, built, must, 0, 0, "False when there was no need, or the brain ends.")

#define BRAIN_METHODS(M)                                                                           \
    M(brain_t, brain_store, TOOL | WRITES | DESTRUCTIVE,                                           \
      "Keep one memory of what was asked and what was done.")                                      \
    M(brain_t, brain_query, TOOL | READS,                                                          \
      "Find the memories that matter, by words and by likeness.")                                  \
    M(brain_t, brain_get, TOOL | READS | BRIEF, "Read one memory.")                                \
    M(brain_t, brain_list, TOOL | READS, "List memories, last stored first.")                      \
    M(brain_t, brain_delete_episode, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT,                     \
      "Delete one memory.")                                                                        \
    M(brain_t, brain_index_build, READS, "Build the company's vector index anew if that pays.")
METHODS(brain_methods, BRAIN_METHODS)

/* ---- Building ---- */

static err_t ask_for_build(void *state, call_t *call, void *ctx);

static err_t on_built(void *state, call_t *call, void *reply, const peer_answer_t *answer,
                      void *company)
{
    brain_t *self = state;

    (void)reply;
    if (answer->progress)
        return call_park(call);
    indexes_unclaim(self->indexes, company);
    if (!err_is(answer->err))
        call_work(call, 0, ask_for_build, NULL); /* perhaps another company waits */
    return answer->err;
}

/* A build runs on a reader thread, as a call of the brain to itself. */
static err_t ask_for_build(void *state, call_t *call, void *ctx)
{
    brain_t *self = state;
    char *company = (char *)indexes_claim(self->indexes, call_arena(call));
    peer_call_t request = {.peer = "brain",
                           .method = "brain_index_build",
                           .timeout_ms = BUILD_WAIT_MS,
                           .company = company};

    (void)ctx;
    if (!company)
        return err_ok();
    call_peer(call, &request, on_built, company);
    return call_park(call);
}

static err_t brain_index_build(brain_t *self, call_t *call, const brain_index_build_args_t *args,
                               brain_index_build_reply_t *reply)
{
    (void)args;
    err_t err = indexes_build(self->indexes, call_company(call));
    reply->built = !err_is(err);
    return err.code == ERR_NOT_FOUND || err.code == ERR_CANCELLED ? err_ok() : err;
}

void brain_build_if_wanted(brain_t *self, call_t *call)
{
    if (indexes_wants_build(self->indexes, call_company(call)))
        call_work(call, 0, ask_for_build, NULL);
}

/* ---- Storing ---- */

static err_t check_metadata(call_t *call, bytes_t metadata)
{
    mp_type_t type;

    if (metadata.size && (!mp_type_of(metadata, &type) || type != MP_MAP))
        return err_make(call_arena(call), ERR_ARGUMENT, "metadata must be an object");
    return err_ok();
}

static episode_t episode_of(call_t *call, const brain_store_args_t *args)
{
    return (episode_t){.id = args->id,
                       .taskId = args->taskId,
                       .type = args->type,
                       .timestamp = args->has_timestamp ? args->timestamp : call_now_ms(call),
                       .has_timestamp = true,
                       .author = args->author,
                       .thread = args->thread,
                       .request = args->request,
                       .solution = args->solution,
                       .artifacts = args->artifacts,
                       .metadata = args->metadata,
                       .tokens = args->tokens,
                       .has_tokens = args->has_tokens,
                       .duration = args->duration,
                       .has_duration = args->has_duration,
                       .related_episode_id = args->related_episode_id,
                       .simulation_attempts = args->simulation_attempts,
                       .resolved_via_dreaming = args->resolved_via_dreaming,
                       .has_resolved_via_dreaming = args->has_resolved_via_dreaming,
                       .dreaming_outcomes = args->dreaming_outcomes,
                       .forecast_horizon = args->forecast_horizon,
                       .has_forecast_horizon = args->has_forecast_horizon,
                       .error_margin = args->error_margin,
                       .has_error_margin = args->has_error_margin,
                       .source_agency = args->source_agency,
                       .created = call_now_ms(call),
                       .has_created = true,
                       .stored_by = call_principal(call)};
}

#define memory_event_FIELDS(F)                                                                     \
    F(STR, company, must, 0, 0, "Whose memory.")                                                   \
    F(STR, id, must, 0, 0, "Id of the memory.")
RECORD(memory_event, memory_event_FIELDS)

static void publish(call_t *call, const char *topic, const char *id)
{
    memory_event_t event = {.company = call_company(call), .id = id};
    call_publish(call, topic, &memory_event_record, &event);
}

static err_t brain_store(brain_t *self, call_t *call, const brain_store_args_t *args,
                         brain_store_reply_t *reply)
{
    const char *company = call_company(call), *same = NULL;
    episode_t episode = episode_of(call, args);
    err_t err = check_metadata(call, args->metadata);

    if (!err_is(err) && args->dedupe)
        err = memory_same(self, call, company, &episode, &same);
    if (err_is(err))
        return err;
    call_say_text(call, "Memory stored successfully.");
    if (same) {
        call_say(call, "This memory is stored already as %s.", same);
        reply->id = same;
        return err_ok();
    }
    err = memory_put(self, call, company, &episode, &reply->replaced);
    if (!err_is(err) && args->dedupe)
        err = memory_put_hash(self, call, company, &episode);
    if (err_is(err))
        return err;
    reply->id = episode.id;
    reply->stored = true;
    publish(call, "memory.stored", episode.id);
    brain_build_if_wanted(self, call);
    return err_ok();
}

static err_t brain_delete_episode(brain_t *self, call_t *call,
                                  const brain_delete_episode_args_t *args,
                                  brain_delete_episode_reply_t *reply)
{
    err_t err = memory_delete(self, call, call_company(call), args->id);

    call_say(call, "Episode %s deleted.", args->id);
    reply->deleted = !err_is(err);
    if (!err_is(err)) {
        publish(call, "memory.deleted", args->id);
        brain_build_if_wanted(self, call);
    }
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

/* ---- Finding ---- */

static memory_query_t query_of(const brain_query_args_t *args)
{
    return (memory_query_t){.text = args->query,
                            .limit = (size_t)args->limit,
                            .type = args->type,
                            .has_since = args->has_since,
                            .since = args->since,
                            .has_until = args->has_until,
                            .until = args->until,
                            .filter = args->filter,
                            .explain = args->explain,
                            .recency_weight = args->recency_weight,
                            .half_life_days = args->half_life_days};
}

/* The vector of a query on its way from the endpoint. */
typedef struct asking {
    const brain_query_args_t *args;
    uint32_t dims; /* of the company's vectors */
} asking_t;

/* `vector` NULL: words alone, or the built-in embedder. */
static err_t answer_query(brain_t *self, call_t *call, const brain_query_args_t *args,
                          brain_query_reply_t *reply, const float *vector, uint32_t dims)
{
    arena_t *arena = call_arena(call);
    memory_query_t query = query_of(args);

    query.vector = vector;
    query.dims = dims;
    err_t err = memory_find(self, call, call_company(call), &query, &reply->memories);
    if (err_is(err))
        return err;
    const char *text = args->format == QUERY_JSON ? tell_rows(arena, &reply->memories)
                       : reply->memories.count    ? tell_blocks(arena, &reply->memories)
                                                  : "No relevant memories found.";
    if (args->format == QUERY_JSON && strlen(text) > FRAME_TEXT_LARGEST) /* cut it is no JSON */
        return err_make(
            arena, ERR_TOO_LARGE,
            "as JSON the memories have %zu bytes of text and may have %d: use a smaller "
            "limit, or format text",
            strlen(text), (int)FRAME_TEXT_LARGEST);
    if (reply->words_only && args->format == QUERY_TEXT)
        text = arena_printf(arena, "%s\n\n(Found by words alone: %s.)", text, reply->words_only);
    call_say_text(call, text);
    return err_ok();
}

/* What a reader thread needs to go on with a query for which this thread asked the endpoint. */
typedef struct asked {
    const brain_query_args_t *args;
    const float *vector; /* NULL: words alone */
    uint32_t dims;
} asked_t;

static err_t on_asked(void *self, call_t *call, void *reply, void *ctx)
{
    const asked_t *asked = ctx;

    return answer_query(self, call, asked->args, reply, asked->vector, asked->dims);
}

static err_t answer_on_reader(call_t *call, const brain_query_args_t *args, const float *vector,
                              uint32_t dims)
{
    asked_t *asked = ARENA_NEW(call_arena(call), asked_t);

    *asked = (asked_t){args, vector, dims};
    return call_to_reader(call, on_asked, asked);
}

enum { ENDPOINT_REST_MS = 5000 };

static void on_endpoint_failed(void *state, void *until)
{
    brain_t *self = state;

    self->endpoint_rest_ms = *(const int64_t *)until;
}

/* The next queries do not wait for it. */
static const char *rest(call_t *call, const http_call_outcome_t *outcome)
{
    int64_t *until = ARENA_NEW(call_arena(call), int64_t);
    int64_t pause = outcome->retry_after_ms > 60000 ? 60000
                    : outcome->retry_after_ms >= 0  ? outcome->retry_after_ms
                                                    : ENDPOINT_REST_MS;

    *until = call_now_ms(call) + pause;
    call_after_commit(call, on_endpoint_failed, until);
    if (err_is(outcome->err))
        return arena_printf(call_arena(call), "the embedding endpoint does not answer: %s",
                            err_what(outcome->err));
    return arena_printf(call_arena(call), "the embedding endpoint answers %d", outcome->status);
}

static err_t on_query_embedded(void *state, call_t *call, void *out,
                               const http_call_outcome_t *outcome, void *ctx)
{
    const asking_t *asking = ctx;
    brain_query_reply_t *reply = out;
    float *vector = NULL;
    uint32_t dims = 0;

    (void)state;
    if (err_is(outcome->err) || outcome->status != 200) {
        reply->words_only = rest(call, outcome);
    } else {
        err_t err = endpoint_read(call_arena(call), outcome->body, 1, &vector, &dims);
        if (err_is(err))
            reply->words_only = err_what(err);
        else if (dims != asking->dims)
            reply->words_only = arena_printf(
                call_arena(call), "the endpoint answers %u dimensions, the memories have %u", dims,
                asking->dims);
    }
    return answer_on_reader(call, asking->args, reply->words_only ? NULL : vector, dims);
}

/* Asks for the vector of the query and parks; or says in the reply why words must do. */
static err_t ask_endpoint(brain_t *self, call_t *call, const brain_query_args_t *args,
                          brain_query_reply_t *reply, const memory_counts_t *counts)
{
    arena_t *arena = call_arena(call);
    const brain_settings_t *settings = self->settings;
    http_call_request_t request;
    asking_t *asking = ARENA_NEW(arena, asking_t);

    *asking = (asking_t){args, (uint32_t)counts->dims};
    if (!settings->embed_url)
        reply->words_only = arena_printf(
            arena, "the vectors are by %s and brain.embed_url is not set", counts->model);
    else if (strcmp(endpoint_model(arena, settings->embed_model), counts->model) != 0)
        reply->words_only = arena_printf(
            arena, "the vectors are by %s and brain.embed_model is %s: call brain_reembed",
            counts->model, settings->embed_model);
    else if (call_now_ms(call) < self->endpoint_rest_ms)
        reply->words_only = "the embedding endpoint failed a moment ago";
    if (reply->words_only)
        return answer_on_reader(call, args, NULL, 0);
    err_t err = endpoint_request(settings, arena, &args->query, 1, &request);
    if (err_is(err)) {
        reply->words_only = err_what(err);
        return answer_on_reader(call, args, NULL, 0);
    }
    request.timeout_ms = settings->embed_query_ms;
    if (call_left_ms(call) / 2 < request.timeout_ms)
        request.timeout_ms = call_left_ms(call) / 2 + 1;
    call_http(call, &request, on_query_embedded, asking);
    return call_park(call);
}

static err_t brain_query(brain_t *self, call_t *call, const brain_query_args_t *args,
                         brain_query_reply_t *reply)
{
    memory_counts_t counts;
    err_t err = memory_counts(self, call, call_company(call), &counts);
    bool asks = !err_is(err) && endpoint_makes(counts.model), reads = call_on_reader(call);

    if (reads && (asks || indexes_wants_build(self->indexes, call_company(call))))
        return call_move(call);
    if (!reads)
        brain_build_if_wanted(self, call);
    if (asks)
        return ask_endpoint(self, call, args, reply, &counts);
    if (!err_is(err) && !embedder_language(counts.model))
        reply->words_only = "the vectors are being made anew by this version's rules";
    return reads ? answer_query(self, call, args, reply, NULL, 0)
                 : answer_on_reader(call, args, NULL, 0);
}

static err_t brain_get(brain_t *self, call_t *call, const brain_get_args_t *args,
                       brain_get_reply_t *reply)
{
    memory_t *memory = ARENA_NEW(call_arena(call), memory_t);

    reply->memory = memory;
    err_t err = memory_get(self, call, call_company(call), args->id, memory);
    if (!err_is(err))
        call_say_text(call, tell_blocks(call_arena(call), &(memory_list_t){memory, 1}));
    return err;
}

static err_t brain_list(brain_t *self, call_t *call, const brain_list_args_t *args,
                        brain_list_reply_t *reply)
{
    uint64_t cursor = 0;
    char *end = NULL;

    if (args->cursor) {
        cursor = strtoull(args->cursor, &end, 10);
        if (*end || !cursor || strspn(args->cursor, "0123456789") != strlen(args->cursor))
            return err_of(ERR_ARGUMENT, "cursor is not one that brain_list gave");
    }
    err_t err = memory_list(self, call, call_company(call), args->type, (size_t)args->limit,
                            &cursor, &reply->memories);
    if (err_is(err))
        return err;
    const char *text = reply->memories.count ? tell_blocks(call_arena(call), &reply->memories)
                                             : "There are no memories.";
    if (cursor) {
        reply->cursor = arena_printf(call_arena(call), "%" PRIu64, cursor);
        text = arena_printf(call_arena(call), "%s\n\n(There are more: cursor=%s.)", text,
                            reply->cursor);
    }
    call_say_text(call, text);
    return err_ok();
}

/* ---- The actor ---- */

static void warn_of_snapshot(const char *company, const char *what, err_t err)
{
    char text[512];

    snprintf(text, sizeof text, "company %s: %s: %s", company, what, err_what(err));
    log_line(STDERR_FILENO, LOG_WARN, "brain", text);
}

static unsigned build_threads(int64_t wished)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    return wished ? (unsigned)wished : processors > 1 ? (unsigned)processors / 2 : 1;
}

static err_t brain_open(void *state, call_t *call)
{
    brain_t *self = state;
    indexes_options_t options = {
        .dir = arena_printf(call_arena(call), "%s/brain", actor_data_dir(call_actor(call))),
        .factory = self->settings->index,
        .exact_max = (uint32_t)self->settings->exact_max,
        .ef_search = (int)self->settings->ef_search,
        .build_threads = build_threads(self->settings->build_threads),
        .warn = warn_of_snapshot,
        .open_limit = (size_t)self->settings->indexes_open};
    words_t *words = NULL;
    err_t err = words_new(&words, self->settings->language);

    if (err_is(err))
        return err_make(call_arena(call), ERR_ARGUMENT, "brain.language = %s: %s",
                        self->settings->language, err_what(err));
    words_destroy(&words);
    self->actor = call_actor(call);
    if (self->settings->embed_url && !self->settings->embed_model)
        return err_of(ERR_ARGUMENT, "brain.embed_url needs brain.embed_model");
    err = indexes_new(&self->indexes, &options);
    if (!err_is(err)) {
        fill_start(self, call);
        upkeep_start(self, call);
    }
    return err_is(err) ? err_make(call_arena(call), err.code, "brain.index = %s: %s",
                                  self->settings->index, err_what(err))
                       : err;
}

/* A build would keep its reader, and with it the end, waiting for minutes. */
static bool brain_drained(void *state)
{
    indexes_stop(((brain_t *)state)->indexes);
    return true;
}

static void brain_close(void *state)
{
    brain_t *self = state;

    fill_stop(self);
    quiet_stop(self);
    indexes_destroy(&self->indexes);
}

static void brain_measure(void *state, call_t *call, metrics_t *out)
{
    brain_t *self = state;
    size_t companies;
    index_stats_t stats = indexes_totals(self->indexes, &companies);
    (void)call;
    metrics_gauge(out, "agency_brain_indexes_open", "Companies whose vectors are in memory.",
                  (double)companies);
    metrics_gauge(out, "agency_brain_index_vectors", "Vectors in memory that can be found.",
                  (double)stats.live);
    metrics_gauge(out, "agency_brain_index_deleted_vectors", "Vectors in memory that are deleted.",
                  (double)stats.dead);
    metrics_gauge(out, "agency_brain_index_tail_vectors",
                  "Vectors that are scanned one by one until the next build.", (double)stats.tail);
    metrics_gauge(out, "agency_brain_index_bytes", "Memory of the vectors and their graphs.",
                  (double)stats.bytes);
}

static const store_table_t brain_tables[] = {
#define BRAIN_TABLE_ROW(name) {#name},
    BRAIN_TABLES(BRAIN_TABLE_ROW)
#undef BRAIN_TABLE_ROW
        {NULL}};

static const method_t *const more_methods[] = {facts_methods, keeping_methods, upkeep_methods,
                                               NULL};

const actor_def_t brain_actor = {
    .name = "brain",
    .doc = "The memory: episodes found by words and likeness, a graph of facts, experience.",
    .size = sizeof(brain_t),
    .open = brain_open,
    .close = brain_close,
    .drained = brain_drained,
    .methods = brain_methods,
    .more_methods = more_methods,
    .settings = &brain_settings_record,
    .tables = brain_tables,
    .format = 1,
    .readers = 3, /* one of them may be waiting for the build of an index */
    .measure = brain_measure,
};
