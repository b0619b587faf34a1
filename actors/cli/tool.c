/* tool: calling tools by name, with arguments in the types of their schemas. */
#include "actors/cli/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Typed arguments ---- */

err_t tool_read_file(cli_t *cli, const char *path, const char **text, size_t *size)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    if (!file)
        return err_make(cli->arena, ERR_ARGUMENT, "cannot read %s: %s", path, strerror(errno));
    buf_t all;
    buf_open(&all, cli->arena);
    char part[65536];
    size_t got;
    while ((got = fread(part, 1, sizeof(part), file)) > 0)
        buf_put(&all, part, got);
    if (file != stdin)
        fclose(file);
    *text = all.data;
    *size = all.size;
    return err_ok();
}

/* The value in the type that the schema wants; without one, JSON when it reads as JSON. */
static err_t typed_value(cli_t *cli, const char *key, bytes_t schema, const char *text, size_t size,
                         buf_t *out)
{
    bytes_t type = mp_member(schema, "type");
    if (type.size && mp_equals(type, "string")) {
        mp_put_strn(out, text, size);
        return err_ok();
    }
    bytes_t value;
    err_t err = json_to_msgpack(cli->arena, text, size, NULL, &value);
    if (!err_is(err)) {
        mp_put_raw(out, value);
        return err_ok();
    }
    const char *wanted = type.size ? mp_text(cli->arena, type) : NULL;
    if (wanted && strcmp(wanted, "array") != 0 && strcmp(wanted, "object") != 0)
        return err_make(cli->arena, ERR_ARGUMENT, "%s must be of type %s, not '%.80s'", key, wanted,
                        text);
    if (wanted)
        return err_make(cli->arena, ERR_ARGUMENT, "%s must be JSON of type %s: %s", key, wanted,
                        err_what(err));
    mp_put_strn(out, text, size);
    return err_ok();
}

/* The first required property that was not given yet takes a word without a key. */
static const char *free_key(cli_t *cli, bytes_t schema, const buf_t *given)
{
    bytes_t required = mp_member(schema, "required"), name;
    for (uint32_t i = 0; i < tool_count(required) && mp_at(required, i, &name); i++) {
        const char *key = mp_text(cli->arena, name);
        if (key && !strstr(given->data, arena_printf(cli->arena, " %s ", key)))
            return key;
    }
    bytes_t properties = mp_member(schema, "properties");
    mp_reader_t reader = mp_reader(properties);
    mp_value_t head, first;
    if (properties.size && !strcmp(given->data, " ") && mp_read(&reader, &head) && head.count &&
        mp_read(&reader, &first) && first.type == MP_STR)
        return arena_strndup(cli->arena, first.text, first.size);
    return NULL;
}

static err_t read_word(cli_t *cli, bytes_t schema, const char *word, buf_t *given, buf_t *out)
{
    const char *equals = strchr(word, '=');
    const char *key, *text;
    bool json = false, file = false;
    size_t name = equals ? (size_t)(equals - word) : 0;
    if (equals && name && word[name - 1] == ':') {
        json = true;
        name--;
    }
    key = equals ? arena_strndup(cli->arena, word, name) : NULL;
    if (!equals || strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") !=
                       strlen(key)) {
        key = free_key(cli, schema, given);
        text = word;
        if (!key)
            return err_make(cli->arena, ERR_ARGUMENT, "what is '%s'? Write key=value", word);
    } else {
        text = equals + 1;
        file = text[0] == '@' && !json;
    }
    size_t size = strlen(text);
    if (file) {
        err_t err = tool_read_file(cli, text + 1, &text, &size);
        if (err_is(err))
            return err;
    }
    buf_printf(given, "%s ", key);
    mp_put_str(out, key);
    if (json) {
        bytes_t value;
        err_t err = json_to_msgpack(cli->arena, text, size, NULL, &value);
        if (!err_is(err))
            mp_put_raw(out, value);
        return err;
    }
    return typed_value(cli, key, mp_member(mp_member(schema, "properties"), key), text, size, out);
}

static err_t read_arguments(cli_t *cli, const tool_t *tool, char **words, int count, bytes_t *out)
{
    bytes_t schema = mp_member(tool->row, "input");
    buf_t args, given;
    buf_open(&args, cli->arena);
    buf_open(&given, cli->arena);
    buf_puts(&given, " ");
    mp_put_map(&args, (uint32_t)count);
    for (int i = 0; i < count; i++) {
        err_t err = read_word(cli, schema, words[i], &given, &args);
        if (err_is(err))
            return err;
    }
    *out = buf_bytes(&args);
    return err_ok();
}

/* ---- Calling ---- */

static int explain(cli_t *cli, const tool_t *tool, const char *name)
{
    printf("%s: %s\n\nArguments\n%s\nReply\n%s\n", name,
           mp_text(cli->arena, mp_member(tool->row, "doc")),
           mp_text(cli->arena, mp_member(tool->row, "input_doc")),
           mp_text(cli->arena, mp_member(tool->row, "output_doc")));
    return EXIT_DONE;
}

int tool_call(cli_t *cli, client_t *client, const toolbox_t *list, const char *name, char **words,
              int count)
{
    const tool_t *tool = toolbox_find(list, name);
    if (!tool)
        return cli_fail(toolbox_no_such(cli, list, name));
    if (cli->help)
        return explain(cli, tool, name);
    if (cli->read_only && !mp_member_true(tool->row, "reads"))
        return cli_fail(
            err_make(cli->arena, ERR_FORBIDDEN, "%s writes, and --read-only was given", name));
    client_call_t call = toolbox_call(cli, tool->pillar, name);
    err_t err = read_arguments(cli, tool, words, count, &call.args);
    if (err_is(err))
        return cli_fail(err);
    client_reply_t reply = client_call(client, cli->arena, &call);
    if (err_is(reply.err))
        return cli_fail(reply.err);
    cli_print(cli, reply.text, reply.body);
    return EXIT_DONE;
}

int tool_with_toolbox(cli_t *cli, bool docs,
                      int (*fn)(cli_t *cli, client_t *client, const toolbox_t *list))
{
    client_t *client;
    toolbox_t list;
    err_t err = cli_client(cli, &client);
    if (err_is(err))
        return cli_fail(err);
    err = toolbox_load(cli, client, docs, &list);
    int code = err_is(err) ? cli_fail(err) : fn(cli, client, &list);
    client_close(&client);
    return code;
}

static int call_first(cli_t *cli, client_t *client, const toolbox_t *list)
{
    return tool_call(cli, client, list, cli->words[0], cli->words + 1, cli->count - 1);
}

int cli_call(cli_t *cli)
{
    if (!cli->count)
        return cli_usage("say which tool: agency call brain_query query='…'");
    return tool_with_toolbox(cli, cli->help, call_first);
}

static int call_command(cli_t *cli, client_t *client, const toolbox_t *list)
{
    return tool_call(cli, client, list, cli->command, cli->words, cli->count);
}

int cli_same_tool(cli_t *cli)
{
    return tool_with_toolbox(cli, cli->help, call_command);
}

/* ---- tools ---- */

/* Where MCP's text is JSON, what of the reply it is. */
static const char *text_note(cli_t *cli, const tool_t *tool)
{
    bytes_t json = mp_member(tool->row, "json");
    const char *member = json.size ? mp_text(cli->arena, json) : NULL;
    if (!member)
        return "";
    return !strcmp(member, "*")
               ? " (over MCP its text is the same as JSON)"
               : arena_printf(cli->arena, " (over MCP its text is `%s` as JSON)", member);
}

static int print_markdown(cli_t *cli, const toolbox_t *list)
{
    puts("# Tools\n\nMade from the rows beside the functions (`scripts/docs`). Every tool answers "
         "with `structuredContent` of the shape below and the same facts as text; where clients of "
         "the earlier system parse that text, it is JSON. A time is ms since 1970 or text such as "
         "`2026-01-31T12:00:00Z` (a date alone is its midnight; without an offset it is UTC); "
         "replies "
         "have ms.");
    const char *pillar = "";
    for (size_t i = 0; i < list->count; i++) {
        const tool_t *tool = &list->tools[i];
        if (strcmp(pillar, tool->pillar) != 0)
            printf("\n## %s\n", pillar = tool->pillar);
        printf("\n### %s\n\n%s%s%s\n\n%s\n", list->names[i],
               mp_text(cli->arena, mp_member(tool->row, "doc")),
               mp_member_true(tool->row, "reads") ? " *Reads only.*" : "",
               mp_member_true(tool->row, "destructive") ? " *May delete or overwrite.*" : "",
               mp_text(cli->arena, mp_member(tool->row, "input_doc")));
        printf("Reply%s:\n\n%s", text_note(cli, tool),
               mp_text(cli->arena, mp_member(tool->row, "output_doc")));
    }
    return EXIT_DONE;
}

static int list_tools(cli_t *cli, client_t *client, const toolbox_t *list)
{
    (void)client;
    if (cli->markdown)
        return print_markdown(cli, list);
    if (cli->count) {
        const tool_t *tool = toolbox_find(list, cli->words[0]);
        return tool ? explain(cli, tool, cli->words[0])
                    : cli_fail(toolbox_no_such(cli, list, cli->words[0]));
    }
    for (size_t i = 0; i < list->count; i++)
        printf("%-28s %-6s %s\n", list->names[i],
               mp_member_true(list->tools[i].row, "reads") ? "reads" : "writes",
               mp_text(cli->arena, mp_member(list->tools[i].row, "doc")));
    if (list->missing)
        fprintf(stderr, "agency: %s did not answer; its tools are missing here\n", list->missing);
    return EXIT_DONE;
}

static int list_external(cli_t *cli, client_t *client, const toolbox_t *list)
{
    static char name[] = "mcp_servers", one[] = "server=", all[] = "tools=true";
    char *words[] = {cli->count ? arena_printf(cli->arena, "%s%s", one, cli->words[0]) : all};
    return tool_call(cli, client, list, name, words, 1);
}

int cli_tools(cli_t *cli)
{
    if (cli->external)
        return tool_with_toolbox(cli, false, list_external);
    return tool_with_toolbox(cli, cli->markdown || cli->count > 0, list_tools);
}
