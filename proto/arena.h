/* arena: memory that lives as long as one request.
 *
 * Everything is freed at once by arena_destroy or arena_reset; nothing is freed by hand. Running
 * out of memory ends the process: every input is bounded, so that is a defect, not a case.
 * Memory from arena_alloc is zeroed and aligned for any type. Thread: one owner at a time.
 */
#ifndef PROTO_ARENA_H
#define PROTO_ARENA_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

typedef struct arena arena_t;

arena_t *arena_new(void);
void arena_destroy(arena_t **arena);

/* So many arenas that end on this thread wait for its next ones: malloc needs longer for a block
 * than most requests for all they take. 0, as it is at first, frees those that wait: a thread that
 * asked for more does so before it ends. */
void arena_spares(unsigned most);

/* Forgets everything but keeps the first block for reuse. */
void arena_reset(arena_t *arena);

/* Bytes handed out since new or reset. */
size_t arena_used(const arena_t *arena);

void *arena_alloc(arena_t *arena, size_t size);

/* Not zeroed. */
void *arena_piece(arena_t *arena, size_t size);

void *arena_copy(arena_t *arena, const void *data, size_t size);

/* NUL-terminated copies; arena_strdup(NULL) is NULL. */
char *arena_strdup(arena_t *arena, const char *text);
char *arena_strndup(arena_t *arena, const char *text, size_t size);
char *arena_printf(arena_t *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(arena_t *arena, const char *format, va_list args);

#define ARENA_NEW(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, count) ((type *)arena_alloc((arena), sizeof(type) * (count)))

/* A byte string that somebody else owns. */
typedef struct bytes {
    const uint8_t *data;
    size_t size;
} bytes_t;

/* A growing byte string in an arena; `data` is always NUL-terminated one past `size`. */
typedef struct buf {
    arena_t *arena;
    char *data;
    size_t size;
    size_t capacity;
} buf_t;

void buf_open(buf_t *buf, arena_t *arena);
void buf_put(buf_t *buf, const void *data, size_t size);
void buf_puts(buf_t *buf, const char *text);
void buf_printf(buf_t *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bytes_t buf_bytes(const buf_t *buf)
{
    return (bytes_t){(const uint8_t *)buf->data, buf->size};
}

#endif
