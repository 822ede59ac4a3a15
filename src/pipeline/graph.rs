//! The element graph of a camera:
//!
//! ```text
//!            pad-added, video only
//!  rtspsrc ----------------------> rtpXdepay -> [au-caps] -> Xparse -> queue -> decoder [-> download]
//!             |                    ^                                   ^        ^            [-> deinterlace] -> appsink
//!             select-stream        packet counter                      numbers  keyframe gate                    sample.rs
//!             accept-certificate   (arrival by PTS)                    (leaky, 250 ms)
//! ```
//!
//! The part right of rtspsrc is built when the stream's codec is known, on rtspsrc's own thread. The queue's thread
//! decodes, converts and publishes. Properties are set only where this GStreamer has them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use camring_ring::frame::Reason;
use gst::glib;
use gst::prelude::*;
use secrecy::ExposeSecret;

use super::arrival::{Arrivals, Ends, PacketCounter};
use super::bus::End;
use super::decoder::{Chosen, Codec, Device, set_threads};
use super::gate::{FindingsTable, GateLink, guard, number_units};
use super::lessons::Lessons;
use super::reach::Endpoint;
use super::report::Reporter;
use super::sample::{Origin, Tail};
use super::tap::{Pads, Tap};
use super::tls::{self, Refusal};
use super::{AccessUnits, RtspSourceConfig, Transport};
use crate::source::{FrameSink, Loan, Progress, RetryClass, RetryReason, SourceEvent};

/// Longest backlog in front of the decoder; older access units are dropped and the gate closes.
const BACKLOG_NS: u64 = 250_000_000;

/// The same for the first [`FIRST_UNITS`]: the first picture opens the decoder and makes the ring, which on a busy
/// machine took longer than the lasting limit and cost every picture up to the second keyframe.
const FIRST_BACKLOG_NS: u64 = 1_000_000_000;

/// Access units after which a session has got over its start.
const FIRST_UNITS: u64 = 50;

/// How long a TEARDOWN may take; 0 would expose us to rtspsrc's own 20 s.
const TEARDOWN_NS: u64 = 500_000_000;

/// Decoder formats in the order of preference, then whatever it can do.
const RAW_CAPS: &str = "video/x-raw, format=(string){ I420, NV12, Y42B, Y444, GRAY8, BGR, RGB, \
    I420_10LE, P010_10LE, I422_10LE }; video/x-raw";

/// The name of rtspsrc in its pipeline.
pub(super) const SOURCE: &str = "camera";

/// Whether the connection is encrypted.
pub(super) enum Tls {
    Off,
    /// Where a refused certificate leaves its reason.
    On(Refusal),
}

/// Where the sink is.
pub(super) enum SinkPlace {
    /// The stream has not begun.
    Waiting(Loan<Box<dyn FrameSink>>),
    /// In the callback of this appsink.
    Running(gst_app::AppSink),
    /// On its way home.
    Gone,
}

/// One session with a camera, as its callbacks see it; holds no reference to the pipeline.
pub(super) struct Camera {
    pub config: RtspSourceConfig,
    pub endpoint: Endpoint,
    pub tls: Tls,
    pub lessons: Arc<Lessons>,
    pub reporter: Arc<Reporter>,
    pub progress: Arc<Progress>,
    /// Set by whoever hears an error of the decoder.
    pub decoder_failed: Arc<AtomicBool>,
    /// Whether `auto` chose a hardware decoder.
    pub hardware: AtomicBool,
    pub sink: Mutex<SinkPlace>,
    /// What the session description offered.
    pub offer: Mutex<Offer>,
    /// Somebody who wants to know more of the stream than its pictures.
    pub tap: Option<Arc<Tap>>,
}

/// What the session description offered.
#[derive(Default)]
pub(super) struct Offer {
    /// A video stream was taken.
    taken: bool,
    /// Encoding of a video stream that we have no entry for.
    unsupported: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Sets a property if this version of the element has it.
pub(super) fn set(element: &gst::Element, name: &str, value: impl Into<glib::Value>) {
    let value = value.into();
    if element.has_property_with_type(name, value.type_()) {
        element.set_property_from_value(name, &value);
    }
}

/// Sets a property by its words, if this version of the element has it.
pub(super) fn set_words(element: &gst::Element, name: &str, words: &str) {
    if element.has_property(name) {
        element.set_property_from_str(name, words);
    }
}

/// Makes an element.
///
/// # Errors
///
/// Its plugin is not installed.
pub(super) fn make(factory: &str) -> Result<gst::Element, RetryReason> {
    gst::ElementFactory::make(factory).build().map_err(|_| RetryReason {
        reason: Reason::Config,
        class: RetryClass::Permanent,
        message: format!(
            "GStreamer has no element {factory} here; install the plugin that holds it (see `camring doctor`)"
        ),
    })
}

/// An appsink without anything behind it; `paced` by the pipeline's clock, or as pictures come.
pub(super) fn new_appsink(paced: bool) -> gst_app::AppSink {
    gst_app::AppSink::builder().sync(paced).async_(paced).qos(false).build()
}

/// Has an appsink hand every sample to `tail` and keep none.
pub(super) fn take_over(appsink: &gst_app::AppSink, mut tail: Tail) {
    if appsink.caps().is_none_or(|caps| caps.is_any()) {
        let caps: gst::Caps = RAW_CAPS.parse().expect("the caps above are well-formed");
        appsink.set_caps(Some(&caps));
    }
    appsink.set_max_buffers(1);
    appsink.set_drop(true);
    appsink.set_enable_last_sample(false);
    appsink.set_wait_on_eos(false);
    appsink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(move |appsink| tail.take(appsink)).build());
}

/// Builds the pipeline of a camera up to rtspsrc; the rest follows when the stream begins.
///
/// # Errors
///
/// A missing element, or TLS options that cannot be used.
pub(super) fn build(camera: &Arc<Camera>) -> Result<gst::Pipeline, RetryReason> {
    let pipeline = gst::Pipeline::new();
    let rtspsrc = make("rtspsrc")?;
    set_words(&rtspsrc, "name", SOURCE);
    set_source(&rtspsrc, camera);
    if let Tls::On(refusal) = &camera.tls {
        tls::configure(&rtspsrc, &camera.config.tls, refusal.clone())?;
    }
    let chooser = camera.clone();
    rtspsrc.connect("select-stream", false, move |values| Some(chooser.select(values).to_value()));
    let (builder, weak) = (camera.clone(), pipeline.downgrade());
    rtspsrc.connect_pad_added(move |_, pad| {
        if let Some(pipeline) = weak.upgrade() {
            builder.on_pad(&pipeline, pad);
        }
    });
    pipeline.add(&rtspsrc).expect("a new pipeline takes a new element");
    Ok(pipeline)
}

fn set_source(rtspsrc: &gst::Element, camera: &Camera) {
    let config = &camera.config;
    let micros = u64::try_from(config.request_timeout.as_micros()).unwrap_or(u64::MAX);
    let latency = config.jitter_buffer.as_millis().min(u128::from(u32::MAX)) as u32;
    set(rtspsrc, "location", config.transport.location(&config.url));
    if let Some(user) = &config.user {
        set(rtspsrc, "user-id", user.as_str());
    }
    if let Some(password) = &config.password {
        set(rtspsrc, "user-pw", password.expose_secret());
    }
    if let Some(agent) = &config.user_agent {
        set(rtspsrc, "user-agent", agent.as_str());
    }
    let tcp_only = camera.lessons.tcp_only.load(Ordering::Relaxed);
    set_words(rtspsrc, "protocols", config.transport.protocols(tcp_only));
    set(rtspsrc, "latency", latency);
    set(rtspsrc, "drop-on-latency", false);
    set_words(rtspsrc, "buffer-mode", "auto");
    set(rtspsrc, "ntp-sync", false);
    set(rtspsrc, "do-retransmission", config.transport.is_datagrams());
    set(rtspsrc, "tcp-timeout", micros);
    set(rtspsrc, "timeout", micros);
    set(rtspsrc, "teardown-timeout", TEARDOWN_NS);
    set(rtspsrc, "udp-reconnect", false);
    set(rtspsrc, "do-rtsp-keep-alive", true);
    set(rtspsrc, "do-rtcp", true);
    set(rtspsrc, "add-reference-timestamp-meta", true);
    set(rtspsrc, "is-live", true);
    set_words(rtspsrc, "backchannel", "none");
}

impl Camera {
    /// `select-stream`: the first video stream that we can decode, and nothing else.
    fn select(&self, values: &[glib::Value]) -> bool {
        let Some(caps) = values.get(2).and_then(|value| value.get::<gst::Caps>().ok()) else { return false };
        let Some(structure) = caps.structure(0) else { return false };
        let encoding = structure.get::<&str>("encoding-name").unwrap_or("(unnamed)");
        if let Some(tap) = &self.tap {
            tap.offered(structure.get::<&str>("media").unwrap_or_default(), encoding);
        }
        let mut offer = lock(&self.offer);
        if structure.get::<&str>("media") != Ok("video") || offer.taken {
            return false;
        }
        offer.taken = Codec::of_encoding(encoding).is_some();
        if !offer.taken {
            offer.unsupported.get_or_insert_with(|| encoding.to_owned());
        }
        offer.taken
    }

    /// Why rtspsrc found no stream that it could set up.
    pub(super) fn no_stream(&self) -> End {
        let offer = lock(&self.offer);
        let endpoint = &self.endpoint;
        match &offer.unsupported {
            _ if offer.taken => End(
                Reason::NoVideo,
                RetryClass::Permanent,
                format!("{endpoint} refuses to send its video over this transport; set another transport"),
            ),
            Some(encoding) => unsupported(encoding),
            None => End(
                Reason::NoVideo,
                RetryClass::Permanent,
                format!("the stream at {endpoint} has no video; check the path of the url"),
            ),
        }
    }

    /// Whether packets come in a plain RTSP connection, neither tunnelled nor encrypted.
    pub(super) fn is_plain_tcp(&self) -> bool {
        let tcp_only = self.lessons.tcp_only.load(Ordering::Relaxed);
        let plain = match self.config.transport {
            Transport::Tcp => true,
            Transport::Auto => tcp_only,
            Transport::Udp | Transport::Multicast | Transport::Http => false,
        };
        plain && matches!(self.tls, Tls::Off)
    }

    /// Gives the sink back and takes no new stream.
    pub(super) fn let_go(&self) {
        let place = std::mem::replace(&mut *lock(&self.sink), SinkPlace::Gone);
        if let SinkPlace::Running(appsink) = place {
            // The old callback, and the sink in it, goes as soon as the streaming thread is out of it.
            appsink.set_callbacks(gst_app::AppSinkCallbacks::builder().build());
        }
    }

    fn on_pad(&self, pipeline: &gst::Pipeline, pad: &gst::Pad) {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let encoding = caps.structure(0).and_then(|structure| structure.get::<String>("encoding-name").ok());
        let encoding = encoding.unwrap_or_else(|| "(unnamed)".into());
        let result = match Codec::of_encoding(&encoding) {
            Some(codec) => self.extend(pipeline, pad, codec),
            None => Err(unsupported(&encoding)),
        };
        if let Err(End(reason, class, sentence)) = result {
            self.reporter.ended(reason, class, &sentence);
        }
    }

    /// Builds everything right of rtspsrc and sets it going.
    fn extend(&self, pipeline: &gst::Pipeline, pad: &gst::Pad, codec: &'static Codec) -> Result<(), End> {
        let config_end = |reason: RetryReason| End(reason.reason, reason.class, reason.message);
        let depay = make(codec.depay).map_err(config_end)?;
        let parse = codec.parse.map(make).transpose().map_err(config_end)?;
        let units = self.unit_caps(codec).map_err(config_end)?;
        let queue = make("queue").map_err(config_end)?;
        set_queue(&queue);
        let chosen = self.choose(codec)?;
        let deinterlace = self.config.deinterlace.element().map_err(config_end)?;
        let links = Links {
            arrivals: Arc::new(Arrivals::knowing(self.lessons.fewest_slices.clone())),
            findings: Arc::new(FindingsTable::new()),
        };
        let mut place = lock(&self.sink);
        let SinkPlace::Waiting(sink) = std::mem::replace(&mut *place, SinkPlace::Gone) else {
            // Stopped meanwhile, or a second stream that nobody asked for.
            return Ok(());
        };
        let tail = Tail::new(sink, links.origin(codec), self.progress.clone(), self.reporter.clone());
        let tail = tail.doubting(self.is_watched(codec) && !self.parses_units());
        let appsink = new_appsink(false);
        take_over(&appsink, tail);
        *place = SinkPlace::Running(appsink.clone());
        drop(place);
        self.probe(&depay, &queue, &chosen.element, codec, links);
        if let (Some(tap), Some(packets), Some(units)) = (&self.tap, depay.static_pad("sink"), queue.static_pad("sink"))
        {
            tap.listen(pad, Pads { packets: &packets, units: &units, start: codec.start });
        }
        if units.is_some() {
            forget_markers(&depay);
        }
        let chain: Vec<gst::Element> = [Some(depay), units, parse, Some(queue), Some(chosen.element), chosen.download]
            .into_iter()
            .flatten()
            .chain(deinterlace)
            .chain([appsink.upcast()])
            .collect();
        self.reporter.event(SourceEvent::Decoder { codec: codec.word.into(), decoder: chosen.name });
        connect(pipeline, pad, &chain).map_err(|error| self.does_not_fit(codec, &error))
    }

    fn does_not_fit(&self, codec: &Codec, error: &glib::BoolError) -> End {
        let word = codec.word;
        match &self.config.device {
            Device::Element(name) => End(
                Reason::Config,
                RetryClass::Permanent,
                format!("decode.device {name} does not decode codec {word}: {error}; use auto or another element"),
            ),
            _ => End(
                Reason::Internal,
                RetryClass::Transient,
                format!("cannot build the pipeline for codec {word}: {error}"),
            ),
        }
    }

    /// Caps that make the parser, not the camera's marker bit, decide where a picture ends.
    fn unit_caps(&self, codec: &Codec) -> Result<Option<gst::Element>, RetryReason> {
        let parse = match self.config.access_units {
            AccessUnits::Marker => false,
            AccessUnits::Parse => true,
            AccessUnits::Auto => self.parses_units(),
        };
        let Some(media) = codec.units.filter(|_| parse) else { return Ok(None) };
        let caps = gst::Caps::builder(media).field("stream-format", "byte-stream").field("alignment", "nal").build();
        let filter = make("capsfilter")?;
        filter.set_property("caps", &caps);
        Ok(Some(filter))
    }

    fn choose(&self, codec: &Codec) -> Result<Chosen, End> {
        let fallen_back = self.config.device == Device::Auto && self.lessons.software.load(Ordering::Relaxed);
        let device = if fallen_back { &Device::Software } else { &self.config.device };
        let chosen =
            codec.choose(device).map_err(|sentence| End(Reason::UnsupportedCodec, RetryClass::Permanent, sentence))?;
        self.hardware.store(chosen.hardware, Ordering::Relaxed);
        set(&chosen.element, "qos", false);
        set_threads(&chosen.element, self.config.threads, 0, 0);
        Ok(chosen)
    }

    /// Whether the camera's markers are believed until they prove wrong.
    fn is_watched(&self, codec: &Codec) -> bool {
        codec.units.is_some() && self.config.access_units == AccessUnits::Auto
    }

    fn parses_units(&self) -> bool {
        self.lessons.parse_units.load(Ordering::Relaxed)
    }

    fn probe(&self, depay: &gst::Element, queue: &gst::Element, decoder: &gst::Element, codec: &Codec, links: Links) {
        let pad = |element: &gst::Element, name: &str| element.static_pad(name).expect("every filter has it");
        let watched = self.is_watched(codec);
        let ends = if watched && !self.parses_units() { Ends::Marker } else { Ends::Settled };
        let (arrivals, progress) = (links.arrivals.clone(), self.progress.clone());
        let counter = PacketCounter::new(arrivals, progress, self.reporter.clone(), codec.start, ends);
        if watched {
            self.watch_markers(&pad(depay, "src"), counter.newest());
        }
        counter.watch(&pad(depay, "sink"));
        number_units(&pad(queue, "sink"), settle(queue));
        let link = GateLink {
            arrivals: links.arrivals,
            findings: links.findings,
            progress: self.progress.clone(),
            decoder_failed: self.decoder_failed.clone(),
        };
        guard(&pad(decoder, "sink"), self.config.on_corrupt, self.config.keyframe_wait, link);
        let (weak, threads) = (decoder.downgrade(), self.config.threads);
        pad(decoder, "sink").add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let (Some(decoder), Some((width, height))) = (weak.upgrade(), info.event().and_then(coded_size)) {
                set_threads(&decoder, threads, width, height);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Notices a camera that marks every slice as the end of a picture, and ends the session to come back wiser.
    ///
    /// `newest` is the RTP time of the newest packet: PTS alone would not do, because pictures that are late together
    /// may share one.
    fn watch_markers(&self, depay_src: &gst::Pad, newest: Arc<AtomicU32>) {
        let (reporter, lessons) = (self.reporter.clone(), self.lessons.clone());
        let (last, last_rtp, suspicion) = (AtomicU64::new(u64::MAX), AtomicU32::new(0), AtomicU64::new(0));
        depay_src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let pts = info.buffer().and_then(|buffer| buffer.pts()).map_or(u64::MAX, gst::ClockTime::nseconds);
            let rtp = newest.load(Ordering::Relaxed);
            let same_pts = last.swap(pts, Ordering::Relaxed) == pts;
            let again = last_rtp.swap(rtp, Ordering::Relaxed) == rtp && same_pts && pts != u64::MAX;
            let suspected = suspect(suspicion.load(Ordering::Relaxed), again);
            suspicion.store(suspected, Ordering::Relaxed);
            if suspected >= SUSPECT_AT && !lessons.parse_units.swap(true, Ordering::Relaxed) {
                let sentence = "the camera marks every slice as a picture (MARKER_PER_SLICE); reconnecting with access_units = \"parse\", which costs one frame interval of delay";
                reporter.ended(Reason::Planned, RetryClass::Transient, sentence);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Suspicion at which a camera is taken to mark slices: ten pictures in two parts each.
const SUSPECT_AT: u64 = 10;

/// Half pictures of one time add to the suspicion, whole ones take away: parameter sets that are marked now and
/// then are no half pictures.
fn suspect(suspicion: u64, again: bool) -> u64 {
    if again { suspicion + 2 } else { suspicion.saturating_sub(1) }
}

/// Takes the marker bit off: the parser would end a picture at each, and with each slice marked at each slice.
fn forget_markers(depay: &gst::Element) {
    let pad = depay.static_pad("src").expect("every filter has it");
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut().filter(|buffer| buffer.flags().contains(gst::BufferFlags::MARKER)) {
            buffer.make_mut().unset_flags(gst::BufferFlags::MARKER);
        }
        gst::PadProbeReturn::Ok
    });
}

fn unsupported(encoding: &str) -> End {
    let known = Codec::words();
    End(
        Reason::UnsupportedCodec,
        RetryClass::Permanent,
        format!("codec {encoding} is not supported; set the camera to one of {known}"),
    )
}

/// Tables that join the two ends of the chain.
struct Links {
    arrivals: Arc<Arrivals>,
    findings: Arc<FindingsTable>,
}

impl Links {
    fn origin(&self, codec: &Codec) -> Origin {
        Origin::Camera {
            arrivals: self.arrivals.clone(),
            findings: self.findings.clone(),
            full_range: codec.full_range,
        }
    }
}

/// Gives the backlog its lasting limit once the session has got over its start.
fn settle(queue: &gst::Element) -> impl Fn(u64) + Send + Sync + 'static {
    let queue = queue.downgrade();
    move |number| {
        if number == FIRST_UNITS
            && let Some(queue) = queue.upgrade()
        {
            set(&queue, "max-size-time", BACKLOG_NS);
        }
    }
}

pub(super) fn set_queue(queue: &gst::Element) {
    set_words(queue, "leaky", "downstream");
    set(queue, "max-size-time", FIRST_BACKLOG_NS);
    set(queue, "max-size-buffers", 0u32);
    set(queue, "max-size-bytes", 0u32);
    set(queue, "silent", true);
}

fn coded_size(event: &gst::Event) -> Option<(i32, i32)> {
    let gst::EventView::Caps(caps) = event.view() else { return None };
    let structure = caps.caps().structure(0)?;
    Some((structure.get("width").ok()?, structure.get("height").ok()?))
}

fn connect(pipeline: &gst::Pipeline, pad: &gst::Pad, chain: &[gst::Element]) -> Result<(), glib::BoolError> {
    pipeline.add_many(chain)?;
    gst::Element::link_many(chain)?;
    chain.iter().rev().try_for_each(gst::Element::sync_state_with_parent)?;
    let depay = chain[0].static_pad("sink").expect("every depayloader has it");
    pad.link(&depay).map(drop).map_err(|error| glib::bool_error!("the stream does not fit its depayloader: {error}"))
}

#[cfg(test)]
impl Camera {
    /// A camera that is nowhere.
    pub(super) fn sample() -> Self {
        let (events, _) = crossbeam_channel::bounded(1);
        Self {
            config: RtspSourceConfig::new("rtsp://10.0.0.21/x"),
            endpoint: Endpoint { host: "10.0.0.21".into(), port: 554, tls: false, speaks: "RTSP" },
            tls: Tls::Off,
            lessons: Arc::new(Lessons::new()),
            reporter: Arc::new(Reporter::new(events, vec![])),
            progress: Arc::default(),
            decoder_failed: Arc::default(),
            hardware: AtomicBool::new(false),
            sink: Mutex::new(SinkPlace::Gone),
            offer: Mutex::default(),
            tap: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(camera: &Camera, media: &str, encoding: &str) -> bool {
        let caps =
            gst::Caps::builder("application/x-rtp").field("media", media).field("encoding-name", encoding).build();
        camera.select(&[0u32.to_value(), 0u32.to_value(), caps.to_value()])
    }

    #[test]
    fn only_the_first_video_stream_with_a_known_codec_is_taken() {
        gst::init().expect("GStreamer");
        let camera = Camera::sample();
        let taken =
            [("audio", "PCMU"), ("video", "H266"), ("application", "H264"), ("video", "H264"), ("video", "JPEG")]
                .map(|(media, encoding)| select(&camera, media, encoding));
        assert_eq!(taken, [false, false, false, true, false]);
        assert_eq!(camera.no_stream().0, Reason::NoVideo);
    }

    #[test]
    fn a_codec_without_an_entry_is_named_with_the_ones_that_have_one() {
        gst::init().expect("GStreamer");
        let camera = Camera::sample();
        assert!(!select(&camera, "video", "H266"));
        let End(reason, class, sentence) = camera.no_stream();
        assert_eq!((reason, class), (Reason::UnsupportedCodec, RetryClass::Permanent));
        assert_eq!(
            sentence,
            "codec H266 is not supported; set the camera to one of h264, h265, mjpeg, vp8, vp9, mpeg4"
        );
    }

    #[test]
    fn slices_marked_as_pictures_are_noticed_and_marked_parameter_sets_are_not() {
        let sliced = (0..40).fold(0, |suspicion, unit| suspect(suspicion, unit % 2 == 1));
        assert!(sliced >= SUSPECT_AT, "{sliced}");
        let parameter_sets = (0..500).map(|unit| unit % 25 < 2);
        let worst = parameter_sets.scan(0, |suspicion, again| {
            *suspicion = suspect(*suspicion, again);
            Some(*suspicion)
        });
        assert!(worst.max().expect("units") < SUSPECT_AT);
    }
}
