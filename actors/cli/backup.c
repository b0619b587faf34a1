#include "actors/cli/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "actors/cli/files.h"
#include "actors/cli/tenant.h"
#include "bus/client.h"

#define PARTIAL_ENDING ".partial-"

enum { BACKUP_MS = 6 * 3600 * 1000 };

bool backup_begins(const char *text, const char *start)
{
    return !strncmp(text, start, strlen(start));
}

const char *backup_dir(arena_t *arena, const char *dir)
{
    size_t size = strlen(dir);
    while (size > 1 && dir[size - 1] == '/')
        size--;
    return arena_strndup(arena, dir, size);
}

/* ---- What lies in a data directory ---- */

static bool ends(const char *text, const char *end)
{
    size_t size = strlen(text), tail = strlen(end);
    return size >= tail && !strcmp(text + size - tail, end);
}

/* Of pillar/company/store… or pillar/company/vectors.index. */
static bool of_a_store(const cli_t *cli, const char *path)
{
    const char *slash = strchr(path, '/'), *next = slash ? strchr(slash + 1, '/') : NULL;
    if (!next || !cli_find_actor(cli, arena_strndup(cli->arena, path, (size_t)(slash - path))))
        return false;
    return backup_begins(next + 1, "store") || backup_begins(next + 1, "vectors.index");
}

/* What comes into being again by itself, or is no part of the data. */
static bool left_out(const cli_t *cli, const char *path)
{
    return !strcmp(path, "run") || !strcmp(path, "lost+found") || backup_begins(path, ASIDE_DIR) ||
           !strcmp(path, STAGE_DIR) || !strcmp(path, STATE_FILE) || !strcmp(path, TENANT_FILE) ||
           of_a_store(cli, path) || ends(path, "/.import") || ends(path, ".new");
}

/* ---- Making one ---- */

typedef struct making {
    cli_t *cli;
    const char *data, *to, *partial; /* partial is absolute */
    const char *company;             /* only of this one; or NULL */
    buf_t pillars;                   /* msgpack, as in HEAD_FILE */
    uint32_t pillar_count;
    size_t stores, files, others;
    buf_t sums;
    err_t err;
} making_t;

static void keep_one(arena_t *arena, strs_t *companies, const char *company)
{
    const char **one = ARENA_ARRAY(arena, const char *, 1);
    size_t count = 0;
    for (size_t i = 0; i < companies->count; i++)
        if (!strcmp(companies->items[i], company))
            one[count++] = company;
    *companies = (strs_t){one, count};
}

static err_t copy_offline(making_t *self, store_pool_t *pool, const char *into, strs_t *companies)
{
    arena_t *arena = self->cli->arena;
    err_t err = store_pool_companies(pool, arena, companies);
    if (!err_is(err) && self->company)
        keep_one(arena, companies, self->company);
    for (size_t i = 0; i < companies->count && !err_is(err); i++) {
        const char *dir = arena_printf(arena, "%s/%s/store", into, companies->items[i]);
        err = files_make_dir(arena, dir);
        if (!err_is(err))
            err = store_copy(pool, companies->items[i], dir, arena);
    }
    return err;
}

/* The owner copies: its process must see the same directory, and be allowed to write there. */
static err_t copy_online(making_t *self, const char *pillar, const char *into, strs_t *companies)
{
    cli_t *cli = self->cli;
    const char *run_dir;
    client_t *client;
    buf_t args;
    bytes_t stores, store, name;
    err_t err = cli_run_dir(cli, &run_dir);
    if (!err_is(err))
        err = client_open(run_dir, cli->arena, &client);
    if (err_is(err))
        return err;
    buf_open(&args, cli->arena);
    mp_put_map(&args, self->company ? 2 : 1);
    mp_put_str(&args, "dir");
    mp_put_str(&args, into);
    if (self->company) {
        mp_put_str(&args, "company");
        mp_put_str(&args, self->company);
    }
    client_call_t call = {.peer = pillar,
                          .method = arena_printf(cli->arena, "%s.backup", pillar),
                          .role = ROLE_ADMIN,
                          .args = buf_bytes(&args),
                          .timeout_ms = BACKUP_MS};
    client_reply_t reply = client_call(client, cli->arena, &call);
    if (!err_is(reply.err) && mp_get(reply.body, "stores", &stores)) {
        const char **names = ARENA_ARRAY(cli->arena, const char *, stores.size + 1);
        *companies = (strs_t){names, 0};
        for (uint32_t i = 0; mp_at(stores, i, &store); i++)
            if (mp_get(store, "company", &name))
                names[companies->count++] = mp_text(cli->arena, name);
    }
    client_close(&client);
    return reply.err;
}

static void note_pillar(making_t *self, const actor_def_t *def, bool online, strs_t companies)
{
    mp_put_map(&self->pillars, 4);
    mp_put_str(&self->pillars, "name");
    mp_put_str(&self->pillars, def->name);
    mp_put_str(&self->pillars, "format");
    mp_put_int(&self->pillars, def->format);
    mp_put_str(&self->pillars, "running");
    mp_put_bool(&self->pillars, online);
    mp_put_str(&self->pillars, "companies");
    mp_put_array(&self->pillars, (uint32_t)companies.count);
    for (size_t i = 0; i < companies.count; i++)
        mp_put_str(&self->pillars, companies.items[i]);
    self->pillar_count++;
    self->stores += companies.count;
    if (!self->cli->json && (!self->company || companies.count))
        printf("%-8s %zu %s, %s\n", def->name, companies.count,
               companies.count == 1 ? "company" : "companies",
               online ? "copied while running" : "not running");
}

static err_t copy_pillar(making_t *self, const actor_def_t *def)
{
    arena_t *arena = self->cli->arena;
    store_pool_t *pool;
    strs_t companies = {0};
    const char *into = arena_printf(arena, "%s/%s", self->partial, def->name);
    if (files_kind(arena_printf(arena, "%s/%s", self->data, def->name)) != FILES_DIR)
        return err_ok();
    err_t err = files_make_dir(arena, into);
    if (err_is(err))
        return err;
    err = actor_store_open(def, self->data, arena, &pool);
    bool online = err.code == ERR_OWNED;
    if (online) {
        err = copy_online(self, def->name, into, &companies);
    } else if (!err_is(err)) {
        err = copy_offline(self, pool, into, &companies);
        store_pool_close(&pool);
    }
    if (err_is(err))
        return err_make(arena, err.code, "%s: %s", def->name, err_what(err));
    note_pillar(self, def, online, companies);
    return err_ok();
}

/* With the epoch of each owner: who imports goes on beyond it. */
static bool of_company(const making_t *self, const char *path, files_kind_t kind)
{
    tenant_part_t part = tenant_part(self->cli, self->company, path, kind);
    return part == TENANT_OWN || (part == TENANT_WAY && kind == FILES_DIR) ||
           (kind == FILES_PLAIN && ends(path, "/owner"));
}

static bool copy_entry(void *ctx, const char *path, files_kind_t kind)
{
    making_t *self = ctx;
    arena_t *arena = self->cli->arena;
    const char *from = arena_printf(arena, "%s/%s", self->data, path);
    const char *to = arena_printf(arena, "%s/%s", self->partial, path);
    if (err_is(self->err) || left_out(self->cli, path))
        return false;
    if (self->company && !strcmp(path, STEP_LOG) && tenant_in_log(arena, from, self->company)) {
        self->err = tenant_copy_log(arena, from, to, self->company, true);
        self->files += !err_is(self->err);
        return false;
    }
    if (self->company && !of_company(self, path, kind))
        return false;
    if (kind == FILES_DIR) { /* another backup is no part of this one */
        if (files_kind(arena_printf(arena, "%s/" SUMS_FILE, from)) == FILES_PLAIN ||
            files_kind(arena_printf(arena, "%s/" MARK_FILE, from)) == FILES_PLAIN)
            return false;
        self->err = files_make_dir(arena, to);
        return !err_is(self->err);
    }
    if (kind != FILES_PLAIN || !files_plain_path(path)) {
        fprintf(stderr, "left out: %s: %s\n", path,
                kind == FILES_PLAIN ? "its name cannot be listed" : "no plain file");
        self->others++;
        return false;
    }
    self->err = files_copy(arena, from, to);
    self->files += !err_is(self->err);
    return false;
}

static bool sum_entry(void *ctx, const char *path, files_kind_t kind)
{
    making_t *self = ctx;
    const char *hex, *full = arena_printf(self->cli->arena, "%s/%s", self->partial, path);
    if (err_is(self->err))
        return false;
    if (kind == FILES_DIR) {
        self->err = files_sync_dir(self->cli->arena, full);
        return true;
    }
    if (ends(path, "/lock.mdb") || !strcmp(path, MARK_FILE))
        return false;
    self->err = files_digest(self->cli->arena, full, &hex);
    if (!err_is(self->err))
        buf_printf(&self->sums, "%s  %s\n", hex, path);
    return false;
}

static err_t write_head(making_t *self)
{
    arena_t *arena = self->cli->arena;
    buf_t head, text;
    buf_open(&head, arena);
    buf_open(&text, arena);
    mp_put_map(&head, self->company ? 6 : 4);
    if (self->company) {
        const char *top = self->cli->company ? self->cli->company : "default";
        mp_put_str(&head, "company");
        mp_put_str(&head, self->company);
        mp_put_str(&head, "default_company");
        mp_put_bool(&head, !strcmp(self->company, top));
    }
    mp_put_str(&head, self->company ? TENANT_KEY : BACKUP_KEY);
    mp_put_int(&head, BACKUP_FORMAT);
    mp_put_str(&head, "agency");
    mp_put_str(&head, self->cli->house->version);
    mp_put_str(&head, "made");
    mp_put_str(&head, record_time_text(arena, (int64_t)time(NULL) * 1000));
    mp_put_str(&head, "pillars");
    mp_put_array(&head, self->pillar_count);
    buf_put(&head, self->pillars.data, self->pillars.size);
    err_t err = json_from_msgpack(buf_bytes(&head), JSON_PRETTY, &text);
    if (!err_is(err))
        err = files_write(arena, arena_printf(arena, "%s/" HEAD_FILE, self->partial), text.data,
                          text.size);
    return err;
}

/* The parts of it, each on disk, in the directory that is not yet the backup. */
static err_t fill(making_t *self)
{
    arena_t *arena = self->cli->arena;
    for (const cli_actor_t *at = self->cli->house->actors; at->def; at++) {
        err_t err = at->def->tables ? copy_pillar(self, at->def) : err_ok();
        if (err_is(err))
            return err;
    }
    err_t err = files_walk(arena, self->data, copy_entry, self);
    if (!err_is(err))
        err = self->err;
    if (!err_is(err))
        err = write_head(self);
    if (!err_is(err))
        err = files_walk(arena, self->partial, sum_entry, self);
    if (!err_is(err))
        err = self->err;
    if (!err_is(err))
        err = files_write(arena, arena_printf(arena, "%s/" SUMS_FILE, self->partial),
                          self->sums.data, self->sums.size);
    return err;
}

/* One that was killed: nobody holds the lock on its mark. The owner of a store may still be copying
 * into it, so what cannot be removed yet is left to the next backup. */
static bool drop_left_over(void *ctx, const char *name, files_kind_t kind)
{
    making_t *self = ctx;
    arena_t *arena = self->cli->arena;
    const char *base = strrchr(self->to, '/');
    base = arena_printf(arena, "%s" PARTIAL_ENDING, base ? base + 1 : self->to);
    if (kind != FILES_DIR || !backup_begins(name, base))
        return false;
    const char *path = arena_printf(arena, "%s/%s", files_parent(arena, self->to), name);
    int mark = open(arena_printf(arena, "%s/" MARK_FILE, path), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (mark >= 0 && !flock(mark, LOCK_EX | LOCK_NB))
        (void)files_remove(arena, path);
    if (mark >= 0)
        close(mark);
    else
        rmdir(path); /* killed before it had a mark: it is empty */
    return false;
}

/* Makes DIR.partial-…, and holds a lock on the mark in it. */
static err_t begin(making_t *self, int *mark)
{
    arena_t *arena = self->cli->arena;
    char full[PATH_MAX];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *mark = -1;
    if (files_kind(self->to) != FILES_ABSENT && !files_empty_dir(self->to))
        return err_make(arena, ERR_EXISTS, "%s is there already: name a new directory", self->to);
    const char *partial = arena_printf(arena, "%s" PARTIAL_ENDING "%lld.%09ld-%d", self->to,
                                       (long long)now.tv_sec, now.tv_nsec, (int)getpid());
    err_t err = files_make_dir(arena, files_parent(arena, self->to));
    if (!err_is(err))
        err = files_walk(arena, files_parent(arena, self->to), drop_left_over, self);
    if (err_is(err))
        return err;
    if (mkdir(partial, 0700))
        return err_make(arena, ERR_IO, "cannot make %s: %s", partial, strerror(errno));
    *mark = open(arena_printf(arena, "%s/" MARK_FILE, partial), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*mark < 0 || flock(*mark, LOCK_EX | LOCK_NB) || !realpath(partial, full))
        return err_make(arena, ERR_IO, "cannot use %s: %s", partial, strerror(errno));
    self->partial = arena_strdup(arena, full);
    return err_ok();
}

static err_t become_whole(making_t *self)
{
    arena_t *arena = self->cli->arena;
    unlink(arena_printf(arena, "%s/" MARK_FILE, self->partial));
    err_t err = files_sync_dir(arena, self->partial);
    if (!err_is(err) && rename(self->partial, self->to))
        err = err_make(arena, ERR_IO, "cannot rename %s to %s: %s", self->partial, self->to,
                       strerror(errno));
    return err_is(err) ? err : files_sync_dir(arena, files_parent(arena, self->to));
}

static void print_made(making_t *self)
{
    buf_t out;
    buf_open(&out, self->cli->arena);
    mp_put_map(&out, 4);
    mp_put_str(&out, "backup");
    mp_put_str(&out, self->to);
    mp_put_str(&out, "stores");
    mp_put_int(&out, (int64_t)self->stores);
    mp_put_str(&out, "files");
    mp_put_int(&out, (int64_t)self->files);
    mp_put_str(&out, "left_out");
    mp_put_int(&out, (int64_t)self->others);
    cli_print(self->cli,
              arena_printf(self->cli->arena, "%s: %zu stores and %zu files, complete and on disk",
                           self->to, self->stores, self->files),
              buf_bytes(&out));
}

int backup_company(cli_t *cli, const char *dir, const char *company)
{
    making_t self = {
        .cli = cli, .to = backup_dir(cli->arena, dir), .data = cli->data_dir, .company = company};
    int mark;
    buf_open(&self.pillars, cli->arena);
    buf_open(&self.sums, cli->arena);
    err_t err =
        files_kind(self.data) == FILES_DIR
            ? begin(&self, &mark)
            : err_make(cli->arena, ERR_NOT_FOUND, "there is no data directory %s", self.data);
    if (err_is(err))
        return cli_fail(err);
    err = fill(&self);
    if (!err_is(err))
        err = become_whole(&self);
    close(mark);
    if (err_is(err)) {
        (void)files_remove(cli->arena, self.partial);
        return cli_fail(err_make(cli->arena, err.code, "no %s was made: %s",
                                 company ? "export" : "backup", err_what(err)));
    }
    print_made(&self);
    return EXIT_DONE;
}

int cli_backup(cli_t *cli, const char *dir)
{
    return backup_company(cli, dir, NULL);
}
