//! The reader's handle: attaches by name, reads the newest frame by copy, waits for the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attach::{AttachOptions, Attachment, present_readers, stated_pid};
use crate::error::{AttachError, ReadError};
use crate::follow::{FOLLOW_FIRST, Handle, Inner};
use crate::fork::PerProcess;
use crate::frame::{FrameMeta, Generation, PixelFormat, Sequence};
use crate::head::{self, Head, Retired};
use crate::layout::at;
use crate::liveness::Liveness;
use crate::meta;
use crate::name::SegmentName;
use crate::segment::Segment;
use crate::slot;
use crate::status::Status;
use crate::wait::{self, Woken};

/// Reads that the writer overtook before one gives up.
pub(crate) const ATTEMPTS: u32 = 8;

/// One frame as a read describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Everything the ring says about it.
    pub meta: FrameMeta,
    /// Frames published since the one this handle returned before, without this one; 0 for the first.
    pub skipped: u64,
    /// The generation it was read from.
    pub generation: Generation,
}

/// What a handle has been through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReaderStats {
    /// Different frames returned.
    pub frames: u64,
    /// Frames published but not returned.
    pub skipped: u64,
    /// Reads that the writer overtook and that were repeated.
    pub retries: u64,
    /// Generations followed.
    pub followed: u64,
    /// Generations that did not continue the numbers of the one before.
    pub resets: u64,
    /// Sleeps that ended by themselves although something had changed.
    pub missed_wakes: u64,
}

/// A reader's handle on a ring; cheap to use from several threads.
///
/// Attaches read-only: nothing a reader does can change a frame or stop the writer. The handle survives everything
/// that happens to the daemon: a restart, a larger picture, a removed name. In a forked child it attaches again by
/// itself at its first use, and begins anew: nothing counts as returned there.
#[derive(Debug)]
pub struct Ring {
    name: SegmentName,
    options: AttachOptions,
    handle: PerProcess<Handle>,
}

/// Whether a read returned its frame for the first time on this handle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Account {
    New,
    Known,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    /// There is a newer frame.
    Newer,
    TimedOut,
    /// The ring was removed for good.
    Removed,
}

/// How a ring looked before a sleep.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) attachment: Arc<Attachment>,
    /// The word to sleep on, as it was before everything else was looked at.
    pub(crate) notify: u32,
    /// The reason not to sleep, if there is one.
    pub(crate) waited: Option<Waited>,
}

impl Ring {
    /// Attaches to a camera (`front`), an output (`front.small`) or a segment (`camring.front`).
    ///
    /// Waits for the name as long as `options.timeout` says; a ring without a frame attaches at once.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    pub fn attach(name: &str, options: AttachOptions) -> Result<Self, AttachError> {
        let name = SegmentName::new(name)?;
        let current = Arc::new(Attachment::wait_for(&name, &options)?);
        Ok(Self { name, options, handle: PerProcess::new(Handle::new(current)) })
    }

    /// The name it was attached by.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// How it was attached.
    #[must_use]
    pub fn options(&self) -> &AttachOptions {
        &self.options
    }

    pub(crate) fn segment_name(&self) -> &SegmentName {
        &self.name
    }

    /// What this process knows of the handle.
    pub(crate) fn handle(&self) -> &Handle {
        self.handle.get(Handle::forked)
    }

    /// Copies the newest published frame into `buffer`, which is resized to it, and describes it.
    ///
    /// Returns the same frame again when there is no newer one. Waits for nothing; costs one copy of
    /// `geometry.len` bytes, repeated when the writer overtakes it.
    ///
    /// # Errors
    ///
    /// [`ReadError::NoFrame`] until the first frame is published; [`ReadError::Overrun`] when every attempt was
    /// overtaken; [`ReadError::UnknownFormat`] and [`ReadError::Corrupt`].
    pub fn latest(&self, buffer: &mut Vec<u8>) -> Result<Frame, ReadError> {
        self.read_into(buffer).map(|(frame, _)| frame)
    }

    fn read_into(&self, buffer: &mut Vec<u8>) -> Result<(Frame, Account), ReadError> {
        self.read(|segment, slot, len| self.copy_into(segment, slot, len, buffer))
    }

    /// As [`Ring::latest`], into a buffer of exactly the frame's size.
    ///
    /// # Errors
    ///
    /// Besides those of `latest`: [`ReadError::BufferSize`].
    pub fn latest_into(&self, buffer: &mut [u8]) -> Result<Frame, ReadError> {
        self.read(|segment, slot, len| {
            if buffer.len() as u64 != len {
                return Err(ReadError::BufferSize { found: buffer.len() as u64, expected: len });
            }
            slot::copy_payload(&segment.map, segment.layout.payload_off(slot), buffer);
            Ok(())
        })
        .map(|(frame, _)| frame)
    }

    /// Describes the newest frame without copying its pixels.
    ///
    /// # Errors
    ///
    /// As [`Ring::latest`].
    pub fn peek(&self) -> Result<FrameMeta, ReadError> {
        let attachment = self.current();
        let segment = &attachment.segment;
        for _ in 0..ATTEMPTS {
            if let Some(meta) = self.describe(segment, self.newest(segment)?)? {
                return Ok(meta);
            }
        }
        Err(self.overrun(segment))
    }

    /// Waits for a frame newer than the last one this handle returned, then reads the newest.
    ///
    /// # Errors
    ///
    /// [`ReadError::Timeout`] with the camera's state; [`ReadError::Removed`], a second after the operator has removed
    /// the ring without a new one; [`ReadError::Superseded`] instead of the timeout when the name still leads to a
    /// generation that was replaced; else as [`Ring::latest`].
    pub fn next(&self, buffer: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Frame, ReadError> {
        self.next_by(timeout, || self.read_into(buffer))
    }

    /// As [`Ring::next`], into the front of a buffer that may be larger than the frame.
    ///
    /// # Errors
    ///
    /// Besides those of `next`: [`ReadError::BufferSize`] when the buffer is smaller; the frame then does not count as
    /// returned.
    pub fn next_into(&self, buffer: &mut [u8], timeout: Option<Duration>) -> Result<Frame, ReadError> {
        self.next_by(timeout, || {
            self.read(|segment, slot, expected| {
                let found = buffer.len() as u64;
                let front = usize::try_from(expected).ok().and_then(|len| buffer.get_mut(..len));
                let front = front.ok_or(ReadError::BufferSize { found, expected })?;
                slot::copy_payload(&segment.map, segment.layout.payload_off(slot), front);
                Ok(())
            })
        })
    }

    /// Waits for a frame newer than the last one returned, and takes the newest by `take`.
    pub(crate) fn next_by<T>(
        &self,
        timeout: Option<Duration>,
        mut take: impl FnMut() -> Result<(T, Account), ReadError>,
    ) -> Result<T, ReadError> {
        let started = Instant::now();
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        loop {
            let (last, resets) = self.horizon();
            let waited = self.wait_newer(last, resets, deadline);
            if waited != Waited::Newer {
                return Err(self.in_vain(waited, started));
            }
            match take() {
                Ok((frame, Account::New)) => return Ok(frame),
                // Another thread of this handle took it, or the generation changed in between.
                Ok((_, Account::Known)) | Err(ReadError::NoFrame { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sleeps until a frame newer than `last` is there; `false` when `timeout` is over first, or when the operator has
    /// removed the ring ([`Ring::is_removed`]).
    ///
    /// Uses no CPU while it sleeps; looks at the ring's name about once a second meanwhile.
    pub fn wait(&self, last: Sequence, timeout: Option<Duration>) -> bool {
        let (_, resets) = self.horizon();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.wait_newer(last, resets, deadline) == Waited::Newer
    }

    /// The newest frame returned so far, and how often the numbers have begun anew before it.
    pub(crate) fn horizon(&self) -> (Sequence, u64) {
        let inner = self.handle().lock();
        (Sequence(inner.last), inner.stats.resets)
    }

    /// Sleeps until a frame newer than `last`, a number of the time after `resets`, is there.
    pub(crate) fn wait_newer(&self, last: Sequence, resets: u64, deadline: Option<Instant>) -> Waited {
        let mut look = self.look(last, resets);
        loop {
            if let Some(waited) = look.waited {
                return waited;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Waited::TimedOut;
            }
            let limit = self.next_sleep(&look.attachment, deadline);
            let woken = wait::sleep(&look.attachment.segment.map, look.notify, limit);
            look = self.look_after(Some((&look, woken)), last, resets);
        }
    }

    /// Looks whether there is something newer than `last`, in the order that loses no wake-up.
    pub(crate) fn look(&self, last: Sequence, resets: u64) -> Look {
        self.look_after(None, last, resets)
    }

    /// As [`Ring::look`], and learns first from the sleep that a look has led to. One lock and no clock when it was for a
    /// frame: this is what a reader runs when it is woken.
    fn look_after(&self, slept: Option<(&Look, Woken)>, last: Sequence, resets: u64) -> Look {
        let handle = self.handle();
        let mut inner = handle.lock();
        if let Some((look, woken)) = slept {
            self.learn_from(look, woken, handle, &mut inner);
        }
        self.settle(handle, &mut inner);
        let map = &inner.current.segment.map;
        // Before the head: the other order loses a wake-up that falls in between.
        let notify = head::load_notify(map);
        let newest = head::load_head(map);
        // Numbers of before a reset say nothing about those after it.
        let begun_anew = inner.stats.resets != resets;
        let waited = match newest {
            Some(head) if begun_anew || head.seq > last.0 || inner.is_former(last.0) => Some(Waited::Newer),
            _ => inner.is_gone().then_some(Waited::Removed),
        };
        Look { attachment: Arc::clone(&inner.current), notify, waited }
    }

    /// How long to sleep at most before looking again.
    pub(crate) fn next_sleep(&self, attachment: &Attachment, deadline: Option<Instant>) -> Duration {
        let map = &attachment.segment.map;
        let inner = self.handle().lock();
        let slice = inner.slice.next(deadline, head::load_u32(map, at::WAKE_MODE) == 1);
        match head::load_retired(map) {
            Retired::No => slice,
            // Nobody wakes the readers of a retired generation: look when following is due again.
            _ => slice.min(inner.next_follow.saturating_duration_since(Instant::now()).max(FOLLOW_FIRST)),
        }
    }

    /// Adapts the length of the next sleep to what ended this one.
    pub(crate) fn learn(&self, look: &Look, woken: Woken) {
        let handle = self.handle();
        self.learn_from(look, woken, handle, &mut handle.lock());
    }

    #[inline]
    fn learn_from(&self, look: &Look, woken: Woken, handle: &Handle, inner: &mut Inner) {
        let changed = head::load_notify(&look.attachment.segment.map) != look.notify;
        inner.slice.learn(woken, changed);
        if woken == Woken::Timeout && !changed {
            self.look_around(handle, inner);
        }
    }

    /// Describes and copies the newest frame until the writer lets a copy pass; `copy` gets segment, slot, length.
    fn read(
        &self,
        mut copy: impl FnMut(&Segment, u32, u64) -> Result<(), ReadError>,
    ) -> Result<(Frame, Account), ReadError> {
        for attempt in 0..ATTEMPTS {
            let attachment = self.current();
            let segment = &attachment.segment;
            let head = self.newest(segment)?;
            let Some(meta) = self.describe(segment, head)? else { continue };
            copy(segment, head.slot, meta.geometry.len)?;
            if slot::is_unchanged(&segment.map, &segment.layout, head.slot, head.seq << 1)
                && let Some(done) = self.account(&attachment, meta, attempt)
            {
                return Ok(done);
            }
        }
        Err(self.overrun(&self.current().segment))
    }

    /// The newest frame's number and place, checked.
    #[inline]
    pub(crate) fn newest(&self, segment: &Segment) -> Result<Head, ReadError> {
        let Some(head) = head::load_head(&segment.map) else { return Err(self.no_frame(segment)) };
        if head.slot >= segment.layout.slot_count || head.seq == 0 {
            return Err(self.no_such_place(segment, head));
        }
        Ok(head)
    }

    /// The checked metadata of the frame `place.seq`; `None` when its slot holds another one by now.
    ///
    /// The payload that they describe lies inside the slot.
    pub(crate) fn describe(&self, segment: &Segment, place: Head) -> Result<Option<FrameMeta>, ReadError> {
        let (map, layout) = (&segment.map, &segment.layout);
        let stamp = place.seq << 1;
        if slot::load_stamp(map, layout, place.slot) != stamp {
            return Ok(None);
        }
        let words = slot::load_words(map, layout, place.slot);
        if !slot::is_unchanged(map, layout, place.slot, stamp) {
            return Ok(None);
        }
        let meta = meta::decode(&words);
        if meta.seq.0 != place.seq || !meta.geometry.fits(layout.slot_capacity) {
            return Err(self.no_such_frame(segment, place, meta.geometry.format));
        }
        Ok(Some(meta))
    }

    #[cold]
    fn no_such_place(&self, segment: &Segment, head: Head) -> ReadError {
        let slots = segment.layout.slot_count;
        self.corrupt(format!("its newest frame is {} in slot {} of {slots}", head.seq, head.slot))
    }

    #[cold]
    fn no_such_frame(&self, segment: &Segment, place: Head, format: PixelFormat) -> ReadError {
        if let PixelFormat::Unknown(format) = format {
            return ReadError::UnknownFormat { ring: self.name.to_string(), format };
        }
        self.corrupt(format!("frame {} exceeds its slot of {} bytes", place.seq, segment.layout.slot_capacity))
    }

    /// Copies the payload of a slot into `buffer`, which is resized to it; worthless until the stamp is checked again.
    pub(crate) fn copy_into(
        &self,
        segment: &Segment,
        slot: u32,
        len: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        // What a damaged header claims must not end the process.
        let too_large = |_| self.corrupt(format!("a frame of {len} bytes, for which there is no memory"));
        slot::resize(buffer, usize::try_from(len).unwrap_or(usize::MAX)).map_err(too_large)?;
        slot::copy_payload(&segment.map, segment.layout.payload_off(slot), buffer);
        Ok(())
    }

    /// Counts a frame; `None` when another thread has gone on to the next generation meanwhile: its numbers are not
    /// to be mixed with those of this one.
    pub(crate) fn account(
        &self,
        attachment: &Arc<Attachment>,
        meta: FrameMeta,
        attempt: u32,
    ) -> Option<(Frame, Account)> {
        let mut inner = self.handle().lock();
        if !Arc::ptr_eq(attachment, &inner.current) {
            return None;
        }
        let generation = attachment.segment.layout.ring_uuid;
        inner.stats.retries += u64::from(attempt);
        let new = meta.seq.0.saturating_sub(inner.last);
        let skipped = if inner.last == 0 { 0 } else { new.saturating_sub(1) };
        if new > 0 {
            inner.stats.frames += 1;
            inner.stats.skipped += skipped;
            inner.last = meta.seq.0;
        }
        let account = if new > 0 { Account::New } else { Account::Known };
        Some((Frame { meta, skipped, generation }, account))
    }

    /// What the header says now.
    #[must_use]
    pub fn status(&self) -> Status {
        let attachment = self.current();
        Status::load(&attachment.segment.map, &attachment.segment.layout)
    }

    /// The immutable configuration of the current generation.
    #[must_use]
    pub fn layout(&self) -> crate::layout::Layout {
        self.current().segment.layout.clone()
    }

    /// Pids of the readers that count themselves, in their own namespaces, as far as `/proc/locks` shows them.
    #[must_use]
    pub fn readers(&self) -> Vec<u32> {
        present_readers(&self.current().segment)
    }

    /// The daemon's pid in its own namespace; 0 after an orderly stop.
    #[must_use]
    pub fn writer_pid(&self) -> u32 {
        stated_pid(&self.current().segment)
    }

    /// What this handle has been through in this process.
    #[must_use]
    pub fn stats(&self) -> ReaderStats {
        let inner = self.handle().lock();
        ReaderStats { missed_wakes: inner.slice.missed_wakes, ..inner.stats }
    }

    /// The newest frame that this handle has returned in this process; 0 before the first.
    #[must_use]
    pub fn last_seq(&self) -> Sequence {
        Sequence(self.handle().lock().last)
    }

    /// Whether the operator has removed the ring and no new one has come.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        drop(self.current());
        self.handle().lock().is_removed()
    }

    #[cold]
    pub(crate) fn no_frame(&self, segment: &Segment) -> ReadError {
        let state = head::load_state(&segment.map);
        ReadError::NoFrame { ring: self.name.to_string(), state: state.state, reason: state.reason }
    }

    #[cold]
    pub(crate) fn overrun(&self, segment: &Segment) -> ReadError {
        let oldest = crate::history::held_places(segment).map(|place| place.seq).min().unwrap_or(0);
        ReadError::Overrun { ring: self.name.to_string(), oldest: Sequence(oldest) }
    }

    #[cold]
    fn corrupt(&self, what: String) -> ReadError {
        ReadError::Corrupt { ring: self.name.to_string(), what }
    }

    /// The error of a wait without a frame.
    pub(crate) fn in_vain(&self, waited: Waited, started: Instant) -> ReadError {
        let attachment = self.current();
        let ring = self.name.to_string();
        let inner = self.handle().lock();
        if waited == Waited::Removed || inner.is_removed() {
            return ReadError::Removed { ring };
        }
        if inner.superseded && head::load_retired(&attachment.segment.map) == Retired::Superseded {
            return ReadError::Superseded { ring };
        }
        drop(inner);
        let state = head::load_state(&attachment.segment.map);
        ReadError::Timeout {
            ring,
            state: state.state,
            reason: state.reason,
            writer_alive: self.liveness() != Liveness::Gone,
            waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}
