#include "actors/brain/brain.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/care.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/experience.h"
#include "actors/brain/fill.h"
#include "actors/brain/filter.h"
#include "actors/brain/graph.h"
#include "actors/brain/memory.h"
#include "actors/brain/words.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_DEFINE(brain_settings, brain_settings_FIELDS)

enum { BUILD_WAIT_MS = 24 * 3600 * 1000 };

#define query_format_VALUES(V) V(QUERY_TEXT, "text") V(QUERY_JSON, "json")
RECORD_ENUM(query_format, query_format_VALUES)

#define graph_operation_VALUES(V)                                                                  \
    V(GRAPH_ADD_NODE, "add_node")                                                                  \
    V(GRAPH_ADD_EDGE, "add_edge")                                                                  \
    V(GRAPH_DELETE_NODE, "delete_node")                                                            \
    V(GRAPH_DELETE_EDGE, "delete_edge")
RECORD_ENUM(graph_operation, graph_operation_VALUES)

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
    F(INT, tokens, opt(), 0, 0, "Tokens it took.")                                                 \
    F(REAL, duration, opt(), 0, 0, "How long it took.")                                            \
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
      "Only memories with these facts: names of metadata (or author, thread, taskId, type) with "  \
      "a value, or with conditions eq ne gt gte lt lte in exists.")                                \
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

/* ---- The graph ---- */

#define brain_update_graph_ARGS(F)                                                                 \
    F(ENUM(graph_operation), operation, must, 0, 0, "What to do.")                                 \
    F(JSON, args, must, 0, 262144,                                                                 \
      "For a node: id, type, properties. For an edge: from, to, relation, properties. Properties " \
      "are merged; null removes one.")                                                             \
    COMPANY_ROW(F)
#define brain_update_graph_REPLY(F)                                                                \
    F(BOOL, changed, must, 0, 0, "False when there was nothing to delete.")

#define GRAPH_REPLY(F)                                                                             \
    F(LIST(graph_node), nodes, must, 0, 0, "Nodes.")                                               \
    F(LIST(graph_edge), edges, must, 0, 0, "Edges.")                                               \
    F(BOOL, more, must, 0, 0, "There is more than the limit let through.")
#define brain_query_graph_ARGS(F)                                                                  \
    F(STR, query, must, 0, 1024, "Text in ids, types, relations or properties; empty: all.")       \
    F(INT, limit, opt(1000), 1, 10000, "How many nodes and edges at most.")                        \
    COMPANY_ROW(F)
#define brain_query_graph_REPLY(F) GRAPH_REPLY(F)
#define graph_neighbors_ARGS(F)                                                                    \
    F(STR, id, must, 1, 150, "Where to begin.")                                                    \
    F(INT, depth, opt(1), 1, 16, "How many steps away.")                                           \
    F(STR, relation, opt(), 1, 150, "Only along edges of this relation.")                          \
    F(INT, limit, opt(1000), 1, 10000, "How many nodes at most.")                                  \
    COMPANY_ROW(F)
#define graph_neighbors_REPLY(F) GRAPH_REPLY(F)
#define graph_path_ARGS(F)                                                                         \
    F(STR, from, must, 1, 150, "Where to begin.")                                                  \
    F(STR, to, must, 1, 150, "Where to end.")                                                      \
    F(INT, depth, opt(16), 1, 1000, "Longest way, in steps.")                                      \
    COMPANY_ROW(F)
#define graph_path_REPLY(F)                                                                        \
    F(BOOL, found, must, 0, 0, "There is a way.")                                                  \
    F(LIST(graph_node), nodes, must, 0, 0, "The nodes on the way, first to last.")                 \
    F(LIST(graph_edge), edges, must, 0, 0, "The edges on the way.")                                \
    F(BOOL, more, must, 0, 0, "The search gave up: too many nodes were reached.")

/* ---- Experience ---- */

#define log_experience_ARGS(F)                                                                     \
    F(STR, taskId, must, 0, 1024, "The task.")                                                     \
    F(STR, task_type, must, 1, 128, "Kind of task; patterns are by it.")                           \
    F(STR, agent_used, must, 1, 128, "Who did it.")                                                \
    F(STR, outcome, must, 1, 1024,                                                                 \
      "How it ended; begins with success, completed or done if well.")                             \
    F(STR, summary, must, 0, 1048576, "What happened, for whoever meets the like again.")          \
    F(JSON, artifacts, opt(), 0, 262144, "Files or things that came of it, a list.")               \
    F(INT, tokens, opt(), 0, 0, "Tokens it took.")                                                 \
    F(REAL, duration, opt(), 0, 0, "How long it took.")                                            \
    COMPANY_ROW(F)
#define log_experience_REPLY(F) F(STR, id, must, 0, 0, "Id of the memory that tells of it.")

#define recall_delegation_patterns_ARGS(F)                                                         \
    F(STR, task_type, must, 1, 128, "Kind of task.")                                               \
    F(STR, query, opt(), 1, 8192, "Also show the experiences nearest to this.")                    \
    F(TIME, since, opt(), 0, 0, "Only what happened at or after this time.")                       \
    F(TIME, until, opt(), 0, 0, "Only what happened before this time.")                            \
    COMPANY_ROW(F)
#define recall_delegation_patterns_REPLY(F)                                                        \
    F(INT, runs, must, 0, 0, "How many experiences there are.")                                    \
    F(REAL, success_rate, must, 0, 0, "Of all of them, 0 to 1.")                                   \
    F(LIST(agent_pattern), agents, must, 0, 0, "By agent, best first.")                            \
    F(LIST(memory), examples, opt(), 0, 0, "The experiences nearest to query.")

#define brain_get_sop_ARGS(F)                                                                      \
    F(STR, name, must, 1, 128, "Name of the procedure.")                                           \
    COMPANY_ROW(F)
#define brain_get_sop_REPLY(F)                                                                     \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, content, must, 0, 0, "The Markdown.")

/* ---- Looking after it ---- */

#define brain_index_build_ARGS(F) COMPANY_ROW(F)
#define brain_index_build_REPLY(F) F(BOOL, built, must, 0, 0, "False when there was no need.")
#define brain_check_ARGS(F) COMPANY_ROW(F)
#define brain_check_REPLY(F)                                                                       \
    F(INT, memories, must, 0, 0, "Memories whose rows, words and vectors agree.")                  \
    F(INT, vectors, must, 0, 0, "Of them with a vector.")

#define brain_action_VALUES(V)                                                                     \
    V(ACTION_REBUILD, "rebuild_indices")                                                           \
    V(ACTION_OPTIMIZE, "optimize")                                                                 \
    V(ACTION_VACUUM, "vacuum")                                                                     \
    V(ACTION_VERIFY, "verify")
RECORD_ENUM(brain_action, brain_action_VALUES)

#define brain_maintenance_ARGS(F)                                                                  \
    F(ENUM(brain_action), action, must, 0, 0,                                                      \
      "rebuild_indices: make all indexes anew from the memories; optimize: merge and build what "  \
      "waits; vacuum: delete rows that nothing leads to; verify: prove that all agree.")           \
    COMPANY_ROW(F)
#define brain_maintenance_REPLY(F)                                                                 \
    F(INT, memories, opt(), 0, 0, "Memories that were rebuilt or verified.")                       \
    F(INT, deleted, opt(), 0, 0, "Rows that vacuum deleted.")                                      \
    F(BOOL, index_built, opt(), 0, 0, "The vector index was built anew.")

#define brain_export_ARGS(F)                                                                       \
    F(STR, cursor, opt(), 1, 1200, "Where the last page ended; absent: from the beginning.")       \
    F(INT, limit, opt(1000), 1, 100000, "Lines of a page at most; a page also ends at 512 KiB.")   \
    COMPANY_ROW(F)
#define brain_export_REPLY(F)                                                                      \
    F(STR, lines, must, 0, 0, "One JSON object a line: memories, then nodes, then edges.")         \
    F(INT, count, must, 0, 0, "How many lines.")                                                   \
    F(STR, cursor, opt(), 0, 0, "Give it back for the next page; absent at the end.")
#define brain_import_ARGS(F)                                                                       \
    F(STR, lines, must, 0, 8388608,                                                                \
      "Lines as brain_export gives them; the same line again changes nothing more.")               \
    COMPANY_ROW(F)
#define brain_import_REPLY(F)                                                                      \
    F(INT, imported, must, 0, 0, "Lines that were taken.")                                         \
    F(LIST(import_fault), faults, must, 0, 0, "Lines that could not be read, the first 100.")
#define brain_forget_ARGS(F)                                                                       \
    F(STR, type, opt(), 1, 128, "Memories of this kind.")                                          \
    F(TIME, since, opt(), 0, 0, "That happened at or after this time.")                            \
    F(TIME, until, opt(), 0, 0, "That happened before this time.")                                 \
    F(JSON, filter, opt(), 0, 65536, "With these facts, as in brain_query.")                       \
    F(BOOL, everything, opt(false), 0, 0, "All memories, all experience and the graph.")           \
    COMPANY_ROW(F)
#define brain_forget_REPLY(F) F(INT, deleted, must, 0, 0, "Memories that are gone.")

#define brain_reembed_ARGS(F)                                                                      \
    F(BOOL, again, opt(false), 0, 0, "Also when the model is the same.")                           \
    COMPANY_ROW(F)
#define brain_reembed_REPLY(F)                                                                     \
    F(BOOL, started, must, 0, 0, "False: it has these vectors, or they are on their way.")         \
    F(STR, model, must, 0, 0, "What will make the vectors.")

#define brain_stat_ARGS(F) COMPANY_ROW(F)
#define brain_stat_REPLY(F)                                                                        \
    F(INT, memories, must, 0, 0, "Memories.")                                                      \
    F(INT, vectors, must, 0, 0, "Of them with a vector.")                                          \
    F(INT, nodes, must, 0, 0, "Nodes of the graph.")                                               \
    F(INT, edges, must, 0, 0, "Edges of the graph.")                                               \
    F(STR, model, opt(), 0, 0, "What makes the vectors.")                                          \
    F(INT, dims, opt(), 0, 0, "Dimensions of the vectors.")                                        \
    F(INT, pending, opt(), 0, 0, "Memories whose vectors are still to be made.")                   \
    F(STR, next_model, opt(), 0, 0, "What will make the vectors once all have theirs.")            \
    F(STR, trouble, opt(), 0, 0, "Why making vectors failed last, while some are to be made.")     \
    F(STR, language, opt(), 0, 0, "Language of stems and stop words.")                             \
    F(BOOL, loaded, must, 0, 0, "The vectors are in memory.")                                      \
    F(INT, indexed, opt(), 0, 0, "Vectors in the approximate index; the rest is scanned.")         \
    F(INT, tombstones, opt(), 0, 0, "Deleted vectors that a build will remove.")                   \
    F(INT, index_bytes, opt(), 0, 0, "Memory the vectors take.")

#define BRAIN_METHODS(M)                                                                           \
    M(brain_t, brain_store, TOOL | WRITES | DESTRUCTIVE,                                           \
      "Keep one memory of what was asked and what was done.")                                      \
    M(brain_t, brain_query, TOOL | READS,                                                          \
      "Find the memories that matter, by words and by likeness.")                                  \
    M(brain_t, brain_get, TOOL | READS, "Read one memory.")                                        \
    M(brain_t, brain_list, TOOL | READS, "List memories, last stored first.")                      \
    M(brain_t, brain_delete_episode, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT,                     \
      "Delete one memory.")                                                                        \
    M(brain_t, brain_update_graph, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT,                       \
      "Add, change or delete a node or an edge of the graph of facts.")                            \
    M(brain_t, brain_query_graph, TOOL | READS, "Find nodes and edges by text.")                   \
    M(brain_t, graph_neighbors, TOOL | READS, "What lies around a node of the graph.")             \
    M(brain_t, graph_path, TOOL | READS, "A shortest way between two nodes of the graph.")         \
    M(brain_t, log_experience, TOOL | WRITES, "Remember who did a task and how it ended.")         \
    M(brain_t, recall_delegation_patterns, TOOL | READS,                                           \
      "Who did this kind of task before, how well and at what cost.")                              \
    M(brain_t, brain_get_sop, TOOL | READS | PARKS, "Read a procedure; the agent keeps them.")     \
    M(brain_t, brain_index_build, READS, "Build the company's vector index anew if that pays.")    \
    M(brain_t, brain_check, TOOL | READS,                                                          \
      "Prove that memories, words, vectors and graph agree; reads everything.")                    \
    M(brain_t, brain_maintenance, TOOL | WRITES | IDEMPOTENT | UNREMEMBERED | LONG,                       \
      "Rebuild, optimize, vacuum or verify a company's memory; others are served meanwhile.")      \
    M(brain_t, brain_export, TOOL | READS, "A page of everything remembered, as lines of JSON.")   \
    M(brain_t, brain_import, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT | LONG,                             \
      "Take lines that brain_export gave, from here or elsewhere.")                                \
    M(brain_t, brain_forget, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT | UNREMEMBERED | LONG,              \
      "Delete all memories that match, or everything.")                                            \
    M(brain_t, brain_reembed, TOOL | WRITES | IDEMPOTENT,                                          \
      "Move to the vectors of the model that is set, in the background; searches go on.")          \
    M(brain_t, brain_stat, TOOL | READS, "How much is remembered, and with what.")
METHODS(brain_methods, BRAIN_METHODS)

/* ---- Storing ---- */

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

static void build_if_wanted(brain_t *self, call_t *call)
{
    if (indexes_wants_build(self->indexes, call_company(call)))
        call_work(call, 0, ask_for_build, NULL);
}

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
    build_if_wanted(self, call);
    return err_ok();
}

static err_t brain_delete_episode(brain_t *self, call_t *call,
                                  const brain_delete_episode_args_t *args,
                                  brain_delete_episode_reply_t *reply)
{
    err_t err = memory_delete(self, call, call_company(call), args->id);

    call_say(call, "Episode %s deleted.", args->id);
    reply->deleted = !err_is(err);
    if (!err_is(err))
        build_if_wanted(self, call);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

/* ---- Finding ---- */

static void put_list(buf_t *out, bytes_t list)
{
    mp_reader_t reader = mp_reader(list);
    mp_value_t head, item;
    bytes_t whole;

    if (!list.size || !mp_read(&reader, &head))
        return;
    if (head.type == MP_STR)
        buf_put(out, head.text, head.size);
    for (uint32_t i = 0; head.type == MP_ARRAY && i < head.count; i++) {
        if (!mp_slice(&reader, &whole))
            return;
        mp_reader_t inner = mp_reader(whole);
        if (i)
            buf_puts(out, ", ");
        if (mp_read(&inner, &item) && item.type == MP_STR)
            buf_put(out, item.text, item.size);
        else
            (void)json_from_msgpack(whole, JSON_COMPACT, out);
    }
}

static const char *as_blocks(arena_t *arena, const memory_list_t *memories)
{
    buf_t out;

    if (!memories->count)
        return "No relevant memories found.";
    buf_open(&out, arena);
    for (size_t i = 0; i < memories->count; i++) {
        const memory_t *memory = &memories->items[i];
        buf_printf(&out, "%s[Task: %s]\nTimestamp: %s\nRequest: %s\nSolution: %s\nArtifacts: ",
                   i ? "\n\n---\n\n" : "", memory->taskId ? memory->taskId : "",
                   record_time_text(arena, memory->timestamp),
                   memory->request ? memory->request : "",
                   memory->solution ? memory->solution : "");
        put_list(&out, memory->artifacts);
    }
    return out.data;
}

/* The rows that clients of the old system know, and everything we have besides. */
#define old_row_FIELDS(F)                                                                          \
    F(STR, userPrompt, must, 0, 0, "Old name of request.")                                         \
    F(STR, agentResponse, must, 0, 0, "Old name of solution.")                                     \
    F(REAL, _distance, opt(), 0, 0, "Old name of distance.")                                       \
    memory_FIELDS(F)
RECORD(old_row, old_row_FIELDS)
#define old_rows_FIELDS(F) F(LIST(old_row), rows, must, 0, 0, "Rows.")
RECORD(old_rows, old_rows_FIELDS)

static old_row_t old_row_of(arena_t *arena, const memory_t *memory)
{
    buf_t bytes;
    old_row_t row;

    /* Both records have the rows of a memory: what one writes the other reads. */
    buf_open(&bytes, arena);
    record_encode(&memory_record, memory, &bytes);
    buf_t all;
    buf_open(&all, arena);
    mp_reader_t reader = mp_reader(buf_bytes(&bytes));
    mp_value_t head;
    mp_read(&reader, &head);
    mp_put_map(&all, head.count + 2);
    buf_put(&all, reader.at, (size_t)(reader.end - reader.at));
    mp_put_str(&all, "userPrompt");
    mp_put_str(&all, memory->request ? memory->request : "");
    mp_put_str(&all, "agentResponse");
    mp_put_str(&all, memory->solution ? memory->solution : "");
    memset(&row, 0, sizeof row);
    if (err_is(record_decode(&old_row_record, buf_bytes(&all), arena, "row", &row)))
        abort();
    row._distance = memory->distance;
    row.has__distance = memory->has_distance;
    if (!row.artifacts.size)
        row.artifacts = (bytes_t){(const uint8_t *)"\x90", 1};
    return row;
}

static const char *as_json(arena_t *arena, const memory_list_t *memories)
{
    old_rows_t rows = {.rows = {ARENA_ARRAY(arena, old_row_t, memories->count + 1), 0}};
    buf_t bytes, json;
    bytes_t list;

    for (size_t i = 0; i < memories->count; i++)
        rows.rows.items[rows.rows.count++] = old_row_of(arena, &memories->items[i]);
    buf_open(&bytes, arena);
    record_encode(&old_rows_record, &rows, &bytes);
    buf_open(&json, arena);
    if (!mp_get(buf_bytes(&bytes), "rows", &list) ||
        err_is(json_from_msgpack(list, JSON_PRETTY, &json)))
        return "[]";
    return json.data;
}

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
    const char *text = args->format == QUERY_JSON ? as_json(arena, &reply->memories)
                                                  : as_blocks(arena, &reply->memories);
    if (reply->words_only && args->format == QUERY_TEXT)
        text = arena_printf(arena, "%s\n\n(Found by words alone: %s.)", text, reply->words_only);
    call_say_text(call, text);
    return err_ok();
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
    return answer_query(state, call, asking->args, reply, reply->words_only ? NULL : vector, dims);
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
        return answer_query(self, call, args, reply, NULL, 0);
    err_t err = endpoint_request(settings, arena, &args->query, 1, &request);
    if (err_is(err)) {
        reply->words_only = err_what(err);
        return answer_query(self, call, args, reply, NULL, 0);
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

    if (err_is(err) || !endpoint_makes(counts.model))
        return answer_query(self, call, args, reply, NULL, 0);
    return call_on_reader(call) ? call_move(call) : ask_endpoint(self, call, args, reply, &counts);
}

static err_t brain_get(brain_t *self, call_t *call, const brain_get_args_t *args,
                       brain_get_reply_t *reply)
{
    memory_t *memory = ARENA_NEW(call_arena(call), memory_t);

    reply->memory = memory;
    return memory_get(self, call, call_company(call), args->id, memory);
}

static err_t brain_list(brain_t *self, call_t *call, const brain_list_args_t *args,
                        brain_list_reply_t *reply)
{
    uint64_t cursor = 0;
    char *end = NULL;

    if (args->cursor) {
        cursor = strtoull(args->cursor, &end, 10);
        if (*end || !cursor)
            return err_of(ERR_ARGUMENT, "cursor is not one that brain_list gave");
    }
    err_t err = memory_list(self, call, call_company(call), args->type, (size_t)args->limit,
                            &cursor, &reply->memories);
    if (!err_is(err) && cursor)
        reply->cursor = arena_printf(call_arena(call), "%" PRIu64, cursor);
    return err;
}

/* ---- The graph ---- */

static err_t update_node(brain_t *self, call_t *call, const brain_update_graph_args_t *args)
{
    graph_node_t node;
    err_t err = record_decode(&graph_node_record, args->args, call_arena(call), "argument", &node);

    if (err_is(err))
        return err;
    if (args->operation == GRAPH_DELETE_NODE) {
        call_say(call, "Node '%s' deleted.", node.id);
        return graph_del_node(self, call, call_company(call), node.id);
    }
    call_say(call, "Node '%s' added/updated.", node.id);
    return graph_put_node(self, call, call_company(call), &node);
}

static err_t update_edge(brain_t *self, call_t *call, const brain_update_graph_args_t *args)
{
    graph_edge_t edge;
    err_t err = record_decode(&graph_edge_record, args->args, call_arena(call), "argument", &edge);

    if (err_is(err))
        return err;
    bool del = args->operation == GRAPH_DELETE_EDGE;
    call_say(call, "Edge '%s' -[%s]-> '%s' %s.", edge.from, edge.relation, edge.to,
             del ? "deleted" : "added/updated");
    return del ? graph_del_edge(self, call, call_company(call), edge.from, edge.relation, edge.to)
               : graph_put_edge(self, call, call_company(call), &edge);
}

static err_t brain_update_graph(brain_t *self, call_t *call, const brain_update_graph_args_t *args,
                                brain_update_graph_reply_t *reply)
{
    bool node = args->operation == GRAPH_ADD_NODE || args->operation == GRAPH_DELETE_NODE;
    bool del = args->operation == GRAPH_DELETE_NODE || args->operation == GRAPH_DELETE_EDGE;
    err_t err = node ? update_node(self, call, args) : update_edge(self, call, args);

    reply->changed = !err_is(err);
    return del && err.code == ERR_NOT_FOUND ? err_ok() : err;
}

/* The text of the old system: {"nodes": [...], "edges": [...]}. */
static void say_graph(call_t *call, const graph_part_t *part)
{
    brain_query_graph_reply_t facts = {
        .nodes = part->nodes, .edges = part->edges, .more = part->more, .has_more = true};
    buf_t bytes, json;

    buf_open(&bytes, call_arena(call));
    record_encode(&brain_query_graph_reply_record, &facts, &bytes);
    buf_open(&json, call_arena(call));
    if (!err_is(json_from_msgpack(buf_bytes(&bytes), JSON_PRETTY, &json)))
        call_say_text(call, json.data);
}

static err_t brain_query_graph(brain_t *self, call_t *call, const brain_query_graph_args_t *args,
                               brain_query_graph_reply_t *reply)
{
    graph_part_t part;
    err_t err =
        graph_query(self, call, call_company(call), args->query, (size_t)args->limit, &part);

    if (err_is(err))
        return err;
    reply->nodes = part.nodes;
    reply->edges = part.edges;
    reply->more = part.more;
    say_graph(call, &part);
    return err_ok();
}

static err_t graph_neighbors(brain_t *self, call_t *call, const graph_neighbors_args_t *args,
                             graph_neighbors_reply_t *reply)
{
    graph_part_t part;
    err_t err = graph_around(self, call, call_company(call), args->id, args->depth, args->relation,
                             (size_t)args->limit, &part);

    if (err_is(err))
        return err;
    reply->nodes = part.nodes;
    reply->edges = part.edges;
    reply->more = part.more;
    say_graph(call, &part);
    return err_ok();
}

static err_t graph_path(brain_t *self, call_t *call, const graph_path_args_t *args,
                        graph_path_reply_t *reply)
{
    graph_part_t part;
    buf_t text;
    err_t err = graph_way(self, call, call_company(call), args->from, args->to, args->depth, &part);

    if (err_is(err))
        return err;
    reply->nodes = part.nodes;
    reply->edges = part.edges;
    reply->more = part.more;
    reply->found = part.edges.count > 0 || strcmp(args->from, args->to) == 0;
    buf_open(&text, call_arena(call));
    buf_printf(&text, reply->found ? "'%s'" : "No way from '%s' to '%s'.", args->from, args->to);
    for (size_t i = 0; i < part.edges.count; i++)
        buf_printf(&text, " -[%s]-> '%s'", part.edges.items[i].relation, part.edges.items[i].to);
    call_say_text(call, text.data);
    return err_ok();
}

/* ---- Experience ---- */

static bytes_t facts_of(call_t *call, const log_experience_args_t *args)
{
    buf_t out;

    buf_open(&out, call_arena(call));
    mp_put_map(&out, 4);
    mp_put_str(&out, "task_type");
    mp_put_str(&out, args->task_type);
    mp_put_str(&out, "agent_used");
    mp_put_str(&out, args->agent_used);
    mp_put_str(&out, "outcome");
    mp_put_str(&out, args->outcome);
    mp_put_str(&out, "success");
    mp_put_bool(&out, experience_succeeded(args->outcome));
    return buf_bytes(&out);
}

static err_t log_experience(brain_t *self, call_t *call, const log_experience_args_t *args,
                            log_experience_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    bool replaced;
    episode_t episode = {
        .taskId = args->taskId,
        .type = "experience",
        .timestamp = call_now_ms(call),
        .has_timestamp = true,
        .request =
            arena_printf(arena, "Task Type: %s\nAgent: %s", args->task_type, args->agent_used),
        .solution = arena_printf(arena, "Outcome: %s\nSummary: %s", args->outcome, args->summary),
        .artifacts = args->artifacts,
        .metadata = facts_of(call, args),
        .tokens = args->tokens,
        .has_tokens = args->has_tokens,
        .duration = args->duration,
        .has_duration = args->has_duration,
        .created = call_now_ms(call),
        .has_created = true,
        .stored_by = call_principal(call)};
    experience_t experience = {.task_type = args->task_type,
                               .agent = args->agent_used,
                               .outcome = args->outcome,
                               .tokens = args->tokens,
                               .has_tokens = args->has_tokens,
                               .duration = args->duration,
                               .has_duration = args->has_duration};
    err_t err = memory_put(self, call, call_company(call), &episode, &replaced);

    if (!err_is(err))
        err = experience_put(self, call, call_company(call), &episode, &experience);
    reply->id = episode.id;
    call_say_text(call, "Experience logged successfully.");
    if (!err_is(err))
        build_if_wanted(self, call);
    return err;
}

static int percent(double part, double whole)
{
    return whole > 0 ? (int)floor(part * 100 / whole + 0.5) : 0;
}

static void say_patterns(call_t *call, const char *task_type, const patterns_t *patterns)
{
    buf_t out;

    if (!patterns->runs) {
        call_say(call, "No past experiences found for task type: %s", task_type);
        return;
    }
    buf_open(&out, call_arena(call));
    buf_printf(&out,
               "Found %" PRId64 " relevant experiences for '%s'.\n"
               "Overall Success Rate: %d%%\n\nAgent Performance:",
               patterns->runs, task_type,
               percent((double)patterns->successes, (double)patterns->runs));
    for (size_t i = 0; i < patterns->agents.count; i++) {
        const agent_pattern_t *one = &patterns->agents.items[i];
        buf_printf(&out, "\n- %s: %d%% success (%" PRId64 "/%" PRId64 ")", one->agent,
                   percent((double)one->successes, (double)one->runs), one->successes, one->runs);
        if (one->has_mean_duration)
            buf_printf(&out, ", mean duration %.3g, p95 %.3g", one->mean_duration,
                       one->p95_duration);
        if (one->has_mean_tokens)
            buf_printf(&out, ", mean tokens %.0f", one->mean_tokens);
    }
    call_say_text(call, out.data);
}

static err_t find_examples(brain_t *self, call_t *call,
                           const recall_delegation_patterns_args_t *args, memory_list_t *out)
{
    buf_t filter;
    memory_query_t query = {.text = args->query,
                            .limit = 3,
                            .type = "experience",
                            .has_since = args->has_since,
                            .since = args->since,
                            .has_until = args->has_until,
                            .until = args->until};

    buf_open(&filter, call_arena(call));
    mp_put_map(&filter, 1);
    mp_put_str(&filter, "task_type");
    mp_put_str(&filter, args->task_type);
    query.filter = buf_bytes(&filter);
    return memory_find(self, call, call_company(call), &query, out);
}

static err_t recall_delegation_patterns(brain_t *self, call_t *call,
                                        const recall_delegation_patterns_args_t *args,
                                        recall_delegation_patterns_reply_t *reply)
{
    patterns_t patterns;
    err_t err = experience_patterns(self, call, call_company(call), args->task_type,
                                    args->has_since ? args->since : INT64_MIN,
                                    args->has_until ? args->until : INT64_MAX, &patterns);

    if (!err_is(err) && args->query)
        err = find_examples(self, call, args, &reply->examples);
    if (err_is(err))
        return err;
    reply->runs = patterns.runs;
    reply->success_rate = patterns.runs ? (double)patterns.successes / (double)patterns.runs : 0;
    reply->agents = patterns.agents;
    say_patterns(call, args->task_type, &patterns);
    return err_ok();
}

/* ---- Procedures ---- */

static err_t on_sop(void *self, call_t *call, void *out, const peer_answer_t *answer, void *ctx)
{
    brain_get_sop_reply_t *reply = out;
    bytes_t name, content;

    (void)self, (void)ctx;
    if (answer->progress)
        return call_park(call);
    if (err_is(answer->err))
        return err_make(call_arena(call), answer->err.code, "%s", err_what(answer->err));
    if (!mp_get(answer->body, "name", &name) || !mp_get(answer->body, "content", &content))
        return err_of(ERR_INTERNAL, "the agent's answer to sop_get has no content");
    reply->name = mp_text(call_arena(call), name);
    reply->content = mp_text(call_arena(call), content);
    call_say_text(call, reply->content);
    return err_ok();
}

static err_t brain_get_sop(brain_t *self, call_t *call, const brain_get_sop_args_t *args,
                           brain_get_sop_reply_t *reply)
{
    buf_t body;
    peer_call_t request = {.peer = "agent", .method = "sop_get", .company = call_company(call)};

    (void)self, (void)reply;
    buf_open(&body, call_arena(call));
    mp_put_map(&body, 1);
    mp_put_str(&body, "name");
    mp_put_str(&body, args->name);
    request.args = buf_bytes(&body);
    call_peer(call, &request, on_sop, NULL);
    return call_park(call);
}

/* ---- Looking after it ---- */

static err_t brain_index_build(brain_t *self, call_t *call, const brain_index_build_args_t *args,
                               brain_index_build_reply_t *reply)
{
    (void)args;
    err_t err = indexes_build(self->indexes, call_company(call), NULL, NULL);
    reply->built = !err_is(err);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

static err_t brain_check(brain_t *self, call_t *call, const brain_check_args_t *args,
                         brain_check_reply_t *reply)
{
    memory_counts_t counts;
    const char *company = call_company(call);
    err_t err = care_check(self, call, company);

    (void)args;
    if (err.code == ERR_NOT_FOUND) /* no memory yet; perhaps a graph */
        err = err_ok();
    else if (!err_is(err) && !err_is(memory_counts(self, call, company, &counts))) {
        reply->memories = counts.memories;
        reply->vectors = counts.vectors;
    }
    if (!err_is(err))
        err = graph_check(self, call, company);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

/* A brain_maintenance under way, a slice an entry. */
typedef struct upkeep {
    int action;
    bool rebuilt;
    care_place_t place;
} upkeep_t;

static err_t on_verified(void *self, call_t *call, void *out, const peer_answer_t *answer,
                         void *ctx)
{
    brain_maintenance_reply_t *reply = out;
    bytes_t value;

    (void)self, (void)ctx;
    if (answer->progress)
        return call_park(call);
    if (err_is(answer->err))
        return err_make(call_arena(call), answer->err.code, "%s", err_what(answer->err));
    reply->has_memories =
        mp_get(answer->body, "memories", &value) && mp_int(value, &reply->memories);
    reply->has_index_built =
        mp_get(answer->body, "built", &value) && mp_bool(value, &reply->index_built);
    return err_ok();
}

/* Reading everything and building belong on a reader thread: a call of the brain to itself. */
static err_t ask_myself(call_t *call, const char *method)
{
    peer_call_t request = {.peer = "brain", .method = method, .company = call_company(call)};

    request.timeout_ms = call_left_ms(call);
    call_peer(call, &request, on_verified, NULL);
    return call_park(call);
}

static err_t rebuild_slice(brain_t *self, call_t *call, upkeep_t *upkeep,
                           brain_maintenance_reply_t *reply, bool *more)
{
    bool slices;
    err_t err = care_rebuild(self, call, call_company(call), &slices, &reply->memories);

    reply->has_memories = true;
    upkeep->rebuilt = !slices;
    *more = true; /* what the old generation left is swept next */
    call_progress(call, (double)reply->memories, 0, "memories rebuilt");
    return err;
}

static err_t upkeep_on(void *state, call_t *call, void *out, void *ctx)
{
    brain_t *self = state;
    brain_maintenance_reply_t *reply = out;
    upkeep_t *upkeep = ctx;
    bool more = false;
    err_t err;

    if (upkeep->action == ACTION_VERIFY)
        return ask_myself(call, "brain_check");
    if (upkeep->action == ACTION_OPTIMIZE) {
        err = memory_merge(self, call, call_company(call));
        return err_is(err) ? err : ask_myself(call, "brain_index_build");
    }
    if (upkeep->action == ACTION_REBUILD && !upkeep->rebuilt) {
        err = rebuild_slice(self, call, upkeep, reply, &more);
    } else {
        err = care_vacuum(self, call, call_company(call), &upkeep->place, &more);
        reply->deleted = upkeep->place.deleted;
        reply->has_deleted = true;
    }
    if (err_is(err) || !more)
        return err;
    call_resume(call, call, upkeep_on, upkeep);
    return call_park(call);
}

static err_t brain_maintenance(brain_t *self, call_t *call, const brain_maintenance_args_t *args,
                               brain_maintenance_reply_t *reply)
{
    store_txn_t *txn;
    upkeep_t *upkeep = ARENA_NEW(call_arena(call), upkeep_t);
    err_t err = call_read(call, call_company(call), &txn);

    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "the company has no memory yet");
    upkeep->action = args->action;
    err = err_is(err) ? err : upkeep_on(self, call, reply, upkeep);
    return err.code == ERR_NOT_FOUND ? err_of(ERR_NOT_FOUND, "the company has no memory yet") : err;
}

static err_t brain_export(brain_t *self, call_t *call, const brain_export_args_t *args,
                          brain_export_reply_t *reply)
{
    buf_t lines;
    enum { PAGE = 512 << 10 };

    buf_open(&lines, call_arena(call));
    buf_puts(&lines, "");
    err_t err = care_export(self, call, call_company(call), args->cursor ? args->cursor : "",
                            (size_t)args->limit, PAGE, &lines, &reply->cursor, &reply->count);
    reply->lines = lines.data ? lines.data : "";
    call_say_text(call, reply->lines);
    return err;
}

static err_t brain_import(brain_t *self, call_t *call, const brain_import_args_t *args,
                          brain_import_reply_t *reply)
{
    err_t err =
        care_import(self, call, call_company(call), args->lines, &reply->imported, &reply->faults);

    if (!err_is(err))
        build_if_wanted(self, call);
    return err;
}

typedef struct forgetting {
    care_wish_t wish;
    uint64_t from;
} forgetting_t;

static err_t forget_on(void *state, call_t *call, void *out, void *ctx)
{
    forgetting_t *forgetting = ctx;
    brain_forget_reply_t *reply = out;
    bool more;
    err_t err = care_forget(state, call, call_company(call), &forgetting->wish, &forgetting->from,
                            &reply->deleted, &more);

    if (err_is(err) || !more)
        return err;
    call_resume(call, call, forget_on, forgetting);
    return call_park(call);
}

static err_t brain_forget(brain_t *self, call_t *call, const brain_forget_args_t *args,
                          brain_forget_reply_t *reply)
{
    forgetting_t *forgetting = ARENA_NEW(call_arena(call), forgetting_t);
    bool narrowed = args->type || args->has_since || args->has_until || args->filter.size;

    if (narrowed == args->everything)
        return err_of(ERR_ARGUMENT, narrowed ? "everything leaves no room for other conditions"
                                             : "say what to forget, or everything");
    if (args->filter.size) {
        err_t err = filter_check(args->filter, call_arena(call));
        if (err_is(err))
            return err;
    }
    forgetting->wish = (care_wish_t){.type = args->type,
                                     .has_since = args->has_since,
                                     .since = args->since,
                                     .has_until = args->has_until,
                                     .until = args->until,
                                     .filter = args->filter,
                                     .everything = args->everything};
    return forget_on(self, call, reply, forgetting);
}

static err_t brain_reembed(brain_t *self, call_t *call, const brain_reembed_args_t *args,
                           brain_reembed_reply_t *reply)
{
    return fill_reembed(self, call, call_company(call), args->again, &reply->started,
                        &reply->model);
}

/* NULL: none. */
static const char *trouble_of(const brain_t *self, call_t *call, const memory_counts_t *counts)
{
    const char *model = counts->next_model ? counts->next_model : counts->model;
    const brain_settings_t *settings = self->settings;

    if (!counts->pending || !endpoint_makes(model))
        return NULL;
    if (!settings->embed_url ||
        strcmp(endpoint_model(call_arena(call), settings->embed_model), model) != 0)
        return arena_printf(call_arena(call),
                            "%s is not what the settings name: call brain_reembed", model);
    return *fill_trouble(self) ? arena_strdup(call_arena(call), fill_trouble(self)) : NULL;
}

static err_t brain_stat(brain_t *self, call_t *call, const brain_stat_args_t *args,
                        brain_stat_reply_t *reply)
{
    store_txn_t *txn;
    memory_counts_t counts;
    index_stats_t stats;
    err_t err = call_read(call, call_company(call), &txn);

    (void)args;
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    reply->nodes = store_count(txn, TABLE_nodes);
    reply->edges = store_count(txn, TABLE_edges);
    err = memory_counts(self, call, call_company(call), &counts);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    reply->memories = counts.memories;
    reply->vectors = counts.vectors;
    reply->model = counts.model;
    reply->dims = counts.dims;
    reply->has_dims = true;
    reply->language = counts.language;
    reply->pending = counts.pending;
    reply->has_pending = counts.has_pending;
    reply->next_model = counts.next_model;
    if (counts.has_pending)
        reply->trouble = trouble_of(self, call, &counts);
    reply->loaded = !err_is(indexes_stats(self->indexes, call_company(call), &stats));
    if (!reply->loaded)
        return err_ok();
    reply->indexed = (int64_t)stats.base;
    reply->tombstones = (int64_t)stats.dead;
    reply->index_bytes = (int64_t)stats.bytes;
    reply->has_indexed = reply->has_tombstones = reply->has_index_bytes = true;
    return err_ok();
}

/* ---- The actor ---- */

static err_t brain_open(void *state, call_t *call)
{
    brain_t *self = state;
    indexes_options_t options = {
        .dir = arena_printf(call_arena(call), "%s/brain", actor_data_dir(call_actor(call))),
        .factory = self->settings->index,
        .exact_max = (uint32_t)self->settings->exact_max,
        .ef_search = (int)self->settings->ef_search,
        .open_limit = (size_t)self->settings->indexes_open};
    words_t *words = NULL;
    err_t err = words_new(&words, self->settings->language);

    if (err_is(err))
        return err_make(call_arena(call), ERR_ARGUMENT, "brain.language = %s: %s",
                        self->settings->language, err_what(err));
    words_destroy(&words);
    if (self->settings->embed_url && !self->settings->embed_model)
        return err_of(ERR_ARGUMENT, "brain.embed_url needs brain.embed_model");
    err = indexes_new(&self->indexes, &options);
    if (!err_is(err))
        fill_start(self, call);
    return err_is(err) ? err_make(call_arena(call), err.code, "brain.index = %s: %s",
                                  self->settings->index, err_what(err))
                       : err;
}

static void brain_close(void *state)
{
    brain_t *self = state;

    fill_stop(self);
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

const actor_def_t brain_actor = {
    .name = "brain",
    .doc = "The memory: episodes found by words and likeness, a graph of facts, experience.",
    .size = sizeof(brain_t),
    .open = brain_open,
    .close = brain_close,
    .methods = brain_methods,
    .settings = &brain_settings_record,
    .tables = brain_tables,
    .format = 1,
    .readers = 2,
    .measure = brain_measure,
};
