/* SHA-256 against the vectors of FIPS 180-4. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bus/digest.h"

static const char *hex_of(arena_t *arena, const char *text)
{
    return digest_hex(arena, (bytes_t){(const uint8_t *)text, strlen(text)});
}

START_TEST(known_vectors)
{
    arena_t *arena = arena_new();
    ck_assert_str_eq(hex_of(arena, ""),
                     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    ck_assert_str_eq(hex_of(arena, "abc"),
                     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ck_assert_str_eq(hex_of(arena, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    arena_destroy(&arena);
}
END_TEST

START_TEST(texts_are_parted)
{
    arena_t *arena = arena_new();
    const char *one = digest_texts(arena, "ab", "c", NULL);
    ck_assert_uint_eq(strlen(one), 64);
    ck_assert_str_ne(one, digest_texts(arena, "a", "bc", NULL));
    ck_assert_str_ne(one, digest_texts(arena, "abc", NULL));
    ck_assert_str_eq(one, digest_texts(arena, "ab", "c", NULL));
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("digest");
    TCase *all = tcase_create("all");
    tcase_add_test(all, known_vectors);
    tcase_add_test(all, texts_are_parted);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
