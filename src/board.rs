//! The supervisor's board, on the ring: states, texts and counts go into the segment's header.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camring_ring::{Counter, Reason, State, StatusHandle};

use crate::camera::{Board, Counts};
use crate::publish::Shared;

/// Writes what the supervisor says into one ring.
#[derive(Debug)]
pub struct RingBoard {
    status: StatusHandle,
    shared: Arc<Shared>,
}

impl RingBoard {
    /// A board on the ring of `status`; `shared` is what its publisher counts.
    #[must_use]
    pub fn new(status: StatusHandle, shared: Arc<Shared>) -> Self {
        Self { status, shared }
    }
}

impl Board for RingBoard {
    fn set_state(&mut self, state: State, reason: Reason, attempt: u8, next_retry_mono_ns: Option<i64>) {
        self.status.set_state(state, reason, attempt, next_retry_mono_ns);
    }

    fn set_text(&mut self, codec: &str, decoder: &str) {
        self.status.set_text(decoder, codec);
    }

    fn reconnected(&mut self, reason: Reason) {
        self.status.count_reconnect(reason);
    }

    fn session(&mut self, id: u32) {
        self.status.set_session(id);
        self.shared.session.store(id, Relaxed);
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
            self.status.add(counter, value);
        }
    }

    fn published(&self) -> u64 {
        self.shared.published.load(Relaxed)
    }

    fn attended(&self) -> bool {
        self.status.is_attended()
    }

    fn refusal(&self) -> Option<Reason> {
        self.shared.refusal()
    }
}
