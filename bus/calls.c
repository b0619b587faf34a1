/* Live calls of an actor: their arenas, what they wait to run, and how they are answered. */
#include <string.h>

#include "bus/inside.h"

enum { ANSWERS_MOST = 4 };

arena_t *inside_arena_take(actor_t *actor)
{
    return actor->spare_count ? actor->spares[--actor->spare_count] : arena_new();
}

void inside_arena_give(actor_t *actor, arena_t *arena)
{
    if (actor->spare_count == ARENA_SPARES) {
        arena_destroy(&arena);
        return;
    }
    arena_reset(arena);
    actor->spares[actor->spare_count++] = arena;
}

call_t *inside_call_new(actor_t *actor, bool internal)
{
    arena_t *arena = inside_arena_take(actor);
    call_t *call = ARENA_NEW(arena, call_t);
    call->actor = actor;
    call->arena = arena;
    call->internal = internal;
    call->outputs_end = &call->outputs;
    call->deadline_us = INT64_MAX;
    call->refs = 1; /* life itself; dropped by inside_call_end */
    call->next = actor->calls;
    if (actor->calls)
        actor->calls->prev = call;
    actor->calls = call;
    if (internal)
        actor->internals++;
    else
        actor->live++;
    return call;
}

void inside_call_unref(call_t *call)
{
    if (--call->refs)
        return;
    actor_t *actor = call->actor;
    if (call->prev)
        call->prev->next = call->next;
    else
        actor->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    inside_arena_give(actor, call->arena);
}

void inside_call_end(call_t *call)
{
    if (call->state == CALL_ENDED)
        return;
    actor_t *actor = call->actor;
    call->state = CALL_ENDED;
    if (call->internal)
        actor->internals--;
    else
        actor->live--;
    while (call->operations)
        inside_operation_drop(call->operations);
    while (call->timers) {
        if (call->timers == call->deadline)
            call->deadline = NULL;
        inside_timer_drop(actor, call->timers);
    }
    inside_call_unref(call);
}

void inside_call_gone(call_t *call)
{
    if (call->on_gone)
        call->on_gone(call->actor->self, call, call->gone_ctx);
    call->on_gone = NULL;
}

entry_t *inside_entry(call_t *call, entry_kind_t kind, void *ctx)
{
    entry_t *entry = ARENA_NEW(call->arena, entry_t);
    entry->kind = kind;
    entry->call = call;
    entry->ctx = ctx;
    call->refs++;
    return entry;
}

void inside_queue(actor_t *actor, entry_t *entry)
{
    entry->next = NULL;
    *actor->queue_end = entry;
    actor->queue_end = &entry->next;
    actor->queued++;
}

output_t *inside_output(call_t *call, output_kind_t kind)
{
    output_t *output = ARENA_NEW(call->arena, output_t);
    output->kind = kind;
    *call->outputs_end = output;
    call->outputs_end = &output->next;
    return output;
}

void actor_work(actor_t *actor, int64_t delay_ms, work_fn_t *fn, void *ctx)
{
    if (delay_ms > 0) {
        timer_t_ *timer = inside_timer(actor, delay_ms, NULL);
        timer->work = fn;
        timer->ctx = ctx;
        return;
    }
    call_t *call = inside_call_new(actor, true);
    call->work = fn;
    call->work_ctx = ctx;
    inside_queue(actor, inside_entry(call, ENTRY_WORK, NULL));
}

void actor_work_now(actor_t *actor, work_fn_t *fn, void *ctx)
{
    actor_work(actor, 0, fn, ctx);
    /* What it asks may be answered at once. Timers are for the loop's turn. */
    for (int i = 0; i <= ANSWERS_MOST && actor->queue && !actor->in_batch && !actor->failed; i++)
        inside_run_queue(actor);
}

void actor_resume(actor_t *actor, call_t *parked, resume_fn_t *fn, void *ctx)
{
    if (parked->state == CALL_ENDED)
        return;
    entry_t *entry = inside_entry(parked, ENTRY_RESUME, ctx);
    entry->fn.resume = fn;
    inside_queue(actor, entry);
}

/* ---- Answers ---- */

/* A header that is too large would be dropped as malformed: a text beyond the limit ends early, at
 * a letter. The facts are in the body anyway. */
static const char *text_that_fits(call_t *call, const char *text)
{
    static const char end[] = "\n[cut: the text is too long]";
    size_t size = FRAME_TEXT_LARGEST - sizeof(end);

    if (!text || strnlen(text, FRAME_TEXT_LARGEST + 1) <= FRAME_TEXT_LARGEST)
        return text;
    while (size && ((unsigned char)text[size] & 0xc0) == 0x80)
        size--;
    return arena_printf(call->arena, "%.*s%s", (int)size, text, end);
}

void inside_send(call_t *call, frame_kind_t kind, err_t err, const char *text, bytes_t body)
{
    actor_t *actor = call->actor;
    header_t header = {.v = FRAME_VERSION,
                       .kind = kind,
                       .id = call->header.id,
                       .has_id = true,
                       .from = call->header.from,
                       .epoch = (int64_t)actor->epoch,
                       .has_epoch = true,
                       .what = text};
    if (err_is(err)) {
        header.err = err_info(err.code)->name;
        header.what = err_what(err);
    }
    header.what = text_that_fits(call, header.what);
    const actor_env_ops_t *ops = actor->env->ops;
    if (actor->lent && ops->answer_here(actor->env, &call->route, &header, body))
        return;
    buf_t out;
    buf_open(&out, call->arena);
    frame_encode(&header, &out);
    ops->send_back(actor->env, &call->route, buf_bytes(&out), body);
}

static bool defect(err_code_t code)
{
    return code == ERR_INTERNAL || code == ERR_IO || code == ERR_CORRUPT || code == ERR_FULL;
}

static void log_failure(call_t *call, err_t err)
{
    if (!defect(err.code))
        return;
    call_log(call, LOG_ERROR, "%s failed: %s: %s",
             call->method ? call->method->name : "internal work", err_info(err.code)->name,
             err_what(err));
}

static int method_index(const call_t *call)
{
    const actor_t *actor = call->actor;
    for (int i = 0; i < actor->method_count; i++)
        if (&actor->methods[i] == call->method)
            return i;
    return actor->method_count + (int)(call->method - inside_builtins);
}

static void count_call(call_t *call, err_t err)
{
    if (!call->method)
        return;
    method_stats_t *stats = &call->actor->stats[method_index(call)];
    uint64_t us = (uint64_t)(actor_mono_us(call->actor) - call->started_us);
    stats->calls++;
    stats->errors += err_is(err);
    stats->total_us += us;
    if (us > stats->max_us)
        stats->max_us = us;
    int bucket = 0;
    for (uint64_t left = us; left && bucket < 23; left >>= 1)
        bucket++;
    stats->buckets[bucket]++;
}

void inside_reply(call_t *call, err_t err, const char *text, bytes_t body)
{
    count_call(call, err);
    log_failure(call, err);
    if (!call->internal)
        inside_send(call, FRAME_REPLY, err, text, body);
}
