/* variables: names in the environment that look like a setting and are none. They are no errors: a
 * cluster puts names of its Services there (AGENCY_AGENT_PORT and the like). */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "actors/cli/cli.h"
#include "bus/settings.h"

enum { NAMES_MOST = 1024, PREFIX = 7 }; /* AGENCY_ */

extern char **environ;

typedef struct names {
    const char **items;
    size_t count;
} names_t;

static void add_rows(names_t *names, arena_t *arena, const actor_def_t *def)
{
    if (!def || !def->settings)
        return;
    for (const field_t *at = def->settings->fields(); at->name && names->count < NAMES_MOST; at++)
        names->items[names->count++] = settings_variable(arena, def->name, at->name) + PREFIX;
}

/* Without AGENCY_, which would make all of them near. */
static names_t all_names(cli_t *cli)
{
    static const char *const others[] = {"BIND",    "COMPANY",   "DATA",    "DEBUG",  "FAULT",
                                         "LLM_KEY", "LLM_MODEL", "LLM_URL", "PARENT", "READY_FD",
                                         "RUN",     "TOKENS",    NULL};
    names_t names = {ARENA_ARRAY(cli->arena, const char *, NAMES_MOST + 32), 0};
    for (const char *const *at = others; *at; at++)
        names.items[names.count++] = *at;
    for (const cli_actor_t *at = cli->house->actors; at->def; at++) {
        add_rows(&names, cli->arena, at->def);
        add_rows(&names, cli->arena, at->beside_forward);
    }
    add_rows(&names, cli->arena, cli->house->gateway);
    names.items[names.count] = NULL;
    return names;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), rest = strlen(end);
    return size >= rest && !strcmp(text + size - rest, end);
}

/* Of a Service: NAME_SERVICE_HOST, NAME_SERVICE_PORT…, NAME_PORT, NAME_PORT_5500_TCP… */
static bool is_of_a_service(const char *name)
{
    const char *port = strstr(name, "_PORT_");
    return strstr(name, "_SERVICE_HOST") || strstr(name, "_SERVICE_PORT") ||
           ends_with(name, "_PORT") || (port && isdigit((unsigned char)port[6]));
}

static bool is_among(const names_t *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (!strcmp(names->items[i], name))
            return true;
    return false;
}

strs_t cli_stray_variables(cli_t *cli)
{
    names_t names = all_names(cli);
    size_t room = 0;
    while (environ[room])
        room++;
    const char **said = ARENA_ARRAY(cli->arena, const char *, room + 1);
    strs_t out = {said, 0};
    for (char **at = environ; *at; at++) {
        const char *name = arena_strndup(cli->arena, *at, strcspn(*at, "="));
        const char *rest = name + PREFIX;
        if (strncmp(name, "AGENCY_", PREFIX) != 0 || !strncmp(rest, "BUS_", 4) ||
            !strncmp(rest, "LIMITS_", 7) || !strncmp(rest, "AUDIT_", 6) || is_of_a_service(rest) ||
            is_among(&names, rest))
            continue;
        const char *near = record_nearest(rest, names.items);
        if (near)
            said[out.count++] = arena_printf(
                cli->arena, "the variable %s is no setting; did you mean AGENCY_%s?", name, near);
    }
    return out;
}

void cli_warn_of_variables(cli_t *cli)
{
    strs_t stray = cli_stray_variables(cli);
    for (size_t i = 0; i < stray.count; i++)
        fprintf(stderr, "agency: %s\n", stray.items[i]);
}
