#include "actors/brain/posting.h"

#include <stdlib.h>
#include <string.h>

/* ---- what a memory says ---- */

static void make_room(posting_doc_t *doc, arena_t *arena, size_t more)
{
    if (doc->count + more <= doc->capacity)
        return;
    size_t capacity = doc->count + more + 16;
    posting_term_t *terms = ARENA_ARRAY(arena, posting_term_t, capacity);
    if (doc->count)
        memcpy(terms, doc->terms, doc->count * sizeof *terms);
    doc->terms = terms;
    doc->capacity = capacity;
}

void posting_doc_add(posting_doc_t *doc, arena_t *arena, int field, int parts,
                     const word_list_t *list)
{
    make_room(doc, arena, list->count);
    for (size_t i = 0; i < list->count; i++) {
        const word_t *word = &list->words[i];
        if (word->stop)
            continue;
        posting_term_t *term = &doc->terms[doc->count++];
        *term = (posting_term_t){.term = word->term, .size = word->size};
        term->counts[word->kind == WORD_PART ? parts : field] = 1;
        if (word->kind != WORD_PART && doc->lengths[field] < UINT16_MAX)
            doc->lengths[field]++;
    }
}

void posting_doc_add_term(posting_doc_t *doc, arena_t *arena, int field, const char *term)
{
    make_room(doc, arena, 1);
    posting_term_t *added = &doc->terms[doc->count++];
    *added = (posting_term_t){.term = term, .size = (uint16_t)strlen(term)};
    added->counts[field] = 1;
}

static int by_term(const void *a, const void *b)
{
    const posting_term_t *x = a, *y = b;

    return strcmp(x->term, y->term);
}

void posting_doc_finish(posting_doc_t *doc)
{
    size_t kept = 0;

    if (doc->count)
        qsort(doc->terms, doc->count, sizeof doc->terms[0], by_term);
    for (size_t i = 0; i < doc->count; i++) {
        if (!kept || strcmp(doc->terms[kept - 1].term, doc->terms[i].term) != 0) {
            doc->terms[kept++] = doc->terms[i];
            continue;
        }
        for (int field = 0; field < RANK_FIELDS; field++) {
            unsigned sum = doc->terms[kept - 1].counts[field] + doc->terms[i].counts[field];
            doc->terms[kept - 1].counts[field] = (uint16_t)(sum < UINT16_MAX ? sum : UINT16_MAX);
        }
    }
    doc->count = kept;
}

/* ---- lengths in 8 bits: exact to 15, then 3 bits after the leading one ---- */

uint8_t posting_length_code(unsigned length)
{
    unsigned shift = 0;

    while (length >> shift > 15)
        shift++;
    return (uint8_t)(shift ? 8 + shift * 8 + ((length >> shift) & 7) : length);
}

static uint16_t length_of(uint8_t code)
{
    if (code < 16)
        return code;
    unsigned shift = (code - 8U) / 8, length = (8U + (code & 7)) << shift;

    return (uint16_t)(length < UINT16_MAX ? length : UINT16_MAX);
}

/* ---- blocks ---- */

static size_t put_varint(uint8_t *out, uint64_t value)
{
    size_t size = 0;

    for (; value > 127; value >>= 7)
        out[size++] = (uint8_t)(value | 128);
    out[size++] = (uint8_t)value;
    return size;
}

static inline bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    if (*at < end && **at < 128) { /* nearly always */
        *value = *(*at)++;
        return true;
    }
    *value = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return true;
    }
    return false;
}

size_t posting_put(uint8_t *out, uint64_t before, const posting_t *posting)
{
    size_t size = put_varint(out, posting->id - before), mask_at = size++;

    out[mask_at] = 0;
    for (int field = 0; field < RANK_FIELDS; field++)
        if (posting->counts[field]) {
            out[mask_at] |= (uint8_t)(1 << field);
            size += put_varint(out + size, posting->counts[field]);
            out[size++] = posting_length_code(posting->lengths[field]);
        }
    return size;
}

/* One posting whose number is a step from `before`. */
bool posting_get(const uint8_t **at, const uint8_t *end, uint64_t before, posting_t *posting)
{
    uint64_t value;

    memset(posting, 0, sizeof *posting);
    if (!get_varint(at, end, &value) || *at == end)
        return false;
    posting->id = before + value;
    uint8_t mask = *(*at)++;
    for (int field = 0; mask; field++, mask >>= 1) {
        if (!(mask & 1))
            continue;
        if (field >= RANK_FIELDS || !get_varint(at, end, &value) || *at == end)
            return false;
        posting->counts[field] = (uint16_t)value;
        posting->lengths[field] = length_of(*(*at)++);
    }
    return true;
}

/* Decodes at most `most` postings; false when the bytes are no block. */
bool posting_decode(bytes_t block, posting_t *postings, size_t most, size_t *count)
{
    const uint8_t *at = block.data + POSTING_LAST, *end = block.data + block.size;
    uint64_t id = 0;

    for (*count = 0; at < end; (*count)++) {
        if (*count == most || !posting_get(&at, end, id, &postings[*count]))
            return false;
        id = postings[*count].id;
    }
    return true;
}

/* What is left of a posting behind its step: the fields' counts and lengths. */
static bool weigh(const uint8_t **at, const uint8_t *end, const postings_units_t *units, float *out)
{
    float weight = 0;
    uint64_t count;

    for (unsigned mask = *(*at)++; mask; mask &= mask - 1) {
        unsigned field = (unsigned)__builtin_ctz(mask);
        if (field >= RANK_FIELDS || !get_varint(at, end, &count) || *at == end)
            return false;
        weight += (float)count * units->units[field][*(*at)++];
    }
    *out = weight;
    return true;
}

/* The same as ids and weights; this is where a search spends its time. Nearly every posting is four
 * bytes: a small step, one field, a small count, a length. */
bool posting_decode_weights(bytes_t block, const postings_units_t *units, uint64_t *ids,
                            float *weights, size_t *count)
{
    enum { ONE_BYTE_EACH = 0x80, FIELDS = 1 << RANK_FIELDS };
    const uint8_t *at = block.data + POSTING_LAST, *end = block.data + block.size;
    uint64_t id = 0, step;
    size_t done = 0;

    for (; at < end; done++) {
        if (done == POSTINGS_BLOCK)
            return false;
        unsigned mask = end - at >= 4 ? at[1] : 0;
        if (mask && mask < FIELDS && !(mask & (mask - 1)) && !((at[0] | at[2]) & ONE_BYTE_EACH)) {
            ids[done] = id += at[0];
            weights[done] = (float)(int)at[2] * units->units[__builtin_ctz(mask)][at[3]];
            at += 4;
            continue;
        }
        if (!get_varint(&at, end, &step) || at == end)
            return false;
        ids[done] = id += step;
        if (!weigh(&at, end, units, &weights[done]))
            return false;
    }
    *count = done;
    return true;
}

void postings_units(const rank_options_t *options, postings_units_t *out)
{
    for (int field = 0; field < RANK_FIELDS; field++)
        for (unsigned code = 0; code < 256; code++)
            out->units[field][code] = rank_unit(options, field, length_of((uint8_t)code));
}

size_t posting_encode(uint8_t *out, const posting_t *postings, size_t count)
{
    size_t size = POSTING_LAST;
    uint64_t before = 0;

    for (size_t i = 0; i < count; i++) {
        size += posting_put(out + size, before, &postings[i]);
        before = postings[i].id;
    }
    memcpy(out, &before, POSTING_LAST);
    return size;
}

uint64_t posting_last_of(bytes_t block)
{
    uint64_t last;

    memcpy(&last, block.data, POSTING_LAST);
    return last;
}

size_t posting_count_in(bytes_t block)
{
    const uint8_t *at = block.data + POSTING_LAST, *end = block.data + block.size;
    size_t count = 0;
    uint64_t skip;

    for (; at < end; count++) {
        if (!get_varint(&at, end, &skip) || at == end)
            return SIZE_MAX;
        for (uint8_t mask = *at++; mask; mask >>= 1)
            if ((mask & 1) && (!get_varint(&at, end, &skip) || at++ == end))
                return SIZE_MAX;
    }
    return count;
}

uint64_t posting_first_of(bytes_t block)
{
    const uint8_t *at = block.data + POSTING_LAST;
    uint64_t first = 0;

    get_varint(&at, block.data + block.size, &first);
    return first;
}
