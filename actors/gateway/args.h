/* args: arguments for a pillar, as a map of what is there. Write pairs into a buffer, counting
 * them; args_map then makes the map. Thread: pure. */
#ifndef ACTORS_GATEWAY_ARGS_H
#define ACTORS_GATEWAY_ARGS_H

#include "proto/arena.h"

/* Nothing is written when the value is empty, or NULL. */
void args_put(buf_t *out, uint32_t *count, const char *name, bytes_t value);
void args_put_text(buf_t *out, uint32_t *count, const char *name, const char *value);
bytes_t args_map(arena_t *arena, const buf_t *pairs, uint32_t count);

#endif
