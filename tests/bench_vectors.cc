/* bench_vectors: the vector part of a query alone, against hnswlib and a bare FAISS index in the
 * same process, each at the smallest breadth that finds 95 of 100 of the exact answers.
 *
 *     bench_vectors [vectors] [dimensions] [queries] [M] [efConstruction]
 *                                                     default 20000 384 300 32 80
 *
 * Vectors are a mixture, as embeddings of texts are: a thousand topics, about each of them
 * variation in a few dozen directions that all share, and a little noise. (Noise alone in hundreds
 * of dimensions has no neighbours worth the name, and no graph finds them.) One thread each.
 * hnswlib is compiled for this very processor, as its users do.
 */
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wextra"
#include <faiss/IndexHNSW.h>
#include <hnswlib/hnswlib.h>
#pragma GCC diagnostic pop
#include <omp.h>
#include <unistd.h>

extern "C" {
#include "actors/brain/index.h"
#include "actors/brain/simd.h"
}

namespace
{

constexpr int K = 10;
constexpr double WANTED = 0.95;
using Clock = std::chrono::steady_clock;

struct Set {
    size_t count, dims, queries;
    int links, construction; /* of every graph */
    std::vector<float> vectors, asked;
    std::vector<std::vector<int64_t>> truth;
};

double since(Clock::time_point begin)
{
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

void normalise(float *vector, size_t dims)
{
    double sum = 0;
    for (size_t i = 0; i < dims; i++)
        sum += static_cast<double>(vector[i]) * vector[i];
    for (size_t i = 0; i < dims; i++)
        vector[i] = static_cast<float>(vector[i] / std::sqrt(sum));
}

Set make_set(size_t count, size_t dims, size_t queries)
{
    Set set{count, dims, queries, 0, 0, {}, {}, {}};
    constexpr size_t CENTRES = 1000;
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    constexpr size_t DIRECTIONS = 32;
    std::vector<float> centres(CENTRES * dims), directions(DIRECTIONS * dims);
    for (float &value : centres)
        value = normal(random);
    for (float &value : directions)
        value = normal(random) / std::sqrt(static_cast<float>(DIRECTIONS));
    set.vectors.resize(count * dims);
    set.asked.resize(queries * dims);
    auto draw = [&](float *out) {
        const float *centre = &centres[random() % CENTRES * dims];
        for (size_t i = 0; i < dims; i++)
            out[i] = centre[i] + 0.1F * normal(random);
        for (size_t d = 0; d < DIRECTIONS; d++) {
            float much = normal(random);
            for (size_t i = 0; i < dims; i++)
                out[i] += much * directions[d * dims + i];
        }
        normalise(out, dims);
    };
    for (size_t i = 0; i < count; i++)
        draw(&set.vectors[i * dims]);
    for (size_t i = 0; i < queries; i++)
        draw(&set.asked[i * dims]);
    return set;
}

void find_truth(Set &set)
{
    std::vector<std::pair<float, int64_t>> all(set.count);
    for (size_t q = 0; q < set.queries; q++) {
        for (size_t i = 0; i < set.count; i++)
            all[i] = {
                -simd_inner_product(&set.asked[q * set.dims], &set.vectors[i * set.dims], set.dims),
                static_cast<int64_t>(i)};
        std::partial_sort(all.begin(), all.begin() + K, all.end());
        std::vector<int64_t> best;
        for (int i = 0; i < K; i++)
            best.push_back(all[static_cast<size_t>(i)].second);
        set.truth.push_back(best);
    }
}

struct Measure {
    int breadth;
    double recall, p50_us, p99_us, per_second;
};

/* `search` fills K ids (fewer: -1). */
template <typename Search> Measure measure(const Set &set, int breadth, Search search)
{
    std::vector<double> us;
    size_t right = 0;
    int64_t ids[K];
    for (int round = 0; round < 2; round++) { /* the first warms the caches */
        us.clear();
        right = 0;
        for (size_t q = 0; q < set.queries; q++) {
            std::fill(ids, ids + K, -1);
            auto begin = Clock::now();
            search(&set.asked[q * set.dims], ids);
            us.push_back(since(begin) * 1e6);
            for (int64_t id : ids)
                right += std::count(set.truth[q].begin(), set.truth[q].end(), id) > 0;
        }
    }
    double sum = 0;
    for (double one : us)
        sum += one;
    std::sort(us.begin(), us.end());
    return {breadth, static_cast<double>(right) / static_cast<double>(set.queries * K),
            us[us.size() / 2], us[us.size() * 99 / 100],
            static_cast<double>(us.size()) / sum * 1e6};
}

void print(const char *name, double build_s, const Measure &got, double yardstick_us)
{
    std::printf("%-22s build %7.1f s  breadth %4d  recall %.3f  p50 %8.1f us  p99 %8.1f us  "
                "%7.0f/s",
                name, build_s, got.breadth, got.recall, got.p50_us, got.p99_us, got.per_second);
    if (yardstick_us > 0)
        std::printf("  ratio to hnswlib %.2f", got.p50_us / yardstick_us);
    std::printf("\n");
    std::fflush(stdout);
}

const int breadths[] = {8,  10, 12, 14, 16, 18,  20,  22,  24,  28,
                        32, 40, 48, 64, 96, 128, 192, 256, 384, 512};

/* The smallest breadth with the wanted recall, or the last. */
template <typename At> Measure at_recall(At at)
{
    Measure got{};
    for (int breadth : breadths) {
        got = at(breadth);
        if (got.recall >= WANTED)
            break;
    }
    return got;
}

Measure bench_hnswlib(const Set &set)
{
    hnswlib::InnerProductSpace space(set.dims);
    auto begin = Clock::now();
    hnswlib::HierarchicalNSW<float> index(&space, set.count, static_cast<size_t>(set.links),
                                          static_cast<size_t>(set.construction));
    for (size_t i = 0; i < set.count; i++)
        index.addPoint(&set.vectors[i * set.dims], i);
    double build_s = since(begin);
    Measure got = at_recall([&](int breadth) {
        index.setEf(static_cast<size_t>(breadth));
        return measure(set, breadth, [&](const float *query, int64_t *ids) {
            auto found = index.searchKnn(query, K);
            for (size_t i = 0; !found.empty(); i++, found.pop())
                ids[i] = static_cast<int64_t>(found.top().second);
        });
    });
    print("hnswlib", build_s, got, 0);
    return got;
}

Measure bench_faiss(const Set &set, double yardstick_us)
{
    faiss::IndexHNSWFlat index(static_cast<int>(set.dims), set.links);
    index.hnsw.efConstruction = set.construction;
    auto begin = Clock::now();
    index.add(static_cast<faiss::Index::idx_t>(set.count), set.vectors.data());
    double build_s = since(begin);
    float distances[K];
    Measure got = at_recall([&](int breadth) {
        index.hnsw.efSearch = breadth;
        return measure(set, breadth, [&](const float *query, int64_t *ids) {
            faiss::Index::idx_t labels[K];
            index.search(1, query, K, distances, labels);
            std::copy(labels, labels + K, ids);
        });
    });
    print("FAISS HNSW", build_s, got, yardstick_us);
    return got;
}

void fail(const char *what, err_t err)
{
    std::fprintf(stderr, "bench_vectors: %s: %s\n", what, err_what(err));
    std::exit(1);
}

index_t *new_index(const Set &set, int breadth)
{
    index_t *index;
    index_options_t options{};
    options.dims = static_cast<uint32_t>(set.dims);
    options.exact_max = 1000;
    options.model = "bench";
    options.ef_search = breadth;
    std::string factory = "HNSW" + std::to_string(set.links);
    options.factory = factory.c_str();
    options.ef_construction = set.construction;
    err_t err = index_new(&index, &options);
    if (err_is(err))
        fail("index", err);
    return index;
}

/* The index as the brain uses it (id = slot + 1), built as it is there; returns a snapshot. */
std::string build_index(const Set &set, double &build_s)
{
    std::string path = "/tmp/bench-vectors-" + std::to_string(getpid());
    index_t *index = new_index(set, 0);
    index_base_t *base;
    err_t err = err_ok();
    for (size_t i = 0; i < set.count && !err_is(err); i++)
        err = index_add(index, i + 1, &set.vectors[i * set.dims]);
    auto begin = Clock::now();
    index_view_t *view = index_acquire(index);
    if (!err_is(err))
        err = index_build(view, nullptr, nullptr, &base);
    index_view_release(&view);
    if (!err_is(err))
        err = index_swap(index, &base);
    build_s = since(begin);
    view = index_acquire(index);
    if (!err_is(err))
        err = index_save(view, path.c_str(), 1);
    index_view_release(&view);
    index_destroy(&index);
    if (err_is(err))
        fail("index", err);
    return path;
}

/* A breadth is for life, so each is a start from the snapshot. */
void bench_index(const Set &set, double yardstick_us)
{
    arena_t *arena = arena_new();
    double build_s = 0, load_s = 0;
    std::string path = build_index(set, build_s);
    Measure got = at_recall([&](int breadth) {
        uint64_t generation;
        index_t *index = new_index(set, breadth);
        auto begin = Clock::now();
        err_t err = index_load(index, path.c_str(), &generation);
        load_s = since(begin);
        if (err_is(err))
            fail("snapshot", err);
        index_view_t *view = index_acquire(index);
        Measure one = measure(set, breadth, [&](const float *query, int64_t *ids) {
            index_hit_t *hits;
            size_t count;
            err_t failed = index_search(view, query, K, nullptr, arena, &hits, &count);
            if (err_is(failed))
                fail("search", failed);
            for (size_t i = 0; i < count; i++)
                ids[i] = static_cast<int64_t>(hits[i].id) - 1;
            arena_reset(arena);
        });
        index_view_release(&view);
        index_destroy(&index);
        return one;
    });
    std::remove(path.c_str());
    print("Agency index", build_s, got, yardstick_us);
    std::printf("%-22s load  %7.1f s\n", "  from its snapshot", load_s);
    arena_destroy(&arena);
}

size_t number(int argc, char **argv, int at, size_t otherwise)
{
    return argc > at ? std::strtoull(argv[at], nullptr, 10) : otherwise;
}

} // namespace

int main(int argc, char **argv)
{
    omp_set_num_threads(1);
    Set set = make_set(number(argc, argv, 1, 20000), number(argc, argv, 2, 384),
                       number(argc, argv, 3, 300));
    set.links = static_cast<int>(number(argc, argv, 4, 32));
    set.construction = static_cast<int>(number(argc, argv, 5, 80));
    std::printf("%zu vectors of %zu dimensions, %zu queries, graphs of M %d, efConstruction %d, "
                "%s\n",
                set.count, set.dims, set.queries, set.links, set.construction, simd_level());
    find_truth(set);
    Measure yardstick = bench_hnswlib(set);
    if (set.count <= 200000) /* it takes as long to build as ours does, being the same graph */
        bench_faiss(set, yardstick.p50_us);
    bench_index(set, yardstick.p50_us);
    return 0;
}
