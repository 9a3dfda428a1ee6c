// SPDX-License-Identifier: Apache-2.0
//! Serves a component of the world wasi:http/proxy on a descriptor that the C++ side opened: its settings, life and counters.

use crate::engine::settings_of;
use crate::http_connection::serve;
use crate::http_request::Guest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use wasmtime::component::{Component, Linker};
use wasmtime::error::Context as _;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, bail};
use wasmtime_c_api::{wasm_config_t, wasmtime_error_t};
use wasmtime_wasi::cli::OutputFile;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

#[repr(C)]
pub struct hr_text {
    data: *const c_char,
    size: usize,
}

#[repr(C)]
pub struct hr_http_authority {
    name: hr_text,
    address: hr_text,
}

#[repr(C)]
pub struct hr_http_settings {
    threads: u32,
    places: u32,
    memory_bytes: u64,
    keep_resident_bytes: u64,
    table_elements: u32,
    tables: u32,
    memories: u32,
    core_instances: u32,
    tick_ms: u32,
    request_timeout_ms: u32,
    wait_for_place_ms: u32,
    connections: u32,
    header_timeout_ms: u32,
    idle_timeout_ms: u32,
    body_timeout_ms: u32,
    header_bytes: u32,
    headers: u32,
    outgoing_connections: u32,
    outgoing_timeout_ms: u32,
    stdout_fd: c_int,
    stderr_fd: c_int,
    request_body_bytes: u64,
    environment: *const hr_text,
    environment_count: usize,
    arguments: *const hr_text,
    argument_count: usize,
    outgoing: *const hr_http_authority,
    outgoing_count: usize,
    outgoing_ca_pem: hr_text,
    certificate_pem: hr_text,
    key_pem: hr_text,
    event: Option<unsafe extern "C" fn(*mut c_void, u32, *const c_char, usize)>,
    event_user: *mut c_void,
    counters: *mut u64,
}

/// What happens to requests and connections: the numbers of `enum hr_http_kind`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Connection,
    Request,
    BadRequest,
    Rejected,
    Trapped,
    TimedOut,
    OutOfMemory,
    GuestFailed,
    ClientGone,
    ClientTooSlow,
    TlsFailed,
    Outgoing,
    OutgoingDenied,
    AcceptFailed,
}
const KINDS: usize = 14;

pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) table_elements: u64,
    pub(crate) request_timeout: Duration,
    pub(crate) wait_for_place: Duration,
    pub(crate) header_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) outgoing_timeout: Duration,
    pub(crate) header_bytes: usize,
    pub(crate) headers: usize,
    pub(crate) request_body_bytes: u64,
}

struct Listener {
    call: Option<unsafe extern "C" fn(*mut c_void, u32, *const c_char, usize)>,
    user: *mut c_void,
}
// SAFETY: the C++ side promises that its function may be called from any thread.
unsafe impl Send for Listener {}
unsafe impl Sync for Listener {}

/// What all requests of a server share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) proxy: ProxyPre<Guest>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) arguments: Vec<String>,
    pub(crate) stdout: Option<OutputFile>,
    pub(crate) stderr: Option<OutputFile>,
    pub(crate) tls: Option<tokio_rustls::TlsAcceptor>,
    pub(crate) outgoing: HashMap<String, SocketAddr>,
    pub(crate) outgoing_places: Arc<Semaphore>,
    pub(crate) connector: Option<tokio_rustls::TlsConnector>,
    listener: Listener,
    /// The C++ side's, which outlives the server.
    counters: &'static [AtomicU64; KINDS],
}

impl Shared {
    pub(crate) fn count(&self, kind: Kind) {
        self.counters[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts it, and tells the C++ side why.
    pub(crate) fn report(&self, kind: Kind, text: &str) {
        self.count(kind);
        if let Some(call) = self.listener.call {
            // SAFETY: the C++ side's contract; the text is read during the call only.
            unsafe { call(self.listener.user, kind as u32, text.as_ptr().cast(), text.len()) };
        }
    }
}

/// Advances the engine's epoch while guests run. A thread of its own: guests that compute may hold all of tokio's.
pub(crate) struct Ticker {
    engine: Engine,
    tick: Duration,
    running: AtomicUsize,
    stop: AtomicBool,
    asleep: Mutex<()>,
    wake: Condvar,
}

impl Ticker {
    pub(crate) fn run(self: &Arc<Self>) -> Ticking {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.notify();
        }
        Ticking(self.clone())
    }

    fn notify(&self) {
        drop(self.asleep.lock());
        self.wake.notify_one();
    }

    fn work(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) != 0 {
                std::thread::sleep(self.tick);
                self.engine.increment_epoch();
                continue;
            }
            let Ok(guard) = self.asleep.lock() else { return };
            let nothing = |_: &mut ()| self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst);
            drop(self.wake.wait_while(guard, nothing));
        }
    }
}

pub(crate) struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct HttpServer {
    shared: Arc<Shared>,
    /// None once it has stopped.
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    accepting: Option<tokio::task::JoinHandle<JoinSet<()>>>,
    ticking: Option<JoinHandle<()>>,
}

/// # Safety
/// `text.data` points to `text.size` bytes, which live as long as the result is used.
pub(crate) unsafe fn bytes_of<'a>(text: &hr_text) -> &'a [u8] {
    if text.data.is_null() {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(text.data.cast(), text.size) }
}

/// # Safety
/// As for `bytes_of`.
pub(crate) unsafe fn string_of(text: &hr_text) -> Result<String> {
    // SAFETY: the caller's contract.
    Ok(String::from_utf8(unsafe { bytes_of(text) }.to_vec())?)
}

/// # Safety
/// `first` points to `count` items, or is null.
pub(crate) unsafe fn list<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// "NAME=VALUE"
///
/// # Safety
/// As for `bytes_of`.
pub(crate) unsafe fn variable(text: &hr_text) -> Result<(String, String)> {
    // SAFETY: the caller's contract.
    match unsafe { string_of(text) }?.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => bail!("a variable without ="),
    }
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

fn pooled(config: &Config, settings: &hr_http_settings) -> Result<Config> {
    let places = settings.places;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(places)
        .total_core_instances(places * settings.core_instances)
        // The heaps of garbage-collected guests come out of the same pool.
        .total_memories(places * (settings.memories + 1))
        .total_gc_heaps(places)
        .total_tables(places * settings.tables)
        .total_stacks(places)
        .max_core_instances_per_component(settings.core_instances)
        .max_memories_per_component(settings.memories)
        .max_tables_per_component(settings.tables)
        .max_memories_per_module(1)
        .max_tables_per_module(settings.tables)
        .table_elements(settings.table_elements as usize)
        .max_memory_size(usize::try_from(settings.memory_bytes)?)
        .linear_memory_keep_resident(usize::try_from(settings.keep_resident_bytes)?);
    let mut config = config.clone();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Ok(config)
}

fn prepare(engine: &Engine, artifact: &[u8]) -> Result<ProxyPre<Guest>> {
    // SAFETY: the C++ side vouches for the artifact, as for those of modules.
    let component = unsafe { Component::deserialize(engine, artifact) }.context("cannot load the compiled component")?;
    let mut linker = Linker::new(engine);
    // More than the world has, because what language runtimes are made with imports it; of files and sockets there are none.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    let instance = linker.instantiate_pre(&component).context("the component imports what is not there")?;
    ProxyPre::new(instance).context("the component does not answer HTTP requests (wasi:http/incoming-handler)")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn acceptor(certificates: &[u8], key: &[u8]) -> Result<Option<tokio_rustls::TlsAcceptor>> {
    if certificates.is_empty() && key.is_empty() {
        return Ok(None);
    }
    let chain = CertificateDer::pem_slice_iter(certificates).collect::<std::result::Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config).into()))
}

fn connector(authorities: &[u8]) -> Result<Option<tokio_rustls::TlsConnector>> {
    if authorities.is_empty() {
        return Ok(None);
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(Arc::new(config).into()))
}

/// # Safety
/// `fd` is an open descriptor, or negative.
unsafe fn output(fd: c_int) -> Result<Option<OutputFile>> {
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: the caller's contract.
    let own = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    Ok(Some(OutputFile::new(own.into())))
}

/// Which part of `hr_http_server_new` failed: the numbers of `enum hr_http_problem`.
#[repr(u32)]
enum Part {
    Settings = 1,
    Engine,
    Component,
    Tls,
    System,
}

type Made<T> = std::result::Result<T, (Part, wasmtime::Error)>;

/// # Safety
/// As for `hr_http_server_new`.
unsafe fn make(
    config: &wasm_config_t,
    settings: &hr_http_settings,
    artifact: &[u8],
    listener: Option<std::net::TcpListener>,
) -> Made<HttpServer> {
    let settings_problem = |problem| (Part::Settings, problem);
    let engine = pooled(settings_of(config), settings)
        .and_then(|config| Engine::new(&config))
        .map_err(|problem| (Part::Engine, problem))?;
    let proxy = prepare(&engine, artifact).map_err(|problem| (Part::Component, problem))?;
    // SAFETY: the caller's contract, here and below.
    let tls = unsafe { acceptor(bytes_of(&settings.certificate_pem), bytes_of(&settings.key_pem)) };
    let tls = tls.map_err(|problem| (Part::Tls, problem.context("cannot use the certificate or its key")))?;
    let connector = unsafe { connector(bytes_of(&settings.outgoing_ca_pem)) };
    let connector = connector.map_err(|problem| (Part::Tls, problem.context("cannot use the certificates to trust")))?;
    let arguments: Result<Vec<_>> =
        unsafe { list(settings.arguments, settings.argument_count) }.iter().map(|text| unsafe { string_of(text) }).collect();
    let environment: Result<Vec<_>> = unsafe { list(settings.environment, settings.environment_count) }
        .iter()
        .map(|text| unsafe { variable(text) })
        .collect();
    let outgoing: Result<HashMap<_, _>> = unsafe { list(settings.outgoing, settings.outgoing_count) }
        .iter()
        .map(|entry| {
            let (name, address) = unsafe { (string_of(&entry.name)?, string_of(&entry.address)?) };
            let address = address.parse::<SocketAddr>().with_context(|| format!("{address} is no address with a port"))?;
            Ok((name.to_ascii_lowercase(), address))
        })
        .collect();
    let ticker = Arc::new(Ticker {
        engine,
        tick: millis(settings.tick_ms),
        running: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        asleep: Mutex::new(()),
        wake: Condvar::new(),
    });
    let system = |problem: std::io::Error| (Part::System, wasmtime::Error::from(problem));
    let shared = Arc::new(Shared {
        limits: Limits {
            memory_bytes: settings.memory_bytes,
            table_elements: settings.table_elements.into(),
            request_timeout: millis(settings.request_timeout_ms),
            wait_for_place: millis(settings.wait_for_place_ms),
            header_timeout: millis(settings.header_timeout_ms),
            idle_timeout: millis(settings.idle_timeout_ms),
            body_timeout: millis(settings.body_timeout_ms),
            outgoing_timeout: millis(settings.outgoing_timeout_ms),
            header_bytes: settings.header_bytes as usize,
            headers: settings.headers as usize,
            request_body_bytes: settings.request_body_bytes,
        },
        proxy,
        places: Arc::new(Semaphore::new(settings.places as usize)),
        ticker: ticker.clone(),
        environment: environment.map_err(settings_problem)?,
        arguments: arguments.map_err(settings_problem)?,
        stdout: unsafe { output(settings.stdout_fd) }.map_err(settings_problem)?,
        stderr: unsafe { output(settings.stderr_fd) }.map_err(settings_problem)?,
        tls,
        outgoing: outgoing.map_err(settings_problem)?,
        outgoing_places: Arc::new(Semaphore::new(settings.outgoing_connections as usize)),
        connector,
        listener: Listener { call: settings.event, user: settings.event_user },
        // SAFETY: the caller's contract; an AtomicU64 is laid out as a u64 that is aligned to eight bytes.
        counters: unsafe { &*settings.counters.cast() },
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads as usize)
        .max_blocking_threads(1)
        .thread_name("wasi-http")
        .enable_all()
        .build()
        .map_err(system)?;
    let listener = match listener {
        Some(listener) => {
            listener.set_nonblocking(true).map_err(system)?;
            let _inside = runtime.enter();
            Some(TcpListener::from_std(listener).map_err(system)?)
        }
        None => None,
    };
    let ticking = std::thread::Builder::new().name("wasi-http-tick".into()).spawn(move || ticker.work()).map_err(system)?;
    let (stop, stopped) = watch::channel(false);
    let accepting =
        listener.map(|listener| runtime.spawn(accept(shared.clone(), listener, settings.connections as usize, stopped)));
    Ok(HttpServer { shared, runtime: Some(runtime), stop, accepting, ticking: Some(ticking) })
}

/// Takes clients until the server stops. Returns those that are still there.
async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    connections: usize,
    mut stop: watch::Receiver<bool>,
) -> JoinSet<()> {
    let places = Arc::new(Semaphore::new(connections));
    let mut clients = JoinSet::new();
    let stopped = stop.clone();
    let mut stopping = std::pin::pin!(stop.wait_for(|stop| *stop));
    loop {
        while clients.try_join_next().is_some() {}
        // Those for whom there is no place wait in the kernel's queue.
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            _ = &mut stopping => return clients,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                shared.count(Kind::Connection);
                let (shared, stop) = (shared.clone(), stopped.clone());
                clients.spawn(async move {
                    let _place = place;
                    serve(shared, stream, stop).await;
                });
            }
            Err(problem) => {
                shared.report(Kind::AcceptFailed, &problem.to_string());
                // Out of descriptors or memory: the next try would fail at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl HttpServer {
    /// None once it has stopped.
    pub(crate) fn running(&self) -> Option<(&Runtime, &Arc<Shared>)> {
        self.runtime.as_ref().map(|runtime| (runtime, &self.shared))
    }

    /// Returns how many requests were given up.
    fn stop(&mut self, grace: Duration) -> u64 {
        let Some(runtime) = self.runtime.take() else { return 0 };
        self.stop.send_replace(true);
        let accepting = self.accepting.take();
        let running = || self.shared.ticker.running.load(Ordering::SeqCst);
        let left = runtime.block_on(async {
            let mut clients = match accepting {
                Some(task) => task.await.unwrap_or_default(),
                None => JoinSet::new(),
            };
            let leave = async {
                while clients.join_next().await.is_some() {}
                // Guests may do more after their answer.
                while running() != 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let _ = tokio::time::timeout(grace, leave).await;
            // Whoever is still there goes with `clients`.
            running()
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
        self.shared.ticker.stop.store(true, Ordering::SeqCst);
        self.shared.ticker.notify();
        if let Some(thread) = self.ticking.take() {
            let _ = thread.join();
        }
        left as u64
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Takes `config` and `listener_fd`, also when it fails. Returns the server, or null with `*part` and `*error` set.
///
/// # Safety
/// `config` comes from `wasm_config_new`; all pointers of `settings` are valid during the call, and its event function for
/// the server's life; `listener_fd` is a listening TCP socket, or -1 to serve calls only; `part` and `error` point to
/// writable memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hr_http_server_new(
    config: Option<Box<wasm_config_t>>,
    settings: *const hr_http_settings,
    artifact: *const u8,
    artifact_size: usize,
    listener_fd: c_int,
    part: *mut u32,
    error: *mut *mut wasmtime_error_t,
) -> Option<Box<HttpServer>> {
    if part.is_null() || error.is_null() {
        return None;
    }
    // SAFETY: the caller's contract, here and below.
    let listener = (listener_fd >= 0).then(|| unsafe { std::net::TcpListener::from_raw_fd(listener_fd) });
    let made = match (config, settings.is_null() || artifact.is_null()) {
        (Some(config), false) => unsafe {
            make(&config, &*settings, std::slice::from_raw_parts(artifact, artifact_size), listener)
        },
        _ => Err((Part::Settings, wasmtime::Error::msg("a null pointer"))),
    };
    match made {
        Ok(server) => Some(Box::new(server)),
        Err((which, problem)) => {
            unsafe {
                *part = which as u32;
                *error = Box::into_raw(Box::new(wasmtime_error_t::from(problem)));
            }
            None
        }
    }
}

/// Stops accepting, gives the requests that run `grace_ms`, and drops what is left. Returns how many that were; 0 when it had
/// stopped before.
///
/// # Safety
/// `server` is null or comes from `hr_http_server_new`; nobody else stops or frees it meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hr_http_server_stop(server: *mut HttpServer, grace_ms: u32) -> u64 {
    // SAFETY: the caller's contract.
    unsafe { server.as_mut() }.map_or(0, |server| server.stop(millis(grace_ms)))
}

/// # Safety
/// `server` is null or comes from `hr_http_server_new`; nobody uses it afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hr_http_server_free(server: *mut HttpServer) {
    if !server.is_null() {
        // SAFETY: the caller's contract.
        drop(unsafe { Box::from_raw(server) });
    }
}
