/* import: brings over an `.agent` folder of the earlier system through the tools of the pillars. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/cli/cli.h"
#include "actors/cli/files.h"
#include "actors/cli/import_read.h"
#include "bus/client.h"

enum { IMPORT_DEEPEST = 16, IMPORT_FILE_LARGEST = 64 << 20 };

typedef enum import_count {
    COUNT_MEMORIES = IMPORT_MEMORY,
    COUNT_NODES = IMPORT_NODE,
    COUNT_EDGES = IMPORT_EDGE,
    COUNT_PROPOSALS = IMPORT_PROPOSAL,
    COUNT_PROCEDURES,
    COUNT_SOULS,
    COUNT_METRICS,
    COUNTS
} import_count_t;

static const char *const count_names[COUNTS] = {"memories",   "nodes", "edges",  "proposals",
                                                "procedures", "souls", "metrics"};

typedef struct import {
    cli_t *cli;
    client_t *client; /* NULL in a dry run */
    const char *root;
    arena_t *arena; /* of one file */
    arena_t *call;  /* of one call */
    size_t brought[COUNTS], already[COUNTS], left;
    const char *wait[2]; /* folders that are read last */
    size_t wait_count;
    bool last;
    bool tty;
    buf_t left_rows; /* msgpack {file, where, why}, as long as the command */
    err_t broken;    /* nobody answers: no use going on */
} import_t;

static void leave(import_t *self, const char *file, const char *where, const char *why)
{
    if (!self->cli->json)
        fprintf(stderr, "left: %s%s%s: %s\n", file, *where ? ": " : "", where, why);
    mp_put_map(&self->left_rows, 3);
    mp_put_str(&self->left_rows, "file");
    mp_put_str(&self->left_rows, file);
    mp_put_str(&self->left_rows, "where");
    mp_put_str(&self->left_rows, where);
    mp_put_str(&self->left_rows, "why");
    mp_put_str(&self->left_rows, why);
    self->left++;
}

static client_reply_t ask_once(import_t *self, const char *peer, const char *method,
                               const char *company, bytes_t args, const char *key)
{
    client_call_t call = {.peer = peer,
                          .method = method,
                          .company = company ? company : self->cli->company,
                          .principal = "import", /* so that a person may approve its proposals */
                          .role = ROLE_ADMIN,
                          .key = key,
                          .args = args,
                          .timeout_ms = self->cli->timeout_ms};
    client_reply_t reply = client_call(self->client, self->call, &call);
    if (reply.err.code == ERR_UNAVAILABLE || reply.err.code == ERR_TIMEOUT)
        self->broken = err_make(self->cli->arena, reply.err.code,
                                "%s does not answer (%s); run the same command again, it goes on "
                                "where it stopped",
                                peer, err_what(reply.err));
    return reply;
}

static client_reply_t ask(import_t *self, const char *peer, const char *method, const char *company,
                          bytes_t args)
{
    return ask_once(self, peer, method, company, args, NULL);
}

static void progress(import_t *self, const char *file, size_t done, size_t all)
{
    if (self->tty && (done % 100 == 0 || done == all))
        fprintf(stderr, "\r%s: %zu of %zu%s", file, done, all, done == all ? "\n" : "");
}

/* ---- What the readers found ---- */

/* A company that nobody has written to yet is not there for reads. */
static bool is_absent(err_t err)
{
    return err.code == ERR_NOT_FOUND || err.code == ERR_COMPANY;
}

/* A memory that is there already is left as it is: it may have been changed since. */
static err_t look_up(import_t *self, const char *company, const import_item_t *item)
{
    buf_t args;
    bytes_t owner;
    bool owned = mp_get(item->args, "company", &owner);
    buf_open(&args, self->call);
    mp_put_map(&args, owned ? 2 : 1);
    mp_put_str(&args, "id");
    mp_put_str(&args, item->id);
    if (owned) {
        mp_put_str(&args, "company");
        mp_put_raw(&args, owner);
    }
    return ask(self, "brain", "brain_get", company, buf_bytes(&args)).err;
}

/* Before its memory, which says that this was done; a repetition meanwhile has the same key. */
static void propose_anew(import_t *self, const char *file, const char *company,
                         const import_item_t *item)
{
    client_reply_t reply = ask_once(self, "agent", item->tool, company, item->propose,
                                    arena_printf(self->call, "import/%.100s", item->id));
    if (err_is(reply.err) && !err_is(self->broken))
        leave(self, file, item->where,
              arena_printf(self->arena,
                           "it cannot be proposed anew: %s; it is kept as a memory of type "
                           "hr_proposal",
                           err_what(reply.err)));
}

static void bring(import_t *self, const char *file, const char *company, const import_item_t *item)
{
    if (!self->client) {
        self->brought[item->kind]++;
        return;
    }
    arena_reset(self->call);
    if (item->id) {
        err_t there = look_up(self, company, item);
        if (err_is(self->broken))
            return;
        if (!err_is(there))
            self->already[item->kind]++;
        else if (!is_absent(there))
            leave(self, file, item->where, err_what(there));
        if (!is_absent(there))
            return;
    }
    if (item->tool)
        propose_anew(self, file, company, item);
    if (err_is(self->broken))
        return;
    const char *tool = item->id ? "brain_store" : "brain_update_graph";
    client_reply_t reply = ask(self, "brain", tool, company, item->args);
    if (err_is(self->broken))
        return;
    if (err_is(reply.err))
        leave(self, file, item->where, err_what(reply.err));
    else
        self->brought[item->kind]++;
}

static void finish_file(import_t *self, const char *file, const import_read_t *read)
{
    const import_problem_t *problems = import_problems(read);
    const import_item_t *items = import_items(read);
    for (size_t i = 0; i < read->problem_count; i++)
        leave(self, file, problems[i].where, problems[i].why);
    for (size_t i = 0; i < read->item_count && !err_is(self->broken); i++) {
        bring(self, file, read->company, &items[i]);
        progress(self, file, i + 1, read->item_count);
    }
}

/* ---- Procedures ---- */

static void bring_procedure(import_t *self, const char *file, const char *text, size_t size)
{
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    const char *name = arena_strndup(self->arena, base, strlen(base) - 3);
    if (strlen(text) != size || !mp_utf8(text, size)) {
        leave(self, file, "", "a procedure must be UTF-8 text");
        return;
    }
    if (!self->client) {
        self->brought[COUNT_PROCEDURES]++;
        return;
    }
    buf_t args;
    bytes_t content;
    arena_reset(self->call);
    buf_open(&args, self->call);
    mp_put_map(&args, 1);
    mp_put_str(&args, "name");
    mp_put_str(&args, name);
    client_reply_t reply = ask(self, "brain", "brain_get_sop", NULL, buf_bytes(&args));
    if (err_is(self->broken))
        return;
    if (!err_is(reply.err)) {
        if (mp_get(reply.body, "content", &content) && mp_equals(content, text))
            self->already[COUNT_PROCEDURES]++;
        else
            leave(self, file, "", "another procedure of that name is there; it was left alone");
        return;
    }
    if (!is_absent(reply.err)) {
        leave(self, file, "", err_what(reply.err));
        return;
    }
    buf_open(&args, self->call);
    mp_put_map(&args, 2);
    mp_put_str(&args, "name");
    mp_put_str(&args, name);
    mp_put_str(&args, "content");
    mp_put_str(&args, text);
    reply = ask(self, "agent", "sop_create", NULL, buf_bytes(&args));
    if (err_is(self->broken))
        return;
    if (err_is(reply.err))
        leave(self, file, "", err_what(reply.err));
    else
        self->brought[COUNT_PROCEDURES]++;
}

/* ---- Metrics ---- */

static bool read_whole(arena_t *arena, const char *path, const char **text, size_t *size)
{
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool ok = fd >= 0 && !fstat(fd, &stat) && S_ISREG(stat.st_mode);
    if (ok && stat.st_size > IMPORT_FILE_LARGEST) {
        errno = EFBIG;
        ok = false;
    }
    char *data = ok ? arena_alloc(arena, (size_t)stat.st_size + 1) : NULL;
    size_t have = 0;
    while (ok && have < (size_t)stat.st_size) {
        ssize_t got = read(fd, data + have, (size_t)stat.st_size - have);
        if (got < 0 && errno != EINTR)
            ok = false;
        else if (got == 0)
            break;
        else if (got > 0)
            have += (size_t)got;
    }
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    if (ok)
        data[have] = '\0';
    *text = data;
    *size = have;
    return ok;
}

static bool write_all(int fd, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t put = write(fd, data + done, size - done);
        if (put < 0 && errno != EINTR)
            return false;
        done += put > 0 ? (size_t)put : 0;
    }
    return !fsync(fd);
}

/* The file appears whole or not at all, and never over one that is there: link refuses that. What
 * a killed import left under the hidden name is written anew; the lock keeps two apart. */
static bool put_file(import_t *self, const char *dir, const char *path, const buf_t *out)
{
    const char *hidden = arena_printf(self->arena, "%s/.import", dir);
    int fd = open(hidden, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !ftruncate(fd, 0) &&
              write_all(fd, out->data, out->size) && !link(hidden, path) && !unlink(hidden);
    int error = errno;
    if (fd >= 0)
        close(fd);
    fd = ok ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        ok = !fsync(fd);
        error = errno;
        close(fd);
    }
    errno = error;
    return ok;
}

static const char *metrics_dir(import_t *self)
{
    const char *company = self->cli->company, *data = self->cli->data_dir;
    const char *dir = arena_printf(self->arena, "%s/metrics", data);
    mkdir(dir, 0700);
    if (!company || !strcmp(company, "default"))
        return dir;
    dir = arena_printf(self->arena, "%s/%s", dir, company);
    mkdir(dir, 0700);
    return dir;
}

/* A soul is a file that the agent takes up as it is. */
static void bring_soul(import_t *self, const char *file, const char *text, size_t size)
{
    const char *company = self->cli->company, *data = self->cli->data_dir, *there;
    const char *dir = !company || !strcmp(company, "default")
                          ? arena_printf(self->arena, "%s/souls", data)
                          : arena_printf(self->arena, "%s/agent/%s/souls", data, company);
    const char *name = strrchr(file, '/') + 1;
    size_t there_size;
    buf_t out;
    if (!frame_company_name(arena_strndup(self->arena, name, strlen(name) - 3)) ||
        strlen(text) != size || !mp_utf8(text, size)) {
        leave(self, file, "", "a soul must be UTF-8 text under a name of letters, digits, - and _");
        return;
    }
    if (!self->client) {
        self->brought[COUNT_SOULS]++;
        return;
    }
    buf_open(&out, self->arena);
    buf_put(&out, text, size);
    err_t err = files_make_dir(self->arena, dir);
    const char *path = arena_printf(self->arena, "%s/%s", dir, name);
    if (!err_is(err) && put_file(self, dir, path, &out)) {
        self->brought[COUNT_SOULS]++;
        return;
    }
    if (!err_is(err) && errno == EEXIST && read_whole(self->arena, path, &there, &there_size) &&
        there_size == size && !memcmp(there, text, size))
        self->already[COUNT_SOULS]++;
    else
        leave(self, file, "",
              err_is(err) ? err_what(err)
                          : arena_printf(self->arena,
                                         "%s is another one, or cannot be written; it "
                                         "was left alone",
                                         path));
}

static void bring_metrics(import_t *self, const char *file, const char *text, size_t size)
{
    import_read_t read;
    buf_t out;
    import_read_open(&read, self->arena, NULL);
    buf_open(&out, self->arena);
    size_t count = import_metric_lines(&read, text, size, &out), there_size;
    finish_file(self, file, &read);
    if (!self->client || !count) {
        self->brought[COUNT_METRICS] += count;
        return;
    }
    const char *dir = metrics_dir(self), *there;
    const char *path = arena_printf(self->arena, "%s/%s", dir, strrchr(file, '/') + 1);
    if (put_file(self, dir, path, &out)) {
        self->brought[COUNT_METRICS] += count;
        return;
    }
    int error = errno;
    if (error == EEXIST && read_whole(self->arena, path, &there, &there_size) &&
        there_size >= out.size && !memcmp(there, out.data, out.size))
        self->already[COUNT_METRICS] += count;
    else
        leave(self, file, "",
              error == EEXIST
                  ? arena_printf(self->arena, "%s has other lines; it was left alone", path)
                  : arena_printf(self->arena, "cannot write %s: %s", path, strerror(error)));
}

/* ---- Files ---- */

static bool ends(const char *text, const char *end)
{
    size_t size = strlen(text), tail = strlen(end);
    return size > tail && !strcmp(text + size - tail, end);
}

static bool begins(const char *text, const char *start)
{
    return !strncmp(text, start, strlen(start));
}

/* Of brain/COMPANY/…; NULL when the path names none. */
static const char *company_of(import_t *self, const char *file)
{
    const char *name = begins(file, "brain/") ? file + 6 : "";
    const char *slash = strchr(name, '/');
    return slash ? arena_strndup(self->arena, name, (size_t)(slash - name)) : NULL;
}

static bool day_file(const char *name)
{
    static const char form[] = "dddd-dd-dd.ndjson";
    for (size_t i = 0; i < sizeof(form); i++)
        if (i < 10 && form[i] == 'd' ? name[i] < '0' || name[i] > '9' : name[i] != form[i])
            return false;
    return true;
}

static const char *unknown_reason(const char *file)
{
    if (ends(file, ".approved"))
        return "an approval made by hand; approve the proposal again (proposal_approve)";
    if (!strcmp(file, "scheduler.json") || !strcmp(file, "mcp.json"))
        return "settings of the earlier system; add its schedules with schedule_add";
    if (!strcmp(file, "scheduler_state.json"))
        return "work that was going on when the earlier system stopped; begin it again";
    if (begins(file, "logs/") || ends(file, ".log") || !strcmp(file, "brain/sop_logs.json"))
        return "a log; nothing here reads it, keep the old folder if you need it";
    if (strstr(file, "episodic/") || strstr(file, ".lance"))
        return "a LanceDB table, which is not read; write its rows as JSON lines to "
               "brain/COMPANY/episodes.jsonl and import again";
    return "not one of the kinds of files that are known";
}

static void bring_file(import_t *self, const char *file, const char *text, size_t size)
{
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    bool memories = begins(base, "episod") || begins(base, "memor");
    import_read_t read;
    import_read_open(&read, self->arena, company_of(self, file));
    if (read.company && !frame_company_name(read.company))
        leave(self, file, "", "its folder is no name that a company can have");
    else if (begins(file, "sops/") && ends(file, ".md"))
        bring_procedure(self, file, text, size);
    else if (begins(file, "souls/") && ends(file, ".md"))
        bring_soul(self, file, text, size);
    else if ((begins(file, "hr/proposals/") || begins(file, "hr_proposals/")) &&
             ends(base, ".json")) {
        import_proposal(&read, text, size);
        finish_file(self, file, &read);
    } else if (!strcmp(base, "graph.json")) {
        import_graph(&read, text, size);
        finish_file(self, file, &read);
    } else if (memories && (ends(base, ".jsonl") || ends(base, ".ndjson"))) {
        import_memory_lines(&read, text, size);
        finish_file(self, file, &read);
    } else if (memories && ends(base, ".json")) {
        import_memories(&read, text, size);
        finish_file(self, file, &read);
    } else if (begins(file, "ghost_logs/") && ends(base, ".json")) {
        import_ghost_log(&read, text, size);
        finish_file(self, file, &read);
    } else if (begins(file, "metrics/") && day_file(file + 8))
        bring_metrics(self, file, text, size);
    else
        leave(self, file, "", unknown_reason(file));
}

static void visit(import_t *self, const char *file);

static void visit_dir(import_t *self, const char *dir, int depth)
{
    struct dirent **entries;
    int count = scandir(arena_printf(self->cli->arena, "%s/%s", self->root, dir), &entries, NULL,
                        alphasort);
    if (count < 0) {
        leave(self, dir, "", strerror(errno));
        return;
    }
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !err_is(self->broken)) {
            const char *path = arena_printf(self->cli->arena, "%s%s%s", dir, *dir ? "/" : "", name);
            struct stat stat;
            const char *full = arena_printf(self->cli->arena, "%s/%s", self->root, path);
            if (!*dir && (!strcmp(name, "hr") || !strcmp(name, "hr_proposals")) && !self->last)
                self->wait[self->wait_count++] = path; /* behind the procedures they change */
            else if (lstat(full, &stat))
                leave(self, path, "", strerror(errno));
            else if (S_ISDIR(stat.st_mode) && (!strcmp(name, "episodic") || ends(name, ".lance")))
                leave(self, path, "", unknown_reason("episodic/")); /* thousands of fragments */
            else if (S_ISDIR(stat.st_mode) && depth < IMPORT_DEEPEST)
                visit_dir(self, path, depth + 1);
            else if (S_ISREG(stat.st_mode))
                visit(self, path);
            else
                leave(self, path, "", S_ISDIR(stat.st_mode) ? "nested too deep" : "no plain file");
        }
        free(entries[i]);
    }
    free(entries);
}

static void visit(import_t *self, const char *file)
{
    const char *text;
    size_t size;
    arena_reset(self->arena);
    if (read_whole(self->arena, arena_printf(self->arena, "%s/%s", self->root, file), &text, &size))
        bring_file(self, file, text, size);
    else
        leave(self, file, "",
              errno == EFBIG ? "larger than 64 MiB; cut it into smaller ones" : strerror(errno));
}

/* ---- The command ---- */

static void put_counts(buf_t *out, const char *name, const size_t counts[COUNTS])
{
    mp_put_str(out, name);
    mp_put_map(out, COUNTS);
    for (int i = 0; i < COUNTS; i++) {
        mp_put_str(out, count_names[i]);
        mp_put_int(out, (int64_t)counts[i]);
    }
}

static void print_summary(import_t *self)
{
    buf_t out;
    buf_open(&out, self->cli->arena);
    mp_put_map(&out, 4);
    mp_put_str(&out, "dry_run");
    mp_put_bool(&out, !self->client);
    put_counts(&out, "brought", self->brought);
    put_counts(&out, "already", self->already);
    mp_put_str(&out, "left");
    mp_put_array(&out, (uint32_t)self->left);
    buf_put(&out, self->left_rows.data, self->left_rows.size);
    buf_t text;
    buf_open(&text, self->cli->arena);
    for (int i = 0; i < COUNTS; i++)
        buf_printf(&text, "%-11s %zu %s, %zu already there\n", count_names[i], self->brought[i],
                   self->client ? "brought over" : "to bring over", self->already[i]);
    buf_printf(&text, "%-11s %zu not brought over, or not wholly", "left", self->left);
    cli_print(self->cli, text.data, buf_bytes(&out));
}

/* The folder itself must not be what we write to: its files would be read while they change. */
static err_t check_folder(cli_t *cli, const char *dir)
{
    char folder[PATH_MAX], data[PATH_MAX];
    struct stat stat_of;
    if (!realpath(dir, folder) || stat(folder, &stat_of))
        return err_make(cli->arena, ERR_ARGUMENT, "cannot read %s: %s", dir, strerror(errno));
    if (!S_ISDIR(stat_of.st_mode))
        return err_make(cli->arena, ERR_ARGUMENT, "%s is no folder", dir);
    if (realpath(cli->data_dir, data) && !strcmp(folder, data))
        return err_make(cli->arena, ERR_ARGUMENT,
                        "%s is the data directory itself; move the old folder elsewhere, or give "
                        "another --data",
                        dir);
    return err_ok();
}

int cli_import(cli_t *cli)
{
    if (cli->count != 1)
        return cli_usage("say which folder: agency import DIR");
    if (cli->read_only && !cli->dry_run)
        return cli_usage("import writes, and --read-only was given; try --dry-run");
    import_t self = {.cli = cli, .root = cli->words[0], .tty = isatty(STDERR_FILENO)};
    err_t err = check_folder(cli, self.root);
    if (!err_is(err) && !cli->dry_run)
        err = cli_client(cli, &self.client);
    if (err_is(err))
        return cli_fail(err);
    self.arena = arena_new();
    self.call = arena_new();
    buf_open(&self.left_rows, cli->arena);
    visit_dir(&self, "", 0);
    self.last = true;
    for (size_t i = 0; i < self.wait_count && !err_is(self.broken); i++)
        visit_dir(&self, self.wait[i], 1);
    print_summary(&self);
    if (self.client)
        client_close(&self.client);
    arena_destroy(&self.arena);
    arena_destroy(&self.call);
    if (err_is(self.broken))
        return cli_fail(self.broken);
    return self.left ? EXIT_REFUSED : EXIT_DONE;
}
