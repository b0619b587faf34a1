#include "actors/brain/tell.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/json.h"
#include "proto/mp.h"

static void put_list(buf_t *out, bytes_t list)
{
    mp_reader_t reader = mp_reader(list);
    mp_value_t head, item;
    bytes_t whole;

    if (!list.size || !mp_read(&reader, &head))
        return;
    if (head.type == MP_STR)
        buf_put(out, head.text, head.size);
    else if (head.type != MP_ARRAY)
        (void)json_from_msgpack(list, JSON_COMPACT, out);
    for (uint32_t i = 0; head.type == MP_ARRAY && i < head.count; i++) {
        if (!mp_slice(&reader, &whole))
            return;
        mp_reader_t inner = mp_reader(whole);
        if (i)
            buf_puts(out, ", ");
        if (mp_read(&inner, &item) && item.type == MP_STR)
            buf_put(out, item.text, item.size);
        else
            (void)json_from_msgpack(whole, JSON_COMPACT, out);
    }
}

/* Texts may be long: printf would look at them twice. */
static void put_line(buf_t *out, const char *name, const char *text, const char *end)
{
    buf_puts(out, name);
    buf_puts(out, text ? text : "");
    buf_puts(out, end);
}

/* A value on one line: what came from outside cannot look like a line of ours. */
static void put_flat(buf_t *out, bytes_t value)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;

    if (!mp_read(&reader, &head) || head.type != MP_STR) {
        (void)json_from_msgpack(value, JSON_COMPACT, out);
        return;
    }
    size_t from = out->size;
    buf_put(out, head.text, head.size);
    for (size_t i = from; i < out->size; i++)
        if ((unsigned char)out->data[i] < ' ' || out->data[i] == 0x7f)
            out->data[i] = ' ';
}

/* Told elsewhere in the block. */
static const char *const told[] = {"taskId",    "timestamp",   "request",   "solution",
                                   "artifacts", "score",       "word_rank", "vector_rank",
                                   "distance",  "explanation", NULL};

static bool is_told(const mp_value_t *name)
{
    for (size_t i = 0; told[i]; i++)
        if (strlen(told[i]) == name->size && memcmp(told[i], name->text, name->size) == 0)
            return true;
    return false;
}

/* Every other row the memory has, as "Source agency: north". */
static void put_facts(buf_t *out, arena_t *arena, const memory_t *memory)
{
    memory_t rest = *memory;
    buf_t bytes;
    mp_value_t head, name;
    bytes_t value;
    int64_t ms;

    rest.request = rest.solution = NULL;
    rest.artifacts = (bytes_t){0};
    buf_open(&bytes, arena);
    record_encode(&memory_record, &rest, &bytes);
    mp_reader_t reader = mp_reader(buf_bytes(&bytes));
    if (!mp_read(&reader, &head))
        return;
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &name) || !mp_slice(&reader, &value))
            return;
        if (is_told(&name))
            continue;
        size_t from = out->size + 1;
        buf_puts(out, "\n");
        buf_put(out, name.text, name.size);
        buf_puts(out, ": ");
        out->data[from] = (char)toupper((unsigned char)out->data[from]);
        for (size_t j = from; j < out->size; j++)
            out->data[j] = out->data[j] == '_' ? ' ' : out->data[j];
        if (name.size == strlen("created") && memcmp(name.text, "created", name.size) == 0 &&
            mp_int(value, &ms))
            buf_puts(out, record_time_text(arena, ms));
        else
            put_flat(out, value);
    }
}

static void put_score(buf_t *out, const memory_t *memory)
{
    if (!memory->has_score)
        return;
    buf_printf(out, "\nScore: %.4g", memory->score);
    if (memory->has_word_rank)
        buf_printf(out, ", place %" PRId64 " by words", memory->word_rank);
    if (memory->has_vector_rank)
        buf_printf(out, ", place %" PRId64 " by likeness", memory->vector_rank);
}

static void put_why(buf_t *out, const explanation_t *why)
{
    buf_puts(out, "\nWhy: ");
    if (!why->words.count)
        buf_puts(out, "shares no word with the question");
    for (size_t i = 0; i < why->words.count; i++)
        put_line(out, i ? ", " : "shares ", why->words.items[i], "");
    if (why->has_word_score)
        buf_printf(out, "; words %.3g (weight %.3g)", why->word_score, why->word_weight);
    if (why->has_cosine)
        buf_printf(out, "; likeness %.3g (weight %.3g)", why->cosine, why->vector_weight);
    if (why->has_neighbour_score)
        buf_printf(out, "; neighbours in the thread %+.3g", why->neighbour_score);
    if (why->has_look_score)
        buf_printf(out, "; second look %+.3g", why->look_score);
    if (why->has_recency)
        buf_printf(out, "; times %.3g for being new", why->recency);
}

static void put_block(buf_t *out, arena_t *arena, const memory_t *memory)
{
    put_line(out, "[Task: ", memory->taskId, "]");
    put_line(out, "\nTimestamp: ", record_time_text(arena, memory->timestamp), "");
    put_line(out, "\nRequest: ", memory->request, "");
    put_line(out, "\nSolution: ", memory->solution, "\nArtifacts: ");
    put_list(out, memory->artifacts);
    put_facts(out, arena, memory);
    put_score(out, memory);
    if (memory->explanation)
        put_why(out, memory->explanation);
}

const char *tell_blocks(arena_t *arena, const memory_list_t *memories)
{
    buf_t out;

    if (!memories->count)
        return NULL;
    buf_open(&out, arena);
    for (size_t i = 0; i < memories->count; i++) {
        if (i)
            buf_puts(&out, "\n\n---\n\n");
        put_block(&out, arena, &memories->items[i]);
    }
    return out.data;
}

/* The rows that clients of the old system know, and everything we have besides. */
#define old_row_FIELDS(F)                                                                          \
    F(STR, userPrompt, must, 0, 0, "Old name of request.")                                         \
    F(STR, agentResponse, must, 0, 0, "Old name of solution.")                                     \
    F(REAL, _distance, opt(), 0, 0, "Old name of distance.")                                       \
    memory_FIELDS(F)
RECORD(old_row, old_row_FIELDS)
#define old_rows_FIELDS(F) F(LIST(old_row), rows, must, 0, 0, "Rows.")
RECORD(old_rows, old_rows_FIELDS)

static old_row_t old_row_of(arena_t *arena, const memory_t *memory)
{
    buf_t bytes;
    old_row_t row;

    /* Both records have the rows of a memory: what one writes the other reads. */
    buf_open(&bytes, arena);
    record_encode(&memory_record, memory, &bytes);
    buf_t all;
    buf_open(&all, arena);
    mp_reader_t reader = mp_reader(buf_bytes(&bytes));
    mp_value_t head;
    mp_read(&reader, &head);
    mp_put_map(&all, head.count + 2);
    buf_put(&all, reader.at, (size_t)(reader.end - reader.at));
    mp_put_str(&all, "userPrompt");
    mp_put_str(&all, memory->request ? memory->request : "");
    mp_put_str(&all, "agentResponse");
    mp_put_str(&all, memory->solution ? memory->solution : "");
    memset(&row, 0, sizeof row);
    if (err_is(record_decode(&old_row_record, buf_bytes(&all), arena, "row", &row)))
        abort();
    row._distance = memory->distance;
    row.has__distance = memory->has_distance;
    if (!row.artifacts.size)
        row.artifacts = (bytes_t){(const uint8_t *)"\x90", 1};
    return row;
}

const char *tell_rows(arena_t *arena, const memory_list_t *memories)
{
    old_rows_t rows = {.rows = {ARENA_ARRAY(arena, old_row_t, memories->count + 1), 0}};
    buf_t bytes, json;
    bytes_t list;

    for (size_t i = 0; i < memories->count; i++)
        rows.rows.items[rows.rows.count++] = old_row_of(arena, &memories->items[i]);
    buf_open(&bytes, arena);
    record_encode(&old_rows_record, &rows, &bytes);
    buf_open(&json, arena);
    if (!mp_get(buf_bytes(&bytes), "rows", &list) ||
        err_is(json_from_msgpack(list, JSON_PRETTY, &json)))
        return "[]";
    return json.data;
}
