#include "actors/cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bus/client.h"
#include "bus/curve.h"
#include "bus/settings.h"

extern char **environ;

/* ---- Saying no ---- */

int cli_fail(err_t err)
{
    fprintf(stderr, "agency: %s\n", err_what(err));
    switch (err.code) {
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
        return EXIT_UNREACHABLE;
    case ERR_ARGUMENT:
    case ERR_METHOD:
        return EXIT_USAGE;
    default:
        return EXIT_REFUSED;
    }
}

int cli_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("agency: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\nTry: agency help\n", stderr);
    return EXIT_USAGE;
}

/* ---- Commands ---- */

static int show_version(cli_t *cli)
{
    printf("agency %s\n", cli->house->version);
    return EXIT_DONE;
}

static int make_keys(cli_t *cli)
{
    const char *public_key;
    if (cli->count != 1)
        return cli_usage("name a directory for the keys: agency keygen DIR");
    const char *dir = cli->words[0];
    err_t err = curve_keygen(dir, cli->arena, &public_key);
    if (err_is(err))
        return cli_fail(err);
    printf("%s/curve.key  secret: for this process only; set bus.curve_key to it\n"
           "%s/curve.pub  public: copy it to where others look:\n"
           "  as NAME.pub into the directory bus.curve_allow of each server it may connect to\n"
           "  as PILLAR.pub into the directory bus.curve_servers of each client, if it serves\n"
           "The public key is %s\n",
           dir, dir, public_key);
    return EXIT_DONE;
}

static int show_help(cli_t *cli);

const cli_command_t cli_commands[] = {
    {"up", "", "Start the whole agency on this machine and keep it running.", cli_up, NULL, 0},
    {"down", "", "Stop it; work in flight is finished or resumed at the next start.", cli_down,
     NULL, 0},
    {"status", "", "Who is up, since when, and how busy.", cli_status, NULL, 0},
    {"top", "", "The same with queue and work, again each second.", cli_top, NULL, 0},
    {"doctor", "", "Look at the machine, the files and the pillars; say what to do.", cli_doctor,
     NULL, 0},
    {"task", "WORD …", "submit, get, list, cancel, retry, why …", cli_words, "task", CLI_ANY},
    {"queue", "WORD …", "stats, pause, resume.", cli_words, "queue", CLI_ANY},
    {"schedule", "WORD …", "add, list, remove.", cli_words, "schedule", CLI_ANY},
    {"sop", "WORD …", "list, create FILE.md, validate, run NAME [input=…] …", cli_words, "sop",
     CLI_ANY},
    {"runs", "WORD …", "get ID, retry ID step=NAME, complete ID step=NAME result=… …", cli_words,
     "run", CLI_ANY},
    {"approve", "RUN", "Approve what a run waits for.", cli_same_tool, NULL, CLI_ANY},
    {"reject", "RUN why=TEXT", "Refuse what a run waits for.", cli_same_tool, NULL, CLI_ANY},
    {"proposal", "WORD …", "list, get ID, approve ID, reject ID, apply ID, rollback ID …",
     cli_words, "proposal", CLI_ANY},
    {"brain", "WORD …", "query TEXT, store, get ID, list, check, stat, export FILE, import FILE …",
     cli_words, "brain", CLI_ANY},
    {"graph", "WORD …", "query TEXT, update, neighbors ID, path FROM TO.", cli_words, "graph",
     CLI_ANY},
    {"metric", "WORD …", "track, report, anomalies, predict.", cli_words, "metric", CLI_ANY},
    {"alert", "WORD …", "add, check, silence, remove.", cli_words, "alert", CLI_ANY},
    {"agent", "WORD …", "list, spawn, card ID, drain ID, terminate ID, negotiate …", cli_words,
     "agent", CLI_ANY},
    {"scale", "WORD …", "status, explain, policy, set, agents.", cli_words, "scale", CLI_ANY},
    {"tools", "[TOOL]", "List the tools, or explain one.", cli_tools, NULL, 1},
    {"call", "TOOL [key=value…]", "Call a tool; key:=JSON, key=@FILE.", cli_call, NULL, CLI_ANY},
    {"bus", "tap|lat PILLAR", "Watch events; measure the way to a pillar.", cli_bus, NULL, 3},
    {"run", "PILLAR", "Run one pillar in the foreground (what `up` starts).", cli_run, NULL, 2},
    {"drain", "[PILLAR]", "Take no new work here; wait until what is under way is done.", cli_drain,
     NULL, 1},
    {"store", "WORD …", "backup DIR, restore DIR [--force]; stat, check [PILLAR] when it is down.",
     cli_store, NULL, 2},
    {"audit", "WORD …", "list, verify: who changed what, and whether the logs are whole.",
     cli_audit, NULL, CLI_ANY},
    {"tenant", "WORD …",
     "create NAME, export NAME DIR, import DIR, erase NAME --yes: a company as a whole.",
     cli_tenant, NULL, 3},
    {"import", "DIR", "Bring over an .agent folder of the earlier system; --dry-run only looks.",
     cli_import, NULL, 1},
    {"keygen", "DIR", "Make a pair of keys for connections between machines.", make_keys, NULL, 1},
    {"completion", "bash|zsh|fish", "A script that completes commands, tools and arguments.",
     cli_completion, NULL, CLI_ANY},
    {"version", "", "Which version this is.", show_version, NULL, 0},
    {"help", "[COMMAND]", "This page, or what one command is.", show_help, NULL, 1},
    {NULL, NULL, NULL, NULL, NULL, 0}};

static const cli_command_t *find_command(const char *name)
{
    for (const cli_command_t *at = cli_commands; at->name; at++)
        if (!strcmp(at->name, name))
            return at;
    return NULL;
}

static int no_such_command(const char *name)
{
    const char *names[sizeof(cli_commands) / sizeof(cli_commands[0])];
    int count = 0;
    for (const cli_command_t *at = cli_commands; at->name; at++)
        names[count++] = at->name;
    names[count] = NULL;
    const char *near = record_nearest(name, names);
    return cli_usage("there is no command '%s'%s%s%s", name, near ? "; did you mean '" : "",
                     near ? near : "", near ? "'?" : "");
}

static int show_command(const cli_command_t *command)
{
    printf("agency %s %s\n\n  %s\n", command->name, command->arguments, command->doc);
    if (command->group)
        printf("  The words and what they do: agency %s\n", command->name);
    puts("\nFlags and the other commands: agency help");
    return EXIT_DONE;
}

/* What printf's widths do not know: a letter may have several bytes. */
static int columns(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static int show_help(cli_t *cli)
{
    enum { WIDTH = 18 };
    if (cli->count) {
        const cli_command_t *command = find_command(cli->words[0]);
        return command ? show_command(command) : no_such_command(cli->words[0]);
    }
    puts("agency: a desk, procedures, a memory and hands for a team of AI agents.\n");
    for (const cli_command_t *at = cli_commands; at->name; at++)
        printf("  agency %-10s %s%*s %s\n", at->name, at->arguments,
               WIDTH > columns(at->arguments) ? WIDTH - columns(at->arguments) : 0, "", at->doc);
    puts("\nFlags:\n"
         "  --dry-run         import: say what would be brought over\n"
         "  --force           store restore: move aside what is there\n"
         "  --yes             tenant erase: do it\n"
         "  --external        tools: those of the MCP servers in mcp.json\n"
         "  --data DIR        where everything is kept (AGENCY_DATA, else .agent)\n"
         "  --company NAME    whose data (AGENCY_COMPANY or COMPANY, else default)\n"
         "  --port-offset N   added to the ports 3000, 3002, … and to those of the bus\n"
         "  --workers N       up, run agent: so many worker processes, 0 to 64\n"
         "  --set NAME=VALUE  a setting, e.g. elastic.max_replicas=8; may be given again\n"
         "  --bind ADDR       up, run: listen there instead of 127.0.0.1; needs --tokens\n"
         "  --tokens FILE     up, run: bearer tokens, companies and roles\n"
         "  --behind-proxy    up, run: a proxy in front ends TLS; any Host is accepted\n"
         "  --timeout MS      how long a call may take (60000)\n"
         "  -o json|text      what to print\n"
         "  --read-only       refuse every tool that writes\n"
         "  --help            behind a command: what it is; behind a tool: its arguments");
    return EXIT_DONE;
}

/* ---- Flags ---- */

static bool number_flag(const char *name, const char *text, int64_t least, int64_t most,
                        int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end || end == text || value < least || value > most) {
        cli_usage("%s must be a whole number from %lld to %lld, not '%s'", name, (long long)least,
                  (long long)most, text);
        return false;
    }
    *out = value;
    return true;
}

const char *const cli_flags[] = {
    "--data",         "--company", "--port-offset", "--workers",   "--bind",     "--tokens",
    "--behind-proxy", "--timeout", "--output",      "--read-only", "--markdown", "--dry-run",
    "--force",        "--set",     "--external",    "--help",      "--yes",      NULL};

/* Flags without a value. */
static bool plain_flag(cli_t *cli, const char *flag)
{
    if (!strcmp(flag, "--help") || !strcmp(flag, "-h"))
        cli->help = true;
    else if (!strcmp(flag, "--read-only"))
        cli->read_only = true;
    else if (!strcmp(flag, "--markdown"))
        cli->markdown = true;
    else if (!strcmp(flag, "--behind-proxy"))
        cli->behind_proxy = true;
    else if (!strcmp(flag, "--dry-run"))
        cli->dry_run = true;
    else if (!strcmp(flag, "--force"))
        cli->force = true;
    else if (!strcmp(flag, "--yes"))
        cli->yes = true;
    else if (!strcmp(flag, "--external"))
        cli->external = true;
    else
        return false;
    return true;
}

/* Sets one flag with a value; false when it was refused (and said so). */
static bool set_flag(cli_t *cli, const char *flag, const char *value)
{
    int64_t number;
    if (!strcmp(flag, "--data"))
        cli->data_dir = value;
    else if (!strcmp(flag, "--company"))
        cli->company = value;
    else if (!strcmp(flag, "--bind"))
        cli->bind = value;
    else if (!strcmp(flag, "--tokens"))
        cli->tokens = value;
    else if (!strcmp(flag, "--set"))
        cli->sets[cli->set_count++] = value;
    else if (!strcmp(flag, "--port-offset")) {
        if (!number_flag(flag, value, 0, 59900, &number))
            return false;
        cli->port_offset = (int)number;
    } else if (!strcmp(flag, "--workers")) {
        if (!number_flag(flag, value, 0, 64, &number))
            return false;
        cli->workers = (int)number;
    } else if (!strcmp(flag, "--timeout")) {
        if (!number_flag(flag, value, 1, 86400000, &cli->timeout_ms))
            return false;
    } else if (!strcmp(flag, "-o") || !strcmp(flag, "--output")) {
        if (strcmp(value, "json") != 0 && strcmp(value, "text") != 0) {
            cli_usage("-o must be json or text, not '%s'", value);
            return false;
        }
        cli->json = !strcmp(value, "json");
    } else {
        const char *near = record_nearest(flag, cli_flags);
        cli_usage("unknown flag %s%s%s", flag, near ? "; did you mean " : "", near ? near : "");
        return false;
    }
    return true;
}

static bool is_flag(const char *name)
{
    for (const char *const *at = cli_flags; *at; at++)
        if (!strcmp(*at, name))
            return true;
    return false;
}

/* Splits words and flags. `--flag=value` and `--flag value` are the same. */
bool cli_read_words(cli_t *cli, int argc, char **argv)
{
    cli->words = ARENA_ARRAY(cli->arena, char *, (size_t)argc + 1);
    cli->sets = ARENA_ARRAY(cli->arena, const char *, (size_t)argc + 1);
    for (int i = 0; i < argc; i++) {
        if (argv[i][0] != '-' || !argv[i][1]) {
            cli->words[cli->count++] = argv[i];
            continue;
        }
        if (plain_flag(cli, argv[i]))
            continue;
        char *equals = strchr(argv[i], '=');
        const char *flag =
            equals ? arena_strndup(cli->arena, argv[i], (size_t)(equals - argv[i])) : argv[i];
        bool valueless = !equals && (i + 1 == argc || !strncmp(argv[i + 1], "--", 2));
        if (valueless && (is_flag(flag) || !strcmp(flag, "-o"))) {
            cli_usage("%s needs a value", flag);
            return false;
        }
        if (valueless)
            return set_flag(cli, flag, "");
        if (!set_flag(cli, flag, equals ? equals + 1 : argv[++i]))
            return false;
    }
    return true;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static void fill_defaults(cli_t *cli)
{
    cli->workers = -1; /* elastic decides */
    cli->timeout_ms = 60000;
    cli->data_dir = environment("AGENCY_DATA");
    cli->company = environment("AGENCY_COMPANY");
    if (!cli->company)
        cli->company = environment("COMPANY");
    cli->tokens = environment("AGENCY_TOKENS");
    cli->bind = environment("AGENCY_BIND");
    if (!cli->data_dir)
        cli->data_dir = ".agent";
}

err_t cli_run_dir(cli_t *cli, const char **out)
{
    return host_default_run_dir(cli->data_dir, cli->arena, out);
}

/* The offset is that of the whole agency, unless somebody says another for its bus. */
const char **cli_settings(const cli_t *cli, int more, int *count)
{
    const char **list =
        ARENA_ARRAY(cli->arena, const char *, (size_t)cli->set_count + (size_t)more + 2);
    *count = 0;
    if (cli->port_offset && !environment("AGENCY_BUS_PORT_OFFSET"))
        list[(*count)++] = arena_printf(cli->arena, "bus.port_offset=%d", cli->port_offset);
    for (int i = 0; i < cli->set_count; i++)
        list[(*count)++] = cli->sets[i];
    return list;
}

static err_t load_place(cli_t *cli, place_t *out)
{
    int count;
    return place_load(cli_settings(cli, 0, &count), (const char *const *)environ, cli->data_dir,
                      cli->arena, out);
}

bool cli_is_away(cli_t *cli, const char *pillar)
{
    place_t place;
    return !err_is(load_place(cli, &place)) && place_address(&place, pillar) != NULL;
}

err_t cli_client(cli_t *cli, client_t **out)
{
    place_t place;
    int count;
    const char *run_dir = NULL;
    *out = NULL;
    err_t err = load_place(cli, &place);
    if (err_is(err))
        return err;
    err = cli_run_dir(cli, &run_dir);
    if (!place_any_away(&place))
        return err_is(err) ? err : client_open(run_dir, cli->arena, out);
    curve_options_t options = {.settings = cli_settings(cli, 0, &count),
                               .environment = (const char *const *)environ,
                               .data_dir = cli->data_dir,
                               .calls_only = true};
    return client_open_away(run_dir, &options, cli->arena, out);
}

err_t cli_check_settings(cli_t *cli)
{
    size_t count = 0;
    while (cli->house->actors[count].def)
        count++;
    const char **names = ARENA_ARRAY(cli->arena, const char *, 2 * count + 5);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const cli_actor_t *actor = &cli->house->actors[i];
        names[at++] = actor->def->name;
        if (actor->beside_forward)
            names[at++] = actor->beside_forward->name;
    }
    names[at++] = cli->house->gateway->name;
    names[at++] = "limits";
    names[at++] = "audit";
    names[at++] = "bus";
    err_t err = settings_check_given(cli->sets, names, cli->arena);
    return err_is(err) ? err : settings_check_file(cli->data_dir, names, cli->arena);
}

const cli_actor_t *cli_find_actor(const cli_t *cli, const char *name)
{
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        if (!strcmp(at->def->name, name))
            return at;
    return NULL;
}

const char *cli_kind_of(const cli_t *cli, const char *instance)
{
    const cli_actor_t *actor = cli_find_actor(cli, instance);
    if (actor)
        return actor->def->name;
    return strncmp(instance, "gateway-", 8) ? "worker" : cli->house->gateway->name;
}

void cli_print(const cli_t *cli, const char *text, bytes_t body)
{
    if (!cli->json && text && *text) {
        puts(text);
        return;
    }
    buf_t out;
    buf_open(&out, cli->arena);
    if (!body.size || err_is(json_from_msgpack(body, JSON_PRETTY, &out)))
        return;
    puts(out.data);
}

/* Behind the name of a tool --help explains the tool. */
static bool names_tool(const cli_command_t *command, const cli_t *cli)
{
    return cli->count && (command->group || command->run == cli_call || command->run == cli_tools ||
                          command->run == cli_same_tool);
}

static int run_command(cli_t *cli, const char *name)
{
    const cli_command_t *command = find_command(name);
    if (!command)
        return no_such_command(name);
    if (cli->help && !names_tool(command, cli))
        return show_command(command);
    if (command->most != CLI_ANY && cli->count > command->most)
        return cli_usage("what is '%s'? It is: agency %s %s", cli->words[command->most], name,
                         command->arguments);
    if (cli->company && !frame_company_name(cli->company))
        return cli_usage("'%.64s' is no company name: use 1 to 64 letters, digits, '-' or "
                         "'_', beginning with a letter or digit",
                         cli->company);
    if (cli->dry_run && command->run != cli_import)
        return cli_usage("--dry-run is for import; %s would act all the same", name);
    if (cli->force && command->run != cli_store)
        return cli_usage("--force is for store restore, not for %s", name);
    if (cli->yes && command->run != cli_tenant)
        return cli_usage("--yes is for tenant erase, not for %s", name);
    cli->command = name;
    cli->group = command->group;
    return command->run(cli);
}

int cli_main(const cli_house_t *house, int argc, char **argv)
{
    cli_t cli = {.house = house, .arena = arena_new()};
    fill_defaults(&cli);
    int code = EXIT_USAGE;
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        code = show_help(&cli);
    else if (!strcmp(argv[1], "--version"))
        code = show_version(&cli);
    else if (cli_read_words(&cli, argc - 1, argv + 1)) {
        /* The command is the first word, wherever the flags are. */
        if (!cli.count)
            code = cli.help ? show_help(&cli) : cli_usage("name a command");
        else {
            const char *name = cli.words[0];
            cli.words++;
            cli.count--;
            code = run_command(&cli, name);
        }
    }
    arena_destroy(&cli.arena);
    return code;
}
