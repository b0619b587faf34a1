#include "actors/agent/schedule.h"

#include <stdlib.h>
#include <string.h>

#include "actors/agent/agent.h"
#include "actors/agent/cron.h"
#include "actors/agent/proposals.h"
#include "actors/agent/rows.h"
#include "actors/agent/values.h"

/* ---- methods ------------------------------------------------------------------------------ */

#define catch_up_VALUES(V)                                                                         \
    V(CATCH_UP_NONE, "none")                                                                       \
    V(CATCH_UP_LAST, "last")                                                                       \
    V(CATCH_UP_ALL, "all")
RECORD_ENUM(catch_up, catch_up_VALUES)

#define schedule_task_FIELDS(F)                                                                    \
    F(STR, kind, opt(), 1, 64, "What is to be done; absent when sop is given.")                    \
    F(JSON, input, opt(), 0, 0, "What the worker needs to know.")                                  \
    F(STR, sop, opt(), 1, 80, "Name of a procedure to run, in its version at the due time.")       \
    F(INT, priority, opt(4), 0, 9, "9 is the most urgent.")                                        \
    F(INT, max_attempts, opt(3), 1, 1000, "After so many failures it is failed; not for sop.")     \
    F(INT, timeout_ms, opt(600000), 1, 86400000, "Longest time of one attempt; not for sop.")      \
    F(STRS, labels, opt(), 0, 16, "Only a worker that offers all of these gets it; not for sop.")
RECORD(schedule_task, schedule_task_FIELDS)

#define SCHEDULE_ROWS(F)                                                                           \
    F(STR, cron, opt(), 0, 0, "Five fields, or @daily and the like.")                              \
    F(INT, every_ms, opt(), 0, 0, "Interval.")                                                     \
    F(STR, timezone, must, 0, 0, "Where the fields of cron count.")                                \
    F(ENUM(catch_up), catch_up, must, 0, 0, "What becomes of due times that passed unseen.")       \
    F(REC(schedule_task), task, must, 0, 0, "What is submitted.")                                  \
    F(STR, author, must, 0, 0, "Who added it.")                                                    \
    F(TIME, created_ms, must, 0, 0, "When it was added.")                                          \
    F(TIME, next_ms, opt(), 0, 0, "Next due time; absent: none in 40 years.")                      \
    F(TIME, last_ms, opt(), 0, 0, "The last due time that was served.")                            \
    F(STR, last_task, opt(), 0, 0, "The task submitted for it.")                                   \
    F(INT, submitted, must, 0, 0, "How many tasks it has submitted.")                              \
    F(INT, missed, must, 0, 0, "Due times left out, as catch_up and its limit say.")               \
    F(STR, error, opt(), 0, 0, "Why the last due time gave no task.")
#define schedule_row_FIELDS(F) SCHEDULE_ROWS(F)
RECORD(schedule_row, schedule_row_FIELDS)

#define schedule_FIELDS(F) F(STR, id, must, 0, 0, "Name of the schedule.") SCHEDULE_ROWS(F)
RECORD(schedule, schedule_FIELDS)

#define ID_ROW(F) F(STR, id, must, 1, 64, "Name of the schedule: letters, digits, - and _.")

#define schedule_add_ARGS(F)                                                                       \
    ID_ROW(F)                                                                                      \
    F(STR, cron, opt(), 1, 200, "minute hour day month weekday, e.g. 30 6 * * MON-FRI; @daily.")   \
    F(INT, every_ms, opt(), 1000, 31536000000, "Instead of cron: an interval, from now on.")       \
    F(REC(schedule_task), task, must, 0, 0, "What to submit: kind and input, or sop and input.")   \
    F(STR, timezone, opt(UTC), 1, 64, "Zone for cron, e.g. Europe/Berlin.")                        \
    F(ENUM(catch_up), catch_up, opt(last), 0, 0,                                                   \
      "Due times that passed while nothing ran: none, only the last, or all of them.")             \
    F(BOOL, replace, opt(false), 0, 0, "Replace the schedule of that id if there is one.")         \
    COMPANY_ROW(F)
#define schedule_add_REPLY(F)                                                                      \
    F(REC(schedule), schedule, must, 0, 0, "The schedule.")                                        \
    F(BOOL, created, must, 0, 0, "False: it was there already, or was replaced.")

#define schedule_list_ARGS(F)                                                                      \
    F(STR, id, opt(), 1, 64, "Only this one.")                                                     \
    COMPANY_ROW(F)
#define schedule_list_REPLY(F) F(LIST(schedule), schedules, must, 0, 0, "By id.")

#define schedule_remove_ARGS(F) ID_ROW(F) COMPANY_ROW(F)
#define schedule_remove_REPLY(F)                                                                   \
    F(STR, id, must, 0, 0, "The schedule that is gone; its tasks stay.")

#define SCHEDULE_METHODS(M)                                                                        \
    M(agent_t, schedule_add, TOOL | WRITES, "Submit a task or run a procedure at due times.")      \
    M(agent_t, schedule_list, TOOL | READS, "Schedules with their next due times.")                \
    M(agent_t, schedule_remove, TOOL | WRITES | DESTRUCTIVE, "Remove a schedule.")
SCHEDULE_METHODS(METHOD_DECLARE_)
const method_t schedule_methods[] = {SCHEDULE_METHODS(METHOD_ROW_){.name = NULL}};

#define ZONEINFO "/usr/share/zoneinfo"

/* ---- when to look at whom ----------------------------------------------------------------- */

enum {
    SLICE = 16,           /* schedules served in one entry */
    WAKE_MOST_MS = 60000, /* the wall clock may be set meanwhile */
    AGAIN_MS = 5000,      /* after a failure */
    WALK_MOST = 20000,    /* due times looked at one by one */
    WALK_BACK_MS = 86400000,
    MOST_SCHEDULES = 10000
};

/* A company; next_ms 0: nothing is due there. */
typedef struct place {
    struct place *next;
    int64_t next_ms;
    char *company;
} place_t;

struct schedules {
    actor_t *actor;
    place_t *places;
    int64_t armed_ms;
};

static err_t tick(void *self, call_t *call, void *ctx);

static void arm(schedules_t *all, int64_t at_ms, int64_t now_ms)
{
    if (at_ms > now_ms + WAKE_MOST_MS)
        at_ms = now_ms + WAKE_MOST_MS;
    if (at_ms <= now_ms)
        at_ms = now_ms + 1;
    if (all->armed_ms && all->armed_ms <= at_ms)
        return;
    all->armed_ms = at_ms;
    actor_work(all->actor, at_ms - now_ms, tick, all);
}

static place_t *place_of(schedules_t *all, const char *company)
{
    place_t *place = all->places;
    while (place && strcmp(place->company, company) != 0)
        place = place->next;
    if (place)
        return place;
    place = calloc(1, sizeof(*place));
    if (!place || !(place->company = strdup(company)))
        abort();
    place->next = all->places;
    return all->places = place;
}

typedef struct look {
    schedules_t *all;
    const char *company;
    int64_t next_ms, now_ms;
} look_t;

static void looked(void *self, void *ctx)
{
    (void)self;
    const look_t *look = ctx;
    place_of(look->all, look->company)->next_ms = look->next_ms;
    if (look->next_ms)
        arm(look->all, look->next_ms, look->now_ms);
}

static void look_after_commit(agent_t *agent, call_t *call, int64_t next_ms)
{
    look_t *look = ARENA_NEW(call_arena(call), look_t);
    *look = (look_t){.all = agent->schedules,
                     .company = arena_strdup(call_arena(call), call_company(call)),
                     .next_ms = next_ms,
                     .now_ms = call_now_ms(call)};
    call_after_commit(call, looked, look);
}

/* ---- rows --------------------------------------------------------------------------------- */

static store_key_t id_key(const char *id)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    return key;
}

static store_key_t due_key(int64_t at_ms, const char *id)
{
    store_key_t key;
    key_open(&key);
    key_i64(&key, at_ms);
    key_raw(&key, id, strlen(id));
    return key;
}

static err_t load(store_txn_t *txn, arena_t *arena, const char *id, schedule_row_t *row)
{
    store_key_t key = id_key(id);
    *row = (schedule_row_t){0};
    return rows_get(txn, TABLE_schedules, &key, &schedule_row_record, arena, row);
}

static err_t unlist(store_txn_t *txn, const char *id, const schedule_row_t *row)
{
    store_key_t key = due_key(row->next_ms, id);
    return row->has_next_ms ? store_del(txn, TABLE_schedules_due, key_bytes(&key)) : err_ok();
}

static err_t save(store_txn_t *txn, arena_t *arena, const char *id, schedule_row_t *row)
{
    store_key_t key = due_key(row->next_ms, id);
    row->has_created_ms = row->has_submitted = row->has_missed = row->has_catch_up = true;
    err_t err = row->has_next_ms
                    ? store_put(txn, TABLE_schedules_due, key_bytes(&key), (bytes_t){0})
                    : err_ok();
    key = id_key(id);
    return err_is(err) ? err
                       : rows_put(txn, TABLE_schedules, &key, &schedule_row_record, arena, row);
}

static schedule_t show(const char *id, const schedule_row_t *row)
{
    return (schedule_t){.id = id,
                        .cron = row->cron,
                        .every_ms = row->every_ms,
                        .has_every_ms = row->has_every_ms,
                        .timezone = row->timezone,
                        .catch_up = row->catch_up,
                        .has_catch_up = true,
                        .task = row->task,
                        .author = row->author,
                        .created_ms = row->created_ms,
                        .has_created_ms = true,
                        .next_ms = row->next_ms,
                        .has_next_ms = row->has_next_ms,
                        .last_ms = row->last_ms,
                        .has_last_ms = row->has_last_ms,
                        .last_task = row->last_task,
                        .submitted = row->submitted,
                        .has_submitted = true,
                        .missed = row->missed,
                        .has_missed = true,
                        .error = row->error};
}

/* ---- due times ---------------------------------------------------------------------------- */

typedef struct timing {
    int64_t every_ms, anchor_ms; /* every_ms 0: by cron */
    cron_t cron;
    const zone_t *zone;
} timing_t;

static err_t timing_of(agent_t *agent, arena_t *arena, const schedule_row_t *row, timing_t *out)
{
    *out = (timing_t){.anchor_ms = row->created_ms};
    if (row->has_every_ms) {
        out->every_ms = row->every_ms;
        return err_ok();
    }
    const char *zoneinfo = agent->settings->zoneinfo;
    err_t err = cron_parse(arena, row->cron, &out->cron);
    return err_is(err)
               ? err
               : zone_load(arena, zoneinfo ? zoneinfo : ZONEINFO, row->timezone, &out->zone);
}

static bool due_after(const timing_t *timing, int64_t after_ms, int64_t *next_ms)
{
    if (!timing->every_ms)
        return cron_next(&timing->cron, timing->zone, after_ms, next_ms);
    int64_t passed = after_ms > timing->anchor_ms ? after_ms - timing->anchor_ms : 0;
    *next_ms = timing->anchor_ms + (passed / timing->every_ms + 1) * timing->every_ms;
    return true;
}

/* The due times up to now that are to be served, oldest first. */
typedef struct owed {
    int64_t *times;
    size_t count;
    int64_t missed, next_ms; /* next_ms 0: none any more */
} owed_t;

static void take_newest(owed_t *owed, size_t most, int64_t at_ms)
{
    if (owed->count == most) {
        memmove(owed->times, owed->times + 1, (most - 1) * sizeof(*owed->times));
        owed->count--;
        owed->missed++;
    }
    owed->times[owed->count++] = at_ms;
}

/* What was due since row->next_ms. After a very long absence the count of those missed is only a
 * lower bound. */
static void find_owed(agent_t *agent, call_t *call, const schedule_row_t *row,
                      const timing_t *timing, owed_t *owed)
{
    int64_t now = call_now_ms(call), at = row->next_ms;
    size_t most = row->catch_up == CATCH_UP_ALL ? (size_t)agent->settings->catch_up_most : 1;
    *owed = (owed_t){.times = ARENA_ARRAY(call_arena(call), int64_t, most)};
    bool found = true;
    for (int i = 0; found && at <= now; i++) {
        take_newest(owed, most, at);
        int64_t from = i == WALK_MOST && at < now - WALK_BACK_MS ? now - WALK_BACK_MS : at;
        if (timing->every_ms && now - from > timing->every_ms * WALK_MOST) {
            owed->missed += (now - from) / timing->every_ms - WALK_MOST / 2;
            from = now - timing->every_ms * (WALK_MOST / 2);
        }
        found = due_after(timing, from, &at);
    }
    owed->next_ms = found ? at : 0;
    bool late = owed->count && owed->times[0] < now - agent->settings->schedule_grace_ms;
    if (row->catch_up == CATCH_UP_NONE && late) {
        owed->missed += (int64_t)owed->count;
        owed->count = 0;
    }
}

/* ---- submitting --------------------------------------------------------------------------- */

#define schedule_event_FIELDS(F)                                                                   \
    F(STR, company, must, 0, 0, "Whose schedule.")                                                 \
    F(STR, id, must, 0, 0, "The schedule.")                                                        \
    F(TIME, due_ms, must, 0, 0, "The due time.")                                                   \
    F(STR, task, opt(), 0, 0, "The task that was submitted.")                                      \
    F(STR, error, opt(), 0, 0, "Why none was.")
RECORD(schedule_event, schedule_event_FIELDS)

static err_t submit(agent_t *agent, call_t *call, const char *id, const schedule_task_t *task,
                    int64_t due_ms, const char **task_id)
{
    bool existed;
    const char *key = arena_printf(call_arena(call), "schedule:%s:%lld", id, (long long)due_ms);
    *task_id = NULL;
    if (task->kind && (!strcmp(task->kind, HR_DAILY) || !strcmp(task->kind, HR_WEEKLY)))
        return hr_review(agent, call, !strcmp(task->kind, HR_DAILY) ? 24 : 168, NULL);
    if (task->sop)
        return runs_submit(agent, call, task->sop, task->input, task->priority, key, task_id);
    task_new_t new_task = {.kind = task->kind,
                           .input = task->input,
                           .priority = task->priority,
                           .max_attempts = task->max_attempts,
                           .timeout_ms = task->timeout_ms,
                           .labels = task->labels,
                           .idempotency_key = key};
    return tasks_submit(agent->tasks, call, &new_task, task_id, &existed);
}

/* Would another try have another outcome, without anybody changing the schedule? */
static bool for_a_while(err_code_t code)
{
    return err_info(code)->retry || code == ERR_QUOTA;
}

/* One due time. An error leaves the whole entry undone; what cannot ever work is noted. */
static err_t serve(agent_t *agent, call_t *call, const char *id, schedule_row_t *row,
                   int64_t due_ms)
{
    const char *task = NULL;
    err_t err = submit(agent, call, id, row->task, due_ms, &task);
    if (err_is(err) && (for_a_while(err.code) || err.code == ERR_CORRUPT))
        return err;
    row->last_ms = due_ms;
    row->has_last_ms = true;
    row->error = err_is(err) ? err_what(err) : NULL;
    if (!err_is(err)) {
        row->last_task = task;
        row->submitted += task != NULL;
    }
    schedule_event_t event = {.company = call_company(call),
                              .id = id,
                              .due_ms = due_ms,
                              .has_due_ms = true,
                              .task = task,
                              .error = row->error};
    call_publish(call, "schedule.due", &schedule_event_record, &event);
    if (row->error)
        call_log(call, LOG_WARN, "schedule %s of %s gave no task: %s", id, call_company(call),
                 row->error);
    return err_ok();
}

static err_t serve_all(agent_t *agent, call_t *call, store_txn_t *txn, const char *id)
{
    schedule_row_t row;
    timing_t timing;
    owed_t owed;
    arena_t *arena = call_arena(call);
    err_t err = load(txn, arena, id, &row);
    if (!err_is(err))
        err = unlist(txn, id, &row);
    if (err_is(err))
        return err;
    err = timing_of(agent, arena, &row, &timing);
    if (err_is(err)) { /* the time zone is gone: it stands still and says so */
        row.error = err_what(err);
        row.has_next_ms = false;
        call_log(call, LOG_ERROR, "schedule %s of %s stands still: %s", id, call_company(call),
                 row.error);
        return save(txn, arena, id, &row);
    }
    find_owed(agent, call, &row, &timing, &owed);
    err = err_ok();
    for (size_t i = 0; i < owed.count && !err_is(err); i++)
        err = serve(agent, call, id, &row, owed.times[i]);
    if (err_is(err))
        return err;
    row.missed += owed.missed;
    row.next_ms = owed.next_ms;
    row.has_next_ms = owed.next_ms > 0;
    return save(txn, arena, id, &row);
}

/* The ids that are due, and when the first one is that is not. */
static err_t find_due(call_t *call, store_txn_t *txn, const char **ids, size_t *count,
                      int64_t *next_ms)
{
    store_scan_t scan;
    bytes_t key, value;
    *count = 0;
    *next_ms = 0;
    err_t err = store_scan_open(&scan, txn, TABLE_schedules_due, (bytes_t){0}, (bytes_t){0}, false);
    if (err_is(err))
        return err;
    while (store_scan_next(&scan, &key, &value)) {
        int64_t at;
        if (!key_read_i64(&key, &at))
            continue;
        if (at > call_now_ms(call) || *count == SLICE) {
            *next_ms = at;
            break;
        }
        ids[(*count)++] = arena_strndup(call_arena(call), (const char *)key.data, key.size);
    }
    store_scan_close(&scan);
    return err_ok();
}

/* `repair`: for the first time since the start. */
static err_t look_at(agent_t *agent, call_t *call, bool repair)
{
    const char *ids[SLICE];
    size_t count = 0;
    int64_t next = 0;
    store_txn_t *txn;
    err_t err = call_read(call, call_company(call), &txn);
    if (!err_is(err) && repair)
        err = papers_repair(call, txn);
    if (!err_is(err) && repair)
        err = proposals_repair(call);
    if (!err_is(err))
        err = find_due(call, txn, ids, &count, &next);
    if (!err_is(err) && count)
        err = call_write(call, call_company(call), &txn);
    for (size_t i = 0; !err_is(err) && i < count; i++)
        err = serve_all(agent, call, txn, ids[i]);
    if (!err_is(err) && count)
        err = find_due(call, txn, ids, &count, &next);
    if (err.code == ERR_NOT_FOUND && !err.what)
        err = err_ok(), next = 0, count = 0; /* the company is gone */
    if (!err_is(err))
        look_after_commit(agent, call, count ? call_now_ms(call) : next);
    return err;
}

/* One company an entry. Timers beyond the armed one find nothing to do. */
static err_t tick(void *self, call_t *call, void *ctx)
{
    schedules_t *all = ctx;
    int64_t now = call_now_ms(call), next = 0;
    place_t *due = NULL;
    if (all->armed_ms > now + 1)
        return err_ok();
    all->armed_ms = 0;
    for (place_t *place = all->places; place; place = place->next) {
        if (place->next_ms && place->next_ms <= now && !due)
            due = place;
        else if (place->next_ms && (!next || place->next_ms < next))
            next = place->next_ms;
    }
    if (due) {
        call_for_company(call, arena_strdup(call_arena(call), due->company));
        err_t err = look_at(self, call, due->next_ms == 1);
        if (err_is(err)) {
            due->next_ms = now + AGAIN_MS;
            arm(all, next && next < due->next_ms ? next : due->next_ms, now);
            return err;
        }
        next = next ? next : now + 1;
    }
    if (next)
        arm(all, next, now);
    return err_ok();
}

/* ---- the tools ---------------------------------------------------------------------------- */

static err_t check_task(agent_t *self, call_t *call, const schedule_task_t *task)
{
    sops_version_t version;
    bytes_t input;
    (void)self;
    if (!task->kind == !task->sop)
        return err_of(ERR_ARGUMENT, "task needs kind (for your own workers) or sop (a procedure), "
                                    "and not both");
    if (!task->sop)
        return strcmp(task->kind, "sop") != 0
                   ? err_ok()
                   : err_of(ERR_ARGUMENT, "to run a procedure give its name as task.sop");
    err_t err = sops_current(call, task->sop, &version);
    if (err_is(err))
        return err;
    if (!version.sop)
        return err_make(call_arena(call), version.err.code, "the procedure '%s' cannot run: %s",
                        version.name, err_what(version.err));
    return sop_input(call_arena(call), version.sop, task->input, &input);
}

static bool same(call_t *call, const schedule_row_t *one, const schedule_row_t *other)
{
    bytes_t a = call_encode(call, &schedule_task_record, one->task);
    bytes_t b = call_encode(call, &schedule_task_record, other->task);
    return !strcmp(one->cron ? one->cron : "", other->cron ? other->cron : "") &&
           one->every_ms == other->every_ms && !strcmp(one->timezone, other->timezone) &&
           one->catch_up == other->catch_up && a.size == b.size && !memcmp(a.data, b.data, a.size);
}

/* The new row, checked, with its first due time. */
static err_t draft(agent_t *self, call_t *call, const schedule_add_args_t *args,
                   schedule_row_t *row)
{
    timing_t timing;
    if (!frame_company_name(args->id))
        return err_of(ERR_ARGUMENT, "id must be letters, digits, - and _, beginning with a letter "
                                    "or digit, at most 64");
    if (!args->cron == !args->has_every_ms)
        return err_of(ERR_ARGUMENT, "give cron or every_ms, one of them");
    *row = (schedule_row_t){.cron = args->cron,
                            .every_ms = args->every_ms,
                            .has_every_ms = args->has_every_ms,
                            .timezone = args->timezone,
                            .catch_up = args->catch_up,
                            .task = args->task,
                            .author = call_principal(call),
                            .created_ms = call_now_ms(call)};
    err_t err = timing_of(self, call_arena(call), row, &timing);
    if (!err_is(err))
        err = check_task(self, call, args->task);
    if (!err_is(err))
        row->has_next_ms = due_after(&timing, call_now_ms(call), &row->next_ms);
    if (!err_is(err) && !row->has_next_ms)
        return err_of(ERR_ARGUMENT, "this cron line is not due in the next 40 years");
    return err;
}

static err_t answer(call_t *call, const char *id, const schedule_row_t *row, bool created,
                    schedule_add_reply_t *reply)
{
    schedule_t *shown = ARENA_NEW(call_arena(call), schedule_t);
    *shown = show(id, row);
    reply->schedule = shown;
    reply->created = created;
    call_say(call, "Schedule '%s' is due next at %s.", id,
             record_time_text(call_arena(call), row->next_ms));
    return err_ok();
}

static err_t schedule_add(agent_t *self, call_t *call, const schedule_add_args_t *args,
                          schedule_add_reply_t *reply)
{
    store_txn_t *txn;
    schedule_row_t row, old;
    arena_t *arena = call_arena(call);
    err_t err = draft(self, call, args, &row);
    if (!err_is(err))
        err = call_write(call, call_company(call), &txn);
    if (err_is(err))
        return err;
    err = load(txn, arena, args->id, &old);
    bool there = !err_is(err);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    if (there && same(call, &row, &old))
        return answer(call, args->id, &old, false, reply);
    if (there && !args->replace)
        return err_make(arena, ERR_EXISTS,
                        "there is another schedule '%s': give replace true to change it", args->id);
    if (!there && store_count(txn, TABLE_schedules) >= MOST_SCHEDULES)
        return err_of(ERR_QUOTA, "a company has at most 10000 schedules: remove some");
    err = there ? unlist(txn, args->id, &old) : err_ok();
    if (!err_is(err))
        err = save(txn, arena, args->id, &row);
    if (err_is(err))
        return err;
    look_after_commit(self, call, call_now_ms(call)); /* looks when it is due */
    return answer(call, args->id, &row, !there, reply);
}

static err_t schedule_list(agent_t *self, call_t *call, const schedule_list_args_t *args,
                           schedule_list_reply_t *reply)
{
    (void)self;
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value;
    arena_t *arena = call_arena(call);
    buf_t words;
    buf_open(&words, arena);
    err_t err = call_read(call, call_company(call), &txn);
    if (err.code == ERR_NOT_FOUND) {
        call_say_text(call, "No schedules.");
        return err_ok();
    }
    if (!err_is(err))
        err = store_scan_open(&scan, txn, TABLE_schedules, (bytes_t){0}, (bytes_t){0}, false);
    if (err_is(err))
        return err;
    reply->schedules.items =
        ARENA_ARRAY(arena, schedule_t, (size_t)store_count(txn, TABLE_schedules) + 1);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        schedule_row_t row;
        const char *id = arena_strndup(arena, (const char *)key.data, key.size);
        if (args->id && strcmp(args->id, id) != 0)
            continue;
        err = record_decode(&schedule_row_record, value, arena, "stored schedule", &row);
        reply->schedules.items[reply->schedules.count++] = show(id, &row);
        buf_printf(&words, "%s%s: %s, next %s", words.size ? "\n" : "", id,
                   row.cron ? row.cron : "every so often",
                   row.has_next_ms ? record_time_text(arena, row.next_ms) : "never");
    }
    store_scan_close(&scan);
    call_say_text(call, words.size ? words.data : "No schedules.");
    return err;
}

static err_t schedule_remove(agent_t *self, call_t *call, const schedule_remove_args_t *args,
                             schedule_remove_reply_t *reply)
{
    (void)self;
    store_txn_t *txn;
    schedule_row_t row;
    store_key_t key = id_key(args->id);
    err_t err = call_read(call, call_company(call), &txn); /* never makes a company */
    if (!err_is(err))
        err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = load(txn, call_arena(call), args->id, &row);
    if (err.code == ERR_NOT_FOUND)
        return err_make(call_arena(call), ERR_NOT_FOUND,
                        "there is no schedule '%s': see schedule_list", args->id);
    if (!err_is(err))
        err = unlist(txn, args->id, &row);
    if (!err_is(err))
        err = store_del(txn, TABLE_schedules, key_bytes(&key));
    reply->id = args->id;
    call_say(call, "Schedule '%s' is removed.", args->id);
    return err;
}

/* ---- reviews ------------------------------------------------------------------------------ */

static err_t want_review(agent_t *agent, call_t *call, const char *id, const char *cron,
                         const char *kind)
{
    store_txn_t *txn;
    schedule_row_t row, old;
    timing_t timing;
    arena_t *arena = call_arena(call);
    schedule_task_t *task = ARENA_NEW(arena, schedule_task_t);
    bool off = !strcmp(cron, "off");
    *task = (schedule_task_t){.kind = kind};
    row = (schedule_row_t){.cron = cron,
                           .timezone = agent->settings->review_timezone,
                           .catch_up = CATCH_UP_LAST,
                           .task = task,
                           .author = "hr",
                           .created_ms = call_now_ms(call)};
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = load(txn, arena, id, &old);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    bool there = !err_is(err);
    if (there ? !off && same(call, &row, &old) : off)
        return err_ok();
    err = there ? unlist(txn, id, &old) : err_ok();
    store_key_t key = id_key(id);
    if (off)
        return err_is(err) ? err : store_del(txn, TABLE_schedules, key_bytes(&key));
    if (!err_is(err))
        err = timing_of(agent, arena, &row, &timing);
    if (err.code == ERR_ARGUMENT) { /* a setting; the run that ends must not suffer */
        call_log(call, LOG_ERROR, "no review '%s': %s", id, err_what(err));
        return err_ok();
    }
    if (err_is(err))
        return err;
    row.has_next_ms = due_after(&timing, call_now_ms(call), &row.next_ms);
    look_after_commit(agent, call, call_now_ms(call));
    return save(txn, arena, id, &row);
}

err_t schedules_want_reviews(agent_t *agent, call_t *call)
{
    const agent_settings_t *settings = agent->settings;
    err_t err =
        want_review(agent, call, "hr-daily",
                    settings->review_daily ? settings->review_daily : "0 6 * * *", HR_DAILY);
    return err_is(err)
               ? err
               : want_review(agent, call, "hr-weekly",
                             settings->review_weekly ? settings->review_weekly : "0 7 * * MON",
                             HR_WEEKLY);
}

/* ---- life --------------------------------------------------------------------------------- */

err_t schedules_open(agent_t *agent, call_t *call)
{
    strs_t companies;
    err_t err = call_companies(call, &companies);
    if (err_is(err))
        return err;
    schedules_close(agent); /* an entry that is replayed */
    if (!(agent->schedules = calloc(1, sizeof(*agent->schedules))))
        abort();
    agent->schedules->actor = call_actor(call);
    for (size_t i = 0; i < companies.count; i++) /* due at once: so each is looked at */
        place_of(agent->schedules, companies.items[i])->next_ms = 1;
    if (companies.count)
        arm(agent->schedules, call_now_ms(call) + 1, call_now_ms(call));
    return err_ok();
}

void schedules_close(agent_t *agent)
{
    while (agent->schedules && agent->schedules->places) {
        place_t *place = agent->schedules->places;
        agent->schedules->places = place->next;
        free(place->company);
        free(place);
    }
    free(agent->schedules);
    agent->schedules = NULL;
}
