//! Showing: what readers and the service manager are told of the supervisor's state.

use camring_ring::frame::{Reason, State};

use super::Camera;
use super::phase::{Phase, state_word};
use super::watch::tenths;
use crate::clock::Mono;

/// What the board shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Shown {
    pub(super) state: State,
    pub(super) reason: Reason,
    pub(super) attempt: u8,
    pub(super) next_retry: Option<Mono>,
}

impl Camera {
    pub(super) fn show(&mut self, phase: Phase, reason: Reason, next_retry: Option<Mono>) {
        let attempt = match phase {
            Phase::Idle | Phase::Live | Phase::Degraded | Phase::Parked | Phase::Refused => 0,
            _ => self.tries.count(),
        };
        let shown = Shown { state: state_word(phase, reason, self.past), reason, attempt, next_retry };
        let text = self.status_text(shown);
        if self.put(shown) {
            self.health.status(&text);
        }
    }

    /// Puts it on the board; `false` when the board shows it already.
    pub(super) fn put(&mut self, shown: Shown) -> bool {
        let changed = self.shown != Some(shown);
        if changed {
            let next_retry = shown.next_retry.map(|moment| moment.0);
            self.board.set_state(shown.state, shown.reason, shown.attempt, next_retry);
            self.shown = Some(shown);
        }
        changed
    }

    pub(super) fn state(&self) -> State {
        self.shown.map_or(State::Starting, |shown| shown.state)
    }

    fn status_text(&self, shown: Shown) -> String {
        let mut text = shown.state.to_string();
        if shown.reason != Reason::None {
            text += &format!(": {}", shown.reason);
        }
        if shown.attempt > 1 {
            text += &format!(", try {}", shown.attempt);
        }
        if let Some(moment) = shown.next_retry {
            text += &format!(", next in {}", tenths(moment.since(self.clock.now())));
        }
        text
    }
}
