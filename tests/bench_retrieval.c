/* bench_retrieval: does the brain find what matters? Recall@10, MRR and nDCG@10 of words alone, of
 * vectors alone, of both fused, and of SQLite's FTS5 on the same set in the same run.
 *
 *     bench_retrieval DIRECTORY        or AGENCY_DATA_SET=DIRECTORY
 *
 * The directory holds memories.jsonl (id, tenant, title, text; perhaps author, thread, time) and
 * queries.jsonl (id, tenant, question, evidence). The first figures are of the parts alone, over an
 * index in memory; "the brain" is brain_query of the real actor. Without one it says so and
 * succeeds: there is nothing to measure.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "actors/brain/brain.h"
#include "actors/brain/embedder.h"
#include "actors/brain/index.h"
#include "actors/brain/rank.h"
#include "actors/brain/words.h"
#include "bus/client.h"
#include "bus/host.h"
#include "proto/mp.h"

#define POOL 200
#define K 10

/* ---- a line of JSON: strings and lists of strings by key, which is all the set has ---- */

static const char *json_string(arena_t *arena, const char *at, char **out)
{
    buf_t buf;

    buf_open(&buf, arena);
    for (at++; *at && *at != '"'; at++) {
        char c = *at;
        if (c == '\\') {
            c = *++at;
            if (c == 'u') {
                unsigned point = 0;
                sscanf(at + 1, "%4x", &point);
                at += 4;
                char utf8[3] = {(char)(0xe0 | point >> 12), (char)(0x80 | (point >> 6 & 63)),
                                (char)(0x80 | (point & 63))};
                if (point < 0x80)
                    buf_printf(&buf, "%c", (int)point);
                else if (point < 0x800)
                    buf_printf(&buf, "%c%c", (int)(0xc0 | point >> 6), (int)(0x80 | (point & 63)));
                else
                    buf_put(&buf, utf8, 3);
                continue;
            }
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
        buf_put(&buf, &c, 1);
    }
    *out = buf.data ? buf.data : arena_strdup(arena, "");
    return *at ? at + 1 : at;
}

static const char *json_find(const char *line, const char *key)
{
    char quoted[64];

    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(line, quoted);
    if (!at) {
        snprintf(quoted, sizeof quoted, "\"%s\":", key);
        at = strstr(line, quoted);
    }
    return at ? at + strlen(quoted) : NULL;
}

static char *json_text(arena_t *arena, const char *line, const char *key)
{
    const char *at = json_find(line, key);
    char *text = arena_strdup(arena, "");

    if (at && *at == '"')
        json_string(arena, at, &text);
    return text;
}

/* ---- the set ---- */

typedef struct memory {
    char *id, *tenant, *title, *text;
    char *author, *thread, *time; /* "" when the set has none */
} memory_set_t;

typedef struct query {
    char *tenant, *question;
    char *evidence[512];
    size_t evidence_count;
} query_t;

typedef struct set {
    memory_set_t *memories;
    query_t *queries;
    size_t memory_count, query_count;
} set_t;

static char *read_file(arena_t *arena, const char *directory, const char *name)
{
    FILE *file = fopen(arena_printf(arena, "%s/%s", directory, name), "rb");

    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *text = arena_alloc(arena, size + 1);
    size_t got = fread(text, 1, size, file);
    fclose(file);
    return got == size ? text : NULL;
}

static void read_evidence(arena_t *arena, const char *line, query_t *query)
{
    const char *at = json_find(line, "evidence");

    while (at && *at && *at != ']' && query->evidence_count < 512)
        if (*at == '"')
            at = json_string(arena, at, &query->evidence[query->evidence_count++]);
        else
            at++;
}

static bool read_set(arena_t *arena, const char *directory, set_t *set)
{
    char *memories = read_file(arena, directory, "memories.jsonl");
    char *queries = read_file(arena, directory, "queries.jsonl");
    size_t lines = 1;

    if (!memories || !queries)
        return false;
    for (const char *c = memories; *c; c++)
        lines += *c == '\n';
    set->memories = ARENA_ARRAY(arena, memory_set_t, lines);
    for (char *save, *line = strtok_r(memories, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        set->memories[set->memory_count++] =
            (memory_set_t){.id = json_text(arena, line, "id"),
                           .tenant = json_text(arena, line, "tenant"),
                           .title = json_text(arena, line, "title"),
                           .text = json_text(arena, line, "text"),
                           .author = json_text(arena, line, "author"),
                           .thread = json_text(arena, line, "thread"),
                           .time = json_text(arena, line, "time")};
    lines = 1;
    for (const char *c = queries; *c; c++)
        lines += *c == '\n';
    set->queries = ARENA_ARRAY(arena, query_t, lines);
    for (char *save, *line = strtok_r(queries, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        query_t *query = &set->queries[set->query_count++];
        query->tenant = json_text(arena, line, "tenant");
        query->question = json_text(arena, line, "question");
        read_evidence(arena, line, query);
    }
    return true;
}

/* ---- an inverted index in memory, one per tenant ---- */

typedef struct posting {
    uint64_t id;
    uint16_t counts[RANK_FIELDS], lengths[RANK_FIELDS];
} posting_t;

typedef struct term {
    const char *text;
    posting_t *postings;
    uint64_t *ids;
    float *weights; /* of the last search */
    size_t count, capacity;
} term_t;

typedef struct shelf {
    arena_t *arena;
    words_t *words;
    term_t *table;
    size_t capacity, count;
    double lengths[RANK_FIELDS];
    uint64_t memories;
    index_t *index;
    uint32_t dims;
} shelf_t;

static term_t *term_of(shelf_t *shelf, const char *text)
{
    uint64_t hash = 14695981039346656037ULL;

    for (const char *c = text; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 1099511628211ULL;
    size_t at = hash & (shelf->capacity - 1);
    while (shelf->table[at].text && strcmp(shelf->table[at].text, text) != 0)
        at = (at + 1) & (shelf->capacity - 1);
    return &shelf->table[at];
}

static void shelve_field(shelf_t *shelf, uint64_t id, int field, const word_list_t *list,
                         const uint16_t *lengths)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->words[i].stop)
            continue;
        term_t *term = term_of(shelf, list->words[i].term);
        if (!term->text)
            term->text = list->words[i].term;
        if (!term->count || term->postings[term->count - 1].id != id) {
            if (term->count == term->capacity) {
                size_t capacity = term->capacity ? term->capacity * 2 : 4;
                posting_t *more = ARENA_ARRAY(shelf->arena, posting_t, capacity);
                if (term->count)
                    memcpy(more, term->postings, term->count * sizeof *more);
                term->postings = more;
                term->capacity = capacity;
            }
            posting_t *posting = &term->postings[term->count++];
            *posting = (posting_t){.id = id};
            memcpy(posting->lengths, lengths, sizeof posting->lengths);
        }
        term->postings[term->count - 1].counts[field]++;
    }
}

static uint16_t length_of(const word_list_t *list)
{
    unsigned length = 0;

    for (size_t i = 0; i < list->count; i++)
        length += !list->words[i].stop;
    return (uint16_t)length;
}

static void die(err_t err)
{
    fprintf(stderr, "bench_retrieval: %s\n", err_what(err));
    exit(1);
}

static void shelve(shelf_t *shelf, uint64_t id, const memory_set_t *memory)
{
    word_list_t title, text, both;
    uint16_t lengths[RANK_FIELDS] = {0};
    float vector[EMBEDDER_DIMS_MAX];
    char *joined = arena_printf(shelf->arena, "%s\n%s", memory->title, memory->text);

    words_split(shelf->words, shelf->arena, memory->title, strlen(memory->title), &title);
    words_split(shelf->words, shelf->arena, memory->text, strlen(memory->text), &text);
    words_split(shelf->words, shelf->arena, joined, strlen(joined), &both);
    lengths[0] = length_of(&text);
    lengths[1] = length_of(&title);
    for (int i = 0; i < RANK_FIELDS; i++)
        shelf->lengths[i] += lengths[i];
    shelf->memories++;
    shelve_field(shelf, id, 0, &text, lengths);
    shelve_field(shelf, id, 1, &title, lengths);
    if (!err_is(embedder_terms(shelf->arena, &both, NULL, shelf->dims, vector))) {
        err_t err = index_add(shelf->index, id, vector);
        if (err_is(err))
            die(err);
    }
}

static err_t seek_term(void *self, uint64_t from, rank_block_t *block)
{
    term_t *term = self;
    size_t at = 0;

    while (at < term->count && term->postings[at].id < from)
        at++;
    *block = (rank_block_t){term->ids + at, term->weights + at, term->count - at};
    return err_ok();
}

static void weigh(term_t *term, arena_t *arena, const rank_options_t *options)
{
    term->ids = ARENA_ARRAY(arena, uint64_t, term->count);
    term->weights = ARENA_ARRAY(arena, float, term->count);
    for (size_t i = 0; i < term->count; i++) {
        term->ids[i] = term->postings[i].id;
        term->weights[i] =
            rank_weight(options, term->postings[i].counts, term->postings[i].lengths);
    }
}

static void find_words(shelf_t *shelf, arena_t *arena, const char *question, top_hit_t **hits,
                       size_t *count)
{
    rank_options_t options = rank_defaults();
    rank_list_t lists[RANK_TERMS_MAX];
    size_t list_count = 0;
    word_list_t list;

    words_split(shelf->words, arena, question, strlen(question), &list);
    for (size_t i = 0; i < list.count && list_count < RANK_TERMS_MAX; i++) {
        if (list.words[i].stop)
            continue;
        term_t *term = term_of(shelf, list.words[i].term);
        size_t same = 0;
        while (same < list_count && lists[same].self != term)
            same++;
        if (same < list_count)
            lists[same].boost += 1;
        else if (term->text)
            lists[list_count++] = (rank_list_t){term, seek_term, term->count, 1};
    }
    options.memories = shelf->memories;
    for (int i = 0; i < 2; i++)
        options.fields[i] = (rank_field_t){
            .weight = 1, .b = 0.75F, .mean = (float)(shelf->lengths[i] / (double)shelf->memories)};
    for (size_t i = 0; i < list_count; i++)
        weigh(lists[i].self, arena, &options);
    err_t err = rank_words(&options, lists, list_count, POOL, arena, hits, count);
    if (err_is(err))
        die(err);
}

static void find_vectors(shelf_t *shelf, arena_t *arena, const char *question, top_hit_t **hits,
                         size_t *count)
{
    float vector[EMBEDDER_DIMS_MAX];

    *count = 0;
    if (err_is(embedder_text(shelf->words, arena, question, strlen(question), shelf->dims, vector)))
        return;
    index_view_t *view = index_acquire(shelf->index);
    err_t err = index_search(view, vector, POOL, NULL, arena, hits, count);
    index_view_release(&view);
    if (err_is(err))
        die(err);
}

/* ---- measures ---- */

typedef struct measure {
    const char *name;
    double recall, mrr, ndcg;
    size_t queries;
} measure_t;

static void measure(measure_t *into, const set_t *set, const query_t *query, const uint64_t *ids,
                    size_t count)
{
    double found = 0, first = 0, dcg = 0, ideal = 0;

    for (size_t i = 0; i < count; i++) {
        bool right = false;
        for (size_t e = 0; e < query->evidence_count && !right; e++)
            right = strcmp(set->memories[ids[i]].id, query->evidence[e]) == 0;
        if (!right)
            continue;
        if (first == 0)
            first = 1.0 / (double)(i + 1);
        if (i < K) {
            found++;
            dcg += 1 / log2((double)i + 2);
        }
    }
    for (size_t i = 0; i < query->evidence_count && i < K; i++)
        ideal += 1 / log2((double)i + 2);
    if (!query->evidence_count)
        return;
    into->recall += found / (double)query->evidence_count;
    into->mrr += first;
    into->ndcg += dcg / ideal;
    into->queries++;
}

static void print_measure(const measure_t *measure)
{
    double n = measure->queries ? (double)measure->queries : 1;

    printf("%-34s recall@10 %.4f  MRR %.4f  nDCG@10 %.4f  (%zu queries)\n", measure->name,
           measure->recall / n, measure->mrr / n, measure->ndcg / n, measure->queries);
}

static size_t ids_of(const top_hit_t *hits, size_t count, uint64_t *ids)
{
    for (size_t i = 0; i < count; i++)
        ids[i] = hits[i].id;
    return count;
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
    for (size_t i = 0; insert && i < set->memory_count; i++) {
        sqlite->bind_int(insert, 1, (int)i + 1);
        sqlite->bind_text(insert, 2, set->memories[i].title, -1, NULL);
        sqlite->bind_text(insert, 3, set->memories[i].text, -1, NULL);
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
    measure_t result = {.name = name};
    arena_t *arena = arena_new();

    if (!sqlite_start(&sqlite) || !sqlite_fill(&sqlite, set, tokenizer)) {
        printf("%-34s not measured: libsqlite3 with FTS5 is not here\n", name);
        arena_destroy(&arena);
        return;
    }
    void *select =
        sqlite_prepare(&sqlite, "select rowid from m where m match ? order by bm25(m) limit 200");
    for (size_t q = 0; select && q < set->query_count; q++) {
        uint64_t ids[POOL];
        size_t count = 0;
        char *text = sqlite_query(arena, set->queries[q].question);
        sqlite.bind_text(select, 1, text ? text : "\"\"", -1, NULL);
        while (sqlite.step(select) == 100 && count < POOL) {
            uint64_t id = (uint64_t)sqlite.column_int(select, 0) - 1;
            if (strcmp(set->memories[id].tenant, set->queries[q].tenant) == 0)
                ids[count++] = id;
        }
        sqlite.reset(select);
        measure(&result, set, &set->queries[q], ids, count);
        arena_reset(arena);
    }
    if (select)
        sqlite.finalize(select);
    sqlite.close(sqlite.db);
    dlclose(sqlite.library);
    arena_destroy(&arena);
    print_measure(&result);
}

/* ---- the real brain ---- */

static void put_pair(buf_t *out, const char *name, const char *value, uint32_t *count)
{
    if (!*value)
        return;
    mp_put_str(out, name);
    mp_put_str(out, value);
    (*count)++;
}

/* Tenants are not company names: each gets a number. */
static const char *company_of(arena_t *arena, const set_t *set, const char *tenant)
{
    for (size_t i = 0; i < set->memory_count; i++)
        if (strcmp(set->memories[i].tenant, tenant) == 0)
            return arena_printf(arena, "t%zu", i);
    return "none";
}

static bytes_t store_args(arena_t *arena, const set_t *set, size_t number)
{
    const memory_set_t *memory = &set->memories[number];
    buf_t pairs, all;
    uint32_t count = 4;

    buf_open(&pairs, arena);
    mp_put_str(&pairs, "id");
    mp_put_str(&pairs, arena_printf(arena, "%zu", number));
    mp_put_str(&pairs, "taskId");
    mp_put_str(&pairs, "");
    mp_put_str(&pairs, "request");
    mp_put_str(&pairs, memory->title);
    mp_put_str(&pairs, "solution");
    mp_put_str(&pairs, memory->text);
    put_pair(&pairs, "author", memory->author, &count);
    put_pair(&pairs, "thread", memory->thread, &count);
    put_pair(&pairs, "timestamp", memory->time, &count);
    buf_open(&all, arena);
    mp_put_map(&all, count);
    buf_put(&all, pairs.data, pairs.size);
    return buf_bytes(&all);
}

static void fill_brain(client_t *client, const set_t *set)
{
    arena_t *arena = arena_new();
    size_t sent = 0;
    uint64_t id;

    for (size_t done = 0; done < set->memory_count; done++) {
        for (; sent < set->memory_count && sent - done < 64; sent++) {
            client_call_t call = {.peer = "brain",
                                  .method = "brain_store",
                                  .args = store_args(arena, set, sent),
                                  .company = company_of(arena, set, set->memories[sent].tenant),
                                  .role = ROLE_ADMIN,
                                  .timeout_ms = 60000};
            client_send(client, &call);
        }
        client_reply_t reply = client_wait(client, arena, 60000, &id);
        if (err_is(reply.err))
            die(reply.err);
    }
    arena_destroy(&arena);
}

static size_t ask_brain(client_t *client, arena_t *arena, const set_t *set, const query_t *query,
                        uint64_t *ids)
{
    buf_t args;
    bytes_t list, one, id;
    size_t count = 0;

    buf_open(&args, arena);
    mp_put_map(&args, 2);
    mp_put_str(&args, "query");
    mp_put_str(&args, query->question);
    mp_put_str(&args, "limit");
    mp_put_int(&args, 100);
    client_call_t call = {.peer = "brain",
                          .method = "brain_query",
                          .args = buf_bytes(&args),
                          .company = company_of(arena, set, query->tenant),
                          .role = ROLE_ADMIN,
                          .timeout_ms = 60000};
    client_reply_t reply = client_call(client, arena, &call);
    if (err_is(reply.err))
        die(reply.err);
    if (!mp_get(reply.body, "memories", &list))
        return 0;
    while (count < 100 && mp_at(list, (uint32_t)count, &one) && mp_get(one, "id", &id))
        ids[count++] = strtoull(mp_text(arena, id), NULL, 10);
    return count;
}

static void bench_actor(const set_t *set, const char *language)
{
    char data[] = "/tmp/bench-retrieval-XXXXXX", command[128];
    arena_t *arena = arena_new();
    host_t *host = NULL;
    client_t *client = NULL;
    measure_t result = {.name = "the brain (brain_query)"};
    uint64_t ids[100];

    if (!mkdtemp(data))
        return;
    const char *settings[] = {arena_printf(arena, "brain.language=%s", language), NULL};
    host_options_t options = {.data_dir = data, .settings = settings, .log_level = LOG_ERROR};
    err_t err = host_open(&options, arena, &host);
    if (!err_is(err))
        err = host_start(host, &brain_actor, NULL, arena);
    if (!err_is(err))
        err = client_open_host(host, &client);
    if (err_is(err))
        die(err);
    fill_brain(client, set);
    for (size_t q = 0; q < set->query_count; q++) {
        size_t count = ask_brain(client, arena, set, &set->queries[q], ids);
        measure(&result, set, &set->queries[q], ids, count);
        arena_reset(arena);
    }
    client_close(&client);
    host_close(&host, 5000);
    snprintf(command, sizeof command, "rm -rf %s", data);
    if (system(command))
        printf("%s was left\n", data);
    arena_destroy(&arena);
    print_measure(&result);
}

/* ---- the run ---- */

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void shelf_open(shelf_t *shelf, const set_t *set, const char *tenant, uint32_t dims,
                       const char *language)
{
    *shelf = (shelf_t){.arena = arena_new(), .capacity = 1 << 20, .dims = dims};
    shelf->table = ARENA_ARRAY(shelf->arena, term_t, shelf->capacity);
    err_t err = words_new(&shelf->words, language);
    if (!err_is(err))
        err = index_new(&shelf->index, &(index_options_t){.dims = dims});
    if (err_is(err))
        die(err);
    for (size_t i = 0; i < set->memory_count; i++)
        if (strcmp(set->memories[i].tenant, tenant) == 0)
            shelve(shelf, i, &set->memories[i]);
}

static void shelf_close(shelf_t *shelf)
{
    index_destroy(&shelf->index);
    words_destroy(&shelf->words);
    arena_destroy(&shelf->arena);
}

static void bench_fusion(shelf_t *shelf, const set_t *set, const query_t *query, arena_t *arena,
                         measure_t *results)
{
    top_hit_t *words = NULL, *vectors = NULL;
    size_t word_count = 0, vector_count = 0, count = 0;
    uint64_t ids[POOL * 2];
    rank_fusion_t fusion = rank_fusion_defaults();

    find_words(shelf, arena, query->question, &words, &word_count);
    find_vectors(shelf, arena, query->question, &vectors, &vector_count);
    measure(&results[0], set, query, ids, ids_of(words, word_count, ids));
    measure(&results[1], set, query, ids, ids_of(vectors, vector_count, ids));
    for (int method = 0; method < 2; method++) {
        rank_candidate_t *all = rank_union(arena, words, word_count, vectors, vector_count, &count);
        fusion.method = method ? RANK_RRF : RANK_SCORES;
        rank_fuse(&fusion, all, count);
        for (size_t i = 0; i < count; i++)
            ids[i] = all[i].id;
        measure(&results[2 + method], set, query, ids, count);
    }
}

static void bench_ours(const set_t *set, uint32_t dims, const char *language)
{
    measure_t results[4] = {{.name = "BM25 alone"},
                            {.name = "vectors alone (built-in)"},
                            {.name = "fused by scores"},
                            {.name = "fused by ranks (RRF)"}};
    shelf_t shelf = {0};
    const char *tenant = "";
    arena_t *arena = arena_new();
    double busy = 0;

    printf("-- %u dimensions, %s\n", dims, language);
    for (size_t q = 0; q < set->query_count; q++) {
        if (strcmp(set->queries[q].tenant, tenant) != 0 || !shelf.arena) {
            if (shelf.arena)
                shelf_close(&shelf);
            tenant = set->queries[q].tenant;
            shelf_open(&shelf, set, tenant, dims, language);
        }
        double start = now_ms();
        bench_fusion(&shelf, set, &set->queries[q], arena, results);
        busy += now_ms() - start;
        arena_reset(arena);
    }
    if (shelf.arena)
        shelf_close(&shelf);
    arena_destroy(&arena);
    for (size_t i = 0; i < 4; i++)
        print_measure(&results[i]);
    printf("%.3f ms a query, all four together\n",
           busy / (double)(set->query_count ? set->query_count : 1));
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : getenv("AGENCY_DATA_SET");
    const char *language = argc > 2 ? argv[2] : "english";
    arena_t *arena = arena_new();
    set_t set = {0};

    if (!directory) {
        printf("bench_retrieval: name a data set: an argument or AGENCY_DATA_SET\n");
        arena_destroy(&arena);
        return 0;
    }
    if (!read_set(arena, directory, &set)) {
        fprintf(stderr, "bench_retrieval: %s has no memories.jsonl and queries.jsonl\n", directory);
        arena_destroy(&arena);
        return 1;
    }
    printf("%zu memories, %zu queries\n", set.memory_count, set.query_count);
    bench_ours(&set, EMBEDDER_DIMS, language);
    bench_ours(&set, 1024, language);
    bench_actor(&set, language);
    bench_sqlite(&set, "porter unicode61", "SQLite FTS5, porter");
    bench_sqlite(&set, "unicode61", "SQLite FTS5");
    arena_destroy(&arena);
    return 0;
}
