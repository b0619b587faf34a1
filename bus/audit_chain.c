/* The chain of the audit log, looked at from outside; pure. See audit.h. */
#include <string.h>

#include "bus/audit.h"

RECORD_DEFINE(audit_record, audit_record_FIELDS)
RECORD_DEFINE(audit_row, audit_row_FIELDS)
RECORD_DEFINE(audit_kept, audit_kept_FIELDS)

static err_t broken(arena_t *arena, const char *format, int64_t one, int64_t other)
{
    return err_make(arena, ERR_CORRUPT, format, (long long)one, (long long)other);
}

err_t audit_chain_take(audit_chain_t *chain, int64_t number, bytes_t value, arena_t *arena,
                       audit_row_t *out)
{
    uint8_t hash[DIGEST_BYTES];
    bytes_t map = {value.data, value.size > DIGEST_BYTES ? value.size - DIGEST_BYTES : 0};
    if (number < 1 || value.size > INT32_MAX)
        return broken(arena, "record %lld is none", number, 0);
    if (chain->next && number > chain->next)
        return broken(arena, "records %lld to %lld are missing", chain->next, number - 1);
    if (chain->next && number < chain->next)
        return broken(arena, "record %lld comes after record %lld", number, chain->next - 1);
    if (!map.size)
        return broken(arena, "record %lld is not whole", number, 0);
    digest_of(map, hash);
    if (!digest_same(hash, value.data + map.size))
        return broken(arena, "record %lld, or one written together with it, was changed", number,
                      0);
    err_t err = record_decode(&audit_row_record, map, arena, "field", out);
    if (err_is(err))
        return err_make(arena, ERR_CORRUPT, "record %lld cannot be read: %s", (long long)number,
                        err_what(err));
    if (out->first != number || out->last < number ||
        out->last - number != (int64_t)out->records.count - 1)
        return broken(arena, "record %lld is kept as record %lld", out->first, number);
    if (chain->next && !digest_same(out->before.data, chain->head))
        return broken(arena,
                      "record %lld does not follow record %lld, whose hash it should hold: one of "
                      "them was changed",
                      number, number - 1);
    if (!chain->next)
        chain->first = number;
    chain->next = out->last + 1;
    memcpy(chain->head, hash, sizeof(hash));
    return err_ok();
}
