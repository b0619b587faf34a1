#include "bus/sim.h"

#ifdef AGENCY_FAULTS

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

enum { NODES = 16, LOG_LARGEST = 16 << 20 };

/* One chance in so many, while there are faults. */
enum { DIE_AT_COMMIT = 150, DIE_AFTER_COMMIT = 150, DIE_AT_SEND = 800, LOSE_EVENT = 10 };

typedef enum event_kind {
    EVENT_FRAME,
    EVENT_LOST, /* a node hears that its connection broke */
    EVENT_BIRTH,
    EVENT_DEATH,
    EVENT_CHILD_EFFECT,
    EVENT_CHILD_END,
    EVENT_READ_DONE
} event_kind_t;

typedef struct event {
    struct event *next; /* sorted by time, then by order */
    int64_t at_us;
    uint64_t order;
    event_kind_t kind;
    int node;
    unsigned life; /* of the node; another one: nothing happens */
    /* Frames: */
    int from;
    unsigned from_life;
    bool back;
    bytes_t header, body;
    /* Children and reads: */
    uint64_t token;
    sim_child_t child;
    uint8_t data[];
} event_t;

typedef struct subscription {
    struct subscription *next;
    char *publisher, *topic;
} subscription_t;

typedef struct node {
    actor_env_t env; /* first */
    sim_t *sim;
    int index;
    const actor_def_t *def;
    const char *instance;
    const char *const *settings;
    bool mortal;
    actor_t *actor; /* NULL: dead */
    bool dying;     /* nothing more leaves it; buried after the step */
    unsigned life;
    int64_t step_us;              /* when it gets the processor; INT64_MAX: not asked for */
    int64_t last_frame_us[NODES]; /* to each node: frames of a pair keep their order */
    subscription_t *subscriptions;
} node_t;

struct sim {
    sim_options_t options;
    uint64_t state[2]; /* chance */
    int64_t now_us;
    uint64_t order;
    event_t *events;
    node_t nodes[NODES];
    int count;
    int deaths;
    bool calm;
    arena_t *arena;
    char *log;
    size_t log_size;
};

/* ---- Chance: xoroshiro128+, Blackman and Vigna, https://prng.di.unimi.it ---- */

static uint64_t rotate(uint64_t value, int by)
{
    return value << by | value >> (64 - by);
}

uint64_t sim_random(sim_t *sim)
{
    uint64_t a = sim->state[0], b = sim->state[1], sum = a + b;
    b ^= a;
    sim->state[0] = rotate(a, 24) ^ b ^ (b << 16);
    sim->state[1] = rotate(b, 37);
    return sum;
}

/* splitmix64, to fill the state from a seed. */
static uint64_t split(uint64_t *seed)
{
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t between(sim_t *sim, int64_t least, int64_t most)
{
    return least + (int64_t)(sim_random(sim) % (uint64_t)(most - least + 1));
}

static bool chance(sim_t *sim, int one_in)
{
    return sim->options.faults && !sim->calm && sim_random(sim) % (uint64_t)one_in == 0;
}

/* ---- The log ---- */

static void note(sim_t *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(sim_t *sim, const char *format, ...)
{
    char line[512];
    va_list args;
    int head = snprintf(line, sizeof(line), "%" PRId64 " ", sim->now_us);
    va_start(args, format);
    int size = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, args);
    va_end(args);
    size = head + (size < (int)sizeof(line) - head - 2 ? size : (int)sizeof(line) - head - 2);
    line[size++] = '\n';
    if (sim->log_size + (size_t)size < LOG_LARGEST) {
        memcpy(sim->log + sim->log_size, line, (size_t)size);
        sim->log_size += (size_t)size;
    }
}

const char *sim_log(const sim_t *sim, size_t *size)
{
    *size = sim->log_size;
    return sim->log;
}

/* ---- Events ---- */

static event_t *add_event(sim_t *sim, event_kind_t kind, node_t *node, int64_t at_us,
                          bytes_t header, bytes_t body)
{
    event_t *event = calloc(1, sizeof(*event) + header.size + body.size);
    if (!event)
        abort();
    event->kind = kind;
    event->at_us = at_us;
    event->order = sim->order++;
    event->node = node->index;
    event->life = node->life;
    if (header.size)
        memcpy(event->data, header.data, header.size);
    if (body.size)
        memcpy(event->data + header.size, body.data, body.size);
    event->header = (bytes_t){event->data, header.size};
    event->body = (bytes_t){event->data + header.size, body.size};
    event_t **at = &sim->events;
    while (*at && ((*at)->at_us < at_us || ((*at)->at_us == at_us)))
        at = &(*at)->next;
    event->next = *at;
    *at = event;
    return event;
}

static event_t *add_plain(sim_t *sim, event_kind_t kind, node_t *node, int64_t delay_us)
{
    return add_event(sim, kind, node, sim->now_us + delay_us, (bytes_t){0}, (bytes_t){0});
}

static node_t *find_node(sim_t *sim, const char *instance)
{
    for (int i = 0; i < sim->count; i++)
        if (!strcmp(sim->nodes[i].instance, instance))
            return &sim->nodes[i];
    return NULL;
}

/* ---- Death ---- */

/* From here on nothing leaves the node and nothing is committed. */
static void die(node_t *node, const char *why)
{
    if (!node->mortal || node->dying)
        return;
    node->dying = true;
    note(node->sim, "%s dies %s", node->instance, why);
}

static void bury(node_t *node)
{
    sim_t *sim = node->sim;
    sim->deaths++;
    actor_abandon(&node->actor);
    node->dying = false;
    node->life++;
    node->step_us = INT64_MAX;
    while (node->subscriptions) {
        subscription_t *gone = node->subscriptions;
        node->subscriptions = gone->next;
        free(gone->publisher);
        free(gone->topic);
        free(gone);
    }
    for (int i = 0; i < sim->count; i++)
        if (&sim->nodes[i] != node && sim->nodes[i].actor) {
            event_t *event = add_plain(sim, EVENT_LOST, &sim->nodes[i], between(sim, 100, 5000));
            event->from = node->index;
        }
    add_plain(sim, EVENT_BIRTH, node, between(sim, 20000, 1500000));
}

/* ---- The env ---- */

static int64_t env_wall_ms(actor_env_t *env)
{
    return INT64_C(1767225600000) + ((node_t *)env)->sim->now_us / 1000;
}

static int64_t env_mono_us(actor_env_t *env)
{
    return ((node_t *)env)->sim->now_us;
}

static void env_random(actor_env_t *env, void *data, size_t size)
{
    uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(sim_random(((node_t *)env)->sim) >> 32);
}

/* What a frame is, for the log. */
static void note_frame(sim_t *sim, const char *what, const node_t *from, const node_t *to,
                       bytes_t header, bytes_t body)
{
    arena_t *arena = arena_new();
    header_t decoded;
    if (!err_is(frame_decode(header, body, arena, &decoded)))
        note(sim, "%s %s>%s %s %s #%" PRId64 " %s%zu", what, from->instance, to->instance,
             frame_kind_names[decoded.kind], decoded.method ? decoded.method : "-", decoded.id,
             decoded.age_ms ? "again "
             : decoded.err  ? decoded.err
                            : "",
             body.size);
    arena_destroy(&arena);
}

static void carry(node_t *from, node_t *to, bool back, bytes_t header, bytes_t body)
{
    sim_t *sim = from->sim;
    int64_t at = sim->now_us + between(sim, 20, 2000);
    if (at < from->last_frame_us[to->index])
        at = from->last_frame_us[to->index];
    from->last_frame_us[to->index] = at;
    note_frame(sim, "send", from, to, header, body);
    event_t *event = add_event(sim, EVENT_FRAME, to, at, header, body);
    event->from = from->index;
    event->from_life = from->life;
    event->back = back;
}

static bool dead_or_dies(node_t *node)
{
    if (!node->dying && node->mortal && chance(node->sim, DIE_AT_SEND))
        die(node, "at a send");
    return node->dying;
}

static void env_send(actor_env_t *env, const char *peer, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env, *to = find_node(node->sim, peer);
    if (dead_or_dies(node) || !to || !to->actor)
        return; /* nobody listens: the caller will ask again */
    carry(node, to, false, header, body);
}

static void env_send_back(actor_env_t *env, const route_t *route, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env;
    unsigned life;
    memcpy(&life, route->data + 1, sizeof(life));
    node_t *to = &node->sim->nodes[route->data[0]];
    if (dead_or_dies(node) || !to->actor || to->life != life)
        return;
    carry(node, to, true, header, body);
}

static void env_publish(actor_env_t *env, const char *topic, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env;
    if (dead_or_dies(node))
        return;
    for (int i = 0; i < node->sim->count; i++) {
        node_t *to = &node->sim->nodes[i];
        bool wanted = false;
        for (subscription_t *at = to->subscriptions; at; at = at->next)
            wanted = wanted || (!strcmp(at->publisher, node->def->name) &&
                                !strncmp(at->topic, topic, strlen(at->topic)));
        if (to->actor && wanted && !chance(node->sim, LOSE_EVENT))
            carry(node, to, true, header, body);
    }
}

static void env_subscribe(actor_env_t *env, const char *publisher, const char *topic)
{
    node_t *node = (node_t *)env;
    subscription_t *fresh = calloc(1, sizeof(*fresh));
    if (!fresh || !(fresh->publisher = strdup(publisher)) || !(fresh->topic = strdup(topic)))
        abort();
    fresh->next = node->subscriptions;
    node->subscriptions = fresh;
}

static void env_child_start(actor_env_t *env, uint64_t token, const child_request_t *request)
{
    node_t *node = (node_t *)env;
    sim_t *sim = node->sim;
    if (dead_or_dies(node))
        return;
    sim_child_t child = {0};
    sim->options.child(sim->options.ctx, request, sim_random(sim), &child);
    note(sim, "%s starts a command: %s", node->instance, child.what);
    event_t *effect = add_plain(sim, EVENT_CHILD_EFFECT, node, child.effect_ms * 1000);
    effect->token = token;
    effect->child = child;
    event_t *end = add_plain(sim, EVENT_CHILD_END, node, child.duration_ms * 1000);
    end->token = token;
    end->child = child;
}

static void env_child_kill(actor_env_t *env, uint64_t token)
{
    node_t *node = (node_t *)env;
    for (event_t **at = &node->sim->events; *at;) {
        event_t *event = *at;
        bool its = (event->kind == EVENT_CHILD_EFFECT || event->kind == EVENT_CHILD_END) &&
                   event->node == node->index && event->token == token;
        if (!its) {
            at = &event->next;
            continue;
        }
        *at = event->next;
        free(event);
    }
}

static void env_http_start(actor_env_t *env, uint64_t token, const http_call_request_t *request)
{
    http_call_outcome_t none = {.err = err_of(ERR_UNAVAILABLE, "there is no network here"),
                                .content_type = "",
                                .retry_after_ms = -1};
    (void)request;
    actor_on_http(((node_t *)env)->actor, token, &none);
}

static void env_http_cancel(actor_env_t *env, uint64_t token)
{
    (void)env;
    (void)token;
}

/* Inline: the snapshot is that of this moment. */
static void env_read_start(actor_env_t *env, uint64_t token, void (*job)(void *ctx), void *ctx)
{
    node_t *node = (node_t *)env;
    job(ctx);
    event_t *event = add_plain(node->sim, EVENT_READ_DONE, node, between(node->sim, 10, 500));
    event->token = token;
}

static void env_watch(actor_env_t *env, int fd, void (*fn)(void *ctx), void *ctx)
{
    (void)env;
    (void)fd;
    (void)fn;
    (void)ctx;
}

static void env_fatal(actor_env_t *env, err_t err)
{
    (void)err;
    die((node_t *)env, "of a failed sync");
}

static void env_log(actor_env_t *env, log_level_t level, const char *text)
{
    node_t *node = (node_t *)env;
    if (level >= LOG_WARN)
        note(node->sim, "%s says: %s", node->instance, text);
}

static const actor_env_ops_t sim_ops = {
    .wall_ms = env_wall_ms,
    .mono_us = env_mono_us,
    .random = env_random,
    .send = env_send,
    .send_back = env_send_back,
    .publish = env_publish,
    .subscribe = env_subscribe,
    .child_start = env_child_start,
    .child_kill = env_child_kill,
    .http_start = env_http_start,
    .http_cancel = env_http_cancel,
    .read_start = env_read_start,
    .watch = env_watch,
    .fatal = env_fatal,
    .log = env_log,
};

static store_fault_kind_t on_store(void *ctx, const char *point)
{
    node_t *node = ctx;
    bool commit = !strcmp(point, "commit.before");
    if (node->dying)
        return STORE_FAIL_SYNC;
    if (!node->mortal || !node->actor)
        return STORE_GO;
    if (commit && chance(node->sim, DIE_AT_COMMIT)) {
        die(node, "before a commit");
        return STORE_FAIL_SYNC;
    }
    if (!strcmp(point, "commit.after") && chance(node->sim, DIE_AFTER_COMMIT)) {
        die(node, "after a commit");
        return STORE_FAIL_AFTER;
    }
    return STORE_GO;
}

/* ---- Life ---- */

static err_t bear(node_t *node, arena_t *arena)
{
    sim_t *sim = node->sim;
    actor_options_t options = {.data_dir = sim->options.dir,
                               .instance = node->instance,
                               .settings = node->settings,
                               .store_fault = {on_store, node},
                               .store_nosync = true};
    note(sim, "%s is born", node->instance);
    return actor_open(node->def, &node->env, &options, arena, &node->actor);
}

sim_t *sim_new(const sim_options_t *options)
{
    sim_t *sim = calloc(1, sizeof(*sim));
    if (!sim || !(sim->log = malloc(LOG_LARGEST)))
        abort();
    uint64_t seed = options->seed;
    sim->options = *options;
    sim->state[0] = split(&seed);
    sim->state[1] = split(&seed);
    sim->arena = arena_new();
    return sim;
}

err_t sim_add(sim_t *sim, const actor_def_t *def, const char *instance, bool mortal,
              const char *const *settings, arena_t *arena)
{
    node_t *node = &sim->nodes[sim->count];
    *node = (node_t){.env = {&sim_ops},
                     .sim = sim,
                     .index = sim->count++,
                     .def = def,
                     .instance = instance,
                     .settings = settings,
                     .mortal = mortal,
                     .step_us = INT64_MAX};
    return bear(node, arena);
}

void sim_destroy(sim_t **handle)
{
    sim_t *sim = *handle;
    for (int i = 0; i < sim->count; i++) {
        node_t *node = &sim->nodes[i];
        actor_abandon(&node->actor);
        while (node->subscriptions) {
            subscription_t *gone = node->subscriptions;
            node->subscriptions = gone->next;
            free(gone->publisher);
            free(gone->topic);
            free(gone);
        }
    }
    while (sim->events) {
        event_t *gone = sim->events;
        sim->events = gone->next;
        free(gone);
    }
    arena_destroy(&sim->arena);
    free(sim->log);
    free(sim);
    *handle = NULL;
}

/* ---- Running ---- */

static void on_frame(node_t *node, const event_t *event)
{
    node_t *from = &node->sim->nodes[event->from];
    /* What a dead one had sent may have been on the way, or not. */
    if (from->life != event->from_life && sim_random(node->sim) % 2)
        return;
    route_t route = {.size = 1 + sizeof(event->from_life), .data = {(uint8_t)event->from}};
    memcpy(route.data + 1, &event->from_life, sizeof(event->from_life));
    actor_on_frame(node->actor, event->back ? NULL : &route, event->header, event->body);
}

static void on_birth(node_t *node)
{
    arena_t *arena = arena_new();
    err_t err = bear(node, arena);
    if (err_is(err)) {
        note(node->sim, "%s cannot live: %s", node->instance, err_what(err));
        node->life++;
        add_plain(node->sim, EVENT_BIRTH, node, 100000);
    }
    arena_destroy(&arena);
}

static void on_child_end(node_t *node, const event_t *event)
{
    const char *output = event->child.output ? event->child.output : "";
    child_outcome_t outcome = {.exit_status = event->child.exit_status,
                               .duration_ms = event->child.duration_ms,
                               .output = {(const uint8_t *)output, strlen(output)}};
    actor_on_child(node->actor, event->token, &outcome);
}

static void happen(sim_t *sim, const event_t *event)
{
    node_t *node = &sim->nodes[event->node];
    if (event->kind == EVENT_BIRTH) {
        if (!node->actor)
            on_birth(node);
        return;
    }
    if (!node->actor || node->life != event->life)
        return;
    switch (event->kind) {
    case EVENT_FRAME:
        on_frame(node, event);
        break;
    case EVENT_LOST:
        actor_on_lost(node->actor, sim->nodes[event->from].instance);
        break;
    case EVENT_DEATH:
        die(node, "by chance");
        break;
    case EVENT_CHILD_EFFECT:
        note(sim, "effect %s", event->child.what);
        event->child.effect(sim->options.ctx, event->child.what);
        break;
    case EVENT_CHILD_END:
        on_child_end(node, event);
        break;
    case EVENT_READ_DONE:
        actor_on_read(node->actor, event->token);
        break;
    case EVENT_BIRTH:
        break;
    }
}

/* When does this node want to run? */
static void ask_for_step(node_t *node)
{
    sim_t *sim = node->sim;
    if (!node->actor) {
        node->step_us = INT64_MAX;
    } else if (actor_ready(node->actor)) {
        if (node->step_us == INT64_MAX || node->step_us > sim->now_us + 400)
            node->step_us = sim->now_us + between(sim, 1, 400);
    } else {
        int64_t next = actor_next_us(node->actor);
        node->step_us = next == INT64_MAX || next > sim->now_us ? next : sim->now_us;
    }
}

static node_t *next_node(sim_t *sim)
{
    node_t *best = NULL;
    for (int i = 0; i < sim->count; i++)
        if (sim->nodes[i].step_us != INT64_MAX && (!best || sim->nodes[i].step_us < best->step_us))
            best = &sim->nodes[i];
    return best;
}

static void step(node_t *node)
{
    node->step_us = INT64_MAX;
    actor_step(node->actor);
}

/* One thing happens; false: nothing ever will, or not before `until_us`. */
static bool advance(sim_t *sim, int64_t until_us)
{
    for (int i = 0; i < sim->count; i++)
        ask_for_step(&sim->nodes[i]);
    node_t *node = next_node(sim);
    event_t *event = sim->events;
    int64_t step_us = node ? node->step_us : INT64_MAX;
    int64_t event_us = event ? event->at_us : INT64_MAX;
    int64_t at = step_us < event_us ? step_us : event_us;
    if (at > until_us)
        return false;
    if (at > sim->now_us)
        sim->now_us = at;
    if (event_us <= step_us) {
        sim->events = event->next;
        happen(sim, event);
        free(event);
    } else {
        step(node);
    }
    for (int i = 0; i < sim->count; i++)
        if (sim->nodes[i].dying)
            bury(&sim->nodes[i]);
    return true;
}

/* Now and then somebody dies for no reason. */
static void plan_death(sim_t *sim)
{
    node_t *node = &sim->nodes[sim_random(sim) % (uint64_t)sim->count];
    if (sim->options.faults && !sim->calm && node->mortal && node->actor &&
        sim_random(sim) % 4000 == 0)
        add_plain(sim, EVENT_DEATH, node, between(sim, 0, 300000));
}

bool sim_run(sim_t *sim, int64_t until_ms, bool (*done)(void *ctx), void *ctx)
{
    while (!done || !done(ctx)) {
        plan_death(sim);
        if (!advance(sim, until_ms * 1000))
            return false;
    }
    return true;
}

void sim_calm(sim_t *sim)
{
    sim->calm = true;
    note(sim, "calm");
}

int64_t sim_now_ms(const sim_t *sim)
{
    return sim->now_us / 1000;
}

int sim_deaths(const sim_t *sim)
{
    return sim->deaths;
}

#else

typedef int sim_is_not_in_this_build; /* an empty file is no C */

#endif
