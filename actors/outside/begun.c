#include "actors/outside/begun.h"

/* FNV-1a: two that are taken for one cost a question to a person, nothing else. */
static uint64_t mix(uint64_t hash, const char *text)
{
    do {
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    } while (*text++);
    return hash;
}

static uint64_t key_of(const char *company, const char *effect)
{
    return mix(mix(UINT64_C(0xcbf29ce484222325), company), effect);
}

void begun_note(begun_t *begun, const char *company, const char *effect, int64_t now_us)
{
    if (begun->count == BEGUN_MOST)
        begun->forgotten_us = begun->rows[begun->next].at_us;
    else
        begun->count++;
    begun->rows[begun->next].key = key_of(company, effect);
    begun->rows[begun->next].at_us = now_us;
    begun->next = (begun->next + 1) % BEGUN_MOST;
}

bool begun_maybe(const begun_t *begun, const char *company, const char *effect, int64_t first_us)
{
    uint64_t key = key_of(company, effect);
    if (!*effect || (begun->forgotten_us && first_us <= begun->forgotten_us))
        return true;
    for (size_t i = 0; i < begun->count; i++)
        if (begun->rows[i].key == key)
            return true;
    return false;
}
