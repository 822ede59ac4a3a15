//! The seam between whatever delivers pictures and whatever publishes them; knows no GStreamer.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64};

use camring_ring::frame::{Color, FrameFlags, PixelFormat, Reason, TimeSource};
use crossbeam_channel::Sender;

/// One plane of a borrowed picture.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// The bytes, from the first row to at least the last byte of the last row.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: u32,
}

/// How a decoder laid out a picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SourceLayout {
    /// One plane of luma.
    Gray8,
    /// Y, U, V; chroma halved both ways.
    I420,
    /// Y, U, V; chroma halved across.
    I422,
    /// Y, U, V at full size.
    I444,
    /// Y and interleaved UV; chroma halved both ways.
    Nv12,
    /// As [`I420`](Self::I420), each sample 10 bits in two bytes, little-endian.
    I010,
    /// As [`I422`](Self::I422), each sample 10 bits in two bytes, little-endian.
    I210,
    /// As [`Nv12`](Self::Nv12), each sample in the upper 10 bits of two bytes, little-endian.
    P010,
    /// Packed blue, green, red.
    Bgr,
    /// Packed red, green, blue.
    Rgb,
    /// Anything else; only the [`Fallback`] understands it.
    Other,
}

impl SourceLayout {
    /// The word for it in a frame's metadata.
    #[must_use]
    pub fn pixel_format(self) -> PixelFormat {
        match self {
            Self::Gray8 => PixelFormat::Gray,
            Self::I420 => PixelFormat::I420,
            Self::Nv12 => PixelFormat::Nv12,
            Self::Bgr => PixelFormat::Bgr,
            Self::Rgb => PixelFormat::Rgb,
            Self::I422 | Self::I444 | Self::I010 | Self::I210 | Self::P010 | Self::Other => PixelFormat::Opaque,
        }
    }
}

/// When a picture happened, on the clocks named in docs/glossary.md.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameTiming {
    /// Presentation time within the session, ns.
    pub pts_ns: i64,
    /// Nominal duration, ns; 0 = unknown.
    pub duration_ns: i64,
    /// RTP time of the picture, 90 kHz; 0 when there is no RTP.
    pub rtp_timestamp: u32,
    /// When its last packet arrived, ns of CLOCK_MONOTONIC.
    pub arrival_mono_ns: i64,
    /// The same, ns since 1970.
    pub arrival_real_ns: i64,
    /// When the decoder delivered it, ns of CLOCK_MONOTONIC.
    pub decoded_mono_ns: i64,
    /// The camera's own clock, ns since 1970, when it is known.
    pub source_unix_ns: Option<i64>,
    /// Where `source_unix_ns` comes from; `None` as a word when it is not known.
    pub time_source: Option<TimeSource>,
}

/// One plane of a target.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// The bytes, from the first row to at least the last byte of the last row.
    pub bytes: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

impl PlaneMut<'_> {
    /// The same plane, for a while.
    pub(crate) fn reborrow(&mut self) -> PlaneMut<'_> {
        PlaneMut { bytes: &mut *self.bytes, stride: self.stride }
    }
}

/// Some of a picture's pixels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rect {
    /// Pixels left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Converts and scales pictures where the fast way has no function.
pub trait Fallback {
    /// Writes `part` of the picture, scaled to `size` (width, height), as `format` (`bgr`, `rgb`, `rgba`, `gray` of the
    /// picture's own range, `i420` or `nv12`) into `planes`.
    ///
    /// # Errors
    ///
    /// A sentence that names the format and why it cannot be converted.
    fn convert_into(
        &self,
        format: PixelFormat,
        part: Rect,
        size: (u32, u32),
        planes: &mut [PlaneMut<'_>],
    ) -> Result<(), String>;
}

/// One decoded picture, borrowed from the decoder for the length of one call.
pub struct FrameRef<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How the planes are to be read.
    pub layout: SourceLayout,
    /// The planes, in the layout's order; empty for [`SourceLayout::Other`].
    pub planes: &'a [Plane<'a>],
    /// Colour description, complete: never "unspecified".
    pub color: Color,
    /// Pixel aspect ratio; 0:0 = unknown.
    pub pixel_aspect: (u16, u16),
    /// When it happened.
    pub timing: FrameTiming,
    /// What the pipeline knows of it: KEYFRAME, DISCONT, CORRUPT, TAINTED, INTERLACED, FORMAT_CHANGED, SYNTHETIC.
    pub flags: FrameFlags,
    /// Source pictures that were lost on the way since the previous one (leaky queue, gate).
    pub lost_before: u32,
    /// The slow way to convert and scale it.
    pub fallback: &'a dyn Fallback,
}

/// Takes decoded pictures; called on one streaming thread, must not block, lock, allocate or log.
pub trait FrameSink: Send {
    /// Publishes one picture, or drops and counts it.
    fn frame(&mut self, frame: &FrameRef<'_>);

    /// The next pictures are of the session with this number; called before the first of each.
    fn session(&mut self, _number: u32) {}

    /// Prepares for a picture of this size (width, height), which is being held back: what its first one costs is done when it
    /// comes. May take as long as making a ring.
    fn expect(&mut self, _size: (u32, u32)) {}

    /// Makes the changes that were asked for; called when no picture comes that would make them.
    fn settle(&mut self) {}
}

/// Which pictures the supervisor wants of a session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Demand {
    /// Every one.
    #[default]
    All,
    /// Only those that stand for themselves; the others do not reach the decoder.
    Keyframes,
    /// None: nothing reaches the decoder, and the session stays connected.
    Nothing,
}

/// What the supervisor and the streaming threads of a session tell each other without waiting: the counts by which it
/// sees whether the session makes progress, and what it asks of the session.
#[derive(Debug, Default)]
pub struct Progress {
    /// Media packets (or file/test buffers) that arrived.
    pub packets: AtomicU64,
    /// Packets known to be lost.
    pub packets_lost: AtomicU64,
    /// When the newest packet arrived, ns of CLOCK_MONOTONIC; 0 = none yet.
    pub last_packet_mono_ns: AtomicI64,
    /// Pictures that the decoder delivered.
    pub decoded: AtomicU64,
    /// When the newest picture was decoded, ns of CLOCK_MONOTONIC; 0 = none yet.
    pub last_decoded_mono_ns: AtomicI64,
    /// Access units dropped by the keyframe gate.
    pub dropped_gate: AtomicU64,
    /// Access units dropped because the decoder was too slow.
    pub dropped_leaky: AtomicU64,
    /// Errors and warnings of the decoder.
    pub decode_errors: AtomicU64,
    /// Whether the keyframe gate is closed.
    pub gate_closed: AtomicBool,
    /// From arrival to appsink of the newest picture, ns.
    pub lag_ns: AtomicU64,
    /// Asked by the supervisor: which pictures it wants ([`Progress::demand`]).
    demand: AtomicU8,
    /// Asked by the supervisor before the session begins: how often a request is to tell the camera that somebody watches, ms,
    /// where nothing else would; 0 = never.
    pub request_every_ms: AtomicU64,
    /// Answers to those requests.
    pub answers: AtomicU64,
    /// Asked by the supervisor: whether each picture is to be compared with the ones before.
    pub compare: AtomicBool,
    /// How long the picture had not changed by a bit when the newest one was decoded, ns; 0 = it has, or nobody compares.
    pub unchanged_ns: AtomicU64,
}

impl Progress {
    /// Which pictures are wanted.
    #[must_use]
    pub fn demand(&self) -> Demand {
        [Demand::All, Demand::Keyframes, Demand::Nothing]
            .into_iter()
            .find(|demand| *demand as u8 == self.demand.load(Relaxed))
            .unwrap_or_default()
    }

    /// Asks for these pictures from now on. After anything but [`Demand::All`] the next picture is that of a keyframe.
    pub fn ask_for(&self, demand: Demand) {
        self.demand.store(demand as u8, Relaxed);
    }
}

/// How soon a failed session may be tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetryClass {
    /// May be gone in a moment: back-off from `reconnect.first` to `reconnect.max`.
    Transient,
    /// The camera has no session left: as transient, but never under 5 s.
    Busy,
    /// Only a change on the camera or in the file helps: `reconnect.permanent_retry`.
    Permanent,
    /// Wrong user or password: `reconnect.auth_retry`, so that the account is not locked.
    Auth,
}

/// Why a session ended or could not begin.
#[derive(Clone, Debug)]
pub struct RetryReason {
    /// The word readers see.
    pub reason: Reason,
    /// How soon to try again.
    pub class: RetryClass,
    /// One sentence for the log, without secrets.
    pub message: String,
}

/// A change in a session; events only, never pixels.
#[derive(Clone, Debug)]
pub enum SourceEvent {
    /// The session is set up and the first packet arrived.
    FirstPacket,
    /// The codec of the stream and the decoder that was chosen for it (words such as `h264`, `avdec_h264`).
    Decoder {
        /// The codec.
        codec: String,
        /// The decoder element.
        decoder: String,
    },
    /// The session is over, or will never begin; the first one counts.
    Ended(RetryReason),
    /// Something worth one line in the log; the session goes on. Without secrets, rate-limited by the source.
    Notice(String),
}

/// Something that can deliver pictures: a camera, a file, a test pattern.
pub trait FrameSource: Send {
    /// Begins a session; may block for as long as a connect takes, so it is called on a worker thread.
    ///
    /// Pictures go to `sink` on a streaming thread, changes to `events`, counts to `progress`. The sink comes back
    /// by itself when the last streaming thread has let go of it ([`Loan`]).
    ///
    /// # Errors
    ///
    /// Why the session cannot begin (a missing element, a bad pipeline description).
    fn start(
        &mut self,
        sink: Loan<Box<dyn FrameSink>>,
        events: Sender<SourceEvent>,
        progress: Arc<Progress>,
    ) -> Result<Box<dyn Session>, RetryReason>;

    /// Another one like it, for a second session beside the first that knows what the first has learned; `None` where there
    /// can be only one.
    fn twin(&self) -> Option<Box<dyn FrameSource>> {
        None
    }
}

/// A running session.
pub trait Session: Send {
    /// Ends it and frees everything it holds; may block for as long as a teardown takes, so it is called on the
    /// worker thread and the supervisor waits with a deadline.
    fn stop(self: Box<Self>);
}

/// A value lent to another thread that finds its way home when it is dropped there.
#[derive(Debug)]
pub struct Loan<T> {
    value: Option<T>,
    home: Sender<T>,
}

impl<T> Loan<T> {
    /// Lends `value`; dropping the loan sends it to `home`, whose channel must have room for one.
    pub fn new(value: T, home: Sender<T>) -> Self {
        Self { value: Some(value), home }
    }
}

impl<T> Deref for Loan<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("the value is taken only by drop")
    }
}

impl<T> DerefMut for Loan<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("the value is taken only by drop")
    }
}

impl<T> Drop for Loan<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // A full or closed channel means that nobody waits for it any more: the process is ending.
            drop(self.home.try_send(value));
        }
    }
}
