//! One output: takes pictures at its rate, paints them in its format and size, and publishes them in its ring.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use camring_ring::{
    ClaimError, Counter, FrameFlags, FrameMeta, Geometry, PixelFormat, PublishError, Reason, RingName, TimeSource,
    Writer, WriterOptions,
};

use crate::limits::memory::MemoryLimit;
use crate::padding::{Padded, Surround, pad_color};
use crate::paint::{Canvas, Normalize, Painter, stored_color};
use crate::placement::{Placement, PlacementError, View};
use crate::rate::Rate;
use crate::source::FrameRef;

/// What is said of the next frame when it was true of one that was left out.
const CARRIED: FrameFlags = FrameFlags::DISCONT.with(FrameFlags::FORMAT_CHANGED);

/// What the frames of an output are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// What they show, and how large.
    pub view: View,
    /// Layout of their pixels.
    pub format: PixelFormat,
    /// How bytes become floats, in a format of floats.
    pub normalize: Normalize,
    /// Frames a second at most; 0 = as sent.
    pub max_fps: u32,
}

/// What a ring and its frames are to be from now on.
#[derive(Debug)]
pub struct Shape {
    /// How the ring is made; `None` = it stays as it is.
    pub options: Option<WriterOptions>,
    /// What its frames are.
    pub look: Look,
}

/// What an output and the supervisor tell each other without waiting.
#[derive(Debug, Default)]
pub struct Shared {
    /// Frames published by this process.
    pub published: AtomicU64,
    /// Number of the session that pictures come from.
    pub session: AtomicU32,
    /// Code of the [`Reason`] why frames are refused; 0 = they are not.
    refusal: AtomicU16,
    /// Whether there is something in `shape`: the output looks there only then.
    reshaped: AtomicBool,
    /// How the ring is to be made anew.
    shape: Mutex<Option<Shape>>,
}

impl Shared {
    /// Has the next frame look as `shape` says, in a new generation of the ring where it says so.
    pub fn reshape(&self, shape: Shape) {
        let mut waiting = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        // Options that no frame has come for since stay due.
        let options = shape.options.or_else(|| waiting.take().and_then(|earlier| earlier.options));
        *waiting = Some(Shape { options, look: shape.look });
        self.reshaped.store(true, Release);
    }

    fn take_shape(&self) -> Option<Shape> {
        // Once per reload; otherwise this one load.
        if !self.reshaped.load(Relaxed) || !self.reshaped.swap(false, Acquire) {
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

/// Publishes a camera's pictures in one ring.
pub struct Output {
    ring: RingName,
    writer: Writer,
    look: Look,
    rate: Rate,
    painter: Painter,
    padded: Padded,
    shared: Arc<Shared>,
    /// Source pictures since the last published frame, without the one in hand.
    gap: u64,
    /// Flags of pictures that were left out.
    carried: FrameFlags,
    session: Option<u32>,
    /// The ring is to be made anew and was not yet.
    reshaping: bool,
    /// How much memory there may be for the ring.
    limit: Option<MemoryLimit>,
    /// The slots of the ring, and the largest payload that was found to fit below the limit.
    slots: u32,
    fitting: u64,
}

impl Output {
    /// An output into `writer`'s ring, which was made by `options`.
    #[must_use]
    pub fn new(options: &WriterOptions, writer: Writer, look: Look, shared: Arc<Shared>) -> Self {
        Self {
            ring: options.ring.clone(),
            writer,
            look,
            rate: Rate::new(look.max_fps),
            painter: Painter::default(),
            padded: Padded::default(),
            shared,
            gap: 0,
            carried: FrameFlags::default(),
            session: None,
            reshaping: false,
            limit: MemoryLimit::of_process(),
            slots: options.slots,
            fitting: 0,
        }
    }

    /// The ring's name.
    #[must_use]
    pub fn ring(&self) -> &RingName {
        &self.ring
    }

    /// `source_seq` of the newest frame in the ring.
    #[must_use]
    pub fn source_seq(&self) -> u64 {
        self.writer.source_seq()
    }

    /// The next pictures are of this session.
    pub fn session(&self, number: u32) {
        self.shared.session.store(number, Relaxed);
        self.writer.status().set_session(number);
    }

    /// Publishes a picture, or leaves it out, or drops and counts it; `source_seq` is its number.
    pub fn offer(&mut self, frame: &FrameRef<'_>, source_seq: u64) {
        self.gap += u64::from(frame.lost_before);
        self.take_shape();
        let session = self.shared.session.load(Relaxed);
        let result = if self.rate.is_due(session, &frame.timing) {
            self.publish(frame, source_seq, session)
        } else {
            Err(Refused::Rate)
        };
        match result {
            Ok(()) => {
                self.gap = 0;
                self.carried = FrameFlags::default();
                self.rate.took();
                self.shared.published.fetch_add(1, Relaxed);
                if self.shared.refusal.load(Relaxed) != 0 {
                    self.shared.refusal.store(0, Relaxed);
                    tracing::info!(name: "frames_resumed", camera = self.ring.camera(), ring = self.ring.as_str(), "frames are published again");
                }
            }
            Err(why) => {
                self.carried = self.carried.with(FrameFlags(frame.flags.0 & CARRIED.0));
                self.refuse(&why);
            }
        }
        if self.reshaping {
            self.tell_of_shape();
        }
    }

    /// Makes the ring that a picture of this size (width, height) will need, if it is not there.
    pub fn expect(&mut self, size: (u32, u32)) {
        let placed = self.look.view.place(size, 2).ok().map(|placement| placement.size);
        let geometry = placed.and_then(|(width, height)| Geometry::packed(width, height, self.look.format));
        let Some(len) = geometry.map(|geometry| geometry.len).filter(|len| *len > self.writer.slot_capacity()) else {
            return;
        };
        if let Err(why) = self.fit(len).and_then(|()| self.writer.claim(len).map(drop).map_err(Refused::Claim)) {
            self.tell(&why);
        }
    }

    fn take_shape(&mut self) {
        let Some(Shape { options, look }) = self.shared.take_shape() else { return };
        if look.max_fps != self.look.max_fps {
            self.rate = Rate::new(look.max_fps);
        }
        self.look = look;
        if let Some(options) = options {
            (self.slots, self.fitting) = (options.slots, 0);
            self.writer.reshape(options);
            self.reshaping = true;
        }
    }

    fn publish(&mut self, frame: &FrameRef<'_>, source_seq: u64, session: u32) -> Result<(), Refused> {
        let step = if frame.flags.contains(FrameFlags::INTERLACED) { 4 } else { 2 };
        let placement = self.look.view.place((frame.width, frame.height), step).map_err(Refused::Placement)?;
        let (width, height) = placement.size;
        let geometry = Geometry::packed(width, height, self.look.format).ok_or(Refused::Shapeless)?;
        self.fit(geometry.len)?;
        let mut slot = self.writer.claim(geometry.len).map_err(Refused::Claim)?;
        let (place, surround) = (slot.place(), Surround::new(&geometry, &placement, &self.look.normalize));
        let believed = self.padded.take(place, &surround);
        let canvas = Canvas { bytes: slot.as_mut(), is_padded: believed > 0 };
        let painted = self.painter.paint(frame, &placement, &geometry, &self.look.normalize, canvas);
        painted.map_err(|error| Refused::Convert(error.to_string()))?;
        self.padded.keep(place, surround, believed);
        let meta = self.describe(frame, geometry, &placement, (source_seq, session));
        self.writer.publish(slot, meta).map_err(Refused::Publish)?;
        self.session = Some(session);
        Ok(())
    }

    /// Refuses a payload whose ring would be larger than the memory this process may have; looks once for each larger one.
    fn fit(&mut self, len: u64) -> Result<(), Refused> {
        if len <= self.fitting {
            return Ok(());
        }
        let bytes = Writer::format_bytes(self.slots, len).unwrap_or(0);
        if let Some(refusal) = self.limit.as_ref().and_then(|limit| limit.refusal("the ring needs", bytes)) {
            return Err(Refused::Memory(refusal));
        }
        self.fitting = len;
        Ok(())
    }

    /// Everything the ring is to say about `frame`, in this geometry and place.
    fn describe(
        &self,
        frame: &FrameRef<'_>,
        geometry: Geometry,
        placement: &Placement,
        (source_seq, session): (u64, u32),
    ) -> FrameMeta {
        let timing = &frame.timing;
        let reconnected = self.session.is_some_and(|previous| previous != session);
        let gap = u32::try_from(self.gap).unwrap_or(u32::MAX);
        let flags = frame.flags.with(self.carried).with_if(gap > 0, FrameFlags::GAP);
        let floats = geometry.format == PixelFormat::RgbPlanarF32;
        let (value_scale, value_offset) = if floats { self.look.normalize.common() } else { (1.0, 0.0) };
        FrameMeta {
            source_size: (frame.width, frame.height),
            fit: placement.fit,
            scale: placement.scale(),
            offset: placement.offset(),
            pad_color: if placement.is_padded() { pad_color(geometry.format) } else { [0; 4] },
            value_scale,
            value_offset,
            flags: flags
                .with_if(placement.is_scaled(), FrameFlags::SCALED)
                .with_if(reconnected, FrameFlags::AFTER_RECONNECT.with(FrameFlags::DISCONT)),
            color: stored_color(frame.color, geometry.format, frame.height),
            rtp_timestamp: timing.rtp_timestamp,
            pts_ns: timing.pts_ns,
            duration_ns: timing.duration_ns,
            arrival_mono_ns: timing.arrival_mono_ns,
            arrival_real_ns: timing.arrival_real_ns,
            source_unix_ns: timing.source_unix_ns,
            time_source: timing.time_source.unwrap_or(TimeSource::None),
            decoded_mono_ns: timing.decoded_mono_ns,
            source_seq,
            pixel_aspect: frame.pixel_aspect,
            gap,
            source_format: frame.layout.pixel_format(),
            lag_ns: (timing.decoded_mono_ns - timing.arrival_mono_ns).max(0).cast_unsigned(),
            ..FrameMeta::new(geometry)
        }
    }

    /// Says in the log what became of the new shape of the ring; only while there is one.
    fn tell_of_shape(&mut self) {
        if let Some(error) = self.writer.take_reshape_error() {
            tracing::warn!(name: "ring_kept", camera = self.ring.camera(), ring = self.ring.as_str(), "the ring stays as it is for now: {error}");
        }
        if !self.writer.is_reshaping() {
            self.reshaping = false;
            tracing::info!(name: "ring_remade", camera = self.ring.camera(), ring = self.ring.as_str(), "the ring was made anew; its readers follow by themselves");
        }
    }

    fn refuse(&mut self, why: &Refused) {
        self.gap += 1;
        self.writer.count_drop(why.counter());
        self.tell(why);
    }

    /// Says in the log and to the supervisor why frames are refused, when the cause is a new one.
    fn tell(&self, why: &Refused) {
        let Some(reason) = why.reason() else { return };
        if self.shared.refusal.swap(reason.code(), Relaxed) != reason.code() {
            tracing::error!(name: "frames_refused", camera = self.ring.camera(), ring = self.ring.as_str(), %reason, "frames cannot be published: {}", why.text());
        }
    }
}

/// Why a picture was not published.
enum Refused {
    Rate,
    Shapeless,
    Placement(PlacementError),
    Memory(String),
    Claim(ClaimError),
    Convert(String),
    Publish(PublishError),
}

impl Refused {
    fn counter(&self) -> Counter {
        match self {
            Self::Rate => Counter::DroppedRate,
            Self::Claim(ClaimError::NoSlot | ClaimError::Leased) => Counter::DroppedNoSlot,
            Self::Memory(_) | Self::Claim(_) | Self::Publish(_) | Self::Placement(PlacementError::Outside { .. }) => {
                Counter::DroppedOverload
            }
            Self::Shapeless | Self::Convert(_) | Self::Placement(PlacementError::Empty(..)) => Counter::DroppedCorrupt,
        }
    }

    /// The word for readers; `None` for what passes by itself.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Rate
            | Self::Claim(ClaimError::NoSlot | ClaimError::Leased | ClaimError::Waiting)
            | Self::Publish(PublishError::Outdated) => None,
            Self::Claim(ClaimError::TooLarge { .. }) => Some(Reason::FrameTooLarge),
            Self::Memory(_) | Self::Claim(_) => Some(Reason::NoRoom),
            Self::Publish(_) => Some(Reason::NameTaken),
            Self::Placement(PlacementError::Outside { .. }) => Some(Reason::Config),
            Self::Shapeless | Self::Convert(_) | Self::Placement(PlacementError::Empty(..)) => {
                Some(Reason::DecoderError)
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Rate => "max_fps leaves it out".into(),
            Self::Shapeless => "the decoder delivered a picture without a size".into(),
            Self::Placement(error) => error.to_string(),
            Self::Memory(refusal) => refusal.clone(),
            Self::Claim(error) => error.to_string(),
            Self::Convert(error) => error.clone(),
            Self::Publish(error) => error.to_string(),
        }
    }
}
