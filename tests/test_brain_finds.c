/* What the brain finds, kind by kind: the sets of tests/data/retrieval must stay above floors, and
 * some things that users count on are asked one by one. Deterministic: no figure here depends on
 * the machine. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_retrieval.h"

typedef struct floor_of {
    const char *kind;
    double recall, mrr;
} floor_t;

/* A little below what bench_retrieval prints. */
static const floor_t floors[] = {{"conversation", 0.90, 0.62}, {"dates", 0.97, 0.90},
                                 {"paraphrase", 0.93, 0.80},   {"code", 0.98, 0.97},
                                 {"german", 0.98, 0.95},       {"chinese", 0.98, 0.95},
                                 {"intents", 0.98, 0.90},      {"others", 0.98, 0.95}};

static set_t *read_kind(arena_t *arena, const char *kind)
{
    set_t *set = set_read_file(
        arena, arena_printf(arena, AGENCY_SOURCE "/tests/data/retrieval/%s.txt", kind), kind);

    ck_assert_msg(set && set->item_count && set->question_count, "there is no set %s", kind);
    return set;
}

START_TEST(each_kind_stays_above_its_floor)
{
    const floor_t *least = &floors[_i];
    static const char *const words[] = {"brain.vector_weight=0", "brain.look_weight=0", NULL};
    static const char *const vectors[] = {"brain.word_weight=0", NULL};
    arena_t *arena = arena_new();
    shelf_t shelf;

    shelf_open(&shelf, read_kind(arena, least->kind));
    measure_t fused = measure_shelf(&shelf);
    shelf_reopen(&shelf, words);
    measure_t by_words = measure_shelf(&shelf);
    shelf_reopen(&shelf, vectors);
    measure_t by_vectors = measure_shelf(&shelf);
    shelf_close(&shelf);
    double n = (double)fused.questions;
    printf("%s: recall@10 %.3f, MRR %.3f\n", least->kind, fused.recall / n, fused.mrr / n);
    ck_assert_double_ge(fused.recall / n, least->recall);
    ck_assert_double_ge(fused.mrr / n, least->mrr);
    /* Joining never costs more than a question's place or two. */
    ck_assert_double_ge(fused.mrr / n, by_words.mrr / n - 0.02);
    ck_assert_double_ge(fused.mrr / n, by_vectors.mrr / n - 0.02);
    arena_destroy(&arena);
}
END_TEST

/* One question, one answer that must come first. */
typedef struct sure {
    const char *kind, *question, *first;
} sure_t;

static const sure_t sures[] = {
    {"german", "Versicherung", "g01"},              /* a part of Krankenversicherung */
    {"german", "Vertrag für das Lager", "g03"},     /* both parts of two compounds */
    {"german", "Fussball", "g14"},                  /* ß */
    {"german", "Geschirrspueler", "g02"},           /* ue */
    {"chinese", "数据库", "z01"},                   /* no spaces */
    {"chinese", "王芳在七月做了什么?", "z09"},      /* who and when */
    {"code", "computeTotal", "k02"},                /* compute_total */
    {"code", "get user by id", "k21"},              /* getUserById */
    {"code", "libfoo.so.3", "k04"},                 /* a name with dots */
    {"dates", "import job in February", "s03 s04"}, /* a month */
    {"dates", "What did ANN say about the import job in September?", "s11"},
    {"dates", "report of the third of July 2024, or thereabouts: Q3 2024", "r02"},
    {"conversation", "Who is Ann's apprentice?", "c38"},
    {"intents", "what Bjoern wants", "b01"}, /* a name without its umlaut */
    {"conversation", "Where did Miriam move to?", "c36 c35"},
    {"conversation", "Who takes the on-call rota after July?", "d29"}, /* not who asks that */
    {"intents", "moving money out from savings", "i01"},               /* small words */
    {"intents", "coffee without sugar", "i07"},
    {"intents", "When did Mia buy the boat?", "t03"}, /* the answer, which says when */
    {"intents", "When was the kitchen built?", "t08"},
    {"others", "гостиница в Москве", "u3"},
    {"others", "환불 요청", "o3"},
};

START_TEST(what_users_count_on)
{
    arena_t *arena = arena_new();
    size_t found[FOUND_MOST];

    for (size_t k = 0; k < sizeof floors / sizeof floors[0]; k++) {
        set_t *set = read_kind(arena, floors[k].kind);
        shelf_t shelf;
        shelf_open(&shelf, set);
        for (size_t i = 0; i < sizeof sures / sizeof sures[0]; i++) {
            if (strcmp(sures[i].kind, set->name) != 0)
                continue;
            question_t question = {.tenant = set->name, .text = sures[i].question};
            size_t count = shelf_ask(&shelf, arena, &question, found);
            ck_assert_msg(count && strstr(sures[i].first, set->items[found[0]].id), "%s: %s first",
                          sures[i].question, count ? set->items[found[0]].id : "nothing");
        }
        shelf_close(&shelf);
    }
    arena_destroy(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain finds");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 110);
    tcase_add_loop_test(all, each_kind_stays_above_its_floor, 0,
                        (int)(sizeof floors / sizeof floors[0]));
    tcase_add_test(all, what_users_count_on);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
