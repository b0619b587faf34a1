/* graph_walk: graph_around and graph_way of graph.h, breadth first. */
#include <stdlib.h>
#include <string.h>

#include "actors/brain/graph_rows.h"

enum { VISITED_MAX = 100000 };

/* Ids that were reached, in order, with how: a queue and a hash table in one. */
typedef struct place {
    const char *id;
    int64_t depth;
    size_t from;     /* index of the place before */
    graph_edge_t by; /* the edge it was reached by */
} place_t;

typedef struct walk {
    arena_t *arena;
    store_txn_t *txn;
    place_t *places;
    size_t count;
    uint32_t *table; /* index + 1 */
    size_t capacity;
    const char *relation;
    size_t limit;
} walk_t;

static void walk_open(walk_t *walk, size_t limit)
{
    walk->capacity = 1024;
    walk->limit = limit < VISITED_MAX ? limit : VISITED_MAX;
    walk->table = ARENA_ARRAY(walk->arena, uint32_t, walk->capacity);
}

static size_t slot_of(const walk_t *walk, const char *id)
{
    uint64_t h = 0xcbf29ce484222325ULL;

    for (const char *c = id; *c; c++)
        h = (h ^ (uint8_t)*c) * 0x100000001b3ULL;
    size_t at = (h ^ h >> 29) & (walk->capacity - 1);
    while (walk->table[at] && strcmp(walk->places[walk->table[at] - 1].id, id) != 0)
        at = (at + 1) & (walk->capacity - 1);
    return at;
}

static void widen(walk_t *walk)
{
    walk->capacity *= 2;
    walk->table = ARENA_ARRAY(walk->arena, uint32_t, walk->capacity);
    for (size_t i = 0; i < walk->count; i++)
        walk->table[slot_of(walk, walk->places[i].id)] = (uint32_t)i + 1;
}

/* False when it was reached before, or when there are too many. */
static bool reach(walk_t *walk, const char *id, int64_t depth, size_t from, const graph_edge_t *by)
{
    size_t at = slot_of(walk, id);

    if (walk->table[at] || walk->count >= walk->limit)
        return false;
    walk->places = graph_grown(walk->arena, walk->places, walk->count, sizeof(place_t));
    walk->places[walk->count++] = (place_t){.id = id, .depth = depth, .from = from};
    if (by)
        walk->places[walk->count - 1].by = *by;
    walk->table[at] = (uint32_t)walk->count;
    if (walk->count * 2 > walk->capacity)
        widen(walk);
    return true;
}

/* Calls fn for the edges that leave (or, backwards, reach) an id, without their properties. fn
 * returns false to stop. */
static err_t each_edge(walk_t *walk, const char *id, bool backwards,
                       bool (*fn)(walk_t *walk, const graph_edge_t *edge, void *ctx), void *ctx)
{
    store_scan_t scan;
    store_key_t prefix;
    bytes_t key, value;
    const char *one, *two, *three;

    key_open(&prefix);
    key_str(&prefix, id);
    if (walk->relation)
        key_str(&prefix, walk->relation);
    err_t err = store_scan_open(&scan, walk->txn, backwards ? TABLE_edges_in : TABLE_edges,
                                key_bytes(&prefix), (bytes_t){0}, false);
    while (!err_is(err) && store_scan_next(&scan, &key, &value)) {
        graph_edge_t edge = {0};
        if (!graph_read_edge_key(key, walk->arena, &one, &two, &three))
            continue;
        edge.relation = two;
        edge.from = backwards ? three : one;
        edge.to = backwards ? one : three;
        if (!fn(walk, &edge, ctx))
            break;
    }
    store_scan_close(&scan);
    return err;
}

/* Only those that are answered are read whole: a walk may reach a large part of the graph. */
static void answer_edge(walk_t *walk, const graph_edge_t *edge, graph_part_t *out)
{
    store_key_t key;
    bytes_t found;
    graph_edge_t whole = *edge;

    if (!err_is(store_get(walk->txn, TABLE_edges,
                          graph_edge_key(&key, edge->from, edge->relation, edge->to), &found)))
        whole.properties = (bytes_t){arena_copy(walk->arena, found.data, found.size), found.size};
    graph_answer_edge(out, walk->arena, &whole);
}

typedef struct around {
    graph_edge_t *edges;
    size_t at, edge_count;
    bool any, cut;
} around_t;

/* Each edge is seen from both its ends; it counts at the one that was reached first. */
static bool seen_before(const walk_t *walk, const graph_edge_t *edge, size_t at)
{
    bool leaves = strcmp(edge->from, walk->places[at].id) == 0;
    size_t other = walk->table[slot_of(walk, leaves ? edge->to : edge->from)];

    return other && other - 1 < at;
}

static bool on_around(walk_t *walk, const graph_edge_t *edge, void *ctx)
{
    around_t *around = ctx;
    const place_t here = walk->places[around->at];
    bool leaves = strcmp(edge->from, here.id) == 0;

    around->any = true;
    if (walk->count >= walk->limit || around->edge_count >= walk->limit * 4) {
        around->cut = true;
        return false;
    }
    if (seen_before(walk, edge, around->at))
        return true;
    reach(walk, leaves ? edge->to : edge->from, here.depth + 1, around->at, edge);
    around->edges = graph_grown(walk->arena, around->edges, around->edge_count, sizeof *edge);
    around->edges[around->edge_count++] = *edge;
    return true;
}

/* The edges that reach a place from itself are seen among those that leave it. */
static bool on_around_back(walk_t *walk, const graph_edge_t *edge, void *ctx)
{
    return strcmp(edge->from, edge->to) == 0 || on_around(walk, edge, ctx);
}

/* NOT_FOUND: edges lead there, but there is no node. */
static err_t answer_node(walk_t *walk, size_t place, graph_part_t *out)
{
    graph_node_t node = {0};
    err_t err = graph_get_node(walk->txn, walk->arena, walk->places[place].id, &node);

    if (!err_is(err))
        graph_answer_node(out, walk->arena, &node);
    return err;
}

/* A page of what was reached: nodes in the order they were reached, then edges. */
typedef struct page {
    size_t from, limit;
    size_t at; /* how many are before the next one */
} page_t;

static bool on_page(page_t *page)
{
    size_t at = page->at++;

    return at >= page->from && at - page->from < page->limit;
}

static err_t answer_page(walk_t *walk, const around_t *around, page_t *page, graph_part_t *out)
{
    err_t err = err_ok();
    bytes_t value;

    for (size_t i = 0; i < walk->count && !err_is(err); i++) {
        err = store_get(walk->txn, TABLE_nodes, graph_text(walk->places[i].id), &value);
        if (!err_is(err) && on_page(page))
            err = answer_node(walk, i, out);
        if (err.code == ERR_NOT_FOUND)
            err = err_ok();
    }
    for (size_t i = 0; i < around->edge_count && !err_is(err); i++)
        if (on_page(page))
            answer_edge(walk, &around->edges[i], out);
    if (page->at > page->from && page->at - page->from > page->limit) {
        out->more = true;
        out->cursor = arena_printf(walk->arena, "%zu", page->from + page->limit);
    }
    return err;
}

static bool read_place(const char *cursor, size_t *from)
{
    char *end = NULL;

    if (!cursor)
        return true;
    *from = strtoul(cursor, &end, 10);
    return *cursor >= '1' && *cursor <= '9' && !*end;
}

static err_t walk_around(walk_t *walk, around_t *around, int64_t depth)
{
    err_t err = err_ok();

    for (; around->at < walk->count && !err_is(err); around->at++) {
        if (walk->places[around->at].depth >= depth)
            break;
        const char *here = walk->places[around->at].id;
        err = each_edge(walk, here, false, on_around, around);
        if (!err_is(err))
            err = each_edge(walk, here, true, on_around_back, around);
    }
    return err;
}

err_t graph_around(brain_t *self, call_t *call, const char *company, const char *id, int64_t depth,
                   const char *relation, size_t limit, const char *cursor, graph_part_t *out)
{
    walk_t walk = {.arena = call_arena(call), .relation = relation};
    around_t around = {0};
    page_t page = {.limit = limit};
    err_t err = call_read(call, company, &walk.txn);

    (void)self;
    *out = (graph_part_t){0};
    if (!read_place(cursor, &page.from))
        return err_of(ERR_ARGUMENT, "cursor is not one that graph_neighbors gave");
    if (err.code == ERR_NOT_FOUND)
        return err_of(ERR_NOT_FOUND, "there is no such node");
    if (err_is(err))
        return err;
    walk_open(&walk, VISITED_MAX);
    reach(&walk, id, 0, 0, NULL);
    err = walk_around(&walk, &around, depth);
    if (!err_is(err))
        err = answer_page(&walk, &around, &page, out);
    if (!err_is(err) && !around.any && !page.at)
        return err_of(ERR_NOT_FOUND, "there is no such node");
    out->more |= around.cut;
    return err;
}

typedef struct way {
    size_t at;
    const char *to;
    bool found;
} way_t;

static bool on_way(walk_t *walk, const graph_edge_t *edge, void *ctx)
{
    way_t *way = ctx;

    if (reach(walk, edge->to, walk->places[way->at].depth + 1, way->at, edge))
        way->found = strcmp(edge->to, way->to) == 0;
    return !way->found;
}

static err_t answer_way(walk_t *walk, graph_part_t *out)
{
    size_t steps[1024], count = 0;
    err_t err = err_ok();

    for (size_t at = walk->count - 1;; at = walk->places[at].from) {
        if (count == sizeof steps / sizeof steps[0])
            return err_of(ERR_INTERNAL, "the way is too long");
        steps[count++] = at;
        if (at == 0)
            break;
    }
    while (count-- && !err_is(err)) {
        if (steps[count])
            answer_edge(walk, &walk->places[steps[count]].by, out);
        err = answer_node(walk, steps[count], out);
        if (err.code == ERR_NOT_FOUND)
            err = err_ok();
    }
    return err;
}

static bool on_any(walk_t *walk, const graph_edge_t *edge, void *ctx)
{
    (void)walk, (void)edge;
    *(bool *)ctx = true;
    return false;
}

/* A node, or what an edge names. */
static bool is_known(walk_t *walk, const char *id)
{
    bytes_t value;
    bool any = !err_is(store_get(walk->txn, TABLE_nodes, graph_text(id), &value));

    for (int backwards = 0; backwards <= 1 && !any; backwards++)
        (void)each_edge(walk, id, backwards, on_any, &any);
    return any;
}

err_t graph_way(brain_t *self, call_t *call, const char *company, const char *from, const char *to,
                int64_t depth, graph_part_t *out)
{
    walk_t walk = {.arena = call_arena(call)};
    way_t way = {.to = to, .found = strcmp(from, to) == 0};
    err_t err = call_read(call, company, &walk.txn);

    (void)self;
    *out = (graph_part_t){0};
    if (err.code == ERR_NOT_FOUND) /* the company has nothing */
        out->missing = from;
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    walk_open(&walk, VISITED_MAX);
    reach(&walk, from, 0, 0, NULL);
    for (; way.at < walk.count && !way.found && !err_is(err); way.at++) {
        if (walk.places[way.at].depth >= depth)
            break;
        err = each_edge(&walk, walk.places[way.at].id, false, on_way, &way);
        if (way.found)
            break;
    }
    if (!err_is(err) && way.found)
        return answer_way(&walk, out);
    out->more = walk.count >= walk.limit;
    out->missing = !is_known(&walk, from) ? from : !is_known(&walk, to) ? to : NULL;
    return err;
}
