/* builtin: the methods every actor has: <name>.describe, .stats, .metrics, .ping, .drain,
 * .backup. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "bus/inside.h"
#include "proto/describe.h"

#define method_row_FIELDS(F)                                                                       \
    F(STR, name, must, 0, 0, "Name of the method.")                                                \
    F(STR, doc, must, 0, 0, "What it does.")                                                       \
    F(BOOL, tool, must, 0, 0, "Listed as a tool for MCP clients.")                                 \
    F(BOOL, reads, must, 0, 0, "Changes nothing.")                                                 \
    F(BOOL, destructive, must, 0, 0, "May delete or overwrite.")                                   \
    F(BOOL, idempotent, must, 0, 0, "Again with the same arguments changes nothing more.")         \
    F(BOOL, open_world, must, 0, 0, "Reaches beyond this agency.")                                 \
    F(BOOL, admin, must, 0, 0, "Needs the role admin.")                                            \
    F(BOOL, may_be_long, must, 0, 0, "May take minutes: clients may begin it as a task.")          \
    F(ANY, input, must, 0, 0, "JSON Schema of the arguments.")                                     \
    F(ANY, output, must, 0, 0, "JSON Schema of the reply.")                                        \
    F(STR, json, opt(), 0, 0,                                                                      \
      "Its text for MCP is this member of the reply as JSON; *: the reply. Absent: its own "       \
      "words.")                                                                                    \
    F(STR, input_doc, must, 0, 0, "The arguments as a Markdown table.")                            \
    F(STR, output_doc, must, 0, 0, "The reply as a Markdown table.")
RECORD(method_row, method_row_FIELDS)

#define describe_ARGS(F) F(BOOL, docs, opt(false), 0, 0, "Also the Markdown tables.")
#define describe_REPLY(F)                                                                          \
    F(STR, name, must, 0, 0, "Name of the actor.")                                                 \
    F(STR, doc, must, 0, 0, "What it is for.")                                                     \
    F(INT, epoch, must, 0, 0, "Which life of the actor this is.")                                  \
    F(LIST(method_row), methods, must, 0, 0, "What it can do.")

#define method_stat_FIELDS(F)                                                                      \
    F(STR, name, must, 0, 0, "Name of the method.")                                                \
    F(INT, calls, must, 0, 0, "Calls answered.")                                                   \
    F(INT, errors, must, 0, 0, "Of them with an error.")                                           \
    F(REAL, mean_us, must, 0, 0, "Mean time from arrival to answer.")                              \
    F(INT, p50_us, must, 0, 0, "Half were faster than this.")                                      \
    F(INT, p99_us, must, 0, 0, "99 of 100 were faster than this.")                                 \
    F(INT, max_us, must, 0, 0, "The slowest.")
RECORD(method_stat, method_stat_FIELDS)

#define stats_ARGS(F)
#define stats_REPLY(F)                                                                             \
    F(STR, name, must, 0, 0, "Name of the actor.")                                                 \
    F(STR, instance, must, 0, 0, "Unique name of this one.")                                       \
    F(STR, version, must, 0, 0, "Version of the program.")                                         \
    F(INT, epoch, must, 0, 0, "Which life of the actor this is.")                                  \
    F(INT, lives, opt(), 0, 0, "How often it has started on this data, if it keeps any.")          \
    F(INT, lag_us, must, 0, 0, "Longest turn of its loop in the last one to two minutes.")         \
    F(INT, uptime_ms, must, 0, 0, "Since it started.")                                             \
    F(INT, inbox, must, 0, 0, "Calls waiting, parked or being read.")                              \
    F(INT, internal, must, 0, 0, "Internal work under way.")                                       \
    F(INT, batches, must, 0, 0, "Batches run.")                                                    \
    F(INT, commits, must, 0, 0, "Transactions committed.")                                         \
    F(REAL, commit_mean_us, must, 0, 0, "Mean time of a commit with its sync.")                    \
    F(INT, malformed, must, 0, 0, "Frames dropped because they made no sense.")                    \
    F(INT, busy, must, 0, 0, "Calls refused because the inbox was full.")                          \
    F(INT, duplicates, must, 0, 0, "Repeated calls answered with their first outcome.")            \
    F(INT, events, must, 0, 0, "Events published.")                                                \
    F(BOOL, draining, must, 0, 0, "Takes no new work.")                                            \
    F(LIST(method_stat), methods, must, 0, 0, "Counters by method, those that were called.")

#define metrics_ARGS(F)
#define metrics_REPLY(F)                                                                           \
    F(LIST(metric_family), families, must, 0, 0, "What it counts and measures.")

#define ping_ARGS(F)
#define ping_REPLY(F)                                                                              \
    F(STR, name, must, 0, 0, "Unique name of this actor.")                                         \
    F(INT, epoch, must, 0, 0, "Which life of the actor this is.")

#define drain_ARGS(F)
#define drain_REPLY(F) F(BOOL, idle, must, 0, 0, "Nothing is left to finish.")

#define backup_store_FIELDS(F)                                                                     \
    F(STR, company, must, 0, 0, "Whose store.")                                                    \
    F(INT, format, must, 0, 0, "Version of the stored format.")
RECORD(backup_store, backup_store_FIELDS)
#define backup_ARGS(F)                                                                             \
    F(STR, dir, must, 1, 4096, "An existing empty directory, absolute.")                           \
    F(COMPANY, company, opt(), 0, 0, "Only this one.")
#define backup_REPLY(F) F(LIST(backup_store), stores, must, 0, 0, "What was copied.")

#define audit_ARGS(F)                                                                              \
    F(COMPANY, company, opt(), 0, 0, "Whose log; absent: only says which companies there are.")    \
    F(INT, from, opt(0), 0, 0, "Number of the first record wanted.")
#define audit_REPLY(F)                                                                             \
    F(STRS, companies, opt(), 0, 0, "Companies that have a store here.")                           \
    F(LIST(audit_kept), rows, must, 0, 0, "As kept; none: the end.")

#define BUILTIN_METHODS(M)                                                                         \
    M(void, describe, READS | ANY_COMPANY | PARKS, "What this actor can do.")                      \
    M(void, stats, READS | ANY_COMPANY | PARKS, "Counters of this actor.")                         \
    M(void, metrics, READS | ANY_COMPANY | PARKS, "What Prometheus reads.")                        \
    M(void, ping, READS | ANY_COMPANY | PARKS, "Is it there?")                                     \
    M(void, drain, ADMIN | ANY_COMPANY | PARKS, "Take no new work and finish what is under way.")  \
    M(void, backup, ADMIN | READS | ANY_COMPANY | PARKS, "Copy the stores while they are in use.") \
    M(void, audit, ADMIN | READS | ANY_COMPANY | PARKS, "A page of a company's audit log.")
BUILTIN_METHODS(METHOD_DECLARE_)

const method_t inside_builtins[] = {BUILTIN_METHODS(METHOD_ROW_){.name = NULL}};

int inside_builtin_count(void)
{
    return (int)(sizeof(inside_builtins) / sizeof(inside_builtins[0])) - 1;
}

static bytes_t schema_of(call_t *call, const record_t *record)
{
    buf_t out;
    buf_open(&out, call->arena);
    describe_schema(record, &out);
    return buf_bytes(&out);
}

static const char *table_of(call_t *call, const record_t *record)
{
    buf_t out;
    buf_open(&out, call->arena);
    describe_markdown(record, &out);
    return out.data;
}

static const char *json_of(const method_t *method)
{
    if (method->flags & SAYS_FIRST)
        return method->reply->fields()[0].name;
    return method->flags & SAYS_JSON ? "*" : NULL;
}

static void describe_method(call_t *call, const method_t *method, bool docs, method_row_t *row)
{
    *row = (method_row_t){.name = method->name,
                          .doc = method->doc,
                          .tool = method->flags & TOOL,
                          .reads = method->flags & READS,
                          .destructive = method->flags & DESTRUCTIVE,
                          .idempotent = method->flags & IDEMPOTENT,
                          .open_world = method->flags & OPEN_WORLD,
                          .admin = method->flags & ADMIN,
                          .may_be_long = method->flags & LONG,
                          .input = schema_of(call, method->args),
                          .output = schema_of(call, method->reply),
                          .json = json_of(method),
                          .input_doc = docs ? table_of(call, method->args) : "",
                          .output_doc = docs ? table_of(call, method->reply) : ""};
}

static err_t describe(void *self, call_t *call, const describe_args_t *args,
                      describe_reply_t *reply)
{
    (void)self;
    const actor_t *actor = call->actor;
    reply->name = actor->def->name;
    reply->doc = actor->def->doc;
    reply->epoch = (int64_t)actor->epoch;
    reply->methods.count = (size_t)actor->method_count;
    reply->methods.items = ARENA_ARRAY(call->arena, method_row_t, reply->methods.count);
    for (int i = 0; i < actor->method_count; i++)
        describe_method(call, &actor->methods[i], args->docs, &reply->methods.items[i]);
    return err_ok();
}

/* The upper end of the bucket in which the part lies. */
static int64_t quantile(const method_stats_t *stats, double part)
{
    uint64_t target = (uint64_t)((double)stats->calls * part), seen = 0;
    for (int i = 0; i < 24; i++) {
        seen += stats->buckets[i];
        if (seen > target)
            return (int64_t)1 << i;
    }
    return (int64_t)stats->max_us;
}

static void fill_stat(const method_t *method, const method_stats_t *stats, method_stat_t *row)
{
    *row = (method_stat_t){.name = method->name,
                           .calls = (int64_t)stats->calls,
                           .errors = (int64_t)stats->errors,
                           .mean_us = (double)stats->total_us / (double)stats->calls,
                           .p50_us = quantile(stats, 0.5),
                           .p99_us = quantile(stats, 0.99),
                           .max_us = (int64_t)stats->max_us};
}

static err_t stats(void *self, call_t *call, const stats_args_t *args, stats_reply_t *reply)
{
    (void)self;
    (void)args;
    actor_t *actor = call->actor;
    int total = actor->method_count + inside_builtin_count();
    method_stat_t *rows = ARENA_ARRAY(call->arena, method_stat_t, (size_t)total);
    loop_lag_t lag;
    actor->env->ops->lag(actor->env, &lag);
    *reply = (stats_reply_t){
        .version = AGENCY_VERSION,
        .lag_us = lag.worst_us,
        .name = actor->def->name,
        .instance = actor->instance,
        .epoch = (int64_t)actor->epoch,
        .lives = (int64_t)actor->epoch, /* an actor without a store draws its epoch by lot */
        .has_lives = actor->pool != NULL,
        .uptime_ms = call_now_ms(call) - actor->started_ms,
        .inbox = actor->live,
        .internal = actor->internals,
        .batches = (int64_t)actor->batches,
        .commits = (int64_t)actor->commits,
        .commit_mean_us = actor->commits ? (double)actor->commit_us / (double)actor->commits : 0,
        .malformed = (int64_t)actor->malformed,
        .busy = (int64_t)actor->dropped_busy,
        .duplicates = (int64_t)actor->duplicates,
        .events = (int64_t)actor->event_seq,
        .draining = actor->draining,
        .methods = {rows, 0},
    };
    for (int i = 0; i < total; i++) {
        const method_t *method = i < actor->method_count
                                     ? &actor->methods[i]
                                     : &inside_builtins[i - actor->method_count];
        if (actor->stats[i].calls)
            fill_stat(method, &actor->stats[i], &rows[reply->methods.count++]);
    }
    return err_ok();
}

static err_t metrics(void *self, call_t *call, const metrics_args_t *args, metrics_reply_t *reply)
{
    (void)self;
    (void)args;
    metrics_t *out = metrics_new(call->arena);
    actor_measure(call->actor, call, out);
    reply->families = metrics_list(out);
    return err_ok();
}

static err_t ping(void *self, call_t *call, const ping_args_t *args, ping_reply_t *reply)
{
    (void)self;
    (void)args;
    reply->name = call->actor->instance;
    reply->epoch = (int64_t)call->actor->epoch;
    return err_ok();
}

static err_t drain(void *self, call_t *call, const drain_args_t *args, drain_reply_t *reply)
{
    (void)args;
    const actor_def_t *def = call->actor->def;
    actor_drain(call->actor);
    /* This call itself is the one that is live. */
    reply->idle = call->actor->live <= 1 && (!def->drained || def->drained(self));
    return err_ok();
}

/* ---- Backup: one store after the other, each by a process of its own ---- */

typedef struct copying {
    const char *dir;
    strs_t companies;
    size_t at;
} copying_t;

static err_t copy_next(call_t *call, backup_reply_t *reply, copying_t *copying);

static err_t on_copied(void *self, call_t *call, void *reply, const child_outcome_t *outcome,
                       void *ctx)
{
    copying_t *copying = ctx;
    const char *company = copying->companies.items[copying->at];
    (void)self;
    if (err_is(outcome->err) || outcome->exit_status)
        return err_make(call->arena, ERR_IO, "the store of '%s' was not copied: %s", company,
                        err_is(outcome->err) ? err_what(outcome->err)
                        : outcome->errors.size
                            ? arena_strndup(call->arena, (const char *)outcome->errors.data,
                                            outcome->errors.size)
                            : "the copying process was killed");
    backup_reply_t *out = reply;
    out->stores.items[out->stores.count++] = (backup_store_t){
        .company = company, .format = call->actor->def->format, .has_format = true};
    copying->at++;
    return copy_next(call, out, copying);
}

static err_t make_dir(call_t *call, const char *path)
{
    return mkdir(path, 0700) && errno != EEXIST
               ? err_make(call->arena, ERR_IO,
                          "%s cannot make %s: %s; its process must be able to "
                          "write there",
                          call->actor->def->name, path, strerror(errno))
               : err_ok();
}

static err_t copy_next(call_t *call, backup_reply_t *reply, copying_t *copying)
{
    (void)reply;
    if (copying->at == copying->companies.count)
        return err_ok();
    arena_t *arena = call->arena;
    const char *company = copying->companies.items[copying->at];
    const char *parent = arena_printf(arena, "%s/%s", copying->dir, company);
    const char *to = arena_printf(arena, "%s/store", parent);
    err_t err = make_dir(call, parent);
    if (!err_is(err))
        err = make_dir(call, to);
    if (err_is(err))
        return err;
    const char **argv = ARENA_ARRAY(arena, const char *, 5);
    argv[0] = "/proc/self/exe";
    argv[1] = "store-copy";
    argv[2] = arena_printf(arena, "%s/%s/%s/store", call->actor->data_dir, call->actor->def->name,
                           company);
    argv[3] = to;
    argv[4] = NULL;
    child_request_t request = {.argv = argv, .output_limit = 4096};
    call_child(call, &request, on_copied, copying);
    return call_park(call);
}

static strs_t only(call_t *call, strs_t all, const char *company)
{
    const char **one = ARENA_ARRAY(call->arena, const char *, 1);
    size_t count = 0;
    for (size_t i = 0; i < all.count; i++)
        if (!strcmp(all.items[i], company))
            one[count++] = company;
    return (strs_t){one, count};
}

static err_t backup(void *self, call_t *call, const backup_args_t *args, backup_reply_t *reply)
{
    (void)self;
    const actor_def_t *def = call->actor->def;
    copying_t *copying = ARENA_NEW(call->arena, copying_t);
    if (!def->tables)
        return err_make(call->arena, ERR_ARGUMENT, "%s keeps nothing", def->name);
    if (args->dir[0] != '/')
        return err_of(ERR_ARGUMENT, "dir must be absolute");
    *copying = (copying_t){.dir = args->dir};
    err_t err = call_companies(call, &copying->companies);
    if (!err_is(err) && args->company)
        copying->companies = only(call, copying->companies, args->company);
    if (err_is(err))
        return err;
    reply->stores.items = ARENA_ARRAY(call->arena, backup_store_t, copying->companies.count + 1);
    return copy_next(call, reply, copying);
}

/* ---- The audit log ---- */

static err_t which_logs(call_t *call, strs_t *out)
{
    strs_t all;
    err_t err = call_companies(call, &all);
    if (err_is(err))
        return err;
    const char **mine = ARENA_ARRAY(call->arena, const char *, all.count + 1);
    size_t count = 0;
    for (size_t i = 0; i < all.count; i++)
        if (call_may(call, all.items[i]))
            mine[count++] = all.items[i];
    *out = (strs_t){mine, count};
    return err;
}

static err_t audit(void *self, call_t *call, const audit_args_t *args, audit_reply_t *reply)
{
    const actor_t *actor = call->actor;
    (void)self;
    if (!actor->pool)
        return err_make(call->arena, ERR_ARGUMENT, "%s keeps nothing", actor->def->name);
    if (!args->company) {
        reply->has_companies = true;
        return which_logs(call, &reply->companies);
    }
    return audit_read(actor->def, actor->pool, args->company, args->from, call->arena,
                      &reply->rows);
}
