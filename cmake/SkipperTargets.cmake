# Targets of this project: one library per folder, one test executable per tested folder.

# Compiler flags every target of ours uses; third-party headers come in as SYSTEM and stay out of -Werror.
add_library(skipper_flags INTERFACE)
target_compile_features(skipper_flags INTERFACE cxx_std_20)
target_compile_options(skipper_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wvla;-fno-math-errno;-ffp-contract=off>
  # Debug builds carry sanitizers: -O1 keeps the model tests in seconds, -g1 (names and lines, what reports print) saves a
  # quarter of the build time. Sources that hardly compute lower it to -O0, which saves a third of theirs: skipper_quick_build.
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Debug>>:-g1;-fno-omit-frame-pointer>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Debug>>:$<IF:$<BOOL:$<TARGET_PROPERTY:SKIPPER_QUICK_BUILD>>,-O0,-O1>>)
# Eight sources of a folder compile as one, which takes under half the time: headers cost more than our code. What is private to
# one of them is not in a header, as the warning assumes.
if(CMAKE_UNITY_BUILD)
  target_compile_options(skipper_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
endif()
target_include_directories(skipper_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
if(SKIPPER_SANITIZER)
  target_compile_options(skipper_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SKIPPER_SANITIZER}>)
  target_link_options(skipper_flags INTERFACE -fsanitize=${SKIPPER_SANITIZER})
  if(SKIPPER_SANITIZER MATCHES undefined)
    target_compile_options(skipper_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=undefined>)
  endif()
endif()

# skipper_quick_build(TARGET): a Debug build of code that calls more than it computes: tests, and libraries that ask for it.
function(skipper_quick_build target)
  set_target_properties(${target} PROPERTIES SKIPPER_QUICK_BUILD ON)
endfunction()

# Every test that runs on its own, without mpirun: what the builds with sanitizers are for.
add_custom_target(unit_tests)

# skipper_library(NAME base SRCS error.cc DEPS ... [PRIVATE_DEPS ...])
# DEPS are the folders whose headers this folder's headers include: the arrows of docs/architecture.md.
function(skipper_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(skipper_${ARG_NAME} STATIC ${ARG_SRCS})
  target_link_libraries(skipper_${ARG_NAME}
    PUBLIC skipper_flags ${ARG_DEPS}
    PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# skipper_cuda_sources(TARGET a.cu b.cc ...): sources of builds with CUDA. CMake 3.31 and later would join .cu files too, which
# share names.
function(skipper_cuda_sources target)
  target_sources(${target} PRIVATE ${ARGN})
  list(FILTER ARGN INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# What mpirun needs to run more ranks than cores, as root too (containers), on one machine. Open MPI leaks from plugins that
# it has unloaded, which no suppression can name: leaks of ours are found by the tests with ranks as threads.
set(SKIPPER_MPI_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
  ASAN_OPTIONS=detect_leaks=0)

# skipper_test(NAME comm_test SRCS communicator_test.cc DEPS skipper_comm LABELS unit [RANKS n...])
# One CTest entry per executable. RANKS 2 4 makes entries comm_test_2_ranks and comm_test_4_ranks under mpirun instead,
# with a main() that starts MPI (tests/support/mpi_test_main.cc).
function(skipper_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;RANKS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE skipper_flags ${ARG_DEPS} GTest::gmock GTest::gtest)
  target_compile_definitions(${ARG_NAME} PRIVATE SKIPPER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  skipper_quick_build(${ARG_NAME})
  if(ARG_RANKS)
    target_link_libraries(${ARG_NAME} PRIVATE skipper_mpi_test_main)
    foreach(num_ranks IN LISTS ARG_RANKS)
      skipper_mpirun_entry(${ARG_NAME} ${num_ranks} ${ARG_TIMEOUT} "${ARG_LABELS}")
    endforeach()
    return()
  endif()
  target_link_libraries(${ARG_NAME} PRIVATE GTest::gtest_main)
  add_dependencies(unit_tests ${ARG_NAME})
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
  if(SKIPPER_SANITIZER STREQUAL "thread")
    set_tests_properties(${ARG_NAME} PROPERTIES
      ENVIRONMENT TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/support/thread_sanitizer.supp)
  endif()
endfunction()

# The CTest entry that runs `target` under mpirun; part of skipper_test.
function(skipper_mpirun_entry target num_ranks timeout labels)
  add_test(NAME ${target}_${num_ranks}_ranks
    COMMAND ${CMAKE_COMMAND} -E env ${SKIPPER_MPI_ENVIRONMENT}
      ${MPIEXEC_EXECUTABLE} -n ${num_ranks} $<TARGET_FILE:${target}>
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${target}_${num_ranks}_ranks PROPERTIES
    LABELS "mpi;${labels}" TIMEOUT ${timeout} PROCESSORS 2)
endfunction()
