// SPDX-License-Identifier: Apache-2.0
//! The WebAssembly engine as one static archive: wasmtime's C API, unchanged, and the few functions that the C API lacks
//! (`engine.rs`, `store_limits.rs`, `component.rs`) or are not its subject (`http_*.rs`: serving components over HTTP). Their C declarations are in `engine_ffi.h`, written by hand.

// Keeps the C symbols in the archive.
pub use wasmtime_c_api::*;

mod component;
mod engine;
mod http_call;
mod http_connection;
mod http_outgoing;
mod http_request;
mod http_server;
mod store_limits;
