#include "support_runs.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actors/agent/agent.h"
#include "proto/json.h"
#include "proto/mp.h"

/* ---- a brain for the test ---- */

memory_t told;

#define brain_query_ARGS(F)                                                                        \
    F(STR, query, must, 0, 0, "What.")                                                             \
    F(INT, limit, opt(3), 0, 0, "How many.")                                                       \
    COMPANY_ROW(F)
#define brain_query_REPLY(F) F(STRS, memories, must, 0, 0, "What it knows.")
#define log_experience_ARGS(F)                                                                     \
    F(STR, taskId, must, 0, 0, "Run.")                                                             \
    F(STR, task_type, must, 0, 0, "Type.")                                                         \
    F(STR, agent_used, must, 0, 0, "Agent.")                                                       \
    F(STR, outcome, must, 0, 0, "Outcome.")                                                        \
    F(STR, summary, must, 0, 0, "Summary.")                                                        \
    F(INT, tokens, opt(), 0, 0, "Tokens.")                                                         \
    F(INT, duration, opt(), 0, 0, "Duration.")                                                     \
    COMPANY_ROW(F)
#define log_experience_REPLY(F) F(BOOL, stored, must, 0, 0, "Done.")
typedef struct brain {
    int unused;
} brain_t;
#define BRAIN_METHODS(M)                                                                           \
    M(brain_t, brain_query, READS, "Search.")                                                      \
    M(brain_t, log_experience, WRITES, "Keep.")
METHODS(brain_methods, BRAIN_METHODS)

static err_t brain_query(brain_t *self, call_t *call, const brain_query_args_t *args,
                         brain_query_reply_t *reply)
{
    (void)self, (void)args;
    static const char *const items[] = {"last time it took long"};
    call_say(call, "one");
    atomic_fetch_add(&told.queries, 1);
    reply->memories = (strs_t){items, 1};
    reply->has_memories = true;
    return err_ok();
}

static err_t log_experience(brain_t *self, call_t *call, const log_experience_args_t *args,
                            log_experience_reply_t *reply)
{
    (void)self;
    if (atomic_load(&told.refuse))
        return err_of(ERR_UNAVAILABLE, "not now");
    snprintf(told.last, sizeof(told.last), "%s %s %s %s %s", call_company(call), args->task_type,
             args->agent_used, args->outcome, args->summary);
    atomic_fetch_add(&told.experiences, 1);
    reply->stored = reply->has_stored = true;
    return err_ok();
}

static const actor_def_t test_brain = {
    .name = "brain", .doc = "Remembers.", .size = sizeof(brain_t), .methods = brain_methods};

/* ---- the house ---- */

void start_with(house_t *house, const char *setting, const char *another)
{
    const char *settings[] = {"agent.lease_ms=1000", setting, another, NULL};
    host_options_t options = {
        .data_dir = house->data, .settings = settings, .log_level = LOG_ERROR};
    err_t err = host_open(&options, house->arena, &house->host);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = host_start(house->host, &test_brain, NULL, house->arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = host_start(house->host, &agent_actor, NULL, house->arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    err = client_open_host(house->host, &house->client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

void start(house_t *house, const char *setting)
{
    start_with(house, setting, NULL);
}

void stop(house_t *house)
{
    client_close(&house->client);
    host_close(&house->host, 2000);
}

void open_house(house_t *house, const char *setting)
{
    *house = (house_t){.arena = arena_new()};
    snprintf(house->data, sizeof(house->data), "/tmp/test-runs-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(house->data));
    start(house, setting);
}

void close_house(house_t *house)
{
    stop(house);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", house->data);
    ck_assert_int_eq(system(command), 0);
    arena_destroy(&house->arena);
}

/* Args as JSON with ' for ". */
client_reply_t ask(house_t *house, const char *method, const char *args)
{
    char *json = arena_strdup(house->arena, args);
    for (char *c = json; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    bytes_t packed;
    err_t err = json_to_msgpack(house->arena, json, strlen(json), NULL, &packed);
    ck_assert_msg(!err_is(err), "%s: %s", json, err_what(err));
    client_call_t call = {
        .peer = "agent", .method = method, .args = packed, .role = ROLE_ADMIN, .timeout_ms = 20000};
    return client_call(house->client, house->arena, &call);
}

bytes_t good(house_t *house, const char *method, const char *args)
{
    client_reply_t reply = ask(house, method, args);
    ck_assert_msg(!err_is(reply.err), "%s %s: %s", method, args, err_what(reply.err));
    return reply.body;
}

void bad(house_t *house, const char *method, const char *args, err_code_t code, const char *part)
{
    client_reply_t reply = ask(house, method, args);
    ck_assert_msg(reply.err.code == code, "%s %s: %s: %s", method, args,
                  err_info(reply.err.code)->name, err_what(reply.err));
    ck_assert_msg(strstr(err_what(reply.err), part) != NULL, "no '%s' in: %s", part,
                  err_what(reply.err));
}

static const char *json_of(house_t *house, bytes_t value)
{
    buf_t out;
    buf_open(&out, house->arena);
    ck_assert(!err_is(json_from_msgpack(value, JSON_COMPACT, &out)));
    return out.data;
}

/* A field by path, as JSON text; "" when absent. */
const char *get(house_t *house, bytes_t body, const char *path)
{
    char *rest = arena_strdup(house->arena, path);
    for (char *part; (part = strsep(&rest, ".")) != NULL;) {
        bool found = *part >= '0' && *part <= '9' ? mp_at(body, (uint32_t)atoi(part), &body)
                                                  : mp_get(body, part, &body);
        if (!found)
            return "";
    }
    const char *text = mp_text(house->arena, body);
    return text ? text : json_of(house, body);
}

void is(house_t *house, bytes_t body, const char *path, const char *want)
{
    const char *have = get(house, body, path);
    ck_assert_msg(!strcmp(have, want), "%s is '%s', not '%s' in %s", path, have, want,
                  json_of(house, body));
}

void has(house_t *house, bytes_t body, const char *path, const char *part)
{
    const char *have = get(house, body, path);
    ck_assert_msg(strstr(have, part) != NULL, "%s is '%s', without '%s'", path, have, part);
}

/* Writes a procedure into the folder of the default company. */
void put_file(house_t *house, const char *name, const char *content)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/sops", house->data);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/sops/%s.md", house->data, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(content, file);
    fclose(file);
}

const char *file_text(house_t *house, const char *path)
{
    char full[256];
    snprintf(full, sizeof(full), "%s/%s", house->data, path);
    FILE *file = fopen(full, "r");
    if (!file)
        return "";
    char *text = arena_alloc(house->arena, 65536);
    size_t size = fread(text, 1, 65535, file);
    fclose(file);
    text[size] = '\0';
    return text;
}

/* ---- the worker ---- */

/* Takes the next run; waits for it at most so long. */
bool lease_within(house_t *house, int wait_ms)
{
    bytes_t body = good(house, "task_lease",
                        arena_printf(house->arena, "{'worker':'w','n':1,'wait_ms':%d}", wait_ms));
    const char *id = get(house, body, "tasks.0.id");
    if (!*id)
        return false;
    house->id = id;
    house->fence = atoll(get(house, body, "tasks.0.fence"));
    ck_assert_int_gt(house->fence, 0);
    return true;
}

void lease(house_t *house)
{
    ck_assert_msg(lease_within(house, 10000), "no run was ready");
}

const char *leased(house_t *house, const char *more)
{
    return arena_printf(house->arena, "{'id':'%s','fence':%lld%s}", house->id,
                        (long long)house->fence, more);
}

bytes_t next(house_t *house)
{
    return good(house, "run_next", leased(house, ""));
}

void begin(house_t *house, int step)
{
    good(house, "step_start", leased(house, arena_printf(house->arena, ",'step':%d", step)));
}

bytes_t done(house_t *house, int step, const char *result)
{
    return good(house, "step_done",
                leased(house, arena_printf(house->arena, ",'step':%d,'outcome':'ok','result':%s",
                                           step, result)));
}

bytes_t broken(house_t *house, int step, const char *error, bool retryable)
{
    return good(house, "step_done",
                leased(house, arena_printf(house->arena,
                                           ",'step':%d,'outcome':'error','error':'%s',"
                                           "'retryable':%s",
                                           step, error, retryable ? "true" : "false")));
}

/* Waits for an end of something the agent does by itself, at most 10 s, by asking. */
void until_told(house_t *house, int experiences)
{
    for (int i = 0; i < 100 && atomic_load(&told.experiences) < experiences; i++)
        lease_within(house, 100); /* a bounded wait inside the agent */
    ck_assert_int_eq(atomic_load(&told.experiences), experiences);
}

const char *execute(house_t *house, const char *args)
{
    bytes_t body = good(house, "sop_execute", args);
    return get(house, body, "id");
}

bytes_t run_of(house_t *house, const char *id)
{
    return good(house, "run_get", arena_printf(house->arena, "{'id':'%s'}", id));
}
