#include "actors/health/fed.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "actors/health/health.h"

RECORD_DEFINE(fed_place, fed_place_FIELDS)

#define FED_METHODS(M)                                                                             \
    M(health_t, metric_feed, WRITES | ADMIN | UNREMEMBERED,                                        \
      "Takes lines of a metrics file on the volume of another replica, each once.")                \
    M(health_t, metric_feed_begin, READS | ADMIN | ANY_COMPANY, "Is that volume the owner's own?")
METHODS_SHARED(fed_methods, FED_METHODS)

/* ---- What is known of a file: under its inode, and under its name for when it is restored ---- */

enum { KIND_INODE = 1, KIND_NAME = 2 };

static store_key_t feed_key(const metric_feed_args_t *args, int kind)
{
    store_key_t key;
    key_open(&key);
    key_str(&key, args->pod);
    key_u8(&key, (uint8_t)kind);
    if (kind == KIND_INODE)
        key_u64(&key, (uint64_t)args->inode);
    else
        key_str(&key, args->name);
    return key;
}

static void load(store_txn_t *txn, const metric_feed_args_t *args, int kind, fed_place_t *out)
{
    store_key_t key = feed_key(args, kind);
    volume_place_t place;
    bytes_t value;
    *out = (fed_place_t){0};
    if (!txn || err_is(store_get(txn, TABLE_feeds, key_bytes(&key), &value)) ||
        value.size != sizeof(place))
        return;
    memcpy(&place, value.data, sizeof(place));
    *out = (fed_place_t){.offset = place.offset,
                         .head_size = (int64_t)place.head_size,
                         .head_hash = (int64_t)place.head_hash};
}

static err_t keep(store_txn_t *txn, const metric_feed_args_t *args)
{
    volume_place_t place = {.offset = args->next->offset,
                            .head_size = (uint64_t)args->next->head_size,
                            .head_hash = (uint64_t)args->next->head_hash};
    bytes_t value = {(const uint8_t *)&place, sizeof(place)};
    store_key_t inode = feed_key(args, KIND_INODE), name = feed_key(args, KIND_NAME);
    err_t err = store_put(txn, TABLE_feeds, key_bytes(&inode), value);
    return err_is(err) ? err : store_put(txn, TABLE_feeds, key_bytes(&name), value);
}

static bool same(const fed_place_t *one, const fed_place_t *other)
{
    fed_place_t none = {0};
    one = one ? one : &none;
    return one->offset == other->offset && one->head_hash == other->head_hash;
}

/* ---- Methods ---- */

static err_t take(health_t *self, call_t *call, const metric_feed_args_t *args)
{
    store_txn_t *txn;
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = tail_take_lines(self, call, call_company(call), txn, (const char *)args->lines.data,
                              args->lines.size);
    return err_is(err) ? err : keep(txn, args);
}

static err_t metric_feed(health_t *self, call_t *call, const metric_feed_args_t *args,
                         metric_feed_reply_t *reply)
{
    store_txn_t *txn = NULL;
    fed_place_t *places = ARENA_ARRAY(call_arena(call), fed_place_t, 2);
    err_t err = call_read(call, call_company(call), &txn);
    if (err_is(err) && err.code != ERR_NOT_FOUND)
        return err;
    load(txn, args, KIND_INODE, &places[0]);
    load(txn, args, KIND_NAME, &places[1]);
    reply->by_inode = &places[0];
    reply->by_name = &places[1];
    if (!args->lines.size || !args->next || !same(args->was, &places[0]))
        return err_ok();
    reply->taken = true;
    places[0] = *args->next;
    return take(self, call, args);
}

/* Whoever can write there and here has one volume mounted twice. */
static err_t metric_feed_begin(health_t *self, call_t *call, const metric_feed_begin_args_t *args,
                               metric_feed_begin_reply_t *reply)
{
    char text[80];
    arena_t *arena = call_arena(call);
    if (args->name[0] != '.' || strchr(args->name, '/'))
        return err_of(ERR_ARGUMENT, "name must be that of a hidden file in metrics/");
    const char *dir = volume_dir(self->actor, actor_default_company(self->actor), arena);
    int fd = open(arena_printf(arena, "%s/%s", dir, args->name),
                  O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return err_ok();
    ssize_t got = read(fd, text, sizeof(text));
    close(fd);
    size_t size = strlen(args->token);
    reply->shared = got == (ssize_t)size && !memcmp(text, args->token, size);
    return err_ok();
}
