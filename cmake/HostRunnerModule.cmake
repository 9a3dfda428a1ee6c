# SPDX-License-Identifier: Apache-2.0
# One static library per module, one warnings list for all of them.

add_library(host_runner_flags INTERFACE)
target_compile_features(host_runner_flags INTERFACE cxx_std_20)
target_compile_options(host_runner_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wconversion -Wshadow
    # GCC 12 takes some concatenations of std::string for overlapping copies when it optimises (GCC bug 105651).
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
    $<$<BOOL:${HOST_RUNNER_WARNINGS_AS_ERRORS}>:-Werror>
    # Source files by their place in the tree: where it lies must not change the guest's measurement.
    "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/="
    -fstack-protector-strong
    $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE> $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
if(HOST_RUNNER_SANITIZE)
    target_compile_options(host_runner_flags INTERFACE -fsanitize=${HOST_RUNNER_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(host_runner_flags INTERFACE -fsanitize=${HOST_RUNNER_SANITIZE})
endif()
if(HOST_RUNNER_BUILD_FUZZ)
    # Coverage of the code under test is what steers libFuzzer; asking for it when linking only instruments nothing. The
    # other programs of the build find the same symbols in the sanitizer's run-time library.
    if(NOT HOST_RUNNER_SANITIZE MATCHES "address")
        message(FATAL_ERROR "HOST_RUNNER_BUILD_FUZZ needs HOST_RUNNER_SANITIZE=address (the preset fuzz sets both)")
    endif()
    target_compile_options(host_runner_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# host_runner_module(NAME SOURCES file... [PUBLIC lib...] [PRIVATE lib...])
#
# The library host_runner_NAME from src/NAME/, with include/ as its public include folder. PUBLIC names what its headers
# show, PRIVATE what only its sources use.
function(host_runner_module name)
    cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
    set(target host_runner_${name})
    add_library(${target} STATIC ${ARG_SOURCES})
    target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}/include" "${PROJECT_BINARY_DIR}/include")
    target_link_libraries(${target} PUBLIC ${ARG_PUBLIC} PRIVATE host_runner_flags ${ARG_PRIVATE})
endfunction()

# host_runner_unit_tests(NAME SOURCES file... [LINK lib...])
#
# The GoogleTest program NAME_tests; each of its tests becomes one ctest entry with the label `unit`.
function(host_runner_unit_tests name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
    set(target ${name}_tests)
    add_executable(${target} ${ARG_SOURCES})
    target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
    target_compile_definitions(${target} PRIVATE HOST_RUNNER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    target_link_libraries(${target} PRIVATE host_runner_flags ${ARG_LINK} GTest::gmock_main)
    gtest_discover_tests(${target} TEST_PREFIX "${name}." PROPERTIES LABELS unit TIMEOUT 60)
endfunction()
