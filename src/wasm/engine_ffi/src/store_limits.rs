// SPDX-License-Identifier: Apache-2.0
//! Limits of one store that also say what was refused: with the C API's limiter a guest whose memory ran out looks like any
//! other guest that trapped.

use std::mem::{align_of, size_of};
use wasmtime::{Error, ResourceLimiter, Result, Store};
use wasmtime_c_api::{WasmtimeStoreData, wasmtime_store_t};

// `repr(C)` with one field, as in engine.rs.
const _: () = assert!(size_of::<wasmtime_store_t>() == size_of::<Store<WasmtimeStoreData>>());
const _: () = assert!(align_of::<wasmtime_store_t>() == align_of::<Store<WasmtimeStoreData>>());

/// Limits, and what happened under them. The C++ side owns it and keeps it in place while the store lives.
#[repr(C)]
#[derive(Default)]
pub struct hr_store_limits {
    /// All linear memories and the GC heap together.
    pub(crate) memory_limit_bytes: u64,
    /// Each table.
    pub(crate) table_limit_elements: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_peak_bytes: u64,
    /// The total that was wanted when memory was last refused; 0: never.
    pub(crate) memory_refused_bytes: u64,
    /// The size that was wanted when a table was last refused; 0: never.
    pub(crate) table_refused_elements: u64,
}

impl ResourceLimiter for hr_store_limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let growth = desired.saturating_sub(current) as u64;
        let total = self.memory_bytes.saturating_add(growth);
        if total > self.memory_limit_bytes {
            self.memory_refused_bytes = total;
            return Ok(false);
        }
        // What the module's own maximum forbids is not our limit's doing.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.memory_bytes = total;
        self.memory_peak_bytes = self.memory_peak_bytes.max(total);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: Error) -> Result<()> {
        // The pool's slot or the system's memory is smaller than the limit, or the type cannot be so large. In that last case
        // memory_growing was not asked, so nothing is subtracted here: a growth that failed stays counted.
        self.memory_refused_bytes = self.memory_bytes.max(1);
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if desired as u64 > self.table_limit_elements {
            self.table_refused_elements = desired as u64;
            return Ok(false);
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        1
    }
}

struct Borrowed(*mut hr_store_limits);
// SAFETY: a store is used by one thread at a time, and its limits only through it.
unsafe impl Send for Borrowed {}
unsafe impl Sync for Borrowed {}

impl Borrowed {
    fn limits(&mut self) -> *mut hr_store_limits {
        self.0
    }
}

/// Puts the store under `limits`, before anything is instantiated in it.
///
/// # Safety
/// Both pointers are valid; `limits` outlives the store and is read by the caller only while the store does not run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hr_store_set_limits(store: *mut wasmtime_store_t, limits: *mut hr_store_limits) {
    // SAFETY: the layout above and the caller's contract.
    let store = unsafe { &mut *store.cast::<Store<WasmtimeStoreData>>() };
    let mut borrowed = Borrowed(limits);
    // SAFETY: the caller's contract.
    store.limiter(move |_| unsafe { &mut *borrowed.limits() });
}
