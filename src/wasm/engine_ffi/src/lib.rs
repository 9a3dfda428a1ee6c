// SPDX-License-Identifier: Apache-2.0
//! The WebAssembly engine as one static archive: wasmtime's C API, unchanged, and the few functions that the C API lacks
//! (`engine.rs`, `store_limits.rs`). Their C declarations are in `engine_ffi.h`, written by hand.

// Keeps the C symbols in the archive.
pub use wasmtime_c_api::*;

mod engine;
mod store_limits;
