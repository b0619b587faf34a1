/* bench_retrieval: does the brain find what matters? Recall@10, MRR and nDCG@10 of words alone, of
 * vectors alone, of both fused, and of SQLite's FTS5 on the same set in the same run.
 *
 *     bench_retrieval [DIRECTORY [LANGUAGE]]        or AGENCY_DATA_SET=DIRECTORY
 *
 * The directory is a set as support_retrieval.h says. Without one only the small sets of
 * tests/data/retrieval are asked, one for each kind of question. All figures but SQLite's are of
 * brain_query of the real actor; "alone" is the same with the weights of the others at 0.
 * AGENCY_RETRIEVAL_MISSES=1 prints the questions whose answer did not come first.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_retrieval.h"

enum { POOL = 200 };

static const char *const kinds[] = {"conversation", "dates",   "paraphrase", "code",
                                    "german",       "chinese", "intents",    "others"};

static void print_measure(const char *name, const measure_t *measure)
{
    double n = measure->questions ? (double)measure->questions : 1;

    printf("%-28s recall@10 %.4f  MRR %.4f  nDCG@10 %.4f  (%zu questions)\n", name,
           measure->recall / n, measure->mrr / n, measure->ndcg / n, measure->questions);
    fflush(stdout);
}

/* ---- SQLite, if it is installed ---- */

typedef struct sqlite {
    void *library, *db;
    int (*open)(const char *, void **);
    int (*prepare)(void *, const char *, int, void **, const char **);
    int (*bind_text)(void *, int, const char *, int, void (*)(void *));
    int (*bind_int)(void *, int, int);
    int (*step)(void *);
    int (*reset)(void *);
    int (*finalize)(void *);
    int (*column_int)(void *, int);
    int (*close)(void *);
} sqlite_t;

static void *symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

static bool sqlite_start(sqlite_t *sqlite)
{
    *sqlite = (sqlite_t){.library = dlopen("libsqlite3.so.0", RTLD_NOW)};
    if (!sqlite->library)
        return false;
#define TAKE(field, name) *(void **)&sqlite->field = symbol(sqlite->library, "sqlite3_" name)
    TAKE(open, "open");
    TAKE(prepare, "prepare_v2");
    TAKE(bind_text, "bind_text");
    TAKE(bind_int, "bind_int");
    TAKE(step, "step");
    TAKE(reset, "reset");
    TAKE(finalize, "finalize");
    TAKE(column_int, "column_int");
    TAKE(close, "close");
#undef TAKE
    return sqlite->close && sqlite->open(":memory:", &sqlite->db) == 0;
}

static void *sqlite_prepare(sqlite_t *sqlite, const char *sql)
{
    void *statement = NULL;

    return sqlite->prepare(sqlite->db, sql, -1, &statement, NULL) == 0 ? statement : NULL;
}

static bool sqlite_fill(sqlite_t *sqlite, const set_t *set, const char *tokenizer)
{
    char sql[256];

    snprintf(sql, sizeof sql, "create virtual table m using fts5(title, text, tokenize='%s')",
             tokenizer);
    void *create = sqlite_prepare(sqlite, sql);
    if (!create)
        return false;
    sqlite->step(create);
    sqlite->finalize(create);
    void *insert = sqlite_prepare(sqlite, "insert into m(rowid, title, text) values(?, ?, ?)");
    for (size_t i = 0; insert && i < set->item_count; i++) {
        sqlite->bind_int(insert, 1, (int)i + 1);
        sqlite->bind_text(insert, 2, set->items[i].title, -1, NULL);
        sqlite->bind_text(insert, 3, set->items[i].text, -1, NULL);
        sqlite->step(insert);
        sqlite->reset(insert);
    }
    if (insert)
        sqlite->finalize(insert);
    return insert;
}

/* FTS5 searches for words joined by OR, each quoted. */
static char *sqlite_query(arena_t *arena, const char *question)
{
    buf_t buf;
    bool inside = false;

    buf_open(&buf, arena);
    for (const char *c = question; *c; c++) {
        bool letter =
            (*c & 0x80) || (*c >= '0' && *c <= '9') || ((*c | 32) >= 'a' && (*c | 32) <= 'z');
        if (letter && !inside)
            buf_puts(&buf, buf.size ? " OR \"" : "\"");
        if (!letter && inside)
            buf_puts(&buf, "\"");
        if (letter)
            buf_put(&buf, c, 1);
        inside = letter;
    }
    if (inside)
        buf_puts(&buf, "\"");
    return buf.size ? buf.data : NULL;
}

static void bench_sqlite(const set_t *set, const char *tokenizer, const char *name)
{
    sqlite_t sqlite;
    measure_t result = {0};
    arena_t *arena = arena_new();

    if (!sqlite_start(&sqlite) || !sqlite_fill(&sqlite, set, tokenizer)) {
        printf("%-28s not measured: libsqlite3 with FTS5 is not here\n", name);
        arena_destroy(&arena);
        return;
    }
    void *select =
        sqlite_prepare(&sqlite, "select rowid from m where m match ? order by bm25(m) limit 200");
    for (size_t q = 0; select && q < set->question_count; q++) {
        size_t ids[POOL];
        size_t count = 0;
        char *text = sqlite_query(arena, set->questions[q].text);
        sqlite.bind_text(select, 1, text ? text : "\"\"", -1, NULL);
        while (sqlite.step(select) == 100 && count < POOL) {
            size_t id = (size_t)sqlite.column_int(select, 0) - 1;
            if (strcmp(set->items[id].tenant, set->questions[q].tenant) == 0)
                ids[count++] = id;
        }
        sqlite.reset(select);
        measure_add(&result, set, &set->questions[q], ids, count);
        arena_reset(arena);
    }
    if (select)
        sqlite.finalize(select);
    sqlite.close(sqlite.db);
    dlclose(sqlite.library);
    arena_destroy(&arena);
    print_measure(name, &result);
}

/* ---- the run ---- */

/* Each signal by itself, then how much each adds. */
static void bench_brain(const set_t *set)
{
    static const struct {
        const char *name, *settings[4];
    } runs[] = {
        {"words alone, no neighbours",
         {"brain.vector_weight=0", "brain.look_weight=0", "brain.neighbour_weight=0", NULL}},
        {"words alone", {"brain.vector_weight=0", "brain.look_weight=0", NULL}},
        {"vectors alone (built-in)", {"brain.word_weight=0", NULL}},
        {"words, second look", {"brain.vector_weight=0", NULL}},
        {"words, vectors", {"brain.look_weight=0", NULL}},
    };
    shelf_t shelf;

    shelf_open(&shelf, set);
    measure_t fused = measure_shelf(&shelf);
    for (size_t i = 0; i < sizeof runs / sizeof runs[0] && !getenv("AGENCY_RETRIEVAL_MISSES");
         i++) {
        shelf_reopen(&shelf, runs[i].settings);
        measure_t part = measure_shelf(&shelf);
        print_measure(runs[i].name, &part);
    }
    print_measure("fused: brain_query", &fused);
    shelf_close(&shelf);
}

static void bench(const set_t *set)
{
    printf("-- %s: %zu memories, %zu questions, %s\n", set->name, set->item_count,
           set->question_count, set->language);
    bench_brain(set);
    bench_sqlite(set, "porter unicode61", "SQLite FTS5, porter");
    bench_sqlite(set, "trigram", "SQLite FTS5, trigram");
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : getenv("AGENCY_DATA_SET");
    arena_t *arena = arena_new();

    if (directory) {
        set_t *set = set_read_directory(arena, directory, argc > 2 ? argv[2] : "english");
        if (!set) {
            fprintf(stderr, "bench_retrieval: %s has no memories.jsonl and queries.jsonl\n",
                    directory);
            return 1;
        }
        bench(set);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *path =
            arena_printf(arena, AGENCY_SOURCE "/tests/data/retrieval/%s.txt", kinds[i]);
        set_t *set = set_read_file(arena, path, kinds[i]);
        if (set)
            bench(set);
    }
    arena_destroy(&arena);
    return 0;
}
