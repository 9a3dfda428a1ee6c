// SPDX-License-Identifier: Apache-2.0
//! One connection of a client: its time limits, and HTTP/1.1 by hyper.

use crate::http_request::answer;
use crate::http_server::{Kind, Shared};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

/// What the time limits of a connection look at. hyper's own limit of reading headers also ends idle connections, and nothing
/// of hyper's ends one whose client does not read.
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last_progress: AtomicU64,
    /// The same of the first byte of a request whose headers are not complete; 0: none.
    head_since: AtomicU64,
    /// Guests that run for this connection.
    running: AtomicUsize,
    served: AtomicU64,
}

impl Activity {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn received(&self) {
        self.last_progress.store(self.now(), Relaxed);
        if self.running.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    fn head_complete(&self) {
        self.head_since.store(0, Relaxed);
        self.served.fetch_add(1, Relaxed);
    }

    /// When the connection is to be closed, as things are now.
    fn deadline(&self, header: Duration, idle: Duration) -> Instant {
        // A guest that runs has its own limit.
        if self.running.load(Relaxed) != 0 {
            return Instant::now() + header.min(idle);
        }
        let since = |at: u64| self.start + Duration::from_millis(at);
        let idle_until = since(self.last_progress.load(Relaxed)) + idle;
        match self.head_since.load(Relaxed) {
            0 => idle_until,
            at => idle_until.min(since(at) + header),
        }
    }
}

/// Counts a guest that runs, as long as it lives.
pub(crate) struct Running(Arc<Activity>);

impl Running {
    pub(crate) fn new(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.last_progress.store(self.0.now(), Relaxed);
        self.0.running.fetch_sub(1, Relaxed);
    }
}

struct Watched<S> {
    inner: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if result.is_ready() {
            self.activity.last_progress.store(self.activity.now(), Relaxed);
        }
        result
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        if result.is_ready() {
            self.activity.last_progress.store(self.activity.now(), Relaxed);
        }
        result
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Serves one client until it leaves, is too slow, or the server stops.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, stop: watch::Receiver<bool>) {
    // Answers are written whole; waiting for more of them only costs time.
    let _ = stream.set_nodelay(true);
    match &shared.tls {
        None => speak(shared, Scheme::Http, stream, stop).await,
        Some(acceptor) => match timeout(shared.limits.header_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => speak(shared, Scheme::Https, stream, stop).await,
            Ok(Err(problem)) => shared.report(Kind::TlsFailed, &problem.to_string()),
            Err(_) => shared.count(Kind::ClientTooSlow),
        },
    }
}

async fn speak<S>(shared: Arc<Shared>, scheme: Scheme, stream: S, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity {
        start: Instant::now(),
        last_progress: AtomicU64::new(0),
        head_since: AtomicU64::new(0),
        running: AtomicUsize::new(0),
        served: AtomicU64::new(0),
    });
    let limits = &shared.limits;
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(64 << 10));
    let service = service_fn(|request| {
        activity.head_complete();
        answer(shared.clone(), activity.clone(), scheme.clone(), request)
    });
    let stream = TokioIo::new(Watched { inner: stream, activity: activity.clone() });
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut alarm = pin!(sleep_until(activity.deadline(limits.header_timeout, limits.idle_timeout)));
    let mut stopping = false;
    loop {
        let turn = poll_fn(|cx| {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            loop {
                let deadline = activity.deadline(limits.header_timeout, limits.idle_timeout);
                // Most changes move it further away: for them the alarm is set again only when it rings.
                if deadline < alarm.deadline() {
                    alarm.as_mut().reset(deadline);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if deadline <= Instant::now() {
                    shared.count(Kind::ClientTooSlow);
                    return Poll::Ready(false);
                }
                alarm.as_mut().reset(deadline);
            }
        });
        let stopped = tokio::select! {
            _ = turn => return,
            stopped = stop.wait_for(|stop| *stop), if !stopping => stopped.is_ok(),
        };
        stopping = true;
        // hyper waits for the first request of a connection even when it is to end.
        if !stopped || activity.served.load(Relaxed) == 0 {
            return;
        }
        connection.as_mut().graceful_shutdown();
    }
}
