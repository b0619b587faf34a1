#include "proto/arena.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a sanitizer looks for uses after the end no arena is kept. */
#if defined(__SANITIZE_ADDRESS__)
#define NO_SPARES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define NO_SPARES 1
#endif
#endif
#ifndef NO_SPARES
#define NO_SPARES 0
#endif

enum { FIRST_BLOCK = 4096, LARGEST_STEP = 1 << 20 };

typedef struct block {
    struct block *next;
    size_t size;
    size_t used;
    alignas(max_align_t) char data[];
} block_t;

struct arena {
    block_t *first; /* kept by reset */
    block_t *last;
    size_t used;
    struct arena *next; /* spare */
};

static _Thread_local struct {
    arena_t *first;
    unsigned count, most;
} spares;

static block_t *block_new(size_t size)
{
    block_t *block = malloc(sizeof(block_t) + size);
    if (!block)
        abort();
    block->next = NULL;
    block->size = size;
    block->used = 0;
    return block;
}

arena_t *arena_new(void)
{
    arena_t *arena = spares.first;
    if (arena) {
        spares.first = arena->next;
        spares.count--;
        return arena;
    }
    arena = calloc(1, sizeof(*arena));
    if (!arena)
        abort();
    arena->first = arena->last = block_new(FIRST_BLOCK - sizeof(block_t));
    return arena;
}

static void free_after(block_t *block)
{
    for (block_t *next = block->next; next;) {
        block_t *gone = next;
        next = next->next;
        free(gone);
    }
    block->next = NULL;
}

static void arena_free(arena_t *arena)
{
    free_after(arena->first);
    free(arena->first);
    free(arena);
}

void arena_spares(unsigned most)
{
    spares.most = NO_SPARES ? 0 : most;
    while (spares.count > spares.most) {
        arena_t *arena = spares.first;
        spares.first = arena->next;
        spares.count--;
        arena_free(arena);
    }
}

static bool keep_spare(arena_t *arena)
{
    if (spares.count >= spares.most)
        return false;
    arena_reset(arena);
    arena->next = spares.first;
    spares.first = arena;
    spares.count++;
    return true;
}

void arena_destroy(arena_t **arena)
{
    if (*arena && !keep_spare(*arena))
        arena_free(*arena);
    *arena = NULL;
}

void arena_reset(arena_t *arena)
{
    free_after(arena->first);
    arena->last = arena->first;
    arena->first->used = 0;
    arena->used = 0;
}

size_t arena_used(const arena_t *arena)
{
    return arena->used;
}

/* Room for `size` bytes, not cleared. */
static void *take(arena_t *arena, size_t size)
{
    if (size > SIZE_MAX / 4)
        abort();
    size_t rounded = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    block_t *block = arena->last;
    if (block->size - block->used < rounded) {
        size_t step = block->size * 2 < LARGEST_STEP ? block->size * 2 : LARGEST_STEP;
        block_t *fresh = block_new(rounded > step ? rounded : step);
        block->next = fresh;
        arena->last = block = fresh;
    }
    void *memory = block->data + block->used;
    block->used += rounded;
    arena->used += rounded;
    return memory;
}

void *arena_alloc(arena_t *arena, size_t size)
{
    return memset(take(arena, size), 0, size);
}

void *arena_piece(arena_t *arena, size_t size)
{
    return take(arena, size);
}

void *arena_copy(arena_t *arena, const void *data, size_t size)
{
    void *copy = take(arena, size);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

char *arena_strndup(arena_t *arena, const char *text, size_t size)
{
    char *copy = take(arena, size + 1);
    if (size)
        memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

char *arena_strdup(arena_t *arena, const char *text)
{
    return text ? arena_strndup(arena, text, strlen(text)) : NULL;
}

char *arena_vprintf(arena_t *arena, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    if (!format)
        abort(); /* never; without it the checks of gcc's sanitizers see a way to NULL here */
    int size = vsnprintf(NULL, 0, format, args);
    if (size < 0)
        abort();
    char *text = take(arena, (size_t)size + 1);
    vsnprintf(text, (size_t)size + 1, format, again);
    va_end(again);
    return text;
}

char *arena_printf(arena_t *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = arena_vprintf(arena, format, args);
    va_end(args);
    return text;
}

void buf_open(buf_t *buf, arena_t *arena)
{
    *buf = (buf_t){.arena = arena, .data = arena_alloc(arena, 64), .capacity = 64};
}

void buf_put(buf_t *buf, const void *data, size_t size)
{
    if (buf->size + size + 1 > buf->capacity) {
        size_t capacity = buf->capacity * 2;
        while (capacity < buf->size + size + 1)
            capacity *= 2;
        char *grown = take(buf->arena, capacity);
        memcpy(grown, buf->data, buf->size);
        buf->data = grown;
        buf->capacity = capacity;
    }
    if (size)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
}

void buf_puts(buf_t *buf, const char *text)
{
    buf_put(buf, text, strlen(text));
}

void buf_printf(buf_t *buf, const char *format, ...)
{
    char small[256];
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int size = vsnprintf(small, sizeof(small), format, args);
    va_end(args);
    if (size < 0)
        abort();
    if ((size_t)size < sizeof(small))
        buf_put(buf, small, (size_t)size);
    else
        buf_puts(buf, arena_vprintf(buf->arena, format, again));
    va_end(again);
}
