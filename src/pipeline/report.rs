//! What a session tells the supervisor: the first end counts, nothing after it, no secret in any sentence.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camring_ring::frame::Reason;
use crossbeam_channel::Sender;
use secrecy::{ExposeSecret, SecretString};

use super::arrival::mono_ns;
use crate::source::{RetryClass, RetryReason, SourceEvent};

/// How long a streaming thread waits for room in the supervisor's channel; it is empty but for a broken supervisor.
const SEND_DEADLINE: Duration = Duration::from_secs(1);

/// A notice of one kind is sent at most once in so long; the next one says how many were left out.
const NOTICE_INTERVAL_NS: i64 = 10_000_000_000;

/// Kinds of notices that are told apart; all later ones share a place.
const NOTICE_KINDS: usize = 32;

/// The way of one session's events to the supervisor.
pub(super) struct Reporter {
    events: Sender<SourceEvent>,
    closed: AtomicBool,
    secrets: Vec<SecretString>,
    notices: Mutex<HashMap<String, Notices>>,
}

#[derive(Default)]
struct Notices {
    sent_ns: Option<i64>,
    held_back: u64,
}

impl Reporter {
    /// Reports to `events`; `secrets` are cut out of every sentence.
    pub(super) fn new(events: Sender<SourceEvent>, secrets: Vec<SecretString>) -> Self {
        Self { events, closed: AtomicBool::new(false), secrets, notices: Mutex::default() }
    }

    /// Sends a change, unless the session is over.
    pub(super) fn event(&self, event: SourceEvent) {
        if !self.is_closed() {
            self.send(event);
        }
    }

    /// Ends the session with a reason, unless it is over already.
    pub(super) fn ended(&self, reason: Reason, class: RetryClass, message: &str) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.send(SourceEvent::Ended(RetryReason { reason, class, message: self.redact(message) }));
        }
    }

    /// One line for the log, at most one of a `kind` in 10 s.
    pub(super) fn notice(&self, kind: &str, text: &str) {
        let Some(held_back) = self.admit(kind, mono_ns()) else { return };
        let text = self.redact(text);
        let more =
            if held_back > 0 { format!(" (and {held_back} more since the last such line)") } else { String::new() };
        self.event(SourceEvent::Notice(text + &more));
    }

    /// Says nothing from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a notice may be sent now, and how many were held back before it.
    fn admit(&self, kind: &str, now_ns: i64) -> Option<u64> {
        let mut notices = self.notices.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let kind = if notices.len() < NOTICE_KINDS || notices.contains_key(kind) { kind } else { "" };
        let notices = notices.entry(kind.to_owned()).or_default();
        if notices.sent_ns.is_some_and(|sent_ns| now_ns - sent_ns < NOTICE_INTERVAL_NS) {
            notices.held_back += 1;
            return None;
        }
        notices.sent_ns = Some(now_ns);
        Some(std::mem::take(&mut notices.held_back))
    }

    fn send(&self, event: SourceEvent) {
        if let Err(crossbeam_channel::SendTimeoutError::Timeout(event)) = self.events.send_timeout(event, SEND_DEADLINE)
        {
            tracing::error!(?event, "the supervisor takes no events; this one is lost");
        }
        // A closed channel means that nobody supervises any more: the process is ending.
    }

    /// A sentence without addresses and secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut text = without_urls(text);
        for secret in &self.secrets {
            let secret = secret.expose_secret();
            // A shorter one is no secret, and would be found in the middle of words.
            if secret.len() >= 3 {
                text = text.replace(secret, "(secret)");
            }
        }
        text
    }
}

/// Replaces everything that looks like a URL.
fn without_urls(text: &str) -> String {
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(at) = rest.find("://") {
        let scheme = rest[..at].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |before| before + 1);
        // `rfind` gives the first byte of a character that may be longer than one.
        let scheme = (scheme..=at).find(|index| rest.is_char_boundary(*index)).unwrap_or(at);
        out.push_str(&rest[..scheme]);
        out.push_str("(url)");
        let tail = &rest[at + 3..];
        rest = &tail[tail.find([' ', '\t', '\n', '"', '\'', ')', '>', ',']).unwrap_or(tail.len())..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter() -> (Reporter, crossbeam_channel::Receiver<SourceEvent>) {
        let (events, receiver) = crossbeam_channel::bounded(16);
        (Reporter::new(events, vec!["viewer".into(), "s3cr3t".into(), "ab".into()]), receiver)
    }

    #[test]
    fn the_first_end_counts_and_nothing_follows_it() {
        let (reporter, receiver) = reporter();
        reporter.event(SourceEvent::FirstPacket);
        reporter.ended(Reason::ServerClosed, RetryClass::Transient, "first");
        reporter.ended(Reason::Internal, RetryClass::Transient, "second");
        reporter.event(SourceEvent::FirstPacket);
        let events: Vec<_> = receiver.try_iter().collect();
        assert!(
            matches!(&events[..], [SourceEvent::FirstPacket, SourceEvent::Ended(reason)] if reason.message == "first"),
            "{events:?}"
        );
    }

    #[test]
    fn urls_and_secrets_are_cut_out() {
        let (reporter, _receiver) = reporter();
        assert_eq!(
            reporter.redact("cannot open rtsp://viewer:s3cr3t@10.0.0.1:554/x, \"http://y\" as viewer/s3cr3t; ab"),
            "cannot open (url), \"(url)\" as (secret)/(secret); ab"
        );
        assert_eq!(reporter.redact("é://ü://x y"), "é(url) y");
        assert_eq!(reporter.redact("nothing to hide"), "nothing to hide");
    }

    #[test]
    fn notices_of_one_kind_are_held_back_and_counted() {
        let (reporter, _receiver) = reporter();
        let second = 1_000_000_000;
        assert_eq!(reporter.admit("decoder", 0), Some(0));
        assert_eq!(reporter.admit("decoder", second), None);
        assert_eq!(reporter.admit("decoder", 9 * second), None);
        assert_eq!(reporter.admit("other", 9 * second), Some(0));
        assert_eq!(reporter.admit("decoder", 10 * second), Some(2));
        let admitted = (0..1000).filter(|kind| reporter.admit(&kind.to_string(), 0).is_some()).count();
        assert!(admitted < NOTICE_KINDS, "{admitted}");
        assert!(reporter.notices.lock().expect("not poisoned").len() <= NOTICE_KINDS + 1);
    }
}
