/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the engine's archive exports beside wasmtime's C API. Written by hand; src/engine.rs and src/store_limits.rs are the
 * other side. */

#include <stdint.h>

#include <wasm.h>
#include <wasmtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Takes config. Returns the engine, or NULL with *error set, which the caller deletes. */
wasm_engine_t *hr_engine_new(wasm_config_t *config, wasmtime_error_t **error);

/* Limits of one store, and what happened under them. Zero what is not a limit. */
typedef struct hr_store_limits {
    uint64_t memory_limit_bytes;     /* all linear memories and the GC heap together */
    uint64_t table_limit_elements;   /* each table */
    uint64_t memory_bytes;           /* now */
    uint64_t memory_peak_bytes;      /* at most so far */
    uint64_t memory_refused_bytes;   /* the total wanted when memory was last refused; 0: never */
    uint64_t table_refused_elements; /* the size wanted when a table was last refused; 0: never */
} hr_store_limits;

/* Puts the store under limits, before anything is instantiated in it. limits must stay in place while the store lives. */
void hr_store_set_limits(wasmtime_store_t *store, hr_store_limits *limits);

#ifdef __cplusplus
}
#endif
