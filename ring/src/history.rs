//! Frames that are not the newest: by number, by time, all that are held. None of it moves the handle's horizon.

use std::time::{Duration, Instant};

use crate::error::ReadError;
use crate::frame::{FrameMeta, Sequence};
use crate::head::{self, Head};
use crate::meta;
use crate::reader::{ATTEMPTS, Frame, Ring, Waited};
use crate::segment::Segment;
use crate::slot;

/// Numbers and places of the frames that a segment holds now, in the order of the slots.
///
/// A slot with a number above the head's is not published yet: its writer is between two stores, or died there. Whoever
/// returned it would go back by one with the next read of the newest frame.
pub(crate) fn held_places(segment: &Segment) -> impl Iterator<Item = Head> {
    let newest = head::load_head(&segment.map).map_or(0, |head| head.seq);
    let stamps =
        (0..segment.layout.slot_count).map(|slot| (slot, slot::load_stamp(&segment.map, &segment.layout, slot)));
    let published = stamps.filter(move |(_, stamp)| stamp & 1 == 0 && *stamp != 0 && stamp >> 1 <= newest);
    published.map(|(slot, stamp)| Head { seq: stamp >> 1, slot })
}

/// Metadata of the frames that a segment holds now, with their places; those that contradict themselves are left out.
fn held_frames(segment: &Segment) -> Vec<(Head, FrameMeta)> {
    let (map, layout) = (&segment.map, &segment.layout);
    let described = held_places(segment).filter_map(|place| {
        let words = slot::load_words(map, layout, place.slot);
        let meta = meta::decode(&words);
        (slot::is_unchanged(map, layout, place.slot, place.seq << 1) && meta.seq.0 == place.seq)
            .then_some((place, meta))
    });
    let mut frames: Vec<_> = described.collect();
    frames.sort_unstable_by_key(|(place, _)| place.seq);
    frames
}

/// The frame that arrived nearest to `wanted`; of two equally near ones the newer.
fn nearest_of(frames: Vec<(Head, FrameMeta)>, wanted: i64) -> Option<(Head, FrameMeta)> {
    frames.into_iter().rev().min_by_key(|(_, meta)| meta.arrival_mono_ns.abs_diff(wanted))
}

impl Ring {
    /// Copies the frame with exactly this number into `buffer`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Overrun`] with the oldest frame still held when it was overwritten; [`ReadError::NotYet`] with the
    /// newest when it was not published so far; [`ReadError::NoFrame`] when nothing was. Else as [`Ring::latest`].
    pub fn at(&self, seq: Sequence, buffer: &mut Vec<u8>) -> Result<Frame, ReadError> {
        // First what a replaced generation still holds: only after it the next one.
        if let Some(frame) = self.find(&self.attached().segment, seq, buffer)? {
            return Ok(frame);
        }
        let attachment = self.current();
        let segment = &attachment.segment;
        // Before the search: a frame that is published meanwhile is found by it, and never called overwritten.
        let newest = self.newest(segment)?.seq;
        if seq.0 > newest {
            return Err(ReadError::NotYet { ring: self.name().to_owned(), seq, newest: Sequence(newest) });
        }
        self.find(segment, seq, buffer)?.ok_or_else(|| self.overrun(segment))
    }

    fn find(&self, segment: &Segment, seq: Sequence, buffer: &mut Vec<u8>) -> Result<Option<Frame>, ReadError> {
        let place = held_places(segment).find(|place| place.seq == seq.0);
        place.map_or(Ok(None), |place| self.copy(segment, place, 0, buffer))
    }

    /// Copies the oldest frame still held that is newer than `seq`; waits for one if there is none.
    ///
    /// [`Frame::skipped`] counts the numbers between `seq` and it: frames that were overwritten before they were read.
    /// Called with the number it returned before, it gives every frame as long as the reader keeps up, also over a
    /// larger generation. When the numbers have begun anew meanwhile, it begins with the oldest, and skipped is 0.
    ///
    /// # Errors
    ///
    /// As [`Ring::next`].
    pub fn after(&self, seq: Sequence, buffer: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Frame, ReadError> {
        let started = Instant::now();
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        let (_, resets) = self.horizon();
        for _ in 0..ATTEMPTS {
            if let Some(frame) = self.oldest_after(seq, resets, buffer)? {
                return Ok(frame);
            }
            let waited = self.wait_newer(seq, resets, deadline);
            if waited != Waited::Newer {
                return Err(self.in_vain(waited, started));
            }
        }
        Err(self.overrun(&self.current().segment))
    }

    /// The oldest frame after `seq`, if there is one and the writer was not faster.
    fn oldest_after(&self, seq: Sequence, resets: u64, buffer: &mut Vec<u8>) -> Result<Option<Frame>, ReadError> {
        // First what is left of a replaced generation: nobody writes there any more.
        for follow in [false, true] {
            let attachment = if follow { self.current() } else { self.attached() };
            let begun_anew = {
                let inner = self.handle().lock();
                inner.stats.resets != resets || inner.is_former(seq.0)
            };
            let floor = if begun_anew { 0 } else { seq.0 };
            let newer = held_places(&attachment.segment).filter(|place| place.seq > floor);
            if let Some(place) = newer.min_by_key(|place| place.seq) {
                let skipped = if begun_anew { 0 } else { place.seq - floor - 1 };
                return self.copy(&attachment.segment, place, skipped, buffer);
            }
        }
        Ok(None)
    }

    /// Copies the newest `count` frames still held, the oldest of them first; fewer when fewer are held, or when some
    /// are overwritten before their turn.
    ///
    /// Each frame is whole. There may be numbers missing between them: the writer overwrites what nobody leases.
    ///
    /// # Errors
    ///
    /// [`ReadError::NoFrame`] when nothing was published so far; [`ReadError::Overrun`] when every frame was overwritten
    /// before its turn, eight times; else as [`Ring::latest`].
    pub fn history(&self, count: usize) -> Result<Vec<(Frame, Vec<u8>)>, ReadError> {
        let attachment = self.current();
        let segment = &attachment.segment;
        self.newest(segment)?;
        for _ in 0..ATTEMPTS {
            let mut places: Vec<Head> = held_places(segment).collect();
            places.sort_unstable_by_key(|place| place.seq);
            let mut frames = Vec::new();
            for place in &places[places.len().saturating_sub(count)..] {
                let mut pixels = Vec::new();
                if let Some(frame) = self.copy(segment, *place, 0, &mut pixels)? {
                    frames.push((frame, pixels));
                }
            }
            if !frames.is_empty() || count == 0 {
                return Ok(frames);
            }
        }
        Err(self.overrun(segment))
    }

    /// Copies the held frame that arrived nearest to a time of the daemon's CLOCK_MONOTONIC, ns, such as another
    /// frame's `arrival_mono_ns`; of two equally near ones the newer.
    ///
    /// # Errors
    ///
    /// [`ReadError::NoFrame`] when nothing was published so far; else as [`Ring::latest`].
    pub fn nearest(&self, arrival_mono_ns: i64, buffer: &mut Vec<u8>) -> Result<Frame, ReadError> {
        self.nearest_within(arrival_mono_ns, None, buffer)
    }

    fn nearest_within(&self, wanted: i64, tolerance: Option<u64>, buffer: &mut Vec<u8>) -> Result<Frame, ReadError> {
        let attachment = self.current();
        let segment = &attachment.segment;
        self.newest(segment)?;
        for _ in 0..ATTEMPTS {
            let Some((place, meta)) = nearest_of(held_frames(segment), wanted) else { continue };
            let apart = meta.arrival_mono_ns.abs_diff(wanted);
            if let Some(tolerance_ns) = tolerance.filter(|tolerance| apart > *tolerance) {
                let (wanted_ns, nearest_ns) = (wanted, meta.arrival_mono_ns);
                return Err(ReadError::Apart { ring: self.name().to_owned(), wanted_ns, nearest_ns, tolerance_ns });
            }
            if let Some(frame) = self.copy(segment, place, 0, buffer)? {
                return Ok(frame);
            }
        }
        Err(self.overrun(segment))
    }

    /// Describes every frame that is held now, the oldest first; copies no pixels, waits for nothing.
    ///
    /// A frame that is overwritten at this moment is left out.
    #[must_use]
    pub fn held(&self) -> Vec<FrameMeta> {
        held_frames(&self.current().segment).into_iter().map(|(_, meta)| meta).collect()
    }

    /// One validated copy of one frame; `None` when the writer was faster.
    fn copy(
        &self,
        segment: &Segment,
        place: Head,
        skipped: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Frame>, ReadError> {
        let Some(meta) = self.describe(segment, place)? else { return Ok(None) };
        self.copy_into(segment, place.slot, meta.geometry.len, buffer)?;
        let whole = slot::is_unchanged(&segment.map, &segment.layout, place.slot, place.seq << 1);
        Ok(whole.then_some(Frame { meta, skipped, generation: segment.layout.ring_uuid }))
    }
}

/// For each ring the held frame that arrived nearest to a time of the daemons' CLOCK_MONOTONIC, ns.
///
/// The result has the order of `rings`. All rings must be of one host (and one time namespace of their daemons).
///
/// # Errors
///
/// [`ReadError::Apart`] with the ring whose nearest frame is further away than `tolerance`; else as [`Ring::nearest`].
pub fn nearest(rings: &[&Ring], arrival_mono_ns: i64, tolerance: Duration) -> Result<Vec<(Frame, Vec<u8>)>, ReadError> {
    let tolerance = Some(u64::try_from(tolerance.as_nanos()).unwrap_or(u64::MAX));
    let one = |ring: &&Ring| {
        let mut pixels = Vec::new();
        ring.nearest_within(arrival_mono_ns, tolerance, &mut pixels).map(|frame| (frame, pixels))
    };
    rings.iter().map(one).collect()
}
