#include "actors/agent/papers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/agent/agent.h"
#include "actors/agent/rows.h"
#include "bus/digest.h"
#include "proto/mp.h"

RECORD_DEFINE(sop_version_ref, sop_version_ref_FIELDS)
RECORD_DEFINE(sop_row, sop_row_FIELDS)

/* ---- rows --------------------------------------------------------------------------------- */

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

const char *papers_folder(call_t *call, paper_t paper)
{
    const actor_t *actor = call_actor(call);
    const char *company = call_company(call);
    if (!strcmp(company, actor_default_company(actor)))
        return arena_printf(call_arena(call), "%s/%s", actor_data_dir(actor),
                            shelves[paper].folder);
    return arena_printf(call_arena(call), "%s/agent/%s/%s", actor_data_dir(actor), company,
                        shelves[paper].folder);
}

const char *papers_file(call_t *call, paper_t paper, const char *name)
{
    return arena_printf(call_arena(call), "%s/%s.md", papers_folder(call, paper), name);
}

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
    *job = (write_job_t){papers_folder(call, paper), papers_file(call, paper, name),
                         arena_strndup(arena, content, size), size};
    call_after_commit(call, write_file, job);
}

/* ---- which version is current ------------------------------------------------------------- */

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
    found->file = read_file(call_arena(call), papers_file(call, paper, name));
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

err_t papers_effective(call_t *call, store_txn_t *txn, paper_t paper, const char *name,
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
    DIR *folder = opendir(papers_folder(call, PAPER_SOP));
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

err_t papers_names(call_t *call, store_txn_t *txn, names_t *names)
{
    *names = (names_t){0};
    err_t err = add_stored(call, txn, names);
    add_files(call, names);
    if (names->count)
        qsort(names->items, names->count, sizeof(*names->items), by_text);
    return err;
}

const char *papers_joined(arena_t *arena, const names_t *names)
{
    buf_t out;
    buf_open(&out, arena);
    for (size_t i = 0; i < names->count; i++)
        buf_printf(&out, "%s%s", i ? ", " : "", names->items[i]);
    return out.data;
}

err_t papers_no_such(call_t *call, store_txn_t *txn, const char *name)
{
    names_t names;
    err_t err = papers_names(call, txn, &names);
    if (err_is(err))
        return err;
    return err_make(call_arena(call), ERR_NOT_FOUND, "there is no procedure '%s'; there %s %s",
                    name, names.count ? "are:" : "are none:",
                    names.count ? papers_joined(call_arena(call), &names)
                                : "write one with sop_create");
}

err_t papers_snapshot(call_t *call, store_txn_t **txn)
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
    err = papers_effective(call, txn, PAPER_SOP, name, &found, out);
    if (err.code == ERR_NOT_FOUND && !err.what)
        return papers_no_such(call, txn, name);
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

err_t papers_find_hash(arena_t *arena, const found_t *found, const char *start, const char **hash)
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
        err = papers_snapshot(call, &txn);
    if (!err_is(err))
        err = papers_effective(call, txn, paper, name, &found, out);
    if (err.code == ERR_NOT_FOUND && !err.what)
        return paper == PAPER_SOP
                   ? papers_no_such(call, txn, name)
                   : err_make(call_arena(call), ERR_NOT_FOUND, "there is no soul '%s'", name);
    if (err_is(err) || !version || !strncmp(out->hash, version, strlen(version)))
        return err;
    err = papers_find_hash(call_arena(call), &found, version, &hash);
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
        call_after_commit(call, unlink_file, (void *)(uintptr_t)papers_file(call, paper, name));
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
            call_after_commit(call, unlink_file, (void *)(uintptr_t)papers_file(call, paper, name));
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
