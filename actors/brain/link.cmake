# What the brain needs beyond C: FAISS (static, C++), its BLAS, the Snowball stemmers, libunistring.
# Included by the root after the library `brain` exists; whatever links brain gets all of it.
# The two --wrap options send FAISS's distance functions to simd.c.
find_library(FAISS_LIBRARY faiss REQUIRED)
find_library(FAISS_C_LIBRARY faiss_c)
find_library(STEMMER_LIBRARY stemmer REQUIRED)
find_library(UNISTRING_LIBRARY unistring REQUIRED)
find_package(LAPACK REQUIRED)

target_link_libraries(brain PUBLIC ${FAISS_LIBRARY} ${LAPACK_LIBRARIES} ${BLAS_LIBRARIES} gomp
    ${STEMMER_LIBRARY} ${UNISTRING_LIBRARY} stdc++ m ${CMAKE_DL_LIBS})
target_link_options(brain PUBLIC
    "LINKER:--wrap=_ZN5faiss18fvec_inner_productEPKfS1_m"
    "LINKER:--wrap=_ZN5faiss10fvec_L2sqrEPKfS1_m")
if(FAISS_C_LIBRARY)
  target_link_libraries(brain PUBLIC ${FAISS_C_LIBRARY})
  target_compile_definitions(brain PUBLIC AGENCY_FAISS_C)
endif()
