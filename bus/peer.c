/* peer: calls under way to other actors, and how a lost one is called again.
 *
 * A request can be lost only with the life of the callee. So when the connection breaks (or, for
 * calls older than a few seconds, now and then anyway) the peer is pinged; when an answer shows
 * another epoch than the one the request was sent to, the same request is sent again with its age,
 * and the callee answers a WRITES call that it had already done with its first outcome. */
#include <stdlib.h>
#include <string.h>

#include "bus/inside.h"
#include "proto/mp.h"

enum { PING_LOST_MS = 40, PING_AWAY_MS = 1000, PING_IDLE_MS = 5000, LONGEST_CALL_MS = 60000 };

/* ---- The table of what is under way ---- */

static operation_t *operation_new(call_t *call, operation_kind_t kind, void *ctx, uint64_t token)
{
    actor_t *actor = call->actor;
    operation_t *operation = calloc(1, sizeof(*operation));
    if (!operation)
        abort();
    operation->token = token;
    operation->kind = kind;
    operation->call = call;
    operation->ctx = ctx;
    operation_t **bucket = &actor->operations[operation->token % TOKEN_BUCKETS];
    operation->chain = *bucket;
    *bucket = operation;
    operation->next = call->operations;
    if (call->operations)
        call->operations->prev = operation;
    call->operations = operation;
    actor->operation_count++;
    actor->peer_calls += kind == OPERATION_PEER;
    return operation;
}

operation_t *inside_operation(call_t *call, operation_kind_t kind, void *ctx)
{
    return operation_new(call, kind, ctx, ++call->actor->next_token);
}

operation_t *inside_operation_find(actor_t *actor, uint64_t token)
{
    operation_t *operation = actor->operations[token % TOKEN_BUCKETS];
    while (operation && operation->token != token)
        operation = operation->chain;
    return operation;
}

static void unlink_operation(operation_t *operation)
{
    actor_t *actor = operation->call->actor;
    operation_t **at = &actor->operations[operation->token % TOKEN_BUCKETS];
    while (*at != operation)
        at = &(*at)->chain;
    *at = operation->chain;
    if (operation->prev)
        operation->prev->next = operation->next;
    else
        operation->call->operations = operation->next;
    if (operation->next)
        operation->next->prev = operation->prev;
    actor->operation_count--;
}

static void send_small(actor_t *actor, const char *peer, frame_kind_t kind, uint64_t id)
{
    header_t header = {
        .v = FRAME_VERSION, .kind = kind, .id = (int64_t)id, .has_id = true, .from = actor->from};
    arena_t *arena = arena_new();
    buf_t out;
    buf_open(&out, arena);
    frame_encode(&header, &out);
    actor->env->ops->send(actor->env, peer, buf_bytes(&out), (bytes_t){0});
    arena_destroy(&arena);
}

/* Forgets it, and calls off what is still going on outside. */
void inside_operation_drop(operation_t *operation)
{
    actor_t *actor = operation->call->actor;
    unlink_operation(operation);
    if (operation->deadline)
        inside_timer_drop(actor, operation->deadline);
    if (operation->peer) {
        actor->peer_calls--;
        free((void *)operation->body.data);
    }
    if (operation->kind == OPERATION_PEER && !actor->failed)
        send_small(actor, operation->peer, FRAME_CANCEL, operation->token);
    else if (operation->kind == OPERATION_CHILD)
        actor->env->ops->child_kill(actor->env, operation->token);
    else if (operation->kind == OPERATION_HTTP)
        actor->env->ops->http_cancel(actor->env, operation->token);
    free(operation);
}

/* ---- Sending and sending again ---- */

static peer_t *peer_of(actor_t *actor, const char *name)
{
    for (peer_t *peer = actor->peers; peer; peer = peer->next)
        if (!strcmp(peer->name, name))
            return peer;
    peer_t *peer = ARENA_NEW(actor->arena, peer_t);
    peer->name = arena_strdup(actor->arena, name);
    peer->next = actor->peers;
    actor->peers = peer;
    return peer;
}

static void is_sent(actor_t *actor, operation_t *operation, int64_t now)
{
    if (!operation->first_us)
        operation->first_us = now;
    operation->sent_us = now;
    operation->epoch = peer_of(actor, operation->peer)->epoch;
}

static void send_call(actor_t *actor, operation_t *operation, int64_t now)
{
    operation->header.has_age_ms = operation->first_us != 0;
    if (operation->first_us)
        operation->header.age_ms = (now - operation->first_us) / 1000 + 1;
    is_sent(actor, operation, now);
    arena_t *arena = arena_new();
    buf_t out;
    buf_open(&out, arena);
    frame_encode(&operation->header, &out);
    actor->env->ops->send(actor->env, operation->peer, buf_bytes(&out), operation->body);
    arena_destroy(&arena);
}

static void ping_tick(actor_t *actor);

static void arm_ping(actor_t *actor, int64_t delay_ms)
{
    if (actor->ping_armed)
        inside_timer_drop(actor, actor->ping_armed);
    actor->ping_armed = inside_timer(actor, delay_ms, NULL);
    actor->ping_armed->tick = ping_tick;
}

static operation_t *oldest_call(actor_t *actor, const char *peer)
{
    operation_t *oldest = NULL;
    for (int i = 0; i < TOKEN_BUCKETS; i++)
        for (operation_t *at = actor->operations[i]; at; at = at->chain)
            if (at->kind == OPERATION_PEER && !strcmp(at->peer, peer) &&
                (!oldest || at->token < oldest->token))
                oldest = at;
    return oldest;
}

static void queue_answer(operation_t *operation, const peer_answer_t *answer);

static void give_up(operation_t *operation)
{
    call_t *call = operation->call;
    peer_answer_t answer = {
        .err = err_make(call->arena, ERR_UNAVAILABLE,
                        "'%s' is away: it has not answered for %lld ms, not even a ping; try "
                        "again when it is back (if %s writes, it may have been done)",
                        operation->peer, (long long)operation->away_ms, operation->header.method)};
    queue_answer(operation, &answer);
    inside_operation_drop(operation);
}

/* Ends the calls that do not want to wait for a peer that is away. Returns when the next one may
 * be due, in ms; 0: none. */
static int64_t end_away(actor_t *actor, const peer_t *peer, int64_t now)
{
    int64_t next = 0;
    for (int i = 0; i < TOKEN_BUCKETS; i++)
        for (operation_t *at = actor->operations[i], *after; at; at = after) {
            after = at->chain;
            if (at->kind != OPERATION_PEER || !at->away_ms || strcmp(at->peer, peer->name) != 0)
                continue;
            int64_t since = peer->heard_us > at->first_us ? peer->heard_us : at->first_us;
            int64_t left = at->away_ms - (now - since) / 1000;
            if (left <= 0)
                give_up(at);
            else if (!next || left < next)
                next = left;
        }
    return next;
}

static void ping_tick(actor_t *actor)
{
    actor->ping_armed = NULL;
    if (!actor->peer_calls)
        return;
    int64_t now = actor_mono_us(actor), again = PING_IDLE_MS;
    for (peer_t *peer = actor->peers; peer; peer = peer->next) {
        int64_t due = end_away(actor, peer, now);
        operation_t *oldest = oldest_call(actor, peer->name);
        if (!oldest)
            continue;
        bool old = now - oldest->sent_us >= (due ? PING_AWAY_MS : PING_IDLE_MS) * 1000;
        if (peer->lost || old)
            send_small(actor, peer->name, FRAME_PING, 0);
        int64_t soon = peer->lost ? PING_LOST_MS : due ? PING_AWAY_MS : PING_IDLE_MS;
        if (due && due < soon)
            soon = due;
        again = soon < again ? soon : again;
    }
    if (actor->peer_calls)
        arm_ping(actor, again);
}

void actor_on_lost(actor_t *actor, const char *name)
{
    peer_of(actor, name)->lost = true;
    for (int i = 0; i < TOKEN_BUCKETS; i++)
        for (operation_t *at = actor->operations[i]; at; at = at->chain)
            if (at->kind == OPERATION_PEER && !strcmp(at->peer, name))
                at->epoch = 0; /* may be lost even if the peer lives on */
    if (actor->peer_calls)
        arm_ping(actor, 0);
}

static header_t header_of(call_t *call, const peer_call_t *request, uint64_t token,
                          int64_t timeout_ms)
{
    header_t header = {.v = FRAME_VERSION,
                       .kind = FRAME_CALL,
                       .id = (int64_t)token,
                       .has_id = true,
                       .from = call->actor->from,
                       .method = request->method,
                       .company = request->company ? request->company : call->company,
                       .deadline_ms = timeout_ms,
                       .has_deadline_ms = true,
                       .key = request->key,
                       .traceparent =
                           request->traceparent ? request->traceparent : call->header.traceparent,
                       .role = (int)call_role(call),
                       .has_role = true,
                       .principal = call_principal(call),
                       .companies = call->header.companies,
                       .has_companies = call->header.has_companies};
    if (request->principal) {
        header.principal = request->principal;
        header.role = (int)request->role;
        header.companies = request->companies;
        header.has_companies = !request->any_company;
    }
    return header;
}

static void timeout_for(operation_t *operation, int64_t timeout_ms)
{
    actor_t *actor = operation->call->actor;
    operation->deadline = inside_timer(actor, timeout_ms, NULL);
    operation->deadline->operation = operation;
}

/* Freed with the operation. */
static bytes_t copy_of(bytes_t args)
{
    uint8_t *copy = malloc(args.size ? args.size : 1);
    if (!copy)
        abort();
    if (args.size)
        memcpy(copy, args.data, args.size);
    return (bytes_t){copy, args.size};
}

/* The callee may run it now, on this thread; then the answer is most often queued already. */
static bool try_here(call_t *call, const output_t *output, const header_t *header, bool *answered)
{
    actor_t *actor = call->actor;
    const peer_call_t *request = output->with.peer;
    actor->here = (here_t){.id = header->id, .call = call, .output = output};
    bool served = actor->env->ops->call_here &&
                  actor->env->ops->call_here(actor->env, request->peer, header, request->args);
    *answered = actor->here.answered;
    actor->here.call = NULL;
    return served;
}

void inside_peer_send(call_t *call, const output_t *output)
{
    const peer_call_t *request = output->with.peer;
    actor_t *actor = call->actor;
    int64_t timeout_ms = request->timeout_ms;
    if (timeout_ms <= 0)
        timeout_ms = LONGEST_CALL_MS;
    if (call_left_ms(call) < timeout_ms)
        timeout_ms = call_left_ms(call);
    header_t header = header_of(call, request, ++actor->next_token, timeout_ms);
    bool answered, served = try_here(call, output, &header, &answered);
    if (answered)
        return;
    operation_t *operation = operation_new(call, OPERATION_PEER, output->ctx, (uint64_t)header.id);
    operation->fn.answer = output->fn.answer;
    operation->peer = request->peer;
    operation->want_progress = request->want_progress;
    operation->away_ms = request->away_ms;
    operation->header = header;
    operation->body = copy_of(request->args);
    timeout_for(operation, timeout_ms);
    int64_t ping_ms = request->away_ms ? PING_AWAY_MS : PING_IDLE_MS;
    if (!actor->ping_armed || actor->ping_armed->at_us > actor_mono_us(actor) + ping_ms * 1000)
        arm_ping(actor, ping_ms);
    int64_t now = actor_mono_us(actor);
    if (served)
        is_sent(actor, operation, now);
    else
        send_call(actor, operation, now);
}

/* ---- What comes back ---- */

static void queue_for(call_t *call, answer_fn_t *fn, void *ctx, const peer_answer_t *answer)
{
    entry_t *entry = inside_entry(call, ENTRY_ANSWER, ctx);
    entry->fn.answer = fn;
    entry->with.answer = *answer;
    entry->with.answer.err.what = arena_strdup(call->arena, answer->err.what);
    entry->with.answer.text = arena_strdup(call->arena, answer->text ? answer->text : "");
    entry->with.answer.body =
        (bytes_t){arena_copy(call->arena, answer->body.data, answer->body.size), answer->body.size};
    inside_queue(call->actor, entry);
}

static void queue_answer(operation_t *operation, const peer_answer_t *answer)
{
    queue_for(operation->call, operation->fn.answer, operation->ctx, answer);
}

void inside_peer_timeout(operation_t *operation)
{
    call_t *call = operation->call;
    peer_answer_t answer = {.err = err_make(call->arena, ERR_TIMEOUT,
                                            "no answer from '%s' to %s within %lld ms",
                                            operation->peer, operation->header.method,
                                            (long long)operation->header.deadline_ms)};
    queue_answer(operation, &answer);
    inside_operation_drop(operation);
}

static void repeat_calls(actor_t *actor, const peer_t *peer)
{
    int64_t now = actor_mono_us(actor);
    for (uint64_t i = 0; i < TOKEN_BUCKETS; i++)
        for (operation_t *at = actor->operations[i]; at; at = at->chain)
            if (at->kind == OPERATION_PEER && at->epoch != peer->epoch &&
                !strcmp(at->peer, peer->name))
                send_call(actor, at, now);
}

/* Whose frame it is tells the operation; a PONG has none, so its name is in `from`. */
static void learn_epoch(actor_t *actor, peer_t *peer, uint64_t epoch, bool pong)
{
    bool changed = peer->epoch != epoch;
    peer->epoch = epoch;
    if (pong)
        peer->lost = false;
    if (changed || pong)
        repeat_calls(actor, peer);
}

static void on_pong(actor_t *actor, const header_t *header)
{
    for (peer_t *peer = actor->peers; peer; peer = peer->next)
        if (header->what && !strcmp(peer->name, header->what)) {
            peer->heard_us = actor_mono_us(actor);
            learn_epoch(actor, peer, (uint64_t)header->epoch, true);
        }
}

void actor_on_answer(actor_t *actor, const header_t *header, bytes_t body)
{
    here_t *here = &actor->here;
    if (!here->call || here->id != header->id || here->answered) {
        inside_peer_frame(actor, header, body);
        return;
    }
    const output_t *output = here->output;
    peer_answer_t answer = {.text = header->what, .body = body};
    answer.progress = header->kind == FRAME_PROGRESS;
    here->answered = !answer.progress;
    if (answer.progress && !output->with.peer->want_progress)
        return;
    if (header->err)
        answer.err = err_of(err_by_name(header->err), header->what);
    queue_for(here->call, output->fn.answer, output->ctx, &answer);
}

void inside_peer_frame(actor_t *actor, const header_t *header, bytes_t body)
{
    if (header->kind == FRAME_PONG) {
        on_pong(actor, header);
        return;
    }
    operation_t *operation = inside_operation_find(actor, (uint64_t)header->id);
    if (!operation || operation->kind != OPERATION_PEER || !header->from ||
        strcmp(header->from, actor->from) != 0)
        return;
    peer_t *peer = peer_of(actor, operation->peer);
    peer->heard_us = actor_mono_us(actor);
    operation->epoch = (uint64_t)header->epoch;
    if (!peer->epoch)
        peer->epoch = (uint64_t)header->epoch;
    peer_answer_t answer = {.text = header->what, .body = body};
    if (header->kind == FRAME_PROGRESS) {
        answer.progress = true;
        if (operation->want_progress)
            queue_answer(operation, &answer);
        return;
    }
    if (header->kind != FRAME_REPLY)
        return;
    if (header->err)
        answer.err = err_of(err_by_name(header->err), header->what);
    queue_answer(operation, &answer);
    operation->kind = OPERATION_DONE;
    inside_operation_drop(operation);
}

void inside_peers_free(actor_t *actor)
{
    actor->peers = NULL;
}
