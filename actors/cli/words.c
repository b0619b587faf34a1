/* words: see the header. A word of a group is the tool <group>_<word>, or the one named here, where
 * the earlier system's name says it otherwise. */
#include "actors/cli/words.h"

#include <stdio.h>
#include <string.h>

#include "actors/cli/tool.h"
#include "actors/cli/transfer.h"

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
                                  {"graph", "query", "brain_query_graph"},
                                  {"graph", "update", "brain_update_graph"},
                                  {"agent", "list", "list_agents"},
                                  {"agent", "spawn", "spawn_subagent"},
                                  {"agent", "terminate", "terminate_agent"},
                                  {"agent", "metrics", "get_agent_metrics"},
                                  {"agent", "negotiate", "negotiate_task"},
                                  {"metric", "track", "track_metric"},
                                  {"metric", "report", "get_health_report"},
                                  {"metric", "anomalies", "detect_anomalies"},
                                  {"metric", "predict", "predict_metrics"},
                                  {"alert", "add", "alert_on_threshold"},
                                  {"alert", "check", "check_alerts"},
                                  {"alert", "silence", "silence_alert"},
                                  {"proposal", "list", "list_pending_proposals"},
                                  {"proposal", "make", "propose_change"},
                                  {"proposal", "apply", "update_agent_soul"},
                                  {"scale", "status", "get_scaling_status"},
                                  {"scale", "policy", "scale_policy_get"},
                                  {"scale", "set", "scale_policy_set"},
                                  {NULL, NULL, NULL}};

static bool has_alias(const char *group, const char *tool)
{
    for (const alias_t *at = aliases; at->group; at++)
        if (!strcmp(at->group, group) && !strcmp(at->tool, tool))
            return true;
    return false;
}

const word_t *words_of(cli_t *cli, const toolbox_t *list, const char *group)
{
    size_t most = list->count + sizeof(aliases) / sizeof(*aliases), count = 0;
    word_t *words = ARENA_ARRAY(cli->arena, word_t, most + 1);
    size_t length = strlen(group);
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->names[i];
        if (!strncmp(name, group, length) && name[length] == '_' && !has_alias(group, name))
            words[count++] = (word_t){name + length + 1, name};
    }
    for (const alias_t *at = aliases; at->group; at++)
        if (!strcmp(at->group, group) && toolbox_find(list, at->tool))
            words[count++] = (word_t){at->word, at->tool};
    words[count] = (word_t){NULL, NULL};
    return words;
}

static int show_words(cli_t *cli, client_t *client, const toolbox_t *list)
{
    (void)client;
    for (const word_t *at = words_of(cli, list, cli->group); at->name; at++)
        printf("  agency %s %-14s %s\n", cli->command, at->name,
               mp_text(cli->arena, mp_member(toolbox_find(list, at->tool)->row, "doc")));
    if (list->missing)
        fprintf(stderr, "agency: %s did not answer; its words are missing here\n", list->missing);
    printf("\nWhat one takes: agency %s WORD --help\n", cli->command);
    return cli->help ? EXIT_DONE : EXIT_USAGE;
}

static err_t no_such_word(cli_t *cli, const toolbox_t *list, const word_t *words)
{
    size_t count = 0;
    while (words[count].name)
        count++;
    const char **names = ARENA_ARRAY(cli->arena, const char *, count + 1);
    for (size_t i = 0; i < count; i++)
        names[i] = words[i].name;
    const char *near = record_nearest(cli->words[0], names);
    return err_make(cli->arena, ERR_METHOD, "there is no 'agency %s %s'%s%s%s%s%s; see: agency %s",
                    cli->command, cli->words[0], near ? "; did you mean '" : "", near ? near : "",
                    near ? "'?" : "", list->missing ? "; this pillar did not answer: " : "",
                    list->missing ? list->missing : "", cli->command);
}

static int call_word(cli_t *cli, client_t *client, const toolbox_t *list)
{
    const word_t *words = words_of(cli, list, cli->group);
    for (const word_t *at = words; at->name; at++)
        if (!strcmp(at->name, cli->words[0]))
            return tool_call(cli, client, list, at->tool, cli->words + 1, cli->count - 1);
    return cli_fail(no_such_word(cli, list, words));
}

static bool is_markdown(const char *path)
{
    size_t size = strlen(path);
    return size > 3 && !strcmp(path + size - 3, ".md") && !strchr(path, '=');
}

/* `agency sop create FILE.md`: the name is the file's, the content is the file. */
static err_t create_from_file(cli_t *cli)
{
    const char *path = cli->words[1], *text;
    size_t size;
    err_t err = tool_read_file(cli, path, &text, &size);
    if (err_is(err))
        return err;
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    char **words = ARENA_ARRAY(cli->arena, char *, 4);
    words[0] = cli->words[0];
    words[1] = arena_printf(cli->arena, "name=%.*s", (int)strlen(base) - 3, base);
    words[2] = arena_printf(cli->arena, "content=%s", text);
    cli->words = words;
    cli->count = 3;
    return err_ok();
}

int cli_words(cli_t *cli)
{
    const char *group = cli->group;
    if (!cli->count)
        return tool_with_toolbox(cli, false, show_words);
    if (!strcmp(group, "sop") && !strcmp(cli->words[0], "create") && cli->count == 2 &&
        is_markdown(cli->words[1])) {
        err_t err = create_from_file(cli);
        if (err_is(err))
            return cli_fail(err);
    }
    bool out = !strcmp(cli->words[0], "export"), in = !strcmp(cli->words[0], "import");
    const char *file = cli->count == 2 ? cli->words[1] : out && cli->count == 1 ? "-" : "";
    if (!strcmp(group, "brain") && (out || in) && *file && !strchr(file, '=') && !cli->help)
        return cli_brain_file(cli, out, strcmp(file, "-") != 0 ? file : NULL);
    return tool_with_toolbox(cli, cli->help, call_word);
}
