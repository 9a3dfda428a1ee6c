// SPDX-License-Identifier: Apache-2.0
//! One request: a fresh instance that answers it, under its limits.

use crate::http_connection::{Activity, Running};
use crate::http_outgoing::Outgoing;
use crate::http_server::{Kind, Shared};
use crate::store_limits::hr_store_limits;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, timeout, timeout_at};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, Error>;

/// What a guest may hold open at a time: streams, headers, bodies.
const RESOURCES: usize = 1000;
/// What it may hand to the host in one call.
const HOSTCALL_BYTES: usize = 4 << 20;
/// Random bytes in one call.
const RANDOM_BYTES: u64 = 1 << 20;

/// hr_store_limits lets a store have one instance; a component is made of several.
struct Limits(hr_store_limits);

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, now: usize, wanted: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.0.memory_growing(now, wanted, maximum)
    }
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.0.memory_grow_failed(error)
    }
    fn table_growing(&mut self, now: usize, wanted: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.0.table_growing(now, wanted, maximum)
    }
}

/// The store's data.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    outgoing: Outgoing,
    limits: Limits,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

/// @param environment: wins over the server's
pub(crate) fn new_store(shared: &Arc<Shared>, environment: &[(String, String)]) -> Store<Guest> {
    let mut wasi = WasiCtx::builder();
    let named = |name: &String| environment.iter().any(|(own, _)| own == name);
    wasi.envs(environment);
    for (name, value) in shared.environment.iter().filter(|(name, _)| !named(name)) {
        wasi.env(name, value);
    }
    wasi.args(&shared.arguments).max_random_size(RANDOM_BYTES);
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    if let Some(out) = &shared.stdout {
        wasi.stdout(out.clone());
    }
    if let Some(out) = &shared.stderr {
        wasi.stderr(out.clone());
    }
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES);
    let guest = Guest {
        wasi: wasi.build(),
        http: WasiHttpCtx::new(),
        table,
        outgoing: Outgoing(shared.clone()),
        limits: Limits(hr_store_limits {
            memory_limit_bytes: shared.limits.memory_bytes,
            table_limit_elements: shared.limits.table_elements,
            ..Default::default()
        }),
    };
    let mut store = Store::new(shared.proxy.engine(), guest);
    store.limiter(|guest| &mut guest.limits);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    // At each tick the guest lets others run, and is dropped there when its time is over.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Ends the guest when nobody waits for its answer any more.
struct Attached {
    task: AbortHandle,
    shared: Arc<Shared>,
    wanted: bool,
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.wanted && !self.task.is_finished() {
            self.task.abort();
            self.shared.count(Kind::ClientGone);
        }
    }
}

/// Why a guest did not end well.
pub(crate) type Failure = (Kind, String);

/// How a guest ended; set before its side of the answer's body is dropped.
type End = Arc<OnceLock<Option<Failure>>>;

pub(crate) struct GuestBody {
    inner: HyperOutgoingBody,
    guest: Attached,
    end: End,
    /// Of a body whose length is known: hyper does not ask for its end.
    left: Option<u64>,
}

impl GuestBody {
    /// Of a body that broke off.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.end.get().cloned().flatten()
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                if self.left == Some(0) || frame.is_trailers() {
                    self.guest.wanted = false;
                }
            }
            Some(Err(_)) => {}
            None => {
                self.guest.wanted = false;
                // What a trapped guest left unfinished must not look like a whole answer.
                if matches!(self.end.get(), Some(Some(_))) {
                    return Poll::Ready(Some(Err(Error::HttpResponseIncomplete)));
                }
            }
        }
        Poll::Ready(frame)
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

struct RequestBody {
    inner: Incoming,
    left: u64,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.alarm = None;
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                if size > this.left {
                    return Poll::Ready(Some(Err(Error::HttpRequestBodySize(None))));
                }
                this.left -= size;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(problem))) => Poll::Ready(Some(Err(problem.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.patience)));
                std::task::ready!(alarm.as_mut().poll(cx));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<AnswerBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    answer
}

fn overloaded() -> Response<AnswerBody> {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "Too many requests are being served\n");
    answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    answer
}

fn failed(kind: Kind) -> Response<AnswerBody> {
    match kind {
        Kind::TimedOut => plain(StatusCode::GATEWAY_TIMEOUT, "The request took too long\n"),
        Kind::OutOfMemory => plain(StatusCode::SERVICE_UNAVAILABLE, "The request needed too much memory\n"),
        _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "The service failed\n"),
    }
}

/// The head of a request that no guest needs to see.
fn refused(shared: &Shared, request: &http::Request<Incoming>) -> Option<Response<AnswerBody>> {
    if request.body().size_hint().lower() > shared.limits.request_body_bytes {
        return Some(plain(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large\n"));
    }
    let host = request.headers().get(header::HOST);
    if request.uri().authority().is_none() && host.is_none_or(|host| host.to_str().is_err()) {
        return Some(plain(StatusCode::BAD_REQUEST, "The request names no host\n"));
    }
    None
}

pub(crate) async fn answer(
    shared: Arc<Shared>,
    activity: Arc<Activity>,
    scheme: Scheme,
    request: http::Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    shared.count(Kind::Request);
    if let Some(answer) = refused(&shared, &request) {
        shared.count(Kind::BadRequest);
        return Ok(answer);
    }
    let waiting = Running::new(&activity);
    let Ok(Ok(place)) = timeout(shared.limits.wait_for_place, shared.places.clone().acquire_owned()).await else {
        shared.count(Kind::Rejected);
        return Ok(overloaded());
    };
    let request = request.map(|inner| RequestBody {
        inner,
        left: shared.limits.request_body_bytes,
        patience: shared.limits.body_timeout,
        alarm: None,
    });
    let store = new_store(&shared, &[]);
    let limit = shared.limits.request_timeout;
    Ok(match begin(&shared, store, (place, waiting), limit, scheme, request).await {
        Ok(answer) => answer.map(BodyExt::boxed_unsync),
        Err((Kind::BadRequest, _)) => plain(StatusCode::BAD_REQUEST, "The request cannot be handed on\n"),
        Err((kind, _)) => failed(kind),
    })
}

/// Runs a fresh instance up to the head of its answer; the answer's body is what it goes on to write. `held` is let go when
/// the instance has ended.
pub(crate) async fn begin<B>(
    shared: &Arc<Shared>,
    mut store: Store<Guest>,
    held: impl Send + 'static,
    limit: Duration,
    scheme: Scheme,
    request: http::Request<B>,
) -> Result<Response<GuestBody>, Failure>
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let deadline = Instant::now() + limit;
    // Whoever asks for the head only does not leave when there is no body.
    let head_only = request.method() == http::Method::HEAD;
    let (sender, receiver) = oneshot::channel();
    let mut http = store.data_mut().http();
    let (Ok(request), Ok(out)) = (http.new_incoming_request(scheme, request), http.new_response_outparam(sender)) else {
        shared.count(Kind::BadRequest);
        return Err((Kind::BadRequest, "the request cannot be handed on".into()));
    };
    let end = End::default();
    let task = tokio::spawn({
        let (shared, end) = (shared.clone(), end.clone());
        async move {
            // Declared before the store, so that they end after it.
            let _held = (held, shared.ticker.run());
            let mut store = store;
            let result = timeout_at(deadline, async {
                let proxy = shared.proxy.instantiate_async(&mut store).await?;
                proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
            })
            .await;
            let refused = &store.data().limits.0;
            let failure = match result {
                Ok(Ok(())) => None,
                Err(_) => Some((Kind::TimedOut, format!("no end after {limit:?}"))),
                Ok(Err(problem)) if refused.memory_refused_bytes != 0 => Some((Kind::OutOfMemory, format!("{problem:#}"))),
                Ok(Err(problem)) => Some((Kind::Trapped, format!("{problem:?}"))),
            };
            if let Some((kind, text)) = &failure {
                shared.report(*kind, text);
            }
            let _ = end.set(failure);
        }
    });
    let mut guest = Attached { task: task.abort_handle(), shared: shared.clone(), wanted: true };
    let answered = receiver.await;
    if !matches!(answered, Ok(Ok(_))) {
        guest.wanted = false;
    }
    let no_answer = |text: String| {
        shared.report(Kind::GuestFailed, &text);
        Err((Kind::GuestFailed, text))
    };
    match answered {
        Ok(Ok(answer)) => {
            let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&answer.status());
            guest.wanted = !(head_only || bodiless);
            let left = answer.headers().get(header::CONTENT_LENGTH);
            let left = left.and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(answer.map(|inner| GuestBody { inner, guest, end, left }))
        }
        Ok(Err(code)) => no_answer(describe(&code)),
        Err(_) => match end.get().cloned().flatten() {
            Some(failure) => Err(failure),
            None => no_answer("the component returned without an answer".into()),
        },
    }
}

fn describe(code: &ErrorCode) -> String {
    format!("the component answered with the error {code:?}")
}
