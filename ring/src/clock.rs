//! The three clocks of the ring, in nanoseconds.

use rustix::time::{ClockId, clock_gettime};

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
    let before = read(ClockId::Monotonic);
    let boot = read(ClockId::Boottime);
    let after = read(ClockId::Monotonic);
    boot - (before + after) / 2
}
