#include "actors/brain/embedder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Measured by bench_retrieval. */
#define WEIGHT_WORD 1.0F
#define WEIGHT_GRAM 0.45F
#define PLACES_WORD 2
#define PLACES_GRAM 1

/* One distinct feature of the text. */
typedef struct feature {
    uint64_t hash;
    float weight;
    float told; /* sum of the weights its words were given */
    uint32_t count;
    uint8_t places;
} feature_t;

/* The features lie side by side; the table, which is mostly empty, has only their indexes. */
typedef struct features {
    feature_t *items;
    uint32_t *table; /* index + 1; 0: the place is free */
    size_t capacity; /* of the table: a power of two, never more than half full */
    size_t count;
} features_t;

const char *embedder_name(arena_t *arena, uint32_t dims, const char *language)
{
    return arena_printf(arena, "hash-%d-%u-%s", WORDS_VERSION, dims, language);
}

const char *embedder_language(const char *name)
{
    char rules[32];
    const char *at = name;

    snprintf(rules, sizeof rules, "hash-%d-", WORDS_VERSION);
    if (strncmp(name, rules, strlen(rules)) != 0)
        return NULL;
    at += strlen(rules);
    at += strspn(at, "0123456789");
    return *at == '-' ? at + 1 : NULL;
}

static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ULL;
    h = (h ^ h >> 27) * 0x94d049bb133111ebULL;
    return h ^ h >> 31;
}

static uint64_t hash_term(uint64_t kind, const char *term, size_t size)
{
    uint64_t h = 0xcbf29ce484222325ULL ^ kind;

    for (size_t i = 0; i < size; i++)
        h = (h ^ (uint8_t)term[i]) * 0x100000001b3ULL;
    h = mix(h + kind * 0x9e3779b97f4a7c15ULL);
    return h ? h : 1;
}

static void count_feature(features_t *in, uint64_t hash, float weight, uint8_t places, float told)
{
    size_t at = hash & (in->capacity - 1);

    while (in->table[at] && in->items[in->table[at] - 1].hash != hash)
        at = (at + 1) & (in->capacity - 1);
    if (!in->table[at]) {
        in->items[in->count] = (feature_t){.hash = hash, .weight = weight, .places = places};
        in->table[at] = (uint32_t)++in->count;
    }
    feature_t *feature = &in->items[in->table[at] - 1];
    feature->count++;
    feature->told += told;
}

/* Runs of 3 and 4 letters of "^word$"; the marks tell beginnings and ends from middles. */
static void count_grams(features_t *in, const word_t *word, float told)
{
    char text[WORDS_TERM_MAX + 2];
    uint16_t starts[WORDS_TERM_MAX + 4];
    size_t letters = 0, size = 0, used;

    text[size++] = '^';
    memcpy(text + size, word->term, word->size);
    size += word->size;
    text[size++] = '$';
    for (size_t at = 0; at < size; at += used) {
        words_decode(text + at, size - at, &used);
        starts[letters++] = (uint16_t)at;
    }
    starts[letters] = (uint16_t)size;
    for (size_t length = 3; length <= 4; length++)
        for (size_t at = 0; at + length <= letters; at++)
            count_feature(
                in,
                hash_term(length, text + starts[at], (size_t)(starts[at + length] - starts[at])),
                WEIGHT_GRAM, PLACES_GRAM, told);
}

static void count_word(features_t *in, const word_t *word, float told)
{
    if (word->kind == WORD_PART) /* the runs of letters find them */
        return;
    count_feature(in, hash_term(1, word->term, word->size), WEIGHT_WORD, PLACES_WORD, told);
    if (word->kind != WORD_LETTER && word->kind != WORD_PAIR && word->kind != WORD_WHOLE)
        count_grams(in, word, told);
}

/* Each place takes its own bits of the hash for where and which sign. */
static void add_feature(const feature_t *feature, uint32_t dims, float *vector)
{
    float often = feature->count > 1 ? 1 + logf((float)feature->count) : 1;
    float weight = feature->weight * often * feature->told / (float)feature->count;
    uint64_t h = feature->hash;

    for (int i = 0; i < feature->places; i++) {
        h = mix(h + 0x9e3779b97f4a7c15ULL);
        uint32_t at = (uint32_t)((h >> 32) * dims >> 32);
        vector[at] += h & 1 ? weight : -weight;
    }
}

static bool normalise(float *vector, uint32_t dims)
{
    double sum = 0;

    for (uint32_t i = 0; i < dims; i++)
        sum += (double)vector[i] * vector[i];
    if (!(sum > 0))
        return false;
    double length = sqrt(sum);
    for (uint32_t i = 0; i < dims; i++)
        vector[i] = (float)(vector[i] / length);
    return true;
}

/* "to be or not to be" has no other words to go by. */
static bool only_stop_words(const word_list_t *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (!list->words[i].stop)
            return false;
    return true;
}

err_t embedder_terms(arena_t *arena, const word_list_t *list, const float *weights, uint32_t dims,
                     float *vector)
{
    features_t features = {.capacity = 64};
    size_t most = 0;

    if (dims < EMBEDDER_DIMS_MIN || dims > EMBEDDER_DIMS_MAX)
        return err_of(ERR_ARGUMENT, "the built-in embedder makes 64 to 4096 dimensions");
    for (size_t i = 0; i < list->count; i++)
        most += 1 + 2 * (size_t)list->words[i].size + 2;
    while (features.capacity < most * 2)
        features.capacity *= 2;
    features.table = ARENA_ARRAY(arena, uint32_t, features.capacity);
    features.items = arena_piece(arena, sizeof *features.items * (most + 1));
    bool all = only_stop_words(list);
    for (size_t i = 0; i < list->count; i++)
        if (all || !list->words[i].stop)
            count_word(&features, &list->words[i], weights ? weights[i] : 1);
    memset(vector, 0, sizeof *vector * dims);
    for (size_t i = 0; i < features.capacity; i++) /* sums of floats depend on their order */
        if (features.table[i])
            add_feature(&features.items[features.table[i] - 1], dims, vector);
    if (!normalise(vector, dims))
        return err_of(ERR_ARGUMENT, "there is no word in the text to embed");
    return err_ok();
}

err_t embedder_text(words_t *words, arena_t *arena, const char *text, size_t size, uint32_t dims,
                    float *vector)
{
    word_list_t list;

    words_split(words, arena, text, size, &list);
    return embedder_terms(arena, &list, NULL, dims, vector);
}
