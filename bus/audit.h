/* audit: who changed what, in a chain. Each actor with a store keeps one in each company's
 * environment, written in the transaction of what was changed: what is acknowledged is recorded,
 * and a crash leaves neither without the other.
 *
 * Recorded are the calls from outside of tools that write (and of methods marked AUDITED), whatever
 * their outcome, and all calls that were refused for the role or the company. Not: reads, what an
 * actor does by itself, repeated calls that got their first outcome.
 *
 * A row holds the records of one commit. Its value is a msgpack map (audit_row) and the SHA-256 of
 * that map; the map holds the SHA-256 of the row before. So a record that was changed, taken out or
 * moved is found. Whoever can write the file can also make the whole chain anew, or cut off its
 * end: that is found only by comparing with a head (number and hash of a last record) that was kept
 * elsewhere.
 *
 * Thread: a chain is its owner's; the rest is pure or as the store says. */
#ifndef BUS_AUDIT_H
#define BUS_AUDIT_H

#include "bus/actor.h"
#include "bus/digest.h"

#define audit_record_FIELDS(F)                                                                     \
    F(TIME, at, must, 0, 0, "When.")                                                               \
    F(STR, who, must, 0, 0, "Principal: the name of a token, or local.")                           \
    F(ENUM(role), role, must, 0, 0, "Its role.")                                                   \
    F(STR, door, must, 0, 0, "Which process asked, e.g. gateway-agent, worker-1, client-4711.")    \
    F(STR, tool, must, 0, 0, "What was called.")                                                   \
    F(STRS, ids, opt(), 0, 0, "Ids and names in its arguments and its answer.")                    \
    F(BYTES, args, must, DIGEST_BYTES, DIGEST_BYTES, "SHA-256 of its arguments.")                  \
    F(STR, outcome, must, 0, 0,                                                                    \
      "ok, the name of an error, or begun: it wrote and goes on; its end is another record.")      \
    F(INT, times, opt(1), 1, 0,                                                                    \
      "So many refused alike within a second; ids and arguments are those of the first.")
RECORD_STRUCT(audit_record, audit_record_FIELDS)
extern const record_t audit_record_record;

#define audit_row_FIELDS(F)                                                                        \
    F(BYTES, before, must, DIGEST_BYTES, DIGEST_BYTES, "Hash of the row before; zeros: none.")     \
    F(INT, first, must, 1, 0, "Number of its first record.")                                       \
    F(INT, last, must, 1, 0, "Number of its last one.")                                            \
    F(TIME, at, must, 0, 0, "When it was written.")                                                \
    F(LIST(audit_record), records, must, 1, 0, "In the order in which they were.")
RECORD_STRUCT(audit_row, audit_row_FIELDS)
extern const record_t audit_row_record;

/* Set as audit.<name>. */
#define audit_settings_FIELDS(F)                                                                   \
    F(BOOL, on, opt(true), 0, 0, "Whether calls are recorded.")                                    \
    F(INT, keep, opt(100000), 1000, 1000000000,                                                    \
      "Records kept of each company by each pillar; older ones go.")                               \
    F(STRS, skip, opt(), 0, 256,                                                                   \
      "Tools that are not recorded when they are allowed; absent: track_metric.")
RECORD_STRUCT(audit_settings, audit_settings_FIELDS)
extern const record_t audit_settings_record;

/* What a look at a chain has seen so far; starts zeroed. */
typedef struct audit_chain {
    int64_t first, next; /* number of the first record seen; of the one that comes next */
    uint8_t head[DIGEST_BYTES];
} audit_chain_t;

/* The next row, which is kept under `number`. ERR_CORRUPT with a sentence that names the records;
 * the chain then stands where it stood. */
err_t audit_chain_take(audit_chain_t *chain, int64_t number, bytes_t value, arena_t *arena,
                       audit_row_t *out);

/* Rows as they are kept, for others to check. */
#define audit_kept_FIELDS(F)                                                                       \
    F(INT, number, must, 0, 0, "Number of its first record.")                                      \
    F(BYTES, value, must, 0, 67108864, "The row and its hash.")
RECORD_STRUCT(audit_kept, audit_kept_FIELDS)
extern const record_t audit_kept_record;

/* Rows from the one whose first record is `from` or later, as many as make a page; none: the end.
 * ERR_NOT_FOUND: the company has nothing there. */
err_t audit_read(const actor_def_t *def, store_pool_t *pool, const char *company, int64_t from,
                 arena_t *arena, audit_kept_list_t *out);

#endif
