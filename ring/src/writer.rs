//! The writer of a ring: claims a slot, lends it for filling, publishes it.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::anchor;
use crate::claim::Claim;
use crate::clock::{boot_minus_mono_ns, mono_ns, real_ns};
use crate::crash::{self, CrashPoint};
use crate::create::{carry_over, create, format_segment, new_generation};
use crate::error::{ClaimError, CreateError, PublishError};
use crate::frame::{FrameFlags, FrameMeta, Generation, Geometry, Sequence};
use crate::guard::LockGuard;
use crate::head::{self, Head, Retired};
use crate::layout::{Layout, LeasePolicy, at};
use crate::live::Live;
use crate::meta;
use crate::names::{Names, retire};
use crate::options::{Capacity, WriterOptions};
use crate::segment::{Access, Mapping, Segment, allocate, open_file};
use crate::slot;
use crate::status::{Counter, Histogram, Shared, StatusHandle};
use crate::sync::{Ordering, Region};
use crate::wait;

/// First pause after a larger ring could not be made; doubles up to [`ROOM_RETRY_MAX`].
const ROOM_RETRY_FIRST: Duration = Duration::from_secs(1);
const ROOM_RETRY_MAX: Duration = Duration::from_secs(60);
/// The pause while there is no frame at all yet.
const ROOM_RETRY_EMPTY: Duration = Duration::from_secs(5);
/// How long readers poll after the kernel has refused a wake-up.
const POLL_AFTER_WAKE_ERROR_NS: i64 = 10_000_000_000;

/// A claimed slot: memory to fill, then [`Writer::publish`] it. Dropped without that, the slot is empty again.
///
/// A forked child has the same slot in the same memory: it must leave the bytes alone; its drop does.
#[derive(Debug)]
pub struct SlotMut {
    live: Arc<Live>,
    index: u32,
    len: u64,
}

impl SlotMut {
    /// Which memory this is: the same pair is the same bytes, with what the earlier claim of it left in them.
    #[must_use]
    pub fn place(&self) -> (Generation, u32) {
        (self.live.segment.layout.ring_uuid, self.index)
    }
}

impl AsMut<[u8]> for SlotMut {
    /// The payload, exactly as many bytes as were claimed, with whatever an older frame left in it.
    fn as_mut(&mut self) -> &mut [u8] {
        let Segment { map, layout, .. } = &self.live.segment;
        let payload = slot::payload_ptr(map, layout, self.index, self.len);
        // SAFETY: `len` initialised bytes inside the mapping, which `live` keeps alive. Nobody else refers to them: this
        // value is the only claim on the slot (its private stamp is odd from `claim` to `drop`), the mapping is the
        // writer's own, which only `SlotMut` gives out, and the slice borrows `self` mutably. Readers elsewhere have
        // mappings of their own, load atomically and discard what does not validate.
        unsafe { std::slice::from_raw_parts_mut(payload.as_ptr(), self.len as usize) }
    }
}

impl Drop for SlotMut {
    fn drop(&mut self) {
        let ours = self.live.origin.is_here() && !self.live.retired.load(Ordering::Acquire);
        if ours && self.live.stamp(self.index) & 1 == 1 {
            crash::at(CrashPoint::AbandonBegun);
            slot::abort(&self.live.segment.map, &self.live.segment.layout, self.index);
            crash::at(CrashPoint::AbandonEmptied);
            self.live.set_stamp(self.index, 0);
        }
    }
}

/// The one writer of a ring.
///
/// Everything here runs on the thread that publishes; [`Writer::status`] is for the others. In a forked child it publishes
/// nothing, and dropping it there changes nothing: ring, names and locks stay the parent's.
#[derive(Debug)]
pub struct Writer {
    options: WriterOptions,
    shared: Arc<Shared>,
    live: Arc<Live>,
    /// A larger generation that has no name until its first frame is in it.
    pending: Option<Arc<Live>>,
    /// The options are new and no generation was made with them yet.
    reshaping: bool,
    /// Why the newest attempt at that failed.
    reshape_error: Option<CreateError>,
    head: Option<Head>,
    /// Whether readers' locks are slow to ask about, in the current generation's file.
    guard: LockGuard,
    seq: u64,
    source_seq: u64,
    geometry: Option<Geometry>,
    geometry_epoch: u32,
    /// Flags that the next frame carries.
    next_flags: FrameFlags,
    dropped: u64,
    /// How long the machine had been suspended when the newest slot was claimed.
    boot_minus_mono_ns: i64,
    last_publish_ns: i64,
    interval_ns: i64,
    room_retry: Duration,
    room_retry_at: Option<Instant>,
}

impl Writer {
    /// `restarted`: the ring held frames of an earlier daemon, and the first frame is to say so.
    pub(crate) fn new(options: WriterOptions, shared: Arc<Shared>, restarted: bool, source_seq: u64) -> Self {
        let live = Arc::clone(&shared.names().live);
        let (map, layout) = (&live.segment.map, &live.segment.layout);
        let head = head::load_head(map);
        let after_restart = FrameFlags::DISCONT.with(FrameFlags::AFTER_RESTART);
        let geometry = head.map(|head| meta::decode(&slot::load_words(map, layout, head.slot)).geometry);
        Self {
            options,
            head,
            guard: LockGuard::default(),
            geometry,
            seq: head.map_or(layout.base_seq, |head| head.seq),
            source_seq,
            geometry_epoch: head::load_u32(map, at::GEOMETRY_EPOCH),
            next_flags: FrameFlags::default().with_if(restarted, after_restart),
            dropped: dropped_so_far(map),
            boot_minus_mono_ns: boot_minus_mono_ns(),
            last_publish_ns: 0,
            interval_ns: 0,
            room_retry: ROOM_RETRY_FIRST,
            room_retry_at: None,
            pending: None,
            reshaping: false,
            reshape_error: None,
            live,
            shared,
        }
    }

    /// Turns an existing file that somebody else has made and sized into a ring without anchor, lock or adoption.
    ///
    /// For copies that peers may write to: every reader of the layout can read it, leases are off, and the builder's
    /// version in the header ends in [`Writer::FORMATTED`].
    ///
    /// # Errors
    ///
    /// [`CreateError`]: the file is missing, not regular, or has another size than [`Writer::format_bytes`].
    pub fn format(path: &Path, options: WriterOptions, slot_bytes: u64) -> Result<Self, CreateError> {
        Self::format_after(path, options, slot_bytes, Sequence(0))
    }

    /// As [`Writer::format`], for a file that follows another one: its first frame has the number after `last`.
    ///
    /// # Errors
    ///
    /// As [`Writer::format`].
    pub fn format_after(
        path: &Path,
        mut options: WriterOptions,
        slot_bytes: u64,
        last: Sequence,
    ) -> Result<Self, CreateError> {
        let act = |what: &str, e| CreateError::io(format!("{what} {}", path.display()), e);
        let size = CreateError::Size { slots: options.slots, slot_bytes };
        let mut layout = Layout::plan(options.slots, slot_bytes).ok_or(size)?;
        let (fd, stat) = open_file(path, Access::ReadWrite).map_err(|e| act("open", e))?;
        if stat.st_size.cast_unsigned() != layout.file_bytes {
            let found = format!("file of {} bytes, expected {}", stat.st_size, layout.file_bytes);
            return Err(CreateError::NameTaken { ring: options.ring.to_string(), path: path.to_owned(), found });
        }
        allocate(fd.as_fd(), layout.file_bytes).map_err(|e| act("allocate", e))?;
        options.lease_policy = LeasePolicy::Off;
        options.capacity = Capacity::Bytes(slot_bytes);
        layout.lease_policy = LeasePolicy::Off as u32;
        layout.camera_id = options.ring.camera().to_owned();
        layout.segment_name = options.segment.as_str().to_owned();
        layout.builder = format!("{}{}", env!("CARGO_PKG_VERSION"), Self::FORMATTED);
        layout.base_seq = last.0;
        (layout.owner_uid, layout.owner_gid) = (stat.st_uid, stat.st_gid);
        layout.stale_after_ms = u32::try_from(options.stale_after.as_millis()).unwrap_or(u32::MAX);
        layout.created_real_ns = real_ns();
        layout.boot_id = crate::process::boot_id();
        layout.ring_uuid = new_generation();
        let map = Mapping::new(fd.as_fd(), layout.file_bytes, Access::ReadWrite);
        let segment = map
            .and_then(|map| format_segment(fd, map, layout))
            .map_err(|e| CreateError::io(format!("map {}", path.display()), e))?;
        let (ring, camera) = (options.ring.to_string(), options.ring.camera().to_owned());
        let names = Names { live: Arc::new(Live::new(segment)), ring, camera, paths: None, _lock: None };
        Ok(Self::new(options, Arc::new(Shared::new(names)), false, 0))
    }

    /// Ends a formatted segment and tells its readers: the name leads to `successor` now, or to nothing any more.
    ///
    /// Frames that readers hold stay valid; the file is the caller's to remove. Does nothing in a forked child.
    pub fn retire_formatted(self, successor: Option<&Self>) {
        if !self.live.origin.is_here() {
            return;
        }
        let segment = &self.live.segment;
        match successor {
            Some(next) => retire(segment, next.live.segment.layout.ring_uuid, Retired::Superseded),
            None => retire(segment, Generation::default(), Retired::Removed),
        }
    }

    /// What the builder's version of a formatted segment ends in.
    pub const FORMATTED: &str = " bridge";

    /// Bytes of a whole segment of `slots` slots of `slot_bytes`; `None` when that makes no ring.
    #[must_use]
    pub fn format_bytes(slots: u32, slot_bytes: u64) -> Option<u64> {
        Layout::plan(slots, slot_bytes).map(|layout| layout.file_bytes)
    }

    /// The handle for state, counters and texts, for any thread.
    #[must_use]
    pub fn status(&self) -> StatusHandle {
        StatusHandle { shared: Arc::clone(&self.shared) }
    }

    /// `source_seq` of the newest frame when this writer began or of its last publish.
    #[must_use]
    pub fn source_seq(&self) -> u64 {
        self.source_seq
    }

    /// Bytes that the largest frame may have without a new generation.
    #[must_use]
    pub fn slot_capacity(&self) -> u64 {
        self.live.segment.layout.slot_capacity
    }

    /// Has the next frame begin a new generation that is made as `options` say; readers follow by themselves, and the
    /// numbers go on.
    ///
    /// Name, segment and memory mount stay what they are, whatever `options` say of them. While there is no room for the
    /// new generation beside the old one, frames go on in the old one and it is tried again, at the pace of a larger
    /// generation ([`Writer::take_reshape_error`]). Costs the next claim the making of a generation.
    pub fn reshape(&mut self, options: WriterOptions) {
        let WriterOptions { ring, segment, shm, .. } = self.options.clone();
        self.options = WriterOptions { ring, segment, shm, ..options };
        (self.reshaping, self.reshape_error, self.pending) = (true, None, None);
        (self.room_retry, self.room_retry_at) = (ROOM_RETRY_FIRST, None);
    }

    /// Whether the generation that [`Writer::reshape`] asked for is still to be made.
    #[must_use]
    pub fn is_reshaping(&self) -> bool {
        self.reshaping
    }

    /// Why the newest attempt to make that generation failed; each failure once.
    pub fn take_reshape_error(&mut self) -> Option<CreateError> {
        self.reshape_error.take()
    }

    /// Takes a slot for a frame of `len` bytes: the oldest one that is neither the newest frame, nor being written, nor
    /// leased; never waits for a reader.
    ///
    /// When every other slot is leased, [`LeasePolicy::Fresh`] takes the oldest of them and [`LeasePolicy::Protect`] gives
    /// none. Costs two system calls, plus one per leased slot that is older; none under [`LeasePolicy::Off`], and none
    /// for a while under `Fresh` after readers' locks have made the calls slow. A frame that exceeds the slots gets a
    /// larger generation, which becomes visible with its publication.
    ///
    /// # Errors
    ///
    /// [`ClaimError`]; the caller counts the frame with [`Writer::count_drop`] and goes on.
    pub fn claim(&mut self, len: u64) -> Result<SlotMut, ClaimError> {
        if !self.live.origin.is_here() {
            return Err(ClaimError::Forked);
        }
        let fits = len <= self.slot_capacity();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let target = match (fits, lost) {
            _ if self.reshaping => self.reshaped(len)?,
            (true, false) => Arc::clone(&self.live),
            // Without room for another one, the inode without a name still serves the readers that have it.
            (true, true) => self.larger(self.slot_capacity()).unwrap_or_else(|_| Arc::clone(&self.live)),
            (false, _) => self.larger(len)?,
        };
        let current = Arc::ptr_eq(&target, &self.live);
        let head = if current { self.head } else { None };
        // A generation without a name has no readers whose locks could be slow.
        let mut unnamed = LockGuard::default();
        let guard = if current { &mut self.guard } else { &mut unnamed };
        let index = Claim { live: &target, head, shared: &self.shared }.take(guard)?;
        // Here and not when it is published, because nobody waits yet.
        self.boot_minus_mono_ns = boot_minus_mono_ns();
        Ok(SlotMut { live: target, index, len })
    }

    /// The generation with the new options; the present one as long as that cannot be made and the frame fits.
    fn reshaped(&mut self, len: u64) -> Result<Arc<Live>, ClaimError> {
        match self.larger(self.options.first_slot_bytes().max(len)) {
            Err(ClaimError::NoLargerRing(error)) if len <= self.slot_capacity() => {
                self.reshape_error = Some(error);
                Ok(Arc::clone(&self.live))
            }
            Err(ClaimError::Waiting) if len <= self.slot_capacity() => Ok(Arc::clone(&self.live)),
            made => made,
        }
    }

    /// The pending generation, made now if it is not there or too small.
    fn larger(&mut self, len: u64) -> Result<Arc<Live>, ClaimError> {
        if let Capacity::Bytes(bytes) = self.options.capacity {
            // A ring that was adopted may have larger slots than it would get now.
            let capacity = if self.reshaping { bytes } else { self.slot_capacity() };
            if len > capacity {
                return Err(ClaimError::TooLarge { needed: len, capacity });
            }
        }
        if let Some(pending) = &self.pending
            && pending.segment.layout.slot_capacity >= len
        {
            return Ok(Arc::clone(pending));
        }
        if self.room_retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(ClaimError::Waiting);
        }
        self.pending = None;
        let anchors = self.shared.names().paths.as_ref().map(|paths| paths.anchors.clone());
        let Some(anchors) = anchors else {
            return Err(ClaimError::TooLarge { needed: len, capacity: self.slot_capacity() });
        };
        // Whoever removed the names may have removed their folder as well.
        let made = anchor::make(&anchors);
        match made.and_then(|()| create(&self.options, len, self.seq, &anchors, &mut Vec::new())) {
            Ok(segment) => Ok(Arc::clone(self.pending.insert(Arc::new(Live::new(segment))))),
            Err(error) => {
                self.pause_before_larger();
                Err(ClaimError::NoLargerRing(error))
            }
        }
    }

    fn pause_before_larger(&mut self) {
        let pause = if self.head.is_none() { ROOM_RETRY_EMPTY } else { self.room_retry };
        self.room_retry_at = Some(Instant::now() + pause);
        self.room_retry = (self.room_retry * 2).min(ROOM_RETRY_MAX);
    }

    /// Makes a filled slot the newest frame and wakes the readers; returns its number.
    ///
    /// Sets sequence, epochs, publish times and the flags that follow from the ring's history.
    ///
    /// # Errors
    ///
    /// [`PublishError::Names`] when the frame is the first of a new generation whose names cannot be made: the old
    /// generation stays. [`PublishError::Outdated`] for a slot of a generation that has been replaced meanwhile.
    pub fn publish(&mut self, slot: SlotMut, mut meta: FrameMeta) -> Result<Sequence, PublishError> {
        let began = mono_ns();
        let fresh = !Arc::ptr_eq(&slot.live, &self.live);
        self.check(&slot, &meta, fresh)?;
        if fresh {
            continue_from(&slot.live.segment, self.seq);
        } else if self.pending.is_some() {
            self.give_up_pending();
        }
        let seq = self.seq + 1;
        self.complete(&mut meta, seq, began);
        let Segment { map, layout, .. } = &slot.live.segment;
        crash::at(CrashPoint::PublishFilled);
        slot::write_words(map, layout, slot.index, &meta::encode(&meta));
        crash::at(CrashPoint::PublishDescribed);
        slot::commit(map, layout, slot.index, seq);
        crash::at(CrashPoint::PublishStamped);
        slot.live.set_stamp(slot.index, seq << 1);
        let head = Head { seq, slot: slot.index };
        head::store_head(map, head);
        crash::at(CrashPoint::PublishHead);
        // Also when the new generation fails: a reader may have seen the number there.
        self.seq = seq;
        if fresh {
            self.switch(Arc::clone(&slot.live)).map_err(PublishError::Names)?;
        }
        if self.geometry_epoch != meta.geometry_epoch {
            self.geometry_epoch = meta.geometry_epoch;
            head::store_u32(&self.live.segment.map, at::GEOMETRY_EPOCH, meta.geometry_epoch);
        }
        self.announce(meta.publish_mono_ns);
        self.head = Some(head);
        self.source_seq = meta.source_seq;
        self.next_flags = FrameFlags::default();
        self.geometry = Some(meta.geometry);
        self.account(&meta, began);
        Ok(Sequence(seq))
    }

    /// Whether a slot may be published with this description.
    #[inline]
    fn check(&self, slot: &SlotMut, meta: &FrameMeta, fresh: bool) -> Result<(), PublishError> {
        if !slot.live.origin.is_here() {
            return Err(PublishError::Forked);
        }
        if fresh && !self.pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, &slot.live)) {
            return Err(PublishError::Outdated);
        }
        if !meta.geometry.fits(slot.len) {
            return Err(PublishError::Geometry { claimed: slot.len, described: meta.geometry.len });
        }
        Ok(())
    }

    /// A larger generation whose frame never came would hold its memory, and number its first frame wrongly.
    #[cold]
    fn give_up_pending(&mut self) {
        self.pending.take_if(|pending| Arc::strong_count(pending) == 1);
    }

    /// Fills in what the ring knows.
    #[inline]
    fn complete(&mut self, meta: &mut FrameMeta, seq: u64, began: i64) {
        let map = &self.live.segment.map;
        let changed = self.geometry.is_some_and(|geometry| geometry != meta.geometry);
        let another = changed || (self.geometry.is_none() && self.geometry_epoch == 0);
        meta.flags = meta.flags.with(self.next_flags).with_if(changed, FrameFlags::GEOMETRY_CHANGED);
        meta.seq = Sequence(seq);
        meta.geometry_epoch = self.geometry_epoch.wrapping_add(u32::from(another));
        meta.writer_epoch = head::load_u32(map, at::WRITER_EPOCH);
        meta.session_id = head::load_u32(map, at::SESSION_ID);
        meta.dropped_before = self.dropped;
        meta.publish_mono_ns = began;
        meta.publish_real_ns = real_ns();
        meta.boot_minus_mono_ns = self.boot_minus_mono_ns;
        if meta.arrival_mono_ns == 0 {
            // A picture that never travelled is as old as its publication.
            (meta.arrival_mono_ns, meta.arrival_real_ns) = (meta.publish_mono_ns, meta.publish_real_ns);
        }
    }

    /// Gives the new generation the names and ends the old one.
    #[cold]
    fn switch(&mut self, new: Arc<Live>) -> Result<(), CreateError> {
        let shared = Arc::clone(&self.shared);
        let mut names = shared.names();
        let old = std::mem::replace(&mut names.live, Arc::clone(&new));
        carry_over(&old.segment, &new.segment);
        crash::at(CrashPoint::GenerationCarried);
        if let Err(error) = names.install(Some(old.segment.identity)) {
            new.retired.store(true, Ordering::Release);
            retire(&new.segment, old.segment.layout.ring_uuid, Retired::Superseded);
            names.live = old;
            names.restore();
            self.pending = None;
            self.pause_before_larger();
            return Err(error);
        }
        self.room_retry_at = None;
        self.room_retry = ROOM_RETRY_FIRST;
        head::add_u64(&new.segment.map, Counter::Generations.offset(), 1);
        old.retired.store(true, Ordering::Release);
        crash::at(CrashPoint::GenerationNamed);
        retire(&old.segment, new.segment.layout.ring_uuid, Retired::Superseded);
        shared.lost.store(false, Ordering::Relaxed);
        drop(names);
        // Housekeeping watches the names of the file that it knows.
        shared.wake_housekeeping();
        self.guard.new_file(mono_ns());
        self.live = new;
        (self.pending, self.reshaping, self.reshape_error) = (None, false, None);
        Ok(())
    }

    /// Tells the readers of a publication, and wakes at most 32 of them; housekeeping wakes the rest, and ends the time
    /// of polling. Never waits. What readers do not wait for is counted afterwards.
    #[inline]
    fn announce(&mut self, now_ns: i64) {
        let map = &self.live.segment.map;
        head::store_u64(map, at::LAST_PUBLISH_MONO_NS, now_ns.cast_unsigned());
        head::bump_notify(map);
        crash::at(CrashPoint::PublishNotified);
        match wait::wake(map, wait::WAKE_MAX) {
            Ok(woken) if woken < wait::WAKE_MAX as usize => {}
            woken => self.wake_the_rest(woken.is_ok(), now_ns),
        }
        crash::at(CrashPoint::PublishWoken);
    }

    /// After a wake-up call that did not reach everybody, or nobody.
    #[cold]
    fn wake_the_rest(&self, called: bool, now_ns: i64) {
        let map = &self.live.segment.map;
        if called {
            head::add_u64(map, Counter::WakeOverflow.offset(), 1);
            self.shared.wake_overflow.store(true, Ordering::Relaxed);
            self.shared.wake_housekeeping();
        } else {
            head::add_u64(map, Counter::WakeErrors.offset(), 1);
            head::store_u32(map, at::WAKE_MODE, 1);
            self.shared.poll_until_ns.store(now_ns + POLL_AFTER_WAKE_ERROR_NS, Ordering::Relaxed);
        }
    }

    /// Counts and times of one publication, when its readers are on their way.
    fn account(&mut self, meta: &FrameMeta, began: i64) {
        let map = &self.live.segment.map;
        let bump = |counter: Counter, by: u64| head::add_u64(map, counter.offset(), by);
        bump(Counter::Published, 1);
        bump(Counter::Bytes, meta.geometry.len);
        bump(Counter::WakeCalls, 1);
        if meta.decoded_mono_ns > 0 {
            let spent = (meta.publish_mono_ns - meta.decoded_mono_ns).max(0).cast_unsigned();
            Histogram::record(map, at::DECODE_TO_PUBLISH, spent);
        }
        if self.last_publish_ns > 0 {
            let interval = meta.publish_mono_ns - self.last_publish_ns;
            self.interval_ns =
                if self.interval_ns == 0 { interval } else { self.interval_ns + (interval - self.interval_ns) / 8 };
            head::store_u32(map, at::FRAME_INTERVAL_US, u32::try_from(self.interval_ns / 1000).unwrap_or(u32::MAX));
            Histogram::record(map, at::FRAME_INTERVAL, interval.max(0).cast_unsigned());
        }
        self.last_publish_ns = meta.publish_mono_ns;
        let spent = (mono_ns() - began).max(0).cast_unsigned();
        bump(Counter::PublishNsSum, spent);
        map.u64_at(Counter::PublishNsMax.offset()).fetch_max(spent, Ordering::Relaxed);
        map.u64_at(Counter::LagNsMax.offset()).fetch_max(meta.lag_ns, Ordering::Relaxed);
    }

    /// Counts a frame that will not be published, under one of the `dropped_*` counters; not in a forked child.
    pub fn count_drop(&mut self, counter: Counter) {
        if !self.live.origin.is_here() {
            return;
        }
        self.dropped = self.dropped.saturating_add(1);
        head::add_u64(&self.live.segment.map, counter.offset(), 1);
    }
}

/// States anew which number a generation continues from: frames may have been published since it was made, and readers
/// take a gap downwards for numbers that begin anew. It has no name yet, so nobody reads its configuration.
#[cold]
fn continue_from(segment: &Segment, seq: u64) {
    if segment.layout.base_seq != seq {
        let layout = Layout { base_seq: seq, ..segment.layout.clone() };
        segment.map.write_config(&layout.encode());
    }
}

/// Frames that reached the writer and were not published.
fn dropped_so_far(map: &impl Region) -> u64 {
    let counters = [Counter::DroppedNoSlot, Counter::DroppedRate, Counter::DroppedOverload, Counter::DroppedCorrupt];
    counters.iter().fold(0, |sum: u64, counter| sum.saturating_add(head::load_u64(map, counter.offset())))
}
