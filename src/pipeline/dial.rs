//! The dialling: how far a session has come before its first packet, from what rtspsrc says of its progress.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How long a connect may hang. The kernel asks at once, after 1 s and after 3 s, and then not before 7 s: until then a
/// new try would be heard sooner.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// How far it has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Stage {
    /// Nothing was said so far.
    Quiet,
    /// The name is looked up, or the camera has not answered yet.
    Connecting,
    /// The connection is made and the first request on its way.
    Connected,
}

/// Whether a message says that the camera has agreed to send.
pub(super) fn is_agreed(message: &gst::MessageRef) -> bool {
    progress(message) == Some((gst::ProgressType::Complete, "request"))
}

/// Kind and code of a progress message; `None` of any other.
fn progress(message: &gst::MessageRef) -> Option<(gst::ProgressType, &str)> {
    let structure = message.structure().filter(|_| message.type_() == gst::MessageType::Progress)?;
    // Not `message::Progress::get`: it loses the copies of both texts that GStreamer gives away (gstreamer 0.25).
    Some((structure.get("type").ok()?, structure.get("code").ok()?))
}

/// Follows one session's connect; the streaming threads write, the bus thread reads.
#[derive(Debug)]
pub(super) struct Dial(AtomicU8);

impl Dial {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(Stage::Quiet as u8))
    }

    /// Takes note of a message.
    pub(super) fn hear(&self, message: &gst::MessageRef) {
        if let Some((kind, code)) = progress(message) {
            self.note(kind, code);
        }
    }

    fn note(&self, kind: gst::ProgressType, code: &str) {
        if kind != gst::ProgressType::Continue {
            return;
        }
        // "open" goes on when the connection is there and the options are asked for.
        match code {
            "connect" => self.0.store(Stage::Connecting as u8, Ordering::Relaxed),
            _ if self.is_connecting() => self.0.store(Stage::Connected as u8, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether the connection is known to be under way.
    pub(super) fn is_connecting(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Stage::Connecting as u8
    }

    /// Whether the connection is known to be made.
    pub(super) fn is_connected(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Stage::Connected as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_play_request_is_told_from_other_progress() {
        gst::init().expect("GStreamer");
        let said = |kind, code: &str| is_agreed(&gst::message::Progress::builder(kind, code, "Sent").build());
        assert!(said(gst::ProgressType::Complete, "request"));
        assert!(!said(gst::ProgressType::Start, "request") && !said(gst::ProgressType::Complete, "open"));
        assert!(!is_agreed(&gst::message::Eos::new()));
    }

    #[test]
    fn a_connect_is_followed_from_the_look_up_to_the_first_request() {
        use gst::ProgressType::{Continue, Start};
        let dial = Dial::new();
        let mut seen = Vec::new();
        for (kind, code) in [(Start, "open"), (Continue, "connect"), (Start, "request"), (Continue, "open")] {
            dial.note(kind, code);
            seen.push((dial.is_connecting(), dial.is_connected()));
        }
        assert_eq!(seen, [(false, false), (true, false), (true, false), (false, true)]);
    }
}
