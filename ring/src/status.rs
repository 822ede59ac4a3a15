//! What the header says about the camera and its daemon: written by the daemon's other threads, read by anybody.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::crash::{self, CrashPoint};
use crate::fork::Origin;
use crate::frame::{Generation, Reason, Sequence, State};
use crate::guard::Verdict;
use crate::head::{self, Retired, StateWord};
use crate::layout::{BUCKETS, HistogramBlock, Layout, PRESENCE_LOCK_SPAN, at, text};
use crate::live::Live;
use crate::lock::{LockKind, conflicting};
use crate::names::Names;
use crate::process::ProcessStats;
use crate::sync::{Ordering, Region};
use crate::wait::wake_all;
use crate::watch::Bell;

/// Defines the counters of the header: their order is part of the layout.
macro_rules! counters {
    ($($(#[$meta:meta])* $variant:ident $word:literal,)+) => {
        /// A counter of the header; the order is part of the layout.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Counter { $($(#[$meta])* $variant,)+ }

        impl Counter {
            /// Every counter, in the layout's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in every listing.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

counters! {
    /// Media packets that arrived.
    Packets "packets",
    /// Packets known to be lost.
    PacketsLost "packets_lost",
    /// Pictures that the decoder delivered.
    Decoded "decoded",
    /// Frames published in this ring.
    Published "published",
    /// Payload bytes published.
    Bytes "bytes",
    /// Frames dropped because every slot was in use.
    DroppedNoSlot "dropped_no_slot",
    /// Access units dropped because the decoder was too slow.
    DroppedLeaky "dropped_leaky",
    /// Access units dropped after a loss, until the next keyframe.
    DroppedGate "dropped_gate",
    /// Frames left out by `max_fps`.
    DroppedRate "dropped_rate",
    /// Frames dropped because the ring could not take them.
    DroppedOverload "dropped_overload",
    /// Frames dropped because they were damaged.
    DroppedCorrupt "dropped_corrupt",
    /// Claims that found every slot leased.
    LeaseConflicts "lease_conflicts",
    /// Leased slots taken back.
    LeasesRevoked "leases_revoked",
    /// Claims that readers' locks made slow, while no pause was on because of them.
    LeaseLockSlow "lease_lock_slow",
    /// Names put back after somebody removed them.
    Relinked "relinked",
    /// Generations made so far.
    Generations "generations",
    /// Sessions after the first.
    Reconnects "reconnects",
    /// Errors and warnings of the decoder.
    DecodeErrors "decode_errors",
    /// Half-written slots found when the ring was adopted.
    TornRepaired "torn_repaired",
    /// Wake-up calls.
    WakeCalls "wake_calls",
    /// Wake-up calls that the kernel refused.
    WakeErrors "wake_errors",
    /// Wake-up calls that left sleepers for housekeeping.
    WakeOverflow "wake_overflow",
    /// Slowest publish, ns.
    PublishNsMax "publish_ns_max",
    /// Time spent in publish, ns.
    PublishNsSum "publish_ns_sum",
    /// Largest lag, ns.
    LagNsMax "lag_ns_max",
}

const _: () = assert!(Counter::ALL.len() <= crate::layout::COUNTERS);

impl Counter {
    pub(crate) const fn offset(self) -> u64 {
        at::COUNTERS + self as u64 * 8
    }
}

/// What the daemon's threads share about one ring.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Whose threads these are.
    pub(crate) origin: Origin,
    /// Generation, names and locks; taken at state changes and by housekeeping, never per frame.
    names: Mutex<Names>,
    /// More sleepers than one wake-up call takes.
    pub(crate) wake_overflow: AtomicBool,
    /// Both names of the generation are gone: the next frame goes into a new one.
    pub(crate) lost: AtomicBool,
    /// Until when readers are told to poll because the kernel has refused a wake-up; 0 = they are not.
    pub(crate) poll_until_ns: AtomicI64,
    /// What the publishing thread has to say about slow locks: the pause in ns, [`LOCKS_FINE`], or 0 = nothing new.
    locks_notice: AtomicI64,
    /// Wakes housekeeping, once there is one.
    pub(crate) bell: OnceLock<Bell>,
}

/// Lock calls are quick again.
const LOCKS_FINE: i64 = -1;

impl Shared {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            origin: Origin::here(),
            names: Mutex::new(names),
            wake_overflow: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            poll_until_ns: AtomicI64::new(0),
            locks_notice: AtomicI64::new(0),
            bell: OnceLock::new(),
        }
    }

    /// Has housekeeping look around now; one system call, never waits.
    pub(crate) fn wake_housekeeping(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    /// Leaves a word about slow locks for housekeeping, which tells the log; the newest word counts.
    pub(crate) fn tell_of_locks(&self, verdict: Verdict) {
        let notice = if let Verdict::Tripped(pause_ns) = verdict { pause_ns } else { LOCKS_FINE };
        self.locks_notice.store(notice, Ordering::Relaxed);
        self.wake_housekeeping();
    }

    /// The word left about slow locks, once.
    pub(crate) fn heard_of_locks(&self) -> Option<Verdict> {
        match self.locks_notice.swap(0, Ordering::Relaxed) {
            0 => None,
            LOCKS_FINE => Some(Verdict::FineAgain),
            pause_ns => Some(Verdict::Tripped(pause_ns)),
        }
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the header's state, counters and texts from any thread of the daemon; follows new generations.
///
/// In a forked child it writes nothing and reads zero: the ring is the parent's.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    pub(crate) shared: Arc<Shared>,
}

impl StatusHandle {
    /// Tells readers what the daemon is doing and wakes them.
    ///
    /// `next_retry_mono_ns` is a time of CLOCK_MONOTONIC. "State since" changes only when `state` does.
    pub fn set_state(&self, state: State, reason: Reason, attempt: u8, next_retry_mono_ns: Option<i64>) {
        self.store_state(state, reason, attempt, next_retry_mono_ns);
        self.wake_all();
    }

    fn store_state(&self, state: State, reason: Reason, attempt: u8, next_retry_mono_ns: Option<i64>) {
        let next = next_retry_mono_ns.map_or(0, |at| at.max(0).cast_unsigned());
        self.with_live(|live| {
            let map = &live.segment.map;
            let since = match head::load_state(map).state == state {
                true => head::load_u64(map, at::STATE_SINCE_MONO_NS),
                false => crate::clock::mono_ns().cast_unsigned(),
            };
            head::store_state(map, StateWord { state, reason, attempt }, since, next);
            head::bump_notify(map);
        });
    }

    /// Sets a counter that this thread alone writes.
    pub fn set_counter(&self, counter: Counter, value: u64) {
        self.with_live(|live| head::store_u64(&live.segment.map, counter.offset(), value));
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter, value: u64) {
        self.with_live(|live| head::add_u64(&live.segment.map, counter.offset(), value));
    }

    /// Raises a counter that holds a maximum.
    pub fn raise(&self, counter: Counter, value: u64) {
        self.with_live(|live| {
            live.segment.map.u64_at(counter.offset()).fetch_max(value, Ordering::Relaxed);
        });
    }

    /// The value of a counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.with_live(|live| head::load_u64(&live.segment.map, counter.offset()))
    }

    /// Counts a session that ended for `reason`.
    pub fn count_reconnect(&self, reason: Reason) {
        self.add(Counter::Reconnects, 1);
        let index = u64::from(reason.code()).min(31);
        self.with_live(|live| head::add_u64(&live.segment.map, at::RECONNECTS + index * 8, 1));
    }

    /// Number of the session with the camera that the next frames belong to; 0 before the first.
    #[must_use]
    pub fn session(&self) -> u32 {
        self.with_live(|live| head::load_u32(&live.segment.map, at::SESSION_ID))
    }

    /// Sets the number of the session that the next frames belong to.
    pub fn set_session(&self, session: u32) {
        self.with_live(|live| head::store_u32(&live.segment.map, at::SESSION_ID, session));
    }

    /// Names the decoder and the codec; at most 31 bytes of each are kept.
    pub fn set_text(&self, decoder: &str, codec: &str) {
        self.with_live(|live| head::store_text(&live.segment.map, &padded(decoder), &padded(codec)));
    }

    /// Whether a reader that counts itself is attached to the current generation; one system call.
    ///
    /// Where the kernel does not answer it is `true`: nobody is taken for absent by mistake.
    #[must_use]
    pub fn is_attended(&self) -> bool {
        let Some(live) = self.with_live(|live| Some(Arc::clone(live))) else { return false };
        let (segment, base) = (&live.segment, live.segment.layout.presence_lock_base);
        // A write lock is asked about, never taken: the answer is somebody's read lock, or that there is none.
        !matches!(conflicting(segment.fd.as_fd(), LockKind::Exclusive, base, PRESENCE_LOCK_SPAN), Ok(None))
    }

    /// Whether this ring has ever held a frame.
    #[must_use]
    pub fn had_frames(&self) -> bool {
        self.with_live(|live| head::load_head(&live.segment.map).is_some() || live.segment.layout.base_seq > 0)
    }

    /// The number of the newest frame, of an earlier generation if need be; the next one has the number after it.
    #[must_use]
    pub fn newest(&self) -> Sequence {
        let base_seq = |live: &Live| live.segment.layout.base_seq;
        self.with_live(|live| Sequence(head::load_head(&live.segment.map).map_or(base_seq(live), |head| head.seq)))
    }

    /// Ends the daemon's life on this ring in an orderly way: state `stopped`, no writer; the frames stay.
    pub fn stopped(&self, reason: Reason) {
        self.with_live(|live| head::store_u32(&live.segment.map, at::WRITER_PID, 0));
        crash::at(CrashPoint::StopPid);
        self.store_state(State::Stopped, reason, 0, None);
        crash::at(CrashPoint::StopState);
        self.wake_all();
    }

    pub(crate) fn heartbeat(&self) {
        self.with_live(|live| {
            let map = &live.segment.map;
            let now = crate::create::beat(map);
            let poll_until = self.shared.poll_until_ns.load(Ordering::Relaxed);
            if poll_until != 0 && now >= poll_until {
                self.shared.poll_until_ns.store(0, Ordering::Relaxed);
                head::store_u32(map, at::WAKE_MODE, 0);
            }
        });
    }

    pub(crate) fn process_stats(&self, stats: ProcessStats) {
        self.with_live(|live| {
            let map = &live.segment.map;
            head::store_u64(map, at::RSS_BYTES, stats.rss_bytes);
            head::store_u64(map, at::RSS_ANON_BYTES, stats.rss_anon_bytes);
            head::store_u64(map, at::CPU_USER_NS, stats.cpu_user_ns);
            head::store_u64(map, at::CPU_SYS_NS, stats.cpu_sys_ns);
            head::store_u32(map, at::THREADS, stats.threads);
            head::store_u32(map, at::OPEN_FDS, stats.open_fds);
        });
    }

    /// Wakes the sleepers that the publishing thread has left.
    pub(crate) fn wake_rest(&self) {
        if self.shared.wake_overflow.swap(false, Ordering::Relaxed) {
            self.wake_all();
        }
    }

    /// Wakes every sleeper, without holding the names meanwhile.
    fn wake_all(&self) {
        if let Some(live) = self.with_live(|live| Some(Arc::clone(live))) {
            wake_all(&live.segment.map);
        }
    }

    /// In a forked child nothing is touched, not even the mutex: another thread of the parent may have held it.
    fn with_live<T: Default>(&self, act: impl FnOnce(&Arc<Live>) -> T) -> T {
        if self.shared.origin.is_here() { act(&self.shared.names().live) } else { T::default() }
    }
}

fn padded(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    let mut len = text.len().min(31);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out[..len].copy_from_slice(&text.as_bytes()[..len]);
    out
}

/// A histogram of the header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Histogram {
    /// Values per bucket; bucket `i` holds values up to `64 us << i`, the last one all larger ones.
    pub buckets: [u64; BUCKETS],
    /// Sum of all values, ns.
    pub sum_ns: u64,
    /// Number of values.
    pub count: u64,
}

impl Histogram {
    pub(crate) fn record(region: &impl Region, offset: u64, value_ns: u64) {
        let units = value_ns.saturating_sub(1) / crate::layout::BUCKET_FIRST_NS;
        let bucket = (u64::BITS - units.leading_zeros()).min(BUCKETS as u32 - 1);
        let bump =
            |offset: u64, by: u64| head::store_u64(region, offset, head::load_u64(region, offset).wrapping_add(by));
        bump(offset + u64::from(bucket) * 8, 1);
        bump(offset + std::mem::offset_of!(HistogramBlock, sum_ns) as u64, value_ns);
        bump(offset + std::mem::offset_of!(HistogramBlock, count) as u64, 1);
    }

    fn load(region: &impl Region, offset: u64) -> Self {
        let word = |index: usize| head::load_u64(region, offset + index as u64 * 8);
        let mut buckets = [0; BUCKETS];
        for (index, bucket) in buckets.iter_mut().enumerate() {
            *bucket = word(index);
        }
        Self { buckets, sum_ns: word(BUCKETS), count: word(BUCKETS + 1) }
    }
}

/// Everything a header says about its camera and daemon, at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the daemon is doing.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// Attempts since the camera was last live, at most 255.
    pub attempt: u8,
    /// Since when, ns of CLOCK_MONOTONIC.
    pub state_since_mono_ns: u64,
    /// When the next attempt is due, ns of CLOCK_MONOTONIC; 0 = none.
    pub next_retry_mono_ns: u64,
    /// Number of the newest frame; 0 = none.
    pub seq: Sequence,
    /// When it was published, ns of CLOCK_MONOTONIC; 0 = never.
    pub last_publish_mono_ns: u64,
    /// Moving average between frames, us.
    pub frame_interval_us: u32,
    /// This generation.
    pub generation: Generation,
    /// Daemons that have owned this generation.
    pub writer_epoch: u32,
    /// The daemon's pid in its own namespace; 0 = stopped.
    pub writer_pid: u32,
    /// Sizes and formats in this generation.
    pub geometry_epoch: u32,
    /// Sessions with the camera.
    pub session_id: u32,
    /// Whether another generation has taken over.
    pub retired: bool,
    /// Counters, in the order of [`Counter::ALL`].
    pub counters: Vec<(&'static str, u64)>,
    /// Ended sessions by reason, zero counts left out.
    pub reconnects: Vec<(Reason, u64)>,
    /// From the decoder's delivery to publication.
    pub decode_to_publish: Histogram,
    /// Between two frames.
    pub frame_interval: Histogram,
    /// The decoder; empty before the first session.
    pub decoder: String,
    /// The stream's codec; empty before the first session.
    pub codec: String,
    /// Size of the capture process.
    pub process: ProcessStats,
    /// When it started, ns since 1970.
    pub process_start_real_ns: u64,
    /// The last sign of life, ns of CLOCK_MONOTONIC.
    pub heartbeat_mono_ns: u64,
}

impl Status {
    /// The value of one counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).map_or(0, |(_, value)| *value)
    }

    pub(crate) fn load(map: &impl Region, layout: &Layout) -> Self {
        let StateWord { state, reason, attempt } = head::load_state(map);
        let (decoder, codec) = (0..8).find_map(|_| head::load_text(map)).unwrap_or_default();
        let reconnects =
            (0..32u16).map(|code| (Reason::from_code(code), head::load_u64(map, at::RECONNECTS + u64::from(code) * 8)));
        Self {
            state,
            reason,
            attempt,
            state_since_mono_ns: head::load_u64(map, at::STATE_SINCE_MONO_NS),
            next_retry_mono_ns: head::load_u64(map, at::NEXT_RETRY_MONO_NS),
            seq: Sequence(head::load_head(map).map_or(0, |head| head.seq)),
            last_publish_mono_ns: head::load_u64(map, at::LAST_PUBLISH_MONO_NS),
            frame_interval_us: head::load_u32(map, at::FRAME_INTERVAL_US),
            generation: layout.ring_uuid,
            writer_epoch: head::load_u32(map, at::WRITER_EPOCH),
            writer_pid: head::load_u32(map, at::WRITER_PID),
            geometry_epoch: head::load_u32(map, at::GEOMETRY_EPOCH),
            session_id: head::load_u32(map, at::SESSION_ID),
            retired: head::load_retired(map) != Retired::No,
            counters: Counter::ALL.iter().map(|c| (c.word(), head::load_u64(map, c.offset()))).collect(),
            reconnects: reconnects.filter(|(_, count)| *count > 0).collect(),
            decode_to_publish: Histogram::load(map, at::DECODE_TO_PUBLISH),
            frame_interval: Histogram::load(map, at::FRAME_INTERVAL),
            decoder: text(&decoder),
            codec: text(&codec),
            process: ProcessStats {
                rss_bytes: head::load_u64(map, at::RSS_BYTES),
                rss_anon_bytes: head::load_u64(map, at::RSS_ANON_BYTES),
                cpu_user_ns: head::load_u64(map, at::CPU_USER_NS),
                cpu_sys_ns: head::load_u64(map, at::CPU_SYS_NS),
                threads: head::load_u32(map, at::THREADS),
                open_fds: head::load_u32(map, at::OPEN_FDS),
            },
            process_start_real_ns: head::load_u64(map, at::PROCESS_START_REAL_NS),
            heartbeat_mono_ns: head::load_u64(map, at::HEARTBEAT_MONO_NS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_documented_places() {
        assert_eq!(Counter::Packets.offset(), 0x280);
        assert_eq!(Counter::LagNsMax.offset(), 0x280 + 24 * 8);
        assert_eq!(Counter::ALL.len(), 25);
    }

    #[test]
    fn long_texts_are_cut_at_a_character_and_always_end_in_zero() {
        let cut = padded(&"ä".repeat(40));
        assert_eq!(text(&cut), "ä".repeat(15));
        assert_eq!(cut[31], 0);
    }
}
