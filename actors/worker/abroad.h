/* abroad: tools of foreign MCP servers, which the actor `outside` knows and calls. Inside the
 * worker only. */
#ifndef ACTORS_WORKER_ABROAD_H
#define ACTORS_WORKER_ABROAD_H

#include "actors/worker/slot.h"

/* How a call ended. */
typedef enum abroad_end {
    ABROAD_DONE,
    ABROAD_FAILED, /* it was answered so, or was certainly not done */
    ABROAD_PASSES, /* it was certainly not done, and later it may work */
    ABROAD_UNKNOWN /* nobody knows whether it happened */
} abroad_end_t;

typedef struct abroad_outcome {
    abroad_end_t end;
    bytes_t result;
    const char *why; /* not DONE */
} abroad_outcome_t;

/* Arguments of outside_call: `life` is what outside_look or outside_tools said; timeout_ms 0: what
 * mcp.json says. */
peer_call_t abroad_request(call_t *call, const slot_t *slot, const char *tool, const char *life,
                           bytes_t args, const char *effect, int64_t timeout_ms);
abroad_outcome_t abroad_read(call_t *call, const peer_answer_t *got);

/* What a prose step may use. */
typedef struct abroad_tool {
    const char *name, *doc;
    const char *function; /* as models want names: letters, digits, _ and -, at most 64 */
    bytes_t input;
    bool safe; /* a second time does no harm */
} abroad_tool_t;

typedef struct abroad_list {
    const char *life;
    abroad_tool_t *items;
    size_t count;
} abroad_list_t;

/* Asks for the tools that the step permits, then goes on with fn; at once when it permits none. A
 * server that is away has none. */
err_t abroad_list_then(call_t *call, const step_t *step, abroad_list_t *out,
                       err_t (*fn)(call_t *call, void *ctx), void *ctx);
const abroad_tool_t *abroad_find(const abroad_list_t *list, const char *function);

#endif
