#include "actors/cli/tenant.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/cli/backup.h"
#include "actors/cli/restore_parts.h"
#include "bus/digest.h"

enum { TOKEN_BYTES = 24, STATE_BYTES = 256 };

/* ---- What is whose ---- */

static bool is_default(const cli_t *cli, const char *company)
{
    return !strcmp(company, cli->company ? cli->company : "default");
}

static bool is_one_of(const char *text, size_t size, const char *const *names)
{
    for (; *names; names++)
        if (strlen(*names) == size && !strncmp(*names, text, size))
            return true;
    return false;
}

/* Folders in which each company has one. */
static bool is_shared(const cli_t *cli, const char *name)
{
    static const char *const others[] = {"metrics", "work", NULL};
    const cli_actor_t *actor = cli_find_actor(cli, name);
    return (actor && actor->def->tables) || is_one_of(name, strlen(name), others);
}

tenant_part_t tenant_part(const cli_t *cli, const char *company, const char *path,
                          files_kind_t kind)
{
    static const char *const at_top[] = {"sops", "souls", "hr", NULL};
    size_t size = strcspn(path, "/");
    const char *second = path[size] ? path + size + 1 : NULL;
    const char *first = arena_strndup(cli->arena, path, size);
    if (is_one_of(first, size, at_top))
        return is_default(cli, company) ? TENANT_OWN : TENANT_NOT;
    if (!is_shared(cli, first))
        return TENANT_NOT;
    if (!second)
        return kind == FILES_DIR ? TENANT_WAY : TENANT_NOT;
    size = strcspn(second, "/");
    if (strlen(company) == size && !strncmp(company, second, size))
        return TENANT_OWN;
    return !strcmp(first, "metrics") && kind == FILES_PLAIN && !second[size] &&
                   is_default(cli, company)
               ? TENANT_OWN
               : TENANT_NOT;
}

typedef struct parts {
    const cli_t *cli;
    const char *company;
    const char *paths[1024]; /* metrics of the default company are a file a day */
    size_t count, more;
} parts_t;

static bool add_part(void *ctx, const char *path, files_kind_t kind)
{
    parts_t *self = ctx;
    tenant_part_t part = tenant_part(self->cli, self->company, path, kind);
    if (part == TENANT_OWN && self->count == sizeof(self->paths) / sizeof(*self->paths))
        self->more++;
    else if (part == TENANT_OWN)
        self->paths[self->count++] = arena_strdup(self->cli->arena, path);
    return part == TENANT_WAY;
}

err_t tenant_parts(cli_t *cli, const char *root, const char *company, strs_t *out)
{
    parts_t *parts = ARENA_NEW(cli->arena, parts_t);
    parts->cli = cli;
    parts->company = company;
    *out = (strs_t){0};
    if (files_kind(root) != FILES_DIR)
        return err_ok();
    err_t err = files_walk(cli->arena, root, add_part, parts);
    *out = (strs_t){parts->paths, parts->count};
    return err;
}

/* ---- The step log ---- */

static bool is_line_of(const char *line, const char *mine)
{
    return strstr(line, mine) != NULL; /* a quote within a value has a backslash before it */
}

static const char *mark_of(arena_t *arena, const char *company)
{
    return arena_printf(arena, ",\"company\":\"%s\",", company);
}

bool tenant_in_log(arena_t *arena, const char *log, const char *company)
{
    const char *mine = mark_of(arena, company);
    FILE *file = fopen(log, "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (file && !found && getline(&line, &room, file) > 0)
        found = is_line_of(line, mine);
    free(line);
    if (file)
        fclose(file);
    return found;
}

err_t tenant_copy_log(arena_t *arena, const char *from, const char *to, const char *company,
                      bool own)
{
    const char *mine = mark_of(arena, company);
    char *line = NULL;
    size_t room = 0;
    bool fine = true;
    FILE *in = fopen(from, "re"), *out = NULL;
    if (!in && errno == ENOENT)
        return err_ok();
    int fd = in ? open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640) : -1;
    if (fd >= 0 && !(out = fdopen(fd, "a")))
        close(fd);
    fine = out != NULL;
    while (fine && getline(&line, &room, in) > 0)
        if (is_line_of(line, mine) == own)
            fine = fputs(line, out) >= 0;
    fine = fine && !ferror(in) && !fflush(out) && !fsync(fd);
    int code = errno;
    free(line);
    if (in)
        fclose(in);
    if (out && fclose(out) && fine) {
        code = errno;
        fine = false;
    }
    return fine ? err_ok()
                : err_make(arena, code == ENOSPC ? ERR_FULL : ERR_IO, "cannot copy lines of %s: %s",
                           from, strerror(code));
}

/* ---- What is under way ---- */

const char *tenant_state(cli_t *cli)
{
    const char *text;
    size_t size;
    const char *path = arena_printf(cli->arena, "%s/" TENANT_FILE, cli->data_dir);
    if (err_is(restore_text(cli->arena, path, STATE_BYTES, &text, &size)))
        return "";
    return arena_strndup(cli->arena, text, strcspn(text, "\n"));
}

err_t tenant_set_state(cli_t *cli, const char *word, const char *company)
{
    arena_t *arena = cli->arena;
    const char *path = arena_printf(arena, "%s/" TENANT_FILE, cli->data_dir);
    const char *text = arena_printf(arena, "%s %s\n", word ? word : "", company);
    if (!word)
        return unlink(path) && errno != ENOENT
                   ? err_make(arena, ERR_IO, "cannot remove %s: %s", path, strerror(errno))
                   : files_sync_dir(arena, cli->data_dir);
    err_t err = files_write(arena, path, text, strlen(text));
    return err_is(err) ? err : files_sync_dir(arena, cli->data_dir);
}

err_t tenant_put_log(cli_t *cli, const char *own, const char *company)
{
    arena_t *arena = cli->arena;
    const char *log = arena_printf(arena, "%s/" STEP_LOG, cli->data_dir);
    const char *fresh = arena_printf(arena, "%s.new", log);
    if (!tenant_in_log(arena, log, company) && (!own || !tenant_in_log(arena, own, company)))
        return err_ok();
    unlink(fresh);
    err_t err = tenant_copy_log(arena, log, fresh, company, false);
    if (!err_is(err) && own)
        err = tenant_copy_log(arena, own, fresh, company, true);
    if (!err_is(err) && rename(fresh, log))
        err = err_make(arena, ERR_IO, "cannot replace %s: %s", log, strerror(errno));
    return err_is(err) ? err : files_sync_dir(arena, cli->data_dir);
}

/* ---- erase ---- */

typedef struct sum {
    arena_t *arena;
    const char *root;
    int64_t files, bytes;
} sum_t;

static bool add_file(void *ctx, const char *path, files_kind_t kind)
{
    sum_t *self = ctx;
    struct stat info;
    if (kind == FILES_PLAIN &&
        !lstat(arena_printf(self->arena, "%s/%s", self->root, path), &info)) {
        self->files++;
        self->bytes += info.st_size;
    }
    return kind == FILES_DIR;
}

static sum_t sum_of(arena_t *arena, const char *path)
{
    sum_t sum = {.arena = arena, .root = path};
    struct stat info;
    if (files_kind(path) == FILES_DIR) {
        (void)files_walk(arena, path, add_file, &sum);
    } else if (!lstat(path, &info)) {
        sum.files = 1;
        sum.bytes = info.st_size;
    }
    return sum;
}

static void say_part(const cli_t *cli, const char *path, sum_t sum)
{
    if (!cli->json)
        printf("  %-32s %lld %s, %lld KiB\n", path, (long long)sum.files,
               sum.files == 1 ? "file" : "files", (long long)((sum.bytes + 1023) / 1024));
}

static err_t remove_parts(cli_t *cli, const char *company, strs_t parts, sum_t *all)
{
    arena_t *arena = cli->arena;
    err_t err = err_ok();
    for (size_t i = 0; i < parts.count && !err_is(err); i++) {
        const char *path = arena_printf(arena, "%s/%s", cli->data_dir, parts.items[i]);
        sum_t sum = sum_of(arena, path);
        err = files_remove(arena, path);
        if (!err_is(err))
            err = files_sync_dir(arena, files_parent(arena, path));
        if (err_is(err))
            break;
        say_part(cli, parts.items[i], sum);
        all->files += sum.files;
        all->bytes += sum.bytes;
    }
    if (!err_is(err))
        err = files_remove(arena, arena_printf(arena, "%s/" STAGE_DIR, cli->data_dir));
    return err_is(err) ? err : tenant_put_log(cli, NULL, company);
}

/* What this machine cannot remove. */
static void say_what_stays(cli_t *cli, const char *company)
{
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        if (at->def->tables && cli_is_away(cli, at->def->name))
            fprintf(stderr,
                    "agency: %s is on another machine: erase %s there as well, with %s stopped\n",
                    at->def->name, company, at->def->name);
}

static void print_erased(cli_t *cli, const char *company, const sum_t *all)
{
    buf_t out;
    buf_open(&out, cli->arena);
    mp_put_map(&out, 3);
    mp_put_str(&out, "erased");
    mp_put_str(&out, company);
    mp_put_str(&out, "files");
    mp_put_int(&out, all->files);
    mp_put_str(&out, "bytes");
    mp_put_int(&out, all->bytes);
    cli_print(cli,
              arena_printf(cli->arena,
                           "%s is erased. Not touched: tokens that name it, backups, exports and "
                           "before-restore-… folders, logs of the processes",
                           company),
              buf_bytes(&out));
}

static err_t may_erase(cli_t *cli, const char *company, strs_t *parts)
{
    arena_t *arena = cli->arena;
    const char *state = tenant_state(cli), *space = strchr(state, ' ');
    bool resumed = space && !strcmp(space + 1, company);
    err_t err = resumed ? err_ok() : cli_check_restored(cli);
    if (!err_is(err))
        err = tenant_parts(cli, cli->data_dir, company, parts);
    if (!err_is(err) && !parts->count && !resumed &&
        !tenant_in_log(arena, arena_printf(arena, "%s/" STEP_LOG, cli->data_dir), company))
        err = err_make(arena, ERR_NOT_FOUND, "there is nothing of a company '%s' in %s", company,
                       cli->data_dir);
    return err;
}

static int erase(cli_t *cli, const char *company)
{
    restoring_t house = {.cli = cli, .data = cli->data_dir};
    strs_t parts = {0};
    sum_t all = {0};
    err_t err = may_erase(cli, company, &parts);
    if (!err_is(err) && !cli->yes) {
        printf("Of %s there is in %s:\n", company, cli->data_dir);
        for (size_t i = 0; i < parts.count; i++)
            say_part(cli, parts.items[i],
                     sum_of(cli->arena,
                            arena_printf(cli->arena, "%s/%s", cli->data_dir, parts.items[i])));
        return cli_usage("nothing was erased: add --yes to erase all of it for ever, or export it "
                         "first (agency tenant export %s DIR)",
                         company);
    }
    if (!err_is(err))
        err = restore_lock(&house);
    if (!err_is(err))
        err = tenant_set_state(cli, "erase", company);
    /* More than fit on the list: once more. */
    for (; !err_is(err) && parts.count;) {
        err = remove_parts(cli, company, parts, &all);
        if (!err_is(err))
            err = tenant_parts(cli, cli->data_dir, company, &parts);
    }
    if (!err_is(err))
        err = remove_parts(cli, company, (strs_t){0}, &all);
    if (!err_is(err))
        err = tenant_set_state(cli, NULL, company);
    restore_unlock(&house);
    if (err_is(err))
        return cli_fail(err);
    print_erased(cli, company, &all);
    say_what_stays(cli, company);
    return EXIT_DONE;
}

/* ---- create ---- */

static err_t add_line(cli_t *cli, const char *line)
{
    char last = '\n';
    int fd = open(cli->tokens, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    if (size > 0 && pread(fd, &last, 1, size - 1) != 1)
        size = -1;
    const char *text = arena_printf(cli->arena, "%s%s\n", last == '\n' ? "" : "\n", line);
    bool fine = size >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !fsync(fd);
    int code = errno;
    if (fd >= 0)
        close(fd);
    return fine ? err_ok()
                : err_make(cli->arena, ERR_IO, "cannot add to %s: %s", cli->tokens, strerror(code));
}

static void put_pair(buf_t *out, const char *key, const char *value)
{
    mp_put_str(out, key);
    mp_put_str(out, value);
}

static int print_token(cli_t *cli, const char *company)
{
    uint8_t random[TOKEN_BYTES];
    buf_t token, out;
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return cli_fail(err_of(ERR_IO, "there is no randomness"));
    buf_open(&token, cli->arena);
    for (int i = 0; i < TOKEN_BYTES; i++)
        buf_printf(&token, "%02x", random[i]);
    const char *line = arena_printf(cli->arena, "sha256:%s companies=%s role=admin name=%s",
                                    digest_hex(cli->arena, buf_bytes(&token)), company, company);
    err_t err = cli->tokens ? add_line(cli, line) : err_ok();
    if (err_is(err))
        return cli_fail(err);
    buf_open(&out, cli->arena);
    mp_put_map(&out, 3);
    put_pair(&out, "created", company);
    put_pair(&out, "token", token.data);
    put_pair(&out, "line", line);
    cli_print(
        cli,
        arena_printf(cli->arena,
                     "%s is made; what it keeps comes into being with its first write.\n"
                     "Bearer token, shown only now: %s\n"
                     "%s%s:\n%s",
                     company, token.data,
                     cli->tokens ? "Its line was added to " : "Its line for the file of --tokens",
                     cli->tokens ? cli->tokens : "", line),
        buf_bytes(&out));
    return EXIT_DONE;
}

static int create(cli_t *cli, const char *company)
{
    strs_t parts;
    arena_t *arena = cli->arena;
    err_t err = cli_check_restored(cli);
    if (!err_is(err))
        err = tenant_parts(cli, cli->data_dir, company, &parts);
    if (!err_is(err) && parts.count)
        err = err_make(arena, ERR_EXISTS, "there is a company '%s' already, e.g. in %s/%s", company,
                       cli->data_dir, parts.items[0]);
    if (!err_is(err)) /* for procedures; the default company has them at the top */
        err = files_make_dir(arena,
                             is_default(cli, company)
                                 ? arena_printf(arena, "%s/sops", cli->data_dir)
                                 : arena_printf(arena, "%s/agent/%s/sops", cli->data_dir, company));
    return err_is(err) ? cli_fail(err) : print_token(cli, company);
}

/* ---- export ---- */

static int export_it(cli_t *cli, const char *company, const char *dir)
{
    strs_t parts;
    arena_t *arena = cli->arena;
    err_t err = cli_check_restored(cli);
    if (!err_is(err))
        err = tenant_parts(cli, cli->data_dir, company, &parts);
    if (!err_is(err) && !parts.count)
        err = err_make(arena, ERR_NOT_FOUND, "there is nothing of a company '%s' in %s", company,
                       cli->data_dir);
    return err_is(err) ? cli_fail(err) : backup_company(cli, dir, company);
}

int cli_tenant(cli_t *cli)
{
    const char *word = cli->count ? cli->words[0] : "";
    bool out = !strcmp(word, "export"), in = !strcmp(word, "import"), gone = !strcmp(word, "erase");
    bool made = !strcmp(word, "create");
    if (cli->yes && !gone)
        return cli_usage("--yes is for tenant erase");
    if (!out && !in && !gone && !made)
        return cli_usage("agency tenant create NAME, export NAME DIR, import DIR or erase NAME "
                         "--yes");
    if (cli->count != (out ? 3 : 2))
        return cli_usage(out  ? "say whose and where: agency tenant export NAME DIR"
                         : in ? "say from where: agency tenant import DIR"
                              : "say which company: agency tenant %s NAME",
                         word);
    if (cli->read_only && !out)
        return cli_usage("tenant %s writes, and --read-only was given", word);
    if (in)
        return tenant_import(cli, cli->words[1]);
    const char *company = cli->words[1];
    if (!frame_company_name(company))
        return cli_usage("'%.64s' is no company name: use 1 to 64 letters, digits, '-' or '_', "
                         "beginning with a letter or digit",
                         company);
    return out    ? export_it(cli, company, cli->words[2])
           : gone ? erase(cli, company)
                  : create(cli, company);
}
