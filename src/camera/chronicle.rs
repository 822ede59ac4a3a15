//! The chronicle: one log line per change, and a repeated one at most once a minute.

use std::collections::HashMap;
use std::time::Duration;

use camring_ring::frame::{Reason, State};
use tracing::{debug, error, info, warn};

use super::watch::{Ending, tenths};
use crate::clock::Mono;
use crate::source::RetryClass;

/// Least time between two lines that say the same.
const QUIET: Duration = Duration::from_secs(60);

/// Writes the supervisor's log. Holds one entry per (state, reason), so it is bounded by their number.
#[derive(Debug)]
pub(crate) struct Chronicle {
    camera: String,
    lines: HashMap<(State, Reason), Line>,
}

#[derive(Debug)]
struct Line {
    written: Mono,
    held_back: u64,
}

impl Chronicle {
    pub(crate) fn new(camera: String) -> Self {
        Self { camera, lines: HashMap::new() }
    }

    pub(crate) fn camera(&self) -> &str {
        &self.camera
    }

    /// The camera is well: whatever fails next is news.
    pub(crate) fn forget(&mut self) {
        self.lines.clear();
    }

    pub(crate) fn connecting(&self, state: State, attempt: u8) {
        debug!(camera = self.camera, %state, attempt, "connecting");
    }

    pub(crate) fn live(&mut self, now: Mono, attempt: u8) {
        if let Some(repeats) = self.admit(State::Live, Reason::None, now) {
            info!(camera = self.camera, state = %State::Live, attempt, repeats, "live");
        }
    }

    pub(crate) fn degraded(&mut self, now: Mono, reason: Reason) {
        if let Some(repeats) = self.admit(State::Degraded, reason, now) {
            warn!(camera = self.camera, state = %State::Degraded, %reason, repeats, "frames are missing or late");
        }
    }

    /// A session ended or did not begin; `wait` until the next try.
    pub(crate) fn failed(&mut self, now: Mono, state: State, ending: &Ending, attempt: u8, wait: Duration) {
        let Some(repeats) = self.admit(state, ending.why.reason, now) else { return };
        let camera = self.camera.as_str();
        let reason = ending.why.reason;
        let silent_ms = ending.silent.map(millis);
        let retry_in_ms = millis(wait);
        let what = &ending.why.message;
        let next = tenths(wait);
        match ending.why.class {
            RetryClass::Transient | RetryClass::Busy => {
                warn!(camera, %state, %reason, attempt, retry_in_ms, silent_ms, repeats, "{what}; next try in {next}");
            }
            RetryClass::Permanent | RetryClass::Auth => {
                error!(camera, %state, %reason, attempt, retry_in_ms, silent_ms, repeats, "{what}; next try in {next}");
            }
        }
    }

    pub(crate) fn notice(&self, text: &str) {
        info!(camera = self.camera, "{text}");
    }

    pub(crate) fn decoder(&self, codec: &str, decoder: &str) {
        info!(camera = self.camera, codec, decoder, "decoder chosen");
    }

    pub(crate) fn stopped(&self, clean: bool) {
        let how = if clean { "stopped" } else { "stopped while the session was still ending" };
        info!(camera = self.camera, state = %State::Stopped, "{how}");
    }

    pub(crate) fn overran(&self, reason: Reason, within: Duration) {
        let limit = humantime::format_duration(within);
        let state = State::Restarting;
        error!(camera = self.camera, %state, %reason, "the session did not end within {limit}; the process is replaced");
    }

    /// `Some(lines held back since)` when a line may be written.
    fn admit(&mut self, state: State, reason: Reason, now: Mono) -> Option<u64> {
        let line = self.lines.entry((state, reason)).or_insert(Line { written: Mono(i64::MIN), held_back: 0 });
        if now.since(line.written) < QUIET {
            line.held_back += 1;
            return None;
        }
        let held_back = line.held_back;
        *line = Line { written: now, held_back: 0 };
        Some(held_back)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_written_once_a_minute_with_a_count() {
        let mut chronicle = Chronicle::new("yard".into());
        let written: Vec<_> = (0..130)
            .filter_map(|second| {
                let now = Mono(0).after(Duration::from_secs(second));
                chronicle.admit(State::Reconnecting, Reason::ConnectRefused, now).map(|held| (second, held))
            })
            .collect();
        assert_eq!(written, [(0, 0), (60, 59), (120, 59)]);
    }

    #[test]
    fn another_failure_and_a_failure_after_recovery_are_written_at_once() {
        let mut chronicle = Chronicle::new("yard".into());
        let mut refused = || chronicle.admit(State::Reconnecting, Reason::ConnectRefused, Mono(1));
        assert_eq!((refused(), refused()), (Some(0), None));
        assert_eq!(chronicle.admit(State::Reconnecting, Reason::Dns, Mono(1)), Some(0));
        chronicle.forget();
        assert_eq!(chronicle.admit(State::Reconnecting, Reason::ConnectRefused, Mono(1)), Some(0));
    }
}
