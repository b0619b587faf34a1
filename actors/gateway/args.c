#include "actors/gateway/args.h"

#include "proto/mp.h"

void args_put(buf_t *out, uint32_t *count, const char *name, bytes_t value)
{
    if (!value.size)
        return;
    mp_put_str(out, name);
    mp_put_raw(out, value);
    ++*count;
}

void args_put_text(buf_t *out, uint32_t *count, const char *name, const char *value)
{
    if (!value)
        return;
    mp_put_str(out, name);
    mp_put_str(out, value);
    ++*count;
}

bytes_t args_map(arena_t *arena, const buf_t *pairs, uint32_t count)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, count);
    buf_put(&out, pairs->data, pairs->size);
    return buf_bytes(&out);
}
