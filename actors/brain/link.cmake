# What the brain needs beyond C: FAISS (static, C++), its BLAS, the Snowball stemmers, libunistring.
# include() this after enable_language(CXX) and link every executable that contains the brain's
# sources with agency_brain_libs. The two --wrap options send FAISS's distance functions to simd.c.
find_library(FAISS_LIBRARY faiss REQUIRED)
find_library(FAISS_C_LIBRARY faiss_c)
find_library(STEMMER_LIBRARY stemmer REQUIRED)
find_library(UNISTRING_LIBRARY unistring REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(LAPACK REQUIRED)

add_library(agency_brain_libs INTERFACE)
target_link_libraries(agency_brain_libs INTERFACE ${FAISS_LIBRARY} ${LAPACK_LIBRARIES}
    ${BLAS_LIBRARIES} ${OpenMP_CXX_LIBRARIES} ${STEMMER_LIBRARY} ${UNISTRING_LIBRARY} stdc++ m)
target_link_options(agency_brain_libs INTERFACE
    "LINKER:--wrap=_ZN5faiss18fvec_inner_productEPKfS1_m"
    "LINKER:--wrap=_ZN5faiss10fvec_L2sqrEPKfS1_m")
if(FAISS_C_LIBRARY)
  target_link_libraries(agency_brain_libs INTERFACE ${FAISS_C_LIBRARY})
  target_compile_definitions(agency_brain_libs INTERFACE AGENCY_FAISS_C)
endif()
