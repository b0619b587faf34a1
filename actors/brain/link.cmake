# What the brain needs beyond C: FAISS (static, C++), the Snowball stemmers, libunistring. Its BLAS
# is loaded when it is needed (faiss_blas.cc).
# Included by the root after the library `brain` exists; whatever links brain gets all of it.
# The two --wrap options send FAISS's distance functions to simd.c.
find_library(FAISS_LIBRARY faiss REQUIRED)
find_library(FAISS_C_LIBRARY faiss_c)
find_library(STEMMER_LIBRARY stemmer REQUIRED)
find_library(UNISTRING_LIBRARY unistring REQUIRED)

target_link_libraries(brain PUBLIC ${FAISS_LIBRARY} gomp
    ${STEMMER_LIBRARY} ${UNISTRING_LIBRARY} stdc++ m ${CMAKE_DL_LIBS})
target_link_options(brain PUBLIC
    "LINKER:--undefined=sgemm_" # or the linker has passed our BLAS when FAISS asks for it
    "LINKER:--wrap=_ZN5faiss18fvec_inner_productEPKfS1_m"
    "LINKER:--wrap=_ZN5faiss10fvec_L2sqrEPKfS1_m")
if(FAISS_C_LIBRARY)
  target_link_libraries(brain PUBLIC ${FAISS_C_LIBRARY})
  target_compile_definitions(brain PUBLIC AGENCY_FAISS_C)
endif()
