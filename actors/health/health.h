/* health: watches everything that is measured. Points come by track_metric and from the files on
 * the shared volume (tail.c), are rolled up (series.c), looked at for alerts (alerts.c) and for
 * what is unusual (detect.c). Every company has its own; the agency's own metrics belong to the
 * default company. */
#ifndef ACTORS_HEALTH_HEALTH_H
#define ACTORS_HEALTH_HEALTH_H

#include "actors/health/series.h"
#include "bus/actor.h"
#include "bus/listfile.h"

#define health_settings_FIELDS(F)                                                                  \
    F(INT, poll_ms, opt(1000), 50, 600000, "Pause between two looks at the metrics files.")        \
    F(INT, observe_ms, opt(15000), 0, 3600000,                                                     \
      "Pause between two looks at the pillars' own metrics; 0: never.")                            \
    F(INT, max_series, opt(10000), 1, 1000000, "Metrics of one company, by agent and name.")       \
    F(INT, max_alerts, opt(1000), 1, 100000, "Alert rules of one company.")                        \
    F(STR, rules_file, opt(), 1, 4096, "Alert rules; absent: <data>/alert_rules.json.")            \
    F(INT, stale_ms, opt(300000), 1000, 86400000,                                                  \
      "A value older than this changes no alert: it neither fires nor resolves.")                  \
    F(STR, webhook_url, opt(), 1, 4096,                                                            \
      "Where alerts without a contact of their own go, in the form of Alertmanager's webhooks.")   \
    F(STR, alertmanager_url, opt(), 1, 4096,                                                       \
      "An Alertmanager, e.g. http://localhost:9093: it gets all alerts of all companies.")         \
    F(INT, webhook_timeout_ms, opt(10000), 100, 120000, "Longest time one delivery may take.")     \
    F(INT, webhook_backoff_ms, opt(1000), 10, 3600000, "Pause before the second try; doubles.")    \
    F(INT, webhook_give_up_ms, opt(86400000), 1000, 604800000,                                     \
      "A message that nobody took for so long is dropped, and that is logged.")                    \
    F(REAL, token_price, opt(5), 0, 1000000,                                                       \
      "Price of a million tokens, for the cost that get_company_metrics tells.")                   \
    F(INT, export_series, opt(200), 0, 10000,                                                      \
      "Tracked metrics of the default company that GET /metrics shows at most.")
RECORD_STRUCT(health_settings, health_settings_FIELDS)

#define HEALTH_TABLES(T)                                                                           \
    T(series) T(spans) T(files) T(lines) T(alerts) T(messages) T(history) T(feeds)
enum {
#define HEALTH_TABLE_INDEX(name) TABLE_##name,
    HEALTH_TABLES(HEALTH_TABLE_INDEX)
#undef HEALTH_TABLE_INDEX
        HEALTH_TABLE_COUNT
};

/* What is kept in memory of a company; all of it can be rebuilt. */
typedef struct watched_company {
    struct watched_company *next;
    char name[65];
    uint64_t written;        /* lines up to this number are in the file */
    uint64_t next_line;      /* 0: not known yet */
    int broken;              /* errno of the last attempt to write the file; 0: it went well */
    bool lines_left;         /* the store holds lines that are not in the file, or not forgotten */
    struct watches *watches; /* NULL: not known, or there are no rules */
    bool delivering;         /* a request is under way */
    int64_t wake_ms;         /* monotonic: a delivery begins by itself then */
} watched_company_t;

typedef struct tail tail_t;

enum { COUNTERS_MOST = 64 };

typedef struct health {
    const health_settings_t *settings; /* first: the skeleton fills it in */
    actor_t *actor;
    watched_company_t *companies;
    tail_t *tail;
    listfile_t *rules_file;
    arena_t *rules_arena; /* of rules that the store does not have yet; NULL: none */
    record_list_t rules;
    uint64_t points, refused_lines, messages_sent, messages_failed;
    int64_t all_files_ms;
    size_t counter_count;
    char counters[COUNTERS_MOST][64]; /* the pillars' own metrics that only grow (own.c) */
} health_t;

extern const actor_def_t health_actor;

watched_company_t *health_company(health_t *self, const char *name);

/* ---- tail.c: the files on the shared volume ---- */

/* A point that was tracked here also goes into the file of the day, after the commit. ERR_IO when
 * that file cannot be written. */
err_t tail_append(health_t *self, call_t *call, store_txn_t *txn, const char *line_begin);
/* Lines of a file that nobody has taken yet; those that this actor wrote itself are passed over.
 * The alert rules are looked at. */
err_t tail_take_lines(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                      const char *text, size_t size);
/* Work entry: reads what was appended, for every company; comes back by itself. */
void tail_open(health_t *self, call_t *call);
void tail_close(health_t *self);

/* ---- fed.c: the volumes of other replicas ---- */

extern const method_t fed_methods[];

/* ---- alerts.c ---- */

extern const method_t alerts_methods[];
/* After these points came, in their transaction: fires and resolves. */
err_t alerts_touched(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                     const series_batch_t *batch);
/* Does somebody wait whose time has come? Memory only. */
bool alerts_are_due(const watched_company_t *company, call_t *call);
err_t alerts_due(health_t *self, call_t *call, const char *company, store_txn_t *txn);
void alerts_open(health_t *self, call_t *call);

#define alert_FIELDS(F)                                                                            \
    F(STR, id, must, 0, 0, "Id of the rule.")                                                      \
    F(STR, metric, must, 0, 0, "Name of the metric, or agent:metric.")                             \
    F(STR, operator, must, 0, 0, "> >= < <= == or !=.")                                            \
    F(REAL, threshold, must, 0, 0, "What the last value is held against.")                         \
    F(INT, for_ms, must, 0, 0, "It must hold for so long before it fires.")                        \
    F(STR, contact, opt(), 0, 0, "URL that is told; absent: the one of the settings.")             \
    F(STR, state, must, 0, 0, "ok, pending or firing.")                                            \
    F(STR, series, opt(), 0, 0, "agent:metric that made it so.")                                   \
    F(STR, by, opt(), 0, 0, "agent:metric that keeps it so.")                                      \
    F(REAL, value, opt(), 0, 0, "Its value.")                                                      \
    F(TIME, since, opt(), 0, 0, "In this state since then.")                                       \
    F(INT, fired, must, 0, 0, "How often it has fired.")                                           \
    F(TIME, silenced_until, opt(), 0, 0, "Nobody is told until then.")                             \
    F(BOOL, told, opt(), 0, 0, "Of one that fires: it was told, and so will be its end.")          \
    F(BOOL, from_file, opt(), 0, 0, "It is in the file of rules.")
RECORD_STRUCT(alert, alert_FIELDS)
extern const record_t alert_record;

/* What is remembered of a rule that fired or resolved. */
#define alert_change_FIELDS(F)                                                                     \
    F(STR, id, must, 0, 0, "The rule.")                                                            \
    F(STR, series, must, 0, 0, "agent:metric.")                                                    \
    F(STR, state, must, 0, 0, "firing or resolved.")                                               \
    F(REAL, value, must, 0, 0, "Value at that time.")                                              \
    F(TIME, at, must, 0, 0, "When.")
RECORD_STRUCT(alert_change, alert_change_FIELDS)
extern const record_t alert_change_record;

/* All rules; with only_firing those that fire. */
err_t alerts_list(store_txn_t *txn, arena_t *arena, bool only_firing, alert_list_t *out);
err_t alerts_load(store_txn_t *txn, arena_t *arena, const char *id, alert_t *out);
/* Keeps the rule and looks at it. `old`, the one with its id, goes on in it; NULL: there is none.
 */
err_t alerts_set(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                 alert_t *alert, const alert_t *old);
/* The same for many of one company. */
typedef struct alert_pair {
    alert_t *alert;
    const alert_t *old;
} alert_pair_t;
err_t alerts_set_all(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                     const alert_pair_t *pairs, size_t count);
/* Resolves it when it fires, and forgets it. */
err_t alerts_drop(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                  alert_t *alert);
/* What rules have in common whoever writes them: ERR_ARGUMENT. Makes the id and the plain operator
 * where needed. */
err_t alerts_check(alert_t *alert, arena_t *arena);

/* ---- rulesfile.c: alert rules in a file on the volume ---- */

void rulesfile_open(health_t *self, call_t *call);
void rulesfile_close(health_t *self);
/* What is wrong with it; NULL: nothing. */
const char *rulesfile_error(const health_t *self, arena_t *arena);
/* Pure: a list of rules, or a sentence with the line. */
err_t rulesfile_parse(const char *text, size_t size, arena_t *arena, record_list_t *out);

/* ---- messages.c: who is told ---- */

err_t messages_about(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                     const alert_t *alert, bool firing, int64_t began_ms);
/* Begins to deliver, after the commit. */
void messages_go(health_t *self, call_t *call, const char *company);

/* ---- report.c, foresee.c, survey.c: what can be asked ---- */

extern const method_t report_methods[], foresee_methods[], survey_methods[];

#define anomaly_FIELDS(F)                                                                          \
    F(STR, agent, must, 0, 0, "Whose metric.")                                                     \
    F(STR, metric, must, 0, 0, "Its name.")                                                        \
    F(TIME, at, must, 0, 0, "Minute or hour in which it was unusual.")                             \
    F(REAL, value, must, 0, 0, "Mean of that time.")                                               \
    F(REAL, expected, must, 0, 0, "What was usual.")                                               \
    F(REAL, score, must, 0, 0, "Robust deviations away from that.")                                \
    F(STR, method, must, 0, 0, "median, ewma or seasonal.")                                        \
    F(STR, timestamp, must, 0, 0, "at, as text.")                                                  \
    F(REAL, z_score, must, 0, 0, "score, under its older name.")                                   \
    F(REAL, mean, must, 0, 0, "expected, under its older name.")                                   \
    F(REAL, std_dev, must, 0, 0, "One deviation: (value - expected) / score.")                     \
    F(STR, severity, must, 0, 0, "high: more than 5 deviations; else medium.")
RECORD_STRUCT(anomaly, anomaly_FIELDS)

typedef struct anomalies {
    anomaly_list_t list;
    int64_t looked_at, too_short;
} anomalies_t;

/* Of the call's company; narrowed by what is not NULL. */
err_t anomalies_find(const health_t *self, call_t *call, const char *agent, const char *metric,
                     anomalies_t *out);

/* ---- own.c: the pillars' own metrics ---- */

enum { OWN_PILLARS = 6 };
extern const char *const own_pillars[OWN_PILLARS];
bool own_is_pillar(const char *agent);
/* A sum that only grows and begins at 0 with each life: no value of it is unusual. */
bool own_is_counter(const health_t *self, const char *agent, const char *metric);
void own_open(health_t *self, call_t *call);

#endif
