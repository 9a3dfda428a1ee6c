# SPDX-License-Identifier: Apache-2.0
# Finds the one cpp-httplib that every host uses: Debian trixie's patched source, put into the cache by scripts/setup.
# Result: target httplib::httplib (header only, with OpenSSL).
set(HOST_RUNNER_CACHE "$ENV{HOST_RUNNER_CACHE}")
if(NOT HOST_RUNNER_CACHE)
    if(DEFINED ENV{XDG_CACHE_HOME} AND NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
        set(HOST_RUNNER_CACHE "$ENV{XDG_CACHE_HOME}/host-runner")
    else()
        set(HOST_RUNNER_CACHE "$ENV{HOME}/.cache/host-runner")
    endif()
endif()
find_path(Httplib_INCLUDE_DIR httplib.h
          HINTS "${HOST_RUNNER_CACHE}/deps/cpp-httplib-0.18.7"
          NO_DEFAULT_PATH
          DOC "Folder of cpp-httplib 0.18.7's httplib.h (scripts/setup fetches it)")
if(Httplib_INCLUDE_DIR)
    file(STRINGS "${Httplib_INCLUDE_DIR}/httplib.h" version_line REGEX "^#define CPPHTTPLIB_VERSION \"")
    string(REGEX REPLACE ".*\"([0-9.]+)\".*" "\\1" Httplib_VERSION "${version_line}")
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Httplib REQUIRED_VARS Httplib_INCLUDE_DIR VERSION_VAR Httplib_VERSION HANDLE_VERSION_RANGE
    REASON_FAILURE_MESSAGE "cpp-httplib 0.18.7 is not in the cache: run scripts/setup once, which fetches it")
if(Httplib_FOUND AND NOT TARGET httplib::httplib)
    add_library(httplib::httplib INTERFACE IMPORTED)
    set_target_properties(httplib::httplib PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Httplib_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "Threads::Threads")
endif()
