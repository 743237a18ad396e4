# Targets of this project: one library per folder, one test executable per tested folder.

# Compiler flags every target of ours uses; third-party headers come in as SYSTEM and stay out of -Werror.
add_library(skipper_flags INTERFACE)
target_compile_features(skipper_flags INTERFACE cxx_std_20)
target_compile_options(skipper_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wvla;-fno-math-errno;-ffp-contract=off>
  # Debug builds carry sanitizers; -O1 keeps the model tests in seconds.
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Debug>>:-O1;-fno-omit-frame-pointer>)
target_include_directories(skipper_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
if(SKIPPER_SANITIZER)
  target_compile_options(skipper_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SKIPPER_SANITIZER}>)
  target_link_options(skipper_flags INTERFACE -fsanitize=${SKIPPER_SANITIZER})
  if(SKIPPER_SANITIZER MATCHES undefined)
    target_compile_options(skipper_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=undefined>)
  endif()
endif()

# skipper_library(NAME base SRCS error.cc DEPS ... [PRIVATE_DEPS ...])
# DEPS are the folders whose headers this folder's headers include: the arrows of docs/architecture.md.
function(skipper_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(skipper_${ARG_NAME} STATIC ${ARG_SRCS})
  target_link_libraries(skipper_${ARG_NAME}
    PUBLIC skipper_flags ${ARG_DEPS}
    PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# skipper_test(NAME comm_test SRCS communicator_test.cc DEPS skipper_comm LABELS unit [RANKS n])
# One CTest entry per executable. RANKS n runs it under mpirun with n ranks.
function(skipper_test)
  cmake_parse_arguments(ARG "" "NAME;RANKS;TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE skipper_flags ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${ARG_NAME} PRIVATE SKIPPER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()
