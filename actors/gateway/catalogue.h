/* catalogue: the tools of the pillars behind one gateway, as their describe gave them. A pillar
 * that is away keeps its tools listed until catalogue_forget. Thread: the gateway's. */
#ifndef ACTORS_GATEWAY_CATALOGUE_H
#define ACTORS_GATEWAY_CATALOGUE_H

#include <stdbool.h>

#include "proto/arena.h"
#include "proto/frame.h"

typedef struct catalogue catalogue_t;

catalogue_t *catalogue_new(const char *const *pillars, size_t count);
void catalogue_destroy(catalogue_t **catalogue);

/* The reply of <pillar>.describe. True when a list that somebody was given is no longer right. */
bool catalogue_learn(catalogue_t *catalogue, const char *pillar, bytes_t description);
/* Does the pillar also speak MCP's own words: has it a method <pillar>_mcp_list? */
bool catalogue_is_rich(const catalogue_t *catalogue, const char *pillar);
/* The reply of <pillar>_mcp_list for tools: {items: [tools as MCP lists them]}. */
bool catalogue_learn_rich(catalogue_t *catalogue, const char *pillar, bytes_t reply);
/* inputSchema of a tool as msgpack; size 0: the tool is made of rows, which check themselves. */
bytes_t catalogue_schema(const catalogue_t *catalogue, const char *tool);
bool catalogue_knows(const catalogue_t *catalogue, const char *pillar);
/* Every pillar was heard once. */
bool catalogue_complete(const catalogue_t *catalogue);
/* The pillar that has this tool, or NULL. `rich`: it is one of <pillar>_mcp_list; may be NULL. */
const char *catalogue_find(const catalogue_t *catalogue, const char *tool, bool *rich);
/* `"tools":[…]` as MCP lists them: by pillar, then in the order of the rows. */
const char *catalogue_json(catalogue_t *catalogue);
/* The same of those pillars for which `offers` is true. */
const char *catalogue_json_of(catalogue_t *catalogue,
                              bool (*offers)(const void *ctx, const char *pillar), const void *ctx,
                              arena_t *arena);
/* May the tool take minutes, as its row says? */
bool catalogue_is_long(const catalogue_t *catalogue, const char *tool);
/* The least role that may call it, as its row says; ROLE_READER of what is not made of rows. */
role_t catalogue_role(const catalogue_t *catalogue, const char *tool);
/* What of the reply is the tool's text, as JSON; size 0: the text is the tool's own words. */
bytes_t catalogue_json_part(const catalogue_t *catalogue, const char *tool, bytes_t reply);
/* The pillar is away for long: its tools are listed no more. True when there were some. */
bool catalogue_forget(catalogue_t *catalogue, const char *pillar);

#endif
