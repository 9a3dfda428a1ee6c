// SPDX-License-Identifier: Apache-2.0
//! Compiles components, which the C API of this build cannot.

use crate::engine::settings_of;
use wasmtime::component::Component;
use wasmtime::{Engine, Result};
use wasmtime_c_api::{wasm_byte_vec_t, wasm_config_t, wasmtime_error_t};

fn compile(config: &wasm_config_t, bytes: &[u8]) -> Result<Vec<u8>> {
    Component::from_binary(&Engine::new(settings_of(config))?, bytes)?.serialize()
}

/// Takes `config`. Returns null with `*artifact` set, which the caller deletes, or an error that the caller deletes.
///
/// # Safety
/// `config` comes from `wasm_config_new`; `bytes` points to `size` bytes; `artifact` points to writable memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hr_component_compile(
    config: Option<Box<wasm_config_t>>,
    bytes: *const u8,
    size: usize,
    artifact: *mut wasm_byte_vec_t,
) -> Option<Box<wasmtime_error_t>> {
    let (Some(config), false, false) = (config, bytes.is_null(), artifact.is_null()) else {
        return Some(Box::new(wasmtime::Error::msg("a null pointer").into()));
    };
    // SAFETY: the caller's contract.
    match compile(&config, unsafe { std::slice::from_raw_parts(bytes, size) }) {
        Ok(made) => {
            // SAFETY: the caller's contract; what was there before is not initialised, so it is not dropped.
            unsafe { artifact.write(made.into()) };
            None
        }
        Err(problem) => Some(Box::new(problem.into())),
    }
}
