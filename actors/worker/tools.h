/* tools: which pillar has which tool, as the pillars say themselves. Inside the worker only. */
#ifndef ACTORS_WORKER_TOOLS_H
#define ACTORS_WORKER_TOOLS_H

#include "actors/worker/slot.h"

typedef struct tools tools_t;

typedef struct tool {
    const char *pillar, *name, *doc;
    bytes_t input; /* JSON Schema as msgpack */
    bool reads;
} tool_t;

tools_t *tools_new(void);
void tools_destroy(tools_t **tools);

/* Asks the pillars when nothing is known yet (or `again`), then goes on with fn. */
err_t tools_then(call_t *call, worker_t *worker, bool again, err_t (*fn)(call_t *call, void *ctx),
                 void *ctx);
const tool_t *tools_find(const tools_t *tools, const char *name);
/* All, in the order of the pillars. */
const tool_t *tools_all(const tools_t *tools, size_t *count);

#endif
