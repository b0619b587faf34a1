/* inside: what the files of the skeleton share. Nobody else includes this.
 *
 *   actor.c      an actor opens and closes
 *   inbox.c      what arrives becomes entries
 *   batch.c      entries run, are committed, and what they made is released
 *   dispatch.c   one entry: the one choke point of all that an actor runs
 *   call.c       what a handler may do with its call
 *   calls.c      live calls and their answers
 *   timers.c     timers
 *   peer.c       calls to peers, and peers that are lost
 *   brief.c      brief calls, on the thread of their caller
 *   outcome.c    first outcomes of calls
 *   audit.c      who changed what (bus/audit.h)
 *   builtin.c    methods that every actor has
 * Everything here belongs to the actor's thread, except a call that a
 * reader thread is serving: until actor_on_read that call belongs to the reader. */
#ifndef BUS_INSIDE_H
#define BUS_INSIDE_H

#include "bus/audit.h"

typedef struct entry entry_t;
typedef struct output output_t;
typedef struct timer timer_t_;
typedef struct operation operation_t;
typedef struct batch_txn batch_txn_t;

/* A transaction that this entry uses: the batch's one for the company or, in a careful batch, a
 * child of it. */
typedef struct touch {
    batch_txn_t *of;
    store_txn_t *txn;
    uint64_t writes; /* of txn before this entry */
    struct touch *next;
} touch_t;

typedef enum call_state {
    CALL_WAITING,
    CALL_RUNNING,
    CALL_PARKED,
    CALL_READING,
    CALL_ENDED
} call_state_t;

struct call {
    actor_t *actor;
    arena_t *arena;
    call_t *next, *prev; /* all live calls of the actor */
    int refs;            /* entries, timers and operations that point here */
    call_state_t state;
    bool internal;
    bool cancelled; /* while a reader thread had it */
    bool repeated;  /* answered with its first outcome */
    bool audited;   /* that it began is recorded */
    /* From outside: */
    route_t route;
    header_t header;
    bytes_t body;
    const method_t *method;
    const char *company;
    void *args, *reply;
    int64_t deadline_us;
    timer_t_ *deadline;
    /* Internal: */
    work_fn_t *work;
    void *work_ctx;
    /* Of the entry that runs now: */
    output_t *outputs, **outputs_end;
    touch_t *touches;
    const char *text;
    /* Parked: */
    void (*on_gone)(void *self, call_t *call, void *ctx);
    void *gone_ctx;
    operation_t *operations;
    timer_t_ *timers;
    /* Answer of a reader thread: */
    bool moved;           /* from a reader thread to the actor's: call_move */
    resume_fn_t *read_fn; /* and back: call_to_reader; else NULL: the handler */
    void *read_ctx;
    err_t read_err;
    store_txn_t *read_txn;
    bytes_t read_body;
    uint64_t read_token;
    int64_t started_us;
};

typedef enum entry_kind {
    ENTRY_CALL,
    ENTRY_WORK,
    ENTRY_EVENT,
    ENTRY_RESUME,
    ENTRY_ANSWER,
    ENTRY_CHILD,
    ENTRY_HTTP,
    ENTRY_READ
} entry_kind_t;

/* One thing to run in a batch. Lives in its call's arena. */
struct entry {
    entry_t *next;
    entry_kind_t kind;
    call_t *call;
    void *ctx;
    union {
        resume_fn_t *resume;
        answer_fn_t *answer;
        child_fn_t *child;
        http_fn_t *http;
        const hear_t *hear;
    } fn;
    union {
        peer_answer_t answer;
        child_outcome_t child;
        http_call_outcome_t http;
        struct {
            const char *topic;
            bytes_t body;
        } event;
    } with;
    /* While it is in a batch: */
    err_t result;
    int waits; /* commits it must wait for */
    output_t *outputs;
    touch_t *touches;
    bool ended; /* the call ends with this entry */
    bool released;
    bytes_t audit;             /* its record; empty: none */
    const char *audit_company; /* whose, while no transaction has it; else NULL */
    entry_t *audit_next;
};

typedef enum output_kind {
    OUTPUT_REPLY,
    OUTPUT_PROGRESS,
    OUTPUT_PEER,
    OUTPUT_CHILD,
    OUTPUT_HTTP,
    OUTPUT_EVENT,
    OUTPUT_RESUME,
    OUTPUT_RESUME_AFTER,
    OUTPUT_READ,
    OUTPUT_WORK,
    OUTPUT_AFTER_COMMIT
} output_kind_t;

/* Something that leaves after the commit. Lives in the arena of the call whose entry made it. */
struct output {
    output_t *next;
    output_kind_t kind;
    call_t *target; /* RESUME: referenced */
    void *ctx;
    int64_t delay_ms;
    bytes_t header, body;
    const char *topic;
    union {
        resume_fn_t *resume;
        answer_fn_t *answer;
        child_fn_t *child;
        http_fn_t *http;
        work_fn_t *work;
        void (*after)(void *self, void *ctx);
    } fn;
    union {
        const peer_call_t *peer;
        const child_request_t *child;
        const http_call_request_t *http;
    } with;
};

/* A timer in the heap; removable through `index`. */
struct timer {
    int64_t at_us;
    uint64_t order; /* ties fire in the order they were made */
    size_t index;
    call_t *call; /* NULL: `work` */
    bool deadline;
    resume_fn_t *resume;
    work_fn_t *work;
    operation_t *operation; /* its deadline */
    void (*tick)(actor_t *actor);
    void *ctx;
    timer_t_ *next, *prev; /* of the same call */
};

typedef enum operation_kind {
    OPERATION_PEER,
    OPERATION_CHILD,
    OPERATION_HTTP,
    OPERATION_DONE /* nothing to call off any more */
} operation_kind_t;

/* Something under way outside for a call. */
struct operation {
    uint64_t token; /* also the id of a peer call */
    operation_kind_t kind;
    call_t *call;
    operation_t *chain;       /* in the table of tokens */
    operation_t *next, *prev; /* of the same call */
    void *ctx;
    union {
        answer_fn_t *answer;
        child_fn_t *child;
        http_fn_t *http;
    } fn;
    /* Peer calls: */
    const char *peer;
    header_t header;
    bytes_t body;
    bool want_progress;
    int64_t away_ms; /* 0: it waits until its deadline, whatever the peer does */
    int64_t sent_us;
    int64_t first_us;
    uint64_t epoch; /* of the peer when it was sent last; 0: unknown */
    timer_t_ *deadline;
};

/* What we know of a peer. */
typedef struct peer {
    struct peer *next;
    const char *name;
    uint64_t epoch;
    bool lost;
    int64_t heard_us; /* last frame from it */
} peer_t;

struct batch_txn {
    batch_txn_t *next;
    const char *company;
    store_txn_t *txn;      /* write transaction, or NULL */
    store_txn_t *snapshot; /* or NULL */
    bool started;          /* its commit runs on a thread of its own */
    entry_t *audited, *audited_last;
    int audited_count;
    const char *audit_head; /* to be logged after the commit; or NULL */
};

typedef struct audit_note audit_note_t;

typedef struct method_stats {
    uint64_t calls, errors;
    uint64_t total_us, max_us;
    uint64_t buckets[24]; /* by power of two of us */
    /* One that is said to be brief and was not: */
    int overlong, kept;
    int64_t kept_until_us; /* on the actor's own thread */
} method_stats_t;

/* The call to a peer that is being served on this thread. */
typedef struct here {
    int64_t id;
    call_t *call; /* NULL: none */
    const output_t *output;
    bool answered;
} here_t;

enum { TOKEN_BUCKETS = 1024, ARENA_SPARES = 256 };

struct actor {
    const actor_def_t *def;
    actor_env_t *env;
    void *self;
    arena_t *arena;
    const char *instance, *data_dir, *default_company, *from;
    store_pool_t *pool;
    store_table_t *tables;
    int outcomes_table, keys_table, audit_table;
    uint64_t epoch;
    limits_t limits;
    audit_settings_t audit;
    audit_note_t *notes, **notes_end; /* records that wait for a commit */
    int note_count;
    bool notes_armed, notes_pressing;
    uint64_t unrecorded, unrecorded_said;
    int64_t unrecorded_said_ms;

    entry_t *queue, **queue_end;
    int queued;
    call_t *calls; /* newest first */
    int live;      /* calls from outside that are waiting, parked or read */
    int internals;

    bool in_batch, draining, closing, failed;
    here_t here;
    bool lent; /* to the thread of a caller: brief.c */
    int64_t batch_wall_ms;
    int64_t last_read_us; /* a reader thread was asked then; 0: never */
    batch_txn_t *txns;
    arena_t *batch_arena;
    bool wants_growth, may_grow;
    bool careful,
        wants_care; /* each entry in a child transaction; an entry failed after it wrote */
    const char *growth_company;

    timer_t_ **heap;
    size_t heap_count, heap_capacity;
    uint64_t timer_order;

    operation_t *operations[TOKEN_BUCKETS];
    int operation_count, peer_calls;
    uint64_t next_token;
    peer_t *peers;
    timer_t_ *ping_armed;

    uint64_t event_seq;
    const method_t *methods; /* all tables of the definition in one; the last has no name */
    method_stats_t *stats;   /* by index of the method; builtins after them */
    int method_count;
    uint64_t malformed, dropped_busy, duplicates, batches, commits, commit_us;
    int64_t started_ms;

    arena_t *spares[ARENA_SPARES];
    int spare_count;

    char trimmed[65]; /* company whose old keys are being dropped */
    struct watch *watches;
};

/* calls.c */
arena_t *inside_arena_take(actor_t *actor);
void inside_arena_give(actor_t *actor, arena_t *arena);
call_t *inside_call_new(actor_t *actor, bool internal);
void inside_call_unref(call_t *call);
/* The call is over: whatever it still had under way is called off. */
void inside_call_end(call_t *call);
/* A parked call ends from outside: whoever keeps it on a list is told. */
void inside_call_gone(call_t *call);
entry_t *inside_entry(call_t *call, entry_kind_t kind, void *ctx);
void inside_queue(actor_t *actor, entry_t *entry);
output_t *inside_output(call_t *call, output_kind_t kind);
/* Counts the call, and answers it when it came from outside. */
void inside_reply(call_t *call, err_t err, const char *text, bytes_t body);
void inside_send(call_t *call, frame_kind_t kind, err_t err, const char *text, bytes_t body);

/* inbox.c */
/* A call whose header needs no decoding. */
void inside_take_header(actor_t *actor, const route_t *route, const header_t *header, bytes_t body);
/* Nobody waits for this call any more. */
void inside_call_stop(actor_t *actor, call_t *call);

/* dispatch.c */
const method_t *inside_find_method(const actor_t *actor, const char *name);
/* Runs the entry; its result, outputs and transactions are then in it. */
void inside_run_entry(entry_t *entry);
/* A reader thread goes on with the call. Always ERR_PARKED. */
err_t inside_read_start(call_t *call);

/* batch.c */
/* One batch of what is queued. */
void inside_run_queue(actor_t *actor);
/* When this batch began, more or less: when it was first asked. */
int64_t inside_batch_ms(actor_t *actor);
batch_txn_t *inside_batch_txn(actor_t *actor, const char *company);
/* A write failed for want of room: the batch will be replayed on a larger map. */
void inside_store_error(actor_t *actor, const char *company, err_t err);

/* timers.c */
timer_t_ *inside_timer(actor_t *actor, int64_t delay_ms, call_t *call);
void inside_timer_drop(actor_t *actor, timer_t_ *timer);
void inside_timers_fire(actor_t *actor);

/* peer.c */
operation_t *inside_operation(call_t *call, operation_kind_t kind, void *ctx);
void inside_operation_drop(operation_t *operation);
operation_t *inside_operation_find(actor_t *actor, uint64_t token);
void inside_peer_send(call_t *call, const output_t *output);
void inside_peer_frame(actor_t *actor, const header_t *header, bytes_t body);
void inside_peer_timeout(operation_t *operation);
void inside_peers_free(actor_t *actor);

/* outcome.c: the first outcome of WRITES calls, kept in the company's store. */
extern const store_table_t inside_outcome_tables[2];
err_t inside_outcome_keep(call_t *call, store_txn_t *txn, bytes_t body);
/* ERR_NOT_FOUND: it never happened here. OK: *text and *body are the first outcome. */
err_t inside_outcome_find(call_t *call, store_txn_t *txn, const char **text, bytes_t *body);
void inside_outcome_trim(actor_t *actor);

/* audit.c */
extern const store_table_t inside_audit_table;
/* The entry has run: its record, if it gets one. `wrote`: into a store. */
void inside_audit(entry_t *entry, err_t err, bool wrote);
/* After the last entry of a batch: what was recorded, into its transactions. False: the batch must
 * begin again (wants_growth, wants_care). */
bool inside_audit_write(actor_t *actor);
void inside_audit_committed(actor_t *actor, const batch_txn_t *of, bool fine);
/* With each entry that is released. */
void inside_audit_release(entry_t *entry);
/* Writes what still waits; then frees it. */
void inside_audit_close(actor_t *actor);
void inside_audit_free(actor_t *actor);

/* builtin.c: <name>.describe .stats .metrics .ping .drain .backup .audit */
extern const method_t inside_builtins[];
int inside_builtin_count(void);

#endif
