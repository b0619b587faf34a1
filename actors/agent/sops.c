#include "actors/agent/sops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/agent/agent.h"
#include "actors/agent/diff.h"
#include "actors/agent/rows.h"
#include "bus/digest.h"
#include "proto/mp.h"

/* ---- methods ------------------------------------------------------------------------------ */

#define sop_parameter_FIELDS(F)                                                                    \
    F(STR, name, must, 0, 0, "Name of the input.")                                                 \
    F(BOOL, required, must, 0, 0, "It cannot run without.")
RECORD(sop_parameter, sop_parameter_FIELDS)

#define sop_entry_FIELDS(F)                                                                        \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, title, opt(), 0, 0, "Its title.")                                                       \
    F(INT, steps, opt(), 0, 0, "How many steps it has.")                                           \
    F(BOOL, valid, must, 0, 0, "Can it be run as it is?")                                          \
    F(LIST(sop_parameter), inputs, opt(), 0, 0, "What it wants to be given.")                      \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")
RECORD(sop_entry, sop_entry_FIELDS)

#define sop_issue_FIELDS(F)                                                                        \
    F(INT, line, must, 1, 0, "Line of the file.")                                                  \
    F(BOOL, warning, must, 0, 0, "It runs all the same.")                                          \
    F(STR, what, must, 0, 0, "What is wrong and what to change.")
RECORD(sop_issue, sop_issue_FIELDS)

#define sop_outline_FIELDS(F)                                                                      \
    F(INT, number, must, 1, 0, "Place in the list, from 1.")                                       \
    F(STR, name, must, 0, 0, "Name in references.")                                                \
    F(STR, title, must, 0, 0, "Name for people.")                                                  \
    F(STR, kind, must, 0, 0, "llm, tool, sh, wait or approve.")                                    \
    F(INT, line, must, 1, 0, "Line of the file.")
RECORD(sop_outline, sop_outline_FIELDS)

#define sop_version_ref_FIELDS(F)                                                                  \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(TIME, created_ms, must, 0, 0, "When it came in.")                                            \
    F(STR, author, must, 0, 0, "Who brought it: a principal, or file.")
RECORD(sop_version_ref, sop_version_ref_FIELDS)

#define NAME_ROW(F) F(STR, name, must, 1, 80, "Name of the procedure, with or without .md.")

#define sop_list_ARGS(F) COMPANY_ROW(F)
#define sop_list_REPLY(F)                                                                          \
    F(LIST(sop_entry), sops, must, 0, SOPS_FILES_MOST, "All procedures, by name.")

#define validate_sop_ARGS(F) NAME_ROW(F) COMPANY_ROW(F)
#define validate_sop_REPLY(F)                                                                      \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(BOOL, valid, must, 0, 0, "Can it be run?")                                                   \
    F(STR, title, opt(), 0, 0, "Its title.")                                                       \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(LIST(sop_outline), steps, must, 0, 0, "The steps; empty when there are errors.")             \
    F(LIST(sop_issue), problems, must, 0, 0, "Errors and warnings, by line.")

#define sop_create_ARGS(F)                                                                         \
    NAME_ROW(F)                                                                                    \
    F(STR, content, must, 1, SOP_BYTES_LARGEST, "The Markdown.")                                   \
    COMPANY_ROW(F)
#define sop_create_REPLY(F)                                                                        \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(BOOL, created, must, 0, 0, "False: there was one of that name; it is kept as a version.")    \
    F(STR, file, must, 0, 0, "The working copy.")                                                  \
    F(LIST(sop_issue), problems, must, 0, 0, "Warnings.")

#define sop_get_ARGS(F)                                                                            \
    NAME_ROW(F)                                                                                    \
    F(STR, version, opt(), 4, 64, "Hash of a version, or its beginning; absent: the current one.") \
    COMPANY_ROW(F)
#define sop_get_REPLY(F)                                                                           \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, content, must, 0, 0, "The Markdown.")                                                   \
    F(STR, hash, must, 0, 0, "SHA-256 of the content.")                                            \
    F(LIST(sop_version_ref), versions, must, 0, 0, "Versions in the store, newest first.")

#define sop_diff_ARGS(F)                                                                           \
    NAME_ROW(F)                                                                                    \
    F(STR, from, must, 4, 64, "Hash of a version, or its beginning; see sop_get.")                 \
    F(STR, to, opt(), 4, 64, "Of another one; absent: the current one.")                           \
    COMPANY_ROW(F)
#define sop_diff_REPLY(F)                                                                          \
    F(STR, diff, must, 0, 0, "A unified diff; empty when they are the same.")                      \
    F(STR, from, must, 0, 0, "Hash of the one.")                                                   \
    F(STR, to, must, 0, 0, "Hash of the other.")

#define sop_rollback_ARGS(F)                                                                       \
    NAME_ROW(F)                                                                                    \
    F(STR, version, must, 4, 64, "Hash of the version to go back to, or its beginning.")           \
    COMPANY_ROW(F)
#define sop_rollback_REPLY(F)                                                                      \
    F(STR, name, must, 0, 0, "Name of the procedure.")                                             \
    F(STR, hash, must, 0, 0, "The version that is current now.")                                   \
    F(STR, file, must, 0, 0, "The working copy, written anew.")

#define SOPS_METHODS(M)                                                                            \
    M(agent_t, sop_list, TOOL | READS, "List the procedures (SOPs).")                              \
    M(agent_t, validate_sop, TOOL | READS | PARKS,                                                 \
      "Check a procedure; every problem with its line and what to change.")                        \
    M(agent_t, sop_get, TOOL | READS, "Read a procedure, also in an earlier version.")             \
    M(agent_t, sop_diff, TOOL | READS, "What differs between two versions of a procedure.")        \
    M(agent_t, sop_rollback, TOOL | WRITES,                                                        \
      "Make an earlier version of a procedure current again; nothing is lost.")                    \
    M(agent_t, sop_create, TOOL | WRITES | IDEMPOTENT,                                             \
      "Write a procedure; what was there under the name stays as an earlier version.")
SOPS_METHODS(METHOD_DECLARE_)
const method_t sops_methods[] = {SOPS_METHODS(METHOD_ROW_){.name = NULL}};

/* ---- rows --------------------------------------------------------------------------------- */

#define sop_row_FIELDS(F)                                                                          \
    F(STR, hash, must, 0, 0, "The current version.")                                               \
    F(STR, file_hash, opt(), 0, 0, "What the file held when it was last seen or written.")         \
    F(TIME, updated_ms, must, 0, 0, "When the current version came in.")                           \
    F(BOOL, dropped, opt(false), 0, 0, "There is none any more; its versions stay.")               \
    F(LIST(sop_version_ref), versions, must, 0, SOPS_VERSIONS_MOST, "Newest first.")
RECORD(sop_row, sop_row_FIELDS)

#define sop_content_FIELDS(F)                                                                      \
    F(STR, name, must, 0, 0, "Under which name it came in first.")                                 \
    F(STR, content, must, 0, SOP_BYTES_CEILING, "The Markdown.")
RECORD(sop_content, sop_content_FIELDS)

static store_key_t key_of(const char *text)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, text, strlen(text));
    return key;
}

err_t sops_name(arena_t *arena, const char *text, const char **name)
{
    size_t size = strlen(text);
    if (size > 3 && !strcmp(text + size - 3, ".md"))
        size -= 3;
    *name = arena_strndup(arena, text, size);
    if (frame_company_name(*name)) /* the same alphabet and length */
        return err_ok();
    return err_make(arena, ERR_ARGUMENT,
                    "'%.80s' cannot be the name of a procedure: use letters, digits, - and _, "
                    "beginning with a letter or digit, at most 64 (no folders)",
                    text);
}

/* ---- working copies ----------------------------------------------------------------------- */

/* Where the versions and the files of procedures and of souls are. */
static const struct {
    const char *folder;
    int names, versions;
} shelves[] = {[PAPER_SOP] = {"sops", TABLE_sops, TABLE_sop_versions},
               [PAPER_SOUL] = {"souls", TABLE_souls, TABLE_soul_versions}};

static const char *folder_of(call_t *call, paper_t paper)
{
    const actor_t *actor = call_actor(call);
    const char *company = call_company(call);
    if (!strcmp(company, actor_default_company(actor)))
        return arena_printf(call_arena(call), "%s/%s", actor_data_dir(actor),
                            shelves[paper].folder);
    return arena_printf(call_arena(call), "%s/agent/%s/%s", actor_data_dir(actor), company,
                        shelves[paper].folder);
}

static const char *file_of(call_t *call, paper_t paper, const char *name)
{
    return arena_printf(call_arena(call), "%s/%s.md", folder_of(call, paper), name);
}

/* A procedure file as it lies on the disk. */
typedef struct file {
    bool there;
    const char *content;
    size_t size;
    const char *hash;
    int64_t changed_ms;
} file_t;

/* At most one byte more than may be: sop_parse then says it is too large. */
static bool read_all(int fd, arena_t *arena, file_t *file)
{
    size_t room = SOP_BYTES_LARGEST + 1, size = 0;
    char *content = arena_alloc(arena, room + 1);
    while (size < room) {
        ssize_t got = read(fd, content + size, room - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (!got)
            break;
        size += (size_t)got;
    }
    file->content = content;
    file->size = size;
    file->hash = digest_hex(arena, (bytes_t){(const uint8_t *)content, size});
    return true;
}

/* Only regular files; what cannot be read counts as absent. */
static file_t read_file(arena_t *arena, const char *path)
{
    file_t file = {0};
    struct stat stat;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return file;
    if (!fstat(fd, &stat) && S_ISREG(stat.st_mode)) {
        file.there = read_all(fd, arena, &file);
        file.changed_ms = (int64_t)stat.st_mtim.tv_sec * 1000 + stat.st_mtim.tv_nsec / 1000000;
    }
    close(fd);
    return file;
}

typedef struct write_job {
    const char *folder, *path, *content;
    size_t size;
} write_job_t;

static bool write_all(int fd, const char *content, size_t size)
{
    while (size) {
        ssize_t put = write(fd, content, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        content += put;
        size -= (size_t)put;
    }
    return true;
}

/* After the commit. When it fails the store still has the truth, and the next run tries again. */
static void write_file(void *self, void *ctx)
{
    (void)self;
    const write_job_t *job = ctx;
    char fresh[4096];
    int length = snprintf(fresh, sizeof(fresh), "%s.new", job->path);
    if (length < 0 || (size_t)length >= sizeof(fresh))
        return;
    char parent[4096];
    snprintf(parent, sizeof(parent), "%s", job->folder);
    char *slash = strrchr(parent, '/');
    if (slash)
        *slash = '\0';
    mkdir(parent, 0700);
    mkdir(job->folder, 0700);
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    bool good = write_all(fd, job->content, job->size);
    if (close(fd) || !good || rename(fresh, job->path))
        unlink(fresh);
}

static void write_after_commit(call_t *call, paper_t paper, const char *name, const char *content,
                               size_t size)
{
    arena_t *arena = call_arena(call);
    write_job_t *job = ARENA_NEW(arena, write_job_t);
    *job = (write_job_t){folder_of(call, paper), file_of(call, paper, name),
                         arena_strndup(arena, content, size), size};
    call_after_commit(call, write_file, job);
}

/* ---- which version is current ------------------------------------------------------------- */

/* Everything known under one name. */
typedef struct found {
    file_t file;
    sop_row_t row; /* hash NULL: not in the store */
    bool edited;   /* the file is newer than the store and counts */
    bool stale;    /* the file is older than the store */
} found_t;

static err_t load_row(call_t *call, store_txn_t *txn, paper_t paper, const char *name,
                      sop_row_t *row)
{
    store_key_t key = key_of(name);
    *row = (sop_row_t){0};
    if (!txn)
        return err_ok();
    err_t err = rows_get(txn, shelves[paper].names, &key, &sop_row_record, call_arena(call), row);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

static err_t find(call_t *call, store_txn_t *txn, paper_t paper, const char *name, found_t *found)
{
    *found = (found_t){0};
    found->file = read_file(call_arena(call), file_of(call, paper, name));
    err_t err = load_row(call, txn, paper, name, &found->row);
    if (err_is(err) || !found->file.there)
        return err;
    const file_t *file = &found->file;
    const sop_row_t *row = &found->row;
    if (!row->hash) {
        found->edited = true;
    } else if (row->dropped) { /* what a crash left behind, or a new one of that name */
        bool same = !strcmp(file->hash, row->hash) ||
                    (row->file_hash && !strcmp(file->hash, row->file_hash));
        found->stale = same && file->changed_ms <= row->updated_ms;
        found->edited = !found->stale;
    } else if (strcmp(file->hash, row->hash) != 0) {
        found->stale = row->file_hash && !strcmp(file->hash, row->file_hash) &&
                       file->changed_ms <= row->updated_ms;
        found->edited = !found->stale;
    }
    return err;
}

/* A soul is any text. */
static void parse_version(arena_t *arena, sops_version_t *version)
{
    version->err = sop_parse(arena, version->content, version->size, NULL, &version->sop,
                             &version->problems, &version->problem_count);
}

static err_t by_hash(call_t *call, store_txn_t *txn, paper_t paper, const char *hash,
                     sops_version_t *out)
{
    store_key_t key = key_of(hash);
    sop_content_t row;
    err_t err =
        rows_get(txn, shelves[paper].versions, &key, &sop_content_record, call_arena(call), &row);
    if (err.code == ERR_NOT_FOUND)
        return err_make(call_arena(call), ERR_NOT_FOUND, "there is no version %s", hash);
    if (err_is(err))
        return err;
    *out = (sops_version_t){
        .name = row.name, .hash = hash, .content = row.content, .size = strlen(row.content)};
    if (paper == PAPER_SOP)
        parse_version(call_arena(call), out);
    return err_ok();
}

err_t sops_by_hash(call_t *call, store_txn_t *txn, const char *hash, sops_version_t *out)
{
    return by_hash(call, txn, PAPER_SOP, hash, out);
}

/* The version that counts, without changing anything. ERR_NOT_FOUND without a sentence. */
static err_t effective(call_t *call, store_txn_t *txn, paper_t paper, const char *name,
                       found_t *found, sops_version_t *out)
{
    err_t err = find(call, txn, paper, name, found);
    if (err_is(err))
        return err;
    if (!found->edited) {
        if (!found->row.hash || found->row.dropped)
            return err_of(ERR_NOT_FOUND, NULL);
        err = by_hash(call, txn, paper, found->row.hash, out);
        out->name = name;
        return err;
    }
    *out = (sops_version_t){.name = name,
                            .hash = found->file.hash,
                            .content = found->file.content,
                            .size = found->file.size};
    if (paper == PAPER_SOP)
        parse_version(call_arena(call), out);
    return err_ok();
}

/* ---- names -------------------------------------------------------------------------------- */

typedef struct names {
    const char **items;
    size_t count, capacity;
} names_t;

static void add_name(arena_t *arena, names_t *names, const char *name)
{
    if (names->count == SOPS_FILES_MOST)
        return;
    for (size_t i = 0; i < names->count; i++)
        if (!strcmp(names->items[i], name))
            return;
    if (names->count == names->capacity) {
        size_t capacity = names->capacity ? names->capacity * 2 : 16;
        const char **grown = ARENA_ARRAY(arena, const char *, capacity);
        if (names->count)
            memcpy(grown, names->items, names->count * sizeof(*grown));
        names->items = grown;
        names->capacity = capacity;
    }
    names->items[names->count++] = name;
}

static void add_files(call_t *call, names_t *names)
{
    DIR *folder = opendir(folder_of(call, PAPER_SOP));
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *name;
        size_t size = strlen(entry->d_name);
        if (size < 4 || strcmp(entry->d_name + size - 3, ".md") != 0)
            continue;
        err_t err = sops_name(call_arena(call), entry->d_name, &name);
        if (!err_is(err))
            add_name(call_arena(call), names, name);
    }
    closedir(folder);
}

static err_t add_stored(call_t *call, store_txn_t *txn, names_t *names)
{
    store_scan_t scan;
    bytes_t key, value;
    if (!txn)
        return err_ok();
    err_t err = store_scan_open(&scan, txn, TABLE_sops, (bytes_t){0}, (bytes_t){0}, false);
    if (err_is(err))
        return err;
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        sop_row_t row;
        err = record_decode(&sop_row_record, value, call_arena(call), "stored procedure", &row);
        if (!err_is(err) && !row.dropped)
            add_name(call_arena(call), names,
                     arena_strndup(call_arena(call), (const char *)key.data, key.size));
    }
    store_scan_close(&scan);
    return err;
}

static int by_text(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

/* All names, sorted. `txn` may be NULL. */
static err_t all_names(call_t *call, store_txn_t *txn, names_t *names)
{
    *names = (names_t){0};
    err_t err = add_stored(call, txn, names);
    add_files(call, names);
    if (names->count)
        qsort(names->items, names->count, sizeof(*names->items), by_text);
    return err;
}

static const char *joined(arena_t *arena, const names_t *names)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < names->count; i++)
        buf_printf(&out, "%s%s", i ? ", " : "", names->items[i]);
    return out.data;
}

static err_t no_such(call_t *call, store_txn_t *txn, const char *name)
{
    names_t names;
    err_t err = all_names(call, txn, &names);
    if (err_is(err))
        return err;
    return err_make(call_arena(call), ERR_NOT_FOUND, "there is no procedure '%s'; there %s %s",
                    name, names.count ? "are:" : "are none:",
                    names.count ? joined(call_arena(call), &names) : "write one with sop_create");
}

/* The snapshot, or NULL when the company has nothing stored yet. */
static err_t snapshot(call_t *call, store_txn_t **txn)
{
    err_t err = call_read(call, call_company(call), txn);
    if (err.code != ERR_NOT_FOUND)
        return err;
    *txn = NULL;
    return err_ok();
}

/* ---- bringing versions in ----------------------------------------------------------------- */

/* Newest first, each hash once. */
static void push_version(arena_t *arena, sop_row_t *row, const char *hash, int64_t now_ms,
                         const char *author)
{
    sop_version_ref_t *items = ARENA_ARRAY(arena, sop_version_ref_t, row->versions.count + 1);
    size_t count = 0;
    items[count++] = (sop_version_ref_t){
        .hash = hash, .created_ms = now_ms, .author = author, .has_created_ms = true};
    for (size_t i = 0; i < row->versions.count && count < SOPS_VERSIONS_MOST; i++)
        if (strcmp(row->versions.items[i].hash, hash) != 0)
            items[count++] = row->versions.items[i];
    row->versions = (sop_version_ref_list_t){items, count};
}

static err_t put_content(call_t *call, store_txn_t *txn, paper_t paper,
                         const sops_version_t *version)
{
    store_key_t key = key_of(version->hash);
    sop_content_t content = {.name = version->name, .content = version->content};
    return rows_put(txn, shelves[paper].versions, &key, &sop_content_record, call_arena(call),
                    &content);
}

err_t sops_keep(call_t *call, const char *name, const char *content, sops_version_t *out)
{
    store_txn_t *txn;
    size_t size = strlen(content);
    *out = (sops_version_t){
        .name = name,
        .content = content,
        .size = size,
        .hash = digest_hex(call_arena(call), (bytes_t){(const uint8_t *)content, size})};
    parse_version(call_arena(call), out);
    if (!out->sop)
        return out->err;
    err_t err = call_write(call, call_company(call), &txn);
    return err_is(err) ? err : put_content(call, txn, PAPER_SOP, out);
}

static err_t put_version(call_t *call, store_txn_t *txn, paper_t paper,
                         const sops_version_t *version, sop_row_t *row, const char *author)
{
    arena_t *arena = call_arena(call);
    store_key_t key;
    err_t err = put_content(call, txn, paper, version);
    if (err_is(err))
        return err;
    push_version(arena, row, version->hash, call_now_ms(call), author);
    row->hash = version->hash;
    row->dropped = false;
    row->updated_ms = call_now_ms(call);
    row->has_updated_ms = true;
    key = key_of(version->name);
    return rows_put(txn, shelves[paper].names, &key, &sop_row_record, arena, row);
}

err_t sops_current(call_t *call, const char *text, sops_version_t *out)
{
    store_txn_t *txn;
    found_t found;
    const char *name;
    err_t err = sops_name(call_arena(call), text, &name);
    if (!err_is(err))
        err = call_write(call, call_company(call), &txn);
    if (err_is(err))
        return err;
    err = effective(call, txn, PAPER_SOP, name, &found, out);
    if (err.code == ERR_NOT_FOUND && !err.what)
        return no_such(call, txn, name);
    if (err_is(err) || !out->sop)
        return err;
    if (found.edited) {
        found.row.file_hash = found.file.hash;
        return put_version(call, txn, PAPER_SOP, out, &found.row, "file");
    }
    if (found.stale)
        write_after_commit(call, PAPER_SOP, name, out->content, out->size);
    return err_ok();
}

/* ---- the tools ---------------------------------------------------------------------------- */

static sop_parameter_list_t parameters(arena_t *arena, const sop_t *sop)
{
    sop_parameter_list_t list = {ARENA_ARRAY(arena, sop_parameter_t, sop->input_count + 1),
                                 sop->input_count};
    for (size_t i = 0; i < list.count; i++)
        list.items[i] = (sop_parameter_t){.name = sop->inputs[i].name,
                                          .required = !sop->inputs[i].optional,
                                          .has_required = true};
    return list;
}

static err_t sop_list(agent_t *self, call_t *call, const sop_list_args_t *args,
                      sop_list_reply_t *reply)
{
    (void)self, (void)args;
    store_txn_t *txn;
    names_t names;
    err_t err = snapshot(call, &txn);
    if (!err_is(err))
        err = all_names(call, txn, &names);
    if (err_is(err))
        return err;
    sop_entry_t *items = ARENA_ARRAY(call_arena(call), sop_entry_t, names.count);
    for (size_t i = 0; i < names.count; i++) {
        found_t found;
        sops_version_t version;
        err = effective(call, txn, PAPER_SOP, names.items[i], &found, &version);
        if (err.code == ERR_NOT_FOUND)
            continue; /* a file that went away meanwhile, or no regular one */
        if (err_is(err))
            return err;
        const sop_t *sop = version.sop;
        items[reply->sops.count++] = (sop_entry_t){.name = names.items[i],
                                                   .title = sop ? sop->title : NULL,
                                                   .steps = sop ? (int64_t)sop->step_count : 0,
                                                   .has_steps = sop != NULL,
                                                   .valid = sop != NULL,
                                                   .has_valid = true,
                                                   .hash = version.hash};
        if (sop && sop->input_count) {
            items[reply->sops.count - 1].inputs = parameters(call_arena(call), sop);
            items[reply->sops.count - 1].has_inputs = true;
        }
    }
    reply->sops.items = items;
    call_say_text(call, names.count ? joined(call_arena(call), &names) : "No SOPs found.");
    return err_ok();
}

static sop_issue_list_t issues_of(arena_t *arena, const sops_version_t *version)
{
    sop_issue_t *items = ARENA_ARRAY(arena, sop_issue_t, version->problem_count);
    for (size_t i = 0; i < version->problem_count; i++)
        items[i] = (sop_issue_t){.line = version->problems[i].line,
                                 .has_line = true,
                                 .warning = version->problems[i].warning,
                                 .has_warning = true,
                                 .what = version->problems[i].what};
    return (sop_issue_list_t){items, version->problem_count};
}

static sop_outline_list_t outline_of(arena_t *arena, const sop_t *sop)
{
    size_t count = sop ? sop->step_count : 0;
    sop_outline_t *items = ARENA_ARRAY(arena, sop_outline_t, count);
    for (size_t i = 0; i < count; i++) {
        const sop_step_t *step = &sop->steps[i];
        items[i] = (sop_outline_t){.number = (int64_t)i + 1,
                                   .has_number = true,
                                   .name = step->name,
                                   .title = step->title,
                                   .kind = sop_kind_info(step->kind)->name,
                                   .line = step->line,
                                   .has_line = true};
    }
    return (sop_outline_list_t){items, count};
}

static void say_validity(call_t *call, const sops_version_t *version, bool valid)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    const char *problems =
        sop_problems_text(call_arena(call), version->problems, version->problem_count);
    if (!valid) {
        buf_printf(&out, "SOP Invalid: %s\n%s", version->name, problems);
    } else {
        buf_printf(&out, "SOP '%s' is valid.\nTitle: %s\nSteps: %zu", version->name,
                   version->sop->title, version->sop->step_count);
        for (size_t i = 0; i < version->sop->step_count; i++)
            buf_printf(&out, "\n%zu. %s (%s)", i + 1, version->sop->steps[i].title,
                       sop_kind_info(version->sop->steps[i].kind)->name);
        if (*problems)
            buf_printf(&out, "\n%s", problems);
    }
    call_say_text(call, out.data);
}

/* For the READS: the version of a name. */
static err_t look_up(call_t *call, const char *text, store_txn_t **txn, found_t *found,
                     sops_version_t *version)
{
    const char *name;
    err_t err = sops_name(call_arena(call), text, &name);
    if (!err_is(err))
        err = snapshot(call, txn);
    if (err_is(err))
        return err;
    err = effective(call, *txn, PAPER_SOP, name, found, version);
    return err.code == ERR_NOT_FOUND && !err.what ? no_such(call, *txn, name) : err;
}

/* ---- validate_sop: tools of foreign servers are looked for where they are ---- */

enum { LOOK_MS = 3000 };

typedef struct validation {
    sops_version_t version;
    sop_problem_t *problems; /* those of the file, then what the servers say */
    int waiting;
    bool fails;
} validation_t;

typedef struct look {
    validation_t *validation;
    const sop_step_t *step;
} look_t;

#define look_args_FIELDS(F) F(STR, tool, must, 0, 0, "SERVER/TOOL.")
RECORD(look_args, look_args_FIELDS)

static err_t show_validity(call_t *call, validation_t *validation, validate_sop_reply_t *reply)
{
    sops_version_t *version = &validation->version;
    version->problems = validation->problems;
    reply->name = version->name;
    reply->valid = version->sop != NULL && !validation->fails;
    reply->has_valid = true;
    reply->title = version->sop ? version->sop->title : NULL;
    reply->hash = version->hash;
    reply->steps = outline_of(call_arena(call), version->sop);
    reply->problems = issues_of(call_arena(call), version);
    say_validity(call, version, reply->valid);
    return err_ok();
}

static err_t on_look(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    const look_t *look = ctx;
    validation_t *validation = look->validation;
    bytes_t field;
    bool ready = false, known = true;
    (void)self;
    const char *why = NULL;
    if (err_is(got->err))
        why = arena_printf(call_arena(call), "nobody answers who knows the mcp servers: %s",
                           err_what(got->err));
    else if (mp_get(got->body, "why", &field))
        why = mp_text(call_arena(call), field);
    if (mp_get(got->body, "ready", &field))
        mp_bool(field, &ready);
    if (mp_get(got->body, "known", &field))
        mp_bool(field, &known);
    if (!ready) {
        validation->fails = validation->fails || !known;
        validation->problems[validation->version.problem_count++] = (sop_problem_t){
            .line = look->step->body_line,
            .warning = known,
            .what = known
                        ? arena_printf(call_arena(call), "the tool %s cannot be looked for now: %s",
                                       look->step->tool, why ? why : "its server is away")
                        : why};
    }
    return --validation->waiting ? call_park(call) : show_validity(call, validation, reply);
}

static void look_for(call_t *call, validation_t *validation, const sop_step_t *step)
{
    look_t *look = ARENA_NEW(call_arena(call), look_t);
    *look = (look_t){validation, step};
    look_args_t args = {.tool = step->tool};
    peer_call_t request = {.peer = "outside",
                           .method = "outside_look",
                           .args = call_encode(call, &look_args_record, &args),
                           .company = call_company(call),
                           .timeout_ms = LOOK_MS};
    validation->waiting++;
    call_peer(call, &request, on_look, look);
}

static err_t validate_sop(agent_t *self, call_t *call, const validate_sop_args_t *args,
                          validate_sop_reply_t *reply)
{
    (void)self;
    store_txn_t *txn;
    found_t found;
    validation_t *validation = ARENA_NEW(call_arena(call), validation_t);
    sops_version_t *version = &validation->version;
    err_t err = look_up(call, args->name, &txn, &found, version);
    if (err_is(err))
        return err;
    size_t steps = version->sop ? version->sop->step_count : 0, have = version->problem_count;
    validation->problems = ARENA_ARRAY(call_arena(call), sop_problem_t, have + steps + 1);
    if (have)
        memcpy(validation->problems, version->problems, have * sizeof(sop_problem_t));
    for (size_t i = 0; i < steps; i++)
        if (version->sop->steps[i].tool && strchr(version->sop->steps[i].tool, '/'))
            look_for(call, validation, &version->sop->steps[i]);
    return validation->waiting ? call_park(call) : show_validity(call, validation, reply);
}

/* The full hash of a version of this procedure that begins so. */
static err_t find_hash(arena_t *arena, const found_t *found, const char *start, const char **hash)
{
    *hash = NULL;
    for (size_t i = 0; i < found->row.versions.count; i++) {
        const char *have = found->row.versions.items[i].hash;
        if (strncmp(have, start, strlen(start)) != 0)
            continue;
        if (*hash)
            return err_make(arena, ERR_ARGUMENT, "more than one version begins with '%s'", start);
        *hash = have;
    }
    if (*hash)
        return err_ok();
    return err_make(arena, ERR_NOT_FOUND, "there is no version '%s' of it", start);
}

static err_t sop_get(agent_t *self, call_t *call, const sop_get_args_t *args,
                     sop_get_reply_t *reply)
{
    (void)self;
    store_txn_t *txn;
    found_t found;
    sops_version_t version;
    err_t err = look_up(call, args->name, &txn, &found, &version);
    if (err_is(err))
        return err;
    const char *name = version.name, *hash;
    if (args->version && strncmp(version.hash, args->version, strlen(args->version)) != 0) {
        err = find_hash(call_arena(call), &found, args->version, &hash);
        if (!err_is(err))
            err = sops_by_hash(call, txn, hash, &version);
        if (err_is(err))
            return err;
    }
    bool text = mp_utf8(version.content, version.size) && !memchr(version.content, 0, version.size);
    if (!text)
        return err_make(call_arena(call), ERR_ARGUMENT, "the file of '%s' is no UTF-8 text", name);
    reply->name = name;
    reply->content = version.content;
    reply->hash = version.hash;
    reply->versions = found.row.versions;
    call_say_text(call, version.content);
    return err_ok();
}

err_t papers_save(call_t *call, paper_t paper, const char *name, const char *content,
                  const char *author, sops_version_t *out, bool *created)
{
    arena_t *arena = call_arena(call);
    store_txn_t *txn;
    found_t found;
    *out = (sops_version_t){.content = content, .size = strlen(content)};
    err_t err = sops_name(arena, name, &out->name);
    if (err_is(err))
        return err;
    if (paper == PAPER_SOP) {
        parse_version(arena, out);
        if (!out->sop)
            return err_make(arena, out->err.code, "SOP Invalid: %s\n%s", out->name,
                            sop_problems_text(arena, out->problems, out->problem_count));
    }
    out->hash = digest_hex(arena, (bytes_t){(const uint8_t *)content, out->size});
    err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = find(call, txn, paper, out->name, &found);
    if (err_is(err))
        return err;
    *created = (!found.row.hash || found.row.dropped) && (!found.file.there || !found.edited);
    /* What a person wrote into the file meanwhile is not lost: it becomes a version. */
    if (found.edited && found.file.size <= SOP_BYTES_LARGEST) {
        sops_version_t other = {.name = out->name,
                                .hash = found.file.hash,
                                .content = found.file.content,
                                .size = found.file.size};
        if (paper == PAPER_SOP)
            parse_version(arena, &other);
        if (other.sop || paper != PAPER_SOP)
            err = put_version(call, txn, paper, &other, &found.row, "file");
    }
    if (found.file.there)
        found.row.file_hash = found.file.hash;
    if (!err_is(err))
        err = put_version(call, txn, paper, out, &found.row, author);
    if (!err_is(err))
        write_after_commit(call, paper, out->name, content, out->size);
    return err;
}

err_t papers_read(call_t *call, paper_t paper, const char *text, const char *version,
                  sops_version_t *out)
{
    store_txn_t *txn;
    found_t found;
    const char *name, *hash;
    err_t err = sops_name(call_arena(call), text, &name);
    if (!err_is(err))
        err = snapshot(call, &txn);
    if (!err_is(err))
        err = effective(call, txn, paper, name, &found, out);
    if (err.code == ERR_NOT_FOUND && !err.what)
        return paper == PAPER_SOP
                   ? no_such(call, txn, name)
                   : err_make(call_arena(call), ERR_NOT_FOUND, "there is no soul '%s'", name);
    if (err_is(err) || !version || !strncmp(out->hash, version, strlen(version)))
        return err;
    err = find_hash(call_arena(call), &found, version, &hash);
    if (!err_is(err))
        err = by_hash(call, txn, paper, hash, out);
    out->name = name;
    return err;
}

static void unlink_file(void *self, void *ctx)
{
    (void)self;
    unlink(ctx);
}

err_t papers_drop(call_t *call, paper_t paper, const char *name)
{
    store_txn_t *txn;
    found_t found;
    store_key_t key = key_of(name);
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = find(call, txn, paper, name, &found);
    if (err_is(err))
        return err;
    /* The row stays: by it a file that a crash leaves behind is known for what it is. */
    sop_row_t *row = &found.row;
    if (found.file.there)
        row->file_hash = found.file.hash;
    row->dropped = row->has_dropped = true;
    row->updated_ms = call_now_ms(call);
    err = rows_put(txn, shelves[paper].names, &key, &sop_row_record, call_arena(call), row);
    if (!err_is(err))
        call_after_commit(call, unlink_file, (void *)(uintptr_t)file_of(call, paper, name));
    return err;
}

void papers_write(call_t *call, const char *folder, const char *path, const char *content)
{
    arena_t *arena = call_arena(call);
    write_job_t *job = ARENA_NEW(arena, write_job_t);
    *job = (write_job_t){arena_strdup(arena, folder), arena_strdup(arena, path),
                         arena_strdup(arena, content), strlen(content)};
    call_after_commit(call, write_file, job);
}

static err_t repair_of(call_t *call, store_txn_t *txn, paper_t paper)
{
    store_scan_t scan;
    bytes_t key, value;
    err_t err =
        store_scan_open(&scan, txn, shelves[paper].names, (bytes_t){0}, (bytes_t){0}, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        found_t found;
        sops_version_t version;
        const char *name = arena_strndup(call_arena(call), (const char *)key.data, key.size);
        err = find(call, txn, paper, name, &found);
        if (!err_is(err) && found.row.dropped && found.stale)
            call_after_commit(call, unlink_file, (void *)(uintptr_t)file_of(call, paper, name));
        if (err_is(err) || found.row.dropped || (found.file.there && !found.stale))
            continue;
        err = by_hash(call, txn, paper, found.row.hash, &version);
        if (!err_is(err))
            write_after_commit(call, paper, name, version.content, version.size);
    }
    store_scan_close(&scan);
    return err;
}

err_t papers_repair(call_t *call, store_txn_t *txn)
{
    err_t err = repair_of(call, txn, PAPER_SOUL);
    return err_is(err) ? err : repair_of(call, txn, PAPER_SOP);
}

static err_t sop_create(agent_t *self, call_t *call, const sop_create_args_t *args,
                        sop_create_reply_t *reply)
{
    (void)self;
    sops_version_t version;
    err_t err = papers_save(call, PAPER_SOP, args->name, args->content, call_principal(call),
                            &version, &reply->created);
    if (err_is(err))
        return err;
    reply->name = version.name;
    reply->hash = version.hash;
    reply->has_created = true;
    reply->file = file_of(call, PAPER_SOP, version.name);
    reply->problems = issues_of(call_arena(call), &version);
    call_say(call, "SOP '%s' created successfully in %s.", version.name,
             folder_of(call, PAPER_SOP));
    return err_ok();
}

static err_t sop_diff(agent_t *self, call_t *call, const sop_diff_args_t *args,
                      sop_diff_reply_t *reply)
{
    (void)self;
    sops_version_t from, to;
    arena_t *arena = call_arena(call);
    err_t err = papers_read(call, PAPER_SOP, args->name, args->from, &from);
    if (!err_is(err))
        err = papers_read(call, PAPER_SOP, args->name, args->to, &to);
    if (err_is(err))
        return err;
    if (!mp_utf8(to.content, to.size) || memchr(to.content, 0, to.size))
        return err_make(arena, ERR_ARGUMENT, "the file of '%s' is no UTF-8 text", to.name);
    reply->diff = diff_make(arena, from.content, to.content,
                            arena_printf(arena, "sops/%s.md %.12s", from.name, from.hash),
                            arena_printf(arena, "sops/%s.md %.12s", to.name, to.hash));
    reply->from = from.hash;
    reply->to = to.hash;
    call_say_text(call, *reply->diff ? reply->diff : "They are the same.");
    return err_ok();
}

static err_t sop_rollback(agent_t *self, call_t *call, const sop_rollback_args_t *args,
                          sop_rollback_reply_t *reply)
{
    (void)self;
    sops_version_t version, saved;
    bool created;
    err_t err = papers_read(call, PAPER_SOP, args->name, args->version, &version);
    if (!err_is(err))
        err = papers_save(call, PAPER_SOP, version.name, version.content, call_principal(call),
                          &saved, &created);
    if (err_is(err))
        return err;
    reply->name = saved.name;
    reply->hash = saved.hash;
    reply->file = file_of(call, PAPER_SOP, saved.name);
    call_say(call, "SOP '%s' is as it was in version %.12s.", saved.name, saved.hash);
    return err_ok();
}
