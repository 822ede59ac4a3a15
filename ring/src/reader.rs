//! The reader's handle: attaches by name, follows restarts and new generations, reads frames by copy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::attach::{AliveByte, AttachOptions, Attachment, present_readers, stated_pid};
use crate::clock::mono_ns;
use crate::error::{AttachError, ReadError};
use crate::frame::{FrameMeta, Generation, PixelFormat, Reason, Sequence, State};
use crate::head::{self, Head, Retired};
use crate::layout::at;
use crate::meta;
use crate::name::SegmentName;
use crate::segment::Segment;
use crate::slot;
use crate::status::Status;
use crate::wait::{self, Slice, Woken};

/// Copies that the writer overtook before a read gives up.
const ATTEMPTS: u32 = 8;
/// How often the name is compared with the file while no frame comes.
const IDENTITY_PAUSE: Duration = Duration::from_secs(1);
/// A heartbeat that has changed within this time is a living daemon.
const HEARTBEAT_FRESH: Duration = Duration::from_secs(1);
/// First and longest pause between attempts to follow a new generation.
const FOLLOW_FIRST: Duration = Duration::from_millis(10);
const FOLLOW_MAX: Duration = Duration::from_secs(1);

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

/// Whether a daemon is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Liveness {
    /// It shows signs of life.
    Alive,
    /// It holds its lock but has not moved for a second: stopped or overloaded.
    Hung,
    /// There is none.
    Gone,
}

/// What a handle has been through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReaderStats {
    /// Different frames returned.
    pub frames: u64,
    /// Frames published but not returned.
    pub skipped: u64,
    /// Copies that the writer overtook and that were repeated.
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
/// that happens to the daemon: a restart, a larger picture, a removed name.
#[derive(Debug)]
pub struct Ring {
    name: SegmentName,
    options: AttachOptions,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    current: Arc<Attachment>,
    /// The newest frame that this handle has returned.
    last: u64,
    stats: ReaderStats,
    slice: Slice,
    next_identity_check: Instant,
    /// The head at the last look: while it moves, the name needs no check.
    head_seen: u64,
    follow_pause: Duration,
    next_follow: Instant,
    /// The heartbeat seen last, and when this handle has seen it move.
    heartbeat: (u64, Option<Instant>),
    removed: bool,
}

/// Whether a read returned its frame for the first time on this handle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Account {
    New,
    Known,
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
        let now = Instant::now();
        let heartbeat = head::load_u64(&current.segment.map, at::HEARTBEAT_MONO_NS);
        let inner = Inner {
            current,
            last: 0,
            stats: ReaderStats::default(),
            slice: Slice::default(),
            next_identity_check: now + IDENTITY_PAUSE,
            head_seen: u64::MAX,
            follow_pause: FOLLOW_FIRST,
            next_follow: now,
            heartbeat: (heartbeat, None),
            removed: false,
        };
        Ok(Self { name, options, inner: Mutex::new(inner) })
    }

    /// The name it was attached by.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The memory mount it was found on.
    #[must_use]
    pub fn options(&self) -> &AttachOptions {
        &self.options
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
        self.read(|segment, offset, len| {
            slot::resize(buffer, usize::try_from(len).unwrap_or(0));
            slot::copy_payload(&segment.map, offset, buffer);
            Ok(())
        })
    }

    /// As [`Ring::latest`], into a buffer of exactly the frame's size.
    ///
    /// # Errors
    ///
    /// Besides those of `latest`: [`ReadError::BufferSize`].
    pub fn latest_into(&self, buffer: &mut [u8]) -> Result<Frame, ReadError> {
        self.read(|segment, offset, len| {
            if buffer.len() as u64 != len {
                return Err(ReadError::BufferSize { found: buffer.len() as u64, expected: len });
            }
            slot::copy_payload(&segment.map, offset, buffer);
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
        for _ in 0..ATTEMPTS {
            if let Some((_, _, meta)) = self.describe(&attachment.segment)? {
                return Ok(meta);
            }
        }
        Err(self.overrun(&attachment.segment))
    }

    /// Waits for a frame newer than the last one this handle returned, then reads the newest.
    ///
    /// # Errors
    ///
    /// [`ReadError::Timeout`] with the camera's state; else as [`Ring::latest`].
    pub fn next(&self, buffer: &mut Vec<u8>, timeout: Option<Duration>) -> Result<Frame, ReadError> {
        let started = Instant::now();
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        loop {
            let (last, resets) = self.horizon();
            if !self.wait_newer(last, resets, deadline) {
                return Err(self.timed_out(started));
            }
            match self.read_into(buffer) {
                Ok((frame, Account::New)) => return Ok(frame),
                // Another thread of this handle took it, or the generation changed in between.
                Ok((_, Account::Known)) | Err(ReadError::NoFrame { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sleeps until a frame newer than `last` is there; `false` when `timeout` is over first.
    ///
    /// Uses no CPU while it sleeps; looks at the ring's name about once a second meanwhile.
    pub fn wait(&self, last: Sequence, timeout: Option<Duration>) -> bool {
        let (_, resets) = self.horizon();
        self.wait_newer(last, resets, timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// The newest frame returned so far, and how often the numbers have begun anew before it.
    fn horizon(&self) -> (Sequence, u64) {
        let inner = self.lock();
        (Sequence(inner.last), inner.stats.resets)
    }

    fn wait_newer(&self, last: Sequence, resets: u64, deadline: Option<Instant>) -> bool {
        loop {
            let attachment = self.current();
            let map = &attachment.segment.map;
            // Before the head: the other order loses a wake-up that falls in between.
            let seen = head::load_notify(map);
            // Numbers of before a reset say nothing about those after it.
            let begun_anew = self.lock().stats.resets != resets;
            if head::load_head(map).is_some_and(|head| begun_anew || head.seq > last.0) {
                return true;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            let slice = self.next_sleep(map, deadline);
            let woken = wait::sleep(map, seen, slice);
            self.learn(&attachment, woken, seen);
        }
    }

    /// How long to sleep at most before looking again.
    fn next_sleep(&self, map: &impl crate::sync::Region, deadline: Option<Instant>) -> Duration {
        let inner = self.lock();
        let slice = inner.slice.next(deadline, head::load_u32(map, at::WAKE_MODE) == 1);
        match head::load_retired(map) {
            Retired::No => slice,
            // Nobody wakes the readers of a retired generation: look when following is due again.
            _ => slice.min(inner.next_follow.saturating_duration_since(Instant::now()).max(FOLLOW_FIRST)),
        }
    }

    /// Adapts the length of the next sleep to what ended this one.
    fn learn(&self, attachment: &Attachment, woken: Woken, seen: u32) {
        let changed = head::load_notify(&attachment.segment.map) != seen;
        let mut inner = self.lock();
        match woken {
            Woken::Early => inner.slice.woken(),
            Woken::Timeout if changed => inner.slice.missed(),
            Woken::Timeout => self.look_around(&mut inner),
        }
    }

    /// The generation to read now: follows a retired one, and looks at the name once a second while no frame comes.
    fn current(&self) -> Arc<Attachment> {
        let mut inner = self.lock();
        match head::load_retired(&inner.current.segment.map) {
            Retired::No => self.look_around(&mut inner),
            Retired::Superseded => self.follow(&mut inner),
            Retired::Removed => {
                inner.removed = true;
                self.follow(&mut inner);
            }
        }
        Arc::clone(&inner.current)
    }

    /// Once a second, while no frame comes: compares the name with the file, and follows when they differ.
    fn look_around(&self, inner: &mut Inner) {
        let now = Instant::now();
        if now < inner.next_identity_check {
            return;
        }
        inner.next_identity_check = now + IDENTITY_PAUSE;
        let head = head::load_head(&inner.current.segment.map).map_or(0, |head| head.seq);
        if std::mem::replace(&mut inner.head_seen, head) != head {
            return;
        }
        if !inner.current.is_current().unwrap_or(true) {
            self.follow(inner);
        }
    }

    /// Attaches to whatever the name leads to now; keeps the old generation when that fails.
    fn follow(&self, inner: &mut Inner) {
        let now = Instant::now();
        if now < inner.next_follow {
            return;
        }
        let found = Attachment::find(&self.name, &self.options);
        // The same name may lead somewhere else meanwhile: to another camera's segment of that name.
        let same_camera = |next: &Attachment| next.segment.layout.camera_id == inner.current.segment.layout.camera_id;
        let Some(next) = found.ok().filter(same_camera) else {
            inner.next_follow = now + inner.follow_pause;
            inner.follow_pause = (inner.follow_pause * 2).min(FOLLOW_MAX);
            return;
        };
        inner.follow_pause = FOLLOW_FIRST;
        inner.removed = false;
        if next.segment.identity != inner.current.segment.identity {
            // A generation that does not continue the numbers begins anew: nothing of it has been seen.
            if next.segment.layout.base_seq < inner.last {
                inner.last = 0;
                inner.stats.resets += 1;
            }
            inner.stats.followed += 1;
            inner.heartbeat = (head::load_u64(&next.segment.map, at::HEARTBEAT_MONO_NS), None);
            inner.head_seen = u64::MAX;
        }
        // Also the same file under its other name, which is where to look from now on.
        inner.current = Arc::new(next);
    }

    /// Describes and copies the newest frame until the writer lets a copy pass; `copy` gets segment, offset, length.
    fn read(
        &self,
        mut copy: impl FnMut(&Segment, u64, u64) -> Result<(), ReadError>,
    ) -> Result<(Frame, Account), ReadError> {
        for attempt in 0..ATTEMPTS {
            let attachment = self.current();
            let Segment { map, layout, .. } = &attachment.segment;
            let Some((head, stamp, meta)) = self.describe(&attachment.segment)? else { continue };
            copy(&attachment.segment, layout.payload_off(head.slot), meta.geometry.len)?;
            if slot::is_unchanged(map, layout, head.slot, stamp)
                && let Some(done) = self.account(&attachment, meta, attempt)
            {
                return Ok(done);
            }
        }
        Err(self.overrun(&self.current().segment))
    }

    /// The newest frame's place, stamp and checked metadata; `None` when the writer was faster.
    fn describe(&self, segment: &Segment) -> Result<Option<(Head, u64, FrameMeta)>, ReadError> {
        let (map, layout) = (&segment.map, &segment.layout);
        let Some(head) = head::load_head(map) else { return Err(self.no_frame(segment)) };
        if head.slot >= layout.slot_count || head.seq == 0 {
            let Head { seq, slot } = head;
            return Err(self.corrupt(format!("its newest frame is {seq} in slot {slot} of {}", layout.slot_count)));
        }
        let stamp = slot::load_stamp(map, layout, head.slot);
        if stamp != head.seq << 1 {
            return Ok(None);
        }
        let words = slot::load_words(map, layout, head.slot);
        if !slot::is_unchanged(map, layout, head.slot, stamp) {
            return Ok(None);
        }
        let meta = meta::decode(&words);
        if let PixelFormat::Unknown(format) = meta.geometry.format {
            return Err(ReadError::UnknownFormat { ring: self.name.to_string(), format });
        }
        if meta.seq.0 != head.seq || !meta.geometry.fits(layout.slot_capacity) {
            return Err(self.corrupt(format!("frame {} exceeds its slot of {} bytes", head.seq, layout.slot_capacity)));
        }
        Ok(Some((head, stamp, meta)))
    }

    /// Counts a frame; `None` when another thread has gone on to the next generation meanwhile: its numbers are not
    /// to be mixed with those of this one.
    fn account(&self, attachment: &Arc<Attachment>, meta: FrameMeta, attempt: u32) -> Option<(Frame, Account)> {
        let mut inner = self.lock();
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

    /// Whether a daemon is there: its heartbeat moves, or at least its lock is held.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        let attachment = self.current();
        let map = &attachment.segment.map;
        let beat = head::load_u64(map, at::HEARTBEAT_MONO_NS);
        let mut inner = self.lock();
        let now = Instant::now();
        if inner.heartbeat.0 != beat {
            inner.heartbeat = (beat, Some(now));
        }
        let own_age = mono_ns().saturating_sub(beat.cast_signed());
        let fresh_by_clock = (0..HEARTBEAT_FRESH.as_nanos() as i64).contains(&own_age);
        let observed_moving = inner.heartbeat.1.is_some_and(|seen| now.duration_since(seen) < HEARTBEAT_FRESH);
        drop(inner);
        match (attachment.alive_byte(), observed_moving || fresh_by_clock) {
            (AliveByte::Held, true) => Liveness::Alive,
            (AliveByte::Held, false) => Liveness::Hung,
            (AliveByte::Free, _) => Liveness::Gone,
            // Movement, not a fresh time: a clock in common is not certain.
            (AliveByte::Unclear, _) if observed_moving => Liveness::Alive,
            (AliveByte::Unclear, _) => Liveness::Gone,
        }
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

    /// What this handle has been through.
    #[must_use]
    pub fn stats(&self) -> ReaderStats {
        let inner = self.lock();
        ReaderStats { missed_wakes: inner.slice.missed_wakes, ..inner.stats }
    }

    /// The newest frame that this handle has returned; 0 before the first.
    #[must_use]
    pub fn last_seq(&self) -> Sequence {
        Sequence(self.lock().last)
    }

    /// Whether the operator has removed the ring and no new one has come.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        drop(self.current());
        self.lock().removed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_frame(&self, segment: &Segment) -> ReadError {
        let state = head::load_state(&segment.map);
        ReadError::NoFrame { ring: self.name.to_string(), state: state.state, reason: state.reason }
    }

    fn overrun(&self, segment: &Segment) -> ReadError {
        let (map, layout) = (&segment.map, &segment.layout);
        let stamps = (0..layout.slot_count).map(|index| slot::load_stamp(map, layout, index));
        let oldest = stamps.filter(|stamp| stamp & 1 == 0 && *stamp != 0).map(|stamp| stamp >> 1).min().unwrap_or(0);
        ReadError::Overrun { ring: self.name.to_string(), oldest: Sequence(oldest) }
    }

    fn corrupt(&self, what: String) -> ReadError {
        ReadError::Corrupt { ring: self.name.to_string(), what }
    }

    fn timed_out(&self, started: Instant) -> ReadError {
        let attachment = self.current();
        let state = head::load_state(&attachment.segment.map);
        ReadError::Timeout {
            ring: self.name.to_string(),
            state: state.state,
            reason: state.reason,
            writer_alive: self.liveness() != Liveness::Gone,
            waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Age of a frame now, ns: how long ago its last packet arrived, time suspended included.
#[must_use]
pub fn age_ns(meta: &FrameMeta) -> i64 {
    let suspended = crate::clock::boot_minus_mono_ns().saturating_sub(meta.boot_minus_mono_ns);
    // A machine that was not suspended shows a few ns of jitter between the two clocks.
    let suspended = if suspended.unsigned_abs() < 1_000_000 { 0 } else { suspended };
    mono_ns().saturating_sub(meta.arrival_mono_ns).saturating_add(suspended)
}

impl Ring {
    /// As [`Ring::latest`], but refuses a frame older than `limit`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Stale`] with age and state; else as `latest`.
    pub fn latest_within(&self, buffer: &mut Vec<u8>, limit: Duration) -> Result<Frame, ReadError> {
        let frame = self.latest(buffer)?;
        let age = age_ns(&frame.meta);
        if age >= 0 && age.cast_unsigned() <= u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX) {
            return Ok(frame);
        }
        let state: State;
        let reason: Reason;
        {
            let word = head::load_state(&self.current().segment.map);
            (state, reason) = (word.state, word.reason);
        }
        Err(ReadError::Stale {
            ring: self.name.to_string(),
            age_ms: age / 1_000_000,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            state,
            reason,
        })
    }
}
