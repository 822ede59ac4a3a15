//! The RTSP server of the simulated camera: own thread, own main context, gone when dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use gio::prelude::SocketExtManual;
use gst::glib;
use gst::prelude::*;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{
    RTSPAddressPool, RTSPAuth, RTSPFilterResult, RTSPMedia, RTSPMediaFactory, RTSPServer, RTSPToken,
};
use secrecy::ExposeSecret;

use super::config::{AuthScheme, Login, SimConfig, StreamConfig};
use super::encoder::{Codec, Markers, Parameters};
use super::feed::{Counts, Feed, Stop, Stream};
use super::interposer::{Datagrams, Faults, Interposer, Taps};
use super::script::Transport;
use super::{ListenRefusal, SimError, jpeg, marker, times};

/// How long a stop may take before the server's thread is left behind.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// The role that the one user has.
const ROLE: &str = "viewer";

/// A running simulated camera; stops when dropped.
#[derive(Debug)]
pub struct SimServer {
    urls: Vec<String>,
    port: u16,
    run_id: u16,
    counts: Arc<Counts>,
    /// In front of a camera with a fault script.
    interposer: Option<Interposer>,
    context: glib::MainContext,
    stopping: Arc<AtomicBool>,
    stopped: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl SimServer {
    /// Starts the camera; when this returns, clients can connect.
    ///
    /// Takes about 0.1 s per stream of 1920x1080: the scene is prepared first.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, which element is missing, or why the address cannot be listened on.
    pub fn start(config: SimConfig) -> Result<Self, SimError> {
        Self::start_with(config, None)
    }

    /// Starts a camera to which a script happens; it serves the script's transport only.
    ///
    /// # Errors
    ///
    /// As [`SimServer::start`].
    pub fn start_scripted(config: SimConfig, faults: Faults) -> Result<Self, SimError> {
        Self::start_with(config, Some(faults))
    }

    fn start_with(config: SimConfig, faults: Option<Faults>) -> Result<Self, SimError> {
        config.check()?;
        gst::init()?;
        check_elements(&config.streams)?;
        let run_id = fastrand::u16(1..);
        let counts = Arc::new(Counts::default());
        let is_udp = faults.as_ref().is_some_and(|faults| faults.script.transport == Transport::Udp);
        let taps = Taps { datagrams: is_udp.then(Arc::default), ..Taps::default() };
        let feeds = Feeds { datagrams: taps.datagrams.clone(), ..Feeds::default() };
        let server = RTSPServer::new();
        let mounts = server.mount_points().ok_or_else(|| glib::bool_error!("the server has no mount points"))?;
        let group = config.multicast.map(|group| group_of(group, config.streams.len())).transpose()?;
        for stream in &config.streams {
            let stream =
                Arc::new(Stream::new(stream.clone(), run_id, Arc::clone(&counts), Arc::clone(&taps.pictures))?);
            let mount = stream.config.mount.clone();
            let factory = factory(stream, is_guarded(&config), feeds.clone());
            factory.set_address_pool(group.as_ref());
            mounts.add_factory(&mount, factory);
        }
        server.set_auth(is_guarded(&config).then(|| auth(&config)).as_ref());
        // Behind a script, the server itself is where only the interposer finds it.
        let own = faults.as_ref().map_or(config.listen, |_| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (source, port) = listen(&server, own)?;
        let context = glib::MainContext::new();
        source.attach(Some(&context));
        let stopping = Arc::new(AtomicBool::new(false));
        let (ended, stopped) = crossbeam_channel::bounded(1);
        let service = Service { server, source, context: context.clone(), stopping: Arc::clone(&stopping), feeds };
        let thread = std::thread::Builder::new().name("sim-rtsp".to_owned()).spawn(move || {
            service.run();
            drop(ended);
        })?;
        let (urls, interposer, thread) = (Vec::new(), None, Some(thread));
        let mut camera = Self { urls, port, run_id, counts, interposer, context, stopping, stopped, thread };
        if let Some(faults) = faults {
            let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let interposer = Interposer::start(config.listen, behind, faults, taps)?;
            (camera.port, camera.interposer) = (interposer.port(), Some(interposer));
        }
        let scheme = if config.certificate.is_some() { "rtsps" } else { "rtsp" };
        let url = |stream: &StreamConfig| url(scheme, config.listen.ip(), camera.port, &stream.mount);
        camera.urls = config.streams.iter().map(url).collect();
        Ok(camera)
    }

    /// URL of the first stream; never with credentials in it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.urls[0]
    }

    /// URLs of all streams, in the order of the configuration.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The port that is listened on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The run id in every stamp of this server; random, never 0.
    #[must_use]
    pub fn run_id(&self) -> u16 {
        self.run_id
    }

    /// Pictures handed to encoders since the start, all streams together.
    #[must_use]
    pub fn frames_pushed(&self) -> u64 {
        self.counts.pushed.load(Ordering::Relaxed)
    }

    /// Pictures that were due while a client was there but not made: the encoder or this host was too slow, or the
    /// client had not yet said PLAY. Each is a gap of one in the frame numbers.
    #[must_use]
    pub fn frames_skipped(&self) -> u64 {
        self.counts.skipped.load(Ordering::Relaxed)
    }

    /// Disconnects all clients, closes the port and ends all threads; waits at most 5 s.
    ///
    /// # Errors
    ///
    /// [`SimError::Stop`] when the deadline passed; the thread is then left to itself.
    pub fn stop(mut self) -> Result<(), SimError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), SimError> {
        let interposer = self.interposer.take().map_or(Ok(()), |mut interposer| interposer.shut_down());
        self.shut_down_server().and(interposer)
    }

    fn shut_down_server(&mut self) -> Result<(), SimError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stopping.store(true, Ordering::Release);
        self.context.wakeup();
        match self.stopped.recv_timeout(STOP_DEADLINE) {
            Err(RecvTimeoutError::Timeout) => Err(SimError::Stop(STOP_DEADLINE)),
            // The channel closes as the last act of the thread, or when it panicked.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().map_err(|_| SimError::Panicked),
        }
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "the simulated camera did not stop cleanly");
        }
    }
}

fn check_elements(streams: &[StreamConfig]) -> Result<(), SimError> {
    let needed = streams.iter().flat_map(|stream| stream.codec.elements());
    match needed.into_iter().find(|(element, _)| gst::ElementFactory::find(element).is_none()) {
        Some((element, package)) => Err(SimError::MissingElement { element, package }),
        None => Ok(()),
    }
}

/// After so long without an answer to what was sent, a connection is given up: gst-rtsp-server would wait for as long as
/// the kernel sends again, which is minutes, and meanwhile starve every other client of the stream.
const UNANSWERED_MS: u32 = 4000;

/// Opens the port; the source serves it once it is attached to a context.
fn listen(server: &RTSPServer, address: SocketAddr) -> Result<(glib::Source, u16), SimError> {
    server.set_address(&address.ip().to_string());
    server.set_service(&address.port().to_string());
    if let Some(pool) = server.thread_pool() {
        // Clients are served by the thread of `Service`, which ends with the server.
        pool.set_max_threads(0);
    }
    let refused = |error: glib::Error| {
        let refusal = match error.kind() {
            Some(gio::IOErrorEnum::AddressInUse) => ListenRefusal::InUse,
            Some(gio::IOErrorEnum::PermissionDenied) => ListenRefusal::NotPermitted,
            _ => ListenRefusal::Other,
        };
        SimError::Listen { address, refusal, error: error.to_string() }
    };
    let socket = server.create_socket(gio::Cancellable::NONE).map_err(refused)?;
    // Connections inherit it.
    rustix::net::sockopt::set_tcp_user_timeout(&socket, UNANSWERED_MS).map_err(std::io::Error::from)?;
    let bound = socket.local_address()?.downcast::<gio::InetSocketAddress>();
    let port = bound.map_err(|_| glib::bool_error!("the bound port is not known"))?.port();
    let server = server.clone();
    let (conditions, priority) = (glib::IOCondition::IN | glib::IOCondition::HUP, glib::Priority::DEFAULT);
    let let_in = move |socket: &gio::Socket, condition| {
        if let Err(error) = RTSPServer::io_func(socket, condition, &server) {
            tracing::warn!(%error, "a client of the simulated camera is not let in");
        }
        glib::ControlFlow::Continue
    };
    let source = SocketExtManual::create_source(&socket, conditions, gio::Cancellable::NONE, None, priority, let_in);
    Ok((source, port))
}

/// The multicast group with two ports for each stream, for this network only.
fn group_of(group: SocketAddrV4, streams: usize) -> Result<RTSPAddressPool, SimError> {
    let (address, first) = (group.ip().to_string(), group.port());
    // As many as were counted when the configuration was checked.
    let last = u16::try_from(usize::from(first) + 2 * streams - 1).unwrap_or(u16::MAX);
    let pool = RTSPAddressPool::new();
    pool.add_range(&address, &address, first, last, 1)?;
    Ok(pool)
}

fn url(scheme: &str, ip: IpAddr, port: u16, mount: &str) -> String {
    let reachable = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("{scheme}://{}{mount}", SocketAddr::new(reachable, port))
}

/// Whether clients meet the server's guard at all, be it for a login or for TLS.
fn is_guarded(config: &SimConfig) -> bool {
    config.login.is_some() || config.certificate.is_some()
}

fn auth(config: &SimConfig) -> RTSPAuth {
    let auth = RTSPAuth::new();
    auth.set_tls_certificate(config.certificate.as_ref());
    let mut token = RTSPToken::builder().field(gst_rtsp_server::RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE).build();
    match &config.login {
        Some(login) => ask(&auth, login, &token),
        None => auth.set_default_token(Some(&mut token)),
    }
    auth
}

fn ask(auth: &RTSPAuth, login: &Login, token: &RTSPToken) {
    let password = login.password.expose_secret();
    auth.set_realm(Some("camring sim"));
    match login.scheme {
        AuthScheme::Basic => {
            auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Basic);
            auth.add_basic(&RTSPAuth::make_basic(&login.user, password), token);
        }
        AuthScheme::Digest => {
            auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Digest);
            auth.add_digest(&login.user, password, token);
        }
    }
}

/// Makes the pipelines of one stream: one, shared by all its clients.
fn factory(stream: Arc<Stream>, restricted: bool, feeds: Feeds) -> RTSPMediaFactory {
    let factory = RTSPMediaFactory::new();
    factory.set_launch(&launch_line(&stream.config));
    factory.set_shared(true);
    factory.set_latency(0);
    if restricted {
        let may = gst::Structure::builder(ROLE)
            .field(gst_rtsp_server::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
            .field(gst_rtsp_server::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
            .build();
        factory.add_role_from_structure(&may);
    }
    factory.connect_media_configure(move |_, media| {
        if let Err(error) = feeds.begin(&stream, media) {
            tracing::error!(mount = stream.config.mount, %error, "a simulated stream cannot be fed");
        }
    });
    factory
}

/// The pipeline of one stream: source, converter where one is needed, encoder, payloader.
fn launch_line(stream: &StreamConfig) -> String {
    let gop = stream.rate.frames_in(stream.gop);
    let parameters = if stream.has_new_parameters() { Parameters::Change } else { Parameters::Stay };
    let encoder = stream.encoding.launch_line(stream.codec, stream.bits_per_second() / 1000, gop, parameters);
    format!(
        "appsrc name=camera is-live=true format=time do-timestamp=false block=false \
         max-buffers=1 max-bytes=0 max-time=0 ! {encoder}"
    )
}

/// The threads that feed medias; each ends with its media, all end with the server.
#[derive(Clone, Default)]
struct Feeds {
    running: Arc<Mutex<Vec<Running>>>,
    /// What happens to datagrams, in a script about them.
    datagrams: Option<Arc<Datagrams>>,
}

struct Running {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

impl Feeds {
    fn begin(&self, stream: &Arc<Stream>, media: &RTSPMedia) -> Result<(), SimError> {
        let pipeline = media
            .element()
            .downcast::<gst::Bin>()
            .map_err(|_| glib::bool_error!("a launch line of several elements makes a bin"))?;
        let source = pipeline
            .by_name("camera")
            .and_then(|element| element.downcast::<gst_app::AppSrc>().ok())
            .ok_or_else(|| glib::bool_error!("the pipeline has no source"))?;
        let pad = packets(&pipeline)?;
        if stream.config.codec == Codec::Mjpeg && !jpeg::fits_header(stream.config.size) {
            jpeg::state_size(&pad, stream.config.size);
        }
        if stream.config.encoding.markers == Markers::PerSlice {
            marker::mark_slices(&pad);
        }
        if stream.config.codec == Codec::Mpeg4 {
            let encoder = pipeline.by_name("encoder");
            times::keep(&encoder.ok_or_else(|| glib::bool_error!("the pipeline has no encoder"))?);
        }
        if let Some(datagrams) = &self.datagrams {
            datagrams.tap(&pad);
        }
        stream.change_parameters(&source, &pipeline);
        source.set_caps(Some(stream.caps()));
        let stop = Arc::new(Stop::default());
        let at_end = Arc::clone(&stop);
        media.connect_unprepared(move |_| at_end.request());
        let feed = Feed::new(Arc::clone(stream), source, Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("sim-feed".to_owned()).spawn(move || feed.run())?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, mut alive): (Vec<_>, Vec<_>) =
            running.drain(..).partition(|feed: &Running| feed.thread.is_finished());
        alive.push(Running { stop, thread });
        *running = alive;
        drop(running);
        join(ended);
        Ok(())
    }

    fn end(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.iter().for_each(|feed| feed.stop.request());
        join(running);
    }
}

/// Where a media's packets come from.
fn packets(pipeline: &gst::Bin) -> Result<gst::Pad, glib::BoolError> {
    let pad = pipeline.by_name("pay0").and_then(|payloader| payloader.static_pad("src"));
    pad.ok_or_else(|| glib::bool_error!("the pipeline has no payloader"))
}

fn join(ended: Vec<Running>) {
    for feed in ended {
        if feed.thread.join().is_err() {
            tracing::error!("a thread that fed a simulated stream panicked");
        }
    }
}

/// The server's own thread.
struct Service {
    server: RTSPServer,
    source: glib::Source,
    context: glib::MainContext,
    stopping: Arc<AtomicBool>,
    feeds: Feeds,
}

impl Service {
    fn run(self) {
        let sessions = self.server.session_pool();
        let pool = sessions.clone();
        // Sessions of clients that vanished without a word; RTSP's usual minute is the pool's own default.
        let sweep = glib::timeout_source_new_seconds(2, Some("sim-sessions"), glib::Priority::DEFAULT, move || {
            if let Some(pool) = &pool {
                pool.cleanup();
            }
            glib::ControlFlow::Continue
        });
        sweep.attach(Some(&self.context));
        let served = self.context.with_thread_default(|| {
            while !self.stopping.load(Ordering::Acquire) {
                self.context.iteration(true);
            }
            sweep.destroy();
            self.source.destroy();
            self.server.client_filter(Some(&mut |_, _| RTSPFilterResult::Remove));
            if let Some(pool) = &sessions {
                pool.filter(Some(&mut |_, _| RTSPFilterResult::Remove));
            }
            // What the closing clients left to do, bounded in case something is always ready.
            (0..1000).any(|_| !self.context.iteration(false));
        });
        self.feeds.end();
        if let Err(error) = served {
            tracing::error!(%error, "the simulated camera's main context belongs to another thread");
        }
    }
}
