//! What a source learns in one session and keeps for the next ones.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Facts about one camera; lost when the process ends.
#[derive(Debug)]
pub(super) struct Lessons {
    /// UDP packets do not get through: `transport = "auto"` goes straight to TCP.
    pub tcp_only: AtomicBool,
    /// The camera marks every slice as the end of a picture: the parser must put pictures together.
    pub parse_units: AtomicBool,
    /// A picture that the camera marked as ended had ended.
    pub true_marker: AtomicBool,
    /// The hardware decoder failed twice: decode in software from now on.
    pub software: AtomicBool,
    last_decoder_error_ns: AtomicI64,
}

/// Two decoder errors within this time make a decoder unfit.
const ERROR_WINDOW_NS: i64 = 60_000_000_000;

impl Lessons {
    pub(super) fn new() -> Self {
        Self {
            tcp_only: AtomicBool::new(false),
            parse_units: AtomicBool::new(false),
            true_marker: AtomicBool::new(false),
            software: AtomicBool::new(false),
            last_decoder_error_ns: AtomicI64::new(i64::MIN),
        }
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
    fn two_decoder_errors_in_a_minute_count_and_two_in_an_hour_do_not() {
        let lessons = Lessons::new();
        let second = 1_000_000_000;
        assert!(!lessons.decoder_failed(0));
        assert!(!lessons.decoder_failed(60 * second));
        assert!(lessons.decoder_failed(119 * second));
    }
}
