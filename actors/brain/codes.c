#include "actors/brain/codes.h"

#include <math.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define CODES_X86 1
#else
#define CODES_X86 0
#endif

enum { HALF = 128, MOST = 127 };

#define ROUNDING 1e-5F /* what sums of floats may be off, with plenty to spare */

static size_t rounded(size_t size)
{
    return (size + CODES_ALIGN - 1) / CODES_ALIGN * CODES_ALIGN;
}

static uint32_t tail_of(uint32_t dims)
{
    return (dims + 3) / 4 * 4;
}

size_t codes_stride(uint32_t dims)
{
    return rounded(tail_of(dims) + 2 * sizeof(float));
}

typedef float float4_t __attribute__((vector_size(16)));
typedef int32_t int4_t __attribute__((vector_size(16)));

static inline int4_t larger(int4_t a, int4_t b)
{
    int4_t take = a > b;

    return (a & take) | (b & ~take);
}

static float scale_of(const float *unit, uint32_t dims)
{
    const int4_t positive = {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX};
    int4_t most = {0, 0, 0, 0}, bits; /* without their signs floats are ordered as integers are */
    float rest[4] = {0}, four[4];
    uint32_t i = 0;

    for (; i + 4 <= dims; i += 4) {
        memcpy(&bits, unit + i, sizeof bits);
        bits &= positive;
        most = larger(bits, most);
    }
    memcpy(rest, unit + i, sizeof(float) * (dims - i));
    memcpy(&bits, rest, sizeof bits);
    bits &= positive;
    most = larger(bits, most);
    memcpy(four, &most, sizeof four);
    float low = four[0] > four[1] ? four[0] : four[1], high = four[2] > four[3] ? four[2] : four[3];
    return (low > high ? low : high) / MOST;
}

/* The codes, plus `add`, as bytes; returns the length of what rounding lost. */
static float put_bytes(uint8_t *out, const float *unit, uint32_t dims, float scale, int add)
{
    /* Added to a small float, this leaves its nearest integer in the low bits. */
    const float round = 12582912;
    float inverse = scale > 0 ? 1 / scale : 0, lost = 0;
    const float4_t inverses = {inverse, inverse, inverse, inverse},
                   scales = {scale, scale, scale, scale}, rounds = {round, round, round, round};
    float4_t sum = {0, 0, 0, 0}, four;
    int4_t bits;
    uint32_t i = 0;

    for (; i + 4 <= dims; i += 4) {
        memcpy(&four, unit + i, sizeof four);
        float4_t code = four * inverses + rounds;
        memcpy(&bits, &code, sizeof bits);
        for (int lane = 0; lane < 4; lane++)
            out[i + (uint32_t)lane] = (uint8_t)(bits[lane] + add);
        four -= (code - rounds) * scales;
        sum += four * four;
    }
    for (; i < dims; i++) {
        float code = unit[i] * inverse + round, gap = unit[i] - (code - round) * scale;
        int32_t bit;
        memcpy(&bit, &code, sizeof bit);
        out[i] = (uint8_t)(bit + add);
        lost += gap * gap;
    }
    return sqrtf(lost + sum[0] + sum[1] + sum[2] + sum[3]) + ROUNDING;
}

void codes_put(uint8_t *row, const float *unit, uint32_t dims)
{
    float scale = scale_of(unit, dims);
    size_t stride = codes_stride(dims);

    memset(row + dims, 0, stride - dims);
    float error = put_bytes(row, unit, dims, scale, HALF);
    memcpy(row + tail_of(dims), &scale, sizeof scale);
    memcpy(row + tail_of(dims) + sizeof scale, &error, sizeof error);
}

size_t codes_query_bytes(uint32_t dims)
{
    return rounded(dims);
}

/* Behind its last number the query is zero, so it does not matter what stands there in a row. */
void codes_query(codes_query_t *query, int8_t *room, const float *unit, uint32_t dims)
{
    float scale = scale_of(unit, dims);
    int32_t sum = 0;

    *query = (codes_query_t){
        .bytes = room, .size = rounded(dims), .scale = scale, .tail_at = tail_of(dims)};
    memset(room, 0, query->size);
    query->error = put_bytes((uint8_t *)room, unit, dims, scale, 0);
    for (uint32_t i = 0; i < dims; i++)
        sum += room[i];
    query->offset = sum * HALF;
}

void codes_query_of_row(codes_query_t *query, int8_t *room, const uint8_t *row, uint32_t dims)
{
    int32_t sum = 0;

    *query = (codes_query_t){.bytes = room, .size = rounded(dims), .tail_at = tail_of(dims)};
    memcpy(&query->scale, row + query->tail_at, sizeof query->scale);
    memset(room + dims, 0, query->size - dims);
    for (uint32_t i = 0; i < dims; i++) {
        room[i] = (int8_t)(row[i] - HALF);
        sum += room[i];
    }
    query->offset = sum * HALF;
}

static int32_t product_plain(const uint8_t *row, const int8_t *bytes, size_t size)
{
    int32_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum += row[i] * bytes[i];
    return sum;
}

#if CODES_X86

__attribute__((target("avx2"))) static int32_t product_avx2(const uint8_t *row, const int8_t *bytes,
                                                            size_t size)
{
    __m256i s0 = _mm256_setzero_si256(), s1 = s0;

    for (size_t i = 0; i < size; i += 32) {
        __m256i r0 = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + i)));
        __m256i q0 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(bytes + i)));
        __m256i r1 = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(row + i + 16)));
        __m256i q1 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(bytes + i + 16)));
        s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(r0, q0));
        s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(r1, q1));
    }
    s0 = _mm256_add_epi32(s0, s1);
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(s0), _mm256_extracti128_si256(s0, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

__attribute__((target("avx512f,avx512vnni"))) static int32_t
product_vnni(const uint8_t *row, const int8_t *bytes, size_t size)
{
    __m512i s0 = _mm512_setzero_si512(), s1 = s0;
    size_t i = 0;

    for (; i + 128 <= size; i += 128) {
        s0 = _mm512_dpbusd_epi32(s0, _mm512_loadu_si512(row + i), _mm512_loadu_si512(bytes + i));
        s1 = _mm512_dpbusd_epi32(s1, _mm512_loadu_si512(row + i + 64),
                                 _mm512_loadu_si512(bytes + i + 64));
    }
    if (i < size)
        s0 = _mm512_dpbusd_epi32(s0, _mm512_loadu_si512(row + i), _mm512_loadu_si512(bytes + i));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(s0, s1));
}

#endif

int32_t codes_product(const uint8_t *row, const int8_t *bytes, size_t size)
{
#if CODES_X86
    if (__builtin_cpu_supports("avx512vnni"))
        return product_vnni(row, bytes, size);
    if (__builtin_cpu_supports("avx2"))
        return product_avx2(row, bytes, size);
#endif
    return product_plain(row, bytes, size);
}
