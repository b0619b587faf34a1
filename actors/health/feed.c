/* feed: reads the metrics files on the volume of a replica that does not own the queue, and gives
 * their lines to the owner's health. It keeps nothing: how far each file was taken is known by the
 * owner (fed.h), who is asked once in each life. */
#include "actors/health/fed.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CALL_MS = 30000,
    AWAY_MS = 10000,
    RETRY_MS = 2000,
    ALL_FILES_MS = 60000,
    FILES_AT_ONCE = 64,
    TRIES_MOST = 3
};

#define feed_settings_FIELDS(F)                                                                    \
    F(STR, pod, opt(replica), 1, 63, "Whose volume it is.")                                        \
    F(INT, poll_ms, opt(1000), 50, 600000, "Pause between two looks at the metrics files.")
RECORD(feed_settings, feed_settings_FIELDS)

RECORD(metric_feed_args, metric_feed_ARGS)
RECORD(metric_feed_reply, metric_feed_REPLY)
RECORD(metric_feed_begin_args, metric_feed_begin_ARGS)
RECORD(metric_feed_begin_reply, metric_feed_begin_REPLY)

/* What the owner knows of a file. */
typedef struct known {
    char company[65];
    uint64_t inode;
    volume_place_t place; /* under its inode there */
    volume_place_t start; /* where to go on, in this file */
} known_t;

typedef struct feed {
    const feed_settings_t *settings; /* first: the skeleton fills it in */
    actor_t *actor;
    char company[65];
    bool all; /* every file, not only those of today and yesterday */
    int64_t all_ms;
    volume_files_t files;
    size_t at;
    int tries; /* slices of the file at hand that the owner did not take */
    known_t *known;
    size_t known_count;
    bool away; /* the owner; it was said */
} feed_t;

static err_t begin(void *state, call_t *call, void *ctx);
static err_t begin_round(void *state, call_t *call, void *ctx);
static err_t next_company(void *state, call_t *call, void *ctx);
static err_t next_file(void *state, call_t *call, void *ctx);

/* ---- What is known ---- */

static known_t *find(const feed_t *self, uint64_t inode)
{
    for (size_t i = 0; i < self->known_count; i++)
        if (self->known[i].inode == inode && !strcmp(self->known[i].company, self->company))
            return &self->known[i];
    return NULL;
}

static known_t *remember(feed_t *self, uint64_t inode)
{
    known_t *known = find(self, inode);
    if (known)
        return known;
    self->known = realloc(self->known, (self->known_count + 1) * sizeof(known_t));
    if (!self->known)
        abort();
    known = &self->known[self->known_count++];
    *known = (known_t){.inode = inode};
    memcpy(known->company, self->company, sizeof(known->company));
    return known;
}

static volume_place_t place_of(const fed_place_t *fed)
{
    return (volume_place_t){.offset = fed->offset,
                            .head_size = (uint64_t)fed->head_size,
                            .head_hash = (uint64_t)fed->head_hash};
}

static const fed_place_t *fed_of(arena_t *arena, const volume_place_t *place)
{
    fed_place_t *fed = ARENA_NEW(arena, fed_place_t);
    *fed = (fed_place_t){.offset = place->offset,
                         .head_size = (int64_t)place->head_size,
                         .head_hash = (int64_t)place->head_hash};
    return fed;
}

/* ---- The owner ---- */

static bool passes(err_code_t code)
{
    return code == ERR_UNAVAILABLE || code == ERR_TIMEOUT || code == ERR_BUSY ||
           code == ERR_DRAINING || code == ERR_FULL || code == ERR_IO;
}

/* True: it is away, and the work is tried again. */
static bool try_again(feed_t *self, call_t *call, err_t err, work_fn_t *fn)
{
    if (!err_is(err) && self->away)
        call_log(call, LOG_INFO, "the owner takes metrics again");
    bool again = err_is(err) && passes(err.code);
    if (again && !self->away)
        call_log(call, LOG_WARN, "metrics wait on this volume: %s", err_what(err));
    self->away = again;
    if (again)
        call_work(call, RETRY_MS, fn, NULL);
    return again;
}

/* What was asked about or sent: copied, since the list may change meanwhile. */
typedef struct sent {
    uint64_t inode;
    volume_place_t next;
    char path[4400];
} sent_t;

/* Where to go on in the file that is open. */
static volume_place_t where_to(int fd, const struct stat *stat_now, const known_t *known,
                               const volume_place_t *by_name)
{
    volume_place_t none = {0};
    if (known->place.offset && volume_same(fd, stat_now->st_size, &known->place))
        return known->place;
    /* Moved or restored: it has another inode now. */
    if (by_name->offset && by_name->head_size == VOLUME_HEAD_BYTES &&
        volume_same(fd, stat_now->st_size, by_name))
        return *by_name;
    return none; /* new, cut off, or another file */
}

static void forget(feed_t *self, const known_t *known)
{
    self->known[known - self->known] = self->known[--self->known_count];
}

static void learn(feed_t *self, const sent_t *sent, const metric_feed_reply_t *reply)
{
    struct stat stat_now;
    known_t *known = remember(self, sent->inode);
    volume_place_t by_name = place_of(reply->by_name);
    known->place = place_of(reply->by_inode);
    if (reply->taken) {
        known->start = known->place;
        return;
    }
    int fd = open(sent->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && !fstat(fd, &stat_now) && (uint64_t)stat_now.st_ino == sent->inode)
        known->start = where_to(fd, &stat_now, known, &by_name);
    else
        forget(self, known); /* renamed meanwhile: asked again under its new name */
    if (fd >= 0)
        close(fd);
}

static err_t on_fed(void *state, call_t *call, void *out, const peer_answer_t *got, void *ctx)
{
    feed_t *self = state;
    const sent_t *sent = ctx;
    metric_feed_reply_t reply = {0};
    (void)out;
    if (try_again(self, call, got->err, next_file))
        return err_ok();
    err_t err = got->err;
    if (!err_is(err))
        err =
            record_decode(&metric_feed_reply_record, got->body, call_arena(call), "field", &reply);
    if (!err_is(err)) {
        learn(self, sent, &reply);
        self->tries = reply.taken ? 0 : self->tries + 1;
    } else {
        call_log(call, LOG_WARN, "%s is not taken: %s", sent->path, err_what(err));
        self->tries = TRIES_MOST;
    }
    if (self->tries >= TRIES_MOST) {
        self->at++; /* seen again in the next round */
        self->tries = 0;
    }
    call_work(call, 0, next_file, NULL);
    return err_ok();
}

static err_t send(feed_t *self, call_t *call, sent_t *sent, const volume_file_t *file,
                  const known_t *known, bytes_t lines)
{
    arena_t *arena = call_arena(call);
    metric_feed_args_t args = {.pod = self->settings->pod,
                               .inode = (int64_t)sent->inode,
                               .has_inode = true,
                               .name = file->name,
                               .company = self->company};
    if (known) {
        args.was = fed_of(arena, &known->place);
        args.next = fed_of(arena, &sent->next);
        args.lines = lines;
    }
    snprintf(sent->path, sizeof(sent->path), "%s", file->path);
    peer_call_t request = {.peer = "health",
                           .method = "metric_feed",
                           .args = call_encode(call, &metric_feed_args_record, &args),
                           .company = self->company,
                           .timeout_ms = CALL_MS,
                           .away_ms = AWAY_MS};
    call_peer(call, &request, on_fed, sent);
    return call_park(call);
}

/* ---- Going through the files ---- */

/* ERR_PARKED: something was sent. OK: nothing new in it. */
static err_t look_at(feed_t *self, call_t *call, const volume_file_t *file)
{
    struct stat stat_now;
    arena_t *arena = call_arena(call);
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &stat_now) || !S_ISREG(stat_now.st_mode)) {
        if (fd >= 0)
            close(fd);
        return err_ok();
    }
    sent_t *sent = ARENA_NEW(arena, sent_t);
    sent->inode = (uint64_t)stat_now.st_ino;
    known_t *known = find(self, sent->inode);
    if (!known) {
        close(fd);
        return send(self, call, sent, file, NULL, (bytes_t){0});
    }
    if (!volume_same(fd, stat_now.st_size, &known->start))
        known->start = (volume_place_t){0};
    const char *text;
    size_t size = volume_read(fd, stat_now.st_size, &known->start, arena, &text, &sent->next);
    close(fd);
    return size ? send(self, call, sent, file, known, (bytes_t){(const uint8_t *)text, size})
                : err_ok();
}

static err_t next_file(void *state, call_t *call, void *ctx)
{
    feed_t *self = state;
    (void)ctx;
    for (int i = 0; i < FILES_AT_ONCE && self->at < self->files.count; i++) {
        err_t err = look_at(self, call, &self->files.items[self->at]);
        if (err_is(err))
            return err;
        self->at++;
        self->tries = 0;
    }
    call_work(call, 0, self->at < self->files.count ? next_file : next_company, NULL);
    return err_ok();
}

static err_t next_company(void *state, call_t *call, void *ctx)
{
    feed_t *self = state;
    const char *name = volume_next_company(self->actor, self->company, call_arena(call));
    (void)ctx;
    if (!name) {
        call_work(call, self->settings->poll_ms, begin_round, NULL);
        return err_ok();
    }
    snprintf(self->company, sizeof(self->company), "%s", name);
    volume_list(self->actor, name, self->all, &self->files);
    self->at = 0;
    call_work(call, 0, next_file, NULL);
    return err_ok();
}

static err_t begin_round(void *state, call_t *call, void *ctx)
{
    feed_t *self = state;
    int64_t now = actor_mono_us(self->actor) / 1000;
    *self->company = '\0';
    self->all = !self->all_ms || now - self->all_ms >= ALL_FILES_MS;
    if (self->all)
        self->all_ms = now;
    return next_company(state, call, ctx);
}

/* ---- Is it the owner's volume too? ---- */

static const char *token_path(feed_t *self, arena_t *arena)
{
    return arena_printf(arena, "%s/.feed-%s",
                        volume_dir(self->actor, actor_default_company(self->actor), arena),
                        self->settings->pod);
}

static err_t on_begun(void *state, call_t *call, void *out, const peer_answer_t *got, void *ctx)
{
    feed_t *self = state;
    metric_feed_begin_reply_t reply = {0};
    (void)out;
    (void)ctx;
    if (try_again(self, call, got->err, begin))
        return err_ok();
    err_t err = got->err;
    if (!err_is(err))
        err = record_decode(&metric_feed_begin_reply_record, got->body, call_arena(call), "field",
                            &reply);
    if (err_is(err)) {
        call_log(call, LOG_ERROR, "the owner's health does not take metrics: %s", err_what(err));
        call_work(call, RETRY_MS, begin, NULL);
        return err_ok();
    }
    unlink(token_path(self, call_arena(call)));
    if (reply.shared)
        call_log(call, LOG_INFO, "metrics/ is shared with the owner, who reads it itself");
    else
        call_work(call, 0, begin_round, NULL);
    return err_ok();
}

static err_t write_token(feed_t *self, arena_t *arena, const char *token)
{
    const char *dir = volume_dir(self->actor, actor_default_company(self->actor), arena);
    const char *path = token_path(self, arena);
    mkdir(dir, 0750);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    bool fine = fd >= 0 && write(fd, token, strlen(token)) == (ssize_t)strlen(token);
    int why = errno;
    if (fd >= 0)
        close(fd);
    return fine ? err_ok() : err_make(arena, ERR_IO, "cannot write %s: %s", path, strerror(why));
}

static err_t begin(void *state, call_t *call, void *ctx)
{
    feed_t *self = state;
    arena_t *arena = call_arena(call);
    const char *token = call_new_id(call, "");
    (void)ctx;
    err_t err = write_token(self, arena, token);
    if (try_again(self, call, err, begin))
        return err_ok();
    metric_feed_begin_args_t args = {.name = strrchr(token_path(self, arena), '/') + 1,
                                     .token = token};
    peer_call_t request = {.peer = "health",
                           .method = "metric_feed_begin",
                           .args = call_encode(call, &metric_feed_begin_args_record, &args),
                           .timeout_ms = CALL_MS,
                           .away_ms = AWAY_MS};
    call_peer(call, &request, on_begun, NULL);
    return call_park(call);
}

/* ---- Life ---- */

static err_t feed_open(void *state, call_t *call)
{
    feed_t *self = state;
    self->actor = call_actor(call);
    call_work(call, 0, begin, NULL);
    return err_ok();
}

static void feed_close(void *state)
{
    feed_t *self = state;
    free(self->files.items);
    free(self->known);
}

static const method_t no_methods[] = {{.name = NULL}};

const actor_def_t feed_actor = {
    .name = "feed",
    .doc = "Gives the metrics on this replica's volume to the owner's health.",
    .size = sizeof(feed_t),
    .open = feed_open,
    .close = feed_close,
    .methods = no_methods,
    .settings = &feed_settings_record,
};
