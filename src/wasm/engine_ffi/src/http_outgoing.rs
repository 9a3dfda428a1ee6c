// SPDX-License-Identifier: Apache-2.0
//! Requests of guests to others: only to whom the list allows, and by addresses that the list gives. No name is looked up here,
//! so a guest can be sent nowhere else by a name server, and the program needs no resolver.

use crate::http_server::{Kind, Shared};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

pub(crate) struct Outgoing(pub(crate) Arc<Shared>);

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Driver), Error>;

/// "HOST:PORT" as the list has it: small letters, and never without the port.
fn name_of(uri: &Uri) -> Option<String> {
    let port = uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    })?;
    // A user's name before the host would be passed on as a part of it.
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    Some(format!("{}:{port}", authority.host().to_ascii_lowercase()))
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _problem: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let shared = self.0.clone();
        let name = name_of(request.uri());
        let Some((name, address)) = name.and_then(|name| Some((shared.outgoing.get(&name).copied()?, name)).map(|(a, n)| (n, a)))
        else {
            shared.report(Kind::OutgoingDenied, &format!("{}", request.uri().authority().map_or("", |name| name.as_str())));
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        let Ok(place) = shared.outgoing_places.clone().try_acquire_owned() else {
            return Box::new(async { Err(Error::ConnectionLimitReached) });
        };
        shared.count(Kind::Outgoing);
        Box::new(send(shared, name, address, request, options.unwrap_or_default(), place))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        // Of each answer two such pieces are held for a client that does not read.
        128 << 10
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(shared: &Shared, name: &str, address: SocketAddr, secure: bool) -> Result<Box<dyn Stream>, Error> {
    let stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
    let _ = stream.set_nodelay(true);
    if !secure {
        return Ok(Box::new(stream));
    }
    // Without certificates to trust there is nobody to talk to.
    let connector = shared.connector.as_ref().ok_or(Error::TlsCertificateError)?;
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host).trim_matches(['[', ']']);
    let host = ServerName::try_from(host.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(Box::new(connector.connect(host, stream).await.map_err(Error::Tls)?))
}

/// A limit of the guest's own is kept where it is shorter than ours.
fn shorter(own: Option<Duration>, ours: Duration) -> Duration {
    own.map_or(ours, |own| own.min(ours))
}

async fn send(
    shared: Arc<Shared>,
    name: String,
    address: SocketAddr,
    mut request: Request<WasiBody>,
    options: RequestOptions,
    place: OwnedSemaphorePermit,
) -> Sent {
    let ours = shared.limits.outgoing_timeout;
    let secure = request.uri().scheme_str() == Some("https");
    let stream = timeout(shorter(options.connect_timeout, ours), connect(&shared, &name, address, secure))
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The request line has the path only; the whole address is for proxies.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let mut driver: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> = Box::pin(async move {
        let _place = place;
        connection.await.map_err(Error::from)
    });
    let answer = async { sender.send_request(request).await.map_err(Error::from) };
    let answer = timeout(shorter(options.first_byte_timeout, ours), async {
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut driver => match ended {
                // The answer may have come with the connection's end.
                Ok(()) => answer.await,
                Err(problem) => Err(problem),
            },
        }
    })
    .await
    .map_err(|_| Error::ConnectionReadTimeout)??;
    let patience = shorter(options.between_bytes_timeout, ours);
    let answer = answer.map(|inner| PatientBody { inner, patience, alarm: None }.boxed_unsync());
    Ok((answer, Box::new(driver) as Driver))
}

/// A body whose sender may pause only so long.
struct PatientBody {
    inner: Incoming,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body for PatientBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.alarm = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.patience)));
        std::task::ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }
}
