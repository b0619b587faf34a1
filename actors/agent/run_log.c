/* What others learn of a run: a line in the log file, an event, and experience in the brain. The
 * intent to tell the brain is a row in the same commit as the end of the run; it is deleted when
 * the brain has acknowledged, and taken up again when the agent starts. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/agent/rows.h"
#include "actors/agent/run_state.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { TELL_WAIT_MS = 10 * 1000, TELL_FIRST_MS = 500, TELL_LONGEST_MS = 60 * 1000 };

/* Somebody to be told: one row of run_logs. In a list of the agent so that none is lost at stop. */
typedef struct tell {
    struct tell *next, *prev;
    agent_t *agent;
    char *company, *id; /* id NULL: look through the company */
    int64_t pause_ms;
} tell_t;

/* Companies that had rows when the agent started, one entry each. */
typedef struct look {
    char **companies;
    size_t count, at;
} look_t;

struct sops {
    tell_t *tells;
    look_t look;
};

#define experience_row_FIELDS(F)                                                                   \
    F(STR, taskId, must, 0, 0, "Id of the run.")                                                   \
    F(STR, task_type, must, 0, 0, "sop_execution.")                                                \
    F(STR, agent_used, must, 0, 0, "sop_engine.")                                                  \
    F(STR, outcome, must, 0, 0, "success or failure.")                                             \
    F(STR, summary, must, 0, 0, "What happened.")                                                  \
    F(INT, tokens, must, 0, 0, "Tokens used.")                                                     \
    F(INT, duration, must, 0, 0, "Milliseconds from submission to the end.")
RECORD(experience_row, experience_row_FIELDS)

#define step_event_FIELDS(F)                                                                       \
    F(STR, company, must, 0, 0, "Whose run.")                                                      \
    F(STR, run, must, 0, 0, "Id of the run.")                                                      \
    F(STR, sop, must, 0, 0, "Name of the procedure.")                                              \
    F(STR, step, must, 0, 0, "Name of the step.")                                                  \
    F(INT, number, must, 1, 0, "Place of the step, from 1.")                                       \
    F(STR, state, must, 0, 0, "completed, failed or refused.")                                     \
    F(STR, words, opt(), 0, 0, "A few words about the result, or the error.")                      \
    F(BOOL, simulated, opt(false), 0, 0, "Outside effects are refused.")                           \
    F(INT, duration_ms, must, 0, 0, "Time spent.")
RECORD(step_event, step_event_FIELDS)

#define run_event_FIELDS(F)                                                                        \
    F(STR, company, must, 0, 0, "Whose run.")                                                      \
    F(STR, run, must, 0, 0, "Id of the run.")                                                      \
    F(STR, sop, must, 0, 0, "Name of the procedure.")                                              \
    F(STR, outcome, must, 0, 0, "completed or failed.")                                            \
    F(STR, error, opt(), 0, 0, "Why it failed.")                                                   \
    F(BOOL, simulated, opt(false), 0, 0, "Outside effects were refused.")
RECORD(run_event, run_event_FIELDS)

/* ---- the log file ------------------------------------------------------------------------- */

typedef struct line {
    const char *path;
    const char *text;
    size_t size;
} line_t;

/* One write, so that lines of several processes do not mix. Best effort: the run is in the store.
 */
static void append_line(void *self, void *ctx)
{
    (void)self;
    const line_t *line = ctx;
    int fd = open(line->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    ssize_t put = write(fd, line->text, line->size);
    (void)put;
    close(fd);
}

enum { LOG_TAIL = 1 << 20 };

#define sop_logs_ARGS(F)                                                                           \
    F(INT, limit, opt(100), 1, 1000, "How many at most.")                                          \
    COMPANY_ROW(F)
#define sop_logs_REPLY(F) F(STR, log, must, 0, 0, "Lines of JSON, the newest last.")
#define RUN_LOG_METHODS(M)                                                                         \
    M(agent_t, sop_logs, TOOL | READS, "The last steps of runs, from sop_logs.ndjson.")
RUN_LOG_METHODS(METHOD_DECLARE_)
const method_t run_log_methods[] = {RUN_LOG_METHODS(METHOD_ROW_){.name = NULL}};

/* Of the file only the end is looked at. */
static size_t read_tail(const char *path, char *out, size_t most)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t size = 0;
    if (fd < 0)
        return 0;
    if (!fstat(fd, &info) && S_ISREG(info.st_mode))
        size = pread(fd, out, most, info.st_size > (off_t)most ? info.st_size - (off_t)most : 0);
    close(fd);
    return size > 0 ? (size_t)size : 0;
}

static err_t sop_logs(agent_t *self, call_t *call, const sop_logs_args_t *args,
                      sop_logs_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    char *text = arena_alloc(arena, LOG_TAIL + 1);
    size_t size =
        read_tail(arena_printf(arena, "%s/sop_logs.ndjson", actor_data_dir(call_actor(call))), text,
                  LOG_TAIL);
    const char *mine = arena_printf(arena, ",\"company\":\"%s\",", call_company(call));
    const char **lines = ARENA_ARRAY(arena, const char *, (size_t)args->limit);
    size_t seen = 0, most = (size_t)args->limit;
    buf_t out;
    (void)self;
    text[size] = '\0';
    char *line = size == LOG_TAIL ? strchr(text, '\n') : text; /* not the rest of a line */
    for (char *end; line && (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        if (strstr(line, mine)) /* a quote within a value has a backslash before it */
            lines[seen++ % most] = line;
    }
    buf_open(&out, arena);
    for (size_t i = seen > most ? seen - most : 0; i < seen; i++)
        buf_printf(&out, "%s\n", lines[i % most]);
    reply->log = out.data ? out.data : "";
    call_say_text(call, reply->log);
    return err_ok();
}

static void put_pair(buf_t *out, const char *key, const char *value)
{
    buf_printf(out, "%s\"%s\":", out->size > 1 ? "," : "", key);
    json_put_string(out, value, strlen(value));
}

static void log_line(run_t *run, const char *step, bool good, const char *details)
{
    buf_t out;
    buf_open(&out, run->arena);
    buf_puts(&out, "{");
    put_pair(&out, "timestamp", record_time_text(run->arena, call_now_ms(run->call)));
    put_pair(&out, "company", call_company(run->call));
    put_pair(&out, "sop", run->row.sop);
    put_pair(&out, "run", run->id);
    put_pair(&out, "step", step);
    put_pair(&out, "status", good ? "success" : "failure");
    put_pair(&out, "details", details);
    buf_puts(&out, "}\n");
    line_t *line = ARENA_NEW(run->arena, line_t);
    *line = (line_t){
        arena_printf(run->arena, "%s/sop_logs.ndjson", actor_data_dir(call_actor(run->call))),
        out.data, out.size};
    call_after_commit(run->call, append_line, line);
}

err_t run_log_step(run_t *run, size_t index, const step_row_t *row)
{
    const sop_step_t *step = &run->sop->steps[index];
    bool good = row->state == STEP_COMPLETED;
    const char *words = good                         ? run_words(run->arena, row->result)
                        : row->state == STEP_REFUSED ? row->why
                                                     : row->error;
    step_event_t event = {.company = call_company(run->call),
                          .run = run->id,
                          .sop = run->row.sop,
                          .step = step->name,
                          .number = (int64_t)index + 1,
                          .has_number = true,
                          .state = run_step_state_names[row->state],
                          .words = words,
                          .simulated = run->row.simulate,
                          .has_simulated = run->row.simulate,
                          .duration_ms = row->duration_ms,
                          .has_duration_ms = true};
    counts_step(run->call, row->state, row->duration_ms);
    call_publish(run->call, "run.step", &step_event_record, &event);
    tasks_tell_waiting(run->agent->tasks, run->call, call_company(run->call), run->id, event.number,
                       (int64_t)run->sop->step_count,
                       arena_printf(run->arena, "%s: %s", step->name, event.state));
    if (!run->row.simulate) /* the file is a record of real work */
        log_line(run, step->name, good, words ? words : "");
    return err_ok();
}

err_t run_log_item(run_t *run, size_t index, int64_t total, int64_t at, const effect_row_t *effect)
{
    bool good = effect->state == EFFECT_COMMITTED;
    const char *name =
        arena_printf(run->arena, "%s[%lld]", run->sop->steps[index].name, (long long)at - 1);
    const char *words = good ? run_words(run->arena, effect->result) : effect->error;
    tasks_tell_waiting(run->agent->tasks, run->call, call_company(run->call), run->id,
                       (int64_t)index, (int64_t)run->sop->step_count,
                       arena_printf(run->arena, "%s of %lld: %s", name, (long long)total,
                                    effect_state_names[effect->state]));
    if (!run->row.simulate)
        log_line(run, name, good, words ? words : "");
    return err_ok();
}

/* ---- telling the brain -------------------------------------------------------------------- */

static tell_t *tell_new(agent_t *agent, const char *company, const char *id)
{
    tell_t *tell = calloc(1, sizeof(*tell));
    if (!tell)
        abort();
    tell->agent = agent;
    tell->company = strdup(company);
    tell->id = strdup(id);
    tell->pause_ms = TELL_FIRST_MS;
    if (!tell->company || !tell->id)
        abort();
    tell->next = agent->sops->tells;
    if (tell->next)
        tell->next->prev = tell;
    agent->sops->tells = tell;
    return tell;
}

static void tell_free(tell_t *tell)
{
    if (tell->prev)
        tell->prev->next = tell->next;
    else
        tell->agent->sops->tells = tell->next;
    if (tell->next)
        tell->next->prev = tell->prev;
    free(tell->company);
    free(tell->id);
    free(tell);
}

static void told(void *self, void *ctx)
{
    (void)self;
    tell_free(ctx);
}

static void longer_pause(void *self, void *ctx)
{
    (void)self;
    tell_t *tell = ctx;
    tell->pause_ms = tell->pause_ms * 2 < TELL_LONGEST_MS ? tell->pause_ms * 2 : TELL_LONGEST_MS;
}

static store_key_t log_key(const char *id)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    return key;
}

static err_t tell_brain(void *self, call_t *call, void *ctx);

static err_t on_told(void *self, call_t *call, void *reply, const peer_answer_t *answer, void *ctx)
{
    (void)self, (void)reply;
    tell_t *tell = ctx;
    store_txn_t *txn;
    if (answer->progress)
        return call_park(call);
    if (err_is(answer->err)) {
        call_after_commit(call, longer_pause, tell);
        call_work(call, tell->pause_ms, tell_brain, tell);
        return err_ok();
    }
    err_t err = call_write(call, tell->company, &txn);
    store_key_t key = log_key(tell->id);
    if (!err_is(err))
        err = store_del(txn, TABLE_run_logs, key_bytes(&key));
    if (err.code == ERR_NOT_FOUND)
        err = err_ok();
    if (!err_is(err))
        call_after_commit(call, told, tell);
    return err;
}

static err_t tell_brain(void *self, call_t *call, void *ctx)
{
    (void)self;
    tell_t *tell = ctx;
    store_txn_t *txn;
    bytes_t row;
    store_key_t key = log_key(tell->id);
    err_t err = call_read(call, tell->company, &txn);
    if (!err_is(err))
        err = store_get(txn, TABLE_run_logs, key_bytes(&key), &row);
    if (err_is(err)) {
        call_after_commit(call, told, tell);
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    }
    bytes_t args = {arena_copy(call_arena(call), row.data, row.size), row.size};
    peer_call_t request = {.peer = "brain",
                           .method = "log_experience",
                           .args = args,
                           .timeout_ms = TELL_WAIT_MS,
                           .company = tell->company,
                           .key = arena_printf(call_arena(call), "experience:%s", tell->id)};
    call_peer(call, &request, on_told, tell);
    return call_park(call);
}

/* After the commit that wrote the row. */
typedef struct start_telling {
    agent_t *agent;
    actor_t *actor;
    const char *company, *id;
} start_telling_t;

static void start_telling(void *self, void *ctx)
{
    (void)self;
    const start_telling_t *start = ctx;
    tell_t *tell = tell_new(start->agent, start->company, start->id);
    actor_work(start->actor, 0, tell_brain, tell);
}

static void tell_after_commit(agent_t *agent, call_t *call, const char *company, const char *id)
{
    arena_t *arena = call_arena(call);
    start_telling_t *start = ARENA_NEW(arena, start_telling_t);
    *start = (start_telling_t){agent, call_actor(call), arena_strdup(arena, company),
                               arena_strdup(arena, id)};
    call_after_commit(call, start_telling, start);
}

static const char *summary_of(run_t *run)
{
    buf_t out;
    buf_open(&out, run->arena);
    buf_printf(&out, "%s: %s", run->row.sop, run->row.title);
    if (run->row.error)
        buf_printf(&out, "; failed at %s", run->row.error);
    for (size_t i = 0; i < run->sop->step_count && i < 20; i++) {
        step_row_t row;
        err_t err = step_load(run, i, &row);
        if (!err_is(err) && row.state == STEP_COMPLETED)
            buf_printf(&out, "; %s: %.200s", run->sop->steps[i].name,
                       run_words(run->arena, row.result));
    }
    return out.size <= 8000 ? out.data : arena_strndup(run->arena, out.data, 8000);
}

err_t run_log_finish(run_t *run)
{
    const run_row_t *row = &run->row;
    bool good = !strcmp(row->outcome, "completed");
    run_event_t event = {.company = call_company(run->call),
                         .run = run->id,
                         .sop = row->sop,
                         .outcome = row->outcome,
                         .error = row->error,
                         .simulated = row->simulate,
                         .has_simulated = row->simulate};
    call_publish(run->call, "run.finished", &run_event_record, &event);
    if (row->simulate) /* no experience, good or bad, comes of what was not done */
        return err_ok();
    counts_run(run->call, good, row->tokens);
    if (run_is_tool(row)) /* housekeeping, nothing that a procedure could be better for */
        return err_ok();
    /* A run that was retried by a person is told once more: it is another experience. */
    const char *id = row->finishes > 1
                         ? arena_printf(run->arena, "%s.%d", run->id, (int)row->finishes)
                         : run->id;
    experience_row_t experience = {.taskId = run->id,
                                   .task_type = "sop_execution",
                                   .agent_used = "sop_engine",
                                   .outcome = good ? "success" : "failure",
                                   .summary = summary_of(run),
                                   .tokens = row->tokens,
                                   .has_tokens = true,
                                   .duration = row->finished_ms - row->created_ms,
                                   .has_duration = true};
    store_key_t key = log_key(id);
    err_t err =
        rows_put(run->txn, TABLE_run_logs, &key, &experience_row_record, run->arena, &experience);
    if (!err_is(err))
        tell_after_commit(run->agent, run->call, call_company(run->call), id);
    if (!err_is(err) && !good)
        err = schedules_want_reviews(run->agent, run->call);
    return err;
}

/* ---- after a restart ---------------------------------------------------------------------- */

static void next_company(void *self, void *ctx)
{
    (void)self;
    ((look_t *)ctx)->at++;
}

/* One company an entry, so that a start with thousands of them serves calls meanwhile. */
static err_t look_through(void *self, call_t *call, void *ctx)
{
    look_t *look = ctx;
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value;
    if (look->at == look->count)
        return err_ok();
    const char *company = look->companies[look->at];
    call_after_commit(call, next_company, look);
    call_work(call, 0, look_through, look);
    err_t err = call_read(call, company, &txn);
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_run_logs, (bytes_t){0}, (bytes_t){0}, false);
    if (err_is(err)) {
        call_log(call, LOG_WARN, "company %s: %s", company, err_what(err));
        return err_ok();
    }
    while (store_scan_next(&scan, &key, &value))
        tell_after_commit(self, call, company,
                          arena_strndup(call_arena(call), (const char *)key.data, key.size));
    store_scan_close(&scan);
    return err_ok();
}

err_t run_log_open(agent_t *agent, call_t *call)
{
    strs_t companies;
    err_t err = call_companies(call, &companies);
    if (err_is(err))
        return err;
    if (!agent->sops)
        agent->sops = calloc(1, sizeof(*agent->sops));
    if (!agent->sops)
        abort();
    look_t *look = &agent->sops->look;
    if (!look->companies)
        look->companies = calloc(companies.count + 1, sizeof(char *));
    if (!look->companies)
        abort();
    for (look->count = 0; look->count < companies.count; look->count++) {
        free(look->companies[look->count]);
        look->companies[look->count] = strdup(companies.items[look->count]);
        if (!look->companies[look->count])
            abort();
    }
    call_work(call, 0, look_through, look);
    return err_ok();
}

void run_log_close(agent_t *agent)
{
    if (!agent->sops)
        return;
    while (agent->sops->tells)
        tell_free(agent->sops->tells);
    for (size_t i = 0; i < agent->sops->look.count; i++)
        free(agent->sops->look.companies[i]);
    free(agent->sops->look.companies);
    free(agent->sops);
    agent->sops = NULL;
}
