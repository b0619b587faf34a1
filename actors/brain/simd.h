/* simd: the two distance functions everything vector spends its time in.
 *
 * Debian builds FAISS for baseline x86-64. Here are AVX2 and AVX-512 versions, chosen by CPUID at
 * run time, with plain C where neither is there. link.cmake passes --wrap for FAISS's own symbols,
 * so that Flat, HNSW and IVF in the static libfaiss.a use these as well.
 * No alignment is asked of the arguments. Thread: pure, any thread.
 */
#ifndef ACTORS_BRAIN_SIMD_H
#define ACTORS_BRAIN_SIMD_H

#include <stddef.h>

/* Sum of a[i] * b[i]. */
float simd_inner_product(const float *a, const float *b, size_t dims);

/* Sum of (a[i] - b[i])^2. */
float simd_l2_squared(const float *a, const float *b, size_t dims);

/* "avx512", "avx2" or "plain": what this machine uses. */
const char *simd_level(void);

#endif
