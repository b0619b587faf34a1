#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "actors/brain/dates.h"
#include "actors/brain/embedder.h"
#include "actors/brain/forms.h"
#include "actors/brain/stopwords.h"
#include "actors/brain/words.h"

static arena_t *arena;

static void start(void)
{
    arena = arena_new();
}

static void stop(void)
{
    arena_destroy(&arena);
}

/* The terms as one line: stop words in brackets. */
static const char *terms(const char *language, const char *text)
{
    words_t *words = NULL;
    word_list_t list;
    buf_t buf;

    ck_assert(!err_is(words_new(&words, language)));
    words_split(words, arena, text, strlen(text), &list);
    words_destroy(&words);
    buf_open(&buf, arena);
    buf_puts(&buf, "");
    for (size_t i = 0; i < list.count; i++)
        buf_printf(&buf, list.words[i].stop ? "%s(%s)" : "%s%s", i ? " " : "", list.words[i].term);
    return buf.data ? buf.data : "";
}

START_TEST(the_table)
{
    static const struct {
        const char *language, *text, *terms;
    } rows[] = {
        {"english", "", ""},
        {"english", " \n\t .,;!? -- ()", ""},
        {"english", "The runners were running quickly", "(the) runner (were) run quick"},
        {"english", "It's the company's, don't you know", "(it) (the) compani (don't) (you) know"},
        {"english", "It\xe2\x80\x99s", "(it)"},
        {"english", "caf\xc3\xa9 na\xc3\xafve R\xc3\x89SUM\xc3\x89", "cafe naiv resum"},
        {"english", "caf\x65\xcc\x81", "cafe"},
        {"english", "\xef\xbc\xa1\xef\xbc\xa2\xef\xbc\xa3 \xef\xac\x81le", "abc file"},
        {"english", "brain_query", "brain_query brain queri"},
        {"english", "IndexFlatIP", "indexflatip index flat ip"},
        {"english", "parseHTTPResponse", "parsehttpresponse pars http respons"},
        {"english", "std::vector<int>", "std vector int"},
        {"english", "example.com/a-b", "example.com exampl com (a) b"},
        {"english", "1,000,000 3.14 v2.0 2024-05-01", "1000000 3.14 v2.0 v2 0 2024 05 01"},
        {"german",
         "Die H\xc3\xa4user der Stra\xc3\x9f"
         "e",
         "(die) haus (der) strass"},
        {"german", "STRASSE", "strass"},
        {"french", "l'homme qu'il aime", "l'homme l homm qu'il aim"},
        {"english", "She went, they were taken", "(she) go (they) (were) take"},
        {"english", "children and mice", "child (and) mous"},
        {"german", "Mueller, Müller", "mull mull"},
        {"german", "neue Quelle", "neu quell"},
        {"german", "Sie schrieb", "(sie) schreib"},
        {"german", "Lagerhaus", "lagerhaus haus lag"},
        {"dutch", "ziekenhuis", "ziekenhuis enhuis ziek huis ziek"},
        {"english", "\xd1\x81\xd0\xb5\xd1\x80\xd0\xb2\xd0\xb5\xd1\x80\xd1\x8b",
         "\xd1\x81\xd0\xb5\xd1\x80\xd0\xb2\xd0\xb5\xd1\x80"},
        {"english", "我的书", "(我) 我的 (的) 的书 书"},
        {"none", "Running THE", "running the"},
        {"english", "\xe6\x9d\xb1\xe4\xba\xac\xe9\x83\xbd",
         "\xe6\x9d\xb1 \xe6\x9d\xb1\xe4\xba\xac \xe4\xba\xac \xe4\xba\xac\xe9\x83\xbd "
         "\xe9\x83\xbd"},
        {"english", "\xe6\x9d\xb1\xe3\x80\x82\xe4\xba\xac", "\xe6\x9d\xb1 \xe4\xba\xac"},
        {"english", "\xd0\x9f\xd0\xa0\xd0\x98\xd0\x92\xd0\x95\xd0\xa2",
         "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82"},
        {"english", "\xed\x9a\x8c\xec\x82\xac\xeb\x8a\x94",
         "\xed\x9a\x8c\xec\x82\xac\xeb\x8a\x94 \xed\x9a\x8c\xec\x82\xac \xec\x82\xac\xeb\x8a\x94"},
        {"english",
         "good\xff\xfe"
         "bad \xc0\x80 x\xed\xa0\x80y",
         "good bad x y"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        ck_assert_msg(strcmp(terms(rows[i].language, rows[i].text), rows[i].terms) == 0,
                      "\"%s\": \"%s\", expected \"%s\"", rows[i].text,
                      terms(rows[i].language, rows[i].text), rows[i].terms);
}
END_TEST

START_TEST(irregular_forms_are_sorted_and_lead_on)
{
    static const char *const languages[] = {"english", "german"};

    for (size_t i = 0; i < 2; i++)
        for (size_t at = 0; forms_at(languages[i], at); at++) {
            const char *form = forms_at(languages[i], at), *next = forms_at(languages[i], at + 1);
            ck_assert_msg(!next || strcmp(form, next) < 0, "%s before %s", form, next);
            ck_assert_str_ne(forms_base(languages[i], form), form);
        }
    ck_assert_ptr_null(forms_base("english", "table"));
    ck_assert_ptr_null(forms_base("klingon", "went"));
}
END_TEST

/* On Wednesday, 15 May 2024. Terms of one date with its boost are as they stand in a line. */
START_TEST(questions_say_when)
{
    static const struct {
        const char *text, *terms;
    } rows[] = {
        {"", ""},
        {"what did she say about the budget", ""},
        {"in May", "@-05"},
        {"May I ask?", ""},
        {"it may rain", ""},
        {"the budget, May 2023", "@2023-05"},
        {"March of the penguins", ""},
        {"since March", "@-03"},
        {"on 2024-05-17", "@2024-05-17 @2024-05"},
        {"2024-05", "@2024-05"},
        {"17.05.2024", "@2024-05-17 @2024-05"},
        {"12/24/2024", "@2024-12-24 @2024-12"},
        {"5/6/2024", "@2024-06-05 @2024-06 @2024-05-06 @2024-05"},
        {"8th of May, 2023", "@2023-05-08 @2023-05"},
        {"May 8th", "@-05-08 @-05"},
        {"8 Jan 2024", "@2024-01-08 @2024-01"},
        {"3. Januar 2024", "@2024-01-03 @2024-01"},
        {"im Mai", "@-05"},
        {"Q3 2023", "@2023-07 @2023-08 @2023-09"},
        {"the third quarter of 2023", "@2023-07 @2023-08 @2023-09"},
        {"zweites Quartal", "@-04 @-05 @-06"},
        {"in 2019", "@2019"},
        {"port 8080, version 2.17.1, 127.0.0.1:5432", ""},
        {"room 3000", ""},
        {"today", "@2024-05-15"},
        {"yesterday", "@2024-05-14"},
        {"vorgestern", "@2024-05-13"},
        {"two days ago", "@2024-05-13"},
        {"vor drei Monaten", "@2024-02"},
        {"a year ago", "@2023"},
        {"last month", "@2024-04"},
        {"letztes Jahr", "@2023"},
        {"last quarter", "@2024-01 @2024-02 @2024-03"},
        {"last Tuesday", "@2024-05-14"},
        {"last Wednesday", "@2024-05-08"},
        {"on Friday", "@w5"},
        {"last May", "@2023-05"},
        {"last March", "@2024-03"},
        {"this week", "@2024-05-13 @2024-05-14 @2024-05-15 @2024-05-16 @2024-05-17 @2024-05-18 "
                      "@2024-05-19"},
        {"le 14 juillet 2023", "@2023-07-14 @2023-07"},
        {"el 2 de mayo de 2023", "@2023-05-02 @2023-05"},
        {"в марте", "@-03"},
        {"2024年5月17日", "@2024 @2024-05-17 @2024-05"},
        {"他在七月", "@-07"},
        {"十二月", "@-12"},
        {"二〇二四年", "@2024"},
        {"上个月", "@2024-04"},
        {"去年", "@2023"},
        {"the day before yesterday", "@2024-05-13"},
        {"the week before last", "@2024-04-29 @2024-04-30 @2024-05-01 @2024-05-02 @2024-05-03 "
                                 "@2024-05-04 @2024-05-05"},
        {"the day before the release", ""},
        {"last night", "@2024-05-14 @2024-05-15"},
        {"this morning", "@2024-05-15"},
        {"good morning, a night out", ""},
        {"last weekend", "@2024-05-11 @2024-05-12"},
        {"letztes Wochenende", "@2024-05-11 @2024-05-12"},
        {"vorletzter Monat", "@2024-03"},
        {"in March last year", "@2023-03"},
        {"im Mai letzten Jahres", "@2023-05"},
        {"le mois dernier", "@2024-04"},
        {"il y a deux jours", "@2024-05-13"},
        {"el mes pasado", "@2024-04"},
        {"hace tres meses", "@2024-02"},
        {"due giorni fa", "@2024-05-13"},
        {"l'anno scorso", "@2023"},
        {"há dois dias", "@2024-05-13"},
        {"vorig jaar", "@2023"},
        {"twee dagen geleden", "@2024-05-13"},
        {"два дня назад", "@2024-05-13"},
        {"в прошлом году", "@2023"},
        {"三天前", "@2024-05-12"},
        {"两个月前", "@2024-03"},
        {"大前天", "@2024-05-12"},
        {"大前天和前天", "@2024-05-13 @2024-05-12"},
        {"一昨日", "@2024-05-13"},
        {"上上个月", "@2024-03"},
        {"上周末", "@2024-05-11 @2024-05-12"},
        {"昨晚", "@2024-05-14 @2024-05-15"},
        {"去年三月", "@2023 @2023-03"},
        {"2년 전", "@2022"},
        {"13/13/2024", "@2024"},
        {"99.99.9999", ""},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        date_terms_t found;
        buf_t line;
        dates_in(arena, rows[i].text, INT64_C(1715774400000), &found);
        buf_open(&line, arena);
        buf_puts(&line, "");
        for (size_t j = 0; j < found.count; j++)
            buf_printf(&line, "%s%s", j ? " " : "", found.items[j].term);
        ck_assert_msg(strcmp(line.data, rows[i].terms) == 0, "\"%s\": \"%s\", expected \"%s\"",
                      rows[i].text, line.data, rows[i].terms);
    }
}
END_TEST

START_TEST(a_time_has_its_terms)
{
    const char *terms[DATES_OF];

    ck_assert_uint_eq(dates_of(arena, INT64_C(1715774400000), terms), DATES_OF);
    ck_assert_str_eq(terms[0], "@2024-05-15");
    ck_assert_str_eq(terms[1], "@-05-15");
    ck_assert_str_eq(terms[5], "@w3");
    ck_assert_uint_eq(dates_of(arena, -1, terms), DATES_OF);
    ck_assert_str_eq(terms[0], "@1969-12-31");
    ck_assert_uint_eq(dates_of(arena, INT64_MAX, terms), 0);
    ck_assert_uint_eq(dates_of(arena, INT64_MIN, terms), 0);
}
END_TEST

START_TEST(unknown_languages_are_refused)
{
    words_t *words = NULL;

    ck_assert_int_eq(words_new(&words, "klingon").code, ERR_ARGUMENT);
    ck_assert_int_eq(words_new(&words, "").code, ERR_ARGUMENT);
    ck_assert_ptr_null(words);
}
END_TEST

START_TEST(terms_are_bounded)
{
    words_t *words = NULL;
    word_list_t list;
    size_t size = 1 << 20;
    char *text = arena_alloc(arena, size + 1);

    ck_assert(!err_is(words_new(&words, "english")));
    memset(text, 'a', size);
    words_split(words, arena, text, size, &list);
    ck_assert_uint_eq(list.count, 1);
    ck_assert_uint_eq(list.words[0].size, WORDS_TERM_MAX);
    ck_assert(!list.cut);
    for (size_t i = 0; i < size; i += 2)
        text[i] = ' ';
    words_split(words, arena, text, size, &list);
    ck_assert_uint_eq(list.count, WORDS_MAX);
    ck_assert(list.cut);
    for (size_t i = 0; i + 2 < size; i += 3)
        memcpy(text + i, "\xe4\xba\xac", 3);
    words_split(words, arena, text, size, &list);
    ck_assert_uint_eq(list.count, WORDS_MAX);
    memset(text, 0, size);
    words_split(words, arena, text, size, &list);
    ck_assert_uint_eq(list.count, 0);
    words_destroy(&words);
}
END_TEST

START_TEST(positions_count_words)
{
    words_t *words = NULL;
    word_list_t list;
    const char *text = "read brain_query now";

    ck_assert(!err_is(words_new(&words, "english")));
    words_split(words, arena, text, strlen(text), &list);
    ck_assert_uint_eq(list.count, 5);
    ck_assert_uint_eq(list.positions, 4);
    ck_assert_uint_eq(list.words[1].kind, WORD_WHOLE);
    ck_assert_uint_eq(list.words[1].position, 1);
    ck_assert_uint_eq(list.words[2].position, 1);
    ck_assert_uint_eq(list.words[3].position, 2);
    ck_assert_uint_eq(list.words[4].position, 3);
    words_destroy(&words);
}
END_TEST

/* Every code point goes out and comes back; what is no code point does not. */
START_TEST(decode_knows_every_code_point)
{
    for (uint32_t point = 1; point <= 0x10ffff; point++) {
        char text[4];
        size_t size, used;
        if (point >= 0xd800 && point <= 0xdfff)
            continue;
        if (point < 0x80) {
            text[0] = (char)point;
            size = 1;
        } else if (point < 0x800) {
            text[0] = (char)(0xc0 | point >> 6);
            text[1] = (char)(0x80 | (point & 63));
            size = 2;
        } else if (point < 0x10000) {
            text[0] = (char)(0xe0 | point >> 12);
            text[1] = (char)(0x80 | (point >> 6 & 63));
            text[2] = (char)(0x80 | (point & 63));
            size = 3;
        } else {
            text[0] = (char)(0xf0 | point >> 18);
            text[1] = (char)(0x80 | (point >> 12 & 63));
            text[2] = (char)(0x80 | (point >> 6 & 63));
            text[3] = (char)(0x80 | (point & 63));
            size = 4;
        }
        if (words_decode(text, size, &used) != point || used != size)
            ck_abort_msg("U+%04X", point);
        if (size > 1 && (words_decode(text, size - 1, &used) != 0xfffd || used != 1))
            ck_abort_msg("cut U+%04X", point);
    }
    ck_assert(words_is_utf8("\xef\xbf\xbd", 3));
    ck_assert(!words_is_utf8("\xc0\xaf", 2));
    ck_assert(!words_is_utf8("\xe0\x80\xaf", 3));
    ck_assert(!words_is_utf8("\xf4\x90\x80\x80", 4));
    ck_assert(!words_is_utf8("\xed\xa0\x80", 3));
    ck_assert(!words_is_utf8("a\x80", 2));
}
END_TEST

START_TEST(stop_words_are_sorted_and_folded)
{
    static const char *const languages[] = {"english", "german",     "french",   "spanish",
                                            "italian", "portuguese", "dutch",    "russian",
                                            "swedish", "danish",     "norwegian"};

    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++) {
        const char *const *list = stopwords_of(languages[i]);
        ck_assert_ptr_nonnull(list);
        for (size_t j = 0; list[j]; j++) {
            if (j)
                ck_assert_msg(strcmp(list[j - 1], list[j]) < 0, "%s: %s", languages[i], list[j]);
            ck_assert(stopwords_has(languages[i], list[j]));
        }
    }
    ck_assert_ptr_null(stopwords_of("none"));
    ck_assert(!stopwords_has("none", "the"));
    ck_assert(!stopwords_has("english", "wing"));
}
END_TEST

/* ---- embedder ---- */

static void embed(const char *text, float *vector)
{
    words_t *words = NULL;

    ck_assert(!err_is(words_new(&words, "english")));
    err_t err = embedder_text(words, arena, text, strlen(text), EMBEDDER_DIMS, vector);
    ck_assert_msg(!err_is(err), "%s: %s", text, err_what(err));
    words_destroy(&words);
}

static double alike(const char *a, const char *b)
{
    float va[EMBEDDER_DIMS], vb[EMBEDDER_DIMS];
    double sum = 0;

    embed(a, va);
    embed(b, vb);
    for (int i = 0; i < EMBEDDER_DIMS; i++)
        sum += (double)va[i] * vb[i];
    return sum;
}

START_TEST(embeddings_have_length_one_and_repeat)
{
    ck_assert_double_eq_tol(alike("deploy the chart", "deploy the chart"), 1, 1e-5);
    ck_assert_double_eq_tol(alike("chart deploy", "deploy the chart"), 1, 1e-5);
    ck_assert_double_eq_tol(alike("a", "a"), 1, 1e-5); /* nothing but a stop word: still itself */
}
END_TEST

START_TEST(embeddings_bring_related_texts_together)
{
    const char *text = "kubernetes deployment failed because the image could not be pulled";

    ck_assert_double_gt(alike(text, "deploying to kubernetes fails: image pull error"),
                        alike(text, "quarterly revenue grew in the northern region") + 0.1);
    ck_assert_double_gt(alike("kubernetes", "kubernets"), 0.3);
    ck_assert_double_gt(alike("Datenbankverbindung", "Datenbank Verbindung"), 0.3);
    ck_assert_double_gt(alike("\xe6\x9d\xb1\xe4\xba\xac\xe9\x83\xbd", "\xe6\x9d\xb1\xe4\xba\xac"),
                        0.3);
}
END_TEST

START_TEST(texts_without_words_are_refused)
{
    words_t *words = NULL;
    float vector[EMBEDDER_DIMS_MAX];

    ck_assert(!err_is(words_new(&words, "english")));
    ck_assert_int_eq(embedder_text(words, arena, "", 0, 384, vector).code, ERR_ARGUMENT);
    ck_assert_int_eq(embedder_text(words, arena, "?! ...", 6, 384, vector).code, ERR_ARGUMENT);
    ck_assert_int_eq(embedder_text(words, arena, "x", 1, 63, vector).code, ERR_ARGUMENT);
    ck_assert_int_eq(embedder_text(words, arena, "x", 1, 4097, vector).code, ERR_ARGUMENT);
    ck_assert_int_eq(embedder_text(words, arena, "x", 1, 4096, vector).code, ERR_OK);
    ck_assert_str_eq(embedder_name(arena, 384, "english"), "hash-2-384-english");
    words_destroy(&words);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain_words");
    TCase *tcase = tcase_create("words");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, start, stop);
    tcase_add_test(tcase, the_table);
    tcase_add_test(tcase, irregular_forms_are_sorted_and_lead_on);
    tcase_add_test(tcase, questions_say_when);
    tcase_add_test(tcase, a_time_has_its_terms);
    tcase_add_test(tcase, unknown_languages_are_refused);
    tcase_add_test(tcase, terms_are_bounded);
    tcase_add_test(tcase, positions_count_words);
    tcase_add_test(tcase, decode_knows_every_code_point);
    tcase_add_test(tcase, stop_words_are_sorted_and_folded);
    tcase_add_test(tcase, embeddings_have_length_one_and_repeat);
    tcase_add_test(tcase, embeddings_bring_related_texts_together);
    tcase_add_test(tcase, texts_without_words_are_refused);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
