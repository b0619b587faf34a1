/* The tools of looking after a company's memory. */
#include <inttypes.h>
#include <string.h>

#include "actors/brain/brain.h"
#include "actors/brain/care.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/fill.h"
#include "actors/brain/filter.h"
#include "actors/brain/graph.h"
#include "actors/brain/policy.h"
#include "actors/brain/rebuild.h"
#include "actors/brain/transfer.h"
#include "actors/brain/upkeep.h"
#include "proto/mp.h"

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
    F(INT, refused, must, 0, 0, "Lines that were not, for what is wrong with them.")               \
    F(LIST(import_fault), faults, must, 0, 0, "What is wrong, of the first 100 of them.")
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

#define brain_configure_ARGS(F)                                                                    \
    F(STR, language, opt(), 1, 31,                                                                 \
      "Snowball language of stems and stop words, as english or german; none for neither. The "    \
      "indexes are made anew in the background; searches go on in the old language meanwhile.")    \
    F(JSON, keep_days, opt(), 0, 65536,                                                            \
      "How many days memories of a type are kept, as {\"chat\": 30, \"*\": 365}; * is every "      \
      "other type, null keeps them for ever. Types that are not named stay as they are.")          \
    COMPANY_ROW(F)
#define brain_configure_REPLY(F)                                                                   \
    F(STR, language, opt(), 0, 0, "Of stems and stop words now; absent while nothing is stored.")  \
    F(STR, next_language, opt(), 0, 0, "The indexes are being made anew in it.")                   \
    F(ANY, keep_days, must, 0, 0, "Days by type; what is not in it is kept for ever.")

#define brain_register_framework_ARGS(F)                                                           \
    F(STR, name, must, 1, 128, "Its name; its memories are those of this type.")                   \
    F(REAL, keep_days, opt(), 0, 36500,                                                            \
      "How many days they are kept; absent: as the rule it has says, else 36500.")                 \
    COMPANY_ROW(F)
#define brain_register_framework_REPLY(F)                                                          \
    F(STR, name, must, 0, 0, "Its name.")                                                          \
    F(REAL, keep_days, must, 0, 0, "How many days its memories are kept.")                         \
    F(BOOL, existed, must, 0, 0, "It had a rule before.")

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
    F(STR, next_language, opt(), 0, 0, "The indexes are being made anew in it.")                   \
    F(INT, rebuilt, opt(), 0, 0, "Memories that are in the new indexes already.")                  \
    F(ANY, keep_days, opt(), 0, 0, "How many days memories are kept, by type.")                    \
    F(INT, unmerged, opt(), 0, 0, "Newest memories whose words are not yet in the index itself.")  \
    F(BOOL, loaded, must, 0, 0, "The vectors are in memory.")                                      \
    F(INT, indexed, opt(), 0, 0, "Vectors in the approximate index; the rest is scanned.")         \
    F(INT, tombstones, opt(), 0, 0, "Deleted vectors that a build will remove.")                   \
    F(INT, index_bytes, opt(), 0, 0, "Memory the vectors take.")

#define KEEPING_METHODS(M)                                                                         \
    M(brain_t, brain_check, TOOL | READS,                                                          \
      "Prove that memories, words, vectors and graph agree; reads everything.")                    \
    M(brain_t, brain_maintenance, TOOL | WRITES | IDEMPOTENT | UNREMEMBERED | LONG,                \
      "Rebuild, optimize, vacuum or verify a company's memory; others are served meanwhile.")      \
    M(brain_t, brain_export, TOOL | READS, "A page of everything remembered, as lines of JSON.")   \
    M(brain_t, brain_import, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT | LONG,                      \
      "Take lines that brain_export gave, from here or elsewhere.")                                \
    M(brain_t, brain_forget, TOOL | WRITES | DESTRUCTIVE | IDEMPOTENT | UNREMEMBERED | LONG,       \
      "Delete all memories that match, or everything.")                                            \
    M(brain_t, brain_reembed, TOOL | WRITES | IDEMPOTENT,                                          \
      "Move to the vectors of the model that is set, in the background; searches go on.")          \
    M(brain_t, brain_configure, TOOL | WRITES | IDEMPOTENT,                                        \
      "Choose a company's language and how long its memories are kept; without arguments: look.")  \
    M(brain_t, brain_register_framework, TOOL | WRITES | IDEMPOTENT,                               \
      "Give the memories of a framework (a type) a rule of their own for how long they are kept.") \
    M(brain_t, brain_stat, TOOL | READS, "How much is remembered, and with what.")
KEEPING_METHODS(METHOD_DECLARE_)
const method_t keeping_methods[] = {KEEPING_METHODS(METHOD_ROW_){.name = NULL}};

static void say_agreed(call_t *call, int64_t memories)
{
    call_say(call, "Rows, words, vectors and graph agree. Memories: %" PRId64 ".", memories);
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
    if (err.code == ERR_NOT_FOUND)
        err = err_ok();
    if (!err_is(err))
        say_agreed(call, reply->memories);
    return err;
}

/* A brain_maintenance under way, a slice an entry. */
typedef struct upkeep {
    int action;
    bool rebuilt;
    care_place_t place;
    uint64_t from;
    bool expired; /* what is past its time is gone */
} upkeep_t;

static err_t on_verified(void *self, call_t *call, void *out, const peer_answer_t *answer,
                         void *ctx)
{
    brain_maintenance_reply_t *reply = out;
    bytes_t value;

    const upkeep_t *upkeep = ctx;

    (void)self;
    if (answer->progress)
        return call_park(call);
    if (err_is(answer->err))
        return err_make(call_arena(call), answer->err.code, "%s", err_what(answer->err));
    reply->has_memories =
        mp_get(answer->body, "memories", &value) && mp_int(value, &reply->memories);
    reply->has_index_built =
        mp_get(answer->body, "built", &value) && mp_bool(value, &reply->index_built);
    if (upkeep->action == ACTION_VERIFY)
        say_agreed(call, reply->memories);
    else
        call_say(call, "The words are merged; the vector index %s.",
                 reply->index_built ? "was built anew" : "needed no build");
    return err_ok();
}

/* Reading everything and building belong on a reader thread: a call of the brain to itself. */
static err_t ask_myself(call_t *call, const char *method, upkeep_t *upkeep)
{
    peer_call_t request = {.peer = "brain", .method = method, .company = call_company(call)};

    request.timeout_ms = call_left_ms(call);
    call_peer(call, &request, on_verified, upkeep);
    return call_park(call);
}

static err_t rebuild_slice(brain_t *self, call_t *call, upkeep_t *upkeep,
                           brain_maintenance_reply_t *reply, bool *more)
{
    bool slices;
    err_t err = rebuild_step(self, call, call_company(call), &slices, &reply->memories);

    reply->has_memories = true;
    upkeep->rebuilt = !slices;
    *more = true; /* what the old generation left is swept next */
    call_progress(call, (double)reply->memories, 0, "memories rebuilt");
    return err;
}

/* Vacuum also deletes what is only kept from answers until upkeep comes by. */
static err_t vacuum_slice(brain_t *self, call_t *call, upkeep_t *upkeep, bool *more)
{
    store_txn_t *txn;
    policy_t *policy = ARENA_NEW(call_arena(call), policy_t);
    care_wish_t wish = {.policy = policy, .now_ms = call_now_ms(call)};

    if (upkeep->expired)
        return care_vacuum(self, call, call_company(call), &upkeep->place, more);
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err))
        err = policy_read(txn, call_arena(call), policy);
    *more = false;
    if (!err_is(err) && policy->count)
        err = care_forget(self, call, call_company(call), &wish, &upkeep->from,
                          &upkeep->place.deleted, more);
    upkeep->expired = !*more;
    *more = true;
    return err;
}

static void say_swept(call_t *call, const brain_maintenance_reply_t *reply)
{
    const char *rebuilt =
        reply->has_memories
            ? arena_printf(call_arena(call), "Memories whose indexes are made anew: %" PRId64 ". ",
                           reply->memories)
            : "";

    call_say(call, "%sRows deleted that nothing led to: %" PRId64 ".", rebuilt, reply->deleted);
}

static err_t upkeep_on(void *state, call_t *call, void *out, void *ctx)
{
    brain_t *self = state;
    brain_maintenance_reply_t *reply = out;
    upkeep_t *upkeep = ARENA_NEW(call_arena(call), upkeep_t);
    bool more = false;
    err_t err;

    *upkeep = *(const upkeep_t *)ctx; /* a slice may be run twice, from the same place */
    if (upkeep->action == ACTION_VERIFY)
        return ask_myself(call, "brain_check", upkeep);
    if (upkeep->action == ACTION_OPTIMIZE) {
        err = memory_merge(self, call, call_company(call));
        return err_is(err) ? err : ask_myself(call, "brain_index_build", upkeep);
    }
    if (upkeep->action == ACTION_REBUILD && !upkeep->rebuilt) {
        err = rebuild_slice(self, call, upkeep, reply, &more);
    } else {
        err = vacuum_slice(self, call, upkeep, &more);
        reply->deleted = upkeep->place.deleted;
        reply->has_deleted = true;
        say_swept(call, reply);
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
    err_t err = transfer_out(self, call, call_company(call), args->cursor ? args->cursor : "",
                             (size_t)args->limit, PAGE, &lines, &reply->cursor, &reply->count);
    reply->lines = lines.data ? lines.data : "";
    call_say_text(call, reply->lines);
    return err;
}

static err_t brain_import(brain_t *self, call_t *call, const brain_import_args_t *args,
                          brain_import_reply_t *reply)
{
    err_t err = transfer_in(self, call, call_company(call), args->lines, &reply->imported,
                            &reply->refused, &reply->faults);

    if (!err_is(err))
        brain_build_if_wanted(self, call);
    return err;
}

typedef struct forgetting {
    care_wish_t wish;
    uint64_t from;
    int64_t deleted;
} forgetting_t;

static err_t forget_on(void *state, call_t *call, void *out, void *ctx)
{
    forgetting_t *forgetting = ARENA_NEW(call_arena(call), forgetting_t);
    brain_forget_reply_t *reply = out;
    bool more;

    *forgetting = *(const forgetting_t *)ctx; /* a slice may be run twice, from the same place */
    err_t err = care_forget(state, call, call_company(call), &forgetting->wish, &forgetting->from,
                            &forgetting->deleted, &more);
    reply->deleted = forgetting->deleted;
    call_say(call, "Memories forgotten: %" PRId64 ".", reply->deleted);
    if (err_is(err) || !more)
        return err;
    call_resume(call, call, forget_on, forgetting);
    return call_park(call);
}

static err_t brain_forget(brain_t *self, call_t *call, const brain_forget_args_t *args,
                          brain_forget_reply_t *reply)
{
    forgetting_t *forgetting = ARENA_NEW(call_arena(call), forgetting_t);
    mp_reader_t reader = mp_reader(args->filter);
    mp_value_t head;
    bool facts = mp_read(&reader, &head) && (head.type != MP_MAP || head.count); /* {} says none */
    bool narrowed = args->type || args->has_since || args->has_until || facts;
    bytes_t filter = {0};

    if (narrowed == args->everything)
        return err_of(ERR_ARGUMENT, narrowed ? "everything leaves no room for other conditions"
                                             : "say what to forget by type, since, until or "
                                               "filter, or everything=true");
    if (args->has_since && args->has_until && args->since >= args->until)
        return err_of(ERR_ARGUMENT, "since must be before until");
    if (facts) {
        err_t err = filter_read(args->filter, call_arena(call), &filter);
        if (err_is(err))
            return err;
    }
    forgetting->wish = (care_wish_t){.type = args->type,
                                     .has_since = args->has_since,
                                     .since = args->since,
                                     .has_until = args->has_until,
                                     .until = args->until,
                                     .filter = filter,
                                     .everything = args->everything};
    return forget_on(self, call, reply, forgetting);
}

static err_t brain_reembed(brain_t *self, call_t *call, const brain_reembed_args_t *args,
                           brain_reembed_reply_t *reply)
{
    err_t err =
        fill_reembed(self, call, call_company(call), args->again, &reply->started, &reply->model);
    if (!err_is(err))
        call_say(call,
                 reply->started ? "The vectors are being made anew by %s; brain_stat says how far "
                                  "that is, and searches go on."
                                : "The vectors are by %s already, or are being made.",
                 reply->model);
    return err;
}

static err_t look_at_configuration(brain_t *self, call_t *call, brain_configure_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    meta_config_t config = {0};
    meta_rebuild_t rebuild;
    policy_t *policy = ARENA_NEW(arena, policy_t);
    err_t err = call_read(call, call_company(call), &txn);

    if (!err_is(err))
        err = policy_read(txn, arena, policy);
    reply->keep_days = policy_map(arena, policy);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    err = meta_config(self, txn, arena, &config);
    if (err_is(err) && err.code != ERR_VERSION)
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    reply->language = config.language;
    if (meta_rebuild(txn, &rebuild) && strcmp(rebuild.language, config.language) != 0)
        reply->next_language = arena_strdup(arena, rebuild.language);
    return err_ok();
}

static err_t brain_configure(brain_t *self, call_t *call, const brain_configure_args_t *args,
                             brain_configure_reply_t *reply)
{
    store_txn_t *txn;
    bool started = false;
    err_t err = err_ok();

    if (args->language)
        err = rebuild_language(self, call, call_company(call), args->language, &started);
    if (!err_is(err) && args->keep_days.size) {
        err = call_write(call, call_company(call), &txn);
        if (!err_is(err))
            err = policy_change(txn, call_arena(call), args->keep_days);
    }
    if (!err_is(err))
        err = look_at_configuration(self, call, reply);
    if (err_is(err))
        return err;
    if (reply->next_language)
        call_say(call,
                 "The words of this company are %s. Its indexes are being made anew in %s; until "
                 "then searches use the old ones. brain_stat says how far it is.",
                 reply->language, reply->next_language);
    if (started || args->keep_days.size)
        upkeep_wake(call);
    return err_ok();
}

static const policy_rule_t *rule_of(const policy_t *policy, const char *type)
{
    for (size_t i = 0; i < policy->count; i++)
        if (strcmp(policy->rules[i].type, type) == 0)
            return &policy->rules[i];
    return NULL;
}

static err_t put_rule(call_t *call, store_txn_t *txn, const char *type, double days)
{
    buf_t map;

    buf_open(&map, call_arena(call));
    mp_put_map(&map, 1);
    mp_put_str(&map, type);
    mp_put_real(&map, days);
    return policy_change(txn, call_arena(call), buf_bytes(&map));
}

static err_t brain_register_framework(brain_t *self, call_t *call,
                                      const brain_register_framework_args_t *args,
                                      brain_register_framework_reply_t *reply)
{
    enum { LONGEST_DAYS = 36500 };
    store_txn_t *txn;
    policy_t *policy = ARENA_NEW(call_arena(call), policy_t);
    err_t err = call_write(call, call_company(call), &txn);

    (void)self;
    if (!err_is(err))
        err = policy_read(txn, call_arena(call), policy);
    if (err_is(err))
        return err;
    const policy_rule_t *rule = rule_of(policy, args->name);
    *reply = (brain_register_framework_reply_t){.name = args->name,
                                                .existed = rule != NULL,
                                                .keep_days = args->has_keep_days ? args->keep_days
                                                             : rule              ? rule->days
                                                                                 : LONGEST_DAYS};
    if (!rule || args->has_keep_days) {
        err = put_rule(call, txn, args->name, reply->keep_days);
        if (err_is(err))
            return err;
        upkeep_wake(call);
    }
    call_say(call, "Framework '%s' registered: memories of this type are kept for %g days.",
             args->name, reply->keep_days);
    return err_ok();
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

static err_t stat_upkeep(call_t *call, store_txn_t *txn, const memory_counts_t *counts,
                         brain_stat_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    meta_rebuild_t rebuild;
    policy_t *policy = ARENA_NEW(arena, policy_t);
    err_t err = policy_read(txn, arena, policy);

    if (policy->count)
        reply->keep_days = policy_map(arena, policy);
    if (!meta_rebuild(txn, &rebuild))
        return err;
    if (strcmp(rebuild.language, counts->language) != 0)
        reply->next_language = arena_strdup(arena, rebuild.language);
    reply->rebuilt = (int64_t)rebuild.memories;
    reply->has_rebuilt = true;
    return err;
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
    reply->unmerged = store_count(txn, TABLE_fresh);
    reply->has_unmerged = true;
    err = stat_upkeep(call, txn, &counts, reply);
    if (err_is(err))
        return err;
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
