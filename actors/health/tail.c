/* tail: the metrics files on the shared volume, metrics/YYYY-MM-DD.ndjson. Whoever likes appends
 * lines; each is read once. How far a file was read is written in the transaction that keeps what
 * was in it, so a crash neither loses nor doubles a point. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/health/health.h"
#include "actors/health/series.h"
#include "actors/health/volume.h"

enum { ALL_FILES_MS = 60000, LOOK_BACK_BYTES = 1 << 20, LINES_AT_ONCE = 4096 };

/* ---- Writing the file of the day ---- */

typedef struct line_out {
    watched_company_t *company;
    uint64_t number;
    char *path;
    const char *text;
    size_t size;
} line_out_t;

static err_t make_dirs(const char *dir, arena_t *arena)
{
    char *path = arena_strdup(arena, dir);
    char *last = strrchr(path, '/');
    if (!mkdir(dir, 0750) || errno == EEXIST)
        return err_ok();
    if (errno == ENOENT && last) {
        *last = '\0';
        if ((!mkdir(path, 0750) || errno == EEXIST) && (!mkdir(dir, 0750) || errno == EEXIST))
            return err_ok();
    }
    return err_make(arena, ERR_IO, "cannot make %s: %s", dir, strerror(errno));
}

static int open_day(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
}

/* One write call: lines of several writers never mix. A torn line of a writer that died gets an end
 * first. */
static int append(const char *path, const char *text, size_t size)
{
    struct stat stat_now;
    char last = '\n';
    int fd = open_day(path), failed = 0;
    if (fd < 0)
        return errno;
    int reader = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (reader >= 0 && !fstat(reader, &stat_now) && stat_now.st_size > 0 &&
        pread(reader, &last, 1, stat_now.st_size - 1) != 1)
        last = '\n';
    if (reader >= 0)
        close(reader);
    if ((last != '\n' && write(fd, "\n", 1) != 1) || write(fd, text, size) != (ssize_t)size)
        failed = errno ? errno : EIO;
    close(fd);
    return failed;
}

static void append_line(void *state, void *ctx)
{
    const line_out_t *line = ctx;
    health_t *self = state;
    line->company->lines_left = true;
    self->points++;
    /* Behind a line that is missing none is written: the next look does, in their order. */
    if (!line->company->broken)
        line->company->broken = append(line->path, line->text, line->size);
    if (!line->company->broken)
        line->company->written = line->number;
}

static store_key_t line_key(uint64_t number)
{
    store_key_t key;
    key_open(&key);
    key_u64(&key, number);
    return key;
}

/* Lines that are in the file need no row any more. */
static err_t forget_lines(watched_company_t *company, store_txn_t *txn)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    uint64_t number;
    err_t err = store_scan_open(&scan, txn, TABLE_lines, none, none, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value) && key_read_u64(&key, &number) &&
           number <= company->written)
        err = store_scan_del(&scan);
    store_scan_close(&scan);
    return err;
}

static err_t next_number(watched_company_t *company, store_txn_t *txn, uint64_t epoch)
{
    store_scan_t scan;
    bytes_t key, value, none = {0};
    if (company->next_line)
        return err_ok();
    uint64_t last = epoch << 32;
    err_t err = store_scan_open(&scan, txn, TABLE_lines, none, none, true);
    if (!err_is(err) && store_scan_next(&scan, &key, &value) && key_read_u64(&key, &last))
        company->lines_left = true;
    store_scan_close(&scan);
    company->next_line = (last > epoch << 32 ? last : epoch << 32) + 1;
    return err;
}

static const char *day_path(health_t *self, call_t *call, const char *company)
{
    const char *day = record_time_text(call_arena(call), call_now_ms(call));
    return arena_printf(call_arena(call), "%s/%.10s.ndjson",
                        volume_dir(self->actor, company, call_arena(call)), day);
}

static err_t write_left(health_t *self, call_t *call, watched_company_t *company, store_txn_t *txn);

err_t tail_append(health_t *self, call_t *call, store_txn_t *txn, const char *line_begin)
{
    arena_t *arena = call_arena(call);
    watched_company_t *company = health_company(self, call_company(call));
    line_out_t *out = ARENA_NEW(arena, line_out_t);
    err_t err = make_dirs(volume_dir(self->actor, company->name, arena), arena);
    out->path = (char *)day_path(self, call, company->name);
    int fd = err_is(err) ? -1 : open_day(out->path);
    if (!err_is(err) && fd < 0)
        err = err_make(arena, ERR_IO, "cannot append to %s: %s; the point is not kept", out->path,
                       strerror(errno));
    if (!err_is(err) && company->broken)
        err = err_make(arena, ERR_IO, "%s cannot be written: %s; the point is not kept", out->path,
                       strerror(company->broken));
    if (fd >= 0)
        close(fd);
    if (!err_is(err) && !company->next_line) /* what the last life left over goes first */
        err = write_left(self, call, company, txn);
    if (!err_is(err))
        err = next_number(company, txn, actor_epoch(self->actor));
    if (!err_is(err))
        err = forget_lines(company, txn);
    if (err_is(err))
        return err;
    out->company = company;
    out->number = company->next_line++; /* a replayed batch leaves a gap: harmless */
    const char *text =
        arena_printf(arena, "%s,\"by\":\"health:%" PRIu64 "\"}\n", line_begin, out->number);
    out->text = text;
    out->size = strlen(text);
    store_key_t key = line_key(out->number);
    call_after_commit(call, append_line, out);
    return store_put(txn, TABLE_lines, key_bytes(&key),
                     (bytes_t){(const uint8_t *)text, out->size});
}

/* What the file ends with; empty when there is none. Asked after a crash only. */
static bytes_t end_of_file(const char *path, arena_t *arena)
{
    bytes_t out = {0};
    struct stat stat_now;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return out;
    if (!fstat(fd, &stat_now)) {
        off_t from = stat_now.st_size > LOOK_BACK_BYTES ? stat_now.st_size - LOOK_BACK_BYTES : 0;
        char *text = arena_alloc(arena, LOOK_BACK_BYTES);
        ssize_t got = pread(fd, text, LOOK_BACK_BYTES, from);
        out = (bytes_t){(const uint8_t *)text, got > 0 ? (size_t)got : 0};
    }
    close(fd);
    return out;
}

/* What a crash or a full volume left over. Lines were written in their order: behind the first one
 * that is not in the file, none is. */
static err_t write_left(health_t *self, call_t *call, watched_company_t *company, store_txn_t *txn)
{
    store_scan_t scan;
    bytes_t key, line, none = {0};
    uint64_t number;
    bool missing = false, looked = false;
    const char *path = day_path(self, call, company->name);
    bytes_t end = {0};
    company->broken = 0;
    err_t err = store_scan_open(&scan, txn, TABLE_lines, none, none, false);
    for (int i = 0; !err_is(err) && i < LINES_AT_ONCE && store_scan_next(&scan, &key, &line); i++) {
        if (!key_read_u64(&key, &number))
            break;
        if (number > company->written) {
            if (!looked)
                end = end_of_file(path, call_arena(call));
            looked = true;
            missing = missing || !memmem(end.data, end.size, line.data, line.size);
            if (missing)
                company->broken = append(path, (const char *)line.data, line.size);
            if (company->broken)
                break;
            company->written = number;
        }
        err = store_scan_del(&scan);
    }
    store_scan_close(&scan);
    company->lines_left = company->broken || store_count(txn, TABLE_lines) > 0;
    return err;
}

/* ---- Reading ---- */

/* A round over the companies, one slice of one file in each entry. It moves on after commits only,
 * since a batch may be run twice. */
struct tail {
    char company[65], next[65];
    bool all; /* every file, not only those of today and yesterday */
    size_t at;
    bool advance; /* the file at hand has nothing more */
    volume_files_t files;
};

/* By inode, so that a file which is renamed goes on where it was. */
static store_key_t inode_key(const struct stat *stat_now)
{
    store_key_t key;
    key_open(&key);
    key_u64(&key, (uint64_t)stat_now->st_dev);
    key_u64(&key, (uint64_t)stat_now->st_ino);
    return key;
}

/* Under its name stands the inode that it had: a restored or moved file has another one. */
static store_key_t name_key(const char *path)
{
    store_key_t key;
    const char *slash = strrchr(path, '/');
    key_open(&key);
    key_u8(&key, 0xff); /* no device has such a number */
    key_str(&key, slash ? slash + 1 : path);
    return key;
}

static volume_place_t row_under(store_txn_t *txn, bytes_t key, const struct stat *stat_now, int fd,
                                uint64_t head_least)
{
    bytes_t value;
    volume_place_t row = {0}, none = {0};
    if (err_is(store_get(txn, TABLE_files, key, &value)) || value.size != sizeof(row))
        return none;
    memcpy(&row, value.data, sizeof(row));
    bool same = row.head_size >= head_least && volume_same(fd, stat_now->st_size, &row);
    return same ? row : none;
}

/* Zeros when it is new, was cut off or is another file by now. */
static volume_place_t file_row(store_txn_t *txn, const struct stat *stat_now, const char *path,
                               int fd)
{
    store_key_t key = inode_key(stat_now), name = name_key(path);
    bytes_t inode;
    volume_place_t row = row_under(txn, key_bytes(&key), stat_now, fd, 0);
    if (!row.offset && !err_is(store_get(txn, TABLE_files, key_bytes(&name), &inode)))
        row = row_under(txn, inode, stat_now, fd, VOLUME_HEAD_BYTES);
    return row;
}

static err_t put_row(store_txn_t *txn, const struct stat *stat_now, const char *path,
                     const volume_place_t *row)
{
    store_key_t key = inode_key(stat_now), name = name_key(path);
    bytes_t inode = key_bytes(&key), there;
    err_t err = store_put(txn, TABLE_files, inode, (bytes_t){(const uint8_t *)row, sizeof(*row)});
    if (err_is(err))
        return err;
    bool known = !err_is(store_get(txn, TABLE_files, key_bytes(&name), &there)) &&
                 there.size == inode.size && !memcmp(there.data, inode.data, inode.size);
    return known ? err_ok() : store_put(txn, TABLE_files, key_bytes(&name), inode);
}

static void count_points(void *state, void *ctx)
{
    ((health_t *)state)->points += *(const uint64_t *)ctx;
}

static void count_refused(void *state, void *ctx)
{
    ((health_t *)state)->refused_lines += *(const uint64_t *)ctx;
}

/* A batch may be run twice: what it took in counts once it is on disk. */
static uint64_t *count_later(call_t *call, void (*fn)(void *state, void *ctx))
{
    uint64_t *count = ARENA_NEW(call_arena(call), uint64_t);
    call_after_commit(call, fn, count);
    return count;
}

err_t tail_take_lines(health_t *self, call_t *call, const char *company, store_txn_t *txn,
                      const char *text, size_t size)
{
    uint64_t *points = count_later(call, count_points);
    uint64_t *refused = count_later(call, count_refused);
    arena_t *arena = call_arena(call);
    series_batch_t *batch = series_batch_new(call, txn, self->settings->max_series);
    point_t point;
    const char *own, *at = text, *end;
    for (; (end = memchr(at, '\n', (size_t)(text + size - at))); at = end + 1) {
        if (end == at)
            continue;
        err_t err = point_parse(arena, at, (size_t)(end - at), call_now_ms(call), &point, &own);
        bool ours = own && !strncmp(own, "health:", 7);
        if (!err_is(err) && !ours)
            err = series_batch_add(batch, &point);
        if (err.code == ERR_CORRUPT || err.code == ERR_FULL || err.code == ERR_IO)
            return err;
        if (err_is(err) && !ours)
            ++*refused;
        else if (!ours)
            ++*points;
    }
    if (at == text) /* no line is so long */
        ++*refused;
    err_t err = series_batch_write(batch);
    return err_is(err) ? err : alerts_touched(self, call, company, txn, batch);
}

/* *more: there is more to read. */
static err_t read_file(health_t *self, call_t *call, const char *company, const volume_file_t *file,
                       bool *more)
{
    store_txn_t *txn;
    struct stat stat_now;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &stat_now) || !S_ISREG(stat_now.st_mode)) {
        if (fd >= 0)
            close(fd);
        return err_ok();
    }
    volume_place_t place = {0}, next;
    err_t err = call_read(call, company, &txn);
    if (!err_is(err))
        place = file_row(txn, &stat_now, file->path, fd);
    const char *text;
    size_t whole = volume_read(fd, stat_now.st_size, &place, call_arena(call), &text, &next);
    close(fd);
    if (!whole)
        return err_ok(); /* nothing new, or the last line is still being written */
    err = call_write(call, company, &txn);
    if (!err_is(err))
        err = tail_take_lines(self, call, company, txn, text, whole);
    if (!err_is(err))
        err = put_row(txn, &stat_now, file->path, &next);
    *more = next.offset < stat_now.st_size;
    return err;
}

static err_t next_company(void *state, call_t *call, void *ctx);
static err_t read_next(void *state, call_t *call, void *ctx);

static void go_on(void *state, void *ctx)
{
    health_t *self = state;
    tail_t *tail = self->tail;
    (void)ctx;
    tail->at += tail->advance;
    actor_work(self->actor, 0, tail->at >= tail->files.count ? next_company : read_next, NULL);
}

static err_t read_next(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    tail_t *tail = self->tail;
    bool more = false;
    if (tail->at >= tail->files.count)
        return next_company(state, call, ctx);
    err_t err = read_file(self, call, tail->company, &tail->files.items[tail->at], &more);
    if (err.code == ERR_FULL)
        return err; /* the batch is run again on a larger map */
    if (err_is(err))
        call_log(call, LOG_WARN, "%s is not read: %s", tail->files.items[tail->at].path,
                 err_what(err));
    tail->advance = !more || err_is(err);
    call_after_commit(call, go_on, NULL);
    return err_ok();
}

static err_t begin_round(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    int64_t now = actor_mono_us(self->actor) / 1000;
    *self->tail->company = '\0';
    self->tail->all = !self->all_files_ms || now - self->all_files_ms >= ALL_FILES_MS;
    if (self->tail->all)
        self->all_files_ms = now;
    return next_company(state, call, ctx);
}

/* Lines left over first: they are older than what the file holds now. */
static err_t tend_company(health_t *self, call_t *call, const char *name)
{
    store_txn_t *txn;
    watched_company_t *company = health_company(self, name);
    bool due = alerts_are_due(company, call);
    if (!company->lines_left && !due && company->next_line)
        return err_ok();
    err_t err = call_read(call, name, &txn);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (!err_is(err) && !company->next_line && !store_count(txn, TABLE_lines)) {
        err = next_number(company, txn, actor_epoch(self->actor));
        if (!due)
            return err;
    }
    err = call_write(call, name, &txn);
    if (!err_is(err))
        err = write_left(self, call, company, txn);
    return err_is(err) || !due ? err : alerts_due(self, call, name, txn);
}

static void enter_company(void *state, void *ctx)
{
    health_t *self = state;
    tail_t *tail = self->tail;
    memcpy(tail->company, tail->next, sizeof(tail->company));
    volume_list(self->actor, tail->company, tail->all, &tail->files);
    tail->at = 0;
    tail->advance = false;
    go_on(state, ctx);
}

static err_t next_company(void *state, call_t *call, void *ctx)
{
    health_t *self = state;
    const char *name = volume_next_company(self->actor, self->tail->company, call_arena(call));
    (void)ctx;
    if (!name) {
        call_work(call, self->settings->poll_ms, begin_round, NULL);
        return err_ok();
    }
    err_t err = tend_company(self, call, name);
    if (err.code == ERR_FULL)
        return err;
    if (err_is(err))
        call_log(call, LOG_WARN, "%s: %s", name, err_what(err));
    snprintf(self->tail->next, sizeof(self->tail->next), "%s", name);
    call_after_commit(call, enter_company, NULL);
    return err_ok();
}

void tail_open(health_t *self, call_t *call)
{
    self->tail = calloc(1, sizeof(*self->tail));
    if (!self->tail)
        abort();
    call_work(call, 0, begin_round, NULL);
}

void tail_close(health_t *self)
{
    if (self->tail)
        free(self->tail->files.items);
    free(self->tail);
    self->tail = NULL;
}
