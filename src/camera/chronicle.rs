//! The chronicle: one log line per change, and a repeated one at most once a minute.

use std::collections::HashMap;
use std::time::Duration;

use camring_ring::frame::{Reason, State};
use tracing::{debug, error, info, warn};

use super::watch::{Ending, tenths};
use crate::clock::Mono;
use crate::source::{Demand, RetryClass};

/// Least time between two lines that say the same.
const QUIET: Duration = Duration::from_secs(60);

/// Different notices that are remembered; a source that has more to say is written down again.
const NOTICES: usize = 32;

/// Writes the supervisor's log. Holds one entry per (state, reason), so it is bounded by their number.
#[derive(Debug)]
pub(crate) struct Chronicle {
    camera: String,
    lines: HashMap<(State, Reason), Line>,
    notices: HashMap<String, Line>,
    decoder: Option<(String, String)>,
}

#[derive(Debug)]
struct Line {
    written: Mono,
    held_back: u64,
}

impl Chronicle {
    pub(crate) fn new(camera: String) -> Self {
        Self { camera, lines: HashMap::new(), notices: HashMap::new(), decoder: None }
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
            info!(name: "live", camera = self.camera, state = %State::Live, attempt, repeats, "live");
        }
    }

    pub(crate) fn degraded(&mut self, now: Mono, reason: Reason) {
        if let Some(repeats) = self.admit(State::Degraded, reason, now) {
            let what = match reason {
                Reason::Frozen => "frames come and the picture has not changed by a bit for frozen_after",
                _ => "frames are missing or late",
            };
            warn!(name: "degraded", camera = self.camera, state = %State::Degraded, %reason, repeats, "{what}");
        }
    }

    /// Nobody reads; `asked` is what is decoded meanwhile.
    pub(crate) fn parked(&mut self, now: Mono, asked: Demand) {
        if let Some(repeats) = self.admit(State::Parked, Reason::None, now) {
            let what = if asked == Demand::Keyframes { "only keyframes are decoded" } else { "nothing is decoded" };
            info!(name: "parked", camera = self.camera, state = %State::Parked, repeats, "nobody reads; {what} until somebody does");
        }
    }

    /// A session has taken the place of one that the camera would have ended soon.
    pub(crate) fn relieved(&mut self, now: Mono, session: u32) {
        if let Some(repeats) = self.admit(State::Live, Reason::Planned, now) {
            let (state, reason) = (State::Live, Reason::Planned);
            info!(camera = self.camera, %state, %reason, session, repeats, "another session has taken over without a gap");
        }
    }

    /// Requests were seen to keep a session alive beyond the age at which the camera ended others.
    pub(crate) fn keeps(&self, every: Duration) {
        let every = tenths(every);
        info!(camera = self.camera, "the camera ends no session that hears an RTSP request; one is sent every {every}");
    }

    /// A second session did not come up, or cost the first; told once for as long as the camera keeps its rhythm.
    pub(crate) fn alone(&self, why: &str) {
        warn!(
            camera = self.camera,
            "no second session beside the first ({why}); from now on the next one is begun when the camera has ended one"
        );
    }

    /// A session that was replaced does not end.
    pub(crate) fn lingers(&self, within: Duration) {
        let limit = humantime::format_duration(within);
        error!(
            camera = self.camera,
            "a session that was replaced did not end within {limit}; the process is replaced at the next outage"
        );
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
                warn!(name: "session_failed", camera, %state, %reason, attempt, retry_in_ms, silent_ms, repeats, "{what}; next try in {next}");
            }
            RetryClass::Permanent | RetryClass::Auth => {
                error!(name: "session_failed", camera, %state, %reason, attempt, retry_in_ms, silent_ms, repeats, "{what}; next try in {next}");
            }
        }
    }

    /// Something the source found worth a line.
    pub(crate) fn notice(&mut self, now: Mono, text: String) {
        if self.notices.len() >= NOTICES && !self.notices.contains_key(&text) {
            self.notices.clear();
        }
        let camera = self.camera.as_str();
        if let Some(repeats) = self.notices.entry(text.clone()).or_insert(Line::NEW).admit(now) {
            info!(camera, repeats, "{text}");
        }
    }

    /// A decoder was chosen; written when it is another one than last time.
    pub(crate) fn decoder(&mut self, codec: String, decoder: String) {
        let chosen = Some((codec, decoder));
        if self.decoder != chosen {
            self.decoder = chosen;
            if let Some((codec, decoder)) = &self.decoder {
                info!(name: "decoder_chosen", camera = self.camera, codec, decoder, "decoder chosen");
            }
        }
    }

    pub(crate) fn stopped(&self, clean: bool) {
        let how = if clean { "stopped" } else { "stopped while the session was still ending" };
        info!(name: "stopped", camera = self.camera, state = %State::Stopped, "{how}");
    }

    pub(crate) fn overran(&self, reason: Reason, within: Duration) {
        let limit = humantime::format_duration(within);
        let state = State::Restarting;
        error!(name: "process_replaced", camera = self.camera, %state, %reason, "the session did not end within {limit}; the process is replaced");
    }

    fn admit(&mut self, state: State, reason: Reason, now: Mono) -> Option<u64> {
        self.lines.entry((state, reason)).or_insert(Line::NEW).admit(now)
    }
}

impl Line {
    const NEW: Self = Self { written: Mono(i64::MIN), held_back: 0 };

    /// `Some(lines held back since the last one)` when this one may be written.
    fn admit(&mut self, now: Mono) -> Option<u64> {
        if now.since(self.written) < QUIET {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        let held_back = self.held_back;
        *self = Self { written: now, held_back: 0 };
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

    #[test]
    fn notices_are_remembered_but_not_for_ever() {
        let mut chronicle = Chronicle::new("yard".into());
        (0..1000).for_each(|n| chronicle.notice(Mono(n), format!("notice {n}")));
        assert!(chronicle.notices.len() <= NOTICES);
    }
}
