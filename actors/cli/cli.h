/* cli: the command `agency`. actors/main.c hands over the list of actors; the commands reach
 * running ones over the bus only. Exit codes: 0 done, 1 the agency said no, 2 wrong usage,
 * 3 nobody answers. */
#ifndef ACTORS_CLI_CLI_H
#define ACTORS_CLI_CLI_H

#include "bus/host.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

/* One actor that `agency run NAME` can start. */
typedef struct cli_actor {
    const actor_def_t *def;
    int port; /* of its gateway before --port-offset; 0: none */
    bool up;  /* part of `agency up` */
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
    int count;
    char **words; /* behind the command, without the flags below */
    const char *data_dir, *company, *bind, *tokens;
    int port_offset;
    int workers;
    int64_t timeout_ms;
    bool json, help, read_only, markdown, behind_proxy, dry_run, force;
} cli_t;

int cli_main(const cli_house_t *house, int argc, char **argv);

/* The commands. */
int cli_up(cli_t *cli);
int cli_down(cli_t *cli);
int cli_run(cli_t *cli);
int cli_status(cli_t *cli);
int cli_call(cli_t *cli);
int cli_tools(cli_t *cli);
int cli_bus(cli_t *cli);
int cli_store(cli_t *cli);
int cli_import(cli_t *cli);
/* store backup DIR, store restore DIR. */
int cli_backup(cli_t *cli, const char *dir);
int cli_restore(cli_t *cli, const char *dir);
int cli_doctor(cli_t *cli);
/* `agency <group> <word> …` is the tool <group>_<word>, or the one the alias names. */
int cli_words(cli_t *cli, const char *group);

/* Prints "agency: …" to standard error and returns the exit code that fits. */
int cli_fail(err_t err);
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Blocks SIGTERM and SIGINT and returns a descriptor that is readable when one arrives, whichever
 * thread it went to. Thread: the main one, which must also read it. */
int cli_stop_signals(void);

/* The run directory of --data. */
err_t cli_run_dir(cli_t *cli, const char **out);
/* A line of agency.conf that begins with nobody's name is an error before anything starts. */
err_t cli_check_settings(cli_t *cli);
/* ERR_STATE while a restore of the data directory is half done: nothing may start on it. */
err_t cli_check_restored(cli_t *cli);
const cli_actor_t *cli_find_actor(const cli_t *cli, const char *name);

/* Prints a reply: its text, or with -o json its body. */
void cli_print(const cli_t *cli, const char *text, bytes_t body);

#endif
