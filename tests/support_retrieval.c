#include "support_retrieval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "house.h"
#include "proto/json.h"
#include "proto/mp.h"

extern const actor_def_t brain_actor;

enum { FIRST = 10, CALL_MS = 60000, UNDER_WAY = 64 };

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* ---- reading ---- */

static size_t lines_of(const char *text)
{
    size_t lines = 1;

    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    return lines;
}

static bytes_t parsed(arena_t *arena, const char *line)
{
    bytes_t map;
    err_t err = json_to_msgpack(arena, line, strlen(line), NULL, &map);

    if (err_is(err))
        die(line, err_what(err));
    return map;
}

static const char *text_of(arena_t *arena, bytes_t map, const char *name)
{
    bytes_t value;
    mp_type_t type;

    if (!mp_get(map, name, &value) || !mp_type_of(value, &type) || type != MP_STR)
        return "";
    return mp_text(arena, value);
}

static void read_question(arena_t *arena, bytes_t map, question_t *out)
{
    bytes_t list, one;

    *out = (question_t){.tenant = text_of(arena, map, "tenant"),
                        .text = text_of(arena, map, "question")};
    if (!mp_get(map, "evidence", &list))
        return;
    while (mp_at(list, (uint32_t)out->evidence_count, &one))
        out->evidence_count++;
    out->evidence = ARENA_ARRAY(arena, const char *, out->evidence_count + 1);
    for (size_t i = 0; i < out->evidence_count; i++)
        if (mp_at(list, (uint32_t)i, &one))
            out->evidence[i] = mp_text(arena, one);
}

set_t *set_read_directory(arena_t *arena, const char *directory, const char *language)
{
    char *items = read_file(arena, arena_printf(arena, "%s/memories.jsonl", directory));
    char *questions = read_file(arena, arena_printf(arena, "%s/queries.jsonl", directory));
    set_t *set = ARENA_NEW(arena, set_t);

    if (!items || !questions)
        return NULL;
    *set = (set_t){.name = directory,
                   .language = language,
                   .items = ARENA_ARRAY(arena, item_t, lines_of(items)),
                   .questions = ARENA_ARRAY(arena, question_t, lines_of(questions))};
    for (char *save, *line = strtok_r(items, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        bytes_t map = parsed(arena, line);
        set->items[set->item_count++] = (item_t){.id = text_of(arena, map, "id"),
                                                 .tenant = text_of(arena, map, "tenant"),
                                                 .title = text_of(arena, map, "title"),
                                                 .text = text_of(arena, map, "text"),
                                                 .author = text_of(arena, map, "author"),
                                                 .thread = text_of(arena, map, "thread"),
                                                 .time = text_of(arena, map, "time")};
    }
    for (char *save, *line = strtok_r(questions, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        read_question(arena, parsed(arena, line), &set->questions[set->question_count++]);
    return set;
}

/* The next part of a line that | divides, without blanks around it. */
static const char *next_part(char **rest)
{
    char *part = *rest, *end = part + strcspn(part, "|");

    *rest = *end ? end + 1 : end;
    *end = 0;
    part += strspn(part, " ");
    for (size_t size = strlen(part); size && part[size - 1] == ' '; size--)
        part[size - 1] = 0;
    return part;
}

static void read_expected(arena_t *arena, char *ids, question_t *out)
{
    out->evidence = ARENA_ARRAY(arena, const char *, strlen(ids) + 1);
    for (char *save, *id = strtok_r(ids, " ", &save); id; id = strtok_r(NULL, " ", &save))
        out->evidence[out->evidence_count++] = id;
}

set_t *set_read_file(arena_t *arena, const char *path, const char *name)
{
    char *text = read_file(arena, path);
    set_t *set = ARENA_NEW(arena, set_t);

    if (!text)
        return NULL;
    *set = (set_t){.name = name,
                   .language = "english",
                   .items = ARENA_ARRAY(arena, item_t, lines_of(text)),
                   .questions = ARENA_ARRAY(arena, question_t, lines_of(text))};
    for (char *save, *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *rest = line + 2;
        if (strncmp(line, "language ", 9) == 0) {
            set->language = line + 9;
        } else if (strncmp(line, "m ", 2) == 0) {
            item_t *item = &set->items[set->item_count++];
            item->tenant = name;
            item->id = next_part(&rest);
            item->author = next_part(&rest);
            item->thread = next_part(&rest);
            item->time = next_part(&rest);
            item->title = next_part(&rest);
            item->text = next_part(&rest);
        } else if (strncmp(line, "q ", 2) == 0) {
            question_t *question = &set->questions[set->question_count++];
            question->tenant = name;
            question->text = next_part(&rest);
            read_expected(arena, rest, question);
        } else if (*line != '#') {
            die(path, line);
        }
    }
    return set;
}

/* ---- the brain ---- */

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
    for (size_t i = 0; i < set->item_count; i++)
        if (strcmp(set->items[i].tenant, tenant) == 0)
            return arena_printf(arena, "t%zu", i);
    return "none";
}

static bytes_t store_args(arena_t *arena, const set_t *set, size_t number)
{
    const item_t *item = &set->items[number];
    buf_t pairs, all;
    uint32_t count = 4;

    buf_open(&pairs, arena);
    mp_put_str(&pairs, "id");
    mp_put_str(&pairs, arena_printf(arena, "%zu", number));
    mp_put_str(&pairs, "taskId");
    mp_put_str(&pairs, "");
    mp_put_str(&pairs, "request");
    mp_put_str(&pairs, item->title);
    mp_put_str(&pairs, "solution");
    mp_put_str(&pairs, item->text);
    put_pair(&pairs, "author", item->author, &count);
    put_pair(&pairs, "thread", item->thread, &count);
    put_pair(&pairs, "timestamp", item->time, &count);
    buf_open(&all, arena);
    mp_put_map(&all, count);
    buf_put(&all, pairs.data, pairs.size);
    return buf_bytes(&all);
}

static void fill(shelf_t *shelf)
{
    const set_t *set = shelf->set;
    arena_t *arena = arena_new();
    size_t sent = 0;
    uint64_t id;

    for (size_t done = 0; done < set->item_count; done++) {
        for (; sent < set->item_count && sent - done < UNDER_WAY; sent++) {
            client_call_t call = {.peer = "brain",
                                  .method = "brain_store",
                                  .args = store_args(arena, set, sent),
                                  .company = company_of(arena, set, set->items[sent].tenant),
                                  .role = ROLE_ADMIN,
                                  .timeout_ms = CALL_MS};
            client_send(shelf->client, &call);
        }
        client_reply_t reply = client_wait(shelf->client, arena, CALL_MS, &id);
        if (err_is(reply.err))
            die("brain_store", err_what(reply.err));
    }
    arena_destroy(&arena);
}

static void start(shelf_t *shelf, const char *const *settings)
{
    const char *all[16] = {arena_printf(shelf->arena, "brain.language=%s", shelf->set->language)};
    host_options_t options = {.data_dir = shelf->data, .settings = all, .log_level = LOG_ERROR};

    for (size_t i = 0; settings && settings[i] && i < 14; i++)
        all[i + 1] = settings[i];
    err_t err = host_open(&options, shelf->arena, &shelf->host);
    if (!err_is(err))
        err = host_start(shelf->host, &brain_actor, NULL, shelf->arena);
    if (!err_is(err))
        err = client_open_host(shelf->host, &shelf->client);
    if (err_is(err))
        die("brain", err_what(err));
}

static void stop(shelf_t *shelf)
{
    client_close(&shelf->client);
    host_close(&shelf->host, 5000);
}

void shelf_open(shelf_t *shelf, const set_t *set)
{
    *shelf = (shelf_t){.set = set, .arena = arena_new()};
    snprintf(shelf->data, sizeof shelf->data, "/tmp/agency-shelf-XXXXXX");
    if (!mkdtemp(shelf->data))
        die(shelf->data, "cannot be made");
    start(shelf, NULL);
    fill(shelf);
}

void shelf_reopen(shelf_t *shelf, const char *const *settings)
{
    stop(shelf);
    start(shelf, settings);
}

void shelf_close(shelf_t *shelf)
{
    stop(shelf);
    scratch_remove(shelf->data);
    arena_destroy(&shelf->arena);
}

size_t shelf_ask(shelf_t *shelf, arena_t *arena, const question_t *question, size_t *found)
{
    buf_t args;
    bytes_t list, one, id;
    size_t count = 0;

    buf_open(&args, arena);
    mp_put_map(&args, 2);
    mp_put_str(&args, "query");
    mp_put_str(&args, question->text);
    mp_put_str(&args, "limit");
    mp_put_int(&args, FOUND_MOST);
    client_call_t call = {.peer = "brain",
                          .method = "brain_query",
                          .args = buf_bytes(&args),
                          .company = company_of(arena, shelf->set, question->tenant),
                          .role = ROLE_ADMIN,
                          .timeout_ms = CALL_MS};
    client_reply_t reply = client_call(shelf->client, arena, &call);
    if (err_is(reply.err))
        die("brain_query", err_what(reply.err));
    if (!mp_get(reply.body, "memories", &list))
        return 0;
    while (count < FOUND_MOST && mp_at(list, (uint32_t)count, &one) && mp_get(one, "id", &id))
        found[count++] = strtoull(mp_text(arena, id), NULL, 10);
    return count;
}

/* ---- measures ---- */

void measure_add(measure_t *into, const set_t *set, const question_t *question, const size_t *found,
                 size_t count)
{
    double right = 0, first = 0, dcg = 0, ideal = 0;

    if (!question->evidence_count)
        return;
    for (size_t i = 0; i < count; i++) {
        bool is = false;
        for (size_t e = 0; e < question->evidence_count && !is; e++)
            is = strcmp(set->items[found[i]].id, question->evidence[e]) == 0;
        if (!is)
            continue;
        if (first == 0)
            first = 1.0 / (double)(i + 1);
        if (i < FIRST) {
            right++;
            dcg += 1 / log2((double)i + 2);
        }
    }
    for (size_t i = 0; i < question->evidence_count && i < FIRST; i++)
        ideal += 1 / log2((double)i + 2);
    into->recall += right / (double)question->evidence_count;
    into->mrr += first;
    into->ndcg += dcg / ideal;
    into->questions++;
}

measure_t measure_shelf(shelf_t *shelf)
{
    measure_t out = {0};
    size_t found[FOUND_MOST];
    arena_t *arena = arena_new();
    const char *trace = getenv("AGENCY_RETRIEVAL_MISSES"); /* prints what was not found first */

    for (size_t i = 0; i < shelf->set->question_count; i++) {
        const question_t *question = &shelf->set->questions[i];
        size_t count = shelf_ask(shelf, arena, question, found);
        double before = out.mrr;
        measure_add(&out, shelf->set, question, found, count);
        if (trace && out.mrr - before < 0.999)
            printf("    1/%.1f  %s (%s; found %s)\n", 1 / (out.mrr - before), question->text,
                   question->evidence_count ? question->evidence[0] : "-",
                   count ? shelf->set->items[found[0]].id : "nothing");
        arena_reset(arena);
    }
    arena_destroy(&arena);
    return out;
}
