//! Sources made of GStreamer: a camera behind RTSP or HTTP or at this machine, a test picture, a looped file, a pipeline
//! of the operator's own. They start and stop sessions and decide
//! nothing: what happens after an end is the supervisor's business.

mod arrival;
mod bus;
mod chain;
mod color;
mod custom;
mod decoder;
mod deinterlace;
mod dial;
mod digits;
mod fallback;
mod gate;
mod graph;
mod knock;
mod lessons;
mod local;
mod reach;
mod report;
mod sample;
mod session;
mod still;
mod support;
mod tap;
mod tls;
mod v4l2;
mod web;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camring_ring::frame::Reason;
use crossbeam_channel::Sender;
use gio::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use crate::source::{FrameSink, FrameSource, Loan, Progress, RetryClass, RetryReason, Session, SourceEvent};
use bus::Subject;
use graph::{Camera, SinkPlace, Tls};
use lessons::Lessons;
use reach::Endpoint;
use report::Reporter;

pub use custom::{CustomSource, LaunchFault, examine};
pub use decoder::Device;
pub use deinterlace::Deinterlace;
pub use gate::OnCorrupt;
pub use local::{FileSource, TestSource};
pub use still::Stillness;
pub use support::{CodecSupport, Support, support};
pub use tap::{Arrived, Heard, Tap, Unit};
pub use tls::TlsOptions;
pub use v4l2::V4l2Source;
pub use web::WebSource;

/// How packets travel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Transport {
    /// Inside the RTSP connection; use unless the camera cannot.
    #[default]
    Tcp,
    /// One datagram a packet; loses packets on a bad network.
    Udp,
    /// One stream for many receivers.
    Multicast,
    /// RTSP inside HTTP, through proxies.
    Http,
    /// UDP first, TCP when it is refused or nothing arrives (remembered until the process ends); never multicast.
    Auto,
}

impl Transport {
    /// The words of rtspsrc's `protocols`.
    fn protocols(self, tcp_only: bool) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Multicast => "udp-mcast",
            Self::Http => "tcp+http",
            Self::Auto if tcp_only => "tcp",
            // Its own default would try a group before TCP, and a host without a route to it would not get as far.
            Self::Auto => "udp+tcp",
        }
    }

    /// The address as rtspsrc wants it, which takes the tunnel from the scheme.
    fn location(self, url: &str) -> String {
        match (self, url.split_once("://")) {
            (Self::Http, Some((scheme @ ("rtsp" | "rtsps"), rest))) => format!("{scheme}h://{rest}"),
            _ => url.to_owned(),
        }
    }

    /// Whether packets come as datagrams, and may be lost on the way.
    fn is_datagrams(self) -> bool {
        match self {
            Self::Tcp | Self::Http => false,
            Self::Udp | Self::Multicast | Self::Auto => true,
        }
    }

    /// What may keep packets away that the camera says it sends.
    fn advice(self) -> &'static str {
        match self {
            Self::Multicast => {
                "is there a route to the group, and does the network pass it on? Or set transport = \"tcp\""
            }
            _ => "does a firewall keep them away? Or set transport = \"tcp\"",
        }
    }
}

/// What decides where a picture ends in the packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AccessUnits {
    /// The marker bit, until the camera is seen to mark every slice; then as `Parse`.
    #[default]
    Auto,
    /// The RTP marker bit; costs no delay.
    Marker,
    /// The parser; costs one frame interval of delay.
    Parse,
}

/// Everything about one camera that a session needs.
#[derive(Clone, Debug)]
pub struct RtspSourceConfig {
    /// Where the stream is; without user and password in it.
    pub url: String,
    /// User to log in with.
    pub user: Option<String>,
    /// Password to log in with.
    pub password: Option<SecretString>,
    /// How packets travel.
    pub transport: Transport,
    /// How long to wait for a packet that is late or lost; costs no delay without loss.
    pub jitter_buffer: Duration,
    /// Longest wait for the connection and for each answer.
    pub request_timeout: Duration,
    /// What the camera's certificate must look like (`rtsps://`).
    pub tls: TlsOptions,
    /// Which decoders may be used.
    pub device: Device,
    /// Threads of a software decoder; 0 = chosen by size, 1 = lowest latency.
    pub threads: u32,
    /// What happens to pictures between a loss and the next keyframe.
    pub on_corrupt: OnCorrupt,
    /// How long a keyframe is waited for before pictures are shown with TAINTED set; ten times as long while keyframes are
    /// sent and lost.
    pub keyframe_wait: Duration,
    /// What decides where a picture ends.
    pub access_units: AccessUnits,
    /// What happens to interlaced pictures.
    pub deinterlace: Deinterlace,
    /// Name we give ourselves; `None` = GStreamer's.
    pub user_agent: Option<String>,
}

impl RtspSourceConfig {
    /// The defaults of `config/camring.toml` for a camera at `url`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            user: None,
            password: None,
            transport: Transport::Tcp,
            jitter_buffer: Duration::from_millis(100),
            request_timeout: Duration::from_secs(5),
            tls: TlsOptions::default(),
            device: Device::Auto,
            threads: 0,
            on_corrupt: OnCorrupt::Drop,
            keyframe_wait: Duration::from_secs(10),
            access_units: AccessUnits::Auto,
            deinterlace: Deinterlace::Off,
            user_agent: None,
        }
    }

    /// Where the camera is.
    ///
    /// # Errors
    ///
    /// A URL that is none, that is not RTSP, or that holds a user: the message never repeats it.
    fn endpoint(&self) -> Result<Endpoint, RetryReason> {
        let wrong = |message: &str| RetryReason {
            reason: Reason::Config,
            class: RetryClass::Permanent,
            message: message.to_owned(),
        };
        let expected = "the camera's url cannot be read; expected rtsp://HOST[:PORT]/PATH";
        let (scheme, rest) = self.url.split_once("://").ok_or_else(|| wrong(expected))?;
        if !scheme.starts_with("rtsp") {
            return Err(wrong("the camera's url is not RTSP; expected rtsp:// or rtsps://"));
        }
        if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return Err(wrong("the camera's url holds a user; set user and password apart from it"));
        }
        let tls = scheme.starts_with("rtsps");
        let address =
            gio::NetworkAddress::parse_uri(&self.url, if tls { 322 } else { 554 }).map_err(|_| wrong(expected))?;
        let (host, port) = (address.hostname(), address.port());
        if host.is_empty() || port == 0 {
            return Err(wrong(expected));
        }
        Ok(Endpoint { host: host.into(), port, tls, speaks: "RTSP" })
    }

    fn secrets(&self) -> Vec<SecretString> {
        self.password.iter().map(|password| SecretString::from(password.expose_secret())).collect()
    }
}

/// Starts GStreamer once per process; the first time on a machine it looks through every plugin, which may take long.
///
/// Call it before the time of a session is counted: a process that is replaced meanwhile leaves no list of plugins,
/// and the next one begins anew.
///
/// # Errors
///
/// GStreamer cannot start; says why.
pub fn init() -> Result<(), RetryReason> {
    // GLib would keep up to eight threads of a session that is over for 15 s, each with a stack and a cache of its heap, and
    // how many depends on how sessions overlap.
    gst::glib::ThreadPool::set_max_unused_threads(Some(0));
    gst::init().map_err(|error| RetryReason {
        reason: Reason::Internal,
        class: RetryClass::Permanent,
        message: format!("GStreamer does not start: {error}"),
    })
}

/// A camera behind RTSP.
pub struct RtspSource {
    config: RtspSourceConfig,
    lessons: Arc<Lessons>,
    tap: Option<Arc<Tap>>,
}

impl RtspSource {
    /// A camera; nothing happens before [`FrameSource::start`].
    #[must_use]
    pub fn new(config: RtspSourceConfig) -> Self {
        Self { config, lessons: Arc::new(Lessons::new()), tap: None }
    }

    /// The same, and `tap` hears everything that its sessions show of the stream.
    #[must_use]
    pub fn tapped(config: RtspSourceConfig, tap: Arc<Tap>) -> Self {
        Self { tap: Some(tap), ..Self::new(config) }
    }
}

impl FrameSource for RtspSource {
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason> {
        init()?;
        let endpoint = self.config.endpoint()?;
        if let Some(tap) = &self.tap {
            tap.begin(self.lessons.parse_units.load(Ordering::Relaxed));
        }
        let reporter = Arc::new(Reporter::new(events, self.config.secrets()));
        let camera = Arc::new(Camera {
            config: self.config.clone(),
            tls: if endpoint.tls { Tls::On(tls::Refusal::default()) } else { Tls::Off },
            endpoint,
            lessons: self.lessons.clone(),
            reporter: reporter.clone(),
            progress: progress.clone(),
            decoder_failed: Arc::default(),
            hardware: AtomicBool::new(false),
            sink: Mutex::new(SinkPlace::Waiting(sink)),
            offer: Mutex::default(),
            tap: self.tap.clone(),
        });
        let pipeline = graph::build(&camera)?;
        let owner = camera.clone();
        let let_go = Box::new(move || owner.let_go());
        session::start(pipeline, Subject::Camera(camera), let_go, reporter, progress)
    }

    fn twin(&self) -> Option<Box<dyn FrameSource>> {
        // Who looks on looks at one session.
        Some(Box::new(Self { config: self.config.clone(), lessons: self.lessons.clone(), tap: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint, RetryReason> {
        RtspSourceConfig::new(url).endpoint()
    }

    #[test]
    fn urls_name_host_port_and_encryption() {
        let named = |url| endpoint(url).map(|endpoint| (endpoint.to_string(), endpoint.tls)).expect(url);
        assert_eq!(named("rtsp://10.0.0.21/stream1"), ("10.0.0.21:554".into(), false));
        assert_eq!(named("rtsps://cam.example:9000/?a=b@c"), ("cam.example:9000".into(), true));
        assert_eq!(named("rtspst://[fe80::1]/"), ("[fe80::1]:322".into(), true));
    }

    #[test]
    fn urls_that_cannot_be_used_are_refused_without_being_repeated() {
        for url in
            ["", "front", "http://10.0.0.1/", "rtsp://", "rtsp:///x", "rtsp://u:p@10.0.0.1/x", "rtsp://h:99999/x"]
        {
            let error = endpoint(url).expect_err(url);
            assert_eq!((error.reason, error.class), (Reason::Config, RetryClass::Permanent));
            assert!(url.len() <= "rtsp://".len() || !error.message.contains(url), "{}", error.message);
        }
    }

    #[test]
    fn only_the_tunnel_changes_the_address() {
        assert_eq!(Transport::Http.location("rtsp://h:80/x"), "rtsph://h:80/x");
        assert_eq!(Transport::Http.location("rtsps://h/x"), "rtspsh://h/x");
        assert_eq!(Transport::Auto.location("rtsp://h/x"), "rtsp://h/x");
    }

    #[test]
    fn a_source_never_prints_its_password() {
        let config = RtspSourceConfig { password: Some("s3cr3t".into()), ..RtspSourceConfig::new("rtsp://h/") };
        assert!(!format!("{config:?}").contains("s3cr3t"));
    }
}
