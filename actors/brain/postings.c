#include "actors/brain/postings.h"

#include <stdlib.h>
#include <string.h>

#include "actors/brain/brain.h"

/* A block: u64 last number, then postings: varint step of the number (the first from 0), a byte of
 * fields, for each a varint count and a length code. The head row has u32 memories before its
 * block, whose last number is 0 while it is empty. Numbers in the machine's byte order: the store
 * as a whole is not portable either. */
enum { HEAD = 4, LAST = 8, POSTING_LARGEST = 10 + 1 + RANK_FIELDS * 4 };

/* ---- what a memory says ---- */

void posting_doc_add(posting_doc_t *doc, arena_t *arena, int field, const word_list_t *list)
{
    size_t most = doc->count + list->count;

    if (most > doc->capacity) {
        posting_term_t *terms = ARENA_ARRAY(arena, posting_term_t, most);
        if (doc->count)
            memcpy(terms, doc->terms, doc->count * sizeof *terms);
        doc->terms = terms;
        doc->capacity = most;
    }
    for (size_t i = 0; i < list->count; i++) {
        const word_t *word = &list->words[i];
        if (word->stop)
            continue;
        posting_term_t *term = &doc->terms[doc->count++];
        *term = (posting_term_t){.term = word->term, .size = word->size};
        term->counts[field] = 1;
        if (doc->lengths[field] < UINT16_MAX)
            doc->lengths[field]++;
    }
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

static uint8_t length_code(unsigned length)
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

static bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return true;
    }
    return false;
}

static size_t put_posting(uint8_t *out, uint64_t before, const rank_posting_t *posting)
{
    size_t size = put_varint(out, posting->id - before), mask_at = size++;

    out[mask_at] = 0;
    for (int field = 0; field < RANK_FIELDS; field++)
        if (posting->counts[field]) {
            out[mask_at] |= (uint8_t)(1 << field);
            size += put_varint(out + size, posting->counts[field]);
            out[size++] = length_code(posting->lengths[field]);
        }
    return size;
}

/* Decodes at most `most` postings; false when the bytes are no block. */
static bool decode(bytes_t block, rank_posting_t *postings, size_t most, size_t *count)
{
    const uint8_t *at = block.data + LAST, *end = block.data + block.size;
    uint64_t id = 0, step, value;

    for (*count = 0; at < end; (*count)++) {
        if (*count == most || !get_varint(&at, end, &step) || at == end)
            return false;
        rank_posting_t *posting = &postings[*count];
        memset(posting, 0, sizeof *posting);
        posting->id = id += step;
        uint8_t mask = *at++;
        for (int field = 0; mask; field++, mask >>= 1) {
            if (!(mask & 1))
                continue;
            if (field >= RANK_FIELDS || !get_varint(&at, end, &value) || at == end)
                return false;
            posting->counts[field] = (uint16_t)value;
            posting->lengths[field] = length_of(*at++);
        }
    }
    return true;
}

static size_t encode(uint8_t *out, const rank_posting_t *postings, size_t count)
{
    size_t size = LAST;
    uint64_t before = 0;

    for (size_t i = 0; i < count; i++) {
        size += put_posting(out + size, before, &postings[i]);
        before = postings[i].id;
    }
    memcpy(out, &before, LAST);
    return size;
}

static uint64_t last_of(bytes_t block)
{
    uint64_t last;

    memcpy(&last, block.data, LAST);
    return last;
}

static size_t count_in(bytes_t block)
{
    const uint8_t *at = block.data + LAST, *end = block.data + block.size;
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

static void term_key(store_key_t *key, const char *term)
{
    key_open(key);
    key_str(key, term);
}

static err_t corrupt(arena_t *arena, const char *term)
{
    return err_make(arena, ERR_CORRUPT,
                    "the words index of \"%s\" is damaged: run brain_maintenance rebuild_indices",
                    term);
}

/* ---- adding ---- */

typedef struct head {
    uint32_t memories;
    bytes_t block; /* a copy, with room for one more posting */
    uint8_t *room;
} head_t;

static err_t get_head(store_txn_t *txn, arena_t *arena, const char *term, head_t *head)
{
    store_key_t key;
    bytes_t value;

    term_key(&key, term);
    err_t err = store_get(txn, TABLE_postings, key_bytes(&key), &value);
    if (err.code == ERR_NOT_FOUND)
        value.size = 0;
    else if (err_is(err))
        return err;
    else if (value.size < HEAD + LAST)
        return corrupt(arena, term);
    *head = (head_t){.room = arena_alloc(arena, HEAD + LAST + value.size + POSTING_LARGEST)};
    if (value.size) {
        memcpy(head->room, value.data, value.size);
        memcpy(&head->memories, head->room, HEAD);
    }
    head->block = (bytes_t){head->room + HEAD, value.size ? value.size - HEAD : LAST};
    return err_ok();
}

static err_t put_head(store_txn_t *txn, const char *term, head_t *head)
{
    store_key_t key;

    term_key(&key, term);
    if (!head->memories)
        return store_del(txn, TABLE_postings, key_bytes(&key));
    memcpy(head->room, &head->memories, HEAD);
    return store_put(txn, TABLE_postings, key_bytes(&key),
                     (bytes_t){head->room, HEAD + head->block.size});
}

static err_t put_block(store_txn_t *txn, const char *term, uint64_t first, bytes_t block)
{
    store_key_t key;

    term_key(&key, term);
    key_u64(&key, first);
    return store_put(txn, TABLE_postings, key_bytes(&key), block);
}

static uint64_t first_of(bytes_t block)
{
    const uint8_t *at = block.data + LAST;
    uint64_t first = 0;

    get_varint(&at, block.data + block.size, &first);
    return first;
}

static err_t add_term(store_txn_t *txn, arena_t *arena, uint64_t number, const posting_term_t *term,
                      const uint16_t *lengths)
{
    head_t head;
    rank_posting_t posting = {.id = number};
    err_t err = get_head(txn, arena, term->term, &head);

    if (err_is(err))
        return err;
    memcpy(posting.counts, term->counts, sizeof posting.counts);
    memcpy(posting.lengths, lengths, sizeof posting.lengths);
    if (head.block.size > LAST && count_in(head.block) >= POSTINGS_BLOCK) {
        err = put_block(txn, term->term, first_of(head.block), head.block);
        if (err_is(err))
            return err;
        head.block.size = LAST;
        memset(head.room + HEAD, 0, LAST);
    }
    uint64_t before = last_of(head.block);
    head.block.size += put_posting(head.room + HEAD + head.block.size, before, &posting);
    memcpy(head.room + HEAD, &number, LAST);
    head.memories++;
    return put_head(txn, term->term, &head);
}

err_t postings_add(store_txn_t *txn, arena_t *arena, uint64_t number, const posting_doc_t *doc)
{
    err_t err = err_ok();

    for (size_t i = 0; i < doc->count && !err_is(err); i++)
        err = add_term(txn, arena, number, &doc->terms[i], doc->lengths);
    return err;
}

/* ---- removing ---- */

/* The block without the number; `found` when it was there. */
static bool without(arena_t *arena, bytes_t block, uint64_t number, uint8_t *out, size_t *size,
                    bool *found)
{
    size_t most = block.size / 3 + 1, count, kept = 0;
    rank_posting_t *postings = ARENA_ARRAY(arena, rank_posting_t, most);

    if (!decode(block, postings, most, &count))
        return false;
    for (size_t i = 0; i < count; i++)
        if (postings[i].id != number)
            postings[kept++] = postings[i];
    *found = kept < count;
    *size = encode(out, postings, kept);
    return true;
}

/* The full block that can hold the number: the last one that begins at or before it. */
static err_t remove_from_blocks(store_txn_t *txn, arena_t *arena, const char *term, uint64_t number)
{
    store_scan_t scan;
    store_key_t prefix, from;
    bytes_t key, value;
    bool found = false;
    size_t size = 0;

    term_key(&prefix, term);
    from = prefix;
    key_u64(&from, number);
    err_t err =
        store_scan_open(&scan, txn, TABLE_postings, key_bytes(&prefix), key_bytes(&from), true);
    if (err_is(err))
        return err;
    bool any =
        store_scan_next(&scan, &key, &value) && key.size == prefix.size + 8 && value.size > LAST;
    store_key_t place;
    key_open(&place);
    uint8_t *block = NULL;
    if (any) {
        key_raw(&place, key.data, key.size);
        block = arena_alloc(arena, value.size + POSTING_LARGEST);
        any = without(arena, value, number, block, &size, &found) && found;
    }
    store_scan_close(&scan);
    if (!any)
        return corrupt(arena, term);
    if (size == LAST)
        return store_del(txn, TABLE_postings, key_bytes(&place));
    return store_put(txn, TABLE_postings, key_bytes(&place), (bytes_t){block, size});
}

static err_t remove_term(store_txn_t *txn, arena_t *arena, uint64_t number, const char *term)
{
    head_t head;
    bool found = false;
    size_t size = 0;
    err_t err = get_head(txn, arena, term, &head);

    if (err_is(err))
        return err;
    if (!head.memories)
        return corrupt(arena, term);
    uint8_t *room = arena_alloc(arena, HEAD + head.block.size + POSTING_LARGEST);
    if (!without(arena, head.block, number, room + HEAD, &size, &found))
        return corrupt(arena, term);
    if (found) {
        head.room = room;
        head.block = (bytes_t){room + HEAD, size};
    } else {
        err = remove_from_blocks(txn, arena, term, number);
        if (err_is(err))
            return err;
    }
    head.memories--;
    return put_head(txn, term, &head);
}

err_t postings_remove(store_txn_t *txn, arena_t *arena, uint64_t number, const posting_doc_t *doc)
{
    err_t err = err_ok();

    for (size_t i = 0; i < doc->count && !err_is(err); i++)
        err = remove_term(txn, arena, number, doc->terms[i].term);
    return err;
}

/* ---- reading ---- */

/* Older blocks first, the head's postings last: ascending numbers. Whole blocks are passed over by
 * their last number, without decoding. */
static err_t seek(void *ctx, uint64_t from, rank_block_t *out)
{
    postings_list_t *self = ctx;
    bytes_t key, block = {0};
    size_t count = 0;

    *out = (rank_block_t){0};
    while (!self->at_head) {
        if (!store_scan_next(&self->scan, &key, &block)) {
            self->at_head = true;
            block = self->head;
        }
        if (block.size > LAST && last_of(block) >= from)
            break;
        block.size = 0;
    }
    if (block.size <= LAST)
        return err_ok();
    size_t most = block.size / 3 + 1;
    if (most > POSTINGS_BLOCK)
        most = POSTINGS_BLOCK;
    if (!self->postings)
        self->postings = ARENA_ARRAY(self->arena, rank_posting_t, POSTINGS_BLOCK);
    if (!decode(block, self->postings, most, &count))
        return err_of(ERR_CORRUPT, "the words index is damaged: run brain_maintenance "
                                   "rebuild_indices");
    *out = (rank_block_t){self->postings, count};
    return err_ok();
}

err_t postings_open(postings_list_t *self, store_txn_t *txn, arena_t *arena, const char *term,
                    rank_list_t *list)
{
    bytes_t key, value;
    uint32_t memories;

    *self = (postings_list_t){.arena = arena};
    *list = (rank_list_t){.self = self, .seek = seek, .boost = 1};
    term_key(&self->prefix, term);
    err_t err = store_scan_open(&self->scan, txn, TABLE_postings, key_bytes(&self->prefix),
                                (bytes_t){0}, false);
    if (err_is(err))
        return err;
    self->open = true;
    if (!store_scan_next(&self->scan, &key, &value)) {
        self->at_head = true;
        return err_ok();
    }
    if (key.size != self->prefix.size || value.size < HEAD + LAST)
        return corrupt(arena, term);
    memcpy(&memories, value.data, HEAD);
    self->head = (bytes_t){value.data + HEAD, value.size - HEAD};
    list->memories = memories;
    return err_ok();
}

void postings_close(postings_list_t *self)
{
    if (self->open)
        store_scan_close(&self->scan);
    self->open = false;
}

/* ---- checking ---- */

static uint64_t sum_one(uint64_t number, const char *term, size_t size, const uint16_t *counts)
{
    uint64_t h = number * 0x9e3779b97f4a7c15ULL;

    for (size_t i = 0; i < size; i++)
        h = (h ^ (uint8_t)term[i]) * 0x100000001b3ULL;
    for (int field = 0; field < RANK_FIELDS; field++)
        h = (h ^ counts[field]) * 0xff51afd7ed558ccdULL;
    return h ^ h >> 32;
}

uint64_t posting_doc_sum(uint64_t number, const posting_doc_t *doc)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < doc->count; i++)
        sum += sum_one(number, doc->terms[i].term, doc->terms[i].size, doc->terms[i].counts);
    return sum;
}

typedef struct check {
    arena_t *arena;
    store_key_t prefix; /* of the present term; size 0: none yet */
    const char *term;
    uint64_t promised, seen, last, head_first;
    postings_sum_t out;
} check_t;

static err_t check_block(check_t *check, bytes_t block, uint64_t after, uint64_t *last)
{
    size_t most = block.size / 3 + 1, count = 0;
    rank_posting_t *postings = ARENA_ARRAY(check->arena, rank_posting_t, most);

    if (block.size < LAST || !decode(block, postings, most, &count))
        return corrupt(check->arena, check->term);
    *last = after;
    for (size_t i = 0; i < count; i++) {
        if (postings[i].id <= *last && (i || after))
            return corrupt(check->arena, check->term);
        *last = postings[i].id;
        check->out.sum += sum_one(*last, check->term, strlen(check->term), postings[i].counts);
    }
    if (count && *last != last_of(block))
        return corrupt(check->arena, check->term);
    check->seen += count;
    check->out.postings += count;
    return err_ok();
}

static err_t check_end(check_t *check)
{
    bool right = !check->term || (check->promised == check->seen &&
                                  (!check->head_first || check->last < check->head_first));

    return right ? err_ok() : corrupt(check->arena, check->term);
}

static err_t check_row(check_t *check, bytes_t key, bytes_t value)
{
    uint32_t memories;
    uint64_t ignored;
    bytes_t rest = key;

    if (check->prefix.size && key.size == check->prefix.size + 8 &&
        memcmp(key.data, check->prefix.data, check->prefix.size) == 0)
        return check_block(check, value, check->last, &check->last);
    err_t err = check_end(check);
    if (err_is(err))
        return err;
    if (!key_read_str(&rest, check->arena, &check->term) || rest.size || value.size < HEAD + LAST)
        return corrupt(check->arena, "?");
    key_open(&check->prefix);
    key_raw(&check->prefix, key.data, key.size);
    memcpy(&memories, value.data, HEAD);
    bytes_t block = {value.data + HEAD, value.size - HEAD};
    check->promised = memories;
    check->seen = check->last = 0;
    check->head_first = block.size > LAST ? first_of(block) : 0;
    check->out.terms++;
    return check_block(check, block, 0, &ignored);
}

err_t postings_check(store_txn_t *txn, arena_t *arena, postings_sum_t *out)
{
    store_scan_t scan;
    bytes_t key, value;
    check_t check = {.arena = arena_new()};
    err_t err = store_scan_open(&scan, txn, TABLE_postings, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        if (arena_used(check.arena) > 1 << 20 && key.size != check.prefix.size + 8) {
            /* a new term begins: what the old one needed can go once it is checked */
            err = check_end(&check);
            check.term = NULL;
            check.prefix.size = 0;
            arena_reset(check.arena);
            if (err_is(err))
                break;
        }
        err = check_row(&check, key, value);
    }
    if (!err_is(err))
        err = check_end(&check);
    store_scan_close(&scan);
    if (err_is(err) && err.what)
        err = err_make(arena, err.code, "%s", err.what);
    *out = check.out;
    arena_destroy(&check.arena);
    return err;
}
