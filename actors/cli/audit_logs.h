/* audit_logs: the audit logs of every pillar and company that is asked for, row by row: from the
 * files where nothing runs, else from the pillar that owns them. Thread: the main one. */
#ifndef ACTORS_CLI_AUDIT_LOGS_H
#define ACTORS_CLI_AUDIT_LOGS_H

#include "actors/cli/cli.h"
#include "bus/audit.h"

/* One log. Each function may be NULL. What it is given lives until it returns. */
typedef struct audit_visitor {
    void *ctx;
    void (*begin)(void *ctx, const char *pillar, const char *company);
    /* A row that follows the one before. */
    void (*row)(void *ctx, const audit_chain_t *chain, const audit_row_t *row);
    /* One that does not; returns whether to go on behind it. */
    bool (*fault)(void *ctx, err_t err);
    void (*end)(void *ctx, const audit_chain_t *chain);
} audit_visitor_t;

/* `pillar` NULL: all; cli->company: all when it was not said. Says on stderr what cannot be read;
 * the exit code. */
int audit_visit(cli_t *cli, const char *pillar, const audit_visitor_t *visitor);

#endif
