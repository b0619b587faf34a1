#include "actors/worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/worker/slot.h"
#include "actors/worker/tools.h"
#include "proto/mp.h"

enum {
    ANSWER_SLACK_MS = 5000,
    AGENT_MS = 30000,
    GIVE_MS = 5000,
    LEAVE_MS = 1000,
    LEAVE_TRIES = 2,
    TELL_MS = 1000
};

RECORD_DEFINE(worker_settings, worker_settings_FIELDS)
RECORD_DEFINE(variable, variable_FIELDS)
RECORD_DEFINE(perform, perform_FIELDS)

/* ---- Going for work ---- */

static err_t next_task(void *self, call_t *call, void *ctx);
static err_t next_step(void *self, call_t *call, void *ctx);

err_t slot_give_up(call_t *call, slot_t *slot, int64_t pause_ms)
{
    slot->busy = false;
    slot->performing = NULL;
    slot->lease++;
    call_work(call, pause_ms, next_task, slot);
    return err_ok();
}

typedef struct leased_task {
    const char *id, *company;
    int64_t fence;
} leased_task_t;

/* Only three members of the task are wanted here: they are picked out. */
static bool pick_task(call_t *call, bytes_t body, leased_task_t *task, int64_t *lease_ms)
{
    bytes_t tasks, first, id, company, fence, lease;
    if (!mp_get(body, "tasks", &tasks) || !mp_at(tasks, 0, &first) || !mp_get(first, "id", &id) ||
        !mp_get(first, "company", &company) || !mp_get(first, "fence", &fence) ||
        !mp_get(body, "lease_ms", &lease))
        return false;
    task->id = mp_text(call_arena(call), id);
    task->company = mp_text(call_arena(call), company);
    return task->id && task->company && mp_int(fence, &task->fence) && mp_int(lease, lease_ms);
}

static err_t extend(void *self, call_t *call, void *ctx);
static err_t give_back(call_t *call, slot_t *slot);

static err_t on_lease(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    worker_t *self = state;
    slot_t *slot = ctx;
    leased_task_t task;
    (void)reply;
    slot->asking = false;
    if (err_is(got->err))
        return slot_give_up(call, slot, self->settings->retry_ms);
    if (!pick_task(call, got->body, &task, &slot->lease_ms))
        return slot_give_up(call, slot, 0);
    slot->busy = true;
    slot->lease++;
    snprintf(slot->id, sizeof(slot->id), "%s", task.id);
    snprintf(slot->company, sizeof(slot->company), "%s", task.company);
    slot->fence = task.fence;
    if (actor_draining(self->actor))
        return give_back(call, slot);
    call_work(call, slot->lease_ms / 3, extend, slot);
    call_work(call, 0, next_step, slot);
    return err_ok();
}

static void put_strs(buf_t *out, const char *key, strs_t list)
{
    mp_put_str(out, key);
    mp_put_array(out, (uint32_t)list.count);
    for (size_t i = 0; i < list.count; i++)
        mp_put_str(out, list.items[i]);
}

static err_t next_task(void *state, call_t *call, void *ctx)
{
    worker_t *self = state;
    slot_t *slot = ctx;
    static const char *const kinds[] = {"sop"};
    if (slot->busy || actor_draining(self->actor))
        return err_ok();
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 5);
    mp_put_str(&args, "worker");
    mp_put_str(&args,
               arena_printf(call_arena(call), "%s/%d", actor_instance(self->actor), slot->number));
    mp_put_str(&args, "n");
    mp_put_int(&args, 1);
    mp_put_str(&args, "wait_ms");
    mp_put_int(&args, self->settings->wait_ms);
    put_strs(&args, "kinds", (strs_t){kinds, 1});
    put_strs(&args, "labels", self->settings->labels);
    peer_call_t request = {.peer = "agent",
                           .method = "task_lease",
                           .args = buf_bytes(&args),
                           .timeout_ms = self->settings->wait_ms + ANSWER_SLACK_MS};
    slot->asking = true;
    call_peer(call, &request, on_lease, slot);
    return call_park(call);
}

/* ---- Still alive ---- */

static void put_lease(buf_t *args, const slot_t *slot)
{
    mp_put_str(args, "company");
    mp_put_str(args, slot->company);
    mp_put_str(args, "id");
    mp_put_str(args, slot->id);
    mp_put_str(args, "fence");
    mp_put_int(args, slot->fence);
}

/* ---- Leaving ---- */

/* The task is somebody else's again at once. If nobody hears it, the lease ends by itself. */
static err_t on_given_back(void *state, call_t *call, void *reply, const peer_answer_t *got,
                           void *ctx)
{
    const worker_t *self = state;
    (void)reply;
    (void)got;
    return slot_give_up(call, ctx, self->settings->retry_ms);
}

static err_t give_back(call_t *call, slot_t *slot)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 3);
    put_lease(&args, slot);
    slot->performing = call; /* not drained before the agent knows */
    peer_call_t request = {
        .peer = "agent", .method = "task_release", .args = buf_bytes(&args), .timeout_ms = GIVE_MS};
    call_peer(call, &request, on_given_back, slot);
    return call_park(call);
}

static err_t on_told(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    worker_t *self = state;
    (void)reply;
    (void)ctx;
    if (!err_is(got->err))
        return err_ok();
    if (++self->untold == LEAVE_TRIES)
        call_log(call, LOG_WARN, "the agent does not answer: leaving without its word");
    self->leaving = false; /* told again when somebody asks whether we are done */
    return err_ok();
}

/* The agent ends our questions for work: after that no lease can come. */
static err_t tell_leaving(void *state, call_t *call, void *ctx)
{
    worker_t *self = state;
    (void)ctx;
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "worker");
    mp_put_str(&args, actor_instance(self->actor));
    peer_call_t request = {.peer = "agent",
                           .method = "task_lease_stop",
                           .args = buf_bytes(&args),
                           .timeout_ms = LEAVE_MS};
    call_peer(call, &request, on_told, NULL);
    return call_park(call);
}

typedef struct extension {
    slot_t *slot;
    uint64_t lease;
    bool once; /* a question between the regular signs of life */
} extension_t;

/* A lost lease ends the step at once: its script is killed, its requests are called off. */
static void drop_work(slot_t *slot)
{
    call_t *performing = slot->performing;
    slot->busy = false;
    slot->performing = NULL;
    slot->lease++;
    if (performing)
        actor_cancel(slot->worker->actor, performing);
    actor_work(slot->worker->actor, 0, next_task, slot);
}

static err_t on_extended(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const extension_t *extension = ctx;
    slot_t *slot = extension->slot;
    (void)self;
    (void)reply;
    if (!slot->busy || slot->lease != extension->lease)
        return err_ok();
    if (got->err.code == ERR_FENCED || got->err.code == ERR_NOT_FOUND)
        drop_work(slot);
    else if (!extension->once)
        call_work(call, slot->lease_ms / 3, extend, slot);
    return err_ok();
}

static err_t extend_lease(call_t *call, slot_t *slot, bool once)
{
    if (!slot->busy)
        return err_ok();
    extension_t *extension = ARENA_NEW(call_arena(call), extension_t);
    *extension = (extension_t){slot, slot->lease, once};
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 3);
    put_lease(&args, slot);
    peer_call_t request = {.peer = "agent",
                           .method = "task_extend",
                           .args = buf_bytes(&args),
                           .timeout_ms = slot->lease_ms / 3};
    call_peer(call, &request, on_extended, extension);
    return call_park(call);
}

static err_t extend(void *self, call_t *call, void *ctx)
{
    (void)self;
    return extend_lease(call, ctx, false);
}

static err_t extend_once(void *self, call_t *call, void *ctx)
{
    (void)self;
    return extend_lease(call, ctx, true);
}

/* Somebody called the task off, or set it aside: whether the lease is really lost the agent says.
 */
static err_t on_called_off(void *state, call_t *call, const char *topic, bytes_t body)
{
    worker_t *self = state;
    bytes_t id = mp_member(body, "id"), company = mp_member(body, "company");
    (void)topic;
    for (int i = 0; i < self->settings->slots; i++) {
        slot_t *slot = &self->slots[i];
        if (slot->busy && id.size && mp_equals(id, slot->id) && mp_equals(company, slot->company))
            call_work(call, 0, extend_once, slot);
    }
    return err_ok();
}

static const hear_t worker_hears[] = {{"agent", "task.cancelled", on_called_off},
                                      {"agent", "task.buried", on_called_off},
                                      {NULL, NULL, NULL}};

/* ---- Steps ---- */

void slot_ask(call_t *call, step_t *step, const char *method, int64_t index, uint32_t more_count,
              bytes_t more, answer_fn_t *fn, void *ctx)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 5 + more_count);
    put_lease(&args, step->slot);
    mp_put_str(&args, "step");
    mp_put_int(&args, step->perform.step);
    mp_put_str(&args, "index");
    mp_put_int(&args, index);
    buf_put(&args, more.data, more.size);
    peer_call_t request = {.peer = "agent",
                           .method = method,
                           .args = buf_bytes(&args),
                           .company = step->slot->company,
                           .timeout_ms = AGENT_MS};
    call_peer(call, &request, fn, ctx);
}

static bool passes(err_code_t code)
{
    return code == ERR_UNAVAILABLE || code == ERR_TIMEOUT || code == ERR_BUSY ||
           code == ERR_DRAINING || code == ERR_FULL || code == ERR_IO;
}

static err_t perform_now(call_t *call, step_t *step)
{
    const char *kind = step->perform.kind ? step->perform.kind : "";
    step->began_ms = call_now_ms(call);
    if (step_is_abroad(step))
        return step_abroad_perform(call, step);
    if (!strcmp(kind, "tool"))
        return step_tool_perform(call, step);
    if (!strcmp(kind, "sh"))
        return step_sh_perform(call, step);
    if (!strcmp(kind, "llm"))
        return step_llm_perform(call, step);
    return slot_step_error(call, step, "this worker does not know steps of this kind", false);
}

static err_t on_started(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    worker_t *self = state;
    step_t *step = ctx;
    (void)reply;
    /* Not on disk for sure: then it must not happen. Whoever leases next finds out. */
    if (err_is(got->err))
        return slot_give_up(call, step->slot, self->settings->retry_ms);
    return perform_now(call, step);
}

static err_t start_step(call_t *call, step_t *step)
{
    buf_t more;
    buf_open(&more, call_arena(call));
    const char *say = step->perform.simulate ? "reads" : step->repeatable ? "repeatable" : NULL;
    if (say) {
        mp_put_str(&more, say);
        mp_put_bool(&more, true);
    }
    slot_ask(call, step, "step_start", step->perform.index, say != NULL, buf_bytes(&more),
             on_started, step);
    return call_park(call);
}

static bool is_kind(const step_t *step, const char *kind)
{
    return step->perform.kind && !strcmp(step->perform.kind, kind);
}

/* What run_next and step_done answered. */
static err_t follow(call_t *call, slot_t *slot, bytes_t body)
{
    step_t *step = ARENA_NEW(call_arena(call), step_t);
    step->slot = slot;
    err_t err = record_decode(&perform_record, body, call_arena(call), "member", &step->perform);
    if (err_is(err)) {
        call_log(call, LOG_ERROR, "the agent's answer is not understood: %s", err_what(err));
        return slot_give_up(call, slot, slot->worker->settings->retry_ms);
    }
    if (strcmp(step->perform.action, "perform") != 0)
        return slot_give_up(call, slot, 0);
    if (actor_draining(slot->worker->actor))
        return give_back(call, slot);
    slot->performing = call;
    step->began_ms = call_now_ms(call);
    if (step->perform.simulate && is_kind(step, "tool"))
        return step_tool_simulate(call, step, start_step);
    if (step->perform.simulate && !is_kind(step, "llm"))
        return slot_step_refused(call, step, "it would change something");
    if (step_is_abroad(step))
        return step_abroad_look(call, step, start_step);
    return start_step(call, step);
}

static err_t on_next(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    worker_t *self = state;
    slot_t *slot = ctx;
    (void)reply;
    if (!err_is(got->err))
        return follow(call, slot, got->body);
    if (!passes(got->err.code))
        return slot_give_up(call, slot, 0);
    slot->performing = NULL;
    call_work(call, self->settings->retry_ms, next_step, slot);
    return err_ok();
}

static err_t next_step(void *self, call_t *call, void *ctx)
{
    slot_t *slot = ctx;
    (void)self;
    if (!slot->busy)
        return err_ok();
    slot->performing = call;
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 3);
    put_lease(&args, slot);
    peer_call_t request = {
        .peer = "agent", .method = "run_next", .args = buf_bytes(&args), .timeout_ms = AGENT_MS};
    call_peer(call, &request, on_next, slot);
    return call_park(call);
}

/* ---- Outcomes ---- */

typedef struct followed {
    slot_t *slot;
    uint64_t lease;
    uint8_t *body;
    size_t size;
} followed_t;

/* The next step begins in a call of its own, so that memory does not pile up over a long run. */
static err_t follow_fresh(void *self, call_t *call, void *ctx)
{
    followed_t *followed = ctx;
    (void)self;
    bytes_t body = {arena_copy(call_arena(call), followed->body, followed->size), followed->size};
    slot_t *slot = followed->slot;
    bool mine = slot->busy && slot->lease == followed->lease;
    free(followed->body);
    free(followed);
    return mine ? follow(call, slot, body) : err_ok();
}

static err_t on_done(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    worker_t *self = state;
    step_t *step = ctx;
    slot_t *slot = step->slot;
    (void)reply;
    slot->performing = NULL;
    /* The outcome may be on disk or not: the journal knows, and the next lease finds out. */
    if (err_is(got->err))
        return slot_give_up(call, slot, self->settings->retry_ms);
    followed_t *followed = calloc(1, sizeof(*followed));
    if (!followed || !(followed->body = malloc(got->body.size + 1)))
        abort();
    memcpy(followed->body, got->body.data, got->body.size);
    followed->size = got->body.size;
    followed->slot = slot;
    followed->lease = slot->lease;
    actor_work(self->actor, 0, follow_fresh, followed);
    return err_ok();
}

static err_t report(call_t *call, step_t *step, uint32_t pairs, buf_t *more)
{
    mp_put_str(more, "tokens");
    mp_put_int(more, step->tokens);
    mp_put_str(more, "duration_ms");
    mp_put_int(more, call_now_ms(call) - step->began_ms);
    slot_ask(call, step, "step_done", step->perform.index, pairs + 2, buf_bytes(more), on_done,
             step);
    return call_park(call);
}

err_t slot_step_ok(call_t *call, step_t *step, bytes_t result)
{
    buf_t more;
    buf_open(&more, call_arena(call));
    mp_put_str(&more, "outcome");
    mp_put_str(&more, "ok");
    mp_put_str(&more, "result");
    mp_put_raw(&more, result);
    return report(call, step, 2, &more);
}

static err_t report_error(call_t *call, step_t *step, const char *outcome, const char *error,
                          bool retryable)
{
    buf_t more;
    buf_open(&more, call_arena(call));
    mp_put_str(&more, "outcome");
    mp_put_str(&more, outcome);
    mp_put_str(&more, "error");
    mp_put_str(&more, error);
    mp_put_str(&more, "retryable");
    mp_put_bool(&more, retryable);
    return report(call, step, 3, &more);
}

err_t slot_step_error(call_t *call, step_t *step, const char *error, bool retryable)
{
    return report_error(call, step, "error", error, retryable);
}

err_t slot_step_unknown(call_t *call, step_t *step, const char *why)
{
    return report_error(call, step, "unknown", why, false);
}

static err_t on_progress_told(void *self, call_t *call, void *reply, const peer_answer_t *got,
                              void *ctx)
{
    (void)self;
    (void)reply;
    (void)got;
    (void)ctx;
    return call_park(call);
}

void slot_progress(call_t *call, step_t *step, bytes_t progress)
{
    buf_t args;
    if (call_now_ms(call) - step->told_ms < TELL_MS)
        return;
    step->told_ms = call_now_ms(call);
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 4);
    put_lease(&args, step->slot);
    mp_put_str(&args, "progress");
    mp_put_raw(&args, progress);
    peer_call_t request = {.peer = "agent",
                           .method = "task_progress",
                           .args = buf_bytes(&args),
                           .company = step->slot->company,
                           .timeout_ms = AGENT_MS};
    call_peer(call, &request, on_progress_told, NULL);
}

err_t slot_step_refused(call_t *call, step_t *step, const char *why)
{
    buf_t more;
    buf_open(&more, call_arena(call));
    mp_put_str(&more, "outcome");
    mp_put_str(&more, "refused");
    mp_put_str(&more, "error");
    mp_put_str(&more, why);
    return report(call, step, 2, &more);
}

/* ---- Life ---- */

static err_t worker_open(void *state, call_t *call)
{
    worker_t *self = state;
    self->actor = call_actor(call);
    self->tools = tools_new();
    self->slots = calloc((size_t)self->settings->slots, sizeof(slot_t));
    if (!self->slots)
        abort();
    for (int i = 0; i < self->settings->slots; i++) {
        self->slots[i] = (slot_t){.worker = self, .number = i + 1};
        call_work(call, 0, next_task, &self->slots[i]);
    }
    return err_ok();
}

static void worker_close(void *state)
{
    worker_t *self = state;
    tools_destroy(&self->tools);
    free(self->slots);
}

/* A step under way is finished and reported, the lease is given back, and the run goes on
 * elsewhere. True: no lease is held and none can come. */
static bool worker_drained(void *state)
{
    worker_t *self = state;
    bool asking = false, busy = false;
    for (int i = 0; i < self->settings->slots; i++) {
        busy |= self->slots[i].busy;
        asking |= self->slots[i].asking;
    }
    if (self->untold >= LEAVE_TRIES)
        return !busy; /* nobody who could give a lease is there; one on its way ends by itself */
    if (asking && !self->leaving && actor_draining(self->actor)) {
        self->leaving = true;
        actor_work(self->actor, 0, tell_leaving, NULL);
    }
    return !asking && !busy;
}

#define worker_slots_ARGS(F)
#define worker_slots_REPLY(F)                                                                      \
    F(INT, slots, must, 0, 0, "Runs at the same time.")                                            \
    F(INT, busy, must, 0, 0, "Of them at work.")
#define WORKER_METHODS(M) M(worker_t, worker_slots, READS | ANY_COMPANY, "How busy this worker is.")
METHODS(worker_methods, WORKER_METHODS)

static err_t worker_slots(worker_t *self, call_t *call, const worker_slots_args_t *args,
                          worker_slots_reply_t *reply)
{
    (void)call;
    (void)args;
    reply->slots = self->settings->slots;
    for (int i = 0; i < self->settings->slots; i++)
        reply->busy += self->slots[i].busy;
    return err_ok();
}

const actor_def_t worker_actor = {
    .name = "worker",
    .doc = "Hands that perform the steps of runs.",
    .size = sizeof(worker_t),
    .open = worker_open,
    .close = worker_close,
    .drained = worker_drained,
    .hears = worker_hears,
    .methods = worker_methods,
    .settings = &worker_settings_record,
};
