#include "bus/curve.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "bus/log.h"

enum {
    HEARTBEAT_MS = 2000,
    HEARTBEAT_LOST_MS = 6000,
    RECONNECT_MOST_MS = 2000,
    CONNECT_MS = 3000, /* an address that nobody has any more answers nothing */
    QUIET_SECONDS = 60,
    ALLOWED_MOST = 4096,
    ADMITTED_MOST = 256,
    REVOKED_LOOK_MS = 1000,
    REVOKED_LOOKS = 2 /* a file that is being written may lack a key for a moment */
};

/* A key that came in. */
typedef struct admitted {
    char key[CURVE_KEY_SIZE + 1];
    int missing; /* looks at which it was no longer on the list */
} admitted_t;

struct curve {
    arena_t *arena;
    place_t place;
    char secret[CURVE_KEY_SIZE + 1], public[CURVE_KEY_SIZE + 1];
    void *zap;
    pthread_t thread;
    bool started;
    atomic_uint cuts; /* how often a key that had come in was taken off the list */
    /* Of the thread: */
    char refused[CURVE_KEY_SIZE + 1]; /* said last */
    time_t refused_at;
    admitted_t admitted[ADMITTED_MOST];
    int admitted_count, admitted_next;
    int64_t looked_ms;
};

typedef struct keys {
    int count;
    char text[CURVE_KEYS_MOST][CURVE_KEY_SIZE + 1];
} keys_t;

/* ---- Files of keys ---- */

/* '#' is a letter of Z85: a comment is "# ", which is none. */
static bool is_key(const char *line, size_t size)
{
    uint8_t raw[32];
    char text[CURVE_KEY_SIZE + 1];
    if (size != CURVE_KEY_SIZE || memchr(line, ' ', size))
        return false;
    memcpy(text, line, size);
    text[size] = '\0';
    return zmq_z85_decode(raw, text) != NULL;
}

typedef bool key_fn_t(void *ctx, const char *key);

/* Calls fn for each key of the file until it returns false. */
static err_t each_key(const char *path, arena_t *arena, key_fn_t *fn, void *ctx)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return err_make(arena, ERR_IO, "cannot read the key file %s: %s", path, strerror(errno));
    char line[256];
    err_t err = err_ok();
    bool more = true;
    for (int number = 1; more && !err_is(err) && fgets(line, sizeof(line), file); number++) {
        size_t size = strcspn(line, "\r\n");
        line[size] = '\0';
        if (!size || (line[0] == '#' && (line[1] == ' ' || !line[1])))
            continue;
        if (is_key(line, size))
            more = fn(ctx, line);
        else
            err = err_make(arena, ERR_ARGUMENT,
                           "%s, line %d: a key is one line of %d Z85 characters; make one with "
                           "`agency keygen DIR`",
                           path, number, CURVE_KEY_SIZE);
    }
    if (!err_is(err) && ferror(file))
        err = err_make(arena, ERR_IO, "cannot read the key file %s: %s", path, strerror(errno));
    fclose(file);
    return err;
}

static bool take_key(void *ctx, const char *key)
{
    keys_t *keys = ctx;
    memcpy(keys->text[keys->count++], key, CURVE_KEY_SIZE + 1);
    return keys->count < CURVE_KEYS_MOST;
}

static err_t read_secret(curve_t *curve, arena_t *arena)
{
    const char *path = curve->place.settings.curve_key;
    struct stat info;
    keys_t keys = {0};
    if (stat(path, &info))
        return err_make(arena, ERR_IO,
                        "cannot read bus.curve_key %s: %s; make one with "
                        "`agency keygen DIR`",
                        path, strerror(errno));
    if (info.st_mode & 0007)
        return err_make(arena, ERR_ARGUMENT,
                        "the secret key %s may be read by everybody on this machine; chmod 0600 it "
                        "(in a Secret volume: defaultMode 0440)",
                        path);
    err_t err = each_key(path, arena, take_key, &keys);
    if (err_is(err))
        return err;
    if (keys.count != 1)
        return err_make(arena, ERR_ARGUMENT, "%s must hold one secret key, not %d", path,
                        keys.count);
    memcpy(curve->secret, keys.text[0], sizeof(curve->secret));
    if (zmq_curve_public(curve->public, curve->secret))
        return err_make(arena, ERR_ARGUMENT, "%s holds no CURVE key: %s", path,
                        zmq_strerror(zmq_errno()));
    return err_ok();
}

/* The keys that a server of that name may have: two while it changes from one to the other. */
static err_t server_keys(const curve_t *curve, const char *peer, arena_t *arena, keys_t *out)
{
    struct stat info;
    const char *path = curve->place.settings.curve_servers;
    *out = (keys_t){0};
    if (!stat(path, &info) && S_ISDIR(info.st_mode))
        path = arena_printf(arena, "%s/%s.pub", path, peer);
    err_t err = each_key(path, arena, take_key, out);
    if (!err_is(err) && !out->count)
        err = err_make(arena, ERR_ARGUMENT, "%s holds no key of '%s'", path, peer);
    return err;
}

/* ---- Who may come: the ZAP handler (https://rfc.zeromq.org/spec/27/) ---- */

typedef struct search {
    const char *wanted;
    bool found;
    int seen;
} search_t;

static bool same_key(void *ctx, const char *key)
{
    search_t *search = ctx;
    search->found = !strcmp(search->wanted, key);
    return !search->found && ++search->seen < ALLOWED_MOST;
}

/* Read at every handshake: those are rare, and a key that was taken off the list must not come in.
 * A file that cannot be read allows nobody. */
static bool allowed(const curve_t *curve, const char *key, arena_t *arena)
{
    const char *path = curve->place.settings.curve_allow;
    search_t search = {.wanted = key};
    struct stat info;
    if (stat(path, &info))
        return false;
    if (!S_ISDIR(info.st_mode))
        return !err_is(each_key(path, arena, same_key, &search)) && search.found;
    DIR *dir = opendir(path);
    for (struct dirent *at; dir && !search.found && (at = readdir(dir));) {
        size_t size = strlen(at->d_name);
        if (at->d_name[0] != '.' && size > 4 && !strcmp(at->d_name + size - 4, ".pub"))
            each_key(arena_printf(arena, "%s/%s", path, at->d_name), arena, same_key, &search);
    }
    if (dir)
        closedir(dir);
    return search.found;
}

static void say_refused(curve_t *curve, const char *key, const char *from, arena_t *arena)
{
    time_t now = time(NULL);
    if (!strcmp(curve->refused, key) && now - curve->refused_at < QUIET_SECONDS)
        return;
    snprintf(curve->refused, sizeof(curve->refused), "%s", key);
    curve->refused_at = now;
    log_line(STDERR_FILENO, LOG_WARN, "bus",
             arena_printf(arena, "refused a peer from %s: its public key %s is not in %s", from,
                          key, curve->place.settings.curve_allow));
}

/* ---- Keys that were taken off the list while their owner was inside ---- */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void remember(curve_t *curve, const char *key)
{
    for (int i = 0; i < curve->admitted_count; i++)
        if (!strcmp(curve->admitted[i].key, key))
            return;
    admitted_t *at = &curve->admitted[curve->admitted_next];
    curve->admitted_next = (curve->admitted_next + 1) % ADMITTED_MOST;
    if (curve->admitted_count < ADMITTED_MOST)
        curve->admitted_count++;
    *at = (admitted_t){0};
    memcpy(at->key, key, CURVE_KEY_SIZE + 1);
}

static void forget(curve_t *curve, int index)
{
    curve->admitted[index] = curve->admitted[--curve->admitted_count];
    curve->admitted_next = curve->admitted_count;
}

/* libzmq cannot end one connection of a socket: whoever has tcp doors makes them anew, and those
 * who are still on the list are back at once. */
static void look_for_revoked(curve_t *curve)
{
    arena_t *arena = arena_new();
    for (int i = curve->admitted_count - 1; i >= 0; i--) {
        admitted_t *at = &curve->admitted[i];
        at->missing = allowed(curve, at->key, arena) ? 0 : at->missing + 1;
        if (at->missing < REVOKED_LOOKS)
            continue;
        log_line(STDERR_FILENO, LOG_WARN, "bus",
                 arena_printf(arena,
                              "the key %s is no longer in %s: all tcp connections are cut; who is "
                              "on the list comes back",
                              at->key, curve->place.settings.curve_allow));
        forget(curve, i);
        atomic_fetch_add(&curve->cuts, 1);
    }
    arena_destroy(&arena);
}

unsigned curve_cuts(curve_t *curve)
{
    return atomic_load(&curve->cuts);
}

enum { ZAP_PARTS = 7, ZAP_PART_SIZE = 256 };
enum { ZAP_VERSION, ZAP_ID, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_KEY };

typedef struct zap_request {
    int count;
    size_t sizes[ZAP_PARTS];
    char parts[ZAP_PARTS][ZAP_PART_SIZE];
} zap_request_t;

/* False when the context ends. */
static bool zap_receive(void *zap, zap_request_t *request)
{
    int more = 1;
    size_t size = sizeof(more);
    memset(request, 0, sizeof(*request));
    while (more) {
        char part[ZAP_PART_SIZE];
        int got = zmq_recv(zap, part, sizeof(part) - 1, 0);
        if (got < 0 && zmq_errno() == EINTR)
            continue;
        if (got < 0)
            return false;
        if (request->count < ZAP_PARTS) {
            size_t kept = (size_t)got < sizeof(part) - 1 ? (size_t)got : sizeof(part) - 1;
            memcpy(request->parts[request->count], part, kept);
            request->sizes[request->count++] = kept;
        }
        zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &size);
    }
    return true;
}

static bool zap_decide(curve_t *curve, const zap_request_t *request)
{
    char key[CURVE_KEY_SIZE + 1];
    if (request->count < ZAP_PARTS || strcmp(request->parts[ZAP_MECHANISM], "CURVE") != 0 ||
        request->sizes[ZAP_KEY] != 32)
        return false;
    zmq_z85_encode(key, (const uint8_t *)request->parts[ZAP_KEY], 32);
    arena_t *arena = arena_new();
    bool good = allowed(curve, key, arena);
    if (good)
        remember(curve, key);
    else
        say_refused(curve, key, request->parts[ZAP_ADDRESS], arena);
    arena_destroy(&arena);
    return good;
}

/* Returns when somebody knocks; false when the context ends. */
static bool zap_wait(curve_t *curve)
{
    for (;;) {
        zmq_pollitem_t item = {.socket = curve->zap, .events = ZMQ_POLLIN};
        int ready = zmq_poll(&item, 1, REVOKED_LOOK_MS);
        if (ready < 0 && zmq_errno() != EINTR)
            return false;
        if (now_ms() - curve->looked_ms >= REVOKED_LOOK_MS) { /* also while many knock */
            look_for_revoked(curve);
            curve->looked_ms = now_ms();
        }
        if (ready > 0)
            return true;
    }
}

static void *zap_main(void *arg)
{
    curve_t *curve = arg;
    zap_request_t request;
    while (zap_wait(curve) && zap_receive(curve->zap, &request)) {
        bool good = zap_decide(curve, &request);
        zmq_send(curve->zap, "1.0", 3, ZMQ_SNDMORE);
        zmq_send(curve->zap, request.parts[ZAP_ID], request.sizes[ZAP_ID], ZMQ_SNDMORE);
        zmq_send(curve->zap, good ? "200" : "400", 3, ZMQ_SNDMORE);
        zmq_send(curve->zap, good ? "OK" : "No access", good ? 2 : 9, ZMQ_SNDMORE);
        zmq_send(curve->zap, "", 0, ZMQ_SNDMORE);
        zmq_send(curve->zap, "", 0, 0);
    }
    zmq_close(curve->zap);
    return NULL;
}

static err_t start_zap(curve_t *curve, void *context, arena_t *arena)
{
    int linger = 0;
    sigset_t all, before;
    curve->zap = zmq_socket(context, ZMQ_REP);
    if (!curve->zap)
        return err_make(arena, ERR_INTERNAL, "cannot make a socket: %s", zmq_strerror(zmq_errno()));
    zmq_setsockopt(curve->zap, ZMQ_LINGER, &linger, sizeof(linger));
    if (zmq_bind(curve->zap, "inproc://zeromq.zap.01")) {
        zmq_close(curve->zap);
        return err_make(arena, ERR_INTERNAL, "cannot check keys: %s", zmq_strerror(zmq_errno()));
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    curve->started = !pthread_create(&curve->thread, NULL, zap_main, curve);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (curve->started)
        return err_ok();
    zmq_close(curve->zap);
    return err_of(ERR_INTERNAL, "cannot make a thread");
}

/* ---- Settings ---- */

static err_t check_servers(const curve_t *curve, arena_t *arena)
{
    err_t err = err_ok();
    for (int i = 0; place_pillar(i) && !err_is(err); i++) {
        keys_t keys;
        if (!curve->place.addresses[i])
            continue;
        if (curve->place.settings.curve_servers)
            err = server_keys(curve, place_pillar(i), arena, &keys);
        else
            err = err_make(arena, ERR_ARGUMENT,
                           "bus.%s is on another machine (%s): bus.curve_servers must name the "
                           "file or directory with its public key",
                           place_pillar(i), curve->place.addresses[i]);
    }
    return err;
}

static err_t check_settings(curve_t *curve, arena_t *arena)
{
    const bus_t *set = &curve->place.settings;
    err_t err = check_servers(curve, arena);
    if (err_is(err) || (!set->listen && !place_any_away(&curve->place)))
        return err;
    if (!set->curve_key)
        return err_of(ERR_ARGUMENT,
                      "tcp is always encrypted: bus.curve_key must name the file with "
                      "the secret key; make one with `agency keygen DIR`");
    if (!zmq_has("curve"))
        return err_of(ERR_ARGUMENT, "this libzmq was built without CURVE; tcp is not possible");
    if (set->listen && (!set->curve_allow || access(set->curve_allow, R_OK)))
        return err_make(arena, ERR_ARGUMENT,
                        "bus.listen: bus.curve_allow must name a file or directory of the public "
                        "keys that may connect%s%s%s",
                        set->curve_allow ? "; cannot read " : "",
                        set->curve_allow ? set->curve_allow : "", "");
    return read_secret(curve, arena);
}

err_t curve_open(const curve_options_t *options, void *context, arena_t *arena, curve_t **out)
{
    *out = NULL;
    curve_t *curve = calloc(1, sizeof(*curve));
    if (!curve)
        abort();
    curve->arena = arena_new();
    err_t err = place_load(options->settings, options->environment, options->data_dir, curve->arena,
                           &curve->place);
    if (options->calls_only)
        curve->place.settings.listen = NULL;
    if (!err_is(err))
        err = check_settings(curve, curve->arena);
    if (!err_is(err) && curve->place.settings.listen)
        err = start_zap(curve, context, curve->arena);
    if (err_is(err)) {
        err = err_make(arena, err.code, "%s", err_what(err));
        curve_close(&curve);
        return err;
    }
    *out = curve;
    return err_ok();
}

void curve_close(curve_t **handle)
{
    curve_t *curve = *handle;
    if (!curve)
        return;
    if (curve->started)
        pthread_join(curve->thread, NULL);
    explicit_bzero(curve->secret, sizeof(curve->secret));
    arena_destroy(&curve->arena);
    free(curve);
    *handle = NULL;
}

/* ---- Doors ---- */

static void set_int(void *socket, int option, int value)
{
    zmq_setsockopt(socket, option, &value, sizeof(value));
}

/* A machine that vanished says no goodbye. */
static void watch_over(void *socket)
{
    set_int(socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_LOST_MS);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MOST_MS);
}

bool curve_serves(const curve_t *curve, const char *instance)
{
    return curve->place.settings.listen && place_index(instance) >= 0;
}

err_t curve_bind(const curve_t *curve, void *socket, const char *instance, bool event,
                 arena_t *arena)
{
    watch_over(socket);
    set_int(socket, ZMQ_CURVE_SERVER, 1);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, curve->secret, sizeof(curve->secret));
    /* Caveat: libzmq lets all come in when no handler is bound; ours lives as long as the context.
     */
    zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "agency", 6);
    const char *address =
        arena_printf(arena, "tcp://%s:%d", curve->place.settings.listen,
                     place_port(&curve->place, instance) + (event ? PLACE_EVENT_PORT : 0));
    if (!zmq_bind(socket, address))
        return err_ok();
    int why = zmq_errno();
    return err_make(arena, why == EADDRINUSE ? ERR_BUSY : ERR_IO,
                    "cannot listen at %s: %s; change bus.listen or bus.port_offset", address,
                    zmq_strerror(why));
}

bool curve_remote(const curve_t *curve, const char *peer)
{
    return place_address(&curve->place, peer) != NULL;
}

const place_t *curve_place(const curve_t *curve)
{
    return &curve->place;
}

static const char *event_address(const char *call, arena_t *arena)
{
    const char *colon = strrchr(call, ':');
    return arena_printf(arena, "%.*s:%ld", (int)(colon - call), call,
                        strtol(colon + 1, NULL, 10) + PLACE_EVENT_PORT);
}

/* FNV-1a: only to tell one list from another. */
static uint64_t keys_hash(const keys_t *keys)
{
    uint64_t value = 14695981039346656037u;
    for (int i = 0; i < keys->count; i++)
        for (const char *at = keys->text[i]; *at; at++)
            value = (value ^ (unsigned char)*at) * 1099511628211u;
    return value;
}

err_t curve_connect(const curve_t *curve, void *socket, const char *peer, bool event,
                    unsigned attempt, uint64_t *used, arena_t *arena)
{
    keys_t keys;
    const char *address = place_address(&curve->place, peer);
    err_t err = server_keys(curve, peer, arena, &keys);
    *used = keys_hash(&keys);
    if (err_is(err))
        return err;
    if (event)
        address = event_address(address, arena);
    watch_over(socket);
    set_int(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, curve->public, sizeof(curve->public));
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, curve->secret, sizeof(curve->secret));
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, keys.text[attempt % (unsigned)keys.count],
                   CURVE_KEY_SIZE + 1);
    if (!zmq_connect(socket, address))
        return err_ok();
    return err_make(arena, ERR_IO, "cannot connect to %s: %s", address, zmq_strerror(zmq_errno()));
}

bool curve_changed(const curve_t *curve, const char *peer, uint64_t used)
{
    keys_t keys;
    arena_t *arena = arena_new();
    bool changed = !err_is(server_keys(curve, peer, arena, &keys)) && keys_hash(&keys) != used;
    arena_destroy(&arena);
    return changed;
}

/* ---- New keys ---- */

static err_t write_key(const char *path, const char *key, arena_t *arena)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_make(arena, errno == EEXIST ? ERR_EXISTS : ERR_IO, "cannot write %s: %s%s", path,
                        strerror(errno),
                        errno == EEXIST ? "; keys are never overwritten, name another directory"
                                        : "");
    const char *line = arena_printf(arena, "%s\n", key);
    bool good = write(fd, line, strlen(line)) == (ssize_t)strlen(line) && !fsync(fd);
    int why = errno;
    close(fd);
    if (good)
        return err_ok();
    unlink(path);
    return err_make(arena, ERR_IO, "cannot write %s: %s", path, strerror(why));
}

err_t curve_keygen(const char *dir, arena_t *arena, const char **public_key)
{
    char public[CURVE_KEY_SIZE + 1], secret[CURVE_KEY_SIZE + 1];
    if (mkdir(dir, 0700) && errno != EEXIST)
        return err_make(arena, ERR_IO, "cannot make the directory %s: %s", dir, strerror(errno));
    if (zmq_curve_keypair(public, secret))
        return err_make(arena, ERR_INTERNAL, "cannot make keys: %s", zmq_strerror(zmq_errno()));
    *public_key = arena_strdup(arena, public);
    err_t err = write_key(arena_printf(arena, "%s/curve.key", dir), secret, arena);
    if (!err_is(err))
        err = write_key(arena_printf(arena, "%s/curve.pub", dir), public, arena);
    explicit_bzero(secret, sizeof(secret));
    return err;
}
