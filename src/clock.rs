//! The clock: the only file that reads the time or arms a timer, so that tests can turn the hands themselves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// A moment: nanoseconds of CLOCK_MONOTONIC, the clock of every time in the ring.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mono(pub i64);

impl Mono {
    /// The moment `wait` later; the last one there is when it would lie beyond it.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// What tells the time and wakes a waiter.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Mono;

    /// A channel that gets one message when `moment` comes, at once when it is over; to be used in a `select!`.
    ///
    /// The message itself means nothing. Dropping the channel cancels the alarm.
    fn alarm(&self, moment: Mono) -> Receiver<Instant>;
}

/// The machine's CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Mono {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Mono(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec))
    }

    fn alarm(&self, moment: Mono) -> Receiver<Instant> {
        let wait = moment.since(self.now());
        match Instant::now().checked_add(wait) {
            Some(when) => crossbeam_channel::at(when),
            None => crossbeam_channel::never(),
        }
    }
}

/// A clock that stands still until a test advances it.
#[derive(Debug, Default)]
pub struct TestClock {
    hands: Mutex<Hands>,
}

#[derive(Debug, Default)]
struct Hands {
    now: Mono,
    alarms: Vec<(Mono, Sender<Instant>)>,
}

impl TestClock {
    /// A clock that shows 1000 s, so that no moment is mistaken for "never".
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { hands: Mutex::new(Hands { now: Mono(1_000_000_000_000), alarms: Vec::new() }) })
    }

    /// Moves the time on by `step` and rings every alarm that is due then.
    pub fn advance(&self, step: Duration) {
        let mut hands = self.hands();
        hands.now = hands.now.after(step);
        let now = hands.now;
        hands.alarms.retain(|(moment, bell)| {
            let due = *moment <= now;
            if due {
                ring(bell);
            }
            !due
        });
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ring(bell: &Sender<Instant>) {
    // A waiter that has gone away has cancelled its alarm.
    let _ = bell.try_send(Instant::now());
}

impl Clock for TestClock {
    fn now(&self) -> Mono {
        self.hands().now
    }

    fn alarm(&self, moment: Mono) -> Receiver<Instant> {
        let (bell, alarm) = bounded(1);
        let mut hands = self.hands();
        if moment > hands.now {
            hands.alarms.push((moment, bell));
        } else {
            ring(&bell);
        }
        alarm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_clock_rings_an_alarm_exactly_when_its_moment_has_come() {
        let clock = TestClock::new();
        let alarm = clock.alarm(clock.now().after(Duration::from_secs(2)));
        clock.advance(Duration::from_millis(1999));
        assert!(alarm.try_recv().is_err());
        clock.advance(Duration::from_millis(1));
        assert!(alarm.try_recv().is_ok());
    }

    #[test]
    fn an_alarm_for_the_past_rings_at_once() {
        let clock = TestClock::new();
        assert!(clock.alarm(clock.now()).try_recv().is_ok());
        assert!(SystemClock.alarm(Mono(0)).recv().is_ok());
    }

    #[test]
    fn moments_saturate_instead_of_overflowing() {
        assert_eq!(Mono(i64::MAX).after(Duration::MAX), Mono(i64::MAX));
        assert_eq!(Mono(5).since(Mono(9)), Duration::ZERO);
        assert_eq!(Mono(i64::MAX).since(Mono(i64::MIN)), Duration::from_nanos(i64::MAX as u64));
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let earlier = SystemClock.now();
        assert!(SystemClock.now() >= earlier && earlier.0 > 0);
    }
}
