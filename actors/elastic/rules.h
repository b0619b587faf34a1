/* rules: demand rules of the users, from elastic_rules.json on the volume:
 *
 *     [{"metric": "queue_length", "threshold": 20, "action": "scale_agents",
 *       "agent_template": "worker", "count": 4, "cooldown_threshold": 5}]
 *
 * Above the threshold there are at least `count` agents of the template; at or below the cooldown
 * threshold (absent: at or below the threshold) no longer. The template worker means our workers;
 * any other is a role of subagents, which the swarm is asked for. The file is read again when it
 * changes; one that is wrong is refused with the line, and the rules before it stay.
 * Parsing is pure; rules_look reads files. Thread: elastic's.
 */
#ifndef ACTORS_ELASTIC_RULES_H
#define ACTORS_ELASTIC_RULES_H

#include "proto/record.h"

#define rule_action_VALUES(V)                                                                      \
    V(RULE_SCALE_AGENTS, "scale_agents")                                                           \
    V(RULE_SCALE_UP, "scale_up")                                                                   \
    V(RULE_SPAWN, "spawn")                                                                         \
    V(RULE_SPAWN_AGENTS, "spawn_agents")                                                           \
    V(RULE_SPAWN_SUBAGENT, "spawn_subagent")
RECORD_ENUM(rule_action, rule_action_VALUES)

#define rule_cooldown_VALUES(V)                                                                    \
    V(COOLDOWN_DRAIN, "drain")                                                                     \
    V(COOLDOWN_SCALE_DOWN, "scale_down")                                                           \
    V(COOLDOWN_TERMINATE, "terminate")                                                             \
    V(COOLDOWN_NONE, "none")
RECORD_ENUM(rule_cooldown, rule_cooldown_VALUES)

#define rule_FIELDS(F)                                                                             \
    F(STR, metric, must, 1, 256,                                                                   \
      "queue_length, ready, leased, due_soon, oldest_ready_age_seconds,"                           \
      " or a tracked metric as NAME or AGENT:NAME.")                                               \
    F(REAL, threshold, must, 0, 0, "Above this the rule acts.")                                    \
    F(ENUM(rule_action), action, must, 0, 0, "All of them mean: have at least so many.")           \
    F(STR, agent_template, opt(worker), 1, 128, "worker, or the role of subagents.")               \
    F(INT, count, must, 1, 1000, "At least so many.")                                              \
    F(REAL, cooldown_threshold, opt(), 0, 0, "At or below this it no longer acts.")                \
    F(ENUM(rule_cooldown), cooldown_action, opt(drain), 0, 0, "What happens to subagents then.")
RECORD_STRUCT(rule, rule_FIELDS)
extern const record_t rule_record;

typedef struct rules rules_t;

rules_t *rules_new(const char *file, const char *metrics_dir);
void rules_destroy(rules_t **rules);

/* One text to rules in `arena`. ERR_PARSE and ERR_ARGUMENT say the line. */
err_t rules_parse(const char *text, size_t size, arena_t *arena, rule_list_t *out);

/* Reads the file again when it has changed, and what was appended to the metrics. */
void rules_look(rules_t *rules, int64_t now_ms);
/* Tells a metric that elastic knows itself. */
void rules_tell(rules_t *rules, const char *metric, double value, int64_t now_ms);
/* Decides which rules act. Values older than five minutes count as unknown: nothing changes. */
void rules_judge(rules_t *rules, int64_t now_ms);
/* At least so many workers; 0: no rule acts. */
int64_t rules_floor(const rules_t *rules);
/* What is wrong with the file; NULL: nothing. */
const char *rules_error(const rules_t *rules);

typedef struct rule_state {
    const rule_t *rule;
    bool known, acts, cool;
    double value;
} rule_state_t;

size_t rules_count(const rules_t *rules);
rule_state_t rules_state(const rules_t *rules, size_t index);

#endif
