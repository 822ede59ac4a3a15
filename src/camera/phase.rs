//! The supervisor's phases and the words that users see for them.

use camring_ring::frame::{Reason, State};

/// Where the supervisor is with its camera.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// The ring is there, the camera has not been tried.
    Idle,
    /// A session was begun, no packet yet.
    Connecting,
    /// Packets arrive, no frame was published yet.
    Syncing,
    /// Frames are published.
    Live,
    /// Frames are missing or late.
    Degraded,
    /// Connected, and the decoder rests because nobody reads.
    Parked,
    /// Frames come and the ring cannot take them.
    Refused,
    /// A session is being ended.
    Stopping(Cause),
    /// Waiting before the next try.
    Backoff,
}

/// What a session is ended for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Frames stopped coming.
    Silence,
    /// Anything else.
    Failure,
}

/// Whether the ring ever held a frame of this camera.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Past {
    /// No frame was ever published: the camera was never reached.
    Empty,
    /// Frames were published, by this process or by one before it.
    HadFrames,
}

/// The word that users see.
///
/// A camera that was never reached stays `connecting` between tries as well, so that the time since when it is away
/// counts from the first one.
#[must_use]
pub fn state_word(phase: Phase, reason: Reason, past: Past) -> State {
    let away = if past == Past::Empty { State::Connecting } else { State::Reconnecting };
    match phase {
        Phase::Idle => State::Starting,
        Phase::Syncing if past == Past::Empty => State::Syncing,
        Phase::Live => State::Live,
        Phase::Degraded => State::Degraded,
        Phase::Parked => State::Parked,
        Phase::Stopping(Cause::Silence) => State::Stalled,
        Phase::Refused => State::Error,
        Phase::Backoff if needs_operator(reason) => State::Error,
        Phase::Connecting | Phase::Syncing | Phase::Stopping(Cause::Failure) | Phase::Backoff => away,
    }
}

/// Whether only a human can remove the cause.
fn needs_operator(reason: Reason) -> bool {
    matches!(reason, Reason::NoRoom | Reason::NameTaken | Reason::Config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_the_word_of_the_state_table() {
        let rows = [
            (Phase::Idle, State::Starting, State::Starting),
            (Phase::Connecting, State::Connecting, State::Reconnecting),
            (Phase::Syncing, State::Syncing, State::Reconnecting),
            (Phase::Live, State::Live, State::Live),
            (Phase::Degraded, State::Degraded, State::Degraded),
            (Phase::Parked, State::Parked, State::Parked),
            (Phase::Refused, State::Error, State::Error),
            (Phase::Stopping(Cause::Silence), State::Stalled, State::Stalled),
            (Phase::Stopping(Cause::Failure), State::Connecting, State::Reconnecting),
            (Phase::Backoff, State::Connecting, State::Reconnecting),
        ];
        for (phase, never_reached, reached) in rows {
            assert_eq!(state_word(phase, Reason::None, Past::Empty), never_reached, "{phase:?}");
            assert_eq!(state_word(phase, Reason::None, Past::HadFrames), reached, "{phase:?}");
        }
    }

    #[test]
    fn what_only_a_human_can_mend_is_an_error() {
        for reason in [Reason::NoRoom, Reason::NameTaken, Reason::Config] {
            assert_eq!(state_word(Phase::Backoff, reason, Past::HadFrames), State::Error);
        }
        assert_eq!(state_word(Phase::Backoff, Reason::Auth, Past::HadFrames), State::Reconnecting);
        for reason in Reason::ALL.iter().filter(|reason| needs_operator(**reason)) {
            assert!(crate::report::needs_person(*reason), "whoever watches says so as well: {reason}");
        }
    }
}
