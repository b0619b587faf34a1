/* follow: waiting for a run: a tools/call of sop_execute, or tasks/result. Steps that end are told
 * as progress; what the run asks is asked of the client, when it can answer. The run itself is in
 * the durable queue: when this process or the agent dies it goes on, and can be waited for again.
 */
#include "actors/gateway/parts.h"

#include <stdlib.h>
#include <string.h>

#include "actors/gateway/args.h"
#include "proto/json.h"
#include "proto/mp.h"

enum {
    SLICE_MS = 10000, /* between two looks whether the client is still there */
    SLACK_MS = 15000  /* for an agent that is just being started again */
};

static err_t wait_on(gateway_t *self, call_t *call, pending_t *pending);

/* Once, and as long as the agent thinks right. */
static bool waits_once(const pending_t *pending)
{
    return !pending->task && pending->until_us < 0;
}

static bool time_left(const gateway_t *self, const pending_t *pending)
{
    return pending->task || actor_mono_us(self->actor) < pending->until_us;
}

/* ---- Calling it off ---- */

typedef struct off {
    arena_t *arena;
    peer_call_t request;
} calling_off_t;

static void off_free(calling_off_t *off)
{
    arena_t *arena = off->arena; /* it holds itself */
    arena_destroy(&arena);
}

static err_t on_off(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self;
    (void)reply;
    (void)got; /* it may just have ended */
    call_on_gone(call, NULL, NULL);
    off_free(ctx);
    return err_ok();
}

static void off_lost(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)call;
    off_free(ctx);
}

static err_t begin_off(void *self, call_t *call, void *ctx)
{
    calling_off_t *off = ctx;
    (void)self;
    call_peer(call, &off->request, on_off, off);
    call_on_gone(call, off_lost, off);
    return call_park(call);
}

/* In the client's name, and in memory of its own: its exchange ends now. */
static void call_off(const pending_t *pending)
{
    arena_t *arena = arena_new();
    calling_off_t *off = ARENA_NEW(arena, calling_off_t);
    off->arena = arena;
    off->request = pending_request(
        pending, "agent", "task_cancel",
        pending_args(pending, "id", pending->run, "why", "called off by its client"));
    peer_call_t *request = &off->request;
    request->args.data = arena_copy(arena, request->args.data, request->args.size);
    request->principal = arena_strdup(arena, request->principal);
    request->traceparent = arena_strdup(arena, request->traceparent);
    const char **companies = ARENA_ARRAY(arena, const char *, request->companies.count + 1);
    for (size_t i = 0; i < request->companies.count; i++)
        companies[i] = arena_strdup(arena, request->companies.items[i]);
    request->companies.items = companies;
    actor_work(pending->exchange->gateway->actor, 0, begin_off, off);
}

bool follow_cancel(pending_t *pending)
{
    if (pending->beginning) { /* its id is not known yet: on_begun sees to it */
        pending->called_off = true;
        return true;
    }
    if (pending->run && pending->owns_run)
        call_off(pending);
    return false;
}

/* ---- Answering ---- */

static err_t answer(pending_t *pending, call_t *call, const peer_answer_t *got)
{
    arena_t *arena = pending->exchange->arena;
    buf_t out;
    buf_open(&out, arena);
    if (pending->task) {
        mcp_open_result(&out, &pending->message, AGENCY_VERSION);
        run_task_put_result(arena, got->body, got->text, pending->task, &out);
        mcp_close_result(&out);
    } else {
        mcp_put_tool_result(&out, &pending->message, AGENCY_VERSION, got->text, got->body, false);
    }
    exchange_answer(pending->exchange, 200, out.data);
    return pending_done(pending, call);
}

/* ---- What the run asks ---- */

static bool can_elicit(const pending_t *pending, bytes_t run)
{
    bytes_t capabilities;
    const char *key = run_task_key(pending->exchange->arena, run);
    if (pending->undecided && !strcmp(pending->undecided, key))
        return false;
    return pending->message.modern
               ? !pending->task &&
                     mcp_meta(&pending->message, "clientCapabilities", &capabilities) &&
                     mcp_shows_forms(capabilities)
               : ask_can(pending->exchange, "elicitation/create");
}

static bool can_ask(const pending_t *pending, bytes_t run)
{
    return sampling_fits(pending, run_task_waiting(run)) || can_elicit(pending, run);
}

static err_t on_told(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    (void)unused;
    (void)got;           /* it went on meanwhile: as good */
    pending->rounds = 0; /* a run ends after its steps, however many ask */
    return wait_on(state, call, ctx);
}

/* What was said decides nothing: whom to ask next. What a person only said wrong is asked again. */
static void on_no_answer(pending_t *pending, bytes_t run)
{
    bytes_t said = run_task_reply(pending, run);
    if (!said.size) /* nothing, or an answer to a question of before */
        return;
    if (pending->sampling || sampling_answered(pending, run)) /* a person may know better */
        pending->unsampled = sampling_number(run_task_waiting(run));
    else if (!mp_equals(mp_member(said, "action"), "accept")) {
        pending->undecided = run_task_key(pending->exchange->arena, run);
        pending->mute = pending->inner;
    }
}

static peer_call_t ask_run(const pending_t *pending, const char *id)
{
    return pending_request(pending, "agent", "run_get",
                           pending_args(pending, "id", id, NULL, NULL));
}

static err_t on_asked(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    peer_call_t request;
    (void)unused;
    if (err_is(got->err))
        return pending_fail(pending, call, got->err);
    const char *inner = mp_member_text(pending->exchange->arena, got->body, "asks");
    if (inner && !pending->inner) {
        pending->inner = inner;
        request = ask_run(pending, inner);
        call_peer(call, &request, on_asked, pending);
        return call_park(call);
    }
    const char *id = pending->inner ? pending->inner : pending->run;
    if (!run_task_answer(pending, got->body, id, &request)) {
        on_no_answer(pending, got->body);
        return wait_on(state, call, pending);
    }
    pending->responses = (bytes_t){0};
    call_peer(call, &request, on_told, pending);
    return call_park(call);
}

/* The client has answered: to the step that waits now. */
static err_t tell(void *state, call_t *call, void *unused, void *ctx)
{
    pending_t *pending = ctx;
    (void)state;
    (void)unused;
    peer_call_t request = ask_run(pending, pending->run);
    pending->call = call;
    pending->inner = NULL;
    call_peer(call, &request, on_asked, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

/* What a modern client brings back: the run, whether its model was asked (+) or is not to be asked
 * again (-) about a step, and which. */
static const char *state_of(const pending_t *pending, bytes_t step)
{
    int64_t about = pending->sampling ? sampling_number(step) : pending->unsampled;
    return arena_printf(pending->exchange->arena, "%s%c%lld", pending->run,
                        pending->sampling ? '+' : '-', (long long)about);
}

static void take_state(pending_t *pending)
{
    size_t size = strcspn(pending->state, "+-");
    pending->run = arena_strndup(pending->exchange->arena, pending->state, size);
    pending->sampling = pending->state[size] == '+';
    if (pending->state[size] == '-')
        pending->unsampled = strtoll(pending->state + size + 1, NULL, 10);
}

static err_t ask(pending_t *pending, call_t *call, bytes_t run)
{
    arena_t *arena = pending->exchange->arena;
    bytes_t step = run_task_waiting(run), inputs;
    buf_t reply;
    pending->sampling = sampling_fits(pending, step);
    const char *json = pending->sampling ? sampling_question(pending, run, step)
                                         : run_task_question(arena, run, pending->task);
    if (err_is(json_to_msgpack(arena, json, strlen(json), NULL, &inputs)))
        return pending_fail(pending, call, err_of(ERR_INTERNAL, "the run asks nonsense"));
    if (!pending->message.modern) {
        pending->again = tell;
        return ask_legacy(pending, call, inputs);
    }
    buf_open(&reply, arena);
    mp_put_map(&reply, 2);
    mp_put_str(&reply, "inputs");
    mp_put_raw(&reply, inputs);
    mp_put_str(&reply, "state");
    mp_put_str(&reply, state_of(pending, step));
    return ask_modern(pending, call, buf_bytes(&reply));
}

/* ---- Waiting ---- */

/* Between two steps the client hears that it is still going on: nearer to the next one, never
 * there. */
static void heartbeat(pending_t *pending)
{
    buf_t note;
    double last = pending->progress < 0 ? 0 : pending->progress;
    double next = (double)((int64_t)last + 1);
    if (!pending->message.progress_token.size)
        return;
    buf_open(&note, pending->exchange->arena);
    mp_put_map(&note, 2);
    mp_put_str(&note, "progress");
    mp_put_real(&note, last + (next - last) / 10);
    mp_put_str(&note, "message");
    mp_put_str(&note, "still at work");
    pending_note(pending, buf_bytes(&note));
}

static err_t wait_again(void *state, call_t *call, void *unused, void *ctx)
{
    (void)unused;
    return wait_on(state, call, ctx);
}

/* Nobody is there who could still fetch the answer. */
static bool alone(pending_t *pending)
{
    const exchange_t *exchange = pending->exchange;
    if (exchange->request || exchange->old_door)
        return false;
    return !exchange->replay ||
           (int64_t)++pending->alone * SLICE_MS > exchange->gateway->settings->keep_answer_s * 1000;
}

/* A run inside of the one that is followed asks, or did until just now. */
static err_t on_inner(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    (void)unused;
    if (err_is(got->err) || !run_task_asks(pending->exchange->arena, got->body)) {
        call_resume_after(call, RUN_POLL_MS, wait_again, pending);
        return call_park(call);
    }
    if (can_ask(pending, got->body))
        return ask(pending, call, got->body);
    pending->mute = pending->inner; /* this client cannot say, or does not want to */
    return wait_on(state, call, pending);
}

static err_t on_waited(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    gateway_t *self = state;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    if (got->progress) {
        pending_note(pending, got->body);
        return call_park(call);
    }
    bool away = got->err.code == ERR_UNAVAILABLE || got->err.code == ERR_TIMEOUT ||
                got->err.code == ERR_DRAINING;
    if (got->err.code == ERR_NOT_FOUND && pending->task)
        return pending_refuse(pending, call, tasks_unknown(&pending->message));
    if (err_is(got->err) && (!away || !time_left(self, pending)))
        return pending_fail(pending, call, got->err);
    if (!err_is(got->err) && run_task_over(arena, got->body))
        return answer(pending, call, got);
    bool asks = !err_is(got->err) && run_task_asks(arena, got->body);
    pending->inner = asks ? mp_member_text(arena, got->body, "asks") : NULL;
    if (pending->inner && (!pending->mute || strcmp(pending->mute, pending->inner) != 0)) {
        peer_call_t request = ask_run(pending, pending->inner);
        call_peer(call, &request, on_inner, pending);
        return call_park(call);
    }
    if (asks && !pending->inner && can_ask(pending, got->body))
        return ask(pending, call, got->body);
    if (!pending->task && (asks || !time_left(self, pending)))
        return answer(pending, call, got);
    if (alone(pending))
        return pending_done(pending, call); /* nobody is left to be told; the run goes on */
    heartbeat(pending);
    if (!asks && !away)
        return wait_on(self, call, pending);
    call_resume_after(call, RUN_POLL_MS, wait_again, pending);
    return call_park(call);
}

static int64_t slice_ms(const gateway_t *self, const pending_t *pending)
{
    int64_t left = (pending->until_us - actor_mono_us(self->actor)) / 1000;
    return pending->task || left > SLICE_MS ? SLICE_MS : left > 0 ? left : 0;
}

static err_t wait_on(gateway_t *self, call_t *call, pending_t *pending)
{
    arena_t *arena = pending->exchange->arena;
    buf_t pairs;
    uint32_t count = 0;
    buf_open(&pairs, arena);
    args_put_text(&pairs, &count, "id", pending->run);
    args_put_text(&pairs, &count, "company", pending->company);
    int64_t slice = slice_ms(self, pending);
    if (!waits_once(pending)) {
        mp_put_str(&pairs, "wait_ms");
        mp_put_int(&pairs, slice);
        count++;
    }
    peer_call_t request =
        pending_request(pending, "agent", "run_wait", args_map(arena, &pairs, count));
    request.timeout_ms = waits_once(pending) ? tools_timeout_ms(self, RUN_TOOL) : slice + SLACK_MS;
    request.want_progress = pending->wants_notes;
    pending->call = call;
    call_peer(call, &request, on_waited, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}

err_t follow_result(void *state, call_t *call, void *ctx)
{
    return wait_on(state, call, ctx);
}

/* ---- tools/call of sop_execute ---- */

static err_t on_begun(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    pending_t *pending = ctx;
    arena_t *arena = pending->exchange->arena;
    (void)unused;
    pending->beginning = false;
    if (err_is(got->err)) {
        if (!pending->called_off)
            return tools_failed(pending, call, got->err);
        return pending_done(pending, call);
    }
    pending->run = mp_member_text(arena, got->body, "id");
    kept_on_success(pending);
    if (pending->called_off) {
        call_off(pending);
        return pending_done(pending, call);
    }
    bool asks = run_task_asks(arena, got->body) && can_ask(pending, got->body);
    bool wait = waits_once(pending) || time_left(state, pending);
    if (!asks && (!wait || run_task_over(arena, got->body) || run_task_asks(arena, got->body)))
        return answer(pending, call, got);
    return wait_on(state, call, pending);
}

err_t follow_tool(void *state, call_t *call, void *ctx)
{
    pending_t *pending = ctx;
    pending->call = call;
    if (pending->state) { /* the client comes again with its answer */
        take_state(pending);
        return tell(state, call, NULL, pending);
    }
    peer_call_t request = run_task_start(pending);
    pending->beginning = true;
    call_peer(call, &request, on_begun, pending);
    call_on_gone(call, pending_lost, pending);
    return call_park(call);
}
