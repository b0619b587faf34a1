/* frame: what travels on the bus, [header] [body], both msgpack. PROTOCOL.md tells the life of a
 * call. The header is a record; the body is the args or the reply of the method, or an event.
 * Thread: pure. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "proto/record.h"

enum {
    FRAME_VERSION = 1,
    FRAME_TEXT_LARGEST = 1 << 20, /* bytes of `what`; more is cut */
    FRAME_HEADER_LARGEST = FRAME_TEXT_LARGEST + (16 << 10),
    FRAME_BODY_LARGEST = 64 << 20
};

#define frame_kind_VALUES(V)                                                                       \
    V(FRAME_CALL, "call")                                                                          \
    V(FRAME_REPLY, "reply")                                                                        \
    V(FRAME_PROGRESS, "progress")                                                                  \
    V(FRAME_CANCEL, "cancel")                                                                      \
    V(FRAME_PING, "ping")                                                                          \
    V(FRAME_PONG, "pong")                                                                          \
    V(FRAME_EVENT, "event")
RECORD_ENUM(frame_kind, frame_kind_VALUES)

/* Ordered: a role may do what the ones before it may. */
#define role_VALUES(V)                                                                             \
    V(ROLE_READER, "reader")                                                                       \
    V(ROLE_OPERATOR, "operator")                                                                   \
    V(ROLE_ADMIN, "admin")
RECORD_ENUM(role, role_VALUES)

/* CALL, CANCEL and REPLY are matched by (from, id). The keys on the wire are short words since
 * every message carries them. */
#define header_FIELDS(F)                                                                           \
    F(INT, v, must, 1, 255, "Version of the wire format.")                                         \
    F(ENUM(frame_kind), kind, must, 0, 0, "What this frame is.")                                   \
    F(INT, id, opt(), 0, 0, "Number of the call, unique for its caller.")                          \
    F(STR, from, opt(), 0, 128, "Caller's unique name for this life of its process.")              \
    F(STR, method, opt(), 0, 128, "CALL: the method. EVENT: the topic.")                           \
    F(STR, company, opt(), 0, 64, "Company meant when the arguments name none.")                   \
    F(STRS, companies, opt(), 0, 256, "Companies the principal may name; absent means any.")       \
    F(STR, principal, opt(), 0, 128, "Who asks: the name of a token, or local.")                   \
    F(ENUM(role), role, opt(), 0, 0, "What the principal may do; absent means reader.")            \
    F(INT, deadline_ms, opt(), 0, 0, "CALL: milliseconds left when it was sent.")                  \
    F(INT, age_ms, opt(), 0, 0, "CALL: sent again; ms since it was sent first.")                   \
    F(STR, key, opt(), 0, 128, "CALL: idempotency key of the effect, kept for a day.")             \
    F(STR, traceparent, opt(), 0, 128, "W3C trace context.")                                       \
    F(STR, err, opt(), 0, 32, "REPLY: name of the error; absent means success.")                   \
    F(STR, what, opt(), 0, FRAME_TEXT_LARGEST, "REPLY: the text for people.")                      \
    F(INT, epoch, opt(), 0, 0, "REPLY, PONG, EVENT: which life of the callee this is.")            \
    F(INT, seq, opt(), 0, 0, "EVENT: number within this life of the publisher.")
RECORD_STRUCT(header, header_FIELDS)
extern const record_t header_record;

/* Decodes and checks a header: version, kind, sizes. ERR_PARSE, ERR_VERSION, ERR_TOO_LARGE. */
err_t frame_decode(bytes_t header, bytes_t body, arena_t *arena, header_t *out);

void frame_encode(const header_t *header, buf_t *out);

/* A company name as DESIGN §7 wants it: [A-Za-z0-9][A-Za-z0-9_-]{0,63}. */
bool frame_company_name(const char *name);

#endif
