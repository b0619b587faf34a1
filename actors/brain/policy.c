#include "actors/brain/policy.h"

#include <math.h>
#include <string.h>

#include "actors/brain/episode.h"
#include "proto/mp.h"

static const char name[] = "policy";

static bytes_t key_of(void)
{
    return (bytes_t){(const uint8_t *)name, sizeof name - 1};
}

static err_t add_rule(arena_t *arena, policy_t *policy, const char *type, double days)
{
    if (policy->count == POLICY_TYPES)
        return err_make(arena, ERR_ARGUMENT, "there are rules for %d types at most", POLICY_TYPES);
    policy->rules[policy->count++] =
        (policy_rule_t){.type = type, .type_hash = episode_type_hash(type), .days = days};
    return err_ok();
}

static void drop_rule(policy_t *policy, const char *type)
{
    size_t kept = 0;

    for (size_t i = 0; i < policy->count; i++)
        if (strcmp(policy->rules[i].type, type) != 0)
            policy->rules[kept++] = policy->rules[i];
    policy->count = kept;
}

err_t policy_read(store_txn_t *txn, arena_t *arena, policy_t *out)
{
    bytes_t value;
    mp_value_t head, type, days;
    err_t err = store_get(txn, TABLE_meta, key_of(), &value);

    out->count = 0;
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    mp_reader_t reader = mp_reader(value);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return err_of(ERR_CORRUPT, "the rules of how long memories are kept cannot be read");
    for (uint32_t i = 0; i < head.count && !err_is(err); i++) {
        if (!mp_read(&reader, &type) || type.type != MP_STR || !mp_read(&reader, &days) ||
            days.type != MP_REAL)
            return err_of(ERR_CORRUPT, "the rules of how long memories are kept cannot be read");
        err = add_rule(arena, out, arena_strndup(arena, type.text, type.size), days.real);
    }
    return err;
}

bytes_t policy_map(arena_t *arena, const policy_t *policy)
{
    buf_t out;

    buf_open(&out, arena);
    mp_put_map(&out, (uint32_t)policy->count);
    for (size_t i = 0; i < policy->count; i++) {
        mp_put_str(&out, policy->rules[i].type);
        mp_put_real(&out, policy->rules[i].days);
    }
    return buf_bytes(&out);
}

static err_t change_rule(arena_t *arena, policy_t *policy, const char *type, bytes_t value)
{
    double days = 0;
    mp_type_t kind;

    drop_rule(policy, type);
    if (mp_type_of(value, &kind) && kind == MP_NIL)
        return err_ok();
    if (!mp_real(value, &days) || !isfinite(days) || days <= 0 || days > 36500)
        return err_make(arena, ERR_ARGUMENT,
                        "keep_days of '%s' must be a number of days above 0 and up to 36500, or "
                        "null to keep such memories",
                        type);
    return add_rule(arena, policy, type, days);
}

err_t policy_change(store_txn_t *txn, arena_t *arena, bytes_t map)
{
    policy_t policy;
    mp_value_t head, type;
    bytes_t value;
    mp_reader_t reader = mp_reader(map);
    err_t err = policy_read(txn, arena, &policy);

    if (err_is(err))
        return err;
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return err_of(ERR_ARGUMENT, "keep_days must be an object of types and days, as "
                                    "{\"chat\": 30, \"*\": 365}");
    for (uint32_t i = 0; i < head.count && !err_is(err); i++) {
        if (!mp_read(&reader, &type) || type.type != MP_STR || !mp_slice(&reader, &value))
            return err_of(ERR_ARGUMENT, "keep_days cannot be read");
        if (!type.size || type.size > POLICY_TYPE)
            return err_of(ERR_ARGUMENT, "a type in keep_days must have 1 to 128 bytes; * is all "
                                        "types without a rule of their own");
        err = change_rule(arena, &policy, arena_strndup(arena, type.text, type.size), value);
    }
    if (err_is(err))
        return err;
    if (policy.count)
        return store_put(txn, TABLE_meta, key_of(), policy_map(arena, &policy));
    err = store_del(txn, TABLE_meta, key_of());
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

int64_t policy_since(const policy_t *policy, uint64_t type_hash, int64_t now_ms)
{
    const policy_rule_t *rule = NULL;

    for (size_t i = 0; i < policy->count; i++) {
        if (policy->rules[i].type_hash == type_hash) {
            rule = &policy->rules[i];
            break;
        }
        if (strcmp(policy->rules[i].type, "*") == 0)
            rule = &policy->rules[i];
    }
    return rule ? now_ms - (int64_t)(rule->days * 86400e3) : INT64_MIN;
}
