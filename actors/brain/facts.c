/* The tools of what is known besides memories: the graph, experience, procedures. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "actors/brain/brain.h"
#include "actors/brain/experience.h"
#include "actors/brain/graph.h"
#include "actors/brain/memory.h"
#include "actors/brain/tell.h"
#include "proto/json.h"
#include "proto/mp.h"

#define graph_operation_VALUES(V)                                                                  \
    V(GRAPH_ADD_NODE, "add_node")                                                                  \
    V(GRAPH_ADD_EDGE, "add_edge")                                                                  \
    V(GRAPH_DELETE_NODE, "delete_node")                                                            \
    V(GRAPH_DELETE_EDGE, "delete_edge")
RECORD_ENUM(graph_operation, graph_operation_VALUES)

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
    F(BOOL, more, must, 0, 0, "There is more than the limit let through.")                         \
    F(STR, cursor, opt(), 0, 0, "Give it back for the next page; absent at the end.")
#define brain_query_graph_ARGS(F)                                                                  \
    F(STR, query, must, 0, 1024, "Text in ids, types, relations or properties; empty: all.")       \
    F(INT, limit, opt(1000), 1, 10000, "How many nodes and edges at most.")                        \
    F(STR, cursor, opt(), 1, 1200, "Where the last page of this query ended.")                     \
    COMPANY_ROW(F)
#define brain_query_graph_REPLY(F) GRAPH_REPLY(F)
#define graph_neighbors_ARGS(F)                                                                    \
    F(STR, id, must, 1, 150, "Where to begin.")                                                    \
    F(INT, depth, opt(1), 1, 16, "How many steps away.")                                           \
    F(STR, relation, opt(), 1, 150, "Only along edges of this relation.")                          \
    F(INT, limit, opt(1000), 1, 10000, "How many nodes and edges at most.")                        \
    F(STR, cursor, opt(), 1, 32, "Where the last page of this walk ended.")                        \
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
    F(INT, tokens, opt(), 0, TOKENS_MOST, "Tokens it took.")                                       \
    F(REAL, duration, opt(), 0, DURATION_MOST, "How long it took, in the unit of your choice.")    \
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

#define experience_totals_ARGS(F) COMPANY_ROW(F)
#define experience_totals_REPLY(F)                                                                 \
    F(INT, runs, must, 0, 0, "How many experiences there are.")                                    \
    F(INT, successes, must, 0, 0, "Of them with success.")                                         \
    F(INT, tokens, must, 0, 0, "Tokens of all of them.")                                           \
    F(REAL, mean_duration, opt(), 0, 0, "Of those that told how long they took.")

#define brain_get_sop_ARGS(F)                                                                      \
    F(STR, name, must, 1, 128, "Name of the procedure.")                                           \
    COMPANY_ROW(F)
#define brain_get_sop_REPLY(F)                                                                     \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, content, must, 0, 0, "The Markdown.")

#define FACTS_METHODS(M)                                                                           \
    M(brain_t, brain_update_graph, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT,                       \
      "Add, change or delete a node or an edge of the graph of facts.")                            \
    M(brain_t, brain_query_graph, TOOL | READS | SAYS_JSON, "Find nodes and edges by text.")       \
    M(brain_t, graph_neighbors, TOOL | READS | SAYS_JSON, "What lies around a node of the graph.") \
    M(brain_t, graph_path, TOOL | READS,                                                           \
      "A shortest way between two nodes of the graph, along its edges' directions.")               \
    M(brain_t, log_experience, TOOL | WRITES, "Remember who did a task and how it ended.")         \
    M(brain_t, recall_delegation_patterns, TOOL | READS,                                           \
      "Who did this kind of task before, how well and at what cost.")                              \
    M(brain_t, experience_totals, READS, "All that a company's agents did, in one row.")           \
    M(brain_t, brain_get_sop, TOOL | READS | PARKS, "Read a procedure; the agent keeps them.")
FACTS_METHODS(METHOD_DECLARE_)
const method_t facts_methods[] = {FACTS_METHODS(METHOD_ROW_){.name = NULL}};

/* ---- The graph ---- */

static err_t update_node(brain_t *self, call_t *call, const brain_update_graph_args_t *args)
{
    graph_node_t node;
    err_t err = record_decode(&graph_node_record, args->args, call_arena(call), "argument", &node);

    if (err_is(err))
        return err;
    if (args->operation == GRAPH_DELETE_NODE) {
        err = graph_del_node(self, call, call_company(call), node.id);
        call_say(call,
                 err.code == ERR_NOT_FOUND ? "There is no node '%s' to delete."
                                           : "Node '%s' deleted.",
                 node.id);
        return err;
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
    err = del ? graph_del_edge(self, call, call_company(call), edge.from, edge.relation, edge.to)
              : graph_put_edge(self, call, call_company(call), &edge);
    const char *done = !del                        ? "added/updated"
                       : err.code == ERR_NOT_FOUND ? "was not there"
                                                   : "deleted";
    call_say(call, "Edge '%s' -[%s]-> '%s' %s.", edge.from, edge.relation, edge.to, done);
    return err;
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

/* Behind what they belong to; the line ends. */
static void say_properties(buf_t *text, bytes_t properties)
{
    mp_value_t head;
    mp_reader_t reader = mp_reader(properties);

    if (properties.size && mp_read(&reader, &head) && head.count) {
        buf_puts(text, " ");
        json_from_msgpack(properties, JSON_COMPACT, text);
    }
    buf_puts(text, "\n");
}

static void say_graph(call_t *call, const graph_part_t *part)
{
    buf_t text;

    buf_open(&text, call_arena(call));
    for (size_t i = 0; i < part->nodes.count; i++) {
        const graph_node_t *node = &part->nodes.items[i];
        buf_printf(&text, "'%s' (%s)", node->id, node->type ? node->type : "of no type");
        say_properties(&text, node->properties);
    }
    for (size_t i = 0; i < part->edges.count; i++) {
        const graph_edge_t *edge = &part->edges.items[i];
        buf_printf(&text, "'%s' -[%s]-> '%s'", edge->from, edge->relation, edge->to);
        say_properties(&text, edge->properties);
    }
    if (part->more)
        buf_printf(&text, "There is more: go on with cursor=%s\n", part->cursor);
    call_say_text(call, text.size ? text.data : "Nothing in the graph.");
}

/* The reply of brain_query_graph and of graph_neighbors, and its text. */
static void tell_part(call_t *call, const graph_part_t *part, graph_node_list_t *nodes,
                      graph_edge_list_t *edges, bool *more, const char **cursor)
{
    *nodes = part->nodes;
    *edges = part->edges;
    *more = part->more;
    *cursor = part->cursor;
    say_graph(call, part);
}

static err_t brain_query_graph(brain_t *self, call_t *call, const brain_query_graph_args_t *args,
                               brain_query_graph_reply_t *reply)
{
    graph_part_t part;
    err_t err = graph_query(self, call, call_company(call), args->query, (size_t)args->limit,
                            args->cursor, &part);

    if (!err_is(err))
        tell_part(call, &part, &reply->nodes, &reply->edges, &reply->more, &reply->cursor);
    return err;
}

static err_t graph_neighbors(brain_t *self, call_t *call, const graph_neighbors_args_t *args,
                             graph_neighbors_reply_t *reply)
{
    graph_part_t part;
    err_t err = graph_around(self, call, call_company(call), args->id, args->depth, args->relation,
                             (size_t)args->limit, args->cursor, &part);

    if (!err_is(err))
        tell_part(call, &part, &reply->nodes, &reply->edges, &reply->more, &reply->cursor);
    return err;
}

static void say_no_way(buf_t *text, const graph_path_args_t *args, const graph_part_t *part)
{
    buf_printf(text, "No way from '%s' to '%s'", args->from, args->to);
    if (part->missing)
        buf_printf(text, ": there is no node '%s'.", part->missing);
    else if (part->more)
        buf_puts(text, " among the nodes that were reached; there are more.");
    else
        buf_printf(text, " of at most %" PRId64 " steps along the edges' directions.", args->depth);
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
    if (reply->found)
        buf_printf(&text, "'%s'", args->from);
    else
        say_no_way(&text, args, &part);
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
        brain_build_if_wanted(self, call);
    return err;
}

static int percent(double part, double whole)
{
    return whole > 0 ? (int)floor(part * 100 / whole + 0.5) : 0;
}

/* Whole seconds and milliseconds stay whole numbers. */
static void put_amount(buf_t *out, const char *name, double amount)
{
    buf_printf(out, fabs(amount) >= 1000 ? "%s%.0f" : "%s%.3g", name, amount);
}

static void say_patterns(call_t *call, const char *task_type, const patterns_t *patterns,
                         const memory_list_t *examples)
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
        if (one->has_mean_duration) {
            put_amount(&out, ", mean duration ", one->mean_duration);
            put_amount(&out, ", p95 ", one->p95_duration);
        }
        if (one->has_mean_tokens)
            buf_printf(&out, ", mean tokens %.0f", one->mean_tokens);
    }
    if (examples->count) {
        buf_puts(&out, "\n\nNearest Experiences:\n\n");
        buf_puts(&out, tell_blocks(call_arena(call), examples));
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
    say_patterns(call, args->task_type, &patterns, &reply->examples);
    return err_ok();
}

static err_t experience_totals(brain_t *self, call_t *call, const experience_totals_args_t *args,
                               experience_totals_reply_t *reply)
{
    patterns_t all;
    err_t err =
        experience_patterns(self, call, call_company(call), NULL, INT64_MIN, INT64_MAX, &all);

    (void)args;
    if (err_is(err))
        return err;
    *reply = (experience_totals_reply_t){.runs = all.runs,
                                         .successes = all.successes,
                                         .tokens = all.tokens,
                                         .has_mean_duration = all.durations > 0};
    if (all.durations)
        reply->mean_duration = all.duration / (double)all.durations;
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
