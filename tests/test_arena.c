/* The arena: alignment, zeroes, growth, reset, and the growing byte string on top. */
#include <check.h>
#include <signal.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/arena.h"

static bool all_are(const unsigned char *memory, size_t size, unsigned char value)
{
    for (size_t i = 0; i < size; i++)
        if (memory[i] != value)
            return false;
    return true;
}

START_TEST(memory_is_aligned_and_zeroed)
{
    arena_t *arena = arena_new();
    for (size_t size = 0; size < 300; size++) {
        unsigned char *memory = arena_alloc(arena, size);
        ck_assert_ptr_nonnull(memory);
        ck_assert_uint_eq((uintptr_t)memory % alignof(max_align_t), 0);
        ck_assert(all_are(memory, size, 0));
        memset(memory, 0xA5, size);
    }
    arena_destroy(&arena);
    ck_assert_ptr_null(arena);
    arena_destroy(&arena); /* twice is allowed */
}
END_TEST

START_TEST(pieces_do_not_overlap)
{
    enum { PIECES = 500 };
    arena_t *arena = arena_new();
    unsigned char *pieces[PIECES];
    size_t sizes[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        sizes[i] = 1 + i * 37 % 5000;
        pieces[i] = arena_alloc(arena, sizes[i]);
        memset(pieces[i], (int)(i & 0xFF), sizes[i]);
    }
    for (size_t i = 0; i < PIECES; i++)
        ck_assert(all_are(pieces[i], sizes[i], (unsigned char)i));
    arena_destroy(&arena);
}
END_TEST

START_TEST(reset_forgets_and_zeroes_again)
{
    arena_t *arena = arena_new();
    unsigned char *before = arena_alloc(arena, 100);
    memset(before, 0xFF, 100);
    arena_alloc(arena, 3 << 20); /* a block of its own, freed by the reset */
    ck_assert_uint_ge(arena_used(arena), (3 << 20) + 100);
    arena_reset(arena);
    ck_assert_uint_eq(arena_used(arena), 0);
    unsigned char *after = arena_alloc(arena, 100);
    ck_assert_ptr_eq(after, before); /* the first block is used again */
    ck_assert(all_are(after, 100, 0));
    arena_destroy(&arena);
}
END_TEST

START_TEST(used_counts_what_was_handed_out)
{
    arena_t *arena = arena_new();
    ck_assert_uint_eq(arena_used(arena), 0);
    size_t asked = 0;
    for (size_t i = 1; i <= 1000; i++) {
        arena_alloc(arena, i);
        asked += i;
    }
    ck_assert_uint_ge(arena_used(arena), asked);
    ck_assert_uint_lt(arena_used(arena), asked + 1000 * alignof(max_align_t));
    arena_destroy(&arena);
}
END_TEST

START_TEST(copies_are_copies)
{
    arena_t *arena = arena_new();
    char text[] = "one\0two";
    char *copy = arena_copy(arena, text, sizeof(text));
    char *first = arena_strdup(arena, text);
    char *part = arena_strndup(arena, "abcdef", 3);
    text[0] = 'x';
    ck_assert_mem_eq(copy, "one\0two", sizeof(text));
    ck_assert_str_eq(first, "one");
    ck_assert_str_eq(part, "abc");
    ck_assert_str_eq(arena_strndup(arena, NULL, 0), "");
    ck_assert_ptr_nonnull(arena_copy(arena, NULL, 0));
    ck_assert_ptr_null(arena_strdup(arena, NULL));
    arena_destroy(&arena);
}
END_TEST

START_TEST(printing_takes_any_length)
{
    arena_t *arena = arena_new();
    ck_assert_str_eq(arena_printf(arena, "%s-%d", "seven", 7), "seven-7");
    ck_assert_str_eq(arena_printf(arena, "%s", ""), "");
    char *wide = arena_printf(arena, "%*d", 100000, 5);
    ck_assert_uint_eq(strlen(wide), 100000);
    ck_assert_int_eq(wide[99999], '5');
    arena_destroy(&arena);
}
END_TEST

/* A size that only an overflow can have made ends the process; it must not wrap to a small one. */
START_TEST(an_absurd_size_ends_the_process)
{
    arena_t *arena = arena_new();
    arena_alloc(arena, SIZE_MAX - 7);
    arena_destroy(&arena);
}
END_TEST

START_TEST(a_buf_grows_and_stays_terminated)
{
    arena_t *arena = arena_new();
    buf_t buf;
    buf_open(&buf, arena);
    ck_assert_str_eq(buf.data, "");
    for (size_t i = 0; i < 10000; i++) {
        char byte = (char)('a' + i % 26);
        buf_put(&buf, &byte, 1);
        ck_assert_uint_eq(buf.size, i + 1);
        ck_assert_int_eq(buf.data[buf.size], '\0');
    }
    for (size_t i = 0; i < buf.size; i++)
        ck_assert_int_eq(buf.data[i], 'a' + (int)(i % 26));
    buf_put(&buf, NULL, 0);
    ck_assert_uint_eq(buf.size, 10000);
    bytes_t bytes = buf_bytes(&buf);
    ck_assert_ptr_eq(bytes.data, buf.data);
    ck_assert_uint_eq(bytes.size, 10000);
    arena_destroy(&arena);
}
END_TEST

/* Around the size of its own small array a print changes its way. */
START_TEST(a_buf_prints_short_and_long)
{
    arena_t *arena = arena_new();
    for (int width = 250; width <= 260; width++) {
        buf_t buf;
        buf_open(&buf, arena);
        buf_puts(&buf, "<");
        buf_printf(&buf, "%*d", width, 9);
        buf_puts(&buf, ">");
        ck_assert_uint_eq(buf.size, (size_t)width + 2);
        ck_assert_uint_eq(strlen(buf.data), buf.size);
        ck_assert_int_eq(buf.data[width], '9');
        ck_assert_int_eq(buf.data[width + 1], '>');
    }
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arena");
    TCase *all = tcase_create("all");
    tcase_add_test(all, memory_is_aligned_and_zeroed);
    tcase_add_test(all, pieces_do_not_overlap);
    tcase_add_test(all, reset_forgets_and_zeroes_again);
    tcase_add_test(all, used_counts_what_was_handed_out);
    tcase_add_test(all, copies_are_copies);
    tcase_add_test(all, printing_takes_any_length);
    tcase_add_test_raise_signal(all, an_absurd_size_ends_the_process, SIGABRT);
    tcase_add_test(all, a_buf_grows_and_stays_terminated);
    tcase_add_test(all, a_buf_prints_short_and_long);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
