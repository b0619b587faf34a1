/* toolbox: see the header. */
#include "actors/cli/toolbox.h"

#include <string.h>

uint32_t tool_count(bytes_t container)
{
    mp_reader_t reader = mp_reader(container);
    mp_value_t head;
    return container.size && mp_read(&reader, &head) ? head.count : 0;
}

client_call_t toolbox_call(cli_t *cli, const char *pillar, const char *method)
{
    return (client_call_t){.peer = pillar,
                           .method = method,
                           .company = cli->company,
                           .role = ROLE_ADMIN,
                           .timeout_ms = cli->timeout_ms};
}

static void add_tools(cli_t *cli, toolbox_t *list, const char *pillar, bytes_t body)
{
    bytes_t methods = mp_member(body, "methods"), row;
    uint32_t count = tool_count(methods);
    tool_t *grown = ARENA_ARRAY(cli->arena, tool_t, list->count + count);
    if (list->count)
        memcpy(grown, list->tools, list->count * sizeof(tool_t));
    list->tools = grown;
    for (uint32_t i = 0; i < count && mp_at(methods, i, &row); i++)
        if (mp_member_true(row, "tool"))
            list->tools[list->count++] = (tool_t){pillar, row};
}

err_t toolbox_load(cli_t *cli, client_t *client, bool docs, toolbox_t *list)
{
    *list = (toolbox_t){0};
    err_t last = err_of(ERR_UNAVAILABLE, "no pillar answers; is the agency up? Try: agency up");
    bool any = false, failed = false, away = client_has_tcp(client);
    buf_t args;
    buf_open(&args, cli->arena);
    mp_put_map(&args, 1);
    mp_put_str(&args, "docs");
    mp_put_bool(&args, docs);
    for (const cli_actor_t *at = cli->house->actors; at->def; at++) {
        if ((!at->up || !at->port) && !at->inside)
            continue;
        if (away && !client_reaches(client, at->def->name)) {
            list->missing = at->def->name;
            continue;
        }
        client_call_t call = toolbox_call(cli, at->def->name,
                                          arena_printf(cli->arena, "%s.describe", at->def->name));
        call.timeout_ms = cli->timeout_ms < 3000 ? cli->timeout_ms : 3000;
        call.args = buf_bytes(&args);
        client_reply_t reply = client_call(client, cli->arena, &call);
        if (err_is(reply.err)) {
            list->missing = at->def->name;
            last = failed ? last : reply.err;
            failed = true;
            if (reply.err.code == ERR_UNAVAILABLE && !any && !cli_is_away(cli, at->def->name))
                return err_make(cli->arena, ERR_UNAVAILABLE,
                                "nobody answers in %s; is the agency up? Try: agency up",
                                cli->data_dir);
            continue;
        }
        any = true;
        add_tools(cli, list, at->def->name, reply.body);
    }
    list->names = ARENA_ARRAY(cli->arena, const char *, list->count + 1);
    for (size_t i = 0; i < list->count; i++)
        list->names[i] = mp_text(cli->arena, mp_member(list->tools[i].row, "name"));
    return any ? err_ok() : last;
}

const tool_t *toolbox_find(const toolbox_t *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->names[i], name))
            return &list->tools[i];
    return NULL;
}

err_t toolbox_no_such(cli_t *cli, const toolbox_t *list, const char *name)
{
    const char *near = record_nearest(name, list->names);
    return err_make(cli->arena, ERR_METHOD, "there is no tool '%s'%s%s%s%s%s", name,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "",
                    list->missing ? "; this pillar did not answer: " : "",
                    list->missing ? list->missing : "");
}
