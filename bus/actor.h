/* actor: how one is declared, and what its functions may do.
 *
 * An actor is one constant table (actor_def_t). Its methods are rows beside functions:
 *
 *     #define brain_query_ARGS(F) F(STR, query, must, 1, 8192, "What to look for.") COMPANY_ROW(F)
 *     #define brain_query_REPLY(F) F(LIST(memory), memories, must, 0, 100, "Best first.")
 *     #define BRAIN_METHODS(M)                                                              \
 *         M(brain_t, brain_query, TOOL | READS, "Search episodic memory.")                  \
 *         M(brain_t, brain_store, TOOL | WRITES, "Keep one episodic memory.")
 *     METHODS(brain_methods, BRAIN_METHODS)
 *
 *     static err_t brain_query(brain_t *self, call_t *call, const brain_query_args_t *args,
 *                              brain_query_reply_t *reply) {...}
 *
 * THE RULES OF A HANDLER
 * - It never blocks. It runs on the actor's one thread (READS of an actor with readers: on a reader
 *   thread, where only call_arena, call_company, call_read, call_say, call_now_ms may be used).
 * - It may be run twice for one call: when the map must grow the batch is aborted and replayed, and
 *   after a crash the caller repeats. So it changes memory of `self` only in call_after_commit.
 * - WRITES run in the batch's transaction: an error leaves nothing behind (the batch is replayed).
 * - Whatever it sends (peer calls, events, children, HTTP, resumes) leaves after the commit, and
 *   not at all if it returned an error.
 * - `reply` is zeroed. What it points to must live in call_arena or be constant.
 * - To wait: start a peer call, child, HTTP request or timer, and return call_park(call). The
 *   continuation is a new batch entry with transactions of its own; pointers into the store from
 *   before are dead. It returns like a handler: OK (reply is sent), an error, or call_park again.
 */
#ifndef BUS_ACTOR_H
#define BUS_ACTOR_H

#include "bus/env.h"
#include "bus/store.h"
#include "proto/frame.h"
#include "proto/metrics.h"
#include "proto/record.h"

typedef struct call call_t;

/* Method flags. */
enum {
    TOOL = 1,           /* listed as an MCP tool; without it: bus only */
    READS = 2,          /* sees a snapshot of the last commit */
    WRITES = 4,         /* runs inside the group commit; a repeated id gets the first outcome */
    DESTRUCTIVE = 8,    /* may delete or overwrite */
    IDEMPOTENT = 16,    /* again with the same arguments changes nothing more */
    OPEN_WORLD = 32,    /* reaches beyond this agency */
    ADMIN = 64,         /* needs the role admin */
    PARKS = 128,        /* READS that may park: never on a reader thread */
    ANY_COMPANY = 256,  /* needs no company: acts on the process or over companies */
    UNREMEMBERED = 512, /* WRITES whose outcome is not kept for retries: again is harmless */
    LONG = 1024,        /* may take minutes: clients that have tasks may begin it as one */
    SAYS_JSON = 2048,   /* to MCP's clients its text is the reply as JSON: they parse it */
    SAYS_FIRST = 4096,  /* the same of the reply's first member alone, as a bare list */
    AUDITED = 8192,     /* WRITES that is recorded in the audit log though it is no tool */
    BRIEF = 16384 /* READS within microseconds, whatever is stored: the caller's own thread may
                     run it while the actor's sleeps. Not for what PARKS, lists or searches */
};

typedef err_t method_fn_t(void *self, call_t *call, const void *args, void *reply);

typedef struct method {
    const char *name;
    const char *doc;
    const record_t *args;
    const record_t *reply;
    method_fn_t *fn;
    unsigned flags;
} method_t;

/* The company argument that every tool takes. */
#define COMPANY_ROW(F)                                                                             \
    F(COMPANY, company, opt(), 0, 0, "Whose data; absent means the caller's own company.")

#define METHODS(table, LIST)                                                                       \
    LIST(METHOD_DECLARE_)                                                                          \
    static const method_t table[] = {LIST(METHOD_ROW_){.name = NULL}};
/* A table for `more_methods`, which another file names. */
#define METHODS_SHARED(table, LIST)                                                                \
    LIST(METHOD_DECLARE_)                                                                          \
    const method_t table[] = {LIST(METHOD_ROW_){.name = NULL}};
#define METHOD_DECLARE_(self_t, id, bits, sentence)                                                \
    RECORD(id##_args, id##_ARGS)                                                                   \
    RECORD(id##_reply, id##_REPLY)                                                                 \
    static err_t id(self_t *self, call_t *call, const id##_args_t *args, id##_reply_t *reply);     \
    static err_t id##_thunk(void *self, call_t *call, const void *args, void *reply)               \
    {                                                                                              \
        return id((self_t *)self, call, (const id##_args_t *)args, (id##_reply_t *)reply);         \
    }
#define METHOD_ROW_(self_t, id, bits, sentence)                                                    \
    {.name = #id,                                                                                  \
     .doc = sentence,                                                                              \
     .args = &id##_args_record,                                                                    \
     .reply = &id##_reply_record,                                                                  \
     .fn = id##_thunk,                                                                             \
     .flags = (bits)},

/* An event this actor listens to. `fn` is a batch entry like a handler; events are hints, they can
 * be lost. */
typedef struct hear {
    const char *publisher, *topic;
    err_t (*fn)(void *self, call_t *call, const char *topic, bytes_t body);
} hear_t;

typedef struct actor_def {
    const char *name; /* "brain": also its directory and its door */
    const char *doc;
    size_t size; /* of the state, which starts zeroed */
    /* Runs before the actor answers, as an internal call (it may write). NULL: nothing to do. */
    err_t (*open)(void *self, call_t *call);
    /* Frees what open and after-commit functions allocated. Must work after a failed open. */
    void (*close)(void *self);
    /* Asked again and again while draining: true when nothing is left to finish. NULL: at once. */
    bool (*drained)(void *self);
    const method_t *methods;
    const method_t *const *more_methods; /* further tables, NULL-terminated; may be NULL */
    const hear_t *hears;                 /* ends with publisher NULL; may be NULL */
    /* The state starts with a pointer to the decoded settings when this is set:
     * struct brain { const brain_settings_t *settings; ... }. */
    const record_t *settings;
    const store_table_t *tables; /* ends with name NULL; NULL: no store */
    uint32_t format;             /* version of the stored format, from 1 */
    int readers;                 /* reader threads for READS */
    /* Adds what it counts to what every actor counts; as a READS entry. NULL: nothing. */
    void (*measure)(void *self, call_t *call, metrics_t *out);
} actor_def_t;

/* ---- What a handler may ask ---- */

arena_t *call_arena(call_t *call);
void *call_self(call_t *call);
actor_t *call_actor(call_t *call);
/* The authorised company; NULL only for ANY_COMPANY methods and internal work. */
const char *call_company(const call_t *call);
/* Internal work only: whose data what follows in this entry is about. `company` lives in the arena.
 */
void call_for_company(call_t *call, const char *company);
/* "local" for the single user of this machine; never NULL. "" for internal work. */
const char *call_principal(const call_t *call);
role_t call_role(const call_t *call);
const char *call_traceparent(const call_t *call); /* "" when absent */
/* The same text again when the caller sends this call again, and never for another one. The
 * skeleton keeps the outcome of a call that is done; one that writes and then parks has none yet,
 * so it must find by this what it began before a crash. At most 160 bytes, in the call's arena;
 * NULL for internal work. */
const char *call_identity(call_t *call);
/* May this call's principal act for that company? */
bool call_may(const call_t *call, const char *company);
int64_t call_now_ms(const call_t *call); /* wall clock at the start of the batch */
/* ms until the caller gives up; INT64_MAX for internal work. */
int64_t call_left_ms(const call_t *call);
/* ms since the caller sent it first; 0: it has not been sent before. An actor without tables keeps
 * no outcomes: it is for the handler to know a call that was sent again after its answer. */
int64_t call_age_ms(const call_t *call);
/* In a handler that takes long, now and then: lets other calls that only read come and go. */
void call_attend(call_t *call);
void call_random(call_t *call, void *data, size_t size);
/* 16 random bytes as 32 hex digits with a prefix, e.g. "task_". */
const char *call_new_id(call_t *call, const char *prefix);

/* The transaction for a company; the same one again within this entry. Begun on first use.
 * call_write creates the company's environment when there is none; call_read gives ERR_NOT_FOUND.
 * Inside a WRITES entry call_read of a company also sees what the entry itself wrote there. */
err_t call_write(call_t *call, const char *company, store_txn_t **txn);
err_t call_read(call_t *call, const char *company, store_txn_t **txn);
/* Companies that have an environment on disk. */
err_t call_companies(call_t *call, strs_t *out);
store_pool_t *call_store(call_t *call);

/* The readable text of the answer (MCP content); default is the reply as indented JSON. */
void call_say(call_t *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The whole sentence as it is. */
void call_say_text(call_t *call, const char *text);
/* Tells the caller how far it is; leaves after the commit. total 0: unknown. */
void call_progress(call_t *call, double done, double total, const char *message);
/* A line for whoever watches the call, at an MCP level ("info", "warning", …); leaves after the
 * commit. */
void call_note(call_t *call, const char *level, const char *text);
/* Tells the gateway that this will take a while: a client that can fetch the answer later may hang
 * up. */
void call_fetch_later(call_t *call);

/* ---- What a handler may start; leaves after the commit ---- */

/* A continuation: a new batch entry for the same call. `reply` is the reply being filled. */
typedef err_t resume_fn_t(void *self, call_t *call, void *reply, void *ctx);

/* Returns ERR_PARKED; return it from the handler. At the caller's deadline the skeleton answers
 * ERR_TIMEOUT by itself. */
err_t call_park(call_t *call);
/* Runs when a parked call ends without its continuation (deadline, cancel, caller gone, stop):
 * take it off your lists. Not a batch entry: memory only. */
void call_on_gone(call_t *call, void (*fn)(void *self, call_t *call, void *ctx), void *ctx);
/* Is this a reader thread? */
bool call_on_reader(const call_t *call);
/* From a reader thread, before anything else was done: return this, and the handler runs again on
 * the actor's thread, where it may park. */
err_t call_move(call_t *call);
/* The way back: parks the call, and fn runs on a reader thread as a handler of a read does, with
 * the reply as it is. Return what it returns; only for methods that READ and do not PARK. */
err_t call_to_reader(call_t *call, resume_fn_t *fn, void *ctx);
/* Makes the continuation of a parked call run. May be called from any entry of this actor, for
 * another call too; leaves after the commit of the calling entry. */
void call_resume(call_t *by, call_t *parked, resume_fn_t *fn, void *ctx);
/* The same after a time, unless the call has ended by then. */
void call_resume_after(call_t *call, int64_t delay_ms, resume_fn_t *fn, void *ctx);

typedef struct peer_answer {
    err_t err;
    const char *text; /* the sentence for people, "" when none */
    bytes_t body;     /* the reply record as msgpack; empty on error */
    bool progress;    /* not the end yet: more answers follow */
} peer_answer_t;

typedef err_t answer_fn_t(void *self, call_t *call, void *reply, const peer_answer_t *answer,
                          void *ctx);

typedef struct peer_call {
    const char *peer, *method;
    bytes_t args;        /* msgpack map; empty: none */
    int64_t timeout_ms;  /* 0: what is left of this call, at most 60 s */
    int64_t away_ms;     /* ERR_UNAVAILABLE when the peer has answered nothing, not even a ping,
                            for so long; 0: wait until the deadline */
    const char *key;     /* idempotency key of an effect; NULL: none */
    const char *company; /* NULL: this call's */
    bool want_progress;
    /* Speak for somebody else (the gateway does): NULL principal means this call's. */
    const char *principal;
    role_t role;
    strs_t companies;
    bool any_company; /* with principal: may name any company */
    const char *traceparent;
} peer_call_t;

/* Lost peers are called again with the same id until the deadline. Exactly one final answer. */
void call_peer(call_t *call, const peer_call_t *request, answer_fn_t *fn, void *ctx);
/* Args from a record into this call's arena. */
bytes_t call_encode(call_t *call, const record_t *record, const void *value);

typedef err_t child_fn_t(void *self, call_t *call, void *reply, const child_outcome_t *outcome,
                         void *ctx);
void call_child(call_t *call, const child_request_t *request, child_fn_t *fn, void *ctx);
typedef err_t http_fn_t(void *self, call_t *call, void *reply, const http_call_outcome_t *outcome,
                        void *ctx);
void call_http(call_t *call, const http_call_request_t *request, http_fn_t *fn, void *ctx);

void call_publish(call_t *call, const char *topic, const record_t *record, const void *value);
/* Runs fn(self, ctx) right after the commit that covers this entry; the place to change memory. */
void call_after_commit(call_t *call, void (*fn)(void *self, void *ctx), void *ctx);

/* New internal work: a batch entry of its own, with no caller, after delay_ms. `ctx` must outlive
 * it. Its errors are logged. It may park like any call. */
typedef err_t work_fn_t(void *self, call_t *call, void *ctx);
void call_work(call_t *call, int64_t delay_ms, work_fn_t *fn, void *ctx);

void call_log(call_t *call, log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- For actors with a descriptor of their own (the gateway) ---- */

/* fn(self, ctx) when fd is readable; on the actor's thread, outside any batch. From there calls
 * begin with actor_work_now. */
void actor_watch(actor_t *actor, int fd, void (*fn)(void *self, void *ctx), void *ctx);
void actor_unwatch(actor_t *actor, int fd);
/* fn(self) once at the end of the loop's turn, outside any batch. */
void actor_after_turn(actor_t *actor, void (*fn)(void *self));
/* A new internal entry as soon as the present batch is done. */
void actor_work(actor_t *actor, int64_t delay_ms, work_fn_t *fn, void *ctx);
/* Runs fn as an entry right now when no batch is running. For actors without a store. */
void actor_work_now(actor_t *actor, work_fn_t *fn, void *ctx);
/* The same as call_resume, from after-commit functions and descriptors. */
void actor_resume(actor_t *actor, call_t *parked, resume_fn_t *fn, void *ctx);
/* Ends a parked internal call (its client went away): peers are told, call_on_gone runs. */
void actor_cancel(actor_t *actor, call_t *call);
int64_t actor_mono_us(actor_t *actor);
int64_t actor_wall_ms(actor_t *actor);
bool actor_draining(const actor_t *actor);
const actor_def_t *actor_definition(const actor_t *actor);
/* What this actor counts, as its method <name>.metrics answers it. */
void actor_measure(actor_t *actor, call_t *call, metrics_t *out);
/* Do the loops of this process turn? False: one has not for limits.lag_ms. Whatever they wait for,
 * this is answered by the caller's own thread. */
bool actor_turns(actor_t *actor, int64_t *lag_us);
uint64_t actor_epoch(const actor_t *actor);
const char *actor_data_dir(const actor_t *actor); /* the AGENCY_DATA directory */
const char *actor_default_company(const actor_t *actor);
const char *actor_instance(const actor_t *actor); /* unique name, e.g. "worker-2" */

/* ---- For looking at the files while the actor is down ---- */

/* The actor's store with its lock and its tables; ERR_OWNED while the actor runs. */
err_t actor_store_open(const actor_def_t *def, const char *data_dir, arena_t *arena,
                       store_pool_t **out);

/* ---- For whoever runs an actor: bus/host.c and bus/sim.c ---- */

/* What bounds every actor; set as limits.<name>. */
#define limits_FIELDS(F)                                                                           \
    F(INT, inbox, opt(10000), 1, 1000000, "Calls waiting or parked; one more is refused as BUSY.") \
    F(INT, batch, opt(256), 1, 65536, "Calls in one commit.")                                      \
    F(INT, open_companies, opt(64), 1, 1024, "Stores that stay open, of one actor.")               \
    F(INT, company_bytes, opt(68719476736), 1048576, 1099511627776,                                \
      "Largest store of one company.")                                                             \
    F(INT, lag_ms, opt(15000), 100, 600000,                                                        \
      "A loop that has not turned for so long is not well: GET /livez says so.")                   \
    F(INT, stuck_ms, opt(120000), 0, 3600000,                                                      \
      "After so long its process ends, to be started again; 0: never.")
RECORD_STRUCT(limits, limits_FIELDS)
extern const record_t limits_record;

typedef struct actor_options {
    const char *data_dir;           /* AGENCY_DATA; the actor's directory is below it */
    const char *instance;           /* NULL: the name of the definition */
    const char *default_company;    /* "default" */
    const char *const *settings;    /* "actor.key=value", NULL-terminated; NULL: none */
    const char *const *environment; /* as environ; NULL: none */
    store_fault_t store_fault;      /* fault builds and simulation */
    bool store_nosync;              /* simulation only */
} actor_options_t;

/* Opens the store, runs def->open, subscribes. The sentence of an error lives in `arena`. */
err_t actor_open(const actor_def_t *def, actor_env_t *env, const actor_options_t *options,
                 arena_t *arena, actor_t **out);
/* Orderly end: everything parked is answered ERR_DRAINING, the store is closed. */
void actor_close(actor_t **actor);
/* Death in simulation: nothing more is sent, committed or answered. */
void actor_abandon(actor_t **actor);

/* A frame arrived. Malformed ones are counted and dropped. `route` is NULL for replies and events.
 */
void actor_on_frame(actor_t *actor, const route_t *route, bytes_t header, bytes_t body);
/* Runs a call to a BRIEF method at once, on the thread of the caller, who has the actor to itself
 * meanwhile. False: it is none, or one that took long of late, and nothing has happened. */
bool actor_serve_brief(actor_t *actor, const route_t *route, const header_t *header, bytes_t body);
/* Its answer, for the actor that called; also while that one runs a batch. */
void actor_on_answer(actor_t *actor, const header_t *header, bytes_t body);
void actor_on_child(actor_t *actor, uint64_t token, const child_outcome_t *outcome);
void actor_on_http(actor_t *actor, uint64_t token, const http_call_outcome_t *outcome);
void actor_on_read(actor_t *actor, uint64_t token);
/* The connection to a peer broke: its calls are sent again once it answers. */
void actor_on_lost(actor_t *actor, const char *peer);
/* Is there something to do right now? */
bool actor_ready(const actor_t *actor);
/* One batch: due timers, queued entries, commit, release. */
void actor_step(actor_t *actor);
/* When actor_step must be called at the latest, by mono_us; INT64_MAX: no timer. */
int64_t actor_next_us(const actor_t *actor);
/* From now on new calls from outside are refused with ERR_DRAINING. */
void actor_drain(actor_t *actor);
/* Nothing queued, parked or running that somebody waits for. */
bool actor_idle(const actor_t *actor);

#endif
