#include "actors/brain/filter.h"

#include <string.h>

#include "proto/mp.h"
#include "proto/record.h"

enum { NAMES_MAX = 64, NAME_LARGEST = 256 };

typedef enum condition { EQ, NE, GT, GTE, LT, LTE, IN, EXISTS, CONDITIONS } condition_t;

static const char *const condition_names[CONDITIONS] = {"eq", "ne",  "gt", "gte",
                                                        "lt", "lte", "in", "exists"};

static const char *const own_names[] = {"author", "thread",   "taskId",    "type", "source_agency",
                                        "tokens", "duration", "timestamp", NULL};
/* These too, where metadata does not use the name for something of its own. */
static const char *const own_if_free[] = {"id", "stored_by", "related_episode_id", NULL};

static condition_t condition_of(const char *text, size_t size)
{
    for (int i = 0; i < CONDITIONS; i++)
        if (strlen(condition_names[i]) == size && memcmp(condition_names[i], text, size) == 0)
            return (condition_t)i;
    return CONDITIONS;
}

/* A text becomes ms since 1970, so that it compares with the memory's own time. */
static err_t put_time(buf_t *out, bytes_t value, arena_t *arena)
{
    mp_type_t type;
    int64_t ms;

    if (!mp_type_of(value, &type) || type != MP_STR) {
        mp_put_raw(out, value);
        return err_ok();
    }
    const char *text = mp_text(arena, value);
    if (!record_time(text, &ms))
        return err_make(arena, ERR_ARGUMENT,
                        "the filter for timestamp needs times: milliseconds since 1970, or text "
                        "such as 2026-01-31T12:00:00Z, not '%.40s'",
                        text);
    mp_put_int(out, ms);
    return err_ok();
}

static err_t put_times(buf_t *out, bytes_t value, arena_t *arena)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    bytes_t item;
    err_t err = err_ok();

    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return put_time(out, value, arena);
    mp_put_array(out, head.count);
    for (uint32_t i = 0; i < head.count && !err_is(err) && mp_slice(&reader, &item); i++)
        err = put_time(out, item, arena);
    return err;
}

static err_t check_condition(condition_t condition, bytes_t value, const char *name, arena_t *arena)
{
    mp_type_t type;

    if (condition == IN && (!mp_type_of(value, &type) || type != MP_ARRAY))
        return err_make(arena, ERR_ARGUMENT, "the filter for %s: in needs a list", name);
    if (condition == EXISTS && (!mp_type_of(value, &type) || type != MP_BOOL))
        return err_make(arena, ERR_ARGUMENT, "the filter for %s: exists needs true or false", name);
    return err_ok();
}

/* The conditions for one name, as put_entry; `map` is one. */
static err_t put_conditions(buf_t *out, bytes_t map, const char *name, bool time, arena_t *arena)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    bytes_t value;

    if (!mp_read(&reader, &head) || head.count == 0)
        return err_make(arena, ERR_ARGUMENT, "the filter for %s has no condition", name);
    mp_put_map(out, head.count);
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_slice(&reader, &value))
            return err_of(ERR_ARGUMENT, "the filter cannot be read");
        condition_t condition = condition_of(key.text, key.size);
        int shown = (int)(key.size < 40 ? key.size : 40);
        if (condition == CONDITIONS)
            return err_make(arena, ERR_ARGUMENT,
                            "the filter for %s has an unknown condition %.*s: use eq, ne, gt, gte, "
                            "lt, lte, in or exists; what is inside an object is named %s.%.*s",
                            name, shown, key.text, name, shown, key.text);
        err_t err = check_condition(condition, value, name, arena);
        mp_put_strn(out, key.text, key.size);
        if (!err_is(err) && time && condition != EXISTS)
            err = put_times(out, value, arena);
        else
            mp_put_raw(out, value);
        if (err_is(err))
            return err;
    }
    return err_ok();
}

static err_t put_entry(buf_t *out, const mp_value_t *key, bytes_t value, arena_t *arena)
{
    const char *name = arena_strndup(arena, key->text, key->size < 64 ? key->size : 64);
    bool time = strcmp(name, "timestamp") == 0;
    mp_type_t type;

    mp_put_strn(out, key->text, key->size);
    if (mp_type_of(value, &type) && type == MP_MAP)
        return put_conditions(out, value, name, time, arena);
    if (time)
        return put_times(out, value, arena);
    mp_put_raw(out, value);
    return err_ok();
}

err_t filter_read(bytes_t filter, arena_t *arena, bytes_t *out)
{
    mp_reader_t reader = mp_reader(filter);
    mp_value_t head, key;
    bytes_t value;
    buf_t read;

    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return err_of(ERR_ARGUMENT, "filter must be an object of names and values");
    if (head.count > NAMES_MAX)
        return err_of(ERR_ARGUMENT, "filter has more than 64 names");
    buf_open(&read, arena);
    mp_put_map(&read, head.count);
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_slice(&reader, &value))
            return err_of(ERR_ARGUMENT, "the filter cannot be read");
        if (key.size > NAME_LARGEST)
            return err_of(ERR_ARGUMENT, "a name in the filter is longer than 256 bytes");
        err_t err = put_entry(&read, &key, value, arena);
        if (err_is(err))
            return err;
    }
    *out = buf_bytes(&read);
    return err_ok();
}

/* ---- passing ---- */

/* -1, 0, 1; 2: not comparable. */
static int order(bytes_t a, bytes_t b)
{
    double x, y;
    mp_reader_t ra = mp_reader(a), rb = mp_reader(b);
    mp_value_t va, vb;
    int64_t i, j;

    if (mp_int(a, &i) && mp_int(b, &j))
        return i < j ? -1 : i > j;
    if (mp_real(a, &x) && mp_real(b, &y))
        return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
    if (!mp_read(&ra, &va) || !mp_read(&rb, &vb) || va.type != MP_STR || vb.type != MP_STR)
        return 2;
    uint32_t common = va.size < vb.size ? va.size : vb.size;
    int result = memcmp(va.text, vb.text, common);
    if (result == 0)
        return va.size < vb.size ? -1 : va.size > vb.size;
    return result < 0 ? -1 : 1;
}

static bool equals(bytes_t a, bytes_t b)
{
    return mp_same(a, b) || order(a, b) == 0;
}

static bool one_passes(bytes_t fact, condition_t condition, bytes_t wanted)
{
    mp_reader_t reader = mp_reader(wanted);
    mp_value_t head;
    bytes_t item;

    switch (condition) {
    case EQ:
        return equals(fact, wanted);
    case NE:
        return !equals(fact, wanted);
    case GT:
        return order(fact, wanted) == 1;
    case GTE:
        return order(fact, wanted) == 1 || order(fact, wanted) == 0;
    case LT:
        return order(fact, wanted) == -1;
    case LTE:
        return order(fact, wanted) == -1 || order(fact, wanted) == 0;
    case IN:
        if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
            return false;
        for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++)
            if (equals(fact, item))
                return true;
        return false;
    case EXISTS:
    case CONDITIONS:
        break;
    }
    return false;
}

/* Of a list one item must pass; for ne all must. */
static bool fact_passes(bytes_t fact, condition_t condition, bytes_t wanted)
{
    mp_reader_t reader = mp_reader(fact);
    mp_value_t head;
    bytes_t item;

    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return one_passes(fact, condition, wanted);
    if (condition == EQ && mp_same(fact, wanted))
        return true;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &item); i++)
        if (one_passes(item, condition, wanted) == (condition != NE))
            return condition != NE;
    return condition == NE;
}

static bool conditions_pass(bytes_t fact, bool there, bytes_t conditions)
{
    mp_reader_t reader = mp_reader(conditions);
    mp_value_t head, key;
    bytes_t wanted;

    if (!mp_read(&reader, &head))
        return false;
    for (uint32_t i = 0; i < head.count; i++) {
        bool must = false;
        if (!mp_read(&reader, &key) || !mp_slice(&reader, &wanted))
            return false;
        condition_t condition = condition_of(key.text, key.size);
        if (condition == EXISTS) {
            if (!mp_bool(wanted, &must) || must != there)
                return false;
        } else if (there ? !fact_passes(fact, condition, wanted) : condition != NE) {
            return false;
        }
    }
    return true;
}

static bool is_one_of(const char *const *names, const char *name)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

/* customer.plan: a name with a dot, or a name inside the object of another. */
static bool find_inside(bytes_t map, const char *name, bytes_t *fact)
{
    char outer[NAME_LARGEST + 1];

    while (!mp_get(map, name, fact)) {
        size_t size = strcspn(name, ".");
        if (!name[size])
            return false;
        memcpy(outer, name, size);
        outer[size] = 0;
        if (!mp_get(map, outer, &map))
            return false;
        name += size + 1;
    }
    return true;
}

static bool find_fact(bytes_t episode, const char *name, bytes_t *fact)
{
    bytes_t metadata;
    mp_type_t type;

    if (is_one_of(own_names, name))
        return mp_get(episode, name, fact);
    if (mp_get(episode, "metadata", &metadata) && find_inside(metadata, name, fact))
        return mp_type_of(*fact, &type) && type != MP_NIL;
    return is_one_of(own_if_free, name) && mp_get(episode, name, fact);
}

bool filter_passes(bytes_t filter, bytes_t episode)
{
    mp_reader_t reader = mp_reader(filter);
    mp_value_t head, key;
    bytes_t wanted, fact = {0};
    mp_type_t type;
    char name[NAME_LARGEST + 1];

    if (!mp_read(&reader, &head))
        return false;
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || !mp_slice(&reader, &wanted) || key.size >= sizeof name)
            return false;
        memcpy(name, key.text, key.size);
        name[key.size] = 0;
        bool there = find_fact(episode, name, &fact);
        bool passes = mp_type_of(wanted, &type) && type == MP_MAP
                          ? conditions_pass(fact, there, wanted)
                          : there && fact_passes(fact, EQ, wanted);
        if (!passes)
            return false;
    }
    return true;
}
