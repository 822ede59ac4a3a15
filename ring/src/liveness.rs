//! How old a frame is, and whether a daemon is there: what a reader may conclude from clocks, heartbeats and locks.

use std::time::{Duration, Instant};

use crate::attach::{AliveByte, Attachment, stated_pid};
use crate::clock::{boot_minus_mono_ns, mono_ns, real_ns};
use crate::error::ReadError;
use crate::frame::FrameMeta;
use crate::head;
use crate::layout::at;
use crate::reader::{Frame, Ring};
use crate::sync::Region;

/// A heartbeat that has changed within this time is a living daemon.
const HEARTBEAT_FRESH: Duration = Duration::from_secs(1);
/// Jitter between two clocks of a machine that was not suspended.
const CLOCK_JITTER_NS: u64 = 1_000_000;

/// Whether a daemon is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Liveness {
    /// It shows signs of life.
    Alive,
    /// It holds its lock but has not moved for a second: stopped, overloaded, or just back from a suspend.
    Hung,
    /// There is none.
    Gone,
}

/// How old a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Age {
    /// Time since the picture's last packet arrived, ns; negative when the clocks contradict each other.
    pub ns: i64,
    /// Taken from the wall clock, which may have been set meanwhile.
    pub approximate: bool,
}

/// The daemon's heartbeat as one handle has seen it: only its changes count, never its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    beat: u64,
    /// When this beat was seen first and last.
    first: Instant,
    latest: Instant,
    /// When it was last seen to change, if both looks were less than a second apart.
    moved: Option<Instant>,
}

impl Pulse {
    pub(crate) fn new(map: &impl Region, now: Instant) -> Self {
        Self { beat: head::load_u64(map, at::HEARTBEAT_MONO_NS), first: now, latest: now, moved: None }
    }

    fn observe(&mut self, beat: u64, now: Instant) {
        if beat != self.beat {
            // After a longer pause the change may be old: the daemon may have died right after it.
            self.moved = (now.duration_since(self.latest) < HEARTBEAT_FRESH).then_some(now);
            (self.beat, self.first) = (beat, now);
        }
        self.latest = now;
    }

    fn moves(&self, now: Instant) -> bool {
        self.moved.is_some_and(|moved| now.duration_since(moved) < HEARTBEAT_FRESH)
    }

    fn stands_still(&self, now: Instant) -> bool {
        now.duration_since(self.first) >= HEARTBEAT_FRESH
    }
}

/// The order of the evidence: a heartbeat seen moving, then the lock, and a beat that has not been watched for long
/// enough by its time, where the clock is a common one.
fn judge(
    moves: bool,
    stands_still: bool,
    fresh_by_clock: Option<bool>,
    alive_byte: impl FnOnce() -> AliveByte,
) -> Liveness {
    if moves {
        return Liveness::Alive;
    }
    let still = stands_still || fresh_by_clock == Some(false);
    match alive_byte() {
        AliveByte::Free => Liveness::Gone,
        AliveByte::Held if still => Liveness::Hung,
        AliveByte::Held => Liveness::Alive,
        // A reader squats on the byte, or a sandbox does not tell: only the heartbeat counts, and it is not seen to move.
        AliveByte::Unclear if still || fresh_by_clock.is_none() => Liveness::Gone,
        AliveByte::Unclear => Liveness::Alive,
    }
}

/// Age of a frame now, ns: how long ago its last packet arrived, time suspended included.
///
/// For a process in the daemon's own time namespace; [`Ring::age`] is for all.
#[must_use]
pub fn age_ns(meta: &FrameMeta) -> i64 {
    let suspended = boot_minus_mono_ns().saturating_sub(meta.boot_minus_mono_ns);
    let suspended = if suspended.unsigned_abs() < CLOCK_JITTER_NS { 0 } else { suspended };
    mono_ns().saturating_sub(meta.arrival_mono_ns).saturating_add(suspended)
}

/// Whether two processes share their monotonic clock; `None` when the kernel does not tell one of them.
fn same_clock(ours: u64, theirs: u64) -> Option<bool> {
    if ours == 0 || theirs == 0 { None } else { Some(ours == theirs) }
}

impl Ring {
    /// Whether a daemon is there.
    ///
    /// A heartbeat that this handle has seen moving within the last second settles it, whatever the clocks say. Else
    /// the daemon's lock does, or, while a reader squats on that lock, a heartbeat that looks fresh. A daemon that
    /// was killed may be called alive for a second more by a handle that has just seen its heart beat.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        let attachment = self.current();
        let map = &attachment.segment.map;
        let handle = self.handle();
        let mut inner = handle.lock();
        let now = Instant::now();
        let beat = head::load_u64(map, at::HEARTBEAT_MONO_NS);
        if std::sync::Arc::ptr_eq(&attachment, &inner.current) {
            inner.pulse.observe(beat, now);
        }
        // A daemon that has said goodbye is believed.
        let moves = inner.pulse.moves(now) && stated_pid(&attachment.segment) != 0;
        let still = inner.pulse.stands_still(now);
        drop(inner);
        let common = same_clock(handle.time_namespace, head::load_u64(map, at::TIME_NS_INO)) == Some(true);
        judge(moves, still, common.then(|| is_fresh(beat)), || attachment.alive_byte())
    }

    /// How old a frame of this ring is now: the time since its picture's last packet arrived.
    ///
    /// Time that the machine was suspended counts. When this process and the daemon are in different time namespaces
    /// their monotonic clocks have nothing in common: then the wall clock is taken, and the age is `approximate`, as
    /// it is when the kernel does not tell.
    #[must_use]
    pub fn age(&self, meta: &FrameMeta) -> Age {
        let attachment = self.attached();
        self.age_at(meta, &attachment)
    }

    fn age_at(&self, meta: &FrameMeta, attachment: &Attachment) -> Age {
        let theirs = head::load_u64(&attachment.segment.map, at::TIME_NS_INO);
        match same_clock(self.handle().time_namespace, theirs) {
            Some(false) => Age { ns: real_ns().saturating_sub(meta.arrival_real_ns), approximate: true },
            known => Age { ns: age_ns(meta), approximate: known.is_none() },
        }
    }

    /// As [`Ring::latest`], but refuses a frame older than `limit`. A frame from the future is never fresh.
    ///
    /// # Errors
    ///
    /// [`ReadError::Stale`] with age and state; else as `latest`.
    pub fn latest_within(&self, buffer: &mut Vec<u8>, limit: Duration) -> Result<Frame, ReadError> {
        let frame = self.latest(buffer)?;
        let age = self.age(&frame.meta).ns;
        if u128::try_from(age).is_ok_and(|age| age <= limit.as_nanos()) {
            return Ok(frame);
        }
        let word = head::load_state(&self.current().segment.map);
        Err(ReadError::Stale {
            ring: self.name().to_owned(),
            age_ms: age / 1_000_000,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            state: word.state,
            reason: word.reason,
        })
    }
}

/// Whether a heartbeat of our own clock is less than a second old.
fn is_fresh(beat: u64) -> bool {
    let age = mono_ns().saturating_sub(beat.cast_signed());
    (0..HEARTBEAT_FRESH.as_nanos() as i64).contains(&age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use AliveByte::{Free, Held, Unclear};
    use Liveness::{Alive, Gone, Hung};

    fn pulse(now: Instant) -> Pulse {
        Pulse { beat: 1, first: now, latest: now, moved: None }
    }

    #[test]
    fn a_heartbeat_seen_moving_within_a_second_outweighs_the_lock_and_the_clock() {
        for byte in [Free, Held, Unclear] {
            assert_eq!(judge(true, false, Some(false), || byte), Alive, "{byte:?}");
        }
    }

    #[test]
    fn without_movement_the_lock_decides_and_time_tells_hung_from_alive() {
        assert_eq!(judge(false, true, Some(true), || Free), Gone);
        assert_eq!(judge(false, true, Some(true), || Held), Hung, "watched for a second without a beat");
        assert_eq!(judge(false, false, Some(false), || Held), Hung, "old by a common clock");
        assert_eq!(judge(false, false, Some(true), || Held), Alive);
        assert_eq!(judge(false, false, None, || Held), Alive, "not watched for long enough to tell");
        assert_eq!(judge(false, false, Some(true), || Unclear), Alive);
        assert_eq!(judge(false, false, None, || Unclear), Gone, "nothing speaks for a daemon");
        assert_eq!(judge(false, true, None, || Unclear), Gone);
    }

    #[test]
    fn a_change_counts_only_between_two_looks_of_one_second() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut seen = pulse(start);
        seen.observe(2, after(200));
        assert!(seen.moves(after(1100)) && !seen.stands_still(after(1100)));
        assert!(!seen.moves(after(1300)) && seen.stands_still(after(1300)));
        let mut rare = pulse(start);
        rare.observe(2, after(5000));
        assert!(!rare.moves(after(5000)), "it may have died four seconds ago");
        rare.observe(3, after(5200));
        assert!(rare.moves(after(5200)));
    }

    #[test]
    fn clocks_are_common_only_when_both_sides_say_so() {
        assert_eq!((same_clock(7, 7), same_clock(7, 8), same_clock(0, 8)), (Some(true), Some(false), None));
    }
}
