// SPDX-License-Identifier: Apache-2.0
//! An engine whose creation can fail: the C API's own function panics, and so aborts the process, when the settings are bad
//! or the pool's address space cannot be reserved.

use std::mem::{align_of, size_of};
use wasmtime::{Config, Engine};
use wasmtime_c_api::{wasm_config_t, wasm_engine_t, wasmtime_error_t};

// Both handles are `repr(C)` with exactly one field, whose name is private to the C API's crate. The pin in Cargo.toml is
// exact; these assertions stop a build in which the layout is another one.
const _: () = assert!(size_of::<wasm_config_t>() == size_of::<Config>());
const _: () = assert!(align_of::<wasm_config_t>() == align_of::<Config>());
const _: () = assert!(size_of::<wasm_engine_t>() == size_of::<Engine>());
const _: () = assert!(align_of::<wasm_engine_t>() == align_of::<Engine>());

/// What is inside the C API's handle.
pub(crate) fn settings_of(config: &wasm_config_t) -> &Config {
    // SAFETY: the layout above.
    unsafe { &*std::ptr::from_ref(config).cast::<Config>() }
}

/// Takes `config`. Returns the engine, or null with `*error` set to an error that the caller deletes.
///
/// # Safety
/// `config` comes from `wasm_config_new`; `error` points to writable memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hr_engine_new(
    config: Box<wasm_config_t>,
    error: *mut *mut wasmtime_error_t,
) -> Option<Box<wasm_engine_t>> {
    match Engine::new(settings_of(&config)) {
        Ok(engine) => {
            let engine = Box::into_raw(Box::new(engine)).cast::<wasm_engine_t>();
            // SAFETY: the same allocation, by the layout above.
            Some(unsafe { Box::from_raw(engine) })
        }
        Err(problem) => {
            // SAFETY: the caller's contract.
            unsafe { *error = Box::into_raw(Box::new(wasmtime_error_t::from(problem))) };
            None
        }
    }
}
