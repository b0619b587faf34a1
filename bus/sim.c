#include "bus/sim.h"

#ifdef AGENCY_FAULTS

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

enum { NODES = 16, LOG_LARGEST = 16 << 20 };

static const char *const fault_names[] = {
#define FAULT_NAME(id, name, one_in, doc) name,
    SIM_FAULT_ROWS(FAULT_NAME)
#undef FAULT_NAME
};

static const uint64_t fault_one_in[] = {
#define FAULT_ONE_IN(id, name, one_in, doc) one_in,
    SIM_FAULT_ROWS(FAULT_ONE_IN)
#undef FAULT_ONE_IN
};

typedef enum event_kind {
    EVENT_FRAME,
    EVENT_LOST, /* a node hears that its connection broke */
    EVENT_BIRTH,
    EVENT_DEATH,
    EVENT_CHILD_EFFECT,
    EVENT_CHILD_END,
    EVENT_HTTP_END,
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
    unsigned link; /* which connection from `from` to `node` */
    bool back;
    bytes_t header, body;
    /* Children, HTTP and reads: */
    uint64_t token;
    sim_child_t child;
    bool timed_out;
    http_call_outcome_t http;
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
    unsigned links[NODES];        /* to each node: how often the connection broke */
    int64_t full_until_us;        /* its disk */
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
    int faults[SIM_FAULTS];
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

static bool chance(sim_t *sim, sim_fault_t fault)
{
    if (!sim->options.faults || sim->calm || (sim->options.never & 1u << fault) ||
        sim_random(sim) % fault_one_in[fault])
        return false;
    sim->faults[fault]++;
    return true;
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

static event_t *carry_from(node_t *from, node_t *to, bool back, bytes_t header, bytes_t body,
                           int64_t start_us)
{
    sim_t *sim = from->sim;
    int64_t at = start_us + between(sim, 20, 2000);
    if (at < from->last_frame_us[to->index])
        at = from->last_frame_us[to->index];
    from->last_frame_us[to->index] = at;
    event_t *event = add_event(sim, EVENT_FRAME, to, at, header, body);
    event->from = from->index;
    event->from_life = from->life;
    event->link = from->links[to->index];
    event->back = back;
    return event;
}

static void carry(node_t *from, node_t *to, bool back, bytes_t header, bytes_t body)
{
    note_frame(from->sim, "send", from, to, header, body);
    carry_from(from, to, back, header, body, from->sim->now_us);
}

/* Whoever sends to a peer that is not there has it in a queue: the next life may get it. */
static void hold(node_t *from, node_t *to, bytes_t header, bytes_t body)
{
    const event_t *birth = from->sim->events;
    while (birth && !(birth->kind == EVENT_BIRTH && birth->node == to->index))
        birth = birth->next;
    if (!birth || !chance(from->sim, SIM_HOLD_FRAME))
        return;
    note_frame(from->sim, "hold", from, to, header, body);
    carry_from(from, to, false, header, body, birth->at_us);
}

/* The connection over which `from` calls `to`: its calls and their answers. Only `from` notices. */
static void break_connection(node_t *from, node_t *to)
{
    sim_t *sim = from->sim;
    note(sim, "the connection %s>%s breaks", from->instance, to->instance);
    from->links[to->index]++;
    for (event_t **at = &sim->events; *at;) {
        event_t *event = *at;
        bool call = event->from == from->index && event->node == to->index && !event->back;
        bool answer = event->from == to->index && event->node == from->index && event->back;
        if (event->kind != EVENT_FRAME || (!call && !answer)) {
            at = &event->next;
            continue;
        }
        *at = event->next;
        free(event);
    }
    add_plain(sim, EVENT_LOST, from, between(sim, 100, 5000))->from = to->index;
}

/* Callers that are not sure whether a call arrived send it again, marked as such. */
static void repeat(node_t *from, node_t *to, bytes_t header, bytes_t body)
{
    arena_t *arena = arena_new();
    header_t decoded;
    buf_t again;
    buf_open(&again, arena);
    if (!err_is(frame_decode(header, body, arena, &decoded)) && decoded.kind == FRAME_CALL &&
        chance(from->sim, SIM_REPEAT_CALL)) {
        decoded.age_ms++;
        decoded.has_age_ms = true;
        frame_encode(&decoded, &again);
        carry(from, to, false, buf_bytes(&again), body);
    }
    arena_destroy(&arena);
}

static bool dead_or_dies(node_t *node)
{
    if (!node->dying && node->mortal && chance(node->sim, SIM_DIE_AT_SEND))
        die(node, "at a send");
    return node->dying;
}

static void env_send(actor_env_t *env, const char *peer, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env, *to = find_node(node->sim, peer);
    if (dead_or_dies(node) || !to)
        return;
    if (!to->actor) {
        hold(node, to, header, body);
        return;
    }
    carry(node, to, false, header, body);
    repeat(node, to, header, body);
    if (chance(node->sim, SIM_BREAK_CONNECTION))
        break_connection(node, to);
}

/* What a route means here. */
typedef struct way {
    int to;
    unsigned life, link;
} way_t;

static void env_send_back(actor_env_t *env, const route_t *route, bytes_t header, bytes_t body)
{
    node_t *node = (node_t *)env;
    way_t way;
    memcpy(&way, route->data, sizeof(way));
    node_t *to = &node->sim->nodes[way.to];
    if (dead_or_dies(node) || !to->actor || to->life != way.life ||
        to->links[node->index] != way.link)
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
        if (to->actor && wanted && !chance(node->sim, SIM_LOSE_EVENT))
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

static void end_child(node_t *node, uint64_t token, const sim_child_t *child, bool timed_out)
{
    event_t *end = add_plain(node->sim, EVENT_CHILD_END, node, child->duration_ms * 1000);
    end->token = token;
    end->child = *child;
    end->timed_out = timed_out;
}

static void env_child_start(actor_env_t *env, uint64_t token, const child_request_t *request)
{
    node_t *node = (node_t *)env;
    sim_t *sim = node->sim;
    if (dead_or_dies(node))
        return;
    sim_child_t child = {.exit_status = 127};
    if (sim->options.child) {
        child.exit_status = 0;
        sim->options.child(sim->options.ctx, request, sim_random(sim), &child);
    }
    bool late = request->timeout_ms > 0 && child.duration_ms > request->timeout_ms;
    if (late)
        child.duration_ms = request->timeout_ms;
    note(sim, "%s starts a command: %s", node->instance, child.what);
    if (child.effect && child.effect_ms <= child.duration_ms) {
        event_t *effect = add_plain(sim, EVENT_CHILD_EFFECT, node, child.effect_ms * 1000);
        effect->token = token;
        effect->child = child;
    }
    end_child(node, token, &child, late);
}

/* Commands and requests of that token end without a word. */
static void forget(node_t *node, uint64_t token)
{
    for (event_t **at = &node->sim->events; *at;) {
        event_t *event = *at;
        bool kind = event->kind == EVENT_CHILD_EFFECT || event->kind == EVENT_CHILD_END ||
                    event->kind == EVENT_HTTP_END;
        if (!kind || event->node != node->index || event->token != token) {
            at = &event->next;
            continue;
        }
        *at = event->next;
        free(event);
    }
}

static void env_child_kill(actor_env_t *env, uint64_t token)
{
    forget((node_t *)env, token);
}

static void env_http_start(actor_env_t *env, uint64_t token, const http_call_request_t *request)
{
    node_t *node = (node_t *)env;
    sim_t *sim = node->sim;
    if (dead_or_dies(node))
        return;
    sim_http_t http = {.outcome = {.content_type = "", .retry_after_ms = -1}};
    if (sim->options.http)
        sim->options.http(sim->options.ctx, request, sim_random(sim), &http);
    else
        http.outcome.err = err_of(ERR_UNAVAILABLE, "there is no network here");
    if (request->timeout_ms > 0 && http.duration_ms > request->timeout_ms) {
        http.duration_ms = request->timeout_ms;
        http.outcome = (http_call_outcome_t){.err = err_of(ERR_TIMEOUT, "no answer came in time"),
                                             .content_type = "",
                                             .retry_after_ms = -1};
    }
    note(sim, "%s asks %s %s", node->instance, request->method, request->url);
    event_t *end = add_plain(sim, EVENT_HTTP_END, node, http.duration_ms * 1000);
    end->token = token;
    end->http = http.outcome;
}

static void env_http_cancel(actor_env_t *env, uint64_t token)
{
    forget((node_t *)env, token);
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

/* Virtual time stands still while an actor works. */
static void env_lag(actor_env_t *env, loop_lag_t *out)
{
    (void)env;
    *out = (loop_lag_t){.limit_us = INT64_MAX};
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
    .lag = env_lag,
    .fatal = env_fatal,
    .log = env_log,
};

/* For a single row, so that the rest of its batch is committed; or for some time. */
static bool disk_is_full(node_t *node, const char *point)
{
    sim_t *sim = node->sim;
    if (!strcmp(point, "commit.after") || sim->calm)
        return false;
    if (node->full_until_us > sim->now_us)
        return true;
    if (strcmp(point, "put") != 0 || !chance(sim, SIM_FILL_DISK))
        return false;
    bool stays = sim_random(sim) % 2;
    if (stays)
        node->full_until_us = sim->now_us + between(sim, 1000, 300000);
    note(sim, "%s finds the disk full%s", node->instance, stays ? " for a while" : "");
    return true;
}

/* The first opening is spared: without it there is nothing to look at. */
static store_fault_kind_t on_store(void *ctx, const char *point)
{
    node_t *node = ctx;
    if (node->dying)
        return STORE_FAIL_SYNC;
    if (!node->mortal || (!node->actor && !node->life))
        return STORE_GO;
    if (disk_is_full(node, point))
        return STORE_FAIL_FULL;
    if (!strcmp(point, "commit.before")) {
        if (chance(node->sim, SIM_FAIL_SYNC))
            return STORE_FAIL_SYNC;
        if (chance(node->sim, SIM_DIE_BEFORE_COMMIT)) {
            die(node, "before a commit");
            return STORE_FAIL_SYNC;
        }
    }
    if (!strcmp(point, "commit.after") && chance(node->sim, SIM_DIE_AFTER_COMMIT)) {
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
    if (sim->count == NODES)
        return err_of(ERR_QUOTA, "a simulation has at most 16 nodes");
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
    if (from->life != event->from_life && chance(node->sim, SIM_LOSE_SENT))
        return;
    way_t way = {event->from, event->from_life, event->link};
    route_t route = {.size = sizeof(way)};
    memcpy(route.data, &way, sizeof(way));
    actor_on_frame(node->actor, event->back ? NULL : &route, event->header, event->body);
}

static void on_birth(node_t *node)
{
    arena_t *arena = arena_new();
    err_t err = bear(node, arena);
    if (err_is(err)) {
        note(node->sim, "%s cannot live: %s", node->instance, err_what(err));
        node->dying = false;
        node->life++;
        add_plain(node->sim, EVENT_BIRTH, node, 100000);
    }
    arena_destroy(&arena);
}

static void on_child_end(node_t *node, const event_t *event)
{
    const char *output = event->child.output ? event->child.output : "";
    child_outcome_t outcome = {.exit_status = event->timed_out ? -1 : event->child.exit_status,
                               .signal = event->timed_out ? SIGKILL : 0,
                               .timed_out = event->timed_out,
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
        die(node, "at once");
        break;
    case EVENT_CHILD_EFFECT:
        note(sim, "effect %s", event->child.what);
        event->child.effect(sim->options.ctx, event->child.what);
        break;
    case EVENT_CHILD_END:
        on_child_end(node, event);
        break;
    case EVENT_HTTP_END:
        actor_on_http(node->actor, event->token, &event->http);
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
    if (node->mortal && node->actor && chance(sim, SIM_DIE_BY_CHANCE))
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

void sim_kill(sim_t *sim, const char *instance)
{
    node_t *node = find_node(sim, instance);
    if (node && node->actor)
        add_plain(sim, EVENT_DEATH, node, 0);
}

int64_t sim_now_ms(const sim_t *sim)
{
    return sim->now_us / 1000;
}

int sim_deaths(const sim_t *sim)
{
    return sim->deaths;
}

int sim_fault_count(const sim_t *sim, sim_fault_t fault)
{
    return sim->faults[fault];
}

const char *sim_fault_name(sim_fault_t fault)
{
    return fault < SIM_FAULTS ? fault_names[fault] : "";
}

#else

typedef int sim_is_not_in_this_build; /* an empty file is no C */

#endif
