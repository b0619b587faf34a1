/* cli: the command `agency`. actors/main.c hands over the list of actors; the commands reach
 * running ones over the bus only. Exit codes: 0 done, 1 the agency said no, 2 wrong usage,
 * 3 nobody answers. */
#ifndef ACTORS_CLI_CLI_H
#define ACTORS_CLI_CLI_H

#include "bus/client.h"
#include "bus/host.h"
#include "bus/place.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

/* One actor that `agency run NAME` can start. */
typedef struct cli_actor {
    const actor_def_t *def;
    int port;                          /* of its gateway before --port-offset; 0: none */
    bool up;                           /* part of `agency up` */
    const actor_def_t *beside_forward; /* what else runs on a replica that forwards; or NULL */
    const char *inside;                /* lives in the process of that pillar; or NULL */
} cli_actor_t;

/* The gateway is started beside each pillar that has a port. */
typedef struct cli_house {
    const cli_actor_t *actors; /* ends with def NULL */
    const actor_def_t *gateway;
    const char *version;
} cli_house_t;

/* The words of one command line. */
typedef struct cli {
    const cli_house_t *house;
    arena_t *arena;
    const char *command;
    const char *group; /* of tools, whose words the command takes; or NULL */
    int count;
    char **words; /* behind the command, without the flags below */
    const char *data_dir, *company, *bind, *tokens;
    int port_offset;
    int workers;       /* -1: not said */
    const char **sets; /* actor.key=value, NULL behind the last */
    int set_count;
    int64_t timeout_ms; /* of --timeout, else 60 s */
    bool json, help, read_only, markdown, behind_proxy, dry_run, force, external, yes;
} cli_t;

typedef struct cli_command {
    const char *name, *arguments, *doc;
    int (*run)(cli_t *cli);
    const char *group; /* of tools, for cli_words */
    int most;          /* words behind it; CLI_ANY */
} cli_command_t;

enum { CLI_ANY = -1 };
extern const cli_command_t cli_commands[]; /* ends with name NULL */
extern const char *const cli_flags[];      /* ends with NULL */

int cli_main(const cli_house_t *house, int argc, char **argv);
/* Words and flags, as they stand in cli->words and the other members. False: refused, and said. */
bool cli_read_words(cli_t *cli, int argc, char **argv);

/* The commands. */
int cli_up(cli_t *cli);
int cli_down(cli_t *cli);
int cli_run(cli_t *cli);
int cli_status(cli_t *cli);
int cli_top(cli_t *cli);
int cli_call(cli_t *cli);
int cli_tools(cli_t *cli);
int cli_bus(cli_t *cli);
int cli_store(cli_t *cli);
int cli_audit(cli_t *cli);
int cli_tenant(cli_t *cli);
int cli_drain(cli_t *cli);
int cli_import(cli_t *cli);
/* store backup DIR, store restore DIR. */
int cli_backup(cli_t *cli, const char *dir);
int cli_restore(cli_t *cli, const char *dir);
int cli_doctor(cli_t *cli);
int cli_completion(cli_t *cli);
/* `agency <group> <word> …`, see words.h. */
int cli_words(cli_t *cli);
/* The command is the name of a tool. */
int cli_same_tool(cli_t *cli);

/* Prints "agency: …" to standard error and returns the exit code that fits. */
int cli_fail(err_t err);
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Blocks SIGTERM and SIGINT and returns a descriptor that is readable when one arrives, whichever
 * thread it went to. Thread: the main one, which must also read it. */
int cli_stop_signals(void);

/* The run directory of --data. */
err_t cli_run_dir(cli_t *cli, const char **out);
/* A line of agency.conf, or a --set, that begins with nobody's name is an error before anything
 * starts. */
err_t cli_check_settings(cli_t *cli);
/* A sentence for each variable of the environment that is nearly a setting and none (variables.c).
 */
strs_t cli_stray_variables(cli_t *cli);
/* Says them on stderr. */
void cli_warn_of_variables(cli_t *cli);
/* ERR_STATE while a restore of the data directory is half done: nothing may start on it. */
err_t cli_check_restored(cli_t *cli);
/* What --set and --port-offset say, NULL-terminated, with room for `more` rows behind. */
const char **cli_settings(const cli_t *cli, int more, int *count);
/* The bus, as the settings say: by ipc on this machine, by tcp where they name an address. */
err_t cli_client(cli_t *cli, client_t **out);
/* Is this the name of a pillar, and reached by tcp from here? */
bool cli_is_away(cli_t *cli, const char *pillar);
/* The kind of actor that has this unique name: "worker" of worker-2, "gateway" of gateway-agent. */
const char *cli_kind_of(const cli_t *cli, const char *instance);
const cli_actor_t *cli_find_actor(const cli_t *cli, const char *name);

/* Prints a reply: its text, or with -o json its body. */
void cli_print(const cli_t *cli, const char *text, bytes_t body);

#endif
