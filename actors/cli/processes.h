/* processes: who of the agency runs, and what each says of itself. Texts live in cli->arena.
 * Thread: the main one. */
#ifndef ACTORS_CLI_PROCESSES_H
#define ACTORS_CLI_PROCESSES_H

#include "actors/cli/cli.h"

typedef struct process {
    const char *name; /* worker-2, brain */
    int pid;          /* 0: on another machine */
} process_t;

/* Those of the run directory (NULL: none) by name, then the pillars that are reached by tcp. */
process_t *processes_list(cli_t *cli, const char *run_dir, size_t *count);
/* Its stats, as its kind describes them; ERR_TIMEOUT, ERR_UNAVAILABLE. */
client_reply_t process_stats(cli_t *cli, client_t *client, const process_t *process);
/* The sum of a counter over the methods in stats. */
int64_t process_total(bytes_t stats, const char *key);

/* What /proc says; 0 when it is gone. */
int64_t process_resident_kib(int pid);
int64_t process_cpu_ms(int pid);

/* "7.3s", "4m07s", "2h15m" */
const char *process_duration(arena_t *arena, int64_t ms);

#endif
