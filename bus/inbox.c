/* What arrives at an actor: frames, outcomes of commands and of HTTP calls. It becomes entries of
 * the next batch, or is refused at once. */
#include <string.h>

#include "bus/inside.h"
#include "proto/mp.h"

/* A call that states no deadline, and the longest that one may be: a day. */
enum { DEADLINE_MS = 60000, LONGEST_CALL_MS = 86400000 };

static void refuse(actor_t *actor, const route_t *route, const header_t *header, err_t err)
{
    call_t call = {
        .actor = actor, .arena = inside_arena_take(actor), .route = *route, .header = *header};
    inside_send(&call, FRAME_REPLY, err, NULL, (bytes_t){0});
    inside_arena_give(actor, call.arena);
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

/* Its header and body are there. */
static void enter(actor_t *actor, call_t *call)
{
    if (!admit_frame(actor, &call->route, call)) {
        inside_call_end(call);
        return;
    }
    int64_t left = call->header.has_deadline_ms ? call->header.deadline_ms : DEADLINE_MS;
    if (left < 1)
        left = 1;
    call->deadline_us = call->started_us + (left < LONGEST_CALL_MS ? left : LONGEST_CALL_MS) * 1000;
    inside_queue(actor, inside_entry(call, ENTRY_CALL, NULL));
}

static call_t *call_from(actor_t *actor, const route_t *route, bytes_t body)
{
    call_t *call = inside_call_new(actor, false);
    call->started_us = actor_mono_us(actor);
    call->route = *route;
    call->body = (bytes_t){arena_copy(call->arena, body.data, body.size), body.size};
    return call;
}

static void take_call(actor_t *actor, const route_t *route, bytes_t header_bytes, bytes_t body)
{
    call_t *call = call_from(actor, route, body);
    bytes_t header = {arena_copy(call->arena, header_bytes.data, header_bytes.size),
                      header_bytes.size};
    err_t err = frame_decode(header, call->body, call->arena, &call->header);
    if (err_is(err) || !call->header.from) {
        actor->malformed++;
        inside_call_end(call);
        return;
    }
    enter(actor, call);
}

void inside_take_header(actor_t *actor, const route_t *route, const header_t *header, bytes_t body)
{
    call_t *call = call_from(actor, route, body);
    header_t *kept = &call->header;
    *kept = *header;
    kept->from = arena_strdup(call->arena, header->from);
    kept->method = arena_strdup(call->arena, header->method);
    kept->company = arena_strdup(call->arena, header->company);
    kept->principal = arena_strdup(call->arena, header->principal);
    kept->key = arena_strdup(call->arena, header->key);
    kept->traceparent = arena_strdup(call->arena, header->traceparent);
    const char **companies = ARENA_ARRAY(call->arena, const char *, header->companies.count);
    for (size_t i = 0; i < header->companies.count; i++)
        companies[i] = arena_strdup(call->arena, header->companies.items[i]);
    kept->companies.items = companies;
    enter(actor, call);
}

void inside_call_stop(actor_t *actor, call_t *call)
{
    if (call->state == CALL_READING) {
        call->cancelled = true;
        return;
    }
    if (actor->in_batch && call->state == CALL_RUNNING)
        return;
    inside_call_gone(call);
    inside_call_end(call);
}

static void take_cancel(actor_t *actor, const header_t *header)
{
    call_t *call = find_call(actor, header, NULL);
    /* Work that has begun to write is finished, its answer goes nowhere. */
    if (call && call->state != CALL_RUNNING)
        inside_call_stop(actor, call);
}

static void take_ping(actor_t *actor, const route_t *route, const header_t *ping)
{
    call_t call = {
        .actor = actor, .arena = inside_arena_take(actor), .route = *route, .header = *ping};
    inside_send(&call, FRAME_PONG, err_ok(), actor->instance, (bytes_t){0});
    inside_arena_give(actor, call.arena);
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
    arena_t *arena = inside_arena_take(actor);
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
    inside_arena_give(actor, arena);
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

void actor_cancel(actor_t *actor, call_t *call)
{
    if (call->state != CALL_ENDED)
        inside_call_stop(actor, call);
}
