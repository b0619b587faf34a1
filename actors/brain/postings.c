#include "actors/brain/postings.h"

#include <stdlib.h>
#include <string.h>

#include "actors/brain/brain.h"
#include "actors/brain/posting.h"

/* The head row of a term has u32 memories before its block, whose last number is 0 while it is
 * empty. */
enum { HEAD = 4 };
enum { ATTEND_EACH = 32 }; /* terms of a merge */

static void term_key(store_key_t *key, uint8_t generation, const char *term)
{
    key_open(key);
    key_u8(key, generation);
    key_str(key, term);
}

static err_t corrupt(arena_t *arena, const char *term)
{
    return err_make(arena, ERR_CORRUPT,
                    "the words index of \"%s\" is damaged: run brain_maintenance rebuild_indices",
                    term);
}

static err_t damaged(void)
{
    return err_of(ERR_CORRUPT, "the words index is damaged: run brain_maintenance rebuild_indices");
}

/* ---- adding ---- */

typedef struct head {
    uint32_t memories;
    bytes_t block; /* in room */
    uint8_t *room;
} head_t;

/* With room for `more` postings, or for a block full of them if that is less. */
static err_t get_head(const postings_t *in, arena_t *arena, const char *term, size_t more,
                      head_t *head)
{
    store_key_t key;
    bytes_t value;

    term_key(&key, in->generation, term);
    err_t err = store_get(in->txn, TABLE_postings, key_bytes(&key), &value);
    if (err.code == ERR_NOT_FOUND)
        value.size = 0;
    else if (err_is(err))
        return err;
    else if (value.size < HEAD + POSTING_LAST)
        return corrupt(arena, term);
    *head =
        (head_t){.room = arena_alloc(arena, HEAD + POSTING_LAST + value.size +
                                                (more < POSTINGS_BLOCK ? more : POSTINGS_BLOCK) *
                                                    POSTING_LARGEST)};
    if (value.size) {
        memcpy(head->room, value.data, value.size);
        memcpy(&head->memories, head->room, HEAD);
    }
    head->block = (bytes_t){head->room + HEAD, value.size ? value.size - HEAD : POSTING_LAST};
    return err_ok();
}

static err_t put_head(const postings_t *in, const char *term, head_t *head)
{
    store_key_t key;

    term_key(&key, in->generation, term);
    if (!head->memories)
        return store_del(in->txn, TABLE_postings, key_bytes(&key));
    memcpy(head->room, &head->memories, HEAD);
    return store_put(in->txn, TABLE_postings, key_bytes(&key),
                     (bytes_t){head->room, HEAD + head->block.size});
}

static err_t put_block(const postings_t *in, const char *term, uint64_t first, bytes_t block)
{
    store_key_t key;

    term_key(&key, in->generation, term);
    key_u64(&key, first);
    return store_put(in->txn, TABLE_postings, key_bytes(&key), block);
}

/* Appends postings of ascending numbers to a term, moving out each block that is full. */
static err_t append(const postings_t *in, arena_t *arena, const char *term,
                    const posting_t *postings, size_t count)
{
    head_t head;
    err_t err = get_head(in, arena, term, count, &head);

    if (err_is(err))
        return err;
    size_t in_block = posting_count_in(head.block);
    if (in_block == SIZE_MAX)
        return corrupt(arena, term);
    for (size_t i = 0; i < count; i++) {
        if (in_block >= POSTINGS_BLOCK) {
            err = put_block(in, term, posting_first_of(head.block), head.block);
            if (err_is(err))
                return err;
            head.block.size = POSTING_LAST;
            memset(head.room + HEAD, 0, POSTING_LAST);
            in_block = 0;
        }
        uint64_t before = posting_last_of(head.block);
        head.block.size += posting_put(head.room + HEAD + head.block.size, before, &postings[i]);
        memcpy(head.room + HEAD, &postings[i].id, POSTING_LAST);
        head.memories++;
        in_block++;
    }
    return put_head(in, term, &head);
}

/* ---- fresh rows ----
 * u32 terms, u32 hashes of them (ascending), u32 where each entry begins, then the entries: a byte
 * of size, the term, 0, and its posting as in a block but without the number. */

static uint32_t hash_of(const char *term, size_t size)
{
    uint64_t h = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < size; i++)
        h = (h ^ (uint8_t)term[i]) * 0x100000001b3ULL;
    return (uint32_t)(h ^ h >> 32);
}

typedef struct hashed {
    uint32_t hash, at;
} hashed_t;

static int by_hash(const void *a, const void *b)
{
    const hashed_t *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static bytes_t number_key(store_key_t *key, uint64_t number)
{
    key_open(key);
    key_u64(key, number);
    return key_bytes(key);
}

static bytes_t fresh_row(arena_t *arena, const posting_doc_t *doc)
{
    uint32_t count = (uint32_t)doc->count;
    size_t room = 4 + (size_t)count * (8 + 2 + WORDS_TERM_MAX + POSTING_LARGEST);
    uint8_t *row = arena_alloc(arena, room);
    hashed_t *hashed = ARENA_ARRAY(arena, hashed_t, count + 1U);
    size_t size = 4 + (size_t)count * 8;

    for (uint32_t i = 0; i < count; i++)
        hashed[i] = (hashed_t){hash_of(doc->terms[i].term, doc->terms[i].size), i};
    qsort(hashed, count, sizeof hashed[0], by_hash);
    memcpy(row, &count, 4);
    for (uint32_t i = 0; i < count; i++) {
        const posting_term_t *term = &doc->terms[hashed[i].at];
        posting_t posting = {0};
        uint32_t begins = (uint32_t)size;
        memcpy(posting.counts, term->counts, sizeof posting.counts);
        memcpy(posting.lengths, doc->lengths, sizeof posting.lengths);
        memcpy(row + 4 + (size_t)i * 4, &hashed[i].hash, 4);
        memcpy(row + 4 + ((size_t)count + i) * 4, &begins, 4);
        row[size++] = (uint8_t)term->size;
        memcpy(row + size, term->term, (size_t)term->size + 1);
        size += (size_t)term->size + 1;
        size += posting_put(row + size, 0, &posting);
    }
    return (bytes_t){row, size};
}

static inline uint32_t hash_at(bytes_t row, uint32_t i)
{
    uint32_t hash;

    memcpy(&hash, row.data + 4 + (size_t)i * 4, 4);
    return hash;
}

/* The term and posting of entry i; false when the row is damaged. */
static bool fresh_entry(bytes_t row, uint32_t count, uint32_t i, const char **term,
                        posting_t *posting)
{
    uint32_t begins;

    memcpy(&begins, row.data + 4 + ((size_t)count + i) * 4, 4);
    if (begins >= row.size)
        return false;
    const uint8_t *at = row.data + begins, *end = row.data + row.size;
    size_t size = *at++;
    if ((size_t)(end - at) < size + 2 || at[size])
        return false;
    *term = (const char *)at;
    at += size + 1;
    return posting_get(&at, end, 0, posting);
}

static bool fresh_count(bytes_t row, uint32_t *count)
{
    if (row.size < 4)
        return false;
    memcpy(count, row.data, 4);
    return row.size >= 4 + (size_t)*count * 8;
}

static err_t fresh_corrupt(void)
{
    return err_of(ERR_CORRUPT,
                  "the words of a new memory are damaged: run brain_maintenance rebuild_indices");
}

err_t postings_add(const postings_t *in, arena_t *arena, uint64_t number, const posting_doc_t *doc)
{
    store_key_t key;

    if (!doc->count)
        return err_ok();
    return store_append(in->txn, TABLE_fresh, number_key(&key, number), fresh_row(arena, doc));
}

bool postings_is_full(const postings_t *in)
{
    return store_count(in->txn, TABLE_fresh) >= POSTINGS_FRESH;
}

/* ---- merging ---- */

/* A term and what the fresh memories say of it. */
typedef struct group {
    const char *term;
    uint32_t hash;
    posting_t *postings;
    size_t count, capacity;
} group_t;

typedef struct merge {
    arena_t *arena;
    group_t *groups;
    size_t count, capacity;
    uint32_t *table; /* index of a group + 1 */
    size_t places;
} merge_t;

static size_t place_of(const merge_t *merge, const char *term, uint32_t hash)
{
    size_t at = hash & (merge->places - 1);

    for (; merge->table[at]; at = (at + 1) & (merge->places - 1)) {
        const group_t *group = &merge->groups[merge->table[at] - 1];
        if (group->hash == hash && strcmp(group->term, term) == 0)
            break;
    }
    return at;
}

static void merge_widen(merge_t *merge)
{
    size_t capacity = merge->capacity ? merge->capacity * 2 : 1024;
    group_t *groups = ARENA_ARRAY(merge->arena, group_t, capacity);

    if (merge->count)
        memcpy(groups, merge->groups, merge->count * sizeof *groups);
    merge->groups = groups;
    merge->capacity = capacity;
    merge->places = capacity * 4;
    merge->table = ARENA_ARRAY(merge->arena, uint32_t, merge->places);
    for (size_t i = 0; i < merge->count; i++)
        merge->table[place_of(merge, groups[i].term, groups[i].hash)] = (uint32_t)i + 1;
}

/* `hash` is that of the term. */
static void merge_put(merge_t *merge, const char *term, uint32_t hash, const posting_t *posting)
{
    if (merge->count == merge->capacity)
        merge_widen(merge);
    size_t at = place_of(merge, term, hash);
    if (!merge->table[at]) {
        merge->groups[merge->count] =
            (group_t){.term = arena_strdup(merge->arena, term), .hash = hash};
        merge->table[at] = (uint32_t)++merge->count;
    }
    group_t *group = &merge->groups[merge->table[at] - 1];
    if (group->count == group->capacity) {
        size_t capacity = group->capacity ? group->capacity * 2 : 2;
        posting_t *postings = ARENA_ARRAY(merge->arena, posting_t, capacity);
        if (group->count)
            memcpy(postings, group->postings, group->count * sizeof *postings);
        group->postings = postings;
        group->capacity = capacity;
    }
    group->postings[group->count++] = *posting;
}

static int by_group_term(const void *a, const void *b)
{
    const group_t *x = a, *y = b;

    return strcmp(x->term, y->term);
}

static err_t gather(store_txn_t *txn, merge_t *merge)
{
    store_scan_t scan;
    bytes_t key, row;
    uint32_t count;
    uint64_t number;
    err_t err = store_scan_open(&scan, txn, TABLE_fresh, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &row)) {
        if (!key_read_u64(&key, &number) || !fresh_count(row, &count))
            err = fresh_corrupt();
        for (uint32_t i = 0; !err_is(err) && i < count; i++) {
            const char *term;
            posting_t posting;
            if (!fresh_entry(row, count, i, &term, &posting)) {
                err = fresh_corrupt();
                break;
            }
            posting.id = number;
            merge_put(merge, term, hash_at(row, i), &posting);
        }
    }
    store_scan_close(&scan);
    return err;
}

static err_t clear_fresh(store_txn_t *txn)
{
    store_scan_t scan;
    bytes_t key, row;
    err_t err = store_scan_open(&scan, txn, TABLE_fresh, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &row))
        err = store_scan_del(&scan);
    store_scan_close(&scan);
    return err;
}

/* `call` may be NULL. */
static err_t write_groups(const postings_t *in, merge_t *merge, call_t *call)
{
    arena_t *scratch = arena_new();
    err_t err = err_ok();

    if (merge->count)
        qsort(merge->groups, merge->count, sizeof merge->groups[0], by_group_term);
    for (size_t i = 0; i < merge->count && !err_is(err); i++) {
        const group_t *group = &merge->groups[i];
        err = append(in, scratch, group->term, group->postings, group->count);
        if (err.code == ERR_CORRUPT) /* its sentence is in the scratch arena */
            err = damaged();
        arena_reset(scratch);
        if (call && i % ATTEND_EACH == 0)
            call_attend(call);
    }
    arena_destroy(&scratch);
    return err;
}

err_t postings_merge(const postings_t *in, call_t *call)
{
    merge_t merge = {.arena = arena_new()};
    err_t err = gather(in->txn, &merge);

    if (!err_is(err))
        err = write_groups(in, &merge, call);
    if (!err_is(err))
        err = clear_fresh(in->txn);
    arena_destroy(&merge.arena);
    return err;
}

bool postings_is_fresh(const postings_t *in, uint64_t number)
{
    store_key_t key;
    bytes_t row;

    return !err_is(store_get(in->txn, TABLE_fresh, number_key(&key, number), &row));
}

err_t postings_build(const postings_t *in, const uint64_t *numbers, const posting_doc_t *docs,
                     size_t count)
{
    merge_t merge = {.arena = arena_new()};

    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < docs[i].count; j++) {
            posting_t posting = {.id = numbers[i]};
            memcpy(posting.counts, docs[i].terms[j].counts, sizeof posting.counts);
            memcpy(posting.lengths, docs[i].lengths, sizeof posting.lengths);
            const posting_term_t *term = &docs[i].terms[j];
            merge_put(&merge, term->term, hash_of(term->term, term->size), &posting);
        }
    err_t err = write_groups(in, &merge, NULL);
    arena_destroy(&merge.arena);
    return err;
}

err_t postings_clear(const postings_t *in, size_t most, bool *more)
{
    store_scan_t scan;
    bytes_t key, value, prefix = {&in->generation, 1};
    err_t err = store_scan_open(&scan, in->txn, TABLE_postings, prefix, (bytes_t){0}, false);

    *more = false;
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        if (!most--) {
            *more = true;
            break;
        }
        err = store_scan_del(&scan);
    }
    store_scan_close(&scan);
    return err;
}

err_t postings_drop_fresh(const postings_t *in)
{
    return clear_fresh(in->txn);
}

/* ---- removing ---- */

/* The block without the number; `found` when it was there. */
static bool without(arena_t *arena, bytes_t block, uint64_t number, uint8_t *out, size_t *size,
                    bool *found)
{
    size_t most = block.size / 3 + 1, count, kept = 0;
    posting_t *postings = ARENA_ARRAY(arena, posting_t, most);

    if (!posting_decode(block, postings, most, &count))
        return false;
    for (size_t i = 0; i < count; i++)
        if (postings[i].id != number)
            postings[kept++] = postings[i];
    *found = kept < count;
    *size = posting_encode(out, postings, kept);
    return true;
}

/* The full block that can hold the number: the last one that begins at or before it. */
static err_t remove_from_blocks(const postings_t *in, arena_t *arena, const char *term,
                                uint64_t number)
{
    store_scan_t scan;
    store_key_t prefix, from;
    bytes_t key, value;
    bool found = false;
    size_t size = 0;

    term_key(&prefix, in->generation, term);
    from = prefix;
    key_u64(&from, number);
    err_t err =
        store_scan_open(&scan, in->txn, TABLE_postings, key_bytes(&prefix), key_bytes(&from), true);
    if (err_is(err))
        return err;
    bool any = store_scan_next(&scan, &key, &value) && key.size == prefix.size + 8 &&
               value.size > POSTING_LAST;
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
    if (size == POSTING_LAST)
        return store_del(in->txn, TABLE_postings, key_bytes(&place));
    return store_put(in->txn, TABLE_postings, key_bytes(&place), (bytes_t){block, size});
}

static err_t remove_term(const postings_t *in, arena_t *arena, uint64_t number, const char *term)
{
    head_t head;
    bool found = false;
    size_t size = 0;
    err_t err = get_head(in, arena, term, 0, &head);

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
        err = remove_from_blocks(in, arena, term, number);
        if (err_is(err))
            return err;
    }
    head.memories--;
    return put_head(in, term, &head);
}

err_t postings_remove(const postings_t *in, arena_t *arena, uint64_t number,
                      const posting_doc_t *doc)
{
    store_key_t key;
    err_t err = store_del(in->txn, TABLE_fresh, number_key(&key, number));

    if (err.code != ERR_NOT_FOUND)
        return err;
    err = err_ok();
    for (size_t i = 0; i < doc->count && !err_is(err); i++)
        err = remove_term(in, arena, number, doc->terms[i].term);
    return err;
}

/* ---- reading ---- */

enum { AT_BLOCKS, AT_HEAD, AT_FRESH, AT_END };

static rank_block_t fresh_block(postings_list_t *self, uint64_t from)
{
    size_t at = 0;

    self->stage = AT_END;
    if (!self->fresh_count)
        return (rank_block_t){0};
    while (at < self->fresh_count && self->fresh_ids[at] < from)
        at++;
    return (rank_block_t){self->fresh_ids + at, self->fresh_weights + at, self->fresh_count - at};
}

/* Older blocks first, then the head's: ascending numbers. Whole blocks are passed over by their
 * last number, without decoding. Empty: the rest is fresh. */
static bytes_t next_block(postings_list_t *self, uint64_t from)
{
    bytes_t key, block;

    while (self->stage == AT_BLOCKS) {
        if (!store_scan_next(&self->scan, &key, &block))
            self->stage = AT_HEAD;
        else if (block.size > POSTING_LAST && posting_last_of(block) >= from)
            return block;
    }
    if (self->stage == AT_HEAD) {
        self->stage = AT_FRESH;
        if (self->head.size > POSTING_LAST && posting_last_of(self->head) >= from)
            return self->head;
    }
    return (bytes_t){0};
}

static err_t seek(void *ctx, uint64_t from, rank_block_t *out)
{
    postings_list_t *self = ctx;
    bytes_t block = next_block(self, from);
    size_t count = 0;

    *out = (rank_block_t){0};
    if (!block.size) {
        if (self->stage == AT_FRESH)
            *out = fresh_block(self, from);
        return err_ok();
    }
    if (!self->ids) {
        self->ids = ARENA_ARRAY(self->arena, uint64_t, POSTINGS_BLOCK);
        self->weights = ARENA_ARRAY(self->arena, float, POSTINGS_BLOCK);
    }
    if (!posting_decode_weights(block, self->units, self->ids, self->weights, &count))
        return damaged();
    *out = (rank_block_t){self->ids, self->weights, count};
    return err_ok();
}

static err_t open_term(postings_list_t *self, const postings_t *in, const char *term,
                       rank_list_t *list)
{
    bytes_t key, value;
    uint32_t memories;

    term_key(&self->prefix, in->generation, term);
    err_t err = store_scan_open(&self->scan, in->txn, TABLE_postings, key_bytes(&self->prefix),
                                (bytes_t){0}, false);
    if (err_is(err))
        return err;
    self->open = true;
    if (!store_scan_next(&self->scan, &key, &value)) {
        self->stage = AT_FRESH;
        return err_ok();
    }
    if (key.size != self->prefix.size || value.size < HEAD + POSTING_LAST)
        return corrupt(self->arena, term);
    memcpy(&memories, value.data, HEAD);
    self->head = (bytes_t){value.data + HEAD, value.size - HEAD};
    list->memories = memories;
    return err_ok();
}

static void keep_fresh(postings_list_t *self, uint64_t number, float weight)
{
    if (self->fresh_count == self->fresh_capacity) {
        size_t capacity = self->fresh_capacity ? self->fresh_capacity * 2 : 16;
        uint64_t *ids = ARENA_ARRAY(self->arena, uint64_t, capacity);
        float *weights = ARENA_ARRAY(self->arena, float, capacity);
        if (self->fresh_count) {
            memcpy(ids, self->fresh_ids, self->fresh_count * sizeof *ids);
            memcpy(weights, self->fresh_weights, self->fresh_count * sizeof *weights);
        }
        self->fresh_ids = ids;
        self->fresh_weights = weights;
        self->fresh_capacity = capacity;
    }
    self->fresh_ids[self->fresh_count] = number;
    self->fresh_weights[self->fresh_count++] = weight;
}

static float weight_of(const postings_units_t *units, const posting_t *posting)
{
    float weight = 0;

    for (int field = 0; field < RANK_FIELDS; field++)
        if (posting->counts[field])
            weight += (float)posting->counts[field] *
                      units->units[field][posting_length_code(posting->lengths[field])];
    return weight;
}

/* The first entry whose hash is not smaller. Hashes are spread evenly, so it is near where its
 * share of the row ends: a step or two, where a search by halves would jump about the row. */
static uint32_t first_hash(bytes_t row, uint32_t count, uint32_t hash)
{
    uint32_t at = (uint32_t)((uint64_t)hash * count >> 32);

    while (at > 0 && hash_at(row, at - 1) >= hash)
        at--;
    while (at < count && hash_at(row, at) < hash)
        at++;
    return at;
}

/* Looks for one term in a fresh row; hashes may collide, terms do not. */
static err_t find_fresh(bytes_t row, uint32_t count, uint64_t number, uint32_t hash,
                        const char *wanted, postings_list_t *self, rank_list_t *list)
{
    const char *term;
    posting_t posting;
    uint32_t low = first_hash(row, count, hash);

    for (; low < count && hash_at(row, low) == hash; low++) {
        if (!fresh_entry(row, count, low, &term, &posting))
            return fresh_corrupt();
        if (strcmp(term, wanted) == 0) {
            keep_fresh(self, number, weight_of(self->units, &posting));
            list->memories++;
        }
    }
    return err_ok();
}

static err_t open_fresh(store_txn_t *txn, arena_t *arena, const char *const *terms, size_t count,
                        postings_list_t *opened, rank_list_t *lists)
{
    store_scan_t scan;
    bytes_t key, row;
    uint32_t in_row, *hashes = ARENA_ARRAY(arena, uint32_t, count + 1);
    uint64_t number;
    err_t err = store_scan_open(&scan, txn, TABLE_fresh, (bytes_t){0}, (bytes_t){0}, false);

    for (size_t i = 0; i < count; i++)
        hashes[i] = hash_of(terms[i], strlen(terms[i]));
    while (!err_is(err) && store_scan_next(&scan, &key, &row)) {
        if (!key_read_u64(&key, &number) || !fresh_count(row, &in_row))
            err = fresh_corrupt();
        for (size_t i = 0; i < count && !err_is(err); i++)
            err = find_fresh(row, in_row, number, hashes[i], terms[i], &opened[i], &lists[i]);
    }
    store_scan_close(&scan);
    return err;
}

err_t postings_open(const postings_t *in, arena_t *arena, const postings_units_t *units,
                    const char *const *terms, size_t count, postings_list_t *opened,
                    rank_list_t *lists)
{
    err_t err = err_ok();

    for (size_t i = 0; i < count; i++) {
        opened[i] = (postings_list_t){.arena = arena, .units = units};
        lists[i] = (rank_list_t){.self = &opened[i], .seek = seek, .boost = 1};
    }
    for (size_t i = 0; i < count && !err_is(err); i++)
        err = open_term(&opened[i], in, terms[i], &lists[i]);
    return err_is(err) || !count ? err : open_fresh(in->txn, arena, terms, count, opened, lists);
}

void postings_close(postings_list_t *opened, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (opened[i].open) {
            store_scan_close(&opened[i].scan);
            opened[i].open = false;
        }
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
    posting_t *postings = ARENA_ARRAY(check->arena, posting_t, most);

    if (block.size < POSTING_LAST || !posting_decode(block, postings, most, &count))
        return corrupt(check->arena, check->term);
    *last = after;
    for (size_t i = 0; i < count; i++) {
        if (postings[i].id <= *last && (i || after))
            return corrupt(check->arena, check->term);
        *last = postings[i].id;
        check->out.sum += sum_one(*last, check->term, strlen(check->term), postings[i].counts);
    }
    if (count && *last != posting_last_of(block))
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
    uint8_t generation;
    bytes_t rest = key;

    if (check->prefix.size && key.size == check->prefix.size + 8 &&
        memcmp(key.data, check->prefix.data, check->prefix.size) == 0)
        return check_block(check, value, check->last, &check->last);
    err_t err = check_end(check);
    if (err_is(err))
        return err;
    if (!key_read_u8(&rest, &generation) || !key_read_str(&rest, check->arena, &check->term) ||
        rest.size || value.size < HEAD + POSTING_LAST)
        return corrupt(check->arena, "?");
    key_open(&check->prefix);
    key_raw(&check->prefix, key.data, key.size);
    memcpy(&memories, value.data, HEAD);
    bytes_t block = {value.data + HEAD, value.size - HEAD};
    check->promised = memories;
    check->seen = check->last = 0;
    check->head_first = block.size > POSTING_LAST ? posting_first_of(block) : 0;
    check->out.terms++;
    return check_block(check, block, 0, &ignored);
}

static err_t check_fresh(store_txn_t *txn, check_t *check)
{
    store_scan_t scan;
    bytes_t key, row;
    uint32_t count = 0;
    uint64_t number;
    err_t err = store_scan_open(&scan, txn, TABLE_fresh, (bytes_t){0}, (bytes_t){0}, false);

    while (!err_is(err) && store_scan_next(&scan, &key, &row)) {
        if (!key_read_u64(&key, &number) || !fresh_count(row, &count))
            err = fresh_corrupt();
        for (uint32_t i = 0; i < count && !err_is(err); i++) {
            const char *term;
            posting_t posting;
            if (!fresh_entry(row, count, i, &term, &posting)) {
                err = fresh_corrupt();
                break;
            }
            check->out.sum += sum_one(number, term, strlen(term), posting.counts);
            check->out.postings++;
        }
    }
    store_scan_close(&scan);
    return err;
}

err_t postings_check(const postings_t *in, arena_t *arena, postings_sum_t *out)
{
    store_scan_t scan;
    bytes_t key, value;
    bytes_t prefix = {&in->generation, 1};
    check_t check = {.arena = arena_new()};
    err_t err = store_scan_open(&scan, in->txn, TABLE_postings, prefix, (bytes_t){0}, false);

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
    if (!err_is(err))
        err = check_fresh(in->txn, &check);
    if (err_is(err) && err.what)
        err = err_make(arena, err.code, "%s", err.what);
    *out = check.out;
    arena_destroy(&check.arena);
    return err;
}
