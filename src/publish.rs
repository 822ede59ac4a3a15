//! The publisher: one decoded picture becomes one frame in the ring. Runs on the streaming thread, per frame.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use camring_ring::{
    ClaimError, Counter, FrameFlags, FrameMeta, Geometry, PixelFormat, PublishError, Reason, TimeSource, Writer,
    WriterOptions,
};

use crate::scale::{Limit, fit};
use crate::source::{FrameRef, FrameSink};

/// What the ring and its frames are to be from now on.
#[derive(Debug)]
pub struct Shape {
    /// How the ring is made.
    pub options: WriterOptions,
    /// The largest frame.
    pub limit: Limit,
}

/// What the publisher and the supervisor tell each other without waiting.
#[derive(Debug, Default)]
pub struct Shared {
    /// Frames published by this process.
    pub published: AtomicU64,
    /// Number of the session that pictures come from.
    pub session: AtomicU32,
    /// Code of the [`Reason`] why frames are refused; 0 = they are not.
    refusal: AtomicU16,
    /// Whether there is something in `shape`: the publisher looks there only then.
    reshaped: AtomicBool,
    /// How the ring is to be made anew.
    shape: Mutex<Option<Shape>>,
}

impl Shared {
    /// Has the next frame begin a new generation of the ring, made as `shape` says.
    pub fn reshape(&self, shape: Shape) {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = Some(shape);
        self.reshaped.store(true, Release);
    }

    fn take_shape(&self) -> Option<Shape> {
        // Once per reload; otherwise this one load.
        if !self.reshaped.swap(false, Acquire) {
            return None;
        }
        self.shape.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why frames are refused at the moment.
    #[must_use]
    pub fn refusal(&self) -> Option<Reason> {
        match Reason::from_code(self.refusal.load(Relaxed)) {
            Reason::None => None,
            reason => Some(reason),
        }
    }
}

/// Converts pictures straight into the slots of one ring.
pub struct Publisher {
    camera: String,
    writer: Writer,
    limit: Limit,
    shared: Arc<Shared>,
    source_seq: u64,
    /// Source pictures since the last published frame, without the one in hand.
    gap: u64,
    session: Option<u32>,
    /// The ring is to be made anew and was not yet.
    reshaping: bool,
}

impl Publisher {
    /// A publisher into `writer`'s ring; `camera` is for the log, pictures above `limit` are scaled down.
    #[must_use]
    pub fn new(camera: String, writer: Writer, limit: Limit, shared: Arc<Shared>) -> Self {
        let source_seq = writer.source_seq();
        Self { camera, writer, limit, shared, source_seq, gap: 0, session: None, reshaping: false }
    }

    /// Everything the ring is to say about `frame`.
    fn describe(&self, frame: &FrameRef<'_>, geometry: Geometry, session: u32) -> FrameMeta {
        let timing = &frame.timing;
        let reconnected = self.session.is_some_and(|previous| previous != session);
        let gap = u32::try_from(self.gap).unwrap_or(u32::MAX);
        let scaled = (geometry.width, geometry.height) != (frame.width, frame.height);
        let flags = frame.flags.with_if(gap > 0, FrameFlags::GAP).with_if(scaled, FrameFlags::SCALED);
        let scale = |to: u32, from: u32| (f64::from(to) / f64::from(from)) as f32;
        FrameMeta {
            source_size: (frame.width, frame.height),
            scale: (scale(geometry.width, frame.width), scale(geometry.height, frame.height)),
            flags: flags.with_if(reconnected, FrameFlags::AFTER_RECONNECT.with(FrameFlags::DISCONT)),
            color: frame.color,
            rtp_timestamp: timing.rtp_timestamp,
            pts_ns: timing.pts_ns,
            duration_ns: timing.duration_ns,
            arrival_mono_ns: timing.arrival_mono_ns,
            arrival_real_ns: timing.arrival_real_ns,
            source_unix_ns: timing.source_unix_ns,
            time_source: timing.time_source.unwrap_or(TimeSource::None),
            decoded_mono_ns: timing.decoded_mono_ns,
            source_seq: self.source_seq,
            pixel_aspect: frame.pixel_aspect,
            gap,
            source_format: frame.layout.pixel_format(),
            lag_ns: (timing.decoded_mono_ns - timing.arrival_mono_ns).max(0).cast_unsigned(),
            ..FrameMeta::new(geometry)
        }
    }

    fn publish(&mut self, frame: &FrameRef<'_>) -> Result<(), Refused> {
        let session = self.shared.session.load(Relaxed);
        let (width, height) = self.limit.size_of(frame.width, frame.height);
        let geometry = Geometry::packed(width, height, PixelFormat::Bgr).ok_or(Refused::Shapeless)?;
        let mut slot = self.writer.claim(geometry.len).map_err(Refused::Claim)?;
        fit(frame, &geometry, slot.as_mut()).map_err(|error| Refused::Convert(error.to_string()))?;
        let meta = self.describe(frame, geometry, session);
        self.writer.publish(slot, meta).map_err(Refused::Publish)?;
        self.session = Some(session);
        Ok(())
    }

    /// Says in the log what became of the new shape of the ring; only while there is one.
    fn tell_of_shape(&mut self) {
        if let Some(error) = self.writer.take_reshape_error() {
            tracing::warn!(camera = self.camera, "the ring stays as it is for now: {error}");
        }
        if !self.writer.is_reshaping() {
            self.reshaping = false;
            tracing::info!(camera = self.camera, "the ring was made anew; its readers follow by themselves");
        }
    }

    /// Counts a refused frame, and says so in the log when the cause is a new one.
    fn refuse(&mut self, why: &Refused) {
        self.gap += 1;
        self.writer.count_drop(why.counter());
        let Some(reason) = why.reason() else { return };
        if self.shared.refusal.swap(reason.code(), Relaxed) != reason.code() {
            tracing::error!(camera = self.camera, %reason, "frames cannot be published: {}", why.text());
        }
    }
}

impl FrameSink for Publisher {
    fn frame(&mut self, frame: &FrameRef<'_>) {
        self.source_seq += 1;
        self.gap += u64::from(frame.lost_before);
        if let Some(Shape { options, limit }) = self.shared.take_shape() {
            self.limit = limit;
            self.writer.reshape(options);
            self.reshaping = true;
        }
        match self.publish(frame) {
            Ok(()) => {
                self.gap = 0;
                self.shared.published.fetch_add(1, Relaxed);
                if self.shared.refusal.load(Relaxed) != 0 {
                    self.shared.refusal.store(0, Relaxed);
                    tracing::info!(camera = self.camera, "frames are published again");
                }
            }
            Err(why) => self.refuse(&why),
        }
        if self.reshaping {
            self.tell_of_shape();
        }
    }
}

/// Why a picture was not published.
enum Refused {
    Shapeless,
    Claim(ClaimError),
    Convert(String),
    Publish(PublishError),
}

impl Refused {
    fn counter(&self) -> Counter {
        match self {
            Self::Claim(ClaimError::NoSlot | ClaimError::Leased) => Counter::DroppedNoSlot,
            Self::Claim(_) | Self::Publish(_) => Counter::DroppedOverload,
            Self::Shapeless | Self::Convert(_) => Counter::DroppedCorrupt,
        }
    }

    /// The word for readers; `None` for what passes by itself.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Claim(ClaimError::NoSlot | ClaimError::Leased | ClaimError::Waiting)
            | Self::Publish(PublishError::Outdated) => None,
            Self::Claim(ClaimError::TooLarge { .. }) => Some(Reason::FrameTooLarge),
            Self::Claim(_) => Some(Reason::NoRoom),
            Self::Publish(_) => Some(Reason::NameTaken),
            Self::Shapeless | Self::Convert(_) => Some(Reason::DecoderError),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Shapeless => "the decoder delivered a picture without a size".into(),
            Self::Claim(error) => error.to_string(),
            Self::Convert(error) => error.clone(),
            Self::Publish(error) => error.to_string(),
        }
    }
}
