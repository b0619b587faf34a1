/* policy: how long a company keeps memories, by type. A memory whose time is over is gone for
 * everybody at once; its rows are deleted later. Time runs from a memory's timestamp. Thread:
 * whoever holds the transaction.
 */
#ifndef ACTORS_BRAIN_POLICY_H
#define ACTORS_BRAIN_POLICY_H

#include "actors/brain/brain.h"

enum { POLICY_TYPES = 64, POLICY_TYPE = 128 /* bytes of a type */ };

typedef struct policy_rule {
    const char *type; /* "*": all types without a rule of their own */
    uint64_t type_hash;
    double days;
} policy_rule_t;

typedef struct policy {
    policy_rule_t rules[POLICY_TYPES];
    size_t count; /* 0: everything is kept */
} policy_t;

/* In the arena. ERR_CORRUPT. */
err_t policy_read(store_txn_t *txn, arena_t *arena, policy_t *out);

/* The rules as a map of types and days, as policy_read found them. */
bytes_t policy_map(arena_t *arena, const policy_t *policy);

/* Lays a map of types and days over the rules; null ends a rule. ERR_ARGUMENT says what is wrong.
 */
err_t policy_change(store_txn_t *txn, arena_t *arena, bytes_t map);

/* INT64_MIN: such memories are kept for ever; else what happened before this time is gone. */
int64_t policy_since(const policy_t *policy, uint64_t type_hash, int64_t now_ms);

static inline bool policy_gone(const policy_t *policy, uint64_t type_hash, int64_t timestamp_ms,
                               int64_t now_ms)
{
    return policy->count && timestamp_ms < policy_since(policy, type_hash, now_ms);
}

#endif
