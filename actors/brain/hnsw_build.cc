#include "actors/brain/hnsw_build.h"

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>

#include "actors/brain/hnsw_walk.h"

namespace
{

using hnsw::step;

constexpr size_t LOCKS = 1 << 16; /* a slot shares one with few others */
constexpr size_t STOP_EVERY = 64;
constexpr double FILL = .9; /* of a full list that is thinned: a little room costs no recall */

/* Held for a copy or a few hundred products: sleeping would cost more. */
class spin_lock
{
    std::atomic_flag taken = ATOMIC_FLAG_INIT;

  public:
    void lock()
    {
        while (taken.test_and_set(std::memory_order_acquire))
            std::this_thread::yield();
    }
    void unlock()
    {
        taken.clear(std::memory_order_release);
    }
};

/* What the threads of one build share. */
struct site {
    faiss::HNSW &graph;
    const faiss_shim_link_t &how;
    std::unique_ptr<spin_lock[]> locks{new spin_lock[LOCKS]};
    std::vector<int32_t> order; /* slots to link */
    std::atomic<size_t> next{0};
    std::atomic<bool> stopped{false};

    site(faiss::HNSW &graph_, const faiss_shim_link_t &how_) : graph(graph_), how(how_)
    {
    }
    spin_lock &lock_of(int32_t slot) const
    {
        return locks[static_cast<size_t>(slot) % LOCKS];
    }
    const uint8_t *row(int32_t slot) const
    {
        return how.codes + static_cast<size_t>(slot) * how.stride;
    }
    int level_of(int32_t slot) const
    {
        return graph.levels[static_cast<size_t>(slot)] - 1;
    }
};

/* A slot's code as a query. */
struct probe {
    std::vector<int8_t> room;
    codes_query_t query{};

    explicit probe(uint32_t dims) : room(codes_query_bytes(dims))
    {
    }
    void aim(const site &site, int32_t slot)
    {
        codes_query_of_row(&query, room.data(), site.row(slot), site.how.dims);
    }
    float distance(const site &site, int32_t slot) const
    {
        return -codes_score(&query, site.row(slot));
    }
};

/* Lists that others may be writing: copied under their lock. */
struct shared_links {
    const site &at;
    std::vector<int32_t> &room;

    hnsw::list of(int32_t slot, int level) const
    {
        size_t begin, end;
        at.graph.neighbor_range(slot, level, &begin, &end);
        std::lock_guard<spin_lock> guard(at.lock_of(slot));
        std::copy(at.graph.neighbors.begin() + static_cast<std::ptrdiff_t>(begin),
                  at.graph.neighbors.begin() + static_cast<std::ptrdiff_t>(end), room.begin());
        return {room.data(), end - begin};
    }
};

class linker
{
    site &site_;
    hnsw::workplace place;
    std::vector<int32_t> room;
    std::vector<step> candidates, kept, chosen;
    probe own, other, pair;

    /* Algorithm 4: the nearest first, and none that is nearer to one that was kept than to the
     * slot all this is for. `candidates` is sorted; at most `most` are left in `kept`. */
    void choose(size_t most)
    {
        kept.clear();
        for (const step &one : candidates) {
            if (kept.size() == most)
                break;
            if (!kept.empty())
                pair.aim(site_, one.slot);
            bool apart = true;
            for (size_t i = 0; i < kept.size() && apart; i++)
                apart = pair.distance(site_, kept[i].slot) >= one.distance;
            if (apart)
                kept.push_back(one);
        }
    }

    void write(int32_t slot, int level)
    {
        size_t begin, end;
        site_.graph.neighbor_range(slot, level, &begin, &end);
        for (size_t i = 0; begin + i < end; i++)
            site_.graph.neighbors[begin + i] = i < kept.size() ? kept[i].slot : -1;
    }

    /* Under the lock of `slot`, whose list is full. */
    void thin(int32_t slot, int level, const step &fresh, size_t begin, size_t end)
    {
        other.aim(site_, slot);
        candidates.assign(1, fresh);
        for (size_t at = begin; at < end; at++)
            hnsw::fetch_row(reinterpret_cast<const char *>(site_.row(site_.graph.neighbors[at])),
                            site_.how.stride);
        for (size_t at = begin; at < end; at++) {
            int32_t there = site_.graph.neighbors[at];
            candidates.push_back({other.distance(site_, there), there});
        }
        std::sort(candidates.begin(), candidates.end(), hnsw::nearer);
        choose(static_cast<size_t>(static_cast<double>(end - begin) * FILL));
        write(slot, level);
    }

    void link_back(int32_t slot, int level, const step &fresh)
    {
        size_t begin, end;
        site_.graph.neighbor_range(slot, level, &begin, &end);
        std::lock_guard<spin_lock> guard(site_.lock_of(slot));
        size_t at = begin;
        while (at < end && site_.graph.neighbors[at] >= 0)
            at++;
        if (at < end)
            site_.graph.neighbors[at] = fresh.slot;
        else
            thin(slot, level, fresh, begin, end);
    }

    void link_on(int32_t slot, int level, size_t most)
    {
        candidates = place.bound;
        std::sort(candidates.begin(), candidates.end(), hnsw::nearer);
        choose(most);
        {
            std::lock_guard<spin_lock> guard(site_.lock_of(slot));
            write(slot, level);
        }
        chosen.swap(kept); /* linking back chooses as well */
        for (const step &one : chosen)
            link_back(one.slot, level, {one.distance, slot});
    }

  public:
    explicit linker(site &site)
        : site_(site), room(static_cast<size_t>(site.graph.nb_neighbors(0))), own(site.how.dims),
          other(site.how.dims), pair(site.how.dims)
    {
    }

    void insert(int32_t slot)
    {
        faiss::HNSW &graph = site_.graph;
        if (graph.entry_point < 0)
            return;
        own.aim(site_, slot);
        hnsw::by_codes space{&own.query, site_.how.codes, site_.how.stride};
        shared_links links{site_, room};
        hnsw::walk<hnsw::by_codes, shared_links> walk{
            graph, space,   links,  place, static_cast<size_t>(graph.efConstruction),
            0,     nullptr, nullptr};
        int level = std::min(site_.level_of(slot), graph.max_level);
        step from = walk.descend(graph.entry_point, graph.max_level, level);
        for (; level >= 0; level--) {
            walk.spread(from, level);
            from = *std::min_element(place.bound.begin(), place.bound.end(), hnsw::nearer);
            link_on(slot, level, static_cast<size_t>(graph.nb_neighbors(1)));
        }
    }

    void work(bool asks)
    {
        for (size_t done = 0; !site_.stopped; done++) {
            size_t at = site_.next.fetch_add(1);
            if (at >= site_.order.size())
                return;
            if (asks && done % STOP_EVERY == 0 && site_.how.stop && site_.how.stop(site_.how.self))
                site_.stopped = true;
            else
                insert(site_.order[at]);
        }
    }
};

/* Until all that are left are below the top of the graph, which therefore stays what it is. */
void raise(site &site)
{
    linker linker(site);

    for (; site.next < site.order.size(); site.next++) {
        int32_t slot = site.order[site.next];
        int level = site.level_of(slot);
        if (site.graph.entry_point >= 0 && level <= site.graph.max_level)
            return;
        linker.insert(slot);
        site.graph.entry_point = slot;
        site.graph.max_level = level;
    }
}

void work_on(site &site, bool asks, std::exception_ptr &error) noexcept
{
    try {
        linker(site).work(asks);
    } catch (...) {
        error = std::current_exception();
        site.stopped = true;
    }
}

/* This thread is one of them. */
void work_on_all(site &site)
{
    std::vector<std::exception_ptr> errors(site.how.threads);
    std::vector<std::thread> others;

    others.reserve(errors.size()); /* nothing may be thrown while threads are not joined */
    for (size_t i = 1; i < errors.size(); i++) {
        try {
            others.emplace_back(work_on, std::ref(site), false, std::ref(errors[i]));
        } catch (const std::exception &) {
            break; /* with fewer then */
        }
    }
    work_on(site, true, errors[0]);
    for (std::thread &thread : others)
        thread.join();
    for (const std::exception_ptr &error : errors)
        if (error)
            std::rethrow_exception(error);
}

} // namespace

bool hnsw::link(faiss::HNSW &graph, size_t count, const faiss_shim_link_t &how)
{
    size_t had = graph.levels.size();
    site site(graph, how);

    graph.neighbors.reserve(graph.neighbors.size() +
                            (count - had) * static_cast<size_t>(graph.nb_neighbors(0)) * 17 /
                                16); /* few have upper levels */
    graph.prepare_level_tab(count - had);
    site.order.resize(count - had);
    std::iota(site.order.begin(), site.order.end(), static_cast<int32_t>(had));
    std::stable_sort(site.order.begin(), site.order.end(),
                     [&](int32_t a, int32_t b) { return site.level_of(a) > site.level_of(b); });
    raise(site);
    work_on_all(site);
    return !site.stopped;
}
