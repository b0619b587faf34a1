#include "bus/actor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bug.h"
#include "bus/inside.h"
#include "bus/settings.h"
#include "proto/mp.h"

enum { RETRY_WORK_MS = 1000, TICK_MS = 60000 };
/* So long after a read others are expected, for which the thread is kept free of syncs. */
enum { ASIDE_US = 1000000 };
/* A call that states no deadline, and the longest that one may be: a day. */
enum { DEADLINE_MS = 60000, LONGEST_CALL_MS = 86400000 };

/* ---- Timers: a binary heap whose members know their place ---- */

static bool earlier(const timer_t_ *one, const timer_t_ *other)
{
    return one->at_us != other->at_us ? one->at_us < other->at_us : one->order < other->order;
}

static void heap_set(actor_t *actor, size_t index, timer_t_ *timer)
{
    actor->heap[index] = timer;
    timer->index = index;
}

static void heap_up(actor_t *actor, size_t index)
{
    timer_t_ *timer = actor->heap[index];
    while (index && earlier(timer, actor->heap[(index - 1) / 2])) {
        heap_set(actor, index, actor->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_set(actor, index, timer);
}

static void heap_down(actor_t *actor, size_t index)
{
    timer_t_ *timer = actor->heap[index];
    for (;;) {
        size_t child = index * 2 + 1;
        if (child >= actor->heap_count)
            break;
        if (child + 1 < actor->heap_count && earlier(actor->heap[child + 1], actor->heap[child]))
            child++;
        if (!earlier(actor->heap[child], timer))
            break;
        heap_set(actor, index, actor->heap[child]);
        index = child;
    }
    heap_set(actor, index, timer);
}

timer_t_ *inside_timer(actor_t *actor, int64_t delay_ms, call_t *call)
{
    timer_t_ *timer = calloc(1, sizeof(*timer));
    if (actor->heap_count == actor->heap_capacity) {
        actor->heap_capacity = actor->heap_capacity ? actor->heap_capacity * 2 : 64;
        actor->heap = realloc(actor->heap, actor->heap_capacity * sizeof(timer_t_ *));
    }
    if (!timer || !actor->heap)
        abort();
    if (delay_ms < 0)
        delay_ms = 0;
    int64_t now = actor_mono_us(actor);
    timer->at_us = delay_ms > (INT64_MAX - now) / 1000 ? INT64_MAX : now + delay_ms * 1000;
    timer->order = actor->timer_order++;
    timer->call = call;
    if (call) {
        timer->next = call->timers;
        if (call->timers)
            call->timers->prev = timer;
        call->timers = timer;
    }
    heap_set(actor, actor->heap_count++, timer);
    heap_up(actor, timer->index);
    return timer;
}

static void timer_unlink(timer_t_ *timer)
{
    if (!timer->call)
        return;
    if (timer->prev)
        timer->prev->next = timer->next;
    else
        timer->call->timers = timer->next;
    if (timer->next)
        timer->next->prev = timer->prev;
}

void inside_timer_drop(actor_t *actor, timer_t_ *timer)
{
    size_t index = timer->index;
    timer_t_ *last = actor->heap[--actor->heap_count];
    if (last != timer) {
        heap_set(actor, index, last);
        heap_up(actor, index);
        heap_down(actor, last->index);
    }
    timer_unlink(timer);
    free(timer);
}

/* ---- Calls ---- */

static arena_t *spare_arena(actor_t *actor)
{
    return actor->spare_count ? actor->spares[--actor->spare_count] : arena_new();
}

static void give_arena(actor_t *actor, arena_t *arena)
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
    arena_t *arena = spare_arena(actor);
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
    give_arena(actor, call->arena);
}

/* The call is over: whatever it still had under way is called off. */
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

/* A parked call ends from outside: whoever keeps it on a list is told. */
static void call_gone(call_t *call)
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

static void send_header(call_t *call, frame_kind_t kind, err_t err, const char *text, bytes_t body)
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
    buf_t out;
    buf_open(&out, call->arena);
    frame_encode(&header, &out);
    actor->env->ops->send_back(actor->env, &call->route, buf_bytes(&out), body);
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
        send_header(call, FRAME_REPLY, err, text, body);
}

/* ---- Transactions of a batch ---- */

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

/* A write failed for want of room: the batch will be replayed on a larger map. */
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

/* ---- Running one entry ---- */

static const method_t *find_method(const actor_t *actor, const char *name)
{
    for (const method_t *method = actor->methods; method->name; method++)
        if (!strcmp(method->name, name))
            return method;
    size_t size = strlen(actor->def->name);
    if (!strncmp(name, actor->def->name, size) && name[size] == '.')
        for (const method_t *method = inside_builtins; method->name; method++)
            if (!strcmp(method->name, name + size + 1))
                return method;
    return NULL;
}

static err_t unknown_method(call_t *call)
{
    const actor_def_t *def = call->actor->def;
    const actor_t *actor = call->actor;
    const char **names = ARENA_ARRAY(call->arena, const char *, (size_t)actor->method_count + 1);
    for (int i = 0; i < actor->method_count; i++)
        names[i] = actor->methods[i].name;
    const char *near = record_nearest(call->header.method, names);
    return err_make(call->arena, ERR_METHOD, "%s has no method '%.128s'%s%s%s", def->name,
                    call->header.method, near ? "; did you mean '" : "", near ? near : "",
                    near ? "'?" : "");
}

static err_t check_role(call_t *call)
{
    role_t need = ROLE_READER;
    if (call->method->flags & ADMIN)
        need = ROLE_ADMIN;
    else if (call->method->flags & WRITES)
        need = ROLE_OPERATOR;
    if (call_role(call) >= need)
        return err_ok();
    return err_make(call->arena, ERR_FORBIDDEN, "%s needs the role %s; you are %s",
                    call->method->name, role_names[need], role_names[call_role(call)]);
}

static err_t which_company(call_t *call)
{
    const strs_t *may = &call->header.companies;
    buf_t list;
    buf_open(&list, call->arena);
    for (size_t i = 0; i < may->count; i++)
        buf_printf(&list, "%s%s", i ? ", " : "", may->items[i]);
    return err_make(call->arena, ERR_COMPANY, "name the company: your token may act for %s",
                    list.data);
}

/* DESIGN §7: absent means the caller's own; present, also when empty, must be valid and allowed. */
static err_t resolve_company(call_t *call)
{
    const field_t *field = call->method->args->fields();
    while (field->name && field->type != FIELD_COMPANY)
        field++;
    const char **given = field->name ? (const char **)((char *)call->args + field->offset) : NULL;
    const char *company = given ? *given : NULL;
    const header_t *header = &call->header;
    if (!company) {
        if (call->method->flags & ANY_COMPANY)
            return err_ok();
        if (header->company && *header->company)
            company = header->company;
        else if (header->has_companies && header->companies.count > 1)
            return which_company(call);
        else if (header->has_companies && header->companies.count == 1)
            company = header->companies.items[0];
        else
            company = call->actor->default_company;
    }
    if (!frame_company_name(company))
        return err_make(call->arena, ERR_COMPANY,
                        "'%.64s' is no company name: use 1 to 64 letters, digits, '-' or '_', "
                        "beginning with a letter or digit",
                        company);
    if (!call_may(call, company))
        return err_make(call->arena, ERR_COMPANY, "your token does not allow the company '%s'",
                        company);
    call->company = company;
    if (given)
        *given = company;
    return err_ok();
}

static err_t admit(call_t *call)
{
    if (!call->header.method)
        return err_of(ERR_METHOD, "the call names no method");
    call->method = find_method(call->actor, call->header.method);
    if (!call->method)
        return unknown_method(call);
    err_t err = check_role(call);
    if (err_is(err))
        return err;
    call->args = arena_alloc(call->arena, call->method->args->size);
    err = record_decode(call->method->args, call->body, call->arena, "argument", call->args);
    if (err_is(err))
        return err;
    return resolve_company(call);
}

/* The first outcome of a WRITES call that was sent again or bears a key. */
static err_t remembered(call_t *call, bool *found)
{
    *found = false;
    bool again = call->header.age_ms > 0 && !(call->method->flags & UNREMEMBERED);
    if (bug(BUG_DROPPED_DEDUPE) || !(call->method->flags & WRITES) || !call->actor->pool ||
        !call->company || (!again && !call->header.key))
        return err_ok();
    store_txn_t *txn;
    err_t err = call_read(call, call->company, &txn);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (err_is(err))
        return err;
    const char *text;
    bytes_t body;
    err = inside_outcome_find(call, txn, &text, &body);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (err_is(err))
        return err;
    *found = true;
    call->actor->duplicates++;
    output_t *output = inside_output(call, OUTPUT_REPLY);
    output->topic = arena_strdup(call->arena, text);
    output->body = (bytes_t){arena_copy(call->arena, body.data, body.size), body.size};
    return err_ok();
}

static bool reader_serves(const call_t *call)
{
    return call->actor->def->readers > 0 && (call->method->flags & READS) &&
           !(call->method->flags & PARKS) && call->method->fn && !call->internal;
}

/* On a reader thread: the handler with a snapshot of its own. */
static void read_job(void *ctx)
{
    call_t *call = ctx;
    void *self = call->actor->self;
    if (call->read_fn) {
        call->read_err = call->read_fn(self, call, call->reply, call->read_ctx);
    } else {
        call->reply = arena_alloc(call->arena, call->method->reply->size);
        call->read_err = call->method->fn(self, call, call->args, call->reply);
    }
    if (!err_is(call->read_err)) {
        buf_t out;
        buf_open(&out, call->arena);
        record_encode(call->method->reply, call->reply, &out);
        call->read_body = buf_bytes(&out);
    }
    if (call->read_txn)
        store_abort(&call->read_txn);
}

static err_t start_read(call_t *call)
{
    actor_t *actor = call->actor;
    call->state = CALL_READING;
    call->refs++;
    call->read_token = ++actor->next_token;
    actor->last_read_us = actor_mono_us(actor);
    actor->env->ops->read_start(actor->env, call->read_token, read_job, call);
    return err_of(ERR_PARKED, NULL);
}

void actor_on_read(actor_t *actor, uint64_t token)
{
    for (call_t *call = actor->calls; call; call = call->next) {
        if (call->state != CALL_READING || call->read_token != token)
            continue;
        call->state = CALL_PARKED;
        if (call->cancelled)
            inside_call_end(call);
        else
            inside_queue(actor, inside_entry(call, ENTRY_READ, NULL));
        inside_call_unref(call);
        return;
    }
}

static err_t run_call(call_t *call)
{
    err_t err = call->method ? err_ok() : admit(call);
    if (err_is(err))
        return err;
    bool found;
    err = remembered(call, &found);
    if (err_is(err) || found)
        return err;
    if (reader_serves(call))
        return start_read(call);
    call->reply = arena_alloc(call->arena, call->method->reply->size);
    return call->method->fn(call->actor->self, call, call->args, call->reply);
}

static err_t run_function(entry_t *entry)
{
    call_t *call = entry->call;
    void *self = call->actor->self;
    switch (entry->kind) {
    case ENTRY_CALL:
        return run_call(call);
    case ENTRY_WORK:
        return call->work(self, call, call->work_ctx);
    case ENTRY_EVENT:
        return entry->fn.hear->fn(self, call, entry->with.event.topic, entry->with.event.body);
    case ENTRY_RESUME:
        return entry->fn.resume(self, call, call->reply, entry->ctx);
    case ENTRY_ANSWER:
        return entry->fn.answer(self, call, call->reply, &entry->with.answer, entry->ctx);
    case ENTRY_CHILD:
        return entry->fn.child(self, call, call->reply, &entry->with.child, entry->ctx);
    case ENTRY_HTTP:
        return entry->fn.http(self, call, call->reply, &entry->with.http, entry->ctx);
    case ENTRY_READ:
        if (call->read_err.code != ERR_PARKED)
            return call->read_err;
        call->moved = true;
        call->reply = arena_alloc(call->arena, call->method->reply->size);
        return call->method->fn(self, call, call->args, call->reply);
    }
    return err_of(ERR_INTERNAL, "an entry of no kind");
}

/* Encodes the reply of a call that is done, and keeps it as the first outcome. */
static err_t finish_call(call_t *call, entry_t *entry)
{
    if (call->internal)
        return err_ok();
    for (output_t *output = call->outputs; output; output = output->next)
        if (output->kind == OUTPUT_REPLY)
            return err_ok(); /* a remembered outcome */
    output_t *output = inside_output(call, OUTPUT_REPLY);
    output->topic = call->text;
    if (entry->kind == ENTRY_READ && !call->moved) {
        output->body = call->read_body;
        return err_ok();
    }
    buf_t out;
    buf_open(&out, call->arena);
    record_encode(call->method->reply, call->reply, &out);
    output->body = buf_bytes(&out);
    if (!call->touches || !(call->method->flags & WRITES) || (call->method->flags & UNREMEMBERED))
        return err_ok();
    return inside_outcome_keep(call, call->touches->txn, output->body);
}

/* Rolls back what the entry wrote: its child transactions, or the whole batch, which then begins
 * again with children. Children are dear (LMDB gives each lists of 3 MiB) and an entry that fails
 * after it wrote is rare. */
static void roll_back(call_t *call, err_t err)
{
    actor_t *actor = call->actor;
    if (bug(BUG_LOST_ROLLBACK))
        return;
    for (touch_t *touch = call->touches; touch; touch = touch->next) {
        if (actor->careful)
            store_abort(&touch->txn);
        else if (err.code == ERR_FULL || store_writes(touch->txn) != touch->writes)
            actor->wants_care = true;
        inside_store_error(actor, touch->of->company, err);
    }
}

static err_t close_touches(call_t *call, err_t err)
{
    if (err_is(err) && err.code != ERR_PARKED) {
        roll_back(call, err);
        if (!bug(BUG_LOST_ROLLBACK))
            return err;
    }
    if (!call->actor->careful)
        return err;
    for (touch_t *touch = call->touches; touch; touch = touch->next) {
        err_t merged = store_commit(&touch->txn);
        if (err_is(merged)) {
            inside_store_error(call->actor, touch->of->company, merged);
            err = merged;
        }
    }
    return err;
}

static void take_outputs(call_t *call, entry_t *entry)
{
    entry->outputs = call->outputs;
    entry->touches = call->touches;
    call->outputs = NULL;
    call->outputs_end = &call->outputs;
    call->touches = NULL;
}

static void run_entry(entry_t *entry)
{
    call_t *call = entry->call;
    entry->ended = entry->released = false;
    entry->outputs = NULL;
    entry->touches = NULL;
    if (call->state == CALL_ENDED) {
        entry->released = true;
        return;
    }
    call->state = CALL_RUNNING;
    call->outputs = NULL;
    call->outputs_end = &call->outputs;
    call->touches = NULL;
    err_t err = run_function(entry);
    if (!err_is(err))
        err = finish_call(call, entry);
    err = close_touches(call, err);
    entry->result = err;
    take_outputs(call, entry);
    entry->ended = err.code != ERR_PARKED;
    if (err.code == ERR_PARKED && call->state == CALL_RUNNING)
        call->state = CALL_PARKED;
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
            send_header(call, FRAME_PROGRESS, err_ok(), output->topic, output->body);
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
        start_read(call);
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
    bool failed = err_is(entry->result) && entry->result.code != ERR_PARKED;
    if (!failed)
        for (output_t *output = entry->outputs; output; output = output->next)
            release_output(call, output);
    unref_targets(entry);
    if (failed) {
        call_gone(call);
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
    const method_t *method = find_method(actor, call->header.method);
    return method && (method->flags & READS) && !(method->flags & PARKS) && method->fn;
}

/* An entry that touches no transaction, beside the batch. */
static void run_aside(entry_t *entry)
{
    run_entry(entry);
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
        run_entry(entry);
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
    return true;
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

/* ---- Timers that are due ---- */

static void expire(call_t *call)
{
    call->deadline = NULL;
    if (call->state == CALL_READING) {
        return; /* the answer comes soon; the caller may have gone */
    }
    call_gone(call);
    inside_reply(call,
                 err_make(call->arena, ERR_TIMEOUT, "%s did not finish before the deadline",
                          call->method ? call->method->name : "the call"),
                 NULL, (bytes_t){0});
    inside_call_end(call);
}

static void fire(actor_t *actor, timer_t_ *timer)
{
    timer_t_ fired = *timer;
    inside_timer_drop(actor, timer);
    if (fired.tick) {
        fired.tick(actor);
    } else if (fired.operation) {
        fired.operation->deadline = NULL;
        inside_peer_timeout(fired.operation);
    } else if (fired.deadline) {
        expire(fired.call);
    } else if (fired.resume) {
        if (fired.call->state != CALL_PARKED)
            return;
        entry_t *entry = inside_entry(fired.call, ENTRY_RESUME, fired.ctx);
        entry->fn.resume = fired.resume;
        inside_queue(actor, entry);
    } else {
        actor_work(actor, 0, fired.work, fired.ctx);
    }
}

static void fire_due(actor_t *actor)
{
    int64_t now = actor_mono_us(actor);
    while (actor->heap_count && actor->heap[0]->at_us <= now)
        fire(actor, actor->heap[0]);
}

static void tick(actor_t *actor)
{
    if (actor->pool) {
        store_pool_tick(actor->pool, actor->env->ops->wall_ms(actor->env));
        inside_outcome_trim(actor);
    }
    inside_timer(actor, TICK_MS, NULL)->tick = tick;
}

/* ---- The batch ---- */

bool actor_ready(const actor_t *actor)
{
    return !actor->failed &&
           (actor->queue || actor_next_us(actor) <= actor_mono_us((actor_t *)actor));
}

int64_t actor_next_us(const actor_t *actor)
{
    return actor->heap_count ? actor->heap[0]->at_us : INT64_MAX;
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
    fire_due(actor);
    if (!actor->queue)
        return;
    entry_t *batch = take_batch(actor);
    actor->in_batch = true;
    actor->batches++;
    actor->batch_wall_ms = actor->env->ops->wall_ms(actor->env);
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

/* ---- What arrives ---- */

static void refuse(actor_t *actor, const route_t *route, const header_t *header, err_t err)
{
    call_t call = {.actor = actor, .arena = spare_arena(actor), .route = *route, .header = *header};
    send_header(&call, FRAME_REPLY, err, NULL, (bytes_t){0});
    give_arena(actor, call.arena);
}

/* The live call of this name, other than `fresh`, the frame that just arrived. */
static call_t *find_call(actor_t *actor, const header_t *header, const call_t *fresh)
{
    if (!header->from)
        return NULL;
    for (call_t *call = actor->calls; call; call = call->next)
        if (call != fresh && !call->internal && call->state != CALL_ENDED &&
            call->header.id == header->id && !strcmp(call->header.from, header->from))
            return call;
    return NULL;
}

static bool outside_may_enter(const actor_t *actor, const header_t *header)
{
    const char *dot = header->method ? strchr(header->method, '.') : NULL;
    return !actor->draining || dot; /* builtins answer to the end */
}

static bool admit_frame(actor_t *actor, const route_t *route, const call_t *fresh)
{
    const header_t *header = &fresh->header;
    if (header->age_ms > 0) {
        call_t *same = find_call(actor, header, fresh);
        if (same) { /* its answer is on the way; the caller may have a new connection */
            same->route = *route;
            actor->duplicates++;
            return false;
        }
    }
    if (!outside_may_enter(actor, header)) {
        refuse(actor, route, header, err_of(ERR_DRAINING, NULL));
        return false;
    }
    if (actor->live > actor->limits.inbox) {
        actor->dropped_busy++;
        refuse(actor, route, header,
               err_of(ERR_BUSY, "too many calls are waiting; try again in a moment"));
        return false;
    }
    return true;
}

static void take_call(actor_t *actor, const route_t *route, bytes_t header_bytes, bytes_t body)
{
    call_t *call = inside_call_new(actor, false);
    call->started_us = actor_mono_us(actor);
    call->route = *route;
    bytes_t header = {arena_copy(call->arena, header_bytes.data, header_bytes.size),
                      header_bytes.size};
    call->body = (bytes_t){arena_copy(call->arena, body.data, body.size), body.size};
    err_t err = frame_decode(header, call->body, call->arena, &call->header);
    if (err_is(err) || !call->header.from) {
        actor->malformed++;
        inside_call_end(call);
        return;
    }
    if (!admit_frame(actor, route, call)) {
        inside_call_end(call);
        return;
    }
    int64_t left = call->header.has_deadline_ms ? call->header.deadline_ms : DEADLINE_MS;
    if (left < 1)
        left = 1;
    call->deadline_us = call->started_us + (left < LONGEST_CALL_MS ? left : LONGEST_CALL_MS) * 1000;
    inside_queue(actor, inside_entry(call, ENTRY_CALL, NULL));
}

static void end_parked(actor_t *actor, call_t *call)
{
    if (call->state == CALL_READING) {
        call->cancelled = true;
        return;
    }
    if (actor->in_batch && call->state == CALL_RUNNING)
        return;
    call_gone(call);
    inside_call_end(call);
}

static void take_cancel(actor_t *actor, const header_t *header)
{
    call_t *call = find_call(actor, header, NULL);
    /* Work that has begun to write is finished, its answer goes nowhere. */
    if (call && call->state != CALL_RUNNING)
        end_parked(actor, call);
}

static void take_ping(actor_t *actor, const route_t *route, const header_t *ping)
{
    call_t call = {.actor = actor, .arena = spare_arena(actor), .route = *route, .header = *ping};
    send_header(&call, FRAME_PONG, err_ok(), actor->instance, (bytes_t){0});
    give_arena(actor, call.arena);
}

static void take_event(actor_t *actor, const header_t *header, bytes_t body)
{
    for (const hear_t *hear = actor->def->hears; hear && hear->publisher; hear++) {
        if (!header->from || strcmp(hear->publisher, header->from) ||
            strncmp(hear->topic, header->method, strlen(hear->topic)) != 0)
            continue;
        call_t *call = inside_call_new(actor, true);
        entry_t *entry = inside_entry(call, ENTRY_EVENT, NULL);
        entry->fn.hear = hear;
        entry->with.event.topic = arena_strdup(call->arena, header->method);
        entry->with.event.body =
            (bytes_t){arena_copy(call->arena, body.data, body.size), body.size};
        inside_queue(actor, entry);
    }
}

/* The kind decides who decodes the rest; a CALL is decoded into the arena of its call. */
void actor_on_frame(actor_t *actor, const route_t *route, bytes_t header_bytes, bytes_t body)
{
    bytes_t kind;
    if (route && mp_get(header_bytes, "kind", &kind) && mp_equals(kind, "call")) {
        take_call(actor, route, header_bytes, body);
        return;
    }
    arena_t *arena = spare_arena(actor);
    header_t header;
    err_t err = frame_decode(header_bytes, body, arena, &header);
    if (err_is(err))
        actor->malformed++;
    else if (route && header.kind == FRAME_CANCEL)
        take_cancel(actor, &header);
    else if (route && header.kind == FRAME_PING)
        take_ping(actor, route, &header);
    else if (!route && header.kind == FRAME_EVENT && header.method)
        take_event(actor, &header, body);
    else if (!route)
        inside_peer_frame(actor, &header, body);
    else
        actor->malformed++;
    give_arena(actor, arena);
}

static bytes_t copy_bytes(arena_t *arena, bytes_t bytes)
{
    return (bytes_t){(uint8_t *)arena_strndup(arena, (const char *)bytes.data, bytes.size),
                     bytes.size};
}

void actor_on_child(actor_t *actor, uint64_t token, const child_outcome_t *outcome)
{
    operation_t *operation = inside_operation_find(actor, token);
    if (!operation)
        return;
    call_t *call = operation->call;
    entry_t *entry = inside_entry(call, ENTRY_CHILD, operation->ctx);
    entry->fn.child = operation->fn.child;
    entry->with.child = *outcome;
    entry->with.child.err.what = arena_strdup(call->arena, outcome->err.what);
    entry->with.child.output = copy_bytes(call->arena, outcome->output);
    entry->with.child.errors = copy_bytes(call->arena, outcome->errors);
    operation->kind = OPERATION_DONE;
    inside_operation_drop(operation);
    inside_queue(actor, entry);
}

void actor_on_http(actor_t *actor, uint64_t token, const http_call_outcome_t *outcome)
{
    operation_t *operation = inside_operation_find(actor, token);
    if (!operation)
        return;
    call_t *call = operation->call;
    entry_t *entry = inside_entry(call, ENTRY_HTTP, operation->ctx);
    entry->fn.http = operation->fn.http;
    entry->with.http = *outcome;
    entry->with.http.err.what = arena_strdup(call->arena, outcome->err.what);
    entry->with.http.content_type = arena_strdup(call->arena, outcome->content_type);
    entry->with.http.body = copy_bytes(call->arena, outcome->body);
    operation->kind = OPERATION_DONE;
    inside_operation_drop(operation);
    inside_queue(actor, entry);
}

/* ---- Life ---- */

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
    if (!actor->in_batch)
        actor_step(actor);
}

void actor_resume(actor_t *actor, call_t *parked, resume_fn_t *fn, void *ctx)
{
    if (parked->state == CALL_ENDED)
        return;
    entry_t *entry = inside_entry(parked, ENTRY_RESUME, ctx);
    entry->fn.resume = fn;
    inside_queue(actor, entry);
}

void actor_cancel(actor_t *actor, call_t *call)
{
    if (call->state != CALL_ENDED)
        end_parked(actor, call);
}

/* The tables of the definition and behind them those of the skeleton. */
static store_table_t *all_tables(const actor_def_t *def, arena_t *arena, int *own)
{
    *own = 0;
    while (def->tables[*own].name)
        (*own)++;
    store_table_t *tables = ARENA_ARRAY(arena, store_table_t, (size_t)*own + 3);
    memcpy(tables, def->tables, (size_t)*own * sizeof(store_table_t));
    memcpy(tables + *own, inside_outcome_tables, sizeof(inside_outcome_tables));
    return tables;
}

err_t actor_store_open(const actor_def_t *def, const char *data_dir, arena_t *arena,
                       store_pool_t **out)
{
    int own;
    if (!def->tables)
        return err_make(arena, ERR_ARGUMENT, "%s has no store", def->name);
    store_pool_options_t options = {.dir = arena_printf(arena, "%s/%s", data_dir, def->name),
                                    .tables = all_tables(def, arena, &own),
                                    .format = def->format};
    return store_pool_open(&options, out, arena);
}

static void wake(void *ctx)
{
    actor_t *actor = ctx;
    actor->env->ops->wake(actor->env);
}

static err_t open_store(actor_t *actor, const actor_options_t *options, arena_t *arena)
{
    if (!actor->def->tables) {
        actor->env->ops->random(actor->env, &actor->epoch, sizeof(actor->epoch));
        actor->epoch = (actor->epoch >> 2) | 1;
        return err_ok();
    }
    int own;
    actor->tables = all_tables(actor->def, actor->arena, &own);
    actor->outcomes_table = own;
    actor->keys_table = own + 1;
    store_pool_options_t store = {
        .dir = arena_printf(actor->arena, "%s/%s", actor->data_dir, actor->def->name),
        .tables = actor->tables,
        .format = actor->def->format,
        .open_limit = (int)actor->limits.open_companies,
        .largest_bytes = actor->limits.company_bytes,
        .fault = options->store_fault,
        .nosync = options->store_nosync,
        .synced = actor->env->ops->wake ? wake : NULL,
        .synced_ctx = actor,
    };
    err_t err = store_pool_open(&store, &actor->pool, arena);
    if (!err_is(err))
        actor->epoch = store_pool_epoch(actor->pool);
    return err;
}

RECORD_DEFINE(limits, limits_FIELDS)

static err_t load_settings(actor_t *actor, const actor_options_t *options, const record_t *record,
                           const char *prefix, arena_t *arena, void *out)
{
    err_t err = settings_load(record, prefix, options->settings, options->environment,
                              actor->data_dir, actor->arena, out);
    return err_is(err) ? err_make(arena, err.code, "%s", err_what(err)) : err;
}

static err_t open_state(actor_t *actor, const actor_options_t *options, arena_t *arena)
{
    if (actor->def->settings) {
        void *settings = arena_alloc(actor->arena, actor->def->settings->size);
        err_t err =
            load_settings(actor, options, actor->def->settings, actor->def->name, arena, settings);
        if (err_is(err))
            return err;
        *(void **)actor->self = settings;
    }
    return err_ok();
}

typedef struct opening {
    err_t err;
    bool ran, done; /* done: and what it wrote is on disk */
} opening_t;

static void opened(void *self, void *ctx)
{
    opening_t *state = ctx;
    (void)self;
    state->done = true;
}

static err_t opening(void *self, call_t *call, void *ctx)
{
    actor_t *actor = call->actor;
    opening_t *state = ctx;
    err_t err = actor->def->open ? actor->def->open(self, call) : err_ok();
    state->err = err_is(err) ? err_make(actor->arena, err.code, "%s", err_what(err)) : err;
    state->ran = true;
    call_after_commit(call, opened, state);
    call->work = NULL; /* a failed opening is not tried again */
    return err;
}

/* A commit that needs a larger map puts the entry back in the queue. */
static err_t run_open(actor_t *actor, arena_t *arena)
{
    opening_t state = {err_ok(), false, false};
    actor_work(actor, 0, opening, &state);
    do
        actor_step(actor);
    while (!state.done && !actor->failed && !err_is(state.err) && actor->queue);
    if (actor->failed)
        return err_of(ERR_IO, "the store failed while the actor opened");
    if (err_is(state.err))
        return err_make(arena, state.err.code, "%s", err_what(state.err));
    if (!state.done)
        return err_of(ERR_FULL, "no space is left for what the actor writes as it opens");
    return err_ok();
}

/* A row that contradicts itself would be found by the first caller only. */
static err_t check_rows(const actor_t *actor, arena_t *arena)
{
    err_t err = actor->def->settings ? record_check(actor->def->settings, arena) : err_ok();
    for (const method_t *method = actor->methods; method->name && !err_is(err); method++) {
        err = record_check(method->args, arena);
        if (!err_is(err))
            err = record_check(method->reply, arena);
    }
    return err;
}

static void subscribe_all(actor_t *actor)
{
    for (const hear_t *hear = actor->def->hears; hear && hear->publisher; hear++)
        actor->env->ops->subscribe(actor->env, hear->publisher, hear->topic);
}

static int count_methods(const method_t *table)
{
    int count = 0;
    while (table && table[count].name)
        count++;
    return count;
}

/* One list of the tables of the definition. */
static void gather_methods(actor_t *actor)
{
    const actor_def_t *def = actor->def;
    int count = count_methods(def->methods);
    for (const method_t *const *more = def->more_methods; more && *more; more++)
        count += count_methods(*more);
    method_t *all = ARENA_ARRAY(actor->arena, method_t, (size_t)count + 1);
    int at = count_methods(def->methods);
    if (at)
        memcpy(all, def->methods, (size_t)at * sizeof(method_t));
    for (const method_t *const *more = def->more_methods; more && *more; more++) {
        memcpy(all + at, *more, (size_t)count_methods(*more) * sizeof(method_t));
        at += count_methods(*more);
    }
    actor->methods = all;
    actor->method_count = count;
}

static actor_t *actor_new(const actor_def_t *def, actor_env_t *env, const actor_options_t *options)
{
    actor_t *actor = calloc(1, sizeof(*actor));
    if (!actor)
        abort();
    actor->arena = arena_new();
    actor->batch_arena = arena_new();
    actor->def = def;
    actor->env = env;
    actor->self = arena_alloc(actor->arena, def->size ? def->size : 1);
    actor->instance = arena_strdup(actor->arena, options->instance ? options->instance : def->name);
    actor->data_dir = arena_strdup(actor->arena, options->data_dir ? options->data_dir : ".");
    actor->default_company =
        arena_strdup(actor->arena, options->default_company ? options->default_company : "default");
    actor->queue_end = &actor->queue;
    actor->started_ms = env->ops->wall_ms(env);
    gather_methods(actor);
    actor->stats = ARENA_ARRAY(actor->arena, method_stats_t,
                               (size_t)(actor->method_count + inside_builtin_count()));
    return actor;
}

err_t actor_open(const actor_def_t *def, actor_env_t *env, const actor_options_t *options,
                 arena_t *arena, actor_t **out)
{
    actor_t *actor = actor_new(def, env, options);
    *out = NULL;
    err_t err = check_rows(actor, arena);
    if (!err_is(err))
        err = load_settings(actor, options, &limits_record, "limits", arena, &actor->limits);
    if (!err_is(err))
        err = open_store(actor, options, arena);
    if (!err_is(err)) {
        uint64_t life;
        env->ops->random(env, &life, sizeof(life));
        actor->from = arena_printf(actor->arena, "%s-%" PRIx64, actor->instance, life);
        err = open_state(actor, options, arena);
    }
    if (!err_is(err))
        err = run_open(actor, arena);
    if (err_is(err)) {
        actor_abandon(&actor);
        return err;
    }
    subscribe_all(actor);
    if (actor->pool)
        inside_timer(actor, TICK_MS, NULL)->tick = tick;
    *out = actor;
    return err_ok();
}

static void end_all_calls(actor_t *actor, bool answer)
{
    while (actor->calls) {
        call_t *call = actor->calls;
        while (call && call->state == CALL_ENDED)
            call = call->next;
        if (!call)
            break;
        call_gone(call);
        if (answer && !call->internal)
            inside_reply(call, err_of(ERR_DRAINING, NULL), NULL, (bytes_t){0});
        inside_call_end(call);
    }
}

static void drop_queue(actor_t *actor)
{
    while (actor->queue) {
        entry_t *entry = actor->queue;
        actor->queue = entry->next;
        inside_call_unref(entry->call);
    }
    actor->queue_end = &actor->queue;
}

static void actor_free(actor_t **handle)
{
    actor_t *actor = *handle;
    drop_queue(actor);
    while (actor->heap_count)
        inside_timer_drop(actor, actor->heap[0]);
    free(actor->heap);
    inside_peers_free(actor);
    while (actor->spare_count)
        arena_destroy(&actor->spares[--actor->spare_count]);
    arena_destroy(&actor->batch_arena);
    arena_destroy(&actor->arena);
    free(actor);
    *handle = NULL;
}

void actor_close(actor_t **handle)
{
    actor_t *actor = *handle;
    if (!actor)
        return;
    actor->closing = true;
    end_all_calls(actor, true);
    if (actor->def->close)
        actor->def->close(actor->self);
    if (actor->pool)
        store_pool_close(&actor->pool);
    actor_free(handle);
}

void actor_abandon(actor_t **handle)
{
    actor_t *actor = *handle;
    if (!actor)
        return;
    actor->closing = actor->failed = true;
    end_all_calls(actor, false);
    if (actor->def->close)
        actor->def->close(actor->self);
    if (actor->pool)
        store_pool_abandon(&actor->pool);
    actor_free(handle);
}

void actor_drain(actor_t *actor)
{
    actor->draining = true;
}

bool actor_idle(const actor_t *actor)
{
    bool done = !actor->def->drained || actor->def->drained(actor->self);
    return done && !actor->queue && !actor->live;
}

int64_t actor_mono_us(actor_t *actor)
{
    return actor->env->ops->mono_us(actor->env);
}

int64_t actor_wall_ms(actor_t *actor)
{
    return actor->env->ops->wall_ms(actor->env);
}

bool actor_draining(const actor_t *actor)
{
    return actor->draining;
}

const actor_def_t *actor_definition(const actor_t *actor)
{
    return actor->def;
}

uint64_t actor_epoch(const actor_t *actor)
{
    return actor->epoch;
}

const char *actor_default_company(const actor_t *actor)
{
    return actor->default_company;
}

const char *actor_data_dir(const actor_t *actor)
{
    return actor->data_dir;
}

const char *actor_instance(const actor_t *actor)
{
    return actor->instance;
}
