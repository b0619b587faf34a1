/* local: the workers of one machine. The supervisor starts and ends them as <run>/workers.want
 * says; this file writes that wish, and takes a name out of it only when the worker itself has said
 * that it holds no lease and can get none. What a worker does is asked of the worker, so a new life
 * of elastic finds everything as it is. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/elastic/elastic.h"
#include "bus/host.h"
#include "proto/mp.h"

enum { MOST = LOCAL_MOST, ASK_MS = 2000, TEND_MS = 1000 };

RECORD_DEFINE(local_worker, local_worker_FIELDS)

typedef struct hand {
    bool wanted, ready, draining;
    bool asking; /* a question is on its way */
    int64_t slots, busy;
    int64_t drain_from_ms, asked_ms;
    char name[16];
} hand_t;

struct local {
    char *path, *draft;     /* of the wish */
    bool unwritten;         /* the file does not say yet what is wished */
    hand_t hands[MOST + 1]; /* by number, from 1 */
};

/* ---- The wish ---- */

/* Whole or not at all: a draft, made durable by its name. */
static err_t write_wish(local_t *local, call_t *call)
{
    FILE *file = fopen(local->draft, "we");
    local->unwritten = true;
    bool fine = file != NULL;
    for (int i = 1; i <= MOST && fine; i++)
        if (local->hands[i].wanted)
            fine = fprintf(file, "%s\n", local->hands[i].name) > 0;
    if (file && fclose(file))
        fine = false;
    if (fine && !rename(local->draft, local->path)) {
        local->unwritten = false;
        return err_ok();
    }
    return err_make(call_arena(call), ERR_IO, "cannot write %s: %s", local->path, strerror(errno));
}

static bool read_wish(local_t *local)
{
    char line[64];
    bool any = false;
    FILE *file = fopen(local->path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        for (int i = 1; i <= MOST; i++)
            if (!strcmp(line, local->hands[i].name))
                any = local->hands[i].wanted = true;
    }
    if (file)
        fclose(file);
    return any;
}

err_t local_open(elastic_t *elastic, call_t *call)
{
    const char *run_dir;
    err_t err = host_default_run_dir(actor_data_dir(elastic->actor), call_arena(call), &run_dir);
    if (err_is(err))
        return err;
    local_t *local = elastic->local = calloc(1, sizeof(*local));
    if (!local || asprintf(&local->path, "%s/workers.want", run_dir) < 0 ||
        asprintf(&local->draft, "%s/workers.draft", run_dir) < 0)
        abort();
    for (int i = 1; i <= MOST; i++)
        snprintf(local->hands[i].name, sizeof(local->hands[i].name), "worker-%d", i);
    if (read_wish(local))
        return err_ok();
    local->hands[1].wanted = true;
    return write_wish(local, call);
}

void local_destroy(local_t **handle)
{
    local_t *local = *handle;
    if (!local)
        return;
    free(local->path);
    free(local->draft);
    free(local);
    *handle = NULL;
}

int64_t local_count(const local_t *local)
{
    int64_t count = 0;
    for (int i = 1; i <= MOST; i++)
        count += local->hands[i].wanted && !local->hands[i].draining;
    return count;
}

/* ---- Asking the workers ---- */

static void ask(call_t *call, hand_t *hand, const char *method, answer_fn_t *fn)
{
    peer_call_t request = {.peer = hand->name,
                           .method = method,
                           .timeout_ms = ASK_MS,
                           .principal = "elastic",
                           .role = ROLE_ADMIN,
                           .any_company = true};
    hand->asking = true;
    call_peer(call, &request, fn, hand);
}

/* The proof: the worker says that nothing is left and nothing can come. */
static err_t on_drained(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    elastic_t *self = state;
    hand_t *hand = ctx;
    bytes_t field;
    bool idle = false;
    (void)reply;
    hand->asking = false;
    if (err_is(got->err) || !mp_get(got->body, "idle", &field) || !mp_bool(field, &idle) || !idle)
        return err_ok(); /* at work, or not there: asked again at the next look */
    if (!hand->wanted || !hand->draining)
        return err_ok();
    hand->wanted = hand->draining = hand->ready = false;
    call_log(call, LOG_INFO,
             "%s has drained in %" PRId64 " ms: it holds no lease and asks for none; it may leave",
             hand->name, call_now_ms(call) - hand->drain_from_ms);
    return write_wish(self->local, call);
}

static err_t ask_drained(void *self, call_t *call, void *ctx)
{
    (void)self;
    ask(call, ctx, "worker.drain", on_drained);
    return call_park(call);
}

static err_t on_slots(void *state, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    hand_t *hand = ctx;
    bytes_t field;
    (void)state;
    (void)reply;
    hand->asking = false;
    hand->ready = !err_is(got->err);
    if (got->err.code == ERR_DRAINING && !hand->draining) {
        hand->draining = true; /* a former life began it */
        hand->drain_from_ms = call_now_ms(call);
    }
    if (hand->ready && mp_get(got->body, "slots", &field))
        mp_int(field, &hand->slots);
    if (hand->ready && mp_get(got->body, "busy", &field))
        mp_int(field, &hand->busy);
    return err_ok();
}

static err_t ask_slots(void *self, call_t *call, void *ctx)
{
    (void)self;
    ask(call, ctx, "worker_slots", on_slots);
    return call_park(call);
}

bool local_calm(const local_t *local)
{
    for (int i = 1; i <= MOST; i++)
        if (local->hands[i].wanted && (!local->hands[i].ready || local->hands[i].draining))
            return false;
    return true;
}

void local_tend(elastic_t *elastic, call_t *call)
{
    if (elastic->local->unwritten) { /* the disk was full */
        err_t err = write_wish(elastic->local, call);
        if (err_is(err))
            call_log(call, LOG_ERROR, "cannot scale: %s", err_what(err));
    }
    int64_t now = actor_mono_us(elastic->actor) / 1000;
    for (int i = 1; i <= MOST; i++) {
        hand_t *hand = &elastic->local->hands[i];
        if (!hand->wanted || hand->asking ||
            (!hand->draining && hand->ready && now - hand->asked_ms < TEND_MS))
            continue;
        hand->asking = true; /* until the answer, whatever it is */
        hand->asked_ms = now;
        call_work(call, 0, hand->draining ? ask_drained : ask_slots, hand);
    }
}

/* ---- More and fewer ---- */

static void start_one(local_t *local, call_t *call)
{
    for (int i = 1; i <= MOST; i++) {
        hand_t *hand = &local->hands[i];
        if (hand->wanted)
            continue;
        hand->wanted = true;
        hand->ready = hand->draining = false;
        hand->busy = hand->slots = 0;
        call_log(call, LOG_INFO, "%s is wanted", hand->name);
        return;
    }
}

/* An idle one rather than a busy one, the highest number among equals. */
static hand_t *whom_to_drain(local_t *local)
{
    hand_t *best = NULL;
    for (int i = MOST; i >= 1; i--) {
        hand_t *hand = &local->hands[i];
        if (hand->wanted && !hand->draining && (!best || hand->busy < best->busy))
            best = hand;
    }
    return best;
}

static void drain_one(local_t *local, call_t *call)
{
    hand_t *hand = whom_to_drain(local);
    if (!hand)
        return;
    hand->draining = true;
    hand->drain_from_ms = call_now_ms(call);
    call_log(call, LOG_INFO, "%s is to drain, %" PRId64 " of its slots were at work", hand->name,
             hand->busy);
}

err_t local_scale(elastic_t *elastic, call_t *call, int64_t count)
{
    local_t *local = elastic->local;
    int64_t now = local_count(local);
    bool more = now < count;
    for (; now < count; now++)
        start_one(local, call);
    for (; now > count; now--)
        drain_one(local, call);
    return more ? write_wish(local, call) : err_ok();
}

local_worker_list_t local_list(const local_t *local, arena_t *arena)
{
    local_worker_list_t list = {ARENA_ARRAY(arena, local_worker_t, MOST), 0};
    for (int i = 1; i <= MOST; i++) {
        const hand_t *hand = &local->hands[i];
        if (hand->wanted)
            list.items[list.count++] = (local_worker_t){.name = hand->name,
                                                        .state = hand->draining ? "draining"
                                                                 : hand->ready  ? "ready"
                                                                                : "starting",
                                                        .slots = hand->slots,
                                                        .busy = hand->busy};
    }
    return list;
}
