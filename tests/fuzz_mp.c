/* Any bytes as msgpack: reading, skipping and checking agree, and never leave the bytes. */
#include <stdlib.h>

#include "proto/mp.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* One value by its parts, counted down by hand; false where mp_skip must fail too. */
static bool walk(mp_reader_t *reader, int depth)
{
    mp_value_t value;
    if (!mp_read(reader, &value))
        return false;
    if (value.count && depth == MP_DEPTH)
        return false;
    uint64_t parts = value.type == MP_MAP ? 2 * (uint64_t)value.count : value.count;
    while (parts--)
        if (!walk(reader, depth + 1))
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    bytes_t whole = {data, size}, part;
    mp_reader_t skipped = mp_reader(whole), walked = skipped, sliced = skipped;
    bool good = mp_skip(&skipped);
    if (good != walk(&walked, 0) || (good && walked.at != skipped.at))
        abort();
    if (good && (!mp_slice(&sliced, &part) || part.data != data || sliced.at != skipped.at))
        abort();
    if (!err_is(mp_check(whole)) && (!good || skipped.at != skipped.end))
        abort();
    bool found = mp_get(whole, "key", &part) || mp_at(whole, 1, &part);
    if (found && (part.data < data || part.data + part.size > data + size || !part.size))
        abort();
    if (!mp_same(whole, whole))
        abort();
    return 0;
}
