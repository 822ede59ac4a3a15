//! The three clocks of the ring, in nanoseconds, and a sleep that ends on time.

use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// CLOCK_MONOTONIC: the base of every age on one host.
#[must_use]
pub fn mono_ns() -> i64 {
    read(ClockId::Monotonic)
}

/// CLOCK_REALTIME: ns since 1970; may step, for people and joins only.
#[must_use]
pub fn real_ns() -> i64 {
    read(ClockId::Realtime)
}

/// CLOCK_BOOTTIME - CLOCK_MONOTONIC: how long the machine has been suspended.
#[must_use]
pub fn boot_minus_mono_ns() -> i64 {
    closest(|| {
        let before = read(ClockId::Monotonic);
        let boot = read(ClockId::Boottime);
        let after = read(ClockId::Monotonic);
        (after - before, boot - (before + after) / 2)
    })
}

/// Looks at two clocks that took no longer are close enough.
const CLOSE_NS: i64 = 500_000;
/// So often two clocks are looked at until a look was close enough.
const LOOKS: usize = 10;

/// The difference that was found by the look that took least, of a few: a thread that waits for a processor between two
/// clocks finds half of its wait in their difference.
fn closest(mut look: impl FnMut() -> (i64, i64)) -> i64 {
    let mut best = look();
    for _ in 1..LOOKS {
        if best.0 <= CLOSE_NS {
            break;
        }
        let next = look();
        if next.0 < best.0 {
            best = next;
        }
    }
    best.1
}

/// Sleeps for `time`, at most an hour, whatever signals arrive meanwhile.
///
/// Until a point in time, not for what is left of a span: that is what `std::thread::sleep` asks for again after every
/// signal, and where signals come faster than the kernel's slack for timers (50 us), it never ends.
pub(crate) fn pause(time: Duration) {
    let time = time.min(Duration::from_secs(3600));
    let end = mono_ns() + i64::try_from(time.as_nanos()).expect("an hour of nanoseconds");
    let end = Timespec { tv_sec: end / 1_000_000_000, tv_nsec: end % 1_000_000_000 };
    while clock_nanosleep_absolute(ClockId::Monotonic, &end) == Err(Errno::INTR) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_between_two_clocks_is_no_difference_of_theirs() {
        let found = |looks: &[(i64, i64)]| {
            let mut next = looks.iter().copied().cycle();
            closest(|| next.next().expect("endless"))
        };
        assert_eq!(found(&[(40, 7)]), 7);
        assert_eq!(found(&[(400_000_000, 200_000_000), (60, 7), (40, 8)]), 7);
        assert_eq!(found(&[(400_000_000, 200_000_000), (600_000, 300_000), (900_000, 450_000)]), 300_000);
    }
}
