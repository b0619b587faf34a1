/* papers: procedures and souls alike: versions in the store, working copies on the volume, and
 * which of them counts. What the tools of sops.c need beside sops.h. Thread: the agent's. */
#ifndef AGENT_PAPERS_H
#define AGENT_PAPERS_H

#include "actors/agent/sops.h"

#define sop_version_ref_FIELDS(F)                                                                  \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(TIME, created_ms, must, 0, 0, "When it came in.")                                            \
    F(STR, author, must, 0, 0, "Who brought it: a principal, or file.")
RECORD_STRUCT(sop_version_ref, sop_version_ref_FIELDS)
extern const record_t sop_version_ref_record;

#define sop_row_FIELDS(F)                                                                          \
    F(STR, hash, must, 0, 0, "The current version.")                                               \
    F(STR, file_hash, opt(), 0, 0, "What the file held when it was last seen or written.")         \
    F(TIME, updated_ms, must, 0, 0, "When the current version came in.")                           \
    F(BOOL, dropped, opt(false), 0, 0, "There is none any more; its versions stay.")               \
    F(LIST(sop_version_ref), versions, must, 0, SOPS_VERSIONS_MOST, "Newest first.")
RECORD_STRUCT(sop_row, sop_row_FIELDS)
extern const record_t sop_row_record;

/* A procedure file as it lies on the disk. */
typedef struct file {
    bool there;
    const char *content;
    size_t size;
    const char *hash;
    int64_t changed_ms;
} file_t;

/* Everything known under one name. */
typedef struct found {
    file_t file;
    sop_row_t row; /* hash NULL: not in the store */
    bool edited;   /* the file is newer than the store and counts */
    bool stale;    /* the file is older than the store */
} found_t;

typedef struct names {
    const char **items;
    size_t count, capacity;
} names_t;

/* The version that counts, without changing anything. ERR_NOT_FOUND without a sentence. */
err_t papers_effective(call_t *call, store_txn_t *txn, paper_t paper, const char *name,
                       found_t *found, sops_version_t *out);
/* The full hash of a version of this procedure that begins so. */
err_t papers_find_hash(arena_t *arena, const found_t *found, const char *start, const char **hash);

/* All names of procedures, sorted. `txn` may be NULL. */
err_t papers_names(call_t *call, store_txn_t *txn, names_t *names);
const char *papers_joined(arena_t *arena, const names_t *names);
/* ERR_NOT_FOUND that says which there are. */
err_t papers_no_such(call_t *call, store_txn_t *txn, const char *name);
/* The snapshot, or NULL when the company has nothing stored yet. */
err_t papers_snapshot(call_t *call, store_txn_t **txn);

/* What is wrong with the calls of other procedures in a good one: at most one problem a step, into
 * `problems`; how many there are. sops_inside.c. */
size_t sops_check_inside(call_t *call, store_txn_t *txn, const sops_version_t *version,
                         sop_problem_t *problems);

const char *papers_folder(call_t *call, paper_t paper);
const char *papers_file(call_t *call, paper_t paper, const char *name);

#endif
