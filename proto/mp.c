#include "proto/mp.h"

#include <msgpack.h>
#include <string.h>

static uint64_t big_endian(const uint8_t *at, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value = value << 8 | at[i];
    return value;
}

static bool room(const mp_reader_t *reader, uint64_t size)
{
    return (uint64_t)(reader->end - reader->at) >= size;
}

/* Reads a big-endian number of `size` bytes behind the lead byte. */
static bool number(mp_reader_t *reader, int size, uint64_t *value)
{
    if (!room(reader, (uint64_t)size))
        return false;
    *value = big_endian(reader->at, size);
    reader->at += size;
    return true;
}

static bool take_text(mp_reader_t *reader, mp_value_t *value, mp_type_t type, uint64_t size)
{
    if (!room(reader, size))
        return false;
    value->type = type;
    value->text = (const char *)reader->at;
    value->size = (uint32_t)size;
    reader->at += size;
    return true;
}

/* Every element takes at least one byte, so a count beyond the bytes left is a lie. */
static bool take_count(mp_reader_t *reader, mp_value_t *value, mp_type_t type, uint64_t count)
{
    if (!room(reader, type == MP_MAP ? count * 2 : count))
        return false;
    value->type = type;
    value->count = (uint32_t)count;
    return true;
}

static bool take_signed(mp_reader_t *reader, mp_value_t *value, int size)
{
    uint64_t raw;
    if (!number(reader, size, &raw))
        return false;
    int shift = 64 - size * 8;
    value->type = MP_INT;
    value->integer = (int64_t)(raw << shift) >> shift;
    return true;
}

static bool take_unsigned(mp_reader_t *reader, mp_value_t *value, int size)
{
    uint64_t raw;
    if (!number(reader, size, &raw))
        return false;
    value->type = raw > INT64_MAX ? MP_UINT : MP_INT;
    value->natural = raw;
    return true;
}

static bool take_real(mp_reader_t *reader, mp_value_t *value, int size)
{
    uint64_t raw;
    if (!number(reader, size, &raw))
        return false;
    value->type = MP_REAL;
    if (size == 8) {
        memcpy(&value->real, &raw, sizeof(raw));
    } else {
        uint32_t narrow = (uint32_t)raw;
        float real;
        memcpy(&real, &narrow, sizeof(real));
        value->real = (double)real;
    }
    return true;
}

static bool read_sized(mp_reader_t *reader, mp_value_t *value, mp_type_t type, int size)
{
    uint64_t count;
    if (!number(reader, size, &count))
        return false;
    if (type == MP_STR || type == MP_BIN)
        return take_text(reader, value, type, count);
    return take_count(reader, value, type, count);
}

bool mp_read(mp_reader_t *reader, mp_value_t *value)
{
    if (reader->at >= reader->end)
        return false;
    uint8_t lead = *reader->at++;
    value->count = 0;
    if (lead <= 0x7f || lead >= 0xe0) {
        value->type = MP_INT;
        value->integer = (int8_t)lead;
        return true;
    }
    if (lead <= 0x8f)
        return take_count(reader, value, MP_MAP, lead & 0x0f);
    if (lead <= 0x9f)
        return take_count(reader, value, MP_ARRAY, lead & 0x0f);
    if (lead <= 0xbf)
        return take_text(reader, value, MP_STR, lead & 0x1f);
    switch (lead) {
    case 0xc0:
        value->type = MP_NIL;
        return true;
    case 0xc2:
    case 0xc3:
        value->type = MP_BOOL;
        value->boolean = lead == 0xc3;
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return read_sized(reader, value, MP_BIN, 1 << (lead - 0xc4));
    case 0xca:
    case 0xcb:
        return take_real(reader, value, lead == 0xca ? 4 : 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return take_unsigned(reader, value, 1 << (lead - 0xcc));
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return take_signed(reader, value, 1 << (lead - 0xd0));
    case 0xd9:
    case 0xda:
    case 0xdb:
        return read_sized(reader, value, MP_STR, 1 << (lead - 0xd9));
    case 0xdc:
    case 0xdd:
        return read_sized(reader, value, MP_ARRAY, lead == 0xdc ? 2 : 4);
    case 0xde:
    case 0xdf:
        return read_sized(reader, value, MP_MAP, lead == 0xde ? 2 : 4);
    default: /* ext types and the never used 0xc1 */
        return false;
    }
}

/* Most values are small integers and short texts: one byte says how long they are. */
static bool skip_short(mp_reader_t *reader)
{
    if (reader->at >= reader->end)
        return false;
    uint8_t lead = *reader->at;
    size_t size = 1;
    if (lead >= 0xa0 && lead <= 0xbf)
        size += lead & 0x1f;
    else if (lead > 0x7f && lead < 0xe0)
        return false;
    if (!room(reader, size))
        return false;
    reader->at += size;
    return true;
}

bool mp_skip(mp_reader_t *reader)
{
    if (skip_short(reader))
        return true;
    uint64_t left[MP_DEPTH + 1]; /* only what is in use is set: most values are scalars */
    int depth = 0;
    left[0] = 1;
    for (;;) {
        while (!left[depth]) {
            if (!depth)
                return true;
            depth--;
        }
        left[depth]--;
        if (skip_short(reader))
            continue;
        mp_value_t value;
        if (!mp_read(reader, &value))
            return false;
        if (!value.count)
            continue;
        if (depth == MP_DEPTH)
            return false;
        left[++depth] = value.type == MP_MAP ? 2 * (uint64_t)value.count : value.count;
    }
}

bool mp_slice(mp_reader_t *reader, bytes_t *whole)
{
    const uint8_t *start = reader->at;
    if (!mp_skip(reader))
        return false;
    *whole = (bytes_t){start, (size_t)(reader->at - start)};
    return true;
}

/* Table 3-7 of the Unicode standard: shortest form, no surrogates, at most U+10FFFF. */
static size_t utf8_step(const uint8_t *at, size_t left)
{
    uint8_t lead = at[0];
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (left < size)
        return 0;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return size;
}

bool mp_utf8(const char *text, size_t size)
{
    const uint8_t *at = (const uint8_t *)text;
    while (size) {
        uint64_t word;
        if (size >= 8 && (memcpy(&word, at, 8), !(word & 0x8080808080808080u))) {
            at += 8;
            size -= 8;
            continue;
        }
        size_t step = utf8_step(at, size);
        if (!step)
            return false;
        at += step;
        size -= step;
    }
    return true;
}

/* What mp_check still expects on one level of nesting. */
typedef struct level {
    uint64_t left;
    bool map;
} level_t;

static const char *check_value(const level_t *level, const mp_value_t *value)
{
    /* Counting down the 2n parts of a map, keys are where an odd number is left after taking. */
    if (level->map && level->left % 2 && value->type != MP_STR)
        return "a map key is not a string";
    if (value->type == MP_STR && !mp_utf8(value->text, value->size))
        return "a string is not valid UTF-8";
    return NULL;
}

err_t mp_check(bytes_t bytes)
{
    return mp_check_depth(bytes, MP_DEPTH);
}

err_t mp_check_depth(bytes_t bytes, int deepest)
{
    mp_reader_t reader = mp_reader(bytes);
    level_t levels[MP_DEPTH + 1];
    levels[0] = (level_t){1, false};
    for (int depth = 0; depth >= 0;) {
        if (!levels[depth].left) {
            depth--;
            continue;
        }
        levels[depth].left--;
        mp_value_t value;
        if (!mp_read(&reader, &value))
            return err_of(ERR_PARSE, "the msgpack is cut off or malformed");
        const char *wrong = check_value(&levels[depth], &value);
        if (wrong)
            return err_of(ERR_PARSE, wrong);
        if (!value.count)
            continue;
        if (depth >= deepest || depth >= MP_DEPTH)
            return err_of(ERR_PARSE, "values are nested too deep");
        bool map = value.type == MP_MAP;
        levels[++depth] = (level_t){map ? 2 * (uint64_t)value.count : value.count, map};
    }
    if (reader.at != reader.end)
        return err_of(ERR_PARSE, "there are bytes behind the msgpack value");
    return err_ok();
}

bool mp_get(bytes_t map, const char *key, bytes_t *value)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, name;
    size_t size = strlen(key);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return false;
    for (uint32_t i = 0; i < head.count; i++) {
        mp_reader_t start = reader;
        if (!mp_read(&reader, &name))
            return false;
        if (name.count) { /* a key that is a container is stepped over */
            reader = start;
            if (!mp_skip(&reader))
                return false;
        }
        if (name.type == MP_STR && name.size == size && !memcmp(name.text, key, size))
            return mp_slice(&reader, value);
        if (!mp_skip(&reader))
            return false;
    }
    return false;
}

bool mp_pick(bytes_t map, const char *const *keys, size_t count, bytes_t *values)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, name;
    for (size_t i = 0; i < count; i++)
        values[i] = (bytes_t){0};
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return false;
    for (uint32_t left = head.count; left; left--) {
        mp_reader_t start = reader;
        bytes_t value;
        if (!mp_read(&reader, &name))
            break;
        if (name.count) {
            reader = start;
            if (!mp_skip(&reader))
                break;
        }
        if (!mp_slice(&reader, &value))
            break;
        for (size_t i = 0; name.type == MP_STR && i < count; i++)
            if (!values[i].size && strlen(keys[i]) == name.size &&
                !memcmp(keys[i], name.text, name.size))
                values[i] = value;
    }
    return true;
}

bool mp_at(bytes_t array, uint32_t index, bytes_t *value)
{
    mp_reader_t reader = mp_reader(array);
    mp_value_t head;
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY || index >= head.count)
        return false;
    while (index--)
        if (!mp_skip(&reader))
            return false;
    return mp_slice(&reader, value);
}

static bool head_of(bytes_t value, mp_value_t *head)
{
    mp_reader_t reader = mp_reader(value);
    return mp_read(&reader, head);
}

bool mp_int(bytes_t value, int64_t *out)
{
    mp_value_t head;
    if (!head_of(value, &head))
        return false;
    if (head.type == MP_REAL && head.real >= -9007199254740992.0 &&
        head.real <= 9007199254740992.0 && head.real == (double)(int64_t)head.real) {
        *out = (int64_t)head.real;
        return true;
    }
    if (head.type != MP_INT)
        return false;
    *out = head.integer;
    return true;
}

bool mp_real(bytes_t value, double *out)
{
    mp_value_t head;
    if (!head_of(value, &head))
        return false;
    if (head.type == MP_REAL)
        *out = head.real;
    else if (head.type == MP_INT)
        *out = (double)head.integer;
    else if (head.type == MP_UINT)
        *out = (double)head.natural;
    else
        return false;
    return true;
}

bool mp_bool(bytes_t value, bool *out)
{
    mp_value_t head;
    if (!head_of(value, &head) || head.type != MP_BOOL)
        return false;
    *out = head.boolean;
    return true;
}

const char *mp_text(arena_t *arena, bytes_t value)
{
    mp_value_t head;
    if (!head_of(value, &head) || head.type != MP_STR)
        return NULL;
    return arena_strndup(arena, head.text, head.size);
}

bytes_t mp_member(bytes_t map, const char *key)
{
    bytes_t field;
    return map.size && mp_get(map, key, &field) ? field : (bytes_t){0};
}

const char *mp_member_text(arena_t *arena, bytes_t map, const char *key)
{
    bytes_t field = mp_member(map, key);
    return field.size ? mp_text(arena, field) : NULL;
}

bool mp_member_true(bytes_t map, const char *key)
{
    bool value = false;
    bytes_t field = mp_member(map, key);
    return field.size && mp_bool(field, &value) && value;
}

int64_t mp_member_int(bytes_t map, const char *key)
{
    int64_t value = 0;
    bytes_t field = mp_member(map, key);
    return field.size && mp_int(field, &value) ? value : 0;
}

bool mp_type_of(bytes_t value, mp_type_t *out)
{
    mp_value_t head;
    if (!head_of(value, &head))
        return false;
    *out = head.type;
    return true;
}

bool mp_equals(bytes_t value, const char *text)
{
    mp_value_t head;
    return head_of(value, &head) && head.type == MP_STR && head.size == strlen(text) &&
           !memcmp(head.text, text, head.size);
}

/* Exactly equal: a double is first made an integer, never an integer a double. */
static bool same_number(const mp_value_t *one, const mp_value_t *other)
{
    if (one->type == MP_REAL && other->type == MP_REAL)
        return one->real == other->real;
    if (one->type == MP_REAL)
        return same_number(other, one);
    if (other->type != MP_REAL) /* a value has one integer type: MP_UINT only above INT64_MAX */
        return one->type == other->type && one->natural == other->natural;
    if (one->type == MP_INT)
        return other->real >= -0x1p63 && other->real < 0x1p63 &&
               other->real == (double)one->integer && (int64_t)other->real == one->integer;
    return other->real >= 0x1p63 && other->real < 0x1p64 && (uint64_t)other->real == one->natural;
}

static bool is_number(const mp_value_t *value)
{
    return value->type == MP_INT || value->type == MP_UINT || value->type == MP_REAL;
}

bool mp_same(bytes_t one, bytes_t other)
{
    if (one.size == other.size && (!one.size || !memcmp(one.data, other.data, one.size)))
        return true;
    mp_value_t first, second;
    return head_of(one, &first) && head_of(other, &second) && is_number(&first) &&
           is_number(&second) && same_number(&first, &second);
}

static int write_to_buf(void *data, const char *bytes, size_t size)
{
    buf_put(data, bytes, size);
    return 0;
}

static msgpack_packer packer(buf_t *out)
{
    return (msgpack_packer){.data = out, .callback = write_to_buf};
}

void mp_put_nil(buf_t *out)
{
    msgpack_packer pack = packer(out);
    msgpack_pack_nil(&pack);
}

void mp_put_bool(buf_t *out, bool value)
{
    msgpack_packer pack = packer(out);
    if (value)
        msgpack_pack_true(&pack);
    else
        msgpack_pack_false(&pack);
}

void mp_put_int(buf_t *out, int64_t value)
{
    msgpack_packer pack = packer(out);
    msgpack_pack_int64(&pack, value);
}

void mp_put_uint(buf_t *out, uint64_t value)
{
    msgpack_packer pack = packer(out);
    msgpack_pack_uint64(&pack, value);
}

void mp_put_real(buf_t *out, double value)
{
    msgpack_packer pack = packer(out);
    msgpack_pack_double(&pack, value);
}

void mp_put_str(buf_t *out, const char *text)
{
    if (text)
        mp_put_strn(out, text, strlen(text));
    else
        mp_put_nil(out);
}

void mp_put_strn(buf_t *out, const char *text, size_t size)
{
    if (size && size < 32) { /* most keys: head and text in one go */
        char small[32] = {(char)(0xa0 | size)};
        memcpy(small + 1, text, size);
        buf_put(out, small, size + 1);
        return;
    }
    msgpack_packer pack = packer(out);
    msgpack_pack_str(&pack, size);
    buf_put(out, text, size);
}

bytes_t mp_str(arena_t *arena, const char *text)
{
    buf_t out;
    buf_open(&out, arena);
    mp_put_str(&out, text);
    return buf_bytes(&out);
}

void mp_put_bin(buf_t *out, const void *data, size_t size)
{
    msgpack_packer pack = packer(out);
    msgpack_pack_bin(&pack, size);
    buf_put(out, data, size);
}

void mp_put_array(buf_t *out, uint32_t count)
{
    msgpack_packer pack = packer(out);
    msgpack_pack_array(&pack, count);
}

void mp_put_map(buf_t *out, uint32_t pairs)
{
    msgpack_packer pack = packer(out);
    msgpack_pack_map(&pack, pairs);
}

void mp_put_raw(buf_t *out, bytes_t value)
{
    if (value.size)
        buf_put(out, value.data, value.size);
    else
        mp_put_nil(out);
}
