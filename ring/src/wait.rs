//! Sleeping until something changes, and waking those who sleep; on a word that readers cannot write.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags};
use rustix::time::ClockId;

use crate::clock::pause;
use crate::layout::at;
use crate::sync::{AtomicU32, Region};

/// At most so many sleepers are woken by the publishing thread; housekeeping wakes the rest.
pub(crate) const WAKE_MAX: u32 = 32;
/// How many housekeeping wakes at a time.
pub(crate) const WAKE_STEP: u32 = 256;

/// Wakes at most `count` sleepers; returns how many.
pub(crate) fn wake(region: &impl Region, count: u32) -> Result<usize, Errno> {
    futex::wake(region.u32_at(at::NOTIFY), Flags::empty(), count)
}

/// Wakes the sleepers in steps, until the kernel has no more or refuses, and never more than 16,384: threads that
/// sleep again at once could keep the waker busy for ever.
pub(crate) fn wake_all(region: &impl Region) {
    for _ in 0..WAKE_STEPS_MAX {
        match wake(region, WAKE_STEP) {
            Ok(woken) if woken >= WAKE_STEP as usize => {}
            Ok(_) | Err(_) => return,
        }
    }
}

const WAKE_STEPS_MAX: u32 = 64;

/// Wakes everybody who sleeps on a word of this process.
pub(crate) fn wake_word(word: &AtomicU32) {
    // The word is one of ours: the call cannot fail, and its sleepers have a time limit besides.
    let _ = futex::wake(word, Flags::empty(), u32::MAX >> 1);
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Woken {
    /// By a wake-up call.
    Called,
    /// The time was up.
    Timeout,
    /// By a signal, or because the word had changed already.
    Otherwise,
}

/// Sleeps until the word differs from `seen`, somebody wakes us, or `limit` is over.
///
/// The word may lie in a read-only mapping: the kernel keys the sleep by the file's page.
pub(crate) fn sleep(region: &impl Region, seen: u32, limit: Duration) -> Woken {
    let timeout = timespec(limit);
    match futex::wait(region.u32_at(at::NOTIFY), Flags::empty(), seen, Some(&timeout)) {
        Err(Errno::TIMEDOUT) => Woken::Timeout,
        Ok(()) => Woken::Called,
        Err(Errno::AGAIN | Errno::INTR) => Woken::Otherwise,
        Err(_) => {
            // A sandbox refuses futexes: sleep the time out instead, so that the caller polls and never spins.
            pause(limit.min(SLICE_SHORT));
            Woken::Timeout
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: i64::from(time.subsec_nanos()) }
}

/// Words that one call can sleep on.
pub(crate) const WAITV_MAX: usize = 128;

/// Why a sleep on several words ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WokenOf {
    /// By a wake-up call on this one.
    One(usize),
    Timeout,
    /// By a signal, or because a word had changed already.
    Otherwise,
}

/// Sleeps until one of at most [`WAITV_MAX`] words differs from what was seen of it, or `limit` is over.
///
/// # Errors
///
/// When the kernel (before 5.16) or a sandbox knows no such call, or has no memory for it.
pub(crate) fn sleep_on_any(words: &[(&AtomicU32, u32)], limit: Duration) -> Result<WokenOf, Errno> {
    let wait = |(word, seen): &(&AtomicU32, u32)| {
        let mut wait = Wait::new();
        wait.val = u64::from(*seen);
        wait.uaddr = WaitPtr::new(word.as_ptr().cast());
        wait.flags = WaitFlags::SIZE_U32;
        wait
    };
    let waits: Vec<Wait> = words.iter().map(wait).collect();
    // This call takes a point in time, the one for a single word a duration.
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let end = Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32).saturating_add(limit);
    match futex::waitv(&waits, WaitvFlags::empty(), Some(&timespec(end)), ClockId::Monotonic) {
        Ok(index) => Ok(WokenOf::One(index)),
        Err(Errno::TIMEDOUT) => Ok(WokenOf::Timeout),
        Err(Errno::AGAIN | Errno::INTR) => Ok(WokenOf::Otherwise),
        Err(error) => Err(error),
    }
}

/// Longest sleep without looking again: bounds the harm of a lost wake-up.
const SLICE_LONG: Duration = Duration::from_millis(250);
/// The slice after a wake-up was missed, or while the writer cannot wake anybody.
pub(crate) const SLICE_SHORT: Duration = Duration::from_millis(2);
/// Real wake-ups in a row after which the slice grows again.
const CALM_WAKES: u32 = 100;

/// How long to sleep at a time; shrinks when wake-ups get lost and recovers when they come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    current: Duration,
    real_wakes: u32,
    pub(crate) missed_wakes: u64,
}

impl Default for Slice {
    fn default() -> Self {
        Self { current: SLICE_LONG, real_wakes: 0, missed_wakes: 0 }
    }
}

impl Slice {
    /// The next sleep, never longer than what remains until `deadline`.
    pub(crate) fn next(&self, deadline: Option<Instant>, writer_polls: bool) -> Duration {
        let slice = if writer_polls { SLICE_SHORT } else { self.current };
        deadline.map_or(slice, |deadline| slice.min(deadline.saturating_duration_since(Instant::now())))
    }

    /// Adapts to what ended a sleep; `changed`: whether the word had moved by then.
    pub(crate) fn learn(&mut self, woken: Woken, changed: bool) {
        match (woken, changed) {
            (Woken::Called, true) => self.woken(),
            (Woken::Timeout, true) => self.missed(),
            // Any reader can wake the others for nothing, and lengthen their slices before it kidnaps them.
            (Woken::Called, false) | (Woken::Timeout, false) | (Woken::Otherwise, _) => {}
        }
    }

    /// A wake-up came in time.
    fn woken(&mut self) {
        self.real_wakes += 1;
        if self.real_wakes >= CALM_WAKES {
            self.real_wakes = 0;
            self.current = (self.current * 2).min(SLICE_LONG);
        }
    }

    /// The time was up although something had changed: nobody woke us.
    fn missed(&mut self) {
        self.missed_wakes += 1;
        self.real_wakes = 0;
        self.current = SLICE_SHORT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_wake_shortens_the_slice_until_wakes_come_again() {
        let mut slice = Slice::default();
        assert_eq!(slice.next(None, false), SLICE_LONG);
        slice.missed();
        assert_eq!(slice.next(None, false), SLICE_SHORT);
        for _ in 0..CALM_WAKES * 7 {
            slice.woken();
        }
        assert_eq!(slice.next(None, false), SLICE_LONG);
        assert_eq!(slice.missed_wakes, 1);
    }

    #[test]
    fn wake_ups_without_news_do_not_lengthen_a_slice() {
        let mut slice = Slice::default();
        slice.learn(Woken::Timeout, true);
        for _ in 0..CALM_WAKES * 7 {
            slice.learn(Woken::Called, false);
            slice.learn(Woken::Otherwise, true);
        }
        assert_eq!((slice.next(None, false), slice.missed_wakes), (SLICE_SHORT, 1));
        for _ in 0..CALM_WAKES * 7 {
            slice.learn(Woken::Called, true);
        }
        assert_eq!(slice.next(None, false), SLICE_LONG);
    }

    #[test]
    fn a_writer_that_cannot_wake_makes_readers_poll() {
        assert_eq!(Slice::default().next(None, true), SLICE_SHORT);
    }
}
