//! Back-off: from a failure's class and count to the delay before the next try. Pure; reads no clock.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::source::RetryClass;

/// Most that is added to the first retry, so that cameras lost together do not come back in step.
const FIRST_JITTER: Duration = Duration::from_millis(250);
/// Ceiling of the second transient retry; doubled by each further one.
const BASE: Duration = Duration::from_millis(500);
/// Least wait for a camera that has no session left: it must first notice that ours is gone.
const BUSY: Duration = Duration::from_secs(5);

/// How soon to try again; the `reconnect` keys of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// Least wait before the first retry (`reconnect.first`).
    pub first: Duration,
    /// Longest wait after transient failures, and longest time from one try that hangs to the next (`reconnect.max`).
    pub max: Duration,
    /// Shortest and longest wait after permanent failures (`reconnect.permanent_retry`).
    pub permanent: RangeInclusive<Duration>,
    /// Shortest and longest wait after a refused login (`reconnect.auth_retry`).
    pub auth: RangeInclusive<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::ZERO,
            max: Duration::from_secs(5),
            permanent: Duration::from_secs(5)..=Duration::from_secs(60),
            auth: Duration::from_secs(60)..=Duration::from_secs(15 * 60),
        }
    }
}

/// The delay before the next try, after the `failures`-th failure of this class in a row (the first is 1).
///
/// `random` in 0..1 places it between its floor and its ceiling ("full jitter"); values outside are clamped.
/// Transient: 0 to 250 ms on top of `first`, then up to 0.5, 1, 2, 4 s, never over `max`, less `hung`: the time for
/// which the try got no packet, which was a pause already. So a try begins at least every `max` however long each one
/// hangs, and never sooner after the one before than 0 to 250 ms. Busy: the same on top of 5 s. Permanent and auth:
/// between the lower end of their range and a ceiling that doubles from there, never over the upper end.
#[must_use]
pub fn delay(class: RetryClass, failures: u32, policy: &RetryPolicy, random: f64, hung: Duration) -> Duration {
    match class {
        RetryClass::Transient if failures > 1 => {
            let apart = between(Duration::ZERO, FIRST_JITTER.min(policy.max), random);
            transient(failures, policy, random).saturating_sub(hung).max(apart)
        }
        RetryClass::Transient => transient(failures, policy, random),
        RetryClass::Busy => BUSY.saturating_add(transient(failures, policy, random)),
        RetryClass::Permanent => ranged(failures, &policy.permanent, random),
        RetryClass::Auth => ranged(failures, &policy.auth, random),
    }
}

fn transient(failures: u32, policy: &RetryPolicy, random: f64) -> Duration {
    if failures <= 1 {
        return between(policy.first, policy.first.saturating_add(FIRST_JITTER), random);
    }
    between(Duration::ZERO, doubled(BASE, failures - 2).min(policy.max), random)
}

fn ranged(failures: u32, range: &RangeInclusive<Duration>, random: f64) -> Duration {
    let (low, high) = (*range.start(), *range.end());
    between(low, doubled(low, failures.max(1)).min(high), random)
}

/// `base` times 2^`times`, saturating.
fn doubled(base: Duration, times: u32) -> Duration {
    base.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

fn between(low: Duration, high: Duration, random: f64) -> Duration {
    let span = high.saturating_sub(low);
    // NaN and what rounding pushes over the longest duration fall back to the whole span.
    let part = Duration::try_from_secs_f64(span.as_secs_f64() * random.clamp(0.0, 1.0)).unwrap_or(span);
    low.saturating_add(part.min(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(class: RetryClass, failures: u32) -> (u128, u128) {
        let policy = RetryPolicy::default();
        let wait = |random| delay(class, failures, &policy, random, Duration::ZERO).as_millis();
        (wait(0.0), wait(1.0))
    }

    #[test]
    fn transient_failures_are_retried_at_once_and_then_up_to_five_seconds_apart() {
        let ranges: Vec<_> = [1, 2, 3, 4, 5, 6, 7, 1000].map(|n| range(RetryClass::Transient, n)).into();
        let ceilings = [250, 500, 1000, 2000, 4000, 5000, 5000, 5000];
        assert_eq!(ranges, ceilings.map(|ceiling| (0, ceiling)));
    }

    #[test]
    fn a_busy_camera_is_left_alone_for_five_seconds() {
        assert_eq!(range(RetryClass::Busy, 1), (5000, 5250));
        assert_eq!(range(RetryClass::Busy, 9), (5000, 10_000));
    }

    #[test]
    fn permanent_failures_are_retried_every_five_to_sixty_seconds() {
        let ranges = [1, 2, 3, 4, 99].map(|n| range(RetryClass::Permanent, n));
        assert_eq!(ranges, [(5000, 10_000), (5000, 20_000), (5000, 40_000), (5000, 60_000), (5000, 60_000)]);
    }

    #[test]
    fn a_refused_login_waits_a_minute_at_least_and_a_quarter_of_an_hour_at_most() {
        let ranges = [1, 2, 3, 4, u32::MAX].map(|n| range(RetryClass::Auth, n));
        let ceilings = [120_000, 240_000, 480_000, 900_000, 900_000];
        assert_eq!(ranges, ceilings.map(|ceiling| (60_000, ceiling)));
    }

    /// How long a connect hangs.
    const HUNG: Duration = Duration::from_secs(4);

    #[test]
    fn a_try_that_hung_has_been_a_pause_already() {
        let policy = RetryPolicy::default();
        let wait = |class, random, hung| delay(class, 9, &policy, random, hung).as_millis();
        let transient = |random, hung| wait(RetryClass::Transient, random, hung);
        assert_eq!([0.0, 0.5, 1.0].map(|random| transient(random, HUNG)), [0, 125, 1000]);
        assert_eq!([0.0, 1.0].map(|random| transient(random, HUNG * 3)), [0, 250], "never all at the same moment");
        for class in [RetryClass::Busy, RetryClass::Permanent, RetryClass::Auth] {
            assert_eq!(
                wait(class, 1.0, HUNG),
                wait(class, 1.0, Duration::ZERO),
                "{class:?} is asked slowly on purpose"
            );
        }
    }

    #[test]
    fn the_first_retry_keeps_its_configured_floor() {
        let policy = RetryPolicy { first: Duration::from_secs(2), ..RetryPolicy::default() };
        assert_eq!(delay(RetryClass::Transient, 1, &policy, 0.0, HUNG), Duration::from_secs(2));
        assert_eq!(delay(RetryClass::Transient, 1, &policy, 1.0, HUNG), Duration::from_millis(2250));
    }

    #[test]
    fn no_input_makes_it_panic_or_leave_its_range() {
        let policy = RetryPolicy {
            first: Duration::MAX,
            max: Duration::MAX,
            permanent: Duration::from_secs(9)..=Duration::from_secs(3),
            auth: Duration::from_secs(1 << 40)..=Duration::MAX,
        };
        for class in [RetryClass::Transient, RetryClass::Busy, RetryClass::Permanent, RetryClass::Auth] {
            for failures in [0, 1, 2, 31, 32, 33, 64, 65, u32::MAX] {
                for random in [-1.0, 0.0, 0.5, 2.0, f64::NAN, f64::INFINITY] {
                    let wait = delay(class, failures, &policy, random, Duration::MAX);
                    assert!(class != RetryClass::Permanent || wait == Duration::from_secs(9), "{wait:?}");
                }
            }
        }
    }
}
