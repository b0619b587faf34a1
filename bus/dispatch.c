/* The one choke point: finds the method of a call, checks role, arguments and company, runs it, and
 * encodes its reply. All that an actor ever runs goes through inside_run_entry. */
#include <string.h>

#include "bus/bug.h"
#include "bus/inside.h"

const method_t *inside_find_method(const actor_t *actor, const char *name)
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
    call->method = inside_find_method(call->actor, call->header.method);
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
    *found = call->repeated = true;
    call->actor->duplicates++;
    output_t *output = inside_output(call, OUTPUT_REPLY);
    output->topic = arena_strdup(call->arena, text);
    output->body = (bytes_t){arena_copy(call->arena, body.data, body.size), body.size};
    return err_ok();
}

static bool reader_serves(const call_t *call)
{
    return call->actor->def->readers > 0 && !call->actor->lent && (call->method->flags & READS) &&
           !(call->method->flags & PARKS) && call->method->fn && !call->internal;
}

/* The peer would drop a message that is larger, and the caller wait in vain. */
static err_t encode_reply(call_t *call, bytes_t *body)
{
    buf_t out;

    buf_open(&out, call->arena);
    record_encode(call->method->reply, call->reply, &out);
    *body = buf_bytes(&out);
    if (out.size <= FRAME_BODY_LARGEST)
        return err_ok();
    return err_make(call->arena, ERR_TOO_LARGE,
                    "the answer has %zu bytes and may have %d: ask for less, for example with a "
                    "smaller limit",
                    out.size, (int)FRAME_BODY_LARGEST);
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
    if (!err_is(call->read_err))
        call->read_err = encode_reply(call, &call->read_body);
    if (call->read_txn)
        store_abort(&call->read_txn);
}

err_t inside_read_start(call_t *call)
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
        return inside_read_start(call);
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
    err_t err = encode_reply(call, &output->body);
    if (err_is(err))
        return err;
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

static bool has_written(const call_t *call)
{
    for (const touch_t *touch = call->touches; touch; touch = touch->next)
        if (store_writes(touch->txn) != touch->writes)
            return true;
    return false;
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

void inside_run_entry(entry_t *entry)
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
    bool wrote = has_written(call);
    err = close_touches(call, err);
    entry->result = err;
    inside_audit(entry, err, wrote);
    take_outputs(call, entry);
    entry->ended = err.code != ERR_PARKED;
    if (err.code == ERR_PARKED && call->state == CALL_RUNNING)
        call->state = CALL_PARKED;
}
