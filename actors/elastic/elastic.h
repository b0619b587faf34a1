/* elastic: as many workers as the work needs. It looks at the demand, decides (decide.h), and has
 * the number made true: by the supervisor (local.c), by the API server (direct.c), or by a
 * controller of the cluster, for which it only shows what it would do. */
#ifndef ACTORS_ELASTIC_ELASTIC_H
#define ACTORS_ELASTIC_ELASTIC_H

#include "actors/elastic/decide.h"
#include "actors/elastic/rules.h"
#include "bus/actor.h"

#define scale_mode_VALUES(V)                                                                       \
    V(MODE_LOCAL, "local")                                                                         \
    V(MODE_DIRECT, "direct")                                                                       \
    V(MODE_HPA, "hpa")                                                                             \
    V(MODE_KEDA, "keda")                                                                           \
    V(MODE_OFF, "off")
RECORD_ENUM(scale_mode, scale_mode_VALUES)

/* The formatter would put spaces into the paths. */
/* clang-format off */
#define elastic_settings_FIELDS(F)                                                                 \
    F(ENUM(scale_mode), mode, opt(local), 0, 0,                                                    \
      "Who makes the number true: local workers, direct calls of the API server, or hpa and keda " \
      "by themselves.")                                                                            \
    F(INT, poll_ms, opt(250), 20, 60000, "Pause between two looks at the demand.")                 \
    F(STR, rules_file, opt(), 1, 4096, "Demand rules; absent: <data>/elastic_rules.json.")         \
    F(INT, api_poll_ms, opt(2000), 20, 60000, "direct: pause between two looks at the scale.")     \
    F(STR, statefulset, opt(), 1, 253, "direct: name of the StatefulSet.")                         \
    F(STR, namespace, opt(), 1, 63, "direct: its namespace; absent: that of namespace_file.")      \
    F(STR, namespace_file,                                                                         \
      opt(/var/run/secrets/kubernetes.io/serviceaccount/namespace), 1, 4096,            \
      "direct: file with the namespace.")                                                          \
    F(STR, token_file, opt(/var/run/secrets/kubernetes.io/serviceaccount/token), 1,     \
      4096, "direct: file with the bearer token, read for each request.")                          \
    F(STR, ca_file, opt(/var/run/secrets/kubernetes.io/serviceaccount/ca.crt), 1, 4096, \
      "direct: certificates that the API server's must lead to.")                                  \
    F(STR, api_url, opt(), 1, 4096, "direct: the API server; absent: that of the cluster.")        \
    F(STR, identity, opt(), 1, 253,                                                                \
      "direct: name in the Lease, e.g. of the pod; absent: made up.")                              \
    F(INT, lease_s, opt(15), 1, 3600, "direct: how long a dead leader keeps the Lease.")           \
    SCALE_POLICY_ROWS(SCALE_POLICY_ROW, F)
/* clang-format on */
RECORD_STRUCT(elastic_settings, elastic_settings_FIELDS)

/* Everything of this pillar is of the whole agency: it is kept with the default company. */
enum { TABLE_MEMORY, TABLE_CHANGES, TABLE_SUBAGENTS };

typedef struct local local_t;
typedef struct direct direct_t;

/* What somebody asked for by hand. */
typedef struct asked {
    int64_t count, until_ms; /* wall clock; count 0: nothing */
} asked_t;

enum { UNKEPT_CHANGES = 64 };

#define scale_change_FIELDS(F)                                                                     \
    F(TIME, at, must, 0, 0, "When.")                                                               \
    F(INT, from, must, 0, 0, "Workers before.")                                                    \
    F(INT, to, must, 0, 0, "Workers after.")                                                       \
    F(ENUM(decide_why), why, must, 0, 0, "What decided it.")                                       \
    F(INT, queue_length, must, 0, 0, "Work at that time.")
RECORD_STRUCT(scale_change, scale_change_FIELDS)
extern const record_t scale_change_record;

typedef struct elastic {
    const elastic_settings_t *settings; /* first: the skeleton fills it in */
    actor_t *actor;
    scale_policy_t policy;
    bool policy_is_set; /* by scale_policy_set, not by the settings */
    history_t history;
    observed_t seen;
    decision_t last;
    bool decided;
    int64_t changed; /* changes since the start */
    scale_change_t unkept[UNKEPT_CHANGES];
    int unkept_count;     /* of them not in the store yet */
    int64_t unkept_first; /* how many went before the first of them */
    int64_t told; /* what the agent calls for: shown where a controller of the cluster scales */
    asked_t asked;
    rules_t *rules;
    int64_t rules_ms; /* when the files were looked at, monotonic */
    char swarm_problem[512];
    local_t *local;   /* NULL in other modes */
    direct_t *direct; /* the same */
} elastic_t;

extern const actor_def_t elastic_actor;

/* Fills self->last from what was seen, with so many running now. */
void elastic_decide(elastic_t *self, call_t *call, int64_t current);
/* Logs that the number was changed, and has an entry of its own keep it: a batch that is run twice
 * for want of room must not decide twice. */
void elastic_note_change(elastic_t *self, call_t *call, int64_t from, int64_t to);

/* ---- local.c: workers of the supervisor ---- */

#define local_worker_FIELDS(F)                                                                     \
    F(STR, name, must, 0, 0, "Name of the process.")                                               \
    F(STR, state, must, 0, 0, "starting, ready, draining.")                                        \
    F(INT, slots, must, 0, 0, "Runs it can work on at the same time.")                             \
    F(INT, busy, must, 0, 0, "Of them at work, when it was last asked.")
RECORD_STRUCT(local_worker, local_worker_FIELDS)
extern const record_t local_worker_record;

enum { LOCAL_MOST = 64 };

/* Finds the workers that the last life wanted, or begins with one. ERR_IO. */
err_t local_open(elastic_t *elastic, call_t *call);
void local_destroy(local_t **local);
/* Workers that take work, or will as soon as they are up. */
int64_t local_count(const local_t *local);
/* Starts or drains until so many, at most LOCAL_MOST, take work. ERR_IO: the wish could not be
 * written; local_tend tries again. */
err_t local_scale(elastic_t *elastic, call_t *call, int64_t count);
/* Nobody is starting or leaving. */
bool local_calm(const local_t *local);
/* Asks the workers how they are; goes on with those that drain. */
void local_tend(elastic_t *elastic, call_t *call);
local_worker_list_t local_list(const local_t *local, arena_t *arena);

/* ---- subagents.c: what rules ask of the swarm ---- */

void subagents_open(elastic_t *elastic, call_t *call);

/* ---- direct.c: a StatefulSet ---- */

/* ERR_ARGUMENT: a setting is missing. */
err_t direct_open(elastic_t *elastic, call_t *call);
void direct_destroy(direct_t **direct);
int64_t direct_count(const direct_t *direct);
bool direct_leads(const direct_t *direct);
/* Why nothing is done; NULL: all is well. */
const char *direct_problem(const direct_t *direct);

#endif
