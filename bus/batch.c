/* The batch: entries run in one transaction for each company touched, one commit makes them
 * durable, and only then does what they made leave. Reads go on meanwhile. */
#include <string.h>

#include "bus/bug.h"
#include "bus/inside.h"

enum { RETRY_WORK_MS = 1000 };
/* So long after a read others are expected, for which the thread is kept free of syncs. */
enum { ASIDE_US = 1000000 };

/* ---- Transactions ---- */

batch_txn_t *inside_batch_txn(actor_t *actor, const char *company)
{
    for (batch_txn_t *txn = actor->txns; txn; txn = txn->next)
        if (!strcmp(txn->company, company))
            return txn;
    batch_txn_t *txn = ARENA_NEW(actor->batch_arena, batch_txn_t);
    txn->company = arena_strdup(actor->batch_arena, company);
    txn->next = actor->txns;
    actor->txns = txn;
    return txn;
}

void inside_store_error(actor_t *actor, const char *company, err_t err)
{
    if (err.code != ERR_FULL || actor->wants_growth || !company)
        return;
    if (!store_wants_growth(actor->pool, company))
        return;
    actor->wants_growth = true;
    actor->growth_company = arena_strdup(actor->batch_arena, company);
}

static void close_snapshots(actor_t *actor)
{
    for (batch_txn_t *txn = actor->txns; txn; txn = txn->next)
        if (txn->snapshot)
            store_abort(&txn->snapshot);
}

static void abort_batch(actor_t *actor)
{
    for (batch_txn_t *txn = actor->txns; txn; txn = txn->next)
        if (txn->txn)
            store_abort(&txn->txn);
    close_snapshots(actor);
    actor->txns = NULL;
}

static void fatal(actor_t *actor, err_t err)
{
    actor->failed = true;
    actor->env->ops->fatal(actor->env, err);
}

/* ---- Release: what was held back until the commit ---- */

static void release_output(call_t *call, const output_t *output)
{
    actor_t *actor = call->actor;
    const actor_env_ops_t *ops = actor->env->ops;
    switch (output->kind) {
    case OUTPUT_REPLY:
        inside_reply(call, err_ok(), output->topic, output->body);
        break;
    case OUTPUT_PROGRESS:
        if (!call->internal)
            inside_send(call, FRAME_PROGRESS, err_ok(), output->topic, output->body);
        break;
    case OUTPUT_PEER:
        inside_peer_send(call, output);
        break;
    case OUTPUT_CHILD: {
        operation_t *operation = inside_operation(call, OPERATION_CHILD, output->ctx);
        operation->fn.child = output->fn.child;
        ops->child_start(actor->env, operation->token, output->with.child);
        break;
    }
    case OUTPUT_HTTP: {
        operation_t *operation = inside_operation(call, OPERATION_HTTP, output->ctx);
        operation->fn.http = output->fn.http;
        ops->http_start(actor->env, operation->token, output->with.http);
        break;
    }
    case OUTPUT_EVENT:
        ops->publish(actor->env, output->topic, output->header, output->body);
        break;
    case OUTPUT_RESUME:
        if (output->target->state == CALL_PARKED) {
            entry_t *entry = inside_entry(output->target, ENTRY_RESUME, output->ctx);
            entry->fn.resume = output->fn.resume;
            inside_queue(actor, entry);
        }
        break;
    case OUTPUT_RESUME_AFTER: {
        timer_t_ *timer = inside_timer(actor, output->delay_ms, call);
        timer->resume = output->fn.resume;
        timer->ctx = output->ctx;
        break;
    }
    case OUTPUT_READ:
        call->read_fn = output->fn.resume;
        call->read_ctx = output->ctx;
        call->moved = false;
        inside_read_start(call);
        break;
    case OUTPUT_WORK:
        actor_work(actor, output->delay_ms, output->fn.work, output->ctx);
        break;
    case OUTPUT_AFTER_COMMIT:
        output->fn.after(actor->self, output->ctx);
        break;
    }
}

static void unref_targets(entry_t *entry)
{
    for (output_t *output = entry->outputs; output; output = output->next)
        if (output->kind == OUTPUT_RESUME)
            inside_call_unref(output->target);
}

static void retry_work(call_t *call)
{
    if (call->internal && call->work)
        actor_work(call->actor, RETRY_WORK_MS, call->work, call->work_ctx);
}

static void release_entry(entry_t *entry)
{
    call_t *call = entry->call;
    entry->released = true;
    inside_audit_release(entry);
    bool failed = err_is(entry->result) && entry->result.code != ERR_PARKED;
    if (!failed)
        for (output_t *output = entry->outputs; output; output = output->next)
            release_output(call, output);
    unref_targets(entry);
    if (failed) {
        inside_call_gone(call);
        inside_reply(call, entry->result, NULL, (bytes_t){0});
        retry_work(call);
    }
    if (entry->ended)
        inside_call_end(call);
}

static bool touches(const entry_t *entry, const batch_txn_t *txn)
{
    for (const touch_t *touch = entry->touches; touch; touch = touch->next)
        if (touch->of == txn)
            return true;
    return false;
}

/* What touched this company is released, or fails, with its commit. */
static void settle(entry_t *batch, const batch_txn_t *txn, err_t err)
{
    for (entry_t *entry = batch; entry; entry = entry->next) {
        if (entry->released || !touches(entry, txn))
            continue;
        if (err_is(err) && !(err_is(entry->result) && entry->result.code != ERR_PARKED)) {
            entry->result = err;
            entry->ended = true;
        }
        if (--entry->waits == 0)
            release_entry(entry);
    }
}

static int count_touches(const entry_t *entry)
{
    int count = 0;
    for (const touch_t *touch = entry->touches; touch; touch = touch->next)
        count++;
    return count;
}

/* After an aborted batch: what was released stays done, the rest begins again from the start. */
static entry_t *rewind_batch(entry_t *batch)
{
    entry_t *left = NULL, **end = &left;
    for (entry_t *entry = batch, *next; entry; entry = next) {
        next = entry->next;
        if (entry->released) {
            inside_call_unref(entry->call);
            continue;
        }
        unref_targets(entry);
        entry->outputs = NULL;
        if (entry->call->state == CALL_RUNNING || entry->call->state == CALL_PARKED)
            entry->call->state = CALL_WAITING;
        entry->next = NULL;
        *end = entry;
        end = &entry->next;
    }
    return left;
}

/* A commit needs pages of its own, so the map may turn out too small only now. What touched just
 * this company begins again on a larger map, before anything that came later. */
static void begin_again(actor_t *actor, entry_t **batch, const batch_txn_t *txn)
{
    entry_t *again = NULL, **end = &again;

    if (!store_wants_growth(actor->pool, txn->company) ||
        err_is(store_grow(actor->pool, txn->company)))
        return;
    for (entry_t **at = batch; *at;) {
        entry_t *entry = *at;
        if (entry->released || entry->waits != 1 || !touches(entry, txn)) {
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        entry->next = NULL;
        *end = entry;
        end = &entry->next;
        actor->queued++;
    }
    again = rewind_batch(again);
    for (end = &again; *end;)
        end = &(*end)->next;
    *end = actor->queue;
    if (again && !actor->queue)
        actor->queue_end = end;
    if (again)
        actor->queue = again;
}

static void commit_one(actor_t *actor, entry_t **batch, batch_txn_t *txn)
{
    int64_t before = actor_mono_us(actor);
    if (bug(BUG_REPLY_BEFORE_COMMIT))
        settle(*batch, txn, err_ok());
    err_t err = store_commit(&txn->txn);
    actor->commits++;
    actor->commit_us += (uint64_t)(actor_mono_us(actor) - before);
    if (err_is(err) && err.code != ERR_FULL && err.code != ERR_QUOTA) {
        fatal(actor, err);
        return;
    }
    inside_audit_committed(actor, txn, !err_is(err));
    if (err.code == ERR_FULL)
        begin_again(actor, batch, txn);
    settle(*batch, txn, err);
}

/* ---- Reads in the middle of a batch: they wait for no writer and no sync ---- */

static bool attends(const actor_t *actor)
{
    return actor->env->ops->attend && actor->def->readers;
}

static bool is_read(const actor_t *actor, const entry_t *entry)
{
    const call_t *call = entry->call;
    if (entry->kind == ENTRY_READ)
        return call->read_err.code != ERR_PARKED; /* else it is to move to this thread */
    if (entry->kind != ENTRY_CALL || !call->header.method)
        return false;
    const method_t *method = inside_find_method(actor, call->header.method);
    return method && (method->flags & READS) && !(method->flags & PARKS) && method->fn;
}

/* An entry that touches no transaction, beside the batch. */
static void run_aside(entry_t *entry)
{
    inside_run_entry(entry);
    if (!entry->released)
        release_entry(entry);
    inside_call_unref(entry->call);
}

static void attend(actor_t *actor, bool wait)
{
    actor->env->ops->attend(actor->env, wait);
    for (entry_t **at = &actor->queue; *at;) {
        entry_t *entry = *at;
        if (!is_read(actor, entry)) {
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        if (!*at)
            actor->queue_end = at;
        actor->queued--;
        run_aside(entry);
    }
}

void call_attend(call_t *call)
{
    if (call->state == CALL_RUNNING && attends(call->actor))
        attend(call->actor, false);
}

/* Companies that have threads of their own sync beside the one that has not. */
static void commit_all(actor_t *actor, entry_t **batch)
{
    for (batch_txn_t *txn = actor->txns; txn; txn = txn->next)
        txn->started = txn->txn && store_commit_start(txn->txn);
    for (batch_txn_t *txn = actor->txns; txn && !actor->failed; txn = txn->next)
        if (txn->txn && !txn->started)
            commit_one(actor, batch, txn);
    for (batch_txn_t *txn = actor->txns; txn && !actor->failed; txn = txn->next) {
        while (txn->txn && attends(actor) && !store_commit_over(txn->txn))
            attend(actor, true);
        if (txn->txn)
            commit_one(actor, batch, txn);
    }
}

static bool run_entries(actor_t *actor, entry_t *batch)
{
    actor->wants_growth = actor->wants_care = false;
    for (entry_t *entry = batch; entry; entry = entry->next) {
        inside_run_entry(entry);
        if ((actor->wants_growth && actor->may_grow) || actor->wants_care)
            return false;
        entry->waits = count_touches(entry);
        /* Nothing uncommitted was seen or written: it need not wait. */
        bool early = bug(BUG_STALE_READ_SNAPSHOT) && entry->call->method &&
                     (entry->call->method->flags & READS);
        if ((!entry->waits || early) && !entry->released)
            release_entry(entry);
        if (entry->next && attends(actor))
            attend(actor, false);
    }
    return inside_audit_write(actor);
}

/* Runs all entries; when one must be rolled back, or a map turns out too small, replays. */
static entry_t *run_batch(actor_t *actor, entry_t *batch)
{
    actor->may_grow = true;
    actor->careful = false;
    while (!run_entries(actor, batch)) {
        abort_batch(actor);
        err_t err = err_ok();
        if (actor->wants_growth && actor->may_grow)
            err = store_grow(actor->pool, actor->growth_company);
        else
            actor->careful = true;
        if (err_is(err)) {
            actor->env->ops->log(actor->env, LOG_ERROR, err_what(err));
            actor->may_grow = false; /* the next run reports ERR_FULL to the callers */
        }
        batch = rewind_batch(batch);
    }
    return batch;
}

static entry_t *take_batch(actor_t *actor)
{
    entry_t *batch = actor->queue, *last = batch;
    int count = 1;
    while (last->next && count < actor->limits.batch) {
        last = last->next;
        count++;
    }
    actor->queue = last->next;
    if (!actor->queue)
        actor->queue_end = &actor->queue;
    last->next = NULL;
    actor->queued -= count;
    return batch;
}

/* ---- A step ---- */

bool actor_ready(const actor_t *actor)
{
    return !actor->failed &&
           (actor->queue || actor_next_us(actor) <= actor_mono_us((actor_t *)actor));
}

static void end_batch(actor_t *actor, entry_t *batch)
{
    for (entry_t *entry = batch, *next; entry; entry = next) {
        next = entry->next;
        inside_call_unref(entry->call);
    }
    actor->txns = NULL;
    arena_reset(actor->batch_arena);
    actor->in_batch = false;
}

void actor_step(actor_t *actor)
{
    if (actor->failed || actor->in_batch)
        return;
    inside_timers_fire(actor);
    if (actor->queue)
        inside_run_queue(actor);
}

int64_t inside_batch_ms(actor_t *actor)
{
    if (!actor->batch_wall_ms)
        actor->batch_wall_ms = actor->env->ops->wall_ms(actor->env);
    return actor->batch_wall_ms;
}

void inside_run_queue(actor_t *actor)
{
    entry_t *batch = take_batch(actor);
    actor->in_batch = true;
    actor->batches++;
    actor->batch_wall_ms = 0;
    if (actor->pool && attends(actor))
        store_pool_sync_aside(actor->pool,
                              actor->last_read_us &&
                                  actor_mono_us(actor) - actor->last_read_us < ASIDE_US);
    batch = run_batch(actor, batch);
    close_snapshots(actor);
    commit_all(actor, &batch);
    if (actor->failed)
        abort_batch(actor);
    end_batch(actor, batch);
}
