/* What the loops of one process hand each other. */
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "bus/mailbox.h"

enum { WRITERS = 4, EACH = 2000, DEADLINE_MS = 30000 };

static bytes_t number(const int *value)
{
    return (bytes_t){(const uint8_t *)value, sizeof(*value)};
}

static void post(const address_t *to, int value)
{
    route_t route = {.size = 1};
    mailbox_post(letter_new(to, &route, number(&value), (bytes_t){0}));
}

static int value_of(const letter_t *letter)
{
    return *(const int *)(const void *)letter->header.data;
}

static bool readable(const mailbox_t *box, int timeout_ms)
{
    struct pollfd fd = {.fd = mailbox_fd(box), .events = POLLIN};
    return poll(&fd, 1, timeout_ms) == 1;
}

START_TEST(letters_come_in_order_and_wake_who_sleeps)
{
    mailbox_t *box = mailbox_new();
    address_t to = {.box = box, .life = mailbox_open(box), .place = 3};
    post(&to, 0);
    ck_assert(!readable(box, 0)); /* it is awake */
    ck_assert(!mailbox_sleep(box));
    post(&to, 1);
    letter_t *letter = mailbox_take(box);
    for (int i = 0; i < 2; i++) {
        letter_t *next = letter->next;
        ck_assert_int_eq(value_of(letter), i);
        ck_assert_int_eq(letter->to.place, 3);
        ck_assert(letter->has_route);
        free(letter);
        letter = next;
    }
    ck_assert_ptr_null(letter);
    ck_assert(mailbox_sleep(box));
    post(&to, 2);
    ck_assert(readable(box, 0));
    mailbox_destroy(&box); /* with a letter in it */
    ck_assert_ptr_null(box);
}
END_TEST

START_TEST(a_letter_to_a_life_that_is_over_is_dropped)
{
    mailbox_t *box = mailbox_new();
    address_t before = {.box = box, .life = mailbox_open(box)};
    ck_assert_uint_eq(mailbox_open(box), 0); /* it has an owner */
    post(&before, 1);
    mailbox_close(box);
    post(&before, 2);
    address_t after = {.box = box, .life = mailbox_open(box)};
    ck_assert(mailbox_sleep(box));
    post(&before, 3);
    ck_assert(mailbox_sleep(box));
    post(&after, 4);
    letter_t *letter = mailbox_take(box);
    ck_assert_int_eq(value_of(letter), 4);
    ck_assert_ptr_null(letter->next);
    free(letter);
    mailbox_destroy(&box);
}
END_TEST

START_TEST(who_does_not_read_is_sent_no_more)
{
    mailbox_t *box = mailbox_new();
    address_t to = {.box = box, .life = mailbox_open(box)};
    int count = 0, most = 20000;
    for (int i = 0; i < most + 100; i++)
        post(&to, i);
    for (letter_t *letter = mailbox_take(box), *next; letter; letter = next) {
        next = letter->next;
        ck_assert_int_eq(value_of(letter), count++);
        free(letter);
    }
    ck_assert_int_eq(count, most);
    mailbox_destroy(&box);
}
END_TEST

static void *writer(void *ctx)
{
    for (int i = 0; i < EACH; i++)
        post(ctx, i);
    return NULL;
}

/* Whoever waits for the descriptor after an honest sleep misses nothing. */
START_TEST(many_writers_lose_no_wake_up)
{
    mailbox_t *box = mailbox_new();
    address_t to = {.box = box, .life = mailbox_open(box)};
    pthread_t threads[WRITERS];
    int got = 0;
    for (int i = 0; i < WRITERS; i++)
        ck_assert(!pthread_create(&threads[i], NULL, writer, &to));
    while (got < WRITERS * EACH) {
        if (mailbox_sleep(box)) {
            uint64_t woken;
            ck_assert(readable(box, DEADLINE_MS));
            ck_assert(read(mailbox_fd(box), &woken, sizeof(woken)) == sizeof(woken));
        }
        for (letter_t *letter = mailbox_take(box), *next; letter; letter = next) {
            next = letter->next;
            got++;
            free(letter);
        }
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    mailbox_destroy(&box);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mailbox");
    TCase *all = tcase_create("all");
    tcase_add_test(all, letters_come_in_order_and_wake_who_sleeps);
    tcase_add_test(all, a_letter_to_a_life_that_is_over_is_dropped);
    tcase_add_test(all, who_does_not_read_is_sent_no_more);
    tcase_add_test(all, many_writers_lose_no_wake_up);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
