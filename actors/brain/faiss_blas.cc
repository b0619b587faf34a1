/* The BLAS and LAPACK functions that FAISS calls, loaded when the first of them is: only training
 * an IVF index does, and OpenBLAS with its Fortran would otherwise be mapped and set up by each
 * process of the agency. Where the library is missing a call throws, which faiss_shim.cc reports.
 */
#include <dlfcn.h>
#include <mutex>
#include <stdexcept>

namespace
{

void *library()
{
    static std::once_flag once;
    static void *handle;

    std::call_once(once, [] {
        for (const char *name : {"libopenblas.so.0", "liblapack.so.3"})
            if (!handle)
                handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        auto one_thread = handle ? dlsym(handle, "openblas_set_num_threads") : nullptr;
        if (one_thread) /* another BLAS does not have the switch */
            reinterpret_cast<void (*)(int)>(one_thread)(1);
    });
    return handle;
}

void *symbol(const char *name)
{
    void *found = library() ? dlsym(library(), name) : nullptr;

    if (!found)
        throw std::runtime_error("IVF needs OpenBLAS, which is not installed (libopenblas0)");
    return found;
}

} // namespace

/* Fortran passes everything by address, and FAISS reads results through its arguments only. */
#define BLAS(name, n)                                                                              \
    extern "C" int name(ARGS_##n)                                                                  \
    {                                                                                              \
        static const auto real = reinterpret_cast<int (*)(ARGS_##n)>(symbol(#name));               \
        return real(PASS_##n);                                                                     \
    }
#define ARGS_6 void *a, void *b, void *c, void *d, void *e, void *f
#define ARGS_7 ARGS_6, void *g
#define ARGS_8 ARGS_7, void *h
#define ARGS_9 ARGS_8, void *i
#define ARGS_10 ARGS_9, void *j
#define ARGS_13 ARGS_10, void *k, void *l, void *m
#define ARGS_14 ARGS_13, void *n
#define PASS_6 a, b, c, d, e, f
#define PASS_7 PASS_6, g
#define PASS_8 PASS_7, h
#define PASS_9 PASS_8, i
#define PASS_10 PASS_9, j
#define PASS_13 PASS_10, k, l, m
#define PASS_14 PASS_13, n

BLAS(sgetrf_, 6)
BLAS(dgetrf_, 6)
BLAS(sgetri_, 7)
BLAS(dgetri_, 7)
BLAS(sgeqrf_, 8)
BLAS(sorgqr_, 9)
BLAS(dsyev_, 9)
BLAS(ssyrk_, 10)
BLAS(sgemm_, 13)
BLAS(dgemm_, 13)
BLAS(sgesvd_, 14)
BLAS(dgesvd_, 14)
BLAS(sgelsd_, 14)
