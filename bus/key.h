/* key: keys of the store, built part by part so that the order of their bytes is the order of the
 * parts. A key is as large as LMDB takes one; it lives where its owner puts it. Thread: pure. */
#ifndef BUS_KEY_H
#define BUS_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/arena.h"

enum { STORE_KEY = 511 /* bytes */ };

typedef struct store_key {
    uint8_t data[STORE_KEY];
    size_t size;
    bool overflow; /* a part did not fit: the key is invalid */
} store_key_t;

void key_open(store_key_t *key);
void key_u8(store_key_t *key, uint8_t value);
void key_u64(store_key_t *key, uint64_t value);
void key_i64(store_key_t *key, int64_t value);
/* Ended by 0; a 0 inside is escaped. */
void key_str(store_key_t *key, const char *text);
/* Text to the end of the key, without an end mark. */
void key_raw(store_key_t *key, const void *data, size_t size);
bytes_t key_bytes(const store_key_t *key);

/* Reads parts back in the same order; false at the end. */
bool key_read_u8(bytes_t *key, uint8_t *value);
bool key_read_u64(bytes_t *key, uint64_t *value);
bool key_read_i64(bytes_t *key, int64_t *value);
bool key_read_str(bytes_t *key, arena_t *arena, const char **text);

#endif
