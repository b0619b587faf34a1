/* transfer: `agency brain export FILE` and `agency brain import FILE`: a company's memory as a file
 * of JSON lines, a page at a time. Either may be killed at any time and goes on where it stopped
 * when it is run again: how far it is stands in FILE.progress, written after what it speaks of. */
#include "actors/cli/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* PAGE_BYTES and one line more fit into a call of brain_import. */
enum { PAGE_LINES = 500, PAGE_BYTES = 1 << 20, LINE_MOST = 7 << 20, CURSOR = 1300, COMPANY = 80 };

/* What FILE.progress says, one word a line. */
typedef struct mark {
    int64_t bytes, lines;  /* of the file: done */
    int64_t size, mtime;   /* import: the file they were counted in; export: 0 */
    char cursor[CURSOR];   /* export: the next page, "-" at the end */
    char company[COMPANY]; /* whose memory it is */
} mark_t;

typedef struct transfer {
    cli_t *cli;
    client_t *client;
    const char *path, *progress;
    bool stream;   /* standard input or output: nowhere to go on from */
    arena_t *page; /* of one call */
    mark_t at;
    int64_t faults;
} transfer_t;

static err_t broken(transfer_t *self, const char *path, const char *what)
{
    return err_make(self->cli->arena, ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* ---- the place ---- */

/* One of another company was left behind by another command: it is no place to go on from. */
static const char *company_of(const transfer_t *self)
{
    return self->cli->company ? self->cli->company : "default";
}

static bool read_mark(transfer_t *self)
{
    mark_t at;
    FILE *file = fopen(self->progress, "r");

    if (!file)
        return false;
    int got = fscanf(file, "%" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %1200s %79s", &at.bytes,
                     &at.lines, &at.size, &at.mtime, at.cursor, at.company);
    fclose(file);
    if (got != 6 || at.bytes < 0 || at.lines < 0 || strcmp(at.company, company_of(self)) != 0)
        return false;
    self->at = at;
    return true;
}

static err_t write_mark(transfer_t *self)
{
    if (self->stream)
        return err_ok();
    const char *fresh = arena_printf(self->page, "%s.new", self->progress);
    FILE *file = fopen(fresh, "w");

    if (!file)
        return broken(self, fresh, "cannot be written");
    int written = fprintf(file, "%" PRId64 "\n%" PRId64 "\n%" PRId64 "\n%" PRId64 "\n%s\n%s\n",
                          self->at.bytes, self->at.lines, self->at.size, self->at.mtime,
                          *self->at.cursor ? self->at.cursor : "-", company_of(self));
    bool bad = written < 0 || fflush(file) || fdatasync(fileno(file));
    if (fclose(file) || bad || rename(fresh, self->progress))
        return broken(self, self->progress, "cannot be written");
    return err_ok();
}

static client_reply_t ask(transfer_t *self, const char *method, buf_t *args)
{
    client_call_t call = {.peer = "brain",
                          .method = method,
                          .company = self->cli->company,
                          .role = ROLE_ADMIN,
                          .args = buf_bytes(args),
                          .timeout_ms = self->cli->timeout_ms};

    return client_call(self->client, self->page, &call);
}

static int64_t count_of(bytes_t body, const char *name)
{
    bytes_t value;
    int64_t count = 0;

    return mp_get(body, name, &value) && mp_int(value, &count) ? count : 0;
}

/* ---- out ---- */

/* One page behind what is there; false in *more at the end. */
static err_t export_page(transfer_t *self, int fd, bool *more)
{
    buf_t args;
    bytes_t lines, cursor;
    bool first = !*self->at.cursor;

    buf_open(&args, self->page);
    mp_put_map(&args, first ? 1 : 2);
    mp_put_str(&args, "limit");
    mp_put_int(&args, PAGE_LINES);
    if (!first) {
        mp_put_str(&args, "cursor");
        mp_put_str(&args, self->at.cursor);
    }
    client_reply_t reply = ask(self, "brain_export", &args);
    if (err_is(reply.err))
        return reply.err;
    const char *text = mp_get(reply.body, "lines", &lines) ? mp_text(self->page, lines) : "";
    size_t size = strlen(text);
    bool good = self->stream ? fwrite(text, 1, size, stdout) == size && !fflush(stdout)
                             : pwrite(fd, text, size, (off_t)self->at.bytes) == (ssize_t)size &&
                                   !fdatasync(fd);
    if (!good)
        return broken(self, self->path, "cannot be written");
    self->at.bytes += (int64_t)size;
    self->at.lines += count_of(reply.body, "count");
    *more = mp_get(reply.body, "cursor", &cursor);
    snprintf(self->at.cursor, sizeof self->at.cursor, "%s",
             *more ? mp_text(self->page, cursor) : "-");
    return write_mark(self);
}

static err_t export_pages(transfer_t *self, int fd, bool more)
{
    err_t err = err_ok();

    while (more && !err_is(err)) {
        err = export_page(self, fd, &more);
        if (err_is(err) && err.what)
            err.what = arena_strdup(self->cli->arena, err.what);
        arena_reset(self->page);
    }
    return err;
}

/* Into FILE.part, which becomes FILE when all is there. */
static err_t export_all(transfer_t *self)
{
    const char *part = arena_printf(self->cli->arena, "%s.part", self->path);
    err_t err = err_ok();

    if (read_mark(self) && access(part, F_OK) != 0)
        self->at = (mark_t){0}; /* it was put in place already: a new export */
    int fd = open(part, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return broken(self, part, "cannot be opened");
    if (ftruncate(fd, (off_t)self->at.bytes))
        err = broken(self, part, "cannot be cut");
    if (!err_is(err))
        err = export_pages(self, fd, strcmp(self->at.cursor, "-") != 0);
    close(fd);
    if (!err_is(err) && (rename(part, self->path) || unlink(self->progress)))
        err = broken(self, self->path, "cannot be put in place");
    return err;
}

/* ---- in ---- */

/* Lines on their way in. */
typedef struct lines {
    buf_t text;    /* NUL-terminated */
    int64_t count; /* of lines */
    int64_t bytes; /* of the file; not those of the text where a line is left out */
} lines_t;

/* Of the line that begins at `from`; NULL: it may travel as text. */
static const char *unfit(const lines_t *page, size_t from)
{
    const char *line = page->text.data + from;
    size_t size = page->text.size - from;

    if (size > LINE_MOST)
        return "it is longer than 7340032 bytes";
    if (memchr(line, 0, size))
        return "it has a NUL byte";
    return mp_utf8(line, size) ? NULL : "it is not valid UTF-8";
}

/* One more line, of which at most LINE_MOST + 1 bytes are kept; false at the end of the file. */
static bool read_line(FILE *file, lines_t *page)
{
    size_t from = page->text.size;
    char some[4096];
    size_t size = 0;
    int c = 0;

    while (c != '\n' && (c = getc_unlocked(file)) != EOF) {
        page->bytes++;
        some[size++] = (char)c;
        if (size < sizeof some && c != '\n')
            continue;
        if (page->text.size - from <= LINE_MOST)
            buf_put(&page->text, some, size);
        size = 0;
    }
    if (size)
        buf_put(&page->text, some, size);
    return page->text.size > from;
}

/* The next lines: PAGE_LINES, or PAGE_BYTES if one line is not longer; none at the end. A line that
 * cannot even be sent is named here and leaves an empty one, so that the others keep their numbers.
 */
static void read_page(transfer_t *self, FILE *file, lines_t *page)
{
    *page = (lines_t){0};
    buf_open(&page->text, self->page);
    while (page->count < PAGE_LINES && page->text.size < PAGE_BYTES) {
        size_t from = page->text.size;
        if (!read_line(file, page))
            break;
        const char *what = unfit(page, from);
        page->count++;
        if (!what)
            continue;
        self->faults++;
        fprintf(stderr, "%s: line %" PRId64 ": %s\n", self->path, self->at.lines + page->count,
                what);
        page->text.size = from;
        buf_puts(&page->text, "\n");
    }
}

/* Line numbers of the call become those of the file. */
static void tell_faults(transfer_t *self, bytes_t body, int64_t count)
{
    bytes_t faults, one, what;
    int64_t refused = count_of(body, "refused"), told = 0;

    self->faults += refused;
    if (!mp_get(body, "faults", &faults))
        return;
    for (uint32_t i = 0; mp_at(faults, i, &one); i++, told++)
        fprintf(stderr, "%s: line %" PRId64 ": %s\n", self->path,
                self->at.lines + count_of(one, "line"),
                mp_get(one, "what", &what) ? mp_text(self->page, what) : "?");
    if (refused > told)
        fprintf(stderr, "%s: and %" PRId64 " more up to line %" PRId64 "\n", self->path,
                refused - told, self->at.lines + count);
}

static err_t import_page(transfer_t *self, const lines_t *page, int64_t *taken)
{
    buf_t args;

    buf_open(&args, self->page);
    mp_put_map(&args, 1);
    mp_put_str(&args, "lines");
    mp_put_str(&args, page->text.data);
    client_reply_t reply = ask(self, "brain_import", &args);
    if (err_is(reply.err))
        return err_make(self->cli->arena, reply.err.code,
                        "%s: lines %" PRId64 " to %" PRId64 " were not taken, those before were: "
                        "%s%s",
                        self->path, self->at.lines + 1, self->at.lines + page->count,
                        err_what(reply.err),
                        self->stream ? "" : ". Run the same command again: it goes on there");
    tell_faults(self, reply.body, page->count);
    *taken += count_of(reply.body, "imported");
    self->at.lines += page->count;
    self->at.bytes += page->bytes;
    return write_mark(self);
}

/* The file, at the place to go on from. */
static err_t import_open(transfer_t *self, FILE **out)
{
    struct stat info;

    *out = self->stream ? stdin : fopen(self->path, "r");
    if (self->stream)
        return err_ok();
    if (!*out || fstat(fileno(*out), &info))
        return broken(self, self->path, "cannot be read");
    if (!read_mark(self) || self->at.size != (int64_t)info.st_size ||
        self->at.mtime != (int64_t)info.st_mtime || self->at.bytes > self->at.size)
        self->at = (mark_t){.size = (int64_t)info.st_size, .mtime = (int64_t)info.st_mtime};
    if (self->at.lines && !self->cli->json)
        fprintf(stderr, "%s: going on after line %" PRId64 "\n", self->path, self->at.lines);
    return fseeko(*out, (off_t)self->at.bytes, SEEK_SET)
               ? broken(self, self->path, "cannot be read")
               : err_ok();
}

static err_t import_all(transfer_t *self, int64_t *taken)
{
    FILE *file;
    lines_t page;
    err_t err = import_open(self, &file);

    while (!err_is(err) && (read_page(self, file, &page), page.count)) {
        err = import_page(self, &page, taken);
        if (err_is(err) && err.what)
            err.what = arena_strdup(self->cli->arena, err.what);
        arena_reset(self->page);
    }
    if (!err_is(err) && ferror(file)) /* a directory, a disk that fails */
        err = broken(self, self->path, "cannot be read");
    if (file && !self->stream)
        fclose(file);
    if (!err_is(err) && !self->stream && unlink(self->progress) && errno != ENOENT)
        err = broken(self, self->progress, "cannot be removed");
    return err;
}

/* ---- the commands ---- */

int cli_brain_file(cli_t *cli, bool out, const char *path)
{
    transfer_t self = {.cli = cli,
                       .path = path  ? path
                               : out ? "standard output"
                                     : "standard input",
                       .stream = !path,
                       .progress = path ? arena_printf(cli->arena, "%s.progress", path) : NULL,
                       .page = arena_new()};
    int64_t taken = 0;

    if (!out && cli->read_only)
        return cli_usage("import writes, and --read-only was given");
    err_t err = cli_client(cli, &self.client);
    if (!err_is(err)) {
        err = !out   ? import_all(&self, &taken)
              : path ? export_all(&self)
                     : export_pages(&self, -1, true);
        client_close(&self.client);
    }
    arena_destroy(&self.page);
    if (err_is(err))
        return cli_fail(err);
    int64_t done = out ? self.at.lines : taken;
    if (out && !path)
        return EXIT_DONE;
    if (cli->json)
        printf("{\"lines\":%" PRId64 ",\"faults\":%" PRId64 "}\n", done, self.faults);
    else
        printf("%s: %" PRId64 " lines %s%s\n", self.path, done, out ? "written" : "taken",
               self.faults ? "; those named above were not: mend them and import again" : "");
    return self.faults ? EXIT_REFUSED : EXIT_DONE;
}
