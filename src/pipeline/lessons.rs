//! What a source learns in one session and keeps for the next ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use super::arrival::FewestSlices;

/// Facts about one camera; lost when the process ends.
#[derive(Debug)]
pub(super) struct Lessons {
    /// UDP packets do not get through: `transport = "auto"` goes straight to TCP.
    pub tcp_only: AtomicBool,
    /// The camera marks every slice as the end of a picture: the parser must put pictures together.
    pub parse_units: AtomicBool,
    /// What the camera's whole pictures consist of at least.
    pub fewest_slices: Arc<FewestSlices>,
    /// The hardware decoder failed twice: decode in software from now on.
    pub software: AtomicBool,
    last_decoder_error_ns: AtomicI64,
    /// Packets were seen to come within [`PROMPT`] of the camera's agreement.
    prompt: AtomicBool,
    /// Sessions in a row in which they did not.
    silent: AtomicU32,
}

/// Within this a camera begins to send, once it has agreed to.
const PROMPT: Duration = Duration::from_secs(3);

/// Two decoder errors within this time make a decoder unfit.
const ERROR_WINDOW_NS: i64 = 60_000_000_000;

impl Lessons {
    pub(super) fn new() -> Self {
        Self {
            tcp_only: AtomicBool::new(false),
            parse_units: AtomicBool::new(false),
            fewest_slices: Arc::default(),
            software: AtomicBool::new(false),
            last_decoder_error_ns: AtomicI64::new(i64::MIN),
            prompt: AtomicBool::new(false),
            silent: AtomicU32::new(0),
        }
    }

    /// How long the first packet of this session is waited for; doubles with each session in which none came, so that
    /// a camera that has become slow is reached all the same.
    pub(super) fn packet_patience(&self) -> Duration {
        PROMPT.saturating_mul(1_u32.checked_shl(self.silent.load(Ordering::Relaxed)).unwrap_or(u32::MAX))
    }

    /// That time is over, and packets came or did not; true when the session is to be given up. A camera that was
    /// never seen to be prompt is left to the supervisor's patience.
    pub(super) fn is_silent(&self, packets_came: bool) -> bool {
        if packets_came {
            self.silent.store(0, Ordering::Relaxed);
            self.prompt.store(true, Ordering::Relaxed);
            return false;
        }
        let prompt = self.prompt.load(Ordering::Relaxed);
        if prompt {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
        prompt
    }

    /// Notes an error of the decoder; true when it is the second one within 60 s.
    pub(super) fn decoder_failed(&self, now_ns: i64) -> bool {
        let last = self.last_decoder_error_ns.swap(now_ns, Ordering::Relaxed);
        now_ns.saturating_sub(last) < ERROR_WINDOW_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_is_prompt_is_given_little_time_and_twice_as_much_the_next() {
        let lessons = Lessons::new();
        let patience = |packets_came| (lessons.packet_patience().as_secs(), lessons.is_silent(packets_came));
        assert_eq!([patience(false), patience(false)], [(3, false), (3, false)], "it may need longer");
        let judged = [true, false, false, false, true, false].map(patience);
        assert_eq!(judged, [(3, false), (3, true), (6, true), (12, true), (24, false), (3, true)]);
    }

    #[test]
    fn two_decoder_errors_in_a_minute_count_and_two_in_an_hour_do_not() {
        let lessons = Lessons::new();
        let second = 1_000_000_000;
        assert!(!lessons.decoder_failed(0));
        assert!(!lessons.decoder_failed(60 * second));
        assert!(lessons.decoder_failed(119 * second));
    }
}
