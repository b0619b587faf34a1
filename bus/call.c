/* call: what a handler may ask and start. */
#include <stdio.h>
#include <string.h>

#include "bus/bug.h"
#include "bus/inside.h"
#include "proto/mp.h"

arena_t *call_arena(call_t *call)
{
    return call->arena;
}

void *call_self(call_t *call)
{
    return call->actor->self;
}

actor_t *call_actor(call_t *call)
{
    return call->actor;
}

const char *call_company(const call_t *call)
{
    return call->company;
}

void call_for_company(call_t *call, const char *company)
{
    if (call->internal)
        call->company = company;
}

const char *call_principal(const call_t *call)
{
    if (call->internal)
        return "";
    return call->header.principal ? call->header.principal : "local";
}

role_t call_role(const call_t *call)
{
    if (call->internal)
        return ROLE_ADMIN;
    return call->header.has_role ? (role_t)call->header.role : ROLE_READER;
}

const char *call_traceparent(const call_t *call)
{
    return call->header.traceparent ? call->header.traceparent : "";
}

const char *call_identity(call_t *call)
{
    const header_t *header = &call->header;
    if (call->internal)
        return NULL;
    if (header->key)
        return arena_printf(call->arena, "key:%s", header->key);
    return arena_printf(call->arena, "call:%s/%lld", header->from, (long long)header->id);
}

bool call_may(const call_t *call, const char *company)
{
    const header_t *header = &call->header;
    if (call->internal || !header->has_companies)
        return true;
    for (size_t i = 0; i < header->companies.count; i++)
        if (!strcmp(header->companies.items[i], company))
            return true;
    return false;
}

int64_t call_now_ms(const call_t *call)
{
    const actor_t *actor = call->actor;
    if (call->state != CALL_READING && actor->in_batch) /* a reader must not look at the batch */
        return inside_batch_ms(call->actor);
    return actor->env->ops->wall_ms(actor->env);
}

int64_t call_left_ms(const call_t *call)
{
    if (call->deadline_us == INT64_MAX)
        return INT64_MAX;
    int64_t left = (call->deadline_us - actor_mono_us(call->actor)) / 1000;
    return left > 0 ? left : 0;
}

int64_t call_age_ms(const call_t *call)
{
    return call->header.age_ms;
}

void call_random(call_t *call, void *data, size_t size)
{
    call->actor->env->ops->random(call->actor->env, data, size);
}

const char *call_new_id(call_t *call, const char *prefix)
{
    uint8_t bytes[16];
    call_random(call, bytes, sizeof(bytes));
    buf_t id;
    buf_open(&id, call->arena);
    buf_puts(&id, prefix);
    for (size_t i = 0; i < sizeof(bytes); i++)
        buf_printf(&id, "%02x", bytes[i]);
    return id.data;
}

/* ---- Transactions ---- */

static bool may_write(const call_t *call)
{
    return call->internal || !call->method || (call->method->flags & WRITES);
}

static store_txn_t *touched(const call_t *call, const char *company)
{
    for (const touch_t *touch = call->touches; touch; touch = touch->next)
        if (!strcmp(touch->of->company, company))
            return touch->txn;
    return NULL;
}

static err_t touch_company(call_t *call, batch_txn_t *of, store_txn_t **out)
{
    touch_t *touch = ARENA_NEW(call->arena, touch_t);
    err_t err = err_ok();
    if (call->actor->careful)
        err = store_child_begin(of->txn, &touch->txn);
    else
        touch->txn = of->txn;
    if (err_is(err))
        return err;
    touch->of = of;
    touch->writes = store_writes(touch->txn);
    touch_t **end = &call->touches;
    while (*end)
        end = &(*end)->next;
    *end = touch;
    *out = touch->txn;
    return err_ok();
}

err_t call_write(call_t *call, const char *company, store_txn_t **out)
{
    actor_t *actor = call->actor;
    *out = NULL;
    if (!actor->pool || !may_write(call))
        return err_of(ERR_INTERNAL, "a method that READS asked to write");
    if ((*out = touched(call, company)))
        return err_ok();
    batch_txn_t *of = inside_batch_txn(actor, company);
    if (!of->txn) {
        err_t err = store_begin_write(actor->pool, company, &of->txn, call->arena);
        if (err_is(err))
            return err;
    }
    return touch_company(call, of, out);
}

static err_t read_on_thread(call_t *call, const char *company, store_txn_t **out)
{
    if (!call->read_txn) {
        err_t err = store_begin_read(call->actor->pool, company, &call->read_txn, call->arena);
        if (err_is(err))
            return err;
    }
    *out = call->read_txn;
    return err_ok();
}

err_t call_read(call_t *call, const char *company, store_txn_t **out)
{
    actor_t *actor = call->actor;
    *out = NULL;
    if (!actor->pool)
        return err_of(ERR_INTERNAL, "this actor has no store");
    if (call->state == CALL_READING)
        return read_on_thread(call, company, out);
    if ((*out = touched(call, company)))
        return err_ok();
    batch_txn_t *of = inside_batch_txn(actor, company);
    /* One that will write must see what the entries before it wrote. */
    if (of->txn && (may_write(call) || bug(BUG_STALE_READ_SNAPSHOT)))
        return touch_company(call, of, out);
    if (!of->snapshot) {
        err_t err = store_begin_read(actor->pool, company, &of->snapshot, call->arena);
        if (err_is(err))
            return err;
    }
    *out = of->snapshot;
    return err_ok();
}

err_t call_companies(call_t *call, strs_t *out)
{
    return store_pool_companies(call->actor->pool, call->arena, out);
}

store_pool_t *call_store(call_t *call)
{
    return call->actor->pool;
}

/* ---- Saying ---- */

void call_say(call_t *call, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    call->text = arena_vprintf(call->arena, format, args);
    va_end(args);
}

void call_say_text(call_t *call, const char *text)
{
    call->text = text;
}

#define progress_FIELDS(F)                                                                         \
    F(REAL, progress, must, 0, 0, "How much is done.")                                             \
    F(REAL, total, opt(), 0, 0, "Out of how much, when that is known.")                            \
    F(STR, message, opt(), 0, 4096, "What is being done.")
RECORD(progress, progress_FIELDS)

void call_progress(call_t *call, double done, double total, const char *message)
{
    progress_t progress = {.progress = done,
                           .has_progress = true,
                           .total = total,
                           .has_total = total > 0,
                           .message = message};
    output_t *output = inside_output(call, OUTPUT_PROGRESS);
    output->topic = message;
    output->body = call_encode(call, &progress_record, &progress);
}

#define note_FIELDS(F)                                                                             \
    F(STR, level, opt(), 0, 0, "How grave, as MCP calls it.")                                      \
    F(STR, text, opt(), 0, 0, "What happened.")                                                    \
    F(BOOL, fetch_later, opt(), 0, 0, "The answer takes a while.")
RECORD(note, note_FIELDS)

static void put_note(call_t *call, const note_t *note)
{
    output_t *output = inside_output(call, OUTPUT_PROGRESS);
    output->topic = note->text;
    output->body = call_encode(call, &note_record, note);
}

void call_note(call_t *call, const char *level, const char *text)
{
    put_note(call, &(note_t){.level = level, .text = text});
}

void call_fetch_later(call_t *call)
{
    put_note(call, &(note_t){.fetch_later = true, .has_fetch_later = true});
}

bytes_t call_encode(call_t *call, const record_t *record, const void *value)
{
    buf_t out;
    buf_open(&out, call->arena);
    record_encode(record, value, &out);
    return buf_bytes(&out);
}

void call_log(call_t *call, log_level_t level, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    actor_env_t *env = call->actor->env;
    if (call->company && !call->internal) {
        char line[1400];
        snprintf(line, sizeof(line), "%s [company=%s call=%s/%lld%s%s]", text, call->company,
                 call->header.from ? call->header.from : "", (long long)call->header.id,
                 call->header.traceparent ? " trace=" : "", call_traceparent(call));
        env->ops->log(env, level, line);
    } else {
        env->ops->log(env, level, text);
    }
}

/* ---- Waiting ---- */

err_t call_park(call_t *call)
{
    if (!call->internal && !call->deadline && call->state != CALL_READING) {
        int64_t left_us = call->deadline_us - actor_mono_us(call->actor);
        call->deadline = inside_timer(call->actor, left_us / 1000 + 1, call);
        call->deadline->deadline = true;
    }
    return err_of(ERR_PARKED, NULL);
}

void call_on_gone(call_t *call, void (*fn)(void *self, call_t *call, void *ctx), void *ctx)
{
    call->on_gone = fn;
    call->gone_ctx = ctx;
}

void call_resume(call_t *by, call_t *parked, resume_fn_t *fn, void *ctx)
{
    if (bug(BUG_LOST_WAKEUP))
        return;
    output_t *output = inside_output(by, OUTPUT_RESUME);
    output->target = parked;
    output->fn.resume = fn;
    output->ctx = ctx;
    parked->refs++;
}

void call_resume_after(call_t *call, int64_t delay_ms, resume_fn_t *fn, void *ctx)
{
    output_t *output = inside_output(call, OUTPUT_RESUME_AFTER);
    output->fn.resume = fn;
    output->ctx = ctx;
    output->delay_ms = delay_ms;
}

/* ---- Starting ---- */

static const char *keep_text(call_t *call, const char *text)
{
    return arena_strdup(call->arena, text);
}

void call_peer(call_t *call, const peer_call_t *request, answer_fn_t *fn, void *ctx)
{
    peer_call_t *copy = arena_copy(call->arena, request, sizeof(*request));
    copy->peer = keep_text(call, request->peer);
    copy->method = keep_text(call, request->method);
    copy->key = keep_text(call, request->key);
    copy->company = keep_text(call, request->company);
    output_t *output = inside_output(call, OUTPUT_PEER);
    output->with.peer = copy;
    output->fn.answer = fn;
    output->ctx = ctx;
}

void call_child(call_t *call, const child_request_t *request, child_fn_t *fn, void *ctx)
{
    output_t *output = inside_output(call, OUTPUT_CHILD);
    output->with.child = arena_copy(call->arena, request, sizeof(*request));
    output->fn.child = fn;
    output->ctx = ctx;
}

bool call_on_reader(const call_t *call)
{
    return call->state == CALL_READING;
}

err_t call_move(call_t *call)
{
    (void)call;
    return err_of(ERR_PARKED, NULL);
}

err_t call_to_reader(call_t *call, resume_fn_t *fn, void *ctx)
{
    output_t *output = inside_output(call, OUTPUT_READ);
    output->fn.resume = fn;
    output->ctx = ctx;
    return call_park(call);
}

void call_http(call_t *call, const http_call_request_t *request, http_fn_t *fn, void *ctx)
{
    output_t *output = inside_output(call, OUTPUT_HTTP);
    output->with.http = arena_copy(call->arena, request, sizeof(*request));
    output->fn.http = fn;
    output->ctx = ctx;
}

void call_publish(call_t *call, const char *topic, const record_t *record, const void *value)
{
    actor_t *actor = call->actor;
    header_t header = {.v = FRAME_VERSION,
                       .kind = FRAME_EVENT,
                       .method = topic,
                       .from = actor->def->name,
                       .company = call->company,
                       .epoch = (int64_t)actor->epoch,
                       .has_epoch = true,
                       .seq = (int64_t)++actor->event_seq,
                       .has_seq = true};
    buf_t out;
    buf_open(&out, call->arena);
    frame_encode(&header, &out);
    output_t *output = inside_output(call, OUTPUT_EVENT);
    output->topic = keep_text(call, topic);
    output->header = buf_bytes(&out);
    output->body = call_encode(call, record, value);
}

void call_after_commit(call_t *call, void (*fn)(void *self, void *ctx), void *ctx)
{
    output_t *output = inside_output(call, OUTPUT_AFTER_COMMIT);
    output->fn.after = fn;
    output->ctx = ctx;
}

void call_work(call_t *call, int64_t delay_ms, work_fn_t *fn, void *ctx)
{
    output_t *output = inside_output(call, OUTPUT_WORK);
    output->fn.work = fn;
    output->ctx = ctx;
    output->delay_ms = delay_ms;
}

/* ---- Descriptors ---- */

typedef struct watch {
    struct watch *next;
    actor_t *actor;
    int fd;
    void (*fn)(void *self, void *ctx);
    void *ctx;
} watch_t;

static void on_watched(void *ctx)
{
    watch_t *watch = ctx;
    if (watch->fn)
        watch->fn(watch->actor->self, watch->ctx);
}

/* Watches live as long as the actor: there are few, and a running one may unwatch itself. */
void actor_watch(actor_t *actor, int fd, void (*fn)(void *self, void *ctx), void *ctx)
{
    watch_t *watch = ARENA_NEW(actor->arena, watch_t);
    *watch = (watch_t){.next = actor->watches, .actor = actor, .fd = fd, .fn = fn, .ctx = ctx};
    actor->watches = watch;
    actor->env->ops->watch(actor->env, fd, on_watched, watch);
}

void actor_after_turn(actor_t *actor, void (*fn)(void *self))
{
    actor->env->ops->after(actor->env, fn, actor->self);
}

void actor_unwatch(actor_t *actor, int fd)
{
    for (watch_t *watch = actor->watches; watch; watch = watch->next)
        if (watch->fd == fd && watch->fn) {
            watch->fn = NULL;
            actor->env->ops->watch(actor->env, fd, NULL, NULL);
        }
}
