//! The supervisor's board, on the rings: states, texts and counts go into the header of each of a camera's segments.

use std::sync::Arc;

use camring_ring::{Counter, Reason, State};

use crate::camera::{Board, Counts};
use crate::rings::Rings;

/// Writes what the supervisor says into all rings of a camera.
pub struct RingBoard {
    rings: Arc<Rings>,
}

impl RingBoard {
    /// A board on these rings.
    #[must_use]
    pub fn new(rings: Arc<Rings>) -> Self {
        Self { rings }
    }
}

impl Board for RingBoard {
    fn set_state(&mut self, state: State, reason: Reason, attempt: u8, next_retry_mono_ns: Option<i64>) {
        self.rings.set_state(state, reason, attempt, next_retry_mono_ns);
    }

    fn set_text(&mut self, codec: &str, decoder: &str) {
        self.rings.set_text(decoder, codec);
    }

    fn reconnected(&mut self, reason: Reason) {
        self.rings.each(|status| status.count_reconnect(reason));
    }

    fn session(&mut self, id: u32) {
        self.rings.set_session(id);
    }

    fn counted(&mut self, counts: &Counts) {
        let added = [
            (Counter::Packets, counts.packets),
            (Counter::PacketsLost, counts.packets_lost),
            (Counter::Decoded, counts.decoded),
            (Counter::DroppedGate, counts.dropped_gate),
            (Counter::DroppedLeaky, counts.dropped_leaky),
            (Counter::DecodeErrors, counts.decode_errors),
        ];
        for (counter, value) in added.into_iter().filter(|(_, value)| *value > 0) {
            self.rings.each(|status| status.add(counter, value));
        }
        self.rings.tell_refusals();
    }

    fn published(&self) -> u64 {
        self.rings.published()
    }

    fn attended(&self) -> bool {
        self.rings.is_attended()
    }

    fn refusal(&self) -> Option<Reason> {
        self.rings.refusal()
    }
}
