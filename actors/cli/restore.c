/* restore: `agency store restore DIR`; see backup.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "actors/cli/restore_parts.h"
#include "actors/cli/tenant.h"

enum {
    LARGEST_SUMS = 256 << 20,
    EPOCHS_SKIPPED = 1000000 /* by a restored owner: no life of before had such an epoch */
};

/* ---- Bringing one back ---- */

err_t restore_text(arena_t *arena, const char *path, size_t most, const char **text, size_t *size)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) || !S_ISREG(info.st_mode) || (size_t)info.st_size > most) {
        if (fd >= 0)
            close(fd);
        return err_make(arena, ERR_NOT_FOUND, "cannot read %s: it is absent or no such file", path);
    }
    char *data = arena_alloc(arena, (size_t)info.st_size + 1);
    ssize_t got = pread(fd, data, (size_t)info.st_size, 0);
    close(fd);
    *size = got > 0 ? (size_t)got : 0;
    data[*size] = '\0';
    *text = data;
    return err_ok();
}

static err_t wrong_kind(const restoring_t *self, bytes_t head, const char *key)
{
    arena_t *arena = self->cli->arena;
    if (mp_member(head, TENANT_KEY).size)
        return err_make(arena, ERR_STATE,
                        "it holds one company: bring it in with agency tenant import %s",
                        self->from);
    if (mp_member(head, BACKUP_KEY).size)
        return err_make(arena, ERR_STATE,
                        "it holds a whole agency: bring it back with agency store restore %s",
                        self->from);
    return err_make(arena, ERR_PARSE, "it says no %s", key);
}

err_t restore_read(restoring_t *self, const char *key)
{
    arena_t *arena = self->cli->arena;
    const char *text;
    size_t size;
    bytes_t head, field;
    int64_t format = 0;
    const char *path = arena_printf(arena, "%s/" HEAD_FILE, self->from);
    if (files_kind(arena_printf(arena, "%s/" MARK_FILE, self->from)) != FILES_ABSENT)
        return err_make(arena, ERR_STATE, "%s is a backup that was never finished", self->from);
    err_t err = restore_text(arena, path, LARGEST_SUMS, &text, &size);
    if (err_is(err))
        return err_make(arena, err.code, "%s is no backup: %s", self->from, err_what(err));
    err = json_to_msgpack(arena, text, size, NULL, &head);
    if (!err_is(err) && (!mp_get(head, key, &field) || !mp_int(field, &format)))
        err = wrong_kind(self, head, key);
    if (err_is(err))
        return err_make(arena, err.code, "%s: %s", path, err_what(err));
    if (format != BACKUP_FORMAT)
        return err_make(arena, ERR_VERSION, "%s is of format %lld; this program knows %d",
                        self->from, (long long)format, BACKUP_FORMAT);
    self->company = mp_member_text(arena, head, "company");
    self->was_default = mp_member_true(head, "default_company");
    if (!strcmp(key, TENANT_KEY) && (!self->company || !frame_company_name(self->company)))
        return err_make(arena, ERR_PARSE, "%s names no company", path);
    err = restore_text(arena, arena_printf(arena, "%s/" SUMS_FILE, self->from), LARGEST_SUMS, &text,
                       &size);
    return err_is(err) ? err : files_read_sums(arena, text, size, &self->sums, &self->count);
}

static err_t compare(restoring_t *self, const char *dir, const files_sum_t *sum)
{
    const char *hex;
    arena_t *arena = self->cli->arena;
    const char *path = arena_printf(arena, "%s/%s", dir, sum->path);
    if (files_kind(path) != FILES_PLAIN)
        return err_make(arena, ERR_CORRUPT, "the backup lacks %s", sum->path);
    err_t err = files_digest(arena, path, &hex);
    if (!err_is(err) && strcmp(hex, sum->hex) != 0)
        return err_make(arena, ERR_CORRUPT, "%s was damaged or changed since the backup was made",
                        path);
    return err;
}

/* Nobody may run on the directory; the locks are held until the end. */
err_t restore_lock(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    for (const cli_actor_t *at = self->cli->house->actors; at->def; at++) {
        if (!at->def->tables || self->owner_count == 16)
            continue;
        char text[32] = "";
        const char *path = arena_printf(arena, "%s/%s/owner", self->data, at->def->name);
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
            close(fd);
            return err_make(arena, ERR_OWNED,
                            "%s runs on %s: stop it first (agency down), nothing was changed",
                            at->def->name, self->data);
        }
        if (fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) < 0)
            text[0] = '\0';
        self->epochs[self->owner_count] = strtoull(text, NULL, 10);
        self->owners[self->owner_count++] = fd;
    }
    return err_ok();
}

void restore_unlock(restoring_t *self)
{
    for (size_t i = 0; i < self->owner_count; i++)
        if (self->owners[i] >= 0)
            close(self->owners[i]);
}

static bool not_data(const char *name)
{
    return !strcmp(name, "run") || !strcmp(name, "lost+found") || !strcmp(name, STAGE_DIR) ||
           !strcmp(name, STATE_FILE) || backup_begins(name, ASIDE_DIR);
}

static bool count_entry(void *ctx, const char *path, files_kind_t kind)
{
    (void)kind;
    *(size_t *)ctx += !not_data(path);
    return false;
}

static err_t check_target(restoring_t *self)
{
    size_t entries = 0;
    arena_t *arena = self->cli->arena;
    err_t err = files_make_dir(arena, self->data);
    if (!err_is(err))
        err = files_walk(arena, self->data, count_entry, &entries);
    if (!err_is(err) && entries && !self->cli->force)
        return err_make(arena, ERR_EXISTS,
                        "%s holds data already: give another --data, or --force to move what is "
                        "there into %s/" ASIDE_DIR "TIME",
                        self->data, self->data);
    return err;
}

/* Epochs go on far beyond those of both lives, so that nobody from before is taken for one of now.
 */
static err_t raise_epochs(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    size_t number = 0;
    err_t err = err_ok();
    for (const cli_actor_t *at = self->cli->house->actors; at->def && !err_is(err); at++) {
        const char *path = arena_printf(arena, "%s/%s/owner", self->stage, at->def->name), *text;
        size_t size;
        uint64_t epoch = 0;
        if (!at->def->tables)
            continue;
        uint64_t present = number < self->owner_count ? self->epochs[number] : 0;
        number++;
        if (files_kind(files_parent(arena, path)) != FILES_DIR)
            continue;
        if (!err_is(restore_text(arena, path, 64, &text, &size)))
            epoch = strtoull(text, NULL, 10);
        epoch = (epoch > present ? epoch : present) + EPOCHS_SKIPPED;
        text = arena_printf(arena, "%020llu\n", (unsigned long long)epoch);
        err = files_write(arena, path, text, strlen(text));
    }
    return err;
}

/* Every row of every store can be read, by this version of the program. */
static err_t check_stores(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    for (const cli_actor_t *at = self->cli->house->actors; at->def; at++) {
        store_pool_t *pool;
        strs_t companies = {0};
        const char *dir = arena_printf(arena, "%s/%s", self->stage, at->def->name);
        if (!at->def->tables || files_kind(dir) != FILES_DIR)
            continue;
        err_t err = actor_store_open(at->def, self->stage, arena, &pool);
        if (err_is(err))
            return err;
        err = store_pool_companies(pool, arena, &companies);
        for (size_t i = 0; i < companies.count && !err_is(err); i++)
            err = store_check(pool, companies.items[i], arena);
        store_pool_close(&pool);
        if (err_is(err))
            return err_make(arena, err.code, "%s: %s", at->def->name, err_what(err));
    }
    return err_ok();
}

static bool sync_entry(void *ctx, const char *path, files_kind_t kind)
{
    restoring_t *self = ctx;
    if (kind == FILES_DIR && !err_is(self->err))
        self->err = files_sync_dir(self->cli->arena,
                                   arena_printf(self->cli->arena, "%s/%s", self->stage, path));
    return kind == FILES_DIR;
}

err_t restore_stage(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    err_t err = files_remove(arena, self->stage);
    if (!err_is(err))
        err = files_make_dir(arena, self->stage);
    for (size_t i = 0; i < self->count && !err_is(err); i++) {
        const char *path = self->sums[i].path;
        const char *to = arena_printf(arena, "%s/%s", self->stage, path);
        if (!strcmp(path, HEAD_FILE))
            continue;
        err = files_make_dir(arena, files_parent(arena, to));
        if (!err_is(err))
            err = files_copy(arena, arena_printf(arena, "%s/%s", self->from, path), to);
        if (!err_is(err))
            err = compare(self, self->stage, &self->sums[i]);
    }
    if (!err_is(err))
        err = raise_epochs(self);
    if (!err_is(err))
        err = check_stores(self);
    if (!err_is(err))
        err = files_walk(arena, self->stage, sync_entry, self);
    if (!err_is(err))
        err = self->err;
    return err_is(err) ? err : files_sync_dir(arena, self->stage);
}

/* ---- The swap: "out NAME", then "in NAME" in the state file ---- */

static err_t write_state(restoring_t *self, const char *phase)
{
    arena_t *arena = self->cli->arena;
    const char *text = arena_printf(arena, "%s %s\n", phase, self->aside);
    err_t err = files_write(arena, self->state, text, strlen(text));
    return err_is(err) ? err : files_sync_dir(arena, self->data);
}

static err_t move(restoring_t *self, const char *from, const char *to)
{
    return rename(from, to) ? err_make(self->cli->arena, ERR_IO, "cannot move %s to %s: %s", from,
                                       to, strerror(errno))
                            : err_ok();
}

static bool move_out(void *ctx, const char *name, files_kind_t kind)
{
    restoring_t *self = ctx;
    arena_t *arena = self->cli->arena;
    (void)kind;
    if (!not_data(name) && !err_is(self->err))
        self->err = move(self, arena_printf(arena, "%s/%s", self->data, name),
                         arena_printf(arena, "%s/%s/%s", self->data, self->aside, name));
    return false;
}

static bool move_in(void *ctx, const char *name, files_kind_t kind)
{
    restoring_t *self = ctx;
    arena_t *arena = self->cli->arena;
    (void)kind;
    if (!err_is(self->err))
        self->err = move(self, arena_printf(arena, "%s/%s", self->stage, name),
                         arena_printf(arena, "%s/%s", self->data, name));
    return false;
}

static err_t swap_out(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    const char *aside = arena_printf(arena, "%s/%s", self->data, self->aside);
    err_t err = files_make_dir(arena, aside);
    if (!err_is(err))
        err = files_walk(arena, self->data, move_out, self);
    if (!err_is(err))
        err = self->err;
    if (!err_is(err))
        err = files_sync_dir(arena, aside);
    if (!err_is(err))
        err = files_sync_dir(arena, self->data);
    return err_is(err) ? err : write_state(self, "in");
}

static err_t swap_in(restoring_t *self)
{
    arena_t *arena = self->cli->arena;
    /* Gone: the end of an earlier attempt is on disk but for the state file. */
    err_t err = files_kind(self->stage) == FILES_ABSENT
                    ? err_ok()
                    : files_walk(arena, self->stage, move_in, self);
    if (!err_is(err))
        err = self->err;
    if (!err_is(err))
        err = files_sync_dir(arena, self->data);
    if (err_is(err))
        return err;
    unlink(self->state);
    rmdir(self->stage);
    rmdir(arena_printf(arena, "%s/%s", self->data, self->aside)); /* only when it is empty */
    return files_sync_dir(arena, self->data);
}

/* A swap that was killed goes on where it was: its stage is whole. */
static bool read_state(restoring_t *self, bool *in)
{
    const char *text, *name;
    size_t size;
    if (err_is(restore_text(self->cli->arena, self->state, 256, &text, &size)))
        return false;
    *in = backup_begins(text, "in ");
    name = strchr(text, ' ');
    if (!name || !backup_begins(name + 1, ASIDE_DIR))
        return false;
    self->aside = arena_strndup(self->cli->arena, name + 1, strcspn(name + 1, "\n/"));
    return true;
}

static const char *aside_name(arena_t *arena)
{
    char text[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &tm);
    return arena_printf(arena, ASIDE_DIR "%s", text);
}

static err_t restore(restoring_t *self, bool *resumed)
{
    bool in = false;
    *resumed = read_state(self, &in);
    err_t err = *tenant_state(self->cli) ? cli_check_restored(self->cli)
                : *resumed               ? err_ok()
                                         : restore_read(self, BACKUP_KEY);
    if (!err_is(err))
        err = files_kind(self->data) == FILES_DIR ? restore_lock(self) : err_ok();
    if (!err_is(err) && !*resumed) {
        err = check_target(self);
        if (!err_is(err))
            err = restore_stage(self);
        self->aside = aside_name(self->cli->arena);
        if (!err_is(err))
            err = write_state(self, "out");
    }
    if (!err_is(err) && !in)
        err = swap_out(self);
    return err_is(err) ? err : swap_in(self);
}

err_t cli_check_restored(cli_t *cli)
{
    const char *text;
    size_t size;
    if (!err_is(restore_text(cli->arena, arena_printf(cli->arena, "%s/" TENANT_FILE, cli->data_dir),
                             256, &text, &size)))
        return err_make(cli->arena, ERR_STATE,
                        "agency tenant %.*s was interrupted in %s: give that command again, it "
                        "goes on where it was",
                        (int)strcspn(text, "\n"), text, cli->data_dir);
    if (files_kind(arena_printf(cli->arena, "%s/" STATE_FILE, cli->data_dir)) == FILES_ABSENT)
        return err_ok();
    return err_make(cli->arena, ERR_STATE,
                    "a restore into %s was interrupted: run agency store restore DIR again, it "
                    "goes on where it was",
                    cli->data_dir);
}

int cli_restore(cli_t *cli, const char *dir)
{
    arena_t *arena = cli->arena;
    restoring_t self = {.cli = cli,
                        .from = backup_dir(arena, dir),
                        .data = cli->data_dir,
                        .stage = arena_printf(arena, "%s/" STAGE_DIR, cli->data_dir),
                        .state = arena_printf(arena, "%s/" STATE_FILE, cli->data_dir)};
    bool resumed, kept;
    err_t err = restore(&self, &resumed);
    restore_unlock(&self);
    if (err_is(err))
        return cli_fail(err);
    const char *aside = arena_printf(arena, "%s/%s", self.data, self.aside);
    kept = files_kind(aside) == FILES_DIR;
    buf_t out;
    buf_open(&out, arena);
    mp_put_map(&out, kept ? 3 : 2);
    mp_put_str(&out, "restored");
    mp_put_str(&out, self.data);
    mp_put_str(&out, "resumed");
    mp_put_bool(&out, resumed);
    if (kept) {
        mp_put_str(&out, "before");
        mp_put_str(&out, aside);
    }
    cli_print(cli,
              arena_printf(arena, "%s is as it was in the backup%s%s%s", self.data,
                           resumed ? " (an interrupted restore was finished)" : "",
                           kept ? "; what was there before is in " : "", kept ? aside : ""),
              buf_bytes(&out));
    return EXIT_DONE;
}
