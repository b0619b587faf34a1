#include "actors/brain/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define SIMD_X86 1
#else
#define SIMD_X86 0
#endif

/* What FAISS's calls are redirected to by the linker (mangled name of faiss::fvec_..., wrapped). */
float simd_wrap_inner_product(const float *a, const float *b,
                              size_t dims) __asm__("__wrap__ZN5faiss18fvec_inner_productEPKfS1_m");
float simd_wrap_l2_squared(const float *a, const float *b,
                           size_t dims) __asm__("__wrap__ZN5faiss10fvec_L2sqrEPKfS1_m");

static float inner_product_plain(const float *a, const float *b, size_t dims)
{
    float sums[4] = {0, 0, 0, 0};
    size_t i = 0;

    for (; i + 4 <= dims; i += 4)
        for (size_t lane = 0; lane < 4; lane++)
            sums[lane] += a[i + lane] * b[i + lane];
    for (; i < dims; i++)
        sums[0] += a[i] * b[i];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static float l2_squared_plain(const float *a, const float *b, size_t dims)
{
    float sums[4] = {0, 0, 0, 0};
    size_t i = 0;

    for (; i + 4 <= dims; i += 4)
        for (size_t lane = 0; lane < 4; lane++) {
            float gap = a[i + lane] - b[i + lane];
            sums[lane] += gap * gap;
        }
    for (; i < dims; i++)
        sums[0] += (a[i] - b[i]) * (a[i] - b[i]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

#if SIMD_X86

__attribute__((target("avx2,fma"))) static float sum_256(__m256 v)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    half = _mm_add_ss(half, _mm_shuffle_ps(half, half, 1));
    return _mm_cvtss_f32(half);
}

__attribute__((target("avx2,fma"))) static float inner_product_avx2(const float *a, const float *b,
                                                                    size_t dims)
{
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 32 <= dims; i += 32) {
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
        s1 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), s1);
        s2 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 16), _mm256_loadu_ps(b + i + 16), s2);
        s3 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 24), _mm256_loadu_ps(b + i + 24), s3);
    }
    for (; i + 8 <= dims; i += 8)
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
    float sum = sum_256(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
    for (; i < dims; i++)
        sum += a[i] * b[i];
    return sum;
}

__attribute__((target("avx2,fma"))) static float l2_squared_avx2(const float *a, const float *b,
                                                                 size_t dims)
{
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 32 <= dims; i += 32) {
        __m256 g0 = _mm256_sub_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i));
        __m256 g1 = _mm256_sub_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8));
        __m256 g2 = _mm256_sub_ps(_mm256_loadu_ps(a + i + 16), _mm256_loadu_ps(b + i + 16));
        __m256 g3 = _mm256_sub_ps(_mm256_loadu_ps(a + i + 24), _mm256_loadu_ps(b + i + 24));
        s0 = _mm256_fmadd_ps(g0, g0, s0);
        s1 = _mm256_fmadd_ps(g1, g1, s1);
        s2 = _mm256_fmadd_ps(g2, g2, s2);
        s3 = _mm256_fmadd_ps(g3, g3, s3);
    }
    for (; i + 8 <= dims; i += 8) {
        __m256 gap = _mm256_sub_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i));
        s0 = _mm256_fmadd_ps(gap, gap, s0);
    }
    float sum = sum_256(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
    for (; i < dims; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

__attribute__((target("avx512f"))) static float inner_product_avx512(const float *a, const float *b,
                                                                     size_t dims)
{
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 64 <= dims; i += 64) {
        s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), s0);
        s1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16), s1);
        s2 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 32), _mm512_loadu_ps(b + i + 32), s2);
        s3 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 48), _mm512_loadu_ps(b + i + 48), s3);
    }
    for (; i < dims; i += 16) {
        __mmask16 mask = dims - i < 16 ? (__mmask16)((1U << (dims - i)) - 1) : (__mmask16)0xffff;
        s0 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + i), _mm512_maskz_loadu_ps(mask, b + i),
                             s0);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
}

__attribute__((target("avx512f"))) static float l2_squared_avx512(const float *a, const float *b,
                                                                  size_t dims)
{
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;

    for (; i + 64 <= dims; i += 64) {
        __m512 g0 = _mm512_sub_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i));
        __m512 g1 = _mm512_sub_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16));
        __m512 g2 = _mm512_sub_ps(_mm512_loadu_ps(a + i + 32), _mm512_loadu_ps(b + i + 32));
        __m512 g3 = _mm512_sub_ps(_mm512_loadu_ps(a + i + 48), _mm512_loadu_ps(b + i + 48));
        s0 = _mm512_fmadd_ps(g0, g0, s0);
        s1 = _mm512_fmadd_ps(g1, g1, s1);
        s2 = _mm512_fmadd_ps(g2, g2, s2);
        s3 = _mm512_fmadd_ps(g3, g3, s3);
    }
    for (; i < dims; i += 16) {
        __mmask16 mask = dims - i < 16 ? (__mmask16)((1U << (dims - i)) - 1) : (__mmask16)0xffff;
        __m512 gap =
            _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, a + i), _mm512_maskz_loadu_ps(mask, b + i));
        s0 = _mm512_fmadd_ps(gap, gap, s0);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
}

#endif

/* The CPU flags are read from a word that the compiler's start-up code fills: one load, one
 * well-predicted branch, and no state of ours. */
float simd_inner_product(const float *a, const float *b, size_t dims)
{
#if SIMD_X86
    if (__builtin_cpu_supports("avx512f"))
        return inner_product_avx512(a, b, dims);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return inner_product_avx2(a, b, dims);
#endif
    return inner_product_plain(a, b, dims);
}

float simd_l2_squared(const float *a, const float *b, size_t dims)
{
#if SIMD_X86
    if (__builtin_cpu_supports("avx512f"))
        return l2_squared_avx512(a, b, dims);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return l2_squared_avx2(a, b, dims);
#endif
    return l2_squared_plain(a, b, dims);
}

const char *simd_level(void)
{
#if SIMD_X86
    if (__builtin_cpu_supports("avx512f"))
        return "avx512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "avx2";
#endif
    return "plain";
}

float simd_wrap_inner_product(const float *a, const float *b, size_t dims)
{
    return simd_inner_product(a, b, dims);
}

float simd_wrap_l2_squared(const float *a, const float *b, size_t dims)
{
    return simd_l2_squared(a, b, dims);
}
