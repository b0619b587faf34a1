/* tool: calling tools by name. Which pillar has a tool, and the types of its arguments, come from
 * describe; nothing is known by heart. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/cli/cli.h"
#include "actors/cli/transfer.h"
#include "bus/client.h"

typedef struct tool {
    const char *pillar;
    bytes_t row; /* as describe gives it */
} tool_t;

typedef struct catalogue {
    tool_t *tools;
    size_t count;
    const char **names;  /* ends with NULL */
    const char *missing; /* a pillar that did not answer, or NULL */
} catalogue_t;

static bytes_t field(bytes_t map, const char *key)
{
    bytes_t value = {0};
    if (map.size)
        mp_get(map, key, &value);
    return value;
}

static uint32_t count_of(bytes_t container)
{
    mp_reader_t reader = mp_reader(container);
    mp_value_t head;
    return container.size && mp_read(&reader, &head) ? head.count : 0;
}

static bool flag_of(bytes_t map, const char *key)
{
    bool value = false;
    bytes_t bytes = field(map, key);
    return bytes.size && mp_bool(bytes, &value) && value;
}

/* ---- The list of tools ---- */

static client_call_t new_call(cli_t *cli, const char *pillar, const char *method)
{
    return (client_call_t){.peer = pillar,
                           .method = method,
                           .company = cli->company,
                           .role = ROLE_ADMIN,
                           .timeout_ms = cli->timeout_ms};
}

static void add_tools(cli_t *cli, catalogue_t *list, const char *pillar, bytes_t body)
{
    bytes_t methods = field(body, "methods"), row;
    uint32_t count = count_of(methods);
    tool_t *grown = ARENA_ARRAY(cli->arena, tool_t, list->count + count);
    if (list->count)
        memcpy(grown, list->tools, list->count * sizeof(tool_t));
    list->tools = grown;
    for (uint32_t i = 0; i < count && mp_at(methods, i, &row); i++)
        if (flag_of(row, "tool"))
            list->tools[list->count++] = (tool_t){pillar, row};
}

/* Asks every pillar of `up`; ERR_UNAVAILABLE when none answers. */
static err_t load(cli_t *cli, client_t *client, bool docs, catalogue_t *list)
{
    *list = (catalogue_t){0};
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
        client_call_t call =
            new_call(cli, at->def->name, arena_printf(cli->arena, "%s.describe", at->def->name));
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
        list->names[i] = mp_text(cli->arena, field(list->tools[i].row, "name"));
    return any ? err_ok() : last;
}

static const tool_t *find_tool(const catalogue_t *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->names[i], name))
            return &list->tools[i];
    return NULL;
}

static err_t no_such_tool(cli_t *cli, const catalogue_t *list, const char *name)
{
    const char *near = record_nearest(name, list->names);
    return err_make(cli->arena, ERR_METHOD, "there is no tool '%s'%s%s%s%s%s", name,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "",
                    list->missing ? "; this pillar did not answer: " : "",
                    list->missing ? list->missing : "");
}

/* ---- Typed arguments ---- */

static err_t read_file(cli_t *cli, const char *path, const char **text, size_t *size)
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
    bytes_t type = field(schema, "type");
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
    bytes_t required = field(schema, "required"), name;
    for (uint32_t i = 0; i < count_of(required) && mp_at(required, i, &name); i++) {
        const char *key = mp_text(cli->arena, name);
        if (key && !strstr(given->data, arena_printf(cli->arena, " %s ", key)))
            return key;
    }
    bytes_t properties = field(schema, "properties");
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
        err_t err = read_file(cli, text + 1, &text, &size);
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
    return typed_value(cli, key, field(field(schema, "properties"), key), text, size, out);
}

static err_t read_arguments(cli_t *cli, const tool_t *tool, char **words, int count, bytes_t *out)
{
    bytes_t schema = field(tool->row, "input");
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
           mp_text(cli->arena, field(tool->row, "doc")),
           mp_text(cli->arena, field(tool->row, "input_doc")),
           mp_text(cli->arena, field(tool->row, "output_doc")));
    return EXIT_DONE;
}

static int call_tool(cli_t *cli, client_t *client, const catalogue_t *list, const char *name,
                     char **words, int count)
{
    const tool_t *tool = find_tool(list, name);
    if (!tool)
        return cli_fail(no_such_tool(cli, list, name));
    if (cli->help)
        return explain(cli, tool, name);
    if (cli->read_only && !flag_of(tool->row, "reads"))
        return cli_fail(
            err_make(cli->arena, ERR_FORBIDDEN, "%s writes, and --read-only was given", name));
    client_call_t call = new_call(cli, tool->pillar, name);
    err_t err = read_arguments(cli, tool, words, count, &call.args);
    if (err_is(err))
        return cli_fail(err);
    client_reply_t reply = client_call(client, cli->arena, &call);
    if (err_is(reply.err))
        return cli_fail(reply.err);
    cli_print(cli, reply.text, reply.body);
    return EXIT_DONE;
}

static int with_catalogue(cli_t *cli, bool docs,
                          int (*fn)(cli_t *cli, client_t *client, const catalogue_t *list))
{
    client_t *client;
    catalogue_t list;
    err_t err = cli_client(cli, &client);
    if (err_is(err))
        return cli_fail(err);
    err = load(cli, client, docs, &list);
    int code = err_is(err) ? cli_fail(err) : fn(cli, client, &list);
    client_close(&client);
    return code;
}

static int call_first(cli_t *cli, client_t *client, const catalogue_t *list)
{
    return call_tool(cli, client, list, cli->words[0], cli->words + 1, cli->count - 1);
}

int cli_call(cli_t *cli)
{
    if (!cli->count)
        return cli_usage("say which tool: agency call brain_query query='…'");
    return with_catalogue(cli, cli->help, call_first);
}

/* ---- tools ---- */

/* Where MCP's text is JSON, what of the reply it is. */
static const char *text_note(cli_t *cli, const tool_t *tool)
{
    bytes_t json = field(tool->row, "json");
    const char *member = json.size ? mp_text(cli->arena, json) : NULL;
    if (!member)
        return "";
    return !strcmp(member, "*")
               ? " (over MCP its text is the same as JSON)"
               : arena_printf(cli->arena, " (over MCP its text is `%s` as JSON)", member);
}

static int print_markdown(cli_t *cli, const catalogue_t *list)
{
    puts("# Tools\n\nMade from the rows beside the functions (`scripts/docs`). Every tool answers "
         "with `structuredContent` of the shape below and the same facts as text; where clients of "
         "the earlier system parse that text, it is JSON.");
    const char *pillar = "";
    for (size_t i = 0; i < list->count; i++) {
        const tool_t *tool = &list->tools[i];
        if (strcmp(pillar, tool->pillar) != 0)
            printf("\n## %s\n", pillar = tool->pillar);
        printf("\n### %s\n\n%s%s%s\n\n%s\n", list->names[i],
               mp_text(cli->arena, field(tool->row, "doc")),
               flag_of(tool->row, "reads") ? " *Reads only.*" : "",
               flag_of(tool->row, "destructive") ? " *May delete or overwrite.*" : "",
               mp_text(cli->arena, field(tool->row, "input_doc")));
        printf("Reply%s:\n\n%s", text_note(cli, tool),
               mp_text(cli->arena, field(tool->row, "output_doc")));
    }
    return EXIT_DONE;
}

static int list_tools(cli_t *cli, client_t *client, const catalogue_t *list)
{
    (void)client;
    if (cli->markdown)
        return print_markdown(cli, list);
    if (cli->count) {
        const tool_t *tool = find_tool(list, cli->words[0]);
        return tool ? explain(cli, tool, cli->words[0])
                    : cli_fail(no_such_tool(cli, list, cli->words[0]));
    }
    for (size_t i = 0; i < list->count; i++)
        printf("%-28s %-6s %s\n", list->names[i],
               flag_of(list->tools[i].row, "reads") ? "reads" : "writes",
               mp_text(cli->arena, field(list->tools[i].row, "doc")));
    if (list->missing)
        fprintf(stderr, "agency: %s did not answer; its tools are missing here\n", list->missing);
    return EXIT_DONE;
}

static int list_external(cli_t *cli, client_t *client, const catalogue_t *list)
{
    static char name[] = "mcp_servers", one[] = "server=", all[] = "tools=true";
    char *words[] = {cli->count ? arena_printf(cli->arena, "%s%s", one, cli->words[0]) : all};
    return call_tool(cli, client, list, name, words, 1);
}

int cli_tools(cli_t *cli)
{
    if (cli->external)
        return with_catalogue(cli, false, list_external);
    return with_catalogue(cli, cli->markdown || cli->count > 0, list_tools);
}

/* ---- `agency sop run …` and its like ---- */

typedef struct alias {
    const char *group, *word, *tool;
} alias_t;

static const alias_t aliases[] = {{"sop", "run", "sop_execute"},
                                  {"sop", "validate", "validate_sop"},
                                  {"run", "retry", "run_retry_from"},
                                  {"run", "complete", "step_complete"},
                                  {"run", "fail", "step_fail"},
                                  {"brain", "delete", "brain_delete_episode"},
                                  {"brain", "graph", "brain_query_graph"},
                                  {NULL, NULL, NULL}};

static const char *tool_for(cli_t *cli, const char *group, const char *word)
{
    for (const alias_t *at = aliases; at->group; at++)
        if (!strcmp(at->group, group) && !strcmp(at->word, word))
            return at->tool;
    return arena_printf(cli->arena, "%s_%s", group, word);
}

/* `agency sop create FILE.md`: the name is the file's, the content is the file. */
static err_t create_from_file(cli_t *cli)
{
    const char *path = cli->words[1], *text;
    size_t size;
    err_t err = read_file(cli, path, &text, &size);
    if (err_is(err))
        return err;
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    size_t stem = strlen(base) > 3 ? strlen(base) - 3 : strlen(base);
    char **words = ARENA_ARRAY(cli->arena, char *, 4);
    words[0] = cli->words[0];
    words[1] = arena_printf(cli->arena, "name=%.*s", (int)stem, base);
    words[2] = arena_printf(cli->arena, "content=%s", text);
    cli->words = words;
    cli->count = 3;
    return err_ok();
}

static int call_words(cli_t *cli, client_t *client, const catalogue_t *list)
{
    return call_tool(cli, client, list, cli->words[0], cli->words + 1, cli->count - 1);
}

int cli_words(cli_t *cli, const char *group)
{
    if (!strcmp(group, "approve") || !strcmp(group, "reject")) {
        char **words = ARENA_ARRAY(cli->arena, char *, (size_t)cli->count + 2);
        words[0] = arena_strdup(cli->arena, group);
        memcpy(words + 1, cli->words, (size_t)cli->count * sizeof(char *));
        cli->words = words;
        cli->count++;
        return with_catalogue(cli, cli->help, call_words);
    }
    if (!cli->count)
        return cli_usage("say what: agency tools lists everything that begins with %s_", group);
    size_t size = cli->count == 2 ? strlen(cli->words[1]) : 0;
    if (!strcmp(group, "sop") && !strcmp(cli->words[0], "create") && size > 3 &&
        !strcmp(cli->words[1] + size - 3, ".md") && !strchr(cli->words[1], '=')) {
        err_t err = create_from_file(cli);
        if (err_is(err))
            return cli_fail(err);
    }
    bool out = !strcmp(cli->words[0], "export"), in = !strcmp(cli->words[0], "import");
    if (!strcmp(group, "brain") && (out || in) && size && !strchr(cli->words[1], '=') && !cli->help)
        return cli_brain_file(cli, out, cli->words[1]);
    cli->words[0] = (char *)tool_for(cli, group, cli->words[0]);
    return with_catalogue(cli, cli->help, call_words);
}
