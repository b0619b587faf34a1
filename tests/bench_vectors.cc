/* bench_vectors: the vector part of a query alone, against hnswlib and a bare FAISS index in the
 * same process, each at the smallest breadth that finds 95 of 100 of the exact answers.
 *
 *     bench_vectors [vectors|FILE] [dimensions] [queries] [M] [efConstruction] [threads]
 *                                                     default 20000 384 300 32 80 1
 *
 * Vectors are a mixture, as embeddings of texts are: a thousand topics, about each of them
 * variation in a few dozen directions that all share, and a little noise. (Noise alone in hundreds
 * of dimensions has no neighbours worth the name, and no graph finds them.) One thread each.
 * With a FILE its lines are texts, and the vectors are those that the built-in embedder makes; the
 * last lines are the queries, by their first ten words.
 * hnswlib is compiled for this very processor, as its users do.
 */
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
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
#include "actors/brain/embedder.h"
#include "actors/brain/index.h"
#include "actors/brain/simd.h"
}

namespace
{

constexpr int K = 10, ROUNDS = 6;
constexpr double WANTED = 0.95;
using Clock = std::chrono::steady_clock;

struct Set {
    size_t count, dims, queries;
    int links, construction; /* of every graph */
    unsigned threads;        /* that build ours */
    std::vector<float> vectors, asked;
    std::vector<std::vector<int64_t>> truth;
};

double since(Clock::time_point begin)
{
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

void must(const char *what, err_t err)
{
    if (!err_is(err))
        return;
    std::fprintf(stderr, "bench_vectors: %s: %s\n", what, err_what(err));
    std::exit(1);
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
    Set set{count, dims, queries, 0, 0, 1, {}, {}, {}};
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

std::string first_words(const std::string &text, size_t count)
{
    size_t at = 0;
    while (count-- && at != std::string::npos)
        at = text.find(' ', at + 1);
    return text.substr(0, at);
}

/* Texts without a word have no vector and are passed over. */
std::vector<float> embed(const std::vector<std::string> &texts, size_t dims, size_t words_most)
{
    words_t *words = nullptr;
    arena_t *arena = arena_new();
    std::vector<float> all, one(dims);
    must("words", words_new(&words, "english"));
    for (const std::string &text : texts) {
        std::string part = first_words(text, words_most);
        err_t err = embedder_text(words, arena, part.data(), part.size(),
                                  static_cast<uint32_t>(dims), one.data());
        if (!err_is(err))
            all.insert(all.end(), one.begin(), one.end());
        arena_reset(arena);
    }
    words_destroy(&words);
    arena_destroy(&arena);
    return all;
}

Set read_set(const char *path, size_t dims, size_t queries)
{
    std::ifstream file(path);
    std::vector<std::string> texts;
    for (std::string line; std::getline(file, line);)
        texts.push_back(line);
    if (texts.size() < queries + 2 * K) {
        std::fprintf(stderr, "bench_vectors: %s cannot be read, or has too few lines\n", path);
        std::exit(1);
    }
    auto middle = texts.end() - static_cast<std::ptrdiff_t>(queries);
    Set set{0, dims, 0, 0, 0, 1, {}, {}, {}};
    set.vectors = embed({texts.begin(), middle}, dims, SIZE_MAX);
    set.asked = embed({middle, texts.end()}, dims, 10);
    set.count = set.vectors.size() / dims;
    set.queries = set.asked.size() / dims;
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

/* Fills K ids; what is not filled in is -1. */
using Search = std::function<void(const float *query, int64_t *ids)>;

double thread_us()
{
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

size_t found_of(const Set &set, size_t query, const Search &search)
{
    int64_t ids[K];
    size_t right = 0;
    std::fill(ids, ids + K, -1);
    search(&set.asked[query * set.dims], ids);
    for (int64_t id : ids)
        right += std::count(set.truth[query].begin(), set.truth[query].end(), id) > 0;
    return right;
}

double recall_of(const Set &set, const Search &search)
{
    size_t right = 0;
    for (size_t q = 0; q < set.queries; q++)
        right += found_of(set, q, search);
    return static_cast<double>(right) / static_cast<double>(set.queries * K);
}

/* One index, ready to be asked at the smallest breadth that finds enough, or at the largest. */
struct Contender {
    const char *name;
    Search search;
    double build_s;
    int breadth = 0;
    double recall = 0;
    std::vector<double> wall_us{}, cpu_us{}; /* of each query */
};

const int breadths[] = {8,  10, 12, 14, 16, 18,  20,  22,  24,  28,
                        32, 40, 48, 64, 96, 128, 192, 256, 384, 512};

template <typename At> void widen(const Set &set, Contender &contender, At at)
{
    for (int breadth : breadths) {
        at(breadth);
        contender.breadth = breadth;
        contender.recall = recall_of(set, contender.search);
        if (contender.recall >= WANTED)
            break;
    }
    std::printf("%-14s built in %.1f s\n", contender.name, contender.build_s);
    std::fflush(stdout);
}

/* Each query is asked of one after the other, so that whatever else the machine does meets all. */
void compare(const Set &set, std::vector<Contender *> contenders)
{
    for (int round = 0; round < ROUNDS; round++)
        for (size_t q = 0; q < set.queries; q++)
            for (Contender *one : contenders) {
                auto begin = Clock::now();
                double cpu = thread_us();
                found_of(set, q, one->search);
                cpu = thread_us() - cpu;
                if (round > 0) { /* the first warms the caches */
                    one->wall_us.push_back(since(begin) * 1e6);
                    one->cpu_us.push_back(cpu);
                }
            }
}

double part(std::vector<double> values, size_t percent)
{
    std::sort(values.begin(), values.end());
    return values[values.size() * percent / 100];
}

void print(const Contender &one, const Contender &yardstick)
{
    double cpu_us = part(one.cpu_us, 50);
    std::printf("%-14s breadth %3d  recall %.3f  p50 %7.1f us  p99 %7.1f us  processor p50 %7.1f us"
                "  to hnswlib %.2f\n",
                one.name, one.breadth, one.recall, part(one.wall_us, 50), part(one.wall_us, 99),
                cpu_us, cpu_us / part(yardstick.cpu_us, 50));
}

/* ---- The three ---- */

struct Hnswlib {
    hnswlib::InnerProductSpace space;
    hnswlib::HierarchicalNSW<float> index;
    Contender contender;

    explicit Hnswlib(const Set &set)
        : space(set.dims), index(&space, set.count, static_cast<size_t>(set.links),
                                 static_cast<size_t>(set.construction))
    {
        auto begin = Clock::now();
        for (size_t i = 0; i < set.count; i++)
            index.addPoint(&set.vectors[i * set.dims], i);
        contender = {"hnswlib",
                     [this](const float *query, int64_t *ids) {
                         auto found = index.searchKnn(query, K);
                         for (size_t i = 0; !found.empty(); i++, found.pop())
                             ids[i] = static_cast<int64_t>(found.top().second);
                     },
                     since(begin)};
        widen(set, contender, [this](int breadth) { index.setEf(static_cast<size_t>(breadth)); });
    }
};

struct Faiss {
    faiss::IndexHNSWFlat index;
    Contender contender;

    explicit Faiss(const Set &set) : index(static_cast<int>(set.dims), set.links)
    {
        index.hnsw.efConstruction = set.construction;
        auto begin = Clock::now();
        index.add(static_cast<faiss::Index::idx_t>(set.count), set.vectors.data());
        contender = {"FAISS HNSW",
                     [this](const float *query, int64_t *ids) {
                         float distances[K];
                         faiss::Index::idx_t labels[K];
                         index.search(1, query, K, distances, labels);
                         std::copy(labels, labels + K, ids);
                     },
                     since(begin)};
        widen(set, contender, [this](int breadth) { index.hnsw.efSearch = breadth; });
    }
};

/* The index as the brain uses it (id = slot + 1), built as it is there. */
struct Agency {
    const Set &set;
    arena_t *arena = arena_new();
    index_t *index = nullptr;
    index_view_t *view = nullptr;
    double load_s = 0;
    Contender contender;

    explicit Agency(const Set &from) : set(from)
    {
        std::string path = "/tmp/bench-vectors-" + std::to_string(getpid());
        double build_s = build(path);
        contender = {"Agency index",
                     [this](const float *query, int64_t *ids) {
                         index_hit_t *hits;
                         size_t count;
                         must("search",
                              index_search(view, query, K, nullptr, arena, &hits, &count));
                         for (size_t i = 0; i < count; i++)
                             ids[i] = static_cast<int64_t>(hits[i].id) - 1;
                         arena_reset(arena);
                     },
                     build_s};
        /* A breadth is for life, so each is a start from the snapshot. */
        widen(set, contender, [&](int breadth) { load(path, breadth); });
        std::remove(path.c_str());
        std::printf("%-14s read from its snapshot in %.2f s\n", contender.name, load_s);
    }

    ~Agency()
    {
        close();
        arena_destroy(&arena);
    }

    Agency(const Agency &) = delete;
    Agency &operator=(const Agency &) = delete;

  private:
    void close()
    {
        if (view)
            index_view_release(&view);
        if (index)
            index_destroy(&index);
    }

    void open(int breadth)
    {
        close();
        index_options_t options{};
        options.dims = static_cast<uint32_t>(set.dims);
        options.exact_max = 1000;
        options.model = "bench";
        options.ef_search = breadth;
        std::string factory = "HNSW" + std::to_string(set.links);
        options.factory = factory.c_str();
        options.ef_construction = set.construction;
        options.build_threads = set.threads;
        must("index", index_new(&index, &options));
    }

    double build(const std::string &path)
    {
        index_base_t *base;
        open(0);
        for (size_t i = 0; i < set.count; i++)
            must("add", index_add(index, i + 1, &set.vectors[i * set.dims]));
        auto begin = Clock::now();
        view = index_acquire(index);
        must("build", index_build(view, nullptr, nullptr, &base));
        index_view_release(&view);
        must("swap", index_swap(index, &base));
        double took_s = since(begin);
        view = index_acquire(index);
        must("snapshot", index_save(view, path.c_str(), 1));
        return took_s;
    }

    void load(const std::string &path, int breadth)
    {
        uint64_t generation;
        open(breadth);
        auto begin = Clock::now();
        must("snapshot", index_load(index, path.c_str(), &generation));
        load_s = since(begin);
        view = index_acquire(index);
    }
};

size_t number(int argc, char **argv, int at, size_t otherwise)
{
    return argc > at ? std::strtoull(argv[at], nullptr, 10) : otherwise;
}

} // namespace

int main(int argc, char **argv)
{
    omp_set_num_threads(1);
    size_t dims = number(argc, argv, 2, 384), queries = number(argc, argv, 3, 300);
    bool texts = argc > 1 && !number(argc, argv, 1, 0);
    Set set = texts ? read_set(argv[1], dims, queries)
                    : make_set(number(argc, argv, 1, 20000), dims, queries);
    set.links = static_cast<int>(number(argc, argv, 4, 32));
    set.construction = static_cast<int>(number(argc, argv, 5, 80));
    set.threads = static_cast<unsigned>(number(argc, argv, 6, 1));
    std::printf("%zu vectors of %zu dimensions, %zu queries, graphs of M %d, efConstruction %d, "
                "%s\n",
                set.count, set.dims, set.queries, set.links, set.construction, simd_level());
    find_truth(set);
    Hnswlib hnswlib(set);
    Agency agency(set);
    std::unique_ptr<Faiss> faiss;
    if (set.count <= 200000) /* it takes three times as long to build as ours */
        faiss = std::make_unique<Faiss>(set);
    std::vector<Contender *> all = {&hnswlib.contender, &agency.contender};
    if (faiss)
        all.push_back(&faiss->contender);
    compare(set, all);
    for (const Contender *one : all)
        print(*one, hnswlib.contender);
    return 0;
}
