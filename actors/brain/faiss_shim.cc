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

#include "actors/brain/hnsw_build.h"
#include "actors/brain/hnsw_walk.h"

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

/* NULL when it is anything else than HNSW over plain vectors. */
const faiss::IndexHNSW *plain_hnsw(const faiss::Index *index, const faiss::IndexFlat **flat)
{
    auto whole = dynamic_cast<const faiss::IndexHNSW *>(index);

    *flat = whole ? dynamic_cast<const faiss::IndexFlat *>(whole->storage) : nullptr;
    return *flat && whole->metric_type == faiss::METRIC_L2 ? whole : nullptr;
}

template <typename Space>
void walk_run(const faiss::HNSW &graph, const Space &space, size_t breadth, size_t k,
              faiss_shim_accept_t accept, const void *self, hnsw::workplace &place)
{
    hnsw::still_links links{graph};
    hnsw::walk<Space, hnsw::still_links> walk{graph, space, links, place, breadth, k, accept, self};

    walk.spread(walk.descend(graph.entry_point, graph.max_level, 0), 0);
}

/* False when it is no HNSW index over plain vectors. */
bool walk_search(const faiss::Index *index, const float *query, int64_t k,
                 const faiss_shim_walk_t &how, faiss_shim_accept_t accept, const void *self,
                 float *distances, int64_t *labels)
{
    thread_local hnsw::workplace place;
    const faiss::IndexFlat *flat = nullptr;
    auto whole = plain_hnsw(index, &flat);

    if (!whole || whole->hnsw.entry_point < 0 || k < 1)
        return false;
    size_t most = static_cast<size_t>(k);
    size_t breadth = std::max(static_cast<size_t>(how.breadth), most);
    if (how.codes)
        walk_run(whole->hnsw, hnsw::by_codes{how.query, how.codes, how.stride}, breadth, most,
                 accept, self, place);
    else
        walk_run(whole->hnsw,
                 hnsw::by_vectors{flat->get_xb(), query, static_cast<size_t>(index->d)}, breadth,
                 most, accept, self, place);
    std::sort_heap(place.found.begin(), place.found.end(), hnsw::nearer);
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
    return guarded([&] {
        const faiss::IndexFlat *flat;
        auto whole = const_cast<faiss::IndexHNSW *>(plain_hnsw(cpp(index), &flat));
        (whole ? whole->storage : cpp(index))->add(count, vectors);
    });
}

extern "C" int faiss_shim_reserve(FaissIndex *index, int64_t count)
{
    return guarded([&] {
        const faiss::IndexFlat *flat;
        if (plain_hnsw(cpp(index), &flat))
            const_cast<faiss::IndexFlat *>(flat)->codes.reserve(static_cast<size_t>(count) *
                                                                flat->code_size);
    });
}

extern "C" int faiss_shim_link(FaissIndex *index, const faiss_shim_link_t *how, bool *stopped)
{
    *stopped = false;
    return guarded([&] {
        const faiss::IndexFlat *flat;
        auto whole = const_cast<faiss::IndexHNSW *>(plain_hnsw(cpp(index), &flat));
        if (!whole || flat->ntotal <= whole->ntotal)
            return;
        *stopped = !hnsw::link(whole->hnsw, static_cast<size_t>(flat->ntotal), *how);
        whole->ntotal = flat->ntotal;
    });
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
