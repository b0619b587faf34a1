#include "actors/brain/filter.h"

#include <string.h>

#include "proto/mp.h"

enum { NAMES_MAX = 64, NAME_LARGEST = 256 };

typedef enum condition { EQ, NE, GT, GTE, LT, LTE, IN, EXISTS, CONDITIONS } condition_t;

static const char *const condition_names[CONDITIONS] = {"eq", "ne",  "gt", "gte",
                                                        "lt", "lte", "in", "exists"};

static const char *const own_names[] = {"author", "thread",   "taskId",    "type", "source_agency",
                                        "tokens", "duration", "timestamp", NULL};

static condition_t condition_of(const char *text, size_t size)
{
    for (int i = 0; i < CONDITIONS; i++)
        if (strlen(condition_names[i]) == size && memcmp(condition_names[i], text, size) == 0)
            return (condition_t)i;
    return CONDITIONS;
}

static err_t check_conditions(bytes_t map, const char *name, arena_t *arena)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    bytes_t value;
    mp_type_t type;

    if (!mp_read(&reader, &head) || head.count == 0)
        return err_make(arena, ERR_ARGUMENT, "the filter for %s has no condition", name);
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_slice(&reader, &value))
            return err_of(ERR_ARGUMENT, "the filter cannot be read");
        condition_t condition = condition_of(key.text, key.size);
        if (condition == CONDITIONS)
            return err_make(arena, ERR_ARGUMENT,
                            "the filter for %s has an unknown condition %.*s: use eq, ne, gt, gte, "
                            "lt, lte, in or exists",
                            name, (int)(key.size < 40 ? key.size : 40), key.text);
        if (condition == IN && (!mp_type_of(value, &type) || type != MP_ARRAY))
            return err_make(arena, ERR_ARGUMENT, "the filter for %s: in needs a list", name);
        if (condition == EXISTS && (!mp_type_of(value, &type) || type != MP_BOOL))
            return err_make(arena, ERR_ARGUMENT, "the filter for %s: exists needs true or false",
                            name);
    }
    return err_ok();
}

err_t filter_check(bytes_t filter, arena_t *arena)
{
    mp_reader_t reader = mp_reader(filter);
    mp_value_t head, key;
    bytes_t value;
    mp_type_t type;

    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return err_of(ERR_ARGUMENT, "filter must be an object of names and values");
    if (head.count > NAMES_MAX)
        return err_of(ERR_ARGUMENT, "filter has more than 64 names");
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_slice(&reader, &value))
            return err_of(ERR_ARGUMENT, "the filter cannot be read");
        if (key.size > NAME_LARGEST)
            return err_of(ERR_ARGUMENT, "a name in the filter is longer than 256 bytes");
        if (!mp_type_of(value, &type) || type != MP_MAP)
            continue;
        err_t err = check_conditions(
            value, arena_strndup(arena, key.text, key.size < 64 ? key.size : 64), arena);
        if (err_is(err))
            return err;
    }
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

static bool find_fact(bytes_t episode, const char *name, bytes_t *fact)
{
    bytes_t metadata;
    mp_type_t type;

    for (int i = 0; own_names[i]; i++)
        if (strcmp(own_names[i], name) == 0)
            return mp_get(episode, name, fact);
    return mp_get(episode, "metadata", &metadata) && mp_get(metadata, name, fact) &&
           mp_type_of(*fact, &type) && type != MP_NIL;
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
