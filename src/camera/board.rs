//! The board: what the supervisor tells readers, without knowing that a ring carries it.

use std::sync::atomic::Ordering::Relaxed;

use camring_ring::frame::{Reason, State};

use crate::source::Progress;

/// Where the supervisor writes down what readers, `list` and metrics see; all calls come from its one thread and
/// must not block.
pub trait Board: Send {
    /// The camera's state and why.
    ///
    /// `attempt` counts the tries since the camera was last live for `live_reset`, 0 while it is live; it stays at 255.
    /// `next_retry_mono_ns` (CLOCK_MONOTONIC) is set while the supervisor waits before a try. Called on every change
    /// of any of the four; "state since" is to change only when `state` does.
    fn set_state(&mut self, state: State, reason: Reason, attempt: u8, next_retry_mono_ns: Option<i64>);

    /// The words for the stream's codec and for the decoder chosen for it.
    fn set_text(&mut self, codec: &str, decoder: &str);

    /// The camera is live again after it was lost; `reason` is why it had been lost.
    fn reconnected(&mut self, reason: Reason);

    /// Number of the session whose frames come next; called before each try, so that no frame carries an older one.
    /// Grows by one with each session that got as far as a first packet.
    fn session(&mut self, id: u32);

    /// What the streaming threads counted since the previous call.
    fn counted(&mut self, counts: &Counts);

    /// Frames that this process has published in the camera's main ring, in all generations of it; never goes back.
    fn published(&self) -> u64;

    /// Whether a reader that counts itself is attached.
    fn attended(&self) -> bool;

    /// Why the ring takes no frames at the moment (`no_room`, `frame_too_large`, `name_taken`), if it does not.
    fn refusal(&self) -> Option<Reason>;
}

/// Increments of the counters in [`Progress`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Media packets that arrived.
    pub packets: u64,
    /// Packets known to be lost.
    pub packets_lost: u64,
    /// Pictures that the decoder delivered.
    pub decoded: u64,
    /// Access units dropped by the keyframe gate.
    pub dropped_gate: u64,
    /// Access units dropped because the decoder was too slow.
    pub dropped_leaky: u64,
    /// Errors and warnings of the decoder.
    pub decode_errors: u64,
}

impl Counts {
    /// The totals of a session so far.
    #[must_use]
    pub fn of(progress: &Progress) -> Self {
        Self {
            packets: progress.packets.load(Relaxed),
            packets_lost: progress.packets_lost.load(Relaxed),
            decoded: progress.decoded.load(Relaxed),
            dropped_gate: progress.dropped_gate.load(Relaxed),
            dropped_leaky: progress.dropped_leaky.load(Relaxed),
            decode_errors: progress.decode_errors.load(Relaxed),
        }
    }

    /// What was added since `earlier`; zero for a counter that went back.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            packets_lost: self.packets_lost.saturating_sub(earlier.packets_lost),
            decoded: self.decoded.saturating_sub(earlier.decoded),
            dropped_gate: self.dropped_gate.saturating_sub(earlier.dropped_gate),
            dropped_leaky: self.dropped_leaky.saturating_sub(earlier.dropped_leaky),
            decode_errors: self.decode_errors.saturating_sub(earlier.decode_errors),
        }
    }
}
