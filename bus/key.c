#include "bus/key.h"

#include <string.h>

void key_open(store_key_t *key)
{
    key->size = 0;
    key->overflow = false;
}

void key_raw(store_key_t *key, const void *data, size_t size)
{
    if (size > sizeof(key->data) - key->size) {
        key->overflow = true;
        return;
    }
    if (size)
        memcpy(key->data + key->size, data, size);
    key->size += size;
}

void key_u8(store_key_t *key, uint8_t value)
{
    key_raw(key, &value, 1);
}

void key_u64(store_key_t *key, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    key_raw(key, bytes, 8);
}

void key_i64(store_key_t *key, int64_t value)
{
    key_u64(key, (uint64_t)value ^ (uint64_t)1 << 63);
}

void key_str(store_key_t *key, const char *text)
{
    /* No 0 can be inside a C string, so 0 ends it and prefix order holds. */
    key_raw(key, text, strlen(text) + 1);
}

bytes_t key_bytes(const store_key_t *key)
{
    /* An overflown key is empty: LMDB refuses it, ERR_ARGUMENT. */
    return (bytes_t){key->data, key->overflow ? 0 : key->size};
}

bool key_read_u8(bytes_t *key, uint8_t *value)
{
    if (!key->size)
        return false;
    *value = *key->data++;
    key->size--;
    return true;
}

bool key_read_u64(bytes_t *key, uint64_t *value)
{
    if (key->size < 8)
        return false;
    *value = 0;
    for (int i = 0; i < 8; i++)
        *value = *value << 8 | key->data[i];
    key->data += 8;
    key->size -= 8;
    return true;
}

bool key_read_i64(bytes_t *key, int64_t *value)
{
    uint64_t raw;
    if (!key_read_u64(key, &raw))
        return false;
    *value = (int64_t)(raw ^ (uint64_t)1 << 63);
    return true;
}

bool key_read_str(bytes_t *key, arena_t *arena, const char **text)
{
    const uint8_t *end = memchr(key->data, 0, key->size);
    if (!end)
        return false;
    size_t size = (size_t)(end - key->data);
    *text = arena_strndup(arena, (const char *)key->data, size);
    key->data += size + 1;
    key->size -= size + 1;
    return true;
}
