#include "actors/elastic/elastic.h"

#include <inttypes.h>
#include <string.h>

#include "proto/mp.h"

enum { DEMAND_MS = 2000, CHANGES_KEPT = 1000 };

RECORD_DEFINE(elastic_settings, elastic_settings_FIELDS)
RECORD_DEFINE(scale_change, scale_change_FIELDS)

/* ---- Tools ---- */

#define get_scaling_status_ARGS(F) COMPANY_ROW(F)
#define get_scaling_status_REPLY(F)                                                                \
    F(STR, status, must, 0, 0, "Running, or Holding while the demand is not known.")               \
    F(ENUM(scale_mode), mode, must, 0, 0, "Who makes the number true.")                            \
    F(INT, replicas, opt(), 0, 0,                                                                  \
      "Workers that take work, or will as soon as they are up; absent where others scale.")        \
    F(INT, desired_replicas, must, 0, 0, "Workers that there should be.")                          \
    F(INT, min_replicas, must, 0, 0, "Never fewer.")                                               \
    F(INT, max_replicas, must, 0, 0, "Never more.")                                                \
    F(BOOL, metric_known, must, 0, 0, "The agent said how much work there is.")                    \
    F(INT, queue_length, must, 0, 0, "Work when it was last known.")                               \
    F(REAL, oldest_ready_age_seconds, must, 0, 0, "How long the first in line waits.")             \
    F(INT, at_least, must, 0, 0, "Asked for by scale_agents or a demand rule; 0: nothing.")        \
    F(ENUM(decide_why), why, must, 0, 0, "What decided the number.")                               \
    F(BOOL, leads, must, 0, 0, "In mode direct: this one holds the Lease.")                        \
    F(STR, problem, opt(), 0, 0, "Why nothing is done, in mode direct.")                           \
    F(LIST(local_worker), workers, must, 0, 0, "The workers, in mode local.")

#define demand_rule_FIELDS(F)                                                                      \
    F(STR, metric, must, 0, 0, "What it looks at.")                                                \
    F(STR, agent_template, must, 0, 0, "worker, or the role of subagents.")                        \
    F(INT, count, must, 0, 0, "At least so many while it acts.")                                   \
    F(REAL, threshold, must, 0, 0, "Above this it acts.")                                          \
    F(REAL, value, opt(), 0, 0, "Last value; absent: never heard of.")                             \
    F(BOOL, acts, must, 0, 0, "It acts now.")
RECORD(demand_rule, demand_rule_FIELDS)

#define get_swarm_status_ARGS(F) COMPANY_ROW(F)
#define get_swarm_status_REPLY(F)                                                                  \
    F(INT, active_agents, must, 0, 0, "Workers that take work.")                                   \
    F(INT, busy, must, 0, 0, "Runs under way, as the workers last said.")                          \
    F(INT, draining, must, 0, 0, "Workers that finish what they hold and leave.")                  \
    F(LIST(local_worker), agents, must, 0, 0, "The workers, in mode local.")                       \
    F(LIST(demand_rule), rules, must, 0, 0, "The demand rules in force.")                          \
    F(STR, rules_error, opt(), 0, 0, "What is wrong with the file; the rules before it stay.")     \
    F(STR, swarm_problem, opt(), 0, 0, "Why the swarm does not do what a rule asks.")

#define scale_agents_ARGS(F)                                                                       \
    F(INT, count, must, 0, 1000, "At least so many workers; 0 takes an earlier wish back.")        \
    F(INT, for_ms, opt(600000), 1000, 604800000, "For so long.")                                   \
    COMPANY_ROW(F)
#define scale_agents_REPLY(F)                                                                      \
    F(INT, replicas, must, 0, 0, "Workers that take work now.")                                    \
    F(INT, at_least, must, 0, 0, "Workers that there will be at least, within max_replicas.")      \
    F(TIME, until, must, 0, 0, "When the wish ends.")

#define scale_policy_get_ARGS(F) COMPANY_ROW(F)
#define POLICY_ROW_MUST(F, type, name, def, smallest, largest, doc)                                \
    F(type, name, must, smallest, largest, doc)
#define scale_policy_get_REPLY(F)                                                                  \
    SCALE_POLICY_ROWS(POLICY_ROW_MUST, F)                                                          \
    F(BOOL, from_settings, must, 0, 0, "Nobody has changed it with scale_policy_set.")

#define POLICY_ROW_OPT(F, type, name, def, smallest, largest, doc)                                 \
    F(type, name, opt(), smallest, largest, doc)
#define scale_policy_set_ARGS(F)                                                                   \
    SCALE_POLICY_ROWS(POLICY_ROW_OPT, F)                                                           \
    F(BOOL, reset, opt(false), 0, 0, "First go back to the settings.")                             \
    COMPANY_ROW(F)
#define scale_policy_set_REPLY(F) scale_policy_get_REPLY(F)

#define scale_explain_ARGS(F)                                                                      \
    F(INT, limit, opt(20), 0, 1000, "Changes to show, newest first.")                              \
    COMPANY_ROW(F)
#define scale_explain_REPLY(F)                                                                     \
    F(INT, current, must, 0, 0, "Workers that took work at the last look.")                        \
    F(INT, by_queue, must, 0, 0, "What the work calls for.")                                       \
    F(INT, by_age, must, 0, 0, "What the waiting of the oldest calls for; 0: nothing.")            \
    F(INT, at_least, must, 0, 0, "What was asked for by hand or by a rule; 0: nothing.")           \
    F(INT, proposed, must, 0, 0, "The largest of these.")                                          \
    F(INT, stabilized, must, 0, 0, "After looking back over the stabilization windows.")           \
    F(INT, desired, must, 0, 0, "Within the rates, min and max: what it does.")                    \
    F(ENUM(decide_why), why, must, 0, 0, "What decided the number.")                               \
    F(LIST(scale_change), changes, must, 0, 0, "What was changed, newest first.")

#define ELASTIC_METHODS(M)                                                                         \
    M(elastic_t, get_scaling_status, TOOL | READS | BRIEF, "How many workers there are, and why.") \
    M(elastic_t, get_swarm_status, TOOL | READS | BRIEF, "The workers and how busy they are.")     \
    M(elastic_t, scale_agents, TOOL | WRITES | ADMIN | IDEMPOTENT,                                 \
      "Ask for at least so many workers for a while; demand may raise it further.")                \
    M(elastic_t, scale_policy_get, TOOL | READS | BRIEF,                                           \
      "The policy by which workers are scaled.")                                                   \
    M(elastic_t, scale_policy_set, TOOL | WRITES | ADMIN | IDEMPOTENT,                             \
      "Change parts of the policy; it outlives a restart.")                                        \
    M(elastic_t, scale_explain, TOOL | READS, "The last decision step by step, and the changes.")
METHODS(elastic_methods, ELASTIC_METHODS)

/* ---- What is kept ---- */

static const store_table_t elastic_tables[] = {{"memory"}, {"changes"}, {"subagents"}, {NULL}};

static bytes_t policy_key(void)
{
    return (bytes_t){(const uint8_t *)"policy", 6};
}

static bytes_t asked_key(void)
{
    return (bytes_t){(const uint8_t *)"asked", 5};
}

static void policy_of_settings(const elastic_settings_t *settings, scale_policy_t *out)
{
#define COPY_POLICY_ROW(F, type, name, def, smallest, largest, doc)                                \
    out->name = settings->name;                                                                    \
    out->has_##name = true;
    *out = (scale_policy_t){0};
    SCALE_POLICY_ROWS(COPY_POLICY_ROW, )
#undef COPY_POLICY_ROW
}

static void load_asked(elastic_t *self, bytes_t value)
{
    bytes_t field;
    if (mp_get(value, "count", &field))
        mp_int(field, &self->asked.count);
    if (mp_get(value, "until", &field))
        mp_int(field, &self->asked.until_ms);
}

static err_t load(elastic_t *self, call_t *call)
{
    store_txn_t *txn;
    bytes_t value;
    policy_of_settings(self->settings, &self->policy);
    err_t err = call_read(call, actor_default_company(self->actor), &txn);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (err_is(err))
        return err;
    if (!err_is(store_get(txn, TABLE_MEMORY, asked_key(), &value)))
        load_asked(self, value);
    if (err_is(store_get(txn, TABLE_MEMORY, policy_key(), &value)))
        return err_ok();
    err = record_decode(&scale_policy_record, value, call_arena(call), "policy", &self->policy);
    self->policy_is_set = !err_is(err);
    return err;
}

static err_t trim_changes(store_txn_t *txn)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    int64_t many = store_count(txn, TABLE_CHANGES) - CHANGES_KEPT;
    if (many <= 0)
        return err_ok();
    err_t err = store_scan_open(&scan, txn, TABLE_CHANGES, none, none, false);
    for (; many > 0 && !err_is(err) && store_scan_next(&scan, &key, &value); many--)
        err = store_scan_del(&scan);
    store_scan_close(&scan);
    return err;
}

static err_t put_change(call_t *call, store_txn_t *txn, const scale_change_t *change)
{
    store_key_t key;
    buf_t out;
    buf_open(&out, call_arena(call));
    record_encode(&scale_change_record, change, &out);
    key_open(&key);
    key_i64(&key, change->at);
    return store_put(txn, TABLE_CHANGES, key_bytes(&key), buf_bytes(&out));
}

/* Several of a batch may have kept the same ones. */
static void forget_kept(void *state, void *ctx)
{
    elastic_t *self = state;
    int64_t kept = *(const int64_t *)ctx - self->unkept_first;
    if (kept <= 0)
        return;
    int count = kept < self->unkept_count ? (int)kept : self->unkept_count;
    self->unkept_first += count;
    self->unkept_count -= count;
    memmove(self->unkept, self->unkept + count, (size_t)self->unkept_count * sizeof(*self->unkept));
}

/* Where the disk is full this fails, and is run again until it is not. */
static err_t keep_changes(void *state, call_t *call, void *ctx)
{
    elastic_t *self = state;
    store_txn_t *txn;
    int64_t *until = ARENA_NEW(call_arena(call), int64_t);
    (void)ctx;
    if (!self->unkept_count)
        return err_ok();
    err_t err = call_write(call, actor_default_company(self->actor), &txn);
    for (int i = 0; i < self->unkept_count && !err_is(err); i++)
        err = put_change(call, txn, &self->unkept[i]);
    *until = self->unkept_first + self->unkept_count;
    call_after_commit(call, forget_kept, until);
    return err_is(err) ? err : trim_changes(txn);
}

/* ---- The loop: look, decide, make it true ---- */

static int64_t replicas(const elastic_t *self)
{
    return self->local ? local_count(self->local) : self->direct ? direct_count(self->direct) : 0;
}

/* Is the number ours to change? */
static bool scales(const elastic_t *self)
{
    return self->local || self->direct;
}

static int64_t asked_for(const elastic_t *self, int64_t now_ms)
{
    return self->asked.until_ms > now_ms ? self->asked.count : 0;
}

/* By hand or by a rule, whoever wants more. */
static int64_t at_least(const elastic_t *self, int64_t now_ms)
{
    int64_t by_hand = asked_for(self, now_ms), by_rule = rules_floor(self->rules);
    return by_hand > by_rule ? by_hand : by_rule;
}

void elastic_note_change(elastic_t *self, call_t *call, int64_t from, int64_t to)
{
    scale_change_t change = {.at = call_now_ms(call),
                             .from = from,
                             .to = to,
                             .why = (int)self->last.why,
                             .queue_length = self->seen.queue_length};
    call_publish(call, "scale.change", &scale_change_record, &change);
    self->changed++;
    if (self->unkept_count == UNKEPT_CHANGES) {
        call_log(call, LOG_WARN, "a change of the number of workers is not kept");
        self->unkept_count--;
    }
    self->unkept[self->unkept_count++] = change;
    call_work(call, 0, keep_changes, NULL);
    call_log(call, LOG_INFO,
             "workers %" PRId64 " -> %" PRId64 " (%s; queue_length %" PRId64 ", oldest %" PRId64
             " ms)",
             from, change.to, decide_why_names[change.why], change.queue_length,
             self->seen.oldest_age_ms);
}

void elastic_decide(elastic_t *self, call_t *call, int64_t current)
{
    self->seen.current = current;
    self->seen.now_ms = actor_mono_us(self->actor) / 1000;
    self->seen.floor = at_least(self, call_now_ms(call));
    decide(&self->policy, &self->seen, &self->history, &self->last);
    self->decided = true;
}

static err_t act(elastic_t *self, call_t *call)
{
    int64_t from = replicas(self);
    elastic_decide(self, call, from);
    int64_t to = self->last.desired < LOCAL_MOST ? self->last.desired : LOCAL_MOST;
    if (to == from)
        return err_ok();
    err_t err = local_scale(self, call, to);
    if (err_is(err))
        return err;
    decide_scaled(&self->history, self->seen.now_ms, replicas(self) - from);
    elastic_note_change(self, call, from, to);
    return err_ok();
}

static bool read_demand(elastic_t *self, bytes_t body)
{
    bytes_t length, age;
    double seconds;
    if (!mp_get(body, "queue_length", &length) || !mp_int(length, &self->seen.queue_length) ||
        !mp_get(body, "oldest_ready_age_seconds", &age) || !mp_real(age, &seconds))
        return false;
    self->seen.oldest_age_ms = (int64_t)(seconds * 1000);
    if (mp_get(body, "desired_replicas", &age))
        mp_int(age, &self->told);
    return true;
}

enum { RULES_MS = 1000 };

static void follow_rules(elastic_t *self, call_t *call, bytes_t demand)
{
    static const char *const known[] = {"queue_length", "ready", "leased", "due_soon",
                                        "oldest_ready_age_seconds"};
    int64_t mono = actor_mono_us(self->actor) / 1000, now = call_now_ms(call);
    bytes_t field;
    double value;
    if (!self->rules_ms || mono - self->rules_ms >= RULES_MS) {
        const char *before = rules_error(self->rules);
        before = arena_strdup(call_arena(call), before ? before : "");
        rules_look(self->rules, now);
        const char *after = rules_error(self->rules);
        if (after && strcmp(before, after) != 0)
            call_log(call, LOG_ERROR, "the demand rules stay as they were: %s", after);
        self->rules_ms = mono;
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (mp_get(demand, known[i], &field) && mp_real(field, &value))
            rules_tell(self->rules, known[i], value, now);
    rules_judge(self->rules, now);
}

enum { STEADY_LOOK_MS = 1000, IDLE_LOOK_MS = 5000 };

static err_t look(void *state, call_t *call, void *ctx);

static err_t on_demand(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    elastic_t *self = state;
    (void)reply;
    (void)ctx;
    bool known = !err_is(got->err) && read_demand(self, got->body);
    if (known != self->seen.has_metric)
        call_log(call, known ? LOG_INFO : LOG_WARN, "%s",
                 known ? "the demand is known" : "the demand is not known: nothing is scaled in");
    self->seen.has_metric = known;
    follow_rules(self, call, known ? got->body : (bytes_t){0});
    err_t err = self->local ? act(self, call) : err_ok();
    if (err_is(err))
        call_log(call, LOG_ERROR, "cannot scale: %s", err_what(err));
    if (self->local)
        local_tend(self, call);
    call_work(call, self->settings->poll_ms, look, NULL);
    return err_ok();
}

/* How long the agent may keep its answer while the demand stays as it was seen: whatever else is
 * decided by (age, windows, rules) moves no faster than this. */
static int64_t patience_ms(const elastic_t *self)
{
    if (!self->local || !self->decided || !self->seen.has_metric || !local_calm(self->local))
        return 0;
    bool idle = !self->seen.queue_length && replicas(self) == self->policy.min_replicas &&
                self->last.desired == self->policy.min_replicas;
    return idle ? IDLE_LOOK_MS : STEADY_LOOK_MS;
}

static err_t look(void *state, call_t *call, void *ctx)
{
    elastic_t *self = state;
    (void)ctx;
    if (actor_draining(self->actor))
        return err_ok();
    int64_t wait_ms = patience_ms(self);
    buf_t args;
    buf_open(&args, call_arena(call));
    /* The policy goes with the question, so that GET /api/v1/scale counts by it too. */
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {{"unlike", self->seen.queue_length},
                {"wait_ms", wait_ms},
                {"target_per_replica", self->policy.target_per_replica},
                {"min_replicas", self->policy.min_replicas},
                {"max_replicas", self->policy.max_replicas}};
    mp_put_map(&args, sizeof(rows) / sizeof(*rows));
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        mp_put_str(&args, rows[i].name);
        mp_put_int(&args, rows[i].value);
    }
    peer_call_t request = {.peer = "agent",
                           .method = "scale",
                           .args = buf_bytes(&args),
                           .timeout_ms = wait_ms + DEMAND_MS};
    call_peer(call, &request, on_demand, NULL);
    return call_park(call);
}

/* ---- The tools' functions ---- */

static local_worker_list_t workers(const elastic_t *self, call_t *call)
{
    return self->local ? local_list(self->local, call_arena(call)) : (local_worker_list_t){0};
}

static err_t get_scaling_status(elastic_t *self, call_t *call,
                                const get_scaling_status_args_t *args,
                                get_scaling_status_reply_t *reply)
{
    (void)args;
    int64_t now = replicas(self);
    *reply = (get_scaling_status_reply_t){
        .status = self->seen.has_metric ? "Running" : "Holding",
        .mode = self->settings->mode,
        .replicas = now,
        .has_replicas = scales(self),
        .desired_replicas = self->decided  ? self->last.desired
                            : scales(self) ? now
                                           : self->told,
        .min_replicas = self->policy.min_replicas,
        .max_replicas = self->policy.max_replicas,
        .metric_known = self->seen.has_metric,
        .queue_length = self->seen.queue_length,
        .oldest_ready_age_seconds = (double)self->seen.oldest_age_ms / 1000,
        .at_least = at_least(self, call_now_ms(call)),
        .why = (int)self->last.why,
        .leads = self->direct && direct_leads(self->direct),
        .problem = self->direct ? direct_problem(self->direct) : NULL,
        .workers = workers(self, call)};
    if (!scales(self))
        call_say(call,
                 "%s: in mode %s others scale; the queue of %" PRId64 " calls for %" PRId64
                 " workers.",
                 reply->status, scale_mode_names[reply->mode], reply->queue_length,
                 reply->desired_replicas);
    else
        call_say(call,
                 "%s: %" PRId64 " workers, %" PRId64 " desired (%s), queue_length %" PRId64
                 ", mode %s%s%s.",
                 reply->status, now, reply->desired_replicas, decide_why_names[reply->why],
                 reply->queue_length, scale_mode_names[reply->mode], reply->problem ? ": " : "",
                 reply->problem ? reply->problem : "");
    return err_ok();
}

static void show_rules(const elastic_t *self, call_t *call, get_swarm_status_reply_t *reply)
{
    reply->rules.count = rules_count(self->rules);
    reply->rules.items = ARENA_ARRAY(call_arena(call), demand_rule_t, reply->rules.count + 1);
    for (size_t i = 0; i < reply->rules.count; i++) {
        rule_state_t state = rules_state(self->rules, i);
        reply->rules.items[i] = (demand_rule_t){
            .metric = arena_strdup(call_arena(call), state.rule->metric),
            .agent_template = arena_strdup(call_arena(call), state.rule->agent_template),
            .count = state.rule->count,
            .threshold = state.rule->threshold,
            .value = state.value,
            .has_value = state.known,
            .acts = state.acts};
    }
    reply->rules_error = rules_error(self->rules);
    reply->swarm_problem = *self->swarm_problem ? self->swarm_problem : NULL;
}

static err_t get_swarm_status(elastic_t *self, call_t *call, const get_swarm_status_args_t *args,
                              get_swarm_status_reply_t *reply)
{
    (void)args;
    reply->agents = workers(self, call);
    for (size_t i = 0; i < reply->agents.count; i++) {
        const local_worker_t *worker = &reply->agents.items[i];
        bool draining = !strcmp(worker->state, "draining");
        reply->draining += draining;
        reply->active_agents += !draining;
        reply->busy += worker->busy;
    }
    if (!self->local)
        reply->active_agents = replicas(self);
    show_rules(self, call, reply);
    call_say(call,
             "%" PRId64 " workers, %" PRId64 " runs under way, %" PRId64 " draining; %zu rules.",
             reply->active_agents, reply->busy, reply->draining, reply->rules.count);
    return err_ok();
}

static void remember_asked(void *state, void *ctx)
{
    elastic_t *self = state;
    self->asked = *(const asked_t *)ctx;
}

static err_t scale_agents(elastic_t *self, call_t *call, const scale_agents_args_t *args,
                          scale_agents_reply_t *reply)
{
    store_txn_t *txn;
    buf_t out;
    if (!scales(self))
        return err_make(call_arena(call), ERR_STATE,
                        "in mode %s the number is not elastic's to change; set elastic.mode",
                        scale_mode_names[self->settings->mode]);
    if (args->count > self->policy.max_replicas)
        return err_make(call_arena(call), ERR_ARGUMENT,
                        "count %" PRId64 " is more than max_replicas %" PRId64
                        "; raise that with scale_policy_set first",
                        args->count, self->policy.max_replicas);
    asked_t *asked = ARENA_NEW(call_arena(call), asked_t);
    *asked = (asked_t){args->count, call_now_ms(call) + args->for_ms};
    buf_open(&out, call_arena(call));
    mp_put_map(&out, 2);
    mp_put_str(&out, "count");
    mp_put_int(&out, asked->count);
    mp_put_str(&out, "until");
    mp_put_int(&out, asked->until_ms);
    err_t err = call_write(call, actor_default_company(self->actor), &txn);
    if (!err_is(err))
        err = store_put(txn, TABLE_MEMORY, asked_key(), buf_bytes(&out));
    if (err_is(err))
        return err;
    call_after_commit(call, remember_asked, asked);
    *reply = (scale_agents_reply_t){
        .replicas = replicas(self), .at_least = asked->count, .until = asked->until_ms};
    if (!asked->count)
        call_say(call, "Nothing is asked for by hand any more; workers now: %" PRId64 ".",
                 reply->replicas);
    else
        call_say(call, "At least %" PRId64 " workers until %s; now there are %" PRId64 ".",
                 asked->count, record_time_text(call_arena(call), asked->until_ms),
                 reply->replicas);
    return err_ok();
}

/* ---- Policy ---- */

static void show_policy(const scale_policy_t *policy, bool is_set, scale_policy_get_reply_t *reply)
{
#define SHOW_POLICY_ROW(F, type, name, def, smallest, largest, doc) reply->name = policy->name;
    SCALE_POLICY_ROWS(SHOW_POLICY_ROW, )
#undef SHOW_POLICY_ROW
    reply->from_settings = !is_set;
}

static err_t scale_policy_get(elastic_t *self, call_t *call, const scale_policy_get_args_t *args,
                              scale_policy_get_reply_t *reply)
{
    (void)call;
    (void)args;
    show_policy(&self->policy, self->policy_is_set, reply);
    return err_ok();
}

typedef struct new_policy {
    scale_policy_t policy;
    bool is_set;
} new_policy_t;

static void remember_policy(void *state, void *ctx)
{
    elastic_t *self = state;
    const new_policy_t *new = ctx;
    self->policy = new->policy;
    self->policy_is_set = new->is_set;
}

static err_t write_policy(elastic_t *self, call_t *call, const new_policy_t *new)
{
    store_txn_t *txn;
    buf_t out;
    err_t err = call_write(call, actor_default_company(self->actor), &txn);
    if (err_is(err))
        return err;
    if (!new->is_set) {
        err = store_del(txn, TABLE_MEMORY, policy_key());
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    }
    buf_open(&out, call_arena(call));
    record_encode(&scale_policy_record, &new->policy, &out);
    return store_put(txn, TABLE_MEMORY, policy_key(), buf_bytes(&out));
}

static err_t scale_policy_set(elastic_t *self, call_t *call, const scale_policy_set_args_t *args,
                              scale_policy_set_reply_t *reply)
{
    new_policy_t *new = ARENA_NEW(call_arena(call), new_policy_t);
    new->policy = self->policy;
    new->is_set = self->policy_is_set && !args->reset;
    if (args->reset)
        policy_of_settings(self->settings, &new->policy);
#define SET_POLICY_ROW(F, type, name, def, smallest, largest, doc)                                 \
    if (args->has_##name) {                                                                        \
        new->policy.name = args->name;                                                             \
        new->is_set = true;                                                                        \
    }
    SCALE_POLICY_ROWS(SET_POLICY_ROW, )
#undef SET_POLICY_ROW
    err_t err = decide_check(&new->policy, call_arena(call));
    if (!err_is(err))
        err = write_policy(self, call, new);
    if (err_is(err))
        return err;
    call_after_commit(call, remember_policy, new);
    scale_policy_get_reply_t shown = {0};
    show_policy(&new->policy, new->is_set, &shown);
#define REPLY_POLICY_ROW(F, type, name, def, smallest, largest, doc) reply->name = shown.name;
    SCALE_POLICY_ROWS(REPLY_POLICY_ROW, )
#undef REPLY_POLICY_ROW
    reply->from_settings = shown.from_settings;
    return err_ok();
}

static err_t list_changes(elastic_t *self, call_t *call, int64_t limit, scale_change_list_t *out)
{
    store_txn_t *txn;
    store_scan_t scan;
    bytes_t key, value, none = {0};
    out->items = ARENA_ARRAY(call_arena(call), scale_change_t, (size_t)limit + 1);
    err_t err = call_read(call, actor_default_company(self->actor), &txn);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    err = store_scan_open(&scan, txn, TABLE_CHANGES, none, none, true);
    while (!err_is(err) && out->count < (size_t)limit && store_scan_next(&scan, &key, &value)) {
        err = record_decode(&scale_change_record, value, call_arena(call), "change",
                            &out->items[out->count]);
        out->count += !err_is(err);
    }
    store_scan_close(&scan);
    return err;
}

static err_t scale_explain(elastic_t *self, call_t *call, const scale_explain_args_t *args,
                           scale_explain_reply_t *reply)
{
    const decision_t *last = &self->last;
    if (!scales(self))
        return err_make(call_arena(call), ERR_STATE,
                        "in mode %s elastic decides nothing; the queue calls for %" PRId64
                        " workers",
                        scale_mode_names[self->settings->mode], self->told);
    if (!self->decided)
        return err_of(ERR_UNAVAILABLE, "nothing is decided yet: the first look is under way");
    *reply = (scale_explain_reply_t){.current = self->seen.current,
                                     .by_queue = last->by_queue,
                                     .by_age = last->by_age,
                                     .at_least = self->seen.floor,
                                     .proposed = last->proposed,
                                     .stabilized = last->stabilized,
                                     .desired = last->desired,
                                     .why = (int)last->why};
    call_say(call,
             "%" PRId64 " workers; the queue of %" PRId64 " calls for %" PRId64
             ", the oldest (%.1f s) for %" PRId64 ", by hand or rule %" PRId64 "; proposed %" PRId64
             ", stabilized %" PRId64 ", so %" PRId64 " (%s).",
             reply->current, self->seen.queue_length, last->by_queue,
             (double)self->seen.oldest_age_ms / 1000, last->by_age, self->seen.floor,
             last->proposed, last->stabilized, last->desired, decide_why_names[last->why]);
    return list_changes(self, call, args->limit, &reply->changes);
}

/* ---- Life ---- */

static void open_rules(elastic_t *self, call_t *call)
{
    const char *data = actor_data_dir(self->actor), *file = self->settings->rules_file;
    arena_t *arena = call_arena(call);
    self->rules = rules_new(file ? file : arena_printf(arena, "%s/elastic_rules.json", data),
                            arena_printf(arena, "%s/metrics", data));
}

static err_t elastic_open(void *state, call_t *call)
{
    elastic_t *self = state;
    self->actor = call_actor(call);
    self->seen.has_metric = true; /* so that its first absence is told */
    err_t err = load(self, call);
    if (!err_is(err))
        err = decide_check(&self->policy, call_arena(call));
    open_rules(self, call);
    if (!err_is(err) && self->settings->mode == MODE_LOCAL)
        err = local_open(self, call);
    if (!err_is(err) && self->settings->mode == MODE_DIRECT)
        err = direct_open(self, call);
    if (err_is(err))
        return err;
    call_work(call, 0, look, NULL);
    subagents_open(self, call);
    return err_ok();
}

static void elastic_close(void *state)
{
    elastic_t *self = state;
    rules_destroy(&self->rules);
    local_destroy(&self->local);
    direct_destroy(&self->direct);
}

static void elastic_measure(void *state, call_t *call, metrics_t *out)
{
    const elastic_t *self = state;
    if (scales(self)) {
        metrics_gauge(out, "agency_scale_replicas",
                      "Workers that take work, or will when they are up.", (double)replicas(self));
        metrics_gauge(out, "agency_scale_desired_replicas", "Workers that there should be.",
                      (double)(self->decided ? self->last.desired : replicas(self)));
        metrics_gauge(out, "agency_scale_floor_replicas",
                      "Workers asked for by hand or by a demand rule.",
                      (double)at_least(self, call_now_ms(call)));
    }
    metrics_gauge(out, "agency_scale_min_replicas", "Never fewer workers.",
                  (double)self->policy.min_replicas);
    metrics_gauge(out, "agency_scale_max_replicas", "Never more workers.",
                  (double)self->policy.max_replicas);
    metrics_gauge(out, "agency_scale_metric_known", "1: the agent says how much work there is.",
                  self->seen.has_metric);
    metrics_gauge(out, "agency_scale_demand_rules", "Demand rules in force.",
                  (double)rules_count(self->rules));
    metrics_counter(out, "agency_scale_changes", "Changes of the number of workers.",
                    (double)self->changed);
}

const actor_def_t elastic_actor = {
    .name = "elastic",
    .doc = "As many workers as the work needs, and none ended that holds some.",
    .size = sizeof(elastic_t),
    .open = elastic_open,
    .close = elastic_close,
    .methods = elastic_methods,
    .settings = &elastic_settings_record,
    .tables = elastic_tables,
    .format = 1,
    .measure = elastic_measure,
};
