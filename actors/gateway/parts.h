/* parts: what the files of the gateway share; each section below is one of them, and says what it
 * is for. Thread: the gateway's loop. */
#ifndef ACTORS_GATEWAY_PARTS_H
#define ACTORS_GATEWAY_PARTS_H

#include "actors/gateway/catalogue.h"
#include "actors/gateway/gateway.h"
#include "actors/gateway/http.h"
#include "actors/gateway/jwt.h"
#include "actors/gateway/mcp.h"
#include "actors/gateway/seal.h"
#include "actors/gateway/tokens.h"
#include "bus/actor.h"

#define gateway_settings_FIELDS(F)                                                                 \
    F(INT, port, opt(0), 0, 65535, "Where to listen; 0 picks one.")                                \
    F(STR, bind, opt(127.0.0.1), 1, 64, "Numeric address to listen at.")                           \
    F(STR, pillar, opt(agent), 1, 64, "The pillar beside this gateway.")                           \
    F(STRS, pillars, opt(), 0, 16, "Whose tools are listed; absent: all beside the agent.")        \
    F(STR, tokens, opt(), 1, 4096, "File of bearer tokens; absent: none are asked for.")           \
    F(STR, oauth_keys, opt(), 1, 4096,                                                             \
      "File or URL of the public keys (JWKS) of an authorisation server; absent: as its metadata " \
      "say.")                                                                                      \
    F(STR, oauth_issuer, opt(), 1, 1024, "Its name, as the claim iss says it.")                    \
    F(STR, oauth_audience, opt(), 1, 1024,                                                         \
      "URL under which clients reach this endpoint; tokens are for it (claim aud).")               \
    F(STR, oauth_ca_file, opt(), 1, 4096,                                                          \
      "PEM of who vouches for its server; absent: those that the system trusts.")                  \
    F(INT, oauth_refresh_s, opt(3600), 10, 604800, "How often keys are fetched anew.")             \
    F(INT, oauth_unknown_ms, opt(10000), 100, 3600000,                                             \
      "For a token with an unknown key they are fetched at most so often.")                        \
    F(INT, oauth_fetch_ms, opt(5000), 100, 60000, "How long one fetch may take.")                  \
    F(INT, oauth_max_waiting, opt(1000), 1, 100000, "Requests that wait for a fetch at once.")     \
    F(BOOL, behind_proxy, opt(false), 0, 0, "A proxy in front ends TLS and checks the Host.")      \
    F(STRS, allowed_hosts, opt(), 0, 64, "Values of Host that are answered beside loopback's.")    \
    F(STRS, allowed_origins, opt(), 0, 64,                                                         \
      "Values of Origin that are answered beside loopback's.")                                     \
    F(INT, max_body, opt(4194304), 1024, 67108864, "Largest request body in bytes.")               \
    F(INT, max_connections, opt(2000), 1, 100000, "Connections at once.")                          \
    F(INT, max_per_address, opt(2000), 1, 100000, "Connections of one address at once.")           \
    F(INT, idle_timeout_s, opt(120), 1, 86400, "A quiet connection is closed after this time.")    \
    F(INT, call_timeout_ms, opt(120000), 100, 3600000,                                             \
      "Longest time a tool may take, or be silent when its client hears progress.")                \
    F(STRS, tool_timeouts, opt(), 0, 256, "The same of single tools: TOOL=MS, ...")                \
    F(INT, progress_timeout_ms, opt(3600000), 100, 86400000,                                       \
      "Longest time of a call whose client hears progress.")                                       \
    F(STR, access_log, opt(off), 1, 4096,                                                          \
      "A line for each request: off, stderr, or the path of a file.")                              \
    F(INT, access_log_bytes, opt(67108864), 4096, 10737418240,                                     \
      "The file is set aside as FILE.1 when it is larger.")                                        \
    F(INT, forget_pillar_ms, opt(300000), 0, 86400000,                                             \
      "The tools of a pillar that was away so long are not listed; 0: they stay.")                 \
    F(INT, away_ms, opt(15000), 100, 3600000,                                                      \
      "A pillar that has answered nothing for so long, not even a ping, is away: calls end.")      \
    F(BOOL, forwards, opt(false), 0, 0,                                                            \
      "The pillar is on another machine: this replica forwards to it, and says so.")               \
    F(STR, key_file, opt(), 1, 4096,                                                               \
      "32 random bytes that sign sessions and tasks; absent: gateway.key beside the data.")        \
    F(INT, session_ttl_s, opt(86400), 1, 2592000, "A session ends after this time.")               \
    F(INT, max_sessions, opt(10000), 1, 1000000,                                                   \
      "Sessions of which something is remembered: a log level, a subscription, an end.")           \
    F(INT, max_streams, opt(1500), 1, 100000,                                                      \
      "Streams that stay open at once (GET, subscriptions); one more is refused.")                 \
    F(INT, max_batch, opt(64), 1, 1000, "Messages in one batch (version 2025-03-26).")             \
    F(INT, max_subscriptions, opt(256), 1, 10000,                                                  \
      "Resources of which one session, or one stream, hears.")                                     \
    F(INT, stream_bytes, opt(16777216), 65536, 1073741824,                                         \
      "What may wait for the client of a stream that does not read; then it is cut off.")          \
    F(INT, keep_answer_s, opt(300), 1, 86400, "How long an answer waits to be fetched.")           \
    F(INT, max_replays, opt(1024), 1, 100000,                                                      \
      "Answers that can be fetched again, at once; further ones only arrive on their stream.")     \
    F(INT, replay_bytes, opt(8388608), 1024, 268435456,                                            \
      "What is kept of one such answer; what is beyond it only arrives on the stream.")            \
    F(INT, replay_total_bytes, opt(134217728), 1024, 17179869184,                                  \
      "What is kept of all of them together.")                                                     \
    F(INT, reconnect_ms, opt(500), 10, 600000,                                                     \
      "What clients are told to wait before they fetch the rest of a stream.")                     \
    F(INT, max_questions, opt(16), 1, 256, "Questions to a client that one call asks at once.")    \
    F(INT, max_rounds, opt(32), 1, 1000, "How often one call asks its client.")                    \
    F(INT, ask_state_s, opt(3600), 10, 2592000,                                                    \
      "How long a client may take to come again with its answers (requestState).")                 \
    F(INT, max_watched_tasks, opt(10000), 1, 1000000,                                              \
      "Tasks whose sessions are told how they are; the oldest make room.")                         \
    F(INT, sampling_tokens, opt(4096), 16, 1000000,                                                \
      "What a client's model may say to a step of prose.")                                         \
    F(INT, sampling_earlier_bytes, opt(4000), 0, 1048576,                                          \
      "What it is shown of the result of each earlier step.")                                      \
    F(INT, sampling_result_bytes, opt(262144), 16, 1048576,                                        \
      "Largest result that is taken from it.")                                                     \
    F(INT, keep_alive_ms, opt(15000), 1000, 600000, "Time between comments on a quiet stream.")
RECORD_STRUCT(gateway_settings, gateway_settings_FIELDS)

/* The tool that begins a run and waits for it. */
#define RUN_TOOL "sop_execute"
enum { RUN_POLL_MS = 1000 };

typedef struct tool_count tool_count_t;
typedef struct access_log access_log_t;
typedef struct task_watch task_watch_t;
typedef struct stream stream_t;
typedef struct session session_t;
typedef struct replay replay_t;

typedef struct key_waiter key_waiter_t;
typedef struct remote_keys {
    bool remote, fetching;
    bool openid; /* metadata are looked for where OpenID Connect has them */
    int failures, waiting;
    int64_t fetched_us; /* the last begin or end of a fetch; 0: none */
    uintptr_t generation;
    key_waiter_t *waiters;
} remote_keys_t;

/* What the header Accept of the last request allows. */
typedef struct accepts {
    char header[128];
    bool json, events;
    bool streams; /* and names them */
} accepts_t;

typedef struct gateway {
    const gateway_settings_t *settings;
    actor_t *actor;
    http_server_t *http;
    tokens_t *tokens;
    jwt_t *jwt; /* NULL: no authorisation server */
    remote_keys_t keys;
    catalogue_t *catalogue;
    const char *const *pillars;
    size_t pillar_count;
    int64_t born_us;       /* when it began to listen */
    int exchanges;         /* not over yet */
    struct exchange *live; /* those */
    bool stale_armed;      /* something said to change soon is not told yet */
    accepts_t accepts;
    bool began; /* the pillar has answered once */
    seal_t seal;
    stream_t *streams; /* open ones */
    int64_t stream_count;
    uint64_t tokens_seen; /* the version of the tokens that the streams' owners were held against */
    session_t *sessions;  /* latest first; only those with something to remember */
    session_t *oldest_session;
    void *session_tree; /* the same by id */
    size_t session_count;
    replay_t *replays;          /* answers that can be fetched later */
    size_t replay_bytes;        /* of all of them */
    struct pending *asking;     /* waiting for a client's answers */
    uint64_t next_number, salt; /* together never the same twice */
    tool_count_t *tool_counts;  /* tools.c; NULL: none yet */
    size_t tool_counts_count;
    task_watch_t *task_watches;
    access_log_t *access_log; /* NULL: off */
    int64_t reported_us;      /* when reports were last said to have changed */
    int64_t *away_since_ms;   /* of each pillar; 0: it is there */
} gateway_t;

/* What http_user of a parked request points to. */
typedef enum visitor { VISITOR_EXCHANGE, VISITOR_PROBE, VISITOR_STREAM, VISITOR_KEYS } visitor_t;

/* Who the session says the client is; all of it is in its id. */
typedef struct session_claims {
    const char *id; /* NULL: no session */
    const char *version;
    bool sampling, sampling_tools, elicitation, roots;
} session_claims_t;

/* One HTTP request with JSON-RPC in it. `request` is NULL once it is answered or the client has
 * gone. Counted, since the client and the bus each let go of it in their own time. */
typedef struct exchange {
    visitor_t visitor; /* first */
    struct exchange *next, *prev;
    gateway_t *gateway;
    http_request_t *request;
    int refs;
    bool events;  /* the answer is a stream of events */
    bool streams; /* it could be */
    bool started; /* the stream has begun */
    bool batch;
    int waiting;     /* answers of the batch that are still to come */
    int64_t sent_us; /* when something was last sent; at first: when it came */
    buf_t answers;
    arena_t *arena;
    principal_t principal;
    session_claims_t session;
    replay_t *replay;        /* NULL: the answer cannot be fetched later */
    bool earlier;            /* POST /messages without a session, as the earlier system has it */
    const char *old_door;    /* answers go to this session's GET /sse; NULL: not that door */
    const char *only;        /* the pillar whose tools are offered; NULL: all */
    const char *traceparent; /* NULL: none */
    struct pending *calls;
} exchange_t;

/* One JSON-RPC request of an exchange that is a call over the bus. */
typedef struct pending {
    struct pending *next;
    exchange_t *exchange;
    mcp_message_t message;
    const char *pillar, *tool;
    bytes_t arguments;
    call_t *call; /* NULL: not begun, or over */
    /* In MCP's own words (get.c, ask.c): */
    const char *kind;  /* "tool", "prompt", "resource", "task" */
    const char *state; /* of the pillar, from the last round */
    bytes_t responses;
    const char *log_level;
    struct pending *next_asking;
    struct question *questions; /* open ones of a legacy client */
    int open_questions, rounds;
    resume_fn_t *again; /* when the questions are answered */
    int64_t asked_us;
    const char *company; /* NULL: the client's own */
    size_t at;           /* lists: which pillar, then which row of what is kept */
    const char *cursor;
    struct pending_list *list;
    struct completion *completion;
    int64_t began_us, heard_us; /* the last sign of life */
    bool counted, failed;       /* for the metrics of its tool */
    bool wants_notes;           /* its client hears progress or a log */
    double progress;            /* last one that was told; below 0: none */
    /* A run (follow.c, tasks.c): */
    const char *run, *task;    /* its id, and the sealed one of its task */
    int64_t until_us;          /* how long it is waited for; -1: as the agent thinks */
    bool beginning;            /* the run is being submitted: its id is not known */
    bool called_off, owns_run; /* leaving calls it off */
    bool sampling;             /* its model was asked */
    int64_t unsampled;         /* the step that the client's model did not do; 0: none */
    const char *undecided;     /* the question that the client's user closed; NULL: none */
    const char *inner;         /* the run inside that is answered; NULL: the run itself */
    const char *mute;          /* the run inside that its client says nothing to; NULL: none */
    bytes_t asker;             /* what run_get says of the run inside that asks; size 0: none */
    bytes_t outer;             /* and of the run itself, with its text */
    const char *outer_text;
    int alone;
} pending_t;

/* ---- gateway.c ---- */

/* Every pillar that there may be, listed here or not. */
extern const char *const gateway_all_pillars[];
extern const size_t gateway_all_pillar_count;

/* Learns the tools of a pillar that serves some in MCP's own words anew. */
void gateway_ask_tools(gateway_t *self, const char *pillar);

/* A request, for the first time or after it had to wait. */
void gateway_on_request(gateway_t *self, http_request_t *request);

/* ---- jwks.c: keys that are fetched ---- */

bool jwks_is_url(const char *text);
/* ERR_ARGUMENT: an URL that cannot be trusted. */
err_t jwks_check_settings(const gateway_settings_t *settings, arena_t *arena);
void jwks_start(gateway_t *self, call_t *call);
/* The request waits for a fetch; false: it is not worth one now. */
bool jwks_wait(gateway_t *self, http_request_t *request);
void jwks_gone(gateway_t *self, key_waiter_t *waiter);

/* ---- access.c: who may come in ---- */

/* ERR_ARGUMENT when the settings contradict one another or a file makes no sense. */
err_t access_open(gateway_t *self, arena_t *arena);
/* Host, Origin and size. False: it was refused and answered. */
bool access_check(const gateway_t *self, http_request_t *request);
/* NULL: it was refused and answered, or waits. Lives until the next call. */
const principal_t *access_who(gateway_t *self, http_request_t *request);
/* RFC 9728. False: this is not such a path. */
bool access_metadata(gateway_t *self, http_request_t *request, const char *path);
void access_preflight(http_request_t *request);
/* A token of an authorisation server whose scopes do not reach for this role is told which do
 * (status 403). Else status 0: of others the pillar itself says what they may not. */
mcp_refusal_t access_too_small(exchange_t *exchange, const mcp_message_t *message, role_t role);

/* ---- exchange.c: one HTTP request with JSON-RPC in it ---- */

void gateway_flush_soon(gateway_t *self);
void gateway_reply_json(http_request_t *request, int status, const char *json);
void gateway_reply_error(http_request_t *request, int status, int code, const char *text);
exchange_t *exchange_new(gateway_t *self, http_request_t *request, const principal_t *principal);
void exchange_unref(exchange_t *exchange);
/* One event of the answer's stream, which begins with it. */
void exchange_send(exchange_t *exchange, const char *json);
/* The answer of one message; the last of a batch ends the exchange. */
void exchange_answer(exchange_t *exchange, int status, const char *json);
void exchange_refuse(exchange_t *exchange, const mcp_refusal_t *refusal);
/* 202, nothing to say. */
void exchange_accept(exchange_t *exchange);
/* The message was no request: 202, or in a batch nothing. */
void exchange_no_answer(exchange_t *exchange);
/* An error that belongs to no message. */
void exchange_error(exchange_t *exchange, int status, int code, const char *text);
/* The request is answered: it may be gone the next moment. */
void exchange_let_go(exchange_t *exchange);
/* A cancelled request gets no answer; its stream ends. */
void exchange_cancel(exchange_t *exchange);
/* The client went away. */
void exchange_gone(exchange_t *exchange);
/* Those who have heard nothing for keep_alive_ms hear a comment, so that nobody on the way thinks
 * the connection dead; an answer that could be a stream becomes one then. */
void exchange_tend(gateway_t *self);
/* Are the tools of this pillar for this client, by its path and its token? */
bool exchange_offers(const exchange_t *exchange, const char *pillar);
/* Will the answer of this message be a stream on which somebody hears progress or a log? */
bool exchange_hears_notes(const exchange_t *exchange, const mcp_message_t *message);
/* Whose resource or task is meant: `named`, or the only one that the client has; NULL: it must say.
 */
const char *exchange_company(const exchange_t *exchange, const char *named);
/* For the access log: what is asked for, and of which company; either may be NULL. */
void exchange_names(exchange_t *exchange, const char *name, const char *company);
bool exchange_may_stream(const exchange_t *exchange);
/* Where the client may lose its stream and fetch the rest later, the stream says how. */
void exchange_fetchable(exchange_t *exchange, const mcp_message_t *message);

/* Remembers a call of the exchange until pending_over; fn begins it. */
pending_t *pending_new(exchange_t *exchange, const mcp_message_t *message);
void pending_begin(pending_t *pending, work_fn_t *fn);
/* The call ended without an answer: cancelled, or the gateway stops. For call_on_gone. */
void pending_lost(void *self, call_t *call, void *ctx);
void pending_over(pending_t *pending);
/* What the last entry of such a call returns: it was answered, is refused, or failed. */
err_t pending_done(pending_t *pending, call_t *call);
err_t pending_refuse(pending_t *pending, call_t *call, mcp_refusal_t refusal);
err_t pending_fail(pending_t *pending, call_t *call, err_t err);
/* A call over the bus in the client's name. */
peer_call_t pending_request(const pending_t *pending, const char *pillar, const char *method,
                            bytes_t args);
/* {name: value, name_too: value_too, company}; what is NULL is left out. */
bytes_t pending_args(const pending_t *pending, const char *name, const char *value,
                     const char *name_too, const char *value_too);
/* Progress or a line of log on the way. */
void pending_note(pending_t *pending, bytes_t note);

/* ---- post.c, methods.c: what a client posts ---- */

void post_begin(gateway_t *self, http_request_t *request, const principal_t *principal,
                const char *only, bool old_door);
/* A request; the answer is given now or by a call over the bus. */
mcp_refusal_t methods_handle(exchange_t *exchange, const mcp_message_t *message);

/* ---- tools.c, get.c, list.c, complete.c: by method ---- */

/* ERR_ARGUMENT: gateway.tool_timeouts makes no sense. */
err_t tools_check_settings(const gateway_settings_t *settings, arena_t *arena);
int64_t tools_timeout_ms(const gateway_t *self, const char *tool);
/* The result of a tool that failed. */
err_t tools_failed(pending_t *pending, call_t *call, err_t err);
void tools_count(gateway_t *self, const char *tool, bool failed, int64_t took_us);
void tools_measure(const gateway_t *self, metrics_t *out);

mcp_refusal_t tools_call(exchange_t *exchange, const mcp_message_t *message);
/* tools/call of a tool that is not made of rows, prompts/get, resources/read; kind: "tool",
 * "prompt", "resource". */
mcp_refusal_t get_begin(exchange_t *exchange, const mcp_message_t *message, const char *kind);
/* Once more, with answers and state. */
err_t get_again(void *self, call_t *call, void *reply, void *ctx);
err_t get_missing(pending_t *pending, call_t *call);
mcp_refusal_t get_no_resource(exchange_t *exchange, const mcp_message_t *message, const char *uri);
/* The next pillar with words of its own, from `at` on; NULL: none. */
const char *get_next_pillar(const gateway_t *self, size_t *at);
/* Cursors of lists: which list, where in it, and the cursor of whoever keeps it. */
const char *list_cursor(gateway_t *self, arena_t *arena, const char *kind, size_t at,
                        const char *inner);
mcp_refusal_t list_read_cursor(exchange_t *exchange, const mcp_message_t *message, const char *kind,
                               size_t *at, const char **inner);
mcp_refusal_t list_begin(exchange_t *exchange, const mcp_message_t *message, const char *kind);
mcp_refusal_t complete_begin(exchange_t *exchange, const mcp_message_t *message);

/* ---- ask.c: a pillar wants input from the client ---- */

err_t ask_modern(pending_t *pending, call_t *call, bytes_t reply);
/* pending->again runs when all is answered. */
err_t ask_legacy(pending_t *pending, call_t *call, bytes_t inputs);
/* Can this legacy client answer such a question? */
bool ask_can(const exchange_t *exchange, const char *method);
/* pending->state from params.requestState; false: it is not ours, or not for this. */
bool ask_unseal(pending_t *pending, const char *text);
/* A legacy client answers a question. False: nobody asked. */
bool ask_on_response(exchange_t *exchange, const mcp_message_t *message, bytes_t value);
/* Its client has gone for good: nobody will answer. */
void ask_forget(pending_t *pending);

/* ---- follow.c: waiting for a run ---- */

/* Work: tools/call of sop_execute, and tasks/result of pending->run. */
err_t follow_tool(void *state, call_t *call, void *ctx);
err_t follow_result(void *state, call_t *call, void *ctx);
/* Its client cancels: the run is called off. True: leave the call alone, it ends by itself. */
bool follow_cancel(pending_t *pending);

/* ---- tasks.c ---- */

/* The tool of the pending becomes a task. */
mcp_refusal_t tasks_begin(pending_t *pending);
/* tasks/get, /update, /cancel, /result. */
mcp_refusal_t tasks_request(exchange_t *exchange, const mcp_message_t *message);
mcp_refusal_t tasks_list(exchange_t *exchange, const mcp_message_t *message);
mcp_refusal_t tasks_unknown(const mcp_message_t *message);
/* A pillar with words of its own made one. */
err_t tasks_created(pending_t *pending, call_t *call, const char *id, bytes_t detail);

/* ---- run_task.c: how a run looks as a task ---- */

/* Can this tool be a task? */
bool run_task_fits(const gateway_t *self, const char *tool);
/* The call that puts it into the queue. */
peer_call_t run_task_start(const pending_t *pending);
bool run_task_over(arena_t *arena, bytes_t run);
/* It, or a run inside of it, needs a person. */
bool run_task_asks(arena_t *arena, bytes_t run);
/* The step that somebody has to say something about; size 0: none. */
bytes_t run_task_waiting(bytes_t run);
/* The run whose question this is: itself, or the one inside of it that asks, if it is known. */
bytes_t run_task_asking(const pending_t *pending, bytes_t run);
/* The key of what this run asks, and what pending->responses says to it; size 0: nothing. */
const char *run_task_key(arena_t *arena, bytes_t run);
bytes_t run_task_reply(const pending_t *pending, bytes_t run);
/* {key:{method, params}} as JSON; `task`: the sealed id, or NULL. */
const char *run_task_question(arena_t *arena, bytes_t run, const char *task);
/* Members of a task of the extension, behind others; of version 2025-11-25; and of what
 * tasks/result answers. `first`: it has only just begun. */
void run_task_put(const pending_t *pending, bytes_t run, const char *text, int64_t now_ms,
                  bool first, buf_t *out);
void run_task_put_legacy(arena_t *arena, bytes_t run, const char *task, int64_t now_ms, bool first,
                         buf_t *out);
void run_task_put_result(arena_t *arena, bytes_t run, const char *text, const char *task,
                         buf_t *out);
/* The call that says pending->responses to the step that waits. False: nothing to say. */
bool run_task_answer(const pending_t *pending, bytes_t run, const char *id, peer_call_t *out);
/* What is wrong with what a person's client said to it; NULL: nothing. */
const char *run_task_wrong(const pending_t *pending, bytes_t run);

/* ---- sampling.c: prose done by the client's model ---- */

/* Can this step that waits be done so by this client, which has not yet failed to? */
bool sampling_fits(const pending_t *pending, bytes_t step);
/* The same of a task, whose client is asked by tasks/get. */
bool sampling_fits_task(const pending_t *pending, bytes_t step);
/* As run_task_question. */
const char *sampling_question(const pending_t *pending, bytes_t run, bytes_t step);
/* Is what pending->responses says to this run the answer of a model? */
bool sampling_answered(const pending_t *pending, bytes_t run);
/* The call that says it to the step. False: it completes nothing. */
bool sampling_answer(const pending_t *pending, bytes_t run, const char *id, peer_call_t *out);
int64_t sampling_number(bytes_t step); /* its place, from 1 */

/* ---- kept.c: what pillars keep, by their tools ---- */

/* Lists go by place: each kind of thing, for each company of a token that has several. */
size_t kept_places(const exchange_t *exchange);
/* Is something in a list of the kind (prompts, resources, templates) at this place? */
bool kept_lists(const exchange_t *exchange, const char *kind, size_t place);
const char *kept_template(arena_t *arena, size_t place);
/* The call that lists; false: there is none. */
bool kept_list_call(pending_t *pending, size_t place, peer_call_t *out);
/* Is this the address of something that is kept here and offered to this client? Whether there is
 * such a thing only its pillar knows. */
bool kept_is_one(const exchange_t *exchange, const char *uri);
/* What the arguments of a prompt lack, with the answer of its tool; NULL: nothing. */
const char *kept_prompt_lacks(const pending_t *pending, bytes_t body);
void kept_put_items(const pending_t *pending, size_t place, bytes_t body, buf_t *out, bool *any);
/* What is always there. */
void kept_put_fixed(const pending_t *pending, size_t place, buf_t *out, bool *any);
/* The call that reads; false: there is no such resource or prompt. */
bool kept_get_call(pending_t *pending, peer_call_t *out);
void kept_put_result(const pending_t *pending, bytes_t body, buf_t *out);

enum { COMPLETION_MOST = 100 };
typedef struct completion {
    arena_t *arena;
    const char *values[COMPLETION_MOST];
    size_t count;
    bool more;
} completion_t;
typedef enum kept_completion { KEPT_NOTHING, KEPT_DONE, KEPT_ASK } kept_completion_t;
/* KEPT_ASK: make the call and give its answer to kept_complete_from. */
kept_completion_t kept_complete(pending_t *pending, const char *argument, const char *begin,
                                completion_t *out, peer_call_t *call);
void kept_complete_from(const pending_t *pending, bytes_t body, const char *argument,
                        const char *begin, completion_t *out);

/* Something kept changed: whoever subscribed to its URI hears. */
void kept_changed(gateway_t *self, arena_t *arena, const char *kind, const char *company,
                  const char *id);
/* A list that is one resource (queue/now, proposals/pending, alerts/now) changed. */
void kept_moved(gateway_t *self, const char *path, const char *company);
/* A tool of rows succeeded: whoever listens hears what it changed. */
void kept_on_success(const pending_t *pending);

/* ---- task_status.c: hints about tasks on the stream of their session ---- */

void task_status_watch(const exchange_t *exchange, const char *run, const char *company,
                       const char *task);
/* The session has ended. */
void task_status_forget(gateway_t *self, const char *session);
void task_status_changed(gateway_t *self, const char *company, const char *run);
void task_status_close(gateway_t *self);

/* ---- access_log.c ---- */

/* ERR_IO when the file cannot be written. */
err_t access_log_open(const gateway_settings_t *settings, arena_t *arena, access_log_t **out);
void access_log_close(access_log_t **log);
void access_log_write(access_log_t *log, const http_done_t *done);

/* ---- pages.c: probes, metrics and the scale, without JSON-RPC ---- */

typedef struct probe probe_t;
void pages_get(gateway_t *self, http_request_t *request, const char *path);
void pages_gone(gateway_t *self, probe_t *probe);

/* ---- page.c: the dashboard ---- */

/* Is this a file of it? */
bool page_has(const char *path);
void page_get(http_request_t *request, const char *path);

/* ---- streams.c: sessions and whatever stays open ---- */

const char *session_new(gateway_t *self, arena_t *arena, const principal_t *principal,
                        const char *version, bytes_t capabilities);
/* Status 0, or how the id is refused. */
mcp_refusal_t session_read(gateway_t *self, arena_t *arena, const principal_t *principal,
                           const char *id, session_claims_t *out);
void session_end(gateway_t *self, const char *id);
void session_set_level(gateway_t *self, const char *id, const char *level);
const char *session_level(const gateway_t *self, const char *id);
/* NULL, or why not: it is of a company that the client may not see, or one too many. */
const char *session_subscribe(exchange_t *exchange, const char *uri, bool on);

/* GET /mcp and GET /sse. */
void stream_get(gateway_t *self, http_request_t *request, const principal_t *principal, bool old);
/* Why GET and DELETE are not for the version that the client names; status 0: they are. */
mcp_refusal_t stream_no_legacy(http_request_t *request);
mcp_refusal_t stream_listen(exchange_t *exchange, const mcp_message_t *message);
void stream_gone(gateway_t *self, stream_t *stream);
/* A message for the session's GET stream. False: there is none. */
bool stream_send(gateway_t *self, const char *session, const char *json);
/* "tools", "prompts", "resources", or the URI of a resource that changed. */
void streams_changed(gateway_t *self, const char *what);
/* The same of what belongs to a company: only its own clients hear. */
void streams_changed_of(gateway_t *self, const char *what, const char *company);
/* The list of prompts or resources of this company is another one: its own clients hear soon and
 * once, however often it is said. */
void streams_list_changed(gateway_t *self, const char *what, const char *company);
/* The same of one address: of what changes with every task. */
void streams_changed_soon(gateway_t *self, const char *what, const char *company);
void streams_tend(gateway_t *self);
void streams_close(gateway_t *self);

replay_t *replay_new(exchange_t *exchange);
void replay_put(gateway_t *self, exchange_t *exchange, const char *json);
void replay_end(gateway_t *self, exchange_t *exchange);
/* The client may hang up now and fetch the answer. */
void replay_hang_up(exchange_t *exchange);

#endif
