#include "bus/actor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/inside.h"
#include "bus/settings.h"

enum { TICK_MS = 60000 };

/* ---- The store ---- */

static void tick(actor_t *actor)
{
    if (actor->pool) {
        store_pool_tick(actor->pool, actor->env->ops->wall_ms(actor->env));
        inside_outcome_trim(actor);
    }
    inside_timer(actor, TICK_MS, NULL)->tick = tick;
}

/* The tables of the definition and behind them those of the skeleton. */
static store_table_t *all_tables(const actor_def_t *def, arena_t *arena, int *own)
{
    *own = 0;
    while (def->tables[*own].name)
        (*own)++;
    store_table_t *tables = ARENA_ARRAY(arena, store_table_t, (size_t)*own + 4);
    memcpy(tables, def->tables, (size_t)*own * sizeof(store_table_t));
    memcpy(tables + *own, inside_outcome_tables, sizeof(inside_outcome_tables));
    tables[*own + 2] = inside_audit_table; /* audit_read looks there as well */
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
    actor->audit_table = own + 2;
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

/* ---- Opening ---- */

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
        err = load_settings(actor, options, &audit_settings_record, "audit", arena, &actor->audit);
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

/* ---- Closing ---- */

static void end_all_calls(actor_t *actor, bool answer)
{
    while (actor->calls) {
        call_t *call = actor->calls;
        while (call && call->state == CALL_ENDED)
            call = call->next;
        if (!call)
            break;
        inside_call_gone(call);
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
    inside_audit_free(actor);
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
    if (actor->pool) {
        inside_audit_close(actor);
        store_pool_close(&actor->pool);
    }
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

/* ---- What others ask ---- */

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
