/* task_status: notifications/tasks/status on the stream of the session that began a task (version
 * 2025-11-25). They are hints, as the specification has them: what is watched is only remembered
 * here, and tasks/get knows the truth. */
#include "actors/gateway/parts.h"

#include <string.h>

enum { ASK_MS = 5000 };

struct task_watch {
    task_watch_t *next;
    arena_t *arena;
    const char *session, *run, *company, *task;
    principal_t principal;
};

static void watch_free(task_watch_t *watch)
{
    arena_t *arena = watch->arena; /* it holds itself */
    arena_destroy(&arena);
}

void task_status_watch(const exchange_t *exchange, const char *run, const char *company,
                       const char *task)
{
    gateway_t *self = exchange->gateway;
    arena_t *arena = arena_new();
    task_watch_t *watch = ARENA_NEW(arena, task_watch_t);
    *watch = (task_watch_t){.next = self->task_watches,
                            .arena = arena,
                            .session = arena_strdup(arena, exchange->session.id),
                            .run = arena_strdup(arena, run),
                            .company = arena_strdup(arena, company ? company : ""),
                            .task = arena_strdup(arena, task),
                            .principal = principal_copy(arena, &exchange->principal)};
    self->task_watches = watch;
    task_watch_t **at = &self->task_watches;
    for (int64_t i = 0; *at && i < self->settings->max_watched_tasks; i++)
        at = &(*at)->next;
    while (*at) { /* the oldest make room */
        task_watch_t *old = *at;
        *at = old->next;
        watch_free(old);
    }
}

static void drop(gateway_t *self, const char *session, const char *task)
{
    for (task_watch_t **at = &self->task_watches; *at;) {
        task_watch_t *watch = *at;
        if (strcmp(watch->session, session) != 0 || (task && strcmp(watch->task, task) != 0)) {
            at = &watch->next;
            continue;
        }
        *at = watch->next;
        watch_free(watch);
    }
}

void task_status_forget(gateway_t *self, const char *session)
{
    drop(self, session, NULL);
}

void task_status_close(gateway_t *self)
{
    while (self->task_watches) {
        task_watch_t *watch = self->task_watches;
        self->task_watches = watch->next;
        watch_free(watch);
    }
}

/* ---- One that changed ---- */

typedef struct asked {
    arena_t *arena;
    const char *session, *run, *company, *task;
    principal_t principal;
} asked_t;

static void asked_free(asked_t *asked)
{
    arena_t *arena = asked->arena;
    arena_destroy(&arena);
}

static err_t on_run(void *state, call_t *call, void *unused, const peer_answer_t *got, void *ctx)
{
    asked_t *asked = ctx;
    gateway_t *self = state;
    buf_t out;
    (void)unused;
    if (!err_is(got->err)) {
        buf_open(&out, asked->arena);
        buf_puts(&out,
                 "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tasks/status\",\"params\":{");
        run_task_put_legacy(asked->arena, got->body, asked->task, call_now_ms(call), false, &out);
        buf_puts(&out, "}}");
        stream_send(self, asked->session, out.data);
    }
    if (got->err.code == ERR_NOT_FOUND ||
        (!err_is(got->err) && run_task_over(asked->arena, got->body)))
        drop(self, asked->session, asked->task);
    call_on_gone(call, NULL, NULL);
    asked_free(asked);
    return err_ok();
}

static void lost(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)call;
    asked_free(ctx);
}

static err_t begin(void *state, call_t *call, void *ctx)
{
    asked_t *asked = ctx;
    (void)state;
    const exchange_t exchange = {
        .gateway = state, .arena = asked->arena, .principal = asked->principal};
    const pending_t pending = {.exchange = (exchange_t *)&exchange,
                               .company = *asked->company ? asked->company : NULL};
    peer_call_t request = pending_request(&pending, "agent", "run_get",
                                          pending_args(&pending, "id", asked->run, NULL, NULL));
    request.timeout_ms = ASK_MS;
    call_peer(call, &request, on_run, asked);
    call_on_gone(call, lost, asked);
    return call_park(call);
}

void task_status_changed(gateway_t *self, const char *company, const char *run)
{
    for (const task_watch_t *at = self->task_watches; at; at = at->next) {
        if (strcmp(at->run, run) != 0 || (*at->company && strcmp(at->company, company) != 0) ||
            !stream_send(self, at->session, NULL))
            continue;
        arena_t *arena = arena_new();
        asked_t *asked = ARENA_NEW(arena, asked_t);
        *asked = (asked_t){.arena = arena,
                           .session = arena_strdup(arena, at->session),
                           .run = arena_strdup(arena, at->run),
                           .company = arena_strdup(arena, at->company),
                           .task = arena_strdup(arena, at->task),
                           .principal = principal_copy(arena, &at->principal)};
        actor_work(self->actor, 0, begin, asked);
    }
}
