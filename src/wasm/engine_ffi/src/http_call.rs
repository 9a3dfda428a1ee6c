// SPDX-License-Identifier: Apache-2.0
//! One call of a component without a connection: a request made here, and its answer's body as it comes.

use crate::http_request::{Failure, begin, new_store};
use crate::http_server::{HttpServer, Kind, Shared, bytes_of, hr_text, list, string_of, variable};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wasmtime::Result;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

#[repr(C)]
pub struct hr_http_call {
    path: hr_text,
    body: hr_text,
    environment: *const hr_text,
    environment_count: usize,
    timeout_ms: u32,
    cancel_fd: c_int,
    output: unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> bool,
    failed: unsafe extern "C" fn(*mut c_void, u32, *const c_char, usize),
    user: *mut c_void,
}

struct Call {
    path: String,
    body: Bytes,
    environment: Vec<(String, String)>,
    limit: Duration,
}

/// # Safety
/// As for `hr_http_server_call`.
unsafe fn read(call: &hr_http_call) -> Result<Call> {
    // SAFETY: the caller's contract.
    unsafe {
        let environment = list(call.environment, call.environment_count);
        Ok(Call {
            path: string_of(&call.path)?,
            body: Bytes::copy_from_slice(bytes_of(&call.body)),
            environment: environment.iter().map(|text| variable(text)).collect::<Result<_>>()?,
            limit: Duration::from_millis(call.timeout_ms.into()),
        })
    }
}

/// Gives the status of a whole answer.
async fn run(shared: &Arc<Shared>, call: Call, mut output: impl FnMut(&[u8]) -> bool) -> Result<u16, Failure> {
    shared.count(Kind::Request);
    let request = http::Request::post(&call.path)
        .header(http::header::HOST, "function")
        .header(http::header::CONTENT_LENGTH, call.body.len())
        .header(http::header::CONTENT_TYPE, "application/octet-stream")
        .body(Full::new(call.body).map_err(|never: Infallible| match never {}))
        .map_err(|problem| (Kind::BadRequest, problem.to_string()))?;
    let places = shared.places.clone().acquire_owned();
    let Ok(Ok(place)) = tokio::time::timeout(shared.limits.wait_for_place.min(call.limit), places).await else {
        shared.count(Kind::Rejected);
        return Err((Kind::Rejected, "no place became free in time".into()));
    };
    let store = new_store(shared, &call.environment);
    let mut answer = begin(shared, store, place, call.limit, Scheme::Http, request).await?;
    while let Some(frame) = answer.frame().await {
        match frame {
            Ok(frame) => {
                if frame.data_ref().is_some_and(|data| !output(data)) {
                    return Err((Kind::ClientGone, "nobody wants the answer any more".into()));
                }
            }
            Err(problem) => {
                let failure = answer.body().failure();
                return Err(failure.unwrap_or_else(|| (Kind::GuestFailed, problem.to_string())));
            }
        }
    }
    Ok(answer.status().as_u16())
}

/// Returns once `fd` is readable, or cannot be waited for.
///
/// # Safety
/// `fd` stays open.
async unsafe fn cancelled(fd: c_int) -> Failure {
    // SAFETY: the caller's contract.
    let why = match unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) } {
        Ok(fd) => fd.readable().await.err().map(|problem| problem.to_string()),
        Err(problem) => Some(problem.to_string()),
    };
    (Kind::ClientGone, why.unwrap_or_else(|| "cancelled".into()))
}

/// Blocks until the answer has ended. Returns its status; 0 after it has called `failed`.
///
/// # Safety
/// `server` comes from `hr_http_server_new` and is not stopped meanwhile; `call` and what it points to are valid during the
/// call; its functions may be called on this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hr_http_server_call(server: *const HttpServer, call: *const hr_http_call) -> u32 {
    // SAFETY: the caller's contract, here and below.
    let (Some(server), Some(call)) = (unsafe { (server.as_ref(), call.as_ref()) }) else { return 0 };
    let result = match (server.running(), unsafe { read(call) }) {
        (Some((runtime, shared)), Ok(wanted)) => runtime.block_on(async {
            let output = |bytes: &[u8]| unsafe { (call.output)(call.user, bytes.as_ptr().cast(), bytes.len()) };
            tokio::select! {
                biased;
                failure = unsafe { cancelled(call.cancel_fd) } => Err(failure),
                result = run(shared, wanted, output) => result,
            }
        }),
        (None, _) => Err((Kind::Rejected, "the server has stopped".into())),
        (_, Err(problem)) => Err((Kind::BadRequest, problem.to_string())),
    };
    match result {
        Ok(status) => status.into(),
        Err((kind, text)) => {
            unsafe { (call.failed)(call.user, kind as u32, text.as_ptr().cast(), text.len()) };
            0
        }
    }
}
