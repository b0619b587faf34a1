#include "actors/worker/tools.h"

#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

enum { ASK_MS = 5000, TOOLS_MOST = 1000 };

static const char *const pillars[] = {"agent",   "brain",   "health", "swarm",
                                      "elastic", "outside", NULL};

struct tools {
    arena_t *arena;
    tool_t *list;
    size_t count;
};

tools_t *tools_new(void)
{
    tools_t *tools = calloc(1, sizeof(*tools));
    if (!tools)
        abort();
    tools->arena = arena_new();
    tools->list = ARENA_ARRAY(tools->arena, tool_t, TOOLS_MOST);
    return tools;
}

void tools_destroy(tools_t **tools)
{
    if (!*tools)
        return;
    arena_destroy(&(*tools)->arena);
    free(*tools);
    *tools = NULL;
}

const tool_t *tools_find(const tools_t *tools, const char *name)
{
    for (size_t i = 0; i < tools->count; i++)
        if (!strcmp(tools->list[i].name, name))
            return &tools->list[i];
    return NULL;
}

const tool_t *tools_all(const tools_t *tools, size_t *count)
{
    *count = tools->count;
    return tools->list;
}

static bool flag(bytes_t row, const char *name)
{
    bytes_t field;
    bool value = false;
    return mp_get(row, name, &field) && mp_bool(field, &value) && value;
}

static void learn(tools_t *tools, const char *pillar, bytes_t description)
{
    bytes_t methods, row, name, doc, input;
    mp_value_t head;
    if (!mp_get(description, "methods", &methods))
        return;
    mp_reader_t reader = mp_reader(methods);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &row); i++) {
        if (!flag(row, "tool") || !mp_get(row, "name", &name) || !mp_get(row, "doc", &doc) ||
            !mp_get(row, "input", &input) || tools->count == TOOLS_MOST)
            continue;
        const char *text = mp_text(tools->arena, name);
        if (!text || tools_find(tools, text))
            continue;
        tools->list[tools->count++] =
            (tool_t){.pillar = pillar,
                     .name = text,
                     .doc = mp_text(tools->arena, doc),
                     .input = {arena_copy(tools->arena, input.data, input.size), input.size},
                     .reads = flag(row, "reads")};
    }
}

/* All pillars are asked at the same time: one that is away costs its time only once. */
typedef struct asking {
    worker_t *worker;
    int waiting;
    err_t (*fn)(call_t *call, void *ctx);
    void *ctx;
} asking_t;

typedef struct asked {
    asking_t *asking;
    const char *pillar;
} asked_t;

static err_t on_description(void *self, call_t *call, void *reply, const peer_answer_t *got,
                            void *ctx)
{
    const asked_t *asked = ctx;
    asking_t *asking = asked->asking;
    (void)self;
    (void)reply;
    if (!err_is(got->err))
        learn(asking->worker->tools, asked->pillar, got->body);
    return --asking->waiting ? call_park(call) : asking->fn(call, asking->ctx);
}

static void ask(call_t *call, asking_t *asking, const char *pillar)
{
    asked_t *asked = ARENA_NEW(call_arena(call), asked_t);
    *asked = (asked_t){asking, pillar};
    peer_call_t request = {.peer = pillar,
                           .method = arena_printf(call_arena(call), "%s.describe", pillar),
                           .timeout_ms = ASK_MS};
    asking->waiting++;
    call_peer(call, &request, on_description, asked);
}

err_t tools_then(call_t *call, worker_t *worker, bool again, err_t (*fn)(call_t *call, void *ctx),
                 void *ctx)
{
    if (worker->tools->count && !again)
        return fn(call, ctx);
    asking_t *asking = ARENA_NEW(call_arena(call), asking_t);
    *asking = (asking_t){.worker = worker, .fn = fn, .ctx = ctx};
    for (size_t i = 0; pillars[i]; i++)
        ask(call, asking, pillars[i]);
    return call_park(call);
}
