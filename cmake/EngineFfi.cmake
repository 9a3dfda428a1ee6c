# SPDX-License-Identifier: Apache-2.0
# The WebAssembly engine's archive, which scripts/build-engine makes once into the cache.
# Result: imported target engine_ffi::engine_ffi (archive, headers) and target engine_ffi_build, which makes it.
set(script "${PROJECT_SOURCE_DIR}/scripts/build-engine")
set(crate "${PROJECT_SOURCE_DIR}/src/wasm/engine_ffi")
file(GLOB_RECURSE crate_sources CONFIGURE_DEPENDS "${crate}/src/*.rs")
# The folder's name depends on these: a change means another folder, so it is asked for again.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    "${script}" "${crate}/Cargo.lock" "${crate}/Cargo.toml" "${crate}/build.rs" ${crate_sources})
execute_process(COMMAND "${script}" --where OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE
                RESULT_VARIABLE status ERROR_VARIABLE problem)
if(status)
    message(FATAL_ERROR "${problem}")
endif()
if(NOT EXISTS "${folder}/libengine_ffi.a")
    message(STATUS "The WebAssembly engine is not in the cache: the build makes it once (typically 6 min on two processors)")
endif()
add_custom_command(OUTPUT "${folder}/libengine_ffi.a" COMMAND "${script}" COMMENT "WebAssembly engine" VERBATIM USES_TERMINAL)
add_custom_target(engine_ffi_build DEPENDS "${folder}/libengine_ffi.a")

# CMake wants the folder to exist when it is named.
file(MAKE_DIRECTORY "${folder}/include")
add_library(engine_ffi::engine_ffi STATIC IMPORTED GLOBAL)
set_target_properties(engine_ffi::engine_ffi PROPERTIES
    IMPORTED_LOCATION "${folder}/libengine_ffi.a"
    INTERFACE_INCLUDE_DIRECTORIES "${folder}/include;${crate}"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
add_dependencies(engine_ffi::engine_ffi engine_ffi_build)
