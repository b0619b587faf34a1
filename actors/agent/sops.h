/* sops: the procedures of a company and their versions.
 *
 * Truth is the store: every version by the hash of its content, and for each name which one is
 * current. The Markdown files on the volume are working copies that people edit:
 * <data>/sops/NAME.md for the default company, <data>/agent/COMPANY/sops/NAME.md for the others.
 * A file that somebody changed becomes the current version when it is run next; a file that is
 * merely older than the store (the process died between commit and writing it) is written anew.
 * Thread: the agent's.
 */
#ifndef AGENT_SOPS_H
#define AGENT_SOPS_H

#include "actors/agent/sop.h"
#include "bus/actor.h"

#define SOPS_TABLES(T) T(sop_versions) T(sops) T(soul_versions) T(souls)

typedef struct agent agent_t;
typedef struct sops sops_t; /* see runs.h */

extern const method_t sops_methods[];

/* sop_list shows and looks at no more files than this. */
enum { SOPS_FILES_MOST = 1000, SOPS_VERSIONS_MOST = 100 };

typedef struct sops_version {
    const char *name;
    const char *hash;
    const char *content;
    size_t size;
    const sop_t *sop; /* NULL when the content has errors */
    const sop_problem_t *problems;
    size_t problem_count;
    err_t err; /* of sop_parse */
} sops_version_t;

/* The current version, imported from its file when that was changed; from a WRITES entry.
 * ERR_NOT_FOUND lists what there is, ERR_ARGUMENT: a bad name. A version with errors is returned
 * with them and not imported. */
err_t sops_current(call_t *call, const char *name, sops_version_t *out);

/* Procedures and souls are kept alike; a soul is any text, in souls/AGENT.md. */
typedef enum paper { PAPER_SOP, PAPER_SOUL } paper_t;

/* The current version, or the one whose hash begins so. ERR_NOT_FOUND, ERR_ARGUMENT. */
err_t papers_read(call_t *call, paper_t paper, const char *name, const char *version,
                  sops_version_t *out);
/* A new current version; the file is written after the commit. `content` lives in the arena. A
 * procedure with errors is ERR_ARGUMENT. From a WRITES entry. */
err_t papers_save(call_t *call, paper_t paper, const char *name, const char *content,
                  const char *author, sops_version_t *out, bool *created);
/* The name is gone, and its file, also when a crash comes between; versions stay. */
err_t papers_drop(call_t *call, paper_t paper, const char *name);
/* A file, replaced as a whole after the commit; makes the folder. */
void papers_write(call_t *call, const char *folder, const char *path, const char *content);
/* Files that are older than the store, or absent, are written anew after the commit. */
err_t papers_repair(call_t *call, store_txn_t *txn);

/* Keeps a procedure as a version without making it the current one of any name. From a WRITES
 * entry. ERR_ARGUMENT when it has errors. */
err_t sops_keep(call_t *call, const char *name, const char *content, sops_version_t *out);

/* A version that was imported before, by its hash. ERR_NOT_FOUND. */
err_t sops_by_hash(call_t *call, store_txn_t *txn, const char *hash, sops_version_t *out);

/* The name without ".md"; ERR_ARGUMENT says what a name may be. */
err_t sops_name(arena_t *arena, const char *text, const char **name);

#endif
