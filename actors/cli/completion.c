/* completion: what may stand next on the command line. The scripts below know nothing: at each tab
 * they ask `agency completion words =LAST EARLIER…`, which asks the running pillars for their tools
 * and arguments and prints one candidate a line. */
#include <stdio.h>
#include <string.h>

#include "actors/cli/tool.h"
#include "actors/cli/words.h"

enum { PATIENCE_MS = 1000 };

/* Bash takes `=` for the end of a word, so what stands before it is cut off again. */
static const char bash[] =
    "_agency() {\n"
    "  local line=${COMP_LINE:0:COMP_POINT} last words\n"
    "  read -ra words <<<\"$line\"\n"
    "  last=\n"
    "  [[ $line == *[[:space:]] ]] || { last=${words[-1]}; unset 'words[-1]'; }\n"
    "  mapfile -t COMPREPLY < <(\"${COMP_WORDS[0]}\" completion words \"=$last\" \"${words[@]:1}\" "
    "2>/dev/null)\n"
    "  [[ $last == *=* ]] && COMPREPLY=(\"${COMPREPLY[@]#\"${last%%=*}\"=}\")\n"
    "  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
    "}\n"
    "complete -o default -F _agency agency\n";

static const char zsh[] = "#compdef agency\n"
                          "_agency() {\n"
                          "  local -a found\n"
                          "  found=(${(f)\"$($words[1] completion words \"=$words[CURRENT]\" "
                          "${words[2,CURRENT-1]} 2>/dev/null)\"})\n"
                          "  (( $#found )) && compadd -S '' -a found || _files\n"
                          "}\n"
                          "compdef _agency agency\n";

static const char fish[] =
    "function __agency_words\n"
    "  set -l words (commandline -opc)\n"
    "  $words[1] completion words \"=\"(commandline -ct) $words[2..-1] 2>/dev/null\n"
    "end\n"
    "complete -c agency -a '(__agency_words)'\n";

/* ---- Candidates ---- */

static void offer(const char *last, const char *candidate)
{
    if (!strncmp(candidate, last, strlen(last)))
        puts(candidate);
}

static void offer_all(const char *last, const char *const *names)
{
    for (; *names; names++)
        offer(last, *names);
}

static const char *json_text(cli_t *cli, bytes_t value)
{
    buf_t out;
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    if (mp_read(&reader, &head) && head.type == MP_STR)
        return arena_strndup(cli->arena, head.text, head.size);
    buf_open(&out, cli->arena);
    return err_is(json_from_msgpack(value, JSON_COMPACT, &out)) ? "" : out.data;
}

/* Behind `key=`: the values that the schema names. */
static void offer_values(cli_t *cli, const char *last, const char *key, bytes_t schema)
{
    static const char *const truths[] = {"true", "false"};
    bytes_t type = mp_member(schema, "type"), values = mp_member(schema, "enum"), value;
    for (uint32_t i = 0; i < tool_count(values) && mp_at(values, i, &value); i++)
        offer(last, arena_printf(cli->arena, "%s=%s", key, json_text(cli, value)));
    for (int i = 0; i < 2 && type.size && mp_equals(type, "boolean"); i++)
        offer(last, arena_printf(cli->arena, "%s=%s", key, truths[i]));
}

static bool given(const cli_t *cli, const char *key)
{
    size_t size = strlen(key);
    for (int i = 0; i < cli->count; i++)
        if (!strncmp(cli->words[i], key, size) && strchr("=:", cli->words[i][size]))
            return true;
    return false;
}

static void offer_arguments(cli_t *cli, const char *last, const tool_t *tool)
{
    bytes_t properties = mp_member(mp_member(tool->row, "input"), "properties");
    mp_reader_t reader = mp_reader(properties);
    mp_value_t head, name;
    bytes_t schema;
    if (!properties.size || !mp_read(&reader, &head))
        return;
    for (uint32_t i = 0; i < head.count && mp_read(&reader, &name); i++) {
        if (name.type != MP_STR || !mp_slice(&reader, &schema))
            return;
        const char *key = arena_strndup(cli->arena, name.text, name.size);
        if (given(cli, key))
            continue;
        if (!strncmp(last, key, name.size) && last[name.size] == '=')
            offer_values(cli, last, key, schema);
        else
            offer(last, arena_printf(cli->arena, "%s=", key));
    }
}

static const char *asked; /* the last word, as far as it is written */

static int offer_tools(cli_t *cli, client_t *client, const toolbox_t *list)
{
    (void)client;
    const tool_t *tool = cli->count ? toolbox_find(list, cli->words[0]) : NULL;
    if (!cli->count)
        offer_all(asked, list->names);
    else if (tool && strcmp(cli->command, "tools") != 0)
        offer_arguments(cli, asked, tool);
    return EXIT_DONE;
}

static int offer_words(cli_t *cli, client_t *client, const toolbox_t *list)
{
    (void)client;
    for (const word_t *at = words_of(cli, list, cli->group); at->name; at++)
        if (!cli->count)
            offer(asked, at->name);
        else if (!strcmp(at->name, cli->words[0]))
            offer_arguments(cli, asked, toolbox_find(list, at->tool));
    return EXIT_DONE;
}

static int offer_own(cli_t *cli, client_t *client, const toolbox_t *list)
{
    (void)client;
    const tool_t *tool = toolbox_find(list, cli->command);
    if (tool)
        offer_arguments(cli, asked, tool);
    return EXIT_DONE;
}

static void offer_pillars(cli_t *cli)
{
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        offer(asked, at->def->name);
}

static void offer_commands(void)
{
    for (const cli_command_t *at = cli_commands; at->name; at++)
        offer(asked, at->name);
}

/* The words of a command that are no tools. */
static void offer_plain(cli_t *cli)
{
    static const char *const shells[] = {"bash", "zsh", "fish", NULL},
                             *const views[] = {"tap", "lat", NULL},
                             *const tenants[] = {"create", "export", "import", "erase", NULL},
                             *const logs[] = {"list", "verify", NULL},
                             *const cares[] = {"backup", "restore", "stat", "check", NULL};
    bool first = !cli->count;
    if (!strcmp(cli->command, "help") && first)
        offer_commands();
    else if (!strcmp(cli->command, "completion") && first)
        offer_all(asked, shells);
    else if (!strcmp(cli->command, "bus") && first)
        offer_all(asked, views);
    else if (!strcmp(cli->command, "store") && first)
        offer_all(asked, cares);
    else if (!strcmp(cli->command, "tenant") && first)
        offer_all(asked, tenants);
    else if (!strcmp(cli->command, "audit") && first)
        offer_all(asked, logs);
    else if (((!strcmp(cli->command, "bus") || !strcmp(cli->command, "audit")) &&
              cli->count == 1) ||
             ((!strcmp(cli->command, "run") || !strcmp(cli->command, "drain")) && first))
        offer_pillars(cli);
}

/* words: "words", "=LAST", then those before it. */
static int complete(cli_t *cli)
{
    asked = cli->words[1] + 1;
    if (*asked == '-') {
        offer_all(asked, cli_flags);
        return EXIT_DONE;
    }
    if (cli->count == 2) {
        offer_commands();
        return EXIT_DONE;
    }
    const cli_command_t *command = cli_commands;
    while (command->name && strcmp(command->name, cli->words[2]) != 0)
        command++;
    if (!command->name)
        return EXIT_USAGE;
    cli->command = command->name;
    cli->group = command->group;
    cli->words += 3;
    cli->count -= 3;
    cli->timeout_ms = PATIENCE_MS;
    if (command->group)
        return tool_with_toolbox(cli, false, offer_words);
    if (command->run == cli_call || command->run == cli_tools)
        return tool_with_toolbox(cli, false, offer_tools);
    if (command->run == cli_same_tool)
        return tool_with_toolbox(cli, false, offer_own);
    offer_plain(cli);
    return EXIT_DONE;
}

int cli_completion(cli_t *cli)
{
    const char *word = cli->count ? cli->words[0] : "";
    if (!strcmp(word, "words") && cli->count > 1 && cli->words[1][0] == '=')
        return complete(cli);
    const char *script = !strcmp(word, "bash")   ? bash
                         : !strcmp(word, "zsh")  ? zsh
                         : !strcmp(word, "fish") ? fish
                                                 : NULL;
    if (!script || cli->count > 1)
        return cli_usage("say for which shell: agency completion bash, zsh or fish; for bash:\n"
                         "  source <(agency completion bash)");
    fputs(script, stdout);
    return EXIT_DONE;
}
