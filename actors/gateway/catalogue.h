/* catalogue: the tools of the pillars behind one gateway, as their describe gave them. A pillar
 * that is away keeps its tools listed. Thread: the gateway's. */
#ifndef ACTORS_GATEWAY_CATALOGUE_H
#define ACTORS_GATEWAY_CATALOGUE_H

#include <stdbool.h>

#include "proto/arena.h"

typedef struct catalogue catalogue_t;

catalogue_t *catalogue_new(const char *const *pillars, size_t count);
void catalogue_destroy(catalogue_t **catalogue);

/* The reply of <pillar>.describe. */
void catalogue_learn(catalogue_t *catalogue, const char *pillar, bytes_t description);
bool catalogue_knows(const catalogue_t *catalogue, const char *pillar);
/* Every pillar was heard once. */
bool catalogue_complete(const catalogue_t *catalogue);
/* The pillar that has this tool, or NULL. */
const char *catalogue_find(const catalogue_t *catalogue, const char *tool);
/* `"tools":[…]` as MCP lists them: by pillar, then in the order of the rows. */
const char *catalogue_json(catalogue_t *catalogue);

#endif
