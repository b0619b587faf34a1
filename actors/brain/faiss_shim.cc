#include "actors/brain/faiss_shim.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <faiss/Index.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVF.h>
#include <faiss/clone_index.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/impl/FaissException.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

extern "C" {
#include "actors/brain/simd.h"
}

/* Declared here because the build needs no OpenMP flags otherwise. BLAS has one thread as well:
 * see faiss_blas.cc. */
extern "C" void omp_set_num_threads(int count);

namespace
{

/* The last error of this thread; reading it must not fail, so it is kept as text. */
thread_local std::string last_error;

int failed(int code, const char *what) noexcept
{
    try {
        last_error = what;
    } catch (...) {
        last_error.clear();
    }
    return code;
}

/* The only place that turns exceptions into codes. */
template <typename Body> int guarded(Body body) noexcept
{
    try {
        thread_local bool told = false;
        if (!told)
            omp_set_num_threads(1);
        told = true;
        body();
        return OK;
    } catch (const faiss::FaissException &e) {
        return failed(FAISS_EXCEPT, e.what());
    } catch (const std::exception &e) {
        return failed(STD_EXCEPT, e.what());
    } catch (...) {
        return failed(UNKNOWN_EXCEPT, "an exception that is no std::exception");
    }
}

faiss::Index *cpp(FaissIndex *index)
{
    return reinterpret_cast<faiss::Index *>(index);
}

const faiss::Index *cpp(const FaissIndex *index)
{
    return reinterpret_cast<const faiss::Index *>(index);
}

FaissIndex *c_of(faiss::Index *index)
{
    return reinterpret_cast<FaissIndex *>(index);
}

struct accept_selector final : faiss::IDSelector {
    faiss_shim_accept_t accept;
    const void *self;

    accept_selector(faiss_shim_accept_t accept_, const void *self_) : accept(accept_), self(self_)
    {
    }
    bool is_member(idx_t slot) const override
    {
        return accept(self, slot);
    }
};

/* Each kind of index insists on search parameters of its own class. */
void search_selected(const faiss::Index *index, const float *query, int64_t k,
                     accept_selector *selector, float *distances, int64_t *labels)
{
    if (auto hnsw = dynamic_cast<const faiss::IndexHNSW *>(index)) {
        faiss::SearchParametersHNSW params;
        params.sel = selector;
        params.efSearch = std::max(hnsw->hnsw.efSearch, static_cast<int>(k));
        index->search(1, query, k, distances, labels, &params);
    } else if (auto ivf = dynamic_cast<const faiss::IndexIVF *>(index)) {
        faiss::SearchParametersIVF params;
        params.sel = selector;
        params.nprobe = ivf->nprobe;
        index->search(1, query, k, distances, labels, &params);
    } else {
        faiss::SearchParameters params;
        params.sel = selector;
        index->search(1, query, k, distances, labels, &params);
    }
}

/* ---- walking the graph ----
 * FAISS's own search of an HNSW index zeroes a table as large as the index for each query, finds
 * the nearest candidate by a scan, and waits for each vector to arrive from memory. This is the
 * algorithm of the paper (Malkov and Yashunin, arXiv 1603.09320, algorithms 2 and 5) over the graph
 * that FAISS built, with a table that is kept, heaps, and vectors fetched ahead of their turn. */

using faiss::HNSW;

constexpr size_t LINE = 64, FETCH = 7; /* lines of a vector; the hardware sees the rest coming */
constexpr size_t AHEAD = 3;            /* so many vectors before their turn: memory takes as long */

struct step {
    float distance;
    int32_t slot;
};

bool nearer(const step &a, const step &b)
{
    return a.distance < b.distance;
}

bool farther(const step &a, const step &b)
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
    const faiss_shim_walk_t &codes;

    float distance(int32_t slot) const
    {
        return -codes_score(codes.query, codes.codes + static_cast<size_t>(slot) * codes.stride);
    }
    const char *row(int32_t slot) const
    {
        return reinterpret_cast<const char *>(codes.codes +
                                              static_cast<size_t>(slot) * codes.stride);
    }
    size_t row_bytes() const
    {
        return codes.stride;
    }
};

template <typename Space> struct walk {
    const HNSW &graph;
    const Space &space;
    size_t breadth, k;
    faiss_shim_accept_t accept;
    const void *self;
    workplace &place;

    float distance(int32_t slot) const
    {
        return space.distance(slot);
    }

    void fetch(size_t at) const
    {
        if (at >= place.fresh.size())
            return;
        const char *row = space.row(place.fresh[at]);
        size_t bytes = space.row_bytes();
        for (size_t line = 0; line < FETCH && line * LINE < bytes; line++)
            __builtin_prefetch(row + line * LINE);
        __builtin_prefetch(row + bytes - 1); /* the scale of a code */
    }

    /* The neighbours of the slot that comes next, unless a nearer one is met before. */
    void fetch_neighbours(int32_t slot) const
    {
        size_t begin, end;
        graph.neighbor_range(slot, 0, &begin, &end);
        for (size_t at = begin; at < end; at += LINE / sizeof graph.neighbors[0])
            __builtin_prefetch(&graph.neighbors[at]);
    }

    step descend() const
    {
        step best = {distance(graph.entry_point), graph.entry_point};
        for (int level = graph.max_level; level > 0; level--) {
            bool moved = true;
            while (moved) {
                size_t begin, end;
                moved = false;
                graph.neighbor_range(best.slot, level, &begin, &end);
                for (size_t at = begin; at < end && graph.neighbors[at] >= 0; at++) {
                    float d = distance(graph.neighbors[at]);
                    if (d < best.distance) {
                        best = {d, graph.neighbors[at]};
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

    void meet(const step &one) const
    {
        if (place.bound.size() == breadth && !nearer(one, place.bound.front()))
            return;
        keep(place.bound, breadth, one);
        place.open.push_back(one);
        std::push_heap(place.open.begin(), place.open.end(), farther);
        if (place.open.front().slot == one.slot)
            fetch_neighbours(one.slot);
        if (!accept || accept(self, one.slot))
            keep(place.found, k, one);
    }

    void expand(int32_t slot) const
    {
        size_t begin, end;
        place.fresh.clear();
        graph.neighbor_range(slot, 0, &begin, &end);
        for (size_t at = begin; at < end && graph.neighbors[at] >= 0; at++) {
            int32_t next = graph.neighbors[at];
            if (place.seen[static_cast<size_t>(next)] == place.round)
                continue;
            place.seen[static_cast<size_t>(next)] = place.round;
            place.fresh.push_back(next);
            if (place.fresh.size() <= AHEAD)
                fetch(place.fresh.size() - 1);
        }
        for (size_t at = 0; at < place.fresh.size(); at++) {
            fetch(at + AHEAD);
            meet({distance(place.fresh[at]), place.fresh[at]});
        }
    }

    void run() const
    {
        step first = descend();
        place.seen[static_cast<size_t>(first.slot)] = place.round;
        meet(first);
        while (!place.open.empty()) {
            step next = place.open.front();
            if (place.bound.size() == breadth && nearer(place.bound.front(), next))
                break;
            std::pop_heap(place.open.begin(), place.open.end(), farther);
            place.open.pop_back();
            if (!place.open.empty())
                fetch_neighbours(place.open.front().slot);
            expand(next.slot);
        }
    }
};

template <typename Space>
void walk_run(const HNSW &graph, const Space &space, size_t breadth, size_t k,
              faiss_shim_accept_t accept, const void *self, workplace &place)
{
    walk<Space>{graph, space, breadth, k, accept, self, place}.run();
}

/* False when it is no HNSW index over plain vectors. */
bool walk_search(const faiss::Index *index, const float *query, int64_t k,
                 const faiss_shim_walk_t &how, faiss_shim_accept_t accept, const void *self,
                 float *distances, int64_t *labels)
{
    thread_local workplace place;
    auto hnsw = dynamic_cast<const faiss::IndexHNSW *>(index);
    auto flat = hnsw ? dynamic_cast<const faiss::IndexFlat *>(hnsw->storage) : nullptr;

    if (!flat || hnsw->metric_type != faiss::METRIC_L2 || hnsw->hnsw.entry_point < 0 || k < 1)
        return false;
    size_t most = static_cast<size_t>(k);
    size_t breadth = std::max(static_cast<size_t>(how.breadth), most);
    place.begin(static_cast<size_t>(index->ntotal));
    if (how.codes)
        walk_run(hnsw->hnsw, by_codes{how}, breadth, most, accept, self, place);
    else
        walk_run(hnsw->hnsw, by_vectors{flat->get_xb(), query, static_cast<size_t>(index->d)},
                 breadth, most, accept, self, place);
    std::sort_heap(place.found.begin(), place.found.end(), nearer);
    for (size_t i = 0; i < most; i++) {
        bool there = i < place.found.size();
        labels[i] = there ? place.found[i].slot : -1;
        distances[i] = there ? place.found[i].distance : 0;
    }
    return true;
}

} // namespace

extern "C" int faiss_shim_set_breadth(FaissIndex *index, int ef_search, int ef_construction,
                                      int nprobe)
{
    return guarded([&] {
        if (auto hnsw = dynamic_cast<faiss::IndexHNSW *>(cpp(index))) {
            hnsw->hnsw.efSearch = ef_search;
            if (ef_construction > 0)
                hnsw->hnsw.efConstruction = ef_construction;
        } else if (auto ivf = dynamic_cast<faiss::IndexIVF *>(cpp(index))) {
            ivf->nprobe = static_cast<size_t>(nprobe);
        }
    });
}

extern "C" int faiss_shim_search(const FaissIndex *index, const float *query, int64_t k,
                                 const faiss_shim_walk_t *walk, faiss_shim_accept_t accept,
                                 const void *self, float *distances, int64_t *labels)
{
    return guarded([&] {
        if (walk_search(cpp(index), query, k, *walk, accept, self, distances, labels))
            return;
        if (accept) {
            accept_selector selector(accept, self);
            search_selected(cpp(index), query, k, &selector, distances, labels);
        } else {
            cpp(index)->search(1, query, k, distances, labels);
        }
    });
}

extern "C" int faiss_shim_add(FaissIndex *index, int64_t count, const float *vectors)
{
    return guarded([&] { cpp(index)->add(count, vectors); });
}

extern "C" const float *faiss_shim_vectors(const FaissIndex *index)
{
    const float *vectors = nullptr;

    guarded([&] {
        const faiss::Index *storage = cpp(index);
        if (auto hnsw = dynamic_cast<const faiss::IndexHNSW *>(storage))
            storage = hnsw->storage;
        if (auto flat = dynamic_cast<const faiss::IndexFlat *>(storage))
            vectors = flat->ntotal ? flat->get_xb() : nullptr;
    });
    return vectors;
}

extern "C" int faiss_shim_graph(const FaissIndex *index, FaissIndex **graph)
{
    *graph = nullptr;
    return guarded([&] {
        auto whole = dynamic_cast<const faiss::IndexHNSWFlat *>(cpp(index));
        if (!whole)
            return;
        auto bare = std::make_unique<faiss::IndexHNSWFlat>(whole->d, 2, whole->metric_type);
        bare->hnsw = whole->hnsw;
        bare->ntotal = whole->ntotal;
        *graph = c_of(bare.release());
    });
}

extern "C" int faiss_shim_give_vectors(FaissIndex *graph, int64_t count, const float *vectors)
{
    return guarded([&] {
        auto hnsw = dynamic_cast<faiss::IndexHNSW *>(cpp(graph));
        auto flat = hnsw ? dynamic_cast<faiss::IndexFlat *>(hnsw->storage) : nullptr;
        if (!flat || count != hnsw->ntotal)
            FAISS_THROW_MSG("these are not the vectors of that graph");
        flat->reset();
        flat->add(count, vectors);
    });
}

extern "C" int faiss_shim_prepare_reconstruct(FaissIndex *index)
{
    return guarded([&] {
        if (auto ivf = dynamic_cast<faiss::IndexIVF *>(cpp(index)))
            ivf->make_direct_map(true);
    });
}

extern "C" int faiss_shim_train(FaissIndex *index, int64_t count, const float *vectors)
{
    return guarded([&] {
        if (!cpp(index)->is_trained)
            cpp(index)->train(count, vectors);
    });
}

#ifndef AGENCY_FAISS_C

extern "C" const char *faiss_get_last_error()
{
    return last_error.c_str();
}

extern "C" int faiss_index_factory(FaissIndex **p_index, int d, const char *description,
                                   FaissMetricType metric)
{
    return guarded([&] {
        *p_index =
            c_of(faiss::index_factory(d, description, static_cast<faiss::MetricType>(metric)));
    });
}

extern "C" int faiss_clone_index(const FaissIndex *index, FaissIndex **p_out)
{
    return guarded([&] { *p_out = c_of(faiss::clone_index(cpp(index))); });
}

extern "C" int faiss_write_index(const FaissIndex *index, FILE *file)
{
    return guarded([&] { faiss::write_index(cpp(index), file); });
}

extern "C" int faiss_read_index(FILE *file, int io_flags, FaissIndex **p_out)
{
    return guarded([&] { *p_out = c_of(faiss::read_index(file, io_flags)); });
}

extern "C" int faiss_Index_reconstruct(const FaissIndex *index, idx_t key, float *recons)
{
    return guarded([&] { cpp(index)->reconstruct(key, recons); });
}

extern "C" int faiss_Index_d(const FaissIndex *index)
{
    return cpp(index)->d;
}

extern "C" idx_t faiss_Index_ntotal(const FaissIndex *index)
{
    return cpp(index)->ntotal;
}

extern "C" void faiss_Index_free(FaissIndex *index)
{
    guarded([&] { delete cpp(index); });
}

#endif
