/* hnsw_walk: the search of the paper (Malkov and Yashunin, arXiv 1603.09320, algorithms 2 and 5)
 * over the graph of a FAISS HNSW index.
 *
 * FAISS's own search zeroes a table as large as the index for each query, finds the nearest
 * candidate by a scan, and waits for each vector to arrive from memory. Here the table is kept,
 * candidates are in heaps, and vectors are fetched ahead of their turn.
 * C++, for faiss_shim.cc and hnsw_build.cc only.
 */
#ifndef ACTORS_BRAIN_HNSW_WALK_H
#define ACTORS_BRAIN_HNSW_WALK_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <faiss/impl/HNSW.h>

#include "actors/brain/codes.h"
#include "actors/brain/faiss_shim.h"
extern "C" {
#include "actors/brain/simd.h"
}

namespace hnsw
{

constexpr size_t LINE = 64, FETCH = 7; /* lines of a vector; the hardware sees the rest coming */
constexpr size_t AHEAD = 3;            /* so many vectors before their turn: memory takes as long */

struct step {
    float distance;
    int32_t slot;
};

inline bool nearer(const step &a, const step &b)
{
    return a.distance < b.distance;
}

inline bool farther(const step &a, const step &b)
{
    return a.distance > b.distance;
}

/* What a thread keeps from one search to the next. */
struct workplace {
    std::vector<uint16_t> seen; /* by slot: the round in which it was met */
    uint16_t round = 0;
    std::vector<step> open, bound, found;
    std::vector<int32_t> fresh;

    void begin(size_t slots)
    {
        if (seen.size() < slots)
            seen.resize(slots);
        if (!++round) {
            std::fill(seen.begin(), seen.end(), static_cast<uint16_t>(0));
            round = 1;
        }
        open.clear();
        bound.clear();
        found.clear();
    }

    bool first_time(int32_t slot)
    {
        uint16_t &mark = seen[static_cast<size_t>(slot)];
        bool first = mark != round;
        mark = round;
        return first;
    }
};

/* How far a slot is from the query: by whole vectors, or by codes. */
struct by_vectors {
    const float *vectors, *query;
    size_t dims;

    float distance(int32_t slot) const
    {
        return simd_l2_squared(query, vectors + static_cast<size_t>(slot) * dims, dims);
    }
    const char *row(int32_t slot) const
    {
        return reinterpret_cast<const char *>(vectors + static_cast<size_t>(slot) * dims);
    }
    size_t row_bytes() const
    {
        return dims * sizeof *vectors;
    }
};

struct by_codes {
    const codes_query_t *query;
    const uint8_t *codes;
    size_t stride;

    float distance(int32_t slot) const
    {
        return -codes_score(query, codes + static_cast<size_t>(slot) * stride);
    }
    const char *row(int32_t slot) const
    {
        return reinterpret_cast<const char *>(codes + static_cast<size_t>(slot) * stride);
    }
    size_t row_bytes() const
    {
        return stride;
    }
};

/* The neighbours of a slot on a level; the list ends at its size or at the first below 0. */
struct list {
    const int32_t *slots;
    size_t size;
};

/* Of a graph that nobody changes. */
struct still_links {
    const faiss::HNSW &graph;

    list of(int32_t slot, int level) const
    {
        size_t begin, end;
        graph.neighbor_range(slot, level, &begin, &end);
        return {&graph.neighbors[begin], end - begin};
    }
};

inline void fetch_row(const char *row, size_t bytes)
{
    for (size_t line = 0; line < FETCH && line * LINE < bytes; line++)
        __builtin_prefetch(row + line * LINE);
    __builtin_prefetch(row + bytes - 1); /* the scale of a code */
}

template <typename Space, typename Links> struct walk {
    const faiss::HNSW &graph;
    const Space &space;
    const Links &links;
    workplace &place;
    size_t breadth, k; /* place.found gets the k nearest that are accepted; 0: nobody asks */
    faiss_shim_accept_t accept;
    const void *self;

    void fetch(size_t at) const
    {
        if (at < place.fresh.size())
            fetch_row(space.row(place.fresh[at]), space.row_bytes());
    }

    /* The neighbours of the slot that comes next, unless a nearer one is met before. */
    void fetch_neighbours(int32_t slot, int level) const
    {
        size_t begin, end;
        graph.neighbor_range(slot, level, &begin, &end);
        for (size_t at = begin; at < end; at += LINE / sizeof graph.neighbors[0])
            __builtin_prefetch(&graph.neighbors[at]);
    }

    /* The nearest that steps from neighbour to neighbour lead to, on levels above `bottom`. */
    step descend(int32_t entry, int top, int bottom) const
    {
        step best = {space.distance(entry), entry};
        for (int level = top; level > bottom; level--) {
            bool moved = true;
            while (moved) {
                list next = links.of(best.slot, level);
                moved = false;
                for (size_t at = 0; at < next.size && next.slots[at] >= 0; at++) {
                    float distance = space.distance(next.slots[at]);
                    if (distance < best.distance) {
                        best = {distance, next.slots[at]};
                        moved = true;
                    }
                }
            }
        }
        return best;
    }

    /* Keeps the `most` nearest on a heap with the farthest on top. */
    static void keep(std::vector<step> &heap, size_t most, const step &one)
    {
        if (heap.size() == most) {
            if (!nearer(one, heap.front()))
                return;
            std::pop_heap(heap.begin(), heap.end(), nearer);
            heap.back() = one;
        } else {
            heap.push_back(one);
        }
        std::push_heap(heap.begin(), heap.end(), nearer);
    }

    void meet(const step &one, int level) const
    {
        if (place.bound.size() == breadth && !nearer(one, place.bound.front()))
            return;
        keep(place.bound, breadth, one);
        place.open.push_back(one);
        std::push_heap(place.open.begin(), place.open.end(), farther);
        if (place.open.front().slot == one.slot)
            fetch_neighbours(one.slot, level);
        if (k && (!accept || accept(self, one.slot)))
            keep(place.found, k, one);
    }

    void expand(int32_t slot, int level) const
    {
        list next = links.of(slot, level);
        place.fresh.clear();
        for (size_t at = 0; at < next.size && next.slots[at] >= 0; at++) {
            if (!place.first_time(next.slots[at]))
                continue;
            place.fresh.push_back(next.slots[at]);
            if (place.fresh.size() <= AHEAD)
                fetch(place.fresh.size() - 1);
        }
        for (size_t at = 0; at < place.fresh.size(); at++) {
            fetch(at + AHEAD);
            meet({space.distance(place.fresh[at]), place.fresh[at]}, level);
        }
    }

    /* Leaves the nearest `breadth` that a walk over this level meets in place.bound. */
    void spread(const step &from, int level) const
    {
        place.begin(graph.levels.size());
        place.first_time(from.slot);
        meet(from, level);
        while (!place.open.empty()) {
            step next = place.open.front();
            if (place.bound.size() == breadth && nearer(place.bound.front(), next))
                break;
            std::pop_heap(place.open.begin(), place.open.end(), farther);
            place.open.pop_back();
            if (!place.open.empty())
                fetch_neighbours(place.open.front().slot, level);
            expand(next.slot, level);
        }
    }
};

} // namespace hnsw

#endif
